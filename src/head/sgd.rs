//! Mini-batch stochastic gradient descent with momentum, step for step as PyTorch does it.
//!
//! One head is trained by one thread without an allocation per batch; heads do not share anything, so several can be
//! trained side by side. The arithmetic is in [`super::kernel`], the choice of the best epoch in [`super::training`].

use linfa::ParamGuard;
use linfa::dataset::{AsSingleTargets, DatasetBase};
use linfa::traits::Fit;
use ndarray::{ArrayBase, Data, Ix2};
use serde::Serialize;

use super::kernel::{self, Step};
use super::linear::LinearHead;
use super::loss::Score;
use super::random::{Random, Stream};
use super::schedule::{Schedule, Scheduler};
use super::training::{EpochRecord, Examples, Progress, Training, TrainingTask};
use crate::{Error, Observer, Quiet, Result};

/// Options of mini-batch stochastic gradient descent, not yet checked.
///
/// The defaults are those of PyTorch's transfer-learning tutorial: 25 epochs of mini-batches of 4, learning rate 0.001,
/// momentum 0.9, times 0.1 every 7 epochs. [`check`](ParamGuard::check) gives the [`SgdValidParams`] that train.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(transparent)]
pub struct SgdParams(SgdValidParams);

/// Checked options of mini-batch stochastic gradient descent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SgdValidParams {
    epochs: usize,
    batch_size: usize,
    learning_rate: f64,
    momentum: f64,
    dampening: f64,
    weight_decay: f64,
    nesterov: bool,
    schedule: Schedule,
    seed: u64,
}

impl Default for SgdValidParams {
    fn default() -> Self {
        Self {
            epochs: 25,
            batch_size: 4,
            learning_rate: 0.001,
            momentum: 0.9,
            dampening: 0.0,
            weight_decay: 0.0,
            nesterov: false,
            schedule: Schedule::default(),
            seed: 0,
        }
    }
}

impl SgdParams {
    /// The default options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How often every training row is seen. Default: 25.
    #[must_use]
    pub fn epochs(mut self, epochs: usize) -> Self {
        self.0.epochs = epochs;
        self
    }

    /// Rows of a mini-batch; the last one of an epoch may be smaller. Default: 4.
    #[must_use]
    pub fn batch_size(mut self, batch_size: usize) -> Self {
        self.0.batch_size = batch_size;
        self
    }

    /// The learning rate of the first epoch. Default: 0.001.
    #[must_use]
    pub fn learning_rate(mut self, learning_rate: f64) -> Self {
        self.0.learning_rate = learning_rate;
        self
    }

    /// How much of a step goes into the next one. Default: 0.9.
    #[must_use]
    pub fn momentum(mut self, momentum: f64) -> Self {
        self.0.momentum = momentum;
        self
    }

    /// How much less than the whole gradient goes into the momentum, after the first step. Default: 0.
    #[must_use]
    pub fn dampening(mut self, dampening: f64) -> Self {
        self.0.dampening = dampening;
        self
    }

    /// L2 penalty: this times the parameter is added to its gradient, for weight and bias. Default: 0.
    #[must_use]
    pub fn weight_decay(mut self, weight_decay: f64) -> Self {
        self.0.weight_decay = weight_decay;
        self
    }

    /// Looks ahead along the momentum; it needs momentum and no dampening. Default: false.
    #[must_use]
    pub fn nesterov(mut self, nesterov: bool) -> Self {
        self.0.nesterov = nesterov;
        self
    }

    /// How the learning rate changes. Default: times 0.1 every 7 epochs.
    #[must_use]
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.0.schedule = schedule;
        self
    }

    /// Where the initial weights and the order of the rows come from. Default: 0.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.0.seed = seed;
        self
    }
}

impl ParamGuard for SgdParams {
    type Checked = SgdValidParams;
    type Error = Error;

