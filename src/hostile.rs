//! Everything that parses bytes from elsewhere, as one function of bytes each: what `fuzz/` and `tests/hostile_bytes.rs`
//! call. Not part of the API.
//!
//! A target says whether it accepted its input. It panics when something does not hold that must hold of any input.

use std::path::Path;

use bytes::Bytes;

use crate::dataset::archive::{ArchiveStream, index_bytes};
use crate::dataset::table::{Table, TableFormat, read_list, read_table_bytes};
use crate::{
    Decode, FeatureModel, HeadFile, Limits, SpaceDescription, TableColumns, Transform, Truncated, backbone, cache,
};

/// One parser under test.
pub type Target = fn(&[u8]) -> bool;

/// All targets by name; each has seeds in `fuzz/seeds/<name>`.
pub const TARGETS: [(&str, Target); 13] = [
    ("segment", segment),
    ("index", index),
    ("record", record),
    ("key", key),
    ("head", head),
    ("onnx", onnx),
    ("checkpoint", checkpoint),
    ("tar", tar),
    ("csv", csv),
    ("jsonl", jsonl),
    ("parquet", parquet),
    ("list", list),
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
    // As it is, and with the length of its header made right: the JSON ends with the last brace.
    if let Some(end) = bytes.iter().rposition(|byte| *byte == b'}').filter(|end| *end > 8) {
        let mut sealed = bytes.to_vec();
        sealed[..8].copy_from_slice(&(end as u64 - 7).to_le_bytes());
        head_file(&sealed);
    }
    head_file(bytes)
}

fn head_file(bytes: &[u8]) -> bool {
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
    // Whatever the weights and types are, it is converted or refused.
    let _ = backbone::HalfModel::of(&model.onnx);
    true
}

/// A PyTorch checkpoint.
#[must_use]
pub fn checkpoint(bytes: &[u8]) -> bool {
    backbone::parse_checkpoint(bytes, Path::new(NOWHERE)).is_ok()
}

/// A tar archive, as it is and with the checksums of its headers made right, indexed and streamed: both give the same
/// samples.
///
/// # Panics
/// When they do not.
#[must_use]
pub fn tar(bytes: &[u8]) -> bool {
    archive(&sealed_tar(bytes));
    archive(bytes)
}

/// The archive with the checksum of each block that looks like a header made right.
fn sealed_tar(bytes: &[u8]) -> Vec<u8> {
    let mut sealed = bytes.to_vec();
    for block in sealed.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
    }
    sealed
}

