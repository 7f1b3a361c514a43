//! Sessions opened by way of a kept model against sessions opened from the network.

use std::cell::RefCell;
use std::time::Duration;

use prost::Message as _;

use super::*;
use crate::backbone::build::{Axis, GraphBuilder, integers};
use crate::backbone::runtime::tests_runtime;
use crate::backbone::session::{RunOptions, open_session};
use crate::random::{Random, Stream};

const SIDE: usize = 32;

fn values(seed: u64, count: usize) -> Vec<f32> {
    let mut random = Random::new(seed, Stream::Initial);
    (0..count).map(|_| random.uniform(0.1)).collect()
}

/// A convolution with 1.5 MB of weights, a ReLU and a mean over the map: `[batch, 3, 32, 32]` to `[batch, 128, 1, 1]`.
fn network(seed: u64) -> Vec<u8> {
    let mut graph = GraphBuilder::new("g");
    let x = graph.input(
        "x",
        &[Axis::Named("n"), Axis::Fixed(3), Axis::Fixed(32), Axis::Fixed(32)],
    );
    let weights = graph.floats("w", &[128, 3, 32, 32], &values(seed, 128 * 3 * 32 * 32));
    let map = graph.node("Conv", "c", &[&x, &weights], [integers("pads", &[4, 4, 4, 4])]);
    let map = graph.node("Relu", "r", &[&map], []);
    let y = graph.node("GlobalAveragePool", "y", &[&map], []);
    graph.output(
        &y,
        &[Axis::Named("n"), Axis::Fixed(128), Axis::Fixed(1), Axis::Fixed(1)],
    );
    graph.finish().encode_to_vec()
}

/// What a session computes of three made pictures.
fn features(session: &mut ort::session::Session) -> Vec<f32> {
    let pictures = values(9, 3 * 3 * SIDE * SIDE);
    let tensor = ort::value::TensorRef::from_array_view(([3, 3, SIDE, SIDE], pictures.as_slice())).unwrap();
    let outputs = session.run(ort::inputs!["x" => tensor]).unwrap();
    outputs["y"].try_extract_tensor::<f32>().unwrap().1.to_vec()
}

/// Opens `network` as programs do, and says from which sources sessions were opened on the way.
fn open_noting(shelf: &Path, identity: &str, network: &[u8]) -> (Vec<f32>, Vec<&'static str>) {
    let sources = RefCell::new(Vec::new());
    let opened = open_in(shelf, identity, network, |source| {
        sources.borrow_mut().push(match source {
            Source::Network(_) => "network",
            Source::Optimise { .. } => "optimise",
            Source::Optimised(_) => "optimised",
        });
        open_session(tests_runtime(), source, &RunOptions::cpu(1), None)
    });
    (features(&mut opened.unwrap()), sources.into_inner())
}

fn plain(network: &[u8]) -> Vec<f32> {
    features(&mut open_session(tests_runtime(), Source::Network(network), &RunOptions::cpu(1), None).unwrap())
}

