//! Runs the float graph on pictures and looks at its inner tensors.
//!
//! On the CPU, whose numbers are the same bits whatever the number of threads: so the quantised file is.

use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;

use super::statistics::Values;
use super::{Quantizer, Statistics};
use crate::backbone::runtime::Runtime;
use crate::error::{Error, Result};

/// A session that gives all tensors whose values a [`Quantizer`] must know.
pub(crate) struct Probe<'a> {
    session: ort::session::Session,
    quantizer: &'a Quantizer,
    /// How many pictures it takes at a time, where it takes no other number.
    batch: Option<usize>,
    statistics: Statistics,
}

impl<'a> Probe<'a> {
    /// Opens the float graph of `quantizer` for looking into it; `batch` is how many pictures it takes, where that is fixed.
    ///
    /// # Errors
    /// [`Error::Inference`] if ONNX Runtime can't load it.
    pub(crate) fn open(
        runtime: &Runtime,
        quantizer: &'a Quantizer,
        batch: Option<usize>,
        threads: usize,
    ) -> Result<Self> {
        let open = || -> ort::Result<ort::session::Session> {
            ort::session::Session::builder(runtime.environment())?
                .with_optimization_level(GraphOptimizationLevel::All)?
                .with_intra_threads(threads.max(1))?
                .with_inter_threads(1)?
                .with_log_level(ort::logging::LogLevel::Warning)?
                .commit_from_memory(&quantizer.observed_model())
        };
        let session = open().map_err(|source| Error::Inference {
            action: "load the model",
            source,
        })?;
        Ok(Self {
            session,
            quantizer,
            batch,
            statistics: Statistics::default(),
        })
    }

    /// Shows it `pictures` of the size `[c, h, w]`, one after the other; returns their features, `[n, d]` row-major.
    ///
    /// Where too few are given for a fixed batch, the first ones fill it up and count once more.
    ///
    /// # Errors
    /// [`Error::Inference`] if ONNX Runtime fails, [`Error::ModelShape`] if the feature is no f32 tensor.
    ///
    /// # Panics
    /// If `pictures` does not hold pictures of that size.
    pub(crate) fn show(&mut self, pictures: &[f32], picture: [usize; 3]) -> Result<Vec<f32>> {
        let failed = |source| Error::Inference {
            action: "run the model",
            source,
        };
        let length: usize = picture.iter().product();
        let n = pictures.len() / length;
        assert_eq!(pictures.len(), n * length, "whole pictures");
        let filled: Vec<f32>;
        let (pictures, given, n) = match self.batch {
            Some(batch) if n < batch && n > 0 => {
                filled = pictures.iter().copied().cycle().take(batch * length).collect();
                (&filled[..], n, batch)
            }
            _ => (pictures, n, n),
        };
        let [channels, height, width] = picture;
        let tensor = TensorRef::from_array_view(([n, channels, height, width], pictures)).map_err(failed)?;
        let outputs = self
            .session
            .run(ort::inputs![self.quantizer.input.as_str() => tensor])
            .map_err(failed)?;
        let shape = [n, channels, height, width].map(|length| length as i64);
        let mut tensors = Vec::with_capacity(self.quantizer.plan.observed.len());
        for name in &self.quantizer.plan.observed {
            if *name == self.quantizer.input {
                tensors.push(Values {
                    name,
                    shape: &shape,
                    values: pictures,
                });
            } else if let Some(output) = outputs.get(name.as_str()) {
                let (shape, values) = output.try_extract_tensor::<f32>().map_err(failed)?;
                tensors.push(Values { name, shape, values });
            }
        }
        self.statistics.add(&tensors);
        let feature = outputs
            .get(self.quantizer.feature.as_str())
            .ok_or_else(|| Error::ModelShape(format!("it gave no tensor `{}`", self.quantizer.feature)))?;
        let features = feature.try_extract_tensor::<f32>().map_err(failed)?.1;
        Ok(features[..features.len() / n.max(1) * given].to_vec())
    }

    /// What was seen.
    pub(crate) fn finish(self) -> Statistics {
        self.statistics
    }
}
