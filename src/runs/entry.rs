//! Reading a run's folder, whatever is in it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::config::RunConfig;
use super::options::options_of;
use super::validation::{Validation, validated_on};
use super::writer::{FORMAT, RunInfo, RunKind, Written};
use super::{CONFIG, DATA, HEAD, HISTORY, METRICS, RUN, SPACE, history};
use crate::cache::FeatureSpace;
use crate::error::{Error, Result};
use crate::features::DataFingerprint;
use crate::head::EpochRecord;

/// No file of a run but its head and its leaderboard is as long.
const SIZE_LIMIT: u64 = 64 << 20;

/// Changes of the data that an error lists.
const MOST_CHANGES: usize = 10;

/// The fields of a record that are read from files.
const FIELDS: [&str; 17] = [
    "name",
    "created",
    "finished",
    "seconds",
    "dataset",
    "solver",
    "val_accuracy",
    "val_accuracy_interval",
    "val_loss",
    "standard_error",
    "folds",
    "repeats",
    "metrics",
    "options",
    "config",
    "data",
    "space",
];

/// How far a run came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// All is there.
    Complete,
    /// It is still going on, or was stopped from without.
    Unfinished,
    /// Its user stopped it: what is there is whole, but it is not all that was asked for.
    Interrupted,
    /// It ended with an error.
    Failed,
    /// A file is missing or not what it should be.
    Damaged,
    /// The folder is no run's.
    Foreign,
}

impl RunState {
    /// The word that is printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Unfinished => "unfinished",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
            Self::Damaged => "damaged",
            Self::Foreign => "foreign",
        }
    }
}

/// A folder among the runs, as far as it can be read.
#[derive(Debug, Clone)]
pub struct Run {
    /// The folder.
    pub folder: PathBuf,
    /// What it is called: the folder's name; of a sweep's head the sweep's, a slash, and its own.
    pub id: String,
    /// How far it came.
    pub state: RunState,
    /// What trained it; `None` where that can't be read.
    pub kind: Option<RunKind>,
    /// All that is known of it as one JSON object: `id`, `path`, `state`, `kind`, `problem`, `name`, `created`, `finished`,
    /// `seconds`, `dataset`, `solver`, what it is worth (`val_accuracy`, `val_accuracy_interval`, `val_loss`; of a
    /// cross-validation the means over its folds, with `standard_error`, `folds` and `repeats`), `metrics`, `options` (the configuration in the names of the command line), `config`, `data`
    /// (`id`, `rows`, `classes`, `validated_on`), `space` (`id`, `description`). Runs that differ in `validated_on` were
    /// judged on other pictures or folds, and can't be compared by their accuracy.
    pub record: Value,
}

impl Run {
    /// Reads the run in `folder`, which is called `id`; what can't be read is in the state.
    #[must_use]
    pub fn read(folder: &Path, id: &str) -> Self {
        let mut record = Map::new();
        let read = read_json::<Value>(folder, RUN).and_then(|value| Ok((info(&value)?, value)));
        let (state, kind, problem) = match read {
            Err(_) if !folder.join(RUN).exists() => (RunState::Foreign, None, Some(format!("it has no `{RUN}`"))),
            Err(problem) => (RunState::Damaged, None, Some(problem)),
            Ok((info, value)) => {
                for name in ["name", "created", "finished", "seconds"] {
                    record.insert(name.to_owned(), value[name].clone());
                }
                let rest = read_rest(folder, &info, &mut record);
                let (state, problem) = match (info.status, rest) {
                    (Written::Running, _) => (RunState::Unfinished, None),
                    (Written::Interrupted, _) => (RunState::Interrupted, info.problem),
                    (Written::Failed, _) => (RunState::Failed, info.problem),
                    (Written::Complete, Ok(())) => (RunState::Complete, None),
                    (Written::Complete, Err(problem)) => (RunState::Damaged, Some(problem)),
                };
                (state, Some(info.kind), problem)
            }
        };
        // The short ones first, for whoever reads them.
        let mut whole = Map::from_iter([
            ("id".to_owned(), json!(id)),
            ("path".to_owned(), json!(folder.to_string_lossy())),
            ("state".to_owned(), json!(state)),
            ("kind".to_owned(), json!(kind)),
            ("problem".to_owned(), json!(problem)),
        ]);
        for name in FIELDS {
            whole.insert(name.to_owned(), record.remove(name).unwrap_or_default());
        }
        Self {
            folder: folder.to_path_buf(),
            id: id.to_owned(),
            state,
            kind,
            record: Value::Object(whole),
        }
    }

