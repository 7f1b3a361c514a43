//! Promises of descent: alone or with others, on any number of threads, a head is the same.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ndarray::Array2;
use proptest::prelude::*;

use super::block::Listener;
use super::reference_tests::scattered;
use super::{members, train_block};
use crate::head::recipe::{
    ClassWeights, Descent, EarlyStopping, Lbfgs, Recipe, Sampling, Solver, Update, ValidRecipe, train_all,
};
use crate::head::schedule::{PlateauLr, Schedule};
use crate::head::training::{Examples, Training, TrainingTask};
use crate::{Error, Observer, Quiet, Result};

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

/// Rows of which column `label` stands out.
fn made(rows: usize, dim: usize, classes: usize, seed: f64) -> (Array2<f32>, Vec<usize>) {
    let labels: Vec<usize> = (0..rows).map(|row| row % classes).collect();
    let mut x = scattered(rows, dim, seed);
    for (row, &label) in labels.iter().enumerate() {
        x[[row, label % dim]] += 1.0;
    }
    (x, labels)
}

fn task<'a>(classes: usize, (x, y): &'a (Array2<f32>, Vec<usize>)) -> TrainingTask<'a> {
    TrainingTask::new(classes, Examples::new(x.view(), y).unwrap()).unwrap()
}

fn train(recipe: &Recipe, task: &TrainingTask<'_>) -> Result<Training> {
    recipe.clone().check().unwrap().train(task, &Quiet, &mut |_| ())
}

fn all(recipes: &[Recipe], task: &TrainingTask<'_>) -> Vec<Result<Training>> {
    let recipes: Vec<ValidRecipe> = recipes.iter().map(|recipe| recipe.clone().check().unwrap()).collect();
    let results: Vec<_> = recipes.iter().map(|_| Mutex::new(None)).collect();
    train_all(&recipes, task, &Quiet, &|index, training| {
        let before = results[index].lock().unwrap().replace(training);
        assert!(before.is_none(), "head {index} came twice");
    });
    results
        .into_iter()
        .map(|result| result.into_inner().unwrap().unwrap())
        .collect()
}

/// Trains with so many threads, whatever other tests take meanwhile.
fn shared(recipe: &Recipe, task: &TrainingTask<'_>, members: usize, observer: &dyn Observer) -> Result<Training> {
    let Solver::Descent(options) = &recipe.solver else {
        panic!("{recipe:?} is no descent");
    };
    let mut result = None;
    let mut listener = Listener {
        observer,
        on_epoch: &mut |_| (),
        on_trained: &mut |_, training| result = Some(training),
    };
    train_block(&[(0, recipe, options)], task, members, &mut listener);
    result.unwrap()
}

/// Everything of a training, as bits.
fn bits(training: &Training) -> (Vec<u32>, Vec<u64>, usize) {
    let heads = [&training.head, &training.final_head];
    let values = heads.into_iter().flat_map(|head| {
        head.weight()
            .into_iter()
            .copied()
            .chain(head.bias().to_vec())
            .collect::<Vec<_>>()
    });
    let numbers = training.history.iter().flat_map(|record| {
        let scores = [record.learning_rate, record.train_loss, record.train_accuracy];
        scores.into_iter().chain(record.val_loss).chain(record.val_accuracy)
    });
    (
        values.map(f32::to_bits).collect(),
        numbers.map(f64::to_bits).collect(),
        training.best_epoch,
    )
}

