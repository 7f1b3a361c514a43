//! How good a head is: every number that is reported of one, from its logits and the true classes.
//!
//! Works on matrices alone; where the rows come from, and whether looking at them was fair, is `evaluation`'s
//! business. All numbers are `sklearn.metrics`' (`tests/fixtures/make_metrics.py` compares them), computed in f64 and
//! summed in row or class order, so that they do not depend on the number of threads. The softmax is the head's.
//!
//! ```
//! use lastlayer::metrics::Report;
//! use ndarray::array;
//!
//! let logits = array![[2.0_f32, 0.0], [0.5, 1.0], [1.5, 1.0]];
//! let classes = ["ant".to_owned(), "bee".to_owned()];
//! let report = Report::of(logits.view(), &[0, 1, 1], &classes, 1.0)?;
//! assert_eq!((report.correct, report.confusion), (2, vec![vec![1, 0], vec![1, 1]]));
//! # Ok::<(), lastlayer::Error>(())
//! ```

mod calibration;
mod confusion;
mod interval;
mod ranking;
mod temperature;

use ndarray::ArrayView2;
use serde::Serialize;

pub use calibration::{BINS, CalibrationBin, ProbabilityScores};
pub use confusion::{Average, ClassReport};
pub use interval::wilson;
pub use ranking::TopK;
pub(crate) use temperature::fit_temperature_watched;
pub use temperature::{Fitted, TemperatureFit, fit_temperature};

use confusion::Confusion;

use crate::head::{argmax, check_labels, softmax_row_at};
use crate::{Error, Result};

/// All that is reported of a head on some rows; serialises as the keys of `evaluate --json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// How many rows were scored.
    pub images: usize,
    /// How many of them were classified correctly: the largest logit, the first one on ties, is their class's.
    pub correct: usize,
    /// `correct / images`.
    pub accuracy: f64,
    /// Its 95 % confidence interval, see [`wilson`].
    pub accuracy_interval: [f64; 2],
    /// Mean recall of the classes that have rows; `balanced_accuracy_score`.
    pub balanced_accuracy: f64,
    /// Mean F1 of the classes that have rows or are predicted; `f1_score(average="macro")`.
    pub macro_f1: f64,
    /// Mean precision of the same classes.
    pub macro_precision: f64,
    /// Mean recall of the same classes.
    pub macro_recall: f64,
    /// F1 of the classes, weighted by their rows; `f1_score(average="weighted")`.
    pub weighted_f1: f64,
    /// Precision, weighted likewise.
    pub weighted_precision: f64,
    /// Recall, weighted likewise, which is the accuracy.
    pub weighted_recall: f64,
    /// How often the class is among the `k` largest logits, for `k` in 1..=5 as far as there are classes.
    pub top_k: Vec<TopK>,
    /// Cohen's kappa (`cohen_kappa_score`); none where all rows are of one class and predicted so.
    pub kappa: Option<f64>,
    /// Matthews' correlation coefficient for several classes (`matthews_corrcoef`); 0 where it is 0/0.
    pub matthews: f64,
    /// Mean area under the ROC curve of each class against the rest (`roc_auc_score(multi_class="ovr")`); none unless every
    /// class has rows.
    pub roc_auc: Option<f64>,
    /// The scores of the probabilities that the head gives: those of the logits divided by `temperature`.
    #[serde(flatten)]
    pub probabilities: ProbabilityScores,
    /// What the logits were divided by.
    pub temperature: f64,
    /// The scores of the undivided logits' probabilities.
    pub uncalibrated: ProbabilityScores,
    /// The class names.
    pub classes: Vec<String>,
    /// How many rows of each class (outer) were predicted as each class (inner).
    pub confusion: Vec<Vec<u64>>,
    /// Each class on its own.
    pub per_class: Vec<ClassReport>,
}

impl Report {
    /// Scores `logits` (`[n, classes]`, f32 or f64) against the `n` true classes.
    ///
    /// `temperature` divides the logits before the softmax (1 leaves them); it changes no predicted class.
    ///
    /// # Errors
    /// [`Error::Examples`] if there is no row, the numbers of rows or of classes differ, a label is not below the number of
    /// classes, a logit is infinite or NaN, or the temperature is not a finite number above 0.
    pub fn of<T: Copy + Into<f64> + PartialOrd + Sync>(
        logits: ArrayView2<'_, T>,
        labels: &[usize],
        class_names: &[String],
        temperature: f64,
    ) -> Result<Self> {
        check(logits, labels)?;
        if class_names.len() != logits.ncols() {
            return Err(Error::Examples(format!(
                "the logits are of {} classes, but {} have a name",
                logits.ncols(),
                class_names.len()
            )));
        }
        check_temperature(temperature).map_err(Error::Examples)?;
        let logits = logits.as_standard_layout();
        let rows: Vec<&[T]> = logits
            .rows()
            .into_iter()
            .map(|row| row.to_slice().expect("the layout was made standard"))
            .collect();
        let predicted: Vec<usize> = rows.iter().map(|row| argmax(row)).collect();
        let confusion = Confusion::of(labels, &predicted, class_names.len());
        let (correct, images) = (confusion.correct(), labels.len());
        let (macro_average, weighted) = (confusion.macro_average(), confusion.weighted_average());
        let uncalibrated = ProbabilityScores::of(&rows, labels, &predicted, 1.0);
        let probabilities = if temperature == 1.0 {
            uncalibrated.clone()
        } else {
            ProbabilityScores::of(&rows, labels, &predicted, temperature)
        };
        Ok(Self {
            images,
            correct,
            accuracy: correct as f64 / images as f64,
            accuracy_interval: wilson(correct, images),
            balanced_accuracy: confusion.balanced_accuracy(),
            macro_f1: macro_average.f1,
            macro_precision: macro_average.precision,
            macro_recall: macro_average.recall,
            weighted_f1: weighted.f1,
            weighted_precision: weighted.precision,
            weighted_recall: weighted.recall,
            top_k: ranking::top_k(&rows, labels),
            kappa: confusion.kappa(),
            matthews: confusion.matthews(),
            roc_auc: ranking::roc_auc(&rows, labels, temperature),
            probabilities,
            temperature,
            uncalibrated,
            per_class: confusion.per_class(class_names),
            classes: class_names.to_vec(),
            confusion: confusion.into_counts(),
        })
    }

