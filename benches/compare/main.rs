//! lastlayer beside other ways to the same features, in one run, as one Markdown document.
//!
//! ```text
//! cargo bench --bench compare -- [--part rate|large|predict]… [--rounds N] [--threads N] [--quick] [--backbone FILE.onnx]
//!                                [--python PATH | --without-peers] [DATASETS…]
//! ```
//! - `rate`: each data set end to end, by `extract` in fp32 and int8 and by `predict`, beside ONNX Runtime alone (the same
//!   network on as many threads, on made input: no file, no decoding), torchvision with PyTorch, Pillow with onnxruntime,
//!   and fastembed.
//! - `large`: photos of 12 megapixels, made from the largest ones of the data sets, decoded exactly and fast.
//! - `predict`: one picture as a whole process, with nothing in the cache.
//!
//! The peers are installed into a throwaway virtual environment; where that can't be done, ours is measured alone, which is
//! said. lastlayer is run by its command line. `--quick` shows that everything runs: one round, few trials, few photos.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that reports to a person"
)]

mod document;
#[path = "../common/numbers.rs"]
mod numbers;
mod ours;
mod parts;
mod peers;
mod photos;
mod process;
#[path = "../common/python.rs"]
mod python;
mod turns;
mod yardstick;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use document::Section;
use peers::Peers;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What is measured, and with what.
struct Task {
    datasets: Vec<PathBuf>,
    backbone: PathBuf,
    rounds: usize,
    threads: usize,
    quick: bool,
    peers: std::result::Result<Peers, String>,
}

/// A part's name and what measures it.
type Part = (&'static str, fn(&Task) -> Result<Vec<Section>>);

const PARTS: [Part; 3] = [
    ("rate", parts::rate),
    ("large", parts::large),
    ("predict", parts::predict),
];

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(part) = arguments.first().and_then(|first| first.strip_prefix("child-")) {
        return ended(yardstick::child(part, &arguments[1..]).map(|()| true));
    }
    // Cargo says `--bench` only when a benchmark is wanted; a test run must not take minutes.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("skipped: this is measured by `cargo bench --bench compare`");
        return ExitCode::SUCCESS;
    }
    arguments.retain(|argument| argument != "--bench");
    ended(run(&arguments))
}

fn ended(result: Result<bool>) -> ExitCode {
    match result {
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
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let (mut parts, mut python, mut with_peers) = (Vec::new(), None, true);
    let mut rounds = None;
    let mut task = Task {
        datasets: Vec::new(),
        backbone: shared.join("models/resnet18.onnx"),
        rounds: 5,
        threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        quick: false,
        peers: Err("not asked for".to_owned()),
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
            file if !file.starts_with('-') => {
                task.datasets.push(std::path::absolute(file)?);
                continue;
            }
            _ => {}
        }
        let value = arguments.next().ok_or_else(|| format!("`{argument}` needs a value"))?;
        match argument.as_str() {
            "--part" if PARTS.iter().any(|(name, _)| name == value) => parts.push(value.as_str()),
            "--rounds" => rounds = Some(value.parse::<usize>()?.max(1)),
            "--threads" => task.threads = value.parse::<usize>()?.max(1),
            "--backbone" => task.backbone = std::path::absolute(value)?,
            "--python" => python = Some(PathBuf::from(value)),
            _ => {
                let names = PARTS.map(|(name, _)| name);
                return Err(format!("`{argument} {value}` is no option; parts are {names:?}").into());
            }
        }
    }
    task.rounds = rounds.unwrap_or(if task.quick { 1 } else { task.rounds });
    if task.datasets.is_empty() {
        let usual = ["hymenoptera_data", "cats4"].map(|name| shared.join("data").join(name));
        task.datasets
            .extend(usual.into_iter().filter(|dataset| dataset.is_dir()));
    }
    if task.datasets.is_empty() {
        println!("skipped: `../shared/data` is missing; name folders of pictures as DATASETS");
        return Ok(true);
    }
    if !task.backbone.is_file() {
        let file = task.backbone.display();
        println!("skipped: the backbone `{file}` is missing; name yours with --backbone");
        return Ok(true);
    }
    if with_peers {
        task.peers = Peers::find(python, &task.backbone).map_err(|problem| problem.to_string());
        match &task.peers {
            Ok(peers) => eprintln!("beside {}", peers.versions),
            Err(problem) => eprintln!("the peers can't be had ({problem}): lastlayer is measured alone"),
        }
    }
    let (mut sections, mut all) = (Vec::new(), true);
    for (name, measure) in PARTS {
        if !parts.is_empty() && !parts.contains(&name) {
            continue;
        }
        eprintln!("measuring {name}");
        match measure(&task) {
            Ok(measured) => sections.extend(measured),
            Err(problem) => {
                all = false;
                sections.push(Section {
                    title: name.to_owned(),
                    text: format!("Not measured: {problem}\n"),
                    wanted: Vec::new(),
                });
            }
        }
    }
    print!("{}", document::document(&task, &sections));
    Ok(all)
}
