//! What `train-head` says at its end, as JSON and as lines.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::super::output::{Result, counted, print_json};
use super::calibration::Calibration;
use super::data::{interval, interval_text};
use super::stopwatch::Seconds;
use crate::dataset::Problems;
use crate::features::LabelledFeatures;
use crate::head::{Convergence, EpochRecord, Recipe, Solver, Training};
use crate::sweep::{Counts, CrossValidation, Entry, Leaderboard};

/// The command's JSON. Of a sweep, the head is the best one.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    head: &'a Path,
    epochs: usize,
    best_epoch: usize,
    val_accuracy: Option<f64>,
    val_accuracy_interval: Option<[f64; 2]>,
    val_loss: Option<f64>,
    train_accuracy: f64,
    train_accuracy_interval: [f64; 2],
    train_loss: f64,
    history: &'a [EpochRecord],
    #[serde(skip_serializing_if = "Option::is_none")]
    convergence: Option<&'a Convergence>,
    temperature: f64,
    /// How the temperature came about.
    calibration: Value,
    /// The folder of the run, where it is kept.
    run: Option<PathBuf>,
    #[serde(flatten)]
    seconds: Seconds,
    classes: &'a [String],
    space: String,
    train_images: usize,
    val_images: usize,
    failed_images: usize,
    unlabelled_images: usize,
    problems: &'a Problems,
    #[serde(flatten)]
    folds: Option<FoldsReport<'a>>,
    #[serde(flatten)]
    sweep: Option<SweepReport<'a>>,
}

/// How often the pictures were divided, and into how many folds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Folding {
    pub(super) folds: usize,
    pub(super) repeats: usize,
}

/// What a cross-validation adds.
#[derive(Debug, Serialize)]
struct FoldsReport<'a> {
    #[serde(flatten)]
    folding: Folding,
    #[serde(flatten)]
    result: &'a CrossValidation,
}

/// What a sweep adds.
#[derive(Debug, Serialize)]
struct SweepReport<'a> {
    #[serde(flatten)]
    counts: SweepCounts,
    best: Best<'a>,
    leaderboard: &'a [Entry],
}

/// How far a sweep came.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct SweepCounts {
    /// Configurations that were asked for.
    heads: usize,
    /// Of these, those that have a place on the leaderboard.
    trained_heads: usize,
    /// Those that came to nothing, because their loss became infinite or for another reason.
    failed_heads: usize,
    diverged_heads: usize,
    /// Whether it was stopped before it had tried all.
    interrupted: bool,
}

impl SweepCounts {
    pub(super) fn new(counts: Counts, interrupted: bool) -> Self {
        Self {
            heads: counts.all(),
            trained_heads: counts.trained,
            failed_heads: counts.failed(),
            diverged_heads: counts.diverged,
            interrupted,
        }
    }

    /// `18 heads`, `18 heads (2 diverged, 1 failed)`, `7 heads of 18 (interrupted)`.
    pub(super) fn text(&self) -> String {
        let tried = self.trained_heads + self.failed_heads;
        let mut text = counted(tried, "head");
        if tried < self.heads {
            text = format!("{text} of {}", self.heads);
        }
        let others = self.failed_heads - self.diverged_heads;
        let counts = [(self.diverged_heads, "diverged"), (others, "failed")];
        let mut aside: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if self.interrupted {
            aside.push("interrupted".to_owned());
        }
        if !aside.is_empty() {
            text = format!("{text} ({})", aside.join(", "));
        }
        text
    }
}

/// The best of a sweep.
#[derive(Debug, Serialize)]
pub(super) struct Best<'a> {
    #[serde(flatten)]
    pub(super) entry: &'a Entry,
    /// The options that alone give this head.
    pub(super) options: Vec<String>,
}

