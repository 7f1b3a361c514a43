//! File bytes to a normalised CHW tensor: one code path for extraction, prediction and the check of an export.
//!
//! [`Transform`] is torchvision's validation transform, [`RandomCrop`] its training transform, pixel for pixel as Pillow
//! computes them. What can't be decoded is a value, [`PictureError`], never a panic. Which files there are, reading them, and batching is left to the callers.

mod augment;
mod convert;
mod decode;
mod directory;
mod entropy;
mod exif;
mod jpeg;
mod kernel;
mod mend;
mod orient;
mod reduced;
mod resize;
mod room;
mod sniff;
mod transform;

use std::fmt;
use std::io;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

pub(crate) use augment::{RECIPE, RandomCrop};
pub(crate) use room::Room;
pub use transform::Transform;
pub(crate) use transform::{Decoded, Wanted};

/// What turns bytes into pixels, with every version that could change one; part of a feature's identity.
///
/// A build whose JPEG decoder has no vector instructions says so, being told by what it does: there damaged JPEGs whose
/// values lie far outside of the range wrap around where all others stop at black or white. Of every other picture the pixels
/// are the same.
#[must_use]
pub fn decoder() -> &'static str {
    static DESCRIPTION: LazyLock<String> = LazyLock::new(|| {
        if jpeg::is_vectorised() {
            VERSIONS.to_owned()
        } else {
            format!("{VERSIONS}, {WITHOUT_VECTORS}")
        }
    });
    &DESCRIPTION
}

/// What [`decoder`] says of a build whose JPEG decoder has no vector instructions.
pub const WITHOUT_VECTORS: &str = "JPEG without SIMD";

/// `pixels` counts our own rules: colour conversion, orientation, and the resize.
const VERSIONS: &str = "mozjpeg 0.10.13, mozjpeg-sys 2.2.3, image 0.25.10, png 0.18.1, gif 0.14.2, tiff 0.11.3, \
                           image-webp 0.2.4, zune-jpeg 0.5.15, pixels 1";

/// Why a picture could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The content is no picture: text, a web page, a Git LFS pointer.
    NotAnImage,
    /// The file ends before its pixels do.
    Truncated,
    /// A picture in a format, or with a feature, that is not decoded here.
    Unsupported,
    /// More pixels or bytes than [`Limits`] allows.
    TooLarge,
    /// The operating system could not read the file.
    Unreadable,
    /// The file has no bytes.
    Empty,
    /// The content is damaged.
    Corrupt,
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NotAnImage => "not_an_image",
            Self::Truncated => "truncated",
            Self::Unsupported => "unsupported",
            Self::TooLarge => "too_large",
            Self::Unreadable => "unreadable",
            Self::Empty => "empty",
            Self::Corrupt => "corrupt",
        })
    }
}

/// One picture that could not be used: a value that is counted and listed, never the end of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct PictureError {
    /// The class of the failure, stable for programs.
    pub reason: Reason,
    /// What exactly was found, for people.
    pub detail: String,
}

impl PictureError {
    /// Joins a reason and what was found.
    #[must_use]
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }

    /// The failure of reading the file itself.
    #[must_use]
    pub fn unreadable(source: &io::Error) -> Self {
        Self::new(Reason::Unreadable, source.to_string())
    }
}

/// What becomes of the orientation that a camera recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exif {
    /// Pictures are turned upright, as Pillow's `exif_transpose` does for the EXIF tag. An orientation that only an XMP
    /// packet states is not looked at.
    #[default]
    Apply,
    /// Pixels stay as stored, as in torchvision. (A TIFF's orientation is part of its format: always applied.)
    Ignore,
}

/// How much of a large picture is decoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decode {
    /// All pixels, which are then resized: what Pillow and torchvision do.
    #[default]
    Exact,
    /// A JPEG far larger than the crop at a half, a quarter or an eighth of its size, never below twice what it is resized
    /// to. Several times faster; features differ a little. Random views are still cut from the whole picture, and other
    /// formats decoded as a whole.
    Fast,
}

