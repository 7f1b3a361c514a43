//! The whole program: `train-head` as a process, on a cache that has every feature.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::made::DIM;
use super::{Result, Task};

#[path = "../../tests/cli/common/model.rs"]
#[expect(dead_code, reason = "the tests need more of it")]
mod model;

use model::TinyModel;

/// Seconds of each run from its start to its end, and on what.
///
/// cats4 and ResNet18 where they are there, else made pictures and a made backbone of the same sizes.
pub(crate) fn train_head(task: &Task) -> Result<(&'static str, Vec<f64>)> {
    let folder = tempfile::tempdir()?;
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let real = (shared.join("data/cats4"), shared.join("models/resnet18.onnx"));
    let (what, (dataset, backbone)) = if !task.quick && real.0.is_dir() && real.1.is_file() {
        ("on a warm cache of cats4", real)
    } else {
        ("on a warm cache of made pictures", made(folder.path())?)
    };
    let run = |verb: &str| -> Result<f64> {
        let start = Instant::now();
        let status = Command::new(env!("CARGO_BIN_EXE_lastlayer"))
            .current_dir(folder.path())
            .arg(verb)
            .args([
                &dataset,
                Path::new("--cache"),
                Path::new("cache"),
                Path::new("--backbone"),
                &backbone,
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        if !status.success() {
            return Err(format!("`lastlayer {verb}` ended with {status}").into());
        }
        Ok(start.elapsed().as_secs_f64())
    };
    run("extract")?;
    run("train-head")?;
    let times = (0..2 * task.rounds).map(|_| run("train-head")).collect::<Result<_>>()?;
    Ok((what, times))
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
