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

    // The head: training and its file.
    /// Features, labels, and a head (or an order of rows) do not fit together.
    #[error("{0}")]
    Examples(String),

    /// The loss or a weight became infinite or NaN.
    #[error(
        "training diverged in epoch {epoch} at learning rate {learning_rate}: the loss is no longer a finite number"
    )]
    Diverged {
        /// The epoch, counted from 1.
        epoch: usize,
        /// The learning rate of that epoch.
        learning_rate: f64,
    },

    /// A file given as a head is no safetensors file, or a damaged one.
    #[error("`{}` is not a readable safetensors file: {source}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: safetensors::SafeTensorError,
    },

    /// A safetensors file does not hold a head this version can use, or a head can't be saved as it is.
    #[error("`{}` is not a usable head file: {problem}", path.display())]
    HeadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },

    /// linfa refused a data set or a parameter.
    #[error(transparent)]
    Linfa(#[from] linfa::Error),

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
            Self::Usage(_) => ErrorKind::Usage,
            Self::Interrupted => ErrorKind::Interrupted,
            _ => ErrorKind::Failed,
        }
    }

    /// What the user can do about it, where there is something to say beyond the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Interrupted => Some("what was finished is kept: run the same command again to go on".to_owned()),
            Self::Diverged { learning_rate, .. } => Some(format!(
                "lower the learning rate, for example to {}",
                learning_rate / 10.0
            )),
            Self::Safetensors { .. } | Self::HeadFile { .. } => {
                Some("give a head file that `lastlayer train-head` wrote, or train it again".to_owned())
            }
            _ => None,
        }
    }
}
