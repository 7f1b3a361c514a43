//! The promise that pictures become the very pixels that Pillow and torchvision make of them, and that of 113 difficult
//! files those are accepted that Pillow accepts.

#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::print_stderr, reason = "says that a test was skipped")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lastlayer::{Completeness, Exif, Limits, Reason, Transform, Truncated};
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

/// Files whose levels differ by more than [`MOST_LEVELS`] from Pillow's at full size where the JPEG decoder was built
/// without SIMD, and why.
const OTHER_LEVELS_WITHOUT_SIMD: &[(&str, &str)] = &[(
    "Pillow/hopper_bad_exif.jpg",
    "damaged blocks far outside of the range: libjpeg's C code wraps them to black where the SIMD code that Pillow has on \
     most processors stops at white (6.99 levels at full size, in 3 % of the pixels)",
)];

/// Mean difference of a channel of the picture, in levels of 0..=255.
const MOST_LEVELS: f64 = 6.0;

/// What `tests/fixtures/make_nasty_rgb.py` writes of a picture.
#[derive(serde::Deserialize)]
struct Converted {
    size: [u32; 2],
    rgb: String,
}

#[test]
fn difficult_files_have_the_levels_of_pillows_rgb() {
    let Some(shared) = shared() else { return };
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/nasty_rgb.json");
    let fixture = std::fs::read_to_string(fixture).unwrap();
    let fixture: BTreeMap<String, Converted> = serde_json::from_str(&fixture).unwrap();
    let transform = Transform {
        exif: Exif::Ignore,
        resize_shorter_side: 8,
        crop: 8,
        ..Transform::default()
    };
    let without_simd = lastlayer::decoder().contains(lastlayer::WITHOUT_VECTORS);
    let (mut compared, mut wrong) = (0, Vec::new());
    for (file, expected) in &fixture {
        let bytes = std::fs::read(shared.join("data/nasty").join(file)).unwrap();
        let Ok((picture, _)) = transform.pixels(&bytes, &Limits::default()) else {
            assert!(OTHER_VERDICT.iter().any(|(other, ..)| other == file), "{file}");
            continue;
        };
        let theirs = (0..expected.rgb.len()).step_by(2);
        let theirs = theirs.map(|at| u8::from_str_radix(&expected.rgb[at..at + 2], 16).unwrap());
        let sum: u64 = picture.iter().zip(theirs).map(|(a, b)| u64::from(a.abs_diff(b))).sum();
        let mean = sum as f64 / 192.0;
        compared += 1;
        let known = without_simd && OTHER_LEVELS_WITHOUT_SIMD.iter().any(|(other, _)| other == file);
        // Shrunk, some of a difference is lost.
        let fine = if known { mean > 1.0 } else { mean <= MOST_LEVELS };
        if !fine {
            wrong.push(format!("{file} {:?}: {mean:.2} levels", expected.size));
        }
    }
    assert!(compared >= 76, "{compared}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn truncated_files_are_taken_where_they_are_wanted() {
    let Some(shared) = shared() else { return };
    let accept = Limits {
        truncated: Truncated::Accept,
        ..Limits::default()
    };
    let transform = Transform::default();
    for (file, taken) in [
        ("Pillow/truncated_jpeg.jpg", true),
        ("libvips/truncated.jpg", true),
        ("sharp/truncated.png", true),
        ("Pillow/truncated_end_chunk.png", true),
        ("Pillow/truncated_image.png", true),
        ("libvips/truncated.gif", false),
        ("Pillow/shortfile.bmp", false),
        ("sharp/corrupt-header.jpg", false),
    ] {
        let bytes = std::fs::read(shared.join("data/nasty").join(file)).unwrap();
        let rejected = transform.pixels(&bytes, &Limits::default()).unwrap_err();
        assert_eq!(rejected.reason, Reason::Truncated, "{file}");
        match transform.pixels(&bytes, &accept) {
            Ok((_, completeness)) => assert!(taken && completeness == Completeness::Partial, "{file}"),
            Err(error) => assert!(!taken && error.reason == Reason::Truncated, "{file}: {error}"),
        }
    }
}
