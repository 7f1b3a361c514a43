//! The last layer: a linear softmax classifier trained on features, its solvers, and its file.
//!
//! Works on matrices alone: where features come from and what the classes are called is known elsewhere, except that a
//! [`HeadFile`] carries the names along. Solvers take a [`TrainingTask`] and give a [`Training`]; a [`Recipe`] says which
//! solver with which options, and fits linfa data sets; heads are linfa models.
//!
//! ```
//! use lastlayer::{Descent, Recipe};
//! use linfa::Dataset;
//! use linfa::traits::{Fit, Predict};
//! use ndarray::array;
//!
//! let features = array![[0.0_f32, 1.0], [0.1, 0.9], [1.0, 0.0], [0.9, 0.1]];
//! let dataset = Dataset::new(features, array![0_usize, 0, 1, 1]);
//! let descent = Descent { epochs: 50, learning_rate: 0.1, ..Descent::sgd() };
//! let head = Recipe::from(descent).fit(&dataset)?;
//! assert_eq!(head.predict(&dataset), array![0, 0, 1, 1]);
//! # Ok::<(), lastlayer::Error>(())
//! ```

mod class_weights;
mod descent;
mod file;
mod kernel;
mod lbfgs;
mod linear;
mod linfa_logistic;
mod load;
mod loss;
mod objective;
mod preconditioner;
mod recipe;
mod schedule;
mod side_by_side;
mod softmax;
mod standardize;
mod training;
mod unstoppable;

use crate::random;

pub use file::{HeadFile, HeadMeta};
pub use linear::{LinearHead, RankedClass};
pub(crate) use load::Load;
pub use loss::{Score, cross_entropy};
pub(crate) use loss::{argmax, check_labels};
pub use recipe::{
    ClassWeights, Descent, EarlyStopping, Lbfgs, Recipe, Sampling, Solver, Update, ValidRecipe, train_all,
};
pub use schedule::{CosineLr, ExponentialLr, MultiStepLr, OneCycleLr, PlateauLr, Schedule, StepLr};
pub(crate) use side_by_side::side_by_side;
pub(crate) use softmax::{TEMPERATURES, softmax_row_at};
pub use training::{Convergence, EpochRecord, Examples, Training, TrainingTask};
