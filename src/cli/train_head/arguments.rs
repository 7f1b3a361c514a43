//! The options of a training: read once for the command line, for a sweep's axes and for the repetition of an earlier run.
//!
//! Each option is absent unless it was given, so that options can be laid over others, and over a recipe ([`super::overlay`]).

use std::fmt;
use std::str::FromStr;

use clap::{Args, FromArgMatches, ValueEnum};

use super::weights::NamedWeights;
use crate::error::{Error, Result};

#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "Training")]
pub(in crate::cli) struct TrainingArguments {
    /// How the head is found [default: sgd]
    #[arg(long, value_name = "NAME")]
    pub(super) solver: Option<SolverName>,
    /// How much a picture of each class counts: balanced, equal, CLASS=W,…, or @FILE.toml [default: equal]
    #[arg(long, value_name = "W")]
    pub(super) class_weights: Option<NamedWeights>,
    /// Share of each target that is spread over all classes [default: 0]
    #[arg(long, value_name = "S")]
    pub(super) label_smoothing: Option<f64>,
    /// Train on features of mean 0 and variance 1; the head that is written takes them as they are
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) standardize: Option<bool>,
    /// Seed of the first weights and of the order of the pictures [default: 0]
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,

    // sgd and adamw.
    /// Passes over the training pictures [default: 25]
    #[arg(long, value_name = "N", help_heading = DESCENT)]
    pub(super) epochs: Option<usize>,
    /// Pictures per step [default: 4]
    #[arg(long, value_name = "N", help_heading = DESCENT)]
    pub(super) batch_size: Option<usize>,
    /// Learning rate [default: 0.001]
    #[arg(long, value_name = "LR", help_heading = DESCENT)]
    pub(super) lr: Option<f64>,
    /// Weight decay, as PyTorch's optimizers have it [default: 0; adamw: 0.01]
    #[arg(long, value_name = "WD", help_heading = DESCENT)]
    pub(super) weight_decay: Option<f64>,
    /// sgd: momentum [default: 0.9]
    #[arg(long, value_name = "M", help_heading = DESCENT)]
    pub(super) momentum: Option<f64>,
    /// sgd: dampening of the momentum [default: 0]
    #[arg(long, value_name = "D", help_heading = DESCENT)]
    pub(super) dampening: Option<f64>,
    /// sgd: Nesterov momentum
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          help_heading = DESCENT)]
    pub(super) nesterov: Option<bool>,
    /// adamw: decay of the gradient's mean [default: 0.9]
    #[arg(long, value_name = "B", help_heading = DESCENT)]
    pub(super) beta1: Option<f64>,
    /// adamw: decay of the squared gradient's mean [default: 0.999]
    #[arg(long, value_name = "B", help_heading = DESCENT)]
    pub(super) beta2: Option<f64>,
    /// adamw: added to the root of the latter [default: 1e-8]
    #[arg(long, value_name = "E", help_heading = DESCENT)]
    pub(super) epsilon: Option<f64>,
    /// Scale gradients down to this norm [default: as they are]
    #[arg(long, value_name = "N", help_heading = DESCENT)]
    pub(super) clip_norm: Option<f64>,
    /// Which pictures an epoch sees: each once, or drawn so that classes are equally likely [default: shuffled]
    #[arg(long, value_name = "HOW", help_heading = DESCENT)]
    pub(super) sampling: Option<SamplingName>,
    /// End after so many epochs without a better validation [default: never]
    #[arg(long, value_name = "EPOCHS", help_heading = DESCENT)]
    pub(super) patience: Option<usize>,
    /// What an epoch must bring at least to be better, with --patience [default: 0]
    #[arg(long, value_name = "D", help_heading = DESCENT)]
    pub(super) min_delta: Option<f64>,

    // The learning rate.
    /// How the learning rate changes [default: step]
    #[arg(long, value_name = "NAME", help_heading = SCHEDULE)]
    pub(super) schedule: Option<ScheduleName>,
    /// Epochs over which the rate first rises to its value [default: 0]
    #[arg(long, value_name = "EPOCHS", help_heading = SCHEDULE)]
    pub(super) warm_up: Option<usize>,
    /// step: epochs between two steps [default: 7]
    #[arg(long, value_name = "EPOCHS", help_heading = SCHEDULE)]
    pub(super) step_size: Option<usize>,
    /// step, multistep, exponential, plateau: factor of a step, or of an epoch [default: 0.1]
    #[arg(long, value_name = "G", help_heading = SCHEDULE)]
    pub(super) gamma: Option<f64>,
    /// multistep: the epochs that begin with a step
    #[arg(long, value_name = "N,N,…", help_heading = SCHEDULE)]
    pub(super) milestones: Option<Milestones>,
    /// cosine, plateau: the lowest rate [default: 0]
    #[arg(long, value_name = "LR", help_heading = SCHEDULE)]
    pub(super) min_lr: Option<f64>,
    /// cosine: epochs until the lowest rate [default: all]
    #[arg(long, value_name = "EPOCHS", help_heading = SCHEDULE)]
    pub(super) cosine_epochs: Option<usize>,
    /// plateau: epochs without a lower validation loss that are borne [default: 10]
    #[arg(long, value_name = "EPOCHS", help_heading = SCHEDULE)]
    pub(super) plateau_patience: Option<usize>,
    /// plateau: share by which a loss must be lower to count [default: 0.0001]
    #[arg(long, value_name = "T", help_heading = SCHEDULE)]
    pub(super) plateau_threshold: Option<f64>,
    /// plateau: epochs after a step that do not count [default: 0]
    #[arg(long, value_name = "EPOCHS", help_heading = SCHEDULE)]
    pub(super) plateau_cooldown: Option<usize>,
    /// one-cycle: share of the steps in which the rate rises [default: 0.3]
    #[arg(long, value_name = "P", help_heading = SCHEDULE)]
    pub(super) pct_start: Option<f64>,
    /// one-cycle: the highest rate, --lr, divided by the first [default: 25]
    #[arg(long, value_name = "F", help_heading = SCHEDULE)]
    pub(super) div_factor: Option<f64>,
    /// one-cycle: the first rate divided by the last [default: 10000]
    #[arg(long, value_name = "F", help_heading = SCHEDULE)]
    pub(super) final_div_factor: Option<f64>,
    /// one-cycle: let the momentum (or beta1) fall while the rate rises [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          help_heading = SCHEDULE)]
    pub(super) cycle_momentum: Option<bool>,
    /// one-cycle: the momentum at the highest rate [default: 0.85]
    #[arg(long, value_name = "M", help_heading = SCHEDULE)]
    pub(super) base_momentum: Option<f64>,
    /// one-cycle: the momentum of the first and the last step [default: 0.95]
    #[arg(long, value_name = "M", help_heading = SCHEDULE)]
    pub(super) max_momentum: Option<f64>,

    // lbfgs and linfa.
    /// Inverse strength of the penalty, as scikit-learn's C: 1 / (pictures · weight decay), of two classes twice that
    /// [default: 1]
    #[arg(long = "C", value_name = "C", help_heading = OPTIMUM)]
    pub(super) c: Option<f64>,
    /// Largest component of the mean loss's gradient at which it is done [default: 1e-6]
    #[arg(long, value_name = "G", help_heading = OPTIMUM)]
    pub(super) tolerance: Option<f64>,
    /// Iterations after which it gives up [default: 1000]
    #[arg(long, value_name = "N", help_heading = OPTIMUM)]
    pub(super) max_iterations: Option<usize>,
}

