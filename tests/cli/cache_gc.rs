//! `cache gc`: what no data set uses goes, everything else stays as it was, bit by bit.

use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::common::{EXTRACT, Scene, TinyModel, counts, files_below, segments, stored_files, stored_rows};

fn gc<'a>(scene: &Scene, arguments: impl IntoIterator<Item = &'a str>) -> Value {
    let run = scene.run(["cache", "gc", "--json"].into_iter().chain(arguments));
    run.code(0).json()
}

fn age(paths: &[std::path::PathBuf], by: Duration) {
    for path in paths {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - by).unwrap();
    }
}

fn content(scene: &Scene, name: &str) -> ([u8; 32], u32) {
    (*blake3::hash(&scene.read(name)).as_bytes(), 0)
}

/// Data of a report that a dry run must tell as the real one.
fn outcome(report: &Value) -> Value {
    let mut report = report.clone();
    report.as_object_mut().unwrap().remove("dry_run");
    report
}

/// Extracted in several small segments, then some pictures go and are forgotten. Returns the keys that nobody uses.
fn with_garbage() -> (Scene, Vec<([u8; 32], u32)>) {
    let scene = Scene::extracted();
    for number in 20..24 {
        scene.add_pictures("pictures/train/red", 2, number..number + 1);
        scene.extract([]);
    }
    let unused = [
        "pictures/train/red/001.png",
        "pictures/val/blue/007.png",
        "pictures/train/red/021.png",
    ];
    let keys = unused.iter().map(|name| content(&scene, name)).collect();
    unused.iter().for_each(|name| scene.remove(name));
    scene.extract([]);
    (scene, keys)
}

#[test]
fn rows_that_no_data_set_uses_go_and_the_others_stay_bit_by_bit() {
    let (scene, unused) = with_garbage();
    let before = stored_rows(&scene.path("cache"));
    let count = segments(&scene.path("cache")).len();
    assert!(count >= 5, "{count}");
    let files = stored_files(&scene.path("cache"));
    let told = gc(&scene, ["--now", "--dry-run"]);
    assert!(stored_files(&scene.path("cache")) == files, "a dry run changes nothing");
    let done = gc(&scene, ["--now"]);
    assert_eq!(outcome(&told), outcome(&done));
    assert_eq!((&done["rows"], &done["segments"]), (&28.into(), &1.into()));
    assert_eq!(
        (
            &done["spaces"][0]["dropped_rows"],
            &done["spaces"][0]["segments_before"]
        ),
        (&3.into(), &count.into())
    );
    let mut expected = before.clone();
    let rows = expected.values_mut().next().unwrap();
    assert!(unused.iter().all(|key| rows.remove(key).is_some()));
    assert!(stored_rows(&scene.path("cache")) == expected);
    let size = |files: Vec<std::path::PathBuf>| files.iter().map(|path| path.metadata().unwrap().len()).sum::<u64>();
    let freed = done["freed_bytes"].as_u64().unwrap();
    assert!(freed > 0 && size(segments(&scene.path("cache"))) > 0);
    scene.run(["cache", "verify"]).code(0);
    assert_eq!(counts(&scene.extract([])), [28, 0, 28, 0]);
    // Once more there is nothing to do.
    let again = gc(&scene, ["--now"]);
    assert_eq!(
        (&again["freed_bytes"], &again["spaces"][0]["dropped_rows"]),
        (&0.into(), &0.into())
    );
}

#[test]
fn the_bytes_that_are_told_are_those_that_were_freed() {
    let (scene, _) = with_garbage();
    let size = || {
        segments(&scene.path("cache"))
            .iter()
            .map(|path| path.metadata().unwrap().len())
            .sum::<u64>()
    };
    let before = size();
    let told = gc(&scene, ["--now", "--dry-run"])["freed_bytes"].as_u64().unwrap();
    let done = gc(&scene, ["--now"])["freed_bytes"].as_u64().unwrap();
    assert_eq!((told, done), (before - size(), before - size()));
}

