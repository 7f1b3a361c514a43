//! Segment files: a block of feature rows with their keys, written once, never changed.
//!
//! Each part vouches for the next: the file's name is the hash of its header, the header holds the hash of the key
//! table, and the key table holds a checksum of each row together with its key. So a row is believed only as the row
//! of the picture it was computed for.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::codec::{self, Problem, SegmentHeader};
use super::key::{RowKey, SpaceId};
use super::mapped::FileBytes;
use crate::disk::Files;
use crate::error::{Error, Result};

#[cfg(target_endian = "big")]
compile_error!("segments hold little-endian rows that are mapped as they are");

pub(super) const MAGIC: &[u8; 8] = b"LLSEGM01";
const FORMAT: u32 = 1;
const NEWER: &str = "it was written by a newer version";
const ALIGNMENT: usize = 64;
/// content (32) | view (u32) | zero (u32) | checksum (8)
pub(super) const KEY_BYTES: usize = 48;

/// Who computed the rows of a segment; recorded beside them, not part of their identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Provenance {
    pub(crate) device: String,
    pub(crate) runtime: String,
}

/// An open segment.
#[derive(Debug)]
pub(crate) struct Segment {
    bytes: FileBytes,
    header: SegmentHeader,
    name: [u8; 16],
}

/// The name that a segment's header gives it.
fn name_of(header: &[u8]) -> [u8; 16] {
    *blake3::hash(header)
        .as_bytes()
        .first_chunk::<16>()
        .expect("32 bytes hold 16")
}

pub(crate) fn file_name(name: [u8; 16]) -> String {
    let stem: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
    stem + ".seg"
}

/// The name in a segment's path, or `None` for any other file.
pub(crate) fn parse_file_name(path: &Path) -> Option<[u8; 16]> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".seg")?;
    if stem.len() != 32 || !stem.is_ascii() {
        return None;
    }
    let mut name = [0; 16];
    for (index, byte) in name.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&stem[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(name)
}

/// The checksum of a row under its key: the first eight bytes of blake3(content | view | row).
fn checksum(key: &RowKey, row: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&key.content).update(&key.view.to_le_bytes()).update(row);
    let hash = hasher.finalize();
    *hash.as_bytes().first_chunk::<8>().expect("32 bytes hold eight")
}

