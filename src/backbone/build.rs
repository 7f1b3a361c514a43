//! Builds ONNX models: nodes, attributes, weights, inputs and outputs, one call each.
//!
//! Which nodes a network has is left to [`network`](super::network). The bytes of a model depend on nothing but the
//! calls made: no time, no version, no address, so that a backbone made twice is the same backbone to the cache.

use bytes::Bytes;

use super::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, attribute_proto::AttributeType, tensor_proto::DataType, tensor_shape_proto::Dimension,
    tensor_shape_proto::dimension, type_proto,
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
}

impl GraphBuilder {
    /// An empty graph.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            graph: GraphProto {
                name: Some(name.to_owned()),
                ..Default::default()
            },
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
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for networks that reshape, such as ShuffleNet")
    )]
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use prost::Message;

    use super::*;

    /// The bytes a protobuf field takes: tag and wire type, length, content (protobuf.dev, "Encoding").
    fn field(tag: u8, content: &[u8]) -> Vec<u8> {
        [&[tag << 3 | 2, content.len() as u8], content].concat()
    }

    #[test]
    fn constants_are_little_endian_raw_data() {
        let mut graph = GraphBuilder::new("g");
        graph.floats("f", &[2, 1], &[1.0, -2.0]);
        graph.integers("i", &[], &[-2]);
        let model = graph.finish();
        // TensorProto: dims 1, data_type 2 (FLOAT = 1, INT64 = 7), name 8, raw_data 9.
        let first = [
            &[8, 2, 8, 1, 16, 1][..],
            &field(8, b"f"),
            &field(9, &[0, 0, 128, 63, 0, 0, 0, 192]),
        ]
        .concat();
        let second = [
            &[16, 7][..],
            &field(8, b"i"),
            &field(9, &[254, 255, 255, 255, 255, 255, 255, 255]),
        ]
        .concat();
        let initializers = &model.graph.as_ref().unwrap().initializer;
        assert_eq!(initializers[0].encode_to_vec(), first);
        assert_eq!(initializers[1].encode_to_vec(), second);
    }

    #[test]
    fn a_model_is_what_onnx_says() {
        let mut graph = GraphBuilder::new("g");
        let x = graph.input("x", &[Axis::Named("n"), Axis::Fixed(2)]);
        let y = graph.node("Flatten", "y", &[&x], [integer("axis", 1)]);
        graph.output(&y, &[Axis::Named("n"), Axis::Fixed(2)]);
        let bytes = graph.finish().encode_to_vec();
        // ModelProto: ir_version 1, producer_name 2, graph 7, opset_import 8 (domain 1, version 2).
        // GraphProto: node 1, name 2, input 11, output 12. TypeProto: tensor_type 1 (elem_type 1, shape 2).
        let attribute = [&field(1, b"axis")[..], &[0x18, 1, 0xa0, 1, 2]].concat();
        let node = [
            field(1, b"x"),
            field(2, b"y"),
            field(3, b"y"),
            field(4, b"Flatten"),
            field(5, &attribute),
        ]
        .concat();
        let shape = [field(1, &field(2, b"n")), field(1, &[8, 2])].concat();
        let tensor = [&[8, 1][..], &field(2, &shape)].concat();
        let value = |name: &[u8]| [field(1, name), field(2, &field(1, &tensor))].concat();
        let body = [
            field(1, &node),
            field(2, b"g"),
            field(11, &value(b"x")),
            field(12, &value(b"y")),
        ]
        .concat();
        let opset = [&field(1, b"")[..], &[16, 17]].concat();
        let expected = [
            &[8, 8][..],
            &field(2, b"lastlayer"),
            &field(7, &body),
            &field(8, &opset),
        ]
        .concat();
        assert_eq!(bytes, expected);
    }
}
