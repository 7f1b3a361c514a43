//! The cache as a whole: what is in it, whether it is sound, and what can go. Joins the spaces with the records of data sets.

mod deep;
mod garbage;

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::Serialize;

use crate::cache::{Cache, DatasetRecord, FileFinding, Finding, SpaceStatus, VerifyReport};
use crate::dataset::DatasetKind;
use crate::disk::is_gone;
use crate::error::{Error, Result};
use crate::observer::Observer;

pub use deep::{DeepOptions, DeepReport, Recomputed, deep_verify};
pub use garbage::{CollectedSpace, GarbageOptions, GarbageReport, RemovedSpace, collect_garbage};

/// What is in a cache.
#[derive(Debug, Clone)]
pub struct CacheStatus {
    /// The spaces, by id.
    pub spaces: Vec<SpaceStatus>,
    /// The data sets, by name.
    pub datasets: Vec<DatasetStatus>,
    /// Records of data sets that are not what was written.
    pub damaged_records: Vec<PathBuf>,
}

/// A data set that the cache remembers.
#[derive(Debug, Clone)]
pub struct DatasetStatus {
    /// What it is remembered by.
    pub name: PathBuf,
    /// What it was read from.
    pub kind: DatasetKind,
    /// Its pictures.
    pub images: usize,
    /// Pictures that `extract` could not use.
    pub failed: usize,
    /// Pictures that `extract` did not come to.
    pub unseen: usize,
    /// Its classes.
    pub classes: usize,
    /// Whether what it was read from is there.
    pub is_there: bool,
    /// Bytes of the record.
    pub bytes: u64,
    /// When it was last extracted.
    pub last_used: SystemTime,
}

impl CacheStatus {
    /// Bytes on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let spaces: u64 = self.spaces.iter().map(|space| space.bytes).sum();
        spaces + self.datasets.iter().map(|dataset| dataset.bytes).sum::<u64>()
    }
}

/// Says what is in `cache`, without reading the rows.
///
/// # Errors
/// When a folder or file of the cache can't be read.
pub fn status(cache: &Cache) -> Result<CacheStatus> {
    let mut datasets = Vec::new();
    let (records, damaged) = open_records(cache)?;
    for record in records {
        let metadata = fs::metadata(record.file()).map_err(Error::io("read", record.file()))?;
        let of = record.of();
        datasets.push(DatasetStatus {
            name: of.name.clone(),
            kind: of.kind,
            images: record.len(),
            failed: record.samples().filter(|sample| sample.failure.is_some()).count(),
            unseen: record.samples().filter(|sample| !sample.is_seen()).count(),
            classes: of.classes.len(),
            is_there: is_there(&record),
            bytes: metadata.len(),
            last_used: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        });
    }
    datasets.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(CacheStatus {
        spaces: cache.space_status()?,
        datasets,
        damaged_records: damaged.into_iter().map(|(path, _)| path).collect(),
    })
}

/// The file of a record that is not what was written, and what is the matter.
type DamagedRecord = (PathBuf, String);

/// The records that can be read, and the files of the others.
fn open_records(cache: &Cache) -> Result<(Vec<DatasetRecord>, Vec<DamagedRecord>)> {
    let (mut records, mut damaged) = (Vec::new(), Vec::new());
    for file in cache.dataset_record_files()? {
        match cache.open_dataset_record(&file) {
            Ok(record) => records.push(record),
            Err(Error::Damaged { path, problem }) => damaged.push((path, problem)),
            Err(error) => return Err(error),
        }
    }
    Ok((records, damaged))
}

/// Whether what a data set was read from is still there, as far as that can be seen.
fn is_there(record: &DatasetRecord) -> bool {
    let of = record.of();
    let has_archive = || of.archives.iter().any(|(path, _)| !is_gone(&of.root.join(path)));
    match of.kind {
        DatasetKind::Folder | DatasetKind::Table => !is_gone(&of.name),
        DatasetKind::Archives => has_archive(),
        DatasetKind::List => record.samples().any(|sample| !is_gone(&of.root.join(&sample.path))),
        // What came over standard input is never there, and is wanted all the same.
        DatasetKind::Stream => of.archives.is_empty() || has_archive(),
    }
}

/// What [`verify`] and [`deep_verify`] found; serialises as the command's JSON.
#[derive(Debug, Serialize)]
pub struct Verification {
    /// Spaces and files.
    #[serde(flatten)]
    pub report: VerifyReport,
    /// Records of data sets that were checked.
    pub datasets: usize,
    /// Features that were computed again, per space.
    pub deep: Vec<DeepReport>,
}

impl Verification {
    /// How many rows and files are not what was written.
    #[must_use]
    pub fn damage(&self) -> usize {
        let rows: usize = self.report.spaces.iter().map(|space| space.bad_rows.len()).sum();
        let files = self.report.findings().filter(|finding| finding.is_damage()).count();
        rows + files + self.deep.iter().map(|deep| deep.different.len()).sum::<usize>()
    }
}

/// Checks every checksum in `cache`. With `repair`, what is damaged is set aside, so that the next `extract` computes it
/// again; without, nothing is changed.
///
/// # Errors
/// When a file can't be read or a repair not be written, and [`Error::Interrupted`] when the observer asks to stop.
pub fn verify(cache: &Cache, repair: bool, observer: &dyn Observer) -> Result<Verification> {
    let mut report = cache.verify(observer, repair)?;
    let (records, damaged) = open_records(cache)?;
    for (path, problem) in damaged {
        let repair = if repair {
            Some(cache.set_record_aside(&path)?)
        } else {
            None
        };
        report.files.push(FileFinding {
            path,
            finding: Finding::Damaged,
            problem: format!("the record of a data set: {problem}"),
            repair,
        });
    }
    Ok(Verification {
        report,
        datasets: records.len(),
        deep: Vec::new(),
    })
}
