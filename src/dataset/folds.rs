//! The folds of a cross-validation: every picture is validated once, by a head that has seen nothing like it.
//!
//! Like a split ([`super::split`]), a fold is decided by what pictures are: identical pictures and groups stay together,
//! and neither paths nor the order of the listing matter.

use std::collections::HashMap;

use crate::error::{Error, Result};

/// Gives every picture the fold in which it validates; `None` for the few that no fold can spare.
///
/// `classes` are class ids, `units` say what stays together. Folds are balanced over classes (stratified), and over pictures
/// as well as units allow: units come largest first, classes one after the other, otherwise in an order that the seed
/// draws, and each goes where the shares of its classes stay most alike, then where there are fewest pictures. That is
/// greedy, as scikit-learn's `StratifiedGroupKFold` is. Where every picture is a unit of its own, no two folds differ by more
/// than one picture of a class.
///
/// A unit that holds all pictures of a class is in no fold: whenever it validated, no head would have learnt its class.
///
/// # Errors
/// [`Error::Usage`] for fewer than two folds, or more folds than units to fill them.
pub(crate) fn assign_folds(
    classes: &[usize],
    units: &[[u8; 32]],
    folds: usize,
    seed: u64,
) -> Result<Vec<Option<usize>>> {
    if folds < 2 {
        return Err(Error::Usage(format!("{folds} folds: there must be at least 2")));
    }
    let class_count = classes.iter().max().map_or(0, |largest| largest + 1);
    let (mut grouped, unit_of) = Unit::all(classes, units, seed);
    let mut pictures = vec![0_usize; class_count];
    classes.iter().for_each(|class| pictures[*class] += 1);
    let sparable = |unit: &Unit| unit.classes.iter().all(|(class, count)| *count < pictures[*class]);
    let mut order: Vec<usize> = (0..grouped.len()).filter(|unit| sparable(&grouped[*unit])).collect();
    if order.len() < folds {
        return Err(Error::Usage(format!(
            "{folds} folds need at least as many pictures that can validate; here are {}, counting identical pictures and \
             groups once",
            order.len()
        )));
    }
    order.sort_by_cached_key(|unit| {
        let unit = &grouped[*unit];
        (std::cmp::Reverse(unit.pictures), unit.main_class(), unit.draw)
    });
    let mut filled = vec![vec![0_usize; class_count]; folds];
    let mut sizes = vec![0_usize; folds];
    for number in order {
        let unit = &mut grouped[number];
        // Sums of squared shares: least where the folds are most alike, and only those of the unit's classes change.
        let unevenness = |fold: usize| -> f64 {
            let growth = unit.classes.iter().map(|(class, count)| {
                let (before, total) = (filled[fold][*class] as f64, pictures[*class] as f64);
                (*count as f64) * (2.0 * before + *count as f64) / (total * total)
            });
            growth.sum()
        };
        let best = (0..folds)
            .min_by(|left, right| {
                unevenness(*left)
                    .total_cmp(&unevenness(*right))
                    .then(sizes[*left].cmp(&sizes[*right]))
            })
            .expect("there are folds");
        for (class, count) in &unit.classes {
            filled[best][*class] += count;
        }
        sizes[best] += unit.pictures;
        unit.fold = Some(best);
    }
    Ok(unit_of.into_iter().map(|unit| grouped[unit].fold).collect())
}

/// Classes of fewer units than folds, each with its number of units: some folds validate without them. One of a single
/// unit validates in none.
pub(crate) fn thin_classes(classes: &[usize], units: &[[u8; 32]], folds: usize) -> Vec<(usize, usize)> {
    let mut pairs: Vec<(usize, &[u8; 32])> = classes.iter().copied().zip(units).collect();
    pairs.sort_unstable();
    pairs.dedup();
    let of_class = pairs.chunk_by(|left, right| left.0 == right.0);
    of_class
        .map(|chunk| (chunk[0].0, chunk.len()))
        .filter(|(_, count)| *count < folds)
        .collect()
}

/// Pictures that stay together.
struct Unit {
    /// Place in the drawn order.
    draw: [u8; 32],
    pictures: usize,
    /// Its classes in ascending order, each with its pictures.
    classes: Vec<(usize, usize)>,
    fold: Option<usize>,
}

impl Unit {
    /// The units, and which of them each picture is in.
    fn all(classes: &[usize], units: &[[u8; 32]], seed: u64) -> (Vec<Self>, Vec<usize>) {
        let mut numbers: HashMap<&[u8; 32], usize> = HashMap::new();
        let mut all: Vec<Self> = Vec::new();
        let mut unit_of = Vec::with_capacity(units.len());
        for (class, unit) in classes.iter().zip(units) {
            let number = *numbers.entry(unit).or_insert_with(|| {
                all.push(Self {
                    draw: draw(unit, seed),
                    pictures: 0,
                    classes: Vec::new(),
                    fold: None,
                });
                all.len() - 1
            });
            unit_of.push(number);
            let unit = &mut all[number];
            unit.pictures += 1;
            match unit.classes.binary_search_by_key(class, |(class, _)| *class) {
                Ok(place) => unit.classes[place].1 += 1,
                Err(place) => unit.classes.insert(place, (*class, 1)),
            }
        }
        (all, unit_of)
    }

    /// The class most of its pictures have.
    fn main_class(&self) -> usize {
        let most = self
            .classes
            .iter()
            .max_by_key(|(class, count)| (*count, std::cmp::Reverse(*class)));
        most.map_or(0, |(class, _)| *class)
    }
}

/// Where the seed puts a unit in the order.
fn draw(unit: &[u8; 32], seed: u64) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(unit);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
#[path = "folds_tests.rs"]
mod tests;
