//! A space as its users see it: rows that are found, and added to for good.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::codec::{Index, IndexEntry};
use super::key::{RowKey, SpaceId};
use super::lock::{INDEX_LOCK, Lock, USERS_LOCK};
use super::merge::Merging;
use super::segment::{self, Provenance, Segment};
use super::snapshot::Snapshot;
use super::store::SPACE_FILE;
use crate::disk::{Files, LockKind};
use crate::error::{Error, Result};

/// The extension of files that were set aside.
pub(super) const DAMAGED: &str = "damaged";

/// The rows of one feature space: a consistent snapshot, to which this process can add.
#[derive(Debug)]
pub struct Space {
    pub(super) folder: PathBuf,
    pub(super) id: SpaceId,
    pub(super) files: Files,
    pub(super) merging: Merging,
    /// Held by writers, so that nobody removes what they count on.
    pub(super) users: Option<Lock>,
    pub(super) snapshot: Snapshot,
}

impl Space {
    pub(super) fn open(files: &Files, folder: PathBuf, id: SpaceId, users: Option<Lock>) -> Result<Self> {
        Ok(Self {
            snapshot: Snapshot::load(files, &folder, id)?,
            folder,
            id,
            files: files.clone(),
            merging: Merging::default(),
            users,
        })
    }

    /// The number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.snapshot.len()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Numbers per row; `None` while there is no row.
    #[must_use]
    pub fn dim(&self) -> Option<usize> {
        self.snapshot.dim()
    }

    /// Whether there is a row of `key`; unlike [`Space::row`] this does not look at its bytes.
    #[must_use]
    pub fn contains(&self, key: &RowKey) -> bool {
        self.snapshot.contains(key)
    }

    /// The row of `key`, `[dim]`; `None` when there is none, or none whose bytes are those that were written.
    #[must_use]
    pub fn row(&self, key: &RowKey) -> Option<&[f32]> {
        self.snapshot.find(key).map(|(_, row)| row)
    }

    /// Remembers that the space was used now; a cache that can't be written is no failure.
    ///
    /// Opening for writing does it by itself. Not more than once a minute.
    pub fn touch(&self) {
        let path = self.folder.join(SPACE_FILE);
        let used = std::fs::metadata(&path).and_then(|metadata| metadata.modified());
        let age = used.ok().and_then(|used| used.elapsed().ok());
        if age.is_some_and(|age| age > Duration::from_secs(60)) {
            let _ = self.files.layer().set_modified(&path, SystemTime::now());
        }
    }

