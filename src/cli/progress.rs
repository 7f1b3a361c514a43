//! Progress on stderr: a bar in a terminal, a line now and then elsewhere, nothing for what takes under a second.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::observer::{Observer, Unit};

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
        }
    }

    /// Shows no bar from now on: the command prints its results line by line in the same terminal.
    pub(super) fn hide_bar(&self) {
        self.bar_hidden.store(true, Ordering::Relaxed);
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
        let template = match (self.unit, self.total) {
            (Unit::Bytes, Some(_)) => "{msg} {wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left",
            (Unit::Bytes, None) => "{msg} {spinner} {bytes}  {bytes_per_sec}",
            (Unit::Pictures, Some(_)) => "{msg} {wide_bar} {pos}/{len}  {per_sec}  {eta} left",
            (Unit::Pictures, None) => "{msg} {spinner} {pos}  {per_sec}",
        };
        bar.set_style(ProgressStyle::with_template(template).expect("the template is well-formed"));
        bar.set_message(self.name.clone());
        // The rate is that of the whole task, not of the time since the bar appeared.
        self.bar = Some(bar.with_elapsed(self.started.elapsed()));
    }

    fn plain_line(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64();
        let rate = self.done as f64 / seconds;
        let amount = |value: u64| match self.unit {
            Unit::Bytes => format!("{:.1} MB", value as f64 / 1e6),
            Unit::Pictures => value.to_string(),
        };
        let rate_text = match self.unit {
            Unit::Bytes => format!("{:.1} MB/s", rate / 1e6),
            Unit::Pictures => format!("{rate:.0}/s"),
        };
        match self.total {
            Some(total) if rate > 0.0 => {
                let left = (total.saturating_sub(self.done)) as f64 / rate;
                format!(
                    "{}: {}/{}, {rate_text}, {left:.0} s left",
                    self.name,
                    amount(self.done),
                    amount(total)
                )
            }
            _ => format!("{}: {}, {rate_text}", self.name, amount(self.done)),
        }
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
            }
        } else if task.reported.is_none_or(|reported| reported.elapsed() >= LINE_INTERVAL) {
            task.reported = Some(Instant::now());
            eprint_line(&task.plain_line());
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

    fn interrupted(&self) -> bool {
        INTERRUPTED.load(Ordering::Relaxed)
    }
}
