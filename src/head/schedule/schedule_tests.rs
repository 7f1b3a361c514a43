use serde_json::Value;

use super::*;

/// What `tests/fixtures/make_schedules.py` wrote.
fn fixture() -> Value {
    serde_json::from_str(include_str!("../../../tests/fixtures/schedules.json")).unwrap()
}

/// The numbers of an epoch.
fn numbers(epoch: &Value) -> Vec<f64> {
    let words = epoch.as_str().unwrap().split(' ');
    words.map(|number| number.parse().unwrap()).collect()
}

fn assert_close(got: f64, expected: f64, tolerance: f64, place: &str) {
    let difference = (got - expected).abs();
    assert!(
        difference <= tolerance * expected.abs(),
        "{place}: {got:e}, PyTorch has {expected:e}"
    );
}

#[test]
fn every_schedule_has_pytorchs_rates_and_momenta() {
    let fixture = fixture();
    let losses: Vec<f64> = serde_json::from_value(fixture["losses"].clone()).unwrap();
    let cases = fixture["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 23);
    for case in cases {
        let schedule: Schedule = serde_json::from_value(case["schedule"].clone()).unwrap();
        schedule.check().unwrap();
        let number = |key: &str| case[key].as_f64().unwrap();
        let count = |key: &str| usize::try_from(case[key].as_u64().unwrap()).unwrap();
        let (warm_up, epochs, steps) = (count("warm_up_epochs"), count("epochs"), count("steps_per_epoch"));
        schedule.check_warm_up(warm_up, epochs).unwrap();
        let (learning_rate, momentum) = (number("learning_rate"), number("momentum"));
        let mut scheduler = Scheduler::new(&schedule, learning_rate, momentum, warm_up, epochs, steps);
        assert_eq!(case["rates"].as_array().unwrap().len(), epochs);
        for epoch in 0..epochs {
            // Products are PyTorch's to the last bit. A cosine may differ in it from one system's library to another's, and
            // the closed form of the warm-up from PyTorch's product by the roundings of its 15 factors.
            let exact = epoch >= warm_up && !matches!(schedule, Schedule::Cosine(_) | Schedule::OneCycle(_));
            let tolerance = if exact { 0.0 } else { 1e-12 };
            let rates = numbers(&case["rates"][epoch]);
            for step in 0..steps {
                let place = format!("{}, epoch {epoch}, step {step}", case["schedule"]);
                let got = scheduler.rates(epoch, step);
                // One number stands for all steps of the epoch.
                let expected = rates.get(step).unwrap_or(&rates[0]);
                assert_close(got.learning_rate, *expected, tolerance, &place);
                let momenta = case["momenta"].get(epoch).map(numbers);
                let expected = momenta.map_or(momentum, |momenta| momenta[step]);
                assert_close(got.momentum, expected, 1e-12, &place);
            }
            scheduler.epoch_ended(losses.get(epoch).copied());
        }
    }
}

#[test]
fn a_warm_up_is_not_looked_at_by_a_plateau() {
    let patient = Schedule::Plateau(PlateauLr {
        patience: 0,
        ..PlateauLr::default()
    });
    let mut scheduler = Scheduler::new(&patient, 0.5, 0.9, 2, 6, 10);
    for loss in [1.0, 9.0, 9.0, 8.0] {
        scheduler.epoch_ended(Some(loss));
    }
    assert_eq!(scheduler.rates(4, 3).learning_rate, 0.5);
    scheduler.epoch_ended(Some(8.0));
    assert_eq!(scheduler.rates(5, 0).learning_rate, 0.05);
    scheduler.epoch_ended(None);
    assert_eq!(scheduler.rates(6, 0).learning_rate, 0.05);
}

#[test]
fn beyond_its_end_a_schedule_stays_where_it_was() {
    let halving = Schedule::Exponential(ExponentialLr { gamma: 0.5 });
    for schedule in [
        Schedule::Constant,
        halving.clone(),
        Schedule::OneCycle(OneCycleLr::default()),
    ] {
        let mut scheduler = Scheduler::new(&schedule, 0.8, 0.9, 0, 3, 4);
        (0..2).for_each(|_| scheduler.epoch_ended(None));
        let last = scheduler.rates(2, 3);
        assert_eq!(scheduler.rates(2, 4), last);
        (2..9).for_each(|_| scheduler.epoch_ended(None));
        assert_eq!(scheduler.rates(9, 0), last);
    }
    let all_warm_up = Scheduler::new(&halving, 0.8, 0.9, 3, 3, 4);
    let expected = Rates {
        learning_rate: 0.8,
        momentum: 0.9,
    };
    assert_eq!(all_warm_up.rates(3, 0), expected);
}

#[test]
fn a_schedule_reads_back_as_it_was_written_and_what_is_left_out_is_pytorchs_default() {
    let read = |json: &str| serde_json::from_str::<Schedule>(json).unwrap();
    for (json, schedule) in [
        (r#"{"kind":"constant"}"#, Schedule::Constant),
        (r#"{"kind":"step"}"#, Schedule::default()),
        (
            r#"{"kind":"multi_step","milestones":[4]}"#,
            Schedule::MultiStep(MultiStepLr {
                milestones: vec![4],
                gamma: 0.1,
            }),
        ),
        (r#"{"kind":"cosine"}"#, Schedule::Cosine(CosineLr::default())),
        (r#"{"kind":"one_cycle"}"#, Schedule::OneCycle(OneCycleLr::default())),
        (r#"{"kind":"plateau"}"#, Schedule::Plateau(PlateauLr::default())),
    ] {
        assert_eq!(read(json), schedule);
        assert_eq!(read(&serde_json::to_string(&schedule).unwrap()), schedule);
    }
    assert!(serde_json::from_str::<Schedule>(r#"{"kind":"step","gama":0.5}"#).is_err());
    assert!(serde_json::from_str::<Schedule>(r#"{"kind":"exponential"}"#).is_err());
}

#[test]
fn senseless_schedules_are_refused_by_the_name_of_what_is_wrong() {
    for (json, word) in [
        (r#"{"kind":"step","step_size":0}"#, "step size"),
        (r#"{"kind":"step","gamma":0}"#, "gamma"),
        (r#"{"kind":"multi_step","milestones":[]}"#, "milestones"),
        (r#"{"kind":"multi_step","milestones":[3,3]}"#, "milestones"),
        (r#"{"kind":"multi_step","milestones":[0,3]}"#, "first milestone"),
        (r#"{"kind":"multi_step","milestones":[3],"gamma":-1}"#, "gamma"),
        (r#"{"kind":"exponential","gamma":0}"#, "gamma"),
        (r#"{"kind":"cosine","epochs":0}"#, "wave"),
        (r#"{"kind":"cosine","min_lr":-1}"#, "min_lr"),
        (r#"{"kind":"one_cycle","pct_start":1.5}"#, "pct_start"),
        (r#"{"kind":"one_cycle","div_factor":0}"#, "div_factor"),
        (r#"{"kind":"one_cycle","final_div_factor":0}"#, "final_div_factor"),
        (r#"{"kind":"one_cycle","base_momentum":1}"#, "base_momentum"),
        (r#"{"kind":"one_cycle","max_momentum":-0.1}"#, "max_momentum"),
        (r#"{"kind":"plateau","factor":1}"#, "factor"),
        (r#"{"kind":"plateau","factor":0}"#, "factor"),
        (r#"{"kind":"plateau","threshold":1}"#, "threshold"),
        (r#"{"kind":"plateau","min_lr":-1}"#, "min_lr"),
    ] {
        let error = serde_json::from_str::<Schedule>(json).unwrap().check().unwrap_err();
        assert!(
            matches!(&error, Error::Usage(problem) if problem.contains(word)),
            "{json}: {error}"
        );
    }
    for value in [f64::NAN, f64::INFINITY] {
        assert!(
            Schedule::Exponential(ExponentialLr { gamma: value }).check().is_err(),
            "{value}"
        );
        let wave = CosineLr {
            min_lr: value,
            epochs: None,
        };
        assert!(Schedule::Cosine(wave).check().is_err(), "{value}");
    }
}

#[test]
fn a_warm_up_that_does_not_fit_is_refused() {
    let one_cycle = Schedule::OneCycle(OneCycleLr::default());
    assert!(
        one_cycle
            .check_warm_up(1, 9)
            .unwrap_err()
            .to_string()
            .contains("one-cycle")
    );
    assert!(one_cycle.check_warm_up(0, 9).is_ok());
    assert!(Schedule::Constant.check_warm_up(10, 9).is_err());
    assert!(Schedule::Constant.check_warm_up(9, 9).is_ok());
}

#[test]
fn a_training_of_very_many_epochs_takes_no_memory_for_those_to_come() {
    let halving = Schedule::Exponential(ExponentialLr { gamma: 0.5 });
    let mut scheduler = Scheduler::new(&halving, 0.8, 0.9, 0, usize::MAX, 1);
    scheduler.epoch_ended(None);
    assert_eq!(scheduler.rates(1, 0).learning_rate, 0.4);
}
