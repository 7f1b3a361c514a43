//! `train-head --folds`: cross-validation.

use std::collections::{BTreeMap, BTreeSet};

use crate::common::{CLASSES, Run, Scene, picture, png};
use lastlayer::metrics::wilson;
use lastlayer::{Cache, FeatureRequest, RandomViews, labelled_features};
use lastlayer::{Descent, Examples, Lbfgs, Quiet, Recipe, TrainingTask};
use ndarray::Axis;
use serde_json::Value;

fn train(scene: &Scene, options: &str) -> Run {
    scene.run(["train-head", "pictures"].into_iter().chain(options.split_whitespace()))
}

/// The column of a fold file, by path.
fn folds(scene: &Scene, name: &str, column: &str) -> BTreeMap<String, Option<usize>> {
    let mut reader = csv::Reader::from_path(scene.path(name)).unwrap();
    let rows = reader.deserialize::<BTreeMap<String, String>>().map(Result::unwrap);
    rows.map(|row| (row["path"].clone(), row[column].parse().ok()))
        .collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|number| number.as_f64().unwrap())
        .collect()
}

#[test]
fn every_number_of_a_cross_validation_is_what_the_library_gives_on_its_folds() {
    let scene = Scene::extracted();
    let report = train(&scene, "--folds 3 --folds-file folds.csv --epochs 2 --lr 0.002 --json")
        .code(0)
        .json();
    assert_eq!((&report["folds"], &report["repeats"]), (&3.into(), &1.into()));
    assert_eq!(
        (&report["train_images"], &report["val_images"]),
        (&27.into(), &0.into())
    );
    assert_eq!(
        report["val_accuracy"],
        Value::Null,
        "nothing is left to validate the head that is saved"
    );

    // The rows in the order of the listing: train, then val.
    let request = FeatureRequest::default();
    let features = labelled_features(&Cache::new(&scene.path("cache")), &scene.path("pictures"), &request).unwrap();
    let x = ndarray::concatenate(Axis(0), &[features.train.view(), features.val.view()]).unwrap();
    let y = [features.train.labels.clone(), features.val.labels.clone()].concat();
    let assigned: Vec<usize> = folds(&scene, "folds.csv", "fold")
        .into_values()
        .map(Option::unwrap)
        .collect();
    assert_eq!(assigned.len(), 27);
    let recipe = Recipe::from(Descent {
        epochs: 2,
        learning_rate: 0.002,
        ..Descent::sgd()
    })
    .check()
    .unwrap();
    let (mut expected, mut losses) = (Vec::new(), Vec::new());
    let mut correct = 0;
    for fold in 0..3 {
        let rows = |held: bool| {
            (0..27)
                .filter(|row| (assigned[*row] == fold + 1) == held)
                .collect::<Vec<usize>>()
        };
        let labels = |rows: &[usize]| rows.iter().map(|row| y[*row]).collect::<Vec<usize>>();
        let (train_x, train_y) = (x.select(Axis(0), &rows(false)), labels(&rows(false)));
        let task = TrainingTask::new(3, Examples::new(train_x.view(), &train_y).unwrap()).unwrap();
        let head = recipe.train(&task, &Quiet, &mut |_| ()).unwrap().final_head;
        let score = head
            .score(x.select(Axis(0), &rows(true)).view(), &labels(&rows(true)))
            .unwrap();
        expected.push(score.accuracy());
        losses.push(score.loss());
        correct += score.correct();
    }
    let mean_loss = losses.iter().sum::<f64>() / 3.0;
    assert!((report["mean_loss"].as_f64().unwrap() - mean_loss).abs() < 1e-12);
    assert_eq!(numbers(&report["fold_accuracy"]), expected);
    let mean = expected.iter().sum::<f64>() / 3.0;
    assert!((report["mean_accuracy"].as_f64().unwrap() - mean).abs() < 1e-12);
    let variance = expected.iter().map(|accuracy| (accuracy - mean).powi(2)).sum::<f64>() / 2.0;
    assert!((report["standard_error"].as_f64().unwrap() - (variance / 3.0).sqrt()).abs() < 1e-12);
    assert_eq!(numbers(&report["accuracy_interval"]), wilson(correct, 27));

    let task = TrainingTask::new(3, Examples::new(x.view(), &y).unwrap()).unwrap();
    let whole = recipe.train(&task, &Quiet, &mut |_| ()).unwrap().final_head;
    let saved = lastlayer::HeadFile::load(scene.path("head.safetensors")).unwrap();
    assert_eq!(saved.head, whole, "the head is trained on all pictures");
}

