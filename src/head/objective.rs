//! The regularised multinomial logistic objective: its value and its gradient in one pass over the features.
//!
//! What is minimised, and by whom, is not known here; [`super::lbfgs`] does it. The two products of a pass, `X · Wᵀ` and
//! `Rᵀ · X`, are matrix products on blocks of rows. Blocks and the order in which their sums are added depend on the
//! problem's shape alone, so the numbers are the same for every number of threads.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, Axis, LinalgScalar, aview1};
use rayon::prelude::*;

use super::loss;
use super::training::Examples;
use crate::{Error, Result};

/// Rows whose logits are formed by one matrix product.
const BLOCK: usize = 256;
/// The most partial gradients that are held at once: enough for as many threads, and little memory beside the features.
const PARTS: usize = 32;
/// The most numbers in all partial gradients together; 256 MiB.
const PART_NUMBERS: usize = 1 << 25;

/// The precision of the matrix products; everything else is f64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Products {
    /// f32 within a block of rows, sums over blocks in f64: twice as fast, gradients good to about 1e-8.
    Single,
    /// f64 throughout.
    Double,
}

/// A linear classifier in f64, for rows from which the objective's centre was subtracted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Parameters {
    /// `[classes, dim]`.
    pub(super) weight: Array2<f64>,
    /// `[classes]`: the logits of the centre.
    pub(super) offset: Array1<f64>,
}

/// The objective at one point.
#[derive(Debug, Clone)]
pub(super) struct Evaluation {
    /// The objective, per unit of weight.
    pub(super) value: f64,
    /// Its derivative by each parameter.
    pub(super) gradient: Parameters,
}

/// `Σ sᵢ · ceᵢ + ½ · |W|² / C`, divided by `Σ sᵢ`: scikit-learn's `LogisticRegression`, per unit of weight.
///
/// `ceᵢ` is the cross-entropy of row `i` against its smoothed target, as PyTorch's `cross_entropy(label_smoothing=ε)`:
/// `1 - ε` on its class and `ε / classes` on all; the bias is not penalised.
///
/// Rows are taken relative to a fixed centre, their weighted mean. That changes neither the weights nor the value (the
/// bias is free), but keeps the logits' rounding errors small and the curvature of weights and bias apart.
#[derive(Debug)]
pub(super) struct Objective<'a> {
    features: ArrayView2<'a, f32>,
    labels: &'a [usize],
    classes: usize,
    /// `sᵢ / Σ s`.
    shares: Vec<f64>,
    smoothing: f64,
    /// `1 / (C · Σ s)`.
    penalty: f64,
    /// `[dim]`.
    centre: Vec<f64>,
}

impl<'a> Objective<'a> {
    /// The objective on `examples`, whose rows count `weights` (`[n]`, 0 or above) times.
    ///
    /// # Errors
    /// [`Error::Examples`] if all weights are 0 or one is negative or not finite.
    pub(super) fn new(
        examples: &'a Examples<'_>,
        classes: usize,
        weights: &[f64],
        smoothing: f64,
        c: f64,
    ) -> Result<Self> {
        let total: f64 = weights.iter().sum();
        if weights.iter().any(|weight| weight.is_sign_negative() && *weight != 0.0) || !(total.is_finite() && total > 0.0)
        {
            return Err(Error::Examples(
                "the weights of the rows must be finite, not below 0 and not all 0".to_owned(),
            ));
        }
        let shares: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
        let mut centre = vec![0.0; examples.dim()];
        for (row, share) in examples.features().rows().into_iter().zip(&shares) {
            for (mean, &value) in centre.iter_mut().zip(row) {
                *mean += share * f64::from(value);
            }
        }
        Ok(Self {
            features: examples.features(),
            labels: examples.labels(),
            classes,
            shares,
            smoothing,
            penalty: 1.0 / (c * total),
            centre,
        })
    }

    /// How many classes the classifier tells apart.
    pub(super) fn classes(&self) -> usize {
        self.classes
    }

    /// How many features a row has.
    pub(super) fn dim(&self) -> usize {
        self.features.ncols()
    }

    /// How many rows there are.
    pub(super) fn rows(&self) -> usize {
        self.features.nrows()
    }

    /// The penalty's second derivative by each weight, per unit of weight.
    pub(super) fn penalty(&self) -> f64 {
        self.penalty
    }

