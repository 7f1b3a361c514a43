//! Which pictures a data set has, and which content each of them had when its features were extracted.
//!
//! While the data set is there, its listing says what belongs to it and how it is labelled, and each file's size and times
//! say whether the cache has seen just these bytes. When it is gone, or could be read once only, what `extract` remembered
//! of it is used.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use regex::Regex;

use crate::cache::{Cache, DatasetRecord, PARTIAL, RowKey};
use crate::dataset::{
    Dataset, DatasetKind, Examined, InputOptions, Problems, Sample, SampleRecord, Split, Stamp, Storage, absolute,
    expand_shards,
};
use crate::error::{Error, Result};
use crate::picture::Completeness;
use crate::views::View;

/// A picture whose content is known, before its row is looked up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// Its number in the listing's source.
    pub(super) number: usize,
    pub(super) class: Option<u32>,
    pub(super) key: RowKey,
    pub(super) split: Option<Split>,
    /// Whether the last `extract` could not decode it; one with other limits may have.
    pub(super) failed: bool,
}

impl Known {
    /// The key of a view's row.
    pub(super) fn key_of(&self, view: View) -> RowKey {
        let completeness = match self.key.view & PARTIAL {
            0 => Completeness::Whole,
            _ => Completeness::Partial,
        };
        view.key(self.key.content, completeness)
    }
}

/// Where the paths of a listing are.
pub(super) enum Paths {
    Dataset(Dataset),
    Record(DatasetRecord),
}

/// The pictures of a data set whose content is known.
pub(super) struct Listing {
    pub(super) name: PathBuf,
    pub(super) classes: Vec<String>,
    pub(super) paths: Paths,
    pub(super) seen: Seen,
    pub(super) warnings: Vec<String>,
}

/// What `extract` has seen of the pictures.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) known: Vec<Known>,
    /// Files that could not even be read.
    pub(super) unreadable: usize,
    /// Files that `extract` has not seen as they are now: how many, and the first.
    pub(super) unseen: usize,
    pub(super) first_unseen: Option<PathBuf>,
}

impl Listing {
    pub(super) fn of(cache: &Cache, dataset: &Path, input: &InputOptions) -> Result<Self> {
        let name = input.name_of(dataset)?;
        let record = cache.dataset_record(&name)?;
        let shards = expand_shards(dataset)?;
        if shards.is_none() && dataset.exists() {
            let dataset = Dataset::open_plain(dataset, input)?;
            return Ok(Self::of_dataset(dataset, record.as_ref()));
        }
        match record {
            Some(record) => Ok(Self::of_record(record, &shards.unwrap_or_default())),
            None => Err(Error::UnknownDataset {
                path: input.name.as_deref().unwrap_or(dataset).to_path_buf(),
                cache: cache.root().to_path_buf(),
            }),
        }
    }

    fn of_dataset(dataset: Dataset, record: Option<&DatasetRecord>) -> Self {
        let record = record.filter(|record| record.is_of(&dataset));
        let archives = dataset.archive_stamps();
        let look_up = |sample: &Sample| {
            let found = record?.find(&sample.path)?;
            // A file that can't be looked at now could not be read then: both have the default stamp.
            let stamp = dataset.stamp_of(sample, &archives);
            (found.stamp == stamp && (found.settled || has_content(&dataset, sample, &found))).then_some(found)
        };
        let found: Vec<Option<SampleRecord<'_>>> = dataset.samples.par_iter().map(look_up).collect();
        let mut seen = Seen::default();
        for (number, (sample, found)) in dataset.samples.iter().zip(found).enumerate() {
            // Labels are the data set's of now, contents those that were hashed.
            seen.add(number, &sample.path, sample.class, sample.split, found.as_ref());
        }
        Self {
            name: dataset.name.clone(),
            classes: dataset.classes.clone(),
            warnings: dataset.warnings.clone(),
            seen,
            paths: Paths::Dataset(dataset),
        }
    }

    /// `shards`: the archives that the data set's name leads to now, if any.
    fn of_record(record: DatasetRecord, shards: &[PathBuf]) -> Self {
        let of = record.of();
        let (mut seen, mut warnings) = (Seen::default(), Vec::new());
        // Files and archives that changed.
        let mut stale: HashSet<PathBuf> = HashSet::new();
        // What the record was made of may be there, though it can't be listed again: then it has to be what it was.
        let changed = |path: &Path, stamp: Stamp| path.exists() && Stamp::of_file(path) != stamp;
        match of.kind {
            DatasetKind::Folder if !of.root.exists() => {
                warnings.push(format!(
                    "{} is gone: using what was remembered of it",
                    of.name.display()
                ));
            }
            DatasetKind::Archives | DatasetKind::Stream => {
                let changed = of
                    .archives
                    .iter()
                    .filter(|(path, stamp)| changed(&of.root.join(path), *stamp));
                stale.extend(changed.map(|(path, _)| path.clone()));
                let remembered: HashSet<PathBuf> = of.archives.iter().map(|(path, _)| of.root.join(path)).collect();
                let is_new = |shard: &&PathBuf| absolute(shard).is_ok_and(|shard| !remembered.contains(&shard));
                seen.note_unseen(&shards.iter().filter(is_new).map(PathBuf::as_path).collect::<Vec<_>>());
            }
            DatasetKind::Folder | DatasetKind::Table | DatasetKind::List => {
                if of.kind != DatasetKind::List {
                    warnings.push(format!(
                        "{} is not there: using what was remembered under this name; what has been added since is not \
                         seen",
                        of.name.display()
                    ));
                }
                let changed = |sample: &SampleRecord<'_>| changed(&of.root.join(&sample.path), sample.stamp);
                stale.extend(record.samples().filter(changed).map(|sample| sample.path.into_owned()));
            }
        }
        for (number, sample) in record.samples().enumerate() {
            let is_stale = !stale.is_empty() && sample.path.ancestors().any(|path| stale.contains(path));
            let found = (!is_stale).then_some(&sample);
            seen.add(number, &sample.path, sample.class, sample.split, found);
        }
        Self {
            name: of.name.clone(),
            classes: of.classes.clone(),
            warnings,
            seen,
            paths: Paths::Record(record),
        }
    }

