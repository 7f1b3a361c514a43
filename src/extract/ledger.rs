//! What is known of each picture while a run goes on, and what is remembered of it afterwards.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::{Failure, Job};
use crate::cache::{Cache, DatasetRecord, RecordOf};
use crate::dataset::{Dataset, Examined, Problems, SampleRecord, Stamp};
use crate::error::Result;
use crate::picture::{Completeness, PictureError};
use crate::pipeline::{Lacking, Outcome, Processed};
use crate::views::View;

/// The record is saved at least so far apart, and so that it takes a hundredth of the time at most.
#[cfg(not(test))]
const SAVE_INTERVAL: Duration = Duration::from_secs(10);
#[cfg(not(test))]
const SAVE_SHARE: u32 = 100;
/// At every occasion, so that the short runs of the tests have some.
#[cfg(test)]
const SAVE_INTERVAL: Duration = Duration::ZERO;
#[cfg(test)]
const SAVE_SHARE: u32 = 0;

/// What is known of one picture.
#[derive(Debug, Clone, Default)]
struct Picture {
    stamp: Stamp,
    content: Option<[u8; 32]>,
    state: State,
}

#[derive(Debug, Clone, Default)]
enum State {
    #[default]
    Open,
    Reused(Completeness),
    /// With how many random views that were not there before.
    Computed(Completeness, usize),
    /// Has the bytes of another picture of this run, whose fate will be its own.
    Repeated,
    Failed(Box<PictureError>),
}

impl State {
    fn computed_views(&self) -> usize {
        match self {
            Self::Computed(_, views) => *views,
            _ => 0,
        }
    }
}

/// All pictures of a run.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pictures: Vec<Picture>,
    failed: usize,
}

/// How many pictures came to what.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) computed: usize,
    pub(super) reused: usize,
    pub(super) partial: usize,
    /// Random views of these.
    pub(super) views: usize,
    pub(super) views_computed: usize,
}

/// Finds the features that are there, reading no picture: by what the last run remembers of each path.
pub(super) fn look_up(
    dataset: &Dataset,
    archives: &[(PathBuf, Stamp)],
    record: Option<&DatasetRecord>,
    job: &Job<'_>,
) -> Ledger {
    let look_up = |index: usize| {
        let sample = &dataset.samples[index];
        let remembered = record.and_then(|record| record.find(&sample.path));
        let remembered = remembered.filter(|sample| sample.settled && !job.options.rehash);
        let Some((remembered, content)) = remembered.and_then(|sample| Some((sample.stamp, sample.content?))) else {
            return Picture::default();
        };
        let stamp = dataset.stamp_of(sample, archives);
        match job.lacking(&content, job.wants_views(sample)) {
            Lacking::Nothing(completeness) if stamp == remembered => Picture {
                stamp,
                content: Some(content),
                state: State::Reused(completeness),
            },
            _ => Picture::default(),
        }
    };
    Ledger {
        pictures: (0..dataset.samples.len()).into_par_iter().map(look_up).collect(),
        failed: 0,
    }
}

impl Ledger {
    pub(super) fn len(&self) -> usize {
        self.pictures.len()
    }

    /// Makes room for all of `count` pictures; those that nothing is known of are open.
    pub(super) fn complete(&mut self, count: usize) {
        self.pictures.resize_with(count, Picture::default);
    }

    /// Pictures that failed so far.
    pub(super) fn failed(&self) -> usize {
        self.failed
    }

    /// The numbers of the pictures that have to be looked at.
    pub(super) fn open(&self) -> Vec<u32> {
        let is_open = |index: &usize| matches!(self.pictures[*index].state, State::Open);
        let number = |index| u32::try_from(index).expect("a data set has fewer than 2^32 pictures");
        (0..self.pictures.len()).filter(is_open).map(number).collect()
    }

    /// Notes what became of picture `index`.
    pub(super) fn take(&mut self, index: usize, processed: Processed) {
        if index >= self.pictures.len() {
            self.pictures.resize_with(index + 1, Picture::default);
        }
        let picture = &mut self.pictures[index];
        picture.stamp = processed.stamp;
        picture.content = processed.content;
        picture.state = match processed.outcome {
            Outcome::Known(completeness) => State::Reused(completeness),
            Outcome::Repeated => State::Repeated,
            Outcome::Features(features, completeness) => {
                let random = features.iter().filter(|(view, _)| *view != View::Plain).count();
                State::Computed(completeness, random)
            }
            Outcome::Failed(error) => {
                self.failed += 1;
                State::Failed(Box::new(error))
            }
        };
    }

    /// Gives pictures that repeat another one's bytes that one's fate; returns how many of them were computed.
    pub(super) fn share_fates(&mut self) -> usize {
        let repeated = |picture: &&Picture| matches!(picture.state, State::Repeated);
        let wanted: HashMap<[u8; 32], ()> = self
            .pictures
            .iter()
            .filter(repeated)
            .filter_map(|picture| Some((picture.content?, ())))
            .collect();
        let mut fates: HashMap<[u8; 32], State> = HashMap::new();
        for picture in &self.pictures {
            let Some(content) = picture.content.filter(|content| wanted.contains_key(content)) else {
                continue;
            };
            if matches!(picture.state, State::Open | State::Repeated) {
                continue;
            }
            // One may have been looked at without its random views first, and with them when they were wanted too.
            let fate = fates.entry(content).or_insert_with(|| picture.state.clone());
            if picture.state.computed_views() > fate.computed_views() {
                *fate = picture.state.clone();
            }
        }
        let mut computed = 0;
        for picture in &mut self.pictures {
            if !matches!(picture.state, State::Repeated) {
                continue;
            }
            // Without a fate the run was stopped before the first of them was through.
            let fate = picture.content.and_then(|content| fates.get(&content));
            picture.state = fate.cloned().unwrap_or_default();
            computed += usize::from(matches!(picture.state, State::Computed(..)));
        }
        computed
    }

