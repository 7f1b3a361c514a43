//! From a file's bytes to the ONNX protobuf, and a helpful word where the bytes are something else.

use std::path::Path;

use bytes::Bytes;
use prost::Message;

use super::onnx::{ModelProto, Version};
use crate::error::{Error, Result};

/// Why a file can't be read as an ONNX model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotOnnx {
    /// No byte in it.
    #[error("it is empty")]
    Empty,
    /// What Git leaves in place of a large file that was not fetched.
    #[error("it is a Git LFS pointer, the model itself was not fetched")]
    LfsPointer,
    /// A web page, usually saved by a download that needed a login or a different address.
    #[error("it is a web page")]
    WebPage,
    /// Other text.
    #[error("it is text")]
    Text,
    /// A zip archive, which is how PyTorch saves checkpoints.
    #[error("it is a zip archive, as PyTorch checkpoints (.pt, .pth) are")]
    Zip,
    /// A Python pickle, the older form of a PyTorch checkpoint.
    #[error("it is a Python pickle, as old PyTorch checkpoints are")]
    Pickle,
    /// The file of another framework or a packed file.
    #[error("it is a file of the kind {0}")]
    Other(&'static str),
    /// Not the protobuf it should be: cut short, damaged, or of an unknown kind.
    #[error("it is cut short, damaged or of another kind ({0})")]
    Damaged(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A protobuf without a network in it.
    #[error("it holds no graph")]
    NoGraph,
    /// Written for a newer ONNX, with parts this program would lose.
    #[error("it was written for ONNX IR version {0} and has parts that are unknown here")]
    Newer(i64),
}

impl NotOnnx {
    /// What the user can do about it.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::LfsPointer => "run `git lfs pull` in that repository, then try again",
            Self::Zip | Self::Pickle => {
                "that is a PyTorch checkpoint, weights without a network: export it with `torch.onnx.export`"
            }
            Self::WebPage => "the download brought a web page: check the address and download the file itself",
            Self::Empty | Self::Damaged(_) => "get the file again and compare its size and sha256 with the publisher's",
            Self::Newer(_) => "export the model for an older opset and IR version",
            Self::Text | Self::Other(_) | Self::NoGraph => "give an image classifier or feature extractor as .onnx",
        }
    }
}

/// Decodes an ONNX file; weights stay slices of `bytes`.
///
/// Fields that the protobuf schema here does not know are dropped by decoding. In a file of an IR version that the
/// schema covers such fields are no part of ONNX, no runtime reads them, and losing them changes no number; field
/// order and packing may differ too. In a file of a newer IR version they may mean something: it is refused.
///
/// # Errors
/// [`Error::NotOnnx`] with what the file is instead.
pub(super) fn parse(bytes: &Bytes, path: &Path) -> Result<ModelProto> {
    let refuse = |source| Error::NotOnnx {
        path: path.to_path_buf(),
        source,
    };
    if let Some(found) = recognise(bytes) {
        return Err(refuse(found));
    }
    let model = ModelProto::decode(bytes.clone()).map_err(|error| refuse(NotOnnx::Damaged(error.into())))?;
    if model.graph.as_ref().is_none_or(|graph| graph.node.is_empty()) {
        return Err(refuse(NotOnnx::NoGraph));
    }
    if model.ir_version() > Version::IrVersion as i64 && model.encoded_len() < bytes.len() {
        return Err(refuse(NotOnnx::Newer(model.ir_version())));
    }
    Ok(model)
}

/// What else the bytes are, judged by their beginning.
fn recognise(bytes: &[u8]) -> Option<NotOnnx> {
    const MAGIC: [(usize, &[u8], &str); 6] = [
        (0, b"\x1f\x8b", "gzip (unpack it first)"),
        (0, b"\x89HDF", "HDF5, as Keras saves"),
        (4, b"TFL3", "TensorFlow Lite"),
        (4, b"ORTM", "ONNX Runtime's own .ort format"),
        (8, b"{\"", "safetensors: weights without a network"),
        (0, b"GGUF", "GGUF"),
    ];
    if bytes.is_empty() {
        return Some(NotOnnx::Empty);
    }
    if bytes.starts_with(b"version https://git-lfs") {
        return Some(NotOnnx::LfsPointer);
    }
    if bytes.starts_with(b"PK\x03\x04") {
        return Some(NotOnnx::Zip);
    }
    if bytes.len() > 2 && bytes[0] == 0x80 && (2..=5).contains(&bytes[1]) {
        return Some(NotOnnx::Pickle);
    }
    if let Some((_, _, name)) = MAGIC
        .iter()
        .find(|(at, magic, _)| bytes.get(*at..).is_some_and(|rest| rest.starts_with(magic)))
    {
        return Some(NotOnnx::Other(name));
    }
    let start = &bytes[..bytes.len().min(512)];
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        // The 512 bytes may end inside a character.
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&start[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    if text.is_empty() || text.contains(|letter: char| letter.is_control() && !letter.is_whitespace()) {
        return None;
    }
    let text = text.to_ascii_lowercase();
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let is_page = text.starts_with("<!doctype html") || text.starts_with("<html");
    Some(if is_page { NotOnnx::WebPage } else { NotOnnx::Text })
}
