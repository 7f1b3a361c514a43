//! The inner loops of training: logits, and gradients.
//!
//! Written so that the compiler vectorises them, and compiled for several instruction sets of which the best is taken at
//! run time. The order of every sum is fixed by the constants here, not by the width of a vector, and no product is fused
//! into a sum, so that the bits are the same with all of them.

use multiversion::multiversion;

/// Partial sums of a dot product.
const LANES: usize = 8;
/// Rows whose logits are formed together, so that they are in the first-level cache for all classes.
const ROWS: usize = 8;
/// Rows that go into the gradient in one pass over it.
const PASS: usize = 8;

/// Where a logit lies: at `row · self.row + class · self.class`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Strides {
    pub(super) row: usize,
    pub(super) class: usize,
}

/// The dot products of each of `x` with each of `weights`, all of one length.
// Loops by index: iterators and closures here are not unrolled into registers, and five times slower.
#[inline(always)]
fn dots<const R: usize, const C: usize>(x: [&[f32]; R], weights: [&[f32]; C]) -> [[f32; C]; R] {
    let mut lanes = [[[0_f32; LANES]; C]; R];
    let dim = x[0].len();
    let (mut x_chunks, mut x_rest) = ([[].as_slice(); R], [[].as_slice(); R]);
    for r in 0..R {
        (x_chunks[r], x_rest[r]) = x[r][..dim].as_chunks::<LANES>();
    }
    let (mut weight_chunks, mut weight_rest) = ([[].as_slice(); C], [[].as_slice(); C]);
    for c in 0..C {
        (weight_chunks[c], weight_rest[c]) = weights[c][..dim].as_chunks::<LANES>();
    }
    for index in 0..dim / LANES {
        for r in 0..R {
            let x = x_chunks[r][index];
            for c in 0..C {
                let weight = weight_chunks[c][index];
                for lane in 0..LANES {
                    lanes[r][c][lane] += x[lane] * weight[lane];
                }
            }
        }
    }
    let mut sums = [[0_f32; C]; R];
    for r in 0..R {
        for c in 0..C {
            for ((lane, x), weight) in lanes[r][c].iter_mut().zip(x_rest[r]).zip(weight_rest[c]) {
                *lane += x * weight;
            }
            let [a, b, c0, d, e, f, g, h] = lanes[r][c];
            sums[r][c] = ((a + e) + (c0 + g)) + ((b + f) + (d + h));
        }
    }
    sums
}

/// The logits of `C` classes from `class` on.
#[inline(always)]
fn logits_of_classes<const C: usize>(
    weight: &[f32],
    bias: &[f32],
    class: usize,
    rows: &[&[f32]],
    logits: &mut [f32],
    strides: Strides,
) {
    let dim = weight.len() / bias.len();
    let weights: [&[f32]; C] = std::array::from_fn(|index| &weight[(class + index) * dim..][..dim]);
    let mut write = |row: usize, dots: [f32; C]| {
        for (index, dot) in dots.into_iter().enumerate() {
            let class = class + index;
            logits[row * strides.row + class * strides.class] = dot + bias[class];
        }
    };
    let (pairs, single) = rows.as_chunks::<2>();
    for (pair, rows) in pairs.iter().enumerate() {
        let [first, second] = dots(*rows, weights);
        write(2 * pair, first);
        write(2 * pair + 1, second);
    }
    if let [row] = single {
        let [dots] = dots([row], weights);
        write(rows.len() - 1, dots);
    }
}

#[inline(always)]
fn logits_anywhere(weight: &[f32], bias: &[f32], rows: &[&[f32]], logits: &mut [f32], strides: Strides) {
    let classes = bias.len();
    for (block, rows) in rows.chunks(ROWS).enumerate() {
        let logits = &mut logits[block * ROWS * strides.row..];
        let mut class = 0;
        while class + 4 <= classes {
            logits_of_classes::<4>(weight, bias, class, rows, logits, strides);
            class += 4;
        }
        if class + 2 <= classes {
            logits_of_classes::<2>(weight, bias, class, rows, logits, strides);
            class += 2;
        }
        if class < classes {
            logits_of_classes::<1>(weight, bias, class, rows, logits, strides);
        }
    }
}

