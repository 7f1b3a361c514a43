//! `train-head --sweep`: many trainings at once, each as it is alone.

use std::collections::BTreeMap;

use crate::common::{Run, Scene};
use serde_json::Value;

/// `train-head pictures` with these options, which are split at spaces.
fn train(scene: &Scene, options: &str) -> Run {
    scene.run(["train-head", "pictures"].into_iter().chain(options.split_whitespace()))
}

/// The rows of a CSV file, each by its columns.
fn rows(scene: &Scene, name: &str) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_path(scene.path(name)).unwrap();
    reader.deserialize().map(Result::unwrap).collect()
}

#[test]
fn every_head_of_a_sweep_is_bit_for_bit_that_of_its_single_run() {
    let scene = Scene::extracted();
    std::fs::create_dir(scene.path("all")).unwrap();
    let report = train(
        &scene,
        "--epochs 4 --sweep lr=0.001,0.05,momentum=0,0.9,batch-size=4,32,seed=0..1 --keep all -o all/head.safetensors --json",
    )
    .code(0)
    .json();
    assert_eq!(report["heads"], 16);
    assert_eq!(report["failed_heads"], 0);
    let board = report["leaderboard"].as_array().unwrap();
    assert_eq!(board.len(), 16);
    for (place, entry) in board.iter().enumerate() {
        assert_eq!(entry["rank"], place + 1);
        assert_eq!(entry["status"], "trained");
        let settings = entry["settings"].as_object().unwrap();
        assert_eq!(
            settings.keys().collect::<Vec<_>>(),
            ["lr", "momentum", "batch-size", "seed"]
        );
        let options: Vec<String> = settings
            .iter()
            .map(|(name, value)| format!("--{name}={value}"))
            .collect();
        let alone = train(&scene, &format!("--epochs 4 {} -o alone --json", options.join(" ")))
            .code(0)
            .json();
        for key in [
            "val_accuracy",
            "val_loss",
            "val_accuracy_interval",
            "train_loss",
            "best_epoch",
        ] {
            assert_eq!(entry[key], alone[key], "{key} of {options:?}");
        }
        let head = entry["head"].as_str().unwrap();
        assert!(scene.read(head) == scene.read("alone"), "{head} of {options:?}");
    }
    let names: Vec<&str> = board.iter().map(|entry| entry["head"].as_str().unwrap()).collect();
    assert_eq!(
        (names[0], names[1], names[15]),
        (
            "all/head.safetensors",
            "all/head.02.safetensors",
            "all/head.16.safetensors"
        )
    );
    let best: Vec<String> = report["best"]["options"]
        .as_array()
        .unwrap()
        .iter()
        .map(|option| option.as_str().unwrap().to_owned())
        .collect();
    train(&scene, &format!("{} -o best", best.join(" "))).code(0);
    assert!(scene.read("best") == scene.read("all/head.safetensors"), "{best:?}");
}

#[test]
fn the_best_has_the_highest_accuracy_then_the_lowest_loss_and_threads_change_nothing() {
    let scene = Scene::extracted();
    let sweep = |threads: &str| {
        let options =
            format!("--epochs 3 --sweep lr=1e-5..0.1:log6,seed=0..2 --leaderboard board.csv --threads {threads}");
        train(&scene, &options).code(0);
        (scene.read("head.safetensors"), scene.read("board.csv"))
    };
    let one = sweep("1");
    assert!(one == sweep("2") && one == sweep("5"));
    let board = rows(&scene, "board.csv");
    assert_eq!(board.len(), 18);
    let key = |row: &BTreeMap<String, String>| {
        let number = |name: &str| row[name].parse::<f64>().unwrap();
        (-number("val_accuracy"), number("calibrated_val_loss"))
    };
    for pair in board.windows(2) {
        assert!(key(&pair[0]) <= key(&pair[1]), "{pair:?}");
    }
    assert!(
        board[0]["val_accuracy"] != board[17]["val_accuracy"],
        "some heads are better than others"
    );
    assert_eq!(board[0]["head"], "head.safetensors");
    assert!(board[1..].iter().all(|row| row["head"].is_empty()), "one head is kept");
    assert!(!scene.path("head.2.safetensors").exists());
}

#[test]
fn a_file_says_what_the_option_says_and_both_together_are_more() {
    let scene = Scene::extracted();
    scene.write(
        "grid.toml",
        b"epochs = 2\n[sgd]\nlr = [0.01, 0.1]\nseed = '0..1'\n[other]\nlr = 0.5\nmomentum = [0, 0.5]\n",
    );
    let report = train(&scene, "--sweep-file grid.toml --json").code(0).json();
    assert_eq!(report["heads"], 6);
    let both = train(
        &scene,
        "--sweep-file grid.toml --sweep epochs=2,lr=0.3 --sweep epochs=2,lr=0.1,seed=1 --json",
    );
    // The last is in the file.
    assert_eq!(both.code(0).says(&["1 of 8 combinations"]).json()["heads"], 7);
}

