//! Which archives an argument means, and what their names say.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::dataset::{Split, has_picture_extension, pattern};
use crate::error::{Error, Result};

/// More archives than any data set has; a slip like `{0..10000000000}` is refused before it fills the memory.
const MOST_SHARDS: usize = 1_000_000;

/// The archives that `argument` means, or `None` when it means something else than archives.
///
/// An archive; a name with ranges or alternatives in braces (`train-{000..146}.tar`, `{train,val}/*.tar`) or with
/// wildcards; a folder that holds archives, itself or in folders of split names, and no pictures. Braces keep their
/// order; what comes from a folder or a wildcard is sorted by name.
///
/// # Errors
/// When archives are named that are not there, or a folder can't be listed.
pub(crate) fn expand_shards(argument: &Path) -> Result<Option<Vec<PathBuf>>> {
    if argument.is_dir() {
        return folder_of_shards(argument);
    }
    if argument.exists() {
        return Ok(is_archive_name(argument).then(|| vec![argument.to_path_buf()]));
    }
    // Names that are no text can be given as they are, without a pattern.
    let Some(text) = argument.to_str() else {
        return Ok(None);
    };
    let names = expand_braces(text).ok_or_else(|| {
        Error::Usage(format!(
            "`{text}` names more than {MOST_SHARDS} archives: check the range in its braces"
        ))
    })?;
    let has_braces = names.len() > 1 || names[0] != text;
    if !has_braces && !pattern::is_pattern(text) {
        return Ok(None);
    }
    let mut shards = Vec::new();
    let mut missing = Vec::new();
    for name in names {
        let path = PathBuf::from(&name);
        if path.exists() || !pattern::is_pattern(&name) {
            if !path.exists() {
                missing.push(name);
            }
            shards.push(path);
            continue;
        }
        let found = pattern::matching(&name)?;
        if found.is_empty() {
            missing.push(name);
        }
        shards.extend(found);
    }
    let means_archives =
        is_archive_name(argument) || (!shards.is_empty() && shards.iter().all(|path| is_archive_name(path)));
    if !means_archives {
        return Ok(None);
    }
    if let Some(first) = missing.first() {
        let others = match missing.len() {
            1 => String::new(),
            count => format!(", and {} more of the archives named", count - 1),
        };
        return Err(Error::Dataset {
            path: PathBuf::from(first),
            problem: format!("does not exist{others}"),
            hint: format!("check the path, and the range or pattern in `{text}`"),
        });
    }
    shards.retain(|path| is_archive_name(path) && !path.is_dir());
    let mut seen = HashSet::new();
    shards.retain(|path| seen.insert(path.clone()));
    Ok(Some(shards))
}

/// Whether a file of this name is an archive: `.tar`, or `.tar.gz` and `.tgz`.
pub(crate) fn is_archive_name(path: &Path) -> bool {
    ends_with(path, ".tar") || is_packed(path)
}

/// Whether an archive of this name is packed with gzip, and can be read from front to back only.
pub(crate) fn is_packed(path: &Path) -> bool {
    ends_with(path, ".tar.gz") || ends_with(path, ".tgz")
}

fn ends_with(path: &Path, end: &str) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let start = name.len().checked_sub(end.len());
    start.is_some_and(|start| start > 0 && name[start..].eq_ignore_ascii_case(end.as_bytes()))
}

/// The split that a shard's place says: its folder's name, else a word of its own name (`imagenet-train-000123.tar`).
pub(crate) fn shard_split(path: &Path) -> Option<Split> {
    let folder = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
    if let Some(split) = folder.and_then(Split::from_name) {
        return Some(split);
    }
    let name = path.file_name()?.to_string_lossy();
    let mut words = name
        .split(|letter: char| !letter.is_alphanumeric())
        .filter_map(Split::from_name);
    let split = words.next()?;
    // A name with two of them says neither.
    words.all(|other| other == split).then_some(split)
}

