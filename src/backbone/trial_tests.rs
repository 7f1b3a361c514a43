//! Models made for one picture, run by ONNX Runtime on several.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::Mutex;

use bytes::Bytes;
use prost::Message as _;

use super::*;
use crate::Quiet;
use crate::backbone::build::{Axis, Edge, GraphBuilder, integers};
use crate::backbone::runtime::tests_runtime;

const SIDE: usize = 8;
const PICTURE: usize = 3 * SIDE * SIDE;
const CHANNELS: usize = 4;
/// Channels times 2 × 2 pixels.
const FEATURES: usize = 16;

/// What lies between a strided convolution's map `map` `[n, 4, 2, 2]` and the features `feature` `[n, 16]`.
type Middle = fn(&mut GraphBuilder, &Edge, i64) -> Edge;

/// Follows the batch as soon as the one Reshape does.
fn plain(graph: &mut GraphBuilder, map: &Edge, batch: i64) -> Edge {
    let shape = graph.integers("shape", &[2], &[batch, FEATURES as i64]);
    graph.node("Reshape", "feature", &[map, &shape], [])
}

/// A softmax over channel rows, which hold several pictures once there are several.
fn mixing(graph: &mut GraphBuilder, map: &Edge, batch: i64) -> Edge {
    let rows = graph.integers("rows", &[2], &[CHANNELS as i64, -1]);
    let rows = graph.node("Reshape", "channel_rows", &[map, &rows], []);
    let soft = graph.node("Softmax", "soft", &[&rows], []);
    plain(graph, &soft, batch)
}

/// Joined to something of exactly `batch` pictures, of a rank that hides it from the analysis.
fn failing(graph: &mut GraphBuilder, map: &Edge, batch: i64) -> Edge {
    let count = usize::try_from(batch).unwrap() * FEATURES;
    let rows = graph.integers("rows", &[2], &[2, -1]);
    let rows = graph.node("Reshape", "halves", &[map, &rows], []);
    let offset = vec![0.5; count];
    let offset = graph.floats("offset", &[2, count / 2], &offset);
    let moved = graph.node("Add", "moved", &[&rows, &offset], []);
    plain(graph, &moved, batch)
}

/// Joined to a constant for one picture, which the analysis sees.
fn refused(graph: &mut GraphBuilder, map: &Edge, batch: i64) -> Edge {
    let feature = plain(graph, map, batch);
    let length = usize::try_from(batch).unwrap();
    let none = graph.floats("none", &[length, 0], &[]);
    let axis = crate::backbone::build::integer("axis", 1);
    graph.node("Concat", "joined", &[&feature, &none], [axis])
}

/// `x [batch, 3, 8, 8]` to `[batch, 16]` features, with or without a classifier behind them.
fn model(middle: Middle, batch: i64, classifier: bool) -> Vec<u8> {
    let mut graph = GraphBuilder::new("g");
    let axes = [Axis::Fixed(batch), Axis::Fixed(3), Axis::Fixed(8), Axis::Fixed(8)];
    let x = graph.input("x", &axes);
    let weight: Vec<f32> = (0..CHANNELS * 3 * 16)
        .map(|index| noise([7, 0, 0, index as u64]) - 0.5)
        .collect();
    let weight = graph.floats("conv.weight", &[CHANNELS, 3, 4, 4], &weight);
    let map = graph.node("Conv", "map", &[&x, &weight], [integers("strides", &[4, 4])]);
    let feature = middle(&mut graph, &map, batch);
    if classifier {
        let weight = graph.floats("fc.weight", &[FEATURES, 2], &[0.25; 2 * FEATURES]);
        let logits = graph.node("Gemm", "logits", &[&feature, &weight], []);
        graph.output(&logits, &[Axis::Fixed(batch), Axis::Fixed(2)]);
    } else {
        graph.output(&feature, &[Axis::Fixed(batch), Axis::Fixed(FEATURES as i64)]);
    }
    graph.finish().encode_to_vec()
}

fn pictures(count: usize) -> Vec<f32> {
    (0..count * PICTURE)
        .map(|index| noise([3, 1, 4, index as u64]))
        .collect()
}

/// The features of each picture from the uncut file, which no surgery touched.
fn expected(file: &[u8], output: &str, batch: usize, pictures: &[f32]) -> Vec<f32> {
    let options = SessionOptions {
        input: "x",
        output,
        picture: [3, SIDE, SIDE],
        run: RunOptions::cpu(1),
    };
    let mut session = Session::open(tests_runtime(), file, &options, &Quiet).unwrap();
    let alone = pictures.chunks(PICTURE).map(|picture| {
        let filled = [picture, &vec![0.0; (batch - 1) * PICTURE]].concat();
        session.run(&filled, batch).unwrap()[..FEATURES].to_vec()
    });
    alone.collect::<Vec<_>>().concat()
}

#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Observer for Notes {
    fn note(&self, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }
}

fn cut(middle: Middle, batch: i64) -> FeatureModel {
    let file = Bytes::from(model(middle, batch, true));
    FeatureModel::from_bytes(file, Path::new("made.onnx"), None).unwrap()
}

