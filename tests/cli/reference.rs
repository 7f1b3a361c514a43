//! The whole way on real photographs, against what torchvision, Pillow and PyTorch make of them (`../shared`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use lastlayer::{Cache, RowKey};
use ndarray::Array2;

use crate::common::{Run, Scene, counts, files_below, shared};

/// A cache with the features of a data set by the reference ResNet18; computed once in this process.
struct Extracted {
    scene: Scene,
    shared: PathBuf,
    report: serde_json::Value,
}

impl Extracted {
    fn new(dataset: &str) -> Option<Self> {
        Self::with(dataset, &[])
    }

    /// With further options.
    fn with(dataset: &str, options: &[&str]) -> Option<Self> {
        let shared = shared()?.canonicalize().unwrap();
        let scene = Scene::new();
        let report = extract(&scene, &shared, dataset, options).code(0).json();
        Some(Self { scene, shared, report })
    }

    fn dataset(&self, name: &str) -> String {
        text(&self.shared.join("data").join(name)).to_owned()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn extract(scene: &Scene, shared: &Path, dataset: &str, options: &[&str]) -> Run {
    let (data, model) = (shared.join("data").join(dataset), shared.join("models/resnet18.onnx"));
    let arguments = ["extract", text(&data), "--backbone", text(&model), "--json"];
    scene.run(arguments.into_iter().chain(options.iter().copied()))
}

fn cats() -> Option<&'static Extracted> {
    static CATS: OnceLock<Option<Extracted>> = OnceLock::new();
    CATS.get_or_init(|| Extracted::new("cats4")).as_ref()
}

fn hymenoptera() -> Option<&'static Extracted> {
    static HYMENOPTERA: OnceLock<Option<Extracted>> = OnceLock::new();
    HYMENOPTERA.get_or_init(|| Extracted::new("hymenoptera_data")).as_ref()
}

/// The lowest and the mean cosine between the features in the cache and those of the reference.
fn cosines(extracted: &Extracted, name: &str) -> (f64, f64) {
    let reference = extracted.shared.join("reference");
    let expected: Array2<f32> = ndarray_npy::read_npy(reference.join(format!("{name}_features.npy"))).unwrap();
    let table = std::fs::read_to_string(reference.join(format!("{name}_rows.tsv"))).unwrap();
    let cache = Cache::new(&extracted.scene.path("cache"));
    let spaces = cache.spaces().unwrap();
    assert_eq!(spaces.len(), 1);
    let space = cache.open_space(&spaces[0].0).unwrap().unwrap();
    let paths: Vec<&str> = table
        .lines()
        .skip(1)
        .map(|line| line.split('\t').next().unwrap())
        .collect();
    assert_eq!(paths.len(), expected.nrows());
    let (mut lowest, mut sum) = (1.0_f64, 0.0);
    for (path, expected) in paths.iter().zip(expected.rows()) {
        let bytes = std::fs::read(Path::new(&extracted.dataset(name)).join(path)).unwrap();
        let row = space.row(&RowKey::plain(*blake3::hash(&bytes).as_bytes())).unwrap();
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let expected = expected.to_slice().unwrap();
        let cosine = dot(row, expected) / (dot(row, row) * dot(expected, expected)).sqrt();
        lowest = lowest.min(cosine);
        sum += cosine;
    }
    (lowest, sum / paths.len() as f64)
}

fn accuracies(extracted: &Extracted, name: &str) -> Vec<f64> {
    let dataset = extracted.dataset(name);
    let accuracy = |seed: &str| {
        let head = format!("{name}-{seed}.safetensors");
        let run = extracted
            .scene
            .run(["train-head", &dataset, "--seed", seed, "-o", &head, "--json"]);
        run.code(0).json()["val_accuracy"].as_f64().unwrap()
    };
    ["0", "1", "2"].map(accuracy).to_vec()
}

