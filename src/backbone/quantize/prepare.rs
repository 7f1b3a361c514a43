//! The form in which a graph is quantised: operator set 13 or later, and no normalisation after a convolution.
//!
//! `DequantizeLinear` has a scale per channel since operator set 13. Raising the set of a cut feature graph needs few
//! changes, as most operators of classifiers mean the same since set 7; what does not is refused.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::Unfit;
use super::access::{attribute, input, int, ints, operator, unused_name};
use super::onnx::tensor_proto::DataType;
use super::onnx::{GraphProto, ModelProto, NodeProto, TensorProto};
use super::weights::{floats, tensor_of_floats};

/// The first operator set with a scale per channel.
const OPSET: i64 = 13;
/// The IR version that came with it.
const IR_VERSION: i64 = 7;
/// The first operator set in which operators mean what the list below takes them to mean.
const OLDEST_OPSET: i64 = 7;

/// Operators whose nodes of set 7 can stand in a graph of set 13 as they are.
const UNCHANGED: [&str; 29] = [
    "Add",
    "AveragePool",
    "Cast",
    "Concat",
    "Constant",
    "Conv",
    "Div",
    "Elu",
    "Exp",
    "Flatten",
    "Gather",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Identity",
    "LRN",
    "LeakyRelu",
    "MatMul",
    "MaxPool",
    "Mul",
    "PRelu",
    "Relu",
    "Reshape",
    "Shape",
    "Sigmoid",
    "Sub",
    "Sum",
    "Tanh",
    "Transpose",
];

/// Brings `model` into that form without changing what it computes at `feature`.
///
/// # Errors
/// If it is quantised already or can't be brought there.
pub(super) fn prepare(model: &mut ModelProto, feature: &str) -> Result<(), Unfit> {
    let opset = model
        .opset_import
        .iter()
        .find(|opset| matches!(opset.domain(), "" | "ai.onnx"))
        .map_or(1, super::onnx::OperatorSetIdProto::version);
    let ir_version = model.ir_version();
    let graph = model.graph.get_or_insert_default();
    if let Some(node) = graph.node.iter().find(|node| is_quantized(node)) {
        return Err(Unfit {
            problem: format!("it is quantised already (it has {} nodes)", node.op_type()),
            hint: "use it as it is, or quantise the fp32 backbone it was made of".to_owned(),
        });
    }
    // A weight that could be fed is never folded, and since IR version 4 none need be listed.
    let weights: HashSet<String> = graph
        .initializer
        .iter()
        .map(|tensor| tensor.name().to_owned())
        .collect();
    graph.input.retain(|value| !weights.contains(value.name()));
    if opset < OPSET {
        raise(graph, opset)?;
        model
            .opset_import
            .retain(|opset| !matches!(opset.domain(), "" | "ai.onnx"));
        model.opset_import.push(super::onnx::OperatorSetIdProto {
            domain: Some(String::new()),
            version: Some(OPSET),
        });
        model.ir_version = Some(ir_version.max(IR_VERSION));
    }
    constants_as_weights(graph);
    skip_copies(graph, feature);
    fold_normalisations(graph);
    drop_unread(graph);
    Ok(())
}

fn is_quantized(node: &NodeProto) -> bool {
    let operator = node.op_type();
    operator.starts_with("QLinear")
        || matches!(
            operator,
            "QuantizeLinear" | "DequantizeLinear" | "DynamicQuantizeLinear" | "ConvInteger" | "MatMulInteger"
        )
}

/// Rewrites nodes of the operator set `opset` as nodes of set 13.
fn raise(graph: &mut GraphProto, opset: i64) -> Result<(), Unfit> {
    for index in 0..graph.node.len() {
        let node = &graph.node[index];
        match operator(node) {
            _ if opset < OLDEST_OPSET => return Err(too_old(opset, node)),
            // Attributes until set 10, inputs since 11.
            "Clip" if opset < 11 => clip_bounds_as_inputs(graph, index),
            // Inference alone: set 12 made the share an input.
            "Dropout" => {
                let node = &mut graph.node[index];
                node.op_type = Some("Identity".to_owned());
                node.attribute.clear();
                node.input.truncate(1);
                node.output.truncate(1);
            }
            "Clip" => {}
            // Set 7's word for what is the only meaning since set 9.
            "BatchNormalization" => {
                let node = &mut graph.node[index];
                node.attribute.retain(|attribute| attribute.name() != "spatial");
            }
            "Squeeze" | "Unsqueeze" if ints(node, "axes").is_some() => axes_as_input(graph, index),
            known if UNCHANGED.contains(&known) => {}
            _ => return Err(too_old(opset, node)),
        }
    }
    Ok(())
}

