//! A disk that fails when a test wants it to, and one whose power is cut.
//!
//! The power cut keeps of what was not synced whatever it likes: data cut short, zeroed or replaced by garbage, each name in
//! a folder as it was at the last sync or after any change since.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::{FileLayer, LockKind, PendingData, SystemFiles};

/// What happens at the step that is to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails, the next one works.
    Once(io::ErrorKind),
    /// It fails, and so does every one after it.
    Always(io::ErrorKind),
    /// The power goes; [`FaultyFiles::restart`] then makes of the disk what it can.
    PowerCut,
}

/// What a name led to at some moment.
#[derive(Debug, Clone)]
struct Version {
    /// `None` when there was no such file.
    content: Option<Vec<u8>>,
    synced: bool,
}

#[derive(Debug)]
struct State {
    steps: u64,
    failing: Option<(u64, Fault)>,
    off: bool,
    random: u64,
    /// What each name may lead to after a power cut; the last one is what it leads to now.
    versions: BTreeMap<PathBuf, Vec<Version>>,
    /// Folders that their parent does not know for sure yet.
    folders: BTreeSet<PathBuf>,
}

/// A sync that says it was done and was not: what a forgotten one comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forgotten {
    /// The data of files.
    Data,
    /// The names in folders.
    Folders,
}

#[derive(Debug, Clone)]
pub(crate) struct FaultyFiles {
    state: Arc<Mutex<State>>,
    locks: bool,
    maps: bool,
    forgotten: Option<Forgotten>,
}

impl FaultyFiles {
    /// A disk on which step number `failing.0` (from 0) goes wrong.
    pub(crate) fn new(failing: Option<(u64, Fault)>, seed: u64) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                steps: 0,
                failing,
                off: false,
                random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
                versions: BTreeMap::new(),
                folders: BTreeSet::new(),
            })),
            locks: true,
            maps: true,
            forgotten: None,
        }
    }

    /// A disk that works, but for syncs that do nothing.
    pub(crate) fn forgetting(forgotten: Forgotten, seed: u64) -> Self {
        Self {
            forgotten: Some(forgotten),
            ..Self::new(None, seed)
        }
    }

    /// A file system without locks or without memory maps.
    pub(crate) fn lacking(locks: bool, maps: bool) -> Self {
        Self {
            locks,
            maps,
            ..Self::new(None, 0)
        }
    }

    /// Steps taken so far.
    pub(crate) fn steps(&self) -> u64 {
        self.state().steps
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(&self) -> io::Result<()> {
        let mut state = self.state();
        let number = state.steps;
        state.steps += 1;
        if state.off {
            return Err(io::Error::other("the power is off"));
        }
        match state.failing {
            Some((failing, Fault::Once(kind))) if failing == number => Err(kind.into()),
            Some((failing, Fault::Always(kind))) if number >= failing => Err(kind.into()),
            Some((failing, Fault::PowerCut)) if failing == number => {
                state.off = true;
                Err(io::Error::other("the power is cut"))
            }
            _ => Ok(()),
        }
    }

    /// The power is back: of what was not synced, some is there.
    pub(crate) fn restart(&self) {
        let mut state = self.state();
        for (path, versions) in std::mem::take(&mut state.versions) {
            let version = &versions[state.below(versions.len())];
            match &version.content {
                None => drop(fs::remove_file(&path)),
                Some(content) => {
                    let mut content = content.clone();
                    if !version.synced {
                        state.damage(&mut content);
                    }
                    // The folder may be one that is gone.
                    drop(fs::remove_file(&path));
                    drop(fs::write(&path, content));
                }
            }
        }
        for folder in std::mem::take(&mut state.folders) {
            if state.below(2) == 0 {
                drop(fs::remove_dir_all(folder));
            }
        }
    }
}

impl State {
    /// A number below `bound` (xorshift).
    fn below(&mut self, bound: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as usize % bound
    }

    fn damage(&mut self, content: &mut Vec<u8>) {
        let from = self.below(content.len() + 1);
        match self.below(4) {
            0 => {}
            1 => content.truncate(from),
            2 => content[from..].fill(0),
            _ => {
                let length = content.len();
                content.truncate(from);
                content.extend((from..length).map(|_| self.below(256) as u8));
            }
        }
    }

