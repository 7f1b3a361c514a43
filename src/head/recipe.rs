//! The resolved configuration of one training: every choice that decides which head comes out of given examples.
//!
//! A [`Recipe`] is plain data, saved and read back with the runs it made; checked, it becomes a [`ValidRecipe`] that trains.
//! How each solver works is in the solvers' own modules, what an option may be in [`check`].

mod check;

use linfa::dataset::{AsSingleTargets, DatasetBase};
use linfa::traits::Fit;
use ndarray::{ArrayBase, Data, Ix2};
use serde::{Deserialize, Serialize};

use super::linear::LinearHead;
use super::schedule::Schedule;
use super::side_by_side::side_by_side;
use super::training::{EpochRecord, Examples, Training, TrainingTask};
use super::{descent, lbfgs, linfa_logistic, objective, standardize};
use crate::{Error, Observer, Quiet, Result};

/// How a head is trained, not yet checked.
///
/// The default is that of PyTorch's transfer-learning tutorial: SGD of 25 epochs with mini-batches of 4, learning rate
/// 0.001, momentum 0.9, times 0.1 every 7 epochs. [`check`](Self::check) gives the [`ValidRecipe`] that trains; linfa's
/// [`Fit`] checks first.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// How the head is found. Default: SGD.
    pub solver: Solver,
    /// How much an example of each class counts in the loss. Default: the same.
    pub class_weights: ClassWeights,
    /// The share of each target that is spread evenly over all classes, in 0..1, as PyTorch's `label_smoothing`.
    ///
    /// Where classes have weights, what is spread counts with the weight of the class it falls on in descent, as in PyTorch,
    /// and with that of the row's own class in `lbfgs` and `linfa`, where a weight is a row's. Default: 0.
    pub label_smoothing: f64,
    /// Trains on features of mean 0 and variance 1; the head that comes out applies to the features as they were.
    /// Default: false.
    pub standardize: bool,
    /// Where the initial weights and the order of the rows come from. Default: 0.
    pub seed: u64,
}

/// How a head is found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Solver {
    /// Mini-batch gradient descent.
    Descent(Descent),
    /// The optimum of the regularised loss, by our own L-BFGS.
    Lbfgs(Lbfgs),
    /// The same by linfa-logistic, whose result is checked and, where it is not the optimum, repaired.
    Linfa(Lbfgs),
}

impl Default for Solver {
    fn default() -> Self {
        Self::Descent(Descent::default())
    }
}

impl Solver {
    /// The solver's name on the command line: `sgd`, `adamw`, `lbfgs`, `linfa`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Descent(Descent {
                update: Update::Sgd { .. },
                ..
            }) => "sgd",
            Self::Descent(Descent {
                update: Update::AdamW { .. },
                ..
            }) => "adamw",
            Self::Lbfgs(_) => "lbfgs",
            Self::Linfa(_) => "linfa",
        }
    }
}

/// Options of mini-batch gradient descent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Descent {
    /// How often every training row is seen. Default: 25.
    pub epochs: usize,
    /// Rows of a mini-batch; the last one of an epoch may be smaller. Default: 4.
    pub batch_size: usize,
    /// The learning rate that the schedule starts from. Default: 0.001.
    pub learning_rate: f64,
    /// L2 penalty. SGD adds this times the parameter to its gradient, AdamW shrinks the parameter itself by this times the
    /// learning rate; for weight and bias, as PyTorch does. Default: 0 for SGD, 0.01 for AdamW.
    pub weight_decay: f64,
    /// What a step does. Default: SGD with momentum 0.9.
    pub update: Update,
    /// How the learning rate changes. Default: times 0.1 every 7 epochs.
    pub schedule: Schedule,
    /// Epochs over which the learning rate first rises to its value. Default: 0.
    pub warm_up_epochs: usize,
    /// When to end before the last epoch. Default: never.
    pub early_stopping: Option<EarlyStopping>,
    /// The largest norm of a step's gradient, weight and bias together; a longer one is scaled down. Default: none.
    pub clip_norm: Option<f64>,
    /// Which rows an epoch sees. Default: each once.
    pub sampling: Sampling,
}

impl Default for Descent {
    fn default() -> Self {
        Self::sgd()
    }
}

impl Descent {
    /// Stochastic gradient descent with the tutorial's options.
    #[must_use]
    pub fn sgd() -> Self {
        Self {
            epochs: 25,
            batch_size: 4,
            learning_rate: 0.001,
            weight_decay: 0.0,
            update: Update::sgd(),
            schedule: Schedule::default(),
            warm_up_epochs: 0,
            early_stopping: None,
            clip_norm: None,
            sampling: Sampling::Shuffled,
        }
    }

    /// AdamW with PyTorch's options and the tutorial's epochs, batch size and schedule.
    #[must_use]
    pub fn adamw() -> Self {
        Self {
            weight_decay: 0.01,
            update: Update::adamw(),
            ..Self::sgd()
        }
    }
}

