//! The solver `linfa`: linfa-logistic, watched.
//!
//! linfa-logistic 0.8.1 takes its `log Σ exp` relative to the largest logit of the whole matrix and cuts it off 34.5 below.
//! Where a row lies lower, loss and gradient are wrong: the result may be far from the optimum although it says `Ok`, or the
//! line search never ends. Nothing can stop it from outside, so it is not let in where that could happen: the same steps
//! are rehearsed on our own objective first, by the same optimiser with the same settings. Only if these end, and no row
//! came near the cut on the way, linfa-logistic makes them, and never more than were rehearsed. Its roundings are others, so
//! that on a long way its steps drift from the rehearsed ones: it works on a thread that can be left behind, see
//! [`super::unstoppable`]. What it finds is then checked on the true objective, and [`super::lbfgs`] goes on from there where
//! it is not the optimum. Whatever happened is said in the note.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use argmin::core::{ArgminError, CostFunction, Gradient, IterState, Problem, Solver, State};
use argmin::solver::linesearch::MoreThuenteLineSearch;
use argmin::solver::quasinewton::LBFGS;
use linfa::dataset::DatasetBase;
use linfa::traits::Fit;
use linfa_logistic::MultiLogisticRegression;
use ndarray::{Array1, Array2, s};

use super::lbfgs::{self, Solution};
use super::objective::{Objective, Parameters, Products};
use super::recipe::{Lbfgs, Recipe};
use super::training::{EpochRecord, Training, TrainingTask};
use super::unstoppable::{self, Failure};
use crate::{Error, Observer, Result};

/// How far below the highest row any row may lie: linfa-logistic cuts at `ln 1e-15`, that is 34.5.
const DEPTH: f64 = 33.0;
/// Points that a line search of the rehearsal may look at.
const LINE_SEARCH: usize = 40;
/// linfa-logistic's number of steps that L-BFGS remembers.
const MEMORY: usize = 10;
/// How many times as long as all threads of its rehearsal together linfa-logistic, on one thread, may take beyond
/// [`LEAST_LIMIT`]; it takes twice as long on a machine that does nothing else.
const LIMIT: u32 = 20;
/// What linfa-logistic may take in any case.
const LEAST_LIMIT: Duration = Duration::from_secs(60);

/// Trains as [`lbfgs::fit`] does, by linfa-logistic as far as that is sound.
///
/// linfa-logistic itself does not listen to the observer: where that asks for an end, its thread is left behind.
///
/// # Errors
/// Those of [`lbfgs::fit`].
pub(super) fn fit(
    options: &Lbfgs,
    recipe: &Recipe,
    task: &TrainingTask<'_>,
    observer: &dyn Observer,
    on_epoch: &mut dyn FnMut(&EpochRecord),
) -> Result<Training> {
    let objective = lbfgs::pose(options, recipe, task, observer)?;
    let solution = match by_linfa(&objective, options, observer)? {
        Ok(found) => check(&objective, found, options, observer)?,
        Err(reason) => {
            let start = lbfgs::start(task, &objective);
            let solution = lbfgs::minimise(&objective, &start, options, observer)?;
            noted(solution, &format!("solved by lastlayer's own L-BFGS: {reason}"))
        }
    };
    lbfgs::finish(options, task, &objective, solution, observer, on_epoch)
}

/// What linfa-logistic said is the optimum.
#[derive(Debug)]
struct Found {
    parameters: Parameters,
    /// Those of its rehearsal until the optimum; it does not say how many it made.
    iterations: usize,
}

/// How many iterations linfa-logistic's steps take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rehearsed {
    /// Until the optimum.
    iterations: usize,
    /// As many as were seen to end, the spare ones that other roundings may need included.
    most: usize,
}

