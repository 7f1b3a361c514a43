//! The solver `lbfgs`: the optimum of the regularised loss by argmin's L-BFGS with the line search of Moré and Thuente.
//!
//! What is minimised is [`super::objective`]'s business, in which variables [`super::preconditioner`]'s. Here it is driven:
//! first with f32 products, as far as these go, then with f64 ones; until the true gradient, in the original coordinates, is
//! small enough. argmin's own stopping tests are not used: a line search that fails, or a loss that no longer falls, is no
//! success.
//!
//! The way is a function of the objective and the start alone. A sweep therefore gives for each C what a single training
//! gives only because both start from nothing; [`Lbfgs::path`] starts from its neighbour and agrees to the tolerance.

mod surface;

use argmin::core::{IterState, Problem, Solver as _, State};
use argmin::solver::linesearch::MoreThuenteLineSearch;
use argmin::solver::quasinewton::LBFGS;
use ndarray::{Array1, Array2, ArrayView2};

use self::surface::{Seen, Surface, Vector};
use super::loss::Score;
use super::objective::{self, Objective, Parameters, Products};
use super::preconditioner::Preconditioner;
use super::recipe::{ClassWeights, Lbfgs, Recipe, Solver};
use super::standardize;
use super::training::{Convergence, EpochRecord, Progress, Training, TrainingTask};
use crate::{Error, Observer, Result};

/// Steps that L-BFGS remembers.
const MEMORY: usize = 10;
/// Points that a line search may look at; a healthy one needs one or two.
const LINE_SEARCH: usize = 40;
/// Iterations after which the variables are changed for the first time; most minimisations have ended by then.
const PATIENCE: usize = 40;
/// The gradient down to which f32 products lead, in standard deviations of a feature.
const SINGLE_LIMIT: f64 = 2e-6;
/// Iterations in which f32 products must halve the gradient, or be given up.
const SINGLE_PATIENCE: usize = 25;

/// Where a minimisation ended.
#[derive(Debug, Clone)]
pub(super) struct Solution {
    pub(super) parameters: Parameters,
    /// The objective per unit of weight.
    pub(super) value: f64,
    /// The largest component of its gradient.
    pub(super) gradient_norm: f64,
    pub(super) iterations: usize,
    pub(super) converged: bool,
    pub(super) note: Option<String>,
}

/// Trains the head that minimises `C · Σ sᵢ·ceᵢ + ½·|W|²`, of two classes `C · Σ sᵢ·ceᵢ + |W|²`; the history has one record,
/// of learning rate 0.
///
/// # Errors
/// [`Error::NoOptimum`] if the objective is not finite at the start, [`Error::Interrupted`] if the observer asks for it,
/// [`Error::Usage`] if the class weights do not fit the task.
pub(super) fn fit(
    options: &Lbfgs,
    recipe: &Recipe,
    task: &TrainingTask<'_>,
    observer: &dyn Observer,
    on_epoch: &mut dyn FnMut(&EpochRecord),
) -> Result<Training> {
    let objective = pose(options, recipe, task, observer)?;
    let start = start(task, &objective);
    let solution = minimise(&objective, &start, options, observer)?;
    finish(options, task, &objective, solution, observer, on_epoch)
}

/// The objective that the options and the recipe mean on a task.
///
/// # Errors
/// [`Error::Usage`] if the class weights do not fit the task, [`Error::Interrupted`] if the observer asks for it.
pub(super) fn pose<'t>(
    options: &Lbfgs,
    recipe: &Recipe,
    task: &'t TrainingTask<'_>,
    observer: &dyn Observer,
) -> Result<Objective<'t>> {
    // Measuring the features is work too.
    if observer.interrupted() {
        return Err(Error::Interrupted);
    }
    let weights = row_weights(&recipe.class_weights, task)?;
    Objective::new(task, &weights, recipe.label_smoothing, options.c)
}

/// The classifier that the task starts from; without one, all weights are 0.
pub(super) fn start(task: &TrainingTask<'_>, objective: &Objective<'_>) -> Parameters {
    let classes = objective.classes().len();
    task.initial_head().map_or_else(
        || Parameters {
            weight: Array2::zeros((classes, objective.dim())),
            offset: Array1::zeros(classes),
        },
        |head| objective.parameters_of(head),
    )
}

/// How much each training row counts: its own weight times its class's.
///
/// # Errors
/// [`Error::Usage`] if the class weights do not fit the task.
fn row_weights(class_weights: &ClassWeights, task: &TrainingTask<'_>) -> Result<Vec<f64>> {
    let (labels, own) = (task.train().labels(), task.sample_weights());
    let of_class = class_weights.resolve(task.classes(), labels, own)?;
    let weight = |(row, &label): (usize, &usize)| own.map_or(1.0, |weights| weights[row]) * of_class[label];
    Ok(labels.iter().enumerate().map(weight).collect())
}

