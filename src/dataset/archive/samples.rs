//! Members grouped into samples, as the WebDataset convention has it: neighbours that share a key.

use std::collections::HashMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::members::{Member, Members, Source, Step};
use crate::dataset::table::number_text;
use crate::dataset::{EXTENSIONS, Ignored, Split};
use crate::error::{Error, Result};

/// A `.cls` member is a word or a number.
const CLASS_LIMIT: u64 = 64 << 10;
/// A `.json` member holds what is known of one picture.
const JSON_LIMIT: u64 = 1 << 20;
/// The longest name of a class that is believed.
const LABEL_LIMIT: usize = 1024;
/// Where a `.json` member may hold the label; the first that is there counts.
const LABEL_FIELDS: [&str; 5] = ["label", "cls", "class", "class_name", "category"];

/// A sample with whatever was made of its picture.
pub(super) struct Found<P> {
    pub(super) name: PathBuf,
    pub(super) label: Option<String>,
    pub(super) split: Option<Split>,
    pub(super) picture: P,
}

/// What is left out or doubtful, counted.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) ignored: Ignored,
    without_picture: Noted,
    further_pictures: Noted,
    repeated_names: Noted,
    unreadable_labels: Noted,
    unknown_splits: Noted,
}

/// How often something was seen, and where first.
#[derive(Default)]
struct Noted(u64, String);

impl Noted {
    fn note(&mut self, example: impl FnOnce() -> String) {
        if self.0 == 0 {
            self.1 = example();
        }
        self.0 += 1;
    }
}

impl Tally {
    /// One line for each kind of thing that was seen.
    pub(super) fn warnings(&self) -> Vec<String> {
        let kinds = [
            (&self.without_picture, "samples without a picture are left out"),
            (&self.further_pictures, "further pictures of a sample are left out"),
            (
                &self.repeated_names,
                "pictures have the name of one before them and are told apart by a number",
            ),
            (&self.unreadable_labels, "labels can't be read and count as missing"),
            (
                &self.unknown_splits,
                "splits are none of train, val and test and count as missing",
            ),
        ];
        let seen = kinds.iter().filter(|(noted, _)| noted.0 > 0);
        seen.map(|(Noted(count, example), what)| format!("{count} {what}, for instance {example}"))
            .collect()
    }
}

/// A sample that is not complete yet.
struct Open<P> {
    /// Name of its members up to the first dot of their base name.
    key: Vec<u8>,
    picture: Option<(Vec<u8>, P)>,
    /// From `.cls`, which counts before `.json`.
    class: Option<String>,
    described: Description,
    seen_class: bool,
    seen_json: bool,
}

impl<P> Open<P> {
    fn new(key: &[u8]) -> Self {
        Self {
            key: key.to_vec(),
            picture: None,
            class: None,
            described: Description::default(),
            seen_class: false,
            seen_json: false,
        }
    }
}

/// The samples of an archive, in its order.
pub(super) struct Samples<S, P> {
    members: Members<S>,
    open: Option<Open<P>>,
    /// How often each name was given, so that what is remembered by name is of one picture.
    given: HashMap<Vec<u8>, u32>,
    tally: Tally,
    /// What could not be read, while the sample before it is given.
    failure: Option<Error>,
    ended: bool,
}

impl<S: Source, P> Samples<S, P> {
    pub(super) fn new(members: Members<S>) -> Self {
        Self {
            members,
            open: None,
            given: HashMap::new(),
            tally: Tally::default(),
            failure: None,
            ended: false,
        }
    }

