//! What many pictures cost: time of a run that has nothing to compute, and memory of one that has everything to compute.
//!
//! ```text
//! cargo bench --bench scale -- [--part warm|rehash|memory|train]… [--quick] [--files N] [--large N] [--rows N]
//!                              [--threads N] [--rounds N] [--folder DIR]
//! ```
//! Pictures are made: all different and tiny, for what a file costs, and large ones, for what a byte costs. The backbone
//! is made, too, and costs next to nothing. Everything runs through the program, each run in a process of its own, whose
//! memory is read from `/proc` (Linux).
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that reports to a person"
)]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

#[path = "../tests/cli/common/model.rs"]
#[expect(dead_code, reason = "the tests need more of it")]
mod model;

use model::TinyModel;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const PARTS: [&str; 4] = ["warm", "rehash", "memory", "train"];
/// The one that needs many gigabytes of disk is measured where it is asked for.
const DEFAULT_PARTS: [&str; 3] = ["warm", "rehash", "memory"];
const CLASSES: usize = 10;
const DIM: usize = 512;

struct Task {
    parts: Vec<String>,
    files: usize,
    large: usize,
    rows: usize,
    threads: usize,
    rounds: usize,
    folder: PathBuf,
}

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    // Cargo says `--bench` only when a benchmark is wanted; a test run must not take minutes.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("skipped: this is measured by `cargo bench --bench scale`");
        return ExitCode::SUCCESS;
    }
    arguments.retain(|argument| argument != "--bench");
    match measure(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &[String]) -> Result<()> {
    let temporary = tempfile::tempdir()?;
    let task = parse(arguments, temporary.path())?;
    fs::create_dir_all(&task.folder)?;
    let backbone = TinyModel {
        side: 32,
        width: DIM,
        ..TinyModel::default()
    };
    fs::write(task.folder.join("tiny.onnx"), backbone.onnx())?;
    for part in &task.parts {
        match part.as_str() {
            "warm" => warm(&task)?,
            "rehash" => rehash(&task)?,
            "memory" => memory(&task)?,
            _ => train(&task)?,
        }
    }
    Ok(())
}

fn parse(arguments: &[String], temporary: &Path) -> Result<Task> {
    let mut task = Task {
        parts: Vec::new(),
        files: 100_000,
        large: 1_000,
        rows: 1_000_000,
        threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        rounds: 5,
        folder: temporary.to_path_buf(),
    };
    let mut quick = false;
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if argument == "--quick" {
            quick = true;
            continue;
        }
        let value = arguments.next().ok_or_else(|| format!("`{argument}` needs a value"))?;
        match argument.as_str() {
            "--part" if PARTS.contains(&value.as_str()) => task.parts.push(value.clone()),
            "--folder" => task.folder = std::path::absolute(value)?,
            "--files" => task.files = value.parse()?,
            "--large" => task.large = value.parse()?,
            "--rows" => task.rows = value.parse()?,
            "--threads" => task.threads = value.parse()?,
            "--rounds" => task.rounds = value.parse()?,
            _ => return Err(format!("`{argument} {value}` is no option; parts are {PARTS:?}").into()),
        }
    }
    if quick {
        for size in [&mut task.files, &mut task.large, &mut task.rows] {
            *size = (*size / 100).max(CLASSES * 2);
        }
    }
    if task.parts.is_empty() {
        task.parts = DEFAULT_PARTS.map(str::to_owned).to_vec();
    }
    if [task.files, task.large, task.rows, task.threads, task.rounds].contains(&0) {
        return Err("sizes must be at least 1".into());
    }
    Ok(task)
}

/// Makes a folder of `count` pictures of `side` × `side` pixels in ten classes, unless it is there.
fn pictures(task: &Task, count: usize, side: usize) -> Result<PathBuf> {
    let folder = task.folder.join(format!("{count}-of-{side}"));
    if folder.is_dir() {
        return Ok(folder);
    }
    let start = Instant::now();
    let made = folder.with_extension("made");
    for class in 0..CLASSES {
        fs::create_dir_all(made.join(format!("train/{class}")))?;
    }
    let mut bytes = format!("P6 {side} {side} 255\n").into_bytes();
    let header = bytes.len();
    bytes.resize(header + 3 * side * side, 0);
    for number in 0..count {
        // Enough that no two files are equal; what they show does not matter.
        let mut state = number as u64;
        for pixel in bytes[header..].chunks_mut(8).take(24) {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            pixel.copy_from_slice(&state.to_le_bytes()[..pixel.len()]);
        }
        fs::write(made.join(format!("train/{}/{number:07}.ppm", number % CLASSES)), &bytes)?;
    }
    // Stamps are believed only of files that are older than two seconds.
    std::thread::sleep(Duration::from_millis(2_500));
    fs::rename(made, &folder)?;
    println!(
        "made {count} pictures of {side}x{side} in {:.1} s",
        start.elapsed().as_secs_f64()
    );
    Ok(folder)
}

