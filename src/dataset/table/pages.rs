//! Looks at the pages of a Parquet column before and after the parquet crate does.
//!
//! The crate takes memory for what page headers claim. So every header is read here first: sizes must fit the file and
//! [`PageLimits`], and a page must not decompress to more than it says. What the pages then hold is checked by
//! [`CheckedPages`]: no more values than rows, no larger dictionary than its bytes can hold.

use std::io::{self, Read};

use parquet::basic::{Compression, Encoding};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::ChunkReader;

/// What is wrong with a file, continuing a sentence about it.
type Problem = String;

/// The longest header of a page; the statistics in it hold values of the column.
const HEADER_LIMIT: u64 = 1 << 20;
/// No writer nests a page header deeper.
const DEPTH_LIMIT: u32 = 8;
/// How far LZ4 can compress.
const LZ4_RATIO: u64 = 255;

/// What is believed of a file of some length.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageLimits {
    /// The bytes of a page when it is decompressed.
    pub(super) page: u64,
    /// The rows of the file.
    pub(super) rows: u64,
    /// The bytes of all paths together.
    pub(super) paths: u64,
}

impl PageLimits {
    /// The limits of a file of `length` bytes. Writers make pages of 1 MiB, DuckDB of up to 100 MiB.
    pub(super) fn of(length: u64) -> Self {
        let expanded = length.saturating_mul(256);
        Self {
            page: expanded.saturating_add(16 << 20).min(256 << 20),
            rows: expanded.saturating_add(64 << 10),
            paths: expanded.saturating_add(64 << 20),
        }
    }
}

/// What a page header says of the page's size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct PageSizes {
    compressed: u64,
    uncompressed: u64,
    /// Bytes before the compressed ones.
    levels: u64,
    stored: bool,
}

/// Walks over the pages of a column; an error when one of them claims what can't be.
pub(super) fn check(
    source: &impl ChunkReader,
    column: &ColumnChunkMetaData,
    limits: PageLimits,
) -> Result<(), Problem> {
    let (start, length) = column.byte_range();
    let end = start.checked_add(length).filter(|end| *end <= source.len());
    let end = end.ok_or("one of its columns lies beyond its end")?;
    let mut position = start;
    while position < end {
        let mut reader = Counted {
            inner: source.get_read(position).map_err(|error| error.to_string())?,
            count: 0,
        };
        let sizes = page_sizes(&mut reader).map_err(|error| format!("the header of a page is damaged: {error}"))?;
        position += reader.count;
        if sizes.compressed > end.saturating_sub(position) {
            return Err("one of its pages lies beyond the end of its column".to_owned());
        }
        if sizes.uncompressed > limits.page || sizes.levels > sizes.compressed {
            return Err(format!(
                "one of its pages claims {} bytes; at most {} are believed in a file of its size",
                sizes.uncompressed, limits.page
            ));
        }
        if !sizes.stored {
            check_expansion(reader.inner, column.compression(), sizes, limits)?;
        }
        position += sizes.compressed;
    }
    Ok(())
}

/// Refuses a page that would decompress to more than its header says, where the crate has no limit itself.
fn check_expansion(
    page: impl Read,
    compression: Compression,
    sizes: PageSizes,
    limits: PageLimits,
) -> Result<(), Problem> {
    match compression {
        Compression::GZIP(_) => {
            let mut page = page.take(sizes.compressed);
            io::copy(&mut (&mut page).take(sizes.levels), &mut io::sink()).map_err(|error| error.to_string())?;
            let mut decoder = flate2::read::MultiGzDecoder::new(page).take(sizes.uncompressed + 1);
            let expanded = io::copy(&mut decoder, &mut io::sink())
                .map_err(|error| format!("one of its pages can't be decompressed: {error}"))?;
            if expanded > sizes.uncompressed {
                return Err("one of its pages is larger than it says".to_owned());
            }
            Ok(())
        }
        // The old LZ4, which new files no longer use: no more is taken than is harmless however it decompresses.
        Compression::LZ4 if sizes.compressed > limits.page / LZ4_RATIO => {
            Err("its pages are too large for its compression, the old LZ4".to_owned())
        }
        _ => Ok(()),
    }
}

/// Counts the bytes read.
struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Counted<R> {
    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.inner.read_exact(&mut byte)?;
        self.count += 1;
        if self.count > HEADER_LIMIT {
            return Err(damaged("it is too long"));
        }
        Ok(byte[0])
    }

    fn varint(&mut self) -> io::Result<u64> {
        let mut value = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(damaged("a number is too long"))
    }

    fn zigzag(&mut self) -> io::Result<i64> {
        // At most 63 bits come.
        let value = self.varint()?.cast_signed();
        Ok((value >> 1) ^ -(value & 1))
    }

    fn skip(&mut self, length: u64) -> io::Result<()> {
        for _ in 0..length {
            self.byte()?;
        }
        Ok(())
    }
}

