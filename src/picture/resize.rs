//! Pillow's antialiased bilinear resize for 8-bit RGB, bit for bit, of a part of the source, restricted to a window of the
//! output.
//!
//! The filter is a triangle, widened by the scale when shrinking. Weights are normalised in f64, then rounded to fixed
//! point with [`PRECISION`] bits; rows are shrunk first, then columns, or the other way ([`Order`]), and each pass rounds to
//! 8 bits. Pixels outside the
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

/// Which of the two passes is the first; it shows in the last bit, because each rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Along the rows, always: Pillow before version 13.
    Rows,
    /// Along the columns where the height loses more than twice as many pixels as the width, else along the rows: Pillow
    /// since version 13.
    ByLoss,
}

impl Order {
    fn is_rows_first(self, part: Part, width: u64, height: u64) -> bool {
        let (lost_width, lost_height) = (
            i128::from(part.width) - i128::from(width),
            i128::from(part.height) - i128::from(height),
        );
        self == Self::Rows || lost_height <= 0 || lost_height <= 2 * lost_width
    }
}

/// Resizes the `part` of `source` to `width` × `height` and returns the `window` of that.
///
/// # Panics
/// If the part reaches beyond the source.
pub(super) fn resize(
    source: &RgbImage,
    part: Part,
    (width, height): (u64, u64),
    window: &Window,
    order: Order,
) -> RgbImage {
    let columns = taps(part.width, width, window.x.clone());
    let rows = taps(part.height, height, window.y.clone());
    let size = (columns.len() as u32, rows.len() as u32);
    let source_stride = source.width() as usize * 3;
    // The bytes of a range of a row of the part.
    let line = |row: usize, columns: Range<usize>| {
        let start = (part.top as usize + row) * source_stride + (part.left as usize + columns.start) * 3;
        &source.as_raw()[start..][..columns.len() * 3]
    };
    let stride = columns.len() * 3;
    let pixels = if columns.is_empty() || rows.is_empty() {
        Vec::new()
    } else if order.is_rows_first(part, width, height) {
        let needed = needed(&rows);
        let lines = needed.clone().map(|row| line(row, 0..part.width as usize));
        let narrow = shrink_rows(lines, &columns, 0);
        shrink_columns(&|row| &narrow[(row - needed.start) * stride..][..stride], &rows, stride)
    } else {
        let needed = needed(&columns);
        let short = shrink_columns(&|row| line(row, needed.clone()), &rows, needed.len() * 3);
        shrink_rows(short.chunks_exact(needed.len() * 3), &columns, needed.start)
    };
    RgbImage::from_raw(size.0, size.1, pixels).expect("the buffer was made for this size")
}

/// The source pixels that these output pixels are made of.
fn needed(taps: &[Taps]) -> Range<usize> {
    let start = taps.first().map_or(0, |first| first.start);
    let end = taps.last().map_or(0, |last| last.start + last.weights.len());
    start..end
}

/// Each of `lines` shrunk to `columns`; the lines begin at source column `offset`.
fn shrink_rows<'a>(lines: impl ExactSizeIterator<Item = &'a [u8]>, columns: &[Taps], offset: usize) -> Vec<u8> {
    let mut pixels = vec![0_u8; lines.len() * columns.len() * 3];
    for (line, output) in lines.zip(pixels.chunks_exact_mut(columns.len() * 3)) {
        let (line, _) = line.as_chunks::<3>();
        let (output, _) = output.as_chunks_mut::<3>();
        for (column, output) in columns.iter().zip(output) {
            let (mut red, mut green, mut blue) = (HALF, HALF, HALF);
            for (&[r, g, b], &weight) in line[column.start - offset..].iter().zip(&column.weights) {
                red += i32::from(r) * weight;
                green += i32::from(g) * weight;
                blue += i32::from(b) * weight;
            }
            *output = [to_u8(red), to_u8(green), to_u8(blue)];
        }
    }
    pixels
}

/// The output `rows`, of lines of `stride` bytes each, which `line` gives by their number.
fn shrink_columns<'a>(line: &dyn Fn(usize) -> &'a [u8], rows: &[Taps], stride: usize) -> Vec<u8> {
    let mut pixels = vec![0_u8; rows.len() * stride];
    let mut sums = vec![0_i32; stride];
    for (row, output) in rows.iter().zip(pixels.chunks_exact_mut(stride)) {
        sums.fill(HALF);
        for (number, &weight) in (row.start..).zip(&row.weights) {
            for (sum, &value) in sums.iter_mut().zip(line(number)) {
                *sum += i32::from(value) * weight;
            }
        }
        for (value, &sum) in output.iter_mut().zip(&sums) {
            *value = to_u8(sum);
        }
    }
    pixels
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
        assert_eq!(
            resize(&source, Part::whole(&source), (37, 23), &whole(37, 23), Order::Rows),
            source
        );
    }

    #[test]
    fn window_is_a_part_of_the_whole() {
        let source = noise(61, 47);
        let mut orders = Vec::new();
        for size in [(20, 15), (90, 80), (61, 10)] {
            let (width, height) = size;
            let source_part = Part::whole(&source);
            orders.push(Order::ByLoss.is_rows_first(source_part, width, height));
            let all = resize(&source, source_part, size, &whole(width, height), Order::ByLoss);
            let window = Window {
                x: 3..width - 2,
                y: 5..height - 1,
            };
            let part = resize(&source, source_part, size, &window, Order::ByLoss);
            let cut = image::imageops::crop_imm(&all, 3, 5, width as u32 - 5, height as u32 - 6).to_image();
            assert_eq!(part, cut);
        }
        assert_eq!(orders, [true, true, false], "both orders are looked at");
    }

    #[test]
    fn a_part_is_what_was_cut_out_before() {
        let source = noise(61, 47);
        let part = Part {
            left: 7,
            top: 5,
            width: 40,
            height: 39,
        };
        let cut = image::imageops::crop_imm(&source, 7, 5, 40, 39).to_image();
        for size in [(20, 15), (90, 80), (40, 10)] {
            let window = whole(size.0, size.1);
            for order in [Order::Rows, Order::ByLoss] {
                let expected = resize(&cut, Part::whole(&cut), size, &window, order);
                assert_eq!(resize(&source, part, size, &window, order), expected);
            }
        }
    }

    #[test]
    fn values_of_pillow() {
        // Pillow 13: Image.fromarray(numpy.arange(0, 250, 50, 'u1')[None].repeat(3, 0)).resize((n, 2), BILINEAR).
        let source = RgbImage::from_fn(5, 3, |x, _| Rgb([x as u8 * 50, 255 - x as u8 * 50, 7]));
        let row = |width| -> Vec<u8> {
            let resized = resize(&source, Part::whole(&source), (width, 2), &whole(width, 2), Order::Rows);
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
