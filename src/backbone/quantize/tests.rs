//! Small networks quantised, and run by ONNX Runtime against arithmetic written out here.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use super::*;
use crate::backbone::build::{Axis, Edge, GraphBuilder, integer, integers};
use crate::backbone::graph::FeatureModel;
use crate::backbone::onnx::{AttributeProto, GraphProto, attribute_proto::AttributeType};
use crate::backbone::runtime::tests_runtime;
use crate::backbone::{Backbone, RunOptions};
use crate::observer::Quiet;
use crate::random::{Random, Stream};

#[path = "arithmetic_tests.rs"]
mod arithmetic;

const SIDE: usize = 8;
const PICTURE: [usize; 3] = [3, SIDE, SIDE];
const CHANNELS: usize = 6;

/// Random weights of `outputs` × `inputs` × `kernel` × `kernel`, and biases.
fn convolution(
    graph: &mut GraphBuilder,
    name: &str,
    input: &Edge,
    inputs: usize,
    outputs: usize,
    kernel: usize,
) -> Edge {
    let seed = name.bytes().map(u64::from).sum();
    let mut random = Random::new(seed, Stream::Initial);
    let count = outputs * inputs * kernel * kernel;
    let bound = (3.0 / (inputs * kernel * kernel) as f32).sqrt();
    // Channels of very different size: one scale for all of them would not do.
    let weight: Vec<f32> = (0..count)
        .map(|place| random.uniform(bound) * (1.0 + (place / (count / outputs)) as f32))
        .collect();
    let bias: Vec<f32> = (0..outputs).map(|_| random.uniform(0.3)).collect();
    let weight = graph.floats(&format!("{name}.weight"), &[outputs, inputs, kernel, kernel], &weight);
    let bias = graph.floats(&format!("{name}.bias"), &[outputs], &bias);
    let pad = (kernel / 2) as i64;
    let attributes = [
        integers("kernel_shape", &[kernel as i64; 2]),
        integers("pads", &[pad; 4]),
        integers("strides", &[1, 1]),
        integer("group", 1),
    ];
    graph.node("Conv", name, &[input, &weight, &bias], attributes)
}

/// Stem, pool, one residual block, average: what a ResNet is made of. `features [n, 6]`.
fn residual() -> Vec<u8> {
    let mut graph = GraphBuilder::new("residual");
    let side = Axis::Fixed(SIDE as i64);
    let x = graph.input("x", &[Axis::Named("n"), Axis::Fixed(3), side, side]);
    let stem = convolution(&mut graph, "stem", &x, 3, CHANNELS, 3);
    let stem = graph.node("Relu", "stem_relu", &[&stem], []);
    let pool = [integers("kernel_shape", &[2, 2]), integers("strides", &[2, 2])];
    let pool = graph.node("MaxPool", "pool", &[&stem], pool);
    let first = convolution(&mut graph, "first", &pool, CHANNELS, CHANNELS, 3);
    let first = graph.node("Relu", "first_relu", &[&first], []);
    let second = convolution(&mut graph, "second", &first, CHANNELS, CHANNELS, 3);
    let sum = graph.node("Add", "sum", &[&second, &pool], []);
    let sum = graph.node("Relu", "sum_relu", &[&sum], []);
    let last = convolution(&mut graph, "last", &sum, CHANNELS, CHANNELS, 1);
    let end = graph.node("Add", "end", &[&last, &sum], []);
    let end = graph.node("Relu", "end_relu", &[&end], []);
    finish(graph, &end)
}

fn finish(mut graph: GraphBuilder, map: &Edge) -> Vec<u8> {
    let mean = graph.node("GlobalAveragePool", "mean", &[map], []);
    let features = graph.node("Flatten", "features", &[&mean], [integer("axis", 1)]);
    graph.output(&features, &[Axis::Named("n"), Axis::Fixed(CHANNELS as i64)]);
    graph.finish().encode_to_vec()
}

fn pictures(count: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed, Stream::Draws);
    (0..count * PICTURE.iter().product::<usize>())
        .map(|_| random.uniform(2.0))
        .collect()
}

