//! What the file system says about a file without reading it.

use std::fs::Metadata;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Size, times and inode of a file: while they stay the same, so do its bytes.
///
/// Used only to avoid hashing a file again; a feature's identity is the hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stamp {
    /// Length in bytes.
    pub(crate) size: u64,
    /// Last change of the content, nanoseconds since 1970.
    pub(crate) modified_ns: i64,
    /// Last change of the inode, nanoseconds since 1970; nobody can set it back. 0 where there is none.
    pub(crate) changed_ns: i64,
    /// The inode; 0 where there is none.
    pub(crate) inode: u64,
}

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        let (changed_ns, inode) = inode_of(metadata);
        let modified_ns = metadata.modified().map_or(0, nanoseconds);
        Self {
            size: metadata.len(),
            modified_ns,
            changed_ns,
            inode,
        }
    }

    /// The stamp of the file now; default where there is none.
    pub(crate) fn of_file(path: &Path) -> Self {
        std::fs::metadata(path).map_or_else(|_| Self::default(), |metadata| Self::of(&metadata))
    }

    /// Whether the file had been left alone for a while at `now`, so that a later change must show in its times.
    ///
    /// File systems keep times in steps of up to two seconds: a file written within the step in which it was hashed
    /// can change without its stamp changing.
    pub(crate) fn settled(&self, now: SystemTime) -> bool {
        let limit = nanoseconds(now) - i64::try_from(Duration::from_secs(2).as_nanos()).expect("two seconds fit");
        self.modified_ns.max(self.changed_ns) < limit
    }
}

fn nanoseconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |nanoseconds| -nanoseconds),
    }
}

#[cfg(unix)]
fn inode_of(metadata: &Metadata) -> (i64, u64) {
    use std::os::unix::fs::MetadataExt;
    (
        metadata
            .ctime()
            .saturating_mul(1_000_000_000)
            .saturating_add(metadata.ctime_nsec()),
        metadata.ino(),
    )
}

#[cfg(not(unix))]
fn inode_of(_metadata: &Metadata) -> (i64, u64) {
    (0, 0)
}
