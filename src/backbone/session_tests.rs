//! Sessions on tiny models, whose features can be computed by hand.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Mutex;

use ort::ep::ExecutionProvider as _;
use prost::Message as _;

use super::*;
use crate::backbone::onnx;
use crate::backbone::providers::{convolution_model, one_node_model, registered_providers};
use crate::backbone::runtime::tests_runtime;
use crate::{ErrorKind, Quiet};

const OPTIONS: SessionOptions<'_> = SessionOptions {
    input: "x",
    output: "y",
    picture: [3, 2, 2],
    run: RunOptions::cpu(1),
};

/// `[n, 3, 2, 2]` to the mean of each channel, `[n, 3, 1, 1]`.
fn channel_means(batch: Option<i64>) -> Vec<u8> {
    one_node("GlobalAveragePool", batch, &[batch, Some(3), Some(1), Some(1)])
}

fn one_node(op_type: &str, batch: Option<i64>, output: &[Option<i64>]) -> Vec<u8> {
    let node = onnx::NodeProto {
        op_type: Some(op_type.to_owned()),
        input: vec!["x".to_owned()],
        output: vec!["y".to_owned()],
        ..Default::default()
    };
    one_node_model(node, &[batch, Some(3), Some(2), Some(2)], output)
}

fn pictures(n: usize) -> Vec<f32> {
    (0..n * 12).map(|index| (index * index % 31) as f32).collect()
}

fn means(batch: &[f32]) -> Vec<f32> {
    batch
        .chunks(4)
        .map(|channel| channel.iter().sum::<f32>() / 4.0)
        .collect()
}

#[test]
fn devices_are_parsed_and_shown() {
    for (text, device) in [
        ("auto", Device::Auto),
        ("cpu", Device::Cpu),
        ("cuda:0", Device::Cuda { id: 0 }),
        ("cuda:12", Device::Cuda { id: 12 }),
    ] {
        assert_eq!(text.parse::<Device>().unwrap(), device);
        assert_eq!(device.to_string(), text);
    }
    assert_eq!("cuda".parse::<Device>().unwrap(), Device::Cuda { id: 0 });
    for wrong in [
        "",
        "gpu",
        "CPU",
        "cuda:",
        "cuda:-1",
        "cuda:+1",
        "cuda:x",
        "cuda:2147483648",
        "cuda0",
        "cpu:1",
    ] {
        let error = wrong.parse::<Device>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{wrong}");
    }
}

#[test]
fn batches_of_any_size_give_their_features() {
    let mut session = Session::open(tests_runtime(), &channel_means(None), &OPTIONS, &Quiet).unwrap();
    assert_eq!(session.device_name(), "cpu");
    assert_eq!(session.feature_dim(), Some(3));
    for n in [0, 1, 3, 1] {
        let batch = pictures(n);
        // Sums of a few small whole numbers, and division by four: exact.
        assert_eq!(session.run(&batch, n).unwrap(), means(&batch), "n = {n}");
    }
}

#[test]
fn a_fixed_batch_size_is_met_in_pieces() {
    let mut session = Session::open(tests_runtime(), &channel_means(Some(2)), &OPTIONS, &Quiet).unwrap();
    for n in [0, 1, 2, 5] {
        let batch = pictures(n);
        assert_eq!(session.run(&batch, n).unwrap(), means(&batch), "n = {n}");
    }
}

#[test]
fn features_that_are_not_finite_come_through() {
    let mut session = Session::open(tests_runtime(), &channel_means(None), &OPTIONS, &Quiet).unwrap();
    let mut batch = pictures(2);
    batch[0] = f32::NAN;
    batch[23] = f32::INFINITY;
    let features = session.run(&batch, 2).unwrap();
    assert!(features[0].is_nan() && features[5] == f32::INFINITY, "{features:?}");
    assert_eq!(features[1..5], means(&batch)[1..5]);
}

#[test]
fn an_output_that_is_no_row_a_picture_is_refused() {
    // Its declared shape is open, so only the run can tell.
    let model = one_node("Identity", None, &[None, None, None, None]);
    let mut session = Session::open(tests_runtime(), &model, &OPTIONS, &Quiet).unwrap();
    let error = session.run(&pictures(2), 2).unwrap_err().to_string();
    assert!(
        error.contains("`y` is [2, 3, 2, 2] for 2 pictures, expected [2, d]"),
        "{error}"
    );
}

