//! The feature space's recipe from file bytes to numbers: torchvision's validation transform.

use std::ops::Range;

use image::RgbImage;
use serde::{Deserialize, Serialize};

use super::decode::{Picture, decode};
use super::resize::{Window, resize_lines};
use super::{Completeness, Decode, Exif, Limits, PictureError, RandomCrop};

/// How a picture becomes a tensor: decode, turn upright, shorter side to a length, cut the centre, normalise.
///
/// Everything that changes a number is a field here or in [`decoder`](super::decoder()); fields serialise in this order.
/// Default: torchvision's ImageNet validation transform, with EXIF orientation applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transform {
    /// What becomes of EXIF orientation. Default: [`Exif::Apply`].
    pub exif: Exif,
    /// Length of the shorter side after resizing, in pixels. Default: 256.
    pub resize_shorter_side: u32,
    /// Side of the square cut from the centre, in pixels; a picture that is smaller gets black borders. Default: 224.
    pub crop: u32,
    /// Subtracted from each of R, G, B in 0..=1. Default: `[0.485, 0.456, 0.406]`.
    pub mean: [f32; 3],
    /// Divides each of R, G, B after that. Default: `[0.229, 0.224, 0.225]`.
    pub std: [f32; 3],
    /// How much of a large picture is decoded, for all but random views. Default: [`Decode::Exact`].
    #[serde(default, skip_serializing_if = "Decode::is_exact")]
    pub decode: Decode,
}

impl Default for Transform {
    fn default() -> Self {
        Self {
            exif: Exif::Apply,
            resize_shorter_side: 256,
            crop: 224,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
            decode: Decode::Exact,
        }
    }
}

/// How many times as long as it will be resized the shorter side of a reduced picture is at least.
const SPARE: u64 = 2;

/// The views that a picture is decoded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The one that [`Transform::load`] gives.
    Plain,
    /// Random parts.
    Random,
    /// Both.
    PlainAndRandom,
}

/// What views of a picture are made of.
#[derive(Debug)]
pub(crate) struct Decoded {
    size: (u32, u32),
    pub(crate) completeness: Completeness,
    /// The pixels of the plain view.
    plain: Option<RgbImage>,
    whole: Option<Picture>,
}

impl Decoded {
    /// Width and height of the whole picture.
    pub(crate) fn dimensions(&self) -> (u32, u32) {
        self.size
    }
}

impl Transform {
    /// The default for a backbone whose input is `size` × `size`: the shorter side keeps the ratio 256 : 224.
    #[must_use]
    pub fn for_input(size: u32) -> Self {
        let resize = (u64::from(size) * 256 + 112) / 224;
        Self {
            resize_shorter_side: u32::try_from(resize).unwrap_or(u32::MAX),
            crop: size,
            ..Self::default()
        }
    }

    /// Number of values that [`load`](Self::load) writes: `3 * crop * crop`.
    #[must_use]
    pub fn tensor_len(&self) -> usize {
        3 * self.crop as usize * self.crop as usize
    }

    /// Decodes a picture file and writes its tensor, `[3, crop, crop]` in the order R, G, B, to `out`.
    ///
    /// Returns whether the picture was whole; it always is unless `limits` accept truncated ones.
    ///
    /// # Errors
    /// What is wrong with the picture; `out` then keeps what it held.
    ///
    /// # Panics
    /// If `out` is not [`tensor_len`](Self::tensor_len) long.
    pub fn load(&self, bytes: &[u8], limits: &Limits, out: &mut [f32]) -> Result<Completeness, PictureError> {
        assert_eq!(out.len(), self.tensor_len(), "the tensor is [3, crop, crop]");
        let (picture, completeness) = self.pixels(bytes, limits)?;
        self.normalise(&picture, out);
        Ok(completeness)
    }

