//! Where the heads of a sweep lie, and that none of an earlier one is taken for one of them.

use std::path::{Path, PathBuf};

use super::super::output::counted;
use crate::observer::Observer;
use crate::runs::HEAD;

/// Where the head of a rank is saved: the best at `output`, the others beside it with their rank in the name.
pub(super) fn place_of(output: &Path, rank: usize, count: usize) -> PathBuf {
    if rank == 1 {
        return output.to_path_buf();
    }
    let digits = count.to_string().len();
    let (stem, extension) = around_rank(output);
    output.with_file_name(format!("{stem}{rank:0digits$}{extension}"))
}

/// What stands before and behind the rank in a name: `head.` and `.safetensors`.
fn around_rank(output: &Path) -> (String, String) {
    let stem = output.file_stem().unwrap_or_default().to_string_lossy();
    let extension = output
        .extension()
        .map(|extension| format!(".{}", extension.to_string_lossy()));
    (format!("{stem}."), extension.unwrap_or_default())
}

/// Removes what looks like a head of this sweep of `count` kept heads, and is one of an earlier sweep: a file that has a rank
/// in its name and, byte for byte, lies in the folder of that sweep's run too, so that nothing is lost. Anything else of such
/// a name is left and told.
pub(super) fn clear(output: &Path, count: usize, runs: &Path, observer: &dyn Observer) {
    let (mut removed, mut left) = (0, Vec::new());
    for (rank, path) in others(output, count) {
        if is_kept_in_a_run(&path, &rank, runs) && std::fs::remove_file(&path).is_ok() {
            removed += 1;
        } else {
            left.push(path);
        }
    }
    if removed > 0 {
        let heads = counted(removed, "head");
        observer.note(&format!(
            "{heads} of earlier sweeps removed beside {}: their runs keep them",
            output.display()
        ));
    }
    if let [first, rest @ ..] = &left[..] {
        let more = match rest.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        observer.warn(&format!(
            "`{}`{more} beside the heads of this sweep: not of it",
            first.display()
        ));
    }
}

/// Files named like kept heads that are none of the `count` that were just written, each with its rank as it is written.
fn others(output: &Path, count: usize) -> Vec<(String, PathBuf)> {
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty());
    let Ok(entries) = std::fs::read_dir(folder.unwrap_or(Path::new("."))) else {
        return Vec::new();
    };
    let written: Vec<PathBuf> = (2..=count).map(|rank| place_of(output, rank, count)).collect();
    let (before, behind) = around_rank(output);
    let mut others: Vec<(String, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            let rank = name.strip_prefix(&before)?.strip_suffix(&behind)?;
            let is_rank = !rank.is_empty() && rank.bytes().all(|byte| byte.is_ascii_digit());
            let path = output.with_file_name(&name);
            (is_rank && path.is_file() && !written.contains(&path)).then(|| (rank.to_owned(), path))
        })
        .collect();
    others.sort();
    others
}

/// Whether the head in `path` is, byte for byte, the one that a sweep's run has at this rank.
fn is_kept_in_a_run(path: &Path, rank: &str, runs: &Path) -> bool {
    let (Ok(bytes), Ok(sweeps)) = (std::fs::read(path), std::fs::read_dir(runs)) else {
        return false;
    };
    sweeps.filter_map(Result::ok).any(|sweep| {
        let kept = sweep.path().join(rank).join(HEAD);
        let is_as_long = kept.metadata().is_ok_and(|file| file.len() == bytes.len() as u64);
        is_as_long && std::fs::read(kept).is_ok_and(|kept| kept == bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_heads_lie_beside_the_best_in_the_order_of_their_ranks() {
        let place = |output: &str, rank, count| place_of(Path::new(output), rank, count);
        assert_eq!(place("a/head.safetensors", 1, 9), Path::new("a/head.safetensors"));
        assert_eq!(place("a/head.safetensors", 2, 9), Path::new("a/head.2.safetensors"));
        assert_eq!(place("my.head", 12, 300), Path::new("my.012.head"));
        assert_eq!(place("head", 3, 10), Path::new("head.03"));
    }
}
