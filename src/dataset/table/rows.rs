//! Collects the rows of a table: checks each, keeps each path once, and says of what was wrong where it was.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::HashTable;

use super::columns::shortened;
use super::{LABEL_LIMIT, PATH_LIMIT, Split, Table, TableRow};
use crate::error::{Error, Result};

/// The rows read so far.
pub(super) struct Rows<'a> {
    file: &'a Path,
    /// What a row's number counts: `line` or `row`.
    unit: &'static str,
    rows: Vec<TableRow>,
    labels: HashSet<Arc<str>>,
    /// Positions in `rows`, by path; the paths are not kept twice.
    by_path: HashTable<usize>,
    hasher: RandomState,
    repeated: u64,
    example: Option<(usize, u64)>,
    /// Bytes that the paths may take together.
    room: u64,
}

impl<'a> Rows<'a> {
    pub(super) fn new(file: &'a Path, unit: &'static str) -> Self {
        Self {
            file,
            unit,
            rows: Vec::new(),
            labels: HashSet::new(),
            by_path: HashTable::new(),
            hasher: RandomState::new(),
            repeated: 0,
            example: None,
            room: u64::MAX,
        }
    }

    /// Refuses paths of more than `room` bytes together.
    #[cfg(feature = "parquet")]
    pub(super) fn with_room(mut self, room: u64) -> Self {
        self.room = room;
        self
    }

    /// An error about the row at `line`.
    pub(super) fn error(&self, line: u64, problem: impl Into<String>, hint: impl Into<String>) -> Error {
        Error::Table {
            path: self.file.to_path_buf(),
            place: Some(format!("{} {line}", self.unit)),
            problem: problem.into(),
            hint: hint.into(),
        }
    }

    /// Takes one row; empty labels and split words are none.
    pub(super) fn push(&mut self, line: u64, path: &[u8], label: Option<&str>, split: Option<&str>) -> Result<()> {
        if path.is_empty() {
            return Err(self.error(line, "the path is empty", "fill it in or remove the row"));
        }
        if path.len() > PATH_LIMIT {
            let problem = format!("the path has {} bytes, more than any system allows", path.len());
            return Err(self.error(line, problem, "check that the right column is read, and its quotes"));
        }
        let label = label.map(str::trim).filter(|label| !label.is_empty());
        if let Some(label) = label.filter(|label| label.len() > LABEL_LIMIT) {
            let problem = format!("the label has {} bytes; at most {LABEL_LIMIT} are taken", label.len());
            return Err(self.error(line, problem, "check that the right column is read, and its quotes"));
        }
        let split = self.split(line, split)?;
        let path = self.path(line, path)?;
        let hash = self.hasher.hash_one(path.as_os_str());
        let (rows, hasher) = (&self.rows, &self.hasher);
        let known = self
            .by_path
            .find(hash, |index| rows[*index].path.as_os_str() == path.as_os_str());
        if let Some(&first) = known {
            return self.repeat(line, first, label, split);
        }
        self.room = self
            .room
            .checked_sub(path.as_os_str().len() as u64)
            .ok_or_else(|| Error::Table {
                path: self.file.to_path_buf(),
                place: None,
                problem: "expands to far more than a table of its size can hold".to_owned(),
                hint: "save it as CSV if it is right".to_owned(),
            })?;
        self.by_path
            .insert_unique(hash, rows.len(), |index| hasher.hash_one(rows[*index].path.as_os_str()));
        let label = label.map(|label| self.shared(label));
        self.rows.push(TableRow {
            path,
            label,
            split,
            line,
        });
        Ok(())
    }

    /// The rows, and what there is to say about them.
    pub(super) fn finish(self) -> Table {
        let mut warnings = Vec::new();
        if let Some((first, line)) = self.example {
            let TableRow {
                path, line: earlier, ..
            } = &self.rows[first];
            let rows = match self.repeated {
                1 => "1 row repeats a path that came before and is left out".to_owned(),
                count => format!("{count} rows repeat paths that came before and are left out"),
            };
            warnings.push(format!(
                "{rows}, for instance {} in {unit} {line}, which is in {unit} {earlier} already",
                shortened(&path.to_string_lossy()),
                unit = self.unit,
            ));
        }
        Table {
            rows: self.rows,
            warnings,
        }
    }

    /// Takes note of a path that is there already, and may say the same again only.
    fn repeat(&mut self, line: u64, first: usize, label: Option<&str>, split: Option<Split>) -> Result<()> {
        let row = &self.rows[first];
        let path = shortened(&row.path.to_string_lossy());
        let (unit, earlier) = (self.unit, row.line);
        let differing = if row.label.as_deref() == label {
            (row.split != split).then(|| {
                let words = [row.split, split]
                    .map(|split| split.map_or_else(|| "no split".to_owned(), |split| split.name().to_owned()));
                ("split", words)
            })
        } else {
            let words =
                [row.label.as_deref(), label].map(|label| label.map_or_else(|| "no label".to_owned(), shortened));
            Some(("label", words))
        };
        if let Some((what, [before, now])) = differing {
            let problem = format!("{path} has {now}, but {before} in {unit} {earlier}");
            return Err(self.error(line, problem, format!("give each picture one {what}, in one row")));
        }
        self.repeated += 1;
        self.example.get_or_insert((first, line));
        Ok(())
    }

    fn split(&self, line: u64, word: Option<&str>) -> Result<Option<Split>> {
        let Some(word) = word.map(str::trim).filter(|word| !word.is_empty()) else {
            return Ok(None);
        };
        Split::from_name(word).map(Some).ok_or_else(|| {
            let problem = format!("{} is no split", shortened(word));
            self.error(line, problem, "a split is `train`, `val` or `test`, or empty")
        })
    }

    /// One copy of each label.
    fn shared(&mut self, label: &str) -> Arc<str> {
        if let Some(known) = self.labels.get(label) {
            return Arc::clone(known);
        }
        let label: Arc<str> = label.into();
        self.labels.insert(Arc::clone(&label));
        label
    }

    #[cfg(unix)]
    #[expect(clippy::unnecessary_wraps, reason = "other systems know bytes that are no path")]
    fn path(&self, _line: u64, bytes: &[u8]) -> Result<PathBuf> {
        use std::os::unix::ffi::OsStrExt;
        Ok(PathBuf::from(std::ffi::OsStr::from_bytes(bytes)))
    }

    #[cfg(not(unix))]
    fn path(&self, line: u64, bytes: &[u8]) -> Result<PathBuf> {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| self.error(line, "the path is not in UTF-8", "save the table in UTF-8"))?;
        Ok(PathBuf::from(text))
    }
}
