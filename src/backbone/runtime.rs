//! Finds, and where needed fetches, the ONNX Runtime library, and loads it once for the whole process.
//!
//! The program is linked against no ONNX Runtime, so that one binary serves CPU and GPU and is built without a download.
//! ONNX Runtime allows one environment in a process, ever: it lives here in a `static`. Models are `session`'s business.

mod fetch;
mod install;
mod search;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tracing::field::{Field, Visit};

pub use install::{InstalledRuntime, install_cuda_runtime, install_runtime};
pub use search::{Attempt, Place};

use crate::{Error, Observer, Result};
use search::Search;

/// The first `1.x` of ONNX Runtime that has the functions ort's feature `api-22` needs.
const OLDEST_MINOR: u32 = 22;

static RUNTIME: OnceLock<Runtime> = OnceLock::new();
/// Held while a library is looked for, so that two threads don't load two.
static LOADING: Mutex<()> = Mutex::new(());

/// Where to look for the ONNX Runtime library.
#[derive(Debug, Clone, Default)]
pub struct RuntimeOptions {
    /// The library file, or its folder, that the user named; then nothing else is tried. Default: none.
    pub library: Option<PathBuf>,
    /// The same from `ORT_DYLIB_PATH`; `library` goes before it. Default: none.
    pub env_library: Option<PathBuf>,
    /// The user's data folder: `<data_dir>/onnxruntime/<version>` is searched, and filled if the library is nowhere.
    pub data_dir: PathBuf,
    /// Whether fetching is forbidden. Default: false.
    pub offline: bool,
    /// Whether a library with CUDA goes before one without, if an NVIDIA driver is installed. Default: false.
    pub prefer_cuda: bool,
}

/// What [`Runtime::locate`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The library that would be loaded, and where it was found.
    pub found: Option<(Place, PathBuf)>,
    /// What was tried before, with the reasons.
    pub attempts: Vec<Attempt>,
}

/// The loaded ONNX Runtime library; there is one in a process.
pub struct Runtime {
    environment: ort::environment::Environment,
    path: PathBuf,
    version: String,
    place: Place,
    attempts: Vec<Attempt>,
    optimised: PathBuf,
}

impl Runtime {
    /// Finds and loads the library, or returns the one that is loaded already.
    ///
    /// The places are tried in this order: [`Place::Option`], [`Place::Variable`], [`Place::BesideExecutable`],
    /// [`Place::DataFolder`], [`Place::Python`], [`Place::System`], [`Place::Fetched`]. With `prefer_cuda` those from the
    /// executable's folder to Python's package are first searched in this order for a library that has the CUDA provider
    /// beside it. A library that is too old or does not load is passed over, except one that the user named.
    ///
    /// # Errors
    /// [`Error::RuntimeLibrary`] if the library named by the user does not load; [`Error::RuntimeMissing`] with every
    /// place tried; [`Error::Usage`] if another library than the one named is loaded already.
    pub fn load(options: &RuntimeOptions, observer: &dyn Observer) -> Result<&'static Self> {
        let _guard = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = RUNTIME.get() {
            return loaded.check_same(options);
        }
        let runtime = load_new(options, observer)?;
        tracing::debug!(path = %runtime.path.display(), version = runtime.version, "ONNX Runtime is loaded");
        Ok(RUNTIME.get_or_init(|| runtime))
    }

    /// Says which library [`Runtime::load`] would take, if any, and what was tried, without loading for good or fetching.
    ///
    /// # Errors
    /// [`Error::RuntimeLibrary`] if the library named by the user is not usable.
    pub fn locate(options: &RuntimeOptions) -> Result<Located> {
        let mut attempts = Vec::new();
        let found = Search::new(options).run(&mut attempts, &mut |path| match ort::util::probe(path) {
            Some(minor) if minor >= OLDEST_MINOR => Ok(()),
            Some(minor) => Err(format!("version 1.{minor} is too old, 1.{OLDEST_MINOR} is needed").into()),
            None => Err("it does not load".into()),
        })?;
        Ok(Located {
            found: found.map(|(place, path, ())| (place, path)),
            attempts,
        })
    }

    /// The library's path; a bare file name if the system's loader found it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The library's version, such as `1.32.0`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The place where the library was found.
    #[must_use]
    pub fn source(&self) -> Place {
        self.place
    }

    /// What was tried before the library was found, with the reasons.
    #[must_use]
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// Where networks that were optimised for this machine are kept.
    pub(super) fn optimised_folder(&self) -> &Path {
        &self.optimised
    }

    pub(crate) fn environment(&self) -> &ort::environment::Environment {
        &self.environment
    }

    fn check_same(&'static self, options: &RuntimeOptions) -> Result<&'static Self> {
        match &options.library {
            Some(named) if search::named_library(named) != self.path => Err(Error::Usage(format!(
                "ONNX Runtime is loaded from `{}` already; `{}` cannot be loaded beside it",
                self.path.display(),
                named.display()
            ))),
            _ => Ok(self),
        }
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Runtime")
            .field("path", &self.path)
            .field("version", &self.version)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

fn load_new(options: &RuntimeOptions, observer: &dyn Observer) -> Result<Runtime> {
    let mut attempts = Vec::new();
    let found = Search::new(options).run(&mut attempts, &mut |path| Ok(open_library(path)?))?;
    let (place, path, library) = match found {
        Some(found) => found,
        None if options.offline => {
            attempts.push(Attempt::new(Place::Fetched, None, "forbidden by `--offline`"));
            return Err(missing(&attempts, true));
        }
        None => match fetch::fetch(&options.data_dir, &mut attempts, observer) {
            Ok(path) => match open_library(&path) {
                Ok(library) => (Place::Fetched, path, library),
                Err(error) => {
                    attempts.push(Attempt::new(Place::Fetched, Some(&path), error.to_string()));
                    return Err(missing(&attempts, false));
                }
            },
            Err(Error::Fetch { .. }) => return Err(missing(&attempts, false)),
            Err(error) => return Err(error),
        },
    };
    let environment = library
        .builder
        .with_name("lastlayer")
        .with_telemetry(false)
        .build()
        .map_err(|source| Error::Inference {
            action: "start",
            source,
        })?;
    Ok(Runtime {
        environment,
        path,
        version: library.version,
        place,
        attempts,
        optimised: options.data_dir.join("optimised"),
    })
}

fn missing(attempts: &[Attempt], offline: bool) -> Error {
    Error::RuntimeMissing {
        attempts: attempts.iter().map(ToString::to_string).collect(),
        offline,
    }
}

struct Library {
    builder: ort::environment::EnvironmentBuilder,
    version: String,
}

fn open_library(path: &Path) -> Result<Library, ort::LoadDynamicError> {
    let version = VersionCapture::default();
    let seen = Arc::clone(&version.0);
    let builder = tracing::subscriber::with_default(version, || ort::init_from(path))?;
    let version = seen.lock().unwrap_or_else(PoisonError::into_inner).take();
    Ok(Library {
        builder,
        version: version.unwrap_or_else(|| "unknown".to_owned()),
    })
}

/// Reads the library's version from what ort logs when it loads one: ort has no function that tells it.
#[derive(Default)]
struct VersionCapture(Arc<Mutex<Option<String>>>);

impl tracing::Subscriber for VersionCapture {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("ort")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Message<'a>(&'a Mutex<Option<String>>);
        impl Visit for Message<'_> {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                if field.name() == "message"
                    && let Some(version) = version_in_message(&format!("{value:?}"))
                {
                    *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(version);
                }
            }
        }
        event.record(&mut Message(&self.0));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// `1.32.0` from ort's `Loaded ONNX Runtime dylib from "…"; version '1.32.0'`.