impl Lbfgs {
    /// Trains a head for each of `c`, each from the solution of the one before: fastest from strong to weak penalties.
    ///
    /// A head is the one that a single training of that C gives to the tolerance, not to the bit, since it comes from
    /// elsewhere: [`train_all`](super::train_all), whose heads are single trainings' to the bit, does not go this way. Of
    /// `recipe` all is followed but its solver, of this all but its `c`.
    ///
    /// # Errors
    /// [`Error::Usage`] if a C is not a finite number above 0 or `recipe` is not valid; otherwise those of a single training.
    pub fn path(
        &self,
        c: &[f64],
        recipe: &Recipe,
        task: &TrainingTask<'_>,
        observer: &dyn Observer,
    ) -> Result<Vec<Training>> {
        for &c in c {
            let recipe = Recipe {
                solver: Solver::Lbfgs(Self { c, ..*self }),
                ..recipe.clone()
            };
            recipe.check()?;
        }
        let walk = |task: &TrainingTask<'_>| -> Result<Vec<Training>> {
            let mut objective = pose(self, recipe, task, observer)?;
            let mut at = start(task, &objective);
            let mut trainings = Vec::with_capacity(c.len());
            for &c in c {
                let options = Self { c, ..*self };
                objective.set_c(c);
                let solution = minimise(&objective, &at, &options, observer)?;
                at = solution.parameters.clone();
                trainings.push(finish(&options, task, &objective, solution, observer, &mut |_| ())?);
            }
            Ok(trainings)
        };
        if !recipe.standardize {
            return walk(task);
        }
        standardize::with_standardized(task, observer, |turned, fold| {
            walk(turned)?.into_iter().map(fold).collect()
        })?
    }
}

/// The training that a solution makes: its head in f32, scored on what it was trained on, and how it was reached.
pub(super) fn finish(
    options: &Lbfgs,
    task: &TrainingTask<'_>,
    objective: &Objective<'_>,
    solution: Solution,
    observer: &dyn Observer,
    on_epoch: &mut dyn FnMut(&EpochRecord),
) -> Result<Training> {
    let head = objective.head_of(&solution.parameters, task.classes())?;
    if !head.is_finite() {
        return Err(Error::NoOptimum);
    }
    let score = |matrices: &[ArrayView2<'_, f32>], labels: &[usize]| -> Result<Score> {
        let mut score = Score::default();
        for matrix in matrices {
            head.add_score(matrix.view(), labels, &mut score, observer)?;
        }
        Ok(score)
    };
    let train = score(&objective::matrices(task), task.train().labels())?;
    let validation = task.validation().map(|rows| score(&[rows.features()], rows.labels()));
    let validation = validation.transpose()?;
    let mut progress = Progress::default();
    let record = EpochRecord {
        epoch: 0,
        learning_rate: 0.0,
        train_loss: train.loss(),
        train_accuracy: train.accuracy(),
        val_loss: validation.map(|score| score.loss()),
        val_accuracy: validation.map(|score| score.accuracy()),
    };
    on_epoch(progress.record(record, &head));
    let mut training = progress.finish(head);
    training.convergence = Some(Convergence {
        iterations: solution.iterations,
        gradient_norm: solution.gradient_norm,
        objective: solution.value * objective.total() * options.c,
        converged: solution.converged,
        note: solution.note,
    });
    Ok(training)
}

/// The gradient at which an objective of this value per unit of weight is at its end.
///
/// Where the classes can be told apart and the penalty is weak, the objective itself is near 0, and a gradient of 1e-6 can still
/// be far from the optimum: below 1, the tolerance is a share of the value.
pub(super) fn end_of(tolerance: f64, value: f64) -> f64 {
    tolerance * value.min(1.0)
}

/// Goes from `start` to where no component of the objective's gradient is larger than the tolerance.
///
/// # Errors
/// [`Error::NoOptimum`] if the objective is not finite at the start, [`Error::Interrupted`] if the observer asks for it.
pub(super) fn minimise(
    objective: &Objective<'_>,
    start: &Parameters,
    options: &Lbfgs,
    observer: &dyn Observer,
) -> Result<Solution> {
    let surface = Surface::new(objective, start, observer);
    let mut descent = Descent::new(&surface, start)?;
    let note = loop {
        if observer.interrupted() {
            return Err(Error::Interrupted);
        }
        if descent.seen.norm <= descent.limit(options.gradient_tolerance) {
            if surface.products.get() == Products::Double {
                break None;
            }
            descent.refine()?;
        } else if descent.iterations == options.max_iterations {
            break Some(format!(
                "stopped after {} iterations with a gradient of {:.1e}; the tolerance is {:.1e}",
                descent.iterations,
                descent.seen.norm,
                end_of(options.gradient_tolerance, descent.seen.value)
            ));
        } else if descent.iterations - descent.restarted == descent.patience {
            descent.turn()?;
        } else if !descent.step() && !descent.recover()? {
            break Some(format!(
                "no lower point is found where the gradient is {:.1e}; the tolerance of {:.1e} is finer than f64 on these \
                 features",
                descent.seen.norm,
                end_of(options.gradient_tolerance, descent.seen.value)
            ));
        }
    };
    if surface.products.get() == Products::Single {
        descent.refine()?;
    }
    Ok(Solution {
        parameters: surface.parameters(&descent.seen.at),
        value: descent.seen.value,
        gradient_norm: descent.seen.norm,
        iterations: descent.iterations,
        converged: descent.seen.norm <= end_of(options.gradient_tolerance, descent.seen.value),
        note,
    })
}

