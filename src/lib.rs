//! Image classifiers from a frozen backbone and a trained last layer.

mod backbone;
mod cache;
mod dataset;
mod error;
mod observer;
mod picture;

pub use cache::{Cache, FeatureSpace, Origin, RowKey, Space, SpaceId};
pub use dataset::{Dataset, EXTENSIONS, Ignored, Sample, Split};
pub use error::{Error, ErrorKind, Result};
pub use observer::{Observer, Quiet, Unit};
pub use picture::{DECODER, Exif, Limits, PictureError, Reason, Transform};
