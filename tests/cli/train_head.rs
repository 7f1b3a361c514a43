//! `train-head`: from the cache alone to a head file.

use std::collections::BTreeSet;

use crate::common::{CLASSES, EXTRACT, Scene, TinyModel, picture, png};
use lastlayer::{Cache, FeatureRequest, labelled_features};
use ndarray::ArrayView1;
use safetensors::{Dtype, SafeTensors};

#[test]
fn it_prints_the_lines_of_a_training_script() {
    let scene = Scene::extracted();
    let run = scene
        .run(["train-head", "pictures", "--epochs", "3", "--lr", "0.05"])
        .code(0);
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(
        lines.iter().filter(|line| line.starts_with("train Loss: ")).count(),
        3,
        "{}",
        run.stdout
    );
    for epoch in 0..3 {
        let block = &lines[epoch * 5..epoch * 5 + 5];
        assert_eq!(block[0], format!("Epoch {epoch}/2"));
        assert_eq!((block[1], block[4]), ("----------", ""));
        for (line, phase) in [(block[2], "train"), (block[3], "val")] {
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!([words[0], words[1], words[3]], [phase, "Loss:", "Acc:"], "{line}");
            for number in [words[2], words[4]] {
                assert_eq!(number.split_once('.').unwrap().1.len(), 4, "{line}");
                number.parse::<f64>().unwrap();
            }
        }
    }
    assert!(lines[15].starts_with("Training complete in 0m "), "{}", run.stdout);
    assert!(lines[16].starts_with("Best val Acc: "), "{}", run.stdout);
    assert_eq!(lines[17], "head: head.safetensors");
    // The colours are told apart, which is all there is to say.
    assert!(
        run.stderr.starts_with("no validation picture is classified wrongly"),
        "{}",
        run.stderr
    );
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
}

#[test]
fn the_report_has_the_promised_keys_and_a_head_that_learned() {
    let scene = Scene::extracted();
    let report = scene
        .run(["train-head", "pictures", "--lr", "0.05", "-o", "my.head", "--json"])
        .code(0)
        .json();
    assert_eq!(report["head"], "my.head");
    assert_eq!(report["epochs"], 25);
    assert_eq!(report["classes"], serde_json::json!(CLASSES));
    assert_eq!(
        (&report["train_images"], &report["val_images"]),
        (&18.into(), &9.into())
    );
    assert_eq!(report["val_accuracy"], 1.0, "the colours are told apart: {report}");
    let history = report["history"].as_array().unwrap();
    assert_eq!(history.len(), 25);
    for (epoch, record) in history.iter().enumerate() {
        assert_eq!(record["epoch"], epoch);
        let rate = record["lr"].as_f64().unwrap();
        assert!((rate - 0.05 * 0.1_f64.powi(epoch as i32 / 7)).abs() < 1e-12, "{record}");
        for key in ["train_loss", "train_accuracy", "val_loss", "val_accuracy"] {
            assert!(record[key].is_f64(), "{key} in {record}");
        }
    }
    let best = report["best_epoch"].as_u64().unwrap() as usize;
    for key in ["val_accuracy", "val_loss", "train_accuracy", "train_loss"] {
        assert_eq!(report[key], history[best][key], "{key} is that of the best epoch");
    }
    let first = history.iter().position(|record| record["val_accuracy"] == 1.0);
    assert_eq!(Some(best), first, "the first of the best epochs");
    assert!(report["seconds"].as_f64().unwrap() > 0.0);
}

