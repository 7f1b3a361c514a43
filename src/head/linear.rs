//! The head itself: a weight matrix and a bias, from features to logits to classes.
//!
//! How its numbers come about is the solvers' business ([`super::descent`]), how they lie on disk [`super::file`]'s.

use linfa::traits::PredictInplace;
use ndarray::{Array1, Array2, ArrayBase, ArrayView1, ArrayView2, Axis, Data, Ix2};

use super::kernel::{self, Strides};
use super::loss::{self, Scorer};
use super::random::{Random, Stream};
use super::softmax::softmax_row_at;
use crate::{Error, Observer, Quiet, Result};

/// Rows whose logits are formed together.
const ROWS: usize = 32;

/// A linear softmax classifier: `logits = x · Wᵀ + b`.
///
/// With linfa's [`Predict`](linfa::traits::Predict) in scope, `head.predict(&x)` gives the classes too.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearHead {
    weight: Array2<f32>,
    bias: Array1<f32>,
}

/// A class and how probable it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RankedClass {
    /// The class's index.
    pub class: usize,
    /// Its softmax probability, in `0..=1`.
    pub probability: f32,
}

impl LinearHead {
    /// A head from its `weight` (`[classes, dim]`) and `bias` (`[classes]`), laid out as PyTorch's `nn.Linear`.
    ///
    /// # Errors
    /// [`Error::Examples`] if the numbers of classes differ, or there are no classes or no features.
    pub fn new(weight: Array2<f32>, bias: Array1<f32>) -> Result<Self> {
        let (classes, dim) = weight.dim();
        if classes == 0 || dim == 0 {
            return Err(Error::Examples(format!(
                "a head of {classes} classes and {dim} features classifies nothing"
            )));
        }
        if bias.len() != classes {
            return Err(Error::Examples(format!(
                "the weight has {classes} classes, the bias {}",
                bias.len()
            )));
        }
        Ok(Self {
            weight: standard(weight),
            bias: bias.iter().copied().collect(),
        })
    }

    /// The head that training starts from: weight and bias uniform in `±1/√dim`, as PyTorch's `nn.Linear` does it.
    ///
    /// # Errors
    /// [`Error::Examples`] if there are no classes or no features.
    pub fn uniform(classes: usize, dim: usize, seed: u64) -> Result<Self> {
        let bound = 1.0 / (dim as f32).sqrt();
        let mut random = Random::new(seed, Stream::Initial);
        let weight = Array2::from_shape_simple_fn((classes, dim), || random.uniform(bound));
        let bias = Array1::from_shape_simple_fn(classes, || random.uniform(bound));
        Self::new(weight, bias)
    }

