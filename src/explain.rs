//! Why a picture's feature would be computed again, or would not: which of its bytes and which field of the feature space.

mod summary;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::iter::{IntoParallelIterator, ParallelIterator};
use serde::Serialize;
use serde_json::Value;

use crate::cache::{Cache, DatasetRecord, Origin, RowKey, Space};
use crate::dataset::{Dataset, SampleRecord, absolute};
use crate::disk::lossy;
use crate::error::Result;
use crate::picture::{Limits, Truncated};
use crate::space::SpaceDescription;
use crate::supply;

use summary::Summary;

/// What the cache has of some pictures; serialises as the command's JSON.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// The id of the space that was asked for; null when the backbone is not known.
    pub wanted: Option<String>,
    /// Pictures looked at.
    pub images: usize,
    /// Those that `extract` would reuse.
    pub hits: usize,
    /// The others, by cause.
    pub misses: BTreeMap<Cause, usize>,
    /// The spaces of the cache.
    pub spaces: Vec<SpaceExplanation>,
    /// The pictures one by one: of a data set those that are missed.
    pub pictures: Vec<PictureExplanation>,
}

/// A space, beside the one that was asked for.
#[derive(Debug, Clone, Serialize)]
pub struct SpaceExplanation {
    /// Its id.
    pub space: String,
    /// What its backbone was called.
    pub backbone: Option<String>,
    /// How many of the pictures have a row in it.
    pub rows: usize,
    /// How many random views of the pictures have a row in it.
    pub views: usize,
    /// The fields in which it differs from the one that was asked for.
    pub differs: Vec<Difference>,
}

/// A field of two spaces that is not the same.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The field, such as `transform.exif`.
    pub field: String,
    /// Its value in the space of the cache; null where it has none.
    pub here: Value,
    /// Its value in the space that was asked for.
    pub wanted: Value,
}

/// What the cache has of one picture.
#[derive(Debug, Clone, Serialize)]
pub struct PictureExplanation {
    /// The file.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// blake3 of its bytes, hexadecimal; null when they can't be read.
    pub content: Option<String>,
    /// Why it is missed; null when it is not.
    pub miss: Option<Cause>,
    /// The same in words.
    pub detail: String,
    /// What there is of these bytes in each space.
    pub rows: Vec<RowExplanation>,
    /// What data sets remember of the path.
    pub remembered: Vec<Remembered>,
}

/// What there is of a picture in a space.
#[derive(Debug, Clone, Serialize)]
pub struct RowExplanation {
    /// The space's id.
    pub space: String,
    /// What there is.
    pub row: RowState,
    /// The random views that have a row, by their numbers as the rows' keys have them.
    pub views: Vec<u32>,
}

/// What there is of a picture in a space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RowState {
    /// A row whose checksum is right.
    Present,
    /// A row of what there is of a picture that is cut off.
    Partial,
    /// A row that is not what was written.
    Damaged,
    /// None.
    Absent,
}

/// What a data set remembers of a path.
#[derive(Debug, Clone, Serialize)]
pub struct Remembered {
    /// The data set.
    #[serde(serialize_with = "lossy")]
    pub dataset: PathBuf,
    /// blake3 of the bytes that it had, hexadecimal.
    pub content: Option<String>,
    /// Whether the bytes are the same now.
    pub same_bytes: bool,
    /// Why it had no feature.
    pub failure: Option<String>,
}

/// Why a picture is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The bytes are in the cache, in other spaces.
    OtherSpace,
    /// The path was extracted with other bytes.
    BytesChanged,
    /// Neither the path nor the bytes were extracted.
    NeverExtracted,
    /// The last `extract` could not use it.
    FailedBefore,
    /// There was a row, and there is none now.
    RowGone,
    /// The row is not what was written.
    RowDamaged,
    /// The file is cut off, and there is a row of what there is of it, which was not asked for.
    Truncated,
    /// It can't be read.
    Unreadable,
}

/// A space of the cache, opened.
struct Opened {
    id: String,
    origin: Option<Origin>,
    rows: Space,
    differs: Vec<Difference>,
}

/// What is looked at.
struct Subject<'a> {
    path: PathBuf,
    source: supply::Source,
    remembered: Vec<(&'a Path, SampleRecord<'a>)>,
    /// The content, where the file's stamp says that it is still the one that is remembered.
    known: Option<[u8; 32]>,
}

/// What of a subject decides.
struct Found {
    explanation: PictureExplanation,
    content: Option<[u8; 32]>,
    present: Vec<bool>,
}

/// Says what the cache has of the picture in the file `path`, in the space of `wanted` and in the others.
///
/// `truncated`: whether a feature of what there is of a picture that is cut off counts.
///
/// # Errors
/// When the cache can't be read.
pub fn explain_picture(
    cache: &Cache,
    path: &Path,
    wanted: Option<&SpaceDescription>,
    truncated: Truncated,
) -> Result<Explanation> {
    let path = absolute(path)?;
    let spaces = open_spaces(cache, wanted)?;
    let records = records(cache)?;
    let remembered = records.iter().filter_map(|record| {
        let below = path.strip_prefix(&record.of().root).unwrap_or(&path);
        let sample = record.find(below).or_else(|| record.find(&path))?;
        Some((record.of().name.as_path(), sample))
    });
    let subject = Subject {
        source: supply::Source::File(path.clone()),
        remembered: remembered.collect(),
        known: None,
        path,
    };
    let found = look_at(subject, &spaces, wanted, truncated);
    Ok(Summary::new(spaces.len()).add(found, true).explanation(spaces, wanted))
}

