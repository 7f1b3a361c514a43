//! One run in full, and runs beside each other.
use super::*;

/// The lines of `runs show` below `title`: keys and values.
fn shown(scene: &Scene, word: &str, title: &str) -> Vec<(String, String)> {
    let text = scene.run(["runs", "show", word]).code(0).stdout;
    let part = text
        .split("\n\n")
        .find(|part| title.is_empty() || part.starts_with(title));
    let lines = part.unwrap_or_else(|| panic!("no {title} in\n{text}")).lines();
    let pair = |line: &str| {
        line.split_once("  ")
            .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
    };
    lines.filter_map(pair).collect()
}

#[test]
fn show_prints_all_of_it_in_the_names_of_the_options_and_without_json() {
    let scene = three();
    let text = scene.run(["runs", "show", "plain"]).code(0).stdout;
    for line in [
        "id 20261124-080000-plain",
        "state complete",
        "dataset /data/cats4",
        "data.classes tabby, siamese",
        "command lastlayer train-head cats4 --run-name plain",
        "repeat lastlayer train-head --from 20261124-080000-plain",
        "solver sgd",
        "lr 0.001",
        "momentum 0.9",
        "schedule step",
        "step-size 7",
        "val_accuracy 0.9 (95 % interval 0.85 to 0.94)",
        "precision fp32",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let has = |found: &str| found.split_whitespace().collect::<Vec<_>>() == words;
        assert!(text.lines().any(has), "no {line} in\n{text}");
    }
    let report = scene.run(["runs", "show", "plain", "--json"]).code(0).json();
    assert_eq!(report["history"][0]["val_accuracy"], 0.75);
    assert_eq!(report["config"]["recipe"]["solver"]["learning_rate"], 0.001);
    assert_eq!(report["options"]["lr"], 0.001);
    // The options are keys like any other.
    assert_eq!(
        listed(
            &scene,
            &["--filter", "warm-up=0", "--filter", "schedule=step", "--limit", "1"]
        ),
        [C]
    );
    scene.rename("runs", "my runs");
    let text = scene.run(["runs", "--runs", "my runs", "show", "plain"]).code(0).stdout;
    assert!(
        text.contains("--from 20261124-080000-plain --runs 'my runs'\n"),
        "{text}"
    );

    // A real one, with all its lists.
    let scene = Scene::extracted();
    scene
        .run(["train-head", "pictures", "--lr", "0.05", "--sweep", "seed=0..1"])
        .code(0);
    for word in ["latest", "latest/1"] {
        let text = scene.run(["runs", "show", word]).code(0).stdout;
        assert!(!text.contains(['{', '[', '"']), "{text}");
        assert!(
            text.contains("val.per_class.red ") && text.contains("recall_interval"),
            "{text}"
        );
    }
    assert!(shown(&scene, "latest", "options").contains(&("sweep".to_owned(), "seed=0,1".to_owned())));
}

#[test]
fn the_options_that_show_prints_give_the_same_head_again() {
    let scene = Scene::extracted();
    for options in [
        "",
        "--solver adamw --lr 0.0010109310067826867 --beta1 0.8 --schedule cosine --min-lr 1e-5 --clip-norm 2 --label-smoothing 0.1",
        "--schedule one-cycle --nesterov --max-momentum 0.9 --sampling balanced --standardize",
        "--schedule multistep --milestones 2,4 --warm-up 2 --weight-decay 1e-3 --class-weights red=2,blue=0.5",
        "--schedule plateau --plateau-patience 1 --patience 9 --min-delta 0.01 --class-weights balanced",
        "--schedule exponential --gamma 0.9",
        "--schedule constant --seed 18446744073709551615",
        "--solver lbfgs --C 0.3 --tolerance 1e-7 --max-iterations 500",
    ] {
        let train = ["train-head", "pictures", "--val-fraction", "0.25"];
        scene.run(train.into_iter().chain(options.split_whitespace())).code(0);
        let first = scene.read("head.safetensors");
        let lines = shown(&scene, "latest", "options");
        // Where the features come from is no option of the head, and this data set has one space.
        let training = lines
            .iter()
            .filter(|(key, _)| !["backbone", "space"].contains(&key.as_str()));
        let again: Vec<String> = training.map(|(key, value)| format!("--{key}={value}")).collect();
        let train = ["train-head", "pictures", "-o", "again"];
        scene
            .run(train.into_iter().chain(again.iter().map(String::as_str)))
            .code(0);
        assert!(scene.read("again") == first, "{options}: {again:?}");
    }
}

#[test]
fn diff_tells_configuration_first_then_metrics_and_whether_the_data_are_the_same() {
    let scene = three();
    let report = scene.run(["runs", "diff", "plain", "slow", "--json"]).code(0).json();
    assert_eq!((&report["a"], &report["b"]), (&json!(A), &json!(C)));
    assert_eq!(
        report["config"],
        json!([{ "key": "recipe.solver.learning_rate", "a": 0.001, "b": 0.0001 }])
    );
    let accuracy = &report["metrics"][0];
    assert_eq!(accuracy["key"], "val_accuracy");
    assert!(
        (accuracy["difference"].as_f64().unwrap() + 0.1).abs() < 1e-12,
        "{report}"
    );
    assert_eq!(
        (&report["same_data"], &report["same_space"]),
        (&json!(true), &json!(true))
    );

    scene.write(&format!("runs/{B}/space.json"), br#"{"format":1,"precision":"fp16"}"#);
    let text = scene.run(["runs", "diff", "plain", "fast"]).code(0).stdout;
    let place = |part: &str| text.find(part).unwrap_or_else(|| panic!("no {part:?} in\n{text}"));
    let order = [
        "configuration",
        "recipe.solver.learning_rate                  0.001                  0.01",
        "metrics",
        "val_accuracy",
        "+0.05",
        "feature space",
        "description.precision",
        "20261124-090000-fast has other data than 20261124-080000-plain:\n  - train, class `tabby`: 40 rows as before, of other pictures",
    ]
    .map(place);
    assert!(order.is_sorted(), "{text}");
    let same = scene.run(["runs", "diff", A, "plain"]).code(0).stdout;
    assert!(
        same.contains("the configurations are the same") && same.contains("has the same data"),
        "{same}"
    );
}

#[test]
fn several_runs_stand_side_by_side() {
    let scene = three();
    let report = scene
        .run(["runs", "compare", "plain", "fast", "slow", "--json"])
        .code(0)
        .json();
    assert_eq!(report["runs"], json!([A, B, C]));
    assert_eq!(
        report["config"],
        json!([{ "key": "recipe.solver.learning_rate", "values": [0.001, 0.01, 0.0001] }])
    );
    assert_eq!(report["same_data"], json!([true, false, true]));
    let text = scene.run(["runs", "compare", "plain", "fast", "slow"]).code(0).stdout;
    assert!(text.contains("has other data than"), "{text}");
    scene.run(["runs", "compare", "plain"]).code(2);
}
