//! A sample of the features computed again from the pictures, and compared with the rows.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::open_records;
use crate::backbone::Backbone;
use crate::cache::{Cache, DatasetRecord, Exclusive, FeatureSpace, Origin, PARTIAL, RowKey, Space};
use crate::dataset::{Dataset, InputOptions, Stamp};
use crate::disk::lossy;
use crate::engine::{Engine, InferenceOptions};
use crate::error::{Error, Result};
use crate::observer::{Observer, Unit};
use crate::picture::{Completeness, Limits, Truncated, decoder};
use crate::pipeline::{self, Asked, Lacking, Outcome, Plan, Processed};
use crate::space::{Precision, SpaceDescription};
use crate::supply::{self, Files, Source};
use crate::views::View;

/// Largest difference that is not an error, in shares of the row's largest number. The same device gives the same bits;
/// others, and other versions of ONNX Runtime, sum in other orders, which moves f32 features by some 1e-6 to 1e-4.
///
/// With 10 bits of mantissa each operator rounds a thousand times coarser, and a CPU rounds at fewer places than a GPU does; of
/// integers a number at the border of two steps may go to either.
fn tolerance(precision: Precision) -> f64 {
    match precision {
        Precision::Fp32 => 1e-3,
        Precision::Tf32 | Precision::Fp16 => 2e-2,
        Precision::Int8 => 5e-2,
    }
}

/// What is computed again.
#[derive(Debug, Clone)]
pub struct DeepOptions {
    /// Pictures per space.
    pub count: usize,
    /// Seed of their choice.
    pub seed: u64,
    /// Whether rows that differ are dropped, so that `extract` computes them again.
    pub repair: bool,
    /// How the backbone is run.
    pub inference: InferenceOptions,
}

/// How the rows of one space compare.
#[derive(Debug, Clone, Default, Serialize)]
pub struct DeepReport {
    /// Its id.
    pub space: String,
    /// Why nothing could be computed; null otherwise.
    pub skipped: Option<String>,
    /// Pictures that were computed again, with all their views that are there.
    pub compared: usize,
    /// Random views of these.
    pub views_compared: usize,
    /// Largest difference that is not an error, in shares of the row's largest number.
    pub tolerance: f64,
    /// Largest difference, in shares of the row's largest number.
    pub largest_difference: f64,
    /// Least cosine between a row and its feature.
    pub least_cosine: f64,
    /// Rows that differ by more, or whose picture can't be decoded any more.
    pub different: Vec<Recomputed>,
    /// Whether these rows are still there because a running program writes to the space.
    pub busy: bool,
}

/// A row that is not what was computed again.
#[derive(Debug, Clone, Serialize)]
pub struct Recomputed {
    /// The picture.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// blake3 of its bytes, hexadecimal.
    pub content: String,
    /// The view's number, as the row's key has it; 0 is the plain view.
    pub view: u32,
    /// Difference in shares of the row's largest number; null when it can't be computed.
    pub difference: Option<f64>,
}

/// A picture of which rows are there.
struct Candidate {
    content: [u8; 32],
    completeness: Completeness,
    /// Those of the rows, sorted; the plain one is among them.
    views: Vec<View>,
    path: PathBuf,
    source: Source,
}

/// Computes features of `options.count` pictures of each space of `cache` again, on the device at hand.
///
/// `backbone`: the file of a backbone by name, if it is here. Pictures are those that records of data sets name and that did
/// not change.
///
/// # Errors
/// When the cache can't be read, or what running a backbone gives.
pub fn deep_verify(
    cache: &Cache,
    options: &DeepOptions,
    backbone: &dyn Fn(&str) -> Option<PathBuf>,
    observer: &dyn Observer,
) -> Result<Vec<DeepReport>> {
    let (records, _) = open_records(cache)?;
    let mut reports = Vec::new();
    for (space, origin) in cache.spaces()? {
        let Some(rows) = cache.open_space(&space)? else {
            continue;
        };
        let skipped = |reason: &str| DeepReport {
            space: space.id().to_string(),
            skipped: Some(reason.to_owned()),
            ..DeepReport::default()
        };
        reports.push(match prepare(&space, origin, backbone)? {
            Err(reason) => skipped(&reason),
            Ok((description, backbone)) => {
                let candidates = choose(&records, &rows, options);
                if candidates.is_empty() {
                    skipped("none of its pictures is where it was")
                } else {
                    let mut report = compute(&space, &rows, &description, &backbone, candidates, options, observer)?;
                    drop(rows);
                    report.busy = !drop_different(cache, &space, &report, options)?;
                    report
                }
            }
        });
    }
    Ok(reports)
}