/// Says of how many pictures of `dataset` the cache has what is wanted, and of the others why not. Reads those pictures
/// whose size and times are not those of the last `extract`.
///
/// # Errors
/// When the cache can't be read.
pub fn explain_dataset(
    cache: &Cache,
    dataset: &Dataset,
    wanted: Option<&SpaceDescription>,
    truncated: Truncated,
) -> Result<Explanation> {
    let spaces = open_spaces(cache, wanted)?;
    let record = cache
        .dataset_record(&dataset.name)?
        .filter(|record| record.is_of(dataset));
    let archives = dataset.archive_stamps();
    let look = |index: usize| {
        let sample = &dataset.samples[index];
        let remembered = record.as_ref().and_then(|record| record.find(&sample.path));
        let stamp = dataset.stamp_of(sample, &archives);
        let settled = remembered
            .as_ref()
            .filter(|sample| sample.settled && sample.stamp == stamp);
        let subject = Subject {
            path: dataset.root.join(&sample.path),
            source: supply::source_of(dataset, index),
            known: settled.and_then(|sample| sample.content),
            remembered: remembered
                .into_iter()
                .map(|sample| (dataset.name.as_path(), sample))
                .collect(),
        };
        look_at(subject, &spaces, wanted, truncated)
    };
    let none = || Summary::new(spaces.len());
    let found = (0..dataset.samples.len()).into_par_iter().map(look);
    let summary = found
        .fold(none, |summary, found| summary.add(found, false))
        .reduce(none, Summary::join);
    Ok(summary.explanation(spaces, wanted))
}

fn open_spaces(cache: &Cache, wanted: Option<&SpaceDescription>) -> Result<Vec<Opened>> {
    let mut opened = Vec::new();
    for (space, origin) in cache.spaces()? {
        let Some(rows) = cache.open_space(&space)? else {
            continue;
        };
        let differs = wanted.map_or_else(Vec::new, |wanted| {
            let mut differs = Vec::new();
            let here = serde_json::from_str(space.json()).unwrap_or(Value::Null);
            let wanted = serde_json::from_str(wanted.space().json()).unwrap_or(Value::Null);
            compare("", &here, &wanted, &mut differs);
            differs
        });
        opened.push(Opened {
            id: space.id().to_string(),
            origin,
            rows,
            differs,
        });
    }
    Ok(opened)
}

fn records(cache: &Cache) -> Result<Vec<DatasetRecord>> {
    let mut records = Vec::new();
    for file in cache.dataset_record_files()? {
        match cache.open_dataset_record(&file) {
            Ok(record) => records.push(record),
            Err(error) => tracing::warn!("{error}"),
        }
    }
    Ok(records)
}

/// Adds the leaves in which two values differ.
fn compare(field: &str, here: &Value, wanted: &Value, differs: &mut Vec<Difference>) {
    if let (Value::Object(left), Value::Object(right)) = (here, wanted) {
        let mut names: Vec<&String> = left
            .keys()
            .chain(right.keys().filter(|name| !left.contains_key(*name)))
            .collect();
        names.dedup();
        for name in names {
            let field = if field.is_empty() {
                name.clone()
            } else {
                format!("{field}.{name}")
            };
            let value = |object: &serde_json::Map<String, Value>| object.get(name).cloned().unwrap_or_default();
            compare(&field, &value(left), &value(right), differs);
        }
    } else if here != wanted {
        differs.push(Difference {
            field: field.to_owned(),
            here: here.clone(),
            wanted: wanted.clone(),
        });
    }
}

fn hex(content: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*content).to_hex().to_string()
}

fn look_at(subject: Subject<'_>, spaces: &[Opened], wanted: Option<&SpaceDescription>, truncated: Truncated) -> Found {
    let Subject {
        path,
        source,
        remembered,
        known,
    } = subject;
    let content = match known {
        Some(content) => Ok(content),
        None => supply::read(source, &Limits::default())
            .1
            .map(|(bytes, _room)| *blake3::hash(&bytes).as_bytes()),
    };
    let remembered: Vec<Remembered> = remembered
        .into_iter()
        .map(|(dataset, sample)| Remembered {
            dataset: dataset.to_path_buf(),
            content: sample.content.as_ref().map(hex),
            same_bytes: sample.content.is_some() && sample.content == content.as_ref().ok().copied(),
            failure: sample.failure.map(Cow::into_owned),
        })
        .collect();
    let explained = |content: Option<[u8; 32]>, miss, detail: String, states: &[RowState]| Found {
        content,
        present: states
            .iter()
            .map(|state| matches!(state, RowState::Present | RowState::Partial))
            .collect(),
        explanation: PictureExplanation {
            path: path.clone(),
            content: content.as_ref().map(hex),
            miss,
            detail,
            rows: spaces
                .iter()
                .zip(states)
                .map(|(space, row)| RowExplanation {
                    space: space.id.clone(),
                    row: *row,
                    views: Vec::new(),
                })
                .collect(),
            remembered: remembered.clone(),
        },
    };
    let content = match content {
        Ok(content) => content,
        Err(error) => {
            let absent = vec![RowState::Absent; spaces.len()];
            return explained(None, Some(Cause::Unreadable), error.to_string(), &absent);
        }
    };
    let states: Vec<RowState> = spaces.iter().map(|space| state_of(&space.rows, content)).collect();
    let (miss, detail) = verdict(&states, spaces, wanted, truncated, &remembered);
    explained(Some(content), miss, detail, &states)
}

