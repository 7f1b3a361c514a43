//! Made pictures: each class has a colour of its own, each number another shade of it.

use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage};

use super::model::numbers;

/// The picture of a class with a number; 48×40 pixels in a gradient about the class's colour.
pub(crate) fn picture(class: usize, number: u64) -> RgbImage {
    let seed = (class as u64) << 32 | number;
    let noise: Vec<f32> = numbers(seed, 6).collect();
    RgbImage::from_fn(48, 40, |x, y| {
        let (along, down) = (x as f32 / 47.0 - 0.5, y as f32 / 39.0 - 0.5);
        Rgb([0, 1, 2].map(|channel| {
            let base = if (channel + class) % 3 == 2 { 180.0 } else { 60.0 };
            let slope = 40.0 * (noise[channel] * along + noise[(channel + 1) % 3] * down);
            (base + 30.0 * noise[channel + 3] + slope).round() as u8
        }))
    })
}

fn encoded(picture: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

pub(crate) fn png(picture: &RgbImage) -> Vec<u8> {
    encoded(picture, ImageFormat::Png)
}

pub(crate) fn bmp(picture: &RgbImage) -> Vec<u8> {
    encoded(picture, ImageFormat::Bmp)
}

/// A JPEG with this EXIF orientation, if any.
pub(crate) fn jpeg(picture: &RgbImage, orientation: Option<u8>) -> Vec<u8> {
    let mut compress = mozjpeg::Compress::new(mozjpeg::ColorSpace::JCS_RGB);
    compress.set_size(picture.width() as usize, picture.height() as usize);
    compress.set_quality(90.0);
    let mut started = compress.start_compress(Vec::new()).unwrap();
    if let Some(orientation) = orientation {
        // APP1: one big-endian TIFF directory with the tag 0x0112, a SHORT.
        let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
        started.write_marker(mozjpeg::Marker::APP(1), &exif);
    }
    started.write_scanlines(picture.as_raw()).unwrap();
    started.finish().unwrap()
}
