//! The features of all pictures that may train or validate, for folds.

use std::path::{Path, PathBuf};

use super::{FeatureRequest, LabelledFeatures, Pooling, Selection, labelled};
use crate::cache::Cache;
use crate::dataset::Split;
use crate::error::Result;

/// All labelled pictures that are not of the test split, and what folds must know of them.
#[derive(Debug, Clone)]
pub(crate) struct PooledFeatures {
    /// Their features, all of them as the training split; the validation split is empty.
    pub(crate) features: LabelledFeatures,
    /// What each row stays together with: all of the same bytes, and of the same group.
    pub(crate) units: Vec<[u8; 32]>,
    /// The path of each row's picture below the data set's root, with `/` between its parts.
    pub(crate) paths: Vec<PathBuf>,
}

/// Gathers the features of the data set `dataset` from `cache`, train and val together; test is left alone.
///
/// # Errors
/// As [`super::labelled_features`].
pub(crate) fn pooled_features(cache: &Cache, dataset: &Path, request: &FeatureRequest) -> Result<PooledFeatures> {
    let selection = Selection::build(cache, dataset, request, Pooling::Together)?;
    let trains =
        |index: &usize| selection.splits[*index] == Some(Split::Train) && selection.usable[*index].class.is_some();
    let rows: Vec<usize> = (0..selection.usable.len()).filter(trains).collect();
    let path = |index: &usize| {
        let path = selection.listing.path(selection.usable[*index].number);
        PathBuf::from(path.to_string_lossy().replace('\\', "/"))
    };
    Ok(PooledFeatures {
        units: rows.iter().map(|index| selection.units[*index]).collect(),
        paths: rows.iter().map(path).collect(),
        features: labelled(selection)?,
    })
}
