//! `evaluate`: a head's numbers from the cache, and how far they can be believed.

use std::collections::BTreeMap;

use crate::common::{CLASSES, Scene, TinyModel, stored_files};
use lastlayer::{Cache, FeatureRequest, HeadFile, labelled_features};
use serde_json::{Value, json};

/// A scene whose head makes mistakes: trained too little on pictures of which a test split is kept aside.
fn scene() -> Scene {
    let scene = Scene::with_pictures();
    for (class, name) in CLASSES.iter().enumerate() {
        scene.add_pictures(&format!("pictures/test/{name}"), class, 20..25);
    }
    scene.extract([]);
    scene.run(["train-head", "pictures", "--epochs", "1"]).code(0);
    scene
}

fn extract(scene: &Scene, dataset: &str) {
    scene.run(["extract", dataset, "--backbone", "tiny.onnx"]).code(0);
}

fn evaluate(scene: &Scene, options: &[&str]) -> Value {
    let verb = ["evaluate", "--head", "head.safetensors", "pictures", "--json"];
    scene
        .run(verb.into_iter().chain(options.iter().copied()))
        .code(0)
        .json()
}

/// The lines of a CSV file as maps from the names in its first line.
fn csv(scene: &Scene, name: &str) -> Vec<BTreeMap<String, String>> {
    let bytes = scene.read(name);
    csv::Reader::from_reader(&bytes[..])
        .deserialize()
        .map(Result::unwrap)
        .collect()
}

#[test]
fn the_report_is_the_heads_on_the_features_of_the_split() {
    let scene = scene();
    let report = evaluate(&scene, &[]);
    let keys = [
        "split",
        "images",
        "accuracy",
        "accuracy_interval",
        "macro_f1",
        "loss",
        "classes",
        "confusion",
        "per_class",
    ];
    for key in keys {
        assert!(!report[key].is_null(), "{key} in {report}");
    }
    assert_eq!((&report["split"], &report["images"]), (&json!("val"), &json!(9)));
    assert_eq!(report["classes"], json!(CLASSES));
    for key in ["class", "precision", "recall", "f1", "support"] {
        assert!(!report["per_class"][0][key].is_null(), "{key} in {report}");
    }
    // The library's own way to the same numbers.
    let HeadFile { head, meta } = HeadFile::load(scene.path("head.safetensors")).unwrap();
    let cache = Cache::new(&scene.path("cache"));
    let features = labelled_features(&cache, &scene.path("pictures"), &FeatureRequest::default()).unwrap();
    let score = head.score(features.val.view(), &features.val.labels).unwrap();
    let loss = |scores: &Value| scores["loss"].as_f64().unwrap();
    assert!((loss(&report["uncalibrated"]) - score.loss()).abs() < 1e-6);
    // The temperature was fitted on these pictures.
    assert_eq!(report["temperature"], meta.temperature);
    assert!(loss(&report) < loss(&report["uncalibrated"]), "{report}");
    assert_eq!(report["correct"], score.correct());
    let mut confusion = vec![vec![0; 3]; 3];
    let predicted = head.classify(features.val.view()).unwrap();
    for (label, class) in features.val.labels.iter().zip(predicted) {
        confusion[*label][class] += 1;
    }
    assert_eq!(report["confusion"], json!(confusion));
    let (train, all) = (
        evaluate(&scene, &["--split", "train"]),
        evaluate(&scene, &["--split", "all"]),
    );
    assert_eq!((&train["images"], &all["images"]), (&json!(18), &json!(42)));
}

#[test]
fn no_picture_backbone_or_library_is_needed_and_nothing_is_written() {
    let scene = scene();
    let before = stored_files(&scene.path("cache"));
    let report = evaluate(&scene, &[]);
    scene.remove("tiny.onnx");
    assert_eq!(evaluate(&scene, &["--ort-lib", "nowhere"]), report);
    assert!(stored_files(&scene.path("cache")) == before);
    let told = scene.run(["evaluate", "--head", "head.safetensors", "others"]);
    told.error(1, &["there is no data set `others`"]);
    scene.add_pictures("pictures/val/red", 2, 50..53);
    let told = scene.run(["evaluate", "--head", "head.safetensors", "pictures"]);
    told.error(1, &["3 of 45 pictures", "lastlayer extract"]);
}

