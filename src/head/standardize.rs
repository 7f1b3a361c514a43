//! Features of mean 0 and variance 1, and heads that were trained on them turned into heads for the features as they were.
//!
//! A penalty or a learning rate treats all features alike only if they have one scale. No head ever asks its user to
//! standardise: [`Standardizer::fold`] puts means and deviations into weight and bias.

use ndarray::{Array1, Array2, ArrayBase, ArrayView2, Axis, CowArray, Ix2};
use rayon::prelude::*;

use super::linear::LinearHead;
use super::objective;
use super::training::{Examples, Training, TrainingTask};
use crate::{Error, Observer, Result};

/// Rows that one thread takes at a time.
const ROWS: usize = 1024;

/// The mean and the standard deviation of each feature over the rows that are trained on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Standardizer {
    /// `[dim]`.
    mean: Vec<f64>,
    /// `[dim]`: the population's deviation, as scikit-learn's `StandardScaler`; 1 for a feature that never changes.
    deviation: Vec<f64>,
}

/// A task's features, standardised.
#[derive(Debug)]
pub(super) struct Standardized<'a> {
    classes: usize,
    /// Of a task with views, on which solvers train in place of the training rows, these as they were.
    train: CowArray<'a, f32, Ix2>,
    labels: &'a [usize],
    sample_weights: Option<&'a [f64]>,
    views: Vec<Array2<f32>>,
    validation: Option<(Array2<f32>, &'a [usize])>,
    initial: Option<LinearHead>,
    order: Option<&'a [Vec<usize>]>,
}

