//! [`Decode::Fast`] from file bytes to the crop: the same picture in the same place as by [`Decode::Exact`].

use mozjpeg::ColorSpace;

use super::super::decode::Eighths;
use super::super::exif::tests::block;
use super::super::jpeg::tests::{encode, gradient};
use super::super::{Reason, Truncated};
use super::*;

const WIDTH: u32 = 139;
const HEIGHT: u32 = 131;

/// Takes a picture of [`WIDTH`] × [`HEIGHT`] at these eighths of its size.
fn transform(eighths: u8) -> Transform {
    let transform = Transform {
        resize_shorter_side: HEIGHT * u32::from(eighths) / 16,
        crop: HEIGHT * u32::from(eighths) / 16 - 1,
        decode: Decode::Fast,
        ..Transform::default()
    };
    assert_eq!(
        Eighths::of(WIDTH, HEIGHT, 2 * u64::from(transform.resize_shorter_side)),
        Eighths(eighths)
    );
    transform
}

fn exactly(fast: &Transform) -> Transform {
    Transform {
        decode: Decode::Exact,
        ..fast.clone()
    }
}

fn picture() -> Vec<u8> {
    encode(WIDTH, HEIGHT, ColorSpace::JCS_RGB, &gradient(WIDTH, HEIGHT), false)
}

fn with_orientation(jpeg: &[u8], orientation: u16) -> Vec<u8> {
    let content = [b"Exif\0\0", &block(orientation, true)[..]].concat();
    let length = (content.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], b"\xff\xe1", &length[..], &content, &jpeg[2..]].concat()
}

/// Largest and mean difference from the exact crop, in levels.
fn differences(transform: &Transform, bytes: &[u8]) -> (u8, f64) {
    let (fast, _) = transform.pixels(bytes, &Limits::default()).unwrap();
    let (exact, _) = exactly(transform).pixels(bytes, &Limits::default()).unwrap();
    let differences = || fast.iter().zip(exact.iter()).map(|(a, b)| a.abs_diff(*b));
    let sum: u64 = differences().map(u64::from).sum();
    (differences().max().unwrap(), sum as f64 / fast.len() as f64)
}

#[test]
fn the_size_is_the_smallest_of_twice_the_target() {
    let eighths = |width, height| Eighths::of(width, height, 512).0;
    assert_eq!(eighths(4000, 3000), 2);
    assert_eq!(eighths(3000, 4000), 2);
    assert_eq!([eighths(4096, 9000), eighths(4095, 9000)], [1, 2]);
    assert_eq!([eighths(2048, 2048), eighths(9000, 2047)], [2, 4]);
    assert_eq!([eighths(1024, 2000), eighths(1023, 60_000)], [4, 8]);
    assert_eq!(Eighths::of(60_000, 60_000, u64::MAX), Eighths::FULL);
}

#[test]
fn every_size_and_orientation_is_the_exact_crop_but_for_a_level() {
    for eighths in [1, 2, 4] {
        let transform = transform(eighths);
        for orientation in 1..=8 {
            let bytes = with_orientation(&picture(), orientation);
            let (most, mean) = differences(&transform, &bytes);
            // A pixel of the whole picture is two levels, one of an eighth fifteen.
            assert!(
                most <= 3 && mean < 0.5,
                "{eighths}/8, orientation {orientation}: {most} {mean}"
            );
        }
    }
}

#[test]
fn every_kind_of_jpeg_is_reduced() {
    let grey: Vec<u8> = gradient(WIDTH, HEIGHT).pixels().map(|pixel| pixel.0[2]).collect();
    let inverted: Vec<u8> = gradient(WIDTH, HEIGHT)
        .pixels()
        .flat_map(|pixel| [pixel.0[0], pixel.0[1], pixel.0[2], 230])
        .collect();
    for progressive in [false, true] {
        for bytes in [
            encode(
                WIDTH,
                HEIGHT,
                ColorSpace::JCS_RGB,
                &gradient(WIDTH, HEIGHT),
                progressive,
            ),
            encode(WIDTH, HEIGHT, ColorSpace::JCS_GRAYSCALE, &grey, progressive),
            encode(WIDTH, HEIGHT, ColorSpace::JCS_CMYK, &inverted, progressive),
        ] {
            for eighths in [1, 2, 4] {
                let transform = transform(eighths);
                let reduced = decode(
                    &bytes,
                    Exif::Apply,
                    &Limits::default(),
                    Some(2 * u64::from(transform.resize_shorter_side)),
                );
                let reduced = reduced.unwrap();
                let part = |side: u32| (side * u32::from(eighths)).div_ceil(8);
                assert_eq!(reduced.pixels.dimensions(), (part(WIDTH), part(HEIGHT)));
                assert_eq!(reduced.size, (WIDTH, HEIGHT));
                let (most, mean) = differences(&transform, &bytes);
                assert!(
                    most <= 3 && mean < 0.8,
                    "{eighths}/8, progressive {progressive}: {most} {mean}"
                );
            }
        }
    }
}

