//! Pictures that fail: how many of them a run bears, where they are listed, and that every file is accounted for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::common::{EXTRACT, Random, Run, Scene, counts, jpeg, picture, png};

fn extract(scene: &Scene, arguments: &[&str]) -> Run {
    scene.run(EXTRACT.into_iter().chain(["--json"]).chain(arguments.iter().copied()))
}

/// [`Scene::with_pictures`] and three that are none: 30 files.
fn scene() -> Scene {
    let scene = Scene::with_pictures();
    for number in 0..3 {
        let page = format!("<!DOCTYPE html><p>{number}");
        scene.write(&format!("pictures/train/green/page {number}.jpg"), page.as_bytes());
    }
    scene
}

/// The rows of a list of failures, without its header.
fn listed(scene: &Scene, file: &str) -> Vec<csv::ByteRecord> {
    let bytes = scene.read(file);
    let mut reader = csv::Reader::from_reader(&*bytes);
    assert_eq!(reader.headers().unwrap(), &["path", "reason", "detail"][..]);
    reader.byte_records().map(Result::unwrap).collect()
}

const LIST: &str = "cache/failures.csv";

#[test]
fn a_run_bears_just_as_many_failures_as_it_was_told_to() {
    let scene = scene();
    for borne in ["3", "4", "10%", "10.1%", "100%"] {
        let report = extract(&scene, &["--max-failures", borne]).code(3).json();
        assert_eq!(counts(&report)[3], 3, "{borne}");
        assert_eq!(listed(&scene, LIST).len(), 3, "{borne}");
    }
    for (too_few, limit) in [("2", "2"), ("0", "0"), ("9.9%", "9.9 %"), ("0%", "0 %")] {
        scene.remove("cache");
        let run = extract(&scene, &["--max-failures", too_few]);
        let run = run.error(1, &[&format!("more than the {limit} allowed"), "page ", "not_an_image"]);
        assert_eq!(run.stdout, "", "{too_few}");
        let failures = listed(&scene, LIST).len();
        assert!((1..=3).contains(&failures), "{too_few}: {failures}");
    }
    extract(&scene, &["--fail-fast"]).error(1, &["more than the 0 allowed"]);
    extract(&scene, &["--fail-fast", "--max-failures", "1"])
        .code(2)
        .says(&["cannot be used with"]);
    for wrong in ["-1", "1.5", "101%", "many", ""] {
        let option = format!("--max-failures={wrong}");
        extract(&scene, &[&option]).code(2);
    }
    // Without a failure nothing stops anybody, and no list is left.
    (0..3).for_each(|number| scene.remove(&format!("pictures/train/green/page {number}.jpg")));
    extract(&scene, &["--max-failures", "0%"]).code(0);
    extract(&scene, &["--fail-fast"]).code(0);
    assert!(!scene.path(LIST).exists());
}

#[test]
fn what_was_computed_before_too_many_failed_is_kept() {
    let scene = Scene::new();
    scene.add_pictures("pictures/a", 0, 0..300);
    scene.add_pictures("pictures/b", 1, 0..1);
    scene.write("pictures/b/page.jpg", b"<html>");
    let arguments = ["--fail-fast", "--batch-size", "1", "--threads", "1"];
    extract(&scene, &arguments).error(1, &["1 picture failed", "page.jpg"]);
    let [images, _, reused, failed] = counts(&extract(&scene, &[]).code(3).json());
    assert_eq!((images, failed), (302, 1));
    assert!(reused >= 100, "{reused} were kept");
    // Of equal files one is looked at, and all count.
    for number in 0..3 {
        scene.write(&format!("pictures/b/page {number}.jpg"), b"<html>");
    }
    extract(&scene, &["--max-failures", "3"]).error(1, &["4 pictures failed"]);
    assert_eq!(listed(&scene, LIST).len(), 4);
    assert_eq!(
        counts(&extract(&scene, &["--max-failures", "4"]).code(3).json()),
        [305, 0, 301, 4]
    );
}

