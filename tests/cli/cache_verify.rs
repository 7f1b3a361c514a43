//! `cache verify`: damage is found, named and set aside, and the next `extract` computes exactly what was lost.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lastlayer::{Cache, FeatureSpace, Quiet, RowKey, verify};
use serde_json::Value;

use crate::common::{EXTRACT, Run, Scene, counts, files_below, picture, png, segments, stored_files, stored_rows, tar};

fn run<'a>(scene: &Scene, arguments: impl IntoIterator<Item = &'a str>) -> Run {
    scene.run(["cache", "verify", "--json"].into_iter().chain(arguments))
}

fn flip(path: &Path, bit: u64) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[usize::try_from(bit / 8).unwrap()] ^= 1 << (bit % 8);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_sound_cache_is_sound() {
    let scene = Scene::with_pictures();
    // A cache that is not there yet, too.
    run(&scene, []).code(0);
    scene.write("pictures/train/red/page.png", b"<html>");
    scene.run(EXTRACT).code(3);
    assert!(scene.path("cache/failures.csv").is_file());
    let before = stored_files(&scene.path("cache"));
    let run = scene.run(["cache", "verify"]).code(0);
    assert!(run.stdout.starts_with("checked 27 rows in "), "{}", run.stdout);
    let report = self::run(&scene, []).code(0).json();
    assert_eq!(
        (&report["files"], &report["datasets"]),
        (&serde_json::json!([]), &1.into())
    );
    assert_eq!(
        (&report["spaces"][0]["rows"], &report["spaces"][0]["files"]),
        (&27.into(), &serde_json::json!([]))
    );
    assert!(stored_files(&scene.path("cache")) == before);
}

#[test]
fn a_flipped_bit_of_a_row_costs_that_row_alone_and_it_comes_back_the_same() {
    let scene = Scene::extracted();
    let before = stored_rows(&scene.path("cache"));
    // One segment, however slow the machine.
    scene.run(["cache", "gc"]).code(0);
    let segment = segments(&scene.path("cache")).remove(0);
    let bits = segment.metadata().unwrap().len() * 8;
    flip(&segment, bits - 3);
    flip(&segment, bits - 3 - 8 * 4 * 8 * 2);
    let damaged = stored_files(&scene.path("cache"));

    let run = run(&scene, ["--dry-run"]).error(1, &["are not what was written", "hint: run it without `--dry-run`"]);
    let told = run.json();
    assert!(
        stored_files(&scene.path("cache")) == damaged,
        "a dry run changes nothing"
    );
    let bad = told["spaces"][0]["bad_rows"].as_array().unwrap();
    assert_eq!(bad.len(), 2, "{told}");
    let lost: Vec<&str> = bad.iter().map(|row| row["content"].as_str().unwrap()).collect();

    let run = scene
        .run(["cache", "verify"])
        .error(1, &["set aside", "run `lastlayer extract`"]);
    for content in &lost {
        assert!(
            run.stdout.contains(&format!("the row of blake3 {content} is damaged")),
            "{}",
            run.stdout
        );
    }
    let name = segment.file_name().unwrap().to_str().unwrap();
    assert!(
        run.stdout
            .contains(&format!("{name}: 2 of its 27 rows are damaged; set aside")),
        "{}",
        run.stdout
    );
    assert!(segment.with_extension("damaged").is_file() && !segment.exists());
    let left = Cache::new(&scene.path("cache")).space_status().unwrap().remove(0);
    assert_eq!(left.rows, 25);
    scene.run(["cache", "verify"]).code(0);

    assert_eq!(counts(&scene.extract([])), [27, 2, 25, 0]);
    scene.run(["cache", "gc"]).code(0);
    assert!(stored_rows(&scene.path("cache")) == before, "the same bits as before");
}

