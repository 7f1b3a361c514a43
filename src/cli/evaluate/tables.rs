//! An evaluation as CSV: numbers have all their digits, so that other programs can compute with them.

use std::io::{self, Write};

use crate::evaluation::Evaluation;
use crate::metrics::Report;

fn writer(out: &mut dyn Write) -> csv::Writer<&mut dyn Write> {
    csv::Writer::from_writer(out)
}

/// One line for each picture: path, split, label, predicted, probability, correct, and the probability of each class.
pub(super) fn pictures(out: &mut dyn Write, evaluation: &Evaluation) -> io::Result<()> {
    let classes = &evaluation.report.classes;
    let mut csv = writer(out);
    let mut fields: Vec<String> = ["path", "split", "label", "predicted", "probability", "correct"]
        .map(str::to_owned)
        .into();
    fields.extend(classes.iter().map(|class| format!("probability_{class}")));
    csv.write_record(&fields)?;
    for (index, picture) in evaluation.pictures.iter().enumerate() {
        let (predicted, probabilities) = evaluation.prediction(index);
        fields.clear();
        fields.extend([
            picture.path.to_string_lossy().into_owned(),
            picture.split.name().to_owned(),
            classes[picture.label].clone(),
            classes[predicted].clone(),
            probabilities[predicted].to_string(),
            (predicted == picture.label).to_string(),
        ]);
        fields.extend(probabilities.iter().map(f64::to_string));
        csv.write_record(&fields)?;
    }
    csv.flush()
}

/// One line for each class.
pub(super) fn classes(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    let mut csv = writer(out);
    csv.write_record([
        "class",
        "precision",
        "recall",
        "recall_low",
        "recall_high",
        "f1",
        "support",
        "predicted",
    ])?;
    for class in &report.per_class {
        let [low, high] = class.recall_interval;
        let numbers = [class.precision, class.recall, low, high, class.f1].map(|number| number.to_string());
        let counts = [class.support, class.predicted].map(|count| count.to_string());
        csv.write_record(std::iter::once(&class.class).chain(&numbers).chain(&counts))?;
    }
    csv.flush()
}

/// One line for each true class, one column for each predicted one.
pub(super) fn confusion(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    let mut csv = writer(out);
    let corner = "true class \\ predicted".to_owned();
    csv.write_record(std::iter::once(&corner).chain(&report.classes))?;
    for (class, counts) in report.classes.iter().zip(&report.confusion) {
        let counts: Vec<String> = counts.iter().map(u64::to_string).collect();
        csv.write_record(std::iter::once(class).chain(&counts))?;
    }
    csv.flush()
}
