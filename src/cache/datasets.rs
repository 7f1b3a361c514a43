//! Records of data sets in the cache: which content each path had when its features were extracted.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::codec::{self, StoredRecord, StoredSample};
use super::store::Cache;
use crate::dataset::{DatasetRecord, SampleRecord, Split, Stamp};
use crate::disk;
use crate::error::{Error, Result};

const MAGIC: &[u8; 8] = b"LLDATA01";
const FORMAT: u32 = 1;

impl Cache {
    fn record_path(&self, root: &Path) -> PathBuf {
        let hash = blake3::hash(&path_bytes(root)).to_hex();
        self.datasets_folder().join(&hash.as_str()[..32])
    }

    /// What was remembered of the data set in the folder `root` (absolute); `None` when there is nothing usable.
    ///
    /// # Errors
    /// When the record is there and can't be read from disk.
    pub(crate) fn dataset_record(&self, root: &Path) -> Result<Option<DatasetRecord>> {
        let path = self.record_path(root);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        match parse(&bytes) {
            Ok(record) if record.root == root => Ok(Some(record)),
            Ok(_) => Ok(None),
            Err(problem) => {
                tracing::warn!("{}: {problem}; the files will be hashed again", path.display());
                Ok(None)
            }
        }
    }

    /// Remembers a data set, in place of what was remembered of its folder before.
    pub(crate) fn save_dataset_record(&self, record: &DatasetRecord) -> Result<()> {
        let path = self.record_path(&record.root);
        disk::create_folder(&self.datasets_folder())?;
        let bytes = to_bytes(record).map_err(|problem| Error::io("write", &path)(std::io::Error::other(problem)))?;
        disk::write_atomically(&path, &[&bytes])
    }
}

/// The record that a file of these bytes is.
pub(super) fn parse(bytes: &[u8]) -> Result<DatasetRecord, String> {
    codec::decode_document::<StoredRecord>(MAGIC, bytes).and_then(from_stored)
}

/// The bytes of the file that keeps `record`.
pub(super) fn to_bytes(record: &DatasetRecord) -> Result<Vec<u8>, String> {
    codec::encode_document(MAGIC, &to_stored(record))
}

fn to_stored(record: &DatasetRecord) -> StoredRecord {
    let samples = record.samples.iter().map(|sample| StoredSample {
        path: path_bytes(&sample.path),
        class: sample.class,
        split: sample.split.map(|split| split as u8),
        size: sample.stamp.size,
        modified_ns: sample.stamp.modified_ns,
        changed_ns: sample.stamp.changed_ns,
        inode: sample.stamp.inode,
        settled: sample.settled,
        content: sample.content,
        failure: sample.failure.clone(),
    });
    StoredRecord {
        format: FORMAT,
        root: path_bytes(&record.root),
        classes: record.classes.clone(),
        samples: samples.collect(),
    }
}

fn from_stored(stored: StoredRecord) -> Result<DatasetRecord, String> {
    if stored.format != FORMAT {
        return Err(format!(
            "it has format {}, this program reads format {FORMAT}",
            stored.format
        ));
    }
    let classes = stored.classes.len();
    let sample = |sample: StoredSample| {
        if sample.class as usize >= classes {
            return Err(format!("it names class {} of {classes}", sample.class));
        }
        let split = match sample.split {
            None => None,
            Some(0) => Some(Split::Train),
            Some(1) => Some(Split::Val),
            Some(2) => Some(Split::Test),
            Some(other) => return Err(format!("it names split {other}")),
        };
        let StoredSample {
            size,
            modified_ns,
            changed_ns,
            inode,
            ..
        } = sample;
        Ok(SampleRecord {
            path: path_from_bytes(sample.path),
            class: sample.class,
            split,
            stamp: Stamp {
                size,
                modified_ns,
                changed_ns,
                inode,
            },
            settled: sample.settled,
            content: sample.content,
            failure: sample.failure,
        })
    };
    let samples = stored.samples.into_iter().map(sample).collect::<Result<_, _>>()?;
    Ok(DatasetRecord {
        root: path_from_bytes(stored.root),
        classes: stored.classes,
        samples,
    })
}

/// The bytes of a path: on Unix as they are; elsewhere as UTF-8, with replacement characters where there is none
/// (such a file is hashed anew each time).
fn path_bytes(path: &Path) -> Vec<u8> {
    #[cfg(unix)]
    return std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).to_vec();
    #[cfg(not(unix))]
    return path.to_string_lossy().into_owned().into_bytes();
}

fn path_from_bytes(bytes: Vec<u8>) -> PathBuf {
    #[cfg(unix)]
    return PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes));
    #[cfg(not(unix))]
    return PathBuf::from(String::from_utf8_lossy(&bytes).into_owned());
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip_by_folder() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path());
        let sample = SampleRecord {
            path: path_from_bytes(b"train/a/\xff odd name.jpg".to_vec()),
            class: 1,
            split: Some(Split::Val),
            stamp: Stamp {
                size: 5,
                modified_ns: -7,
                changed_ns: 9,
                inode: 11,
            },
            settled: true,
            content: Some([3; 32]),
            failure: None,
        };
        let failed = SampleRecord {
            split: None,
            content: None,
            failure: Some(("truncated".into(), "ends early".into())),
            ..sample.clone()
        };
        let record = DatasetRecord {
            root: PathBuf::from("/data/cats"),
            classes: vec!["a".to_owned(), "b".to_owned()],
            samples: vec![sample, failed],
        };
        assert_eq!(cache.dataset_record(&record.root).unwrap(), None);
        cache.save_dataset_record(&record).unwrap();
        assert_eq!(cache.dataset_record(&record.root).unwrap(), Some(record.clone()));
        assert_eq!(cache.dataset_record(Path::new("/data/dogs")).unwrap(), None);
        let other = DatasetRecord {
            samples: Vec::new(),
            ..record.clone()
        };
        cache.save_dataset_record(&other).unwrap();
        assert_eq!(cache.dataset_record(&record.root).unwrap(), Some(other));
        fs::write(cache.record_path(&record.root), b"LLDATA01 damaged").unwrap();
        assert_eq!(cache.dataset_record(&record.root).unwrap(), None);
    }
}
