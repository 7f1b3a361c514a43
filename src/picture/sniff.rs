//! Tells what a file is from its first bytes; names and extensions say nothing (a tenth of the web's `.jpg` are not).

use image::ImageFormat;

use super::{PictureError, Reason};

/// The decoder a picture goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Jpeg,
    Png,
    Gif,
    Bmp,
    Tiff,
    WebP,
    Pnm,
}

impl Format {
    /// The format's common name, for messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
            Self::WebP => "WebP",
            Self::Pnm => "PNM",
        }
    }

    /// The `image` crate's decoder for it; `None` for JPEG, which has a decoder of its own.
    pub(super) fn of_image_crate(self) -> Option<ImageFormat> {
        match self {
            Self::Jpeg => None,
            Self::Png => Some(ImageFormat::Png),
            Self::Gif => Some(ImageFormat::Gif),
            Self::Bmp => Some(ImageFormat::Bmp),
            Self::Tiff => Some(ImageFormat::Tiff),
            Self::WebP => Some(ImageFormat::WebP),
            Self::Pnm => Some(ImageFormat::Pnm),
        }
    }
}

/// Formats of pictures and films that are recognised only to be named in the message.
const UNSUPPORTED: &[(usize, &[u8], &str)] = &[
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (4, b"ftypheic", "HEIC"),
    (4, b"ftypheix", "HEIC"),
    (4, b"ftyphevc", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypmsf1", "HEIF"),
    (4, b"ftypisom", "MP4 video"),
    (4, b"ftypiso2", "MP4 video"),
    (4, b"ftypmp41", "MP4 video"),
    (4, b"ftypmp42", "MP4 video"),
    (4, b"ftypavc1", "MP4 video"),
    (4, b"ftypM4V ", "MP4 video"),
    (4, b"ftypqt  ", "QuickTime video"),
    (0, b"\x1a\x45\xdf\xa3", "Matroska or WebM video"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (0, b"8BPS", "Photoshop"),
    (0, b"DDS ", "DDS"),
    (0, b"qoif", "QOI"),
    (0, b"farbfeld", "farbfeld"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"\0\0\x01\0", "ICO"),
    (0, b"P7\n", "PAM"),
    (0, b"II+\0", "BigTIFF"),
    (0, b"MM\0+", "BigTIFF"),
];

/// Finds the format, or why there is none.
pub(super) fn sniff(bytes: &[u8]) -> Result<Format, PictureError> {
    if bytes.is_empty() {
        return Err(PictureError::new(Reason::Empty, "the file has no bytes"));
    }
    let format = match bytes {
        [0xff, 0xd8, 0xff, ..] => Format::Jpeg,
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Format::Png,
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Format::Gif,
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Format::WebP,
        [b'I', b'I', b'*', 0, ..] | [b'M', b'M', 0, b'*', ..] => Format::Tiff,
        [b'P', b'1'..=b'6', b' ' | b'\t' | b'\n' | b'\r' | b'#', ..] => Format::Pnm,
        // Two letters prove little: the size of the header that follows must be one that exists.
        [b'B', b'M', rest @ ..] if matches!(rest.get(12..16), Some([12..=124, 0, 0, 0])) => Format::Bmp,
        _ => return Err(no_picture(bytes)),
    };
    Ok(format)
}

fn no_picture(bytes: &[u8]) -> PictureError {
    let known = UNSUPPORTED
        .iter()
        .find(|(at, magic, _)| bytes.get(*at..).is_some_and(|rest| rest.starts_with(magic)));
    if let Some((_, _, name)) = known {
        return PictureError::new(Reason::Unsupported, format!("{name} is not supported"));
    }
    let head = &bytes[..bytes.len().min(512)];
    let text = String::from_utf8_lossy(head)
        .trim_start_matches('\u{feff}')
        .trim_start()
        .to_ascii_lowercase();
    let detail = if text.starts_with("version https://git-lfs") {
        "a Git LFS pointer: fetch the picture itself with `git lfs pull`"
    } else if text.contains("<svg") {
        "an SVG drawing, which has no pixels"
    } else if text.starts_with("<!doctype html") || text.starts_with("<html") || text.starts_with("<head") {
        "a web page, often what a server sent in place of the picture"
    } else if text.starts_with("%pdf") {
        "a PDF document"
    } else if head.starts_with(b"PK\x03\x04") {
        "a ZIP archive"
    } else if head.starts_with(b"\x1f\x8b") {
        "gzip data"
    } else if head.iter().all(|&byte| byte == 0) {
        "only zero bytes"
    } else if head
        .iter()
        .all(|&byte| byte >= 0x20 || matches!(byte, b'\n' | b'\r' | b'\t'))
    {
        "text"
    } else {
        "no known picture format"
    };
    PictureError::new(Reason::NotAnImage, detail)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_picture_is_told() {
        let detail = |bytes: &[u8]| {
            let error = sniff(bytes).unwrap_err();
            (error.reason, error.detail)
        };
        assert_eq!(detail(b"").0, Reason::Empty);
        let html = detail(b"\r\n<!DOCTYPE html><title>404</title>");
        assert_eq!(html.0, Reason::NotAnImage);
        assert!(html.1.contains("web page"), "{}", html.1);
        assert!(
            detail(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
                .1
                .contains("LFS")
        );
        for (bytes, words) in [
            (
                &b"<?xml version=\"1.0\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\"/>"[..],
                "SVG",
            ),
            (b"%PDF-1.7\n", "PDF"),
            (b"PK\x03\x04\x14\0", "ZIP"),
            (b"\x1f\x8b\x08\0", "gzip"),
            (b"\0\0\0\0\0\0\0\0", "zero"),
            (b"just words\n", "text"),
        ] {
            let (reason, told) = detail(bytes);
            assert!(reason == Reason::NotAnImage && told.contains(words), "{reason} {told}");
        }
        for (bytes, words) in [
            (&b"\0\0\0\x20ftypmp42\0\0\0\0"[..], "MP4"),
            (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
            (b"\0\0\0\x20ftypavif\0\0\0\0", "AVIF"),
            (b"\x1a\x45\xdf\xa3\x01", "WebM"),
        ] {
            let (reason, told) = detail(bytes);
            assert!(reason == Reason::Unsupported && told.contains(words), "{reason} {told}");
        }
        assert_eq!(detail(b"BMW is a maker of cars, not of bitmaps").0, Reason::NotAnImage);
        assert_eq!(detail(b"P5").0, Reason::NotAnImage);
        assert_eq!(detail(b"\0\0\0\x20ftypavif\0\0\0\0").0, Reason::Unsupported);
    }
}
