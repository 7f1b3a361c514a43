//! Hostile bytes give errors, never panics, never unbounded memory: each target of `fuzz/` on mutated seeds.
//!
//! Always the same mutations; `fuzz/README.md` says how to look for others. Memory is what Rust code asks for: libjpeg's
//! own is not counted, it is bounded by the limit on pixels.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use lastlayer::hostile::{TARGETS, Target};
use peak_alloc::PeakAlloc;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The allocator counts for the whole process: one target at a time.
static ALONE: Mutex<()> = Mutex::new(());

const MIB: usize = 1 << 20;

/// Numbers that length fields do not expect.
const EXTREMES: [u64; 8] = [
    0,
    u64::MAX,
    i64::MAX as u64,
    u32::MAX as u64,
    i32::MAX as u64,
    1 << 40,
    1 << 24,
    0x8000_0000_0000_0000,
];

fn random(source: &mut ChaCha8Rng, below: usize) -> usize {
    (source.next_u64() % below.max(1) as u64) as usize
}

/// One to four damages to `seed`; `other` lends parts of itself.
fn mutated(seed: &[u8], other: &[u8], source: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random(source, 4) {
        let at = random(source, bytes.len());
        match random(source, 11) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random(source, 8),
            1 if !bytes.is_empty() => bytes[at] = source.next_u32() as u8,
            2 => bytes.truncate(at),
            3 => {
                let count = 1 + random(source, 16);
                let inserted: Vec<u8> = (0..count).map(|_| source.next_u32() as u8).collect();
                bytes.splice(at..at, inserted);
            }
            4 => {
                // A length, at any width and in either order of its bytes.
                let width = [1, 2, 4, 8][random(source, 4)];
                let value = EXTREMES[random(source, EXTREMES.len())];
                let field = if random(source, 2) == 0 {
                    value.to_le_bytes()[..width].to_vec()
                } else {
                    value.to_be_bytes()[8 - width..].to_vec()
                };
                let end = (at + width).min(bytes.len());
                bytes.splice(at..end, field);
            }
            5 => {
                let from = random(source, other.len());
                let length = random(source, other.len() - from + 1);
                let end = (at + random(source, length + 1)).min(bytes.len());
                bytes.splice(at..end, other[from..from + length].iter().copied());
            }
            6 => {
                let end = (at + 1 + random(source, 16)).min(bytes.len());
                bytes.drain(at..end);
            }
            7 => {
                // A length as Protocol Buffers have it, or, twice as large, Thrift.
                let mut value = EXTREMES[random(source, EXTREMES.len())] << random(source, 2);
                let mut field = Vec::new();
                while value > 0x7f {
                    field.push(value as u8 | 0x80);
                    value >>= 7;
                }
                field.push(value as u8);
                let end = (at + 1).min(bytes.len());
                bytes.splice(at..end, field);
            }
            8 => {
                // A number in text: any, or one that keeps its width, as in a tar header.
                let is_digit = |byte: &u8| byte.is_ascii_digit();
                let start = at + bytes[at..].iter().position(is_digit).unwrap_or(0);
                let width = bytes[start..].iter().take_while(|byte| is_digit(byte)).count();
                let number = if random(source, 2) == 0 {
                    EXTREMES[random(source, EXTREMES.len())].to_string().into_bytes()
                } else {
                    (0..width).map(|_| b'0' + random(source, 8) as u8).collect()
                };
                bytes.splice(start..start + width, number);
            }
            9 => {
                // An element of a list in text: left out or twice.
                let commas = bytes.iter().enumerate().filter(|(_, byte)| **byte == b',');
                let commas: Vec<usize> = commas.map(|(place, _)| place).collect();
                if let Some(pair) = commas.windows(2).nth(random(source, commas.len().saturating_sub(1))) {
                    let element = bytes[pair[0]..pair[1]].to_vec();
                    let times = 2 * random(source, 2);
                    bytes.splice(pair[0]..pair[1], element.repeat(times));
                }
            }
            _ => {
                // A part of itself, again.
                let length = random(source, bytes.len() - at + 1);
                let part = bytes[at..at + length].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
    bytes
}

/// Runs `target` on its seeds, of which those named `refused_…` must be refused, and on `rounds` mutations of each,
/// within `limit` bytes beyond the input.
fn attack(name: &str, rounds: usize, limit: usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
    if !folder.parent().unwrap().exists() {
        println!("skipped: {} is absent", folder.display());
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let seeds: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    assert!(!seeds.is_empty(), "{name} has no seed");
    let (_, target): (_, Target) = *TARGETS.iter().find(|(known, _)| *known == name).unwrap();

    let measured = |bytes: &[u8]| {
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let accepted = target(bytes);
        (accepted, MEMORY.peak_usage().saturating_sub(before))
    };
    for (file, seed) in files.iter().zip(&seeds) {
        let is_valid = !file.file_name().unwrap().to_str().unwrap().starts_with("refused_");
        let (is_accepted, peak) = measured(seed);
        assert_eq!(
            is_accepted,
            is_valid,
            "{} is judged otherwise than its name says",
            file.display()
        );
        assert!(peak <= limit, "{} takes {peak} bytes", file.display());
    }
    let mut source = ChaCha8Rng::seed_from_u64(3);
    let (mut accepted, mut largest) = (0, 0);
    for seed in &seeds {
        for _ in 0..rounds {
            let other = &seeds[random(&mut source, seeds.len())];
            let bytes = mutated(seed, other, &mut source);
            let (is_accepted, peak) = measured(&bytes);
            accepted += usize::from(is_accepted);
            largest = largest.max(peak);
            if peak > limit {
                panic!("{name} takes {peak} bytes for these {}: {}", bytes.len(), hex(&bytes));
            }
        }
    }
    println!(
        "{name}: {} inputs, {accepted} accepted, at most {} KiB",
        seeds.len() * rounds,
        largest >> 10
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn segments() {
    attack("segment", 2000, MIB);
}

#[test]
fn indexes() {
    attack("index", 3000, MIB);
}

#[test]
fn records_of_data_sets() {
    attack("record", 3000, MIB);
}

#[test]
fn keys() {
    attack("key", 5000, MIB);
}

#[test]
fn head_files() {
    attack("head", 3000, MIB);
}

#[test]
fn onnx_models() {
    attack("onnx", 2000, 8 * MIB);
}

#[test]
fn checkpoints() {
    // The object list of an archive may be compressed: 16 MiB of it are read.
    attack("checkpoint", 1500, 32 * MIB);
}

#[test]
fn tar_archives() {
    attack("tar", 1500, 4 * MIB);
}

#[test]
fn tables_of_text() {
    attack("csv", 2000, MIB);
}

#[test]
fn tables_of_json_lines() {
    attack("jsonl", 3000, MIB);
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_tables() {
    // A small file's page may decompress to 16 MiB, in two buffers.
    attack("parquet", 2000, 40 * MIB);
}

#[test]
fn lists_of_paths() {
    attack("list", 3000, MIB);
}

#[test]
fn pictures() {
    // What a decoder may take at least, whatever the limit on pixels is.
    attack("picture", 200, 64 * MIB);
}

#[test]
fn every_target_is_run() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("skipped: {} is absent", folder.display());
        return;
    };
    let mut found: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut known: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    found.sort();
    known.sort_unstable();
    assert_eq!(found, known);
    let source = include_str!("hostile_bytes.rs");
    assert!(known.iter().all(|name| source.contains(&format!("attack(\"{name}\""))));
}