#[test]
fn what_the_head_was_fitted_to_is_marked() {
    let scene = scene();
    let reasons = |split: &str| evaluate(&scene, &["--split", split])["optimistic_because"].clone();
    assert_eq!(reasons("val"), json!(["selected_on"]));
    assert_eq!(reasons("train"), json!(["trained_on"]));
    assert_eq!(reasons("all"), json!(["trained_on", "selected_on"]));
    assert_eq!(reasons("test"), json!([]));
    let text = scene
        .run(["evaluate", "--head", "head.safetensors", "pictures"])
        .code(0)
        .stdout;
    assert!(text.contains("selected and calibrated on this split"), "{text}");
    let seen = &evaluate(&scene, &["--split", "all"])["seen"];
    assert_eq!(
        (&seen["trained_on"]["images"], &seen["selected_on"]["images"]),
        (&json!(18), &json!(9))
    );
    // Other pictures in the validation split are not those that the head was selected on.
    scene.remove("pictures/val/red/008.png");
    let run = scene
        .run(["evaluate", "--head", "head.safetensors", "pictures", "--json"])
        .code(0);
    assert_eq!(
        run.json()["optimistic_because"],
        json!(["selected_on"]),
        "8 of them are"
    );
    assert_eq!(run.json()["seen"]["selected_on"]["same"], false);
    run.says(&["not the pictures that the head was selected on", "on 9 pictures then"]);
}

#[test]
fn pictures_that_the_head_has_seen_are_counted_whatever_they_are_called_now() {
    let scene = scene();
    // Five of the training pictures, two of the validation pictures, and ten new ones, under other names in one split.
    let copy = |from: &str, to: &str| scene.write(to, &scene.read(&format!("pictures/{from}")));
    for number in 0..5 {
        copy(
            &format!("train/red/{number:03}.png"),
            &format!("mixed/test/red/t{number}.png"),
        );
    }
    for number in 6..8 {
        copy(
            &format!("val/blue/{number:03}.png"),
            &format!("mixed/test/blue/v{number}.png"),
        );
    }
    scene.add_pictures("mixed/test/green", 1, 60..70);
    scene.add_pictures("mixed/train/green", 1, 80..81);
    scene.add_pictures("mixed/train/blue", 0, 80..81);
    scene.add_pictures("mixed/train/red", 2, 80..81);
    extract(&scene, "mixed");
    let verb = ["evaluate", "--head", "head.safetensors", "mixed", "--split", "test"];
    let report = scene.run(verb.into_iter().chain(["--json"])).code(0).json();
    let seen =
        |images: usize| json!({ "images": images, "exact": true, "looked_at": 17, "found": images, "same": false });
    assert_eq!(report["seen"], json!({ "trained_on": seen(5), "selected_on": seen(2) }));
    assert_eq!(report["optimistic_because"], json!(["trained_on", "selected_on"]));
    let text = scene.run(verb).code(0).stdout;
    assert!(
        text.contains("the head was trained on 5 of these 17 pictures"),
        "{text}"
    );
    assert!(text.contains("on 2 of these 17 pictures; new pictures"), "{text}");
    // Of heads that don't say what they have seen, numbers of pictures are compared as before.
    let mut file = HeadFile::load(scene.path("head.safetensors")).unwrap();
    file.meta.pictures = None;
    file.save(scene.path("head.safetensors")).unwrap();
    let report = scene.run(verb.into_iter().chain(["--json"])).code(0).json();
    assert_eq!(
        (&report["seen"], &report["optimistic_because"]),
        (&Value::Null, &json!([]))
    );
    assert_eq!(evaluate(&scene, &[])["optimistic_because"], json!(["selected_on"]));
    assert_eq!(
        evaluate(&scene, &["--split", "train"])["optimistic_because"],
        json!(["trained_on"])
    );
}

