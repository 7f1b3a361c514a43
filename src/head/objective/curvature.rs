//! The second derivative of the logistic objective, averaged over the classes: what its variables are rounded by.

use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut1, Axis, s};
use rayon::prelude::*;

use super::{Objective, Parameters, Real};
use crate::head::softmax::softmax_row;

/// Parts in which the second derivative is estimated; each is a matrix of its size.
const CURVATURE_PARTS: usize = 4;

impl Objective<'_> {
    /// The second derivative at `at`, averaged over the classes, `[dim + 1, dim + 1]`; the last column is the offset's.
    ///
    /// Estimated from at most `most` rows, evenly spread, and so that it is positive definite.
    pub(in crate::head) fn curvature(&self, at: &Parameters, most: usize) -> Array2<f64> {
        let size = self.dim() + 1;
        let parts = self.curved(at, most, |x| {
            let mut sum = Array2::zeros((size, size));
            f32::accumulate(&x.t(), &x, &mut sum);
            sum
        });
        let mut curvature = Array2::zeros((size, size));
        for part in &parts {
            curvature += part;
        }
        self.penalise(curvature.diag_mut());
        curvature
    }

    /// The diagonal of [`curvature`](Self::curvature), `[dim + 1]`.
    pub(in crate::head) fn curvatures(&self, at: &Parameters, most: usize) -> Array1<f64> {
        let parts = self.curved(at, most, |x| {
            x.columns()
                .into_iter()
                .map(|column| column.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>())
                .collect::<Array1<f64>>()
        });
        let mut curvatures = Array1::zeros(self.dim() + 1);
        for part in &parts {
            curvatures += part;
        }
        self.penalise(curvatures.view_mut());
        curvatures
    }

    /// Adds the penalty's second derivative, and to the offset's as little as keeps it above 0.
    fn penalise(&self, mut diagonal: ArrayViewMut1<'_, f64>) {
        let largest = diagonal.iter().copied().fold(self.penalty, f64::max);
        diagonal += largest * 1e-8;
        diagonal
            .slice_mut(s![..self.dim()])
            .mapv_inplace(|value| value + self.penalty);
    }

    /// What `of` makes of some rows at a time, each `[x 1] · √(sᵢ · mean(p·(1 - p)))`, `p` being its probabilities at `at`.
    fn curved<T: Send>(&self, at: &Parameters, most: usize, of: impl Fn(ArrayView2<'_, f32>) -> T + Sync) -> Vec<T> {
        let taken: Vec<usize> = (0..self.rows()).step_by(self.rows().div_ceil(most)).collect();
        // Above 0 even where only rows without weight were taken.
        let total = taken
            .iter()
            .map(|&row| self.share(row))
            .sum::<f64>()
            .max(f64::MIN_POSITIVE);
        let weight = at.weight.mapv(|weight| weight as f32);
        let (dim, classes) = (self.dim(), self.classes.len());
        taken
            .par_chunks(taken.len().div_ceil(CURVATURE_PARTS))
            .map(|rows| {
                let mut x = Array2::<f32>::zeros((rows.len(), dim + 1));
                for (mut x, &row) in x.rows_mut().into_iter().zip(rows) {
                    self.centred(row, x.slice_mut(s![..dim]).insert_axis(Axis(0)));
                }
                let logits = x.slice(s![.., ..dim]).dot(&weight.t());
                let mut probabilities = vec![0.0; classes];
                for ((mut x, logits), &row) in x.rows_mut().into_iter().zip(logits.rows()).zip(rows) {
                    for ((value, &logit), offset) in probabilities.iter_mut().zip(logits).zip(&at.offset) {
                        *value = f64::from(logit) + offset;
                    }
                    softmax_row(&mut probabilities);
                    let spread: f64 = probabilities.iter().map(|p| p * (1.0 - p)).sum();
                    let scale = (spread / classes as f64 * self.share(row) / total).sqrt() as f32;
                    x[dim] = 1.0;
                    x.mapv_inplace(|value| value * scale);
                }
                of(x.view())
            })
            .collect()
    }
}
