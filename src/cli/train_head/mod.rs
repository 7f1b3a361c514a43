//! `lastlayer train-head`.

mod arguments;

pub(super) use arguments::TrainingArguments;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::context::Context;
use super::extract::InputArguments;
use super::output::{Ending, Result, counted, print_json};
use super::progress::catch_interrupts;
use crate::cache::Origin;
use crate::dataset::Problems;
use crate::error::Error;
use crate::features::{FeatureRequest, LabelledFeatures, SpaceChoice, labelled_features};
use crate::head::{EpochRecord, Examples, HeadFile, HeadMeta, Recipe, Solver, Training, TrainingTask};
use crate::observer::Observer;
use crate::space::SpaceDescription;
use regex::Regex;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The data set, as it was given to `extract`, or its `--name`
    dataset: PathBuf,
    /// Head file to write
    #[arg(short, long, value_name = "FILE", default_value = "head.safetensors")]
    output: PathBuf,
    #[command(flatten)]
    space: SpaceArguments,
    #[command(flatten)]
    split: SplitArguments,
    // Those with a heading of their own are last: it goes for all that follows.
    #[command(flatten)]
    input: InputArguments,
    #[command(flatten)]
    training: TrainingArguments,
}

/// Which of several spaces is meant.
#[derive(Debug, Args)]
pub(super) struct SpaceArguments {
    /// Which features, where the cache has several: those of this backbone
    #[arg(long, value_name = "NAME|FILE.onnx")]
    backbone: Option<String>,
    /// Which features, where the cache has several: the space whose id begins so
    #[arg(long, value_name = "ID")]
    space: Option<String>,
}

impl SpaceArguments {
    /// A backbone that is here is known by its bytes too, whatever it was called when it was extracted.
    pub(super) fn choice(self, context: &Context) -> SpaceChoice {
        let file = self.backbone.as_deref().and_then(|name| context.local_backbone(name));
        SpaceChoice {
            backbone_blake3: file
                .and_then(|file| std::fs::read(file).ok())
                .map(|bytes| blake3::hash(&bytes).to_hex().to_string()),
            backbone: self.backbone,
            space: self.space,
        }
    }
}

/// How a data set without a validation split gets one.
#[derive(Debug, Args)]
pub(super) struct SplitArguments {
    /// Share of each class that validates, where the data set has no val split
    #[arg(long, value_name = "F", default_value_t = 0.3)]
    pub(super) val_fraction: f64,
    /// Keep pictures together whose path gives the same text here: its first (…), or all that matches
    #[arg(long, value_name = "REGEX")]
    pub(super) group_by: Option<Regex>,
}

/// The command's JSON.
#[derive(Debug, Serialize)]
struct Report<'a> {
    head: &'a Path,
    epochs: usize,
    best_epoch: usize,
    val_accuracy: Option<f64>,
    val_loss: Option<f64>,
    train_accuracy: f64,
    train_loss: f64,
    history: Vec<Epoch>,
    seconds: f64,
    classes: &'a [String],
    space: String,
    train_images: usize,
    val_images: usize,
    failed_images: usize,
    unlabelled_images: usize,
    problems: &'a Problems,
}

#[derive(Debug, Serialize)]
struct Epoch {
    epoch: usize,
    lr: f64,
    train_loss: f64,
    train_accuracy: f64,
    val_loss: Option<f64>,
    val_accuracy: Option<f64>,
}

impl From<&EpochRecord> for Epoch {
    fn from(record: &EpochRecord) -> Self {
        Self {
            epoch: record.epoch,
            lr: record.learning_rate,
            train_loss: record.train_loss,
            train_accuracy: record.train_accuracy,
            val_loss: record.val_loss,
            val_accuracy: record.val_accuracy,
        }
    }
}

pub(super) fn run(arguments: Arguments, context: &Context) -> Result<Ending> {
    let Arguments {
        dataset,
        input,
        output,
        space,
        split,
        training,
    } = arguments;
    let request = FeatureRequest {
        input: input.options(),
        space: space.choice(context),
        val_fraction: split.val_fraction,
        group_by: split.group_by,
    };
    train(&dataset, &output, &request, &training, context)
}

