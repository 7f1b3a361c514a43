//! Every option of the command line: one that changes a feature's numbers is another space, and every other one changes no
//! bit of them. The options are those that `--help` lists, so that a new one can't be forgotten here.

use std::collections::BTreeSet;

use crate::common::{CLASSES, Run, Scene, StoredRows, TinyModel, copy_folder, picture, png, stored_files, stored_rows};

/// What may happen to the features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// They are those of another space.
    OtherSpace,
    /// They are in the same space, the same bits.
    SameRows,
    /// The same, and some pictures have none.
    FewerRows,
}
use Expected::{FewerRows, OtherSpace, SameRows};

/// One option of `extract` with a value that is not the default.
struct Flip {
    option: &'static str,
    arguments: &'static [&'static str],
    expected: Expected,
}

const fn flip(option: &'static str, arguments: &'static [&'static str], expected: Expected) -> Flip {
    Flip {
        option,
        arguments,
        expected,
    }
}

/// Stands for the ONNX Runtime library that is found without `--ort-lib`.
const LIBRARY: &str = "LIBRARY";

/// All options of `extract`; of `--cache` every other run is an example.
const EXTRACT_OPTIONS: &[Flip] = &[
    flip("--backbone", &["--backbone", "other.onnx"], OtherSpace),
    flip("--feature", &["--feature", "pooled"], OtherSpace),
    flip("--exif", &["--exif", "ignore"], OtherSpace),
    // Named as it is by default.
    flip("--feature", &["--feature", "features"], SameRows),
    flip("--backbone", &["--backbone", "copy.onnx"], SameRows),
    flip("--batch-size", &["--batch-size", "1"], SameRows),
    flip("--batch-size", &["--batch-size", "256"], SameRows),
    flip("--max-pixels", &["--max-pixels", "1000000"], SameRows),
    flip("--max-pixels", &["--max-pixels", "3000"], FewerRows),
    flip("--rehash", &["--rehash"], SameRows),
    flip("--cache", &[], SameRows),
    flip("--device", &["--device", "cpu"], SameRows),
    flip("--threads", &["--threads", "1"], SameRows),
    flip("--threads", &["--threads", "5"], SameRows),
    flip("--json", &["--json"], SameRows),
    flip("--offline", &["--offline"], SameRows),
    flip("--ort-lib", &["--ort-lib", LIBRARY], SameRows),
    flip("--quiet", &["-q"], SameRows),
    flip("--verbose", &["-vv"], SameRows),
];

/// All options of `predict`, which writes nothing into the cache whatever it is told.
const PREDICT_OPTIONS: &[(&str, &[&str])] = &[
    ("--head", &[]),
    ("--backbone", &["--backbone", "copy.onnx"]),
    ("--top-k", &["--top-k", "3"]),
    ("--csv", &["--csv"]),
    ("--output", &["-o", "predictions"]),
    ("--batch-size", &["--batch-size", "1"]),
    ("--max-pixels", &["--max-pixels", "1000000"]),
    ("--cache", &["--cache", "absent"]),
    ("--device", &["--device", "cpu"]),
    ("--threads", &["--threads", "5"]),
    ("--json", &["--json"]),
    ("--offline", &["--offline"]),
    ("--ort-lib", &["--ort-lib", LIBRARY]),
    ("--quiet", &["-q"]),
    ("--verbose", &["-vv"]),
];

/// All options of `train-head`, which reads the cache.
const TRAIN_OPTIONS: &[(&str, &[&str])] = &[
    ("--output", &["-o", "other.safetensors"]),
    ("--backbone", &["--backbone", "tiny.onnx"]),
    ("--space", &["--space", SPACE]),
    ("--val-fraction", &["--val-fraction", "0.5"]),
    ("--epochs", &["--epochs", "2"]),
    ("--batch-size", &["--batch-size", "1"]),
    ("--lr", &["--lr", "0.01"]),
    ("--momentum", &["--momentum", "0.5"]),
    ("--dampening", &["--dampening", "0.1"]),
    ("--weight-decay", &["--weight-decay", "0.1"]),
    ("--nesterov", &["--nesterov"]),
    ("--step-size", &["--step-size", "3"]),
    ("--gamma", &["--gamma", "0.5"]),
    ("--seed", &["--seed", "7"]),
    ("--cache", &[]),
    ("--device", &["--device", "cpu"]),
    ("--threads", &["--threads", "5"]),
    ("--json", &["--json"]),
    ("--offline", &["--offline"]),
    ("--ort-lib", &["--ort-lib", LIBRARY]),
    ("--quiet", &["-q"]),
    ("--verbose", &["-vv"]),
];

/// Stands for the id of the space.
const SPACE: &str = "SPACE";

/// The long options that the help of a verb lists.
fn listed(scene: &Scene, verb: &str) -> BTreeSet<String> {
    let help = scene.run([verb, "--help"]).code(0).stdout;
    let mut options = BTreeSet::new();
    for line in help.lines() {
        let text = line.trim_start();
        // `  -o, --output <FILE>` or `      --seed <N>`; texts that go on in a next line begin further to the right.
        if !text.starts_with('-') || line.len() - text.len() > 6 {
            continue;
        }
        let words = text.split([' ', ',']).map(|word| word.trim_end_matches('.'));
        options.extend(words.filter(|word| word.starts_with("--")).take(1).map(str::to_owned));
    }
    assert!(options.remove("--help"), "{help}");
    assert!(options.contains("--cache"), "{help}");
    options
}

#[track_caller]
fn assert_all_listed<'a>(scene: &Scene, verb: &str, table: impl Iterator<Item = &'a str>) {
    let table: BTreeSet<String> = table.map(str::to_owned).collect();
    assert_eq!(
        listed(scene, verb),
        table,
        "the options of `{verb}` and those of the table in this test"
    );
}