/// Runs linfa-logistic; the inner `Err` says why not, or why it brought nothing.
fn by_linfa(
    objective: &Objective<'_>,
    options: &Lbfgs,
    observer: &dyn Observer,
) -> Result<std::result::Result<Found, String>> {
    if !objective.is_plain() {
        return Ok(Err("linfa-logistic knows no weights and no label smoothing".to_owned()));
    }
    if objective.classes().len() < 2 {
        return Ok(Err("there is one class only".to_owned()));
    }
    let problem = Scaled::new(objective, observer);
    let start = Instant::now();
    let Rehearsed { iterations, most } = match problem.rehearse(options)? {
        Ok(rehearsed) => rehearsed,
        Err(reason) => return Ok(Err(reason)),
    };
    let limit = LEAST_LIMIT + start.elapsed() * LIMIT * rayon::current_num_threads() as u32;
    let scale = problem.scale;
    let labels: Array1<usize> = objective.labels().collect();
    let dataset = DatasetBase::new(objective.scaled_rows(scale, observer)?, labels);
    let model = MultiLogisticRegression::<f64>::default()
        .alpha(problem.alpha)
        .max_iterations(most as u64)
        // On the norm of the whole gradient, in its scale; no component is larger.
        .gradient_tolerance(0.5 * options.gradient_tolerance * objective.rows() as f64 * scale)
        .initial_params(problem.split(&problem.start()));
    let fit = move || {
        let fitted = model.fit(&dataset).map_err(|error| error.to_string())?;
        Ok(Parameters {
            weight: fitted.params().t().mapv(|weight| weight * scale),
            offset: fitted.intercept().clone(),
        })
    };
    Ok(match unstoppable::wait_for(fit, limit, observer)? {
        Ok(Ok(parameters)) => Ok(Found { parameters, iterations }),
        Ok(Err::<_, String>(error)) => Err(format!("linfa-logistic failed: {error}")),
        Err(Failure::Panicked(panic)) => Err(format!("linfa-logistic panicked: {panic}")),
        Err(Failure::Overdue) => Err("linfa-logistic did not end".to_owned()),
        Err(Failure::NoThread) => Err("there is no thread for linfa-logistic".to_owned()),
    })
}

/// Takes what linfa-logistic found for what it truly is, and goes on from there where it is not the optimum.
fn check(objective: &Objective<'_>, found: Found, options: &Lbfgs, observer: &dyn Observer) -> Result<Solution> {
    let evaluation = objective.evaluate(&found.parameters, Products::Double, observer)?;
    let norm = objective.gradient_norm(&evaluation.gradient);
    if norm <= lbfgs::end_of(options.gradient_tolerance, evaluation.value) {
        return Ok(Solution {
            parameters: found.parameters,
            value: evaluation.value,
            gradient_norm: norm,
            iterations: found.iterations,
            converged: true,
            note: None,
        });
    }
    let solution = if evaluation.value.is_finite() && norm.is_finite() {
        lbfgs::minimise(objective, &found.parameters, options, observer)?
    } else {
        let nothing = Parameters {
            weight: Array2::zeros(found.parameters.weight.dim()),
            offset: Array1::zeros(found.parameters.offset.len()),
        };
        lbfgs::minimise(objective, &nothing, options, observer)?
    };
    let said = format!(
        "repaired: linfa-logistic ended {:.1e} above the objective, where the gradient is {norm:.1e}; lastlayer's own L-BFGS \
         went on from there",
        (evaluation.value - solution.value) * objective.total() * options.c
    );
    Ok(Solution {
        iterations: found.iterations + solution.iterations,
        ..noted(solution, &said)
    })
}

/// Puts something before a solution's own note.
fn noted(mut solution: Solution, note: &str) -> Solution {
    solution.note = Some(match solution.note {
        Some(more) => format!("{note}; {more}"),
        None => note.to_owned(),
    });
    solution
}

type Vector = Array1<f64>;
type Looked<T> = std::result::Result<T, argmin::core::Error>;

