//! One training, told epoch by epoch.

use super::super::output::{Ending, Result};
use super::Job;
use super::data::{check_features, head_file};
use super::plan::Combination;
use super::report::{Report, print_epoch};
use crate::features::labelled_features;
use crate::head::{Examples, Solver, TrainingTask};
use crate::observer::Observer;

/// Trains a head on the features of the data set, prints how it goes, and saves it.
pub(super) fn train(job: &Job<'_>, combination: &Combination) -> Result<Ending> {
    let context = job.context;
    let features = labelled_features(&context.cache, job.dataset, job.request)?;
    check_features(job.dataset, &features, context)?;
    let recipe = combination.recipe(&features.classes)?;
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
    let epochs = match &recipe.recipe().solver {
        Solver::Descent(descent) => descent.epochs,
        _ => 1,
    };
    let trained = recipe.train(&task, &context.observer, &mut |record| {
        if !context.json && printed.is_ok() {
            printed = print_epoch(&mut out, record, epochs);
        }
    })?;
    let seconds = job.start.elapsed().as_secs_f64();
    if let Some(note) = trained
        .convergence
        .as_ref()
        .and_then(|convergence| convergence.note.as_ref())
    {
        context.observer.warn(note);
    }
    // The head is what the command is for, also for someone who reads only the first lines (`… | head`).
    head_file(&features, job.request, recipe.recipe(), &trained, None)?.save(job.output)?;
    printed?;

    let report = Report::new(job.output, &features, &trained, seconds);
    if context.json {
        drop(out);
        report.print_json()?;
    } else {
        report.print_end(&mut out)?;
    }
    Ok(Ending::Done)
}
