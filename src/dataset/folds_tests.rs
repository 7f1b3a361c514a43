#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use super::*;

fn unit(number: usize) -> [u8; 32] {
    *blake3::hash(&number.to_le_bytes()).as_bytes()
}

/// `counts[class]` pictures of each class, each a unit of its own.
fn single(counts: &[usize]) -> (Vec<usize>, Vec<[u8; 32]>) {
    let classes: Vec<usize> = counts
        .iter()
        .enumerate()
        .flat_map(|(class, count)| vec![class; *count])
        .collect();
    let units = (0..classes.len()).map(unit).collect();
    (classes, units)
}

/// Pictures of each class in each fold.
fn table(classes: &[usize], folds: &[Option<usize>], count: usize) -> Vec<Vec<usize>> {
    let class_count = classes.iter().max().unwrap() + 1;
    let mut table = vec![vec![0; class_count]; count];
    for (class, fold) in classes.iter().zip(folds) {
        if let Some(fold) = fold {
            table[*fold][*class] += 1;
        }
    }
    table
}

fn spread(values: impl Iterator<Item = usize> + Clone) -> usize {
    values.clone().max().unwrap() - values.min().unwrap()
}

#[test]
fn single_pictures_are_spread_evenly_over_classes_and_folds() {
    for (counts, folds) in [
        (vec![50, 50, 50], 5),
        (vec![7, 23, 11, 2], 5),
        (vec![10, 10, 10], 10),
        (vec![3, 101], 2),
        (vec![13; 17], 4),
    ] {
        for seed in 0..4 {
            let (classes, units) = single(&counts);
            let assigned = assign_folds(&classes, &units, folds, seed).unwrap();
            let table = table(&classes, &assigned, folds);
            for class in 0..counts.len() {
                assert!(
                    spread(table.iter().map(|fold| fold[class])) <= 1,
                    "class {class} of {counts:?}: {table:?}"
                );
            }
            assert!(
                spread(table.iter().map(|fold| fold.iter().sum())) <= 1,
                "{counts:?}: {table:?}"
            );
            assert!(assigned.iter().all(Option::is_some));
        }
    }
}

/// Groups of 1 to 9 pictures, each of mostly one class.
fn grouped() -> (Vec<usize>, Vec<[u8; 32]>) {
    let (mut classes, mut units) = (Vec::new(), Vec::new());
    for group in 0..120_usize {
        for picture in 0..group * 7 % 9 + 1 {
            classes.push(if picture == 5 { (group + 1) % 4 } else { group % 4 });
            units.push(unit(group));
        }
    }
    (classes, units)
}

#[test]
fn groups_stay_together_and_folds_stay_alike() {
    let (classes, units) = grouped();
    for seed in 0..5 {
        let assigned = assign_folds(&classes, &units, 5, seed).unwrap();
        let pairs: BTreeSet<_> = units.iter().zip(&assigned).collect();
        assert_eq!(pairs.len(), 120, "a group lies in two folds");
        let table = table(&classes, &assigned, 5);
        for class in 0..4 {
            let total: usize = table.iter().map(|fold| fold[class]).sum();
            for fold in &table {
                let share = fold[class] as f64 / total as f64;
                // A fifth, give or take a group of nine of the class's 150.
                assert!((share - 0.2).abs() < 0.02, "class {class}: {table:?}");
            }
        }
    }
}

#[test]
fn the_seed_and_the_contents_decide_and_nothing_else_does() {
    let (classes, units) = grouped();
    let first = assign_folds(&classes, &units, 5, 0).unwrap();
    assert_eq!(first, assign_folds(&classes, &units, 5, 0).unwrap());
    assert_ne!(first, assign_folds(&classes, &units, 5, 1).unwrap());
    let reverse = |list: &[usize]| list.iter().rev().copied().collect::<Vec<_>>();
    let reversed_units: Vec<_> = units.iter().rev().copied().collect();
    let mut again = assign_folds(&reverse(&classes), &reversed_units, 5, 0).unwrap();
    again.reverse();
    assert_eq!(again, first, "the order of the listing changes nothing");
}

#[test]
fn every_seed_draws_other_companions() {
    // A picture shares its fold with 3 of the 19 others of its class.
    let (classes, units) = single(&[20, 20]);
    let mut together = 0_u32;
    for seed in 0..400 {
        let assigned = assign_folds(&classes, &units, 5, seed).unwrap();
        together += u32::from(assigned[0] == assigned[1]);
    }
    let share = f64::from(together) / 400.0;
    assert!((share - 3.0 / 19.0).abs() < 0.06, "{share}");
}

#[test]
fn a_class_no_fold_can_spare_always_trains() {
    let (mut classes, mut units) = single(&[6, 6]);
    classes.extend([2, 3, 3]);
    units.extend([unit(100), unit(101), unit(101)]);
    let assigned = assign_folds(&classes, &units, 3, 0).unwrap();
    assert_eq!(assigned[12..], [None; 3]);
    assert!(assigned[..12].iter().all(Option::is_some));
    assert_eq!(thin_classes(&classes, &units, 3), [(2, 1), (3, 1)]);
    assert_eq!(thin_classes(&classes, &units, 7), [(0, 6), (1, 6), (2, 1), (3, 1)]);
}

#[test]
fn every_fold_trains_on_every_class() {
    let (classes, units) = grouped();
    for folds in [2, 3, 10] {
        let assigned = assign_folds(&classes, &units, folds, 3).unwrap();
        for fold in 0..folds {
            let trained: BTreeSet<usize> = classes
                .iter()
                .zip(&assigned)
                .filter(|(_, other)| **other != Some(fold))
                .map(|(class, _)| *class)
                .collect();
            assert_eq!(trained.len(), 4, "fold {fold} of {folds}");
        }
    }
}

#[test]
fn folds_that_cannot_be_are_refused() {
    let (classes, units) = single(&[2, 2]);
    for (folds, words) in [(0, "at least 2"), (1, "at least 2"), (5, "here are 4")] {
        let error = assign_folds(&classes, &units, folds, 0).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.kind(), crate::error::ErrorKind::Usage);
    }
    assert!(assign_folds(&classes, &units, 4, 0).is_ok());
}
