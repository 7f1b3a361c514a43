//! The cut model in half precision: weights, input and arithmetic as f16, where f16 can be had and is right.
//!
//! Every f32 tensor of the graph exists as f16 or as f32, or both where operators of both kinds read it: then a Cast stands
//! between. Which operators stay in f32, and why, is in `operators`. A wrong guess of a type here is no wrong feature: ONNX
//! Runtime checks the types of all operators when it loads the model.

mod operators;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Once, OnceLock};

use ::half::f16;
use ::half::slice::HalfFloatSliceExt;
use bytes::Bytes;
use prost::Message;

use self::operators::{Arithmetic, Result0, arithmetic, result};
use super::LISTS_WEIGHTS_AS_INPUTS;
use super::access::{
    attribute, initializers, input, int, operator, real_inputs, subgraphs, tensor_type, tensor_type_mut,
};
use super::onnx::attribute_proto::AttributeType;
use super::onnx::tensor_proto::DataType;
use super::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};

const FLOAT: i32 = DataType::Float as i32;
const HALF: i32 = DataType::Float16 as i32;

/// A model in half precision.
#[derive(Debug)]
pub(crate) struct HalfModel {
    /// The model, serialised: one input `[batch, 3, height, width]` f16, one output `[batch, dim]` f32.
    pub(crate) onnx: Vec<u8>,
    /// Weights beyond ±65504, the largest of f16, which they became.
    pub(crate) clamped: usize,
    /// The operators that stay in f32.
    pub(crate) kept: BTreeSet<String>,
}

/// A model in half precision that is made when it is first wanted.
#[derive(Debug)]
pub(crate) struct HalfOnce {
    /// The model, or what stands in the way.
    pub(crate) model: OnceLock<Result<HalfModel, String>>,
    /// Whether the user was told how it runs.
    pub(crate) noted: Once,
}

impl Default for HalfOnce {
    fn default() -> Self {
        Self {
            model: OnceLock::new(),
            noted: Once::new(),
        }
    }
}

impl HalfModel {
    /// Converts the serialised `model`, which takes and gives f32.
    ///
    /// Weights are rounded to the nearest f16, and those that are not zero stay so: f16's subnormal numbers are kept, and
    /// what is smaller than the smallest becomes that.
    ///
    /// # Errors
    /// What stands in the way, continuing "its".
    pub(crate) fn of(model: &[u8]) -> Result<Self, String> {
        let mut model = ModelProto::decode(model).map_err(|error| format!("protobuf can't be read: {error}"))?;
        let opset = model
            .opset_import
            .iter()
            .filter(|opset| matches!(opset.domain(), "" | "ai.onnx"))
            .find_map(|opset| opset.version);
        let mut graph = model.graph.take().unwrap_or_default();
        if !graph.sparse_initializer.is_empty() {
            return Err("weights are sparse".to_owned());
        }
        if model.ir_version() < LISTS_WEIGHTS_AS_INPUTS {
            // Else each weight would have to be declared a second time.
            let weights: HashSet<String> = initializers(&graph).into_iter().map(str::to_owned).collect();
            graph.input.retain(|value| !weights.contains(value.name()));
            model.ir_version = Some(LISTS_WEIGHTS_AS_INPUTS);
        }
        let mut conversion = Conversion::begin(&graph, opset.unwrap_or(1));
        conversion.convert(&mut graph);
        let Conversion { clamped, kept, .. } = conversion;
        model.graph = Some(graph);
        Ok(Self {
            onnx: model.encode_to_vec(),
            clamped,
            kept,
        })
    }
}

/// The names under which a tensor that was f32 is computed.
#[derive(Debug, Default, Clone)]
struct Forms {
    half: Option<String>,
    full: Option<String>,
    /// What it is made as, before any Cast.
    made_half: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Half,
    Full,
}

struct Conversion {
    opset: i64,
    /// All names that occur.
    taken: HashSet<String>,
    /// The element types that the file declares.
    declared: HashMap<String, i32>,
    outputs: HashSet<String>,
    /// The f32 weights, by name.
    weights: HashMap<String, TensorProto>,
    /// What was f32, other than weights not read yet.
    forms: HashMap<String, Forms>,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    clamped: usize,
    kept: BTreeSet<String>,
}

