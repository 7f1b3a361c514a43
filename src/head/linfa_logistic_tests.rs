#![expect(clippy::unwrap_used, reason = "tests")]

use super::super::lbfgs::tests::agrees_with_scikit_learn;
use super::super::objective::tests::{Countdown, made};
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
    let evaluation = objective.evaluate(&wrong, Products::Double, &Quiet).unwrap();
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

/// Problems of all kinds: rows of one length and of very different ones, penalties from strong to hardly any.
fn problems() -> impl Iterator<Item = (Array2<f32>, Vec<usize>, f64)> {
    [1e-3, 0.1, 1.0, 30.0, 1e3].into_iter().flat_map(|c| {
        let plain = |rows, dim, classes| {
            let (features, labels) = made(rows, dim, classes);
            (features, labels, c)
        };
        let (features, labels) = uneven();
        let far = features.mapv(|value| 3.0 * value - 50.0);
        [
            plain(60, 5, 2),
            plain(ROWS, 12, 4),
            plain(90, 40, 3),
            (features.mapv(|value| value / 100.0), labels.clone(), c),
            (features, labels.clone(), c),
            (far, labels, c),
        ]
    })
}

#[test]
fn linfa_logistic_makes_no_step_that_was_not_rehearsed() {
    let (mut rehearsed, mut refused) = (0, 0);
    for (features, labels, c) in problems() {
        let classes = 1 + labels.iter().max().unwrap();
        let task = TrainingTask::new(classes, Examples::new(features.view(), &labels).unwrap()).unwrap();
        let objective = Objective::new(&task, &vec![1.0; labels.len()], 0.0, c).unwrap();
        for max_iterations in [1, 7, 1000] {
            let options = Lbfgs {
                c,
                max_iterations,
                ..Lbfgs::default()
            };
            let problem = Scaled::new(&objective, &Quiet);
            let Ok(Rehearsed { iterations, most }) = problem.rehearse(&options).unwrap() else {
                refused += 1;
                continue;
            };
            rehearsed += 1;
            assert!(iterations <= most && most <= max_iterations, "{iterations} {most}");
            // The same way once more: each of these steps ends, and none comes near the cut.
            let again = Scaled::new(&objective, &Quiet);
            let mut walk = Walk::new(&again);
            for step in 0..most {
                let deeper = walk.problem.too_deep.get();
                assert!(!deeper && walk.is_at_optimum(1e-6).is_ok(), "{c} {step} of {most}");
                // At the optimum it may lead nowhere.
                if !walk.step().unwrap() {
                    break;
                }
            }
        }
    }
    assert!(rehearsed > 30 && refused > 5, "{rehearsed} {refused}");
}

#[test]
fn whatever_linfa_logistic_gives_the_optimum_comes_out() {
    let mut made_by_linfa = 0;
    for (features, labels, c) in problems() {
        let classes = 1 + labels.iter().max().unwrap();
        let task = TrainingTask::new(classes, Examples::new(features.view(), &labels).unwrap()).unwrap();
        let ours = train(Recipe::from(Lbfgs { c, ..Lbfgs::default() }), &task);
        let ours = ours.convergence.unwrap();
        if !ours.converged {
            // Beyond both: rows 200 times as long as others, none of them near 0.
            continue;
        }
        let by_linfa = train(linfa(c), &task).convergence.unwrap();
        assert!(by_linfa.converged, "{c}: {by_linfa:?} {ours:?}");
        let excess = by_linfa.objective / ours.objective - 1.0;
        assert!(excess.abs() < 1e-5, "{c}: {by_linfa:?} {ours:?}");
        let note = by_linfa.note.unwrap_or_default();
        assert!(!note.contains("did not end"), "{c}: {note}");
        made_by_linfa += usize::from(!note.starts_with("solved"));
    }
    assert!(made_by_linfa > 10, "{made_by_linfa}");
}

#[test]
fn what_ends_too_early_is_no_optimum_and_counts_its_iterations() {
    let (features, labels) = made(ROWS, 12, 4);
    let task = TrainingTask::new(4, Examples::new(features.view(), &labels).unwrap()).unwrap();
    let options = Lbfgs {
        max_iterations: 3,
        ..Lbfgs::default()
    };
    let recipe = Recipe {
        solver: RecipeSolver::Linfa(options),
        ..Recipe::default()
    };
    let early = train(recipe, &task).convergence.unwrap();
    // Three of linfa-logistic and three of the repair.
    assert_eq!((early.iterations, early.converged), (6, false));
    let note = early.note.unwrap();
    assert!(
        note.starts_with("repaired") && note.contains("stopped after 3 iterations"),
        "{note}"
    );
}

#[test]
fn an_interruption_is_heard_before_during_and_after_the_rehearsal() {
    let (features, labels) = made(ROWS, 12, 4);
    let task = TrainingTask::new(4, Examples::new(features.view(), &labels).unwrap()).unwrap();
    let objective = Objective::new(&task, &[1.0; ROWS], 0.0, 1.0).unwrap();
    let asked = Countdown::new(usize::MAX);
    let rehearsed = Scaled::new(&objective, &asked).rehearse(&Lbfgs::default()).unwrap();
    let whole = asked.asked();
    assert!(rehearsed.is_ok() && whole > 50, "{whole}");
    let recipe = linfa(1.0).check().unwrap();
    // Once before it, then: the rows' copy, the wait, the check.
    for after in [0, 1, whole / 2, whole, whole + 1, whole + 2, whole + 3] {
        let stop = Countdown::new(after);
        let ended = recipe.train(&task, &stop, &mut |_| ());
        assert!(matches!(ended, Err(Error::Interrupted)), "{after} of {whole}");
        // Each thread may be at a block of rows.
        assert!(stop.asked() <= after + 20, "{after}: {}", stop.asked());
    }
}
