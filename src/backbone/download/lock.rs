//! Keeps processes that fetch the same from each other's files, and clears away what killed ones left.
//!
//! What is fetched is verified, so where there are no locks the worst is that it is fetched twice.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::{Error, Observer, Result};

/// Takes the lock on `path`, waiting for another process that holds it.
///
/// Where the file system has no locks two processes may fetch the same file twice.
pub(crate) fn lock(path: &Path, observer: &dyn Observer) -> Result<File> {
    loop {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(Error::io("lock", path))?;
        wait_for_lock(path, &mut || file.try_lock(), observer)?;
        // Whoever held it may have removed the file, and a lock on that keeps nobody away.
        if is_at(&file, path) {
            return Ok(file);
        }
    }
}

fn wait_for_lock(
    path: &Path,
    try_lock: &mut dyn FnMut() -> Result<(), TryLockError>,
    observer: &dyn Observer,
) -> Result<()> {
    let mut told = false;
    loop {
        match try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            // Network file systems may have none, and say so in many ways.
            Err(TryLockError::Error(error)) => {
                tracing::warn!(path = %path.display(), %error, "cannot lock; going on without");
                return Ok(());
            }
            Err(TryLockError::WouldBlock) => {
                if !told {
                    observer.note("waiting for another process that fetches the same file");
                    told = true;
                }
                if observer.interrupted() {
                    return Err(Error::Interrupted);
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// Whether `path` still leads to the open `file`.
fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        match (file.metadata(), fs::metadata(path)) {
            (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
            (Ok(_), Err(error)) => error.kind() != io::ErrorKind::NotFound,
            _ => true,
        }
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        path.exists()
    }
}

/// The prefix of the folders in which something is fetched, and which the end of the fetch removes.
pub(crate) const STAGING: &str = ".fetch-";

/// Removes from `folder` what killed fetches left there: no fetch takes a day.
pub(crate) fn sweep(folder: &Path) {
    sweep_at(folder, SystemTime::now());
}

fn sweep_at(folder: &Path, now: SystemTime) {
    const OLD: Duration = Duration::from_secs(24 * 60 * 60);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_staging = entry.file_name().to_string_lossy().starts_with(STAGING);
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let is_old = modified.is_ok_and(|modified| now.duration_since(modified).is_ok_and(|age| age > OLD));
        if is_staging && is_old {
            tracing::debug!(path = %entry.path().display(), "left by a fetch that was ended: removed");
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Gives a lock up and removes its file; who waits for it sees that it is gone, and takes a new one.
pub(super) fn release(lock: File, path: &Path) {
    if cfg!(unix) {
        let _ = fs::remove_file(path);
        drop(lock);
    } else {
        // Windows keeps the name of an open file.
        drop(lock);
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::Quiet;

    #[test]
    fn without_locks_the_work_goes_on() {
        let mut asked = 0;
        let outcome = wait_for_lock(
            Path::new("file.lock"),
            &mut || {
                asked += 1;
                Err(match asked {
                    1 => TryLockError::WouldBlock,
                    2 => TryLockError::Error(io::Error::from(io::ErrorKind::Interrupted)),
                    // ENOLCK on Linux.
                    _ => TryLockError::Error(io::Error::from_raw_os_error(37)),
                })
            },
            &Quiet,
        );
        assert!(outcome.is_ok());
        assert_eq!(asked, 3);
    }

    #[test]
    fn a_lock_whose_file_was_removed_is_taken_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.lock");
        let first = lock(&path, &Quiet).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| lock(&path, &Quiet).unwrap());
            std::thread::sleep(Duration::from_millis(50));
            release(first, &path);
            let second = second.join().unwrap();
            assert!(path.exists() && is_at(&second, &path));
        });
    }

    #[test]
    fn only_old_folders_of_fetches_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        for name in [".fetch-abc/pip-x", "other"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let left = || fs::read_dir(folder.path()).unwrap().count();
        sweep(folder.path());
        assert_eq!(left(), 2);
        sweep_at(folder.path(), SystemTime::now() + Duration::from_secs(25 * 60 * 60));
        assert_eq!(left(), 1);
        assert!(folder.path().join("other").exists());
    }
}
