//! `extract`: every picture of a data set has its feature in the cache, and is computed only if it was not there.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use serde::Serialize;

use crate::backbone::Backbone;
use crate::cache::{Cache, RowKey, Space};
use crate::dataset::{Dataset, DatasetRecord, Ignored, Sample, SampleRecord, Stamp};
use crate::disk::lossy;
use crate::engine::{Engine, InferenceOptions};
use crate::error::{Error, Result};
use crate::observer::{Observer, Unit};
use crate::picture::{Exif, Limits, PictureError, Reason};
use crate::pipeline::{self, Busy, Outcome, Plan, Processed};

/// How long the first computed row waits at most until it is durable, so that short runs, too, keep what they computed.
const FIRST_COMMIT: Duration = Duration::from_millis(100);
/// How long a row waits in a long run: each commit is a file of its own.
const COMMIT_INTERVAL: Duration = Duration::from_secs(2);
/// And before so many of them are waiting: 32 MiB of 512-d features.
const COMMIT_ROWS: usize = 16 << 10;

/// What to extract and how.
#[derive(Debug, Clone)]
pub struct ExtractOptions {
    /// How the backbone is run.
    pub inference: InferenceOptions,
    /// What becomes of EXIF orientation. Default: [`Exif::Apply`].
    pub exif: Exif,
    /// How much one picture may cost.
    pub limits: Limits,
    /// Whether files are hashed even where size and times say that they did not change. Default: false.
    pub rehash: bool,
}

/// What `extract` did; serialises as the command's JSON.
#[derive(Debug, Clone, Serialize)]
pub struct ExtractReport {
    /// Pictures in the data set; the sum of `computed`, `reused` and `failed`.
    pub images: usize,
    /// Pictures whose feature this run added.
    pub computed: usize,
    /// Pictures whose feature was there before.
    pub reused: usize,
    /// Pictures without a feature.
    pub failed: usize,
    /// Of the computed pictures, those whose bytes equal another one's: they went through the backbone once.
    pub duplicates: usize,
    /// What is wrong with the failed ones, in the data set's order.
    pub failures: Vec<Failure>,
    /// What lies in the folder and is no part of the data set.
    pub ignored: Ignored,
    /// Wall time, from listing the files to the last durable row.
    pub seconds: f64,
    /// `images / seconds`.
    pub images_per_second: f64,
    /// The stage that the others waited for: `inference`, `decode` or `disk`; null when nothing was computed.
    pub bottleneck: Option<&'static str>,
    /// The shares of the time that the stages were busy.
    pub busy: Busy,
    /// Where the backbone ran, for instance `cpu`; null when nothing was computed.
    pub device: Option<String>,
    /// Numbers per feature; null while there is none.
    pub feature_dim: Option<usize>,
    /// The cache's folder.
    #[serde(serialize_with = "lossy")]
    pub cache: PathBuf,
    /// The feature space's id.
    pub space: String,
}

/// One picture without a feature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The file.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// Why, as a code.
    pub reason: Reason,
    /// Why, in words.
    pub detail: String,
}

/// What is known of one sample while the run goes on.
#[derive(Debug, Clone, Default)]
struct Progress {
    stamp: Stamp,
    content: Option<[u8; 32]>,
    state: State,
}

#[derive(Debug, Clone, Default)]
enum State {
    #[default]
    Open,
    Reused,
    Computed,
    /// Has the bytes of another picture of this run, whose fate will be its own.
    Repeated,
    Failed(PictureError),
}

