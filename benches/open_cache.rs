//! How long a large cache takes to open, and in how much memory.
//!
//! ```text
//! cargo bench --bench open_cache -- [--rows N] [--dim N] [--keep FOLDER]
//! ```
//! Makes a space of a million rows of 512 numbers (2 GB in the system's temporary folder, or in FOLDER, where a second run
//! finds them), then opens it five times. Mapped rows are not counted as memory: anonymous memory is (`RssAnon`, Linux).
#![expect(clippy::print_stdout, reason = "a program that reports to a person")]

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use lastlayer::{Cache, FeatureSpace, Origin, RowKey};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// As many as `extract` commits at a time.
const BATCH: usize = 16_384;
const ROUNDS: usize = 5;

fn main() -> Result<()> {
    let (mut rows, mut dim, mut keep) = (1_000_000_usize, 512_usize, None);
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(option) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{option} needs a value"))?;
        match option.as_str() {
            "--rows" => rows = value.parse()?,
            "--dim" => dim = value.parse()?,
            "--keep" => keep = Some(PathBuf::from(value)),
            _ => return Err(format!("unknown option {option}").into()),
        }
    }
    let temporary = tempfile::tempdir()?;
    let cache = Cache::new(keep.as_deref().unwrap_or(temporary.path()));
    let space = FeatureSpace::new(&serde_json::json!({"made": "open_cache", "dim": dim}));
    make(&cache, &space, rows, dim)?;

    let last = key(rows - 1);
    for round in 0..ROUNDS {
        let before = anonymous_bytes();
        let start = Instant::now();
        let opened = cache.open_space(&space)?.ok_or("the space is there")?;
        let seconds = start.elapsed().as_secs_f64();
        let after = anonymous_bytes();
        assert!(
            opened.len() >= rows && opened.row(&last).is_some(),
            "all rows are there"
        );
        let memory = before
            .zip(after)
            .map_or("unknown on this system".to_owned(), |(before, after)| {
                format!("{:.1} MB", after.saturating_sub(before) as f64 / 1e6)
            });
        println!("round {round}: {rows} rows of {dim} open in {seconds:.3} s, anonymous memory {memory}");
    }
    Ok(())
}

fn key(number: usize) -> RowKey {
    RowKey::plain(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

/// Appends what is missing of the rows.
fn make(cache: &Cache, space: &FeatureSpace, rows: usize, dim: usize) -> Result<()> {
    let origin = Origin {
        name: "made".to_owned(),
        file: PathBuf::new(),
    };
    let mut space = cache.create_space(space, &origin)?;
    let missing: Vec<usize> = (0..rows).filter(|number| !space.contains(&key(*number))).collect();
    let start = Instant::now();
    for batch in missing.chunks(BATCH) {
        let keys: Vec<RowKey> = batch.iter().copied().map(key).collect();
        let values: Vec<f32> = batch
            .iter()
            .flat_map(|number| (0..dim).map(move |column| (number * 31 + column * 7) as f32 % 977.0))
            .collect();
        space.append(&keys, &values, dim, "cpu", "made")?;
    }
    println!(
        "{} rows appended in {:.1} s",
        missing.len(),
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

/// The memory of this process that no file backs.
fn anonymous_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
