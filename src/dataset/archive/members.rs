//! The members of a tar archive, one header after the other.
//!
//! Formats: v7, ustar, GNU long names, and pax names and sizes. The tar crate's own iterator reads headers that describe
//! the next header into memory whatever size they claim, and splits pax records at line ends, which their values may
//! hold; so only its [`Header`] is used here, and everything that is read is bounded.

use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use tar::{EntryType, Header};

use crate::error::{Error, Result};

/// The unit of a tar archive: headers are one block, contents are padded to whole ones.
const BLOCK: u64 = 512;
/// The longest extended header that is read: many times the longest path of any system, with its attributes.
const EXTENSION_LIMIT: u64 = 1 << 20;

const UNMARKED: &str = "it ends without the blocks of zeros that should end it: it may be cut off";
const TRAILER: &str = "what follows its end is no archive and is left out";

/// Where the bytes of an archive come from.
pub(super) trait Source: Read {
    /// Passes over `count` bytes; false when there are fewer.
    fn skip(&mut self, count: u64) -> io::Result<bool>;
}

/// An archive that can only be read from front to back.
pub(super) struct Forward<R>(pub(super) R);

impl<R: Read> Read for Forward<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read> Source for Forward<R> {
    fn skip(&mut self, count: u64) -> io::Result<bool> {
        Ok(io::copy(&mut self.0.by_ref().take(count), &mut io::sink())? == count)
    }
}

/// An archive in a file: what is passed over is not read.
pub(super) struct Seekable<R> {
    inner: BufReader<R>,
    position: u64,
    length: u64,
}

impl<R: Read + Seek> Seekable<R> {
    /// The archive that `inner` is, from its beginning.
    pub(super) fn new(mut inner: R) -> io::Result<Self> {
        let length = inner.seek(io::SeekFrom::End(0))?;
        inner.rewind()?;
        // A header with the label beside it, and little of a picture.
        let inner = BufReader::with_capacity(4 * BLOCK as usize, inner);
        Ok(Self {
            inner,
            position: 0,
            length,
        })
    }
}

impl<R: Read> Read for Seekable<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl<R: Read + Seek> Source for Seekable<R> {
    fn skip(&mut self, count: u64) -> io::Result<bool> {
        let Some(end) = self.position.checked_add(count).filter(|end| *end <= self.length) else {
            return Ok(false);
        };
        let count = i64::try_from(count).map_err(io::Error::other)?;
        self.inner.seek_relative(count)?;
        self.position = end;
        Ok(true)
    }
}

/// One member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// The name, as the archive has it.
    pub(super) name: Vec<u8>,
    /// Whether it is a file whose content lies in the archive as it is; not so folders, links, devices and sparse files.
    pub(super) is_file: bool,
    /// Where the content begins.
    pub(super) offset: u64,
    /// Its length in bytes.
    pub(super) size: u64,
}

/// What comes next in an archive.
pub(super) enum Step {
    Member(Member),
    /// The end of an archive, after which another one may follow in the same file.
    Boundary,
}

/// Goes through the headers of an archive.
pub(super) struct Members<S> {
    path: PathBuf,
    source: S,
    /// Bytes of the source that are behind us.
    position: u64,
    /// Where the content of the last member begins.
    content_begin: u64,
    /// Where it ends.
    content_end: u64,
    /// Where the next header begins.
    next_header: u64,
    /// Whether the last block was one of those that end an archive.
    at_boundary: bool,
    /// How the archive ended, if it is worth telling.
    pub(super) ending: Option<&'static str>,
}

/// A block that begins something.
enum Block {
    Header(Box<Header>),
    /// The first of the zero blocks that end an archive.
    Boundary,
    /// The end of the source.
    End,
}

/// What extended headers say about the member after them.
#[derive(Default)]
struct Extension {
    name: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

impl<S: Source> Members<S> {
    /// The members of the archive `source`; `path` is for messages.
    pub(super) fn new(path: &Path, source: S) -> Self {
        Self {
            path: path.to_path_buf(),
            source,
            position: 0,
            content_begin: 0,
            content_end: 0,
            next_header: 0,
            at_boundary: false,
            ending: None,
        }
    }

