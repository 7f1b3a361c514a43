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

use super::convert::rgb_bytes;
use super::kernel::{Columns, PIXEL, PRECISION, Taps, along_columns, along_rows, widen};

/// Rows that are widened at a time, so that they stay in the second-level cache.
const BAND: usize = 16;

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
    let columns = taps(Line::of_pixels(part.width), width, window.x.clone());
    let rows = taps(Line::of_pixels(part.height), height, window.y.clone());
    made_of(
        source,
        part,
        (&columns, &rows),
        order.is_rows_first(part, width, height),
    )
}

/// Resizes a picture whose `lines` are of other lengths than their pixels, rows first; else as [`resize`].
pub(super) fn resize_lines(
    source: &RgbImage,
    (across, down): (Line, Line),
    (width, height): (u64, u64),
    window: &Window,
) -> RgbImage {
    let columns = taps(across, width, window.x.clone());
    let rows = taps(down, height, window.y.clone());
    made_of(source, Part::whole(source), (&columns, &rows), true)
}

/// The picture of `columns` and `rows`, made of the `part`.
fn made_of(source: &RgbImage, part: Part, (columns, rows): (&[Taps], &[Taps]), rows_first: bool) -> RgbImage {
    let size = (columns.len() as u32, rows.len() as u32);
    let source_stride = source.width() as usize * 3;
    // The bytes of a range of a row of the part.
    let line = |row: usize, columns: Range<usize>| {
        let start = (part.top as usize + row) * source_stride + (part.left as usize + columns.start) * 3;
        &source.as_raw()[start..][..columns.len() * 3]
    };
    let pixels = if columns.is_empty() || rows.is_empty() {
        Vec::new()
    } else if rows_first {
        let (needed_rows, needed) = (needed(rows), needed(columns));
        let columns = Columns::new(columns, needed.start);
        let lines = needed_rows.clone().map(|row| line(row, needed.clone()));
        let narrow = shrink_rows(lines, needed.len(), &columns);
        let stride = columns.stride();
        let short = shrink_columns(
            &|row| &narrow[(row - needed_rows.start) * stride..][..stride],
            rows,
            stride,
        );
        without_fourth(&short)
    } else {
        let needed = needed(columns);
        let short = shrink_columns(&|row| line(row, needed.clone()), rows, needed.len() * 3);
        let columns = Columns::new(columns, needed.start);
        let lines = short.chunks_exact(needed.len() * 3);
        without_fourth(&shrink_rows(lines, needed.len(), &columns))
    };
    RgbImage::from_raw(size.0, size.1, pixels).expect("the buffer was made for this size")
}

/// The source pixels that these output pixels are made of.
fn needed(taps: &[Taps]) -> Range<usize> {
    let start = taps.first().map_or(0, |first| first.start);
    let end = taps.last().map_or(0, |last| last.start + last.weights.len());
    start..end
}

/// Each of `lines` of RGB, `width` pixels long, shrunk to `columns` of [`PIXEL`] bytes.
fn shrink_rows<'a>(mut lines: impl ExactSizeIterator<Item = &'a [u8]>, width: usize, columns: &Columns) -> Vec<u8> {
    let mut pixels = vec![0_u8; lines.len() * columns.stride()];
    let stride = width * PIXEL;
    let mut band = vec![0_u8; BAND * stride + columns.padding()];
    for output in pixels.chunks_mut(BAND * columns.stride()) {
        for (wide, line) in band.chunks_exact_mut(stride).zip(lines.by_ref().take(BAND)) {
            widen(line, wide);
        }
        along_rows(&band, stride, columns, output);
    }
    pixels
}

/// The output `rows`, of lines of `stride` bytes each, which `line` gives by their number.
fn shrink_columns<'a>(line: &dyn Fn(usize) -> &'a [u8], rows: &[Taps], stride: usize) -> Vec<u8> {
    let mut pixels = vec![0_u8; rows.len() * stride];
    let mut lines = Vec::new();
    for (row, output) in rows.iter().zip(pixels.chunks_exact_mut(stride)) {
        lines.clear();
        lines.extend((row.start..).take(row.weights.len()).map(line));
        along_columns(&lines, &row.weights, output);
    }
    pixels
}

/// RGB of pixels of [`PIXEL`] bytes.
fn without_fourth(pixels: &[u8]) -> Vec<u8> {
    let (pixels, _) = pixels.as_chunks::<PIXEL>();
    rgb_bytes(pixels.iter(), |&[red, green, blue, _]| [red, green, blue])
}

/// A line of source pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Line {
    pub(super) pixels: u32,
    /// What of the pixels belongs to the picture, where their first or last does in part.
    pub(super) length: f64,
    /// Where that begins, in pixels.
    pub(super) start: f64,
}

impl Line {
    /// A line all of whose pixels belong to the picture.
    pub(super) fn of_pixels(pixels: u32) -> Self {
        Self {
            pixels,
            length: f64::from(pixels),
            start: 0.0,
        }
    }
}

/// The taps of the output pixels `wanted` of a line of `output` pixels made from that of the `input`.
fn taps(input: Line, output: u64, wanted: Range<u64>) -> Vec<Taps> {
    let scale = input.length / output as f64;
    let support = scale.max(1.0);
    let narrowing = 1.0 / support;
    wanted
        .map(|index| {
            let center = (index as f64 + 0.5) * scale + input.start;
            // Casts truncate toward zero, as in C; both ends are then bounded by the line.
            let start = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(input.pixels as usize);
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
#[path = "resize_tests.rs"]
mod tests;
