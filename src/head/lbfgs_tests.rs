#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use ndarray::{Axis, array};
use serde::Deserialize;

use super::super::linear::LinearHead;
use super::super::objective::tests::made;
use super::super::recipe::Solver as RecipeSolver;
use super::super::training::Examples;
use super::*;
use crate::Quiet;

#[derive(Deserialize)]
struct Fixture {
    feature_sum: f64,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    classes: usize,
    c: f64,
    balanced: bool,
    weighted: bool,
    objective: f64,
    coefficients: Option<Vec<Vec<f64>>>,
    intercept: Option<Vec<f64>>,
}

const ROWS: usize = 200;
const DIM: usize = 24;
const LATENT: usize = 6;

fn sequence(start: u64, index: usize) -> f64 {
    let low = (start + index as u64).wrapping_mul(2_654_435_761) & 0xffff_ffff;
    let low = ((low * low) >> 16) & 0xffff_ffff;
    f64::from((((low as f64 / 4_294_967_296.0) - 0.5) * 2.0) as f32)
}

/// The problem of tests/fixtures/make_logistic.py.
fn problem(classes: usize) -> (Array2<f32>, Vec<usize>, Vec<f64>) {
    let labels: Vec<usize> = (0..ROWS)
        .map(|row| match row % 10 {
            0..4 => 0,
            4..7 => 1,
            7..9 => 2,
            _ => 3,
        })
        .map(|label: usize| label.min(classes - 1))
        .collect();
    let round = |value: f64, parts: f64| (value * parts).round_ties_even();
    let features = Array2::from_shape_fn((ROWS, DIM), |(row, column)| {
        let latent = |index: usize| {
            let bonus = if index == labels[row] { 0.75 } else { 0.0 };
            round(sequence(1, row * LATENT + index), 64.0) / 64.0 + bonus
        };
        let mixing = |index: usize| round(sequence(50_000, index * DIM + column), 64.0) / 64.0;
        let noise = round(sequence(90_000, row * DIM + column), 32.0) / 64.0;
        let sum: f64 = (0..LATENT).map(|index| latent(index) * mixing(index)).sum();
        (sum + noise).max(0.0) as f32
    });
    let weights = (0..ROWS).map(|row| 0.5 + (row % 7) as f64 / 4.0).collect();
    (features, labels, weights)
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("../../tests/fixtures/logistic.json")).unwrap()
}

fn train(recipe: &Recipe, task: &TrainingTask<'_>) -> Training {
    recipe
        .clone()
        .check()
        .unwrap()
        .train(task, &Quiet, &mut |_| ())
        .unwrap()
}

/// Trains all of scikit-learn's cases and compares.
pub(in crate::head) fn agrees_with_scikit_learn(solver: fn(Lbfgs) -> RecipeSolver) {
    let fixture = fixture();
    for case in &fixture.cases {
        let (features, labels, weights) = problem(case.classes);
        if case.classes == 4 {
            assert_eq!(
                features.iter().copied().map(f64::from).sum::<f64>(),
                fixture.feature_sum
            );
        }
        let mut task = TrainingTask::new(case.classes, Examples::new(features.view(), &labels).unwrap()).unwrap();
        if case.weighted {
            task = task.with_sample_weights(&weights).unwrap();
        }
        let recipe = |gradient_tolerance| Recipe {
            solver: solver(Lbfgs {
                c: case.c,
                gradient_tolerance,
                ..Lbfgs::default()
            }),
            class_weights: if case.balanced {
                ClassWeights::Balanced
            } else {
                ClassWeights::Equal
            },
            ..Recipe::default()
        };
        let name = format!(
            "{} classes, C {}, balanced {}, weighted {}",
            case.classes, case.c, case.balanced, case.weighted
        );
        // The promise at the default tolerance, and what is left at a finer one.
        for (tolerance, bound) in [(1e-6, 1e-6), (1e-9, 1e-11)] {
            let training = train(&recipe(tolerance), &task);
            let convergence = training.convergence.unwrap();
            let error = convergence.objective / case.objective - 1.0;
            assert!(convergence.converged, "{name}: {convergence:?}");
            assert!(error.abs() < bound, "{name}: {error:e}");
            if let (Some(coefficients), Some(intercept), true) = (&case.coefficients, &case.intercept, tolerance < 1e-6)
            {
                // scikit-learn stops at a gradient of 1e-10 of its mean loss, ours is stored in f32.
                let differs = |ours: f32, theirs: f64| (f64::from(ours) - theirs).abs() > 1e-5 * (1.0 + theirs.abs());
                let (weight, bias) = (training.head.weight(), training.head.bias());
                for column in 0..DIM {
                    for class in 0..coefficients.len() {
                        let ours = match case.classes {
                            2 => weight[[1, column]] - weight[[0, column]],
                            _ => weight[[class, column]],
                        };
                        assert!(!differs(ours, coefficients[class][column]), "{name}: {ours}");
                    }
                }
                let ours = bias[1] - bias[0];
                let theirs = if case.classes == 2 {
                    intercept[0]
                } else {
                    intercept[1] - intercept[0]
                };
                assert!(!differs(ours, theirs), "{name}: {ours} {theirs}");
            }
        }
    }
}

