//! Which pictures there are, and what each of them is labelled.
//!
//! A [`Dataset`] is a list of samples with a class and, where the folders say so, a split. It reads directory entries
//! only: bytes are read, hashed and decoded further down the line. Flat folders get their split from the content
//! hashes once these are known ([`split`]).

mod folder;
mod record;
mod split;
mod stamp;
#[cfg_attr(not(test), expect(dead_code, reason = "data sets are not read from tables yet"))]
mod table;

use std::path::PathBuf;

use serde::Serialize;

use crate::disk::lossy_list;

pub(crate) use folder::absolute;
pub(crate) use record::{DatasetRecord, SampleRecord};
pub(crate) use split::{SplitInput, assign_splits};
pub(crate) use stamp::Stamp;
pub use table::TableColumns;
#[cfg(test)]
pub(crate) use table::read_table;

/// A labelled set of pictures below one folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// The folder, absolute.
    pub root: PathBuf,
    /// Class names, sorted by code point as torchvision's `ImageFolder` sorts them; a class id is an index into it.
    pub classes: Vec<String>,
    /// The pictures: by split (train, val, test), then class, then path.
    pub samples: Vec<Sample>,
    /// What lies in the folder and is not part of the data set.
    pub ignored: Ignored,
    /// Things a careful person would want to know, one line each.
    pub warnings: Vec<String>,
}

/// One picture of a [`Dataset`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Path below [`Dataset::root`].
    pub path: PathBuf,
    /// Index into [`Dataset::classes`].
    pub class: u32,
    /// The split its folder names; `None` where the content hash decides.
    pub split: Option<Split>,
}

/// What part of a data set a picture belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// The head is trained on these.
    Train,
    /// The best epoch is chosen on these.
    Val,
    /// Kept aside; neither trained on nor chosen by.
    Test,
}

impl Split {
    /// The name, as in folder names and output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        }
    }

    /// The split that a word names, in any case: `train`, `training`; `val`, `valid`, `validation`, `dev`; `test`,
    /// `testing`. `None` for any other word.
    #[must_use]
    pub fn from_name(word: &str) -> Option<Self> {
        let names = |words: &[&str]| words.iter().any(|known| word.eq_ignore_ascii_case(known));
        if names(&["train", "training"]) {
            Some(Self::Train)
        } else if names(&["val", "valid", "validation", "dev"]) {
            Some(Self::Val)
        } else if names(&["test", "testing"]) {
            Some(Self::Test)
        } else {
            None
        }
    }
}

/// Counts of what lies in a data set's folder and is not part of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Ignored {
    /// Hidden files and folders (their name starts with a dot).
    pub hidden: u64,
    /// Files whose extension is not one of [`EXTENSIONS`].
    pub foreign: u64,
    /// Up to five of their paths below the root.
    #[serde(serialize_with = "lossy_list")]
    pub examples: Vec<PathBuf>,
}

impl Ignored {
    fn note_example(&mut self, path: PathBuf) {
        if self.examples.len() < 5 {
            self.examples.push(path);
        }
    }
}

/// The file extensions that count as pictures, in any case: torchvision's `IMG_EXTENSIONS`.
pub const EXTENSIONS: [&str; 9] = ["jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp"];

/// Whether torchvision's `ImageFolder` would take a file of this name as a picture.
pub(crate) fn has_picture_extension(path: &std::path::Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known)))
}
