//! An evaluation for people: what matters first, everything aligned, and no more lines than can be read.

use std::io::{self, Write};
use std::path::Path;

use super::super::output::counted;
use crate::evaluation::{EvaluatedSplit, Evaluation, Optimism, SeenBefore};
use crate::features::Overlap;
use crate::metrics::{Average, Report};

/// Classes with a line of their own; of more, those with the lowest F1 are shown.
const MOST_CLASSES: usize = 20;
/// Classes of a whole confusion matrix; of more, the most frequent mistakes are shown.
const MOST_COLUMNS: usize = 12;
/// Mistakes that are shown.
const MOST_MISTAKES: usize = 10;
/// Characters of a class's name.
const NAME: usize = 32;
/// Characters of a line of the confusion matrix, as far as names can be shortened.
const LINE: usize = 100;

pub(super) fn write(out: &mut dyn Write, evaluation: &Evaluation, head: &Path) -> io::Result<()> {
    let report = &evaluation.report;
    let pictures = counted(report.images, "picture");
    let which = match evaluation.split {
        EvaluatedSplit::All => "all splits".to_owned(),
        split => format!("the {split} split"),
    };
    writeln!(
        out,
        "{} on {which} of {}: {pictures}",
        head.display(),
        evaluation.dataset.display()
    )?;
    for line in marks(evaluation) {
        writeln!(out, "{line}")?;
    }
    writeln!(out)?;
    write_summary(out, report)?;
    writeln!(out)?;
    write_classes(out, report)?;
    writeln!(out)?;
    if report.classes.len() <= MOST_COLUMNS {
        write_matrix(out, report)
    } else {
        write_mistakes(out, report)
    }
}

/// How far the numbers can be believed.
fn marks(evaluation: &Evaluation) -> Vec<String> {
    let mut lines = Vec::new();
    for reason in &evaluation.optimism {
        lines.push(match (reason, &evaluation.test_uses) {
            (Optimism::TrainedOn, _) => match part(evaluation, |seen| &seen.trained_on) {
                Some(part) => format!("optimistic: the head was trained on {part}"),
                None if evaluation.split == EvaluatedSplit::All && evaluation.seen.is_none() => {
                    "optimistic: the head was trained on many of these pictures".to_owned()
                }
                None => "optimistic: the head was trained on these pictures, so they say nothing of new ones".to_owned(),
            },
            (Optimism::SelectedOn, _) => {
                let and_calibrated = if evaluation.report.temperature == 1.0 { "" } else { " and calibrated" };
                let pictures = part(evaluation, |seen| &seen.selected_on);
                format!(
                    "optimistic: the head was selected{and_calibrated} on {}; new pictures are likely to be a little harder",
                    pictures.as_deref().unwrap_or("this split")
                )
            }
            (Optimism::TestReused, Some(uses)) => {
                let first = uses.first.as_ref().map_or_else(String::new, |first| {
                    format!(" (first on {} with {})", first.date(), first.head)
                });
                format!(
                    "optimistic: the test split of {} was already used {}{first}: a number chosen after looking at it is too \
                     good",
                    evaluation.dataset.display(),
                    counted(uses.heads - 1, "time"),
                )
            }
            (Optimism::TestReused, None) => continue,
        });
    }
    if evaluation.test_uses.as_ref().is_some_and(|uses| uses.heads == 1) {
        lines.push("no other head was scored on this test split before; the cache notes that this one was".to_owned());
    }
    lines
}

/// `8 of these 216 pictures`, where it is not all of them or that is not known.
fn part(evaluation: &Evaluation, of: impl Fn(&SeenBefore) -> &Overlap) -> Option<String> {
    let (overlap, all) = (of(evaluation.seen.as_ref()?), evaluation.report.images);
    let images = overlap.images?;
    if images == all {
        return None;
    }
    let pictures = counted(all, "picture");
    Some(match overlap.exact {
        true => format!("{images} of these {pictures}"),
        false => format!(
            "about {images} of these {pictures} ({} of the {} that the head's file can tell)",
            overlap.found, overlap.looked_at
        ),
    })
}

