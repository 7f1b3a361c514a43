//! How good probabilities are, beyond which of them is the largest: log-loss, Brier score, calibration error.

use serde::Serialize;

use crate::head::softmax_row_at;

/// The number of bins of the expected calibration error.
pub const BINS: usize = 15;

/// Scores of the probabilities that belong to some logits.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ProbabilityScores {
    /// Mean cross-entropy in nats: `mean(log Σ exp(z) - z[label])`, each row by itself.
    ///
    /// `sklearn.metrics.log_loss`, which however counts no probability below 2.2e-16: a row that is surely wrong costs 36
    /// there and what it costs here.
    pub loss: f64,
    /// Brier score: the mean over the rows of `Σ (p - onehot(label))²` over the classes, with two classes half of that.
    ///
    /// In `0..=2`, with two classes in `0..=1` (G. W. Brier, 1950); `sklearn.metrics.brier_score_loss` by default.
    pub brier: f64,
    /// Expected calibration error: the mean over the rows of `|accuracy - confidence|` of their bin.
    ///
    /// A row's confidence is its largest probability; the bins are `(m/15, (m+1)/15]` (C. Guo, G. Pleiss, Y. Sun, K. Q.
    /// Weinberger, 2017, "On calibration of modern neural networks", equation 3).
    pub ece: f64,
    /// The bins that have rows.
    pub calibration_bins: Vec<CalibrationBin>,
}

/// The rows whose largest probability lies in one interval.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CalibrationBin {
    /// The lower bound, which does not belong to the bin.
    pub lower: f64,
    /// The upper bound, which does.
    pub upper: f64,
    /// How many rows.
    pub images: usize,
    /// Their mean largest probability.
    pub confidence: f64,
    /// The share of them that was classified correctly.
    pub accuracy: f64,
}

/// What is added up in a bin.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    images: usize,
    confidence: f64,
    correct: usize,
}

impl ProbabilityScores {
    /// Scores the softmax of `rows / temperature`; there is at least one row.
    pub(super) fn of<T: Copy + Into<f64>>(
        rows: &[&[T]],
        labels: &[usize],
        predicted: &[usize],
        temperature: f64,
    ) -> Self {
        let (mut loss, mut brier, mut bins) = (0.0, 0.0, [Sums::default(); BINS]);
        let mut probabilities = Vec::new();
        for ((row, &label), &prediction) in rows.iter().zip(labels).zip(predicted) {
            let logs = softmax_row_at(row, temperature, &mut probabilities);
            loss -= logs.of(row[label]);
            for (class, probability) in probabilities.iter().enumerate() {
                let target = f64::from(u8::from(class == label));
                brier += (probability - target).powi(2);
            }
            let confidence = probabilities[prediction];
            let bin = &mut bins[bin_of(confidence)];
            bin.images += 1;
            bin.confidence += confidence;
            bin.correct += usize::from(prediction == label);
        }
        let count = rows.len() as f64;
        let gap = |bin: &Sums| (bin.correct as f64 - bin.confidence).abs();
        let halved = if probabilities.len() == 2 { 0.5 } else { 1.0 };
        Self {
            loss: loss / count,
            brier: halved * brier / count,
            ece: bins.iter().map(gap).sum::<f64>() / count,
            calibration_bins: bins
                .iter()
                .enumerate()
                .filter(|(_, bin)| bin.images > 0)
                .map(|(index, bin)| CalibrationBin {
                    lower: edge(index),
                    upper: edge(index + 1),
                    images: bin.images,
                    confidence: bin.confidence / bin.images as f64,
                    accuracy: bin.correct as f64 / bin.images as f64,
                })
                .collect(),
        }
    }
}

fn edge(index: usize) -> f64 {
    index as f64 / BINS as f64
}

/// The bin a probability lies in.
fn bin_of(confidence: f64) -> usize {
    (1..BINS).find(|&index| confidence <= edge(index)).unwrap_or(BINS) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bin_has_its_upper_bound_and_not_its_lower_one() {
        assert_eq!([0.0, 1e-9, 0.5, 1.0].map(bin_of), [0, 0, 7, 14]);
        for index in 1..=BINS {
            assert_eq!(bin_of(edge(index)), index - 1);
        }
        assert_eq!(bin_of(edge(3) + 1e-12), 3);
        assert_eq!(bin_of(1.0 + 1e-15), 14, "rounding may lead past 1");
    }

    #[test]
    fn scores_by_hand() {
        // Probabilities 3/4 and 1/4, once right and once wrong.
        let row = [3_f64.ln(), 0.0];
        let scores = ProbabilityScores::of(&[&row, &row], &[0, 1], &[0, 0], 1.0);
        assert!((scores.loss - (4_f64 / 3.0).ln() / 2.0 - 4_f64.ln() / 2.0).abs() < 1e-15);
        assert!((scores.brier - (1.0 / 16.0 + 9.0 / 16.0) / 2.0).abs() < 1e-15);
        assert!((scores.ece - 0.25).abs() < 1e-15);
        let [bin] = &scores.calibration_bins[..] else {
            panic!("{:?}", scores.calibration_bins)
        };
        assert_eq!((bin.images, bin.accuracy), (2, 0.5));
        assert!(bin.lower < 0.75 && 0.75 <= bin.upper);
    }
}
