//! `lastlayer runs diff` and `lastlayer runs compare`.

use std::io::Write;
use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use super::super::context::Context;
use super::super::output::{Ending, Result, print_json};
use super::table::Table;
use super::{WORD, cell, rounded};
use crate::runs::{Compared, Comparison, Run, compare_runs, find_run};

/// Characters of a cell; of longer ones the beginning is shown, and all of it with `--json`.
const WIDEST: usize = 40;

#[derive(Debug, Args)]
pub(super) struct DiffArguments {
    #[arg(help = WORD)]
    a: String,
    /// Another one
    b: String,
}

#[derive(Debug, Args)]
pub(super) struct CompareArguments {
    #[arg(help = WORD, required = true, num_args = 2.., value_name = "RUN")]
    several: Vec<String>,
}

pub(super) fn diff(arguments: &DiffArguments, root: &Path, context: &Context) -> Result<Ending> {
    let runs = [find_run(root, &arguments.a)?, find_run(root, &arguments.b)?];
    let comparison = compare_runs(&runs)?;
    if context.json {
        let changes = |rows: &[Compared]| -> Vec<Value> {
            let change = |row: &Compared| json!({ "key": row.key, "a": row.values[0], "b": row.values[1] });
            rows.iter().map(change).collect()
        };
        let metric = |row: &Compared| json!({ "key": row.key, "a": row.values[0], "b": row.values[1], "difference": row.difference() });
        print_json(&json!({
            "a": runs[0].id,
            "b": runs[1].id,
            "config": changes(&comparison.config),
            "metrics": comparison.metrics.iter().map(metric).collect::<Vec<_>>(),
            "same_data": comparison.data[1].is_empty(),
            "data_changes": comparison.data[1],
            "same_space": comparison.space.is_empty(),
            "space": changes(&comparison.space),
        }))?;
    } else {
        print(&runs, &comparison)?;
    }
    Ok(Ending::Done)
}

pub(super) fn compare(arguments: &CompareArguments, root: &Path, context: &Context) -> Result<Ending> {
    let runs = arguments.several.iter().map(|word| find_run(root, word));
    let runs = runs.collect::<Result<Vec<Run>, _>>()?;
    let comparison = compare_runs(&runs)?;
    if context.json {
        let rows = |rows: &[Compared]| -> Vec<Value> {
            rows.iter()
                .map(|row| json!({ "key": row.key, "values": row.values }))
                .collect()
        };
        let same_data: Vec<bool> = comparison.data.iter().map(Vec::is_empty).collect();
        print_json(&json!({
            "runs": runs.iter().map(|run| &run.id).collect::<Vec<_>>(),
            "config": rows(&comparison.config),
            "metrics": rows(&comparison.metrics),
            "same_data": same_data,
            "data_changes": comparison.data,
            "same_space": comparison.space.is_empty(),
            "space": rows(&comparison.space),
        }))?;
    } else {
        print(&runs, &comparison)?;
    }
    Ok(Ending::Done)
}

/// A heading for each part that has something to tell, then one line for each key, with a column for each run; of two
/// runs also by how much numbers differ.
fn print(runs: &[Run], comparison: &Comparison) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let with_difference = runs.len() == 2;
    let mut part = |title: &str, rows: &[Compared], with_difference: bool| -> Result<()> {
        let mut heading = vec![title.to_owned()];
        heading.extend(runs.iter().map(|run| run.id.clone()));
        if with_difference {
            heading.push("difference".to_owned());
        }
        let mut table = Table::new(heading);
        for row in rows {
            let mut cells = vec![row.key.clone()];
            cells.extend(row.values.iter().map(|value| shortened(&cell(value.as_ref()))));
            if with_difference {
                cells.push(row.difference().map_or("-".to_owned(), signed));
            }
            table.push(cells);
        }
        Ok(table.print(&mut out)?)
    };
    if !comparison.config.is_empty() {
        part("configuration", &comparison.config, false)?;
    }
    part("metrics", &comparison.metrics, with_difference)?;
    if !comparison.space.is_empty() {
        part("feature space", &comparison.space, false)?;
    }
    if comparison.config.is_empty() {
        writeln!(out, "the configurations are the same")?;
    }
    if comparison.space.is_empty() {
        writeln!(out, "the features lie in the same space")?;
    }
    for (run, changes) in runs.iter().zip(&comparison.data).skip(1) {
        if changes.is_empty() {
            writeln!(out, "{} has the same data as {}", run.id, runs[0].id)?;
        } else {
            writeln!(out, "{} has other data than {}:", run.id, runs[0].id)?;
            changes.iter().try_for_each(|change| writeln!(out, "  - {change}"))?;
        }
    }
    Ok(out.flush()?)
}

/// A cell that leaves room for others.
fn shortened(cell: &str) -> String {
    if cell.chars().count() <= WIDEST {
        return cell.to_owned();
    }
    cell.chars().take(WIDEST - 1).chain(['…']).collect()
}

fn signed(value: f64) -> String {
    let sign = if value > 0.0 { "+" } else { "" };
    format!("{sign}{}", rounded(value))
}
