//! Runs by what is known of them: keys, filters, order.
//!
//! A key is the end of a dotted path in [`Run::record`], as many parts of it as are needed: `learning_rate`,
//! `recipe.seed`, `metrics.val_loss`, or the name of an option of `train-head`. Hyphens count as underscores, `lr` is short for `learning_rate`. Of several paths
//! with this end the one nearest the top counts, in the order of the record: `epochs` is that of the metrics.

use std::cmp::Ordering;
use std::path::Path;
use std::str::FromStr;

use serde_json::Value;

use super::entry::{Run, RunState};
use crate::error::{Error, Result};

/// The value that `key` leads to in a record; `None` where there is none, or it is null.
#[must_use]
pub fn look_up<'a>(record: &'a Value, key: &str) -> Option<&'a Value> {
    let key = key.trim().replace('-', "_");
    let wanted: Vec<&str> = key.split('.').collect();
    // Level by level, so that what lies nearer the top is found first.
    let mut level: Vec<(Vec<&str>, &Value)> = vec![(Vec::new(), record)];
    while !level.is_empty() {
        let found = level.iter().find(|(path, value)| {
            !path.is_empty() && !value.is_null() && path.len() >= wanted.len() && same_end(path, &wanted)
        });
        if let Some((_, value)) = found {
            return Some(value);
        }
        let below = level
            .iter()
            .filter_map(|(path, value)| Some((path, value.as_object()?)));
        level = below
            .flat_map(|(path, fields)| {
                fields.iter().map(move |(name, value)| {
                    let mut path = path.clone();
                    path.push(name.as_str());
                    (path, value)
                })
            })
            .collect();
    }
    None
}

fn same_end(path: &[&str], wanted: &[&str]) -> bool {
    let end = &path[path.len() - wanted.len()..];
    end.iter().zip(wanted).all(|(name, wanted)| same_name(name, wanted))
}

fn full_name(name: &str) -> &str {
    if name.eq_ignore_ascii_case("lr") {
        "learning_rate"
    } else {
        name
    }
}

/// Whether two parts of keys mean the same, whatever their case and hyphens.
fn same_name(name: &str, wanted: &str) -> bool {
    let plain = |byte: u8| match byte.to_ascii_lowercase() {
        b'-' => b'_',
        byte => byte,
    };
    full_name(name)
        .bytes()
        .map(plain)
        .eq(full_name(wanted).bytes().map(plain))
}

/// Whether any of `runs` has the key.
#[must_use]
pub fn has_key(runs: &[Run], key: &str) -> bool {
    runs.iter().any(|run| look_up(&run.record, key).is_some())
}

/// Makes sure that each of `keys` is that of a run in `root`: one that no run has is a slip of the pen, not a condition that
/// none fulfils. Where no run is complete there is nothing to know.
///
/// # Errors
/// [`Error::Usage`].
pub(crate) fn check_keys(runs: &[Run], keys: &[&str], root: &Path) -> Result<()> {
    let is_any = runs.iter().any(|run| run.state == RunState::Complete);
    match keys.iter().find(|key| is_any && !has_key(runs, key)) {
        None => Ok(()),
        Some(key) => Err(Error::Usage(format!(
            "no run in `{}` has a key `{key}`: `lastlayer runs show latest` prints the keys that there are",
            root.display()
        ))),
    }
}

/// A condition on one key, such as `lr<0.01` or `solver=lbfgs`.
///
/// Numbers are compared as numbers, all else as text. A run without the key fulfils `!=` and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFilter {
    key: String,
    relation: Relation,
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Equal,
    Different,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Two characters before one, so that `<=` is not taken for `<`.
const RELATIONS: [(&str, Relation); 7] = [
    ("!=", Relation::Different),
    ("<=", Relation::LessOrEqual),
    (">=", Relation::GreaterOrEqual),
    ("==", Relation::Equal),
    ("=", Relation::Equal),
    ("<", Relation::Less),
    (">", Relation::Greater),
];

impl FromStr for RunFilter {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let start = text.find(['!', '<', '>', '=']);
        let parsed = start.and_then(|start| {
            let (key, rest) = text.split_at(start);
            let (sign, relation) = RELATIONS.iter().find(|(sign, _)| rest.starts_with(sign))?;
            let (key, value) = (key.trim(), rest[sign.len()..].trim());
            (!key.is_empty() && !value.is_empty()).then(|| Self {
                key: key.to_owned(),
                relation: *relation,
                value: value.to_owned(),
            })
        });
        parsed.ok_or_else(|| {
            Error::Usage(format!(
                "`{text}` is no condition: it takes a key, one of = != < <= > >=, and a value, as in `lr<0.01`"
            ))
        })
    }
}

