//! Softmax cross-entropy and what follows from it: losses, probabilities, accuracy.
//!
//! The log-sum-exp of the crate lives here and nowhere else. Everything is computed in f64 and summed in row order, so a
//! loss does not depend on the solver that asks for it, nor on the number of threads.

use ndarray::ArrayView2;

use crate::{Error, Result};

/// `log Σ exp(logit)` of one row, in f64.
///
/// The row's own maximum is subtracted first, so no exponential overflows and the largest term is exactly 1. NaN in, NaN
/// out; a row whose maximum is infinite gives that infinity.
pub(super) fn log_sum_exp<T: Copy + Into<f64>>(logits: &[T]) -> f64 {
    let maximum = logits
        .iter()
        .fold(f64::NEG_INFINITY, |maximum, &logit| maximum.max(logit.into()));
    if maximum.is_infinite() {
        return maximum;
    }
    maximum
        + logits
            .iter()
            .map(|&logit| (logit.into() - maximum).exp())
            .sum::<f64>()
            .ln()
}

/// Turns one row of logits into its softmax probabilities and returns their `log Σ exp`.
///
/// Infinite logits give NaN; a NaN may be lost.
pub(super) fn softmax(logits: &mut [f64]) -> f64 {
    let maximum = logits
        .iter()
        .fold(f64::NEG_INFINITY, |maximum, &logit| maximum.max(logit));
    for logit in logits.iter_mut() {
        *logit = exp_of_non_positive(*logit - maximum);
    }
    let sum: f64 = logits.iter().sum();
    let scale = 1.0 / sum;
    for logit in logits.iter_mut() {
        *logit *= scale;
    }
    maximum + sum.ln()
}

/// `e` to the power of `x`, 0 or below, within two units in the last place; 0 below the smallest normal number.
///
/// No branch and no table, so that loops over it are vectorised: `x = n·ln 2 + r` with `|r| ≤ ln 2 / 2`, where the Taylor
/// series to `r¹³` is exact to f64, and `2ⁿ` is written into the exponent (Cody and Waite, "Software Manual for the
/// Elementary Functions", 1980).
#[inline]
fn exp_of_non_positive(x: f64) -> f64 {
    /// Adding it rounds to an integer, which is then in the low bits.
    const ROUNDER: f64 = 1.5 * (1_u64 << 52) as f64;
    /// `ln 2` in two parts; the upper one times a small integer is exact.
    const LN_2: [f64; 2] = [0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10];
    /// `1 / k!`, from the highest term.
    const TERMS: [f64; 14] = [
        1.0 / 6_227_020_800.0,
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        1.0 / 2.0,
        1.0,
        1.0,
    ];
    let bounded = if x > -708.0 { x } else { -708.0 };
    let shifted = bounded * std::f64::consts::LOG2_E + ROUNDER;
    let n = shifted - ROUNDER;
    let r = (bounded - n * LN_2[0]) - n * LN_2[1];
    let mut sum = TERMS[0];
    for term in &TERMS[1..] {
        sum = sum * r + term;
    }
    let power = f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
    if x > -708.0 { sum * power } else { 0.0 }
}

/// The index of the largest logit, the first one on ties.
pub(super) fn argmax<T: Copy + PartialOrd>(logits: &[T]) -> usize {
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
pub(super) fn check_labels(labels: &[usize], rows: usize, classes: usize) -> Result<()> {
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
    fn log_sum_exp_is_row_wise_and_does_not_overflow() {
        // ln(1 + e + e²) by hand; shifting every logit shifts the result by as much.
        let expected = (1.0_f64 + 1_f64.exp() + 2_f64.exp()).ln();
        assert!((log_sum_exp(&[0.0_f64, 1.0, 2.0]) - expected).abs() < 1e-15);
        assert!((log_sum_exp(&[1e4_f64, 1e4 + 1.0, 1e4 + 2.0]) - 1e4 - expected).abs() < 1e-11);
        assert!((log_sum_exp(&[-1e4_f32, -1e4 + 1.0, -1e4 + 2.0]) + 1e4 - expected).abs() < 1e-11);
        assert_eq!(log_sum_exp(&[f32::INFINITY, 0.0]), f64::INFINITY);
        assert_eq!(log_sum_exp::<f32>(&[f32::NEG_INFINITY; 2]), f64::NEG_INFINITY);
        assert!(log_sum_exp(&[f32::NAN, 0.0]).is_nan());
    }

    #[test]
    fn the_fast_exponential_is_the_exact_one() {
        for step in 0..200_000 {
            let x = -f64::from(step) * 0.003_541_7;
            let (fast, exact) = (exp_of_non_positive(x), x.exp());
            let error = if x > -708.0 { (fast - exact).abs() / exact } else { fast };
            assert!(error < 4e-16, "{x}: {fast} {exact}");
        }
        assert_eq!(exp_of_non_positive(0.0), 1.0);
        assert_eq!(exp_of_non_positive(f64::NEG_INFINITY), 0.0);
    }

    #[test]
    fn softmax_agrees_with_log_sum_exp() {
        let logits = [3.0, -1.0, 700.0, 698.5, -1e9];
        let mut probabilities = logits;
        let total = softmax(&mut probabilities);
        assert!((total - log_sum_exp(&logits)).abs() < 1e-12);
        for (probability, logit) in probabilities.iter().zip(logits) {
            // The subtraction rounds to an ulp of 700.
            assert!((probability - (logit - total).exp()).abs() < 1e-13);
        }
    }

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