    /// Precision, recall and F1 as means over the classes that have rows or are predicted.
    #[must_use]
    pub fn macro_average(&self) -> Average {
        Average {
            precision: self.macro_precision,
            recall: self.macro_recall,
            f1: self.macro_f1,
        }
    }

    /// Precision, recall and F1, weighted by the classes' rows.
    #[must_use]
    pub fn weighted_average(&self) -> Average {
        Average {
            precision: self.weighted_precision,
            recall: self.weighted_recall,
            f1: self.weighted_f1,
        }
    }
}

/// Checks that there are rows, each with a label below the number of classes and finite logits.
fn check<T: Copy + Into<f64>>(logits: ArrayView2<'_, T>, labels: &[usize]) -> Result<()> {
    if logits.is_empty() {
        return Err(Error::Examples(format!(
            "{} rows of {} classes: there is nothing to score",
            logits.nrows(),
            logits.ncols()
        )));
    }
    check_labels(labels, logits.nrows(), logits.ncols())?;
    for (row, values) in logits.rows().into_iter().enumerate() {
        if values.iter().any(|&value| !value.into().is_finite()) {
            return Err(Error::Examples(format!(
                "row {row} has a logit that is infinite or NaN"
            )));
        }
    }
    Ok(())
}

/// Checks that a temperature can divide logits.
pub(crate) fn check_temperature(temperature: f64) -> Result<(), String> {
    if temperature.is_finite() && temperature > 0.0 {
        Ok(())
    } else {
        Err(format!("a temperature is a finite number above 0, not {temperature}"))
    }
}

/// The softmax of a row's logits divided by a temperature.
pub(crate) fn probabilities<T: Copy + Into<f64>>(row: &[T], temperature: f64) -> Vec<f64> {
    let mut probabilities = Vec::with_capacity(row.len());
    softmax_row_at(row, temperature, &mut probabilities);
    probabilities
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use ndarray::{Array2, array};

    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|class| format!("class {class}")).collect()
    }

    #[test]
    fn what_can_not_be_scored_is_refused() {
        let logits = array![[1.0_f64, 2.0]];
        let problem = |logits: &Array2<f64>, labels: &[usize], classes, temperature| {
            Report::of(logits.view(), labels, &names(classes), temperature)
                .unwrap_err()
                .to_string()
        };
        assert!(problem(&Array2::zeros((0, 2)), &[], 2, 1.0).contains("nothing to score"));
        assert!(problem(&logits, &[2], 2, 1.0).contains("row 0 has label 2"));
        assert!(problem(&logits, &[0, 1], 2, 1.0).contains("2 labels"));
        assert!(problem(&logits, &[0], 3, 1.0).contains("of 2 classes, but 3"));
        assert!(problem(&array![[1.0, f64::NAN]], &[0], 2, 1.0).contains("infinite or NaN"));
        for temperature in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(problem(&logits, &[0], 2, temperature).contains("temperature"));
        }
    }

    #[test]
    fn a_temperature_changes_probabilities_alone() {
        let logits = Array2::from_shape_fn((20, 3), |(row, class)| ((row * 7 + class * 5) % 11) as f32 / 3.0);
        let labels: Vec<usize> = (0..20).map(|row| row % 3).collect();
        let plain = Report::of(logits.view(), &labels, &names(3), 1.0).unwrap();
        let cooled = Report::of(logits.view(), &labels, &names(3), 0.5).unwrap();
        assert_eq!(plain.probabilities, plain.uncalibrated);
        assert_eq!(cooled.uncalibrated, plain.uncalibrated);
        assert_ne!(cooled.probabilities, plain.probabilities);
        assert_eq!((cooled.confusion, cooled.top_k), (plain.confusion, plain.top_k));
        let halved = Report::of((logits * 2.0).view(), &labels, &names(3), 1.0).unwrap();
        assert_eq!(cooled.probabilities, halved.probabilities);
    }

    #[test]
    fn f32_and_f64_and_any_layout_give_the_same_report() {
        let logits = Array2::from_shape_fn((9, 4), |(row, class)| ((row * 5 + class * 3) % 7) as f32 / 4.0);
        let labels = [0, 1, 2, 3, 0, 1, 2, 3, 0];
        let expected = Report::of(logits.view(), &labels, &names(4), 1.5).unwrap();
        let double = logits.mapv(f64::from);
        assert_eq!(Report::of(double.view(), &labels, &names(4), 1.5).unwrap(), expected);
        let columns = logits.t().as_standard_layout().into_owned();
        assert_eq!(Report::of(columns.t(), &labels, &names(4), 1.5).unwrap(), expected);
    }
}
