//! Tests of whole files, made here.

use std::io::Write;

use image::{ImageFormat, Rgb};
use mozjpeg::ColorSpace;

use super::super::exif::tests::block;
use super::super::jpeg::tests::{encode, gradient};
use super::*;

fn decoded(bytes: &[u8]) -> Result<RgbImage, PictureError> {
    decode(bytes, Exif::Apply, &Limits::default(), None).map(|decoded| decoded.pixels)
}

fn reason(bytes: &[u8]) -> Reason {
    decoded(bytes).unwrap_err().reason
}

fn written(picture: &RgbImage, format: ImageFormat) -> Vec<u8> {
    if format == ImageFormat::Pnm {
        // The encoder would choose PAM, which Pillow does not read either.
        let header = format!("P6\n{} {}\n255\n", picture.width(), picture.height());
        return [header.as_bytes(), picture.as_raw()].concat();
    }
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn chunk(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let mut sum = flate2::Crc::new();
    sum.update(kind);
    sum.update(content);
    let length = (content.len() as u32).to_be_bytes();
    [&length, &kind[..], content, &sum.sum().to_be_bytes()].concat()
}

/// A PNG of unfiltered `rows`; `between` stands before the pixels.
fn png(size: (u32, u32), depth: u8, colour_type: u8, between: &[Vec<u8>], rows: &[&[u8]]) -> Vec<u8> {
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    for row in rows {
        packer.write_all(&[0]).unwrap();
        packer.write_all(row).unwrap();
    }
    let (width, height) = (size.0.to_be_bytes(), size.1.to_be_bytes());
    let header = [&width[..], &height[..], &[depth, colour_type, 0, 0, 0]].concat();
    let signature = b"\x89PNG\r\n\x1a\n".to_vec();
    let pixels = chunk(b"IDAT", &packer.finish().unwrap());
    [
        signature,
        chunk(b"IHDR", &header),
        between.concat(),
        pixels,
        chunk(b"IEND", b""),
    ]
    .concat()
}

fn with_app1(jpeg: &[u8], content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], b"\xff\xe1", &length[..], content, &jpeg[2..]].concat()
}

#[test]
fn every_format_gives_its_pixels() {
    let picture = gradient(19, 11);
    for format in [
        ImageFormat::Png,
        ImageFormat::Bmp,
        ImageFormat::Tiff,
        ImageFormat::WebP,
        ImageFormat::Pnm,
    ] {
        assert_eq!(decoded(&written(&picture, format)).unwrap(), picture, "{format:?}");
    }
    // A GIF keeps one colour exactly.
    let one = RgbImage::from_pixel(5, 4, Rgb([10, 200, 30]));
    let mut gif = Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(one.clone())
        .write_to(&mut gif, ImageFormat::Gif)
        .unwrap();
    assert_eq!(decoded(gif.get_ref()).unwrap(), one);
}

#[test]
fn every_orientation_in_every_container() {
    let picture = gradient(24, 16);
    let jpeg = encode(24, 16, ColorSpace::JCS_RGB, &picture, false);
    let plain_jpeg = decoded(&jpeg).unwrap();
    let rows: Vec<&[u8]> = picture.chunks_exact(24 * 3).collect();
    for orientation in 0..=9 {
        for little in [false, true] {
            let exif = block(orientation, little);
            let marked = with_app1(&jpeg, &[b"Exif\0\0", &exif[..]].concat());
            assert_eq!(
                decoded(&marked).unwrap(),
                orient::upright(plain_jpeg.clone(), orientation)
            );
            assert_eq!(
                decode(&marked, Exif::Ignore, &Limits::default(), None).unwrap().pixels,
                plain_jpeg
            );

            let marked = png((24, 16), 8, 2, &[chunk(b"eXIf", &exif)], &rows);
            assert_eq!(decoded(&marked).unwrap(), orient::upright(picture.clone(), orientation));

            let mut marked = written(&picture, ImageFormat::WebP);
            let length = (exif.len() as u32).to_le_bytes();
            marked.extend_from_slice(&[b"EXIF", &length[..], &exif].concat());
            assert_eq!(exif::orientation(&marked, Format::WebP), Some(orientation));
        }
    }
    let sideways = decoded(&png((24, 16), 8, 2, &[chunk(b"eXIf", &block(6, true))], &rows)).unwrap();
    assert_eq!(sideways.dimensions(), (16, 24));
    assert_eq!(sideways.get_pixel(15, 0), picture.get_pixel(0, 0));
}

