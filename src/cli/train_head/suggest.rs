//! What was meant by a name that there is not.

/// Names that other programs have for our options.
const ELSEWHERE: [(&str, &str); 10] = [
    ("learning-rate", "lr"),
    ("eta", "lr"),
    ("wd", "weight-decay"),
    ("l2", "weight-decay"),
    ("bs", "batch-size"),
    ("optimizer", "solver"),
    ("scheduler", "schedule"),
    ("tol", "tolerance"),
    ("max-iter", "max-iterations"),
    ("random-state", "seed"),
];

/// The one of `names` that `word` is most like, if it is like any: but for capitals, for `_` instead of `-`, for a third of
/// its letters, or cut off.
pub(super) fn nearest<'n>(word: &str, names: &[&'n str]) -> Option<&'n str> {
    let plain = |text: &str| text.to_lowercase().replace('_', "-");
    let word = plain(word);
    if let Some((_, ours)) = ELSEWHERE.iter().find(|(theirs, _)| *theirs == word)
        && let Some(name) = names.iter().find(|name| *name == ours)
    {
        return Some(name);
    }
    let allowed = (word.chars().count() / 3).max(1);
    let likest = names
        .iter()
        .map(|name| (distance(&word, &plain(name)), *name))
        // A name of two letters is like none of which it shares one.
        .filter(|(distance, name)| *distance <= allowed && *distance < name.chars().count().min(word.chars().count()))
        .min_by_key(|(distance, _)| *distance);
    let begun = || {
        let mut begun = names
            .iter()
            .filter(|name| word.len() > 2 && plain(name).starts_with(&word));
        begun.next().filter(|_| begun.next().is_none())
    };
    likest.map(|(_, name)| name).or_else(|| begun().copied())
}

/// Letters to insert, drop, replace, or exchange with their neighbours until `left` is `right` (optimal string alignment).
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut rows = vec![(0..=right.len()).collect::<Vec<usize>>()];
    for (i, letter) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, other) in right.iter().enumerate() {
            let mut cost = (rows[i][j + 1] + 1)
                .min(row[j] + 1)
                .min(rows[i][j] + usize::from(letter != other));
            if i > 0 && j > 0 && left[i - 1] == *other && *letter == right[j - 1] {
                cost = cost.min(rows[i - 1][j - 1] + 1);
            }
            row.push(cost);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_pen_are_known_and_other_words_are_not() {
        let names = [
            "lr",
            "momentum",
            "C",
            "weight-decay",
            "batch-size",
            "base-momentum",
            "seed",
        ];
        for (word, meant) in [
            ("momentm", Some("momentum")),
            ("momnetum", Some("momentum")),
            ("weight_decay", Some("weight-decay")),
            ("Momentum", Some("momentum")),
            ("c", Some("C")),
            ("batch", Some("batch-size")),
            ("learning_rate", Some("lr")),
            ("rate", None),
            ("rl", Some("lr")),
            ("k", None),
        ] {
            assert_eq!(nearest(word, &names), meant, "{word}");
        }
    }

    #[test]
    fn the_distance_counts_slips() {
        for (left, right, slips) in [
            ("", "abc", 3),
            ("abc", "abc", 0),
            ("abc", "acb", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(left, right), slips);
            assert_eq!(distance(right, left), slips);
        }
    }
}