#[test]
fn the_head_file_is_safetensors_as_pytorch_names_it() {
    let scene = Scene::trained();
    let bytes = scene.read("head.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let (weight, bias) = (tensors.tensor("fc.weight").unwrap(), tensors.tensor("fc.bias").unwrap());
    assert_eq!((weight.shape(), weight.dtype()), (&[3, 8][..], Dtype::F32));
    assert_eq!((bias.shape(), bias.dtype()), (&[3][..], Dtype::F32));
    assert_eq!(tensors.names().len(), 2);
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = header.metadata().as_ref().unwrap();
    assert_eq!(metadata["lastlayer.classes"], r#"["blue","green","red"]"#);
    assert_eq!(metadata["lastlayer.feature_tensor"], "features");
    let backbone = blake3::hash(&TinyModel::default().onnx()).to_hex();
    assert_eq!(metadata["lastlayer.backbone_blake3"], backbone.as_str());
}

#[test]
fn the_seed_decides_every_byte() {
    let scene = Scene::extracted();
    let train = |seed: &str, threads: &str| {
        scene
            .run(["train-head", "pictures", "--seed", seed, "--threads", threads])
            .code(0);
        scene.read("head.safetensors")
    };
    let first = train("0", "1");
    assert_eq!(first, train("0", "2"));
    assert_ne!(first, train("1", "1"));
    scene.run(["train-head", "pictures"]).code(0);
    assert_eq!(scene.read("head.safetensors"), first, "the default seed is 0");
}

#[test]
fn it_needs_neither_pictures_nor_backbone() {
    let scene = Scene::trained();
    let before = scene.read("head.safetensors");
    scene.remove("tiny.onnx");
    scene.run(["train-head", "pictures", "--lr", "0.05"]).code(0);
    assert_eq!(scene.read("head.safetensors"), before);
    scene.remove("pictures");
    scene
        .run(["train-head", "pictures", "--lr", "0.05", "--ort-lib", "nowhere"])
        .code(0)
        .says(&["is gone"]);
    assert_eq!(
        scene.read("head.safetensors"),
        before,
        "the same head without the pictures"
    );
    scene
        .run(["train-head", "others"])
        .error(1, &["there is no data set `others`", "`cache`"]);
    scene
        .run(["train-head", "pictures", "--cache", "none"])
        .error(1, &["`pictures`", "`none`"]);
}

#[test]
fn pictures_that_were_not_extracted_are_an_error() {
    let scene = Scene::extracted();
    scene.add_pictures("pictures/train/red", 2, 50..53);
    scene
        .run(["train-head", "pictures"])
        .error(1, &["3 of 30 pictures", "050.png", "lastlayer extract"]);
    scene.run(EXTRACT).code(0);
    scene.run(["train-head", "pictures"]).code(0);
    scene.write("pictures/val/red/006.png", &png(&picture(2, 900)));
    scene
        .run(["train-head", "pictures"])
        .error(1, &["1 of 30 pictures", "006.png"]);
    scene.remove("pictures/val/red/006.png");
    let report = scene.run(["train-head", "pictures", "--json"]).code(0).json();
    assert_eq!(report["val_images"], 8, "a removed picture is no longer one of the set");
    let never = Scene::with_pictures();
    never.run(["train-head", "pictures"]).error(1, &["27 of 27 pictures"]);
}

#[test]
fn labels_follow_the_folders_without_a_new_extraction() {
    let scene = Scene::extracted();
    scene.rename("pictures/train/red", "pictures/train/crimson");
    scene.rename("pictures/val/red", "pictures/val/crimson");
    scene.run(["train-head", "pictures"]).error(1, &["9 of 27 pictures"]);
    assert_eq!(scene.extract([])["computed"], 0);
    let report = scene.run(["train-head", "pictures", "--json"]).code(0).json();
    assert_eq!(report["classes"], serde_json::json!(["blue", "crimson", "green"]));
}

#[test]
fn one_of_several_spaces_must_be_named() {
    let scene = Scene::extracted();
    scene.write(
        "other.onnx",
        &TinyModel {
            seed: 2,
            width: 12,
            ..TinyModel::default()
        }
        .onnx(),
    );
    let first = scene.extract([])["space"].as_str().unwrap().to_owned();
    let other = ["extract", "pictures", "--backbone", "other.onnx", "--json"];
    let second = scene.run(other).code(0).json()["space"].as_str().unwrap().to_owned();
    let run = scene.run(["train-head", "pictures"]);
    run.error(
        2,
        &[
            &first[..8],
            &second[..8],
            "--backbone tiny.onnx",
            "--backbone other.onnx",
            "27 of 27",
        ],
    );
    let space = |option: &str, value: &str| {
        let report = scene
            .run(["train-head", "pictures", option, value, "--json"])
            .code(0)
            .json();
        report["space"].as_str().unwrap().to_owned()
    };
    assert_eq!(space("--space", &first[..8]), first);
    assert_eq!(space("--space", &second), second);
    assert_eq!(space("--backbone", "other.onnx"), second);
    assert_eq!(space("--backbone", scene.path("tiny.onnx").to_str().unwrap()), first);
    scene
        .run(["train-head", "pictures", "--space", "zzz"])
        .error(2, &[&first[..8], &second[..8]]);
    scene
        .run(["train-head", "pictures", "--backbone", "resnet18"])
        .error(2, &["tiny.onnx"]);
    scene.extract(["--exif", "ignore"]);
    scene
        .run(["train-head", "pictures", "--backbone", "tiny.onnx"])
        .error(2, &["--space"]);
}

#[test]
fn a_failure_in_one_space_takes_no_picture_from_another() {
    let scene = Scene::extracted();
    let other = [
        "extract",
        "pictures",
        "--backbone",
        "tiny.onnx",
        "--exif",
        "ignore",
        "--max-pixels",
        "10",
        "--json",
    ];
    assert_eq!(scene.run(other).code(3).json()["failed"], 27);
    let report = scene.run(["train-head", "pictures", "--json"]).code(0).json();
    assert_eq!(
        (&report["failed_images"], &report["val_images"]),
        (&0.into(), &9.into())
    );
}

#[test]
fn a_space_with_a_few_of_the_pictures_is_in_nobodys_way() {
    let scene = Scene::extracted();
    // Another data set shares some pictures and is extracted otherwise.
    for class in CLASSES {
        scene.write(
            &format!("few/{class}/000.png"),
            &scene.read(&format!("pictures/train/{class}/000.png")),
        );
    }
    scene
        .run(["extract", "few", "--backbone", "tiny.onnx", "--exif", "ignore"])
        .code(0);
    scene.run(["train-head", "pictures"]).code(0);
    scene.run(["train-head", "few"]).error(2, &["--space"]);
}

#[test]
fn a_backbone_is_known_by_its_bytes_under_any_name() {
    let scene = Scene::extracted();
    scene.write("models/resnet18.onnx", &scene.read("tiny.onnx"));
    scene.run(["train-head", "pictures", "--backbone", "resnet18"]).code(0);
}

#[cfg(unix)]
#[test]
fn a_folder_that_is_gone_is_known_under_every_way_to_it() {
    let scene = Scene::extracted();
    std::os::unix::fs::symlink(scene.path(""), scene.path("link")).unwrap();
    scene.remove("pictures");
    for way in [
        "pictures",
        "pictures/",
        "./pictures",
        "models/../pictures",
        "link/pictures",
    ] {
        std::fs::create_dir_all(scene.path("models")).unwrap();
        scene.run(["train-head", way]).code(0);
    }
}

#[test]
fn one_class_makes_no_classifier() {
    let scene = Scene::new();
    scene.add_pictures("pictures/cat", 0, 0..5);
    scene.extract([]);
    scene
        .run(["train-head", "pictures"])
        .error(1, &["one class only, `cat`"]);
    assert!(!scene.path("head.safetensors").exists());
}

#[test]
fn flat_folders_are_split_by_content() {
    let scene = Scene::new();
    scene.add_pictures("pictures/cat", 0, 0..40);
    scene.add_pictures("pictures/dog", 1, 0..40);
    scene.extract([]);
    let split = |fraction: &str| {
        let arguments = [
            "train-head",
            "pictures",
            "--val-fraction",
            fraction,
            "--epochs",
            "1",
            "--json",
        ];
        let report = scene.run(arguments).code(0).json();
        let [train, val] = ["train_images", "val_images"].map(|key| report[key].as_u64().unwrap());
        (train, val)
    };
    let (train, val) = split("0.3");
    assert_eq!(train + val, 80);
    // Binomial(80, 0.3): four standard deviations are 16.
    assert!((8..=40).contains(&val), "{val} of 80 validate");
    assert_eq!(split("0"), (80, 0));
    assert!(split("0.6").1 > val);
    let run = scene
        .run(["train-head", "pictures", "--val-fraction", "0", "--epochs", "2"])
        .code(0);
    assert!(!run.stdout.contains("val"), "{}", run.stdout);
    run.says(&["no validation picture"]);

    for fraction in ["1", "-0.1", "nan"] {
        let run = scene.run(["train-head", "pictures", &format!("--val-fraction={fraction}")]);
        run.code(2).says(&["validation fraction"]);
    }
}

#[test]
fn the_split_does_not_depend_on_names_places_or_neighbours() {
    let scene = Scene::new();
    scene.add_pictures("pictures/cat", 0, 0..40);
    scene.add_pictures("pictures/dog", 1, 0..40);
    let sides = |dataset: &str| -> [BTreeSet<Vec<u32>>; 2] {
        scene.run(["extract", dataset, "--backbone", "tiny.onnx"]).code(0);
        let cache = Cache::new(&scene.path("cache"));
        let request = FeatureRequest {
            val_fraction: 0.3,
            ..FeatureRequest::default()
        };
        let features = labelled_features(&cache, &scene.path(dataset), &request).unwrap();
        let bits = |row: ArrayView1<'_, f32>| row.iter().map(|value| value.to_bits()).collect();
        [features.train, features.val].map(|rows| rows.features.rows().into_iter().map(bits).collect())
    };
    let [train, val] = sides("pictures");
    assert!(train.len() + val.len() == 80 && train.is_disjoint(&val));
    scene.rename("pictures", "moved");
    for number in 0..40 {
        let new_name = format!("moved/cat/z{:03}.png", 39 - number);
        scene.rename(&format!("moved/cat/{number:03}.png"), &new_name);
    }
    assert_eq!(sides("moved"), [train.clone(), val.clone()]);
    scene.add_pictures("moved/cat", 0, 40..60);
    scene.add_pictures("moved/fox", 2, 0..20);
    let [more_train, more_val] = sides("moved");
    assert_eq!(more_train.len() + more_val.len(), 120);
    assert!(train.is_subset(&more_train) && val.is_subset(&more_val));
}

#[test]
fn pictures_that_could_not_be_read_are_left_out_with_a_word() {
    let scene = Scene::with_pictures();
    scene.write("pictures/train/red/broken.png", b"");
    scene.run(EXTRACT).code(3);
    let run = scene.run(["train-head", "pictures", "--json"]).code(0);
    assert_eq!(
        (&run.json()["train_images"], &run.json()["failed_images"]),
        (&18.into(), &1.into())
    );
    run.says(&["could not read", "left out"]);
}

#[test]
fn wrong_options_are_usage_errors() {
    let scene = Scene::extracted();
    let wrong: [&[&str]; 10] = [
        &["--epochs", "0"],
        &["--epochs", "many"],
        &["--batch-size", "0"],
        &["--lr", "0"],
        &["--lr=-1"],
        &["--lr", "nan"],
        &["--momentum=-0.5"],
        &["--step-size", "0"],
        &["--nesterov", "--momentum", "0"],
        &["--no-such-option"],
    ];
    for options in wrong {
        let run = scene.run(["train-head", "pictures"].iter().chain(options).copied());
        assert_eq!(run.exit, Some(2), "{options:?}: {}", run.stderr);
        assert!(run.stderr.starts_with("error: "), "{options:?}: {}", run.stderr);
    }
    assert!(!scene.path("head.safetensors").exists());
    scene
        .run(["train-head", "pictures", "-o", "no/such/folder/head"])
        .code(2)
        .says(&["error: cannot write"]);
    scene
        .run(["train-head", "pictures", "-o", "pictures"])
        .code(2)
        .says(&["it is a folder"]);
}

#[test]
fn a_training_that_diverges_says_so() {
    let scene = Scene::extracted();
    let run = scene.run(["train-head", "pictures", "--lr", "1e30", "--weight-decay", "1"]);
    run.error(1, &["diverged in epoch", "lower the learning rate"]);
    assert!(!scene.path("head.safetensors").exists());
}