/// Computes what is missing of `dataset`'s features in `cache` and makes it durable.
///
/// # Errors
/// What the backbone or the cache gives, and [`Error::Interrupted`] when the observer asked to stop: the rows until then
/// are kept. A picture that can't be read is no error but listed in the report.
pub fn extract(
    dataset: &Dataset,
    backbone: &Arc<Backbone>,
    cache: &Cache,
    options: &ExtractOptions,
    observer: &dyn Observer,
) -> Result<ExtractReport> {
    let start = Instant::now();
    let started = SystemTime::now();
    let description = backbone.space(options.exif)?;
    let space = cache.create_space(&description.space(), backbone.origin())?;
    let record = cache.dataset_record(&dataset.root)?.unwrap_or_default();
    let remembered: HashMap<&Path, &SampleRecord> = record
        .samples
        .iter()
        .map(|sample| (sample.path.as_path(), sample))
        .collect();
    let mut progress = look_up(dataset, &remembered, &space, options.rehash);
    let space = RwLock::new(space);

    let open: Vec<usize> = (0..progress.len())
        .filter(|index| matches!(progress[*index].state, State::Open))
        .collect();
    let source = || Ok(Arc::clone(backbone));
    let engine = Engine::new(&source, &options.inference, observer);
    let plan = Plan {
        count: open.len(),
        path: &|index| dataset.root.join(&dataset.samples[open[index]].path),
        transform: &description.transform,
        limits: options.limits,
        known: &|content| read(&space).row(&RowKey::plain(*content)).is_some(),
        deduplicate: true,
    };
    let mut rows = NewRows::new(&space, &engine);
    observer.begin("extract", Some(open.len() as u64), Unit::Pictures);
    let ended = pipeline::run(&plan, &engine, observer, &mut |processed| {
        if let Some(processed) = processed {
            observer.advance(1);
            rows.take(&mut progress[open[processed.index]], processed);
        }
        rows.write_if_due()
    });
    observer.end();
    // Whatever ended the run, what was computed is kept; the first error is the one to tell.
    let written = rows.write();
    let duplicates = share_fates(&mut progress);
    let saved = written.and_then(|()| save_record(dataset, cache, &remembered, &progress, started));
    let ended = ended?;
    saved?;
    if ended.interrupted {
        return Err(Error::Interrupted);
    }

    let seconds = start.elapsed().as_secs_f64();
    let failures: Vec<Failure> = dataset
        .samples
        .iter()
        .zip(&progress)
        .filter_map(|(sample, progress)| {
            let State::Failed(PictureError { reason, detail }) = &progress.state else {
                return None;
            };
            Some(Failure {
                path: dataset.root.join(&sample.path),
                reason: *reason,
                detail: detail.clone(),
            })
        })
        .collect();
    let count = |wanted: fn(&State) -> bool| progress.iter().filter(|sample| wanted(&sample.state)).count();
    let report = ExtractReport {
        images: progress.len(),
        computed: count(|state| matches!(state, State::Computed)),
        reused: count(|state| matches!(state, State::Reused)),
        failed: failures.len(),
        duplicates,
        failures,
        ignored: dataset.ignored.clone(),
        seconds,
        images_per_second: progress.len() as f64 / seconds.max(1e-9),
        bottleneck: engine.provenance().and_then(|_| ended.busy.bottleneck()),
        busy: ended.busy,
        device: engine.provenance().map(|(device, _)| device),
        feature_dim: read(&space).dim(),
        cache: cache.root().to_path_buf(),
        space: description.space().id().to_string(),
    };
    assert_eq!(
        report.images,
        report.computed + report.reused + report.failed,
        "every picture is accounted for"
    );
    Ok(report)
}

fn read<'a>(space: &'a RwLock<Space>) -> impl std::ops::Deref<Target = Space> + 'a {
    space.read().unwrap_or_else(PoisonError::into_inner)
}

/// Finds the features that are there, reading no picture: by what the last run remembers of each path.
fn look_up(
    dataset: &Dataset,
    remembered: &HashMap<&Path, &SampleRecord>,
    space: &Space,
    rehash: bool,
) -> Vec<Progress> {
    let look_up = |sample: &Sample| {
        let remembered = remembered
            .get(sample.path.as_path())
            .filter(|sample| sample.settled && !rehash);
        let Some((remembered, content)) = remembered.and_then(|sample| Some((sample, sample.content?))) else {
            return Progress::default();
        };
        let stamp = fs::metadata(dataset.root.join(&sample.path)).map(|metadata| Stamp::of(&metadata));
        if stamp.ok() != Some(remembered.stamp) || space.row(&RowKey::plain(content)).is_none() {
            return Progress::default();
        }
        Progress {
            stamp: remembered.stamp,
            content: Some(content),
            state: State::Reused,
        }
    };
    dataset.samples.par_iter().map(look_up).collect()
}

/// Gives pictures that repeat another one's bytes that one's fate; returns how many of them were computed.
fn share_fates(progress: &mut [Progress]) -> usize {
    let fates: HashMap<[u8; 32], State> = progress
        .iter()
        .filter(|sample| !matches!(sample.state, State::Open | State::Repeated))
        .filter_map(|sample| Some((sample.content?, sample.state.clone())))
        .collect();
    let mut computed = 0;
    for sample in progress
        .iter_mut()
        .filter(|sample| matches!(sample.state, State::Repeated))
    {
        // Without a fate the run was stopped before the first of them was through.
        let fate = sample.content.and_then(|content| fates.get(&content));
        sample.state = fate.cloned().unwrap_or_default();
        computed += usize::from(matches!(sample.state, State::Computed));
    }
    computed
}

