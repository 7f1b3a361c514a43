//! Writing a run's folder: begun before the training, ended with its head.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::config::RunConfig;
use super::time::Utc;
use super::{CONFIG, DATA, HEAD, HISTORY, LEADERBOARD, METRICS, RUN, SPACE, history, tensorboard};
use crate::cache::FeatureSpace;
use crate::disk::create_folder;
use crate::error::{Error, Result};
use crate::features::DataFingerprint;
use crate::head::{HeadFile, Training};

/// The newest format of a run's folder that this version writes and the only one it reads.
pub(super) const FORMAT: u32 = 1;
/// Bytes of a name that go into the folder's.
const NAME_LENGTH: usize = 64;

/// `run.json`: what the folder is, and how far the run came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct RunInfo {
    pub(super) format: u32,
    pub(super) kind: RunKind,
    pub(super) status: Written,
    pub(super) name: String,
    /// RFC 3339, UTC; so `finished`.
    pub(super) created: String,
    pub(super) finished: Option<String>,
    pub(super) seconds: Option<f64>,
    /// Why it failed, or how far it came.
    pub(super) problem: Option<String>,
}

/// What a run trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunKind {
    /// One head.
    Head,
    /// Many heads, of which some are kept as runs in folders within.
    Sweep,
}

/// How far a run came, as its own process wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Written {
    Running,
    Complete,
    /// Stopped by its user before its end.
    Interrupted,
    Failed,
}

/// What a run depends on.
#[derive(Debug, Clone, Copy)]
pub struct RunInputs<'a> {
    /// What it was told.
    pub config: &'a RunConfig,
    /// The rows it uses.
    pub data: &'a DataFingerprint,
    /// The space their features lie in.
    pub space: &'a FeatureSpace,
}

/// A run's folder that is being written.
///
/// Until [`finish`](Self::finish) it is listed as unfinished; so is what a killed process leaves. Nothing here is forced
/// to the disk, as that would take longer than the training: after a power cut a run may be damaged, and is listed so.
#[derive(Debug)]
pub struct RunWriter {
    folder: PathBuf,
    began: SystemTime,
    info: RunInfo,
    data: Vec<u8>,
    space: String,
}

impl RunWriter {
    /// Begins the run of one head in a new folder `ROOT/YYYYMMDD-HHMMSS-NAME`, in UTC; `root` is created.
    ///
    /// What can't be part of a file's name is replaced in `name`. Two runs in one second never get the same folder: the
    /// second one's ends with `-2`.
    ///
    /// # Errors
    /// [`Error::Io`] when nothing can be written there, [`Error::Run`] when the configuration has a number that is not
    /// finite.
    pub fn create(root: &Path, name: &str, inputs: &RunInputs<'_>) -> Result<Self> {
        let began = SystemTime::now();
        Self::begin(root, &stamped(began, name), name, RunKind::Head, began, inputs)
    }

