//! Temperature scaling: the one number that makes a head's probabilities as good as they get without changing a class.
//!
//! C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, 2017, "On calibration of modern neural networks", section 4.2.

use ndarray::ArrayView2;
use serde::Serialize;

use super::check;
use crate::head::{TEMPERATURES, softmax_row_at};
use crate::{Error, Observer, Quiet, Result};

/// Temperatures that are looked at.
const RANGE: [f64; 2] = [*TEMPERATURES.start(), *TEMPERATURES.end()];
/// Where the search ends: a step of `1/T` that is smaller than this share of it.
const PRECISION: f64 = 1e-12;
/// Bisections alone would need 50.
const STEPS: usize = 200;

/// The temperature that was found, and what it brings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TemperatureFit {
    /// What the logits are to be divided by.
    pub temperature: f64,
    /// How it came about.
    pub fitted: Fitted,
    /// Mean log-loss of the logits as they are.
    pub loss_before: f64,
    /// Mean log-loss of the divided logits, on the same rows.
    pub loss_after: f64,
}

/// How a temperature came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fitted {
    /// It minimises the loss.
    Minimum,
    /// Every row is classified correctly, so the loss falls for ever as the temperature does, and nothing says where
    /// probabilities should stop on their way to 1: the temperature stays 1.
    NoMistakes,
    /// The minimum lies below the range that is looked at: the temperature is its lower end.
    LowerEnd,
    /// The minimum lies above the range that is looked at, or nowhere because the logits tell less than chance: the
    /// temperature is its upper end.
    UpperEnd,
}

impl Fitted {
    /// What a careful person would want to know of it, if anything.
    #[must_use]
    pub fn note(self) -> Option<&'static str> {
        match self {
            Self::Minimum => None,
            Self::NoMistakes => Some(
                "no validation picture is classified wrongly, so there is nothing to calibrate by: the temperature is 1",
            ),
            Self::LowerEnd => Some("probabilities are far too low: the temperature is at its lower bound"),
            Self::UpperEnd => Some(
                "the head is far too sure of itself, or no better than chance on the validation pictures: the temperature is at its \
                 upper bound",
            ),
        }
    }
}

/// Finds the temperature `T` that a head may have which minimises the mean log-loss of `logits / T` (`[n, classes]`, f32 or f64).
///
/// The loss is convex in `1/T`, so its derivative `mean(Σ p·z - z[label])` has one zero, which Newton's method finds;
/// where a step would leave the interval that is known to hold the zero, that is bisected instead. See [`Fitted`] for
/// rows whose loss has no minimum. To be fitted on rows that the head was not trained on.
///
/// # Errors
/// [`Error::Examples`] if there is no row, the numbers of rows differ, a label is not below the
/// number of classes, or a logit is infinite or NaN.
pub fn fit_temperature<T: Copy + Into<f64>>(logits: ArrayView2<'_, T>, labels: &[usize]) -> Result<TemperatureFit> {
    fit_temperature_watched(logits, labels, &Quiet)
}

