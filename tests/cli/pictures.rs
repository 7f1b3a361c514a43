//! Pictures as they come: hostile and huge ones in bounded memory, and what is no picture at all.

use std::io::Write;
use std::path::Path;

use serde_json::Value;

use crate::common::{EXTRACT, Scene, counts, jpeg, picture, png, shared};

/// A PNG chunk.
fn chunk(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let mut sum = flate2::Crc::new();
    sum.update(kind);
    sum.update(content);
    let length = (content.len() as u32).to_be_bytes();
    [&length, &kind[..], content, &sum.sum().to_be_bytes()].concat()
}

/// So many megabytes of zeros, packed.
fn packed_zeros(megabytes: usize) -> Vec<u8> {
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..megabytes {
        packer.write_all(&[0; 1 << 20]).unwrap();
    }
    packer.finish().unwrap()
}

/// A PNG of 1-bit grey with further chunks before its pixels.
fn one_bit_png(side: u32, between: &[u8], pixels: &[u8]) -> Vec<u8> {
    let side = side.to_be_bytes();
    let header = [&side[..], &side, &[1, 0, 0, 0, 0]].concat();
    [
        b"\x89PNG\r\n\x1a\n",
        &chunk(b"IHDR", &header)[..],
        between,
        &chunk(b"IDAT", pixels),
        &chunk(b"IEND", b""),
    ]
    .concat()
}

/// A little-endian TIFF of these entries: tag, type, count, value.
fn tiff(entries: &[(u16, u16, u32, u32)]) -> Vec<u8> {
    let mut bytes = b"II*\0\x08\0\0\0".to_vec();
    bytes.extend((entries.len() as u16).to_le_bytes());
    for (tag, kind, count, value) in entries {
        bytes.extend([tag.to_le_bytes(), kind.to_le_bytes()].concat());
        bytes.extend([count.to_le_bytes(), value.to_le_bytes()].concat());
    }
    bytes.extend([0; 4]);
    bytes
}

