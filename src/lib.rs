//! Image classifiers from a frozen backbone and a trained last layer.

mod backbone;
mod cache;
mod dataset;
mod error;
mod observer;

pub use cache::{Cache, FeatureSpace, Origin, RowKey, Space, SpaceId};
pub use dataset::{Dataset, EXTENSIONS, Ignored, Sample, Split};
pub use error::{Error, ErrorKind, Result};
pub use observer::{Observer, Quiet, Unit};
