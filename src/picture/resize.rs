//! Pillow's antialiased bilinear resize for 8-bit RGB, bit for bit, of a part of the source, restricted to a window of the
//! output.
//!
//! The filter is a triangle, widened by the scale when shrinking. Weights are normalised in f64, then rounded to fixed
//! point with [`PRECISION`] bits; rows are shrunk first, then columns, and each pass rounds to 8 bits. Pixels outside the
//! window are never computed, which changes nothing inside it. Pixels outside the part are never looked at, as if it had
//! been cut out before (Pillow's `crop`, then `resize`; its `resize` with a `box` looks beyond the box).

use std::ops::Range;

use image::RgbImage;

/// Fraction bits of a weight: 32 less 8 for the pixel and 2 for overshoot (which a triangle doesn't have).
const PRECISION: u32 = 32 - 8 - 2;
const HALF: i32 = 1 << (PRECISION - 1);

/// The output pixels that are wanted, in coordinates of the whole output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) x: Range<u64>,
    pub(super) y: Range<u64>,
}

/// The source pixels that are resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) left: u32,
    pub(super) top: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

impl Part {
    /// All of a picture.
    pub(super) fn whole(picture: &RgbImage) -> Self {
        Self {
            left: 0,
            top: 0,
            width: picture.width(),
            height: picture.height(),
        }
    }
}

/// The source pixels one output pixel is made of.
struct Taps {
    start: usize,
    weights: Vec<i32>,
}

/// Resizes the `part` of `source` to `width` × `height` and returns the `window` of that.
///
/// # Panics
/// If the part reaches beyond the source.
pub(super) fn resize(source: &RgbImage, part: Part, width: u64, height: u64, window: &Window) -> RgbImage {
    let columns = taps(part.width, width, window.x.clone());
    let rows = taps(part.height, height, window.y.clone());
    let (output_width, output_height) = (columns.len(), rows.len());

    let first_row = rows.first().map_or(0, |row| row.start);
    let end_row = rows.last().map_or(0, |row| row.start + row.weights.len());
    let source_stride = source.width() as usize * 3;
    let stride = output_width * 3;
    let mut narrow = vec![0_u8; (end_row - first_row) * stride];
    if stride > 0 {
        let needed = source.as_raw().chunks_exact(source_stride);
        let needed = needed.skip(part.top as usize + first_row);
        let (start, length) = (part.left as usize * 3, part.width as usize * 3);
        for (input, output) in needed.zip(narrow.chunks_exact_mut(stride)) {
            shrink_row(&input[start..][..length], &columns, output);
        }
    }

    let mut pixels = vec![0_u8; output_height * stride];
    let mut sums = vec![0_i32; stride];
    if stride > 0 {
        for (row, output) in rows.iter().zip(pixels.chunks_exact_mut(stride)) {
            sums.fill(HALF);
            let inputs = narrow.chunks_exact(stride).skip(row.start - first_row);
            for (&weight, input) in row.weights.iter().zip(inputs) {
                for (sum, &value) in sums.iter_mut().zip(input) {
                    *sum += i32::from(value) * weight;
                }
            }
            for (value, &sum) in output.iter_mut().zip(&sums) {
                *value = to_u8(sum);
            }
        }
    }
    RgbImage::from_raw(output_width as u32, output_height as u32, pixels).expect("the buffer was made for this size")
}

fn shrink_row(input: &[u8], columns: &[Taps], output: &mut [u8]) {
    let (input, _) = input.as_chunks::<3>();
    let (output, _) = output.as_chunks_mut::<3>();
    for (column, output) in columns.iter().zip(output) {
        let (mut red, mut green, mut blue) = (HALF, HALF, HALF);
        for (&[r, g, b], &weight) in input[column.start..].iter().zip(&column.weights) {
            red += i32::from(r) * weight;
            green += i32::from(g) * weight;
            blue += i32::from(b) * weight;
        }
        *output = [to_u8(red), to_u8(green), to_u8(blue)];
    }
}

