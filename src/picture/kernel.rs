//! The inner loops of the resize: sums of bytes times weights in i32.
//!
//! Written so that the compiler vectorises them, and compiled for several instruction sets of which the best is taken at run
//! time. No sum of a picture leaves the range of i32, so its bits depend neither on the order of its terms nor on the width
//! of a vector. Where the weights come from is left to `resize.rs`.

use multiversion::multiversion;

/// Fraction bits of a weight: 32 less 8 for the pixel and 2 for overshoot (which a triangle doesn't have).
pub(super) const PRECISION: u32 = 32 - 8 - 2;
const HALF: i32 = 1 << (PRECISION - 1);

/// Bytes of a pixel in the lines that [`along_rows`] reads and writes: red, green, blue, and one that is not looked at, so
/// that a vector holds whole pixels.
pub(super) const PIXEL: usize = 4;
/// Bytes that are multiplied together along a row: those of [`PIXELS`].
const LANES: usize = 16;
/// Source pixels that are multiplied together along a row.
const PIXELS: usize = LANES / PIXEL;
/// Bytes that are multiplied together where columns are summed.
const WIDE_LANES: usize = 32;
/// Rows that share the loads of a column's weights; together they also hide how long a multiplication takes.
const TOGETHER: usize = 4;

/// The source pixels that one output pixel is made of.
pub(super) struct Taps {
    pub(super) start: usize,
    pub(super) weights: Vec<i32>,
}

/// The [`Taps`] of the columns as [`along_rows`] takes them: each weight once for every byte of its pixel, and as many
/// weights for every column, the last of them zero.
pub(super) struct Columns {
    starts: Vec<usize>,
    weights: Vec<[i32; LANES]>,
    chunks: usize,
}

impl Columns {
    /// Packs `taps` of lines that begin at source pixel `offset`.
    pub(super) fn new(taps: &[Taps], offset: usize) -> Self {
        let chunks = taps.iter().map(|taps| taps.weights.len().div_ceil(PIXELS));
        let chunks = chunks.max().unwrap_or(0);
        let mut weights = vec![[0; LANES]; chunks * taps.len()];
        for (taps, weights) in taps.iter().zip(weights.chunks_exact_mut(chunks.max(1))) {
            let lanes = weights.as_flattened_mut().as_chunks_mut::<PIXEL>().0;
            for (lanes, &weight) in lanes.iter_mut().zip(&taps.weights) {
                *lanes = [weight; PIXEL];
            }
        }
        Self {
            starts: taps.iter().map(|taps| taps.start - offset).collect(),
            weights,
            chunks,
        }
    }

    /// Bytes of a line of output pixels.
    pub(super) fn stride(&self) -> usize {
        self.starts.len() * PIXEL
    }

    /// Bytes behind the last line that may be read, and are multiplied by zero.
    pub(super) fn padding(&self) -> usize {
        self.chunks * LANES
    }
}

