//! Mini-batch gradient descent, step for step as PyTorch does it, for one head or for many.
//!
//! Heads that draw the same mini-batches (same seed, batch size and sampling) share a pass over the rows, see [`block`];
//! blocks are spread over the threads of the current rayon pool, and a large batch of few heads over a [`team`]. What comes
//! out depends on neither: each head is bit for bit what it is when trained alone. The choice of the best epoch is in
//! [`super::training`], that of the rates in [`super::schedule`].

mod aligned;
mod block;
mod criterion;
mod learner;
mod order;
mod seats;
mod step;
mod team;

use std::collections::BTreeMap;
use std::thread;

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use self::block::{LARGE_BATCH, Listener};
use self::learner::Learner;
use self::order::{Order, Source};
use self::seats::THREADS;
use self::team::{LEAVES, Member, Team};
use super::recipe::{Descent, Recipe, Sampling, Update};
use super::training::{EpochRecord, Training, TrainingTask};
use crate::{Observer, Quiet, Result};

/// Bytes of weights and what belongs to them in a block: half of a small second-level cache.
const BLOCK: usize = 512 << 10;
/// Multiplications of a batch from which on several threads are faster than one.
const TEAM_WORK: usize = 1 << 19;

/// A head to be trained: its place among all, its recipe, and the options in that.
pub(super) type Wanted<'r> = (usize, &'r Recipe, &'r Descent);

/// Trains one head, and hands each epoch's record to `on_epoch`.
pub(super) fn train(
    recipe: &Recipe,
    options: &Descent,
    task: &TrainingTask<'_>,
    observer: &dyn Observer,
    on_epoch: &mut dyn FnMut(&EpochRecord),
) -> Result<Training> {
    let mut result = None;
    let mut listener = Listener {
        observer,
        on_epoch,
        on_trained: &mut |_, training| result = Some(training),
    };
    let all = rayon::current_num_threads();
    let threads = THREADS.take(members(task, options.batch_size, all), all);
    train_block(&[(0, recipe, options)], task, threads.count(), &mut listener);
    result.expect("a block hands over each of its heads")
}

/// Trains many heads, and hands each over with its index as soon as it is done.
pub(super) fn train_all(
    wanted: &[Wanted<'_>],
    task: &TrainingTask<'_>,
    observer: &dyn Observer,
    on_trained: &(dyn Fn(usize, Result<Training>) + Sync),
) {
    let all = rayon::current_num_threads();
    let blocks = blocks(wanted, task, all);
    let share = all / blocks.len().max(1);
    blocks.par_iter().for_each(|block| {
        let mut listener = Listener {
            observer,
            on_epoch: &mut |_| (),
            on_trained: &mut |index, training| on_trained(index, training),
        };
        let batch_size = block.first().map_or(1, |(_, _, options)| options.batch_size);
        let threads = THREADS.take(members(task, batch_size, share), all);
        train_block(block, task, threads.count(), &mut listener);
    });
}

/// Cuts the heads into blocks that share a pass over the rows.
fn blocks<'r>(wanted: &[Wanted<'r>], task: &TrainingTask<'_>, threads: usize) -> Vec<Vec<Wanted<'r>>> {
    let mut groups: BTreeMap<(u64, usize, bool), Vec<Wanted<'r>>> = BTreeMap::new();
    for &(index, recipe, options) in wanted {
        let balanced = options.sampling == Sampling::Balanced;
        let group = groups.entry((recipe.seed, options.batch_size, balanced)).or_default();
        group.push((index, recipe, options));
    }
    let moments = |(_, _, options): &Wanted<'_>| match options.update {
        Update::Sgd { .. } => 1,
        Update::AdamW { .. } => 2,
    };
    let arrays = 1 + wanted.iter().map(moments).max().unwrap_or(0);
    let bytes = arrays * size_of::<f32>() * task.classes() * (task.train().dim() + 1);
    // Some blocks a thread, so that threads end at about the same time.
    let most = (BLOCK / bytes).min(wanted.len().div_ceil(4 * threads)).max(1);
    groups
        .into_values()
        .flat_map(|group| group.chunks(most).map(<[_]>::to_vec).collect::<Vec<_>>())
        .collect()
}

/// Trains heads of one seed, batch size and sampling with so many threads, see [`members`].
fn train_block(wanted: &[Wanted<'_>], task: &TrainingTask<'_>, members: usize, listener: &mut Listener<'_>) {
    let mut learners = Vec::with_capacity(wanted.len());
    for &(index, recipe, options) in wanted {
        match Learner::new(index, recipe, options, task) {
            Ok(learner) => learners.push(learner),
            Err(error) => (listener.on_trained)(index, Err(error)),
        }
    }
    let Some(&(_, recipe, options)) = wanted.first() else {
        return;
    };
    let source = Source::new(task);
    let order = || Order::new(task, &source, options.sampling, recipe.seed);
    if members == 1 {
        return block::train(learners, task, order(), Member::alone(), listener);
    }
    let team = Team::new(members);
    thread::scope(|scope| {
        // From here on, should a thread not start, the others learn that this one is gone.
        let first = Member::of(&team, 0);
        for rank in 1..members {
            let (learners, order, member) = (learners.clone(), &order, Member::of(&team, rank));
            scope.spawn(move || {
                // The first member reports for all.
                let mut listener = Listener {
                    observer: &Quiet,
                    on_epoch: &mut |_| (),
                    on_trained: &mut |_, _| (),
                };
                block::train(learners, task, order(), member, &mut listener);
            });
        }
        block::train(learners, task, order(), first, listener);
    });
}

/// How many of so many threads shall share each batch, a power of two; more than one only where every epoch has a large
/// batch, since members meet at those alone.
fn members(task: &TrainingTask<'_>, batch_size: usize, threads: usize) -> usize {
    let rows = match task.order() {
        Some(order) => order.iter().map(Vec::len).min().unwrap_or(0),
        None => task.train().rows(),
    };
    let rows = batch_size.min(rows);
    if rows < LARGE_BATCH || rows * task.classes() * task.train().dim() < TEAM_WORK {
        return 1;
    }
    let threads = threads.clamp(1, LEAVES);
    // The largest power of two that is not above.
    1 << threads.ilog2()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]
#[path = "reference_tests.rs"]
mod reference_tests;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
#[path = "tests.rs"]
mod tests;
