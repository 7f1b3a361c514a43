//! The file a download is written to, which knows the SHA-256 of what it holds.
//!
//! When to go on with it, start over or replace it is the download's business.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::{Error, Result};

/// The file that is being written, with the hash of what it holds.
pub(super) struct Part {
    pub(super) path: PathBuf,
    file: File,
    /// Bytes written.
    pub(super) length: u64,
    hasher: Sha256,
}

impl Part {
    /// Opens or makes the file and hashes what an earlier run left in it.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(Error::io("write", path))?;
        let mut hasher = Sha256::new();
        let length = io::copy(&mut file, &mut HashWriter(&mut hasher)).map_err(Error::io("read", path))?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            length,
            hasher,
        })
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io("write", &self.path))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).map_err(Error::io("write", &self.path))?;
        self.file
            .seek(SeekFrom::Start(0))
            .map_err(Error::io("write", &self.path))?;
        self.hasher = Sha256::new();
        self.length = 0;
        Ok(())
    }

    /// Replaces this file by `other`, which is renamed.
    pub(super) fn replace_by(&mut self, other: Self) -> Result<()> {
        let path = self.path.clone();
        let Self {
            path: from,
            file,
            length,
            hasher,
        } = other;
        file.sync_all().map_err(Error::io("write", &from))?;
        drop(file);
        // Windows renames onto no open file.
        drop(std::mem::replace(
            &mut self.file,
            File::open(&from).map_err(Error::io("read", &from))?,
        ));
        fs::rename(&from, &path).map_err(Error::io("write", &path))?;
        let mut options = OpenOptions::new();
        self.file = options
            .read(true)
            .write(true)
            .open(&path)
            .map_err(Error::io("write", &path))?;
        self.file.seek(SeekFrom::End(0)).map_err(Error::io("write", &path))?;
        (self.length, self.hasher) = (length, hasher);
        Ok(())
    }

    pub(super) fn flush(&self) -> Result<()> {
        self.file.sync_all().map_err(Error::io("write", &self.path))
    }

    pub(super) fn hash(&self) -> String {
        hex(&self.hasher.clone().finalize())
    }

    pub(super) fn persist(self, destination: &Path) -> Result<()> {
        self.flush()?;
        // Windows renames no open file.
        drop(self.file);
        fs::rename(&self.path, destination).map_err(Error::io("write", destination))?;
        sync_folder(destination);
        Ok(())
    }

    pub(super) fn remove(self) {
        drop(self.file);
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes a rename durable, where the system offers that.
fn sync_folder(file: &Path) {
    if cfg!(unix)
        && let Some(Ok(folder)) = file.parent().map(File::open)
    {
        let _ = folder.sync_all();
    }
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The SHA-256 of a file as 64 lower-case hex digits.
pub(crate) fn sha256_of_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let mut hasher = Sha256::new();
    io::copy(&mut file, &mut HashWriter(&mut hasher)).map_err(Error::io("read", path))?;
    Ok(hex(&hasher.finalize()))
}

/// Bytes as lower-case hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
