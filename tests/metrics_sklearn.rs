//! Every number of a report against `sklearn.metrics`: `tests/fixtures/make_metrics.py` wrote what it says.
#![expect(clippy::unwrap_used, reason = "tests")]

use lastlayer::metrics::{Report, fit_temperature};
use ndarray::Array2;
use serde_json::Value;

/// Relative to the number where that is above 1; both sides compute in f64 and sum in orders of their own.
const TOLERANCE: f64 = 1e-9;

/// The made cases by name, each with its logits and labels.
fn cases() -> Vec<(String, Value, Array2<f64>, Vec<usize>)> {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/metrics.json")).unwrap();
    let fixture = fixture.as_object().unwrap().clone();
    assert_eq!(fixture.len(), 15);
    let parse = |(name, case): (String, Value)| {
        let rows: Vec<Vec<f64>> = serde_json::from_value(case["logits"].clone()).unwrap();
        let labels = serde_json::from_value(case["labels"].clone()).unwrap();
        let logits = Array2::from_shape_vec((rows.len(), rows[0].len()), rows.concat()).unwrap();
        (name, case, logits, labels)
    };
    fixture.into_iter().map(parse).collect()
}

fn report(case: &Value, logits: &Array2<f64>, labels: &[usize]) -> Value {
    let names: Vec<String> = (0..logits.ncols()).map(|class| format!("class {class}")).collect();
    let report = Report::of(logits.view(), labels, &names, case["temperature"].as_f64().unwrap()).unwrap();
    serde_json::to_value(report).unwrap()
}

#[track_caller]
fn assert_close(told: &str, got: &Value, expected: &Value) {
    match (got, expected) {
        (Value::Array(got), Value::Array(expected)) => {
            assert_eq!(got.len(), expected.len(), "{told}");
            for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
                assert_close(&format!("{told}[{index}]"), got, expected);
            }
        }
        (Value::Number(got), Value::Number(expected)) => {
            let (got, expected) = (got.as_f64().unwrap(), expected.as_f64().unwrap());
            let error = (got - expected).abs() / expected.abs().max(1.0);
            assert!(error <= TOLERANCE, "{told} is {got}, scikit-learn has {expected}");
        }
        _ => assert_eq!(got, expected, "{told}"),
    }
}

#[test]
fn every_number_of_a_report_is_scikit_learns() {
    for (name, case, logits, labels) in cases() {
        let report = report(&case, &logits, &labels);
        let expected = case["expected"].as_object().unwrap();
        assert_eq!(expected.len(), 24);
        for (key, expected) in expected {
            let told = format!("{name}: {key}");
            match key.as_str() {
                "precision" | "recall" | "f1" | "support" => {
                    let classes = report["per_class"].as_array().unwrap();
                    let got = classes.iter().map(|class| class[key].clone()).collect();
                    assert_close(&told, &Value::Array(got), expected);
                }
                "top_k" => {
                    let ranks = report[key].as_array().unwrap();
                    assert!(ranks.iter().enumerate().all(|(index, rank)| rank["k"] == index + 1));
                    let got = ranks.iter().map(|rank| rank["accuracy"].clone()).collect();
                    assert_close(&told, &Value::Array(got), expected);
                    assert_eq!(ranks[0]["accuracy"], report["accuracy"]);
                    assert_eq!(ranks[0]["interval"], report["accuracy_interval"]);
                }
                "uncalibrated" => {
                    for (key, expected) in expected.as_object().unwrap() {
                        assert_close(&format!("{told}.{key}"), &report["uncalibrated"][key], expected);
                    }
                }
                key => assert_close(&told, &report[key], expected),
            }
        }
        let bins = report["calibration_bins"].as_array().unwrap();
        let count = bins.iter().map(|bin| bin["images"].as_u64().unwrap()).sum::<u64>();
        assert_eq!(count, labels.len() as u64, "{name}: each row is in one bin");
    }
}

#[test]
fn the_best_temperature_is_the_zero_that_scipy_finds() {
    let mut minima = 0;
    for (name, case, logits, labels) in cases() {
        let fit = serde_json::to_value(fit_temperature(logits.view(), &labels).unwrap()).unwrap();
        assert_eq!(fit["fitted"], case["fit"]["fitted"], "{name}");
        let number = |value: &Value| value.as_f64().unwrap();
        let (got, expected) = (number(&fit["temperature"]), number(&case["fit"]["temperature"]));
        assert!(
            (got / expected - 1.0).abs() < TOLERANCE,
            "{name}: {got}, SciPy has {expected}"
        );
        assert!(
            number(&fit["loss_after"]) <= number(&fit["loss_before"]),
            "{name}: {fit}"
        );
        assert_close(&name, &fit["loss_before"], &case["expected"]["uncalibrated"]["loss"]);
        minima += usize::from(fit["fitted"] == "minimum");
    }
    assert!(minima >= 8, "most cases have a minimum");
}
