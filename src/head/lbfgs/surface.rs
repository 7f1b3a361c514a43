//! The objective as argmin sees it: a function of preconditioned variables whose evaluations are counted.
//!
//! argmin asks for value and gradient one after the other, and for the accepted point again: the last point is remembered.

use std::cell::{Cell, RefCell};

use argmin::core::{ArgminError, CostFunction, Gradient};
use ndarray::Array1;

use crate::head::objective::{Objective, Parameters, Products};
use crate::head::preconditioner::Preconditioner;
use crate::{Error, Observer, Result};

/// The variables, or the derivatives by them.
pub(super) type Vector = Array1<f64>;
type Looked<T> = std::result::Result<T, argmin::core::Error>;

/// An objective in preconditioned variables.
pub(super) struct Surface<'o, 'a> {
    observer: &'o dyn Observer,
    pub(super) objective: &'o Objective<'a>,
    pub(super) preconditioner: RefCell<Preconditioner>,
    pub(super) products: Cell<Products>,
    last: RefCell<Option<Seen>>,
    /// The point from which the running line search started.
    origin: RefCell<Option<Seen>>,
    /// Evaluations that the running line search may still ask for: argmin's has no limit of its own.
    allowance: Cell<usize>,
}

/// A point and the objective there.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) at: Vector,
    pub(super) value: f64,
    /// The value less that at the line search's origin, see [`Surface::height`].
    pub(super) height: f64,
    pub(super) gradient: Vector,
    /// The largest component of the gradient in the original coordinates.
    pub(super) norm: f64,
}

impl<'o, 'a> Surface<'o, 'a> {
    pub(super) fn new(objective: &'o Objective<'a>, start: &Parameters, observer: &'o dyn Observer) -> Self {
        Self {
            observer,
            objective,
            preconditioner: RefCell::new(Preconditioner::of(objective, start)),
            products: Cell::new(Products::Single),
            last: RefCell::new(None),
            origin: RefCell::new(None),
            allowance: Cell::new(0),
        }
    }

    pub(super) fn parameters(&self, at: &Vector) -> Parameters {
        self.preconditioner
            .borrow()
            .parameters(at, self.objective.classes().len())
    }

    /// What `of` takes of a point, which is looked at if need be.
    pub(super) fn see<T>(&self, at: &Vector, of: impl FnOnce(&Seen) -> T) -> Looked<T> {
        let mut last = self.last.borrow_mut();
        if let Some(seen) = last.as_ref().filter(|seen| seen.at == *at) {
            return Ok(of(seen));
        }
        let fails = |text: &str| ArgminError::ConditionViolated { text: text.to_owned() }.into();
        let Some(allowance) = self.allowance.get().checked_sub(1) else {
            return Err(fails("the line search does not end"));
        };
        self.allowance.set(allowance);
        let evaluation = self
            .objective
            .evaluate(&self.parameters(at), self.products.get(), self.observer)?;
        let gradient = self.preconditioner.borrow().gradient(&evaluation.gradient);
        let seen = Seen {
            height: self.height(at, evaluation.value, &gradient),
            at: at.clone(),
            value: evaluation.value,
            gradient,
            norm: self.objective.gradient_norm(&evaluation.gradient),
        };
        if !(seen.value.is_finite() && seen.norm.is_finite()) {
            return Err(fails("the objective is not finite"));
        }
        Ok(of(last.insert(seen)))
    }

    /// Begins a line search at a point, which may look at so many others.
    pub(super) fn begin(&self, origin: &Seen, allowance: usize) {
        self.allowance.set(allowance);
        self.origin.replace(Some(origin.clone()));
        self.last.replace(Some(origin.clone()));
    }

    /// Looks at a point anew.
    ///
    /// # Errors
    /// [`Error::NoOptimum`] if the objective is not finite there, [`Error::Interrupted`] if the observer asks for it.
    pub(super) fn look(&self, at: &Vector) -> Result<Seen> {
        self.last.replace(None);
        self.origin.replace(None);
        self.allowance.set(1);
        self.see(at, Seen::clone).map_err(|error| match error.downcast() {
            Ok(Error::Interrupted) => Error::Interrupted,
            _ => Error::NoOptimum,
        })
    }

    /// The value less that of the line search's origin.
    ///
    /// Where the two differ by little more than their rounding errors, the difference is taken from the gradients at both
    /// ends instead, which have digits left: the idea of Hager and Zhang's "approximate Wolfe conditions", 2005.
    /// Line searches are told this and not the value, because near the optimum it is all digits and the value has none.
    fn height(&self, at: &Vector, value: f64, gradient: &Vector) -> f64 {
        let origin = self.origin.borrow();
        let Some(origin) = origin.as_ref() else {
            return 0.0;
        };
        let resolution = match self.products.get() {
            Products::Single => 1e-6,
            Products::Double => 1e-10,
        };
        let difference = value - origin.value;
        if difference.abs() > resolution * origin.value.abs() {
            return difference;
        }
        let mut sum = 0.0;
        for (((to, from), there), here) in at.iter().zip(&origin.at).zip(gradient).zip(&origin.gradient) {
            sum += (to - from) * (there + here);
        }
        0.5 * sum
    }
}

impl CostFunction for &Surface<'_, '_> {
    type Param = Vector;
    type Output = f64;

    fn cost(&self, at: &Vector) -> Looked<f64> {
        self.see(at, |seen| seen.height)
    }
}

impl Gradient for &Surface<'_, '_> {
    type Param = Vector;
    type Gradient = Vector;

    fn gradient(&self, at: &Vector) -> Looked<Vector> {
        self.see(at, |seen| seen.gradient.clone())
    }
}
