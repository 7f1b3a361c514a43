//! What is remembered of one picture of a data set after its features were extracted.
//!
//! The record lets `train-head` work from the cache alone, and lets the next `extract` skip hashing what has not
//! changed. It says which content each path had; it is never the identity of a feature. Its file is
//! `cache/datasets.rs`'s.

use std::borrow::Cow;
use std::path::Path;

use super::{Split, Stamp};

/// One picture as `extract` last saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SampleRecord<'a> {
    /// Path below the record's root.
    pub(crate) path: Cow<'a, Path>,
    /// Index into the record's classes.
    pub(crate) class: Option<u32>,
    /// The split that its folder or its row named.
    pub(crate) split: Option<Split>,
    /// The stamp of the file that holds its bytes, when they were hashed.
    pub(crate) stamp: Stamp,
    /// Whether the stamp can be trusted to show any later change ([`Stamp::settled`]).
    pub(crate) settled: bool,
    /// blake3 of the picture's bytes; `None` when they could not be read.
    pub(crate) content: Option<[u8; 32]>,
    /// Whether the bytes are cut off and the feature is one of what was there.
    pub(crate) partial: bool,
    /// Why the picture has no feature: the reason's code, a colon, and the detail.
    pub(crate) failure: Option<Cow<'a, str>>,
}

impl SampleRecord<'_> {
    /// Whether the last run came to this picture.
    pub(crate) fn is_seen(&self) -> bool {
        self.content.is_some() || self.failure.is_some()
    }
}