fn quantizer(onnx: &[u8]) -> Quantizer {
    Quantizer::new(onnx, "x", "features").unwrap_or_else(|unfit| panic!("{unfit:?}"))
}

fn calibrated(quantizer: &Quantizer, batch: usize, threads: usize) -> Statistics {
    let mut probe = Probe::open(tests_runtime(), quantizer, None, threads).unwrap();
    let length: usize = PICTURE.iter().product();
    for pictures in pictures(24, 1).chunks(batch * length) {
        probe.show(pictures, PICTURE).unwrap();
    }
    probe.finish()
}

fn written(onnx: &[u8], bits: WeightBits) -> Vec<u8> {
    let quantizer = quantizer(onnx);
    quantizer
        .write(&calibrated(&quantizer, 4, 1), bits, "{\"made\":1}".to_owned())
        .unwrap()
}

fn features(onnx: &[u8], pictures: &[f32]) -> Vec<f32> {
    let model = FeatureModel::from_bytes(onnx.to_vec().into(), Path::new("made.onnx"), Some("features")).unwrap();
    let mut session = model
        .open_session(tests_runtime(), &RunOptions::cpu(1), &Quiet)
        .unwrap();
    session
        .run(pictures, pictures.len() / PICTURE.iter().product::<usize>())
        .unwrap()
}

fn cosine(left: &[f32], right: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(left, right) / (dot(left, left) * dot(right, right)).sqrt()
}

fn graph_of(onnx: &[u8]) -> GraphProto {
    ModelProto::decode(onnx).unwrap().graph.unwrap()
}

#[test]
fn features_stay_close_with_eight_bits_and_with_seven() {
    let float = residual();
    let pictures = pictures(32, 9);
    let expected = features(&float, &pictures);
    let of = |bits| cosine(&features(&written(&float, bits), &pictures), &expected);
    let (eight, seven) = (of(WeightBits::Eight), of(WeightBits::Seven));
    assert!(eight > 0.9995, "{eight}");
    assert!(seven > 0.999, "{seven}");
}

#[test]
fn weights_use_the_range_they_are_given_and_no_more() {
    for (bits, largest) in [(WeightBits::Eight, 127_u8), (WeightBits::Seven, 63)] {
        let graph = graph_of(&written(&residual(), bits));
        let weights = graph
            .initializer
            .iter()
            .filter(|tensor| tensor.name().ends_with(".weight_quantized"));
        let mut count = 0;
        for tensor in weights {
            // Each channel reaches the end of the range on its own.
            let channels = usize::try_from(tensor.dims[0]).unwrap();
            let bytes = tensor.raw_data.as_deref().unwrap();
            for channel in bytes.chunks(bytes.len() / channels) {
                let peak = channel.iter().map(|byte| byte.cast_signed().unsigned_abs()).max();
                assert_eq!(peak, Some(largest), "{}", tensor.name());
            }
            count += 1;
        }
        assert_eq!(count, 4);
    }
}

#[test]
fn rounded_weights_do_not_shift_the_mean_of_an_output() {
    let quantizer = quantizer(&residual());
    let index = *quantizer
        .plan
        .weighted
        .iter()
        .find(|(_, weighted)| weighted.dims[2] == 3 && weighted.dims[1] == 6)
        .unwrap()
        .0;
    let weighted = &quantizer.plan.weighted[&index];
    let means: Vec<f64> = (0..CHANNELS).map(|channel| 0.3 + channel as f64).collect();
    let plain = weights::Integers::of(weighted, 0.02, &[], WeightBits::Seven);
    let corrected = weights::Integers::of(weighted, 0.02, &means, WeightBits::Seven);
    let per_channel = weighted.weight.len() / CHANNELS;
    let mut moved = 0.0_f64;
    for channel in 0..CHANNELS {
        let step = f64::from(corrected.scale[channel]);
        // What the operator gives for the mean input: nine taps of each channel.
        let products = |weight: &dyn Fn(usize) -> f64| -> f64 {
            (0..per_channel)
                .map(|place| weight(channel * per_channel + place) * means[place / 9])
                .sum()
        };
        let exact = products(&|place| f64::from(weighted.weight[place])) + f64::from(weighted.bias[channel]);
        let of = |integers: &weights::Integers| {
            let bias = f64::from(integers.bias[channel]) * step * f64::from(0.02_f32);
            products(&|place| f64::from(integers.weight[place]) * step) + bias
        };
        let one_bias_step = step * 0.02;
        assert!((of(&corrected) - exact).abs() <= one_bias_step, "{channel}");
        moved = moved.max((of(&plain) - exact).abs() / one_bias_step);
    }
    assert!(moved > 10.0, "without the correction it is {moved} steps");
}

