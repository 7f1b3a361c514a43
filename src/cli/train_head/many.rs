//! Many trainings: the options of a sweep and of folds, the heads that are kept, and what is said in the end.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use clap::Args;
use serde_json::json;

use super::super::output::{Ending, Result, check_output, counted};
use super::super::runs::KeptRun;
use super::board;
use super::data::{check_features, head_file, interval, metrics_of_run};
use super::folds::FoldChoice;
use super::plan::{Combination, DEFAULT_SWEEP, Plan};
use super::report::{Best, Folding, Report};
use super::start::Folds;
use super::{Job, task_of};
use crate::dataset::absolute;
use crate::error::Error;
use crate::features::{LabelledFeatures, labelled_features};
use crate::head::{HeadFile, Training, ValidRecipe, train_all};
use crate::observer::{Observer, Unit};
use crate::runs::RunConfig;
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

Folds: train and val are divided together, test is left alone. Folds have like shares of each class; identical pictures and \
groups (--group-by) stay together. Each fold is validated by the last epoch's head of a training on the others; the error is \
the standard deviation of the folds' accuracies divided by the root of K. The best configuration is then trained on all these \
pictures and saved. A file of folds has the columns path and fold, or fold1, fold2 … for repeats.";

/// Lines of the leaderboard that are printed by default.
const TOP: usize = 20;

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
        SweepSpec::union(specs).map(Some)
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

/// Keeps what came of many trainings as a run; of a sweep, its heads are runs within. Its folder, where it is kept.
fn keep_run(
    job: &Job<'_>,
    features: &LabelledFeatures,
    board: &Leaderboard,
    kept: &[(usize, Training)],
    heads: &[(ValidRecipe, HeadFile)],
    run: KeptRun<'_>,
    mut config: RunConfig,
) -> Result<Option<PathBuf>, Error> {
    let best = metrics_of_run(features, &heads[0].1)?;
    if job.sweep.is_none() {
        return Ok(run.finish(&kept[0].1, &best, &heads[0].1));
    }
    let digits = heads.len().to_string().len();
    for (place, ((_, training), (recipe, head))) in kept.iter().zip(heads).enumerate() {
        let config = RunConfig {
            recipe: recipe.recipe().clone(),
            sweep: None,
            ..config.clone()
        };
        let child = run.child(&format!("{:0digits$}", place + 1), &config);
        child.finish(training, &metrics_of_run(features, head)?, head);
    }
    let leaderboard = json!({ "axes": board.axes, "heads": board.entries });
    config.recipe = heads[0].0.recipe().clone();
    Ok(run.finish_sweep(&config, &board.csv_text()?, &leaderboard, &best))
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
    let (mut run, config) = job.begin_run(&features, job.recipe_of_run(&recipes))?;

    let kept = Kept::new(job.kept);
    let outcomes: Mutex<Vec<Option<Result<Outcome, Error>>>> = Mutex::new(recipes.iter().map(|_| None).collect());
    let observer = &job.context.observer;
    observer.begin("training", Some(recipes.len() as u64), Unit::Heads);
    train_all(&recipes, &task, observer, &|number, trained| {
        let outcome = trained.map(|training| {
            let outcome = Outcome::Trained(standing(&training, &features));
            kept.offer(number, &outcome, training);
            outcome
        });
        outcomes.lock().unwrap_or_else(PoisonError::into_inner)[number] = Some(outcome);
        observer.advance(1);
    });
    observer.end();
    let outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    let entries = plan.combinations.iter().zip(outcomes).enumerate();
    let entries = entries.map(|(number, (combination, outcome))| {
        let outcome = outcome.expect("every training ends");
        entry(number, combination, outcome)
    });
    let entries = run.watch(entries.collect::<Result<_, _>>())?;
    let board = Leaderboard::new(plan.axes.clone(), entries);
    finish(job, plan, &features, board, &kept.into_sorted(), None, (run, config))
}

/// A line of the leaderboard; an interruption is none.
pub(super) fn entry(number: usize, combination: &Combination, outcome: Result<Outcome, Error>) -> Result<Entry, Error> {
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(Error::Interrupted) => return Err(Error::Interrupted),
        Err(error) => Outcome::Failed {
            problem: error.to_string(),
        },
    };
    Ok(Entry {
        rank: None,
        number,
        settings: combination.settings.clone(),
        outcome,
        head: None,
    })
}

