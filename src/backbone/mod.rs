//! The frozen network: an ONNX file in, `[n, d]` features out.

#[rustfmt::skip]
#[expect(unreachable_pub, clippy::doc_markdown, clippy::enum_variant_names, reason = "generated code")]
pub(crate) mod onnx;

pub(crate) mod build;
#[cfg_attr(not(test), expect(dead_code, reason = "the zoo is to use it"))]
pub(crate) mod checkpoint;
#[cfg_attr(not(test), expect(dead_code, unused_imports, reason = "the zoo is to use it"))]
pub(crate) mod network;
