//! Everything that parses bytes from elsewhere, as one function of bytes each: what `fuzz/` and `tests/hostile_bytes.rs`
//! call. Not part of the API.
//!
//! A target says whether it accepted its input. It panics when something does not hold that must hold of any input.

use std::path::Path;

use bytes::Bytes;

use crate::dataset::archive::{ArchiveStream, index_bytes};
use crate::{FeatureModel, HeadFile, Limits, SpaceDescription, Transform, Truncated, backbone, cache};

/// One parser under test.
pub type Target = fn(&[u8]) -> bool;

/// All targets by name; each has seeds in `fuzz/seeds/<name>`.
pub const TARGETS: [(&str, Target); 9] = [
    ("segment", segment),
    ("index", index),
    ("record", record),
    ("key", key),
    ("head", head),
    ("onnx", onnx),
    ("checkpoint", checkpoint),
    ("tar", tar),
    ("picture", picture),
];

/// Where inputs come from, in messages; nothing lies there.
const NOWHERE: &str = "/nowhere/of/lastlayer/input";

/// A segment of the cache.
#[must_use]
pub fn segment(bytes: &[u8]) -> bool {
    cache::hostile::segment(bytes)
}

/// The list of segments.
#[must_use]
pub fn index(bytes: &[u8]) -> bool {
    cache::hostile::index(bytes)
}

/// What is remembered of a data set.
#[must_use]
pub fn record(bytes: &[u8]) -> bool {
    cache::hostile::record(bytes)
}

/// A feature space's `space.json`: what is accepted is written and read back as the same.
///
/// # Panics
/// When it is not.
#[must_use]
pub fn key(bytes: &[u8]) -> bool {
    let Some(description) = std::str::from_utf8(bytes).ok().and_then(SpaceDescription::parse) else {
        return false;
    };
    let space = description.space();
    let again = SpaceDescription::parse(space.json()).expect("what was accepted is accepted again");
    assert_eq!(again, description);
    assert_eq!(again.space(), space);
    true
}

/// A head file: what is accepted is finite, and is written and read back as the same.
///
/// # Panics
/// When it is not.
#[must_use]
pub fn head(bytes: &[u8]) -> bool {
    let Ok(file) = HeadFile::from_bytes(bytes, Path::new(NOWHERE)) else {
        return false;
    };
    assert!(file.head.is_finite());
    assert_eq!(file.head.classes(), file.meta.classes.len());
    let written = file.to_bytes().expect("what was loaded can be saved");
    let again = HeadFile::from_bytes(&written, Path::new(NOWHERE)).expect("what was saved can be loaded");
    assert_eq!(again.head, file.head);
    assert_eq!(again.meta.classes, file.meta.classes);
    true
}

/// An ONNX model, cut at its features; weights in other files are not there. What comes out is itself accepted.
///
/// # Panics
/// When it is not.
#[must_use]
pub fn onnx(bytes: &[u8]) -> bool {
    let bytes = Bytes::copy_from_slice(bytes);
    let Ok(model) = FeatureModel::from_bytes(bytes.clone(), Path::new(NOWHERE), None) else {
        // Another way through the same file: a tensor chosen by name.
        let _ = FeatureModel::from_bytes(bytes, Path::new(NOWHERE), Some("flat"));
        return false;
    };
    assert!(model.external_weights.is_none());
    true
}

/// A PyTorch checkpoint.
#[must_use]
pub fn checkpoint(bytes: &[u8]) -> bool {
    backbone::parse_checkpoint(bytes, Path::new(NOWHERE)).is_ok()
}

/// A tar archive, indexed and streamed: both give the same samples.
///
/// # Panics
/// When they do not.
#[must_use]
pub fn tar(bytes: &[u8]) -> bool {
    const LIMIT: u64 = 1 << 20;
    let mut stream = ArchiveStream::new(Path::new(NOWHERE), bytes, LIMIT).expect("memory can be read");
    let streamed: Vec<_> = stream.by_ref().collect();
    let packed = bytes.starts_with(&[0x1f, 0x8b]);
    let Ok(index) = index_bytes(Path::new(NOWHERE), bytes) else {
        return packed && streamed.iter().all(Result::is_ok);
    };
    let samples = streamed.iter().flatten();
    assert_eq!(samples.clone().count(), index.samples.len());
    for (sample, listed) in samples.zip(&index.samples) {
        assert_eq!(
            (&sample.name, &sample.label, sample.split),
            (&listed.name, &listed.label, listed.split)
        );
        let start = usize::try_from(listed.offset).expect("within the bytes");
        let content = &bytes[start..][..usize::try_from(listed.length).expect("within the bytes")];
        assert!(
            sample
                .bytes
                .as_ref()
                .map_or(listed.length > LIMIT, |bytes| bytes == content)
        );
    }
    assert_eq!(streamed.iter().any(Result::is_err), index.failure.is_some());
    let (ignored, warnings) = stream.finish();
    assert_eq!((ignored, warnings), (index.ignored, index.warnings));
    index.failure.is_none()
}

/// A picture of up to a million pixels.
#[must_use]
pub fn picture(bytes: &[u8]) -> bool {
    let transform = Transform {
        resize_shorter_side: 32,
        crop: 28,
        ..Transform::default()
    };
    const LIMITS: Limits = Limits {
        max_pixels: 1 << 20,
        max_file_bytes: 1 << 30,
        truncated: Truncated::Reject,
    };
    let Ok((pixels, _)) = transform.pixels(bytes, &LIMITS) else {
        return false;
    };
    assert_eq!(pixels.dimensions(), (28, 28));
    true
}

/// Keeps an input as a seed of `target`.
#[cfg(test)]
pub(crate) fn store_seed(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    std::fs::create_dir_all(&folder).expect("the seeds' folder can be made");
    std::fs::write(folder.join(name), bytes).expect("a seed can be written");
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io::Cursor;

    use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

    use super::*;

    #[test]
    #[ignore = "writes fuzz/seeds anew"]
    fn stores_seeds() {
        let description = SpaceDescription::new(&"ab".repeat(32), "flatten_out", Transform::default());
        store_seed("key", "resnet18", description.space().json().as_bytes());

        let picture = RgbImage::from_fn(24, 18, |x, y| Rgb([x as u8 * 9, y as u8 * 13, (x * y) as u8]));
        let mut jpeg = mozjpeg::Compress::new(mozjpeg::ColorSpace::JCS_RGB);
        jpeg.set_size(24, 18);
        let mut jpeg = jpeg.start_compress(Vec::new()).unwrap();
        jpeg.write_scanlines(&picture).unwrap();
        store_seed("picture", "progressive.jpg", &jpeg.finish().unwrap());
        store_seed(
            "picture",
            "rgb.ppm",
            &[b"P6\n24 18\n255\n", picture.as_raw().as_slice()].concat(),
        );
        let picture = DynamicImage::from(picture);
        for (name, format, picture) in [
            ("rgb.png", ImageFormat::Png, picture.clone()),
            ("grey16.png", ImageFormat::Png, picture.to_luma16().into()),
            ("rgba.webp", ImageFormat::WebP, picture.to_rgba8().into()),
            ("rgb.bmp", ImageFormat::Bmp, picture.clone()),
            ("rgb.tif", ImageFormat::Tiff, picture.clone()),
            ("palette.gif", ImageFormat::Gif, picture.to_rgba8().into()),
        ] {
            let mut bytes = Vec::new();
            picture.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
            store_seed("picture", name, &bytes);
        }
    }
}
