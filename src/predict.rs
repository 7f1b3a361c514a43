//! `predict`: pictures to classes, by backbone and head together. What the cache has is not computed again.
//!
//! With random views beside the plain one, the probabilities of all of them are averaged (test-time augmentation).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ndarray::{ArrayView2, Axis};

use crate::backbone::Backbone;
use crate::cache::{Cache, Space};
use crate::engine::{Engine, InferenceOptions};
use crate::error::{Error, Result};
use crate::head::{HeadFile, RankedClass};
use crate::observer::{Observer, Unit};
use crate::picture::{Completeness, Limits, PictureError, Truncated, decoder};
use crate::pipeline::{self, Asked, Lacking, Outcome, Plan};
use crate::space::SpaceDescription;
use crate::supply::{Files, Source};
use crate::views::{RandomViews, View};

/// What `predict` says of one picture.
#[derive(Debug, Clone)]
pub struct Prediction<'a> {
    /// The file.
    pub path: &'a Path,
    /// The most probable classes, best first, or why there are none.
    pub outcome: Result<Vec<RankedClass>, PictureError>,
}

/// A head file, read and understood.
#[derive(Debug, Clone)]
pub struct Classifier {
    path: PathBuf,
    file: HeadFile,
    description: SpaceDescription,
}

impl Classifier {
    /// Reads a head file; the backbone comes later.
    ///
    /// # Errors
    /// When the file is no head file, or was made by a version whose features this one can't make.
    pub fn load(path: &Path) -> Result<Self> {
        let file = HeadFile::load(path)?;
        let description = SpaceDescription::parse(&file.meta.space).ok_or_else(|| Error::HeadFile {
            path: path.to_path_buf(),
            problem: "its feature space is described in a way this version does not know".to_owned(),
        })?;
        if description.space().id().to_string() != file.meta.space_id {
            let problem = "its feature space does not match the space's id in it".to_owned();
            return Err(Error::HeadFile {
                path: path.to_path_buf(),
                problem,
            });
        }
        Ok(Self {
            path: path.to_path_buf(),
            file,
            description,
        })
    }

    /// The head and what is known about it.
    #[must_use]
    pub fn file(&self) -> &HeadFile {
        &self.file
    }

    /// What the features of this head depend on.
    #[must_use]
    pub fn space(&self) -> &SpaceDescription {
        &self.description
    }

    /// Whether the head's features were decoded by other versions of the decoders than this program has: last digits of
    /// features, and with them of probabilities, may then differ.
    #[must_use]
    pub fn other_decoder(&self) -> bool {
        self.description.decoder != decoder()
    }

    /// Checks that `backbone` is the one whose features the head was trained on.
    ///
    /// # Errors
    /// [`Error::OtherBackbone`], naming both.
    pub fn check(&self, backbone: &Backbone) -> Result<()> {
        let crop = self.description.transform.crop;
        let same = backbone.blake3() == self.description.backbone
            && backbone.model().output == self.description.feature
            && backbone.model().input_size == (crop, crop);
        if same {
            return Ok(());
        }
        Err(Error::OtherBackbone {
            head: self.path.clone(),
            expected: format!(
                "{} (blake3 {}…, tensor `{}`)",
                self.file.meta.backbone,
                &self.description.backbone[..16],
                self.description.feature
            ),
            found: format!(
                "{} (blake3 {}…, tensor `{}`)",
                backbone.origin().file.display(),
                &backbone.blake3()[..16],
                backbone.model().output
            ),
        })
    }