fn archive(bytes: &[u8]) -> bool {
    const LIMIT: u64 = 1 << 20;
    let mut stream = ArchiveStream::new(Path::new(NOWHERE), bytes, LIMIT).expect("memory can be read");
    let streamed: Vec<_> = stream.by_ref().collect();
    let index = index_bytes(Path::new(NOWHERE), bytes);
    // A stream is unpacked where it begins as gzip does; a file is indexed by its name, and a header may begin so too.
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return streamed.iter().all(Result::is_ok);
    }
    let Ok(index) = index else {
        assert!(streamed.iter().all(Result::is_err));
        return false;
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

/// A table of text with commas or tabs between its cells.
#[must_use]
pub fn csv(bytes: &[u8]) -> bool {
    let separated = [TableFormat::Csv, TableFormat::Tsv];
    separated.map(|format| table(bytes, format)).contains(&true)
}

/// A table of JSON Lines.
#[must_use]
pub fn jsonl(bytes: &[u8]) -> bool {
    table(bytes, TableFormat::JsonLines)
}

/// A Parquet table, as it is and with the length of its footer made right.
#[must_use]
pub fn parquet(bytes: &[u8]) -> bool {
    if let Some(sealed) = sealed_parquet(bytes) {
        table(&sealed, TableFormat::Parquet);
    }
    table(bytes, TableFormat::Parquet)
}

/// A list of paths.
#[must_use]
pub fn list(bytes: &[u8]) -> bool {
    read_list(Path::new(NOWHERE), &mut &*bytes).is_ok_and(|table| is_sound(&table))
}

fn table(bytes: &[u8], format: TableFormat) -> bool {
    let _ = TableFormat::sniff(bytes);
    read_table_bytes(Path::new(NOWHERE), format, bytes, &TableColumns::default()).is_ok_and(|table| is_sound(&table))
}

/// True: a table has each path once, in the order of its lines.
fn is_sound(table: &Table) -> bool {
    let mut paths: Vec<&Path> = table.rows.iter().map(|row| row.path.as_path()).collect();
    paths.sort_unstable_by_key(|path| path.as_os_str());
    assert!(paths.iter().all(|path| !path.as_os_str().is_empty()));
    assert!(paths.windows(2).all(|pair| pair[0].as_os_str() != pair[1].as_os_str()));
    // Not strictly: a bare carriage return ends a row of CSV, but no line.
    assert!(table.rows.is_sorted_by_key(|row| row.line));
    let words = || table.rows.iter().filter_map(|row| row.label.as_deref());
    assert!(words().all(|label| !label.is_empty()));
    true
}

/// The file with its magic bytes and the length of its footer made right, where the footer's beginning can be found.
fn sealed_parquet(bytes: &[u8]) -> Option<Vec<u8>> {
    const MAGIC: &[u8; 4] = b"PAR1";
    let body = &bytes[..bytes.len().checked_sub(8)?];
    // A footer begins with the version, 1 or 2, and the schema, a list.
    let begins = |start: &[u8]| matches!(start, [0x15, 0x02 | 0x04, 0x19]);
    let start = body.windows(3).rposition(begins)?;
    let mut sealed = body.to_vec();
    sealed.get_mut(..4)?.copy_from_slice(MAGIC);
    sealed.extend_from_slice(&u32::try_from(body.len() - start).ok()?.to_le_bytes());
    sealed.extend_from_slice(MAGIC);
    Some(sealed)
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
    // Of so small a crop most pictures are decoded at a part of their size.
    let fast = Transform {
        resize_shorter_side: 4,
        crop: 4,
        decode: Decode::Fast,
        ..Transform::default()
    };
    if let Ok((pixels, _)) = fast.pixels(bytes, &LIMITS) {
        assert_eq!(pixels.dimensions(), (4, 4));
    }
    let Ok((pixels, _)) = transform.pixels(bytes, &LIMITS) else {
        return false;
    };
    assert_eq!(pixels.dimensions(), (28, 28));
    true
}

/// Asserts that the seed `name` of `target` is `bytes`; writes it if the variable `LASTLAYER_WRITE_SEEDS` is set.
#[cfg(test)]
pub(crate) fn check_seed(target: &str, name: &str, bytes: &[u8]) {
    let Some(file) = stored_seed(target, name, bytes) else {
        return;
    };
    let stored = std::fs::read(&file).unwrap_or_default();
    assert!(
        stored == bytes,
        "{} is not what is written today: write it anew as fuzz/README.md says",
        file.display()
    );
}

/// Asserts that the seed `name` of `target` exists, for `bytes` that another version of an encoder may write otherwise.
#[cfg(test)]
pub(crate) fn check_encoded_seed(target: &str, name: &str, bytes: &[u8]) {
    if let Some(file) = stored_seed(target, name, bytes) {
        assert!(file.exists(), "{} is missing: fuzz/README.md", file.display());
    }
}

/// Where the seed lies, after it was written if that is asked for; `None` in the published crate, which has no seeds.
#[cfg(test)]
fn stored_seed(target: &str, name: &str, bytes: &[u8]) -> Option<std::path::PathBuf> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    if !fuzz.exists() {
        return None;
    }
    let file = fuzz.join("seeds").join(target).join(name);
    if std::env::var_os("LASTLAYER_WRITE_SEEDS").is_some() {
        std::fs::create_dir_all(file.parent().expect("a seed lies in a folder")).expect("the folder can be made");
        std::fs::write(&file, bytes).expect("a seed can be written");
    }
    Some(file)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io::Cursor;

    use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

    use super::*;
    use crate::picture::WITHOUT_VECTORS;
    use crate::space::Precision;

    #[test]
    fn the_seed_of_a_key_is_what_is_written() {
        let description = SpaceDescription::new(&"ab".repeat(32), "flatten_out", Transform::default(), Precision::Fp32);
        // The same whatever the JPEG decoder was built with.
        let json = description.space().json().replace(&format!(", {WITHOUT_VECTORS}"), "");
        check_seed("key", "resnet18", json.as_bytes());
    }

    #[test]
    fn the_seeds_of_tables_are_what_is_written() {
        let quoted = "label,path,split\ncat,\"a, b.jpg\",train\n\"say \"\"dog\"\"\",c.png,val\n,d.png,\n";
        check_seed("csv", "quoted.csv", quoted.as_bytes());
        check_seed(
            "csv",
            "plain.tsv",
            b"\xef\xbb\xbffile\tclass\r\na b.jpg\t7\r\nc.jpg\t\r\n",
        );
        let objects = "{\"path\": \"a.jpg\", \"label\": 3, \"split\": \"val\"}\n{\"label\": \"\\u00e9\", \"x\": [{}], \"path\": \"b\"}\n";
        check_seed("jsonl", "three_keys.jsonl", objects.as_bytes());
        check_seed("list", "labels.txt", b"a.jpg\tcat\ttrain\nb c.jpg\tdog\n\nd.jpg\n");
        check_seed("list", "find.txt", b"a.jpg\0b\nc.jpg\0");
    }

    #[test]
    fn the_seeds_of_pictures_are_there() {
        let picture = RgbImage::from_fn(24, 18, |x, y| Rgb([x as u8 * 9, y as u8 * 13, (x * y) as u8]));
        let mut jpeg = mozjpeg::Compress::new(mozjpeg::ColorSpace::JCS_RGB);
        jpeg.set_size(24, 18);
        let mut jpeg = jpeg.start_compress(Vec::new()).unwrap();
        jpeg.write_scanlines(&picture).unwrap();
        check_encoded_seed("picture", "progressive.jpg", &jpeg.finish().unwrap());
        check_encoded_seed(
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
            check_encoded_seed("picture", name, &bytes);
        }
    }
}