/// What a step does with the gradient.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Update {
    /// PyTorch's `torch.optim.SGD`.
    Sgd {
        /// How much of a step goes into the next one. Default: 0.9.
        momentum: f64,
        /// How much less than the whole gradient goes into the momentum, after the first step. Default: 0.
        dampening: f64,
        /// Looks ahead along the momentum; it needs momentum and no dampening. Default: false.
        nesterov: bool,
    },
    /// PyTorch's `torch.optim.AdamW`: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019.
    #[serde(rename = "adamw")]
    AdamW {
        /// Decay of the gradient's running mean. Default: 0.9.
        beta1: f64,
        /// Decay of the squared gradient's running mean. Default: 0.999.
        beta2: f64,
        /// Added to the root of the latter. Default: 1e-8.
        epsilon: f64,
    },
}

impl Update {
    /// SGD with momentum 0.9.
    #[must_use]
    pub fn sgd() -> Self {
        Self::Sgd {
            momentum: 0.9,
            dampening: 0.0,
            nesterov: false,
        }
    }

    /// AdamW with PyTorch's defaults.
    #[must_use]
    pub fn adamw() -> Self {
        Self::AdamW {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
        }
    }
}

/// Ends a training whose validation loss falls no more; it needs validation examples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EarlyStopping {
    /// Epochs in a row without an improvement after which the training ends.
    pub patience: usize,
    /// By how much the validation loss must fall below the lowest one so far to count as an improvement.
    pub min_delta: f64,
}

/// Which rows an epoch sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// Each row once, in random order.
    #[default]
    Shuffled,
    /// As many rows as there are, drawn with replacement so that each class is as likely as another: PyTorch's
    /// `WeightedRandomSampler` with weights of 1 / examples of the class.
    Balanced,
}

/// How much an example of each class counts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassWeights {
    /// All the same.
    #[default]
    Equal,
    /// `examples / (classes · examples of the class)`, as scikit-learn's `class_weight="balanced"`: examples count by their
    /// sample weights, and only classes that have some; 0 without.
    Balanced,
    /// These, one a class.
    Given(Vec<f64>),
}

/// Options of the solvers that go to the optimum of `C · Σ sᵢ·cross-entropyᵢ + ½·|W|²`; the bias is not penalised.
///
/// Of two classes it is that of `C · Σ sᵢ·cross-entropyᵢ + |W|²`: scikit-learn has one weight row then, `w = W₁ - W₀`, and
/// penalises `½·|w|²`, which is `|W|²` at the optimum.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lbfgs {
    /// Inverse strength of the penalty, as scikit-learn's `C`: for rows of weight `n` together it is 1 / (n · PyTorch's
    /// weight decay), of two classes 2 / (n · weight decay).
    /// Default: 1.
    pub c: f64,
    /// Iterations after which the solver gives up; where what `linfa` found is repaired, the repair has as many again.
    /// Default: 1000.
    pub max_iterations: usize,
    /// The largest component of the gradient, of the objective divided by C and the rows' weights, at which the solver is done;
    /// where that objective is below 1, a share of it.
    /// Default: 1e-6.
    pub gradient_tolerance: f64,
}

impl Default for Lbfgs {
    fn default() -> Self {
        Self {
            c: 1.0,
            max_iterations: 1000,
            gradient_tolerance: 1e-6,
        }
    }
}

impl From<Descent> for Recipe {
    fn from(descent: Descent) -> Self {
        Self {
            solver: Solver::Descent(descent),
            ..Self::default()
        }
    }
}

impl From<Lbfgs> for Recipe {
    fn from(lbfgs: Lbfgs) -> Self {
        Self {
            solver: Solver::Lbfgs(lbfgs),
            ..Self::default()
        }
    }
}

/// Weights of the largest head that targets alone may ask for; 1 GiB, six times ImageNet-21k's on 2048 features.
const MOST_WEIGHTS: usize = 1 << 28;

/// A checked [`Recipe`]: it trains.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct ValidRecipe(Recipe);

impl ValidRecipe {
    /// The options.
    #[must_use]
    pub fn recipe(&self) -> &Recipe {
        &self.0
    }

    /// Trains a head and hands each epoch's record to `on_epoch` as soon as it is known.
    ///
    /// The result depends on the task and these options alone, not on the number of threads.
    ///
    /// # Errors
    /// [`Error::Diverged`] if a loss or weight becomes infinite or NaN, [`Error::NoOptimum`] if the objective is so at the
    /// start, [`Error::Interrupted`] as soon as the observer asks for it (a head of fewer epochs is not what was ordered, so
    /// it is not handed out), [`Error::Examples`] if the task does not fit these options.
    pub fn train(
        &self,
        task: &TrainingTask<'_>,
        observer: &dyn Observer,
        on_epoch: &mut dyn FnMut(&EpochRecord),
    ) -> Result<Training> {
        if self.0.standardize {
            standardize::standardized(task, observer, |task| self.solve(task, observer, on_epoch))
        } else {
            self.solve(task, observer, on_epoch)
        }
    }

