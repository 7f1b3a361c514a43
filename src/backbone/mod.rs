//! The frozen network: an ONNX file in, `[n, d]` features out.

#[rustfmt::skip]
#[expect(unreachable_pub, clippy::doc_markdown, reason = "generated code")]
pub(crate) mod onnx;

pub(crate) mod build;
pub(crate) mod checkpoint;
pub(crate) mod network;
