//! `lastlayer runs list`.

use std::io::Write;
use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use super::super::context::Context;
use super::super::output::{Ending, Result, counted, print_json};
use super::cell;
use super::table::Table;
use crate::error::Error;
use crate::observer::Observer;
use crate::runs::{Run, RunFilter, RunKind, RunState, has_key, list_runs, look_up, sort_runs};

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    /// Sort by this key of the configuration or the metrics, such as lr or val_accuracy [default: created]
    #[arg(long, value_name = "KEY")]
    sort: Option<String>,
    /// The largest or newest first
    #[arg(long)]
    reverse: bool,
    /// Only runs for which this holds, such as 'lr<0.01' or solver=lbfgs; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<RunFilter>,
    /// The first so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Also the heads that sweeps kept
    #[arg(long)]
    heads: bool,
    /// Print a table as CSV
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

pub(super) fn run(arguments: ListArguments, root: &Path, context: &Context) -> Result<Ending> {
    let all = list_runs(root, arguments.heads)?;
    let mut keys: Vec<&str> = arguments.filter.iter().map(RunFilter::key).collect();
    keys.extend(arguments.sort.as_deref());
    // A key that no run has is a slip of the pen, not a condition that none fulfils.
    let is_any = all.iter().any(|run| run.state == RunState::Complete);
    if let Some(key) = keys.iter().find(|key| is_any && !has_key(&all, key)) {
        return Err(Error::Usage(format!(
            "no run in `{}` has a key `{key}`: `lastlayer runs show latest` prints the keys that there are",
            root.display()
        ))
        .into());
    }
    let total = all.len();
    let mut runs: Vec<Run> = all
        .into_iter()
        .filter(|run| arguments.filter.iter().all(|filter| filter.accepts(&run.record)))
        .collect();
    match &arguments.sort {
        Some(key) => sort_runs(&mut runs, key, arguments.reverse),
        None if arguments.reverse => runs.reverse(),
        None => {}
    }
    runs.truncate(arguments.limit.unwrap_or(usize::MAX));
    if context.json {
        let records: Vec<&Value> = runs.iter().map(|run| &run.record).collect();
        print_json(&json!({ "folder": root.to_string_lossy(), "runs": records }))?;
    } else if arguments.csv {
        print_csv(&runs, &keys)?;
    } else {
        print_table(&runs, &keys)?;
    }
    if total == 0 {
        context.observer.note(&format!("no run is kept in {}", root.display()));
    } else if runs.len() < total && !context.json {
        let text = format!("{} of {} in {}", runs.len(), counted(total, "run"), root.display());
        context.observer.note(&text);
    }
    for run in runs.iter().filter(|run| run.state != RunState::Complete) {
        if let Some(problem) = run.problem() {
            context
                .observer
                .note(&format!("{}: {}: {problem}", run.id, run.state.name()));
        }
    }
    Ok(Ending::Done)
}

/// The columns that every table has, each with the key it shows.
const COLUMNS: [(&str, &str); 7] = [
    ("run", "id"),
    ("when (UTC)", "created"),
    ("data set", "dataset"),
    ("solver", "solver"),
    ("lr or C", "learning_rate"),
    ("val accuracy", "val_accuracy"),
    ("best epoch", "best_epoch"),
];

/// The keys that were asked for and that no column shows, once each.
fn further<'a>(keys: &[&'a str]) -> Vec<&'a str> {
    let mut further: Vec<&str> = Vec::new();
    for key in keys {
        let plain = key.replace('-', "_");
        let shown = |column: &str| column == plain || (column == "learning_rate" && plain == "lr");
        if !COLUMNS.iter().any(|(_, column)| shown(column)) && !further.contains(key) {
            further.push(key);
        }
    }
    further
}

fn print_table(runs: &[Run], keys: &[&str]) -> Result<()> {
    if runs.is_empty() {
        return Ok(());
    }
    let further = further(keys);
    let headings = COLUMNS.iter().map(|(heading, _)| *heading);
    let mut table = Table::new(headings.chain(further.iter().copied()).chain(["state"]));
    for run in runs {
        let value = |key: &str| look_up(&run.record, key);
        let mut row: Vec<String> = COLUMNS
            .iter()
            .map(|(_, key)| match *key {
                "created" => cell(value(key)).replace('T', " ").trim_end_matches('Z').to_owned(),
                "learning_rate" => value(key).map_or_else(|| cell(value("recipe.solver.c")), |rate| cell(Some(rate))),
                "val_accuracy" => accuracy(&run.record),
                key => cell(value(key)),
            })
            .collect();
        row.extend(further.iter().map(|key| cell(value(key))));
        row.push(state(run));
        table.push(row);
    }
    let mut out = std::io::stdout().lock();
    table.print(&mut out)?;
    Ok(out.flush()?)
}

fn state(run: &Run) -> String {
    match run.kind {
        Some(RunKind::Sweep) => format!("sweep, {}", run.state.name()),
        _ => run.state.name().to_owned(),
    }
}

/// `0.9477 (0.901 – 0.973)`: the accuracy with its interval, where one was written; of folds `0.9477 ± 0.0061`, the mean
/// with its standard error.
fn accuracy(record: &Value) -> String {
    let number = |key: &str| look_up(record, key).and_then(Value::as_f64);
    let Some(accuracy) = number("metrics.val_accuracy") else {
        let of_folds = number("metrics.mean_accuracy").zip(number("metrics.standard_error"));
        return of_folds.map_or("-".to_owned(), |(mean, error)| format!("{mean:.4} ± {error:.4}"));
    };
    let end = |index: usize| look_up(record, "metrics.val_accuracy_interval")?.get(index)?.as_f64();
    match (end(0), end(1)) {
        (Some(low), Some(high)) => format!("{accuracy:.4} ({low:.3} – {high:.3})"),
        _ => format!("{accuracy:.4}"),
    }
}

/// The same columns with all digits, the interval in two of its own.
fn print_csv(runs: &[Run], keys: &[&str]) -> Result<()> {
    let further = further(keys);
    let mut writer = csv::Writer::from_writer(std::io::stdout().lock());
    let mut heading: Vec<&str> = COLUMNS.iter().map(|(_, key)| *key).collect();
    heading.extend(["val_accuracy_low", "val_accuracy_high"]);
    heading.extend(further.iter().chain(["state"].iter()));
    let to_io = |error: csv::Error| std::io::Error::from(error);
    writer.write_record(&heading).map_err(to_io)?;
    for run in runs {
        let text = |value: Option<&Value>| match value {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        let value = |key: &str| text(look_up(&run.record, key));
        let interval = look_up(&run.record, "metrics.val_accuracy_interval");
        let mut row: Vec<String> = COLUMNS.iter().map(|(_, key)| value(key)).collect();
        row.extend([0, 1].map(|end| text(interval.and_then(|interval| interval.get(end)))));
        row.extend(further.iter().map(|key| value(key)));
        row.push(run.state.name().to_owned());
        writer.write_record(&row).map_err(to_io)?;
    }
    Ok(writer.flush()?)
}