#[test]
fn lbfgs_reaches_the_optimum_of_scikit_learn() {
    agrees_with_scikit_learn(RecipeSolver::Lbfgs);
}

#[test]
fn on_real_features_the_accuracy_is_that_of_scikit_learn() {
    let shared = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/reference");
    if !shared.exists() {
        eprintln!("skipped: ../shared is absent");
        return;
    }
    // From its README: LogisticRegression, C = .001 .01 .1 1 10.
    for (name, expected) in [
        ("cats4", [0.903, 0.926, 0.935, 0.931, 0.931]),
        ("hymenoptera_data", [0.954, 0.961, 0.961, 0.954, 0.954]),
    ] {
        let features: Array2<f32> = ndarray_npy::read_npy(shared.join(format!("{name}_features.npy"))).unwrap();
        let rows = std::fs::read_to_string(shared.join(format!("{name}_rows.tsv"))).unwrap();
        // A heading, then path, split, class index, class name.
        let rows: Vec<(&str, usize)> = rows
            .lines()
            .skip(1)
            .map(|line| line.split('\t').collect::<Vec<_>>())
            .map(|row| (row[1], row[2].parse().unwrap()))
            .collect();
        let classes = 1 + rows.iter().map(|row| row.1).max().unwrap();
        let of = |split: &str| {
            let taken: Vec<usize> = (0..rows.len()).filter(|&row| rows[row].0 == split).collect();
            let labels: Vec<usize> = taken.iter().map(|&row| rows[row].1).collect();
            (features.select(Axis(0), &taken), labels)
        };
        let ((x, y), (val_x, val_y)) = (of("train"), of("val"));
        let task = TrainingTask::new(classes, Examples::new(x.view(), &y).unwrap()).unwrap();
        let task = task
            .with_validation(Examples::new(val_x.view(), &val_y).unwrap())
            .unwrap();
        for (c, expected) in [0.001, 0.01, 0.1, 1.0, 10.0].into_iter().zip(expected) {
            let training = train(&Recipe::from(Lbfgs { c, ..Lbfgs::default() }), &task);
            let convergence = training.convergence.as_ref().unwrap();
            assert!(convergence.converged, "{name} {c}: {convergence:?}");
            let accuracy = training.best().val_accuracy.unwrap();
            eprintln!("{name} {c}: {accuracy:.4} in {} iterations", convergence.iterations);
            // The README rounds to three digits.
            assert!((accuracy - expected).abs() < 0.0006, "{name} {c}: {accuracy}");
        }
    }
}

#[test]
fn the_bits_of_a_head_do_not_depend_on_the_number_of_threads() {
    let (features, labels) = made(3000, 30, 5);
    let task = TrainingTask::new(5, Examples::new(features.view(), &labels).unwrap()).unwrap();
    let recipe = Recipe::from(Lbfgs::default());
    let trainings = [1, 2, 8].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| train(&recipe, &task))
    });
    assert!(trainings[0].convergence.as_ref().unwrap().converged);
    assert_eq!(trainings[0], trainings[1]);
    assert_eq!(trainings[0], trainings[2]);
}

