//! Softmax cross-entropy and what follows from it: losses, probabilities, accuracy.
//!
//! Everything is computed in f64 and summed in row order, so a loss does not depend on the solver that asks for it, nor on
//! the number of threads. The log-sum-exp is [`super::softmax`]'s.

use ndarray::ArrayView2;

use super::kernel::{self, Strides};
use super::softmax::Softmax;
pub(crate) use super::softmax::log_sum_exp;

use crate::{Error, Result};

/// The index of the largest logit, the first one on ties.
pub(crate) fn argmax<T: Copy + PartialOrd>(logits: &[T]) -> usize {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate().skip(1) {
        if *logit > logits[best] {
            best = index;
        }
    }
    best
}

/// Cross-entropy and accuracy, added up row by row.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Score {
    loss_sum: f64,
    correct: usize,
    rows: usize,
}

impl Score {
    /// Scores `logits` (`[n, classes]`) against the `n` true classes.
    ///
    /// # Errors
    /// [`Error::Examples`] if the numbers of rows differ or a label is not below `classes`.
    pub fn of(logits: ArrayView2<'_, f32>, labels: &[usize]) -> Result<Self> {
        check_labels(labels, logits.nrows(), logits.ncols())?;
        let mut score = Self::default();
        for (row, &label) in logits.as_standard_layout().rows().into_iter().zip(labels) {
            score.add(row.to_slice().expect("the layout was made standard"), label);
        }
        Ok(score)
    }

    /// Adds one row and returns its log-sum-exp, from which the caller has the probabilities.
    pub(super) fn add(&mut self, logits: &[f32], label: usize) -> f64 {
        let log_sum_exp = log_sum_exp(logits);
        self.loss_sum += log_sum_exp - f64::from(logits[label]);
        self.correct += usize::from(argmax(logits) == label);
        self.rows += 1;
        log_sum_exp
    }

    /// Adds one row whose cross-entropy is known.
    pub(super) fn add_row(&mut self, row: RowScore) {
        self.loss_sum += row.loss;
        self.correct += usize::from(row.correct);
        self.rows += 1;
    }

    /// The mean cross-entropy in nats; NaN where no row was added.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.loss_sum / self.rows as f64
    }

    /// The part of the rows whose largest logit (the first one on ties) is their label's; NaN where no row was added.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.rows as f64
    }

    /// How many rows were classified correctly.
    #[must_use]
    pub fn correct(&self) -> usize {
        self.correct
    }

    /// How many rows were scored.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }
}

/// Cross-entropy of one row, and whether its largest logit is its label's.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct RowScore {
    pub(super) loss: f64,
    pub(super) correct: bool,
}

/// Scores rows by a head without keeping their logits; the buffers are reused.
#[derive(Debug, Default)]
pub(super) struct Scorer {
    logits: Vec<f32>,
    softmax: Softmax,
}

impl Scorer {
    /// Rows that are scored together.
    pub(super) const ROWS: usize = 64;

    /// Hands the score of each row to `receive`, in their order: at most [`ROWS`](Self::ROWS) of them.
    pub(super) fn score(
        &mut self,
        (weight, bias): (&[f32], &[f32]),
        rows: &[&[f32]],
        labels: &[usize],
        mut receive: impl FnMut(RowScore),
    ) {
        let stride = Softmax::stride(rows.len());
        self.logits.resize(bias.len() * stride, 0.0);
        let strides = Strides { row: 1, class: stride };
        kernel::logits(weight, bias, rows, &mut self.logits, strides);
        self.softmax.of(&self.logits, stride);
        for (column, &label) in labels.iter().enumerate().take(rows.len()) {
            receive(self.softmax.score(&self.logits, stride, column, label));
        }
    }
}

/// The mean cross-entropy in nats of `logits` (`[n, classes]`) against the `n` true classes.
///
/// `mean(log Σ exp(z) - z[label])`, as PyTorch's `cross_entropy` with mean reduction.
///
/// # Errors
/// [`Error::Examples`] if the numbers of rows differ or a label is not below `classes`.
pub fn cross_entropy(logits: ArrayView2<'_, f32>, labels: &[usize]) -> Result<f64> {
    Score::of(logits, labels).map(|score| score.loss())
}

/// Checks that there is one label a row, and each below `classes`.
pub(crate) fn check_labels(labels: &[usize], rows: usize, classes: usize) -> Result<()> {
    if labels.len() != rows {
        return Err(Error::Examples(format!(
            "{rows} rows, but {} labels: give one label a row",
            labels.len()
        )));
    }
    match labels.iter().enumerate().find(|&(_, &label)| label >= classes) {
        Some((row, label)) => Err(Error::Examples(format!(
            "row {row} has label {label}, but there are only {classes} classes"
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn a_row_far_below_the_others_keeps_its_loss() {
        let logits = array![[1e5_f32, 0.0], [-1e5, -1e5]];
        // Row 0 is certain and right, row 1 undecided: the mean is ln(2)/2.
        let loss = cross_entropy(logits.view(), &[0, 1]).unwrap();
        assert!((loss - 2_f64.ln() / 2.0).abs() < 1e-12, "{loss}");
    }

    #[test]
    fn the_first_of_equal_logits_counts() {
        let logits = array![[1_f32, 1.0, 0.0], [0.0, 2.0, 2.0]];
        assert_eq!(Score::of(logits.view(), &[0, 1]).unwrap().correct(), 2);
        assert_eq!(Score::of(logits.view(), &[1, 2]).unwrap().correct(), 0);
    }

    #[test]
    fn labels_are_checked() {
        let logits = array![[1_f32, 2.0]];
        assert!(
            cross_entropy(logits.view(), &[2])
                .unwrap_err()
                .to_string()
                .contains("row 0 has label 2")
        );
        assert!(
            cross_entropy(logits.view(), &[])
                .unwrap_err()
                .to_string()
                .contains("1 rows, but 0 labels")
        );
    }
}