#[test]
fn rows_of_the_last_hour_stay_unless_now_is_said() {
    let (scene, unused) = with_garbage();
    let before = stored_rows(&scene.path("cache"));
    let told = gc(&scene, ["--dry-run"]);
    let done = gc(&scene, []);
    assert_eq!(outcome(&told), outcome(&done));
    assert_eq!(
        (&done["spaces"][0]["recent_rows"], &done["spaces"][0]["dropped_rows"]),
        (&3.into(), &0.into())
    );
    assert!(stored_rows(&scene.path("cache")) == before);
    let text = scene.run(["cache", "gc"]).code(0).stdout;
    assert!(
        text.contains("3 rows that no data set uses kept, less than an hour old; --now drops them"),
        "{text}"
    );
    age(&segments(&scene.path("cache")), Duration::from_secs(3700));
    assert_eq!(gc(&scene, [])["spaces"][0]["dropped_rows"], 3);
    let left = stored_rows(&scene.path("cache")).pop_first().unwrap().1;
    assert!(unused.iter().all(|key| !left.contains_key(key)));
}

#[test]
fn what_another_data_set_uses_stays() {
    let (scene, unused) = with_garbage();
    scene.write("list.csv", b"path\npictures/train/red/000.png\n");
    scene.run(["extract", "list.csv", "--backbone", "tiny.onnx"]).code(0);
    scene.remove("pictures/train/red/000.png");
    scene.extract([]);
    assert_eq!(gc(&scene, ["--now"])["spaces"][0]["dropped_rows"], unused.len());
}

#[test]
fn data_sets_that_are_gone_are_kept_until_they_are_to_be_forgotten() {
    let scene = Scene::extracted();
    scene.add_pictures("other", 1, 70..75);
    scene.run(["extract", "other", "--backbone", "tiny.onnx"]).code(0);
    scene.rename("pictures", "elsewhere");
    assert_eq!(gc(&scene, ["--now"])["rows"], 32);
    let told = gc(&scene, ["--now", "--dry-run", "--forget-missing"]);
    assert_eq!(files_below(&scene.path("cache/datasets")).len(), 2);
    let done = gc(&scene, ["--now", "--forget-missing"]);
    assert_eq!(outcome(&told), outcome(&done));
    assert_eq!(done["forgotten_datasets"][0], scene.path("pictures").to_str().unwrap());
    assert_eq!(
        (&done["rows"], files_below(&scene.path("cache/datasets")).len()),
        (&5.into(), 1)
    );
}

#[test]
fn spaces_of_vanished_backbones_go() {
    let scene = Scene::extracted();
    let other = TinyModel {
        seed: 3,
        ..TinyModel::default()
    };
    scene.write("other.onnx", &other.onnx());
    scene.run(["extract", "pictures", "--backbone", "other.onnx"]).code(0);
    assert_eq!(gc(&scene, [])["removed_spaces"].as_array().unwrap().len(), 0);
    let before = stored_rows(&scene.path("cache"));
    scene.remove("other.onnx");
    let told = gc(&scene, ["--dry-run"]);
    assert!(stored_rows(&scene.path("cache")) == before);
    let done = gc(&scene, []);
    assert_eq!(outcome(&told), outcome(&done));
    let removed = &done["removed_spaces"][0];
    assert_eq!(
        (&removed["backbone"], &removed["rows"]),
        (&"other.onnx".into(), &27.into())
    );
    let left = stored_rows(&scene.path("cache"));
    assert_eq!(left.len(), 1);
    assert!(left.iter().all(|(space, rows)| before[space] == *rows));
    assert_eq!(counts(&scene.extract([])), [27, 0, 27, 0]);
}

#[test]
fn with_a_damaged_record_no_row_is_dropped() {
    let (scene, _) = with_garbage();
    let before = stored_rows(&scene.path("cache"));
    let record = files_below(&scene.path("cache/datasets")).remove(0);
    let mut bytes = std::fs::read(&record).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&record, bytes).unwrap();
    let run = scene.run(["cache", "gc", "--now", "--json"]).code(0);
    assert_eq!(run.json()["spaces"][0]["dropped_rows"], 0);
    run.says(&[
        record.file_name().unwrap().to_str().unwrap(),
        "no row is dropped",
        "lastlayer cache verify",
    ]);
    assert!(stored_rows(&scene.path("cache")) == before);
}

