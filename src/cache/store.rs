//! The cache as its users see it: spaces of rows that are found, added and read.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::codec::{Index, IndexEntry};
use super::key::{FeatureSpace, KeyMap, RowKey, SpaceId};
use super::lock::Lock;
use super::segment::{self, Provenance, Segment};
use crate::disk;
use crate::error::{Error, Result};

/// Segments below this size are merged when there are [`MERGE_COUNT`] of them.
const SMALL_SEGMENT_BYTES: u64 = 32 << 20;
const MERGE_COUNT: usize = 32;
/// Into segments of about this size at most, which is also what a merge holds in memory.
const MERGE_BYTES: u64 = 128 << 20;

/// A folder of cached features.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
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
        }
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn space_folder(&self, id: SpaceId) -> PathBuf {
        self.root.join("spaces").join(id.to_string())
    }

    pub(super) fn datasets_folder(&self) -> PathBuf {
        self.root.join("datasets")
    }

    /// Opens a space for reading and adding, creating it.
    ///
    /// # Errors
    /// When the folder can't be created, read or written.
    pub fn create_space(&self, space: &FeatureSpace, origin: &Origin) -> Result<Space> {
        let folder = self.space_folder(space.id());
        disk::create_folder(&folder)?;
        disk::sweep(&folder);
        mark_as_cache(&self.root)?;
        write_if_changed(&folder.join("space.json"), space.json().as_bytes())?;
        let origin = serde_json::to_string_pretty(origin)
            .map_err(|error| Error::io("write", folder.join("origin.json"))(std::io::Error::other(error)))?;
        write_if_changed(&folder.join("origin.json"), origin.as_bytes())?;
        Space::open(folder, space.id())
    }

    /// Opens a space for reading; `None` when the cache has nothing of it.
    ///
    /// # Errors
    /// When the folder is there and can't be read.
    pub fn open_space(&self, space: &FeatureSpace) -> Result<Option<Space>> {
        let folder = self.space_folder(space.id());
        if folder.is_dir() {
            Space::open(folder, space.id()).map(Some)
        } else {
            Ok(None)
        }
    }

    /// All spaces in the cache, by id, with the origin of their backbone where it is recorded.
    ///
    /// # Errors
    /// When the cache's folder is there and can't be listed.
    pub fn spaces(&self) -> Result<Vec<(FeatureSpace, Option<Origin>)>> {
        let folder = self.root.join("spaces");
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("list", folder)(error)),
        };
        let mut spaces = Vec::new();
        for entry in entries {
            let folder = entry.map_err(Error::io("list", &folder))?.path();
            let Ok(json) = fs::read_to_string(folder.join("space.json")) else {
                continue;
            };
            let space = FeatureSpace::from_json(json);
            if folder.file_name().and_then(|name| name.to_str()) != Some(&space.id().to_string()) {
                tracing::warn!(
                    "{} does not describe the space it lies in: left out",
                    folder.join("space.json").display()
                );
                continue;
            }
            let origin = fs::read(folder.join("origin.json"))
                .ok()
                .and_then(|bytes| serde_json::from_slice(&bytes).ok());
            spaces.push((space, origin));
        }
        spaces.sort_by_key(|(space, _)| space.id());
        Ok(spaces)
    }
}

/// Tells backup programs that the folder can be made again (the CACHEDIR.TAG convention, bford.info/cachedir).
fn mark_as_cache(root: &Path) -> Result<()> {
    let path = root.join("CACHEDIR.TAG");
    if path.exists() {
        return Ok(());
    }
    disk::write_atomically(
        &path,
        &[b"Signature: 8a477f597d28d172789f06886806bc55\n# Features cached by lastlayer; can be made again.\n"],
    )
}

fn write_if_changed(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|present| present == content) {
        return Ok(());
    }
    disk::write_atomically(path, &[content])
}

#[derive(Debug, Clone, Copy)]
struct Location {
    segment: u32,
    row: u32,
}

/// The rows of one feature space: a consistent snapshot, to which this process can add.
#[derive(Debug)]
pub struct Space {
    folder: PathBuf,
    id: SpaceId,
    segments: Vec<Segment>,
    rows: KeyMap<Location>,
    damaged: Vec<PathBuf>,
}

