//! All that the cache does to the disk, behind one trait, so that tests can make any step of it fail.
//!
//! Plain reading is not in it: what is read is checked by whoever reads it.

use std::fmt::Debug;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use tempfile::NamedTempFile;

use super::{folder_of, is_old_leftover, temporary_file};
use crate::error::{Error, Result};

/// Who else may hold a lock at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// Others that share it.
    Shared,
    /// Nobody.
    Exclusive,
}

/// The steps in which the cache changes the disk; [`SystemFiles`] takes them, tests let them fail.
pub trait FileLayer: Debug + Send + Sync {
    /// Begins a file in `folder` that has no name of its own yet.
    ///
    /// # Errors
    /// What the operating system says; so for all steps.
    fn create_pending(&self, folder: &Path) -> io::Result<Box<dyn PendingData>>;
    /// Makes the names in `folder` survive a power cut.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// Creates a folder in a folder that is there.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;
    /// Gives a file another name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty folder.
    fn remove_folder(&self, folder: &Path) -> io::Result<()>;
    /// Whether the file may be mapped into memory; the mapping itself can still fail.
    fn may_map(&self, path: &Path) -> io::Result<()>;
    /// Opens a file that is only there to be locked, creating it.
    fn open_lock(&self, path: &Path) -> io::Result<File>;
    /// Waits for the lock.
    fn lock(&self, file: &File, kind: LockKind) -> io::Result<()>;
    /// Takes the lock if it is free.
    fn try_lock(&self, file: &File, kind: LockKind) -> Result<(), TryLockError>;
    /// Sets the time of a file's last modification.
    fn set_modified(&self, path: &Path, time: SystemTime) -> io::Result<()>;
}

/// A file without a name of its own; it is removed when it is dropped.
pub trait PendingData: Write + Send + Debug {
    /// Makes the bytes written so far survive a power cut.
    ///
    /// # Errors
    /// What the operating system says.
    fn sync(&mut self) -> io::Result<()>;
    /// Gives the file the name `path`, in place of what is there.
    ///
    /// # Errors
    /// What the operating system says.
    fn put_in_place(self: Box<Self>, path: &Path) -> io::Result<()>;
}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemFiles;

impl FileLayer for SystemFiles {
    fn create_pending(&self, folder: &Path) -> io::Result<Box<dyn PendingData>> {
        Ok(Box::new(temporary_file(folder)?))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        if !cfg!(unix) {
            // Other systems need and allow nothing here.
            return Ok(());
        }
        match File::open(folder)?.sync_all() {
            // Some network file systems have no such thing; the rename was done all the same.
            Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
            result => result,
        }
    }

    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir(folder)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_folder(&self, folder: &Path) -> io::Result<()> {
        fs::remove_dir(folder)
    }

    fn may_map(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn open_lock(&self, path: &Path) -> io::Result<File> {
        // For reading too: over NFS a shared lock is refused to whoever may only write.
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).open(path)
    }

    fn lock(&self, file: &File, kind: LockKind) -> io::Result<()> {
        match kind {
            LockKind::Shared => file.lock_shared(),
            LockKind::Exclusive => file.lock(),
        }
    }

    fn try_lock(&self, file: &File, kind: LockKind) -> Result<(), TryLockError> {
        match kind {
            LockKind::Shared => file.try_lock_shared(),
            LockKind::Exclusive => file.try_lock(),
        }
    }

    fn set_modified(&self, path: &Path, time: SystemTime) -> io::Result<()> {
        File::options().write(true).open(path)?.set_modified(time)
    }
}

impl PendingData for NamedTempFile {
    fn sync(&mut self) -> io::Result<()> {
        self.as_file().sync_all()
    }

    fn put_in_place(self: Box<Self>, path: &Path) -> io::Result<()> {
        self.persist(path).map(drop).map_err(|error| error.error)
    }
}

/// A [`FileLayer`] as the rest of the program uses it: steps that belong together, errors with paths.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    layer: Arc<dyn FileLayer>,
    told: Arc<Told>,
}

/// What was said already of a file system that lacks something.
#[derive(Debug, Default)]
struct Told {
    locks: AtomicBool,
    maps: AtomicBool,
}

impl Files {
    /// The operating system's; a lack of locks or memory maps is told once in the whole process.
    pub(crate) fn system() -> Self {
        static TOLD: OnceLock<Arc<Told>> = OnceLock::new();
        Self {
            layer: Arc::new(SystemFiles),
            told: Arc::clone(TOLD.get_or_init(Arc::default)),
        }
    }

