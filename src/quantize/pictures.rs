//! Which pictures a backbone is calibrated with and compared on, and their way to it.
//!
//! They are decoded by the code that decodes for extraction, side by side, and shown in an order that depends on the data
//! set and the seed alone.

use std::collections::{BTreeMap, HashSet};

use rayon::prelude::*;

use crate::dataset::{Dataset, Split};
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::picture::{Limits, PictureError, Transform, Wanted};
use crate::random::Random;
use crate::supply::{read, source_of};

/// Pictures decoded at a time; at most so many tensors are in memory.
const CHUNK: usize = 16;

/// The pictures of a data set in the order in which they are taken, by index.
#[derive(Debug)]
pub(super) struct Chosen {
    /// Those that may calibrate: not of a val or test split.
    pub(super) calibration: Vec<usize>,
    /// Those to compare on: the same, and behind them those that validate. A test split stays untouched.
    pub(super) others: Vec<usize>,
}

impl Chosen {
    pub(super) fn of(dataset: &Dataset, seed: u64) -> Self {
        let of = |wanted: &dyn Fn(Option<Split>) -> bool| {
            let mut classes: BTreeMap<Option<u32>, Vec<usize>> = BTreeMap::new();
            for (index, sample) in dataset.samples.iter().enumerate() {
                if wanted(sample.split) {
                    classes.entry(sample.class).or_default().push(index);
                }
            }
            for (class, members) in &mut classes {
                let key = format!("lastlayer calibration pictures, seed {seed}, class {class:?}");
                Random::of_key(*blake3::hash(key.as_bytes()).as_bytes()).shuffle(members);
            }
            one_by_one(classes.into_values().collect())
        };
        let calibration = of(&|split| !matches!(split, Some(Split::Val | Split::Test)));
        let validation = of(&|split| split == Some(Split::Val));
        Self {
            others: [calibration.clone(), validation].concat(),
            calibration,
        }
    }
}

/// One of each list in turn, as long as they last.
fn one_by_one(lists: Vec<Vec<usize>>) -> Vec<usize> {
    let longest = lists.iter().map(Vec::len).max().unwrap_or(0);
    (0..longest)
        .flat_map(|place| lists.iter().filter_map(move |list| list.get(place)).copied())
        .collect()
}

/// What was taken of the pictures.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// blake3 of each, in order.
    pub(super) contents: Vec<[u8; 32]>,
    /// The class of each.
    pub(super) classes: Vec<Option<u32>>,
    /// Those that could not be read.
    pub(super) failed: usize,
    /// The first of them.
    pub(super) first_failure: Option<String>,
}

impl Taken {
    /// blake3 of the contents, sorted; hexadecimal.
    pub(super) fn fingerprint(&self) -> String {
        let mut sorted = self.contents.clone();
        sorted.sort_unstable();
        blake3::hash(sorted.as_flattened()).to_hex().to_string()
    }
}

/// Shows pictures, each content once.
pub(super) struct Shown<'a> {
    dataset: &'a Dataset,
    transform: &'a Transform,
    limits: Limits,
    batch: usize,
    /// By index.
    shown: HashSet<usize>,
    /// By content.
    seen: HashSet<[u8; 32]>,
    taken: Taken,
}

impl<'a> Shown<'a> {
    /// `batch`: how many pictures are shown at a time.
    pub(super) fn new(dataset: &'a Dataset, transform: &'a Transform, limits: Limits, batch: usize) -> Self {
        Self {
            dataset,
            transform,
            limits,
            batch,
            shown: HashSet::new(),
            seen: HashSet::new(),
            taken: Taken::default(),
        }
    }

    /// What was taken since the last call.
    pub(super) fn take(&mut self) -> Taken {
        std::mem::take(&mut self.taken)
    }

    /// Contents that were shown may be shown again.
    pub(super) fn forget(&mut self) {
        self.shown.clear();
        self.seen.clear();
    }

    /// Shows the first `count` of `candidates` that can be read and were not shown before; `show` gets the tensors of some
    /// of them, one after the other.
    pub(super) fn show(
        &mut self,
        candidates: &[usize],
        count: usize,
        observer: &dyn Observer,
        show: &mut dyn FnMut(&[f32]) -> Result<()>,
    ) -> Result<()> {
        let mut waiting: Vec<f32> = Vec::new();
        let length = self.transform.tensor_len();
        let fresh: Vec<usize> = candidates
            .iter()
            .copied()
            .filter(|index| !self.shown.contains(index))
            .collect();
        let mut left = &fresh[..];
        while !left.is_empty() && self.taken.contents.len() < count {
            let (now, later) = left.split_at(left.len().min(CHUNK).min(count - self.taken.contents.len()));
            left = later;
            let decoded: Vec<_> = now.par_iter().map(|&index| (index, self.decode(index))).collect();
            for (index, decoded) in decoded {
                if observer.interrupted() {
                    return Err(Error::Interrupted);
                }
                self.shown.insert(index);
                match decoded {
                    Ok((content, _)) if self.seen.contains(&content) => {}
                    Ok((content, tensor)) => {
                        self.seen.insert(content);
                        self.taken.contents.push(content);
                        self.taken.classes.push(self.dataset.samples[index].class);
                        waiting.extend(tensor);
                        observer.advance(1);
                        if waiting.len() == self.batch * length {
                            show(&waiting)?;
                            waiting.clear();
                        }
                    }
                    Err(error) => {
                        self.taken.failed += 1;
                        let path = self.dataset.samples[index].path.display();
                        self.taken
                            .first_failure
                            .get_or_insert_with(|| format!("`{path}`: {error}"));
                    }
                }
            }
        }
        if waiting.is_empty() { Ok(()) } else { show(&waiting) }
    }

    /// A picture's content hash and tensor.
    fn decode(&self, index: usize) -> Result<([u8; 32], Vec<f32>), PictureError> {
        let (bytes, _room) = read(source_of(self.dataset, index), &self.limits).1?;
        let content = *blake3::hash(&bytes).as_bytes();
        let picture = self.transform.decode(&bytes, &self.limits, Wanted::Plain)?;
        Ok((content, self.transform.tensor(&picture, None)))
    }
}
