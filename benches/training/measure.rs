//! The parts of the measurement.

use std::sync::Mutex;
use std::time::Instant;

use lastlayer::{
    ClassWeights, Descent, Examples, Lbfgs, LinearHead, Quiet, Recipe, Schedule, Training, TrainingTask, Update,
    ValidRecipe, train_all,
};
use ndarray::Array2;
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use serde_json::Value;

use super::made::{self, DIM, Data};
use super::{Result, Row, Task, bounds, median, peers, process, seconds};

/// One training, in seconds.
fn timed(recipe: &ValidRecipe, task: &TrainingTask<'_>) -> Result<(f64, Training)> {
    let start = Instant::now();
    let training = recipe.train(task, &Quiet, &mut |_| ())?;
    Ok((start.elapsed().as_secs_f64(), training))
}

fn task_of(data: &Data) -> Result<TrainingTask<'_>> {
    let train = Examples::new(data.train.0.view(), &data.train.1)?;
    let validation = Examples::new(data.validation.0.view(), &data.validation.1)?;
    Ok(TrainingTask::new(data.classes, train)?.with_validation(validation)?)
}

/// (a) The default recipe, 25 epochs of mini-batches of 4, beside PyTorch's loop over tensors in memory with 1 and 2
/// threads, with and without its fused optimizer, of which the fastest counts; and the whole process on a warm cache.
pub(crate) fn recipe(task: &Task) -> Result<Vec<Row>> {
    let data = made::cats4()?;
    let training_task = task_of(&data)?;
    let recipe = Recipe::default().check()?;
    let mut ours = Vec::new();
    let mut accuracy = 0.0;
    timed(&recipe, &training_task)?;
    for _ in 0..10 * task.rounds {
        let (seconds, training) = timed(&recipe, &training_task)?;
        ours.push(seconds);
        accuracy = training.best().val_accuracy.unwrap_or(f64::NAN);
    }
    let what = format!("default recipe on {}", data.name);
    let mut rows = vec![(
        format!("{what}, ours (best accuracy {accuracy:.3})"),
        seconds(&ours),
        "",
    )];
    if let Some(python) = &task.peers {
        let folder = tempfile::tempdir()?;
        peers::write(folder.path(), &data)?;
        let path = folder.path().to_str().ok_or("the temporary folder's name is no text")?;
        let rounds = if task.quick { 1 } else { task.rounds }.to_string();
        let trials = python.ask(&["sgd", path, "25", "4", &rounds])?;
        let times = |trial: &Value| serde_json::from_value::<Vec<f64>>(trial["seconds"].clone()).unwrap_or_default();
        let best = trials
            .as_array()
            .and_then(|trials| {
                trials
                    .iter()
                    .min_by(|one, two| median(&times(one)).total_cmp(&median(&times(two))))
            })
            .ok_or("no trial came back")?;
        let fused = if best["fused"] == true { ", fused" } else { "" };
        rows.push((
            format!(
                "the same, PyTorch (fastest: {} threads{fused}; best accuracy {:.3})",
                best["threads"],
                best["accuracy"].as_f64().unwrap_or(f64::NAN)
            ),
            seconds(&times(best)),
            "",
        ));
        let ratio = median(&times(best)) / median(&ours);
        rows.push(("PyTorch / ours".to_owned(), format!("{ratio:.0}"), "≥ 40"));
    }
    let (what, times) = process::train_head(task)?;
    rows.push((
        format!("whole `lastlayer train-head` {what}"),
        seconds(&times),
        "< 0.1 s",
    ));
    Ok(rows)
}

/// 256 variations of the default recipe; four seeds, so that heads of one order are trained beside each other.
fn variations() -> Result<Vec<ValidRecipe>> {
    let mut recipes = Vec::new();
    for seed in 0..4 {
        for rate in 0..8 {
            for weight_decay in [0.0, 1e-4, 1e-3, 1e-2] {
                for momentum in [0.0, 0.9] {
                    recipes.push(Recipe {
                        seed,
                        ..Recipe::from(Descent {
                            learning_rate: 10_f64.powf(-4.0 + 3.0 * f64::from(rate) / 7.0),
                            weight_decay,
                            update: Update::Sgd {
                                momentum,
                                dampening: 0.0,
                                nesterov: false,
                            },
                            ..Descent::sgd()
                        })
                    });
                }
            }
        }
    }
    recipes.into_iter().map(|recipe| Ok(recipe.check()?)).collect()
}

