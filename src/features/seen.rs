//! Which pictures a head has seen, in so few bytes that each head file carries it: whether some pictures are among those it
//! was trained or selected on, and how many.
//!
//! A content is a blake3, so its bytes are as good as random: the contents that are lowest by some of them are a sample that
//! nobody chose, and of any other pictures just those can be looked up whose number is as low. Of a split of no more pictures
//! than the sample holds, every picture can be; of a larger one the share that is found estimates the whole.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// Pictures of a split that are kept by their numbers: 80 KB of a head file at most.
const SAMPLE: usize = 8192;
/// Hexadecimal digits of a number. At 40 bits a picture is taken for another one of ten million once in 100,000 times.
const DIGITS: usize = 10;

/// The pictures that a head was trained and selected on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SeenPictures {
    /// Those that it was trained on.
    pub train: PictureSet,
    /// Those that it was selected on: the validation pictures.
    pub val: PictureSet,
}

/// Some pictures, known by their contents. Of a large set a sample is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct PictureSet {
    /// How many there are, identical ones included.
    images: u64,
    /// The sum of all contents as four numbers of 64 bits: that of the same pictures in whatever order.
    sum: [u64; 4],
    /// The lowest numbers of different pictures, in rising order.
    sample: Vec<u64>,
    /// Whether the numbers are those of all pictures.
    complete: bool,
}

/// The set as JSON has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Written {
    images: u64,
    /// Hexadecimal.
    sum: String,
    /// [`DIGITS`] hexadecimal digits a number.
    sample: String,
    complete: bool,
}

/// How many of some pictures are in a set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Overlap {
    /// How many of them; an estimate where not all could be looked up, and `None` where none could.
    pub images: Option<usize>,
    /// Whether it is no estimate.
    pub exact: bool,
    /// How many could be looked up.
    pub looked_at: usize,
    /// Of these, how many are in it.
    pub found: usize,
    /// Whether they are all the pictures of the set and no others.
    pub same: bool,
}

impl Overlap {
    /// That of `images` pictures that are the set, or of which none is in it.
    pub(crate) fn of_all(same: bool, images: usize) -> Self {
        let found = if same { images } else { 0 };
        Self {
            images: Some(found),
            exact: true,
            looked_at: images,
            found,
            same,
        }
    }

    /// Whether any of them is in the set.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.images.is_some_and(|images| images > 0) || self.same
    }
}

impl PictureSet {
    /// The set of the pictures with these contents (blake3).
    #[must_use]
    pub fn of(contents: impl IntoIterator<Item = [u8; 32]>) -> Self {
        Self::sampled(contents, SAMPLE)
    }

    fn sampled(contents: impl IntoIterator<Item = [u8; 32]>, most: usize) -> Self {
        let (mut images, mut sum, mut sample) = (0, [0; 4], Vec::new());
        for content in contents {
            images += 1;
            add(&mut sum, &content);
            sample.push(number(&content));
        }
        sample.sort_unstable();
        sample.dedup();
        let complete = sample.len() <= most;
        sample.truncate(most);
        Self {
            images,
            sum,
            sample,
            complete,
        }
    }

    /// How many pictures there are.
    #[must_use]
    pub fn images(&self) -> u64 {
        self.images
    }

    /// How many of the pictures with these contents are in the set.
    #[must_use]
    pub fn overlap(&self, contents: &[[u8; 32]]) -> Overlap {
        let mut sum = [0; 4];
        contents.iter().for_each(|content| add(&mut sum, content));
        let count = contents.len();
        let same = count as u64 == self.images && sum == self.sum;
        let highest = if self.complete { None } else { self.sample.last() };
        let numbers = contents.iter().map(number);
        let looked: Vec<u64> = numbers
            .filter(|number| highest.is_none_or(|highest| number <= highest))
            .collect();
        let found = looked
            .iter()
            .filter(|number| self.sample.binary_search(number).is_ok())
            .count();
        let exact = self.complete || same;
        Overlap {
            images: match (exact, looked.len()) {
                _ if same => Some(count),
                (true, _) => Some(found),
                (false, 0) => None,
                (false, all) => Some(((found * count) as f64 / all as f64).round() as usize),
            },
            exact,
            looked_at: looked.len(),
            found,
            same,
        }
    }
}