/// A finished run of the program.
struct Ran {
    report: Value,
    /// Of the whole process.
    seconds: f64,
    /// Its processor time in seconds, in all threads: what a busy machine does not change. Linux: to 0.01 s.
    processor: f64,
    /// The most memory it had, in bytes: all of it, and without mapped files.
    peak: u64,
    peak_anonymous: u64,
}

impl Ran {
    fn stage(&self) -> f64 {
        self.report["seconds"].as_f64().unwrap_or(f64::NAN)
    }
}

fn run(task: &Task, arguments: &[&str]) -> Result<Ran> {
    let start = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_lastlayer"))
        .args(arguments)
        .args([
            "--json",
            "--quiet",
            "--device",
            "cpu",
            "--threads",
            &task.threads.to_string(),
        ])
        .current_dir(&task.folder)
        .stdout(Stdio::from(fs::File::create(task.folder.join("report.json"))?))
        .spawn()?;
    let (mut peak, mut peak_anonymous, mut processor) = (0, 0, 0.0);
    let mut wait = Duration::from_micros(500);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let kilobytes = |key| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok())
        };
        peak = peak.max(kilobytes("VmHWM:").unwrap_or(0) * 1024);
        peak_anonymous = peak_anonymous.max(kilobytes("RssAnon:").unwrap_or(0) * 1024);
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
        // Behind the name in parentheses: user and system time are the fields 14 and 15 of proc(5), in ticks of 0.01 s.
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields).split(' ');
        let ticks: u32 = fields
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u32>().ok())
            .sum();
        processor = f64::max(processor, f64::from(ticks) / 100.0);
        std::thread::sleep(wait);
        wait = (wait * 2).min(Duration::from_millis(5));
    };
    let seconds = start.elapsed().as_secs_f64();
    if !status.success() {
        return Err(format!("{arguments:?} ended with {status}").into());
    }
    let report = serde_json::from_slice(&fs::read(task.folder.join("report.json"))?)?;
    Ok(Ran {
        report,
        seconds,
        processor,
        peak,
        peak_anonymous,
    })
}

/// Runs `extract` into the cache of a data set and checks what it says of the pictures.
fn extract(task: &Task, dataset: &Path, options: &[&str], computed: usize, reused: usize) -> Result<Ran> {
    let (dataset, cache) = (text(dataset)?, format!("{}.cache", text(dataset)?));
    let mut arguments = vec!["extract", dataset, "--backbone", "tiny.onnx", "--cache", &cache];
    arguments.extend(options);
    let ran = run(task, &arguments)?;
    let count = |key: &str| ran.report[key].as_u64().unwrap_or(u64::MAX);
    if (count("computed"), count("reused"), count("failed")) != (computed as u64, reused as u64, 0) {
        return Err(format!("not {computed} computed and {reused} reused: {}", ran.report).into());
    }
    Ok(ran)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| "the folder's name must be UTF-8".into())
}

fn cache_of(dataset: &Path) -> PathBuf {
    let mut name = dataset.as_os_str().to_owned();
    name.push(".cache");
    name.into()
}

/// Extracts a data set for the first time.
fn cold(task: &Task, dataset: &Path, count: usize) -> Result<Ran> {
    if cache_of(dataset).exists() {
        fs::remove_dir_all(cache_of(dataset))?;
    }
    extract(task, dataset, &[], count, 0)
}

