//! `lastlayer demo`: the main job with nothing at hand.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Parser};

use super::context::Context;
use super::drawing::{CLASSES, draw_dataset};
use super::output::{Ending, Result};
use super::progress::catch_interrupts;
use super::{Cli, dispatch};
use crate::backbone::{Patience, untrained_resnet18};
use crate::error::Error;
use crate::observer::Observer;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Folder for the pictures, the cache and the head
    #[arg(short, long, value_name = "DIR", default_value = "lastlayer-demo")]
    output: PathBuf,
    /// Backbone [default: resnet18, else mobilenet_v2, else an untrained network]
    #[arg(long, value_name = "NAME|FILE.onnx")]
    backbone: Option<String>,
}

/// Backbones to try, best first.
const TRAINED: [&str; 2] = ["resnet18", "mobilenet_v2"];

pub(super) fn run(arguments: Arguments, context: &Context) -> Result<Ending> {
    if context.json {
        return Err(Error::Usage("`demo` is for people to read: it has no JSON".to_owned()).into());
    }
    catch_interrupts();
    let folder = &arguments.output;
    let pictures = folder.join("shapes");
    draw_dataset(&pictures)?;
    say(&format!(
        "drew pictures of {} into {}",
        CLASSES.join(", "),
        pictures.display()
    ))?;
    let (backbone, trained) = match arguments.backbone {
        Some(backbone) => (backbone, true),
        None => find_backbone(folder, context)?,
    };

    let cache = folder.join("cache");
    let head = folder.join("head.safetensors");
    let val = pictures.join("val");
    let runs = folder.join("runs");
    let (pictures, cache, head, runs) = (text(&pictures)?, text(&cache)?, text(&head)?, text(&runs)?);
    let extract = ["extract", pictures, "--backbone", &backbone, "--cache", cache];
    let train = [
        "train-head",
        pictures,
        "--backbone",
        &backbone,
        "--cache",
        cache,
        "-o",
        head,
        "--runs",
        runs,
        "--epochs",
        "5",
    ];
    let mut predict = vec![
        "predict".to_owned(),
        "--head".to_owned(),
        head.to_owned(),
        "--cache".to_owned(),
        cache.to_owned(),
    ];
    for class in CLASSES {
        predict.push(text(&val.join(class).join("00.png"))?.to_owned());
    }
    let predict: Vec<&str> = predict.iter().map(String::as_str).collect();
    for step in [&extract[..], &train[..], &predict[..]] {
        say(&format!("\n$ lastlayer {}", step.join(" ")))?;
        let arguments = [&["lastlayer"], step].concat();
        let arguments = arguments.iter().map(ToString::to_string).chain(context.options_again());
        let cli = Cli::try_parse_from(arguments).map_err(|error| Error::Usage(error.to_string()))?;
        dispatch(cli.command, &Context::new(cli.common)?)?;
    }

    // The untrained network is no advice for anybody's own pictures.
    let backbone = if backbone == TRAINED[0] || !trained {
        String::new()
    } else {
        format!(" --backbone {backbone}")
    };
    say(&format!(
        "\nFor your own pictures, in PICTURES/train/<class>/ and PICTURES/val/<class>/ (or just PICTURES/<class>/):\n\n  \
         lastlayer extract PICTURES{backbone}\n  \
         lastlayer train-head PICTURES\n  \
         lastlayer predict --head head.safetensors A_PICTURE.jpg"
    ))?;
    Ok(Ending::Done)
}

/// A trained backbone that is here or can be had; otherwise an untrained one, which is said loudly. Says which it is.
fn find_backbone(folder: &Path, context: &Context) -> Result<(String, bool)> {
    if let Some(name) = TRAINED.iter().find(|name| context.local_backbone(name).is_some()) {
        return Ok(((*name).to_owned(), true));
    }
    for name in TRAINED {
        match context.resolve(name, Patience::Short) {
            Ok(_) => return Ok((name.to_owned(), true)),
            Err(error @ (Error::Interrupted | Error::RuntimeMissing { .. })) => return Err(error.into()),
            Err(error) => {
                let reason = error.to_string();
                let lines: Vec<&str> = reason
                    .lines()
                    .take(2)
                    .map(|line| line.trim_start_matches("  - "))
                    .collect();
                say(&format!("{name} can't be had here ({})", lines.join("; ")))?;
            }
        }
    }
    let file = folder.join("untrained-resnet18.onnx");
    std::fs::write(&file, untrained_resnet18(0)?).map_err(Error::io("write", &file))?;
    context.observer.warn(
        "NO TRAINED BACKBONE: this demo runs on a ResNet18 with random weights. It shows how the program works, not how \
         well; never use this network for anything else",
    );
    Ok((text(&file)?.to_owned(), false))
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .ok_or_else(|| Error::Usage(format!("`{}` is not valid UTF-8", path.display())).into())
}
