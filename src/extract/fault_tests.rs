//! Whole runs of `extract` on a disk whose steps fail once, for good, or with the power: whatever happens, the cache opens,
//! each row in it is that of a clean run, and the next run comes to the clean run's end, bit by bit.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{ExtractOptions, ExtractReport, FailureLimit, extract};
use crate::backbone::{Backbone, Device, RuntimeOptions};
use crate::cache::{Cache, FeatureSpace, RowKey};
use crate::dataset::{Dataset, InputOptions, SampleRecord};
use crate::disk::faulty::{Fault, FaultyFiles};
use crate::engine::InferenceOptions;
use crate::error::Result;
use crate::observer::{Observer, Quiet};
use crate::picture::Limits;
use crate::space::FeatureOptions;
use crate::upkeep::verify;
use crate::views::RandomViews;

#[expect(dead_code, reason = "written for the tests of the binary, which use all of it")]
#[path = "../../tests/cli/common/model.rs"]
mod model;

const PICTURES: usize = 17;
/// Rows that the cache has before, each in a segment of its own; a few more segments make a run merge them.
const SEEDS: u64 = 28;

/// What a cache holds for good: the bits of its rows, and the record's bytes.
#[derive(Debug, PartialEq)]
struct End {
    rows: BTreeMap<RowKey, Vec<u32>>,
    record: Option<Vec<u8>>,
}

struct Ground {
    folder: tempfile::TempDir,
    dataset: Dataset,
    backbone: Arc<Backbone>,
    space: FeatureSpace,
    seeds: BTreeMap<RowKey, Vec<u32>>,
    clean: End,
    /// Steps that a clean run takes on the disk.
    steps: u64,
}

fn bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|value| value.to_bits()).collect()
}

fn write_pictures(folder: &Path) {
    for number in 0..PICTURES {
        let class = folder.join(if number % 2 == 0 { "train/a" } else { "train/b" });
        std::fs::create_dir_all(&class).unwrap();
        // The last is a copy of the one before it.
        let shade = number.min(PICTURES - 2) as u32;
        let picture = image::RgbImage::from_fn(12, 10, |x, y| {
            image::Rgb([(shade * 13 + x * 3) as u8, (y * 9) as u8, (shade * 7) as u8])
        });
        picture.save(class.join(format!("{number:02}.png"))).unwrap();
    }
    std::fs::write(folder.join("train/a/page.png"), "<html>").unwrap();
}

fn run(dataset: &Dataset, backbone: &Arc<Backbone>, cache: &Cache) -> Result<ExtractReport> {
    run_watched(dataset, backbone, cache, &Quiet)
}

fn run_watched(
    dataset: &Dataset,
    backbone: &Arc<Backbone>,
    cache: &Cache,
    observer: &dyn Observer,
) -> Result<ExtractReport> {
    let options = ExtractOptions {
        inference: InferenceOptions {
            runtime: RuntimeOptions {
                env_library: std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from),
                data_dir: dirs::data_dir().unwrap().join("lastlayer"),
                ..RuntimeOptions::default()
            },
            device: Device::Cpu,
            threads: 1,
            batch_size: 2,
        },
        features: FeatureOptions::default(),
        limits: Limits::default(),
        rehash: false,
        max_failures: FailureLimit::Unlimited,
        views: RandomViews::default(),
    };
    extract(dataset, backbone, cache, &options, observer)
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            std::fs::copy(&path, target).unwrap();
        }
    }
}

impl Ground {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pictures = folder.path().join("pictures");
        write_pictures(&pictures);
        let file = folder.path().join("tiny.onnx");
        let model = model::TinyModel {
            side: 16,
            ..model::TinyModel::default()
        };
        std::fs::write(&file, model.onnx()).unwrap();
        // Old enough that their times are believed: records of all runs say the same of them.
        std::thread::sleep(Duration::from_millis(2100));
        let dataset = Dataset::open_listed(&pictures, &InputOptions::default())
            .unwrap()
            .unwrap();
        let backbone = Arc::new(Backbone::open("tiny.onnx", &file, None).unwrap());
        let space = backbone.space(&FeatureOptions::default()).unwrap().space();

