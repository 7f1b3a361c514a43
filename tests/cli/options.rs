//! Every option of the command line: one that changes a feature's numbers is another space, and every other one changes no
//! bit of them. The options are those that `--help` lists, so that a new one can't be forgotten here.

use std::collections::BTreeSet;

use crate::common::{
    CLASSES, Run, Scene, StoredRows, TinyModel, copy_folder, counts, files_below, picture, png, stored_files,
    stored_rows,
};

/// What may happen to the features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// They are those of another space.
    OtherSpace,
    /// They are in the same space, the same bits.
    SameRows,
    /// The same, and some pictures have none.
    FewerRows,
    /// The same, and beside them one of a picture that is cut off, as a view of its own.
    PartialRow,
    /// The same, and beside them those of two random views of each training picture, under these numbers.
    Beside([u32; 2]),
}
use Expected::{Beside, FewerRows, OtherSpace, PartialRow, SameRows};

/// The view of a row whose picture is cut off.
const PARTIAL_VIEW: u32 = 1 << 31;

/// One option of `extract` with a value that is not the default.
struct Flip {
    option: &'static str,
    /// The data set in place of `pictures`, if one is named, and the option.
    arguments: &'static [&'static str],
    expected: Expected,
}

const fn flip(option: &'static str, arguments: &'static [&'static str], expected: Expected) -> Flip {
    Flip {
        option,
        arguments,
        expected,
    }
}

/// Stands for the ONNX Runtime library that is found without `--ort-lib`.
const LIBRARY: &str = "LIBRARY";

/// All options of `extract`; of `--cache` every other run is an example.
const EXTRACT_OPTIONS: &[Flip] = &[
    flip("--backbone", &["--backbone", "other.onnx"], OtherSpace),
    flip("--feature", &["--feature", "pooled"], OtherSpace),
    flip("--exif", &["--exif", "ignore"], OtherSpace),
    flip("--decode", &["--decode", "fast"], OtherSpace),
    flip("--decode", &["--decode", "exact"], SameRows),
    flip("--precision", &["--precision", "fp32"], SameRows),
    // Named as it is by default.
    flip("--feature", &["--feature", "features"], SameRows),
    flip("--backbone", &["--backbone", "copy.onnx"], SameRows),
    flip("--batch-size", &["--batch-size", "1"], SameRows),
    flip("--batch-size", &["--batch-size", "256"], SameRows),
    flip("--max-pixels", &["--max-pixels", "1000000"], SameRows),
    flip("--max-pixels", &["--max-pixels", "3000"], FewerRows),
    flip("--max-file-bytes", &["--max-file-bytes", "1000000"], SameRows),
    flip("--max-file-bytes", &["--max-file-bytes", "2000"], FewerRows),
    flip("--accept-truncated", &["--accept-truncated"], SameRows),
    flip("--accept-truncated", &["cut", "--accept-truncated"], PartialRow),
    flip("--views", &["--views", "2"], Beside([1, 2])),
    flip(
        "--views-seed",
        &["--views", "2", "--views-seed", "7"],
        Beside([7 << 11 | 1, 7 << 11 | 2]),
    ),
    flip("--views-seed", &["--views-seed", "7"], SameRows),
    flip("--rehash", &["--rehash"], SameRows),
    flip("--max-failures", &["--max-failures", "0"], SameRows),
    flip("--max-failures", &["--max-failures", "50%"], SameRows),
    flip("--fail-fast", &["--fail-fast"], SameRows),
    flip("--failures", &["--failures", "list.csv"], SameRows),
    // A table of the same pictures with a usual and an unusual name for each column.
    flip("--path-column", &["table.csv", "--path-column", "where"], SameRows),
    flip("--label-column", &["table.csv", "--label-column", "what"], SameRows),
    flip("--split-column", &["table.csv", "--split-column", "part"], SameRows),
    flip("--image-root", &["lists/table.csv", "--image-root", "."], SameRows),
    flip("--name", &["--name", "animals"], SameRows),
    flip("--cache", &[], SameRows),
    flip("--device", &["--device", "cpu"], SameRows),
    flip("--threads", &["--threads", "1"], SameRows),
    flip("--threads", &["--threads", "5"], SameRows),
    flip("--json", &["--json"], SameRows),
    flip("--offline", &["--offline"], SameRows),
    flip("--ort-lib", &["--ort-lib", LIBRARY], SameRows),
    flip("--quiet", &["-q"], SameRows),
    flip("--verbose", &["-vv"], SameRows),
];

/// All options of `predict`, which writes nothing into the cache whatever it is told.
const PREDICT_OPTIONS: &[(&str, &[&str])] = &[
    ("--head", &[]),
    ("--backbone", &["--backbone", "copy.onnx"]),
    ("--top-k", &["--top-k", "3"]),
    ("--tta", &["--tta", "2"]),
    ("--views-seed", &["--tta", "1", "--views-seed", "7"]),
    ("--csv", &["--csv"]),
    ("--output", &["-o", "predictions"]),
    ("--batch-size", &["--batch-size", "1"]),
    ("--max-pixels", &["--max-pixels", "1000000"]),
    ("--max-file-bytes", &["--max-file-bytes", "1000000"]),
    ("--accept-truncated", &["--accept-truncated"]),
    ("--cache", &["--cache", "absent"]),
    ("--device", &["--device", "cpu"]),
    ("--precision", &["--precision", "fp32"]),
    ("--threads", &["--threads", "5"]),
    ("--json", &["--json"]),
    ("--offline", &["--offline"]),
    ("--ort-lib", &["--ort-lib", LIBRARY]),
    ("--quiet", &["-q"]),
    ("--verbose", &["-vv"]),
];

/// All options of `train-head`, which reads the cache.
const TRAIN_OPTIONS: &[(&str, &[&str])] = &[
    ("--output", &["-o", "other.safetensors"]),
    ("--backbone", &["--backbone", "tiny.onnx"]),
    ("--space", &["--space", SPACE]),
    ("--decode", &["--decode", "exact"]),
    ("--precision", &["--precision", "fp32"]),
    ("--val-fraction", &["--val-fraction", "0.5"]),
    ("--group-by", &["--group-by", "/00[0-9]"]),
    ("--views", &["--views", "2"]),
    ("--views-seed", &["--views-seed", "7"]),
    ("--no-calibration", &["--no-calibration"]),
    // Of tables and streams; a folder has its labels and its name.
    ("--path-column", &["--path-column", "where"]),
    ("--label-column", &["--label-column", "what"]),
    ("--split-column", &["--split-column", "part"]),
    ("--image-root", &["--image-root", "."]),
    ("--name", &["--name", "pictures"]),
    ("--solver", &["--solver", "adamw"]),
    ("--class-weights", &["--class-weights", "balanced"]),
    ("--label-smoothing", &["--label-smoothing", "0.1"]),
    ("--standardize", &["--standardize"]),
    ("--epochs", &["--epochs", "2"]),
    ("--batch-size", &["--batch-size", "1"]),
    ("--lr", &["--lr", "0.01"]),
    ("--weight-decay", &["--weight-decay", "0.1"]),
    ("--momentum", &["--momentum", "0.5"]),
    ("--dampening", &["--dampening", "0.1"]),
    ("--nesterov", &["--nesterov"]),
    ("--beta1", &["--solver", "adamw", "--beta1", "0.5"]),
    ("--beta2", &["--solver", "adamw", "--beta2", "0.5"]),
    ("--epsilon", &["--solver", "adamw", "--epsilon", "1e-6"]),
    ("--clip-norm", &["--clip-norm", "1"]),
    ("--sampling", &["--sampling", "balanced"]),
    ("--patience", &["--patience", "3"]),
    ("--min-delta", &["--patience", "3", "--min-delta", "0.01"]),
    ("--schedule", &["--schedule", "constant"]),
    ("--warm-up", &["--warm-up", "2"]),
    ("--step-size", &["--step-size", "3"]),
    ("--gamma", &["--gamma", "0.5"]),
    ("--milestones", &["--schedule", "multistep", "--milestones", "5,10"]),
    ("--min-lr", &["--schedule", "cosine", "--min-lr", "1e-5"]),
    ("--cosine-epochs", &["--schedule", "cosine", "--cosine-epochs", "10"]),
    (
        "--plateau-patience",
        &["--schedule", "plateau", "--plateau-patience", "2"],
    ),
    (
        "--plateau-threshold",
        &["--schedule", "plateau", "--plateau-threshold", "0.1"],
    ),
    (
        "--plateau-cooldown",
        &["--schedule", "plateau", "--plateau-cooldown", "1"],
    ),
    ("--pct-start", &["--schedule", "one-cycle", "--pct-start", "0.5"]),
    ("--div-factor", &["--schedule", "one-cycle", "--div-factor", "10"]),
    (
        "--final-div-factor",
        &["--schedule", "one-cycle", "--final-div-factor", "10"],
    ),
    (
        "--cycle-momentum",
        &["--schedule", "one-cycle", "--cycle-momentum=false"],
    ),
    (
        "--base-momentum",
        &["--schedule", "one-cycle", "--base-momentum", "0.8"],
    ),
    ("--max-momentum", &["--schedule", "one-cycle", "--max-momentum", "0.9"]),
    ("--C", &["--solver", "lbfgs", "--C", "10"]),
    ("--tolerance", &["--solver", "lbfgs", "--tolerance", "1e-4"]),
    ("--max-iterations", &["--solver", "lbfgs", "--max-iterations", "500"]),
    ("--sweep", &["--sweep", "lr=0.1,0.01"]),
    ("--sweep-file", &["--sweep-file", "sweep.toml"]),
    ("--keep", &["--sweep", "lr=0.1,0.01", "--keep", "all"]),
    (
        "--leaderboard",
        &["--sweep", "lr=0.1,0.01", "--leaderboard", "board.csv"],
    ),
    ("--top", &["--sweep", "lr=0.1,0.01", "--top", "1"]),
    ("--folds", &["--folds", "3"]),
    ("--repeats", &["--folds", "3", "--repeats", "2"]),
    ("--folds-file", &["--folds", "3", "--folds-file", "folds.csv"]),
    ("--seed", &["--seed", "7"]),
    ("--runs", &["--runs", "experiments"]),
    ("--run-name", &["--run-name", "first"]),
    ("--no-run", &["--no-run"]),
    ("--from", &["--from", "first"]),
    ("--cache", &[]),
    ("--device", &["--device", "cpu"]),
    ("--precision", &["--precision", "fp32"]),
    ("--threads", &["--threads", "5"]),
    ("--json", &["--json"]),
    ("--offline", &["--offline"]),
    ("--ort-lib", &["--ort-lib", LIBRARY]),
    ("--quiet", &["-q"]),
    ("--verbose", &["-vv"]),
];

/// All options of `evaluate`, which reads the cache, and notes there that a test split was looked at.
const EVALUATE_OPTIONS: &[(&str, &[&str])] = &[
    ("--head", &[]),
    ("--split", &["--split", "all"]),
    ("--val-fraction", &["--val-fraction", "0.5"]),
    ("--group-by", &["--group-by", "/00[0-9]"]),
    ("--skip-unknown", &["--skip-unknown"]),
    ("--output", &["-o", "report.json"]),
    ("--csv", &["--csv", "report"]),
    ("--path-column", &["--path-column", "where"]),
    ("--label-column", &["--label-column", "what"]),
    ("--split-column", &["--split-column", "part"]),
    ("--image-root", &["--image-root", "."]),
    ("--name", &["--name", "pictures"]),
    ("--cache", &[]),
    ("--device", &["--device", "cpu"]),
    ("--precision", &["--precision", "fp32"]),
    ("--threads", &["--threads", "5"]),
    ("--json", &["--json"]),
    ("--offline", &["--offline"]),
    ("--ort-lib", &["--ort-lib", LIBRARY]),
    ("--quiet", &["-q"]),
    ("--verbose", &["-vv"]),
];

/// Stands for the id of the space.
const SPACE: &str = "SPACE";

/// The long options that the help of a verb lists.
fn listed(scene: &Scene, verb: &str) -> BTreeSet<String> {
    let help = scene.run([verb, "--help"]).code(0).stdout;
    let mut options = BTreeSet::new();
    for line in help.lines() {
        let text = line.trim_start();
        // `  -o, --output <FILE>` or `      --seed <N>`; texts that go on in a next line begin further to the right.
        if !text.starts_with('-') || line.len() - text.len() > 6 {
            continue;
        }
        let words = text.split([' ', ',', '[']).map(|word| word.trim_end_matches('.'));
        options.extend(words.filter(|word| word.starts_with("--")).take(1).map(str::to_owned));
    }
    assert!(options.remove("--help"), "{help}");
    assert!(options.contains("--cache"), "{help}");
    options
}

#[track_caller]
fn assert_all_listed<'a>(scene: &Scene, verb: &str, table: impl Iterator<Item = &'a str>) {
    let table: BTreeSet<String> = table.map(str::to_owned).collect();
    assert_eq!(
        listed(scene, verb),
        table,
        "the options of `{verb}` and those of the table in this test"
    );
}

