//! The split of a data set that has none, decided by what each picture is rather than by where or when it was found.

use std::collections::HashMap;

use super::Split;

/// What [`assign_splits`] looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SplitInput {
    /// Class id.
    pub(crate) class: u32,
    /// What stays together: the content hash, or what [`join_groups`] makes of it and the user's groups.
    pub(crate) unit: [u8; 32],
    /// The split that the data set gives, if any.
    pub(crate) split: Option<Split>,
}

/// Gives every picture a split: its own where it has one, otherwise val for about `val_fraction` of each class.
///
/// A picture goes to val when its unit's hash, read as a fraction of its range, lies below `val_fraction`. So its side
/// depends on its bytes (or its group's name) alone: moving, renaming or adding files moves no other picture, and what
/// belongs together stays together. Each class gets the fraction on average. The one exception: where that would leave a
/// class without a picture on one side, its lowest unit goes to val or its highest to train; a class of one unit trains.
pub(crate) fn assign_splits(samples: &[SplitInput], val_fraction: f64) -> Vec<Split> {
    let mut units: Vec<[u8; 32]> = samples
        .iter()
        .filter(|sample| sample.split.is_none())
        .map(|sample| sample.unit)
        .collect();
    units.sort_unstable();
    units.dedup();
    let number = |unit: &[u8; 32]| units.binary_search(unit).expect("all units without a split are there");
    let mut sides: Vec<Split> = units
        .iter()
        .map(|unit| {
            if hash_fraction(unit) < val_fraction {
                Split::Val
            } else {
                Split::Train
            }
        })
        .collect();

    // Per class, in ascending order, because units are numbered in the order of their hashes.
    let class_count = samples
        .iter()
        .map(|sample| sample.class as usize + 1)
        .max()
        .unwrap_or(0);
    let mut classes: Vec<Vec<usize>> = vec![Vec::new(); class_count];
    for sample in samples.iter().filter(|sample| sample.split.is_none()) {
        classes[sample.class as usize].push(number(&sample.unit));
    }
    // A unit that one class was given is not taken from it by another.
    let mut settled = vec![false; units.len()];
    for mut class in classes {
        class.sort_unstable();
        class.dedup();
        if val_fraction <= 0.0 || class.is_empty() {
            continue;
        }
        if let [only] = class[..] {
            if !settled[only] {
                sides[only] = Split::Train;
                settled[only] = true;
            }
            continue;
        }
        if class.iter().all(|unit| sides[*unit] == Split::Train)
            && let Some(lowest) = class.iter().find(|unit| !settled[**unit])
        {
            sides[*lowest] = Split::Val;
            settled[*lowest] = true;
        }
        if class.iter().all(|unit| sides[*unit] == Split::Val)
            && let Some(highest) = class.iter().rfind(|unit| !settled[**unit])
        {
            sides[*highest] = Split::Train;
            settled[*highest] = true;
        }
    }
    let choose = |sample: &SplitInput| sample.split.unwrap_or_else(|| sides[number(&sample.unit)]);
    samples.iter().map(choose).collect()
}

/// The units of pictures that have a content and a group: pictures of one group stay together, and so do identical
/// pictures, with all of their groups. A unit is the lowest hash of its groups.
pub(crate) fn join_groups(pictures: &[([u8; 32], [u8; 32])]) -> Vec<[u8; 32]> {
    let mut numbers: HashMap<[u8; 32], usize> = HashMap::new();
    let mut groups: Vec<[u8; 32]> = Vec::new();
    // Each group's parent; the root of a set is the group with the lowest hash.
    let mut parents: Vec<usize> = Vec::new();
    let mut first_group: HashMap<[u8; 32], usize> = HashMap::new();
    let mut of_picture = Vec::with_capacity(pictures.len());
    for (content, group) in pictures {
        let number = *numbers.entry(*group).or_insert_with(|| {
            groups.push(*group);
            parents.push(parents.len());
            parents.len() - 1
        });
        of_picture.push(number);
        let first = *first_group.entry(*content).or_insert(number);
        let (left, right) = (root_of(&mut parents, first), root_of(&mut parents, number));
        let (low, high) = if groups[left] <= groups[right] {
            (left, right)
        } else {
            (right, left)
        };
        parents[high] = low;
    }
    of_picture
        .into_iter()
        .map(|number| groups[root_of(&mut parents, number)])
        .collect()
}

fn root_of(parents: &mut [usize], mut number: usize) -> usize {
    while parents[number] != number {
        parents[number] = parents[parents[number]];
        number = parents[number];
    }
    number
}

