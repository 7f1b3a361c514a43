//! What every solver is given and what it gives back: examples, the task, epoch records, the trained head.
//!
//! Nothing here knows how a head is found; [`super::descent`] is one way.

use ndarray::{ArrayView2, CowArray, Ix2};
use serde::Serialize;

use super::linear::LinearHead;
use super::loss;
use crate::{Error, Result};

/// Features and their labels: `[n, dim]` finite f32 and `n` class indexes.
///
/// Borrowed, and not copied where the rows lie one after another in memory.
#[derive(Debug, Clone)]
pub struct Examples<'a> {
    features: CowArray<'a, f32, Ix2>,
    labels: &'a [usize],
}

impl<'a> Examples<'a> {
    /// Joins features and labels.
    ///
    /// # Errors
    /// [`Error::Examples`] if there is no row or no column, a row has no label, or a feature is infinite or NaN.
    pub fn new(features: ArrayView2<'a, f32>, labels: &'a [usize]) -> Result<Self> {
        if features.is_empty() {
            let problem = format!(
                "{} rows of {} features: there is nothing to learn",
                features.nrows(),
                features.ncols()
            );
            return Err(Error::Examples(problem));
        }
        loss::check_labels(labels, features.nrows(), usize::MAX)?;
        for (row, values) in features.rows().into_iter().enumerate() {
            if values.iter().any(|value| !value.is_finite()) {
                return Err(Error::Examples(format!(
                    "row {row} has a feature that is infinite or NaN"
                )));
            }
        }
        Ok(Self {
            features: row_by_row(features),
            labels,
        })
    }

    /// The features, `[n, dim]`, row by row in memory.
    #[must_use]
    pub fn features(&self) -> ArrayView2<'_, f32> {
        self.features.view()
    }

    /// The class of each row.
    #[must_use]
    pub fn labels(&self) -> &'a [usize] {
        self.labels
    }

    /// How many rows there are; never 0.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.features.nrows()
    }

    /// How many features a row has; never 0.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.features.ncols()
    }

    /// All rows, one after another.
    pub(super) fn values(&self) -> &[f32] {
        self.features.as_slice().expect("`new` makes the layout standard")
    }

    /// One row.
    pub(super) fn row(&self, index: usize) -> &[f32] {
        &self.values()[index * self.dim()..][..self.dim()]
    }
}

/// The matrix itself where its rows lie one after another in memory, otherwise a copy of which they do.
fn row_by_row(matrix: ArrayView2<'_, f32>) -> CowArray<'_, f32, Ix2> {
    if matrix.is_standard_layout() {
        CowArray::from(matrix)
    } else {
        CowArray::from(matrix.as_standard_layout().into_owned())
    }
}

/// A head to be trained: how many classes, on what, checked by what, and from where.
#[derive(Debug, Clone)]
pub struct TrainingTask<'a> {
    classes: usize,
    train: Examples<'a>,
    validation: Option<Examples<'a>>,
    views: Vec<CowArray<'a, f32, Ix2>>,
    sample_weights: Option<&'a [f64]>,
    initial: Option<LinearHead>,
    order: Option<&'a [Vec<usize>]>,
}

impl<'a> TrainingTask<'a> {
    /// A task for a head of `classes` classes, without validation.
    ///
    /// # Errors
    /// [`Error::Examples`] if a label is not below `classes`.
    pub fn new(classes: usize, train: Examples<'a>) -> Result<Self> {
        loss::check_labels(train.labels, train.rows(), classes)?;
        Ok(Self {
            classes,
            train,
            validation: None,
            views: Vec::new(),
            sample_weights: None,
            initial: None,
            order: None,
        })
    }

    /// Scores the head on these examples after each epoch, and keeps the best epoch's.
    ///
    /// # Errors
    /// [`Error::Examples`] if they have another number of features than the training rows, or a label too many.
    pub fn with_validation(mut self, validation: Examples<'a>) -> Result<Self> {
        if validation.dim() != self.train.dim() {
            return Err(Error::Examples(format!(
                "the training rows have {} features, the validation rows {}",
                self.train.dim(),
                validation.dim()
            )));
        }
        loss::check_labels(validation.labels, validation.rows(), self.classes)?;
        self.validation = Some(validation);
        Ok(self)
    }

