//! Feature rows on disk: computed once, found again by what the picture and the feature space are.
//!
//! ```text
//! CACHE/
//!   spaces/<id>/space.json     what the numbers depend on, readable           (key.rs)
//!               origin.json    where the backbone lay, for people and predict (store.rs)
//!               index          the segments that count                        (index.rs)
//!               <name>.seg     rows and their keys, immutable, checksummed    (segment.rs)
//!               lock, users    held while the index is replaced, by writers   (lock.rs)
//!   datasets/<id>              which picture had which content                (datasets.rs)
//!   test_uses/<id>.json        which head was scored on which test split      (notes.rs)
//! ```
//! The cache knows nothing of pictures, models or labels: a row is 4·dim bytes under a 36-byte key.

mod codec;
mod datasets;
#[cfg(test)]
mod fault_tests;
pub(crate) mod hostile;
mod index;
mod key;
mod lock;
mod mapped;
mod merge;
mod notes;
mod segment;
mod snapshot;
mod space;
mod status;
mod store;
mod verify;

pub(crate) use datasets::{DatasetRecord, RecordOf};
pub use key::{FeatureSpace, PARTIAL, RowKey, SpaceId};
pub use merge::{Exclusive, Retained};
pub use space::Space;
pub use status::SpaceStatus;
pub(crate) use store::FAILURES_FILE;
pub use store::{Cache, Origin};
pub use verify::{BadRow, FileFinding, Finding, VerifiedSpace, VerifyReport};