fn write_summary(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    let interval = |[low, high]: [f64; 2]| format!("95 % interval {low:.4} to {high:.4}");
    let mut lines: Vec<(String, f64, String)> = vec![(
        "accuracy".to_owned(),
        report.accuracy,
        format!(
            "{}, {} of {}",
            interval(report.accuracy_interval),
            report.correct,
            report.images
        ),
    )];
    for rank in report
        .top_k
        .iter()
        .filter(|rank| rank.k > 1 && rank.k < report.classes.len())
    {
        if [2, 5].contains(&rank.k) {
            lines.push((
                format!("top-{} accuracy", rank.k),
                rank.accuracy,
                interval(rank.interval),
            ));
        }
    }
    let mut line = |name: &str, value: f64, remark: String| lines.push((name.to_owned(), value, remark));
    line("balanced accuracy", report.balanced_accuracy, String::new());
    line(
        "macro F1",
        report.macro_f1,
        format!("weighted {:.4}", report.weighted_f1),
    );
    if let Some(kappa) = report.kappa {
        line("Cohen's kappa", kappa, format!("Matthews {:.4}", report.matthews));
    }
    if let Some(area) = report.roc_auc {
        line("ROC AUC", area, "each class against the rest, mean".to_owned());
    }
    let calibrated = report.temperature != 1.0;
    let before = |value: f64| match calibrated {
        true => format!("uncalibrated {value:.4}"),
        false => String::new(),
    };
    let (scores, plain) = (&report.probabilities, &report.uncalibrated);
    line("log-loss", scores.loss, before(plain.loss));
    line("Brier score", scores.brier, before(plain.brier));
    line("calibration error", scores.ece, before(plain.ece));
    if calibrated {
        line("temperature", report.temperature, String::new());
    }
    for (name, value, remark) in lines {
        let text = format!("{name:<19}{value:>8.4}   {remark}");
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}

fn write_classes(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    let mut shown: Vec<_> = report.per_class.iter().collect();
    let left_out = shown.len().saturating_sub(MOST_CLASSES);
    if left_out > 0 {
        // A stable sort, so that classes of equal F1 stay in order.
        shown.retain(|class| class.support > 0);
        shown.sort_by(|left, right| left.f1.total_cmp(&right.f1));
        shown.truncate(MOST_CLASSES / 2);
    }
    let names: Vec<String> = shown.iter().map(|class| shortened(&class.class, NAME)).collect();
    let averages = ["macro average", "weighted average"];
    let width = width_of(names.iter().map(String::as_str).chain(averages));
    writeln!(
        out,
        "{:width$}  precision   recall   95 % interval     F1   support",
        "class"
    )?;
    for (name, class) in names.iter().zip(&shown) {
        let [low, high] = class.recall_interval;
        writeln!(
            out,
            "{name:width$}  {:>9.4}  {:>7.4}  {low:.4} {high:.4}  {:>6.4}  {:>7}",
            class.precision, class.recall, class.f1, class.support
        )?;
    }
    if left_out > 0 {
        writeln!(
            out,
            "… the {} with the lowest F1 of {} classes; `--csv` and `-o` write all",
            shown.len(),
            report.classes.len()
        )?;
    }
    for (name, average) in averages
        .into_iter()
        .zip([report.macro_average(), report.weighted_average()])
    {
        let Average {
            precision, recall, f1, ..
        } = average;
        let blank = "";
        writeln!(
            out,
            "{name:width$}  {precision:>9.4}  {recall:>7.4}  {blank:13}  {f1:>6.4}  {:>7}",
            report.images
        )?;
    }
    Ok(())
}

fn write_matrix(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    writeln!(out, "confusion (row: true class, column: predicted)")?;
    let names: Vec<String> = report.classes.iter().map(|name| shortened(name, NAME)).collect();
    let width = width_of(names.iter().map(String::as_str));
    let room = (LINE - width) / report.classes.len();
    let heads: Vec<String> = report
        .classes
        .iter()
        .map(|name| shortened(name, room.saturating_sub(2).clamp(4, NAME)))
        .collect();
    let counts = report.confusion.iter().flatten();
    let digits = counts.map(|count| count.to_string().len()).max().unwrap_or(1);
    let columns: Vec<usize> = heads.iter().map(|head| head.chars().count().max(digits)).collect();
    write!(out, "{:width$}", "")?;
    for (head, column) in heads.iter().zip(&columns) {
        write!(out, "  {head:>column$}")?;
    }
    writeln!(out)?;
    for (name, row) in names.iter().zip(&report.confusion) {
        write!(out, "{name:width$}")?;
        for (count, column) in row.iter().zip(&columns) {
            write!(out, "  {count:>column$}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn write_mistakes(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    let mut mistakes: Vec<(u64, usize, usize)> = Vec::new();
    for (truth, row) in report.confusion.iter().enumerate() {
        let wrong = row
            .iter()
            .enumerate()
            .filter(|&(class, &count)| class != truth && count > 0);
        mistakes.extend(wrong.map(|(class, &count)| (count, truth, class)));
    }
    if mistakes.is_empty() {
        return writeln!(out, "no mistakes");
    }
    // A stable sort: of equally frequent ones in the order of the classes.
    mistakes.sort_by_key(|&(count, ..)| std::cmp::Reverse(count));
    let kinds = mistakes.len();
    mistakes.truncate(MOST_MISTAKES);
    writeln!(out, "most frequent mistakes ({} of {kinds} kinds)", mistakes.len())?;
    let name = |class: usize| shortened(&report.classes[class], NAME);
    let names: Vec<String> = mistakes.iter().map(|&(_, truth, _)| name(truth)).collect();
    let width = width_of(names.iter().map(String::as_str));
    for (&(count, truth, class), from) in mistakes.iter().zip(&names) {
        let support = report.per_class[truth].support;
        writeln!(
            out,
            "{count:>6} of {support:<6} {from:width$}  taken for {}",
            name(class)
        )?;
    }
    Ok(())
}

/// A name of at most `most` characters.
fn shortened(name: &str, most: usize) -> String {
    if name.chars().count() <= most {
        return name.to_owned();
    }
    name.chars().take(most - 1).chain(std::iter::once('…')).collect()
}

fn width_of<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    names.map(|name| name.chars().count()).max().unwrap_or(0)
}
