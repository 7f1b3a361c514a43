//! That verify finds what is damaged, and that nothing damaged is ever given out.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::*;
use crate::cache::{Origin, RowKey};
use crate::observer::Quiet;

const ROWS: u64 = 12;

fn key(number: u64) -> RowKey {
    RowKey::plain(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn row(number: u64) -> Vec<f32> {
    (0..7)
        .map(|column| (number * 13 + column) as f32 * 0.21 - 2.0)
        .collect()
}

fn append(space: &mut Space, numbers: &[u64]) {
    let keys: Vec<RowKey> = numbers.iter().copied().map(key).collect();
    let rows: Vec<f32> = numbers.iter().copied().flat_map(row).collect();
    space.append(&keys, &rows, 7, "cpu", "1.32.0").unwrap();
}

fn names() -> (FeatureSpace, Origin) {
    let origin = Origin {
        name: "resnet18".to_owned(),
        file: "/models/resnet18.onnx".into(),
    };
    (FeatureSpace::new(&serde_json::json!({"crop": 224})), origin)
}

/// Three segments, the last of which repeats a row of the first.
fn made() -> (tempfile::TempDir, Cache) {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(&folder.path().join("cache"));
    let (space, origin) = names();
    let mut space = cache.create_space(&space, &origin).unwrap();
    append(&mut space, &[0, 1, 2, 3, 4]);
    append(&mut space, &[5, 6, 7, 8]);
    append(&mut space, &[9, 10, 11, 0]);
    (folder, cache)
}

fn all_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in list(folder).unwrap() {
        if path.is_dir() {
            files.extend(all_files(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn segments(cache: &Cache) -> Vec<PathBuf> {
    let files = all_files(cache.root());
    files
        .into_iter()
        .filter(|path| segment::parse_file_name(path).is_some())
        .collect()
}

fn flip(path: &Path, bit: u64) {
    let mut file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(bit / 8)).unwrap();
    file.read_exact(&mut byte).unwrap();
    byte[0] ^= 1 << (bit % 8);
    file.seek(SeekFrom::Start(bit / 8)).unwrap();
    file.write_all(&byte).unwrap();
}

/// The rows that are given out, each of them right.
fn right_rows(cache: &Cache) -> Vec<u64> {
    let Some(space) = cache.open_space(&names().0).unwrap() else {
        return Vec::new();
    };
    let given = |number: &u64| {
        let found = space.row(&key(*number));
        assert!(found.is_none_or(|found| found == row(*number)), "row {number} is wrong");
        found.is_some()
    };
    (0..ROWS).filter(given).collect()
}

#[test]
fn a_sound_cache_is_sound() {
    let (_folder, cache) = made();
    let report = cache.verify(&Quiet, false).unwrap();
    assert!(report.is_sound());
    assert_eq!(report.findings().next(), None);
    let [space] = &report.spaces[..] else { panic!() };
    assert_eq!((space.segments, space.rows), (3, 13));
    assert_eq!(space.space, Some(names().0.id().to_string()));
    let bytes: u64 = segments(&cache).iter().map(|path| path.metadata().unwrap().len()).sum();
    assert_eq!(space.bytes, bytes);
}

#[test]
fn each_of_10000_random_flipped_bits_is_reported_or_harmless_and_no_wrong_row_is_given_out() {
    let (_folder, cache) = made();
    let files = all_files(cache.root());
    let sizes: Vec<u64> = files.iter().map(|path| path.metadata().unwrap().len() * 8).collect();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 8) % bound
    };
    let mut unreported = [0; 2];
    for _ in 0..10_000 {
        let mut bit = below(sizes.iter().sum());
        let mut file = 0;
        while bit >= sizes[file] {
            bit -= sizes[file];
            file += 1;
        }
        let path = &files[file];
        flip(path, bit);
        let report = cache.verify(&Quiet, false).unwrap();
        let rows = right_rows(&cache);
        if report.is_sound() {
            // A note nobody computes with, and the comment after the signature.
            let name = path.file_name().unwrap();
            assert!(
                name == ORIGIN_FILE || name == TAG_FILE,
                "bit {bit} of {}",
                path.display()
            );
            assert_eq!(rows.len() as u64, ROWS);
            unreported[usize::from(name == TAG_FILE)] += 1;
        } else {
            let named = report.findings().any(|finding| finding.path == *path);
            assert!(named, "bit {bit} of {}: {report:?}", path.display());
        }
        flip(path, bit);
    }
    assert!(cache.verify(&Quiet, false).unwrap().is_sound());
    // Most of the flips hit what matters.
    assert!(unreported.iter().sum::<i32>() < 2500, "{unreported:?}");
}

#[test]
fn after_repair_the_good_rows_are_left_and_the_bad_ones_can_be_added_again() {
    let (_folder, cache) = made();
    let sizes: Vec<u64> = all_files(cache.root())
        .iter()
        .map(|path| path.metadata().unwrap().len())
        .collect();
    for (number, size) in sizes.iter().enumerate().filter(|(_, size)| **size > 0) {
        for byte in (0..*size).step_by(23) {
            let (_folder, cache) = made();
            let path = all_files(cache.root())[number].clone();
            flip(&path, byte * 8 + byte % 8);
            let before = right_rows(&cache);
            let found = cache.verify(&Quiet, true).unwrap();
            assert_eq!(right_rows(&cache), before, "{}", path.display());
            // All that a repair leaves to find are the files it set aside, and a description it can't make.
            let again = cache.verify(&Quiet, false).unwrap();
            assert!(again.spaces.iter().all(|space| space.bad_rows.is_empty()));
            for finding in again.findings() {
                let no_description = finding.finding == Finding::Missing && finding.path.ends_with(SPACE_FILE);
                assert!(
                    no_description || finding.finding == Finding::SetAside,
                    "{finding:?} after {found:?}"
                );
            }
            let (space, origin) = names();
            let mut space = cache.create_space(&space, &origin).unwrap();
            let missing: Vec<u64> = (0..ROWS).filter(|number| !before.contains(number)).collect();
            append(&mut space, &missing);
            drop(space);
            assert_eq!(right_rows(&cache).len() as u64, ROWS);
            assert!(cache.verify(&Quiet, false).unwrap().is_sound());
        }
    }
}

#[test]
fn bad_rows_are_named_by_content_and_their_segment_is_set_aside() {
    let (_folder, cache) = made();
    let path = segments(&cache).remove(0);
    let bits = path.metadata().unwrap().len() * 8;
    flip(&path, bits - 1);
    let bad = cache.verify(&Quiet, true).unwrap().spaces.remove(0).bad_rows;
    assert_eq!(bad.len(), 1);
    let names: Vec<String> = (0..ROWS).map(|number| key(number).content_hex()).collect();
    assert!(names.contains(&bad[0].content));
    assert_eq!(bad[0].segment, path);
    assert!(!path.exists() && path.with_extension("damaged").is_file());
    let removed = cache.remove_leftovers().unwrap();
    assert_eq!(removed, vec![path.with_extension("damaged")]);
}

#[test]
fn lost_and_foreign_files_are_told() {
    let (_folder, cache) = made();
    let folder = cache.space_folder(names().0.id());
    fs::write(folder.join("notes.txt"), "mine").unwrap();
    fs::write(folder.join(".lastlayer-x1"), "half").unwrap();
    fs::remove_file(&segments(&cache)[0]).unwrap();
    fs::remove_file(folder.join("index")).unwrap();
    let report = cache.verify(&Quiet, false).unwrap();
    let mut findings: Vec<Finding> = report.findings().map(|finding| finding.finding).collect();
    findings.sort_by_key(|finding| *finding as u8);
    assert_eq!(
        findings,
        [
            Finding::NotIndexed,
            Finding::NotIndexed,
            Finding::Temporary,
            Finding::Foreign
        ]
    );
    assert!(report.is_sound());
    assert!(folder.join("notes.txt").is_file());
}

#[test]
fn status_counts_without_reading_rows_and_knows_the_last_use() {
    let (_folder, cache) = made();
    let (space, origin) = names();
    let described = cache.space_folder(space.id()).join(SPACE_FILE);
    let long_ago = SystemTime::now() - Duration::from_secs(5000);
    File::options()
        .write(true)
        .open(&described)
        .unwrap()
        .set_modified(long_ago)
        .unwrap();
    let status = cache.space_status().unwrap().remove(0);
    assert_eq!((status.rows, status.dim, status.segments), (12, Some(7), 3));
    assert_eq!((&status.space, status.origin), (&space, Some(origin)));
    assert_eq!(status.computed_by, vec![("cpu".to_owned(), "1.32.0".to_owned())]);
    let bytes: u64 = list(&cache.space_folder(space.id()))
        .unwrap()
        .iter()
        .map(|path| path.metadata().unwrap().len())
        .sum();
    assert_eq!(status.bytes, bytes);
    assert!(status.last_used.elapsed().unwrap() > Duration::from_secs(4000));
    cache.open_space(&space).unwrap().unwrap().touch();
    let status = cache.space_status().unwrap().remove(0);
    assert!(status.last_used.elapsed().unwrap() < Duration::from_secs(4000));
}
