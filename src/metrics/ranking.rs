//! Scores that look at the order of classes in a row, or of rows in a class.

use rayon::iter::{IntoParallelIterator, ParallelIterator};
use serde::Serialize;

use super::interval::wilson;
use super::probabilities;

/// The largest `k` that is reported.
const LARGEST_K: usize = 5;

/// How often the true class is among the `k` most probable ones.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TopK {
    /// How many classes count.
    pub k: usize,
    /// The share of the rows whose class is among them.
    pub accuracy: f64,
    /// Its 95 % confidence interval, see [`wilson`].
    pub interval: [f64; 2],
}

/// Top-k accuracies for `k` in 1..=5 as far as there are classes.
///
/// Of equal logits the lower class comes first, as everywhere in this crate, so that `k = 1` is the accuracy.
/// `sklearn.metrics.top_k_accuracy_score` takes the higher class first, and agrees where no two logits of a row are equal.
pub(super) fn top_k<T: Copy + PartialOrd>(rows: &[&[T]], labels: &[usize]) -> Vec<TopK> {
    let mut with_rank = [0_usize; LARGEST_K];
    for (row, &label) in rows.iter().zip(labels) {
        let before = |(class, logit): (usize, &T)| *logit > row[label] || (*logit == row[label] && class < label);
        let rank = row.iter().enumerate().filter(|&item| before(item)).count();
        if let Some(count) = with_rank.get_mut(rank) {
            *count += 1;
        }
    }
    let classes = rows.first().map_or(0, |row| row.len());
    let mut hits = 0;
    (1..=LARGEST_K.min(classes))
        .map(|k| {
            hits += with_rank[k - 1];
            TopK {
                k,
                accuracy: hits as f64 / rows.len() as f64,
                interval: wilson(hits, rows.len()),
            }
        })
        .collect()
}

/// The mean over the classes of the area under the ROC curve of the class's probability, the class against all others;
/// `None` unless each class has rows and is not alone.
///
/// The area is the probability that a row of the class has the higher probability of it than a row of another class, ties
/// counting half (Hanley and McNeil, 1982), which is found from the sum of ranks.
pub(super) fn roc_auc<T: Copy + Into<f64> + Sync>(rows: &[&[T]], labels: &[usize], temperature: f64) -> Option<f64> {
    let classes = rows.first()?.len();
    let mut support = vec![0_usize; classes];
    labels.iter().for_each(|&label| support[label] += 1);
    if support.iter().any(|&count| count == 0 || count == rows.len()) {
        return None;
    }
    // `[n, classes]`, so that the exponentials are taken once.
    let probabilities: Vec<Vec<f64>> = rows.iter().map(|row| probabilities(row, temperature)).collect();
    let area = |class: usize| {
        let mut scores: Vec<(f64, bool)> = probabilities
            .iter()
            .zip(labels)
            .map(|(row, &label)| (row[class], label == class))
            .collect();
        scores.sort_unstable_by(|left, right| left.0.total_cmp(&right.0));
        area_under_curve(&scores, support[class])
    };
    let areas: Vec<f64> = (0..classes).into_par_iter().map(area).collect();
    Some(areas.iter().sum::<f64>() / classes as f64)
}

/// The area of ascending scores, of which `positives` are of the class.
fn area_under_curve(scores: &[(f64, bool)], positives: usize) -> f64 {
    // Twice the sum over the class's rows of the others below them, ties counting half: a whole number.
    let (mut twice, mut below) = (0_u128, 0_u128);
    for equal in scores.chunk_by(|left, right| left.0 == right.0) {
        let of_class = equal.iter().filter(|(_, is_of_class)| *is_of_class).count() as u128;
        let others = equal.len() as u128 - of_class;
        twice += of_class * (2 * below + others);
        below += others;
    }
    let pairs = positives as f64 * (scores.len() - positives) as f64;
    twice as f64 / 2.0 / pairs
}
