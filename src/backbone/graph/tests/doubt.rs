//! Classifiers that are no plain last layer, and what is taken where none is sure.

use super::make::{classifier, floats, graph, integers, model, network, node, with_int};
use super::{operators, taken};
use crate::backbone::graph::Doubt;
use crate::backbone::onnx::attribute_proto::AttributeType;
use crate::backbone::onnx::{AttributeProto, ModelProto, NodeProto};

/// Conv 3×3 to `map`, then a 1×1 convolution to 7 classes, Relu, `average`, Flatten to `logits`: `SqueezeNet`'s end.
fn squeezenet(average: NodeProto, kernel: i64) -> ModelProto {
    let mut convolution = node("Conv", &["map", "pred", "pred.bias"], "scores");
    if kernel > 1 {
        convolution = with_int(convolution, "group", 1);
    }
    let nodes = vec![
        node("Conv", &["x", "conv"], "map"),
        convolution,
        node("Relu", &["scores"], "rectified"),
        average,
        node("Flatten", &["averaged"], "logits"),
    ];
    let weights = vec![
        floats("conv", &[5, 3, 3, 3]),
        floats("pred", &[7, 5, kernel, kernel]),
        floats("pred.bias", &[7]),
    ];
    model(nodes, weights, &["logits"])
}

fn averages() -> [NodeProto; 3] {
    let mut mean = with_int(node("ReduceMean", &["rectified"], "averaged"), "keepdims", 0);
    mean.attribute.push(AttributeProto {
        name: Some("axes".into()),
        r#type: Some(AttributeType::Ints as i32),
        ints: vec![-1, -2],
        ..AttributeProto::default()
    });
    let pool = |operator| node(operator, &["rectified"], "averaged");
    [pool("GlobalAveragePool"), pool("AveragePool"), mean]
}

#[test]
fn a_one_by_one_convolution_that_is_averaged_is_a_classifier() {
    for average in averages() {
        let mut model = squeezenet(average, 1);
        let (found, cut) = taken(&model, None);
        assert_eq!((found.output.as_str(), found.dim), ("map", Some(5)));
        assert_eq!(operators(&cut), ["Conv", "GlobalAveragePool", "Flatten"]);
        let output = "logits".to_owned();
        assert_eq!(found.doubt, Some(Doubt::AveragedConvolution { output }));
        assert_eq!(taken(&model, Some("map")).0.doubt, None);
        assert_eq!(taken(&model, Some("logits")).0.output, "logits");
        // A softmax leaves no doubt.
        let inner = graph(&mut model);
        inner.node.push(node("Softmax", &["logits"], "probabilities"));
        inner.output[0].name = Some("probabilities".into());
        let (found, _) = taken(&model, None);
        assert_eq!((found.output.as_str(), found.doubt), ("map", None));
    }
}

#[test]
fn a_map_of_unknown_rank_is_averaged_too() {
    let [average, ..] = averages();
    let mut model = squeezenet(average, 1);
    graph(&mut model).node[0].domain = Some("example".into());
    let (found, cut) = taken(&model, None);
    assert_eq!((found.output.as_str(), found.dim), ("map", Some(5)));
    assert_eq!(operators(&cut)[..3], ["Conv", "GlobalAveragePool", "Flatten"]);
}

#[test]
fn larger_convolutions_and_other_means_are_features() {
    let [average, _, mean] = averages();
    let (found, _) = taken(&squeezenet(average, 3), None);
    assert_eq!(
        (found.output.as_str(), found.doubt),
        ("logits", Some(Doubt::NoClassifier))
    );
    let mut channels = mean;
    channels.attribute[1].ints = vec![1];
    let mut model = squeezenet(channels, 1);
    graph(&mut model).node.pop();
    graph(&mut model).output[0].name = Some("rectified".into());
    let (found, _) = taken(&model, None);
    assert_eq!(
        (found.output.as_str(), found.doubt),
        ("rectified", Some(Doubt::NoClassifier))
    );
}

#[test]
fn logits_may_be_scaled_by_a_number() {
    for operator in ["Mul", "Div", "Add", "Sub"] {
        for order in [["logits", "number"], ["number", "logits"]] {
            let mut model = classifier();
            let inner = graph(&mut model);
            inner.node.truncate(5);
            inner.node.push(node(operator, &order, "scaled"));
            inner.initializer.push(floats("number", &[1]));
            inner.output[0].name = Some("scaled".into());
            let (found, _) = taken(&model, None);
            // A number divided by logits is no scaling.
            let is_scaling = order[0] == "logits" || matches!(operator, "Mul" | "Add");
            let expected = if is_scaling {
                ("flat", None)
            } else {
                ("scaled", Some(Doubt::NoClassifier))
            };
            assert_eq!((found.output.as_str(), found.doubt), expected, "{operator} {order:?}");
        }
    }
    // Not by a vector.
    let mut model = classifier();
    let inner = graph(&mut model);
    inner.node[5] = node("Mul", &["logits", "scales"], "probabilities");
    inner.initializer.push(floats("scales", &[7]));
    assert_eq!(taken(&model, None).0.output, "probabilities");
}

#[test]
fn an_output_taken_for_want_of_a_classifier_is_told() {
    let mut model = network(vec![node("Flatten", &["pooled"], "flat")], Vec::new(), &["flat"]);
    assert_eq!(taken(&model, None).0.doubt, Some(Doubt::NoClassifier));
    assert_eq!(taken(&model, Some("flat")).0.doubt, None);
    assert_eq!(taken(&classifier(), None).0.doubt, None);
    graph(&mut model).initializer.push(integers("unused", &[1]));
    assert_eq!(taken(&model, Some("pooled")).0.doubt, None);
}