/// Pictures of several kinds, one of them larger than the others, one turned by EXIF, and models.
fn scene() -> Scene {
    let scene = Scene::with_pictures();
    scene.write("copy.onnx", &scene.read("tiny.onnx"));
    let other = TinyModel {
        seed: 2,
        ..TinyModel::default()
    };
    scene.write("other.onnx", &other.onnx());
    let turned = image::imageops::rotate270(&picture(0, 50));
    scene.write("pictures/train/blue/turned.jpg", &crate::common::jpeg(&turned, Some(6)));
    let large = image::imageops::resize(&picture(1, 51), 96, 80, image::imageops::FilterType::Triangle);
    scene.write("pictures/train/green/large.png", &png(&large));
    copy_folder(&scene.path("pictures"), &scene.path("cut"));
    let whole = crate::common::jpeg(&picture(2, 52), None);
    scene.write("cut/train/red/cut.jpg", &whole[..whole.len() * 2 / 3]);
    let mut table = "path,label,split,where,what,part\n".to_owned();
    for path in files_below(&scene.path("pictures")) {
        let names: Vec<_> = path.iter().rev().take(4).map(|name| name.to_str().unwrap()).collect();
        let [name, class, split, root] = names[..] else {
            panic!("{names:?}")
        };
        let path = format!("{root}/{split}/{class}/{name}");
        table += &format!("{path},{class},{split},{path},{class},{split}\n");
    }
    scene.write("table.csv", table.as_bytes());
    scene.write("lists/table.csv", table.as_bytes());
    scene
}

