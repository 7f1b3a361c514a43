//! The cache's parsers as the fuzz targets see them: bytes in, and what must hold of whatever is accepted.
//!
//! Checksums would keep a fuzzer out, so each parser is also given the input with its checksums made right.

use super::codec::{self, Index};
use super::datasets::DatasetRecord;
use super::key::SpaceId;
use super::segment::{self, KEY_BYTES, Segment};

/// The space that made inputs belong to.
const SPACE: SpaceId = SpaceId([7; 32]);

/// A segment: every row of one that opens can be asked for.
pub(crate) fn segment(bytes: &[u8]) -> bool {
    let read = |bytes: &[u8]| {
        let Ok(segment) = Segment::of_bytes(bytes, SPACE) else {
            return false;
        };
        for index in 0..segment.len() {
            let row = segment.row(index);
            assert!(row.is_none_or(|row| row.len() == segment.dim()));
            std::hint::black_box(segment.key(index));
        }
        assert_eq!(segment.file_bytes(), bytes.len() as u64);
        std::hint::black_box((segment.name(), segment.provenance()));
        true
    };
    if let Some(sealed) = sealed_segment(bytes) {
        read(&sealed);
    }
    read(bytes)
}

/// The list of segments: what is read is written as the same bytes.
pub(crate) fn index(bytes: &[u8]) -> bool {
    let read = |bytes: &[u8]| {
        let Ok(index) = Index::parse(bytes, SPACE) else {
            return false;
        };
        assert_eq!(index.to_bytes(), bytes);
        true
    };
    read(&sealed_document(bytes));
    read(bytes)
}

/// What is remembered of a data set: what is read is found by its path, and is written as what is read again.
pub(crate) fn record(bytes: &[u8]) -> bool {
    let read = |bytes: &[u8]| {
        let Ok(record) = DatasetRecord::of_bytes(bytes) else {
            return false;
        };
        assert!(record.samples().all(|sample| record.find(&sample.path).is_some()));
        let written = record.to_bytes();
        // Where paths are no bytes, those that are no text are not kept.
        let same = |again: DatasetRecord| again.of() == record.of() && again.samples().eq(record.samples());
        assert!(cfg!(not(unix)) || DatasetRecord::of_bytes(&written).is_ok_and(same));
        true
    };
    read(&sealed(bytes[..bytes.len().saturating_sub(32)].to_vec()));
    read(bytes)
}

/// The segment with the hash of its key table made right, if that can be found.
fn sealed_segment(bytes: &[u8]) -> Option<Vec<u8>> {
    let rest = bytes.strip_prefix(segment::MAGIC)?;
    let length = u32::from_le_bytes(*rest.first_chunk::<4>()?) as usize;
    let mut header = codec::decode_header(bytes.get(16..)?.get(..length)?).ok()?;
    let start = usize::try_from(header.keys_offset).ok()?;
    let table = usize::try_from(header.rows).ok()?.checked_mul(KEY_BYTES)?;
    header.keys_blake3 = *blake3::hash(bytes.get(start..)?.get(..table)?).as_bytes();
    let mut sealed = bytes.to_vec();
    let encoded = codec::encode_header(&header);
    sealed.get_mut(16..16 + encoded.len())?.copy_from_slice(&encoded);
    Some(sealed)
}

/// The small file with its length and its checksum made right.
fn sealed_document(bytes: &[u8]) -> Vec<u8> {
    let mut sealed = bytes[..bytes.len().saturating_sub(32)].to_vec();
    if let Some(payload) = sealed.len().checked_sub(16) {
        sealed[8..16].copy_from_slice(&(payload as u64).to_le_bytes());
    }
    self::sealed(sealed)
}

/// `body` and its checksum.
fn sealed(mut body: Vec<u8>) -> Vec<u8> {
    let checksum = blake3::hash(&body);
    body.extend_from_slice(checksum.as_bytes());
    body
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::super::codec::IndexEntry;
    use super::super::datasets::tests::made_record;
    use super::super::key::RowKey;
    use super::super::segment::Provenance;
    use super::*;
    use crate::disk::Files;
    use crate::hostile::check_seed;

    fn provenance() -> Provenance {
        Provenance {
            device: "cpu".to_owned(),
            runtime: "1.32.0".to_owned(),
        }
    }

    /// The bytes of a segment of these rows.
    fn written(dim: usize, keys: &[RowKey], rows: &[f32]) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let (path, _) = segment::write(&Files::system(), folder.path(), SPACE, dim, keys, rows, &provenance()).unwrap();
        std::fs::read(path).unwrap()
    }

    fn made_index(names: impl IntoIterator<Item = [u8; 16]>) -> Index {
        let entry = |name| IndexEntry {
            name,
            rows: u64::from(name[0]),
            bytes: u64::from(name[1]) << 40,
        };
        Index {
            generation: 5,
            segments: names.into_iter().map(entry).collect(),
            ..Index::empty(SPACE)
        }
    }

    #[test]
    fn the_seeds_are_what_is_written() {
        for (name, rows, dim) in [("rows", 5, 7), ("none", 0, 512), ("one", 1, 1)] {
            let keys: Vec<RowKey> = (0..rows).map(|row| RowKey::plain([row; 32])).collect();
            let values: Vec<f32> = (0..usize::from(rows) * dim).map(|value| value as f32).collect();
            check_seed("segment", name, &written(dim, &keys, &values));
        }
        check_seed("index", "two", &made_index([[1; 16], [2; 16]]).to_bytes());
        check_seed("index", "empty", &made_index([]).to_bytes());
        check_seed("record", "two", &made_record().to_bytes());
    }

    prop_compose! {
        fn keys()(contents in prop::collection::vec((any::<[u8; 32]>(), any::<u32>()), 0..40)) -> Vec<RowKey> {
            contents.into_iter().map(|(content, view)| RowKey { content, view }).collect()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_rows_come_back_from_a_segment_bit_by_bit(keys in keys(), dim in 1_usize..70, bits in any::<u32>()) {
            let rows: Vec<f32> = (0..keys.len() * dim)
                .map(|index| f32::from_bits(bits.wrapping_mul(index as u32 ^ 0x9e37_79b9)))
                .collect();
            let segment = Segment::of_bytes(&written(dim, &keys, &rows), SPACE).unwrap();
            prop_assert_eq!((segment.len(), segment.dim(), segment.provenance()), (keys.len(), dim, provenance()));
            for (index, key) in keys.iter().enumerate() {
                prop_assert_eq!(segment.key(index), *key);
                let expected = &rows[index * dim..][..dim];
                // As bits: a NaN is kept as it is.
                let bits = |row: &[f32]| row.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                prop_assert_eq!(bits(segment.row(index).unwrap()), bits(expected));
            }
        }

        #[test]
        fn any_index_comes_back(names in prop::collection::vec(any::<[u8; 16]>(), 0..40)) {
            let index = made_index(names);
            prop_assert_eq!(Index::parse(&index.to_bytes(), SPACE).unwrap(), index);
        }
    }
}