/// Trains all together, in seconds.
fn together(recipes: &[ValidRecipe], task: &TrainingTask<'_>) -> Result<(f64, Vec<Training>)> {
    let trained: Mutex<Vec<Option<lastlayer::Result<Training>>>> = Mutex::new(recipes.iter().map(|_| None).collect());
    let start = Instant::now();
    train_all(recipes, task, &Quiet, &|index, training| {
        trained.lock().expect("nothing panics while it is held")[index] = Some(training);
    });
    let seconds = start.elapsed().as_secs_f64();
    let trained = trained.into_inner().expect("nothing panicked while it was held");
    let trained = trained
        .into_iter()
        .map(|training| Ok(training.ok_or("one never came")??));
    Ok((seconds, trained.collect::<Result<_>>()?))
}

/// (b) A sweep of 256 heads in one pass, beside as many separate runs: 16 of them, times 16. What counts are the seconds that
/// `train-head` says its training took; the same in one process, where code and features are in the processor's caches from
/// the training before, stands beside it.
pub(crate) fn sweep(task: &Task) -> Result<Vec<Row>> {
    let data = made::cats4()?;
    let training_task = task_of(&data)?;
    let recipes = variations()?;
    let rounds = if task.quick { 1 } else { task.rounds };
    let (mut swept, mut single) = (Vec::new(), Vec::new());
    // Steps of 17, so that every rate, weight decay, momentum and seed is among them.
    let alone: Vec<usize> = (0..16).map(|index| index * 17 % recipes.len()).collect();
    for _ in 0..rounds {
        let (seconds, trained) = together(&recipes, &training_task)?;
        swept.push(seconds);
        let mut total = 0.0;
        for &index in &alone {
            let (seconds, training) = timed(&recipes[index], &training_task)?;
            total += seconds;
            if training != trained[index] {
                return Err(format!("head {index} of the sweep is not what its recipe gives alone").into());
            }
        }
        single.push(total * recipes.len() as f64 / alone.len() as f64);
    }
    let count = recipes.len();
    let (process, processes) = process::sweep_and_singles(task)?;
    Ok(vec![
        (
            format!("sweep of {count} heads of {}", data.name),
            seconds(&process),
            "< 5 s",
        ),
        (
            format!("training in {count} separate runs (16 measured)"),
            seconds(&processes),
            "",
        ),
        (
            "sweep / separate runs".to_owned(),
            format!("{:.3}", median(&process) / median(&processes)),
            "≤ 0.25",
        ),
        (
            "the same sweep again and again in one process".to_owned(),
            seconds(&swept),
            "",
        ),
        (
            format!("{count} trainings in that process (16 measured, each head the same to the last bit)"),
            seconds(&single),
            "",
        ),
        (
            "sweep / trainings in one process".to_owned(),
            format!("{:.3}", median(&swept) / median(&single)),
            "",
        ),
    ])
}

/// Mean cross-entropy and penalty, in f64: what scikit-learn and `lbfgs` minimise, divided by `C` and the rows.
fn objective(head: &LinearHead, (features, labels): &(Array2<f32>, Vec<usize>), c: f64) -> f64 {
    let rows = labels.len();
    let weight: Vec<Vec<f64>> = head
        .weight()
        .rows()
        .into_iter()
        .map(|row| row.mapv(f64::from).to_vec())
        .collect();
    let loss = |row: usize| {
        let features = features.row(row);
        let logits: Vec<f64> = weight
            .iter()
            .zip(head.bias())
            .map(|(weight, &bias)| {
                let products = weight
                    .iter()
                    .zip(features)
                    .map(|(weight, &value)| weight * f64::from(value));
                products.sum::<f64>() + f64::from(bias)
            })
            .collect();
        let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|logit| (logit - highest).exp()).sum();
        highest + sum.ln() - logits[labels[row]]
    };
    let losses: Vec<f64> = (0..rows).into_par_iter().map(loss).collect();
    let squares: f64 = weight.iter().flatten().map(|value| value * value).sum();
    losses.iter().sum::<f64>() / rows as f64 + squares / (2.0 * c * rows as f64)
}

