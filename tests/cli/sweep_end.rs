//! How `train-head --sweep` ends: ranked, whole or stopped, with the heads of this sweep and no others.

use crate::common::{EXTRACT, Run, Scene, files_below};
use lastlayer::HeadFile;
use lastlayer::metrics::fit_temperature;
use lastlayer::{Cache, FeatureRequest, labelled_features};
use serde_json::Value;

/// `train-head pictures` with these options, which are split at spaces.
fn train(scene: &Scene, options: &str) -> Run {
    scene.run(["train-head", "pictures"].into_iter().chain(options.split_whitespace()))
}

fn heads_beside(scene: &Scene) -> Vec<String> {
    let names = std::fs::read_dir(scene.path(".")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut heads: Vec<String> = names.filter(|name| name.starts_with("head")).collect();
    heads.sort();
    heads
}

#[test]
fn of_equal_accuracy_the_lower_loss_of_the_head_as_it_is_saved_ranks_first() {
    let scene = Scene::extracted();
    // One picture is in the wrong class, so that no head is right about all and each has a temperature.
    scene.rename("pictures/val/red/006.png", "pictures/val/blue/106.png");
    scene.run(EXTRACT).code(0);
    std::fs::create_dir(scene.path("all")).unwrap();
    let sweep = "--epochs 6 --sweep lr=1e-3..1:log7,seed=0..1 --keep all -o all/head --json";
    let report = train(&scene, sweep).code(0).json();
    let request = FeatureRequest::default();
    let features = labelled_features(&Cache::new(&scene.path("cache")), &scene.path("pictures"), &request).unwrap();
    let board = report["leaderboard"].as_array().unwrap();
    let number = |entry: &Value, key: &str| entry[key].as_f64().unwrap();
    for entry in board {
        // What is ranked by is the loss of what was saved, computed anew from the file.
        let file = HeadFile::load(scene.path(entry["head"].as_str().unwrap())).unwrap();
        let logits = file.head.logits(features.val.view()).unwrap();
        let divided = logits.mapv(|logit| f64::from(logit) / file.meta.temperature);
        let loss = fit_temperature(divided.view(), &features.val.labels)
            .unwrap()
            .loss_before;
        assert!((number(entry, "calibrated_val_loss") - loss).abs() < 1e-9, "{entry}");
    }
    let key = |entry: &Value| (-number(entry, "val_accuracy"), number(entry, "calibrated_val_loss"));
    assert!(board.windows(2).all(|pair| key(&pair[0]) <= key(&pair[1])), "{report}");
    let plain = |pair: &[Value]| {
        pair[0]["val_accuracy"] == pair[1]["val_accuracy"]
            && number(&pair[0], "val_loss") > number(&pair[1], "val_loss")
    };
    assert!(
        board.windows(2).any(plain),
        "the temperature decides nothing here: {report}"
    );
    // Heads that are saved as they are trained are ranked as they are trained.
    let report = train(&scene, &format!("{sweep} --no-calibration")).code(0).json();
    let board = report["leaderboard"].as_array().unwrap();
    assert!(board.iter().all(|entry| entry.get("calibrated_val_loss").is_none()));
    let key = |entry: &Value| (-number(entry, "val_accuracy"), number(entry, "val_loss"));
    assert!(board.windows(2).all(|pair| key(&pair[0]) <= key(&pair[1])), "{report}");
    assert_eq!(report["calibration"]["fitted"], "off");
}

#[test]
fn the_default_sweep_has_the_same_winner_on_any_number_of_threads() {
    let scene = Scene::extracted();
    let sweep = |threads: &str| {
        train(
            &scene,
            &format!("--sweep default --leaderboard board.csv --threads {threads}"),
        )
        .code(0);
        (scene.read("head.safetensors"), scene.read("board.csv"))
    };
    let one = sweep("1");
    assert!(one == sweep("2") && one == sweep("8"));
}

#[test]
fn every_line_has_the_values_of_what_other_grids_vary_and_no_others() {
    let scene = Scene::extracted();
    let sweep = "--sweep solver=lbfgs,C=1 --sweep solver=sgd,lr=0.1,seed=3 --epochs 2 --json";
    let report = train(&scene, sweep).code(0).json();
    for entry in report["leaderboard"].as_array().unwrap() {
        let expected = match entry["settings"]["solver"].as_str().unwrap() {
            "lbfgs" => serde_json::json!({"solver": "lbfgs", "C": 1, "seed": 0}),
            _ => serde_json::json!({"solver": "sgd", "lr": 0.1, "seed": 3}),
        };
        assert_eq!(entry["settings"], expected);
    }
}

#[test]
fn a_summary_counts_what_diverged() {
    let scene = Scene::extracted();
    let run = train(&scene, "--sweep lr=1e30,1e29,0.05 --weight-decay 1e-3").code(0);
    assert!(
        run.stdout.contains("best of 3 heads (2 diverged): --lr=0.05"),
        "{}",
        run.stdout
    );
    let failed = run.stdout.lines().filter(|line| line.starts_with("failed"));
    assert!(
        failed.clone().all(|line| line.contains("at learning rate 1e")),
        "{}",
        run.stdout
    );
    assert_eq!(failed.count(), 2, "{}", run.stdout);
    let report = train(&scene, "--sweep lr=1e30,0.05 --weight-decay 1e-3 --json")
        .code(0)
        .json();
    assert_eq!(
        (&report["trained_heads"], &report["diverged_heads"]),
        (&1.into(), &1.into())
    );
    assert_eq!(report["interrupted"], false);
}

#[test]
fn heads_of_an_earlier_sweep_are_not_taken_for_those_of_this_one() {
    let scene = Scene::extracted();
    train(&scene, "--epochs 2 --sweep lr=0.01,0.1,seed=0..5 --keep all").code(0);
    assert_eq!(heads_beside(&scene).len(), 12);
    let third = scene.read("head.03.safetensors");
    // Neither was written by a sweep: one was changed, the other is nobody's.
    scene.write("head.04.safetensors", b"mine");
    scene.write("head.99.safetensors", &third);
    scene.write("head.2b.safetensors", &third);
    let run = train(&scene, "--epochs 2 --sweep lr=0.01,0.1,0.2 --keep 2").code(0);
    let run = run.says(&[
        "10 heads of earlier sweeps removed",
        "`head.04.safetensors` and 1 more",
        "not of it",
    ]);
    assert_eq!(
        heads_beside(&scene),
        [
            "head.04.safetensors",
            "head.2.safetensors",
            "head.2b.safetensors",
            "head.99.safetensors",
            "head.safetensors"
        ],
        "{}",
        run.stderr
    );
    // What was removed is in the run that it is from.
    let kept = files_below(&scene.path("runs")).into_iter();
    assert!(
        kept.filter(|path| path.ends_with("03/head.safetensors"))
            .any(|path| std::fs::read(path).unwrap() == third)
    );
    // Without runs nothing proves whose a file is.
    scene.remove("runs");
    train(&scene, "--epochs 2 --sweep lr=0.01,0.1 --no-run")
        .code(0)
        .says(&["head.04.safetensors` and 2 more"]);
    assert!(scene.path("head.2.safetensors").exists());
}

#[test]
fn why_no_temperature_is_fitted_is_said_once_and_in_the_report() {
    let scene = Scene::extracted();
    let note = "no validation picture is classified wrongly";
    let run = train(&scene, "--sweep lr=0.05,0.1,0.2 --keep all --json").code(0);
    assert_eq!(run.stderr.matches(note).count(), 1, "{}", run.stderr);
    assert!(
        run.stderr.contains("3 of 3 heads saved: no validation"),
        "{}",
        run.stderr
    );
    assert_eq!(run.json()["calibration"]["fitted"], "no_mistakes");
    let run = train(&scene, "--lr 0.05 --json").code(0).says(&[note]);
    assert!(run.json()["calibration"]["note"].as_str().unwrap().contains(note));
    assert_eq!(train(&scene, "--lr 0.05 -q").code(0).stderr, "");
    let run = train(&scene, "--lr 0.05 --folds 3 --json")
        .code(0)
        .says(&["with --folds every picture trains"]);
    assert_eq!(run.json()["calibration"]["fitted"], "folds");
    scene.remove("pictures/val");
    let run = train(&scene, "--lr 0.05 --val-fraction 0 --json")
        .code(0)
        .says(&["no temperature is fitted"]);
    assert_eq!(run.json()["calibration"]["fitted"], "no_validation");
}

#[test]
fn a_class_of_any_name_can_have_a_weight() {
    let scene = Scene::new();
    for (class, name) in ["Maine, Coon", "a=b", "plain"].into_iter().enumerate() {
        scene.add_pictures(&format!("pictures/train/{name}"), class, 0..6);
        scene.add_pictures(&format!("pictures/val/{name}"), class, 6..9);
    }
    scene.run(EXTRACT).code(0);
    scene.write("weights.toml", b"\"Maine, Coon\" = 3\n\"a=b\" = 0.5\n");
    scene.write("weights.json", br#"{"Maine, Coon": 3, "a=b": 0.5}"#);
    let head = |weights: &[&str]| {
        let common = ["train-head", "pictures", "--epochs", "2"];
        let run = scene.run(common.into_iter().chain(weights.iter().copied())).code(0);
        (scene.read("head.safetensors"), run.stdout)
    };
    let plain = head(&[]).0;
    let quoted = head(&["--class-weights", "\"Maine, Coon\"=3,a=b=0.5"]).0;
    assert!(plain != quoted);
    assert!(quoted == head(&["--class-weights", "@weights.toml"]).0);
    assert!(quoted == head(&["--class-weights", "@weights.json"]).0);
    let text = String::from_utf8_lossy(&quoted).into_owned();
    assert!(
        text.contains(r#"\"class_weights\":{\"given\":[3.0,0.5,1.0]}"#),
        "{text}"
    );
    // In a sweep, whose run can be repeated without the file.
    let (swept, said) = head(&["--sweep", "class-weights=@weights.toml"]);
    assert!(
        quoted == swept && said.contains("--class-weights=\"Maine, Coon\"=3,a=b=0.5"),
        "{said}"
    );
    assert!(quoted == head(&["--sweep", "class-weights=[\"Maine, Coon\"=3,a=b=0.5]"]).0);
    scene.write("sweep.toml", br#"class-weights = "@weights.json""#);
    assert!(quoted == head(&["--sweep-file", "sweep.toml"]).0);
    scene.remove("weights.json");
    scene.run(["train-head", "--from", "latest"]).code(0);
    assert!(quoted == scene.read("head.safetensors"));
    let run = scene.run(["train-head", "pictures", "--class-weights", "Maine=2"]);
    run.error(2, &["`Maine`", "did you mean `Maine, Coon`?"]);
}

#[test]
fn an_option_of_another_solver_says_whose_it_is_and_what_to_do() {
    let scene = Scene::extracted();
    for (options, words) in [
        (
            "--solver sgd --C 1",
            &[
                "--C is not an option of the solver sgd",
                "lbfgs and linfa",
                "--weight-decay",
            ][..],
        ),
        (
            "--solver lbfgs --momentum 0.9",
            &["`--momentum` belongs to the solver sgd", "leave out `--momentum`"],
        ),
        (
            "--schedule cosine --gamma 0.5",
            &["step, multistep, exponential and plateau", "`--schedule=step`"],
        ),
        ("--solver lbfgs --patience 3", &["belongs to the solvers sgd and adamw"]),
        (
            "--sweep solver=lbfgs,lr=0.1,0.2",
            &["axis `lr`", "choose `solver=sgd`", "leave out `lr`"],
        ),
        ("--sweep momentm=0.9", &["axis `momentm`", "did you mean `momentum`?"]),
        ("--sweep lr=0.1,momentum", &["`momentum=A,B`"]),
    ] {
        train(&scene, options).error(2, words);
    }
    for (text, words) in [
        (
            "seed = 1\nmomentm = 0.9",
            &["`s.toml` line 2, axis `momentm`", "did you mean `momentum`?"][..],
        ),
        (
            "seed = 1\n\nlearning_rate = 0.9",
            &["`s.toml` line 3", "did you mean `lr`?"],
        ),
        ("lr = [0.1, \"fast\"]", &["`s.toml` line 1, axis `lr`", "'fast'"]),
        ("[a]\nC = [0.1, 1]", &["`s.toml` line 2, axis `C`", "lbfgs"]),
        ("momentum = 7\nlr = -1", &["`s.toml`: ", "in the combination"]),
        ("lr = [0.1,\nseed = 1", &["`s.toml` line 2: is not TOML"]),
    ] {
        scene.write("s.toml", text.as_bytes());
        train(&scene, "--sweep-file s.toml").error(2, words);
    }
}

#[cfg(unix)]
mod stopped {
    //! Sweeps that are sent SIGINT.

    use std::io::{BufRead, BufReader, Read};
    use std::process::{Child, Command};

    use super::*;

    fn interrupt(child: &Child) {
        let kill = Command::new("sh")
            .args(["-c", &format!("kill -INT {}", child.id())])
            .status();
        assert!(kill.unwrap().success());
    }

    /// A sweep that is sent `signals` of SIGINT as soon as it says that it trained something; one that is through before is
    /// given more epochs.
    fn stopped(scene: &Scene, options: &str, signals: usize) -> Run {
        for epochs in ["60", "600", "6000"] {
            let options = format!("--epochs {epochs} {options}");
            let arguments = ["train-head", "pictures"].into_iter().chain(options.split_whitespace());
            let mut child = scene.spawn(&mut scene.command(arguments));
            let mut stderr = BufReader::new(child.stderr.take().unwrap());
            // A leaderboard does not fit a pipe: both are read at once.
            let mut stdout = child.stdout.take().unwrap();
            let printed = std::thread::spawn(move || {
                let mut text = String::new();
                stdout.read_to_string(&mut text).unwrap();
                text
            });
            let mut said = String::new();
            while stderr.read_line(&mut said).unwrap() > 0 && !said.contains("training: ") {}
            if said.contains("training: ") {
                interrupt(&child);
                for _ in 1..signals {
                    // Two that are sent at once may come as one.
                    while stderr.read_line(&mut said).unwrap() > 0 && !said.contains("press Ctrl-C again") {}
                    interrupt(&child);
                }
            }
            stderr.read_to_string(&mut said).unwrap();
            let mut run = Run::of(child.wait_with_output().unwrap());
            run.stderr = said;
            run.stdout = printed.join().unwrap();
            if run.exit != Some(0) {
                return run.code(130);
            }
            scene.remove("runs");
        }
        panic!("every sweep ended before it could be stopped");
    }

    #[test]
    fn a_sweep_keeps_and_ranks_what_it_trained_and_is_not_taken_for_a_whole_one() {
        let scene = Scene::extracted();
        let sweep = "--sweep lr=0.001,0.01,seed=0..9999 --keep 2 --leaderboard board.csv --threads 2 --json";
        let run = stopped(&scene, sweep, 1).says(&["warning: interrupted: ", " of 20000 heads were trained"]);
        let report = run.json();
        assert_eq!(
            (&report["interrupted"], &report["heads"]),
            (&true.into(), &20_000.into())
        );
        let trained = report["trained_heads"].as_u64().unwrap() as usize;
        assert!((1..20_000).contains(&trained), "{trained}");

        let mut reader = csv::Reader::from_path(scene.path("board.csv")).unwrap();
        let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 20_000);
        for (place, row) in rows.iter().enumerate() {
            let expected = match place {
                place if place < trained => [(place + 1).to_string(), "trained".to_owned()],
                _ => [String::new(), "not_trained".to_owned()],
            };
            assert_eq!([&row[0], &row[1]], expected, "{row:?}");
        }
        // The head is whole: that of a single run.
        let best: Vec<&str> = report["best"]["options"]
            .as_array()
            .unwrap()
            .iter()
            .map(|option| option.as_str().unwrap())
            .collect();
        train(&scene, &format!("{} -o alone --no-run", best.join(" "))).code(0);
        assert!(scene.read("alone") == scene.read("head.safetensors"));
        assert_eq!(scene.path("head.2.safetensors").exists(), trained > 1);

        let runs = scene.run(["runs", "--json"]).code(0).json();
        assert_eq!(runs["runs"][0]["state"], "interrupted");
        assert_eq!(runs["runs"][0]["metrics"]["sweep"]["trained_heads"], trained);
        scene
            .run(["runs"])
            .code(0)
            .says(&["interrupted: ", "of 20000 heads were trained"]);
        // Neither the sweep nor its best head is repeated as if it had been chosen from all.
        let fewer = ["train-head", "--no-run", "--epochs", "1", "--from"];
        let again = fewer.into_iter().chain(["latest", "--seed", "1"]);
        scene
            .run(again)
            .code(0)
            .says(&["warning: the sweep ", "was interrupted"]);
        scene
            .run(fewer.into_iter().chain(["best"]))
            .code(0)
            .says(&["from a part of its sweep, which was interrupted"]);
    }

    #[test]
    fn folds_rank_what_was_validated_on_all_of_them_and_save_no_head() {
        let scene = Scene::extracted();
        let sweep = "--folds 2 --sweep lr=0.001,0.01,seed=0..4999 --leaderboard board.json --threads 4";
        let run = stopped(&scene, sweep, 1);
        assert!(!scene.path("head.safetensors").exists());
        let runs = scene.run(["runs", "--json"]).code(0).json();
        assert_eq!(runs["runs"][0]["state"], "interrupted");
        // No configuration may have been on both folds yet.
        if scene.path("board.json").exists() {
            let board: Value = serde_json::from_slice(&scene.read("board.json")).unwrap();
            let ranked = board
                .as_array()
                .unwrap()
                .iter()
                .filter(|entry| !entry["rank"].is_null());
            let folds = ranked.map(|entry| entry["fold_accuracy"].as_array().unwrap().len());
            assert!(folds.clone().count() < 10_000 && folds.clone().all(|folds| folds == 2));
            assert!(run.stderr.contains("no head is saved"), "{}", run.stderr);
            assert!(run.stdout.contains("(interrupted): --"), "{}", run.stdout);
        } else {
            assert!(run.stderr.contains("error: interrupted"), "{}", run.stderr);
        }
    }

    #[test]
    fn a_second_ctrl_c_ends_at_once_and_leaves_nothing_that_looks_whole() {
        let scene = Scene::extracted();
        stopped(
            &scene,
            "--sweep lr=0.001,0.01,seed=0..9999 --leaderboard board.csv --threads 2",
            2,
        );
        let runs = scene.run(["runs", "--json"]).code(0).json();
        assert_ne!(runs["runs"][0]["state"], "complete");
        // Each file is there whole or not at all.
        if scene.path("head.safetensors").exists() {
            HeadFile::load(scene.path("head.safetensors")).unwrap();
        }
        if scene.path("board.csv").exists() {
            assert_eq!(
                String::from_utf8(scene.read("board.csv")).unwrap().lines().count(),
                20_001
            );
        }
    }

    #[test]
    fn a_single_training_that_is_stopped_is_an_interrupted_run_without_a_head() {
        let scene = Scene::extracted();
        let arguments = ["train-head", "pictures", "--epochs", "10000000"];
        let mut child = scene.spawn(&mut scene.command(arguments));
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut String::new()).unwrap();
        interrupt(&child);
        stdout.read_to_string(&mut String::new()).unwrap();
        Run::of(child.wait_with_output().unwrap())
            .code(130)
            .says(&["error: interrupted"]);
        assert!(!scene.path("head.safetensors").exists());
        let runs = scene.run(["runs", "--json"]).code(0).json();
        assert_eq!(runs["runs"][0]["state"], "interrupted");
    }
}
