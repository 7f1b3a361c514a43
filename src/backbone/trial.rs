//! Which of two models to run where a file fixed the batch: the opened one, or the one that is as the file has it.
//!
//! A graph made for one picture may fail for two, or silently mix them. No analysis of the graph is sure to see that, so
//! made pictures are run through both models once.

use super::graph::{FeatureModel, FixedBatch, HalfModel};
use super::runtime::Runtime;
use super::session::{Device, RunOptions, Session, SessionOptions};
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::space::Precision;

/// Features may differ by this share of the largest one; batches of other sizes may be summed in another order.
const TOLERANCE: f32 = 1e-4;
/// And by this share of what tells the pictures' features apart: mixing pictures must not hide in the tolerance.
const LARGEST_MIX: f32 = 1e-2;

impl FeatureModel {
    /// Opens a session that takes any number of pictures and computes what the file's own graph computes.
    ///
    /// If the file fixed the batch, the first call tries on the CPU whether opening it changed the features. If it did,
    /// `observer` is told, and sessions run that many pictures at a time. For [`Precision::Fp16`] the network is converted
    /// once.
    ///
    /// # Errors
    /// As [`Session::open`], and [`Error::HalfPrecision`] if the network can't be converted.
    pub fn open_session(&self, runtime: &Runtime, run: &RunOptions, observer: &dyn Observer) -> Result<Session> {
        let mut run = *run;
        if self.is_quantized {
            if let Device::Cuda { .. } = run.device {
                return Err(Error::Options {
                    problem: format!("an int8 backbone runs on the CPU, not on {}", run.device),
                    hint: "leave out --device, or use --precision fp16 on a GPU".to_owned(),
                });
            }
            // A GPU has no kernels for it: it would compute the same in floats, slowly.
            run.device = Device::Cpu;
        }
        let (model, _) = self.running_model(runtime, observer);
        if run.precision == Precision::Fp16 {
            self.open_half(model, runtime, &run, observer)
        } else {
            self.open(model, runtime, &run, observer)
        }
    }

    /// The model that sessions run, and how many pictures it takes at a time where it takes no other number.
    pub(crate) fn running_model(&self, runtime: &Runtime, observer: &dyn Observer) -> (&[u8], Option<usize>) {
        let Some(fixed) = &self.fixed_batch else {
            return (&self.onnx, None);
        };
        let decided = fixed.decided.get_or_init(|| self.decide(fixed, runtime, observer));
        match decided {
            Some(unopened) => (unopened, usize::try_from(fixed.batch).ok()),
            None => (&self.onnx, None),
        }
    }

    fn open_half(&self, model: &[u8], runtime: &Runtime, run: &RunOptions, observer: &dyn Observer) -> Result<Session> {
        let half = self.half.model.get_or_init(|| {
            let half = HalfModel::of(model)?;
            tracing::debug!(kept = ?half.kept, "converted to fp16");
            if half.clamped > 0 {
                observer.note(&format!(
                    "{} weights of the backbone are beyond ±65504, where fp16 ends, and were cut to that",
                    half.clamped
                ));
            }
            Ok(half)
        });
        let half = half
            .as_ref()
            .map_err(|problem: &String| Error::HalfPrecision(problem.clone()))?;
        let session = self
            .open(&half.onnx, runtime, run, observer)
            .map_err(|error| match error {
                Error::Inference { source, .. } => Error::Inference {
                    action: "load the model in fp16",
                    source,
                },
                error => error,
            })?;
        if session.device_name() == "cpu" {
            self.half.noted.call_once(|| {
                observer.note(
                    "on the CPU fp16 is slower than fp32, because ONNX Runtime computes in fp32 there and converts to and fro",
                );
            });
        }
        Ok(session)
    }

    fn open(&self, onnx: &[u8], runtime: &Runtime, run: &RunOptions, observer: &dyn Observer) -> Result<Session> {
        let (height, width) = self.input_size;
        let options = SessionOptions {
            input: &self.input,
            output: &self.output,
            picture: [3, height as usize, width as usize],
            run: *run,
        };
        Session::open(runtime, onnx, &options, observer)
    }