impl RunFilter {
    /// The key as it was given.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether a run's record fulfils it.
    #[must_use]
    pub fn accepts(&self, record: &Value) -> bool {
        let Some(value) = look_up(record, &self.key) else {
            return self.relation == Relation::Different;
        };
        let order = match (value.as_f64(), self.value.parse::<f64>()) {
            (Some(left), Ok(right)) => left.partial_cmp(&right),
            _ => Some(text(value).as_str().cmp(self.value.as_str())),
        };
        match self.relation {
            Relation::Equal => order == Some(Ordering::Equal),
            Relation::Different => order != Some(Ordering::Equal),
            Relation::Less => order == Some(Ordering::Less),
            Relation::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            Relation::Greater => order == Some(Ordering::Greater),
            Relation::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        }
    }
}

/// A value as people write it: text without quotes.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Sorts by the value of a key, the smallest first; runs without it come last whatever the direction, equal ones stay.
pub fn sort_runs(runs: &mut [Run], key: &str, reverse: bool) {
    runs.sort_by(
        |left, right| match (look_up(&left.record, key), look_up(&right.record, key)) {
            (Some(left), Some(right)) => {
                let order = match (left.as_f64(), right.as_f64()) {
                    (Some(left), Some(right)) => left.total_cmp(&right),
                    (Some(_), None) => Ordering::Less,
                    (None, Some(_)) => Ordering::Greater,
                    (None, None) => text(left).cmp(&text(right)),
                };
                if reverse { order.reverse() } else { order }
            }
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        },
    );
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    fn record() -> Value {
        json!({
            "id": "a",
            "metrics": { "epochs": 25, "val_accuracy": 0.9, "none": null },
            "config": { "recipe": { "solver": "sgd", "epochs": 30, "learning_rate": 0.001, "seed": 7, "C": 1.5 },
                        "sampling": "balanced" },
        })
    }

    #[test]
    fn a_key_is_the_end_of_a_path_and_the_nearest_to_the_top_counts() {
        let record = record();
        let value = |key: &str| look_up(&record, key).cloned();
        assert_eq!(value("epochs"), Some(json!(25)));
        assert_eq!(value("recipe.epochs"), Some(json!(30)));
        assert_eq!(value("config.recipe.epochs"), Some(json!(30)));
        assert_eq!(value("lr"), Some(json!(0.001)));
        assert_eq!(value("recipe.lr"), Some(json!(0.001)));
        assert_eq!(value("val-accuracy"), Some(json!(0.9)));
        assert_eq!(value("c"), Some(json!(1.5)));
        for missing in [
            "",
            "rate",
            "none",
            "metrics.seed",
            "x.config.recipe.seed",
            "earning_rate",
            ".",
        ] {
            assert_eq!(value(missing), None, "{missing}");
        }
    }

    #[test]
    fn conditions_compare_numbers_as_numbers_and_words_as_words() {
        let accepts = |text: &str| text.parse::<RunFilter>().unwrap().accepts(&record());
        for true_one in [
            "lr<0.01",
            "lr <= 1e-3",
            "lr=0.0010",
            "lr==0.001",
            "lr>=0.001",
            "lr!=0.1",
            "seed>-1",
            "epochs<100",
            "solver=sgd",
            "solver!=lbfgs",
            "absent!=1",
            "solver>=sg",
            "lr>0.0009",
        ] {
            assert!(accepts(true_one), "{true_one}");
        }
        for false_one in [
            "lr<0.001",
            "lr>0.001",
            "lr!=0.001",
            "seed<-1",
            "epochs>100",
            "solver=SGD2",
            "absent=1",
            "absent<1",
            "absent>1",
            "lr=nan",
            "lr<nan",
            "lr>nan",
        ] {
            assert!(!accepts(false_one), "{false_one}");
        }
        for wrong in ["", "lr", "lr<", "<3", "=", "lr!3", "lr ! = 3"] {
            let error = wrong.parse::<RunFilter>().unwrap_err();
            assert!(error.to_string().contains("as in `lr<0.01`"), "{wrong}: {error}");
        }
    }

    #[test]
    fn runs_without_the_key_come_last_in_both_directions() {
        let run = |id: &str, value: Value| Run {
            record: json!({ "x": value }),
            ..Run::read(Path::new("/nowhere"), id)
        };
        let sorted = |reverse: bool| {
            let mut runs = vec![
                run("none", Value::Null),
                run("ten", json!(10)),
                run("nine", json!(9)),
                run("word", json!("w")),
                run("again", json!(9.0)),
            ];
            sort_runs(&mut runs, "x", reverse);
            runs.into_iter().map(|run| run.id).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(sorted(false), "nine again ten word none");
        assert_eq!(sorted(true), "word ten nine again none");
    }
}
