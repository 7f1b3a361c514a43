//! Mini-batch stochastic gradient descent with momentum, step for step as PyTorch does it.
//!
//! One head is trained by one thread without an allocation per batch; heads do not share anything, so several can be
//! trained side by side. The arithmetic is in [`super::kernel`], the choice of the best epoch in [`super::training`].

use super::kernel::{self, Step};
use super::linear::LinearHead;
use super::loss::Score;
use super::random::{Random, Stream};
use super::recipe::{Descent, Recipe, Update};
use super::schedule::{Rates, Scheduler};
use super::training::{EpochRecord, Examples, Progress, Training, TrainingTask};
use crate::{Error, Observer, Result};

/// Trains a head by gradient descent.
pub(super) fn fit(
    options: &Descent,
    recipe: &Recipe,
    task: &TrainingTask<'_>,
    observer: &dyn Observer,
    on_epoch: &mut dyn FnMut(&EpochRecord),
) -> Result<Training> {
    let train = task.train();
    if let Some(order) = task.order().filter(|order| order.len() < options.epochs) {
        let problem = format!(
            "an order of {} epochs was given for a training of {}",
            order.len(),
            options.epochs
        );
        return Err(Error::Examples(problem));
    }
    let head = match task.initial_head() {
        Some(head) => head.clone(),
        None => LinearHead::uniform(task.classes(), train.dim(), recipe.seed)?,
    };
    let mut running = Running::new(head);
    let mut batch = Batch::default();
    let mut shuffled: Vec<usize> = (0..train.rows()).collect();
    let mut random = Random::new(recipe.seed, Stream::Order);
    let mut progress = Progress::default();
    let momentum = match options.update {
        Update::Sgd { momentum, .. } => momentum,
        Update::AdamW { beta1, .. } => beta1,
    };
    let rows = task.order().map_or(train.rows(), |order| order[0].len());
    let mut scheduler = Scheduler::new(
        &options.schedule,
        options.learning_rate,
        momentum,
        options.warm_up_epochs,
        options.epochs,
        rows.div_ceil(options.batch_size),
    );
    for epoch in 0..options.epochs {
        let learning_rate = scheduler.rates(epoch, 0).learning_rate;
        let order: &[usize] = if let Some(order) = task.order() {
            &order[epoch]
        } else {
            random.shuffle(&mut shuffled);
            &shuffled
        };
        let mut score = Score::default();
        for (index, rows) in order.chunks(options.batch_size).enumerate() {
            if observer.interrupted() {
                return Err(Error::Interrupted);
            }
            batch.gather(train, rows);
            running.step(
                &batch,
                step(options, scheduler.rates(epoch, index), running.started)?,
                &mut score,
            );
        }
        let head = &running.head;
        let validation = match task.validation() {
            Some(validation) => Some(head.score(validation.features(), validation.labels())?),
            None => None,
        };
        if !(score.loss().is_finite() && validation.is_none_or(|score| score.loss().is_finite()) && head.is_finite()) {
            return Err(Error::Diverged { epoch, learning_rate });
        }
        let record = EpochRecord {
            epoch,
            learning_rate,
            train_loss: score.loss(),
            train_accuracy: score.accuracy(),
            val_loss: validation.map(|score| score.loss()),
            val_accuracy: validation.map(|score| score.accuracy()),
        };
        scheduler.epoch_ended(record.val_loss);
        on_epoch(progress.record(record, head));
    }
    Ok(progress.finish(running.head))
}

/// The constants of one step; `started` is false for the very first.
fn step(options: &Descent, rates: Rates, started: bool) -> Result<Step> {
    let Update::Sgd {
        dampening, nesterov, ..
    } = options.update
    else {
        return Err(Error::Usage("this solver is not built yet".to_owned()));
    };
    // PyTorch copies the first gradient into its momentum buffer, and dampens only a buffer that exists.
    let dampened = started && rates.momentum != 0.0;
    Ok(Step {
        rate: rates.learning_rate as f32,
        decay: options.weight_decay as f32,
        momentum: rates.momentum as f32,
        gain: if dampened { (1.0 - dampening) as f32 } else { 1.0 },
        nesterov,
    })
}

/// The rows and labels of one mini-batch; the buffers are reused.
#[derive(Debug, Default)]
struct Batch<'a> {
    rows: Vec<&'a [f32]>,
    labels: Vec<usize>,
}

impl<'a> Batch<'a> {
    fn gather(&mut self, examples: &'a Examples<'_>, rows: &[usize]) {
        self.rows.clear();
        self.rows.extend(rows.iter().map(|&row| examples.row(row)));
        self.labels.clear();
        self.labels.extend(rows.iter().map(|&row| examples.labels()[row]));
    }
}

/// One head on its way down: the head, its momentum, and the buffers of a step.
#[derive(Debug)]
struct Running {
    head: LinearHead,
    weight_velocity: Vec<f32>,
    bias_velocity: Vec<f32>,
    /// Whether a step was made; before, the velocities are all 0.
    started: bool,
    /// `[rows, classes]`.
    logits: Vec<f32>,
    /// `[classes, rows]`: the derivative of the batch's mean loss by each logit.
    residuals: Vec<f32>,
}

impl Running {
    fn new(head: LinearHead) -> Self {
        let (weight, bias) = (head.classes() * head.dim(), head.classes());
        Self {
            head,
            weight_velocity: vec![0.0; weight],
            bias_velocity: vec![0.0; bias],
            started: false,
            logits: Vec::new(),
            residuals: Vec::new(),
        }
    }

    /// Adds the batch to `score`, then moves the head by one step.
    fn step(&mut self, batch: &Batch<'_>, step: Step, score: &mut Score) {
        self.differentiate(batch, score);
        let dim = self.head.dim();
        let rows = batch.rows.len();
        let (weight, bias) = self.head.slices_mut();
        let weights = weight
            .chunks_exact_mut(dim)
            .zip(self.weight_velocity.chunks_exact_mut(dim));
        for ((weight, velocity), residuals) in weights.zip(self.residuals.chunks_exact(rows)) {
            step.descend(weight, velocity, residuals, &batch.rows);
        }
        for ((bias, velocity), residuals) in bias
            .iter_mut()
            .zip(&mut self.bias_velocity)
            .zip(self.residuals.chunks_exact(rows))
        {
            let gradient: f32 = residuals.iter().sum();
            step.apply(std::slice::from_mut(bias), std::slice::from_mut(velocity), &[gradient]);
        }
        self.started = true;
    }

    /// Fills `logits` and `residuals`: `(softmax(z) - onehot(label)) / rows`.
    fn differentiate(&mut self, batch: &Batch<'_>, score: &mut Score) {
        let classes = self.head.classes();
        let rows = batch.rows.len();
        self.logits.resize(rows * classes, 0.0);
        self.residuals.resize(rows * classes, 0.0);
        let (weight, bias) = self.head.slices();
        kernel::logits(weight, bias, &batch.rows, &mut self.logits);
        let scale = 1.0 / rows as f64;
        for (row, (logits, &label)) in self.logits.chunks_exact(classes).zip(&batch.labels).enumerate() {
            let log_sum_exp = score.add(logits, label);
            for (class, &logit) in logits.iter().enumerate() {
                let target = if class == label { 1.0 } else { 0.0 };
                let probability = (f64::from(logit) - log_sum_exp).exp();
                self.residuals[class * rows + row] = ((probability - target) * scale) as f32;
            }
        }
    }
}
