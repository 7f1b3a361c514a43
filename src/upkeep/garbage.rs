//! What can go: rows that no data set uses, spaces whose backbone is gone, leftovers of killed programs.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::{is_there, open_records};
use crate::cache::{Cache, Exclusive, Retained, RowKey, SpaceStatus};
use crate::dataset::DatasetKind;
use crate::disk::{lossy, lossy_list};
use crate::error::Result;
use crate::space::SpaceDescription;

/// How long a row stays that no data set names. A killed `extract` may have written rows that it did not come to record,
/// and one that ran while the records were read may have recorded them since.
const YOUTH: Duration = Duration::from_secs(60 * 60);

/// What [`collect_garbage`] may do.
#[derive(Debug, Clone, Copy, Default)]
pub struct GarbageOptions {
    /// Whether nothing is changed. Default: false.
    pub dry_run: bool,
    /// Whether data sets that are no longer there are forgotten. Default: false.
    pub forget_missing: bool,
    /// Whether rows that were written within the last hour may go too. Default: false.
    pub recent_too: bool,
}

/// What [`collect_garbage`] did, or would do; serialises as the command's JSON.
#[derive(Debug, Clone, Default, Serialize)]
pub struct GarbageReport {
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// Data sets that are no longer there, forgotten.
    #[serde(serialize_with = "lossy_list")]
    pub forgotten_datasets: Vec<PathBuf>,
    /// Spaces whose backbone is gone.
    pub removed_spaces: Vec<RemovedSpace>,
    /// The other spaces.
    pub spaces: Vec<CollectedSpace>,
    /// Leftovers of killed programs, and damaged files that were set aside.
    #[serde(serialize_with = "lossy_list")]
    pub removed_files: Vec<PathBuf>,
    /// Bytes less than before.
    pub freed_bytes: u64,
    /// Rows that are left.
    pub rows: usize,
    /// Segments that are left.
    pub segments: usize,
    /// What could not be looked at, one line each.
    pub kept: Vec<String>,
}

/// A space whose backbone is gone.
#[derive(Debug, Clone, Serialize)]
pub struct RemovedSpace {
    /// Its id.
    pub space: String,
    /// What the backbone was called.
    pub backbone: String,
    /// Where it lay.
    #[serde(serialize_with = "lossy")]
    pub file: PathBuf,
    /// Rows.
    pub rows: usize,
}

/// A space that was tidied.
#[derive(Debug, Clone, Serialize)]
pub struct CollectedSpace {
    /// Its id.
    pub space: String,
    /// Rows before.
    pub rows_before: usize,
    /// Rows that no data set uses.
    pub dropped_rows: usize,
    /// Rows that no data set uses and that are kept because they are less than an hour old.
    pub recent_rows: usize,
    /// Segments before.
    pub segments_before: usize,
    /// Segments after.
    pub segments: usize,
}

/// The contents that data sets use: sorted first halves of their hashes. Two that are equal keep a row too many.
struct Used(Vec<[u8; 16]>);

impl Used {
    fn has(&self, key: &RowKey) -> bool {
        self.0.binary_search(&half(&key.content)).is_ok()
    }
}

fn half(content: &[u8; 32]) -> [u8; 16] {
    *content.first_chunk::<16>().expect("32 bytes hold 16")
}