impl Conversion {
    fn begin(graph: &GraphProto, opset: i64) -> Self {
        let mut taken = HashSet::new();
        names(graph, &mut taken);
        let declared = graph.value_info.iter().chain(&graph.input).chain(&graph.output);
        Self {
            opset,
            taken,
            declared: declared
                .filter_map(|value| Some((value.name().to_owned(), tensor_type(value)?.elem_type())))
                .collect(),
            outputs: graph.output.iter().map(|value| value.name().to_owned()).collect(),
            weights: HashMap::new(),
            forms: HashMap::new(),
            nodes: Vec::with_capacity(graph.node.len()),
            initializers: Vec::with_capacity(graph.initializer.len()),
            clamped: 0,
            kept: BTreeSet::new(),
        }
    }

    fn convert(&mut self, graph: &mut GraphProto) {
        let inputs: HashSet<String> = real_inputs(graph).map(|value| value.name().to_owned()).collect();
        for value in graph.input.iter_mut().filter(|value| inputs.contains(value.name())) {
            if make_half(value) {
                self.made(value.name(), Form::Half);
            }
        }
        for tensor in std::mem::take(&mut graph.initializer) {
            if tensor.data_type() == FLOAT {
                self.weights.insert(tensor.name().to_owned(), tensor);
            } else {
                self.initializers.push(tensor);
            }
        }
        for node in std::mem::take(&mut graph.node) {
            self.visit(node);
        }
        let outputs: Vec<String> = graph.output.iter().map(|value| value.name().to_owned()).collect();
        for output in &outputs {
            if self.is_float(output) {
                self.form(output, Form::Full);
            }
        }
        graph.node = std::mem::take(&mut self.nodes);
        graph.initializer = std::mem::take(&mut self.initializers);
        let made: HashSet<&str> = graph
            .node
            .iter()
            .flat_map(|node| &node.output)
            .map(String::as_str)
            .collect();
        graph.value_info.retain(|value| made.contains(value.name()));
        for value in &mut graph.value_info {
            if self.forms.get(value.name()).is_some_and(|forms| forms.made_half) && !self.outputs.contains(value.name())
            {
                make_half(value);
            }
        }
    }

    fn is_float(&self, name: &str) -> bool {
        self.forms.contains_key(name) || self.weights.contains_key(name)
    }

    fn visit(&mut self, mut node: NodeProto) {
        if let Some(weight) = constant(&node) {
            self.weights.insert(weight.name().to_owned(), weight);
            return;
        }
        let floats = self.float_outputs(&node);
        let form = self.form_of(&node);
        if operator(&node) == "Cast" && form == Form::Half && floats == [true] {
            for attribute in node.attribute.iter_mut().filter(|attribute| attribute.name() == "to") {
                attribute.i = Some(i64::from(HALF));
            }
        }
        if form == Form::Full && (floats.contains(&true) || node.input.iter().any(|name| self.is_float(name))) {
            self.kept.insert(node.op_type().to_owned());
        }
        for name in &mut node.input {
            if self.is_float(name) {
                *name = self.form(name, form);
            }
        }
        self.retarget_captured(&mut node);
        for (name, is_float) in node.output.iter_mut().zip(floats) {
            if is_float && !name.is_empty() {
                *name = self.made(name, form);
            }
        }
        self.nodes.push(node);
    }

    /// In which precision `node` computes.
    fn form_of(&self, node: &NodeProto) -> Form {
        let is_made_full = |name: &String| {
            !self.weights.contains_key(name) && self.forms.get(name).is_some_and(|forms| !forms.made_half)
        };
        let floats = || node.input.iter().filter(|name| self.is_float(name));
        let half = match arithmetic(operator(node), self.opset) {
            Arithmetic::Full => false,
            Arithmetic::Half => true,
            Arithmetic::AsMade => !floats().any(is_made_full) && floats().next().is_some(),
            Arithmetic::Follows => {
                let stays = |name: &String| is_made_full(name) || self.weights.get(name).is_some_and(is_scalar);
                !(floats().any(is_made_full) && floats().all(stays))
            }
        };
        if half { Form::Half } else { Form::Full }
    }

