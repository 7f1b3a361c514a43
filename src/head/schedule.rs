//! How the learning rate changes while a head is trained.
//!
//! Here is what can be asked for and whether it makes sense; `scheduler.rs` turns it into the rate of each step. The
//! schedules are those of PyTorch's `torch.optim.lr_scheduler`, under its names and with its defaults.

mod scheduler;

use serde::{Deserialize, Serialize};

pub(super) use scheduler::{Rates, Scheduler};

use crate::{Error, Result};

/// A learning-rate schedule.
///
/// Epochs are counted from 0, after the warm-up if there is one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Schedule {
    /// The same rate in every epoch.
    Constant,
    /// A rate that falls in steps of equal length.
    Step(StepLr),
    /// A rate that falls at given epochs.
    MultiStep(MultiStepLr),
    /// A rate that falls by the same factor after every epoch.
    Exponential(ExponentialLr),
    /// A rate that falls along half a cosine wave.
    Cosine(CosineLr),
    /// A rate that rises and falls once, mini-batch by mini-batch.
    OneCycle(OneCycleLr),
    /// A rate that falls when the validation loss no longer does.
    Plateau(PlateauLr),
}

impl Default for Schedule {
    fn default() -> Self {
        Self::Step(StepLr::default())
    }
}

/// Multiplies the learning rate by `gamma` every `step_size` epochs.
///
/// `rate(epoch) = initial · gamma^⌊epoch / step_size⌋`, from PyTorch's `torch.optim.lr_scheduler.StepLR`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StepLr {
    /// Epochs between two steps. Default: 7.
    pub step_size: usize,
    /// The factor of a step. Default: 0.1.
    pub gamma: f64,
}

impl Default for StepLr {
    fn default() -> Self {
        Self {
            step_size: 7,
            gamma: 0.1,
        }
    }
}

/// Multiplies the learning rate by `gamma` at each of the `milestones`.
///
/// From PyTorch's `torch.optim.lr_scheduler.MultiStepLR`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MultiStepLr {
    /// The epochs that begin with a lower rate, in rising order.
    pub milestones: Vec<usize>,
    /// The factor of a step. Default: 0.1.
    #[serde(default = "tenth")]
    pub gamma: f64,
}

fn tenth() -> f64 {
    0.1
}

/// Multiplies the learning rate by `gamma` after every epoch.
///
/// `rate(epoch) = initial · gamma^epoch`, from PyTorch's `torch.optim.lr_scheduler.ExponentialLR`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExponentialLr {
    /// The factor of an epoch.
    pub gamma: f64,
}

/// Lowers the learning rate along half a cosine wave; a training that goes on beyond it climbs the other half.
///
/// `rate(epoch) = min_lr + (initial − min_lr) · (1 + cos(π · epoch / epochs)) / 2`, from PyTorch's
/// `torch.optim.lr_scheduler.CosineAnnealingLR`, which calls them `eta_min` and `T_max`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CosineLr {
    /// The lowest rate. Default: 0.
    pub min_lr: f64,
    /// Epochs until the lowest rate is reached. Default: all epochs after the warm-up.
    pub epochs: Option<usize>,
}

/// Raises the learning rate from `initial / div_factor` to the given rate, then lowers it far below where it began.
///
/// It changes with every mini-batch, along half cosine waves, over the whole training. From PyTorch's
/// `torch.optim.lr_scheduler.OneCycleLR`, whose `max_lr` is the learning rate of the training here.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OneCycleLr {
    /// The share of the mini-batches in which the rate rises. Default: 0.3.
    pub pct_start: f64,
    /// The highest rate divided by the first one. Default: 25.
    pub div_factor: f64,
    /// The first rate divided by the last one. Default: 10,000.
    pub final_div_factor: f64,
    /// Whether the momentum (SGD) or beta1 (AdamW) falls while the rate rises, and rises while it falls, whatever value
    /// was given for it. Default: true.
    pub cycle_momentum: bool,
    /// The momentum at the highest rate. Default: 0.85.
    pub base_momentum: f64,
    /// The momentum of the first and the last mini-batch. Default: 0.95.
    pub max_momentum: f64,
}

impl Default for OneCycleLr {
    fn default() -> Self {
        Self {
            pct_start: 0.3,
            div_factor: 25.0,
            final_div_factor: 1e4,
            cycle_momentum: true,
            base_momentum: 0.85,
            max_momentum: 0.95,
        }
    }
}