/// (c) The optimum of 20,000 × 512 × 100 to a gradient of 1e-6, beside scikit-learn, whose tolerance is lowered until it
/// reaches the same objective within 1e-6; the time of that fit alone counts, in f32 or f64, whichever is faster.
pub(crate) fn optimum(task: &Task) -> Result<Vec<Row>> {
    const C: f64 = 1.0;
    let (rows, classes) = if task.quick { (1_000, 10) } else { (20_000, 100) };
    let examples = made::features_like_a_backbones(rows, classes, 1);
    let none = (Array2::zeros((1, DIM)), vec![0]);
    let data = Data {
        name: "made",
        classes,
        train: examples,
        validation: none,
    };
    let train = Examples::new(data.train.0.view(), &data.train.1)?;
    let training_task = TrainingTask::new(classes, train)?;
    let recipe = Recipe::from(Lbfgs {
        c: C,
        ..Lbfgs::default()
    })
    .check()?;
    let rounds = if task.quick { 1 } else { 3 };
    let (mut ours, mut trained) = (Vec::new(), None);
    for _ in 0..rounds {
        let (seconds, training) = timed(&recipe, &training_task)?;
        ours.push(seconds);
        trained = Some(training);
    }
    let training = trained.ok_or("nothing was trained")?;
    let reached = objective(&training.final_head, &data.train, C);
    let convergence = training.convergence.as_ref().ok_or("it does not say how it ended")?;
    let what = format!("lbfgs on made features, {rows}×{DIM}×{classes}, C = {C}");
    let mut table = vec![(
        format!(
            "{what}, ours ({} iterations, gradient {:.1e}, objective {reached:.9})",
            convergence.iterations, convergence.gradient_norm
        ),
        seconds(&ours),
        "",
    )];
    if let Some(python) = &task.peers {
        let folder = tempfile::tempdir()?;
        peers::write(folder.path(), &data)?;
        let path = folder.path().to_str().ok_or("the temporary folder's name is no text")?;
        let trials = python.ask(&["lbfgs", path, &C.to_string(), &format!("{reached:.17e}")])?;
        let time = |trial: &Value| trial["seconds"].as_f64().unwrap_or(f64::NAN);
        let trials = trials.as_array().ok_or("no trial came back")?;
        let done = trials.iter().filter(|trial| trial["done"] == true);
        let best = done.min_by(|one, two| time(one).total_cmp(&time(two)));
        let best = best.ok_or("scikit-learn reaches our objective with no tolerance")?;
        table.push((
            format!(
                "the same, scikit-learn ({}, tolerance {}, {} iterations, objective {:.9})",
                best["dtype"].as_str().unwrap_or("?"),
                best["tolerance"],
                best["iterations"],
                best["objective"].as_f64().unwrap_or(f64::NAN)
            ),
            seconds(&[time(best)]),
            "",
        ));
        let ratio = time(best) / median(&ours);
        table.push(("scikit-learn / ours".to_owned(), format!("{ratio:.1}"), "≥ 3"));
    }
    Ok(table)
}

/// (d) One epoch over 1,000,000 × 512 × 10 in mini-batches of 256, as a share of the tighter of two bounds: the time of
/// reading all features once, and that of the multiplications and additions of logits and gradients at the peak rate.
pub(crate) fn million(task: &Task) -> Result<Vec<Row>> {
    const CLASSES: usize = 10;
    let rows = if task.quick { 10_000 } else { 1_000_000 };
    let (features, labels) = made::noise(rows, CLASSES, 2);
    let bandwidth = bounds::bandwidth(features.as_slice().ok_or("it is not contiguous")?, task.threads);
    let peak = bounds::arithmetic(task.threads);
    let training_task = TrainingTask::new(CLASSES, Examples::new(features.view(), &labels)?)?;
    let recipe = Recipe::from(Descent {
        epochs: 1,
        batch_size: 256,
        schedule: Schedule::Constant,
        ..Descent::sgd()
    })
    .check()?;
    let mut ours = Vec::new();
    for _ in 0..task.rounds {
        ours.push(timed(&recipe, &training_task)?.0);
    }
    let bytes = (rows * DIM * size_of::<f32>()) as f64;
    // A product and a sum for each feature and class, once for the logits and once for the gradient.
    let operations = (4 * rows * DIM * CLASSES) as f64;
    let (by_memory, by_arithmetic) = (bytes / bandwidth, operations / peak);
    let bound = by_memory.max(by_arithmetic);
    Ok(vec![
        (
            format!("one epoch of SGD on made features, {rows}×{DIM}×{CLASSES}, batch 256"),
            seconds(&ours),
            "",
        ),
        (
            format!(
                "bound by memory: the same {:.2} GB read at {:.1} GB/s",
                bytes / 1e9,
                bandwidth / 1e9
            ),
            seconds(&[by_memory]),
            "",
        ),
        (
            format!(
                "bound by arithmetic: {:.1} GFLOP at {:.0} GFLOP/s ({})",
                operations / 1e9,
                peak / 1e9,
                bounds::instructions()
            ),
            seconds(&[by_arithmetic]),
            "",
        ),
        (
            "share of the tighter bound".to_owned(),
            format!("{:.2}", bound / median(&ours)),
            "≥ 0.60",
        ),
    ])
}

