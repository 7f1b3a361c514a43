//! JPEG by libjpeg-turbo (through mozjpeg), which gives the very pixels that Pillow gives. At a part of the size it is
//! libjpeg's as well, except for ordinary files at a quarter or less (`reduced.rs`).
//!
//! Whether a file is complete is decided as Pillow decides it: it is truncated if the decoder asks for bytes behind the
//! end before the last row is out. Where such a picture is wanted all the same, libjpeg makes up the rest from an end
//! marker, as it does for Pillow. Warnings of libjpeg (a marker too early, a bad restart) are passed over, errors are not.

use std::cell::Cell;
use std::io::{self, BufRead, Read};

use image::RgbImage;
use mozjpeg::{ColorSpace, Decompress};

use super::convert::rgb_bytes;
use super::decode::{Eighths, Picture};
use super::room::Room;
use super::{Completeness, Limits, PictureError, Reason, Truncated, reduced};
use crate::quiet;

/// The bytes of the file, and whether more were asked for than there are.
struct Source<'a> {
    rest: &'a [u8],
    starved: &'a Cell<bool>,
    truncated: Truncated,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.rest.read(buffer)
    }
}

impl BufRead for Source<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.rest.is_empty() {
            self.starved.set(true);
            // At a plain end of file the decoder makes up the rest of the picture.
            if self.truncated == Truncated::Reject {
                return Err(io::Error::other("the data end here"));
            }
        }
        Ok(self.rest)
    }

    fn consume(&mut self, count: usize) {
        self.rest = &self.rest[count..];
    }
}

/// Progressive encoders write about ten scans; each costs a pass over the picture, so a small file could cost minutes.
const MOST_SCANS: usize = 100;

/// Decodes to RGB, at full size or at the smallest whose shorter side is not less than `shortest`.
pub(super) fn decode(bytes: &[u8], limits: &Limits, shortest: Option<u64>) -> Result<Picture, PictureError> {
    let layout = Layout::of(bytes);
    if layout.scans > MOST_SCANS {
        let detail = format!("a JPEG of {} scans", layout.scans);
        return Err(PictureError::new(Reason::TooLarge, detail));
    }
    let whole = attempt(bytes, &layout, limits, shortest, Truncated::Reject);
    match whole {
        Err(error) if error.reason == Reason::Truncated && limits.truncated == Truncated::Accept => {
            // A segment that is cut off would be read with the end marker in it.
            attempt(&bytes[..layout.end], &layout, limits, shortest, Truncated::Accept).map_err(|_| error)
        }
        whole => whole,
    }
}

fn attempt(
    bytes: &[u8],
    layout: &Layout,
    limits: &Limits,
    shortest: Option<u64>,
    truncated: Truncated,
) -> Result<Picture, PictureError> {
    let starved = Cell::new(false);
    let source = Source {
        rest: bytes,
        starved: &starved,
        truncated,
    };
    match quiet::run(|| decode_or_unwind(source, layout, limits, shortest)) {
        Ok(Ok(picture)) => Ok(picture),
        Ok(Err(error)) if error.reason != Reason::Corrupt => Err(error),
        _ if starved.get() => Err(ends_early()),
        Ok(Err(error)) => Err(error),
        Err(message) => Err(classify(message.trim_start_matches("libjpeg fatal error: "))),
    }
}

fn ends_early() -> PictureError {
    PictureError::new(Reason::Truncated, "the JPEG data end before the picture does")
}