/// Trains on standardised features; the heads that come out apply to the features as they were.
///
/// The records of the history and the objective are those of the standardised problem. The folded head's losses are the same
/// but for its rounding to f32.
///
/// # Errors
/// Those of `train`, and [`Error::Examples`] if a standardised feature is too large for f32.
pub(super) fn standardized(
    task: &TrainingTask<'_>,
    observer: &dyn Observer,
    train: impl FnOnce(&TrainingTask<'_>) -> Result<Training>,
) -> Result<Training> {
    with_standardized(task, observer, |task, fold| train(task).and_then(fold))?
}

/// Hands a task on standardised features to `train`, and what turns its trainings into trainings for features as they were.
///
/// # Errors
/// [`Error::Examples`] if a standardised feature is too large for f32, [`Error::Interrupted`] if the observer asks for it.
pub(super) fn with_standardized<T>(
    task: &TrainingTask<'_>,
    observer: &dyn Observer,
    train: impl FnOnce(&TrainingTask<'_>, &(dyn Fn(Training) -> Result<Training> + Sync)) -> T,
) -> Result<T> {
    let standardizer = Standardizer::of(task, observer)?;
    let standardized = standardizer.apply(task, observer)?;
    let fold = |mut training: Training| {
        training.head = standardizer.fold(&training.head)?;
        training.final_head = standardizer.fold(&training.final_head)?;
        Ok(training)
    };
    Ok(train(&standardized.task()?, &fold))
}

impl Standardizer {
    /// Measures what the task trains on: its training rows or, where it has some, their views. Every row counts the same.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the observer asks for it.
    pub(super) fn of(task: &TrainingTask<'_>, observer: &dyn Observer) -> Result<Self> {
        let matrices = objective::matrices(task);
        let count = (matrices.len() * task.train().rows()) as f64;
        let mean: Vec<f64> = sums(&matrices, observer, |_, value| value)?
            .into_iter()
            .map(|sum| sum / count)
            .collect();
        let squares = sums(&matrices, observer, |column, value| (value - mean[column]).powi(2))?;
        let deviation = |(&sum, &mean): (&f64, &f64)| {
            let variance: f64 = sum / count;
            // Rounding leaves a little of a feature that is the same in each row.
            let none = variance <= (10.0 * f64::EPSILON * mean).powi(2) * count;
            if none { 1.0 } else { variance.sqrt() }
        };
        let deviation = squares.iter().zip(&mean).map(deviation).collect();
        Ok(Self { mean, deviation })
    }

    /// The features of `rows` (`[n, dim]`), standardised.
    fn rows(&self, rows: ArrayView2<'_, f32>, observer: &dyn Observer) -> Result<Array2<f32>> {
        let mut rows = rows.to_owned();
        let mut blocks: Vec<_> = rows.axis_chunks_iter_mut(Axis(0), ROWS).collect();
        blocks.par_iter_mut().try_for_each(|block| {
            if observer.interrupted() {
                return Err(Error::Interrupted);
            }
            for mut row in block.rows_mut() {
                for ((value, mean), deviation) in row.iter_mut().zip(&self.mean).zip(&self.deviation) {
                    *value = ((f64::from(*value) - mean) / deviation) as f32;
                }
            }
            Ok(())
        })?;
        Ok(rows)
    }

    /// What is trained and validated on, standardised; the initial head is turned accordingly.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the observer asks for it.
    pub(super) fn apply<'a>(&self, task: &'a TrainingTask<'_>, observer: &dyn Observer) -> Result<Standardized<'a>> {
        let train = task.train().features();
        let views = task.views().iter().map(|view| self.rows(view.view(), observer));
        let validation = task.validation().map(|rows| -> Result<_> {
            let features = self.rows(rows.features(), observer)?;
            Ok((features, rows.labels()))
        });
        Ok(Standardized {
            classes: task.classes(),
            train: if task.views().is_empty() {
                CowArray::from(self.rows(train, observer)?)
            } else {
                CowArray::from(train)
            },
            labels: task.train().labels(),
            sample_weights: task.sample_weights(),
            views: views.collect::<Result<_>>()?,
            validation: validation.transpose()?,
            initial: task.initial_head().map(|head| self.unfold(head)).transpose()?,
            order: task.order(),
        })
    }

    /// The head for features as they were that gives the logits `head` gives for standardised ones.
    ///
    /// `x' = (x - m) / d`, so `W = W' / d` and `b = b' - W · m`.
    ///
    /// # Errors
    /// None that a valid head could cause: those of [`LinearHead`].
    pub(super) fn fold(&self, head: &LinearHead) -> Result<LinearHead> {
        self.turn(head, |weight, deviation| weight / deviation, |folded, _| -folded)
    }

    /// The head for standardised features that gives the logits `head` gives for the features as they were.
    ///
    /// # Errors
    /// None that a valid head could cause: those of [`LinearHead`].
    pub(super) fn unfold(&self, head: &LinearHead) -> Result<LinearHead> {
        self.turn(head, |weight, deviation| weight * deviation, |_, raw| raw)
    }

    /// Scales the weights, and adds to each bias `shift` of the products of its new and of its old weights with the means.
    fn turn(&self, head: &LinearHead, scale: fn(f64, f64) -> f64, shift: fn(f64, f64) -> f64) -> Result<LinearHead> {
        let mut weight = Array2::zeros((head.classes(), head.dim()));
        let mut bias = Array1::zeros(head.classes());
        for (class, old) in head.weight().rows().into_iter().enumerate() {
            let (mut of_new, mut of_old) = (0.0, 0.0);
            for (column, &old) in old.iter().enumerate() {
                let new = scale(f64::from(old), self.deviation[column]) as f32;
                weight[[class, column]] = new;
                // The new weight as it is stored: its rounding error meets the mean in the bias and goes away.
                of_new += f64::from(new) * self.mean[column];
                of_old += f64::from(old) * self.mean[column];
            }
            bias[class] = (f64::from(head.bias()[class]) + shift(of_new, of_old)) as f32;
        }
        LinearHead::new(weight, bias)
    }
}

impl Standardized<'_> {
    /// The task on these features.
    ///
    /// # Errors
    /// [`Error::Examples`] if a standardised feature is too large for f32.
    pub(super) fn task(&self) -> Result<TrainingTask<'_>> {
        let mut task = TrainingTask::new(self.classes, Examples::new(self.train.view(), self.labels)?)?;
        if let Some(weights) = self.sample_weights {
            task = task.with_sample_weights(weights)?;
        }
        if !self.views.is_empty() {
            task = task.with_views(self.views.iter().map(ArrayBase::view).collect())?;
        }
        if let Some((features, labels)) = &self.validation {
            task = task.with_validation(Examples::new(features.view(), labels)?)?;
        }
        if let Some(head) = &self.initial {
            task = task.with_initial_head(head.clone())?;
        }
        if let Some(order) = self.order {
            task = task.with_order(order)?;
        }
        Ok(task)
    }
}