const PICTURES: usize = 9 * CLASSES.len() + 2;
const TRAINING_PICTURES: usize = 6 * CLASSES.len() + 2;

/// The library that is used where none is named.
fn library(scene: &Scene) -> String {
    let report = scene.run(["doctor", "--json"]).code(0).json();
    let path = report["onnxruntime"]["path"]
        .as_str()
        .or(report["runtime"]["path"].as_str());
    path.unwrap_or_else(|| panic!("no library in {report}")).to_owned()
}

fn extract(scene: &Scene, cache: &str, flip: &Flip, library: &str) -> Run {
    let (dataset, options) = match flip.arguments {
        [dataset, options @ ..] if !dataset.starts_with('-') => (*dataset, options),
        options => ("pictures", options),
    };
    let mut arguments = vec!["extract", dataset, "--cache", cache];
    if options.first() != Some(&"--backbone") {
        arguments.extend(["--backbone", "tiny.onnx"]);
    }
    arguments.extend(options.iter().map(|word| if *word == LIBRARY { library } else { word }));
    let run = scene.run(arguments);
    // Pictures without a feature are told by the exit code.
    let code = if flip.expected == FewerRows && cache != "known" {
        3
    } else {
        run.exit.unwrap_or(-1)
    };
    assert!([0, 3].contains(&code), "{:?}: {run:?}", flip.arguments);
    run.code(code)
}

