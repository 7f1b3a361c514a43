//! Runs that trainings keep, and their repetition bit for bit.
use super::*;

/// Trains as a run says, on the features that it asks for.
fn train(
    scene: &Scene,
    dataset: &std::path::Path,
    request: &FeatureRequest,
    recipe: &Recipe,
) -> (LabelledFeatures, Training, HeadFile) {
    let cache = Cache::new(&scene.path("cache"));
    let features = labelled_features(&cache, dataset, request).unwrap();
    let examples = |rows| -> Examples<'_> {
        let rows: &lastlayer::LabelledRows = rows;
        Examples::new(rows.view(), &rows.labels).unwrap()
    };
    let task = TrainingTask::new(features.classes.len(), examples(&features.train)).unwrap();
    let task = task.with_validation(examples(&features.val)).unwrap();
    let training = recipe
        .clone()
        .check()
        .unwrap()
        .train(&task, &Quiet, &mut |_| ())
        .unwrap();
    let meta = HeadMeta {
        classes: features.classes.clone(),
        backbone: "tiny".to_owned(),
        backbone_file: scene.path("tiny.onnx"),
        backbone_blake3: "00".repeat(32),
        feature_tensor: "features".to_owned(),
        space_id: features.space.id().to_string(),
        space: features.space.json().to_owned(),
        options: json!({}),
        metrics: json!({}),
        temperature: 1.0,
        pictures: None,
        lastlayer_version: "0.1.0".to_owned(),
    };
    let head = training.head.clone();
    (features, training, HeadFile { head, meta })
}

/// Repeats a run from its folder alone.
fn repeat(scene: &Scene, run: &Run) -> Result<HeadFile, Error> {
    let config = run.config()?;
    let (features, _, head) = train(scene, &config.dataset.absolute, &config.request()?, &config.recipe);
    run.check_data(&features.fingerprint)?;
    Ok(head)
}

#[test]
fn a_run_is_repeated_bit_for_bit_and_refused_where_the_data_changed() {
    let scene = Scene::extracted();
    let request = FeatureRequest {
        val_fraction: 0.3,
        ..FeatureRequest::default()
    };
    let recipe = Recipe {
        seed: u64::MAX,
        ..Recipe::from(Descent {
            // Between two numbers that fewer digits would give.
            learning_rate: 0.003_727_593_720_314_938,
            ..Descent::sgd()
        })
    };
    let dataset = scene.path("pictures");
    let (features, training, head) = train(&scene, &dataset, &request, &recipe);
    let config = RunConfig::new(&dataset, &request, &features, &recipe, vec!["lastlayer".to_owned()]).unwrap();
    let inputs = RunInputs {
        config: &config,
        data: &features.fingerprint,
        space: &features.space,
    };
    let root = scene.path("runs");
    let writer = RunWriter::create(&root, "first", &inputs).unwrap();
    assert_eq!(find_run(&root, "first").unwrap().state, RunState::Unfinished);
    writer.finish(&training, &json!({}), &head).unwrap();
    let run = find_run(&root, "best").unwrap();
    assert_eq!(run.state, RunState::Complete);
    let kept = std::fs::read(run.head()).unwrap();

    // Another cache would do as well; that of another backbone beside it is not taken.
    scene.write(
        "other.onnx",
        &crate::common::TinyModel {
            seed: 2,
            ..Default::default()
        }
        .onnx(),
    );
    scene.run(["extract", "pictures", "--backbone", "other.onnx"]).code(0);
    let again = repeat(&scene, &run).unwrap();
    again.save(scene.path("again")).unwrap();
    assert_eq!(scene.read("again"), kept, "bit for bit");

    // A run of the same is the same in all that counts; of other pictures, labels or splits it is not.
    let report = scene.run(["runs", "diff", "first", "latest", "--json"]).code(0).json();
    assert_eq!(report["same_data"], true);
    let refused = |change: &dyn Fn()| -> String {
        change();
        let extract: Ran = scene.run(crate::common::EXTRACT).code(0);
        assert!(
            extract.stderr.is_empty() || !extract.stderr.contains("error"),
            "{extract:?}"
        );
        let error = repeat(&scene, &run).unwrap_err();
        assert!(error.hint().unwrap().contains("the same data"));
        error.to_string()
    };
    let told = refused(&|| scene.add_pictures("pictures/val/red", 2, 9..10));
    assert!(
        told.ends_with("have changed since:\n  - val, class `red`: 3 rows then, 4 now"),
        "{told}"
    );
    let told = refused(&|| {
        scene.remove("pictures/val/red/009.png");
        scene.write("pictures/train/blue/000.png", &png(&picture(0, 77)));
    });
    assert!(
        told.ends_with("  - train, class `blue`: 6 rows as before, of other pictures"),
        "{told}"
    );
    let told = refused(&|| {
        scene.add_pictures("pictures/train/blue", 0, 0..1);
        scene.rename("pictures/train/green/000.png", "pictures/train/red/900.png");
    });
    assert!(
        told.contains("class `green`: 6 rows then, 5 now") && told.contains("class `red`: 6 rows then, 7 now"),
        "{told}"
    );
    scene.rename("pictures/train/red/900.png", "pictures/train/green/000.png");
    scene.run(crate::common::EXTRACT).code(0);
    repeat(&scene, &run).unwrap();
}

