//! The learning rate and the momentum of each step of one training.
//!
//! The arithmetic is PyTorch's, which multiplies the rate of the epoch before where that can be done, so that rates are
//! PyTorch's bits wherever no cosine is in them.

use std::f64::consts::PI;

use super::{OneCycleLr, PlateauLr, Schedule};

/// What the warm-up's first rate is of the whole: the default of PyTorch's `torch.optim.lr_scheduler.LinearLR`.
const WARM_UP_START: f64 = 1.0 / 3.0;

/// `ReduceLROnPlateau` leaves the rate alone where it would fall by no more than this, its `eps`.
const SMALLEST_FALL: f64 = 1e-8;

/// What changes from step to step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::head) struct Rates {
    pub(in crate::head) learning_rate: f64,
    /// Of SGD; beta1 of AdamW.
    pub(in crate::head) momentum: f64,
}

/// A schedule at work: the state of one training.
///
/// A warm-up of some epochs comes before the schedule, as `SequentialLR` puts it after a `LinearLR`: the schedule's epoch
/// 0 is the first one after it. The warm-up's rate changes with every mini-batch, because epochs are few.
#[derive(Debug, Clone)]
pub(in crate::head) struct Scheduler {
    initial: Rates,
    warm_up_epochs: usize,
    steps_per_epoch: usize,
    epochs_ended: usize,
    course: Course,
}

/// The rates after the warm-up.
#[derive(Debug, Clone)]
enum Course {
    /// One rate for each epoch, from that of the one before.
    Epochs {
        schedule: Schedule,
        /// How many epochs were announced.
        epochs: usize,
        /// The rate of the next epoch.
        learning_rate: f64,
    },
    /// Rates that change with every one of so many steps.
    Cycle { cycle: OneCycleLr, steps: usize },
    /// A rate that depends on how the training goes.
    Plateau(Plateau),
}

impl Scheduler {
    /// The state before the first step.
    ///
    /// `momentum` is what the steps have where the schedule does not change it (beta1 for AdamW).
    pub(in crate::head) fn new(
        schedule: &Schedule,
        learning_rate: f64,
        momentum: f64,
        warm_up_epochs: usize,
        epochs: usize,
        steps_per_epoch: usize,
    ) -> Self {
        let initial = Rates {
            learning_rate,
            momentum,
        };
        let left = epochs.saturating_sub(warm_up_epochs);
        let course = match schedule {
            Schedule::OneCycle(cycle) => Course::Cycle {
                cycle: *cycle,
                steps: left * steps_per_epoch,
            },
            Schedule::Plateau(plateau) => Course::Plateau(Plateau::new(*plateau, learning_rate)),
            _ => Course::Epochs {
                schedule: schedule.clone(),
                epochs: left,
                learning_rate,
            },
        };
        Self {
            initial,
            warm_up_epochs,
            steps_per_epoch,
            epochs_ended: 0,
            course,
        }
    }

    /// The rates of a step, counted from 0 within its epoch, which is the one after those that ended.
    ///
    /// Beyond the epochs and steps that were announced, the last rate stays.
    pub(in crate::head) fn rates(&self, epoch: usize, step: usize) -> Rates {
        let Some(epoch) = epoch.checked_sub(self.warm_up_epochs) else {
            return self.warm_up(epoch * self.steps_per_epoch + step);
        };
        let learning_rate = match &self.course {
            Course::Epochs { learning_rate, .. } => *learning_rate,
            Course::Plateau(plateau) => plateau.learning_rate,
            Course::Cycle { cycle, steps } => {
                let step = (epoch * self.steps_per_epoch + step).min(steps.saturating_sub(1));
                return cycle_rates(cycle, self.initial, step, *steps);
            }
        };
        Rates {
            learning_rate,
            ..self.initial
        }
    }

    /// Takes in how an epoch ended; to be called once after each.
    pub(in crate::head) fn epoch_ended(&mut self, val_loss: Option<f64>) {
        self.epochs_ended += 1;
        let epoch = self.epochs_ended.saturating_sub(self.warm_up_epochs);
        if epoch == 0 {
            return;
        }
        match (&mut self.course, val_loss) {
            (Course::Plateau(plateau), Some(loss)) => plateau.take(loss),
            (
                Course::Epochs {
                    schedule,
                    epochs,
                    learning_rate,
                },
                _,
            ) if epoch < *epochs => {
                *learning_rate = next_rate(schedule, *learning_rate, self.initial.learning_rate, *epochs, epoch);
            }
            _ => {}
        }
    }

