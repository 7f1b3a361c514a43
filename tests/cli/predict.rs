//! `predict`: pictures to classes.

use crate::common::{CLASSES, Scene, TinyModel, jpeg, picture, png};
use lastlayer::{Limits, Transform};
use safetensors::SafeTensors;
use serde_json::Value;

const PREDICT: [&str; 3] = ["predict", "--head", "head.safetensors"];

fn predict(scene: &Scene, arguments: &[&str]) -> crate::common::Run {
    scene.run(PREDICT.iter().chain(arguments).copied())
}

fn paths(answers: &[Value]) -> Vec<String> {
    answers
        .iter()
        .map(|answer| answer["path"].as_str().unwrap().replace('\\', "/"))
        .collect()
}

/// Three new pictures of each class, with the class's name in theirs.
fn with_new_pictures() -> Scene {
    let scene = Scene::trained();
    for (class, name) in CLASSES.iter().enumerate() {
        for number in 0..3 {
            scene.write(&format!("new/{name}-{number}.png"), &png(&picture(class, 200 + number)));
        }
    }
    scene
}

#[test]
fn new_pictures_are_told_apart() {
    let scene = with_new_pictures();
    let answers = predict(&scene, &["new", "--json"]).code(0).json_lines();
    assert_eq!(answers.len(), 9);
    for answer in &answers {
        let label = answer["label"].as_str().unwrap();
        assert!(answer["path"].as_str().unwrap().contains(label), "{answer}");
        assert_eq!(answer["top"].as_array().unwrap().len(), 1);
        assert_eq!(
            (&answer["top"][0]["label"], &answer["top"][0]["probability"]),
            (&answer["label"], &answer["probability"])
        );
    }
    assert!(paths(&answers).is_sorted());
    let text = predict(&scene, &["new/red-0.png"]).code(0);
    assert!(text.stdout.contains(" %  red "), "{}", text.stdout);
    assert!(text.stdout.trim_end().ends_with("new/red-0.png"), "{}", text.stdout);
    assert_eq!(text.stderr, "");
}

