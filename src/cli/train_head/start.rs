//! What a training starts from: a data set and defaults, or an earlier run that is to be repeated or varied.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::context::Context;
use super::super::selection::SelectionArguments;
use super::arguments::{PairParser, TrainingArguments};
use super::folds::FoldChoice;
use super::many::Keep;
use crate::error::{Error, Result};
use crate::features::FeatureRequest;
use crate::head::Recipe;
use crate::observer::Observer;
use crate::runs::{FOLDS, Run, RunConfig, RunKind, RunState, find_run};
use crate::sweep::SweepSpec;

/// What the options of the command are laid over.
pub(super) struct Start {
    pub(super) dataset: PathBuf,
    pub(super) request: FeatureRequest,
    pub(super) recipe: Recipe,
    /// Options that a sweep was run with.
    pub(super) options: TrainingArguments,
    pub(super) sweep: Option<SweepSpec>,
    /// How many of its heads were kept.
    pub(super) keep: Option<Keep>,
    pub(super) folds: Option<Folds>,
    /// The run whose pictures must be those of now.
    pub(super) repeated: Option<Run>,
}

/// How pictures are folded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Folds {
    #[serde(flatten)]
    pub(super) choice: FoldChoice,
    pub(super) repeats: u32,
    /// What the folds of the first repeat are drawn from.
    pub(super) seed: u64,
}

impl Start {
    /// From `dataset` and the defaults, or from the run that `from` names below `root`.
    ///
    /// # Errors
    /// [`Error::Usage`] where neither is given, or options that the run answers; what the run's files give.
    pub(super) fn of(
        dataset: Option<PathBuf>,
        selection: SelectionArguments,
        from: Option<&str>,
        root: &std::path::Path,
        context: &Context,
    ) -> Result<Self> {
        let Some(word) = from else {
            let dataset = dataset
                .ok_or_else(|| Error::Usage("no data set: name it, or a run to repeat with --from RUN".to_owned()))?;
            return Ok(Self {
                dataset,
                request: selection.request(context)?,
                recipe: Recipe::default(),
                options: TrainingArguments::default(),
                sweep: None,
                keep: None,
                folds: None,
                repeated: None,
            });
        };
        let run = find_run(root, word)?;
        if let Some(caution) = caution(&run) {
            context.observer.warn(&caution);
        }
        let config = run.config()?;
        let (dataset, request, repeated) = match dataset {
            Some(dataset) => (dataset, selection.request(context)?, None),
            None => {
                if let Some(option) = selection.given() {
                    return Err(Error::Usage(format!(
                        "--from repeats a run on its own pictures and features: leave out {option}, or name the data set"
                    )));
                }
                (config.dataset.absolute.clone(), config.request()?, Some(run.clone()))
            }
        };
        let unreadable = |what: &str| Error::Run {
            path: run.folder.clone(),
            problem: format!("`{what}` in its configuration says what this version does not know"),
        };
        let mut start = Self {
            dataset,
            request,
            recipe: config.recipe,
            options: TrainingArguments::default(),
            sweep: None,
            keep: None,
            folds: None,
            repeated,
        };
        if let Some(sweep) = &config.sweep {
            let base = serde_json::from_value(sweep["base"].clone());
            start.recipe = base.map_err(|_| unreadable("sweep"))?;
            start.options = options_of(&sweep["options"]).ok_or_else(|| unreadable("sweep"))?;
            start.sweep = Some(SweepSpec::from_json(&sweep["grids"]).ok_or_else(|| unreadable("sweep"))?);
            start.keep = sweep["keep"].as_str().and_then(|text| text.parse().ok());
        }
        if let Some(folds) = &config.folds {
            let mut folds: Folds = serde_json::from_value(folds.clone()).map_err(|_| unreadable("folds"))?;
            // A file may be another one now: the run keeps a copy, for its heads too.
            if let FoldChoice::File(path) = &mut folds.choice {
                let folders = [Some(run.folder.as_path()), run.folder.parent()];
                let mut copies = folders.into_iter().flatten().map(|folder| folder.join(FOLDS));
                *path = copies.find(|copy| copy.is_file()).ok_or_else(|| Error::Run {
                    path: run.folder.clone(),
                    problem: format!("its `{FOLDS}` is missing"),
                })?;
            }
            start.folds = Some(folds);
        }
        Ok(start)
    }
}

/// What must be known of a run before it is taken for what it was meant to be.
fn caution(run: &Run) -> Option<String> {
    let (id, sweep) = (&run.id, &run.record["metrics"]["sweep"]);
    let came_to = || run.problem().map_or_else(String::new, |problem| format!(": {problem}"));
    match (run.state, run.kind) {
        (RunState::Interrupted, Some(RunKind::Sweep)) => Some(format!(
            "the sweep {id} was interrupted{}; now all of it is trained",
            came_to()
        )),
        (RunState::Interrupted | RunState::Failed | RunState::Unfinished, _) => Some(format!(
            "the run {id} is {}{}; now it is trained to its end",
            run.state.name(),
            came_to()
        )),
        (RunState::Complete, _) if sweep["interrupted"] == true => Some(format!(
            "{id} was chosen from a part of its sweep, which was interrupted: {} of {} heads were trained",
            sweep["trained_heads"], sweep["heads"]
        )),
        _ => None,
    }
}

/// What a run's configuration keeps of a sweep, laid over `base`; the configuration's own recipe becomes the best head's.
pub(super) fn sweep_config(spec: &SweepSpec, options: &TrainingArguments, base: &Recipe, keep: Option<Keep>) -> Value {
    let options = options
        .given()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), json!(value)));
    json!({
        "base": base,
        "options": options.collect::<serde_json::Map<_, _>>(),
        "grids": spec.to_json(),
        "keep": keep.map(|keep| keep.to_string()),
    })
}

fn options_of(json: &Value) -> Option<TrainingArguments> {
    let mut parser = PairParser::new();
    let mut options = TrainingArguments::default();
    for (name, value) in json.as_object()? {
        if !parser.names().contains(&name.as_str()) {
            return None;
        }
        options = parser.parse(name, value.as_str()?).ok()?.over(&options);
    }
    Some(options)
}

/// The configuration of a run, as far as it is the same whatever is trained.
///
/// # Errors
/// As [`RunConfig::new`].
pub(super) fn config_of(
    job: &super::Job<'_>,
    features: &crate::features::LabelledFeatures,
    recipe: &Recipe,
) -> Result<RunConfig> {
    let command_line = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let mut config = RunConfig::new(job.dataset, job.request, features, recipe, command_line.collect())?;
    if let Some(run) = job.repeated {
        config.dataset = run.config()?.dataset;
    }
    config.folds = job.folds.map(|folds| json!(folds));
    Ok(config)
}