/// The objective as linfa-logistic gets it, but with the true `log Σ exp`: the sum over the rows, which are scaled so that a
/// first step along the whole gradient is a sound one, and a penalty scaled to match.
///
/// The variables are linfa-logistic's: `[dim + 1, classes]`, the bias last.
struct Scaled<'o, 'a> {
    objective: &'o Objective<'a>,
    observer: &'o dyn Observer,
    scale: f64,
    alpha: f64,
    last: RefCell<Option<(Vector, f64, Vector, f64)>>,
    allowance: Cell<usize>,
    too_deep: Cell<bool>,
}

impl<'o, 'a> Scaled<'o, 'a> {
    fn new(objective: &'o Objective<'a>, observer: &'o dyn Observer) -> Self {
        // The second derivative by the weights is at most half the sum of the rows' squared lengths.
        let spread = objective.spread() * objective.rows() as f64;
        let scale = if spread > 0.0 { 1.0 / spread.sqrt() } else { 1.0 };
        Self {
            objective,
            observer,
            scale,
            alpha: objective.penalty() * objective.rows() as f64 * scale * scale,
            last: RefCell::new(None),
            allowance: Cell::new(0),
            too_deep: Cell::new(false),
        }
    }

    /// No weights, and biases that give each class its share of the rows: the bias, which is not scaled, has no gradient.
    fn start(&self) -> Vector {
        let (dim, classes) = (self.objective.dim(), self.objective.classes().len());
        let mut variables = Array1::zeros((dim + 1) * classes);
        let mut counts = vec![0_usize; classes];
        self.objective.labels().for_each(|label| counts[label] += 1);
        for (bias, count) in variables.slice_mut(s![dim * classes..]).iter_mut().zip(counts) {
            *bias = (count as f64 / self.objective.rows() as f64).ln();
        }
        variables
    }

    fn split(&self, variables: &Vector) -> Array2<f64> {
        let shape = (self.objective.dim() + 1, self.objective.classes().len());
        let variables = variables.to_shape(shape);
        variables.expect("the variables were made of that shape").into_owned()
    }

    fn parameters(&self, variables: &Vector) -> Parameters {
        let dim = self.objective.dim();
        let variables = self.split(variables);
        Parameters {
            weight: variables.slice(s![..dim, ..]).t().mapv(|weight| weight * self.scale),
            offset: variables.row(dim).to_owned(),
        }
    }

    /// Makes linfa-logistic's steps until the optimum and some more, and counts them; the inner `Err` says why it may not.
    fn rehearse(&self, options: &Lbfgs) -> Result<std::result::Result<Rehearsed, String>> {
        let mut walk = Walk::new(self);
        let mut most = options.max_iterations;
        let mut to_optimum = None;
        let all_ended = loop {
            if self.observer.interrupted() {
                return Err(Error::Interrupted);
            }
            match walk.is_at_optimum(options.gradient_tolerance) {
                Ok(true) if to_optimum.is_none() => {
                    to_optimum = Some(walk.iterations);
                    most = most.min(walk.iterations + walk.iterations / 4 + 10);
                }
                Ok(_) => {}
                Err(_) => break false,
            }
            if walk.iterations == most {
                break true;
            }
            match walk.step() {
                Ok(true) => {}
                // linfa-logistic would stop here too.
                Ok(false) => break true,
                Err(_) => break false,
            }
        };
        // What does not end is not made.
        if all_ended || to_optimum.is_some() {
            return Ok(Ok(Rehearsed {
                iterations: to_optimum.unwrap_or(walk.iterations).max(1),
                most: walk.iterations.max(1),
            }));
        }
        if self.observer.interrupted() {
            return Err(Error::Interrupted);
        }
        Ok(Err(if self.too_deep.get() {
            "rows lie so far apart that linfa-logistic's loss is wrong".to_owned()
        } else {
            "linfa-logistic's line search would fail or never end".to_owned()
        }))
    }

