//! The promise that `--decode fast` changes features little: their cosine to the exact ones, on real photos.

#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::print_stderr, reason = "says that a test was skipped, and what was measured")]

use std::path::{Path, PathBuf};

use lastlayer::{
    Backbone, Decode, Limits, Quiet, RunOptions, Runtime, RuntimeOptions, Session, SessionOptions, Transform,
};

/// Least mean over all pictures of a data set, of which most are too small to be reduced.
const LEAST_MEAN: f64 = 0.998;

/// A session of the reference backbone, where data, model, and ONNX Runtime are there.
fn session(shared: &Path) -> Option<Session> {
    let backbone = Backbone::open("resnet18", &shared.join("models/resnet18.onnx"), None).unwrap();
    let model = backbone.model();
    let options = RuntimeOptions {
        env_library: std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from),
        data_dir: dirs::data_dir()?.join("lastlayer"),
        offline: true,
        ..RuntimeOptions::default()
    };
    let Ok(runtime) = Runtime::load(&options, &Quiet) else {
        eprintln!("skipped: ONNX Runtime is absent");
        return None;
    };
    let options = SessionOptions {
        input: &model.input,
        output: &model.output,
        picture: [3, 224, 224],
        run: RunOptions::cpu(1),
    };
    Some(Session::open(runtime, &model.onnx, &options, &Quiet).unwrap())
}

fn pictures(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = walkdir::WalkDir::new(folder)
        .into_iter()
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    files
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn features_of_reduced_pictures_are_nearly_the_exact_ones() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    if !shared.is_dir() {
        eprintln!("skipped: ../shared is absent");
        return;
    }
    let Some(mut session) = session(&shared) else { return };
    let exact = Transform::default();
    let fast = Transform {
        decode: Decode::Fast,
        ..Transform::default()
    };
    let limits = Limits::default();
    let (mut of_exact, mut of_fast) = (vec![0.0; exact.tensor_len()], vec![0.0; exact.tensor_len()]);
    let mut reduced = Vec::new();
    for data_set in ["cats4", "hymenoptera_data"] {
        let mut all = Vec::new();
        for path in pictures(&shared.join("data").join(data_set)) {
            let bytes = std::fs::read(&path).unwrap();
            let (Ok(one), Ok(other)) = (
                exact.load(&bytes, &limits, &mut of_exact),
                fast.load(&bytes, &limits, &mut of_fast),
            ) else {
                continue;
            };
            assert_eq!(one, other);
            if of_exact == of_fast {
                all.push(1.0);
                continue;
            }
            let cosine = cosine(&session.run(&of_exact, 1).unwrap(), &session.run(&of_fast, 1).unwrap());
            all.push(cosine);
            reduced.push((cosine, path));
        }
        assert!(all.len() > 300, "{data_set}: {}", all.len());
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        eprintln!("{data_set}: mean cosine {mean:.6} of {}", all.len());
        assert!(mean >= LEAST_MEAN, "{data_set}: {mean}");
    }
    for (cosine, path) in &reduced {
        eprintln!("{cosine:.6} {}", path.display());
    }
    assert!(reduced.len() >= 5, "of {} pictures only", reduced.len());
    // Of those alone, no mean over pictures that are the same.
    let mean = reduced.iter().map(|(cosine, _)| cosine).sum::<f64>() / reduced.len() as f64;
    assert!(mean >= LEAST_MEAN, "of those that were reduced: {mean}");
}