    pub(crate) fn of(layer: Arc<dyn FileLayer>) -> Self {
        Self {
            layer,
            told: Arc::default(),
        }
    }

    pub(crate) fn layer(&self) -> &dyn FileLayer {
        &*self.layer
    }

    /// Begins the file `path`, which has its name only after [`PendingFile::commit`].
    pub(crate) fn create(&self, path: &Path) -> Result<PendingFile> {
        let data = self
            .layer
            .create_pending(folder_of(path))
            .map_err(Error::io("write", path))?;
        Ok(PendingFile {
            data: BufWriter::with_capacity(1 << 16, data),
            path: path.to_path_buf(),
            files: self.clone(),
        })
    }

    /// Writes `parts` one after another to `path`, which then has all of them or what it had before.
    pub(crate) fn write(&self, path: &Path, parts: &[&[u8]]) -> Result<()> {
        let mut file = self.create(path)?;
        for part in parts {
            file.write_all(part).map_err(Error::io("write", path))?;
        }
        file.commit()
    }

    /// Creates `folder` and what is missing above it, each durable in the one above.
    pub(crate) fn create_folder(&self, folder: &Path) -> Result<()> {
        // The one that was wanted is named, whichever above it can't be made.
        self.create_folders(folder).map_err(Error::io("create", folder))
    }

    fn create_folders(&self, folder: &Path) -> io::Result<()> {
        if folder.as_os_str().is_empty() || folder.is_dir() {
            return Ok(());
        }
        let above = folder_of(folder);
        self.create_folders(above)?;
        match self.layer.create_folder(folder) {
            // Another process was faster.
            Err(error) if error.kind() != ErrorKind::AlreadyExists || !folder.is_dir() => return Err(error),
            _ => {}
        }
        self.layer.sync_folder(above)
    }

    pub(crate) fn sync_folder(&self, folder: &Path) -> Result<()> {
        self.layer.sync_folder(folder).map_err(Error::io("write", folder))
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.layer.rename(from, to).map_err(Error::io("rename", from))
    }

    /// Removes a file; one that is gone already is fine.
    pub(crate) fn remove(&self, path: &Path) -> Result<()> {
        match self.layer.remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
            _ => Ok(()),
        }
    }

    /// Removes temporary files that a killed program left in `folder` more than a day ago.
    pub(crate) fn sweep(&self, folder: &Path) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if is_old_leftover(&entry.path()) {
                // Whoever else removes it first is welcome.
                let _ = self.layer.remove_file(&entry.path());
            }
        }
    }

    /// Says once that files there can't be locked.
    pub(crate) fn tell_no_locks(&self, path: &Path, error: &io::Error) {
        if !self.told.locks.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "{} can't be locked ({error}): going on without; nothing is lost, but small files of the cache are not \
                 merged, and `cache gc` can't see whether another program uses the cache",
                path.display()
            );
        }
    }

    /// Says once that files there can't be mapped.
    pub(crate) fn tell_no_maps(&self, path: &Path, error: &io::Error) {
        if !self.told.maps.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "{} can't be mapped into memory ({error}): cached features are read as a whole instead, which takes as \
                 much memory as they have bytes",
                path.display()
            );
        }
    }
}

/// A file that is being written and gets its name when it is complete; dropped before, it leaves nothing.
#[derive(Debug)]
pub(crate) struct PendingFile {
    data: BufWriter<Box<dyn PendingData>>,
    path: PathBuf,
    files: Files,
}

impl PendingFile {
    /// Makes the file durable under its name, replacing what is there: a crash at any moment leaves the old or the new.
    pub(crate) fn commit(self) -> Result<()> {
        let Self { data, path, files } = self;
        let put = || -> io::Result<()> {
            let mut data = data.into_inner().map_err(io::IntoInnerError::into_error)?;
            data.sync()?;
            data.put_in_place(&path)?;
            files.layer.sync_folder(folder_of(&path))
        };
        put().map_err(Error::io("write", &path))
    }
}

impl Write for PendingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.data.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.data.flush()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_lock_file_is_open_both_ways_as_shared_locks_over_nfs_need() {
        let folder = tempfile::tempdir().unwrap();
        let mut lock = SystemFiles.open_lock(&folder.path().join("users")).unwrap();
        io::copy(&mut lock, &mut io::sink()).unwrap();
        lock.write_all(b"x").unwrap();
    }
}
