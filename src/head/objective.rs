//! The regularised multinomial logistic objective: its value and its gradient in one pass over the features.
//!
//! What is minimised, and by whom, is not known here; [`super::lbfgs`] does it. The two products of a pass, `X · Wᵀ` and
//! `Rᵀ · X`, are matrix products on blocks of rows. Blocks and the order in which their sums are added depend on the
//! problem's shape alone, so the numbers are the same for every number of threads.

mod curvature;

use std::ops::Range;

use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayBase, ArrayView1, ArrayView2, ArrayViewMut2, Axis, LinalgScalar, aview1, s};
use rayon::prelude::*;

use super::linear::LinearHead;
use super::softmax::{log_sum_exp, softmax_row};
use super::training::TrainingTask;
use crate::{Error, Observer, Result};

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
    /// The lowest and the highest `log Σ exp` of a row's logits.
    pub(super) levels: [f64; 2],
}

/// `Σ sᵢ · ceᵢ + ½ · |W|² / C`, of two classes `Σ sᵢ · ceᵢ + |W|² / C`, divided by `Σ sᵢ`: scikit-learn's
/// `LogisticRegression`, per unit of weight.
///
/// `ceᵢ` is the cross-entropy of row `i` against its smoothed target, as PyTorch's `cross_entropy(label_smoothing=ε)`:
/// `1 - ε` on its class and `ε / classes` on all; the bias is not penalised. All of it counts `sᵢ`, where PyTorch's class
/// weights weigh each class's part of a smoothed target by itself. Of two classes scikit-learn has one weight row,
/// `w = W₁ - W₀`, and penalises `½ · |w|²`; at the optimum `W₁ = -W₀`, so that is `|W|²` here.
///
/// Without smoothing, a class that no row has is left out, as scikit-learn does it: its bias would go to -∞.
///
/// Rows are taken relative to a fixed centre, their weighted mean. That changes neither the weights nor the value (the
/// bias is free), but keeps the logits' rounding errors small and the curvature of weights and bias apart.
#[derive(Debug)]
pub(super) struct Objective<'a> {
    /// Matrices of `labels.len()` rows each, taken one after another.
    matrices: Vec<ArrayView2<'a, f32>>,
    /// For each row its class's place among `classes`.
    labels: Vec<usize>,
    /// The classes told apart, of the task's, in order.
    classes: Vec<usize>,
    /// `Σ s`.
    total: f64,
    /// `sᵢ / Σ s` for each row of a matrix, divided by the number of matrices.
    shares: Vec<f64>,
    smoothing: f64,
    /// `1 / (C · Σ s)`, of two classes twice that.
    penalty: f64,
    /// `[dim]`.
    centre: Vec<f64>,
}

impl<'a> Objective<'a> {
    /// The objective on the task's training rows, which count `weights` (`[n]`) times.
    ///
    /// Where the task has views of the rows, it is on all of them in place of the rows themselves; each counts as a part of
    /// its row, so that C means the same.
    ///
    /// # Errors
    /// [`Error::Examples`] if all weights are 0, or one is negative or not finite.
    pub(super) fn new(task: &'a TrainingTask<'_>, weights: &[f64], smoothing: f64, c: f64) -> Result<Self> {
        let total: f64 = weights.iter().sum();
        if weights.iter().any(|&weight| weight < 0.0) || !(total.is_finite() && total > 0.0) {
            return Err(Error::Examples(
                "the weights of the rows must be finite, not below 0 and not all 0".to_owned(),
            ));
        }
        let matrices = matrices(task);
        let mut of_class = vec![0.0; task.classes()];
        for (&label, weight) in task.train().labels().iter().zip(weights) {
            of_class[label] += weight;
        }
        let classes: Vec<usize> = (0..task.classes())
            .filter(|&class| smoothing > 0.0 || of_class[class] > 0.0)
            .collect();
        // A row of a class that is left out weighs nothing: any label will do.
        let place = |label: &usize| classes.binary_search(label).unwrap_or(0);
        let scale = 1.0 / (total * matrices.len() as f64);
        let mut objective = Self {
            labels: task.train().labels().iter().map(place).collect(),
            total,
            shares: weights.iter().map(|weight| weight * scale).collect(),
            smoothing,
            penalty: 0.0,
            centre: vec![0.0; task.train().dim()],
            matrices,
            classes,
        };
        objective.set_c(c);
        objective.centre = objective.mean();
        Ok(objective)
    }

