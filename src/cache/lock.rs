//! The lock that is held while a space's index is replaced.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::error::{Error, Result};

/// Holds an exclusive lock on a file until it is dropped; the operating system frees it when the process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: Option<File>,
}

impl Lock {
    /// Waits for the lock on `path`, creating the file.
    ///
    /// A file system without locks is worked on without: two writers there could each miss the other's newest segment
    /// in the index, and the next writer takes it up again as an orphan, so nothing is lost.
    pub(crate) fn acquire(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(Error::io("lock", path))?;
        match file.try_lock() {
            Ok(()) => return Ok(Self { _file: Some(file) }),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Self::without(path, &error),
        }
        match file.lock() {
            Ok(()) => Ok(Self { _file: Some(file) }),
            Err(error) => Self::without(path, &error),
        }
    }

    fn without(path: &Path, error: &std::io::Error) -> Result<Self> {
        tracing::warn!("{} can't be locked ({error}): going on without a lock", path.display());
        Ok(Self { _file: None })
    }
}
