//! Half precision against the same graph in f32, both run by ONNX Runtime on the CPU, and against known bit patterns.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use super::*;
use crate::Quiet;
use crate::backbone::graph::tests::make::{
    classifier, floats, graph, integers, model, network, node, trunk, value, with_int,
};
use crate::backbone::runtime::tests_runtime;
use crate::backbone::session::{RunOptions, Session, SessionOptions};
use crate::backbone::trial::noise;

const PICTURE: [usize; 3] = [3, 8, 8];

fn random(name: &str, dims: &[i64], scale: f32) -> TensorProto {
    let mut tensor = floats(name, dims);
    let count = tensor.raw_data.as_ref().unwrap().len() / 4;
    let seed = name.len() as u64;
    let raw = (0..count).flat_map(|index| (scale * (noise([seed, 0, 0, index as u64]) - 0.5)).to_le_bytes());
    tensor.raw_data = Some(Bytes::from_iter(raw));
    tensor
}

fn scalar(name: &str, number: f32) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        data_type: Some(FLOAT),
        float_data: vec![number],
        ..TensorProto::default()
    }
}

fn run(model: &[u8], output: &str, scale: f32) -> Vec<f32> {
    let options = SessionOptions {
        input: "x",
        output,
        picture: PICTURE,
        run: RunOptions::cpu(1),
    };
    let mut session = Session::open(tests_runtime(), model, &options, &Quiet).unwrap();
    let length = 2 * PICTURE.iter().product::<usize>();
    let batch: Vec<f32> = (0..length)
        .map(|index| scale * (noise([9, 0, 0, index as u64]) - 0.3))
        .collect();
    session.run(&batch, 2).unwrap()
}

fn cosine(left: &[f32], right: &[f32]) -> f64 {
    let dot = |one: &[f32], other: &[f32]| -> f64 {
        one.iter()
            .zip(other)
            .map(|(one, other)| f64::from(*one) * f64::from(*other))
            .sum()
    };
    dot(left, right) / (dot(left, left) * dot(right, right)).sqrt()
}

/// Converts `model` and compares what it gives for pictures of values up to `scale` with what it gave before.
fn compare(model: &ModelProto, output: &str, scale: f32) -> (HalfModel, ModelProto) {
    let bytes = model.encode_to_vec();
    let half = HalfModel::of(&bytes).unwrap();
    let (expected, found) = (run(&bytes, output, scale), run(&half.onnx, output, scale));
    assert_eq!(found.len(), expected.len());
    let cosine = cosine(&expected, &found);
    assert!(cosine >= 0.999, "{output}: {cosine}\n{expected:?}\n{found:?}");
    assert!(expected != found, "{output} was computed in f32");
    let decoded = ModelProto::decode(half.onnx.as_slice()).unwrap();
    (half, decoded)
}

fn operators_of(model: &ModelProto) -> Vec<&str> {
    model
        .graph
        .as_ref()
        .unwrap()
        .node
        .iter()
        .map(NodeProto::op_type)
        .collect()
}

#[test]
fn a_network_computes_nearly_the_same_with_weights_and_input_of_f16() {
    let mut model = classifier();
    graph(&mut model).value_info = vec![value("relu", DataType::Float, &[0, 5, 6, 6])];
    graph(&mut model).initializer[0] = random("conv.weight", &[5, 3, 3, 3], 1.0);
    let (half, converted) = compare(&model, "probabilities", 1.0);
    assert_eq!((half.clamped, half.kept.len()), (0, 0));
    let converted = converted.graph.unwrap();
    let types: Vec<i32> = converted.initializer.iter().map(TensorProto::data_type).collect();
    assert_eq!(types, [HALF; 3]);
    assert_eq!(tensor_type(&converted.input[0]).unwrap().elem_type(), HALF);
    assert_eq!(tensor_type(&converted.value_info[0]).unwrap().elem_type(), HALF);
    assert_eq!(tensor_type(&converted.output[0]).unwrap().elem_type(), FLOAT);
    let operators: Vec<_> = converted.node.iter().map(NodeProto::op_type).collect();
    assert_eq!(
        operators,
        [
            "Conv",
            "Relu",
            "GlobalAveragePool",
            "Flatten",
            "Gemm",
            "Softmax",
            "Cast"
        ]
    );
}

