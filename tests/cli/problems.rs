//! What is wrong with a data set is said by `extract` and by `train-head`, to people and to programs.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::common::{EXTRACT, Run, Scene, counts, picture, png, shared};

fn extract(scene: &Scene, arguments: &[&str]) -> Run {
    scene.run(
        EXTRACT
            .into_iter()
            .chain(["--json", "-q"])
            .chain(arguments.iter().copied()),
    )
}

fn train(scene: &Scene, arguments: &[&str]) -> Run {
    let fixed = ["train-head", "pictures", "--json", "-q", "--epochs", "1"];
    scene.run(fixed.into_iter().chain(arguments.iter().copied()))
}

/// The paths of each set of identical pictures.
fn paths(identical: &Value) -> Vec<Vec<&str>> {
    let all = identical.as_array().unwrap();
    all.iter()
        .map(|identical| {
            let pictures = identical["pictures"].as_array().unwrap();
            pictures
                .iter()
                .map(|picture| picture["path"].as_str().unwrap())
                .collect()
        })
        .collect()
}

#[test]
fn identical_pictures_with_other_labels_or_in_two_splits_and_missing_classes_are_told_by_both_verbs() {
    let scene = Scene::with_pictures();
    let same = |number: u64| png(&picture(1, number));
    scene.write("pictures/train/red/same.png", &same(0));
    scene.write("pictures/val/green/again.png", &same(1));
    scene.write("pictures/val/green/once.png", &png(&picture(1, 90)));
    scene.write("pictures/val/green/twice.png", &png(&picture(1, 90)));
    scene.remove("pictures/val/blue");
    for run in [extract(&scene, &[]), extract(&scene, &[]), train(&scene, &[])] {
        let run = run.code(0).says(&[
            "warning: the same picture has different labels: `train/green/000.png` as green, `train/red/same.png` as red",
            "warning: the same picture is in several splits: `train/green/001.png` in train, `val/green/again.png` in val",
            "warning: class `blue` has no picture in val",
        ]);
        let report = run.json();
        let problems = &report["problems"];
        assert_eq!(
            paths(&problems["identical_with_different_labels"]),
            [["train/green/000.png", "train/red/same.png"]]
        );
        let labels = &problems["identical_with_different_labels"][0];
        assert_eq!(labels["content"], blake3::hash(&same(0)).to_hex().as_str());
        assert_eq!(
            labels["pictures"][1],
            json!({"path": "train/red/same.png", "label": "red", "split": "train"})
        );
        assert_eq!(
            paths(&problems["identical_across_splits"]),
            [["train/green/001.png", "val/green/again.png"]]
        );
        assert_eq!(problems["classes_missing"], json!([{"class": "blue", "split": "val"}]));
        assert_eq!(problems["groups_across_splits"], json!([]));
    }
    // Mended, nothing is said.
    scene.remove("pictures/train/red/same.png");
    scene.remove("pictures/val/green/again.png");
    scene.add_pictures("pictures/val/blue", 0, 6..9);
    // Pictures that are drawn at random calibrate nothing.
    for run in [extract(&scene, &[]), train(&scene, &["--no-calibration"])] {
        let run = run.code(0);
        assert_eq!(run.stderr, "");
        let report = run.json();
        assert!(
            report["problems"]
                .as_object()
                .unwrap()
                .values()
                .all(|kind| *kind == json!([]))
        );
    }
}

#[test]
fn the_picture_that_cats4_has_in_train_and_val_is_reported_and_no_other() {
    let Some(shared) = shared() else { return };
    let scene = Scene::new();
    let data = shared.join("data/cats4").canonicalize().unwrap();
    let run = scene.run(["extract", data.to_str().unwrap(), "--backbone", "tiny.onnx", "--json"]);
    let run = run.code(0).says(&["the same picture is in several splits"]);
    let report = run.json();
    assert_eq!(counts(&report), [720, 720, 0, 0]);
    let problems = &report["problems"];
    let found = paths(&problems["identical_across_splits"]);
    assert_eq!(
        found,
        [[
            "train/Egyptian_Mau/ZdnQky5DSqGiHhVN8IgTmpvCJA1e2oLB.jpg",
            "val/Egyptian_Mau/8H1Wx2gF0sdIvTji5GK4QZuDwSroet7B.jpg"
        ]]
    );
    for kind in [
        "identical_with_different_labels",
        "groups_across_splits",
        "classes_missing",
    ] {
        assert_eq!(problems[kind], json!([]), "{kind}");
    }
}

