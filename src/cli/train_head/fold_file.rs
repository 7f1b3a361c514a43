//! Which picture validates in which fold, as a CSV file that others can read and write: the same folds for another program.

use std::collections::HashMap;
use std::path::Path;

use crate::disk::write_atomically;
use crate::error::{Error, Result};
use crate::features::PooledFeatures;

/// The folds of a cross-validation: for each repeat, each picture's; `None` for one that always trains.
type Folds = Vec<Vec<Option<usize>>>;

/// Writes `path, label, fold` of every picture, or `fold1`, `fold2` … of several repeats. Folds are counted from 1, as on the
/// screen.
pub(super) fn write(path: &Path, pooled: &PooledFeatures, folds: &[Vec<Option<usize>>]) -> Result<()> {
    write_atomically(path, &[&text(pooled, folds)?])
}

/// The bytes of such a file.
pub(super) fn text(pooled: &PooledFeatures, folds: &[Vec<Option<usize>>]) -> Result<Vec<u8>> {
    csv_text(pooled, folds).map_err(|error| Error::Usage(format!("the folds are no table: {error}")))
}

fn csv_text(pooled: &PooledFeatures, folds: &[Vec<Option<usize>>]) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let columns = (1..=folds.len()).map(|repeat| match folds.len() {
        1 => "fold".to_owned(),
        _ => format!("fold{repeat}"),
    });
    writer.write_record(["path", "label"].map(str::to_owned).into_iter().chain(columns))?;
    let features = &pooled.features;
    for (row, (path, class)) in pooled.paths.iter().zip(&features.train.labels).enumerate() {
        let fold = |folds: &Vec<Option<usize>>| folds[row].map_or_else(String::new, |fold| (fold + 1).to_string());
        let cells = [path.to_string_lossy().into_owned(), features.classes[*class].clone()];
        writer.write_record(cells.into_iter().chain(folds.iter().map(fold)))?;
    }
    writer.into_inner().map_err(|error| error.into_error().into())
}

/// Reads such a file; it must name every picture, and may name more.
///
/// Folds may be counted from 0 too, as earlier versions and scikit-learn do: no fold is empty, so the lowest number tells.
pub(super) fn read(path: &Path, pooled: &PooledFeatures) -> Result<Folds> {
    let refuse = |line: Option<u64>, problem: String| Error::Table {
        path: path.to_path_buf(),
        place: line.map(|line| format!("line {line}")),
        problem,
        hint:
            "the columns are path and fold (or fold1, fold2, … for repeats); folds are numbers from 1 (or all from 0), \
               none for a picture that always trains; --folds-file writes such a file"
                .to_owned(),
    };
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let mut reader = csv::Reader::from_reader(bytes.as_slice());
    let header = reader
        .headers()
        .map_err(|error| refuse(None, format!("is no CSV: {error}")))?
        .clone();
    let column = |name: &str| {
        header
            .iter()
            .position(|column| column.trim().eq_ignore_ascii_case(name))
    };
    let Some(path_column) = column("path") else {
        return Err(refuse(None, "has no column `path`".to_owned()));
    };
    let fold_columns: Vec<usize> = match column("fold") {
        Some(only) => vec![only],
        None => (1..).map_while(|repeat| column(&format!("fold{repeat}"))).collect(),
    };
    if fold_columns.is_empty() {
        return Err(refuse(None, "has no column `fold` and none `fold1`".to_owned()));
    }
    let mut known: HashMap<String, Vec<Option<usize>>> = HashMap::new();
    for record in reader.records() {
        let record = record.map_err(|error| refuse(None, format!("is no CSV: {error}")))?;
        let line = record.position().map(csv::Position::line);
        let cell = |column: usize| record.get(column).unwrap_or("").trim();
        let fold = |column: &usize| match cell(*column) {
            "" => Ok(None),
            text => match text.parse() {
                Ok(fold) if fold <= pooled.paths.len() => Ok(Some(fold)),
                _ => Err(refuse(line, format!("`{text}` is no fold"))),
            },
        };
        let folds = fold_columns.iter().map(fold).collect::<Result<_>>()?;
        if known.insert(cell(path_column).replace('\\', "/"), folds).is_some() {
            return Err(refuse(line, format!("`{}` is there twice", cell(path_column))));
        }
    }
    let lost = |picture: &&std::path::PathBuf| !known.contains_key(&*picture.to_string_lossy());
    let missing = pooled.paths.iter().filter(lost).count();
    if let Some(first) = pooled.paths.iter().find(lost) {
        let problem = format!(
            "does not name {missing} of {} pictures, for instance `{}`",
            pooled.paths.len(),
            first.display()
        );
        return Err(refuse(None, problem));
    }
    let of_repeat = |repeat: usize| -> Vec<Option<usize>> {
        let pictures = pooled.paths.iter();
        pictures
            .map(|picture| known[&*picture.to_string_lossy()][repeat])
            .collect()
    };
    let mut folds: Folds = (0..fold_columns.len()).map(of_repeat).collect();
    let first = usize::from(!folds.iter().flatten().flatten().any(|fold| *fold == 0));
    folds.iter_mut().flatten().flatten().for_each(|fold| *fold -= first);
    check(&folds, first).map_err(|problem| refuse(None, problem))?;
    Ok(folds)
}

/// Every repeat has the same number of folds, at least two, and none of them is empty or everything. `first`: what the file
/// calls the first one.
fn check(folds: &Folds, first: usize) -> Result<(), String> {
    let count = folds.iter().flatten().flatten().max().map_or(0, |largest| largest + 1);
    if count < 2 {
        return Err("has fewer than 2 folds".to_owned());
    }
    for (repeat, assigned) in folds.iter().enumerate() {
        let mut pictures = vec![0_usize; count];
        assigned.iter().flatten().for_each(|fold| pictures[*fold] += 1);
        if let Some(empty) = pictures.iter().position(|pictures| *pictures == 0) {
            let of_repeat = match folds.len() {
                1 => String::new(),
                _ => format!(" of repeat {}", repeat + 1),
            };
            return Err(format!(
                "has no picture in fold {}{of_repeat}, but one in fold {}",
                empty + first,
                count - 1 + first
            ));
        }
    }
    Ok(())
}
