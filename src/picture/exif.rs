//! Finds the orientation a camera recorded: where JPEG, PNG and WebP keep their EXIF block, and the tag inside it.
//!
//! It follows Pillow: a damaged block says as much as could be read of it, and what is no orientation is ignored by the
//! caller. (A TIFF's tag is read by its decoder.)

use std::io::Read;

use super::sniff::Format;

const ORIENTATION: u16 = 0x0112;
/// What stands before the TIFF structure inside a JPEG's APP1 segment.
const PREFIX: &[u8] = b"Exif\0\0";
/// No EXIF block is longer than a JPEG segment by much; bounds the inflated text of a PNG.
const MOST_TEXT: u64 = 1 << 20;

/// The EXIF orientation of a file of the given format, if it has one.
pub(super) fn orientation(bytes: &[u8], format: Format) -> Option<u16> {
    match format {
        Format::Jpeg => in_tiff(&in_jpeg(bytes)),
        Format::Png => in_png(bytes).and_then(|block| in_tiff(&block)),
        Format::WebP => in_webp(bytes).and_then(in_tiff),
        Format::Gif | Format::Bmp | Format::Tiff | Format::Pnm => None,
    }
}

/// The orientation in the first directory of a TIFF structure, with or without `Exif\0\0` before it.
fn in_tiff(mut block: &[u8]) -> Option<u16> {
    while let Some(rest) = block.strip_prefix(PREFIX) {
        block = rest;
    }
    let little = match block.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let short = |at: usize| {
        let bytes = *block.get(at..)?.first_chunk()?;
        Some(if little {
            u16::from_le_bytes(bytes)
        } else {
            u16::from_be_bytes(bytes)
        })
    };
    let long = |at: usize| {
        let bytes = *block.get(at..)?.first_chunk()?;
        Some(if little {
            u32::from_le_bytes(bytes)
        } else {
            u32::from_be_bytes(bytes)
        })
    };
    let directory = usize::try_from(long(4)?).ok()?;
    let mut found = None;
    for index in 0..usize::from(short(directory)?) {
        let entry = directory.checked_add(2 + 12 * index)?;
        let Some(tag) = short(entry) else { break };
        let (Some(kind), Some(count)) = (short(entry + 2), long(entry + 4)) else {
            break;
        };
        if tag != ORIENTATION || count != 1 || block.len() < entry + 12 {
            continue;
        }
        // A later entry of the same tag wins, as it does in Pillow.
        found = match kind {
            1 | 6 => block.get(entry + 8).copied().map(u16::from),
            3 | 8 => short(entry + 8),
            4 | 9 => long(entry + 8).and_then(|value| u16::try_from(value).ok()),
            _ => found,
        };
    }
    found
}

/// The EXIF segments of a JPEG before its first scan, joined.
fn in_jpeg(bytes: &[u8]) -> Vec<u8> {
    const START_OF_SCAN: u8 = 0xda;
    const APP1: u8 = 0xe1;
    let mut block = Vec::new();
    let mut at = 2;
    while let Some(&byte) = bytes.get(at) {
        let marker = bytes.get(at + 1).copied().unwrap_or(START_OF_SCAN);
        at += 1;
        // Padding, junk between segments, and an escaped 0xff are passed over.
        if byte != 0xff || matches!(marker, 0 | 0xff) {
            continue;
        }
        at += 1;
        if marker == START_OF_SCAN {
            break;
        }
        if matches!(marker, 0x01 | 0xd0..=0xd9) {
            continue;
        }
        let Some(&length) = bytes.get(at..).and_then(<[u8]>::first_chunk) else {
            break;
        };
        let end = at + usize::from(u16::from_be_bytes(length)).max(2);
        if marker == APP1
            && let Some(content) = bytes.get(at + 2..end).and_then(|segment| segment.strip_prefix(PREFIX))
        {
            block.extend_from_slice(content);
        }
        at = end;
    }
    block
}