    /// `LinearLR` in closed form: `initial · (s + (1 − s) · step / steps)` from the share `s`.
    fn warm_up(&self, step: usize) -> Rates {
        let steps = (self.warm_up_epochs * self.steps_per_epoch) as f64;
        let share = WARM_UP_START + (1.0 - WARM_UP_START) * (step as f64 / steps).min(1.0);
        Rates {
            learning_rate: self.initial.learning_rate * share,
            ..self.initial
        }
    }
}

/// The rate of an epoch after the first, from that of the one before.
fn next_rate(schedule: &Schedule, rate: f64, initial: f64, epochs: usize, epoch: usize) -> f64 {
    match schedule {
        Schedule::Step(step) if epoch.is_multiple_of(step.step_size) => rate * step.gamma,
        Schedule::MultiStep(steps) if steps.milestones.contains(&epoch) => rate * steps.gamma,
        Schedule::Exponential(fall) => rate * fall.gamma,
        Schedule::Cosine(wave) => cosine(rate, initial, wave.min_lr, wave.epochs.unwrap_or(epochs), epoch),
        _ => rate,
    }
}

/// `CosineAnnealingLR`: the rate of an epoch after the first, given that of the one before.
fn cosine(rate: f64, initial: f64, lowest: f64, length: usize, epoch: usize) -> f64 {
    let angle = |epoch: usize| PI * epoch as f64 / length as f64;
    // The epoch before was the lowest point, from where no factor leads up.
    if epoch > length && (epoch - 1 - length).is_multiple_of(2 * length) {
        return rate + (initial - lowest) * (1.0 - angle(1).cos()) / 2.0;
    }
    (1.0 + angle(epoch).cos()) / (1.0 + angle(epoch - 1).cos()) * (rate - lowest) + lowest
}

/// `OneCycleLR` with two phases and cosine annealing.
fn cycle_rates(cycle: &OneCycleLr, initial: Rates, step: usize, steps: usize) -> Rates {
    let highest = initial.learning_rate;
    let first = highest / cycle.div_factor;
    let last = first / cycle.final_div_factor;
    let (step, end) = (step as f64, steps.saturating_sub(1) as f64);
    // PyTorch counts steps from 0, so that the peak is at this one, which may lie between two.
    let peak = cycle.pct_start * steps as f64 - 1.0;
    let rising = step <= peak;
    let share = if rising {
        share_of(step, peak)
    } else {
        share_of(step - peak, end - peak)
    };
    let between = |start: f64, end: f64| end + (start - end) / 2.0 * ((PI * share).cos() + 1.0);
    let (low, high) = (cycle.base_momentum, cycle.max_momentum);
    let (learning_rate, momentum) = if rising {
        (between(first, highest), between(high, low))
    } else {
        (between(highest, last), between(low, high))
    };
    Rates {
        learning_rate,
        momentum: if cycle.cycle_momentum {
            momentum
        } else {
            initial.momentum
        },
    }
}

/// How far a phase has come; one of no length is at its end, where PyTorch would divide by 0.
fn share_of(done: f64, all: f64) -> f64 {
    if all == 0.0 { 1.0 } else { done / all }
}

/// `ReduceLROnPlateau` in its mode `min` with a relative threshold.
#[derive(Debug, Clone)]
struct Plateau {
    options: PlateauLr,
    learning_rate: f64,
    lowest_loss: f64,
    /// Epochs since the lowest loss.
    bad_epochs: usize,
    cooldown_left: usize,
}

impl Plateau {
    fn new(options: PlateauLr, learning_rate: f64) -> Self {
        Self {
            options,
            learning_rate,
            lowest_loss: f64::INFINITY,
            bad_epochs: 0,
            cooldown_left: 0,
        }
    }

    fn take(&mut self, loss: f64) {
        if loss < self.lowest_loss * (1.0 - self.options.threshold) {
            self.lowest_loss = loss;
            self.bad_epochs = 0;
        } else {
            self.bad_epochs += 1;
        }
        if self.cooldown_left > 0 {
            self.cooldown_left -= 1;
            self.bad_epochs = 0;
        }
        if self.bad_epochs > self.options.patience {
            let lower = (self.learning_rate * self.options.factor).max(self.options.min_lr);
            if self.learning_rate - lower > SMALLEST_FALL {
                self.learning_rate = lower;
            }
            self.cooldown_left = self.options.cooldown;
            self.bad_epochs = 0;
        }
    }
}
