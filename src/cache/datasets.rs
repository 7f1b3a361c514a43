//! Records of data sets in the cache: which content each path had when its features were extracted.
//!
//! A record is read through the memory map and looked up by path without a copy of it, so that a data set of ten million
//! pictures costs a few bytes of memory for each. It is replaced as a whole.

use std::borrow::Cow;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hashbrown::HashTable;

use super::codec::{self, Problem, RecordHeader, StoredArchive};
use super::mapped::FileBytes;
use super::space::DAMAGED;
use super::store::Cache;
use crate::dataset::{Dataset, DatasetKind, SampleRecord, Split, Stamp};
use crate::disk::Files;
use crate::error::{Error, Result};

const MAGIC: &[u8; 8] = b"LLDATA02";
const FORMAT: u32 = 2;
const ALIGNMENT: usize = 64;
/// text (8) | path length (4) | failure length (4) | class (4) | split (1) | flags (1) | zero (10) |
/// size (8) | modified (8) | changed (8) | inode (8) | zero (8) | content (32): see [`Entry`].
const ENTRY_BYTES: usize = 104;
const CHECKSUM_BYTES: usize = 32;
const NO_CLASS: u32 = u32::MAX;
const NO_SPLIT: u8 = u8::MAX;

const SETTLED: u8 = 1;
const HAS_CONTENT: u8 = 2;
const PARTIAL: u8 = 4;
const FAILED: u8 = 8;
const ALL_FLAGS: u8 = SETTLED | HAS_CONTENT | PARTIAL | FAILED;

/// What a record says of the data set as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RecordOf {
    /// What it is remembered by, absolute.
    pub(crate) name: PathBuf,
    pub(crate) kind: DatasetKind,
    /// The folder that paths are relative to.
    pub(crate) root: PathBuf,
    /// Class names; a class id is an index into it.
    pub(crate) classes: Vec<String>,
    /// Archives below the root, with their stamps before they were read.
    pub(crate) archives: Vec<(PathBuf, Stamp)>,
}

/// A data set as `extract` last saw it.
#[derive(Debug)]
pub(crate) struct DatasetRecord {
    path: PathBuf,
    bytes: FileBytes,
    of: RecordOf,
    entries: usize,
    entries_offset: usize,
    text_offset: usize,
    by_path: HashTable<u32>,
}

impl Cache {
    fn record_path(&self, name: &Path) -> PathBuf {
        let hash = blake3::hash(&path_bytes(name)).to_hex();
        self.datasets_folder().join(&hash.as_str()[..32])
    }