    /// Counts each training row in the loss by its weight, finite and not negative. Default: 1 each.
    ///
    /// # Errors
    /// [`Error::Examples`] if there is not one weight a row, one is negative, infinite or NaN, or all are 0.
    pub fn with_sample_weights(mut self, weights: &'a [f64]) -> Result<Self> {
        if weights.len() != self.train.rows() {
            return Err(Error::Examples(format!(
                "{} weights for {} training rows: give one a row",
                weights.len(),
                self.train.rows()
            )));
        }
        let fits = |weight: &f64| weight.is_finite() && *weight >= 0.0;
        if let Some((row, weight)) = weights.iter().enumerate().find(|(_, weight)| !fits(weight)) {
            return Err(Error::Examples(format!(
                "the weight of row {row} is {weight}: it must be a finite number, 0 or above"
            )));
        }
        if weights.iter().all(|&weight| weight == 0.0) {
            return Err(Error::Examples(
                "all weights are 0: there is nothing to learn".to_owned(),
            ));
        }
        self.sample_weights = Some(weights);
        Ok(self)
    }

    /// Trains on random views of the pictures: each of `views` is `[n, dim]`, row `i` a view of training row `i`.
    ///
    /// Solvers that go through the rows epoch by epoch draw one of the views for each row and epoch; they never see the
    /// training rows themselves, which are the plain view. Solvers that see all rows at once train on all views.
    ///
    /// # Errors
    /// [`Error::Examples`] if one has another shape than the training rows, or a feature that is infinite or NaN.
    pub fn with_views(mut self, views: Vec<ArrayView2<'a, f32>>) -> Result<Self> {
        for (number, view) in views.iter().enumerate() {
            if view.dim() != (self.train.rows(), self.train.dim()) {
                return Err(Error::Examples(format!(
                    "view {number} has the shape {:?}, the training rows {:?}",
                    view.dim(),
                    (self.train.rows(), self.train.dim())
                )));
            }
            if view.iter().any(|value| !value.is_finite()) {
                return Err(Error::Examples(format!(
                    "view {number} has a feature that is infinite or NaN"
                )));
            }
        }
        self.views = views.into_iter().map(row_by_row).collect();
        Ok(self)
    }

    /// Starts from this head. Default: [`LinearHead::uniform`] from the seed.
    ///
    /// # Errors
    /// [`Error::Examples`] if it has another number of classes or features, or is not finite.
    pub fn with_initial_head(mut self, head: LinearHead) -> Result<Self> {
        if (head.classes(), head.dim()) != (self.classes, self.train.dim()) {
            return Err(Error::Examples(format!(
                "the initial head has {} classes and {} features, the task {} and {}",
                head.classes(),
                head.dim(),
                self.classes,
                self.train.dim()
            )));
        }
        if !head.is_finite() {
            return Err(Error::Examples(
                "the initial head has a weight that is infinite or NaN".to_owned(),
            ));
        }
        self.initial = Some(head);
        Ok(self)
    }

    /// Takes the training rows in this order: one list of row indexes for each epoch. Default: shuffled from the seed.
    ///
    /// A list may leave rows out or repeat them. Solvers that see all rows at once do not read it.
    ///
    /// # Errors
    /// [`Error::Examples`] if a list is empty or names a row that does not exist.
    pub fn with_order(mut self, order: &'a [Vec<usize>]) -> Result<Self> {
        for (epoch, list) in order.iter().enumerate() {
            if list.is_empty() || list.iter().any(|&row| row >= self.train.rows()) {
                return Err(Error::Examples(format!(
                    "the order of epoch {epoch} is empty or names a row beyond the {} training rows",
                    self.train.rows()
                )));
            }
        }
        self.order = Some(order);
        Ok(self)
    }