#[test]
fn the_list_of_failures_is_of_the_last_run_and_any_path_can_be_read_from_it() {
    let scene = Scene::with_pictures();
    let mut names: Vec<Vec<u8>> = vec![b"a,comma.png".to_vec(), "\u{fc}n\u{ef}.png".into()];
    if cfg!(unix) {
        names.push(b"a \"quote\".png".to_vec());
        names.push(b"a\nnewline.png".to_vec());
    }
    if cfg!(target_os = "linux") {
        names.push(b"caf\xe9.png".to_vec());
    }
    let folder = scene.path("pictures/train/blue");
    let paths: Vec<_> = names.iter().map(|name| folder.join(os_string(name))).collect();
    for path in &paths {
        std::fs::write(path, b"").unwrap();
    }
    let assert_all_listed = |file: &str| {
        let rows = listed(&scene, file);
        let found: BTreeSet<&[u8]> = rows.iter().map(|row| &row[0]).collect();
        let expected: BTreeSet<&[u8]> = paths.iter().map(|path| path.as_os_str().as_encoded_bytes()).collect();
        assert_eq!(found, expected);
        assert!(rows.iter().all(|row| &row[1] == b"empty" && !row[2].is_empty()));
    };
    let run = scene.run(EXTRACT).code(3);
    let said = format!("listed in {}", std::path::Path::new(LIST).display());
    assert!(run.stdout.contains(&said), "{}", run.stdout);
    assert_all_listed(LIST);
    // Elsewhere, and again where there is one already.
    scene.write("list.csv", b"something else");
    let report = extract(&scene, &["--failures", "list.csv"]).code(3).json();
    assert_all_listed("list.csv");
    let shown = report["failures"].as_array().unwrap().iter();
    let shown: BTreeSet<&str> = shown.map(|failure| failure["path"].as_str().unwrap()).collect();
    let lossy: Vec<_> = paths.iter().map(|path| path.to_string_lossy()).collect();
    assert_eq!(shown, lossy.iter().map(AsRef::as_ref).collect());
    // A list that cannot be written is known before the work.
    extract(&scene, &["--failures", "absent/list.csv"])
        .code(2)
        .says(&["absent", "a folder that is not there"]);
    extract(&scene, &["--failures", "pictures"])
        .code(2)
        .says(&["is a folder"]);
    for path in &paths[1..] {
        std::fs::remove_file(path).unwrap();
    }
    extract(&scene, &[]).code(3);
    assert_eq!(listed(&scene, LIST).len(), 1);
    std::fs::remove_file(&paths[0]).unwrap();
    extract(&scene, &[]).code(0);
    assert!(!scene.path(LIST).exists());
    // One that was asked for is there, for the script that reads it.
    extract(&scene, &["--failures", "list.csv"]).code(0);
    assert!(listed(&scene, "list.csv").is_empty());
}

#[cfg(unix)]
fn os_string(bytes: &[u8]) -> std::ffi::OsString {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::OsStr::from_bytes(bytes).to_owned()
}

#[cfg(not(unix))]
fn os_string(bytes: &[u8]) -> std::ffi::OsString {
    String::from_utf8(bytes.to_vec()).unwrap().into()
}

#[test]
fn a_later_run_looks_at_failures_and_new_files_only() {
    let scene = scene();
    // Until then a change within the same tick of the clock could not be seen.
    std::thread::sleep(Duration::from_millis(2100));
    assert_eq!(counts(&extract(&scene, &[]).code(3).json()), [30, 27, 0, 3]);
    for number in 0..3 {
        scene.write(
            &format!("pictures/train/green/page {number}.jpg"),
            &jpeg(&picture(1, 60 + number), None),
        );
        scene.add_pictures("pictures/val/red", 2, 60 + number..61 + number);
        let failed = 2 - number;
        let report = extract(&scene, &[]).code(if failed > 0 { 3 } else { 0 }).json();
        assert_eq!(counts(&report), [31 + number, 2, 27 + 2 * number, failed], "{report}");
    }
    std::thread::sleep(Duration::from_millis(2100));
    // The new ones are hashed once more, as they were too young to be trusted; then nothing is read.
    extract(&scene, &[]).code(0);
    let report = extract(&scene, &[]).code(0).json();
    assert_eq!(counts(&report), [33, 0, 33, 0]);
    assert_eq!(report["busy"]["disk"], 0.0, "nothing is read");
    let report = extract(&scene, &["--rehash"]).code(0).json();
    assert_eq!(counts(&report), [33, 0, 33, 0]);
    assert!(report["busy"]["disk"].as_f64().unwrap() > 0.0, "all is read");
}

