//! File bytes to an upright 8-bit RGB picture, at full size or, where that is wanted, a JPEG at a part of it.
//!
//! The format is found in the content. JPEG has its own decoder (see `jpeg.rs`); the others go through the `image`
//! crate. Of an animation the first frame counts. Colour profiles are not applied, as in torchvision.

use std::error::Error;
use std::io::{self, Cursor};

use image::error::{ImageError, LimitErrorKind};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, RgbImage};

use super::convert::{GreyAlpha, to_rgb};
use super::resize::Line;
use super::room::Room;
use super::sniff::{Format, sniff};
use super::{Completeness, Exif, Limits, PictureError, Reason, Truncated, directory, exif, jpeg, mend, orient};
use crate::quiet;

/// A decoded picture.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) pixels: RgbImage,
    /// Width and height that the file states, upright as `pixels` are.
    pub(super) size: (u32, u32),
    /// Eighths of that size that were decoded; a last pixel may be one in part.
    pub(super) eighths: Eighths,
    /// Whether such a last pixel is the first, for x and y.
    pub(super) mirrored: (bool, bool),
    pub(super) completeness: Completeness,
    /// Kept as long as the pixels.
    pub(super) _room: Room,
}

impl Picture {
    /// A picture at full size.
    pub(super) fn whole(pixels: RgbImage, completeness: Completeness, room: Room) -> Self {
        Self {
            size: pixels.dimensions(),
            pixels,
            eighths: Eighths::FULL,
            mirrored: (false, false),
            completeness,
            _room: room,
        }
    }

    /// Its lines across and down, as they are resized.
    pub(super) fn lines(&self) -> (Line, Line) {
        let line = |pixels: u32, full: u32, mirrored: bool| {
            let length = self.eighths.length(full);
            let outside = f64::from(pixels) - length;
            Line {
                pixels,
                length,
                start: if mirrored { outside } else { 0.0 },
            }
        };
        let (width, height) = self.pixels.dimensions();
        (
            line(width, self.size.0, self.mirrored.0),
            line(height, self.size.1, self.mirrored.1),
        )
    }
}

/// The size at which a JPEG is decoded, in eighths of its own: 1, 2, 4, or 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Eighths(pub(super) u8);

impl Eighths {
    pub(super) const FULL: Self = Self(8);

    /// The smallest size at which the shorter side of `width` × `height` is at least so long.
    pub(super) fn of(width: u32, height: u32, shortest: u64) -> Self {
        let side = u64::from(width.min(height));
        let fits = |eighths: &u8| side * u64::from(*eighths) >= shortest.saturating_mul(8);
        [1, 2, 4].into_iter().find(fits).map_or(Self::FULL, Self)
    }

    /// A length at this size, the last pixel of which may be one in part.
    pub(super) fn length(self, full: u32) -> f64 {
        f64::from(full) * f64::from(self.0) / 8.0
    }
}

/// Decodes, converts to RGB, and turns upright if `rule` says so. The shorter side of a JPEG may be any that is not less than
/// `shortest`.
pub(super) fn decode(
    bytes: &[u8],
    rule: Exif,
    limits: &Limits,
    shortest: Option<u64>,
) -> Result<Picture, PictureError> {
    limits.check_file(bytes.len() as u64)?;
    let format = sniff(bytes)?;
    let (decoded, own_orientation) = match format.of_image_crate() {
        None => (jpeg::decode(bytes, limits, shortest)?, None),
        Some(of_image_crate) => mended(bytes, of_image_crate, format, limits)?,
    };
    let orientation = match rule {
        _ if own_orientation.is_some() => own_orientation,
        Exif::Apply => exif::orientation(bytes, format),
        Exif::Ignore => None,
    };
    let orientation = orientation.unwrap_or(1);
    let (width, height) = decoded.size;
    Ok(Picture {
        pixels: orient::upright(decoded.pixels, orientation),
        size: if orient::is_turned(orientation) {
            (height, width)
        } else {
            (width, height)
        },
        mirrored: orient::is_mirrored(orientation),
        ..decoded
    })
}

/// As [`by_image_crate`], of a file completed where that helps.
fn mended(
    bytes: &[u8],
    of_image_crate: image::ImageFormat,
    format: Format,
    limits: &Limits,
) -> Result<(Picture, Option<u16>), PictureError> {
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
) -> Result<(Picture, Option<u16>), PictureError> {
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
    let pixels = to_rgb(picture, grey_alpha(bytes, format))?;
    Ok((Picture::whole(pixels, Completeness::Whole, room), orientation))
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