/// Pictures of several kinds, one of them larger than the others, one turned by EXIF, and models.
fn scene() -> Scene {
    let scene = Scene::with_pictures();
    scene.write("copy.onnx", &scene.read("tiny.onnx"));
    let other = TinyModel {
        seed: 2,
        ..TinyModel::default()
    };
    scene.write("other.onnx", &other.onnx());
    let turned = image::imageops::rotate270(&picture(0, 50));
    scene.write("pictures/train/blue/turned.jpg", &crate::common::jpeg(&turned, Some(6)));
    let large = image::imageops::resize(&picture(1, 51), 96, 80, image::imageops::FilterType::Triangle);
    scene.write("pictures/train/green/large.png", &png(&large));
    scene
}

const PICTURES: usize = 9 * CLASSES.len() + 2;

/// The library that is used where none is named.
fn library(scene: &Scene) -> String {
    let report = scene.run(["doctor", "--json"]).code(0).json();
    let path = report["onnxruntime"]["path"]
        .as_str()
        .or(report["runtime"]["path"].as_str());
    path.unwrap_or_else(|| panic!("no library in {report}")).to_owned()
}

fn extract(scene: &Scene, cache: &str, flip: &Flip, library: &str) -> Run {
    let mut arguments = vec!["extract", "pictures", "--cache", cache];
    if flip.arguments.first() != Some(&"--backbone") {
        arguments.extend(["--backbone", "tiny.onnx"]);
    }
    arguments.extend(
        flip.arguments
            .iter()
            .map(|word| if *word == LIBRARY { library } else { word }),
    );
    let run = scene.run(arguments);
    // Pictures without a feature are told by the exit code.
    let code = if flip.expected == FewerRows && cache != "known" {
        3
    } else {
        run.exit.unwrap_or(-1)
    };
    assert!([0, 3].contains(&code), "{:?}: {run:?}", flip.arguments);
    run.code(code)
}

