//! Heads that are trained side by side because they see the same rows in the same order.
//!
//! The heads of a block are so many that what their steps go through stays in the second-level cache. Of those, as many as
//! stay in the first-level cache go through a piece of the epoch together, their rows' softmax as one; then the next ones
//! go through the same piece, whose rows are in the cache by then. A head's own arithmetic depends on nothing of this.

use std::ops::Range;

use super::aligned::Aligned;
use super::criterion::Targets;
use super::learner::Learner;
use super::order::Order;
use super::step::Residuals;
use super::team::{LEAVES, Member, Share};
use crate::head::kernel::{self, Strides};
use crate::head::loss::{Score, Scorer};
use crate::head::softmax::Softmax;
use crate::head::training::{EpochRecord, Examples, Training, TrainingTask};
use crate::{Error, Observer, Result};

/// Bytes of heads that go through a batch together: the most part of a first-level cache.
const TOGETHER: usize = 33 << 10;
/// Bytes of rows that all heads of a block go through before the next ones come: a part of a second-level cache.
const PIECE: usize = 256 << 10;
/// Heads for which rows are copied side by side and to the start of cache lines first.
const COPIED_FOR: usize = 4;
/// Rows from which on a batch is cut into [`LEAVES`], and several threads can share it.
pub(super) const LARGE_BATCH: usize = 128;
/// Validation rows from which on the members of a team share them.
const LARGE_VALIDATION: usize = 1024;

/// Where a block reports to.
pub(super) struct Listener<'l> {
    pub(super) observer: &'l dyn Observer,
    pub(super) on_epoch: &'l mut dyn FnMut(&EpochRecord),
    pub(super) on_trained: &'l mut dyn FnMut(usize, Result<Training>),
}

/// The rows of a mini-batch, or of a part of it.
#[derive(Debug, Clone, Copy)]
struct Rows<'a> {
    features: &'a [&'a [f32]],
    labels: &'a [usize],
    /// Empty where all are 1.
    weights: &'a [f64],
}

impl<'a> Rows<'a> {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn part(&self, range: Range<usize>) -> Self {
        Self {
            features: &self.features[range.clone()],
            labels: &self.labels[range.clone()],
            weights: self.weights.get(range).unwrap_or_default(),
        }
    }
}

/// Trains the heads of a block, all of one batch size, until each has ended.
pub(super) fn train(
    mut learners: Vec<Learner<'_>>,
    task: &TrainingTask<'_>,
    mut order: Order<'_>,
    member: Member<'_>,
    listener: &mut Listener<'_>,
) {
    let Some(batch_size) = learners.first().map(|learner| learner.options().batch_size) else {
        return;
    };
    let dim = task.train().dim();
    let piece = batch_size * (PIECE / (size_of::<f32>() * dim) / batch_size).max(1);
    let largest = learners.iter().map(Learner::bytes).max().unwrap_or(1);
    let together = (TOGETHER / largest).max(1);
    let mut bench = Workbench::new(member, task.classes());
    let mut copied = Aligned::zeros(copied_values(learners.len(), piece, dim));
    let (mut labels, mut weights) = (Vec::new(), Vec::new());
    'epochs: for epoch in 0.. {
        order.next(epoch);
        for (number, piece_rows) in order.rows().chunks(piece).enumerate() {
            let original = piece_rows.iter().map(|&row| order.features(row));
            let features: Vec<&[f32]> = if piece_rows.len() * dim <= copied.len() {
                for (copy, row) in copied.chunks_exact_mut(dim).zip(original) {
                    copy.copy_from_slice(row);
                }
                copied.chunks_exact(dim).take(piece_rows.len()).collect()
            } else {
                original.collect()
            };
            labels.clear();
            labels.extend(piece_rows.iter().map(|&row| task.train().labels()[row as usize]));
            weights.clear();
            if let Some(all) = task.sample_weights() {
                weights.extend(piece_rows.iter().map(|&row| all[row as usize]));
            }
            let rows = Rows {
                features: &features,
                labels: &labels,
                weights: &weights,
            };
            for learners in learners.chunks_mut(together) {
                if bench.is_interrupted(listener) {
                    break 'epochs;
                }
                for start in (0..rows.len()).step_by(batch_size) {
                    let batch = rows.part(start..(start + batch_size).min(rows.len()));
                    let place = (epoch, (number * piece + start) / batch_size);
                    if batch.len() < LARGE_BATCH {
                        bench.step(learners, batch, place);
                    } else {
                        for learner in learners.iter_mut() {
                            bench.large_step(learner, batch, place);
                        }
                    }
                }
            }
        }
        let scores = match task.validation() {
            Some(examples) => bench.validate(&learners, examples, listener),
            None => Some(Vec::new()),
        };
        let Some(scores) = scores else { break };
        let mut scores = scores.into_iter();
        let mut left = Vec::with_capacity(learners.len());
        for mut learner in learners {
            match learner.end_epoch(epoch, scores.next(), listener.on_epoch) {
                Ok(false) => left.push(learner),
                Ok(true) => (listener.on_trained)(learner.index, Ok(learner.finish())),
                Err(error) => (listener.on_trained)(learner.index, Err(error)),
            }
        }
        learners = left;
        if learners.is_empty() {
            return;
        }
    }
    // Only an interruption leads here.
    for learner in learners {
        (listener.on_trained)(learner.index, Err(Error::Interrupted));
    }
}