#[test]
fn every_option_of_extract_is_another_space_or_changes_no_bit() {
    let scene = scene();
    assert_all_listed(&scene, "extract", EXTRACT_OPTIONS.iter().map(|flip| flip.option));
    let library = library(&scene);
    let plain = flip("", &[], SameRows);
    extract(&scene, "plain", &plain, &library);
    let reference = stored_rows(&scene.path("plain"));
    let (space, expected) = reference.first_key_value().unwrap();
    assert_eq!((reference.len(), expected.len()), (1, PICTURES));

    for flip in EXTRACT_OPTIONS {
        let told = flip.arguments.join(" ");
        // Into a cache of its own: what is computed is what the table says.
        extract(&scene, "fresh", flip, &library);
        let mut fresh = stored_rows(&scene.path("fresh"));
        let (id, rows) = fresh.pop_first().unwrap();
        assert!(fresh.is_empty(), "{told}: two spaces");
        match flip.expected {
            OtherSpace => {
                assert_ne!(id, *space, "`{told}` changes numbers and must be another space");
                assert_eq!(rows.len(), PICTURES, "{told}");
                // No picture here is large enough for `--decode fast`.
                if told != "--feature pooled" && told != "--decode fast" {
                    // As the flip is one that does change numbers; if it did not, it would prove nothing.
                    assert!(rows != *expected, "{told}");
                }
            }
            SameRows => assert!((&id, &rows) == (space, expected), "`{told}` must change no bit"),
            FewerRows => {
                assert_eq!(id, *space, "{told}");
                assert!(
                    is_part(&rows, expected) && rows.len() < PICTURES,
                    "`{told}` must change no bit"
                );
            }
            PartialRow => {
                assert_eq!(id, *space, "{told}");
                assert_one_partial_row_beside(&rows, expected);
            }
            Beside(views) => {
                assert_eq!(id, *space, "{told}");
                assert_views_beside(&rows, expected, views);
            }
        }
        // Into the cache that has the features: they are found, or others are put beside them.
        copy_folder(&scene.path("plain"), &scene.path("known"));
        extract(&scene, "known", flip, &library);
        let mut known = stored_rows(&scene.path("known"));
        let kept = known.remove(space).unwrap();
        match flip.expected {
            PartialRow => assert_one_partial_row_beside(&kept, expected),
            Beside(views) => {
                assert_views_beside(&kept, expected, views);
                assert!(kept == rows, "`{told}` gives the same, whatever was there");
            }
            _ => assert!(kept == *expected, "`{told}` must keep what is there"),
        }
        match flip.expected {
            OtherSpace => assert_eq!(known.into_iter().collect::<Vec<_>>(), [(id, rows)], "{told}"),
            SameRows | FewerRows | PartialRow | Beside(_) => assert!(known.is_empty(), "{told}: {:?}", known.keys()),
        }
        scene.remove("fresh");
        scene.remove("known");
    }
}

