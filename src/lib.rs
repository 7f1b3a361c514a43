//! Image classifiers from a frozen backbone and a trained last layer.

mod backbone;
mod cache;
#[doc(hidden)]
pub mod cli;
mod dataset;
mod disk;
mod engine;
mod error;
mod extract;
mod features;
mod head;
mod observer;
mod picture;
mod pipeline;
mod predict;
mod space;

pub use backbone::{
    Attempt, Backbone, Device, ExternalDataProblem, FeatureModel, Located, NotOnnx, Place, Runtime, RuntimeOptions,
    Session, SessionOptions, ZooModel, models as zoo_models, registered_providers,
};
pub use cache::{
    BadRow, Cache, Exclusive, FeatureSpace, FileFinding, Finding, Origin, Retained, RowKey, Space, SpaceId,
    SpaceStatus, VerifiedSpace, VerifyReport,
};
pub use dataset::{Dataset, EXTENSIONS, Ignored, Sample, Split};
#[doc(hidden)]
pub use disk::{FileLayer, LockKind, PendingData, SystemFiles};
pub use engine::InferenceOptions;
pub use error::{Error, ErrorKind, Result};
pub use extract::{ExtractOptions, ExtractReport, Failure, extract};
pub use features::{LabelledFeatures, LabelledRows, SpaceChoice, labelled_features};
pub use head::{
    EpochRecord, Examples, HeadFile, HeadMeta, LinearHead, RankedClass, Schedule, Score, SgdParams, SgdValidParams,
    StepLr, Training, TrainingTask, cross_entropy,
};
pub use observer::{Observer, Quiet, Unit};
pub use picture::{DECODER, Exif, Limits, PictureError, Reason, Transform};
pub use pipeline::Busy;
pub use predict::{Classifier, PredictOptions, Prediction};
pub use space::{Precision, SpaceDescription};