/// The archives in a folder, or in its split folders; `None` for a folder of something else.
fn folder_of_shards(folder: &Path) -> Result<Option<Vec<PathBuf>>> {
    let top = Listing::of(folder)?;
    if top.has_pictures {
        return Ok(None);
    }
    if top.folders.is_empty() {
        return Ok(Some(top.archives).filter(|archives| !archives.is_empty()));
    }
    let mut splits = Vec::new();
    for folder in &top.folders {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        match Split::from_name(&name) {
            Some(split) => splits.push((split, folder)),
            None => return Ok(None),
        }
    }
    if !top.archives.is_empty() {
        return Ok(None);
    }
    splits.sort();
    let mut shards = Vec::new();
    for (_, folder) in splits {
        let inner = Listing::of(folder)?;
        if inner.has_pictures || !inner.folders.is_empty() {
            return Ok(None);
        }
        shards.extend(inner.archives);
    }
    Ok(Some(shards).filter(|shards| !shards.is_empty()))
}

/// The visible entries of a folder, sorted by name.
struct Listing {
    archives: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    has_pictures: bool,
}

impl Listing {
    fn of(folder: &Path) -> Result<Self> {
        let mut listing = Self {
            archives: Vec::new(),
            folders: Vec::new(),
            has_pictures: false,
        };
        for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
            let path = entry.map_err(Error::io("list", folder))?.path();
            let is_hidden = path
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if is_hidden {
                continue;
            }
            // Only what may be either costs a look at the file system.
            if is_archive_name(&path) && !path.is_dir() {
                listing.archives.push(path);
            } else if has_picture_extension(&path) {
                listing.has_pictures = true;
                return Ok(listing);
            } else if path.is_dir() {
                listing.folders.push(path);
            }
        }
        listing.archives.sort();
        listing.folders.sort();
        Ok(listing)
    }
}

/// What the braces in `text` stand for, as in a shell: ranges `{0..9}`, `{000..146}`, `{9..0..3}` and alternatives
/// `{a,b}`, which may hold others. `None` when that is too much.
fn expand_braces(text: &str) -> Option<Vec<String>> {
    let Some((before, inner, after)) = first_brace(text) else {
        return Some(vec![text.to_owned()]);
    };
    let middles = match range(inner) {
        Some(range) => range?,
        None => {
            let mut middles = Vec::new();
            for alternative in alternatives(inner) {
                middles.extend(expand_braces(alternative)?);
            }
            middles
        }
    };
    let rests = expand_braces(after)?;
    if middles.len().checked_mul(rests.len())? > MOST_SHARDS {
        return None;
    }
    let joined = middles
        .iter()
        .flat_map(|middle| rests.iter().map(move |rest| format!("{before}{middle}{rest}")));
    Some(joined.collect())
}

/// The first pair of braces that stands for something, with what lies before, in and behind it.
fn first_brace(text: &str) -> Option<(&str, &str, &str)> {
    for (start, _) in text.match_indices('{') {
        let mut depth = 0_usize;
        for (end, letter) in text[start..].char_indices() {
            match letter {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                let inner = &text[start + 1..start + end];
                if range(inner).is_some() || alternatives(inner).count() > 1 {
                    return Some((&text[..start], inner, &text[start + end + 1..]));
                }
                break;
            }
        }
    }
    None
}

/// The parts of `inner` between the commas that are in no inner braces.
fn alternatives(inner: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    inner.split(move |letter| {
        match letter {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        letter == ',' && depth == 0
    })
}

/// The numbers of a range like `000..146` or `10..0..5`: `None` if it is none, `Some(None)` if they are too many.
fn range(inner: &str) -> Option<Option<Vec<String>>> {
    let mut parts = inner.split("..");
    let (first, last) = (parts.next()?, parts.next()?);
    let step: i64 = parts.next().map_or(Some(1), |step| step.parse().ok())?;
    let number = |text: &str| text.parse::<i64>().ok();
    let (from, to) = (number(first)?, number(last)?);
    if parts.next().is_some() {
        return None;
    }
    // As shells do: one bound with leading zeros sets the width of all.
    let digits = |text: &str| text.trim_start_matches('-').len();
    let padded = |text: &str| digits(text) > 1 && text.trim_start_matches('-').starts_with('0');
    let width = if padded(first) || padded(last) {
        first.len().max(last.len())
    } else {
        0
    };
    let step = step.unsigned_abs().max(1);
    let steps = from.abs_diff(to) / step;
    if steps >= MOST_SHARDS as u64 || width > 64 {
        return Some(None);
    }
    let numbers = (0..=steps).map(|index| {
        // Within the bounds, so that nothing overflows.
        let distance = i128::from(index) * i128::from(step);
        let number = i128::from(from) + if from <= to { distance } else { -distance };
        format!("{number:0width$}")
    });
    Some(Some(numbers.collect()))
}
