//! Every option of descent against a second implementation: PyTorch's documentation in f64, without any cleverness.

use ndarray::Array2;

use crate::head::recipe::{ClassWeights, Descent, Recipe, Update};
use crate::head::schedule::Schedule;
use crate::head::training::{Examples, TrainingTask};
use crate::head::{LinearHead, Training};
use crate::{Observer, Quiet};

const CLASSES: usize = 5;
const DIM: usize = 37;
const ROWS: usize = 30;

/// Numbers that look random: fractional parts of multiples of the golden ratio, in `-1..1`.
pub(super) fn scattered(rows: usize, columns: usize, seed: f64) -> Array2<f32> {
    Array2::from_shape_fn((rows, columns), |(i, j)| {
        (((i * columns + j) as f64 * 0.618_033_988_749_895 + seed).fract() * 2.0 - 1.0) as f32
    })
}

/// `cross_entropy(weight=w, label_smoothing=ε)` times sample weights, of logits.
fn loss(logits: &[Vec<f64>], labels: &[usize], weights: &[f64], smoothing: f64, samples: &[f64]) -> f64 {
    let (mut loss, mut total) = (0.0, 0.0);
    for ((logits, &label), sample) in logits.iter().zip(labels).zip(samples) {
        let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
        let surprise = |class: usize| weights[class] * -(logits[class].exp() / sum).ln();
        let smooth: f64 = (0..logits.len()).map(surprise).sum();
        loss += sample * ((1.0 - smoothing) * surprise(label) + smoothing / logits.len() as f64 * smooth);
        total += sample * weights[label];
    }
    loss / total
}

/// Its derivative by each logit, by central differences.
fn slopes(logits: &[Vec<f64>], loss: impl Fn(&[Vec<f64>]) -> f64) -> Vec<Vec<f64>> {
    let step = 1e-5;
    let mut logits = logits.to_vec();
    let mut slopes = logits.clone();
    for row in 0..logits.len() {
        for class in 0..logits[row].len() {
            let here = logits[row][class];
            let mut at = |logit: f64| {
                logits[row][class] = logit;
                loss(&logits)
            };
            slopes[row][class] = (at(here + step) - at(here - step)) / (2.0 * step);
            logits[row][class] = here;
        }
    }
    slopes
}

/// A parameter and what the optimiser remembers of it.
#[derive(Clone, Default)]
struct Parameter {
    value: f64,
    first: Option<f64>,
    second: f64,
}

impl Parameter {
    fn step(&mut self, options: &Descent, mut gradient: f64, number: i32) {
        let (rate, decay) = (options.learning_rate, options.weight_decay);
        match options.update {
            Update::Sgd {
                momentum,
                dampening,
                nesterov,
            } => {
                gradient += decay * self.value;
                if momentum != 0.0 {
                    let moved = match self.first {
                        None => gradient,
                        Some(first) => momentum * first + (1.0 - dampening) * gradient,
                    };
                    self.first = Some(moved);
                    gradient = if nesterov { gradient + momentum * moved } else { moved };
                }
                self.value -= rate * gradient;
            }
            Update::AdamW { beta1, beta2, epsilon } => {
                self.value -= rate * decay * self.value;
                let first = beta1 * self.first.unwrap_or(0.0) + (1.0 - beta1) * gradient;
                self.first = Some(first);
                self.second = beta2 * self.second + (1.0 - beta2) * gradient * gradient;
                let (mean, square) = (
                    first / (1.0 - beta1.powi(number)),
                    self.second / (1.0 - beta2.powi(number)),
                );
                self.value -= rate * mean / (square.sqrt() + epsilon);
            }
        }
    }
}

/// Trains with plain loops and returns weight and bias, by class.
fn plain(recipe: &Recipe, options: &Descent, x: &Array2<f32>, y: &[usize], samples: &[f64]) -> Vec<Vec<f64>> {
    let weights = match &recipe.class_weights {
        ClassWeights::Equal => vec![1.0; CLASSES],
        ClassWeights::Given(weights) => weights.clone(),
        ClassWeights::Balanced => (0..CLASSES)
            .map(|class| {
                let count = y.iter().filter(|&&label| label == class).count();
                y.len() as f64 / (CLASSES as f64 * count as f64)
            })
            .collect(),
    };
    let head = initial();
    let mut parameters: Vec<Vec<Parameter>> = (0..CLASSES)
        .map(|class| {
            let values = head
                .weight()
                .row(class)
                .to_vec()
                .into_iter()
                .chain([head.bias()[class]]);
            let parameter = |value: f32| Parameter {
                value: f64::from(value),
                ..Parameter::default()
            };
            values.map(parameter).collect()
        })
        .collect();
    let mut number = 0;
    for epoch in order(options.epochs) {
        for batch in epoch.chunks(options.batch_size) {
            number += 1;
            let input = |row: usize, column: usize| if column < DIM { f64::from(x[[row, column]]) } else { 1.0 };
            let logit = |row: usize, class: usize| -> f64 {
                (0..=DIM)
                    .map(|column| input(row, column) * parameters[class][column].value)
                    .sum()
            };
            let logits: Vec<Vec<f64>> = batch
                .iter()
                .map(|&row| (0..CLASSES).map(|class| logit(row, class)).collect())
                .collect();
            let labels: Vec<usize> = batch.iter().map(|&row| y[row]).collect();
            let samples: Vec<f64> = batch.iter().map(|&row| samples[row]).collect();
            let slopes = slopes(&logits, |logits| {
                loss(logits, &labels, &weights, recipe.label_smoothing, &samples)
            });
            let mut gradient = vec![vec![0.0; DIM + 1]; CLASSES];
            for (slopes, &row) in slopes.iter().zip(batch) {
                for class in 0..CLASSES {
                    for (column, gradient) in gradient[class].iter_mut().enumerate() {
                        *gradient += slopes[class] * input(row, column);
                    }
                }
            }
            if let Some(largest) = options.clip_norm {
                let norm = gradient.iter().flatten().map(|value| value * value).sum::<f64>().sqrt();
                let factor = (largest / (norm + 1e-6)).min(1.0);
                gradient.iter_mut().flatten().for_each(|value| *value *= factor);
            }
            for (parameters, gradient) in parameters.iter_mut().zip(&gradient) {
                for (parameter, &gradient) in parameters.iter_mut().zip(gradient) {
                    parameter.step(options, gradient, number);
                }
            }
        }
    }
    parameters
        .iter()
        .map(|parameters| parameters.iter().map(|parameter| parameter.value).collect())
        .collect()
}

