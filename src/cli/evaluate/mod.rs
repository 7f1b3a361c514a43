//! `lastlayer evaluate`.

mod tables;
mod text;

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use regex::Regex;
use serde::Serialize;
use serde_json::{Value, json};

use super::context::Context;
use super::extract::InputArguments;
use super::output::{Ending, Result, check_output, counted, print_json};
use super::progress::catch_interrupts;
use crate::disk::Output;
use crate::error::Error;
use crate::evaluation::{EvaluatedSplit, Evaluation, EvaluationRequest, Optimism, SeenBefore, TestUse, evaluate};
use crate::head::HeadFile;
use crate::metrics::Report;
use crate::observer::Observer;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The data set, as it was given to `extract`, or its `--name`
    dataset: PathBuf,
    /// Head file that train-head wrote
    #[arg(long, value_name = "FILE")]
    head: PathBuf,
    /// Which pictures: those that heads are selected on, or others. Ask for `test` once, when all is decided
    #[arg(long, value_name = "SPLIT", value_enum, default_value = "val")]
    split: SplitArgument,
    /// Share of each class that validates, where the data set has no val split [default: the head's]
    #[arg(long, value_name = "F")]
    val_fraction: Option<f64>,
    /// Keep pictures together whose path gives the same text here [default: the head's]
    #[arg(long, value_name = "REGEX")]
    group_by: Option<Regex>,
    /// Leave out pictures of classes that the head does not know
    #[arg(long)]
    skip_unknown: bool,
    /// File to write the JSON to
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write PREFIX.csv with a line for each picture, PREFIX.classes.csv and PREFIX.confusion.csv
    #[arg(long, value_name = "PREFIX")]
    csv: Option<PathBuf>,
    #[command(flatten)]
    input: InputArguments,
}

/// How the names of the tables of `--csv` end: pictures, classes, confusion.
const TABLES: [&str; 3] = [".csv", ".classes.csv", ".confusion.csv"];

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SplitArgument {
    Train,
    Val,
    Test,
    All,
}

impl From<SplitArgument> for EvaluatedSplit {
    fn from(argument: SplitArgument) -> Self {
        match argument {
            SplitArgument::Train => Self::Train,
            SplitArgument::Val => Self::Val,
            SplitArgument::Test => Self::Test,
            SplitArgument::All => Self::All,
        }
    }
}

/// The command's JSON.
#[derive(Debug, Serialize)]
struct Json<'a> {
    head: String,
    dataset: String,
    split: EvaluatedSplit,
    /// Why the numbers are too good, as far as it is known.
    optimistic_because: &'a [Optimism],
    /// How many of the pictures the head was trained and selected on; null of heads that don't say which these were.
    seen: Option<SeenBefore>,
    /// How many heads were scored on this test split, this one included; null where it was not looked at.
    test_uses: Option<usize>,
    first_test_use: Option<&'a TestUse>,
    #[serde(flatten)]
    report: &'a Report,
    unlabelled_images: usize,
    unknown_images: usize,
    failed_images: usize,
}

pub(super) fn run(arguments: Arguments, context: &Context) -> Result<Ending> {
    catch_interrupts();
    let tables = arguments
        .csv
        .iter()
        .flat_map(|prefix| TABLES.map(|suffix| with_suffix(prefix, suffix)));
    let files: Vec<PathBuf> = arguments.output.iter().cloned().chain(tables).collect();
    files.iter().try_for_each(|path| check_output(path))?;
    let head = HeadFile::load(&arguments.head)?;
    context.check_precision(&arguments.head, &head.meta.space)?;
    let request = EvaluationRequest {
        input: arguments.input.options(),
        split: arguments.split.into(),
        val_fraction: arguments.val_fraction,
        group_by: arguments.group_by,
        skip_unknown: arguments.skip_unknown,
    };
    let path = arguments.head.as_path();
    let evaluation = evaluate(&context.cache, &arguments.dataset, (path, &head), &request)?;
    warn(&evaluation, context);
    let json = as_json(&evaluation, path);
    if let Some(file) = &arguments.output {
        write_file(file, &|out| {
            serde_json::to_writer(&mut *out, &json).map_err(std::io::Error::from)?;
            writeln!(out)
        })?;
    }
    if let Some(prefix) = &arguments.csv {
        let [pictures, classes, confusion] = TABLES.map(|suffix| with_suffix(prefix, suffix));
        write_file(&pictures, &|out| tables::pictures(out, &evaluation))?;
        write_file(&classes, &|out| tables::classes(out, &evaluation.report))?;
        write_file(&confusion, &|out| tables::confusion(out, &evaluation.report))?;
    }
    if context.json {
        print_json(&json)?;
    } else {
        let mut out = std::io::stdout().lock();
        text::write(&mut out, &evaluation, path)?;
        out.flush()?;
    }
    Ok(Ending::Done)
}

fn as_json(evaluation: &Evaluation, head: &Path) -> Value {
    let uses = evaluation.test_uses.as_ref();
    json!(Json {
        head: head.display().to_string(),
        dataset: evaluation.dataset.display().to_string(),
        split: evaluation.split,
        optimistic_because: &evaluation.optimism,
        seen: evaluation.seen,
        test_uses: uses.map(|uses| uses.heads),
        first_test_use: uses.and_then(|uses| uses.first.as_ref()),
        report: &evaluation.report,
        unlabelled_images: evaluation.unlabelled_images,
        unknown_images: evaluation.unknown_images,
        failed_images: evaluation.failed_images,
    })
}

fn warn(evaluation: &Evaluation, context: &Context) {
    for warning in &evaluation.warnings {
        context.observer.warn(warning);
    }
    let left_out = [
        (evaluation.failed_images, "that `extract` could not read"),
        (evaluation.unlabelled_images, "without a label"),
        (evaluation.unknown_images, "of a class that the head does not know"),
    ];
    for (count, which) in left_out.into_iter().filter(|(count, _)| *count > 0) {
        let pictures = counted(count, "picture");
        context.observer.warn(&format!("{pictures} {which}: left out"));
    }
}

/// `prefix` with `suffix` behind it; a dot in the prefix is part of the name.
fn with_suffix(prefix: &Path, suffix: &str) -> PathBuf {
    let mut name = prefix.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Writes a file that is there whole or not at all.
fn write_file(path: &Path, content: &dyn Fn(&mut dyn Write) -> std::io::Result<()>) -> Result<(), Error> {
    let mut file = Output::create(path)?;
    let mut out = std::io::BufWriter::new(&mut file);
    content(&mut out)
        .and_then(|()| out.flush())
        .map_err(Error::io("write", path))?;
    drop(out);
    file.finish()
}
