//! Random views: which are stored of which pictures, under which numbers, whatever happens meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use lastlayer::{Cache, FeatureRequest, PARTIAL, RandomViews, View, labelled_features};
use serde_json::Value;

use crate::common::{
    CLASSES, EXTRACT, Run, Scene, StoredRows, counts, jpeg, picture, png, stored_files, stored_rows, tar,
};

/// Training pictures of [`Scene::with_pictures`]; with the others 27.
const TRAINING: usize = 18;

pub(crate) type Content = [u8; 32];

pub(crate) fn content_of(bytes: &[u8]) -> Content {
    *blake3::hash(bytes).as_bytes()
}

/// The rows of the one space of a cache.
pub(crate) fn rows(scene: &Scene, cache: &str) -> StoredRows {
    let mut spaces = stored_rows(&scene.path(cache));
    assert_eq!(spaces.len(), 1, "views lie in the plain rows' space");
    spaces.pop_first().unwrap().1
}

/// The contents of the rows of each view.
fn by_view(rows: &StoredRows) -> BTreeMap<u32, BTreeSet<Content>> {
    let mut views: BTreeMap<u32, BTreeSet<Content>> = BTreeMap::new();
    for (content, view) in rows.keys() {
        views.entry(*view).or_default().insert(*content);
    }
    views
}

/// `views, views_computed, views_reused` of a report, having checked that they add up.
#[track_caller]
pub(crate) fn view_counts(report: &Value) -> [u64; 3] {
    let [views, computed, reused] =
        ["views", "views_computed", "views_reused"].map(|key| report[key].as_u64().unwrap());
    assert_eq!(views, computed + reused, "{report}");
    [views, computed, reused]
}

fn training_contents(scene: &Scene) -> BTreeSet<Content> {
    let names = CLASSES
        .iter()
        .flat_map(|name| (0..6).map(move |number| format!("pictures/train/{name}/{number:03}.png")));
    names.map(|name| content_of(&scene.read(&name))).collect()
}

#[test]
fn training_pictures_get_their_views_beside_the_plain_rows_and_more_are_added_to_them() {
    let scene = Scene::extracted();
    let plain = rows(&scene, "cache");
    assert_eq!(plain.len(), 27);

    let report = scene.extract(["--views", "3"]);
    assert_eq!(
        counts(&report),
        [27, TRAINING as u64, 9, 0],
        "no plain row is computed again"
    );
    assert_eq!(view_counts(&report), [54, 54, 0]);
    let three = rows(&scene, "cache");
    assert_eq!(three.len(), 27 + 54);
    assert!(plain.iter().all(|(key, row)| three[key] == *row));
    let views = by_view(&three);
    assert_eq!(views.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3]);
    for view in 1..=3 {
        assert_eq!(views[&view], training_contents(&scene));
    }
    // Parts of pictures that are no single colour are all different.
    let training = three.iter().filter(|((content, _), _)| views[&1].contains(content));
    let different: BTreeSet<&Vec<u8>> = training.map(|(_, row)| row).collect();
    assert_eq!(different.len(), TRAINING * 4);

    let text = scene.run(EXTRACT.into_iter().chain(["--views", "5"])).code(0).stdout;
    assert!(text.starts_with("27 images: 18 computed, 9 reused, 0 failed"), "{text}");
    assert!(text.contains("\n90 random views: 36 computed, 54 reused\n"), "{text}");
    let five = rows(&scene, "cache");
    assert_eq!(five.len(), 27 + 90);
    assert!(
        three.iter().all(|(key, row)| five[key] == *row),
        "the first of five are the three"
    );

    let files = stored_files(&scene.path("cache"));
    for wanted in ["5", "2", "0"] {
        let report = scene.extract(["--views", wanted]);
        assert_eq!(counts(&report), [27, 0, 27, 0]);
        assert_eq!(view_counts(&report)[1], 0);
        assert_eq!(
            view_counts(&report)[2],
            wanted.parse::<u64>().unwrap() * TRAINING as u64
        );
    }
    assert_eq!(
        stored_files(&scene.path("cache")),
        files,
        "nothing is written where nothing is new"
    );
}

