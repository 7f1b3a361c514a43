//! The command line: the only place that prints, reads the environment, or decides how the program ends.

mod cache;
mod context;
mod demo;
mod doctor;
mod drawing;
mod evaluate;
mod extract;
mod inputs;
mod output;
mod predict;
mod progress;
mod runs;
mod selection;
mod train_head;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::backbone::Device;
use crate::error::ErrorKind;
use crate::space::Precision;
use context::Context;
use output::{Ending, Failure};

/// Classify your own pictures with a frozen ImageNet backbone and a last layer trained on them.
#[derive(Debug, Parser)]
#[command(name = "lastlayer", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the backbone once over a data set and fill the cache
    Extract(extract::Arguments),
    /// Train a head on cached features; no picture is read
    TrainHead(Box<train_head::Arguments>),
    /// Classify pictures with a trained head
    Predict(predict::Arguments),
    /// Report how good a head is on a split of a data set; no picture is read
    Evaluate(evaluate::Arguments),
    /// List, show and compare the trainings that were kept
    Runs(runs::Arguments),
    /// Draw a small data set and do all of it, to see how it works
    Demo(demo::Arguments),
    /// Look into the cache, check it, tidy it, or write features out of it
    #[command(subcommand)]
    Cache(cache::Command),
    /// Say what was found where: ONNX Runtime, devices, backbones, cache
    Doctor(doctor::Arguments),
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Common options")]
struct Common {
    /// Folder of cached features
    #[arg(long, global = true, value_name = "DIR", default_value = "cache")]
    cache: PathBuf,
    /// Where the backbone runs: auto, cpu, cuda or cuda:N
    #[arg(long, global = true, value_name = "DEVICE", default_value = "auto")]
    device: Device,
    /// Arithmetic of the backbone: fp32, tf32 (CUDA), fp16 or int8; of cached features, which of them [default: fp32; any]
    #[arg(long, global = true, value_name = "PRECISION")]
    precision: Option<Precision>,
    /// Threads to use [default: all cores]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    threads: Option<u32>,
    /// Print one JSON object to stdout (predict: one per line)
    #[arg(long, global = true)]
    json: bool,
    /// Fetch nothing from the network (also LASTLAYER_OFFLINE=1)
    #[arg(long, global = true)]
    offline: bool,
    /// The ONNX Runtime library to load, a file or its folder [default: searched, see `doctor`]
    #[arg(long, global = true, value_name = "PATH")]
    ort_lib: Option<PathBuf>,
    /// Say less: no progress, no notes
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

/// 128 + SIGINT, as shells expect of a program that was stopped.
const INTERRUPTED: u8 = 130;

/// Runs the program with the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout and are no failure; a closed pipe there is none either.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let Cli { command, common } = cli;
    let keeps = matches!(command, Command::Extract(_));
    match Context::new(common)
        .map_err(Failure::from)
        .and_then(|context| dispatch(command, &context))
    {
        Ok(Ending::Done) | Err(Failure::ClosedPipe) => ExitCode::SUCCESS,
        Ok(Ending::InputsSkipped) => ExitCode::from(3),
        Ok(Ending::Interrupted) => ExitCode::from(INTERRUPTED),
        Err(Failure::Output(error)) => {
            output::print_error(&format!("cannot write to stdout: {error}"), None);
            ExitCode::FAILURE
        }
        Err(Failure::Library(error)) => {
            let hint = match error.kind() {
                ErrorKind::Interrupted if keeps => {
                    Some("what was finished is kept: run the same command again to go on".to_owned())
                }
                _ => error.hint(),
            };
            output::print_error(&error.to_string(), hint.as_deref());
            ExitCode::from(match error.kind() {
                ErrorKind::Failed => 1,
                ErrorKind::Usage => 2,
                ErrorKind::Interrupted => INTERRUPTED,
            })
        }
    }
}

fn dispatch(command: Command, context: &Context) -> Result<Ending, Failure> {
    match command {
        Command::Extract(arguments) => extract::run(arguments, context),
        Command::TrainHead(arguments) => train_head::run(*arguments, context),
        Command::Predict(arguments) => predict::run(arguments, context),
        Command::Evaluate(arguments) => evaluate::run(arguments, context),
        Command::Runs(arguments) => runs::run(arguments, context),
        Command::Demo(arguments) => demo::run(arguments, context),
        Command::Cache(command) => cache::run(command, context),
        Command::Doctor(arguments) => doctor::run(arguments, context),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
