//! What splits are called, and the split of a flat data set: decided by what each picture is rather than by where or
//! when it was found.

use super::Split;

const SPLIT_NAMES: [(&str, Split); 6] = [
    ("train", Split::Train),
    ("training", Split::Train),
    ("val", Split::Val),
    ("valid", Split::Val),
    ("validation", Split::Val),
    ("test", Split::Test),
];

/// The split that a folder, a file or a table means by `name`, in any case.
pub(crate) fn split_named(name: &str) -> Option<Split> {
    let known = SPLIT_NAMES.iter().find(|(known, _)| name.eq_ignore_ascii_case(known));
    known.map(|(_, split)| *split)
}

/// What [`assign_splits`] looks at: class id, content hash, and the split the folders give, if any.
pub(crate) type SplitInput = (u32, [u8; 32], Option<Split>);

/// Gives every picture a split: its own where it has one, otherwise val for about `val_fraction` of each class.
///
/// A picture goes to val when its content hash, read as a fraction of its range, lies below `val_fraction`. So its side
/// depends on its bytes alone: moving, renaming or adding files moves no other picture, and identical pictures stay
/// together. Each class gets the fraction on average. The one exception: where that would leave a class without a
/// picture on one side, the lowest hash goes to val or the highest to train, until there are pictures that do so by
/// themselves; a class of one picture trains.
pub(crate) fn assign_splits(samples: &[SplitInput], val_fraction: f64) -> Vec<Split> {
    let class_count = samples.iter().map(|(class, ..)| *class as usize + 1).max().unwrap_or(0);
    // Per class: lowest and highest hash of the pictures to be split.
    let mut range: Vec<Option<([u8; 32], [u8; 32])>> = vec![None; class_count];
    for (class, content, split) in samples {
        if split.is_none() {
            let (low, high) = range[*class as usize].get_or_insert((*content, *content));
            *low = (*low).min(*content);
            *high = (*high).max(*content);
        }
    }
    let choose = |(class, content, split): &SplitInput| {
        if let Some(split) = split {
            return *split;
        }
        let (low, high) = range[*class as usize].expect("set above for each class with an unsplit picture");
        let in_val = match (low == high, val_fraction > 0.0) {
            (_, false) | (true, _) => false,
            (false, true) if *content == low => true,
            (false, true) if *content == high => false,
            _ => hash_fraction(content) < val_fraction,
        };
        if in_val { Split::Val } else { Split::Train }
    };
    samples.iter().map(choose).collect()
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
            .map(|index| {
                (
                    class,
                    *blake3::hash(&[class.to_le_bytes(), index.to_le_bytes()].concat()).as_bytes(),
                    None,
                )
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
                .filter(|((of, ..), split)| *of == class && **split == Split::Val)
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
        samples[3].2 = Some(Split::Test);
        let splits = assign_splits(&samples, 0.5);
        assert_eq!(splits[3], Split::Test);
        for index in (0..10).filter(|index| *index != 3) {
            assert_eq!(splits[index], splits[index + 10]);
        }
    }
}