/// The header of a segment of `rows` rows, but for the hash of its key table.
fn header_for(space: SpaceId, dim: usize, rows: usize, provenance: &Provenance) -> SegmentHeader {
    let mut header = SegmentHeader {
        format: FORMAT,
        dim: u32::try_from(dim).expect("a feature has fewer than 2^32 numbers"),
        rows: rows as u64,
        space: space.0,
        keys_offset: 0,
        rows_offset: 0,
        keys_blake3: [0; 32],
        device: provenance.device.clone(),
        runtime: provenance.runtime.clone(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
    };
    // Integers have a fixed size, so the header's length does not depend on the offsets in it.
    let length = codec::encode_header(&header).len();
    let keys_offset = (16 + length).next_multiple_of(ALIGNMENT);
    header.keys_offset = keys_offset as u64;
    header.rows_offset = (keys_offset + rows * KEY_BYTES).next_multiple_of(ALIGNMENT) as u64;
    header
}

/// Bytes of the file of a segment of `rows` rows.
pub(super) fn bytes_of(space: SpaceId, dim: usize, rows: usize, provenance: &Provenance) -> u64 {
    header_for(space, dim, rows, provenance).rows_offset + (rows * dim * 4) as u64
}

/// Writes a segment of `keys.len()` rows into `folder` and returns its path and name.
///
/// `rows`: `[keys.len(), dim]` row-major.
pub(crate) fn write(
    files: &Files,
    folder: &Path,
    space: SpaceId,
    dim: usize,
    keys: &[RowKey],
    rows: &[f32],
    provenance: &Provenance,
) -> Result<(PathBuf, [u8; 16])> {
    assert_eq!(rows.len(), keys.len() * dim, "one row for each key");
    let row = |index: usize| &rows[index * dim..][..dim];
    let mut table = KeyTable::default();
    for (index, key) in keys.iter().enumerate() {
        table.push(key, row(index));
    }
    write_table(files, folder, space, dim, &table, &row, provenance)
}

/// The key table of a segment to be written.
#[derive(Debug, Default)]
pub(crate) struct KeyTable(Vec<u8>);

impl KeyTable {
    /// Adds a new row.
    fn push(&mut self, key: &RowKey, row: &[f32]) {
        self.0.extend_from_slice(&key.content);
        self.0.extend_from_slice(&key.view.to_le_bytes());
        self.0.extend_from_slice(&[0; 4]);
        self.0.extend_from_slice(&checksum(key, bytemuck::cast_slice(row)));
    }

    /// Adds a row of another segment under the checksum that it has there: damage on the way would show.
    pub(crate) fn copy(&mut self, segment: &Segment, row: usize) {
        self.0.extend_from_slice(segment.entry(row));
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len() / KEY_BYTES
    }
}

/// Writes a segment with the keys of `table` into `folder` and returns its path and name.
///
/// `row(i)`: the values of row `i`, `[dim]`.
pub(crate) fn write_table<'a>(
    files: &Files,
    folder: &Path,
    space: SpaceId,
    dim: usize,
    table: &KeyTable,
    row: &dyn Fn(usize) -> &'a [f32],
    provenance: &Provenance,
) -> Result<(PathBuf, [u8; 16])> {
    let header = SegmentHeader {
        keys_blake3: *blake3::hash(&table.0).as_bytes(),
        ..header_for(space, dim, table.len(), provenance)
    };
    let (keys_offset, rows_offset) = (header.keys_offset as usize, header.rows_offset as usize);
    let header = codec::encode_header(&header);
    let length = header.len();

    let mut front = Vec::with_capacity(rows_offset);
    front.extend_from_slice(MAGIC);
    front.extend_from_slice(&u32::try_from(length).expect("headers are small").to_le_bytes());
    front.extend_from_slice(&[0; 4]);
    front.extend_from_slice(&header);
    front.resize(keys_offset, 0);
    front.extend_from_slice(&table.0);
    front.resize(rows_offset, 0);
    let name = name_of(&header);
    let path = folder.join(file_name(name));
    let mut file = files.create(&path)?;
    let mut put = |bytes: &[u8]| file.write_all(bytes).map_err(Error::io("write", &path));
    put(&front)?;
    for index in 0..table.len() {
        put(bytemuck::cast_slice(row(index)))?;
    }
    file.commit()?;
    Ok((path, name))
}

impl Segment {
    /// Opens a segment and checks everything but its rows, which [`Segment::row`] checks one by one.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the file is not exactly what its name says.
    pub(crate) fn open(files: &Files, path: &Path, space: SpaceId) -> Result<Self> {
        let bytes = FileBytes::open(files, path).map_err(Error::io("read", path))?;
        let damaged = |problem| match problem {
            // Not to be set aside as damaged: another version of this program wants it.
            problem if problem == NEWER && has_own_header(path, &bytes) => Error::NewerCache {
                path: path.to_path_buf(),
            },
            problem => Error::Damaged {
                path: path.to_path_buf(),
                problem,
            },
        };
        let (header, name) = parse(&bytes, space).map_err(damaged)?;
        if parse_file_name(path) != Some(name) {
            return Err(damaged("its name is not the hash of its header".to_owned()));
        }
        Ok(Self { bytes, header, name })
    }

    /// The segment that a file of these bytes would be under its right name.
    pub(super) fn of_bytes(bytes: &[u8], space: SpaceId) -> Result<Self, Problem> {
        let bytes = FileBytes::copied(bytes);
        let (header, name) = parse(&bytes, space)?;
        Ok(Self { bytes, header, name })
    }