#[test]
fn an_orientation_in_xmp_alone_is_ignored() {
    let jpeg = encode(8, 8, ColorSpace::JCS_RGB, &gradient(8, 8), false);
    let packet = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Orientation=\"6\"/>";
    assert_eq!(decoded(&with_app1(&jpeg, packet)).unwrap(), decoded(&jpeg).unwrap());
}

/// The second pixel of the first row.
fn second_pixel(bytes: &[u8]) -> [u8; 3] {
    decoded(bytes).unwrap().get_pixel(1, 0).0
}

#[test]
fn palette_colours_are_taken_with_and_without_transparency() {
    let palette = chunk(b"PLTE", &[1, 2, 3, 40, 50, 60]);
    let plain = png((2, 1), 8, 3, std::slice::from_ref(&palette), &[&[0, 1]]);
    assert_eq!(second_pixel(&plain), [40, 50, 60]);
    let transparent = chunk(b"tRNS", &[255, 0]);
    let transparent = png((2, 1), 8, 3, &[palette, transparent], &[&[0, 1]]);
    assert_eq!(second_pixel(&transparent), [40, 50, 60]);
}

#[test]
fn few_bits_of_grey_are_spread_over_all_levels() {
    assert_eq!(second_pixel(&png((2, 1), 1, 0, &[], &[&[0b0100_0000]])), [255; 3]);
    assert_eq!(second_pixel(&png((2, 1), 2, 0, &[], &[&[0b0001_0000]])), [85; 3]);
    assert_eq!(second_pixel(&png((2, 1), 4, 0, &[], &[&[0x03]])), [51; 3]);
    assert_eq!(second_pixel(&png((2, 1), 8, 0, &[], &[&[0, 77]])), [77; 3]);
}

#[test]
fn alpha_is_dropped_and_not_blended() {
    assert_eq!(second_pixel(&png((2, 1), 8, 4, &[], &[&[0, 0, 77, 0]])), [77; 3]);
    let rgba = png((2, 1), 8, 6, &[], &[&[0, 0, 0, 0, 5, 6, 7, 0]]);
    assert_eq!(second_pixel(&rgba), [5, 6, 7]);
}

#[test]
fn sixteen_bits_of_grey_are_clipped_in_png_and_tiff() {
    for (value, expected) in [(200_u16, 200), (255, 255), (256, 255), (0x1234, 255)] {
        let [high, low] = value.to_be_bytes();
        let grey = png((2, 1), 16, 0, &[], &[&[0, 0, high, low]]);
        assert_eq!(second_pixel(&grey), [expected; 3], "{value}");
        let mut tiff = Cursor::new(Vec::new());
        let picture = image::ImageBuffer::from_fn(2, 1, |x, _| image::Luma([value * x as u16]));
        DynamicImage::ImageLuma16(picture)
            .write_to(&mut tiff, ImageFormat::Tiff)
            .unwrap();
        assert_eq!(second_pixel(tiff.get_ref()), [expected; 3], "{value}");
    }
    let transparent = chunk(b"tRNS", &[1, 0]);
    let grey = png((2, 1), 16, 0, &[transparent], &[&[0, 0, 1, 0]]);
    assert_eq!(second_pixel(&grey), [255; 3]);
}

#[test]
fn sixteen_bits_of_colour_or_of_grey_with_alpha_lose_their_low_byte() {
    let grey_alpha = png((2, 1), 16, 4, &[], &[&[0, 0, 0, 0, 9, 255, 0, 0]]);
    assert_eq!(second_pixel(&grey_alpha), [9; 3]);
    let colour = png((2, 1), 16, 2, &[], &[&[0, 0, 0, 0, 0, 0, 9, 255, 8, 0, 7, 128]]);
    assert_eq!(second_pixel(&colour), [9, 8, 7]);
}