#[test]
fn the_table_shows_what_varies_and_where_the_best_is() {
    let scene = Scene::extracted();
    let run = train(
        &scene,
        "--sweep lr=0.001..0.1:log3,momentum=0.9,seed=0..9 --top 4 --keep 2",
    )
    .code(0);
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        [
            "rank",
            "lr",
            "seed",
            "val",
            "acc",
            "95%",
            "interval",
            "val",
            "loss",
            "calibrated",
            "epoch"
        ]
    );
    assert!(
        lines[1].trim_start().starts_with('1') && lines[4].trim_start().starts_with('4'),
        "{}",
        run.stdout
    );
    assert!(lines[5].starts_with("… 26 more"), "{}", run.stdout);
    let end: Vec<&str> = lines.iter().rev().take(4).rev().copied().collect();
    assert!(end[0].starts_with("Best val Acc: 1.0000  (epoch "), "{}", run.stdout);
    assert!(
        end[0].contains("95% interval 0.7009 to 1.0000"),
        "nine of nine: {}",
        run.stdout
    );
    assert!(end[1].starts_with("best of 30 heads: --seed="), "{}", run.stdout);
    assert_eq!(end[2], "head: head.safetensors");
    assert!(end[3].starts_with("run: runs"), "{}", run.stdout);
    assert!(scene.path("head.2.safetensors").exists() && !scene.path("head.3.safetensors").exists());
    let note = "2 of 2 heads saved: no validation picture is classified wrongly";
    assert!(
        run.stderr.starts_with(note) && run.stderr.lines().count() == 1,
        "{}",
        run.stderr
    );
}

#[test]
fn a_head_that_diverges_is_last_and_ends_nothing() {
    let scene = Scene::extracted();
    let run = train(
        &scene,
        "--sweep lr=1e30,0.05 --weight-decay 1e-3 --leaderboard board.json --json",
    )
    .code(0);
    let report = run.json();
    assert_eq!((&report["heads"], &report["failed_heads"]), (&2.into(), &1.into()));
    let board = &report["leaderboard"];
    assert_eq!(
        (&board[0]["rank"], &board[0]["settings"]["lr"]),
        (&1.into(), &0.05.into())
    );
    assert_eq!(
        (&board[1]["rank"], &board[1]["status"]),
        (&Value::Null, &"failed".into())
    );
    assert!(board[1]["problem"].as_str().unwrap().contains("diverged"), "{board}");
    let file: Value = serde_json::from_slice(&scene.read("board.json")).unwrap();
    assert_eq!(file, *board);
    run.says(&["1 of 2 heads failed", "diverged"]);
    scene.remove("head.safetensors");
    train(&scene, "--sweep lr=1e30,1e31 --weight-decay 1 --leaderboard board.csv")
        .error(1, &["none of 2 trainings", "diverged"]);
    assert!(!scene.path("head.safetensors").exists());
    assert_eq!(
        rows(&scene, "board.csv").len(),
        2,
        "the leaderboard has each one's reason"
    );
}

#[test]
fn what_is_wrong_with_a_sweep_is_said_before_anything_is_trained() {
    let scene = Scene::extracted();
    for (options, words) in [
        ("--sweep rate=1", &["axis `rate`", "momentum"][..]),
        ("--sweep lr=0.1..0.2", &["axis `lr`", "lin5"]),
        ("--sweep lr=0.1 --lr 0.2", &["axis `lr`", "as an option too"]),
        ("--sweep C=1,2", &["--C is not an option of the solver sgd"]),
        ("--sweep seed=0..100000", &["axis `seed`", "100000"]),
        ("--sweep lr=0.1,0.2 --leaderboard board.txt", &["board.txt", ".csv"]),
        ("--keep 2", &["--keep", "--sweep"]),
        (
            "--momentum 0.9 --solver adamw",
            &["--momentum is not an option of the solver adamw"],
        ),
        (
            "--schedule cosine --step-size 3",
            &["--step-size is not an option of the schedule cosine"],
        ),
        ("--class-weights cow=2", &["`cow`", "`blue`"]),
        ("--sweep class-weights=balanced,[red=2,cow=1]", &["`cow`", "`red`"]),
    ] {
        let run = train(&scene, options).code(2).says(words);
        assert_eq!(run.stdout, "", "{options}");
        assert!(!scene.path("head.safetensors").exists(), "{options}");
    }
    scene.write("grid.toml", b"lr = '4..0'");
    train(&scene, "--sweep-file grid.toml").error(2, &["grid.toml", "axis `lr`", "4..0"]);
    train(&scene, "--sweep-file none.toml").code(1).says(&["none.toml"]);
    for option in ["-o none/head", "--leaderboard none/board.csv"] {
        let run = train(&scene, &format!("--sweep lr=0.1,0.2 {option}"))
            .code(2)
            .says(&["cannot write `none/", "the folder `none` does not exist"]);
        assert!(!scene.path("head.safetensors").exists(), "{}", run.stderr);
    }
}

#[test]
fn a_sweep_needs_pictures_to_choose_by() {
    let scene = Scene::extracted();
    scene.remove("pictures/val");
    train(&scene, "--sweep lr=0.1,0.2 --val-fraction 0").error(1, &["no validation picture", "--folds"]);
}
