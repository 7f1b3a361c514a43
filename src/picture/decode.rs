//! File bytes to an upright 8-bit RGB picture at full size.
//!
//! The format is found in the content. JPEG has its own decoder (see `jpeg.rs`); the others go through the `image`
//! crate. Of an animation the first frame counts. Colour profiles are not applied, as in torchvision.

use std::error::Error;
use std::io::{self, Cursor};

use image::error::{ImageError, LimitErrorKind};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, RgbImage};

use super::convert::{GreyAlpha, to_rgb};
use super::room::Room;
use super::sniff::{Format, sniff};
use super::{Completeness, Exif, Limits, PictureError, Reason, Truncated, exif, jpeg, mend, orient, quiet};

/// A picture at full size.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) picture: RgbImage,
    pub(super) completeness: Completeness,
    /// Kept as long as the picture.
    pub(super) _room: Room,
}

/// Decodes, converts to RGB, and turns upright if `rule` says so.
pub(super) fn decode(bytes: &[u8], rule: Exif, limits: &Limits) -> Result<Decoded, PictureError> {
    limits.check_file(bytes.len() as u64)?;
    let format = sniff(bytes)?;
    let (decoded, own_orientation) = match format.of_image_crate() {
        None => (jpeg::decode(bytes, limits)?, None),
        Some(of_image_crate) => mended(bytes, of_image_crate, format, limits)?,
    };
    let orientation = match rule {
        _ if own_orientation.is_some() => own_orientation,
        Exif::Apply => exif::orientation(bytes, format),
        Exif::Ignore => None,
    };
    Ok(Decoded {
        picture: orient::upright(decoded.picture, orientation.unwrap_or(1)),
        ..decoded
    })
}

/// As [`by_image_crate`], of a file completed where that helps.
fn mended(
    bytes: &[u8],
    of_image_crate: image::ImageFormat,
    format: Format,
    limits: &Limits,
) -> Result<(Decoded, Option<u16>), PictureError> {
    let run = |bytes: &[u8]| {
        quiet::run(|| by_image_crate(bytes, of_image_crate, format, limits)).unwrap_or_else(|panic| {
            Err(PictureError::new(
                Reason::Corrupt,
                format!("{}: {panic}", format.name()),
            ))
        })
    };
    match (format, run(bytes)) {
        (Format::Png, Err(error)) if error.reason == Reason::Truncated && limits.truncated == Truncated::Accept => {
            let Some(mended) = mend::png(bytes) else {
                return Err(error);
            };
            let (mut decoded, orientation) = run(&mended).map_err(|_| error)?;
            decoded.completeness = Completeness::Partial;
            Ok((decoded, orientation))
        }
        (Format::Gif, Err(error)) if error.reason == Reason::Corrupt => match mend::gif(bytes) {
            Some(mended) => run(&mended),
            None => Err(error),
        },
        (_, result) => result,
    }
}

/// The picture, and an orientation that belongs to the format itself (TIFF).
fn by_image_crate(
    bytes: &[u8],
    of_image_crate: image::ImageFormat,
    format: Format,
    limits: &Limits,
) -> Result<(Decoded, Option<u16>), PictureError> {
    let failed = |source: ImageError| classify(&source, format);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), of_image_crate);
    let mut bounds = image::Limits::no_limits();
    bounds.max_alloc = Some(limits.max_bytes());
    reader.limits(bounds);

    let mut decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    limits.check(width, height)?;
    // `from_decoder` allocates this much without asking the limits.
    if decoder.total_bytes() > limits.max_bytes() {
        return Err(PictureError::new(
            Reason::TooLarge,
            format!("{width}x{height} takes {} bytes", decoder.total_bytes()),
        ));
    }
    let stored = u64::from(decoder.color_type().bytes_per_pixel());
    // These decode into the picture itself, the others into a copy as large.
    let copies = if matches!(format, Format::Png | Format::Bmp) {
        1
    } else {
        2
    };
    // Once converted it is RGB, and twice while it is turned upright.
    let room = Room::of_pixels(width, height, (stored * copies + 3).max(6));
    let orientation = match format {
        Format::Tiff => Some(u16::from(
            decoder.orientation().unwrap_or(Orientation::NoTransforms).to_exif(),
        )),
        _ => None,
    };
    let picture = DynamicImage::from_decoder(decoder).map_err(failed)?;
    if format == Format::Png && !exif::png_chunks(bytes).any(|(kind, _)| kind == b"IEND") {
        return Err(PictureError::new(Reason::Truncated, "the PNG has no end chunk"));
    }
    let decoded = Decoded {
        picture: to_rgb(picture, grey_alpha(bytes, format))?,
        completeness: Completeness::Whole,
        _room: room,
    };
    Ok((decoded, orientation))
}

