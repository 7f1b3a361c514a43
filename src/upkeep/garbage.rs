//! What can go: rows that no data set uses, spaces whose backbone is gone, leftovers of killed programs.

use std::fs;
use std::path::PathBuf;

use serde::Serialize;

use super::{is_there, open_records};
use crate::cache::{Cache, Exclusive, RowKey, Space, SpaceStatus};
use crate::dataset::DatasetKind;
use crate::disk::{lossy, lossy_list};
use crate::error::Result;
use crate::space::SpaceDescription;

/// What [`collect_garbage`] may do.
#[derive(Debug, Clone, Copy, Default)]
pub struct GarbageOptions {
    /// Whether nothing is changed. Default: false.
    pub dry_run: bool,
    /// Whether data sets that are no longer there are forgotten. Default: false.
    pub forget_missing: bool,
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
    /// Segments before.
    pub segments_before: usize,
    /// Segments after; null in a dry run.
    pub segments: Option<usize>,
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
    let used = used_contents(cache, options, &mut report)?;
    for status in cache.space_status()? {
        if let Some(removed) = vanished(&status, same_backbone) {
            if !options.dry_run
                && let Exclusive::Busy = cache.remove_space(status.space.id())?
            {
                report.kept.push(busy(&status));
                continue;
            }
            report.freed_bytes += status.bytes;
            report.removed_spaces.push(removed);
            continue;
        }
        let Some(mut space) = cache.open_space(&status.space)? else {
            continue;
        };
        let keep = |key: &RowKey| used.as_ref().is_none_or(|used| used.has(key));
        collect(&mut space, &status, &keep, &mut report)?;
    }
    if !options.dry_run {
        report.removed_files = cache.remove_leftovers()?;
    }
    Ok(report)
}

fn collect(
    space: &mut Space,
    status: &SpaceStatus,
    keep: &dyn Fn(&RowKey) -> bool,
    report: &mut GarbageReport,
) -> Result<()> {
    let mut collected = CollectedSpace {
        space: status.space.id().to_string(),
        rows_before: status.rows,
        dropped_rows: 0,
        segments_before: status.segments,
        segments: None,
    };
    if report.dry_run {
        collected.dropped_rows = space.keys().filter(|key| !keep(key)).count();
        report.freed_bytes += (collected.dropped_rows * status.dim.unwrap_or(0) * 4) as u64;
        report.rows += status.rows - collected.dropped_rows;
        report.segments += status.segments;
    } else {
        let Exclusive::Done(retained) = space.retain(keep)? else {
            report.kept.push(busy(status));
            report.rows += status.rows;
            report.segments += status.segments;
            return Ok(());
        };
        collected.dropped_rows = usize::try_from(retained.dropped_rows).unwrap_or(usize::MAX);
        collected.segments = Some(retained.segments);
        report.freed_bytes += retained.freed_bytes;
        report.rows += usize::try_from(retained.rows).unwrap_or(usize::MAX);
        report.segments += retained.segments;
    }
    report.spaces.push(collected);
    Ok(())
}

fn busy(status: &SpaceStatus) -> String {
    let id = status.space.id().to_string();
    format!("space {}: a running program writes to it: left alone", &id[..8])
}

/// The contents of all data sets; `None` where a record can't be read, whose rows are not known.
fn used_contents(cache: &Cache, options: GarbageOptions, report: &mut GarbageReport) -> Result<Option<Used>> {
    let (records, damaged) = open_records(cache)?;
    let mut used = Vec::new();
    for record in records {
        // A stream is never there.
        if options.forget_missing && record.of().kind != DatasetKind::Stream && !is_there(&record) {
            if !options.dry_run {
                cache.forget_dataset(record.file())?;
            }
            report.forgotten_datasets.push(record.of().name.clone());
            report.freed_bytes += fs::metadata(record.file()).map_or(0, |metadata| metadata.len());
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
