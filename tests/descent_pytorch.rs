//! The other options of gradient descent against PyTorch: `tests/fixtures/make_descent_traces.py` wrote the numbers.
//!
//! What a weighted or smoothed loss changes is seen in the head; an epoch's record has the plain loss, which is compared too.
#![expect(clippy::unwrap_used, reason = "tests")]

use lastlayer::{Examples, LinearHead, Quiet, Recipe, Training, TrainingTask};
use ndarray::{Array1, Array2};
use serde_json::Value;

/// PyTorch in f32 ends within 1.3e-6 of PyTorch in f64 here, weights and losses; we may be as far on the other side.
const TOLERANCE: f64 = 3e-6;

/// The script's `sequence`.
fn sequence(start: u32, count: usize) -> Vec<f32> {
    let number = |index: u32| {
        let low = index.wrapping_mul(2_654_435_761);
        ((f64::from(low) / 2_f64.powi(32) - 0.5) * 2.0) as f32
    };
    (start..).take(count).map(number).collect()
}

/// The script's `examples`.
fn examples(start: u32, rows: usize, dim: usize, labels: &[usize]) -> (Array2<f32>, Vec<usize>) {
    let labels: Vec<usize> = labels.iter().copied().cycle().take(rows).collect();
    let mut features = Array2::from_shape_vec((rows, dim), sequence(start, rows * dim)).unwrap();
    for (row, label) in labels.iter().enumerate() {
        features[[row, *label]] += 0.5;
    }
    (features, labels)
}

/// Trains as a trace was made.
fn retrain(fixture: &Value, recipe: Recipe, weighted: bool) -> Training {
    let count = |key: &str| usize::try_from(fixture[key].as_u64().unwrap()).unwrap();
    let (rows, dim, classes, epochs) = (count("rows"), count("dim"), count("classes"), count("epochs"));
    let pattern: Vec<usize> = serde_json::from_value(fixture["labels"].clone()).unwrap();
    let (features, labels) = examples(0, rows, dim, &pattern);
    let (val_features, val_labels) = examples(300_000, count("validation"), dim, &pattern);
    let weight = Array2::from_shape_vec((classes, dim), sequence(100_000, classes * dim)).unwrap() * 0.25;
    let bias = Array1::from(sequence(200_000, classes)) * 0.25;
    let order: Vec<Vec<usize>> = (0..epochs)
        .map(|epoch| (0..rows).map(|row| (7 * row + 11 * epoch) % rows).collect())
        .collect();
    let sample_weights: Vec<f64> = sequence(400_000, rows)
        .iter()
        .map(|value| f64::from(value + 1.5))
        .collect();

    let mut task = TrainingTask::new(classes, Examples::new(features.view(), &labels).unwrap())
        .and_then(|task| task.with_validation(Examples::new(val_features.view(), &val_labels)?))
        .and_then(|task| task.with_initial_head(LinearHead::new(weight, bias)?))
        .and_then(|task| task.with_order(&order))
        .unwrap();
    if weighted {
        task = task.with_sample_weights(&sample_weights).unwrap();
    }
    recipe.check().unwrap().train(&task, &Quiet, &mut |_| ()).unwrap()
}

#[test]
fn every_option_of_descent_gives_pytorchs_heads_and_losses() {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/descent_traces.json")).unwrap();
    let traces = fixture["traces"].as_object().unwrap();
    assert_eq!(traces.len(), 20);
    for (name, trace) in traces {
        let recipe: Recipe = serde_json::from_value(trace["recipe"].clone()).unwrap();
        let training = retrain(&fixture, recipe, trace["sample_weights"].as_bool().unwrap());
        let numbers = |key: &str| serde_json::from_value::<Vec<f64>>(trace[key].clone()).unwrap();
        let of_history = |number: fn(&lastlayer::EpochRecord) -> f64| training.history.iter().map(number).collect();

        let head = &training.final_head;
        let weight: Vec<f64> = head.weight().iter().copied().map(f64::from).collect();
        let bias: Vec<f64> = head.bias().iter().copied().map(f64::from).collect();
        let rates: Vec<f64> = of_history(|record| record.learning_rate);
        let losses: Vec<f64> = of_history(|record| record.train_loss);
        let val_losses: Vec<f64> = of_history(|record| record.val_loss.unwrap());
        // The cosines of two systems' libraries may differ in the last bit.
        assert_close(name, "rate", &rates, &numbers("rates"), 1e-15);
        assert_close(name, "weight", &weight, &numbers("weight"), TOLERANCE);
        assert_close(name, "bias", &bias, &numbers("bias"), TOLERANCE);
        assert_close(name, "loss", &losses, &numbers("losses"), TOLERANCE);
        assert_close(name, "validation loss", &val_losses, &numbers("val_losses"), TOLERANCE);
    }
}

fn assert_close(name: &str, what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{name}");
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!(
            (got - expected).abs() < tolerance,
            "{name}: {what} {index} is {got}, PyTorch has {expected}"
        );
    }
}
