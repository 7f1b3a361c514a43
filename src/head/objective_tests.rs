#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::training::Examples;
use super::*;
use crate::Quiet;

/// Asks for an end after it was asked so often.
pub(in crate::head) struct Countdown {
    after: usize,
    asked: AtomicUsize,
}

impl Countdown {
    pub(in crate::head) fn new(after: usize) -> Self {
        Self {
            after,
            asked: AtomicUsize::new(0),
        }
    }

    pub(in crate::head) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Observer for Countdown {
    fn interrupted(&self) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed) >= self.after
    }
}

/// Positive, correlated features far from 0, and labels that have to do with them.
pub(in crate::head) fn made(rows: usize, dim: usize, classes: usize) -> (Array2<f32>, Vec<usize>) {
    let labels: Vec<usize> = (0..rows).map(|row| (row * 7919 % 1013) % classes).collect();
    let features = Array2::from_shape_fn((rows, dim), |(row, column)| {
        let noise = ((row * 7919 + column * 104_729) % 1009) as f32 / 1009.0;
        let shared = ((row * 31) % 17) as f32 / 17.0 * (1.0 + (column % 5) as f32);
        let class = if column % classes == labels[row] { 0.4 } else { 0.0 };
        (noise + shared + class - 0.6).max(0.0)
    });
    (features, labels)
}

fn weights(rows: usize) -> Vec<f64> {
    (0..rows).map(|row| (row % 5) as f64 * 0.5).collect()
}

fn parameters(classes: usize, dim: usize) -> Parameters {
    Parameters {
        weight: Array2::from_shape_fn((classes, dim), |(class, column)| {
            ((class * 13 + column * 7) as f64).sin()
        }),
        offset: Array1::from_shape_fn(classes, |class| (class as f64).cos()),
    }
}

/// The formula of the module's documentation, row by row, on the rows as they are.
fn plain(features: &Array2<f32>, labels: &[usize], weights: &[f64], smoothing: f64, c: f64, head: &Parameters) -> f64 {
    let classes = head.offset.len();
    let mut sum = 0.0;
    for ((row, &label), weight) in features.rows().into_iter().zip(labels).zip(weights) {
        let logits: Vec<f64> = head
            .weight
            .rows()
            .into_iter()
            .zip(&head.offset)
            .map(|(w, bias)| bias + w.iter().zip(row).map(|(w, &x)| w * f64::from(x)).sum::<f64>())
            .collect();
        let total = logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
        for (class, logit) in logits.iter().enumerate() {
            let target = smoothing / classes as f64 + if class == label { 1.0 - smoothing } else { 0.0 };
            sum += weight * target * (total - logit);
        }
    }
    let norm: f64 = head.weight.iter().map(|weight| weight * weight).sum();
    let norm = if classes == 2 { 2.0 * norm } else { norm };
    (sum + 0.5 * norm / c) / weights.iter().sum::<f64>()
}

#[test]
fn the_value_is_the_formula() {
    for (classes, smoothing) in [(3, 0.0), (5, 0.1), (2, 0.0), (2, 0.2)] {
        let (rows, dim) = (70, 6);
        let (features, labels) = made(rows, dim, classes);
        let task = TrainingTask::new(classes, Examples::new(features.view(), &labels).unwrap()).unwrap();
        let weights = weights(rows);
        let objective = Objective::new(&task, &weights, smoothing, 0.7).unwrap();
        let at = parameters(classes, dim);
        let value = objective.evaluate(&at, Products::Double, &Quiet).unwrap().value;
        let mut head = at.clone();
        for (bias, weight) in head.offset.iter_mut().zip(at.weight.rows()) {
            *bias -= weight.dot(&aview1(&objective.centre));
        }
        let expected = plain(&features, &labels, &weights, smoothing, 0.7, &head);
        assert!((value - expected).abs() < 1e-13 * expected, "{value} {expected}");
    }
}

