#![expect(clippy::unwrap_used, reason = "tests")]

use super::super::lbfgs::tests::agrees_with_scikit_learn;
use super::super::objective::tests::made;
use super::super::recipe::{Recipe, Solver as RecipeSolver};
use super::super::training::Examples;
use super::*;
use crate::Quiet;

const ROWS: usize = 200;

/// Rows of very different lengths, each labelled by its largest feature but for one in seven.
fn uneven() -> (Array2<f32>, Vec<usize>) {
    let (mut features, mut labels) = made(ROWS, 12, 4);
    for (row, (mut values, label)) in features.rows_mut().into_iter().zip(&mut labels).enumerate() {
        if row % 10 == 0 {
            values.mapv_inplace(|value| value * 200.0);
        }
        if row % 7 == 0 {
            *label = (*label + 1) % 4;
        }
    }
    (features, labels)
}

fn linfa(c: f64) -> Recipe {
    Recipe {
        solver: RecipeSolver::Linfa(Lbfgs { c, ..Lbfgs::default() }),
        ..Recipe::default()
    }
}

fn train(recipe: Recipe, task: &TrainingTask<'_>) -> Training {
    recipe.check().unwrap().train(task, &Quiet, &mut |_| ()).unwrap()
}

/// linfa-logistic as its documentation says it is used.
fn alone(features: &Array2<f32>, labels: &[usize], c: f64, iterations: u64) -> (Array2<f64>, Array1<f64>) {
    let dataset = DatasetBase::new(features.mapv(f64::from), Array1::from(labels.to_vec()));
    let fitted = MultiLogisticRegression::default()
        .alpha(1.0 / c)
        .max_iterations(iterations)
        .fit(&dataset)
        .unwrap();
    (fitted.params().t().to_owned(), fitted.intercept().clone())
}

#[test]
fn linfa_reaches_the_optimum_of_scikit_learn() {
    agrees_with_scikit_learn(RecipeSolver::Linfa);
}

#[test]
fn where_linfa_logistic_is_sound_its_result_stands() {
    let (features, labels) = made(ROWS, 12, 4);
    let task = TrainingTask::new(4, Examples::new(features.view(), &labels).unwrap()).unwrap();
    let convergence = train(linfa(0.1), &task).convergence.unwrap();
    assert!(convergence.converged, "{convergence:?}");
    assert_eq!(convergence.note, None);
}

#[test]
fn where_linfa_logistic_alone_goes_wrong_it_is_noticed_and_repaired() {
    let (features, labels) = uneven();
    let task = TrainingTask::new(4, Examples::new(features.view(), &labels).unwrap()).unwrap();
    let objective = Objective::new(&task, &[1.0; ROWS], 0.0, 1.0).unwrap();
    // It says `Ok`. When this fails a version without the fault has come out: the rehearsal can go.
    let (weight, bias) = alone(&features, &labels, 1.0, 20);
    let offset = &bias + &weight.dot(&Array1::from(objective.centre().to_vec()));
    let wrong = Parameters { weight, offset };
    let evaluation = objective.evaluate(&wrong, Products::Double);
    let optimum = train(Recipe::from(Lbfgs::default()), &task).convergence.unwrap();
    assert!(optimum.converged, "{optimum:?}");
    let excess = evaluation.value * ROWS as f64 / optimum.objective;
    assert!(excess > 1.1, "{excess}");

    // The rehearsal sees it coming.
    let careful = train(linfa(1.0), &task).convergence.unwrap();
    assert!(careful.converged);
    assert!(careful.note.unwrap().contains("rows lie so far apart"));
    assert!((careful.objective / optimum.objective - 1.0).abs() < 1e-6);

    // And what came out all the same would be seen for what it is.
    let found = Found {
        parameters: wrong,
        iterations: 20,
    };
    let solution = check(&objective, found, &Lbfgs::default(), &Quiet).unwrap();
    assert!(solution.converged);
    assert!((solution.value * ROWS as f64 / optimum.objective - 1.0).abs() < 1e-6);
    assert!(solution.note.unwrap().starts_with("repaired: linfa-logistic ended"));
}

#[test]
fn weights_and_smoothing_are_solved_without_linfa_and_that_is_said() {
    let (features, labels) = made(ROWS, 12, 4);
    let task = TrainingTask::new(4, Examples::new(features.view(), &labels).unwrap()).unwrap();
    let weights: Vec<f64> = (0..ROWS).map(|row| 1.0 + (row % 2) as f64).collect();
    let weighted = task.clone().with_sample_weights(&weights).unwrap();
    let smoothed = Recipe {
        label_smoothing: 0.1,
        ..linfa(1.0)
    };
    for (recipe, task) in [(linfa(1.0), &weighted), (smoothed, &task)] {
        let convergence = train(recipe, task).convergence.unwrap();
        assert!(convergence.converged);
        assert!(convergence.note.unwrap().contains("knows no weights"));
    }
}

#[test]
fn classes_without_rows_come_back_in_their_places() {
    let (features, labels) = made(ROWS, 12, 3);
    let spread: Vec<usize> = labels.iter().map(|label| 2 * label + 1).collect();
    let task = TrainingTask::new(7, Examples::new(features.view(), &spread).unwrap()).unwrap();
    let by_linfa = train(linfa(0.1), &task);
    let convergence = by_linfa.convergence.unwrap();
    assert!(convergence.converged);
    assert!(
        convergence.note.is_none_or(|note| note.starts_with("repaired")),
        "linfa-logistic was asked"
    );
    let ours = train(
        Recipe::from(Lbfgs {
            c: 0.1,
            ..Lbfgs::default()
        }),
        &task,
    );
    let difference =
        by_linfa.head.probabilities(features.view()).unwrap() - ours.head.probabilities(features.view()).unwrap();
    assert!(difference.iter().all(|error| error.abs() < 1e-3));
}
