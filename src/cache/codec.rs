//! The only place that speaks bincode: headers and indexes to bytes and back, size-limited and checksummed.
//!
//! bincode 2.0.1 with fixed-size little-endian integers; strings and lists carry a u64 length. Its format is frozen and
//! its development has ended, so nothing outside this file depends on it and feature rows never pass through it.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use bincode::error::DecodeError;
use bincode::{Decode, Encode};

/// What is wrong with encoded bytes; says so in a few words.
pub(crate) type Problem = String;

/// No header or index is larger; a hostile length is refused before anything is allocated for it.
const HEADER_LIMIT: usize = 64 << 10;
const DOCUMENT_LIMIT: usize = 4 << 30;

fn config<const LIMIT: usize>() -> Configuration<LittleEndian, Fixint, Limit<LIMIT>> {
    bincode::config::standard()
        .with_fixed_int_encoding()
        .with_limit::<LIMIT>()
}

/// The header of a segment file; see ARCHITECTURE.md for its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct SegmentHeader {
    pub(crate) format: u32,
    pub(crate) dim: u32,
    pub(crate) rows: u64,
    pub(crate) space: [u8; 32],
    pub(crate) keys_offset: u64,
    pub(crate) rows_offset: u64,
    pub(crate) keys_blake3: [u8; 32],
    /// The device that computed the rows, for instance `cpu` or `cuda:0`.
    pub(crate) device: String,
    /// The ONNX Runtime version that computed the rows.
    pub(crate) runtime: String,
    /// The version of this program.
    pub(crate) program: String,
}

/// The list of segments that count.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Index {
    pub(crate) format: u32,
    pub(crate) space: [u8; 32],
    /// Grows by one with every commit.
    pub(crate) generation: u64,
    pub(crate) segments: Vec<IndexEntry>,
}

/// One segment in an [`Index`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct IndexEntry {
    /// The file's stem: the first 16 bytes of blake3 of its header.
    pub(crate) name: [u8; 16],
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

/// The header of a data set record; see ARCHITECTURE.md for its bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct RecordHeader {
    pub(crate) format: u32,
    /// What the data set was read from.
    pub(crate) kind: u8,
    /// The operating system's bytes, as all paths here.
    pub(crate) name: Vec<u8>,
    pub(crate) root: Vec<u8>,
    pub(crate) classes: Vec<String>,
    pub(crate) archives: Vec<StoredArchive>,
    pub(crate) samples: u64,
    pub(crate) text_bytes: u64,
}

/// One archive of a [`RecordHeader`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct StoredArchive {
    pub(crate) path: Vec<u8>,
    pub(crate) size: u64,
    pub(crate) modified_ns: i64,
    pub(crate) changed_ns: i64,
    pub(crate) inode: u64,
}

pub(crate) fn encode_header(header: &SegmentHeader) -> Vec<u8> {
    bincode::encode_to_vec(header, config::<HEADER_LIMIT>()).expect("a header is far below the limit")
}

pub(crate) fn decode_header(bytes: &[u8]) -> Result<SegmentHeader, Problem> {
    match bincode::decode_from_slice(bytes, config::<HEADER_LIMIT>()) {
        Ok((header, used)) if used == bytes.len() => Ok(header),
        Ok(_) => Err("the header has bytes left over".to_owned()),
        Err(error) => Err(format!("the header does not decode: {error}")),
    }
}

/// A whole small file: magic (8) | payload length (u64 LE) | payload | blake3 of all before (32).
pub(crate) fn encode_document(magic: &[u8; 8], document: &impl Encode) -> Result<Vec<u8>, Problem> {
    let payload = bincode::encode_to_vec(document, config::<DOCUMENT_LIMIT>()).map_err(|error| error.to_string())?;
    let mut bytes = Vec::with_capacity(payload.len() + 48);
    bytes.extend_from_slice(magic);
    bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&payload);
    let checksum = blake3::hash(&bytes);
    bytes.extend_from_slice(checksum.as_bytes());
    Ok(bytes)
}

