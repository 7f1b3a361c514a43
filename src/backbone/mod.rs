//! The frozen network: an ONNX file in, `[n, d]` features out.

mod graph;
#[rustfmt::skip]
#[expect(unreachable_pub, clippy::doc_markdown, reason = "generated code")]
pub(crate) mod onnx;

pub use graph::{ExternalDataProblem, FeatureModel, NotOnnx};
