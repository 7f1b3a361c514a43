//! One head on its way down: its weights, what the update rule remembers, and how its training goes.

use super::aligned::Aligned;
use super::criterion::Criterion;
use super::step::{FUSED_ROWS, Residuals, Step};
use crate::head::kernel;
use crate::head::linear::LinearHead;
use crate::head::loss::{RowScore, Score};
use crate::head::recipe::{Descent, EarlyStopping, Recipe, Update};
use crate::head::schedule::{Rates, Schedule, Scheduler};
use crate::head::training::{EpochRecord, Progress, Training, TrainingTask};
use crate::{Error, Result};

/// What PyTorch's `clip_grad_norm_` adds to the norm it divides by.
const CLIP_EPSILON: f64 = 1e-6;

/// A head in training.
#[derive(Debug, Clone)]
pub(super) struct Learner<'r> {
    /// The recipe's place among all.
    pub(super) index: usize,
    pub(super) criterion: Criterion,
    options: &'r Descent,
    scheduler: Scheduler,
    /// The weights, `[classes, dim]`, and after them the bias; so all that follow.
    parameters: Aligned,
    /// Velocity or mean of the gradient.
    first: Aligned,
    /// AdamW's mean of the squared gradient.
    second: Aligned,
    /// What `parameters` were at the end of the last epoch.
    head: LinearHead,
    /// Steps made.
    made: u64,
    /// The training rows of this epoch.
    score: Score,
    /// The learning rate of the epoch's first step.
    learning_rate: f64,
    patience: Patience,
    progress: Progress,
}

impl<'r> Learner<'r> {
    pub(super) fn new(index: usize, recipe: &Recipe, options: &'r Descent, task: &TrainingTask<'_>) -> Result<Self> {
        let (classes, dim, labels) = (task.classes(), task.train().dim(), task.train().labels());
        if let Some(order) = task.order().filter(|order| order.len() < options.epochs) {
            return Err(Error::Examples(format!(
                "an order of {} epochs was given for a training of {}",
                order.len(),
                options.epochs
            )));
        }
        if u32::try_from(labels.len()).is_err() {
            return Err(Error::Examples(format!(
                "{} training rows are more than gradient descent can take: give it fewer than 2³²",
                labels.len()
            )));
        }
        if options.early_stopping.is_some() && task.validation().is_none() {
            return Err(Error::Usage(
                "early stopping watches the validation loss: it needs validation examples".to_owned(),
            ));
        }
        if matches!(options.schedule, Schedule::Plateau(_)) && task.validation().is_none() {
            return Err(Error::Usage(
                "the schedule plateau watches the validation loss: it needs validation examples".to_owned(),
            ));
        }
        let head = match task.initial_head() {
            Some(head) => head.clone(),
            None => LinearHead::uniform(classes, dim, recipe.seed)?,
        };
        let count = classes * (dim + 1);
        let mut parameters = Aligned::zeros(count);
        let (weight, bias) = parameters.split_at_mut(classes * dim);
        weight.copy_from_slice(head.slices().0);
        bias.copy_from_slice(head.slices().1);
        let (momentum, second) = match options.update {
            Update::Sgd { momentum, .. } => (momentum, 0),
            Update::AdamW { beta1, .. } => (beta1, count),
        };
        let rows = task.order().map_or(labels.len(), |order| order[0].len());
        Ok(Self {
            index,
            criterion: Criterion::new(recipe, task)?,
            parameters,
            head,
            options,
            scheduler: Scheduler::new(
                &options.schedule,
                options.learning_rate,
                momentum,
                options.warm_up_epochs,
                options.epochs,
                rows.div_ceil(options.batch_size),
            ),
            first: Aligned::zeros(count),
            second: Aligned::zeros(second),
            made: 0,
            score: Score::default(),
            learning_rate: options.learning_rate,
            patience: Patience::default(),
            progress: Progress::default(),
        })
    }

    /// Bytes that every step goes through.
    pub(super) fn bytes(&self) -> usize {
        size_of::<f32>() * (2 * self.first.len() + self.second.len())
    }

    /// Weight, `[classes, dim]`, and bias.
    pub(super) fn slices(&self) -> (&[f32], &[f32]) {
        self.parameters.split_at(self.weights())
    }

    /// How many weights there are without the bias.
    fn weights(&self) -> usize {
        self.head.classes() * self.head.dim()
    }

