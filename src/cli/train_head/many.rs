//! Many trainings: the options of a sweep and of folds, the heads that are kept, and what is said in the end.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use clap::Args;

use super::super::output::{Ending, Result, check_output};
use super::calibration::Calibration;
use super::data::{check_features, interval};
use super::ending;
use super::folds::FoldChoice;
use super::plan::{Combination, DEFAULT_SWEEP, Plan};
use super::start::Folds;
use super::weights::NamedWeights;
use super::{Job, task_of};
use crate::dataset::absolute;
use crate::error::Error;
use crate::features::{LabelledFeatures, labelled_features};
use crate::head::{Training, train_all};
use crate::observer::{Observer, Unit};
use crate::sweep::{BoardFormat, Entry, Leaderboard, Outcome, Standing, SweepSpec};

#[derive(Debug, Args)]
#[command(next_help_heading = "Many trainings")]
pub(super) struct ManyArguments {
    /// Train all combinations: lr=1e-4..1e-1:log8,momentum=0,0.9,seed=0..4, or `default`
    #[arg(long, value_name = "SPEC")]
    sweep: Vec<String>,
    /// The same from a TOML file
    #[arg(long, value_name = "FILE.toml")]
    sweep_file: Option<PathBuf>,
    /// Heads of a sweep to save, the best first, beside --output: a number or `all` [default: 1]
    #[arg(long, value_name = "N|all")]
    pub(super) keep: Option<Keep>,
    /// Write the whole leaderboard
    #[arg(long, value_name = "FILE.csv|.json")]
    pub(super) leaderboard: Option<PathBuf>,
    /// Lines of the leaderboard to print [default: 20]
    #[arg(long, value_name = "N")]
    pub(super) top: Option<usize>,
    /// Validate on each of K folds of train and val together, or on those of a CSV file
    #[arg(long, value_name = "K|FILE.csv")]
    pub(super) folds: Option<FoldChoice>,
    /// Fold anew so many times
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) repeats: Option<u32>,
    /// Write which picture validates in which fold
    #[arg(long, value_name = "FILE.csv")]
    pub(super) folds_file: Option<PathBuf>,
}

/// What the options' own lines have no room for.
pub(super) const HELP: &str = "\
Solvers: sgd is mini-batch gradient descent with momentum, as in PyTorch's transfer-learning tutorial; adamw is Adam with \
decoupled weight decay; lbfgs finds the optimum of the penalised loss, as scikit-learn's LogisticRegression; linfa is the \
same by linfa-logistic, checked.

Sweeps: axes are joined with commas and named as the options of the training; the values of an axis are
  lr=0.1,0.01            as they are written
  lr=1e-4..1e-1:log8     8 points from end to end in equal ratios; lin8 for equal steps
  seed=0..4              whole numbers, both ends included
  milestones=[5,10],[8]  in brackets, where a value has commas
A combination does without the axes that its solver or schedule does not read. Of several sweeps all are trained. `default` \
is solver=lbfgs,standardize=false,true,C=1e-4..1e2:log7 and solver=sgd,lr=1e-4..1e-1:log4. In a file each key is an axis \
(lr = [0.1, 0.01], C = \"1e-4..1e2:log7\"), each table a grid of its own, and what stands above the tables goes for each. The \
best head has the highest accuracy on the validation pictures, then the lowest loss.

Class weights: CLASS=W,… leaves the other classes at 1. A name with a comma, a quote or a bracket stands in quotes, which the \
shell must be kept from: '\"Maine, Coon\"=2,Ragdoll=1'. @FILE reads them from a file, TOML with a line \"Maine, Coon\" = 2 for \
each class, or the same as JSON.

Folds: train and val are divided together, test is left alone. Folds have like shares of each class; identical pictures and \
groups (--group-by) stay together. Each fold is validated by the last epoch's head of a training on the others; the error is \
the standard deviation of the folds' accuracies divided by the root of K. The best configuration is then trained on all these \
pictures and saved. A file of folds has the columns path and fold, or fold1, fold2 … for repeats.";

/// Logits of the validation pictures that every core may have a copy of: 8 MiB.
const FEW_LOGITS: usize = 1 << 20;

/// Held by whoever calibrates on more.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// How many heads of a sweep are saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    All,
    Best(usize),
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("all", _) => Ok(Self::All),
            (_, Ok(count)) if count > 0 => Ok(Self::Best(count)),
            _ => Err("write `all`, or a number of heads, 1 or more".to_owned()),
        }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => formatter.write_str("all"),
            Self::Best(count) => write!(formatter, "{count}"),
        }
    }
}

