//! `lastlayer runs`: the experiments that were kept.

mod compare;
mod keep;
mod list;
mod show;
mod table;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::context::Context;
use super::output::{Ending, Result};
use crate::error::Error;

pub(super) use keep::{KeepArguments, KeptRun};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Folder of the runs
    #[arg(long, global = true, value_name = "DIR", default_value = "runs")]
    runs: PathBuf,
    #[command(flatten)]
    list: list::ListArguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the runs; as `lastlayer runs` alone does
    List(list::ListArguments),
    /// Print all that is known of a run
    Show(show::ShowArguments),
    /// Say in what two runs differ
    Diff(compare::DiffArguments),
    /// Put several runs side by side
    Compare(compare::CompareArguments),
}

pub(super) fn run(arguments: Arguments, context: &Context) -> Result<Ending> {
    let root = &arguments.runs;
    if let (Some(option), Some(command)) = (arguments.list.given(), &arguments.command)
        && !matches!(command, Command::List(_))
    {
        return Err(Error::Usage(format!("{option} is an option of `runs list` alone")).into());
    }
    match arguments.command {
        None => list::run(arguments.list, root, context),
        Some(Command::List(list)) => list::run(list.over(arguments.list), root, context),
        Some(Command::Show(arguments)) => show::run(&arguments, root, context),
        Some(Command::Diff(arguments)) => compare::diff(&arguments, root, context),
        Some(Command::Compare(arguments)) => compare::compare(&arguments, root, context),
    }
}

/// What a run is called: the word that several options take.
const WORD: &str = "Its folder, its name, how that begins, `latest`, `best` (`best:KEY=VALUE,…` among some); of a sweep's \
    heads also RUN/RANK";

/// `5 folds`, `2 × 5 folds`: how a run was cross-validated, if it was.
fn folds(record: &Value) -> Option<String> {
    let folds = record["folds"].as_u64()?;
    Some(match record["repeats"].as_u64() {
        Some(repeats) if repeats > 1 => format!("{repeats} × {folds} folds"),
        _ => format!("{folds} folds"),
    })
}

/// A value as a cell: text without quotes, numbers with at most six significant digits, nothing as a dash.
fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) if number.is_f64() => number.as_f64().map_or_else(String::new, rounded),
        Some(other) => other.to_string(),
    }
}

/// At most six significant digits, without zeros at the end; very small and very large numbers with an exponent.
fn rounded(value: f64) -> String {
    let magnitude = value.abs();
    if value == 0.0 {
        "0".to_owned()
    } else if !(1e-4..1e9).contains(&magnitude) {
        let text = format!("{value:.5e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        format!("{}e{exponent}", without_zeros(digits))
    } else {
        let decimals = (5 - magnitude.log10().floor() as i32).max(0) as usize;
        without_zeros(&format!("{value:.decimals$}")).to_owned()
    }
}

fn without_zeros(digits: &str) -> &str {
    match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.'),
        false => digits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let numbers = [
            0.001,
            0.1 + 0.2,
            1.0,
            -0.95,
            123_456.789,
            1e-5,
            2.5e-7,
            1e12,
            0.000_123_456_789,
            0.0,
            1_234_567.8,
        ];
        let expected = [
            "0.001",
            "0.3",
            "1",
            "-0.95",
            "123457",
            "1e-5",
            "2.5e-7",
            "1e12",
            "0.000123457",
            "0",
            "1234568",
        ];
        assert_eq!(numbers.map(rounded), expected);
    }
}
