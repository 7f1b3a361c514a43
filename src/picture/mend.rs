//! Files that lack something Pillow does without, completed so that the ordinary decoders take them.

use std::io::{Read, Write};

use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};

use super::exif::png_chunks;

/// A PNG that is cut off, with zeros for the rows it lacks; `None` if it has not one row.
///
/// Zeros are what Pillow leaves there: black, or the first colour of a palette. In an interlaced picture the missing
/// pixels lie between the others. A row that is there in part is missing.
pub(super) fn png(bytes: &[u8]) -> Option<Vec<u8>> {
    const HEADER_END: usize = 33;
    let header = bytes.get(16..29)?;
    let size = |at: usize| Some(u64::from(u32::from_be_bytes(*header.get(at..)?.first_chunk()?)));
    let (width, height) = (size(0)?, size(4)?);
    let samples = match header[9] {
        0 | 3 => 1,
        2 => 3,
        4 => 2,
        6 => 4,
        _ => return None,
    };
    let bits = u64::from(header[8]) * samples;

    let mut mended = bytes.get(..HEADER_END)?.to_vec();
    for (kind, content) in png_chunks(bytes).take_while(|(kind, _)| *kind != b"IDAT") {
        // Beside the palette and its transparency nothing decides a pixel.
        if matches!(kind, b"PLTE" | b"tRNS") {
            append_chunk(&mut mended, kind, content);
        }
    }
    let packed = pixel_data(bytes);
    let mut rows = ZlibDecoder::new(&packed[..]);
    let mut output = ZlibEncoder::new(Vec::new(), Compression::fast());
    let (mut found, mut ended) = (0_u64, false);
    for (width, height) in passes(width, height, header[12] == 1) {
        // The filter's number stands before a row.
        let mut row = vec![0; usize::try_from(1 + (width * bits).div_ceil(8)).ok()?];
        for _ in 0..height {
            ended = ended || rows.read_exact(&mut row).is_err();
            if ended {
                row.fill(0);
            } else {
                found += 1;
            }
            output.write_all(&row).ok()?;
        }
    }
    append_chunk(&mut mended, b"IDAT", &output.finish().ok()?);
    append_chunk(&mut mended, b"IEND", b"");
    (found > 0).then_some(mended)
}

/// The content of all `IDAT` chunks, the last of which may be cut off.
fn pixel_data(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    let mut rest = bytes.get(8..).unwrap_or_default();
    while let Some((start, content)) = rest.split_at_checked(8) {
        let length = u32::from_be_bytes([start[0], start[1], start[2], start[3]]) as usize;
        if &start[4..] == b"IDAT" {
            packed.extend_from_slice(&content[..length.min(content.len())]);
        }
        rest = length
            .checked_add(4)
            .and_then(|length| content.get(length..))
            .unwrap_or_default();
    }
    packed
}

/// Width and height of each pass, of which an uninterlaced picture has one; none is empty.
fn passes(width: u64, height: u64, interlaced: bool) -> Vec<(u64, u64)> {
    /// First column, first row, and the steps between (PNG specification, 8.2: Adam7).
    const ADAM7: [(u64, u64, u64, u64); 7] = [
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ];
    if !interlaced {
        return vec![(width, height)];
    }
    let size = |(x, y, step_x, step_y)| {
        (
            width.saturating_sub(x).div_ceil(step_x),
            height.saturating_sub(y).div_ceil(step_y),
        )
    };
    let passes = ADAM7.into_iter().map(size);
    passes.filter(|(width, height)| *width > 0 && *height > 0).collect()
}

fn append_chunk(png: &mut Vec<u8>, kind: &[u8; 4], content: &[u8]) {
    let mut sum = Crc::new();
    sum.update(kind);
    sum.update(content);
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
    png.extend_from_slice(&length.to_be_bytes());
    png.extend_from_slice(kind);
    png.extend_from_slice(content);
    png.extend_from_slice(&sum.sum().to_be_bytes());
}

/// A GIF whose first frame has no palette, with one of greys; `None` if it has a palette.
///
/// Pillow shows such a picture in grey; the format leaves the colours to the program.
pub(super) fn gif(bytes: &[u8]) -> Option<Vec<u8>> {
    const HEADER: usize = 13;
    const HAS_PALETTE: u8 = 0x80;
    const LONGEST_PALETTE: u8 = 0x07;
    let (header, mut blocks) = bytes.split_at_checked(HEADER)?;
    if header[10] & HAS_PALETTE != 0 {
        return None;
    }
    while let [0x21, _, rest @ ..] = blocks {
        blocks = rest;
        while let [length @ 1..=255, rest @ ..] = blocks {
            blocks = rest.get(usize::from(*length)..)?;
        }
        blocks = blocks.get(1..)?;
    }
    if blocks.first() != Some(&0x2c) || blocks.get(9)? & HAS_PALETTE != 0 {
        return None;
    }
    let mut mended = header.to_vec();
    mended[10] |= HAS_PALETTE | LONGEST_PALETTE;
    mended.extend((0..=255).flat_map(|grey| [grey; 3]));
    mended.extend_from_slice(&bytes[HEADER..]);
    Some(mended)
}