/// The backbone of a space, or why it can't be used.
fn prepare(
    space: &FeatureSpace,
    origin: Option<Origin>,
    backbone: &dyn Fn(&str) -> Option<PathBuf>,
) -> Result<Result<(SpaceDescription, Arc<Backbone>), String>> {
    let Some(description) = SpaceDescription::parse(space.json()) else {
        return Ok(Err("it was made by another version of this program".to_owned()));
    };
    if description.decoder != decoder() {
        return Ok(Err(
            "its pictures were decoded by other versions of the decoders".to_owned()
        ));
    }
    let Some(origin) = origin else {
        return Ok(Err("it is not recorded where its backbone lies".to_owned()));
    };
    let places = [
        Some(origin.file.clone()).filter(|file| file.is_file()),
        backbone(&origin.name),
    ];
    for file in places.into_iter().flatten() {
        let opened = Backbone::open(&origin.name, &file, Some(&description.feature))?;
        if opened.blake3() == description.backbone {
            return Ok(Ok((description, Arc::new(opened))));
        }
    }
    Ok(Err(format!("its backbone {} is not here", origin.name)))
}

/// A sample of the pictures that have a plain row and did not change: those whose hash with the seed is lowest, so that it does not
/// matter which data sets they are in.
fn choose(records: &[DatasetRecord], rows: &Space, options: &DeepOptions) -> Vec<Candidate> {
    let mut listed = Listed::new();
    let mut chosen: BTreeMap<[u8; 32], (usize, usize, RowKey)> = BTreeMap::new();
    for (record_number, record) in records.iter().enumerate() {
        for (number, sample) in record.samples().enumerate() {
            let Some(content) = sample.content else { continue };
            let key = if sample.partial {
                RowKey::partial(content)
            } else {
                RowKey::plain(content)
            };
            let order = *blake3::Hasher::new()
                .update(&options.seed.to_le_bytes())
                .update(&content)
                .finalize()
                .as_bytes();
            let is_full = chosen.len() >= options.count;
            if is_full && chosen.last_key_value().is_none_or(|(last, _)| *last <= order) || !rows.contains(&key) {
                continue;
            }
            // Not before: only few of many are looked at on disk.
            let path = record.of().root.join(&sample.path);
            let is_file = Stamp::of_file(&path) == sample.stamp && sample.stamp != Stamp::default();
            if is_file || member(record, number, &mut listed).is_some() {
                chosen.insert(order, (record_number, number, key));
                if chosen.len() > options.count {
                    chosen.pop_last();
                }
            }
        }
    }
    let mut views: HashMap<RowKey, Vec<View>> = chosen.values().map(|(_, _, key)| (*key, Vec::new())).collect();
    for key in rows.keys() {
        let plain = RowKey {
            view: key.view & PARTIAL,
            ..key
        };
        // Those that another version of this program drew can't be drawn again.
        let view = View::of_id(key.view).filter(|view| match view {
            View::Plain => true,
            View::Random(random) => random.is_known(),
        });
        if let (Some(views), Some(view)) = (views.get_mut(&plain), view) {
            views.push(view);
        }
    }
    let mut candidate = |(record, number, key): &(usize, usize, RowKey)| {
        let record = &records[*record];
        let path = record.of().root.join(&record.sample(*number).path);
        let source = member(record, *number, &mut listed).unwrap_or_else(|| Source::File(path.clone()));
        let mut views = views.remove(key).unwrap_or_default();
        views.sort_unstable();
        Candidate {
            content: key.content,
            completeness: match key.view {
                0 => Completeness::Whole,
                _ => Completeness::Partial,
            },
            views,
            path,
            source,
        }
    };
    chosen.values().map(&mut candidate).collect()
}

/// Archives that were listed, each once; `None` where that failed.
type Listed = HashMap<PathBuf, Option<Dataset>>;

/// Where a picture of a record lies in an archive that did not change.
fn member(record: &DatasetRecord, number: usize, listed: &mut Listed) -> Option<Source> {
    let of = record.of();
    let sample = record.sample(number);
    let archive = of.archives.iter().find(|(path, _)| sample.path.starts_with(path))?;
    let file = of.root.join(&archive.0);
    if Stamp::of_file(&file) != archive.1 || archive.1 == Stamp::default() {
        return None;
    }
    let open = || Dataset::open_listed(&file, &InputOptions::default()).ok().flatten();
    let dataset = listed.entry(file.clone()).or_insert_with(open).as_ref()?;
    let name = Path::new(file.file_name()?).join(sample.path.strip_prefix(&archive.0).ok()?);
    let index = dataset.samples.iter().position(|member| member.path == name)?;
    Some(supply::source_of(dataset, index))
}

