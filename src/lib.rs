//! Image classifiers from a frozen backbone and a trained last layer.

mod backbone;
mod error;
mod observer;

pub use backbone::{ExternalDataProblem, FeatureModel, NotOnnx};
pub use error::{Error, ErrorKind, Result};
pub use observer::{Observer, Quiet, Unit};
