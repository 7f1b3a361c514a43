//! Which pictures there are, and what each of them is labelled.
//!
//! A [`Dataset`] is a list of samples with, where the input says so, a class and a split. It reads directory entries,
//! tables and the headers of archives: pictures are read, hashed and decoded further down the line. What has no split
//! gets one from the content hashes once these are known ([`split`]).

pub(crate) mod archive;
mod folder;
mod folds;
mod labels;
mod open;
pub(crate) mod pattern;
mod problems;
mod record;
mod split;
mod stamp;
pub(crate) mod table;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::disk::lossy_list;

pub(crate) use archive::{ArchiveStream, expand_shards};
pub(crate) use folder::absolute;
pub(crate) use folds::{assign_folds, thin_classes};
pub(crate) use labels::LabelIds;
pub(crate) use open::no_sample;
pub use open::{InputOptions, Opened, StreamedArchive, StreamedDataset};
pub(crate) use problems::Examined;
pub use problems::{IdenticalPictures, MissingClass, PictureIn, Problems};
pub(crate) use record::SampleRecord;
pub(crate) use split::{SplitInput, assign_splits, join_groups};
pub(crate) use stamp::Stamp;
pub use table::TableColumns;
#[cfg(test)]
pub(crate) use table::read_table;

/// A set of pictures, labelled or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// What the cache remembers it by, absolute: the folder, the table, the archives, or a made-up name.
    pub name: PathBuf,
    /// What it was read from.
    pub kind: DatasetKind,
    /// The folder that paths are relative to, absolute.
    pub root: PathBuf,
    /// Class names; a class id is an index into it. Sorted by code point as torchvision's `ImageFolder` sorts them, or
    /// by value where all are integers that a table or an archive gives. Empty where nothing is labelled.
    pub classes: Vec<String>,
    /// The pictures. Of folders: by split (train, val, test), then class, then path; otherwise as they are listed.
    pub samples: Vec<Sample>,
    /// The archives that [`Storage::Member`] counts, below [`Dataset::root`].
    pub archives: Vec<PathBuf>,
    /// Their stamps before they were listed: a change since then shows.
    pub(crate) stamps: Vec<Stamp>,
    /// What lies in the folder and is not part of the data set.
    pub ignored: Ignored,
    /// Things a careful person would want to know, one line each.
    pub warnings: Vec<String>,
}

/// One picture of a [`Dataset`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Path below [`Dataset::root`]; of a picture in an archive, the archive's path and the member's name.
    pub path: PathBuf,
    /// Index into [`Dataset::classes`]; `None` where there is no label.
    pub class: Option<u32>,
    /// The split that its folder or its row names; `None` where the content hash decides.
    pub split: Option<Split>,
    /// Where its bytes are.
    pub storage: Storage,
}

impl Sample {
    /// Whether a head may be trained on it: it is labelled, and in the training split or, where the contents decide that,
    /// could come to be.
    #[must_use]
    pub fn may_train(&self) -> bool {
        may_train(self.class, self.split)
    }
}

/// [`Sample::may_train`] of a picture with this class and split.
pub(crate) fn may_train(class: Option<u32>, split: Option<Split>) -> bool {
    class.is_some() && matches!(split, Some(Split::Train) | None)
}

/// Where the bytes of a [`Sample`] are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// A file of its own.
    File,
    /// A part of an archive.
    Member {
        /// Index into [`Dataset::archives`].
        archive: u32,
        /// Of the first byte in the archive.
        offset: u64,
        /// In bytes.
        length: u64,
    },
    /// Nowhere: an archive breaks off or is damaged, and what follows can't be had. The sample stands for all of that.
    Lost,
}

/// What a data set was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DatasetKind {
    /// A folder: one folder per class, or none.
    #[default]
    Folder,
    /// A table of paths.
    Table,
    /// Tar archives that can be read at any place.
    Archives,
    /// A list of paths that was given once.
    List,
    /// Archives that can be read from front to back only.
    Stream,
}

/// The warning that [`Dataset::take_val_from_train`] leaves.
pub(crate) const VAL_FROM_TRAIN: &str = "there is no val split: the validation pictures are taken out of train";

impl Dataset {
    /// Where everything trains and nothing validates, the content hashes shall decide which pictures do.
    pub(crate) fn take_val_from_train(&mut self) {
        let has = |split: Split| self.samples.iter().any(|sample| sample.split == Some(split));
        if !has(Split::Train) || has(Split::Val) {
            return;
        }
        self.warnings.push(VAL_FROM_TRAIN.to_owned());
        for sample in self
            .samples
            .iter_mut()
            .filter(|sample| sample.split == Some(Split::Train))
        {
            sample.split = None;
        }
    }

    /// The archives with their stamps before they were listed.
    pub(crate) fn archive_stamps(&self) -> Vec<(PathBuf, Stamp)> {
        self.archives.iter().cloned().zip(self.stamps.iter().copied()).collect()
    }

    /// The stamp of what holds a sample's bytes. `archives`: as [`Dataset::archive_stamps`] gave them.
    pub(crate) fn stamp_of(&self, sample: &Sample, archives: &[(PathBuf, Stamp)]) -> Stamp {
        match sample.storage {
            Storage::File => Stamp::of_file(&self.root.join(&sample.path)),
            Storage::Member { archive, .. } => archives[archive as usize].1,
            Storage::Lost => Stamp::default(),
        }
    }
}

/// What part of a data set a picture belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
    /// Adds what was left out elsewhere.
    pub(crate) fn add(&mut self, other: Self) {
        self.hidden += other.hidden;
        self.foreign += other.foreign;
        other.examples.into_iter().for_each(|path| self.note_example(path));
    }

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