fn compute(
    space: &FeatureSpace,
    rows: &Space,
    description: &SpaceDescription,
    backbone: &Arc<Backbone>,
    candidates: Vec<Candidate>,
    options: &DeepOptions,
    observer: &dyn Observer,
) -> Result<DeepReport> {
    let mut report = DeepReport {
        space: space.id().to_string(),
        tolerance: tolerance(description.precision),
        least_cosine: 1.0,
        ..DeepReport::default()
    };
    let opened = || Ok(Arc::clone(backbone));
    let engine = Engine::new(&opened, description.precision, &options.inference, observer);
    let source = |index: usize| candidates[index].source.clone();
    // What was accepted once is accepted again; what it is decides which row it is compared with.
    let limits = Limits {
        max_pixels: u64::MAX / 16,
        max_file_bytes: u64::MAX,
        truncated: Truncated::Accept,
    };
    let plan = Plan {
        supply: &Files::new(candidates.len(), &source),
        transform: &description.transform,
        limits,
        lacking: &|asked: &Asked<'_>| Lacking::Views(candidates[asked.index].views.clone()),
        most_views: candidates
            .iter()
            .map(|candidate| candidate.views.len())
            .max()
            .unwrap_or(1),
        deduplicate: false,
    };
    observer.begin("compute again", Some(candidates.len() as u64), Unit::Pictures);
    let ended = pipeline::run(&plan, &engine, observer, &mut |processed| {
        let Some(processed) = processed else { return Ok(()) };
        observer.advance(1);
        report.take(&candidates[processed.index], processed, rows);
        Ok(())
    });
    observer.end();
    if ended?.interrupted {
        return Err(Error::Interrupted);
    }
    Ok(report)
}

impl DeepReport {
    /// Compares what a picture came to with its rows.
    fn take(&mut self, candidate: &Candidate, processed: Processed, rows: &Space) {
        // It changed since it was chosen.
        if processed.content != Some(candidate.content) {
            return;
        }
        self.compared += 1;
        self.views_compared += candidate.views.iter().filter(|view| **view != View::Plain).count();
        let features = match processed.outcome {
            Outcome::Features(features, completeness) if completeness == candidate.completeness => features,
            _ => Vec::new(),
        };
        for view in &candidate.views {
            let key = view.key(candidate.content, candidate.completeness);
            let feature = features.iter().find(|(of, _)| of == view);
            let difference = feature
                .zip(rows.row(&key))
                .map(|((_, feature), row)| compare(row, feature));
            if let Some((difference, cosine)) = difference {
                self.largest_difference = self.largest_difference.max(difference);
                self.least_cosine = self.least_cosine.min(cosine);
            }
            if difference.is_none_or(|(difference, _)| difference > self.tolerance) {
                self.different.push(Recomputed {
                    path: candidate.path.clone(),
                    content: key.content_hex(),
                    view: key.view,
                    difference: difference.map(|(difference, _)| difference),
                });
            }
        }
    }
}

/// The largest difference in shares of the row's largest number, and the cosine.
fn compare(row: &[f32], feature: &[f32]) -> (f64, f64) {
    if row.len() != feature.len() {
        return (f64::INFINITY, 0.0);
    }
    let pairs = || {
        row.iter()
            .zip(feature)
            .map(|(row, feature)| (f64::from(*row), f64::from(*feature)))
    };
    let largest = pairs()
        .map(|(row, _)| row.abs())
        .fold(0.0, f64::max)
        .max(f64::MIN_POSITIVE);
    let difference = pairs().map(|(row, feature)| (row - feature).abs()).fold(0.0, f64::max) / largest;
    let dot = |of: fn((f64, f64)) -> f64| pairs().map(of).sum::<f64>();
    let norms = (dot(|(row, _)| row * row) * dot(|(_, feature)| feature * feature)).sqrt();
    let cosine = if norms > 0.0 {
        dot(|(row, feature)| row * feature) / norms
    } else {
        1.0
    };
    (difference, cosine)
}

/// Drops the rows that are not what was computed again; false when a running program keeps the space from it.
fn drop_different(cache: &Cache, space: &FeatureSpace, report: &DeepReport, options: &DeepOptions) -> Result<bool> {
    if !options.repair || report.different.is_empty() {
        return Ok(true);
    }
    let Some(mut rows) = cache.open_space(space)? else {
        return Ok(true);
    };
    let is_different = |key: &RowKey| {
        let content = key.content_hex();
        let is_it = |different: &Recomputed| different.view == key.view && different.content == content;
        report.different.iter().any(is_it)
    };
    Ok(rows.retain(&|key| !is_different(key))? != Exclusive::Busy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_in_shares_of_the_largest_number() {
        let (difference, cosine) = compare(&[3.0, -4.0], &[3.0, -3.0]);
        assert_eq!(difference, 0.25);
        assert!((cosine - 21.0 / (5.0 * 18.0_f64.sqrt())).abs() < 1e-12);
        assert_eq!(compare(&[0.0], &[0.0]), (0.0, 1.0));
        assert_eq!(compare(&[1.0], &[1.0, 2.0]).0, f64::INFINITY);
    }
}
