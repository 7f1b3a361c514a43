//! `lastlayer runs show`.

use std::io::Write;
use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use super::super::context::Context;
use super::super::output::{Ending, Result, print_json};
use super::{WORD, cell};
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
        print(&run)?;
    }
    Ok(Ending::Done)
}

fn print(run: &Run) -> Result<()> {
    let mut lines = Vec::new();
    for (name, value) in run.record.as_object().into_iter().flatten() {
        collect_lines(name, value, &mut lines);
    }
    let width = lines.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0);
    let mut out = std::io::stdout().lock();
    for (key, value) in lines {
        writeln!(out, "{key:width$}  {value}")?;
    }
    Ok(out.flush()?)
}

/// One line for each value that is no object; long lists of objects by their length.
fn collect_lines(path: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (name, value) in fields {
                collect_lines(&format!("{path}.{name}"), value, lines);
            }
        }
        Value::Array(items) if items.iter().all(Value::is_string) && !items.is_empty() => {
            let words: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            let separator = if path.ends_with("command_line") { " " } else { ", " };
            lines.push((path.to_owned(), words.join(separator)));
        }
        value => lines.push((path.to_owned(), cell(Some(value)))),
    }
}
