//! `models quantize`: a backbone in 8-bit integers, calibrated on the user's own pictures, with proof of what it is worth.
//!
//! How a graph is quantised is [`backbone`](crate::backbone)'s business; here pictures are chosen and shown, the result is
//! compared with the float backbone on other pictures, and one that is no good is an error.
//!
//! | module | what it does |
//! |---|---|
//! | `pictures` | which pictures are shown, in which order |
//! | `fidelity` | how close features stay, and what is too far |
//! | `kept` | quantised on the fly, kept in the cache's folder |

mod fidelity;
mod kept;
mod pictures;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use ndarray::Array2;
use serde::Serialize;
use serde_json::json;

use crate::backbone::{Backbone, FeatureModel, Probe, Quantizer, RunOptions, Runtime, WeightBits};
use crate::dataset::Dataset;
use crate::engine::InferenceOptions;
use crate::error::{Error, Result};
use crate::observer::{Observer, Unit};
use crate::picture::Limits;
use crate::space::{FeatureOptions, Precision};

pub use fidelity::Fidelity;
pub(crate) use kept::kept_file;
pub use kept::quantized_for;

use fidelity::Known;
use pictures::{Chosen, Shown, Taken};

/// Raised when the same pictures would give another file.
const METHOD: u32 = 1;
/// What is shown at a time: all inner tensors of so many pictures are in memory at once.
const BATCH: usize = 4;
/// Fewer tell too little: with 16 pictures features are as close as with 128, fewer than 8 were not tried.
const FEWEST: usize = 8;
/// As many more pictures as are shown, and no more, are compared.
const MOST_COMPARED: usize = 256;

/// How a backbone is quantised.
#[derive(Debug, Clone)]
pub struct QuantizeOptions {
    /// How backbones are run; it is always on the CPU.
    pub inference: InferenceOptions,
    /// How pictures are decoded; the precision is not asked.
    pub features: FeatureOptions,
    /// How much one picture may cost.
    pub limits: Limits,
    /// Pictures to calibrate with. Default: 64, since 128 and 200 were no better on two data sets.
    pub images: usize,
    /// Seed of their choice. Default: 0.
    pub seed: u64,
    /// How many bits of the weights are used. Default: what this computer's processor computes rightly with.
    pub weight_bits: WeightBits,
}

impl QuantizeOptions {
    /// The default choices.
    #[must_use]
    pub fn new(inference: InferenceOptions) -> Self {
        Self {
            inference,
            features: FeatureOptions::default(),
            limits: Limits::default(),
            images: 64,
            seed: 0,
            weight_bits: WeightBits::of_this_cpu(),
        }
    }
}

/// A quantised backbone.
#[derive(Debug, Clone)]
pub struct Quantization {
    /// The ONNX file's bytes. The same backbone, pictures and options give the same bytes, whatever the number of threads.
    pub onnx: Vec<u8>,
    /// What was done and how close it is.
    pub report: QuantizeReport,
}

/// What was done and how close it is; serialises as the command's JSON.
#[derive(Debug, Clone, PartialEq, Serialize, serde::Deserialize)]
pub struct QuantizeReport {
    /// The backbone as it was named.
    pub backbone: String,
    /// The file that was written; null until it is.
    pub file: Option<String>,
    /// blake3 of the quantised file, hexadecimal.
    pub blake3: String,
    /// Its length in bytes.
    pub bytes: usize,
    /// Pictures it was calibrated with.
    pub images: usize,
    /// Pictures that could not be read and were passed over.
    pub failed: usize,
    /// blake3 of the contents of those pictures, sorted: the same pictures have the same.
    pub calibration: String,
    /// Bits of the weights: 8, or 7 for processors without VNNI.
    pub weight_bits: u8,
    /// How close features stay to fp32.
    pub fidelity: Fidelity,
    /// Wall time.
    pub seconds: f64,
}

/// Quantises `backbone` with pictures of `dataset`.
///
/// The pictures are chosen by the seed, as many of each class as there are, from those that are in no val or test split.
/// How close the result is, is measured on others, where there are enough.
///
/// # Errors
/// [`Error::Quantization`] if the backbone can't be quantised, there are too few pictures, a tensor has no range, or the
/// features come out too far from those of fp32; else what running the backbone gives.
pub fn quantize(
    backbone: &Backbone,
    dataset: &Dataset,
    options: &QuantizeOptions,
    observer: &dyn Observer,
) -> Result<Quantization> {
    let start = Instant::now();
    observer.begin("quantize", Some(2 * options.images as u64), Unit::Pictures);
    let made = Job {
        backbone,
        dataset,
        options,
        observer,
    }
    .run();
    observer.end();
    let mut made = made?;
    made.report.seconds = start.elapsed().as_secs_f64();
    Ok(made)
}

struct Job<'a> {
    backbone: &'a Backbone,
    dataset: &'a Dataset,
    options: &'a QuantizeOptions,
    observer: &'a dyn Observer,
}