/// How many values the copy of a piece has; 0 where few heads would go through it, or a batch makes it too large.
fn copied_values(heads: usize, piece: usize, dim: usize) -> usize {
    let values = piece.saturating_mul(dim);
    if heads >= COPIED_FOR && values <= 2 * PIECE / size_of::<f32>() {
        values
    } else {
        0
    }
}

/// The buffers of a thread that trains, and its place among others.
#[derive(Debug)]
struct Workbench<'t> {
    member: Member<'t>,
    classes: usize,
    /// `[classes, stride]`, as all that follow: the columns are rows of the first head, then of the second.
    logits: Vec<f32>,
    softmax: Softmax,
    targets: Targets,
    residuals: Vec<f32>,
    gradient: Vec<f32>,
    /// The gradients of the parts of a large batch that wait to be added to others.
    waiting: Vec<Vec<f32>>,
    share: Share,
    scorer: Scorer,
}

impl<'t> Workbench<'t> {
    fn new(member: Member<'t>, classes: usize) -> Self {
        Self {
            member,
            classes,
            logits: Vec::new(),
            softmax: Softmax::default(),
            targets: Targets::default(),
            residuals: Vec::new(),
            gradient: Vec::new(),
            waiting: Vec::new(),
            share: Share::default(),
            scorer: Scorer::default(),
        }
    }

    /// Asks the observer. The first member of a team tells the others with its next share; all end after it.
    fn is_interrupted(&mut self, listener: &Listener<'_>) -> bool {
        if self.member.members() == 1 {
            return listener.observer.interrupted();
        }
        self.share.interrupted |= self.member.rank() == 0 && listener.observer.interrupted();
        self.member.is_interrupted()
    }