#[test]
fn cats_are_as_torchvision_and_pytorch_have_them() {
    let Some(extracted) = cats() else { return };
    assert_eq!(counts(&extracted.report), [720, 720, 0, 0]);
    assert_eq!(extracted.report["feature_dim"], 512);
    let again = extract(&extracted.scene, &extracted.shared, "cats4", &[])
        .code(0)
        .json();
    assert_eq!(counts(&again), [720, 0, 720, 0]);
    let (lowest, mean) = cosines(extracted, "cats4");
    let accuracies = accuracies(extracted, "cats4");
    eprintln!("cats4: cosine {mean:.7} on average, {lowest:.7} at least; accuracies {accuracies:?}");
    assert!(lowest >= 0.99 && mean >= 0.9995, "{lowest} {mean}");
    assert!(accuracies.iter().all(|accuracy| *accuracy >= 0.92), "{accuracies:?}");
}

#[test]
fn hymenoptera_are_as_torchvision_and_pytorch_have_them() {
    let Some(extracted) = hymenoptera() else { return };
    // The placeholder GIF is none of them.
    assert_eq!(counts(&extracted.report), [397, 397, 0, 0]);
    assert_eq!(extracted.report["ignored"]["foreign"], 1);
    let (lowest, mean) = cosines(extracted, "hymenoptera_data");
    let accuracies = accuracies(extracted, "hymenoptera_data");
    eprintln!("hymenoptera: cosine {mean:.7} on average, {lowest:.7} at least; accuracies {accuracies:?}");
    assert!(lowest >= 0.99 && mean >= 0.9995, "{lowest} {mean}");
    assert!(accuracies.iter().all(|accuracy| *accuracy >= 0.945), "{accuracies:?}");
}

#[test]
fn every_difficult_file_is_answered_or_explained() {
    let Some(extracted) = hymenoptera() else { return };
    let (scene, nasty) = (&extracted.scene, extracted.shared.join("data/nasty"));
    let dataset = extracted.dataset("hymenoptera_data");
    scene.run(["train-head", &dataset, "-o", "nasty.safetensors"]).code(0);
    let mut reader = csv::Reader::from_path(nasty.join("manifest.csv")).unwrap();
    let files: Vec<String> = reader.records().map(|record| record.unwrap()[0].to_owned()).collect();
    assert_eq!(files.len(), 113);
    let list: String = files
        .iter()
        .map(|file| format!("{}\n", text(&nasty.join(file))))
        .collect();
    let arguments = ["predict", "--head", "nasty.safetensors", "--json", "-"];
    let answers = scene.run_with_input(arguments, list.as_bytes()).code(3).json_lines();
    assert_eq!(answers.len(), 113);
    let mut kinds = BTreeMap::new();
    for (file, answer) in files.iter().zip(&answers) {
        assert_eq!(answer["path"], text(&nasty.join(file)));
        let kind = match answer["error"]["reason"].as_str() {
            Some(reason) => {
                assert!(!answer["error"]["detail"].as_str().unwrap().is_empty(), "{answer}");
                reason
            }
            None => {
                let probability = answer["probability"].as_f64().unwrap();
                assert!((0.5..=1.0).contains(&probability), "{answer}");
                "answered"
            }
        };
        *kinds.entry(kind).or_insert(0) += 1;
    }
    eprintln!("nasty: {kinds:?}");
    assert!(kinds["answered"] > 60 && kinds.len() > 4, "{kinds:?}");
    // As a folder: whatever has a picture's name.
    let run = scene
        .run(["predict", "--head", "nasty.safetensors", "--json", text(&nasty)])
        .code(3);
    assert!(run.json_lines().len() > 100, "{}", run.json_lines().len());
}

/// With the defaults: two sessions, batches of 4.
#[test]
fn resnet18_stays_below_500_megabytes() {
    let Some(shared) = shared() else { return };
    let scene = Scene::new();
    let pictures = files_below(&shared.join("data/cats4/train"));
    for (number, picture) in pictures.iter().take(40).enumerate() {
        scene.write(&format!("pictures/{number}.jpg"), &std::fs::read(picture).unwrap());
    }
    let model = shared.canonicalize().unwrap().join("models/resnet18.onnx");
    let arguments = ["extract", "pictures", "--backbone", text(&model), "--json"];
    let fixed = ["--threads", "2", "--device", "cpu"];
    let (run, peak) = scene.measured(arguments.into_iter().chain(fixed));
    assert_eq!(counts(&run.code(0).json()), [40, 40, 0, 0]);
    match peak {
        Some(peak) => {
            eprintln!("{peak} KiB at most");
            assert!(peak < 500_000, "{peak} KiB");
        }
        None => eprintln!("skipped: the system tells no process's memory"),
    }
}