impl Space {
    fn open(folder: PathBuf, id: SpaceId) -> Result<Self> {
        // A merge by another process may unlink a segment between the reading of the index and the opening of the
        // segment: then there is a newer index. What is missing from an unchanged index is gone.
        let mut before = None;
        loop {
            let index = Index::read(&folder, id)?.unwrap_or_else(|problem| {
                tracing::warn!(
                    "{}: {problem}; using the segments themselves",
                    folder.join("index").display()
                );
                Index::empty(id)
            });
            let mut space = Self {
                folder: folder.clone(),
                id,
                segments: Vec::new(),
                rows: KeyMap::default(),
                damaged: Vec::new(),
            };
            let missing = space.load(&index)?;
            if missing.is_empty() {
                return Ok(space);
            }
            if before == Some(index.generation) {
                for path in missing {
                    tracing::warn!("{} is gone; its rows will be computed again", path.display());
                }
                return Ok(space);
            }
            before = Some(index.generation);
        }
    }

    /// Opens the segments of `index`, and those beside it that a crash kept out of it; returns the vanished ones.
    fn load(&mut self, index: &Index) -> Result<Vec<PathBuf>> {
        let mut missing = Vec::new();
        let mut names: Vec<[u8; 16]> = index.segments.iter().map(|entry| entry.name).collect();
        let mut orphans = BTreeSet::new();
        for entry in fs::read_dir(&self.folder).map_err(Error::io("list", &self.folder))? {
            let path = entry.map_err(Error::io("list", &self.folder))?.path();
            orphans.extend(segment::parse_file_name(&path).filter(|name| !index.contains(*name)));
        }
        names.splice(0..0, orphans);
        for name in names {
            let path = self.folder.join(segment::file_name(name));
            match Segment::open(&path, self.id) {
                Ok(segment) if self.dim().is_some_and(|dim| dim != segment.dim()) => {
                    tracing::warn!(
                        "{}: its rows have another length; they will be computed again",
                        path.display()
                    );
                    self.damaged.push(path);
                }
                Ok(segment) => self.add(segment),
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => missing.push(path),
                Err(Error::Damaged { path, problem }) => {
                    tracing::warn!("{}: {problem}; its rows will be computed again", path.display());
                    self.damaged.push(path);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(missing)
    }

    fn add(&mut self, segment: Segment) {
        let number = u32::try_from(self.segments.len()).expect("there are fewer than 2^32 segments");
        self.rows.reserve(segment.len());
        for row in 0..segment.len() {
            let location = Location {
                segment: number,
                row: u32::try_from(row).expect("a segment has fewer than 2^32 rows"),
            };
            self.rows.insert(segment.key(row), location);
        }
        self.segments.push(segment);
    }

    /// The number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Numbers per row; `None` while there is no row.
    #[must_use]
    pub fn dim(&self) -> Option<usize> {
        self.segments.first().map(Segment::dim)
    }

    /// Whether there is a row of `key`; unlike [`Space::row`] this does not look at its bytes.
    #[must_use]
    pub fn contains(&self, key: &RowKey) -> bool {
        self.rows.contains_key(key)
    }

    /// The row of `key`, `[dim]`; `None` when there is none or its bytes are not those that were written.
    #[must_use]
    pub fn row(&self, key: &RowKey) -> Option<&[f32]> {
        let location = self.rows.get(key)?;
        self.segments[location.segment as usize].row(location.row as usize)
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
        if !self.damaged.is_empty() {
            self.set_damaged_aside()?;
        }
        let provenance = Provenance {
            device: device.to_owned(),
            runtime: runtime.to_owned(),
        };
        let (path, _) = segment::write(&self.folder, self.id, dim, keys, rows, &provenance)?;
        Segment::open(&path, self.id).map(Some)
    }

    /// Gives damaged segments another name, for whoever wants to look. Before anything is written: equal rows would be a
    /// segment of the same name.
    fn set_damaged_aside(&self) -> Result<()> {
        let _lock = Lock::acquire(&self.folder.join("lock"))?;
        for path in &self.damaged {
            // Another writer may have replaced it by good rows meanwhile.
            let is_good =
                Segment::open(path, self.id).is_ok_and(|segment| self.dim().is_none_or(|dim| dim == segment.dim()));
            if !is_good {
                // Failing to rename it only repeats the warning.
                let _ = fs::rename(path, path.with_extension("damaged"));
            }
        }
        Ok(())
    }

    /// The other half: the segment is part of this snapshot and of the index.
    pub(crate) fn publish(&mut self, segment: Segment) -> Result<()> {
        self.damaged.clear();
        self.add(segment);
        let _lock = Lock::acquire(&self.folder.join("lock"))?;
        let index = self.commit(|_| true)?;
        let small = index
            .segments
            .iter()
            .filter(|entry| entry.bytes < SMALL_SEGMENT_BYTES)
            .count();
        if small >= MERGE_COUNT {
            self.merge(&index)
        } else {
            Ok(())
        }
    }

    /// Puts the segments of this snapshot that `keep` names into the index, beside those that others put there.
    fn commit(&mut self, keep: impl Fn(&IndexEntry) -> bool) -> Result<Index> {
        let mut index = Index::read(&self.folder, self.id)?.unwrap_or_else(|_| Index::empty(self.id));
        index.generation += 1;
        index
            .segments
            .retain(|entry| keep(entry) && self.folder.join(segment::file_name(entry.name)).is_file());
        for segment in &self.segments {
            let entry = IndexEntry::of(segment);
            if keep(&entry) && !index.contains(entry.name) && self.folder.join(segment::file_name(entry.name)).is_file()
            {
                index.segments.push(entry);
            }
        }
        index.write(&self.folder)?;
        Ok(index)
    }

    /// Merges the small segments, so that a long run leaves few files behind; called with the lock held.
    fn merge(&mut self, index: &Index) -> Result<()> {
        *self = Self::open(self.folder.clone(), self.id)?;
        let small: BTreeSet<[u8; 16]> = index
            .segments
            .iter()
            .filter(|entry| entry.bytes < SMALL_SEGMENT_BYTES)
            .map(|entry| entry.name)
            .collect();
        // Rows of different machines stay apart: who computed them is recorded per segment.
        let mut groups: Vec<(Provenance, u64, Vec<u32>)> = Vec::new();
        for (number, segment) in self
            .segments
            .iter()
            .enumerate()
            .filter(|(_, segment)| small.contains(&segment.name()))
        {
            let provenance = segment.provenance();
            let number = u32::try_from(number).expect("there are fewer than 2^32 segments");
            let size = segment.file_bytes();
            match groups
                .iter_mut()
                .find(|(known, held, _)| *known == provenance && held + size <= MERGE_BYTES)
            {
                Some((_, held, numbers)) => {
                    *held += size;
                    numbers.push(number);
                }
                None => groups.push((provenance, size, vec![number])),
            }
        }
        let mut merged = BTreeSet::new();
        for (provenance, _, numbers) in groups {
            let mut keys = Vec::new();
            let mut rows = Vec::new();
            for number in &numbers {
                let segment = &self.segments[*number as usize];
                for row in 0..segment.len() {
                    let key = segment.key(row);
                    let current = self
                        .rows
                        .get(&key)
                        .is_some_and(|location| (location.segment, location.row as usize) == (*number, row));
                    if let Some(values) = segment.row(row).filter(|_| current) {
                        keys.push(key);
                        rows.extend_from_slice(values);
                    }
                }
            }
            if numbers.len() > 1 {
                merged.extend(numbers.iter().map(|number| self.segments[*number as usize].name()));
                if !keys.is_empty() {
                    let dim = self.segments[numbers[0] as usize].dim();
                    let (path, name) = segment::write(&self.folder, self.id, dim, &keys, &rows, &provenance)?;
                    merged.remove(&name);
                    self.add(Segment::open(&path, self.id)?);
                }
            }
        }
        self.commit(|entry| !merged.contains(&entry.name))?;
        // Where a mapped file can't be removed, this process is not the one that maps it.
        self.segments.clear();
        self.rows.clear();
        for name in &merged {
            // Readers keep their maps; where a mapped file can't be removed it stays behind as a harmless copy.
            let _ = fs::remove_file(self.folder.join(segment::file_name(*name)));
        }
        *self = Self::open(self.folder.clone(), self.id)?;
        Ok(())
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
