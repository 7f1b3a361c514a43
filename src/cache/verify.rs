//! Every checksum of the cache checked again, and what is damaged set aside.
//!
//! Repairing loses nothing that was usable: good rows of a segment with bad ones are rewritten, the rest waits under another
//! name for whoever wants to look, and the next `extract` computes what is missing. `origin.json` is a note that no number
//! depends on, so it carries no checksum; that it can be read is all that is checked. Records of data sets are theirs.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;

use super::codec::Index;
use super::index;
use super::key::{FeatureSpace, SpaceId};
use super::lock::{INDEX_LOCK, Lock};
use super::segment::{self, Segment};
use super::space::{DAMAGED, Space, set_aside};
use super::store::{
    Cache, FAILURES_FILE, ORIGIN_FILE, SPACE_FILE, TAG, TAG_FILE, is_lock, is_tagged, list, read_origin,
};
use crate::disk::{self, LockKind};
use crate::error::{Error, Result};
use crate::observer::{Observer, Unit};

/// Rows that are checked between two looks at the observer.
const ROWS_PER_STEP: usize = 4096;

/// What [`Cache::verify`] found.
#[derive(Debug, Default, Serialize)]
pub struct VerifyReport {
    /// Each folder of a space, by name.
    pub spaces: Vec<VerifiedSpace>,
    /// Files outside the spaces that are not as they should be.
    pub files: Vec<FileFinding>,
}

/// What [`Cache::verify`] found in the folder of one space.
#[derive(Debug, Default, Serialize)]
pub struct VerifiedSpace {
    /// The folder.
    #[serde(serialize_with = "disk::lossy")]
    pub folder: PathBuf,
    /// The space's id; `None` when nothing in the folder tells it.
    pub space: Option<String>,
    /// Segments that could be opened.
    pub segments: usize,
    /// Rows in them, several of one key counted each.
    pub rows: u64,
    /// Bytes of segments read.
    pub bytes: u64,
    /// Rows whose bytes are not those that were written.
    pub bad_rows: Vec<BadRow>,
    /// Files that are not as they should be.
    pub files: Vec<FileFinding>,
}

/// A row whose bytes are not those that were written; it is never given out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BadRow {
    /// blake3 of the picture's bytes, hexadecimal.
    pub content: String,
    /// Which view of it.
    pub view: u32,
    /// The segment.
    #[serde(serialize_with = "disk::lossy")]
    pub segment: PathBuf,
}

/// What is the matter with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Finding {
    /// Its bytes are not those that were written.
    Damaged,
    /// It should be there and is not.
    Missing,
    /// A newer version of this program wrote it; it is left alone.
    Newer,
    /// A crash kept it out of the index; its rows count all the same.
    NotIndexed,
    /// It was damaged and set aside before.
    SetAside,
    /// It is being written, or a killed program left it.
    Temporary,
    /// The cache knows nothing of it.
    Foreign,
}

/// A file that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileFinding {
    /// The file.
    #[serde(serialize_with = "disk::lossy")]
    pub path: PathBuf,
    /// What is the matter.
    pub finding: Finding,
    /// In words.
    pub problem: String,
    /// What was done about it.
    pub repair: Option<String>,
}

impl FileFinding {
    fn new(path: impl Into<PathBuf>, finding: Finding, problem: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            finding,
            problem: problem.into(),
            repair: None,
        }
    }

    /// Whether bytes of the cache are lost; other findings are for the information of people.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self.finding, Finding::Damaged | Finding::Missing)
    }
}

impl VerifyReport {
    /// Whether every file and row is what was written.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.spaces.iter().all(|space| space.bad_rows.is_empty()) && !self.findings().any(FileFinding::is_damage)
    }

    /// All findings, of spaces and of files outside.
    pub fn findings(&self) -> impl Iterator<Item = &FileFinding> {
        let in_spaces = self.spaces.iter().flat_map(|space| &space.files);
        self.files.iter().chain(in_spaces)
    }
}

