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

    // Checkpoints and the networks made of them.
    /// A PyTorch checkpoint is damaged, or holds what no state dict holds.
    #[error("cannot read the checkpoint `{}`: {source}", path.display())]
    Checkpoint {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// The tensors of a checkpoint are not those of the network it was taken for.
    #[error("the weights are not those of {network}: {reason}")]
    Network {
        /// The architecture's name.
        network: &'static str,
        /// Which tensor is missing, surplus, or of the wrong shape.
        reason: String,
    },

    /// A network computes something else here than it did in PyTorch.
    #[error("{network} gives other features here than in PyTorch: {reason}")]
    Expectation {
        /// The architecture's name.
        network: &'static str,
        /// Which feature differs, and by how much.
        reason: String,
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
            Self::Usage(_) => ErrorKind::Usage,
            Self::Interrupted => ErrorKind::Interrupted,
            _ => ErrorKind::Failed,
        }
    }

    /// What the user can do about it, where there is something to say beyond the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            // Checkpoints and the networks made of them.
            Self::Checkpoint { .. } => Some(
                "only plain weights are read: save them with `torch.save(model.state_dict(), path)`; \
                 if that is what the file is, fetch it again"
                    .to_owned(),
            ),
            Self::Network { network, .. } => Some(format!("the checkpoint must be torchvision's {network}, unchanged")),
            Self::Expectation { .. } => Some(
                "ONNX Runtime computes wrongly or with reduced precision: try `--device cpu --precision fp32`"
                    .to_owned(),
            ),
            Self::Interrupted => Some("what was finished is kept: run the same command again to go on".to_owned()),
            _ => None,
        }
    }
}
