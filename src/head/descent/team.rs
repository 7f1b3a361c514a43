//! Several threads on one large mini-batch: each forms the gradient of its rows, and all make the same step.
//!
//! Every member keeps the whole state of the training, its own copy of the weights too, and makes every decision by itself;
//! what they tell each other once a batch are gradients and scores of rows. So there is one wait a batch, no lock is fought
//! for, and because sums have the shape of a tree that does not depend on how many members there are, nothing depends on it.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::thread;

use crate::head::kernel;
use crate::head::loss::RowScore;

/// Parts into which a large batch is cut, whatever the number of threads; a power of two.
pub(super) const LEAVES: usize = 8;

/// What a member contributes to a batch.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// The gradient of its rows.
    pub(super) gradient: Vec<f32>,
    /// The scores of its rows, in their order.
    pub(super) rows: Vec<RowScore>,
    /// Whether it was asked to end the training; the first member's word counts, once it was said.
    pub(super) interrupted: bool,
}

/// Where members meet.
#[derive(Debug)]
pub(super) struct Team {
    /// By turn, odd or even, and member: while one batch's shares are read, the next one's are written.
    shares: [Vec<RwLock<Share>>; 2],
    arrived: AtomicUsize,
    meetings: AtomicUsize,
    broken: AtomicBool,
}

impl Team {
    /// A team of a power of two of members, at most [`LEAVES`].
    pub(super) fn new(members: usize) -> Self {
        debug_assert!(members.is_power_of_two() && members <= LEAVES, "{members} members");
        let shares = || (0..members).map(|_| RwLock::default()).collect();
        Self {
            shares: [shares(), shares()],
            arrived: AtomicUsize::new(0),
            meetings: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
        }
    }

    fn members(&self) -> usize {
        self.shares[0].len()
    }

    /// Waits for all members.
    fn meet(&self) {
        let meeting = self.meetings.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.members() {
            self.arrived.store(0, Ordering::Relaxed);
            self.meetings.store(meeting.wrapping_add(1), Ordering::Release);
            return;
        }
        let mut spins = 0_u32;
        while self.meetings.load(Ordering::Acquire) == meeting {
            assert!(
                !self.broken.load(Ordering::Relaxed),
                "another thread of this training panicked"
            );
            spins += 1;
            // The others are done in microseconds, unless the machine has fewer free cores than members: then this one
            // stands in their way.
            if spins < 1 << 8 {
                spin_loop();
            } else {
                thread::yield_now();
            }
        }
    }
}

/// One thread of a training: a member of a team, or alone.
#[derive(Debug)]
pub(super) struct Member<'t> {
    team: Option<&'t Team>,
    rank: usize,
    turn: usize,
    /// Whether the first member said that the training shall end.
    interrupted: bool,
    sum: Vec<f32>,
}

impl<'t> Member<'t> {
    /// A thread that trains alone.
    pub(super) fn alone() -> Self {
        Self {
            team: None,
            rank: 0,
            turn: 0,
            interrupted: false,
            sum: Vec::new(),
        }
    }

    /// A member; the first one has rank 0.
    pub(super) fn of(team: &'t Team, rank: usize) -> Self {
        Self {
            team: Some(team),
            rank,
            turn: 0,
            interrupted: false,
            sum: Vec::new(),
        }
    }

    /// How many there are.
    pub(super) fn members(&self) -> usize {
        self.team.map_or(1, Team::members)
    }

    /// This one's place among them.
    pub(super) fn rank(&self) -> usize {
        self.rank
    }

    /// Whether the training shall end: what all members know since they last met.
    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted
    }

    /// Turns this member's share into that of the whole batch: the sum of the gradients and the scores of all rows.
    pub(super) fn exchange(&mut self, share: &mut Share) {
        let Some(team) = self.team else { return };
        let shares = &team.shares[self.turn % 2];
        self.turn += 1;
        std::mem::swap(
            &mut *shares[self.rank].write().unwrap_or_else(PoisonError::into_inner),
            share,
        );
        team.meet();
        let shares: Vec<RwLockReadGuard<'_, Share>> = shares
            .iter()
            .map(|share| share.read().unwrap_or_else(PoisonError::into_inner))
            .collect();
        let gradients: Vec<&[f32]> = shares.iter().map(|share| share.gradient.as_slice()).collect();
        sum_of(&gradients, &mut share.gradient, &mut self.sum);
        share.rows.clear();
        share.rows.extend(shares.iter().flat_map(|share| &share.rows));
        // It stays: who looks only now and then must not miss the one share that said so.
        self.interrupted |= shares[0].interrupted;
    }
}

/// Writes the sum of `gradients`, a power of two of them, as a tree: halves first.
fn sum_of(gradients: &[&[f32]], sum: &mut Vec<f32>, other: &mut Vec<f32>) {
    match gradients {
        [] => {}
        [only] => {
            sum.clear();
            sum.extend_from_slice(only);
        }
        [first, second] => {
            sum.clear();
            sum.extend_from_slice(first);
            kernel::add(sum, second);
        }
        _ => {
            let (low, high) = gradients.split_at(gradients.len() / 2);
            sum_of(low, sum, other);
            let mut spare = Vec::new();
            sum_of(high, other, &mut spare);
            kernel::add(sum, other);
        }
    }
}

impl Drop for Member<'_> {
    /// Lets no member wait for one that panicked.
    fn drop(&mut self) {
        if let Some(team) = self.team.filter(|_| thread::panicking()) {
            team.broken.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
#[path = "team_tests.rs"]
mod tests;
