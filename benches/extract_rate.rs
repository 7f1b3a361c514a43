//! How much of ONNX Runtime's own rate the whole of `extract` keeps, and in how much memory.
//!
//! ```text
//! cargo bench --bench extract_rate -- [--rounds N] [--threads N] [--batch N] [DATASET] [BACKBONE.onnx]
//! ```
//! The yardstick is ONNX Runtime with the same network and number of threads and nothing else to do: made input, no
//! file, no decoding. Which sessions and which batch size serve it best is tried out first. Then yardstick and `extract`
//! take turns, each in a process of its own, so that what else the machine does hits both; ratios are taken turn by turn.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that reports to a person"
)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use lastlayer::{
    Backbone, Cache, Dataset, Device, ExtractOptions, FailureLimit, FeatureOptions, InferenceOptions, Limits, Quiet,
    RandomViews, Runtime,
};
use ort::value::TensorRef;
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Pictures of one run of the yardstick: about as many as the data set has in the comparison, fewer in the trial.
const TRIAL_PICTURES: usize = 48;
const TRIAL_BATCHES: [usize; 3] = [1, 8, 16];
const TRIAL_ROUNDS: usize = 3;

struct Task {
    dataset: PathBuf,
    backbone: PathBuf,
    rounds: usize,
    threads: usize,
    batch_size: usize,
}

/// How the yardstick uses the threads.
#[derive(Clone, Copy, PartialEq)]
enum Sessions {
    /// One session with all of them.
    One,
    /// One session with one thread on each core.
    PerCore,
}

impl Sessions {
    fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::PerCore => "per-core",
        }
    }

    fn parse(name: &str) -> Result<Self> {
        let all = [Self::One, Self::PerCore];
        let found = all.into_iter().find(|sessions| sessions.name() == name);
        found.ok_or_else(|| format!("`{name}` names no sessions").into())
    }
}

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(part) = arguments.first().and_then(|first| first.strip_prefix("child-")) {
        return report(child(part, &arguments[1..]));
    }
    // Cargo says `--bench` only when a benchmark is wanted; a test run must not take minutes.
    let wanted = arguments.iter().any(|argument| argument == "--bench");
    if !wanted {
        println!("skipped: this is measured by `cargo bench --bench extract_rate`");
        return ExitCode::SUCCESS;
    }
    arguments.retain(|argument| argument != "--bench");
    report(parse(&arguments).and_then(|task| measure(&task)))
}

fn report(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Result<Task> {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let mut task = Task {
        dataset: shared.join("data/hymenoptera_data"),
        backbone: shared.join("models/resnet18.onnx"),
        rounds: 5,
        threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        batch_size: InferenceOptions::new(PathBuf::new(), 1).batch_size,
    };
    let mut files = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let number = match argument.as_str() {
            "--rounds" => &mut task.rounds,
            "--threads" => &mut task.threads,
            "--batch" => &mut task.batch_size,
            option if option.starts_with('-') => return Err(format!("unknown option `{option}`").into()),
            file => {
                files.push(PathBuf::from(file));
                continue;
            }
        };
        let value = arguments.next().ok_or_else(|| format!("`{argument}` needs a number"))?;
        *number = value.parse::<usize>()?.max(1);
    }
    let mut files = files.into_iter();
    task.dataset = files.next().unwrap_or(task.dataset);
    task.backbone = files.next().unwrap_or(task.backbone);
    match files.next() {
        Some(file) => Err(format!("`{}`: only DATASET and BACKBONE.onnx are expected", file.display()).into()),
        None => Ok(task),
    }
}