fn initial() -> LinearHead {
    LinearHead::uniform(CLASSES, DIM, 11).unwrap()
}

fn order(epochs: usize) -> Vec<Vec<usize>> {
    (0..epochs)
        .map(|epoch| (0..ROWS).map(|row| (row * 7 + epoch) % ROWS).collect())
        .collect()
}

fn labels() -> Vec<usize> {
    (0..ROWS).map(|row| [0, 1, 2, 3, 4, 0, 0, 2][row % 8]).collect()
}

fn train(recipe: &Recipe, x: &Array2<f32>, y: &[usize], samples: Option<&[f64]>) -> Training {
    let epochs = match &recipe.solver {
        crate::head::Solver::Descent(options) => options.epochs,
        _ => 0,
    };
    let order = order(epochs);
    let mut task = TrainingTask::new(CLASSES, Examples::new(x.view(), y).unwrap())
        .unwrap()
        .with_initial_head(initial())
        .unwrap()
        .with_order(&order)
        .unwrap();
    if let Some(samples) = samples {
        task = task.with_sample_weights(samples).unwrap();
    }
    let observer: &dyn Observer = &Quiet;
    recipe
        .clone()
        .check()
        .unwrap()
        .train(&task, observer, &mut |_| ())
        .unwrap()
}

#[test]
fn every_option_equals_a_plain_implementation() {
    let (x, y) = (scattered(ROWS, DIM, 0.3), labels());
    let sgd = Descent {
        epochs: 4,
        batch_size: 4,
        learning_rate: 0.2,
        schedule: Schedule::Constant,
        ..Descent::sgd()
    };
    let adamw = Descent {
        learning_rate: 0.01,
        weight_decay: 0.1,
        update: Update::adamw(),
        ..sgd.clone()
    };
    let with = |descent: &Descent| Recipe::from(descent.clone());
    let samples: Vec<f64> = (0..ROWS).map(|row| [1.0, 0.5, 0.0, 2.0, 3.0][row % 5]).collect();
    let given = ClassWeights::Given(vec![0.2, 1.0, 3.0, 0.5, 1.5]);
    let slow = Update::AdamW {
        beta1: 0.4,
        beta2: 0.9,
        epsilon: 1e-3,
    };
    let cases: [(&str, Recipe, bool); 12] = [
        ("adamw", with(&adamw), false),
        (
            "adamw that forgets",
            with(&Descent {
                update: slow,
                ..adamw.clone()
            }),
            false,
        ),
        (
            "adamw, batch of 30",
            with(&Descent {
                batch_size: 30,
                ..adamw.clone()
            }),
            false,
        ),
        (
            "clipped",
            with(&Descent {
                clip_norm: Some(0.5),
                ..sgd.clone()
            }),
            false,
        ),
        (
            "clipped adamw",
            with(&Descent {
                clip_norm: Some(0.1),
                ..adamw.clone()
            }),
            false,
        ),
        (
            "barely clipped",
            with(&Descent {
                clip_norm: Some(1e3),
                ..sgd.clone()
            }),
            false,
        ),
        (
            "smoothed",
            Recipe {
                label_smoothing: 0.2,
                ..with(&sgd)
            },
            false,
        ),
        (
            "weighted",
            Recipe {
                class_weights: given.clone(),
                ..with(&sgd)
            },
            false,
        ),
        (
            "balanced",
            Recipe {
                class_weights: ClassWeights::Balanced,
                ..with(&sgd)
            },
            false,
        ),
        ("samples", with(&sgd), true),
        (
            "batches of 7",
            with(&Descent {
                batch_size: 7,
                ..sgd.clone()
            }),
            false,
        ),
        (
            "all together",
            Recipe {
                class_weights: given,
                label_smoothing: 0.1,
                ..with(&Descent {
                    batch_size: 9,
                    clip_norm: Some(0.4),
                    ..adamw
                })
            },
            true,
        ),
    ];
    for (name, recipe, weighted) in cases {
        let crate::head::Solver::Descent(options) = &recipe.solver else {
            unreachable!()
        };
        let equal = vec![1.0; ROWS];
        let expected = plain(&recipe, options, &x, &y, if weighted { &samples } else { &equal });
        let training = train(&recipe, &x, &y, weighted.then_some(&samples));
        let head = training.final_head;
        let mut largest = 0_f64;
        for (class, expected) in expected.iter().enumerate() {
            let got = head
                .weight()
                .row(class)
                .to_vec()
                .into_iter()
                .chain([head.bias()[class]]);
            for (got, expected) in got.zip(expected) {
                largest = largest.max((f64::from(got) - expected).abs());
            }
        }
        eprintln!("{name}: {largest:.1e}");
        // Up to 32 steps in f32 against f64, of weights below 3, whose spacing is 2.4e-7.
        assert!(largest < 4e-6, "{name}: {largest}");
    }
}
