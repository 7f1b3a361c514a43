//! What is measured: pictures of the usual size, large photos, and one picture from nothing.

use std::path::{Path, PathBuf};

use lastlayer::{Dataset, Decode};

use super::document::{Row, Section, met_at_least, table};
use super::numbers::{median, spread};
use super::ours::{self, Head, Int8, Reference};
use super::peers::{FOLDED, PEERS, Peer};
use super::turns::{Contender, Sample, ratio, take_turns};
use super::yardstick::{self, Yardstick};
use super::{Result, Task, photos};

/// Pictures on which a peer's ways are tried out.
const TRIAL: usize = 96;
/// Large photos, and on how many of them ways are tried out.
const PHOTOS: usize = 40;
const PHOTOS_TRIAL: usize = 16;
/// Pictures for which a whole process is started, each round.
const COLD_RUNS: usize = 4;
/// What the process may have at most, in MB.
const MEMORY: f64 = 400.0;

pub(crate) fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

/// The peers, or one who says why there are none.
fn peers<'a>(
    which: impl IntoIterator<Item = Peer>,
    task: &'a Task,
    dataset: &'a Path,
    reference: &'a Reference,
    trial: usize,
) -> Vec<Contender<'a>> {
    let trial = if task.quick { trial.min(16) } else { trial };
    let one = |peer: Peer| match &task.peers {
        Ok(peers) => peers.contender(peer, task, dataset, reference, trial),
        Err(problem) => Contender::absent(peer.1, problem),
    };
    which.into_iter().map(one).collect()
}

/// Data sets of usual pictures: everything end to end, beside ONNX Runtime alone.
pub(crate) fn rate(task: &Task) -> Result<Vec<Section>> {
    let yardstick = Yardstick::best(task)?;
    task.datasets
        .iter()
        .map(|dataset| rate_of(task, yardstick, dataset))
        .collect()
}

fn rate_of(task: &Task, yardstick: Yardstick, dataset: &Path) -> Result<Section> {
    let name = name_of(dataset);
    eprintln!("{name}");
    let reference = Reference::of(task, dataset)?;
    let head = Head::train(task, dataset)?;
    // What is made once and kept, such as a quantised model, is no part of the rate.
    let int8 = Int8::quantize(task, dataset);
    let int8_name = "lastlayer extract --precision int8";
    let mut contenders = vec![
        Contender::new("ONNX Runtime alone", yardstick.text(), || {
            yardstick.run(task, reference.pictures)
        }),
        Contender::new("lastlayer extract", "its defaults", || {
            ours::extract(task, dataset, &[])
        }),
        match &int8 {
            Ok(int8) => Contender::new(int8_name, "the quantised model was made before", || {
                int8.extract(task, dataset)
            }),
            Err(problem) => Contender::absent(int8_name, problem),
        },
        Contender::new("lastlayer predict DIR", "nothing in the cache", || {
            head.predict(task, dataset)
        }),
    ];
    contenders.extend(peers(PEERS, task, dataset, &reference, TRIAL));
    take_turns(&mut contenders, task.rounds);

    let [alone, extract, int8, predict, torchvision, ..] = contenders.as_slice() else {
        unreachable!("all of them were put in above")
    };
    let own = |sample: &Sample| sample.own;
    let wanted = vec![
        met_at_least(
            format!("{name}: extract / ONNX Runtime alone"),
            0.90,
            ratio(extract, Sample::strict, alone, own),
        ),
        met_at_least(
            format!("{name}: extract / torchvision + PyTorch"),
            1.6,
            ratio(extract, Sample::strict, torchvision, own),
        ),
        met_at_least(
            format!("{name}: extract, int8 / fp32"),
            1.6,
            ratio(int8, Sample::strict, extract, Sample::strict),
        ),
        Row::open(
            format!("{name}: predict DIR / extract"),
            "about 1",
            ratio(predict, Sample::strict, extract, Sample::strict),
        ),
        Row::memory(format!("{name}: peak memory of extract"), MEMORY, extract),
    ];
    Ok(Section {
        title: format!("{name}: {} pictures", reference.pictures),
        text: table(&contenders, 1),
        wanted,
    })
}