#[test]
fn every_option_of_extract_is_another_space_or_changes_no_bit() {
    let scene = scene();
    assert_all_listed(&scene, "extract", EXTRACT_OPTIONS.iter().map(|flip| flip.option));
    let library = library(&scene);
    let plain = flip("", &[], SameRows);
    extract(&scene, "plain", &plain, &library);
    let reference = stored_rows(&scene.path("plain"));
    let (space, expected) = reference.first_key_value().unwrap();
    assert_eq!((reference.len(), expected.len()), (1, PICTURES));

    for flip in EXTRACT_OPTIONS {
        let told = flip.arguments.join(" ");
        // Into a cache of its own: what is computed is what the table says.
        extract(&scene, "fresh", flip, &library);
        let mut fresh = stored_rows(&scene.path("fresh"));
        let (id, rows) = fresh.pop_first().unwrap();
        assert!(fresh.is_empty(), "{told}: two spaces");
        match flip.expected {
            OtherSpace => {
                assert_ne!(id, *space, "`{told}` changes numbers and must be another space");
                assert_eq!(rows.len(), PICTURES, "{told}");
                if told != "--feature pooled" {
                    // As the flip is one that does change numbers; if it did not, it would prove nothing.
                    assert_ne!(rows, *expected, "{told}");
                }
            }
            SameRows => assert!((&id, &rows) == (space, expected), "`{told}` must change no bit"),
            FewerRows => {
                assert_eq!(id, *space, "{told}");
                assert!(
                    is_part(&rows, expected) && rows.len() < PICTURES,
                    "`{told}` must change no bit"
                );
            }
        }
        // Into the cache that has the features: they are found, or others are put beside them.
        copy_folder(&scene.path("plain"), &scene.path("known"));
        extract(&scene, "known", flip, &library);
        let mut known = stored_rows(&scene.path("known"));
        assert!(
            known.remove(space).as_ref() == Some(expected),
            "`{told}` must keep what is there"
        );
        match flip.expected {
            OtherSpace => assert_eq!(known.into_iter().collect::<Vec<_>>(), [(id, rows)], "{told}"),
            SameRows | FewerRows => assert!(known.is_empty(), "{told}: {:?}", known.keys()),
        }
        scene.remove("fresh");
        scene.remove("known");
    }
}

fn is_part(rows: &StoredRows, of: &StoredRows) -> bool {
    rows.iter().all(|(key, row)| of.get(key) == Some(row))
}

#[test]
fn no_option_of_train_head_or_predict_touches_a_feature() {
    let scene = scene();
    assert_all_listed(&scene, "train-head", TRAIN_OPTIONS.iter().map(|(option, _)| *option));
    assert_all_listed(&scene, "predict", PREDICT_OPTIONS.iter().map(|(option, _)| *option));
    let library = library(&scene);
    let report = scene.extract([]);
    let space = report["space"].as_str().unwrap();
    let replace = |word: &'static str| match word {
        LIBRARY => library.clone(),
        SPACE => space.to_owned(),
        word => word.to_owned(),
    };
    scene.run(["train-head", "pictures"]).code(0);
    let before = stored_files(&scene.path("cache"));
    let verbs: [(&[&str], _); 2] = [
        (&["train-head", "pictures"], TRAIN_OPTIONS),
        (&["predict", "--head", "head.safetensors", "pictures"], PREDICT_OPTIONS),
    ];
    // A picture that has no row in the cache goes through the backbone and is not kept.
    scene.write("new.png", &png(&picture(2, 99)));
    for (verb, table) in verbs {
        for (_, arguments) in table {
            let words: Vec<String> = arguments.iter().map(|word| replace(word)).collect();
            let mut command: Vec<&str> = verb.to_vec();
            if verb[0] == "predict" {
                command.push("new.png");
            }
            command.extend(words.iter().map(String::as_str));
            scene.run(command.iter().copied()).code(0);
            assert!(
                stored_files(&scene.path("cache")) == before,
                "{command:?} changed the cache"
            );
            assert!(!scene.path("absent").exists(), "{command:?} made a cache");
        }
    }
}