    /// The next member, or `None` after the last.
    ///
    /// # Errors
    /// [`Error::Archive`] where the archive is cut or damaged: nothing after that place can be found.
    pub(super) fn next(&mut self) -> Result<Option<Step>> {
        let mut extension = Extension::default();
        loop {
            let header = match self.header()? {
                Block::Header(header) => header,
                Block::End => return Ok(None),
                Block::Boundary => return Ok(Some(Step::Boundary)),
            };
            let kind = header.entry_type();
            let stored = header
                .entry_size()
                .map_err(|_| self.damaged("the size of a member is no number"))?;
            let describes_next = kind.is_gnu_longname()
                || kind.is_gnu_longlink()
                || kind.is_pax_local_extensions()
                || kind.is_pax_global_extensions();
            if describes_next {
                self.begin_content(stored)?;
                let bytes = self.extended_header(kind)?;
                match kind {
                    EntryType::GNULongName => extension.name = Some(until_nul(&bytes).to_vec()),
                    EntryType::XHeader => {
                        apply_pax(&bytes, &mut extension)
                            .ok_or_else(|| self.damaged("an extended header is malformed"))?;
                    }
                    _ => {}
                }
                continue;
            }
            let is_sparse = kind.is_gnu_sparse();
            if is_sparse && header.as_gnu().is_some_and(tar::GnuHeader::is_extended) {
                self.skip_sparse_map()?;
            }
            let has_content = !matches!(
                kind,
                EntryType::Directory
                    | EntryType::Link
                    | EntryType::Symlink
                    | EntryType::Char
                    | EntryType::Block
                    | EntryType::Fifo
            );
            let size = extension.size.unwrap_or(if has_content { stored } else { 0 });
            let name = extension.name.unwrap_or_else(|| header.path_bytes().into_owned());
            let is_file = matches!(kind, EntryType::Regular | EntryType::Continuous)
                && !extension.sparse
                // How version 7 marks a folder.
                && name.last() != Some(&b'/');
            let offset = self.position;
            self.begin_content(size)?;
            return Ok(Some(Step::Member(Member {
                name,
                is_file,
                offset,
                size,
            })));
        }
    }

    /// The content of the member that [`Members::next`] gave last.
    pub(super) fn read(&mut self, member: &Member) -> Result<Vec<u8>> {
        debug_assert_eq!(self.position, member.offset, "only the last member can be read");
        let mut content = Vec::new();
        let read = self.source.by_ref().take(member.size).read_to_end(&mut content);
        read.map_err(|error| self.failed(error))?;
        if (content.len() as u64) < member.size {
            return Err(self.cut());
        }
        self.position += member.size;
        Ok(content)
    }

    /// An error at the place that was reached.
    pub(super) fn damaged(&self, problem: impl Into<String>) -> Error {
        Error::Archive {
            path: self.path.clone(),
            offset: self.position,
            problem: problem.into(),
        }
    }

    fn cut(&self) -> Error {
        self.damaged("it is cut off")
    }

    fn failed(&self, error: io::Error) -> Error {
        match error.kind() {
            // What decompressors say of damaged data.
            io::ErrorKind::UnexpectedEof => self.cut(),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                self.damaged(format!("it can't be decompressed: {error}"))
            }
            _ => Error::io("read", &self.path)(error),
        }
    }

    /// The next block that matters.
    fn header(&mut self) -> Result<Block> {
        if !self.skip_to(self.next_header)? {
            // The same place whether the content was read or not.
            self.position = self.content_begin;
            return Err(self.cut());
        }
        loop {
            let begin = self.position;
            let mut header = Box::new(Header::new_old());
            let read = self.fill(header.as_mut_bytes())?;
            let bytes = &header.as_bytes()[..read];
            let whole = bytes.len() as u64 == BLOCK;
            if bytes.is_empty() {
                if begin == 0 {
                    return Err(self.damaged("it is empty"));
                }
                if !self.at_boundary {
                    self.ending = Some(UNMARKED);
                }
                return Ok(Block::End);
            }
            // Archives end with two blocks of zeros, and as many more as their writer likes.
            if bytes.iter().all(|byte| *byte == 0) && (whole || self.at_boundary) {
                if !std::mem::replace(&mut self.at_boundary, true) {
                    self.begin_content(0)?;
                    return Ok(Block::Boundary);
                }
                continue;
            }
            if whole && checksum_fits(&header) {
                self.at_boundary = false;
                return Ok(Block::Header(header));
            }
            self.position = begin;
            if self.at_boundary {
                self.ending = Some(TRAILER);
                return Ok(Block::End);
            }
            return Err(match (begin, whole) {
                (0, _) => self.damaged(what_else(bytes)),
                (_, true) => self.damaged("no header is where the next member should begin"),
                (_, false) => self.cut(),
            });
        }
    }

