//! `lastlayer cache gc`.

use std::io::Write;

use clap::Args;

use super::super::context::Context;
use super::super::output::{Ending, Result, counted, print_json};
use super::bytes;
use crate::observer::Observer;
use crate::upkeep::{GarbageOptions, GarbageReport, collect_garbage};

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// Change nothing, only say what would go
    #[arg(long)]
    dry_run: bool,
    /// Forget data sets whose folder, table or archives are gone, and with them their rows
    #[arg(long)]
    forget_missing: bool,
    /// Also drop rows written within the last hour; without, a killed `extract` finds what it had computed
    #[arg(long)]
    now: bool,
}

pub(super) fn run(arguments: Arguments, context: &Context) -> Result<Ending> {
    let options = GarbageOptions {
        dry_run: arguments.dry_run,
        forget_missing: arguments.forget_missing,
        recent_too: arguments.now,
    };
    let same_backbone = |name: &str, blake3: &str| {
        let file = context.local_backbone(name).and_then(|file| std::fs::read(file).ok());
        file.is_some_and(|bytes| blake3::hash(&bytes).to_hex().as_str() == blake3)
    };
    let report = collect_garbage(&context.cache, options, &same_backbone)?;
    for warning in &report.kept {
        context.observer.warn(warning);
    }
    if context.json {
        print_json(&report)?;
    } else {
        print(&report, arguments.dry_run)?;
    }
    Ok(Ending::Done)
}

fn print(report: &GarbageReport, dry_run: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for dataset in &report.forgotten_datasets {
        writeln!(out, "data set {}: forgotten", dataset.display())?;
    }
    for space in &report.removed_spaces {
        writeln!(
            out,
            "space {}: {} of {}, whose file {} is gone",
            &space.space[..8],
            counted(space.rows, "row"),
            space.backbone,
            space.file.display()
        )?;
    }
    for file in &report.removed_files {
        writeln!(out, "{}: left over", file.display())?;
    }
    for space in report.spaces.iter().filter(|space| space.dropped_rows > 0) {
        writeln!(
            out,
            "space {}: {} of {} dropped, as no data set uses them",
            &space.space[..8],
            space.dropped_rows,
            counted(space.rows_before, "row")
        )?;
    }
    for space in report.spaces.iter().filter(|space| space.recent_rows > 0) {
        writeln!(
            out,
            "space {}: {} kept that no data set uses, less than an hour old; --now drops them",
            &space.space[..8],
            counted(space.recent_rows, "row")
        )?;
    }
    writeln!(
        out,
        "{}{} freed, {} in {} left",
        if dry_run { "dry run: would be " } else { "" },
        bytes(report.freed_bytes),
        counted(report.rows, "row"),
        counted(report.segments, "segment")
    )?;
    Ok(out.flush()?)
}