#[track_caller]
fn assert_one_partial_row_beside(rows: &StoredRows, whole: &StoredRows) {
    let mut rows = rows.clone();
    let views: Vec<u32> = rows.keys().map(|(_, view)| *view).filter(|view| *view != 0).collect();
    assert_eq!(views, [PARTIAL_VIEW]);
    rows.retain(|(_, view), _| *view == 0);
    assert!(rows == *whole, "the rows of whole pictures must stay as they are");
}

#[track_caller]
fn assert_views_beside(rows: &StoredRows, plain: &StoredRows, views: [u32; 2]) {
    let mut rows = rows.clone();
    let random: BTreeSet<u32> = rows.keys().map(|(_, view)| *view).filter(|view| *view != 0).collect();
    assert_eq!(random, BTreeSet::from(views));
    assert_eq!(rows.len(), PICTURES + 2 * TRAINING_PICTURES);
    rows.retain(|(_, view), _| *view == 0);
    assert!(rows == *plain, "the plain rows must stay as they are");
}

#[test]
fn the_row_of_a_cut_picture_is_taken_only_by_who_accepts_such() {
    let scene = scene();
    let cut = scene.read("cut/train/red/cut.jpg");
    let extract = ["extract", "cut", "--backbone", "tiny.onnx", "--json"];
    let accept = extract.into_iter().chain(["--accept-truncated"]);
    let train = ["train-head", "cut", "--epochs", "1", "--json"];
    let images = PICTURES as u64 + 1;
    for round in 0..2 {
        // Refused, computed or reused as partial, refused again although there is a row.
        let refused = scene.run(extract).code(3).json();
        assert_eq!(counts(&refused)[3], 1, "{round}");
        assert_eq!(refused["failures"][0]["reason"], "truncated");
        let computed = u64::from(round == 0);
        let trained = scene.run(train).code(0).json();
        assert_eq!(trained["failed_images"], 1, "{trained}");
        assert_eq!(trained["train_images"], 20, "{trained}");
        let accepted = scene.run(accept.clone()).code(0).json();
        assert_eq!(counts(&accepted), [images, computed, images - computed, 0]);
        let trained = scene.run(train).code(0).json();
        assert_eq!(trained["failed_images"], 0, "{trained}");
        assert_eq!(trained["train_images"], 21, "{trained}");
    }
    // Of the whole file, once it is there, the row is another one.
    let rows = stored_rows(&scene.path("cache")).pop_first().unwrap().1;
    assert!(rows.contains_key(&(*blake3::hash(&cut).as_bytes(), PARTIAL_VIEW)));
    assert!(!rows.contains_key(&(*blake3::hash(&cut).as_bytes(), 0)));
    scene.write("cut/train/red/cut.jpg", &crate::common::jpeg(&picture(2, 52), None));
    let whole = scene.run(extract).code(0).json();
    assert_eq!(counts(&whole), [images, 1, images - 1, 0]);
}

