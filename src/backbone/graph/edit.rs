//! The edits: dead parts out, the batch opened, the features made `[batch, dim]` f32.

use std::collections::HashSet;

use bytes::Bytes;

use super::access::{input, int, operator, real_inputs, subgraphs, tensor_type_mut, unused_name, value_info};
use super::cut::{Cut, is_float, per_picture};
use super::dims::Dim;
use super::infer::{Shapes, batch_dim};
use super::onnx;
use super::onnx::attribute_proto::AttributeType;
use super::onnx::tensor_proto::DataType;
use super::onnx::tensor_shape_proto::dimension::Value as DimensionValue;
use super::onnx::{AttributeProto, GraphProto, NodeProto, TensorProto};
use super::{LISTS_WEIGHTS_AS_INPUTS, Refusal};

/// Keeps of `graph` what `feature` is made of, in the order it was.
pub(super) fn prune(graph: &mut GraphProto, feature: &str, ir_version: i64) {
    let needed = {
        let producers: std::collections::HashMap<&str, usize> = graph
            .node
            .iter()
            .enumerate()
            .flat_map(|(index, node)| node.output.iter().map(move |name| (name.as_str(), index)))
            .filter(|(name, _)| !name.is_empty())
            .collect();
        let mut nodes = vec![false; graph.node.len()];
        let mut names: HashSet<String> = HashSet::from([feature.to_owned()]);
        let mut open = vec![feature];
        while let Some(name) = open.pop() {
            let Some(&index) = producers.get(name).filter(|&&index| !nodes[index]) else {
                continue;
            };
            nodes[index] = true;
            let mut read = Vec::new();
            names_read(&graph.node[index], &mut read);
            names.extend(read.iter().map(|&name| name.to_owned()));
            names.extend(graph.node[index].output.iter().cloned());
            open.extend(read);
        }
        let mut kept = nodes.into_iter();
        graph.node.retain(|_| kept.next().unwrap_or(false));
        names
    };
    let inputs: HashSet<String> = real_inputs(graph).map(|value| value.name().to_owned()).collect();
    graph.initializer.retain(|tensor| needed.contains(tensor.name()));
    graph.sparse_initializer.retain(|tensor| {
        tensor
            .values
            .as_ref()
            .is_some_and(|values| needed.contains(values.name()))
    });
    graph.value_info.retain(|value| needed.contains(value.name()));
    graph
        .quantization_annotation
        .retain(|annotation| needed.contains(annotation.tensor_name()));
    // A weight that is an input too could be fed, and is then never folded: keep that only where the version demands it.
    graph.input.retain(|value| {
        needed.contains(value.name()) && (ir_version < LISTS_WEIGHTS_AS_INPUTS || inputs.contains(value.name()))
    });
    graph.output.clear();
}

/// All tensors that `node` reads, also from inside its subgraphs.
fn names_read<'a>(node: &'a NodeProto, names: &mut Vec<&'a str>) {
    names.extend(node.input.iter().map(String::as_str).filter(|name| !name.is_empty()));
    for graph in subgraphs(node) {
        graph.node.iter().for_each(|inner| names_read(inner, names));
        names.extend(graph.output.iter().map(onnx::ValueInfoProto::name));
    }
}

