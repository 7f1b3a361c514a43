//! `cache explain`: hit or miss, and of a miss the cause, down to the field of the space or the hash of the bytes.

use serde_json::Value;

use crate::common::{EXTRACT, Scene, TinyModel, files_below, jpeg, picture, png, segments, tar};

const PICTURE: &str = "pictures/train/red/000.png";

fn explain<'a>(scene: &Scene, subject: &'a str, arguments: &[&'a str]) -> Value {
    let mut command = vec!["cache", "explain", subject, "--json"];
    if !arguments.contains(&"--backbone") {
        command.extend(["--backbone", "tiny.onnx"]);
    }
    command.extend(arguments);
    scene.run(command).code(0).json()
}

#[track_caller]
fn assert_hit(report: &Value) {
    assert_eq!((&report["images"], &report["hits"]), (&1.into(), &1.into()), "{report}");
    assert_eq!(report["pictures"][0]["miss"], Value::Null, "{report}");
}

#[track_caller]
fn assert_miss(report: &Value, cause: &str) {
    assert_eq!(report["hits"], 0, "{report}");
    assert_eq!(report["pictures"][0]["miss"], cause, "{report}");
    assert_eq!(report["misses"], serde_json::json!({ cause: 1 }), "{report}");
}

fn flip_last_bit(scene: &Scene) {
    let path = segments(&scene.path("cache")).remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
}

#[test]
fn a_hit_is_a_hit_wherever_the_picture_lies_and_whatever_it_is_called() {
    let scene = Scene::extracted();
    let report = explain(&scene, PICTURE, &[]);
    assert_hit(&report);
    let explained = &report["pictures"][0];
    assert_eq!(
        explained["content"],
        blake3::hash(&scene.read(PICTURE)).to_hex().as_str()
    );
    assert_eq!(explained["rows"][0]["row"], "present");
    assert_eq!(explained["rows"][0]["space"], report["wanted"]);
    assert_eq!(explained["remembered"][0]["same_bytes"], true);
    assert_eq!(
        explained["remembered"][0]["dataset"],
        scene.path("pictures").to_str().unwrap()
    );
    scene.rename(PICTURE, "moved.jpg");
    let report = explain(&scene, "moved.jpg", &[]);
    assert_hit(&report);
    assert_eq!(report["pictures"][0]["remembered"].as_array().unwrap().len(), 0);
    let text = scene
        .run(["cache", "explain", "moved.jpg", "--backbone", "tiny.onnx"])
        .code(0)
        .stdout;
    assert!(text.contains("moved.jpg: hit: its feature is in the cache"), "{text}");
    assert!(text.contains("1 picture: 1 in the cache, 0 to be computed"), "{text}");
}

#[test]
fn each_option_that_makes_another_space_is_named_as_the_field_that_differs() {
    let scene = Scene::extracted();
    let other = TinyModel {
        seed: 3,
        ..TinyModel::default()
    };
    scene.write("other.onnx", &other.onnx());
    let flips: [(&[&str], &str); 3] = [
        (&["--exif", "ignore"], "transform.exif"),
        (&["--feature", "pooled"], "feature"),
        (&["--backbone", "other.onnx"], "backbone"),
    ];
    for (arguments, field) in flips {
        let report = explain(&scene, PICTURE, arguments);
        assert_miss(&report, "other_space");
        let differs = report["spaces"][0]["differs"].as_array().unwrap();
        let fields: Vec<&str> = differs
            .iter()
            .map(|differs| differs["field"].as_str().unwrap())
            .collect();
        assert_eq!(fields, [field]);
        assert_ne!(differs[0]["here"], differs[0]["wanted"]);
        assert_ne!(report["spaces"][0]["space"], report["wanted"]);
        let detail = report["pictures"][0]["detail"].as_str().unwrap();
        assert!(detail.contains(&format!("which differs in {field}: ")), "{detail}");
        // And so it is: `extract` computes it.
        let mut command: Vec<&str> = EXTRACT.into_iter().chain(["--json"]).collect();
        if arguments[0] == "--backbone" {
            command.truncate(2);
            command.push("--json");
        }
        command.extend(arguments);
        assert_eq!(scene.run(command).code(0).json()["computed"], 27, "{arguments:?}");
        assert_hit(&explain(&scene, PICTURE, arguments));
        scene.remove("cache");
        scene.extract([]);
    }
}

