//! `extract`: what belongs to a data set, and pictures that can't be read.

use crate::common::{EXTRACT, Scene, bmp, counts, jpeg, picture, png};

#[test]
fn pictures_that_cannot_be_read_are_listed_and_the_others_done() {
    let scene = Scene::with_pictures();
    let (png, jpeg) = (png(&picture(0, 77)), jpeg(&picture(0, 78), None));
    let mut corrupt = png.clone();
    corrupt[60] ^= 0xff;
    let broken: [(&str, &[u8], &[&str]); 6] = [
        ("empty.png", b"", &["empty"]),
        ("page.jpg", b"<!DOCTYPE html><html>gone</html>", &["not_an_image"]),
        (
            "pointer.jpg",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
            &["not_an_image"],
        ),
        ("half.png", &png[..png.len() / 2], &["truncated"]),
        ("half.jpg", &jpeg[..jpeg.len() * 2 / 3], &["truncated"]),
        ("corrupt.png", &corrupt, &["corrupt"]),
    ];
    for (name, bytes, _) in broken {
        scene.write(&format!("pictures/train/green/{name}"), bytes);
    }
    std::fs::create_dir(scene.path("pictures/train/green/folder.png")).unwrap();
    let run = scene.run(EXTRACT.into_iter().chain(["--json"])).code(3);
    let report = run.json();
    assert_eq!(counts(&report), [33, 27, 0, 6]);
    let failures = report["failures"].as_array().unwrap();
    let mut paths = Vec::new();
    for failure in failures {
        let path = std::path::Path::new(failure["path"].as_str().unwrap());
        let name = path.file_name().unwrap().to_str().unwrap();
        let (_, _, reasons) = broken.iter().find(|(broken, ..)| *broken == name).unwrap();
        assert!(reasons.contains(&failure["reason"].as_str().unwrap()), "{failure}");
        assert!(!failure["detail"].as_str().unwrap().is_empty(), "{failure}");
        assert!(path.is_file(), "{failure}");
        paths.push(path.to_path_buf());
    }
    assert!(paths.is_sorted(), "in the data set's order: {paths:?}");

    let run = scene.run(EXTRACT).code(3);
    assert!(
        run.stdout.starts_with("33 images: 0 computed, 27 reused, 6 failed"),
        "{}",
        run.stdout
    );
    assert!(run.stdout.contains("page.jpg: not_an_image: "), "{}", run.stdout);

    scene.write("pictures/train/green/empty.png", &png);
    let report = scene.run(EXTRACT.into_iter().chain(["--json"])).code(3).json();
    assert_eq!(counts(&report), [33, 1, 27, 5], "a mended file is computed");
}

#[test]
fn too_large_and_vanished_pictures_have_their_reasons() {
    let scene = Scene::with_pictures();
    let report = scene
        .run(EXTRACT.into_iter().chain(["--max-pixels", "1919", "--json"]))
        .code(3)
        .json();
    assert_eq!(counts(&report), [27, 0, 0, 27]);
    assert_eq!(report["failures"][0]["reason"], "too_large");
    assert_eq!(report["feature_dim"], serde_json::Value::Null);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("nowhere.png", scene.path("pictures/train/red/link.png")).unwrap();
        let report = scene.run(EXTRACT.into_iter().chain(["--json"])).code(3).json();
        assert_eq!(counts(&report), [28, 27, 0, 1]);
        assert_eq!(report["failures"][0]["reason"], "unreadable");
    }
}

#[test]
fn formats_are_told_by_content_whatever_the_name() {
    let scene = Scene::new();
    scene.write("pictures/a/really a png.jpg", &png(&picture(0, 1)));
    scene.write("pictures/a/sub/folder/deep.BMP", &bmp(&picture(0, 2)));
    scene.write(
        "pictures/b/ünïcode, 'quoted' \u{1f600}.jpeg",
        &jpeg(&picture(1, 1), None),
    );
    scene.write("pictures/b/really a jpeg.png", &jpeg(&picture(1, 2), None));
    assert_eq!(counts(&scene.extract([])), [4, 4, 0, 0]);
    let rows = scene.rows("cache");
    scene.write("as-bmp/a/1.bmp", &bmp(&picture(0, 1)));
    scene.write("as-bmp/b/1.bmp", &bmp(&picture(1, 1)));
    scene.run(["extract", "as-bmp", "--backbone", "tiny.onnx"]).code(0);
    let feature = |bytes: &[u8]| scene.rows("cache")[blake3::hash(bytes).as_bytes()].clone();
    assert_eq!(
        feature(&bmp(&picture(0, 1))),
        rows[blake3::hash(&png(&picture(0, 1))).as_bytes()]
    );
}

