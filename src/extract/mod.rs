//! `extract`: every picture of a data set has its feature in the cache, and is computed only if it was not there.

mod failures;
#[cfg(test)]
mod fault_tests;
mod ledger;
mod rows;
mod stream;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Instant, SystemTime};

use serde::Serialize;

use crate::backbone::Backbone;
use crate::cache::{Cache, RowKey, Space};
use crate::dataset::{Dataset, Ignored, Problems, Sample};
use crate::disk::lossy;
use crate::engine::{Engine, InferenceOptions};
use crate::error::{Error, Result};
use crate::observer::{Observer, Unit};
use crate::picture::{Completeness, Limits, Truncated};
use crate::pipeline::{self, Asked, Busy, Ended, Lacking, Plan};
use crate::space::{FeatureOptions, SpaceDescription};
use crate::supply::{self, Files, Supply};
use crate::views::{RandomViews, View};

pub use failures::{Failure, FailureLimit};
pub use stream::extract_stream;

use ledger::{Ledger, Memory};
use rows::NewRows;

/// What to extract and how.
#[derive(Debug, Clone)]
pub struct ExtractOptions {
    /// How the backbone is run.
    pub inference: InferenceOptions,
    /// How features are made. Default: as torchvision and PyTorch would, but upright.
    pub features: FeatureOptions,
    /// How much one picture may cost, and how much of it must be there.
    pub limits: Limits,
    /// Whether files are hashed even where size and times say that they did not change. Default: false.
    pub rehash: bool,
    /// How many pictures may fail before the run does. Default: any number.
    pub max_failures: FailureLimit,
    /// Which random views are stored besides the plain one, of pictures that [may train](crate::Sample::may_train).
    /// Default: none.
    pub views: RandomViews,
}

/// What `extract` did; serialises as the command's JSON.
#[derive(Debug, Clone, Serialize)]
pub struct ExtractReport {
    /// Pictures in the data set; the sum of `computed`, `reused` and `failed`.
    pub images: usize,
    /// Pictures of which this run added a feature, be it that of a random view.
    pub computed: usize,
    /// Pictures whose features were all there before.
    pub reused: usize,
    /// Pictures without a feature.
    pub failed: usize,
    /// Random views of the computed and reused pictures; the sum of `views_computed` and `views_reused`.
    pub views: usize,
    /// Random views whose feature this run added; those of a duplicate count again.
    pub views_computed: usize,
    /// Random views whose feature was there before.
    pub views_reused: usize,
    /// Of the computed pictures, those whose bytes equal another one's: they went through the backbone once.
    pub duplicates: usize,
    /// Of the computed and reused pictures, those of which only a part is there ([`Truncated::Accept`]).
    pub partial: usize,
    /// Pictures without a label.
    pub unlabelled: usize,
    /// What is wrong with the failed ones, in the data set's order.
    pub failures: Vec<Failure>,
    /// What is wrong with the data set.
    pub problems: Problems,
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

/// Computes what is missing of `dataset`'s features in `cache` and makes it durable.
///
/// # Errors
/// What the backbone or the cache gives; [`Error::Interrupted`] when the observer asked to stop and
/// [`Error::TooManyFailures`] beyond [`ExtractOptions::max_failures`]: the rows until then are kept. A picture that can't
/// be read is no error but listed in the report.
pub fn extract(
    dataset: &Dataset,
    backbone: &Arc<Backbone>,
    cache: &Cache,
    options: &ExtractOptions,
    observer: &dyn Observer,
) -> Result<ExtractReport> {
    let job = Job::begin(backbone, cache, options, observer)?;
    let archives = dataset.archive_stamps();
    let record = cache
        .dataset_record(&dataset.name)?
        .filter(|record| record.is_of(dataset));
    let mut ledger = ledger::look_up(dataset, &archives, record.as_ref(), &job);
    let open = ledger.open();
    let source = |index: usize| supply::source_of(dataset, open[index] as usize);
    let random_views = |index: usize| job.wants_views(&dataset.samples[open[index] as usize]);
    let files = Files::new(open.len(), &source).with_random_views(&random_views);
    let mut memory = Memory::new(cache, record, job.started, archives);
    let ended = job.run(&files, &mut ledger, &|index| open[index] as usize, &mut |ledger| {
        memory.save_if_due(dataset, ledger)
    });
    let saved = memory.save(dataset, &ledger);
    job.finish(ended, saved, dataset, &ledger)
}

/// What listed and streamed data sets have in common.
struct Job<'a> {
    backbone: &'a Arc<Backbone>,
    cache: &'a Cache,
    options: &'a ExtractOptions,
    observer: &'a dyn Observer,
    description: SpaceDescription,
    space: RwLock<Space>,
    start: Instant,
    started: SystemTime,
}

/// How the pipeline ended, and on what.
struct Done {
    ended: Result<Ended>,
    written: Result<()>,
    /// Device and runtime, where something was computed.
    device: Option<String>,
    duplicates: usize,
}

impl<'a> Job<'a> {
    fn begin(
        backbone: &'a Arc<Backbone>,
        cache: &'a Cache,
        options: &'a ExtractOptions,
        observer: &'a dyn Observer,
    ) -> Result<Self> {
        let (start, started) = (Instant::now(), SystemTime::now());
        let description = backbone.space(&options.features)?;
        let space = cache.create_space(&description.space(), backbone.origin())?;
        Ok(Self {
            backbone,
            cache,
            options,
            observer,
            description,
            space: RwLock::new(space),
            start,
            started,
        })
    }