    fn check_ref(&self) -> Result<&SgdValidParams> {
        let SgdValidParams {
            learning_rate,
            momentum,
            dampening,
            weight_decay,
            nesterov,
            ..
        } = self.0;
        let usage = |problem: String| Err(Error::Usage(problem));
        if self.0.epochs == 0 {
            return usage("0 epochs train nothing: give at least 1".to_owned());
        }
        if self.0.batch_size == 0 {
            return usage("the batch size is 0: it must be at least 1".to_owned());
        }
        if !(learning_rate.is_finite() && learning_rate > 0.0) {
            return usage(format!(
                "the learning rate is {learning_rate}: it must be a finite number above 0"
            ));
        }
        for (name, value) in [("momentum", momentum), ("weight decay", weight_decay)] {
            if !(value.is_finite() && value >= 0.0) {
                return usage(format!("the {name} is {value}: it must be a finite number, 0 or above"));
            }
        }
        if !dampening.is_finite() {
            return usage(format!("the dampening is {dampening}: it must be a finite number"));
        }
        if nesterov && (momentum == 0.0 || dampening != 0.0) {
            return usage("nesterov needs a momentum above 0 and a dampening of 0".to_owned());
        }
        self.0.schedule.check()?;
        self.0.schedule.check_warm_up(0, self.0.epochs)?;
        Ok(&self.0)
    }

    fn check(self) -> Result<SgdValidParams> {
        self.check_ref()?;
        Ok(self.0)
    }
}