#[test]
fn a_test_split_that_was_looked_at_is_known_by_the_next_head() {
    let scene = scene();
    let test = |head: &str| {
        let verb = ["evaluate", "--head", head, "pictures", "--split", "test"];
        let json = scene.run(verb.into_iter().chain(["--json"])).code(0).json();
        (json, scene.run(verb).code(0).stdout)
    };
    let (first, text) = test("head.safetensors");
    assert_eq!(
        (&first["test_uses"], &first["first_test_use"]),
        (&json!(1), &Value::Null)
    );
    assert!(
        text.contains("no other head was scored on this test split before"),
        "{text}"
    );
    assert_eq!(evaluate(&scene, &[])["test_uses"], Value::Null, "another split");
    scene
        .run(["train-head", "pictures", "--seed", "7", "-o", "other.head"])
        .code(0);
    let (second, text) = test("other.head");
    assert_eq!(second["test_uses"], 2);
    assert_eq!(second["optimistic_because"], json!(["test_reused"]));
    assert_eq!(second["first_test_use"]["head"], "head.safetensors");
    assert_eq!(second["first_test_use"]["accuracy"], first["accuracy"]);
    assert!(text.contains("was already used 1 time (first on 20"), "{text}");
    assert!(text.contains("with head.safetensors)"), "{text}");
    // The pictures under another name are the same ones, also as a part of all.
    scene.rename("pictures", "renamed");
    extract(&scene, "renamed");
    let all = [
        "evaluate",
        "--head",
        "other.head",
        "renamed",
        "--split",
        "all",
        "--json",
    ];
    assert_eq!(scene.run(all).code(0).json()["test_uses"], 2);
    // The notes belong to the cache.
    scene.run(["cache", "verify"]).code(0);
}

