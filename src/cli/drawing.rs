//! The pictures of the demo: four shapes in many colours, sizes and places, the same ones every time.

use std::path::Path;

use image::{Rgb, RgbImage};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::error::{Error, Result};

pub(super) const CLASSES: [&str; 4] = ["disc", "ring", "star", "triangle"];
const TRAIN: u32 = 24;
const VAL: u32 = 8;
const WIDTH: u32 = 300;
const HEIGHT: u32 = 260;

/// Draws the data set into `folder`: `{train,val}/<class>/<n>.png`, 24 and 8 pictures of each class.
pub(super) fn draw_dataset(folder: &Path) -> Result<()> {
    for (class, name) in CLASSES.iter().enumerate() {
        for (split, count) in [("train", TRAIN), ("val", VAL)] {
            let folder = folder.join(split).join(name);
            std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
            for number in 0..count {
                let seed = (class as u64) << 32 | u64::from(split == "val") << 16 | u64::from(number);
                let path = folder.join(format!("{number:02}.png"));
                let picture = draw(class, seed);
                picture
                    .save(&path)
                    .map_err(|error| Error::io("write", &path)(std::io::Error::other(error)))?;
            }
        }
    }
    Ok(())
}

/// One picture of a shape: over a soft gradient, turned, tinted and placed by `seed`.
fn draw(class: usize, seed: u64) -> RgbImage {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut uniform = |low: f32, high: f32| low + (high - low) * (random.next_u32() as f32 / u32::MAX as f32);
    let mut colour = || [uniform(0.0, 1.0), uniform(0.0, 1.0), uniform(0.0, 1.0)];
    let (ground, shade, mut ink) = (colour(), colour(), colour());
    // The shape must be seen: its brightness lies away from the ground's.
    let brightness = |colour: [f32; 3]| colour.iter().sum::<f32>() / 3.0;
    let middle = (brightness(ground) + brightness(shade)) / 2.0;
    let target = if middle > 0.5 { middle - 0.4 } else { middle + 0.4 };
    let shift = target - brightness(ink);
    ink = ink.map(|value| (value + shift).clamp(0.0, 1.0));
    let radius = uniform(0.24, 0.42) * HEIGHT as f32;
    let (x, y) = (uniform(0.42, 0.58) * WIDTH as f32, uniform(0.42, 0.58) * HEIGHT as f32);
    let turn = uniform(0.0, std::f32::consts::TAU);
    let (sin, cos) = turn.sin_cos();
    let slope = uniform(0.0, std::f32::consts::TAU).sin_cos();

    RgbImage::from_fn(WIDTH, HEIGHT, |column, row| {
        // Four samples a pixel keep the edges smooth.
        let inside = [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)]
            .iter()
            .filter(|(dx, dy)| {
                let (u, v) = ((column as f32 + dx - x) / radius, (row as f32 + dy - y) / radius);
                covers(class, u * cos - v * sin, u * sin + v * cos)
            });
        let cover = inside.count() as f32 / 4.0;
        let along = (column as f32 / WIDTH as f32 - 0.5) * slope.0 + (row as f32 / HEIGHT as f32 - 0.5) * slope.1 + 0.5;
        let channel = |index: usize| {
            let ground = ground[index] + (shade[index] - ground[index]) * along.clamp(0.0, 1.0);
            ((ground + (ink[index] - ground) * cover) * 255.0).round() as u8
        };
        Rgb([channel(0), channel(1), channel(2)])
    })
}

/// Whether the point lies in the shape of the class; shapes reach from -1 to 1.
fn covers(class: usize, u: f32, v: f32) -> bool {
    let radius = u.hypot(v);
    let angle = v.atan2(u);
    // The border of a regular polygon of n sides in polar coordinates, at the distance `inner` in the middle of a side.
    let side = |sides: f32, inner: f32| {
        let sector = std::f32::consts::TAU / sides;
        inner / (angle.rem_euclid(sector) - sector / 2.0).cos()
    };
    match class {
        0 => radius < 0.9,
        1 => (0.6..0.95).contains(&radius),
        2 => {
            let sector = std::f32::consts::TAU / 5.0;
            let off = (angle.rem_euclid(sector) / sector - 0.5).abs() * 2.0;
            radius < 0.4 + 0.6 * off.powf(1.4)
        }
        _ => radius < side(3.0, 0.5),
    }
}
