//! Segments rewritten as fewer or smaller ones: merging after many small commits, and dropping rows nobody needs.
//!
//! The order is what makes it safe at any moment: the new segments are durable before the index that names them in place
//! of the old ones, and the old ones go after that. A crash between leaves rows twice, never none.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::time::Duration;

use serde::Serialize;

use super::codec::Index;
use super::key::RowKey;
use super::lock::Lock;
use super::segment::{self, KeyTable, Provenance, Segment};
use super::snapshot::Location;
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
    /// Keys that were refused and are there all the same, because they are recent.
    pub recent_rows: u64,
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
        self.retain_but_recent(&mut || Ok(()), keep, Duration::ZERO)
    }

    /// As [`Space::retain`], but rows in segments younger than `youth` stay, whatever `keep` says of them: whoever wrote
    /// them may not have come to say what they are for.
    ///
    /// `alone` is called once no other program has the space open, and before `keep`: what `keep` goes by may have changed
    /// until then.
    ///
    /// # Errors
    /// As [`Space::retain`], and what `alone` gives.
    pub fn retain_but_recent(
        &mut self,
        alone: &mut dyn FnMut() -> Result<()>,
        keep: &dyn Fn(&RowKey) -> bool,
        youth: Duration,
    ) -> Result<Exclusive<Retained>> {
        let is_writer = self.users.take().is_some();
        let outcome = match Lock::take(&self.files, &self.users_lock(), LockKind::Exclusive)? {
            Some(_users) => alone()
                .and_then(|()| self.retain_alone(keep, youth))
                .map(Exclusive::Done),
            None => Ok(Exclusive::Busy),
        };
        if is_writer {
            self.users = Some(Lock::wait(&self.files, &self.users_lock(), LockKind::Shared)?);
        }
        outcome
    }

    fn retain_alone(&mut self, keep: &dyn Fn(&RowKey) -> bool, youth: Duration) -> Result<Retained> {
        let _lock = self.lock_index()?;
        self.reload()?;
        // Found with the space locked: nothing that is added after somebody asked what is used can be missed here.
        let recent = self.recent(keep, youth);
        let (rows, bytes, segments_before) = (self.len(), self.segment_bytes(), self.snapshot.segments.len());
        self.rewrite(&|key| keep(key) || recent.contains(key))?;
        Ok(Retained {
            rows: self.len() as u64,
            dropped_rows: rows.saturating_sub(self.len()) as u64,
            recent_rows: recent.len() as u64,
            freed_bytes: bytes.saturating_sub(self.segment_bytes()),
            segments_before,
            segments: self.snapshot.segments.len(),
        })
    }

    /// What [`Space::retain_but_recent`] would do now; changes nothing.
    ///
    /// # Errors
    /// When the lock is there and can't be read.
    pub fn would_retain(&self, keep: &dyn Fn(&RowKey) -> bool, youth: Duration) -> Result<Exclusive<Retained>> {
        let users = self.users_lock();
        if self.users.is_none()
            && users.exists()
            && let Ok(None) = Lock::take(&self.files, &users, LockKind::Exclusive)
        {
            return Ok(Exclusive::Busy);
        }
        let recent = self.recent(keep, youth);
        let keep = |key: &RowKey| keep(key) || recent.contains(key);
        let (mut bytes, mut segments) = (self.segment_bytes(), self.snapshot.segments.len());
        let mut is_rewritten = vec![false; segments];
        for group in self.groups(&keep) {
            let members = || group.members.iter().map(|number| *number as usize);
            let dim = members()
                .next()
                .map_or(0, |number| self.snapshot.segments[number].dim());
            for number in members() {
                is_rewritten[number] = true;
                bytes -= self.snapshot.segments[number].file_bytes();
                segments -= 1;
            }
            let kept = self.kept_of(&group, &keep).count();
            if kept > 0 {
                bytes += segment::bytes_of(self.id, dim, kept, &group.provenance);
                segments += 1;
            }
        }
        let stays = |key: &RowKey| {
            let elsewhere = || {
                self.snapshot
                    .copies(key)
                    .any(|copy| !is_rewritten[copy.segment as usize])
            };
            // In this order: what is not rewritten need not be read.
            elsewhere() || keep(key) && self.snapshot.find(key).is_some()
        };
        let rows = self.snapshot.keys().filter(stays).count();
        Ok(Exclusive::Done(Retained {
            rows: rows as u64,
            dropped_rows: (self.len() - rows) as u64,
            recent_rows: recent.len() as u64,
            freed_bytes: self.segment_bytes().saturating_sub(bytes),
            segments_before: self.snapshot.segments.len(),
            segments,
        }))
    }

    /// The keys that `keep` refuses and that a segment younger than `youth` has.
    fn recent(&self, keep: &dyn Fn(&RowKey) -> bool, youth: Duration) -> HashSet<RowKey> {
        let is_recent = |segment: &&Segment| {
            let path = self.folder.join(segment::file_name(segment.name()));
            let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
            // A time to come is that of another computer's clock, and not long ago.
            youth > Duration::ZERO && modified.is_ok_and(|modified| modified.elapsed().map_or(true, |age| age < youth))
        };
        let segments = self.snapshot.segments.iter().filter(is_recent);
        segments
            .flat_map(|segment| (0..segment.len()).map(|row| segment.key(row)))
            .filter(|key| !keep(key))
            .collect()
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
    fn rows_of<'a>(&'a self, group: &Group, keep: &dyn Fn(&RowKey) -> bool) -> (KeyTable, Vec<&'a [f32]>) {
        let (mut table, mut rows) = (KeyTable::default(), Vec::new());
        for (location, values) in self.kept_of(group, keep) {
            table.copy(
                &self.snapshot.segments[location.segment as usize],
                location.row as usize,
            );
            rows.push(values);
        }
        (table, rows)
    }

    fn kept_of<'a, 'g>(
        &'a self,
        group: &'g Group,
        keep: &'g dyn Fn(&RowKey) -> bool,
    ) -> impl Iterator<Item = (Location, &'a [f32])> + use<'a, 'g> {
        group.members.iter().flat_map(move |number| {
            let segment = &self.snapshot.segments[*number as usize];
            (0..segment.len()).filter_map(move |row| {
                let key = segment.key(row);
                if !keep(&key) {
                    return None;
                }
                let (location, values) = self.snapshot.find(&key)?;
                ((location.segment, location.row as usize) == (*number, row)).then_some((location, values))
            })
        })
    }
}