    /// Classifies `paths` and hands over the predictions in their order.
    ///
    /// `backbone` is called when the first picture is not in the cache.
    ///
    /// # Errors
    /// What the backbone or the cache gives, or `sink`. A picture that can't be read is a prediction like any other.
    pub fn predict(
        &self,
        paths: &[PathBuf],
        backbone: &(dyn Fn() -> Result<Arc<Backbone>> + Sync),
        cache: &Cache,
        options: &PredictOptions,
        observer: &dyn Observer,
        sink: &mut dyn FnMut(Prediction<'_>) -> Result<()>,
    ) -> Result<()> {
        let checked = || backbone().and_then(|backbone| self.check(&backbone).map(|()| backbone));
        let space: Option<Space> = cache.open_space(&self.description.space())?;
        if let Some(space) = &space {
            space.touch();
        }
        let accept = options.limits.truncated == Truncated::Accept;
        let known = |content: &[u8; 32], view: View| {
            let space = space.as_ref()?;
            let row = |completeness| Some((space.row(&view.key(*content, completeness))?, completeness));
            row(Completeness::Whole).or_else(|| row(Completeness::Partial).filter(|_| accept))
        };
        let views: Vec<View> = std::iter::once(View::Plain).chain(options.views.iter()).collect();
        let lacking = |asked: &Asked<'_>| {
            let mut completeness = Completeness::Whole;
            let mut lacks = |view: &View| match known(asked.content, *view) {
                Some((_, found)) => {
                    completeness = found;
                    false
                }
                None => true,
            };
            let lacking: Vec<View> = views.iter().copied().filter(&mut lacks).collect();
            if lacking.is_empty() {
                Lacking::Nothing(completeness)
            } else {
                Lacking::Views(lacking)
            }
        };
        let rank = |content: Option<[u8; 32]>, computed: &[(View, Vec<f32>)]| {
            let content = content.expect("a picture with features was read");
            let feature = |view: &View| {
                let computed = computed.iter().find(|(of, _)| of == view);
                let computed = computed.map(|(_, feature)| feature.as_slice());
                computed.unwrap_or_else(|| known(&content, *view).expect("it was there a moment ago").0)
            };
            let features: Vec<&[f32]> = views.iter().map(feature).collect();
            self.rank(&features, options.top_k)
        };
        let engine = Engine::new(&checked, self.description.precision, &options.inference, observer);
        let source = |index: usize| Source::File(paths[index].clone());
        let plan = Plan {
            supply: &Files::new(paths.len(), &source),
            transform: &self.description.transform,
            limits: options.limits,
            lacking: &lacking,
            most_views: views.len(),
            deduplicate: false,
        };
        // Results come as they are ready and go out in order: what is early waits here.
        let mut waiting = BTreeMap::new();
        let mut next = 0;
        observer.begin("predict", Some(paths.len() as u64), Unit::Pictures);
        let ended = pipeline::run(&plan, &engine, observer, &mut |processed| {
            let Some(processed) = processed else { return Ok(()) };
            observer.advance(1);
            let outcome = match processed.outcome {
                Outcome::Features(features, _) => rank(processed.content, &features).map(Ok)?,
                Outcome::Known(_) => rank(processed.content, &[]).map(Ok)?,
                Outcome::Failed(error) => Err(error),
                Outcome::Repeated => unreachable!("repeated pictures are not set aside here"),
            };
            waiting.insert(processed.index, outcome);
            while let Some(outcome) = waiting.remove(&next) {
                sink(Prediction {
                    path: &paths[next],
                    outcome,
                })?;
                next += 1;
            }
            Ok(())
        });
        observer.end();
        if ended?.interrupted {
            Err(Error::Interrupted)
        } else {
            Ok(())
        }
    }

    /// The best classes of a picture by the mean probability over its views, of which `features` are (`[dim]` each).
    fn rank(&self, features: &[&[f32]], top_k: usize) -> Result<Vec<RankedClass>> {
        let rows = features.concat();
        let rows = ArrayView2::from_shape((features.len(), rows.len() / features.len()), &rows).expect("equal rows");
        if features.len() == 1 {
            return Ok(self.file.top_k(rows, top_k)?.remove(0));
        }
        let probabilities = self.file.probabilities(rows)?;
        let mean = |class: usize| {
            let column = probabilities.index_axis(Axis(1), class);
            column.iter().copied().map(f64::from).sum::<f64>() / features.len() as f64
        };
        let mut ranked: Vec<(usize, f64)> = (0..self.file.head.classes())
            .map(|class| (class, mean(class)))
            .collect();
        ranked.sort_by(|left, right| right.1.total_cmp(&left.1).then(left.0.cmp(&right.0)));
        ranked.truncate(top_k);
        let ranked = ranked.into_iter().map(|(class, probability)| RankedClass {
            class,
            probability: probability as f32,
        });
        Ok(ranked.collect())
    }
}

/// How pictures are classified.
#[derive(Debug, Clone)]
pub struct PredictOptions {
    /// How the backbone is run.
    pub inference: InferenceOptions,
    /// How much one picture may cost.
    pub limits: Limits,
    /// How many classes to name for each picture; at most as many as there are.
    pub top_k: usize,
    /// Random views whose probabilities are averaged with those of the plain view. Default: none.
    pub views: RandomViews,
}