    /// `views`: how many random views are wanted of picture `index`.
    pub(super) fn counts(&self, views: &dyn Fn(usize) -> usize) -> Counts {
        let mut counts = Counts::default();
        for (index, picture) in self.pictures.iter().enumerate() {
            let views = views(index);
            let completeness = match picture.state {
                State::Computed(completeness, computed) => {
                    counts.computed += 1;
                    counts.views_computed += computed.min(views);
                    completeness
                }
                State::Reused(completeness) => {
                    counts.reused += 1;
                    completeness
                }
                _ => continue,
            };
            counts.views += views;
            counts.partial += usize::from(completeness == Completeness::Partial);
        }
        counts
    }

    /// What is wrong with the failed ones, in the data set's order.
    pub(super) fn failures(&self, dataset: &Dataset) -> Vec<Failure> {
        let failure = |(sample, picture): (&crate::dataset::Sample, &Picture)| {
            let State::Failed(error) = &picture.state else {
                return None;
            };
            Some(Failure {
                path: dataset.root.join(&sample.path),
                reason: error.reason,
                detail: error.detail.clone(),
            })
        };
        dataset.samples.iter().zip(&self.pictures).filter_map(failure).collect()
    }

    /// What is wrong with the data set, as far as its pictures could be read.
    pub(super) fn problems(&self, dataset: &Dataset) -> Problems {
        Problems::find(&dataset.classes, dataset.samples.len(), &|index| {
            let sample = &dataset.samples[index];
            Some(Examined {
                path: sample.path.as_path().into(),
                class: sample.class,
                split: sample.split,
                content: self.pictures[index].content?,
                group: None,
            })
        })
    }
}

/// The data set's record in the cache, saved now and then and at the end.
pub(super) struct Memory<'a> {
    cache: &'a Cache,
    /// What was remembered before.
    before: Option<DatasetRecord>,
    started: SystemTime,
    archives: Vec<(PathBuf, Stamp)>,
    saved: Instant,
    cost: Duration,
}

impl<'a> Memory<'a> {
    pub(super) fn new(
        cache: &'a Cache,
        before: Option<DatasetRecord>,
        started: SystemTime,
        archives: Vec<(PathBuf, Stamp)>,
    ) -> Self {
        Self {
            cache,
            before,
            started,
            archives,
            saved: Instant::now(),
            cost: Duration::ZERO,
        }
    }

    /// Saves where enough is new: a killed run then need not hash again what it had seen, and `cache gc` knows its rows.
    pub(super) fn save_if_due(&mut self, dataset: &Dataset, ledger: &Ledger) -> Result<()> {
        if self.saved.elapsed() < SAVE_INTERVAL.max(self.cost * SAVE_SHARE) {
            return Ok(());
        }
        let start = Instant::now();
        let result = self.save(dataset, ledger);
        (self.saved, self.cost) = (Instant::now(), start.elapsed());
        result
    }

    /// Remembers what became of each picture; of those that the run did not come to, what was remembered before.
    pub(super) fn save(&self, dataset: &Dataset, ledger: &Ledger) -> Result<()> {
        let of = RecordOf {
            name: dataset.name.clone(),
            kind: dataset.kind,
            root: dataset.root.clone(),
            classes: dataset.classes.clone(),
            archives: self.archives.clone(),
        };
        let sample = |index: usize| self.sample(dataset, ledger, index);
        let count = dataset.samples.len();
        let unchanged = |record: &DatasetRecord| {
            *record.of() == of && record.len() == count && (0..count).all(|index| record.sample(index) == sample(index))
        };
        if self.before.as_ref().is_some_and(unchanged) {
            self.cache.touch_dataset_record(&of.name);
            return Ok(());
        }
        self.cache.save_dataset_record(&of, count, &sample)
    }

    fn sample<'s>(&'s self, dataset: &'s Dataset, ledger: &Ledger, index: usize) -> SampleRecord<'s> {
        let sample = &dataset.samples[index];
        let (class, split, path) = (sample.class, sample.split, sample.path.as_path().into());
        // A streamed data set is listed before its last pictures are through.
        let picture = ledger.pictures.get(index).cloned().unwrap_or_default();
        let before = || self.before.as_ref().and_then(|record| record.find(&sample.path));
        if let (State::Open | State::Repeated, Some(before)) = (&picture.state, before()) {
            return SampleRecord {
                class,
                split,
                path,
                ..before
            };
        }
        SampleRecord {
            path,
            class,
            split,
            stamp: picture.stamp,
            settled: picture.stamp.settled(self.started),
            content: picture.content,
            partial: matches!(
                picture.state,
                State::Computed(Completeness::Partial, _) | State::Reused(Completeness::Partial)
            ),
            failure: match &picture.state {
                State::Failed(error) => Some(error.to_string().into()),
                _ => None,
            },
        }
    }
}
