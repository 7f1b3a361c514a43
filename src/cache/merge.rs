//! Segments rewritten as fewer or smaller ones: merging after many small commits, and dropping rows nobody needs.
//!
//! The order is what makes it safe at any moment: the new segments are durable before the index that names them in place
//! of the old ones, and the old ones go after that. A crash between leaves rows twice, never none.

use std::collections::BTreeSet;

use serde::Serialize;

use super::codec::Index;
use super::key::RowKey;
use super::lock::Lock;
use super::segment::{self, KeyTable, Provenance, Segment};
use super::space::Space;
use crate::disk::LockKind;
use crate::error::Result;

/// When segments are merged, and into which size.
#[derive(Debug, Clone, Copy)]
pub(super) struct Merging {
    /// Segments of fewer bytes are small.
    pub(super) small_bytes: u64,
    /// As many small ones are merged.
    pub(super) count: usize,
    /// Into segments of about this size at most, which is also what a merge holds in memory.
    pub(super) most_bytes: u64,
}

impl Default for Merging {
    fn default() -> Self {
        Self {
            small_bytes: 32 << 20,
            count: 32,
            most_bytes: 128 << 20,
        }
    }
}

impl Merging {
    pub(super) fn is_due(&self, index: &Index) -> bool {
        let small = index.segments.iter().filter(|entry| entry.bytes < self.small_bytes);
        small.count() >= self.count
    }
}

/// The outcome of work that must have a space for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exclusive<T> {
    /// It was done.
    Done(T),
    /// A running program writes to the space: nothing was done.
    Busy,
}

/// What [`Space::retain`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Retained {
    /// Rows that are there now.
    pub rows: u64,
    /// Keys that are no longer there.
    pub dropped_rows: u64,
    /// Bytes of segments before, less those after.
    pub freed_bytes: u64,
    /// Segments before.
    pub segments_before: usize,
    /// Segments after.
    pub segments: usize,
}

/// Segments of one origin that become one segment.
struct Group {
    provenance: Provenance,
    bytes: u64,
    members: Vec<u32>,
    /// Whether there is a point in writing it: it joins several, or leaves rows out.
    changes: bool,
}

impl Space {
    /// Merges the small segments, so that a long run leaves few files behind; called with the index locked.
    pub(super) fn merge(&mut self) -> Result<()> {
        self.reload()?;
        self.rewrite(&|_| true)
    }

    /// Drops the rows of the keys that `keep` refuses, and joins small segments.
    ///
    /// Never waits for writers: while another program (or another [`Space`] of this one) is about to add rows, the outcome
    /// is [`Exclusive::Busy`]. Readers go on with what they have open.
    ///
    /// # Errors
    /// When segments or the index can't be read or written; all rows that are kept are there nonetheless.
    pub fn retain(&mut self, keep: &dyn Fn(&RowKey) -> bool) -> Result<Exclusive<Retained>> {
        let is_writer = self.users.take().is_some();
        let outcome = match Lock::take(&self.files, &self.users_lock(), LockKind::Exclusive)? {
            Some(_users) => self.retain_alone(keep).map(Exclusive::Done),
            None => Ok(Exclusive::Busy),
        };
        if is_writer {
            self.users = Some(Lock::wait(&self.files, &self.users_lock(), LockKind::Shared)?);
        }
        outcome
    }

    fn retain_alone(&mut self, keep: &dyn Fn(&RowKey) -> bool) -> Result<Retained> {
        let _lock = self.lock_index()?;
        self.reload()?;
        let (rows, bytes, segments_before) = (self.len(), self.segment_bytes(), self.snapshot.segments.len());
        self.rewrite(keep)?;
        Ok(Retained {
            rows: self.len() as u64,
            dropped_rows: rows.saturating_sub(self.len()) as u64,
            freed_bytes: bytes.saturating_sub(self.segment_bytes()),
            segments_before,
            segments: self.snapshot.segments.len(),
        })
    }

    pub(super) fn segment_bytes(&self) -> u64 {
        self.snapshot.segments.iter().map(Segment::file_bytes).sum()
    }

    /// Replaces the small segments by joined ones, and those with rows that `keep` refuses by ones without.
    ///
    /// Called with the index locked and a snapshot of this moment.
    fn rewrite(&mut self, keep: &dyn Fn(&RowKey) -> bool) -> Result<()> {
        let mut old = BTreeSet::new();
        for group in self.groups(keep) {
            let members = || {
                group
                    .members
                    .iter()
                    .map(|number| &self.snapshot.segments[*number as usize])
            };
            let names: Vec<[u8; 16]> = members().map(Segment::name).collect();
            let dim = members().next().map_or(0, Segment::dim);
            let (table, rows) = self.rows_of(&group, keep);
            old.extend(&names);
            if !rows.is_empty() {
                let (path, name) = segment::write_table(
                    &self.files,
                    &self.folder,
                    self.id,
                    dim,
                    &table,
                    &|index| rows[index],
                    &group.provenance,
                )?;
                old.remove(&name);
                if !names.contains(&name) {
                    self.snapshot.add(Segment::open(&self.files, &path, self.id)?);
                }
            }
        }
        self.replace(&old)
    }

    /// Makes the index name this snapshot without the segments `old`, then removes those.
    pub(super) fn replace(&mut self, old: &BTreeSet<[u8; 16]>) -> Result<()> {
        self.commit(old)?;
        // Where a mapped file can't be removed, this process is not the one that maps it.
        self.snapshot = super::snapshot::Snapshot::default();
        for name in old {
            // Readers keep their maps; where a mapped file can't be removed it stays behind as a harmless copy.
            let _ = self.files.remove(&self.folder.join(segment::file_name(*name)));
        }
        if !old.is_empty() {
            // What a power cut brings back is a harmless copy too.
            let _ = self.files.sync_folder(&self.folder);
        }
        self.reload()
    }

    /// What has to be rewritten. Rows of different machines stay apart: who computed them is recorded per segment.
    fn groups(&self, keep: &dyn Fn(&RowKey) -> bool) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for (number, segment) in (0_u32..).zip(&self.snapshot.segments) {
            let refused = (0..segment.len()).filter(|row| !keep(&segment.key(*row))).count();
            if refused == 0 && segment.file_bytes() >= self.merging.small_bytes {
                continue;
            }
            let kept = (segment.len() - refused) as u64;
            let bytes = segment.file_bytes() / (segment.len() as u64).max(1) * kept;
            let provenance = segment.provenance();
            let group = groups
                .iter_mut()
                .find(|group| group.provenance == provenance && group.bytes + bytes <= self.merging.most_bytes);
            match group {
                Some(group) => {
                    group.bytes += bytes;
                    group.members.push(number);
                    group.changes = true;
                }
                None => groups.push(Group {
                    provenance,
                    bytes,
                    members: vec![number],
                    changes: refused > 0,
                }),
            }
        }
        groups.retain(|group| group.changes);
        groups
    }

    /// The good rows of a group that `keep` takes, each key once.
    fn rows_of(&self, group: &Group, keep: &dyn Fn(&RowKey) -> bool) -> (KeyTable, Vec<&[f32]>) {
        let (mut table, mut rows) = (KeyTable::default(), Vec::new());
        for number in &group.members {
            let segment = &self.snapshot.segments[*number as usize];
            for row in 0..segment.len() {
                let key = segment.key(row);
                if !keep(&key) {
                    continue;
                }
                if let Some((location, values)) = self.snapshot.find(&key)
                    && (location.segment, location.row as usize) == (*number, row)
                {
                    table.copy(segment, row);
                    rows.push(values);
                }
            }
        }
        (table, rows)
    }
}