    /// How many classes the head shall tell apart.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The training examples.
    #[must_use]
    pub fn train(&self) -> &Examples<'a> {
        &self.train
    }

    /// The validation examples.
    #[must_use]
    pub fn validation(&self) -> Option<&Examples<'a>> {
        self.validation.as_ref()
    }

    /// The random views of the training rows, row by row in memory; empty where there are none.
    #[must_use]
    pub fn views(&self) -> &[CowArray<'a, f32, Ix2>] {
        &self.views
    }

    /// The weight of each training row, where some were given.
    #[must_use]
    pub fn sample_weights(&self) -> Option<&'a [f64]> {
        self.sample_weights
    }

    /// The head to start from, where one was given.
    pub(super) fn initial_head(&self) -> Option<&LinearHead> {
        self.initial.as_ref()
    }

    /// The order of the rows in each epoch, where one was given.
    pub(super) fn order(&self) -> Option<&'a [Vec<usize>]> {
        self.order
    }
}

/// What one epoch brought.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EpochRecord {
    /// The epoch, counted from 0 as PyTorch's scripts print it.
    pub epoch: usize,
    /// Its learning rate: where that changes with every mini-batch, in a warm-up or one-cycle, that of the first one; 0 of
    /// solvers without one.
    #[serde(rename = "lr")]
    pub learning_rate: f64,
    /// Mean cross-entropy in nats over the training rows, each as it was just before its own mini-batch's step. The plain
    /// one, whatever weights and smoothing the descended loss has, so that heads can be compared.
    pub train_loss: f64,
    /// Accuracy on the same logits, in `0..=1`.
    pub train_accuracy: f64,
    /// Mean cross-entropy in nats on the validation rows after the epoch.
    pub val_loss: Option<f64>,
    /// Accuracy on the validation rows after the epoch, in `0..=1`.
    pub val_accuracy: Option<f64>,
}

/// A finished training.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Training {
    /// The head of the epoch with the best validation accuracy, the first one on ties; without validation the last one.
    pub head: LinearHead,
    /// The epoch `head` is from, counted from 0.
    pub best_epoch: usize,
    /// All epochs in order.
    pub history: Vec<EpochRecord>,
    /// The head after the last epoch.
    pub final_head: LinearHead,
    /// How near to the optimum it is; only of solvers that look for it.
    pub convergence: Option<Convergence>,
}

/// How a solver that looks for the optimum ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Convergence {
    /// Iterations made.
    pub iterations: usize,
    /// The largest component of the gradient, of the loss divided by the rows' weights.
    pub gradient_norm: f64,
    /// The value of `C · Σ sᵢ·cross-entropyᵢ + ½·|W|²`; of two classes with `|W|²`.
    pub objective: f64,
    /// Whether the gradient reached its tolerance.
    pub converged: bool,
    /// What a careful person would want to know of the way there.
    pub note: Option<String>,
}

impl Training {
    /// The record of the epoch [`head`](Self::head) is from.
    #[must_use]
    pub fn best(&self) -> &EpochRecord {
        &self.history[self.best_epoch]
    }
}

/// Collects the epochs of a running training and remembers the best head.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    history: Vec<EpochRecord>,
    /// The best epoch so far and its head; empty without validation.
    best: Option<(usize, LinearHead)>,
}

impl Progress {
    /// Takes in an epoch and the head it ended with.
    pub(super) fn record(&mut self, record: EpochRecord, head: &LinearHead) -> &EpochRecord {
        let best = self.best.as_ref().map(|&(epoch, _)| self.history[epoch].val_accuracy);
        // `None` is less than any accuracy; strictly greater, so that the first of equal epochs stays.
        if record.val_accuracy.is_some() && best.is_none_or(|best| record.val_accuracy > best) {
            match &mut self.best {
                Some((epoch, kept)) => {
                    *epoch = record.epoch;
                    kept.clone_from(head);
                }
                None => self.best = Some((record.epoch, head.clone())),
            }
        }
        self.history.push(record);
        self.history.last().expect("one was just pushed")
    }

