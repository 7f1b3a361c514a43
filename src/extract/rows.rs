//! Features on their way to the disk.

use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::cache::{RowKey, Space};
use crate::engine::Engine;
use crate::error::Result;
use crate::picture::Completeness;
use crate::pipeline::{Outcome, Processed};

/// Rows are made durable at least this often.
const COMMIT_INTERVAL: Duration = Duration::from_secs(2);
/// And before so many of them are waiting: 32 MiB of 512-d features.
const COMMIT_ROWS: usize = 16 << 10;

/// Features that are computed and not yet durable.
pub(super) struct NewRows<'a> {
    space: &'a RwLock<Space>,
    engine: &'a Engine<'a>,
    keys: Vec<RowKey>,
    values: Vec<f32>,
    written: Instant,
}

impl<'a> NewRows<'a> {
    pub(super) fn new(space: &'a RwLock<Space>, engine: &'a Engine<'a>) -> Self {
        Self {
            space,
            engine,
            keys: Vec::new(),
            values: Vec::new(),
            written: Instant::now(),
        }
    }

    /// Takes over a feature, if there is one.
    pub(super) fn take(&mut self, processed: &Processed) {
        if let Outcome::Feature(feature, completeness) = &processed.outcome {
            let content = processed.content.expect("a feature has a content");
            self.keys.push(match completeness {
                Completeness::Whole => RowKey::plain(content),
                Completeness::Partial => RowKey::partial(content),
            });
            self.values.extend_from_slice(feature);
        }
    }

    /// Writes what waits if it has waited long enough; returns whether it was time to.
    pub(super) fn write_if_due(&mut self) -> Result<bool> {
        if self.keys.len() < COMMIT_ROWS && self.written.elapsed() < COMMIT_INTERVAL {
            return Ok(false);
        }
        self.write().map(|()| true)
    }

    pub(super) fn write(&mut self) -> Result<()> {
        self.written = Instant::now();
        if self.keys.is_empty() {
            return Ok(());
        }
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
        Ok(())
    }
}