#[test]
fn folds_train_on_the_views_of_their_own_pictures() {
    let scene = Scene::new();
    for (class, name) in CLASSES.iter().enumerate() {
        scene.add_pictures(&format!("pictures/{name}"), class, 0..8);
    }
    scene.extract(["--views", "2"]);
    let options = "--folds 3 --views 2 --folds-file folds.csv --solver lbfgs --json";
    let report = train(&scene, options).code(0).json();
    let request = FeatureRequest {
        views: RandomViews::new(2, 0).unwrap(),
        ..FeatureRequest::default()
    };
    let features = labelled_features(&Cache::new(&scene.path("cache")), &scene.path("pictures"), &request).unwrap();
    assert_eq!((features.train.labels.len(), features.train_views.len()), (24, 2));
    let assigned: Vec<Option<usize>> = folds(&scene, "folds.csv", "fold").into_values().collect();
    let recipe = Recipe::from(Lbfgs::default()).check().unwrap();
    let mut losses = Vec::new();
    for fold in 1..=3 {
        let rows = |held: bool| {
            (0..24)
                .filter(|row| (assigned[*row] == Some(fold)) == held)
                .collect::<Vec<usize>>()
        };
        let of = |rows: &[usize]| {
            let labels: Vec<usize> = rows.iter().map(|row| features.train.labels[*row]).collect();
            (features.train.features.select(Axis(0), rows), labels)
        };
        let ((x, y), (held, held_y)) = (of(&rows(false)), of(&rows(true)));
        let views = features
            .train_views
            .iter()
            .map(|view| view.select(Axis(0), &rows(false)));
        let views: Vec<_> = views.collect();
        let task = TrainingTask::new(3, Examples::new(x.view(), &y).unwrap()).unwrap();
        let task = task
            .with_views(views.iter().map(ndarray::Array2::view).collect())
            .unwrap();
        let head = recipe.train(&task, &Quiet, &mut |_| ()).unwrap().final_head;
        losses.push(head.score(held.view(), &held_y).unwrap().loss());
    }
    let mean_loss = losses.iter().sum::<f64>() / 3.0;
    assert!(
        (report["mean_loss"].as_f64().unwrap() - mean_loss).abs() < 1e-12,
        "{report}"
    );
}

#[test]
fn folds_without_an_optimum_are_counted() {
    let scene = Scene::extracted();
    let options = "--folds 3 --solver lbfgs --max-iterations 1 --json";
    let report = train(&scene, options).code(0).json();
    assert_eq!(report["unconverged_folds"], 3, "{report}");
    let report = train(&scene, "--folds 3 --solver lbfgs --json").code(0).json();
    assert_eq!(report["unconverged_folds"], 0, "{report}");
}

#[test]
fn folds_have_like_shares_and_hold_together_what_belongs_together() {
    let scene = Scene::with_pictures();
    // The same picture in train and in val.
    scene.write("pictures/train/red/copy.png", &scene.read("pictures/val/red/007.png"));
    scene.write("pictures/test/red/900.png", &png(&picture(2, 900)));
    scene.run(crate::common::EXTRACT).code(0);
    train(&scene, "--folds 3 --folds-file folds.csv --epochs 1").code(0);
    let assigned = folds(&scene, "folds.csv", "fold");
    assert_eq!(assigned.len(), 28, "the test split is left alone: {assigned:?}");
    assert_eq!(assigned["train/red/copy.png"], assigned["val/red/007.png"]);
    for class in CLASSES {
        let mut counts = [0; 3];
        for (_, fold) in assigned.iter().filter(|(path, _)| path.contains(class)) {
            counts[fold.unwrap() - 1] += 1;
        }
        assert!(
            counts.iter().all(|count| (3..=4).contains(count)),
            "{class}: {counts:?}"
        );
    }
}

