//! ONNX Runtime alone, and decoding alone: what there is to reach.
//!
//! Each runs as this program again: a fresh process has no warm allocator, and nothing of a former run is there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use lastlayer::{Backbone, Dataset, Decode, Device, FeatureOptions, InferenceOptions, Limits, Runtime};
use ort::value::TensorRef;
use serde_json::{Value, json};

use super::numbers::median;
use super::turns::Sample;
use super::{Result, Task, process};

const TRIAL_PICTURES: usize = 48;
const TRIAL_BATCHES: [usize; 3] = [1, 8, 16];
const TRIAL_ROUNDS: usize = 3;

/// How ONNX Runtime uses the threads.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Sessions {
    /// One session with all of them.
    One,
    /// One session with one thread on each core.
    PerCore,
}

impl Sessions {
    fn name(self) -> &'static str {
        match self {
            Self::One => "one session",
            Self::PerCore => "a session per core",
        }
    }

    fn parse(name: &str) -> Result<Self> {
        let all = [Self::One, Self::PerCore];
        let found = all.into_iter().find(|sessions| sessions.name() == name);
        found.ok_or_else(|| format!("`{name}` names no sessions").into())
    }
}

/// The way in which ONNX Runtime alone is fastest here.
#[derive(Clone, Copy)]
pub(crate) struct Yardstick {
    sessions: Sessions,
    batch_size: usize,
}

impl Yardstick {
    /// The fastest by the medians of interleaved trials.
    pub(crate) fn best(task: &Task) -> Result<Self> {
        eprintln!("ONNX Runtime alone, trial of {TRIAL_PICTURES} pictures, median of {TRIAL_ROUNDS} rounds");
        let mut ways: Vec<(Self, Vec<f64>)> = [Sessions::One, Sessions::PerCore]
            .into_iter()
            .flat_map(|sessions| TRIAL_BATCHES.map(|batch_size| Self { sessions, batch_size }))
            .map(|way| (way, Vec::new()))
            .collect();
        for _ in 0..if task.quick { 1 } else { TRIAL_ROUNDS } {
            for (way, rates) in &mut ways {
                rates.push(way.run(task, TRIAL_PICTURES)?.own);
            }
        }
        for (way, rates) in &ways {
            eprintln!("  {:6.1}/s  {}", median(rates), way.text());
        }
        let best = ways
            .into_iter()
            .max_by(|one, two| median(&one.1).total_cmp(&median(&two.1)));
        best.map(|(way, _)| way).ok_or_else(|| "nothing was tried".into())
    }

    pub(crate) fn text(self) -> String {
        format!("{}, batches of {}", self.sessions.name(), self.batch_size)
    }

    pub(crate) fn run(self, task: &Task, pictures: usize) -> Result<Sample> {
        let arguments = [
            self.sessions.name().to_owned(),
            self.batch_size.to_string(),
            pictures.to_string(),
        ];
        again(task, "runtime", &task.backbone, &arguments)
    }
}

/// Reading, decoding, resizing and normalising alone, on all threads.
pub(crate) fn decoding(task: &Task, dataset: &Path, decode: Decode) -> Result<Sample> {
    let decode = if decode == Decode::Fast { "fast" } else { "exact" };
    again(task, "decode", dataset, &[decode.to_owned()])
}

/// Runs this program again for one part.
fn again(task: &Task, part: &str, file: &Path, arguments: &[String]) -> Result<Sample> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(format!("child-{part}")).arg(file).arg(&task.backbone);
    let ran = process::run(command.arg(task.threads.to_string()).args(arguments))?;
    let report = ran.json()?;
    Ok(Sample {
        own: report["rate"].as_f64().ok_or("it does not say its rate")?,
        // It opens what it needs and runs a first batch: as a process it is nothing that a user would run.
        whole: None,
        peak: ran.peak,
        report,
    })
}

/// What [`again`] runs.
pub(crate) fn child(part: &str, arguments: &[String]) -> Result<()> {
    let [file, backbone, threads, rest @ ..] = arguments else {
        return Err("a part needs a file, a backbone and a number of threads".into());
    };
    let threads = threads.parse()?;
    let found = match (part, rest) {
        ("decode", [decode]) => decode_all(Path::new(file), Path::new(backbone), threads, decode == "fast")?,
        ("runtime", [sessions, batch_size, pictures]) => {
            let way = Yardstick {
                sessions: Sessions::parse(sessions)?,
                batch_size: batch_size.parse()?,
            };
            runtime_alone(Path::new(backbone), threads, way, pictures.parse()?)?
        }
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

fn decode_all(dataset: &Path, backbone: &Path, threads: usize, fast: bool) -> Result<Value> {
    let dataset = Dataset::scan(dataset)?;
    let options = FeatureOptions {
        decode: if fast { Decode::Fast } else { Decode::Exact },
        ..FeatureOptions::default()
    };
    let transform = Backbone::open("backbone", backbone, None)?.space(&options)?.transform;
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

/// ONNX Runtime with its own defaults, without this crate's sessions, on made input; opening and a first batch are not in
/// the time.
fn runtime_alone(backbone: &Path, threads: usize, way: Yardstick, pictures: usize) -> Result<Value> {
    let Yardstick { sessions, batch_size } = way;
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