fn state_of(rows: &Space, content: [u8; 32]) -> RowState {
    let (plain, partial) = (RowKey::plain(content), RowKey::partial(content));
    if rows.row(&plain).is_some() {
        RowState::Present
    } else if rows.row(&partial).is_some() {
        RowState::Partial
    } else if rows.contains(&plain) || rows.contains(&partial) {
        RowState::Damaged
    } else {
        RowState::Absent
    }
}

/// Why `extract` would compute the picture, or that it would not.
fn verdict(
    states: &[RowState],
    spaces: &[Opened],
    wanted: Option<&SpaceDescription>,
    truncated: Truncated,
    remembered: &[Remembered],
) -> (Option<Cause>, String) {
    let id = wanted.map(|wanted| wanted.space().id().to_string());
    let in_wanted = spaces
        .iter()
        .zip(states)
        .find(|(space, _)| id.as_ref() == Some(&space.id));
    let elsewhere: Vec<&Opened> = spaces
        .iter()
        .zip(states)
        .filter(|(space, state)| id.as_ref() != Some(&space.id) && **state == RowState::Present)
        .map(|(space, _)| space)
        .collect();
    match in_wanted.map(|(_, state)| *state) {
        Some(RowState::Present) => return (None, "its feature is in the cache".to_owned()),
        Some(RowState::Damaged) => {
            let detail = "its row is damaged: `extract` computes it again".to_owned();
            return (Some(Cause::RowDamaged), detail);
        }
        Some(RowState::Partial) => {
            let miss = (truncated == Truncated::Reject).then_some(Cause::Truncated);
            let detail = "the file is cut off: there is a feature of what there is of it, used with --accept-truncated";
            return (miss, detail.to_owned());
        }
        Some(RowState::Absent) | None => {}
    }
    if wanted.is_none() && !elsewhere.is_empty() {
        return (None, "its feature is in the cache".to_owned());
    }
    if wanted.is_none() && states.contains(&RowState::Damaged) {
        let detail = "its row is damaged: `extract` computes it again".to_owned();
        return (Some(Cause::RowDamaged), detail);
    }
    if let Some(closest) = elsewhere.iter().min_by_key(|space| space.differs.len()) {
        let differs = closest.differs.iter().map(ToString::to_string);
        let detail = format!(
            "its bytes have a feature in space {}, which differs in {}",
            &closest.id[..8],
            differs.collect::<Vec<_>>().join("; ")
        );
        return (Some(Cause::OtherSpace), detail);
    }
    if let Some(same) = remembered.iter().find(|remembered| remembered.same_bytes) {
        return match &same.failure {
            Some(failure) => (
                Some(Cause::FailedBefore),
                format!("`extract` could not use it: {failure}"),
            ),
            None => (
                Some(Cause::RowGone),
                "it was extracted, and its row is no longer there".to_owned(),
            ),
        };
    }
    if let Some(other) = remembered.iter().find_map(|remembered| remembered.content.as_ref()) {
        let detail = format!(
            "its bytes are others than when it was extracted (blake3 {}… then)",
            &other[..16]
        );
        return (Some(Cause::BytesChanged), detail);
    }
    match remembered.iter().find_map(|remembered| remembered.failure.as_ref()) {
        Some(failure) => (
            Some(Cause::FailedBefore),
            format!("`extract` could not read it: {failure}"),
        ),
        None => (
            Some(Cause::NeverExtracted),
            "neither its path nor its bytes were extracted".to_owned(),
        ),
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {} there, {} wanted", self.field, self.here, self.wanted)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn differences_name_the_leaf() {
        let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let (here, wanted) = (
            value(r#"{"a":1,"t":{"exif":"apply","crop":224},"old":true}"#),
            value(r#"{"a":1,"t":{"exif":"ignore","crop":224},"new":[1]}"#),
        );
        let mut differs = Vec::new();
        compare("", &here, &wanted, &mut differs);
        let lines: Vec<String> = differs.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                r#"t.exif: "apply" there, "ignore" wanted"#,
                "old: true there, null wanted",
                "new: null there, [1] wanted",
            ]
        );
        let mut none = Vec::new();
        compare("", &here, &here, &mut none);
        assert!(none.is_empty());
    }
}
