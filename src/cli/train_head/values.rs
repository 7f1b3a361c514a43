//! What a recipe has for an option: the way back from [`super::overlay`], so that a leaderboard can show in every line what
//! its head was trained with, whether its own sweep varied that or not.

use serde_json::Value;

use super::overlay::name_of;
use crate::head::{Recipe, Solver};
use crate::sweep::shortest_text;

/// The value that `recipe` has for the option of this name, as it is written on the command line; `None` where its solver or
/// schedule has no such option. What is off is `none`.
pub(super) fn value_of(recipe: &Recipe, option: &str) -> Option<String> {
    if option == "solver" {
        return Some(recipe.solver.name().to_owned());
    }
    if let ("schedule", Solver::Descent(descent)) = (option, &recipe.solver) {
        return Some(name_of(&descent.schedule));
    }
    // The keys that a recipe has are those that its solver and its schedule read.
    let json = serde_json::to_value(recipe).ok()?;
    if option == "patience" && json.pointer("/solver/early_stopping")?.is_null() {
        return Some("none".to_owned());
    }
    places(option).iter().find_map(|place| json.pointer(place)).map(text)
}

/// Where a recipe keeps an option, as JSON pointers of which one at most is there.
fn places(option: &str) -> &'static [&'static str] {
    match option {
        "class-weights" => &["/class_weights"],
        "label-smoothing" => &["/label_smoothing"],
        "standardize" => &["/standardize"],
        "seed" => &["/seed"],
        "epochs" => &["/solver/epochs"],
        "batch-size" => &["/solver/batch_size"],
        "lr" => &["/solver/learning_rate"],
        "weight-decay" => &["/solver/weight_decay"],
        "momentum" => &["/solver/update/momentum"],
        "dampening" => &["/solver/update/dampening"],
        "nesterov" => &["/solver/update/nesterov"],
        "beta1" => &["/solver/update/beta1"],
        "beta2" => &["/solver/update/beta2"],
        "epsilon" => &["/solver/update/epsilon"],
        "clip-norm" => &["/solver/clip_norm"],
        "sampling" => &["/solver/sampling"],
        "patience" => &["/solver/early_stopping/patience"],
        "min-delta" => &["/solver/early_stopping/min_delta"],
        "warm-up" => &["/solver/warm_up_epochs"],
        "step-size" => &["/solver/schedule/step_size"],
        "gamma" => &["/solver/schedule/gamma", "/solver/schedule/factor"],
        "milestones" => &["/solver/schedule/milestones"],
        "min-lr" => &["/solver/schedule/min_lr"],
        "cosine-epochs" => &["/solver/schedule/epochs"],
        "plateau-patience" => &["/solver/schedule/patience"],
        "plateau-threshold" => &["/solver/schedule/threshold"],
        "plateau-cooldown" => &["/solver/schedule/cooldown"],
        "pct-start" => &["/solver/schedule/pct_start"],
        "div-factor" => &["/solver/schedule/div_factor"],
        "final-div-factor" => &["/solver/schedule/final_div_factor"],
        "cycle-momentum" => &["/solver/schedule/cycle_momentum"],
        "base-momentum" => &["/solver/schedule/base_momentum"],
        "max-momentum" => &["/solver/schedule/max_momentum"],
        "C" => &["/solver/c"],
        "tolerance" => &["/solver/gradient_tolerance"],
        "max-iterations" => &["/solver/max_iterations"],
        _ => &[],
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(word) => word.replace('_', "-"),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
        // Weights of classes, whose names the recipe does not know.
        Value::Object(fields) => fields.values().map(text).collect::<Vec<_>>().join(","),
        other => shortest_text(&other.to_string()),
    }
}