#[test]
fn the_gradient_is_the_difference_quotient() {
    let (rows, dim, classes) = (600, 6, 4);
    let (features, labels) = made(rows, dim, classes);
    let task = TrainingTask::new(classes, Examples::new(features.view(), &labels).unwrap()).unwrap();
    for smoothing in [0.0, 0.3] {
        let objective = Objective::new(&task, &weights(rows), smoothing, 0.01).unwrap();
        let at = parameters(classes, dim);
        let gradient = objective.evaluate(&at, Products::Double, &Quiet).unwrap().gradient;
        let step = 1e-5;
        let value = |change: &dyn Fn(&mut Parameters, f64)| {
            let ends = [step, -step].map(|step| {
                let mut at = at.clone();
                change(&mut at, step);
                objective.evaluate(&at, Products::Double, &Quiet).unwrap().value
            });
            (ends[0] - ends[1]) / (2.0 * step)
        };
        for class in 0..classes {
            for column in 0..dim {
                let expected = value(&|at, step| at.weight[[class, column]] += step);
                assert!((gradient.weight[[class, column]] - expected).abs() < 1e-8);
            }
            let expected = value(&|at, step| at.offset[class] += step);
            assert!((gradient.offset[class] - expected).abs() < 1e-8);
        }
    }
}

#[test]
fn the_norm_is_that_of_the_uncentred_gradient() {
    let (rows, dim, classes) = (50, 3, 3);
    let (features, labels) = made(rows, dim, classes);
    let task = TrainingTask::new(classes, Examples::new(features.view(), &labels).unwrap()).unwrap();
    let objective = Objective::new(&task, &vec![1.0; rows], 0.0, 1.0).unwrap();
    let at = parameters(classes, dim);
    let norm = objective.gradient_norm(&objective.evaluate(&at, Products::Double, &Quiet).unwrap().gradient);
    let mut expected = 0.0_f64;
    let mut head = at.clone();
    for (bias, weight) in head.offset.iter_mut().zip(at.weight.rows()) {
        *bias -= weight.dot(&aview1(&objective.centre));
    }
    for class in 0..classes {
        for column in 0..=dim {
            let ends = [1e-6, -1e-6].map(|step| {
                let mut head = head.clone();
                if column == dim {
                    head.offset[class] += step;
                } else {
                    head.weight[[class, column]] += step;
                }
                plain(&features, &labels, &vec![1.0; rows], 0.0, 1.0, &head)
            });
            expected = expected.max(((ends[0] - ends[1]) / 2e-6).abs());
        }
    }
    assert!((norm - expected).abs() < 1e-8, "{norm} {expected}");
}

#[test]
fn single_products_are_near_to_double_ones() {
    let (rows, dim, classes) = (3000, 40, 7);
    let (features, labels) = made(rows, dim, classes);
    let task = TrainingTask::new(classes, Examples::new(features.view(), &labels).unwrap()).unwrap();
    let objective = Objective::new(&task, &weights(rows), 0.1, 1.0).unwrap();
    let at = parameters(classes, dim);
    let [single, double] =
        [Products::Single, Products::Double].map(|products| objective.evaluate(&at, products, &Quiet).unwrap());
    assert!((single.value - double.value).abs() < 1e-7 * double.value);
    // Gradients here are about 1.
    let largest = |difference: f64, errors: Array1<f64>| errors.iter().fold(difference, |a, b| a.max(b.abs()));
    let weight = (&single.gradient.weight - &double.gradient.weight)
        .into_iter()
        .collect();
    let error = largest(largest(0.0, weight), &single.gradient.offset - &double.gradient.offset);
    assert!(error < 1e-6, "{error}");
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() {
    let (rows, dim, classes) = (9001, 20, 11);
    let (features, labels) = made(rows, dim, classes);
    let task = TrainingTask::new(classes, Examples::new(features.view(), &labels).unwrap()).unwrap();
    let at = parameters(classes, dim);
    let results = [1, 2, 8].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let objective = Objective::new(&task, &weights(rows), 0.0, 1.0).unwrap();
            assert!(objective.rows_of_a_part() < rows / 10);
            let of = |products| {
                let evaluation = objective.evaluate(&at, products, &Quiet).unwrap();
                (evaluation.value, evaluation.gradient)
            };
            (
                of(Products::Single),
                of(Products::Double),
                objective.curvature(&at, 4000),
                objective.curvatures(&at, 4000),
            )
        })
    });
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0], results[2]);
}