fn is_part(rows: &StoredRows, of: &StoredRows) -> bool {
    rows.iter().all(|(key, row)| of.get(key) == Some(row))
}

#[test]
fn no_option_of_train_head_predict_or_evaluate_touches_a_feature() {
    let scene = scene();
    assert_all_listed(&scene, "train-head", TRAIN_OPTIONS.iter().map(|(option, _)| *option));
    assert_all_listed(&scene, "predict", PREDICT_OPTIONS.iter().map(|(option, _)| *option));
    assert_all_listed(&scene, "evaluate", EVALUATE_OPTIONS.iter().map(|(option, _)| *option));
    let library = library(&scene);
    let report = scene.extract(["--views", "2"]);
    let space = report["space"].as_str().unwrap();
    let replace = |word: &'static str| match word {
        LIBRARY => library.clone(),
        SPACE => space.to_owned(),
        word => word.to_owned(),
    };
    scene.run(["train-head", "pictures"]).code(0);
    let before = stored_files(&scene.path("cache"));
    let verbs: [(&[&str], _); 3] = [
        (&["train-head", "pictures"], TRAIN_OPTIONS),
        (&["predict", "--head", "head.safetensors", "pictures"], PREDICT_OPTIONS),
        (
            &["evaluate", "--head", "head.safetensors", "pictures"],
            EVALUATE_OPTIONS,
        ),
    ];
    // A picture that has no row in the cache goes through the backbone and is not kept.
    scene.write("new.png", &png(&picture(2, 99)));
    scene.write("sweep.toml", b"lr = [0.1, 0.01]");
    for (verb, table) in verbs {
        for (_, arguments) in table {
            let words: Vec<String> = arguments.iter().map(|word| replace(word)).collect();
            let mut command: Vec<&str> = verb.to_vec();
            if verb[0] == "predict" {
                command.push("new.png");
            }
            command.extend(words.iter().map(String::as_str));
            scene.run(command.iter().copied()).code(0);
            assert!(
                stored_files(&scene.path("cache")) == before,
                "{command:?} changed the cache"
            );
            assert!(!scene.path("absent").exists(), "{command:?} made a cache");
        }
    }
}