    /// All keys, each once, in no particular order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = RowKey> {
        self.snapshot.keys()
    }

    /// Adds a row for each of `keys` and makes them durable before it returns.
    ///
    /// `rows`: `[keys.len(), dim]` row-major. `device` and `runtime` say who computed them.
    ///
    /// # Errors
    /// When the rows can't be written, or have another dimension than those of the space.
    pub fn append(&mut self, keys: &[RowKey], rows: &[f32], dim: usize, device: &str, runtime: &str) -> Result<()> {
        match self.write(keys, rows, dim, device, runtime)? {
            Some(segment) => self.publish(segment),
            None => Ok(()),
        }
    }

    /// The slow half of [`Space::append`]: the rows are on disk, under a name that no index has yet.
    pub(crate) fn write(
        &self,
        keys: &[RowKey],
        rows: &[f32],
        dim: usize,
        device: &str,
        runtime: &str,
    ) -> Result<Option<Segment>> {
        if keys.is_empty() {
            return Ok(None);
        }
        if let Some(expected) = self.dim().filter(|expected| *expected != dim) {
            return Err(Error::Damaged {
                path: self.folder.clone(),
                problem: format!("its rows have {expected} numbers, the backbone gives {dim}"),
            });
        }
        if !self.snapshot.damaged.is_empty() {
            self.set_damaged_aside()?;
        }
        let provenance = Provenance {
            device: device.to_owned(),
            runtime: runtime.to_owned(),
        };
        let (path, _) = segment::write(&self.files, &self.folder, self.id, dim, keys, rows, &provenance)?;
        Segment::open(&self.files, &path, self.id).map(Some)
    }

    /// Gives damaged segments another name, for whoever wants to look. Before anything is written: equal rows would be a
    /// segment of the same name.
    fn set_damaged_aside(&self) -> Result<()> {
        let _lock = self.lock_index()?;
        for path in &self.snapshot.damaged {
            // Another writer may have replaced it by good rows meanwhile.
            let is_good = Segment::open(&self.files, path, self.id)
                .is_ok_and(|segment| self.dim().is_none_or(|dim| dim == segment.dim()));
            if !is_good {
                // Failing to rename it only repeats the warning.
                let _ = self.files.rename(path, &set_aside(path));
            }
        }
        Ok(())
    }

    /// The other half: the segment is part of this snapshot and of the index, and what others added is in the snapshot.
    pub(crate) fn publish(&mut self, segment: Segment) -> Result<()> {
        self.snapshot.damaged.clear();
        self.snapshot.add(segment);
        let lock = self.lock_index()?;
        let index = self.commit(&BTreeSet::new())?;
        self.take_in(&index)?;
        // Without a lock two programs could each count on a copy that the other one removes.
        if lock.is_real()
            && self.merging.is_due(&index)
            && let Err(error) = self.merge()
        {
            tracing::warn!(
                "{}: its small segments could not be merged and stay as they are: {error}",
                self.folder.display()
            );
        }
        Ok(())
    }

    pub(super) fn lock_index(&self) -> Result<Lock> {
        Lock::wait(&self.files, &self.folder.join(INDEX_LOCK), LockKind::Exclusive)
    }

    pub(super) fn users_lock(&self) -> PathBuf {
        self.folder.join(USERS_LOCK)
    }

    /// Puts the segments of this snapshot into the index, beside those that others put there, all but `without`.
    ///
    /// Called with the index locked.
    pub(super) fn commit(&self, without: &BTreeSet<[u8; 16]>) -> Result<Index> {
        let mut index = Index::read(&self.folder, self.id)?.unwrap_or_else(|_| Index::empty(self.id));
        let stays = |name: [u8; 16]| !without.contains(&name) && self.folder.join(segment::file_name(name)).is_file();
        index.generation += 1;
        index.segments.retain(|entry| stays(entry.name));
        let named: BTreeSet<[u8; 16]> = index.segments.iter().map(|entry| entry.name).collect();
        let new = self.snapshot.segments.iter().map(IndexEntry::of);
        index
            .segments
            .extend(new.filter(|entry| !named.contains(&entry.name) && stays(entry.name)));
        index.write(&self.files, &self.folder)?;
        Ok(index)
    }

    /// Takes in what other processes put into `index` since this snapshot was made.
    fn take_in(&mut self, index: &Index) -> Result<()> {
        let named: BTreeSet<[u8; 16]> = index.segments.iter().map(|entry| entry.name).collect();
        let held: BTreeSet<[u8; 16]> = self.snapshot.segments.iter().map(Segment::name).collect();
        if !held.is_subset(&named) {
            // Others merged some: their rows are in a new segment.
            return self.reload();
        }
        for name in named.difference(&held) {
            let path = self.folder.join(segment::file_name(*name));
            match Segment::open(&self.files, &path, self.id) {
                Ok(segment) if self.dim().is_none_or(|dim| dim == segment.dim()) => self.snapshot.add(segment),
                // Not needed for what this process does; whoever opens the space next has the word on it.
                other => tracing::debug!("{} is not taken in: {:?}", path.display(), other.err()),
            }
        }
        Ok(())
    }

    pub(super) fn reload(&mut self) -> Result<()> {
        self.snapshot = Snapshot::load(&self.files, &self.folder, self.id)?;
        Ok(())
    }
}

/// The name under which a damaged file waits for whoever wants to look.
pub(super) fn set_aside(path: &Path) -> PathBuf {
    path.with_extension(DAMAGED)
}
