//! `extract`: what is computed and what is reused.

use crate::common::{CLASSES, Classifier, EXTRACT, Scene, TinyModel, bmp, counts, jpeg, picture, png, segments};
use lastlayer::{Limits, Transform};

#[test]
fn the_report_has_the_promised_keys() {
    let scene = Scene::with_pictures();
    let report = scene.extract([]);
    assert_eq!(counts(&report), [27, 27, 0, 0]);
    let keys: Vec<&str> = report.as_object().unwrap().keys().map(String::as_str).collect();
    for key in [
        "seconds",
        "images_per_second",
        "bottleneck",
        "feature_dim",
        "cache",
        "space",
    ] {
        assert!(keys.contains(&key), "no {key} in {keys:?}");
    }
    assert_eq!((&report["feature_dim"], &report["cache"]), (&8.into(), &"cache".into()));
    assert_eq!(report["device"], "cpu");
    assert!(["inference", "decode", "disk"].contains(&report["bottleneck"].as_str().unwrap()));
    let (seconds, rate) = (
        report["seconds"].as_f64().unwrap(),
        report["images_per_second"].as_f64().unwrap(),
    );
    assert!((rate * seconds - 27.0).abs() < 1e-6, "{report}");
    let space = report["space"].as_str().unwrap();
    assert!(scene.path("cache/spaces").join(space).join("space.json").is_file());
    assert!(
        scene
            .read("cache/CACHEDIR.TAG")
            .starts_with(b"Signature: 8a477f597d28d172789f06886806bc55")
    );
}

#[test]
fn people_get_sentences() {
    let scene = Scene::with_pictures();
    let run = scene.run(EXTRACT).code(0);
    assert!(
        run.stdout.starts_with("27 images: 27 computed, 0 reused, 0 failed"),
        "{}",
        run.stdout
    );
    assert!(run.stdout.contains("8-d features in cache, space "), "{}", run.stdout);
    assert_eq!(run.stderr, "", "nothing to say on stderr");
}

#[test]
fn only_what_is_new_is_computed() {
    let scene = Scene::with_pictures();
    scene.extract([]);
    assert_eq!(counts(&scene.extract([])), [27, 0, 27, 0]);
    assert_eq!(
        segments(&scene.path("cache")).len(),
        1,
        "a run without news writes no rows"
    );
    scene.add_pictures("pictures/train/red", 2, 100..110);
    assert_eq!(counts(&scene.extract([])), [37, 10, 27, 0]);
    scene.rename("pictures", "elsewhere");
    let moved = ["extract", "elsewhere", "--backbone", "tiny.onnx", "--json"];
    assert_eq!(counts(&scene.run(moved).code(0).json()), [37, 0, 37, 0]);
    scene.rename("elsewhere/train/red", "elsewhere/train/crimson");
    scene.rename("elsewhere/val/red", "elsewhere/val/crimson");
    assert_eq!(counts(&scene.run(moved).code(0).json()), [37, 0, 37, 0]);
}

#[test]
fn a_changed_file_is_computed_again_and_a_touched_one_is_not() {
    let scene = Scene::with_pictures();
    // Bitmaps of one size have one length.
    let (name, before, after) = ("pictures/train/red/000.png", bmp(&picture(2, 0)), bmp(&picture(2, 500)));
    assert_eq!(before.len(), after.len());
    scene.write(name, &before);
    scene.extract([]);
    let file = std::fs::File::options().append(true).open(scene.path(name)).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.set_modified(modified + std::time::Duration::from_secs(60))
        .unwrap();
    assert_eq!(counts(&scene.extract([])), [27, 0, 27, 0]);

    scene.write(name, &after);
    // Setting the time back deceives nobody where inodes have a time of change.
    if cfg!(unix) {
        file.set_modified(modified + std::time::Duration::from_secs(60))
            .unwrap();
    }
    assert_eq!(counts(&scene.extract([])), [27, 1, 26, 0]);
    scene.write(name, &before);
    assert_eq!(counts(&scene.extract([])), [27, 0, 27, 0], "the old row is still there");
    assert_eq!(counts(&scene.extract(["--rehash"])), [27, 0, 27, 0]);
}