impl Decode {
    /// Whether it is [`Decode::Exact`], which a space does not mention: it was the only one once.
    pub(crate) fn is_exact(&self) -> bool {
        *self == Self::Exact
    }
}

/// What becomes of a picture whose file ends before its pixels do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncated {
    /// It is [`Reason::Truncated`].
    #[default]
    Reject,
    /// A JPEG or PNG of which something can be seen is taken as [`Completeness::Partial`], the rest filled as Pillow does
    /// it with `LOAD_TRUNCATED_IMAGES`. Other formats stay [`Reason::Truncated`]: there it is rare, and their decoders
    /// give nothing of a picture that fails.
    Accept,
}

/// Whether a decoded picture is all that its header promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use]
pub enum Completeness {
    /// The file had all pixels.
    Whole,
    /// The file was cut off ([`Truncated::Accept`]): what was missing is filled.
    Partial,
}

/// How much a single picture may cost, and how much of it must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most pixels (width × height) that are decoded; checked on the header. Default: 178 956 970, where Pillow refuses.
    pub max_pixels: u64,
    /// Longest file that is read. Default: 1 GiB.
    pub max_file_bytes: u64,
    /// What becomes of files that are cut off. Default: [`Truncated::Reject`].
    pub truncated: Truncated,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_pixels: 178_956_970,
            max_file_bytes: 1 << 30,
            truncated: Truncated::Reject,
        }
    }
}

impl Limits {
    /// Refuses a file of so many bytes if it is too long.
    pub(crate) fn check_file(&self, bytes: u64) -> Result<(), PictureError> {
        if bytes > self.max_file_bytes {
            let detail = format!("the file has {bytes} bytes, more than {}", self.max_file_bytes);
            return Err(PictureError::new(Reason::TooLarge, detail));
        }
        Ok(())
    }

    fn check(&self, width: u32, height: u32) -> Result<(), PictureError> {
        if width == 0 || height == 0 {
            return Err(PictureError::new(
                Reason::Corrupt,
                format!("a picture of {width}x{height} pixels"),
            ));
        }
        if u64::from(width) * u64::from(height) > self.max_pixels {
            let detail = format!("{width}x{height} is more than {} pixels", self.max_pixels);
            return Err(PictureError::new(Reason::TooLarge, detail));
        }
        Ok(())
    }

    /// Bounds what a decoder allocates: 16-bit RGBA for every pixel, and never less than a decoder needs to work at all.
    fn max_bytes(&self) -> u64 {
        self.max_pixels.saturating_mul(8).max(64 << 20)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn decoder_versions_are_the_locked_ones() {
        let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).unwrap();
        for part in VERSIONS.split(", ").filter(|part| !part.starts_with("pixels ")) {
            let (name, version) = part.split_once(' ').unwrap();
            let entry = format!("name = \"{name}\"\nversion = \"{version}\"\n");
            let named = lock
                .replace("\r\n", "\n")
                .matches(&format!("name = \"{name}\"\n"))
                .count();
            assert!(
                lock.replace("\r\n", "\n").contains(&entry),
                "the decoder is said to be {part}, Cargo.lock says otherwise"
            );
            assert_eq!(named, 1, "two versions of {name} are locked");
        }
    }

    #[test]
    fn reason_prints_as_it_serialises() {
        for reason in [
            Reason::NotAnImage,
            Reason::Truncated,
            Reason::Unsupported,
            Reason::TooLarge,
            Reason::Unreadable,
            Reason::Empty,
            Reason::Corrupt,
        ] {
            assert_eq!(serde_json::to_string(&reason).unwrap(), format!("\"{reason}\""));
        }
    }

    #[test]
    fn limit_is_on_the_product() {
        let limits = Limits {
            max_pixels: 12,
            ..Limits::default()
        };
        assert_eq!(limits.check(3, 4), Ok(()));
        assert_eq!(limits.check(13, 1).unwrap_err().reason, Reason::TooLarge);
        assert_eq!(limits.check(u32::MAX, u32::MAX).unwrap_err().reason, Reason::TooLarge);
        assert_eq!(limits.check(0, 4).unwrap_err().reason, Reason::Corrupt);
    }
}
