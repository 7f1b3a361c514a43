//! The list of segments that count, replaced as a whole after their data is safely on disk.

use std::io::ErrorKind;
use std::path::Path;

use super::codec::{self, Index, IndexEntry, Problem};
use super::key::SpaceId;
use super::segment::Segment;
use crate::disk::Files;
use crate::error::{Error, Result};

const MAGIC: &[u8; 8] = b"LLINDX01";
const FORMAT: u32 = 1;
pub(crate) const FILE_NAME: &str = "index";

impl Index {
    pub(crate) fn empty(space: SpaceId) -> Self {
        Self {
            format: FORMAT,
            space: space.0,
            generation: 0,
            segments: Vec::new(),
        }
    }

    /// Reads the index in `folder`; `Ok(Err(..))` says why the file there can't be used.
    ///
    /// A missing or damaged index loses nothing: segments describe themselves.
    pub(crate) fn read(folder: &Path, space: SpaceId) -> Result<Result<Self, Problem>> {
        let path = folder.join(FILE_NAME);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Ok(Self::empty(space))),
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        Ok(Self::parse(&bytes, space))
    }

    /// The index that a file of these bytes is.
    pub(super) fn parse(bytes: &[u8], space: SpaceId) -> Result<Self, Problem> {
        let index = codec::decode_document::<Self>(MAGIC, bytes)?;
        if index.format != FORMAT {
            return Err(format!(
                "it has format {}, this program reads format {FORMAT}",
                index.format
            ));
        }
        if index.space == space.0 {
            Ok(index)
        } else {
            Err("it belongs to another feature space".to_owned())
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        codec::encode_document(MAGIC, self).expect("an index is far below the limit")
    }

    /// Replaces the index in `folder` by this one.
    pub(crate) fn write(&self, files: &Files, folder: &Path) -> Result<()> {
        files.write(&folder.join(FILE_NAME), &[&self.to_bytes()])
    }
}

impl IndexEntry {
    pub(crate) fn of(segment: &Segment) -> Self {
        Self {
            name: segment.name(),
            rows: segment.len() as u64,
            bytes: segment.file_bytes(),
        }
    }
}
