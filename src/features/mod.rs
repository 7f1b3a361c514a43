//! The cached features of a data set as matrices with labels: what a head is trained on. No picture is read.

mod choice;
mod fingerprint;
mod listing;
mod pooled;
mod seen;

use std::borrow::Cow;
use std::path::Path;

use ndarray::{Array2, ArrayView2};
use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;
use regex::Regex;

use crate::cache::{Cache, FeatureSpace, Origin, Space};
use crate::dataset::{InputOptions, Problems, Split, SplitInput, VAL_FROM_TRAIN, assign_splits, join_groups};
use crate::error::{Error, Result};
use crate::views::{RandomViews, View};

pub use choice::SpaceChoice;
pub use fingerprint::{DataFingerprint, FingerprintPart};
pub(crate) use pooled::{PooledFeatures, pooled_features};
pub use seen::{Overlap, PictureSet, SeenPictures};

use choice::choose;
use listing::{Known, Listing};

/// One split's features: `[n, d]` row-major f32, and `n` class ids.
#[derive(Debug, Clone)]
pub struct LabelledRows {
    /// `[n, d]`.
    pub features: Array2<f32>,
    /// Class ids, indices into [`LabelledFeatures::classes`].
    pub labels: Vec<usize>,
}

/// The share of each class that validates where neither the data set nor the user says it.
pub(crate) const VAL_FRACTION: f64 = 0.3;

/// A data set's features.
#[derive(Debug, Clone)]
pub struct LabelledFeatures {
    /// Class names.
    pub classes: Vec<String>,
    /// The space the features lie in.
    pub space: FeatureSpace,
    /// Where the space's backbone lay.
    pub origin: Option<Origin>,
    /// The training split.
    pub train: LabelledRows,
    /// Its random views, as many as [`FeatureRequest::views`] asks for: `[n, d]` each, row i of view k of the picture that
    /// row i of `train` is of.
    pub train_views: Vec<Array2<f32>>,
    /// The validation split; may be empty.
    pub val: LabelledRows,
    /// The identity of the rows of both.
    pub fingerprint: DataFingerprint,
    /// The pictures of both, for the heads that are trained on them.
    pub pictures: SeenPictures,
    /// Pictures of the test split, which are left alone.
    pub test_images: usize,
    /// Pictures that are left out because they have no label.
    pub unlabelled_images: usize,
    /// Pictures that are left out because `extract` could not read them.
    pub failed_images: usize,
    /// What is wrong with the data set.
    pub problems: Problems,
    /// Things a careful person would want to know, one line each.
    pub warnings: Vec<String>,
}

impl LabelledRows {
    /// The features as a view, `[n, d]`.
    #[must_use]
    pub fn view(&self) -> ArrayView2<'_, f32> {
        self.features.view()
    }
}

/// What is wanted of a data set's features.
#[derive(Debug, Clone, Default)]
pub struct FeatureRequest {
    /// How the data set is read.
    pub input: InputOptions,
    /// Which space. Default: the only one.
    pub space: SpaceChoice,
    /// The share of each class that validates where the data set gives no validation split, in 0..1. Default: 0.
    pub val_fraction: f64,
    /// Pictures whose path gives the same text here stay on one side of a split: the first capture group, or the whole
    /// match. Default: only identical pictures stay together.
    pub group_by: Option<Regex>,
    /// Which random views of the training pictures. Default: none.
    pub views: RandomViews,
}

/// The pictures of a data set that have a feature, each with its split, and their random views.
pub(crate) struct Selection {
    listing: Listing,
    pub(crate) space: FeatureSpace,
    pub(crate) origin: Option<Origin>,
    rows: Space,
    usable: Vec<Known>,
    splits: Vec<Option<Split>>,
    views: RandomViews,
    /// What stays together, where the splits were joined.
    units: Vec<[u8; 32]>,
    problems: Problems,
    failed: usize,
}

