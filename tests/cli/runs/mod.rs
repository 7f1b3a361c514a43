//! `runs`: what was trained can be listed, found, compared, and repeated bit for bit. The folders of most tests are written
//! here by hand, file by file, as they are documented.

use lastlayer::{
    Cache, Descent, Error, Examples, FeatureRequest, HeadFile, HeadMeta, LabelledFeatures, Quiet, Recipe, Run,
    RunConfig, RunInputs, RunState, RunWriter, Training, TrainingTask, find_run, labelled_features,
};
use serde_json::{Value, json};

use crate::common::{Run as Ran, Scene, picture, png};

mod named;
mod repeated;
mod shown;

/// A run as its files say, and what is different from one to the next.
struct Given {
    name: &'static str,
    learning_rate: f64,
    val_accuracy: f64,
    val_loss: f64,
    data: &'static str,
}

const GIVEN: Given = Given {
    name: "plain",
    learning_rate: 0.001,
    val_accuracy: 0.9,
    val_loss: 0.25,
    data: "aa",
};

fn write_json(scene: &Scene, path: &str, value: &Value) {
    scene.write(path, serde_json::to_string_pretty(value).unwrap().as_bytes());
}

/// Writes the complete run `runs/ID`.
fn write_run(scene: &Scene, id: &str, given: &Given) {
    let file = |name: &str| format!("runs/{id}/{name}");
    let (date, time) = (&id[..8], &id[9..15]);
    let created = format!(
        "{}-{}-{}T{}:{}:{}Z",
        &date[..4],
        &date[4..6],
        &date[6..],
        &time[..2],
        &time[2..4],
        &time[4..]
    );
    let info = json!({
        "format": 1, "kind": "head", "status": "complete", "name": given.name, "created": created,
        "finished": created, "seconds": 0.25, "problem": null,
    });
    write_json(scene, &file("run.json"), &info);
    let recipe = Recipe::from(Descent {
        learning_rate: given.learning_rate,
        ..Descent::sgd()
    });
    let config = json!({
        "dataset": { "named": "cats4", "absolute": "/data/cats4" },
        "features": { "space": "5e".repeat(16), "backbone": "resnet18", "views": 0, "views_seed": 0, "val_fraction": 0.3, "group_by": null,
                      "path_column": null, "label_column": null, "split_column": null, "image_root": null, "name": null },
        "recipe": recipe,
        "lastlayer_version": "0.1.0",
        "command_line": ["lastlayer", "train-head", "cats4", "--run-name", given.name],
    });
    write_json(scene, &file("config.json"), &config);
    let part = |split: &str, sum: &str| json!({ "split": split, "class": 0, "rows": 40, "sum": sum });
    let parts = [part("train", given.data), part("val", "cc")];
    let data = json!({ "id": given.data.repeat(32), "rows": 80, "classes": ["tabby", "siamese"], "parts": parts });
    write_json(scene, &file("data.json"), &data);
    scene.write(&file("space.json"), br#"{"format":1,"precision":"fp32"}"#);
    let metrics = json!({
        "val_accuracy": given.val_accuracy, "val_accuracy_interval": [given.val_accuracy - 0.05, given.val_accuracy + 0.04],
        "val_loss": given.val_loss, "best_epoch": 7, "epochs": 25,
    });
    write_json(scene, &file("metrics.json"), &metrics);
    scene.write(
        &file("history.csv"),
        b"epoch,lr,train_loss,train_accuracy,val_loss,val_accuracy\n0,0.001,1.5,0.5,1.25,0.75\n",
    );
    scene.write(&file("head.safetensors"), b"a head");
}

const A: &str = "20261124-080000-plain";
const B: &str = "20261124-090000-fast";
const C: &str = "20261123-090000-slow";

/// Three runs: `plain`, `fast` on other data and worth most, `slow`, the oldest.
fn three() -> Scene {
    let scene = Scene::new();
    write_run(&scene, A, &GIVEN);
    let fast = Given {
        name: "fast",
        learning_rate: 0.01,
        val_accuracy: 0.95,
        data: "bb",
        ..GIVEN
    };
    write_run(&scene, B, &fast);
    let slow = Given {
        name: "slow",
        learning_rate: 0.0001,
        val_accuracy: 0.8,
        ..GIVEN
    };
    write_run(&scene, C, &slow);
    scene
}

/// The ids in the order in which they are listed with these arguments.
fn listed(scene: &Scene, arguments: &[&str]) -> Vec<String> {
    let command = ["runs", "--json"].into_iter().chain(arguments.iter().copied());
    let report = scene.run(command).code(0).json();
    let runs = report["runs"].as_array().unwrap();
    runs.iter().map(|run| run["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_list_is_a_table_of_what_matters() {
    let scene = three();
    let run = scene.run(["runs"]).code(0);
    let lines: Vec<&str> = run.stdout.lines().collect();
    let expected = [
        "run                    when (UTC)           data set  solver  lr or C  val accuracy            best epoch  state",
        "20261123-090000-slow   2026-11-23 09:00:00  cats4     sgd      0.0001  0.8000 (0.750 – 0.840)           7  complete",
        "20261124-080000-plain  2026-11-24 08:00:00  cats4     sgd       0.001  0.9000 (0.850 – 0.940)           7  complete",
        "20261124-090000-fast   2026-11-24 09:00:00  cats4     sgd        0.01  0.9500 (0.900 – 0.990)           7  complete",
    ];
    assert_eq!(lines[1..], expected[1..], "{}", run.stdout);
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(lines[0]), words(expected[0]));
    assert_eq!(run.stderr, "");
    assert_eq!(scene.run(["runs", "list"]).code(0).stdout, run.stdout);
}

#[test]
fn runs_are_sorted_filtered_and_limited_by_any_key() {
    let scene = three();
    assert_eq!(listed(&scene, &[]), [C, A, B]);
    assert_eq!(listed(&scene, &["--reverse"]), [B, A, C]);
    assert_eq!(listed(&scene, &["--sort", "lr"]), [C, A, B]);
    assert_eq!(listed(&scene, &["--sort", "val_accuracy", "--reverse"]), [B, A, C]);
    assert_eq!(listed(&scene, &["--sort", "val-accuracy", "--limit", "2"]), [C, A]);
    assert_eq!(listed(&scene, &["--filter", "lr<0.01"]), [C, A]);
    assert_eq!(
        listed(&scene, &["--filter", "lr<=0.01", "--filter", "lr>0.0001"]),
        [A, B]
    );
    assert_eq!(
        listed(&scene, &["--filter", "recipe.solver.update.momentum=0.90"]),
        [C, A, B]
    );
    assert_eq!(listed(&scene, &["--filter", "solver=lbfgs"]), [""; 0]);
    assert_eq!(listed(&scene, &["--filter", "dataset=cats4", "--limit", "1"]), [C]);
    assert_eq!(
        listed(&scene, &["--filter", "solver!=lbfgs", "--filter", "name=fast"]),
        [B]
    );
    assert_eq!(listed(&scene, &["--filter", "created>=2026-11-24"]), [A, B]);
    // A key that no column shows gets one.
    let table = scene
        .run(["runs", "--sort", "batch-size", "--filter", "seconds<1"])
        .code(0)
        .stdout;
    assert!(
        table.lines().next().unwrap().ends_with("seconds  batch-size  state"),
        "{table}"
    );
    let few = scene.run(["runs", "--limit", "1"]).code(0);
    assert_eq!(few.stdout.lines().count(), 2);
    few.says(&["1 of 3 runs in runs"]);
    scene
        .run(["runs", "--sort", "lrr"])
        .code(2)
        .says(&["no run in `runs` has a key `lrr`"]);
    scene
        .run(["runs", "--filter", "rate<1"])
        .code(2)
        .says(&["a key `rate`"]);
    scene
        .run(["runs", "--filter", "lr"])
        .code(2)
        .says(&["`lr` is no condition", "as in `lr<0.01`"]);
}

/// Writes a run of a cross-validation as `train-head` does, with `mean` as its accuracy.
fn write_folded(scene: &Scene, id: &str, mean: f64, repeats: usize) {
    write_run(scene, id, &GIVEN);
    edit_json(scene, &format!("runs/{id}/config.json"), &|config| {
        config["folds"] = json!({ "count": 5, "repeats": repeats, "seed": 0 });
    });
    let metrics = json!({
        "val_accuracy": null, "val_loss": null, "best_epoch": 24,
        "cross_validation": { "mean_accuracy": mean, "standard_error": 0.0123, "accuracy_interval": [mean - 0.1, 1.0],
                              "mean_loss": 0.1, "fold_accuracy": vec![mean; 5 * repeats], "unconverged_folds": 0 },
    });
    write_json(scene, &format!("runs/{id}/metrics.json"), &metrics);
}

fn edit_json(scene: &Scene, path: &str, edit: &dyn Fn(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&scene.read(path)).unwrap();
    edit(&mut value);
    write_json(scene, path, &value);
}

fn found(scene: &Scene, word: &str) -> String {
    let record = scene.run(["runs", "show", word, "--json"]).code(0).json();
    record["id"].as_str().unwrap().to_owned()
}

#[test]
fn of_folds_the_mean_is_listed_sorted_and_filtered_by_and_said_to_be_one() {
    let scene = three();
    let (once, twice) = ("20261124-100000-once", "20261124-100001-twice");
    write_folded(&scene, once, 0.93, 1);
    write_folded(&scene, twice, 0.96, 2);
    let table = scene.run(["runs"]).code(0).stdout;
    assert!(table.contains("  0.9300 ± 0.0123 (5 folds)  "), "{table}");
    assert!(table.contains("  0.9600 ± 0.0123 (2 × 5 folds)  "), "{table}");
    let by_accuracy = ["--sort", "val_accuracy", "--reverse"];
    assert_eq!(listed(&scene, &by_accuracy), [twice, B, once, A, C]);
    assert_eq!(listed(&scene, &["--filter", "val_accuracy>0.92"]), [B, once, twice]);
    assert_eq!(listed(&scene, &["--filter", "folds=5"]), [once, twice]);
    let csv = scene.run(["runs", "--csv", "--filter", "repeats=2"]).code(0).stdout;
    let line = csv.lines().nth(1).unwrap();
    assert!(line.contains(",0.96,24,0.86,1.0,5,2,"), "{csv}");
    // What train-head itself writes.
    let scene = Scene::extracted();
    let train = ["train-head", "pictures", "--epochs", "1", "--folds", "3", "--json"];
    let report = scene.run(train.into_iter().chain(["--repeats", "2"])).code(0).json();
    let record = &scene.run(["runs", "--json"]).code(0).json()["runs"][0];
    assert_eq!(record["val_accuracy"], report["mean_accuracy"]);
    assert_eq!(record["val_accuracy_interval"], report["accuracy_interval"]);
    assert_eq!((&record["folds"], &record["repeats"]), (&json!(3), &json!(2)));
}

#[test]
fn best_is_about_one_data_set_and_about_the_same_pictures() {
    let scene = three();
    // A head on the validation pictures is something else than a configuration on folds.
    let (folded, better) = ("20261124-100000-folded", "20261124-100001-better");
    write_folded(&scene, folded, 0.97, 1);
    write_folded(&scene, better, 0.98, 1);
    // That of the newest pictures: `fast` was validated on the same as `plain`, only trained on others.
    let validates = |id: &str, sum: &str| {
        edit_json(&scene, &format!("runs/{id}/data.json"), &|data| {
            data["parts"][1] = json!({ "split": "val", "class": 0, "rows": 9, "sum": sum });
        });
    };
    [A, B, C].iter().for_each(|id| validates(id, "cc"));
    assert_eq!(found(&scene, "best"), B);
    assert_eq!(found(&scene, "best:folds>1"), better);
    assert_eq!(found(&scene, "best:lr<0.01"), A);
    assert_eq!(found(&scene, "best:lr<0.01,name=slow"), C);
    assert_eq!(found(&scene, "latest:val_accuracy!=0.98"), folded);
    let error = scene.run(["runs", "show", "best:lrr<1"]).code(2);
    error.says(&["no run in `runs` has a key `lrr`"]);
    // `fast` on the validation pictures of an earlier state of the data set is no rival of those on the newest.
    validates(C, "dd");
    validates(B, "dd");
    assert_eq!(found(&scene, "best"), B, "the newest is among them");
    validates(A, "dd");
    validates(B, "cc");
    edit_json(&scene, &format!("runs/{A}/run.json"), &|run| {
        run["created"] = json!("2026-11-24T09:30:00Z");
    });
    assert_eq!(
        found(&scene, "best"),
        A,
        "0.9 of the newest pictures before 0.95 of others"
    );
    // Another data set with the same pictures is the same one, with others it is not.
    let moves = |id: &str, absolute: &str| {
        edit_json(&scene, &format!("runs/{id}/config.json"), &|config| {
            config["dataset"] = json!({ "named": absolute.rsplit('/').next(), "absolute": absolute });
        });
    };
    moves(C, "/moved/cats5");
    assert_eq!(found(&scene, "best"), A);
    moves(B, "/data/ants");
    let error = scene.run(["runs", "show", "best"]);
    error.error(
        2,
        &[
            "`best` could be of several data sets in `runs`",
            "  - best:dataset=ants",
            "  - best:dataset=cats4",
            "name one of these",
        ],
    );
    assert_eq!(found(&scene, "best:dataset=ants"), B);
    assert_eq!(found(&scene, "best:dataset=cats4"), A);
    // Of the same name elsewhere.
    moves(B, "/ants/cats4");
    let error = scene.run(["train-head", "--from", "best"]).code(2);
    error.says(&[
        "  - best:dataset.absolute=/ants/cats4",
        "  - best:dataset.absolute=/data/cats4",
    ]);
    assert_eq!(found(&scene, "best:dataset.absolute=/ants/cats4"), B);
}

#[test]
fn csv_has_all_digits() {
    let scene = three();
    let text = scene
        .run(["runs", "--csv", "--sort", "val_loss", "--limit", "1"])
        .code(0)
        .stdout;
    assert_eq!(
        text,
        "id,created,dataset,solver,learning_rate,val_accuracy,best_epoch,val_accuracy_low,val_accuracy_high,folds,val_loss,state\n\
         20261123-090000-slow,2026-11-23T09:00:00Z,cats4,sgd,0.0001,0.8,7,0.75,0.8400000000000001,,0.25,complete\n"
    );
}

#[test]
fn where_no_run_is_nothing_is_listed() {
    let scene = Scene::new();
    let run = scene.run(["runs"]).code(0).says(&["no run is kept in runs"]);
    assert_eq!(run.stdout, "");
    assert_eq!(
        scene.run(["runs", "--json", "-q"]).code(0).json(),
        json!({ "folder": "runs", "runs": [], "left_out": [] })
    );
    scene
        .run(["runs", "show", "latest"])
        .error(2, &["there is no run `latest` in `runs`", "no run is kept there yet"]);
}

#[test]
fn damaged_and_foreign_folders_are_listed_as_such_and_end_nothing() {
    let scene = three();
    let break_run = |id: &str, edit: &dyn Fn(&str)| {
        write_run(&scene, id, &GIVEN);
        edit(&format!("runs/{id}"));
    };
    let deep = "[".repeat(100_000);
    let broken = |name: &'static str, bytes: Vec<u8>| {
        move |scene: &Scene, folder: &str| scene.write(&format!("{folder}/{name}"), &bytes)
    };
    let edits = [
        broken("run.json", b"{".to_vec()),
        broken("run.json", b"[]".to_vec()),
        broken("run.json", br#"{"format": 1, "kind": "other"}"#.to_vec()),
        broken("run.json", br#"{"format": 9}"#.to_vec()),
        broken("run.json", deep.into_bytes()),
        broken("run.json", vec![0xff; 10]),
        broken("metrics.json", b"".to_vec()),
        broken("config.json", b"{\"recipe\"".to_vec()),
        broken("data.json", b"{}".to_vec()),
        broken("space.json", b"nothing".to_vec()),
    ];
    for (number, edit) in edits.iter().enumerate() {
        break_run(&format!("20261125-00000{number}-broken"), &|folder| {
            edit(&scene, folder);
        });
    }
    break_run("20261126-000000-headless", &|folder| {
        scene.remove(&format!("{folder}/head.safetensors"));
    });
    break_run("20261126-000001-odd", &|folder| {
        scene.write(&format!("{folder}/metrics.json"), b"[1, 2]");
        scene.write(&format!("{folder}/config.json"), br#"{"dataset": 3, "recipe": []}"#);
    });
    break_run("20261126-000002-killed", &|folder| {
        let text = String::from_utf8(scene.read(&format!("{folder}/run.json"))).unwrap();
        scene.write(
            &format!("{folder}/run.json"),
            text.replace("complete", "running").as_bytes(),
        );
        scene.remove(&format!("{folder}/metrics.json"));
    });
    scene.write("runs/notes/readme.txt", b"mine");
    scene.write("runs/.hidden/run.json", b"{}");
    scene.write("runs/file", b"");

    let states = |run: &Ran| -> Vec<String> {
        let lines = run.stdout.lines().skip(1);
        lines
            .map(|line| line.rsplit("  ").next().unwrap().trim().to_owned())
            .collect()
    };
    // Of those that came to an end all is listed that is known; the others are counted and explained.
    let run = scene.run(["runs"]).code(0);
    let mut expected = vec!["complete"; 3];
    expected.extend(["damaged"; 5]);
    expected.push("complete");
    assert_eq!(states(&run), expected, "{}", run.stdout);
    let run = run.says(&[
        "20261125-000006-broken: damaged: `metrics.json`",
        "20261126-000000-headless: damaged: `head.safetensors` is missing",
        "8 folders in runs left out, `--all` lists them:",
        "20261125-000000-broken: damaged: `run.json`",
        "20261125-000003-broken: damaged: it was written by a newer version of lastlayer",
        "20261126-000002-killed: unfinished: it is going on, or was stopped from without",
        "notes: foreign: it has no `run.json`",
    ]);
    assert!(!run.stderr.contains("hidden"), "{}", run.stderr);
    let all = scene.run(["runs", "--all"]).code(0);
    let mut expected = vec!["complete"; 3];
    expected.extend(["damaged"; 11]);
    expected.extend(["complete", "unfinished", "foreign"]);
    assert_eq!(states(&all), expected, "{}", all.stdout);
    assert!(!all.stderr.contains("left out"), "{}", all.stderr);
    assert_eq!(
        states(&scene.run(["runs", "--filter", "state=unfinished"])),
        ["unfinished"]
    );
    let report = scene.run(["runs", "--json"]).code(0).json();
    assert_eq!(report["runs"].as_array().unwrap().len(), 9);
    assert_eq!(report["left_out"].as_array().unwrap().len(), 8);
    assert_eq!(report["left_out"][7]["state"], "foreign");
    // They take no place among the first.
    scene.write("runs/00000000-000000-first/notes.txt", b"mine");
    scene.write("runs/29991231-235959-last/run.json", br#"{"format": 9}"#);
    assert_eq!(listed(&scene, &["--limit", "1"]), [C]);
    assert_eq!(listed(&scene, &["--limit", "1", "--reverse"]), ["20261126-000001-odd"]);
    assert_eq!(found(&scene, "latest"), "20261126-000001-odd");
    for arguments in [
        &["--json"][..],
        &["--csv"],
        &["--sort", "lr"],
        &["--heads"],
        &["--filter", "val_loss<1"],
    ] {
        scene.run(["runs"].into_iter().chain(arguments.iter().copied())).code(0);
    }
    // They can be looked at, and the others are found beside them.
    scene.run(["runs", "show", "20261125-000006-broken"]).code(0);
    assert!(scene.run(["runs", "show", "best", "--json"]).code(0).json()["id"] == B);
    scene
        .run(["runs", "diff", A, "20261125-000008-broken"])
        .error(1, &["20261125-000008-broken` can't be used: `data.json`"]);
}
