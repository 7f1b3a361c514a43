//! The cache as its users see it: spaces of rows that are found, added and read.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::key::{FeatureSpace, SpaceId};
use super::lock::{INDEX_LOCK, Lock, USERS_LOCK};
use super::merge::Exclusive;
use super::space::{DAMAGED, Space};
use crate::disk::{self, FileLayer, Files, LockKind};
use crate::error::{Error, Result};

/// What the numbers of a space depend on.
pub(super) const SPACE_FILE: &str = "space.json";
/// Where the space's backbone lay.
pub(super) const ORIGIN_FILE: &str = "origin.json";
/// Tells backup programs that the folder can be made again (the CACHEDIR.TAG convention, bford.info/cachedir).
pub(super) const TAG_FILE: &str = "CACHEDIR.TAG";
/// What the last `extract` could not use, for people; nothing reads it.
pub(crate) const FAILURES_FILE: &str = "failures.csv";
const SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";
pub(super) const TAG: &[u8] =
    b"Signature: 8a477f597d28d172789f06886806bc55\n# Features cached by lastlayer; can be made again.\n";

/// A folder of cached features.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
    files: Files,
}

/// Where the backbone of a space lay when it was last used; recorded for people and for `predict`, not an identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The backbone as it was asked for: a name such as `resnet18`, or a path.
    pub name: String,
    /// The file, absolute.
    #[serde(serialize_with = "disk::lossy")]
    pub file: PathBuf,
}