/// The same for many rows, of many classes: these take seconds.
///
/// # Errors
/// Those of [`fit_temperature`], and [`Error::Interrupted`] if the observer asks for it.
pub(crate) fn fit_temperature_watched<T: Copy + Into<f64>>(
    logits: ArrayView2<'_, T>,
    labels: &[usize],
    observer: &dyn Observer,
) -> Result<TemperatureFit> {
    check(logits, labels)?;
    let logits = logits.mapv(Into::into);
    let logits = logits.as_standard_layout();
    let rows: Vec<&[f64]> = logits
        .rows()
        .into_iter()
        .map(|row| row.to_slice().expect("the layout was made standard"))
        .collect();
    let at = |inverse: f64| Derivatives::of(&rows, labels, inverse, observer);
    let loss_before = at(1.0)?.loss;
    let ended = |temperature: f64, fitted: Fitted| -> Result<TemperatureFit> {
        Ok(TemperatureFit {
            temperature,
            fitted,
            loss_before,
            loss_after: at(1.0 / temperature)?.loss,
        })
    };
    let is_largest = |(row, &label): (&&[f64], &usize)| row.iter().all(|&logit| logit <= row[label]);
    if rows.iter().zip(labels).all(is_largest) {
        return ended(1.0, Fitted::NoMistakes);
    }
    let [mut low, mut high] = [1.0 / RANGE[1], 1.0 / RANGE[0]];
    if at(low)?.first >= 0.0 {
        return ended(RANGE[1], Fitted::UpperEnd);
    }
    if at(high)?.first <= 0.0 {
        return ended(RANGE[0], Fitted::LowerEnd);
    }
    let mut inverse = 1.0;
    for _ in 0..STEPS {
        let here = at(inverse)?;
        if here.first < 0.0 {
            low = inverse;
        } else {
            high = inverse;
        }
        let newton = inverse - here.first / here.second;
        // The geometric middle, because the interval covers orders of magnitude. A comparison with NaN is false.
        let next = if low < newton && newton < high {
            newton
        } else {
            (low * high).sqrt()
        };
        let step = (next - inverse).abs();
        inverse = next;
        if step <= PRECISION * inverse {
            break;
        }
    }
    ended(1.0 / inverse, Fitted::Minimum)
}

/// The mean loss of `inverse·z` and its first two derivatives by `inverse`.
struct Derivatives {
    loss: f64,
    first: f64,
    second: f64,
}

