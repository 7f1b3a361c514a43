//! Any decoded picture to 8-bit RGB, as Pillow's `convert("RGB")` does it.
//!
//! Alpha is dropped, not blended. Sixteen bits of colour, or of grey with alpha, lose their low byte; sixteen bits of
//! grey alone are clipped at 255 (Pillow keeps them in a mode that clips), unreasonable as that looks.

use image::{DynamicImage, RgbImage};

use super::{PictureError, Reason};

/// Whether grey with alpha comes from a file of grey alone, whose transparency is one grey value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GreyAlpha {
    /// The file stores an alpha channel.
    Stored,
    /// The decoder made the channel from a transparent value (PNG `tRNS`).
    Made,
}

/// Converts to RGB.
pub(super) fn to_rgb(picture: DynamicImage, grey_alpha: GreyAlpha) -> Result<RgbImage, PictureError> {
    let (width, height) = (picture.width(), picture.height());
    let high = |value: u16| (value >> 8) as u8;
    let clipped = |value: u16| value.min(255) as u8;
    let rgb = match picture {
        DynamicImage::ImageRgb8(picture) => return Ok(picture),
        DynamicImage::ImageLuma8(picture) => rgb_bytes(picture.pixels(), |pixel| [pixel.0[0]; 3]),
        DynamicImage::ImageLumaA8(picture) => rgb_bytes(picture.pixels(), |pixel| [pixel.0[0]; 3]),
        DynamicImage::ImageRgba8(picture) => rgb_bytes(picture.pixels(), |pixel| [pixel.0[0], pixel.0[1], pixel.0[2]]),
        DynamicImage::ImageLuma16(picture) => rgb_bytes(picture.pixels(), |pixel| [clipped(pixel.0[0]); 3]),
        DynamicImage::ImageLumaA16(picture) => {
            let grey = |value| {
                if grey_alpha == GreyAlpha::Made {
                    clipped(value)
                } else {
                    high(value)
                }
            };
            rgb_bytes(picture.pixels(), |pixel| [grey(pixel.0[0]); 3])
        }
        DynamicImage::ImageRgb16(picture) => rgb_bytes(picture.pixels(), |pixel| pixel.0.map(high)),
        DynamicImage::ImageRgba16(picture) => rgb_bytes(picture.pixels(), |pixel| {
            [high(pixel.0[0]), high(pixel.0[1]), high(pixel.0[2])]
        }),
        other => {
            return Err(PictureError::new(
                Reason::Unsupported,
                format!("pixels of type {:?}", other.color()),
            ));
        }
    };
    Ok(RgbImage::from_raw(width, height, rgb).expect("three bytes were made of each pixel"))
}

/// The bytes of an RGB picture made pixel by pixel.
pub(super) fn rgb_bytes<P>(pixels: impl ExactSizeIterator<Item = P>, to_rgb: impl Fn(P) -> [u8; 3]) -> Vec<u8> {
    let mut bytes = vec![0; pixels.len() * 3];
    for (output, pixel) in bytes.as_chunks_mut().0.iter_mut().zip(pixels) {
        *output = to_rgb(pixel);
    }
    bytes
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use image::{ImageBuffer, Luma, LumaA, Rgba};

    use super::*;

    #[test]
    fn as_pillow_converts() {
        let one = |picture: DynamicImage, kind| to_rgb(picture, kind).unwrap().get_pixel(0, 0).0;
        let stored = GreyAlpha::Stored;
        let grey16 = |value: u16| ImageBuffer::from_pixel(1, 1, Luma([value])).into();
        assert_eq!(one(grey16(100), stored), [100; 3]);
        assert_eq!(one(grey16(300), stored), [255; 3]);
        let grey_alpha = || ImageBuffer::from_pixel(1, 1, LumaA([0x1234_u16, 0])).into();
        assert_eq!(one(grey_alpha(), stored), [0x12; 3]);
        assert_eq!(one(grey_alpha(), GreyAlpha::Made), [255; 3]);
        let colour = ImageBuffer::from_pixel(1, 1, Rgba([0x12ff_u16, 0x00ff, 0xffff, 0])).into();
        assert_eq!(one(colour, stored), [0x12, 0, 255]);
        assert_eq!(
            one(ImageBuffer::from_pixel(1, 1, Rgba([9_u8, 8, 7, 0])).into(), stored),
            [9, 8, 7]
        );
        assert!(to_rgb(DynamicImage::new_rgb32f(1, 1), stored).is_err());
    }
}