    /// Trains on the features as they are given.
    fn solve(
        &self,
        task: &TrainingTask<'_>,
        observer: &dyn Observer,
        on_epoch: &mut dyn FnMut(&EpochRecord),
    ) -> Result<Training> {
        match &self.0.solver {
            Solver::Descent(options) => descent::train(&self.0, options, task, observer, on_epoch),
            Solver::Lbfgs(options) => lbfgs::fit(options, &self.0, task, observer, on_epoch),
            Solver::Linfa(options) => linfa_logistic::fit(options, &self.0, task, observer, on_epoch),
        }
    }
}

/// Trains a head for each of `recipes` on the same examples, and hands each over with its index as soon as it is done.
///
/// Each is bit for bit what [`ValidRecipe::train`] gives. One that fails does not end the others. The trainings come in any
/// order, from any thread; the receiver decides what is kept in memory.
pub fn train_all(
    recipes: &[ValidRecipe],
    task: &TrainingTask<'_>,
    observer: &dyn Observer,
    on_trained: &(dyn Fn(usize, Result<Training>) + Sync),
) {
    let (standardized, plain): (Vec<_>, Vec<_>) = (0..recipes.len()).partition(|&index| recipes[index].0.standardize);
    train_group(recipes, &plain, task, observer, on_trained);
    if standardized.is_empty() {
        return;
    }
    // The features are standardised once for all.
    let on_standardized = |turned: &TrainingTask<'_>, fold: &(dyn Fn(Training) -> Result<Training> + Sync)| {
        let on_trained = |index, training: Result<Training>| on_trained(index, training.and_then(fold));
        train_group(recipes, &standardized, turned, observer, &on_trained);
    };
    if standardize::with_standardized(task, observer, on_standardized).is_err() {
        // Each finds out for itself what stands in the way.
        for index in standardized {
            on_trained(index, recipes[index].train(task, observer, &mut |_| ()));
        }
    }
}

/// Trains the recipes of these indexes on features that are standardised where they shall be.
fn train_group(
    recipes: &[ValidRecipe],
    indexes: &[usize],
    task: &TrainingTask<'_>,
    observer: &dyn Observer,
    on_trained: &(dyn Fn(usize, Result<Training>) + Sync),
) {
    let (mut descents, mut lbfgs, mut linfa) = (Vec::new(), Vec::new(), Vec::new());
    for &index in indexes {
        let recipe = &recipes[index].0;
        match &recipe.solver {
            Solver::Descent(options) => descents.push((index, recipe, options)),
            Solver::Lbfgs(_) => lbfgs.push(index),
            Solver::Linfa(_) => linfa.push(index),
        }
    }
    let solve = |index: usize| on_trained(index, recipes[index].solve(task, observer, &mut |_| ()));
    descent::train_all(&descents, task, observer, on_trained);
    let threads = rayon::current_num_threads();
    let rows = task.train().rows() * task.views().len().max(1);
    // One after another where each evaluation fills the cores.
    let at_once = if objective::parts(rows) < lbfgs.len().min(threads) {
        threads
    } else {
        1
    };
    side_by_side(lbfgs.len(), at_once, &|place| solve(lbfgs[place]));
    // One after another, for each holds a copy of the features in f64.
    linfa.into_iter().for_each(solve);
}

impl<D, T> Fit<ArrayBase<D, Ix2>, T, Error> for Recipe
where
    D: Data<Elem = f32>,
    T: AsSingleTargets<Elem = usize>,
{
    type Object = LinearHead;

    /// Trains on the whole data set, without validation, a head of as many classes as the largest target asks for. The
    /// data set's weights, where it has some, are the examples' weights.
    ///
    /// # Errors
    /// [`Error::Examples`] if a target is so large that the head would have more than 2²⁸ weights; otherwise those of
    /// [`Recipe::check`] and [`ValidRecipe::train`].
    fn fit(&self, dataset: &DatasetBase<ArrayBase<D, Ix2>, T>) -> Result<LinearHead> {
        let recipe = self.clone().check()?;
        let labels = dataset.targets.as_single_targets().to_vec();
        let classes = labels.iter().max().map_or(0, |&largest| largest.saturating_add(1));
        let dim = dataset.records.ncols();
        if classes.saturating_mul(dim) > MOST_WEIGHTS {
            return Err(Error::Examples(format!(
                "a target is {}: a head of that many classes and {dim} features is too large; number the classes 0, 1, 2, …",
                classes - 1
            )));
        }
        let weights: Option<Vec<f64>> = dataset
            .weights()
            .map(|weights| weights.iter().copied().map(f64::from).collect());
        let mut task = TrainingTask::new(classes, Examples::new(dataset.records.view(), &labels)?)?;
        if let Some(weights) = &weights {
            task = task.with_sample_weights(weights)?;
        }
        recipe
            .train(&task, &Quiet, &mut |_| ())
            .map(|training| training.final_head)
    }
}

#[cfg(test)]
#[path = "recipe_tests.rs"]
mod tests;