    /// Its options.
    pub(super) fn options(&self) -> &'r Descent {
        self.options
    }

    /// Takes in the score of a training row.
    pub(super) fn add_row(&mut self, row: RowScore) {
        self.score.add_row(row);
    }

    fn next_step(&mut self, epoch: usize, number: usize) -> Step {
        let rates: Rates = self.scheduler.rates(epoch, number);
        if number == 0 {
            self.learning_rate = rates.learning_rate;
        }
        let step = Step::new(self.options, rates, self.made);
        step.tidy(&mut self.first, self.made);
        self.made += 1;
        step
    }

    /// Makes step `number` of `epoch` down the gradient of a batch's rows.
    pub(super) fn descend(
        &mut self,
        (epoch, number): (usize, usize),
        rows: &[&[f32]],
        residuals: &Residuals<'_>,
        gradient: &mut Vec<f32>,
    ) {
        match self.next_step(epoch, number) {
            Step::Sgd(sgd) if rows.len() <= FUSED_ROWS && self.options.clip_norm.is_none() => {
                let (dim, weights) = (self.head.dim(), self.weights());
                let (weight, bias) = self.parameters.split_at_mut(weights);
                let (by_weight, by_bias) = self.first.split_at_mut(weights);
                sgd.descend(weight, by_weight, dim, residuals, rows);
                sgd.descend_bias(bias, by_bias, residuals);
            }
            step => {
                gradient.resize(self.first.len(), 0.0);
                residuals.gradient(self.head.dim(), rows, gradient);
                self.apply(step, gradient);
            }
        }
    }

    /// Makes step `number` of `epoch` down a gradient: by weight, and after it by bias.
    pub(super) fn descend_along(&mut self, (epoch, number): (usize, usize), gradient: &mut [f32]) {
        let step = self.next_step(epoch, number);
        self.apply(step, gradient);
    }

    fn apply(&mut self, step: Step, gradient: &mut [f32]) {
        if let Some(largest) = self.options.clip_norm {
            let factor = largest / (kernel::sum_of_squares(gradient).sqrt() + CLIP_EPSILON);
            if factor < 1.0 {
                let factor = factor as f32;
                gradient.iter_mut().for_each(|value| *value *= factor);
            }
        }
        step.apply(&mut self.parameters, &mut self.first, &mut self.second, gradient);
    }

    /// Ends an epoch, and says whether it was the last one.
    ///
    /// # Errors
    /// [`Error::Diverged`] if a loss or a weight is not finite.
    pub(super) fn end_epoch(
        &mut self,
        epoch: usize,
        validation: Option<Score>,
        on_epoch: &mut dyn FnMut(&EpochRecord),
    ) -> Result<bool> {
        let score = std::mem::take(&mut self.score);
        let (weight, bias) = self.head.slices_mut();
        let (weights, biases) = self.parameters.split_at(weight.len());
        weight.copy_from_slice(weights);
        bias.copy_from_slice(biases);
        let val_loss = validation.map(|score| score.loss());
        if !(score.loss().is_finite() && val_loss.is_none_or(f64::is_finite) && self.head.is_finite()) {
            return Err(Error::Diverged {
                epoch,
                learning_rate: self.learning_rate,
            });
        }
        let record = EpochRecord {
            epoch,
            learning_rate: self.learning_rate,
            train_loss: score.loss(),
            train_accuracy: score.accuracy(),
            val_loss,
            val_accuracy: validation.map(|score| score.accuracy()),
        };
        on_epoch(self.progress.record(record, &self.head));
        self.scheduler.epoch_ended(val_loss);
        let given_up = self.options.early_stopping.zip(val_loss);
        let given_up = given_up.is_some_and(|(options, loss)| self.patience.is_over(options, loss));
        Ok(given_up || epoch + 1 == self.options.epochs)
    }

    /// The training that ended.
    pub(super) fn finish(self) -> Training {
        self.progress.finish(self.head)
    }
}

/// How long the validation loss has not fallen.
#[derive(Debug, Clone)]
struct Patience {
    lowest_loss: f64,
    epochs: usize,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            lowest_loss: f64::INFINITY,
            epochs: 0,
        }
    }
}

impl Patience {
    fn is_over(&mut self, options: EarlyStopping, loss: f64) -> bool {
        if loss < self.lowest_loss - options.min_delta {
            self.lowest_loss = loss;
            self.epochs = 0;
        } else {
            self.epochs += 1;
        }
        self.epochs >= options.patience
    }
}