impl<'a> Report<'a> {
    pub(super) fn new(
        head: &'a Path,
        features: &'a LabelledFeatures,
        trained: &'a Training,
        calibration: Calibration,
        run: Option<PathBuf>,
        seconds: Seconds,
    ) -> Self {
        let best = trained.best();
        let (train_images, val_images) = (features.train.labels.len(), features.val.labels.len());
        Self {
            head,
            epochs: trained.history.len(),
            best_epoch: best.epoch,
            val_accuracy: best.val_accuracy,
            val_accuracy_interval: best.val_accuracy.map(|accuracy| interval(accuracy, val_images)),
            val_loss: best.val_loss,
            train_accuracy: best.train_accuracy,
            train_accuracy_interval: interval(best.train_accuracy, train_images),
            train_loss: best.train_loss,
            history: &trained.history,
            convergence: trained.convergence.as_ref(),
            temperature: calibration.temperature(),
            calibration: calibration.to_json(),
            run,
            seconds,
            classes: &features.classes,
            space: features.space.id().to_string(),
            train_images,
            val_images,
            failed_images: features.failed_images,
            unlabelled_images: features.unlabelled_images,
            problems: &features.problems,
            folds: None,
            sweep: None,
        }
    }

    pub(super) fn with_folds(mut self, folding: Folding, result: &'a CrossValidation) -> Self {
        self.folds = Some(FoldsReport { folding, result });
        self
    }

    pub(super) fn with_sweep(mut self, leaderboard: &'a Leaderboard, counts: SweepCounts, best: Best<'a>) -> Self {
        self.sweep = Some(SweepReport {
            counts,
            best,
            leaderboard: &leaderboard.entries,
        });
        self
    }

    pub(super) fn print_json(&self) -> Result<()> {
        print_json(self)
    }

    /// The last lines.
    pub(super) fn print_end(&self, out: &mut impl Write) -> Result<()> {
        if let (Some(folds), None) = (&self.folds, &self.sweep) {
            let per_repeat = folds.folding.folds;
            for (index, accuracy) in folds.result.fold_accuracy.iter().enumerate() {
                let (repeat, fold) = (index / per_repeat + 1, index % per_repeat + 1);
                let repeat = match folds.folding.repeats {
                    1 => String::new(),
                    repeats => format!("repeat {repeat}/{repeats} "),
                };
                writeln!(out, "{repeat}fold {fold}/{per_repeat} Acc: {accuracy:.4}")?;
            }
        }
        writeln!(
            out,
            "Training complete in {:.0}m {:.0}s",
            (self.seconds.all / 60.0).floor(),
            self.seconds.all % 60.0
        )?;
        if let (Some(accuracy), Some(interval)) = (self.val_accuracy, self.val_accuracy_interval) {
            let interval = interval_text(interval);
            // A solver that goes to the optimum has no epochs to choose from.
            match self.convergence {
                None => writeln!(
                    out,
                    "Best val Acc: {accuracy:.4}  (epoch {}, {interval})",
                    self.best_epoch
                )?,
                Some(_) => writeln!(out, "val Acc: {accuracy:.4}  ({interval})")?,
            }
        }
        if let Some(FoldsReport { result, .. }) = &self.folds {
            let (mean, error, interval) = (
                result.mean_accuracy,
                result.standard_error,
                interval_text(result.accuracy_interval),
            );
            writeln!(out, "Mean Acc: {mean:.4} ± {error:.4}  ({interval})")?;
        }
        if let Some(SweepReport { counts, best, .. }) = &self.sweep {
            writeln!(out, "best of {}: {}", counts.text(), best.options.join(" "))?;
        }
        if let Some(convergence) = self.convergence {
            writeln!(
                out,
                "{} after {} iterations, gradient {:.1e}",
                if convergence.converged {
                    "converged"
                } else {
                    "not converged"
                },
                convergence.iterations,
                convergence.gradient_norm
            )?;
        }
        let whole = if self.folds.is_some() {
            format!("  (trained on all {})", counted(self.train_images, "picture"))
        } else {
            String::new()
        };
        let temperature = match self.temperature {
            1.0 => String::new(),
            temperature => format!("  (temperature {temperature:.3})"),
        };
        writeln!(out, "head: {}{whole}{temperature}", self.head.display())?;
        if let Some(run) = &self.run {
            writeln!(out, "run: {}", run.display())?;
        }
        Ok(out.flush()?)
    }
}

/// The lines of one epoch, as a training script prints them.
pub(super) fn print_epoch(out: &mut impl Write, record: &EpochRecord, recipe: &Recipe) -> std::io::Result<()> {
    // A solver that goes to the optimum has no epochs.
    if let Solver::Descent(descent) = &recipe.solver {
        writeln!(out, "Epoch {}/{}", record.epoch, descent.epochs - 1)?;
        writeln!(out, "----------")?;
    }
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
