//! How the learning rate changes from epoch to epoch.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A learning-rate schedule.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Schedule {
    /// The same rate in every epoch.
    Constant,
    /// A rate that falls in steps.
    Step(StepLr),
}

impl Default for Schedule {
    fn default() -> Self {
        Self::Step(StepLr::default())
    }
}

impl Schedule {
    /// The learning rate of an epoch, counted from 0, where the first epoch's is `initial`.
    #[must_use]
    pub fn learning_rate(&self, initial: f64, epoch: usize) -> f64 {
        match self {
            Self::Constant => initial,
            Self::Step(step) => step.learning_rate(initial, epoch),
        }
    }

    /// Checks the schedule's own values.
    pub(super) fn check(&self) -> Result<()> {
        match self {
            Self::Constant => Ok(()),
            Self::Step(StepLr { step_size: 0, .. }) => Err(Error::Usage(
                "the schedule's step size is 0: it counts epochs and must be at least 1".to_owned(),
            )),
            Self::Step(StepLr { gamma, .. }) if !(gamma.is_finite() && *gamma > 0.0) => Err(Error::Usage(format!(
                "the schedule's gamma is {gamma}: it must be a finite number above 0"
            ))),
            Self::Step(_) => Ok(()),
        }
    }
}

/// Multiplies the learning rate by `gamma` every `step_size` epochs.
///
/// `rate(epoch) = initial · gamma^⌊epoch / step_size⌋`, from PyTorch's `torch.optim.lr_scheduler.StepLR`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
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

impl StepLr {
    fn learning_rate(&self, initial: f64, epoch: usize) -> f64 {
        // Repeated multiplication, not `powi`: PyTorch's bits, on every platform.
        (0..epoch / self.step_size).fold(initial, |rate, _| rate * self.gamma)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_lr_changes_at_multiples_of_the_step_size() {
        let schedule = Schedule::Step(StepLr {
            step_size: 3,
            gamma: 0.5,
        });
        let rates: Vec<f64> = (0..8).map(|epoch| schedule.learning_rate(0.8, epoch)).collect();
        assert_eq!(rates, [0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.2, 0.2]);
        assert_eq!(Schedule::Constant.learning_rate(0.8, 100), 0.8);
    }

    #[test]
    fn senseless_schedules_are_refused() {
        for (step_size, gamma) in [(0, 0.1), (7, 0.0), (7, f64::NAN), (7, f64::INFINITY)] {
            assert!(
                Schedule::Step(StepLr { step_size, gamma }).check().is_err(),
                "{step_size} {gamma}"
            );
        }
        assert!(Schedule::default().check().is_ok());
    }
}