/// The folder of the run that a report of `train-head` names.
fn kept(scene: &Scene, arguments: &[&str]) -> String {
    let command = ["train-head", "--json"].into_iter().chain(arguments.iter().copied());
    let report = scene.run(command).code(0).json();
    report["run"].as_str().unwrap_or_else(|| panic!("{report}")).to_owned()
}

#[test]
fn train_head_keeps_a_run_and_repeats_it_bit_for_bit() {
    let scene = Scene::extracted();
    // One learning rate in nine would be another one if JSON were read with fewer digits; this is one of them.
    let lr = "0.0010109310067826867";
    let first = kept(
        &scene,
        &["pictures", "--lr", lr, "--seed", "3", "--run-name", "first", "-o", "a"],
    );
    assert_eq!(scene.read(&format!("{first}/head.safetensors")), scene.read("a"));
    let again = kept(&scene, &["--from", "first", "-o", "b"]);
    assert_eq!(scene.read("a"), scene.read("b"), "bit for bit");
    for file in ["history.csv", "data.json", "space.json"] {
        assert_eq!(
            scene.read(&format!("{first}/{file}")),
            scene.read(&format!("{again}/{file}")),
            "{file}"
        );
    }
    let report = scene.run(["runs", "diff", &first, &again, "--json"]).code(0).json();
    assert_eq!(
        (&report["same_data"], &report["same_space"]),
        (&json!(true), &json!(true))
    );
    let keys: Vec<&str> = report["config"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["key"].as_str().unwrap())
        .collect();
    assert!(keys.is_empty() || keys == ["dataset.named"], "{keys:?}");
    for metric in report["metrics"].as_array().unwrap() {
        assert_eq!(metric["a"], metric["b"], "{metric}");
    }
    // Options beside it vary the run.
    let other = kept(&scene, &["--from", "first", "--seed", "4", "-o", "c"]);
    assert_ne!(scene.read("a"), scene.read("c"));
    let report = scene.run(["runs", "diff", &again, &other, "--json"]).code(0).json();
    assert_eq!(report["config"], json!([{ "key": "recipe.seed", "a": 3, "b": 4 }]));
    let row = &scene.run(["runs", "--limit", "1", "--json"]).code(0).json()["runs"][0];
    let interval = row["metrics"]["val_accuracy_interval"].as_array().unwrap();
    assert!(interval[0].as_f64() < row["metrics"]["val_accuracy"].as_f64(), "{row}");

    scene.add_pictures("pictures/val/red", 2, 9..10);
    scene.run(crate::common::EXTRACT).code(0);
    scene.run(["train-head", "--from", "first"]).error(
        1,
        &[
            "have changed since",
            "val, class `red`: 3 rows then, 4 now",
            "only the same data give the same head",
        ],
    );
}