impl Cache {
    /// The cache in the folder `root`, which need not exist.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
            files: Files::system(),
        }
    }

    /// The cache in the folder `root`, changing the disk through `layer` alone.
    #[doc(hidden)]
    #[must_use]
    pub fn with_files(root: &Path, layer: Arc<dyn FileLayer>) -> Self {
        Self {
            root: root.to_path_buf(),
            files: Files::of(layer),
        }
    }

    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn spaces_folder(&self) -> PathBuf {
        self.root.join("spaces")
    }

    pub(super) fn space_folder(&self, id: SpaceId) -> PathBuf {
        self.spaces_folder().join(id.to_string())
    }

    /// Where backbones lie that were made for data sets of this cache; the cache itself does not look into it.
    pub(crate) fn models_folder(&self) -> PathBuf {
        self.root.join("models")
    }

    pub(super) fn datasets_folder(&self) -> PathBuf {
        self.root.join("datasets")
    }

    /// Opens a space for reading and adding, creating it.
    ///
    /// As long as it is open, nobody removes rows of the space: [`Space::retain`] and [`Cache::remove_space`] find it busy.
    ///
    /// # Errors
    /// When the folder can't be created, read or written.
    pub fn create_space(&self, space: &FeatureSpace, origin: &Origin) -> Result<Space> {
        let folder = self.space_folder(space.id());
        let users = loop {
            self.files.create_folder(&folder)?;
            match Lock::wait(&self.files, &folder.join(USERS_LOCK), LockKind::Shared) {
                // Removed between the two steps.
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound && !folder.is_dir() => {}
                lock => break lock?,
            }
        };
        self.files.sweep(&folder);
        if !is_tagged(&self.root) {
            self.files.write(&self.root.join(TAG_FILE), &[TAG])?;
        }
        self.write_if_changed(&folder.join(SPACE_FILE), space.json().as_bytes())?;
        let origin = serde_json::to_string_pretty(origin)
            .map_err(|error| Error::io("write", folder.join(ORIGIN_FILE))(std::io::Error::other(error)))?;
        self.write_if_changed(&folder.join(ORIGIN_FILE), origin.as_bytes())?;
        let space = Space::open(&self.files, folder, space.id(), Some(users))?;
        space.touch();
        Ok(space)
    }

    /// Opens a space for reading; `None` when the cache has nothing of it.
    ///
    /// # Errors
    /// When the folder is there and can't be read.
    pub fn open_space(&self, space: &FeatureSpace) -> Result<Option<Space>> {
        let folder = self.space_folder(space.id());
        if folder.is_dir() {
            Space::open(&self.files, folder, space.id(), None).map(Some)
        } else {
            Ok(None)
        }
    }

    /// All spaces in the cache, by id, with the origin of their backbone where it is recorded.
    ///
    /// # Errors
    /// When the cache's folder is there and can't be listed.
    pub fn spaces(&self) -> Result<Vec<(FeatureSpace, Option<Origin>)>> {
        let mut spaces = Vec::new();
        for folder in self.space_folders()? {
            let Ok(json) = fs::read_to_string(folder.join(SPACE_FILE)) else {
                continue;
            };
            let space = FeatureSpace::from_json(json);
            if folder != self.space_folder(space.id()) {
                tracing::warn!(
                    "{} does not describe the space it lies in: left out",
                    folder.join(SPACE_FILE).display()
                );
                continue;
            }
            spaces.push((space, read_origin(&folder)));
        }
        spaces.sort_by_key(|(space, _)| space.id());
        Ok(spaces)
    }

    /// The folders that hold a space, or should.
    pub(super) fn space_folders(&self) -> Result<Vec<PathBuf>> {
        let mut folders: Vec<PathBuf> = list(&self.spaces_folder())?
            .into_iter()
            .filter(|path| path.is_dir())
            .collect();
        folders.sort();
        Ok(folders)
    }

    /// Removes a space with all its rows and returns the bytes freed.
    ///
    /// Never waits for writers: while one has the space open, the outcome is [`Exclusive::Busy`]. Readers go on with what
    /// they have open.
    ///
    /// # Errors
    /// When files can't be removed; the space is gone from [`Cache::spaces`] or complete.
    pub fn remove_space(&self, id: SpaceId) -> Result<Exclusive<u64>> {
        let folder = self.space_folder(id);
        if !folder.is_dir() {
            return Ok(Exclusive::Done(0));
        }
        let Some(users) = Lock::take(&self.files, &folder.join(USERS_LOCK), LockKind::Exclusive)? else {
            return Ok(Exclusive::Busy);
        };
        let index_lock = Lock::wait(&self.files, &folder.join(INDEX_LOCK), LockKind::Exclusive)?;
        // Without its description it is no space any more; rows that a crash leaves behind serve the next writer.
        let mut paths = list(&folder)?;
        // `users` goes last: whoever makes it anew finds a folder that nothing more is removed from.
        let is_users = |path: &Path| path.file_name() == Some(USERS_LOCK.as_ref());
        paths.sort_by_key(|path| {
            (
                path.file_name() != Some(SPACE_FILE.as_ref()),
                is_lock(path),
                is_users(path),
            )
        });
        let mut freed = 0;
        for path in &paths {
            let bytes = fs::metadata(path).map_or(0, |metadata| metadata.len());
            self.files.remove(path)?;
            freed += bytes;
        }
        drop((users, index_lock));
        match self.files.layer().remove_folder(&folder) {
            // A writer that has waited for this is filling it again.
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
                return Err(Error::io("remove", &folder)(error));
            }
            _ => {}
        }
        let _ = self.files.sync_folder(&self.spaces_folder());
        Ok(Exclusive::Done(freed))
    }

    /// Removes what killed programs left a day ago or longer, and damaged files that were set aside; returns what was removed.
    ///
    /// # Errors
    /// When a folder can't be listed or a file not removed.
    pub fn remove_leftovers(&self) -> Result<Vec<PathBuf>> {
        let leftovers = self.leftovers()?;
        for path in &leftovers {
            self.files.remove(path)?;
        }
        Ok(leftovers)
    }

    /// The files that [`Cache::remove_leftovers`] would remove.
    ///
    /// # Errors
    /// When a folder can't be listed.
    pub fn leftovers(&self) -> Result<Vec<PathBuf>> {
        let mut folders = self.space_folders()?;
        folders.push(self.root.clone());
        folders.extend([self.datasets_folder(), self.test_uses_folder()]);
        let mut leftovers = Vec::new();
        for folder in folders {
            leftovers.extend(list(&folder)?.into_iter().filter(|path| {
                let is_set_aside = path.extension().is_some_and(|extension| extension == DAMAGED);
                path.is_file() && (is_set_aside || disk::is_old_leftover(path))
            }));
        }
        Ok(leftovers)
    }

    fn write_if_changed(&self, path: &Path, content: &[u8]) -> Result<()> {
        if fs::read(path).is_ok_and(|present| present == content) {
            return Ok(());
        }
        self.files.write(path, &[content])
    }
}

/// Whether backup programs know the folder for a cache; what follows the first line is up to whoever wrote it.
pub(super) fn is_tagged(root: &Path) -> bool {
    fs::read(root.join(TAG_FILE)).is_ok_and(|tag| tag.starts_with(SIGNATURE))
}

pub(super) fn is_lock(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name == INDEX_LOCK || name == USERS_LOCK)
}

pub(super) fn read_origin(folder: &Path) -> Option<Origin> {
    let bytes = fs::read(folder.join(ORIGIN_FILE)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// What is in `folder`; nothing when it is not there.
pub(super) fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", folder)(error)),
    };
    entries
        .map(|entry| entry.map(|entry| entry.path()).map_err(Error::io("list", folder)))
        .collect()
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
