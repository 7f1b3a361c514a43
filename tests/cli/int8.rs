//! `--precision int8` and `models quantize`: what is made, kept, found again, and refused.

use std::path::PathBuf;

use serde_json::Value;

use crate::common::{CLASSES, EXTRACT, Scene, counts, files_below, picture, png, tar};

const INT8: [&str; 2] = ["--precision", "int8"];

fn kept(scene: &Scene) -> Vec<PathBuf> {
    let files = files_below(&scene.path("cache/models")).into_iter();
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "onnx"))
        .collect()
}

fn spaces(scene: &Scene) -> Vec<Value> {
    let files = files_below(&scene.path("cache/spaces")).into_iter();
    let files = files.filter(|path| path.file_name().is_some_and(|name| name == "space.json"));
    files
        .map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
        .collect()
}

#[test]
fn a_data_set_is_quantised_for_once_and_what_is_added_is_computed_by_the_same_backbone() {
    let scene = Scene::with_pictures();
    let first = scene.extract(INT8);
    assert_eq!(counts(&first), [27, 27, 0, 0]);
    let quantization = &first["quantization"];
    assert_eq!(quantization["images"], 18, "{quantization}");
    let fidelity = &quantization["fidelity"];
    assert_eq!(
        (fidelity["images"].as_u64(), fidelity["held_out"].as_bool()),
        (Some(9), Some(true))
    );
    assert!(fidelity["cosine"].as_f64().unwrap() > 0.999, "{fidelity}");
    assert!(fidelity["head_agreement"].is_number(), "{fidelity}");
    let [space] = &spaces(&scene)[..] else {
        panic!("one space")
    };
    assert_eq!(space["precision"], "int8");
    let [file] = &kept(&scene)[..] else {
        panic!("one backbone is kept")
    };
    let bytes = std::fs::read(file).unwrap();
    assert_eq!(space["backbone"], blake3::hash(&bytes).to_hex().as_str());
    assert_eq!(quantization["blake3"], space["backbone"]);

    scene.add_pictures("pictures/train/red", 2, 20..23);
    let second = scene.extract(INT8);
    assert_eq!(counts(&second), [30, 3, 27, 0]);
    assert_eq!(second["space"], first["space"]);
    assert_eq!(
        second["quantization"], first["quantization"],
        "the report is kept with it"
    );
    assert_eq!(std::fs::read(file).unwrap(), bytes);
    assert_eq!(kept(&scene).len(), 1);

    // In fp32 it is another space, and `cache explain` knows both.
    let float = scene.extract([]);
    assert_ne!(float["space"], first["space"]);
    let explained = scene.run([
        "cache",
        "explain",
        "pictures",
        "--backbone",
        "tiny.onnx",
        "--json",
        "--precision",
        "int8",
    ]);
    assert_eq!(explained.code(0).json()["wanted"], first["space"]);
}

#[test]
fn a_head_finds_the_int8_backbone_it_was_trained_with() {
    let scene = Scene::with_pictures();
    scene.extract(INT8);
    scene.extract([]);
    scene
        .run(["train-head", "pictures", "--lr", "0.05"])
        .error(2, &["--precision int8", "--space"]);
    scene
        .run(["train-head", "pictures", "--lr", "0.05", "--precision", "int8"])
        .code(0);
    scene.write("new.png", &png(&picture(1, 77)));
    let predicted = scene
        .run(["predict", "--head", "head.safetensors", "new.png", "--json"])
        .code(0);
    assert_eq!(predicted.json_lines()[0]["label"], CLASSES[1]);
    scene.remove("cache/models");
    scene
        .run(["predict", "--head", "head.safetensors", "new.png"])
        .error(2, &["int8 backbone", "--backbone"]);
}