fn any_recipe() -> impl Strategy<Value = Recipe> {
    let update = prop_oneof![
        Just(Update::sgd()),
        Just(Update::adamw()),
        (0.0..0.95, 0.0..0.5).prop_map(|(momentum, dampening)| Update::Sgd {
            momentum,
            dampening,
            nesterov: false
        }),
        Just(Update::Sgd {
            momentum: 0.8,
            dampening: 0.0,
            nesterov: true
        }),
    ];
    let schedule = prop_oneof![
        Just(Schedule::default()),
        Just(Schedule::Constant),
        Just(Schedule::Plateau(PlateauLr {
            patience: 0,
            ..PlateauLr::default()
        })),
    ];
    let weights = prop_oneof![
        Just(ClassWeights::Equal),
        Just(ClassWeights::Balanced),
        Just(ClassWeights::Given(vec![1.0, 0.0, 2.0]))
    ];
    let options = (
        1_usize..5,
        prop_oneof![Just(1_usize), Just(4), Just(7), Just(150)],
        0.001..0.3,
        0.0..0.1,
    );
    let more = (
        proptest::option::of((1_usize..3, 0.0..0.1)),
        proptest::option::of(0.01..2.0),
        any::<bool>(),
        prop_oneof![Just(0.0), 0.0..0.5],
        0_u64..2,
    );
    (update, schedule, weights, options, more).prop_map(|(update, schedule, class_weights, options, more)| {
        let (epochs, batch_size, learning_rate, weight_decay) = options;
        let (early, clip_norm, balanced, label_smoothing, seed) = more;
        Recipe {
            class_weights,
            label_smoothing,
            seed,
            ..Recipe::from(Descent {
                epochs,
                batch_size,
                learning_rate,
                weight_decay,
                update,
                schedule,
                early_stopping: early.map(|(patience, min_delta)| EarlyStopping { patience, min_delta }),
                clip_norm,
                sampling: if balanced {
                    Sampling::Balanced
                } else {
                    Sampling::Shuffled
                },
                ..Descent::sgd()
            })
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_head_trained_with_others_is_bit_for_bit_the_one_trained_alone(
        recipes in proptest::collection::vec(any_recipe(), 1..12),
        threads in 1_usize..4,
        dim in prop_oneof![Just(5_usize), Just(64), Just(101)],
        views in any::<bool>(),
    ) {
        let (train_rows, validation) = (made(161, dim, 3, 0.2), made(70, dim, 3, 0.6));
        let turned = train_rows.0.mapv(|value| value * 0.9);
        let mut task = task(3, &train_rows)
            .with_validation(Examples::new(validation.0.view(), &validation.1).unwrap())
            .unwrap();
        if views {
            task = task.with_views(vec![train_rows.0.view(), turned.view()]).unwrap();
        }
        let together = pool(threads).install(|| all(&recipes, &task));
        for (recipe, together) in recipes.iter().zip(&together) {
            let alone = pool(1).install(|| train(recipe, &task)).unwrap();
            prop_assert_eq!(bits(&alone), bits(together.as_ref().unwrap()));
        }
    }
}

#[test]
fn a_large_batch_gives_the_same_bits_on_any_number_of_threads() {
    let (rows, validation) = (made(1500, 256, 11, 0.1), made(1100, 256, 11, 0.9));
    let task = task(11, &rows)
        .with_validation(Examples::new(validation.0.view(), &validation.1).unwrap())
        .unwrap();
    for update in [Update::sgd(), Update::adamw()] {
        let recipe = Recipe::from(Descent {
            epochs: 2,
            batch_size: 256,
            update,
            clip_norm: Some(0.5),
            ..Descent::sgd()
        });
        assert_eq!([1, 3, 8].map(|threads| members(&task, 256, threads)), [1, 2, 8]);
        let one = shared(&recipe, &task, 1, &Quiet).unwrap();
        for threads in [2, 4, 8] {
            let several = shared(&recipe, &task, threads, &Quiet).unwrap();
            assert_eq!(bits(&several), bits(&one), "{threads} threads");
        }
        let taken = pool(8).install(|| train(&recipe, &task)).unwrap();
        assert_eq!(bits(&taken), bits(&one));
        assert!(one.history[1].train_loss < one.history[0].train_loss);
    }
}

#[test]
fn one_head_that_diverges_does_not_end_the_others() {
    let rows = made(40, 8, 2, 0.3);
    let task = task(2, &rows);
    let recipe = |learning_rate| {
        Recipe::from(Descent {
            epochs: 3,
            learning_rate,
            ..Descent::sgd()
        })
    };
    let results = all(&[recipe(0.01), recipe(1e38), recipe(0.02)], &task);
    assert!(matches!(results[1], Err(Error::Diverged { .. })), "{:?}", results[1]);
    for (result, learning_rate) in [(&results[0], 0.01), (&results[2], 0.02)] {
        let alone = train(&recipe(learning_rate), &task).unwrap();
        assert_eq!(bits(result.as_ref().unwrap()), bits(&alone));
    }
}

/// Interrupts when it was asked so often.
struct StopAfter(usize, AtomicUsize);

impl Observer for StopAfter {
    fn interrupted(&self) -> bool {
        self.1.fetch_add(1, Ordering::Relaxed) >= self.0
    }
}

#[test]
fn an_interruption_ends_every_head_of_a_sweep() {
    let rows = made(400, 64, 3, 0.3);
    let task = task(3, &rows);
    let recipes: Vec<ValidRecipe> = (0..40)
        .map(|seed| {
            Recipe {
                seed: seed % 4,
                ..Recipe::default()
            }
            .check()
            .unwrap()
        })
        .collect();
    let (interrupted, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    train_all(&recipes, &task, &StopAfter(30, AtomicUsize::new(0)), &|_, training| {
        match training {
            Err(Error::Interrupted) => interrupted.fetch_add(1, Ordering::Relaxed),
            _ => done.fetch_add(1, Ordering::Relaxed),
        };
    });
    let (interrupted, done) = (interrupted.into_inner(), done.into_inner());
    assert_eq!(interrupted + done, 40);
    // A block asks in each of its 25 epochs, so that one at most is done with 30 questions: ten heads on one thread.
    assert!(interrupted >= 30, "{interrupted} of 40");
}

#[test]
fn an_interruption_ends_a_validation_under_way() {
    let (rows, validation) = (made(12, 8, 3, 0.3), made(2000, 8, 3, 0.6));
    let task = task(3, &rows)
        .with_validation(Examples::new(validation.0.view(), &validation.1).unwrap())
        .unwrap();
    let recipe = Recipe::from(Descent {
        epochs: 1,
        ..Descent::sgd()
    });
    // The only epoch has one piece, so that the second question is asked after it.
    let result = shared(&recipe, &task, 1, &StopAfter(1, AtomicUsize::new(0)));
    assert!(matches!(result, Err(Error::Interrupted)), "{result:?}");
}

#[test]
fn an_interruption_ends_a_training_that_several_threads_share() {
    let rows = made(2000, 256, 11, 0.1);
    let task = task(11, &rows);
    let recipe = Recipe::from(Descent {
        epochs: 1000,
        batch_size: 256,
        ..Descent::sgd()
    });
    let result = shared(&recipe, &task, 4, &StopAfter(20, AtomicUsize::new(0)));
    assert!(matches!(result, Err(Error::Interrupted)), "{result:?}");
}

#[test]
fn a_team_of_three_batches_a_piece_hears_of_an_interruption() {
    // The shares of a batch are in one of three buffers in turn; a question every third batch meets the same one each time.
    let rows = made(4800, 128, 26, 0.1);
    let task = task(26, &rows);
    assert_eq!(members(&task, 160, 2), 2);
    let recipe = Recipe::from(Descent {
        epochs: 3,
        batch_size: 160,
        ..Descent::sgd()
    });
    let result = shared(&recipe, &task, 2, &StopAfter(2, AtomicUsize::new(0)));
    assert!(matches!(result, Err(Error::Interrupted)), "{result:?}");
}

#[test]
fn no_team_is_formed_where_an_epoch_has_no_large_batch() {
    let rows = made(2000, 256, 11, 0.1);
    let (long, short) = ((0..2000).collect::<Vec<usize>>(), (0..100).collect::<Vec<usize>>());
    let orders = [vec![long.clone(), long.clone()], vec![long, short]];
    let count = |order| members(&task(11, &rows).with_order(order).unwrap(), 256, 8);
    assert_eq!([count(&orders[0]), count(&orders[1])], [8, 1]);
}

#[test]
fn standardised_views_and_class_weights_give_the_same_bits_in_a_sweep_and_on_any_number_of_threads() {
    let (rows, validation) = (made(300, 64, 3, 0.2), made(70, 64, 3, 0.6));
    let turned = rows.0.mapv(|value| value * 0.9 + 0.1);
    let task = task(3, &rows)
        .with_validation(Examples::new(validation.0.view(), &validation.1).unwrap())
        .unwrap()
        .with_views(vec![rows.0.view(), turned.view()])
        .unwrap();
    let with = |solver, class_weights| Recipe {
        solver,
        class_weights,
        standardize: true,
        ..Recipe::default()
    };
    let descent = |batch_size, descent| {
        Solver::Descent(Descent {
            epochs: 3,
            batch_size,
            learning_rate: 0.01,
            ..descent
        })
    };
    let given = ClassWeights::Given(vec![1.0, 0.5, 2.0]);
    let recipes = [
        with(descent(4, Descent::sgd()), given.clone()),
        with(descent(4, Descent::adamw()), ClassWeights::Balanced),
        with(descent(200, Descent::adamw()), given.clone()),
        with(Solver::Lbfgs(Lbfgs::default()), given),
    ];
    let alone: Vec<_> = recipes
        .iter()
        .map(|recipe| bits(&pool(1).install(|| train(recipe, &task)).unwrap()))
        .collect();
    let plain = Recipe {
        standardize: false,
        ..recipes[0].clone()
    };
    assert_ne!(bits(&train(&plain, &task).unwrap()), alone[0]);
    for threads in [1, 2, 8] {
        for (recipe, alone) in recipes.iter().zip(&alone) {
            let single = pool(threads).install(|| train(recipe, &task)).unwrap();
            assert_eq!(&bits(&single), alone, "{recipe:?} on {threads} threads");
        }
        let together = pool(threads).install(|| all(&recipes, &task));
        for ((recipe, together), alone) in recipes.iter().zip(&together).zip(&alone) {
            assert_eq!(
                &bits(together.as_ref().unwrap()),
                alone,
                "{recipe:?} on {threads} threads"
            );
        }
    }
}

#[test]
fn a_plateau_without_validation_is_refused() {
    let rows = made(12, 8, 3, 0.3);
    let recipe = Recipe::from(Descent {
        schedule: Schedule::Plateau(PlateauLr::default()),
        ..Descent::sgd()
    });
    let error = train(&recipe, &task(3, &rows)).unwrap_err();
    assert!(
        matches!(&error, Error::Usage(problem) if problem.contains("plateau") && problem.contains("validation")),
        "{error}"
    );
}

#[test]
fn class_weights_of_classes_without_rows_alone_are_refused() {
    let rows = made(12, 8, 2, 0.3);
    let recipe = Recipe {
        class_weights: ClassWeights::Given(vec![0.0, 0.0, 1.0]),
        ..Recipe::default()
    };
    let error = train(&recipe, &task(3, &rows)).unwrap_err();
    assert!(
        matches!(&error, Error::Usage(problem) if problem.contains("nothing to learn")),
        "{error}"
    );
}

#[test]
fn early_stopping_ends_after_so_many_epochs_without_a_lower_validation_loss() {
    let rows = made(60, 16, 3, 0.3);
    let (x, y) = made(60, 16, 3, 0.3);
    // Validation labels that are wrong: the better the head, the higher the loss.
    let wrong: Vec<usize> = y.iter().map(|label| (label + 1) % 3).collect();
    let task = task(3, &rows);
    let stopping = |patience, min_delta| {
        Recipe::from(Descent {
            epochs: 30,
            learning_rate: 0.05,
            early_stopping: Some(EarlyStopping { patience, min_delta }),
            ..Descent::sgd()
        })
    };
    let error = train(&stopping(1, 0.0), &task).unwrap_err();
    assert!(
        matches!(&error, Error::Usage(problem) if problem.contains("validation")),
        "{error}"
    );
    let worse = task
        .clone()
        .with_validation(Examples::new(x.view(), &wrong).unwrap())
        .unwrap();
    for patience in [1, 4] {
        let training = train(&stopping(patience, 0.0), &worse).unwrap();
        let losses: Vec<f64> = training.history.iter().filter_map(|record| record.val_loss).collect();
        let lowest = losses.iter().copied().fold(f64::INFINITY, f64::min);
        let best = losses.iter().position(|&loss| loss == lowest).unwrap();
        assert_eq!(losses.len(), best + 1 + patience, "{losses:?}");
    }
    // Where the loss falls all the time, only a fall that is too small ends the training.
    let better = task.with_validation(Examples::new(x.view(), &y).unwrap()).unwrap();
    assert_eq!(train(&stopping(1, 0.0), &better).unwrap().history.len(), 30);
    assert_eq!(train(&stopping(2, 10.0), &better).unwrap().history.len(), 3);
}

#[test]
fn class_weights_must_be_one_a_class() {
    let rows = made(12, 8, 3, 0.3);
    let recipe = Recipe {
        class_weights: ClassWeights::Given(vec![1.0, 2.0]),
        ..Recipe::default()
    };
    let error = train(&recipe, &task(3, &rows)).unwrap_err();
    assert!(
        matches!(&error, Error::Usage(problem) if problem.contains("2 class weights for 3 classes")),
        "{error}"
    );
}

#[test]
fn a_batch_whose_rows_all_weigh_nothing_moves_nothing() {
    let rows = made(12, 8, 3, 0.3);
    let weights: Vec<f64> = (0..12).map(|row| f64::from(u8::from(row >= 4))).collect();
    let order = [vec![0, 1, 2, 3]];
    let task = task(3, &rows)
        .with_sample_weights(&weights)
        .unwrap()
        .with_order(&order)
        .unwrap();
    let recipe = Recipe::from(Descent {
        epochs: 1,
        ..Descent::sgd()
    });
    let head = train(&recipe, &task).unwrap().final_head;
    assert_eq!(head, crate::head::LinearHead::uniform(3, 8, 0).unwrap());
}

#[test]
fn views_are_trained_on_and_the_plain_rows_are_not() {
    let rows = made(30, 8, 3, 0.3);
    let view = made(30, 8, 3, 0.8);
    let recipe = Recipe::from(Descent {
        epochs: 2,
        ..Descent::sgd()
    });
    let viewed = task(3, &rows).with_views(vec![view.0.view(), view.0.view()]).unwrap();
    // The same order, because views are drawn from a stream of their own.
    assert_eq!(
        bits(&train(&recipe, &viewed).unwrap()),
        bits(&train(&recipe, &task(3, &view)).unwrap())
    );
    // A view that does not lie row by row.
    let turned = view.0.t().as_standard_layout().into_owned();
    let strided = task(3, &rows).with_views(vec![turned.t()]).unwrap();
    assert_eq!(
        bits(&train(&recipe, &strided).unwrap()),
        bits(&train(&recipe, &task(3, &view)).unwrap())
    );
}
