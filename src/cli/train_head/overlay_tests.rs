#![expect(clippy::unwrap_used, reason = "tests")]

use super::super::arguments::PairParser;
use super::super::values::value_of;
use super::*;

fn arguments(options: &[(&str, &str)]) -> TrainingArguments {
    let mut parser = PairParser::new();
    options.iter().fold(TrainingArguments::default(), |all, (name, value)| {
        parser.parse(name, value).unwrap().over(&all)
    })
}

fn recipe(options: &[(&str, &str)]) -> Recipe {
    let mut recipe = Recipe::default();
    assert_eq!(arguments(options).lay_over(&mut recipe).unwrap(), []);
    recipe
}

/// The part of a recipe's JSON below these keys.
fn value(recipe: &Recipe, path: &str) -> serde_json::Value {
    serde_json::to_value(recipe).unwrap().pointer(path).unwrap().clone()
}

/// Options, a path into the recipe's JSON, and what is there then.
type Case = (&'static [(&'static str, &'static str)], &'static str, &'static str);

#[test]
fn every_option_reaches_its_place_in_the_recipe() {
    let cases: &[Case] = &[
        (&[("seed", "7")], "/seed", "7"),
        (&[("label-smoothing", "0.1")], "/label_smoothing", "0.1"),
        (&[("standardize", "true")], "/standardize", "true"),
        (&[("class-weights", "balanced")], "/class_weights", "\"balanced\""),
        (&[("epochs", "3")], "/solver/epochs", "3"),
        (&[("batch-size", "8")], "/solver/batch_size", "8"),
        (&[("lr", "0.5")], "/solver/learning_rate", "0.5"),
        (&[("weight-decay", "0.25")], "/solver/weight_decay", "0.25"),
        (&[("momentum", "0.5")], "/solver/update/momentum", "0.5"),
        (&[("dampening", "0.5")], "/solver/update/dampening", "0.5"),
        (&[("nesterov", "true")], "/solver/update/nesterov", "true"),
        (&[("solver", "adamw"), ("beta1", "0.5")], "/solver/update/beta1", "0.5"),
        (&[("solver", "adamw"), ("beta2", "0.5")], "/solver/update/beta2", "0.5"),
        (
            &[("solver", "adamw"), ("epsilon", "0.5")],
            "/solver/update/epsilon",
            "0.5",
        ),
        (&[("clip-norm", "2.5")], "/solver/clip_norm", "2.5"),
        (&[("sampling", "balanced")], "/solver/sampling", "\"balanced\""),
        (&[("patience", "4")], "/solver/early_stopping/patience", "4"),
        (
            &[("patience", "4"), ("min-delta", "0.5")],
            "/solver/early_stopping/min_delta",
            "0.5",
        ),
        (&[("warm-up", "4")], "/solver/warm_up_epochs", "4"),
        (&[("schedule", "constant")], "/solver/schedule/kind", "\"constant\""),
        (&[("step-size", "3")], "/solver/schedule/step_size", "3"),
        (&[("gamma", "0.5")], "/solver/schedule/gamma", "0.5"),
        (
            &[("schedule", "multistep"), ("milestones", "5,9")],
            "/solver/schedule/milestones",
            "[5,9]",
        ),
        (
            &[("schedule", "multistep"), ("milestones", "5"), ("gamma", "0.5")],
            "/solver/schedule/gamma",
            "0.5",
        ),
        (
            &[("schedule", "exponential"), ("gamma", "0.5")],
            "/solver/schedule/gamma",
            "0.5",
        ),
        (
            &[("schedule", "cosine"), ("min-lr", "0.5")],
            "/solver/schedule/min_lr",
            "0.5",
        ),
        (
            &[("schedule", "cosine"), ("cosine-epochs", "5")],
            "/solver/schedule/epochs",
            "5",
        ),
        (
            &[("schedule", "one-cycle"), ("pct-start", "0.5")],
            "/solver/schedule/pct_start",
            "0.5",
        ),
        (
            &[("schedule", "one-cycle"), ("div-factor", "5")],
            "/solver/schedule/div_factor",
            "5.0",
        ),
        (
            &[("schedule", "one-cycle"), ("final-div-factor", "5")],
            "/solver/schedule/final_div_factor",
            "5.0",
        ),
        (
            &[("schedule", "one-cycle"), ("cycle-momentum", "false")],
            "/solver/schedule/cycle_momentum",
            "false",
        ),
        (
            &[("schedule", "one-cycle"), ("base-momentum", "0.5")],
            "/solver/schedule/base_momentum",
            "0.5",
        ),
        (
            &[("schedule", "one-cycle"), ("max-momentum", "0.5")],
            "/solver/schedule/max_momentum",
            "0.5",
        ),
        (
            &[("schedule", "plateau"), ("gamma", "0.5")],
            "/solver/schedule/factor",
            "0.5",
        ),
        (
            &[("schedule", "plateau"), ("plateau-patience", "5")],
            "/solver/schedule/patience",
            "5",
        ),
        (
            &[("schedule", "plateau"), ("plateau-threshold", "0.5")],
            "/solver/schedule/threshold",
            "0.5",
        ),
        (
            &[("schedule", "plateau"), ("plateau-cooldown", "5")],
            "/solver/schedule/cooldown",
            "5",
        ),
        (
            &[("schedule", "plateau"), ("min-lr", "0.5")],
            "/solver/schedule/min_lr",
            "0.5",
        ),
        (&[("solver", "lbfgs"), ("C", "0.5")], "/solver/c", "0.5"),
        (
            &[("solver", "linfa"), ("tolerance", "0.5")],
            "/solver/gradient_tolerance",
            "0.5",
        ),
        (
            &[("solver", "lbfgs"), ("max-iterations", "5")],
            "/solver/max_iterations",
            "5",
        ),
        (&[("solver", "linfa")], "/solver/kind", "\"linfa\""),
    ];
    for (options, path, expected) in cases {
        let expected: serde_json::Value = serde_json::from_str(expected).unwrap();
        let changed = recipe(options);
        assert_eq!(value(&changed, path), expected, "{options:?}");
        assert_ne!(changed, Recipe::default(), "{options:?}");
        // And back: the same value as it was written.
        for (name, written) in *options {
            assert_eq!(
                value_of(&changed, name).as_deref(),
                Some(*written),
                "{name} of {options:?}"
            );
        }
    }
    let named: std::collections::BTreeSet<&str> = cases
        .iter()
        .flat_map(|(options, ..)| options.iter().map(|(name, _)| *name))
        .collect();
    assert_eq!(
        named,
        PairParser::new().names().into_iter().collect(),
        "an option without a case"
    );
}

#[test]
fn a_recipe_has_a_value_for_the_options_that_it_reads_and_for_no_other() {
    for options in [
        &[][..],
        &[("solver", "adamw"), ("schedule", "cosine"), ("patience", "3")],
        &[("solver", "lbfgs")],
        &[("schedule", "plateau")],
        &[("schedule", "one-cycle")],
    ] {
        let recipe = recipe(options);
        for name in PairParser::new().names() {
            // Those that make no sense alone are told to have none.
            let is_read = match name {
                "min-delta" => options.iter().any(|(name, _)| *name == "patience"),
                _ => {
                    let text = super::super::arguments::tests::example(name);
                    let unread = arguments(&[(name, text)]).lay_over(&mut recipe.clone());
                    // To be one of these is not to read them: naming another would be another recipe.
                    name == "solver" || unread.unwrap().is_empty()
                }
            };
            assert_eq!(value_of(&recipe, name).is_some(), is_read, "{name} of {options:?}");
        }
    }
    assert_eq!(value_of(&recipe(&[]), "patience").as_deref(), Some("none"));
    assert_eq!(
        value_of(&recipe(&[("schedule", "cosine")]), "cosine-epochs").as_deref(),
        Some("none")
    );
}

#[test]
fn no_option_is_the_default_recipe() {
    assert_eq!(recipe(&[]), Recipe::default());
    assert_eq!(recipe(&[("solver", "sgd"), ("schedule", "step")]), Recipe::default());
}

#[test]
fn options_lie_over_an_earlier_recipe() {
    let mut earlier = recipe(&[
        ("solver", "adamw"),
        ("lr", "0.5"),
        ("schedule", "cosine"),
        ("min-lr", "0.1"),
    ]);
    let kept = earlier.clone();
    assert_eq!(
        arguments(&[("seed", "0"), ("solver", "adamw")])
            .lay_over(&mut earlier)
            .unwrap(),
        []
    );
    assert_eq!(earlier, kept, "naming what it is changes nothing");
    arguments(&[("epochs", "3")]).lay_over(&mut earlier).unwrap();
    assert_eq!(value(&earlier, "/solver/learning_rate"), 0.5);
    assert_eq!(value(&earlier, "/solver/epochs"), 3);
    arguments(&[("solver", "lbfgs")]).lay_over(&mut earlier).unwrap();
    assert_eq!(
        earlier,
        recipe(&[("solver", "lbfgs")]),
        "another solver has its own defaults"
    );
}

#[test]
fn what_solver_or_schedule_does_not_read_is_told() {
    for (options, said) in [
        (
            &[("solver", "lbfgs"), ("momentum", "0.9")][..],
            "--momentum is not an option of the solver lbfgs",
        ),
        (
            &[("solver", "adamw"), ("momentum", "0.9")],
            "--momentum is not an option of the solver adamw",
        ),
        (&[("C", "1")], "--C is not an option of the solver sgd"),
        (&[("beta1", "0.5")], "--beta1 is not an option of the solver sgd"),
        (
            &[("schedule", "cosine"), ("gamma", "0.5")],
            "--gamma is not an option of the schedule cosine",
        ),
        (&[("min-lr", "0.5")], "--min-lr is not an option of the schedule step"),
        (
            &[("solver", "linfa"), ("schedule", "step")],
            "--schedule is not an option of the solver linfa",
        ),
        (
            &[("solver", "lbfgs"), ("gamma", "0.5")],
            "--gamma is not an option of the solver lbfgs",
        ),
    ] {
        let unread = arguments(options).lay_over(&mut Recipe::default()).unwrap();
        assert_eq!(unread.len(), 1, "{options:?}");
        assert_eq!(unread[0].error().to_string(), said);
    }
}

#[test]
fn an_option_that_needs_another_says_which() {
    for (options, said) in [
        (&[("min-delta", "0.1")], "--patience"),
        (&[("schedule", "multistep")], "--milestones 10,20"),
        (&[("schedule", "exponential")], "--gamma 0.9"),
    ] {
        let error = arguments(options).lay_over(&mut Recipe::default()).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[test]
fn weights_find_their_classes() {
    let classes = ["bird", "cat=2", "dog"].map(str::to_owned);
    let weights = |text: &str| {
        let mut recipe = Recipe::default();
        let weights = arguments(&[("class-weights", text)]).class_weights.unwrap();
        weights.resolve(&classes, &mut recipe).map(|()| recipe.class_weights)
    };
    assert_eq!(
        weights("dog=3, cat=2=0.5").unwrap(),
        ClassWeights::Given(vec![1.0, 0.5, 3.0])
    );
    let error = weights("cow=1").unwrap_err().to_string();
    assert!(error.contains("`cow`") && error.contains("`dog`"), "{error}");
}
