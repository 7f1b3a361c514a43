//! Files that are there whole or not at all.

#[cfg(test)]
pub(crate) mod faulty;
mod files;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serializer;
use tempfile::NamedTempFile;

use crate::error::{Error, Result};
pub(crate) use files::Files;
pub use files::{FileLayer, LockKind, PendingData, SystemFiles};

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
            _ => {
                let file = temporary_file(folder_of(&target)).map_err(Error::io("write", path))?;
                Ok(Self::Replace(file, target))
            }
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

/// A temporary file in `folder`, to become a file like any other with [`put_in_place`].
fn temporary_file(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY);
    #[cfg(unix)]
    {
        // Temporary files are private by default; these become files like any other the user writes.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder).map_err(without_path)
}

/// The system's own error: the name of a temporary file tells the user nothing.
fn without_path(error: io::Error) -> io::Error {
    let source = error.get_ref().and_then(std::error::Error::source);
    let system = source.and_then(|source| source.downcast_ref::<io::Error>());
    match system.and_then(io::Error::raw_os_error) {
        Some(code) => io::Error::from_raw_os_error(code),
        None => error,
    }
}

/// Makes `file` durable under the name `path`, replacing what is there: a crash at any moment leaves the old or the new.
fn put_in_place(file: NamedTempFile, path: &Path) -> Result<()> {
    let put = || -> io::Result<()> {
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        SystemFiles.sync_folder(folder_of(path))
    };
    put().map_err(Error::io("write", path))
}

/// Writes `parts` one after another to `path`, which then has all of them or what it had before.
pub(crate) fn write_atomically(path: &Path, parts: &[&[u8]]) -> Result<()> {
    Files::system().write(path, parts)
}

/// Creates `folder` and what is missing above it.
pub(crate) fn create_folder(folder: &Path) -> Result<()> {
    Files::system().create_folder(folder)
}

/// Whether the name is that of a file in the making, or of one that a killed program left.
pub(crate) fn is_temporary(name: &OsStr) -> bool {
    name.to_string_lossy().starts_with(TEMPORARY)
}

/// Whether it is a temporary file that nobody can be writing any more.
pub(crate) fn is_old_leftover(path: &Path) -> bool {
    let old = || {
        let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
        let age = modified.ok().and_then(|modified| modified.elapsed().ok());
        age.is_some_and(|age| age > Duration::from_secs(24 * 60 * 60))
    };
    path.file_name().is_some_and(is_temporary) && old()
}

/// Whether nothing is there for sure; a folder that may not be entered, or a disk that does not answer, tells nothing.
pub(crate) fn is_gone(path: &Path) -> bool {
    let absent = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
    fs::metadata(path).is_err_and(|error| absent.contains(&error.kind()))
}

fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}