/// Remembers what became of each picture; of those that the run did not come to, what was remembered before.
fn save_record(
    dataset: &Dataset,
    cache: &Cache,
    remembered: &HashMap<&Path, &SampleRecord>,
    progress: &[Progress],
    started: SystemTime,
) -> Result<()> {
    let samples = dataset.samples.iter().zip(progress).map(|(sample, progress)| {
        let before = remembered.get(sample.path.as_path());
        if let (State::Open, Some(before)) = (&progress.state, before) {
            return SampleRecord {
                class: sample.class,
                split: sample.split,
                ..SampleRecord::clone(before)
            };
        }
        SampleRecord {
            path: sample.path.clone(),
            class: sample.class,
            split: sample.split,
            stamp: progress.stamp,
            settled: progress.stamp.settled(started),
            content: progress.content,
            failure: match &progress.state {
                State::Failed(error) => Some((error.reason.to_string(), error.detail.clone())),
                _ => None,
            },
        }
    });
    let record = DatasetRecord {
        root: dataset.root.clone(),
        classes: dataset.classes.clone(),
        samples: samples.collect(),
    };
    cache.save_dataset_record(&record)
}

/// Features that are computed and not yet durable.
struct NewRows<'a> {
    space: &'a RwLock<Space>,
    engine: &'a Engine<'a>,
    keys: Vec<RowKey>,
    values: Vec<f32>,
    pace: Pace,
}

impl<'a> NewRows<'a> {
    fn new(space: &'a RwLock<Space>, engine: &'a Engine<'a>) -> Self {
        Self {
            space,
            engine,
            keys: Vec::new(),
            values: Vec::new(),
            pace: Pace::new(),
        }
    }

    fn take(&mut self, sample: &mut Progress, processed: Processed) {
        sample.stamp = processed.stamp;
        sample.content = processed.content;
        sample.state = match processed.outcome {
            Outcome::Known => State::Reused,
            Outcome::Repeated => State::Repeated,
            Outcome::Failed(error) => State::Failed(error),
            Outcome::Feature(feature) => {
                self.keys
                    .push(RowKey::plain(processed.content.expect("a feature has a content")));
                self.values.extend(feature);
                self.pace.row_waits(Instant::now());
                State::Computed
            }
        };
    }

    fn write_if_due(&mut self) -> Result<()> {
        if self.keys.len() >= COMMIT_ROWS || self.pace.is_due(Instant::now()) {
            self.write()
        } else {
            Ok(())
        }
    }

    fn write(&mut self) -> Result<()> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let (device, runtime) = self.engine.provenance().expect("rows come from a session");
        let dim = self.values.len() / self.keys.len();
        let segment = read(self.space).write(&self.keys, &self.values, dim, &device, runtime)?;
        if let Some(segment) = segment {
            self.space
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .publish(segment)?;
        }
        self.keys.clear();
        self.values.clear();
        self.pace.committed();
        Ok(())
    }
}

/// When to commit: after [`FIRST_COMMIT`], then after twice as long each time, up to [`COMMIT_INTERVAL`].
#[derive(Debug)]
struct Pace {
    interval: Duration,
    /// When the oldest row that is not durable came.
    since: Option<Instant>,
}

impl Pace {
    fn new() -> Self {
        Self {
            interval: FIRST_COMMIT,
            since: None,
        }
    }

    fn row_waits(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    fn is_due(&self, now: Instant) -> bool {
        self.since
            .is_some_and(|since| now.saturating_duration_since(since) >= self.interval)
    }

    fn committed(&mut self) {
        self.interval = COMMIT_INTERVAL.min(self.interval * 2);
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_come_soon_at_first_and_seldom_later() {
        let mut now = Instant::now();
        let mut pace = Pace::new();
        assert!(!pace.is_due(now + Duration::from_secs(9)), "nothing waits");
        let mut waits = Vec::new();
        for _ in 0..7 {
            pace.row_waits(now);
            let row = now;
            while !pace.is_due(now) {
                now += Duration::from_millis(50);
                // Later rows do not put off the oldest one's commit.
                pace.row_waits(now);
            }
            waits.push((now - row).as_millis());
            pace.committed();
            assert!(!pace.is_due(now));
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 2000, 2000]);
    }
}
