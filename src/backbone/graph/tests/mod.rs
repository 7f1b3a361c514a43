#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    reason = "tests"
)]

mod batch;
mod doubt;
mod files;
pub(super) mod make;

use std::path::Path;

use prost::Message;

use self::make::{bytes, classifier, floats, graph, integers, network, node, value, with_int};
use super::access::{real_inputs, tensor_type};
use super::{FeatureModel, onnx};
use crate::backbone::onnx::tensor_proto::DataType;
use crate::backbone::onnx::tensor_shape_proto::dimension::Value;
use crate::backbone::onnx::{GraphProto, ModelProto};
use crate::error::{Error, ErrorKind, Result};

fn cut(model: &ModelProto, feature: Option<&str>) -> Result<FeatureModel> {
    FeatureModel::from_bytes(bytes(model), Path::new("made.onnx"), feature)
}

/// The cut model and its decoded graph.
fn taken(model: &ModelProto, feature: Option<&str>) -> (FeatureModel, GraphProto) {
    let taken = cut(model, feature).unwrap();
    let graph = ModelProto::decode(taken.onnx.as_slice()).unwrap().graph.unwrap();
    assert_eq!(graph.output.len(), 1);
    assert_eq!(graph.output[0].name(), taken.output);
    let made: Vec<&String> = graph.node.iter().flat_map(|node| &node.output).collect();
    assert_eq!(
        made.iter().filter(|name| **name == &taken.output).count(),
        1,
        "the output is made exactly once"
    );
    assert!(
        matches!(dims(&graph.input[0])[0], Some(Value::DimParam(_))),
        "the batch is open"
    );
    (taken, graph)
}

fn dims(value: &onnx::ValueInfoProto) -> Vec<Option<Value>> {
    tensor_type(value)
        .unwrap()
        .shape
        .as_ref()
        .unwrap()
        .dim
        .iter()
        .map(|dim| dim.value.clone())
        .collect()
}

fn operators(graph: &GraphProto) -> Vec<&str> {
    graph.node.iter().map(onnx::NodeProto::op_type).collect()
}

fn weights(graph: &GraphProto) -> Vec<&str> {
    graph.initializer.iter().map(onnx::TensorProto::name).collect()
}

fn error_text(model: &ModelProto, feature: Option<&str>) -> String {
    let error = cut(model, feature).unwrap_err();
    format!("{error}\n{}", error.hint().unwrap_or_default())
}

#[test]
fn gemm_with_transposed_weight_is_cut_off() {
    let (taken, graph) = taken(&classifier(), None);
    assert_eq!(
        (taken.input.as_str(), taken.output.as_str(), taken.dim),
        ("x", "flat", Some(5))
    );
    assert_eq!(taken.input_size, (8, 8));
    assert_eq!(operators(&graph), ["Conv", "Relu", "GlobalAveragePool", "Flatten"]);
    assert_eq!(weights(&graph), ["conv.weight"]);
    assert_eq!(
        dims(&graph.output[0]),
        [Some(Value::DimParam("n".into())), Some(Value::DimValue(5))]
    );
}

#[test]
fn gemm_with_plain_weight_gives_the_other_dimension() {
    let mut model = classifier();
    graph(&mut model).node[4].attribute.clear();
    graph(&mut model).initializer[1] = floats("fc.weight", &[5, 7]);
    let (taken, _) = taken(&model, None);
    assert_eq!((taken.output.as_str(), taken.dim), ("flat", Some(5)));
}

#[test]
fn gemm_with_transposed_features_is_refused() {
    let mut model = classifier();
    let gemm = graph(&mut model).node[4].clone();
    graph(&mut model).node[4] = with_int(gemm, "transA", 1);
    assert!(error_text(&model, None).contains("transA"));
}