#[test]
fn what_does_not_fit_is_said_when_opened() {
    let runtime = tests_runtime();
    let model = channel_means(None);
    let open = |options: &SessionOptions<'_>| Session::open(runtime, &model, options, &Quiet).unwrap_err().to_string();
    let error = open(&SessionOptions {
        picture: [3, 4, 2],
        ..OPTIONS
    });
    assert!(
        error.contains("`x` takes [-1, 3, 2, 2]") && error.contains("[n, 3, 4, 2]"),
        "{error}"
    );
    let error = open(&SessionOptions {
        input: "data",
        ..OPTIONS
    });
    assert!(error.contains("no input `data`, only `x`"), "{error}");
    let error = open(&SessionOptions {
        output: "feature",
        ..OPTIONS
    });
    assert!(error.contains("no output `feature`, only `y`"), "{error}");
    let error = Session::open(runtime, b"not a model", &OPTIONS, &Quiet)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("ONNX Runtime cannot load the model: "), "{error}");
}

#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl Observer for Warnings {
    fn warn(&self, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }
}

#[test]
fn without_cuda_auto_is_the_cpu_in_silence_and_cuda_an_error() {
    let (runtime, model) = (tests_runtime(), channel_means(None));
    // Only now: ort looks for a library of its own if none is loaded.
    if ort::ep::CUDA::is_available().unwrap() {
        return;
    }
    let warnings = Warnings::default();
    let auto = SessionOptions {
        run: RunOptions {
            device: Device::Auto,
            ..OPTIONS.run
        },
        ..OPTIONS
    };
    assert_eq!(
        Session::open(runtime, &model, &auto, &warnings).unwrap().device_name(),
        "cpu"
    );
    assert!(warnings.0.lock().unwrap().is_empty());

    let cuda = SessionOptions {
        run: RunOptions {
            device: Device::Cuda { id: 1 },
            ..OPTIONS.run
        },
        ..OPTIONS
    };
    let error = Session::open(runtime, &model, &cuda, &warnings).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("cannot use device `cuda:1`: ") && !text.contains("onnxruntime_src"),
        "{text}"
    );
    // What comes first: without its CUDA provider the library can do nothing with a driver.
    assert!(text.contains("is built without CUDA"), "{text}");
    assert!(text.contains(&runtime.path().display().to_string()), "{text}");
    let hint = error.hint().unwrap();
    for way in ["lastlayer runtime install --cuda", "onnxruntime-gpu", "`--device cpu`"] {
        assert!(hint.contains(way), "{hint}");
    }

    let providers = registered_providers(runtime);
    assert_eq!(providers[0], ("CPUExecutionProvider".to_owned(), Ok(())));
    assert_eq!(providers[1].0, "CUDAExecutionProvider");
    assert!(
        providers[1]
            .1
            .as_ref()
            .is_err_and(|reason| reason.contains("without it")),
        "{providers:?}"
    );
}

#[test]
fn the_model_that_tries_a_provider_squares() {
    let options = SessionOptions {
        picture: [1, 1, 1],
        ..OPTIONS
    };
    let mut session = Session::open(tests_runtime(), &convolution_model(), &options, &Quiet).unwrap();
    assert_eq!(session.run(&[3.0], 1).unwrap(), [9.0]);
}

#[test]
fn a_model_that_takes_f16_is_given_the_pictures_rounded() {
    let mut model = onnx::ModelProto::decode(channel_means(None).as_slice()).unwrap();
    let graph = model.graph.as_mut().unwrap();
    let half = onnx::tensor_proto::DataType::Float16 as i32;
    for input in &mut graph.input {
        let Some(onnx::type_proto::Value::TensorType(tensor)) = &mut input.r#type.as_mut().unwrap().value else {
            panic!("a tensor");
        };
        tensor.elem_type = Some(half);
    }
    graph.node[0].output[0] = "halves".to_owned();
    graph.node.push(onnx::NodeProto {
        op_type: Some("Cast".to_owned()),
        input: vec!["halves".to_owned()],
        output: vec!["y".to_owned()],
        attribute: vec![onnx::AttributeProto {
            name: Some("to".to_owned()),
            r#type: Some(onnx::attribute_proto::AttributeType::Int as i32),
            i: Some(1),
            ..Default::default()
        }],
        ..Default::default()
    });
    let mut session = Session::open(tests_runtime(), &model.encode_to_vec(), &OPTIONS, &Quiet).unwrap();
    // Whole numbers up to 31 are exact in f16, and so is a quarter of their sum; 2049 is between 2048 and 2050.
    for n in [2, 1, 3] {
        let batch = pictures(n);
        assert_eq!(session.run(&batch, n).unwrap(), means(&batch));
    }
    assert_eq!(session.run(&[2049.0; 12], 1).unwrap(), [2048.0; 3]);
}
