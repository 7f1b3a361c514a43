//! `doctor`: what is found where, and what is said when it can't be used.

use crate::common::{EXTRACT, Scene};
use serde_json::Value;

/// What `doctor` says here, with the library fetched if it is nowhere.
fn doctor(scene: &Scene) -> Value {
    scene.run(["doctor", "--fetch", "--json"]).code(0).json()
}

/// The file of the library, where it is not the system's loader that knows it.
pub(crate) fn library(scene: &Scene) -> Option<String> {
    let path = doctor(scene)["runtime"]["path"].as_str().unwrap().to_owned();
    std::path::Path::new(&path).is_absolute().then_some(path)
}

fn registers(doctor: &Value, name: &str) -> bool {
    let mut providers = doctor["providers"].as_array().unwrap().iter();
    let provider = providers.find(|provider| provider["name"] == name);
    provider.unwrap_or_else(|| panic!("no {name} in {doctor}"))["registers"] == true
}

#[test]
fn json_and_text_say_the_same() {
    let scene = Scene::extracted();
    let json = doctor(&scene);
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    let path = json["runtime"]["path"].as_str().unwrap();
    let version = json["runtime"]["version"].as_str().unwrap();
    assert!(
        version.starts_with("1.") && version.split('.').count() == 3,
        "{version}"
    );
    assert!(registers(&json, "CPUExecutionProvider"), "{json}");
    let cuda = &json["cuda"];
    assert!(cuda["driver"].is_string() != cuda["problem"].is_string(), "{cuda}");
    assert!(cuda["needs"].as_str().unwrap().contains("cuDNN 9"), "{cuda}");
    assert_eq!(
        cuda["provider"].is_null(),
        cuda["libraries"].as_array().unwrap().is_empty(),
        "{cuda}"
    );
    assert!(json["cores"].as_u64().unwrap() >= 1);
    assert_eq!(json["cache"]["spaces"][0]["rows"], 27);
    assert_eq!(json["cache"]["spaces"][0]["backbone"], "tiny.onnx");
    assert_eq!(json["backbones"][0]["name"], "resnet18");
    let text = scene.run(["doctor"]).code(0).stdout;
    let cores = format!("cores         {}", json["cores"]);
    for part in [
        path,
        version,
        "27 features of tiny.onnx",
        "resnet18",
        "registers",
        "\nCUDA          ",
        &cores,
    ] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
}

#[test]
fn a_library_that_was_named_and_is_not_there_is_a_usage_error() {
    let scene = Scene::with_pictures();
    let run = scene.run(EXTRACT.into_iter().chain(["--ort-lib", "nowhere/lib.so"]));
    run.error(2, &["nowhere/lib.so", "given by `--ort-lib`"]);
    let run = scene
        .command(EXTRACT)
        .env("ORT_DYLIB_PATH", "nowhere/lib.so")
        .output()
        .unwrap();
    crate::common::Run::of(run).error(2, &["nowhere/lib.so", "`ORT_DYLIB_PATH`"]);
    let json = scene.run(["doctor", "--json", "--ort-lib", "nowhere"]).code(0).json();
    assert!(json["runtime"]["error"].as_str().unwrap().contains("nowhere"), "{json}");
}

#[test]
fn a_named_library_is_the_one_that_is_loaded() {
    let scene = Scene::with_pictures();
    let Some(path) = library(&scene) else {
        eprintln!("skipped: the library's file is not known");
        return;
    };
    let json = scene.run(["doctor", "--json", "--ort-lib", &path]).code(0).json();
    assert_eq!(json["runtime"]["path"], path);
    assert!(
        json["runtime"]["source"].as_str().unwrap().contains("--ort-lib"),
        "{json}"
    );
}

#[test]
fn a_device_that_is_not_there_is_an_error_and_auto_goes_on() {
    let scene = Scene::with_pictures();
    if registers(&doctor(&scene), "CUDAExecutionProvider") {
        eprintln!("skipped: CUDA registers here");
        return;
    }
    let run = scene.run(EXTRACT.into_iter().chain(["--device", "cuda"]));
    run.error(1, &["cannot use device `cuda:0`", "`lastlayer runtime install --cuda`"]);
    scene
        .run(EXTRACT.into_iter().chain(["--device", "tpu"]))
        .code(2)
        .says(&["tpu"]);
    let run = scene
        .run(EXTRACT.into_iter().chain(["--device", "auto", "--json"]))
        .code(0);
    assert_eq!(run.json()["device"], "cpu");
    assert!(run.stderr.lines().count() <= 1, "at most one line: {}", run.stderr);
}

#[test]
fn without_a_library_offline_every_place_tried_is_named() {
    let scene = Scene::with_pictures();
    for flag in [&["--offline"][..], &[]] {
        let mut command = scene.command(EXTRACT.into_iter().chain(flag.iter().copied()));
        command
            .env("LASTLAYER_DATA_DIR", scene.path("empty"))
            .env_remove("ORT_DYLIB_PATH");
        if flag.is_empty() {
            command.env("LASTLAYER_OFFLINE", "1");
        }
        let run = crate::common::Run::of(command.output().unwrap());
        if run.exit == Some(0) {
            eprintln!("skipped: this system or its Python has an ONNX Runtime");
            return;
        }
        let run = run.error(
            1,
            &[
                "cannot find ONNX Runtime",
                "the data folder",
                "forbidden by `--offline`",
            ],
        );
        assert!(
            run.stderr.contains(scene.path("empty").to_str().unwrap()),
            "{}",
            run.stderr
        );
    }
    let backbone = scene.run(["extract", "pictures", "--offline"]);
    if backbone.exit != Some(0) {
        backbone.error(1, &["resnet18", "--offline"]);
    }
}