fn decode_or_unwind(
    source: Source<'_>,
    layout: &Layout,
    limits: &Limits,
    shortest: Option<u64>,
) -> Result<Picture, PictureError> {
    let damaged = |source: io::Error| PictureError::new(Reason::Corrupt, format!("JPEG: {source}"));
    let (starved, truncated, bytes) = (source.starved, source.truncated, source.rest);
    let mut decoder = Decompress::builder().from_reader(source).map_err(damaged)?;
    let (width, height) = decoder.size();
    let size = (width as u32, height as u32);
    limits.check(size.0, size.1)?;

    let components = decoder.components().len();
    let color = match components {
        1 => ColorSpace::JCS_GRAYSCALE,
        3 => ColorSpace::JCS_RGB,
        4 => ColorSpace::JCS_CMYK,
        count => {
            return Err(PictureError::new(
                Reason::Unsupported,
                format!("a JPEG of {count} components"),
            ));
        }
    };
    let eighths = shortest.map_or(Eighths::FULL, |shortest| Eighths::of(size.0, size.1, shortest));
    let is_small = eighths.0 <= reduced::MOST_EIGHTHS && layout.scans == 1 && truncated == Truncated::Reject;
    let copied = if is_small { bytes.len() as u64 } else { 0 };
    let room = Room::of_decoder(layout.bytes(size, eighths, components as u64) + copied);
    let picture = |pixels, completeness, room| Picture {
        size,
        eighths,
        ..Picture::whole(pixels, completeness, room)
    };
    if is_small && let Some(pixels) = reduced::decode(bytes, size, eighths) {
        return Ok(picture(pixels, Completeness::Whole, room));
    }
    decoder.scale(eighths.0);
    let mut decoder = decoder.to_colorspace(color).map_err(damaged)?;
    let (width, height) = (decoder.width(), decoder.height());
    let samples = match truncated {
        Truncated::Reject => decoder.read_scanlines().map_err(damaged)?,
        Truncated::Accept => {
            let in_scans = starved.get();
            let mut samples = vec![0_u8; width * height * components];
            let (first, others) = samples.split_at_mut(width * components);
            decoder.read_scanlines_into(first).map_err(damaged)?;
            let no_row = starved.get() && !in_scans;
            decoder.read_scanlines_into(others).map_err(damaged)?;
            // All scans of a progressive picture are read before its first row: there only the pixels can tell. The last
            // column is the middle of the range as long as no row of blocks is complete.
            let last_column = samples.chunks_exact(components).skip(width - 1).step_by(width);
            if no_row || in_scans && last_column.flatten().all(|sample| sample.abs_diff(128) <= 1) {
                return Err(ends_early());
            }
            samples
        }
    };
    // What follows the last row may be damaged, and then the file is; it may also just be missing.
    if let Err(message) = quiet::run(|| decoder.finish())
        && !starved.get()
    {
        return Err(classify(message.trim_start_matches("libjpeg fatal error: ")));
    }

    let rgb = match color {
        ColorSpace::JCS_GRAYSCALE => rgb_bytes(samples.iter(), |&grey| [grey; 3]),
        ColorSpace::JCS_CMYK => rgb_bytes(samples.as_chunks().0.iter(), |&cmyk| rgb_from_inverted_cmyk(cmyk)),
        _ => samples,
    };
    let pixels = RgbImage::from_raw(width as u32, height as u32, rgb)
        .ok_or_else(|| PictureError::new(Reason::Corrupt, "JPEG: rows are missing".to_owned()))?;
    let completeness = match truncated {
        Truncated::Reject => Completeness::Whole,
        Truncated::Accept => Completeness::Partial,
    };
    Ok(picture(pixels, completeness, room))
}

/// Whether libjpeg was built with vector instructions, which needs NASM on x86.
///
/// A block so bright that the plain code, which takes the level modulo 1024, wraps it to black tells.
pub(super) fn is_vectorised() -> bool {
    decode(TOO_BRIGHT, &Limits::default(), None).is_ok_and(|picture| picture.pixels.get_pixel(0, 0).0 == [255; 3])
}

/// A grey JPEG of 8 × 8 whose only coefficient is 20 · 255: a level of 637 above the middle.
const TOO_BRIGHT: &[u8] = &{
    const HEAD: [u8; 7] = [0xff, 0xd8, 0xff, 0xdb, 0, 67, 0];
    const TAIL: [u8; 69] = [
        // The frame: 8 bits, 8 × 8, one component.
        0xff,
        0xc0,
        0,
        11,
        8,
        0,
        8,
        0,
        8,
        1,
        1,
        0x11,
        0, //
        // Two codes of one symbol each, whose code is 0: a difference of 5 bits, and the end of the block.
        0xff,
        0xc4,
        0,
        20,
        0x00,
        1,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        5, //
        0xff,
        0xc4,
        0,
        20,
        0x10,
        1,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0, //
        // The scan: 0, 10100 for 20, 0, and a bit that fills the byte.
        0xff,
        0xda,
        0,
        8,
        1,
        1,
        0x00,
        0,
        63,
        0,
        0b0101_0001,
        0xff,
    ];
    let mut bytes = [255; HEAD.len() + 64 + TAIL.len() + 1];
    let mut at = 0;
    while at < HEAD.len() {
        bytes[at] = HEAD[at];
        at += 1;
    }
    at = 0;
    while at < TAIL.len() {
        bytes[HEAD.len() + 64 + at] = TAIL[at];
        at += 1;
    }
    bytes[HEAD.len() + 64 + TAIL.len()] = 0xd9;
    bytes
};

