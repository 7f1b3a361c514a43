//! What training costs, beside PyTorch and scikit-learn on the same features, in one run.
//!
//! ```text
//! cargo bench --bench training -- [--part recipe|sweep|optimum|million|threads]… [--quick] [--rounds N] [--threads N]
//!                                 [--python PATH] [--without-peers]
//! ```
//! PyTorch and scikit-learn are installed into a throwaway virtual environment; where that can't be done, ours is measured
//! alone, which is said. Each part is described where it is measured. `--quick` takes small sizes, to see that all runs.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that reports to a person"
)]

mod bounds;
mod made;
mod measure;
#[path = "../common/numbers.rs"]
mod numbers;
mod peers;
mod process;
#[path = "../common/python.rs"]
mod python;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use numbers::{median, spread};
use peers::Peers;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A line of the table: what, what was seen, what is wanted.
type Row = (String, String, &'static str);

/// How much is measured, and with what.
struct Task {
    quick: bool,
    rounds: usize,
    threads: usize,
    peers: Option<Peers>,
}

/// A part's name and what measures it.
type Part = (&'static str, fn(&Task) -> Result<Vec<Row>>);

const PARTS: [Part; 5] = [
    ("recipe", measure::recipe),
    ("sweep", measure::sweep),
    ("optimum", measure::optimum),
    ("million", measure::million),
    ("threads", measure::threads),
];

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    // Cargo says `--bench` only when a benchmark is wanted; a test run must not take minutes.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("skipped: this is measured by `cargo bench --bench training`");
        return ExitCode::SUCCESS;
    }
    arguments.retain(|argument| argument != "--bench");
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures and prints; returns whether every part could be measured.
fn run(arguments: &[String]) -> Result<bool> {
    let (mut parts, mut python, mut with_peers) = (Vec::new(), None, true);
    let mut task = Task {
        quick: false,
        rounds: 5,
        threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        peers: None,
    };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => {
                task.quick = true;
                continue;
            }
            "--without-peers" => {
                with_peers = false;
                continue;
            }
            _ => {}
        }
        let value = arguments.next().ok_or_else(|| format!("`{argument}` needs a value"))?;
        match argument.as_str() {
            "--part" if PARTS.iter().any(|(name, _)| name == value) => parts.push(value.as_str()),
            "--rounds" => task.rounds = value.parse::<usize>()?.max(1),
            "--threads" => task.threads = value.parse::<usize>()?.max(1),
            "--python" => python = Some(PathBuf::from(value)),
            _ => {
                let names = PARTS.map(|(name, _)| name);
                return Err(format!("`{argument} {value}` is no option; parts are {names:?}").into());
            }
        }
    }
    let wanted = |name: &str| parts.is_empty() || parts.contains(&name);
    if with_peers && (wanted("recipe") || wanted("optimum")) {
        match Peers::find(python) {
            Ok(peers) => {
                println!("beside {}", peers.versions);
                task.peers = Some(peers);
            }
            Err(problem) => println!("PyTorch and scikit-learn can't be had ({problem}): ours is measured alone"),
        }
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(task.threads)
        .build_global()?;
    println!("{} threads\n\n| | seen | wanted |\n|---|---|---|", task.threads);
    let mut all = true;
    for (name, measure) in PARTS {
        if !wanted(name) {
            continue;
        }
        eprintln!("measuring {name}");
        match measure(&task) {
            Ok(rows) => {
                for (what, seen, wanted) in rows {
                    println!("| {what} | {seen} | {wanted} |");
                }
            }
            Err(problem) => {
                println!("| {name} | not measured: {problem} | |");
                all = false;
            }
        }
    }
    Ok(all)
}

/// Median, lowest and highest, in the unit that suits them.
fn seconds(values: &[f64]) -> String {
    let (low, middle, high) = spread(values);
    let (factor, unit) = if middle < 1.0 { (1e3, "ms") } else { (1.0, "s") };
    format!(
        "{:.3} {unit} ({:.3} – {:.3})",
        middle * factor,
        low * factor,
        high * factor
    )
}
