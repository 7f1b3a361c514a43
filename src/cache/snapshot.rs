//! The rows of a space at one moment: its open segments, and a table that finds a key in them.
//!
//! The table holds eight bytes a row: where the row lies. The keys stay in the mapped files.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use hashbrown::HashTable;
use rayon::prelude::*;

use super::codec::Index;
use super::index;
use super::key::{RowKey, SpaceId};
use super::segment::{self, Segment};
use crate::disk::Files;
use crate::error::{Error, Result};

/// Where a row lies; of two, the one that was opened later is the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Location {
    pub(super) segment: u32,
    pub(super) row: u32,
}

/// Open segments and what is in them.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub(super) segments: Vec<Segment>,
    /// Every row of every segment, several of one key too: a damaged one must not hide a good one.
    rows: HashTable<Location>,
    keys: usize,
    /// Segment files that could not be used.
    pub(super) damaged: Vec<PathBuf>,
}

impl Snapshot {
    /// Opens what is in `folder` now.
    pub(super) fn load(files: &Files, folder: &Path, id: SpaceId) -> Result<Self> {
        // A merge by another process may unlink a segment between the reading of the index and the opening of the
        // segment: then there is a newer index. What is missing from an unchanged index is gone.
        let mut before = None;
        loop {
            let index = Index::read(folder, id)?.unwrap_or_else(|problem| {
                let path = folder.join(index::FILE_NAME);
                tracing::warn!("{}: {problem}; using the segments themselves", path.display());
                Index::empty(id)
            });
            let (snapshot, missing) = Self::of_index(files, folder, id, &index)?;
            if missing.is_empty() {
                return Ok(snapshot);
            }
            if before == Some(index.generation) {
                for path in missing {
                    tracing::warn!("{} is gone; its rows will be computed again", path.display());
                }
                return Ok(snapshot);
            }
            before = Some(index.generation);
        }
    }

    /// Opens the segments of `index`, and those beside it that a crash kept out of it; returns the vanished ones too.
    fn of_index(files: &Files, folder: &Path, id: SpaceId, index: &Index) -> Result<(Self, Vec<PathBuf>)> {
        let named: BTreeSet<[u8; 16]> = index.segments.iter().map(|entry| entry.name).collect();
        let mut orphans = BTreeSet::new();
        for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
            let path = entry.map_err(Error::io("list", folder))?.path();
            orphans.extend(segment::parse_file_name(&path).filter(|name| !named.contains(name)));
        }
        let names: Vec<[u8; 16]> = orphans
            .into_iter()
            .chain(index.segments.iter().map(|entry| entry.name))
            .collect();
        let open = |name: &[u8; 16]| {
            let path = folder.join(segment::file_name(*name));
            let segment = Segment::open(files, &path, id);
            (path, segment)
        };
        let opened: Vec<(PathBuf, Result<Segment>)> = names.par_iter().map(open).collect();

        let (mut snapshot, mut missing) = (Self::default(), Vec::new());
        let rows: usize = opened.iter().flat_map(|(_, segment)| segment).map(Segment::len).sum();
        snapshot.rows.reserve(rows, |_| unreachable!("the table is empty"));
        for (path, segment) in opened {
            match segment {
                Ok(segment) if snapshot.dim().is_some_and(|dim| dim != segment.dim()) => {
                    tracing::warn!(
                        "{}: its rows have another length; they will be computed again",
                        path.display()
                    );
                    snapshot.damaged.push(path);
                }
                Ok(segment) => snapshot.add(segment),
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => missing.push(path),
                Err(Error::Damaged { path, problem }) => {
                    tracing::warn!("{}: {problem}; its rows will be computed again", path.display());
                    snapshot.damaged.push(path);
                }
                Err(error) => return Err(error),
            }
        }
        Ok((snapshot, missing))
    }

    pub(super) fn add(&mut self, segment: Segment) {
        let number = u32::try_from(self.segments.len()).expect("there are fewer than 2^32 segments");
        let length = u32::try_from(segment.len()).expect("a segment has fewer than 2^32 rows");
        self.segments.push(segment);
        let segments = &self.segments;
        let key = |location: &Location| segments[location.segment as usize].key(location.row as usize);
        let hash = |location: &Location| key(location).table_hash();
        self.rows.reserve(length as usize, hash);
        for row in 0..length {
            let location = Location { segment: number, row };
            let new = key(&location);
            self.keys += usize::from(self.rows.find(new.table_hash(), |known| key(known) == new).is_none());
            self.rows.insert_unique(new.table_hash(), location, hash);
        }
    }

    /// The number of different keys.
    pub(super) fn len(&self) -> usize {
        self.keys
    }

    pub(super) fn dim(&self) -> Option<usize> {
        self.segments.first().map(Segment::dim)
    }

    /// All keys, each once.
    pub(super) fn keys(&self) -> impl Iterator<Item = RowKey> {
        let key = |location: &Location| self.segments[location.segment as usize].key(location.row as usize);
        self.rows
            .iter()
            .filter(move |location| self.copies(&key(location)).max() == Some(**location))
            .map(key)
    }

    pub(super) fn copies(&self, key: &RowKey) -> impl Iterator<Item = Location> {
        self.rows
            .iter_hash(key.table_hash())
            .copied()
            .filter(move |location| self.segments[location.segment as usize].key(location.row as usize) == *key)
    }

    pub(super) fn contains(&self, key: &RowKey) -> bool {
        self.copies(key).next().is_some()
    }

    /// The newest copy of the row of `key` whose bytes are those that were written.
    pub(super) fn find(&self, key: &RowKey) -> Option<(Location, &[f32])> {
        let read = |location: Location| Some((location, self.row_at(location)?));
        let newest = self.copies(key).max()?;
        read(newest).or_else(|| {
            let mut older: Vec<Location> = self.copies(key).filter(|location| *location != newest).collect();
            older.sort_unstable_by_key(|location| Reverse(*location));
            older.into_iter().find_map(read)
        })
    }

    fn row_at(&self, location: Location) -> Option<&[f32]> {
        self.segments[location.segment as usize].row(location.row as usize)
    }
}
