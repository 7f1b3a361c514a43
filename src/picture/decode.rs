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
use super::{Completeness, Exif, Limits, PictureError, Reason, Truncated, directory, exif, jpeg, mend, orient};
use crate::quiet;

/// A picture at full size.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(super) picture: RgbImage,
    pub(crate) completeness: Completeness,
    /// Kept as long as the picture.
    pub(super) _room: Room,
}

impl Decoded {
    /// Width and height.
    pub(crate) fn dimensions(&self) -> (u32, u32) {
        self.picture.dimensions()
    }
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
    if format == Format::Tiff && directory::claims_too_much(bytes) {
        let detail = "TIFF: the file ends before what its directory lists";
        return Err(PictureError::new(Reason::Truncated, detail));
    }
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
        // The decoders of BMP and PNM have limits of their own.
        ImageError::Decoding(_) | ImageError::Unsupported(_) if error.to_string().contains("too large") => {
            Reason::TooLarge
        }
        ImageError::Unsupported(_) => Reason::Unsupported,
        _ if ends_early(error) => Reason::Truncated,
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
#[path = "decode_tests.rs"]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
