//! Data sets in tar archives, as WebDataset writes them: `key.jpg` beside `key.cls` or `key.json`, without unpacking.
//!
//! | | |
//! |---|---|
//! | [`index_archive`] | an archive in a file: where each picture lies in it; no picture is read |
//! | [`ArchiveStream`] | an archive that comes from stdin or is packed with gzip: one sample after the other |
//! | [`expand_shards`] | the archives that a name like `train-{000..146}.tar` means |
//!
//! Both ways give the same samples. The key of a member is its name up to the first dot of its base name, the rest its
//! extension: `a/b.seg.png` belongs to `a/b` and is not its picture. Neighbours that share a key are a sample. Its label
//! is the content of `.cls`, or a field of `.json`; without one it is a sample all the same. Memory is bounded whatever
//! the archive says. How the shards make one data set is left to the callers.

mod members;
mod samples;
mod shards;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::{Ignored, Split};
use crate::error::{Error, Result};
use members::{Forward, Member, Members, Seekable, Source};
use samples::Samples;
pub(crate) use shards::{expand_shards, is_packed, shard_split};

/// A picture in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ArchivedSample {
    /// The picture's name in the archive, its bytes kept.
    pub(crate) name: PathBuf,
    /// Class name or number as text; `None` where there is none that can be read.
    pub(crate) label: Option<String>,
    /// What the sample's `.json` says.
    pub(crate) split: Option<Split>,
    /// Where the picture's bytes begin in the archive.
    pub(crate) offset: u64,
    /// How many there are.
    pub(crate) length: u64,
}

/// What an archive holds.
#[derive(Debug)]
pub(crate) struct ArchiveIndex {
    /// The samples that have a picture, in the archive's order.
    pub(crate) samples: Vec<ArchivedSample>,
    /// Members that are no part of a sample.
    pub(crate) ignored: Ignored,
    /// Things a careful person would want to know, one line each.
    pub(crate) warnings: Vec<String>,
    /// Where the archive is cut or damaged. The samples are those before that place.
    pub(crate) failure: Option<Error>,
}

/// Lists the samples of the uncompressed archive `path`; reads headers and labels, no picture.
///
/// # Errors
/// [`Error::Io`] when it can't be read; [`Error::Archive`] when it is no tar archive at all.
pub(crate) fn index_archive(path: &Path) -> Result<ArchiveIndex> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    let source = Seekable::new(file).map_err(Error::io("read", path))?;
    index(path, source)
}

/// As [`index_archive`], of bytes in memory; `path` is for messages.
///
/// # Errors
/// As there.
pub(crate) fn index_bytes(path: &Path, bytes: &[u8]) -> Result<ArchiveIndex> {
    index(
        path,
        Seekable::new(Cursor::new(bytes)).map_err(Error::io("read", path))?,
    )
}

fn index(path: &Path, source: impl Source) -> Result<ArchiveIndex> {
    let mut samples = Samples::new(Members::new(path, source));
    let mut listed = Vec::new();
    let failure = loop {
        match samples.next(|_, picture| Ok((picture.offset, picture.size))) {
            Ok(Some(found)) => listed.push(ArchivedSample {
                name: found.name,
                label: found.label,
                split: found.split,
                offset: found.picture.0,
                length: found.picture.1,
            }),
            Ok(None) => break None,
            Err(error @ Error::Archive { offset: 1.., .. }) => break Some(error),
            Err(error) => return Err(error),
        }
    };
    let (ignored, warnings) = samples.finish();
    Ok(ArchiveIndex {
        samples: listed,
        ignored,
        warnings,
        failure,
    })
}

/// A sample that came out of a stream.
#[derive(Debug)]
pub(crate) struct StreamedSample {
    /// As in [`ArchivedSample`].
    pub(crate) name: PathBuf,
    /// As in [`ArchivedSample`].
    pub(crate) label: Option<String>,
    /// As in [`ArchivedSample`].
    pub(crate) split: Option<Split>,
    /// The picture's file, or its length where that is beyond the limit.
    pub(crate) bytes: Result<Vec<u8>, u64>,
}

/// The samples of an archive that is read once from front to back, plain or packed with gzip.
///
/// Archives that follow each other (`cat *.tar`) are read as one. One sample is in memory at a time. The first error is
/// the last item: samples before it are as good as any.
pub(crate) struct ArchiveStream<R: Read> {
    samples: Samples<Forward<Unpacked<R>>, Result<Vec<u8>, u64>>,
    max_file_bytes: u64,
}

impl<R: Read> ArchiveStream<R> {
    /// Begins to read `source`. A picture of more than `max_file_bytes` is passed over; `path` is for messages.
    ///
    /// # Errors
    /// [`Error::Io`] when nothing can be read.
    pub(crate) fn new(path: &Path, source: R, max_file_bytes: u64) -> Result<Self> {
        let source = Unpacked::new(source).map_err(Error::io("read", path))?;
        Ok(Self {
            samples: Samples::new(Members::new(path, Forward(source))),
            max_file_bytes,
        })
    }

    /// What was left out so far, and what a careful person would want to know, as [`ArchiveIndex`] has it.
    pub(crate) fn finish(self) -> (Ignored, Vec<String>) {
        self.samples.finish()
    }
}

impl<R: Read> Iterator for ArchiveStream<R> {
    type Item = Result<StreamedSample>;

    fn next(&mut self) -> Option<Self::Item> {
        let limit = self.max_file_bytes;
        let take = |members: &mut Members<_>, picture: &Member| {
            if picture.size > limit {
                return Ok(Err(picture.size));
            }
            members.read(picture).map(Ok)
        };
        let found = self.samples.next(take).transpose()?;
        Some(found.map(|found| StreamedSample {
            name: found.name,
            label: found.label,
            split: found.split,
            bytes: found.picture,
        }))
    }
}

/// The bytes whose first two were read already.
type Begun<R> = io::Chain<Cursor<Vec<u8>>, BufReader<R>>;

/// A source without its gzip, if it has any.
enum Unpacked<R: Read> {
    Plain(Begun<R>),
    Gzip(Box<MultiGzDecoder<Begun<R>>>),
}

impl<R: Read> Unpacked<R> {
    fn new(source: R) -> io::Result<Self> {
        const GZIP: [u8; 2] = [0x1f, 0x8b];
        let mut source = BufReader::with_capacity(64 << 10, source);
        let mut head = Vec::new();
        source.by_ref().take(GZIP.len() as u64).read_to_end(&mut head)?;
        let packed = head == GZIP;
        let whole = Cursor::new(head).chain(source);
        Ok(if packed {
            Self::Gzip(Box::new(MultiGzDecoder::new(whole)))
        } else {
            Self::Plain(whole)
        })
    }
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(source) => source.read(buffer),
            Self::Gzip(source) => source.read(buffer),
        }
    }
}
