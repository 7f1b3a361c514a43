//! Many trainings of one data set: what is varied, and which of them came out best.
//!
//! [`SweepSpec`] says what is to be tried, [`Leaderboard`] what came of it. What an axis means is known to the command line,
//! which reads each combination as it reads its options; how heads are trained together is [`crate::head`]'s.

mod cross_validation;
mod file;
mod leaderboard;
mod number;
mod spec;

pub(crate) use cross_validation::CrossValidation;
pub(crate) use leaderboard::{BoardFormat, Counts, Entry, Leaderboard, Outcome, Standing};
pub(crate) use number::shortest_text;
pub(crate) use spec::{Axis, Grid, SweepSpec};
