//! Heads that are trained at the same time, none of them inside another.
//!
//! A rayon worker that waits for the pieces of its own sums takes up whatever lies in its pool: were the heads in there
//! too, it would begin a second head within the first, a third within that, each with its memory. So each thread here has a
//! pool of its own, in which there is nothing but the pieces of the head it is at.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rayon::{ThreadPool, ThreadPoolBuilder};

/// Threads of all calls under way: folds that are trained side by side each call, and share the cores.
static BUSY: AtomicUsize = AtomicUsize::new(0);

/// Calls `work` for each index below `count`, on as many threads as the pool has that no other call here uses.
pub(super) fn side_by_side(count: usize, work: &(dyn Fn(usize) + Sync)) {
    let next = AtomicUsize::new(0);
    let run = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return;
            }
            work(index);
        }
    };
    let share = Share::of(count.min(rayon::current_num_threads()));
    let one_thread = |_| ThreadPoolBuilder::new().num_threads(1).build().ok();
    let pools: Vec<ThreadPool> = (0..share.threads).map_while(one_thread).collect();
    thread::scope(|scope| {
        for pool in &pools {
            // Where the system gives no more threads, fewer do it.
            let _ = thread::Builder::new().spawn_scoped(scope, || pool.install(run));
        }
    });
    // What is left if the system gave none.
    run();
}

/// Threads taken out of [`BUSY`]'s reach; given back when dropped.
struct Share {
    threads: usize,
}

impl Share {
    /// Up to `wanted` threads, at least one.
    fn of(wanted: usize) -> Self {
        let all = rayon::current_num_threads();
        let busy = BUSY.fetch_add(wanted, Ordering::Relaxed);
        let threads = wanted.min(all.saturating_sub(busy)).max(1);
        BUSY.fetch_sub(wanted.saturating_sub(threads), Ordering::Relaxed);
        Self {
            threads: threads.min(wanted),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        BUSY.fetch_sub(self.threads, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::cell::Cell;
    use std::sync::Mutex;
    use std::time::Duration;

    use rayon::prelude::*;

    use super::*;

    thread_local! {
        static AT_WORK: Cell<bool> = const { Cell::new(false) };
    }

    #[test]
    fn each_is_done_once_and_none_inside_another() {
        let done = Mutex::new(Vec::new());
        let nested = AtomicUsize::new(0);
        let work = |index: usize| {
            if AT_WORK.replace(true) {
                nested.fetch_add(1, Ordering::Relaxed);
            }
            // Uneven, so that threads wait for each other's pieces.
            (0..8).into_par_iter().with_max_len(1).for_each(|piece| {
                thread::sleep(Duration::from_micros((index + piece) as u64 % 5 * 40));
            });
            AT_WORK.set(false);
            done.lock().unwrap().push(index);
        };
        let pool = ThreadPoolBuilder::new().num_threads(8).build().unwrap();
        pool.install(|| side_by_side(100, &work));
        let mut done = done.into_inner().unwrap();
        done.sort_unstable();
        assert_eq!(done, (0..100).collect::<Vec<_>>());
        assert_eq!(nested.into_inner(), 0);
    }

    #[test]
    fn nothing_to_do_is_done_at_once() {
        side_by_side(0, &|_| panic!("there is nothing"));
    }
}
