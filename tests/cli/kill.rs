//! `extract` killed at random moments: whatever it was doing, the cache opens, its rows are right, none is lost, and the
//! next run goes on to the same end.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::common::{
    EXTRACT, Random, Run, Scene, StoredSpace, TinyModel, copy_folder, counts, picture, png, segments, stored_space,
};

const SEED: u64 = 20_240_611;
/// Processes that must have died of the signal.
const KILLS: u64 = 200;
/// Caches that are worked on at a time, each by a run with one thread.
const CHAINS_AT_ONCE: u64 = 2;
/// After so many kills a chain is run to its end.
const LONGEST_CHAIN: u64 = 9;
const PICTURES: u64 = 240;
/// Small segments in the cache before a chain begins; a few more make the program merge them.
const SEGMENTS_BEFORE: u64 = 29;
/// One thread and small batches, so that a run takes about a second and has many moments to be killed at.
const EXTRACT_MANY: [&str; 9] = [
    "extract",
    "many",
    "--backbone",
    "tiny.onnx",
    "--threads",
    "1",
    "--batch-size",
    "2",
    "--json",
];
const TRAIN: [&str; 7] = ["train-head", "pictures", "--epochs", "2", "--threads", "1", "--quiet"];

/// What the moments were that processes were killed at.
#[derive(Debug, Default)]
struct Tally {
    kills: AtomicU64,
    before_the_first_row: AtomicU64,
    within: AtomicU64,
    after_the_last_row: AtomicU64,
    while_writing_a_file: AtomicU64,
    before_a_segment_was_named: AtomicU64,
    beside_another_run: AtomicU64,
    ended_too_soon: AtomicU64,
    merges: AtomicU64,
    chains: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What all chains have in common.
struct Ground {
    scene: Scene,
    /// All rows of a run that nothing disturbed.
    clean: StoredSpace,
    /// Of these, the rows before a chain begins.
    rows_before: usize,
    /// From the start of a process to its first rows on disk, and to its end, in seconds.
    first_rows: f64,
    whole: f64,
    head: Vec<u8>,
    tally: Tally,
}

impl Ground {
    fn new() -> Self {
        let scene = Scene::with_pictures();
        let model = TinyModel {
            width: 64,
            kernel: 7,
            stride: 2,
            ..TinyModel::default()
        };
        scene.write("tiny.onnx", &model.onnx());
        for number in 0..PICTURES {
            let class = usize::from(number % 2 == 0);
            let name = format!("many/train/{class}/{number}.png");
            scene.write(&name, &png(&picture(class, 1000 + number)));
        }
        let seed = |scene: &Scene| scene.extract(["--cache", "seed"]);
        seed(&scene);
        for number in 1..SEGMENTS_BEFORE {
            scene.add_pictures("pictures/train/red", 2, 100 + number..101 + number);
            seed(&scene);
        }
        let before = stored_space(&scene.path("seed"));
        assert_eq!(before.rows.len() as u64, 26 + SEGMENTS_BEFORE);
        let head = train(&scene, "seed", "clean.head");

        copy_folder(&scene.path("seed"), &scene.path("clean"));
        let known = segments(&scene.path("clean")).len();
        let start = Instant::now();
        let mut child = scene.spawn(&mut scene.command(EXTRACT_MANY.into_iter().chain(["--cache", "clean"])));
        let mut first_rows = None;
        while child.try_wait().unwrap().is_none() {
            if first_rows.is_none() && segments(&scene.path("clean")).len() != known {
                first_rows = Some(start.elapsed().as_secs_f64());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let whole = start.elapsed().as_secs_f64();
        let report = Run::of(child.wait_with_output().unwrap()).code(0).json();
        assert_eq!(counts(&report), [PICTURES, PICTURES, 0, 0]);
        let clean = stored_space(&scene.path("clean"));
        assert_eq!(clean.rows.len() as u64, before.rows.len() as u64 + PICTURES);
        let first_rows = first_rows.unwrap_or(whole * 0.5);
        eprintln!("a clean run: first rows after {first_rows:.2} s, all after {whole:.2} s");
        Self {
            scene,
            rows_before: before.rows.len(),
            clean,
            first_rows,
            whole,
            head,
            tally: Tally::default(),
        }
    }

    /// Checks every row of a cache against the clean run's.
    fn check(&self, cache: &str, told: &str) -> StoredSpace {
        let found = stored_space(&self.scene.path(cache));
        for (key, row) in &found.rows {
            assert!(
                self.clean.rows.get(key) == Some(row),
                "{told}: the row of {key:?} is wrong"
            );
        }
        found
    }

    /// Kills runs into one cache again and again, then lets one run to its end.
    fn chain(&self, number: u64) {
        let mut random = Random(SEED ^ (number << 32));
        let cache = format!("chain-{number}");
        copy_folder(&self.scene.path("seed"), &self.scene.path(&cache));
        let mut before = self.check(&cache, "at the start");
        for kill in 0..LONGEST_CHAIN {
            if before.rows.len() == self.clean.rows.len() || self.tally.kills.load(Ordering::Relaxed) >= KILLS {
                break;
            }
            let told = format!("chain {number}, kill {kill}");
            self.kill_one(&cache, &mut random, &told);
            let after = self.check(&cache, &told);
            assert!(
                before.rows.keys().all(|key| after.rows.contains_key(key)),
                "{told}: of {} rows, {} are left",
                before.rows.len(),
                after.rows.len()
            );
            self.classify(&before, &after);
            if random.below(4) == 0 {
                let head = train(&self.scene, &cache, &format!("{cache}.head"));
                assert!(
                    head == self.head,
                    "{told}: another head of a data set that was complete"
                );
            }
            before = after;
        }
        let report = self.scene.run(EXTRACT_MANY.into_iter().chain(["--cache", &cache]));
        let kept = (before.rows.len() - self.rows_before) as u64;
        assert_eq!(
            counts(&report.code(0).json()),
            [PICTURES, PICTURES - kept, kept, 0],
            "chain {number}"
        );
        let end = self.check(&cache, "at the end");
        assert_eq!(end.rows.len(), self.clean.rows.len(), "chain {number}");
        if kept < PICTURES {
            // A run with nothing to write leaves the index as it is.
            assert_eq!(
                end.unnamed, 0,
                "chain {number}: a writer takes what a killed run left into the index"
            );
        }
        std::fs::remove_dir_all(self.scene.path(&cache)).unwrap();
        count(&self.tally.chains);
    }

    /// Starts a run, sometimes with another process beside it, and kills it at some moment.
    fn kill_one(&self, cache: &str, random: &mut Random, told: &str) {
        let start = || {
            self.scene
                .spawn(&mut self.scene.command(EXTRACT_MANY.into_iter().chain(["--cache", cache])))
        };
        let (child, beside) = (start(), random.below(6));
        let other = (beside == 0).then(start);
        let reader = (beside == 1).then(|| {
            let output = format!("{cache}.head");
            let arguments = TRAIN.into_iter().chain(["--cache", cache, "-o", &output]);
            self.scene.spawn(&mut self.scene.command(arguments))
        });
        if beside < 2 {
            count(&self.tally.beside_another_run);
        }
        self.wait(&self.scene.path(cache), random);
        self.end(child, told);
        if let Some(other) = other {
            std::thread::sleep(Duration::from_secs_f64(random.between(0.0, self.whole * 0.3)));
            self.end(other, told);
        }
        if let Some(reader) = reader {
            Run::of(reader.wait_with_output().unwrap()).code(0);
            let head = self.scene.read(&format!("{cache}.head"));
            assert!(head == self.head, "{told}: a reader beside it got another head");
        }
    }

    /// Waits for a moment: of the start, of the run, or just when something happens to the files.
    fn wait(&self, cache: &Path, random: &mut Random) {
        let (first, whole) = (self.first_rows, self.whole);
        let seconds = match random.below(6) {
            0 => random.between(0.0, first),
            1 | 2 => random.between(first * 0.8, first + 0.4 * (whole - first)),
            3 => random.between(first, whole * 1.1),
            _ => {
                // Within milliseconds of a commit, and of the merge that some of them bring.
                let changes = 1 + random.below(5);
                let deadline = Instant::now() + Duration::from_secs_f64(whole * 1.5);
                let mut seen = listing(cache);
                for _ in 0..changes {
                    while Instant::now() < deadline && listing(cache) == seen {
                        std::thread::sleep(Duration::from_micros(200));
                    }
                    seen = listing(cache);
                }
                random.between(0.0, 0.004)
            }
        };
        std::thread::sleep(Duration::from_secs_f64(seconds));
    }

    fn end(&self, mut child: Child, told: &str) {
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        if output.status.signal() == Some(9) {
            count(&self.tally.kills);
        } else {
            // It was through before.
            Run::of(output).code(0);
            count(&self.tally.ended_too_soon);
            eprintln!("{told}: the run was through");
        }
    }

    fn classify(&self, before: &StoredSpace, after: &StoredSpace) {
        let tally = &self.tally;
        count(if after.rows.len() == before.rows.len() {
            &tally.before_the_first_row
        } else if after.rows.len() < self.clean.rows.len() {
            &tally.within
        } else {
            &tally.after_the_last_row
        });
        if after.unfinished > before.unfinished {
            count(&tally.while_writing_a_file);
        }
        if after.unnamed > before.unnamed {
            count(&tally.before_a_segment_was_named);
        }
        if after.segments < before.segments {
            count(&tally.merges);
        }
    }
}

/// The names of the files in a cache's spaces.
fn listing(cache: &Path) -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for folder in std::fs::read_dir(cache.join("spaces")).into_iter().flatten().flatten() {
        for entry in std::fs::read_dir(folder.path()).into_iter().flatten().flatten() {
            *names
                .entry(entry.file_name().to_string_lossy().into_owned())
                .or_default() += 1;
        }
    }
    names
}

/// The head file that a complete data set gives.
fn train(scene: &Scene, cache: &str, output: &str) -> Vec<u8> {
    scene
        .run(TRAIN.into_iter().chain(["--cache", cache, "-o", output]))
        .code(0);
    scene.read(output)
}

#[test]
fn two_hundred_kills_at_random_moments_lose_and_spoil_no_row() {
    let start = Instant::now();
    let ground = Ground::new();
    let chains = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CHAINS_AT_ONCE {
            scope.spawn(|| {
                while ground.tally.kills.load(Ordering::Relaxed) < KILLS {
                    ground.chain(chains.fetch_add(1, Ordering::Relaxed));
                }
            });
        }
    });
    eprintln!("{:.0} s: {:?}", start.elapsed().as_secs_f64(), ground.tally);
    assert!(ground.tally.kills.load(Ordering::Relaxed) >= KILLS);
    // A run that is killed here and there only proves something if it had something to lose.
    assert!(ground.tally.within.load(Ordering::Relaxed) > 0);
}

