//! Which views of a picture there are, and the number that each has as the `view` of a row's key.
//!
//! A random view is named by all that its pixels depend on besides the picture and the space: the recipe by which it is
//! drawn, the seed, and its number. These are packed into the 31 bits that a row's key has for them, so that no two views
//! can share a number, a number says which view it is without being looked up anywhere, and the first views of seed 0 are
//! 1, 2, 3. How a view is drawn is the pictures' business ([`RandomCrop`](crate::picture::RandomCrop)).
//!
//! | bits | what |
//! |---|---|
//! | 0–10 | the number, from 1; 0 in the plain view |
//! | 11–26 | the seed |
//! | 27–30 | the recipe |
//! | 31 | [`PARTIAL`] |

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use crate::cache::{PARTIAL, RowKey};
use crate::error::{Error, Result};
use crate::picture::{Completeness, RECIPE};

const NUMBER_BITS: u32 = 11;
const SEED_BITS: u32 = 16;

/// Most random views of a seed.
pub(crate) const MOST_VIEWS: u16 = (1 << NUMBER_BITS) - 1;

/// A view of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum View {
    /// Resized, and cut from the centre.
    Plain,
    /// A random part, mirrored or not.
    Random(RandomView),
}

/// A random view: one of those of a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RandomView {
    recipe: u8,
    seed: u16,
    number: u16,
}

impl RandomView {
    /// The seed it is drawn from.
    #[must_use]
    pub fn seed(self) -> u16 {
        self.seed
    }

    /// Its number among the views of the seed, from 1.
    #[must_use]
    pub fn number(self) -> u16 {
        self.number
    }

    /// Whether this version of the program can draw it.
    #[must_use]
    pub fn is_known(self) -> bool {
        self.recipe == RECIPE
    }
}

impl View {
    /// The number that a row's key has for it: 0 for the plain view.
    #[must_use]
    pub fn id(self) -> u32 {
        match self {
            Self::Plain => 0,
            Self::Random(RandomView { recipe, seed, number }) => {
                u32::from(recipe) << (NUMBER_BITS + SEED_BITS) | u32::from(seed) << NUMBER_BITS | u32::from(number)
            }
        }
    }

    /// The view of a row's key, whether or not its picture is cut off; `None` for a number that no view has.
    #[must_use]
    pub fn of_id(id: u32) -> Option<Self> {
        let id = id & !PARTIAL;
        if id == 0 {
            return Some(Self::Plain);
        }
        let view = RandomView {
            recipe: (id >> (NUMBER_BITS + SEED_BITS)) as u8,
            seed: (id >> NUMBER_BITS) as u16,
            number: (id & u32::from(MOST_VIEWS)) as u16,
        };
        (view.number > 0).then_some(Self::Random(view))
    }

    /// The key of its row, of a picture with this content.
    #[must_use]
    pub(crate) fn key(self, content: [u8; 32], completeness: Completeness) -> RowKey {
        let partial = match completeness {
            Completeness::Whole => 0,
            Completeness::Partial => PARTIAL,
        };
        RowKey {
            content,
            view: self.id() | partial,
        }
    }
}

/// The random views with these ids, in words: `random views 1–8, 10 of seed 0`.
pub(crate) fn in_words(ids: &[u32]) -> String {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    let mut series: BTreeMap<(u8, u16), Vec<RangeInclusive<u16>>> = BTreeMap::new();
    for id in ids {
        let Some(View::Random(RandomView { recipe, seed, number })) = View::of_id(id) else {
            continue;
        };
        let runs = series.entry((recipe, seed)).or_default();
        match runs.last_mut() {
            Some(last) if last.end() + 1 >= number => *last = *last.start()..=number,
            _ => runs.push(number..=number),
        }
    }
    let words = series.into_iter().map(|((recipe, seed), runs)| {
        let numbers = runs.iter().map(|run| match run.start() == run.end() {
            true => run.start().to_string(),
            false => format!("{}–{}", run.start(), run.end()),
        });
        let numbers: Vec<String> = numbers.collect();
        let recipe = match recipe {
            RECIPE => "",
            _ => ", drawn by another version",
        };
        format!("random views {} of seed {seed}{recipe}", numbers.join(", "))
    });
    words.collect::<Vec<_>>().join("; ")
}

