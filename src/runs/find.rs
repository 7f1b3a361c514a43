//! Which runs there are, and which of them a word means.

use std::cmp::Ordering;
use std::fs;
use std::path::Path;

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use super::entry::{Run, RunState};
use super::query::look_up;
use super::writer::RunKind;
use crate::error::{Error, Result};

/// The folders in `root`, the oldest first; with `heads` also those of the heads that sweeps kept, each after its sweep.
///
/// What is no run, or a damaged one, is among them with its state. Hidden folders and files are left out. Empty where there
/// is no folder `root`.
///
/// # Errors
/// [`Error::Io`] when `root` can't be listed.
pub fn list_runs(root: &Path, heads: bool) -> Result<Vec<Run>> {
    if !root.exists() {
        return Ok(Vec::new());
    }
    let names = folders_in(root).map_err(Error::io("list", root))?;
    let with_heads = |name: &String| {
        let run = Run::read(&root.join(name), name);
        let mut found = vec![run];
        if heads && found[0].kind == Some(RunKind::Sweep) {
            let folder = found[0].folder.clone();
            // What can't be listed has no head to show.
            for child in folders_in(&folder).unwrap_or_default() {
                found.push(Run::read(&folder.join(&child), &format!("{name}/{child}")));
            }
        }
        found
    };
    let found: Vec<Vec<Run>> = names.par_iter().map(with_heads).collect();
    Ok(found.into_iter().flatten().collect())
}

/// The names of the folders in `folder`, sorted: those of runs by their time.
fn folders_in(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && entry.path().is_dir() {
            names.push(name);
        }
    }
    names.sort_by(|left, right| natural(left, right));
    Ok(names)
}

/// The order in which people count: `run-9` before `run-10`, `run` before both.
fn natural(left: &str, right: &str) -> Ordering {
    let (mut left_rest, mut right_rest) = (left, right);
    let digits = |text: &str| {
        text.len()
            - text
                .trim_start_matches(|character: char| character.is_ascii_digit())
                .len()
    };
    loop {
        let (a, b) = (digits(left_rest), digits(right_rest));
        let order = if a > 0 && b > 0 {
            let (number_a, number_b) = (
                left_rest[..a].trim_start_matches('0'),
                right_rest[..b].trim_start_matches('0'),
            );
            (left_rest, right_rest) = (&left_rest[a..], &right_rest[b..]);
            number_a.len().cmp(&number_b.len()).then_with(|| number_a.cmp(number_b))
        } else {
            let (mut in_left, mut in_right) = (left_rest.chars(), right_rest.chars());
            let (character_a, character_b) = (in_left.next(), in_right.next());
            if character_a.is_none() && character_b.is_none() {
                return left.cmp(right);
            }
            (left_rest, right_rest) = (in_left.as_str(), in_right.as_str());
            character_a.cmp(&character_b)
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// The run in `root` that `word` means: `latest`, `best` (by validation accuracy, then loss, the first of equal ones), a
/// folder, its name, the name that the run was given, or the beginning of its folder's name.
///
/// # Errors
/// [`Error::UnknownRun`] when there is none, [`Error::AmbiguousRun`] when several begin so.
pub fn find_run(root: &Path, word: &str) -> Result<Run> {
    let runs = list_runs(root, true)?;
    let unknown = |runs: &[Run]| Error::UnknownRun {
        run: word.to_owned(),
        root: root.to_path_buf(),
        latest: runs.iter().rev().find(|run| is_run(run)).map(|run| run.id.clone()),
    };
    match word {
        "latest" => {
            let top = runs.iter().filter(|run| !run.id.contains('/') && is_run(run));
            let newest = top.max_by_key(|run| run.record["created"].as_str());
            return newest.cloned().ok_or_else(|| unknown(&runs));
        }
        "best" => return best(&runs).cloned().ok_or_else(|| unknown(&runs)),
        _ => {}
    }
    let plain = word.trim_end_matches(['/', std::path::MAIN_SEPARATOR]);
    if let Some(run) = runs.iter().find(|run| run.id == plain) {
        return Ok(run.clone());
    }
    let path = Path::new(word);
    if path.join(super::RUN).is_file() {
        // Among these runs it has its name here; elsewhere the folder's.
        let same = |run: &&Run| fs::canonicalize(&run.folder).ok() == fs::canonicalize(path).ok();
        let name = path.file_name().map_or(word.into(), |name| name.to_string_lossy());
        return Ok(runs
            .iter()
            .find(same)
            .cloned()
            .unwrap_or_else(|| Run::read(path, &name)));
    }
    let matching =
        |test: &dyn Fn(&Run) -> bool| -> Vec<&Run> { runs.iter().filter(|run| is_run(run) && test(run)).collect() };
    let named = matching(&|run| run.record["name"].as_str() == Some(plain));
    let begin = || {
        let mut begin = matching(&|run| run.id.starts_with(plain));
        // A sweep is meant, not its heads.
        if begin.iter().any(|run| !run.id.contains('/')) {
            begin.retain(|run| !run.id.contains('/'));
        }
        begin
    };
    let found = if named.is_empty() { begin() } else { named };
    match found[..] {
        [] => Err(unknown(&runs)),
        [run] => Ok(run.clone()),
        _ => Err(Error::AmbiguousRun {
            run: word.to_owned(),
            root: root.to_path_buf(),
            runs: found.iter().map(|run| run.id.clone()).collect(),
        }),
    }
}

fn is_run(run: &Run) -> bool {
    run.state != RunState::Foreign
}

/// The complete run of a head with the highest accuracy in validation (of folds: their mean), of equal ones that with the
/// lowest loss.
fn best(runs: &[Run]) -> Option<&Run> {
    let complete = runs
        .iter()
        .filter(|run| run.state == RunState::Complete && run.kind == Some(RunKind::Head));
    let number = |run: &Run, key: &str| look_up(&run.record, key).and_then(serde_json::Value::as_f64);
    let scored = complete.filter_map(|run| {
        let either = |key: &str, other: &str| number(run, key).or_else(|| number(run, other));
        let loss = either("metrics.val_loss", "metrics.mean_loss").unwrap_or(f64::INFINITY);
        Some((run, either("metrics.val_accuracy", "metrics.mean_accuracy")?, loss))
    });
    let better = |best: (_, f64, f64), other: (_, f64, f64)| {
        let wins = other.1 > best.1 || (other.1 == best.1 && other.2 < best.2);
        if wins { other } else { best }
    };
    scored.reduce(better).map(|(run, ..)| run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_people_count() {
        let mut names = [
            "b-10", "b-9", "b", "a-002", "a-1", "a-01", "2-b", "10-b", "", "é2", "é10",
        ];
        names.sort_by(|left, right| natural(left, right));
        assert_eq!(
            names,
            [
                "", "2-b", "10-b", "a-01", "a-1", "a-002", "b", "b-9", "b-10", "é2", "é10"
            ]
        );
    }
}