    /// Notes that the content of a member of `size` bytes begins here.
    fn begin_content(&mut self, size: u64) -> Result<()> {
        let end = self.position.checked_add(size);
        let next = end.and_then(|end| end.checked_next_multiple_of(BLOCK));
        let (Some(end), Some(next)) = (end, next) else {
            return Err(self.damaged(format!("a member claims {size} bytes")));
        };
        (self.content_begin, self.content_end, self.next_header) = (self.position, end, next);
        Ok(())
    }

    /// The content of a header that describes the next one.
    fn extended_header(&mut self, kind: EntryType) -> Result<Vec<u8>> {
        let size = self.content_end - self.position;
        if kind.is_pax_global_extensions() || kind.is_gnu_longlink() {
            // Comments and targets of links.
            return Ok(Vec::new());
        }
        if size > EXTENSION_LIMIT {
            return Err(self.damaged(format!("an extended header claims {size} bytes")));
        }
        let mut bytes = vec![0; usize::try_from(size).expect("checked against a small limit")];
        let read = self.fill(&mut bytes)?;
        if read < bytes.len() {
            self.position -= read as u64;
            return Err(self.cut());
        }
        Ok(bytes)
    }

    /// Passes over the blocks that follow the header of a sparse file and list more of its parts.
    fn skip_sparse_map(&mut self) -> Result<()> {
        loop {
            let mut map = tar::GnuExtSparseHeader::new();
            if (self.fill(map.as_mut_bytes())? as u64) < BLOCK {
                return Err(self.cut());
            }
            if !map.is_extended() {
                return Ok(());
            }
        }
    }

    /// Goes on to `position`; false when the source ends before it.
    fn skip_to(&mut self, position: u64) -> Result<bool> {
        let count = position.saturating_sub(self.position);
        if count == 0 {
            return Ok(true);
        }
        let skipped = self.source.skip(count).map_err(|error| self.failed(error))?;
        if skipped {
            self.position = position;
        }
        Ok(skipped)
    }

    /// Fills `buffer` as far as there are bytes, and says how far.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.source.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        self.position += filled as u64;
        Ok(filled)
    }
}

/// Whether the header's checksum is that of its bytes: unsigned as POSIX has it, or signed as some old programs wrote it.
fn checksum_fits(header: &Header) -> bool {
    const FIELD: std::ops::Range<usize> = 148..156;
    let bytes = header.as_bytes();
    let others = || bytes[..FIELD.start].iter().chain(&bytes[FIELD.end..]);
    let spaces = FIELD.len() as i64 * i64::from(b' ');
    let unsigned: i64 = spaces + others().map(|byte| i64::from(*byte)).sum::<i64>();
    let signed: i64 = spaces + others().map(|byte| i64::from(byte.cast_signed())).sum::<i64>();
    header
        .cksum()
        .is_ok_and(|stated| i64::from(stated) == unsigned || i64::from(stated) == signed)
}

/// What a file that is no tar archive may be.
fn what_else(bytes: &[u8]) -> String {
    let known: [(&[u8], &str); 5] = [
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\xfd7zXZ\0", "xz"),
        (b"BZh", "bzip2"),
        (b"\x1f\x8b", "gzip, once more than it should be"),
        (b"PK\x03\x04", "zip"),
    ];
    match known.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        Some((_, name)) => format!("it is no tar archive but packed with {name}: plain tar and gzip are read"),
        None => "it is no tar archive".to_owned(),
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Reads pax records, `length key=value\n` each, as POSIX's pax describes them; `None` when they are none.
fn apply_pax(mut bytes: &[u8], extension: &mut Extension) -> Option<()> {
    while !bytes.is_empty() && bytes[0] != 0 {
        let digits = bytes.iter().position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(&bytes[..digits]).ok()?.parse().ok()?;
        let record = bytes.get(digits + 1..length)?.strip_suffix(b"\n")?;
        bytes = &bytes[length..];
        let equals = record.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" => extension.name = Some(until_nul(value).to_vec()),
            b"size" => extension.size = Some(std::str::from_utf8(value).ok()?.parse().ok()?),
            _ if key.starts_with(b"GNU.sparse.") => extension.sparse = true,
            _ => {}
        }
    }
    Some(())
}