/// Removes what nobody uses from `cache`. A space that a running program writes to is left alone.
///
/// `same_backbone`: whether the backbone of a name is here, with these bytes (blake3, hexadecimal), though it is not where it
/// was.
///
/// # Errors
/// When a file of the cache can't be read, written or removed; what is used is there nonetheless.
pub fn collect_garbage(
    cache: &Cache,
    options: GarbageOptions,
    same_backbone: &dyn Fn(&str, &str) -> bool,
) -> Result<GarbageReport> {
    let mut report = GarbageReport {
        dry_run: options.dry_run,
        ..GarbageReport::default()
    };
    let youth = if options.recent_too { Duration::ZERO } else { YOUTH };
    let used = used_contents(cache, options, &mut report)?;
    let mut removed_folders = Vec::new();
    for status in cache.space_status()? {
        if let Some(removed) = vanished(&status, same_backbone) {
            if !options.dry_run
                && let Exclusive::Busy = cache.remove_space(status.space.id())?
            {
                leave(&status, &mut report);
                continue;
            }
            report.freed_bytes += status.bytes;
            report.removed_spaces.push(removed);
            removed_folders.push(cache.root().join("spaces").join(status.space.id().to_string()));
            continue;
        }
        let Some(mut space) = cache.open_space(&status.space)? else {
            continue;
        };
        let keep = |key: &RowKey| used.as_ref().is_none_or(|used| used.has(key));
        let retained = if options.dry_run {
            space.would_retain(&keep, youth)?
        } else {
            space.retain_but_recent(&keep, youth)?
        };
        match retained {
            Exclusive::Done(retained) => report.add(&status, retained),
            Exclusive::Busy => leave(&status, &mut report),
        }
    }
    // Those of a space that goes as a whole are counted with it.
    let gone = |path: &PathBuf| removed_folders.iter().any(|folder| path.starts_with(folder));
    report.removed_files = cache.leftovers()?.into_iter().filter(|path| !gone(path)).collect();
    let sizes = report.removed_files.iter().filter_map(|path| fs::metadata(path).ok());
    report.freed_bytes += sizes.map(|metadata| metadata.len()).sum::<u64>();
    if !options.dry_run {
        cache.remove_leftovers()?;
    }
    Ok(report)
}

impl GarbageReport {
    fn add(&mut self, status: &SpaceStatus, retained: Retained) {
        let count = |rows: u64| usize::try_from(rows).unwrap_or(usize::MAX);
        self.freed_bytes += retained.freed_bytes;
        self.rows += count(retained.rows);
        self.segments += retained.segments;
        self.spaces.push(CollectedSpace {
            space: status.space.id().to_string(),
            rows_before: count(retained.rows + retained.dropped_rows),
            dropped_rows: count(retained.dropped_rows),
            recent_rows: count(retained.recent_rows),
            segments_before: retained.segments_before,
            segments: retained.segments,
        });
    }
}

/// Notes that a space is as it was, because it is in use.
fn leave(status: &SpaceStatus, report: &mut GarbageReport) {
    let id = status.space.id().to_string();
    report.kept.push(format!(
        "space {}: a running program writes to it: left alone",
        &id[..8]
    ));
    report.rows += status.rows;
    report.segments += status.segments;
}

/// The contents of all data sets; `None` where a record can't be read, whose rows are not known.
fn used_contents(cache: &Cache, options: GarbageOptions, report: &mut GarbageReport) -> Result<Option<Used>> {
    let (records, damaged) = open_records(cache)?;
    let mut used = Vec::new();
    for record in records {
        // A stream is never there.
        if options.forget_missing && record.of().kind != DatasetKind::Stream && !is_there(&record) {
            report.freed_bytes += fs::metadata(record.file()).map_or(0, |metadata| metadata.len());
            if !options.dry_run {
                cache.forget_dataset(record.file())?;
            }
            report.forgotten_datasets.push(record.of().name.clone());
            continue;
        }
        used.extend(
            record
                .samples()
                .filter_map(|sample| sample.content)
                .map(|content| half(&content)),
        );
    }
    for (path, problem) in &damaged {
        report.kept.push(format!(
            "{}: {problem}: it is not known which rows it uses, so no row is dropped; `lastlayer cache verify` sets it aside",
            path.display()
        ));
    }
    used.sort_unstable();
    used.dedup();
    Ok(damaged.is_empty().then_some(Used(used)))
}

/// The space as removed, if its backbone is neither where it was nor anywhere else that is known.
fn vanished(status: &SpaceStatus, same_backbone: &dyn Fn(&str, &str) -> bool) -> Option<RemovedSpace> {
    let origin = status.origin.as_ref()?;
    let description = SpaceDescription::parse(status.space.json());
    if origin.file.exists() || description.is_some_and(|space| same_backbone(&origin.name, &space.backbone)) {
        return None;
    }
    Some(RemovedSpace {
        space: status.space.id().to_string(),
        backbone: origin.name.clone(),
        file: origin.file.clone(),
        rows: status.rows,
    })
}
