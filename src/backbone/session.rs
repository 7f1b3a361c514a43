//! Runs a frozen network on batches: `[n, c, h, w]` pictures in, `[n, d]` features out, on the device that is asked for.
//!
//! Which tensor is the feature, and what a picture must look like, is decided elsewhere. Features are given back as they
//! come, also where they are not finite: the caller knows which picture a row belongs to.

use std::fmt;
use std::str::FromStr;
use std::sync::Once;

use half::f16;
use half::slice::HalfFloatSliceExt as _;
use ort::ep::ExecutionProvider as _;
use ort::logging::LogLevel;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::{TensorElementType, TensorRef, ValueType};

use super::cuda::{self, Needs, Unusable};
use super::optimised::{self, Source};
use super::runtime::Runtime;
use crate::space::Precision;
use crate::{Error, Observer, Result};

/// Where a network runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// The first CUDA device if the ONNX Runtime library can use it, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// One CUDA device, or an error.
    Cuda {
        /// Its number, as `nvidia-smi` counts.
        id: u32,
    },
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda { id } => write!(formatter, "cuda:{id}"),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || {
            Error::Usage(format!(
                "unknown device `{text}`; use `auto`, `cpu`, `cuda` or `cuda:N`"
            ))
        };
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda { id: 0 }),
            _ => {
                let digits = text.strip_prefix("cuda:").ok_or_else(unknown)?;
                // No sign, and no more than ONNX Runtime's own type for it holds.
                let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
                let id = digits.parse::<i32>().ok().filter(|_| is_number).ok_or_else(unknown)?;
                Ok(Self::Cuda { id: id.unsigned_abs() })
            }
        }
    }
}

/// On what, and in which arithmetic, a network is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunOptions {
    /// Where to run.
    pub device: Device,
    /// The arithmetic. A network of f32 runs in [`Precision::Fp32`] or [`Precision::Tf32`]; the others need a network that
    /// was made for them.
    pub precision: Precision,
    /// Threads on the CPU; at least 1.
    pub threads: usize,
    /// Pictures of every run on a GPU, filled up with black ones: another number would have cuDNN choose its algorithms
    /// anew. `None`: as many as there are.
    pub gpu_batch: Option<usize>,
}

impl RunOptions {
    /// In f32 on the CPU.
    #[must_use]
    pub const fn cpu(threads: usize) -> Self {
        Self {
            device: Device::Cpu,
            precision: Precision::Fp32,
            threads,
            gpu_batch: None,
        }
    }
}

/// How a network is run.
#[derive(Debug, Clone)]
pub struct SessionOptions<'a> {
    /// The name of the tensor that takes the pictures.
    pub input: &'a str,
    /// The name of the tensor that gives the features.
    pub output: &'a str,
    /// Channels, height and width of one picture.
    pub picture: [usize; 3],
    /// On what, and in which arithmetic.
    pub run: RunOptions,
}

/// A network that is ready to run.
pub struct Session {
    inner: ort::session::Session,
    input: String,
    output: String,
    picture: [usize; 3],
    /// Pictures of every run, where that can't be any number.
    fixed_batch: Option<usize>,
    /// The pictures rounded to f16, for a model that takes them so; kept so that it is allocated once.
    halves: Option<Vec<f16>>,
    feature_dim: Option<usize>,
    device_name: String,
}

