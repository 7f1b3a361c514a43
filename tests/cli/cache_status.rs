//! `cache status`: what is in a cache, as people and programs are told.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::common::{Scene, files_below, segments};

fn status(scene: &Scene) -> Value {
    scene.run(["cache", "status", "--json"]).code(0).json()
}

#[test]
fn an_empty_cache_has_nothing_and_is_not_made() {
    let scene = Scene::new();
    let report = status(&scene);
    assert_eq!((&report["rows"], &report["bytes"]), (&0.into(), &0.into()));
    assert_eq!(report["spaces"].as_array().unwrap().len(), 0);
    let run = scene.run(["cache", "status"]).code(0);
    assert_eq!(run.stdout, "cache: 0 spaces, 0 data sets, 0 B\n");
    assert!(!scene.path("cache").exists());
}

#[test]
fn spaces_rows_bytes_and_data_sets_are_told() {
    let scene = Scene::with_pictures();
    scene.write("pictures/train/red/page.png", b"<html>");
    scene.run(crate::common::EXTRACT).code(3);
    scene
        .run(crate::common::EXTRACT.into_iter().chain(["--exif", "ignore"]))
        .code(3);
    let report = status(&scene);
    assert_eq!(report["rows"], 54);
    let files = files_below(&scene.path("cache"));
    let counted = files.iter().filter(|path| path.parent() != Some(&scene.path("cache")));
    let bytes: u64 = counted.map(|path| path.metadata().unwrap().len()).sum();
    assert_eq!(report["bytes"], bytes);
    let spaces = report["spaces"].as_array().unwrap();
    assert_eq!(spaces.len(), 2);
    for space in spaces {
        assert_eq!((&space["rows"], &space["feature_dim"]), (&27.into(), &8.into()));
        assert_eq!(space["backbone"], "tiny.onnx");
        assert_eq!(space["computed_by"][0]["device"], "cpu");
        assert_eq!(space["description"]["transform"]["crop"], 224);
    }
    let dataset = &report["datasets"][0];
    assert_eq!(dataset["dataset"], scene.path("pictures").to_str().unwrap());
    assert_eq!((&dataset["images"], &dataset["failed"]), (&28.into(), &1.into()));
    assert_eq!((&dataset["classes"], &dataset["is_there"]), (&3.into(), &true.into()));

    let text = scene.run(["cache", "status"]).code(0).stdout;
    assert!(text.contains("tiny.onnx: 27 rows, 8-d, "), "{text}");
    assert!(text.contains("pictures: 28 images, 1 failed, used "), "{text}");
    scene.remove("pictures");
    let text = scene.run(["cache", "status"]).code(0).stdout;
    assert!(text.contains("28 images, 1 failed, no longer there, used "), "{text}");
}

#[test]
fn damaged_files_are_told_and_hide_nothing_else() {
    let scene = Scene::extracted();
    scene.run(["cache", "gc"]).code(0);
    let path = segments(&scene.path("cache")).remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let record = files_below(&scene.path("cache/datasets")).remove(0);
    std::fs::write(&record, b"garbage").unwrap();
    let report = status(&scene);
    let is_at = |told: &Value, path: &std::path::Path| scene.path(told.as_str().unwrap()) == path;
    assert!(is_at(&report["spaces"][0]["damaged"][0], &path), "{report}");
    assert_eq!(report["spaces"][0]["rows"], 0);
    assert!(is_at(&report["damaged_records"][0], &record), "{report}");
    let text = scene.run(["cache", "status"]).code(0).stdout;
    assert!(text.contains("1 file set aside or damaged"), "{text}");
    assert!(text.contains("this record of a data set is damaged"), "{text}");
}

#[test]
fn the_last_use_moves_when_a_space_is_used() {
    let scene = Scene::trained();
    let space_file = files_below(&scene.path("cache"))
        .into_iter()
        .find(|path| path.ends_with("space.json"))
        .unwrap();
    let uses: [&[&str]; 4] = [
        &["train-head", "pictures", "-o", "again.head"],
        &["predict", "--head", "head.safetensors", "pictures"],
        &["cache", "export", "pictures", "-o", "out/features"],
        &crate::common::EXTRACT,
    ];
    for arguments in uses {
        let file = std::fs::File::options().write(true).open(&space_file).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(9000))
            .unwrap();
        let last = || status(&scene)["spaces"][0]["last_used"].as_u64().unwrap();
        let before = last();
        scene
            .run(["cache", "explain", "pictures", "--backbone", "tiny.onnx"])
            .code(0);
        assert_eq!(last(), before, "who only asks uses nothing");
        scene.run(arguments.iter().copied()).code(0);
        assert!(last() >= before + 8000, "{arguments:?}");
    }
}