impl Keep {
    pub(super) fn limit(self) -> usize {
        match self {
            Self::All => usize::MAX,
            Self::Best(count) => count,
        }
    }
}

impl ManyArguments {
    /// The sweep that is asked for, if one is.
    pub(super) fn spec(&self) -> Result<Option<SweepSpec>, Error> {
        let mut specs = Vec::new();
        for text in &self.sweep {
            if text.trim() == "default" {
                for text in DEFAULT_SWEEP {
                    specs.push(SweepSpec::parse(text)?);
                }
            } else {
                specs.push(SweepSpec::parse(text)?);
            }
        }
        if let Some(file) = &self.sweep_file {
            specs.push(SweepSpec::read(file)?);
        }
        if specs.is_empty() {
            return Ok(None);
        }
        let mut spec = SweepSpec::union(specs)?;
        // A file may say something else when the run is repeated, so its weights take its place.
        let axes = spec.grids.iter_mut().flat_map(|grid| &mut grid.axes);
        for axis in axes.filter(|axis| axis.name == "class-weights") {
            for place in 0..axis.values.len() {
                if axis.values[place].starts_with('@') {
                    let read = axis.values[place].parse::<NamedWeights>();
                    let hint =
                        "`--class-weights @FILE` takes TOML with a line `CLASS = WEIGHT` for each class, or JSON";
                    axis.values[place] = read
                        .map_err(|problem| axis.error(problem, hint.to_owned()))?
                        .to_string();
                }
            }
        }
        Ok(Some(spec))
    }

    /// The folds that are asked for, or else those of the run that is repeated. `seed`: what they are drawn from.
    ///
    /// # Errors
    /// [`Error::Usage`] for `--repeats` of a file's folds, and options of folds where there are none.
    pub(super) fn folding(&self, seed: u64, repeated: Option<Folds>) -> Result<Option<Folds>, Error> {
        let Some(choice) = &self.folds else {
            if repeated.is_none() && (self.repeats.is_some() || self.folds_file.is_some()) {
                return Err(Error::Usage(
                    "--repeats and --folds-file are about folds: give --folds too".to_owned(),
                ));
            }
            return Ok(repeated.map(|folds| Folds {
                repeats: self.repeats.unwrap_or(folds.repeats),
                ..folds
            }));
        };
        if matches!(choice, FoldChoice::File(_)) && self.repeats.is_some() {
            return Err(Error::Usage(
                "--repeats folds anew, but the file of --folds says which folds there are: leave one of them out"
                    .to_owned(),
            ));
        }
        let choice = match choice {
            FoldChoice::File(path) => FoldChoice::File(absolute(path)?),
            FoldChoice::Count(folds) => FoldChoice::Count(*folds),
        };
        Ok(Some(Folds {
            choice,
            repeats: self.repeats.unwrap_or(1),
            seed,
        }))
    }

    /// Refuses what would be found wrong only after the training. `output`: the head file.
    pub(super) fn check(&self, output: &Path, sweeps: bool) -> Result<(), Error> {
        if let Some(path) = &self.leaderboard {
            BoardFormat::of(path)?;
        }
        let files = [Some(output), self.leaderboard.as_deref(), self.folds_file.as_deref()];
        for path in files.into_iter().flatten() {
            check_output(path)?;
        }
        let many = [
            ("--keep", self.keep.is_some()),
            ("--top", self.top.is_some()),
            ("--leaderboard", self.leaderboard.is_some()),
        ];
        match many.iter().find(|(_, given)| *given && !sweeps) {
            Some((option, _)) => Err(Error::Usage(format!(
                "{option} is about many trainings: give --sweep or --sweep-file too"
            ))),
            None => Ok(()),
        }
    }
}

/// The best of many trainings, as they come in.
pub(super) struct Kept {
    limit: usize,
    kept: Mutex<Vec<(usize, Outcome, Training)>>,
}

