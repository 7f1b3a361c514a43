//! Options laid over a recipe: what was given changes it, and what nothing reads is a mistake.

use super::arguments::{Milestones, SamplingName, ScheduleName, SolverName, TrainingArguments};
use super::values::value_of;
use super::weights::NamedWeights;
use crate::error::{Error, Result};
use crate::head::{
    ClassWeights, CosineLr, Descent, EarlyStopping, ExponentialLr, Lbfgs, MultiStepLr, OneCycleLr, PlateauLr, Recipe,
    Sampling, Schedule, Solver, StepLr, Update,
};

/// An option that was given and that the recipe does not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unread {
    /// Its name without dashes.
    pub(super) option: &'static str,
    /// What it is no option of.
    pub(super) of: String,
}

impl Unread {
    pub(super) fn error(&self) -> Error {
        Error::Options {
            problem: self.problem(),
            hint: self.hint("--"),
        }
    }

    pub(super) fn problem(&self) -> String {
        format!("--{} is not an option of {}", self.option, self.of)
    }

    /// Whose option it is. `dashes`: what stands before an option's name where this one is written.
    pub(super) fn hint(&self, dashes: &str) -> String {
        let Self { option, of } = self;
        let (kind, owners) = if of.starts_with("the schedule") {
            ("schedule", schedules_with(option))
        } else {
            ("solver", solvers_with(option))
        };
        let plural = if owners.len() == 1 { "" } else { "s" };
        let (first, list) = (owners[0], listed(&owners));
        let counterpart = match *option {
            "C" => "; the penalty of sgd and adamw is `--weight-decay`, 1 / (pictures · C)",
            "weight-decay" => "; the penalty of lbfgs and linfa is `--C`, 1 / (pictures · weight decay)",
            _ => "",
        };
        format!(
            "`{dashes}{option}` belongs to the {kind}{plural} {list}: choose `{dashes}{kind}={first}`, or leave out \
             `{dashes}{option}`{counterpart}"
        )
    }
}

/// The names of the solvers that have this option, in the order of the help.
fn solvers_with(option: &str) -> Vec<&'static str> {
    // It is an option of early stopping, which begins with the other.
    let option = if option == "min-delta" { "patience" } else { option };
    let solvers = [
        Solver::Descent(Descent::sgd()),
        Solver::Descent(Descent::adamw()),
        Solver::Lbfgs(Lbfgs::default()),
        Solver::Linfa(Lbfgs::default()),
    ];
    let is_of_descent = OF_SCHEDULES.contains(&option);
    let has = |solver: &Solver| {
        let recipe = Recipe {
            solver: solver.clone(),
            ..Recipe::default()
        };
        value_of(&recipe, option).is_some() || (is_of_descent && matches!(solver, Solver::Descent(_)))
    };
    solvers.iter().filter(|solver| has(solver)).map(Solver::name).collect()
}

/// The names of the schedules that have this option, in the order of the help.
fn schedules_with(option: &str) -> Vec<&'static str> {
    let schedules = [
        ("step", Schedule::Step(StepLr::default())),
        (
            "multistep",
            Schedule::MultiStep(MultiStepLr {
                milestones: Vec::new(),
                gamma: 1.0,
            }),
        ),
        ("exponential", Schedule::Exponential(ExponentialLr { gamma: 1.0 })),
        ("cosine", Schedule::Cosine(CosineLr::default())),
        ("one-cycle", Schedule::OneCycle(OneCycleLr::default())),
        ("plateau", Schedule::Plateau(PlateauLr::default())),
    ];
    let has = |(name, schedule): (&'static str, Schedule)| {
        let descent = Descent {
            schedule,
            ..Descent::sgd()
        };
        value_of(&Recipe::from(descent), option).map(|_| name)
    };
    schedules.into_iter().filter_map(has).collect()
}

