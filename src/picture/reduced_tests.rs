//! The reader of ordinary JPEGs against libjpeg, and against itself on what is damaged.

use image::Rgb;
use mozjpeg::{ColorSpace, Compress, Decompress};

use super::super::jpeg::tests::encode;
use super::*;

/// Most that the pixels of a rough picture may differ in the mean, in levels.
const MOST: f64 = 5.0;

/// What libjpeg makes of a file at some eighths of its size, as RGB.
fn by_libjpeg(bytes: &[u8], eighths: u8) -> RgbImage {
    let mut decoder = Decompress::builder().from_mem(bytes).unwrap();
    decoder.scale(eighths);
    let mut decoder = decoder.to_colorspace(ColorSpace::JCS_RGB).unwrap();
    let samples = decoder.read_scanlines().unwrap();
    RgbImage::from_raw(decoder.width() as u32, decoder.height() as u32, samples).unwrap()
}

fn ours(bytes: &[u8], eighths: u8) -> Option<RgbImage> {
    let decoder = Decompress::builder().from_mem(bytes).unwrap();
    decode(
        bytes,
        (decoder.width() as u32, decoder.height() as u32),
        Eighths(eighths),
    )
}

/// Shapes with edges and noise, so that blocks have coefficients of all frequencies.
fn rough(width: u32, height: u32, noise: u32) -> RgbImage {
    let mut state = 7_u32;
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([0, 1, 2].map(|channel| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let shape = x * (2 + channel) / 3 + y * (3 - channel) / 3 + 50 * ((x / 19 + y / 23 + channel) % 2);
            (shape % 200 + (state >> 24) * noise / 256) as u8
        }))
    })
}

fn compressed(picture: &RgbImage, quality: f32, sampling: (u8, u8), optimised: bool) -> Vec<u8> {
    let mut encoder = Compress::new(ColorSpace::JCS_RGB);
    encoder.set_size(picture.width() as usize, picture.height() as usize);
    encoder.set_fastest_defaults();
    encoder.set_quality(quality);
    encoder.set_chroma_sampling_pixel_sizes(sampling, sampling);
    encoder.set_optimize_coding(optimised);
    let mut encoder = encoder.start_compress(Vec::new()).unwrap();
    encoder.write_scanlines(picture).unwrap();
    encoder.finish().unwrap()
}

/// Mean difference of the pixels from the means of what they stand for in libjpeg's whole picture, those at the right and
/// lower edge left out that stand for less than others.
fn difference_from_means(bytes: &[u8], eighths: u8) -> f64 {
    let (whole, reduced) = (by_libjpeg(bytes, 8), ours(bytes, eighths).unwrap());
    let side = u32::from(8 / eighths);
    assert_eq!(
        reduced.dimensions(),
        (whole.width().div_ceil(side), whole.height().div_ceil(side))
    );
    let (mut sum, mut count) = (0.0, 0.0_f64);
    for y in 0..whole.height() / side {
        for x in 0..whole.width() / side {
            let part = image::imageops::crop_imm(&whole, side * x, side * y, side, side).to_image();
            for channel in 0..3 {
                let total: f64 = part.pixels().map(|pixel| f64::from(pixel.0[channel])).sum();
                let mean = total / f64::from(side * side);
                sum += (f64::from(reduced.get_pixel(x, y).0[channel]) - mean).abs();
                count += 1.0;
            }
        }
    }
    sum / count.max(1.0)
}

