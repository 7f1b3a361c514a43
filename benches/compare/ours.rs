//! lastlayer by its command line, as a user runs it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::process::{self, Ran};
use super::turns::Sample;
use super::{Result, Task};

/// Features of a data set's pictures and which they are, to compare others' with.
pub(crate) struct Reference {
    folder: TempDir,
    pub(crate) pictures: usize,
}

impl Reference {
    /// Lets lastlayer make them the way torchvision does: as the pixels are stored.
    pub(crate) fn of(task: &Task, dataset: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let cache = folder.path().join("cache");
        let report = run(task, "extract", dataset, &cache, &["--exif", "ignore"])?.json()?;
        let prefix = folder.path().join("features");
        let mut export = program(task, &cache);
        export
            .args(["cache", "export"])
            .arg(dataset)
            .args(["--format", "npy", "-o"])
            .arg(&prefix);
        process::run(&mut export)?;
        Ok(Self {
            pictures: count(&report, "images")?,
            folder,
        })
    }

    pub(crate) fn features(&self) -> PathBuf {
        self.folder.path().join("features.npy")
    }

    pub(crate) fn pictures(&self) -> PathBuf {
        self.folder.path().join("features.csv")
    }
}

/// The program with the options that all runs have.
fn program(task: &Task, cache: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lastlayer"));
    command.args(["--quiet", "--device", "cpu", "--threads", &task.threads.to_string()]);
    command.arg("--cache").arg(cache);
    command
}

fn run(task: &Task, verb: &str, dataset: &Path, cache: &Path, options: &[&str]) -> Result<Ran> {
    let mut command = program(task, cache);
    command.arg(verb).arg(dataset).arg("--json").args(options);
    process::run(command.arg("--backbone").arg(&task.backbone)).map_err(|problem| {
        let unknown = ["unexpected argument", "invalid value"];
        match unknown.iter().any(|text| problem.to_string().contains(text)) {
            true => format!("this build has no `{}`", options.join(" ")).into(),
            false => problem,
        }
    })
}

fn count(report: &Value, key: &str) -> Result<usize> {
    let count = report[key]
        .as_u64()
        .ok_or_else(|| format!("`{key}` is missing in {report}"))?;
    Ok(usize::try_from(count)?)
}

/// All of `extract` into a fresh cache.
pub(crate) fn extract(task: &Task, dataset: &Path, options: &[&str]) -> Result<Sample> {
    extract_into(task, dataset, options, &tempfile::tempdir()?)
}

/// A backbone that was quantised for a data set, which is done once and kept.
pub(crate) struct Int8 {
    cache: TempDir,
}

impl Int8 {
    const OPTIONS: [&'static str; 2] = ["--precision", "int8"];
    /// Where a cache keeps it.
    const MODELS: &'static str = "models";

    pub(crate) fn quantize(task: &Task, dataset: &Path) -> Result<Self> {
        let cache = tempfile::tempdir()?;
        extract_into(task, dataset, &Self::OPTIONS, &cache)?;
        Ok(Self { cache })
    }

    /// All of `extract` into a cache in which there is nothing but the quantised backbone.
    pub(crate) fn extract(&self, task: &Task, dataset: &Path) -> Result<Sample> {
        let cache = tempfile::tempdir()?;
        let (from, to) = (self.cache.path().join(Self::MODELS), cache.path().join(Self::MODELS));
        std::fs::create_dir(&to)?;
        for entry in std::fs::read_dir(from)? {
            let entry = entry?;
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
        extract_into(task, dataset, &Self::OPTIONS, &cache)
    }
}

fn extract_into(task: &Task, dataset: &Path, options: &[&str], cache: &TempDir) -> Result<Sample> {
    let ran = run(task, "extract", dataset, cache.path(), options)?;
    let report = ran.json()?;
    if count(&report, "failed")? > 0 {
        return Err(format!("pictures failed: {}", report["failures"]).into());
    }
    Ok(Sample {
        own: report["images_per_second"].as_f64().ok_or("it does not say its rate")?,
        whole: Some(count(&report, "images")? as f64 / ran.seconds),
        peak: ran.peak,
        report,
    })
}

/// A head and nothing in the cache: what `predict` finds at its first run.
pub(crate) struct Head {
    folder: TempDir,
}

impl Head {
    /// Trains one with the defaults.
    pub(crate) fn train(task: &Task, dataset: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let cache = folder.path().join("cache");
        run(task, "extract", dataset, &cache, &[])?;
        let head = folder.path().join("head.safetensors");
        let head_name = head.to_str().ok_or("the temporary folder's name is no text")?;
        run(task, "train-head", dataset, &cache, &["--no-run", "-o", head_name])?;
        Ok(Self { folder })
    }

    fn command(&self, task: &Task, what: &Path, cache: &Path) -> Command {
        let mut command = program(task, cache);
        command
            .args(["predict", "--json", "--head"])
            .arg(self.folder.path().join("head.safetensors"));
        command.arg("--backbone").arg(&task.backbone).arg(what);
        command
    }

    /// A folder of pictures as a whole process; it has no timer of its own.
    pub(crate) fn predict(&self, task: &Task, folder: &Path) -> Result<Sample> {
        let cache = tempfile::tempdir()?;
        let ran = process::run(&mut self.command(task, folder, cache.path()))?;
        let pictures = ran
            .output
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .count();
        let rate = pictures as f64 / ran.seconds;
        Ok(Sample {
            own: rate,
            whole: Some(rate),
            peak: ran.peak,
            report: Value::Null,
        })
    }

    /// The seconds of one picture as a whole process.
    pub(crate) fn predict_one(&self, task: &Task, picture: &Path) -> Result<f64> {
        let cache = tempfile::tempdir()?;
        process::time(&mut self.command(task, picture, cache.path()))
    }
}

/// What `doctor` knows of ONNX Runtime.
pub(crate) fn runtime_version(task: &Task) -> String {
    let folder = std::env::temp_dir();
    let report = process::run(program(task, &folder).args(["doctor", "--json"])).and_then(|ran| ran.json());
    let version = report
        .ok()
        .and_then(|report| Some(report["runtime"]["version"].as_str()?.to_owned()));
    version.unwrap_or_else(|| "?".to_owned())
}
