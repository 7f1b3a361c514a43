//! The feature space in words: everything that can change a feature's numbers, as the cache's key is made of it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::cache::FeatureSpace;
use crate::error::{Error, Result};
use crate::picture::{Decode, Exif, Transform, decoder};

/// Raised when the same description would mean other numbers.
const FORMAT: u32 = 1;

/// No backbone takes larger pictures.
const LARGEST_SIDE: u32 = 8192;

/// What a feature's numbers depend on.
///
/// Serialised in this field order it is the canonical text whose blake3 hash names the space. Device, threads, batch
/// size and ONNX Runtime version move last bits at most: they are recorded with the rows instead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpaceDescription {
    /// Version of this description.
    pub format: u32,
    /// blake3 of the backbone's bytes, hexadecimal.
    pub backbone: String,
    /// The tensor of the backbone that is the feature.
    pub feature: String,
    /// The decoders, with their versions, and the version of the resize implementation.
    pub decoder: String,
    /// What is done to a picture before the backbone sees it.
    pub transform: Transform,
    /// The arithmetic of the backbone.
    pub precision: Precision,
}

/// The arithmetic in which the backbone runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floating point, TF32 off.
    #[default]
    Fp32,
    /// 32-bit floating point whose products are rounded to 10 bits of mantissa, as NVIDIA's tensor cores do it. Only on
    /// CUDA.
    Tf32,
    /// 16-bit floating point; features are stored as f32.
    Fp16,
    /// 8-bit integers, by a backbone that was quantised for it.
    Int8,
}

impl Precision {
    const ALL: [Self; 4] = [Self::Fp32, Self::Tf32, Self::Fp16, Self::Int8];
}

impl fmt::Display for Precision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Tf32 => "tf32",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
        })
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|precision| precision.to_string() == text);
        found.ok_or_else(|| Error::Usage(format!("unknown precision `{text}`; use fp32, tf32, fp16 or int8")))
    }
}

/// What a user may choose of how features are made, besides the backbone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FeatureOptions {
    /// What becomes of EXIF orientation. Default: [`Exif::Apply`].
    pub exif: Exif,
    /// How much of a large picture is decoded. Default: [`Decode::Exact`].
    pub decode: Decode,
    /// The arithmetic of the backbone. Default: [`Precision::Fp32`].
    pub precision: Precision,
}

impl FeatureOptions {
    /// The options that are not the default, as they are given to `extract`; each with a space before it.
    pub(crate) fn arguments(&self) -> String {
        let mut arguments = String::new();
        if self.exif == Exif::Ignore {
            arguments.push_str(" --exif ignore");
        }
        if self.decode == Decode::Fast {
            arguments.push_str(" --decode fast");
        }
        if self.precision != Precision::default() {
            arguments.push_str(&format!(" --precision {}", self.precision));
        }
        arguments
    }
}

impl SpaceDescription {
    /// The space of this program's own decoder and the given backbone and transform.
    #[must_use]
    pub fn new(backbone: &str, feature: &str, transform: Transform, precision: Precision) -> Self {
        Self {
            format: FORMAT,
            backbone: backbone.to_owned(),
            feature: feature.to_owned(),
            decoder: decoder().to_owned(),
            transform,
            precision,
        }
    }

    /// What of it a user chose.
    #[must_use]
    pub fn options(&self) -> FeatureOptions {
        FeatureOptions {
            exif: self.transform.exif,
            decode: self.transform.decode,
            precision: self.precision,
        }
    }

    /// Reads a description back from its canonical JSON; `None` when this version can't know what it means.
    #[must_use]
    pub fn parse(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok().filter(Self::is_sensible)
    }

    /// Whether features can be made as this says; a file from elsewhere may say anything.
    fn is_sensible(&self) -> bool {
        let Transform {
            resize_shorter_side: resize,
            crop,
            mean,
            std,
            ..
        } = &self.transform;
        let hash = self.backbone.len() == 64 && self.backbone.bytes().all(|byte| byte.is_ascii_hexdigit());
        let sides = (1..=LARGEST_SIDE).contains(crop) && (*crop..=2 * LARGEST_SIDE).contains(resize);
        let normalised =
            mean.iter().all(|value| value.is_finite()) && std.iter().all(|value| value.is_normal() && *value > 0.0);
        self.format == FORMAT && hash && sides && normalised
    }

