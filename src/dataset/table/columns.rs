//! Which columns of a table hold the paths, the labels and the splits.

use std::path::Path;

use crate::error::{Error, Result};

const PATH_NAMES: [&str; 7] = [
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "image",
    "image_path",
];
const LABEL_NAMES: [&str; 5] = ["label", "class", "class_name", "category", "target"];
const SPLIT_NAMES: [&str; 4] = ["split", "subset", "partition", "set"];
/// How many names a message lists.
const NAMES_LISTED: usize = 20;

/// The columns of a table; those that are not named are found by their usual names, in any case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableColumns {
    /// The column of paths. Default: `path`, `file`, `filename`, `file_name`, `filepath`, `image` or `image_path`.
    pub path: Option<String>,
    /// The column of labels. Default: `label`, `class`, `class_name`, `category` or `target`, if there is one.
    pub label: Option<String>,
    /// The column of splits. Default: `split`, `subset`, `partition` or `set`, if there is one.
    pub split: Option<String>,
}

/// What a column is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Path,
    Label,
    Split,
}

impl Role {
    pub(super) const ALL: [Self; 3] = [Self::Path, Self::Label, Self::Split];

    /// What the column holds, in messages.
    fn noun(self) -> &'static str {
        match self {
            Self::Path => "paths",
            Self::Label => "labels",
            Self::Split => "splits",
        }
    }

    /// The option that names the column.
    fn option(self) -> &'static str {
        match self {
            Self::Path => "--path-column",
            Self::Label => "--label-column",
            Self::Split => "--split-column",
        }
    }

    fn usual_names(self) -> &'static [&'static str] {
        match self {
            Self::Path => &PATH_NAMES,
            Self::Label => &LABEL_NAMES,
            Self::Split => &SPLIT_NAMES,
        }
    }
}

/// The index of each role's column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) path: usize,
    pub(super) label: Option<usize>,
    pub(super) split: Option<usize>,
}

/// Whether a column of this name is taken for the one of paths.
pub(super) fn is_usual_path_name(name: &str) -> bool {
    is_usual(Role::Path, name)
}

fn is_usual(role: Role, name: &str) -> bool {
    let name = name.trim();
    role.usual_names().iter().any(|usual| name.eq_ignore_ascii_case(usual))
}

impl TableColumns {
    pub(super) fn named(&self, role: Role) -> Option<&str> {
        match role {
            Role::Path => self.path.as_deref(),
            Role::Label => self.label.as_deref(),
            Role::Split => self.split.as_deref(),
        }
    }

    /// Whether the column `name` can be the one for `role`.
    pub(super) fn fits(&self, role: Role, name: &str) -> bool {
        match self.named(role) {
            Some(named) => name == named || name.trim() == named,
            None => is_usual(role, name),
        }
    }

    /// Finds the columns among `names`.
    pub(super) fn find(&self, file: &Path, names: &[String]) -> Result<Places> {
        let place = |role| self.find_one(file, role, names);
        let path = place(Role::Path)?.ok_or_else(|| absent(file, Role::Path, None, names))?;
        Ok(Places {
            path,
            label: place(Role::Label)?,
            split: place(Role::Split)?,
        })
    }

    fn find_one(&self, file: &Path, role: Role, names: &[String]) -> Result<Option<usize>> {
        let found: Vec<usize> = (0..names.len())
            .filter(|index| self.fits(role, &names[*index]))
            .collect();
        match (found.as_slice(), self.named(role)) {
            ([], None) => Ok(None),
            ([], Some(named)) => Err(absent(file, role, Some(named), names)),
            ([index], _) => Ok(Some(*index)),
            (several, _) => {
                let several: Vec<&str> = several.iter().map(|index| names[*index].as_str()).collect();
                Err(ambiguous(file, role, &several, names))
            }
        }
    }
}

/// The error for a table without the column for `role`.
pub(super) fn absent(file: &Path, role: Role, named: Option<&str>, names: &[String]) -> Error {
    let problem = match named {
        Some(named) => format!("has no column `{named}`"),
        None => format!("has no column that is known to hold the {}", role.noun()),
    };
    error(file, role, problem, names)
}

/// The error for a table with several columns for `role`.
pub(super) fn ambiguous(file: &Path, role: Role, several: &[&str], names: &[String]) -> Error {
    let problem = format!(
        "has several columns that may hold the {}: `{}`",
        role.noun(),
        several.join("`, `")
    );
    error(file, role, problem, names)
}

fn error(file: &Path, role: Role, problem: String, names: &[String]) -> Error {
    let mut columns: Vec<String> = names.iter().take(NAMES_LISTED).map(|name| shortened(name)).collect();
    if names.len() > NAMES_LISTED {
        columns.push(format!("and {} more", names.len() - NAMES_LISTED));
    }
    Error::TableColumns {
        path: file.to_path_buf(),
        problem,
        columns,
        option: role.option(),
    }
}

/// A name or word of a table for a message: quoted, of a bearable length, control characters made visible.
pub(super) fn shortened(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut shown: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}
