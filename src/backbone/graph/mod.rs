//! Any ONNX image classifier becomes a feature extractor, by editing the protobuf.
//!
//! The network is cut where its last layer begins: what a classifier computes just before it multiplies by the class
//! matrix is the feature. Everything that only the classes need is thrown away, a fixed batch is opened, weights that
//! lie in other files are brought in, and what comes out is one self-contained ONNX model `[batch, 3, h, w]` to
//! `[batch, dim]`. The same bytes in give the same bytes out. Running it is `session`'s business, checking the operators
//! ONNX Runtime's.
//!
//! | module | what it does |
//! |---|---|
//! | `file` | bytes to protobuf, and what the file is if it is no ONNX |
//! | `dims`, `infer` | ranks, channels and the batch axis, as far as they are sure |
//! | `cut` | finds the feature tensor |
//! | `edit` | prunes, opens the batch, makes the output |
//! | `fixed` | the cut model with the batch it had, where opening it may be wrong |
//! | `half` | weights and arithmetic as f16 |
//! | `external` | weights in files beside the model |

pub(super) mod access;
mod cut;
mod dims;
mod edit;
mod external;
mod file;
mod fixed;
mod half;
mod infer;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use self::access::{element, real_inputs, tensor_type, tensor_type_mut};
use self::cut::{Cut, Walk};
use self::infer::{Shapes, batch_dim};
use super::onnx;
use super::onnx::tensor_proto::DataType;
use super::onnx::tensor_shape_proto::dimension::Value as DimensionValue;
use super::onnx::{GraphProto, ValueInfoProto};
use crate::error::{Error, Result};

pub(crate) use self::cut::Doubt;
pub use self::external::ExternalDataProblem;
pub use self::file::NotOnnx;
pub(crate) use self::fixed::FixedBatch;
pub(crate) use self::half::{HalfModel, HalfOnce};

/// The height and width that are used where the file leaves them open.
const DEFAULT_SIDE: u32 = 224;
/// Protobuf messages, and so ONNX files, end at 2 GiB.
const LARGEST_PROTOBUF: u64 = i32::MAX as u64;
/// The first IR version in which weights need not be graph inputs as well.
const LISTS_WEIGHTS_AS_INPUTS: i64 = 4;

/// The metadata key that names the feature of a file which was made of a cut graph and has no classifier to find it by.
pub(super) const FEATURE_KEY: &str = "lastlayer.feature";
/// The metadata key that says in which arithmetic a file was written to run.
pub(super) const PRECISION_KEY: &str = "lastlayer.precision";
/// The value of [`PRECISION_KEY`] of a quantised file.
pub(super) const INT8: &str = "int8";

/// A backbone cut at its features, ready for an ONNX runtime.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FeatureModel {
    /// The model, serialised: one input `[batch, 3, height, width]` f32, one output `[batch, dim]` f32.
    ///
    /// Where the file fixed the batch, [`open_session`](Self::open_session) knows whether it could be opened.
    pub onnx: Vec<u8>,
    /// The name of the input.
    pub input: String,
    /// The name of the output, which is the name of the feature tensor in the file.
    pub output: String,
    /// Height and width of the input in pixels; 224 where the file leaves them open.
    pub input_size: (u32, u32),
    /// Features per picture, where the file says it.
    pub dim: Option<usize>,
    /// Whether it was quantised to 8-bit integers by this program.
    pub(crate) is_quantized: bool,
    /// blake3 of the weights that were read from files beside the model; `None` if it holds all of them itself.
    pub(crate) external_weights: Option<blake3::Hash>,
    /// Why `output` may not be the feature that was meant.
    pub(crate) doubt: Option<Doubt>,
    /// What there is to fall back on if the file fixed the batch.
    pub(crate) fixed_batch: Option<Arc<FixedBatch>>,
    /// The same in half precision, once it was wanted.
    pub(crate) half: Arc<HalfOnce>,
}

