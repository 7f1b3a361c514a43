//! Fetches one pinned wheel from PyPI through the user's own `pip`, and verifies it.
//!
//! `pip` already knows the user's proxy, mirror and certificates. The pin is by SHA-256, so it does not matter which index
//! answered. What is in the wheel is its callers' business.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::download::{Patience, sha256_of_file};
use crate::{Error, Observer, Result, Unit};

/// How long `pip` may take, which is also how long a proxy that never answers can hold things up.
const PIP_LIMIT: Duration = Duration::from_secs(15 * 60);
/// What a slow connection brings, for wheels that are larger than that time is for.
const SLOWEST_BYTES_PER_SECOND: u64 = 100_000;
/// Larger wheels are not left in `pip`'s own cache as well.
const LARGEST_CACHED: u64 = 100 << 20;

/// The commands under which a Python interpreter may be found, best first.
pub(crate) const PYTHONS: &[&[&str]] = if cfg!(windows) {
    &[&["python3"], &["python"], &["py", "-3"]]
} else {
    &[&["python3"], &["python"]]
};

/// One wheel on PyPI.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wheel<'a> {
    /// What it is, for progress and errors.
    pub(crate) what: &'a str,
    /// The pinned requirement: `name==version`.
    pub(crate) requirement: &'a str,
    /// The platform tag of a compiled wheel (CPython 3.12); `None` for one in pure Python.
    pub(crate) platform: Option<&'a str>,
    /// The wheel's SHA-256, 64 hex digits.
    pub(crate) sha256: &'a str,
    /// The wheel's length in bytes.
    pub(crate) size: u64,
}

/// Downloads `wheel` into `folder`, an empty folder of the caller's, and returns its verified path.
///
/// # Errors
/// [`Error::Fetch`] with what each Python interpreter and its `pip` said, or [`Error::Interrupted`].
pub(crate) fn download(
    wheel: &Wheel<'_>,
    folder: &Path,
    patience: Patience,
    observer: &dyn Observer,
) -> Result<PathBuf> {
    download_with(PYTHONS, wheel, folder, patience.silence(), observer)
}

/// As [`download`], with the interpreters to try, and how long nothing may arrive.
///
/// # Errors
/// As [`download`].
pub(crate) fn download_with(
    pythons: &[&[&str]],
    wheel: &Wheel<'_>,
    folder: &Path,
    silence: Duration,
    observer: &dyn Observer,
) -> Result<PathBuf> {
    let limit = PIP_LIMIT.max(Duration::from_secs(wheel.size / SLOWEST_BYTES_PER_SECOND));
    let mut attempts = Vec::new();
    for python in pythons {
        let shown = format!("`{} -m pip download {}`", python.join(" "), wheel.requirement);
        // pip unpacks in its temporary folder, so that is where progress can be seen.
        let scratch = tempfile::Builder::new()
            .prefix("pip-")
            .tempdir_in(folder)
            .map_err(Error::io("create a folder in", folder))?;
        let mut command = pip_command(python, wheel, folder);
        for variable in ["TMPDIR", "TEMP", "TMP"] {
            command.env(variable, scratch.path());
        }
        observer.begin(wheel.what, Some(wheel.size), Unit::Bytes);
        let (mut seen, mut heard) = (0, Instant::now());
        let outcome = run_limited(&mut command, limit, &mut || {
            let size = folder_size(folder).min(wheel.size);
            if size > seen {
                observer.advance(size - seen);
                (seen, heard) = (size, Instant::now());
            }
            observer.interrupted() || heard.elapsed() > silence
        });
        observer.end();
        match outcome {
            Ok(output) if output.success => match verified_wheel(wheel, folder)? {
                Ok(path) => return Ok(path),
                Err(reason) => attempts.push(format!("{shown}: {reason}")),
            },
            Ok(output) => attempts.push(format!("{shown}: {}", last_lines(&output.stderr))),
            Err(RunError::Stopped) if observer.interrupted() => return Err(Error::Interrupted),
            Err(RunError::Stopped) => attempts.push(format!("{shown}: nothing arrived for {} s", silence.as_secs())),
            Err(RunError::TimedOut) => attempts.push(format!("{shown}: not done in {} s", limit.as_secs())),
            Err(RunError::Io(error)) => attempts.push(format!("{shown}: {error}")),
        }
    }
    Err(Error::Fetch {
        what: wheel.what.to_owned(),
        attempts,
        resumes: false,
    })
}

