//! Heads, or folds of them, that are trained at the same time, none of them inside another.
//!
//! A rayon worker that waits for the pieces of its own sums takes up whatever lies in its pool: were the heads in there
//! too, it would begin a second head within the first, a third within that, each with its memory. So each head here has a
//! pool of its own, in which there is nothing but its pieces.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rayon::{ThreadPool, ThreadPoolBuilder};

/// Threads of all calls under way from pools that are not made here: such calls share their pool's cores.
static BUSY: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Whether this thread is in a pool made here, in which nothing else is under way.
    static IN_OWN_POOL: Cell<bool> = const { Cell::new(false) };
}

/// Calls `work` for each index below `count`, so many of them at once at most.
///
/// Those at once divide the threads of the current pool that no other call here uses: each has a pool of its own. Work that is
/// done one at a time has the current pool.
pub(crate) fn side_by_side(count: usize, at_once: usize, work: &(dyn Fn(usize) + Sync)) {
    let wanted = at_once.min(count);
    if wanted <= 1 {
        return (0..count).for_each(work);
    }
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
    let share = Share::of(rayon::current_num_threads());
    let pools: Vec<ThreadPool> = shares(share.threads, wanted).map_while(pool).collect();
    thread::scope(|scope| {
        for pool in &pools {
            // Where the system gives no more threads, fewer do it.
            let _ = thread::Builder::new().spawn_scoped(scope, || pool.install(run));
        }
    });
    // What is left if the system gave none.
    run();
}

/// So many threads, divided among `wanted` pools as evenly as it goes; fewer pools where there are fewer threads.
fn shares(threads: usize, wanted: usize) -> impl Iterator<Item = usize> {
    let pools = wanted.min(threads).max(1);
    (0..pools).map(move |pool| threads / pools + usize::from(pool < threads % pools))
}

fn pool(threads: usize) -> Option<ThreadPool> {
    let builder = ThreadPoolBuilder::new().num_threads(threads);
    builder.start_handler(|_| IN_OWN_POOL.set(true)).build().ok()
}

/// Threads taken out of [`BUSY`]'s reach; given back when dropped.
struct Share {
    threads: usize,
    counted: usize,
}

impl Share {
    /// Up to `wanted` threads, at least one.
    fn of(wanted: usize) -> Self {
        if IN_OWN_POOL.get() {
            return Self {
                threads: wanted,
                counted: 0,
            };
        }
        let all = rayon::current_num_threads();
        let busy = BUSY.fetch_add(wanted, Ordering::Relaxed);
        let threads = wanted.min(all.saturating_sub(busy)).max(1);
        BUSY.fetch_sub(wanted.saturating_sub(threads), Ordering::Relaxed);
        Self {
            threads,
            counted: threads.min(wanted),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        BUSY.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
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
        pool.install(|| side_by_side(100, 8, &work));
        let mut done = done.into_inner().unwrap();
        done.sort_unstable();
        assert_eq!(done, (0..100).collect::<Vec<_>>());
        assert_eq!(nested.into_inner(), 0);
    }

    #[test]
    fn nothing_to_do_is_done_at_once() {
        side_by_side(0, 8, &|_| panic!("there is nothing"));
    }

    #[test]
    fn those_at_once_divide_the_threads_and_what_is_in_them_has_them_all() {
        let sizes = Mutex::new(Vec::new());
        let (under_way, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let work = |_| {
            most.fetch_max(1 + under_way.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
            let threads = rayon::current_num_threads();
            assert_eq!(
                Share::of(threads).threads,
                threads,
                "what is busy elsewhere is no matter here"
            );
            let inner = Mutex::new(0);
            // Heads within a fold: as many as its pool has threads.
            side_by_side(6, 6, &|_| {
                assert_eq!(rayon::current_num_threads(), 1);
                *inner.lock().unwrap() += 1;
            });
            assert_eq!(inner.into_inner().unwrap(), 6);
            sizes.lock().unwrap().push(rayon::current_num_threads());
            under_way.fetch_sub(1, Ordering::SeqCst);
        };
        let pool = ThreadPoolBuilder::new().num_threads(8).build().unwrap();
        pool.install(|| side_by_side(9, 3, &work));
        let sizes = sizes.into_inner().unwrap();
        assert_eq!(sizes.len(), 9);
        // Fewer where another test has some of them.
        assert!(sizes.iter().all(|size| (1..=3).contains(size)), "{sizes:?}");
        assert!(most.into_inner() <= 3);
        assert_eq!(shares(8, 3).collect::<Vec<_>>(), [3, 3, 2]);
        assert_eq!(shares(2, 5).collect::<Vec<_>>(), [1, 1]);
    }

    #[test]
    fn one_at_a_time_has_the_whole_pool() {
        let pool = ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        let done = Mutex::new(Vec::new());
        pool.install(|| {
            side_by_side(3, 1, &|index| {
                assert_eq!(rayon::current_num_threads(), 4);
                done.lock().unwrap().push(index);
            });
        });
        assert_eq!(done.into_inner().unwrap(), [0, 1, 2]);
    }
}
