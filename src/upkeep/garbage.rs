//! What can go: rows that no data set uses, spaces whose backbone is gone, leftovers of killed programs.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::{DamagedRecord, is_there, open_records};
use crate::cache::{Cache, Exclusive, Retained, RowKey, SpaceStatus};
use crate::dataset::{DatasetKind, Stamp};
use crate::disk::{is_gone, lossy, lossy_list};
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

/// The contents that data sets use.
struct Used {
    /// The records that say so, as they were before they were read.
    records: Vec<(PathBuf, Stamp)>,
    /// Sorted first halves of the hashes; two that are equal keep a row too many. `None` where a record can't be read, whose
    /// rows are not known.
    contents: Option<Vec<[u8; 16]>>,
}

impl Used {
    /// Reads all records but those of the data sets `forgotten`; returns the damaged ones too.
    fn read(cache: &Cache, forgotten: &[PathBuf]) -> Result<(Self, Vec<DamagedRecord>)> {
        let stamps = record_stamps(cache)?;
        let (records, damaged) = open_records(cache)?;
        let mut contents = Vec::new();
        for record in records.iter().filter(|record| !forgotten.contains(&record.of().name)) {
            let seen = record.samples().filter_map(|sample| sample.content);
            contents.extend(seen.map(|content| half(&content)));
        }
        contents.sort_unstable();
        contents.dedup();
        let used = Self {
            records: stamps,
            contents: damaged.is_empty().then_some(contents),
        };
        Ok((used, damaged))
    }

    /// Reads the records again if they changed.
    fn refresh(&mut self, cache: &Cache, forgotten: &[PathBuf]) -> Result<()> {
        if record_stamps(cache)? != self.records {
            (*self, _) = Self::read(cache, forgotten)?;
        }
        Ok(())
    }

    fn has(&self, key: &RowKey) -> bool {
        let is_among = |contents: &Vec<[u8; 16]>| contents.binary_search(&half(&key.content)).is_ok();
        self.contents.as_ref().is_none_or(is_among)
    }
}

fn record_stamps(cache: &Cache) -> Result<Vec<(PathBuf, Stamp)>> {
    let files = cache.dataset_record_files()?;
    let stamped = |file: PathBuf| {
        let stamp = Stamp::of_file(&file);
        (file, stamp)
    };
    Ok(files.into_iter().map(stamped).collect())
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
    forget_missing(cache, options, &mut report)?;
    // Their records are gone by now, unless this is a dry run.
    let forgotten = match options.dry_run {
        true => report.forgotten_datasets.clone(),
        false => Vec::new(),
    };
    let (used, damaged) = Used::read(cache, &forgotten)?;
    for (path, problem) in &damaged {
        report.kept.push(format!(
            "{}: {problem}: it is not known which rows it uses, so no row is dropped; `lastlayer cache verify` sets it aside",
            path.display()
        ));
    }
    let used = RefCell::new(used);
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
        let keep = |key: &RowKey| used.borrow().has(key);
        let retained = if options.dry_run {
            space.would_retain(&keep, youth)?
        } else {
            // An `extract` that has ended meanwhile may have recorded old rows that nobody used before.
            let mut alone = || used.borrow_mut().refresh(cache, &forgotten);
            space.retain_but_recent(&mut alone, &keep, youth)?
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

/// Forgets the data sets that are no longer there, if that is wanted.
fn forget_missing(cache: &Cache, options: GarbageOptions, report: &mut GarbageReport) -> Result<()> {
    if !options.forget_missing {
        return Ok(());
    }
    for record in open_records(cache)?.0 {
        // A stream is never there.
        if record.of().kind != DatasetKind::Stream && !is_there(&record) {
            report.freed_bytes += fs::metadata(record.file()).map_or(0, |metadata| metadata.len());
            if !options.dry_run {
                cache.forget_dataset(record.file())?;
            }
            report.forgotten_datasets.push(record.of().name.clone());
        }
    }
    Ok(())
}

/// The space as removed, if its backbone is neither where it was nor anywhere else that is known.
fn vanished(status: &SpaceStatus, same_backbone: &dyn Fn(&str, &str) -> bool) -> Option<RemovedSpace> {
    let origin = status.origin.as_ref()?;
    let description = SpaceDescription::parse(status.space.json());
    if !is_gone(&origin.file) || description.is_some_and(|space| same_backbone(&origin.name, &space.backbone)) {
        return None;
    }
    Some(RemovedSpace {
        space: status.space.id().to_string(),
        backbone: origin.name.clone(),
        file: origin.file.clone(),
        rows: status.rows,
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cache::{FeatureSpace, Origin, RecordOf};
    use crate::dataset::SampleRecord;
    use crate::picture::Transform;
    use crate::space::Precision;

    const CONTENT: [u8; 32] = [7; 32];

    fn cache_with_a_row(root: &Path, backbone: &Path) -> (Cache, FeatureSpace) {
        let cache = Cache::new(root);
        let space = SpaceDescription::new(&"5e".repeat(32), "features", Transform::default(), Precision::Fp32).space();
        let origin = Origin {
            name: "resnet18".to_owned(),
            file: backbone.to_path_buf(),
        };
        let mut writer = cache.create_space(&space, &origin).unwrap();
        let key = RowKey::plain(CONTENT);
        writer.append(&[key], &[1.0, 2.0], 2, "cpu", "1.0.0").unwrap();
        (cache, space)
    }

    fn record_the_row(cache: &Cache) {
        let of = RecordOf {
            name: "/pictures".into(),
            ..RecordOf::default()
        };
        let sample = |_| SampleRecord {
            path: Path::new("a.png").into(),
            class: None,
            split: None,
            stamp: Stamp::default(),
            settled: false,
            content: Some(CONTENT),
            partial: false,
            failure: None,
        };
        cache.save_dataset_record(&of, 1, &sample).unwrap();
    }

    #[test]
    fn a_row_stays_that_an_extract_has_recorded_while_the_records_were_read() {
        let folder = tempfile::tempdir().unwrap();
        let options = GarbageOptions {
            recent_too: true,
            ..GarbageOptions::default()
        };
        let (cache, space) = cache_with_a_row(folder.path(), Path::new("/nowhere/resnet18.onnx"));
        // Asked after the records were read and before the space is locked.
        let meanwhile = |_: &str, _: &str| {
            record_the_row(&cache);
            true
        };
        let report = collect_garbage(&cache, options, &meanwhile).unwrap();
        assert_eq!((report.rows, report.spaces[0].dropped_rows), (1, 0));
        assert_eq!(cache.open_space(&space).unwrap().unwrap().len(), 1);
        // Once it is forgotten again, it goes.
        for file in cache.dataset_record_files().unwrap() {
            cache.forget_dataset(&file).unwrap();
        }
        let report = collect_garbage(&cache, options, &|_, _| true).unwrap();
        assert_eq!(report.spaces[0].dropped_rows, 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_backbone_that_cannot_be_looked_at_has_not_vanished() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("loop");
        std::os::unix::fs::symlink(&link, &link).unwrap();
        let (cache, _) = cache_with_a_row(&folder.path().join("cache"), &link.join("resnet18.onnx"));
        let report = collect_garbage(&cache, GarbageOptions::default(), &|_, _| false).unwrap();
        assert!(report.removed_spaces.is_empty());

        fs::remove_file(&link).unwrap();
        let report = collect_garbage(&cache, GarbageOptions::default(), &|_, _| false).unwrap();
        assert_eq!(report.removed_spaces.len(), 1);
    }
}
