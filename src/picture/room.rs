//! Bounds the memory of all pictures together: those of usual size pass at once, huge ones wait for each other.
//!
//! There are two budgets, one for files in memory and one for decoders. Whoever has both took the file's first, and who
//! has a decoder's waits for no more room, nor for anybody who could wait for room: so decoders always come to their end,
//! then files do, and no two threads can wait for each other. What needs more than a whole budget gets it alone.

use std::sync::{Condvar, Mutex, PoisonError};

/// Bytes of room for files that are in memory at the same time.
pub(crate) const FILE_BUDGET: u64 = 1 << 30;
/// Bytes of room for decoders at the same time, by estimate.
pub(crate) const DECODER_BUDGET: u64 = 1536 << 20;

static FILES: Budget = Budget::new(FILE_BUDGET);
static DECODERS: Budget = Budget::new(DECODER_BUDGET);

#[derive(Debug)]
struct Budget {
    bytes: u64,
    used: Mutex<u64>,
    freed: Condvar,
}

impl Budget {
    const fn new(bytes: u64) -> Self {
        Self {
            bytes,
            used: Mutex::new(0),
            freed: Condvar::new(),
        }
    }

    fn take(&'static self, bytes: u64) -> Room {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        while *used > 0 && used.saturating_add(bytes) > self.bytes {
            used = self.freed.wait(used).unwrap_or_else(PoisonError::into_inner);
        }
        // What is alone may be longer than any number of its kind could be together.
        *used = used.saturating_add(bytes);
        Room { budget: self, bytes }
    }
}

/// Room for a file's bytes or for its decoding, given back when it is dropped.
#[derive(Debug)]
#[must_use = "dropping it gives the room back"]
pub(crate) struct Room {
    budget: &'static Budget,
    bytes: u64,
}

impl Room {
    /// Waits until there is room for a file of so many bytes. Keep it as long as the bytes, and take it before them.
    ///
    /// A thread takes one at a time, and never while it decodes. Drop it before waiting for another thread (to put a
    /// tensor into a full queue, say) that could itself wait for room.
    pub(crate) fn of_file(bytes: u64) -> Self {
        FILES.take(bytes)
    }

    /// Waits until there is room to decode a picture; `bytes_per_pixel` counts all that exists of it at one time.
    pub(super) fn of_pixels(width: u32, height: u32, bytes_per_pixel: u64) -> Self {
        Self::of_decoder((u64::from(width) * u64::from(height)).saturating_mul(bytes_per_pixel))
    }

    /// Waits until there is room for all that a decoder has in memory at one time.
    pub(super) fn of_decoder(bytes: u64) -> Self {
        DECODERS.take(bytes)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut used = self.budget.used.lock().unwrap_or_else(PoisonError::into_inner);
        *used = used.saturating_sub(self.bytes);
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn huge_pictures_are_decoded_one_at_a_time_and_small_ones_together() {
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let _room = Room::of_pixels(20_000, 20_000, 12);
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(most.load(Ordering::SeqCst), 1);
        // These fit together: it would wait for ever if they did not.
        let _rooms = [(); 3].map(|()| Room::of_pixels(4000, 3000, 12));
    }

    #[test]
    fn huge_files_with_huge_pictures_neither_exceed_the_budgets_nor_wait_for_each_other() {
        // Files that fill their budget in pairs, pictures that fill theirs alone; every third is larger than the budget.
        let (files, pixels) = (AtomicU64::new(0), AtomicU64::new(0));
        let (most_files, most_pixels) = (AtomicU64::new(0), AtomicU64::new(0));
        let enter = |used: &AtomicU64, most: &AtomicU64, bytes| {
            most.fetch_max(used.fetch_add(bytes, Ordering::SeqCst) + bytes, Ordering::SeqCst);
        };
        std::thread::scope(|scope| {
            for thread in 0..12_u64 {
                let (files, pixels, most_files, most_pixels) = (&files, &pixels, &most_files, &most_pixels);
                scope.spawn(move || {
                    for round in 0..40 {
                        let file = if (thread + round) % 3 == 0 {
                            FILE_BUDGET + 1
                        } else {
                            FILE_BUDGET / 2
                        };
                        let file_room = Room::of_file(file);
                        enter(files, most_files, file);
                        let side = if round % 2 == 0 { 16_000 } else { 9_000 };
                        let pixel_room = Room::of_pixels(side, side, 12);
                        let bytes = u64::from(side) * u64::from(side) * 12;
                        enter(pixels, most_pixels, bytes);
                        std::thread::yield_now();
                        pixels.fetch_sub(bytes, Ordering::SeqCst);
                        drop(pixel_room);
                        files.fetch_sub(file, Ordering::SeqCst);
                        drop(file_room);
                    }
                });
            }
        });
        assert_eq!(most_files.load(Ordering::SeqCst), FILE_BUDGET + 1);
        // One picture of 16 000 × 16 000 at 12 bytes is more than the budget, and then alone.
        assert_eq!(most_pixels.load(Ordering::SeqCst), 16_000 * 16_000 * 12);
    }
}