/// Trains a head on the features of `dataset`, prints how it went, and writes it to `output`.
pub(super) fn train(
    dataset: &Path,
    output: &Path,
    request: &FeatureRequest,
    training: &TrainingArguments,
    context: &Context,
) -> Result<Ending> {
    catch_interrupts();
    let start = Instant::now();
    let mut recipe = Recipe::default();
    training.apply(&mut recipe)?;
    let valid = recipe.clone().check()?;
    let features = labelled_features(&context.cache, dataset, request)?;
    if features.classes.len() < 2 {
        return Err(Error::Dataset {
            path: dataset.to_path_buf(),
            problem: format!(
                "has one class only, `{}`: there is nothing to tell apart",
                features.classes.join("`, `")
            ),
            hint: "add a folder with pictures of something else".to_owned(),
        }
        .into());
    }
    for warning in features.warnings.iter().chain(&features.problems.lines()) {
        context.observer.warn(warning);
    }
    if features.failed_images > 0 {
        let failed = counted(features.failed_images, "picture");
        context
            .observer
            .warn(&format!("{failed} that `extract` could not read: left out"));
    }
    if features.unlabelled_images > 0 {
        let unlabelled = counted(features.unlabelled_images, "picture");
        context
            .observer
            .warn(&format!("{unlabelled} without a label: left out"));
    }
    let mut task = TrainingTask::new(
        features.classes.len(),
        Examples::new(features.train.view(), &features.train.labels)?,
    )?;
    if features.val.labels.is_empty() {
        context
            .observer
            .warn("there is no validation picture: the last epoch is kept, whatever it is worth");
    } else {
        task = task.with_validation(Examples::new(features.val.view(), &features.val.labels)?)?;
    }

    let mut out = std::io::stdout().lock();
    let mut printed = Ok(());
    let epochs = match &recipe.solver {
        Solver::Descent(descent) => descent.epochs,
        _ => 1,
    };
    let trained = valid.train(&task, &context.observer, &mut |record| {
        if !context.json && printed.is_ok() {
            printed = print_epoch(&mut out, record, epochs);
        }
    })?;
    let seconds = start.elapsed().as_secs_f64();
    // The head is what the command is for, also for someone who reads only the first lines (`… | head`).
    head_file(&features, request, &recipe, &trained)?.save(output)?;
    printed?;

    let best = trained.best();
    if context.json {
        drop(out);
        print_json(&Report {
            head: output,
            epochs: trained.history.len(),
            best_epoch: best.epoch,
            val_accuracy: best.val_accuracy,
            val_loss: best.val_loss,
            train_accuracy: best.train_accuracy,
            train_loss: best.train_loss,
            history: trained.history.iter().map(Epoch::from).collect(),
            seconds,
            classes: &features.classes,
            space: features.space.id().to_string(),
            train_images: features.train.labels.len(),
            val_images: features.val.labels.len(),
            failed_images: features.failed_images,
            unlabelled_images: features.unlabelled_images,
            problems: &features.problems,
        })?;
    } else {
        writeln!(
            out,
            "Training complete in {:.0}m {:.0}s",
            (seconds / 60.0).floor(),
            seconds % 60.0
        )?;
        if let Some(accuracy) = best.val_accuracy {
            writeln!(out, "Best val Acc: {accuracy:.4}  (epoch {})", best.epoch)?;
        }
        writeln!(out, "head: {}", output.display())?;
        out.flush()?;
    }
    Ok(Ending::Done)
}

fn print_epoch(out: &mut impl Write, record: &EpochRecord, epochs: usize) -> std::io::Result<()> {
    writeln!(out, "Epoch {}/{}", record.epoch, epochs - 1)?;
    writeln!(out, "----------")?;
    writeln!(
        out,
        "train Loss: {:.4} Acc: {:.4}",
        record.train_loss, record.train_accuracy
    )?;
    if let (Some(loss), Some(accuracy)) = (record.val_loss, record.val_accuracy) {
        writeln!(out, "val Loss: {loss:.4} Acc: {accuracy:.4}")?;
    }
    writeln!(out)
}

fn head_file(
    features: &LabelledFeatures,
    request: &FeatureRequest,
    recipe: &Recipe,
    trained: &Training,
) -> Result<HeadFile, Error> {
    let mut options = serde_json::to_value(recipe).expect("options are numbers");
    options["val_fraction"] = json!(request.val_fraction);
    options["group_by"] = json!(request.group_by.as_ref().map(Regex::as_str));
    let description = SpaceDescription::parse(features.space.json()).ok_or_else(|| {
        Error::Usage("the features were extracted by another version of lastlayer: extract them again".to_owned())
    })?;
    let best = trained.best();
    // A cache without the note of where the backbone lay still trains heads; `predict` then asks for `--backbone`.
    let unknown = || Origin {
        name: "unknown".to_owned(),
        file: PathBuf::new(),
    };
    let origin = features.origin.clone().unwrap_or_else(unknown);
    Ok(HeadFile {
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
            metrics: json!({
                "best_epoch": best.epoch,
                "train_images": features.train.labels.len(),
                "train_loss": best.train_loss,
                "train_accuracy": best.train_accuracy,
                "val_images": features.val.labels.len(),
                "val_loss": best.val_loss,
                "val_accuracy": best.val_accuracy,
            }),
            temperature: 1.0,
            lastlayer_version: env!("CARGO_PKG_VERSION").to_owned(),
        },
    })
}
