//! What one step does to parameters: PyTorch's SGD and AdamW, in f32 as there.

use multiversion::multiversion;

use crate::head::kernel;
use crate::head::recipe::{Descent, Update};
use crate::head::schedule::Rates;

/// The most rows whose gradient is formed and applied in one pass over the weights.
pub(super) const FUSED_ROWS: usize = 4;

/// What counts as 0 in residuals, velocities and means: far below what moves an f32 weight, far above the subnormal
/// numbers that a processor computes some hundred times slower. A head that is sure of all its rows would be full of them.
pub(super) const TINY: f32 = 1e-30;
/// The same for AdamW's gradients, of which it takes squares; beside PyTorch's default epsilon of 1e-8 they move nothing.
const TINY_ROOT: f32 = 1e-18;
/// Steps after which velocities are looked through for what is below [`TINY`].
const TIDY_EVERY: u64 = 16;

/// The constants of one step.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Sgd(Sgd),
    AdamW(AdamW),
}

impl Step {
    /// The step at these rates, after `made` earlier ones.
    pub(super) fn new(options: &Descent, rates: Rates, made: u64) -> Self {
        match options.update {
            Update::Sgd {
                dampening, nesterov, ..
            } => {
                // PyTorch copies the first gradient into its momentum buffer, and dampens only a buffer that exists.
                let dampened = made > 0 && rates.momentum != 0.0;
                Self::Sgd(Sgd {
                    rate: rates.learning_rate as f32,
                    decay: options.weight_decay as f32,
                    momentum: rates.momentum as f32,
                    gain: if dampened { (1.0 - dampening) as f32 } else { 1.0 },
                    nesterov,
                })
            }
            Update::AdamW { beta2, epsilon, .. } => {
                let (beta1, number) = (rates.momentum, made + 1);
                Self::AdamW(AdamW {
                    shrink: (1.0 - rates.learning_rate * options.weight_decay) as f32,
                    towards: (1.0 - beta1) as f32,
                    keep: beta2 as f32,
                    gain: (1.0 - beta2) as f32,
                    root: (1.0 - power(beta2, number)).sqrt() as f32,
                    epsilon: epsilon as f32,
                    size: (rates.learning_rate / (1.0 - power(beta1, number))) as f32,
                })
            }
        }
    }

    /// Makes velocities that fade away 0 before they are subnormal, every few steps.
    pub(super) fn tidy(&self, velocity: &mut [f32], made: u64) {
        if matches!(self, Self::Sgd(_)) && made.is_multiple_of(TIDY_EVERY) {
            tidy(velocity);
        }
    }

    /// Moves `weight` against `gradient`.
    pub(super) fn apply(&self, weight: &mut [f32], first: &mut [f32], second: &mut [f32], gradient: &[f32]) {
        match self {
            Self::Sgd(step) => sgd(*step, weight, first, gradient),
            Self::AdamW(step) => adamw(*step, weight, first, second, gradient),
        }
    }
}

/// `baseᵉˣᵖᵒⁿᵉⁿᵗ` by squaring: the bits of `powi` differ from platform to platform.
fn power(base: f64, mut exponent: u64) -> f64 {
    let (mut product, mut square) = (1.0, base);
    while exponent > 0 {
        if exponent & 1 == 1 {
            product *= square;
        }
        square *= square;
        exponent >>= 1;
    }
    product
}

/// `torch.optim.SGD`: `g ← g + decay·w`, `v ← momentum·v + gain·g`, `w ← w - rate·v` (Nesterov:
/// `w ← w - rate·(g + momentum·v)`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Sgd {
    rate: f32,
    decay: f32,
    momentum: f32,
    /// `1 - dampening`; 1 in the first step, which sets the velocity to the gradient, and without momentum.
    gain: f32,
    nesterov: bool,
}

impl Sgd {
    /// Whether the terms that are left out in the plain form would change nothing.
    fn is_plain(self) -> bool {
        self.gain == 1.0 && !self.nesterov
    }

