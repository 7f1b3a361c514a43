//! What the cache promises, on small made rows.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::cache::{RowKey, Space};

fn key(number: u64) -> RowKey {
    RowKey::plain(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn row(number: u64) -> [f32; 3] {
    [number as f32, 0.5, -(number as f32)]
}

fn append(space: &mut Space, numbers: std::ops::Range<u64>) {
    let keys: Vec<_> = numbers.clone().map(key).collect();
    let rows: Vec<f32> = numbers.flat_map(row).collect();
    space.append(&keys, &rows, 3, "cpu", "1.32.0").unwrap();
}

fn fixture() -> (tempfile::TempDir, Cache, FeatureSpace, Origin) {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(&folder.path().join("cache"));
    let space = FeatureSpace::new(&serde_json::json!({"crop": 224}));
    let origin = Origin {
        name: "resnet18".to_owned(),
        file: PathBuf::from("/models/resnet18.onnx"),
    };
    (folder, cache, space, origin)
}

fn assert_rows(space: &Space, numbers: std::ops::Range<u64>) {
    for number in numbers {
        assert_eq!(space.row(&key(number)), Some(&row(number)[..]), "row {number}");
    }
}

fn segment_files(cache: &Cache, space: &FeatureSpace) -> Vec<PathBuf> {
    let folder = cache.space_folder(space.id());
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect()
}

#[test]
fn rows_are_found_again_after_reopening() {
    let (_folder, cache, id, origin) = fixture();
    assert!(cache.open_space(&id).unwrap().is_none());
    let mut space = cache.create_space(&id, &origin).unwrap();
    append(&mut space, 0..10);
    append(&mut space, 10..12);
    assert_rows(&space, 0..12);
    let reopened = cache.open_space(&id).unwrap().unwrap();
    assert_eq!((reopened.len(), reopened.dim()), (12, Some(3)));
    assert_rows(&reopened, 0..12);
    assert_eq!(reopened.row(&key(99)), None);
    assert_eq!(cache.spaces().unwrap(), vec![(id, Some(origin))]);
}

#[test]
fn many_small_segments_become_few_and_open_readers_are_not_disturbed() {
    let (_folder, cache, id, origin) = fixture();
    let mut space = cache.create_space(&id, &origin).unwrap();
    append(&mut space, 0..5);
    let reader = cache.open_space(&id).unwrap().unwrap();
    for number in 1..100 {
        append(&mut space, number * 5..number * 5 + 5);
    }
    assert!(
        segment_files(&cache, &id).len() < 40,
        "{} files",
        segment_files(&cache, &id).len()
    );
    assert_rows(&space, 0..500);
    assert_rows(&cache.open_space(&id).unwrap().unwrap(), 0..500);
    assert_rows(&reader, 0..5);
    assert_eq!(reader.len(), 5);
}

#[test]
fn a_lost_or_damaged_index_loses_nothing() {
    let (_folder, cache, id, origin) = fixture();
    append(&mut cache.create_space(&id, &origin).unwrap(), 0..10);
    let index = cache.space_folder(id.id()).join("index");
    fs::write(&index, b"garbage").unwrap();
    assert_rows(&cache.open_space(&id).unwrap().unwrap(), 0..10);
    fs::remove_file(&index).unwrap();
    let mut space = cache.create_space(&id, &origin).unwrap();
    append(&mut space, 10..12);
    assert_rows(&cache.open_space(&id).unwrap().unwrap(), 0..12);
}

#[test]
fn a_damaged_row_is_not_given_out_and_can_be_written_again() {
    let (_folder, cache, id, origin) = fixture();
    append(&mut cache.create_space(&id, &origin).unwrap(), 0..4);
    let file = segment_files(&cache, &id).remove(0);
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&file, bytes).unwrap();
    let mut space = cache.create_space(&id, &origin).unwrap();
    assert_rows(&space, 0..3);
    assert_eq!(space.row(&key(3)), None);
    append(&mut space, 3..4);
    assert_rows(&cache.open_space(&id).unwrap().unwrap(), 0..4);
}

#[test]
fn a_damaged_segment_is_set_aside() {
    let (_folder, cache, id, origin) = fixture();
    append(&mut cache.create_space(&id, &origin).unwrap(), 0..4);
    let file = segment_files(&cache, &id).remove(0);
    fs::write(&file, b"LLSEGM01 and then nothing that makes sense").unwrap();
    let mut space = cache.create_space(&id, &origin).unwrap();
    assert!(space.is_empty());
    append(&mut space, 0..4);
    assert!(file.with_extension("damaged").is_file());
    assert_rows(&cache.open_space(&id).unwrap().unwrap(), 0..4);
}

#[test]
fn two_writers_keep_both_their_rows() {
    let (_folder, cache, id, origin) = fixture();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (cache, id, origin) = (&cache, &id, &origin);
            scope.spawn(move || {
                let mut space = cache.create_space(id, origin).unwrap();
                for batch in 0..20 {
                    let start = writer * 1000 + batch * 5;
                    append(&mut space, start..start + 5);
                }
            });
        }
    });
    let space = cache.open_space(&id).unwrap().unwrap();
    assert_eq!(space.len(), 400);
    for writer in 0..4 {
        assert_rows(&space, writer * 1000..writer * 1000 + 100);
    }
}

#[test]
fn another_dimension_is_refused() {
    let (_folder, cache, id, origin) = fixture();
    let mut space = cache.create_space(&id, &origin).unwrap();
    append(&mut space, 0..2);
    assert!(space.append(&[key(7)], &[1.0, 2.0], 2, "cpu", "1.32.0").is_err());
}
