//! A change of variables that makes the logistic objective rounder, so that L-BFGS needs fewer steps.
//!
//! Features are correlated: their covariance has a few large and many small eigenvalues, and so has the objective's second
//! derivative. At a classifier that knows nothing it is `covariance / classes + penalty` for each class, on all
//! directions that matter. In variables `V` with `W = V · T`, `T` the inverse of that matrix's Cholesky factor, it is 1.
//! The objective, the penalty included, is the same function of `W`; only the way to its optimum changes.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};
use rayon::prelude::*;

use super::objective::{Objective, Parameters};

/// Rows from which the covariance is estimated, in multiples of the number of features.
const ROWS_PER_FEATURE: usize = 8;
/// The most evaluations' worth of work that making the full transformation may cost.
const WORTH: usize = 60;
/// Matrices of this size and below are factored number by number.
const SMALL: usize = 24;
/// Classes whose weights are transformed by one matrix product.
const CLASSES: usize = 8;

/// The variables in which an [`Objective`] is minimised: `[classes · dim]` transformed weights, then `[classes]` offsets.
#[derive(Debug)]
pub(super) struct Preconditioner {
    transformation: Transformation,
    /// What an offset's variable is multiplied by.
    offset_scale: f64,
}

#[derive(Debug)]
enum Transformation {
    /// `[dim, dim]`, lower triangular: `T`.
    Full(Array2<f64>),
    /// The diagonal of `T`, where the full matrix is not worth its work.
    Diagonal(Array1<f64>),
}

impl Preconditioner {
    /// The change of variables that suits `objective`.
    pub(super) fn of(objective: &Objective<'_>) -> Self {
        let (rows, dim, classes) = (objective.rows(), objective.dim(), objective.classes().len());
        let most = ROWS_PER_FEATURE * dim;
        let curvature = 1.0 / classes as f64;
        let evaluation = 2 * rows * classes;
        let full = dim.saturating_mul(rows.min(most) + dim) <= WORTH * evaluation;
        let transformation = full
            .then(|| {
                let mut matrix = objective.covariance(most);
                matrix *= curvature;
                matrix
                    .diag_mut()
                    .iter_mut()
                    .for_each(|value| *value += objective.penalty());
                inverse_factor(&matrix.view()).map(Transformation::Full)
            })
            .flatten();
        let transformation = transformation.unwrap_or_else(|| {
            let scale = |variance: f64| 1.0 / (variance * curvature + objective.penalty()).sqrt();
            Transformation::Diagonal(objective.variances().mapv_into(scale))
        });
        Self {
            transformation,
            offset_scale: (classes as f64).sqrt(),
        }
    }

    /// The parameters that `variables` stand for.
    pub(super) fn parameters(&self, variables: &Array1<f64>, classes: usize) -> Parameters {
        let (weight, offset) = Self::split(variables, classes);
        let weight = match &self.transformation {
            Transformation::Full(matrix) => product(weight, matrix.view()),
            Transformation::Diagonal(scale) => &weight * scale,
        };
        Parameters {
            weight,
            offset: &offset * self.offset_scale,
        }
    }

    /// The variables that stand for `parameters`.
    pub(super) fn variables(&self, parameters: &Parameters) -> Array1<f64> {
        let mut weight = parameters.weight.clone();
        match &self.transformation {
            Transformation::Full(matrix) => {
                for mut row in weight.rows_mut() {
                    // V · T = W, column by column from the last: T is lower triangular.
                    for column in (0..row.len()).rev() {
                        let below = s![column + 1..];
                        let known = row.slice(below).dot(&matrix.slice(s![column + 1.., column]));
                        row[column] = (row[column] - known) / matrix[[column, column]];
                    }
                }
            }
            Transformation::Diagonal(scale) => weight /= scale,
        }
        Self::join(weight, &parameters.offset, 1.0 / self.offset_scale)
    }

    /// The derivatives by the variables from those by the parameters.
    pub(super) fn gradient(&self, gradient: &Parameters) -> Array1<f64> {
        let weight = match &self.transformation {
            Transformation::Full(matrix) => product(gradient.weight.view(), matrix.t()),
            Transformation::Diagonal(scale) => &gradient.weight * scale,
        };
        Self::join(weight, &gradient.offset, self.offset_scale)
    }

    fn join(weight: Array2<f64>, offset: &Array1<f64>, scale: f64) -> Array1<f64> {
        weight
            .into_iter()
            .chain(offset.iter().map(|offset| offset * scale))
            .collect()
    }