impl Job<'_> {
    fn run(&self) -> Result<Quantization> {
        let Self {
            backbone,
            options,
            observer,
            ..
        } = *self;
        if backbone.is_quantized() {
            return Err(self.refuse("it is quantised already".to_owned(), "use it as it is"));
        }
        let features = FeatureOptions {
            precision: Precision::Fp32,
            ..options.features
        };
        let transform = backbone.space(&features)?.transform;
        let chosen = Chosen::of(self.dataset, options.seed);
        let runtime = Runtime::load(&options.inference.runtime, observer)?;
        let model = backbone.model();
        let (onnx, batch) = model.running_model(runtime, observer);
        let quantizer = Quantizer::new(onnx, &model.input, &model.output)
            .map_err(|unfit| self.refuse(unfit.problem, &unfit.hint))?;
        let side = transform.crop as usize;

        let mut probe = Probe::open(runtime, &quantizer, batch, options.inference.threads)?;
        let mut shown = Shown::new(self.dataset, &transform, options.limits, batch.unwrap_or(BATCH));
        let mut known = Vec::new();
        shown.show(&chosen.calibration, options.images, observer, &mut |pictures| {
            known.extend(probe.show(pictures, [3, side, side])?);
            Ok(())
        })?;
        let calibrated = shown.take();
        let images = calibrated.contents.len();
        if images < FEWEST {
            return Err(self.too_few(&calibrated, &chosen));
        }
        let recipe = self.recipe(&calibrated);
        let onnx = quantizer
            .write(&probe.finish(), options.weight_bits, recipe)
            .map_err(|problem| {
                let hint = "the pictures must be different ones that the backbone gives finite features for: look at \
                            them, or calibrate with others";
                self.refuse(format!("its tensor {problem}"), hint)
            })?;
        let known = Known {
            features: rows(known, images)?,
            classes: &calibrated.classes,
        };
        let fidelity = self.compare(&onnx, &mut shown, &chosen, &known)?;
        fidelity.verdict().map_err(|problem| {
            self.refuse(
                problem,
                "calibrate with more pictures (--images), or with pictures like those it will see; some networks lose too \
                 much in int8 whatever they are shown",
            )
        })?;
        let report = QuantizeReport {
            backbone: backbone.origin().name.clone(),
            file: None,
            blake3: blake3::hash(&onnx).to_hex().to_string(),
            bytes: onnx.len(),
            images,
            failed: calibrated.failed,
            calibration: calibrated.fingerprint(),
            weight_bits: options.weight_bits.into(),
            fidelity,
            seconds: 0.0,
        };
        Ok(Quantization { onnx, report })
    }

    /// Compares the quantised model with the float one on pictures that were not shown, where there are enough.
    fn compare(&self, onnx: &[u8], shown: &mut Shown<'_>, chosen: &Chosen, known: &Known<'_>) -> Result<Fidelity> {
        let Self { options, observer, .. } = *self;
        let runtime = Runtime::load(&options.inference.runtime, observer)?;
        let threads = options.inference.threads.max(1);
        let bytes = Bytes::copy_from_slice(onnx);
        let quantized = FeatureModel::from_bytes(bytes, Path::new("the quantised backbone"), None)?;
        let open = |model: &FeatureModel| model.open_session(runtime, &RunOptions::cpu(threads), observer);
        let (mut float, mut int8) = (open(self.backbone.model())?, open(&quantized)?);
        let (mut float_features, mut int8_features) = (Vec::new(), Vec::new());
        let (height, width) = quantized.input_size;
        let length = 3 * height as usize * width as usize;
        let mut take = |pictures: &[f32]| -> Result<()> {
            let count = pictures.len() / length;
            float_features.extend(float.run(pictures, count)?);
            int8_features.extend(int8.run(pictures, count)?);
            Ok(())
        };
        let most = options.images.clamp(FEWEST, MOST_COMPARED);
        shown.show(&chosen.others, most, observer, &mut take)?;
        let mut count = shown.take().contents.len();
        let held_out = count >= FEWEST;
        if !held_out {
            shown.forget();
            shown.show(&chosen.calibration, most, observer, &mut take)?;
            count += shown.take().contents.len();
        }
        Fidelity::measure(
            &rows(float_features, count)?,
            &rows(int8_features, count)?,
            held_out,
            known,
            observer,
        )
    }

    fn refuse(&self, problem: String, hint: &str) -> Error {
        Error::Quantization {
            backbone: self.backbone.origin().name.clone(),
            problem,
            hint: hint.to_owned(),
        }
    }

    fn too_few(&self, calibrated: &Taken, chosen: &Chosen) -> Error {
        let found = calibrated.contents.len();
        let failed = calibrated.first_failure.as_ref().map_or_else(String::new, |failure| {
            format!("; {} could not be read, the first: {failure}", calibrated.failed)
        });
        let split = match chosen.others.len() > chosen.calibration.len() {
            true => " outside of its val and test splits",
            false => "",
        };
        self.refuse(
            format!("it needs {FEWEST} different pictures to calibrate with, and the data set has {found}{split}{failed}"),
            "calibrate with a larger data set of the same kind: `lastlayer models quantize BACKBONE --calibrate DATASET`",
        )
    }

    /// How the file was made, for whoever finds it. No version of the program: it would be another backbone at each release.
    fn recipe(&self, calibrated: &Taken) -> String {
        let Self { backbone, options, .. } = *self;
        json!({
            "method": METHOD,
            "backbone": backbone.blake3(),
            "calibration": calibrated.fingerprint(),
            "images": calibrated.contents.len(),
            "seed": options.seed,
            "exif": options.features.exif,
            "decode": options.features.decode,
            "weights": "int8, per channel, biases corrected",
            "weight_bits": u8::from(options.weight_bits),
            "activations": "uint8, all but 2e-6 of the values in range",
        })
        .to_string()
    }
}

/// `count` features one after the other as rows.
fn rows(features: Vec<f32>, count: usize) -> Result<Array2<f32>> {
    let columns = features.len() / count.max(1);
    Array2::from_shape_vec((count, columns), features)
        .map_err(|error| Error::ModelShape(format!("its features are no rows: {error}")))
}
