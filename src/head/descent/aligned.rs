//! Numbers that begin at the start of a cache line, so that no vector of theirs lies across two.

use std::ops::{Deref, DerefMut};

/// Bytes of a cache line, and of the widest vector.
const LINE: usize = 64;

/// A fixed number of f32.
#[derive(Debug)]
pub(super) struct Aligned {
    values: Vec<f32>,
    start: usize,
    len: usize,
}

impl Aligned {
    /// `len` zeros.
    pub(super) fn zeros(len: usize) -> Self {
        let spare = LINE / size_of::<f32>();
        let values = vec![0.0; len + spare];
        // Where the start cannot be told, speed is lost and nothing else.
        let start = values.as_ptr().align_offset(LINE).min(spare);
        Self { values, start, len }
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[self.start..][..self.len]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..][..self.len]
    }
}

impl Clone for Aligned {
    /// The copy lies elsewhere, and begins at a line of its own.
    fn clone(&self) -> Self {
        let mut copy = Self::zeros(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_as_long_and_as_aligned_as_the_original() {
        for len in [0, 1, 15, 16, 2052] {
            let mut values = Aligned::zeros(len);
            values
                .iter_mut()
                .zip(1_u16..)
                .for_each(|(value, number)| *value = f32::from(number));
            let copy = values.clone();
            assert_eq!(copy[..], values[..]);
            assert_eq!(copy.len(), len);
            assert_eq!(copy.as_ptr().align_offset(LINE), 0);
        }
    }
}