#[test]
fn equal_pictures_go_through_the_backbone_once() {
    let scene = Scene::with_pictures();
    let bytes = scene.read("pictures/train/red/000.png");
    scene.write("pictures/train/red/copy.png", &bytes);
    scene.write("pictures/val/red/copy.png", &bytes);
    scene.write("pictures/val/red/broken.png", b"");
    scene.write("pictures/val/red/broken too.png", b"");
    let report = scene.run(EXTRACT.into_iter().chain(["--json"])).code(3).json();
    assert_eq!(counts(&report), [31, 29, 0, 2]);
    assert_eq!(report["duplicates"], 2);
    assert_eq!(scene.rows("cache").len(), 27);
    scene.write("pictures/val/red/third.png", &bytes);
    let report = scene.run(EXTRACT.into_iter().chain(["--json"])).code(3).json();
    assert_eq!(counts(&report), [32, 0, 30, 2]);
}

#[test]
fn whatever_changes_a_number_is_another_space() {
    let scene = Scene::with_pictures();
    std::fs::write(
        scene.path("other.onnx"),
        TinyModel {
            seed: 2,
            ..TinyModel::default()
        }
        .onnx(),
    )
    .unwrap();
    let first = scene.extract([]);
    let mut spaces = vec![first["space"].clone()];
    let variants: [&[&str]; 3] = [
        &["--exif", "ignore"],
        &["--feature", "pooled"],
        &["--backbone", "other.onnx"],
    ];
    for variant in variants {
        let start = if variant[0] == "--backbone" {
            &EXTRACT[..2]
        } else {
            &EXTRACT[..]
        };
        let arguments: Vec<&str> = start.iter().chain(variant).chain(&["--json"]).copied().collect();
        let report = scene.run(arguments.iter().copied()).code(0).json();
        assert_eq!(counts(&report), [27, 27, 0, 0], "{variant:?}");
        assert_eq!(report["feature_dim"], 8);
        assert!(!spaces.contains(&report["space"]), "{variant:?}");
        spaces.push(report["space"].clone());
        assert_eq!(
            counts(&scene.run(arguments).code(0).json()),
            [27, 0, 27, 0],
            "{variant:?}"
        );
    }
    assert_eq!(counts(&scene.extract([])), [27, 0, 27, 0]);
    let threads = scene.extract(["--threads", "3", "--batch-size", "5", "--max-pixels", "2000"]);
    assert_eq!(
        threads["space"], first["space"],
        "what changes no number is no other space"
    );
    assert_eq!(counts(&threads), [27, 0, 27, 0]);
}

#[test]
fn orientation_is_applied_unless_it_is_to_be_ignored() {
    let scene = Scene::new();
    let upright = picture(0, 1);
    // Orientation 6 says: turn by 90° clockwise to see it upright.
    let stored = image::imageops::rotate270(&upright);
    scene.write("pictures/train/a/turned.jpg", &jpeg(&stored, Some(6)));
    scene.write("pictures/train/b/0.png", &png(&picture(1, 1)));
    scene.write("pictures/val/a/stored.jpg", &jpeg(&stored, None));
    scene.extract(["--cache", "applied"]);
    scene.extract(["--cache", "ignored", "--exif", "ignore"]);
    let key = |name: &str| *blake3::hash(&scene.read(name)).as_bytes();
    let (turned, stored) = (key("pictures/train/a/turned.jpg"), key("pictures/val/a/stored.jpg"));
    let (applied, ignored) = (scene.rows("applied"), scene.rows("ignored"));
    assert_eq!(ignored[&turned], ignored[&stored], "the pixels are the same");
    assert_ne!(applied[&turned], applied[&stored], "the pixels are turned");
    assert_eq!(applied[&stored], ignored[&stored]);
}

#[test]
fn features_are_those_of_the_formulas() {
    let scene = Scene::extracted();
    let (model, transform) = (TinyModel::default(), Transform::default());
    let rows = scene.rows("cache");
    assert_eq!(rows.len(), 27);
    let mut tensor = vec![0.0; transform.tensor_len()];
    let mut worst = 0.0_f64;
    for (class, name) in CLASSES.iter().enumerate() {
        for number in [0, 5] {
            let bytes = scene.read(&format!("pictures/train/{name}/{number:03}.png"));
            assert_eq!(bytes, png(&picture(class, number)));
            let _whole = transform.load(&bytes, &Limits::default(), &mut tensor).unwrap();
            let expected = model.features(&tensor);
            assert!(expected.iter().any(|value| *value > 0.1), "{expected:?}");
            for (value, expected) in rows[blake3::hash(&bytes).as_bytes()].iter().zip(expected) {
                worst = worst.max((f64::from(*value) - expected).abs());
            }
        }
    }
    // Means of 784 values about 1, summed in f32.
    assert!(worst < 2e-5, "a feature differs by {worst}");
}

