//! `lastlayer predict`.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::context::Context;
use super::extract::ReadingArguments;
use super::inputs::Inputs;
use super::output::{Ending, Failure, Result, counted};
use super::progress::catch_interrupts;
use crate::backbone::Backbone;
use crate::disk::Output;
use crate::error::Error;
use crate::head::HeadMeta;
use crate::observer::Observer;
use crate::picture::Limits;
use crate::predict::{Classifier, PredictOptions, Prediction};
use crate::views::{MOST_VIEWS, RandomViews};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Pictures, folders, patterns, or - for a list of paths on stdin
    #[arg(required = true, value_name = "PICTURE|DIR|GLOB|-")]
    pictures: Vec<PathBuf>,
    /// Head file that train-head wrote
    #[arg(long, value_name = "FILE")]
    head: PathBuf,
    /// Backbone, if it no longer lies where the head was trained
    #[arg(long, value_name = "NAME|FILE.onnx")]
    backbone: Option<String>,
    /// Classes to name for each picture
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    top_k: u32,
    /// Average the probabilities of the plain view and K random ones, those of `extract --views`
    #[arg(long, value_name = "K", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=i64::from(MOST_VIEWS)))]
    tta: u16,
    /// Seed of the random views
    #[arg(long, value_name = "N", default_value_t = 0)]
    views_seed: u16,
    /// Print CSV with a header line
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// File to write the predictions to [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    reading: ReadingArguments,
}

pub(super) fn run(arguments: Arguments, context: &Context) -> Result<Ending> {
    let inputs = Inputs::expand(&arguments.pictures, &mut std::io::stdin().lock())?;
    // Only now: reading a list from a terminal can't be asked to stop, it must be stopped.
    catch_interrupts();
    for warning in &inputs.warnings {
        context.observer.warn(warning);
    }
    if inputs.left_out > 0 {
        context.observer.warn(&format!(
            "left out: {} in folders",
            counted(inputs.left_out, "file without a picture's name")
        ));
    }
    if inputs.files.is_empty() {
        return Err(Error::Usage("there is no picture to classify".to_owned()).into());
    }
    let format = match (context.json, arguments.csv) {
        (true, _) => Format::Json,
        (_, true) => Format::Csv,
        _ => Format::Text,
    };
    let job = Job {
        head: &arguments.head,
        backbone: arguments.backbone.as_deref(),
        top_k: arguments.top_k as usize,
        batch_size: arguments.reading.batch_size as usize,
        limits: arguments.reading.limits(),
        views: RandomViews::new(arguments.tta.into(), arguments.views_seed.into())?,
        format,
    };
    let ending = match &arguments.output {
        None if std::io::stdout().is_terminal() => {
            context.observer.hide_bar();
            job.run(&inputs.files, &mut std::io::stdout().lock(), context)
        }
        None => job.run(&inputs.files, &mut std::io::stdout().lock(), context),
        Some(path) => {
            let mut file = Output::create(path)?;
            let ending = job.run(&inputs.files, &mut std::io::BufWriter::new(&mut file), context)?;
            file.finish()?;
            Ok(ending)
        }
    }?;
    // What was named and is not there was skipped as much as what can't be read.
    Ok(if inputs.warnings.is_empty() {
        ending
    } else {
        Ending::InputsSkipped
    })
}

/// How predictions are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Json,
    Csv,
}

/// What is to be predicted with, and how it is written.
pub(super) struct Job<'a> {
    pub(super) head: &'a Path,
    pub(super) backbone: Option<&'a str>,
    pub(super) top_k: usize,
    pub(super) batch_size: usize,
    pub(super) limits: Limits,
    pub(super) views: RandomViews,
    pub(super) format: Format,
}

impl Job<'_> {
    pub(super) fn run(&self, files: &[PathBuf], out: &mut dyn Write, context: &Context) -> Result<Ending> {
        let classifier = Classifier::load(self.head)?;
        let meta = &classifier.file().meta;
        context.check_precision(self.head, &meta.space)?;
        if classifier.other_decoder() {
            context.observer.warn(
                "the head was trained on pictures decoded by another version: probabilities may differ in the last digits",
            );
        }
        let named = match self.backbone {
            // Asked for by name, it is checked whether or not a picture needs it.
            Some(name) => Some(open_named(name, &classifier, context)?),
            None => None,
        };
        let backbone = || named.clone().map_or_else(|| find_backbone(&classifier, context), Ok);
        let options = PredictOptions {
            inference: context.inference(self.batch_size),
            limits: self.limits,
            top_k: self.top_k.min(meta.classes.len()),
            views: self.views,
        };
        let mut writer = Writer::new(self.format, &meta.classes, options.top_k);
        writer.header(out)?;
        let mut skipped = 0;
        let mut broken = None;
        let predicted = classifier.predict(
            files,
            &backbone,
            &context.cache,
            &options,
            &context.observer,
            &mut |prediction| {
                skipped += usize::from(prediction.outcome.is_err());
                writer
                    .write(out, &prediction)
                    .and_then(|()| Ok(out.flush()?))
                    .map_err(|failure| {
                        broken = Some(failure);
                        Error::Interrupted
                    })
            },
        );
        match (broken, predicted) {
            (Some(failure), _) => Err(failure),
            (None, Err(error)) => Err(error.into()),
            (None, Ok(())) => Ok(Ending::with_skipped(skipped)),
        }
    }
}

