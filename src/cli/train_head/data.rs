//! What goes into a training and comes out of it, whatever way heads are trained: features, warnings, the head file.

use std::path::{Path, PathBuf};

use regex::Regex;
use serde_json::{Value, json};

use super::super::context::Context;
use super::super::output::counted;
use super::Job;
use super::calibration::Calibration;
use super::report::Folding;
use crate::cache::Origin;
use crate::error::{Error, Result};
use crate::features::LabelledFeatures;
use crate::head::{EpochRecord, HeadFile, HeadMeta, Recipe, Training};
use crate::metrics::{Report, wilson};
use crate::observer::Observer;
use crate::space::SpaceDescription;
use crate::sweep::CrossValidation;

/// Refuses what no head can learn from, and tells what a careful person would want to know of the data.
pub(super) fn check_features(dataset: &Path, features: &LabelledFeatures, context: &Context) -> Result<()> {
    if features.classes.len() < 2 {
        return Err(Error::Dataset {
            path: dataset.to_path_buf(),
            problem: format!(
                "has one class only, `{}`: there is nothing to tell apart",
                features.classes.join("`, `")
            ),
            hint: "add a folder with pictures of something else".to_owned(),
        });
    }
    for warning in features.warnings.iter().chain(&features.problems.lines()) {
        context.observer.warn(warning);
    }
    for (count, what) in [
        (features.failed_images, "that `extract` could not read"),
        (features.unlabelled_images, "without a label"),
    ] {
        if count > 0 {
            let pictures = counted(count, "picture");
            context.observer.warn(&format!("{pictures} {what}: left out"));
        }
    }
    Ok(())
}

/// The 95 % Wilson interval of an accuracy on `rows` pictures.
pub(super) fn interval(accuracy: f64, rows: usize) -> [f64; 2] {
    wilson((accuracy * rows as f64).round() as usize, rows)
}

/// `95% interval 0.9012 to 0.9821`.
pub(super) fn interval_text([low, high]: [f64; 2]) -> String {
    format!("95% interval {low:.4} to {high:.4}")
}

/// The head of a training as a file, with all that is known of it, and calibrated on the validation pictures: how that went.
pub(super) fn head_file(
    job: &Job<'_>,
    features: &LabelledFeatures,
    recipe: &Recipe,
    trained: &Training,
    folds: Option<(Folding, &CrossValidation)>,
) -> Result<(HeadFile, Calibration)> {
    let mut options = serde_json::to_value(recipe).expect("options are numbers");
    options["val_fraction"] = json!(job.request.val_fraction);
    options["group_by"] = json!(job.request.group_by.as_ref().map(Regex::as_str));
    let description = SpaceDescription::parse(features.space.json()).ok_or_else(|| {
        Error::Usage("the features were extracted by another version of lastlayer: extract them again".to_owned())
    })?;
    // A cache without the note of where the backbone lay still trains heads; `predict` then asks for `--backbone`.
    let unknown = || Origin {
        name: "unknown".to_owned(),
        file: PathBuf::new(),
    };
    let origin = features.origin.clone().unwrap_or_else(unknown);
    options["views"] = json!(job.request.views.count());
    options["views_seed"] = json!(job.request.views.seed());
    let mut metrics = metrics_of(trained.best(), features);
    let calibration = Calibration::of(job, features, &trained.head)?;
    if let Calibration::Fitted(fit) = &calibration {
        metrics["calibration"] = json!(fit);
    }
    if let Some((folding, validated)) = folds {
        metrics["cross_validation"] = cross_validation_of(folding, validated);
    }
    let file = HeadFile {
        head: trained.head.clone(),
        meta: HeadMeta {
            classes: features.classes.clone(),
            backbone: origin.name,
            backbone_file: origin.file,
            backbone_blake3: description.backbone,
            feature_tensor: description.feature,
            space_id: features.space.id().to_string(),
            space: features.space.json().to_owned(),
            options,
            metrics,
            temperature: calibration.temperature(),
            pictures: Some(features.pictures.clone()),
            lastlayer_version: env!("CARGO_PKG_VERSION").to_owned(),
        },
    };
    Ok((file, calibration))
}

/// What is kept of a cross-validation.
pub(super) fn cross_validation_of(folding: Folding, validated: &CrossValidation) -> Value {
    let mut kept = json!(validated);
    kept["folds"] = json!(folding.folds);
    kept["repeats"] = json!(folding.repeats);
    kept
}

/// What a run tells of its head: that of the head's file, and all numbers on the validation pictures.
pub(super) fn metrics_of_run(features: &LabelledFeatures, head: &HeadFile) -> Result<Value> {
    let mut metrics = head.meta.metrics.clone();
    if !features.val.labels.is_empty() {
        let logits = head.head.logits(features.val.view())?;
        let names = &features.classes;
        let report = Report::of(logits.view(), &features.val.labels, names, head.meta.temperature)?;
        metrics["val"] = json!(report);
    }
    Ok(metrics)
}

fn metrics_of(best: &EpochRecord, features: &LabelledFeatures) -> Value {
    let val_images = features.val.labels.len();
    json!({
        "best_epoch": best.epoch,
        "train_images": features.train.labels.len(),
        "train_loss": best.train_loss,
        "train_accuracy": best.train_accuracy,
        "val_images": val_images,
        "val_loss": best.val_loss,
        "val_accuracy": best.val_accuracy,
        "val_accuracy_interval": best.val_accuracy.map(|accuracy| interval(accuracy, val_images)),
    })
}