    fn space(&self) -> impl std::ops::Deref<Target = Space> + '_ {
        self.space.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether random views of a picture are wanted.
    fn wants_views(&self, sample: &Sample) -> bool {
        !self.options.views.is_empty() && sample.may_train()
    }

    /// Which features of this content are not there that these options want.
    fn lacking(&self, content: &[u8; 32], random_views: bool) -> Lacking {
        let space = self.space();
        let has = |key: &RowKey| space.row(key).is_some();
        let known = |view: View| {
            if has(&view.key(*content, Completeness::Whole)) {
                return Some(Completeness::Whole);
            }
            let accepted = self.options.limits.truncated == Truncated::Accept;
            (accepted && has(&view.key(*content, Completeness::Partial))).then_some(Completeness::Partial)
        };
        let plain = known(View::Plain);
        let random = if random_views {
            self.options.views
        } else {
            RandomViews::default()
        };
        let views = plain.is_none().then_some(View::Plain).into_iter();
        let views: Vec<View> = views
            .chain(random.iter().filter(|view| known(*view).is_none()))
            .collect();
        match plain {
            Some(completeness) if views.is_empty() => Lacking::Nothing(completeness),
            _ => Lacking::Views(views),
        }
    }

    /// Sends all of `supply` through the pipeline. `number`: a picture's place in the ledger.
    ///
    /// Whatever ends the run, what was computed is kept.
    fn run(
        &self,
        supply: &dyn Supply,
        ledger: &mut Ledger,
        number: &dyn Fn(usize) -> usize,
        tick: &mut dyn FnMut(&Ledger) -> Result<()>,
    ) -> Done {
        let backbone = || Ok(Arc::clone(self.backbone));
        let engine = Engine::new(&backbone, &self.options.inference, self.observer);
        let plan = Plan {
            supply,
            transform: &self.description.transform,
            limits: self.options.limits,
            lacking: &|asked: &Asked<'_>| self.lacking(asked.content, asked.random_views),
            most_views: 1 + self.options.views.count(),
            deduplicate: true,
        };
        let limit = match supply.count() {
            Some(_) => self.options.max_failures.of(ledger.len()),
            // How many there are shows at the end.
            None => self.options.max_failures.count(),
        };
        let mut rows = NewRows::new(&self.space, &engine);
        self.observer
            .begin("extract", supply.count().map(|count| count as u64), Unit::Pictures);
        let ended = pipeline::run(&plan, &engine, self.observer, &mut |processed| {
            if let Some(processed) = processed {
                self.observer.advance(1);
                let index = number(processed.index);
                rows.take(&processed);
                ledger.take(index, processed);
                if limit.is_some_and(|limit| ledger.failed() > limit) {
                    return Err(self.too_many(ledger.failed()));
                }
            }
            if rows.write_if_due()? {
                tick(ledger)?;
            }
            Ok(())
        });
        self.observer.end();
        let written = rows.write();
        Done {
            ended,
            written,
            device: engine.provenance().map(|(device, _)| device),
            duplicates: ledger.share_fates(),
        }
    }

    fn too_many(&self, failed: usize) -> Error {
        Error::TooManyFailures {
            failed,
            limit: self.options.max_failures,
            failures: Vec::new(),
        }
    }

    /// Says what was done, or what went wrong first.
    fn finish(&self, done: Done, saved: Result<()>, dataset: &Dataset, ledger: &Ledger) -> Result<ExtractReport> {
        let failures = ledger.failures(dataset);
        let ended = match done.ended {
            Err(Error::TooManyFailures { limit, .. }) => Err(Error::TooManyFailures {
                failed: failures.len(),
                limit,
                failures: failures.clone(),
            }),
            ended => ended,
        };
        let ended = ended?;
        done.written?;
        saved?;
        if ended.interrupted {
            return Err(Error::Interrupted);
        }
        let limit = self.options.max_failures;
        if limit.of(ledger.len()).is_some_and(|most| failures.len() > most) {
            return Err(Error::TooManyFailures {
                failed: failures.len(),
                limit,
                failures,
            });
        }
        if !self.options.views.is_empty() && !dataset.samples.iter().any(Sample::may_train) {
            self.observer
                .warn("no picture has a label and may be trained on: no random view was stored");
        }
        let seconds = self.start.elapsed().as_secs_f64();
        let counts = ledger.counts(&|index| match self.wants_views(&dataset.samples[index]) {
            true => self.options.views.count(),
            false => 0,
        });
        let report = ExtractReport {
            images: ledger.len(),
            computed: counts.computed,
            reused: counts.reused,
            failed: failures.len(),
            views: counts.views,
            views_computed: counts.views_computed,
            views_reused: counts.views - counts.views_computed,
            duplicates: done.duplicates,
            partial: counts.partial,
            unlabelled: dataset.samples.iter().filter(|sample| sample.class.is_none()).count(),
            failures,
            problems: ledger.problems(dataset),
            ignored: dataset.ignored.clone(),
            seconds,
            images_per_second: ledger.len() as f64 / seconds.max(1e-9),
            bottleneck: done.device.as_ref().and_then(|_| ended.busy.bottleneck()),
            busy: ended.busy,
            device: done.device,
            feature_dim: self.space().dim(),
            cache: self.cache.root().to_path_buf(),
            space: self.description.space().id().to_string(),
        };
        assert_eq!(
            report.images,
            report.computed + report.reused + report.failed,
            "every picture is accounted for"
        );
        Ok(report)
    }
}