/// ONNX Runtime's own quantiser reaches a mean cosine of 0.9985 with as many pictures of this data set.
#[test]
fn int8_features_of_real_photos_are_close_to_the_reference_and_as_good_for_a_head() {
    const NAME: &str = "hymenoptera_data";
    let Some(float) = hymenoptera() else { return };
    let int8 = Extracted::with(NAME, &["--precision", "int8"]).unwrap();
    let (lowest, mean) = cosines(&int8, NAME);
    let fidelity = &int8.report["quantization"]["fidelity"];
    eprintln!("cosine {mean:.5}, at worst {lowest:.5}; {fidelity}");
    assert!(mean >= 0.9985 && lowest >= 0.99, "{mean} {lowest}");
    let said = fidelity["cosine"].as_f64().unwrap();
    assert!(
        (said - mean).abs() < 0.001,
        "{said} on the pictures compared, {mean} on all"
    );
    let average = |extracted: &Extracted| accuracies(extracted, NAME).iter().sum::<f64>() / 3.0;
    let (float, int8) = (average(float), average(&int8));
    eprintln!("accuracy {int8:.4}, in fp32 {float:.4}");
    assert!(int8 >= float - 0.015, "{int8} {float}");
}

/// What scikit-learn reaches on the same folds was written by `fixtures/make_cats_folds.py`.
#[test]
fn the_best_of_the_default_sweep_is_as_good_as_scikit_learns_best_on_the_same_folds() {
    let Some(extracted) = cats() else { return };
    let fixture: serde_json::Value = serde_json::from_str(include_str!("../fixtures/cats_folds.json")).unwrap();
    let dataset = extracted.dataset("cats4");
    let arguments = [
        "train-head",
        &dataset,
        "--folds",
        "5",
        "--folds-file",
        "folds.csv",
        "--json",
    ];
    let sweep = ["--sweep", "default", "-o", "folds.safetensors"];
    let report = extracted.scene.run(arguments.into_iter().chain(sweep)).code(0).json();
    let folds = blake3::hash(&extracted.scene.read("folds.csv")).to_string();
    assert_eq!(
        folds, fixture["folds_blake3"],
        "other folds: fixtures/make_cats_folds.py must judge them"
    );
    let number = |value: &serde_json::Value, key: &str| value[key].as_f64().unwrap();
    let theirs = fixture["results"].as_array().unwrap();
    let best = theirs
        .iter()
        .max_by(|one, other| number(one, "mean_accuracy").total_cmp(&number(other, "mean_accuracy")))
        .unwrap();
    let (ours, expected, error) = (
        number(&report, "mean_accuracy"),
        number(best, "mean_accuracy"),
        number(best, "standard_error"),
    );
    eprintln!("ours {ours:.4}, scikit-learn's {expected:.4} ± {error:.4}");
    assert!(
        (ours - expected).abs() <= error,
        "ours {ours}, scikit-learn's {expected} ± {error}"
    );
    // The same penalty gives the same head, up to the last bits of the features.
    for entry in report["leaderboard"].as_array().unwrap() {
        let settings = &entry["settings"];
        let same = |other: &&serde_json::Value| {
            settings["C"].as_f64() == other["C"].as_f64() && settings["standardize"] == other["standardize"]
        };
        let Some(their) = theirs.iter().find(same) else {
            continue;
        };
        let difference = number(entry, "mean_accuracy") - number(their, "mean_accuracy");
        // Two of 720 pictures may lie between two classes.
        assert!(difference.abs() <= 2.5 / 720.0, "{settings}: {difference}");
    }
}