impl fmt::Display for View {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain => formatter.write_str("the plain view"),
            Self::Random(view) => write!(formatter, "random view {} of seed {}", view.number, view.seed),
        }
    }
}

/// How many random views of each picture are wanted, and of which seed. Default: none.
///
/// A view depends on the seed, its number and the picture's bytes alone: the first 8 of 16 views are the 8 of 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RandomViews {
    count: u16,
    seed: u16,
}

impl RandomViews {
    /// The views 1 to `count` of `seed`.
    ///
    /// # Errors
    /// [`Error::Usage`] above 2047 views, or when the seed is above 65535.
    pub fn new(count: usize, seed: u64) -> Result<Self> {
        let count = u16::try_from(count).ok().filter(|count| *count <= MOST_VIEWS);
        let count = count.ok_or_else(|| Error::Usage(format!("a picture has {MOST_VIEWS} random views at most")))?;
        let seed = u16::try_from(seed)
            .map_err(|_| Error::Usage(format!("the seed of random views is {} at most, not {seed}", u16::MAX)))?;
        Ok(Self { count, seed })
    }

    /// How many.
    #[must_use]
    pub fn count(self) -> usize {
        usize::from(self.count)
    }

    /// The seed.
    #[must_use]
    pub fn seed(self) -> u16 {
        self.seed
    }

    /// Whether none is wanted.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.count == 0
    }

    /// The views, by number.
    pub fn iter(self) -> impl Iterator<Item = View> {
        let view = move |number| {
            View::Random(RandomView {
                recipe: RECIPE,
                seed: self.seed,
                number,
            })
        };
        (1..=self.count).map(view)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn no_two_views_share_an_id_and_an_id_says_which_view_it_is() {
        let corners = |most: u32| [0, 1, most / 2, most - 1, most];
        let mut ids = std::collections::BTreeSet::from([View::Plain.id()]);
        for recipe in corners(15) {
            for seed in corners(65_535) {
                for number in corners(2047).into_iter().filter(|number| *number > 0) {
                    let view = View::Random(RandomView {
                        recipe: recipe as u8,
                        seed: seed as u16,
                        number: number as u16,
                    });
                    assert!(ids.insert(view.id()), "{view:?} has the id of another");
                    assert_eq!(view.id() & PARTIAL, 0);
                    assert_eq!(View::of_id(view.id()), Some(view));
                    assert_eq!(View::of_id(view.id() | PARTIAL), Some(view));
                }
            }
        }
        assert_eq!(View::of_id(0), Some(View::Plain));
        assert_eq!(View::of_id(5 << 11), None, "a seed without a number");
    }

    #[test]
    fn the_first_views_of_seed_0_are_1_2_3() {
        let ids = |count, seed| -> Vec<u32> { RandomViews::new(count, seed).unwrap().iter().map(View::id).collect() };
        assert_eq!(ids(3, 0), [1, 2, 3]);
        assert_eq!(ids(2, 7), [7 << 11 | 1, 7 << 11 | 2]);
        assert!(RandomViews::default().is_empty());
    }

    #[test]
    fn views_are_told_as_runs_by_seed() {
        let ids =
            |seed: u32, numbers: &[u32]| -> Vec<u32> { numbers.iter().map(|number| seed << 11 | number).collect() };
        assert_eq!(in_words(&[1, 2, 3]), "random views 1–3 of seed 0");
        let told = in_words(&[ids(9, &[4]), ids(0, &[5, 1, 2, 7, 6]), vec![0]].concat());
        assert_eq!(told, "random views 1–2, 5–7 of seed 0; random views 4 of seed 9");
        assert_eq!(in_words(&[]), "");
        assert!(in_words(&[1 << 27 | 1]).ends_with("drawn by another version"));
    }

    #[test]
    fn what_does_not_fit_is_wrong_usage() {
        assert_eq!(RandomViews::new(2047, 65_535).unwrap().count(), 2047);
        for wrong in [RandomViews::new(2048, 0), RandomViews::new(1, 65_536)] {
            assert!(matches!(wrong, Err(Error::Usage(_))), "{wrong:?}");
        }
    }
}
