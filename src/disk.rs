//! Files that are there whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// A temporary file in the folder of `path`, to become `path` with [`put_in_place`].
///
/// # Errors
/// When the folder is missing or can't be written.
pub(crate) fn create_beside(path: &Path) -> Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".lastlayer-");
    #[cfg(unix)]
    {
        // Temporary files are private by default; these become files like any other the user writes.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder_of(path)).map_err(Error::io("write", path))
}

/// Makes `file` durable under the name `path`, replacing what is there: a crash at any moment leaves the old or the new.
pub(crate) fn put_in_place(file: NamedTempFile, path: &Path) -> Result<()> {
    let put = || -> io::Result<()> {
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        sync_folder(folder_of(path))
    };
    put().map_err(Error::io("write", path))
}

/// Writes `parts` one after another to `path`, which then has all of them or what it had before.
pub(crate) fn write_atomically(path: &Path, parts: &[&[u8]]) -> Result<()> {
    let mut file = create_beside(path)?;
    for part in parts {
        file.write_all(part).map_err(Error::io("write", path))?;
    }
    put_in_place(file, path)
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
    if cfg!(unix) {
        File::open(folder)?.sync_all()
    } else {
        Ok(())
    }
}