const DESCENT: &str = "Training with --solver sgd or adamw";
const SCHEDULE: &str = "Learning rate of sgd and adamw";
const OPTIMUM: &str = "Training with --solver lbfgs or linfa";

/// What is done with every option alike. One that is forgotten here does not compile.
macro_rules! for_all {
    ($($name:literal => $field:ident,)*) => {
        impl TrainingArguments {
            /// These options, and those of `base` that are not given here.
            pub(super) fn over(self, base: &Self) -> Self {
                Self { $($field: self.$field.or_else(|| base.$field.clone()),)* }
            }

            /// The options that are given, each with its value as it is written.
            pub(super) fn given(&self) -> Vec<(&'static str, String)> {
                let all = [$(($name, self.$field.as_ref().map(ToString::to_string)),)*];
                all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
            }
        }
    };
}

for_all! {
    "solver" => solver,
    "class-weights" => class_weights,
    "label-smoothing" => label_smoothing,
    "standardize" => standardize,
    "seed" => seed,
    "epochs" => epochs,
    "batch-size" => batch_size,
    "lr" => lr,
    "weight-decay" => weight_decay,
    "momentum" => momentum,
    "dampening" => dampening,
    "nesterov" => nesterov,
    "beta1" => beta1,
    "beta2" => beta2,
    "epsilon" => epsilon,
    "clip-norm" => clip_norm,
    "sampling" => sampling,
    "patience" => patience,
    "min-delta" => min_delta,
    "schedule" => schedule,
    "warm-up" => warm_up,
    "step-size" => step_size,
    "gamma" => gamma,
    "milestones" => milestones,
    "min-lr" => min_lr,
    "cosine-epochs" => cosine_epochs,
    "plateau-patience" => plateau_patience,
    "plateau-threshold" => plateau_threshold,
    "plateau-cooldown" => plateau_cooldown,
    "pct-start" => pct_start,
    "div-factor" => div_factor,
    "final-div-factor" => final_div_factor,
    "cycle-momentum" => cycle_momentum,
    "base-momentum" => base_momentum,
    "max-momentum" => max_momentum,
    "C" => c,
    "tolerance" => tolerance,
    "max-iterations" => max_iterations,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum SolverName {
    Sgd,
    Adamw,
    Lbfgs,
    Linfa,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ScheduleName {
    Step,
    Multistep,
    Exponential,
    Cosine,
    OneCycle,
    Constant,
    Plateau,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum SamplingName {
    Shuffled,
    Balanced,
}

/// `--milestones`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Milestones(pub(super) Vec<usize>);

impl FromStr for Milestones {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let epoch = |item: &str| {
            let number = item.trim().parse();
            number.map_err(|_| format!("`{item}` is no epoch: write epochs with commas, such as 10,20"))
        };
        text.split(',').map(epoch).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Milestones {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let epochs: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        formatter.write_str(&epochs.join(","))
    }
}

/// Names as the command line has them.
macro_rules! display_by_name {
    ($($name:ty),*) => {
        $(impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.to_possible_value().expect("none is hidden").get_name())
            }
        })*
    };
}