/// Rounds a sum, half of the last bit of which has been added before.
#[inline(always)]
fn to_u8(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// Writes the sums of an output pixel of each of `R` lines, whose bytes begin where its taps do.
// Loops by index over arrays of constant size: only so are they unrolled, and the sums kept in registers.
#[inline(always)]
fn sums_of<const R: usize>(lines: [&[u8]; R], weights: &[[i32; LANES]], totals: [&mut [i32; PIXEL]; R]) {
    let lines = lines.map(|line| &line.as_chunks::<LANES>().0[..weights.len()]);
    let mut sums = [[0_i32; LANES]; R];
    for chunk in 0..weights.len() {
        let weights = weights[chunk];
        let bytes: [[u8; LANES]; R] = std::array::from_fn(|row| lines[row][chunk]);
        for row in 0..R {
            for lane in 0..LANES {
                sums[row][lane] += i32::from(bytes[row][lane]) * weights[lane];
            }
        }
    }
    for (total, sums) in totals.into_iter().zip(sums) {
        let eight: [i32; 8] = std::array::from_fn(|lane| sums[lane] + sums[lane + 8]);
        *total = std::array::from_fn(|lane| eight[lane] + eight[lane + 4]);
    }
}

/// The output pixels of `R` lines of `stride` bytes.
#[inline(always)]
fn rows_together<const R: usize>(
    lines: &[u8],
    stride: usize,
    columns: &Columns,
    totals: &mut [[i32; PIXEL]],
    output: &mut [u8],
) {
    let width = columns.starts.len();
    let mut totals_of = totals.chunks_exact_mut(width);
    let mut totals_of: [_; R] =
        std::array::from_fn(|_| totals_of.next().expect("there is a line for every row").iter_mut());
    let all = columns.weights.chunks_exact(columns.chunks);
    for (&start, weights) in columns.starts.iter().zip(all) {
        let lines = std::array::from_fn(|row| &lines[row * stride + start * PIXEL..][..weights.len() * LANES]);
        let totals = totals_of
            .each_mut()
            .map(|totals| totals.next().expect("there is one for every column"));
        sums_of::<R>(lines, weights, totals);
    }
    let totals = totals.as_flattened();
    for (output, &total) in output[..R * columns.stride()].iter_mut().zip(totals) {
        *output = to_u8(total + HALF);
    }
}

#[inline(always)]
pub(super) fn along_rows_anywhere(lines: &[u8], stride: usize, columns: &Columns, output: &mut [u8]) {
    let width = columns.stride();
    if width == 0 {
        return;
    }
    let rows = output.len() / width;
    let mut totals = vec![[0; PIXEL]; TOGETHER * columns.starts.len()];
    let mut row = 0;
    while row + TOGETHER <= rows {
        rows_together::<TOGETHER>(
            &lines[row * stride..],
            stride,
            columns,
            &mut totals,
            &mut output[row * width..],
        );
        row += TOGETHER;
    }
    while row < rows {
        rows_together::<1>(
            &lines[row * stride..],
            stride,
            columns,
            &mut totals,
            &mut output[row * width..],
        );
        row += 1;
    }
}

/// Writes as many rows of `columns` as `output` has room for, each made of a line of `stride` bytes. [`PIXEL`] bytes are a
/// pixel, and [`Columns::padding`] bytes follow the last line.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2", "x86_64+avx2", "x86_64+sse4.1"))]
pub(super) fn along_rows(lines: &[u8], stride: usize, columns: &Columns, output: &mut [u8]) {
    along_rows_anywhere(lines, stride, columns, output);
}

#[inline(always)]
pub(super) fn along_columns_anywhere(lines: &[&[u8]], weights: &[i32], output: &mut [u8]) {
    let (blocks, rest) = output.as_chunks_mut::<WIDE_LANES>();
    let done = blocks.len() * WIDE_LANES;
    for (block, output) in blocks.iter_mut().enumerate() {
        let mut sums = [HALF; WIDE_LANES];
        for (line, &weight) in lines.iter().zip(weights) {
            let bytes = line[block * WIDE_LANES..]
                .first_chunk::<WIDE_LANES>()
                .expect("lines are as long as the output");
            for lane in 0..WIDE_LANES {
                sums[lane] += i32::from(bytes[lane]) * weight;
            }
        }
        for lane in 0..WIDE_LANES {
            output[lane] = to_u8(sums[lane]);
        }
    }
    for (index, output) in rest.iter_mut().enumerate() {
        let products = lines.iter().zip(weights);
        let sum: i32 = products
            .map(|(line, &weight)| i32::from(line[done + index]) * weight)
            .sum();
        *output = to_u8(HALF + sum);
    }
}

/// Writes the sum of `lines`, each times its weight; all are as long as the output.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2", "x86_64+avx2", "x86_64+sse4.1"))]
pub(super) fn along_columns(lines: &[&[u8]], weights: &[i32], output: &mut [u8]) {
    along_columns_anywhere(lines, weights, output);
}

#[inline(always)]
fn widen_anywhere(rgb: &[u8], output: &mut [u8]) {
    for (output, &[red, green, blue]) in output.as_chunks_mut::<PIXEL>().0.iter_mut().zip(rgb.as_chunks::<3>().0) {
        *output = [red, green, blue, 0];
    }
}

/// Writes RGB as pixels of [`PIXEL`] bytes.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2", "x86_64+avx2", "x86_64+sse4.1"))]
pub(super) fn widen(rgb: &[u8], output: &mut [u8]) {
    widen_anywhere(rgb, output);
}
