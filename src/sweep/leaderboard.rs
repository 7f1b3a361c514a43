//! Which of many trainings came out best, as a list that can be ranked and written.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::cross_validation::CrossValidation;
use crate::disk::write_atomically;
use crate::error::{Error, Result};

/// One training of a sweep.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Entry {
    /// Its place, counted from 1; `None` if it came to nothing.
    pub(crate) rank: Option<usize>,
    /// Its number in the sweep, counted from 0 in the order of the combinations.
    pub(crate) number: usize,
    /// The value of each axis it has, in the order of the axes.
    #[serde(serialize_with = "as_values")]
    pub(crate) settings: Vec<(String, String)>,
    /// What came of it.
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
    /// The head file, if it was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) head: Option<PathBuf>,
}

/// What came of a training.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// A head, validated on the validation pictures.
    Trained(Standing),
    /// A head of each fold, validated on what it had not seen.
    CrossValidated(CrossValidation),
    /// No head.
    Failed {
        /// Why.
        problem: String,
        /// Whether its loss or weights became infinite or NaN.
        #[serde(skip)]
        diverged: bool,
    },
    /// The sweep was stopped before its end.
    NotTrained,
}

/// How a head did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Standing {
    /// Share of the validation pictures it tells right, in `0..=1`.
    pub(crate) val_accuracy: f64,
    /// Its 95 % Wilson interval.
    pub(crate) val_accuracy_interval: [f64; 2],
    /// Mean cross-entropy in nats.
    pub(crate) val_loss: f64,
    /// The same with the temperature that is saved with the head; `None` where heads are not calibrated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) calibrated_val_loss: Option<f64>,
    /// The same of the training pictures.
    pub(crate) train_accuracy: f64,
    /// Mean cross-entropy in nats.
    pub(crate) train_loss: f64,
    /// The epoch the head is from, counted from 0.
    pub(crate) best_epoch: usize,
    /// How many epochs there were.
    pub(crate) epochs: usize,
    /// Whether it is the optimum; only of solvers that look for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) converged: Option<bool>,
}

impl Outcome {
    /// Accuracy and loss by which it is ranked: the loss of the head as it is saved, with its temperature, because without
    /// it a head that is too sure or too unsure of itself would be ranked by what a division mends.
    pub(crate) fn merit(&self) -> Option<(f64, f64)> {
        match self {
            Self::Trained(standing) => {
                let loss = standing.calibrated_val_loss.unwrap_or(standing.val_loss);
                Some((standing.val_accuracy, loss))
            }
            Self::CrossValidated(folds) => Some((folds.mean_accuracy, folds.mean_loss)),
            Self::Failed { .. } | Self::NotTrained => None,
        }
    }

    /// Whether a solver that looks for the optimum did not reach it.
    pub(crate) fn is_unconverged(&self) -> bool {
        match self {
            Self::Trained(standing) => standing.converged == Some(false),
            Self::CrossValidated(folds) => folds.unconverged_folds > 0,
            Self::Failed { .. } | Self::NotTrained => false,
        }
    }

    /// The better of two comes first: more accuracy, then less loss, any head before none, and what failed before what was
    /// not tried.
    pub(crate) fn compare(&self, other: &Self) -> Ordering {
        match (self.merit(), other.merit()) {
            (Some((accuracy, loss)), Some((other_accuracy, other_loss))) => {
                other_accuracy.total_cmp(&accuracy).then(loss.total_cmp(&other_loss))
            }
            (mine, theirs) => {
                let by_head = theirs.is_some().cmp(&mine.is_some());
                by_head.then((*self == Self::NotTrained).cmp(&(*other == Self::NotTrained)))
            }
        }
    }
}

/// All trainings of a sweep, the best first, those that came to nothing last.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Leaderboard {
    /// The names of all axes.
    pub(crate) axes: Vec<String>,
    /// Ranked.
    pub(crate) entries: Vec<Entry>,
}

impl Leaderboard {
    /// Ranks the trainings: by accuracy, then by loss, then in the order of the combinations.
    pub(crate) fn new(axes: Vec<String>, mut entries: Vec<Entry>) -> Self {
        entries.sort_by(|left, right| {
            left.outcome
                .compare(&right.outcome)
                .then(left.number.cmp(&right.number))
        });
        for (place, entry) in entries.iter_mut().enumerate() {
            entry.rank = entry.outcome.merit().map(|_| place + 1);
        }
        Self { axes, entries }
    }

    /// The best training, if any came to something.
    pub(crate) fn best(&self) -> Option<&Entry> {
        self.entries.first().filter(|entry| entry.rank.is_some())
    }

