//! The document: the machine, a table for each part, and what was wanted beside what was seen.

use std::fmt::Write;

use super::turns::{Contender, Sample, ratio};
use super::{Task, ours, parts};

/// Minimum, median and maximum.
type Spread = (f64, f64, f64);

/// A part of the document.
pub(crate) struct Section {
    pub(crate) title: String,
    pub(crate) text: String,
    pub(crate) wanted: Vec<Row>,
}

/// Something that is wanted, and what was seen.
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) wanted: String,
    pub(crate) seen: String,
    /// `None` where it was not measured, or where there is nothing to meet.
    pub(crate) met: Option<bool>,
}

impl Row {
    /// A ratio without a limit.
    pub(crate) fn open(what: String, wanted: &str, seen: Option<Spread>) -> Self {
        Self {
            what,
            wanted: wanted.to_owned(),
            seen: seen.map_or_else(|| "not measured".to_owned(), |seen| shown(seen, 2)),
            met: None,
        }
    }

    /// The most memory that any of the runs had, below `most` MB.
    pub(crate) fn memory(what: String, most: f64, contender: &Contender<'_>) -> Self {
        let peak = contender.spread(|sample| sample.peak);
        Self {
            what,
            wanted: format!("< {most:.0} MB"),
            seen: peak.map_or_else(|| "not measured".to_owned(), |peak| format!("{:.0} MB", peak.2)),
            met: peak.map(|peak| peak.2 < most),
        }
    }
}

/// A ratio whose median shall be at least `least`.
pub(crate) fn met_at_least(what: String, least: f64, seen: Option<Spread>) -> Row {
    Row {
        met: seen.map(|seen| seen.1 >= least),
        ..Row::open(what, &format!("≥ {least}"), seen)
    }
}

fn shown((low, middle, high): Spread, digits: usize) -> String {
    if low == high {
        return format!("{middle:.digits$}");
    }
    format!("{middle:.digits$} ({low:.digits$} – {high:.digits$})")
}