fn folders(shelf: &Path) -> Vec<PathBuf> {
    fs::read_dir(shelf)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

#[test]
fn a_kept_model_gives_the_same_bits_and_is_made_once() {
    let shelf = tempfile::tempdir().unwrap();
    let (one, other) = (network(1), network(2));
    let expected = plain(&one);
    assert!(expected.iter().any(|&value| value > 0.0));
    let (found, sources) = open_noting(shelf.path(), "here", &one);
    assert!(found == expected);
    assert_eq!(sources, ["optimise", "optimised"]);
    let (found, sources) = open_noting(shelf.path(), "here", &one);
    assert!(found == expected);
    assert_eq!(sources, ["optimised"]);
    let weights = fs::metadata(folders(shelf.path())[0].join(WEIGHTS)).unwrap().len();
    assert!(weights >= 128 * 3 * 32 * 32 * 4, "{weights}");
    // Another network, or another machine.
    let (found, sources) = open_noting(shelf.path(), "here", &other);
    assert!(found == plain(&other) && found != expected);
    assert_eq!(sources, ["optimise", "optimised"]);
    assert_eq!(open_noting(shelf.path(), "there", &one).1, ["optimise", "optimised"]);
    assert_eq!(folders(shelf.path()).len(), 3);
}

#[test]
fn a_damaged_model_is_made_anew() {
    let shelf = tempfile::tempdir().unwrap();
    let network = network(1);
    let (expected, _) = open_noting(shelf.path(), "here", &network);
    let folder = folders(shelf.path()).remove(0);
    for file in [GRAPH, WEIGHTS, CHECKSUMS] {
        let path = folder.join(file);
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        for damaged in [&flipped[..], &whole[..whole.len() - 1], &[]] {
            fs::write(&path, damaged).unwrap();
            let (found, sources) = open_noting(shelf.path(), "here", &network);
            assert!(found == expected, "{file}");
            assert_eq!(sources, ["optimise", "optimised"], "{file}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(open_noting(shelf.path(), "here", &network).1, ["optimise", "optimised"]);
    }
    assert_eq!(folders(shelf.path()), [folder]);
}

#[test]
fn where_nothing_can_be_kept_the_network_itself_is_opened() {
    let scene = tempfile::tempdir().unwrap();
    let network = network(1);
    let file = scene.path().join("file");
    fs::write(&file, b"").unwrap();
    let (found, sources) = open_noting(&file, "here", &network);
    assert!(found == plain(&network));
    assert_eq!(sources, ["network"]);

    // A kept model that this library can't open.
    let (shelf, small) = (scene.path().join("shelf"), vec![7_u8; SMALLEST]);
    let opened = open_in(&shelf, "here", &small, |source| match source {
        Source::Network(network) => Ok(network.len()),
        Source::Optimise { graph, .. } => {
            fs::write(graph, b"no graph").unwrap();
            Ok(0)
        }
        Source::Optimised(_) => Err("unknown operator"),
    });
    assert_eq!(opened, Ok(0), "the session that wrote it is as good");
    let failing = open_in(&shelf, "there", &small, |source| match source {
        Source::Network(_) => Err("no model"),
        _ => Err::<usize, _>("no"),
    });
    assert_eq!(failing, Err("no model"));
    assert_eq!(folders(&shelf).len(), 1, "what failed leaves nothing");
}

#[test]
fn small_networks_are_not_kept_and_of_large_ones_those_used_last() {
    let shelf = tempfile::tempdir().unwrap();
    let open = |network: &[u8]| {
        let opened = open_in(shelf.path(), "here", network, |source| {
            if let Source::Optimise { graph, .. } = source {
                fs::write(graph, b"graph").unwrap();
            }
            Ok::<_, String>(())
        });
        opened.unwrap();
    };
    open(&vec![1; SMALLEST - 1]);
    assert!(folders(shelf.path()).is_empty());
    let age = |folder: &Path, days: u64| {
        let file = File::options().write(true).open(folder.join(CHECKSUMS)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(days * 86_400))
            .unwrap();
    };
    let mut made: Vec<PathBuf> = Vec::new();
    for kind in 1..=MOST_KEPT as u8 {
        open(&vec![kind; SMALLEST]);
        made.extend(
            folders(shelf.path())
                .into_iter()
                .filter(|folder| !made.contains(folder))
                .collect::<Vec<_>>(),
        );
    }
    for (index, folder) in made.iter().enumerate() {
        age(folder, 10 + index as u64);
    }
    // The oldest is used again, so the one before it goes.
    open(&vec![MOST_KEPT as u8; SMALLEST]);
    open(&vec![99; SMALLEST]);
    let left = folders(shelf.path());
    assert_eq!(left.len(), MOST_KEPT);
    assert!(left.contains(&made[MOST_KEPT - 1]) && !left.contains(&made[MOST_KEPT - 2]));
}
