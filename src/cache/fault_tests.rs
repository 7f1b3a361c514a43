//! Every step that the cache takes on the disk fails once, for good, or with the power; nothing wrong comes of it.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use super::merge::{Exclusive, Merging};
use super::{Cache, FeatureSpace, Origin, RowKey, Space};
use crate::disk::faulty::{Fault, FaultyFiles, Forgotten};

const BATCH: u64 = 3;
const BATCHES: u64 = 9;

fn key(number: u64) -> RowKey {
    RowKey::plain(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

/// What a backbone would give; the same for each run.
fn row(number: u64) -> Vec<f32> {
    (0..5)
        .map(|column| (number * 31 + column) as f32 * 0.37 - 4.0)
        .collect()
}

fn append(space: &mut Space, numbers: &[u64]) -> crate::Result<()> {
    let keys: Vec<RowKey> = numbers.iter().copied().map(key).collect();
    let rows: Vec<f32> = numbers.iter().copied().flat_map(row).collect();
    space.append(&keys, &rows, 5, "cpu", "1.32.0")
}

fn names() -> (FeatureSpace, Origin) {
    let origin = Origin {
        name: "resnet18".to_owned(),
        file: "/models/resnet18.onnx".into(),
    };
    (FeatureSpace::new(&serde_json::json!({"crop": 224})), origin)
}

/// Every third row goes when rows are dropped.
fn stays(number: u64) -> bool {
    !number.is_multiple_of(3)
}

/// A life of a space: commits, merges, rows dropped, more commits. Returns the rows that must be there afterwards.
fn live(root: &Path, disk: &FaultyFiles) -> Vec<u64> {
    let cache = Cache::with_files(root, Arc::new(disk.clone()));
    let (space, origin) = names();
    let mut there = Vec::new();
    let Ok(mut space) = cache.create_space(&space, &origin) else {
        return there;
    };
    space.merging = Merging {
        count: 4,
        ..Merging::default()
    };
    let kept: BTreeMap<RowKey, bool> = (0..BATCH * BATCHES)
        .map(|number| (key(number), stays(number)))
        .collect();
    for batch in 0..BATCHES {
        let numbers: Vec<u64> = (batch * BATCH..(batch + 1) * BATCH).collect();
        if append(&mut space, &numbers).is_ok() {
            there.extend(&numbers);
        }
        for number in &there {
            if let Some(found) = space.row(&key(*number)) {
                assert_eq!(found, row(*number), "while it runs");
            }
        }
        if batch == BATCHES - 3 {
            // Whether it is through or not, only what is to go may go.
            let _ = space.retain(&|key| kept[key]);
            there.retain(|number| stays(*number));
        }
    }
    there
}

/// Reopens on a disk that works: opens, gives only right rows, has all of `there`; or says what is not so.
fn look(root: &Path, there: &[u64]) -> Result<(), String> {
    let Some(space) = Cache::new(root)
        .open_space(&names().0)
        .map_err(|error| error.to_string())?
    else {
        return if there.is_empty() {
            Ok(())
        } else {
            Err("the space is gone".to_owned())
        };
    };
    for number in 0..BATCH * BATCHES {
        match space.row(&key(number)) {
            Some(found) if found != row(number) => return Err(format!("row {number} is wrong")),
            None if there.contains(&number) => return Err(format!("row {number} was promised and is gone")),
            _ => {}
        }
    }
    Ok(())
}

/// Looks, and goes on to the end of a clean run.
fn check(root: &Path, there: &[u64], what: &str) {
    look(root, there).unwrap_or_else(|problem| panic!("{what}: {problem}"));
    let cache = Cache::new(root);
    let (space, origin) = names();
    let mut writer = cache.create_space(&space, &origin).unwrap();
    let missing: Vec<u64> = (0..BATCH * BATCHES)
        .filter(|number| writer.row(&key(*number)).is_none())
        .collect();
    append(&mut writer, &missing).unwrap();
    let end = cache.open_space(&space).unwrap().unwrap();
    assert_eq!(end.len() as u64, BATCH * BATCHES, "{what}");
    for number in 0..BATCH * BATCHES {
        assert_eq!(end.row(&key(number)).unwrap(), row(number), "{what}: at the end");
    }
    assert_eq!(cache.spaces().unwrap(), vec![(space, Some(origin))], "{what}");
}

fn steps_of_a_clean_run() -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyFiles::new(None, 1);
    let there = live(&folder.path().join("cache"), &disk);
    assert_eq!(there.len() as u64, BATCH * BATCHES - (BATCHES - 2));
    check(&folder.path().join("cache"), &there, "clean");
    disk.steps()
}

fn try_fault(step: u64, fault: Fault, seed: u64) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("cache");
    let disk = FaultyFiles::new(Some((step, fault)), seed);
    let there = live(&root, &disk);
    if fault == Fault::PowerCut {
        disk.restart();
    }
    check(&root, &there, &format!("step {step}, {fault:?}, seed {seed}"));
}

