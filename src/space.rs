//! The feature space in words: everything that can change a feature's numbers, as the cache's key is made of it.

use serde::{Deserialize, Serialize};

use crate::cache::FeatureSpace;
use crate::picture::{DECODER, Transform};

/// Raised when the same description would mean other numbers.
const FORMAT: u32 = 1;

/// No backbone takes larger pictures.
const LARGEST_SIDE: u32 = 8192;

/// What a feature's numbers depend on.
///
/// Serialised in this field order it is the canonical text whose blake3 hash names the space. Device, threads, batch
/// size and ONNX Runtime version move last bits at most: they are recorded with the rows instead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpaceDescription {
    /// Version of this description.
    pub format: u32,
    /// blake3 of the backbone's bytes, hexadecimal.
    pub backbone: String,
    /// The tensor of the backbone that is the feature.
    pub feature: String,
    /// The decoders, with their versions, and the version of the resize implementation.
    pub decoder: String,
    /// What is done to a picture before the backbone sees it.
    pub transform: Transform,
    /// The arithmetic of the backbone.
    pub precision: Precision,
}

/// The arithmetic in which the backbone runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floating point, TF32 off.
    #[default]
    Fp32,
}

impl SpaceDescription {
    /// The space of this program's own decoder and the given backbone and transform.
    #[must_use]
    pub fn new(backbone: &str, feature: &str, transform: Transform) -> Self {
        Self {
            format: FORMAT,
            backbone: backbone.to_owned(),
            feature: feature.to_owned(),
            decoder: DECODER.to_owned(),
            transform,
            precision: Precision::Fp32,
        }
    }

    /// Reads a description back from its canonical JSON; `None` when this version can't know what it means.
    #[must_use]
    pub fn parse(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok().filter(Self::is_sensible)
    }

    /// Whether features can be made as this says; a file from elsewhere may say anything.
    fn is_sensible(&self) -> bool {
        let Transform {
            resize_shorter_side: resize,
            crop,
            mean,
            std,
            ..
        } = &self.transform;
        let hash = self.backbone.len() == 64 && self.backbone.bytes().all(|byte| byte.is_ascii_hexdigit());
        let sides = (1..=LARGEST_SIDE).contains(crop) && (*crop..=2 * LARGEST_SIDE).contains(resize);
        let normalised =
            mean.iter().all(|value| value.is_finite()) && std.iter().all(|value| value.is_normal() && *value > 0.0);
        self.format == FORMAT && hash && sides && normalised
    }

    /// The space to look features up in.
    #[must_use]
    pub fn space(&self) -> FeatureSpace {
        FeatureSpace::new(self)
    }
}