fn damaged(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// Reads a `PageHeader` of parquet.thrift in Thrift's compact protocol.
fn page_sizes<R: Read>(reader: &mut Counted<R>) -> io::Result<PageSizes> {
    let mut sizes = [0_i32; 2];
    let mut levels = 0;
    let mut stored = false;
    let mut take = |path: &[i16], value: i64| -> io::Result<()> {
        match path {
            [2] => sizes[1] = i32::try_from(value).map_err(|_| damaged("a length is too large"))?,
            [3] => sizes[0] = i32::try_from(value).map_err(|_| damaged("a length is too large"))?,
            // DataPageHeaderV2: the levels are not compressed, and the values need not be.
            [8, 5 | 6] => levels += u64::try_from(value).map_err(|_| damaged("a length is negative"))?,
            [8, 7] => stored = value == 0,
            _ => {}
        }
        Ok(())
    };
    structure(reader, &mut Vec::new(), &mut take)?;
    let [compressed, uncompressed] = sizes.map(u64::try_from);
    Ok(PageSizes {
        compressed: compressed.map_err(|_| damaged("a length is negative"))?,
        uncompressed: uncompressed.map_err(|_| damaged("a length is negative"))?,
        levels,
        stored,
    })
}

/// Reads a struct; `take` gets each number and boolean with the field numbers that lead to it.
fn structure<R: Read>(
    reader: &mut Counted<R>,
    path: &mut Vec<i16>,
    take: &mut dyn FnMut(&[i16], i64) -> io::Result<()>,
) -> io::Result<()> {
    if path.len() >= DEPTH_LIMIT as usize {
        return Err(damaged("it is nested too deeply"));
    }
    let mut field = 0;
    loop {
        let head = reader.byte()?;
        let (step, kind) = (head >> 4, head & 15);
        if kind == 0 {
            return Ok(());
        }
        // Fields out of order could be two of one number, of which two readers may believe another each.
        if step == 0 {
            return Err(damaged("its fields are not in order"));
        }
        field += i16::from(step);
        path.push(field);
        match kind {
            1 | 2 => take(path, i64::from(kind == 1))?,
            4..=6 => {
                let value = reader.zigzag()?;
                take(path, value)?;
            }
            kind => value(reader, kind, path, take)?,
        }
        path.pop();
    }
}

/// Reads over a value that is no number.
fn value<R: Read>(
    reader: &mut Counted<R>,
    kind: u8,
    path: &mut Vec<i16>,
    take: &mut dyn FnMut(&[i16], i64) -> io::Result<()>,
) -> io::Result<()> {
    match kind {
        3 => reader.skip(1),
        7 => reader.skip(8),
        8 => {
            let length = reader.varint()?;
            reader.skip(length)
        }
        12 => structure(reader, path, take),
        _ => Err(damaged("it has a field of a type that page headers have not")),
    }
}

/// The pages of a column whose headers [`check`] found sound.
pub(super) struct CheckedPages {
    pages: Box<dyn PageReader>,
    /// Values that may still come: one a row.
    values_left: u64,
    /// Whether values may be null, so that a page begins with levels.
    nullable: bool,
}

impl CheckedPages {
    pub(super) fn new(pages: Box<dyn PageReader>, rows: u64, nullable: bool) -> Self {
        Self {
            pages,
            values_left: rows,
            nullable,
        }
    }

    fn check(&mut self, page: &Page) -> Result<(), Problem> {
        let count = u64::from(page.num_values());
        let bytes = page.buffer();
        if page.is_dictionary_page() {
            // A value takes four bytes at least: a number itself, a text its length.
            return if count > bytes.len() as u64 / 4 {
                Err("a dictionary claims more values than it has bytes for".to_owned())
            } else {
                Ok(())
            };
        }
        self.values_left = self
            .values_left
            .checked_sub(count)
            .ok_or("a column has more values than rows")?;
        match page.encoding() {
            Encoding::PLAIN | Encoding::RLE | Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY => Ok(()),
            Encoding::DELTA_BINARY_PACKED | Encoding::DELTA_LENGTH_BYTE_ARRAY => {
                let values = self.values(page).ok_or("a page is cut off")?;
                let claimed = delta_count(values).ok_or("a page is cut off")?;
                if claimed > count {
                    return Err("a page claims more values than its header".to_owned());
                }
                Ok(())
            }
            // DELTA_BYTE_ARRAY: a few bytes can stand for any number of long texts.
            other => Err(format!("a column has the encoding {other}, which is not read")),
        }
    }

    /// The bytes of a data page behind its levels.
    fn values<'a>(&self, page: &'a Page) -> Option<&'a [u8]> {
        match page {
            Page::DataPageV2 {
                buf,
                def_levels_byte_len,
                rep_levels_byte_len,
                ..
            } => buf.get((*def_levels_byte_len as usize).checked_add(*rep_levels_byte_len as usize)?..),
            Page::DataPage {
                buf,
                def_level_encoding: Encoding::RLE,
                ..
            } if self.nullable => {
                let (length, rest) = buf.split_first_chunk::<4>()?;
                rest.get(u32::from_le_bytes(*length) as usize..)
            }
            page => (!self.nullable).then_some(page.buffer()),
        }
    }
}

/// The number of values that the header of delta-encoded numbers claims.
fn delta_count(bytes: &[u8]) -> Option<u64> {
    let mut reader = Counted { inner: bytes, count: 0 };
    let (_block, _blocks) = (reader.varint().ok()?, reader.varint().ok()?);
    reader.varint().ok()
}

impl Iterator for CheckedPages {
    type Item = parquet::errors::Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> parquet::errors::Result<Option<Page>> {
        let page = self.pages.get_next_page()?;
        if let Some(page) = &page {
            self.check(page).map_err(ParquetError::General)?;
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> parquet::errors::Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> parquet::errors::Result<()> {
        self.pages.skip_next_page()
    }
}
