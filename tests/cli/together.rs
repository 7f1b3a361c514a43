//! Several processes in one cache at the same time: all of them finish, nothing is lost or wrong, and readers see what was
//! complete, bit by bit, all along.

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::Child;

use crate::common::{CLASSES, Run, Scene, StoredRows, TinyModel, counts, stored_rows};

/// A run of `extract`: the data set, then further arguments.
type Writer<'a> = &'a [&'a str];

/// A scene with a head trained on `pictures`, in the space that `pictures` has, and a model of some work.
fn scene() -> Scene {
    let scene = Scene::with_pictures();
    let model = TinyModel {
        width: 64,
        kernel: 7,
        stride: 4,
        ..TinyModel::default()
    };
    scene.write("tiny.onnx", &model.onnx());
    let other = TinyModel { seed: 2, ..model };
    scene.write("other.onnx", &other.onnx());
    scene
}

/// A data set with pictures of these numbers in each class.
fn add(scene: &Scene, name: &str, numbers: Range<u64>) {
    for (class, folder) in CLASSES.iter().enumerate() {
        scene.add_pictures(&format!("{name}/train/{folder}"), class, numbers.clone());
    }
}

fn command<'a>(writer: Writer<'a>, cache: &'a str) -> Vec<&'a str> {
    let mut arguments = vec!["extract", "--json", "--cache", cache];
    arguments.extend(writer);
    if !writer.contains(&"--backbone") {
        arguments.extend(["--backbone", "tiny.onnx"]);
    }
    arguments
}

/// What readers get of `pictures`: a head file, and predictions.
fn read(scene: &Scene, space: &str, head: &str) -> (Vec<u8>, String) {
    let train = ["train-head", "pictures", "--epochs", "3", "--space", space, "-o", head];
    scene.run(train).code(0);
    let predict = ["predict", "--head", "first.head", "pictures", "--json", "--top-k", "3"];
    (scene.read(head), scene.run(predict).code(0).stdout)
}

/// Lets writers run at once, with readers beside them, and compares with runs one after another into a cache of their own.
///
/// Returns `[images, computed, reused, failed]` of each.
fn run_together(scene: &Scene, writers: &[Writer<'_>]) -> Vec<[u64; 4]> {
    let report = scene.run(command(&["pictures"], "cache")).code(0).json();
    let space = report["space"].as_str().unwrap().to_owned();
    let expected = {
        read(scene, &space, "first.head");
        read(scene, &space, "again.head")
    };
    let mut children: Vec<Child> = writers
        .iter()
        .map(|writer| scene.spawn(&mut scene.command(command(writer, "cache"))))
        .collect();
    let mut rounds = 0;
    while rounds == 0 || children.iter_mut().any(|child| child.try_wait().unwrap().is_none()) {
        assert!(
            read(scene, &space, "again.head") == expected,
            "a reader got something else"
        );
        rounds += 1;
    }
    eprintln!("readers ran {rounds} times beside {writers:?}");
    let reports: Vec<[u64; 4]> = children
        .into_iter()
        .map(|child| counts(&Run::of(child.wait_with_output().unwrap()).code(0).json()))
        .collect();

    scene.run(command(&["pictures"], "clean")).code(0);
    for writer in writers {
        scene.run(command(writer, "clean")).code(0);
        // Whoever comes later finds everything.
        let again = counts(&scene.run(command(writer, "cache")).code(0).json());
        assert_eq!(again, [again[0], 0, again[0], 0], "{writer:?}");
    }
    let clean: BTreeMap<String, StoredRows> = stored_rows(&scene.path("clean"));
    assert!(stored_rows(&scene.path("cache")) == clean, "rows of {writers:?}");
    assert!(read(scene, &space, "again.head") == expected);
    reports
}

#[test]
fn two_runs_on_the_same_data_both_finish_and_lose_nothing() {
    let scene = scene();
    add(&scene, "more", 100..140);
    let reports = run_together(&scene, &[&["more"], &["more"]]);
    for [images, _, _, failed] in &reports {
        assert_eq!((*images, *failed), (120, 0));
    }
    assert!(
        reports[0][1] + reports[1][1] >= 120,
        "every picture was computed: {reports:?}"
    );
}

#[test]
fn two_runs_on_different_data_both_finish_and_lose_nothing() {
    let scene = scene();
    add(&scene, "left", 100..130);
    add(&scene, "right", 200..230);
    let reports = run_together(&scene, &[&["left"], &["right"]]);
    assert_eq!(reports, [[90, 90, 0, 0], [90, 90, 0, 0]]);
}

#[test]
fn two_runs_on_data_with_an_overlap_both_finish_and_lose_nothing() {
    let scene = scene();
    add(&scene, "left", 100..130);
    add(&scene, "right", 115..145);
    let reports = run_together(&scene, &[&["left"], &["right"]]);
    let computed = reports[0][1] + reports[1][1];
    assert!((135..=180).contains(&computed), "{reports:?}");
    for report in &reports {
        assert_eq!((report[0], report[3]), (90, 0));
        assert!(report[1] >= 45, "what only it has: {report:?}");
    }
}

#[test]
fn three_runs_at_once_all_finish_and_lose_nothing() {
    let scene = scene();
    add(&scene, "left", 100..125);
    add(&scene, "right", 110..135);
    let reports = run_together(
        &scene,
        &[&["left"], &["right"], &["left", "--rehash", "--batch-size", "1"]],
    );
    for report in &reports {
        assert_eq!((report[0], report[3]), (75, 0));
    }
    assert!(
        reports.iter().map(|report| report[1]).sum::<u64>() >= 105,
        "{reports:?}"
    );
}

#[test]
fn two_runs_into_different_spaces_both_finish_and_lose_nothing() {
    let scene = scene();
    add(&scene, "more", 100..130);
    let reports = run_together(&scene, &[&["more"], &["more", "--backbone", "other.onnx"]]);
    assert_eq!(reports, [[90, 90, 0, 0], [90, 90, 0, 0]]);
}
