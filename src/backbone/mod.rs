//! The frozen network: an ONNX file in, `[n, d]` features out.
//!
//! | module | what it does |
//! |---|---|
//! | `model` | a backbone file with its identity |
//! | `graph` | cuts any ONNX classifier at its features |
//! | `session`, `cuda` | runs it, on the CPU or a GPU |
//! | `quantize` | makes 8-bit integers of its weights and tensors |
//! | `optimised` | keeps what ONNX Runtime made of a network for this machine |
//! | `trial` | decides whether a fixed batch could be opened |
//! | `runtime` | finds, fetches and loads the ONNX Runtime library |
//! | `zoo`, `download`, `pip` | backbones by name, and how they and the library come here |
//! | `checkpoint`, `network`, `build` | PyTorch weights to ONNX |

mod build;
mod checkpoint;
mod convert;
mod cuda;
mod download;
mod graph;
mod model;
mod network;
#[rustfmt::skip]
#[expect(unreachable_pub, clippy::doc_markdown, clippy::enum_variant_names, reason = "generated code")]
mod onnx;
mod optimised;
mod pip;
mod providers;
mod quantize;
mod runtime;
mod session;
mod trial;
mod zoo;

pub(crate) use checkpoint::parse_checkpoint;
pub(crate) use convert::{convert_wheel, untrained_resnet18};
pub use cuda::{CudaLibrary, CudaStatus};
pub(crate) use download::Patience;
pub(crate) use graph::HalfModel;
pub use graph::{ExternalDataProblem, FeatureModel, NotOnnx};
pub use model::Backbone;
pub use providers::{check_cuda, registered_providers};
pub use quantize::WeightBits;
pub(crate) use quantize::{Probe, Quantizer};
pub use runtime::{
    Attempt, InstalledRuntime, Located, Place, Runtime, RuntimeOptions, install_cuda_runtime, install_runtime,
};
pub use session::{Device, RunOptions, Session, SessionOptions};
pub(crate) use zoo::Zoo;
pub use zoo::{ZooModel, models};
