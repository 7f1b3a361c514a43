//! What each class weighs: one answer for all solvers.
//!
//! The choice is in [`super::recipe`]; how a weight enters a loss is the solvers' business. The balanced weights are those
//! of scikit-learn's `compute_class_weight`, sample weights counted.

use super::recipe::ClassWeights;
use crate::{Error, Result};

impl ClassWeights {
    /// The weight of each class for rows of these labels, all below `classes`; sample weights are one a row.
    ///
    /// Balanced is `Σ s / (classes that have rows · Σ s of the class)`, and 0 for a class whose rows weigh nothing.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is not one weight a class, or no row is left that weighs something.
    pub(super) fn resolve(&self, classes: usize, labels: &[usize], sample_weights: Option<&[f64]>) -> Result<Vec<f64>> {
        let mut sums = vec![0.0; classes];
        for (row, &label) in labels.iter().enumerate() {
            sums[label] += sample_weights.map_or(1.0, |weights| weights[row]);
        }
        let weights = match self {
            Self::Equal => vec![1.0; classes],
            Self::Balanced => {
                let present = sums.iter().filter(|&&sum| sum > 0.0).count() as f64;
                let all: f64 = sums.iter().sum();
                let weight = |&sum: &f64| if sum > 0.0 { all / (present * sum) } else { 0.0 };
                sums.iter().map(weight).collect()
            }
            Self::Given(weights) if weights.len() == classes => weights.clone(),
            Self::Given(weights) => {
                return Err(Error::Usage(format!(
                    "{} class weights for {classes} classes: give one a class",
                    weights.len()
                )));
            }
        };
        if !sums.iter().zip(&weights).any(|(sum, weight)| sum * weight > 0.0) {
            return Err(Error::Usage(
                "no class with a weight above 0 has training rows that count: there is nothing to learn".to_owned(),
            ));
        }
        Ok(weights)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn balanced_weights_are_scikit_learns() {
        let balanced =
            |labels: &[usize], rows: Option<&[f64]>| ClassWeights::Balanced.resolve(3, labels, rows).unwrap();
        // compute_class_weight("balanced", classes=np.unique(y), y=y) gives these.
        assert_eq!(balanced(&[0, 0, 0, 1, 2, 2], None), [6.0 / 9.0, 2.0, 1.0]);
        assert_eq!(balanced(&[0, 2, 2, 2], None), [2.0, 0.0, 4.0 / 6.0]);
        // With sample_weight=[1, 3, 0.5, 1.5] too.
        assert_eq!(
            balanced(&[0, 0, 1, 2], Some(&[1.0, 3.0, 0.5, 1.5])),
            [6.0 / 12.0, 6.0 / 1.5, 6.0 / 4.5]
        );
    }

    #[test]
    fn weights_that_leave_no_row_are_refused() {
        let given = ClassWeights::Given(vec![0.0, 0.0, 1.0]);
        assert_eq!(given.resolve(3, &[0, 2], None).unwrap(), [0.0, 0.0, 1.0]);
        for (labels, rows) in [(&[0, 1], None), (&[0, 2], Some(&[1.0, 0.0][..]))] {
            let error = given.resolve(3, labels, rows).unwrap_err();
            assert!(
                matches!(&error, Error::Usage(problem) if problem.contains("nothing to learn")),
                "{error}"
            );
        }
        let error = given.resolve(2, &[0, 1], None).unwrap_err();
        assert!(error.to_string().contains("3 class weights for 2 classes"), "{error}");
    }
}