#[test]
fn groups_are_never_in_two_folds() {
    let scene = Scene::new();
    for (class, name) in CLASSES.iter().enumerate() {
        for group in 0..6_u64 {
            let numbers = group * 10..group * 10 + 2 + group % 2;
            scene.add_pictures(&format!("pictures/{name}/series{group}"), class, numbers);
        }
    }
    scene.run(crate::common::EXTRACT).code(0);
    train(
        &scene,
        "--folds 3 --folds-file folds.csv --epochs 1 --group-by ([a-z]+/series[0-9])",
    )
    .code(0);
    let assigned = folds(&scene, "folds.csv", "fold");
    assert_eq!(assigned.len(), 45);
    let pairs: BTreeSet<(&str, Option<usize>)> = assigned
        .iter()
        .map(|(path, fold)| (path.rsplit_once('/').unwrap().0, *fold))
        .collect();
    assert_eq!(pairs.len(), 18, "{pairs:?}");
}

#[test]
fn a_sweep_over_folds_saves_what_its_best_options_give_on_all_pictures() {
    let scene = Scene::extracted();
    let sweep = "--epochs 2 --folds 3 --sweep lr=1e-5..0.1:log5,seed=0..1";
    let report = train(&scene, &format!("{sweep} --leaderboard board.csv --json"))
        .code(0)
        .json();
    assert_eq!(report["heads"], 10);
    let board = report["leaderboard"].as_array().unwrap();
    let accuracy = |entry: &Value| entry["mean_accuracy"].as_f64().unwrap();
    assert!(board.windows(2).all(|pair| accuracy(&pair[0]) >= accuracy(&pair[1])));
    assert!(accuracy(&board[0]) > accuracy(&board[9]));
    assert_eq!(report["mean_accuracy"], board[0]["mean_accuracy"]);
    let best = scene.read("head.safetensors");
    let options: Vec<&str> = report["best"]["options"]
        .as_array()
        .unwrap()
        .iter()
        .map(|option| option.as_str().unwrap())
        .collect();
    // Other folds for another seed, but the same pictures in the end.
    let alone = train(&scene, &format!("{} --folds 3 -o alone --json", options.join(" ")))
        .code(0)
        .json();
    let weights = |name: &str| lastlayer::HeadFile::load(scene.path(name)).unwrap().head;
    assert_eq!(weights("alone"), weights("head.safetensors"));
    assert_eq!(alone["train_loss"], report["train_loss"]);
    for threads in ["1", "4"] {
        train(&scene, &format!("{sweep} --threads {threads}")).code(0);
        assert!(scene.read("head.safetensors") == best, "{threads} threads");
    }
    let mut csv = csv::Reader::from_path(scene.path("board.csv")).unwrap();
    let header = csv.headers().unwrap().clone();
    assert_eq!(&header[4], "mean_accuracy", "{header:?}");
    assert_eq!(csv.records().count(), 10);
}

#[test]
fn repeats_fold_anew_and_a_file_gives_the_same_folds_again() {
    let scene = Scene::extracted();
    let options = "--epochs 1 --lr 0.0005 --json";
    let written = train(
        &scene,
        &format!("--folds 3 --repeats 2 --folds-file folds.csv {options}"),
    )
    .code(0)
    .json();
    assert_eq!(numbers(&written["fold_accuracy"]).len(), 6);
    let (first, second) = (folds(&scene, "folds.csv", "fold1"), folds(&scene, "folds.csv", "fold2"));
    assert_ne!(first, second);
    let read = train(&scene, &format!("--folds folds.csv --folds-file again.csv {options}"))
        .code(0)
        .json();
    for key in [
        "folds",
        "repeats",
        "fold_accuracy",
        "mean_accuracy",
        "standard_error",
        "accuracy_interval",
    ] {
        assert_eq!(read[key], written[key], "{key}");
    }
    assert!(scene.read("again.csv") == scene.read("folds.csv"));
    let seeded = train(&scene, &format!("--folds 3 --seed 1 --folds-file seeded.csv {options}"));
    seeded.code(0);
    assert_eq!(
        folds(&scene, "seeded.csv", "fold"),
        second,
        "the second repeat's seed is the next one"
    );
}