fn extracted(task: &Task, dataset: &Path, count: usize) -> Result<()> {
    if !cache_of(dataset).exists() {
        cold(task, dataset, count)?;
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// (a) Nothing changed: only stamps are looked at.
fn warm(task: &Task) -> Result<()> {
    let dataset = pictures(task, task.files, 8)?;
    extracted(task, &dataset, task.files)?;
    let (mut whole, mut stage, mut processor, mut peak) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for _ in 0..task.rounds {
        let ran = extract(task, &dataset, &[], 0, task.files)?;
        stage.push(ran.stage());
        whole.push(ran.seconds);
        processor.push(ran.processor);
        peak = peak.max(ran.peak);
    }
    let (whole, stage, files) = (median(whole), median(stage), task.files as f64);
    println!(
        "warm extract of {files} files: whole process {:.0} files/s ({whole:.3} s), what it reports {:.0} files/s ({stage:.3} s), \
         processor time {:.2} s, peak {} MB",
        files / whole,
        files / stage,
        median(processor),
        peak >> 20
    );
    Ok(())
}

/// (b) Every file is read and hashed, against reading alone.
fn rehash(task: &Task) -> Result<()> {
    for (count, side) in [(task.files, 8), (task.large, 512)] {
        let dataset = pictures(task, count, side)?;
        extracted(task, &dataset, count)?;
        let files: Vec<PathBuf> = walkdir::WalkDir::new(&dataset)
            .into_iter()
            .filter_map(std::result::Result::ok)
            .filter(|entry| entry.file_type().is_file())
            .map(walkdir::DirEntry::into_path)
            .collect();
        let (mut hashed, mut read, mut bytes) = (Vec::new(), Vec::new(), 0);
        for _ in 0..task.rounds {
            hashed.push(extract(task, &dataset, &["--rehash"], 0, count)?.seconds);
            let (seconds, all) = read_all(&files, task.threads);
            read.push(seconds);
            bytes = all;
        }
        let (hashed, read, megabytes) = (median(hashed), median(read), bytes as f64 / 1e6);
        println!(
            "extract --rehash of {count} files of {} bytes: {:.0} files/s, {:.1} MB/s ({hashed:.3} s); \
             reading alone {:.0} files/s, {:.1} MB/s ({read:.3} s); ratio {:.2}",
            bytes / count as u64,
            count as f64 / hashed,
            megabytes / hashed,
            count as f64 / read,
            megabytes / read,
            read / hashed
        );
    }
    Ok(())
}

/// Reads all files with plain reads; returns the seconds and the bytes.
fn read_all(files: &[PathBuf], threads: usize) -> (f64, u64) {
    let (next, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let length = fs::read(file).map_or(0, |content| content.len());
                    bytes.fetch_add(length as u64, Ordering::Relaxed);
                }
            });
        }
    });
    (start.elapsed().as_secs_f64(), bytes.into_inner())
}

/// (c) Memory of a run that computes everything, for few and for many pictures.
fn memory(task: &Task) -> Result<()> {
    for count in [(task.files / 100).max(CLASSES), task.files] {
        let dataset = pictures(task, count, 8)?;
        let ran = cold(task, &dataset, count)?;
        println!(
            "cold extract of {count} files: peak {} MB, without mapped files {} MB; {:.0} files/s ({:.1} s, processor time {:.2} s)",
            ran.peak >> 20,
            ran.peak_anonymous >> 20,
            count as f64 / ran.seconds,
            ran.seconds,
            ran.processor
        );
    }
    Ok(())
}

/// (d) From the start of `train-head` to its first epoch, and its memory, against the matrix.
fn train(task: &Task) -> Result<()> {
    let dataset = pictures(task, task.rows, 8)?;
    extracted(task, &dataset, task.rows)?;
    let cache = format!("{}.cache", text(&dataset)?);
    let run = |epochs| {
        let arguments = [
            "train-head",
            text(&dataset)?,
            "--cache",
            &cache,
            "--batch-size",
            "256",
            "--lr",
            "1e-6",
        ];
        run(task, &[&arguments[..], &["--epochs", epochs]].concat())
    };
    // What a second epoch adds is what the first one takes; the rest is before and after.
    let (one, two) = (run("1")?, run("2")?);
    let matrix = (task.rows * DIM * size_of::<f32>()) as u64;
    println!(
        "train-head on {}x{DIM}: {:.2} s besides the epochs ({:.2} s with one, {:.2} s with two); peak {} MB, without \
         mapped files {} MB, the matrix {} MB",
        task.rows,
        2.0 * one.seconds - two.seconds,
        one.seconds,
        two.seconds,
        one.peak >> 20,
        one.peak_anonymous >> 20,
        matrix >> 20
    );
    Ok(())
}