#[test]
fn matmul_with_bias_on_either_side_and_without() {
    for (left, right) in [("product", "bias"), ("bias", "product")] {
        let nodes = vec![
            node("Flatten", &["pooled"], "flat"),
            node("MatMul", &["flat", "w"], "product"),
            node("Add", &[left, right], "logits"),
        ];
        let (taken, graph) = taken(
            &network(nodes, vec![floats("w", &[5, 7]), floats("bias", &[7])], &["logits"]),
            None,
        );
        assert_eq!((taken.output.as_str(), taken.dim), ("flat", Some(5)));
        assert_eq!(operators(&graph).last(), Some(&"Flatten"));
    }
    let nodes = vec![
        node("Flatten", &["pooled"], "flat"),
        node("MatMul", &["flat", "w"], "logits"),
    ];
    let (taken, _) = taken(&network(nodes, vec![floats("w", &[5, 7])], &["logits"]), None);
    assert_eq!((taken.output.as_str(), taken.dim), ("flat", Some(5)));
}

#[test]
fn weight_may_pass_through_transpose_and_dequantisation() {
    let nodes = vec![
        node("Flatten", &["pooled"], "flat"),
        node("DequantizeLinear", &["w", "scale"], "w.float"),
        node("Transpose", &["w.float"], "w.turned"),
        node("MatMul", &["flat", "w.turned"], "logits"),
    ];
    let (taken, graph) = taken(
        &network(nodes, vec![floats("w", &[7, 5]), floats("scale", &[])], &["logits"]),
        None,
    );
    assert_eq!((taken.output.as_str(), taken.dim), ("flat", Some(5)));
    assert_eq!(weights(&graph), ["conv.weight"]);
}

#[test]
fn one_by_one_convolution_of_a_pooled_map_is_a_classifier() {
    let nodes = vec![
        node("Conv", &["pooled", "pred"], "scores"),
        node("Reshape", &["scores", "shape"], "logits"),
    ];
    let model = network(
        nodes,
        vec![floats("pred", &[7, 5, 1, 1]), integers("shape", &[0, -1])],
        &["logits"],
    );
    let (taken, graph) = taken(&model, None);
    assert_eq!((taken.output.as_str(), taken.dim), ("pooled", Some(5)));
    assert_eq!(operators(&graph), ["Conv", "Relu", "GlobalAveragePool", "Flatten"]);
}

#[test]
fn features_only_model_is_taken_as_it_is() {
    let (flat, _) = taken(
        &network(vec![node("Flatten", &["pooled"], "flat")], Vec::new(), &["flat"]),
        None,
    );
    assert_eq!((flat.output.as_str(), flat.dim), ("flat", Some(5)));
    // Rank 4: flattened, under the same name.
    let (pooled, graph) = taken(&network(Vec::new(), Vec::new(), &["pooled"]), None);
    assert_eq!((pooled.output.as_str(), pooled.dim), ("pooled", Some(5)));
    assert_eq!(operators(&graph), ["Conv", "Relu", "GlobalAveragePool", "Flatten"]);
    assert_eq!(graph.node[2].output, graph.node[3].input);
    assert_eq!(dims(&graph.output[0])[1], Some(Value::DimValue(5)));
}

#[test]
fn chosen_map_is_averaged_and_chosen_logits_are_kept() {
    let (relu, graph) = taken(&classifier(), Some("relu"));
    assert_eq!((relu.output.as_str(), relu.dim), ("relu", Some(5)));
    assert_eq!(operators(&graph), ["Conv", "Relu", "GlobalAveragePool", "Flatten"]);
    let (logits, graph) = taken(&classifier(), Some("logits"));
    assert_eq!((logits.output.as_str(), logits.dim), ("logits", Some(7)));
    assert_eq!(weights(&graph), ["conv.weight", "fc.weight", "fc.bias"]);
}

