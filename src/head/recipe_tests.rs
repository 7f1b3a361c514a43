#![expect(clippy::unwrap_used, reason = "tests")]

use ndarray::array;

use super::*;
use crate::head::StepLr;

fn sgd(momentum: f64, dampening: f64, nesterov: bool) -> Update {
    Update::Sgd {
        momentum,
        dampening,
        nesterov,
    }
}

#[test]
fn senseless_options_are_usage_errors() {
    let descent = |change: &dyn Fn(&mut Descent)| {
        let mut descent = Descent::sgd();
        change(&mut descent);
        Recipe::from(descent)
    };
    let lbfgs = |change: &dyn Fn(&mut Lbfgs)| {
        let mut lbfgs = Lbfgs::default();
        change(&mut lbfgs);
        Recipe::from(lbfgs)
    };
    let weights = |weights: &[f64]| Recipe {
        class_weights: ClassWeights::Given(weights.to_vec()),
        ..Recipe::default()
    };
    let step = Schedule::Step(StepLr {
        step_size: 0,
        gamma: 0.1,
    });
    for (recipe, word) in [
        (descent(&|options| options.epochs = 0), "epochs"),
        (descent(&|options| options.batch_size = 0), "batch size"),
        (descent(&|options| options.learning_rate = 0.0), "learning rate"),
        (descent(&|options| options.learning_rate = f64::NAN), "learning rate"),
        (descent(&|options| options.update = sgd(-0.1, 0.0, false)), "momentum"),
        (descent(&|options| options.weight_decay = f64::INFINITY), "weight decay"),
        (
            descent(&|options| options.update = sgd(0.9, f64::NAN, false)),
            "dampening",
        ),
        (descent(&|options| options.update = sgd(0.0, 0.0, true)), "nesterov"),
        (descent(&|options| options.update = sgd(0.9, 0.5, true)), "nesterov"),
        (descent(&|options| options.schedule = step.clone()), "step size"),
        (descent(&|options| options.clip_norm = Some(0.0)), "norm"),
        (
            descent(&|options| {
                options.update = Update::AdamW {
                    beta1: 1.0,
                    beta2: 0.9,
                    epsilon: 1e-8,
                };
            }),
            "beta1",
        ),
        (
            descent(&|options| {
                options.early_stopping = Some(EarlyStopping {
                    patience: 0,
                    min_delta: 0.0,
                });
            }),
            "patience",
        ),
        (lbfgs(&|options| options.c = 0.0), "C"),
        (lbfgs(&|options| options.max_iterations = 0), "iterations"),
        (lbfgs(&|options| options.gradient_tolerance = -1.0), "tolerance"),
        (weights(&[1.0, -1.0]), "class weight"),
        (weights(&[0.0, 0.0]), "class weights"),
        (
            Recipe {
                label_smoothing: 1.0,
                ..Recipe::default()
            },
            "label smoothing",
        ),
    ] {
        let error = recipe.check().unwrap_err();
        assert!(
            matches!(&error, Error::Usage(problem) if problem.contains(word)),
            "{error}"
        );
    }
    assert!(Recipe::default().check().is_ok());
}