    fn look<T>(&self, at: &Vector, of: impl FnOnce(&(Vector, f64, Vector, f64)) -> T) -> Looked<T> {
        let mut last = self.last.borrow_mut();
        if let Some(seen) = last.as_ref().filter(|seen| seen.0 == *at) {
            return Ok(of(seen));
        }
        let fails = |text: &str| ArgminError::ConditionViolated { text: text.to_owned() }.into();
        let Some(allowance) = self.allowance.get().checked_sub(1) else {
            return Err(fails("the line search does not end"));
        };
        self.allowance.set(allowance);
        let evaluation = self
            .objective
            .evaluate(&self.parameters(at), Products::Double, self.observer)?;
        let classes = self.objective.classes().len();
        // A row's best logit lies between its log Σ exp and that less ln(classes).
        let depth = evaluation.levels[1] - evaluation.levels[0] + (classes as f64).ln();
        if depth.is_nan() || depth > DEPTH {
            self.too_deep.set(true);
            return Err(fails("too deep"));
        }
        let rows = self.objective.rows() as f64;
        let mut gradient = Array2::zeros((self.objective.dim() + 1, classes));
        let dim = self.objective.dim();
        gradient
            .slice_mut(s![..dim, ..])
            .assign(&(&evaluation.gradient.weight.t() * (rows * self.scale)));
        gradient.row_mut(dim).assign(&(&evaluation.gradient.offset * rows));
        let norm = self.objective.gradient_norm(&evaluation.gradient);
        let seen = (
            at.clone(),
            evaluation.value * rows,
            gradient.into_iter().collect(),
            norm,
        );
        Ok(of(last.insert(seen)))
    }
}

/// linfa-logistic's optimiser on its way.
struct Walk<'s, 'o, 'a> {
    problem: &'s Scaled<'o, 'a>,
    solver: LBFGS<MoreThuenteLineSearch<Vector, Vector, f64>, Vector, Vector, f64>,
    state: IterState<Vector, Vector, (), (), (), f64>,
    at: Vector,
    iterations: usize,
}

impl<'s, 'o, 'a> Walk<'s, 'o, 'a> {
    fn new(problem: &'s Scaled<'o, 'a>) -> Self {
        let at = problem.start();
        problem.allowance.set(1);
        Self {
            problem,
            solver: LBFGS::new(MoreThuenteLineSearch::new(), MEMORY),
            state: IterState::new().param(at.clone()),
            at,
            iterations: 0,
        }
    }

    fn is_at_optimum(&self, tolerance: f64) -> Looked<bool> {
        let rows = self.problem.objective.rows() as f64;
        self.problem.look(&self.at, |&(_, value, _, norm)| {
            norm <= lbfgs::end_of(tolerance, value / rows)
        })
    }

    /// One iteration; `false` if it led nowhere.
    fn step(&mut self) -> Looked<bool> {
        self.problem.allowance.set(LINE_SEARCH);
        let mut problem = Problem::new(self.problem);
        let mut state = std::mem::take(&mut self.state);
        if self.iterations == 0 {
            (state, _) = self.solver.init(&mut problem, state)?;
        }
        (state, _) = self.solver.next_iter(&mut problem, state)?;
        let Some(point) = state.param.clone().filter(|_| !state.terminated()) else {
            return Err(argmin::core::Error::msg("the line search failed"));
        };
        if point == self.at {
            return Ok(false);
        }
        self.at = point;
        // argmin's executor would do that: the number tells L-BFGS when its memory is full.
        state.increment_iter();
        self.state = state;
        self.iterations += 1;
        Ok(true)
    }
}

impl CostFunction for &Scaled<'_, '_> {
    type Param = Vector;
    type Output = f64;

    fn cost(&self, at: &Vector) -> Looked<f64> {
        self.look(at, |seen| seen.1)
    }
}

impl Gradient for &Scaled<'_, '_> {
    type Param = Vector;
    type Gradient = Vector;

    fn gradient(&self, at: &Vector) -> Looked<Vector> {
        self.look(at, |seen| seen.2.clone())
    }
}

#[cfg(test)]
#[path = "linfa_logistic_tests.rs"]
mod tests;
