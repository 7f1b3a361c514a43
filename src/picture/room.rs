//! Bounds the memory of all decoders together: pictures of usual size pass at once, huge ones wait for each other.

use std::sync::{Condvar, Mutex, PoisonError};

/// Bytes that decoders may use at the same time, by estimate; a picture that needs more is decoded alone.
const BUDGET: u64 = 1536 << 20;
/// What a decoder may need for a pixel: the picture as stored (up to 16-bit RGBA) and as RGB.
const BYTES_PER_PIXEL: u64 = 12;

static USED: Mutex<u64> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

/// Room for one picture's decoding, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Room(u64);

impl Room {
    /// Waits until there is room for a picture of so many pixels.
    pub(super) fn of(width: u32, height: u32) -> Self {
        let bytes = u64::from(width) * u64::from(height) * BYTES_PER_PIXEL;
        let mut used = USED.lock().unwrap_or_else(PoisonError::into_inner);
        while *used > 0 && *used + bytes > BUDGET {
            used = FREED.wait(used).unwrap_or_else(PoisonError::into_inner);
        }
        *used += bytes;
        Self(bytes)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        *USED.lock().unwrap_or_else(PoisonError::into_inner) -= self.0;
        FREED.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn huge_pictures_are_decoded_one_at_a_time_and_small_ones_together() {
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let _room = Room::of(20_000, 20_000);
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(most.load(Ordering::SeqCst), 1);
        // These fit together: it would wait for ever if they did not.
        let _rooms = [Room::of(4000, 3000), Room::of(4000, 3000), Room::of(4000, 3000)];
    }
}
