//! A backbone in 8-bit integers: the float graph, what was seen in it, and what is written of both.
//!
//! [`Quantizer::new`] brings a cut feature graph into the form that is quantised and decides which tensors become
//! integers; [`Probe`] runs it on pictures and keeps [`Statistics`] of those tensors; [`Quantizer::write`] makes the QDQ
//! model of them. QDQ (`QuantizeLinear` and `DequantizeLinear` around operators that stay as they are) is what ONNX Runtime
//! turns into its integer kernels on every CPU, and what other runtimes read too. Which pictures are shown, and whether the
//! result is good enough, is decided elsewhere.
//!
//! It is the *cut* graph that is quantised, not the file: its batch is open, its weights are in it, its one output is the
//! feature. That name, kept in the model's metadata, is how the file opens as any other backbone does.
//!
//! | module | what it does |
//! |---|---|
//! | `prepare` | operator set 13, normalisations folded into convolutions |
//! | `plan` | which tensors become integers |
//! | `statistics`, `probe` | what values they take |
//! | `weights` | integer weights and corrected biases |
//! | `rewrite` | writes the QDQ graph |

mod plan;
mod prepare;
mod probe;
mod rewrite;
mod statistics;
#[cfg(test)]
mod tests;
mod weights;

use prost::Message;

use self::plan::Plan;
use super::graph::{FEATURE_KEY, INT8, PRECISION_KEY, access};
use super::onnx;
use super::onnx::{ModelProto, StringStringEntryProto};

pub(crate) use self::probe::Probe;
pub(crate) use self::statistics::Statistics;

/// The metadata key under which a quantised backbone says how it was made, in JSON.
const RECIPE_KEY: &str = "lastlayer.quantization";
/// How many bits of the weights' eight are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(into = "u8")]
pub enum WeightBits {
    /// Values in ±127.
    Eight,
    /// Values in ±63: x86 processors without VNNI add two products of 8 bits in 16, which holds them and no more.
    Seven,
}

impl From<WeightBits> for u8 {
    fn from(bits: WeightBits) -> Self {
        match bits {
            WeightBits::Eight => 8,
            WeightBits::Seven => 7,
        }
    }
}

impl WeightBits {
    /// What this computer's processor computes rightly with.
    #[must_use]
    pub fn of_this_cpu() -> Self {
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        if !is_x86_feature_detected!("avx512vnni") && !is_x86_feature_detected!("avxvnni") {
            return Self::Seven;
        }
        Self::Eight
    }

    /// The largest weight; the smallest is its negative.
    fn largest(self) -> i8 {
        match self {
            Self::Eight => 127,
            Self::Seven => 63,
        }
    }
}

/// Why a graph can't be quantised.
#[derive(Debug)]
pub(crate) struct Unfit {
    pub(crate) problem: String,
    pub(crate) hint: String,
}

/// A float graph that can be quantised.
pub(crate) struct Quantizer {
    model: ModelProto,
    input: String,
    feature: String,
    plan: Plan,
}

impl Quantizer {
    /// Takes the serialised graph `onnx` with the input `input` and the output `feature`.
    ///
    /// # Errors
    /// If it is quantised already, has nothing to quantise, or is written in an operator set that can't be raised.
    pub(crate) fn new(onnx: &[u8], input: &str, feature: &str) -> Result<Self, Unfit> {
        let mut model = ModelProto::decode(bytes::Bytes::copy_from_slice(onnx)).map_err(|error| Unfit {
            problem: error.to_string(),
            hint: String::new(),
        })?;
        prepare::prepare(&mut model, feature)?;
        let graph = model.graph.as_ref().expect("a prepared model has a graph");
        let plan = Plan::of(graph, input, feature);
        if plan.weighted.is_empty() {
            return Err(Unfit {
                problem: "it has no convolution or matrix product of 32-bit floats".to_owned(),
                hint: "take a backbone in fp32".to_owned(),
            });
        }
        Ok(Self {
            model,
            input: input.to_owned(),
            feature: feature.to_owned(),
            plan,
        })
    }

    /// The graph with every tensor whose values matter as an output.
    fn observed_model(&self) -> Vec<u8> {
        let mut model = self.model.clone();
        if let Some(graph) = model.graph.as_mut() {
            let declared: std::collections::HashSet<String> =
                graph.output.iter().map(|output| output.name().to_owned()).collect();
            let outputs = self.plan.observed.iter();
            let outputs = outputs.filter(|name| !declared.contains(*name) && **name != self.input);
            graph.output.extend(outputs.map(|name| untyped(name)));
        }
        model.encode_to_vec()
    }

    /// The quantised model, serialised: the same statistics give the same bytes.
    ///
    /// `recipe`: how it was made, in JSON, for whoever finds the file.
    ///
    /// # Errors
    /// Why a tensor has no range: it had one value only, or values that are not finite.
    pub(crate) fn write(&self, statistics: &Statistics, bits: WeightBits, recipe: String) -> Result<Vec<u8>, String> {
        let mut model = self.model.clone();
        let graph = model.graph.take().expect("a prepared model has a graph");
        model.graph = Some(rewrite::rewrite(graph, &self.plan, statistics, bits)?);
        let entries = [
            (PRECISION_KEY, INT8.to_owned()),
            (FEATURE_KEY, self.feature.clone()),
            (RECIPE_KEY, recipe),
        ];
        model
            .metadata_props
            .retain(|entry| entries.iter().all(|(key, _)| *key != entry.key()));
        model
            .metadata_props
            .extend(entries.into_iter().map(|(key, value)| StringStringEntryProto {
                key: Some(key.to_owned()),
                value: Some(value),
            }));
        Ok(model.encode_to_vec())
    }
}

/// A float output whose shape the runtime works out.
fn untyped(name: &str) -> onnx::ValueInfoProto {
    let mut value = access::value_info(name, onnx::tensor_proto::DataType::Float, Vec::new());
    if let Some(tensor) = access::tensor_type_mut(&mut value) {
        tensor.shape = None;
    }
    value
}
