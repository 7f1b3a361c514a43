//! Cross-validation: every configuration on every fold, then the best of them on all pictures.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use ndarray::Axis;
use serde::{Deserialize, Serialize};

use super::super::output::{Ending, Result};
use super::data::check_features;
use super::ending;
use super::fold_file;
use super::many;
use super::plan::Plan;
use super::report::Folding;
use super::start::Folds;
use super::{Job, task_of};
use crate::dataset::{assign_folds, thin_classes};
use crate::error::Error;
use crate::features::{LabelledFeatures, PooledFeatures, pooled_features};
use crate::head::{
    Examples, Load, Schedule, Score, Solver, Training, TrainingTask, ValidRecipe, side_by_side, train_all,
};
use crate::observer::{Observer, Unit};
use crate::runs::FOLDS;
use crate::sweep::{CrossValidation, Leaderboard, Outcome};

/// `--folds`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FoldChoice {
    Count(usize),
    File(PathBuf),
}

impl FromStr for FoldChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(count) if count >= 2 => Ok(Self::Count(count)),
            Ok(_) => Err("there must be at least 2 folds".to_owned()),
            Err(_) if text.to_ascii_lowercase().ends_with(".csv") => Ok(Self::File(text.into())),
            Err(_) => Err("write a number of folds, or a .csv file that names them".to_owned()),
        }
    }
}

/// In which fold each picture validates, for each repeat; `None` where it always trains.
struct Assignments {
    folds: usize,
    /// `[repeats][pictures]`.
    of_repeats: Vec<Vec<Option<usize>>>,
}

/// Trains every combination of `plan` on every fold, ranks them, trains the best on all pictures, and saves it.
pub(super) fn cross_validate(job: &Job<'_>, plan: &Plan, folds: &Folds) -> Result<Ending> {
    let pooled = pooled_features(&job.context.cache, job.dataset, job.request).map_err(|error| match error {
        Error::NoViews { .. } if !job.request.views.is_empty() => Error::Usage(format!(
            "{error}; folds train on the validation pictures too, and `extract --views` stores views of training pictures only: \
             leave out --views or --folds, or give `extract` the pictures in folders without splits"
        )),
        other => other,
    })?;
    let features = &pooled.features;
    check_features(job.dataset, features, job.context)?;
    let recipes = plan.recipes(&features.classes)?;
    recipes.iter().try_for_each(needs_no_validation)?;
    let assignments = assign(job, &pooled, folds)?;
    if let Some(path) = &job.many.folds_file {
        fold_file::write(path, &pooled, &assignments.of_repeats)?;
    }
    let folding = Folding {
        folds: assignments.folds,
        repeats: assignments.of_repeats.len(),
    };
    let (mut run, config) = job.begin_run(features, job.recipe_of_run(&recipes))?;
    run.attach(FOLDS, &fold_file::text(&pooled, &assignments.of_repeats)?);
    let outcomes = job.watch.training(|| validate(job, features, &recipes, &assignments));
    let outcomes = run.watch(outcomes)?;
    let entries = plan.combinations.iter().zip(outcomes).enumerate();
    let entries = entries.map(|(number, (combination, scores))| {
        // A configuration of which a fold is missing was not tried.
        let outcome = scores.map(|trained| {
            let unconverged = trained.iter().filter(|(_, converged)| !converged).count();
            let scores: Vec<Score> = trained.into_iter().map(|(score, _)| score).collect();
            Outcome::CrossValidated(CrossValidation::of(&scores, folding.repeats, unconverged))
        });
        many::entry(number, combination, outcome)
    });
    let board = Leaderboard::new(plan.axes.clone(), entries.collect());
    let kept = match job.watch.training(|| train_best(job, features, &recipes, &board)) {
        // What was learnt of a sweep's configurations is told all the same.
        Err(Error::Interrupted) if job.sweep.is_some() => Vec::new(),
        kept => run.watch(kept)?,
    };
    ending::finish(job, plan, features, board, &kept, Some(folding), (run, config))
}

/// Refuses what looks at validation pictures while it trains: those of a fold shall judge only, and in the end all train.
fn needs_no_validation(recipe: &ValidRecipe) -> Result<(), Error> {
    let Solver::Descent(descent) = &recipe.recipe().solver else {
        return Ok(());
    };
    let option = match (&descent.early_stopping, &descent.schedule) {
        (Some(_), _) => "--patience",
        (None, Schedule::Plateau(_)) => "--schedule plateau",
        _ => return Ok(()),
    };
    Err(Error::Usage(format!(
        "{option} follows the validation while it trains, but with --folds no picture is left for that: leave it out, or \
         sweep --epochs"
    )))
}

