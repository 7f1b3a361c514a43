//! `lastlayer cache export`.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::super::context::Context;
use super::super::output::{Ending, Result, counted, print_json};
use super::super::selection::SelectionArguments;
use crate::feature_table::{FeatureFormat, FeatureRow, FeatureTable, write_features};
use crate::features::Selection;
use crate::observer::Observer;

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// The data set, as it was given to `extract`, or its `--name`
    dataset: PathBuf,
    /// What to write
    #[arg(long, value_enum, default_value = "npy")]
    format: FormatArgument,
    /// Path of the files to write, without extension
    #[arg(short, long, value_name = "PREFIX")]
    output: PathBuf,
    #[command(flatten)]
    selection: SelectionArguments,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FormatArgument {
    /// PREFIX.npy, float32 [n, d], and PREFIX.csv: path, split, label, view
    Npy,
    /// PREFIX.safetensors with `features` and `labels`, and PREFIX.csv
    Safetensors,
    /// PREFIX.parquet: path, split, label, view and a list of float
    Parquet,
}

pub(super) fn run(arguments: Arguments, context: &Context) -> Result<Ending> {
    let request = arguments.selection.request(context)?;
    let selection = Selection::of(&context.cache, &arguments.dataset, &request)?;
    for warning in selection.warnings() {
        context.observer.warn(&warning);
    }
    if selection.failed_images() > 0 {
        let failed = counted(selection.failed_images(), "picture");
        context
            .observer
            .warn(&format!("{failed} that `extract` could not read are left out"));
    }
    let format = match arguments.format {
        FormatArgument::Npy => FeatureFormat::Npy,
        FormatArgument::Safetensors => FeatureFormat::Safetensors,
        FormatArgument::Parquet => FeatureFormat::Parquet,
    };
    let rows = selection.rows();
    let metadata = [("lastlayer.space".to_owned(), selection.space.json().to_owned())];
    let table = FeatureTable {
        dim: selection.dim(),
        count: rows.len(),
        classes: selection.classes(),
        metadata: &metadata,
    };
    let files = write_features(format, &arguments.output, table, &mut |index| {
        let row = selection.row(rows[index])?;
        Ok(FeatureRow {
            path: row.path,
            split: row.split,
            label: row.label,
            view: row.view,
            feature: row.feature,
        })
    })?;
    if context.json {
        let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        print_json(&json!({
            "files": names,
            "images": selection.len(),
            "rows": rows.len(),
            "failed": selection.failed_images(),
            "feature_dim": selection.dim(),
            "space": selection.space.id().to_string(),
            "classes": selection.classes(),
        }))?;
    } else {
        let mut out = std::io::stdout().lock();
        for file in &files {
            writeln!(out, "{}", file.display())?;
        }
        out.flush()?;
    }
    Ok(Ending::with_skipped(selection.failed_images()))
}
