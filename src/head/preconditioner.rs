//! A change of variables that makes the logistic objective rounder, so that L-BFGS needs fewer steps.
//!
//! Features are correlated: their covariance has a few large and many small eigenvalues, and so has the objective's second
//! derivative. Averaged over classes it is `M = Σ sᵢ · mean(p·(1 - p))ᵢ · x·xᵀ + penalty`, `p` being the probabilities of row
//! `i` and `x` the row with a 1 for the bias. In variables `V` with `[W b] = V · T`, `T` the inverse of M's Cholesky factor,
//! it is 1. The objective, the penalty included, is the same function of W; only the way to its optimum changes.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use rayon::prelude::*;

use super::objective::{Objective, Parameters};

/// Rows from which the second derivative is estimated, in multiples of the number of features.
const ROWS_PER_FEATURE: usize = 8;
/// The most evaluations' worth of work that making the full transformation may cost.
const WORTH: usize = 60;
/// Matrices of this size and below are factored number by number.
const SMALL: usize = 24;
/// Classes whose weights are transformed by one matrix product.
const CLASSES: usize = 8;

/// The variables in which an [`Objective`] is minimised: `[classes · (dim + 1)]`.
#[derive(Debug)]
pub(super) enum Preconditioner {
    /// `[dim + 1, dim + 1]`, lower triangular: `T`.
    Full(Array2<f64>),
    /// `[dim + 1]`: the diagonal of `T`, where the full matrix is not worth its work.
    Diagonal(Array1<f64>),
}

impl Preconditioner {
    /// The change of variables that suits `objective` near `at`.
    pub(super) fn of(objective: &Objective<'_>, at: &Parameters) -> Self {
        let (rows, dim, classes) = (objective.rows(), objective.dim(), objective.classes().len());
        let most = ROWS_PER_FEATURE * dim;
        let work = dim.saturating_mul(rows.min(most) + dim);
        if work <= WORTH * 2 * rows * classes
            && let Some(inverse) = inverse_factor(&objective.curvature(at, most).view())
        {
            return Self::Full(inverse);
        }
        Self::Diagonal(objective.curvatures(at, most).mapv(|curvature| 1.0 / curvature.sqrt()))
    }

    /// The parameters that `variables` stand for.
    pub(super) fn parameters(&self, variables: &Array1<f64>, classes: usize) -> Parameters {
        let columns = variables.len() / classes;
        let variables = variables
            .view()
            .into_shape_with_order((classes, columns))
            .expect("the variables are those of all classes, one after another");
        let joined = match self {
            Self::Full(matrix) => product(variables, matrix.view()),
            Self::Diagonal(scale) => &variables * scale,
        };
        Parameters {
            weight: joined.slice(s![.., ..columns - 1]).to_owned(),
            offset: joined.column(columns - 1).to_owned(),
        }
    }

    /// The variables that stand for `parameters`.
    pub(super) fn variables(&self, parameters: &Parameters) -> Array1<f64> {
        let mut joined = join(parameters);
        match self {
            Self::Full(matrix) => {
                for mut row in joined.rows_mut() {
                    // V · T = W, column by column from the last: T is lower triangular.
                    for column in (0..row.len()).rev() {
                        let known = row.slice(s![column + 1..]).dot(&matrix.slice(s![column + 1.., column]));
                        row[column] = (row[column] - known) / matrix[[column, column]];
                    }
                }
            }
            Self::Diagonal(scale) => joined /= scale,
        }
        joined.into_iter().collect()
    }

    /// The derivatives by the variables from those by the parameters.
    pub(super) fn gradient(&self, gradient: &Parameters) -> Array1<f64> {
        let joined = join(gradient);
        let transformed = match self {
            Self::Full(matrix) => product(joined.view(), matrix.t()),
            Self::Diagonal(scale) => joined * scale,
        };
        transformed.into_iter().collect()
    }
}

/// `[classes, dim + 1]`: the weights and, in the last column, the offsets.
fn join(parameters: &Parameters) -> Array2<f64> {
    let (classes, dim) = parameters.weight.dim();
    let mut joined = Array2::zeros((classes, dim + 1));
    joined.slice_mut(s![.., ..dim]).assign(&parameters.weight);
    joined.column_mut(dim).assign(&parameters.offset);
    joined
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
                if rest.is_nan() || rest <= 0.0 {
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
    fn variables_stand_for_their_parameters() {
        let parameters = Parameters {
            weight: Array2::from_shape_fn((3, 30), |(i, j)| ((i * 5 + j) as f64).sin()),
            offset: Array1::from_shape_fn(3, |i| i as f64),
        };
        let root = Array2::from_shape_fn((31, 40), |(i, j)| ((i * 31 + j * 17 + i * j) as f64).cos());
        let full = Preconditioner::Full(inverse_factor(&root.dot(&root.t()).view()).unwrap());
        let diagonal = Preconditioner::Diagonal(Array1::from_shape_fn(31, |i| 1.0 + i as f64));
        for preconditioner in [full, diagonal] {
            let variables = preconditioner.variables(&parameters);
            let back = preconditioner.parameters(&variables, 3);
            assert!(
                (&back.weight - &parameters.weight)
                    .iter()
                    .all(|error| error.abs() < 1e-10)
            );
            assert!(
                (&back.offset - &parameters.offset)
                    .iter()
                    .all(|error| error.abs() < 1e-10)
            );
            // A linear function's gradient, moved along itself in either coordinates.
            let moved = preconditioner.parameters(&preconditioner.gradient(&parameters), 3);
            let slope: f64 = (&moved.weight * &parameters.weight).sum() + moved.offset.dot(&parameters.offset);
            let gradient = preconditioner.gradient(&parameters);
            assert!((slope / gradient.dot(&gradient) - 1.0).abs() < 1e-12);
        }
    }

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
