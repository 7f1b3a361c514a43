//! Files that are read through the memory map, or as a whole where there is none.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::disk::Files;

/// An immutable file's bytes, aligned to eight bytes at least.
#[derive(Debug)]
pub(crate) enum FileBytes {
    Mapped(memmap2::Mmap),
    /// Where the file system can't map files. Words, so that rows are aligned; the length is in bytes.
    Read(Vec<u64>, usize),
}

impl FileBytes {
    pub(crate) fn open(files: &Files, path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        match files.layer().may_map(path).and_then(|()| map(&file)) {
            Ok(map) => return Ok(Self::Mapped(map)),
            Err(error) if file.metadata()?.len() > 0 => files.tell_no_maps(path, &error),
            Err(_) => {}
        }
        Self::read(file)
    }

    /// A file that is replaced while it is open: on Windows none may be that is mapped.
    pub(crate) fn open_replaceable(files: &Files, path: &Path) -> io::Result<Self> {
        if cfg!(windows) {
            Self::read(File::open(path)?)
        } else {
            Self::open(files, path)
        }
    }

    fn read(mut file: File) -> io::Result<Self> {
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let mut words = vec![0_u64; length.div_ceil(8)];
        file.read_exact(&mut bytemuck::cast_slice_mut(&mut words)[..length])?;
        Ok(Self::Read(words, length))
    }
}

impl FileBytes {
    /// A copy of `bytes`, aligned like a file's.
    pub(crate) fn copied(bytes: &[u8]) -> Self {
        let mut words = vec![0_u64; bytes.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Self::Read(words, bytes.len())
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

fn map(file: &File) -> io::Result<memmap2::Mmap> {
    #[expect(unsafe_code, reason = "the memory map")]
    // SAFETY: segment files are never changed once they have their name: they are written under a temporary name,
    // renamed into place, and only ever renamed or unlinked. Nothing in this program truncates or writes a mapped file.
    unsafe {
        memmap2::Mmap::map(file)
    }
}
