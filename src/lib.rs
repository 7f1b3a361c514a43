//! Image classifiers from a frozen backbone and a trained last layer.

mod backbone;
mod error;
mod observer;

pub use backbone::runtime::{Attempt, Located, Place, Runtime, RuntimeOptions};
pub use backbone::session::{Device, Session, SessionOptions, registered_providers};
pub use backbone::zoo::{ZooModel, models as zoo_models};
pub use error::{Error, ErrorKind, Result};
pub use observer::{Observer, Quiet, Unit};
