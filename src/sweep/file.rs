//! A sweep from a TOML file.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::spec::{self, Axis, Grid, Origin, SweepSpec};
use crate::error::{Error, Result};

/// How an axis can be written in a file, for hints.
const NOTATION: &str = "an axis is `name = VALUE`, an array of values, or a string as behind `--sweep`: `lr = [0.1, 0.01]`, \
                        `seed = \"0..4\"`, `lr = \"1e-4..1e-1:log8\"`; a table is a grid of its own";

impl SweepSpec {
    /// Reads a sweep file: each key is an axis; its value is a value, an array of values and ranges, or a string in the
    /// notation of [`SweepSpec::parse`].
    ///
    /// Tables (`[name]`, `[[name]]`) are grids of which the sweep is the union. What stands above them belongs to each, unless
    /// it has an axis of that name itself. Axes and grids count in the order of the file.
    ///
    /// # Errors
    /// [`Error::Io`] where the file can't be read, [`Error::Sweep`] where it is no sweep.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        Self::parse_toml(text, path).map_err(|error| error.in_sweep_file(path, None))
    }

    fn parse_toml(text: &str, path: &Path) -> Result<Self> {
        let file = SweepFile { path, text };
        let document = DeTable::parse(text).map_err(|error| {
            let problem = format!("is not TOML: {}", error.message());
            let line = error.span().map(|span| file.line(span.start));
            spec::error(None, problem, NOTATION).in_sweep_file(path, line)
        })?;
        let mut spec = Self::default();
        let mut shared = Vec::new();
        let mut tables = Vec::new();
        for (place, name, value) in in_order(document.get_ref()) {
            match value {
                DeValue::Table(table) => tables.push(table),
                DeValue::Array(array) if array.iter().any(|item| item.get_ref().is_table()) => {
                    for item in array {
                        let table = item.get_ref().as_table();
                        tables.push(table.ok_or_else(|| {
                            not_a_value(name, "an array of tables and of values")
                                .in_sweep_file(path, Some(file.line(item.span().start)))
                        })?);
                    }
                }
                value => shared.push(file.axis(&mut spec, place, name, value)?),
            }
        }
        for table in &tables {
            let mut own = Vec::new();
            for (place, name, value) in in_order(table) {
                own.push(file.axis(&mut spec, place, name, value)?);
            }
            let mut axes: Vec<Axis> = shared
                .iter()
                .filter(|axis| own.iter().all(|other| other.name != axis.name))
                .cloned()
                .collect();
            axes.extend(own);
            spec.grids.push(Grid { axes });
        }
        if tables.is_empty() {
            spec.grids.push(Grid { axes: shared });
        }
        if spec.grids.iter().any(|grid| grid.axes.is_empty()) {
            let problem = "a sweep without an axis varies nothing".to_owned();
            return Err(spec::error(None, problem, NOTATION));
        }
        spec.check_count()?;
        Ok(spec)
    }

    fn file_axis(&mut self, name: &str, value: &DeValue<'_>) -> Result<Axis> {
        match value {
            DeValue::String(text) => {
                let items = spec::items(text).map_err(|problem| spec::error(Some(name), problem, NOTATION))?;
                self.axis(name, &items)
            }
            DeValue::Array(array) => {
                let items: Vec<String> = array
                    .iter()
                    .map(|item| match item.get_ref() {
                        // In an array nothing else needs the commas.
                        DeValue::String(text) if text.contains(',') && !text.starts_with('[') => {
                            Ok(format!("[{text}]"))
                        }
                        item => scalar(name, item),
                    })
                    .collect::<Result<_>>()?;
                self.axis(name, &items)
            }
            value => self.axis(name, &[scalar(name, value)?]),
        }
    }
}

/// A file that is being read.
struct SweepFile<'f> {
    path: &'f Path,
    text: &'f str,
}

impl SweepFile<'_> {
    /// The line of a byte, counted from 1.
    fn line(&self, byte: usize) -> usize {
        self.text.bytes().take(byte).filter(|byte| *byte == b'\n').count() + 1
    }

    /// The axis whose name begins at byte `place`.
    fn axis(&self, spec: &mut SweepSpec, place: usize, name: &str, value: &DeValue<'_>) -> Result<Axis> {
        let line = self.line(place);
        let mut axis = spec
            .file_axis(name, value)
            .map_err(|error| error.in_sweep_file(self.path, Some(line)))?;
        axis.origin = Some(Origin {
            file: self.path.to_path_buf(),
            line,
        });
        Ok(axis)
    }
}

/// Where each key begins, keys, and values, in the order of the file.
fn in_order<'t, 'i>(table: &'t DeTable<'i>) -> Vec<(usize, &'t str, &'t DeValue<'i>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let entry = |(key, value): (&'t Spanned<_>, &'t Spanned<DeValue<'i>>)| {
        let name: &'t std::borrow::Cow<'i, str> = key.get_ref();
        (key.span().start, name.as_ref(), value.get_ref())
    };
    entries.into_iter().map(entry).collect()
}

/// The text of one value.
fn scalar(name: &str, value: &DeValue<'_>) -> Result<String> {
    match value {
        DeValue::String(text) => Ok(text.as_ref().to_owned()),
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
        DeValue::Integer(_) => Err(not_a_value(name, "a number that is not decimal")),
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Boolean(value) => Ok(value.to_string()),
        DeValue::Datetime(_) => Err(not_a_value(name, "a date")),
        DeValue::Array(_) => Err(not_a_value(name, "an array in an array")),
        DeValue::Table(_) => Err(not_a_value(name, "a table in a table")),
    }
}

fn not_a_value(name: &str, found: &str) -> Error {
    spec::error(Some(name), format!("is {found}, which is no value"), NOTATION)
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