/// Photos of 12 megapixels.
pub(crate) fn large(task: &Task) -> Result<Vec<Section>> {
    let folder = tempfile::tempdir()?;
    let dataset = folder.path().join("photos");
    let count = if task.quick { 6 } else { PHOTOS };
    eprintln!("making {count} photos of 12 megapixels");
    let made = photos::make(&task.datasets, &dataset, count)?;
    let reference = Reference::of(task, &dataset)?;
    let decoding_name = "reading and decoding alone";
    let fast = &["--decode", "fast"];
    let mut contenders = vec![
        Contender::new("lastlayer extract", "its defaults", || {
            ours::extract(task, &dataset, &[])
        }),
        Contender::new("lastlayer extract --decode fast", "", || {
            ours::extract(task, &dataset, fast)
        }),
        Contender::new(
            format!("{decoding_name}, exact"),
            "up to the tensor, on all threads",
            || yardstick::decoding(task, &dataset, Decode::Exact),
        ),
        Contender::new(
            format!("{decoding_name}, fast"),
            "up to the tensor, on all threads",
            || yardstick::decoding(task, &dataset, Decode::Fast),
        ),
    ];
    // Where decoding takes most of the time, what the model does with its BatchNorm makes no difference.
    let others = PEERS.into_iter().filter(|(peer, _)| *peer != FOLDED);
    contenders.extend(peers(others, task, &dataset, &reference, PHOTOS_TRIAL));
    take_turns(&mut contenders, task.rounds);

    let [exact, fast, decoding_exact, decoding_fast, torchvision, ..] = contenders.as_slice() else {
        unreachable!("all of them were put in above")
    };
    let own = |sample: &Sample| sample.own;
    let wanted = vec![
        met_at_least(
            "12 megapixels: decoding alone, fast / exact".to_owned(),
            3.0,
            ratio(decoding_fast, own, decoding_exact, own),
        ),
        met_at_least(
            "12 megapixels: extract, --decode fast / exact".to_owned(),
            1.8,
            ratio(fast, Sample::strict, exact, Sample::strict),
        ),
        met_at_least(
            "12 megapixels: extract --decode fast / torchvision + PyTorch".to_owned(),
            2.5,
            ratio(fast, Sample::strict, torchvision, own),
        ),
        Row::memory("12 megapixels: peak memory of extract".to_owned(), MEMORY, exact),
    ];
    Ok(vec![Section {
        title: format!(
            "{} photos of 12 megapixels, {:.1} MB each, made from the largest of these",
            made.count, made.megabytes_each
        ),
        text: table(&contenders, 0),
        wanted,
    }])
}

/// One picture as a whole process, with nothing in the cache.
pub(crate) fn predict(task: &Task) -> Result<Vec<Section>> {
    let dataset = &task.datasets[0];
    let head = Head::train(task, dataset)?;
    let found = Dataset::scan(dataset)?;
    let pictures: Vec<PathBuf> = found
        .samples
        .iter()
        .map(|sample| found.root.join(&sample.path))
        .collect();
    let mut next = pictures.iter().cycle().step_by((pictures.len() / 7).max(1));
    let mut picture = || next.next().ok_or("there is no picture");
    // Whoever keeps something from the first run has had one.
    head.predict_one(task, picture()?)?;
    let mut others = task.peers.as_ref().map_err(Clone::clone).and_then(|peers| {
        let path = pictures.first().ok_or("there is no picture")?;
        peers
            .predict_one(path)
            .map(|_| Vec::new())
            .map_err(|problem| problem.to_string())
    });
    let (mut ours, mut ratios) = (Vec::new(), Vec::new());
    for round in 0..task.rounds {
        let mut seconds = Vec::new();
        for _ in 0..COLD_RUNS {
            seconds.push(head.predict_one(task, picture()?)?);
        }
        if let (Ok(others), Ok(peers)) = (&mut others, &task.peers) {
            let other = peers.predict_one(picture()?)?;
            ratios.push(other / median(&seconds));
            others.push(other);
        }
        eprintln!(
            "  round {}  {:.3} s  lastlayer predict, one picture",
            round + 1,
            median(&seconds)
        );
        ours.extend(seconds);
    }
    let line = |name: &str, seconds: &[f64]| {
        let (low, middle, high) = spread(seconds);
        format!("| {name} | {middle:.3} ({low:.3} – {high:.3}) | {} |\n", seconds.len())
    };
    let mut text = String::from("| whole process, one picture | seconds | runs |\n|---|---|---|\n");
    text += &line("lastlayer predict", &ours);
    match &others {
        Ok(others) => text += &line("torchvision + PyTorch: import, load the weights, one picture", others),
        Err(problem) => text += &format!("| torchvision + PyTorch | not measured: {problem} | |\n"),
    }
    text += "\nFiles are in the system's memory; the cache of features is empty.\n";
    let middle = median(&ours);
    Ok(vec![Section {
        title: "One picture from nothing".to_owned(),
        text,
        wanted: vec![
            Row {
                what: "one picture as a whole process".to_owned(),
                wanted: "≤ 0.25 s".to_owned(),
                seen: format!("{middle:.3} s"),
                met: Some(middle <= 0.25),
            },
            met_at_least(
                "the same with torchvision + PyTorch / ours".to_owned(),
                8.0,
                (!ratios.is_empty()).then(|| spread(&ratios)),
            ),
        ],
    }])
}