/// Gives each picture its fold, and tells of classes that are too small for it.
fn assign(job: &Job<'_>, pooled: &PooledFeatures, wanted: &Folds) -> Result<Assignments, Error> {
    let labels = &pooled.features.train.labels;
    let (folds, of_repeats) = match &wanted.choice {
        FoldChoice::File(path) => {
            let of_repeats = fold_file::read(path, pooled)?;
            let largest = of_repeats.iter().flatten().flatten().max();
            (largest.map_or(0, |largest| largest + 1), of_repeats)
        }
        FoldChoice::Count(folds) => {
            for (class, units) in thin_classes(labels, &pooled.units, *folds) {
                let class = &pooled.features.classes[class];
                let warning = match units {
                    1 => format!(
                        "class `{class}` is one picture or group: it trains in every fold and validates in none"
                    ),
                    _ => format!(
                        "class `{class}` has {units} pictures or groups for {folds} folds: some folds validate without it"
                    ),
                };
                job.context.observer.warn(&warning);
            }
            let seeds = (0..u64::from(wanted.repeats)).map(|repeat| wanted.seed.wrapping_add(repeat));
            let assigned = seeds.map(|seed| assign_folds(labels, &pooled.units, *folds, seed));
            (*folds, assigned.collect::<Result<_, _>>()?)
        }
    };
    Ok(Assignments { folds, of_repeats })
}

/// The score of a fold, and whether its head is what its solver looks for.
type FoldScore = (Score, bool);

/// The scores of each recipe on all folds, repeat after repeat, or what went wrong first.
fn validate(
    job: &Job<'_>,
    features: &LabelledFeatures,
    recipes: &[ValidRecipe],
    assignments: &Assignments,
) -> Result<Vec<Result<Vec<FoldScore>, Error>>, Error> {
    let folds = assignments.folds;
    let places: Vec<(usize, usize)> = (0..assignments.of_repeats.len())
        .flat_map(|repeat| (0..folds).map(move |fold| (repeat, fold)))
        .collect();
    let results: Vec<Vec<Option<Result<FoldScore, Error>>>> =
        recipes.iter().map(|_| places.iter().map(|_| None).collect()).collect();
    let results = Mutex::new(results);
    let observer = &job.context.observer;
    observer.begin("training", Some((recipes.len() * places.len()) as u64), Unit::Heads);
    let run = |(repeat, fold): (usize, usize)| -> Result<(), Error> {
        // Copying the features is work too.
        if observer.interrupted() {
            return Err(Error::Interrupted);
        }
        let assigned = &assignments.of_repeats[repeat];
        let rows = |wanted: bool| -> Vec<usize> {
            let all = (0..assigned.len()).filter(|row| (assigned[*row] == Some(fold)) == wanted);
            all.collect()
        };
        let trains = rows(false);
        let (x, y) = select(features, &trains);
        let (held, held_labels) = select(features, &rows(true));
        let views = features.train_views.iter().map(|view| view.select(Axis(0), &trains));
        let views: Vec<_> = views.collect();
        let mut task = TrainingTask::new(features.classes.len(), Examples::new(x.view(), &y)?)?;
        if !views.is_empty() {
            task = task.with_views(views.iter().map(ndarray::Array2::view).collect())?;
        }
        train_all(recipes, &task, observer, &|number, trained| {
            // The last epoch's: to choose the epoch by the fold would be to learn from what it shall judge.
            let score = trained.and_then(|training| {
                let converged = training.convergence.is_none_or(|convergence| convergence.converged);
                Ok((training.final_head.score(held.view(), &held_labels)?, converged))
            });
            let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
            results[number][repeat * folds + fold] = Some(score);
            observer.advance(1);
        });
        Ok(())
    };
    let failed = Mutex::new(None);
    let (pictures, dim) = features.train.features.dim();
    let rows = pictures * (1 + features.train_views.len());
    let load = Load::of(recipes, rows, dim, features.classes.len());
    side_by_side(places.len(), load.at_once(rayon::current_num_threads()), &|place| {
        if let Err(error) = run(places[place]) {
            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    });
    observer.end();
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    let of_recipe = |scores: Vec<Option<Result<FoldScore, Error>>>| {
        let scores = scores.into_iter().map(|score| score.expect("every training ends"));
        scores.collect::<Result<Vec<FoldScore>, Error>>()
    };
    Ok(results.into_iter().map(of_recipe).collect())
}

fn select(features: &LabelledFeatures, rows: &[usize]) -> (ndarray::Array2<f32>, Vec<usize>) {
    let labels = rows.iter().map(|row| features.train.labels[*row]).collect();
    (features.train.features.select(Axis(0), rows), labels)
}

/// Trains the best configurations, as many as are to be kept, on all pictures.
fn train_best(
    job: &Job<'_>,
    features: &LabelledFeatures,
    recipes: &[ValidRecipe],
    board: &Leaderboard,
) -> Result<Vec<(usize, Training)>, Error> {
    let limit = job.kept;
    let ranked = board.entries.iter().filter(|entry| entry.rank.is_some());
    let numbers: Vec<usize> = ranked.map(|entry| entry.number).take(limit).collect();
    let chosen: Vec<ValidRecipe> = numbers.iter().map(|number| recipes[*number].clone()).collect();
    let task = task_of(features)?;
    let trained: Mutex<Vec<Option<Result<Training, Error>>>> = Mutex::new(numbers.iter().map(|_| None).collect());
    train_all(&chosen, &task, &job.context.observer, &|place, training| {
        trained.lock().unwrap_or_else(PoisonError::into_inner)[place] = Some(training);
    });
    let trained = trained.into_inner().unwrap_or_else(PoisonError::into_inner);
    let pairs = numbers.into_iter().zip(trained);
    pairs
        .map(|(number, training)| Ok((number, training.expect("every training ends")?)))
        .collect()
}