/// Decodes what [`encode_document`] gave; anything else is a [`Problem`].
pub(crate) fn decode_document<T: Decode<()>>(magic: &[u8; 8], bytes: &[u8]) -> Result<T, Problem> {
    let Some((body, checksum)) = bytes.split_last_chunk::<32>() else {
        return Err("the file is too short".to_owned());
    };
    let Some(rest) = body.strip_prefix(magic) else {
        return Err("the file begins with other bytes than it should".to_owned());
    };
    if blake3::hash(body) != *checksum {
        return Err("the checksum does not match".to_owned());
    }
    let Some((length, payload)) = rest.split_first_chunk::<8>() else {
        return Err("the file is too short".to_owned());
    };
    if u64::from_le_bytes(*length) != payload.len() as u64 {
        return Err("the length does not match".to_owned());
    }
    decode_all(payload)
}

/// Bytes without a checksum of their own.
pub(crate) fn encode_plain(value: &impl Encode) -> Result<Vec<u8>, Problem> {
    bincode::encode_to_vec(value, config::<DOCUMENT_LIMIT>()).map_err(|error| error.to_string())
}

/// Decodes what [`encode_plain`] gave.
pub(crate) fn decode_all<T: Decode<()>>(bytes: &[u8]) -> Result<T, Problem> {
    match decode_within_reason(bytes) {
        Ok((value, used)) if used == bytes.len() => Ok(value),
        Ok(_) => Err("bytes are left over".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Decodes `payload` with a limit near its own length: bincode makes room for as many items as a list claims.
fn decode_within_reason<T: Decode<()>>(payload: &[u8]) -> Result<(T, usize), DecodeError> {
    // In memory an item takes at most a few times the bytes it takes here.
    let limit = payload.len().saturating_mul(16);
    if limit <= 1 << 16 {
        bincode::decode_from_slice(payload, config::<{ 1 << 16 }>())
    } else if limit <= 1 << 20 {
        bincode::decode_from_slice(payload, config::<{ 1 << 20 }>())
    } else if limit <= 1 << 24 {
        bincode::decode_from_slice(payload, config::<{ 1 << 24 }>())
    } else if limit <= 1 << 28 {
        bincode::decode_from_slice(payload, config::<{ 1 << 28 }>())
    } else {
        bincode::decode_from_slice(payload, config::<DOCUMENT_LIMIT>())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn index() -> Index {
        let entry = IndexEntry {
            name: [3; 16],
            rows: 5,
            bytes: 999,
        };
        Index {
            format: 1,
            space: [9; 32],
            generation: 4,
            segments: vec![entry.clone(), entry],
        }
    }

    #[test]
    fn documents_round_trip_and_every_flipped_bit_is_noticed() {
        let bytes = encode_document(b"LLTEST01", &index()).unwrap();
        assert_eq!(decode_document::<Index>(b"LLTEST01", &bytes).unwrap(), index());
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_document::<Index>(b"LLTEST01", &damaged).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(
                decode_document::<Index>(b"LLTEST01", &bytes[..length]).is_err(),
                "length {length}"
            );
        }
        assert!(decode_document::<Index>(b"OTHER001", &bytes).is_err());
    }

    #[test]
    fn a_hostile_length_is_refused_before_it_is_allocated() {
        // A header whose first string claims 2^60 bytes.
        let mut bytes = encode_header(&SegmentHeader {
            format: 1,
            dim: 1,
            rows: 1,
            space: [0; 32],
            keys_offset: 0,
            rows_offset: 0,
            keys_blake3: [0; 32],
            device: String::new(),
            runtime: String::new(),
            program: String::new(),
        });
        let first_string = bytes.len() - 24;
        bytes[first_string..first_string + 8].copy_from_slice(&(1_u64 << 60).to_le_bytes());
        assert!(decode_header(&bytes).unwrap_err().contains("does not decode"));
    }
}