/// Trains every combination of `plan`, ranks them on the validation pictures, and saves the best.
pub(super) fn sweep(job: &Job<'_>, plan: &Plan) -> Result<Ending> {
    let features = labelled_features(&job.context.cache, job.dataset, job.request)?;
    check_features(job.dataset, &features, job.context)?;
    if features.val.labels.is_empty() {
        return Err(Error::Dataset {
            path: job.dataset.to_path_buf(),
            problem: "has no validation picture, so nothing tells which head of a sweep is the best".to_owned(),
            hint: "give `--val-fraction` above 0, or validate on folds of the training pictures: `--folds 5`"
                .to_owned(),
        }
        .into());
    }
    let recipes = plan.recipes(&features.classes)?;
    let task = task_of(&features)?;
    let (run, config) = job.begin_run(&features, job.recipe_of_run(&recipes))?;

    let kept = Kept::new(job.kept);
    let outcomes: Mutex<Vec<Option<Result<Outcome, Error>>>> = Mutex::new(recipes.iter().map(|_| None).collect());
    let observer = &job.context.observer;
    observer.begin("training", Some(recipes.len() as u64), Unit::Heads);
    let on_trained = |number: usize, trained: Result<Training, Error>| {
        let outcome = trained.map(|training| {
            let outcome = Outcome::Trained(standing(job, &training, &features));
            kept.offer(number, &outcome, training);
            outcome
        });
        outcomes.lock().unwrap_or_else(PoisonError::into_inner)[number] = Some(outcome);
        observer.advance(1);
    };
    job.watch.training(|| train_all(&recipes, &task, observer, &on_trained));
    observer.end();
    let outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    let entries = plan.combinations.iter().zip(outcomes).enumerate();
    let entries = entries.map(|(number, (combination, outcome))| {
        let outcome = outcome.expect("every training ends");
        entry(number, combination, outcome)
    });
    let board = Leaderboard::new(plan.axes.clone(), entries.collect());
    ending::finish(job, plan, &features, board, &kept.into_sorted(), None, (run, config))
}

/// A line of the leaderboard.
pub(super) fn entry(number: usize, combination: &Combination, outcome: Result<Outcome, Error>) -> Entry {
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(Error::Interrupted) => Outcome::NotTrained,
        Err(error) => Outcome::Failed {
            problem: error.to_string(),
            diverged: matches!(error, Error::Diverged { .. }),
        },
    };
    Entry {
        rank: None,
        number,
        settings: combination.settings.clone(),
        outcome,
        head: None,
    }
}

fn standing(job: &Job<'_>, training: &Training, features: &LabelledFeatures) -> Standing {
    let best = training.best();
    let calibrated = || match Calibration::of(job, features, &training.head) {
        Ok(Calibration::Fitted(fit)) => Some(fit.loss_after),
        _ => None,
    };
    // Trainings end on all cores at once, and this copies all logits in f64.
    let calibrated_val_loss = if features.val.labels.len() * features.classes.len() > FEW_LOGITS {
        let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        calibrated()
    } else {
        calibrated()
    };
    let val_accuracy = best.val_accuracy.unwrap_or(0.0);
    Standing {
        val_accuracy,
        val_accuracy_interval: interval(val_accuracy, features.val.labels.len()),
        val_loss: best.val_loss.unwrap_or(f64::INFINITY),
        calibrated_val_loss,
        train_accuracy: best.train_accuracy,
        train_loss: best.train_loss,
        best_epoch: best.epoch,
        epochs: training.history.len(),
        converged: training.convergence.as_ref().map(|convergence| convergence.converged),
    }
}

impl Kept {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            kept: Mutex::default(),
        }
    }

    /// Keeps a training if it is one of the best so far. In which order they come changes nothing.
    fn offer(&self, number: usize, outcome: &Outcome, training: Training) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let place =
            kept.partition_point(|(other, standing, _)| standing.compare(outcome).then(other.cmp(&number)).is_lt());
        if place < self.limit {
            kept.insert(place, (number, outcome.clone(), training));
            kept.truncate(self.limit);
        }
    }

    /// The trainings with their numbers, the best first.
    fn into_sorted(self) -> Vec<(usize, Training)> {
        let kept = self.kept.into_inner().unwrap_or_else(PoisonError::into_inner);
        kept.into_iter()
            .map(|(number, _, training)| (number, training))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_keep_is_a_number_or_all() {
        assert_eq!("all".parse(), Ok(Keep::All));
        assert_eq!("3".parse(), Ok(Keep::Best(3)));
        assert!("0".parse::<Keep>().is_err());
        assert!("some".parse::<Keep>().is_err());
    }
}