/// Multiplies the learning rate by `factor` when the validation loss has not fallen for more than `patience` epochs.
///
/// From PyTorch's `torch.optim.lr_scheduler.ReduceLROnPlateau`; as there, a change of less than 1e-8 is not made.
/// Epochs of the warm-up are not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlateauLr {
    /// The factor of a step. Default: 0.1.
    pub factor: f64,
    /// Epochs without a lower loss that are borne. Default: 10.
    pub patience: usize,
    /// The share of the lowest loss by which a loss must be below it to count as lower. Default: 0.0001.
    pub threshold: f64,
    /// Epochs after a step in which a loss that is not lower does not count. Default: 0.
    pub cooldown: usize,
    /// The lowest rate. Default: 0.
    pub min_lr: f64,
}

impl Default for PlateauLr {
    fn default() -> Self {
        Self {
            factor: 0.1,
            patience: 10,
            threshold: 1e-4,
            cooldown: 0,
            min_lr: 0.0,
        }
    }
}

impl Schedule {
    /// Checks the schedule's own values.
    pub(super) fn check(&self) -> Result<()> {
        match self {
            Self::Constant => Ok(()),
            Self::Step(step) => {
                at_least_one("the schedule's step size", step.step_size)?;
                positive("gamma", step.gamma)
            }
            Self::MultiStep(steps) => {
                if steps.milestones.is_empty() || !steps.milestones.is_sorted_by(|one, next| one < next) {
                    return usage(format!(
                        "the schedule's milestones are {:?}: they must be epochs in rising order, each once",
                        steps.milestones
                    ));
                }
                at_least_one("the schedule's first milestone", steps.milestones[0])?;
                positive("gamma", steps.gamma)
            }
            Self::Exponential(fall) => positive("gamma", fall.gamma),
            Self::Cosine(wave) => {
                at_least_one("the length of the schedule's wave", wave.epochs.unwrap_or(1))?;
                within("min_lr", wave.min_lr, 0.0, f64::MAX)
            }
            Self::OneCycle(cycle) => {
                within("pct_start", cycle.pct_start, 0.0, 1.0)?;
                positive("div_factor", cycle.div_factor)?;
                positive("final_div_factor", cycle.final_div_factor)?;
                below_one("base_momentum", cycle.base_momentum)?;
                below_one("max_momentum", cycle.max_momentum)
            }
            Self::Plateau(plateau) => {
                positive("factor", plateau.factor)?;
                below_one("factor", plateau.factor)?;
                below_one("threshold", plateau.threshold)?;
                within("min_lr", plateau.min_lr, 0.0, f64::MAX)
            }
        }
    }

    /// Checks that a warm-up of so many epochs goes with the schedule.
    pub(super) fn check_warm_up(&self, warm_up_epochs: usize, epochs: usize) -> Result<()> {
        if warm_up_epochs > 0 && matches!(self, Self::OneCycle(_)) {
            return usage("the one-cycle schedule warms up by itself: leave the warm-up out".to_owned());
        }
        if warm_up_epochs > epochs {
            return usage(format!(
                "a warm-up of {warm_up_epochs} epochs does not fit into a training of {epochs}"
            ));
        }
        Ok(())
    }
}

fn at_least_one(what: &str, epochs: usize) -> Result<()> {
    if epochs == 0 {
        return usage(format!("{what} is 0: it counts epochs and must be at least 1"));
    }
    Ok(())
}

fn positive(name: &str, value: f64) -> Result<()> {
    if !(value.is_finite() && value > 0.0) {
        return usage(format!(
            "the schedule's {name} is {value}: it must be a finite number above 0"
        ));
    }
    Ok(())
}

fn below_one(name: &str, value: f64) -> Result<()> {
    if !(0.0..1.0).contains(&value) {
        return usage(format!(
            "the schedule's {name} is {value}: it must be 0 or above, and below 1"
        ));
    }
    Ok(())
}

fn within(name: &str, value: f64, lowest: f64, highest: f64) -> Result<()> {
    if !(lowest..=highest).contains(&value) {
        let bounds = if highest == f64::MAX {
            format!("a finite number, {lowest} or above")
        } else {
            format!("between {lowest} and {highest}")
        };
        return usage(format!("the schedule's {name} is {value}: it must be {bounds}"));
    }
    Ok(())
}

fn usage(problem: String) -> Result<()> {
    Err(Error::Usage(problem))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
#[path = "schedule/schedule_tests.rs"]
mod tests;