/// The first eight bytes of a hash as a number in [0, 1).
fn hash_fraction(content: &[u8; 32]) -> f64 {
    let (head, _) = content.split_first_chunk::<8>().expect("32 bytes hold eight");
    // 53 bits: what an f64 holds exactly, so that the result stays below 1.
    (u64::from_be_bytes(*head) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pictures(class: u32, count: u32) -> Vec<SplitInput> {
        (0..count)
            .map(|index| SplitInput {
                class,
                unit: *blake3::hash(&[class.to_le_bytes(), index.to_le_bytes()].concat()).as_bytes(),
                split: None,
            })
            .collect()
    }

    #[test]
    fn each_class_gets_about_the_fraction() {
        let samples: Vec<_> = (0..4).flat_map(|class| pictures(class, 1000)).collect();
        let splits = assign_splits(&samples, 0.3);
        for class in 0..4 {
            let val = samples
                .iter()
                .zip(&splits)
                .filter(|(sample, split)| sample.class == class && **split == Split::Val)
                .count();
            // Binomial(1000, 0.3): five standard deviations are 72.
            assert!((228..=372).contains(&val), "class {class}: {val} of 1000 in val");
        }
    }

    #[test]
    fn small_classes_have_a_picture_on_either_side() {
        for count in 2..30 {
            assert_eq!(
                assign_splits(&pictures(count, 1), 0.99),
                [Split::Train],
                "one picture trains"
            );
            let samples = pictures(7, count);
            let splits = assign_splits(&samples, 0.02);
            assert!(
                splits.contains(&Split::Val) && splits.contains(&Split::Train),
                "{count} pictures: {splits:?}"
            );
        }
        assert_eq!(
            assign_splits(&pictures(0, 5), 0.0),
            vec![Split::Train; 5],
            "a fraction of 0 means no val"
        );
    }

    #[test]
    fn adding_and_reordering_moves_no_other_picture() {
        let all = pictures(0, 400);
        let before = assign_splits(&all[..200], 0.3);
        let after = assign_splits(&all, 0.3);
        // The extreme hashes of a class are placed by rule; at 200 pictures the rule and the fraction agree.
        assert_eq!(before, after[..200]);
        let reversed: Vec<_> = all.iter().rev().copied().collect();
        let mut splits = assign_splits(&reversed, 0.3);
        splits.reverse();
        assert_eq!(splits, after);
    }

    #[test]
    fn identical_pictures_stay_together_and_given_splits_are_kept() {
        let mut samples = pictures(0, 10);
        samples.extend(pictures(0, 10));
        samples[3].split = Some(Split::Test);
        let splits = assign_splits(&samples, 0.5);
        assert_eq!(splits[3], Split::Test);
        for index in (0..10).filter(|index| *index != 3) {
            assert_eq!(splits[index], splits[index + 10]);
        }
    }

    #[test]
    fn identical_pictures_with_different_labels_stay_together_though_each_class_wants_a_picture_on_either_side() {
        for fraction in [0.02, 0.3, 0.98] {
            let mut samples = pictures(0, 3);
            samples.extend(pictures(1, 3));
            // The lowest of one class is the highest of the other.
            let low = samples[..3].iter().map(|sample| sample.unit).min().expect("three");
            let high = (3..6).max_by_key(|index| samples[*index].unit).expect("three");
            samples[high].unit = low;
            let splits = assign_splits(&samples, fraction);
            let of_low = (0..3)
                .find(|index| samples[*index].unit == low)
                .expect("it is one of them");
            assert_eq!(splits[of_low], splits[high]);
            for class in [&splits[..3], &splits[3..]] {
                assert!(
                    class.contains(&Split::Val) && class.contains(&Split::Train),
                    "{fraction}: {splits:?}"
                );
            }
        }
    }

    #[test]
    fn groups_are_units_and_identical_pictures_join_them() {
        let (a, b, c, d) = ([4; 32], [3; 32], [2; 32], [1; 32]);
        let picture = |content: u8, group: [u8; 32]| ([content; 32], group);
        let pictures = [
            picture(1, a),
            picture(2, a),
            picture(2, b),
            picture(3, c),
            picture(4, c),
            picture(5, d),
        ];
        assert_eq!(join_groups(&pictures), [b, b, b, c, c, d]);
        let chain = [
            picture(1, a),
            picture(1, b),
            picture(2, b),
            picture(2, c),
            picture(3, c),
            picture(3, d),
        ];
        assert_eq!(join_groups(&chain), [d; 6]);
    }
}
