//! What a converted network must compute, so that a wrong conversion or a wrong runtime is noticed before it is used.
//!
//! The numbers come from PyTorch (`tests/fixtures/make_mobilenet_v2_expectation.py`), not from this crate. Running the
//! network is left to the session.

use serde::Deserialize;

use crate::{Error, Result};

/// An input, and the features PyTorch computes from it in f64.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Expectation {
    #[serde(skip)]
    network: &'static str,
    /// The largest allowed difference, as a fraction of the largest feature. PyTorch's own f32 differs by 1e-6.
    relative_tolerance: f32,
    features: Vec<f32>,
}

impl Expectation {
    /// The shape of [`input`](Self::input).
    pub(crate) const SHAPE: [usize; 4] = [1, 3, 224, 224];

    /// That of [`mobilenet_v2_from_wheel`](super::mobilenet_v2_from_wheel).
    pub(crate) fn mobilenet_v2() -> Self {
        let mut expectation: Self = serde_json::from_str(include_str!("mobilenet_v2_expectation.json"))
            .expect("the compiled-in file parses: a test reads it");
        expectation.network = "MobileNetV2";
        expectation
    }

    /// The input, row-major as [`SHAPE`](Self::SHAPE) says, in [-2, 2) as normalised pictures are.
    ///
    /// Element i is `4 ((2654435761 i mod 2^32) / 2^32 - 1/2)`, exact in f64 and then rounded, so that it can be made
    /// again anywhere.
    pub(crate) fn input(&self) -> Vec<f32> {
        let element = |index: u32| {
            let low = index.wrapping_mul(2_654_435_761);
            ((f64::from(low) / 2.0_f64.powi(32) - 0.5) * 4.0) as f32
        };
        let count = Self::SHAPE.iter().product::<usize>() as u32;
        (0..count).map(element).collect()
    }

    /// Compares the features the network computes from [`input`](Self::input) in f32.
    ///
    /// # Errors
    /// [`Error::Expectation`] if one of them differs by more than a ten-thousandth of the largest.
    pub(crate) fn check(&self, features: &[f32]) -> Result<()> {
        let error = |reason| {
            Err(Error::Expectation {
                network: self.network,
                reason,
            })
        };
        if features.len() != self.features.len() {
            return error(format!(
                "{} features instead of {}",
                features.len(),
                self.features.len()
            ));
        }
        let largest = self
            .features
            .iter()
            .fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let tolerance = self.relative_tolerance * largest;
        for (index, (got, expected)) in features.iter().zip(&self.features).enumerate() {
            // Written so that NaN is a difference.
            let equal = (got - expected).abs() <= tolerance;
            if !equal {
                return error(format!(
                    "feature {index} is {got} instead of {expected}, and may differ by {tolerance:.1e}"
                ));
            }
        }
        Ok(())
    }
}