#[test]
fn several_pictures_give_what_each_gives_alone() {
    let runtime = tests_runtime();
    for (name, middle, batch, opens) in [
        ("plain", plain as Middle, 1, true),
        ("plain", plain, 2, true),
        ("mixing", mixing, 1, false),
        ("failing", failing, 1, false),
        ("refused", refused, 1, false),
        ("refused", refused, 3, false),
    ] {
        let name = format!("{name}, batch {batch}");
        let taken = cut(middle, batch);
        let pictures = pictures(5);
        let file = model(middle, batch, false);
        let expected = expected(&file, &taken.output, usize::try_from(batch).unwrap(), &pictures);
        let notes = Notes::default();
        for threads in [1, 2] {
            let mut session = taken.open_session(runtime, &RunOptions::cpu(threads), &notes).unwrap();
            let features = session.run(&pictures, 5).unwrap();
            let difference = largest_difference(&features, &expected);
            assert!(
                features.len() == expected.len() && difference < 1e-6,
                "{name}: {difference}"
            );
        }
        let notes = notes.0.into_inner().unwrap();
        assert_eq!(notes.len(), usize::from(!opens), "{name}: {notes:?}");
        if let Some(note) = notes.first() {
            let said = format!("batch of {batch} can't be opened");
            assert!(note.contains(&said), "{note}");
        }
    }
}

#[test]
fn the_opened_graph_alone_would_mix_pictures_or_fail() {
    let run = |middle| {
        let taken = cut(middle, 1);
        let mut session = taken.open(&taken.onnx, tests_runtime(), &RunOptions::cpu(1), &Quiet)?;
        session.run(&pictures(5), 5)
    };
    let alone = expected(&model(mixing, 1, false), "feature", 1, &pictures(5));
    let mixed = run(mixing).unwrap();
    assert!(largest_difference(&mixed, &alone) > 0.01);
    run(failing).unwrap_err();
}

#[test]
fn features_are_the_same_only_if_they_could_be_told_apart() {
    let alone = [vec![1.0, 2.0], vec![3.0, -2.0]];
    assert!(is_same(&alone, &[1.0, 2.0, 3.0, -2.0]));
    assert!(is_same(&alone, &[1.0001, 2.0, 3.0, -2.0]));
    assert!(!is_same(&alone, &[1.001, 2.0, 3.0, -2.0]));
    assert!(!is_same(&alone, &[1.0, 2.0]), "another length");
    assert!(!is_same(&alone, &[1.0, 2.0, 3.0, f32::NAN]));
    let equal = [vec![1.0], vec![1.0]];
    assert!(!is_same(&equal, &[1.0, 1.0]), "a mixture would look the same");
    let close = [vec![1.0], vec![1.001]];
    assert!(
        !is_same(&close, &[1.0005, 1.0005]),
        "their mixture is within the tolerance of each"
    );
    assert!(is_same(&close, &[1.0, 1.001]));
    let endless = [vec![f32::INFINITY], vec![1.0]];
    assert!(!is_same(&endless, &[f32::INFINITY, 1.0]));
}

#[test]
fn half_precision_is_converted_once_and_said_to_be_slow_on_the_cpu() {
    // The batch that can't be opened, too.
    for (middle, batch) in [(plain as Middle, 1), (mixing, 1)] {
        let taken = cut(middle, batch);
        let notes = Notes::default();
        let half = RunOptions {
            precision: Precision::Fp16,
            ..RunOptions::cpu(1)
        };
        let features = |run: &RunOptions| {
            let mut session = taken.open_session(tests_runtime(), run, &notes).unwrap();
            session.run(&pictures(3), 3).unwrap()
        };
        let (full, halved, again) = (features(&RunOptions::cpu(1)), features(&half), features(&half));
        assert_eq!(halved, again);
        let size = largest_difference(&full, &vec![0.0; full.len()]);
        let difference = largest_difference(&full, &halved);
        // 11 bits of mantissa: every value is within 5e-4 of itself, and sums of 48 of them stay near that.
        assert!(difference > 0.0 && difference < 2e-3 * size, "{difference} of {size}");
        let notes = notes.0.into_inner().unwrap();
        let slow = notes.iter().filter(|note| note.contains("slower than fp32")).count();
        assert_eq!(slow, 1, "{notes:?}");
    }
}

#[test]
fn tf32_on_the_cpu_is_wrong_usage() {
    let run = RunOptions {
        precision: Precision::Tf32,
        ..RunOptions::cpu(1)
    };
    let error = cut(plain, 1).open_session(tests_runtime(), &run, &Quiet).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Usage);
    assert!(error.hint().unwrap().contains("--device cuda"), "{error}");
    // `auto` must not fall back to what computes something else.
    let auto = RunOptions {
        device: Device::Auto,
        ..run
    };
    if !ort_has_cuda() {
        let error = cut(plain, 1)
            .open_session(tests_runtime(), &auto, &Quiet)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("cannot use device `cuda:0`: "), "{error}");
    }
}

fn ort_has_cuda() -> bool {
    tests_runtime();
    <ort::ep::CUDA as ort::ep::ExecutionProvider>::is_available().unwrap()
}