#[test]
fn threads_and_batches_change_no_bit() {
    let scene = Scene::with_pictures();
    scene.extract(["--cache", "one", "--threads", "1", "--batch-size", "1"]);
    let expected = scene.rows("one");
    assert_eq!(expected.len(), 27);
    for (cache, threads, batch) in [
        ("two", "2", "8"),
        ("three", "3", "27"),
        ("four", "1", "64"),
        ("five", "9", "5"),
    ] {
        scene.extract(["--cache", cache, "--threads", threads, "--batch-size", batch]);
        assert_eq!(scene.rows(cache), expected, "--threads {threads} --batch-size {batch}");
    }
}

#[test]
fn models_of_all_kinds_give_the_same_features() {
    let scene = Scene::with_pictures();
    scene.extract(["--cache", "plain"]);
    let expected = scene.rows("plain");
    let base = TinyModel::default();
    let variants = [
        (
            "fixed-batch",
            TinyModel {
                batch: Some(1),
                ..base.clone()
            },
        ),
        (
            "float-data",
            TinyModel {
                float_data: true,
                ..base.clone()
            },
        ),
        (
            "plain-gemm",
            TinyModel {
                classifier: Classifier::Plain,
                ..base.clone()
            },
        ),
        (
            "features",
            TinyModel {
                classifier: Classifier::Missing,
                ..base
            },
        ),
    ];
    for (name, model) in variants {
        let file = format!("{name}.onnx");
        scene.write(&file, &model.onnx());
        let arguments = ["extract", "pictures", "--backbone", &file, "--cache", name, "--json"];
        let report = scene.run(arguments).code(0).json();
        assert_eq!(counts(&report), [27, 27, 0, 0], "{name}");
        assert_eq!(scene.rows(name), expected, "{name}");
    }
}

#[test]
fn a_backbone_without_a_classifier_is_told_once_and_not_where_it_was_meant() {
    let scene = Scene::with_pictures();
    let model = TinyModel {
        classifier: Classifier::Missing,
        ..TinyModel::default()
    };
    scene.write("ends.onnx", &model.onnx());
    let arguments = ["extract", "pictures", "--backbone", "ends.onnx"];
    let told = "its output `features` is taken as the feature";
    let run = scene.run(arguments).code(0);
    assert_eq!(run.stderr.matches(told).count(), 1, "{}", run.stderr);
    let meant = scene
        .run(arguments.into_iter().chain(["--feature", "features"]))
        .code(0);
    assert!(!meant.stderr.contains("features` is taken"), "{}", meant.stderr);
    let classifier = scene.run(EXTRACT).code(0);
    assert!(!classifier.stderr.contains("classifier"), "{}", classifier.stderr);
}

#[test]
fn models_that_do_not_fit_are_named_with_what_to_do() {
    let scene = Scene::with_pictures();
    let base = TinyModel::default();
    scene.write(
        "two.onnx",
        &TinyModel {
            second_input: true,
            ..base.clone()
        }
        .onnx(),
    );
    scene.write(
        "gray.onnx",
        &TinyModel {
            channels: 1,
            ..base.clone()
        }
        .onnx(),
    );
    scene.write("page.onnx", b"<!DOCTYPE html><title>404</title>");
    let whole = base.onnx();
    scene.write("cut.onnx", &whole[..whole.len() / 2]);
    scene.write("empty.onnx", b"");
    let run = |arguments: &[&str]| scene.run(["extract", "pictures"].iter().chain(arguments).copied());
    run(&["--backbone", "two.onnx"]).error(1, &["two.onnx", "2 inputs", "offset"]);
    run(&["--backbone", "gray.onnx"]).error(1, &["gray.onnx", "[batch, 1, 224, 224]"]);
    run(&["--backbone", "page.onnx"]).error(1, &["page.onnx", "no ONNX model"]);
    run(&["--backbone", "cut.onnx"]).error(1, &["cut.onnx"]);
    run(&["--backbone", "empty.onnx"]).error(1, &["empty.onnx"]);
    run(&["--backbone", "none.onnx"]).error(2, &["there is no backbone file `none.onnx`"]);
    run(&["--backbone", "resnet81"]).error(2, &["resnet81", "resnet18"]);
    run(&["--backbone", "tiny.onnx", "--feature", "feature"]).error(2, &["no tensor named `feature`", "`features`"]);
    assert!(!scene.path("cache").exists(), "nothing of them is cached");
}