    /// The space to look features up in.
    #[must_use]
    pub fn space(&self) -> FeatureSpace {
        FeatureSpace::new(self)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    fn description() -> SpaceDescription {
        SpaceDescription::new(
            &"5e".repeat(32),
            "features",
            Transform {
                // The default is left out.
                decode: Decode::Fast,
                ..Transform::default()
            },
            Precision::Fp32,
        )
    }

    /// All variants of `value` with one leaf changed, with the path of that leaf.
    fn changed(value: &Value) -> Vec<(String, Value)> {
        match value {
            Value::Object(fields) => {
                let inside = |(name, field): (&String, &Value)| {
                    let variants = changed(field).into_iter();
                    let whole = variants.map(|(path, field)| {
                        let mut fields = fields.clone();
                        fields.insert(name.clone(), field);
                        (format!(".{name}{path}"), Value::Object(fields))
                    });
                    whole.collect::<Vec<_>>()
                };
                fields.iter().flat_map(inside).collect()
            }
            Value::Array(items) => {
                let inside = |(index, item): (usize, &Value)| {
                    let variants = changed(item).into_iter();
                    let whole = variants.map(|(path, item)| {
                        let mut items = items.clone();
                        items[index] = item;
                        (format!("[{index}]{path}"), Value::Array(items))
                    });
                    whole.collect::<Vec<_>>()
                };
                items.iter().enumerate().flat_map(inside).collect()
            }
            Value::String(text) if text == "apply" => vec![(String::new(), Value::from("ignore"))],
            Value::String(text) if text == "fast" => vec![(String::new(), Value::from("exact"))],
            Value::String(text) if text == "fp32" => {
                let others = Precision::ALL
                    .into_iter()
                    .filter(|precision| *precision != Precision::Fp32);
                others
                    .map(|other| (String::new(), Value::from(other.to_string())))
                    .collect()
            }
            Value::String(text) => vec![(String::new(), Value::from(format!("{text}2")))],
            Value::Number(number) if number.is_u64() => {
                vec![(String::new(), Value::from(number.as_u64().unwrap() + 1))]
            }
            Value::Number(number) => vec![(String::new(), Value::from(number.as_f64().unwrap() * 1.5))],
            Value::Bool(flag) => vec![(String::new(), Value::from(!flag))],
            Value::Null => vec![(String::new(), Value::from(1))],
        }
    }

    fn names(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    found.insert(name.clone());
                    names(field, found);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| names(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_field_of_the_description_is_part_of_the_space() {
        let description = description();
        let json = serde_json::to_value(&description).unwrap();
        let mut serialised = BTreeSet::new();
        names(&json, &mut serialised);
        // `Debug` shows what serde may have been told to skip.
        let fields: BTreeSet<String> = format!("{description:#?}")
            .lines()
            .filter_map(|line| line.trim().split_once(": "))
            .map(|(name, _)| name.to_owned())
            .collect();
        assert_eq!(fields, serialised, "every field is serialised under its name");

        let mut ids = BTreeSet::from([description.space().id()]);
        let variants = changed(&json);
        assert!(variants.len() >= 14, "{variants:?}");
        for (path, variant) in variants {
            // Through the type, where it can hold the value: what it drops in between would be no part of the space.
            let space = match serde_json::from_value::<SpaceDescription>(variant.clone()) {
                Ok(other) => other.space(),
                Err(_) => FeatureSpace::new(&variant),
            };
            assert!(ids.insert(space.id()), "another {path} must be another space");
        }
    }

    #[test]
    fn a_precision_is_written_as_it_is_given() {
        for precision in Precision::ALL {
            assert_eq!(serde_json::to_value(precision).unwrap(), precision.to_string());
            assert_eq!(precision.to_string().parse::<Precision>().unwrap(), precision);
        }
        assert!("fp8".parse::<Precision>().is_err());
    }

    #[test]
    fn options_are_told_as_they_are_given_and_those_by_default_not_at_all() {
        assert_eq!(FeatureOptions::default().arguments(), "");
        let options = FeatureOptions {
            exif: Exif::Ignore,
            decode: Decode::Fast,
            precision: Precision::Int8,
        };
        assert_eq!(options.arguments(), " --exif ignore --decode fast --precision int8");
        let transform = Transform {
            exif: options.exif,
            decode: options.decode,
            ..Transform::default()
        };
        let description = SpaceDescription::new(&"5e".repeat(32), "features", transform, options.precision);
        assert_eq!(description.options(), options);
    }

    #[test]
    fn a_description_reads_back_to_the_same_space() {
        let description = description();
        let space = description.space();
        let parsed = SpaceDescription::parse(space.json()).unwrap();
        assert_eq!(parsed, description);
        assert_eq!(parsed.space().id(), space.id());
    }
}
