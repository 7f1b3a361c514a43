#![expect(clippy::unwrap_used, reason = "tests")]

use super::super::objective::tests::{Countdown, made};
use super::super::training::Examples;
use super::*;
use crate::Quiet;

const ROWS: usize = 200;

/// Calls `work` with a plain objective on made rows.
fn with_objective<T>(work: impl FnOnce(&Objective<'_>, &Parameters) -> T) -> T {
    let (features, labels) = made(ROWS, 12, 4);
    let task = TrainingTask::new(4, Examples::new(features.view(), &labels).unwrap()).unwrap();
    let objective = Objective::new(&task, &[1.0; ROWS], 0.0, 1.0).unwrap();
    let start = start(&task, &objective);
    work(&objective, &start)
}

#[test]
fn the_tolerance_is_absolute_above_1_and_a_share_of_the_value_below() {
    assert_eq!(end_of(1e-6, 250.0), 1e-6);
    assert_eq!(end_of(1e-6, 1.0), 1e-6);
    assert_eq!(end_of(1e-6, 0.25), 2.5e-7);
    assert_eq!(end_of(1e-6, 0.0), 0.0);
}

#[test]
fn where_classes_can_be_told_apart_the_share_of_the_value_is_what_ends() {
    let x = Array2::from_shape_fn((40, 2), |(row, column)| if column == row % 2 { 1.0_f32 } else { 0.0 });
    let labels: Vec<usize> = (0..40).map(|row| row % 2).collect();
    let task = TrainingTask::new(2, Examples::new(x.view(), &labels).unwrap()).unwrap();
    let options = Lbfgs {
        c: 1e4,
        ..Lbfgs::default()
    };
    let recipe = Recipe::from(options).check().unwrap();
    let training = recipe.train(&task, &Quiet, &mut |_| ()).unwrap();
    let convergence = training.convergence.unwrap();
    let value = convergence.objective / (40.0 * options.c);
    assert!(convergence.converged && value < 0.01, "{convergence:?}");
    assert!(convergence.gradient_norm <= 1e-6 * value, "{convergence:?}");
}

#[test]
fn single_products_lead_no_further_than_they_can_and_are_given_up_where_they_stand_still() {
    with_objective(|objective, start| {
        let surface = Surface::new(objective, start, &Quiet);
        let mut descent = Descent::new(&surface, start).unwrap();
        assert_eq!(descent.limit(1.0), 1.0);
        assert_eq!(descent.limit(1e-12), SINGLE_LIMIT * descent.deviation);
        assert!(
            descent.deviation > 0.1 && descent.deviation < 2.0,
            "{}",
            descent.deviation
        );
        // The gradient was not halved by the iteration at which that was due.
        descent.iterations = descent.due.1;
        assert_eq!(descent.limit(1e-12), f64::INFINITY);
        descent.refine().unwrap();
        assert_eq!(descent.limit(1e-12), end_of(1e-12, descent.seen.value));
    });
}

#[test]
fn single_products_are_given_up_by_the_first_step_that_brings_nothing_and_double_ones_by_the_second() {
    with_objective(|objective, start| {
        let surface = Surface::new(objective, start, &Quiet);
        let mut descent = Descent::new(&surface, start).unwrap();
        assert!(descent.recover().unwrap());
        assert_eq!(surface.products.get(), Products::Double);
        assert!(!descent.recover().unwrap(), "nothing has changed since");
        assert!(descent.step());
        assert!(descent.recover().unwrap(), "a step has been made since");
        assert_eq!(descent.restarted, descent.iterations);
        assert!(!descent.recover().unwrap());
    });
}

#[test]
fn variables_are_changed_without_a_change_of_place_and_ever_more_seldom() {
    with_objective(|objective, start| {
        let surface = Surface::new(objective, start, &Quiet);
        surface.products.set(Products::Double);
        let mut descent = Descent::new(&surface, start).unwrap();
        for _ in 0..5 {
            assert!(descent.step());
        }
        let (value, norm) = (descent.seen.value, descent.seen.norm);
        descent.turn().unwrap();
        assert!((descent.seen.value / value - 1.0).abs() < 1e-12);
        assert!((descent.seen.norm / norm - 1.0).abs() < 1e-6);
        assert_eq!((descent.restarted, descent.patience), (5, 2 * PATIENCE));
    });
}

#[test]
fn a_line_search_is_not_longer_than_it_may_be() {
    with_objective(|objective, start| {
        let surface = Surface::new(objective, start, &Quiet);
        let descent = Descent::new(&surface, start).unwrap();
        surface.begin(&descent.seen, 2);
        let look = |shift: f64| surface.see(&(&descent.seen.at + shift), |seen| seen.value).is_ok();
        assert!(look(0.1) && look(0.2));
        // The last point costs nothing, another one is too much.
        assert!(look(0.2) && !look(0.3));
    });
}

#[test]
fn an_interruption_is_heard_within_an_evaluation() {
    let (features, labels) = made(3000, 12, 4);
    let task = TrainingTask::new(4, Examples::new(features.view(), &labels).unwrap()).unwrap();
    let recipe = Recipe {
        standardize: true,
        ..Recipe::from(Lbfgs::default())
    };
    let recipe = recipe.check().unwrap();
    let asked = Countdown::new(usize::MAX);
    recipe.train(&task, &asked, &mut |_| ()).unwrap();
    let all = asked.asked();
    // 3000 rows are 12 blocks, each of which asks.
    assert!(all > 200, "{all}");
    for after in [0, 2, 7, 11, all / 3, all - 40, all - 2] {
        let stop = Countdown::new(after);
        let ended = recipe.train(&task, &stop, &mut |_| ());
        assert!(matches!(ended, Err(Error::Interrupted)), "{after} of {all}");
        // Each thread may be at a block of rows.
        assert!(stop.asked() <= after + 20, "{after}: {}", stop.asked());
    }
}

#[test]
fn the_training_loss_of_views_is_that_of_the_views() {
    let (plain, labels) = made(ROWS, 12, 4);
    let views = [plain.mapv(|value| value + 0.5), plain.mapv(|value| 0.5 * value)];
    let task = TrainingTask::new(4, Examples::new(plain.view(), &labels).unwrap()).unwrap();
    let task = task.with_views(views.iter().map(Array2::view).collect()).unwrap();
    let recipe = Recipe::from(Lbfgs::default()).check().unwrap();
    let training = recipe.train(&task, &Quiet, &mut |_| ()).unwrap();
    let loss = |x: &Array2<f32>| training.head.score(x.view(), &labels).unwrap().loss();
    let expected = (loss(&views[0]) + loss(&views[1])) / 2.0;
    assert!((training.best().train_loss / expected - 1.0).abs() < 1e-12);
    assert!((expected / loss(&plain) - 1.0).abs() > 1e-3);
}

#[test]
fn a_path_goes_on_from_where_it_is() {
    let (features, labels) = made(ROWS, 12, 4);
    let task = TrainingTask::new(4, Examples::new(features.view(), &labels).unwrap()).unwrap();
    let path = Lbfgs::default()
        .path(&[1.0, 1.0], &Recipe::default(), &task, &Quiet)
        .unwrap();
    let iterations = path
        .iter()
        .map(|training| training.convergence.as_ref().unwrap().iterations);
    let iterations: Vec<usize> = iterations.collect();
    assert!(iterations[0] > 10 && iterations[1] <= 2, "{iterations:?}");
}