    /// Whether it is a run that came to an end, well or not: what it was and what came of it is known. Folders that are no
    /// run's, runs of a newer version, and those that are going on or were stopped from without are none.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        self.kind.is_some() && self.state != RunState::Unfinished
    }

    /// What is wrong with it, or why it failed.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        self.record["problem"].as_str()
    }

    /// The configuration, to run it again.
    ///
    /// # Errors
    /// [`Error::Run`] when it is missing, damaged, or has what this version does not know.
    pub fn config(&self) -> Result<RunConfig> {
        read_json(&self.folder, CONFIG).map_err(|problem| self.error(problem))
    }

    /// The rows it was trained and validated on.
    ///
    /// # Errors
    /// [`Error::Run`] when it is missing or damaged.
    pub fn data(&self) -> Result<DataFingerprint> {
        read_json(&self.folder, DATA).map_err(|problem| self.error(problem))
    }

    /// The space of its features.
    ///
    /// # Errors
    /// [`Error::Run`] when it is missing.
    pub fn space(&self) -> Result<FeatureSpace> {
        let json = read_text(&self.folder, SPACE).map_err(|problem| self.error(problem))?;
        Ok(FeatureSpace::from_json(json))
    }

    /// Its epochs.
    ///
    /// # Errors
    /// [`Error::Run`] when they are missing or damaged, as those of a sweep are.
    pub fn history(&self) -> Result<Vec<EpochRecord>> {
        let text = read_text(&self.folder, HISTORY).map_err(|problem| self.error(problem))?;
        history::parse_csv(&text).ok_or_else(|| self.error(format!("`{HISTORY}` is damaged")))
    }

    /// The file of its head.
    #[must_use]
    pub fn head(&self) -> PathBuf {
        self.folder.join(HEAD)
    }

    /// Makes sure that a repetition uses the data of this run.
    ///
    /// # Errors
    /// [`Error::DataChanged`] when `now` is not what the run was trained on, with what is different.
    pub fn check_data(&self, now: &DataFingerprint) -> Result<()> {
        let mut changes = now.changes_since(&self.data()?);
        if changes.is_empty() {
            return Ok(());
        }
        let more = changes.len().saturating_sub(MOST_CHANGES);
        if more > 0 {
            changes.truncate(MOST_CHANGES);
            changes.push(format!("and {more} more"));
        }
        Err(Error::DataChanged {
            run: self.folder.clone(),
            changes,
        })
    }

    fn error(&self, problem: String) -> Error {
        Error::Run {
            path: self.folder.clone(),
            problem,
        }
    }
}

/// Reads what is beside `run.json` into `record`; all of it, whatever of it is damaged.
fn read_rest(folder: &Path, info: &RunInfo, record: &mut Map<String, Value>) -> Result<(), String> {
    let mut result = Ok(());
    let mut keep = |name: &str, value: Result<Value, String>| match value {
        Ok(value) => drop(record.insert(name.to_owned(), value)),
        Err(problem) => result = Err(problem),
    };
    let config = read_json::<Value>(folder, CONFIG);
    // That of another version may have what this one does not know: it is listed all the same.
    let known = config
        .as_ref()
        .ok()
        .and_then(|config| RunConfig::deserialize(config).ok());
    if let Some(known) = &known {
        keep("dataset", Ok(json!(known.dataset.named.to_string_lossy())));
        keep("solver", Ok(json!(known.recipe.solver.name())));
    }
    let (known_config, metrics) = (config.clone().unwrap_or_default(), read_json::<Value>(folder, METRICS));
    let validation = Validation::of(metrics.as_ref().unwrap_or(&Value::Null), &known_config);
    for (name, value) in json!(validation).as_object().into_iter().flatten() {
        keep(name, Ok(value.clone()));
    }
    keep("config", config);
    keep("metrics", metrics);
    let data = read_json::<DataFingerprint>(folder, DATA);
    if let Some(known) = &known {
        let classes = data.as_ref().map_or(&[][..], |data| &data.classes);
        keep("options", Ok(options_of(known, classes)));
    }
    let data = data.map(|data| {
        let validated_on = validated_on(&data, &known_config, folder);
        json!({"id": data.id, "rows": data.rows, "classes": data.classes, "validated_on": validated_on})
    });
    keep("data", data);
    let space = read_text(folder, SPACE).and_then(|text| {
        let description: Value = parse_json(&text, SPACE)?;
        Ok(json!({"id": FeatureSpace::from_json(text).id().to_string(), "description": description}))
    });
    keep("space", space);
    if info.kind == RunKind::Head && !folder.join(HEAD).is_file() {
        result = Err(format!("`{HEAD}` is missing"));
    }
    result
}

fn info(value: &Value) -> Result<RunInfo, String> {
    match value["format"].as_u64() {
        Some(format) if format > u64::from(FORMAT) => Err("it was written by a newer version of lastlayer".to_owned()),
        _ => serde_json::from_value(value.clone()).map_err(|error| format!("`{RUN}` is damaged: {error}")),
    }
}

fn read_json<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<T, String> {
    parse_json(&read_text(folder, name)?, name)
}

fn parse_json<T: DeserializeOwned>(text: &str, name: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| format!("`{name}` can't be used: {error}"))
}

fn read_text(folder: &Path, name: &str) -> Result<String, String> {
    let (path, mut text) = (folder.join(name), String::new());
    // To open a pipe would be to wait for whoever writes into it.
    if path.exists() && !path.is_file() {
        return Err(format!("`{name}` is no file"));
    }
    let read = File::open(path).and_then(|file| file.take(SIZE_LIMIT).read_to_string(&mut text));
    match read {
        Ok(length) if length as u64 == SIZE_LIMIT => Err(format!("`{name}` is larger than 64 MiB")),
        Ok(_) => Ok(text),
        Err(error) => Err(format!("`{name}` can't be read: {error}")),
    }
}
