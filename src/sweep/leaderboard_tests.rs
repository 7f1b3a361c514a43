#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::metrics::wilson;

fn trained(number: usize, lr: &str, val_accuracy: f64, val_loss: f64) -> Entry {
    Entry {
        rank: None,
        number,
        settings: vec![
            ("lr".to_owned(), lr.to_owned()),
            ("solver".to_owned(), "sgd".to_owned()),
        ],
        outcome: Outcome::Trained(Standing {
            val_accuracy,
            val_accuracy_interval: wilson((val_accuracy * 10.0) as usize, 10),
            val_loss,
            calibrated_val_loss: None,
            train_accuracy: 1.0,
            train_loss: 0.1,
            best_epoch: 3,
            epochs: 25,
            converged: None,
        }),
        head: None,
    }
}

fn failed(number: usize) -> Entry {
    Entry {
        outcome: Outcome::Failed {
            problem: "training diverged, badly".to_owned(),
            diverged: true,
        },
        ..trained(number, "1e6", 0.0, 0.0)
    }
}

fn board() -> Leaderboard {
    let entries = vec![
        failed(0),
        trained(1, "0.1", 0.9, 0.3),
        trained(2, "0.2", 0.9, 0.2),
        trained(3, "0.3", 0.5, 0.1),
        trained(4, "0.4", 0.9, 0.2),
        failed(5),
    ];
    Leaderboard::new(vec!["lr".to_owned(), "solver".to_owned()], entries)
}

#[test]
fn accuracy_ranks_then_loss_then_order_and_failures_are_last() {
    let board = board();
    let order: Vec<_> = board.entries.iter().map(|entry| (entry.number, entry.rank)).collect();
    assert_eq!(
        order,
        [
            (2, Some(1)),
            (4, Some(2)),
            (1, Some(3)),
            (3, Some(4)),
            (0, None),
            (5, None)
        ]
    );
    assert_eq!(board.best().unwrap().number, 2);
    assert_eq!(board.varying(), ["lr"]);
    assert!(Leaderboard::new(Vec::new(), vec![failed(0)]).best().is_none());
}

#[test]
fn an_axis_that_only_some_have_varies() {
    let mut other = trained(1, "0.1", 0.5, 0.5);
    other.settings.pop();
    let axes = ["lr", "solver"].map(str::to_owned).to_vec();
    let board = Leaderboard::new(axes, vec![trained(0, "0.1", 0.5, 0.5), other]);
    assert_eq!(board.varying(), ["solver"]);
}

#[test]
fn the_files_say_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (csv, json) = (folder.path().join("board.csv"), folder.path().join("board.JSON"));
    let mut board = board();
    board.entries[0].head = Some(PathBuf::from("head.safetensors"));
    board.write(&csv).unwrap();
    board.write(&json).unwrap();
    let json: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let mut reader = csv::Reader::from_path(csv).unwrap();
    let header = reader.headers().unwrap().clone();
    let expected = "rank,status,lr,solver,val_accuracy,val_accuracy_low,val_accuracy_high,val_loss,calibrated_val_loss,train_accuracy,\
                    train_loss,best_epoch,epochs,converged,problem,head";
    assert_eq!(header.iter().collect::<Vec<_>>().join(","), expected);
    let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 6);
    assert_eq!(json.as_array().unwrap().len(), 6);
    let cell = |row: usize, name: &str| {
        let column = header.iter().position(|column| column == name).unwrap();
        rows[row][column].to_owned()
    };
    assert_eq!(json[0]["settings"], serde_json::json!({"lr": 0.2, "solver": "sgd"}));
    for row in 0..6 {
        assert_eq!(
            cell(row, "lr"),
            json[row]["settings"]["lr"].to_string().replace("1000000.0", "1e6")
        );
        for name in ["rank", "val_accuracy", "val_loss", "best_epoch"] {
            let value = json[row].get(name).filter(|value| !value.is_null());
            assert_eq!(cell(row, name), value.map_or_else(String::new, Value::to_string));
        }
    }
    let low: f64 = cell(0, "val_accuracy_low").parse().unwrap();
    assert_eq!(json[0]["val_accuracy_interval"][0], low);
    assert_eq!(cell(0, "head"), "head.safetensors");
    assert_eq!(cell(5, "problem"), "training diverged, badly");
    assert_eq!(json[5]["status"], "failed");
}

#[test]
fn another_ending_is_refused() {
    let error = board().write(Path::new("board.txt")).unwrap_err();
    assert!(error.to_string().contains("board.txt"), "{error}");
    assert_eq!(error.kind(), crate::error::ErrorKind::Usage);
}