fn standing(training: &Training, features: &LabelledFeatures) -> Standing {
    let best = training.best();
    let val_accuracy = best.val_accuracy.unwrap_or(0.0);
    Standing {
        val_accuracy,
        val_accuracy_interval: interval(val_accuracy, features.val.labels.len()),
        val_loss: best.val_loss.unwrap_or(f64::INFINITY),
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

/// Saves the heads that are kept and the leaderboard, and says how it went. `kept`: numbers and trainings, the best first.
pub(super) fn finish(
    job: &Job<'_>,
    plan: &Plan,
    features: &LabelledFeatures,
    mut board: Leaderboard,
    kept: &[(usize, Training)],
    folds: Option<Folding>,
    (run, config): (KeptRun<'_>, RunConfig),
) -> Result<Ending> {
    let failed = board.entries.iter().filter(|entry| entry.rank.is_none());
    let (failures, first) = (failed.clone().count(), failed.map(|entry| entry.outcome.clone()).next());
    let count = board.entries.len();
    if let Some(Outcome::Failed { problem }) = first
        && failures < count
    {
        let warning = format!("{failures} of {} failed, the first: {problem}", counted(count, "head"));
        job.context.observer.warn(&warning);
    }
    let unconverged = board
        .entries
        .iter()
        .filter(|entry| entry.outcome.is_unconverged())
        .count();
    if unconverged > 0 {
        let warning = format!(
            "{unconverged} of {} are not the optimum they look for: raise --max-iterations, or --standardize",
            counted(count, "head")
        );
        job.context.observer.warn(&warning);
    }
    let mut heads = Vec::with_capacity(kept.len());
    for (place, (number, training)) in kept.iter().enumerate() {
        let recipe = plan.combinations[*number].recipe(&features.classes)?;
        let entry = board.entries.iter_mut().find(|entry| entry.number == *number);
        let entry = entry.expect("each training has a line");
        let path = place_of(job.output, place + 1, kept.len());
        let validated = match (folds, &entry.outcome) {
            (Some(folding), Outcome::CrossValidated(validated)) => Some((folding, validated)),
            _ => None,
        };
        let head = head_file(job, features, recipe.recipe(), training, validated)?;
        head.save(&path)?;
        entry.head = Some(path);
        heads.push((recipe, head));
    }
    if let Some(path) = &job.many.leaderboard {
        board.write(path)?;
    }
    let (Some(best), Some((number, training))) = (board.best(), kept.first()) else {
        let problem = match board.entries.first().map(|entry| &entry.outcome) {
            Some(Outcome::Failed { problem }) => problem.clone(),
            _ => String::new(),
        };
        let mut run = run;
        return Ok(run.watch(Err(Error::NoHead { heads: count, problem }))?);
    };
    let seconds = job.start.elapsed().as_secs_f64();
    let kept_run = keep_run(job, features, &board, kept, &heads, run, config)?;
    let (_, head) = &heads[0];
    let mut report = Report::new(job.output, features, training, head, kept_run, seconds);
    if let (Some(folding), Outcome::CrossValidated(result)) = (folds, &best.outcome) {
        report = report.with_folds(folding, result);
    }
    if job.sweep.is_some() {
        report = report.with_sweep(
            &board,
            Best {
                entry: best,
                options: plan.combinations[*number].command_line(),
            },
        );
    }
    if job.context.json {
        report.print_json()?;
        return Ok(Ending::Done);
    }
    let mut out = std::io::stdout().lock();
    if job.sweep.is_some() {
        let top = job.many.top.unwrap_or(TOP);
        for line in board::table(&board, top) {
            writeln!(out, "{line}")?;
        }
        if count > top {
            writeln!(
                out,
                "… {} more: --top N prints and --leaderboard FILE writes them",
                count - top
            )?;
        }
        writeln!(out)?;
    }
    report.print_end(&mut out)?;
    Ok(Ending::Done)
}

/// Where the head of a rank is saved: the best at `output`, the others beside it with their rank in the name.
fn place_of(output: &Path, rank: usize, count: usize) -> PathBuf {
    if rank == 1 {
        return output.to_path_buf();
    }
    let digits = count.to_string().len();
    let stem = output.file_stem().unwrap_or_default().to_string_lossy();
    let name = match output.extension() {
        Some(extension) => format!("{stem}.{rank:0digits$}.{}", extension.to_string_lossy()),
        None => format!("{stem}.{rank:0digits$}"),
    };
    output.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_heads_lie_beside_the_best_in_the_order_of_their_ranks() {
        let place = |output: &str, rank, count| place_of(Path::new(output), rank, count);
        assert_eq!(place("a/head.safetensors", 1, 9), Path::new("a/head.safetensors"));
        assert_eq!(place("a/head.safetensors", 2, 9), Path::new("a/head.2.safetensors"));
        assert_eq!(place("my.head", 12, 300), Path::new("my.012.head"));
        assert_eq!(place("head", 3, 10), Path::new("head.03"));
    }

    #[test]
    fn what_to_keep_is_a_number_or_all() {
        assert_eq!("all".parse(), Ok(Keep::All));
        assert_eq!("3".parse(), Ok(Keep::Best(3)));
        assert!("0".parse::<Keep>().is_err());
        assert!("some".parse::<Keep>().is_err());
    }
}
