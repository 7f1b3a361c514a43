//! The accuracy of a configuration over folds, and how far it can be trusted.

use serde::Serialize;

use crate::head::Score;
use crate::metrics::wilson;

/// How the heads of one configuration did on the folds they had not seen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct CrossValidation {
    /// Mean of the folds' accuracies, each fold counting as much as any other.
    pub(crate) mean_accuracy: f64,
    /// `s / √folds`, where `s` is the sample standard deviation (n-1) of all folds' accuracies. Repeats make `s` steadier; they
    /// bring no new pictures, so they do not divide it.
    pub(crate) standard_error: f64,
    /// 95 % Wilson interval of all folds' pictures together, each counted once: of repeats, the mean number told right.
    pub(crate) accuracy_interval: [f64; 2],
    /// Mean of the folds' cross-entropies in nats.
    pub(crate) mean_loss: f64,
    /// The accuracy on each fold, repeat after repeat.
    pub(crate) fold_accuracy: Vec<f64>,
    /// Folds on which a solver that looks for the optimum did not reach it.
    pub(crate) unconverged_folds: usize,
}

impl CrossValidation {
    /// Sums up the scores of `repeats` times the same number of folds, repeat after repeat.
    pub(crate) fn of(scores: &[Score], repeats: usize, unconverged_folds: usize) -> Self {
        let fold_accuracy: Vec<f64> = scores.iter().map(Score::accuracy).collect();
        let mean_accuracy = mean(&fold_accuracy);
        let losses: Vec<f64> = scores.iter().map(Score::loss).collect();
        let squares: f64 = fold_accuracy
            .iter()
            .map(|accuracy| (accuracy - mean_accuracy).powi(2))
            .sum();
        let variance = squares / (scores.len() as f64 - 1.0).max(1.0);
        let folds = scores.len() / repeats;
        let correct: usize = scores.iter().map(Score::correct).sum();
        let pictures: usize = scores.iter().map(Score::rows).sum();
        Self {
            mean_accuracy,
            standard_error: (variance / folds as f64).sqrt(),
            accuracy_interval: wilson(rounded_share(correct, repeats), pictures / repeats),
            mean_loss: mean(&losses),
            fold_accuracy,
            unconverged_folds,
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// `total / parts` to the nearest whole number.
fn rounded_share(total: usize, parts: usize) -> usize {
    (total + parts / 2) / parts
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use ndarray::Array2;

    use super::*;

    /// A score of `correct` out of `rows`.
    fn score(correct: usize, rows: usize) -> Score {
        let logits = Array2::from_shape_fn(
            (rows, 2),
            |(row, class)| {
                if (row < correct) == (class == 0) { 1.0 } else { 0.0 }
            },
        );
        Score::of(logits.view(), &vec![0; rows]).unwrap()
    }

    #[test]
    fn mean_and_standard_error_are_those_of_a_pocket_calculator() {
        let scores = [score(8, 10), score(9, 10), score(10, 10), score(7, 10)];
        let folds = CrossValidation::of(&scores, 1, 0);
        assert_eq!(folds.fold_accuracy, [0.8, 0.9, 1.0, 0.7]);
        assert!((folds.mean_accuracy - 0.85).abs() < 1e-12);
        // Deviations 0.05, 0.05, 0.15, 0.15: squares 0.05 in all; √(0.05/3/4).
        assert!((folds.standard_error - 0.064_549_722_436_790_28).abs() < 1e-12);
        assert_eq!(folds.accuracy_interval, wilson(34, 40));
    }

    #[test]
    fn repeats_bring_no_new_pictures() {
        let once = [score(8, 10), score(9, 10)];
        let twice = [score(8, 10), score(9, 10), score(9, 10), score(8, 10)];
        let (once, twice) = (CrossValidation::of(&once, 1, 0), CrossValidation::of(&twice, 2, 0));
        assert_eq!(once.accuracy_interval, twice.accuracy_interval);
        // s² is 0.005 of one repeat and 0.01/3 of two; both are divided by two folds.
        assert!((once.standard_error - 0.05).abs() < 1e-12);
        assert!((twice.standard_error - (0.01_f64 / 3.0 / 2.0).sqrt()).abs() < 1e-12);
    }
}
