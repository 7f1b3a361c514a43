//! Which runs there are, and which of them a word means.

use std::cmp::Ordering;
use std::fs;
use std::path::{MAIN_SEPARATOR, Path};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use super::best::best;
use super::entry::{Run, RunState};
use super::query::{RunFilter, check_keys};
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

/// The run in `root` that `word` means:
///
/// - `latest`, the newest one, whatever became of it;
/// - `best`, of one data set: the head with the highest accuracy on the validation pictures, of equal ones that with the
///   lowest loss. Where there are cross-validations only, that of the highest mean;
/// - either of them with [conditions](RunFilter), as in `best:dataset=cats,solver=lbfgs` or `best:folds>1`;
/// - a folder, its name, the name that the run was given, or the beginning of its folder's name;
/// - a head that a sweep kept: any of these and its rank, as in `latest/1`.
///
/// # Errors
/// [`Error::UnknownRun`] and [`Error::UnknownHead`] when there is none, [`Error::AmbiguousRun`] when several begin so,
/// [`Error::SeveralDatasets`] when `best` could be of several data sets, [`Error::Usage`] for conditions that are none.
pub fn find_run(root: &Path, word: &str) -> Result<Run> {
    find_among(&list_runs(root, true)?, root, word)
}

fn find_among(runs: &[Run], root: &Path, word: &str) -> Result<Run> {
    let unknown = || Error::UnknownRun {
        run: word.to_owned(),
        root: root.to_path_buf(),
        latest: latest(runs.iter()).map(|run| run.id.clone()),
    };
    if let Some((chosen, filters)) = Chosen::parse(word)? {
        let keys: Vec<&str> = filters.iter().map(RunFilter::key).collect();
        check_keys(runs, &keys, root)?;
        let fulfils = |run: &&Run| filters.iter().all(|filter| filter.accepts(&run.record));
        let found = match chosen {
            Chosen::Latest => latest(runs.iter().filter(fulfils)),
            Chosen::Best => best(root, runs.iter().filter(fulfils))?,
        };
        return found.cloned().ok_or_else(unknown);
    }
    let plain = word.trim_end_matches(['/', MAIN_SEPARATOR]);
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
    if let Some((sweep, head)) = plain.rsplit_once(['/', MAIN_SEPARATOR])
        && let Ok(rank) = head.parse::<u64>()
    {
        return head_of(find_among(runs, root, sweep)?, rank, word);
    }
    let matching = |test: &dyn Fn(&Run) -> bool| -> Vec<&Run> {
        let known = runs.iter().filter(|run| run.state != RunState::Foreign);
        known.filter(|run| test(run)).collect()
    };
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
        [] => Err(unknown()),
        [run] => Ok(run.clone()),
        _ => Err(Error::AmbiguousRun {
            run: word.to_owned(),
            root: root.to_path_buf(),
            runs: found.iter().map(|run| run.id.clone()).collect(),
        }),
    }
}

/// A word that means a run by what is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chosen {
    Latest,
    Best,
}

impl Chosen {
    /// Reads `best`, `latest`, or one of them with conditions after a colon; `None` for any other word.
    fn parse(word: &str) -> Result<Option<(Self, Vec<RunFilter>)>> {
        let (name, conditions) = match word.split_once(':') {
            Some((name, conditions)) => (name, Some(conditions)),
            None => (word, None),
        };
        let chosen = match name {
            "latest" => Self::Latest,
            "best" => Self::Best,
            _ => return Ok(None),
        };
        let mut filters = Vec::new();
        let mut text = String::new();
        for piece in conditions.into_iter().flat_map(|conditions| conditions.split(',')) {
            // A comma of a value: what follows is no condition.
            if text.is_empty() || piece.parse::<RunFilter>().is_err() {
                let comma = if text.is_empty() { "" } else { "," };
                text = format!("{text}{comma}{piece}");
            } else {
                filters.push(std::mem::replace(&mut text, piece.to_owned()).parse()?);
            }
        }
        if conditions.is_some() {
            filters.push(text.parse()?);
        }
        Ok(Some((chosen, filters)))
    }
}

/// The newest of `runs` that are listed, heads of sweeps aside.
fn latest<'a>(runs: impl Iterator<Item = &'a Run>) -> Option<&'a Run> {
    let listed = runs.filter(|run| !run.id.contains('/') && run.is_listed());
    listed.max_by_key(|run| run.record["created"].as_str())
}

/// The head of a rank that `run`, a sweep or one of its heads, kept; `word` is how it was asked for.
fn head_of(run: Run, rank: u64, word: &str) -> Result<Run> {
    let (id, folder) = match (run.id.split_once('/'), run.folder.parent()) {
        (Some((sweep, _)), Some(folder)) => (sweep.to_owned(), folder.to_path_buf()),
        _ => (run.id, run.folder),
    };
    let children = folders_in(&folder).unwrap_or_default();
    let ranks: Vec<(u64, String)> = children
        .into_iter()
        .filter_map(|child| Some((child.parse().ok()?, child)))
        .collect();
    match ranks.iter().find(|(other, _)| *other == rank) {
        Some((_, child)) => Ok(Run::read(&folder.join(child), &format!("{id}/{child}"))),
        None => Err(Error::UnknownHead {
            run: word.to_owned(),
            sweep: id,
            heads: ranks.len(),
        }),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn conditions_of_best_are_divided_at_commas_that_no_value_has() {
        let parsed = |word: &str| Chosen::parse(word).map_err(|error| error.to_string());
        let filters = |texts: &[&str]| -> Vec<RunFilter> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        assert_eq!(parsed("best"), Ok(Some((Chosen::Best, vec![]))));
        assert_eq!(parsed("bestest"), Ok(None));
        assert_eq!(parsed("other:lr=1"), Ok(None));
        assert_eq!(
            parsed("latest:lr<0.1,solver=sgd"),
            Ok(Some((Chosen::Latest, filters(&["lr<0.1", "solver=sgd"]))))
        );
        assert_eq!(
            parsed("best:dataset=a,b:c,lr>0"),
            Ok(Some((Chosen::Best, filters(&["dataset=a,b:c", "lr>0"]))))
        );
        for wrong in ["best:", "best:lr", "latest:lr<"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

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
