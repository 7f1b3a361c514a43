//! What callers tell the pipeline, and what it tells them.

use crate::dataset::Stamp;
use crate::picture::{Completeness, Limits, PictureError, Transform};
use crate::supply::Supply;
use crate::views::View;

/// What became of one picture.
#[derive(Debug)]
pub(crate) struct Processed {
    /// Its number in the supply.
    pub(crate) index: usize,
    /// The file's stamp before it was read; default where there was none.
    pub(crate) stamp: Stamp,
    /// blake3 of the bytes, where they could be read.
    pub(crate) content: Option<[u8; 32]>,
    pub(crate) outcome: Outcome,
}

#[derive(Debug)]
pub(crate) enum Outcome {
    /// The caller has all features of this content that it wants.
    Known(Completeness),
    /// The same content came from another path of this run.
    Repeated,
    /// The features that were lacking, `[dim]` each, sorted by view.
    Features(Vec<(View, Vec<f32>)>, Completeness),
    /// There is no feature.
    Failed(PictureError),
}

/// What the caller is asked about a picture that was read.
pub(crate) struct Asked<'a> {
    /// Its number in the supply.
    pub(crate) index: usize,
    pub(crate) content: &'a [u8; 32],
    /// Whether random views of it are wanted, besides the plain one.
    pub(crate) random_views: bool,
}

/// What the caller lacks of a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lacking {
    /// Nothing: it has the features of so much of the picture.
    Nothing(Completeness),
    /// Features of these views, one at least.
    Views(Vec<View>),
}

/// What the pipeline looks at before it decodes.
pub(crate) struct Plan<'a> {
    pub(crate) supply: &'a dyn Supply,
    pub(crate) transform: &'a Transform,
    pub(crate) limits: Limits,
    /// Which features of a picture the caller lacks.
    pub(crate) lacking: &'a (dyn Fn(&Asked<'_>) -> Lacking + Sync),
    /// Most views of one picture; at least 1.
    pub(crate) most_views: usize,
    /// Whether a content that occurs twice is looked at once, the others being [`Outcome::Repeated`].
    pub(crate) deduplicate: bool,
}

/// How busy the stages were, as shares of the time they had.
///
/// On the CPU decoding and inference have the same threads: their shares add up to at most 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Busy {
    /// Running the backbone.
    pub inference: f64,
    /// Decoding, resizing and normalising.
    pub decode: f64,
    /// Reading and hashing files.
    pub disk: f64,
}

impl Busy {
    /// The stages with their shares.
    #[must_use]
    pub fn shares(&self) -> [(&'static str, f64); 3] {
        [
            ("inference", self.inference),
            ("decode", self.decode),
            ("disk", self.disk),
        ]
    }

    /// The stage that the others waited for; `None` when nothing was done.
    #[must_use]
    pub fn bottleneck(&self) -> Option<&'static str> {
        let busiest = self
            .shares()
            .into_iter()
            .max_by(|left, right| left.1.total_cmp(&right.1));
        busiest.filter(|(_, share)| *share > 0.0).map(|(name, _)| name)
    }
}

/// How a run of the pipeline ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) busy: Busy,
    /// Whether the observer stopped it; the results until then were handed over.
    pub(crate) interrupted: bool,
}
