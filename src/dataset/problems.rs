//! What is wrong with a data set as a whole: the same picture under two labels or in two splits, a class that a split
//! lacks. Found from the content hashes, reported and never mended: only the user knows which copy is right.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use rayon::slice::ParallelSliceMut;
use serde::Serialize;

use super::Split;
use crate::disk::lossy;

/// Problems listed one by one for people; programs get all of them.
const LISTED: usize = 5;

/// One picture whose content is known.
#[derive(Debug, Clone)]
pub(crate) struct Examined<'a> {
    pub(crate) path: Cow<'a, Path>,
    pub(crate) class: Option<u32>,
    pub(crate) split: Option<Split>,
    pub(crate) content: [u8; 32],
    /// Hash of the group that the user's pattern puts it into.
    pub(crate) group: Option<[u8; 32]>,
}

/// What a careful person would want to know of a data set before trusting a number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Problems {
    /// Byte-identical pictures that do not all have the same label.
    pub identical_with_different_labels: Vec<IdenticalPictures>,
    /// Byte-identical pictures in more than one split.
    pub identical_across_splits: Vec<IdenticalPictures>,
    /// Groups, as `--group-by` makes them, with pictures in more than one split: one picture of each split.
    pub groups_across_splits: Vec<Vec<PictureIn>>,
    /// Classes without a picture in a split that has pictures of other classes.
    pub classes_missing: Vec<MissingClass>,
}

/// Pictures with the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IdenticalPictures {
    /// blake3 of the bytes, hexadecimal.
    pub content: String,
    /// All of them, in the data set's order.
    pub pictures: Vec<PictureIn>,
}

/// Where a picture is and what it is said to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PictureIn {
    /// Path below the data set's root.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// Class name.
    pub label: Option<String>,
    /// Its split, once it has one.
    pub split: Option<Split>,
}

/// A class that a split lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MissingClass {
    /// Class name.
    pub class: String,
    /// The split.
    pub split: Split,
}

impl Problems {
    /// Looks through `count` pictures, whose classes index `classes`; those that are `None` are passed over.
    ///
    /// `picture` is asked for each of them more than once: a list of millions would be held in vain.
    pub(crate) fn find<'a>(
        classes: &[String],
        count: usize,
        picture: &(dyn Fn(usize) -> Option<Examined<'a>> + Sync),
    ) -> Self {
        let describe = |picture: &Examined<'_>| PictureIn {
            path: picture.path.to_path_buf(),
            label: picture.class.map(|class| classes[class as usize].clone()),
            split: picture.split,
        };
        let mut problems = Self {
            classes_missing: missing_classes(classes, (0..count).filter_map(picture)),
            ..Self::default()
        };
        let content = |index: usize| picture(index).map(|picture| picture.content);
        for_each_equal(count, &content, &mut |equal| {
            let equal: Vec<Examined<'_>> = equal.iter().filter_map(|index| picture(*index as usize)).collect();
            let identical = || IdenticalPictures {
                content: blake3::Hash::from_bytes(equal[0].content).to_hex().to_string(),
                pictures: equal.iter().map(describe).collect(),
            };
            if !all_equal(equal.iter().filter_map(|picture| picture.class)) {
                problems.identical_with_different_labels.push(identical());
            }
            if !all_equal(equal.iter().filter_map(|picture| picture.split)) {
                problems.identical_across_splits.push(identical());
            }
        });
        let group = |index: usize| picture(index).and_then(|picture| picture.group);
        for_each_equal(count, &group, &mut |equal| {
            let equal: Vec<Examined<'_>> = equal.iter().filter_map(|index| picture(*index as usize)).collect();
            if !all_equal(equal.iter().filter_map(|picture| picture.split)) {
                let first = |split| equal.iter().find(|picture| picture.split == Some(split));
                let firsts = [Split::Train, Split::Val, Split::Test].into_iter().filter_map(first);
                problems.groups_across_splits.push(firsts.map(describe).collect());
            }
        });
        problems
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The problems in words, one line each; a few of each kind.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let name = |picture: &PictureIn| format!("`{}`", picture.path.display());
        listed(
            &mut lines,
            &self.identical_with_different_labels,
            "identical pictures with different labels",
            |identical| {
                let pictures = identical
                    .pictures
                    .iter()
                    .map(|picture| format!("{} as {}", name(picture), picture.label.as_deref().unwrap_or("nothing")));
                format!(
                    "the same picture has different labels: {}",
                    pictures.collect::<Vec<_>>().join(", ")
                )
            },
        );
        let in_splits = |pictures: &[PictureIn]| {
            let pictures = pictures
                .iter()
                .map(|picture| format!("{} in {}", name(picture), picture.split.map_or("no split", Split::name)));
            pictures.collect::<Vec<_>>().join(", ")
        };
        listed(
            &mut lines,
            &self.identical_across_splits,
            "identical pictures across splits",
            |identical| {
                format!(
                    "the same picture is in several splits: {}",
                    in_splits(&identical.pictures)
                )
            },
        );
        listed(
            &mut lines,
            &self.groups_across_splits,
            "groups across splits",
            |pictures| format!("one group is in several splits: {}", in_splits(pictures)),
        );
        listed(
            &mut lines,
            &self.classes_missing,
            "classes missing in a split",
            |missing| format!("class `{}` has no picture in {}", missing.class, missing.split.name()),
        );
        lines
    }
}