    /// How many classes the head tells apart.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.weight.nrows()
    }

    /// How many features a row has.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.weight.ncols()
    }

    /// The weight, `[classes, dim]`.
    #[must_use]
    pub fn weight(&self) -> ArrayView2<'_, f32> {
        self.weight.view()
    }

    /// The bias, `[classes]`.
    #[must_use]
    pub fn bias(&self) -> ArrayView1<'_, f32> {
        self.bias.view()
    }

    /// Whether no weight is infinite or NaN.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        let finite = |values: &[f32]| values.iter().fold(true, |finite, value| finite & value.is_finite());
        let (weight, bias) = self.slices();
        finite(weight) && finite(bias)
    }

    /// The logits of `x` (`[n, dim]`), `[n, classes]`.
    ///
    /// # Errors
    /// [`Error::Examples`] if `x` has another number of features.
    pub fn logits(&self, x: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        let mut logits = Array2::zeros((x.nrows(), self.classes()));
        self.logit_blocks(x, |start, block| {
            let rows = block.len() / self.classes();
            let (_, mut rest) = logits.view_mut().split_at(Axis(0), start);
            let target = rest.as_slice_mut().expect("a new array is contiguous");
            target[..rows * self.classes()].copy_from_slice(block);
        })?;
        Ok(logits)
    }

    /// The softmax probabilities of `x` (`[n, dim]`), `[n, classes]`; each row sums to 1.
    ///
    /// # Errors
    /// [`Error::Examples`] if `x` has another number of features.
    pub fn probabilities(&self, x: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        self.probabilities_at(x, 1.0)
    }

    /// The same of the logits divided by `temperature`.
    pub(super) fn probabilities_at(&self, x: ArrayView2<'_, f32>, temperature: f64) -> Result<Array2<f32>> {
        let mut logits = self.logits(x)?;
        let mut probabilities = Vec::with_capacity(self.classes());
        for mut row in logits.rows_mut() {
            let row = row.as_slice_mut().expect("a new array is contiguous");
            softmax_row_at(row, temperature, &mut probabilities);
            for (value, probability) in row.iter_mut().zip(&probabilities) {
                *value = *probability as f32;
            }
        }
        Ok(logits)
    }

    /// The most probable class of each row of `x` (`[n, dim]`), the first one on ties.
    ///
    /// # Errors
    /// [`Error::Examples`] if `x` has another number of features.
    pub fn classify(&self, x: ArrayView2<'_, f32>) -> Result<Array1<usize>> {
        let mut labels = Vec::with_capacity(x.nrows());
        self.logit_blocks(x, |_, block| {
            labels.extend(block.chunks_exact(self.classes()).map(loss::argmax));
        })?;
        Ok(labels.into())
    }

    /// The `k` most probable classes of each row of `x` (`[n, dim]`), the best first, lower classes first on ties.
    ///
    /// A head of fewer than `k` classes gives them all.
    ///
    /// # Errors
    /// [`Error::Examples`] if `x` has another number of features.
    pub fn top_k(&self, x: ArrayView2<'_, f32>, k: usize) -> Result<Vec<Vec<RankedClass>>> {
        self.top_k_at(x, k, 1.0)
    }

    /// The same with the probabilities of the logits divided by `temperature`.
    pub(super) fn top_k_at(&self, x: ArrayView2<'_, f32>, k: usize, temperature: f64) -> Result<Vec<Vec<RankedClass>>> {
        let logits = self.logits(x)?;
        let mut probabilities = Vec::with_capacity(self.classes());
        let rank = |logits: ArrayView1<'_, f32>| {
            softmax_row_at(&logits.to_vec(), temperature, &mut probabilities);
            let mut order: Vec<usize> = (0..logits.len()).collect();
            // By logit, not by probability: two classes far behind may both round to a probability of 0.
            order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
            order.truncate(k);
            order
                .into_iter()
                .map(|class| RankedClass {
                    class,
                    probability: probabilities[class] as f32,
                })
                .collect()
        };
        Ok(logits.rows().into_iter().map(rank).collect())
    }

    /// Loss and accuracy on `x` (`[n, dim]`) and its labels, without keeping the logits.
    ///
    /// # Errors
    /// [`Error::Examples`] if `x` has another number of features, or the labels do not fit.
    pub fn score(&self, x: ArrayView2<'_, f32>, labels: &[usize]) -> Result<loss::Score> {
        let mut score = loss::Score::default();
        self.add_score(x, labels, &mut score, &Quiet)?;
        Ok(score)
    }

    /// Adds the scores of the rows of `x` to `score`, in their order.
    ///
    /// # Errors
    /// Those of [`score`](Self::score), and [`Error::Interrupted`] if the observer asks for it.
    pub(super) fn add_score(
        &self,
        x: ArrayView2<'_, f32>,
        labels: &[usize],
        score: &mut loss::Score,
        observer: &dyn Observer,
    ) -> Result<()> {
        loss::check_labels(labels, x.nrows(), self.classes())?;
        self.check_dim(x)?;
        let mut scorer = Scorer::default();
        let x = x.as_standard_layout();
        let x = x.as_slice().expect("the layout was made standard");
        for (x, labels) in x.chunks(Scorer::ROWS * self.dim()).zip(labels.chunks(Scorer::ROWS)) {
            if observer.interrupted() {
                return Err(Error::Interrupted);
            }
            let rows: Vec<&[f32]> = x.chunks_exact(self.dim()).collect();
            scorer.score(self.slices(), &rows, labels, |row| score.add_row(row));
        }
        Ok(())
    }

    /// Hands the logits of some consecutive rows at a time, and the index of the first of them, to `receive`.
    fn logit_blocks(&self, x: ArrayView2<'_, f32>, mut receive: impl FnMut(usize, &[f32])) -> Result<()> {
        self.check_dim(x)?;
        let (weight, bias) = self.slices();
        let mut logits = vec![0.0; ROWS * self.classes()];
        let mut rows: Vec<&[f32]> = Vec::with_capacity(ROWS);
        let x = x.as_standard_layout();
        let x = x.as_slice().expect("the layout was made standard");
        for (block, x) in x.chunks(ROWS * self.dim()).enumerate() {
            rows.clear();
            rows.extend(x.chunks_exact(self.dim()));
            let logits = &mut logits[..rows.len() * self.classes()];
            let strides = Strides {
                row: self.classes(),
                class: 1,
            };
            kernel::logits(weight, bias, &rows, logits, strides);
            receive(block * ROWS, logits);
        }
        Ok(())
    }

    fn check_dim(&self, x: ArrayView2<'_, f32>) -> Result<()> {
        if x.ncols() == self.dim() {
            return Ok(());
        }
        Err(Error::Examples(format!(
            "the rows have {} features, but the head was made for {}",
            x.ncols(),
            self.dim()
        )))
    }

    /// Weight and bias as they lie in memory, row by row.
    pub(super) fn slices(&self) -> (&[f32], &[f32]) {
        let weight = self.weight.as_slice().expect("`new` makes the layout standard");
        (weight, self.bias.as_slice().expect("`new` makes the layout standard"))
    }

    /// Weight and bias as they lie in memory, row by row, to be changed.
    pub(super) fn slices_mut(&mut self) -> (&mut [f32], &mut [f32]) {
        let weight = self.weight.as_slice_mut().expect("`new` makes the layout standard");
        (
            weight,
            self.bias.as_slice_mut().expect("`new` makes the layout standard"),
        )
    }
}

