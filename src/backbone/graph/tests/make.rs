//! Small models for the tests, made node by node.

use bytes::Bytes;
use prost::Message;

use crate::backbone::graph::access::value_info;
use crate::backbone::onnx::attribute_proto::AttributeType;
use crate::backbone::onnx::tensor_proto::DataType;
use crate::backbone::onnx::tensor_shape_proto::dimension::Value;
use crate::backbone::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto,
};

pub(in crate::backbone::graph) fn node(operator: &str, input: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: Some(operator.into()),
        input: input.iter().map(|&name| name.into()).collect(),
        output: vec![output.into()],
        ..NodeProto::default()
    }
}

pub(in crate::backbone::graph) fn with_int(mut node: NodeProto, name: &str, value: i64) -> NodeProto {
    node.attribute.push(AttributeProto {
        name: Some(name.into()),
        r#type: Some(AttributeType::Int as i32),
        i: Some(value),
        ..AttributeProto::default()
    });
    node
}

pub(in crate::backbone::graph) fn floats(name: &str, dims: &[i64]) -> TensorProto {
    let count = usize::try_from(dims.iter().product::<i64>()).unwrap();
    let raw = (0..count).flat_map(|index| (index as f32 * 0.01).to_le_bytes());
    TensorProto {
        dims: dims.to_vec(),
        data_type: Some(DataType::Float as i32),
        raw_data: Some(Bytes::from_iter(raw)),
        name: Some(name.into()),
        ..TensorProto::default()
    }
}

pub(in crate::backbone::graph) fn integers(name: &str, values: &[i64]) -> TensorProto {
    TensorProto {
        dims: vec![values.len() as i64],
        data_type: Some(DataType::Int64 as i32),
        int64_data: values.to_vec(),
        name: Some(name.into()),
        ..TensorProto::default()
    }
}

/// A dim of 0 is an open one named `n`.
pub(in crate::backbone::graph) fn value(name: &str, element: DataType, dims: &[i64]) -> ValueInfoProto {
    let dim = |&dim: &i64| {
        Some(if dim == 0 {
            Value::DimParam("n".into())
        } else {
            Value::DimValue(dim)
        })
    };
    value_info(name, element, dims.iter().map(dim).collect())
}

pub(in crate::backbone::graph) fn model(
    nodes: Vec<NodeProto>,
    weights: Vec<TensorProto>,
    outputs: &[&str],
) -> ModelProto {
    let graph = GraphProto {
        node: nodes,
        name: Some("made".into()),
        initializer: weights,
        input: vec![value("x", DataType::Float, &[0, 3, 8, 8])],
        output: outputs
            .iter()
            .map(|name| value_info(name, DataType::Float, Vec::new()))
            .map(unshaped)
            .collect(),
        ..GraphProto::default()
    };
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto {
            domain: Some(String::new()),
            version: Some(17),
        }],
        graph: Some(graph),
        ..ModelProto::default()
    }
}

fn unshaped(mut value: ValueInfoProto) -> ValueInfoProto {
    if let Some(tensor) = crate::backbone::graph::access::tensor_type_mut(&mut value) {
        tensor.shape = None;
    }
    value
}

/// Conv, Relu, global average: the start of every network here; ends in `pooled` `[n, 5, 1, 1]`.
pub(in crate::backbone::graph) fn trunk() -> (Vec<NodeProto>, Vec<TensorProto>) {
    let nodes = vec![
        node("Conv", &["x", "conv.weight"], "conv"),
        node("Relu", &["conv"], "relu"),
        node("GlobalAveragePool", &["relu"], "pooled"),
    ];
    (nodes, vec![floats("conv.weight", &[5, 3, 3, 3])])
}

/// The trunk, then `nodes` with `weights`.
pub(in crate::backbone::graph) fn network(
    nodes: Vec<NodeProto>,
    weights: Vec<TensorProto>,
    outputs: &[&str],
) -> ModelProto {
    let (mut all, mut tensors) = trunk();
    all.extend(nodes);
    tensors.extend(weights);
    model(all, tensors, outputs)
}

/// Trunk, Flatten to `flat`, Gemm with transB to `logits`, Softmax to `probabilities`.
pub(in crate::backbone::graph) fn classifier() -> ModelProto {
    let nodes = vec![
        node("Flatten", &["pooled"], "flat"),
        with_int(node("Gemm", &["flat", "fc.weight", "fc.bias"], "logits"), "transB", 1),
        node("Softmax", &["logits"], "probabilities"),
    ];
    network(
        nodes,
        vec![floats("fc.weight", &[7, 5]), floats("fc.bias", &[7])],
        &["probabilities"],
    )
}

pub(in crate::backbone::graph) fn graph(model: &mut ModelProto) -> &mut GraphProto {
    model.graph.as_mut().unwrap()
}

pub(in crate::backbone::graph) fn bytes(model: &ModelProto) -> Bytes {
    Bytes::from(model.encode_to_vec())
}