    /// The next sample; `take` makes of its picture what the caller wants of it.
    ///
    /// # Errors
    /// Where the archive is cut or damaged. The sample in hand is dropped then, because its label may be what is missing.
    pub(super) fn next(&mut self, take: impl Fn(&mut Members<S>, &Member) -> Result<P>) -> Result<Option<Found<P>>> {
        while !self.ended {
            let step = match self.failure.take() {
                None => self.members.next(),
                Some(error) => Err(error),
            };
            let complete = match step {
                Ok(Some(Step::Member(member))) => self.add(&member, &take),
                Ok(Some(Step::Boundary)) => self.open.take(),
                Ok(None) => {
                    self.ended = true;
                    self.open.take()
                }
                Err(error) => {
                    self.ended = true;
                    return Err(error);
                }
            };
            if let Some(found) = complete.and_then(|open| self.close(open)) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// What was left out, and what a careful person would want to know, so far.
    pub(super) fn finish(self) -> (Ignored, Vec<String>) {
        let mut warnings = self.tally.warnings();
        warnings.extend(self.members.ending.map(str::to_owned));
        (self.tally.ignored, warnings)
    }

    /// Adds a member, and gives back the sample that is complete because it belongs to another one.
    fn add(&mut self, member: &Member, take: impl Fn(&mut Members<S>, &Member) -> Result<P>) -> Option<Open<P>> {
        // A folder is no file that might be missed.
        if member.name.ends_with(b"/") {
            return None;
        }
        let Some((key, extension)) = split_name(&member.name) else {
            self.ignore(member);
            return None;
        };
        let role = match extension.to_ascii_lowercase() {
            _ if !member.is_file => Role::Other,
            extension if extension == b"cls" => Role::Class,
            extension if extension == b"json" => Role::Json,
            extension if is_picture_extension(&extension) => Role::Picture,
            _ => Role::Other,
        };
        // A member that is there already begins another sample: archives that were joined may repeat a key.
        let belongs = self.open.as_ref().is_some_and(|open| {
            open.key == key
                && match role {
                    Role::Class => !open.seen_class,
                    Role::Json => !open.seen_json,
                    Role::Picture => open.picture.as_ref().is_none_or(|(name, _)| *name != member.name),
                    Role::Other => true,
                }
        });
        if matches!(role, Role::Other) {
            self.ignore(member);
            return None;
        }
        let complete = if belongs {
            None
        } else {
            self.open.replace(Open::new(key))
        };
        self.failure = self.fill(role, member, take).err();
        complete
    }

    /// Reads a member of the sample in hand.
    fn fill(
        &mut self,
        role: Role,
        member: &Member,
        take: impl Fn(&mut Members<S>, &Member) -> Result<P>,
    ) -> Result<()> {
        let open = self.open.as_mut().expect("it was there or was just begun");
        match role {
            Role::Picture if open.picture.is_some() => {
                self.tally.further_pictures.note(|| shown(&member.name));
                self.ignore(member);
            }
            Role::Picture => {
                let picture = take(&mut self.members, member)?;
                open.picture = Some((member.name.clone(), picture));
            }
            Role::Class => {
                open.seen_class = true;
                let text = bounded(&mut self.members, member, CLASS_LIMIT)?;
                match text.and_then(|text| label(std::str::from_utf8(&text).ok()?)) {
                    Some(label) => open.class = Some(label),
                    None => self.tally.unreadable_labels.note(|| shown(&member.name)),
                }
            }
            Role::Json => {
                open.seen_json = true;
                let text = bounded(&mut self.members, member, JSON_LIMIT)?;
                match text.and_then(|text| Description::parse(&text)) {
                    Some(described) => {
                        if described.label.is_none() && described.has_label {
                            self.tally.unreadable_labels.note(|| shown(&member.name));
                        }
                        if described.split.is_none() && described.has_split {
                            self.tally.unknown_splits.note(|| shown(&member.name));
                        }
                        open.described = described;
                    }
                    None => self.tally.unreadable_labels.note(|| shown(&member.name)),
                }
            }
            Role::Other => {}
        }
        Ok(())
    }

    fn close(&mut self, open: Open<P>) -> Option<Found<P>> {
        let Some((name, picture)) = open.picture else {
            self.tally.without_picture.note(|| shown(&open.key));
            return None;
        };
        Some(Found {
            name: path_of(self.unique(name)),
            label: open.class.or(open.described.label),
            split: open.described.split,
            picture,
        })
    }

    /// The name, or where one before has it, the name with `#2`, `#3` … behind it.
    fn unique(&mut self, name: Vec<u8>) -> Vec<u8> {
        let count = self.given.entry(name.clone()).or_insert(0);
        *count += 1;
        if *count == 1 {
            return name;
        }
        let mut number = *count;
        let numbered = loop {
            let numbered = [&name[..], format!("#{number}").as_bytes()].concat();
            if self.given.insert(numbered.clone(), 1).is_none() {
                break numbered;
            }
            number += 1;
        };
        self.tally.repeated_names.note(|| shown(&numbered));
        numbered
    }

    fn ignore(&mut self, member: &Member) {
        let ignored = &mut self.tally.ignored;
        if is_hidden(&member.name) {
            ignored.hidden += 1;
        } else {
            ignored.foreign += 1;
        }
        ignored.note_example(path_of(member.name.clone()));
    }
}

/// What a member is to its sample.
#[derive(Clone, Copy)]
enum Role {
    Picture,
    Class,
    Json,
    Other,
}

/// What a `.json` member says.
#[derive(Default)]
struct Description {
    label: Option<String>,
    split: Option<Split>,
    has_label: bool,
    has_split: bool,
}

impl Description {
    fn parse(bytes: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(transparent)]
        struct Object(serde_json::Map<String, Value>);

        let Object(object) = serde_json::from_slice(bytes).ok()?;
        let field = |name: &str| object.get(name).filter(|value| !value.is_null());
        let stated = LABEL_FIELDS.iter().find_map(|name| field(name));
        let split = field("split");
        Some(Self {
            label: stated.and_then(|value| match value {
                Value::String(text) => label(text),
                Value::Number(number) if number.is_f64() => number.as_f64().map(number_text),
                Value::Number(number) => Some(number.to_string()),
                Value::Bool(value) => Some(value.to_string()),
                _ => None,
            }),
            split: split
                .and_then(Value::as_str)
                .and_then(|name| Split::from_name(name.trim())),
            has_label: stated.is_some(),
            has_split: split.is_some(),
        })
    }
}

/// The label that a text is: one line, integers in their usual form.
fn label(text: &str) -> Option<String> {
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.is_empty() || text.len() > LABEL_LIMIT || text.chars().any(char::is_control) {
        return None;
    }
    let number = text.parse::<i64>().ok();
    Some(number.map_or_else(|| text.to_owned(), |number| number.to_string()))
}

/// A member's content, or `None` when it is longer than `limit`.
fn bounded<S: Source>(members: &mut Members<S>, member: &Member, limit: u64) -> Result<Option<Vec<u8>>> {
    if member.size > limit {
        return Ok(None);
    }
    members.read(member).map(Some)
}

/// Key and extension of a member: what lies before and behind the first dot of its base name.
///
/// `None` for what has no key or no extension, for hidden members, and for those named `__so__`, which describe the
/// archive itself.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if is_hidden(name) {
        return None;
    }
    let base = name.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let dot = base + name[base..].iter().position(|byte| *byte == b'.')?;
    let stem = &name[base..dot];
    let describes_archive = stem.len() > 4 && stem.starts_with(b"__") && stem.ends_with(b"__");
    (!describes_archive).then(|| (&name[..dot], &name[dot + 1..]))
}

/// Whether a part of the name begins with a dot (`._photo.jpg`, `.git/..`), the references `.` and `..` aside.
fn is_hidden(name: &[u8]) -> bool {
    let mut parts = name.split(|byte| *byte == b'/');
    parts.any(|part| part.first() == Some(&b'.') && part != b"." && part != b"..")
}

fn is_picture_extension(lower_case: &[u8]) -> bool {
    lower_case == b"gif" || EXTENSIONS.iter().any(|known| known.as_bytes() == lower_case)
}

fn shown(name: &[u8]) -> String {
    format!("`{}`", String::from_utf8_lossy(name))
}

#[cfg(unix)]
fn path_of(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(not(unix))]
fn path_of(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(&bytes).into_owned())
}