#[test]
fn unknown_feature_is_a_usage_error_that_names_the_best() {
    let error = cut(&classifier(), Some("flatten")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    let Error::UnknownTensor { candidates, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(candidates[0], "flat");
    assert!(candidates.contains(&"pooled".to_owned()), "{candidates:?}");
    assert!(cut(&classifier(), Some("x")).is_err(), "the input is no feature");
    assert!(cut(&classifier(), Some("fc.weight")).is_err(), "a weight is no feature");
}

#[test]
fn softmax_without_a_classifier_is_refused() {
    let nodes = vec![
        node("Flatten", &["pooled"], "flat"),
        node("Softmax", &["flat"], "probabilities"),
    ];
    let text = error_text(&network(nodes, Vec::new(), &["probabilities"]), None);
    assert!(text.contains("probabilities") && text.contains("`flat`"), "{text}");
}

#[test]
fn the_first_output_with_a_classifier_counts() {
    let mut model = classifier();
    let inner = graph(&mut model);
    inner.node.push(node("MatMul", &["flat2", "aux.weight"], "aux"));
    inner.node.insert(4, node("Relu", &["flat"], "flat2"));
    inner.initializer.push(floats("aux.weight", &[5, 7]));
    inner.output.insert(0, value("relu", DataType::Float, &[0, 5, 6, 6]));
    inner.output.push(value("aux", DataType::Float, &[0, 7]));
    assert_eq!(taken(&model, None).0.output, "flat");
}

#[test]
fn weights_listed_as_inputs_are_no_inputs() {
    for ir_version in [3, 8] {
        let mut model = classifier();
        model.ir_version = Some(ir_version);
        let inner = graph(&mut model);
        inner
            .input
            .insert(0, value("conv.weight", DataType::Float, &[5, 3, 3, 3]));
        inner.input.push(value("fc.weight", DataType::Float, &[7, 5]));
        let taken = cut(&model, None).unwrap();
        assert_eq!(taken.input, "x");
        let decoded = ModelProto::decode(taken.onnx.as_slice()).unwrap();
        assert_eq!(decoded.ir_version(), ir_version);
        let names: Vec<&str> = decoded
            .graph
            .as_ref()
            .unwrap()
            .input
            .iter()
            .map(onnx::ValueInfoProto::name)
            .collect();
        // Only version 3 demands that weights stand among the inputs.
        assert_eq!(
            names,
            if ir_version == 3 {
                vec!["conv.weight", "x"]
            } else {
                vec!["x"]
            }
        );
        assert_eq!(real_inputs(decoded.graph.as_ref().unwrap()).count(), 1);
    }
}

#[test]
fn inputs_that_are_no_rgb_batch_are_described() {
    let with_input = |element, dims: &[i64]| {
        let mut model = classifier();
        graph(&mut model).input[0] = value("x", element, dims);
        error_text(&model, None)
    };
    for (element, dims, said) in [
        (DataType::Float, [0, 1, 8, 8].as_slice(), "`x` float [n, 1, 8, 8]"),
        (DataType::Float, &[0, 8, 8, 3], "`x` float [n, 8, 8, 3]"),
        (DataType::Float, &[0, 0, 0, 3], "`x` float [n, n, n, 3]"),
        (DataType::Float, &[0, 192], "`x` float [n, 192]"),
        (DataType::Uint8, &[0, 3, 8, 8], "`x` uint8 [n, 3, 8, 8]"),
        (DataType::Float16, &[0, 3, 8, 8], "`x` float16 [n, 3, 8, 8]"),
    ] {
        let text = with_input(element, dims);
        assert!(
            text.contains(said) && text.contains("made.onnx") && text.contains("[batch, 3, height"),
            "{text}"
        );
    }
}

#[test]
fn two_inputs_are_refused_only_if_the_features_need_both() {
    let mut model = classifier();
    graph(&mut model).input.push(value("label", DataType::Float, &[0, 5]));
    assert_eq!(taken(&model, None).0.input, "x");
    graph(&mut model)
        .node
        .insert(4, node("Add", &["flat", "label"], "mixed"));
    graph(&mut model).node[5].input[0] = "mixed".into();
    let text = error_text(&model, None);
    assert!(
        text.contains("2 inputs: `x` float") && text.contains("`label`"),
        "{text}"
    );
}

#[test]
fn open_sides_are_224_and_float_data_passes_through() {
    let mut model = classifier();
    graph(&mut model).input[0] = value("x", DataType::Float, &[0, 3, -1, -1]);
    let weight = &mut graph(&mut model).initializer[0];
    weight.raw_data = None;
    weight.float_data = (0..135).map(|index| index as f32).collect();
    let expected = weight.clone();
    let (taken, graph) = taken(&model, None);
    assert_eq!(taken.input_size, (224, 224));
    assert_eq!(graph.initializer, [expected]);
    assert_eq!(dims(&graph.input[0])[2], Some(Value::DimParam("height".into())));
}

#[test]
fn half_precision_features_are_cast() {
    let cast = |input: &str, output: &str| with_int(node("Cast", &[input], output), "to", DataType::Float16 as i64);
    let (taken, graph) = taken(
        &network(
            vec![cast("pooled", "half"), node("Flatten", &["half"], "flat")],
            Vec::new(),
            &["flat"],
        ),
        None,
    );
    assert_eq!(taken.output, "flat");
    assert_eq!(operators(&graph).last(), Some(&"Cast"));
    assert_eq!(graph.node.last().unwrap().attribute[0].i, Some(1));
}

#[test]
fn tensors_read_inside_a_subgraph_are_kept() {
    let mut branch = node("If", &["condition"], "flat");
    let inner = GraphProto {
        node: vec![node("Add", &["squeezed", "shift"], "inner")],
        output: vec![value("inner", DataType::Float, &[0, 5])],
        ..GraphProto::default()
    };
    branch.attribute.push(onnx::AttributeProto {
        name: Some("then_branch".into()),
        g: Some(inner),
        ..onnx::AttributeProto::default()
    });
    let nodes = vec![
        node("Flatten", &["pooled"], "squeezed"),
        branch,
        with_int(node("Gemm", &["flat", "fc"], "logits"), "transB", 1),
    ];
    let model = network(
        nodes,
        vec![floats("shift", &[5]), floats("condition", &[]), floats("fc", &[7, 5])],
        &["logits"],
    );
    let (_, graph) = taken(&model, None);
    assert_eq!(weights(&graph), ["conv.weight", "shift", "condition"]);
    assert!(operators(&graph).contains(&"Flatten"));
}

#[test]
fn the_reference_backbone_is_cut_at_its_512_features() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/models/resnet18.onnx");
    if !path.exists() {
        #[expect(clippy::print_stderr, reason = "says that nothing was tested")]
        {
            eprintln!("skipped: ../shared is absent");
        }
        return;
    }
    let taken = FeatureModel::load(&path, None).unwrap();
    assert_eq!((taken.input.as_str(), taken.output.as_str()), ("input", "flatten_out"));
    assert_eq!((taken.dim, taken.input_size), (Some(512), (224, 224)));
    let graph = ModelProto::decode(taken.onnx.as_slice()).unwrap().graph.unwrap();
    assert!(matches!(
        dims(&graph.output[0])[..],
        [Some(Value::DimParam(_)), Some(Value::DimValue(512))]
    ));
    // 11.69 million parameters, of which the 1000-class layer has 513,000; BatchNorm is folded.
    let parameters: i64 = graph
        .initializer
        .iter()
        .map(|tensor| tensor.dims.iter().product::<i64>())
        .sum();
    assert!((11_100_000..11_200_000).contains(&parameters), "{parameters}");
    assert_eq!(
        taken.onnx,
        FeatureModel::load(&path, None).unwrap().onnx,
        "same bytes in, same bytes out"
    );
}

#[test]
fn the_seeds_are_what_is_written() {
    let check = |name, model: &ModelProto| crate::hostile::check_seed("onnx", name, &bytes(model));
    let mut model = classifier();
    check("classifier.onnx", &model);
    graph(&mut model).input[0] = value("x", DataType::Float, &[1, 3, 8, 8]);
    check("fixed_batch.onnx", &model);
}