/// Writes the logits of `rows`: `x · Wᵀ + b`, `weight` being `[classes, dim]`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2", "x86_64+avx2"))]
pub(super) fn logits(weight: &[f32], bias: &[f32], rows: &[&[f32]], logits: &mut [f32], strides: Strides) {
    logits_anywhere(weight, bias, rows, logits, strides);
}

/// `gradient = Σ residual·row` over `R` rows, or the same added to what is there.
#[inline(always)]
fn accumulate<const R: usize>(gradient: &mut [f32], residuals: &[f32], rows: &[&[f32]], add: bool) {
    let dim = gradient.len();
    let residuals: [f32; R] = std::array::from_fn(|index| residuals[index]);
    let rows: [&[f32]; R] = std::array::from_fn(|index| &rows[index][..dim]);
    if add {
        for column in 0..dim {
            let mut sum = gradient[column];
            for index in 0..R {
                sum += residuals[index] * rows[index][column];
            }
            gradient[column] = sum;
        }
    } else {
        for column in 0..dim {
            let mut sum = residuals[0] * rows[0][column];
            for index in 1..R {
                sum += residuals[index] * rows[index][column];
            }
            gradient[column] = sum;
        }
    }
}

#[inline(always)]
fn gradient_anywhere(gradient: &mut [f32], dim: usize, residuals: &[f32], stride: usize, rows: &[&[f32]]) {
    let mut start = 0;
    for rows in rows.chunks(PASS) {
        let classes = gradient.chunks_exact_mut(dim).zip(residuals.chunks(stride));
        for (gradient, residuals) in classes {
            let mut residuals = &residuals[start..][..rows.len()];
            let mut rows = rows;
            let mut add = start > 0;
            while !rows.is_empty() {
                let taken = match rows.len() {
                    8.. => {
                        accumulate::<8>(gradient, residuals, rows, add);
                        8
                    }
                    4.. => {
                        accumulate::<4>(gradient, residuals, rows, add);
                        4
                    }
                    2.. => {
                        accumulate::<2>(gradient, residuals, rows, add);
                        2
                    }
                    _ => {
                        accumulate::<1>(gradient, residuals, rows, add);
                        1
                    }
                };
                rows = &rows[taken..];
                residuals = &residuals[taken..];
                add = true;
            }
        }
        start += rows.len();
    }
}

/// Writes the gradient `Σ residual·row` of each class's weights, the rows one after another: `gradient` is `[classes, dim]`,
/// and `residuals` has those of a class every `stride` numbers.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2", "x86_64+avx2"))]
pub(super) fn gradient(gradient: &mut [f32], dim: usize, residuals: &[f32], stride: usize, rows: &[&[f32]]) {
    gradient_anywhere(gradient, dim, residuals, stride, rows);
}

#[inline(always)]
fn add_anywhere(sum: &mut [f32], other: &[f32]) {
    for (sum, other) in sum.iter_mut().zip(other) {
        *sum += other;
    }
}

/// Adds `other` to `sum`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2", "x86_64+avx2"))]
pub(super) fn add(sum: &mut [f32], other: &[f32]) {
    add_anywhere(sum, other);
}

#[inline(always)]
fn sum_of_squares_anywhere(values: &[f32]) -> f64 {
    let mut lanes = [0_f64; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(*value) * f64::from(*value);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane += f64::from(*value) * f64::from(*value);
    }
    lanes.iter().sum()
}

/// `Σ value²` in f64.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2", "x86_64+avx2"))]
pub(super) fn sum_of_squares(values: &[f32]) -> f64 {
    sum_of_squares_anywhere(values)
}

#[cfg(test)]
#[path = "kernel_tests.rs"]
mod tests;