/// What lies in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Content {
    Whole(u64),
    Cut(u64),
    Empty,
    Page(u64),
    /// A link to nowhere.
    #[cfg(unix)]
    Nothing,
}

impl Content {
    fn any(random: &mut Random) -> Self {
        // Of few, so that there are many duplicates.
        let number = random.below(12);
        match random.below(8) {
            0 => Self::Cut(number),
            1 => Self::Empty,
            2 => Self::Page(number),
            #[cfg(unix)]
            3 => Self::Nothing,
            _ => Self::Whole(number),
        }
    }

    fn write(self, scene: &Scene, path: &str) {
        let _ = std::fs::remove_file(scene.path(path));
        match self {
            Self::Whole(number) => scene.write(path, &png(&picture(0, number))),
            Self::Cut(number) => {
                let whole = jpeg(&picture(1, number), None);
                scene.write(path, &whole[..whole.len() * 2 / 3]);
            }
            Self::Empty => scene.write(path, b""),
            Self::Page(number) => scene.write(path, format!("<html>{number}").as_bytes()),
            #[cfg(unix)]
            Self::Nothing => std::os::unix::fs::symlink("nowhere", scene.path(path)).unwrap(),
        }
    }
}

#[test]
fn every_file_is_accounted_for_whatever_happens_between_runs() {
    for seed in 0..6 {
        let mut random = Random(seed);
        let scene = Scene::new();
        // Each class has a picture at all times.
        scene.add_pictures("pictures/a", 2, 0..1);
        scene.add_pictures("pictures/b", 2, 1..2);
        let mut files: BTreeMap<String, Content> = BTreeMap::new();
        let mut cached: BTreeSet<Content> = BTreeSet::new();
        let mut first = true;
        for run in 0..7 {
            for _ in 0..random.below(15) {
                let path = format!(
                    "pictures/{}/{}.jpg",
                    ["a", "b"][random.below(2) as usize],
                    random.below(30)
                );
                if random.below(4) == 0 && files.remove(&path).is_some() {
                    std::fs::remove_file(scene.path(&path)).unwrap();
                } else {
                    let content = Content::any(&mut random);
                    content.write(&scene, &path);
                    files.insert(path, content);
                }
            }
            let accept = random.below(3) == 0;
            let mut arguments = vec!["--accept-truncated"];
            arguments.retain(|_| accept);
            if random.below(3) == 0 {
                arguments.push("--rehash");
            }
            if random.below(2) == 0 {
                arguments.extend(["--threads", "3", "--batch-size", "2"]);
            }
            let takes = |content: &&Content| match content {
                Content::Whole(_) => true,
                Content::Cut(_) => accept,
                _ => false,
            };
            let taken: Vec<Content> = files.values().filter(takes).copied().collect();
            let reused = taken.iter().filter(|content| cached.contains(content)).count() as u64;
            let (images, taken_count) = (files.len() as u64, taken.len() as u64);
            let failed = images - taken_count;
            let fixed = if first { [2, 2, 0, 0] } else { [2, 0, 2, 0] };
            let expected = [
                images + fixed[0],
                taken_count - reused + fixed[1],
                reused + fixed[2],
                failed,
            ];
            let report = extract(&scene, &arguments).code(if failed > 0 { 3 } else { 0 }).json();
            assert_eq!(
                counts(&report),
                expected,
                "seed {seed}, run {run}, {arguments:?}: {files:?}"
            );
            let reasons: BTreeSet<&str> = report["failures"]
                .as_array()
                .unwrap()
                .iter()
                .map(|failure| failure["reason"].as_str().unwrap())
                .collect();
            let reason = |content: &Content| match content {
                Content::Whole(_) => None,
                Content::Cut(_) => (!accept).then_some("truncated"),
                Content::Empty => Some("empty"),
                Content::Page(_) => Some("not_an_image"),
                #[cfg(unix)]
                Content::Nothing => Some("unreadable"),
            };
            assert_eq!(reasons, files.values().filter_map(reason).collect());
            assert_eq!(scene.path(LIST).exists(), failed > 0);
            cached.extend(taken);
            first = false;
        }
    }
}