#[test]
fn what_was_never_extracted_or_changed_since_is_told_apart() {
    let scene = Scene::extracted();
    scene.write("new.png", &png(&picture(1, 99)));
    assert_miss(&explain(&scene, "new.png", &[]), "never_extracted");
    let before = blake3::hash(&scene.read(PICTURE)).to_hex().to_string();
    scene.write(PICTURE, &png(&picture(2, 99)));
    let report = explain(&scene, PICTURE, &[]);
    assert_miss(&report, "bytes_changed");
    let detail = report["pictures"][0]["detail"].as_str().unwrap();
    assert!(detail.contains(&before[..16]), "{detail}");
    assert_eq!(report["pictures"][0]["remembered"][0]["content"], before.as_str());
}

#[test]
fn a_row_that_is_gone_or_damaged_is_told_apart() {
    let scene = Scene::extracted();
    flip_last_bit(&scene);
    let report = explain(&scene, "pictures", &[]);
    assert_eq!(
        (&report["hits"], &report["misses"]),
        (&26.into(), &serde_json::json!({"row_damaged": 1}))
    );
    let without = scene
        .run(["cache", "explain", "pictures", "--json", "--backbone", "absent.onnx"])
        .code(0);
    assert_eq!(without.json()["misses"], serde_json::json!({"row_damaged": 1}));
    scene.run(["cache", "verify"]).code(1);
    let report = explain(&scene, "pictures", &[]);
    assert_eq!(report["misses"], serde_json::json!({"row_gone": 1}));
    let missed = report["pictures"][0]["path"].as_str().unwrap();
    assert_miss(&explain(&scene, missed, &[]), "row_gone");
    scene.extract([]);
    // After gc: the record no longer names it, and its bytes are those of nothing.
    let bytes = scene.read(PICTURE);
    scene.remove(PICTURE);
    scene.extract([]);
    scene.run(["cache", "gc", "--now"]).code(0);
    scene.write(PICTURE, &bytes);
    assert_miss(&explain(&scene, PICTURE, &[]), "never_extracted");
}

#[test]
fn failures_of_before_and_files_that_cannot_be_read_are_told_apart() {
    let scene = Scene::with_pictures();
    scene.write("pictures/train/red/page.png", b"<html>");
    scene.run(EXTRACT).code(3);
    let report = explain(&scene, "pictures/train/red/page.png", &[]);
    assert_miss(&report, "failed_before");
    let failure = report["pictures"][0]["remembered"][0]["failure"].as_str().unwrap();
    assert!(failure.contains("not_an_image"), "{failure}");
    let report = explain(&scene, "pictures", &[]);
    assert_eq!(
        (&report["hits"], &report["misses"]),
        (&27.into(), &serde_json::json!({"failed_before": 1}))
    );
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("nowhere", scene.path("pictures/train/red/dangling.png")).unwrap();
        let report = explain(&scene, "pictures", &[]);
        assert_eq!(report["misses"]["unreadable"], 1, "{report}");
    }
    let run = scene.run(["cache", "explain", "absent.png", "--backbone", "tiny.onnx"]);
    run.error(1, &["absent.png` does not exist"]);
}

