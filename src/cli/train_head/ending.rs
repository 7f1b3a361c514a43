//! The end of many trainings, whole or stopped: heads and leaderboard are saved, the run is closed, and it is said how it went.

use std::io::Write;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::super::output::{Ending, Result, counted, print_json};
use super::super::runs::KeptRun;
use super::data::{cross_validation_of, head_file, metrics_of_run};
use super::plan::Plan;
use super::report::{Best, Folding, Report, SweepCounts};
use super::{Job, board, calibration, kept_files};
use crate::error::Error;
use crate::features::LabelledFeatures;
use crate::head::{HeadFile, Training, ValidRecipe};
use crate::observer::Observer;
use crate::runs::RunConfig;
use crate::sweep::{Counts, Leaderboard, Outcome};

/// Lines of the leaderboard that are printed by default.
const TOP: usize = 20;

/// Saves the heads that are kept and the leaderboard, and says how it went. `kept`: numbers and trainings, the best first;
/// none where the sweep was stopped before a head for saving was trained.
pub(super) fn finish(
    job: &Job<'_>,
    plan: &Plan,
    features: &LabelledFeatures,
    mut board: Leaderboard,
    kept: &[(usize, Training)],
    folds: Option<Folding>,
    (mut run, config): (KeptRun<'_>, RunConfig),
) -> Result<Ending> {
    let counts = board.counts();
    if counts.trained + counts.failed() == 0 {
        return Ok(run.watch(Err(Error::Interrupted))?);
    }
    let interruption = interruption(&counts, kept);
    tell(job, &board, counts);
    let mut heads = Vec::with_capacity(kept.len());
    let mut calibrations = Vec::with_capacity(kept.len());
    for (place, (number, training)) in kept.iter().enumerate() {
        let recipe = plan.combinations[*number].recipe(&features.classes)?;
        let entry = board.entries.iter_mut().find(|entry| entry.number == *number);
        let entry = entry.expect("each training has a line");
        let path = kept_files::place_of(job.output, place + 1, kept.len());
        let validated = match (folds, &entry.outcome) {
            (Some(folding), Outcome::CrossValidated(validated)) => Some((folding, validated)),
            _ => None,
        };
        let (head, calibration) = head_file(job, features, recipe.recipe(), training, validated)?;
        head.save(&path)?;
        entry.head = Some(path);
        heads.push((recipe, head));
        calibrations.push(calibration);
    }
    calibration::tell(&calibrations, &job.context.observer);
    if job.sweep.is_some() && !kept.is_empty() {
        kept_files::clear(job.output, kept.len(), &job.keep.runs, &job.context.observer);
    }
    if let Some(path) = &job.many.leaderboard {
        board.write(path)?;
    }
    let Some(best) = board.best() else {
        let problem = match board.entries.first().map(|entry| &entry.outcome) {
            Some(Outcome::Failed { problem, .. }) => problem.clone(),
            _ => String::new(),
        };
        let error = match interruption {
            Some(_) => Error::Interrupted,
            None => Error::NoHead {
                heads: counts.all(),
                problem,
            },
        };
        return Ok(run.watch(Err(error))?);
    };
    let seconds = job.watch.seconds();
    let kept_run = keep_run(
        job,
        features,
        &board,
        kept,
        &heads,
        (folds, interruption.as_deref()),
        (run, config),
    )?;
    let sweep_counts = SweepCounts::new(counts, interruption.is_some());
    let number = best.number;
    let best = Best {
        entry: best,
        options: plan.combinations[number].command_line(),
    };
    let (Some((_, training)), Some(calibration)) = (kept.first(), calibrations.first()) else {
        return end_without_head(job, &board, sweep_counts, &best, kept_run);
    };
    let mut report = Report::new(job.output, features, training, *calibration, kept_run, seconds);
    if let (Some(folding), Outcome::CrossValidated(result)) = (folds, &best.entry.outcome) {
        report = report.with_folds(folding, result);
    }
    if job.sweep.is_some() {
        report = report.with_sweep(&board, sweep_counts, best);
    }
    if job.context.json {
        report.print_json()?;
    } else {
        let mut out = std::io::stdout().lock();
        if job.sweep.is_some() {
            print_board(job, &board, &mut out)?;
        }
        report.print_end(&mut out)?;
    }
    Ok(end_of(job, interruption.as_deref(), "the best of these is saved"))
}

/// How far a sweep came that was stopped; `None` of one that came to its end.
fn interruption(counts: &Counts, kept: &[(usize, Training)]) -> Option<String> {
    let tried = counts.trained + counts.failed();
    if counts.not_trained > 0 {
        return Some(format!("{tried} of {} were trained", counted(counts.all(), "head")));
    }
    let no_head = kept.is_empty() && counts.trained > 0;
    no_head.then(|| "every configuration was validated, but none trained on all pictures".to_owned())
}

/// Says what came of an interrupted sweep, if it was one.
fn end_of(job: &Job<'_>, interruption: Option<&str>, saved: &str) -> Ending {
    let Some(problem) = interruption else {
        return Ending::Done;
    };
    let text = format!("interrupted: {problem}, {saved}; give the same command again to train all");
    job.context.observer.warn(&text);
    Ending::Interrupted
}

/// Warns of what came to nothing, or not to its end.
fn tell(job: &Job<'_>, board: &Leaderboard, counts: Counts) {
    let tried = counted(counts.trained + counts.failed(), "head");
    let first = board.entries.iter().find_map(|entry| match &entry.outcome {
        Outcome::Failed { problem, .. } => Some(problem),
        _ => None,
    });
    if let Some(problem) = first.filter(|_| counts.trained > 0) {
        let warning = format!("{} of {tried} failed, the first: {problem}", counts.failed());
        job.context.observer.warn(&warning);
    }
    let unconverged = board.entries.iter().filter(|entry| entry.outcome.is_unconverged());
    let unconverged = unconverged.count();
    if unconverged > 0 {
        let warning = format!(
            "{unconverged} of {tried} are not the optimum they look for: raise --max-iterations, or --standardize"
        );
        job.context.observer.warn(&warning);
    }
}

/// Keeps what came of many trainings as a run; of a sweep, its heads are runs within. Its folder, where it is kept.
fn keep_run(
    job: &Job<'_>,
    features: &LabelledFeatures,
    board: &Leaderboard,
    kept: &[(usize, Training)],
    heads: &[(ValidRecipe, HeadFile)],
    (folds, interruption): (Option<Folding>, Option<&str>),
    (run, mut config): (KeptRun<'_>, RunConfig),
) -> Result<Option<PathBuf>, Error> {
    let counts = board.counts();
    let mark = |mut metrics: Value| {
        // What was chosen from a part of the sweep is told from what was chosen from all of it.
        if interruption.is_some() {
            metrics["sweep"] = json!({
                "heads": counts.all(),
                "trained_heads": counts.trained,
                "failed_heads": counts.failed(),
                "interrupted": true,
            });
        }
        metrics
    };
    let best = match (heads.first(), folds, board.best().map(|best| &best.outcome)) {
        (Some((_, head)), ..) => metrics_of_run(features, head)?,
        (None, Some(folding), Some(Outcome::CrossValidated(validated))) => {
            json!({ "cross_validation": cross_validation_of(folding, validated) })
        }
        (None, ..) => json!({}),
    };
    if job.sweep.is_none() {
        let whole = kept.first().zip(heads.first());
        return Ok(whole.and_then(|((_, training), (_, head))| run.finish(training, &best, head)));
    }
    let digits = heads.len().to_string().len();
    for (place, ((_, training), (recipe, head))) in kept.iter().zip(heads).enumerate() {
        let config = RunConfig {
            recipe: recipe.recipe().clone(),
            sweep: None,
            ..config.clone()
        };
        let child = run.child(&format!("{:0digits$}", place + 1), &config);
        child.finish(training, &mark(metrics_of_run(features, head)?), head);
    }
    let leaderboard = json!({ "axes": board.axes, "heads": board.entries });
    if let Some((recipe, _)) = heads.first() {
        config.recipe = recipe.recipe().clone();
    }
    Ok(run.finish_sweep(&config, &board.csv_text()?, &leaderboard, &mark(best), interruption))
}

/// Ends a sweep over folds that was stopped before its best configuration had trained on all pictures.
fn end_without_head(
    job: &Job<'_>,
    board: &Leaderboard,
    counts: SweepCounts,
    best: &Best<'_>,
    run: Option<PathBuf>,
) -> Result<Ending> {
    let options = best.options.join(" ");
    if job.context.json {
        let mut report = json!(counts);
        report["head"] = Value::Null;
        report["run"] = json!(run);
        report["best"] = json!(best);
        report["leaderboard"] = json!(board.entries);
        print_json(&report)?;
    } else {
        let mut out = std::io::stdout().lock();
        print_board(job, board, &mut out)?;
        writeln!(out, "best of {}: {options}", counts.text())?;
        if let Some(run) = &run {
            writeln!(out, "run: {}", run.display())?;
        }
        out.flush()?;
    }
    let problem = interruption(&board.counts(), &[]);
    Ok(end_of(job, problem.as_deref(), "and no head is saved"))
}

fn print_board(job: &Job<'_>, board: &Leaderboard, out: &mut impl Write) -> Result<()> {
    let top = job.many.top.unwrap_or(TOP);
    for line in board::table(board, top) {
        writeln!(out, "{line}")?;
    }
    let counts = board.counts();
    let tried = counts.trained + counts.failed();
    if tried > top {
        writeln!(
            out,
            "… {} more: --top N prints and --leaderboard FILE writes them",
            tried - top
        )?;
    }
    writeln!(out)?;
    Ok(())
}
