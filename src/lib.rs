//! Image classifiers from a frozen backbone and a trained last layer.

mod backbone;
mod cache;
#[doc(hidden)]
pub mod cli;
mod dataset;
mod disk;
mod engine;
mod error;
mod evaluation;
mod explain;
mod extract;
mod feature_table;
mod features;
mod head;
#[doc(hidden)]
pub mod hostile;
pub mod metrics;
mod observer;
mod picture;
mod pipeline;
mod predict;
mod profile;
mod quantize;
mod quiet;
mod random;
mod runs;
mod space;
mod supply;
mod sweep;
mod upkeep;
mod views;

pub use backbone::{
    Attempt, Backbone, CudaLibrary, CudaStatus, Device, ExternalDataProblem, FeatureModel, InstalledRuntime, Located,
    NotOnnx, Place, RunOptions, Runtime, RuntimeOptions, Session, SessionOptions, WeightBits, ZooModel, check_cuda,
    install_cuda_runtime, install_runtime, models as zoo_models, registered_providers,
};
pub use cache::{
    BadRow, Cache, Exclusive, FeatureSpace, FileFinding, Finding, Origin, PARTIAL, Retained, RowKey, Space, SpaceId,
    SpaceStatus, VerifiedSpace, VerifyReport,
};
pub use dataset::{
    Dataset, DatasetKind, EXTENSIONS, IdenticalPictures, Ignored, InputOptions, MissingClass, Opened, PictureIn,
    Problems, Sample, Split, Storage, StreamedArchive, StreamedDataset, TableColumns,
};
#[doc(hidden)]
pub use disk::{FileLayer, LockKind, PendingData, SystemFiles};
pub use engine::InferenceOptions;
pub use error::{Error, ErrorKind, Result};
pub use evaluation::{
    EvaluatedPicture, EvaluatedSplit, Evaluation, EvaluationRequest, Optimism, SeenBefore, TestUse, TestUses, evaluate,
};
pub use explain::{
    Cause, Difference, Explanation, PictureExplanation, Remembered, RowExplanation, RowState, SpaceExplanation,
    explain_dataset, explain_picture,
};
pub use extract::{ExtractOptions, ExtractReport, Failure, FailureLimit, extract, extract_stream};
pub use feature_table::{FeatureFormat, FeatureRow, FeatureTable, write_features};
pub use features::{
    DataFingerprint, FeatureRequest, FingerprintPart, LabelledFeatures, LabelledRows, Overlap, PictureSet,
    SeenPictures, SpaceChoice, labelled_features,
};
pub use head::{
    ClassWeights, Convergence, CosineLr, Descent, EarlyStopping, EpochRecord, Examples, ExponentialLr, HeadFile,
    HeadMeta, Lbfgs, LinearHead, MultiStepLr, OneCycleLr, PlateauLr, RankedClass, Recipe, Sampling, Schedule, Score,
    Solver, StepLr, Training, TrainingTask, Update, ValidRecipe, cross_entropy, train_all,
};
pub use observer::{Observer, Quiet, Unit};
pub use picture::{
    Completeness, Decode, Exif, Limits, PictureError, Reason, Transform, Truncated, WITHOUT_VECTORS, decoder,
};
pub use pipeline::Busy;
pub use predict::{Classifier, PredictOptions, Prediction};
pub use profile::Profiler;
pub use quantize::{Fidelity, Quantization, QuantizeOptions, QuantizeReport, quantize, quantized_for};
pub use runs::{
    Compared, Comparison, Run, RunConfig, RunDataset, RunFeatures, RunFilter, RunInputs, RunKind, RunState, RunWriter,
    compare_runs, find_run, has_key, list_runs, look_up, sort_runs,
};
pub use space::{FeatureOptions, Precision, SpaceDescription};
pub use upkeep::{
    CacheStatus, CollectedSpace, DatasetStatus, DeepOptions, DeepReport, GarbageOptions, GarbageReport, Recomputed,
    RemovedSpace, Verification, collect_garbage, deep_verify, status, verify,
};
pub use views::{RandomView, RandomViews, View};
