//! The resize against its formula written plainly, against Pillow, and with every instruction set.

use image::Rgb;
use image::imageops::crop_imm;
use multiversion::multiversion;

use super::super::kernel::{Columns, along_columns_anywhere, along_rows_anywhere};
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
        let cut = crop_imm(&all, 3, 5, width as u32 - 5, height as u32 - 6).to_image();
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
    let cut = crop_imm(&source, 7, 5, 40, 39).to_image();
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
        for tap in taps(Line::of_pixels(input), output, 0..output) {
            let sum: i32 = tap.weights.iter().sum();
            let rounding = tap.weights.len() as i32;
            assert!((sum - (1 << PRECISION)).abs() <= rounding, "{input} to {output}: {sum}");
            assert!(tap.start + tap.weights.len() <= input as usize);
        }
    }
}

/// The formula, pixel by pixel: what is promised of every other way to compute it.
fn plainly(source: &RgbImage, (width, height): (u64, u64), window: &Window, rows_first: bool) -> RgbImage {
    let sum = |taps: &Taps, value: &dyn Fn(u32) -> u8| {
        let products = (taps.start as u32..).zip(&taps.weights);
        let sum: i64 = products
            .map(|(at, &weight)| i64::from(value(at)) * i64::from(weight))
            .sum();
        ((sum + (1 << (PRECISION - 1))) >> PRECISION).clamp(0, 255) as u8
    };
    let along_x = |source: &RgbImage, taps: &[Taps]| {
        RgbImage::from_fn(taps.len() as u32, source.height(), |x, y| {
            Rgb([0, 1, 2].map(|channel| sum(&taps[x as usize], &|at| source.get_pixel(at, y).0[channel])))
        })
    };
    let along_y = |source: &RgbImage, taps: &[Taps]| {
        RgbImage::from_fn(source.width(), taps.len() as u32, |x, y| {
            Rgb([0, 1, 2].map(|channel| sum(&taps[y as usize], &|at| source.get_pixel(x, at).0[channel])))
        })
    };
    let columns = taps(Line::of_pixels(source.width()), width, window.x.clone());
    let rows = taps(Line::of_pixels(source.height()), height, window.y.clone());
    if rows_first {
        along_y(&along_x(source, &columns), &rows)
    } else {
        along_x(&along_y(source, &rows), &columns)
    }
}

/// Random numbers below bounds.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn range(&mut self, length: u64) -> Range<u64> {
        let start = self.below(length);
        start..start + 1 + self.below(length - start)
    }
}

#[test]
fn every_size_part_and_window_is_the_plain_formula() {
    let mut numbers = Numbers(5);
    let mut orders = [0, 0];
    for _ in 0..120 {
        let source = noise(1 + numbers.below(150) as u32, 1 + numbers.below(150) as u32);
        let (x, y) = (
            numbers.range(u64::from(source.width())),
            numbers.range(u64::from(source.height())),
        );
        let part = Part {
            left: x.start as u32,
            top: y.start as u32,
            width: (x.end - x.start) as u32,
            height: (y.end - y.start) as u32,
        };
        let size = (1 + numbers.below(90), 1 + numbers.below(90));
        let window = Window {
            x: numbers.range(size.0),
            y: numbers.range(size.1),
        };
        let cut = crop_imm(&source, part.left, part.top, part.width, part.height).to_image();
        for order in [Order::Rows, Order::ByLoss] {
            let rows_first = order.is_rows_first(part, size.0, size.1);
            orders[usize::from(rows_first)] += 1;
            let expected = plainly(&cut, size, &window, rows_first);
            assert_eq!(
                resize(&source, part, size, &window, order),
                expected,
                "{part:?} {size:?} {window:?}"
            );
        }
    }
    assert!(orders.iter().all(|&count| count > 15), "{orders:?}");
}

#[test]
fn extremes_neither_overflow_nor_wrap() {
    for value in [0, 255] {
        let source = RgbImage::from_pixel(301, 203, Rgb([value; 3]));
        for size in [(3, 2), (300, 1), (1, 203), (400, 300)] {
            for order in [Order::Rows, Order::ByLoss] {
                let resized = resize(&source, Part::whole(&source), size, &whole(size.0, size.1), order);
                assert!(resized.iter().all(|&resized| resized == value), "{size:?}");
            }
        }
    }
}

/// Runs the inner loops as they are compiled for one instruction set, where the processor has it.
macro_rules! compiled_for {
    ($name:ident, $target:literal) => {
        #[multiversion(targets($target))]
        fn $name(
            lines: &[u8],
            stride: usize,
            columns: &Columns,
            rows: &mut [u8],
            taps: (&[&[u8]], &[i32]),
            sum: &mut [u8],
        ) {
            along_rows_anywhere(lines, stride, columns, rows);
            along_columns_anywhere(taps.0, taps.1, sum);
        }
    };
}

compiled_for!(with_avx512, "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2");
compiled_for!(with_avx2, "x86_64+avx2");
compiled_for!(with_sse4, "x86_64+sse4.1");

#[test]
fn every_instruction_set_gives_the_same_bits() {
    for (width, height, size) in [(97, 13, 31), (40, 4, 80), (500, 7, 3)] {
        let columns = Columns::new(&taps(Line::of_pixels(width), size, 0..size), 0);
        let stride = width as usize * PIXEL;
        let mut lines = vec![0; stride * height as usize + columns.padding()];
        widen(&noise(width, height), &mut lines);
        let taps = taps(Line::of_pixels(height), 1, 0..1);
        let of_column: Vec<&[u8]> = lines.chunks_exact(stride).take(taps[0].weights.len()).collect();
        let empty = || (vec![1_u8; columns.stride() * height as usize], vec![1_u8; stride]);
        let (mut rows, mut sum) = empty();
        along_rows(&lines, stride, &columns, &mut rows);
        along_columns(&of_column, &taps[0].weights, &mut sum);
        let (mut plain_rows, mut plain_sum) = empty();
        along_rows_anywhere(&lines, stride, &columns, &mut plain_rows);
        along_columns_anywhere(&of_column, &taps[0].weights, &mut plain_sum);
        assert!(rows == plain_rows && sum == plain_sum);
        for compiled in [with_avx512, with_avx2, with_sse4] {
            let (mut other_rows, mut other_sum) = empty();
            compiled(
                &lines,
                stride,
                &columns,
                &mut other_rows,
                (&of_column, &taps[0].weights),
                &mut other_sum,
            );
            assert!(rows == other_rows && sum == other_sum, "{width} {height} {size}");
        }
    }
}