fn measure(task: &Task) -> Result<()> {
    for (what, path, argument) in [
        ("data set", &task.dataset, "DATASET"),
        ("backbone", &task.backbone, "BACKBONE.onnx"),
    ] {
        if !path.exists() {
            println!(
                "skipped: the {what} `{}` is missing; name yours as {argument}",
                path.display()
            );
            return Ok(());
        }
    }
    println!("data set  {}", task.dataset.display());
    println!("backbone  {}", task.backbone.display());
    println!(
        "threads   {}; extract runs batches of {}",
        task.threads, task.batch_size
    );

    let (sessions, batch_size) = best_yardstick(task)?;
    println!(
        "\nin turns, {} rounds: ONNX Runtime alone ({}, batch {batch_size}), then the whole extract, then decoding alone",
        task.rounds,
        sessions.name()
    );
    let mut rounds = Vec::new();
    for round in 0..task.rounds {
        let extracted = run_child(task, "extract", &[task.batch_size.to_string()])?;
        let pictures = number(&extracted, "pictures");
        let alone = run_yardstick(task, sessions, batch_size, pictures as usize)?;
        let decoded = run_child(task, "decode", &[])?;
        println!(
            "  {}  alone {:5.1}/s  extract {:5.1}/s  ratio {:.3}  decode {:5.0}/s",
            round + 1,
            alone,
            number(&extracted, "rate"),
            number(&extracted, "rate") / alone,
            number(&decoded, "rate"),
        );
        rounds.push((alone, extracted, number(&decoded, "rate")));
    }

    println!("\n{:<32}{:>10}   min – max", "", "median");
    let line = |name: &str, digits: usize, of: &dyn Fn(&(f64, Value, f64)) -> f64| {
        let (low, median, high) = spread(rounds.iter().map(of).collect());
        println!("{name:<32}{median:>10.digits$}   {low:.digits$} – {high:.digits$}");
    };
    line("ONNX Runtime alone, pictures/s", 1, &|round| round.0);
    line("extract, pictures/s", 1, &|round| number(&round.1, "rate"));
    line("extract / ONNX Runtime alone", 3, &|round| {
        number(&round.1, "rate") / round.0
    });
    line("decoding alone, pictures/s", 0, &|round| round.2);
    for stage in ["inference", "decode", "disk"] {
        line(&format!("share of time busy: {stage}"), 3, &|round| {
            number(&round.1["busy"], stage)
        });
    }
    if rounds.iter().all(|round| !round.1["peak_mb"].is_null()) {
        line("peak memory of extract, MB", 0, &|round| number(&round.1, "peak_mb"));
    }
    Ok(())
}

/// The sessions and batch size with which ONNX Runtime alone is fastest here, by the medians of interleaved trials.
fn best_yardstick(task: &Task) -> Result<(Sessions, usize)> {
    println!("\nONNX Runtime alone, trial of {TRIAL_PICTURES} pictures, median of {TRIAL_ROUNDS} rounds");
    let mut ways: Vec<(Sessions, usize, Vec<f64>)> = [Sessions::One, Sessions::PerCore]
        .into_iter()
        .flat_map(|sessions| TRIAL_BATCHES.map(|batch_size| (sessions, batch_size, Vec::new())))
        .collect();
    for _ in 0..TRIAL_ROUNDS {
        for (sessions, batch_size, rates) in &mut ways {
            rates.push(run_yardstick(task, *sessions, *batch_size, TRIAL_PICTURES)?);
        }
    }
    let mut best = (Sessions::PerCore, 1, 0.0);
    for (sessions, batch_size, rates) in ways {
        let (low, median, high) = spread(rates);
        println!(
            "  {:<9} batch {batch_size:>2}  {median:5.1}/s   {low:.1} – {high:.1}",
            sessions.name()
        );
        if median > best.2 {
            best = (sessions, batch_size, median);
        }
    }
    Ok((best.0, best.1))
}

fn run_yardstick(task: &Task, sessions: Sessions, batch_size: usize, pictures: usize) -> Result<f64> {
    let arguments = [sessions.name().to_owned(), batch_size.to_string(), pictures.to_string()];
    Ok(number(&run_child(task, "runtime", &arguments)?, "rate"))
}