    fn split<'v>(variables: &'v Array1<f64>, classes: usize) -> (ArrayView2<'v, f64>, ArrayView1<'v, f64>) {
        let dim = variables.len() / classes - 1;
        let (weight, offset) = variables.view().split_at(Axis(0), classes * dim);
        let weight = weight
            .into_shape_with_order((classes, dim))
            .expect("the weights come first, class after class");
        (weight, offset)
    }
}

/// `a · b`, some rows of `a` by each thread.
fn product(a: ArrayView2<'_, f64>, b: ArrayView2<'_, f64>) -> Array2<f64> {
    let mut product = Array2::zeros((a.nrows(), b.ncols()));
    let blocks = a.axis_chunks_iter(Axis(0), CLASSES);
    let mut blocks: Vec<_> = product.axis_chunks_iter_mut(Axis(0), CLASSES).zip(blocks).collect();
    blocks
        .par_iter_mut()
        .for_each(|(product, a)| general_mat_mul(1.0, a, &b, 0.0, product));
    product
}

/// The inverse of the Cholesky factor of a symmetric matrix, of which the lower half is read; `None` if the matrix is not
/// positive definite.
///
/// By halves, so that nearly all of the work is matrix products: with `A = [P ·; Q S]`, `T = [T₁ 0; -T₂·L·T₁ T₂]`, where
/// `T₁` is that of `P`, `L = Q·T₁ᵀ`, and `T₂` that of `S - L·Lᵀ`.
fn inverse_factor(matrix: &ArrayView2<'_, f64>) -> Option<Array2<f64>> {
    let size = matrix.nrows();
    if size <= SMALL {
        return small_inverse_factor(matrix);
    }
    let half = size / 2;
    let first = inverse_factor(&matrix.slice(s![..half, ..half]))?;
    let below = matrix.slice(s![half.., ..half]).dot(&first.t());
    let mut rest = matrix.slice(s![half.., half..]).to_owned();
    general_mat_mul(-1.0, &below, &below.t(), 1.0, &mut rest);
    let second = inverse_factor(&rest.view())?;
    let mut inverse = Array2::zeros((size, size));
    let across = second.dot(&below).dot(&first);
    inverse.slice_mut(s![half.., ..half]).assign(&-across);
    inverse.slice_mut(s![..half, ..half]).assign(&first);
    inverse.slice_mut(s![half.., half..]).assign(&second);
    Some(inverse)
}

fn small_inverse_factor(matrix: &ArrayView2<'_, f64>) -> Option<Array2<f64>> {
    let size = matrix.nrows();
    let mut factor = Array2::<f64>::zeros((size, size));
    for row in 0..size {
        for column in 0..=row {
            let known: f64 = (0..column).map(|k| factor[[row, k]] * factor[[column, k]]).sum();
            let rest = matrix[[row, column]] - known;
            factor[[row, column]] = if row == column {
                if !(rest > 0.0) {
                    return None;
                }
                rest.sqrt()
            } else {
                rest / factor[[column, column]]
            };
        }
    }
    let mut inverse = Array2::<f64>::zeros((size, size));
    for column in 0..size {
        inverse[[column, column]] = 1.0 / factor[[column, column]];
        for row in column + 1..size {
            let sum: f64 = (column..row).map(|k| factor[[row, k]] * inverse[[k, column]]).sum();
            inverse[[row, column]] = -sum / factor[[row, row]];
        }
    }
    Some(inverse)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_inverse_factor_turns_its_matrix_into_the_identity() {
        for size in [1, 5, 24, 25, 61] {
            let root = Array2::from_shape_fn((size, size + 3), |(i, j)| ((i * 31 + j * 17 + i * j) as f64).sin());
            let mut matrix = root.dot(&root.t());
            matrix.diag_mut().iter_mut().for_each(|value| *value += 0.1);
            let inverse = inverse_factor(&matrix.view()).unwrap();
            let identity = inverse.dot(&matrix).dot(&inverse.t());
            for ((row, column), value) in identity.indexed_iter() {
                let expected = if row == column { 1.0 } else { 0.0 };
                assert!((value - expected).abs() < 1e-9, "{size}: {row} {column} {value}");
            }
            matrix[[size - 1, size - 1]] = -1.0;
            assert!(inverse_factor(&matrix.view()).is_none());
        }
    }
}
