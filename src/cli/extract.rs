//! `lastlayer extract`.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::context::Context;
use super::output::{Ending, Result, counted, print_json};
use super::progress::catch_interrupts;
use crate::dataset::{Dataset, Ignored};
use crate::engine::DEFAULT_BATCH_SIZE;
use crate::extract::{ExtractOptions, ExtractReport, extract};
use crate::observer::Observer;
use crate::picture::{Exif, Limits};

/// Failures listed one by one for people; `--json` lists all.
const LISTED_FAILURES: usize = 20;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Folder with train/, val/ [and test/], or with one folder per class
    dataset: PathBuf,
    #[command(flatten)]
    backbone: BackboneArguments,
    /// What becomes of the EXIF orientation of pictures
    #[arg(long, value_name = "RULE", value_enum, default_value = "apply")]
    exif: ExifArgument,
    #[command(flatten)]
    reading: ReadingArguments,
    /// Hash every file, even where size and times say that it did not change
    #[arg(long)]
    rehash: bool,
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
    /// Pictures per run of the backbone
    #[arg(long, value_name = "N", default_value_t = DEFAULT_BATCH_SIZE as u32, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(super) batch_size: u32,
    /// Largest picture to decode, in pixels
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_pixels)]
    pub(super) max_pixels: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ExifArgument {
    /// Turn pictures upright, as people see them
    Apply,
    /// Leave the pixels as they are stored, as torchvision does
    Ignore,
}

pub(super) fn run(arguments: Arguments, context: &Context) -> Result<Ending> {
    catch_interrupts();
    let dataset = Dataset::scan(&arguments.dataset)?;
    report_warnings(&dataset, context);
    let BackboneArguments { backbone, feature } = &arguments.backbone;
    let backbone = context.backbone(backbone, feature.as_deref())?;
    for note in backbone.notes() {
        context.observer.note(&note);
    }
    let options = ExtractOptions {
        inference: context.inference(arguments.reading.batch_size as usize),
        exif: match arguments.exif {
            ExifArgument::Apply => Exif::Apply,
            ExifArgument::Ignore => Exif::Ignore,
        },
        limits: Limits {
            max_pixels: arguments.reading.max_pixels,
            ..Limits::default()
        },
        rehash: arguments.rehash,
    };
    let report = extract(&dataset, &backbone, &context.cache, &options, &context.observer)?;
    if context.json {
        print_json(&report)?;
    } else {
        print_report(&report)?;
    }
    Ok(Ending::with_skipped(report.failed))
}

pub(super) fn report_warnings(dataset: &Dataset, context: &Context) {
    for warning in &dataset.warnings {
        context.observer.warn(warning);
    }
    let Ignored {
        hidden,
        foreign,
        examples,
    } = &dataset.ignored;
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

pub(super) fn print_report(report: &ExtractReport) -> Result<()> {
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
    if report.duplicates > 0 {
        writeln!(
            out,
            "{} of the computed equal another one and went through the backbone once",
            report.duplicates
        )?;
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
        writeln!(
            out,
            "  and {} more; --json lists all",
            report.failures.len() - LISTED_FAILURES
        )?;
    }
    if let (Some(bottleneck), Some(device)) = (report.bottleneck, &report.device) {
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        writeln!(
            out,
            "bound by {bottleneck} on {device}: inference {}, decode {}, disk {} busy",
            percent(report.busy.inference),
            percent(report.busy.decode),
            percent(report.busy.disk)
        )?;
    }
    let dim = report.feature_dim.map_or("no".to_owned(), |dim| format!("{dim}-d"));
    writeln!(
        out,
        "{dim} features in {}, space {}",
        report.cache.display(),
        &report.space[..8]
    )?;
    Ok(out.flush()?)
}
