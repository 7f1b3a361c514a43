//! How close quantised features are to float ones, and from where on they are no good.

use ndarray::{Array2, ArrayView1, Axis};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::head::{Examples, Lbfgs, Recipe, Solver, TrainingTask};
use crate::observer::Observer;

/// Below this mean cosine the result is refused. ResNet18 has 0.999, MobileNetV2 0.986, and both lose less than a point of
/// accuracy; at 0.95 the error is a third of the feature's length.
const LOWEST_COSINE: f64 = 0.95;
/// Above this share of what tells pictures apart the result is refused, as cosines of features that are alike for all
/// pictures are high whatever happens. ResNet18 has 0.005, MobileNetV2 0.08.
const LARGEST_NOISE: f64 = 0.2;
/// Below this agreement of a head on both features the result is refused: it would cost more than any choice of backbone.
const LOWEST_AGREEMENT: f64 = 0.9;
/// A share of fewer pictures than this tells nothing that could refuse: one of them is 3 %.
const FEWEST_FOR_AGREEMENT: usize = 32;
/// The strength of the head that is trained for the comparison, as scikit-learn's `C`.
const HEAD_C: f64 = 0.1;

/// How close the features of a quantised backbone are to those of the float one, on the same pictures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fidelity {
    /// Pictures compared.
    pub images: usize,
    /// Whether they are others than those it was calibrated with; there were too few where not.
    pub held_out: bool,
    /// Mean cosine between a picture's two features.
    pub cosine: f64,
    /// The smallest of them.
    pub worst_cosine: f64,
    /// Mean squared difference between the two features, as a share of the variance of the float ones over the pictures.
    pub noise: f64,
    /// The share of pictures that a head, trained on float features of the calibration pictures, gives the same class by
    /// both features; null without two classes to tell apart.
    pub head_agreement: Option<f64>,
}

/// Pictures of which the class may be known, to train a head on.
pub(super) struct Known<'a> {
    /// Float features, a row each.
    pub(super) features: Array2<f32>,
    pub(super) classes: &'a [Option<u32>],
}

impl Fidelity {
    /// Compares the features of the same pictures, a row each.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted).
    pub(super) fn measure(
        float: &Array2<f32>,
        int8: &Array2<f32>,
        held_out: bool,
        known: &Known<'_>,
        observer: &dyn Observer,
    ) -> Result<Self> {
        let images = float.nrows();
        let cosines: Vec<f64> = float
            .rows()
            .into_iter()
            .zip(int8.rows())
            .map(|(float, int8)| dot(float, int8) / (dot(float, float) * dot(int8, int8)).sqrt())
            .collect();
        let head_agreement = agreement(float, int8, known, observer)?;
        Ok(Self {
            images,
            held_out,
            cosine: cosines.iter().sum::<f64>() / images.max(1) as f64,
            // Not `min`, which passes over NaN.
            worst_cosine: cosines
                .iter()
                .copied()
                .fold(1.0, |worst, cosine| if cosine >= worst { worst } else { cosine }),
            noise: noise(float, int8),
            head_agreement,
        })
    }

    /// Whether it is good enough to be used.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn verdict(&self) -> Result<(), String> {
        let Self {
            images, cosine, noise, ..
        } = self;
        // NaN would pass all of the comparisons below.
        if !(noise.is_finite() && cosine.is_finite()) {
            return Err("features are the same for every picture, or not finite".to_owned());
        }
        if *cosine < LOWEST_COSINE {
            return Err(format!(
                "int8 features have a cosine of {cosine:.4} to fp32 on {images} pictures, less than {LOWEST_COSINE}"
            ));
        }
        if *noise > LARGEST_NOISE {
            return Err(format!(
                "int8 features of {images} pictures differ from fp32 by {:.0} % of what tells pictures apart, more than \
                 {:.0} %",
                noise * 100.0,
                LARGEST_NOISE * 100.0
            ));
        }
        match self.head_agreement {
            Some(agreement) if *images >= FEWEST_FOR_AGREEMENT && agreement < LOWEST_AGREEMENT => Err(format!(
                "a head gives only {:.1} % of {images} pictures the same class by int8 features as by fp32 ones",
                agreement * 100.0
            )),
            _ => Ok(()),
        }
    }
}

fn dot(left: ArrayView1<'_, f32>, right: ArrayView1<'_, f32>) -> f64 {
    left.iter()
        .zip(right)
        .map(|(left, right)| f64::from(*left) * f64::from(*right))
        .sum()
}

/// `Σ‖int8 − float‖² / Σ‖float − mean‖²`; NaN or infinite where the float features do not differ.
fn noise(float: &Array2<f32>, int8: &Array2<f32>) -> f64 {
    let difference: f64 = float
        .iter()
        .zip(int8)
        .map(|(float, int8)| (f64::from(*int8) - f64::from(*float)).powi(2))
        .sum();
    let mut variance = 0.0;
    for column in float.axis_iter(Axis(1)) {
        let mean = column.iter().copied().map(f64::from).sum::<f64>() / column.len() as f64;
        variance += column
            .iter()
            .map(|value| (f64::from(*value) - mean).powi(2))
            .sum::<f64>();
    }
    difference / variance
}

/// The share of rows that a head trained on `known` gives the same class in both.
fn agreement(
    float: &Array2<f32>,
    int8: &Array2<f32>,
    known: &Known<'_>,
    observer: &dyn Observer,
) -> Result<Option<f64>> {
    let labelled: Vec<usize> = (0..known.classes.len())
        .filter(|&row| known.classes[row].is_some())
        .collect();
    let mut classes: Vec<u32> = known.classes.iter().flatten().copied().collect();
    classes.sort_unstable();
    classes.dedup();
    let finite = |rows: &Array2<f32>| rows.iter().all(|value| value.is_finite());
    if classes.len() < 2 || ![float, int8, &known.features].into_iter().all(finite) {
        return Ok(None);
    }
    let labels: Vec<usize> = labelled
        .iter()
        .filter_map(|&row| classes.binary_search(&known.classes[row]?).ok())
        .collect();
    let rows = known.features.select(Axis(0), &labelled);
    let task = TrainingTask::new(classes.len(), Examples::new(rows.view(), &labels)?)?;
    let recipe = Recipe {
        solver: Solver::Lbfgs(Lbfgs {
            c: HEAD_C,
            gradient_tolerance: 1e-4,
            ..Lbfgs::default()
        }),
        standardize: true,
        ..Recipe::default()
    };
    let head = recipe.check()?.train(&task, observer, &mut |_| ())?.head;
    let (by_float, by_int8) = (head.classify(float.view())?, head.classify(int8.view())?);
    let same = by_float
        .iter()
        .zip(&by_int8)
        .filter(|(float, int8)| float == int8)
        .count();
    Ok(Some(same as f64 / float.nrows().max(1) as f64))
}
