//! `lastlayer extract`.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::context::Context;
use super::models::describe;
use super::output::{Ending, Result, counted, print_json};
use super::progress::catch_interrupts;
use crate::cache::FAILURES_FILE;
use crate::dataset::{Dataset, Ignored, InputOptions, Opened, TableColumns};
use crate::disk;
use crate::engine::InferenceOptions;
use crate::error::Error;
use crate::extract::{ExtractOptions, ExtractReport, Failure as ExtractFailure, FailureLimit, extract, extract_stream};
use crate::observer::Observer;
use crate::picture::{Decode, Exif, Limits, Truncated};
use crate::profile::Profiler;
use crate::quantize::{QuantizeOptions, QuantizeReport, quantized_for};
use crate::space::{FeatureOptions, Precision};
use crate::views::{MOST_VIEWS, RandomViews};

/// Failures listed one by one for people; `--json` lists all.
const LISTED_FAILURES: usize = 20;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Folder with train/, val/ [and test/], or with one folder per class; a table (.csv .tsv .jsonl .parquet); tar shards
    /// (`shard-{000..012}.tar`, or their folder); or `-` for a list of paths or a tar on stdin
    dataset: PathBuf,
    #[command(flatten)]
    backbone: BackboneArguments,
    #[command(flatten)]
    features: FeatureArguments,
    #[command(flatten)]
    reading: ReadingArguments,
    /// Random views to store of each training picture besides the plain one (of every labelled picture, where there is no
    /// train split): parts of 8 to 100 % of its area, half of them mirrored, as torchvision trains
    #[arg(long, value_name = "K", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=i64::from(MOST_VIEWS)))]
    views: u16,
    /// Seed of the random views
    #[arg(long, value_name = "N", default_value_t = 0)]
    views_seed: u16,
    /// Where to write a trace of what each thread does when, for Perfetto or chrome://tracing
    #[arg(long, value_name = "FILE.json")]
    profile: Option<PathBuf>,
    /// Hash every file, even where size and times say that it did not change
    #[arg(long)]
    rehash: bool,
    // Those with a heading of their own are last: it goes for all that follows.
    #[command(flatten)]
    input: InputArguments,
    #[command(flatten)]
    failures: FailureArguments,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Failures")]
struct FailureArguments {
    /// Stop as failed when more pictures than this fail: a number, or a percentage of the data set [default: any number]
    #[arg(long, value_name = "N|P%")]
    max_failures: Option<FailureLimit>,
    /// Stop as failed at the first picture that fails
    #[arg(long, conflicts_with = "max_failures")]
    fail_fast: bool,
    /// Where the failed pictures are listed as CSV [default: failures.csv in the cache]
    #[arg(long, value_name = "FILE")]
    failures: Option<PathBuf>,
}

impl FailureArguments {
    fn limit(&self) -> FailureLimit {
        match self.fail_fast {
            true => FailureLimit::Count(0),
            false => self.max_failures.unwrap_or_default(),
        }
    }
}

/// How a data set is read, where it is no folder.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tables, lists and streams")]
pub(super) struct InputArguments {
    /// Column with the pictures' paths [default: path, file, filename, image …]
    #[arg(long, value_name = "NAME")]
    path_column: Option<String>,
    /// Column with the labels [default: label, class, category, target …]
    #[arg(long, value_name = "NAME")]
    label_column: Option<String>,
    /// Column with train, val or test [default: split, subset, partition …]
    #[arg(long, value_name = "NAME")]
    split_column: Option<String>,
    /// Folder that relative paths start from [default: the table's; for a list the current one]
    #[arg(long, value_name = "DIR")]
    image_root: Option<PathBuf>,
    /// Name to remember the data set by, for `train-head NAME` after a stream [default: its path]
    #[arg(long, value_name = "NAME")]
    name: Option<PathBuf>,
}

impl InputArguments {
    pub(super) fn options(self) -> InputOptions {
        InputOptions {
            columns: TableColumns {
                path: self.path_column,
                label: self.label_column,
                split: self.split_column,
            },
            image_root: self.image_root,
            name: self.name,
        }
    }

