#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

/// The axes of a sweep of one grid, as `name: value value`.
fn axes(text: &str) -> Vec<String> {
    let spec = SweepSpec::parse(text).unwrap();
    assert_eq!(spec.grids.len(), 1);
    let line = |axis: &Axis| format!("{}: {}", axis.name, axis.values.join(" "));
    spec.grids[0].axes.iter().map(line).collect()
}

#[track_caller]
fn refused(text: &str, words: &[&str]) {
    let error = SweepSpec::parse(text).unwrap_err();
    assert_eq!(error.kind(), crate::error::ErrorKind::Usage);
    let said = format!("{error}\n{}", error.hint().unwrap());
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
}

#[test]
fn the_notation_of_the_documentation_is_understood() {
    assert_eq!(
        axes("lr=1e-4..1e-1:log4,weight-decay=0,1e-4,1e-3,momentum=0.9,batch-size=4,32,seed=0..4"),
        [
            "lr: 1e-4 1e-3 1e-2 0.1".replace("1e-2", "0.01"),
            "weight-decay: 0 1e-4 1e-3".to_owned(),
            "momentum: 0.9".to_owned(),
            "batch-size: 4 32".to_owned(),
            "seed: 0 1 2 3 4".to_owned(),
        ]
    );
    assert_eq!(
        axes(" solver = sgd , lbfgs , --C=1 "),
        ["solver: sgd lbfgs", "C: 1"],
        "spaces and dashes do no harm"
    );
}

#[test]
fn ranges_have_their_ends_and_as_many_points_as_asked_for() {
    assert_eq!(axes("momentum=0.5..0.9:lin5"), ["momentum: 0.5 0.6 0.7 0.8 0.9"]);
    assert_eq!(axes("batch-size=4..256:log7"), ["batch-size: 4 8 16 32 64 128 256"]);
    assert_eq!(axes("lr=0...5:lin2"), ["lr: 0 0.5"]);
    assert_eq!(axes("seed=7..7"), ["seed: 7"]);
    assert_eq!(
        axes("lr=1e-4..1e-1:log8,0.5"),
        [
            "lr: 1e-4 2.6827e-4 7.19686e-4 0.0019307 0.00517947 0.0138950 0.0372759 0.1 0.5"
                .replace("0138950", "013895")
        ]
    );
    let close = axes("lr=1..1.000001:lin3");
    assert_eq!(close.len(), 1);
    assert_eq!(close[0].split(' ').count(), 4, "close points stay apart: {close:?}");
}

#[test]
fn every_point_is_near_the_true_one_and_reads_back_as_itself() {
    for (text, first, last, count) in [
        ("a=1e-4..1e-1:log8", 1e-4_f64, 1e-1_f64, 8),
        ("a=3..7e5:log31", 3.0, 7e5, 31),
    ] {
        let spec = SweepSpec::parse(text).unwrap();
        let values = &spec.grids[0].axes[0].values;
        assert_eq!(values.len(), count);
        for (index, value) in values.iter().enumerate() {
            let number: f64 = value.parse().unwrap();
            let truth = first * (last / first).powf(index as f64 / (count - 1) as f64);
            assert!((number / truth - 1.0).abs() < 1e-5, "{value} for {truth}");
            assert_eq!(number::shortest(number), *value);
        }
    }
}

#[test]
fn numbers_are_as_short_as_they_round_trip() {
    for (text, short) in [
        ("0.0001", "1e-4"),
        ("0.01", "0.01"),
        ("1.50", "1.5"),
        ("1e2", "100"),
        ("100", "100"),
        ("1e12", "1e12"),
        ("007", "7"),
        ("18446744073709551615", "18446744073709551615"),
        ("one-cycle", "one-cycle"),
        ("inf", "inf"),
    ] {
        assert_eq!(number::shortest_text(text), short);
    }
}

#[test]
fn brackets_keep_a_value_with_commas_together() {
    assert_eq!(
        axes("milestones=[5,10],[10,20],class-weights=balanced,[cat=2,dog=1]"),
        ["milestones: 5,10 10,20", "class-weights: balanced cat=2,dog=1"]
    );
    refused("milestones=[5,10", &["without its `]`"]);
    refused("milestones=5],10", &["without its `[`"]);
}

#[test]
fn values_given_twice_are_trained_once_and_it_is_said() {
    let spec = SweepSpec::parse("lr=0.1,1e-1,0.10,0.2,seed=0..2,1").unwrap();
    assert_eq!(spec.grids[0].axes[0].values, ["0.1", "0.2"]);
    assert_eq!(spec.count(), 6);
    assert_eq!(
        spec.notes,
        [
            "sweep axis `lr`: `0.1` and 1 more given more than once: trained once",
            "sweep axis `seed`: `1` given more than once: trained once",
        ]
    );
}

#[test]
fn the_last_axis_changes_first() {
    let spec = SweepSpec::parse("a=1,2,b=3,4,5").unwrap();
    let order: Vec<Vec<usize>> = spec.grids[0].combinations().collect();
    assert_eq!(order, [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]);
}

#[test]
fn what_is_no_sweep_is_refused_with_the_axis_and_what_can_be_written() {
    refused("", &["without an axis"]);
    refused("0.1,lr=1", &["begins with the name", "`0.1`", "seed=0..4"]);
    refused("lr=", &["axis `lr`", "empty value"]);
    refused("lr=0.1,,0.2", &["axis `lr`", "empty value"]);
    refused("lr=1,seed=0,lr=2", &["axis `lr`", "twice", "lr=A,B,C"]);
    refused("lr=0.1..0.5", &["axis `lr`", "0.1..0.5:lin5"]);
    refused("lr=a..0.5", &["axis `lr`", "`a` is no number"]);
    refused("seed=0..x", &["axis `seed`", "`x` is no number"]);
    refused("seed=4..0", &["axis `seed`", "does not ascend"]);
    refused("lr=1..2:5", &["axis `lr`", "log8"]);
    refused("lr=1..2:logx", &["axis `lr`", "log8"]);
    refused("lr=1..2:lin1", &["axis `lr`", "two ends"]);
    refused("lr=0..1:log5", &["axis `lr`", "above 0"]);
    refused("lr=2..1:lin5", &["does not ascend"]);
    refused("lr=1..nan:lin5", &["`nan` is no number"]);
}

#[test]
fn more_combinations_than_can_be_meant_are_refused_before_they_are_made() {
    refused("seed=0..18446744073709551615", &["axis `seed`", "more than 100000"]);
    refused("lr=1..2:lin999999999999", &["axis `lr`", "the most are 100000"]);
    refused(
        "a=0..999,b=0..999,c=0..999,d=0..999,e=0..999,f=0..999,g=0..999",
        &["more than 100000 combinations", "1000 a × 1000 b"],
    );
    assert_eq!(SweepSpec::parse("a=0..99,b=0..999").unwrap().count(), 100_000);
}