    /// The weighted mean of the rows.
    fn mean(&self) -> Vec<f64> {
        let rows = self.rows_of_a_part();
        let parts: Vec<Vec<f64>> = (0..self.rows().div_ceil(rows))
            .into_par_iter()
            .map(|part| {
                let mut sums = vec![0.0; self.dim()];
                for index in part * rows..self.rows().min((part + 1) * rows) {
                    let share = self.share(index);
                    for (sum, &feature) in sums.iter_mut().zip(self.row(index)) {
                        *sum += share * f64::from(feature);
                    }
                }
                sums
            })
            .collect();
        let mut mean = vec![0.0; self.dim()];
        for part in &parts {
            for (mean, sum) in mean.iter_mut().zip(part) {
                *mean += sum;
            }
        }
        mean
    }

    /// The classes told apart, of the task's, in order: those whose rows weigh something, or all.
    pub(super) fn classes(&self) -> &[usize] {
        &self.classes
    }

    /// How many features a row has.
    pub(super) fn dim(&self) -> usize {
        self.centre.len()
    }

    /// How many rows there are.
    pub(super) fn rows(&self) -> usize {
        self.labels.len() * self.matrices.len()
    }

    fn row(&self, index: usize) -> ArrayView1<'_, f32> {
        let rows = self.labels.len();
        self.matrices[index / rows].index_axis(Axis(0), index % rows)
    }

    fn share(&self, index: usize) -> f64 {
        self.shares[index % self.labels.len()]
    }

    /// The sum of the rows' weights, which the value is divided by.
    pub(super) fn total(&self) -> f64 {
        self.total
    }

    /// Takes another C.
    pub(super) fn set_c(&mut self, c: f64) {
        let penalised = if self.classes.len() == 2 { 2.0 } else { 1.0 };
        self.penalty = penalised / (c * self.total);
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
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the observer asks for it: on many rows this takes seconds.
    pub(super) fn evaluate(&self, at: &Parameters, products: Products, observer: &dyn Observer) -> Result<Evaluation> {
        match products {
            Products::Single => self.evaluate_in::<f32>(at, observer),
            Products::Double => self.evaluate_in::<f64>(at, observer),
        }
    }

    fn evaluate_in<T: Real>(&self, at: &Parameters, observer: &dyn Observer) -> Result<Evaluation> {
        let weight = at.weight.mapv(T::from_f64);
        let rows = self.rows_of_a_part();
        let parts = (0..self.rows().div_ceil(rows)).into_par_iter().map(|part| {
            let start = part * rows;
            self.part::<T>(&weight, &at.offset, start..self.rows().min(start + rows), observer)
        });
        let parts = parts.collect::<Result<Vec<Part>>>()?;
        let mut gradient = &at.weight * self.penalty;
        // Each number is summed by one thread, part after part.
        let mut of_classes: Vec<_> = gradient.rows_mut().into_iter().collect();
        of_classes.par_iter_mut().enumerate().for_each(|(class, row)| {
            for part in &parts {
                *row += &part.weight.row(class);
            }
        });
        let mut offset = Array1::zeros(self.classes.len());
        let mut value = 0.5 * self.penalty * at.weight.iter().map(|weight| weight * weight).sum::<f64>();
        let mut levels = [f64::INFINITY, f64::NEG_INFINITY];
        for part in &parts {
            offset += &part.offset;
            value += part.loss;
            levels = [levels[0].min(part.levels[0]), levels[1].max(part.levels[1])];
        }
        Ok(Evaluation {
            value,
            gradient: Parameters {
                weight: gradient,
                offset,
            },
            levels,
        })
    }

    /// How many rows go into one partial sum.
    fn rows_of_a_part(&self) -> usize {
        let most = PARTS.min((PART_NUMBERS / (self.classes.len() * self.dim())).max(1));
        self.rows().div_ceil(BLOCK).div_ceil(most) * BLOCK
    }

    /// The loss of some rows and its gradient.
    fn part<T: Real>(
        &self,
        weight: &Array2<T>,
        offset: &Array1<f64>,
        rows: Range<usize>,
        observer: &dyn Observer,
    ) -> Result<Part> {
        let mut part = Part {
            loss: 0.0,
            levels: [f64::INFINITY, f64::NEG_INFINITY],
            weight: Array2::zeros((self.classes.len(), self.dim())),
            offset: Array1::zeros(self.classes.len()),
        };
        let mut x = Array2::<T>::zeros((BLOCK, self.dim()));
        let mut residuals = Array2::<T>::zeros((BLOCK, self.classes.len()));
        let mut row = vec![0.0; self.classes.len()];
        for start in rows.clone().step_by(BLOCK) {
            if observer.interrupted() {
                return Err(Error::Interrupted);
            }
            let count = BLOCK.min(rows.end - start);
            let mut x = x.slice_mut(s![..count, ..]);
            self.centred(start, x.view_mut());
            let mut residuals = residuals.slice_mut(s![..count, ..]);
            general_mat_mul(T::one(), &x, &weight.t(), T::zero(), &mut residuals);
            for (index, mut residuals) in residuals.rows_mut().into_iter().enumerate() {
                for ((logit, &product), offset) in row.iter_mut().zip(&residuals).zip(offset) {
                    *logit = product.into_f64() + offset;
                }
                let (loss, level) = self.differentiate(&mut row, start + index);
                part.loss += loss;
                part.levels = [part.levels[0].min(level), part.levels[1].max(level)];
                for ((residual, value), sum) in residuals.iter_mut().zip(&row).zip(&mut part.offset) {
                    *residual = T::from_f64(*value);
                    *sum += value;
                }
            }
            T::accumulate(&residuals.t(), &x.view(), &mut part.weight);
        }
        Ok(part)
    }

    /// Turns the logits of a row into the derivatives of its share of the loss, which is returned with their `log Σ exp`.
    fn differentiate(&self, logits: &mut [f64], row: usize) -> (f64, f64) {
        let (share, label) = (self.share(row), self.labels[row % self.labels.len()]);
        let everywhere = self.smoothing / self.classes.len() as f64;
        let sum: f64 = logits.iter().sum();
        let of_label = logits[label];
        let log_sum_exp = softmax_row(logits);
        for value in logits.iter_mut() {
            *value = (*value - everywhere) * share;
        }
        logits[label] -= (1.0 - self.smoothing) * share;
        // Without smoothing the sum is here so that an infinite or NaN logit is seen in the loss.
        let loss = log_sum_exp - (1.0 - self.smoothing) * of_label - everywhere * sum;
        (share * loss, log_sum_exp)
    }

    /// Writes consecutive rows, less the centre.
    fn centred<T: Real>(&self, start: usize, mut x: ArrayViewMut2<'_, T>) {
        for (mut row, index) in x.rows_mut().into_iter().zip(start..) {
            let features = self.row(index);
            let write = |((value, &feature), centre): ((&mut T, &f32), &f64)| {
                *value = T::from_f64(f64::from(feature) - centre);
            };
            // Slices are what the compiler vectorises.
            match (row.as_slice_mut(), features.as_slice()) {
                (Some(row), Some(features)) => row.iter_mut().zip(features).zip(&self.centre).for_each(write),
                _ => row.iter_mut().zip(features).zip(&self.centre).for_each(write),
            }
        }
    }

    /// The penalty's second derivative by each weight, per unit of weight.
    pub(super) fn penalty(&self) -> f64 {
        self.penalty
    }

    /// The classes of the rows, as places in [`classes`](Self::classes).
    pub(super) fn labels(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.rows()).map(|row| self.labels[row % self.labels.len()])
    }

    /// Whether the loss is the plain mean over all rows, without weights and smoothing.
    pub(super) fn is_plain(&self) -> bool {
        self.smoothing == 0.0 && self.shares.iter().all(|&share| share == self.shares[0])
    }

    /// The rows' weighted mean, `[dim]`.
    #[cfg(test)]
    pub(super) fn centre(&self) -> &[f64] {
        &self.centre
    }

    /// All rows less the centre, times `scale`, `[rows, dim]`.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the observer asks for it.
    pub(super) fn scaled_rows(&self, scale: f64, observer: &dyn Observer) -> Result<Array2<f64>> {
        let mut rows = Array2::zeros((self.rows(), self.dim()));
        let mut blocks: Vec<_> = rows.axis_chunks_iter_mut(Axis(0), BLOCK).collect();
        blocks.par_iter_mut().enumerate().try_for_each(|(block, x)| {
            if observer.interrupted() {
                return Err(Error::Interrupted);
            }
            self.centred(block * BLOCK, x.view_mut());
            *x *= scale;
            Ok(())
        })?;
        Ok(rows)
    }

    /// The mean over all rows of their squared distance from the centre.
    pub(super) fn spread(&self) -> f64 {
        let rows = self.rows_of_a_part();
        let parts: Vec<f64> = (0..self.rows().div_ceil(rows))
            .into_par_iter()
            .map(|part| {
                let squares = (part * rows..self.rows().min((part + 1) * rows)).map(|index| {
                    let distances = self.row(index).into_iter().zip(&self.centre);
                    distances
                        .map(|(&feature, centre)| (f64::from(feature) - centre).powi(2))
                        .sum::<f64>()
                });
                squares.sum()
            })
            .collect();
        parts.iter().sum::<f64>() / self.rows() as f64
    }

    /// The parameters of a head of all the task's classes.
    pub(super) fn parameters_of(&self, head: &LinearHead) -> Parameters {
        let weight = head.weight().select(Axis(0), &self.classes).mapv(f64::from);
        let bias = head.bias().select(Axis(0), &self.classes).mapv(f64::from);
        let offset = bias + weight.dot(&aview1(&self.centre));
        Parameters { weight, offset }
    }

    /// The head of `classes` classes with these parameters, in f32.
    ///
    /// A class that was left out has no weights, and a bias at which no training row gives it more than 2e-9.
    ///
    /// # Errors
    /// None that a finished minimisation could cause: those of [`LinearHead`].
    pub(super) fn head_of(&self, parameters: &Parameters, classes: usize) -> Result<LinearHead> {
        let bias = &parameters.offset - &parameters.weight.dot(&aview1(&self.centre));
        let to_f32 = |value: f64| value as f32;
        let told = LinearHead::new(parameters.weight.mapv(to_f32), bias.mapv(to_f32))?;
        if self.classes.len() == classes {
            return Ok(told);
        }
        let mut lowest = f64::INFINITY;
        let blocks = self
            .matrices
            .iter()
            .flat_map(|matrix| matrix.axis_chunks_iter(Axis(0), BLOCK));
        for block in blocks {
            for logits in told.logits(block)?.rows() {
                lowest = lowest.min(log_sum_exp(&logits.to_vec()));
            }
        }
        let mut weight = Array2::zeros((classes, self.dim()));
        let mut bias = Array1::from_elem(classes, (lowest - 20.0) as f32);
        for (place, &class) in self.classes.iter().enumerate() {
            weight.row_mut(class).assign(&told.weight().row(place));
            bias[class] = told.bias()[place];
        }
        LinearHead::new(weight, bias)
    }
}

/// What solvers that see all rows at once train on: the training rows or, where there are some, their views.
pub(super) fn matrices<'t>(task: &'t TrainingTask<'_>) -> Vec<ArrayView2<'t, f32>> {
    if task.views().is_empty() {
        vec![task.train().features()]
    } else {
        task.views().iter().map(ArrayBase::view).collect()
    }
}

/// How many threads an evaluation on so many rows can use at most.
pub(super) fn parts(rows: usize) -> usize {
    rows.div_ceil(BLOCK).min(PARTS)
}

/// What the partial gradients of an evaluation take at most.
pub(super) fn part_bytes(rows: usize, dim: usize, classes: usize) -> usize {
    let numbers = dim.saturating_mul(classes);
    let all = numbers.saturating_mul(parts(rows));
    // One is needed however large it is.
    all.min(PART_NUMBERS.max(numbers)).saturating_mul(size_of::<f64>())
}

/// The larger number, and NaN where one is.
fn larger(a: f64, b: f64) -> f64 {
    if b > a || b.is_nan() { b } else { a }
}

/// The sums over some rows.
#[derive(Debug)]
struct Part {
    loss: f64,
    levels: [f64; 2],
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
pub(super) mod tests;