impl SgdValidParams {
    /// Trains a head and hands each epoch's record to `on_epoch` as soon as it is known.
    ///
    /// Update rule: PyTorch's `torch.optim.SGD`; loss: mean cross-entropy of a mini-batch. The result depends on the
    /// task and these options alone.
    ///
    /// # Errors
    /// [`Error::Diverged`] if a loss or weight becomes infinite or NaN, [`Error::Interrupted`] as soon as the observer
    /// asks for it (a head of fewer epochs is not what was ordered, so it is not handed out), [`Error::Examples`] if the
    /// task's order has fewer epochs than these options.
    pub fn fit_with(
        &self,
        task: &TrainingTask<'_>,
        observer: &dyn Observer,
        on_epoch: &mut dyn FnMut(&EpochRecord),
    ) -> Result<Training> {
        let train = task.train();
        if let Some(order) = task.order().filter(|order| order.len() < self.epochs) {
            let problem = format!(
                "an order of {} epochs was given for a training of {}",
                order.len(),
                self.epochs
            );
            return Err(Error::Examples(problem));
        }
        let head = match task.initial_head() {
            Some(head) => head.clone(),
            None => LinearHead::uniform(task.classes(), train.dim(), self.seed)?,
        };
        let mut descent = Descent::new(head);
        let mut batch = Batch::default();
        let mut shuffled: Vec<usize> = (0..train.rows()).collect();
        let mut random = Random::new(self.seed, Stream::Order);
        let mut progress = Progress::default();
        let steps = train.rows().div_ceil(self.batch_size);
        let mut scheduler = Scheduler::new(&self.schedule, self.learning_rate, self.momentum, 0, self.epochs, steps);
        for epoch in 0..self.epochs {
            let learning_rate = scheduler.rates(epoch, 0).learning_rate;
            let order: &[usize] = if let Some(order) = task.order() {
                &order[epoch]
            } else {
                random.shuffle(&mut shuffled);
                &shuffled
            };
            let mut score = Score::default();
            for rows in order.chunks(self.batch_size) {
                if observer.interrupted() {
                    return Err(Error::Interrupted);
                }
                batch.gather(train, rows);
                descent.step(&batch, self.step(learning_rate, descent.started), &mut score);
            }
            let head = &descent.head;
            let validation = match task.validation() {
                Some(validation) => Some(head.score(validation.features(), validation.labels())?),
                None => None,
            };
            if !(score.loss().is_finite()
                && validation.is_none_or(|score| score.loss().is_finite())
                && head.is_finite())
            {
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
        Ok(progress.finish(descent.head))
    }

    /// The constants of one step; `started` is false for the very first.
    fn step(&self, learning_rate: f64, started: bool) -> Step {
        // PyTorch copies the first gradient into its momentum buffer, and dampens only a buffer that exists.
        let dampened = started && self.momentum != 0.0;
        Step {
            rate: learning_rate as f32,
            decay: self.weight_decay as f32,
            momentum: self.momentum as f32,
            gain: if dampened { (1.0 - self.dampening) as f32 } else { 1.0 },
            nesterov: self.nesterov,
        }
    }
}

impl<D, T> Fit<ArrayBase<D, Ix2>, T, Error> for SgdValidParams
where
    D: Data<Elem = f32>,
    T: AsSingleTargets<Elem = usize>,
{
    type Object = LinearHead;

    /// Trains on the whole data set, without validation, a head of as many classes as the largest target asks for.
    fn fit(&self, dataset: &DatasetBase<ArrayBase<D, Ix2>, T>) -> Result<LinearHead> {
        let labels = dataset.targets.as_single_targets().to_vec();
        let classes = labels.iter().max().map_or(0, |&largest| largest.saturating_add(1));
        let task = TrainingTask::new(classes, Examples::new(dataset.records.view(), &labels)?)?;
        self.fit_with(&task, &Quiet, &mut |_| ())
            .map(|training| training.final_head)
    }
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
struct Descent {
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

impl Descent {
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::head::StepLr;

    #[test]
    fn senseless_options_are_usage_errors() {
        let good = SgdParams::new;
        for (params, word) in [
            (good().epochs(0), "epochs"),
            (good().batch_size(0), "batch size"),
            (good().learning_rate(0.0), "learning rate"),
            (good().learning_rate(f64::NAN), "learning rate"),
            (good().momentum(-0.1), "momentum"),
            (good().weight_decay(f64::INFINITY), "weight decay"),
            (good().dampening(f64::NAN), "dampening"),
            (good().nesterov(true).momentum(0.0), "nesterov"),
            (good().nesterov(true).dampening(0.5), "nesterov"),
            (
                good().schedule(Schedule::Step(StepLr {
                    step_size: 0,
                    gamma: 0.1,
                })),
                "step size",
            ),
        ] {
            let error = params.check().unwrap_err();
            assert!(
                matches!(&error, Error::Usage(problem) if problem.contains(word)),
                "{error}"
            );
        }
        assert!(good().check().is_ok());
    }

    #[test]
    fn options_read_well_as_json() {
        let json = serde_json::to_value(SgdParams::new()).unwrap();
        assert_eq!(json["learning_rate"], 0.001);
        assert_eq!(json["schedule"]["kind"], "step");
        assert_eq!(json["schedule"]["step_size"], 7);
    }

    #[test]
    fn a_loss_that_is_not_finite_names_the_epoch() {
        let x = array![[1e30_f32], [-1e30]];
        let task = TrainingTask::new(2, Examples::new(x.view(), &[0, 1]).unwrap()).unwrap();
        let params = SgdParams::new().learning_rate(1e30).check().unwrap();
        let error = params.fit_with(&task, &Quiet, &mut |_| ()).unwrap_err();
        assert!(matches!(error, Error::Diverged { epoch: 0, .. }), "{error}");
        assert!(error.hint().unwrap().contains("lower the learning rate"));
    }

    #[test]
    fn an_interruption_ends_the_training() {
        struct Stop;
        impl Observer for Stop {
            fn interrupted(&self) -> bool {
                true
            }
        }
        let x = array![[1_f32], [-1.0]];
        let task = TrainingTask::new(2, Examples::new(x.view(), &[0, 1]).unwrap()).unwrap();
        let params = SgdParams::new().check().unwrap();
        assert!(matches!(
            params.fit_with(&task, &Stop, &mut |_| ()),
            Err(Error::Interrupted)
        ));
    }

    #[test]
    fn an_order_of_too_few_epochs_is_refused() {
        let x = array![[1_f32], [-1.0]];
        let order = [vec![0, 1]];
        let task = TrainingTask::new(2, Examples::new(x.view(), &[0, 1]).unwrap()).unwrap();
        let task = task.with_order(&order).unwrap();
        let params = SgdParams::new().epochs(2).check().unwrap();
        assert!(matches!(
            params.fit_with(&task, &Quiet, &mut |_| ()),
            Err(Error::Examples(_))
        ));
    }
}
