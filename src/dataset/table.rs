//! Tables of pictures: CSV, TSV, JSON Lines and Parquet files, and plain lists of paths.
//!
//! A table says for each picture where it lies and, if it has such columns, its label and its split. Nothing is opened
//! or looked for here: what the paths are relative to and which labels become which class is left to whoever asks.
//! Tables come from anywhere, so hostile bytes give errors: a line may have [`RECORD_LIMIT`] bytes, a path
//! [`PATH_LIMIT`], a label [`LABEL_LIMIT`], equal labels are kept once, and what a Parquet file claims is checked before
//! memory is taken for it (`pages`).

mod columns;
mod rows;
mod text;

#[cfg(feature = "parquet")]
mod pages;
#[cfg(feature = "parquet")]
mod parquet;

#[cfg(test)]
#[path = "table/tests.rs"]
mod tests;

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use columns::TableColumns;
pub(crate) use text::number_text;

use super::Split;
use crate::error::{Error, Result};

/// The longest line of a list or of JSON Lines, in bytes.
const RECORD_LIMIT: usize = 16 << 20;
/// The longest path, in bytes; Windows allows 32,767 characters, Linux 4,096 bytes.
const PATH_LIMIT: usize = 128 << 10;
/// The longest label, in bytes.
const LABEL_LIMIT: usize = 4 << 10;
/// How much of a file without a telling extension is looked at to find out what it is.
const SNIFF_BYTES: u64 = 64 << 10;

/// What a table says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Table {
    /// The pictures in the table's order, each path once.
    pub(crate) rows: Vec<TableRow>,
    /// Things a careful person would want to know, one line each.
    pub(crate) warnings: Vec<String>,
}

/// One picture of a [`Table`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableRow {
    /// The path as it is written there; on Unix its bytes need not be UTF-8.
    pub(crate) path: PathBuf,
    /// The label as text; equal labels share their memory. `None` where it is empty, null, or there is no such column.
    pub(crate) label: Option<Arc<str>>,
    /// The split, where the table names one.
    pub(crate) split: Option<Split>,
    /// The line of the file where the row begins, from 1; of a Parquet file the row, from 1.
    pub(crate) line: u64,
}

/// The kinds of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TableFormat {
    /// Comma-separated values with a header line.
    Csv,
    /// The same with tabs.
    Tsv,
    /// One JSON object a line.
    JsonLines,
    /// Parquet.
    Parquet,
}

impl TableFormat {
    /// The format of `file`: by its extension, of other files by how they begin. `None` for anything else.
    pub(crate) fn of(file: &Path) -> Option<Self> {
        let extension = file.extension().and_then(|extension| extension.to_str());
        match extension.map(str::to_ascii_lowercase).as_deref() {
            Some("csv") => Some(Self::Csv),
            Some("tsv") => Some(Self::Tsv),
            Some("jsonl" | "ndjson") => Some(Self::JsonLines),
            Some("parquet") => Some(Self::Parquet),
            // No pipe is read here: what was taken from it would be gone.
            _ if file.is_file() => {
                let mut start = Vec::new();
                let file = File::open(file).ok()?;
                file.take(SNIFF_BYTES).read_to_end(&mut start).ok()?;
                Self::sniff(&start)
            }
            _ => None,
        }
    }

    /// The format that the first bytes of a file show beyond doubt.
    pub(crate) fn sniff(start: &[u8]) -> Option<Self> {
        if start.starts_with(b"PAR1") {
            return Some(Self::Parquet);
        }
        let start = start.strip_prefix(text::BOM).unwrap_or(start);
        let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
        if serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(line).is_ok() {
            return Some(Self::JsonLines);
        }
        let header = std::str::from_utf8(line).ok()?.trim_end_matches('\r');
        [('\t', Self::Tsv), (',', Self::Csv)]
            .into_iter()
            .find(|(delimiter, _)| {
                let mut names = header.split(*delimiter).map(|name| name.trim_matches('"'));
                header.contains(*delimiter) && names.any(columns::is_usual_path_name)
            })
            .map(|(_, format)| format)
    }
}

