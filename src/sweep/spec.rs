//! What a sweep varies: the notation of `--sweep` and of its file, as axes of values.
//!
//! An axis is named as an option and its values are what would be written behind that option, so that this module need
//! know neither the options nor the training: whoever turns a combination into a recipe checks names and values.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::number;
use crate::error::{Error, Result};

/// The most combinations a sweep may have, and the most values an axis may have.
pub(crate) const MOST_COMBINATIONS: usize = 100_000;

/// How an axis can be written, for hints.
const NOTATION: &str = "write values with commas (`lr=0.1,0.01`), a range with a count (`lr=1e-4..1e-1:log8`, \
                        `momentum=0.5..0.9:lin5`), or a range of whole numbers (`seed=0..4`: 0, 1, 2, 3 and 4)";

/// One option that a sweep varies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Axis {
    /// The option's name without dashes.
    pub(crate) name: String,
    /// Its values as they are written behind the option: at least one, no two the same, numbers in their shortest form.
    pub(crate) values: Vec<String>,
    /// Where it is written; `None` for the command line.
    pub(crate) origin: Option<Origin>,
}

/// A place in a sweep file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) file: PathBuf,
    /// Counted from 1.
    pub(crate) line: usize,
}

impl Axis {
    /// An error about this axis, which says where it is written.
    pub(crate) fn error(&self, problem: String, hint: String) -> Error {
        Error::Sweep {
            file: self.origin.as_ref().map(|origin| origin.file.clone()),
            line: self.origin.as_ref().map(|origin| origin.line),
            axis: Some(self.name.clone()),
            problem,
            hint,
        }
    }
}

/// Axes of which every combination is meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Grid {
    /// No two of the same name.
    pub(crate) axes: Vec<Axis>,
}

/// A sweep: all combinations of each of its grids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SweepSpec {
    /// At least one.
    pub(crate) grids: Vec<Grid>,
    /// What a careful person would want to know, one line each.
    pub(crate) notes: Vec<String>,
}

