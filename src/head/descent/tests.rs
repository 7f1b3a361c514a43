//! Promises of descent: alone or with others, on any number of threads, a head is the same.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ndarray::Array2;
use proptest::prelude::*;

use super::reference_tests::scattered;
use crate::head::recipe::{ClassWeights, Descent, EarlyStopping, Recipe, Sampling, Update, ValidRecipe, train_all};
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
        assert!(super::members(&task, 256, 8) == 8, "the batches are not split");
        let one = pool(1).install(|| train(&recipe, &task)).unwrap();
        for threads in [2, 3, 8] {
            let several = pool(threads).install(|| train(&recipe, &task)).unwrap();
            assert_eq!(bits(&several), bits(&one), "{threads} threads");
        }
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
    assert_eq!(interrupted.into_inner() + done.into_inner(), 40);
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
    let recipe = recipe.check().unwrap();
    let stop = StopAfter(20, AtomicUsize::new(0));
    let result = pool(4).install(|| recipe.train(&task, &stop, &mut |_| ()));
    assert!(matches!(result, Err(Error::Interrupted)), "{result:?}");
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