#[test]
fn a_view_depends_on_no_option_order_neighbour_or_number_of_views() {
    let scene = Scene::with_pictures();
    scene.extract(["--views", "4"]);
    let expected = rows(&scene, "cache");
    let different: [&[&str]; 3] = [
        &["--views", "4", "--threads", "1", "--batch-size", "1"],
        &["--views", "4", "--threads", "5", "--batch-size", "256"],
        &["--views", "4", "--rehash", "--batch-size", "3"],
    ];
    for (number, options) in different.into_iter().enumerate() {
        let cache = format!("other-{number}");
        scene.extract(options.iter().copied().chain(["--cache", &cache]));
        assert!(rows(&scene, &cache) == expected, "{options:?}");
    }
    // One picture alone, under another name, in another data set.
    let name = "pictures/train/green/004.png";
    scene.write("alone/train/x/1.png", &scene.read(name));
    scene
        .run([
            "extract",
            "alone",
            "--backbone",
            "tiny.onnx",
            "--views",
            "2",
            "--cache",
            "alone-cache",
        ])
        .code(0);
    let alone = rows(&scene, "alone-cache");
    assert_eq!(alone.len(), 3);
    assert!(alone.iter().all(|(key, row)| expected[key] == *row));
}

#[test]
fn another_seed_gives_other_views_under_other_numbers() {
    let scene = Scene::with_pictures();
    scene.extract(["--views", "2"]);
    let zero = rows(&scene, "cache");
    let report = scene.extract(["--views", "2", "--views-seed", "9"]);
    assert_eq!(view_counts(&report), [36, 36, 0]);
    let both = rows(&scene, "cache");
    assert!(zero.iter().all(|(key, row)| both[key] == *row));
    assert_eq!(both.len(), 27 + 2 * 36);
    let nine: Vec<u32> = RandomViews::new(2, 9).unwrap().iter().map(View::id).collect();
    for content in training_contents(&scene) {
        let features: BTreeSet<&Vec<u8>> = [0, 1, 2, nine[0], nine[1]]
            .iter()
            .map(|view| &both[&(content, *view)])
            .collect();
        assert_eq!(features.len(), 5);
    }
    for wrong in [["--views", "2048"], ["--views-seed", "65536"], ["--views", "-1"]] {
        scene.run(EXTRACT.into_iter().chain(wrong)).code(2);
    }
}

#[test]
fn views_of_a_picture_of_one_colour_have_its_plain_feature() {
    let scene = Scene::new();
    let flat = image::RgbImage::from_pixel(300, 260, image::Rgb([200, 90, 40]));
    scene.write("pictures/train/x/flat.png", &png(&flat));
    scene.extract(["--views", "6"]);
    let rows = rows(&scene, "cache");
    assert_eq!(rows.len(), 7);
    assert_eq!(rows.into_values().collect::<BTreeSet<_>>().len(), 1);
}

#[test]
fn without_splits_every_labelled_picture_gets_views_and_others_none() {
    let scene = Scene::new();
    scene.add_pictures("flat/a", 0, 0..5);
    scene.add_pictures("flat/b", 1, 0..5);
    let extract = |dataset: &str| {
        let run = scene.run(["extract", dataset, "--backbone", "tiny.onnx", "--views", "2", "--json"]);
        view_counts(&run.code(0).json())
    };
    assert_eq!(extract("flat"), [20, 20, 0]);
    // Whichever of them come to train.
    let request = FeatureRequest {
        val_fraction: 0.4,
        views: RandomViews::new(2, 0).unwrap(),
        ..FeatureRequest::default()
    };
    let features = labelled_features(&Cache::new(&scene.path("cache")), &scene.path("flat"), &request).unwrap();
    assert!(!features.val.labels.is_empty());
    assert_eq!(features.train_views.len(), 2);

    scene.write(
        "table.csv",
        b"path,label,split\nflat/a/000.png,a,val\nflat/a/001.png,a,test\nflat/a/002.png,a,train\n",
    );
    scene.remove("cache");
    assert_eq!(extract("table.csv"), [2, 2, 0]);
    scene.write("table.csv", b"path\nflat/a/000.png\nflat/a/001.png\n");
    scene.remove("cache");
    let run = scene
        .run([
            "extract",
            "table.csv",
            "--backbone",
            "tiny.onnx",
            "--views",
            "2",
            "--json",
        ])
        .code(0);
    assert_eq!(view_counts(&run.json()), [0, 0, 0]);
    run.says(&["no picture", "label"]);
}

