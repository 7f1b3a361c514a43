#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

fn record_of(name: &str) -> RecordOf {
    RecordOf {
        name: PathBuf::from(name),
        kind: DatasetKind::Archives,
        root: PathBuf::from("/data"),
        classes: vec!["a".to_owned(), "b".to_owned()],
        archives: vec![(
            PathBuf::from("one.tar"),
            Stamp {
                size: 9,
                ..Stamp::default()
            },
        )],
    }
}

fn samples() -> Vec<SampleRecord<'static>> {
    let sample = SampleRecord {
        path: Cow::Owned(path_from_bytes(b"train/a/\xff odd name.jpg").into_owned()),
        class: Some(1),
        split: Some(Split::Val),
        stamp: Stamp {
            size: 5,
            modified_ns: -7,
            changed_ns: 9,
            inode: 11,
        },
        settled: true,
        content: Some([3; 32]),
        partial: true,
        failure: None,
    };
    let failed = SampleRecord {
        path: Cow::Borrowed(Path::new("b.jpg")),
        class: None,
        split: None,
        content: None,
        settled: false,
        partial: false,
        failure: Some("truncated: ends early".into()),
        ..sample.clone()
    };
    vec![sample, failed]
}

/// A record of two pictures, one of them failed.
pub(crate) fn made_record() -> DatasetRecord {
    let (folder, of, samples) = (tempfile::tempdir().unwrap(), record_of("/data/cats"), samples());
    let cache = Cache::new(folder.path());
    save(&cache, &of, &samples);
    DatasetRecord::of_bytes(&fs::read(cache.record_path(&of.name)).unwrap()).unwrap()
}

fn save(cache: &Cache, of: &RecordOf, samples: &[SampleRecord<'static>]) {
    cache
        .save_dataset_record(of, samples.len(), &|index| samples[index].clone())
        .unwrap();
}

#[test]
fn records_round_trip_by_name_and_are_found_by_path() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path());
    let (of, samples) = (record_of("/data/cats"), samples());
    assert!(cache.dataset_record(&of.name).unwrap().is_none());
    save(&cache, &of, &samples);
    let record = cache.dataset_record(&of.name).unwrap().unwrap();
    assert_eq!(record.of(), &of);
    assert_eq!(record.samples().collect::<Vec<_>>(), samples);
    for sample in &samples {
        assert_eq!(record.find(&sample.path).unwrap(), *sample);
    }
    assert_eq!(record.find(Path::new("c.jpg")), None);
    assert!(cache.dataset_record(Path::new("/data/dogs")).unwrap().is_none());
    assert_eq!(cache.dataset_record_files().unwrap(), [record.file().to_path_buf()]);
    save(&cache, &of, &[]);
    assert_eq!(cache.dataset_record(&of.name).unwrap().unwrap().len(), 0);
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_record_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path());
    let of = record_of("/data/cats");
    save(&cache, &of, &samples());
    let path = cache.record_path(&of.name);
    let bytes = fs::read(&path).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &damaged).unwrap();
        assert!(cache.dataset_record(&of.name).unwrap().is_none(), "bit {bit}");
    }
    for length in 0..bytes.len() {
        fs::write(&path, &bytes[..length]).unwrap();
        assert!(
            cache.dataset_record(&of.name).unwrap().is_none(),
            "cut to {length} bytes"
        );
    }
}

#[test]
fn entries_that_make_no_sense_are_refused_under_a_right_checksum() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path());
    let of = record_of("/data/cats");
    save(&cache, &of, &samples());
    let path = cache.record_path(&of.name);
    let bytes = fs::read(&path).unwrap();
    let entries = cache.open_dataset_record(&path).unwrap().entries_offset;
    for (offset, value) in [
        (0, 0xff),
        (7, 0xff),
        (8, 0xff),
        (12, 0xff),
        (16, 7),
        (20, 9),
        (21, 0x80),
    ] {
        let mut hostile = bytes[..bytes.len() - CHECKSUM_BYTES].to_vec();
        hostile[entries + offset] = value;
        let checksum = blake3::hash(&hostile);
        hostile.extend_from_slice(checksum.as_bytes());
        fs::write(&path, &hostile).unwrap();
        let error = cache.open_dataset_record(&path).unwrap_err().to_string();
        assert!(error.contains("makes no sense"), "offset {offset}: {error}");
    }
}
