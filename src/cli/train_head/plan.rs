//! The recipes of a sweep: each combination read as the command line would be.

use std::collections::HashSet;

use super::arguments::{PairParser, TrainingArguments};
use super::overlay::Unread;
use super::suggest::nearest;
use super::values::value_of;
use super::weights::NamedWeights;
use crate::error::{Error, Result};
use crate::head::{Recipe, ValidRecipe};
use crate::sweep::{Axis, Grid, SweepSpec};

/// What `--sweep default` stands for: the optimum at penalties of all strengths, and the tutorial's descent at four rates.
pub(super) const DEFAULT_SWEEP: &[&str] = &[
    "solver=lbfgs,standardize=false,true,C=1e-4..1e2:log7",
    "solver=sgd,lr=1e-4..1e-1:log4",
];

/// One training that is to be tried.
#[derive(Debug, Clone)]
pub(super) struct Combination {
    /// The value of each axis that it reads, in the order of the axes: of those of other grids, the one it has all the same.
    pub(super) settings: Vec<(String, String)>,
    /// The options that it reads, with their values: alone they give the same head.
    options: Vec<(&'static str, String)>,
    recipe: Recipe,
    weights: Option<NamedWeights>,
}

/// All trainings that are to be tried: at least one, no two the same.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// The names of all axes, in the order in which they were written.
    pub(super) axes: Vec<String>,
    pub(super) combinations: Vec<Combination>,
    /// What a careful person would want to know, one line each.
    pub(super) notes: Vec<String>,
}

impl Plan {
    /// One training, of `options` laid over `start`.
    ///
    /// # Errors
    /// [`Error::Options`] for one that its solver does not read, [`Error::Usage`] for those that make no sense, alone or
    /// together.
    pub(super) fn single(options: &TrainingArguments, start: &Recipe) -> Result<Self> {
        let (combination, unread) = Combination::of(options, start, Vec::new())?;
        match unread.first() {
            Some(unread) => Err(unread.error()),
            None => Ok(Self {
                axes: Vec::new(),
                combinations: vec![combination],
                notes: Vec::new(),
            }),
        }
    }