#[test]
fn views_stand_in_for_the_rows_and_each_counts_as_a_part() {
    let (features, labels) = made(40, 5, 3);
    let other = features.mapv(|value| value * 1.5);
    let examples = || Examples::new(features.view(), &labels).unwrap();
    let task = TrainingTask::new(3, examples()).unwrap();
    let viewed = TrainingTask::new(3, examples()).unwrap();
    let viewed = viewed.with_views(vec![features.view(), other.view()]).unwrap();
    let alone = TrainingTask::new(3, Examples::new(other.view(), &labels).unwrap()).unwrap();
    let value = |task: &TrainingTask<'_>| {
        let objective = Objective::new(task, &weights(40), 0.0, 0.5).unwrap();
        let head = LinearHead::uniform(3, 5, 1).unwrap();
        objective
            .evaluate(&objective.parameters_of(&head), Products::Double, &Quiet)
            .unwrap()
            .value
    };
    assert!((value(&viewed) - (value(&task) + value(&alone)) / 2.0).abs() < 1e-12);
}

#[test]
fn weights_that_make_no_sense_are_refused() {
    let (features, labels) = made(4, 3, 2);
    let task = TrainingTask::new(2, Examples::new(features.view(), &labels).unwrap()).unwrap();
    for weights in [
        [0.0; 4],
        [1.0, -1.0, 1.0, 1.0],
        [f64::NAN, 1.0, 1.0, 1.0],
        [f64::INFINITY; 4],
    ] {
        assert!(matches!(
            Objective::new(&task, &weights, 0.0, 1.0),
            Err(Error::Examples(_))
        ));
    }
}

#[test]
fn the_curvature_is_the_second_difference_averaged_over_classes() {
    let (rows, dim, classes) = (90, 4, 3);
    let (features, labels) = made(rows, dim, classes);
    let task = TrainingTask::new(classes, Examples::new(features.view(), &labels).unwrap()).unwrap();
    let objective = Objective::new(&task, &weights(rows), 0.0, 0.1).unwrap();
    let at = parameters(classes, dim);
    let curvature = objective.curvature(&at, rows);
    for (column, at_column) in objective.curvatures(&at, rows).iter().enumerate() {
        assert!((curvature[[column, column]] / at_column - 1.0).abs() < 1e-5);
        let step = 1e-4;
        let mut mean = 0.0;
        for class in 0..classes {
            let slope = |step: f64| {
                let mut at = at.clone();
                match column {
                    column if column == dim => at.offset[class] += step,
                    column => at.weight[[class, column]] += step,
                }
                let gradient = objective.evaluate(&at, Products::Double, &Quiet).unwrap().gradient;
                match column {
                    column if column == dim => gradient.offset[class],
                    column => gradient.weight[[class, column]],
                }
            };
            mean += (slope(step) - slope(-step)) / (2.0 * step) / classes as f64;
        }
        assert!((mean / at_column - 1.0).abs() < 1e-5, "{column}: {mean} {at_column}");
    }
}

#[test]
fn an_interruption_is_heard_between_blocks_of_rows() {
    let (features, labels) = made(12 * BLOCK, 3, 2);
    let task = TrainingTask::new(2, Examples::new(features.view(), &labels).unwrap()).unwrap();
    let objective = Objective::new(&task, &vec![1.0; 12 * BLOCK], 0.0, 1.0).unwrap();
    let at = objective.parameters_of(&LinearHead::uniform(2, 3, 0).unwrap());
    for products in [Products::Single, Products::Double] {
        for (after, ends) in [(0, true), (11, true), (12, false)] {
            let stop = Countdown::new(after);
            let ended = objective.evaluate(&at, products, &stop);
            assert_eq!(matches!(ended, Err(Error::Interrupted)), ends, "{after}");
        }
    }
}
