//! Image classifiers from a frozen backbone and a trained last layer.

mod backbone;
mod error;
mod observer;
mod picture;

pub use error::{Error, ErrorKind, Result};
pub use observer::{Observer, Quiet, Unit};
pub use picture::{DECODER, Exif, Limits, PictureError, Reason, Transform};