#[test]
fn what_is_not_far_larger_than_the_crop_has_the_same_bits() {
    let transform = Transform {
        resize_shorter_side: HEIGHT / 2,
        crop: 64,
        decode: Decode::Fast,
        ..Transform::default()
    };
    assert_eq!(differences(&transform, &picture()), (0, 0.0));
    // Of other formats everything is decoded.
    let mut png = std::io::Cursor::new(Vec::new());
    gradient(WIDTH, HEIGHT)
        .write_to(&mut png, image::ImageFormat::Png)
        .unwrap();
    assert_eq!(differences(&self::transform(1), png.get_ref()), (0, 0.0));
}

#[test]
fn limits_are_on_the_full_size_and_what_is_cut_off_is_told() {
    let transform = transform(2);
    let small = Limits {
        max_pixels: u64::from(WIDTH * HEIGHT - 1),
        ..Limits::default()
    };
    assert_eq!(
        transform.pixels(&picture(), &small).unwrap_err().reason,
        Reason::TooLarge
    );
    let accept = Limits {
        truncated: Truncated::Accept,
        ..Limits::default()
    };
    for progressive in [false, true] {
        let bytes = encode(
            WIDTH,
            HEIGHT,
            ColorSpace::JCS_RGB,
            &gradient(WIDTH, HEIGHT),
            progressive,
        );
        assert!(
            transform
                .pixels(&bytes, &accept)
                .is_ok_and(|(_, whole)| whole == Completeness::Whole)
        );
        let cut = &bytes[..bytes.len() * 2 / 3];
        let rejected = transform.pixels(cut, &Limits::default()).unwrap_err();
        assert_eq!(rejected.reason, Reason::Truncated);
        let (fast, completeness) = transform.pixels(cut, &accept).unwrap();
        assert_eq!(completeness, Completeness::Partial);
        let (exact, _) = exactly(&transform).pixels(cut, &accept).unwrap();
        let sum: u64 = fast
            .iter()
            .zip(exact.iter())
            .map(|(a, b)| u64::from(a.abs_diff(*b)))
            .sum();
        // At the edge of what is there a reduced pixel is both.
        assert!(sum / (fast.len() as u64) < 4, "{sum}");
    }
}

#[test]
fn random_views_are_parts_of_the_whole_picture_and_the_plain_one_does_not_depend_on_them() {
    let (transform, limits, bytes) = (transform(2), Limits::default(), with_orientation(&picture(), 6));
    let both = transform.decode(&bytes, &limits, Wanted::PlainAndRandom).unwrap();
    let plain = transform.decode(&bytes, &limits, Wanted::Plain).unwrap();
    let random = transform.decode(&bytes, &limits, Wanted::Random).unwrap();
    let exact = exactly(&transform)
        .decode(&bytes, &limits, Wanted::PlainAndRandom)
        .unwrap();
    for decoded in [&both, &plain, &random, &exact] {
        assert_eq!(decoded.dimensions(), (HEIGHT, WIDTH));
    }
    assert_eq!(transform.tensor(&both, None), transform.tensor(&plain, None));
    assert_ne!(transform.tensor(&both, None), transform.tensor(&exact, None));
    for number in 0..5 {
        let view = RandomCrop::of(3, number, &[7; 32], both.dimensions());
        let of_exact = transform.tensor(&exact, Some(&view));
        assert_eq!(transform.tensor(&both, Some(&view)), of_exact);
        assert_eq!(transform.tensor(&random, Some(&view)), of_exact);
    }
}
