//! `lastlayer train-head`: one head, or the best of many.

mod arguments;
mod board;
mod calibration;
mod data;
mod ending;
mod fold_file;
mod folds;
mod kept_files;
mod many;
mod overlay;
mod plan;
mod report;
mod single;
mod start;
mod stopwatch;
mod suggest;
mod values;
mod weights;

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use super::context::Context;
use super::output::{Ending, Result};
use super::progress::catch_interrupts;
use super::runs::{KeepArguments, KeptRun};
use super::selection::SelectionArguments;
use crate::error::Error;
use crate::features::{FeatureRequest, LabelledFeatures};
use crate::head::{Examples, Recipe, TrainingTask, ValidRecipe};
use crate::observer::Observer;
use crate::runs::{Run, RunConfig};
use arguments::TrainingArguments;
use many::ManyArguments;
use plan::Plan;
use start::{Folds, Start};
use stopwatch::Stopwatch;

#[derive(Debug, Args)]
#[command(after_help = many::HELP)]
pub(super) struct Arguments {
    /// The data set, as it was given to `extract`, or its `--name`
    #[arg(required_unless_present = "from")]
    dataset: Option<PathBuf>,
    /// Head file to write
    #[arg(short, long, value_name = "FILE", default_value = "head.safetensors")]
    output: PathBuf,
    /// Leave the probabilities as they are: by default a temperature, fitted on the validation pictures, goes into the head
    #[arg(long)]
    no_calibration: bool,
    #[command(flatten)]
    selection: SelectionArguments,
    // Those with a heading of their own are last: it goes for all that follows.
    #[command(flatten)]
    training: TrainingArguments,
    #[command(flatten)]
    many: ManyArguments,
    #[command(flatten)]
    keep: KeepArguments,
}

/// What every way of training is given.
struct Job<'a> {
    dataset: &'a Path,
    output: &'a Path,
    request: &'a FeatureRequest,
    /// What the options are laid over.
    base: &'a Recipe,
    many: &'a ManyArguments,
    /// What the run's configuration keeps of the sweep, if configurations are compared.
    sweep: Option<Value>,
    folds: Option<&'a Folds>,
    /// Heads of a sweep to save.
    kept: usize,
    /// Whether a temperature is fitted.
    calibrates: bool,
    keep: &'a KeepArguments,
    /// The run whose pictures must be those of now.
    repeated: Option<&'a Run>,
    context: &'a Context,
    watch: Stopwatch,
}

impl Job<'_> {
    /// The recipe that a run is told: of a sweep what its axes are laid over.
    fn recipe_of_run<'r>(&'r self, recipes: &'r [ValidRecipe]) -> &'r Recipe {
        if self.sweep.is_some() {
            self.base
        } else {
            recipes[0].recipe()
        }
    }

    /// Begins the run of a training on `features`.
    ///
    /// # Errors
    /// [`Error::DataChanged`] when a run is repeated and its pictures are others now.
    fn begin_run(&self, features: &LabelledFeatures, recipe: &Recipe) -> Result<(KeptRun<'_>, RunConfig), Error> {
        if let Some(run) = self.repeated {
            run.check_data(&features.fingerprint)?;
        }
        let mut config = start::config_of(self, features, recipe)?;
        config.sweep.clone_from(&self.sweep);
        Ok((self.keep.begin(&config, features, self.context), config))
    }
}

/// The task of training on all of `features`, with their random views, checked by their validation pictures.
fn task_of(features: &LabelledFeatures) -> Result<TrainingTask<'_>, Error> {
    let examples = Examples::new(features.train.view(), &features.train.labels)?;
    let mut task = TrainingTask::new(features.classes.len(), examples)?;
    if !features.train_views.is_empty() {
        task = task.with_views(features.train_views.iter().map(ndarray::Array2::view).collect())?;
    }
    if !features.val.labels.is_empty() {
        let validation = Examples::new(features.val.view(), &features.val.labels)?;
        task = task.with_validation(validation)?;
    }
    Ok(task)
}

pub(super) fn run(arguments: Arguments, context: &Context) -> Result<Ending> {
    catch_interrupts();
    let watch = Stopwatch::start();
    let Arguments {
        dataset,
        output,
        no_calibration,
        selection,
        training,
        many,
        keep,
    } = arguments;
    let from = Start::of(dataset, selection, keep.from.as_deref(), &keep.runs, context)?;
    let spec = match (many.spec()?, from.sweep) {
        (Some(spec), _) => Some(spec),
        // An option that is given takes the place of the axis.
        (None, Some(spec)) => Some(spec.without(&training.given())),
        (None, None) => None,
    };
    let training = training.over(&from.options);
    let keep_heads = many.keep.or(from.keep);
    many.check(&output, spec.is_some())?;
    let plan = match &spec {
        Some(spec) => Plan::of(spec, &training, &from.recipe)?,
        None => Plan::single(&training, &from.recipe)?,
    };
    for note in &plan.notes {
        context.observer.note(note);
    }
    let folds = many.folding(training.seed.unwrap_or(from.recipe.seed), from.folds)?;
    let job = Job {
        dataset: &from.dataset,
        output: &output,
        request: &from.request,
        base: &from.recipe,
        many: &many,
        sweep: spec
            .as_ref()
            .map(|spec| start::sweep_config(spec, &training, &from.recipe, keep_heads)),
        folds: folds.as_ref(),
        kept: keep_heads.map_or(1, many::Keep::limit),
        calibrates: !no_calibration,
        keep: &keep,
        repeated: from.repeated.as_ref(),
        context,
        watch,
    };
    match job.folds {
        Some(folds) => folds::cross_validate(&job, &plan, folds),
        None if job.sweep.is_some() => many::sweep(&job, &plan),
        None => single::train(&job, &plan.combinations[0]),
    }
}
