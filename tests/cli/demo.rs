//! `demo`: the main job with nothing at hand.

use std::time::{Duration, Instant};

use super::doctor::library;
use crate::common::{Run, Scene, TinyModel, files_below};

#[test]
fn it_runs_to_the_end_without_a_network_and_without_models() {
    let scene = Scene::new();
    let library = library(&scene);
    let start = Instant::now();
    let named = library.iter().flat_map(|library| ["--ort-lib", library]);
    let arguments = ["demo", "--offline", "-o", "out"].into_iter().chain(named);
    let output = scene
        .command(arguments)
        .env("LASTLAYER_DATA_DIR", scene.path("empty"))
        .output()
        .unwrap();
    let run = Run::of(output).code(0).says(&["NO TRAINED BACKBONE", "random weights"]);
    assert!(
        start.elapsed() < Duration::from_secs(120),
        "it took {:?}",
        start.elapsed()
    );
    for line in [
        "resnet18 can't be had here",
        "$ lastlayer extract out",
        "128 images: 128 computed, 0 reused, 0 failed",
        "$ lastlayer train-head out",
        "Epoch 4/4",
        "Best val Acc: ",
        "$ lastlayer predict --head ",
        "For your own pictures",
        "  lastlayer train-head PICTURES",
    ] {
        assert!(run.stdout.contains(line), "no {line:?} in\n{}", run.stdout);
    }
    let answers = run.stdout.lines().filter(|line| line.contains(" %  ")).count();
    assert_eq!(answers, 4, "a prediction for each class:\n{}", run.stdout);
    for file in [
        "out/head.safetensors",
        "out/untrained-resnet18.onnx",
        "out/shapes/train/star/00.png",
    ] {
        assert!(scene.path(file).is_file(), "{file}");
    }
    assert!(!scene.path("cache").exists() && !scene.path("head.safetensors").exists());
    let fetched = files_below(&scene.path("empty"));
    // What was made of the network for this machine is kept there.
    let fetched: Vec<_> = fetched
        .iter()
        .filter(|file| !file.starts_with(scene.path("empty/optimised")))
        .collect();
    assert!(fetched.is_empty(), "{fetched:?}");
}

#[test]
fn it_takes_a_backbone_and_draws_the_same_pictures_every_time() {
    let scene = Scene::new();
    scene.write(
        "b.onnx",
        &TinyModel {
            width: 64,
            ..TinyModel::default()
        }
        .onnx(),
    );
    scene.run(["demo", "-o", "one", "--backbone", "b.onnx"]).code(0);
    let run = scene.run(["demo", "-o", "two", "--backbone", "b.onnx"]).code(0);
    assert!(
        run.stdout.contains("lastlayer extract PICTURES --backbone b.onnx"),
        "{}",
        run.stdout
    );
    let pictures = |folder: &str| -> Vec<Vec<u8>> {
        let files = files_below(&scene.path(folder));
        assert_eq!(files.len(), 128);
        files.iter().map(|path| std::fs::read(path).unwrap()).collect()
    };
    assert_eq!(pictures("one/shapes"), pictures("two/shapes"));
    let again = scene.run(["demo", "-o", "two", "--backbone", "b.onnx"]).code(0);
    assert!(again.stdout.contains("0 computed, 128 reused"), "{}", again.stdout);
    scene.run(["demo", "--json"]).code(2).says(&["no JSON"]);
}