impl Derivatives {
    fn of(rows: &[&[f64]], labels: &[usize], inverse: f64, observer: &dyn Observer) -> Result<Self> {
        let mut sum = Self {
            loss: 0.0,
            first: 0.0,
            second: 0.0,
        };
        let mut probabilities = Vec::new();
        for (row, &label) in rows.iter().zip(labels) {
            if observer.interrupted() {
                return Err(Error::Interrupted);
            }
            let logs = softmax_row_at(row, 1.0 / inverse, &mut probabilities);
            // Relative to the label's logit, so that logits that are large together cost no digits.
            let (mut mean, mut square) = (0.0, 0.0);
            for (logit, probability) in row.iter().zip(&probabilities) {
                let above = logit - row[label];
                mean += probability * above;
                square += probability * above * above;
            }
            sum.loss -= logs.of(row[label]);
            sum.first += mean;
            sum.second += square - mean * mean;
        }
        let count = rows.len() as f64;
        Ok(Self {
            loss: sum.loss / count,
            first: sum.first / count,
            second: sum.second / count,
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use ndarray::{Array2, array};

    use super::*;
    use crate::head::cross_entropy;

    fn problem(scale: f64) -> (Array2<f64>, Vec<usize>) {
        let noise = |index: usize| ((index as u32).wrapping_mul(2_654_435_761) as f64 / 2_f64.powi(32) - 0.5) * 4.0;
        let labels: Vec<usize> = (0..60).map(|row| row % 3).collect();
        let logits = Array2::from_shape_fn((60, 3), |(row, class)| {
            scale * (noise(row * 3 + class) + if labels[row] == class { 1.0 } else { 0.0 })
        });
        (logits, labels)
    }

    #[test]
    fn no_temperature_beside_it_gives_a_smaller_loss() {
        for scale in [0.05, 1.0, 30.0] {
            let (logits, labels) = problem(scale);
            let fit = fit_temperature(logits.view(), &labels).unwrap();
            assert_eq!(fit.fitted, Fitted::Minimum);
            // The crate's other cross-entropy takes f32; 1e-3 beside the minimum the loss differs by 1e-7 of its curvature.
            let loss = |temperature: f64| {
                let divided = logits.mapv(|logit| (logit / temperature) as f32);
                cross_entropy(divided.view(), &labels).unwrap()
            };
            assert!((loss(fit.temperature) - fit.loss_after).abs() < 1e-6);
            assert!((loss(1.0) - fit.loss_before).abs() < 1e-5 * fit.loss_before);
            for factor in [0.5, 0.97, 1.03, 2.0] {
                assert!(loss(fit.temperature * factor) > fit.loss_after, "{scale} {factor}");
            }
        }
    }

    #[test]
    fn a_scale_of_the_logits_is_undone() {
        let (logits, labels) = problem(1.0);
        let expected = fit_temperature(logits.view(), &labels).unwrap();
        for scale in [0.1, 3.0, 20.0] {
            let fit = fit_temperature((&logits * scale).view(), &labels).unwrap();
            assert!(
                (fit.temperature / scale / expected.temperature - 1.0).abs() < 1e-10,
                "{scale}"
            );
            assert!((fit.loss_after - expected.loss_after).abs() < 1e-12);
        }
        // Logits that are large together say the same.
        let fit = fit_temperature((&logits + 1e6).view(), &labels).unwrap();
        assert!((fit.temperature / expected.temperature - 1.0).abs() < 1e-7);
    }

    #[test]
    fn where_there_is_no_minimum_the_outcome_says_so() {
        let right = array![[2.0_f32, 1.0], [0.0, 0.5]];
        let fit = fit_temperature(right.view(), &[0, 1]).unwrap();
        assert_eq!((fit.temperature, fit.fitted), (1.0, Fitted::NoMistakes));
        assert_eq!(fit.loss_before, fit.loss_after);
        let level = array![[1.0_f32, 1.0], [3.0, 3.0]];
        let fit = fit_temperature(level.view(), &[0, 1]).unwrap();
        assert_eq!((fit.temperature, fit.fitted), (1.0, Fitted::NoMistakes));
        let fit = fit_temperature(right.view(), &[1, 0]).unwrap();
        assert_eq!((fit.temperature, fit.fitted), (RANGE[1], Fitted::UpperEnd));
        assert!(fit.loss_after < fit.loss_before);
        let (faint, labels) = problem(1e-3 * RANGE[0]);
        let fit = fit_temperature(faint.view(), &labels).unwrap();
        assert_eq!((fit.temperature, fit.fitted), (RANGE[0], Fitted::LowerEnd));
        assert!(fit.loss_after < fit.loss_before);
    }

    #[test]
    fn one_wrong_row_among_many_sure_ones_has_a_finite_temperature() {
        let mut logits = Array2::from_shape_fn((100, 2), |(_, class)| if class == 0 { 500.0_f64 } else { 0.0 });
        logits[[7, 1]] = 600.0;
        let fit = fit_temperature(logits.view(), &[0; 100]).unwrap();
        assert_eq!(fit.fitted, Fitted::Minimum);
        assert!(fit.temperature > 10.0 && fit.loss_after < fit.loss_before, "{fit:?}");
    }

    #[test]
    fn an_end_of_the_range_is_told() {
        for (fitted, words) in [
            (Fitted::LowerEnd, "lower bound"),
            (Fitted::UpperEnd, "upper bound"),
            (Fitted::NoMistakes, "nothing to calibrate by"),
        ] {
            assert!(fitted.note().unwrap().contains(words), "{fitted:?}");
        }
        assert_eq!(Fitted::Minimum.note(), None);
    }

    #[test]
    fn an_interruption_ends_the_search_wherever_it_is() {
        /// Asks for an end after it was asked so often.
        struct Countdown(AtomicUsize);
        impl Observer for Countdown {
            fn interrupted(&self) -> bool {
                self.0.fetch_sub(1, Ordering::Relaxed) == 0
            }
        }
        let (logits, labels) = problem(1.0);
        // Of 60 rows: within the first evaluation, in those of the ends, on the way.
        for after in [0, 59, 130, 250] {
            let stop = Countdown(AtomicUsize::new(after));
            let ended = fit_temperature_watched(logits.view(), &labels, &stop);
            assert!(matches!(ended, Err(Error::Interrupted)), "{after}");
        }
    }

    #[test]
    fn what_can_not_be_fitted_is_refused() {
        assert!(fit_temperature(Array2::<f32>::zeros((0, 2)).view(), &[]).is_err());
        assert!(fit_temperature(array![[1.0_f32, f32::NAN]].view(), &[0]).is_err());
        assert!(fit_temperature(array![[1.0_f32, 2.0]].view(), &[2]).is_err());
    }
}
