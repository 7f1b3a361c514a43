//! The inner loops of training: logits, and gradients.
//!
//! Written so that the compiler vectorises them, and compiled for several instruction sets of which the best is taken at
//! run time. Every product is fused into its sum (`f32::mul_add`, rounded once), and the order of every sum is fixed by the
//! constants here, not by the width of a vector, so that the bits are the same with all of them. A processor without a fused
//! multiply-add (x86 before 2013) computes the same numbers in software, some 150 times slower.

use multiversion::multiversion;
use multiversion::target::target_cfg_f;

/// Partial sums of a dot product: a vector of the widest kind.
const LANES: usize = 16;
/// Rows that go into the gradient in one pass over it: as many as stay in the first-level cache from class to class.
const PASS: usize = 16;

/// Where a logit lies: at `row · self.row + class · self.class`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Strides {
    pub(super) row: usize,
    pub(super) class: usize,
}

/// Writes the dot products of each of `x` with each of `weights`, all of one length, each as [`LANES`] partial sums.
// Loops by index over arrays of constant size: only so are they unrolled, and the sums kept in registers.
#[inline(always)]
fn partial_dots<const R: usize, const C: usize>(
    x: [&[f32]; R],
    weights: [&[f32]; C],
    out: &mut [[[f32; LANES]; C]; R],
) {
    let chunks = x[0].len() / LANES;
    let x = x.map(|x| &x.as_chunks::<LANES>().0[..chunks]);
    let weights = weights.map(|weight| &weight.as_chunks::<LANES>().0[..chunks]);
    let mut lanes = [[[0_f32; LANES]; C]; R];
    for index in 0..chunks {
        let x: [[f32; LANES]; R] = std::array::from_fn(|r| x[r][index]);
        for c in 0..C {
            let weight = weights[c][index];
            for r in 0..R {
                for lane in 0..LANES {
                    lanes[r][c][lane] = x[r][lane].mul_add(weight[lane], lanes[r][c][lane]);
                }
            }
        }
    }
    for r in 0..R {
        for c in 0..C {
            out[r][c].copy_from_slice(&lanes[r][c]);
        }
    }
}

/// The sum of the partial sums: halves are added to halves.
#[inline(always)]
fn sum_of_lanes(lanes: [f32; LANES]) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|lane| lanes[lane] + lanes[lane + 8]);
    let four: [f32; 4] = std::array::from_fn(|lane| eight[lane] + eight[lane + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

/// The dot products of each of `x` with each of `weights`, all of one length.
#[inline(always)]
fn dots<const R: usize, const C: usize>(x: [&[f32]; R], weights: [&[f32]; C]) -> [[f32; C]; R] {
    let mut lanes = [[[0_f32; LANES]; C]; R];
    partial_dots(x, weights, &mut lanes);
    let rest = x[0].len() / LANES * LANES;
    let mut sums = [[0_f32; C]; R];
    for r in 0..R {
        for c in 0..C {
            for ((lane, x), weight) in lanes[r][c].iter_mut().zip(&x[r][rest..]).zip(&weights[c][rest..]) {
                *lane = x.mul_add(*weight, *lane);
            }
            sums[r][c] = sum_of_lanes(lanes[r][c]);
        }
    }
    sums
}

/// The logits of some rows for `C` classes from `class` on.
#[inline(always)]
fn logits_of<const R: usize, const C: usize>(
    weight: &[f32],
    bias: &[f32],
    class: usize,
    (rows, first): (&[&[f32]; R], usize),
    logits: &mut [f32],
    strides: Strides,
) {
    let dim = weight.len() / bias.len();
    let weights: [&[f32]; C] = std::array::from_fn(|index| &weight[(class + index) * dim..][..dim]);
    let dots = dots(rows.map(|row| &row[..dim]), weights);
    for (row, dots) in dots.into_iter().enumerate() {
        for (index, dot) in dots.into_iter().enumerate() {
            let class = class + index;
            logits[(first + row) * strides.row + class * strides.class] = dot + bias[class];
        }
    }
}

/// The logits of some rows, the first of which is row `first`: they are in the first-level cache for all classes.
#[inline(always)]
fn logits_of_rows<const R: usize>(
    weight: &[f32],
    bias: &[f32],
    rows: (&[&[f32]; R], usize),
    logits: &mut [f32],
    strides: Strides,
) {
    let mut class = 0;
    while class + 4 <= bias.len() {
        logits_of::<R, 4>(weight, bias, class, rows, logits, strides);
        class += 4;
    }
    if class + 2 <= bias.len() {
        logits_of::<R, 2>(weight, bias, class, rows, logits, strides);
        class += 2;
    }
    if class < bias.len() {
        logits_of::<R, 1>(weight, bias, class, rows, logits, strides);
    }
}

/// `WIDE`: four rows and four classes together, which need 16 of the 32 registers that only AVX-512 has.
#[inline(always)]
fn logits_anywhere<const WIDE: bool>(
    weight: &[f32],
    bias: &[f32],
    rows: &[&[f32]],
    logits: &mut [f32],
    strides: Strides,
) {
    let mut done = 0;
    if WIDE {
        for four in rows.as_chunks::<4>().0 {
            logits_of_rows(weight, bias, (four, done), logits, strides);
            done += 4;
        }
    }
    let (pairs, single) = rows[done..].as_chunks::<2>();
    for pair in pairs {
        logits_of_rows(weight, bias, (pair, done), logits, strides);
        done += 2;
    }
    if let [row] = single {
        logits_of_rows(weight, bias, (&[*row], done), logits, strides);
    }
}

/// Writes the logits of `rows`: `x · Wᵀ + b`, `weight` being `[classes, dim]`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn logits(weight: &[f32], bias: &[f32], rows: &[&[f32]], logits: &mut [f32], strides: Strides) {
    const WIDE: bool = target_cfg_f!(target_feature = "avx512f");
    logits_anywhere::<WIDE>(weight, bias, rows, logits, strides);
}

/// What a gradient is formed of: the residuals of a class every `stride` numbers, and rows.
#[derive(Clone, Copy)]
struct Products<'a> {
    residuals: &'a [f32],
    stride: usize,
    rows: &'a [&'a [f32]],
}

