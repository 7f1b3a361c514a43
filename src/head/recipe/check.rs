//! What the options of a training may be, each by itself and beside the others.
//!
//! Whether they fit a task, its classes say, is known only where they meet it.

use super::{ClassWeights, Descent, EarlyStopping, Lbfgs, Recipe, Solver, Update, ValidRecipe};
use crate::{Error, Result};

impl Recipe {
    /// Checks all options.
    ///
    /// # Errors
    /// [`Error::Usage`], naming the option and what it may be.
    pub fn check(self) -> Result<ValidRecipe> {
        let usage = |problem: String| Err(Error::Usage(problem));
        let smoothing = self.label_smoothing;
        if !(0.0..1.0).contains(&smoothing) {
            return usage(format!("the label smoothing is {smoothing}: it lies in 0..1"));
        }
        if let ClassWeights::Given(weights) = &self.class_weights {
            if let Some(weight) = weights.iter().find(|weight| !(weight.is_finite() && **weight >= 0.0)) {
                return usage(format!(
                    "a class weight is {weight}: it must be a finite number, 0 or above"
                ));
            }
            if weights.iter().all(|&weight| weight == 0.0) {
                return usage("all class weights are 0: there is nothing to learn".to_owned());
            }
        }
        match &self.solver {
            Solver::Descent(descent) => descent.check()?,
            Solver::Lbfgs(lbfgs) | Solver::Linfa(lbfgs) => lbfgs.check()?,
        }
        Ok(ValidRecipe(self))
    }
}

impl Descent {
    fn check(&self) -> Result<()> {
        let usage = |problem: String| Err(Error::Usage(problem));
        if self.epochs == 0 {
            return usage("0 epochs train nothing: give at least 1".to_owned());
        }
        if self.batch_size == 0 {
            return usage("the batch size is 0: it must be at least 1".to_owned());
        }
        positive("learning rate", self.learning_rate)?;
        not_negative("weight decay", self.weight_decay)?;
        match self.update {
            Update::Sgd {
                momentum,
                dampening,
                nesterov,
            } => {
                not_negative("momentum", momentum)?;
                if !dampening.is_finite() {
                    return usage(format!("the dampening is {dampening}: it must be a finite number"));
                }
                if nesterov && (momentum == 0.0 || dampening != 0.0) {
                    return usage("nesterov needs a momentum above 0 and a dampening of 0".to_owned());
                }
            }
            Update::AdamW { beta1, beta2, epsilon } => {
                for (name, beta) in [("beta1", beta1), ("beta2", beta2)] {
                    if !(0.0..1.0).contains(&beta) {
                        return usage(format!("{name} is {beta}: it lies in 0..1"));
                    }
                }
                positive("epsilon", epsilon)?;
            }
        }
        if let Some(clip_norm) = self.clip_norm {
            positive("largest norm of the gradient", clip_norm)?;
        }
        if let Some(EarlyStopping { patience, min_delta }) = self.early_stopping {
            if patience == 0 {
                return usage("a patience of 0 epochs ends every training: give at least 1".to_owned());
            }
            not_negative("least improvement", min_delta)?;
        }
        self.schedule.check()?;
        self.schedule.check_warm_up(self.warm_up_epochs, self.epochs)
    }
}

impl Lbfgs {
    fn check(&self) -> Result<()> {
        positive("C", self.c)?;
        positive("gradient tolerance", self.gradient_tolerance)?;
        if self.max_iterations == 0 {
            return Err(Error::Usage("0 iterations find nothing: give at least 1".to_owned()));
        }
        Ok(())
    }
}

fn positive(name: &str, value: f64) -> Result<()> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "the {name} is {value}: it must be a finite number above 0"
    )))
}

fn not_negative(name: &str, value: f64) -> Result<()> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "the {name} is {value}: it must be a finite number, 0 or above"
    )))
}