/// A PNG's `eXIf` chunk, or the hexadecimal text that ImageMagick writes instead.
fn in_png(bytes: &[u8]) -> Option<Vec<u8>> {
    const KEY: &[u8] = b"Raw profile type exif\0";
    let mut text = None;
    for (kind, content) in png_chunks(bytes) {
        match kind {
            b"eXIf" => return Some(content.to_vec()),
            b"tEXt" => text = text.or_else(|| content.strip_prefix(KEY).and_then(from_hex)),
            b"zTXt" => {
                let packed = content.strip_prefix(KEY).and_then(|rest| rest.strip_prefix(b"\0"));
                text = text.or_else(|| packed.and_then(inflate).as_deref().and_then(from_hex));
            }
            _ => {}
        }
    }
    text
}

/// The complete chunks of a PNG: kind and content, without looking at check sums.
pub(super) fn png_chunks(bytes: &[u8]) -> impl Iterator<Item = (&[u8; 4], &[u8])> {
    let mut rest = bytes.get(8..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = u32::from_be_bytes(*rest.first_chunk()?) as usize;
        let kind = rest.get(4..)?.first_chunk()?;
        let content = rest.get(8..)?.get(..length)?;
        rest = rest.get(8 + length + 4..)?;
        Some((kind, content))
    })
}

fn inflate(packed: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    flate2::read::ZlibDecoder::new(packed)
        .take(MOST_TEXT)
        .read_to_end(&mut text)
        .ok()?;
    Some(text)
}

/// Reads `\nexif\n    1234\n` and hexadecimal digits in lines.
fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.splitn(4, |&byte| byte == b'\n').nth(3)?;
    let mut nibbles = digits.iter().filter_map(|&byte| char::from(byte).to_digit(16));
    let mut block = Vec::with_capacity(digits.len() / 2);
    while let (Some(high), Some(low)) = (nibbles.next(), nibbles.next()) {
        block.push((high * 16 + low) as u8);
    }
    Some(block)
}

/// A WebP's `EXIF` chunk.
fn in_webp(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.get(12..)?;
    loop {
        let kind = rest.get(..4)?;
        let length = u32::from_le_bytes(*rest.get(4..)?.first_chunk()?) as usize;
        let content = rest.get(8..)?;
        if kind == b"EXIF" {
            return content.get(..length);
        }
        // Chunks start at even places.
        rest = content.get(length.checked_add(length & 1)?..)?;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A TIFF structure whose only entry is the orientation.
    pub(in crate::picture) fn block(orientation: u16, little: bool) -> Vec<u8> {
        if little {
            let mut block = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
            block.extend_from_slice(&u32::from(orientation).to_le_bytes());
            block.extend_from_slice(&[0; 4]);
            block
        } else {
            let mut block = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01".to_vec();
            block.extend_from_slice(&orientation.to_be_bytes());
            block.extend_from_slice(&[0; 6]);
            block
        }
    }

    #[test]
    fn both_byte_orders() {
        for orientation in [0, 1, 6, 9, 300] {
            assert_eq!(in_tiff(&block(orientation, true)), Some(orientation));
            assert_eq!(in_tiff(&block(orientation, false)), Some(orientation));
        }
    }

    #[test]
    fn a_cut_or_senseless_block_says_nothing() {
        let whole = block(6, true);
        for end in 0..22 {
            assert_eq!(in_tiff(&whole[..end]), None, "cut at {end}");
        }
        assert_eq!(in_tiff(b"II*\0\xff\xff\xff\xff"), None);
        assert_eq!(in_tiff(b"XX*\0\x08\0\0\0"), None);
        let mut two_values = whole;
        two_values[14] = 2;
        assert_eq!(in_tiff(&two_values), None);
    }

    #[test]
    fn imagemagicks_text_is_read() {
        let mut text = b"\nexif\n      26\n".to_vec();
        let digits: String = PREFIX
            .iter()
            .chain(&block(3, false))
            .map(|byte| format!("{byte:02x}"))
            .collect();
        for line in digits.as_bytes().chunks(7) {
            text.extend_from_slice(line);
            text.push(b'\n');
        }
        assert_eq!(from_hex(&text).and_then(|block| in_tiff(&block)), Some(3));
    }
}
