//! What tells runs apart: configurations first, then what came of them, and whether they can be compared at all.

use std::collections::BTreeSet;

use serde_json::Value;

use super::entry::Run;
use crate::error::Result;

/// Several runs side by side; each list of values has one for each run, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Where the configurations differ.
    pub config: Vec<Compared>,
    /// All metrics that are single values, whether they differ or not.
    pub metrics: Vec<Compared>,
    /// Where the feature spaces differ; empty where all lie in one.
    pub space: Vec<Compared>,
    /// For each run what is different in its data from those of the first one, a line each.
    pub data: Vec<Vec<String>>,
}

/// One key and its values.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// The key, dotted.
    pub key: String,
    /// One value for each run; `None` where a run has none.
    pub values: Vec<Option<Value>>,
}

impl Compared {
    /// The second value less the first one, where both are numbers.
    #[must_use]
    pub fn difference(&self) -> Option<f64> {
        let number = |index: usize| self.values.get(index)?.as_ref()?.as_f64();
        Some(number(1)? - number(0)?)
    }

    fn differs(&self) -> bool {
        self.values.windows(2).any(|pair| pair[0] != pair[1])
    }
}

/// Compares runs.
///
/// # Errors
/// [`Error::Run`](crate::Error::Run) when the data of one of them are not known, because its folder is damaged.
pub fn compare_runs(runs: &[Run]) -> Result<Comparison> {
    let data = runs.iter().map(Run::data).collect::<Result<Vec<_>>>()?;
    let mut config = side_by_side(runs, "config");
    // The command says nothing that the options do not, and where the output goes.
    config.retain(|row| row.differs() && row.key != "command_line");
    let metrics = side_by_side(runs, "metrics");
    let mut space = side_by_side(runs, "space");
    space.retain(Compared::differs);
    Ok(Comparison {
        config,
        metrics: metrics
            .into_iter()
            .filter(|row| row.values.iter().flatten().all(is_single))
            .collect(),
        space,
        data: data.iter().map(|now| now.changes_since(&data[0])).collect(),
    })
}

fn is_single(value: &Value) -> bool {
    !value.is_array() && !value.is_object()
}

/// The leaves of each run's `section`, in the order in which they first come.
fn side_by_side(runs: &[Run], section: &str) -> Vec<Compared> {
    let leaves: Vec<Vec<(String, &Value)>> = runs
        .iter()
        .map(|run| {
            let mut found = Vec::new();
            collect_leaves("", &run.record[section], &mut found);
            found
        })
        .collect();
    let mut seen = BTreeSet::new();
    let keys = leaves.iter().flatten().map(|(key, _)| key);
    let keys: Vec<&String> = keys.filter(|key| seen.insert(key.as_str())).collect();
    keys.into_iter()
        .map(|key| {
            let value = |leaves: &Vec<(String, &Value)>| {
                let found = leaves.iter().find(|(name, _)| name == key);
                found.map(|(_, value)| (*value).clone())
            };
            Compared {
                key: key.clone(),
                values: leaves.iter().map(value).collect(),
            }
        })
        .collect()
}

/// All values that are no objects, with their dotted paths; null counts as absent.
fn collect_leaves<'a>(path: &str, value: &'a Value, found: &mut Vec<(String, &'a Value)>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                collect_leaves(&path, value, found);
            }
        }
        value => found.push((path.to_owned(), value)),
    }
}