    #[inline(always)]
    fn apply<const PLAIN: bool>(self, weight: &mut f32, velocity: &mut f32, gradient: f32) {
        let gradient = self.decay.mul_add(*weight, gradient);
        if PLAIN {
            *velocity = self.momentum.mul_add(*velocity, gradient);
            *weight = (-self.rate).mul_add(*velocity, *weight);
            return;
        }
        *velocity = self.momentum.mul_add(*velocity, self.gain * gradient);
        let ahead = self.momentum.mul_add(*velocity, gradient);
        *weight = (-self.rate).mul_add(if self.nesterov { ahead } else { *velocity }, *weight);
    }
}

/// `torch.optim.AdamW`: `w ← w·shrink`, `m ← m + towards·(g - m)`, `s ← keep·s + gain·g²`,
/// `w ← w - size·m / (√s / root + epsilon)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct AdamW {
    /// `1 - learning rate·weight decay`.
    shrink: f32,
    /// `1 - beta1`.
    towards: f32,
    /// beta2.
    keep: f32,
    /// `1 - beta2`.
    gain: f32,
    /// `√(1 - beta2ᵗ)`.
    root: f32,
    epsilon: f32,
    /// `learning rate / (1 - beta1ᵗ)`.
    size: f32,
}

#[inline(always)]
fn sgd_anywhere(step: Sgd, weight: &mut [f32], velocity: &mut [f32], gradient: &[f32]) {
    let parameters = weight.iter_mut().zip(velocity).zip(gradient);
    if step.is_plain() {
        parameters.for_each(|((weight, velocity), &gradient)| step.apply::<true>(weight, velocity, gradient));
    } else {
        parameters.for_each(|((weight, velocity), &gradient)| step.apply::<false>(weight, velocity, gradient));
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn sgd(step: Sgd, weight: &mut [f32], velocity: &mut [f32], gradient: &[f32]) {
    sgd_anywhere(step, weight, velocity, gradient);
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn tidy(values: &mut [f32]) {
    for value in values {
        *value = if value.abs() < TINY { 0.0 } else { *value };
    }
}

#[inline(always)]
fn adamw_anywhere(step: AdamW, weight: &mut [f32], mean: &mut [f32], square: &mut [f32], gradient: &[f32]) {
    let settled = |value: f32, tiny: f32| if value.abs() < tiny { 0.0 } else { value };
    for (((weight, mean), square), &gradient) in weight.iter_mut().zip(mean).zip(square).zip(gradient) {
        let gradient = settled(gradient, TINY_ROOT);
        // PyTorch's `lerp` starts from the nearer end.
        let way = gradient - *mean;
        let moved = if step.towards < 0.5 {
            *mean + step.towards * way
        } else {
            gradient - way * (1.0 - step.towards)
        };
        *mean = settled(moved, TINY);
        *square = settled(
            *square * step.keep + step.gain * gradient * gradient,
            TINY_ROOT * TINY_ROOT,
        );
        let scale = square.sqrt() / step.root + step.epsilon;
        *weight = *weight * step.shrink - step.size * *mean / scale;
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn adamw(step: AdamW, weight: &mut [f32], mean: &mut [f32], square: &mut [f32], gradient: &[f32]) {
    adamw_anywhere(step, weight, mean, square, gradient);
}

/// The residuals of a batch's rows: those of a class every `stride` numbers, from `offset` on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Residuals<'a> {
    pub(super) values: &'a [f32],
    pub(super) stride: usize,
    pub(super) offset: usize,
    pub(super) rows: usize,
}

impl<'a> Residuals<'a> {
    pub(super) fn of_class(&self, class: usize) -> &'a [f32] {
        &self.values[class * self.stride + self.offset..][..self.rows]
    }

    /// Writes the gradient by weight, `[classes, dim]`, and after it that by bias.
    pub(super) fn gradient(&self, dim: usize, rows: &[&[f32]], gradient: &mut [f32]) {
        let classes = gradient.len() / (dim + 1);
        let (by_weight, by_bias) = gradient.split_at_mut(classes * dim);
        kernel::gradient(by_weight, dim, &self.values[self.offset..], self.stride, rows);
        for (class, gradient) in by_bias.iter_mut().enumerate() {
            *gradient = self.of_class(class).iter().sum();
        }
    }
}

/// One pass over the weights of `C` classes: gradient of `R` rows, and the step.
#[inline(always)]
fn fused<const R: usize, const C: usize, const PLAIN: bool>(
    step: Sgd,
    weights: [&mut [f32]; C],
    velocities: [&mut [f32]; C],
    residuals: [&[f32]; C],
    rows: &[&[f32]],
) {
    let dim = weights[0].len();
    let weights = weights.map(|weight| &mut weight[..dim]);
    let velocities = velocities.map(|velocity| &mut velocity[..dim]);
    let residuals: [[f32; R]; C] = residuals.map(|residuals| std::array::from_fn(|row| residuals[row]));
    let rows: [&[f32]; R] = std::array::from_fn(|row| &rows[row][..dim]);
    for column in 0..dim {
        for class in 0..C {
            let mut gradient = residuals[class][0] * rows[0][column];
            for row in 1..R {
                gradient = residuals[class][row].mul_add(rows[row][column], gradient);
            }
            step.apply::<PLAIN>(&mut weights[class][column], &mut velocities[class][column], gradient);
        }
    }
}

#[inline(always)]
fn fused_anywhere<const C: usize>(
    step: Sgd,
    weights: [&mut [f32]; C],
    velocities: [&mut [f32]; C],
    residuals: [&[f32]; C],
    rows: &[&[f32]],
) {
    match (rows.len(), step.is_plain()) {
        (4, true) => fused::<4, C, true>(step, weights, velocities, residuals, rows),
        (3, true) => fused::<3, C, true>(step, weights, velocities, residuals, rows),
        (2, true) => fused::<2, C, true>(step, weights, velocities, residuals, rows),
        (1, true) => fused::<1, C, true>(step, weights, velocities, residuals, rows),
        (4, false) => fused::<4, C, false>(step, weights, velocities, residuals, rows),
        (3, false) => fused::<3, C, false>(step, weights, velocities, residuals, rows),
        (2, false) => fused::<2, C, false>(step, weights, velocities, residuals, rows),
        (1, false) => fused::<1, C, false>(step, weights, velocities, residuals, rows),
        (rows, _) => unreachable!("{rows} rows are not a fused step's"),
    }
}

// The slices are arguments of their own because only then does the compiler know that they do not overlap.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn fused_pair(
    step: Sgd,
    weight: &mut [f32],
    other_weight: &mut [f32],
    velocity: &mut [f32],
    other_velocity: &mut [f32],
    residuals: [&[f32]; 2],
    rows: &[&[f32]],
) {
    fused_anywhere(
        step,
        [weight, other_weight],
        [velocity, other_velocity],
        residuals,
        rows,
    );
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn fused_single(step: Sgd, weight: &mut [f32], velocity: &mut [f32], residuals: &[f32], rows: &[&[f32]]) {
    fused_anywhere(step, [weight], [velocity], [residuals], rows);
}

impl Sgd {
    /// Forms the gradient `Σ residual·row` of all classes' weights, at most [`FUSED_ROWS`] rows, and applies it, in one
    /// pass.
    pub(super) fn descend(
        self,
        weight: &mut [f32],
        velocity: &mut [f32],
        dim: usize,
        residuals: &Residuals<'_>,
        rows: &[&[f32]],
    ) {
        let pairs = weight.chunks_mut(2 * dim).zip(velocity.chunks_mut(2 * dim));
        for (pair, (weight, velocity)) in pairs.enumerate() {
            let class = 2 * pair;
            if weight.len() == dim {
                fused_single(self, weight, velocity, residuals.of_class(class), rows);
            } else {
                let residuals = [residuals.of_class(class), residuals.of_class(class + 1)];
                let (weight, other_weight) = weight.split_at_mut(dim);
                let (velocity, other_velocity) = velocity.split_at_mut(dim);
                fused_pair(self, weight, other_weight, velocity, other_velocity, residuals, rows);
            }
        }
    }

    /// The same for the bias: gradient `Σ residual`.
    pub(super) fn descend_bias(self, bias: &mut [f32], velocity: &mut [f32], residuals: &Residuals<'_>) {
        sgd_bias(self, bias, velocity, residuals);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn sgd_bias(step: Sgd, bias: &mut [f32], velocity: &mut [f32], residuals: &Residuals<'_>) {
    for (class, (bias, velocity)) in bias.iter_mut().zip(velocity).enumerate() {
        let gradient: f32 = residuals.of_class(class).iter().sum();
        step.apply::<false>(bias, velocity, gradient);
    }
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;
