//! Random views of a picture, as torchvision's training transform makes them: `RandomResizedCrop` with its default scale and
//! ratio, then `RandomHorizontalFlip`.
//!
//! What is drawn depends on the picture's bytes and size, the seed and the view's number, and on nothing else: not on other
//! pictures, their order, threads, or how many views are wanted. Which views there are is left to the callers.

use std::ops::RangeInclusive;

use image::RgbImage;

use super::resize::{Order, Part, Window, resize};
use crate::random::Random;

/// The number of the way views are drawn and computed that is written here. Raised when the same seed and number would
/// mean other pixels; at most 15.
pub(crate) const RECIPE: u8 = 0;

/// Shares of the picture's area.
const SCALE: RangeInclusive<f64> = 0.08..=1.0;
/// Widths in heights.
const RATIO: RangeInclusive<f64> = 3.0 / 4.0..=4.0 / 3.0;
/// How often a part is drawn that does not fit before the centre is taken.
const TRIES: usize = 10;
/// Names the use of the key; part of the recipe.
const KEY_CONTEXT: &str = "lastlayer 2026 random view of a picture";

/// A random part of a picture, and whether it is mirrored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RandomCrop {
    part: Part,
    mirrored: bool,
}

impl RandomCrop {
    /// View `number` of `seed`, of the picture whose file has this blake3 hash and which decodes to `width` × `height`.
    pub(crate) fn of(seed: u16, number: u16, content: &[u8; 32], (width, height): (u32, u32)) -> Self {
        let key = blake3::Hasher::new_derive_key(KEY_CONTEXT)
            .update(&seed.to_le_bytes())
            .update(&number.to_le_bytes())
            .update(content)
            .finalize();
        Self::draw(width, height, &mut Random::of_key(*key.as_bytes()))
    }

    /// Draws as torchvision does, in its order: a share of the area, a ratio, and where they fit, the place.
    fn draw(width: u32, height: u32, random: &mut Random) -> Self {
        let (area, log_ratio) = (
            f64::from(width) * f64::from(height),
            RATIO.start().ln()..=RATIO.end().ln(),
        );
        let part = (0..TRIES).find_map(|_| {
            let target = area * between(random, &SCALE);
            // Other libraries' exp may differ in the last bit, which no rounding to whole pixels shows but once in 10¹³.
            let ratio = between(random, &log_ratio).exp();
            let part_width = side((target * ratio).sqrt(), width)?;
            let part_height = side((target / ratio).sqrt(), height)?;
            let top = place(random, height - part_height);
            Some(Part {
                left: place(random, width - part_width),
                top,
                width: part_width,
                height: part_height,
            })
        });
        Self {
            part: part.unwrap_or_else(|| centre(width, height)),
            mirrored: random.unit() < 0.5,
        }
    }

    /// The view, `side` × `side`.
    pub(super) fn pixels(&self, picture: &RgbImage, side: u32) -> RgbImage {
        let length = u64::from(side);
        let window = Window {
            x: 0..length,
            y: 0..length,
        };
        let mut pixels = resize(picture, self.part, (length, length), &window, Order::ByLoss);
        if self.mirrored {
            image::imageops::flip_horizontal_in_place(&mut pixels);
        }
        pixels
    }
}

fn between(random: &mut Random, range: &RangeInclusive<f64>) -> f64 {
    range.start() + (range.end() - range.start()) * random.unit()
}

/// A length in whole pixels, a half going to the even neighbour as in Python; `None` where a line of `longest` can't have it.
fn side(length: f64, longest: u32) -> Option<u32> {
    let rounded = length.round_ties_even();
    (rounded >= 1.0 && rounded <= f64::from(longest)).then_some(rounded as u32)
}

/// Where a part begins that leaves `spare` pixels of a line.
fn place(random: &mut Random, spare: u32) -> u32 {
    random.below(u64::from(spare) + 1) as u32
}

/// The largest part about the centre whose ratio is allowed.
fn centre(width: u32, height: u32) -> Part {
    let ratio = f64::from(width) / f64::from(height);
    let (part_width, part_height) = if ratio < *RATIO.start() {
        (width, (f64::from(width) / RATIO.start()).round_ties_even() as u32)
    } else if ratio > *RATIO.end() {
        ((f64::from(height) * RATIO.end()).round_ties_even() as u32, height)
    } else {
        (width, height)
    };
    Part {
        left: (width - part_width) / 2,
        top: (height - part_height) / 2,
        width: part_width,
        height: part_height,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
#[path = "augment_tests.rs"]
mod tests;