#[test]
fn probabilities_are_those_of_the_head_on_the_formulas_features() {
    let scene = with_new_pictures();
    let head = scene.read("head.safetensors");
    let tensors = SafeTensors::deserialize(&head).unwrap();
    let floats = |name: &str| -> Vec<f64> {
        let (chunks, _) = tensors.tensor(name).unwrap().data().as_chunks::<4>();
        chunks
            .iter()
            .map(|bytes| f64::from(f32::from_le_bytes(*bytes)))
            .collect()
    };
    let (weight, bias) = (floats("fc.weight"), floats("fc.bias"));
    let transform = Transform::default();
    let mut tensor = vec![0.0; transform.tensor_len()];
    for answer in predict(&scene, &["new", "--top-k", "3", "--json"]).code(0).json_lines() {
        let bytes = scene.read(answer["path"].as_str().unwrap());
        let _whole = transform.load(&bytes, &Limits::default(), &mut tensor).unwrap();
        let features = TinyModel::default().features(&tensor);
        let logits = bias.iter().zip(weight.chunks_exact(features.len()));
        let exponentials: Vec<f64> = logits
            .map(|(bias, row)| (bias + row.iter().zip(&features).map(|(w, x)| w * x).sum::<f64>()).exp())
            .collect();
        let sum: f64 = exponentials.iter().sum();
        let top = answer["top"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        let mut total = 0.0;
        let mut previous = 1.0;
        for class in top {
            let index = CLASSES.iter().position(|name| class["label"] == *name).unwrap();
            let probability = class["probability"].as_f64().unwrap();
            // The features agree to 2e-5, the head's weights are about 1.
            let expected = exponentials[index] / sum;
            assert!((probability - expected).abs() < 1e-4, "{answer}: {expected}");
            assert!(probability <= previous, "{answer}");
            previous = probability;
            total += probability;
        }
        assert!((total - 1.0).abs() < 1e-6, "{answer}");
    }
}

#[test]
fn files_folders_patterns_and_lists_keep_their_order() {
    let scene = with_new_pictures();
    let given = [
        "new/red-2.png",
        "new/blue-1.png",
        "new/g*-?.png",
        "new/blue-1.png",
        "pictures/val/red",
    ];
    let answers = predict(
        &scene,
        &[&given[..], &["--json", "--batch-size", "2", "--threads", "3"]].concat(),
    );
    let expected = [
        "new/red-2.png",
        "new/blue-1.png",
        "new/green-0.png",
        "new/green-1.png",
        "new/green-2.png",
        "new/blue-1.png",
        "pictures/val/red/006.png",
        "pictures/val/red/007.png",
        "pictures/val/red/008.png",
    ];
    let answers = answers.code(0).json_lines();
    assert_eq!(paths(&answers), expected);
    assert_eq!(
        answers[1], answers[5],
        "the same picture twice has the same answer twice"
    );
    let list = "new/red-0.png\r\n\nnew/blue-0.png\n";
    let arguments = PREDICT.iter().chain(&["--json", "-", "new/green-0.png"]).copied();
    let answers = scene.run_with_input(arguments, list.as_bytes()).code(0).json_lines();
    assert_eq!(paths(&answers), ["new/red-0.png", "new/blue-0.png", "new/green-0.png"]);
    predict(&scene, &["new/*.webp"])
        .code(2)
        .says(&["nothing matches new/*.webp", "no picture to classify"]);
    scene.write("new/notes.txt", b"");
    predict(&scene, &["new"]).code(0).says(&["left out: 1 file"]);
}

#[test]
fn csv_has_a_header_and_a_line_for_each_picture() {
    let scene = with_new_pictures();
    scene.write("new/a, b.png", b"");
    let run = predict(&scene, &["new", "--csv", "--top-k", "2"]).code(3);
    let mut reader = csv::Reader::from_reader(run.stdout.as_bytes());
    let header: Vec<&str> = reader.headers().unwrap().iter().collect::<Vec<_>>();
    assert_eq!(
        header,
        [
            "path",
            "label",
            "probability",
            "label_2",
            "probability_2",
            "error",
            "detail"
        ]
    );
    let records: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(records.len(), 10);
    assert!(records[0][0].ends_with("a, b.png"));
    assert_eq!((&records[0][1], &records[0][5]), ("", "empty"));
    for record in &records[1..] {
        assert!(record[0].contains(&record[1]), "{record:?}");
        let [first, second]: [f64; 2] = [2, 4].map(|column| record[column].parse().unwrap());
        assert!(first >= second && first + second <= 1.0 + 1e-6, "{record:?}");
        assert_eq!(&record[5], "");
    }
    predict(&scene, &["new", "--csv", "--json"]).code(2);
    let all = predict(&scene, &["new/red-0.png", "--json", "--top-k", "99"])
        .code(0)
        .json();
    assert_eq!(all["top"].as_array().unwrap().len(), 3);
    predict(&scene, &["new", "--top-k", "0"]).code(2);
}

#[test]
fn files_that_cannot_be_read_are_answered_with_the_reason() {
    let scene = with_new_pictures();
    let whole = jpeg(&picture(0, 300), None);
    scene.write("new/half.jpg", &whole[..whole.len() * 2 / 3]);
    scene.write("new/page.png", b"<html>");
    let given = [
        "new/red-0.png",
        "new/half.jpg",
        "missing.png",
        "new/page.png",
        "new/blue-0.png",
    ];
    let run = predict(&scene, &[&given[..], &["--json"]].concat()).code(3);
    let answers = run.json_lines();
    assert_eq!(paths(&answers), given);
    let reasons: Vec<Option<&str>> = answers
        .iter()
        .map(|answer| answer["error"]["reason"].as_str())
        .collect();
    assert_eq!(
        reasons,
        [None, Some("truncated"), Some("unreadable"), Some("not_an_image"), None]
    );
    assert_eq!(
        (&answers[0]["label"], &answers[4]["label"]),
        (&"red".into(), &"blue".into())
    );
    assert!(answers[1].get("label").is_none());
    let text = predict(&scene, &given).code(3);
    assert!(
        text.stdout.contains("error: missing.png: unreadable: "),
        "{}",
        text.stdout
    );
    assert_eq!(text.stdout.lines().count(), 5);
}

#[test]
fn pictures_that_were_seen_need_no_backbone() {
    let scene = with_new_pictures();
    let before = predict(&scene, &["pictures/val", "--json"]).code(0);
    scene.remove("tiny.onnx");
    let after = predict(&scene, &["pictures/val", "--json", "--ort-lib", "nowhere"]).code(0);
    assert_eq!(before.stdout, after.stdout);
    assert_eq!(after.json_lines().len(), 9);
    predict(&scene, &["new"]).error(2, &["tiny.onnx"]);
    scene.write("elsewhere/moved.onnx", &TinyModel::default().onnx());
    let moved = predict(&scene, &["new", "--json", "--backbone", "elsewhere/moved.onnx"]).code(0);
    assert_eq!(moved.json_lines().len(), 9);
    // Without the cache the features are computed, and the answers stay.
    let computed = [
        "pictures/val",
        "--json",
        "--backbone",
        "elsewhere/moved.onnx",
        "--cache",
        "none",
    ];
    assert_eq!(predict(&scene, &computed).code(0).stdout, before.stdout);
    assert!(!scene.path("none").exists(), "predict makes no cache");
}

#[test]
fn another_backbone_is_refused_and_both_are_named() {
    let scene = with_new_pictures();
    let other = TinyModel {
        seed: 9,
        ..TinyModel::default()
    }
    .onnx();
    scene.write("other.onnx", &other);
    let ids = [&TinyModel::default().onnx(), &other].map(|bytes| blake3::hash(bytes).to_hex()[..16].to_owned());
    for picture in ["new/red-0.png", "pictures/val/red/006.png"] {
        let run = predict(&scene, &[picture, "--backbone", "other.onnx"]);
        let run = run.error(1, &["head.safetensors", "tiny.onnx", "other.onnx", &ids[0], &ids[1]]);
        assert_eq!(run.stdout, "");
    }
    // Another network under the old name.
    scene.write("tiny.onnx", &other);
    predict(&scene, &["new/red-0.png"]).error(1, &[&ids[0], &ids[1]]);
    predict(&scene, &["pictures/val/red/006.png"]).code(0);
}

#[test]
fn the_output_goes_where_it_is_told() {
    let scene = with_new_pictures();
    let expected = predict(&scene, &["new", "--json"]).code(0).stdout;
    let run = predict(&scene, &["new", "--json", "-o", "answers.jsonl"]).code(0);
    assert_eq!(run.stdout, "");
    assert_eq!(scene.read("answers.jsonl"), expected.as_bytes());
    predict(&scene, &["new", "--json", "-o", "no/folder/answers"])
        .code(1)
        .says(&["error: cannot write"]);
    scene.write("tiny.onnx", b"");
    predict(&scene, &["new", "--json", "-o", "answers.jsonl"]).code(1);
    assert_eq!(
        scene.read("answers.jsonl"),
        expected.as_bytes(),
        "a run that fails leaves the old file"
    );
}

#[test]
fn a_file_that_is_no_head_is_named() {
    let scene = with_new_pictures();
    let mut cut = scene.read("head.safetensors");
    cut.truncate(cut.len() - 4);
    scene.write("cut", &cut);
    scene.run(["predict", "--head", "cut", "new"]).error(1, &["`cut`"]);
    scene
        .run(["predict", "--head", "tiny.onnx", "new"])
        .error(1, &["`tiny.onnx`"]);
    scene
        .run(["predict", "--head", "none", "new"])
        .code(1)
        .says(&["cannot read `none`"]);
    scene.run(["predict", "new"]).code(2).says(&["--head"]);
    scene.run(["predict", "--head", "head.safetensors"]).code(2);
}

#[test]
fn what_is_named_and_not_there_is_an_input_that_was_skipped() {
    let scene = Scene::trained();
    let picture = "pictures/val/red/006.png";
    std::fs::create_dir_all(scene.path("empty")).unwrap();
    for missing in ["none*.png", "empty"] {
        scene
            .run(["predict", "--head", "head.safetensors", picture, missing])
            .code(3)
            .says(&[missing]);
    }
}

#[cfg(unix)]
#[test]
fn names_that_are_no_utf_8_are_names() {
    use std::os::unix::ffi::OsStrExt;
    let scene = Scene::trained();
    let odd = std::ffi::OsStr::from_bytes(b"odd\xff.png");
    let picture = scene.read("pictures/val/red/006.png");
    std::fs::create_dir_all(scene.path("glob")).unwrap();
    std::fs::write(scene.path("glob").join(odd), &picture).unwrap();
    let run = scene
        .run(["predict", "--head", "head.safetensors", "--json", "glob/*.png"])
        .code(0);
    assert_eq!(run.json_lines()[0]["path"], "glob/odd\u{fffd}.png");
    // In a data set too: the broken one is listed, in whole JSON.
    std::fs::write(scene.path("pictures/train/red").join(odd), b"not a picture").unwrap();
    let report = scene
        .run(["extract", "pictures", "--backbone", "tiny.onnx", "--json"])
        .code(3)
        .json();
    assert!(
        report["failures"][0]["path"]
            .as_str()
            .unwrap()
            .ends_with("odd\u{fffd}.png")
    );
}

#[cfg(unix)]
#[test]
fn output_goes_where_the_name_leads() {
    let scene = Scene::trained();
    scene.write("target.csv", b"old");
    std::os::unix::fs::symlink(scene.path("target.csv"), scene.path("link.csv")).unwrap();
    let predict = |output: &str| {
        let arguments = [
            "predict",
            "--head",
            "head.safetensors",
            "--csv",
            "-o",
            output,
            "pictures/val/red/006.png",
        ];
        scene.run(arguments).code(0)
    };
    predict("link.csv");
    assert!(scene.path("link.csv").is_symlink());
    assert!(scene.read("target.csv").starts_with(b"path,label"));
    assert!(predict("/dev/stdout").stdout.starts_with("path,label"));
}

#[test]
fn a_head_file_from_elsewhere_may_say_anything() {
    let scene = Scene::trained();
    let good = String::from_utf8_lossy(&scene.read("head.safetensors")).into_owned();
    let space = good
        .split("\"lastlayer.space\":\"")
        .nth(1)
        .unwrap()
        .split("}\"")
        .next()
        .unwrap();
    let space = space.replace("\\\"", "\"") + "}";
    for (from, to) in [
        ("\"crop\":224", "\"crop\":4000000000"),
        ("\"crop\":224", "\"crop\":0"),
        ("\"crop\":224", "\"crop\":100"),
        ("\"resize_shorter_side\":256", "\"resize_shorter_side\":0"),
        ("\"backbone\":\"", "\"backbone\":\"z"),
    ] {
        assert!(space.contains(from), "{space}");
        let changed = space.replace(from, to);
        let id = blake3::hash(changed.as_bytes()).to_hex();
        let bytes = with_metadata(
            &scene.read("head.safetensors"),
            &[("lastlayer.space", &changed), ("lastlayer.space_id", &id[..32])],
        );
        scene.write("hostile.safetensors", &bytes);
        let run = scene.run(["predict", "--head", "hostile.safetensors", "pictures/val/red/006.png"]);
        assert_eq!(run.exit, Some(1), "{to}: {}", run.stderr);
        assert!(run.stderr.starts_with("error: "), "{to}: {}", run.stderr);
    }
}

/// The safetensors file `bytes` with other values in its metadata.
fn with_metadata(bytes: &[u8], changes: &[(&str, &str)]) -> Vec<u8> {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    for (key, value) in changes {
        header["__metadata__"][*key] = (*value).into();
    }
    let header = header.to_string().into_bytes();
    [&(header.len() as u64).to_le_bytes()[..], &header, &bytes[8 + length..]].concat()
}