/// Gathers the features of the data set `dataset` from `cache`.
///
/// # Errors
/// [`Error::NotExtracted`] when pictures have no feature yet, [`Error::NoViews`] when training pictures lack random views,
/// [`Error::Usage`] when there are several spaces and the
/// request does not say which.
pub fn labelled_features(cache: &Cache, dataset: &Path, request: &FeatureRequest) -> Result<LabelledFeatures> {
    labelled(Selection::of(cache, dataset, request)?)
}

/// The features of a selection.
fn labelled(selection: Selection) -> Result<LabelledFeatures> {
    let Selection {
        listing,
        usable,
        splits,
        ..
    } = &selection;
    let unlabelled = usable.iter().filter(|known| known.class.is_none()).count();
    if unlabelled == usable.len() && !usable.is_empty() {
        return Err(Error::Dataset {
            path: listing.name.clone(),
            problem: "has no labels".to_owned(),
            hint:
                "put the pictures of each class into a folder of the class's name, or list them with their labels in a \
                   table (`--label-column NAME` says which column has them)"
                    .to_owned(),
        });
    }
    let labelled = |chosen: &[Known]| -> Result<LabelledRows> {
        let features = gather(&selection.rows, chosen, View::Plain);
        let classes = chosen.iter().filter_map(|known| known.class);
        Ok(LabelledRows {
            features: features.map_err(|damaged| listing.not_extracted(damaged, None))?,
            labels: classes.map(|class| class as usize).collect(),
        })
    };
    let (training, validation) = (selection.labelled(Split::Train), selection.labelled(Split::Val));
    let (train, val) = (labelled(&training)?, labelled(&validation)?);
    let set = |chosen: &[Known]| PictureSet::of(chosen.iter().map(|known| known.key.content));
    let train_views = selection.train_views(&training)?;
    let mut trained = vec![false; listing.classes.len()];
    train.labels.iter().for_each(|class| trained[*class] = true);
    if let Some(class) = val.labels.iter().find(|class| !trained[**class]) {
        return Err(Error::Dataset {
            path: listing.name.clone(),
            problem: format!(
                "has the class `{}` in the validation split only, so no head can learn it",
                listing.classes[*class]
            ),
            hint: "add pictures of it to the training split, or leave it out".to_owned(),
        });
    }
    Ok(LabelledFeatures {
        train,
        train_views,
        val,
        fingerprint: selection.fingerprint(),
        pictures: SeenPictures {
            train: set(&training),
            val: set(&validation),
        },
        test_images: splits.iter().filter(|split| **split == Some(Split::Test)).count(),
        unlabelled_images: unlabelled,
        failed_images: listing.seen.unreadable + selection.failed,
        problems: selection.problems,
        classes: selection.listing.classes,
        warnings: selection.listing.warnings,
        space: selection.space,
        origin: selection.origin,
    })
}

impl Selection {
    /// Finds the rows of the data set `dataset` and gives each of its pictures a split.
    pub(crate) fn of(cache: &Cache, dataset: &Path, request: &FeatureRequest) -> Result<Self> {
        Self::build(cache, dataset, request, Pooling::Apart)
    }

    fn build(cache: &Cache, dataset: &Path, request: &FeatureRequest, pooling: Pooling) -> Result<Self> {
        if !(0.0..1.0).contains(&request.val_fraction) {
            return Err(Error::Usage(format!(
                "a validation fraction lies in 0..1, not {}",
                request.val_fraction
            )));
        }
        let mut listing = Listing::of(cache, dataset, &request.input)?;
        if listing.seen.unseen > 0 {
            return Err(listing.not_extracted(listing.seen.unseen, listing.seen.first_unseen.clone()));
        }
        let (space, origin, rows) = choose(cache, &listing, &request.space)?;
        rows.touch();
        let usable: Vec<Known> = listing
            .seen
            .known
            .iter()
            .copied()
            .filter(|known| rows.contains(&known.key))
            .collect();
        let failed = listing.seen.known.len() - usable.len();
        let groups = request
            .group_by
            .as_ref()
            .map(|pattern| listing.groups(&usable, pattern));
        let units = units(&usable, groups.as_deref());
        let mut splits = match pooling {
            Pooling::Apart => split(&usable, &units, request.val_fraction),
            Pooling::Together => split(&usable, &units, 0.0),
        };
        if pooling == Pooling::Together {
            listing.warnings.retain(|warning| warning != VAL_FROM_TRAIN);
            for split in splits.iter_mut().filter(|split| **split == Some(Split::Val)) {
                *split = Some(Split::Train);
            }
        }
        let problems = listing.problems(&usable, &splits, groups.as_deref());
        let selection = Self {
            listing,
            space,
            origin,
            rows,
            units: if pooling == Pooling::Together {
                units
            } else {
                Vec::new()
            },
            usable,
            splits,
            views: request.views,
            problems,
            failed,
        };
        let training = selection.labelled(Split::Train);
        let lacks = |known: &&Known| {
            let mut views = selection.views.iter();
            views.any(|view| !selection.rows.contains(&known.key_of(view)))
        };
        match training.par_iter().filter(lacks).count() {
            0 => Ok(selection),
            missing => Err(selection.no_views(missing, training.len())),
        }
    }

