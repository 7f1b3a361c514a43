//! Photos of 12 megapixels, as phones take them, made from the largest of a data set.

use std::path::{Path, PathBuf};

use image::RgbImage;
use image::imageops::{self, FilterType};
use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};

use super::Result;

const LONG_SIDE: u32 = 4000;
const SHORT_SIDE: u32 = 3000;
/// Not the encoder's own defaults: a camera writes plain JPEG with half the colour resolution.
const QUALITY: f32 = 90.0;

/// The photos as a data set of two classes.
pub(crate) struct Photos {
    pub(crate) count: usize,
    pub(crate) megabytes_each: f64,
}

/// Makes `count` photos below `folder`, again and again from the same ones where there are fewer.
pub(crate) fn make(datasets: &[PathBuf], folder: &Path, count: usize) -> Result<Photos> {
    let mut sources: Vec<(u64, PathBuf)> = datasets
        .iter()
        .flat_map(walkdir::WalkDir::new)
        .filter_map(|entry| Some(entry.ok()?.into_path()))
        .filter_map(|path| Some((pixels(&path)?, path)))
        .collect();
    // The larger, the less has to be made up.
    sources.sort_by(|one, two| two.cmp(one));
    sources.truncate(count);
    if sources.is_empty() {
        return Err("there is no JPEG to make large photos from".into());
    }
    for class in ["even", "odd"] {
        std::fs::create_dir_all(folder.join(class))?;
    }
    let numbers: Vec<usize> = (0..count).collect();
    let make_one = |number: &usize| -> std::result::Result<u64, String> {
        let (_, source) = &sources[number % sources.len()];
        let bytes = one(source).map_err(|error| format!("`{}`: {error}", source.display()))?;
        let class = if number.is_multiple_of(2) { "even" } else { "odd" };
        let path = folder.join(class).join(format!("{number:03}.jpg"));
        std::fs::write(path, &bytes).map_err(|error| error.to_string())?;
        Ok(bytes.len() as u64)
    };
    let written: Vec<u64> = numbers
        .par_iter()
        .with_max_len(1)
        .map(make_one)
        .collect::<std::result::Result<_, _>>()?;
    Ok(Photos {
        count,
        megabytes_each: written.iter().sum::<u64>() as f64 / 1e6 / count as f64,
    })
}

/// How many pixels a JPEG has.
fn pixels(path: &Path) -> Option<u64> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    if !["jpg", "jpeg"].contains(&extension.as_str()) {
        return None;
    }
    let header = mozjpeg::Decompress::new_path(path).ok()?;
    Some(header.width() as u64 * header.height() as u64)
}

fn one(source: &Path) -> Result<Vec<u8>> {
    let mut decoder = mozjpeg::Decompress::new_path(source)?.rgb()?;
    let (width, height) = (u32::try_from(decoder.width())?, u32::try_from(decoder.height())?);
    let pixels = decoder.read_scanlines::<u8>()?;
    decoder.finish()?;
    let picture = RgbImage::from_raw(width, height, pixels).ok_or("it has too few pixels")?;
    let (to_width, to_height) = if width >= height {
        (LONG_SIDE, SHORT_SIDE)
    } else {
        (SHORT_SIDE, LONG_SIDE)
    };
    // The middle of it that has the photo's shape.
    let part_width = width.min(height * to_width / to_height).max(1);
    let part_height = height.min(width * to_height / to_width).max(1);
    let (left, top) = ((width - part_width) / 2, (height - part_height) / 2);
    let part = imageops::crop_imm(&picture, left, top, part_width, part_height).to_image();
    let photo = imageops::resize(&part, to_width, to_height, FilterType::CatmullRom);
    let mut compress = mozjpeg::Compress::new(mozjpeg::ColorSpace::JCS_RGB);
    compress.set_size(to_width as usize, to_height as usize);
    compress.set_fastest_defaults();
    compress.set_quality(QUALITY);
    compress.set_chroma_sampling_pixel_sizes((2, 2), (2, 2));
    let mut started = compress.start_compress(Vec::new())?;
    started.write_scanlines(photo.as_raw())?;
    Ok(started.finish()?)
}
