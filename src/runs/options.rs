//! A run's configuration in the names of the command line's options, flat: what people sort by, read, and type again.

use serde_json::{Map, Value, json};

use super::config::RunConfig;
use crate::head::{ClassWeights, Descent, Recipe, Schedule, Solver, Update};

/// All options that `config` answers, with those that have no value left out. `classes`: the names of the classes.
pub(super) fn options_of(config: &RunConfig, classes: &[String]) -> Value {
    let mut options = Map::new();
    let mut set = |name: &str, value: Value| {
        if !value.is_null() {
            options.insert(name.to_owned(), value);
        }
    };
    of_recipe(&config.recipe, classes, &mut set);
    if let Some(sweep) = &config.sweep {
        let grids = sweep["grids"].as_array().into_iter().flatten();
        set("sweep", json!(grids.map(axes).collect::<Vec<_>>()));
        set("keep", sweep["keep"].clone());
    }
    if let Some(folds) = &config.folds {
        let choice = [&folds["count"], &folds["file"]]
            .into_iter()
            .find(|choice| !choice.is_null());
        set("folds", choice.cloned().unwrap_or_default());
        set("repeats", folds["repeats"].clone());
    }
    let features = &config.features;
    set("backbone", json!(features.backbone));
    set("space", json!(features.space));
    set("views", json!(features.views));
    if features.views > 0 {
        set("views-seed", json!(features.views_seed));
    }
    set("val-fraction", json!(features.val_fraction));
    set("group-by", json!(features.group_by));
    set("path-column", json!(features.path_column));
    set("label-column", json!(features.label_column));
    set("split-column", json!(features.split_column));
    set(
        "image-root",
        json!(features.image_root.as_ref().map(|path| path.to_string_lossy())),
    );
    set("name", json!(features.name.as_ref().map(|path| path.to_string_lossy())));
    Value::Object(options)
}

/// A grid of a sweep as it is written: `lr=0.1,0.01,seed=0,1`.
fn axes(grid: &Value) -> String {
    let text = |value: &Value| {
        let text = super::query::text(value);
        if text.contains(',') { format!("[{text}]") } else { text }
    };
    let axis = |(name, values): (&String, &Value)| {
        let values: Vec<String> = match values {
            Value::Array(values) => values.iter().map(text).collect(),
            value => vec![text(value)],
        };
        format!("{name}={}", values.join(","))
    };
    let axes: Vec<String> = grid.as_object().into_iter().flatten().map(axis).collect();
    axes.join(",")
}

fn of_recipe(recipe: &Recipe, classes: &[String], set: &mut impl FnMut(&str, Value)) {
    set("solver", json!(recipe.solver.name()));
    match &recipe.solver {
        Solver::Descent(descent) => of_descent(descent, set),
        Solver::Lbfgs(lbfgs) | Solver::Linfa(lbfgs) => {
            set("C", json!(lbfgs.c));
            set("tolerance", json!(lbfgs.gradient_tolerance));
            set("max-iterations", json!(lbfgs.max_iterations));
        }
    }
    set(
        "class-weights",
        match &recipe.class_weights {
            ClassWeights::Equal => json!("equal"),
            ClassWeights::Balanced => json!("balanced"),
            ClassWeights::Given(weights) => {
                let pairs = classes.iter().zip(weights);
                let pairs: Vec<String> = pairs.map(|(class, weight)| format!("{class}={weight}")).collect();
                json!(pairs.join(","))
            }
        },
    );
    set("label-smoothing", json!(recipe.label_smoothing));
    set("standardize", json!(recipe.standardize));
    set("seed", json!(recipe.seed));
}

fn of_descent(descent: &Descent, set: &mut impl FnMut(&str, Value)) {
    set("lr", json!(descent.learning_rate));
    set("epochs", json!(descent.epochs));
    set("batch-size", json!(descent.batch_size));
    set("weight-decay", json!(descent.weight_decay));
    match descent.update {
        Update::Sgd {
            momentum,
            dampening,
            nesterov,
        } => {
            set("momentum", json!(momentum));
            set("dampening", json!(dampening));
            set("nesterov", json!(nesterov));
        }
        Update::AdamW { beta1, beta2, epsilon } => {
            set("beta1", json!(beta1));
            set("beta2", json!(beta2));
            set("epsilon", json!(epsilon));
        }
    }
    set("clip-norm", json!(descent.clip_norm));
    set("sampling", json!(descent.sampling));
    if let Some(stopping) = descent.early_stopping {
        set("patience", json!(stopping.patience));
        set("min-delta", json!(stopping.min_delta));
    }
    of_schedule(&descent.schedule, set);
    set("warm-up", json!(descent.warm_up_epochs));
}

fn of_schedule(schedule: &Schedule, set: &mut impl FnMut(&str, Value)) {
    let mut named = |name: &str| set("schedule", json!(name));
    match schedule {
        Schedule::Constant => named("constant"),
        Schedule::Step(step) => {
            named("step");
            set("step-size", json!(step.step_size));
            set("gamma", json!(step.gamma));
        }
        Schedule::MultiStep(steps) => {
            named("multistep");
            let epochs: Vec<String> = steps.milestones.iter().map(ToString::to_string).collect();
            set("milestones", json!(epochs.join(",")));
            set("gamma", json!(steps.gamma));
        }
        Schedule::Exponential(exponential) => {
            named("exponential");
            set("gamma", json!(exponential.gamma));
        }
        Schedule::Cosine(cosine) => {
            named("cosine");
            set("min-lr", json!(cosine.min_lr));
            set("cosine-epochs", json!(cosine.epochs));
        }
        Schedule::OneCycle(cycle) => {
            named("one-cycle");
            set("pct-start", json!(cycle.pct_start));
            set("div-factor", json!(cycle.div_factor));
            set("final-div-factor", json!(cycle.final_div_factor));
            set("cycle-momentum", json!(cycle.cycle_momentum));
            set("base-momentum", json!(cycle.base_momentum));
            set("max-momentum", json!(cycle.max_momentum));
        }
        Schedule::Plateau(plateau) => {
            named("plateau");
            set("gamma", json!(plateau.factor));
            set("plateau-patience", json!(plateau.patience));
            set("plateau-threshold", json!(plateau.threshold));
            set("plateau-cooldown", json!(plateau.cooldown));
            set("min-lr", json!(plateau.min_lr));
        }
    }
}
