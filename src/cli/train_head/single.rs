//! One training, told epoch by epoch.

use super::super::output::{Ending, Result};
use super::calibration;
use super::data::{check_features, head_file, metrics_of_run};
use super::plan::Combination;
use super::report::{Report, print_epoch};
use super::{Job, task_of};
use crate::features::labelled_features;
use crate::observer::Observer;

/// Trains a head on the features of the data set, prints how it goes, and saves it.
pub(super) fn train(job: &Job<'_>, combination: &Combination) -> Result<Ending> {
    let context = job.context;
    let features = labelled_features(&context.cache, job.dataset, job.request)?;
    check_features(job.dataset, &features, context)?;
    let recipe = combination.recipe(&features.classes)?;
    let task = task_of(&features)?;
    if features.val.labels.is_empty() {
        context
            .observer
            .warn("there is no validation picture: the last epoch is kept, whatever it is worth, and no temperature is fitted");
    }
    let (mut run, _) = job.begin_run(&features, recipe.recipe())?;

    let mut out = std::io::stdout().lock();
    let mut printed = Ok(());
    let trained = job.watch.training(|| {
        recipe.train(&task, &context.observer, &mut |record| {
            if !context.json && printed.is_ok() {
                printed = print_epoch(&mut out, record, recipe.recipe());
            }
        })
    });
    let trained = run.watch(trained)?;
    let seconds = job.watch.seconds();
    if let Some(note) = trained
        .convergence
        .as_ref()
        .and_then(|convergence| convergence.note.as_ref())
    {
        context.observer.warn(note);
    }
    // The head is what the command is for, also for someone who reads only the first lines (`… | head`).
    let (head, calibration) = head_file(job, &features, recipe.recipe(), &trained, None)?;
    head.save(job.output)?;
    calibration::tell(&[calibration], &context.observer);
    let kept = run.finish(&trained, &metrics_of_run(&features, &head)?, &head);
    printed?;

    let report = Report::new(job.output, &features, &trained, calibration, kept, seconds);
    if context.json {
        drop(out);
        report.print_json()?;
    } else {
        report.print_end(&mut out)?;
    }
    Ok(Ending::Done)
}
