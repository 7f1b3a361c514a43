//! Progress on stderr: a bar in a terminal, a line now and then elsewhere, nothing for what takes under a second.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::observer::{Observer, Unit};
use crate::profile::Profiler;

const PATIENCE: Duration = Duration::from_secs(1);
const LINE_INTERVAL: Duration = Duration::from_secs(10);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes Ctrl-C (and a polite kill) ask the running work to stop; the second one ends the program at once.
pub(super) fn catch_interrupts() {
    let handler = || {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            #[expect(clippy::exit, reason = "the user asked twice")]
            std::process::exit(130);
        }
        let _ = writeln!(std::io::stderr(), "\nstopping; press Ctrl-C again to stop at once");
    };
    // Without a handler Ctrl-C ends the program as usual, and committed work is kept all the same.
    if let Err(error) = ctrlc::set_handler(handler) {
        tracing::debug!("Ctrl-C is not caught: {error}");
    }
}

/// The observer of the command line.
pub(super) struct Terminal {
    /// No progress and no notes; warnings are shown all the same.
    quiet: bool,
    /// No bar, because lines are being printed where it would stand.
    bar_hidden: AtomicBool,
    terminal: bool,
    task: Mutex<Option<Task>>,
    profiler: OnceLock<Profiler>,
}

struct Task {
    name: String,
    total: Option<u64>,
    unit: Unit,
    done: u64,
    started: Instant,
    reported: Option<Instant>,
    bar: Option<ProgressBar>,
}

impl Terminal {
    pub(super) fn new(quiet: bool) -> Self {
        Self {
            quiet,
            bar_hidden: AtomicBool::new(false),
            terminal: std::io::stderr().is_terminal(),
            task: Mutex::default(),
            profiler: OnceLock::new(),
        }
    }

    /// Shows no bar from now on: the command prints its results line by line in the same terminal.
    pub(super) fn hide_bar(&self) {
        self.bar_hidden.store(true, Ordering::Relaxed);
    }

    /// Lets the work trace what it does from now on.
    pub(super) fn profile(&self, profiler: Profiler) {
        let set = self.profiler.set(profiler);
        debug_assert!(set.is_ok(), "one command makes one trace");
    }

    fn line(&self, text: &str) {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        match task.as_ref().and_then(|task| task.bar.as_ref()) {
            Some(bar) => bar.suspend(|| eprint_line(text)),
            None => eprint_line(text),
        }
    }
}

fn eprint_line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

impl Task {
    fn start_bar(&mut self) {
        let bar = self.total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        let template = if self.total.is_some() {
            "{prefix} {wide_bar} {msg}"
        } else {
            "{prefix} {spinner} {msg}"
        };
        bar.set_style(ProgressStyle::with_template(template).expect("the template is well-formed"));
        bar.set_prefix(self.name.clone());
        self.bar = Some(bar);
    }

    /// How far it is, how fast, and how long it will take: `120/720, 48/s, 12 s left`. The rate is that of the whole task.
    fn standing(&self) -> String {
        let rate = self.done as f64 / self.started.elapsed().as_secs_f64();
        let amount = |value: u64| match self.unit {
            Unit::Bytes => format!("{:.1} MB", value as f64 / 1e6),
            Unit::Pictures | Unit::Heads => value.to_string(),
        };
        let rate_text = match self.unit {
            Unit::Bytes => format!("{:.1} MB/s", rate / 1e6),
            Unit::Pictures | Unit::Heads => format!("{rate:.0}/s"),
        };
        match self.total {
            Some(total) if rate > 0.0 => {
                let left = (total.saturating_sub(self.done)) as f64 / rate;
                format!(
                    "{}/{}, {rate_text}, {} left",
                    amount(self.done),
                    amount(total),
                    duration(left)
                )
            }
            _ => format!("{}, {rate_text}", amount(self.done)),
        }
    }
}

/// `12 s`, `3 min`, `5.2 h`.
fn duration(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 100.0 => format!("{seconds:.0} s"),
        seconds if seconds < 6000.0 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3600.0),
    }
}

impl Observer for Terminal {
    fn begin(&self, task: &str, total: Option<u64>, unit: Unit) {
        let now = Instant::now();
        let task = Task {
            name: task.to_owned(),
            total,
            unit,
            done: 0,
            started: now,
            reported: None,
            bar: None,
        };
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    fn advance(&self, count: u64) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(task) = task.as_mut() else { return };
        task.done += count;
        if self.quiet || self.bar_hidden.load(Ordering::Relaxed) || task.started.elapsed() < PATIENCE {
            return;
        }
        if self.terminal {
            if task.bar.is_none() {
                task.start_bar();
            }
            if let Some(bar) = &task.bar {
                bar.set_position(task.done);
                bar.set_message(task.standing());
            }
        } else if task.reported.is_none_or(|reported| reported.elapsed() >= LINE_INTERVAL) {
            task.reported = Some(Instant::now());
            eprint_line(&format!("{}: {}", task.name, task.standing()));
        }
    }

    fn end(&self) {
        if let Some(bar) = self
            .task
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .and_then(|task| task.bar)
        {
            bar.finish_and_clear();
        }
    }

    fn note(&self, message: &str) {
        if !self.quiet {
            self.line(message);
        }
    }

    fn warn(&self, message: &str) {
        self.line(&format!("warning: {message}"));
    }

    fn profiler(&self) -> Option<&Profiler> {
        self.profiler.get()
    }

    fn interrupted(&self) -> bool {
        INTERRUPTED.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_the_unit_that_fits() {
        assert_eq!([12.4, 150.0, 20_000.0].map(duration), ["12 s", "2 min", "5.6 h"]);
    }
}
