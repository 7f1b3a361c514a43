//! How many threads the trainings of a process share their batches with, all together.
//!
//! Trainings that run side by side, the folds of a cross-validation say, do not know of each other; were each to fill the
//! machine with a team, the teams' threads would wait for each other's cores. So a training takes what no other one has.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The threads of this process's trainings.
pub(super) static THREADS: Seats = Seats::new();

/// Threads that trainings have.
#[derive(Debug)]
pub(super) struct Seats {
    taken: AtomicUsize,
}

impl Seats {
    const fn new() -> Self {
        Self {
            taken: AtomicUsize::new(0),
        }
    }

    /// Takes up to `wanted` of `all` threads: of those that are left, a power of two, and at least the caller's own.
    pub(super) fn take(&self, wanted: usize, all: usize) -> Taken<'_> {
        let count = |taken: usize| {
            let count = wanted.min(all.saturating_sub(taken)).max(1);
            // The largest power of two that is not above.
            1 << count.ilog2()
        };
        let mut taken = self.taken.load(Ordering::Relaxed);
        loop {
            let (order, count) = (Ordering::Relaxed, count(taken));
            match self.taken.compare_exchange_weak(taken, taken + count, order, order) {
                Ok(_) => return Taken { seats: self, count },
                Err(now) => taken = now,
            }
        }
    }
}

/// Threads that are given back when this is dropped.
#[derive(Debug)]
pub(super) struct Taken<'s> {
    seats: &'s Seats,
    count: usize,
}

impl Taken<'_> {
    /// How many; never 0.
    pub(super) fn count(&self) -> usize {
        self.count
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.seats.taken.fetch_sub(self.count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trainings_side_by_side_do_not_each_fill_the_machine() {
        let seats = Seats::new();
        let first = seats.take(8, 8);
        let others: Vec<Taken<'_>> = (0..7).map(|_| seats.take(8, 8)).collect();
        assert_eq!(first.count(), 8);
        assert!(others.iter().all(|other| other.count() == 1));
        drop(first);
        // One of eight is left.
        assert_eq!(seats.take(8, 8).count(), 1);
        drop(others);
        let few = seats.take(2, 8);
        // Six are left, of which four can share a batch.
        assert_eq!((few.count(), seats.take(8, 8).count()), (2, 4));
        drop(few);
        assert_eq!(seats.take(8, 8).count(), 8);
    }
}