#[cfg(unix)]
#[test]
fn a_cache_that_can_not_be_written_gives_the_numbers_all_the_same() {
    use std::os::unix::fs::PermissionsExt;
    let scene = scene();
    scene.write("cache/test_uses", b"in the way");
    let verb = [
        "evaluate",
        "--head",
        "head.safetensors",
        "pictures",
        "--split",
        "test",
        "--json",
    ];
    let run = scene.run(verb).code(0);
    assert_eq!(run.json()["test_uses"], 1);
    run.says(&["warning: the cache can't note"]);
    scene.remove("cache/test_uses");
    let set = |mode: u32| {
        std::fs::set_permissions(scene.path("cache"), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set(0o555);
    scene.run(verb).code(0);
    set(0o755);
}

#[test]
fn a_temperature_changes_the_probabilities_of_predict_and_evaluate_and_no_class() {
    let scene = scene();
    let train = ["train-head", "pictures", "--epochs", "1", "--no-calibration"];
    scene.run(train).code(0);
    let predict = || {
        let verb = [
            "predict",
            "--head",
            "head.safetensors",
            "pictures",
            "--top-k",
            "3",
            "--json",
        ];
        scene.run(verb).code(0).json_lines()
    };
    let (plain, before) = (evaluate(&scene, &[]), predict());
    let mut file = HeadFile::load(scene.path("head.safetensors")).unwrap();
    assert_eq!(file.meta.temperature, 1.0);
    file.meta.temperature = 0.25;
    file.save(scene.path("head.safetensors")).unwrap();
    let (cooled, after) = (evaluate(&scene, &["--csv", "cooled"]), predict());
    assert_eq!(
        (&plain["temperature"], &cooled["temperature"]),
        (&json!(1.0), &json!(0.25))
    );
    assert_eq!(
        (&cooled["confusion"], &cooled["top_k"]),
        (&plain["confusion"], &plain["top_k"])
    );
    assert_eq!(cooled["uncalibrated"]["loss"], plain["loss"]);
    assert_ne!(cooled["loss"], plain["loss"]);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((&before["path"], &before["label"]), (&after["path"], &after["label"]));
        let of = |value: &Value| -> Vec<f64> {
            let top = value["top"].as_array().unwrap();
            top.iter().map(|class| class["probability"].as_f64().unwrap()).collect()
        };
        // p^(1/T), made to sum to 1 again.
        let powers: Vec<f64> = of(before).iter().map(|probability| probability.powi(4)).collect();
        for (power, after) in powers.iter().zip(of(after)) {
            assert!((power / powers.iter().sum::<f64>() - after).abs() < 1e-5, "{after}");
        }
    }
    let text = scene
        .run(["evaluate", "--head", "head.safetensors", "pictures"])
        .code(0)
        .stdout;
    assert!(text.contains("temperature") && text.contains("uncalibrated"), "{text}");
    // What predict says of a picture, evaluate writes too.
    let lines = csv(&scene, "cooled.csv");
    assert_eq!(lines.len(), 9);
    for line in lines {
        let found = after
            .iter()
            .find(|value| value["path"].as_str().unwrap().ends_with(&line["path"]))
            .unwrap();
        assert_eq!(found["label"], line["predicted"].as_str());
        let probability: f64 = line["probability"].parse().unwrap();
        assert!((found["probability"].as_f64().unwrap() - probability).abs() < 1e-6);
        assert_eq!(line[&format!("probability_{}", line["predicted"])], line["probability"]);
    }
}

#[test]
fn the_tables_have_every_number() {
    let scene = scene();
    let report = evaluate(&scene, &["--csv", "out.v1", "-o", "report.json", "--split", "test"]);
    let written: Value = serde_json::from_slice(&scene.read("report.json")).unwrap();
    assert_eq!(written, report);
    let lines = csv(&scene, "out.v1.csv");
    assert_eq!(lines.len(), 15);
    let mut confusion = vec![vec![0; 3]; 3];
    let place = |name: &str| CLASSES.iter().position(|class| *class == name).unwrap();
    for line in &lines {
        assert_eq!(line["split"], "test");
        assert!(line["path"].contains(&line["label"]), "{line:?}");
        assert_eq!(line["correct"], (line["label"] == line["predicted"]).to_string());
        let sum: f64 = CLASSES
            .iter()
            .map(|class| line[&format!("probability_{class}")].parse::<f64>().unwrap())
            .sum();
        assert!((sum - 1.0).abs() < 1e-12);
        confusion[place(&line["label"])][place(&line["predicted"])] += 1;
    }
    assert_eq!(report["confusion"], json!(confusion));
    for (row, line) in csv(&scene, "out.v1.confusion.csv").iter().enumerate() {
        for (column, class) in CLASSES.iter().enumerate() {
            assert_eq!(line[*class], confusion[row][column].to_string());
        }
    }
    for (class, line) in report["per_class"]
        .as_array()
        .unwrap()
        .iter()
        .zip(csv(&scene, "out.v1.classes.csv"))
    {
        for key in ["precision", "recall", "f1"] {
            assert_eq!(class[key].as_f64().unwrap(), line[key].parse::<f64>().unwrap());
        }
        assert_eq!(class["class"], line["class"].as_str());
    }
    let verb = ["evaluate", "--head", "head.safetensors", "pictures"];
    for (option, file) in [("-o", "no/such/report.json"), ("--csv", "no/such/tables.csv")] {
        let value = file.strip_suffix(".csv").unwrap_or(file);
        let folder = format!("cannot write `{file}`: the folder `no/such` does not exist");
        let run = scene.run(verb.into_iter().chain([option, value]));
        assert_eq!(run.stdout, "");
        let run = run.error(2, &[&folder, "create the folder first"]);
        assert!(!run.stderr.contains(".lastlayer-"), "{}", run.stderr);
    }
    scene.write("folder/report", b"");
    let told = scene.run(verb.into_iter().chain(["-o", "folder"])).code(2);
    told.says(&["cannot write `folder`: it is a folder"]);
}

#[test]
fn classes_are_matched_by_name() {
    let scene = scene();
    let all = evaluate(&scene, &["--split", "all"]);
    // A data set with two of the classes, which have other numbers there.
    for name in ["green", "red"] {
        for (split, numbers) in [("train", 0..6), ("val", 6..9), ("test", 20..25)] {
            for number in numbers {
                let picture = format!("{split}/{name}/{number:03}.png");
                scene.write(
                    &format!("two/{name}/{split}{number:03}.png"),
                    &scene.read(&format!("pictures/{picture}")),
                );
            }
        }
    }
    extract(&scene, "two");
    let verb = [
        "evaluate",
        "--head",
        "head.safetensors",
        "two",
        "--split",
        "all",
        "--json",
    ];
    let two = scene.run(verb).code(0).json();
    assert_eq!(two["classes"], json!(CLASSES), "the head's");
    assert_eq!(two["images"], 28);
    assert_eq!(two["per_class"][0]["support"], 0);
    assert_eq!(
        (&two["confusion"][1], &two["confusion"][2]),
        (&all["confusion"][1], &all["confusion"][2])
    );
    scene.rename("two/green", "two/lime");
    extract(&scene, "two");
    scene.run(verb).error(
        1,
        &["does not know: `lime` (14)", "`blue`, `green`, `red`", "--skip-unknown"],
    );
    let skipped = scene.run(verb.into_iter().chain(["--skip-unknown"])).code(0);
    assert_eq!(
        (&skipped.json()["images"], &skipped.json()["unknown_images"]),
        (&json!(14), &json!(14))
    );
    skipped.says(&["14 pictures of a class that the head does not know"]);
    scene.remove("two/red");
    let none = scene.run(verb.into_iter().chain(["--skip-unknown"]));
    none.error(1, &["no picture of a class that the head knows"]);
}

#[test]
fn a_split_that_is_not_there_and_features_of_another_space_are_errors() {
    let scene = Scene::trained();
    let verb = ["evaluate", "--head", "head.safetensors", "pictures"];
    let told = scene.run(verb.into_iter().chain(["--split", "test"]));
    told.error(1, &["no labelled picture in its test split", "18 in train, 9 in val"]);
    assert!(!scene.path("cache/test_uses").exists());
    scene.run(verb.into_iter().chain(["--split", "best"])).code(2);
    scene.run(verb.into_iter().chain(["--val-fraction", "1"])).code(2);
    scene.add_pictures("others/red", 2, 30..34);
    scene.add_pictures("others/blue", 0, 30..34);
    let other = TinyModel {
        seed: 2,
        ..TinyModel::default()
    };
    scene.write("other.onnx", &other.onnx());
    scene.run(["extract", "others", "--backbone", "other.onnx"]).code(0);
    let told = scene.run(["evaluate", "--head", "head.safetensors", "others", "--split", "all"]);
    told.error(
        1,
        &[
            "`tiny.onnx`",
            "other.onnx",
            "lastlayer extract others --backbone tiny.onnx",
        ],
    );
    scene
        .run(["evaluate", "--head", "tiny.onnx", "pictures"])
        .error(1, &["not a readable safetensors file"]);
}

#[test]
fn a_flat_folder_is_split_as_it_was_for_the_head() {
    let scene = Scene::new();
    scene.add_pictures("pictures/cat", 0, 0..40);
    scene.add_pictures("pictures/dog", 1, 0..40);
    scene.extract([]);
    let train = [
        "train-head",
        "pictures",
        "--epochs",
        "1",
        "--val-fraction",
        "0.5",
        "--group-by",
        "/..(.)[.]",
        "--json",
    ];
    let trained = scene.run(train).code(0).json();
    let report = evaluate(&scene, &[]);
    assert_eq!(report["images"], trained["val_images"]);
    assert_eq!(report["accuracy"], trained["val_accuracy"]);
    assert_eq!(report["optimistic_because"], json!(["selected_on"]));
    let other = evaluate(&scene, &["--val-fraction", "0.2", "--group-by", "x"]);
    assert!(other["images"].as_u64() < report["images"].as_u64(), "{other}");
}

#[test]
fn many_classes_are_shown_by_the_worst_and_the_most_frequent_mistakes() {
    let scene = Scene::new();
    let names: Vec<String> = (0..24).map(|class| format!("class-{class:02}")).collect();
    for (class, name) in names.iter().enumerate() {
        scene.add_pictures(&format!("pictures/train/{name}"), class % 3, 0..2);
        scene.add_pictures(&format!("pictures/val/{name}"), class % 3, 2..4);
    }
    scene.extract([]);
    scene.run(["train-head", "pictures", "--epochs", "1"]).code(0);
    let text = scene
        .run(["evaluate", "--head", "head.safetensors", "pictures"])
        .code(0)
        .stdout;
    for part in [
        "top-5 accuracy",
        "the 10 with the lowest F1 of 24 classes",
        "most frequent mistakes (10 of",
        "taken for",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert!(
        text.lines().count() < 50 && text.lines().all(|line| line.chars().count() < 110),
        "{text}"
    );
}

#[test]
fn the_head_of_a_cross_validation_was_trained_on_the_validation_pictures_too() {
    let scene = Scene::extracted();
    let train = ["train-head", "pictures", "--epochs", "1", "--json"];
    scene.run(train.into_iter().chain(["--folds", "3"])).code(0);
    let evaluate = ["evaluate", "--head", "head.safetensors", "pictures", "--json"];
    let report = scene.run(evaluate).code(0).json();
    assert_eq!(report["split"], "val");
    assert_eq!(report["optimistic_because"], serde_json::json!(["trained_on"]));
    scene.run(train).code(0);
    let report = scene.run(evaluate).code(0).json();
    assert_eq!(report["optimistic_because"], serde_json::json!(["selected_on"]));
}
