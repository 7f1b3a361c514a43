#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

/// A value that each option may have.
pub(in crate::cli::train_head) fn example(name: &str) -> &'static str {
    match name {
        "solver" => "adamw",
        "class-weights" => "cat=2.5,dog=1",
        "standardize" | "nesterov" | "cycle-momentum" => "false",
        "sampling" => "balanced",
        "schedule" => "one-cycle",
        "milestones" => "5,10",
        "seed" | "epochs" | "batch-size" | "patience" | "warm-up" | "step-size" | "cosine-epochs"
        | "plateau-patience" | "plateau-cooldown" | "max-iterations" => "3",
        _ => "0.25",
    }
}

#[test]
fn every_option_is_given_back_as_it_was_written() {
    let mut parser = PairParser::new();
    let names: Vec<String> = parser.names().into_iter().map(str::to_owned).collect();
    assert!(names.len() > 35 && names.contains(&"C".to_owned()), "{names:?}");
    for name in &names {
        let value = example(name);
        let read = parser.parse(name, value).unwrap();
        let given: Vec<(String, String)> = read
            .given()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        assert_eq!(given, [(name.clone(), value.to_owned())]);
        assert_eq!(read.clone().over(&TrainingArguments::default()), read);
        assert_eq!(TrainingArguments::default().over(&read), read);
    }
}

#[test]
fn what_lies_above_wins() {
    let mut parser = PairParser::new();
    let (low, high) = (parser.parse("lr", "0.1").unwrap(), parser.parse("lr", "0.2").unwrap());
    let seed = parser.parse("seed", "7").unwrap();
    let all = high.over(&seed.over(&low));
    assert_eq!(all.given(), [("seed", "7".to_owned()), ("lr", "0.2".to_owned())]);
}

#[test]
fn values_an_option_cannot_have_are_refused_in_one_line() {
    let mut parser = PairParser::new();
    for (name, value, words) in [
        ("lr", "fast", vec!["'fast'", "'--lr <LR>'"]),
        ("solver", "newton", vec!["'newton'", "sgd, adamw, lbfgs, linfa"]),
        ("epochs", "1.5", vec!["'1.5'", "--epochs"]),
        ("milestones", "5,x", vec!["`x` is no epoch"]),
        ("class-weights", "most", vec!["neither `balanced`"]),
        ("class-weights", "cat=much", vec!["`much` of `cat` is no number"]),
    ] {
        let said = parser.parse(name, value).unwrap_err().to_string();
        assert!(!said.contains('\n') && !said.starts_with("error"), "{said}");
        for word in words {
            assert!(said.contains(word), "no {word} in: {said}");
        }
    }
}