#[test]
fn hidden_and_foreign_files_are_left_out_and_said_so() {
    let scene = Scene::with_pictures();
    scene.write("pictures/train/red/.DS_Store", b"x");
    scene.write("pictures/train/red/._000.png", b"x");
    scene.write("pictures/train/.ipynb_checkpoints/000.png", b"x");
    scene.write("pictures/train/red/notes.txt", b"x");
    scene.write("pictures/train/red/animation.gif", b"GIF89a");
    let run = scene.run(EXTRACT.into_iter().chain(["--json"])).code(0);
    assert_eq!(counts(&run.json()), [27, 27, 0, 0]);
    assert_eq!(
        (&run.json()["ignored"]["hidden"], &run.json()["ignored"]["foreign"]),
        (&3.into(), &2.into())
    );
    let run = run.says(&["left out: 2 other and 3 hidden", "notes.txt"]);
    assert!(!run.stdout.contains("warning"), "{}", run.stdout);
    let quiet = scene.run(EXTRACT.into_iter().chain(["--quiet"])).code(0);
    // Quiet is without progress and notes; what a person must know is said all the same.
    assert_eq!(quiet.stderr.lines().count(), 1, "{}", quiet.stderr);
    assert!(quiet.stderr.starts_with("warning: left out: "), "{}", quiet.stderr);
}

#[test]
fn a_layout_that_is_half_a_split_is_refused_and_named() {
    let half = |change: &dyn Fn(&Scene), texts: &[&str]| {
        let scene = Scene::with_pictures();
        change(&scene);
        scene.run(EXTRACT).error(1, texts);
    };
    half(
        &|scene| scene.rename("pictures/train", "pictures/unlabeled"),
        &["`val` but no `train`"],
    );
    let alone = |scene: &Scene| scene.rename("pictures/val", "pictures/unlabeled");
    half(&alone, &["beside `unlabeled`", "a split or a class"]);
    let loose = |scene: &Scene| {
        scene.rename("pictures/val", "elsewhere");
        scene.write("pictures/val/000.png", &scene.read("pictures/train/red/000.png"));
    };
    half(&loose, &["val` is the val split but holds no class folder"]);
    let scene = Scene::with_pictures();
    scene.rename("pictures/train", "pictures/Train");
    scene.rename("pictures/val", "pictures/Validation");
    assert_eq!(scene.extract([])["computed"], 27);
    let report = scene.run(["train-head", "pictures", "--json"]).code(0).json();
    assert_eq!(report["val_images"], 9);
}

#[test]
fn flat_folders_are_data_sets_too() {
    let scene = Scene::new();
    scene.add_pictures("pictures/cat", 0, 0..5);
    scene.add_pictures("pictures/dog", 1, 0..4);
    assert_eq!(counts(&scene.extract([])), [9, 9, 0, 0]);
}

#[test]
fn folders_that_are_no_data_set_are_explained() {
    let extract = |scene: &Scene| scene.run(EXTRACT);
    let scene = Scene::with_pictures();
    scene.add_pictures("pictures/val/yellow", 1, 0..1);
    extract(&scene).error(1, &["yellow", "blue, green, red"]);
    scene.remove("pictures/val/yellow");
    std::fs::create_dir(scene.path("pictures/train/yellow")).unwrap();
    extract(&scene).error(1, &["yellow", "without a picture"]);
    scene.remove("pictures/train/yellow");
    std::fs::create_dir(scene.path("pictures/val/yellow")).unwrap();
    extract(&scene).code(0).says(&["val/yellow holds no picture"]);
    scene.remove("pictures/val/blue");
    extract(&scene).code(0).says(&["class `blue` has no picture in val"]);

    let scene = Scene::new();
    extract(&scene).error(1, &["pictures` does not exist"]);
    scene.write("pictures/a.png", &png(&picture(0, 0)));
    extract(&scene).code(0).says(&["no class folder"]);
    scene.add_pictures("pictures/only", 0, 0..2);
    extract(&scene).code(0).says(&["one class only, `only`"]);
    scene.run(["extract", "tiny.onnx", "--backbone", "tiny.onnx"]).error(
        1,
        &[
            "tiny.onnx",
            "is neither a folder of pictures nor a table nor an archive",
        ],
    );
}