    /// Every combination of `spec`, with the options `base`, laid over `start`.
    ///
    /// A combination does without the axes and options that its solver or schedule does not read; of those that come out the
    /// same, the first is kept.
    ///
    /// # Errors
    /// [`Error::Sweep`] for an axis that is no option or that no combination reads, a value that it can't have, and values
    /// that make no sense together; [`Error::Options`] for an option that no combination reads.
    pub(super) fn of(spec: &SweepSpec, base: &TrainingArguments, start: &Recipe) -> Result<Self> {
        let mut parser = PairParser::new();
        let mut plan = Self {
            axes: Vec::new(),
            combinations: Vec::new(),
            notes: spec.notes.clone(),
        };
        let (mut seen, mut read) = (HashSet::new(), HashSet::new());
        let mut never_read: Vec<Unread> = Vec::new();
        let mut repeated = 0_usize;
        let (mut senseless, mut first_problem) = (0_usize, None);
        for grid in &spec.grids {
            let values = read_values(grid, base, &mut parser)?;
            for axis in &grid.axes {
                if !plan.axes.contains(&axis.name) {
                    plan.axes.push(axis.name.clone());
                }
            }
            for chosen in grid.combinations() {
                let mut options = base.clone();
                let mut settings = Vec::with_capacity(chosen.len());
                for ((axis, values), index) in grid.axes.iter().zip(&values).zip(chosen) {
                    options = values[index].clone().over(&options);
                    settings.push((axis.name.clone(), axis.values[index].clone()));
                }
                let (combination, unread) = match Combination::of(&options, start, settings) {
                    Ok(combination) => combination,
                    Err(Error::Usage(problem)) => {
                        senseless += 1;
                        let origin = grid.axes.first().and_then(|axis| axis.origin.clone());
                        first_problem.get_or_insert((problem, origin));
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                read.extend(combination.options.iter().map(|(name, _)| *name));
                for unread in unread {
                    if !never_read.contains(&unread) {
                        never_read.push(unread);
                    }
                }
                if seen.insert(format!("{:?} {:?}", combination.recipe, combination.weights)) {
                    plan.combinations.push(combination);
                } else {
                    repeated += 1;
                }
            }
        }
        if let Some((problem, origin)) = first_problem {
            if plan.combinations.is_empty() {
                return Err(Error::Sweep {
                    file: origin.map(|origin| origin.file),
                    line: None,
                    axis: None,
                    problem,
                    hint: "`lastlayer train-head --help` says what each option may be: change these values, or leave \
                           them out"
                        .to_owned(),
                });
            }
            plan.notes.push(format!(
                "{senseless} of {} combinations make no sense and are left out, the first: {problem}",
                spec.count()
            ));
        }
        if let Some(unread) = never_read.iter().find(|unread| !read.contains(unread.option)) {
            let axes = spec.grids.iter().flat_map(|grid| &grid.axes);
            return Err(match axes.into_iter().find(|axis| axis.name == unread.option) {
                Some(axis) => axis.error(unread.problem(), unread.hint("")),
                None => unread.error(),
            });
        }
        let Self { axes, combinations, .. } = &mut plan;
        combinations
            .iter_mut()
            .for_each(|combination| combination.complete(axes));
        if repeated > 0 {
            let count = spec.count();
            plan.notes.push(format!(
                "{repeated} of {count} combinations differ from another only in what their solver or schedule does not read, \
                 or not at all: trained once"
            ));
        }
        Ok(plan)
    }

    /// The recipes, for a data set of these classes.
    ///
    /// # Errors
    /// [`Error::Usage`] for a weight of a class that there is not.
    pub(super) fn recipes(&self, classes: &[String]) -> Result<Vec<ValidRecipe>> {
        let combinations = self.combinations.iter();
        combinations.map(|combination| combination.recipe(classes)).collect()
    }
}

impl Combination {
    /// The training with `options` laid over `start`, and the options that it does not read.
    fn of(
        options: &TrainingArguments,
        start: &Recipe,
        mut settings: Vec<(String, String)>,
    ) -> Result<(Self, Vec<Unread>)> {
        let mut recipe = start.clone();
        let in_combination = |error: Error| match error {
            Error::Usage(problem) if !settings.is_empty() => {
                let settings: Vec<String> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
                Error::Usage(format!("{problem} (in the combination {})", settings.join(", ")))
            }
            other => other,
        };
        let unread = options.lay_over(&mut recipe).map_err(in_combination)?;
        recipe.clone().check().map_err(in_combination)?;
        let is_read = |name: &str| unread.iter().all(|unread| unread.option != name);
        settings.retain(|(name, _)| is_read(name));
        let mut given = options.given();
        given.retain(|(name, _)| is_read(name));
        let combination = Self {
            settings,
            options: given,
            recipe,
            weights: options.class_weights.clone(),
        };
        Ok((combination, unread))
    }

    /// The recipe, for a data set of these classes.
    ///
    /// # Errors
    /// [`Error::Usage`] for a weight of a class that there is not.
    pub(super) fn recipe(&self, classes: &[String]) -> Result<ValidRecipe> {
        let mut recipe = self.recipe.clone();
        if let Some(weights) = &self.weights {
            weights.resolve(classes, &mut recipe)?;
        }
        recipe.check()
    }

    /// Adds the values of those of `axes` that other grids vary.
    fn complete(&mut self, axes: &[String]) {
        let own = std::mem::take(&mut self.settings);
        for axis in axes {
            let named = (axis == "class-weights").then(|| self.weights.as_ref().map(ToString::to_string));
            let value = own
                .iter()
                .find(|(name, _)| name == axis)
                .map(|(_, value)| value.clone());
            let value = value
                .or_else(|| named.flatten())
                .or_else(|| value_of(&self.recipe, axis));
            self.settings.extend(value.map(|value| (axis.clone(), value)));
        }
    }

    /// The options that alone give the same head, as they are written.
    pub(super) fn command_line(&self) -> Vec<String> {
        let options = self.options.iter();
        options.map(|(name, value)| format!("--{name}={value}")).collect()
    }
}

/// What each value of each axis says, read as an option.
fn read_values(grid: &Grid, base: &TrainingArguments, parser: &mut PairParser) -> Result<Vec<Vec<TrainingArguments>>> {
    let given = base.given();
    let mut all = Vec::with_capacity(grid.axes.len());
    for axis in &grid.axes {
        if !parser.names().contains(&axis.name.as_str()) {
            let meant = nearest(&axis.name, &parser.names());
            let meant = meant.map_or_else(String::new, |name| format!("did you mean `{name}`? "));
            let hint = format!("{meant}an axis is one of {}", parser.names().join(", "));
            return Err(axis.error("is no option of a training".to_owned(), hint));
        }
        if given.iter().any(|(name, _)| *name == axis.name) {
            let hint = format!("leave out `--{}`, or the axis", axis.name);
            return Err(axis.error("is given as an option too".to_owned(), hint));
        }
        let names: Vec<String> = parser.names().into_iter().map(str::to_owned).collect();
        let mut values = Vec::with_capacity(axis.values.len());
        for value in &axis.values {
            let read = parser
                .parse(&axis.name, value)
                .map_err(|error| axis.error(error.to_string(), hint_for(value, axis, &names)))?;
            values.push(read);
        }
        all.push(values);
    }
    Ok(all)
}

/// What to do about a value that an axis can't have.
fn hint_for(value: &str, axis: &Axis, names: &[String]) -> String {
    if names.iter().any(|name| name == value) {
        return format!("`{value}` is an option of its own: write its values behind it, `{value}=A,B`");
    }
    format!("`lastlayer train-head --help` says what `--{}` may be", axis.name)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