fn grey_alpha(bytes: &[u8], format: Format) -> GreyAlpha {
    const COLOUR_TYPE: usize = 25;
    if format == Format::Png && bytes.get(COLOUR_TYPE) == Some(&0) {
        GreyAlpha::Made
    } else {
        GreyAlpha::Stored
    }
}

fn classify(error: &ImageError, format: Format) -> PictureError {
    let reason = match error {
        ImageError::Limits(limit) => match limit.kind() {
            LimitErrorKind::DimensionError | LimitErrorKind::InsufficientMemory => Reason::TooLarge,
            _ => Reason::Unsupported,
        },
        ImageError::Unsupported(_) => Reason::Unsupported,
        _ if ends_early(error) => Reason::Truncated,
        // The BMP decoder has a limit of its own.
        ImageError::Decoding(_) if error.to_string().contains("too large") => Reason::TooLarge,
        _ => Reason::Corrupt,
    };
    let message = error.to_string();
    // Some decoders say it in several lines.
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    PictureError::new(reason, format!("{}: {message}", format.name()))
}

fn ends_early(error: &ImageError) -> bool {
    let at_end = |source: &io::Error| source.kind() == io::ErrorKind::UnexpectedEof;
    if let ImageError::IoError(source) = error {
        return at_end(source);
    }
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(current) = cause {
        // The GIF decoder has only words for it.
        if current.downcast_ref().is_some_and(at_end) || current.to_string().ends_with("Unexpected End of File") {
            return true;
        }
        cause = current.source();
    }
    false
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io::Write;

    use image::{ImageFormat, Rgb};
    use mozjpeg::ColorSpace;

    use super::super::exif::tests::block;
    use super::super::jpeg::tests::{encode, gradient};
    use super::*;

    fn decoded(bytes: &[u8]) -> Result<RgbImage, PictureError> {
        decode(bytes, Exif::Apply, &Limits::default()).map(|decoded| decoded.picture)
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
                    decode(&marked, Exif::Ignore, &Limits::default()).unwrap().picture,
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

    #[test]
    fn pngs_of_every_kind() {
        let pixel = |bytes: Vec<u8>| decoded(&bytes).unwrap().get_pixel(1, 0).0;
        let palette = chunk(b"PLTE", &[1, 2, 3, 40, 50, 60]);
        assert_eq!(
            pixel(png((2, 1), 8, 3, std::slice::from_ref(&palette), &[&[0, 1]])),
            [40, 50, 60]
        );
        let transparent = chunk(b"tRNS", &[255, 0]);
        assert_eq!(
            pixel(png((2, 1), 8, 3, &[palette, transparent], &[&[0, 1]])),
            [40, 50, 60]
        );
        assert_eq!(pixel(png((2, 1), 1, 0, &[], &[&[0b0100_0000]])), [255; 3]);
        assert_eq!(pixel(png((2, 1), 2, 0, &[], &[&[0b0001_0000]])), [85; 3]);
        assert_eq!(pixel(png((2, 1), 8, 4, &[], &[&[0, 0, 77, 0]])), [77; 3]);
        assert_eq!(pixel(png((2, 1), 8, 6, &[], &[&[0, 0, 0, 0, 5, 6, 7, 0]])), [5, 6, 7]);
        // Pillow clips sixteen bits of grey, and takes the high byte of everything else.
        assert_eq!(pixel(png((2, 1), 16, 0, &[], &[&[0, 0, 0, 200]])), [200; 3]);
        assert_eq!(pixel(png((2, 1), 16, 0, &[], &[&[0, 0, 1, 0]])), [255; 3]);
        assert_eq!(
            pixel(png((2, 1), 16, 0, &[chunk(b"tRNS", &[1, 0])], &[&[0, 0, 1, 0]])),
            [255; 3]
        );
        assert_eq!(pixel(png((2, 1), 16, 4, &[], &[&[0, 0, 0, 0, 9, 255, 0, 0]])), [9; 3]);
        assert_eq!(
            pixel(png((2, 1), 16, 2, &[], &[&[0, 0, 0, 0, 0, 0, 9, 255, 8, 0, 7, 128]])),
            [9, 8, 7]
        );
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
        )
        .unwrap_err();
        assert_eq!(error.reason, Reason::TooLarge);
        let exact = Limits {
            max_pixels: 40 * 33,
            ..Limits::default()
        };
        assert!(decode(&picture, Exif::Apply, &exact).is_ok());
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
                if let Ok(Decoded { picture: decoded, .. }) = decode(&bytes, Exif::Apply, &limits) {
                    assert!(decoded.width() > 0 && decoded.height() > 0);
                }
            }
        }
    }
}
