//! The one error type of the library, and the hint that goes with each error.
//!
//! A picture that can't be read is no error but a value ([`PictureError`](crate::PictureError)): it never ends a run.

use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong in `lastlayer`; each variant keeps the path and the source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read, written, or listed.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// The verb: `read`, `write`, `list` …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// An option's value, or a combination of options, makes no sense.
    #[error("{0}")]
    Usage(String),

    // ONNX Runtime, fetching and the model zoo.
    /// No usable ONNX Runtime library was found, and none could be fetched.
    #[error("cannot find ONNX Runtime 1.22 or newer; tried\n{}", bullets(attempts))]
    RuntimeMissing {
        /// Each place that was tried, with the reason why it was not taken.
        attempts: Vec<String>,
        /// Whether fetching was forbidden.
        offline: bool,
    },

    /// The ONNX Runtime library that the user named cannot be used.
    #[error("cannot load ONNX Runtime from `{}` (given by {origin}): {source}", path.display())]
    RuntimeLibrary {
        /// The file or folder named.
        path: PathBuf,
        /// Which option or variable named it.
        origin: &'static str,
        /// What the loader said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// ONNX Runtime refused a model or failed on a batch.
    #[error("ONNX Runtime cannot {action}: {source}")]
    Inference {
        /// What was tried: `load the model`, `run the model` …
        action: &'static str,
        /// What ONNX Runtime said.
        source: ort::Error,
    },

    /// A model takes or gives something else than a batch of pictures and a row of features.
    #[error("the model does not fit: {0}")]
    ModelShape(String),

    /// The device asked for cannot be used.
    #[error("cannot use device `{device}`: {reason}")]
    Device {
        /// The device as given on the command line.
        device: String,
        /// The ONNX Runtime library that was asked.
        library: PathBuf,
        /// What ONNX Runtime said.
        reason: String,
    },

    /// A file could not be fetched from any of its sources.
    #[error("cannot fetch {what}\n{}", bullets(attempts))]
    Fetch {
        /// What was wanted.
        what: String,
        /// Each source with what happened there.
        attempts: Vec<String>,
    },

    /// A backbone was named that is neither a file nor in the zoo.
    #[error("unknown backbone `{name}`; known are {}", known.join(", "))]
    UnknownModel {
        /// The name given.
        name: String,
        /// The names the zoo has.
        known: Vec<String>,
    },

    /// The backbone's file does not exist.
    #[error("there is no backbone file `{}`", path.display())]
    ModelNotFound {
        /// The file named.
        path: PathBuf,
    },

    /// A zoo model is on no disk, and fetching is forbidden.
    #[error("backbone `{name}` is not on this computer and `--offline` forbids fetching it")]
    ModelOffline {
        /// The zoo name.
        name: String,
        /// Where the file is looked for.
        file: PathBuf,
        /// Where it can be had.
        origin: String,
    },

    /// The user pressed Ctrl-C; what was finished is kept.
    #[error("interrupted")]
    Interrupted,
}

/// A [`std::result::Result`] with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller of the program can conclude from an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The work failed.
    Failed,
    /// The command, an option, or a configuration is wrong: nothing was tried.
    Usage,
    /// Stopped by the user.
    Interrupted,
}

impl Error {
    /// Wraps an operating-system error with what was tried on which path.
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// The kind of this error, from which the program's exit code follows.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Usage(_) | Self::RuntimeLibrary { .. } | Self::UnknownModel { .. } | Self::ModelNotFound { .. } => {
                ErrorKind::Usage
            }
            Self::Interrupted => ErrorKind::Interrupted,
            _ => ErrorKind::Failed,
        }
    }

    /// What the user can do about it, where there is something to say beyond the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Interrupted => Some("what was finished is kept: run the same command again to go on".to_owned()),
            Self::RuntimeMissing { offline, .. } => Some(format!(
                "install it with `pip install onnxruntime`, or name the library file with `--ort-lib`{}",
                if *offline {
                    ", or drop `--offline` to have it fetched once"
                } else {
                    ""
                }
            )),
            Self::RuntimeLibrary { origin, .. } => Some(format!(
                "{origin} must name the ONNX Runtime library (libonnxruntime.so, .dylib or onnxruntime.dll) of version 1.22 \
                 or newer, or its folder; without it the usual places are searched"
            )),
            Self::Device { library, .. } => Some(format!(
                "the library loaded is `{}`; CUDA needs onnxruntime-gpu (`pip install onnxruntime-gpu`, or `--ort-lib`) with \
                 CUDA 13 and cuDNN 9, and an NVIDIA driver; `--device cpu` always works",
                library.display()
            )),
            Self::Fetch { .. } => Some(
                "check the connection and run the same command again: a partial download is continued where it stopped"
                    .to_owned(),
            ),
            Self::UnknownModel { .. } => {
                Some("name one of these, or give the path of an ONNX file: `./name.onnx`".to_owned())
            }
            Self::ModelNotFound { .. } => {
                Some("check the path; a name without `.onnx` and without a slash means a model of the zoo".to_owned())
            }
            Self::ModelOffline { file, origin, .. } => Some(format!(
                "get it by hand from {origin} and put it at `{}`, or drop `--offline`",
                file.display()
            )),
            _ => None,
        }
    }
}

/// One indented line for each item.
fn bullets(items: &[String]) -> String {
    items
        .iter()
        .map(|item| format!("  - {item}"))
        .collect::<Vec<_>>()
        .join("\n")
}