    /// From now on `path` leads to `version`, once the folder is synced.
    fn change(&mut self, path: &Path, version: Version) {
        let now = Version {
            content: fs::read(path).ok(),
            synced: true,
        };
        self.versions
            .entry(path.to_path_buf())
            .or_insert_with(|| vec![now])
            .push(version);
    }
}

impl FileLayer for FaultyFiles {
    fn create_pending(&self, folder: &Path) -> io::Result<Box<dyn PendingData>> {
        self.step()?;
        let file = super::temporary_file(folder)?;
        Ok(Box::new(FaultyData {
            file: Some(file),
            synced: false,
            disk: self.clone(),
        }))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.step()?;
        if self.forgotten == Some(Forgotten::Folders) {
            return Ok(());
        }
        let mut state = self.state();
        state.folders.retain(|known| known.parent() != Some(folder));
        for (path, versions) in &mut state.versions {
            if path.parent() == Some(folder) {
                versions.drain(..versions.len() - 1);
            }
        }
        state
            .versions
            .retain(|_, versions| versions.len() > 1 || !versions[0].synced);
        Ok(())
    }

    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        self.step()?;
        SystemFiles.create_folder(folder)?;
        self.state().folders.insert(folder.to_path_buf());
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        let content = fs::read(from)?;
        let mut state = self.state();
        let gone = Version {
            content: None,
            synced: true,
        };
        state.change(from, gone);
        let moved = Version {
            content: Some(content),
            synced: true,
        };
        state.change(to, moved);
        SystemFiles.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        if path.exists() {
            let gone = Version {
                content: None,
                synced: true,
            };
            self.state().change(path, gone);
        }
        SystemFiles.remove_file(path)
    }

    fn remove_folder(&self, folder: &Path) -> io::Result<()> {
        self.step()?;
        SystemFiles.remove_folder(folder)
    }

    fn may_map(&self, _path: &Path) -> io::Result<()> {
        if self.maps {
            Ok(())
        } else {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    fn open_lock(&self, path: &Path) -> io::Result<File> {
        self.step()?;
        SystemFiles.open_lock(path)
    }

    fn lock(&self, file: &File, kind: LockKind) -> io::Result<()> {
        if !self.locks {
            return Err(io::ErrorKind::Unsupported.into());
        }
        SystemFiles.lock(file, kind)
    }

    fn try_lock(&self, file: &File, kind: LockKind) -> Result<(), TryLockError> {
        if !self.locks {
            return Err(TryLockError::Error(io::ErrorKind::Unsupported.into()));
        }
        SystemFiles.try_lock(file, kind)
    }

    fn set_modified(&self, path: &Path, time: SystemTime) -> io::Result<()> {
        self.step()?;
        SystemFiles.set_modified(path, time)
    }
}

#[derive(Debug)]
struct FaultyData {
    file: Option<tempfile::NamedTempFile>,
    synced: bool,
    disk: FaultyFiles,
}

impl FaultyData {
    fn file(&mut self) -> &mut tempfile::NamedTempFile {
        self.file.as_mut().expect("it is there until it has its name")
    }
}

impl Write for FaultyData {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(error) = self.disk.step() {
            // A full disk takes what still fits.
            self.file().write_all(&bytes[..bytes.len() / 2])?;
            return Err(error);
        }
        self.synced = false;
        self.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file().flush()
    }
}

impl PendingData for FaultyData {
    fn sync(&mut self) -> io::Result<()> {
        self.disk.step()?;
        self.synced = self.disk.forgotten != Some(Forgotten::Data);
        Ok(())
    }

    fn put_in_place(mut self: Box<Self>, path: &Path) -> io::Result<()> {
        self.disk.step()?;
        let file = self.file.take().expect("it is there until it has its name");
        let version = Version {
            content: Some(fs::read(file.path())?),
            synced: self.synced,
        };
        self.disk.state().change(path, version);
        file.persist(path).map(drop).map_err(|error| error.error)
    }
}

impl Drop for FaultyData {
    fn drop(&mut self) {
        // Without power nobody clears away.
        if self.disk.state().off
            && let Some(file) = self.file.take()
        {
            drop(file.keep());
        }
    }
}