#[test]
fn any_damaged_file_is_named_and_the_next_extract_makes_the_cache_whole_again() {
    let made = Scene::extracted();
    made.run(["cache", "gc"]).code(0);
    let reference = stored_rows(&made.path("cache"));
    let files = files_below(&made.path("cache"));
    let kept: BTreeMap<&PathBuf, Vec<u8>> = files.iter().map(|path| (path, std::fs::read(path).unwrap())).collect();
    // Of the tag half is the signature, and that is all that counts.
    let counts_whole = |path: &Path, bytes: &[u8]| !bytes.is_empty() && !path.ends_with("CACHEDIR.TAG");
    for (path, bytes) in kept.iter().filter(|(path, bytes)| counts_whole(path, bytes)) {
        made.remove("cache");
        for (path, bytes) in &kept {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        let report = run(&made, []).code(1).json();
        assert!(
            report.to_string().contains(path.file_name().unwrap().to_str().unwrap()),
            "{report}"
        );
        let report = made.extract([]);
        let is_segment = path.extension().is_some_and(|extension| extension == "seg");
        let computed = if is_segment { 27 } else { 0 };
        assert_eq!(counts(&report), [27, computed, 27 - computed, 0], "{}", path.display());
        run(&made, []).code(0);
        made.run(["cache", "gc"]).code(0);
        assert!(stored_rows(&made.path("cache")) == reference, "{}", path.display());
        made.run(["train-head", "pictures", "--epochs", "1"]).code(0);
    }
}

/// What a cache gives of a data set: its rows by content, and what is remembered of each path, through `explain`.
fn given(cache: &Cache, space: &FeatureSpace, keys: &[RowKey]) -> Vec<Option<Vec<f32>>> {
    let rows = cache.open_space(space).unwrap();
    let row = |key: &RowKey| rows.as_ref()?.row(key).map(<[f32]>::to_vec);
    keys.iter().map(row).collect()
}

#[test]
fn each_of_10000_flipped_bits_anywhere_in_a_cache_is_found_or_changes_nothing_that_is_given_out() {
    let scene = Scene::new();
    scene.add_pictures("one/a", 0, 0..3);
    scene.add_pictures("two/train/b", 1, 10..12);
    scene.write("two/train/b/page.png", b"<html>");
    scene.run(["extract", "one", "--backbone", "tiny.onnx"]).code(0);
    scene.run(["extract", "two", "--backbone", "tiny.onnx"]).code(3);
    let cache = Cache::new(&scene.path("cache"));
    let space = cache.spaces().unwrap().remove(0).0;
    let keys: Vec<RowKey> = files_below(scene.path("").as_path())
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "png"))
        .map(|path| RowKey::plain(*blake3::hash(&std::fs::read(path).unwrap()).as_bytes()))
        .collect();
    let right = given(&cache, &space, &keys);
    assert_eq!(right.iter().flatten().count(), 5);
    let status = |cache: &Cache| format!("{:?}", lastlayer::status(cache).unwrap().datasets);
    let datasets = status(&cache);

    let files: Vec<PathBuf> = files_below(cache.root());
    let sizes: Vec<u64> = files.iter().map(|path| path.metadata().unwrap().len() * 8).collect();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 8) % bound
    };
    let mut harmless: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..10_000 {
        let mut bit = below(sizes.iter().sum());
        let mut file = 0;
        while bit >= sizes[file] {
            bit -= sizes[file];
            file += 1;
        }
        let path = &files[file];
        let times = path.metadata().unwrap().modified().unwrap();
        let set_back = || {
            std::fs::File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_modified(times)
                .unwrap();
        };
        flip(path, bit);
        set_back();
        let verified = verify(&cache, false, &Quiet).unwrap();
        for (given, right) in given(&cache, &space, &keys).iter().zip(&right) {
            assert!(
                given.is_none() || given == right,
                "bit {bit} of {}: a wrong row",
                path.display()
            );
        }
        if verified.damage() == 0 {
            let told = format!("bit {bit} of {} is not found", path.display());
            assert!(given(&cache, &space, &keys) == right, "{told}");
            assert_eq!(status(&cache), datasets, "{told}");
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            assert!(
                ["origin.json", "CACHEDIR.TAG", "failures.csv"].contains(&&*name),
                "{told}"
            );
            *harmless.entry(name).or_default() += 1;
        } else {
            let named = verified.report.findings().any(|finding| finding.path == *path);
            assert!(named, "bit {bit} of {}: {:?}", path.display(), verified.report);
        }
        flip(path, bit);
        set_back();
    }
    eprintln!(
        "not found and without effect: {harmless:?} of 10000 in {} bytes",
        sizes.iter().sum::<u64>() / 8
    );
    assert_eq!(verify(&cache, false, &Quiet).unwrap().damage(), 0);
    assert!(
        harmless.values().sum::<u32>() < 3000,
        "most flips hit what matters: {harmless:?}"
    );
}

fn deep(scene: &Scene, code: i32) -> Value {
    run(scene, ["--deep", "100"]).code(code).json()["deep"][0].clone()
}