#[test]
fn the_heads_of_a_sweep_on_folds_repeat_alone_bit_for_bit() {
    let scene = Scene::extracted();
    for (name, folds) in [("plain", &[][..]), ("folded", &["--folds", "3"][..])] {
        let mut arguments = vec![
            "pictures",
            "--sweep",
            "lr=0.01,0.001",
            "--keep",
            "2",
            "--run-name",
            name,
        ];
        arguments.extend(folds);
        let sweep = kept(&scene, &arguments);
        for file in ["leaderboard.csv", "leaderboard.json", "metrics.json"] {
            assert!(scene.path(&sweep).join(file).is_file(), "{file}");
        }
        for head in ["1", "2"] {
            let child = format!("{sweep}/{head}");
            kept(
                &scene,
                &["--from", &child, "-o", "again", "--run-name", &format!("{name}-{head}")],
            );
            assert_eq!(
                scene.read("again"),
                scene.read(&format!("{child}/head.safetensors")),
                "{child}"
            );
        }
    }
    let ids = listed(&scene, &["--heads"]);
    assert_eq!(ids.iter().filter(|id| id.contains('/')).count(), 4, "{ids:?}");
    assert_eq!(listed(&scene, &[]).len(), 6);
}

#[test]
fn a_head_is_saved_whatever_becomes_of_its_run() {
    let scene = Scene::extracted();
    scene.write("runs", b"no folder");
    let run = scene
        .run(["train-head", "pictures", "--json"])
        .code(0)
        .says(&["warning: the run is not kept"]);
    assert_eq!(run.json()["run"], Value::Null);
    assert!(!scene.read("head.safetensors").is_empty());
    scene.remove("runs");
    let run = scene
        .run(["train-head", "pictures", "--no-run", "--no-calibration"])
        .code(0);
    assert_eq!(run.stderr, "");
    assert!(!scene.path("runs").exists());
    // What fails is kept with the reason.
    scene.run(["train-head", "pictures", "--lr", "1e38"]).code(1);
    let report = scene.run(["runs", "--json"]).code(0).json();
    assert_eq!(report["runs"][0]["state"], "failed");
    assert!(
        report["runs"][0]["problem"].as_str().unwrap().contains("diverged"),
        "{report}"
    );
}

#[test]
fn a_sweeps_run_tells_the_options_of_its_best_head_and_repeats_with_as_many_heads() {
    let scene = Scene::extracted();
    let sweep = "lr=1e-5,0.01,schedule=constant,multistep";
    let report = scene
        .run(["train-head", "pictures", "--sweep", sweep, "--keep", "2", "--json"])
        .code(0)
        .says(&["2 of 4 combinations make no sense and are left out"])
        .json();
    let best = report["best"]["settings"]["lr"].as_f64().unwrap();
    let runs = scene.run(["runs", "--json"]).code(0).json();
    let config = &runs["runs"][0]["config"];
    assert_eq!(config["recipe"]["solver"]["learning_rate"], best);
    assert_eq!(config["recipe"]["solver"]["schedule"]["kind"], "constant");
    let again = ["train-head", "--from", "latest", "-o", "again", "--json"];
    let again = scene.run(again).code(0).json();
    assert_eq!(again["heads"], 2);
    assert_eq!(scene.read("again"), scene.read("head.safetensors"));
    assert!(scene.path("again.2").exists());
    // An option takes the place of its axis.
    let one = ["train-head", "--from", "latest", "--lr", "0.02", "--json"];
    assert_eq!(scene.run(one).code(0).json()["heads"], 1);
}

#[test]
fn a_run_on_a_file_of_folds_repeats_on_its_own_copy() {
    let scene = Scene::extracted();
    let train = ["train-head", "pictures", "--epochs", "2", "--json"];
    scene
        .run(
            train
                .into_iter()
                .chain(["--folds", "3", "--folds-file", "folds.csv", "--no-run"]),
        )
        .code(0);
    let first = scene
        .run(train.into_iter().chain(["--folds", "folds.csv"]))
        .code(0)
        .json();
    scene.write("folds.csv", b"path,fold\n");
    let again = scene.run(["train-head", "--from", "latest", "--json"]).code(0).json();
    assert_eq!(again["fold_accuracy"], first["fold_accuracy"]);
    assert_eq!(again["mean_accuracy"], first["mean_accuracy"]);
}