    /// The first option that was given.
    pub(super) fn given(&self) -> Option<&'static str> {
        let options = [
            ("--path-column", self.path_column.is_some()),
            ("--label-column", self.label_column.is_some()),
            ("--split-column", self.split_column.is_some()),
            ("--image-root", self.image_root.is_some()),
            ("--name", self.name.is_some()),
        ];
        options.iter().find(|(_, given)| *given).map(|(name, _)| *name)
    }
}

#[derive(Debug, Args)]
pub(super) struct BackboneArguments {
    /// Backbone: a name such as resnet18, or an ONNX file
    #[arg(long, value_name = "NAME|FILE.onnx", default_value = "resnet18")]
    pub(super) backbone: String,
    /// Tensor of the backbone to take as the feature [default: the input of its last layer]
    #[arg(long, value_name = "TENSOR")]
    pub(super) feature: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct ReadingArguments {
    /// Pictures per run of the backbone [default: 4, on a GPU 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    batch_size: Option<u32>,
    /// Threads that decode pictures; on the CPU they run the backbone too [default: as many as --threads]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    decode_threads: Option<u32>,
    /// Largest picture to decode, in pixels
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_pixels)]
    pub(super) max_pixels: u64,
    /// Longest file to read, in bytes
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_file_bytes)]
    pub(super) max_file_bytes: u64,
    /// Take what there is of a JPEG or PNG that is cut off, instead of refusing it
    #[arg(long)]
    pub(super) accept_truncated: bool,
}

impl ReadingArguments {
    pub(super) fn inference(&self, context: &Context) -> InferenceOptions {
        InferenceOptions {
            decode_threads: self.decode_threads.map(|threads| threads as usize),
            batch_size: self.batch_size.map(|size| size as usize),
            ..context.inference()
        }
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            max_pixels: self.max_pixels,
            max_file_bytes: self.max_file_bytes,
            truncated: match self.accept_truncated {
                true => Truncated::Accept,
                false => Truncated::Reject,
            },
        }
    }
}

/// How features are made, besides the backbone.
#[derive(Debug, Args)]
pub(super) struct FeatureArguments {
    /// What becomes of the EXIF orientation of pictures
    #[arg(long, value_name = "RULE", value_enum, default_value = "apply")]
    exif: ExifArgument,
    /// How much of large JPEGs is decoded
    #[arg(long, value_name = "HOW", value_enum, default_value = "exact")]
    decode: DecodeArgument,
}

