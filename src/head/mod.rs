//! The last layer: a linear softmax classifier trained on features, its solvers, and its file.
//!
//! Works on matrices alone: where features come from and what the classes are called is known elsewhere, except that a
//! [`HeadFile`] carries the names along. Solvers take a [`TrainingTask`] and give a [`Training`]; options follow linfa's
//! convention of unchecked and checked parameters, and heads are linfa models.
//!
//! ```
//! use lastlayer::SgdParams;
//! use linfa::Dataset;
//! use linfa::traits::{Fit, Predict};
//! use ndarray::array;
//!
//! let features = array![[0.0_f32, 1.0], [0.1, 0.9], [1.0, 0.0], [0.9, 0.1]];
//! let dataset = Dataset::new(features, array![0_usize, 0, 1, 1]);
//! let head = SgdParams::new().epochs(50).learning_rate(0.1).fit(&dataset)?;
//! assert_eq!(head.predict(&dataset), array![0, 0, 1, 1]);
//! # Ok::<(), lastlayer::Error>(())
//! ```

mod file;
mod kernel;
mod linear;
mod loss;
mod schedule;
mod sgd;
mod training;

use crate::random;

pub use file::{HeadFile, HeadMeta};
pub use linear::{LinearHead, RankedClass};
pub use loss::{Score, cross_entropy};
pub use schedule::{Schedule, StepLr};
pub use sgd::{SgdParams, SgdValidParams};
pub use training::{EpochRecord, Examples, Training, TrainingTask};