    /// Which outputs of `node` are f32 in the file.
    fn float_outputs(&self, node: &NodeProto) -> Vec<bool> {
        let of = |index| input(node, index).is_some_and(|name| self.is_float(name));
        let first = match result(operator(node)) {
            Result0::Other => false,
            Result0::Float => true,
            Result0::AsInput(index) => of(index),
            Result0::Attribute(name) => int(node, name).map_or(of(0), |code| code == i64::from(FLOAT)),
            Result0::Value => attribute(node, "value")
                .and_then(|value| value.t.as_ref())
                .is_none_or(|tensor| tensor.data_type() == FLOAT),
        };
        let inner = subgraphs(node).next();
        let outputs = node.output.iter().enumerate();
        outputs
            .map(|(index, name)| match (self.declared.get(name), inner) {
                (Some(&element), _) if element != 0 => element == FLOAT,
                // The first result of a Loop's body says whether it goes on.
                (_, Some(graph)) => {
                    let index = index + usize::from(operator(node) == "Loop");
                    graph.output.get(index).is_some_and(is_float_value)
                }
                _ => first && (index == 0 || operators::all_outputs_alike(operator(node))),
            })
            .collect()
    }

    /// Notes that the tensor `name` is computed in `form`; returns the name under which.
    fn made(&mut self, name: &str, form: Form) -> String {
        let mut forms = Forms {
            made_half: form == Form::Half,
            ..Forms::default()
        };
        let actual = if form == Form::Half && self.outputs.contains(name) {
            // The output's own name is for the f32 that is given back.
            self.unused(&format!("{name}_half"))
        } else {
            name.to_owned()
        };
        match form {
            Form::Half => forms.half = Some(actual.clone()),
            Form::Full => forms.full = Some(actual.clone()),
        }
        self.forms.insert(name.to_owned(), forms);
        actual
    }

    /// The name under which the float tensor `name` can be had in `form`; a Cast or a converted weight is added if need be.
    fn form(&mut self, name: &str, form: Form) -> String {
        let mut forms = self.forms.get(name).cloned().unwrap_or_default();
        let has = match form {
            Form::Half => &forms.half,
            Form::Full => &forms.full,
        };
        if let Some(has) = has {
            return has.clone();
        }
        let to = match form {
            Form::Full if self.weights.contains_key(name) || self.outputs.contains(name) => name.to_owned(),
            Form::Full => self.unused(&format!("{name}_full")),
            Form::Half => self.unused(&format!("{name}_half")),
        };
        if let Some(weight) = self.weights.get(name) {
            let mut weight = weight.clone();
            if form == Form::Half {
                self.clamped += halve(&mut weight);
                weight.name = Some(to.clone());
            }
            self.initializers.push(weight);
        } else {
            let from = forms.half.as_ref().or(forms.full.as_ref());
            let from = from.expect("a float that is no weight was made in some form").clone();
            self.nodes.push(cast(&from, &to, form));
        }
        match form {
            Form::Half => forms.half = Some(to.clone()),
            Form::Full => forms.full = Some(to.clone()),
        }
        self.forms.insert(name.to_owned(), forms);
        to
    }

    /// Gives the graphs inside `node` (`If`, `Loop`, `Scan`), which stay as they are, f32 from outside.
    fn retarget_captured(&mut self, node: &mut NodeProto) {
        let mut inside = HashSet::new();
        subgraphs(node).for_each(|graph| names(graph, &mut inside));
        let mut captured: Vec<String> = inside.into_iter().filter(|name| self.is_float(name)).collect();
        captured.sort();
        let renamed: HashMap<String, String> = captured
            .into_iter()
            .map(|name| {
                let full = self.form(&name, Form::Full);
                (name, full)
            })
            .collect();
        if !renamed.is_empty() {
            rename(node, &renamed);
        }
    }

    fn unused(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut number = 2;
        while !self.taken.insert(name.clone()) {
            name = format!("{wanted}_{number}");
            number += 1;
        }
        name
    }
}