impl FeatureModel {
    /// Reads the ONNX file `path` and cuts it at its features.
    ///
    /// `feature` names the tensor to take instead of the one found. The tensor found is the input of the last classifier
    /// layer: a Gemm, a MatMul with or without bias, or a 1×1 convolution of a 1×1 map, with a constant matrix, that a
    /// graph output leads back to over nothing but softmax, reshapes, casts, scaling and the like, or a 1×1 convolution
    /// whose map is averaged afterwards. With several outputs the first one that leads to a classifier counts, so
    /// auxiliary heads do no harm. Without a classifier the first float output is the feature. A chosen or final map
    /// `[n, c, h, w]` is averaged over `h` and `w`.
    ///
    /// # Errors
    /// [`Error::Io`] if the file can't be read, [`Error::NotOnnx`] if it is something else, [`Error::ModelInput`] if it
    /// takes no RGB pictures, [`Error::UnknownTensor`] for a `feature` it does not have, [`Error::ExternalData`] if weights
    /// beside it are missing, [`Error::Model`] if it can't be cut.
    pub fn load(path: &Path, feature: Option<&str>) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        Self::from_bytes(Bytes::from(bytes), path, feature)
    }

    /// As [`load`](Self::load), from the file's bytes; `path` is where they come from.
    pub(crate) fn from_bytes(bytes: Bytes, path: &Path, feature: Option<&str>) -> Result<Self> {
        let mut model = file::parse(&bytes, path)?;
        let refuse = |refusal: Refusal| refusal.of(path);
        let ir_version = model.ir_version();
        let stated = metadata(&model, FEATURE_KEY);
        let is_quantized = metadata(&model, PRECISION_KEY).as_deref() == Some(INT8);
        let graph = model.graph.as_mut().ok_or(Error::NotOnnx {
            path: path.to_path_buf(),
            source: NotOnnx::NoGraph,
        })?;
        let cut = {
            let shapes = Shapes::of(graph);
            let walk = Walk::new(graph, &model.functions, &shapes);
            match feature {
                None => match stated.and_then(|feature| walk.named(&feature)) {
                    Some(cut) => cut,
                    None => walk.find().map_err(refuse)?,
                },
                Some(feature) => walk.named(feature).ok_or_else(|| Error::UnknownTensor {
                    path: path.to_path_buf(),
                    tensor: feature.to_owned(),
                    candidates: walk.candidates(Some(feature)),
                })?,
            }
        };
        edit::prune(graph, &cut.tensor, ir_version);
        let (input, input_size) = image_input(graph).map_err(|found| Error::ModelInput {
            path: path.to_path_buf(),
            found,
        })?;
        let external_weights = external::inline(graph, path)?;
        // How to train the network is written in terms of tensors that are gone.
        model.training_info.clear();
        let batch = real_inputs(graph).find_map(batch_dim).cloned();
        let (dim, fixed_batch) = match batch {
            Some(DimensionValue::DimValue(batch)) => {
                let (dim, fixed) = FixedBatch::split(&mut model, &input, &cut, batch).map_err(refuse)?;
                (dim, Some(Arc::new(fixed)))
            }
            _ => (complete(graph, &input, &cut, ir_version, None).map_err(refuse)?, None),
        };
        if model.encoded_len() as u64 > LARGEST_PROTOBUF {
            let problem = "its feature part is larger than the 2 GiB that one ONNX file can hold".to_owned();
            return Err(refuse(Refusal {
                problem,
                hint: "take a smaller backbone".into(),
            }));
        }
        Ok(Self {
            onnx: model.encode_to_vec(),
            input,
            output: cut.tensor,
            input_size,
            dim,
            is_quantized,
            external_weights,
            doubt: cut.doubt,
            fixed_batch,
            half: Arc::default(),
        })
    }
}

/// What the file says of itself under `key`.
fn metadata(model: &onnx::ModelProto, key: &str) -> Option<String> {
    let entry = model.metadata_props.iter().find(|entry| entry.key() == key);
    entry.map(|entry| entry.value().to_owned())
}

/// Opens the batch of a pruned graph, or leaves it at `batch`, and makes the features its output; returns their length.
fn complete(
    graph: &mut GraphProto,
    input: &str,
    cut: &Cut,
    ir_version: i64,
    batch: Option<i64>,
) -> Result<Option<usize>, Refusal> {
    let shapes = if batch.is_some() {
        Shapes::of(graph)
    } else {
        edit::open_batch(graph, ir_version)?
    };
    describe_input(graph, input, batch.is_none());
    let dim = edit::finish(graph, cut, &shapes, batch)?;
    // Drops the shapes that rewritten nodes read before.
    let output = std::mem::take(&mut graph.output);
    edit::prune(graph, &cut.tensor, ir_version);
    graph.output = output;
    Ok(dim)
}

