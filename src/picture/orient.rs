//! Turns pictures by their EXIF orientation, as Pillow's `exif_transpose` does.

use image::RgbImage;

/// The side of the square that is turned at a time, so that both pictures' rows stay in the cache.
const TILE: usize = 32;

/// Turns `picture` as stored upright; `orientation` is the EXIF value, anything but 2..=8 leaves it as it is.
pub(super) fn upright(picture: RgbImage, orientation: u16) -> RgbImage {
    let (width, height) = picture.dimensions();
    match orientation {
        2..=4 => {
            let mut bytes = picture.into_raw();
            let (pixels, _) = bytes.as_chunks_mut::<3>();
            match orientation {
                2 => pixels.chunks_exact_mut(width as usize).for_each(<[[u8; 3]]>::reverse),
                3 => pixels.reverse(),
                _ => flip_rows(pixels, width as usize),
            }
            RgbImage::from_raw(width, height, bytes).expect("as many bytes as before")
        }
        5 => transposed(&picture, false, false),
        6 => transposed(&picture, true, false),
        7 => transposed(&picture, true, true),
        8 => transposed(&picture, false, true),
        _ => picture,
    }
}

/// Whether x and y change places.
pub(super) fn is_turned(orientation: u16) -> bool {
    matches!(orientation, 5..=8)
}

/// Whether an upright x, and y, begin at the end of what is stored.
pub(super) fn is_mirrored(orientation: u16) -> (bool, bool) {
    (
        matches!(orientation, 2 | 3 | 6 | 7),
        matches!(orientation, 3 | 4 | 7 | 8),
    )
}

fn flip_rows(pixels: &mut [[u8; 3]], width: usize) {
    let height = pixels.len() / width;
    let (top, bottom) = pixels.split_at_mut(height.div_ceil(2) * width);
    for (upper, lower) in top.chunks_exact_mut(width).zip(bottom.chunks_exact_mut(width).rev()) {
        upper.swap_with_slice(lower);
    }
}

/// Rows become columns; `from_bottom` and `from_right` say at which end of the source the output's x and y start.
fn transposed(picture: &RgbImage, from_bottom: bool, from_right: bool) -> RgbImage {
    let (source_width, source_height) = (picture.width() as usize, picture.height() as usize);
    let (source, _) = picture.as_raw().as_chunks::<3>();
    let mut bytes = vec![0; source.len() * 3];
    let (output, _) = bytes.as_chunks_mut::<3>();
    for tile_y in (0..source_width).step_by(TILE) {
        for tile_x in (0..source_height).step_by(TILE) {
            for y in tile_y..(tile_y + TILE).min(source_width) {
                let column = if from_right { source_width - 1 - y } else { y };
                for x in tile_x..(tile_x + TILE).min(source_height) {
                    let row = if from_bottom { source_height - 1 - x } else { x };
                    output[y * source_height + x] = source[row * source_width + column];
                }
            }
        }
    }
    RgbImage::from_raw(picture.height(), picture.width(), bytes).expect("as many pixels as before")
}

#[cfg(test)]
mod tests {
    use image::Rgb;
    use image::imageops::{flip_horizontal, flip_vertical, rotate90, rotate180, rotate270};

    use super::*;

    #[test]
    fn each_orientation_equals_the_image_crates() {
        for (width, height) in [(5, 3), (70, 33), (1, 4), (4, 1), (3, 4)] {
            let stored = RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, (x * 7 + y * 3) as u8]));
            let expected = [
                stored.clone(),
                stored.clone(),
                flip_horizontal(&stored),
                rotate180(&stored),
                flip_vertical(&stored),
                flip_horizontal(&rotate90(&stored)),
                rotate90(&stored),
                flip_horizontal(&rotate270(&stored)),
                rotate270(&stored),
                stored.clone(),
            ];
            for (orientation, expected) in (0..).zip(expected) {
                assert_eq!(
                    upright(stored.clone(), orientation),
                    expected,
                    "orientation {orientation}"
                );
            }
        }
    }
}
