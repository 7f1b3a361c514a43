//! The whole program: `train-head` as a process, on a cache that has every feature.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use super::made::DIM;
use super::{Result, Task};

#[path = "../../tests/cli/common/model.rs"]
#[expect(dead_code, reason = "the tests need more of it")]
mod model;

use model::TinyModel;

/// A data set with a warm cache: cats4 and ResNet18 where they are there, else made pictures and a made backbone of the same
/// sizes.
struct Prepared {
    what: &'static str,
    folder: tempfile::TempDir,
    dataset: PathBuf,
    backbone: PathBuf,
}

impl Prepared {
    fn new(task: &Task) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
        let real = (shared.join("data/cats4"), shared.join("models/resnet18.onnx"));
        let (what, (dataset, backbone)) = if !task.quick && real.0.is_dir() && real.1.is_file() {
            ("on a warm cache of cats4", real)
        } else {
            ("on a warm cache of made pictures", made(folder.path())?)
        };
        let prepared = Self {
            what,
            folder,
            dataset,
            backbone,
        };
        prepared.run("extract", &[])?;
        prepared.run("train-head", &[])?;
        Ok(prepared)
    }

    /// What a verb prints.
    fn run(&self, verb: &str, options: &[&str]) -> Result<Vec<u8>> {
        let output = Command::new(env!("CARGO_BIN_EXE_lastlayer"))
            .current_dir(self.folder.path())
            .arg(verb)
            .arg(&self.dataset)
            .args(["--cache", "cache", "--backbone"])
            .arg(&self.backbone)
            .args(options)
            .stderr(Stdio::null())
            .output()?;
        if !output.status.success() {
            return Err(format!("`lastlayer {verb}` ended with {}", output.status).into());
        }
        Ok(output.stdout)
    }

    /// The seconds that a `train-head` says its training took.
    fn training_seconds(&self, options: &[&str]) -> Result<f64> {
        let report: Value = serde_json::from_slice(&self.run("train-head", options)?)?;
        let seconds = report["training_seconds"].as_f64();
        Ok(seconds.ok_or("`train-head --json` does not say how long it trained")?)
    }
}

/// Seconds of each run from its start to its end, and on what.
pub(crate) fn train_head(task: &Task) -> Result<(&'static str, Vec<f64>)> {
    let prepared = Prepared::new(task)?;
    let run = |_| -> Result<f64> {
        let start = Instant::now();
        prepared.run("train-head", &[])?;
        Ok(start.elapsed().as_secs_f64())
    };
    let times = (0..2 * task.rounds).map(run).collect::<Result<_>>()?;
    Ok((prepared.what, times))
}

/// Training seconds of a sweep of 256 heads as one process, and of 256 processes of one head each, of which 16 are run.
pub(crate) fn sweep_and_singles(task: &Task) -> Result<(Vec<f64>, Vec<f64>)> {
    const WEIGHT_DECAYS: [&str; 4] = ["0", "1e-4", "1e-3", "1e-2"];
    let rates: Vec<String> = (0..8)
        .map(|rate| format!("{:e}", 10_f64.powf(-4.0 + 3.0 * f64::from(rate) / 7.0)))
        .collect();
    let prepared = Prepared::new(task)?;
    let sweep = format!(
        "lr={},weight-decay={},momentum=0,0.9,seed=0,1,2,3",
        rates.join(","),
        WEIGHT_DECAYS.join(",")
    );
    let (mut swept, mut singles) = (Vec::new(), Vec::new());
    for _ in 0..if task.quick { 1 } else { task.rounds } {
        swept.push(prepared.training_seconds(&["--json", "--no-run", "--sweep", &sweep])?);
        let mut total = 0.0;
        // Every rate twice, and every weight decay, momentum and seed as often as the others.
        for (index, seed) in (0..16).zip(["0", "1", "2", "3"].into_iter().cycle()) {
            total += prepared.training_seconds(&[
                "--json",
                "--no-run",
                "--lr",
                &rates[index % 8],
                "--weight-decay",
                WEIGHT_DECAYS[index / 4],
                "--momentum",
                if (index + index / 8) % 2 == 0 { "0" } else { "0.9" },
                "--seed",
                seed,
            ])?;
        }
        singles.push(total * 16.0);
    }
    Ok((swept, singles))
}

/// 504 pictures to train on and 216 to check by, of 4 classes, all different; and a backbone of as many features.
fn made(folder: &Path) -> Result<(PathBuf, PathBuf)> {
    let dataset = folder.join("pictures");
    for class in 0..4_u8 {
        for (split, count) in [("train", 126), ("val", 54)] {
            let folder = dataset.join(format!("{split}/{class}"));
            fs::create_dir_all(&folder)?;
            for number in 0..count {
                let shade = image::Rgb([60 * class, number, if split == "val" { 255 } else { 0 }]);
                let picture = image::RgbImage::from_pixel(32, 32, shade);
                picture.save(folder.join(format!("{number}.png")))?;
            }
        }
    }
    let backbone = TinyModel {
        side: 32,
        width: DIM,
        ..TinyModel::default()
    };
    let file = folder.join("tiny.onnx");
    fs::write(&file, backbone.onnx())?;
    Ok((dataset, file))
}
