//! A batch fixed in the file is opened, or left where that can't be done.

use prost::Message;

use super::make::{classifier, floats, graph, integers, network, node, value, with_int};
use super::{cut, dims, taken};
use crate::backbone::graph::access::small_ints;
use crate::backbone::onnx::ModelProto;
use crate::backbone::onnx::tensor_proto::DataType;
use crate::backbone::onnx::tensor_shape_proto::dimension::Value;

/// Reshape instead of Flatten, with everything fixed to one picture.
fn fixed(shape: &[i64]) -> ModelProto {
    let mut model = classifier();
    let inner = graph(&mut model);
    inner.input[0] = value("x", DataType::Float, &[1, 3, 8, 8]);
    inner.node[3] = node("Reshape", &["pooled", "shape"], "flat");
    inner.initializer.push(integers("shape", shape));
    inner.value_info.push(value("relu", DataType::Float, &[1, 5, 6, 6]));
    model
}

#[test]
fn reshapes_to_one_picture_follow_the_batch() {
    for (shape, opened) in [([1, 5], [0, 5]), ([1, -1], [0, -1])] {
        let (taken, graph) = taken(&fixed(&shape), None);
        assert_eq!(taken.dim, Some(5));
        assert_eq!(dims(&graph.input[0])[0], Some(Value::DimParam("batch".into())));
        assert_eq!(
            dims(&graph.output[0]),
            [Some(Value::DimParam("batch".into())), Some(Value::DimValue(5))]
        );
        let constant = graph
            .initializer
            .iter()
            .find(|tensor| tensor.name() == graph.node[3].input[1])
            .unwrap();
        assert_eq!(small_ints(constant).unwrap(), opened);
        assert!(
            graph.initializer.iter().all(|tensor| tensor.name() != "shape"),
            "the old shape is gone"
        );
        assert!(
            graph
                .value_info
                .iter()
                .all(|value| crate::backbone::graph::tensor_type(value).unwrap().shape.is_none())
        );
    }
}

#[test]
fn a_shape_that_something_else_reads_stays_for_it() {
    let mut model = fixed(&[1, 5]);
    let inner = graph(&mut model);
    inner.node.insert(3, node("Expand", &["scale", "shape"], "expanded"));
    inner.node.insert(5, node("Mul", &["flat", "expanded"], "scaled"));
    inner.node[6].input[0] = "scaled".into();
    inner.initializer.push(floats("scale", &[1, 5]));
    let (_, graph) = taken(&model, None);
    assert_eq!(graph.node[3].input[1], "shape");
    assert_ne!(graph.node[4].input[1], "shape");
}

#[test]
fn a_reshape_after_something_unknown_takes_what_is_left() {
    let mut model = fixed(&[1, 5]);
    let mut custom = node("Custom", &["pooled"], "custom");
    custom.domain = Some("example".into());
    graph(&mut model).node.insert(3, custom);
    graph(&mut model).node[4].input[0] = "custom".into();
    let (_, graph) = taken(&model, None);
    let constant = graph
        .initializer
        .iter()
        .find(|tensor| tensor.name() == graph.node[4].input[1])
        .unwrap();
    assert_eq!(small_ints(constant).unwrap(), [-1, 5]);
}

#[test]
fn an_open_batch_leaves_reshapes_alone() {
    let mut model = fixed(&[-1, 5]);
    graph(&mut model).input[0] = value("x", DataType::Float, &[0, 3, 8, 8]);
    let (_, graph) = taken(&model, None);
    assert_eq!(graph.node[3].input[1], "shape");
}

#[test]
fn a_constant_that_is_reshaped_has_no_batch() {
    let mut model = fixed(&[1, 5]);
    let inner = graph(&mut model);
    inner.node.insert(3, node("Reshape", &["bias", "map"], "bias.map"));
    inner.node.insert(4, node("Add", &["pooled", "bias.map"], "moved"));
    inner.node[5].input[0] = "moved".into();
    inner
        .initializer
        .extend([floats("bias", &[5]), integers("map", &[1, -1, 1, 1])]);
    let (taken, graph) = taken(&model, None);
    assert_eq!(graph.node[3].input[1], "map");
    assert_ne!(graph.node[5].input[1], "shape");
    assert_eq!(taken.dim, Some(5));
}

#[test]
fn the_file_s_own_batch_is_kept_beside_the_opened_one() {
    let mut model = fixed(&[1, 5]);
    let taken = cut(&model, None).unwrap();
    let kept = taken.fixed_batch.as_ref().unwrap();
    assert_eq!(kept.batch, 1);
    let kept = ModelProto::decode(kept.unopened(&taken.onnx).unwrap().as_slice()).unwrap();
    // What the file says, less the classifier, and with the feature as its output.
    let inner = graph(&mut model);
    inner.node.truncate(4);
    inner.initializer.retain(|tensor| !tensor.name().starts_with("fc."));
    inner.output = vec![value("flat", DataType::Float, &[1, 5])];
    assert_eq!(kept, model);
    assert!(
        cut(&classifier(), None).unwrap().fixed_batch.is_none(),
        "nothing to keep"
    );
}

#[test]
fn a_graph_bound_to_one_picture_keeps_its_batch() {
    // A class token of one picture is joined to the patches: nothing short of a rewrite opens that batch.
    let nodes = vec![
        node("Reshape", &["pooled", "shape"], "patches"),
        with_int(node("Concat", &["token", "patches"], "joined"), "axis", 1),
        with_int(node("Gather", &["joined", "first"], "flat"), "axis", 1),
        with_int(node("Gemm", &["flat", "fc"], "logits"), "transB", 1),
    ];
    let mut first = integers("first", &[0]);
    first.dims.clear();
    let weights = vec![
        integers("shape", &[1, 1, 5]),
        floats("token", &[1, 1, 5]),
        first,
        floats("fc", &[7, 5]),
    ];
    let mut model = network(nodes, weights, &["logits"]);
    graph(&mut model).input[0] = value("x", DataType::Float, &[1, 3, 8, 8]);
    let taken = cut(&model, None).unwrap();
    let kept = ModelProto::decode(taken.onnx.as_slice()).unwrap().graph.unwrap();
    assert_eq!(dims(&kept.input[0])[0], Some(Value::DimValue(1)));
    assert_eq!(
        dims(&kept.output[0]),
        [Some(Value::DimValue(1)), Some(Value::DimValue(5))]
    );
    let kept = taken.fixed_batch.unwrap();
    assert!(kept.batch == 1 && kept.unopened(&taken.onnx).is_none());
}

#[test]
fn an_older_file_lists_the_new_shape_among_its_inputs() {
    let mut model = fixed(&[1, -1]);
    model.ir_version = Some(3);
    let taken = cut(&model, None).unwrap();
    let graph = ModelProto::decode(taken.onnx.as_slice()).unwrap().graph.unwrap();
    assert!(graph.input.iter().any(|value| value.name() == graph.node[3].input[1]));
}