/// All tensor names in `graph` and the graphs inside it.
fn names(graph: &GraphProto, found: &mut HashSet<String>) {
    let values = graph.input.iter().chain(&graph.output).map(ValueInfoProto::name);
    let weights = graph.initializer.iter().map(TensorProto::name);
    found.extend(values.chain(weights).map(str::to_owned));
    for node in &graph.node {
        found.extend(node.input.iter().chain(&node.output).cloned());
        subgraphs(node).for_each(|inner| names(inner, found));
    }
}

/// Renames what the graphs inside `node` read.
fn rename(node: &mut NodeProto, renamed: &HashMap<String, String>) {
    for graph in node
        .attribute
        .iter_mut()
        .flat_map(|attribute| attribute.g.iter_mut().chain(&mut attribute.graphs))
    {
        for inner in &mut graph.node {
            for name in &mut inner.input {
                if let Some(to) = renamed.get(name) {
                    name.clone_from(to);
                }
            }
            rename(inner, renamed);
        }
        for output in &mut graph.output {
            if let Some(to) = renamed.get(output.name()) {
                output.name = Some(to.clone());
            }
        }
    }
}

/// The f32 tensor that a `Constant` node gives, as a weight of that name.
fn constant(node: &NodeProto) -> Option<TensorProto> {
    if operator(node) != "Constant" {
        return None;
    }
    let value = node.attribute.first()?;
    let floats = |dims, values| TensorProto {
        dims,
        data_type: Some(FLOAT),
        float_data: values,
        ..TensorProto::default()
    };
    let tensor = match value.name() {
        "value" => value.t.clone().filter(|tensor| tensor.data_type() == FLOAT)?,
        "value_float" => floats(Vec::new(), vec![value.f()]),
        "value_floats" => floats(vec![i64::try_from(value.floats.len()).ok()?], value.floats.clone()),
        _ => return None,
    };
    Some(TensorProto {
        name: node.output.first().cloned(),
        ..tensor
    })
}

/// Rounds an f32 weight to f16 in place; returns how many of its values were too large.
fn halve(tensor: &mut TensorProto) -> usize {
    let values: Vec<f32> = match tensor.raw_data.take() {
        Some(raw) => raw
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().expect("chunks of 4")))
            .collect(),
        None => std::mem::take(&mut tensor.float_data),
    };
    let mut clamped = 0;
    let mut halves = vec![f16::ZERO; values.len()];
    halves.convert_from_f32_slice(&values);
    for (half, value) in halves.iter_mut().zip(&values) {
        if value.is_finite() && value.abs() > f16::MAX.to_f32() {
            *half = f16::MAX.copysign(*half);
            clamped += 1;
        } else if *value != 0.0 && *half == f16::ZERO {
            *half = f16::MIN_POSITIVE_SUBNORMAL.copysign(*half);
        }
    }
    tensor.data_type = Some(HALF);
    tensor.raw_data = Some(Bytes::from_iter(halves.iter().flat_map(|half| half.to_le_bytes())));
    clamped
}

fn is_scalar(tensor: &TensorProto) -> bool {
    tensor.dims.iter().all(|&length| length == 1)
}

fn is_float_value(value: &ValueInfoProto) -> bool {
    tensor_type(value).is_some_and(|tensor| tensor.elem_type() == FLOAT)
}

/// Declares an f32 tensor to be f16; whether it was one.
fn make_half(value: &mut ValueInfoProto) -> bool {
    let tensor = tensor_type_mut(value).filter(|tensor| tensor.elem_type() == FLOAT);
    tensor.map(|tensor| tensor.elem_type = Some(HALF)).is_some()
}

fn cast(from: &str, to: &str, form: Form) -> NodeProto {
    let code = match form {
        Form::Half => HALF,
        Form::Full => FLOAT,
    };
    NodeProto {
        op_type: Some("Cast".to_owned()),
        name: Some(format!("lastlayer_cast_{to}")),
        input: vec![from.to_owned()],
        output: vec![to.to_owned()],
        attribute: vec![AttributeProto {
            name: Some("to".to_owned()),
            r#type: Some(AttributeType::Int as i32),
            i: Some(i64::from(code)),
            ..AttributeProto::default()
        }],
        ..NodeProto::default()
    }
}