#[test]
fn the_lock_of_a_killed_process_frees_itself() {
    let scene = Scene::with_pictures();
    scene.extract(["--cache", "clean"]);
    let clean = stored_space(&scene.path("clean"));
    let mut caught = false;
    for attempt in 0..100 {
        let cache = format!("cache-{attempt}");
        let arguments = || {
            EXTRACT
                .into_iter()
                .chain(["--json", "--batch-size", "1", "--cache", &cache])
        };
        let mut child = scene.spawn(&mut scene.command(arguments()));
        let stop = Stopper::new(&child);
        caught = stop_with_lock(&scene.path(&cache), &mut child, stop);
        if !caught {
            Run::of(child.wait_with_output().unwrap()).code(0);
            continue;
        }
        // Others wait for the lock of a process that stands still, and go on when it is gone.
        let other = scene.spawn(&mut scene.command(arguments()));
        std::thread::sleep(Duration::from_millis(300));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        let report = Run::of(other.wait_with_output().unwrap()).code(0).json();
        assert_eq!(counts(&report)[0], 27);
        assert_eq!(stored_space(&scene.path(&cache)).rows, clean.rows);
        eprintln!("caught with the lock held in run {attempt}");
        break;
    }
    assert!(caught, "no run could be stopped while it held the lock");
}