    /// What was remembered of the data set `name` (absolute); `None` when there is nothing usable.
    ///
    /// # Errors
    /// When the record is there and can't be read from disk.
    pub(crate) fn dataset_record(&self, name: &Path) -> Result<Option<DatasetRecord>> {
        match self.open_dataset_record(&self.record_path(name)) {
            Ok(record) if record.of.name == name => Ok(Some(record)),
            Ok(_) => Ok(None),
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
            Err(Error::Damaged { path, problem }) => {
                tracing::warn!("{}: {problem}; the files will be hashed again", path.display());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Opens a record by its file.
    ///
    /// # Errors
    /// [`Error::Damaged`] when it is not what was written.
    pub(crate) fn open_dataset_record(&self, path: &Path) -> Result<DatasetRecord> {
        DatasetRecord::open(self.files(), path)
    }

    /// The files of all records, by name.
    ///
    /// # Errors
    /// When the folder is there and can't be listed.
    pub(crate) fn dataset_record_files(&self) -> Result<Vec<PathBuf>> {
        let folder = self.datasets_folder();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("list", folder)(error)),
        };
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(Error::io("list", &folder))?.path();
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            if name.len() == 32 && name.iter().all(u8::is_ascii_hexdigit) {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    /// Gives a damaged record another name; returns what was done, in words.
    pub(crate) fn set_record_aside(&self, file: &Path) -> Result<String> {
        let aside = file.with_extension(DAMAGED);
        self.files().rename(file, &aside)?;
        Ok(format!(
            "renamed to {}",
            aside.file_name().unwrap_or_default().display()
        ))
    }

    /// Removes the record `file`.
    pub(crate) fn forget_dataset(&self, file: &Path) -> Result<()> {
        self.files().remove(file)
    }

    /// Notes that a data set was used now; a cache that can't be written is used all the same.
    pub(crate) fn touch_dataset_record(&self, name: &Path) {
        let _ = self
            .files()
            .layer()
            .set_modified(&self.record_path(name), SystemTime::now());
    }

    /// Remembers a data set of `count` pictures, in place of what was remembered under its name before.
    ///
    /// `sample` is asked for each picture more than once.
    pub(crate) fn save_dataset_record<'a>(
        &self,
        of: &RecordOf,
        count: usize,
        sample: &dyn Fn(usize) -> SampleRecord<'a>,
    ) -> Result<()> {
        let path = self.record_path(&of.name);
        self.files().create_folder(&self.datasets_folder())?;
        let mut file = self.files().create(&path)?;
        write(&mut file, of, count, sample).map_err(Error::io("write", &path))?;
        file.commit()
    }
}

fn write<'a>(
    file: &mut impl Write,
    of: &RecordOf,
    count: usize,
    sample: &dyn Fn(usize) -> SampleRecord<'a>,
) -> std::io::Result<()> {
    let failure_len = |sample: &SampleRecord<'_>| sample.failure.as_ref().map_or(0, |failure| failure.len());
    let mut text_bytes = 0_u64;
    for index in 0..count {
        let sample = sample(index);
        text_bytes += (path_bytes(&sample.path).len() + failure_len(&sample)) as u64;
    }
    let header = RecordHeader {
        format: FORMAT,
        kind: of.kind as u8,
        name: path_bytes(&of.name).into_owned(),
        root: path_bytes(&of.root).into_owned(),
        classes: of.classes.clone(),
        archives: of
            .archives
            .iter()
            .map(|(path, stamp)| stored_archive(path, stamp))
            .collect(),
        samples: count as u64,
        text_bytes,
    };
    let header = codec::encode_plain(&header).map_err(std::io::Error::other)?;
    let length = u32::try_from(header.len()).map_err(std::io::Error::other)?;
    let mut hasher = blake3::Hasher::new();
    let mut put = |bytes: &[u8]| {
        hasher.update(bytes);
        file.write_all(bytes)
    };
    put(MAGIC)?;
    put(&length.to_le_bytes())?;
    put(&[0; 4])?;
    put(&header)?;
    let end = 16 + header.len();
    put(&[0; ALIGNMENT][..end.next_multiple_of(ALIGNMENT) - end])?;
    let mut text = 0_u64;
    for index in 0..count {
        let sample = sample(index);
        let (path, failure) = (path_bytes(&sample.path).len(), failure_len(&sample));
        put(&entry_bytes(&sample, text, path, failure)?)?;
        text += (path + failure) as u64;
    }
    for index in 0..count {
        let sample = sample(index);
        put(&path_bytes(&sample.path))?;
        put(sample.failure.as_deref().unwrap_or_default().as_bytes())?;
    }
    let checksum = hasher.finalize();
    file.write_all(checksum.as_bytes())
}

fn stored_archive(path: &Path, stamp: &Stamp) -> StoredArchive {
    StoredArchive {
        path: path_bytes(path).into_owned(),
        size: stamp.size,
        modified_ns: stamp.modified_ns,
        changed_ns: stamp.changed_ns,
        inode: stamp.inode,
    }
}

fn entry_bytes(sample: &SampleRecord<'_>, text: u64, path: usize, failure: usize) -> std::io::Result<Vec<u8>> {
    let mut flags = 0;
    for (flag, set) in [
        (SETTLED, sample.settled),
        (HAS_CONTENT, sample.content.is_some()),
        (PARTIAL, sample.partial),
        (FAILED, sample.failure.is_some()),
    ] {
        flags |= if set { flag } else { 0 };
    }
    let length = |length: usize| u32::try_from(length).map_err(std::io::Error::other);
    let mut entry = Vec::with_capacity(ENTRY_BYTES);
    entry.extend_from_slice(&text.to_le_bytes());
    entry.extend_from_slice(&length(path)?.to_le_bytes());
    entry.extend_from_slice(&length(failure)?.to_le_bytes());
    entry.extend_from_slice(&sample.class.unwrap_or(NO_CLASS).to_le_bytes());
    entry.extend_from_slice(&[sample.split.map_or(NO_SPLIT, |split| split as u8), flags]);
    entry.resize(32, 0);
    entry.extend_from_slice(&sample.stamp.size.to_le_bytes());
    entry.extend_from_slice(&sample.stamp.modified_ns.to_le_bytes());
    entry.extend_from_slice(&sample.stamp.changed_ns.to_le_bytes());
    entry.extend_from_slice(&sample.stamp.inode.to_le_bytes());
    entry.resize(72, 0);
    entry.extend_from_slice(&sample.content.unwrap_or_default());
    Ok(entry)
}

impl DatasetRecord {
    /// Opens a record file and checks all of it.
    ///
    /// # Errors
    /// [`Error::Damaged`] when it is not what was written.
    fn open(files: &Files, path: &Path) -> Result<Self> {
        let bytes = FileBytes::open_replaceable(files, path).map_err(Error::io("read", path))?;
        Self::parse(path, bytes).map_err(|problem| Error::Damaged {
            path: path.to_path_buf(),
            problem,
        })
    }

