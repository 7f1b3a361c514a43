//! A reader of the cache that knows nothing but ARCHITECTURE.md's byte tables, and is strict: what it meets must be
//! complete and right.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::files_below;

/// The rows of one space, as bytes, by content and view.
pub(crate) type StoredRows = BTreeMap<([u8; 32], u32), Vec<u8>>;

type Row = (([u8; 32], u32), Vec<u8>);

/// What lies in the folder of one space.
#[derive(Debug, Default)]
#[cfg_attr(not(unix), expect(dead_code, reason = "asked for where processes are killed"))]
pub(crate) struct StoredSpace {
    pub(crate) rows: StoredRows,
    /// Segment files.
    pub(crate) segments: usize,
    /// Segment files that the index does not name: a run ended between writing and naming them, or after a merge.
    pub(crate) unnamed: usize,
    /// Files whose writing did not end.
    pub(crate) unfinished: usize,
}

/// All spaces of a cache, by the names of their folders.
///
/// # Panics
/// If a segment is not what its name, its header and its checksums say, if two rows of a key differ, or if the index names
/// what is not there.
pub(crate) fn stored_spaces(cache: &Path) -> BTreeMap<String, StoredSpace> {
    let Ok(folders) = std::fs::read_dir(cache.join("spaces")) else {
        return BTreeMap::new();
    };
    let folders = folders.map(|entry| entry.unwrap().path());
    folders
        .map(|folder| (folder.file_name().unwrap().to_str().unwrap().to_owned(), space(&folder)))
        .collect()
}

/// The rows of a cache that has one space, or none yet.
#[cfg(unix)]
pub(crate) fn stored_space(cache: &Path) -> StoredSpace {
    let mut spaces = stored_spaces(cache);
    assert!(spaces.len() <= 1, "spaces in {}: {:?}", cache.display(), spaces.keys());
    spaces.pop_first().map(|(_, space)| space).unwrap_or_default()
}

/// The rows alone, by space.
pub(crate) fn stored_rows(cache: &Path) -> BTreeMap<String, StoredRows> {
    let spaces = stored_spaces(cache).into_iter();
    spaces.map(|(name, space)| (name, space.rows)).collect()
}

/// Every file of a cache with the hash of its bytes.
pub(crate) fn stored_files(cache: &Path) -> BTreeMap<PathBuf, [u8; 32]> {
    let files = files_below(cache).into_iter();
    files
        .map(|path| (path.clone(), *blake3::hash(&std::fs::read(path).unwrap()).as_bytes()))
        .collect()
}

fn space(folder: &Path) -> StoredSpace {
    let mut found = StoredSpace::default();
    let mut names = BTreeSet::new();
    // A process that dies before its first rows may leave a folder without a description.
    let id = std::fs::read(folder.join("space.json")).map(|json| *blake3::hash(&json).as_bytes());
    for path in files_below(folder) {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(!name.ends_with(".damaged"), "{} was set aside", path.display());
        if name.starts_with(".lastlayer-") {
            found.unfinished += 1;
        } else if let Some(stem) = name.strip_suffix(".seg") {
            let id = *id.as_ref().unwrap();
            assert!(hex(&id).starts_with(folder.file_name().unwrap().to_str().unwrap()));
            for (key, row) in segment(&path, stem, &id) {
                let before = found.rows.insert(key, row.clone());
                assert!(before.is_none_or(|before| before == row), "two rows of {key:?} differ");
            }
            found.segments += 1;
            names.insert(stem.to_owned());
        }
    }
    let indexed: BTreeSet<String> = index(&folder.join("index")).into_iter().collect();
    let absent: Vec<&String> = indexed.difference(&names).collect();
    assert!(absent.is_empty(), "the index of {} names {absent:?}", folder.display());
    found.unnamed = names.difference(&indexed).count();
    found
}

/// The rows of a segment file, each checked.
fn segment(path: &Path, stem: &str, space: &[u8; 32]) -> Vec<Row> {
    let bytes = std::fs::read(path).unwrap();
    let shown = path.display();
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    assert_eq!(&bytes[..8], b"LLSEGM01", "{shown}");
    let header = &bytes[16..16 + u32_at(8) as usize];
    assert_eq!(stem, &hex(blake3::hash(header).as_bytes())[..32], "{shown}");
    // format u32 | dim u32 | rows u64 | space 32 | keys_offset u64 | rows_offset u64 | blake3 of the key table 32 | …
    assert_eq!(u32_at(16), 1, "{shown}");
    let (dim, count) = (u32_at(20) as usize, u64_at(24));
    assert_eq!(&header[16..48], space, "{shown}");
    let (keys_at, rows_at) = (u64_at(64), u64_at(72));
    let table = &bytes[keys_at..keys_at + 48 * count];
    assert_eq!(&header[64..96], blake3::hash(table).as_bytes(), "{shown}");
    assert_eq!(bytes.len(), rows_at + 4 * dim * count, "{shown}");
    let entries = table.chunks_exact(48).zip(bytes[rows_at..].chunks_exact(4 * dim));
    let row = |(entry, row): (&[u8], &[u8])| {
        let checksum = blake3::hash(&[&entry[..36], row].concat());
        assert_eq!(&entry[40..], &checksum.as_bytes()[..8], "{shown}");
        let view = u32::from_le_bytes(entry[32..36].try_into().unwrap());
        ((entry[..32].try_into().unwrap(), view), row.to_vec())
    };
    entries.map(row).collect()
}

/// The stems of the segments that an index names; none where there is no index yet.
fn index(path: &Path) -> Vec<String> {
    let Ok(bytes) = std::fs::read(path) else {
        return Vec::new();
    };
    let (body, checksum) = bytes.split_at(bytes.len() - 32);
    assert_eq!(&body[..8], b"LLINDX01");
    assert_eq!(blake3::hash(body).as_bytes(), checksum, "{}", path.display());
    // magic 8 | length u64 | format u32 | space 32 | generation u64 | count u64 | (name 16, rows u64, bytes u64)…
    let entries = body[68..].chunks_exact(32);
    entries.map(|entry| hex(&entry[..16])).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