impl Cache {
    /// Checks every file of the cache but the records of data sets: each row against its checksum, each part against what
    /// vouches for it.
    ///
    /// With `repair`, damaged files are renamed to `.damaged`, good rows beside bad ones rewritten, and the index made
    /// anew. Progress is told in bytes of segments.
    ///
    /// # Errors
    /// When a file can't be read or a repair not be written, and [`Error::Interrupted`] when the observer asks to stop.
    pub fn verify(&self, observer: &dyn Observer, repair: bool) -> Result<VerifyReport> {
        let folders = self.space_folders()?;
        let mut total = 0;
        for folder in &folders {
            let segments = list(folder)?
                .into_iter()
                .filter(|path| segment::parse_file_name(path).is_some());
            total += segments
                .map(|path| fs::metadata(path).map_or(0, |metadata| metadata.len()))
                .sum::<u64>();
        }
        observer.begin("verify", Some(total), Unit::Bytes);
        let mut report = VerifyReport::default();
        for folder in folders {
            report.spaces.push(self.verify_space(&folder, observer, repair)?);
        }
        observer.end();
        self.verify_root(&mut report.files, repair)?;
        Ok(report)
    }

    fn verify_root(&self, files: &mut Vec<FileFinding>, repair: bool) -> Result<()> {
        let tag = self.root().join(TAG_FILE);
        if tag.exists() && !is_tagged(self.root()) {
            let mut finding = FileFinding::new(&tag, Finding::Damaged, "backup programs do not know it for a cache's");
            if repair {
                self.files().write(&tag, &[TAG])?;
                finding.repair = Some("written anew".to_owned());
            }
            files.push(finding);
        }
        for path in list(self.root())? {
            if path != tag
                && path != self.root().join(FAILURES_FILE)
                && path != self.spaces_folder()
                && path != self.datasets_folder()
                && path != self.test_uses_folder()
            {
                files.push(other_file(&path));
            }
        }
        let beside = list(&self.spaces_folder())?.into_iter().filter(|path| !path.is_dir());
        files.extend(beside.map(|path| other_file(&path)));
        Ok(())
    }