    /// The record that a file of these bytes would be.
    pub(super) fn of_bytes(bytes: &[u8]) -> Result<Self, Problem> {
        Self::parse(Path::new("memory"), FileBytes::copied(bytes))
    }

    /// The bytes of a file of this record.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, &self.of, self.len(), &|index| self.sample(index)).expect("memory can be written");
        bytes
    }

    fn parse(path: &Path, bytes: FileBytes) -> Result<Self, Problem> {
        let Some((body, checksum)) = bytes.split_last_chunk::<CHECKSUM_BYTES>() else {
            return Err("it is too short".to_owned());
        };
        let Some(rest) = body.strip_prefix(MAGIC) else {
            return Err("it is no data set record of this version".to_owned());
        };
        let length = rest
            .first_chunk::<4>()
            .map(|length| u32::from_le_bytes(*length) as usize)
            .ok_or("it is too short")?;
        let header = rest
            .get(8..)
            .and_then(|rest| rest.get(..length))
            .ok_or("its header is cut off")?;
        if blake3::Hasher::new().update_rayon(body).finalize() != *checksum {
            return Err("its checksum does not match".to_owned());
        }
        let header: RecordHeader = codec::decode_all(header)?;
        if header.format != FORMAT {
            return Err(format!(
                "it has format {}, this program reads format {FORMAT}",
                header.format
            ));
        }
        let layout = || -> Option<(usize, usize, usize)> {
            let entries = usize::try_from(header.samples).ok()?;
            let entries_offset = (16 + length).next_multiple_of(ALIGNMENT);
            let text_offset = entries_offset.checked_add(entries.checked_mul(ENTRY_BYTES)?)?;
            let end = text_offset.checked_add(usize::try_from(header.text_bytes).ok()?)?;
            (end == body.len() && u32::try_from(entries).is_ok()).then_some((entries, entries_offset, text_offset))
        };
        let (entries, entries_offset, text_offset) = layout().ok_or("its length does not fit its header")?;
        let of = RecordOf {
            name: path_from_bytes(&header.name).into_owned(),
            kind: kind_from(header.kind).ok_or_else(|| format!("it names kind {}", header.kind))?,
            root: path_from_bytes(&header.root).into_owned(),
            classes: header.classes,
            archives: header.archives.iter().map(archive_from).collect(),
        };
        let mut record = Self {
            path: path.to_path_buf(),
            bytes,
            of,
            entries,
            entries_offset,
            text_offset,
            by_path: HashTable::new(),
        };
        record.check_entries()?;
        record.index_paths();
        Ok(record)
    }

    /// Refuses what [`DatasetRecord::sample`] could not make sense of.
    fn check_entries(&self) -> Result<(), Problem> {
        let text_len = (self.bytes.len() - CHECKSUM_BYTES - self.text_offset) as u64;
        for index in 0..self.entries {
            let entry = self.entry(index);
            let end = entry
                .text
                .checked_add(u64::from(entry.path_length) + u64::from(entry.failure_length));
            let class = entry.class == NO_CLASS || (entry.class as usize) < self.of.classes.len();
            let split = entry.split == NO_SPLIT || split_from(entry.split).is_some();
            if end.is_none_or(|end| end > text_len) || !class || !split || entry.flags & !ALL_FLAGS != 0 {
                return Err(format!("its entry {index} makes no sense"));
            }
            if std::str::from_utf8(self.text(&entry).1).is_err() {
                return Err(format!("its entry {index} is no text"));
            }
        }
        Ok(())
    }

    fn index_paths(&mut self) {
        let mut table = HashTable::with_capacity(self.entries);
        let hash = |index: &u32| hash_path(self.text(&self.entry(*index as usize)).0);
        for index in 0..self.entries {
            let index = u32::try_from(index).expect("checked when the layout was");
            table.insert_unique(hash(&index), index, hash);
        }
        self.by_path = table;
    }

    fn entry(&self, index: usize) -> Entry {
        Entry::parse(&self.bytes[self.entries_offset + index * ENTRY_BYTES..][..ENTRY_BYTES])
    }

    /// The bytes of an entry's path and of its failure.
    fn text(&self, entry: &Entry) -> (&[u8], &[u8]) {
        let start = self.text_offset + usize::try_from(entry.text).expect("checked against the file's length");
        let text = &self.bytes[start..][..entry.path_length as usize + entry.failure_length as usize];
        text.split_at(entry.path_length as usize)
    }