#[test]
fn whichever_step_fails_every_row_is_right_and_every_promised_row_is_there() {
    for step in 0..steps_of_a_clean_run() {
        for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
            try_fault(step, Fault::Once(kind), step);
        }
        try_fault(step, Fault::Always(ErrorKind::StorageFull), step);
    }
}

#[test]
fn a_power_cut_at_any_step_loses_no_promised_row_and_makes_none_wrong() {
    let steps = steps_of_a_clean_run();
    for step in 0..steps {
        for seed in 1..4 {
            try_fault(step, Fault::PowerCut, seed * 1009 + step);
        }
    }
    // After the last step too: what was promised must not hang on a later sync.
    for seed in 0..100 {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("cache");
        let disk = FaultyFiles::new(None, seed);
        let there = live(&root, &disk);
        disk.restart();
        check(&root, &there, &format!("power cut after the end, seed {seed}"));
    }
}

#[test]
fn a_forgotten_sync_would_be_noticed() {
    for forgotten in [Forgotten::Data, Forgotten::Folders] {
        let noticed = (1..50).any(|seed| {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().join("cache");
            let disk = FaultyFiles::forgetting(forgotten, seed);
            let there = live(&root, &disk);
            disk.restart();
            look(&root, &there).is_err_and(|problem| problem.contains("gone"))
        });
        assert!(noticed, "{forgotten:?}");
    }
}

#[test]
fn two_power_cuts_in_a_row_lose_no_promised_row() {
    let steps = steps_of_a_clean_run();
    for seed in 0..150 {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("cache");
        let mut promised = Vec::new();
        for life in 0..2 {
            let step = (seed * 7919 + life * 104_729) % steps;
            let disk = FaultyFiles::new(Some((step, Fault::PowerCut)), seed + life);
            let there = live(&root, &disk);
            disk.restart();
            promised.retain(|number| stays(*number));
            promised.extend(there);
        }
        check(&root, &promised, &format!("seed {seed}"));
    }
}

#[test]
fn without_locks_two_writers_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(FaultyFiles::lacking(false, true));
    let cache = Cache::with_files(folder.path(), disk);
    let (space, origin) = names();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (cache, space, origin) = (&cache, &space, &origin);
            scope.spawn(move || {
                let mut space = cache.create_space(space, origin).unwrap();
                for batch in 0..15 {
                    let start = writer * 1000 + batch * 2;
                    append(&mut space, &[start, start + 1]).unwrap();
                }
            });
        }
    });
    let opened = Cache::new(folder.path()).open_space(&space).unwrap().unwrap();
    assert_eq!(opened.len(), 120);
    for number in (0..4).flat_map(|writer| writer * 1000..writer * 1000 + 30) {
        assert_eq!(opened.row(&key(number)).unwrap(), row(number));
    }
}

