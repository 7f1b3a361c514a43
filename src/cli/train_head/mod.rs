//! `lastlayer train-head`: one head, or the best of many.

mod arguments;
mod board;
mod data;
mod fold_file;
mod folds;
mod many;
mod overlay;
mod plan;
mod report;
mod single;

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use regex::Regex;

use super::context::Context;
use super::extract::InputArguments;
use super::output::{Ending, Result};
use super::progress::catch_interrupts;
use crate::features::{FeatureRequest, SpaceChoice};
use crate::head::Recipe;
use crate::observer::Observer;
use crate::views::RandomViews;
use arguments::TrainingArguments;
use many::ManyArguments;
use plan::Plan;

#[derive(Debug, Args)]
#[command(after_help = many::HELP)]
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
    #[command(flatten)]
    many: ManyArguments,
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

/// What every way of training is given.
struct Job<'a> {
    dataset: &'a Path,
    output: &'a Path,
    request: &'a FeatureRequest,
    many: &'a ManyArguments,
    /// Whether configurations are compared.
    sweeps: bool,
    /// What the folds of the first repeat are drawn from.
    fold_seed: u64,
    context: &'a Context,
    start: Instant,
}

pub(super) fn run(arguments: Arguments, context: &Context) -> Result<Ending> {
    catch_interrupts();
    let start = Instant::now();
    let Arguments {
        dataset,
        input,
        output,
        space,
        split,
        training,
        many,
    } = arguments;
    let request = FeatureRequest {
        input: input.options(),
        space: space.choice(context),
        val_fraction: split.val_fraction,
        group_by: split.group_by,
        views: RandomViews::default(),
    };
    // What the options are laid over.
    let base = Recipe::default();
    let spec = many.spec()?;
    many.check(&output, spec.is_some())?;
    let plan = match &spec {
        Some(spec) => Plan::of(spec, &training, &base)?,
        None => Plan::single(&training, &base)?,
    };
    for note in &plan.notes {
        context.observer.note(note);
    }
    let job = Job {
        dataset: &dataset,
        output: &output,
        request: &request,
        many: &many,
        sweeps: spec.is_some(),
        fold_seed: training.seed.unwrap_or(base.seed),
        context,
        start,
    };
    match &many.folds {
        Some(choice) => folds::cross_validate(&job, &plan, choice),
        None if job.sweeps => many::sweep(&job, &plan),
        None => single::train(&job, &plan.combinations[0]),
    }
}