fn pip_command(python: &[&str], wheel: &Wheel<'_>, folder: &Path) -> Command {
    let mut command = python_command(python);
    command.args([
        "-m",
        "pip",
        "download",
        wheel.requirement,
        "--no-deps",
        "--only-binary=:all:",
    ]);
    command.args(["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]);
    if let Some(platform) = wheel.platform {
        // Which wheel is taken, and so its hash, must not depend on the user's Python.
        command.args([
            "--python-version",
            "3.12",
            "--implementation",
            "cp",
            "--platform",
            platform,
        ]);
    }
    if wheel.size > LARGEST_CACHED {
        command.arg("--no-cache-dir");
    }
    command.arg("-d").arg(folder);
    command
}

/// A command that starts `python`, one of [`PYTHONS`].
pub(crate) fn python_command(python: &[&str]) -> Command {
    let mut command = Command::new(python[0]);
    command.args(&python[1..]);
    command
}

fn verified_wheel(wheel: &Wheel<'_>, folder: &Path) -> Result<Result<PathBuf, String>> {
    let entries = std::fs::read_dir(folder).map_err(Error::io("list", folder))?;
    let found = entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension() == Some(OsStr::new("whl")));
    let Some(path) = found else {
        return Ok(Err("pip left no wheel".to_owned()));
    };
    let found = sha256_of_file(&path)?;
    if found.eq_ignore_ascii_case(wheel.sha256) {
        return Ok(Ok(path));
    }
    // Another interpreter's pip must not find it.
    std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
    Ok(Err(format!(
        "sha256 of the wheel is {found}, expected {}",
        wheel.sha256
    )))
}

/// What a finished program left.
#[derive(Debug)]
pub(crate) struct Output {
    /// Whether its exit code was zero.
    pub(crate) success: bool,
    /// What it printed.
    pub(crate) stdout: String,
    /// What it complained.
    pub(crate) stderr: String,
}

/// Why a program did not finish.
#[derive(Debug)]
pub(crate) enum RunError {
    /// It could not be started or waited for.
    Io(io::Error),
    /// It ran longer than allowed and was ended.
    TimedOut,
    /// The caller asked to stop.
    Stopped,
}

/// Runs a program for at most `limit`; `stop` is asked several times a second.
pub(crate) fn run_limited(
    command: &mut Command,
    limit: Duration,
    stop: &mut dyn FnMut() -> bool,
) -> Result<Output, RunError> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(RunError::Io)?;
    let stdout = read_in_background(child.stdout.take());
    let stderr = read_in_background(child.stderr.take());
    let start = Instant::now();
    let mut pause = Duration::from_millis(2);
    let status = loop {
        if let Some(status) = child.try_wait().map_err(RunError::Io)? {
            break status;
        }
        let failure = if stop() {
            RunError::Stopped
        } else if start.elapsed() > limit {
            RunError::TimedOut
        } else {
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(100));
            continue;
        };
        let _ = child.kill();
        let _ = child.wait();
        return Err(failure);
    };
    let text = |thread: std::thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&thread.join().unwrap_or_default()).into_owned()
    };
    Ok(Output {
        success: status.success(),
        stdout: text(stdout),
        stderr: text(stderr),
    })
}

fn read_in_background(stream: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// The last lines that say something, joined into one.
pub(crate) fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match lines.len() {
        0 => "failed without a message".to_owned(),
        count => lines[count.saturating_sub(3)..].join(" / "),
    }
}

fn folder_size(folder: &Path) -> u64 {
    walkdir::WalkDir::new(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .filter(std::fs::Metadata::is_file)
        .map(|metadata| metadata.len())
        .sum()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::Quiet;

    const ANY: Wheel<'_> = Wheel {
        what: "a wheel",
        requirement: "no-such==1",
        platform: Some("manylinux_2_28_x86_64"),
        sha256: "00",
        size: 1,
    };

    #[test]
    fn missing_interpreters_are_each_named() {
        let folder = tempfile::tempdir().unwrap();
        let pythons: &[&[&str]] = &[&["no-such-python-a"], &["no-such-python-b", "-3"]];
        let error = download_with(pythons, &ANY, folder.path(), Duration::from_secs(9), &Quiet)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`no-such-python-a -m pip download no-such==1`: "),
            "{error}"
        );
        assert!(
            error.contains("`no-such-python-b -3 -m pip download no-such==1`: "),
            "{error}"
        );
    }

    #[test]
    fn the_last_lines_of_a_complaint_are_kept() {
        assert_eq!(last_lines("a\nb\n\n c \nd\n"), "b / c / d");
        assert_eq!(last_lines("\n"), "failed without a message");
    }

    #[test]
    fn a_compiled_wheel_does_not_depend_on_the_users_python() {
        let command = pip_command(&["py", "-3"], &ANY, Path::new("folder"));
        let arguments: Vec<_> = command
            .get_args()
            .map(|argument| argument.to_string_lossy().into_owned())
            .collect();
        let line = arguments.join(" ");
        assert_eq!(command.get_program(), "py");
        assert!(
            line.starts_with("-3 -m pip download no-such==1 --no-deps --only-binary=:all:"),
            "{line}"
        );
        assert!(
            line.ends_with("--python-version 3.12 --implementation cp --platform manylinux_2_28_x86_64 -d folder"),
            "{line}"
        );
    }

    #[test]
    fn a_wheel_with_another_hash_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("no_such-1-py3-none-any.whl");
        std::fs::write(&path, b"abc").unwrap();
        let reason = verified_wheel(&ANY, folder.path()).unwrap().unwrap_err();
        // FIPS 180-2, appendix B.1.
        assert!(
            reason.contains("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            "{reason}"
        );
        assert!(!path.exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_program_that_hangs_is_ended() {
        let start = Instant::now();
        let outcome = run_limited(Command::new("sleep").arg("20"), Duration::from_millis(50), &mut || {
            false
        });
        assert!(matches!(outcome, Err(RunError::TimedOut)));
        let outcome = run_limited(Command::new("sleep").arg("20"), Duration::from_secs(20), &mut || true);
        assert!(matches!(outcome, Err(RunError::Stopped)));
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}