impl SweepSpec {
    /// Reads the notation of `--sweep`: `lr=1e-4..1e-1:log8,momentum=0,0.9,seed=0..4`.
    ///
    /// An item `name=value` begins an axis, and the items after it, up to the next such item, are further values. Brackets
    /// keep together a value that has commas of its own: `milestones=[5,10],[10,20]`.
    ///
    /// # Errors
    /// [`Error::Sweep`] where this is no such text, naming the axis.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let refuse = |problem: &str| Err(error(None, problem.to_owned(), NOTATION));
        let mut axes: Vec<(String, Vec<&str>)> = Vec::new();
        for item in items(text).map_err(|problem| error(None, problem, NOTATION))? {
            if let Some((name, first)) = named(item) {
                if axes.iter().any(|(known, _)| known == name) {
                    return Err(twice(name));
                }
                axes.push((name.to_owned(), vec![first]));
            } else if let Some((_, values)) = axes.last_mut() {
                values.push(item);
            } else if item.is_empty() {
                return refuse("a sweep without an axis varies nothing");
            } else {
                return refuse(&format!("a sweep begins with the name of an option, not with `{item}`"));
            }
        }
        let mut spec = Self::default();
        let grid = axes
            .iter()
            .map(|(name, items)| spec.axis(name, items))
            .collect::<Result<_>>()?;
        spec.grids.push(Grid { axes: grid });
        spec.check_count()?;
        Ok(spec)
    }

    /// The same without the axes of these options.
    pub(crate) fn without(mut self, options: &[(&'static str, String)]) -> Self {
        for grid in &mut self.grids {
            grid.axes
                .retain(|axis| options.iter().all(|(name, _)| *name != axis.name));
        }
        self
    }

    /// The grids as JSON: a list of objects, each of axes with lists of values.
    pub(crate) fn to_json(&self) -> Value {
        let axes = |grid: &Grid| -> Value {
            let axes = grid.axes.iter().map(|axis| (axis.name.clone(), json!(axis.values)));
            axes.collect::<serde_json::Map<_, _>>().into()
        };
        self.grids.iter().map(axes).collect()
    }

    /// What [`to_json`](Self::to_json) wrote; `None` for anything else.
    pub(crate) fn from_json(json: &Value) -> Option<Self> {
        let grid = |axes: &Value| {
            let axis = |(name, values): (&String, &Value)| {
                let values: Vec<String> = serde_json::from_value(values.clone()).ok()?;
                let name = name.clone();
                (!values.is_empty()).then_some(Axis {
                    name,
                    values,
                    origin: None,
                })
            };
            let axes = axes.as_object()?.iter().map(axis).collect::<Option<Vec<Axis>>>()?;
            Some(Grid { axes })
        };
        let grids: Vec<Grid> = json.as_array()?.iter().map(grid).collect::<Option<_>>()?;
        let spec = Self {
            grids,
            notes: Vec::new(),
        };
        (!spec.grids.is_empty() && spec.check_count().is_ok()).then_some(spec)
    }

    /// All of several sweeps.
    ///
    /// # Errors
    /// [`Error::Sweep`] if there are too many combinations.
    pub(crate) fn union(specs: Vec<Self>) -> Result<Self> {
        let mut all = Self::default();
        for spec in specs {
            all.grids.extend(spec.grids);
            all.notes.extend(spec.notes);
        }
        all.check_count()?;
        Ok(all)
    }

    /// Adds an axis of these items, each a value or a range.
    pub(super) fn axis(&mut self, name: &str, items: &[impl AsRef<str>]) -> Result<Axis> {
        let mut values: Vec<String> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        let mut repeated: Vec<String> = Vec::new();
        for item in items {
            let expanded = expand(item.as_ref().trim()).map_err(|problem| error(Some(name), problem, NOTATION))?;
            for value in expanded {
                if seen.insert(value.clone()) {
                    values.push(value);
                } else {
                    repeated.push(format!("`{value}`"));
                }
            }
            if values.len() > MOST_COMBINATIONS {
                return Err(too_many(&format!(
                    "axis `{name}` alone has more than {MOST_COMBINATIONS} values"
                )));
            }
        }
        if values.is_empty() {
            return Err(error(Some(name), "has no value".to_owned(), NOTATION));
        }
        if let [first, rest @ ..] = &repeated[..] {
            let others = match rest.len() {
                0 => String::new(),
                others => format!(" and {others} more"),
            };
            self.notes.push(format!(
                "sweep axis `{name}`: {first}{others} given more than once: trained once"
            ));
        }
        Ok(Axis {
            name: name.to_owned(),
            values,
            origin: None,
        })
    }

    /// How many combinations there are.
    pub(crate) fn count(&self) -> usize {
        self.grids.iter().map(Grid::count).fold(0, usize::saturating_add)
    }

    /// Refuses more combinations than anybody would wait for.
    pub(super) fn check_count(&self) -> Result<()> {
        if self.count() <= MOST_COMBINATIONS {
            return Ok(());
        }
        let axes = |grid: &Grid| {
            let sizes: Vec<String> = grid
                .axes
                .iter()
                .map(|axis| format!("{} {}", axis.values.len(), axis.name))
                .collect();
            sizes.join(" × ")
        };
        let grids: Vec<String> = self.grids.iter().map(axes).collect();
        Err(too_many(&format!(
            "the sweep has more than {MOST_COMBINATIONS} combinations: {}",
            grids.join(" + ")
        )))
    }
}

impl Grid {
    /// How many combinations there are.
    fn count(&self) -> usize {
        let sizes = self.axes.iter().map(|axis| axis.values.len());
        sizes.fold(1, usize::saturating_mul)
    }

    /// Every combination, as the index of each axis's value; the last axis changes first.
    pub(crate) fn combinations(&self) -> impl Iterator<Item = Vec<usize>> {
        (0..self.count()).map(|number| {
            let mut rest = number;
            let mut chosen: Vec<usize> = self
                .axes
                .iter()
                .rev()
                .map(|axis| {
                    let index = rest % axis.values.len();
                    rest /= axis.values.len();
                    index
                })
                .collect();
            chosen.reverse();
            chosen
        })
    }
}

/// The pieces between commas that no bracket and no pair of quotes encloses.
pub(super) fn items(text: &str) -> Result<Vec<&str>, String> {
    let (mut items, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    let (mut quoted, mut escaped) = (false, false);
    for (place, letter) in text.char_indices() {
        if quoted {
            quoted = escaped || letter != '"';
            escaped = !escaped && letter == '\\';
            continue;
        }
        match letter {
            '"' => quoted = true,
            '[' => depth += 1,
            ']' if depth == 0 => return Err(format!("`{text}` has a `]` without its `[`")),
            ']' => depth -= 1,
            ',' if depth == 0 => {
                items.push(text[start..place].trim());
                start = place + 1;
            }
            _ => {}
        }
    }
    if quoted {
        return Err(format!("`{text}` has a `\"` without its end"));
    }
    if depth > 0 {
        return Err(format!("`{text}` has a `[` without its `]`"));
    }
    items.push(text[start..].trim());
    Ok(items)
}

/// Name and first value of an item that begins an axis.
fn named(item: &str) -> Option<(&str, &str)> {
    let (name, value) = item.split_once('=')?;
    let name = name.trim().trim_start_matches("--");
    let is_name = name.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && name
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_');
    is_name.then_some((name, value.trim()))
}

/// The values that an item stands for: a range's, or itself.
fn expand(item: &str) -> Result<Vec<String>, String> {
    if item.is_empty() {
        return Err("has an empty value".to_owned());
    }
    if let Some(inner) = item.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return Ok(vec![inner.trim().to_owned()]);
    }
    // The name of a class, or of a file.
    if item.starts_with(['"', '@']) {
        return Ok(vec![item.to_owned()]);
    }
    let Some((first, rest)) = item.split_once("..") else {
        return Ok(vec![number::shortest_text(item)]);
    };
    let (last, steps) = match rest.split_once(':') {
        Some((last, steps)) => (last, Some(steps)),
        None => (rest, None),
    };
    let Some(steps) = steps else {
        return whole_numbers(item, first, last);
    };
    let (parse, too_short) = (
        |text: &str| number::finite(text).ok_or_else(|| format!("`{item}`: `{text}` is no number")),
        format!("`{item}` needs a count of points, both ends included: `log8` or `lin8` behind the colon"),
    );
    let (first, last) = (parse(first)?, parse(last)?);
    let (logarithmic, count) = match (steps.strip_prefix("log"), steps.strip_prefix("lin")) {
        (Some(count), _) => (true, count),
        (_, Some(count)) => (false, count),
        _ => return Err(too_short),
    };
    let count: usize = count.parse().map_err(|_| too_short)?;
    if count < 2 {
        return Err(format!(
            "`{item}` has {count} points: a range has its two ends at least"
        ));
    }
    if count > MOST_COMBINATIONS {
        return Err(format!("`{item}` has {count} points: the most are {MOST_COMBINATIONS}"));
    }
    if first >= last {
        return Err(format!("`{item}` does not ascend: write the smaller end first"));
    }
    if logarithmic && first <= 0.0 {
        return Err(format!("`{item}`: logarithmic steps need ends above 0"));
    }
    let points = number::points(first, last, count, logarithmic);
    Ok(points.into_iter().map(number::shortest).collect())
}

/// The values of a range without a count.
fn whole_numbers(item: &str, first: &str, last: &str) -> Result<Vec<String>, String> {
    let (Ok(low), Ok(high)) = (first.parse::<u64>(), last.parse::<u64>()) else {
        let text = if number::finite(first).is_none() { first } else { last };
        if number::finite(text).is_none() {
            return Err(format!("`{item}`: `{text}` is no number"));
        }
        return Err(format!(
            "`{item}` is a range of whole numbers only without a count of points: write `{item}:lin5` or `{item}:log5`"
        ));
    };
    if low > high {
        return Err(format!("`{item}` does not ascend: write the smaller end first"));
    }
    if high - low >= MOST_COMBINATIONS as u64 {
        return Err(format!("`{item}` has more than {MOST_COMBINATIONS} values"));
    }
    Ok((low..=high).map(|value| value.to_string()).collect())
}

/// An error about the sweep, or one axis of it.
pub(super) fn error(axis: Option<&str>, problem: String, hint: &str) -> Error {
    Error::Sweep {
        file: None,
        line: None,
        axis: axis.map(str::to_owned),
        problem,
        hint: hint.to_owned(),
    }
}

/// An axis was named a second time.
pub(super) fn twice(name: &str) -> Error {
    let hint = format!("write all its values behind one name: `{name}=A,B,C`");
    error(Some(name), "is there twice".to_owned(), &hint)
}

fn too_many(problem: &str) -> Error {
    let hint = "leave out values, or sweep roughly first and finely around the best";
    error(None, problem.to_owned(), hint)
}

impl Error {
    /// The same error about a sweep, saying which file it is in, and where, if that is known and was not said before.
    pub(super) fn in_sweep_file(self, path: &Path, place: Option<usize>) -> Self {
        match self {
            Self::Sweep {
                line,
                axis,
                problem,
                hint,
                ..
            } => Self::Sweep {
                file: Some(path.to_path_buf()),
                line: line.or(place),
                axis,
                problem,
                hint,
            },
            other => other,
        }
    }
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