/// What the segments say before anything is decoded.
#[derive(Debug, PartialEq, Eq)]
struct Layout {
    /// Scans of the picture: what follows it (a film, another picture) and what is embedded in segments (a thumbnail) is
    /// none of its own.
    scans: usize,
    /// Where the file ends, without a segment that is cut off.
    end: usize,
}

impl Layout {
    fn of(bytes: &[u8]) -> Self {
        const START_OF_SCAN: u8 = 0xda;
        let mut scans = 0;
        let mut rest = bytes.get(2..).unwrap_or_default();
        while let Some(at) = next_segment(rest) {
            let (marker, after) = (rest[at + 1], &rest[at + 2..]);
            if marker == 0xd9 {
                break;
            }
            let length = after
                .first_chunk::<2>()
                .map_or(usize::MAX, |length| usize::from(u16::from_be_bytes(*length)));
            scans += usize::from(marker == START_OF_SCAN);
            let Some(next) = after.get(length..) else {
                let end = bytes.len() - rest.len() + at;
                return Self { scans, end };
            };
            rest = next;
        }
        let end = bytes.len();
        Self { scans, end }
    }

    /// What exists at one time: of each pixel that is decoded its samples and RGB, or RGB twice while it is turned upright;
    /// and the coefficients of the whole picture, 16 bits each, where scans complete one another.
    fn bytes(&self, (width, height): (u32, u32), eighths: Eighths, components: u64) -> u64 {
        let coefficients = if self.scans > 1 { 2 * components } else { 0 };
        let part = |side| (u64::from(side) * u64::from(eighths.0)).div_ceil(8);
        let pixels = part(width) * part(height) * (components + 3).max(6);
        u64::from(width) * u64::from(height) * coefficients + pixels
    }
}

/// Where the next segment begins: in compressed data 0xff is followed by 0 or a restart marker.
fn next_segment(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + reduced::position_of_ff(&bytes[from..])?;
        if !matches!(bytes.get(at + 1)?, 0 | 0xff | 0xd0..=0xd7) {
            return Some(at);
        }
        from = at + 1;
    }
}

/// Pillow's formula: four-component JPEGs are taken as inverted, as Adobe writes them, and no profile is applied.
fn rgb_from_inverted_cmyk([cyan, magenta, yellow, black]: [u8; 4]) -> [u8; 3] {
    let white = u32::from(black);
    [cyan, magenta, yellow].map(|inverted| {
        let product = u32::from(255 - inverted) * white + 128;
        let ink = ((product >> 8) + product) >> 8;
        white.saturating_sub(ink) as u8
    })
}