    /// The centre of the rows, `[dim]`.
    pub(super) fn centre(&self) -> &[f64] {
        &self.centre
    }

    /// The largest derivative by a weight or bias of the classifier as it applies to the rows as they are.
    pub(super) fn gradient_norm(&self, gradient: &Parameters) -> f64 {
        let mut norm = 0.0_f64;
        for (row, &offset) in gradient.weight.rows().into_iter().zip(&gradient.offset) {
            for (weight, centre) in row.iter().zip(&self.centre) {
                norm = larger(norm, (weight + offset * centre).abs());
            }
            norm = larger(norm, offset.abs());
        }
        norm
    }

    /// The value and the gradient at `at`.
    pub(super) fn evaluate(&self, at: &Parameters, products: Products) -> Evaluation {
        match products {
            Products::Single => self.evaluate_in::<f32>(at),
            Products::Double => self.evaluate_in::<f64>(at),
        }
    }

    fn evaluate_in<T: Real>(&self, at: &Parameters) -> Evaluation {
        let weight = at.weight.mapv(T::from_f64);
        let rows = self.rows_of_a_part();
        let parts: Vec<Part> = (0..self.rows().div_ceil(rows))
            .into_par_iter()
            .map(|part| {
                let start = part * rows;
                self.part::<T>(&weight, &at.offset, start..self.rows().min(start + rows))
            })
            .collect();
        let mut gradient = &at.weight * self.penalty;
        // Each number is summed by one thread, part after part.
        gradient
            .axis_iter_mut(Axis(0))
            .into_par_iter()
            .enumerate()
            .for_each(|(class, mut row)| {
                for part in &parts {
                    row += &part.weight.row(class);
                }
            });
        let mut offset = Array1::zeros(self.classes);
        let mut value = 0.5 * self.penalty * at.weight.iter().map(|weight| weight * weight).sum::<f64>();
        for part in &parts {
            offset += &part.offset;
            value += part.loss;
        }
        Evaluation {
            value,
            gradient: Parameters {
                weight: gradient,
                offset,
            },
        }
    }

    /// How many rows go into one partial sum.
    fn rows_of_a_part(&self) -> usize {
        let most = PARTS.min((PART_NUMBERS / (self.classes * self.dim())).max(1));
        self.rows().div_ceil(BLOCK).div_ceil(most) * BLOCK
    }

    /// The loss of some rows and its gradient.
    fn part<T: Real>(&self, weight: &Array2<T>, offset: &Array1<f64>, rows: std::ops::Range<usize>) -> Part {
        let mut part = Part {
            loss: 0.0,
            weight: Array2::zeros((self.classes, self.dim())),
            offset: Array1::zeros(self.classes),
        };
        let mut x = Array2::<T>::zeros((BLOCK, self.dim()));
        let mut residuals = Array2::<T>::zeros((BLOCK, self.classes));
        let mut row = vec![0.0; self.classes];
        for start in rows.clone().step_by(BLOCK) {
            let count = BLOCK.min(rows.end - start);
            let mut x = x.slice_mut(ndarray::s![..count, ..]);
            self.centred(start, x.view_mut());
            let mut residuals = residuals.slice_mut(ndarray::s![..count, ..]);
            general_mat_mul(T::one(), &x, &weight.t(), T::zero(), &mut residuals);
            for (index, mut residuals) in residuals.rows_mut().into_iter().enumerate() {
                for ((logit, &product), offset) in row.iter_mut().zip(&residuals).zip(offset) {
                    *logit = product.into_f64() + offset;
                }
                part.loss += self.differentiate(&mut row, start + index);
                for ((residual, value), sum) in residuals.iter_mut().zip(&row).zip(&mut part.offset) {
                    *residual = T::from_f64(*value);
                    *sum += value;
                }
            }
            T::accumulate(&residuals.t(), &x.view(), &mut part.weight);
        }
        part
    }