/// Stops a process within microseconds of being told to.
struct Stopper(Child);

impl Stopper {
    fn new(child: &Child) -> Self {
        let script = format!("read go && kill -STOP {}", child.id());
        let mut shell = std::process::Command::new("sh");
        let shell = shell.args(["-c", &script]).stdin(std::process::Stdio::piped());
        Self(shell.spawn().unwrap())
    }

    fn stop(&mut self) {
        use std::io::Write;
        self.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        self.0.wait().unwrap();
    }
}

/// Stops `child` while it holds the lock of its space; false when it ran on without it, or to its end.
fn stop_with_lock(cache: &Path, child: &mut Child, mut stopper: Stopper) -> bool {
    let is_held = || {
        let folders = std::fs::read_dir(cache.join("spaces")).into_iter().flatten().flatten();
        let locks = folders.filter_map(|folder| std::fs::File::open(folder.path().join("lock")).ok());
        locks
            .into_iter()
            .any(|lock| matches!(lock.try_lock(), Err(std::fs::TryLockError::WouldBlock)))
    };
    while child.try_wait().unwrap().is_none() {
        if is_held() {
            stopper.stop();
            if is_held() {
                return true;
            }
            let resumed = std::process::Command::new("sh")
                .args(["-c", &format!("kill -CONT {}", child.id())])
                .status();
            assert!(resumed.unwrap().success());
            return false;
        }
    }
    drop(stopper.0.stdin.take());
    stopper.0.wait().unwrap();
    false
}
