//! Which class was taken for which, and what follows from that alone.

use serde::Serialize;

use super::interval::wilson;

/// How many rows of each class were predicted as each class.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Confusion {
    /// `[true class][predicted class]`.
    counts: Vec<Vec<u64>>,
    /// Rows of each class.
    support: Vec<u64>,
    /// Rows predicted as each class.
    predicted: Vec<u64>,
}

/// One class of a report.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ClassReport {
    /// The class's name.
    pub class: String,
    /// The share of right ones among the rows predicted as this class; 0 where there are none.
    pub precision: f64,
    /// The share of the class's rows that were predicted as such; 0 where there are none.
    pub recall: f64,
    /// The recall's 95 % confidence interval, see [`wilson`].
    pub recall_interval: [f64; 2],
    /// The harmonic mean of precision and recall; 0 where both are.
    pub f1: f64,
    /// Rows of the class.
    pub support: u64,
    /// Rows predicted as the class.
    pub predicted: u64,
}

/// Precision, recall and F1 over several classes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Average {
    /// Mean precision.
    pub precision: f64,
    /// Mean recall.
    pub recall: f64,
    /// Mean F1, which is not the F1 of the means.
    pub f1: f64,
}

impl Confusion {
    /// Counts; labels and predictions lie below `classes`.
    pub(super) fn of(labels: &[usize], predictions: &[usize], classes: usize) -> Self {
        let mut counts = vec![vec![0; classes]; classes];
        let (mut support, mut predicted) = (vec![0; classes], vec![0; classes]);
        for (&label, &prediction) in labels.iter().zip(predictions) {
            counts[label][prediction] += 1;
            support[label] += 1;
            predicted[prediction] += 1;
        }
        Self {
            counts,
            support,
            predicted,
        }
    }

    pub(super) fn into_counts(self) -> Vec<Vec<u64>> {
        self.counts
    }

    fn classes(&self) -> std::ops::Range<usize> {
        0..self.counts.len()
    }

    fn hits(&self, class: usize) -> u64 {
        self.counts[class][class]
    }

    fn total(&self) -> f64 {
        self.support.iter().sum::<u64>() as f64
    }

    pub(super) fn correct(&self) -> usize {
        self.classes().map(|class| self.hits(class)).sum::<u64>() as usize
    }

    /// Precision, recall and F1 of one class, 0 for 0/0.
    fn scores(&self, class: usize) -> Average {
        let (hits, support, predicted) = (self.hits(class), self.support[class], self.predicted[class]);
        Average {
            precision: share(hits, predicted),
            recall: share(hits, support),
            f1: share(2 * hits, support + predicted),
        }
    }

    pub(super) fn per_class(&self, names: &[String]) -> Vec<ClassReport> {
        let report = |(class, name): (usize, &String)| {
            let Average { precision, recall, f1 } = self.scores(class);
            let support = self.support[class];
            ClassReport {
                class: name.clone(),
                precision,
                recall,
                recall_interval: wilson(self.hits(class) as usize, support as usize),
                f1,
                support,
                predicted: self.predicted[class],
            }
        };
        names.iter().enumerate().map(report).collect()
    }

    /// The mean over the classes that have rows or are predicted; of others there is nothing to say.
    pub(super) fn macro_average(&self) -> Average {
        self.average(|class| f64::from(u8::from(self.support[class] + self.predicted[class] > 0)))
    }

    pub(super) fn weighted_average(&self) -> Average {
        self.average(|class| self.support[class] as f64)
    }

    fn average(&self, weight: impl Fn(usize) -> f64) -> Average {
        let (mut sum, mut weights) = (Average::default(), 0.0);
        for class in self.classes() {
            let (scores, weight) = (self.scores(class), weight(class));
            sum.precision += weight * scores.precision;
            sum.recall += weight * scores.recall;
            sum.f1 += weight * scores.f1;
            weights += weight;
        }
        Average {
            precision: sum.precision / weights,
            recall: sum.recall / weights,
            f1: sum.f1 / weights,
        }
    }

    pub(super) fn balanced_accuracy(&self) -> f64 {
        let present = self.classes().filter(|&class| self.support[class] > 0);
        let recalls: Vec<f64> = present.map(|class| self.scores(class).recall).collect();
        recalls.iter().sum::<f64>() / recalls.len() as f64
    }

    /// `Σ support·predicted` over the classes: what chance alone would get right, times the number of rows.
    fn chance(&self) -> f64 {
        dot(&self.support, &self.predicted)
    }

    /// `(p_o - p_e) / (1 - p_e)` (J. Cohen, 1960); `None` for 0/0.
    pub(super) fn kappa(&self) -> Option<f64> {
        let (total, chance) = (self.total(), self.chance());
        let disagreement = total * total - chance;
        (disagreement > 0.0).then(|| (self.correct() as f64 * total - chance) / disagreement)
    }

    /// The correlation of truth and prediction as indicator vectors (J. Gorodkin, 2004); 0 for 0/0.
    pub(super) fn matthews(&self) -> f64 {
        let (total, chance) = (self.total(), self.chance());
        let of_predicted = total * total - dot(&self.predicted, &self.predicted);
        let of_support = total * total - dot(&self.support, &self.support);
        if of_predicted * of_support == 0.0 {
            return 0.0;
        }
        (self.correct() as f64 * total - chance) / (of_predicted * of_support).sqrt()
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn dot(left: &[u64], right: &[u64]) -> f64 {
    left.iter()
        .zip(right)
        .map(|(&left, &right)| left as f64 * right as f64)
        .sum()
}
