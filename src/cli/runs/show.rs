//! `lastlayer runs show`.

use std::io::Write;
use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use super::super::context::Context;
use super::super::output::{Ending, Result, print_json};
use super::{WORD, cell, folds, rounded};
use crate::runs::{Run, find_run};

#[derive(Debug, Args)]
pub(super) struct ShowArguments {
    #[arg(help = WORD)]
    run: String,
}

pub(super) fn run(arguments: &ShowArguments, root: &Path, context: &Context) -> Result<Ending> {
    let run = find_run(root, &arguments.run)?;
    if context.json {
        let mut record = run.record.clone();
        // A sweep has no history, and a damaged run is shown as far as it goes.
        record["history"] = json!(run.history().ok());
        print_json(&record)?;
    } else {
        print(&run, root)?;
    }
    Ok(Ending::Done)
}

/// A key and its value, as lines of a part.
type Lines = Vec<(String, String)>;

fn print(run: &Run, root: &Path) -> Result<()> {
    let record = &run.record;
    let mut parts: Vec<(&str, Lines)> = vec![("", heading(run, root))];
    parts.push(("options", options(&record["options"])));
    let mut metrics = worth(record);
    collect("", &record["metrics"], &mut metrics);
    parts.push(("metrics", metrics));
    let mut space = Lines::new();
    collect("", &record["space"]["description"], &mut space);
    parts.push(("feature space", space));
    let lines = parts.iter().flat_map(|(_, lines)| lines);
    let width = lines.map(|(key, _)| key.chars().count()).max().unwrap_or(0);
    let mut out = std::io::stdout().lock();
    for (title, lines) in parts.iter().filter(|(_, lines)| !lines.is_empty()) {
        if !title.is_empty() {
            writeln!(out, "\n{title}")?;
        }
        for (key, value) in lines {
            writeln!(out, "{key:width$}  {value}")?;
        }
    }
    Ok(out.flush()?)
}

/// What the run is, and how it is repeated.
fn heading(run: &Run, root: &Path) -> Lines {
    let record = &run.record;
    let mut lines = Lines::new();
    for key in [
        "id", "path", "state", "kind", "problem", "name", "created", "finished", "seconds",
    ] {
        push(&mut lines, key, &record[key]);
    }
    let dataset = &record["config"]["dataset"];
    let named = if dataset["absolute"].is_null() {
        &record["dataset"]
    } else {
        &dataset["absolute"]
    };
    push(&mut lines, "dataset", named);
    collect("data", &record["data"], &mut lines);
    push(&mut lines, "lastlayer_version", &record["config"]["lastlayer_version"]);
    let words = record["config"]["command_line"].as_array().into_iter().flatten();
    let words: Vec<String> = words.filter_map(Value::as_str).map(quoted).collect();
    if !words.is_empty() {
        lines.push(("command".to_owned(), words.join(" ")));
    }
    if run.config().is_ok() {
        let runs = match root == Path::new("runs") {
            true => String::new(),
            false => format!(" --runs {}", quoted(&root.to_string_lossy())),
        };
        lines.push((
            "repeat".to_owned(),
            format!("lastlayer train-head --from {}{runs}", quoted(&run.id)),
        ));
    }
    lines
}

/// The options, with all digits: typed again they give the same head.
fn options(options: &Value) -> Lines {
    let mut lines = Lines::new();
    for (name, value) in options.as_object().into_iter().flatten() {
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        lines.extend(values.iter().map(|value| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (name.clone(), text)
        }));
    }
    lines
}

/// The accuracy of a cross-validation, which its metrics say in several places.
fn worth(record: &Value) -> Lines {
    let number = |key: &str| record[key].as_f64();
    let (Some(folds), Some(mean)) = (folds(record), number("val_accuracy")) else {
        return Lines::new();
    };
    let error = number("standard_error").map_or_else(String::new, |error| format!(" ± {}", rounded(error)));
    let interval = interval(&record["val_accuracy_interval"]).unwrap_or_default();
    vec![(
        "val_accuracy".to_owned(),
        format!("{}{error}{interval}, mean of {folds}", rounded(mean)),
    )]
}

fn push(lines: &mut Lines, key: &str, value: &Value) {
    if !value.is_null() {
        lines.push((key.to_owned(), cell(Some(value))));
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |character: char| character.is_alphanumeric() || "-_./:=,+@\\".contains(character);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// `  (0.8942 to 0.961)`: the ends of an interval.
fn interval(value: &Value) -> Option<String> {
    let end = |index: usize| value.get(index).and_then(Value::as_f64).map(rounded);
    Some(format!("  (95 % interval {} to {})", end(0)?, end(1)?))
}

/// One line for each value: intervals stand behind what they are of, lists of numbers and names are joined, and of a list of
/// objects each is a line called by its first field.
fn collect(path: &str, value: &Value, lines: &mut Lines) {
    let below = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    };
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (name, value) in fields {
                let of = name.strip_suffix("_interval").filter(|of| fields.contains_key(*of));
                // Bins are for plots; `--json` has them.
                if of.is_some() || name == "calibration_bins" {
                    continue;
                }
                let before = lines.len();
                collect(&below(name), value, lines);
                let suffix = fields.get(&format!("{name}_interval")).and_then(interval);
                if let (Some(suffix), [line]) = (suffix, &mut lines[before..]) {
                    line.1.push_str(&suffix);
                }
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for item in items {
                let mut fields = item.as_object().into_iter().flatten();
                let name = fields.next().map(|(_, first)| cell(Some(first))).unwrap_or_default();
                let rest: Vec<String> = fields
                    .map(|(name, value)| format!("{name} {}", joined(value, " to ")))
                    .collect();
                lines.push((below(&name), rest.join(", ")));
            }
        }
        Value::Array(items) if items.iter().any(Value::is_array) => {
            for (row, item) in items.iter().enumerate() {
                lines.push((below(&(row + 1).to_string()), joined(item, " ")));
            }
        }
        value => lines.push((path.to_owned(), joined(value, ", "))),
    }
}

/// A list's items with `separator` between them, any other value as a cell.
fn joined(value: &Value, separator: &str) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| cell(Some(item))).collect();
            items.join(separator)
        }
        value => cell(Some(value)),
    }
}