/// `a`, `a and b`, `a, b and c`.
fn listed(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [word] => (*word).to_owned(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

impl TrainingArguments {
    /// Lays the options that were given over `recipe`, and returns those that its solver and schedule do not read.
    ///
    /// Weights of named classes wait for [`NamedWeights::resolve`].
    ///
    /// # Errors
    /// [`Error::Usage`] where a schedule or `--min-delta` needs an option that is not there.
    pub(super) fn lay_over(&self, recipe: &mut Recipe) -> Result<Vec<Unread>> {
        // What is read is taken out; what is left is not.
        let mut left = self.clone();
        set(&mut recipe.seed, left.seed.take());
        set(&mut recipe.label_smoothing, left.label_smoothing.take());
        set(&mut recipe.standardize, left.standardize.take());
        match left.class_weights.take() {
            Some(NamedWeights::Equal) => recipe.class_weights = ClassWeights::Equal,
            Some(NamedWeights::Balanced) => recipe.class_weights = ClassWeights::Balanced,
            Some(NamedWeights::Given(_)) | None => {}
        }
        if let Some(solver) = left.solver.take()
            && recipe.solver.name() != solver.to_string()
        {
            recipe.solver = match solver {
                SolverName::Sgd => Solver::Descent(Descent::sgd()),
                SolverName::Adamw => Solver::Descent(Descent::adamw()),
                SolverName::Lbfgs => Solver::Lbfgs(Lbfgs::default()),
                SolverName::Linfa => Solver::Linfa(Lbfgs::default()),
            };
        }
        let solver = format!("the solver {}", recipe.solver.name());
        let schedule = match &mut recipe.solver {
            Solver::Descent(descent) => {
                left.descend(descent)?;
                Some(format!("the schedule {}", name_of(&descent.schedule)))
            }
            Solver::Lbfgs(lbfgs) | Solver::Linfa(lbfgs) => {
                set(&mut lbfgs.c, left.c.take());
                set(&mut lbfgs.gradient_tolerance, left.tolerance.take());
                set(&mut lbfgs.max_iterations, left.max_iterations.take());
                None
            }
        };
        let unread = |(option, _): (&'static str, String)| Unread {
            option,
            of: match &schedule {
                Some(schedule) if OF_SCHEDULES.contains(&option) => schedule.clone(),
                _ => solver.clone(),
            },
        };
        Ok(left.given().into_iter().map(unread).collect())
    }

    /// Takes out the options of gradient descent.
    fn descend(&mut self, descent: &mut Descent) -> Result<()> {
        set(&mut descent.epochs, self.epochs.take());
        set(&mut descent.batch_size, self.batch_size.take());
        set(&mut descent.learning_rate, self.lr.take());
        set(&mut descent.weight_decay, self.weight_decay.take());
        set(&mut descent.warm_up_epochs, self.warm_up.take());
        match &mut descent.update {
            Update::Sgd {
                momentum,
                dampening,
                nesterov,
            } => {
                set(momentum, self.momentum.take());
                set(dampening, self.dampening.take());
                set(nesterov, self.nesterov.take());
            }
            Update::AdamW { beta1, beta2, epsilon } => {
                set(beta1, self.beta1.take());
                set(beta2, self.beta2.take());
                set(epsilon, self.epsilon.take());
            }
        }
        if let Some(norm) = self.clip_norm.take() {
            descent.clip_norm = Some(norm);
        }
        if let Some(sampling) = self.sampling.take() {
            descent.sampling = match sampling {
                SamplingName::Shuffled => Sampling::Shuffled,
                SamplingName::Balanced => Sampling::Balanced,
            };
        }
        if let Some(patience) = self.patience.take() {
            let min_delta = descent.early_stopping.map_or(0.0, |stopping| stopping.min_delta);
            descent.early_stopping = Some(EarlyStopping { patience, min_delta });
        }
        if let Some(min_delta) = self.min_delta.take() {
            match &mut descent.early_stopping {
                Some(stopping) => stopping.min_delta = min_delta,
                None => return usage("--min-delta says when --patience is at its end: give that too"),
            }
        }
        self.schedule(&mut descent.schedule)
    }

    /// Takes out the options of the schedule.
    fn schedule(&mut self, schedule: &mut Schedule) -> Result<()> {
        if let Some(name) = self.schedule.take()
            && name_of(schedule) != name.to_string()
        {
            *schedule = self.new_schedule(name)?;
        }
        match schedule {
            Schedule::Step(StepLr { step_size, gamma }) => {
                set(step_size, self.step_size.take());
                set(gamma, self.gamma.take());
            }
            Schedule::MultiStep(MultiStepLr { milestones, gamma }) => {
                set(milestones, self.milestones.take().map(|Milestones(epochs)| epochs));
                set(gamma, self.gamma.take());
            }
            Schedule::Exponential(ExponentialLr { gamma }) => set(gamma, self.gamma.take()),
            Schedule::Cosine(CosineLr { min_lr, epochs }) => {
                set(min_lr, self.min_lr.take());
                if let Some(given) = self.cosine_epochs.take() {
                    *epochs = Some(given);
                }
            }
            Schedule::OneCycle(cycle) => {
                set(&mut cycle.pct_start, self.pct_start.take());
                set(&mut cycle.div_factor, self.div_factor.take());
                set(&mut cycle.final_div_factor, self.final_div_factor.take());
                set(&mut cycle.cycle_momentum, self.cycle_momentum.take());
                set(&mut cycle.base_momentum, self.base_momentum.take());
                set(&mut cycle.max_momentum, self.max_momentum.take());
            }
            Schedule::Plateau(plateau) => {
                set(&mut plateau.factor, self.gamma.take());
                set(&mut plateau.patience, self.plateau_patience.take());
                set(&mut plateau.threshold, self.plateau_threshold.take());
                set(&mut plateau.cooldown, self.plateau_cooldown.take());
                set(&mut plateau.min_lr, self.min_lr.take());
            }
            Schedule::Constant => {}
        }
        Ok(())
    }

    /// A schedule with its defaults; of what has none, the option.
    fn new_schedule(&self, name: ScheduleName) -> Result<Schedule> {
        Ok(match name {
            ScheduleName::Step => Schedule::Step(StepLr::default()),
            ScheduleName::Multistep => match &self.milestones {
                Some(Milestones(epochs)) => Schedule::MultiStep(MultiStepLr {
                    milestones: epochs.clone(),
                    gamma: StepLr::default().gamma,
                }),
                None => return usage("the schedule multistep needs --milestones, such as --milestones 10,20"),
            },
            ScheduleName::Exponential => match self.gamma {
                Some(gamma) => Schedule::Exponential(ExponentialLr { gamma }),
                None => {
                    return usage(
                        "the schedule exponential needs --gamma, the factor of an epoch, such as --gamma 0.9",
                    );
                }
            },
            ScheduleName::Cosine => Schedule::Cosine(CosineLr::default()),
            ScheduleName::OneCycle => Schedule::OneCycle(OneCycleLr::default()),
            ScheduleName::Constant => Schedule::Constant,
            ScheduleName::Plateau => Schedule::Plateau(PlateauLr::default()),
        })
    }
}

/// The options that belong to a schedule rather than to the solver.
const OF_SCHEDULES: &[&str] = &[
    "step-size",
    "gamma",
    "milestones",
    "min-lr",
    "cosine-epochs",
    "plateau-patience",
    "plateau-threshold",
    "plateau-cooldown",
    "pct-start",
    "div-factor",
    "final-div-factor",
    "cycle-momentum",
    "base-momentum",
    "max-momentum",
];

/// A schedule's name on the command line.
pub(super) fn name_of(schedule: &Schedule) -> String {
    let name = match schedule {
        Schedule::Constant => ScheduleName::Constant,
        Schedule::Step(_) => ScheduleName::Step,
        Schedule::MultiStep(_) => ScheduleName::Multistep,
        Schedule::Exponential(_) => ScheduleName::Exponential,
        Schedule::Cosine(_) => ScheduleName::Cosine,
        Schedule::OneCycle(_) => ScheduleName::OneCycle,
        Schedule::Plateau(_) => ScheduleName::Plateau,
    };
    name.to_string()
}

fn usage<T>(problem: &str) -> Result<T> {
    Err(Error::Usage(problem.to_owned()))
}

fn set<T>(target: &mut T, given: Option<T>) {
    if let Some(value) = given {
        *target = value;
    }
}

#[cfg(test)]
#[path = "overlay_tests.rs"]
mod tests;