    pub(crate) fn name(&self) -> [u8; 16] {
        self.name
    }

    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.header.rows).expect("checked against the file's length")
    }

    pub(crate) fn dim(&self) -> usize {
        self.header.dim as usize
    }

    pub(crate) fn file_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub(crate) fn provenance(&self) -> Provenance {
        Provenance {
            device: self.header.device.clone(),
            runtime: self.header.runtime.clone(),
        }
    }

    fn entry(&self, index: usize) -> &[u8] {
        let start = usize::try_from(self.header.keys_offset).expect("checked against the file's length");
        &self.bytes[start + index * KEY_BYTES..][..KEY_BYTES]
    }

    pub(crate) fn key(&self, index: usize) -> RowKey {
        let entry = self.entry(index);
        let content = *entry.first_chunk::<32>().expect("an entry has 48 bytes");
        let view = u32::from_le_bytes(*entry[32..].first_chunk::<4>().expect("an entry has 48 bytes"));
        RowKey { content, view }
    }

    /// Row `index`, or `None` when its bytes are not those that were written for its key.
    pub(crate) fn row(&self, index: usize) -> Option<&[f32]> {
        let start = usize::try_from(self.header.rows_offset).expect("checked against the file's length");
        let length = self.dim() * 4;
        let bytes = &self.bytes[start + index * length..][..length];
        (checksum(&self.key(index), bytes) == self.entry(index)[40..48]).then(|| bytemuck::cast_slice(bytes))
    }
}

/// Whether the header is the one that the file's name vouches for.
fn has_own_header(path: &Path, bytes: &[u8]) -> bool {
    let length = bytes.get(8..12).and_then(|length| length.first_chunk::<4>());
    let header = length.and_then(|length| bytes.get(16..16 + u32::from_le_bytes(*length) as usize));
    header.is_some_and(|header| parse_file_name(path) == Some(name_of(header)))
}

/// The space that the header of a segment file names, where the file's name vouches for the header.
pub(crate) fn space_in_header(path: &Path) -> Option<SpaceId> {
    let bytes = std::fs::read(path).ok()?;
    let length = u32::from_le_bytes(*bytes.get(8..12)?.first_chunk::<4>()?) as usize;
    let header = bytes.get(16..16_usize.checked_add(length)?)?;
    (parse_file_name(path) == Some(name_of(header)))
        .then(|| codec::decode_header(header).ok().map(|header| SpaceId(header.space)))
        .flatten()
}

