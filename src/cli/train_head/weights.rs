//! `--class-weights`: weights by the names of classes, whatever is in a name.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use super::suggest::nearest;
use crate::error::{Error, Result};
use crate::head::{ClassWeights, Recipe};

/// `--class-weights`, whose classes get their numbers once the data set is known.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum NamedWeights {
    Equal,
    Balanced,
    /// Classes that are not named weigh 1.
    Given(Vec<(String, f64)>),
}

impl FromStr for NamedWeights {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pairs = match text {
            "equal" => return Ok(Self::Equal),
            "balanced" => return Ok(Self::Balanced),
            _ => match text.strip_prefix('@') {
                Some(path) => read(Path::new(path)).map_err(|problem| format!("`{path}` {problem}"))?,
                None => pairs(text)?,
            },
        };
        if pairs.is_empty() {
            return Err("names no class".to_owned());
        }
        for (place, (class, _)) in pairs.iter().enumerate() {
            if pairs[..place].iter().any(|(other, _)| other == class) {
                return Err(format!("`{class}` has two weights"));
            }
        }
        Ok(Self::Given(pairs))
    }
}

/// What stands in `CLASS=W,"CLASS, WITH COMMA"=W`.
fn pairs(text: &str) -> Result<Vec<(String, f64)>, String> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    loop {
        let (class, weight, after) = if rest.starts_with('"') {
            // A string of JSON, so that a quote or a backslash within has a spelling.
            let mut strings = serde_json::Deserializer::from_str(rest).into_iter::<String>();
            let class = strings.next().and_then(Result::ok);
            let class = class.ok_or_else(|| format!("`{rest}` begins with a quote that does not end"))?;
            let behind = rest[strings.byte_offset()..].trim_start();
            let behind = behind
                .strip_prefix('=')
                .ok_or_else(|| format!("`{class}` has no weight: write \"{class}\"=WEIGHT"))?;
            let (weight, after) = split_at_comma(behind);
            (class, weight, after)
        } else {
            let (item, after) = split_at_comma(rest);
            let (class, weight) = item
                .rsplit_once('=')
                .ok_or_else(|| format!("`{item}` is neither `balanced`, `equal`, nor CLASS=WEIGHT"))?;
            (class.trim().to_owned(), weight, after)
        };
        let number: f64 = weight
            .trim()
            .parse()
            .map_err(|_| format!("the weight `{}` of `{class}` is no number", weight.trim()))?;
        pairs.push((class, number));
        match after {
            Some(after) => rest = after.trim_start(),
            None => return Ok(pairs),
        }
    }
}

fn split_at_comma(text: &str) -> (&str, Option<&str>) {
    match text.split_once(',') {
        Some((item, after)) => (item, Some(after)),
        None => (text, None),
    }
}

/// The weights in a file: a table of TOML, or an object of JSON, of names and numbers.
fn read(path: &Path) -> Result<Vec<(String, f64)>, String> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("");
    let is_json = match extension.to_ascii_lowercase().as_str() {
        "json" => true,
        "toml" => false,
        _ => return Err("ends neither in .toml nor in .json".to_owned()),
    };
    let text = std::fs::read_to_string(path).map_err(|error| format!("can't be read: {error}"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let table: Result<Table, String> = if is_json {
        serde_json::from_str(text).map_err(|error| error.to_string())
    } else {
        toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())
    };
    let told = |problem: String| {
        format!("is no list of weights, such as `\"Maine, Coon\" = 2` (in JSON {{\"Maine, Coon\": 2}}): {problem}")
    };
    Ok(table.map_err(told)?.0)
}

/// Names and weights in the order of the file, those that are there twice as well.
struct Table(Vec<(String, f64)>);

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Table;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("names of classes with their weights")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Table(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

impl fmt::Display for NamedWeights {
    /// As it can be read again, without the file it may be from.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal => formatter.write_str("equal"),
            Self::Balanced => formatter.write_str("balanced"),
            Self::Given(weights) => {
                let pair = |(class, weight): &(String, f64)| format!("{}={weight}", quoted(class));
                formatter.write_str(&weights.iter().map(pair).collect::<Vec<_>>().join(","))
            }
        }
    }
}

/// The name of a class as it is written: in quotes where it would be read as something else.
fn quoted(class: &str) -> String {
    let is_plain = !class.is_empty()
        && class.trim() == class
        && !class.starts_with('@')
        // Brackets have a meaning in sweeps.
        && !class.contains([',', '"', '[', ']']);
    if is_plain {
        class.to_owned()
    } else {
        serde_json::Value::from(class).to_string()
    }
}

impl NamedWeights {
    /// Puts weights that were given by the names of classes into `recipe`.
    ///
    /// # Errors
    /// [`Error::Options`] for a name that is none of `classes`.
    pub(super) fn resolve(&self, classes: &[String], recipe: &mut Recipe) -> Result<()> {
        let Self::Given(named) = self else { return Ok(()) };
        let mut weights = vec![1.0; classes.len()];
        for (name, weight) in named {
            let Some(class) = classes.iter().position(|class| class == name) else {
                let names: Vec<&str> = classes.iter().map(String::as_str).collect();
                let problem = format!(
                    "--class-weights names `{name}`, but the classes are `{}`",
                    classes.join("`, `")
                );
                let hint = match nearest(name, &names) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => {
                        "write the names of classes as their folders are called; one that has a comma or a quote in \
                             quotes, or all of them in a file: --class-weights @weights.toml"
                            .to_owned()
                    }
                };
                return Err(Error::Options { problem, hint });
            };
            weights[class] = *weight;
        }
        recipe.class_weights = ClassWeights::Given(weights);
        Ok(())
    }
}

#[cfg(test)]
#[path = "weights_tests.rs"]
mod tests;