#[test]
fn weights_are_rounded_as_ieee_754_says_and_neither_vanish_nor_overflow() {
    // Bit patterns of binary16 from IEEE 754's own definition: sign, 5 bits of exponent, 10 of mantissa.
    let cases: [(f32, u16); 12] = [
        (1.0, 0x3c00),
        (0.1, 0x2e66),
        (-2.5, 0xc100),
        (65504.0, 0x7bff),
        (1e6, 0x7bff),
        (f32::MIN, 0xfbff),
        (1e-5, 0x00a8),
        (1e-30, 0x0001),
        (-1e-30, 0x8001),
        (0.0, 0x0000),
        (f32::INFINITY, 0x7c00),
        (f32::NEG_INFINITY, 0xfc00),
    ];
    let values: Vec<f32> = cases.iter().map(|(value, _)| *value).collect();
    let raw = values.iter().flat_map(|value| value.to_le_bytes());
    let mut raw = TensorProto {
        raw_data: Some(Bytes::from_iter(raw)),
        ..scalar("raw", 0.0)
    };
    raw.float_data.clear();
    let mut listed = TensorProto {
        float_data: values,
        ..scalar("listed", 0.0)
    };
    for tensor in [&mut raw, &mut listed] {
        assert_eq!(halve(tensor), 2);
        assert_eq!((tensor.data_type(), tensor.float_data.len()), (HALF, 0));
        let bits = tensor.raw_data.as_ref().unwrap().chunks_exact(2);
        let bits: Vec<u16> = bits.map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]])).collect();
        assert_eq!(bits, cases.map(|(_, bits)| bits));
    }
}

#[test]
fn a_normalisation_that_is_written_out_survives_squares_beyond_f16() {
    // Values around 1000, whose squares f16 can't hold.
    let nodes = vec![
        node("Flatten", &["relu"], "flat"),
        with_ints(node("ReduceMean", &["flat"], "mean"), "axes", &[1]),
        node("Sub", &["flat", "mean"], "centred"),
        node("Pow", &["centred", "two"], "squares"),
        with_ints(node("ReduceMean", &["squares"], "variance"), "axes", &[1]),
        node("Add", &["variance", "epsilon"], "safe"),
        node("Sqrt", &["safe"], "deviation"),
        node("Div", &["centred", "deviation"], "normal"),
    ];
    let weights = vec![scalar("two", 2.0), scalar("epsilon", 1e-12)];
    let mut model = network(nodes, weights, &["normal"]);
    graph(&mut model)
        .node
        .retain(|node| node.op_type() != "GlobalAveragePool");
    graph(&mut model).initializer[0] = random("conv.weight", &[5, 3, 3, 3], 1.0);
    let (half, converted) = compare(&model, "normal", 2000.0);
    let kept: Vec<_> = half.kept.iter().map(String::as_str).collect();
    assert_eq!(
        kept,
        ["Add", "Pow", "ReduceMean", "Sqrt"],
        "{:?}",
        operators_of(&converted)
    );
}

fn with_ints(mut node: NodeProto, name: &str, values: &[i64]) -> NodeProto {
    node.attribute.push(AttributeProto {
        name: Some(name.into()),
        r#type: Some(AttributeType::Ints as i32),
        ints: values.to_vec(),
        ..AttributeProto::default()
    });
    node
}