    /// The model to run instead of the opened one, if there is need to.
    fn decide(&self, fixed: &FixedBatch, runtime: &Runtime, observer: &dyn Observer) -> Option<Vec<u8>> {
        let unopened = fixed.unopened(&self.onnx);
        if let Some(unopened) = &unopened {
            match self.computes_the_same(unopened, fixed.batch, runtime, observer) {
                Ok(true) => return None,
                Ok(false) => tracing::debug!("the opened batch gives other features"),
                Err(error) => tracing::debug!(%error, "the opened batch can't be run"),
            }
        }
        observer.note(&format!(
            "the backbone's batch of {} can't be opened; pictures are run {} at a time",
            fixed.batch,
            if fixed.batch == 1 {
                "one".to_owned()
            } else {
                fixed.batch.to_string()
            }
        ));
        unopened
    }

    /// Whether a run of different pictures through the opened model gives what `unopened` gives for each alone.
    fn computes_the_same(
        &self,
        unopened: &[u8],
        batch: i64,
        runtime: &Runtime,
        observer: &dyn Observer,
    ) -> Result<bool> {
        let (height, width) = self.input_size;
        // Another number of pictures than the file's own.
        let count = if batch == 2 { 3 } else { 2 };
        let pictures: Vec<Vec<f32>> = (0..count)
            .map(|index| made_picture(index, height as usize, width as usize))
            .collect();
        // On the CPU with one thread: what is decided depends on the file alone.
        let expected = {
            let mut session = self.open(unopened, runtime, &RunOptions::cpu(1), observer)?;
            let alone = pictures.iter().map(|picture| session.run(picture, 1));
            alone.collect::<Result<Vec<_>>>()?
        };
        let mut session = self.open(&self.onnx, runtime, &RunOptions::cpu(1), observer)?;
        let features = session.run(&pictures.concat(), pictures.len())?;
        Ok(is_same(&expected, &features))
    }
}

/// Whether `features` are those of the pictures alone, and could be told from a mixture of them.
fn is_same(alone: &[Vec<f32>], features: &[f32]) -> bool {
    let flat = alone.concat();
    if flat.len() != features.len() {
        return false;
    }
    // Pictures whose features are equal tell nothing, nor do features that are not finite.
    let apart = alone.windows(2).map(|pair| largest_difference(&pair[0], &pair[1]));
    let apart = apart.fold(f32::INFINITY, f32::min);
    let size = largest_difference(&flat, &vec![0.0; flat.len()]);
    apart > 0.0 && largest_difference(&flat, features) <= (TOLERANCE * size).min(LARGEST_MIX * apart)
}

/// The largest absolute difference; NaN, which compares as false, if one is not finite.
fn largest_difference(left: &[f32], right: &[f32]) -> f32 {
    left.iter().zip(right).fold(0.0, |largest: f32, (one, other)| {
        let difference = (one - other).abs();
        // Not `max` alone, which drops NaN.
        if difference.is_finite() && !largest.is_nan() {
            largest.max(difference)
        } else {
            f32::NAN
        }
    })
}

/// Noise of blocks, `[3, height, width]` in ±2 as normalised pictures are; other blocks for every `index`.
fn made_picture(index: u64, height: usize, width: usize) -> Vec<f32> {
    let block = 8 << (2 * index);
    let mut picture = Vec::with_capacity(3 * height * width);
    for channel in 0..3 {
        for row in 0..height {
            for column in 0..width {
                let place = [index, channel, (row / block) as u64, (column / block) as u64];
                picture.push(4.0 * noise(place) - 2.0);
            }
        }
    }
    picture
}

/// A number in `[0, 1)` that depends on `place` alone (the finaliser of SplitMix64, Steele et al. 2014).
pub(super) fn noise(place: [u64; 4]) -> f32 {
    let mixed = place.iter().fold(0_u64, |state, &part| {
        let state = (state ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        state ^ (state >> 31)
    });
    (mixed >> 40) as f32 / (1_u32 << 24) as f32
}

#[cfg(test)]
#[path = "trial_tests.rs"]
mod tests;