    /// The labelled pictures of a split.
    fn labelled(&self, wanted: Split) -> Vec<Known> {
        let pictures = self.usable.iter().zip(&self.splits);
        let chosen = pictures.filter(|(known, split)| **split == Some(wanted) && known.class.is_some());
        chosen.map(|(known, _)| *known).collect()
    }

    /// The random views of the training pictures `training`, `[n, d]` each.
    fn train_views(&self, training: &[Known]) -> Result<Vec<Array2<f32>>> {
        let gathered = self.views.iter().map(|view| gather(&self.rows, training, view));
        gathered
            .collect::<Result<_, _>>()
            .map_err(|damaged| self.no_views(damaged, training.len()))
    }

    fn no_views(&self, missing: usize, total: usize) -> Error {
        Error::NoViews {
            path: self.listing.name.clone(),
            missing,
            total,
            views: self.views,
        }
    }

    /// The identity of the labelled rows that train, in their plain and their random views, and validate.
    fn fingerprint(&self) -> DataFingerprint {
        let of = |wanted: Split, view: View| {
            let pictures = self.usable.iter().zip(&self.splits);
            let chosen = pictures.filter(move |(_, split)| **split == Some(wanted));
            chosen.filter_map(move |(known, _)| Some((known.key_of(view), known.class?, wanted)))
        };
        let random = self.views.iter().flat_map(|view| of(Split::Train, view));
        let train = of(Split::Train, View::Plain).chain(random);
        DataFingerprint::of(&self.listing.classes, train.chain(of(Split::Val, View::Plain)))
    }

    /// Class names.
    pub(crate) fn classes(&self) -> &[String] {
        &self.listing.classes
    }

