//! Whole processes: how long they took, and the most memory they had.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Result;

/// A process that came to a good end.
pub(crate) struct Ran {
    /// What it wrote to standard output.
    pub(crate) output: Vec<u8>,
    pub(crate) seconds: f64,
    /// Its peak in MB, together with the processes that it started (Linux).
    pub(crate) peak: Option<f64>,
}

impl Ran {
    pub(crate) fn json(&self) -> Result<Value> {
        Ok(serde_json::from_slice(&self.output)?)
    }
}

/// Runs to the end and looks at the memory meanwhile.
///
/// # Errors
/// When it can't be started or fails: the last line that it wrote to standard error.
pub(crate) fn run(command: &mut Command) -> Result<Ran> {
    const PACE: Duration = Duration::from_millis(5);
    /// Shared pages are counted by parts, which takes the system a while to find out.
    const FAMILY_PACE: Duration = Duration::from_millis(300);
    let folder = tempfile::tempdir()?;
    let (out, complaints) = (folder.path().join("out"), folder.path().join("err"));
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(File::create(&out)?)
        .stderr(File::create(&complaints)?)
        .spawn()
        .map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    let mut peak = None;
    let mut family_due = start + FAMILY_PACE;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        peak = larger(peak, own_peak(child.id()));
        if Instant::now() >= family_due {
            let family = family_of(child.id());
            if family.len() > 1 {
                peak = larger(peak, family.into_iter().map(proportional).sum());
            }
            family_due = Instant::now() + FAMILY_PACE;
        }
        std::thread::sleep(PACE);
    };
    let seconds = start.elapsed().as_secs_f64();
    if !status.success() {
        return Err(complaint(&fs::read_to_string(&complaints)?, &status.to_string()).into());
    }
    Ok(Ran {
        output: fs::read(&out)?,
        seconds,
        peak: peak.map(|bytes| bytes as f64 / 1e6),
    })
}

/// The seconds of a process that is only waited for.
pub(crate) fn time(command: &mut Command) -> Result<f64> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let status = command.status()?;
    let seconds = start.elapsed().as_secs_f64();
    match status.success() {
        true => Ok(seconds),
        false => run(command).map(|_| seconds),
    }
}

/// The line that says what went wrong: our own errors begin with it, those of Python end with it.
fn complaint(text: &str, otherwise: &str) -> String {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let own = lines.clone().find_map(|line| line.strip_prefix("error: "));
    own.or_else(|| lines.next_back()).unwrap_or(otherwise).to_owned()
}

fn larger(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.max(other)
}

/// The most resident memory that a process had until now, in bytes.
fn own_peak(id: u32) -> Option<u64> {
    kilobytes(&fs::read_to_string(format!("/proc/{id}/status")).ok()?, "VmHWM:")
}

/// Resident memory now, in bytes; of pages that several processes have, each counts its share.
fn proportional(id: u32) -> Option<u64> {
    // A process that has just ended has none.
    let rollup = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap_or_default();
    Some(kilobytes(&rollup, "Pss:").unwrap_or(0))
}

fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

/// A process and all that it started.
fn family_of(id: u32) -> Vec<u32> {
    let mut family = vec![id];
    let mut next = 0;
    while let Some(id) = family.get(next).copied() {
        next += 1;
        let Ok(threads) = fs::read_dir(format!("/proc/{id}/task")) else {
            continue;
        };
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            family.extend(
                children
                    .split_whitespace()
                    .filter_map(|child| child.parse::<u32>().ok()),
            );
        }
    }
    family
}
