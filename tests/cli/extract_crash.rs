//! `extract`: what survives damage, interruption, neighbours, and a closed pipe.

use crate::common::{EXTRACT, Run, Scene, TinyModel, counts, segments};

#[test]
fn a_damaged_row_is_computed_again_and_never_used() {
    let scene = Scene::extracted();
    let expected = scene.rows("cache");
    let segment = segments(&scene.path("cache")).remove(0);
    let mut bytes = std::fs::read(&segment).unwrap();
    // The last row's last number; then the header; then the file's end.
    let last = bytes.len() - 1;
    bytes[last] ^= 0x40;
    std::fs::write(&segment, &bytes).unwrap();
    assert_eq!(counts(&scene.extract([])), [27, 1, 26, 0]);
    assert_eq!(scene.rows("cache"), expected);

    let scene = Scene::extracted();
    let segment = segments(&scene.path("cache")).remove(0);
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    let run = scene.run(["train-head", "pictures"]);
    run.error(1, &["27 of 27 pictures", "have no feature"]);
    let run = scene.run(EXTRACT.into_iter().chain(["--json"])).code(0);
    assert_eq!(counts(&run.json()), [27, 27, 0, 0]);
    run.says(&["will be computed again"]);
    assert_eq!(scene.rows("cache"), expected);

    let segment = segments(&scene.path("cache")).remove(0);
    let bytes = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, &bytes[..bytes.len() - 5]).unwrap();
    assert_eq!(counts(&scene.extract([])), [27, 27, 0, 0]);
    assert_eq!(scene.rows("cache"), expected);
    assert_eq!(counts(&scene.extract([])), [27, 0, 27, 0]);
}

#[test]
fn a_damaged_index_or_record_costs_no_row() {
    let scene = Scene::extracted();
    for path in crate::common::files_below(&scene.path("cache")) {
        let name = path.file_name().unwrap();
        if name == "index" || path.starts_with(scene.path("cache/datasets")) {
            std::fs::write(&path, b"garbage").unwrap();
        }
    }
    assert_eq!(counts(&scene.extract([])), [27, 0, 27, 0]);
}

#[test]
fn two_runs_at_once_share_a_cache() {
    let scene = Scene::with_pictures();
    let arguments = || EXTRACT.into_iter().chain(["--json"]);
    let runs: Vec<_> = (0..3).map(|_| scene.spawn(&mut scene.command(arguments()))).collect();
    for child in runs {
        let report = Run::of(child.wait_with_output().unwrap()).code(0).json();
        let [images, _, _, failed] = counts(&report);
        assert_eq!((images, failed), (27, 0));
    }
    assert_eq!(counts(&scene.extract([])), [27, 0, 27, 0]);
    let shared = scene.rows("cache");
    scene.extract(["--cache", "alone"]);
    assert_eq!(shared, scene.rows("alone"));
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let scene = Scene::with_pictures();
    scene.write("file", b"");
    let run = scene.run(EXTRACT.into_iter().chain(["--cache", "file/cache"]));
    run.code(1).says(&["error: cannot create `file/cache"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let folder = scene.path("read-only");
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o555)).unwrap();
        // Root may write everywhere.
        if std::fs::write(folder.join("probe"), b"").is_err() {
            let run = scene.run(EXTRACT.into_iter().chain(["--cache", "read-only"])).code(1);
            run.says(&["error: cannot create `read-only/"]);
        }
    }
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let scene = Scene::trained();
    let commands: [&[&str]; 5] = [
        &EXTRACT,
        &["extract", "pictures", "--backbone", "tiny.onnx", "--json"],
        &["train-head", "pictures", "-o", "lines.head"],
        &["train-head", "pictures", "-o", "json.head", "--json"],
        &["predict", "--head", "head.safetensors", "pictures"],
    ];
    for arguments in commands {
        let mut command = scene.command(arguments.iter().copied());
        let mut child = scene.spawn(&mut command);
        drop(child.stdout.take());
        let run = Run::of(child.wait_with_output().unwrap()).code(0);
        assert!(!run.stderr.contains("error"), "{arguments:?}: {}", run.stderr);
    }
    let head = |name: &str| blake3::hash(&scene.read(name));
    assert_eq!(
        head("lines.head"),
        head("json.head"),
        "the work is done, whoever reads about it"
    );
}

