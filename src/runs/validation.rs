//! What a run is worth, and on which pictures that was found out: only numbers of the same pictures can be compared.

use std::fs;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::FOLDS;
use crate::features::DataFingerprint;

/// How well a run's configuration does on pictures that the heads so judged were not trained on: the head on the validation
/// pictures, or in a cross-validation heads of the same configuration, each on its own fold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Validation {
    /// The accuracy; of folds the mean of theirs.
    pub(super) val_accuracy: Option<f64>,
    /// Its 95 % interval.
    pub(super) val_accuracy_interval: Option<[f64; 2]>,
    /// Mean cross-entropy in nats; of folds the mean of theirs.
    pub(super) val_loss: Option<f64>,
    /// Of folds the standard error of their mean accuracy.
    pub(super) standard_error: Option<f64>,
    /// Into how many folds the pictures were divided.
    pub(super) folds: Option<u64>,
    /// How often they were divided anew.
    pub(super) repeats: Option<u64>,
}

impl Validation {
    /// What `metrics` and `config` say of it; nothing, where they are no such files or damaged.
    pub(super) fn of(metrics: &Value, config: &Value) -> Self {
        let folded = &metrics["cross_validation"];
        let interval = |value: &Value| Some([value.get(0)?.as_f64()?, value.get(1)?.as_f64()?]);
        if !folded.is_object() {
            return Self {
                val_accuracy: metrics["val_accuracy"].as_f64(),
                val_accuracy_interval: interval(&metrics["val_accuracy_interval"]),
                val_loss: metrics["val_loss"].as_f64(),
                standard_error: None,
                folds: None,
                repeats: None,
            };
        }
        // Earlier versions left both to the configuration, where a file of folds says neither.
        let scores = folded["fold_accuracy"].as_array().map_or(0, Vec::len) as u64;
        let told = |value: &Value| value.as_u64().filter(|count| *count > 0);
        let folds = told(&folded["folds"]).or_else(|| told(&config["folds"]["count"]));
        let folds = folds.unwrap_or(scores);
        Self {
            val_accuracy: folded["mean_accuracy"].as_f64(),
            val_accuracy_interval: interval(&folded["accuracy_interval"]),
            val_loss: folded["mean_loss"].as_f64(),
            standard_error: folded["standard_error"].as_f64(),
            folds: Some(folds),
            repeats: told(&folded["repeats"]).or_else(|| scores.checked_div(folds)),
        }
    }
}

/// Says which pictures a run was validated on, and in a cross-validation in which folds: the first 16 hexadecimal digits of
/// a blake3. Numbers of runs that differ in it can't be compared. `None` where nothing validated.
///
/// The order of the pictures is not in it, nor what a head of the validation split was trained on.
pub(super) fn validated_on(data: &DataFingerprint, config: &Value, folder: &Path) -> Option<String> {
    let folds = &config["folds"];
    let split = if folds.is_object() { "train" } else { "val" };
    let parts: Vec<_> = data.parts.iter().filter(|part| part.split.name() == split).collect();
    if parts.is_empty() {
        return None;
    }
    let mut hasher = blake3::Hasher::new();
    let mut add = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for part in parts {
        // A file from elsewhere may say anything.
        add(data
            .classes
            .get(part.class as usize)
            .map_or("?", String::as_str)
            .as_bytes());
        add(&part.rows.to_le_bytes());
        add(part.sum.as_bytes());
    }
    if folds.is_object() {
        match folds.get("file") {
            // The path says nothing of what is in the file; the copy does.
            Some(_) => {
                let folders = [Some(folder), folder.parent()];
                let copies = folders.into_iter().flatten().map(|folder| folder.join(FOLDS));
                let bytes = copies
                    .filter(|copy| copy.is_file())
                    .find_map(|copy| fs::read(copy).ok());
                add(&bytes.unwrap_or_default());
            }
            None => add(folds.to_string().as_bytes()),
        }
        add(config["features"]["group_by"].to_string().as_bytes());
    }
    Some(hasher.finalize().to_hex()[..16].to_owned())
}
