//! `cache export`: the rows of the cache, in the data set's order, as other programs read them.

use std::collections::BTreeMap;
use std::path::Path;

use crate::common::{EXTRACT, Scene, TinyModel, picture, png, tar};

/// The columns of the CSV, without the header, and the numbers of the `.npy`, one row each.
fn npy(scene: &Scene, prefix: &str) -> (Vec<[String; 4]>, Vec<Vec<f32>>) {
    let mut reader = csv::Reader::from_path(scene.path(&format!("{prefix}.csv"))).unwrap();
    assert_eq!(reader.headers().unwrap(), vec!["path", "split", "label", "view"]);
    let lines = reader.records().map(|record| {
        let fields: Vec<String> = record.unwrap().iter().map(str::to_owned).collect();
        fields.try_into().unwrap()
    });
    // NumPy's format, version 1: magic, version, length of the header (u16), a Python dict, numbers.
    let bytes = scene.read(&format!("{prefix}.npy"));
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let length = u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    let header = std::str::from_utf8(&bytes[10..10 + length]).unwrap();
    assert!(
        header.contains("'descr': '<f4'") && header.contains("'fortran_order': False"),
        "{header}"
    );
    let shape = header.split('(').nth(1).unwrap().split(')').next().unwrap();
    let shape: Vec<usize> = shape.split(',').map(|number| number.trim().parse().unwrap()).collect();
    let numbers: Vec<f32> = bytes[10 + length..]
        .chunks_exact(4)
        .map(|number| f32::from_le_bytes(number.try_into().unwrap()))
        .collect();
    assert_eq!(numbers.len(), shape[0] * shape[1]);
    (lines.collect(), numbers.chunks(shape[1]).map(<[f32]>::to_vec).collect())
}

/// That each line's row is the cache's of that picture.
fn assert_rows(
    scene: &Scene,
    root: &str,
    lines: &[[String; 4]],
    rows: &[Vec<f32>],
    cached: &BTreeMap<[u8; 32], Vec<f32>>,
) {
    assert_eq!(lines.len(), rows.len());
    for (line, row) in lines.iter().zip(rows) {
        let bytes = std::fs::read(scene.path(root).join(&line[0])).unwrap();
        assert_eq!(&cached[blake3::hash(&bytes).as_bytes()], row, "{line:?}");
    }
}

fn export<'a>(scene: &Scene, arguments: impl IntoIterator<Item = &'a str>) -> crate::common::Run {
    scene.run(["cache", "export"].into_iter().chain(arguments))
}

#[test]
fn a_folder_with_splits_is_exported_in_its_order_without_what_failed() {
    let scene = Scene::with_pictures();
    scene.write("pictures/train/green/broken.png", b"no picture");
    scene.run(EXTRACT).code(3);
    let run = export(&scene, ["pictures", "-o", "out/features"]).code(3);
    assert_eq!(run.stdout.lines().count(), 2, "{}", run.stdout);
    run.says(&["1 picture that `extract` could not read", "left out"]);
    let (lines, rows) = npy(&scene, "out/features");
    assert_eq!(lines.len(), 27);
    let paths: Vec<&str> = lines.iter().map(|line| line[0].as_str()).collect();
    let mut sorted = paths.clone();
    sorted.sort_unstable();
    assert_eq!(paths, sorted, "train before val, by class and name");
    for [path, split, label, view] in &lines {
        let parts: Vec<&str> = Path::new(path).iter().map(|part| part.to_str().unwrap()).collect();
        let [.., in_split, in_class, _] = &parts[..] else {
            panic!("{path}")
        };
        assert_eq!(
            (in_split, in_class, view.as_str()),
            (&split.as_str(), &label.as_str(), "0")
        );
    }
    assert_rows(&scene, "pictures", &lines, &rows, &scene.rows("cache"));
    let report = export(&scene, ["pictures", "-o", "again", "--json"]).code(3).json();
    assert_eq!((&report["images"], &report["failed"]), (&27.into(), &1.into()));
    assert_eq!(
        (&report["feature_dim"], report["files"].as_array().unwrap().len()),
        (&8.into(), 2)
    );
}

#[test]
fn all_formats_hold_the_same_rows() {
    let scene = Scene::extracted();
    for format in ["npy", "safetensors", "parquet"] {
        export(&scene, ["pictures", "-o", format, "--format", format]).code(0);
    }
    let (lines, rows) = npy(&scene, "npy");
    assert_eq!(scene.read("npy.csv"), scene.read("safetensors.csv"));
    // safetensors: length of the header (u64), JSON, numbers.
    let bytes = scene.read("safetensors.safetensors");
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let part = |name: &str| {
        let offset = |index: usize| header[name]["data_offsets"][index].as_u64().unwrap() as usize;
        &bytes[8 + length + offset(0)..8 + length + offset(1)]
    };
    assert_eq!(header["features"]["shape"], serde_json::json!([27, 8]));
    let expected: Vec<u8> = rows.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(part("features"), expected);
    let labels = part("labels")
        .chunks_exact(8)
        .map(|label| i64::from_le_bytes(label.try_into().unwrap()));
    let names = ["blue", "green", "red"];
    let labels: Vec<&str> = labels.map(|label| names[usize::try_from(label).unwrap()]).collect();
    assert_eq!(labels, lines.iter().map(|line| line[2].as_str()).collect::<Vec<_>>());
    // Parquet begins and ends so; what is in it the library's tests read.
    let parquet = scene.read("parquet.parquet");
    assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
}