#[test]
fn features_computed_again_agree_with_the_rows_of_a_fresh_cache() {
    let scene = Scene::extracted();
    let report = deep(&scene, 0);
    assert_eq!((&report["compared"], &report["skipped"]), (&27.into(), &Value::Null));
    assert!(report["largest_difference"].as_f64().unwrap() <= report["tolerance"].as_f64().unwrap());
    assert!(report["least_cosine"].as_f64().unwrap() > 0.999_999);
    assert_eq!(run(&scene, ["--deep", "4"]).code(0).json()["deep"][0]["compared"], 4);
    let text = scene.run(["cache", "verify", "--deep", "4"]).code(0).stdout;
    assert!(
        text.contains("4 pictures computed again: 0 differ by more than 1e-3"),
        "{text}"
    );
}

/// Puts a row with a right checksum into the cache that is not the picture's feature.
fn forge(scene: &Scene, bytes: &[u8]) -> RowKey {
    let cache = Cache::new(&scene.path("cache"));
    let (space, origin) = cache.spaces().unwrap().remove(0);
    let key = RowKey::plain(*blake3::hash(bytes).as_bytes());
    let mut space = cache.create_space(&space, &origin.unwrap()).unwrap();
    let mut row = space.row(&key).unwrap().to_vec();
    row[3] += 0.1;
    space.append(&[key], &row, row.len(), "cpu", "1.0.0").unwrap();
    key
}

#[test]
fn a_forged_row_with_a_right_checksum_is_found_dropped_and_computed_again() {
    let scene = Scene::extracted();
    let before = scene.rows("cache");
    let name = "pictures/val/green/007.png";
    let key = forge(&scene, &scene.read(name));
    assert_ne!(scene.rows("cache"), before);
    run(&scene, []).code(0);
    let report = run(&scene, ["--deep", "100", "--dry-run"]).code(1).json();
    assert_eq!(report["deep"][0]["different"].as_array().unwrap().len(), 1);
    assert_ne!(scene.rows("cache"), before, "a dry run drops nothing");
    let report = deep(&scene, 1);
    assert_eq!(report["different"][0]["path"], scene.path(name).to_str().unwrap());
    assert_eq!(
        report["different"][0]["content"],
        blake3::Hash::from_bytes(key.content).to_hex().as_str()
    );
    assert_eq!(counts(&scene.extract([])), [27, 1, 26, 0]);
    assert_eq!(scene.rows("cache"), before);
    deep(&scene, 0);
}

#[test]
fn pictures_in_archives_are_computed_again_too() {
    let scene = Scene::new();
    let pictures: Vec<Vec<u8>> = (0..3).map(|number| png(&picture(0, 200 + number))).collect();
    let members = [
        ("0.png", &*pictures[0]),
        ("1.png", &*pictures[1]),
        ("2.png", &*pictures[2]),
    ];
    scene.write("one.tar", &tar(&members));
    scene.write("shards/train-0.tar", &tar(&members[..2]));
    for (subject, count) in [("one.tar", 3), ("shards", 2)] {
        scene.run(["extract", subject, "--backbone", "tiny.onnx"]).code(0);
        assert_eq!(deep(&scene, 0)["compared"], count, "{subject}");
        forge(&scene, &pictures[1]);
        assert_eq!(deep(&scene, 1)["different"].as_array().unwrap().len(), 1, "{subject}");
        scene.remove("cache");
    }
}

#[test]
fn what_cannot_be_computed_again_is_skipped_with_the_reason() {
    let scene = Scene::extracted();
    scene.rename("pictures", "elsewhere");
    assert_eq!(deep(&scene, 0)["skipped"], "none of its pictures is where it was");
    scene.rename("elsewhere", "pictures");
    assert_eq!(deep(&scene, 0)["compared"], 27);
    scene.rename("tiny.onnx", "away.onnx");
    assert_eq!(deep(&scene, 0)["skipped"], "its backbone tiny.onnx is not here");
    let text = scene.run(["cache", "verify", "--deep", "4"]).code(0).stdout;
    assert!(
        text.contains("nothing computed again: its backbone tiny.onnx is not here"),
        "{text}"
    );
    scene.rename("away.onnx", "tiny.onnx");
    scene.write(
        "tiny.onnx",
        &crate::common::TinyModel {
            seed: 9,
            ..Default::default()
        }
        .onnx(),
    );
    assert_eq!(deep(&scene, 0)["skipped"], "its backbone tiny.onnx is not here");
}