display_by_name!(SolverName, ScheduleName, SamplingName);

/// Reads options from pairs of names and values, as clap reads them from the command line.
pub(super) struct PairParser {
    command: clap::Command,
}

impl PairParser {
    pub(super) fn new() -> Self {
        let command = clap::Command::new("train-head")
            .no_binary_name(true)
            .disable_help_flag(true);
        Self {
            command: TrainingArguments::augment_args(command),
        }
    }

    /// The names of all options, without dashes.
    pub(super) fn names(&self) -> Vec<&str> {
        self.command.get_arguments().filter_map(clap::Arg::get_long).collect()
    }

    /// The option of this name with this value.
    ///
    /// # Errors
    /// [`Error::Usage`] with clap's own words.
    pub(super) fn parse(&mut self, name: &str, value: &str) -> Result<TrainingArguments> {
        self.command
            .try_get_matches_from_mut([format!("--{name}={value}")])
            .and_then(|matches| TrainingArguments::from_arg_matches(&matches))
            .map_err(|error| {
                let text = error.to_string();
                let said = text.split("\n\n").next().unwrap_or(&text);
                let lines: Vec<&str> = said.trim_start_matches("error: ").lines().map(str::trim).collect();
                Error::Usage(lines.join(" "))
            })
    }
}

#[cfg(test)]
#[path = "arguments_tests.rs"]
pub(super) mod tests;
