//! Small readers of protobuf nodes and tensors, so that the editing code reads as ONNX and not as `Option`s.

use std::collections::HashSet;

use super::onnx::tensor_proto::DataType;
use super::onnx::tensor_shape_proto::dimension::Value as DimensionValue;
use super::onnx::{
    AttributeProto, GraphProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};

/// The operator of `node`; empty for operators outside the ONNX standard, about which nothing is known.
pub(in crate::backbone) fn operator(node: &NodeProto) -> &str {
    match node.domain() {
        "" | "ai.onnx" => node.op_type(),
        _ => "",
    }
}

/// The name of input `index`; `None` where it is absent (optional inputs are written as empty names).
pub(in crate::backbone) fn input(node: &NodeProto, index: usize) -> Option<&str> {
    node.input
        .get(index)
        .map(String::as_str)
        .filter(|name| !name.is_empty())
}

pub(in crate::backbone) fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name() == name)
}

pub(in crate::backbone) fn int(node: &NodeProto, name: &str) -> Option<i64> {
    attribute(node, name).and_then(|attribute| attribute.i)
}

pub(in crate::backbone) fn ints<'a>(node: &'a NodeProto, name: &str) -> Option<&'a [i64]> {
    attribute(node, name).map(|attribute| attribute.ints.as_slice())
}

/// The graphs in the attributes of `node` (`If`, `Loop`, `Scan`).
pub(in crate::backbone) fn subgraphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute
        .iter()
        .flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs))
}

/// The element type written as `code`, where this build knows it.
pub(super) fn element(code: i32) -> Option<DataType> {
    DataType::try_from(code)
        .ok()
        .filter(|&element| element != DataType::Undefined)
}

/// The values of a small integer tensor: a shape, axes, indices. `None` if it is not that or its data is not here.
pub(in crate::backbone) fn small_ints(tensor: &TensorProto) -> Option<Vec<i64>> {
    const LARGEST: usize = 64;
    let count = tensor
        .dims
        .iter()
        .try_fold(1usize, |count, &dim| count.checked_mul(usize::try_from(dim).ok()?))?;
    if tensor.dims.len() > 1 || count > LARGEST {
        return None;
    }
    let values: Vec<i64> = match (element(tensor.data_type())?, tensor.raw_data.as_deref()) {
        (DataType::Int64, Some(raw)) => raw
            .chunks_exact(8)
            .map(|bytes| i64::from_le_bytes(bytes.try_into().expect("chunks of 8")))
            .collect(),
        (DataType::Int32, Some(raw)) => raw
            .chunks_exact(4)
            .map(|bytes| i64::from(i32::from_le_bytes(bytes.try_into().expect("chunks of 4"))))
            .collect(),
        (DataType::Int64, None) => tensor.int64_data.clone(),
        (DataType::Int32, None) => tensor.int32_data.iter().map(|&value| i64::from(value)).collect(),
        _ => return None,
    };
    (values.len() == count).then_some(values)
}

/// The tensor part of a type; `None` for sequences, maps and the like.
pub(in crate::backbone) fn tensor_type(value: &ValueInfoProto) -> Option<&type_proto::Tensor> {
    match value.r#type.as_ref()?.value.as_ref()? {
        type_proto::Value::TensorType(tensor) => Some(tensor),
        _ => None,
    }
}

pub(in crate::backbone) fn tensor_type_mut(value: &mut ValueInfoProto) -> Option<&mut type_proto::Tensor> {
    match value.r#type.as_mut()?.value.as_mut()? {
        type_proto::Value::TensorType(tensor) => Some(tensor),
        _ => None,
    }
}

/// Describes a tensor in the graph's own terms.
pub(in crate::backbone) fn value_info(
    name: &str,
    element: DataType,
    dims: Vec<Option<DimensionValue>>,
) -> ValueInfoProto {
    use super::onnx::tensor_shape_proto::Dimension;
    let dim = dims
        .into_iter()
        .map(|value| Dimension {
            value,
            denotation: None,
        })
        .collect();
    let tensor = type_proto::Tensor {
        elem_type: Some(element as i32),
        shape: Some(TensorShapeProto { dim }),
    };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            denotation: None,
        }),
        ..ValueInfoProto::default()
    }
}

/// The names of all weights of `graph`, dense and sparse.
pub(super) fn initializers(graph: &GraphProto) -> HashSet<&str> {
    let sparse = graph
        .sparse_initializer
        .iter()
        .filter_map(|tensor| tensor.values.as_ref());
    graph.initializer.iter().chain(sparse).map(TensorProto::name).collect()
}

/// The inputs a caller has to feed: before IR version 4 the weights are listed as inputs too.
pub(in crate::backbone) fn real_inputs(graph: &GraphProto) -> impl Iterator<Item = &ValueInfoProto> {
    let weights = initializers(graph);
    graph.input.iter().filter(move |value| !weights.contains(value.name()))
}

/// A tensor name made of `wanted` that the graph does not use yet.
pub(in crate::backbone) fn unused_name(graph: &GraphProto, wanted: &str) -> String {
    let taken = |name: &str| {
        graph
            .node
            .iter()
            .any(|node| node.output.iter().chain(&node.input).any(|used| used == name))
            || graph.initializer.iter().any(|tensor| tensor.name() == name)
            || graph.input.iter().any(|value| value.name() == name)
    };
    let mut name = wanted.to_owned();
    let mut number = 2;
    while taken(&name) {
        name = format!("{wanted}_{number}");
        number += 1;
    }
    name
}