    pub(super) fn path(&self, number: usize) -> Cow<'_, Path> {
        match &self.paths {
            Paths::Dataset(dataset) => Cow::Borrowed(&dataset.samples[number].path),
            Paths::Record(record) => record.sample(number).path,
        }
    }

    /// For each of `usable` the hash of its group's name; a path without a match is a group of its own.
    pub(super) fn groups(&mut self, usable: &[Known], pattern: &Regex) -> Vec<[u8; 32]> {
        let mut alone = 0_usize;
        let mut group = |known: &Known| {
            let path = self.path(known.number);
            let text = path.to_string_lossy().replace('\\', "/");
            let captures = pattern.captures(&text);
            let name = captures
                .as_ref()
                .and_then(|captures| captures.get(1).or_else(|| captures.get(0)));
            match name {
                Some(name) => *blake3::hash(name.as_str().as_bytes()).as_bytes(),
                None => {
                    alone += 1;
                    known.key.content
                }
            }
        };
        let groups = usable.iter().map(&mut group).collect();
        if alone == usable.len() {
            self.warnings
                .push(format!("no path matches `{pattern}`: it keeps nothing together"));
        } else if alone > 0 {
            self.warnings.push(format!(
                "{alone} of {} paths do not match `{pattern}`: each of them is a group of its own",
                usable.len()
            ));
        }
        groups
    }

    /// What is wrong with `usable` pictures, each in its split and in its group if there are any.
    pub(super) fn problems(&self, usable: &[Known], splits: &[Option<Split>], groups: Option<&[[u8; 32]]>) -> Problems {
        Problems::find(&self.classes, usable.len(), &|index| {
            let known = &usable[index];
            Some(Examined {
                path: self.path(known.number),
                class: known.class,
                split: splits[index],
                content: known.key.content,
                group: groups.map(|groups| groups[index]),
            })
        })
    }

    pub(super) fn not_extracted(&self, missing: usize, example: Option<PathBuf>) -> Error {
        let total = self.seen.known.len() + self.seen.unreadable + self.seen.unseen;
        Error::NotExtracted {
            path: self.name.clone(),
            missing,
            total,
            example,
        }
    }
}

/// Whether a file that was written just before it was hashed still has the content of then: its stamp can't tell.
fn has_content(dataset: &Dataset, sample: &Sample, remembered: &SampleRecord<'_>) -> bool {
    let (Storage::File, Some(content)) = (sample.storage, remembered.content) else {
        return true;
    };
    let bytes = std::fs::read(dataset.root.join(&sample.path));
    bytes.is_ok_and(|bytes| blake3::hash(&bytes) == content)
}

impl Seen {
    fn note_unseen(&mut self, paths: &[&Path]) {
        self.unseen += paths.len();
        if self.first_unseen.is_none() {
            self.first_unseen = paths.first().map(|path| path.to_path_buf());
        }
    }

    fn add(
        &mut self,
        number: usize,
        path: &Path,
        class: Option<u32>,
        split: Option<Split>,
        found: Option<&SampleRecord<'_>>,
    ) {
        let failed = found.is_some_and(|found| found.failure.is_some());
        match found.and_then(|found| Some((found, found.content?))) {
            Some((found, content)) => self.known.push(Known {
                number,
                class,
                key: if found.partial {
                    RowKey::partial(content)
                } else {
                    RowKey::plain(content)
                },
                split,
                failed,
            }),
            None if failed => self.unreadable += 1,
            None => self.note_unseen(&[path]),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::cache::RecordOf;

    #[test]
    fn a_stamp_that_can_not_tell_a_change_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap().join("pictures");
        for class in ["a", "b"] {
            std::fs::create_dir_all(root.join(class)).unwrap();
            std::fs::write(root.join(class).join("1.png"), class).unwrap();
        }
        let dataset = Dataset::scan(&root).unwrap();
        let cache = Cache::new(&folder.path().join("cache"));
        let of = RecordOf {
            name: root.clone(),
            kind: DatasetKind::Folder,
            root: root.clone(),
            classes: dataset.classes.clone(),
            archives: Vec::new(),
        };
        // Of the first file the record has other bytes under the stamp of now.
        let unseen = |settled: bool| {
            let sample = |index: usize| {
                let sample = &dataset.samples[index];
                let bytes: &[u8] = if index == 0 { b"other" } else { b"b" };
                SampleRecord {
                    path: sample.path.as_path().into(),
                    class: sample.class,
                    split: sample.split,
                    stamp: Stamp::of_file(&root.join(&sample.path)),
                    settled,
                    content: Some(*blake3::hash(bytes).as_bytes()),
                    partial: false,
                    failure: None,
                }
            };
            cache.save_dataset_record(&of, 2, &sample).unwrap();
            Listing::of(&cache, &root, &InputOptions::default())
                .unwrap()
                .seen
                .unseen
        };
        assert_eq!((unseen(false), unseen(true)), (1, 0));
    }
}