fn too_old(opset: i64, node: &NodeProto) -> Unfit {
    Unfit {
        problem: format!(
            "it is written in operator set {opset}, whose {} is not known to mean the same in set {OPSET}",
            node.op_type()
        ),
        hint: format!("export it again for operator set {OPSET} or later, or raise it with onnx.version_converter"),
    }
}

fn clip_bounds_as_inputs(graph: &mut GraphProto, index: usize) {
    for (place, name) in [(1, "min"), (2, "max")] {
        let Some(bound) = attribute(&graph.node[index], name).and_then(|attribute| attribute.f) else {
            continue;
        };
        let tensor = unused_name(graph, &format!("{}_{name}", graph.node[index].output[0]));
        graph.initializer.push(tensor_of_floats(&tensor, &[], &[bound]));
        let node = &mut graph.node[index];
        node.input.resize(node.input.len().max(place + 1), String::new());
        node.input[place] = tensor;
    }
    graph.node[index].attribute.clear();
}

fn axes_as_input(graph: &mut GraphProto, index: usize) {
    let axes = ints(&graph.node[index], "axes").unwrap_or_default().to_vec();
    let name = unused_name(graph, &format!("{}_axes", graph.node[index].output[0]));
    graph.initializer.push(TensorProto {
        dims: vec![i64::try_from(axes.len()).expect("a tensor has few axes")],
        data_type: Some(DataType::Int64 as i32),
        raw_data: Some(Bytes::from_iter(axes.iter().flat_map(|axis| axis.to_le_bytes()))),
        name: Some(name.clone()),
        ..TensorProto::default()
    });
    let node = &mut graph.node[index];
    node.attribute.clear();
    node.input.push(name);
}

/// Makes weights of `Constant` nodes that hold a tensor.
fn constants_as_weights(graph: &mut GraphProto) {
    let mut constants = Vec::new();
    graph.node.retain_mut(|node| {
        let value = match operator(node) {
            "Constant" => node.attribute.iter_mut().find(|attribute| attribute.name() == "value"),
            _ => None,
        };
        let Some(tensor) = value.and_then(|value| value.t.take()) else {
            return true;
        };
        constants.push(TensorProto {
            name: Some(node.output[0].clone()),
            ..tensor
        });
        false
    });
    graph.initializer.extend(constants);
}

/// Takes out `Identity` nodes: what stands behind them reads what stands before them.
fn skip_copies(graph: &mut GraphProto, feature: &str) {
    let mut source: HashMap<String, String> = HashMap::new();
    let subgraphs_read = graph
        .node
        .iter()
        .any(|node| super::access::subgraphs(node).next().is_some());
    // Names in subgraphs are not rewritten.
    if subgraphs_read {
        return;
    }
    graph.node.retain_mut(|node| {
        for name in &mut node.input {
            if let Some(before) = source.get(name) {
                name.clone_from(before);
            }
        }
        let is_copy = operator(node) == "Identity" && node.output[0] != feature;
        if is_copy {
            source.insert(node.output[0].clone(), node.input[0].clone());
        }
        !is_copy
    });
}