    /// What the record says of the data set as a whole.
    pub(crate) fn of(&self) -> &RecordOf {
        &self.of
    }

    /// Whether it was made of what `dataset` is read from: one that merely has its name says nothing of its files.
    pub(crate) fn is_of(&self, dataset: &Dataset) -> bool {
        (self.of().kind, &self.of().root) == (dataset.kind, &dataset.root)
    }

    /// The record's own file.
    pub(crate) fn file(&self) -> &Path {
        &self.path
    }

    /// The number of pictures.
    pub(crate) fn len(&self) -> usize {
        self.entries
    }

    /// The picture with an index below [`DatasetRecord::len`], in the data set's order.
    pub(crate) fn sample(&self, index: usize) -> SampleRecord<'_> {
        let entry = self.entry(index);
        let (path, failure) = self.text(&entry);
        let flag = |flag: u8| entry.flags & flag != 0;
        SampleRecord {
            path: path_from_bytes(path),
            class: (entry.class != NO_CLASS).then_some(entry.class),
            split: split_from(entry.split),
            stamp: entry.stamp,
            settled: flag(SETTLED),
            content: flag(HAS_CONTENT).then_some(entry.content),
            partial: flag(PARTIAL),
            failure: flag(FAILED).then(|| String::from_utf8_lossy(failure)),
        }
    }

    /// All pictures, in the data set's order.
    pub(crate) fn samples(&self) -> impl Iterator<Item = SampleRecord<'_>> {
        (0..self.entries).map(|index| self.sample(index))
    }

    /// The picture of this path.
    pub(crate) fn find(&self, path: &Path) -> Option<SampleRecord<'_>> {
        let wanted = path_bytes(path);
        let index = self.by_path.find(hash_path(&wanted), |index| {
            self.text(&self.entry(*index as usize)).0 == &*wanted
        })?;
        Some(self.sample(*index as usize))
    }
}

/// The fixed part of one picture in a record.
struct Entry {
    /// Where its path begins in the text, followed by its failure.
    text: u64,
    path_length: u32,
    failure_length: u32,
    class: u32,
    split: u8,
    flags: u8,
    stamp: Stamp,
    content: [u8; 32],
}

impl Entry {
    fn parse(bytes: &[u8]) -> Self {
        fn at<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
            *bytes[offset..].first_chunk::<N>().expect("an entry has 104 bytes")
        }
        Self {
            text: u64::from_le_bytes(at(bytes, 0)),
            path_length: u32::from_le_bytes(at(bytes, 8)),
            failure_length: u32::from_le_bytes(at(bytes, 12)),
            class: u32::from_le_bytes(at(bytes, 16)),
            split: bytes[20],
            flags: bytes[21],
            stamp: Stamp {
                size: u64::from_le_bytes(at(bytes, 32)),
                modified_ns: i64::from_le_bytes(at(bytes, 40)),
                changed_ns: i64::from_le_bytes(at(bytes, 48)),
                inode: u64::from_le_bytes(at(bytes, 56)),
            },
            content: at(bytes, 72),
        }
    }
}

fn archive_from(stored: &StoredArchive) -> (PathBuf, Stamp) {
    let stamp = Stamp {
        size: stored.size,
        modified_ns: stored.modified_ns,
        changed_ns: stored.changed_ns,
        inode: stored.inode,
    };
    (path_from_bytes(&stored.path).into_owned(), stamp)
}

fn kind_from(byte: u8) -> Option<DatasetKind> {
    use DatasetKind::{Archives, Folder, List, Stream, Table};
    [Folder, Table, Archives, List, Stream]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
}

fn split_from(byte: u8) -> Option<Split> {
    [Split::Train, Split::Val, Split::Test]
        .into_iter()
        .find(|split| *split as u8 == byte)
}

/// FNV-1a, widened at the end: the table wants good high bits too. Paths are the user's own, nobody attacks with them.
fn hash_path(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The bytes of a path: on Unix as they are; elsewhere as UTF-8, with replacement characters where there is none
/// (such a file is hashed anew each time).
fn path_bytes(path: &Path) -> Cow<'_, [u8]> {
    #[cfg(unix)]
    return Cow::Borrowed(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()));
    #[cfg(not(unix))]
    return match path.to_string_lossy() {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    };
}

fn path_from_bytes(bytes: &[u8]) -> Cow<'_, Path> {
    #[cfg(unix)]
    return Cow::Borrowed(Path::new(
        <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes),
    ));
    #[cfg(not(unix))]
    return Cow::Owned(PathBuf::from(String::from_utf8_lossy(bytes).into_owned()));
}

#[cfg(test)]
#[path = "datasets_tests.rs"]
pub(super) mod tests;
