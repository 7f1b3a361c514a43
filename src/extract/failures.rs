//! What failed, and how much of that a run may bear.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Serialize;

use crate::disk::lossy;
use crate::picture::Reason;

/// One picture without a feature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The file.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// Why, as a code.
    pub reason: Reason,
    /// Why, in words.
    pub detail: String,
}

/// How many pictures may fail before a run does.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum FailureLimit {
    /// Any number.
    #[default]
    Unlimited,
    /// So many.
    Count(usize),
    /// So many of a hundred pictures of the data set.
    Percent(f64),
}

impl FailureLimit {
    /// The most failures that are borne of `images` pictures; `None` for any number.
    #[must_use]
    pub fn of(self, images: usize) -> Option<usize> {
        match self {
            Self::Unlimited => None,
            Self::Count(count) => Some(count),
            // 0.57 % of 10,000 are 57, though their product in floating point is a little less.
            Self::Percent(percent) => Some((images as f64 * percent / 100.0 + 1e-9).floor() as usize),
        }
    }

    /// The same while it is not known how many pictures there are.
    #[must_use]
    pub fn count(self) -> Option<usize> {
        match self {
            Self::Count(count) => Some(count),
            Self::Unlimited | Self::Percent(_) => None,
        }
    }
}

impl FromStr for FailureLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("`{text}` is neither a number of pictures nor a percentage such as 0.5%");
        match text.strip_suffix('%') {
            Some(percent) => {
                let percent: f64 = percent.trim().parse().map_err(|_| expected())?;
                if (0.0..=100.0).contains(&percent) {
                    Ok(Self::Percent(percent))
                } else {
                    Err(expected())
                }
            }
            None => text.parse().map(Self::Count).map_err(|_| expected()),
        }
    }
}

impl fmt::Display for FailureLimit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => formatter.write_str("any number"),
            Self::Count(count) => write!(formatter, "{count}"),
            Self::Percent(percent) => write!(formatter, "{percent} %"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_numbers_or_percentages() {
        assert_eq!("12".parse(), Ok(FailureLimit::Count(12)));
        assert_eq!("0.5%".parse(), Ok(FailureLimit::Percent(0.5)));
        for wrong in ["", "-1", "1.5", "101%", "-1%", "NaN%", "%", "many"] {
            assert!(wrong.parse::<FailureLimit>().is_err(), "{wrong}");
        }
        assert_eq!(FailureLimit::Percent(10.0).of(29), Some(2));
        assert_eq!(FailureLimit::Percent(0.57).of(10_000), Some(57));
        assert_eq!(FailureLimit::Percent(100.0).of(29), Some(29));
        assert_eq!(
            (FailureLimit::Count(3).of(1), FailureLimit::Unlimited.of(9)),
            (Some(3), None)
        );
        assert_eq!(FailureLimit::Percent(10.0).count(), None);
    }
}
