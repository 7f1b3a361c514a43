//! `runs`: what was trained can be listed, found, compared, and repeated bit for bit. The folders of most tests are written
//! here by hand, file by file, as they are documented.

use lastlayer::{
    Cache, Descent, Error, Examples, FeatureRequest, HeadFile, HeadMeta, LabelledFeatures, Quiet, Recipe, Run,
    RunConfig, RunInputs, RunState, RunWriter, Training, TrainingTask, find_run, labelled_features,
};
use serde_json::{Value, json};

use crate::common::{Run as Ran, Scene, picture, png};

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

#[test]
fn a_run_is_called_by_its_name_its_folder_or_how_that_begins() {
    let scene = three();
    let found = |word: &str| -> String {
        scene.run(["runs", "show", word, "--json"]).code(0).json()["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    for (word, id) in [
        ("latest", B),
        ("best", B),
        (A, A),
        ("20261123", C),
        ("20261124-08", A),
        ("slow", C),
        ("runs/20261124-080000-plain", A),
        ("runs/20261124-080000-plain/", A),
    ] {
        assert_eq!(found(word), id, "{word}");
    }
    scene
        .run(["runs", "show", "20261124"])
        .error(2, &["`20261124` could be several runs in `runs`:", A, B, "say more"]);
    scene
        .run(["runs", "show", "sl"])
        .error(2, &["there is no run `sl`", "the newest is `20261124-090000-fast`"]);
    // From elsewhere by its path, or by the folder of the runs.
    scene.rename("runs", "kept");
    scene.run(["runs", "show", A]).code(2);
    assert_eq!(
        scene
            .run(["runs", "show", &format!("kept/{A}"), "--json"])
            .code(0)
            .json()["id"],
        A
    );
    assert_eq!(
        scene
            .run(["runs", "show", "slow", "--runs", "kept", "--json"])
            .code(0)
            .json()["id"],
        C
    );
    assert_eq!(
        scene.run(["runs", "--runs", "kept", "--json"]).code(0).json()["runs"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
}

#[test]
fn the_heads_that_a_sweep_kept_are_called_by_their_ranks() {
    let scene = three();
    let (sweep, head) = ("20261124-110000-sweep", |rank: &str| {
        format!("20261124-110000-sweep/{rank}")
    });
    write_run(&scene, sweep, &Given { name: "sweep", ..GIVEN });
    edit_json(&scene, &format!("runs/{sweep}/run.json"), &|run| {
        run["kind"] = json!("sweep");
    });
    for rank in 1..=12 {
        let id = head(&format!("{rank:02}"));
        let accuracy = 1.0 - f64::from(rank) / 1000.0;
        let given = Given {
            name: "head",
            val_accuracy: accuracy,
            ..GIVEN
        };
        write_run(&scene, "20261124-110000-head", &given);
        scene.rename("runs/20261124-110000-head", &format!("runs/{id}"));
    }
    for (word, rank) in [
        ("sweep/1", "01"),
        ("sweep/01", "01"),
        ("sweep/001", "01"),
        ("sweep/12", "12"),
        ("latest/1", "01"),
        ("latest/10", "10"),
        ("best", "01"),
        ("best/1", "01"),
        ("best/2", "02"),
        ("20261124-11/3", "03"),
        ("20261124-110000-sweep/3", "03"),
        ("20261124-110000-sweep/03", "03"),
        ("runs/20261124-110000-sweep/3", "03"),
        ("runs/20261124-110000-sweep/03/", "03"),
    ] {
        assert_eq!(found(&scene, word), head(rank), "{word}");
    }
    scene.run(["runs", "show", "latest/13"]).error(
        2,
        &[
            "there is no run `latest/13`: `20261124-110000-sweep` kept 12 heads",
            "`20261124-110000-sweep/1` to `20261124-110000-sweep/12`",
        ],
    );
    scene
        .run(["runs", "show", "plain/1"])
        .error(2, &["`20261124-080000-plain` kept no head", "the run of one head"]);
    scene
        .run(["runs", "show", "nothing/1"])
        .error(2, &["there is no run `nothing`"]);
    // Elsewhere, by the path.
    scene.rename("runs", "kept");
    assert_eq!(found(&scene, "kept/20261124-110000-sweep/3"), head("03"));
    let diff = ["runs", "diff", "latest/1", "best/12", "--runs", "kept", "--json"];
    let report = scene.run(diff).code(0).json();
    assert_eq!((&report["a"], &report["b"]), (&json!(head("01")), &json!(head("12"))));
}

#[test]
fn the_folder_of_the_runs_is_named_before_or_after_each_verb_and_options_of_the_list_too() {
    let scene = three();
    scene.rename("runs", "kept");
    for verb in [
        &["list"][..],
        &["list", "--json"],
        &["show", "plain"],
        &["show", "latest", "--json"],
        &["diff", "plain", "fast"],
        &["compare", "plain", "fast", "slow"],
    ] {
        let (name, rest) = verb.split_first().unwrap();
        let run = |before: &[&str], middle: &[&str], after: &[&str]| -> String {
            let words = [&["runs"], before, &[*name], middle, rest, after].concat();
            scene.run(words).code(0).stdout
        };
        let runs = ["--runs", "kept"];
        let expected = run(&runs, &[], &[]);
        assert!(expected.contains("2026112"), "{expected}");
        assert_eq!(run(&[], &runs, &[]), expected, "{verb:?}");
        assert_eq!(run(&[], &[], &runs), expected, "{verb:?}");
    }
    let limited = |words: &[&str]| scene.run([&["runs", "--runs", "kept"], words].concat()).code(0).stdout;
    assert_eq!(limited(&["--limit", "1", "list"]), limited(&["list", "--limit", "1"]));
    assert_eq!(limited(&["--limit", "1", "list"]).lines().count(), 2);
    assert_eq!(
        limited(&["--filter", "lr<0.01", "list", "--filter", "lr>0.0001", "--csv"])
            .lines()
            .count(),
        2
    );
    scene
        .run(["runs", "--runs", "kept", "--limit", "1", "show", "plain"])
        .code(2)
        .says(&["--limit is an option of `runs list` alone"]);
}

#[test]
fn what_is_filtered_or_sorted_by_has_one_column() {
    let scene = three();
    let headings = |words: &[&str]| -> Vec<String> {
        let table = scene.run([&["runs"], words].concat()).code(0).stdout;
        let heading = table.lines().next().unwrap().to_owned();
        heading
            .split("  ")
            .filter(|cell| !cell.is_empty())
            .map(|cell| cell.trim().to_owned())
            .collect()
    };
    let plain = headings(&[]);
    for filter in [
        "state=complete",
        "State=complete",
        "solver.lr<1",
        "LR<1",
        "learning-rate<1",
        "val-accuracy>0",
        "metrics.val_accuracy>0",
        "config.dataset.named=cats4",
        "created>2000",
    ] {
        let expected = match filter {
            "config.dataset.named=cats4" => 1,
            _ => 0,
        };
        assert_eq!(
            headings(&["--filter", filter]).len(),
            plain.len() + expected,
            "{filter}"
        );
    }
    let twice = headings(&[
        "--filter",
        "val_loss<1",
        "--filter",
        "val-loss>0",
        "--sort",
        "metrics.val_loss",
    ]);
    assert_eq!(twice.len(), plain.len() + 1, "{twice:?}");
    // The epochs that were trained and those that were asked for are two things.
    let epochs = headings(&["--filter", "epochs>0", "--filter", "solver.epochs>0"]);
    assert_eq!(epochs.len(), plain.len() + 1, "both are 25 here: {epochs:?}");
    edit_json(&scene, &format!("runs/{A}/metrics.json"), &|metrics| {
        metrics["epochs"] = json!(9);
    });
    let epochs = headings(&["--filter", "epochs>0", "--filter", "solver.epochs>0"]);
    assert_eq!(epochs.len(), plain.len() + 2, "{epochs:?}");
    let csv = scene.run([
        "runs",
        "--csv",
        "--filter",
        "state=complete",
        "--sort",
        "val_accuracy_low",
    ]);
    assert!(
        csv.exit != Some(0),
        "no key: the ends of the interval are columns of CSV only"
    );
}

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
