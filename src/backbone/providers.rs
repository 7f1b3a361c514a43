//! Whether the execution providers really run something: tried with the smallest model that needs all of their libraries.

use std::fmt;

use ort::ep::ExecutionProvider as _;
use prost::Message as _;

use super::cuda;
use super::onnx;
use super::runtime::Runtime;
use super::session::{Device, RunOptions, Session, SessionOptions};
use crate::{Quiet, Result};

/// The execution providers that this program can use, each with whether it really runs a model, or why not.
pub fn registered_providers(runtime: &Runtime) -> Vec<(String, Result<(), String>)> {
    let model = convolution_model();
    let options = convolution_options(Device::Cpu);
    let reason = |error: &dyn fmt::Display| cuda::plain_reason(&error.to_string());
    let cpu = Session::open_on(runtime, &model, &options, None)
        .and_then(|mut session| session.run(&[1.0], 1))
        .map(|_| ())
        .map_err(|error| reason(&error));
    let cuda = match ort::ep::CUDA::is_available() {
        Ok(true) => match Session::open_on_cuda(runtime, &model, &options, 0) {
            Ok(outcome) => outcome.map(|_| ()).map_err(|unusable| unusable.reason),
            Err(error) => Err(reason(&error)),
        },
        Ok(false) => Err("this library is built without it".to_owned()),
        Err(error) => Err(reason(&error)),
    };
    vec![
        (ort::ep::CPU::NAME.to_owned(), cpu),
        (ort::ep::CUDA::NAME.to_owned(), cuda),
    ]
}

/// Runs a convolution on the first CUDA device.
///
/// # Errors
/// [`Error::Device`](crate::Error::Device) with what stands in the way.
pub fn check_cuda(runtime: &Runtime) -> Result<()> {
    let options = convolution_options(Device::Cuda { id: 0 });
    Session::open(runtime, &convolution_model(), &options, &Quiet).map(|_| ())
}

fn convolution_options(device: Device) -> SessionOptions<'static> {
    SessionOptions {
        input: "x",
        output: "y",
        picture: [1, 1, 1],
        run: RunOptions {
            device,
            ..RunOptions::cpu(1)
        },
    }
}

/// The smallest model that needs cuDNN on CUDA: a 1×1 convolution of a `[1, 1, 1, 1]` tensor with itself.
pub(super) fn convolution_model() -> Vec<u8> {
    let node = onnx::NodeProto {
        op_type: Some("Conv".to_owned()),
        input: vec!["x".to_owned(), "x".to_owned()],
        output: vec!["y".to_owned()],
        ..Default::default()
    };
    one_node_model(node, &[Some(1); 4], &[Some(1); 4])
}

/// A model of one node from `x` to `y`; a dimension of `None` is left open.
pub(super) fn one_node_model(node: onnx::NodeProto, input: &[Option<i64>], output: &[Option<i64>]) -> Vec<u8> {
    let value = |name: &str, shape: &[Option<i64>]| onnx::ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(float_tensor(shape)),
        ..Default::default()
    };
    let graph = onnx::GraphProto {
        name: Some("g".to_owned()),
        node: vec![node],
        input: vec![value("x", input)],
        output: vec![value("y", output)],
        ..Default::default()
    };
    let opset = onnx::OperatorSetIdProto {
        domain: Some(String::new()),
        version: Some(13),
    };
    let model = onnx::ModelProto {
        ir_version: Some(7),
        opset_import: vec![opset],
        graph: Some(graph),
        ..Default::default()
    };
    model.encode_to_vec()
}

fn float_tensor(shape: &[Option<i64>]) -> onnx::TypeProto {
    use onnx::tensor_shape_proto::{Dimension, dimension};
    let dim = shape
        .iter()
        .map(|length| Dimension {
            value: length.map(dimension::Value::DimValue),
            ..Default::default()
        })
        .collect();
    let tensor = onnx::type_proto::Tensor {
        elem_type: Some(onnx::tensor_proto::DataType::Float as i32),
        shape: Some(onnx::TensorShapeProto { dim }),
    };
    onnx::TypeProto {
        value: Some(onnx::type_proto::Value::TensorType(tensor)),
        ..Default::default()
    }
}