impl Session {
    /// Opens the ONNX model `model`, which takes f32 or f16 and gives f32, for running.
    ///
    /// # Errors
    /// [`Error::Device`] if a CUDA device is asked for and can't be used; [`Error::Options`] for TF32 on the CPU;
    /// [`Error::ModelShape`] if the model has no such tensors or takes other pictures; [`Error::Inference`] if ONNX Runtime
    /// can't load it.
    pub fn open(
        runtime: &Runtime,
        model: &[u8],
        options: &SessionOptions<'_>,
        observer: &dyn Observer,
    ) -> Result<Self> {
        let RunOptions { device, precision, .. } = options.run;
        let is_tf32 = precision == Precision::Tf32;
        let id = match device {
            Device::Cpu if is_tf32 => {
                return Err(Error::Options {
                    problem: "tf32 is arithmetic of NVIDIA's GPUs and can't run on the CPU".to_owned(),
                    hint: "use `--device cuda`, or leave `--precision tf32` out: fp32 is more precise".to_owned(),
                });
            }
            Device::Cpu => None,
            Device::Cuda { id } => Some(id),
            // A library that is for the CPU alone is nothing to warn about.
            Device::Auto if !is_tf32 && is_cpu_only(runtime, device) => {
                note_unused_gpu(observer);
                None
            }
            Device::Auto => Some(0),
        };
        if let Some(id) = id {
            let Unusable { reason, hint } = match Self::open_on_cuda(runtime, model, options, id)? {
                Ok(session) => return Ok(session),
                Err(unusable) => unusable,
            };
            // What tf32 gives the CPU can't give.
            if device != Device::Auto || is_tf32 {
                return Err(Error::Device {
                    device: Device::Cuda { id }.to_string(),
                    reason,
                    hint,
                });
            }
            observer.warn(&format!("CUDA cannot be used, running on the CPU: {reason}"));
        }
        Self::open_on(runtime, model, options, None)
    }

    /// Opens the model on CUDA device `id` and runs it once, or says why CUDA can't be used.
    pub(super) fn open_on_cuda(
        runtime: &Runtime,
        model: &[u8],
        options: &SessionOptions<'_>,
        id: u32,
    ) -> Result<Result<Self, Unusable>> {
        if let Some(unusable) = Unusable::provider_is_missing(runtime.path()) {
            return Ok(Err(unusable));
        }
        // Before NVIDIA's libraries are loaded: they take half a gigabyte and are of no use without it.
        if let Err(reason) = cuda::driver() {
            return Ok(Err(Unusable::without_driver(&reason)));
        }
        cuda::preload(runtime.path());
        let opened = Self::open_on(runtime, model, options, Some(id)).and_then(|mut session| {
            // ONNX Runtime asks for cuBLAS and cuDNN in the first run, and not before.
            let black = vec![0.0; session.picture.iter().product()];
            session.run(&black, 1)?;
            Ok(session)
        });
        match opened {
            Err(Error::Inference { source, .. }) => {
                let needs = Needs::of(runtime.path(), runtime.version());
                Ok(Err(Unusable::explain(&source.to_string(), &needs)))
            }
            opened => opened.map(Ok),
        }
    }

    pub(super) fn open_on(
        runtime: &Runtime,
        model: &[u8],
        options: &SessionOptions<'_>,
        cuda: Option<u32>,
    ) -> Result<Self> {
        let open = |source: Source<'_>| open_session(runtime, source, &options.run, cuda);
        let opened = match cuda {
            // What is optimised for a GPU depends on more than is asked here.
            Some(_) => open(Source::Network(model)),
            None => optimised::open(runtime, model, open),
        };
        let inner = opened.map_err(|source| Error::Inference {
            action: "load the model",
            source,
        })?;
        let device = cuda.map_or(Device::Cpu, |id| Device::Cuda { id });
        let mut session = Self {
            inner,
            input: options.input.to_owned(),
            output: options.output.to_owned(),
            picture: options.picture,
            fixed_batch: cuda.and(options.run.gpu_batch),
            halves: None,
            feature_dim: None,
            device_name: device.to_string(),
        };
        session.check_tensors()?;
        Ok(session)
    }