    /// Decodes a picture file, once for all its views; twice where the plain one is made of a reduced picture
    /// ([`Decode::Fast`]) and there are random ones, which always are parts of the whole picture.
    pub(crate) fn decode(&self, bytes: &[u8], limits: &Limits, wanted: Wanted) -> Result<Decoded, PictureError> {
        if wanted == Wanted::Plain {
            return self.decode_plain(bytes, limits);
        }
        // That picture and its room are gone before the next one: a thread never waits for room while it has some.
        let reduced = match (wanted, self.decode) {
            (Wanted::PlainAndRandom, Decode::Fast) => self.decode_plain(bytes, limits)?.plain,
            _ => None,
        };
        let picture = decode(bytes, self.exif, limits, None)?;
        let plain = match wanted {
            Wanted::Random => None,
            _ => Some(reduced.unwrap_or_else(|| self.crop_of(&picture))),
        };
        Ok(Decoded {
            size: picture.size,
            completeness: picture.completeness,
            plain,
            whole: Some(picture),
        })
    }

    fn decode_plain(&self, bytes: &[u8], limits: &Limits) -> Result<Decoded, PictureError> {
        let shortest = match self.decode {
            Decode::Exact => None,
            Decode::Fast => Some(SPARE * u64::from(self.resize_shorter_side)),
        };
        let picture = decode(bytes, self.exif, limits, shortest)?;
        Ok(Decoded {
            size: picture.size,
            completeness: picture.completeness,
            plain: Some(self.crop_of(&picture)),
            whole: None,
        })
    }

    /// The tensor of a view of a picture, `[3, crop, crop]`: of a random part of it, or what [`load`](Self::load) gives.
    ///
    /// # Panics
    /// If it was decoded for other views.
    pub(crate) fn tensor(&self, picture: &Decoded, random: Option<&RandomCrop>) -> Vec<f32> {
        let mut tensor = vec![0.0; self.tensor_len()];
        match random {
            None => {
                let plain = picture.plain.as_ref().expect("it was decoded for the plain view");
                self.normalise(plain, &mut tensor);
            }
            Some(random) => {
                let whole = picture.whole.as_ref().expect("it was decoded for random views");
                self.normalise(&random.pixels(&whole.pixels, self.crop), &mut tensor);
            }
        }
        tensor
    }

    /// Decodes a picture file and returns the `crop` × `crop` pixels that [`load`](Self::load) normalises, and
    /// whether the picture was whole.
    ///
    /// # Errors
    /// What is wrong with the picture.
    pub fn pixels(&self, bytes: &[u8], limits: &Limits) -> Result<(RgbImage, Completeness), PictureError> {
        let decoded = self.decode_plain(bytes, limits)?;
        let plain = decoded.plain.expect("it was decoded for the plain view");
        Ok((plain, decoded.completeness))
    }

    /// The centre of the resized `picture`; only its pixels are computed.
    fn crop_of(&self, picture: &Picture) -> RgbImage {
        let (width, height) = picture.size;
        let (width, height) = resized(width, height, self.resize_shorter_side);
        let (x, left) = centre(width, self.crop);
        let (y, top) = centre(height, self.crop);
        let part = resize_lines(&picture.pixels, picture.lines(), (width, height), &Window { x, y });
        if part.dimensions() == (self.crop, self.crop) {
            return part;
        }
        let mut padded = RgbImage::new(self.crop, self.crop);
        image::imageops::replace(&mut padded, &part, i64::from(left), i64::from(top));
        padded
    }

    /// Every value is `(pixel / 255 - mean) / std` in f32, in this order of operations.
    fn normalise(&self, picture: &RgbImage, out: &mut [f32]) {
        let (pixels, _) = picture.as_raw().as_chunks::<3>();
        for (channel, plane) in out.chunks_exact_mut(pixels.len().max(1)).enumerate() {
            let (mean, std) = (self.mean[channel], self.std[channel]);
            let table: [f32; 256] = std::array::from_fn(|value| (value as f32 / 255.0 - mean) / std);
            for (value, pixel) in plane.iter_mut().zip(pixels) {
                *value = table[usize::from(pixel[channel])];
            }
        }
    }
}