fn to_u8(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// The taps of the output pixels `wanted` of a line of `output` pixels made from `input` pixels.
fn taps(input: u32, output: u64, wanted: Range<u64>) -> Vec<Taps> {
    let scale = f64::from(input) / output as f64;
    let support = scale.max(1.0);
    let narrowing = 1.0 / support;
    wanted
        .map(|index| {
            let center = (index as f64 + 0.5) * scale;
            // Casts truncate toward zero, as in C; both ends are then bounded by the line.
            let start = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(input as usize);
            let weights: Vec<f64> = (start..end)
                .map(|position| triangle((position as f64 - center + 0.5) * narrowing))
                .collect();
            let total: f64 = weights.iter().sum();
            let fixed = |weight: f64| {
                let normalised = if total == 0.0 { weight } else { weight / total };
                (0.5 + normalised * f64::from(1 << PRECISION)) as i32
            };
            Taps {
                start,
                weights: weights.into_iter().map(fixed).collect(),
            }
        })
        .collect()
}

fn triangle(distance: f64) -> f64 {
    (1.0 - distance.abs()).max(0.0)
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    fn noise(width: u32, height: u32) -> RgbImage {
        let mut state = 1_u32;
        let mut next = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        RgbImage::from_fn(width, height, |_, _| Rgb([next(), next(), next()]))
    }

    fn whole(width: u64, height: u64) -> Window {
        Window {
            x: 0..width,
            y: 0..height,
        }
    }

    #[test]
    fn same_size_is_identity() {
        let source = noise(37, 23);
        assert_eq!(resize(&source, Part::whole(&source), 37, 23, &whole(37, 23)), source);
    }

    #[test]
    fn window_is_a_part_of_the_whole() {
        let source = noise(61, 47);
        for (width, height) in [(20, 15), (90, 80), (61, 10)] {
            let all = resize(&source, Part::whole(&source), width, height, &whole(width, height));
            let part = resize(
                &source,
                Part::whole(&source),
                width,
                height,
                &Window {
                    x: 3..width - 2,
                    y: 5..height - 1,
                },
            );
            let cut = image::imageops::crop_imm(&all, 3, 5, width as u32 - 5, height as u32 - 6).to_image();
            assert_eq!(part, cut);
        }
    }

    #[test]
    fn values_of_pillow() {
        // Pillow 13: Image.fromarray(numpy.arange(0, 250, 50, 'u1')[None].repeat(3, 0)).resize((n, 2), BILINEAR).
        let source = RgbImage::from_fn(5, 3, |x, _| Rgb([x as u8 * 50, 255 - x as u8 * 50, 7]));
        let row = |width| -> Vec<u8> {
            let resized = resize(&source, Part::whole(&source), width, 2, &whole(width, 2));
            resized
                .rows()
                .next()
                .into_iter()
                .flatten()
                .map(|pixel| pixel.0[0])
                .collect()
        };
        assert_eq!(row(2), PILLOW_2);
        assert_eq!(row(3), PILLOW_3);
        assert_eq!(row(8), PILLOW_8);
    }

    const PILLOW_2: [u8; 2] = [50, 150];
    const PILLOW_3: [u8; 3] = [21, 100, 179];
    const PILLOW_8: [u8; 8] = [0, 22, 53, 84, 116, 147, 178, 200];

    #[test]
    fn weights_sum_to_one() {
        for (input, output) in [(933, 256), (1, 7), (7, 1), (60_000, 256), (256, 255)] {
            for tap in taps(input, output, 0..output) {
                let sum: i32 = tap.weights.iter().sum();
                let rounding = tap.weights.len() as i32;
                assert!((sum - (1 << PRECISION)).abs() <= rounding, "{input} to {output}: {sum}");
                assert!(tap.start + tap.weights.len() <= input as usize);
            }
        }
    }
}
