//! Which rows an epoch sees, in which order, and in which views: a matter of the seed alone.

use crate::head::random::{Random, Stream};
use crate::head::recipe::Sampling;
use crate::head::training::TrainingTask;

/// Where rows come from: the training rows, or random views of them.
#[derive(Debug)]
pub(super) struct Source<'a> {
    dim: usize,
    plain: &'a [f32],
    views: Vec<&'a [f32]>,
}

impl<'a> Source<'a> {
    pub(super) fn new(task: &'a TrainingTask<'_>) -> Self {
        let views = task.views().iter();
        Self {
            dim: task.train().dim(),
            plain: task.train().values(),
            views: views
                .map(|view| view.as_slice().expect("`with_views` makes the layout standard"))
                .collect(),
        }
    }

    fn row(&self, row: u32, view: Option<u32>) -> &'a [f32] {
        let values = view.map_or(self.plain, |view| self.views[view as usize]);
        &values[row as usize * self.dim..][..self.dim]
    }
}

/// The order of the rows, epoch after epoch.
#[derive(Debug)]
pub(super) struct Order<'a> {
    source: &'a Source<'a>,
    given: Option<&'a [Vec<usize>]>,
    sampling: Sampling,
    random: Random,
    /// The rows of the epoch.
    rows: Vec<u32>,
    /// For balanced sampling: the rows of each class that has some.
    by_class: Vec<Vec<u32>>,
    view_random: Random,
    /// The view of each training row in this epoch; empty without views.
    views: Vec<u32>,
}

impl<'a> Order<'a> {
    /// `task` has fewer than 2³² training rows.
    pub(super) fn new(task: &'a TrainingTask<'_>, source: &'a Source<'a>, sampling: Sampling, seed: u64) -> Self {
        let labels = task.train().labels();
        let count = labels.len() as u32;
        let mut by_class = vec![
            Vec::new();
            if sampling == Sampling::Balanced {
                task.classes()
            } else {
                0
            }
        ];
        for (row, &label) in (0..count).zip(labels) {
            if let Some(rows) = by_class.get_mut(label) {
                rows.push(row);
            }
        }
        by_class.retain(|rows: &Vec<u32>| !rows.is_empty());
        Self {
            source,
            given: task.order(),
            sampling,
            random: Random::new(
                seed,
                match sampling {
                    Sampling::Shuffled => Stream::Order,
                    Sampling::Balanced => Stream::Draws,
                },
            ),
            rows: (0..count).collect(),
            by_class,
            view_random: Random::new(seed, Stream::Views),
            views: vec![0; if source.views.is_empty() { 0 } else { labels.len() }],
        }
    }

    /// Draws the next epoch; they are to be asked for one after another.
    pub(super) fn next(&mut self, epoch: usize) {
        if let Some(given) = self.given {
            self.rows.clear();
            self.rows.extend(given[epoch].iter().map(|&row| row as u32));
        } else if self.sampling == Sampling::Balanced {
            for row in &mut self.rows {
                let class = &self.by_class[self.random.below(self.by_class.len() as u64) as usize];
                *row = class[self.random.below(class.len() as u64) as usize];
            }
        } else {
            self.random.shuffle(&mut self.rows);
        }
        for view in &mut self.views {
            *view = self.view_random.below(self.source.views.len() as u64) as u32;
        }
    }

    /// The rows of the epoch.
    pub(super) fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// The features of a row in this epoch.
    pub(super) fn features(&self, row: u32) -> &'a [f32] {
        self.source.row(row, self.views.get(row as usize).copied())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
#[path = "order_tests.rs"]
mod tests;