#[cfg(unix)]
mod stopped {
    use super::*;
    use crate::common::{TinyModel, picture, png};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command, ExitStatus};
    use std::time::Duration;

    const PICTURES: u64 = 300;

    /// A backbone that takes long enough to be stopped: `width` sets its cost.
    fn slow_scene(width: usize) -> Scene {
        let scene = Scene::new();
        let model = TinyModel {
            width,
            kernel: 7,
            stride: 2,
            ..TinyModel::default()
        };
        scene.write("tiny.onnx", &model.onnx());
        for number in 0..PICTURES {
            let class = usize::from(number % 2 == 0);
            scene.write(
                &format!("pictures/train/{class}/{number}.png"),
                &png(&picture(class, number)),
            );
        }
        scene
    }

    /// Starts an extraction and sends it `signal` once it has its first rows on disk.
    fn stop(scene: &Scene, signal: &str) -> Option<(ExitStatus, String)> {
        let slow = ["--threads", "1", "--batch-size", "1", "--json"];
        let mut child: Child = scene.spawn(&mut scene.command(EXTRACT.into_iter().chain(slow)));
        while segments(&scene.path("cache")).is_empty() {
            if child.try_wait().unwrap().is_some() {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let kill = Command::new("sh")
            .args(["-c", &format!("kill -{signal} {}", child.id())])
            .status();
        assert!(kill.unwrap().success());
        let output = child.wait_with_output().unwrap();
        // All rows: the segment that was waited for was the last one.
        if output.status.success() || scene.rows("cache").len() as u64 == PICTURES {
            return None;
        }
        Some((output.status, String::from_utf8(output.stderr).unwrap()))
    }

    /// A stopped extraction, and how it ended; a machine that is through too soon gets a more costly backbone.
    fn stopped(signal: &str) -> (Scene, ExitStatus, String) {
        for width in [128, 512, 2048] {
            let scene = slow_scene(width);
            if let Some((status, stderr)) = stop(&scene, signal) {
                return (scene, status, stderr);
            }
        }
        panic!("every run ended before it could be stopped");
    }

    fn assert_goes_on(scene: &Scene) {
        let kept = scene.rows("cache");
        let count = kept.len() as u64;
        assert!((1..PICTURES).contains(&count), "{count} rows were kept");
        let report = scene.extract([]);
        assert_eq!(counts(&report), [PICTURES, PICTURES - count, count, 0]);
        let all = scene.rows("cache");
        assert!(
            kept.iter().all(|(key, row)| all[key] == *row),
            "kept rows stay as they were"
        );
        // These files are old enough that their times alone are believed.
        assert_eq!(counts(&scene.extract([])), [PICTURES, 0, PICTURES, 0]);
        scene.extract(["--cache", "clean"]);
        assert_eq!(all, scene.rows("clean"), "the same features as without an interruption");
    }

    #[test]
    fn what_a_killed_run_had_is_kept() {
        let (scene, status, _) = stopped("KILL");
        assert_eq!(status.signal(), Some(9));
        assert_goes_on(&scene);
    }

    #[test]
    fn an_interrupted_run_ends_cleanly() {
        let (scene, status, stderr) = stopped("INT");
        assert_eq!(status.code(), Some(130), "{stderr}");
        assert!(stderr.contains("hint: what was finished is kept"), "{stderr}");
        assert_goes_on(&scene);
    }
}

#[test]
fn a_run_that_fails_forgets_nothing_of_an_earlier_one() {
    let scene = Scene::extracted();
    scene.write(
        "other.onnx",
        &TinyModel {
            seed: 3,
            ..TinyModel::default()
        }
        .onnx(),
    );
    let failing = [
        "extract",
        "pictures",
        "--backbone",
        "other.onnx",
        "--ort-lib",
        "no-such-library",
    ];
    scene.run(failing).error(2, &["no-such-library"]);
    scene.run(["train-head", "pictures"]).code(0);
    scene.remove("pictures");
    scene.run(["train-head", "pictures"]).code(0);
}
