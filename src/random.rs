//! Random numbers from a seed, the same on every platform and with every version of the random crates.
//!
//! Only ChaCha's output bits are taken from outside; how they become floats and orders is written here. What is drawn for
//! which purpose is left to the callers: heads ([`Stream`]) and the random views of pictures ([`Random::of_key`]).

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// What a stream of random numbers is for; streams of one seed are independent of each other.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stream {
    /// The weights training starts from.
    Initial = 0,
    /// The order of the rows in each epoch.
    Order = 1,
    /// The view of each picture in each epoch.
    Views = 2,
    /// The rows of epochs that draw with replacement.
    Draws = 3,
}

/// A generator for one purpose.
#[derive(Debug, Clone)]
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    pub(crate) fn new(seed: u64, stream: Stream) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let mut generator = ChaCha8Rng::from_seed(key);
        generator.set_stream(stream as u64);
        Self(generator)
    }

    /// A generator for whatever a key of its own was made for.
    pub(crate) fn of_key(key: [u8; 32]) -> Self {
        Self(ChaCha8Rng::from_seed(key))
    }

    /// A float in `[0, 1)`, uniform over 2⁵³ equally spaced values.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A float in `[-bound, bound)`, uniform over 2²⁴ equally spaced values.
    pub(crate) fn uniform(&mut self, bound: f32) -> f32 {
        let unit = (self.0.next_u32() >> 8) as f32 / (1_u32 << 24) as f32;
        bound * (2.0 * unit - 1.0)
    }

    /// An integer in `0..bound`, without bias: Lemire, "Fast Random Integer Generation in an Interval", 2019.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.0.next_u64()) * u128::from(bound);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// Puts `items` in a random order: Fisher and Yates, from the last place to the first.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_is_a_permutation_and_every_order_is_as_likely() {
        let mut random = Random::new(3, Stream::Order);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..6000 {
            let mut items = [0, 1, 2];
            random.shuffle(&mut items);
            *counts.entry(items).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        // Binomial(6000, 1/6) has a standard deviation of 29: 150 is more than five of them.
        assert!(
            counts.values().all(|&count: &i32| (count - 1000).abs() < 150),
            "{counts:?}"
        );
    }

    #[test]
    fn uniform_fills_its_interval() {
        let mut random = Random::new(0, Stream::Initial);
        let values: Vec<f32> = (0..10_000).map(|_| random.uniform(0.5)).collect();
        assert!(values.iter().all(|value| (-0.5..0.5).contains(value)));
        let mean = values.iter().sum::<f32>() / 10_000.0;
        // The standard error is 0.0029.
        assert!(mean.abs() < 0.015, "{mean}");
        assert!(values.iter().any(|&value| value < -0.49) && values.iter().any(|&value| value > 0.49));
    }

    #[test]
    fn streams_and_seeds_differ() {
        let draw = |seed, stream| Random::new(seed, stream).0.next_u64();
        assert_ne!(draw(0, Stream::Initial), draw(0, Stream::Order));
        assert_ne!(draw(0, Stream::Order), draw(1, Stream::Order));
        assert_eq!(draw(1, Stream::Order), draw(1, Stream::Order));
    }
}
