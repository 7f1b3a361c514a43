//! Files that are there whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serializer;
use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// How the names of temporary files begin.
const TEMPORARY: &str = ".lastlayer-";

/// Serialises a path as text; bytes that are no UTF-8 become replacement characters.
pub(crate) fn lossy<S: Serializer>(path: &Path, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// Serialises paths as [`lossy`] does.
pub(crate) fn lossy_list<S: Serializer>(paths: &[PathBuf], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_seq(paths.iter().map(|path| path.to_string_lossy()))
}

/// A file that the user named for output, with its bytes going where the name leads.
///
/// A regular file is replaced when it is complete; a link's target in its place. What is no regular file, such as a pipe
/// or `/dev/stdout`, is written to.
pub(crate) enum Output {
    Replace(NamedTempFile, PathBuf),
    Stream(File, PathBuf),
}

impl Output {
    /// Begins the file `path`.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        match fs::metadata(&target) {
            Ok(metadata) if !metadata.is_file() => {
                let file = fs::OpenOptions::new()
                    .write(true)
                    .open(&target)
                    .map_err(Error::io("write", path))?;
                Ok(Self::Stream(file, target))
            }
            _ => Ok(Self::Replace(create_beside(&target)?, target)),
        }
    }

    /// Ends the file; only now a regular file has its name.
    pub(crate) fn finish(self) -> Result<()> {
        match self {
            Self::Replace(file, path) => put_in_place(file, &path),
            Self::Stream(mut file, path) => file.flush().map_err(Error::io("write", path)),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Replace(file, _) => file.write(bytes),
            Self::Stream(file, _) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Replace(file, _) => file.flush(),
            Self::Stream(file, _) => file.flush(),
        }
    }
}

/// A temporary file in the folder of `path`, to become `path` with [`put_in_place`].
fn create_beside(path: &Path) -> Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY);
    #[cfg(unix)]
    {
        // Temporary files are private by default; these become files like any other the user writes.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder_of(path)).map_err(Error::io("write", path))
}

/// Makes `file` durable under the name `path`, replacing what is there: a crash at any moment leaves the old or the new.
fn put_in_place(file: NamedTempFile, path: &Path) -> Result<()> {
    let put = || -> io::Result<()> {
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        sync_folder(folder_of(path))
    };
    put().map_err(Error::io("write", path))
}

/// A file that is being written and has its name once it is complete.
pub(crate) struct Pending {
    file: io::BufWriter<NamedTempFile>,
    path: PathBuf,
}

impl Pending {
    /// Begins the file `path`.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        Ok(Self {
            file: io::BufWriter::with_capacity(1 << 20, create_beside(path)?),
            path: path.to_path_buf(),
        })
    }

    /// Makes the file durable under its name, replacing what is there.
    pub(crate) fn commit(self) -> Result<()> {
        let file = self.file.into_inner().map_err(|error| Error::io("write", &self.path)(error.into_error()))?;
        put_in_place(file, &self.path)
    }
}

impl Write for Pending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes `parts` one after another to `path`, which then has all of them or what it had before.
pub(crate) fn write_atomically(path: &Path, parts: &[&[u8]]) -> Result<()> {
    let mut file = create_beside(path)?;
    for part in parts {
        file.write_all(part).map_err(Error::io("write", path))?;
    }
    put_in_place(file, path)
}

/// Sets a file's modification time to now; whoever may not is passed over.
pub(crate) fn touch(path: &Path) {
    let touched = File::options().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
    if let Err(error) = touched {
        tracing::debug!("{}: {error}", path.display());
    }
}

/// Removes temporary files that a killed program left in `folder` more than a day ago.
pub(crate) fn sweep(folder: &Path) {
    let old = |entry: &fs::DirEntry| {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let age = modified.ok().and_then(|modified| modified.elapsed().ok());
        age.is_some_and(|age| age > Duration::from_secs(24 * 60 * 60))
    };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) && old(&entry) {
            // Whoever else removes it first is welcome.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Creates `folder` and what is missing above it.
pub(crate) fn create_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::io("create", folder))
}

fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Makes a rename in `folder` survive a power cut; other systems than Unix need and allow nothing here.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(folder)?.sync_all() {
        // Some network file systems have no such thing; the rename was done all the same.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        result => result,
    }
}