#[test]
fn leftovers_go_when_they_are_old_and_set_aside_files_at_once() {
    let scene = Scene::extracted();
    let space = segments(&scene.path("cache"))[0].parent().unwrap().to_path_buf();
    let (old, new, aside) = (
        space.join(".lastlayer-old"),
        space.join(".lastlayer-new"),
        space.join("x.damaged"),
    );
    // Small segments are joined now, so that leftovers are all that is left to free.
    gc(&scene, []);
    for path in [&old, &new, &aside] {
        std::fs::write(path, [0; 100]).unwrap();
    }
    age(std::slice::from_ref(&old), Duration::from_secs(25 * 3600));
    let told = gc(&scene, ["--dry-run"]);
    assert!(old.exists() && aside.exists());
    let done = gc(&scene, []);
    assert_eq!(outcome(&told), outcome(&done));
    assert_eq!(
        (&done["freed_bytes"], done["removed_files"].as_array().unwrap().len()),
        (&200.into(), 2)
    );
    let exists = |path: &Path| path.exists();
    assert_eq!((exists(&old), exists(&new), exists(&aside)), (false, true, false));
}

#[cfg(unix)]
mod beside {
    use std::process::{Child, Command};

    use super::*;
    use crate::common::{Run, picture, png};

    const PICTURES: u64 = 200;

    fn signal(child: &Child, name: &str) {
        let kill = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", child.id())])
            .status();
        assert!(kill.unwrap().success());
    }

    /// A scene with an `extract` that has rows on disk and is far from its end.
    fn extracting() -> (Scene, Child) {
        for width in [256, 1024, 4096] {
            let scene = Scene::new();
            let model = TinyModel {
                width,
                kernel: 7,
                stride: 2,
                ..TinyModel::default()
            };
            scene.write("tiny.onnx", &model.onnx());
            for number in 0..PICTURES {
                scene.write(&format!("pictures/train/a/{number}.png"), &png(&picture(0, number)));
            }
            let slow = ["--threads", "1", "--batch-size", "1", "--json"];
            let mut child = scene.spawn(&mut scene.command(EXTRACT.into_iter().chain(slow)));
            while segments(&scene.path("cache")).is_empty() && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(5));
            }
            if child.try_wait().unwrap().is_none() {
                return (scene, child);
            }
        }
        panic!("every run ended before it could be stopped");
    }

    #[test]
    fn a_space_that_an_extract_writes_to_is_left_alone() {
        let (scene, child) = extracting();
        signal(&child, "STOP");
        let before = stored_files(&scene.path("cache"));
        let told = gc(&scene, ["--now", "--dry-run"]);
        let done = gc(&scene, ["--now"]);
        assert_eq!(outcome(&told), outcome(&done));
        let kept = done["kept"][0].as_str().unwrap();
        assert!(kept.contains("a running program writes to it: left alone"), "{kept}");
        assert!(stored_files(&scene.path("cache")) == before);
        // Nor does a vanished backbone take it away.
        scene.rename("tiny.onnx", "away.onnx");
        assert_eq!(gc(&scene, ["--now"])["removed_spaces"].as_array().unwrap().len(), 0);
        assert!(stored_files(&scene.path("cache")) == before);
        scene.rename("away.onnx", "tiny.onnx");
        signal(&child, "CONT");
        let report = Run::of(child.wait_with_output().unwrap()).code(0).json();
        assert_eq!(counts(&report), [PICTURES, PICTURES, 0, 0]);
        assert_eq!(gc(&scene, ["--now"])["rows"], PICTURES);
    }

    #[test]
    fn what_a_killed_extract_had_computed_survives_gc() {
        let (scene, child) = extracting();
        signal(&child, "KILL");
        child.wait_with_output().unwrap();
        let before = stored_rows(&scene.path("cache"));
        let count = before.values().next().unwrap().len() as u64;
        assert!((1..PICTURES).contains(&count), "{count}");
        gc(&scene, []);
        assert!(stored_rows(&scene.path("cache")) == before);
        assert_eq!(counts(&scene.extract([])), [PICTURES, PICTURES - count, count, 0]);
    }
}