    /// Computes the features of `n` pictures.
    ///
    /// `batch`: `[n, c, h, w]` row-major f32. Returns `[n, d]` row-major f32, where `d` is `len() / n`; values may be
    /// infinite or NaN.
    ///
    /// # Errors
    /// [`Error::ModelShape`] if the output is no `[n, d]`; [`Error::Inference`] if ONNX Runtime fails.
    ///
    /// # Panics
    /// If `batch` is not of length `n * c * h * w`.
    pub fn run(&mut self, batch: &[f32], n: usize) -> Result<Vec<f32>> {
        let length: usize = self.picture.iter().product();
        assert_eq!(batch.len(), n * length, "the batch holds n pictures");
        let Some(step) = self.fixed_batch else {
            return if n == 0 {
                Ok(Vec::new())
            } else {
                self.run_once(batch, n)
            };
        };
        // A model of a fixed batch size is run in pieces of it, the last filled up with black pictures.
        let mut features = Vec::new();
        for piece in batch.chunks(step * length) {
            let count = piece.len() / length;
            if count == step {
                features.extend(self.run_once(piece, step)?);
            } else {
                let mut padded = piece.to_vec();
                padded.resize(step * length, 0.0);
                let all = self.run_once(&padded, step)?;
                features.extend_from_slice(&all[..all.len() / step * count]);
            }
        }
        Ok(features)
    }

    /// The device that really runs: `cpu` or `cuda:0`.
    #[must_use]
    pub fn device_name(&self) -> &str {
        &self.device_name
    }

    /// The length of a feature, where the model declares it or a batch has been run.
    #[must_use]
    pub fn feature_dim(&self) -> Option<usize> {
        self.feature_dim
    }

    fn run_once(&mut self, batch: &[f32], n: usize) -> Result<Vec<f32>> {
        let failed = |source| Error::Inference {
            action: "run the model",
            source,
        };
        let [channels, height, width] = self.picture;
        let shape = [n, channels, height, width];
        let name = self.input.as_str();
        let inputs = match &mut self.halves {
            None => ort::inputs![name => TensorRef::from_array_view((shape, batch)).map_err(failed)?],
            Some(halves) => {
                halves.resize(batch.len(), f16::ZERO);
                halves.convert_from_f32_slice(batch);
                ort::inputs![name => TensorRef::from_array_view((shape, halves.as_slice())).map_err(failed)?]
            }
        };
        let outputs = self.inner.run(inputs).map_err(failed)?;
        let output = outputs
            .get(self.output.as_str())
            .ok_or_else(|| Error::ModelShape(format!("it gave no tensor `{}`", self.output)))?;
        let (shape, features) = output.try_extract_tensor::<f32>().map_err(failed)?;
        let dim = feature_dim(shape, n).ok_or_else(|| {
            Error::ModelShape(format!(
                "`{}` is {:?} for {n} pictures, expected [{n}, d]",
                self.output,
                &shape[..]
            ))
        })?;
        self.feature_dim = Some(dim);
        Ok(features.to_vec())
    }

    /// Finds the two tensors, and refuses pictures which the model says it can't take.
    fn check_tensors(&mut self) -> Result<()> {
        let (element, input) = declared("input", self.inner.inputs(), &self.input)?;
        self.halves = (element == TensorElementType::Float16).then(Vec::new);
        if let Some(shape) = &input {
            let wanted: Vec<_> = self.picture.iter().map(|&length| length as i64).collect();
            let fits = shape.len() == 4
                && shape[1..]
                    .iter()
                    .zip(&wanted)
                    .all(|(&has, &want)| has < 0 || has == want);
            if !fits {
                return Err(Error::ModelShape(format!(
                    "`{}` takes {shape:?} (-1 is any), but pictures are [n, {}, {}, {}]",
                    self.input, wanted[0], wanted[1], wanted[2]
                )));
            }
            let declared = usize::try_from(shape[0]).ok().filter(|&batch| batch > 0);
            self.fixed_batch = declared.or(self.fixed_batch);
        }
        let (element, output) = declared("output", self.inner.outputs(), &self.output)?;
        if element != TensorElementType::Float32 {
            return Err(Error::ModelShape(format!(
                "output `{}` is of {element}, expected f32",
                self.output
            )));
        }
        self.feature_dim = output
            .as_deref()
            .and_then(|shape| shape.get(1))
            .and_then(|&dim| usize::try_from(dim).ok());
        Ok(())
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Session")
            .field("input", &self.input)
            .field("output", &self.output)
            .field("picture", &self.picture)
            .field("device", &self.device_name)
            .finish_non_exhaustive()
    }
}