        let seeded = Cache::new(&folder.path().join("seeded"));
        let mut writer = seeded.create_space(&space, backbone.origin()).unwrap();
        let mut seeds = BTreeMap::new();
        for number in 0..SEEDS {
            let key = RowKey::plain(*blake3::hash(&number.to_le_bytes()).as_bytes());
            let row: Vec<f32> = (0..8)
                .map(|column| (number * 31 + column) as f32 * 0.37 - 4.0)
                .collect();
            writer.append(&[key], &row, 8, "cpu", "1.0.0").unwrap();
            seeds.insert(key, bits(&row));
        }
        drop(writer);

        let root = folder.path().join("clean");
        copy_folder(seeded.root(), &root);
        let disk = FaultyFiles::new(None, 1);
        let cache = Cache::with_files(&root, Arc::new(disk.clone()));
        let segments = seeded.space_status().unwrap()[0].segments;
        let report = run(&dataset, &backbone, &cache).unwrap();
        assert_eq!(
            (report.images, report.computed, report.failed),
            (PICTURES + 1, PICTURES, 1)
        );
        assert_eq!(segments as u64, SEEDS);
        let merged = cache.space_status().unwrap()[0].segments;
        assert!(merged < 10, "{merged} segments: the run has to merge some");
        let mut ground = Self {
            folder,
            dataset,
            backbone,
            space,
            seeds,
            clean: End {
                rows: BTreeMap::new(),
                record: None,
            },
            steps: disk.steps(),
        };
        ground.clean = ground.end(&cache);
        assert_eq!(ground.clean.rows.len() as u64, SEEDS + PICTURES as u64 - 1);
        assert!(ground.clean.record.is_some());
        ground
    }

    fn end(&self, cache: &Cache) -> End {
        let rows = cache.open_space(&self.space).unwrap().map(|space| {
            let keys: Vec<RowKey> = space.keys().collect();
            keys.into_iter()
                .map(|key| (key, bits(space.row(&key).unwrap())))
                .collect()
        });
        let record = cache.dataset_record(&self.dataset.name).unwrap();
        End {
            rows: rows.unwrap_or_default(),
            record: record.map(|record| std::fs::read(record.file()).unwrap()),
        }
    }

    /// Lets a run meet `fault` at `step`; returns whether it came to its end all the same.
    fn meet(&self, step: u64, fault: Fault, seed: u64, seeded: bool) -> bool {
        let told = format!("step {step}, {fault:?}, seed {seed}, seeded {seeded}");
        let root = self.folder.path().join("faulty");
        if root.exists() {
            std::fs::remove_dir_all(&root).unwrap();
        }
        if seeded {
            copy_folder(&self.folder.path().join("seeded"), &root);
        }
        let disk = FaultyFiles::new(Some((step, fault)), seed);
        let ended = run(
            &self.dataset,
            &self.backbone,
            &Cache::with_files(&root, Arc::new(disk.clone())),
        )
        .is_ok();
        if fault == Fault::PowerCut {
            disk.restart();
        }

        let cache = Cache::new(&root);
        let found = self.end(&cache);
        for (key, row) in &found.rows {
            assert!(
                self.clean.rows.get(key) == Some(row),
                "{told}: the row of {key:?} is wrong"
            );
        }
        for key in self.seeds.keys().filter(|_| seeded) {
            assert!(found.rows.contains_key(key), "{told}: a row of before is gone");
        }
        let expected = |rows: &BTreeMap<RowKey, Vec<u32>>| {
            let is_there = |key: &RowKey| seeded || !self.seeds.contains_key(key);
            let rows = rows.iter().filter(|(key, _)| is_there(key));
            rows.map(|(key, row)| (*key, row.clone())).collect::<BTreeMap<_, _>>()
        };
        let clean = End {
            rows: expected(&self.clean.rows),
            record: self.clean.record.clone(),
        };
        if ended {
            assert!(found == clean, "{told}: the run said that it had come to its end");
        }
        // What has its name was complete before: nothing is damaged, only left over.
        let verified = verify(&cache, false, &Quiet).unwrap();
        assert_eq!(verified.damage(), 0, "{told}: {:?}", verified.report);

        let before = found.rows.keys().filter(|key| !self.seeds.contains_key(*key)).count();
        let report = run(&self.dataset, &self.backbone, &cache).unwrap();
        assert_eq!(report.images, PICTURES + 1, "{told}");
        // Two pictures share a row.
        let computed = report.computed - report.duplicates;
        assert_eq!(
            computed,
            PICTURES - 1 - before,
            "{told}: what is there is not computed again"
        );
        assert!(self.end(&cache) == clean, "{told}: the end is another");
        let verified = verify(&cache, false, &Quiet).unwrap();
        assert_eq!(verified.damage(), 0, "{told}, at the end: {:?}", verified.report);
        ended
    }
}