/// The same matrix, row by row in memory.
fn standard(matrix: Array2<f32>) -> Array2<f32> {
    if matrix.is_standard_layout() {
        matrix
    } else {
        matrix.as_standard_layout().into_owned()
    }
}

impl<D: Data<Elem = f32>> PredictInplace<ArrayBase<D, Ix2>, Array1<usize>> for LinearHead {
    /// Writes the most probable class of each row.
    ///
    /// # Panics
    /// If `x` has another number of features, or `y` another number of rows, as linfa's own models do;
    /// [`LinearHead::classify`] returns an error instead.
    fn predict_inplace<'a>(&'a self, x: &'a ArrayBase<D, Ix2>, y: &mut Array1<usize>) {
        assert_eq!(
            x.ncols(),
            self.dim(),
            "the rows must have as many features as the head was made for"
        );
        assert_eq!(x.nrows(), y.len(), "there must be as many targets as rows");
        y.assign(&self.classify(x.view()).expect("the number of features was checked"));
    }

    fn default_target(&self, x: &ArrayBase<D, Ix2>) -> Array1<usize> {
        Array1::zeros(x.nrows())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use ndarray::{array, s};

    use super::*;

    fn head() -> LinearHead {
        LinearHead::new(array![[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], array![0.0, 0.5, -2.0]).unwrap()
    }

    #[test]
    fn logits_and_probabilities_by_hand() {
        let x = array![[1.0_f32, 2.0], [0.0, 0.0]];
        assert_eq!(
            head().logits(x.view()).unwrap(),
            array![[1.0, 2.5, 1.0], [0.0, 0.5, -2.0]]
        );
        let probabilities = head().probabilities(x.view()).unwrap();
        let total = 2.0 * 1_f32.exp() + 2.5_f32.exp();
        assert!((probabilities[[0, 1]] - 2.5_f32.exp() / total).abs() < 1e-6);
        assert!(
            probabilities
                .rows()
                .into_iter()
                .all(|row| (row.sum() - 1.0).abs() < 1e-6)
        );
        assert_eq!(head().classify(x.view()).unwrap(), array![1, 1]);
    }

    #[test]
    fn huge_logits_keep_finite_probabilities() {
        let head = LinearHead::new(array![[1e30_f32], [-1e30]], array![0.0, 0.0]).unwrap();
        assert_eq!(
            head.probabilities(array![[1.0_f32]].view()).unwrap(),
            array![[1.0, 0.0]]
        );
    }

    #[test]
    fn top_k_is_ordered_and_cut() {
        let top = head().top_k(array![[1.0_f32, 2.0]].view(), 2).unwrap();
        assert_eq!(top[0].iter().map(|ranked| ranked.class).collect::<Vec<_>>(), [1, 0]);
        assert_eq!(head().top_k(array![[1.0_f32, 2.0]].view(), 9).unwrap()[0].len(), 3);
    }

    #[test]
    fn any_memory_layout_gives_the_same_logits() {
        let x = Array2::from_shape_fn((70, 4), |(i, j)| (i * 4 + j) as f32 * 0.1);
        let strided = x.slice(s![.., ..;2]);
        let expected = head().logits(strided.to_owned().view()).unwrap();
        assert_eq!(head().logits(strided).unwrap(), expected);
        let transposed = LinearHead::new(head().weight().t().to_owned().reversed_axes(), head().bias).unwrap();
        assert_eq!(transposed.logits(strided).unwrap(), expected);
        let labels = head().classify(strided).unwrap().to_vec();
        let score = head().score(strided, &labels).unwrap();
        assert_eq!(score, loss::Score::of(expected.view(), &labels).unwrap());
        assert_eq!(score.correct(), 70);
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        assert!(LinearHead::new(Array2::zeros((2, 3)), Array1::zeros(3)).is_err());
        assert!(LinearHead::new(Array2::zeros((0, 3)), Array1::zeros(0)).is_err());
        let error = head().logits(Array2::zeros((1, 3)).view()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the rows have 3 features, but the head was made for 2"
        );
    }

    #[test]
    fn the_initial_head_lies_in_its_bounds() {
        let head = LinearHead::uniform(4, 64, 7).unwrap();
        assert!(head.weight.iter().chain(&head.bias).all(|value| value.abs() <= 0.125));
        assert_eq!(head, LinearHead::uniform(4, 64, 7).unwrap());
        assert_ne!(head, LinearHead::uniform(4, 64, 8).unwrap());
    }
}