/// Makes the first axis of the one input the batch, and rewrites what was fixed to the old one.
///
/// In a file with a fixed batch `b`, a `Reshape` to a constant shape that begins with `b` gets a new constant:
/// `0` (the length it had before) where the reshaped tensor begins with the batch, `-1` (whatever is left) where that is
/// not sure. Nothing else is rewritten; a graph that provably keeps a fixed first axis is refused by [`finish`]. Whether
/// the opened graph computes what the fixed one did is not proved here but tried, by `trial`.
///
/// # Errors
/// If such a `Reshape` can be written neither way.
pub(super) fn open_batch(graph: &mut GraphProto, ir_version: i64) -> Result<Shapes, Refusal> {
    let fixed = match real_inputs(graph).find_map(batch_dim) {
        Some(DimensionValue::DimValue(batch)) => Some(*batch),
        _ => None,
    };
    let mut shapes = Shapes::begin(graph);
    for index in 0..graph.node.len() {
        if let Some(batch) = fixed
            && let Some(shape) = reopened(&graph.node[index], &shapes, batch)?
        {
            let name = unused_name(graph, &format!("{}_batch", graph.node[index].input[1]));
            let length = i64::try_from(shape.len()).expect("at most 64 values");
            if ir_version < LISTS_WEIGHTS_AS_INPUTS {
                let dims = vec![Some(DimensionValue::DimValue(length))];
                graph.input.push(value_info(&name, DataType::Int64, dims));
            }
            graph.initializer.push(TensorProto {
                dims: vec![length],
                data_type: Some(DataType::Int64 as i32),
                raw_data: Some(Bytes::from_iter(shape.iter().flat_map(|value| value.to_le_bytes()))),
                name: Some(name.clone()),
                ..TensorProto::default()
            });
            let node = &mut graph.node[index];
            node.attribute.retain(|attribute| attribute.name() != "allowzero");
            node.input[1].clone_from(&name);
            shapes.add_ints(&name, shape);
        }
        shapes.visit(&graph.node[index]);
    }
    if fixed.is_some() {
        // The shapes in the file hold for the old batch only; the runtime infers them anew.
        for tensor in graph.value_info.iter_mut().filter_map(tensor_type_mut) {
            tensor.shape = None;
        }
    }
    Ok(shapes)
}

/// The shape that `node` should reshape to instead, if it is a `Reshape` to a constant shape that begins with `batch`.
fn reopened(node: &NodeProto, shapes: &Shapes, batch: i64) -> Result<Option<Vec<i64>>, Refusal> {
    let shape = input(node, 1).and_then(|name| shapes.get(name)?.ints.clone());
    // A constant, such as a bias that is made to fit a map, has no batch to begin with.
    let is_constant = input(node, 0)
        .and_then(|name| shapes.get(name))
        .is_some_and(|tensor| tensor.constant);
    let Some(mut shape) = shape
        .filter(|_| !is_constant)
        .filter(|shape| operator(node) == "Reshape" && shape.first() == Some(&batch))
    else {
        return Ok(None);
    };
    let literal_zero = int(node, "allowzero").unwrap_or(0) != 0 && shape.contains(&0);
    let first = input(node, 0).and_then(|name| shapes.shape(name)?.first());
    let is_batch = first == Some(&Dim::Batch);
    let has_open = shape.contains(&-1);
    shape[0] = match (is_batch && !literal_zero, has_open) {
        (true, _) => 0,
        (false, false) => -1,
        (false, true) if matches!(first, None | Some(Dim::Unknown)) && !literal_zero => 0,
        (false, true) => {
            return Err(Refusal::fixed_batch(&format!(
                "the Reshape that makes `{}` is bound to a batch of {batch}",
                node.output.first().map_or("", String::as_str)
            )));
        }
    };
    Ok(Some(shape))
}