fn parse(bytes: &[u8], space: SpaceId) -> Result<(SegmentHeader, [u8; 16]), Problem> {
    let Some(rest) = bytes.strip_prefix(MAGIC) else {
        return Err("it is no segment file".to_owned());
    };
    let length = rest
        .first_chunk::<4>()
        .map(|length| u32::from_le_bytes(*length) as usize)
        .ok_or("it is too short")?;
    let header_bytes = rest.get(8..8 + length).ok_or("its header is cut off")?;
    if rest[4..8] != [0; 4] {
        return Err("its header is damaged".to_owned());
    }
    if header_bytes
        .first_chunk::<4>()
        .is_some_and(|format| u32::from_le_bytes(*format) > FORMAT)
    {
        return Err(NEWER.to_owned());
    }
    let header = codec::decode_header(header_bytes)?;
    if header.format != FORMAT {
        return Err("its header is damaged".to_owned());
    }
    if header.space != space.0 {
        return Err("it belongs to another feature space".to_owned());
    }
    // The layout follows from three numbers; whatever else the header claims is refused.
    let layout = || -> Option<(usize, usize, usize)> {
        let rows = usize::try_from(header.rows).ok()?;
        let keys_offset = (16 + length).next_multiple_of(ALIGNMENT);
        let rows_offset = keys_offset
            .checked_add(rows.checked_mul(KEY_BYTES)?)?
            .checked_next_multiple_of(ALIGNMENT)?;
        let end = rows_offset.checked_add(rows.checked_mul(header.dim as usize)?.checked_mul(4)?)?;
        Some((keys_offset, rows_offset, end))
    };
    let Some((keys_offset, rows_offset, end)) = layout() else {
        return Err("its header claims more rows than can be".to_owned());
    };
    if header.dim == 0 || header.keys_offset != keys_offset as u64 || header.rows_offset != rows_offset as u64 {
        return Err("its header contradicts itself".to_owned());
    }
    if bytes.len() != end {
        return Err(format!("it is {} bytes long instead of {end}", bytes.len()));
    }
    let padding = bytes[16 + length..keys_offset].iter().all(|byte| *byte == 0);
    let table_end = keys_offset + usize::try_from(header.rows).expect("checked above") * KEY_BYTES;
    if !padding || bytes[table_end..rows_offset].iter().any(|byte| *byte != 0) {
        return Err("its padding is damaged".to_owned());
    }
    if blake3::hash(&bytes[keys_offset..table_end]) != header.keys_blake3 {
        return Err("its key table is damaged".to_owned());
    }
    Ok((header, name_of(header_bytes)))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn made(rows: usize, dim: usize) -> (Vec<RowKey>, Vec<f32>) {
        let keys = (0..rows).map(|row| RowKey {
            content: *blake3::hash(&row.to_le_bytes()).as_bytes(),
            view: row as u32 % 3,
        });
        (
            keys.collect(),
            (0..rows * dim).map(|value| value as f32 * 0.25 - 3.0).collect(),
        )
    }

    #[test]
    fn every_flipped_bit_is_found_or_harmless() {
        let folder = tempfile::tempdir().unwrap();
        let provenance = Provenance {
            device: "cpu".to_owned(),
            runtime: "1.32.0".to_owned(),
        };
        let (keys, rows) = made(5, 7);
        let space = SpaceId([4; 32]);
        let (path, _) = write(&Files::system(), folder.path(), space, 7, &keys, &rows, &provenance).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let segment = Segment::open(&Files::system(), &path, space).unwrap();
        assert_eq!((segment.len(), segment.dim(), segment.provenance()), (5, 7, provenance));
        for index in 0..5 {
            assert_eq!(segment.key(index), keys[index]);
            assert_eq!(segment.row(index).unwrap(), &rows[index * 7..][..7]);
        }
        drop(segment);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &damaged).unwrap();
            if let Ok(segment) = Segment::open(&Files::system(), &path, space) {
                let missing: Vec<usize> = (0..5).filter(|index| segment.row(*index).is_none()).collect();
                assert_eq!(missing.len(), 1, "bit {bit} of a row must cost that row and no other");
            }
        }
        for length in [0, 7, 12, 100, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert!(
                Segment::open(&Files::system(), &path, space).is_err(),
                "cut to {length} bytes"
            );
        }
        std::fs::write(&path, &bytes).unwrap();
        assert!(
            Segment::open(&Files::system(), &path, SpaceId([5; 32])).is_err(),
            "of another space"
        );
        let renamed = path.with_file_name(file_name([1; 16]));
        std::fs::rename(&path, &renamed).unwrap();
        assert!(
            Segment::open(&Files::system(), &renamed, space).is_err(),
            "under another name"
        );
    }

    #[test]
    fn file_names_parse_back() {
        let name = [0xab, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255];
        assert_eq!(
            parse_file_name(Path::new("x").join(file_name(name)).as_path()),
            Some(name)
        );
        for other in [
            "index",
            "abc.seg",
            "0123456789abcdef0123456789abcdeg.seg",
            "ééééééééééééééé.seg",
        ] {
            assert_eq!(parse_file_name(Path::new(other)), None, "{other}");
        }
    }
}
