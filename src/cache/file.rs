//! Files that are there whole or not at all, and files that are read through the memory map.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// Writes `parts` one after another to `path`: a crash at any moment leaves the old file or the new one.
///
/// The bytes go to a temporary file in the same folder, are synced, renamed over `path`, and the folder is synced.
pub(crate) fn write_atomically(path: &Path, parts: &[&[u8]]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let write = || -> io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(".")
            .suffix(".tmp")
            .tempfile_in(folder)?;
        for part in parts {
            file.write_all(part)?;
        }
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        sync_folder(folder)
    };
    write().map_err(Error::io("write", path))
}

/// Makes a rename in `folder` survive a power cut; other systems than Unix need and allow nothing here.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(folder)?.sync_all()
    } else {
        Ok(())
    }
}

/// Creates `folder` and what is missing above it.
pub(crate) fn create_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::io("create", folder))
}

/// An immutable file's bytes, aligned to eight bytes at least.
#[derive(Debug)]
pub(crate) enum FileBytes {
    Mapped(memmap2::Mmap),
    /// Where the file system can't map files. Words, so that rows are aligned; the length is in bytes.
    Read(Vec<u64>, usize),
}

impl FileBytes {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        #[expect(unsafe_code, reason = "the memory map")]
        // SAFETY: segment files are never changed once they have their name: they are written under a temporary name,
        // renamed into place, and only ever unlinked. Nothing in this program truncates or writes a mapped file.
        let mapped = unsafe { memmap2::Mmap::map(&file) };
        if let Ok(map) = mapped {
            return Ok(Self::Mapped(map));
        }
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let mut words = vec![0_u64; length.div_ceil(8)];
        file.read_exact(&mut bytemuck::cast_slice_mut(&mut words)[..length])?;
        Ok(Self::Read(words, length))
    }
}

impl std::ops::Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Read(words, length) => &bytemuck::cast_slice(words)[..*length],
        }
    }
}
