//! Image classifiers from a frozen backbone and a trained last layer.

mod backbone;
mod error;
pub mod head;
mod observer;

pub use error::{Error, ErrorKind, Result};
pub use observer::{Observer, Quiet, Unit};
