//! Builds ONNX models: nodes, attributes, weights, inputs and outputs, one call each.
//!
//! Which nodes a network has is left to [`network`](super::network). The bytes of a model depend on nothing but the
//! calls made: no time, no version, no address, so that a backbone made twice is the same backbone to the cache.

use bytes::Bytes;

use super::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType, tensor_proto::DataType,
    tensor_shape_proto::Dimension, tensor_shape_proto::dimension, type_proto,
};

/// The operator set the nodes are written in; every ONNX Runtime since 1.12 has it.
const OPSET: i64 = 17;
/// The file format that came with this operator set.
const IR_VERSION: i64 = 8;

/// The length of an axis of an input or output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Axis {
    /// Always this length.
    Fixed(i64),
    /// Any length; axes of the same name have the same.
    Named(&'static str),
}

/// The name of a value in the graph, as returned by the builder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edge(String);

/// An ONNX graph in the making.
#[derive(Debug)]
pub(crate) struct GraphBuilder {
    graph: GraphProto,
    metadata: Vec<StringStringEntryProto>,
}

impl GraphBuilder {
    /// An empty graph.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            graph: GraphProto {
                name: Some(name.to_owned()),
                ..Default::default()
            },
            metadata: Vec::new(),
        }
    }

    /// Adds an f32 input.
    pub(crate) fn input(&mut self, name: &str, axes: &[Axis]) -> Edge {
        self.graph.input.push(float_value(name, axes));
        Edge(name.to_owned())
    }

    /// Adds an f32 constant; `data` is row-major and as long as `shape` says.
    pub(crate) fn floats(&mut self, name: &str, shape: &[usize], data: &[f32]) -> Edge {
        debug_assert_eq!(shape.iter().product::<usize>(), data.len(), "{name}");
        let bytes = data.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        self.constant(name, shape, DataType::Float, bytes)
    }

    /// Adds an i64 constant; `data` is row-major and as long as `shape` says.
    pub(crate) fn integers(&mut self, name: &str, shape: &[usize], data: &[i64]) -> Edge {
        debug_assert_eq!(shape.iter().product::<usize>(), data.len(), "{name}");
        let bytes = data.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        self.constant(name, shape, DataType::Int64, bytes)
    }

    fn constant(&mut self, name: &str, shape: &[usize], data_type: DataType, bytes: Vec<u8>) -> Edge {
        self.graph.initializer.push(TensorProto {
            name: Some(name.to_owned()),
            dims: shape.iter().map(|&length| length as i64).collect(),
            data_type: Some(data_type.into()),
            raw_data: Some(Bytes::from(bytes)),
            ..Default::default()
        });
        Edge(name.to_owned())
    }

    /// Adds a node with one output, which gets the node's name.
    pub(crate) fn node(
        &mut self,
        operator: &str,
        name: &str,
        inputs: &[&Edge],
        attributes: impl IntoIterator<Item = AttributeProto>,
    ) -> Edge {
        self.graph.node.push(NodeProto {
            op_type: Some(operator.to_owned()),
            name: Some(name.to_owned()),
            input: inputs.iter().map(|edge| edge.0.clone()).collect(),
            output: vec![name.to_owned()],
            attribute: attributes.into_iter().collect(),
            ..Default::default()
        });
        Edge(name.to_owned())
    }

    /// Makes a value an f32 output of the model.
    pub(crate) fn output(&mut self, edge: &Edge, axes: &[Axis]) {
        self.graph.output.push(float_value(&edge.0, axes));
    }

    /// Adds a pair to the model's metadata.
    pub(crate) fn metadata(&mut self, key: &str, value: &str) {
        self.metadata.push(StringStringEntryProto {
            key: Some(key.to_owned()),
            value: Some(value.to_owned()),
        });
    }

    /// The model.
    ///
    /// It doesn't name this crate's version, which would change the bytes, and with them the identity of all cached
    /// features, at every release.
    pub(crate) fn finish(self) -> ModelProto {
        ModelProto {
            ir_version: Some(IR_VERSION),
            opset_import: vec![OperatorSetIdProto {
                domain: Some(String::new()),
                version: Some(OPSET),
            }],
            producer_name: Some("lastlayer".to_owned()),
            graph: Some(self.graph),
            metadata_props: self.metadata,
            ..Default::default()
        }
    }
}

/// An attribute that is a list of integers.
pub(crate) fn integers(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Ints.into()),
        ints: values.to_vec(),
        ..Default::default()
    }
}

/// An attribute that is one integer.
pub(crate) fn integer(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Int.into()),
        i: Some(value),
        ..Default::default()
    }
}

/// An attribute that is one f32.
pub(crate) fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Float.into()),
        f: Some(value),
        ..Default::default()
    }
}

/// An attribute that is a text.
pub(crate) fn text(name: &str, value: &'static str) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::String.into()),
        s: Some(Bytes::from_static(value.as_bytes())),
        ..Default::default()
    }
}

fn float_value(name: &str, axes: &[Axis]) -> ValueInfoProto {
    let dimension = |axis: &Axis| Dimension {
        denotation: None,
        value: Some(match *axis {
            Axis::Fixed(length) => dimension::Value::DimValue(length),
            Axis::Named(name) => dimension::Value::DimParam(name.to_owned()),
        }),
    };
    let tensor = type_proto::Tensor {
        elem_type: Some(DataType::Float.into()),
        shape: Some(TensorShapeProto {
            dim: axes.iter().map(dimension).collect(),
        }),
    };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto {
            denotation: None,
            value: Some(type_proto::Value::TensorType(tensor)),
        }),
        ..Default::default()
    }
}
