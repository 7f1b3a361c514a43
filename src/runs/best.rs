//! Which run is the best: among those whose numbers are of the same pictures.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::entry::{Run, RunState};
use super::writer::RunKind;
use crate::error::{Error, Result};

/// A complete run of one head, with what it is worth.
struct Candidate<'a> {
    run: &'a Run,
    accuracy: f64,
    loss: f64,
    /// Whether the numbers are means over folds.
    folded: bool,
    /// Which pictures these are numbers of.
    validated_on: &'a str,
    /// The data set from wherever it is named, and as it was named.
    dataset: &'a str,
    named: &'a str,
    created: &'a str,
}

impl<'a> Candidate<'a> {
    fn of(run: &'a Run) -> Option<Self> {
        if run.state != RunState::Complete || run.kind != Some(RunKind::Head) {
            return None;
        }
        let record = &run.record;
        let text = |value: &'a Value| value.as_str().unwrap_or_default();
        Some(Self {
            run,
            accuracy: record["val_accuracy"].as_f64()?,
            loss: record["val_loss"].as_f64().unwrap_or(f64::INFINITY),
            folded: !record["folds"].is_null(),
            validated_on: record["data"]["validated_on"].as_str()?,
            dataset: text(&record["config"]["dataset"]["absolute"]),
            named: text(&record["dataset"]),
            created: text(&record["created"]),
        })
    }
}

/// The complete run of a head with the highest accuracy in validation, of equal ones that with the lowest loss, of these the
/// first. `None` where there is none.
///
/// Heads that were judged on validation pictures come before those of cross-validations, whose numbers are those of a
/// configuration; of either, only those count that were validated on the same pictures as the newest one.
///
/// # Errors
/// [`Error::SeveralDatasets`] where runs of several data sets come into question.
pub(super) fn best<'a>(root: &Path, runs: impl Iterator<Item = &'a Run>) -> Result<Option<&'a Run>> {
    let mut candidates: Vec<Candidate<'a>> = runs.filter_map(Candidate::of).collect();
    let Some(newest) = newest(&candidates) else {
        return Ok(None);
    };
    let mut same = BTreeSet::from([newest.dataset]);
    // A data set that was moved or copied has other names and the same pictures.
    loop {
        let count = same.len();
        let pictures = candidates.iter().filter(|candidate| same.contains(candidate.dataset));
        let pictures: BTreeSet<&str> = pictures.map(|candidate| candidate.validated_on).collect();
        let shares = candidates.iter().filter(|other| pictures.contains(other.validated_on));
        same.extend(shares.map(|other| other.dataset));
        if same.len() == count {
            break;
        }
    }
    if candidates.iter().any(|candidate| !same.contains(candidate.dataset)) {
        return Err(Error::SeveralDatasets {
            root: root.to_path_buf(),
            choices: choices(&candidates),
        });
    }
    if candidates.iter().any(|candidate| !candidate.folded) {
        candidates.retain(|candidate| !candidate.folded);
    }
    let pictures = self::newest(&candidates).map(|newest| newest.validated_on);
    candidates.retain(|candidate| Some(candidate.validated_on) == pictures);
    let better = |best: Candidate<'a>, other: Candidate<'a>| {
        let wins = other.accuracy > best.accuracy || (other.accuracy == best.accuracy && other.loss < best.loss);
        if wins { other } else { best }
    };
    Ok(candidates.into_iter().reduce(better).map(|best| best.run))
}

fn newest<'c, 'a>(candidates: &'c [Candidate<'a>]) -> Option<&'c Candidate<'a>> {
    candidates.iter().max_by_key(|candidate| candidate.created)
}

/// For each data set the words that mean its best run.
fn choices(candidates: &[Candidate<'_>]) -> Vec<String> {
    let datasets: BTreeSet<&str> = candidates.iter().map(|candidate| candidate.dataset).collect();
    let choice = |dataset: &str| {
        let (of, others): (Vec<_>, Vec<_>) = candidates.iter().partition(|candidate| candidate.dataset == dataset);
        let named = of[0].named;
        let only_its = of.iter().all(|candidate| candidate.named == named)
            && others.iter().all(|candidate| candidate.named != named);
        if only_its {
            format!("best:dataset={named}")
        } else {
            format!("best:dataset.absolute={dataset}")
        }
    };
    datasets.into_iter().map(choice).collect()
}