#[test]
fn folds_are_counted_from_one_everywhere_and_files_that_count_from_zero_are_the_same_folds() {
    let scene = Scene::extracted();
    let options = "--epochs 1 --lr 0.0005";
    let text = train(&scene, &format!("--folds 3 --folds-file folds.csv {options}"))
        .code(0)
        .stdout;
    let numbers: BTreeSet<Option<usize>> = folds(&scene, "folds.csv", "fold").into_values().collect();
    assert_eq!(numbers, BTreeSet::from([Some(1), Some(2), Some(3)]));
    assert!(text.starts_with("fold 1/3 Acc"), "{text}");
    let run = std::fs::read_dir(scene.path("runs")).unwrap().next().unwrap().unwrap();
    let copy = run.path().join("folds.csv");
    assert_eq!(std::fs::read(&copy).unwrap(), scene.read("folds.csv"));
    // As earlier versions wrote it, here and in the folders of runs.
    let written = String::from_utf8(scene.read("folds.csv")).unwrap();
    let mut earlier = written.clone();
    for fold in 1..=3 {
        earlier = earlier.replace(&format!(",{fold}\n"), &format!(",{}\n", fold - 1));
    }
    assert_ne!(earlier, written);
    scene.write("earlier.csv", earlier.as_bytes());
    let again = train(&scene, &format!("--folds earlier.csv --folds-file again.csv {options}")).code(0);
    assert_eq!(
        again.stdout.lines().take(3).collect::<Vec<_>>(),
        text.lines().take(3).collect::<Vec<_>>()
    );
    assert_eq!(scene.read("again.csv"), scene.read("folds.csv"));
    let latest = train_from_copy(&scene, &earlier);
    assert_eq!(
        latest.lines().take(3).collect::<Vec<_>>(),
        text.lines().take(3).collect::<Vec<_>>()
    );
}

/// Repeats the newest run, which used a file of folds, with `copy` as what it kept of the file.
fn train_from_copy(scene: &Scene, copy: &str) -> String {
    let record = scene.run(["runs", "show", "latest", "--json"]).code(0).json();
    scene.write(
        &format!("{}/folds.csv", record["path"].as_str().unwrap()),
        copy.as_bytes(),
    );
    scene.run(["train-head", "--from", "latest"]).code(0).stdout
}

#[test]
fn the_lines_for_people_have_each_fold_and_the_mean() {
    let scene = Scene::extracted();
    let run = train(&scene, "--folds 3 --lr 0.05").code(0);
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(
        lines[..3],
        ["fold 1/3 Acc: 1.0000", "fold 2/3 Acc: 1.0000", "fold 3/3 Acc: 1.0000"]
    );
    assert!(lines[3].starts_with("Training complete in "));
    assert_eq!(lines[4], "Mean Acc: 1.0000 ± 0.0000  (95% interval 0.8754 to 1.0000)");
    assert_eq!(lines[5], "head: head.safetensors  (trained on all 27 pictures)");
}

#[test]
fn small_classes_are_told_and_bad_folds_refused() {
    let scene = Scene::extracted();
    scene.add_pictures("pictures/train/yellow", 1, 70..71);
    scene.run(crate::common::EXTRACT).code(0);
    train(&scene, "--folds 3 --epochs 1 --folds-file folds.csv")
        .code(0)
        .says(&["class `yellow` is one picture or group"]);
    assert_eq!(folds(&scene, "folds.csv", "fold")["train/yellow/070.png"], None);
    train(&scene, "--folds 10 --epochs 1")
        .code(0)
        .says(&["class `red` has 9 pictures or groups for 10 folds"]);
    train(&scene, "--folds 28").code(2).says(&["28 folds", "here are 27"]);
    train(&scene, "--folds 1").code(2).says(&["at least 2"]);
    train(&scene, "--folds 3 --patience 2")
        .code(2)
        .says(&["--patience", "--folds"]);
    train(&scene, "--folds 3 --sweep schedule=step,plateau")
        .code(2)
        .says(&["--schedule plateau"]);
    train(&scene, "--repeats 2").code(2).says(&["--folds"]);
    train(&scene, "--folds folds.csv --repeats 2")
        .code(2)
        .says(&["--repeats"]);
    scene.write("few.csv", b"path,fold\ntrain/red/000.png,0\n");
    train(&scene, "--folds few.csv").error(1, &["few.csv", "27 of 28 pictures"]);
    scene.write("none.csv", b"file,fold\na,0\n");
    train(&scene, "--folds none.csv").error(1, &["none.csv", "no column `path`"]);
    let text = String::from_utf8(scene.read("folds.csv")).unwrap();
    scene.write("odd.csv", text.replace(",1\n", ",x\n").as_bytes());
    train(&scene, "--folds odd.csv").error(1, &["odd.csv", "`x` is no fold"]);
    scene.write("gap.csv", text.replace(",1\n", ",7\n").as_bytes());
    train(&scene, "--folds gap.csv").error(1, &["gap.csv", "no picture in fold 1, but one in fold 7"]);
}