    /// How many came to what.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for entry in &self.entries {
            match &entry.outcome {
                Outcome::Trained(_) | Outcome::CrossValidated(_) => counts.trained += 1,
                Outcome::Failed { diverged: true, .. } => counts.diverged += 1,
                Outcome::Failed { .. } => counts.failed_otherwise += 1,
                Outcome::NotTrained => counts.not_trained += 1,
            }
        }
        counts
    }

    /// The axes of which the entries have different values.
    pub(crate) fn varying(&self) -> Vec<&str> {
        let differs = |axis: &str| {
            let mut values = self.entries.iter().map(|entry| entry.setting(axis));
            let first = values.next();
            values.any(|value| Some(value) != first)
        };
        self.axes
            .iter()
            .map(String::as_str)
            .filter(|axis| differs(axis))
            .collect()
    }

    /// Writes all of it as CSV or JSON, as the file's name ends.
    ///
    /// # Errors
    /// [`Error::Usage`] for another ending, [`Error::Io`] where it can't be written.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let bytes = match BoardFormat::of(path)? {
            BoardFormat::Csv => self.csv_text()?.into_bytes(),
            BoardFormat::Json => {
                let mut bytes = serde_json::to_vec_pretty(&self.entries).expect("entries are plain values");
                bytes.push(b'\n');
                bytes
            }
        };
        write_atomically(path, &[&bytes])
    }

    /// All of it as CSV.
    ///
    /// # Errors
    /// [`Error::Usage`] if it is no text, which cells never are.
    pub(crate) fn csv_text(&self) -> Result<String> {
        let bytes = self.csv().map_err(|error| error.to_string());
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).map_err(|error| error.to_string()));
        text.map_err(|problem| Error::Usage(format!("the leaderboard is no table: {problem}")))
    }

    /// One line for each entry: rank, axes, then what came of it.
    fn csv(&self) -> Result<Vec<u8>, csv::Error> {
        let rows: Vec<Map<String, Value>> = self.entries.iter().map(Entry::flat).collect();
        let folded = |entry: &Entry| matches!(entry.outcome, Outcome::CrossValidated(_));
        let columns = if self.entries.iter().any(folded) {
            FOLD_COLUMNS
        } else {
            HEAD_COLUMNS
        };
        let mut writer = csv::Writer::from_writer(Vec::new());
        let axes = self.axes.iter().map(String::as_str);
        writer.write_record(
            ["rank", "status"]
                .into_iter()
                .chain(axes)
                .chain(columns.iter().copied()),
        )?;
        for (entry, row) in self.entries.iter().zip(&rows) {
            let cell = |column: &str| row.get(column).map_or_else(String::new, text);
            let settings = self
                .axes
                .iter()
                .map(|axis| entry.setting(axis).unwrap_or("").to_owned());
            let cells = [cell("rank"), cell("status")].into_iter().chain(settings);
            writer.write_record(cells.chain(columns.iter().map(|column| cell(column))))?;
        }
        writer.into_inner().map_err(|error| error.into_error().into())
    }
}

/// How many trainings of a sweep came to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) trained: usize,
    pub(crate) diverged: usize,
    /// Those without a head whose loss did not diverge.
    pub(crate) failed_otherwise: usize,
    /// Those that the sweep did not come to.
    pub(crate) not_trained: usize,
}

impl Counts {
    /// All that came to nothing though they were tried.
    pub(crate) fn failed(self) -> usize {
        self.diverged + self.failed_otherwise
    }

    /// All that were asked for.
    pub(crate) fn all(self) -> usize {
        self.trained + self.failed() + self.not_trained
    }
}

const HEAD_COLUMNS: &[&str] = &[
    "val_accuracy",
    "val_accuracy_low",
    "val_accuracy_high",
    "val_loss",
    "calibrated_val_loss",
    "train_accuracy",
    "train_loss",
    "best_epoch",
    "epochs",
    "converged",
    "problem",
    "head",
];

const FOLD_COLUMNS: &[&str] = &[
    "mean_accuracy",
    "standard_error",
    "accuracy_low",
    "accuracy_high",
    "mean_loss",
    "fold_accuracy",
    "unconverged_folds",
    "problem",
    "head",
];

/// How a leaderboard is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BoardFormat {
    Csv,
    Json,
}

impl BoardFormat {
    /// The format that a file's name asks for.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("");
        match extension.to_ascii_lowercase().as_str() {
            "csv" => Ok(Self::Csv),
            "json" => Ok(Self::Json),
            _ => Err(Error::Usage(format!(
                "the leaderboard `{}` ends neither in .csv nor in .json",
                path.display()
            ))),
        }
    }
}

impl Entry {
    /// The value of an axis, if this training has it.
    pub(crate) fn setting(&self, axis: &str) -> Option<&str> {
        let found = self.settings.iter().find(|(name, _)| name == axis);
        found.map(|(_, value)| value.as_str())
    }

    /// What JSON says of it, with the ends of intervals as values of their own.
    fn flat(&self) -> Map<String, Value> {
        let Ok(Value::Object(mut row)) = serde_json::to_value(self) else {
            unreachable!("an entry is an object of plain values")
        };
        for (key, low, high) in [
            ("val_accuracy_interval", "val_accuracy_low", "val_accuracy_high"),
            ("accuracy_interval", "accuracy_low", "accuracy_high"),
        ] {
            if let Some(Value::Array(ends)) = row.remove(key) {
                for (name, end) in [low, high].into_iter().zip(ends) {
                    row.insert(name.to_owned(), end);
                }
            }
        }
        row
    }
}

/// A cell of CSV; lists are joined with spaces.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// An object of the settings, numbers and truth values as such.
fn as_values<S: Serializer>(settings: &[(String, String)], serializer: S) -> Result<S::Ok, S::Error> {
    let value = |text: &str| match serde_json::from_str(text) {
        Ok(value @ (Value::Number(_) | Value::Bool(_))) => value,
        _ => Value::String(text.to_owned()),
    };
    serializer.collect_map(settings.iter().map(|(name, text)| (name, value(text))))
}

#[cfg(test)]
#[path = "leaderboard_tests.rs"]
mod tests;