#[test]
fn a_path_ends_where_single_trainings_end() {
    let (features, labels, _) = problem(4);
    let task = TrainingTask::new(4, Examples::new(features.view(), &labels).unwrap()).unwrap();
    let options = Lbfgs {
        gradient_tolerance: 1e-8,
        ..Lbfgs::default()
    };
    let all = [0.01, 0.1, 1.0, 10.0];
    let path = options.path(&all, &Recipe::default(), &task, &Quiet).unwrap();
    for (training, c) in path.iter().zip(all) {
        let alone = train(&Recipe::from(Lbfgs { c, ..options }), &task).convergence.unwrap();
        let convergence = training.convergence.as_ref().unwrap();
        assert!(convergence.converged);
        assert!((convergence.objective / alone.objective - 1.0).abs() < 1e-10);
    }
    assert!(matches!(
        options.path(&[0.0], &Recipe::default(), &task, &Quiet),
        Err(Error::Usage(_))
    ));
}

#[test]
fn a_path_follows_its_recipe() {
    let (features, labels, _) = problem(4);
    let scales = Array1::from_iter((0..DIM).map(|column| 10_f32.powi(column as i32 % 4)));
    let features = features * scales;
    let task = TrainingTask::new(4, Examples::new(features.view(), &labels).unwrap()).unwrap();
    let recipe = Recipe {
        standardize: true,
        label_smoothing: 0.1,
        ..Recipe::from(Lbfgs::default())
    };
    let path = Lbfgs::default().path(&[0.1, 1.0], &recipe, &task, &Quiet).unwrap();
    let alone = train(&recipe, &task);
    let objective = |training: &Training| training.convergence.as_ref().unwrap().objective;
    assert!((objective(&path[1]) / objective(&alone) - 1.0).abs() < 1e-6);
    // The heads apply to the features as they were.
    let difference = path[1].head.logits(features.view()).unwrap() - alone.head.logits(features.view()).unwrap();
    assert!(
        difference.iter().all(|difference| difference.abs() < 1e-2),
        "{difference}"
    );
    let smoothing = Recipe {
        label_smoothing: 7.0,
        ..recipe
    };
    let error = Lbfgs::default().path(&[1.0], &smoothing, &task, &Quiet).unwrap_err();
    assert!(
        matches!(&error, Error::Usage(problem) if problem.contains("smoothing")),
        "{error}"
    );
}

#[test]
fn a_path_ends_where_no_step_leads_lower_from_its_start() {
    let (features, labels, _) = problem(4);
    let task = TrainingTask::new(4, Examples::new(features.view(), &labels).unwrap()).unwrap();
    // Far below the rounding of f64: what follows the first one starts from where nothing is lower.
    let options = Lbfgs {
        gradient_tolerance: 1e-30,
        ..Lbfgs::default()
    };
    let path = options.path(&[1.0; 5], &Recipe::default(), &task, &Quiet).unwrap();
    for training in path {
        let convergence = training.convergence.unwrap();
        assert!(!convergence.converged && convergence.note.is_some());
        assert!(convergence.gradient_norm < 1e-13, "{convergence:?}");
    }
}

#[test]
fn a_first_step_that_brings_nothing_is_tried_anew_once() {
    let (features, labels, _) = problem(4);
    let task = TrainingTask::new(4, Examples::new(features.view(), &labels).unwrap()).unwrap();
    let objective = Objective::new(&task, &[1.0; ROWS], 0.0, 1.0).unwrap();
    let start = start(&task, &objective);
    let surface = Surface::new(&objective, &start, &Quiet);
    surface.products.set(Products::Double);
    let mut descent = Descent::new(&surface, &start).unwrap();
    assert!(descent.recover().unwrap());
    assert!(!descent.recover().unwrap());
}

