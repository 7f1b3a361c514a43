//! What `train-head` says and does to keep its runs.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use super::super::context::Context;
use crate::error::{Error, Result};
use crate::features::LabelledFeatures;
use crate::head::{HeadFile, Training};
use crate::observer::Observer;
use crate::runs::{RunConfig, RunInputs, RunWriter};

/// Where and under which name a run is kept.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Runs")]
pub(in crate::cli) struct KeepArguments {
    /// Folder in which each run is kept as a folder of its own
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub(in crate::cli) runs: PathBuf,
    /// Name of the run, part of its folder's name [default: the data set's]
    #[arg(long, value_name = "NAME", conflicts_with = "no_run")]
    pub(in crate::cli) run_name: Option<String>,
    /// Keep no run, only the head
    #[arg(long)]
    pub(in crate::cli) no_run: bool,
    /// Repeat a run, bit for bit: its data set where none is given, its options where no others are
    #[arg(long, value_name = "RUN")]
    pub(in crate::cli) from: Option<String>,
}

/// A run that is being kept as far as the disk lets it: a head is never lost for want of a place for its run.
pub(in crate::cli) struct KeptRun<'a> {
    writer: Option<RunWriter>,
    context: &'a Context,
}

impl KeepArguments {
    /// Begins the run, unless it shall not be kept or can't be, which is said as a warning.
    pub(in crate::cli) fn begin<'a>(
        &self,
        config: &RunConfig,
        features: &LabelledFeatures,
        context: &'a Context,
    ) -> KeptRun<'a> {
        let inputs = RunInputs {
            config,
            data: &features.fingerprint,
            space: &features.space,
        };
        let begin = if config.sweep.is_some() {
            RunWriter::create_sweep
        } else {
            RunWriter::create
        };
        let begun = (!self.no_run).then(|| begin(&self.runs, &self.name_of(&config.dataset.named), &inputs));
        let mut kept = KeptRun { writer: None, context };
        kept.writer = begun.and_then(|begun| kept.warned(begun));
        kept
    }

    fn name_of(&self, dataset: &Path) -> String {
        let name = self.run_name.clone();
        name.or_else(|| Some(dataset.file_stem()?.to_string_lossy().into_owned()))
            .unwrap_or_default()
    }
}

impl KeptRun<'_> {
    /// Ends the run; its folder, where it is kept. Call it when the head is at its place.
    pub(in crate::cli) fn finish(mut self, training: &Training, metrics: &Value, head: &HeadFile) -> Option<PathBuf> {
        let writer = self.writer.take()?;
        self.warned(writer.finish(training, metrics, head))
    }

    /// Ends a sweep; see [`RunWriter::finish_sweep`]. `interruption`: how far it came, where it was stopped.
    pub(in crate::cli) fn finish_sweep(
        mut self,
        config: &RunConfig,
        csv: &str,
        leaderboard: &Value,
        metrics: &Value,
        interruption: Option<&str>,
    ) -> Option<PathBuf> {
        let writer = self.writer.take()?;
        let ended = writer.replace_config(config).and_then(|()| match interruption {
            None => writer.finish_sweep(csv, leaderboard, metrics),
            Some(problem) => writer.interrupt_sweep(csv, leaderboard, metrics, problem),
        });
        self.warned(ended)
    }

    /// Begins the run of one of a sweep's heads.
    pub(in crate::cli) fn child(&self, name: &str, config: &RunConfig) -> Self {
        let writer = self.writer.as_ref().map(|writer| writer.child(name, config));
        Self {
            writer: writer.and_then(|begun| self.warned(begun)),
            context: self.context,
        }
    }

    /// Puts a file of this name into the run's folder.
    pub(in crate::cli) fn attach(&self, name: &str, bytes: &[u8]) {
        if let Some(writer) = &self.writer {
            self.warned(writer.attach(name, bytes));
        }
    }

    /// Passes `result` on; an error is written into the run, which ends with it.
    ///
    /// # Errors
    /// That of `result`.
    pub(in crate::cli) fn watch<T>(&mut self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result
            && let Some(writer) = self.writer.take()
        {
            self.warned(match error {
                Error::Interrupted => writer.interrupt("stopped before its end"),
                error => writer.fail(&error.to_string()),
            });
        }
        result
    }

    fn warned<T>(&self, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                let text = format!("the run is not kept: {error}");
                self.context.observer.warn(&text);
                None
            }
        }
    }
}

impl Drop for KeptRun<'_> {
    /// What was begun and not finished ended with an error, which the user was told.
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            let _ = writer.fail("it ended before it was complete");
        }
    }
}