/// Who was how fast, and how many times as fast the one with index `ours` was.
pub(crate) fn table(contenders: &[Contender<'_>], ours: usize) -> String {
    let mut text = format!(
        "| | pictures/s by its own timer | as a whole process | {} against it, own timers | peak memory, MB |\n|---|---|---|---|---|\n",
        contenders[ours].name
    );
    let own = |sample: &Sample| sample.own;
    for contender in contenders {
        let row = match &contender.outcome {
            Err(problem) => format!("not measured: {} | | |", problem.replace('|', "/")),
            Ok(_) => {
                let cell = |spread: Option<Spread>, digits| {
                    spread.map_or_else(|| "–".to_owned(), |spread| shown(spread, digits))
                };
                let against = ratio(&contenders[ours], own, contender, own);
                let peak = contender.spread(|sample| sample.peak);
                format!(
                    "{} | {} | {} | {}",
                    cell(contender.spread(|sample| Some(sample.own)), 1),
                    cell(contender.spread(|sample| sample.whole), 1),
                    cell(against, 2),
                    peak.map_or_else(|| "–".to_owned(), |peak| format!("{:.0}", peak.2)),
                )
            }
        };
        let _ = writeln!(text, "| {} | {row} |", contender.name);
    }
    text.push('\n');
    for contender in contenders {
        let busy = busy(contender);
        let said: Vec<&str> = [contender.way.as_str(), busy.as_str()]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect();
        if contender.outcome.is_ok() && !said.is_empty() {
            let _ = writeln!(text, "- {}: {}", contender.name, said.join("; "));
        }
    }
    text
}

/// How busy its stages were, in the middle of the runs.
fn busy(contender: &Contender<'_>) -> String {
    let stages = contender.samples().first().map(|sample| &sample.report["busy"]);
    let stages = stages.and_then(|busy| busy.as_object()).into_iter().flatten();
    let share = |stage: &String| {
        let spread = contender.spread(|sample| sample.report["busy"][stage].as_f64())?;
        Some(format!("{stage} {:.0} %", spread.1 * 100.0))
    };
    let shares: Vec<String> = stages.filter_map(|(stage, _)| share(stage)).collect();
    match shares.is_empty() {
        true => String::new(),
        false => format!("busy: {}", shares.join(", ")),
    }
}

/// All of it as Markdown.
pub(crate) fn document(task: &Task, sections: &[Section]) -> String {
    let mut text = format!("# lastlayer beside others\n\n{}\n", machine(task));
    let _ = writeln!(
        text,
        "Median (least – most) of {} rounds, in each of which everybody had a turn; ratios are taken round by round. By its own timer: \
         lastlayer from listing the files to the last durable row, with the opening of the backbone; the others from the \
         first picture to the last feature, after imports, loading and a first batch. Of several ways to do it each has the \
         fastest, found by a trial. Peak memory: the highest of the rounds, with the processes that were started.",
        task.rounds
    );
    for section in sections {
        let _ = write!(text, "\n## {}\n\n{}", section.title, section.text);
    }
    text += "\n## Wanted and seen\n\nHere lastlayer counts as a whole process, and others by their own timers.\n\n\
             | | wanted | seen | |\n|---|---|---|---|\n";
    for Row {
        what,
        wanted,
        seen,
        met,
    } in sections.iter().flat_map(|section| &section.wanted)
    {
        let met = met.map_or("", |met| if met { "met" } else { "missed" });
        let _ = writeln!(text, "| {what} | {wanted} | {seen} | {met} |");
    }
    text
}

/// The machine and all versions.
fn machine(task: &Task) -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let peers = match &task.peers {
        Ok(peers) => peers.versions.clone(),
        Err(problem) => format!("not to be had: {problem}"),
    };
    let datasets: Vec<String> = task.datasets.iter().map(|dataset| parts::name_of(dataset)).collect();
    let memory = memory().map_or_else(String::new, |bytes| format!(", {:.0} GB of memory", bytes as f64 / 1e9));
    let lines = [
        (
            "processor",
            format!(
                "{}, {cores} cores usable, {} threads used{memory}",
                processor(),
                task.threads
            ),
        ),
        ("instruction sets", instructions()),
        (
            "system",
            format!("{} on {}", std::env::consts::OS, std::env::consts::ARCH),
        ),
        (
            "lastlayer",
            format!(
                "{}, ONNX Runtime {}",
                env!("CARGO_PKG_VERSION"),
                ours::runtime_version(task)
            ),
        ),
        ("peers", peers),
        ("backbone", parts::name_of(&task.backbone)),
        ("data sets", datasets.join(", ")),
    ];
    let mut text = String::from("| | |\n|---|---|\n");
    for (name, value) in lines {
        let _ = writeln!(text, "| {name} | {value} |");
    }
    text
}

/// The processor's name, as the system has it.
fn processor() -> String {
    let from_linux = || {
        let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
        let line = info.lines().find_map(|line| line.strip_prefix("model name"))?;
        Some(line.trim_start_matches([' ', '\t', ':']).to_owned())
    };
    let from_macos = || {
        let output = std::process::Command::new("sysctl")
            .args(["-n", "machdep.cpu.brand_string"])
            .output()
            .ok()?;
        let name = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (!name.is_empty()).then_some(name)
    };
    from_linux()
        .or_else(from_macos)
        .or_else(|| std::env::var("PROCESSOR_IDENTIFIER").ok())
        .unwrap_or_else(|| "unknown".to_owned())
}

fn instructions() -> String {
    #[cfg(target_arch = "x86_64")]
    let found: Vec<&str> = [
        ("AVX2", is_x86_feature_detected!("avx2")),
        ("FMA", is_x86_feature_detected!("fma")),
        ("AVX-512", is_x86_feature_detected!("avx512f")),
        ("AVX-512 VNNI", is_x86_feature_detected!("avx512vnni")),
        ("AVX-VNNI", is_x86_feature_detected!("avxvnni")),
        ("AVX-512 BF16", is_x86_feature_detected!("avx512bf16")),
    ]
    .into_iter()
    .filter_map(|(name, found)| found.then_some(name))
    .collect();
    #[cfg(not(target_arch = "x86_64"))]
    let found = ["what its architecture has"];
    found.join(", ")
}

/// The machine's memory in bytes (Linux).
fn memory() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}