/// Splits of flat folders are made by the first bytes of a content, so the number is of others.
fn number(content: &[u8; 32]) -> u64 {
    content[27..]
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn add(sum: &mut [u64; 4], content: &[u8; 32]) {
    let (words, _) = content.as_chunks::<8>();
    for (sum, word) in sum.iter_mut().zip(words) {
        *sum = sum.wrapping_add(u64::from_le_bytes(*word));
    }
}

impl From<PictureSet> for Written {
    fn from(set: PictureSet) -> Self {
        let hexadecimal = |numbers: &[u64], digits: usize| {
            numbers.iter().fold(String::new(), |mut text, number| {
                write!(text, "{number:0digits$x}").expect("a string takes all that is written to it");
                text
            })
        };
        Self {
            images: set.images,
            sum: hexadecimal(&set.sum, 16),
            sample: hexadecimal(&set.sample, DIGITS),
            complete: set.complete,
        }
    }
}

impl TryFrom<Written> for PictureSet {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let damaged = || "the pictures it has seen are damaged".to_owned();
        let numbers = |text: &str, digits: usize| -> Option<Vec<u64>> {
            let is_whole = text.len().is_multiple_of(digits) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            let parse = |at: usize| u64::from_str_radix(&text[at..at + digits], 16).ok();
            is_whole.then(|| (0..text.len()).step_by(digits).map(parse).collect())?
        };
        let sample = numbers(&written.sample, DIGITS).filter(|sample| sample.is_sorted());
        let sum = numbers(&written.sum, 16).and_then(|sum| sum.try_into().ok());
        Ok(Self {
            images: written.images,
            sum: sum.ok_or_else(damaged)?,
            sample: sample.ok_or_else(damaged)?,
            complete: written.complete,
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn contents(range: std::ops::Range<u32>) -> Vec<[u8; 32]> {
        range
            .map(|index| *blake3::hash(&index.to_le_bytes()).as_bytes())
            .collect()
    }

    #[test]
    fn of_a_set_that_fits_every_picture_is_known() {
        let set = PictureSet::of(contents(0..1000));
        let overlap = set.overlap(&contents(900..1250));
        assert_eq!(
            (overlap.images, overlap.exact, overlap.looked_at),
            (Some(100), true, 350)
        );
        assert_eq!((overlap.found, overlap.same), (100, false));
        assert_eq!(set.overlap(&contents(1000..2000)).images, Some(0));
        // Copies count as often as they come; the order does not.
        let copies = [contents(5..6), contents(5..6), contents(2000..2001)].concat();
        assert_eq!(set.overlap(&copies).images, Some(2));
        let mut reversed = contents(0..1000);
        reversed.reverse();
        assert!(set.overlap(&reversed).same);
        assert!(!set.overlap(&contents(1..1001)).same && !set.overlap(&contents(0..999)).same);
        assert_eq!(PictureSet::of([]).overlap(&contents(0..9)).images, Some(0));
    }

    #[test]
    fn of_a_large_set_a_sample_estimates_how_many() {
        let set = PictureSet::sampled(contents(0..100_000), 2_000);
        // 30,000 of 60,000 are in it.
        let overlap = set.overlap(&contents(70_000..130_000));
        assert!(
            !overlap.exact && (1_000..1_400).contains(&overlap.looked_at),
            "{overlap:?}"
        );
        assert!(overlap.images.unwrap().abs_diff(30_000) < 2_000, "{overlap:?}");
        assert_eq!(set.overlap(&contents(200_000..260_000)).images, Some(0));
        assert_eq!(set.overlap(&contents(20_000..40_000)).images, Some(20_000));
        let whole = set.overlap(&contents(0..100_000));
        assert!(whole.same && whole.exact && whole.images == Some(100_000));
        // One that can't be looked up is not said to be new.
        let unlucky = contents(0..100_000).into_iter().max_by_key(number).unwrap();
        assert_eq!(set.overlap(&[unlucky]).images, None);
    }

    #[test]
    fn it_is_written_in_few_bytes_and_read_back_or_refused() {
        let set = PictureSet::of(contents(0..20_000));
        let json = serde_json::to_string(&set).unwrap();
        assert!(json.len() < 83_000, "{} bytes", json.len());
        assert_eq!(serde_json::from_str::<PictureSet>(&json).unwrap(), set);
        let small = serde_json::to_string(&PictureSet::of(contents(0..3))).unwrap();
        for (from, to) in [
            ("\"sum\":\"", "\"sum\":\"0"),
            ("\"sample\":\"", "\"sample\":\"é"),
            ("\"sample\":\"", "\"sample\":\"ffffffffff"),
        ] {
            let damaged = small.replace(from, to);
            assert!(serde_json::from_str::<PictureSet>(&damaged).is_err(), "{damaged}");
        }
    }
}