/// Multiplies batch normalisations into the convolutions they follow: `w' = w·γ/√(σ²+ε)`, `b' = (b−μ)·γ/√(σ²+ε)+β`
/// (Ioffe and Szegedy 2015, with the statistics of inference), in f64.
fn fold_normalisations(graph: &mut GraphProto) {
    let mut readers: HashMap<String, usize> = HashMap::new();
    for name in graph.node.iter().flat_map(|node| &node.input) {
        *readers.entry(name.clone()).or_default() += 1;
    }
    for output in &graph.output {
        *readers.entry(output.name().to_owned()).or_default() += 1;
    }
    let producers: HashMap<String, usize> = graph
        .node
        .iter()
        .enumerate()
        .filter(|(_, node)| operator(node) == "Conv")
        .map(|(index, node)| (node.output[0].clone(), index))
        .collect();
    let mut gone = HashSet::new();
    for index in 0..graph.node.len() {
        let node = &graph.node[index];
        if operator(node) != "BatchNormalization" || int(node, "training_mode").unwrap_or(0) != 0 {
            continue;
        }
        let Some(&convolution) = producers.get(&node.input[0]) else {
            continue;
        };
        if readers.get(&node.input[0]) != Some(&1) {
            continue;
        }
        let Some((weight, bias)) = folded(graph, convolution, index) else {
            continue;
        };
        let output = graph.node[index].output[0].clone();
        let weight_name = unused_name(graph, &format!("{output}_weight"));
        let bias_name = unused_name(graph, &format!("{output}_bias"));
        let dims = vec![weight.dims[0]];
        graph.initializer.push(TensorProto {
            name: Some(weight_name.clone()),
            ..weight
        });
        graph.initializer.push(tensor_of_floats(&bias_name, &dims, &bias));
        let node = &mut graph.node[convolution];
        node.input.truncate(1);
        node.input.extend([weight_name, bias_name]);
        node.output[0] = output;
        gone.insert(index);
    }
    let mut index = 0;
    graph.node.retain(|_| {
        index += 1;
        !gone.contains(&(index - 1))
    });
}

/// The weight and bias of the node `convolution` with the normalisation in them; `None` where they are not all known.
fn folded(graph: &GraphProto, convolution: usize, normalisation: usize) -> Option<(TensorProto, Vec<f32>)> {
    let tensor = |name: &str| graph.initializer.iter().find(|tensor| tensor.name() == name);
    let (convolution, normalisation) = (&graph.node[convolution], &graph.node[normalisation]);
    let weight = tensor(input(convolution, 1)?)?;
    let mut values = floats(weight)?;
    let channels = usize::try_from(*weight.dims.first()?).ok()?;
    let parameter =
        |index: usize| floats(tensor(input(normalisation, index)?)?).filter(|values| values.len() == channels);
    let (scale, shift) = (parameter(1)?, parameter(2)?);
    let (mean, variance) = (parameter(3)?, parameter(4)?);
    let bias = match input(convolution, 2) {
        Some(name) => floats(tensor(name)?).filter(|values| values.len() == channels)?,
        None => vec![0.0; channels],
    };
    let epsilon = f64::from(
        attribute(normalisation, "epsilon")
            .and_then(|epsilon| epsilon.f)
            .unwrap_or(1e-5),
    );
    let per_channel = values.len().checked_div(channels)?;
    let mut new_bias = Vec::with_capacity(channels);
    for channel in 0..channels {
        let factor = f64::from(scale[channel]) / (f64::from(variance[channel]) + epsilon).sqrt();
        for value in &mut values[channel * per_channel..][..per_channel] {
            *value = (f64::from(*value) * factor) as f32;
        }
        let centred = f64::from(bias[channel]) - f64::from(mean[channel]);
        new_bias.push((centred * factor + f64::from(shift[channel])) as f32);
    }
    Some((tensor_of_floats("", &weight.dims, &values), new_bias))
}

/// Drops weights that no node reads any more.
pub(super) fn drop_unread(graph: &mut GraphProto) {
    fn read_in(graph: &GraphProto, names: &mut HashSet<String>) {
        for node in &graph.node {
            names.extend(node.input.iter().cloned());
            super::access::subgraphs(node).for_each(|inner| read_in(inner, names));
        }
        names.extend(graph.output.iter().map(|output| output.name().to_owned()));
    }
    let mut read = HashSet::new();
    read_in(graph, &mut read);
    graph.initializer.retain(|tensor| read.contains(tensor.name()));
    let written: HashSet<&str> = graph
        .node
        .iter()
        .flat_map(|node| node.output.iter().map(String::as_str))
        .collect();
    graph.value_info.retain(|value| written.contains(value.name()));
}
