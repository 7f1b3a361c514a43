//! `--precision`: features of another arithmetic are other features, and all that is done with them keeps to it.

use crate::common::{EXTRACT, Scene};

/// A head trained on features of fp16, of a scene that has those of fp32 too.
fn trained_in_half() -> Scene {
    let scene = Scene::extracted();
    scene.extract(["--precision", "fp16"]);
    let train = [
        "train-head",
        "pictures",
        "--precision",
        "fp16",
        "--lr",
        "0.05",
        "-o",
        "half.safetensors",
    ];
    scene.run(train).code(0);
    scene
}

#[test]
fn half_precision_is_a_space_of_its_own_near_that_of_fp32() {
    let scene = Scene::extracted();
    let run = scene
        .run(EXTRACT.into_iter().chain(["--precision", "fp16", "--json"]))
        .code(0);
    assert_eq!(run.json()["computed"], 27);
    assert_eq!(run.stderr.matches("slower than fp32").count(), 1, "{}", run.stderr);
    let spaces = scene.rows_of("cache");
    let [full, half] = spaces.values().collect::<Vec<_>>()[..] else {
        panic!("two spaces: {:?}", spaces.keys());
    };
    assert_eq!((full.len(), half.len()), (27, 27));
    for (content, full) in full {
        let half = &half[content];
        let dot = |one: &[f32], other: &[f32]| -> f64 {
            one.iter()
                .zip(other)
                .map(|(one, other)| f64::from(*one) * f64::from(*other))
                .sum()
        };
        let cosine = dot(full, half) / (dot(full, full) * dot(half, half)).sqrt();
        assert!(cosine >= 0.999 && full != half, "{cosine}");
    }
    // Known now, and not computed again.
    assert_eq!(scene.extract(["--precision", "fp16"])["computed"], 0);
}

#[test]
fn a_head_of_half_precision_predicts_evaluates_and_verifies_in_it() {
    let scene = trained_in_half();
    let evaluate = ["evaluate", "--head", "half.safetensors", "pictures", "--json"];
    let accuracy = scene.run(evaluate).code(0).json()["accuracy"].as_f64().unwrap();
    assert!(accuracy > 0.8, "{accuracy}");
    // Once with the features from the cache, once computed.
    let predict = ["predict", "--head", "half.safetensors", "pictures/val", "--json"];
    let known = scene.run(predict).code(0).json_lines();
    let computed = scene
        .run(predict.into_iter().chain(["--cache", "empty"]))
        .code(0)
        .json_lines();
    assert_eq!(known.len(), 9);
    for (known, computed) in known.iter().zip(&computed) {
        let probability = |line: &serde_json::Value| line["probability"].as_f64().unwrap();
        // On the CPU the batch may move the last bits; in fp32 features differ by some 1e-4.
        assert!(
            (probability(known) - probability(computed)).abs() < 1e-6,
            "{known}\n{computed}"
        );
    }
    let report = scene.run(["cache", "verify", "--deep", "100", "--json"]).code(0).json();
    let compared: Vec<_> = report["deep"]
        .as_array()
        .unwrap()
        .iter()
        .map(|space| &space["compared"])
        .collect();
    assert_eq!(compared, [27, 27], "{report}");
}

#[test]
fn tf32_on_the_cpu_is_refused_with_the_way_out() {
    let scene = Scene::with_pictures();
    let run = scene.run(EXTRACT.into_iter().chain(["--precision", "tf32", "--device", "cpu"]));
    run.error(2, &["tf32", "CPU", "--device cuda"]);
    assert!(
        !scene.path("cache/spaces").exists()
            || scene
                .rows_of("cache")
                .values()
                .all(std::collections::BTreeMap::is_empty)
    );
}