#[test]
fn a_gif_without_a_palette_is_grey() {
    // LZW of two indexes: clear, 7, 200, end, nine bits each, the lowest first.
    let codes = [256_u64, 7, 200, 257];
    let packed = codes.iter().rev().fold(0, |packed, code| packed << 9 | code);
    let mut gif = b"GIF89a\x02\0\x01\0\0\0\0".to_vec();
    gif.extend(b"\x21\xf9\x04\0\0\0\0\0");
    gif.extend(b"\x2c\0\0\0\0\x02\0\x01\0\0\x08\x05");
    gif.extend(&packed.to_le_bytes()[..5]);
    gif.extend(b"\0\x3b");
    let picture = decoded(&gif).unwrap();
    assert_eq!(
        (picture.get_pixel(0, 0).0, picture.get_pixel(1, 0).0),
        ([7; 3], [200; 3])
    );
}

fn accepted(bytes: &[u8]) -> Result<Picture, PictureError> {
    let limits = Limits {
        truncated: Truncated::Accept,
        ..Limits::default()
    };
    decode(bytes, Exif::Apply, &limits, None)
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 7_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8 | 1
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn a_truncated_png_keeps_its_rows_and_is_black_below() {
    let bytes = noise(40 * 33 * 3);
    let rows: Vec<&[u8]> = bytes.chunks_exact(40 * 3).collect();
    let whole = png((40, 33), 8, 2, &[], &rows);
    assert_eq!(accepted(&whole).unwrap().completeness, Completeness::Whole);
    let cut = &whole[..whole.len() / 2];
    assert_eq!(reason(cut), Reason::Truncated);
    let partial = accepted(cut).unwrap();
    assert_eq!(partial.completeness, Completeness::Partial);
    assert_eq!(partial.pixels.dimensions(), (40, 33));
    let good = partial
        .pixels
        .chunks_exact(120)
        .zip(&rows)
        .take_while(|(ours, row)| ours == *row);
    let good = good.count();
    // Noise is as long packed as it is plain.
    assert!((14..=17).contains(&good), "{good}");
    assert!(partial.pixels.as_raw()[good * 120..].iter().all(|&value| value == 0));

    assert_eq!(accepted(&whole[..60]).unwrap_err().reason, Reason::Truncated, "no row");
    let without_end = accepted(&whole[..whole.len() - 12]).unwrap();
    assert_eq!(without_end.completeness, Completeness::Partial);
    assert_eq!(without_end.pixels.as_raw(), &bytes);
}

#[test]
fn a_truncated_palette_png_is_filled_with_its_first_colour_and_an_interlaced_one_between_its_pixels() {
    let palette: Vec<u8> = (0..=255).flat_map(|index| [255 - index, 9, index]).collect();
    let indexes = noise(64 * 64);
    let rows: Vec<&[u8]> = indexes.chunks_exact(64).collect();
    let whole = png((64, 64), 8, 3, &[chunk(b"PLTE", &palette)], &rows);
    let partial = accepted(&whole[..whole.len() * 2 / 3]).unwrap().pixels;
    assert_eq!(partial.get_pixel(5, 3), decoded(&whole).unwrap().get_pixel(5, 3));
    assert_eq!(partial.get_pixel(5, 63).0, [255, 9, 0]);

    // The passes of 64 × 64: width and height of each.
    let mut rest = &indexes[..];
    let mut rows = Vec::new();
    for (width, height) in [(8, 8), (8, 8), (16, 8), (16, 16), (32, 16), (32, 32), (64, 32)] {
        for _ in 0..height {
            let (row, after) = rest.split_at(width);
            rows.push(row);
            rest = after;
        }
    }
    assert!(rest.is_empty());
    let plain = png((64, 64), 8, 0, &[], &rows);
    let header = [&64_u32.to_be_bytes()[..], &64_u32.to_be_bytes(), &[8, 0, 0, 0, 1]].concat();
    let interlaced = [&plain[..8], &chunk(b"IHDR", &header), &plain[33..]].concat();
    let whole = decoded(&interlaced).unwrap();
    let partial = accepted(&interlaced[..interlaced.len() / 3]).unwrap();
    assert_eq!(partial.completeness, Completeness::Partial);
    for (x, y, pixel) in partial.pixels.enumerate_pixels() {
        // A third of the file is five of seven passes and a bit: every second pixel of every second row.
        if y % 2 == 1 {
            assert_eq!(pixel.0, [0; 3], "{x}, {y}");
        } else if x % 2 == 0 && y % 4 == 0 {
            assert_eq!(pixel, whole.get_pixel(x, y), "{x}, {y}");
        }
    }
}

#[test]
fn a_file_longer_than_the_limit_is_too_large() {
    let bytes = written(&gradient(8, 8), ImageFormat::Png);
    let length = bytes.len() as u64;
    let limited = |max_file_bytes| {
        let limits = Limits {
            max_file_bytes,
            ..Limits::default()
        };
        decode(&bytes, Exif::Apply, &limits, None)
    };
    assert_eq!(limited(length - 1).unwrap_err().reason, Reason::TooLarge);
    assert!(limited(length).is_ok());
}

#[test]
fn every_cut_is_an_error() {
    let picture = gradient(40, 33);
    for format in [ImageFormat::Png, ImageFormat::Tiff, ImageFormat::WebP, ImageFormat::Pnm] {
        let bytes = written(&picture, format);
        for end in (16..bytes.len()).step_by(13) {
            assert!(
                decoded(&bytes[..end]).is_err(),
                "{format:?} cut at {end} of {}",
                bytes.len()
            );
        }
    }
    let bytes = written(&picture, ImageFormat::Png);
    assert_eq!(reason(&bytes[..bytes.len() / 2]), Reason::Truncated);
    assert_eq!(reason(&bytes[..bytes.len() - 12]), Reason::Truncated);
    let bytes = written(&picture, ImageFormat::Bmp);
    assert_eq!(reason(&bytes[..bytes.len() / 2]), Reason::Truncated);
}

#[test]
fn a_header_alone_cannot_take_memory() {
    let huge = png((60_000, 60_000), 1, 0, &[], &[&[0]]);
    assert_eq!(reason(&huge), Reason::TooLarge);
    let picture = written(&gradient(40, 33), ImageFormat::Png);
    let error = decode(
        &picture,
        Exif::Apply,
        &Limits {
            max_pixels: 40 * 33 - 1,
            ..Limits::default()
        },
        None,
    )
    .unwrap_err();
    assert_eq!(error.reason, Reason::TooLarge);
    let exact = Limits {
        max_pixels: 40 * 33,
        ..Limits::default()
    };
    assert!(decode(&picture, Exif::Apply, &exact, None).is_ok());
}

#[test]
fn a_flipped_byte_never_panics() {
    let picture = gradient(20, 17);
    let jpeg = encode(20, 17, ColorSpace::JCS_RGB, &picture, true);
    let formats = [
        ImageFormat::Png,
        ImageFormat::Tiff,
        ImageFormat::WebP,
        ImageFormat::Bmp,
        ImageFormat::Pnm,
    ];
    for whole in formats
        .map(|format| written(&picture, format))
        .into_iter()
        .chain([jpeg])
    {
        for position in 0..whole.len().min(300) {
            let mut bytes = whole.clone();
            bytes[position] ^= 0xff;
            let limits = Limits {
                max_pixels: 1 << 20,
                truncated: Truncated::Accept,
                ..Limits::default()
            };
            if let Ok(Picture { pixels: decoded, .. }) = decode(&bytes, Exif::Apply, &limits, None) {
                assert!(decoded.width() > 0 && decoded.height() > 0);
            }
        }
    }
}