    /// Turns the logits of a row into the derivatives of its share of the loss, which is returned.
    fn differentiate(&self, logits: &mut [f64], row: usize) -> f64 {
        let (share, label) = (self.shares[row], self.labels[row]);
        let everywhere = self.smoothing / self.classes as f64;
        let sum: f64 = logits.iter().sum();
        let of_label = logits[label];
        let log_sum_exp = loss::softmax(logits);
        for value in logits.iter_mut() {
            *value = (*value - everywhere) * share;
        }
        logits[label] -= (1.0 - self.smoothing) * share;
        // Without smoothing the sum is here so that an infinite or NaN logit is seen in the loss.
        share * (log_sum_exp - (1.0 - self.smoothing) * of_label - everywhere * sum)
    }

    /// Writes consecutive rows, less the centre.
    fn centred<T: Real>(&self, start: usize, mut x: ArrayViewMut2<'_, T>) {
        for (mut row, index) in x.rows_mut().into_iter().zip(start..) {
            for ((value, &feature), centre) in row.iter_mut().zip(self.features.row(index)).zip(&self.centre) {
                *value = T::from_f64(f64::from(feature) - centre);
            }
        }
    }

    /// The covariance of the rows, `[dim, dim]`, from at most `most` of them evenly spread.
    pub(super) fn covariance(&self, most: usize) -> Array2<f64> {
        let step = self.rows().div_ceil(most);
        let taken: Vec<usize> = (0..self.rows()).step_by(step).collect();
        let total: f64 = taken.iter().map(|&row| self.shares[row]).sum();
        let dim = self.dim();
        let parts: Vec<Array2<f64>> = taken
            .par_chunks(taken.len().div_ceil(4).max(BLOCK))
            .map(|part| {
                let mut sum = Array2::zeros((dim, dim));
                for rows in part.chunks(BLOCK) {
                    let mut x = Array2::<f32>::zeros((rows.len(), dim));
                    for (mut x, &row) in x.rows_mut().into_iter().zip(rows) {
                        let scale = (self.shares[row] / total).sqrt();
                        for ((x, &feature), centre) in x.iter_mut().zip(self.features.row(row)).zip(&self.centre) {
                            *x = ((f64::from(feature) - centre) * scale) as f32;
                        }
                    }
                    f32::accumulate(&x.t(), &x.view(), &mut sum);
                }
                sum
            })
            .collect();
        let mut covariance = Array2::zeros((dim, dim));
        for part in &parts {
            covariance += part;
        }
        covariance
    }

    /// The centred parameters of a classifier of the rows as they are.
    pub(super) fn centre_of(&self, weight: Array2<f64>, bias: &Array1<f64>) -> Parameters {
        let offset = bias + &weight.dot(&aview1(&self.centre));
        Parameters { weight, offset }
    }

    /// The bias of the classifier that applies to the rows as they are.
    pub(super) fn bias_of(&self, parameters: &Parameters) -> Array1<f64> {
        &parameters.offset - &parameters.weight.dot(&aview1(&self.centre))
    }
}

/// The larger number, and NaN where one is.
fn larger(a: f64, b: f64) -> f64 {
    if b > a || b.is_nan() { b } else { a }
}

/// The sums over some rows.
#[derive(Debug)]
struct Part {
    loss: f64,
    weight: Array2<f64>,
    offset: Array1<f64>,
}

/// What the matrix products are made of.
trait Real: LinalgScalar + Send + Sync {
    fn from_f64(value: f64) -> Self;
    fn into_f64(self) -> f64;
    /// `sum += a · b`.
    fn accumulate(a: &ArrayView2<'_, Self>, b: &ArrayView2<'_, Self>, sum: &mut Array2<f64>);
}

impl Real for f32 {
    fn from_f64(value: f64) -> Self {
        value as f32
    }

    fn into_f64(self) -> f64 {
        f64::from(self)
    }

    fn accumulate(a: &ArrayView2<'_, Self>, b: &ArrayView2<'_, Self>, sum: &mut Array2<f64>) {
        let product = a.dot(b);
        sum.zip_mut_with(&product, |sum, &product| *sum += f64::from(product));
    }
}

impl Real for f64 {
    fn from_f64(value: f64) -> Self {
        value
    }

    fn into_f64(self) -> f64 {
        self
    }

    fn accumulate(a: &ArrayView2<'_, Self>, b: &ArrayView2<'_, Self>, sum: &mut Array2<f64>) {
        general_mat_mul(1.0, a, b, 1.0, sum);
    }
}

#[cfg(test)]
#[path = "objective_tests.rs"]
mod tests;