#[test]
fn what_has_no_f16_kernel_stays_f32_between_casts() {
    // Clip got its f16 kernel for CUDA in opset 12.
    for (opset, kept) in [(11, true), (13, false)] {
        let nodes = vec![
            node("Clip", &["pooled", "low", "high"], "clipped"),
            node("Flatten", &["clipped"], "flat"),
        ];
        let weights = vec![scalar("low", 0.0), scalar("high", 6.0)];
        let mut model = network(nodes, weights, &["flat"]);
        graph(&mut model).initializer[0] = random("conv.weight", &[5, 3, 3, 3], 3.0);
        model.opset_import[0].version = Some(opset);
        let (half, converted) = compare(&model, "flat", 1.0);
        assert_eq!(half.kept.contains("Clip"), kept, "opset {opset}");
        let casts = operators_of(&converted).iter().filter(|name| **name == "Cast").count();
        assert_eq!(
            casts,
            if kept { 3 } else { 1 },
            "opset {opset}: {:?}",
            operators_of(&converted)
        );
        let low = converted
            .graph
            .as_ref()
            .unwrap()
            .initializer
            .iter()
            .find(|tensor| tensor.name().starts_with("low"));
        assert_eq!(low.unwrap().data_type(), if kept { FLOAT } else { HALF });
    }
}

#[test]
fn a_weight_that_both_kinds_read_is_there_in_both() {
    let nodes = vec![
        node("Flatten", &["pooled"], "flat"),
        node("Mul", &["flat", "scale"], "scaled"),
        node("Exp", &["scaled"], "grown"),
        node("Pow", &["grown", "scale"], "power"),
    ];
    let mut model = network(nodes, vec![random("scale", &[5], 2.0)], &["power"]);
    graph(&mut model).initializer[0] = random("conv.weight", &[5, 3, 3, 3], 1.0);
    let (half, converted) = compare(&model, "power", 1.0);
    assert!(
        half.kept.contains("Exp") && half.kept.contains("Pow"),
        "{:?}",
        half.kept
    );
    let scales = converted.graph.as_ref().unwrap().initializer.iter();
    let scales: Vec<_> = scales
        .filter(|tensor| tensor.name().starts_with("scale"))
        .map(|tensor| (tensor.name(), tensor.data_type()))
        .collect();
    assert_eq!(scales, [("scale_half", HALF), ("scale", FLOAT)]);
}

#[test]
fn constants_and_lengths_computed_in_floats_are_understood() {
    let constant = |output: &str, attribute: AttributeProto| NodeProto {
        attribute: vec![attribute],
        ..node("Constant", &[], output)
    };
    let tensor = AttributeProto {
        name: Some("value".into()),
        r#type: Some(AttributeType::Tensor as i32),
        t: Some(random("", &[5], 1.0)),
        ..AttributeProto::default()
    };
    let number = AttributeProto {
        name: Some("value_float".into()),
        r#type: Some(AttributeType::Float as i32),
        f: Some(3.0),
        ..AttributeProto::default()
    };
    let shape = integers("one", &[1]);
    let nodes = vec![
        constant("offset", tensor),
        constant("factor", number),
        node("Flatten", &["pooled"], "flat"),
        node("Add", &["flat", "offset"], "moved"),
        node("Mul", &["moved", "factor"], "larger"),
        // 3 × 683 + 1 = 2050, which f16 would round to itself, and 2049 to 2048.
        node("Shape", &["relu"], "shape"),
        with_int(node("Gather", &["shape", "zero"], "count"), "axis", 0),
        with_int(node("Cast", &["count"], "count_f32"), "to", i64::from(FLOAT)),
        node("Mul", &["count_f32", "odd"], "product"),
        with_int(node("Cast", &["product"], "length"), "to", DataType::Int64 as i64),
        node("ConstantOfShape", &["length"], "zeros"),
        node("ReduceSum", &["zeros"], "nothing"),
        node("Shape", &["zeros"], "zeros_shape"),
        with_int(node("Cast", &["zeros_shape"], "zeros_length"), "to", i64::from(FLOAT)),
        node("Sub", &["zeros_length", "expected"], "wrong"),
        node("Add", &["larger", "nothing"], "more"),
        node("Add", &["more", "wrong"], "feature"),
    ];
    let mut zero = integers("zero", &[0]);
    zero.dims = vec![1];
    let odd = |name: &str, number| TensorProto {
        dims: vec![1],
        ..scalar(name, number)
    };
    let weights = vec![shape, zero, odd("odd", 1024.5), odd("expected", 2049.0)];
    let mut model = network(nodes, weights, &["feature"]);
    graph(&mut model).initializer[0] = random("conv.weight", &[5, 3, 3, 3], 1.0);
    let (_, converted) = compare(&model, "feature", 1.0);
    assert!(!operators_of(&converted).contains(&"Constant"));
}