/// Size after resizing: the longer side is truncated, not rounded.
fn resized(width: u32, height: u32, shorter_side: u32) -> (u64, u64) {
    let (width, height, side) = (u64::from(width), u64::from(height), u64::from(shorter_side));
    if width <= height {
        (side, side * height / width)
    } else {
        (side * width / height, side)
    }
}

/// The part of a line of `length` that a centred cut of `crop` takes, and how much of the cut lies before it.
fn centre(length: u64, crop: u32) -> (Range<u64>, u32) {
    let wanted = u64::from(crop);
    if length < wanted {
        return (0..length, ((wanted - length) / 2) as u32);
    }
    // Python's round: a half goes to the even neighbour.
    let spare = length - wanted;
    let half = spare / 2;
    let start = half + (spare % 2) * (half % 2);
    (start..start + wanted, 0)
}

#[cfg(test)]
#[path = "fast_tests.rs"]
#[expect(clippy::unwrap_used, reason = "tests")]
mod fast_tests;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::Room;
    use super::*;

    #[test]
    fn sizes_of_torchvision() {
        assert_eq!(resized(500, 375, 256), (341, 256));
        assert_eq!(resized(375, 500, 256), (256, 341));
        assert_eq!(resized(300, 300, 256), (256, 256));
        assert_eq!(resized(60_000, 1, 256), (15_360_000, 256));
    }

    #[test]
    fn centre_rounds_half_to_even() {
        // Python: int(round((n - 224) / 2.0)) for n = 224, 225, 227, 229, 341.
        let starts = [224, 225, 227, 229, 341].map(|length| centre(length, 224).0.start);
        assert_eq!(starts, [0, 0, 2, 2, 58]);
        assert_eq!(centre(219, 224), (0..219, 2));
    }

    #[test]
    fn for_input_keeps_the_ratio() {
        assert_eq!(Transform::for_input(224), Transform::default());
        assert_eq!(Transform::for_input(299).resize_shorter_side, 342);
        assert_eq!(Transform::for_input(384).resize_shorter_side, 439);
    }

    #[test]
    fn serialises_in_one_way() {
        let json = serde_json::to_string(&Transform::default()).unwrap();
        assert_eq!(
            json,
            r#"{"exif":"apply","resize_shorter_side":256,"crop":224,"mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225]}"#
        );
        assert_eq!(serde_json::from_str::<Transform>(&json).unwrap(), Transform::default());
        let fast = Transform {
            decode: Decode::Fast,
            ..Transform::default()
        };
        let json = json.replace('}', r#","decode":"fast"}"#);
        assert_eq!(serde_json::to_string(&fast).unwrap(), json);
        assert_eq!(serde_json::from_str::<Transform>(&json).unwrap(), fast);
    }

    #[test]
    fn normalised_values_of_torch() {
        let transform = Transform {
            crop: 1,
            ..Transform::default()
        };
        let mut out = [0.0; 3];
        transform.normalise(&RgbImage::from_pixel(1, 1, image::Rgb([0, 128, 255])), &mut out);
        // NumPy in float32; the tolerance is a few units in the last place.
        for (value, expected) in out.into_iter().zip([-2.117_904, 0.205_182_2, 2.64]) {
            assert!((value - expected).abs() < 1e-6_f32, "{value} {expected}");
        }
    }

    #[test]
    fn a_small_picture_gets_borders() {
        let transform = Transform {
            resize_shorter_side: 4,
            crop: 6,
            ..Transform::default()
        };
        let out = transform.crop_of(&Picture::whole(
            RgbImage::from_pixel(2, 2, image::Rgb([9, 9, 9])),
            Completeness::Whole,
            Room::of_file(1),
        ));
        let inside = out.enumerate_pixels().filter(|(_, _, pixel)| pixel.0 == [9; 3]).count();
        assert_eq!(
            (inside, out.get_pixel(0, 0).0, out.get_pixel(1, 1).0),
            (16, [0; 3], [9; 3])
        );
    }
}