#[test]
fn an_extract_on_a_failing_disk_leaves_only_right_rows_and_resumes_to_the_same_end() {
    let ground = Ground::new();
    let mut met = [0; 2];
    for step in 0..ground.steps {
        let kind = [ErrorKind::StorageFull, ErrorKind::Other][step as usize % 2];
        let ended = ground.meet(step, Fault::Once(kind), step, step % 3 != 0);
        met[usize::from(ended)] += 1;
        if step % 3 == 1 {
            ground.meet(step, Fault::Always(kind), step, true);
        }
    }
    eprintln!(
        "{} steps; ended in spite of one failure: {} of {}",
        ground.steps,
        met[1],
        met[0] + met[1]
    );
    assert!(met[0] > met[1], "most steps matter: {met:?}");
}

#[test]
fn an_extract_whose_power_is_cut_leaves_only_right_rows_and_resumes_to_the_same_end() {
    let ground = Ground::new();
    for step in 0..ground.steps {
        ground.meet(step, Fault::PowerCut, 1009 + step, true);
        ground.meet(step, Fault::PowerCut, 2003 + step, step % 2 == 0);
    }
    // After the last step, too: what was said to be there must not hang on a later sync.
    for seed in 0..20 {
        assert!(ground.meet(u64::MAX, Fault::PowerCut, seed, true));
    }
}

/// Looks at each picture how many the record knows already.
struct Witness<'a> {
    cache: &'a Cache,
    name: &'a Path,
    seen: Mutex<Vec<usize>>,
}

impl Observer for Witness<'_> {
    fn advance(&self, _count: u64) {
        let record = self.cache.dataset_record(self.name).unwrap();
        let seen = record.map_or(0, |record| record.samples().filter(SampleRecord::is_seen).count());
        self.seen.lock().unwrap().push(seen);
    }
}

#[test]
fn a_run_that_only_hashes_remembers_what_it_has_hashed_before_it_ends() {
    let ground = Ground::new();
    let moved = ground.folder.path().join("moved");
    std::fs::rename(ground.folder.path().join("pictures"), &moved).unwrap();
    let dataset = Dataset::open_listed(&moved, &InputOptions::default()).unwrap().unwrap();
    let cache = Cache::new(&ground.folder.path().join("clean"));
    let witness = Witness {
        cache: &cache,
        name: &dataset.name,
        seen: Mutex::default(),
    };
    let report = run_watched(&dataset, &ground.backbone, &cache, &witness).unwrap();
    assert_eq!((report.computed, report.reused), (0, PICTURES));
    let seen = witness.seen.into_inner().unwrap();
    assert_eq!(seen.len(), PICTURES + 1);
    assert!(
        seen.last() >= Some(&(PICTURES / 2)),
        "known after each picture: {seen:?}"
    );
}
