//! A training's epochs as CSV.

use std::fmt::Write as _;

use crate::head::EpochRecord;

const HEADER: &str = "epoch,lr,train_loss,train_accuracy,val_loss,val_accuracy";

/// One line for each epoch; numbers read back to the same bits, what was not measured is empty.
pub(super) fn to_csv(history: &[EpochRecord]) -> String {
    let mut text = format!("{HEADER}\n");
    let optional = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    for record in history {
        let line = writeln!(
            text,
            "{},{},{},{},{},{}",
            record.epoch,
            record.learning_rate,
            record.train_loss,
            record.train_accuracy,
            optional(record.val_loss),
            optional(record.val_accuracy)
        );
        line.expect("a string takes all that is written to it");
    }
    text
}

/// Reads what [`to_csv`] wrote; `None` for any other text.
pub(super) fn parse_csv(text: &str) -> Option<Vec<EpochRecord>> {
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        return None;
    }
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let [epoch, rate, train_loss, train_accuracy, val_loss, val_accuracy] = fields[..] else {
            return None;
        };
        let optional = |text: &str| match text {
            "" => Some(None),
            text => text.parse().ok().map(Some),
        };
        Some(EpochRecord {
            epoch: epoch.parse().ok()?,
            learning_rate: rate.parse().ok()?,
            train_loss: train_loss.parse().ok()?,
            train_accuracy: train_accuracy.parse().ok()?,
            val_loss: optional(val_loss)?,
            val_accuracy: optional(val_accuracy)?,
        })
    };
    lines.map(parse).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_not_measured_is_empty() {
        let record = EpochRecord {
            epoch: 3,
            learning_rate: 1e-3,
            train_loss: 0.5,
            train_accuracy: 1.0,
            val_loss: None,
            val_accuracy: None,
        };
        let text = to_csv(std::slice::from_ref(&record));
        assert_eq!(
            text,
            "epoch,lr,train_loss,train_accuracy,val_loss,val_accuracy\n3,0.001,0.5,1,,\n"
        );
        assert_eq!(parse_csv(&text), Some(vec![record]));
        for other in ["", "epoch\n", &text.replace("0.5", "x"), &text.replace(",,", ",")] {
            assert_eq!(parse_csv(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[-0-9.,eNainf\\n\\r]{0,60}") {
            let _ = parse_csv(&format!("{HEADER}\n{text}"));
        }

        #[test]
        fn numbers_come_back_to_the_bit(bits in any::<u64>(), loss in 0.0..1e6_f64, val in proptest::option::of(0.0..1.0_f64)) {
            let rate = f64::from_bits(bits);
            prop_assume!(rate.is_finite());
            let record = EpochRecord {
                epoch: 0,
                learning_rate: rate,
                train_loss: loss,
                train_accuracy: loss / 3e6,
                val_loss: val,
                val_accuracy: val,
            };
            let read = parse_csv(&to_csv(std::slice::from_ref(&record)));
            prop_assert_eq!(read, Some(vec![record]));
        }
    }
}
