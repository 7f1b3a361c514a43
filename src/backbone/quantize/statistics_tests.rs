//! Distributions and ranges, against values that are sorted.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::random::{Random, Stream};

fn histogram(values: &[f32]) -> Histogram {
    let mut histogram = Histogram::new();
    histogram.add(values);
    histogram
}

/// Values whose distribution has long ends, from 1e-3 to some hundred.
fn spread(count: usize) -> Vec<f32> {
    let mut random = Random::new(3, Stream::Draws);
    (0..count)
        .map(|_| random.uniform(2.0).powi(7) + random.uniform(0.01))
        .collect()
}

#[test]
fn the_range_leaves_the_share_it_should_beyond_it() {
    let values = spread(200_000);
    let mut sorted = values.clone();
    sorted.sort_by(f32::total_cmp);
    let histogram = histogram(&values);
    let width = exact_power_of_two(histogram.exponent) as f32;
    for outside in [0.0, 1e-4, 1e-2] {
        let (low, high) = histogram.range(outside);
        // Half of them at each end; the value there lies in the bin at which the range ends.
        let beyond = (sorted.len() as f64 * outside / 2.0) as usize;
        let (first, last) = (sorted[beyond], sorted[sorted.len() - 1 - beyond]);
        assert!(low <= first && first - low <= width, "{outside}: {low} {first} {width}");
        assert!(high >= last && high - last <= width, "{outside}: {high} {last} {width}");
    }
    let used = histogram.greatest.max(-histogram.least) / width;
    assert!(
        used >= HALF as f32 / 2.0,
        "the bins are as narrow as they can be: {used}"
    );
}

#[test]
fn the_order_of_values_changes_no_count() {
    let values = spread(5_000);
    let mut backwards = values.clone();
    backwards.reverse();
    let mut rising = values.clone();
    // Each widens the bins of those before.
    rising.sort_by(|left, right| left.abs().total_cmp(&right.abs()));
    let expected = histogram(&values);
    for other in [backwards, rising] {
        let mut one_by_one = Histogram::new();
        other.iter().for_each(|value| one_by_one.add(&[*value]));
        assert_eq!(one_by_one.exponent, expected.exponent);
        assert_eq!(one_by_one.bins, expected.bins);
        assert_eq!(one_by_one.range(1e-3), expected.range(1e-3));
    }
}

#[test]
fn values_of_one_sign_have_a_range_from_zero() {
    assert_eq!(histogram(&[0.5, 3.0, 2.0]).range(0.0), (0.0, 3.0));
    assert_eq!(histogram(&[-0.5, -3.0]).range(0.0), (-3.0, 0.0));
    assert_eq!(histogram(&[0.0, 4096.0]).range(0.0), (0.0, 4096.0));
    assert_eq!(histogram(&[-4096.0, 1e-30]).range(0.0), (-4096.0, 1e-30));
}

#[test]
fn what_gives_no_range_is_said() {
    let problem = |values: &[f32]| histogram(values).problem();
    assert!(problem(&[1.0, f32::NAN, 2.0]).unwrap().contains("not finite"));
    assert!(problem(&[1.0, f32::NEG_INFINITY]).unwrap().contains("not finite"));
    assert!(problem(&[0.0, 0.0]).unwrap().contains("0 everywhere"));
    assert!(problem(&[]).unwrap().contains("no values"));
    assert_eq!(problem(&[0.0, 1.0]), None);
}

#[test]
fn channels_have_their_means_however_pictures_are_batched() {
    // Two pictures, three channels, 2 × 2.
    let values: Vec<f32> = (0..24).map(|value| value as f32 * 0.37).collect();
    let expected: Vec<f64> = (0..3)
        .map(|channel| {
            let of = |picture: usize| &values[picture * 12 + channel * 4..][..4];
            of(0).iter().chain(of(1)).map(|&value| f64::from(value)).sum::<f64>() / 8.0
        })
        .collect();
    let mut together = Statistics::default();
    let all = Values {
        name: "t",
        shape: &[2, 3, 2, 2],
        values: &values,
    };
    together.add(&[all]);
    let mut apart = Statistics::default();
    for half in values.chunks(12) {
        let one = Values {
            name: "t",
            shape: &[1, 3, 2, 2],
            values: half,
        };
        apart.add(&[one]);
    }
    assert_eq!(together.means("t"), apart.means("t"));
    for (mean, expected) in together.means("t").iter().zip(expected) {
        assert!((mean - expected).abs() < 1e-12, "{mean} {expected}");
    }
}