#[test]
fn the_file_opens_as_a_backbone_with_the_feature_it_had() {
    let onnx = written(&residual(), WeightBits::Eight);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("int8.onnx");
    std::fs::write(&path, &onnx).unwrap();
    let backbone = Backbone::open("int8", &path, None).unwrap();
    assert_eq!(backbone.model().output, "features");
    assert!(backbone.model().is_quantized);
    assert_eq!(
        backbone.notes(),
        Vec::<String>::new(),
        "the file says what its feature is"
    );
    let model = ModelProto::decode(&onnx[..]).unwrap();
    let entries: Vec<(&str, &str)> = model
        .metadata_props
        .iter()
        .map(|entry| (entry.key(), entry.value()))
        .collect();
    assert_eq!(
        entries,
        [
            ("lastlayer.precision", "int8"),
            ("lastlayer.feature", "features"),
            ("lastlayer.quantization", "{\"made\":1}")
        ]
    );
    assert!(
        !onnx
            .windows(5)
            .any(|bytes| bytes == env!("CARGO_PKG_VERSION").as_bytes()),
        "no release changes it"
    );
}

#[test]
fn threads_and_batches_change_no_byte() {
    let quantizer = quantizer(&residual());
    let of = |batch, threads| {
        let statistics = calibrated(&quantizer, batch, threads);
        quantizer.write(&statistics, WeightBits::Eight, String::new()).unwrap()
    };
    let expected = of(4, 1);
    for (batch, threads) in [(1, 1), (24, 1), (4, 2), (5, 3)] {
        assert!(of(batch, threads) == expected, "batch {batch}, {threads} threads");
    }
}

#[test]
fn activations_are_ranges_and_pools_have_the_scale_of_what_they_pool() {
    let graph = graph_of(&written(&residual(), WeightBits::Eight));
    let count = |operator: &str| graph.node.iter().filter(|node| node.op_type() == operator).count();
    // The last one is float, as the sum before it.
    assert_eq!(count("Relu"), 1);
    // x, stem, pool, first, second, sum, last.
    assert_eq!(count("QuantizeLinear"), 7);
    let scale_of = |tensor: &str| {
        let node = graph.node.iter().find(|node| node.output == [tensor]).unwrap();
        node.input[1].clone()
    };
    assert_eq!(scale_of("pool"), scale_of("stem_relu"));
    assert_ne!(scale_of("second"), scale_of("sum_relu"));
}

#[test]
fn what_cannot_be_quantised_says_why() {
    let again = Quantizer::new(&written(&residual(), WeightBits::Eight), "x", "features");
    assert!(again.err().unwrap().problem.contains("quantised already"));

    let mut graph = GraphBuilder::new("no weights");
    let x = graph.input(
        "x",
        &[
            Axis::Named("n"),
            Axis::Fixed(CHANNELS as i64),
            Axis::Fixed(2),
            Axis::Fixed(2),
        ],
    );
    let none = Quantizer::new(&finish(graph, &x), "x", "features");
    assert!(none.err().unwrap().problem.contains("no convolution"));
}