#[test]
fn every_sampling_size_and_quality_has_about_the_means_of_libjpegs_pixels() {
    for sampling in [(1, 1), (2, 1), (1, 2), (2, 2)] {
        for (width, height) in [(160, 96), (161, 97), (33, 130), (8, 8), (5, 3)] {
            for (quality, noise) in [(30.0, 0), (90.0, 20), (100.0, 55)] {
                for optimised in [false, true] {
                    let bytes = compressed(&rough(width, height, noise), quality, sampling, optimised);
                    for eighths in [1, 2] {
                        // Another filter, not another picture: a block out of its place would be tens of levels.
                        let difference = difference_from_means(&bytes, eighths);
                        assert!(
                            difference < MOST,
                            "{sampling:?} {width}x{height} quality {quality} at {eighths}/8: {difference}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn an_eighth_of_a_grey_picture_is_the_mean_of_each_block() {
    let (width, height) = (72, 40);
    let grey: Vec<u8> = rough(width, height, 50)
        .pixels()
        .map(|pixel| 20 + pixel.0[0] / 2)
        .collect();
    let bytes = encode(width, height, ColorSpace::JCS_GRAYSCALE, &grey, false);
    let (whole, reduced) = (by_libjpeg(&bytes, 8), ours(&bytes, 1).unwrap());
    for (x, y, pixel) in reduced.enumerate_pixels() {
        let block = image::imageops::crop_imm(&whole, 8 * x, 8 * y, 8, 8).to_image();
        let mean = block.pixels().map(|pixel| f64::from(pixel.0[0])).sum::<f64>() / 64.0;
        // Every pixel of the block has been rounded, and the mean is.
        assert!((f64::from(pixel.0[0]) - mean).abs() <= 1.0, "{x} {y}: {mean} {pixel:?}");
    }
}

#[test]
fn a_quarter_of_a_smooth_picture_lies_where_the_picture_does() {
    // Level 4x + y; the frequencies left out are a level or two, a shift by one pixel of the whole picture would be four.
    let grey: Vec<u8> = (0..32 * 32).map(|at| (at % 32 * 4 + at / 32) as u8).collect();
    let bytes = encode(32, 32, ColorSpace::JCS_GRAYSCALE, &grey, false);
    for (x, y, pixel) in ours(&bytes, 2).unwrap().enumerate_pixels() {
        let centre = f64::from(4 * x) * 4.0 + 6.0 + f64::from(4 * y) + 1.5;
        assert!(
            (f64::from(pixel.0[0]) - centre).abs() < 2.5,
            "{x} {y}: {centre} {pixel:?}"
        );
    }
}

#[test]
fn restart_markers_change_nothing() {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/restarts.json");
    let files: std::collections::BTreeMap<String, [String; 2]> =
        serde_json::from_str(&std::fs::read_to_string(fixture).unwrap()).unwrap();
    assert_eq!(files.len(), 3);
    for (name, pair) in files {
        let [with, without] = pair.map(|digits| -> Vec<u8> {
            let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
            (0..digits.len()).step_by(2).map(byte).collect()
        });
        let marker = |bytes: &[u8]| bytes.windows(2).position(|pair| pair == [0xff, 0xd1]);
        assert!(marker(&without).is_none());
        for eighths in [1, 2] {
            assert!(
                ours(&with, eighths).unwrap() == ours(&without, eighths).unwrap(),
                "{name}"
            );
        }
        // A marker that is out of its turn.
        let mut wrong = with.clone();
        wrong[marker(&with).unwrap() + 1] = 0xd2;
        assert!(ours(&wrong, 2).is_none());
        // An interval that has lost its last bytes, be it in the middle of a row of blocks.
        let is_marker = |at: &usize| with[*at] == 0xff && matches!(with[at + 1], 0xd0..=0xd7);
        let scan = with.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
        for at in (scan..with.len() - 1).filter(is_marker) {
            let short = [&with[..at - 2], &with[at..]].concat();
            assert!(ours(&short, 2).is_none(), "{name}: short before {at}");
        }
    }
}

#[test]
fn what_is_not_ordinary_is_left_to_libjpeg() {
    let picture = rough(64, 48, 20);
    let full = (64, 48);
    let decoded = |bytes: &[u8]| decode(bytes, full, Eighths(2));
    let ordinary = encode(64, 48, ColorSpace::JCS_RGB, &picture, false);
    assert!(decoded(&ordinary).is_some());
    assert!(decode(&ordinary, (64, 47), Eighths(2)).is_none());
    assert!(decode(&ordinary, full, Eighths(4)).is_none());
    assert!(decoded(&encode(64, 48, ColorSpace::JCS_RGB, &picture, true)).is_none());
    assert!(decoded(&encode(64, 48, ColorSpace::JCS_CMYK, &[9; 64 * 48 * 4], false)).is_none());
    // Colours that are RGB as they are stored.
    let mut encoder = Compress::new(ColorSpace::JCS_RGB);
    encoder.set_size(64, 48);
    encoder.set_color_space(ColorSpace::JCS_RGB);
    encoder.set_fastest_defaults();
    encoder.set_color_space(ColorSpace::JCS_RGB);
    let mut encoder = encoder.start_compress(Vec::new()).unwrap();
    encoder.write_scanlines(&picture).unwrap();
    assert!(decoded(&encoder.finish().unwrap()).is_none());
    // Sixteen bits, lossless, arithmetic, hierarchical.
    let frame = ordinary.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    for marker in [0xc2, 0xc3, 0xc5, 0xc9, 0xcb] {
        let mut other = ordinary.clone();
        other[frame + 1] = marker;
        assert!(decoded(&other).is_none());
    }
}

#[test]
fn every_cut_is_left_to_libjpeg() {
    let bytes = compressed(&rough(70, 50, 30), 80.0, (2, 2), false);
    let scan = bytes.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
    for end in (0..scan).chain((scan..bytes.len() - 8).step_by(3)) {
        assert!(decode(&bytes[..end], (70, 50), Eighths(2)).is_none(), "{end}");
    }
    assert!(decode(&bytes, (70, 50), Eighths(2)).is_some());
}

#[test]
fn damage_never_panics() {
    let bytes = compressed(&rough(70, 50, 30), 80.0, (2, 2), true);
    let mut state = 3_u64;
    let mut taken = 0;
    for _ in 0..3000 {
        let mut damaged = bytes.clone();
        for _ in 0..3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = 2 + (state >> 33) as usize % (bytes.len() - 2);
            damaged[at] = (state >> 20) as u8;
        }
        taken += usize::from(decode(&damaged, (70, 50), Eighths(2)).is_some());
    }
    // Some damage is a picture all the same, as it is for libjpeg.
    assert!((100..2900).contains(&taken), "{taken}");
}

#[test]
fn the_first_ff_is_found_wherever_it_is() {
    for length in 0..100 {
        let mut bytes = vec![0xfe; length];
        assert_eq!(position_of_ff(&bytes), None);
        for at in (0..length).rev() {
            bytes[at] = 0xff;
            assert_eq!(position_of_ff(&bytes), Some(at));
        }
    }
}