    /// What a careful person would want to know, one line each.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = String> {
        self.listing.warnings.iter().cloned().chain(self.problems.lines())
    }

    /// Pictures with a feature.
    pub(crate) fn len(&self) -> usize {
        self.usable.len()
    }

    /// What the cache remembers the data set by, absolute.
    pub(crate) fn name(&self) -> &Path {
        &self.listing.name
    }

    /// The path of the picture with an index below [`Selection::len`], below the data set's root.
    pub(crate) fn path(&self, index: usize) -> Cow<'_, Path> {
        self.listing.path(self.usable[index].number)
    }

    /// Its split; none where it has neither a label nor a split of its own.
    pub(crate) fn split(&self, index: usize) -> Option<Split> {
        self.splits[index]
    }

    /// Its class, an index into [`Selection::classes`].
    pub(crate) fn class(&self, index: usize) -> Option<usize> {
        self.usable[index].class.map(|class| class as usize)
    }

    /// blake3 of its bytes.
    pub(crate) fn content(&self, index: usize) -> [u8; 32] {
        self.usable[index].key.content
    }

    /// The features of the pictures with these indexes, `[n, dim]`.
    ///
    /// # Errors
    /// [`Error::NotExtracted`] when rows are damaged.
    pub(crate) fn features(&self, indexes: &[usize]) -> Result<Array2<f32>> {
        let chosen: Vec<Known> = indexes.iter().map(|index| self.usable[*index]).collect();
        gather(&self.rows, &chosen, View::Plain).map_err(|damaged| self.listing.not_extracted(damaged, None))
    }

    /// Pictures that are left out because `extract` could not read them.
    pub(crate) fn failed_images(&self) -> usize {
        self.listing.seen.unreadable + self.failed
    }

    /// Numbers per feature.
    pub(crate) fn dim(&self) -> usize {
        self.rows.dim().unwrap_or(0)
    }

    /// Each picture by its number, in the data set's order, with its plain view, and after it the random views that are
    /// wanted, where it trains.
    pub(crate) fn rows(&self) -> Vec<(usize, View)> {
        let views = |index: usize| {
            let trains = self.splits[index] == Some(Split::Train) && self.usable[index].class.is_some();
            let random = if trains { self.views } else { RandomViews::default() };
            let views = std::iter::once(View::Plain).chain(random.iter());
            views.map(move |view| (index, view))
        };
        (0..self.len()).flat_map(views).collect()
    }

    /// A view of the picture with an index below [`Selection::len`].
    ///
    /// # Errors
    /// [`Error::NotExtracted`] or [`Error::NoViews`] when its row is damaged or not there.
    pub(crate) fn row(&self, (index, view): (usize, View)) -> Result<SelectedRow<'_>> {
        let known = &self.usable[index];
        let path = self.listing.path(known.number);
        let key = known.key_of(view);
        let Some(feature) = self.rows.row(&key) else {
            return Err(match view {
                View::Plain => self.listing.not_extracted(1, Some(path.into_owned())),
                View::Random(_) => self.no_views(1, self.labelled(Split::Train).len()),
            });
        };
        Ok(SelectedRow {
            path,
            split: self.splits[index],
            label: known.class.map(|class| self.listing.classes[class as usize].as_str()),
            view: key.view,
            feature,
        })
    }
}

/// One picture of a [`Selection`] with its feature.
pub(crate) struct SelectedRow<'a> {
    pub(crate) path: Cow<'a, Path>,
    pub(crate) split: Option<Split>,
    pub(crate) label: Option<&'a str>,
    pub(crate) view: u32,
    pub(crate) feature: &'a [f32],
}

/// Whether train and val are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pooling {
    Apart,
    /// What is not test trains.
    Together,
}

/// What each picture stays together with: all of the same bytes, and of the same group.
fn units(usable: &[Known], groups: Option<&[[u8; 32]]>) -> Vec<[u8; 32]> {
    let contents = usable.iter().map(|known| known.key.content);
    match groups {
        None => contents.collect(),
        Some(groups) => join_groups(&contents.zip(groups.iter().copied()).collect::<Vec<_>>()),
    }
}

/// The split of each picture; pictures without a label get none but their own.
fn split(usable: &[Known], units: &[[u8; 32]], val_fraction: f64) -> Vec<Option<Split>> {
    let labelled = usable.iter().enumerate().filter_map(|(index, known)| {
        Some(SplitInput {
            class: known.class?,
            unit: units[index],
            split: known.split,
        })
    });
    let mut assigned = assign_splits(&labelled.collect::<Vec<_>>(), val_fraction).into_iter();
    let own = |known: &Known| {
        if known.class.is_some() {
            assigned.next()
        } else {
            known.split
        }
    };
    usable.iter().map(own).collect()
}

/// The features of a view of the pictures `chosen`, `[n, d]`, or how many of them are not there or damaged.
fn gather(rows: &Space, chosen: &[Known], view: View) -> Result<Array2<f32>, usize> {
    let dim = rows.dim().expect("the space has rows of this data set");
    let mut features = vec![0.0_f32; chosen.len() * dim];
    let damaged = features
        .par_chunks_exact_mut(dim)
        .zip(chosen.par_iter())
        .filter_map(|(target, known)| match rows.row(&known.key_of(view)) {
            Some(row) => {
                target.copy_from_slice(row);
                None
            }
            None => Some(()),
        })
        .count();
    if damaged > 0 {
        return Err(damaged);
    }
    Ok(Array2::from_shape_vec((chosen.len(), dim), features).expect("one row for each picture"))
}