    /// Begins a sweep in a new folder; its heads are its [`child`](Self::child)ren.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_sweep(root: &Path, name: &str, inputs: &RunInputs<'_>) -> Result<Self> {
        let began = SystemTime::now();
        Self::begin(root, &stamped(began, name), name, RunKind::Sweep, began, inputs)
    }

    /// Begins the run of one of a sweep's heads in a folder `name` within the sweep's: on the same data, in the same space.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn child(&self, name: &str, config: &RunConfig) -> Result<Self> {
        let info = RunInfo {
            kind: RunKind::Head,
            name: name.to_owned(),
            ..self.info.clone()
        };
        let (data, space) = (self.data.clone(), self.space.clone());
        Self::begin_as(&self.folder, &file_name(name), info, self.began, config, data, space)
    }

    fn begin(
        root: &Path,
        folder_name: &str,
        name: &str,
        kind: RunKind,
        began: SystemTime,
        inputs: &RunInputs<'_>,
    ) -> Result<Self> {
        let info = RunInfo {
            format: FORMAT,
            kind,
            status: Written::Running,
            name: name.to_owned(),
            created: Utc::of(began).rfc3339(),
            finished: None,
            seconds: None,
            problem: None,
        };
        let data = pretty(&inputs.data);
        let space = inputs.space.json().to_owned();
        Self::begin_as(root, folder_name, info, began, inputs.config, data, space)
    }

    fn begin_as(
        root: &Path,
        folder_name: &str,
        info: RunInfo,
        began: SystemTime,
        config: &RunConfig,
        data: Vec<u8>,
        space: String,
    ) -> Result<Self> {
        let config = config.to_json().map_err(|problem| Error::Run {
            path: root.join(folder_name),
            problem,
        })?;
        create_folder(root)?;
        let folder = new_folder(root, folder_name)?;
        let writer = Self {
            folder,
            began,
            info,
            data,
            space,
        };
        let begun = writer.write_inputs(&config);
        if begun.is_err() {
            // Made a moment ago, and of no use to anybody.
            let _ = fs::remove_dir_all(&writer.folder);
        }
        begun.map(|()| writer)
    }

    fn write_inputs(&self, config: &str) -> Result<()> {
        self.write_info()?;
        self.write(CONFIG, config.as_bytes())?;
        self.write(DATA, &self.data)?;
        self.write(SPACE, self.space.as_bytes())
    }

    /// Writes the configuration anew, where only the end of a run tells all of it.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn replace_config(&self, config: &RunConfig) -> Result<()> {
        let json = config.to_json().map_err(|problem| Error::Run {
            path: self.folder.clone(),
            problem,
        })?;
        self.write(CONFIG, json.as_bytes())
    }

    /// Puts a file of this name beside those of the run.
    ///
    /// # Errors
    /// [`Error::Io`] when it can't be written.
    pub fn attach(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.write(name, bytes)
    }

    /// The run's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Ends the run with what came of it, and returns its folder.
    ///
    /// `metrics` is an object; what the training itself tells (`epochs`, `best_epoch` and the four numbers of the best
    /// epoch, `converged` and the like) is added where it is not in there.
    ///
    /// # Errors
    /// [`Error::Io`] when it can't be written; the folder then stays as an unfinished run.
    pub fn finish(self, training: &Training, metrics: &Value, head: &HeadFile) -> Result<PathBuf> {
        let ended = SystemTime::now();
        self.write(HISTORY, history::to_csv(&training.history).as_bytes())?;
        let events = format!("events.out.tfevents.{}.lastlayer", seconds(self.began));
        self.write(&events, &tensorboard::events(&training.history, self.began, ended))?;
        self.write(METRICS, &pretty(&with_training(training, metrics)))?;
        let bytes = head.to_bytes().map_err(|problem| Error::HeadFile {
            path: self.folder.join(HEAD),
            problem,
        })?;
        self.write(HEAD, &bytes)?;
        self.end(ended, Written::Complete, None)
    }

    /// Ends a sweep with its leaderboard, as a CSV table and as JSON, and returns its folder.
    ///
    /// `metrics` is an object; what a listing shows of the sweep (`val_accuracy` of its best head, for instance) is taken
    /// from there.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn finish_sweep(self, leaderboard_csv: &str, leaderboard: &Value, metrics: &Value) -> Result<PathBuf> {
        let ended = SystemTime::now();
        self.write_sweep(leaderboard_csv, leaderboard, metrics)?;
        self.end(ended, Written::Complete, None)
    }

    /// Ends a sweep that its user stopped, with what there is of it. `problem`: how far it came.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn interrupt_sweep(
        self,
        leaderboard_csv: &str,
        leaderboard: &Value,
        metrics: &Value,
        problem: &str,
    ) -> Result<PathBuf> {
        self.write_sweep(leaderboard_csv, leaderboard, metrics)?;
        self.interrupt(problem)
    }

    fn write_sweep(&self, leaderboard_csv: &str, leaderboard: &Value, metrics: &Value) -> Result<()> {
        self.write(&format!("{LEADERBOARD}.csv"), leaderboard_csv.as_bytes())?;
        self.write(&format!("{LEADERBOARD}.json"), &pretty(leaderboard))?;
        self.write(METRICS, &pretty(metrics))
    }

    /// Ends the run as one that its user stopped. `problem`: how far it came.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn interrupt(self, problem: &str) -> Result<PathBuf> {
        self.end(SystemTime::now(), Written::Interrupted, Some(problem.to_owned()))
    }

    /// Ends the run as one that failed, and says why.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn fail(self, problem: &str) -> Result<PathBuf> {
        self.end(SystemTime::now(), Written::Failed, Some(problem.to_owned()))
    }

    fn end(mut self, ended: SystemTime, status: Written, problem: Option<String>) -> Result<PathBuf> {
        self.info.status = status;
        self.info.finished = Some(Utc::of(ended).rfc3339());
        // A clock that was set back says nothing of how long it took.
        self.info.seconds = ended.duration_since(self.began).ok().map(|time| time.as_secs_f64());
        self.info.problem = problem;
        self.write_info()?;
        Ok(self.folder)
    }

    /// Replaces `run.json`, so that a reader sees the old one or the new one.
    fn write_info(&self) -> Result<()> {
        let (path, part) = (self.folder.join(RUN), self.folder.join(format!("{RUN}.part")));
        fs::write(&part, pretty(&self.info))
            .and_then(|()| fs::rename(&part, &path))
            .map_err(Error::io("write", &path))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, bytes).map_err(Error::io("write", &path))
    }
}

