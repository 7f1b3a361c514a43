//! The frozen network: an ONNX file in, `[n, d]` features out.

pub(crate) mod download;
#[rustfmt::skip]
#[expect(unreachable_pub, clippy::doc_markdown, reason = "generated code")]
pub(crate) mod onnx;
pub(crate) mod pip;
pub(crate) mod runtime;
pub(crate) mod session;
pub(crate) mod zoo;