type Memory = LBFGS<MoreThuenteLineSearch<Vector, Vector, f64>, Vector, Vector, f64>;
type Point = IterState<Vector, Vector, (), (), (), f64>;

/// A running minimisation: the best point, and what argmin knows of the way there.
struct Descent<'s, 'o, 'a> {
    surface: &'s Surface<'o, 'a>,
    seen: Seen,
    /// A feature's standard deviation.
    deviation: f64,
    /// The gradient's norm that counts as progress, and the iteration by which it is due.
    due: (f64, usize),
    iterations: usize,
    /// The iteration at which the memory was last emptied.
    restarted: usize,
    /// The iteration at which a step last brought nothing.
    recovered: Option<usize>,
    /// Iterations without an end after which the variables are changed.
    patience: usize,
    memory: Memory,
    state: Point,
}

impl<'s, 'o, 'a> Descent<'s, 'o, 'a> {
    fn new(surface: &'s Surface<'o, 'a>, start: &Parameters) -> Result<Self> {
        let at = surface.preconditioner.borrow().variables(start);
        let seen = surface.look(&at)?;
        Ok(Self {
            surface,
            deviation: (surface.objective.spread() / surface.objective.dim() as f64).sqrt(),
            due: (0.5 * seen.norm, SINGLE_PATIENCE),
            state: standing(&seen),
            seen,
            iterations: 0,
            restarted: 0,
            recovered: None,
            patience: PATIENCE,
            memory: memory(),
        })
    }

    /// The gradient's norm up to which the products in use lead.
    fn limit(&self, tolerance: f64) -> f64 {
        match self.surface.products.get() {
            Products::Single if self.iterations == self.due.1 => f64::INFINITY,
            Products::Single => tolerance.max(SINGLE_LIMIT * self.deviation),
            Products::Double => end_of(tolerance, self.seen.value),
        }
    }

    /// Goes on with f64 products from here; what was learned of the curvature stays.
    fn refine(&mut self) -> Result<()> {
        self.surface.products.set(Products::Double);
        self.seen = self.surface.look(&self.seen.at)?;
        self.state.grad = Some(self.seen.gradient.clone());
        Ok(())
    }

    /// One iteration; `false` if it brought nothing.
    fn step(&mut self) -> bool {
        let surface = self.surface;
        self.seen.height = 0.0;
        surface.begin(&self.seen, LINE_SEARCH);
        let state = std::mem::take(&mut self.state).cost(0.0);
        let Ok((mut state, _)) = self.memory.next_iter(&mut Problem::new(surface), state) else {
            return false;
        };
        let Some(point) = state.param.as_ref().filter(|_| !state.terminated()) else {
            return false;
        };
        let Ok(seen) = surface.see(point, Seen::clone) else {
            return false;
        };
        if seen.height >= 0.0 {
            return false;
        }
        self.seen = seen;
        self.iterations += 1;
        if self.seen.norm <= self.due.0 {
            self.due = (0.5 * self.seen.norm, self.iterations + SINGLE_PATIENCE);
        }
        // argmin's executor would do that: the number tells L-BFGS when its memory is full.
        state.increment_iter();
        self.state = state;
        true
    }

    /// Goes on in variables that suit where it has come to: the curvature may be another one than at the start.
    fn turn(&mut self) -> Result<()> {
        let parameters = self.surface.parameters(&self.seen.at);
        let preconditioner = Preconditioner::of(self.surface.objective, &parameters);
        let at = preconditioner.variables(&parameters);
        self.surface.preconditioner.replace(preconditioner);
        self.patience *= 2;
        self.restart(&at)
    }

    /// Starts anew from the best point after a step that brought nothing; `false` where that was just tried.
    fn recover(&mut self) -> Result<bool> {
        if self.surface.products.get() == Products::Single {
            self.surface.products.set(Products::Double);
        } else if self.recovered == Some(self.iterations) {
            return Ok(false);
        }
        self.recovered = Some(self.iterations);
        let at = self.seen.at.clone();
        self.restart(&at)?;
        Ok(true)
    }

    fn restart(&mut self, at: &Vector) -> Result<()> {
        self.seen = self.surface.look(at)?;
        self.restarted = self.iterations;
        self.memory = memory();
        self.state = standing(&self.seen);
        Ok(())
    }
}

/// argmin's state of a minimisation that starts at a point.
fn standing(seen: &Seen) -> Point {
    Point::new()
        .param(seen.at.clone())
        .cost(0.0)
        .gradient(seen.gradient.clone())
}

fn memory() -> Memory {
    LBFGS::new(MoreThuenteLineSearch::new(), MEMORY)
}

#[cfg(test)]
#[path = "lbfgs_tests.rs"]
pub(super) mod tests;

#[cfg(test)]
#[path = "lbfgs/limits_tests.rs"]
mod limits_tests;
