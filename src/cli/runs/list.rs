//! `lastlayer runs list`.

use std::io::Write;
use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use super::super::context::Context;
use super::super::output::{Ending, Result, counted, print_json};
use super::table::Table;
use super::{cell, folds};
use crate::observer::Observer;
use crate::runs::{Run, RunFilter, RunKind, RunState, check_keys, list_runs, look_up, sort_runs};

/// Folders that are left out of the list and named one by one; more are counted.
const MOST_NAMED: usize = 10;

#[derive(Debug, Default, Args)]
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
    /// Also what is no run that came to an end: unfinished ones, those of newer versions, other folders
    #[arg(long)]
    all: bool,
    /// Print a table as CSV
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

impl ListArguments {
    /// The first option that was given.
    pub(super) fn given(&self) -> Option<&'static str> {
        let options = [
            ("--sort", self.sort.is_some()),
            ("--reverse", self.reverse),
            ("--filter", !self.filter.is_empty()),
            ("--limit", self.limit.is_some()),
            ("--heads", self.heads),
            ("--all", self.all),
            ("--csv", self.csv),
        ];
        options.iter().find(|(_, given)| *given).map(|(name, _)| *name)
    }

    /// These options, and those of `before`, which stood before the subcommand.
    pub(super) fn over(self, before: Self) -> Self {
        Self {
            sort: self.sort.or(before.sort),
            reverse: self.reverse || before.reverse,
            filter: [before.filter, self.filter].concat(),
            limit: self.limit.or(before.limit),
            heads: self.heads || before.heads,
            all: self.all || before.all,
            csv: self.csv || before.csv,
        }
    }
}

pub(super) fn run(arguments: ListArguments, root: &Path, context: &Context) -> Result<Ending> {
    let found = list_runs(root, arguments.heads)?;
    let mut keys: Vec<&str> = arguments.filter.iter().map(RunFilter::key).collect();
    keys.extend(arguments.sort.as_deref());
    check_keys(&found, &keys, root)?;
    // Who asks for a state wants to see what is in it.
    let all = arguments.all || keys.iter().any(|key| key.eq_ignore_ascii_case("state"));
    let (known, left_out): (Vec<Run>, Vec<Run>) = found.into_iter().partition(|run| all || run.is_listed());
    let total = known.len();
    let mut runs: Vec<Run> = known
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
        let left_out: Vec<Value> = left_out
            .iter()
            .map(|run| json!({ "id": run.id, "state": run.state, "problem": reason(run) }))
            .collect();
        print_json(&json!({ "folder": root.to_string_lossy(), "runs": records, "left_out": left_out }))?;
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
    note_left_out(&left_out, root, context);
    Ok(Ending::Done)
}

/// Says how many folders the list does not have, and why.
fn note_left_out(left_out: &[Run], root: &Path, context: &Context) {
    if left_out.is_empty() {
        return;
    }
    let folders = counted(left_out.len(), "folder");
    let text = format!("{folders} in {} left out, `--all` lists them:", root.display());
    context.observer.note(&text);
    for run in left_out.iter().take(MOST_NAMED) {
        let text = format!("{}: {}: {}", run.id, run.state.name(), reason(run));
        context.observer.note(&text);
    }
    if left_out.len() > MOST_NAMED {
        context
            .observer
            .note(&format!("… and {} more", left_out.len() - MOST_NAMED));
    }
}

/// Why a folder is no run that came to an end.
fn reason(run: &Run) -> &str {
    let unfinished = "it is going on, or was stopped from without";
    run.problem().unwrap_or(match run.state {
        RunState::Unfinished => unfinished,
        _ => "it can't be read",
    })
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

/// What the tables show beside the columns of [`COLUMNS`]: the one of people, and CSV.
const ALSO_SHOWN: [&str; 2] = ["state", "C"];
const ALSO_IN_CSV: [&str; 4] = ["state", "val_accuracy_low", "val_accuracy_high", "folds"];

/// The keys that were asked for and that no column shows, once each: neither those of [`COLUMNS`] nor of `also`.
fn further<'a>(runs: &[Run], keys: &[&'a str], also: &[&str]) -> Vec<&'a str> {
    let last = |key: &str| {
        let plain = key.trim().replace('-', "_").to_lowercase();
        let last = plain.rsplit('.').next().unwrap_or_default().to_owned();
        if last == "lr" { "learning_rate".to_owned() } else { last }
    };
    // `recipe.lr` and `lr` are the same as long as no run has another value under one of them.
    let same = |one: &str, other: &str| {
        let value = |run: &Run, key: &str| look_up(&run.record, key).cloned();
        last(one) == last(other) && runs.iter().all(|run| value(run, one) == value(run, other))
    };
    let mut further: Vec<&str> = Vec::new();
    for key in keys {
        let columns = COLUMNS.iter().map(|(_, column)| *column).chain(also.iter().copied());
        let mut shown = columns.chain(further.iter().copied());
        if !shown.any(|shown| same(shown, key)) {
            further.push(key);
        }
    }
    further
}

fn print_table(runs: &[Run], keys: &[&str]) -> Result<()> {
    if runs.is_empty() {
        return Ok(());
    }
    let further = further(runs, keys, &ALSO_SHOWN);
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

/// `0.9477 (0.901 – 0.973)`: the accuracy with its interval, where one was written; of folds `0.9477 ± 0.0061 (5 folds)`,
/// the mean with its standard error.
fn accuracy(record: &Value) -> String {
    let Some(accuracy) = record["val_accuracy"].as_f64() else {
        return "-".to_owned();
    };
    if let Some(folds) = folds(record) {
        let error = record["standard_error"].as_f64();
        let error = error.map_or_else(String::new, |error| format!(" ± {error:.4}"));
        return format!("{accuracy:.4}{error} ({folds})");
    }
    let end = |index: usize| record["val_accuracy_interval"].get(index)?.as_f64();
    match (end(0), end(1)) {
        (Some(low), Some(high)) => format!("{accuracy:.4} ({low:.3} – {high:.3})"),
        _ => format!("{accuracy:.4}"),
    }
}

/// The same columns with all digits, the interval in two of its own.
fn print_csv(runs: &[Run], keys: &[&str]) -> Result<()> {
    let further = further(runs, keys, &ALSO_IN_CSV);
    let mut writer = csv::Writer::from_writer(std::io::stdout().lock());
    let mut heading: Vec<&str> = COLUMNS.iter().map(|(_, key)| *key).collect();
    heading.extend(["val_accuracy_low", "val_accuracy_high", "folds"]);
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
        let interval = &run.record["val_accuracy_interval"];
        let mut row: Vec<String> = COLUMNS.iter().map(|(_, key)| value(key)).collect();
        row.extend([0, 1].map(|end| text(interval.get(end))));
        row.push(text(Some(&run.record["folds"])));
        row.extend(further.iter().map(|key| value(key)));
        row.push(run.state.name().to_owned());
        writer.write_record(&row).map_err(to_io)?;
    }
    Ok(writer.flush()?)
}