#[test]
fn a_flat_set_gets_a_split_and_an_unlabelled_one_none() {
    let scene = Scene::new();
    scene.add_pictures("flat/blue", 0, 0..6);
    scene.add_pictures("flat/red", 2, 0..6);
    scene.run(["extract", "flat", "--backbone", "tiny.onnx"]).code(0);
    export(&scene, ["flat", "-o", "flat-out", "--val-fraction", "0.5"]).code(0);
    let (lines, rows) = npy(&scene, "flat-out");
    let val = lines.iter().filter(|line| line[1] == "val").count();
    assert_eq!(lines.len(), 12);
    assert!((4..=8).contains(&val), "{val}");
    assert!(lines.iter().all(|line| ["train", "val"].contains(&&*line[1])));
    assert_rows(&scene, "flat", &lines, &rows, &scene.rows("cache"));

    scene.add_pictures("bare", 1, 0..4);
    scene.run(["extract", "bare", "--backbone", "tiny.onnx"]).code(0);
    export(&scene, ["bare", "-o", "bare-out"]).code(0);
    let (lines, rows) = npy(&scene, "bare-out");
    assert_eq!(lines.len(), 4);
    assert!(
        lines.iter().all(|line| line[1].is_empty() && line[2].is_empty()),
        "{lines:?}"
    );
    assert_rows(&scene, "bare", &lines, &rows, &scene.rows("cache"));
}

#[test]
fn archives_are_exported_by_their_members() {
    let scene = Scene::new();
    let pictures: Vec<Vec<u8>> = (0..4)
        .map(|number| png(&picture(number as usize % 2, number)))
        .collect();
    let names: Vec<[String; 2]> = (0..4)
        .map(|number| [format!("{number}.png"), format!("{number}.cls")])
        .collect();
    let mut members: Vec<(&str, &[u8])> = Vec::new();
    for (number, [picture, class]) in names.iter().enumerate() {
        members.push((picture, &pictures[number]));
        members.push((class, [b"0", b"1"][number % 2]));
    }
    scene.write("shards/train-000.tar", &tar(&members[..4]));
    scene.write("shards/val-000.tar", &tar(&members[4..]));
    for (number, bytes) in pictures.iter().enumerate() {
        scene.write(&format!("plain/{number}.png"), bytes);
    }
    scene.run(["extract", "shards", "--backbone", "tiny.onnx"]).code(0);
    export(&scene, ["shards", "-o", "out"]).code(0);
    let (lines, rows) = npy(&scene, "out");
    let cached = scene.rows("cache");
    assert_eq!(lines.len(), 4);
    for (number, (line, row)) in lines.iter().zip(&rows).enumerate() {
        assert!(line[0].ends_with(&format!("{number}.png")), "{line:?}");
        assert_eq!(
            (line[1].as_str(), line[2].as_str()),
            (["train", "val"][number / 2], ["0", "1"][number % 2])
        );
        assert_eq!(&cached[blake3::hash(&pictures[number]).as_bytes()], row);
    }
}

#[test]
fn of_several_spaces_one_has_to_be_named() {
    let scene = Scene::extracted();
    let other = TinyModel {
        seed: 3,
        ..TinyModel::default()
    };
    scene.write("other.onnx", &other.onnx());
    let report = scene
        .run(["extract", "pictures", "--backbone", "other.onnx", "--json"])
        .code(0)
        .json();
    let space = report["space"].as_str().unwrap();
    export(&scene, ["pictures", "-o", "out"]).error(2, &["--space", "tiny.onnx", "other.onnx"]);
    assert!(!scene.path("out.npy").exists());
    export(&scene, ["pictures", "-o", "by-name", "--backbone", "other.onnx"]).code(0);
    export(&scene, ["pictures", "-o", "by-id", "--space", &space[..8]]).code(0);
    let (lines, rows) = npy(&scene, "by-name");
    assert_rows(&scene, "pictures", &lines, &rows, &scene.rows_of("cache")[space]);
    assert_eq!(scene.read("by-name.npy"), scene.read("by-id.npy"));
    // What was never extracted is said, not exported.
    scene.add_pictures("pictures/train/red", 2, 60..61);
    export(&scene, ["pictures", "-o", "out", "--space", &space[..8]]).error(1, &["1 of 28 pictures"]);
    assert!(!scene.path("out.npy").exists());
}
