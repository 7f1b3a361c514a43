//! Features on their way to the disk.

use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::cache::{RowKey, Space};
use crate::engine::Engine;
use crate::error::Result;
use crate::observer::Observer;
use crate::pipeline::{Outcome, Processed};
use crate::profile::Span;

/// How long the first computed row waits at most until it is durable, so that short runs, too, keep what they computed.
const FIRST_COMMIT: Duration = Duration::from_millis(100);
/// How long a row waits in a long run: each commit is a file of its own.
const COMMIT_INTERVAL: Duration = Duration::from_secs(2);
/// And before so many of them are waiting: 8 MiB of 512-d features.
#[cfg(not(test))]
const COMMIT_ROWS: usize = 4 << 10;
/// Few, so that the short runs of the tests have many commits to fail in.
#[cfg(test)]
const COMMIT_ROWS: usize = 3;

/// Features that are computed and not yet durable.
pub(super) struct NewRows<'a> {
    space: &'a RwLock<Space>,
    engine: &'a Engine<'a>,
    observer: &'a dyn Observer,
    keys: Vec<RowKey>,
    values: Vec<f32>,
    pace: Pace,
}

impl<'a> NewRows<'a> {
    pub(super) fn new(space: &'a RwLock<Space>, engine: &'a Engine<'a>, observer: &'a dyn Observer) -> Self {
        Self {
            space,
            engine,
            observer,
            keys: Vec::new(),
            values: Vec::new(),
            pace: Pace::new(),
        }
    }

    /// Takes over a picture's features, if there are any.
    pub(super) fn take(&mut self, processed: &Processed) {
        if let Outcome::Features(features, completeness) = &processed.outcome {
            let content = processed.content.expect("a feature has a content");
            for (view, feature) in features {
                self.keys.push(view.key(content, *completeness));
                self.values.extend_from_slice(feature);
            }
            self.pace.row_waits(Instant::now());
        }
    }

    /// Writes what waits if it has waited long enough; returns whether all that was taken is durable.
    pub(super) fn write_if_due(&mut self) -> Result<bool> {
        if self.keys.len() >= COMMIT_ROWS || self.pace.is_due(Instant::now()) {
            self.write()?;
        }
        Ok(self.keys.is_empty())
    }

    pub(super) fn write(&mut self) -> Result<()> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let _span = Span::begin(self.observer, "write rows").with("rows", self.keys.len());
        let (device, runtime) = self.engine.provenance().expect("rows come from a session");
        let dim = self.values.len() / self.keys.len();
        let read = || self.space.read().unwrap_or_else(PoisonError::into_inner);
        let segment = read().write(&self.keys, &self.values, dim, &device, runtime)?;
        if let Some(segment) = segment {
            self.space
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .publish(segment)?;
        }
        self.keys.clear();
        self.values.clear();
        self.pace.committed();
        Ok(())
    }
}

/// When to commit: after [`FIRST_COMMIT`], then after twice as long each time, up to [`COMMIT_INTERVAL`].
#[derive(Debug)]
struct Pace {
    interval: Duration,
    /// When the oldest row that is not durable came.
    since: Option<Instant>,
}

impl Pace {
    fn new() -> Self {
        Self {
            interval: FIRST_COMMIT,
            since: None,
        }
    }

    fn row_waits(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    fn is_due(&self, now: Instant) -> bool {
        self.since
            .is_some_and(|since| now.saturating_duration_since(since) >= self.interval)
    }

    fn committed(&mut self) {
        self.interval = COMMIT_INTERVAL.min(self.interval * 2);
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_come_soon_at_first_and_seldom_later() {
        let mut now = Instant::now();
        let mut pace = Pace::new();
        assert!(!pace.is_due(now + Duration::from_secs(9)), "nothing waits");
        let mut waits = Vec::new();
        for _ in 0..7 {
            pace.row_waits(now);
            let row = now;
            while !pace.is_due(now) {
                now += Duration::from_millis(50);
                // Later rows do not put off the oldest one's commit.
                pace.row_waits(now);
            }
            waits.push((now - row).as_millis());
            pace.committed();
            assert!(!pace.is_due(now));
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 2000, 2000]);
    }
}