#[test]
fn a_data_set_is_summed_up_and_its_misses_are_listed() {
    let scene = Scene::extracted();
    scene.add_pictures("pictures/train/green", 1, 40..65);
    scene.write(PICTURE, &png(&picture(2, 98)));
    let report = explain(&scene, "pictures", &[]);
    assert_eq!((&report["images"], &report["hits"]), (&52.into(), &26.into()));
    assert_eq!(
        report["misses"],
        serde_json::json!({"bytes_changed": 1, "never_extracted": 25})
    );
    assert_eq!(report["pictures"].as_array().unwrap().len(), 26);
    assert_eq!(report["spaces"][0]["rows"], 26);
    let run = scene
        .run(["cache", "explain", "pictures", "--backbone", "tiny.onnx"])
        .code(0);
    assert!(run.stdout.contains("and 6 more; --json lists all"), "{}", run.stdout);
    assert!(
        run.stdout
            .ends_with("52 pictures: 26 in the cache, 26 to be computed\n"),
        "{}",
        run.stdout
    );
    assert_eq!(scene.extract([])["computed"], 26, "as was told");
}

#[test]
fn without_the_backbone_all_spaces_are_looked_in() {
    let scene = Scene::extracted();
    scene.remove("tiny.onnx");
    let run = scene
        .run(["cache", "explain", PICTURE, "--backbone", "tiny.onnx", "--json"])
        .code(0);
    let report = run.json();
    assert_hit(&report);
    assert_eq!(report["wanted"], Value::Null);
    run.says(&["backbone tiny.onnx is not on this computer: looking in all spaces"]);
}

#[test]
fn an_empty_cache_explains_too() {
    let scene = Scene::with_pictures();
    let report = explain(&scene, "pictures", &[]);
    assert_eq!(report["misses"], serde_json::json!({"never_extracted": 27}));
    let run = scene
        .run(["cache", "explain", PICTURE, "--backbone", "tiny.onnx"])
        .code(0);
    assert!(run.stdout.contains("the cache has no space"), "{}", run.stdout);
    assert!(!scene.path("cache").exists() || files_below(&scene.path("cache")).is_empty());
}

#[test]
fn archives_and_tables_are_explained_picture_by_picture() {
    let scene = Scene::with_pictures();
    let pictures: Vec<Vec<u8>> = (0..3).map(|number| png(&picture(0, 200 + number))).collect();
    let names = ["0.png", "1.png", "2.png"];
    let members: Vec<(&str, &[u8])> = names.into_iter().zip(pictures.iter().map(Vec::as_slice)).collect();
    scene.write("one.tar", &tar(&members[..2]));
    scene.write("table.csv", format!("path,label\n{PICTURE},red\n").as_bytes());
    for subject in ["one.tar", "table.csv"] {
        scene.run(["extract", subject, "--backbone", "tiny.onnx"]).code(0);
        let report = explain(&scene, subject, &[]);
        assert_eq!(report["hits"], report["images"], "{report}");
    }
    scene.write("one.tar", &tar(&members));
    let report = explain(&scene, "one.tar", &[]);
    assert_eq!(
        (&report["hits"], &report["misses"]),
        (&2.into(), &serde_json::json!({"never_extracted": 1}))
    );
    let missed = report["pictures"][0]["path"].as_str().unwrap();
    assert!(missed.ends_with("2.png") && missed.contains("one.tar"), "{missed}");
    scene.write(
        "table.csv",
        format!("path,label\n{PICTURE},red\npictures/val/red/006.png,red\n").as_bytes(),
    );
    assert_eq!(explain(&scene, "table.csv", &[])["hits"], 1);
}

#[test]
fn a_feature_of_a_part_counts_where_it_was_asked_for() {
    let scene = Scene::new();
    let whole = jpeg(&picture(0, 1), None);
    scene.write("cut.jpg", &whole[..whole.len() * 3 / 4]);
    scene.write("list.csv", b"path\ncut.jpg\n");
    let command = [
        "extract",
        "list.csv",
        "--backbone",
        "tiny.onnx",
        "--accept-truncated",
        "--json",
    ];
    assert_eq!(scene.run(command).code(0).json()["partial"], 1);
    for subject in ["cut.jpg", "list.csv"] {
        assert_eq!(explain(&scene, subject, &["--accept-truncated"])["hits"], 1);
        let report = explain(&scene, subject, &[]);
        assert_miss(&report, "truncated");
        assert_eq!(report["pictures"][0]["rows"][0]["row"], "partial");
    }
}