#[test]
fn graphs_inside_get_f32_from_outside() {
    let branch = |operator: &str, output: &str| GraphProto {
        name: Some(output.into()),
        node: vec![node(operator, &["flat"], output)],
        output: vec![value(output, DataType::Float, &[0, 5])],
        ..GraphProto::default()
    };
    let attribute = |name: &str, graph| AttributeProto {
        name: Some(name.into()),
        r#type: Some(AttributeType::Graph as i32),
        g: Some(graph),
        ..AttributeProto::default()
    };
    let yes = TensorProto {
        name: Some("yes".into()),
        data_type: Some(DataType::Bool as i32),
        int32_data: vec![1],
        ..TensorProto::default()
    };
    let mut either = node("If", &["yes"], "either");
    either.attribute = vec![
        attribute("then_branch", branch("Sigmoid", "then")),
        attribute("else_branch", branch("Tanh", "else")),
    ];
    let nodes = vec![node("Flatten", &["pooled"], "flat"), either];
    let mut model = network(nodes, vec![yes], &["either"]);
    graph(&mut model).initializer[0] = random("conv.weight", &[5, 3, 3, 3], 1.0);
    let (half, converted) = compare(&model, "either", 1.0);
    assert!(half.kept.contains("If"));
    assert_eq!(
        operators_of(&converted).last(),
        Some(&"If"),
        "its result is f32 already"
    );
}

#[test]
fn weights_that_are_inputs_too_need_no_second_declaration() {
    let (mut nodes, weights) = trunk();
    nodes.push(node("Flatten", &["pooled"], "flat"));
    let mut old = model(nodes, weights, &["flat"]);
    old.ir_version = Some(3);
    old.opset_import[0].version = Some(7);
    graph(&mut old).initializer[0] = random("conv.weight", &[5, 3, 3, 3], 1.0);
    graph(&mut old)
        .input
        .push(value("conv.weight", DataType::Float, &[5, 3, 3, 3]));
    let (_, converted) = compare(&old, "flat", 1.0);
    assert_eq!((converted.ir_version(), converted.graph.unwrap().input.len()), (4, 1));
}

#[test]
fn the_same_bytes_in_give_the_same_bytes_out() {
    let bytes = classifier().encode_to_vec();
    let first = HalfModel::of(&bytes).unwrap().onnx;
    assert_eq!(first, HalfModel::of(&bytes).unwrap().onnx);
    assert!(first.len() < bytes.len());
}

#[test]
fn resnet18_keeps_its_features() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/models/resnet18.onnx");
    if !path.is_file() {
        eprintln!("skipped: ../shared is absent");
        return;
    }
    let taken = crate::backbone::graph::FeatureModel::load(&path, None).unwrap();
    let half = HalfModel::of(&taken.onnx).unwrap();
    assert_eq!((half.clamped, half.kept.len()), (0, 0), "{:?}", half.kept);
    assert!(half.onnx.len() * 2 < taken.onnx.len() + 100_000);
    let options = SessionOptions {
        input: &taken.input,
        output: &taken.output,
        picture: [3, 224, 224],
        run: RunOptions::cpu(2),
    };
    // Blocks of 16 pixels, as far from noise as pictures are.
    let picture: Vec<f32> = (0..3 * 224 * 224)
        .map(|index| {
            let (channel, row, column) = (index / 50176, index / 224 % 224, index % 224);
            4.0 * noise([5, channel as u64, row as u64 / 16, column as u64 / 16]) - 2.0
        })
        .collect();
    let open = |model: &[u8]| Session::open(tests_runtime(), model, &options, &Quiet).unwrap();
    let mut sessions = [open(&taken.onnx), open(&half.onnx)];
    let results = sessions.each_mut().map(|session| session.run(&picture, 1).unwrap());
    let cosine = cosine(&results[0], &results[1]);
    assert!(results[0].len() == 512 && cosine >= 0.999, "{cosine}");
}
