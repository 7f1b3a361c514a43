//! The options of a training: each may be given or not, and what is given is laid over a recipe.
//!
//! So the same options serve the command line, a sweep's axes and the repetition of an earlier run.

use clap::{Args, FromArgMatches, ValueEnum};

use crate::error::{Error, Result};
use crate::head::{Descent, Lbfgs, Recipe, Schedule, Solver, StepLr, Update};

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Training")]
pub(in crate::cli) struct TrainingArguments {
    /// How the head is found [default: sgd]
    #[arg(long, value_name = "NAME")]
    solver: Option<SolverName>,
    /// Passes over the training pictures [default: 25]
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Pictures per step [default: 4]
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// Learning rate [default: 0.001]
    #[arg(long, value_name = "LR")]
    lr: Option<f64>,
    /// Momentum [default: 0.9]
    #[arg(long, value_name = "M")]
    momentum: Option<f64>,
    /// Dampening of the momentum [default: 0]
    #[arg(long, value_name = "D")]
    dampening: Option<f64>,
    /// Weight decay (L2 penalty), as in PyTorch [default: 0]
    #[arg(long, value_name = "WD")]
    weight_decay: Option<f64>,
    /// Nesterov momentum
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    nesterov: Option<bool>,
    /// Epochs between two steps of the learning rate [default: 7]
    #[arg(long, value_name = "N")]
    step_size: Option<usize>,
    /// Factor of the learning rate at each step [default: 0.1]
    #[arg(long, value_name = "G")]
    gamma: Option<f64>,
    /// Seed of the first weights and of the order of the pictures [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SolverName {
    /// Mini-batch gradient descent with momentum
    Sgd,
    /// Adam with decoupled weight decay
    Adamw,
    /// The optimum of the penalised loss
    Lbfgs,
    /// The same by linfa-logistic, checked
    Linfa,
}

impl TrainingArguments {
    /// The options that `pairs` of names (without dashes) and values give, checked as on the command line.
    ///
    /// # Errors
    /// [`Error::Usage`] with clap's own words.
    pub(in crate::cli) fn parse_from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let arguments = pairs.into_iter().map(|(name, value)| format!("--{name}={value}"));
        let command = Self::augment_args(clap::Command::new("sweep").no_binary_name(true).disable_help_flag(true));
        command
            .try_get_matches_from(arguments)
            .and_then(|matches| Self::from_arg_matches(&matches))
            .map_err(|error| Error::Usage(error.to_string().trim_start_matches("error: ").trim_end().to_owned()))
    }

    /// Lays the options that were given over `recipe`.
    ///
    /// # Errors
    /// [`Error::Usage`] for an option that the recipe's solver does not have.
    pub(in crate::cli) fn apply(&self, recipe: &mut Recipe) -> Result<()> {
        if let Some(solver) = self.solver {
            let same = recipe.solver.name() == solver.to_possible_value().expect("none is hidden").get_name();
            if !same {
                recipe.solver = match solver {
                    SolverName::Sgd => Solver::Descent(Descent::sgd()),
                    SolverName::Adamw => Solver::Descent(Descent::adamw()),
                    SolverName::Lbfgs => Solver::Lbfgs(Lbfgs::default()),
                    SolverName::Linfa => Solver::Linfa(Lbfgs::default()),
                };
            }
        }
        set(&mut recipe.seed, self.seed);
        if let Solver::Descent(descent) = &mut recipe.solver {
            set(&mut descent.epochs, self.epochs);
            set(&mut descent.batch_size, self.batch_size);
            set(&mut descent.learning_rate, self.lr);
            set(&mut descent.weight_decay, self.weight_decay);
            if let Update::Sgd {
                momentum,
                dampening,
                nesterov,
            } = &mut descent.update
            {
                set(momentum, self.momentum);
                set(dampening, self.dampening);
                set(nesterov, self.nesterov);
            }
            if let Schedule::Step(StepLr { step_size, gamma }) = &mut descent.schedule {
                set(step_size, self.step_size);
                set(gamma, self.gamma);
            }
        }
        Ok(())
    }
}

fn set<T>(target: &mut T, given: Option<T>) {
    if let Some(value) = given {
        *target = value;
    }
}
