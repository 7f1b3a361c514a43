//! Sessions for a backbone, opened when the first picture needs one.
//!
//! On the CPU every core has a session of its own with one thread: nothing waits for a slower neighbour inside an
//! operator, and features do not depend on how many there are. On a GPU there is one session.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::backbone::{Backbone, Device, RunOptions, Runtime, RuntimeOptions, Session};
use crate::error::Result;
use crate::observer::Observer;
use crate::profile::Span;
use crate::space::Precision;

/// Above this many cores sessions get more threads instead of more copies of the weights.
const MOST_SESSIONS: usize = 8;

/// On a CPU 8 are no faster and take a quarter more memory; see benches/README.md.
const CPU_BATCH_SIZE: usize = 4;
/// Enough to fill a GPU with a ResNet18 and small beside its memory; two such batches wait in 77 MB.
const GPU_BATCH_SIZE: usize = 64;

/// How backbones are run.
#[derive(Debug, Clone)]
pub struct InferenceOptions {
    /// Where ONNX Runtime is found.
    pub runtime: RuntimeOptions,
    /// Where the backbone runs.
    pub device: Device,
    /// Threads for decoding and for inference on the CPU; at least 1.
    pub threads: usize,
    /// Of these, threads that decode; more are further threads. Default: all.
    pub decode_threads: Option<usize>,
    /// Pictures per run of the backbone; at least 1. Default: by device, 4 on the CPU and 64 on a GPU.
    pub batch_size: Option<usize>,
}

impl InferenceOptions {
    /// Automatic device, `threads` threads, batches as the device likes them, ONNX Runtime in `data_dir` if it is nowhere else.
    #[must_use]
    pub fn new(data_dir: PathBuf, threads: usize) -> Self {
        let runtime = RuntimeOptions {
            data_dir,
            prefer_cuda: true,
            ..RuntimeOptions::default()
        };
        Self {
            runtime,
            device: Device::Auto,
            threads,
            decode_threads: None,
            batch_size: None,
        }
    }
}

/// Gives the backbone when it is needed: a run that finds all its features in the cache opens none.
pub(crate) type BackboneSource<'a> = &'a (dyn Fn() -> Result<Arc<Backbone>> + Sync);

/// The sessions of one backbone.
pub(crate) struct Engine<'a> {
    backbone: BackboneSource<'a>,
    precision: Precision,
    options: &'a InferenceOptions,
    observer: &'a dyn Observer,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    backbone: Option<Arc<Backbone>>,
    idle: Vec<Session>,
    device: Option<String>,
}

impl<'a> Engine<'a> {
    /// `precision`: that of the feature space.
    pub(crate) fn new(
        backbone: BackboneSource<'a>,
        precision: Precision,
        options: &'a InferenceOptions,
        observer: &'a dyn Observer,
    ) -> Self {
        Self {
            backbone,
            precision,
            options,
            observer,
            state: Mutex::default(),
        }
    }

    /// Pictures per run: before the first session is opened, of the device that was asked for; `auto` may be either.
    pub(crate) fn batch_size(&self) -> usize {
        let on_gpu = match self.lock().device.as_deref() {
            Some(device) => device != "cpu",
            None => matches!(self.options.device, Device::Cuda { .. }),
        };
        let default = if on_gpu { GPU_BATCH_SIZE } else { CPU_BATCH_SIZE };
        self.options.batch_size.unwrap_or(default).max(1)
    }

    pub(crate) fn threads(&self) -> usize {
        self.options.threads.max(1)
    }

    pub(crate) fn decode_threads(&self) -> usize {
        self.options.decode_threads.unwrap_or(self.threads()).max(1)
    }

    /// How many sessions are worth having for `pictures` pictures.
    pub(crate) fn workers(&self, pictures: usize) -> usize {
        self.threads()
            .min(MOST_SESSIONS)
            .min(pictures.div_ceil(self.batch_size()))
            .max(1)
    }

    /// A session that nobody else uses. `workers`: how many sessions share the cores.
    pub(crate) fn take(&self, workers: usize) -> Result<Session> {
        let (backbone, first) = {
            let mut state = self.lock();
            if let Some(session) = state.idle.pop() {
                return Ok(session);
            }
            let backbone = match &state.backbone {
                Some(backbone) => Arc::clone(backbone),
                None => Arc::clone(state.backbone.insert((self.backbone)()?)),
            };
            (backbone, state.device.is_none())
        };
        let _span = Span::begin(self.observer, "open session");
        // Opened without the lock: sessions on the CPU are opened side by side.
        let runtime = Runtime::load(&self.options.runtime, self.observer)?;
        // Once there is one, it has decided what `auto` means; only on the CPU is there a second.
        let device = if first { self.options.device } else { Device::Cpu };
        let threads = (self.threads() / workers).max(1);
        let run = RunOptions {
            device,
            precision: self.precision,
            threads,
            gpu_batch: Some(self.options.batch_size.unwrap_or(GPU_BATCH_SIZE).max(1)),
        };
        let session = backbone.model().open_session(runtime, &run, self.observer)?;
        self.lock().device = Some(session.device_name().to_owned());
        Ok(session)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn give_back(&self, session: Session) {
        self.lock().idle.push(session);
    }

    /// The device and ONNX Runtime version that computed, once something was computed.
    pub(crate) fn provenance(&self) -> Option<(String, &'static str)> {
        let device = self.lock().device.clone()?;
        let runtime = Runtime::load(&self.options.runtime, self.observer).ok()?;
        Some((device, runtime.version()))
    }
}