    /// Fills the residuals of a batch for each head, whose weights are as before the step; `totals` are the batches'.
    fn differentiate(&mut self, learners: &[Learner<'_>], rows: Rows<'_>, totals: impl Fn(&Learner<'_>) -> f64) {
        let stride = Softmax::stride(learners.len() * rows.len());
        self.logits.resize(self.classes * stride, 0.0);
        self.residuals.resize(self.classes * stride, 0.0);
        let smoothed = learners.iter().any(|learner| learner.criterion.smooths());
        self.targets.reset(self.classes, stride, smoothed);
        for (index, learner) in learners.iter().enumerate() {
            let (weight, bias) = learner.slices();
            let offset = index * rows.len();
            let strides = Strides { row: 1, class: stride };
            kernel::logits(weight, bias, rows.features, &mut self.logits[offset..], strides);
            let total = totals(learner);
            self.targets
                .set(offset, &learner.criterion, rows.labels, rows.weights, total);
        }
        self.softmax.of(&self.logits, stride);
        self.targets.residuals(&self.softmax, &mut self.residuals);
    }

    /// One step of heads that fit into the first-level cache together.
    fn step(&mut self, learners: &mut [Learner<'_>], rows: Rows<'_>, place: (usize, usize)) {
        self.differentiate(learners, rows, |learner| {
            learner.criterion.total(rows.labels, rows.weights)
        });
        let stride = Softmax::stride(learners.len() * rows.len());
        for (index, learner) in learners.iter_mut().enumerate() {
            let offset = index * rows.len();
            for (row, &label) in rows.labels.iter().enumerate() {
                learner.add_row(self.softmax.score(&self.logits, stride, offset + row, label));
            }
            let residuals = Residuals {
                values: &self.residuals,
                stride,
                offset,
                rows: rows.len(),
            };
            learner.descend(place, rows.features, &residuals, &mut self.gradient);
        }
    }

    /// One step of a batch that is cut into parts, this member's and those of the others.
    fn large_step(&mut self, learner: &mut Learner<'_>, rows: Rows<'_>, place: (usize, usize)) {
        let leaves = LEAVES / self.member.members();
        let first = self.member.rank() * leaves;
        self.share.rows.clear();
        let total = learner.criterion.total(rows.labels, rows.weights);
        let mut gradient = std::mem::take(&mut self.share.gradient);
        self.add_up(learner, rows, total, first..first + leaves, 0, &mut gradient);
        self.share.gradient = gradient;
        self.member.exchange(&mut self.share);
        for &row in &self.share.rows {
            learner.add_row(row);
        }
        learner.descend_along(place, &mut self.share.gradient);
    }

    /// Writes the gradient of some parts of a batch: that of one half, and that of the other added to it.
    fn add_up(
        &mut self,
        learner: &Learner<'_>,
        rows: Rows<'_>,
        total: f64,
        leaves: Range<usize>,
        depth: usize,
        gradient: &mut Vec<f32>,
    ) {
        if leaves.len() > 1 {
            let middle = leaves.start + leaves.len() / 2;
            self.add_up(learner, rows, total, leaves.start..middle, depth + 1, gradient);
            if self.waiting.len() <= depth {
                self.waiting.resize_with(depth + 1, Vec::new);
            }
            let mut other = std::mem::take(&mut self.waiting[depth]);
            self.add_up(learner, rows, total, middle..leaves.end, depth + 1, &mut other);
            kernel::add(gradient, &other);
            self.waiting[depth] = other;
            return;
        }
        let size = rows.len().div_ceil(LEAVES);
        let part = rows.part(leaves.start * size..(leaves.end * size).min(rows.len()));
        self.differentiate(std::slice::from_ref(learner), part, |_| total);
        let stride = Softmax::stride(part.len());
        for (row, &label) in part.labels.iter().enumerate() {
            let score = self.softmax.score(&self.logits, stride, row, label);
            self.share.rows.push(score);
        }
        let residuals = Residuals {
            values: &self.residuals,
            stride,
            offset: 0,
            rows: part.len(),
        };
        let dim = part.features[0].len();
        gradient.resize(self.classes * (dim + 1), 0.0);
        residuals.gradient(dim, part.features, gradient);
    }

    /// The score of each head on `examples`, whose rows are loaded once for all of them; nothing where a thread that is
    /// alone was interrupted. A team's next batch ends it.
    fn validate(
        &mut self,
        learners: &[Learner<'_>],
        examples: &Examples<'_>,
        listener: &Listener<'_>,
    ) -> Option<Vec<Score>> {
        let mut scores = vec![Score::default(); learners.len()];
        let members = self.member.members();
        let shared = members > 1 && examples.rows() >= LARGE_VALIDATION;
        let part = |rank: usize| examples.rows() * rank / members;
        let range = if shared {
            part(self.member.rank())..part(self.member.rank() + 1)
        } else {
            0..examples.rows()
        };
        let mut rows = Vec::with_capacity(Scorer::ROWS);
        let mut shares = vec![Vec::new(); if shared { learners.len() } else { 0 }];
        for start in range.clone().step_by(Scorer::ROWS) {
            if members == 1 && listener.observer.interrupted() {
                return None;
            }
            let piece = start..(start + Scorer::ROWS).min(range.end);
            rows.clear();
            rows.extend(piece.clone().map(|row| examples.row(row)));
            for (index, learner) in learners.iter().enumerate() {
                let labels = &examples.labels()[piece.clone()];
                self.scorer.score(learner.slices(), &rows, labels, |row| {
                    if shared {
                        shares[index].push(row);
                    } else {
                        scores[index].add_row(row);
                    }
                });
            }
        }
        for (score, rows) in scores.iter_mut().zip(shares) {
            self.share.rows = rows;
            self.share.gradient.clear();
            self.member.exchange(&mut self.share);
            self.share.rows.iter().for_each(|&row| score.add_row(row));
        }
        Some(scores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_large_batch_are_not_copied() {
        assert_eq!(copied_values(COPIED_FOR, 128, 512), 128 * 512);
        assert_eq!(copied_values(COPIED_FOR - 1, 128, 512), 0);
        assert_eq!(copied_values(40, 1_000_000, 512), 0);
        assert_eq!(copied_values(40, usize::MAX, 512), 0);
    }
}