fn version_in_message(message: &str) -> Option<String> {
    let (_, rest) = message.rsplit_once("version '")?;
    let (version, _) = rest.split_once('\'')?;
    version.starts_with("1.").then(|| version.to_owned())
}

/// The process's runtime for tests, from this user's data folder, fetched into it on a bare machine.
#[cfg(test)]
pub(crate) fn tests_runtime() -> &'static Runtime {
    let data_dir = dirs::data_dir().expect("the user has a data folder").join("lastlayer");
    let env_library = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
    Runtime::load(
        &RuntimeOptions {
            env_library,
            data_dir,
            ..RuntimeOptions::default()
        },
        &crate::Quiet,
    )
    .expect("ONNX Runtime is found or fetched")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::Quiet;

    #[test]
    fn the_runtime_loads_once_and_tells_its_version() {
        let runtime = tests_runtime();
        let minor: u32 = runtime.version().split('.').nth(1).unwrap().parse().unwrap();
        assert!(minor >= OLDEST_MINOR, "{}", runtime.version());
        assert_eq!(runtime.version().split('.').count(), 3, "{}", runtime.version());
        // ort's own probe of the file is independent of the log line the version is read from.
        assert_eq!(ort::util::probe(runtime.path()), Some(minor));
        assert!(std::ptr::eq(runtime, tests_runtime()));
    }

    #[test]
    fn a_second_library_is_refused_and_the_same_one_is_not() {
        let runtime = tests_runtime();
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join(search::LIBRARY_NAME);
        std::fs::write(&other, b"").unwrap();
        let options = RuntimeOptions {
            library: Some(other),
            ..RuntimeOptions::default()
        };
        let error = Runtime::load(&options, &Quiet).unwrap_err();
        assert!(error.to_string().contains("is loaded from"), "{error}");
        let options = RuntimeOptions {
            library: Some(runtime.path().to_path_buf()),
            ..RuntimeOptions::default()
        };
        assert!(std::ptr::eq(runtime, Runtime::load(&options, &Quiet).unwrap()));
    }

    #[test]
    fn the_version_is_read_from_the_log_line() {
        let line = r#"Loaded ONNX Runtime dylib from "/a/version '9/lib.so"; version '1.23.4'"#;
        assert_eq!(version_in_message(line).as_deref(), Some("1.23.4"));
        assert_eq!(version_in_message("no such thing"), None);
    }

    #[test]
    fn the_missing_error_names_every_place_and_the_ways_out() {
        let attempts = [
            Attempt::new(Place::DataFolder, Some(Path::new("/data/x")), "not there"),
            Attempt::new(Place::Fetched, None, "forbidden by `--offline`"),
        ];
        let error = missing(&attempts, true);
        let text = error.to_string();
        assert!(text.contains("\n  - the data folder, `/data/x`: not there"), "{text}");
        assert!(text.contains("\n  - fetching: forbidden by `--offline`"), "{text}");
        let hint = error.hint().unwrap();
        for way in ["pip install onnxruntime", "--ort-lib", "drop `--offline`"] {
            assert!(hint.contains(way), "{hint}");
        }
        assert!(!missing(&attempts, false).hint().unwrap().contains("--offline"));
    }
}