/// Whether what should be a list begins as a table does. A label may be called as a column is, a list's first path not.
pub(crate) fn begins_a_table(start: &[u8]) -> bool {
    match TableFormat::sniff(start) {
        Some(TableFormat::Tsv) => {
            let start = start.strip_prefix(text::BOM).unwrap_or(start);
            let first = start.split(|byte| *byte == b'\t').next().unwrap_or_default();
            columns::is_usual_path_name(&String::from_utf8_lossy(first))
        }
        format => format.is_some(),
    }
}

/// Whether `path` is a file that [`read_table`] takes.
pub(crate) fn is_table(path: &Path) -> bool {
    path.is_file() && TableFormat::of(path).is_some()
}

/// Reads the table `file`.
///
/// # Errors
/// [`Error::TableColumns`] when there is no column of paths, several could be it, or a named column is absent;
/// [`Error::Table`] when a row is not what it should be, or the file no table; [`Error::Io`] when it can't be read.
pub(crate) fn read_table(file: &Path, columns: &TableColumns) -> Result<Table> {
    let format = TableFormat::of(file).ok_or_else(|| Error::Table {
        path: file.to_path_buf(),
        place: None,
        problem: "is no table that can be read".to_owned(),
        hint: "name a .csv, .tsv, .jsonl or .parquet file".to_owned(),
    })?;
    let opened = File::open(file).map_err(Error::io("read", file))?;
    match format {
        TableFormat::Parquet => parquet_table(file, opened, columns),
        format => read_text(file, format, &mut BufReader::with_capacity(1 << 16, opened), columns),
    }
}

/// Reads a table of any format from memory; `file` is its name in messages.
///
/// # Errors
/// As [`read_table`].
pub(crate) fn read_table_bytes(
    file: &Path,
    format: TableFormat,
    bytes: &[u8],
    columns: &TableColumns,
) -> Result<Table> {
    match format {
        #[cfg(feature = "parquet")]
        TableFormat::Parquet => parquet::read(file, bytes::Bytes::copy_from_slice(bytes), columns),
        #[cfg(not(feature = "parquet"))]
        TableFormat::Parquet => Err(no_parquet(file)),
        format => read_text(file, format, &mut &*bytes, columns),
    }
}

/// Reads a list of paths: `path`, `path<TAB>label` or `path<TAB>label<TAB>split` a line; empty lines are skipped.
///
/// Where the input has NUL bytes in its first 64 KiB, these separate the entries instead of newlines, as
/// `find -print0` writes them. `name` is the input's name in messages.
///
/// # Errors
/// [`Error::Table`] when a line is not what it should be, [`Error::Io`] when reading fails.
pub(crate) fn read_list(name: &Path, input: &mut dyn BufRead) -> Result<Table> {
    text::read_list(name, input)
}

fn read_text(file: &Path, format: TableFormat, input: &mut dyn BufRead, columns: &TableColumns) -> Result<Table> {
    match format {
        TableFormat::Tsv => text::read_delimited(file, input, b'\t', columns),
        TableFormat::JsonLines => text::read_json_lines(file, input, columns),
        _ => text::read_delimited(file, input, b',', columns),
    }
}

#[cfg(feature = "parquet")]
fn parquet_table(path: &Path, file: File, columns: &TableColumns) -> Result<Table> {
    parquet::read(path, file, columns)
}

#[cfg(not(feature = "parquet"))]
fn parquet_table(path: &Path, _file: File, _columns: &TableColumns) -> Result<Table> {
    Err(no_parquet(path))
}

#[cfg(not(feature = "parquet"))]
fn no_parquet(path: &Path) -> Error {
    Error::Table {
        path: path.to_path_buf(),
        place: None,
        problem: "is a Parquet file, and this build of lastlayer reads none".to_owned(),
        hint: "build it with its default features (`cargo install lastlayer`), or save the table as CSV".to_owned(),
    }
}
