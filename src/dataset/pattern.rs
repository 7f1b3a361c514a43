//! File name patterns (`*.jpg`, `shards/**/*.tar`), for shells that do not expand them and for lists too long for one.

use std::path::{Component, Path, PathBuf};

use walkdir::WalkDir;

use crate::error::{Error, Result};

/// Whether `text` has a wildcard.
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// The files and folders that match `pattern`, sorted by name: components with `*`, `?` or `[..]`, and `**` for any
/// number of folders. Hidden ones match only where the dot is written out.
///
/// # Errors
/// [`Error::Usage`] when it is no pattern.
pub(crate) fn matching(pattern: &str) -> Result<Vec<PathBuf>> {
    let path = Path::new(pattern);
    let is_fixed = |part: &Component<'_>| !is_pattern(&part.as_os_str().to_string_lossy());
    let base: PathBuf = path.components().take_while(is_fixed).collect();
    let rest: PathBuf = path.components().skip_while(is_fixed).collect();
    let depth = if pattern.contains("**") {
        usize::MAX
    } else {
        rest.components().count()
    };
    let rest = glob::Pattern::new(&rest.to_string_lossy())
        .map_err(|error| Error::Usage(format!("`{pattern}` is no pattern: {error}")))?;
    let options = glob::MatchOptions {
        require_literal_separator: true,
        require_literal_leading_dot: true,
        ..glob::MatchOptions::new()
    };
    let start = if base.as_os_str().is_empty() {
        Path::new(".")
    } else {
        &base
    };
    let walk = WalkDir::new(start)
        .min_depth(1)
        .max_depth(depth)
        .follow_links(true)
        .sort_by_file_name();
    let mut found = Vec::new();
    for entry in walk.into_iter().flatten() {
        let below = entry.path().strip_prefix(start).unwrap_or(entry.path());
        if !rest.matches_with(&below.to_string_lossy(), options) {
            continue;
        }
        found.push(if base.as_os_str().is_empty() {
            below.to_path_buf()
        } else {
            entry.path().to_path_buf()
        });
    }
    Ok(found)
}