fn pretty(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("there are no keys but strings");
    bytes.push(b'\n');
    bytes
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// `metrics` with what the training tells.
fn with_training(training: &Training, metrics: &Value) -> Value {
    let best = training.best();
    let told = json!({
        "epochs": training.history.len(),
        "best_epoch": training.best_epoch,
        "val_accuracy": best.val_accuracy,
        "val_loss": best.val_loss,
        "train_accuracy": best.train_accuracy,
        "train_loss": best.train_loss,
    });
    let convergence = training.convergence.as_ref().map(|convergence| json!(convergence));
    let mut all = match metrics {
        Value::Object(fields) => fields.clone(),
        Value::Null => Map::new(),
        other => Map::from_iter([("report".to_owned(), other.clone())]),
    };
    let told = [Some(told), convergence].into_iter().flatten();
    for (name, value) in told.filter_map(|told| told.as_object().cloned()).flatten() {
        all.entry(name).or_insert(value);
    }
    Value::Object(all)
}

fn stamped(time: SystemTime, name: &str) -> String {
    format!("{}-{}", Utc::of(time).compact(), file_name(name))
}

/// `name` as a part of a path that every file system takes.
fn file_name(name: &str) -> String {
    let mut clean = String::new();
    for character in name.chars() {
        let is_plain = character.is_alphanumeric() || "-_.+=,".contains(character);
        let character = if is_plain { character } else { '-' };
        if clean.len() + character.len_utf8() > NAME_LENGTH {
            break;
        }
        clean.push(character);
    }
    // Windows drops dots at the end, and a leading one hides.
    let clean = clean.trim_matches(['.', '-']);
    if clean.is_empty() { "run" } else { clean }.to_owned()
}

/// Creates a folder that was not there: `name`, or with the lowest number from 2 that is free.
fn new_folder(root: &Path, name: &str) -> Result<PathBuf> {
    let mut number = 1;
    loop {
        let folder = root.join(match number {
            1 => name.to_owned(),
            number => format!("{name}-{number}"),
        });
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == ErrorKind::AlreadyExists && number < 100_000 => number += 1,
            Err(error) => return Err(Error::io("create", &folder)(error)),
        }
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
