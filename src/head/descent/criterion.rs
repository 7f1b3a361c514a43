//! The loss that is descended: cross-entropy with class weights, label smoothing and sample weights.
//!
//! `Σ sᵢ·[(1 - ε)·w(yᵢ)·(-log p(yᵢ)) + ε/C·Σₖ wₖ·(-log pₖ)] / Σ sᵢ·w(yᵢ)` over the rows of a mini-batch: PyTorch's
//! `cross_entropy(weight=w, label_smoothing=ε, reduction="mean")`, and each row by its sample weight. What epochs record is
//! the plain cross-entropy ([`crate::head::loss`]), so that heads of different losses can be compared.

use multiversion::multiversion;

use super::step::TINY;
use crate::Result;
use crate::head::recipe::Recipe;
use crate::head::softmax::Softmax;
use crate::head::training::TrainingTask;

/// A loss, by what each class contributes.
#[derive(Debug, Clone)]
pub(super) struct Criterion {
    /// The weight of each class.
    weights: Vec<f64>,
    /// What of a row's target is at its label: `(1 - ε)·w`.
    hot: Vec<f64>,
    /// The whole target of a row by its label: `hot + ε/C·Σ w`.
    mass: Vec<f64>,
    /// What of each target is at each class: `ε/C·w`; empty without smoothing.
    base: Vec<f64>,
}

impl Criterion {
    /// The loss of a recipe on the training rows of a task.
    pub(super) fn new(recipe: &Recipe, task: &TrainingTask<'_>) -> Result<Self> {
        let (classes, labels) = (task.classes(), task.train().labels());
        let weights = recipe.class_weights.resolve(classes, labels, task.sample_weights())?;
        Ok(Self::of(weights, recipe.label_smoothing))
    }

    /// The loss of these class weights.
    fn of(weights: Vec<f64>, smoothing: f64) -> Self {
        let share = smoothing / weights.len() as f64;
        let total: f64 = weights.iter().sum();
        let hot: Vec<f64> = weights.iter().map(|weight| (1.0 - smoothing) * weight).collect();
        Self {
            mass: hot.iter().map(|hot| hot + share * total).collect(),
            hot,
            base: match smoothing {
                0.0 => Vec::new(),
                _ => weights.iter().map(|weight| share * weight).collect(),
            },
            weights,
        }
    }

    /// `Σ sᵢ·w(yᵢ)`.
    pub(super) fn total(&self, labels: &[usize], sample_weights: &[f64]) -> f64 {
        labels
            .iter()
            .enumerate()
            .map(|(row, &label)| sample_weights.get(row).unwrap_or(&1.0) * self.weights[label])
            .sum()
    }
}

/// What the softmax of each column, one row and head, is compared with.
#[derive(Debug, Default)]
pub(super) struct Targets {
    stride: usize,
    labels: Vec<f64>,
    hot: Vec<f64>,
    mass: Vec<f64>,
    scale: Vec<f64>,
    /// `[classes, stride]`; empty where no head smooths.
    base: Vec<f64>,
}

impl Targets {
    /// Makes room for columns, `smoothed` if a head smooths its labels.
    pub(super) fn reset(&mut self, classes: usize, stride: usize, smoothed: bool) {
        self.stride = stride;
        for values in [&mut self.labels, &mut self.hot, &mut self.mass, &mut self.scale] {
            values.resize(stride, 0.0);
        }
        self.base.clear();
        if smoothed {
            self.base.resize(classes * stride, 0.0);
        }
    }

    /// Sets the columns from `offset` on to rows of these labels and weights; `total` is the whole batch's.
    pub(super) fn set(
        &mut self,
        offset: usize,
        criterion: &Criterion,
        labels: &[usize],
        sample_weights: &[f64],
        total: f64,
    ) {
        for (row, &label) in labels.iter().enumerate() {
            let column = offset + row;
            self.labels[column] = label as f64;
            self.hot[column] = criterion.hot[label];
            self.mass[column] = criterion.mass[label];
            let weight = sample_weights.get(row).unwrap_or(&1.0);
            // A batch whose rows all weigh nothing asks for nothing.
            self.scale[column] = if total > 0.0 { weight / total } else { 0.0 };
        }
        for (base, row) in criterion.base.iter().zip(self.base.chunks_exact_mut(self.stride)) {
            row[offset..][..labels.len()].fill(*base);
        }
    }

    /// Writes the derivative of the loss by each logit, `[classes, stride]`; what is below [`TINY`] as 0.
    pub(super) fn residuals(&self, softmax: &Softmax, residuals: &mut [f32]) {
        derive(self, softmax, residuals);
    }
}

impl Criterion {
    /// Whether labels are smoothed.
    pub(super) fn smooths(&self) -> bool {
        !self.base.is_empty()
    }
}

#[inline(always)]
fn derive_columns<const L: usize, const SMOOTHED: bool>(
    targets: &Targets,
    softmax: &Softmax,
    start: usize,
    residuals: &mut [f32],
) {
    let take = |values: &[f64]| -> [f64; L] { std::array::from_fn(|lane| values[start + lane]) };
    let (labels, hot, scale) = (take(&targets.labels), take(&targets.hot), take(&targets.scale));
    let (mass, sums) = (take(&targets.mass), take(&softmax.sums));
    let mut norm = [0_f64; L];
    for lane in 0..L {
        norm[lane] = 1.0 / sums[lane];
    }
    let stride = targets.stride;
    let classes = softmax
        .powers
        .chunks_exact(stride)
        .zip(residuals.chunks_exact_mut(stride));
    for (class, (powers, residuals)) in classes.enumerate() {
        let (powers, residuals) = (&powers[start..][..L], &mut residuals[start..][..L]);
        for lane in 0..L {
            let mut target = if labels[lane] == class as f64 { hot[lane] } else { 0.0 };
            if SMOOTHED {
                target += targets.base[class * stride + start + lane];
            }
            let residual = (powers[lane] * norm[lane] * mass[lane] - target) * scale[lane];
            residuals[lane] = if residual.abs() < f64::from(TINY) {
                0.0
            } else {
                residual as f32
            };
        }
    }
}

#[inline(always)]
fn derive_anywhere(targets: &Targets, softmax: &Softmax, residuals: &mut [f32]) {
    let (mut start, smoothed) = (0, !targets.base.is_empty());
    while start < targets.stride {
        let wide = start + 8 <= targets.stride;
        match (wide, smoothed) {
            (true, true) => derive_columns::<8, true>(targets, softmax, start, residuals),
            (true, false) => derive_columns::<8, false>(targets, softmax, start, residuals),
            (false, true) => derive_columns::<4, true>(targets, softmax, start, residuals),
            (false, false) => derive_columns::<4, false>(targets, softmax, start, residuals),
        }
        start += if wide { 8 } else { 4 };
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn derive(targets: &Targets, softmax: &Softmax, residuals: &mut [f32]) {
    derive_anywhere(targets, softmax, residuals);
}

#[cfg(test)]
#[path = "criterion_tests.rs"]
mod tests;