/// `d` of a shape `[n, d]`; trailing ones, as a pooling without a flatten leaves them, don't matter.
fn feature_dim(shape: &[i64], n: usize) -> Option<usize> {
    match shape {
        [batch, dim, rest @ ..] if usize::try_from(*batch) == Ok(n) && rest.iter().all(|&length| length == 1) => {
            usize::try_from(*dim).ok().filter(|&dim| dim > 0)
        }
        _ => None,
    }
}

/// The element type that a model declares for one of its tensors, f32 or f16, and the shape, `None` if it declares none.
fn declared(kind: &str, outlets: &[ort::value::Outlet], name: &str) -> Result<(TensorElementType, Option<Vec<i64>>)> {
    let Some(outlet) = outlets.iter().find(|outlet| outlet.name() == name) else {
        let names: Vec<_> = outlets.iter().map(|outlet| format!("`{}`", outlet.name())).collect();
        return Err(Error::ModelShape(format!(
            "it has no {kind} `{name}`, only {}",
            names.join(", ")
        )));
    };
    match outlet.dtype() {
        ValueType::Tensor {
            ty: ty @ (TensorElementType::Float32 | TensorElementType::Float16),
            shape,
            ..
        } => Ok((*ty, (!shape.is_empty()).then(|| shape.to_vec()))),
        other => Err(Error::ModelShape(format!(
            "{kind} `{name}` is {other}, expected a tensor of f32"
        ))),
    }
}

/// Says once that a GPU could be used, where only ONNX Runtime's library stands in the way.
fn note_unused_gpu(observer: &dyn Observer) {
    static SAID: Once = Once::new();
    if cuda::driver().is_ok() {
        SAID.call_once(|| {
            observer.note(
                "an NVIDIA driver is installed, but this ONNX Runtime is for the CPU alone; `lastlayer runtime install --cuda` \
                 fetches one for the GPU",
            );
        });
    } else {
        tracing::debug!("this ONNX Runtime library has no CUDA; running on the CPU");
    }
}

/// Whether a session asked for `device` runs on the CPU for sure, before one is opened.
///
/// Only after [`Runtime::load`]: ONNX Runtime is asked which providers it was built with.
fn is_cpu_only(_runtime: &Runtime, device: Device) -> bool {
    match device {
        Device::Cpu => true,
        Device::Cuda { .. } => false,
        Device::Auto => !ort::ep::CUDA::is_available().unwrap_or(false),
    }
}

pub(super) fn open_session(
    runtime: &Runtime,
    source: Source<'_>,
    run: &RunOptions,
    cuda: Option<u32>,
) -> ort::Result<ort::session::Session> {
    let (level, log_level) = match source {
        Source::Network(_) => (GraphOptimizationLevel::All, LogLevel::Warning),
        // It warns that what it writes is for this machine only.
        Source::Optimise { .. } => (GraphOptimizationLevel::All, LogLevel::Error),
        Source::Optimised(_) => (GraphOptimizationLevel::Disable, LogLevel::Warning),
    };
    let mut builder = ort::session::Session::builder(runtime.environment())?
        .with_optimization_level(level)?
        .with_intra_threads(run.threads.max(1))?
        .with_inter_threads(1)?
        // Decoding threads want the cores in which ONNX Runtime would wait busily.
        .with_intra_op_spinning(false)?
        .with_log_level(log_level)?;
    if let Some(id) = cuda {
        builder = builder.with_execution_providers([cuda::provider(id, run.precision == Precision::Tf32)])?;
    }
    match source {
        Source::Network(network) => builder.commit_from_memory(network),
        Source::Optimise {
            network,
            graph,
            weights,
        } => builder
            .with_optimized_model_path(graph)?
            .with_config_entry("session.optimized_model_external_initializers_file_name", weights)?
            .commit_from_memory(network),
        Source::Optimised(graph) => builder.commit_from_file(graph),
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