/// Runs this program again for one part: a fresh process has no warm allocator and a peak of its own.
fn run_child(task: &Task, part: &str, arguments: &[String]) -> Result<Value> {
    let output = Command::new(std::env::current_exe()?)
        .arg(format!("child-{part}"))
        .args([&task.dataset, &task.backbone])
        .arg(task.threads.to_string())
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("the part `{part}` failed").into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn child(part: &str, arguments: &[String]) -> Result<()> {
    let [dataset, backbone, threads, rest @ ..] = arguments else {
        return Err("a part needs a data set, a backbone and a number of threads".into());
    };
    let (dataset, backbone, threads) = (Path::new(dataset), Path::new(backbone), threads.parse()?);
    let found = match (part, rest) {
        ("extract", [batch_size]) => extract(dataset, backbone, threads, batch_size.parse()?)?,
        ("decode", []) => decode(dataset, backbone, threads)?,
        ("runtime", [sessions, batch_size, pictures]) => runtime_alone(
            backbone,
            threads,
            Sessions::parse(sessions)?,
            batch_size.parse()?,
            pictures.parse()?,
        )?,
        _ => return Err(format!("there is no part `{part}` with these arguments").into()),
    };
    println!("{found}");
    Ok(())
}

/// The options of a user who gave none; the environment may name the library, as for the program.
fn inference(threads: usize) -> Result<InferenceOptions> {
    let data_dir = match std::env::var_os("LASTLAYER_DATA_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => dirs::data_dir().ok_or("there is no home folder")?.join("lastlayer"),
    };
    let mut options = InferenceOptions::new(data_dir, threads);
    options.runtime.env_library = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
    options.device = Device::Cpu;
    Ok(options)
}

/// All of `extract` into a fresh cache: listing the files, opening the backbone and its sessions, until the last row is
/// durable.
fn extract(dataset: &Path, backbone: &Path, threads: usize, batch_size: usize) -> Result<Value> {
    let folder = tempfile::tempdir()?;
    let options = ExtractOptions {
        inference: InferenceOptions {
            batch_size,
            ..inference(threads)?
        },
        features: FeatureOptions::default(),
        limits: Limits::default(),
        rehash: false,
        max_failures: FailureLimit::Unlimited,
        views: RandomViews::default(),
    };
    let start = Instant::now();
    let dataset = Dataset::scan(dataset)?;
    let backbone = Arc::new(Backbone::open("backbone", backbone, None)?);
    let report = lastlayer::extract(&dataset, &backbone, &Cache::new(folder.path()), &options, &Quiet)?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(json!({
        "pictures": report.computed,
        "rate": report.computed as f64 / seconds,
        "busy": report.busy,
        "peak_mb": peak_memory().map(|bytes| bytes as f64 / 1e6),
    }))
}

/// Reading and decoding alone, on all threads.
fn decode(dataset: &Path, backbone: &Path, threads: usize) -> Result<Value> {
    let dataset = Dataset::scan(dataset)?;
    let transform = Backbone::open("backbone", backbone, None)?
        .space(&FeatureOptions::default())?
        .transform;
    let (next, decoded) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut tensor = vec![0.0; transform.tensor_len()];
                while let Some(sample) = dataset.samples.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let bytes = std::fs::read(dataset.root.join(&sample.path)).unwrap_or_default();
                    let loaded = transform.load(&bytes, &Limits::default(), &mut tensor);
                    decoded.fetch_add(usize::from(loaded.is_ok()), Ordering::Relaxed);
                }
            });
        }
    });
    let decoded = decoded.into_inner();
    Ok(json!({ "rate": decoded as f64 / start.elapsed().as_secs_f64() }))
}

/// ONNX Runtime with its own defaults, without this crate's sessions; opening and a first batch are not in the time.
fn runtime_alone(
    backbone: &Path,
    threads: usize,
    sessions: Sessions,
    batch_size: usize,
    pictures: usize,
) -> Result<Value> {
    let backbone = Backbone::open("backbone", backbone, None)?;
    let model = backbone.model();
    let (height, width) = (model.input_size.0 as usize, model.input_size.1 as usize);
    let library = Runtime::locate(&inference(threads)?.runtime)?.found;
    let (_, library) = library.ok_or("ONNX Runtime is not here yet; `lastlayer doctor` says how to get it")?;
    let environment = ort::init_from(library)?.with_telemetry(false).build()?;
    let (count, threads_each) = match sessions {
        Sessions::One => (1, threads),
        Sessions::PerCore => (threads, 1),
    };
    let shape = [batch_size, 3, height, width];
    let input: Vec<f32> = (0..shape.iter().product::<usize>())
        .map(|index| (index % 251) as f32 / 125.0 - 1.0)
        .collect();
    let run = |session: &mut ort::session::Session| -> ort::Result<()> {
        let tensor = TensorRef::from_array_view((shape, input.as_slice()))?;
        session.run(ort::inputs![model.input.as_str() => tensor]).map(|_| ())
    };
    let mut opened = Vec::new();
    for _ in 0..count {
        let mut session = ort::session::Session::builder(&environment)?
            .with_intra_threads(threads_each)
            .map_err(ort::Error::<()>::from)?
            .commit_from_memory(&model.onnx)?;
        run(&mut session)?;
        opened.push(session);
    }
    let batches = pictures.div_ceil(batch_size);
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| -> ort::Result<()> {
        let workers: Vec<_> = opened
            .iter_mut()
            .map(|session| {
                scope.spawn(|| {
                    while next.fetch_add(1, Ordering::Relaxed) < batches {
                        run(session)?;
                    }
                    ort::Result::Ok(())
                })
            })
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })?;
    Ok(json!({ "rate": (batches * batch_size) as f64 / start.elapsed().as_secs_f64() }))
}

/// Peak resident memory of this process in bytes, where the system tells (Linux).
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or(f64::NAN)
}

/// Minimum, median and maximum.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median = if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    };
    (values[0], median, values[values.len() - 1])
}
