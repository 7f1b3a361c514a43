//! What the command took: all of it, and the trainings alone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::Serialize;

/// Runs from the command's start.
#[derive(Debug)]
pub(super) struct Stopwatch {
    start: Instant,
    /// Nanoseconds.
    training: AtomicU64,
}

/// Seconds, as the command's JSON has them.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Seconds {
    /// From the command's start until all is trained and, of a sweep, saved.
    #[serde(rename = "seconds")]
    pub(super) all: f64,
    /// In which heads were trained and checked; the rest is reading features and writing files.
    training_seconds: f64,
}

impl Stopwatch {
    pub(super) fn start() -> Self {
        Self {
            start: Instant::now(),
            training: AtomicU64::new(0),
        }
    }

    /// Counts what `work` takes as training.
    pub(super) fn training<T>(&self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        // u64 holds 584 years.
        self.training
            .fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        result
    }

    /// What it took until now.
    pub(super) fn seconds(&self) -> Seconds {
        Seconds {
            all: self.start.elapsed().as_secs_f64(),
            training_seconds: self.training.load(Ordering::Relaxed) as f64 / 1e9,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_trainings_are_training_and_several_add_up() {
        let watch = Stopwatch::start();
        std::thread::sleep(Duration::from_millis(5));
        for _ in 0..2 {
            watch.training(|| std::thread::sleep(Duration::from_millis(5)));
        }
        let seconds = watch.seconds();
        assert!(seconds.training_seconds >= 0.01, "{seconds:?}");
        assert!(seconds.all >= seconds.training_seconds + 0.005, "{seconds:?}");
    }
}
