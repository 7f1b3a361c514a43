//! Every option of SGD against PyTorch, on a made problem: `tests/fixtures/make_sgd_traces.py` wrote the numbers.
#![expect(clippy::unwrap_used, reason = "tests")]

use lastlayer::{Descent, Examples, LinearHead, Quiet, Recipe, Schedule, StepLr, TrainingTask, Update};
use ndarray::{Array1, Array2};
use serde_json::Value;

/// The script's `sequence`.
fn sequence(start: u32, count: usize) -> Vec<f32> {
    let number = |index: u32| {
        let low = index.wrapping_mul(2_654_435_761);
        ((f64::from(low) / 2_f64.powi(32) - 0.5) * 2.0) as f32
    };
    (start..).take(count).map(number).collect()
}

#[test]
fn every_option_of_sgd_gives_pytorchs_weights_and_losses() {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/sgd_traces.json")).unwrap();
    let count = |key: &str| usize::try_from(fixture[key].as_u64().unwrap()).unwrap();
    let (rows, dim, classes, epochs) = (count("rows"), count("dim"), count("classes"), count("epochs"));
    let labels: Vec<usize> = (0..rows).map(|row| row % classes).collect();
    let mut features = Array2::from_shape_vec((rows, dim), sequence(0, rows * dim)).unwrap();
    for (row, label) in labels.iter().enumerate() {
        features[[row, *label]] += 0.5;
    }
    let weight = Array2::from_shape_vec((classes, dim), sequence(100_000, classes * dim)).unwrap() * 0.25;
    let bias = Array1::from(sequence(200_000, classes)) * 0.25;
    let order: Vec<Vec<usize>> = (0..epochs)
        .map(|epoch| (0..rows).map(|row| (7 * row + 11 * epoch) % rows).collect())
        .collect();

    let traces = fixture["traces"].as_object().unwrap();
    assert_eq!(traces.len(), 6);
    for (name, trace) in traces {
        let options = &trace["options"];
        let option = |key: &str| options[key].as_f64().unwrap_or(0.0);
        let recipe = Recipe::from(Descent {
            epochs,
            batch_size: count("batch_size"),
            learning_rate: option("lr"),
            weight_decay: option("weight_decay"),
            update: Update::Sgd {
                momentum: option("momentum"),
                dampening: option("dampening"),
                nesterov: options["nesterov"].as_bool().unwrap_or(false),
            },
            schedule: Schedule::Step(StepLr {
                step_size: count("step_size"),
                gamma: fixture["gamma"].as_f64().unwrap(),
            }),
            ..Descent::sgd()
        });
        let task = TrainingTask::new(classes, Examples::new(features.view(), &labels).unwrap())
            .and_then(|task| task.with_initial_head(LinearHead::new(weight.clone(), bias.clone())?))
            .and_then(|task| task.with_order(&order))
            .unwrap();
        let training = recipe.check().unwrap().train(&task, &Quiet, &mut |_| ()).unwrap();

        let head = &training.final_head;
        let trained = head
            .weight()
            .iter()
            .chain(head.bias())
            .map(|value| f64::from(*value))
            .collect::<Vec<_>>();
        let losses = training
            .history
            .iter()
            .map(|record| record.train_loss)
            .collect::<Vec<_>>();
        let numbers = |key: &str| {
            trace[key]
                .as_array()
                .unwrap()
                .iter()
                .map(|number| number.as_f64().unwrap())
        };
        let expected: Vec<f64> = numbers("weight").chain(numbers("bias")).collect();
        // Two f32 programs that sum in different orders: PyTorch's own f32 and f64 end within 1e-6 of each other here.
        assert_close(name, &trained, &expected, 2e-6);
        assert_close(name, &losses, &numbers("losses").collect::<Vec<_>>(), 1e-6);
    }
}

fn assert_close(name: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{name}");
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!(
            (got - expected).abs() < tolerance,
            "{name}: number {index} is {got}, PyTorch has {expected}"
        );
    }
}
