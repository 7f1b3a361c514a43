//! `lastlayer cache verify`.

use std::io::Write;

use clap::Args;

use super::super::context::Context;
use super::super::output::{Ending, Result, counted, print_json};
use super::super::progress::catch_interrupts;
use super::bytes;
use crate::error::Error;
use crate::upkeep::{DeepOptions, Verification, deep_verify, verify};
use crate::views::View;

/// Findings listed one by one for people; `--json` lists all.
const LISTED: usize = 20;

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// Also compute the features of so many pictures of each space again and compare
    #[arg(long, value_name = "N")]
    deep: Option<usize>,
    /// Seed of the choice of these pictures
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Only report: leave what is damaged where it is
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(arguments: Arguments, context: &Context) -> Result<Ending> {
    catch_interrupts();
    let repair = !arguments.dry_run;
    let mut verification = verify(&context.cache, repair, &context.observer)?;
    if let Some(count) = arguments.deep {
        let options = DeepOptions {
            count,
            seed: arguments.seed,
            repair,
            inference: context.inference(),
        };
        let backbone = |name: &str| context.local_backbone(name);
        verification.deep = deep_verify(&context.cache, &options, &backbone, &context.observer)?;
    }
    if context.json {
        print_json(&verification)?;
    } else {
        print(&verification)?;
    }
    match verification.damage() {
        0 => Ok(Ending::Done),
        damaged => Err(Error::DamagedCache {
            path: context.cache.root().to_path_buf(),
            damaged,
            repaired: repair,
        }
        .into()),
    }
}

fn print(verification: &Verification) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let report = &verification.report;
    for finding in report.findings().take(LISTED) {
        let repair = finding
            .repair
            .as_ref()
            .map_or_else(String::new, |repair| format!("; {repair}"));
        writeln!(out, "{}: {}{repair}", finding.path.display(), finding.problem)?;
    }
    let bad = || report.spaces.iter().flat_map(|space| &space.bad_rows);
    for row in bad().take(LISTED) {
        writeln!(
            out,
            "{}: the row of blake3 {}{} is damaged",
            row.segment.display(),
            row.content,
            match View::of_id(row.view) {
                None | Some(View::Plain) => String::new(),
                Some(view) => format!(", {view},"),
            }
        )?;
    }
    for more in [report.findings().count(), bad().count()]
        .into_iter()
        .filter(|count| *count > LISTED)
    {
        writeln!(out, "and {} more; --json lists all", more - LISTED)?;
    }
    let sum = |of: fn(&crate::cache::VerifiedSpace) -> u64| report.spaces.iter().map(of).sum::<u64>();
    writeln!(
        out,
        "checked {} rows in {} and {} of data sets: {}",
        sum(|space| space.rows),
        counted(report.spaces.iter().map(|space| space.segments).sum(), "segment"),
        counted(verification.datasets, "record"),
        bytes(sum(|space| space.bytes))
    )?;
    for deep in &verification.deep {
        match &deep.skipped {
            Some(reason) => writeln!(out, "space {}: nothing computed again: {reason}", &deep.space[..8])?,
            None => writeln!(
                out,
                "space {}: {}{} computed again: {} differ by more than {:.0e}; largest relative difference {:.1e}, least cosine {:.7}",
                &deep.space[..8],
                counted(deep.compared, "picture"),
                match deep.views_compared {
                    0 => String::new(),
                    views => format!(" and {} of them", counted(views, "random view")),
                },
                deep.different.len(),
                deep.tolerance,
                deep.largest_difference,
                deep.least_cosine
            )?,
        }
        if deep.busy {
            writeln!(
                out,
                "space {}: a running program writes to it, so they are still there: verify again when it is through",
                &deep.space[..8]
            )?;
        }
    }
    Ok(out.flush()?)
}
