#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use ndarray::array;
use proptest::prelude::*;

use super::super::config::{RunDataset, RunFeatures};
use super::super::{Run, RunState, find_run, list_runs};
use super::*;
use crate::cache::RowKey;
use crate::dataset::Split;
use crate::head::{Descent, Examples, HeadMeta, Recipe, TrainingTask};
use crate::observer::Quiet;

fn config(recipe: Recipe) -> RunConfig {
    RunConfig {
        dataset: RunDataset {
            named: "pictures".into(),
            absolute: "/data/pictures".into(),
        },
        features: RunFeatures {
            space: space().id().to_string(),
            val_fraction: 0.3,
            ..RunFeatures::default()
        },
        recipe,
        sweep: None,
        folds: None,
        lastlayer_version: env!("CARGO_PKG_VERSION").to_owned(),
        command_line: vec!["lastlayer".to_owned(), "train-head".to_owned()],
    }
}

fn space() -> FeatureSpace {
    FeatureSpace::from_json(r#"{"format":1}"#.to_owned())
}

fn data() -> DataFingerprint {
    let classes = ["ant".to_owned(), "bee".to_owned()];
    let row = |content: u8, split| (RowKey::plain([content; 32]), 0, split);
    DataFingerprint::of(&classes, [row(1, Split::Train), row(2, Split::Val)])
}

/// A writer in `root` of a run with these options.
fn begin(root: &Path, name: &str, config: &RunConfig) -> Result<RunWriter> {
    let inputs = RunInputs {
        config,
        data: &data(),
        space: &space(),
    };
    RunWriter::create(root, name, &inputs)
}

fn trained(recipe: &Recipe) -> (Training, HeadFile) {
    let (train, val) = (array![[0.0_f32, 1.0], [0.2, 0.9], [1.0, 0.0]], array![[0.8_f32, 0.1]]);
    let task = TrainingTask::new(2, Examples::new(train.view(), &[0, 0, 1]).unwrap()).unwrap();
    let task = task.with_validation(Examples::new(val.view(), &[1]).unwrap()).unwrap();
    let valid = recipe.clone().check().unwrap();
    let training = valid.train(&task, &Quiet, &mut |_| ()).unwrap();
    let meta = HeadMeta {
        classes: data().classes,
        backbone: "made".to_owned(),
        backbone_file: PathBuf::new(),
        backbone_blake3: "00".repeat(32),
        feature_tensor: "features".to_owned(),
        space_id: space().id().to_string(),
        space: space().json().to_owned(),
        options: json!({}),
        metrics: json!({}),
        temperature: 1.0,
        pictures: None,
        lastlayer_version: "0.1.0".to_owned(),
    };
    let head = training.head.clone();
    (training, HeadFile { head, meta })
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    // The time in the name of the event file is that of the run.
    names
        .map(|name| match name.strip_prefix("events.out.tfevents.") {
            Some(rest) => format!("events.{}", rest.rsplit('.').next().unwrap()),
            None => name,
        })
        .collect()
}

#[test]
fn a_finished_run_has_all_files_and_reads_back() {
    let root = tempfile::tempdir().unwrap();
    let config = config(Recipe::default());
    let (training, head) = trained(&config.recipe);
    let writer = begin(&root.path().join("deep/runs"), "two words/ß", &config).unwrap();
    assert_eq!(
        names(writer.folder()),
        ["config.json", "data.json", "run.json", "space.json"]
            .map(str::to_owned)
            .into()
    );
    let unfinished = Run::read(writer.folder(), "x");
    assert_eq!((unfinished.state, unfinished.problem()), (RunState::Unfinished, None));

    let metrics = json!({ "val_accuracy_interval": [0.2, 1.0], "best_epoch": 99 });
    let folder = writer.finish(&training, &metrics, &head).unwrap();
    let files = [
        "config.json",
        "data.json",
        "events.lastlayer",
        "head.safetensors",
        "history.csv",
        "metrics.json",
        "run.json",
        "space.json",
    ];
    assert_eq!(names(&folder), files.map(str::to_owned).into());
    let name = folder.file_name().unwrap().to_str().unwrap();
    let (time, rest) = name.split_at(15);
    assert!(
        time.bytes().enumerate().all(|(at, byte)| (at == 8) == (byte == b'-')),
        "{name}"
    );
    assert_eq!(rest, "-two-words-ß");

    let run = find_run(&root.path().join("deep/runs"), name).unwrap();
    assert_eq!((run.state, run.kind), (RunState::Complete, Some(RunKind::Head)));
    assert_eq!(run.config().unwrap(), config);
    assert_eq!(run.data().unwrap(), data());
    assert_eq!(run.space().unwrap(), space());
    assert_eq!(fs::read_to_string(folder.join("space.json")).unwrap(), space().json());
    assert_eq!(run.history().unwrap(), training.history);
    assert_eq!(HeadFile::load(run.head()).unwrap(), head);
    let record = &run.record;
    assert_eq!(record["name"], "two words/ß");
    assert_eq!(record["solver"], "sgd");
    assert_eq!(record["metrics"]["epochs"], 25);
    assert_eq!(
        record["metrics"]["best_epoch"], 99,
        "what is given goes before what the training tells"
    );
    assert_eq!(record["metrics"]["train_loss"], training.best().train_loss);
    assert_eq!(record["config"]["recipe"]["solver"]["learning_rate"], 0.001);
    assert_eq!(record["space"]["id"], space().id().to_string());
    assert_eq!(record["data"]["classes"], json!(["ant", "bee"]));
    assert!(record["seconds"].as_f64().unwrap() >= 0.0);
    let created = record["created"].as_str().unwrap();
    assert_eq!(created.replace([':', 'T', 'Z'], "-").replace('-', "")[..8], time[..8]);
    run.check_data(&data()).unwrap();
}

#[test]
fn runs_of_one_second_get_folders_of_their_own() {
    let root = tempfile::tempdir().unwrap();
    let config = config(Recipe::default());
    let folders: Vec<PathBuf> = std::thread::scope(|scope| {
        let begin_many = || -> Vec<PathBuf> {
            let begun = (0..5).map(|_| begin(root.path(), "same", &config).unwrap());
            begun.map(|writer| writer.folder().to_path_buf()).collect()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(begin_many)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(folders.iter().collect::<BTreeSet<_>>().len(), 20);
    let stems: BTreeSet<&str> = folders
        .iter()
        .map(|folder| &folder.file_name().unwrap().to_str().unwrap()[..15])
        .collect();
    assert!(
        folders
            .iter()
            .any(|folder| folder.to_str().unwrap().ends_with("-same-2")),
        "{stems:?}"
    );
    let runs = list_runs(root.path(), false).unwrap();
    assert_eq!(runs.len(), 20);
    assert!(runs.iter().all(|run| run.state == RunState::Unfinished));
}

#[test]
fn a_failed_run_says_why() {
    let root = tempfile::tempdir().unwrap();
    let writer = begin(root.path(), "x", &config(Recipe::default())).unwrap();
    let folder = writer.fail("training diverged").unwrap();
    let run = Run::read(&folder, "x");
    assert_eq!(
        (run.state, run.problem()),
        (RunState::Failed, Some("training diverged"))
    );
    assert!(run.config().is_ok(), "it can be tried again");
}

#[test]
fn a_sweep_keeps_its_heads_as_runs_of_their_own() {
    let root = tempfile::tempdir().unwrap();
    let recipe = |seed| Recipe {
        seed,
        ..Recipe::default()
    };
    let whole = RunConfig {
        sweep: Some(json!({ "seed": "0..2" })),
        ..config(recipe(0))
    };
    let inputs = RunInputs {
        config: &whole,
        data: &data(),
        space: &space(),
    };
    let sweep = RunWriter::create_sweep(root.path(), "sweep", &inputs).unwrap();
    for seed in 0..2 {
        let config = config(recipe(seed));
        let (training, head) = trained(&config.recipe);
        let child = sweep.child(&format!("head-{seed}"), &config).unwrap();
        child
            .finish(&training, &json!({ "val_accuracy": seed }), &head)
            .unwrap();
    }
    let again = sweep.child("head-0", &config(recipe(0))).unwrap();
    assert!(again.folder().ends_with("head-0-2"), "nothing is overwritten");
    let folder = sweep
        .finish_sweep("seed,val_accuracy\n", &json!([]), &json!({ "val_accuracy": 1 }))
        .unwrap();
    assert!(folder.join("leaderboard.csv").is_file() && folder.join("leaderboard.json").is_file());

    let list = |heads| list_runs(root.path(), heads).unwrap();
    let (top, all) = (list(false), list(true));
    assert_eq!((top.len(), all.len()), (1, 4));
    assert_eq!((top[0].state, top[0].kind), (RunState::Complete, Some(RunKind::Sweep)));
    assert_eq!(top[0].config().unwrap().sweep, whole.sweep);
    let id = top[0].id.clone();
    let ids: Vec<&str> = all.iter().map(|run| run.id.as_str()).collect();
    let expected = ["", "/head-0", "/head-0-2", "/head-1"].map(|end| format!("{id}{end}"));
    assert_eq!(ids, expected);
    assert_eq!(find_run(root.path(), "best").unwrap().id, format!("{id}/head-1"));
    assert_eq!(find_run(root.path(), "latest").unwrap().id, id);
    assert_eq!(
        find_run(root.path(), &id[..17]).unwrap().id,
        id,
        "the sweep, not one of its heads"
    );
    assert_eq!(all[3].config().unwrap().recipe.seed, 1);
}

#[test]
fn where_nothing_can_be_written_nothing_is_left() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "x").unwrap();
    let config = config(Recipe::default());
    let error = begin(&file, "x", &config).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    // JSON has no infinity: such a run could never be repeated.
    let endless = RunConfig {
        features: RunFeatures {
            val_fraction: f64::INFINITY,
            ..config.features.clone()
        },
        ..config.clone()
    };
    let runs = root.path().join("runs");
    assert!(begin(&runs, "x", &endless).unwrap_err().to_string().contains("JSON"));
    assert!(!runs.exists());
    // A folder that vanishes meanwhile.
    let writer = begin(&runs, "x", &config).unwrap();
    fs::remove_dir_all(writer.folder()).unwrap();
    let (training, head) = trained(&config.recipe);
    assert!(matches!(
        writer.finish(&training, &json!({}), &head),
        Err(Error::Io { .. })
    ));
}

#[test]
fn names_become_parts_of_paths() {
    for (name, expected) in [
        ("cats4", "cats4"),
        ("a/b\\c:d*e?f", "a-b-c-d-e-f"),
        ("../..", "run"),
        ("", "run"),
        (".hidden.", "hidden"),
        ("ß=1,2", "ß=1,2"),
    ] {
        assert_eq!(file_name(name), expected, "{name}");
    }
    assert_eq!(file_name(&"é".repeat(100)), "é".repeat(32));
}

proptest! {
    #[test]
    fn every_number_of_a_configuration_comes_back_to_the_bit(bits in any::<[u64; 3]>(), seed in any::<u64>()) {
        let [rate, decay, norm] = bits.map(f64::from_bits);
        prop_assume!(rate.is_finite() && decay.is_finite() && norm.is_finite());
        let recipe = Recipe {
            seed,
            ..Recipe::from(Descent { learning_rate: rate, weight_decay: decay, clip_norm: Some(norm), ..Descent::sgd() })
        };
        let config = config(recipe);
        let read: RunConfig = serde_json::from_str(&config.to_json().unwrap()).unwrap();
        prop_assert_eq!(format!("{read:?}"), format!("{config:?}"));
    }
}
