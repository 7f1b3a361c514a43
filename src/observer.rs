//! How long-running work tells its caller how far it is, and learns that it shall stop.
//!
//! Nothing below `cli/` prints or catches signals: the work calls an [`Observer`], the caller decides what becomes of it.

use crate::profile::Profiler;

/// Watches one long-running task and can ask it to stop.
///
/// Every method has a default that does nothing, so [`Quiet`] is an empty implementation.
pub trait Observer: Send + Sync {
    /// A task starts. `total` is the number of `unit`s to come, where it is known.
    fn begin(&self, _task: &str, _total: Option<u64>, _unit: Unit) {}
    /// `count` more units are done.
    fn advance(&self, _count: u64) {}
    /// The task that began last has ended.
    fn end(&self) {}
    /// Something a person wants to know now, in one line without a period.
    fn note(&self, _message: &str) {}
    /// Something a person should see even when progress is hidden, in one line without a period.
    fn warn(&self, _message: &str) {}
    /// Where it is traced what each thread does; nowhere by default.
    fn profiler(&self) -> Option<&Profiler> {
        None
    }
    /// Whether the work shall stop at the next point where nothing is lost.
    fn interrupted(&self) -> bool {
        false
    }
}

/// What a task counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes transferred.
    Bytes,
    /// Pictures processed.
    Pictures,
    /// Heads trained.
    Heads,
}

/// An [`Observer`] that ignores everything and never interrupts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Observer for Quiet {}