/// The split of each picture, by path.
fn splits(scene: &Scene, group_by: &str) -> BTreeMap<String, String> {
    let export = ["cache", "export", "pictures", "-o", "out", "--group-by", group_by];
    scene.run(export).code(0);
    let table = scene.read("out.csv");
    let mut reader = csv::Reader::from_reader(&*table);
    let rows = reader.records().map(Result::unwrap);
    rows.map(|row| (row[0].to_owned(), row[1].to_owned())).collect()
}

/// Animals `0..30` with four pictures each, in two classes.
fn animals() -> Scene {
    let scene = Scene::new();
    for animal in 0..30_u64 {
        for shot in 0..4 {
            let class = animal as usize % 2;
            let path = format!("pictures/{}/animal{animal:02}-{shot}.png", ["cat", "dog"][class]);
            scene.write(&path, &png(&picture(class, animal * 4 + shot)));
        }
    }
    scene
}

#[test]
fn groups_stay_on_one_side_of_a_split() {
    let scene = animals();
    extract(&scene, &[]).code(0);
    let sides = |splits: &BTreeMap<String, String>| {
        let mut sides: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (path, split) in splits {
            let animal = path.split(['/', '-']).nth(1).unwrap().to_owned();
            sides.entry(animal).or_default().insert(split.clone());
        }
        sides
    };
    // Without a pattern the bytes decide, and animals are torn apart.
    let torn = sides(&splits(&scene, "nothing of that kind"));
    assert!(torn.values().any(|sides| sides.len() == 2));
    for pattern in [r"(animal\d+)-", r"animal\d+"] {
        let kept = sides(&splits(&scene, pattern));
        assert!(kept.values().all(|sides| sides.len() == 1), "{pattern}: {kept:?}");
        let val = kept.values().filter(|sides| sides.contains("val")).count();
        assert!((2..=18).contains(&val), "{pattern}: {val} of 30 validate");
        let run = train(&scene, &["--group-by", pattern]).code(0);
        let report = run.json();
        assert_eq!(report["val_images"], val * 4, "{pattern}");
        assert_eq!(report["problems"]["groups_across_splits"], json!([]));
    }
    // The first group of the pattern counts, not all that matches.
    let by_shot = splits(&scene, r"animal\d+-(\d)");
    let of_shot: BTreeSet<(&str, &String)> = by_shot.iter().map(|(path, split)| (&path[13..14], split)).collect();
    assert_eq!(of_shot.len(), 4, "{of_shot:?}");
    // An animal that has another one's picture goes where that goes.
    for animal in 0..29 {
        let next = png(&picture((animal as usize + 1) % 2, (animal + 1) * 4));
        scene.write(&format!("pictures/cat/animal{animal:02}-9.png"), &next);
    }
    extract(&scene, &[])
        .code(0)
        .says(&["the same picture has different labels"]);
    let joined: BTreeSet<String> = splits(&scene, r"animal\d+").into_values().collect();
    assert_eq!(joined.len(), 1, "all are joined: {joined:?}");
}

#[test]
fn a_pattern_that_is_none_or_matches_nothing_is_told() {
    let scene = animals();
    extract(&scene, &[]).code(0);
    train(&scene, &["--group-by", "("])
        .code(2)
        .says(&["--group-by", "unclosed group"]);
    train(&scene, &["--group-by", "bird"])
        .code(0)
        .says(&["warning: no path matches `bird`"]);
    train(&scene, &["--group-by", "animal0(.)"])
        .code(0)
        .says(&["80 of 120 paths do not match `animal0(.)`"]);
}

#[test]
fn groups_that_given_splits_tear_apart_are_reported() {
    let scene = Scene::with_pictures();
    extract(&scene, &[]).code(0);
    let run = train(&scene, &["--group-by", r"00([0-9])\.png"]).code(0);
    assert_eq!(run.json()["problems"]["groups_across_splits"], json!([]));
    scene.rename("pictures/val/red/006.png", "pictures/val/red/000.png");
    extract(&scene, &[]).code(0);
    let run = train(&scene, &["--group-by", r"00([0-9])\.png"]).code(0);
    let run =
        run.says(&["warning: one group is in several splits: `train/blue/000.png` in train, `val/red/000.png` in val"]);
    let report = run.json();
    let groups = &report["problems"]["groups_across_splits"];
    assert_eq!(groups.as_array().unwrap().len(), 1);
    assert_eq!(
        groups[0][1],
        json!({"path": "val/red/000.png", "label": "red", "split": "val"})
    );
    assert_eq!(
        (&report["train_images"], &report["val_images"]),
        (&json!(18), &json!(9))
    );
}
