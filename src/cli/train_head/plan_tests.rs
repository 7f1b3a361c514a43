#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

fn plan(spec: &str, base: &[(&str, &str)]) -> Result<Plan> {
    let mut parser = PairParser::new();
    let base = base.iter().fold(TrainingArguments::default(), |all, (name, value)| {
        parser.parse(name, value).unwrap().over(&all)
    });
    Plan::of(&SweepSpec::parse(spec).unwrap(), &base, &Recipe::default())
}

fn lines(plan: &Plan) -> Vec<String> {
    plan.combinations
        .iter()
        .map(|combination| combination.command_line().join(" "))
        .collect()
}

#[test]
fn every_combination_is_the_recipe_that_its_options_alone_give() {
    let swept = plan("lr=0.1,0.2,seed=0..1,schedule=step,cosine", &[("epochs", "3")]).unwrap();
    assert_eq!(swept.axes, ["lr", "seed", "schedule"]);
    assert_eq!(swept.combinations.len(), 8);
    assert_eq!(
        lines(&swept)[..3],
        [
            "--seed=0 --epochs=3 --lr=0.1 --schedule=step",
            "--seed=0 --epochs=3 --lr=0.1 --schedule=cosine",
            "--seed=1 --epochs=3 --lr=0.1 --schedule=step",
        ]
    );
    let mut parser = PairParser::new();
    for (combination, line) in swept.combinations.iter().zip(lines(&swept)) {
        let mut alone = TrainingArguments::default();
        for option in line.split(' ') {
            let (name, value) = option.trim_start_matches("--").split_once('=').unwrap();
            alone = parser.parse(name, value).unwrap().over(&alone);
        }
        let single = Plan::single(&alone, &Recipe::default()).unwrap();
        assert_eq!(single.combinations[0].recipe, combination.recipe);
    }
}

#[test]
fn a_combination_does_without_what_it_does_not_read() {
    let swept = plan("solver=sgd,lbfgs,lr=0.1,0.2,C=1,10", &[("momentum", "0.5")]).unwrap();
    assert_eq!(
        lines(&swept),
        [
            "--solver=sgd --lr=0.1 --momentum=0.5",
            "--solver=sgd --lr=0.2 --momentum=0.5",
            "--solver=lbfgs --C=1",
            "--solver=lbfgs --C=10",
        ]
    );
    assert_eq!(swept.combinations[2].settings.len(), 2);
    assert_eq!(swept.notes.len(), 1, "{:?}", swept.notes);
    assert!(swept.notes[0].starts_with("4 of 8 combinations"), "{:?}", swept.notes);
}

#[test]
fn what_no_combination_reads_is_an_error() {
    for (spec, base, said) in [
        (
            "solver=sgd,adamw,C=1,2",
            &[][..],
            "--C is not an option of the solver sgd",
        ),
        ("lr=0.1,0.2", &[("C", "1")], "--C is not an option of the solver sgd"),
        (
            "gamma=0.1,0.2",
            &[("schedule", "cosine")],
            "--gamma is not an option of the schedule cosine",
        ),
    ] {
        let error = plan(spec, base).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[test]
fn an_axis_must_be_an_option_with_values_it_can_have() {
    for (spec, base, words) in [
        (
            "rate=0.1",
            &[][..],
            &["axis `rate`", "is no option", "lr", "momentum"][..],
        ),
        ("help=1", &[], &["axis `help`"]),
        ("lr=fast", &[], &["axis `lr`", "'fast'", "--help"]),
        ("epochs=1..2:lin3", &[], &["axis `epochs`", "1.5"]),
        ("lr=0.1,0.2", &[("lr", "0.3")], &["axis `lr`", "as an option too"]),
        ("lr=-1", &[], &["learning rate", "-1", "in the combination lr=-1"]),
    ] {
        let error = plan(spec, base).unwrap_err();
        assert_eq!(error.kind(), crate::error::ErrorKind::Usage);
        let said = format!("{error}\n{}", error.hint().unwrap_or_default());
        for word in words {
            assert!(said.contains(word), "no {word:?} in: {said}");
        }
    }
}

#[test]
fn combinations_that_make_no_sense_are_left_out_and_told() {
    let plan = plan("nesterov=true,momentum=0,0.9,0.5", &[]).unwrap();
    assert_eq!(plan.combinations.len(), 2);
    let told = &plan.notes[0];
    assert!(told.contains("1 of 3 combinations make no sense"), "{told}");
    assert!(told.contains("in the combination nesterov=true, momentum=0"), "{told}");
}

#[test]
fn a_sweep_of_which_nothing_is_left_is_an_error() {
    let error = plan("nesterov=true,momentum=0", &[]).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Usage);
    assert!(error.to_string().contains("nesterov needs a momentum"), "{error}");
}

#[test]
fn the_default_sweep_is_what_its_help_says() {
    let specs = DEFAULT_SWEEP
        .iter()
        .map(|text| SweepSpec::parse(text).unwrap())
        .collect();
    let spec = SweepSpec::union(specs).unwrap();
    let plan = Plan::of(&spec, &TrainingArguments::default(), &Recipe::default()).unwrap();
    assert_eq!(plan.combinations.len(), 18);
    assert_eq!(plan.axes, ["solver", "standardize", "C", "lr"]);
    assert!(plan.notes.is_empty(), "{:?}", plan.notes);
}