#[test]
fn a_recipe_reads_back_as_it_was_written() {
    for recipe in [
        Recipe::default(),
        Recipe::from(Descent::adamw()),
        Recipe::from(Lbfgs::default()),
        Recipe {
            solver: Solver::Linfa(Lbfgs::default()),
            class_weights: ClassWeights::Given(vec![1.0, 2.5]),
            ..Recipe::default()
        },
    ] {
        let json = serde_json::to_string(&recipe).unwrap();
        assert_eq!(serde_json::from_str::<Recipe>(&json).unwrap(), recipe, "{json}");
    }
    let json = serde_json::to_value(Recipe::default()).unwrap();
    assert_eq!(json["solver"]["learning_rate"], 0.001);
    assert_eq!(json["solver"]["schedule"]["step_size"], 7);
    assert!(serde_json::from_str::<Recipe>(r#"{"sed": 1}"#).is_err());
}

#[test]
fn a_loss_that_is_not_finite_names_the_epoch() {
    let x = array![[1e30_f32], [-1e30]];
    let task = TrainingTask::new(2, Examples::new(x.view(), &[0, 1]).unwrap()).unwrap();
    let descent = Descent {
        learning_rate: 1e30,
        ..Descent::sgd()
    };
    let recipe = Recipe::from(descent).check().unwrap();
    let error = recipe.train(&task, &Quiet, &mut |_| ()).unwrap_err();
    assert!(matches!(error, Error::Diverged { epoch: 0, .. }), "{error}");
    assert!(error.hint().unwrap().contains("lower the learning rate"));
}

struct Stop;

impl Observer for Stop {
    fn interrupted(&self) -> bool {
        true
    }
}

#[test]
fn an_interruption_ends_the_training() {
    let x = array![[1_f32], [-1.0]];
    let task = TrainingTask::new(2, Examples::new(x.view(), &[0, 1]).unwrap()).unwrap();
    let recipe = Recipe::default().check().unwrap();
    assert!(matches!(
        recipe.train(&task, &Stop, &mut |_| ()),
        Err(Error::Interrupted)
    ));
}

#[test]
fn an_interrupted_sweep_begins_no_other_optimum() {
    let x = array![[1_f32], [-1.0]];
    let task = TrainingTask::new(2, Examples::new(x.view(), &[0, 1]).unwrap()).unwrap();
    // Weights of three classes: whoever begins says that they do not fit.
    let recipe = |number: usize| Recipe {
        solver: match number % 2 {
            0 => Solver::Lbfgs(Lbfgs::default()),
            _ => Solver::Linfa(Lbfgs::default()),
        },
        class_weights: ClassWeights::Given(vec![1.0; 3]),
        standardize: number >= 20,
        ..Recipe::default()
    };
    let recipes: Vec<ValidRecipe> = (0..40).map(|number| recipe(number).check().unwrap()).collect();
    let interrupted = std::sync::Mutex::new(vec![0; 40]);
    train_all(&recipes, &task, &Stop, &|index, training| {
        interrupted.lock().unwrap()[index] += usize::from(matches!(training, Err(Error::Interrupted)));
    });
    assert_eq!(interrupted.into_inner().unwrap(), [1; 40]);
    // Too large for f32 once standardised: whoever measures the features says so.
    let (x, far) = (array![[1e-3_f32], [2e-3]], array![[f32::MAX]]);
    let task = TrainingTask::new(2, Examples::new(x.view(), &[0, 1]).unwrap()).unwrap();
    let task = task.with_validation(Examples::new(far.view(), &[0]).unwrap()).unwrap();
    let recipe = Recipe {
        standardize: true,
        ..Recipe::from(Lbfgs::default())
    };
    assert!(matches!(
        recipe.check().unwrap().train(&task, &Stop, &mut |_| ()),
        Err(Error::Interrupted)
    ));
}

#[test]
fn a_sweep_gives_the_heads_of_single_trainings_whatever_the_threads() {
    let (features, labels) = objective::tests::made(300, 8, 3);
    let task = TrainingTask::new(3, Examples::new(features.view(), &labels).unwrap()).unwrap();
    let recipe = |number: usize| {
        let options = Lbfgs {
            c: 0.1 * (1 + number) as f64,
            ..Lbfgs::default()
        };
        let solver = if number < 6 {
            Solver::Lbfgs(options)
        } else {
            Solver::Linfa(options)
        };
        Recipe {
            solver,
            ..Recipe::default()
        }
    };
    let recipes: Vec<ValidRecipe> = (0..8).map(|number| recipe(number).check().unwrap()).collect();
    // Two pieces an evaluation: two threads share each head, six have one each.
    for threads in [1, 2, 6] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let swept = std::sync::Mutex::new(vec![None; 8]);
        pool.install(|| {
            train_all(&recipes, &task, &Quiet, &|index, training| {
                swept.lock().unwrap()[index] = Some(training.unwrap());
            });
        });
        for (recipe, training) in recipes.iter().zip(swept.into_inner().unwrap()) {
            assert_eq!(recipe.train(&task, &Quiet, &mut |_| ()).unwrap(), training.unwrap());
        }
    }
}

#[test]
fn a_target_that_is_no_class_number_is_refused() {
    for target in [4_000_000_000_usize, usize::MAX] {
        let dataset = linfa::Dataset::new(array![[1_f32], [-1.0]], array![0, target]);
        let error = Recipe::default().fit(&dataset).unwrap_err();
        assert!(error.to_string().contains("number the classes"), "{error}");
    }
}

#[test]
fn an_order_of_too_few_epochs_is_refused() {
    let x = array![[1_f32], [-1.0]];
    let order = [vec![0, 1]];
    let task = TrainingTask::new(2, Examples::new(x.view(), &[0, 1]).unwrap()).unwrap();
    let task = task.with_order(&order).unwrap();
    let recipe = Recipe::default().check().unwrap();
    assert!(matches!(
        recipe.train(&task, &Quiet, &mut |_| ()),
        Err(Error::Examples(_))
    ));
}
