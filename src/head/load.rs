//! What trainings ask of the machine, so that those who train several at once, folds say, know how many.
//!
//! A guess from shapes alone: it decides how long something takes and how much memory, never what comes out.

use super::objective;
use super::recipe::{Solver, ValidRecipe};

/// Pieces of work a thread should have, so that all end at about the same time.
const PIECES: usize = 4;
/// What trainings that run at once may hold in memory together: 1 GiB.
const BYTES: usize = 1 << 30;

/// The trainings of some recipes on one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    /// Pieces of work that threads can take, when there are fewest.
    pieces: usize,
    /// Features and what is made of them.
    bytes: usize,
}

impl Load {
    /// That of `recipes` on `rows` rows, views counted, of `dim` features, which are copied for the task.
    pub(crate) fn of(recipes: &[ValidRecipe], rows: usize, dim: usize, classes: usize) -> Self {
        let parts = objective::parts(rows);
        let numbers = rows.saturating_mul(dim);
        let f32s = numbers.saturating_mul(size_of::<f32>());
        let mut load = Self {
            pieces: usize::MAX,
            bytes: f32s,
        };
        for standardize in [false, true] {
            let recipes = recipes.iter().map(ValidRecipe::recipe);
            let group = recipes.filter(|recipe| recipe.standardize == standardize);
            let (mut descents, mut lbfgs, mut linfa) = (0, 0, 0);
            for recipe in group {
                *match recipe.solver {
                    Solver::Descent(_) => &mut descents,
                    Solver::Lbfgs(_) => &mut lbfgs,
                    Solver::Linfa(_) => &mut linfa,
                } += 1;
            }
            if descents > 0 {
                load.pieces = load.pieces.min(descents);
            }
            if lbfgs > 0 {
                load.pieces = load.pieces.min(parts.max(lbfgs));
            }
            let mut bytes = if standardize && descents + lbfgs + linfa > 0 {
                f32s
            } else {
                0
            };
            if lbfgs + linfa > 0 {
                bytes = bytes.saturating_add(objective::part_bytes(rows, dim, classes));
            }
            if linfa > 0 {
                // On one thread, and on features in f64.
                load.pieces = 1;
                bytes = bytes.saturating_add(numbers.saturating_mul(size_of::<f64>()));
            }
            load.bytes = load.bytes.max(f32s.saturating_add(bytes));
        }
        load
    }

    /// How many such trainings should run at once on so many threads: as few as keep the threads busy, and no more than there
    /// is memory for.
    pub(crate) fn at_once(self, threads: usize) -> usize {
        let busy = threads.saturating_mul(PIECES).div_ceil(self.pieces.max(1));
        busy.min(threads).min(BYTES / self.bytes.max(1)).max(1)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{Descent, Lbfgs, Recipe};

    fn recipes(solver: &Solver, standardize: bool, count: usize) -> Vec<ValidRecipe> {
        let recipe = Recipe {
            solver: solver.clone(),
            standardize,
            ..Recipe::default()
        };
        vec![recipe.check().unwrap(); count]
    }

    #[test]
    fn folds_run_at_once_where_one_alone_leaves_threads_idle() {
        let sgd = Solver::Descent(Descent::sgd());
        let lbfgs = Solver::Lbfgs(Lbfgs::default());
        let at_once = |recipes: &[ValidRecipe], rows| Load::of(recipes, rows, 512, 10).at_once(8);
        assert_eq!(at_once(&recipes(&sgd, false, 1), 500), 8);
        assert_eq!(at_once(&recipes(&sgd, false, 256), 500), 1);
        assert_eq!(at_once(&recipes(&lbfgs, false, 1), 500), 8);
        // 32 parts are enough pieces for eight threads.
        assert_eq!(at_once(&recipes(&lbfgs, false, 1), 100_000), 1);
        assert_eq!(at_once(&recipes(&lbfgs, false, 16), 500), 2);
        // The heads of one solver are trained after those of the other.
        let mixed = [recipes(&sgd, false, 2), recipes(&lbfgs, true, 256)].concat();
        assert_eq!(at_once(&mixed, 500), 8);
    }

    #[test]
    fn folds_that_run_at_once_have_room() {
        let sgd = Solver::Descent(Descent::sgd());
        let linfa = Solver::Linfa(Lbfgs::default());
        // 64 MiB of features; twice that standardised; in f64 twice as much more, and partial gradients.
        let at_once = |solver, standardize| Load::of(&recipes(solver, standardize, 1), 1 << 15, 512, 10).at_once(64);
        assert_eq!(at_once(&sgd, false), 16);
        assert_eq!(at_once(&sgd, true), 8);
        assert_eq!(at_once(&linfa, false), 5);
        assert_eq!(Load::of(&recipes(&sgd, false, 1), 1 << 24, 512, 10).at_once(64), 1);
        assert_eq!(Load::of(&[], 0, 0, 0).at_once(1), 1);
    }
}