#[test]
fn a_start_at_the_optimum_stays_there() {
    let (features, labels, _) = problem(4);
    let task = TrainingTask::new(4, Examples::new(features.view(), &labels).unwrap()).unwrap();
    let recipe = Recipe::from(Lbfgs::default());
    let first = train(&recipe, &task);
    let again = train(&recipe, &task.clone().with_initial_head(first.head.clone()).unwrap());
    assert!(first.convergence.unwrap().iterations > 10);
    assert!(again.convergence.unwrap().iterations <= 2);
}

#[test]
fn a_class_without_rows_is_left_out_and_hardly_ever_given() {
    let (features, labels, _) = problem(4);
    let task = TrainingTask::new(4, Examples::new(features.view(), &labels).unwrap()).unwrap();
    let spread: Vec<usize> = labels.iter().map(|label| label + 1 + usize::from(*label > 1)).collect();
    let gaps = TrainingTask::new(7, Examples::new(features.view(), &spread).unwrap()).unwrap();
    let recipe = Recipe::from(Lbfgs::default());
    let (whole, gapped) = (train(&recipe, &task), train(&recipe, &gaps));
    assert_eq!(
        whole.convergence.unwrap().objective,
        gapped.convergence.unwrap().objective
    );
    let probabilities = gapped.head.probabilities(features.view()).unwrap();
    for absent in [0, 3, 6] {
        assert!(
            probabilities
                .column(absent)
                .iter()
                .all(|&probability| probability < 3e-9)
        );
    }
    assert_eq!(gapped.head.weight().row(2), whole.head.weight().row(1));
}

#[test]
fn one_class_alone_is_certain() {
    let x = array![[1_f32], [2.0]];
    let task = TrainingTask::new(2, Examples::new(x.view(), &[1, 1]).unwrap()).unwrap();
    let training = train(&Recipe::from(Lbfgs::default()), &task);
    assert!(training.convergence.unwrap().converged);
    assert_eq!(training.head.classify(x.view()).unwrap(), array![1, 1]);
}

#[test]
fn what_is_not_the_optimum_is_said_to_be_none() {
    let (features, labels, _) = problem(4);
    let task = TrainingTask::new(4, Examples::new(features.view(), &labels).unwrap()).unwrap();
    let ended = |max_iterations, gradient_tolerance| {
        let options = Lbfgs {
            max_iterations,
            gradient_tolerance,
            ..Lbfgs::default()
        };
        let convergence = train(&Recipe::from(options), &task).convergence.unwrap();
        assert!(!convergence.converged);
        assert!(convergence.gradient_norm > gradient_tolerance);
        convergence
    };
    let early = ended(3, 1e-6);
    assert_eq!(early.iterations, 3);
    assert!(early.note.unwrap().starts_with("stopped after 3 iterations"));
    // Far below the rounding of f64.
    let floor = ended(1000, 1e-30);
    assert!(floor.gradient_norm < 1e-13, "{floor:?}");
    assert!(floor.note.is_some());
}

#[test]
fn features_of_any_scale_are_solved() {
    let (features, labels, _) = problem(4);
    for scale in [1e-3_f32, 1e3] {
        let scaled = features.mapv(|value| value * scale + 5.0 * scale);
        let task = TrainingTask::new(4, Examples::new(scaled.view(), &labels).unwrap()).unwrap();
        let options = Lbfgs {
            c: 1.0 / f64::from(scale).powi(2),
            gradient_tolerance: 1e-9 * f64::from(scale.max(1.0)),
            ..Lbfgs::default()
        };
        let convergence = train(&Recipe::from(options), &task).convergence.unwrap();
        let expected = fixture()
            .cases
            .into_iter()
            .find(|case| case.classes == 4 && case.c == 1.0)
            .unwrap();
        assert!(convergence.converged, "{convergence:?}");
        // Adding 5 rounds the features in f32.
        let error = convergence.objective * f64::from(scale).powi(2) / expected.objective - 1.0;
        assert!(error.abs() < 1e-5, "{scale}: {error:e}");
    }
}

