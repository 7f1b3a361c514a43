//! `lastlayer models quantize`.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::super::context::Context;
use super::super::extract::{FeatureArguments, InputArguments};
use super::super::output::{Ending, Result, check_output, counted, print_json};
use super::super::progress::catch_interrupts;
use crate::backbone::WeightBits;
use crate::dataset::{Dataset, Opened};
use crate::disk::write_atomically;
use crate::error::Error;
use crate::observer::Observer;
use crate::quantize::{QuantizeOptions, QuantizeReport, quantize};

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// Backbone in fp32: a name such as resnet18, or an ONNX file
    #[arg(value_name = "NAME|FILE.onnx")]
    backbone: String,
    /// Data set with pictures of the kind that it will see; none of a val or test split is used to calibrate
    #[arg(long, value_name = "DATASET")]
    calibrate: PathBuf,
    /// Tensor of the backbone to take as the feature [default: the input of its last layer]
    #[arg(long, value_name = "TENSOR")]
    feature: Option<String>,
    /// Pictures to calibrate with
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..=4096))]
    images: u32,
    /// Seed of their choice
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Bits of the weights: 7 is for x86 processors without VNNI, where 8 overflow
    #[arg(long, value_name = "BITS", value_enum, default_value = "auto")]
    weight_bits: BitsArgument,
    /// File to write [default: NAME-int8.onnx in the current folder]
    #[arg(short, long, value_name = "FILE.onnx")]
    output: Option<PathBuf>,
    #[command(flatten)]
    features: FeatureArguments,
    #[command(flatten)]
    input: InputArguments,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum BitsArgument {
    /// What this computer's processor needs
    Auto,
    #[value(name = "8")]
    Eight,
    #[value(name = "7")]
    Seven,
}

impl From<BitsArgument> for WeightBits {
    fn from(argument: BitsArgument) -> Self {
        match argument {
            BitsArgument::Auto => Self::of_this_cpu(),
            BitsArgument::Eight => Self::Eight,
            BitsArgument::Seven => Self::Seven,
        }
    }
}

pub(super) fn run(arguments: Arguments, context: &Context) -> Result<Ending> {
    let output = arguments.output.unwrap_or_else(|| {
        let stem = Path::new(&arguments.backbone).file_stem().unwrap_or_default();
        PathBuf::from(format!("{}-int8.onnx", stem.to_string_lossy()))
    });
    check_output(&output)?;
    let options = QuantizeOptions {
        features: arguments.features.options(context),
        images: arguments.images as usize,
        seed: arguments.seed,
        weight_bits: arguments.weight_bits.into(),
        ..QuantizeOptions::new(context.inference())
    };
    let stdin = Box::new(std::io::stdin());
    let Opened::Listed(dataset) = Dataset::open(&arguments.calibrate, &arguments.input.options(), stdin)? else {
        return Err(Error::Options {
            problem: format!(
                "`{}` can be read once and from front to back only, but pictures must be chosen from it",
                arguments.calibrate.display()
            ),
            hint: "unpack it, or give a folder, a table or a list".to_owned(),
        }
        .into());
    };
    catch_interrupts();
    let backbone = context.backbone(&arguments.backbone, arguments.feature.as_deref())?;
    for note in backbone.notes() {
        context.observer.note(&note);
    }
    let mut made = quantize(&backbone, &dataset, &options, &context.observer)?;
    write_atomically(&output, &[&made.onnx])?;
    made.report.file = Some(output.to_string_lossy().into_owned());
    if context.json {
        print_json(&made.report)?;
    } else {
        let mut out = std::io::stdout().lock();
        for line in describe(&made.report) {
            writeln!(out, "{line}")?;
        }
        writeln!(out, "use it with `--backbone {}`", output.display())?;
        out.flush()?;
    }
    Ok(Ending::Done)
}

/// What was made and how good it is, a line each.
pub(in crate::cli) fn describe(report: &QuantizeReport) -> Vec<String> {
    let QuantizeReport {
        backbone,
        file,
        bytes,
        images,
        failed,
        weight_bits,
        fidelity,
        ..
    } = report;
    let skipped = match failed {
        0 => String::new(),
        failed => format!(", {failed} passed over that can't be read"),
    };
    let which = if fidelity.held_out {
        "others"
    } else {
        "of them (there are no others)"
    };
    let agreement = fidelity.head_agreement.map_or_else(String::new, |share| {
        format!("; a head gives {:.1} % of them the same class", share * 100.0)
    });
    vec![
        format!(
            "{backbone} in int8 (weights of {weight_bits} bits), calibrated with {}{skipped}: {}, {}",
            counted(*images, "picture"),
            file.as_deref().unwrap_or("not written"),
            indicatif::DecimalBytes(*bytes as u64)
        ),
        format!(
            "on {} {which}: cosine to fp32 {:.4}, at worst {:.4}; noise {:.1} % of what tells pictures apart{agreement}",
            fidelity.images,
            fidelity.cosine,
            fidelity.worst_cosine,
            fidelity.noise * 100.0
        ),
    ]
}
