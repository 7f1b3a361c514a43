//! `lastlayer cache`: what is in the cache, whether it is sound, and what can go.

mod explain;
mod export;
mod gc;
mod status;
mod verify;

use clap::Subcommand;

use super::context::Context;
use super::output::{Ending, Result};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Say which spaces and data sets there are, how large, and when they were used
    Status,
    /// Say whether a picture's feature is there, and if not, which byte or which field makes it a miss
    Explain(explain::Arguments),
    /// Check every checksum; set aside what is damaged, so that `extract` computes it again
    Verify(verify::Arguments),
    /// Drop rows that no data set uses and spaces whose backbone is gone; merge small files
    Gc(gc::Arguments),
    /// Write a data set's features for NumPy, pandas, DuckDB or PyTorch
    Export(export::Arguments),
}

pub(super) fn run(command: Command, context: &Context) -> Result<Ending> {
    match command {
        Command::Status => status::run(context),
        Command::Explain(arguments) => explain::run(arguments, context),
        Command::Verify(arguments) => verify::run(arguments, context),
        Command::Gc(arguments) => gc::run(arguments, context),
        Command::Export(arguments) => export::run(arguments, context),
    }
}

/// `12.3 MB`.
fn bytes(count: u64) -> String {
    indicatif::DecimalBytes(count).to_string()
}

/// `3 days ago`, or `now`.
fn ago(time: std::time::SystemTime) -> String {
    match time.elapsed() {
        Ok(age) if age.as_secs() >= 1 => format!("{} ago", indicatif::HumanDuration(age)),
        _ => "now".to_owned(),
    }
}