#[test]
fn a_picture_that_is_in_two_splits_gets_views_whichever_comes_first() {
    let scene = Scene::new();
    let picture = |number| png(&picture(0, number));
    for number in 0..30 {
        scene.write(&format!("{number}.png"), &picture(number));
        scene.write(&format!("copy-{number}.png"), &picture(number));
        scene.write(&format!("again-{number}.png"), &picture(number));
    }
    for (order, first) in ["val", "train"].into_iter().enumerate() {
        let second = if first == "val" { "train" } else { "val" };
        let lines = (0..30).map(|number| {
            format!("{number}.png,a,{first}\ncopy-{number}.png,a,{second}\nagain-{number}.png,a,train\n")
        });
        scene.write(
            "table.csv",
            format!("path,label,split\n{}", lines.collect::<String>()).as_bytes(),
        );
        let cache = format!("cache-{order}");
        let extract = [
            "extract",
            "table.csv",
            "--backbone",
            "tiny.onnx",
            "--views",
            "2",
            "--json",
            "--cache",
            &cache,
        ];
        let run = || scene.run(extract).code(0).json();
        let report = run();
        assert_eq!(counts(&report), [90, 90, 0, 0], "{first} first");
        assert_eq!(view_counts(&report), [120, 120, 0], "of the 60 that train");
        let rows = rows(&scene, &cache);
        assert_eq!(rows.len(), 90, "each content once, plain and two views");
        let report = run();
        assert_eq!(counts(&report), [90, 0, 90, 0]);
        assert_eq!(view_counts(&report), [120, 0, 120]);
    }
    assert!(rows(&scene, "cache-0") == rows(&scene, "cache-1"));
}

