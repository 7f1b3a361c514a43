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
    let heading = std::iter::once("rank")
        .chain(varying.iter().copied())
        .chain(results.iter().copied());
    let mut rows: Vec<Vec<String>> = vec![heading.map(str::to_owned).collect()];
    rows.extend(board.entries.iter().take(top).map(|entry| row(entry, &varying)));
    let columns = rows[0].len();
    // What failed fills its line with a reason that no column is made wider for.
    let width = |column: usize| {
        let whole = rows.iter().filter(|row| row.len() == columns);
        whole.map(|row| row[column].chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn row(entry: &Entry, varying: &[&str]) -> Vec<String> {
    let rank = entry.rank.map_or_else(|| "-".to_owned(), |rank| rank.to_string());
    let settings = varying.iter().map(|axis| entry.setting(axis).unwrap_or("-").to_owned());
    let results = match &entry.outcome {
        Outcome::Trained(standing) => vec![
            format!("{:.4}", standing.val_accuracy),
            interval(standing.val_accuracy_interval),
            format!("{:.4}", standing.val_loss),
            standing.best_epoch.to_string(),
        ],
        Outcome::CrossValidated(folds) => vec![
            format!("{:.4}", folds.mean_accuracy),
            format!("{:.4}", folds.standard_error),
            interval(folds.accuracy_interval),
            format!("{:.4}", folds.mean_loss),
        ],
        // Fewer cells than columns: nothing stands below.
        Outcome::Failed { problem } => vec![problem.clone()],
    };
    std::iter::once(rank).chain(settings).chain(results).collect()
}

fn interval([low, high]: [f64; 2]) -> String {
    format!("{low:.4}-{high:.4}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::Standing;

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
        let standing = |val_accuracy, best_epoch| {
            Outcome::Trained(Standing {
                val_accuracy,
                val_accuracy_interval: [0.5, 1.0],
                val_loss: 0.25,
                train_accuracy: 1.0,
                train_loss: 0.0,
                best_epoch,
                epochs: 25,
                converged: None,
            })
        };
        let problem = "training diverged in epoch 3".to_owned();
        let entries = vec![
            entry(0, "1e9", Outcome::Failed { problem }),
            entry(1, "0.1", standing(0.9, 4)),
            entry(2, "0.25", standing(0.95, 12)),
        ];
        let board = Leaderboard::new(vec!["lr".to_owned(), "seed".to_owned()], entries);
        let expected = [
            "rank    lr  val acc   95% interval  val loss  epoch",
            "   1  0.25   0.9500  0.5000-1.0000    0.2500     12",
            "   2   0.1   0.9000  0.5000-1.0000    0.2500      4",
            "   -   1e9  training diverged in epoch 3",
        ];
        assert_eq!(table(&board, 20), expected);
        assert_eq!(table(&board, 1), expected[..2]);
    }
}