/// Why a readable model can't become a feature extractor.
#[derive(Debug)]
struct Refusal {
    problem: String,
    hint: String,
}

impl Refusal {
    fn fixed_batch(problem: &str) -> Self {
        Self {
            problem: problem.to_owned(),
            hint: "export the model again with a dynamic batch axis".into(),
        }
    }

    fn of(self, path: &Path) -> Error {
        Error::Model {
            path: path.to_path_buf(),
            problem: self.problem,
            hint: self.hint,
        }
    }
}

/// The name and the height and width of the one picture input; `Err` describes what is there instead.
fn image_input(graph: &GraphProto) -> Result<(String, (u32, u32)), String> {
    let inputs: Vec<&ValueInfoProto> = real_inputs(graph).collect();
    let [value] = inputs.as_slice() else {
        let names: Vec<String> = inputs.iter().map(|value| describe(value)).collect();
        return Err(match names.len() {
            0 => "its features depend on no input".to_owned(),
            count => format!("its features depend on {count} inputs: {}", names.join(", ")),
        });
    };
    let refuse = || Err(format!("its input is {}", describe(value)));
    let Some(tensor) = tensor_type(value) else {
        return refuse();
    };
    let Some(shape) = tensor.shape.as_ref() else {
        return refuse();
    };
    let [_, channels, height, width] = shape.dim.as_slice() else {
        return refuse();
    };
    let fixed = |dim: &onnx::tensor_shape_proto::Dimension| match dim.value {
        Some(DimensionValue::DimValue(length)) if length > 0 => Some(length),
        _ => None,
    };
    // Open channels are believed to be three, unless three stand where channels-last would have them.
    let is_rgb = fixed(channels).map_or(fixed(width) != Some(3), |channels| channels == 3);
    if element(tensor.elem_type()) != Some(DataType::Float) || !is_rgb {
        return refuse();
    }
    let side = |dim| fixed(dim).map_or(Some(DEFAULT_SIDE), |length| u32::try_from(length).ok());
    let (Some(height), Some(width)) = (side(height), side(width)) else {
        return refuse();
    };
    Ok((value.name().to_owned(), (height, width)))
}

/// A tensor as people write it: `name` f32 `[batch, 3, 224, 224]`.
fn describe(value: &ValueInfoProto) -> String {
    let Some(tensor) = tensor_type(value) else {
        return format!("`{}`, no tensor", value.name());
    };
    let element = element(tensor.elem_type())
        .map_or("UNKNOWN", |element| element.as_str_name())
        .to_lowercase();
    let dim = |dim: &onnx::tensor_shape_proto::Dimension| match &dim.value {
        Some(DimensionValue::DimValue(length)) => length.to_string(),
        Some(DimensionValue::DimParam(name)) if !name.is_empty() => name.clone(),
        _ => "?".to_owned(),
    };
    let shape = tensor.shape.as_ref().map_or("of no stated shape".to_owned(), |shape| {
        format!("[{}]", shape.dim.iter().map(dim).collect::<Vec<_>>().join(", "))
    });
    format!("`{}` {element} {shape}", value.name())
}

/// Writes `[batch, 3, height, width]` where the file is vague; an open axis keeps the file's name for it, and a fixed
/// batch stays unless it is `opened`.
fn describe_input(graph: &mut GraphProto, input: &str, opened: bool) {
    let Some(value) = graph.input.iter_mut().find(|value| value.name() == input) else {
        return;
    };
    let keeps_batch =
        !opened || matches!(batch_dim(value), Some(DimensionValue::DimParam(symbol)) if !symbol.is_empty());
    let Some(shape) = tensor_type_mut(value).and_then(|tensor| tensor.shape.as_mut()) else {
        return;
    };
    for (axis, dim) in shape.dim.iter_mut().enumerate() {
        let vague = matches!(dim.value, None | Some(DimensionValue::DimValue(..=0)));
        match axis {
            0 if !keeps_batch => dim.value = Some(DimensionValue::DimParam("batch".to_owned())),
            1 => dim.value = Some(DimensionValue::DimValue(3)),
            2 if vague => dim.value = Some(DimensionValue::DimParam("height".to_owned())),
            3 if vague => dim.value = Some(DimensionValue::DimParam("width".to_owned())),
            _ => {}
        }
    }
}
