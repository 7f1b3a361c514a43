//! What is remembered of a data set after its features were extracted.
//!
//! The record lets `train-head` work from the cache alone, and lets the next `extract` skip hashing what has not
//! changed. It says which content each path had; it is never the identity of a feature.

use std::path::PathBuf;

use super::{Split, Stamp};

/// A data set as `extract` last saw it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct DatasetRecord {
    /// The folder, absolute.
    pub(crate) root: PathBuf,
    /// Class names; a class id is an index into it.
    pub(crate) classes: Vec<String>,
    /// The pictures, in the data set's order.
    pub(crate) samples: Vec<SampleRecord>,
}

/// One picture of a [`DatasetRecord`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SampleRecord {
    /// Path below the root.
    pub(crate) path: PathBuf,
    /// Index into the record's classes.
    pub(crate) class: u32,
    /// The split its folder named.
    pub(crate) split: Option<Split>,
    /// The file's stamp when it was hashed.
    pub(crate) stamp: Stamp,
    /// Whether the stamp can be trusted to show any later change ([`Stamp::settled`]).
    pub(crate) settled: bool,
    /// blake3 of the file's bytes; `None` when the file could not be read.
    pub(crate) content: Option<[u8; 32]>,
    /// Why the picture has no feature: reason code and detail.
    pub(crate) failure: Option<(String, String)>,
}