/// The sum over all rows of `of(column, feature)`, for each feature; block after block, whatever the threads.
fn sums(
    matrices: &[ArrayView2<'_, f32>],
    observer: &dyn Observer,
    of: impl Fn(usize, f64) -> f64 + Sync,
) -> Result<Vec<f64>> {
    let dim = matrices[0].ncols();
    let blocks: Vec<_> = matrices
        .iter()
        .flat_map(|matrix| matrix.axis_chunks_iter(Axis(0), ROWS))
        .collect();
    let parts = blocks.par_iter().map(|block| {
        if observer.interrupted() {
            return Err(Error::Interrupted);
        }
        let mut sums = vec![0.0; dim];
        for row in block.rows() {
            for (column, (sum, &value)) in sums.iter_mut().zip(row).enumerate() {
                *sum += of(column, f64::from(value));
            }
        }
        Ok(sums)
    });
    let parts = parts.collect::<Result<Vec<_>>>()?;
    let mut total = vec![0.0; dim];
    for part in &parts {
        for (total, sum) in total.iter_mut().zip(part) {
            *total += sum;
        }
    }
    Ok(total)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use ndarray::array;

    use super::super::objective::tests::made;
    use super::super::recipe::{Descent, Lbfgs, Recipe, Solver, train_all};
    use super::*;
    use crate::Quiet;

    #[test]
    fn the_features_have_mean_0_and_variance_1() {
        let (features, labels) = made(2500, 4, 3);
        let mut features = features.mapv(|value| value * 30.0 + 1000.0);
        features.column_mut(2).fill(0.1);
        let task = TrainingTask::new(3, Examples::new(features.view(), &labels).unwrap()).unwrap();
        let standardizer = Standardizer::of(&task, &Quiet).unwrap();
        assert_eq!(standardizer.deviation[2], 1.0);
        let standardized = standardizer.apply(&task, &Quiet).unwrap();
        for (number, column) in standardized
            .task()
            .unwrap()
            .train()
            .features()
            .columns()
            .into_iter()
            .enumerate()
        {
            let column = column.mapv(f64::from);
            let expected = if number == 2 { 0.0 } else { 1.0 };
            // The features are rounded to f32, 1000 of them to 6e-5.
            assert!(column.mean().unwrap().abs() < 1e-5, "{number}");
            assert!((column.var(0.0) - expected).abs() < 1e-5, "{number}");
        }
    }

    #[test]
    fn a_folded_head_gives_the_same_logits_on_the_features_as_they_were() {
        let (features, labels) = made(100, 20, 3);
        let (validation, of_validation) = made(40, 20, 3);
        let task = TrainingTask::new(3, Examples::new(features.view(), &labels).unwrap()).unwrap();
        let initial = LinearHead::uniform(3, 20, 4).unwrap();
        let task = task
            .with_validation(Examples::new(validation.view(), &of_validation).unwrap())
            .unwrap()
            .with_initial_head(initial.clone())
            .unwrap();
        let standardizer = Standardizer::of(&task, &Quiet).unwrap();
        let standardized = standardizer.apply(&task, &Quiet).unwrap();
        let turned = standardized.task().unwrap();
        let near = |a: &LinearHead, x: ArrayView2<'_, f32>, b: &LinearHead, y: ArrayView2<'_, f32>| {
            let difference = a.logits(x).unwrap() - b.logits(y).unwrap();
            assert!(difference.iter().all(|error| error.abs() < 2e-6), "{difference}");
        };
        let head = LinearHead::uniform(3, 20, 9).unwrap();
        let folded = standardizer.fold(&head).unwrap();
        near(&folded, features.view(), &head, turned.train().features());
        let of_validation = turned.validation().unwrap().features();
        near(&folded, validation.view(), &head, of_validation);
        near(
            &initial,
            features.view(),
            turned.initial_head().unwrap(),
            turned.train().features(),
        );
    }

    #[test]
    fn a_standardised_training_scores_the_same_on_the_features_as_they_were() {
        let (features, labels) = made(300, 10, 3);
        // Of very different scales, so that without standardising the penalty is another one.
        let scales = [1e-3, 1.0, 1e3, 30.0, 1e-2, 5.0, 1.0, 200.0, 0.1, 1.0_f32];
        let features = &features * &Array1::from(scales.to_vec());
        let task = TrainingTask::new(3, Examples::new(features.view(), &labels).unwrap()).unwrap();
        let task = task
            .with_validation(Examples::new(features.view(), &labels).unwrap())
            .unwrap();
        for solver in [
            Solver::Lbfgs(Lbfgs::default()),
            Solver::Linfa(Lbfgs::default()),
            Solver::Descent(Descent::sgd()),
        ] {
            let recipe = |standardize| Recipe {
                solver: solver.clone(),
                standardize,
                ..Recipe::default()
            };
            let train = |recipe: Recipe| recipe.check().unwrap().train(&task, &Quiet, &mut |_| ());
            let training = train(recipe(true)).unwrap();
            let loss = training.head.score(features.view(), &labels).unwrap().loss();
            assert!((training.best().val_loss.unwrap() / loss - 1.0).abs() < 1e-4);
            if let Ok(plain) = train(recipe(false)) {
                assert_ne!(plain.head, training.head);
            }
            // In a sweep beside one that isn't, bit for bit the same.
            let both = [recipe(false), recipe(true)].map(|recipe| recipe.check().unwrap());
            let swept = std::sync::Mutex::new(None);
            train_all(&both, &task, &Quiet, &|index, training| {
                if index == 1 {
                    *swept.lock().unwrap() = Some(training.unwrap());
                }
            });
            assert_eq!(swept.into_inner().unwrap().unwrap(), training);
        }
    }

    #[test]
    fn views_are_measured_where_they_are_trained_on() {
        let x = array![[1_f32], [1.0]];
        let views = array![[0_f32], [4.0]];
        let task = TrainingTask::new(2, Examples::new(x.view(), &[0, 1]).unwrap()).unwrap();
        let task = task.with_views(vec![views.view(), views.view()]).unwrap();
        let standardizer = Standardizer::of(&task, &Quiet).unwrap();
        assert_eq!((standardizer.mean[0], standardizer.deviation[0]), (2.0, 2.0));
        let standardized = standardizer.apply(&task, &Quiet).unwrap();
        let turned = standardized.task().unwrap();
        assert_eq!(turned.views()[1], array![[-1_f32], [1.0]]);
        // Nobody trains on these: they are not copied.
        assert_eq!(turned.train().features().as_ptr(), x.as_ptr());
    }
}
