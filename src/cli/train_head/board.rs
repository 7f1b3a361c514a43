//! The leaderboard as lines of text.

use crate::sweep::{Entry, Leaderboard, Outcome};

/// The `top` best entries as a table: rank, the axes that vary, how it did.
pub(super) fn table(board: &Leaderboard, top: usize) -> Vec<String> {
    let varying = board.varying();
    let folded = board
        .entries
        .iter()
        .any(|entry| matches!(entry.outcome, Outcome::CrossValidated(_)));
    let results: &[&str] = if folded {
        &["accuracy", "± error", "95% interval", "loss"]
    } else {
        &["val acc", "95% interval", "val loss", "epoch"]
    };
    // The loss that ranks is shown where it is another one.
    let is_calibrated =
        |entry: &Entry| matches!(&entry.outcome, Outcome::Trained(standing) if standing.calibrated_val_loss.is_some());
    let calibrated = board.entries.iter().any(is_calibrated);
    let mut results = results.to_vec();
    if calibrated {
        results.insert(3, "calibrated");
    }
    let heading = std::iter::once("rank")
        .chain(varying.iter().copied())
        .chain(results.iter().copied());
    let mut rows: Vec<Vec<String>> = vec![heading.map(str::to_owned).collect()];
    let tried = board
        .entries
        .iter()
        .filter(|entry| entry.outcome != Outcome::NotTrained);
    rows.extend(tried.take(top).map(|entry| row(entry, &varying, calibrated)));
    let columns = rows[0].len();
    // What failed fills its line with a reason that no column is made wider for.
    let width = |column: usize| {
        let whole = rows.iter().filter(|row| row.len() == columns || column + 1 < row.len());
        whole.map(|row| row[column].chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// What stands where a training has no such thing: another solver's option, an epoch of the optimum.
const NOT_APPLICABLE: &str = "n/a";

fn row(entry: &Entry, varying: &[&str], calibrated: bool) -> Vec<String> {
    let rank = entry.rank.map_or_else(|| "failed".to_owned(), |rank| rank.to_string());
    let settings = varying
        .iter()
        .map(|axis| entry.setting(axis).unwrap_or(NOT_APPLICABLE).to_owned());
    let results = match &entry.outcome {
        Outcome::Trained(standing) => {
            let mut cells = vec![
                format!("{:.4}", standing.val_accuracy),
                interval(standing.val_accuracy_interval),
                loss(standing.val_loss),
            ];
            if calibrated {
                cells.push(
                    standing
                        .calibrated_val_loss
                        .map_or_else(|| NOT_APPLICABLE.to_owned(), loss),
                );
            }
            cells.push(match standing.converged {
                None => standing.best_epoch.to_string(),
                Some(_) => NOT_APPLICABLE.to_owned(),
            });
            cells
        }
        Outcome::CrossValidated(folds) => vec![
            format!("{:.4}", folds.mean_accuracy),
            format!("{:.4}", folds.standard_error),
            interval(folds.accuracy_interval),
            loss(folds.mean_loss),
        ],
        // Fewer cells than columns: nothing stands below.
        Outcome::Failed { problem, .. } => vec![problem.clone()],
        Outcome::NotTrained => Vec::new(),
    };
    std::iter::once(rank).chain(settings).chain(results).collect()
}

/// Four digits behind the point, of a loss that is so large that they say nothing its order of magnitude.
fn loss(value: f64) -> String {
    if value.abs() < 1000.0 {
        format!("{value:.4}")
    } else {
        format!("{value:.1e}")
    }
}

fn interval([low, high]: [f64; 2]) -> String {
    format!("{low:.4}-{high:.4}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::Standing;

    #[test]
    fn what_a_head_has_not_is_told_from_what_was_not_varied() {
        let trained = |calibrated_val_loss, converged| {
            Outcome::Trained(Standing {
                val_accuracy: 0.9,
                val_accuracy_interval: [0.5, 1.0],
                val_loss: 7.5,
                calibrated_val_loss,
                train_accuracy: 1.0,
                train_loss: 0.0,
                best_epoch: 0,
                epochs: 1,
                converged,
            })
        };
        let entry = |number, settings: &[(&str, &str)], outcome| Entry {
            rank: None,
            number,
            settings: settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            outcome,
            head: None,
        };
        let entries = vec![
            entry(0, &[("solver", "lbfgs"), ("C", "1")], trained(Some(0.25), Some(true))),
            entry(1, &[("solver", "sgd"), ("lr", "0.1")], trained(Some(0.5), None)),
        ];
        let board = Leaderboard::new(["solver", "C", "lr"].map(str::to_owned).to_vec(), entries);
        let expected = [
            "rank  solver    C   lr  val acc   95% interval  val loss  calibrated  epoch",
            "   1   lbfgs    1  n/a   0.9000  0.5000-1.0000    7.5000      0.2500    n/a",
            "   2     sgd  n/a  0.1   0.9000  0.5000-1.0000    7.5000      0.5000      0",
        ];
        assert_eq!(table(&board, 20), expected);
    }

    #[test]
    fn columns_are_aligned_and_only_what_varies_is_shown() {
        let entry = |number: usize, lr: &str, outcome| Entry {
            rank: None,
            number,
            settings: [("lr", lr), ("seed", "0")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            outcome,
            head: None,
        };
        let standing = |val_accuracy, val_loss, best_epoch| {
            Outcome::Trained(Standing {
                val_accuracy,
                val_accuracy_interval: [0.5, 1.0],
                val_loss,
                calibrated_val_loss: None,
                train_accuracy: 1.0,
                train_loss: 0.0,
                best_epoch,
                epochs: 25,
                converged: None,
            })
        };
        let problem = "training diverged in epoch 3".to_owned();
        let entries = vec![
            entry(
                0,
                "1e9",
                Outcome::Failed {
                    problem,
                    diverged: true,
                },
            ),
            entry(1, "0.1", standing(0.9, 12_345_678.9, 4)),
            entry(2, "0.25", standing(0.95, 0.25, 12)),
            entry(3, "0.5", Outcome::NotTrained),
        ];
        let board = Leaderboard::new(vec!["lr".to_owned(), "seed".to_owned()], entries);
        let expected = [
            "  rank    lr  val acc   95% interval  val loss  epoch",
            "     1  0.25   0.9500  0.5000-1.0000    0.2500     12",
            "     2   0.1   0.9000  0.5000-1.0000     1.2e7      4",
            "failed   1e9  training diverged in epoch 3",
        ];
        assert_eq!(table(&board, 20), expected);
        let first = table(&board, 1);
        assert_eq!(first, expected[..2].iter().map(|line| &line[2..]).collect::<Vec<_>>());
    }
}
