//! How often a test split was looked at: a number chosen after looking is no longer one of unseen pictures.
//!
//! Each head that is scored on a test split leaves a note in the cache. The same head on the same pictures gives the same
//! numbers, so looking again counts no second time; a test split is known by the data set's name and by its pictures.

use std::collections::HashSet;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::error::Error;
use crate::head::LinearHead;

/// One use of a test split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TestUse {
    /// The data set's name.
    pub dataset: String,
    /// blake3 of the sorted contents of the pictures, in hexadecimal.
    pub pictures: String,
    /// The head file as it was named.
    pub head: String,
    /// blake3 of the head's weights, in hexadecimal.
    pub head_blake3: String,
    /// When it was, in seconds since 1970-01-01 UTC.
    pub time: u64,
    /// How many pictures.
    pub images: usize,
    /// The accuracy that was shown.
    pub accuracy: f64,
}

/// The uses of a test split up to now.
#[derive(Debug)]
pub struct TestUses {
    /// How many different heads were scored on it, this one included: 1 is the one use that a test split is for.
    pub heads: usize,
    /// The first of the other heads' uses.
    pub first: Option<TestUse>,
    /// Why this use could not be noted.
    pub not_noted: Option<Error>,
}

impl TestUse {
    pub(super) fn of(
        dataset: &Path,
        contents: &mut [[u8; 32]],
        (path, head): (&Path, &LinearHead),
        accuracy: f64,
    ) -> Self {
        contents.sort_unstable();
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            dataset: dataset.display().to_string(),
            pictures: blake3::hash(contents.as_flattened()).to_hex().to_string(),
            head: path.display().to_string(),
            head_blake3: hash_of(head),
            time: since.map_or(0, |since| since.as_secs()),
            images: contents.len(),
            accuracy,
        }
    }

    /// The day in UTC: `2026-11-24`.
    #[must_use]
    pub fn date(&self) -> String {
        let [year, month, day] = date_of(self.time / (24 * 60 * 60));
        format!("{year:04}-{month:02}-{day:02}")
    }

    /// Says what was noted before, and notes this use.
    pub(super) fn note(&self, cache: &Cache) -> TestUses {
        let parse = |text: String| serde_json::from_str::<Self>(&text).ok();
        let mut earlier: Vec<Self> = cache.test_use_notes().into_iter().filter_map(parse).collect();
        earlier.retain(|other| {
            (other.dataset == self.dataset || other.pictures == self.pictures) && other.head_blake3 != self.head_blake3
        });
        let heads: HashSet<&str> = earlier.iter().map(|other| other.head_blake3.as_str()).collect();
        let heads = heads.len() + 1;
        let identity = [self.dataset.as_bytes(), b"\0", self.head_blake3.as_bytes()].concat();
        let name = blake3::hash(&identity).to_hex();
        let text = serde_json::to_string(self).expect("a note is plain data");
        TestUses {
            heads,
            first: earlier.into_iter().min_by_key(|other| other.time),
            not_noted: cache.keep_test_use_note(&name.as_str()[..32], &text).err(),
        }
    }
}

/// What makes two heads give the same numbers.
fn hash_of(head: &LinearHead) -> String {
    let mut hasher = blake3::Hasher::new();
    for value in head.weight().iter().chain(head.bias()) {
        hasher.update(&value.to_le_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// Year, month and day of a number of days since 1970-01-01.
fn date_of(days: u64) -> [u64; 3] {
    // Years begin in March here, so that the leap day is a year's last; 400 of them have 146,097 days.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    [era * 400 + year + u64::from(month <= 2), month, day]
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use ndarray::{Array1, Array2};

    use super::*;

    fn head(value: f32) -> LinearHead {
        LinearHead::new(Array2::from_elem((2, 3), value), Array1::zeros(2)).unwrap()
    }

    fn used(cache: &Cache, dataset: &str, contents: &[u8], value: f32) -> TestUses {
        let mut contents: Vec<[u8; 32]> = contents.iter().map(|byte| [*byte; 32]).collect();
        TestUse::of(
            Path::new(dataset),
            &mut contents,
            (Path::new("some.head"), &head(value)),
            0.5,
        )
        .note(cache)
    }

    #[test]
    fn each_head_counts_once_for_a_name_or_the_same_pictures() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path());
        let heads = |dataset: &str, contents: &[u8], value: f32| {
            let uses = used(&cache, dataset, contents, value);
            assert!(uses.not_noted.is_none());
            assert_eq!(uses.first.is_some(), uses.heads > 1);
            uses.heads
        };
        assert_eq!(heads("a", &[1, 2], 0.0), 1);
        assert_eq!(heads("a", &[1, 2], 0.0), 1, "the same head again");
        assert_eq!(heads("a", &[1, 2], 1.0), 2);
        assert_eq!(heads("a", &[1, 2, 3], 2.0), 3, "a picture more is the same test split");
        assert_eq!(heads("b", &[2, 1], 3.0), 3, "the same pictures under another name");
        assert_eq!(heads("c", &[7], 3.0), 1, "other pictures under another name");
        assert_eq!(
            heads("a", &[1, 2], 0.0),
            4,
            "what came later counts for the first head too"
        );
    }

    #[test]
    fn a_note_that_can_not_be_read_or_kept_stops_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path());
        assert_eq!(used(&cache, "a", &[1], 0.0).heads, 1);
        std::fs::write(folder.path().join("test_uses/other.json"), "{\"dataset\":").unwrap();
        std::fs::write(folder.path().join("test_uses/notes.txt"), "mine").unwrap();
        assert_eq!(used(&cache, "a", &[1], 1.0).heads, 2);
        // A file where the folder should be.
        let root = folder.path().join("broken");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join("test_uses"), "").unwrap();
        let uses = used(&Cache::new(&root), "a", &[1], 0.0);
        assert!(uses.heads == 1 && uses.not_noted.is_some());
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date_of(0), [1970, 1, 1]);
        assert_eq!(date_of(59), [1970, 3, 1]);
        assert_eq!(date_of(11_016), [2000, 2, 29]);
        assert_eq!(date_of(11_017), [2000, 3, 1]);
        assert_eq!(date_of(20_781), [2026, 11, 24]);
        // Every day follows the one before.
        let lengths = |year: u64| {
            let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
            [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
        };
        let mut days = 0;
        for year in 1970..2110 {
            for (month, length) in (1..).zip(lengths(year)) {
                for day in 1..=length {
                    assert_eq!(date_of(days), [year, month, day]);
                    days += 1;
                }
            }
        }
    }
}
