//! The two locks of a space: one while its index is replaced, one as long as a writer lives.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;

use crate::disk::{Files, LockKind};
use crate::error::{Error, Result};

/// Held while the index is replaced.
pub(crate) const INDEX_LOCK: &str = "lock";
/// Shared by all writers of a space as long as they live, so that nothing is removed under their feet.
pub(crate) const USERS_LOCK: &str = "users";

/// Holds a lock on a file until it is dropped; the operating system frees it when the process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    file: Option<File>,
}

impl Lock {
    /// Waits for the lock on `path`, creating the file.
    ///
    /// A file system without locks is worked on without: two writers there could each miss the other's newest segment
    /// in the index, and the next writer takes it up again as an orphan, so nothing is lost.
    pub(crate) fn wait(files: &Files, path: &Path, kind: LockKind) -> Result<Self> {
        if let Some(lock) = Self::take(files, path, kind)? {
            return Ok(lock);
        }
        loop {
            let file = files.layer().open_lock(path).map_err(Error::io("lock", path))?;
            if let Err(error) = files.layer().lock(&file, kind) {
                if error.kind() == ErrorKind::Interrupted {
                    continue;
                }
                files.tell_no_locks(path, &error);
                return Ok(Self { file: None });
            }
            // Whoever held it may have removed the file, and a lock on that keeps nobody away.
            if is_at(&file, path) {
                return Ok(Self { file: Some(file) });
            }
        }
    }

    /// Takes the lock on `path`, creating the file; `None` when somebody else has it.
    pub(crate) fn take(files: &Files, path: &Path, kind: LockKind) -> Result<Option<Self>> {
        loop {
            let file = files.layer().open_lock(path).map_err(Error::io("lock", path))?;
            match files.layer().try_lock(&file, kind) {
                Ok(()) if is_at(&file, path) => return Ok(Some(Self { file: Some(file) })),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => {}
                Err(TryLockError::Error(error)) => {
                    files.tell_no_locks(path, &error);
                    return Ok(Some(Self { file: None }));
                }
            }
        }
    }

    /// Whether there is a lock, or only a file system without.
    pub(crate) fn is_real(&self) -> bool {
        self.file.is_some()
    }
}

/// Whether `path` still leads to the open `file`.
fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        match (file.metadata(), std::fs::metadata(path)) {
            (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
            (Ok(_), Err(error)) => error.kind() != ErrorKind::NotFound,
            _ => true,
        }
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        path.exists()
    }
}
