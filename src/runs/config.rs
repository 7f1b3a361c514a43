//! What a run was told: enough to repeat it bit for bit, on whatever device.

use std::path::{Path, PathBuf};

use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dataset::{InputOptions, TableColumns, absolute};
use crate::disk::lossy;
use crate::error::{Error, Result};
use crate::features::{FeatureRequest, LabelledFeatures, SpaceChoice};
use crate::head::Recipe;
use crate::views::RandomViews;

/// The resolved configuration of one run: all that the head depends on beside the data.
///
/// Written as `config.json`. Device, threads and the cache's folder are not in it: no bit of a head depends on them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Which data set.
    pub dataset: RunDataset,
    /// Which of its features.
    pub features: RunFeatures,
    /// How the head is trained.
    pub recipe: Recipe,
    /// What a sweep goes through, as it was given; `None` for the run of one head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<Value>,
    /// How the pictures of train and val were folded; the head is then trained on all of them. `None` without folds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folds: Option<Value>,
    /// The version of lastlayer that ran.
    pub lastlayer_version: String,
    /// The command as it was given; for people, nothing is read from it.
    pub command_line: Vec<String>,
}

/// The data set of a run. Paths that are no UTF-8 are kept with replacement characters, and can't be found again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunDataset {
    /// As the user named it.
    #[serde(serialize_with = "lossy")]
    pub named: PathBuf,
    /// The same from wherever it is named.
    #[serde(serialize_with = "lossy")]
    pub absolute: PathBuf,
}

/// A [`FeatureRequest`] as a run keeps it: with the space that was chosen, and absolute paths.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunFeatures {
    /// The space's id, 32 hexadecimal digits.
    pub space: String,
    /// What the space's backbone was called; for people.
    pub backbone: Option<String>,
    /// Random views of each training picture; 0 where the plain views are trained on.
    pub views: usize,
    /// The seed that these are drawn from.
    pub views_seed: u16,
    /// [`FeatureRequest::val_fraction`].
    pub val_fraction: f64,
    /// [`FeatureRequest::group_by`], as text.
    pub group_by: Option<String>,
    /// [`TableColumns::path`].
    pub path_column: Option<String>,
    /// [`TableColumns::label`].
    pub label_column: Option<String>,
    /// [`TableColumns::split`].
    pub split_column: Option<String>,
    /// [`InputOptions::image_root`].
    #[serde(serialize_with = "lossy_option")]
    pub image_root: Option<PathBuf>,
    /// [`InputOptions::name`].
    #[serde(serialize_with = "lossy_option")]
    pub name: Option<PathBuf>,
}

fn lossy_option<S: serde::Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => lossy(path, serializer),
        None => serializer.serialize_none(),
    }
}

impl RunConfig {
    /// The configuration of a training with `recipe` on `features`, which `request` gave of the data set `dataset`.
    ///
    /// # Errors
    /// When the current folder can't be found out.
    pub fn new(
        dataset: &Path,
        request: &FeatureRequest,
        features: &LabelledFeatures,
        recipe: &Recipe,
        command_line: Vec<String>,
    ) -> Result<Self> {
        let input = &request.input;
        let absolute_option = |path: &Option<PathBuf>| path.as_deref().map(absolute).transpose();
        Ok(Self {
            dataset: RunDataset {
                named: dataset.to_path_buf(),
                absolute: absolute(dataset)?,
            },
            features: RunFeatures {
                space: features.space.id().to_string(),
                backbone: features.origin.as_ref().map(|origin| origin.name.clone()),
                views: request.views.count(),
                views_seed: request.views.seed(),
                val_fraction: request.val_fraction,
                group_by: request.group_by.as_ref().map(|pattern| pattern.as_str().to_owned()),
                path_column: input.columns.path.clone(),
                label_column: input.columns.label.clone(),
                split_column: input.columns.split.clone(),
                image_root: absolute_option(&input.image_root)?,
                name: absolute_option(&input.name)?,
            },
            recipe: recipe.clone(),
            sweep: None,
            folds: None,
            lastlayer_version: env!("CARGO_PKG_VERSION").to_owned(),
            command_line,
        })
    }

    /// The features of the run, to ask for again.
    ///
    /// # Errors
    /// [`Error::Usage`] when `group_by` is no pattern.
    pub fn request(&self) -> Result<FeatureRequest> {
        let features = &self.features;
        let pattern = |text: &String| {
            Regex::new(text).map_err(|error| Error::Usage(format!("`{text}` is no pattern to group by: {error}")))
        };
        Ok(FeatureRequest {
            input: InputOptions {
                columns: TableColumns {
                    path: features.path_column.clone(),
                    label: features.label_column.clone(),
                    split: features.split_column.clone(),
                },
                image_root: features.image_root.clone(),
                name: features.name.clone(),
            },
            space: SpaceChoice {
                space: Some(features.space.clone()),
                ..SpaceChoice::default()
            },
            val_fraction: features.val_fraction,
            group_by: features.group_by.as_ref().map(pattern).transpose()?,
            views: RandomViews::new(features.views, u64::from(features.views_seed))?,
        })
    }

    /// The text of `config.json`.
    pub(super) fn to_json(&self) -> Result<String, String> {
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())? + "\n";
        // JSON has no infinity, and what can't be read back can't be repeated.
        match serde_json::from_str::<Self>(&text) {
            Ok(_) => Ok(text),
            Err(error) => Err(format!("its configuration can't be written as JSON: {error}")),
        }
    }
}