/// `gradient = Σ residual·row`, or the same added to what is there, for `C` classes and `V` vectors of columns.
#[inline(always)]
fn gradient_tile<const V: usize, const C: usize>(
    gradient: &mut [f32],
    dim: usize,
    (class, column): (usize, usize),
    products: Products<'_>,
    add: bool,
) {
    let mut sums = [[[0_f32; LANES]; V]; C];
    if add {
        for c in 0..C {
            for v in 0..V {
                sums[c][v].copy_from_slice(&gradient[(class + c) * dim + column + v * LANES..][..LANES]);
            }
        }
    }
    let rows = products.rows;
    let residuals: [&[f32]; C] =
        std::array::from_fn(|c| &products.residuals[(class + c) * products.stride..][..rows.len()]);
    for (index, row) in rows.iter().enumerate() {
        let (columns, _) = row[column..][..V * LANES].as_chunks::<LANES>();
        let x: [[f32; LANES]; V] = std::array::from_fn(|v| columns[v]);
        for c in 0..C {
            let residual = residuals[c][index];
            for v in 0..V {
                for lane in 0..LANES {
                    sums[c][v][lane] = residual.mul_add(x[v][lane], sums[c][v][lane]);
                }
            }
        }
    }
    for c in 0..C {
        for v in 0..V {
            gradient[(class + c) * dim + column + v * LANES..][..LANES].copy_from_slice(&sums[c][v]);
        }
    }
}

/// The same for all classes.
#[inline(always)]
fn gradient_columns<const V: usize>(
    gradient: &mut [f32],
    dim: usize,
    column: usize,
    products: Products<'_>,
    add: bool,
) {
    let classes = gradient.len() / dim;
    let mut class = 0;
    while class + 4 <= classes {
        gradient_tile::<V, 4>(gradient, dim, (class, column), products, add);
        class += 4;
    }
    if class + 2 <= classes {
        gradient_tile::<V, 2>(gradient, dim, (class, column), products, add);
        class += 2;
    }
    if class < classes {
        gradient_tile::<V, 1>(gradient, dim, (class, column), products, add);
    }
}

#[inline(always)]
fn gradient_anywhere<const WIDE: bool>(
    gradient: &mut [f32],
    dim: usize,
    residuals: &[f32],
    stride: usize,
    rows: &[&[f32]],
) {
    for (pass, rows) in rows.chunks(PASS).enumerate() {
        let residuals = &residuals[pass * PASS..];
        let products = Products {
            residuals,
            stride,
            rows,
        };
        let (mut column, add) = (0, pass > 0);
        if WIDE {
            while column + 4 * LANES <= dim {
                gradient_columns::<4>(gradient, dim, column, products, add);
                column += 4 * LANES;
            }
        }
        while column + LANES <= dim {
            gradient_columns::<1>(gradient, dim, column, products, add);
            column += LANES;
        }
        for (class, gradient) in gradient.chunks_exact_mut(dim).enumerate() {
            for (column, sum) in gradient.iter_mut().enumerate().skip(column) {
                *sum = if add { *sum } else { 0.0 };
                for (row, residual) in rows.iter().zip(&residuals[class * stride..]) {
                    *sum = residual.mul_add(row[column], *sum);
                }
            }
        }
    }
}

/// Writes the gradient `Σ residual·row` of each class's weights, the rows one after another: `gradient` is `[classes, dim]`,
/// and `residuals` has those of a class every `stride` numbers.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn gradient(gradient: &mut [f32], dim: usize, residuals: &[f32], stride: usize, rows: &[&[f32]]) {
    const WIDE: bool = target_cfg_f!(target_feature = "avx512f");
    gradient_anywhere::<WIDE>(gradient, dim, residuals, stride, rows);
}

#[inline(always)]
fn add_anywhere(sum: &mut [f32], other: &[f32]) {
    for (sum, other) in sum.iter_mut().zip(other) {
        *sum += other;
    }
}

/// Adds `other` to `sum`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn add(sum: &mut [f32], other: &[f32]) {
    add_anywhere(sum, other);
}

#[inline(always)]
fn sum_of_squares_anywhere(values: &[f32]) -> f64 {
    let mut lanes = [0_f64; 8];
    let (chunks, rest) = values.as_chunks::<8>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = f64::from(*value).mul_add(f64::from(*value), *lane);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane = f64::from(*value).mul_add(f64::from(*value), *lane);
    }
    lanes.iter().sum()
}

/// `Σ value²` in f64.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn sum_of_squares(values: &[f32]) -> f64 {
    sum_of_squares_anywhere(values)
}

#[cfg(test)]
#[path = "kernel_tests.rs"]
mod tests;