/// What a run says at the level of warnings.
fn warnings(run: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Log(Arc<std::sync::Mutex<Vec<u8>>>);
    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    tracing::subscriber::with_default(subscriber, run);
    let bytes = log.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_file_system_without_locks_or_maps_is_worked_on_and_said_once() {
    for (locks, maps, expected) in [(false, true, "can't be locked"), (true, false, "can't be mapped")] {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::with_files(folder.path(), Arc::new(FaultyFiles::lacking(locks, maps)));
        let (space, origin) = names();
        let said = warnings(|| {
            let mut writer = cache.create_space(&space, &origin).unwrap();
            append(&mut writer, &[1, 2]).unwrap();
            append(&mut writer, &[3]).unwrap();
            let reader = cache.open_space(&space).unwrap().unwrap();
            for number in 1..4 {
                assert_eq!(writer.row(&key(number)).unwrap(), row(number));
                assert_eq!(reader.row(&key(number)).unwrap(), row(number));
            }
        });
        assert_eq!(said.matches(expected).count(), 1, "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(&*folder.path().to_string_lossy()), "{said}");
    }
}

#[test]
fn rows_are_dropped_and_a_space_removed_only_while_nobody_writes() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path());
    let (space, origin) = names();
    let mut writer = cache.create_space(&space, &origin).unwrap();
    append(&mut writer, &[0, 1, 2, 3]).unwrap();
    let mut other = cache.open_space(&space).unwrap().unwrap();
    assert_eq!(other.retain(&|_| false).unwrap(), Exclusive::Busy);
    assert_eq!(cache.remove_space(space.id()).unwrap(), Exclusive::Busy);
    assert_eq!(other.len(), 4);

    // The writer itself may, and is protected again afterwards.
    let Exclusive::Done(retained) = writer.retain(&|found| *found != key(2)).unwrap() else {
        panic!("there is no other writer");
    };
    assert_eq!((retained.rows, retained.dropped_rows), (3, 1));
    assert!(retained.freed_bytes > 0);
    assert_eq!(writer.row(&key(2)), None);
    assert_eq!(cache.remove_space(space.id()).unwrap(), Exclusive::Busy);

    // A dead process's lock is free; a reader keeps what it has open.
    drop(writer);
    assert!(matches!(cache.remove_space(space.id()).unwrap(), Exclusive::Done(freed) if freed > 0));
    assert_eq!(other.row(&key(2)).unwrap(), row(2));
    assert!(cache.spaces().unwrap().is_empty());
    assert!(cache.open_space(&space).unwrap().is_none());
    append(&mut cache.create_space(&space, &origin).unwrap(), &[7]).unwrap();
    assert_eq!(cache.open_space(&space).unwrap().unwrap().len(), 1);
}

#[test]
fn a_space_is_locked_until_nothing_else_is_left_of_it() {
    let (space, origin) = names();
    for step in 0.. {
        let folder = tempfile::tempdir().unwrap();
        append(
            &mut Cache::new(folder.path()).create_space(&space, &origin).unwrap(),
            &[0],
        )
        .unwrap();
        let disk = FaultyFiles::new(Some((step, Fault::Once(ErrorKind::Other))), 1);
        let cache = Cache::with_files(folder.path(), Arc::new(disk.clone()));
        let outcome = cache.remove_space(space.id());
        let left = std::fs::read_dir(cache.space_folder(space.id()))
            .into_iter()
            .flatten()
            .flatten();
        let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
        assert!(
            left.is_empty() || left.contains(&"users".into()),
            "step {step}: of {left:?} a new writer has another lock than who removes it"
        );
        if disk.steps() <= step {
            outcome.unwrap();
            break;
        }
    }
}

#[test]
fn what_another_writer_added_is_seen_after_the_next_commit() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path());
    let (space, origin) = names();
    let mut one = cache.create_space(&space, &origin).unwrap();
    let mut other = cache.create_space(&space, &origin).unwrap();
    append(&mut one, &[0, 1]).unwrap();
    assert!(!other.contains(&key(0)));
    append(&mut other, &[2]).unwrap();
    assert_eq!(other.row(&key(0)).unwrap(), row(0));
    assert_eq!(other.len(), 3);
    // Also when a third one has merged them meanwhile.
    let mut third = cache.create_space(&space, &origin).unwrap();
    third.merging.count = 2;
    append(&mut third, &[3]).unwrap();
    append(&mut other, &[4]).unwrap();
    assert_eq!(other.len(), 5);
    for number in 0..5 {
        assert_eq!(other.row(&key(number)).unwrap(), row(number));
    }
}

#[test]
fn a_damaged_copy_hides_no_good_one() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path());
    let (space, origin) = names();
    append(&mut cache.create_space(&space, &origin).unwrap(), &[0, 1]).unwrap();
    append(&mut cache.create_space(&space, &origin).unwrap(), &[0, 2]).unwrap();
    let files: Vec<_> = std::fs::read_dir(cache.space_folder(space.id()))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    assert_eq!(files.len(), 2);
    std::fs::remove_file(cache.space_folder(space.id()).join("index")).unwrap();
    // Whichever of the two comes first without an index.
    for file in &files {
        let good = std::fs::read(file).unwrap();
        let mut bytes = good.clone();
        let first_row = bytes.len() - 2 * 5 * 4;
        bytes[first_row] ^= 1;
        std::fs::write(file, &bytes).unwrap();
        let opened = cache.open_space(&space).unwrap().unwrap();
        assert_eq!(opened.len(), 3);
        for number in 0..3 {
            assert_eq!(opened.row(&key(number)).unwrap(), row(number));
        }
        drop(opened);
        std::fs::write(file, good).unwrap();
    }
}