    fn verify_space(&self, folder: &Path, observer: &dyn Observer, repair: bool) -> Result<VerifiedSpace> {
        // Nobody replaces the index while the segments are opened; a cache that can't be written is checked as it is.
        let lock = Lock::wait(self.files(), &folder.join(INDEX_LOCK), LockKind::Exclusive);
        let lock = if repair { Some(lock?) } else { lock.ok() };
        let mut found = VerifiedSpace {
            folder: folder.to_path_buf(),
            ..VerifiedSpace::default()
        };
        let Some(id) = self.verify_names(&mut found, repair)? else {
            return Ok(found);
        };
        found.space = Some(id.to_string());

        let (index, index_is_good) = match Index::read(folder, id)? {
            Ok(index) => (index, true),
            Err(problem) => {
                found.files.push(FileFinding::new(
                    folder.join(index::FILE_NAME),
                    Finding::Damaged,
                    problem,
                ));
                (Index::empty(id), false)
            }
        };
        let named: BTreeSet<PathBuf> = index
            .segments
            .iter()
            .map(|entry| folder.join(segment::file_name(entry.name)))
            .collect();
        let mut there: BTreeSet<PathBuf> = list(folder)?
            .into_iter()
            .filter(|path| segment::parse_file_name(path).is_some())
            .collect();
        for path in named.difference(&there) {
            found.files.push(FileFinding::new(
                path,
                Finding::Missing,
                "the index names it and it is gone",
            ));
        }
        let mut opened = Vec::new();
        let mut dim = None;
        for path in std::mem::take(&mut there) {
            let segment = match Segment::open(self.files(), &path, id) {
                Ok(segment) if *dim.get_or_insert(segment.dim()) != segment.dim() => {
                    let problem = format!("its rows have {} numbers", segment.dim());
                    found.files.push(FileFinding::new(&path, Finding::Damaged, problem));
                    continue;
                }
                Ok(segment) => segment,
                Err(Error::Damaged { path, problem }) => {
                    found.files.push(FileFinding::new(path, Finding::Damaged, problem));
                    continue;
                }
                Err(Error::NewerCache { path }) => {
                    let problem = "a newer version of lastlayer wrote it";
                    found.files.push(FileFinding::new(path, Finding::Newer, problem));
                    continue;
                }
                // Merged by a program that does without the lock.
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if index_is_good && !named.contains(&path) {
                let problem = "the index does not name it; its rows count all the same";
                found.files.push(FileFinding::new(&path, Finding::NotIndexed, problem));
            }
            opened.push((path, segment));
        }

        // Rows take long to read: writers go on meanwhile, unless something may have to be replaced.
        let _lock = lock.filter(|_| repair);
        let mut bad_segments = Vec::new();
        for (path, segment) in opened {
            let bad = bad_rows(&segment, observer)?;
            found.segments += 1;
            found.rows += segment.len() as u64;
            found.bytes += segment.file_bytes();
            if !bad.is_empty() {
                let problem = format!("damaged in {} of its {} rows", bad.len(), segment.len());
                found.files.push(FileFinding::new(&path, Finding::Damaged, problem));
                found.bad_rows.extend(bad.iter().map(|row| BadRow {
                    content: segment.key(*row).content_hex(),
                    view: segment.key(*row).view,
                    segment: path.clone(),
                }));
                bad_segments.push((segment, bad));
            }
        }
        if repair
            && found
                .files
                .iter()
                .any(|finding| finding.is_damage() || finding.finding == Finding::NotIndexed)
        {
            self.repair(&mut found, id, bad_segments)?;
        }
        Ok(found)
    }

    /// Checks all but index and segments; returns the space's id.
    fn verify_names(&self, found: &mut VerifiedSpace, repair: bool) -> Result<Option<SpaceId>> {
        let folder = found.folder.clone();
        let path = folder.join(SPACE_FILE);
        let described = match fs::read(&path) {
            Ok(bytes) => String::from_utf8(bytes)
                .ok()
                .map(|json| FeatureSpace::from_json(json).id())
                .filter(|id| folder.file_name() == Some(id.to_string().as_ref()))
                .ok_or((
                    Finding::Damaged,
                    "it does not describe the space whose folder it lies in",
                )),
            // Begun by a program that died before it had a row: nothing is lost.
            Err(error) if error.kind() == ErrorKind::NotFound && !has_segments(&folder)? => {
                Self::verify_others(found, repair)?;
                return Ok(None);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Err((Finding::Missing, "it is not there")),
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        let id = match described {
            Ok(id) => Some(id),
            Err((finding, problem)) => {
                let mut finding = FileFinding::new(&path, finding, problem);
                if repair && finding.finding == Finding::Damaged {
                    self.files().rename(&path, &set_aside(&path))?;
                    finding.repair = Some("set aside; the next `extract` writes it anew".to_owned());
                }
                found.files.push(finding);
                id_in_segments(&folder)
            }
        };
        let origin = folder.join(ORIGIN_FILE);
        if origin.exists() && read_origin(&folder).is_none() {
            let mut finding = FileFinding::new(&origin, Finding::Damaged, "it can't be read; nothing depends on it");
            if repair {
                self.files().rename(&origin, &set_aside(&origin))?;
                finding.repair = Some("set aside; the next `extract` writes it anew".to_owned());
            }
            found.files.push(finding);
        }
        Self::verify_others(found, repair)?;
        Ok(id)
    }

    /// Tells of files that are none of a space's.
    fn verify_others(found: &mut VerifiedSpace, repair: bool) -> Result<()> {
        let folder = found.folder.clone();
        for path in list(&folder)? {
            let known = [SPACE_FILE, ORIGIN_FILE, index::FILE_NAME].map(|name| folder.join(name));
            if !known.contains(&path) && !is_lock(&path) && segment::parse_file_name(&path).is_none() {
                let finding = other_file(&path);
                // What was set aside just now is told already.
                if !(finding.finding == Finding::SetAside
                    && repair
                    && found.files.iter().any(|file| set_aside(&file.path) == path))
                {
                    found.files.push(finding);
                }
            }
        }
        Ok(())
    }

    fn repair(&self, found: &mut VerifiedSpace, id: SpaceId, bad_segments: Vec<(Segment, Vec<usize>)>) -> Result<()> {
        let folder = found.folder.clone();
        let mut rewritten = 0;
        for (segment, bad) in bad_segments {
            let (mut keys, mut rows) = (Vec::new(), Vec::new());
            for row in 0..segment.len() {
                if let Some(values) = segment.row(row) {
                    keys.push(segment.key(row));
                    rows.extend_from_slice(values);
                }
            }
            debug_assert_eq!(keys.len() + bad.len(), segment.len());
            if !keys.is_empty() {
                let provenance = segment.provenance();
                segment::write(self.files(), &folder, id, segment.dim(), &keys, &rows, &provenance)?;
                rewritten += keys.len();
            }
        }
        // The good rows are durable: now the index may do without the damaged files, and these may lose their names.
        let damaged: BTreeSet<[u8; 16]> = found
            .files
            .iter()
            .filter(|finding| finding.finding == Finding::Damaged)
            .filter_map(|finding| segment::parse_file_name(&finding.path))
            .collect();
        let space = Space::open(self.files(), folder, id, None)?;
        tracing::debug!("{rewritten} good rows were rewritten in {}", space.folder.display());
        space.commit(&damaged)?;
        drop(space);
        for finding in &mut found.files {
            let name = segment::parse_file_name(&finding.path);
            match (finding.finding, name) {
                (Finding::Damaged, Some(_)) => {
                    self.files().rename(&finding.path, &set_aside(&finding.path))?;
                    finding.repair = Some("set aside; its good rows were kept".to_owned());
                }
                (Finding::Damaged, None) if finding.path.ends_with(index::FILE_NAME) => {
                    finding.repair = Some("written anew".to_owned());
                }
                (Finding::Missing | Finding::NotIndexed, Some(_)) => {
                    finding.repair = Some("the index was written anew".to_owned());
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn has_segments(folder: &Path) -> Result<bool> {
    Ok(list(folder)?
        .iter()
        .any(|path| segment::parse_file_name(path).is_some()))
}

/// The id that the segments in a folder give; its description is lost.
fn id_in_segments(folder: &Path) -> Option<SpaceId> {
    let segments = list(folder)
        .ok()?
        .into_iter()
        .filter(|path| segment::parse_file_name(path).is_some());
    let mut ids = segments.filter_map(|path| segment::space_in_header(&path));
    ids.find(|id| folder.file_name() == Some(id.to_string().as_ref()))
}

/// The rows of a segment that are not what was written, in order.
fn bad_rows(segment: &Segment, observer: &dyn Observer) -> Result<Vec<usize>> {
    let mut bad = Vec::new();
    let mut told = 0;
    for start in (0..segment.len()).step_by(ROWS_PER_STEP) {
        if observer.interrupted() {
            return Err(Error::Interrupted);
        }
        let end = segment.len().min(start + ROWS_PER_STEP);
        let found: Vec<usize> = (start..end)
            .into_par_iter()
            .filter(|row| segment.row(*row).is_none())
            .collect();
        bad.extend(found);
        let done = segment.file_bytes() * end as u64 / segment.len() as u64;
        observer.advance(done - told);
        told = done;
    }
    Ok(bad)
}

fn other_file(path: &Path) -> FileFinding {
    if path.file_name().is_some_and(disk::is_temporary) {
        FileFinding::new(
            path,
            Finding::Temporary,
            "it is being written, or a killed program left it",
        )
    } else if path.extension().is_some_and(|extension| extension == DAMAGED) {
        FileFinding::new(
            path,
            Finding::SetAside,
            "it was damaged and set aside; `lastlayer cache gc` removes it",
        )
    } else {
        FileFinding::new(path, Finding::Foreign, "the cache knows nothing of it")
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