#[test]
fn a_stream_gives_the_views_that_files_give() {
    let scene = Scene::with_pictures();
    scene.extract(["--views", "2"]);
    let expected = rows(&scene, "cache");
    let mut members = Vec::new();
    for (split, numbers) in [("val", 6..9), ("train", 0..6)] {
        for name in CLASSES {
            for number in numbers.clone() {
                let path = format!("{split}/{name}/{number:03}.png");
                members.push((path.clone(), scene.read(&format!("pictures/{path}"))));
                let json = format!(r#"{{"label": "{name}", "split": "{split}"}}"#);
                members.push((path.replace(".png", ".json"), json.into_bytes()));
            }
        }
    }
    let members: Vec<(&str, &[u8])> = members
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
        .collect();
    let archive = tar(&members);
    let extract = [
        "extract",
        "-",
        "--backbone",
        "tiny.onnx",
        "--views",
        "2",
        "--json",
        "--cache",
        "streamed",
    ];
    let report = scene.run_with_input(extract, &archive).code(0).json();
    assert_eq!((counts(&report), view_counts(&report)), ([27, 27, 0, 0], [36, 36, 0]));
    assert!(rows(&scene, "streamed") == expected);
    let report = scene.run_with_input(extract, &archive).code(0).json();
    assert_eq!((counts(&report), view_counts(&report)), ([27, 0, 27, 0], [36, 0, 36]));

    scene.write("shards/all.tar", &archive);
    scene
        .run([
            "extract",
            "shards",
            "--backbone",
            "tiny.onnx",
            "--views",
            "2",
            "--cache",
            "sharded",
        ])
        .code(0);
    assert!(rows(&scene, "sharded") == expected);
}

#[test]
fn views_of_a_cut_picture_are_marked_as_its_plain_row_is() {
    let scene = Scene::new();
    let whole = jpeg(&picture(2, 52), None);
    scene.write("pictures/train/red/cut.jpg", &whole[..whole.len() * 2 / 3]);
    scene.add_pictures("pictures/train/red", 2, 0..1);
    let accept = ["--views", "2", "--accept-truncated"];
    let report = scene.extract(accept);
    assert_eq!((counts(&report), view_counts(&report)), ([2, 2, 0, 0], [4, 4, 0]));
    let views = by_view(&rows(&scene, "cache"));
    let numbers: Vec<u32> = views.keys().copied().collect();
    assert_eq!(numbers, [0, 1, 2, PARTIAL, PARTIAL | 1, PARTIAL | 2]);
    let cut = content_of(&scene.read("pictures/train/red/cut.jpg"));
    assert!(
        views
            .iter()
            .all(|(view, contents)| (view & PARTIAL != 0) == contents.contains(&cut))
    );
    assert_eq!(view_counts(&scene.extract(accept)), [4, 0, 4]);
    let refused = scene
        .run(EXTRACT.into_iter().chain(["--json", "--views", "2"]))
        .code(3)
        .json();
    assert_eq!((counts(&refused), view_counts(&refused)), ([2, 0, 1, 1], [2, 0, 2]));
}

#[cfg(unix)]
#[test]
fn a_killed_run_leaves_whole_rows_and_the_next_computes_the_rest() {
    let scene = Scene::new();
    scene.add_pictures("pictures/train/a", 0, 0..40);
    let extract = EXTRACT
        .into_iter()
        .chain(["--views", "6", "--threads", "1", "--batch-size", "2"]);
    let extract: Vec<&str> = extract.collect();
    scene.run(extract.iter().copied().chain(["--cache", "clean"])).code(0);
    let clean = rows(&scene, "clean");
    assert_eq!(clean.len(), 40 * 7);
    let mut within = 0;
    for wait in [150, 250, 200, 300, 250] {
        let mut child = scene.spawn(&mut scene.command(extract.iter().copied()));
        std::thread::sleep(std::time::Duration::from_millis(wait));
        child.kill().unwrap();
        child.wait().unwrap();
        let found = crate::common::stored_space(&scene.path("cache")).rows;
        assert!(found.iter().all(|(key, row)| clean[key] == *row));
        within += usize::from(!found.is_empty() && found.len() < clean.len());
    }
    eprintln!("{within} of 5 kills came within the rows");
    let report = scene.run(extract.iter().copied().chain(["--json"])).code(0).json();
    assert_eq!(view_counts(&report)[0], 240);
    assert!(rows(&scene, "cache") == clean);
    let report = scene.run(extract.iter().copied().chain(["--json"])).code(0).json();
    assert_eq!(view_counts(&report), [240, 0, 240]);
}

#[test]
fn two_runs_at_once_come_to_the_same_rows() {
    let scene = Scene::with_pictures();
    scene.extract(["--views", "5", "--cache", "clean"]);
    let start = |views: &str| scene.spawn(&mut scene.command(EXTRACT.into_iter().chain(["--views", views])));
    let children = [start("5"), start("3"), start("5")];
    for child in children {
        Run::of(child.wait_with_output().unwrap()).code(0);
    }
    assert!(rows(&scene, "cache") == rows(&scene, "clean"));
    assert_eq!(view_counts(&scene.extract(["--views", "5"])), [90, 0, 90]);
}

/// On photographs and the reference ResNet18.
#[test]
fn views_of_photographs_are_stored_and_look_like_their_pictures() {
    let Some(shared) = crate::common::shared() else { return };
    let shared = shared.canonicalize().unwrap();
    let scene = Scene::new();
    let classes = std::fs::read_dir(shared.join("data/cats4/train")).unwrap();
    let mut classes: Vec<_> = classes
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    classes.sort();
    for class in &classes {
        let mut files = crate::common::files_below(class);
        files.truncate(5);
        let folder = scene.path("cats/train").join(class.file_name().unwrap());
        std::fs::create_dir_all(&folder).unwrap();
        for file in files {
            std::fs::copy(&file, folder.join(file.file_name().unwrap())).unwrap();
        }
    }
    let model = shared.join("models/resnet18.onnx");
    let extract = [
        "extract",
        "cats",
        "--backbone",
        model.to_str().unwrap(),
        "--views",
        "2",
        "--json",
    ];
    let report = scene.run(extract).code(0).json();
    let pictures = 5 * classes.len() as u64;
    assert_eq!(
        (counts(&report), view_counts(&report)),
        ([pictures, pictures, 0, 0], [2 * pictures, 2 * pictures, 0])
    );
    assert_eq!(
        view_counts(&scene.run(extract).code(0).json()),
        [2 * pictures, 0, 2 * pictures]
    );
    let stored = rows(&scene, "cache");
    let floats = |bytes: &[u8]| -> Vec<f64> {
        bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|value| f64::from(f32::from_le_bytes(*value)))
            .collect()
    };
    let cosine = |left: &[u8], right: &[u8]| {
        let (left, right) = (floats(left), floats(right));
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        dot(&left, &right) / (dot(&left, &left) * dot(&right, &right)).sqrt()
    };
    let (mut own, mut others) = (Vec::new(), Vec::new());
    let plain: Vec<(&Content, &Vec<u8>)> = stored
        .iter()
        .filter(|((_, view), _)| *view == 0)
        .map(|((content, _), row)| (content, row))
        .collect();
    for ((content, _), row) in stored.iter().filter(|((_, view), _)| *view != 0) {
        for (of, plain) in &plain {
            let list = if *of == content { &mut own } else { &mut others };
            list.push(cosine(row, plain));
        }
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (own, others) = (mean(&own), mean(&others));
    eprintln!("mean cosine with the own picture {own:.3}, with others {others:.3}");
    assert!(own > others + 0.05 && own < 0.999);
}
