//! The promise that pictures become the very pixels that Pillow and torchvision make of them, and that of 113 difficult
//! files those are accepted that Pillow accepts.

#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::print_stderr, reason = "says that a test was skipped")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lastlayer::{Completeness, Limits, Reason, Transform};
use ndarray::{Array4, Axis};

fn shared() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: ../shared is absent");
    None
}

#[test]
fn pixels_equal_torchvisions() {
    let Some(shared) = shared() else { return };
    let expected: Array4<u8> = ndarray_npy::read_npy(shared.join("reference/cats4_pixels.npy")).unwrap();
    let names = std::fs::read_to_string(shared.join("reference/cats4_pixels.txt")).unwrap();
    assert_eq!(names.lines().count(), expected.len_of(Axis(0)));

    let transform = Transform::default();
    let mut tensor = vec![0.0; transform.tensor_len()];
    for (name, expected) in names.lines().zip(expected.outer_iter()) {
        let bytes = std::fs::read(shared.join("data/cats4").join(name)).unwrap();
        let (pixels, completeness) = transform.pixels(&bytes, &Limits::default()).unwrap();
        assert_eq!(completeness, Completeness::Whole);
        let different = pixels
            .iter()
            .zip(expected.iter())
            .filter(|(ours, theirs)| ours != theirs)
            .count();
        assert_eq!(different, 0, "{name}: {different} of {} values differ", expected.len());

        let _whole = transform.load(&bytes, &Limits::default(), &mut tensor).unwrap();
        for ((row, column, channel), &value) in expected.indexed_iter() {
            let index = (channel * 224 + row) * 224 + column;
            let normalised = (f32::from(value) / 255.0 - transform.mean[channel]) / transform.std[channel];
            assert_eq!(tensor[index], normalised, "{name} at {row}, {column}, {channel}");
        }
    }
}

/// Files where the verdict differs from Pillow's, and why that is right.
const OTHER_VERDICT: &[(&str, Result<(), Reason>, &str)] = &[
    (
        "Pillow/badrle.bmp",
        Err(Reason::Corrupt),
        "the run lengths are broken; Pillow shows what they happen to give",
    ),
    (
        "Pillow/hopper.Lab.tif",
        Err(Reason::Unsupported),
        "CIELAB has no conversion in the TIFF decoder",
    ),
    (
        "Pillow/png_decompression_dos.png",
        Ok(()),
        "the hostile text is never inflated, so it can do no harm",
    ),
    (
        "Pillow/unknown_compression_method.png",
        Ok(()),
        "the pixels are ordinary zlib data; only the header's byte is odd",
    ),
    (
        "image-rs/ycbcr_lzw_broken.tif",
        Err(Reason::Unsupported),
        "subsampled YCbCr outside JPEG is not decoded",
    ),
    (
        "pngsuite/xcsn0g01.png",
        Err(Reason::Corrupt),
        "the pixels' check sum is wrong; Pillow does not look at it",
    ),
    (
        "sharp/pitm.avif",
        Err(Reason::Unsupported),
        "AVIF needs a video decoder",
    ),
];

#[test]
fn difficult_files_are_accepted_as_pillow_accepts_them() {
    let Some(shared) = shared() else { return };
    let folder = shared.join("data/nasty");
    let mut manifest = csv::Reader::from_path(folder.join("manifest.csv")).unwrap();
    let mut other: BTreeMap<&str, Result<(), Reason>> = OTHER_VERDICT
        .iter()
        .map(|(file, verdict, _)| (*file, *verdict))
        .collect();
    let headers = manifest.headers().unwrap().clone();
    let column = |name: &str| headers.iter().position(|header| header == name).unwrap();
    let (file_column, verdict_column) = (column("file"), column("pil_convert_rgb"));

    let transform = Transform::default();
    let (mut files, mut wrong) = (0, Vec::new());
    for record in manifest.records() {
        let record = record.unwrap();
        let file = &record[file_column];
        let accepted_by_pillow = &record[verdict_column] == "ok";
        let bytes = std::fs::read(folder.join(file)).unwrap();
        let verdict = transform.pixels(&bytes, &Limits::default()).map(|_| ());
        files += 1;

        let reason = verdict.clone().map_err(|error| error.reason);
        let fine = match other.remove(file) {
            Some(expected) => reason == expected && reason.is_ok() != accepted_by_pillow,
            None => reason.is_ok() == accepted_by_pillow,
        };
        if !fine {
            wrong.push(format!("{file}: {verdict:?}, Pillow: {}", &record[verdict_column]));
        }
    }
    assert_eq!(files, 113);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(other.is_empty(), "not in the manifest: {other:?}");
}

#[test]
fn reasons_of_broken_files() {
    let Some(shared) = shared() else { return };
    for (file, reason) in [
        ("synthetic/zero_bytes.jpg", Reason::Empty),
        ("synthetic/html_404.jpg", Reason::NotAnImage),
        ("lfs-pointer/100080576_f52e8ee070_n.jpg", Reason::NotAnImage),
        ("synthetic/bomb_30000x30000_1bit.png", Reason::TooLarge),
        ("lottapixel/lottapixel.jpg", Reason::TooLarge),
        ("sharp/giant-image.jpg", Reason::TooLarge),
        ("Pillow/decompression_bomb.gif", Reason::Truncated),
        ("Pillow/reallybig.bmp", Reason::TooLarge),
        ("Pillow/truncated_jpeg.jpg", Reason::Truncated),
        ("Pillow/ultrahdr.jpg", Reason::Truncated),
        ("libvips/truncated.jpg", Reason::Truncated),
        ("libvips/truncated.gif", Reason::Truncated),
        ("sharp/truncated.png", Reason::Truncated),
        ("Pillow/truncated_end_chunk.png", Reason::Truncated),
        ("Pillow/shortfile.bmp", Reason::Truncated),
        ("sharp/corrupt-header.jpg", Reason::Truncated),
        ("image-rs/oss-fuzz-36829.jpeg", Reason::Corrupt),
        ("Pillow/broken_data_stream.png", Reason::Corrupt),
        ("sharp/pitm.avif", Reason::Unsupported),
        ("Pillow/hopper.Lab.tif", Reason::Unsupported),
    ] {
        let bytes = std::fs::read(shared.join("data/nasty").join(file)).unwrap();
        let error = Transform::default().pixels(&bytes, &Limits::default()).unwrap_err();
        assert_eq!(error.reason, reason, "{file}: {error}");
    }
}