/// Small files that ask for much memory, and the reasons they may be refused with (none: it is a picture all the same).
fn bombs() -> Vec<(&'static str, Vec<u8>, &'static [&'static str])> {
    let mut bmp = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    bmp.extend([0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 0x7f, 1, 0, 24, 0]);
    bmp.extend([0; 64]);
    let mut large_jpeg = jpeg(&picture(0, 1), None);
    // The frame's height and width stand five bytes after its marker.
    let frame = large_jpeg
        .windows(2)
        .position(|pair| pair[0] == 0xff && matches!(pair[1], 0xc0..=0xc2))
        .unwrap();
    let side = 65_500_u16.to_be_bytes();
    large_jpeg[frame + 5..frame + 9].copy_from_slice(&[side, side].concat());
    let canvas = [
        b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0",
        &[0xff; 6][..],
        b"VP8 \0\0\0\0",
    ]
    .concat();
    let profile = [b"name\0\0", &packed_zeros(512)[..]].concat();
    let text = [b"Raw profile type exif\0\0", &packed_zeros(512)[..]].concat();
    let one_pixel = packed_zeros(1);
    vec![
        (
            "pixels.png",
            one_bit_png(30_000, b"", &packed_zeros(108)),
            &["too_large"],
        ),
        (
            "profile.png",
            one_bit_png(1, &chunk(b"iCCP", &profile), &one_pixel),
            &[],
        ),
        ("text.png", one_bit_png(1, &chunk(b"zTXt", &text), &one_pixel), &[]),
        (
            "screen.jpg",
            b"GIF89a\xff\xff\xff\xff\0\0\0\x2c\0\0\0\0\xff\xff\xff\xff\0\x08\x02\0\x01\0\x3b".to_vec(),
            &["too_large"],
        ),
        ("header.bmp", bmp, &["too_large"]),
        (
            "strips.tif",
            tiff(&[
                (256, 4, 1, 10),
                (257, 4, 1, 10),
                (258, 3, 1, 8),
                (259, 3, 1, 1),
                (262, 3, 1, 1),
                (273, 4, u32::MAX, 8),
                (278, 4, 1, 1),
                (279, 4, u32::MAX, 8),
            ]),
            &["too_large", "corrupt", "truncated"],
        ),
        (
            "size.tif",
            tiff(&[
                (256, 4, 1, u32::MAX),
                (257, 4, 1, u32::MAX),
                (258, 3, 1, 8),
                (259, 3, 1, 1),
                (262, 3, 1, 1),
                (273, 4, 1, 8),
                (278, 4, 1, u32::MAX),
                (279, 4, 1, u32::MAX),
            ]),
            &["too_large"],
        ),
        ("canvas.webp", canvas, &["too_large", "corrupt", "truncated"]),
        (
            "size.ppm",
            b"P6\n4000000000 4000000000\n255\n\0".to_vec(),
            &["too_large"],
        ),
        (
            "digits.ppm",
            [b"P6\n", &[b'9'; 1000][..]].concat(),
            &["corrupt", "truncated"],
        ),
        ("frame.jpg", large_jpeg, &["too_large"]),
    ]
}

/// The report of a run, and the most memory it had, in KiB; `None` where the system does not tell.
fn measured(scene: &Scene, arguments: &[&str]) -> (Value, Option<u64>) {
    let (run, peak) = scene.measured(arguments.iter().copied());
    (run.code(3).json(), peak)
}

/// What ONNX Runtime, the tiny model and the program take without pictures, with much to spare, in KiB.
const PROGRAM: u64 = 256 << 10;

fn check_peak(peak: Option<u64>, pictures: u64) {
    match peak {
        Some(peak) => {
            eprintln!("{peak} KiB at most, of {PROGRAM} and {pictures}");
            assert!(peak < PROGRAM + pictures, "{peak} KiB, of {PROGRAM} and {pictures}");
        }
        None => eprintln!("skipped: the system tells no process's memory"),
    }
}

#[test]
fn bombs_are_refused_with_a_reason_and_in_bounded_memory() {
    let scene = Scene::new();
    let bombs = bombs();
    for (name, bytes, _) in &bombs {
        scene.write(&format!("pictures/bombs/{name}"), bytes);
    }
    scene.write("pictures/good/1.png", &png(&picture(0, 1)));
    let threads = 2;
    let arguments = ["--json", "--threads", "2", "--max-pixels", "1000000"];
    let arguments: Vec<&str> = EXTRACT.into_iter().chain(arguments).collect();
    let (report, peak) = measured(&scene, &arguments);
    assert_eq!(report["images"], bombs.len() as u64 + 1, "{report}");
    let failures = report["failures"].as_array().unwrap();
    for (name, _, reasons) in &bombs {
        let failure = failures
            .iter()
            .find(|failure| Path::new(failure["path"].as_str().unwrap()).file_name().unwrap() == *name);
        match failure {
            Some(failure) => assert!(reasons.contains(&failure["reason"].as_str().unwrap()), "{failure}"),
            None => assert!(reasons.is_empty(), "{name} is accepted"),
        }
    }
    // A decoder may have 64 MiB even where pictures are small.
    check_peak(peak, threads * (64 << 10));
}

#[test]
fn memory_stays_under_its_bound_for_all_difficult_files() {
    let Some(shared) = shared() else { return };
    let scene = Scene::new();
    // By content, whatever the name: so all of them are taken in.
    let files = crate::common::files_below(&shared.join("data/nasty"));
    for (index, file) in files.iter().enumerate() {
        let name = format!("pictures/difficult/{index:03}.jpg");
        scene.write(&name, &std::fs::read(file).unwrap());
    }
    scene.write("pictures/good/1.png", &png(&picture(0, 1)));
    let arguments: Vec<&str> = EXTRACT.into_iter().chain(["--json", "--threads", "8"]).collect();
    let (report, peak) = measured(&scene, &arguments);
    let [images, computed, _, failed] = counts(&report);
    assert_eq!(images, files.len() as u64 + 1, "{report}");
    assert!(computed > 70 && failed > 20, "{report}");
    // The decoders' budget (src/picture/room.rs); the files have 10 MB together.
    check_peak(peak, (1536 << 10) + (10 << 10));
}

/// A pipe would make whoever opens it wait for a writer for ever.
#[cfg(unix)]
#[test]
fn a_pipe_or_a_folder_named_as_a_picture_is_never_opened() {
    let scene = Scene::trained();
    std::fs::create_dir_all(scene.path("odd/folder.jpg")).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(scene.path("odd/pipe.jpg"))
        .status();
    assert!(made.unwrap().success());
    std::os::unix::fs::symlink("pipe.jpg", scene.path("odd/link.jpg")).unwrap();
    scene.write("odd/1.png", &png(&picture(0, 1)));
    let run = scene.run([
        "predict",
        "--head",
        "head.safetensors",
        "--json",
        "odd/pipe.jpg",
        "odd/link.jpg",
        "odd/1.png",
    ]);
    let lines = run.code(3).json_lines();
    let errors: Vec<&Value> = lines.iter().filter(|line| line["error"].is_object()).collect();
    assert_eq!(errors.len(), 2, "{lines:?}");
    for error in errors {
        assert_eq!(error["error"]["reason"], "unreadable", "{error}");
        assert!(
            error["error"]["detail"].as_str().unwrap().contains("regular file"),
            "{error}"
        );
    }
}
