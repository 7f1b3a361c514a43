//! `predict`: pictures to classes, by backbone and head together. What the cache has is not computed again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ndarray::ArrayView2;

use crate::backbone::Backbone;
use crate::cache::{Cache, RowKey, Space};
use crate::engine::{Engine, InferenceOptions};
use crate::error::{Error, Result};
use crate::head::{HeadFile, RankedClass};
use crate::observer::{Observer, Unit};
use crate::picture::{Completeness, DECODER, Limits, PictureError, Truncated};
use crate::pipeline::{self, Outcome, Plan};
use crate::space::SpaceDescription;
use crate::supply::{Files, Source};

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
        self.description.decoder != DECODER
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
        let known = |content: &[u8; 32]| {
            let space = space.as_ref()?;
            let whole = space
                .row(&RowKey::plain(*content))
                .map(|row| (row, Completeness::Whole));
            let partial = || {
                space
                    .row(&RowKey::partial(*content))
                    .map(|row| (row, Completeness::Partial))
            };
            whole.or_else(|| partial().filter(|_| accept))
        };
        let engine = Engine::new(&checked, &options.inference, observer);
        let source = |index: usize| Source::File(paths[index].clone());
        let plan = Plan {
            supply: &Files::new(paths.len(), &source),
            transform: &self.description.transform,
            limits: options.limits,
            known: &|content| known(content).map(|(_, completeness)| completeness),
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
                Outcome::Feature(feature, _) => self.rank(&feature, options.top_k).map(Ok)?,
                Outcome::Known(_) => {
                    let content = processed.content.expect("a known picture was read");
                    let (feature, _) = known(&content).expect("it was there a moment ago");
                    self.rank(feature, options.top_k).map(Ok)?
                }
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

    fn rank(&self, feature: &[f32], top_k: usize) -> Result<Vec<RankedClass>> {
        let row = ArrayView2::from_shape((1, feature.len()), feature).expect("one row");
        Ok(self.file.top_k(row, top_k)?.remove(0))
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
}