/// Makes `cut` the one output, `[batch, dim]` f32, and returns `dim`.
///
/// `[n, d]` is taken as it is; `[n, .., d, ..]` with ones around `d` is flattened; any other `[n, c, h, w]` is averaged
/// over the map and flattened, as ResNets do it; a tensor of unknown rank is flattened. Other float types are cast.
/// The output always has the name of the tensor that was cut at: if something is appended, that tensor is renamed.
///
/// `batch`: the fixed batch, if it was left as it is.
///
/// # Errors
/// If no `[batch, dim]` of floats can be made of it, or its first axis is not the batch.
pub(super) fn finish(
    graph: &mut GraphProto,
    cut: &Cut,
    shapes: &Shapes,
    batch: Option<i64>,
) -> Result<Option<usize>, Refusal> {
    let tensor = shapes.get(&cut.tensor).cloned().unwrap_or_default();
    let shape = tensor.shape.as_deref();
    let refuse = |what: String| Refusal {
        problem: format!("`{}` {what}", cut.tensor),
        hint: "name a tensor [batch, dim], [batch, dim, 1, 1] or a map [batch, channels, height, width]".into(),
    };
    if let Some(element) = tensor.element.filter(|&element| !is_float(element)) {
        return Err(refuse(format!(
            "has elements of type {} and features are floats",
            element.as_str_name()
        )));
    }
    if tensor.constant {
        return Err(refuse("is the same for every picture".into()));
    }
    if let Some(Dim::Known(length)) = shape.and_then(|shape| shape.first())
        && batch != Some(*length)
    {
        return Err(Refusal::fixed_batch(&format!(
            "`{}` has {length} rows whatever the batch",
            cut.tensor
        )));
    }
    let is_matrix = cut.rank == Some(2);
    let flatten = || node("Flatten", vec![attribute_int("axis", 1)]);
    let (mut added, dim) = match shape {
        _ if is_matrix => (Vec::new(), shape.and_then(per_picture).flatten()),
        None if cut.rank == Some(4) => (vec![node("GlobalAveragePool", Vec::new()), flatten()], None),
        None => (vec![flatten()], None),
        Some([_, _]) => (Vec::new(), shape.and_then(per_picture).flatten()),
        Some(shape) => match (per_picture(shape), shape) {
            (Some(dim), _) => (vec![flatten()], dim),
            (None, [_, Dim::Known(channels), _, _]) => (
                vec![node("GlobalAveragePool", Vec::new()), flatten()],
                usize::try_from(*channels).ok(),
            ),
            (None, [_, _, _, _]) => (vec![node("GlobalAveragePool", Vec::new()), flatten()], None),
            _ => return Err(refuse(format!("has {} axes, not one vector per picture", shape.len()))),
        },
    };
    if tensor.element != Some(DataType::Float) && !(is_matrix && tensor.element.is_none() && is_plain(graph)) {
        added.push(node("Cast", vec![attribute_int("to", DataType::Float as i64)]));
    }
    append(graph, &cut.tensor, added);
    let dim = cut.dim.or(dim);
    let symbol = real_inputs(graph).find_map(batch_dim).cloned();
    let columns = dim
        .and_then(|dim| i64::try_from(dim).ok())
        .map(DimensionValue::DimValue);
    graph.value_info.retain(|value| value.name() != cut.tensor);
    graph.output = vec![value_info(&cut.tensor, DataType::Float, vec![symbol, columns])];
    Ok(dim)
}

/// Whether every weight is f32 or an integer, so that a float tensor can only be f32.
fn is_plain(graph: &GraphProto) -> bool {
    let other = [DataType::Float16, DataType::Bfloat16, DataType::Double].map(|element| element as i32);
    graph
        .initializer
        .iter()
        .all(|tensor| !other.contains(&tensor.data_type()))
        && graph
            .node
            .iter()
            .all(|node| !matches!(operator(node), "Cast" | "CastLike" | "Constant"))
}

/// Runs `added` on `tensor` one after the other; the last result takes its name.
fn append(graph: &mut GraphProto, tensor: &str, added: Vec<NodeProto>) {
    if added.is_empty() {
        return;
    }
    let before = unused_name(graph, &format!("{tensor}_before"));
    // Nothing that is left reads the tensor: it is the end of the pruned graph.
    for name in graph
        .node
        .iter_mut()
        .flat_map(|node| &mut node.output)
        .filter(|name| *name == tensor)
    {
        name.clone_from(&before);
    }
    let last = added.len() - 1;
    let mut from = before;
    for (index, mut node) in added.into_iter().enumerate() {
        let to = if index == last {
            tensor.to_owned()
        } else {
            unused_name(graph, &format!("{tensor}_{}", node.op_type().to_lowercase()))
        };
        node.name = Some(format!("lastlayer_{}", node.op_type().to_lowercase()));
        node.input = vec![from];
        node.output = vec![to.clone()];
        graph.node.push(node);
        from = to;
    }
}

fn node(operator: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: Some(operator.to_owned()),
        attribute,
        ..NodeProto::default()
    }
}

fn attribute_int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Int as i32),
        i: Some(value),
        ..AttributeProto::default()
    }
}
