//! Image classifiers from a frozen backbone and a trained last layer.

mod backbone;
mod error;
mod head;
mod observer;

pub use error::{Error, ErrorKind, Result};
pub use head::{
    EpochRecord, Examples, HeadFile, HeadMeta, LinearHead, RankedClass, Schedule, Score, SgdParams, SgdValidParams,
    StepLr, Training, TrainingTask, cross_entropy,
};
pub use observer::{Observer, Quiet, Unit};