#[test]
fn models_quantize_writes_the_same_file_with_any_number_of_threads() {
    let scene = Scene::with_pictures();
    let quantize = ["models", "quantize", "tiny.onnx", "--calibrate", "pictures"];
    let run = |more: &[&'static str]| scene.run(quantize.into_iter().chain(more.iter().copied())).code(0);
    let report = run(&["--json"]).json();
    assert_eq!(report["file"], "tiny-int8.onnx");
    let bytes = scene.read("tiny-int8.onnx");
    assert_eq!(report["bytes"].as_u64(), Some(bytes.len() as u64));
    run(&["--threads", "1", "-o", "one.onnx"]);
    run(&["--threads", "3", "-o", "three.onnx"]);
    assert!(scene.read("one.onnx") == bytes && scene.read("three.onnx") == bytes);
    let told = run(&["--weight-bits", "7", "-o", "seven.onnx"]).stdout;
    assert!(
        told.contains("weights of 7 bits") && told.contains("cosine to fp32"),
        "{told}"
    );
    run(&["--images", "9", "-o", "nine.onnx"]);
    assert!(scene.read("seven.onnx") != bytes && scene.read("nine.onnx") != bytes);

    // It is a backbone like any other, also without a word about precision.
    let report = scene
        .run(["extract", "pictures", "--backbone", "tiny-int8.onnx", "--json"])
        .code(0)
        .json();
    assert_eq!(report["feature_dim"], 8);
    assert_eq!(spaces(&scene)[0]["precision"], "int8");
    // On the fly the same pictures give the same backbone, and with it the same space.
    let report = scene.extract(INT8);
    assert_eq!(counts(&report), [27, 0, 27, 0]);
    assert_eq!(std::fs::read(&kept(&scene)[0]).unwrap(), bytes);
    scene
        .run(["models", "quantize", "tiny-int8.onnx", "--calibrate", "pictures"])
        .error(1, &["quantised already"]);
    scene
        .run([
            "extract",
            "pictures",
            "--backbone",
            "tiny-int8.onnx",
            "--precision",
            "fp16",
        ])
        .error(2, &["quantised to int8"]);
}

#[test]
fn int8_does_not_run_on_a_gpu() {
    let scene = Scene::with_pictures();
    scene.extract(INT8);
    scene.add_pictures("pictures/train/red", 2, 20..21);
    scene
        .run(EXTRACT.into_iter().chain(INT8).chain(["--device", "cuda"]))
        .error(2, &["runs on the CPU, not on cuda:0", "fp16"]);
}

#[test]
fn what_comes_once_is_refused_with_the_way_round() {
    let scene = Scene::with_pictures();
    let picture = scene.read("pictures/train/red/000.png");
    let archive = tar(&[("red/0.png", &picture)]);
    let extract = ["extract", "-", "--backbone", "tiny.onnx", "--precision", "int8"];
    scene
        .run_with_input(extract, &archive)
        .error(2, &["models quantize tiny.onnx"]);
    assert!(!scene.path("cache/models").exists());
}

#[test]
fn a_bad_calibration_is_an_error_and_leaves_no_file() {
    let scene = Scene::new();
    scene.add_pictures("few/train/blue", 0, 0..4);
    scene.write("few/train/blue/copy.png", &png(&picture(0, 1)));
    scene.write("few/train/blue/text.png", b"no picture");
    scene.add_pictures("few/val/blue", 0, 4..30);
    let quantize = |dataset: &'static str| {
        scene.run([
            "models",
            "quantize",
            "tiny.onnx",
            "--calibrate",
            dataset,
            "-o",
            "out.onnx",
        ])
    };
    quantize("few").error(
        1,
        &[
            "needs 8 different pictures",
            "has 4",
            "text.png",
            "hint: calibrate with a larger data set",
        ],
    );
    // Different files whose features are all the same.
    for size in 0..12 {
        let black = image::RgbImage::new(300 + size, 300);
        scene.write(&format!("black/train/a/{size}.png"), &png(&black));
    }
    quantize("black").error(1, &["cannot quantise `tiny.onnx`", "hint: "]);
    assert!(!scene.path("out.onnx").exists());
    scene
        .run(["extract", "black", "--backbone", "tiny.onnx", "--precision", "int8"])
        .error(1, &["cannot quantise"]);
    assert!(kept(&scene).is_empty());
}

#[test]
fn models_list_names_the_backbones_that_can_be_had() {
    let scene = Scene::new();
    let models = scene.run(["models", "list", "--json"]).code(0).json();
    let names: Vec<&str> = models["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["resnet18", "mobilenet_v2"]);
    let told = scene.run(["models", "list"]).code(0).stdout;
    assert!(told.contains("512 features of 224×224"), "{told}");
}