fn classify(message: &str) -> PictureError {
    let lower = message.to_ascii_lowercase();
    let reason = if lower.contains("maximum supported image dimension") {
        Reason::TooLarge
    } else if lower.contains("unsupported") || lower.contains("not implemented") || lower.contains("not compiled") {
        Reason::Unsupported
    } else {
        Reason::Corrupt
    };
    PictureError::new(reason, format!("JPEG: {message}"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
pub(super) mod tests {
    use super::*;
    use mozjpeg::Compress;

    /// Encodes samples of the given colour space; `progressive` as browsers show them in steps.
    pub(in crate::picture) fn encode(
        width: u32,
        height: u32,
        color: ColorSpace,
        samples: &[u8],
        progressive: bool,
    ) -> Vec<u8> {
        let mut encoder = Compress::new(color);
        encoder.set_size(width as usize, height as usize);
        encoder.set_quality(95.0);
        if progressive {
            encoder.set_progressive_mode();
        } else {
            encoder.set_fastest_defaults();
            encoder.set_quality(95.0);
        }
        let mut encoder = encoder.start_compress(Vec::new()).unwrap();
        encoder.write_scanlines(samples).unwrap();
        encoder.finish().unwrap()
    }

    pub(in crate::picture) fn gradient(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            image::Rgb([
                (x * 255 / width) as u8,
                (y * 255 / height) as u8,
                ((x + y) * 255 / (width + height)) as u8,
            ])
        })
    }

    #[test]
    fn a_picture_of_endless_scans_is_refused_and_what_follows_a_picture_is_not_counted() {
        let picture = gradient(64, 64);
        assert_eq!(
            Layout::of(&encode(64, 64, ColorSpace::JCS_RGB, &picture, false)).scans,
            1
        );
        let good = encode(64, 64, ColorSpace::JCS_RGB, &picture, true);
        let count = Layout::of(&good).scans;
        assert!((2..20).contains(&count), "{count}");
        // The last scan again and again before the end marker.
        let last = good.windows(2).rposition(|pair| pair == [0xff, 0xda]).unwrap();
        let (scan, end) = good[last..].split_at(good.len() - last - 2);
        let bomb = [&good[..last], &scan.repeat(MOST_SCANS), end].concat();
        assert_eq!(Layout::of(&bomb).scans, count - 1 + MOST_SCANS);
        assert_eq!(
            decode(&bomb, &Limits::default(), None).unwrap_err().reason,
            Reason::TooLarge
        );
        let with_film = [good.clone(), [0xff, 0xda].repeat(1000)].concat();
        assert!(decode(&with_film, &Limits::default(), None).is_ok());
        for length in 0..good.len() {
            assert!(Layout::of(&good[..length]).scans <= count);
        }
    }

    #[test]
    fn a_build_knows_whether_it_is_vectorised() {
        // One or the other: a file that can't be decoded would say nothing.
        let pixel = decode(TOO_BRIGHT, &Limits::default(), None)
            .unwrap()
            .pixels
            .get_pixel(7, 7)
            .0;
        assert_eq!(pixel, if is_vectorised() { [255; 3] } else { [0; 3] });
    }

    #[test]
    fn colours_survive() {
        let picture = gradient(48, 40);
        for progressive in [false, true] {
            let bytes = encode(48, 40, ColorSpace::JCS_RGB, &picture, progressive);
            let decoded = decode(&bytes, &Limits::default(), None).unwrap().pixels;
            let difference: u32 = decoded
                .iter()
                .zip(picture.iter())
                .map(|(a, b)| u32::from(a.abs_diff(*b)))
                .sum();
            // Quality 95 on a smooth picture: a few levels.
            assert!(
                difference < 3 * 48 * 40 * 3,
                "mean difference {}",
                f64::from(difference) / (48.0 * 40.0 * 3.0)
            );
        }
    }

    #[test]
    fn inverted_cmyk() {
        // Pillow 13: Image.new("CMYK", (1, 1), 255 - these).convert("RGB").
        assert_eq!(rgb_from_inverted_cmyk([255, 255, 255, 255]), [255, 255, 255]);
        assert_eq!(rgb_from_inverted_cmyk([0, 0, 0, 0]), [0, 0, 0]);
        assert_eq!(rgb_from_inverted_cmyk([0, 255, 255, 255]), [0, 255, 255]);
        assert_eq!(rgb_from_inverted_cmyk([255, 128, 0, 128]), [128, 64, 0]);
        assert_eq!(rgb_from_inverted_cmyk([200, 100, 50, 220]), [173, 86, 43]);
        let samples = [[200_u8, 100, 50, 220]; 64].concat();
        let bytes = encode(8, 8, ColorSpace::JCS_CMYK, &samples, false);
        let decoded = decode(&bytes, &Limits::default(), None).unwrap().pixels;
        let expected = rgb_from_inverted_cmyk([200, 100, 50, 220]);
        for pixel in decoded.pixels() {
            // A uniform block loses at most a level or two to quantisation.
            assert!(
                pixel.0.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 2),
                "{pixel:?} {expected:?}"
            );
        }
    }

    #[test]
    fn every_cut_is_truncated() {
        let picture = gradient(40, 33);
        for progressive in [false, true] {
            let bytes = encode(40, 33, ColorSpace::JCS_RGB, &picture, progressive);
            for end in (3..bytes.len() - 2).step_by(7) {
                let error = decode(&bytes[..end], &Limits::default(), None).unwrap_err();
                assert_eq!(error.reason, Reason::Truncated, "cut at {end}: {error}");
            }
            assert!(decode(&bytes, &Limits::default(), None).is_ok());
        }
    }

    fn accepted(bytes: &[u8]) -> Result<Picture, PictureError> {
        let limits = Limits {
            truncated: Truncated::Accept,
            ..Limits::default()
        };
        decode(bytes, &limits, None)
    }

    #[test]
    fn a_truncated_jpeg_keeps_its_rows_and_is_grey_below() {
        let picture = gradient(128, 128);
        let bytes = encode(128, 128, ColorSpace::JCS_RGB, &picture, false);
        let whole = accepted(&bytes).unwrap();
        assert_eq!(whole.completeness, Completeness::Whole);
        let partial = accepted(&bytes[..bytes.len() * 2 / 3]).unwrap();
        assert_eq!(partial.completeness, Completeness::Partial);
        let rows = |picture: &RgbImage| picture.chunks_exact(128 * 3).map(<[u8]>::to_vec).collect::<Vec<_>>();
        let (ours, all) = (rows(&partial.pixels), rows(&whole.pixels));
        let good = ours.iter().zip(&all).take_while(|(ours, all)| ours == all).count();
        assert!((32..112).contains(&good), "{good}");
        // No coefficient is all of a block at half the range (ITU T.81, A.3.1).
        assert!(ours[127].iter().all(|&value| value == 128), "{:?}", &ours[127][..6]);
        assert!(accepted(&bytes).unwrap().pixels == whole.pixels);
    }

    #[test]
    fn a_truncated_progressive_jpeg_is_coarse_and_a_segment_that_is_cut_off_is_left_out() {
        let picture = gradient(128, 128);
        let bytes = encode(128, 128, ColorSpace::JCS_RGB, &picture, true);
        let whole = decode(&bytes, &Limits::default(), None).unwrap().pixels;
        let scans: Vec<usize> = (0..bytes.len() - 1)
            .filter(|&at| bytes[at..at + 2] == [0xff, 0xda])
            .collect();
        for &scan in &scans[1..] {
            // Behind the marker, in the scan's header, and in its data.
            for end in [scan + 2, scan + 5, scan + 14] {
                let partial = accepted(&bytes[..end]).unwrap();
                assert_eq!(partial.completeness, Completeness::Partial);
                let difference: u64 = partial
                    .pixels
                    .iter()
                    .zip(whole.iter())
                    .map(|(a, b)| u64::from(a.abs_diff(*b)))
                    .sum();
                // A scan of means alone misses the slopes inside of blocks of 16: a few levels.
                let mean = difference as f64 / (128.0 * 128.0 * 3.0);
                assert!(mean < 12.0, "cut at {end}: {mean}");
            }
        }
        assert_eq!(Layout::of(&bytes[..scans[1] + 5]).end, scans[1]);
    }

    #[test]
    fn a_truncated_jpeg_without_a_row_stays_truncated() {
        let picture = gradient(128, 128);
        for progressive in [false, true] {
            let bytes = encode(128, 128, ColorSpace::JCS_RGB, &picture, progressive);
            let scan = bytes.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
            let data = scan + 2 + usize::from(u16::from_be_bytes([bytes[scan + 2], bytes[scan + 3]]));
            for end in [3, 20, scan, scan + 2, data] {
                let error = accepted(&bytes[..end]).unwrap_err();
                assert_eq!(error.reason, Reason::Truncated, "cut at {end}");
            }
        }
    }

    #[test]
    fn ycck_is_inverted_cmyk_after_its_colour_transform() {
        let samples = [[200_u8, 100, 50, 220]; 64].concat();
        let mut encoder = Compress::new(ColorSpace::JCS_CMYK);
        encoder.set_size(8, 8);
        encoder.set_quality(100.0);
        encoder.set_color_space(ColorSpace::JCS_YCCK);
        let mut encoder = encoder.start_compress(Vec::new()).unwrap();
        encoder.write_scanlines(&samples).unwrap();
        let bytes = encoder.finish().unwrap();
        // Adobe's segment, whose last byte is the transform: 2 is YCCK.
        let adobe = bytes.windows(5).position(|name| name == b"Adobe").unwrap();
        assert_eq!(bytes[adobe + 11], 2);
        // Pillow 13: Image.new("CMYK", (1, 1), (55, 155, 205, 35)).convert("RGB").
        for pixel in decode(&bytes, &Limits::default(), None).unwrap().pixels.pixels() {
            assert!(
                pixel.0.iter().zip([173, 86, 43]).all(|(a, b)| a.abs_diff(b) <= 3),
                "{pixel:?}"
            );
        }
    }

    #[test]
    fn bytes_after_the_end_are_passed_over() {
        let picture = gradient(40, 33);
        let bytes = encode(40, 33, ColorSpace::JCS_RGB, &picture, false);
        let plain = decode(&bytes, &Limits::default(), None).unwrap().pixels;
        let trailed = [&bytes[..], b"\0\0junk"].concat();
        assert_eq!(decode(&trailed, &Limits::default(), None).unwrap().pixels, plain);
    }

    #[test]
    fn header_decides_the_size() {
        let mut bytes = encode(16, 16, ColorSpace::JCS_GRAYSCALE, &[90; 256], false);
        let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        bytes[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xdc, 0xff, 0xdc]);
        assert_eq!(
            decode(&bytes, &Limits::default(), None).unwrap_err().reason,
            Reason::TooLarge
        );
    }
}