impl FeatureArguments {
    pub(super) fn options(&self, context: &Context) -> FeatureOptions {
        FeatureOptions {
            exif: self.exif.into(),
            decode: self.decode.into(),
            precision: context.precision.unwrap_or_default(),
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum DecodeArgument {
    /// All pixels, as torchvision does
    Exact,
    /// Of JPEGs far larger than the crop a half to an eighth of the size, never below twice what is needed
    Fast,
}

impl From<DecodeArgument> for Decode {
    fn from(argument: DecodeArgument) -> Self {
        match argument {
            DecodeArgument::Exact => Self::Exact,
            DecodeArgument::Fast => Self::Fast,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ExifArgument {
    /// Turn pictures upright, as people see them
    Apply,
    /// Leave the pixels as they are stored, as torchvision does
    Ignore,
}

impl From<ExifArgument> for Exif {
    fn from(argument: ExifArgument) -> Self {
        match argument {
            ExifArgument::Apply => Self::Apply,
            ExifArgument::Ignore => Self::Ignore,
        }
    }
}

pub(super) fn run(arguments: Arguments, context: &Context) -> Result<Ending> {
    let opened = Dataset::open(
        &arguments.dataset,
        &arguments.input.options(),
        Box::new(std::io::stdin()),
    )?;
    if let Some(file) = &arguments.failures.failures {
        require_folder_of(file, "--failures")?;
    }
    if let Some(file) = &arguments.profile {
        require_folder_of(file, "--profile")?;
    }
    // Only now: reading a list from a terminal can't be asked to stop, it must be stopped.
    catch_interrupts();
    if let Opened::Listed(dataset) = &opened {
        report_warnings(&dataset.warnings, &dataset.ignored, context);
    }
    let BackboneArguments { backbone, feature } = &arguments.backbone;
    let backbone = context.backbone(backbone, feature.as_deref())?;
    for note in backbone.notes() {
        context.observer.note(&note);
    }
    let features = arguments.features.options(context);
    let (backbone, quantized) = match features.precision {
        Precision::Int8 if !backbone.is_quantized() => {
            let Opened::Listed(dataset) = &opened else {
                return Err(Error::Options {
                    problem: "a stream can be read once, and int8 must be calibrated before".to_owned(),
                    hint: format!(
                        "run `lastlayer models quantize {} --calibrate DATASET` on pictures of the same kind, then `extract` \
                         with --backbone and the file that it writes",
                        arguments.backbone.backbone
                    ),
                }
                .into());
            };
            let options = quantize_options(features, &arguments.reading, context);
            quantized_for(&backbone, dataset, &context.cache, &options, &context.observer)?
        }
        _ => (backbone, None),
    };
    let options = ExtractOptions {
        inference: arguments.reading.inference(context),
        features,
        limits: arguments.reading.limits(),
        rehash: arguments.rehash,
        max_failures: arguments.failures.limit(),
        views: RandomViews::new(arguments.views.into(), arguments.views_seed.into())?,
    };
    let listed_in = arguments.failures.failures.as_deref();
    if let Some(file) = &arguments.profile {
        context.observer.profile(Profiler::create(file, "lastlayer extract")?);
    }
    let report = match opened {
        Opened::Listed(dataset) => extract(&dataset, &backbone, &context.cache, &options, &context.observer),
        Opened::Streamed(stream) => extract_stream(stream, &backbone, &context.cache, &options, &context.observer),
    };
    let traced = context.observer.profiler().map_or(Ok(()), Profiler::finish);
    if let (Err(_), Err(problem)) = (&report, &traced) {
        context.observer.warn(&format!("the trace is lost: {problem}"));
    }
    let report = match report {
        Err(Error::TooManyFailures {
            failures,
            failed,
            limit,
        }) => {
            write_failures(&failures, listed_in, context)?;
            return Err(Error::TooManyFailures {
                failures,
                failed,
                limit,
            }
            .into());
        }
        report => report?,
    };
    let listed_in = write_failures(&report.failures, listed_in, context)?;
    for line in report.problems.lines() {
        context.observer.warn(&line);
    }
    if context.json {
        match &quantized {
            None => print_json(&report)?,
            Some(quantization) => print_json(&WithQuantization {
                report: &report,
                quantization,
            })?,
        }
    } else {
        for line in quantized.iter().flat_map(describe) {
            writeln!(std::io::stdout(), "{line}")?;
        }
        print_report(&report, listed_in.as_deref())?;
    }
    // The features are there all the same: that was reported first.
    traced?;
    Ok(Ending::with_skipped(report.failed))
}

/// An extraction in int8 with the report of the backbone that was made for it.
#[derive(Serialize)]
struct WithQuantization<'a> {
    #[serde(flatten)]
    report: &'a ExtractReport,
    quantization: &'a QuantizeReport,
}

/// How a backbone is quantised on the fly.
fn quantize_options(features: FeatureOptions, reading: &ReadingArguments, context: &Context) -> QuantizeOptions {
    QuantizeOptions {
        features,
        limits: reading.limits(),
        ..QuantizeOptions::new(reading.inference(context))
    }
}

/// Better known before hours of work than after.
fn require_folder_of(file: &Path, option: &str) -> Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    if file.is_dir() || !folder.is_dir() {
        let problem = if file.is_dir() {
            "is a folder"
        } else {
            "is in a folder that is not there"
        };
        let message = format!("`{}`, given as {option}, {problem}", file.display());
        return Err(Error::Usage(message).into());
    }
    Ok(())
}

/// Lists the failed pictures in `file`, or in the cache: that list is of the last run, and gone when nothing failed.
fn write_failures(failures: &[ExtractFailure], file: Option<&Path>, context: &Context) -> Result<Option<PathBuf>> {
    let path = file.map_or_else(|| context.cache.root().join(FAILURES_FILE), Path::to_path_buf);
    if failures.is_empty() && file.is_none() {
        return match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(error).into()),
            _ => Ok(None),
        };
    }
    let mut table = csv::Writer::from_writer(disk::Output::create(&path)?);
    let failed = |error: csv::Error| Error::io("write", &path)(error.into());
    table.write_record(["path", "reason", "detail"]).map_err(failed)?;
    for failure in failures {
        let reason = failure.reason.to_string();
        let fields = [
            failure.path.as_os_str().as_encoded_bytes(),
            reason.as_bytes(),
            failure.detail.as_bytes(),
        ];
        table.write_record(fields).map_err(failed)?;
    }
    let output = table
        .into_inner()
        .map_err(|error| Error::io("write", &path)(error.into_error()))?;
    output.finish()?;
    Ok(Some(path))
}

pub(super) fn report_warnings(warnings: &[String], ignored: &Ignored, context: &Context) {
    for warning in warnings {
        context.observer.warn(warning);
    }
    let Ignored {
        hidden,
        foreign,
        examples,
    } = ignored;
    if hidden + foreign > 0 {
        let examples: Vec<String> = examples.iter().map(|path| path.display().to_string()).collect();
        let more = if (examples.len() as u64) < hidden + foreign {
            ", …"
        } else {
            ""
        };
        context.observer.warn(&format!(
            "left out: {foreign} other and {hidden} hidden files or folders ({}{more})",
            examples.join(", ")
        ));
    }
}

pub(super) fn print_report(report: &ExtractReport, failures: Option<&Path>) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{}: {} computed, {} reused, {} failed  ({:.1} s, {:.1} images/s)",
        counted(report.images, "image"),
        report.computed,
        report.reused,
        report.failed,
        report.seconds,
        report.images_per_second
    )?;
    if report.views > 0 {
        writeln!(
            out,
            "{}: {} computed, {} reused",
            counted(report.views, "random view"),
            report.views_computed,
            report.views_reused
        )?;
    }
    if report.duplicates > 0 {
        writeln!(
            out,
            "{} of the computed equal another one and went through the backbone once",
            report.duplicates
        )?;
    }
    if report.partial > 0 {
        let partial = counted(report.partial, "picture");
        writeln!(out, "of {partial} only a part is there, and was taken")?;
    }
    if report.unlabelled > 0 {
        writeln!(out, "{} without a label", counted(report.unlabelled, "picture"))?;
    }
    for failure in report.failures.iter().take(LISTED_FAILURES) {
        writeln!(
            out,
            "  {}: {}: {}",
            failure.path.display(),
            failure.reason,
            failure.detail
        )?;
    }
    if report.failures.len() > LISTED_FAILURES {
        writeln!(out, "  and {} more", report.failures.len() - LISTED_FAILURES)?;
    }
    if let Some(path) = failures {
        writeln!(out, "the failed are listed in {}", path.display())?;
    }
    let dim = report.feature_dim.map_or("no".to_owned(), |dim| format!("{dim}-d"));
    writeln!(
        out,
        "{dim} features in {}, space {}",
        report.cache.display(),
        &report.space[..8]
    )?;
    if let (Some(bottleneck), Some(device)) = (report.bottleneck, &report.device) {
        let shares = report
            .busy
            .shares()
            .map(|(stage, share)| (stage, format!("{:.0} %", share * 100.0)));
        let (busiest, others): (Vec<_>, Vec<_>) = shares.into_iter().partition(|(stage, _)| *stage == bottleneck);
        let others = others.iter().map(|(stage, share)| format!(", {stage} {share}"));
        let busiest = busiest.iter().map(|(_, share)| share.as_str());
        writeln!(
            out,
            "bound by {bottleneck} on {device}: {} busy{}",
            busiest.collect::<String>(),
            others.collect::<String>()
        )?;
    }
    Ok(out.flush()?)
}
