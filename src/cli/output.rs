//! What is printed: data to stdout, errors to stderr.

use std::io::{self, ErrorKind, Write};
use std::path::Path;

use serde::Serialize;

use crate::error::Error;

/// How a command ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Done,
    /// Done, but some inputs were skipped.
    InputsSkipped,
    /// Stopped by the user; what was finished is kept.
    Interrupted,
}

impl Ending {
    /// The ending of a command that could not use `skipped` of its inputs.
    pub(super) fn with_skipped(skipped: usize) -> Self {
        if skipped == 0 { Self::Done } else { Self::InputsSkipped }
    }
}

/// Why a command stopped.
#[derive(Debug)]
pub(super) enum Failure {
    Library(Error),
    /// Whoever read stdout has seen enough.
    ClosedPipe,
    /// Stdout can't be written, for instance because the disk is full.
    Output(io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Library(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == ErrorKind::BrokenPipe {
            Self::ClosedPipe
        } else {
            Self::Output(error)
        }
    }
}

pub(super) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Writes one JSON object and a newline.
pub(super) fn print_json(value: &impl Serialize) -> Result<()> {
    let mut stdout = io::stdout().lock();
    serde_json::to_writer(&mut stdout, value).map_err(io::Error::from)?;
    writeln!(stdout)?;
    Ok(stdout.flush()?)
}

/// Refuses a file for output that can't be written for want of its folder, before there is anything to lose.
///
/// # Errors
/// [`Error::NoOutputFolder`], and [`Error::Usage`] where the name is a folder's.
pub(super) fn check_output(path: &Path) -> Result<(), Error> {
    // A name alone has the empty parent.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        return Err(Error::NoOutputFolder {
            path: path.to_path_buf(),
            folder: folder.to_path_buf(),
        });
    }
    if path.is_dir() {
        return Err(Error::Usage(format!(
            "cannot write `{}`: it is a folder, give the name of a file",
            path.display()
        )));
    }
    Ok(())
}

/// Writes an error and what to do about it to stderr.
pub(super) fn print_error(message: &str, hint: Option<&str>) {
    let mut stderr = io::stderr().lock();
    // Nobody is left to be told when stderr is closed.
    let _ = writeln!(stderr, "error: {message}");
    if let Some(hint) = hint {
        let _ = writeln!(stderr, "\nhint: {hint}");
    }
}

/// `1 picture`, `2 pictures`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}
