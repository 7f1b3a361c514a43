//! Which pictures are chosen, and what is good enough.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;
use std::path::PathBuf;

use ndarray::{Array2, array};

use super::fidelity::{Fidelity, Known};
use super::pictures::Chosen;
use crate::dataset::{Dataset, DatasetKind, Ignored, Sample, Split, Storage};
use crate::observer::Quiet;

/// Classes 0, 1, 2 with 20, 5 and 5 training pictures, 4 to validate, 3 to test, and 2 without a label or split.
fn dataset() -> Dataset {
    let sample = |class: Option<u32>, split: Option<Split>| Sample {
        path: PathBuf::from("p"),
        class,
        split,
        storage: Storage::File,
    };
    let train = [0; 20].into_iter().chain([1; 5]).chain([2; 5]);
    let mut samples: Vec<Sample> = train.map(|class| sample(Some(class), Some(Split::Train))).collect();
    samples.extend((0..4).map(|_| sample(Some(0), Some(Split::Val))));
    samples.extend((0..3).map(|_| sample(Some(1), Some(Split::Test))));
    samples.extend((0..2).map(|_| sample(None, None)));
    Dataset {
        name: PathBuf::from("d"),
        kind: DatasetKind::Folder,
        root: PathBuf::from("d"),
        classes: ["a", "b", "c"].map(str::to_owned).to_vec(),
        samples,
        archives: Vec::new(),
        stamps: Vec::new(),
        ignored: Ignored::default(),
        warnings: Vec::new(),
    }
}

#[test]
fn each_class_gives_as_many_pictures_and_val_and_test_none() {
    let dataset = dataset();
    let chosen = Chosen::of(&dataset, 0);
    let classes = |count: usize| {
        let mut counts = [0; 4];
        for &index in &chosen.calibration[..count] {
            counts[dataset.samples[index].class.map_or(3, |class| class as usize)] += 1;
        }
        counts
    };
    assert_eq!(classes(8), [2, 2, 2, 2]);
    assert_eq!(classes(17), [5, 5, 5, 2]);
    let split = |index: &usize| dataset.samples[*index].split;
    assert!(
        chosen
            .calibration
            .iter()
            .all(|index| matches!(split(index), Some(Split::Train) | None))
    );
    let unique: HashSet<usize> = chosen.calibration.iter().copied().collect();
    assert_eq!((unique.len(), chosen.calibration.len()), (32, 32));
    // To compare on: those that validate come last, those that test never.
    assert_eq!(chosen.others.len(), 36);
    assert!(chosen.others[32..].iter().all(|index| split(index) == Some(Split::Val)));
}

#[test]
fn the_seed_decides_which_pictures_and_nothing_else_does() {
    let order = |seed| Chosen::of(&dataset(), seed).calibration;
    assert_eq!(order(1), order(1));
    assert_ne!(order(1), order(2));
}

fn measure(float: &Array2<f32>, int8: &Array2<f32>) -> Fidelity {
    let known = Known {
        features: array![[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]],
        classes: &[Some(4), Some(4), Some(7), Some(7)],
    };
    Fidelity::measure(float, int8, true, &known, &Quiet).unwrap()
}

#[test]
fn fidelity_is_what_its_formulas_say() {
    let float = array![[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]];
    let int8 = array![[4.0, 3.0], [0.0, 1.0], [0.0, 3.0]];
    let fidelity = measure(&float, &int8);
    // Cosines 24/25, 1 and 0.
    assert!((fidelity.cosine - (0.96 + 1.0) / 3.0).abs() < 1e-12, "{fidelity:?}");
    assert_eq!((fidelity.worst_cosine, fidelity.images), (0.0, 3));
    // Differences 2 + 1 + 10; of the means 4/3 and 2 the columns differ by 42/9 and 8.
    assert!(
        (fidelity.noise - 13.0 / (42.0 / 9.0 + 8.0)).abs() < 1e-12,
        "{fidelity:?}"
    );
    // The first and the last come to be of another class.
    assert!(
        (fidelity.head_agreement.unwrap() - 1.0 / 3.0).abs() < 1e-12,
        "{fidelity:?}"
    );
}

#[test]
fn what_is_too_far_is_refused_with_the_reason() {
    let good = Fidelity {
        images: 64,
        held_out: true,
        cosine: 0.999,
        worst_cosine: 0.99,
        noise: 0.01,
        head_agreement: Some(0.98),
    };
    assert_eq!(good.verdict(), Ok(()));
    let refused = |change: &dyn Fn(&mut Fidelity)| {
        let mut changed = good.clone();
        change(&mut changed);
        changed.verdict().unwrap_err()
    };
    assert!(refused(&|fidelity| fidelity.cosine = 0.94).contains("cosine of 0.9400"));
    assert!(refused(&|fidelity| fidelity.noise = 0.3).contains("30 %"));
    assert!(refused(&|fidelity| fidelity.noise = f64::INFINITY).contains("the same for every picture"));
    assert!(refused(&|fidelity| fidelity.cosine = f64::NAN).contains("not finite"));
    assert!(refused(&|fidelity| fidelity.head_agreement = Some(0.8)).contains("80.0 %"));
    let few = Fidelity {
        images: 9,
        head_agreement: Some(0.8),
        ..good
    };
    assert_eq!(few.verdict(), Ok(()), "one of nine is no proof");
}

#[test]
fn features_that_are_not_finite_or_do_not_differ_are_refused() {
    let float = array![[1.0, 2.0], [1.0, 3.0]];
    assert!(measure(&float, &array![[1.0, f32::NAN], [1.0, 3.0]]).verdict().is_err());
    let same = array![[1.0, 2.0], [1.0, 2.0]];
    assert!(measure(&same, &same).verdict().is_err());
    assert!(measure(&float, &array![[0.0, 0.0], [0.0, 0.0]]).verdict().is_err());
    assert_eq!(measure(&float, &float).verdict(), Ok(()));
}