fn open_named(name: &str, classifier: &Classifier, context: &Context) -> Result<Arc<Backbone>, Error> {
    let backbone = context.backbone(name, Some(&classifier.space().feature))?;
    classifier.check(&backbone)?;
    Ok(backbone)
}

/// The backbone that the head names: where it lay, or by its name.
fn find_backbone(classifier: &Classifier, context: &Context) -> Result<Arc<Backbone>, Error> {
    let HeadMeta {
        backbone: name,
        backbone_file,
        ..
    } = &classifier.file().meta;
    let feature = Some(classifier.space().feature.as_str());
    if backbone_file.is_file() {
        context.backbone_file(name, backbone_file, feature)
    } else {
        context.backbone(name, feature)
    }
}

/// Writes predictions one by one.
struct Writer<'a> {
    format: Format,
    classes: &'a [String],
    top_k: usize,
    width: usize,
}

impl<'a> Writer<'a> {
    fn new(format: Format, classes: &'a [String], top_k: usize) -> Self {
        let width = classes.iter().map(|class| class.chars().count()).max().unwrap_or(0);
        Self {
            format,
            classes,
            top_k,
            width,
        }
    }

    fn header(&self, out: &mut dyn Write) -> Result<()> {
        if self.format != Format::Csv {
            return Ok(());
        }
        let mut fields = vec!["path".to_owned(), "label".to_owned(), "probability".to_owned()];
        for rank in 2..=self.top_k {
            fields.extend([format!("label_{rank}"), format!("probability_{rank}")]);
        }
        fields.extend(["error".to_owned(), "detail".to_owned()]);
        write_csv(out, &fields)
    }

    fn write(&mut self, out: &mut dyn Write, prediction: &Prediction<'_>) -> Result<()> {
        match self.format {
            Format::Text => self.write_text(out, prediction),
            Format::Json => self.write_json(out, prediction),
            Format::Csv => self.write_csv(out, prediction),
        }
    }

    fn write_text(&self, out: &mut dyn Write, prediction: &Prediction<'_>) -> Result<()> {
        let path = prediction.path.display();
        match &prediction.outcome {
            Ok(ranked) => {
                for class in ranked {
                    let label = &self.classes[class.class];
                    write!(
                        out,
                        "{:>5.1} %  {label:width$}  ",
                        class.probability * 100.0,
                        width = self.width
                    )?;
                }
                writeln!(out, "{path}")?;
            }
            Err(error) => writeln!(out, "error: {path}: {}: {}", error.reason, error.detail)?,
        }
        Ok(())
    }

    fn write_json(&self, out: &mut dyn Write, prediction: &Prediction<'_>) -> Result<()> {
        let value = match &prediction.outcome {
            Ok(ranked) => {
                let top: Vec<_> = ranked
                    .iter()
                    .map(|class| json!({"label": self.classes[class.class], "probability": class.probability}))
                    .collect();
                json!({
                    "path": prediction.path.to_string_lossy(),
                    "label": self.classes[ranked[0].class],
                    "probability": ranked[0].probability,
                    "top": top,
                })
            }
            Err(error) => json!({
                "path": prediction.path.to_string_lossy(),
                "error": {"reason": error.reason, "detail": error.detail},
            }),
        };
        serde_json::to_writer(&mut *out, &value).map_err(std::io::Error::from)?;
        Ok(writeln!(out)?)
    }

    fn write_csv(&self, out: &mut dyn Write, prediction: &Prediction<'_>) -> Result<()> {
        let mut fields = vec![prediction.path.to_string_lossy().into_owned()];
        match &prediction.outcome {
            Ok(ranked) => {
                for class in ranked {
                    fields.extend([self.classes[class.class].clone(), class.probability.to_string()]);
                }
                fields.extend([String::new(), String::new()]);
            }
            Err(error) => {
                fields.extend(std::iter::repeat_n(String::new(), 2 * self.top_k));
                fields.extend([error.reason.to_string(), error.detail.clone()]);
            }
        }
        write_csv(out, &fields)
    }
}

fn write_csv(out: &mut dyn Write, fields: &[String]) -> Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    let written = writer.write_record(fields).and_then(|()| Ok(writer.flush()?));
    written.map_err(|error| match error.into_kind() {
        csv::ErrorKind::Io(error) => Failure::from(error),
        other => Failure::Output(std::io::Error::other(format!("{other:?}"))),
    })
}