#[test]
fn rows_far_from_the_others_do_not_mislead() {
    let (mut features, labels, _) = problem(4);
    for row in (0..ROWS).step_by(20) {
        features.row_mut(row).mapv_inplace(|value| value * 300.0);
    }
    let task = TrainingTask::new(4, Examples::new(features.view(), &labels).unwrap()).unwrap();
    let convergence = train(&Recipe::from(Lbfgs::default()), &task).convergence.unwrap();
    assert!(convergence.converged, "{convergence:?}");
}

#[test]
fn an_interruption_ends_the_minimisation() {
    struct Stop;
    impl Observer for Stop {
        fn interrupted(&self) -> bool {
            true
        }
    }
    let (features, labels, _) = problem(4);
    let task = TrainingTask::new(4, Examples::new(features.view(), &labels).unwrap()).unwrap();
    let recipe = Recipe::from(Lbfgs::default()).check().unwrap();
    assert!(matches!(
        recipe.train(&task, &Stop, &mut |_| ()),
        Err(Error::Interrupted)
    ));
}

#[test]
fn c_stands_for_the_weight_decay_that_its_documentation_says() {
    for (classes, c, decay) in [
        (4, 0.3, 1.0 / (0.3 * 200.0)),
        (3, 2.0, 1.0 / (2.0 * 200.0)),
        (2, 0.3, 2.0 / (0.3 * 200.0)),
    ] {
        let (features, labels, _) = problem(classes);
        let task = TrainingTask::new(classes, Examples::new(features.view(), &labels).unwrap()).unwrap();
        let head = train(&Recipe::from(Lbfgs { c, ..Lbfgs::default() }), &task).head;
        // The gradient of PyTorch's mean cross-entropy: what weight decay adds to it leaves nothing.
        let mut residuals = head.probabilities(features.view()).unwrap().mapv(f64::from);
        for (mut row, &label) in residuals.rows_mut().into_iter().zip(&labels) {
            row[label] -= 1.0;
        }
        let gradient = residuals.t().dot(&features.mapv(f64::from)) / ROWS as f64;
        let step = gradient + head.weight().mapv(f64::from) * decay;
        assert!(step.iter().all(|component| component.abs() < 3e-6), "{classes}: {step}");
    }
}

#[test]
fn an_objective_that_is_not_finite_is_said_to_be_so() {
    let x = array![[3e38_f32], [-3e38], [1.0]];
    let task = TrainingTask::new(2, Examples::new(x.view(), &[0, 1, 1]).unwrap()).unwrap();
    let start = LinearHead::new(array![[3e38_f32], [-3e38]], array![0.0, 0.0]).unwrap();
    let task = task.with_initial_head(start).unwrap();
    for solver in [RecipeSolver::Lbfgs, RecipeSolver::Linfa] {
        let recipe = Recipe {
            solver: solver(Lbfgs {
                c: 1e300,
                ..Lbfgs::default()
            }),
            ..Recipe::default()
        };
        let error = recipe.check().unwrap().train(&task, &Quiet, &mut |_| ()).unwrap_err();
        assert!(matches!(error, Error::NoOptimum), "{error:?}");
        let hint = error.hint().unwrap();
        assert!(
            hint.contains("--standardize") && !hint.contains("learning rate"),
            "{hint}"
        );
    }
}

#[test]
fn class_weights_must_fit_the_classes() {
    let (features, labels, _) = problem(4);
    let task = TrainingTask::new(4, Examples::new(features.view(), &labels).unwrap()).unwrap();
    let error = row_weights(&ClassWeights::Given(vec![1.0; 3]), &task).unwrap_err();
    assert!(error.to_string().contains("3 class weights for 4 classes"));
    let balanced = row_weights(&ClassWeights::Balanced, &task).unwrap();
    assert_eq!(
        &balanced[..10],
        [
            0.625,
            0.625,
            0.625,
            0.625,
            200.0 / 240.0,
            200.0 / 240.0,
            200.0 / 240.0,
            1.25,
            1.25,
            2.5
        ]
    );
}