    /// Ends the training with the head of the last epoch.
    pub(super) fn finish(self, final_head: LinearHead) -> Training {
        let (best_epoch, head) = self
            .best
            .unwrap_or_else(|| (self.history.len() - 1, final_head.clone()));
        Training {
            head,
            best_epoch,
            history: self.history,
            final_head,
            convergence: None,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use ndarray::{Array1, Array2, array};

    use super::*;

    fn record(epoch: usize, val_accuracy: Option<f64>) -> EpochRecord {
        let (learning_rate, train_loss, train_accuracy) = (0.1, 1.0, 0.5);
        EpochRecord {
            epoch,
            learning_rate,
            train_loss,
            train_accuracy,
            val_loss: val_accuracy,
            val_accuracy,
        }
    }

    fn head(value: f32) -> LinearHead {
        LinearHead::new(Array2::from_elem((2, 1), value), Array1::zeros(2)).unwrap()
    }

    fn train(accuracies: &[Option<f64>]) -> Training {
        let mut progress = Progress::default();
        for (index, &accuracy) in accuracies.iter().enumerate() {
            progress.record(record(index, accuracy), &head(index as f32 + 1.0));
        }
        progress.finish(head(accuracies.len() as f32))
    }

    #[test]
    fn the_first_of_the_best_epochs_is_kept() {
        let training = train(&[Some(0.5), Some(0.9), Some(0.7), Some(0.9)]);
        assert_eq!((training.best_epoch, &training.head), (1, &head(2.0)));
        assert_eq!(training.final_head, head(4.0));
        assert_eq!(training.best().val_accuracy, Some(0.9));
        assert_eq!(train(&[Some(0.0), Some(0.0)]).best_epoch, 0);
        assert_eq!(train(&[Some(0.1), Some(0.2)]).best_epoch, 1);
    }

    #[test]
    fn without_validation_the_last_epoch_is_kept() {
        let training = train(&[None, None, None]);
        assert_eq!((training.best_epoch, &training.head), (2, &head(3.0)));
    }

    #[test]
    fn views_that_lie_otherwise_are_copied_once_and_others_never() {
        let (x, turned) = (array![[1.0_f32, 2.0], [3.0, 4.0]], array![[1.0_f32, 3.0], [2.0, 4.0]]);
        let task = TrainingTask::new(2, Examples::new(x.view(), &[0, 1]).unwrap()).unwrap();
        let task = task.with_views(vec![x.view(), turned.t()]).unwrap();
        assert!(task.views()[0].is_view());
        assert_eq!(task.views()[1].as_slice(), Some(&[1.0, 2.0, 3.0, 4.0][..]));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (x, narrow) = (array![[1.0_f32, 2.0], [3.0, 4.0]], array![[1.0_f32]]);
        let (beyond, empty) = ([vec![0], vec![2]], [vec![]]);
        let examples = || Examples::new(x.view(), &[0, 1]).unwrap();
        let task = || TrainingTask::new(2, examples()).unwrap();
        assert!(TrainingTask::new(1, examples()).is_err());
        assert!(Examples::new(x.view(), &[0]).is_err());
        assert!(Examples::new(ArrayView2::from_shape((0, 2), &[]).unwrap(), &[]).is_err());
        let nan = array![[1.0_f32], [f32::NAN]];
        assert!(
            Examples::new(nan.view(), &[0, 1])
                .unwrap_err()
                .to_string()
                .contains("row 1")
        );
        assert!(task().with_initial_head(head(1.0)).is_err());
        assert!(
            task()
                .with_validation(Examples::new(narrow.view(), &[0]).unwrap())
                .is_err()
        );
        assert!(
            task()
                .with_validation(Examples::new(x.view(), &[0, 2]).unwrap())
                .is_err()
        );
        assert!(task().with_order(&beyond).unwrap_err().to_string().contains("epoch 1"));
        assert!(task().with_order(&empty).is_err());
    }
}