fn listed<T>(lines: &mut Vec<String>, problems: &[T], kind: &str, line: impl Fn(&T) -> String) {
    lines.extend(problems.iter().take(LISTED).map(line));
    if problems.len() > LISTED {
        lines.push(format!("and {} more {kind}; --json lists all", problems.len() - LISTED));
    }
}

fn all_equal<T: PartialEq>(mut values: impl Iterator<Item = T>) -> bool {
    let first = values.next();
    first.is_none_or(|first| values.all(|value| value == first))
}

/// Calls `found` with the numbers of each set of two or more pictures of equal key, by key, in their own order.
fn for_each_equal(count: usize, key: &(dyn Fn(usize) -> Option<[u8; 32]> + Sync), found: &mut dyn FnMut(&[u32])) {
    let mut order: Vec<u32> = (0..count)
        .filter(|index| key(*index).is_some())
        .map(|index| u32::try_from(index).expect("a record has fewer than 2^32 pictures"))
        .collect();
    order.par_sort_unstable_by_key(|index| (key(*index as usize), *index));
    let same = |left: &u32, right: &u32| key(*left as usize) == key(*right as usize);
    order.chunk_by(same).filter(|equal| equal.len() > 1).for_each(found);
}

fn missing_classes<'a>(classes: &[String], pictures: impl Iterator<Item = Examined<'a>>) -> Vec<MissingClass> {
    let splits = [Split::Train, Split::Val, Split::Test];
    let mut counts = vec![[0_u64; 3]; classes.len()];
    for picture in pictures {
        if let (Some(class), Some(split)) = (picture.class, picture.split) {
            counts[class as usize][split as usize] += 1;
        }
    }
    let mut missing = Vec::new();
    for split in splits {
        if counts.iter().all(|count| count[split as usize] == 0) {
            continue;
        }
        for (class, count) in classes.iter().zip(&counts) {
            if count[split as usize] == 0 {
                missing.push(MissingClass {
                    class: class.clone(),
                    split,
                });
            }
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(path: &'static str, class: u32, split: Split, content: u8) -> Examined<'static> {
        Examined {
            path: Path::new(path).into(),
            class: Some(class),
            split: Some(split),
            content: [content; 32],
            group: Some([path.as_bytes()[0]; 32]),
        }
    }

    #[test]
    fn same_bytes_under_two_labels_or_in_two_splits_and_missing_classes_are_found() {
        let classes = ["cat".to_owned(), "dog".to_owned(), "owl".to_owned()];
        let pictures = [
            picture("a1", 0, Split::Train, 1),
            picture("b1", 1, Split::Train, 1),
            picture("c1", 1, Split::Train, 2),
            picture("d1", 1, Split::Val, 2),
            picture("a2", 0, Split::Val, 3),
            picture("e1", 2, Split::Train, 4),
            picture("e2", 2, Split::Train, 4),
        ];
        let find = |classes: &[String], pictures: &[Examined<'static>]| {
            Problems::find(classes, pictures.len(), &|index| Some(pictures[index].clone()))
        };
        let problems = find(&classes, &pictures);
        let paths = |identical: &[IdenticalPictures]| -> Vec<Vec<String>> {
            let names = |pictures: &[PictureIn]| {
                pictures
                    .iter()
                    .map(|picture| picture.path.display().to_string())
                    .collect()
            };
            identical.iter().map(|identical| names(&identical.pictures)).collect()
        };
        assert_eq!(paths(&problems.identical_with_different_labels), [["a1", "b1"]]);
        assert_eq!(paths(&problems.identical_across_splits), [["c1", "d1"]]);
        assert_eq!(problems.groups_across_splits.len(), 1);
        assert_eq!(
            problems.lines(),
            [
                "the same picture has different labels: `a1` as cat, `b1` as dog",
                "the same picture is in several splits: `c1` in train, `d1` in val",
                "one group is in several splits: `a1` in train, `a2` in val",
                "class `owl` has no picture in val",
            ]
        );
        assert!(
            find(&classes[..2], &pictures[4..5])
                .lines()
                .contains(&"class `dog` has no picture in val".to_owned())
        );
        assert!(find(&classes[2..], &[]).is_empty());
    }
}