#[test]
fn tensors_that_give_no_range_are_named() {
    let quantizer = quantizer(&residual());
    let try_with = |pictures: &[f32]| {
        let mut probe = Probe::open(tests_runtime(), &quantizer, None, 1).unwrap();
        probe.show(pictures, PICTURE).unwrap();
        quantizer
            .write(&probe.finish(), WeightBits::Eight, String::new())
            .unwrap_err()
    };
    let mut broken = pictures(2, 1);
    broken[3] = f32::NAN;
    assert!(try_with(&broken).contains("not finite"));
    let black = vec![0.0; 2 * PICTURE.iter().product::<usize>()];
    assert!(try_with(&black).starts_with("`x` is 0 everywhere"));
}

fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Float as i32),
        f: Some(value),
        ..AttributeProto::default()
    }
}

/// As exporters wrote networks years ago: set 8, normalisations, `Clip` with attributes, `Dropout`, constants as nodes.
fn old(opset: i64) -> Vec<u8> {
    let mut graph = GraphBuilder::new("old");
    let side = Axis::Fixed(SIDE as i64);
    let x = graph.input("x", &[Axis::Named("n"), Axis::Fixed(3), side, side]);
    let map = convolution(&mut graph, "stem", &x, 3, CHANNELS, 3);
    let mut random = Random::new(2, Stream::Initial);
    let parameters = ["scale", "shift", "mean", "variance"].map(|name| {
        let values: Vec<f32> = (0..CHANNELS).map(|_| 1.2 + random.uniform(1.0)).collect();
        graph.floats(&format!("norm.{name}"), &[CHANNELS], &values)
    });
    let [scale, shift, mean, variance] = &parameters;
    let norm = graph.node(
        "BatchNormalization",
        "norm",
        &[&map, scale, shift, mean, variance],
        [float("epsilon", 1e-3)],
    );
    let clip = graph.node("Clip", "clip", &[&norm], [float("min", 0.0), float("max", 6.0)]);
    let kept = graph.node("Dropout", "kept", &[&clip], [float("ratio", 0.5)]);
    let last = convolution(&mut graph, "last", &kept, CHANNELS, CHANNELS, 1);
    let mut model = ModelProto::decode(&finish(graph, &last)[..]).unwrap();
    model.opset_import[0].version = Some(opset);
    model.ir_version = Some(3);
    let graph = model.graph.as_mut().unwrap();
    let inputs: Vec<_> = graph
        .initializer
        .iter()
        .map(|tensor| {
            let dims = tensor.dims.iter();
            let dims = dims.map(|&dim| Some(onnx::tensor_shape_proto::dimension::Value::DimValue(dim)));
            access::value_info(tensor.name(), onnx::tensor_proto::DataType::Float, dims.collect())
        })
        .collect();
    graph.input.extend(inputs);
    model.encode_to_vec()
}

#[test]
fn an_old_network_with_normalisations_is_quantised_too() {
    let onnx = old(8);
    let pictures = pictures(16, 4);
    let expected = features(&onnx, &pictures);
    let quantizer = quantizer(&onnx);
    let mut probe = Probe::open(tests_runtime(), &quantizer, None, 1).unwrap();
    let prepared = probe.show(&pictures, PICTURE).unwrap();
    for (found, expected) in prepared.iter().zip(&expected) {
        // Weights are rounded once more by folding.
        assert!(
            (found - expected).abs() <= 1e-5 * (1.0 + expected.abs()),
            "{found} {expected}"
        );
    }
    let onnx = quantizer
        .write(&probe.finish(), WeightBits::Eight, String::new())
        .unwrap();
    let graph = graph_of(&onnx);
    let operators: Vec<&str> = graph.node.iter().map(onnx::NodeProto::op_type).collect();
    for gone in ["BatchNormalization", "Clip", "Dropout", "Identity"] {
        assert!(!operators.contains(&gone), "{gone} in {operators:?}");
    }
    let found = cosine(&features(&onnx, &pictures), &expected);
    assert!(found > 0.9995, "{found}");
    let refused = Quantizer::new(&old(6), "x", "features").err().unwrap();
    assert!(refused.problem.contains("operator set 6"), "{}", refused.problem);
}