/// (e) The same bytes with 1, 2 and 8 threads, of every way to train.
pub(crate) fn threads(task: &Task) -> Result<Vec<Row>> {
    let data = made::cats4()?;
    let training_task = task_of(&data)?;
    let rows = if task.quick { 2_000 } else { 50_000 };
    let (features, labels) = made::noise(rows, 10, 3);
    let large = TrainingTask::new(10, Examples::new(features.view(), &labels)?)?;
    let weighted = Recipe {
        class_weights: ClassWeights::Balanced,
        label_smoothing: 0.1,
        ..Recipe::from(Descent {
            clip_norm: Some(1.0),
            ..Descent::adamw()
        })
    };
    let batches = |batch_size| {
        Recipe::from(Descent {
            epochs: 1,
            batch_size,
            ..Descent::sgd()
        })
    };
    let every = [
        ("the default", Recipe::default(), &training_task),
        ("AdamW, clipped, weighted, smoothed", weighted, &training_task),
        ("L-BFGS", Recipe::from(Lbfgs::default()), &training_task),
        ("batches of 256", batches(256), &large),
        ("batches of 4096", batches(4096), &large),
    ];
    let recipes = &variations()?[..64];
    let run = |threads: usize| -> Result<Vec<(&str, Vec<Training>)>> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        // Errors are made text: they do not leave the pool otherwise.
        let all = pool.install(|| -> std::result::Result<_, String> {
            let mut all = Vec::new();
            for (name, recipe, task) in &every {
                let recipe = recipe.clone().check().map_err(|error| error.to_string())?;
                let training = recipe
                    .train(task, &Quiet, &mut |_| ())
                    .map_err(|error| format!("{name}: {error}"))?;
                all.push((*name, vec![training]));
            }
            let swept = together(recipes, &training_task).map_err(|error| error.to_string())?;
            all.push(("a sweep", swept.1));
            Ok(all)
        });
        Ok(all?)
    };
    let one = run(1)?;
    for threads in [2, 8] {
        for ((name, expected), (_, got)) in one.iter().zip(run(threads)?) {
            if bits(expected) != bits(&got) {
                return Err(format!("{name}: {threads} threads give another head than 1").into());
            }
        }
    }
    let names: Vec<&str> = one.iter().map(|(name, _)| *name).collect();
    Ok(vec![(
        format!("heads with 1, 2 and 8 threads: {}", names.join("; ")),
        "the same bytes".to_owned(),
        "the same bytes",
    )])
}

/// Every number of the heads and histories, to the last bit.
fn bits(trainings: &[Training]) -> Vec<u64> {
    let head = |head: &LinearHead| -> Vec<u64> {
        let values = head.weight().into_iter().chain(head.bias());
        values.map(|value| u64::from(value.to_bits())).collect()
    };
    let of = |training: &Training| {
        let mut all = [head(&training.head), head(&training.final_head)].concat();
        for record in &training.history {
            let numbers = [Some(record.train_loss), record.val_loss, record.val_accuracy];
            all.extend(numbers.into_iter().flatten().map(f64::to_bits));
        }
        all
    };
    trainings.iter().flat_map(of).collect()
}
