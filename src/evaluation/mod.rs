//! `evaluate`: a head's numbers on a split of a data set whose features are cached, and how far they can be believed.
//!
//! No picture is read. What the numbers are is [`metrics`](crate::metrics)' business; here it is which pictures count, how
//! their classes are matched with the head's, and whether the head has been fitted to just these pictures.

mod test_uses;

use std::path::{Path, PathBuf};

use ndarray::{Array2, ArrayView1};
use regex::Regex;
use serde::Serialize;
use serde_json::Value;

use crate::cache::Cache;
use crate::dataset::{InputOptions, Split};
use crate::error::{Error, Result};
use crate::features::{FeatureRequest, Overlap, Selection, SpaceChoice, VAL_FRACTION};
use crate::head::{HeadFile, HeadMeta};
use crate::metrics::Report;
use crate::space::SpaceDescription;
use crate::views::RandomViews;

pub use test_uses::{TestUse, TestUses};

/// Accuracies are equal that differ by rounding alone.
const SAME: f64 = 1e-9;

/// Which pictures of a data set are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EvaluatedSplit {
    /// Those that heads are trained on.
    Train,
    /// Those that heads are selected on.
    #[default]
    Val,
    /// Those that nothing was decided by.
    Test,
    /// All.
    All,
}

/// What is to be evaluated.
#[derive(Debug, Clone, Default)]
pub struct EvaluationRequest {
    /// How the data set is read.
    pub input: InputOptions,
    /// Which pictures. Default: the validation split.
    pub split: EvaluatedSplit,
    /// The share of each class that validates where the data set gives no validation split. Default: as when the head was
    /// trained.
    pub val_fraction: Option<f64>,
    /// Which pictures stay on one side of a split. Default: as when the head was trained.
    pub group_by: Option<Regex>,
    /// Whether pictures of classes that the head does not know are left out. Default: false, they are an error.
    pub skip_unknown: bool,
}

/// Why a number is better than that of new pictures will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Optimism {
    /// The head was trained on these pictures, or on some of them.
    TrainedOn,
    /// The head is the best of several by its accuracy on these pictures, or on a set that has some of them, and calibrated
    /// on them where it is.
    SelectedOn,
    /// Other heads were scored on this test split before.
    TestReused,
}

/// How many of the evaluated pictures a head has seen before.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SeenBefore {
    /// Those that it was trained on.
    pub trained_on: Overlap,
    /// Those that it was selected, and where it is calibrated on.
    pub selected_on: Overlap,
}

/// What became of an evaluation.
#[derive(Debug)]
#[non_exhaustive]
pub struct Evaluation {
    /// The data set's name.
    pub dataset: PathBuf,
    /// Which pictures were evaluated.
    pub split: EvaluatedSplit,
    /// The numbers.
    pub report: Report,
    /// The pictures in the data set's order.
    pub pictures: Vec<EvaluatedPicture>,
    /// Their logits, `[n, classes]`.
    pub logits: Array2<f32>,
    /// Why the numbers are too good; empty where nothing is known to be.
    pub optimism: Vec<Optimism>,
    /// How many of the pictures the head has seen before; `None` of heads of versions that did not say it, of which `optimism`
    /// is found out by counting.
    pub seen: Option<SeenBefore>,
    /// The uses of the test split, where pictures of it were evaluated.
    pub test_uses: Option<TestUses>,
    /// Pictures left out because they have no label.
    pub unlabelled_images: usize,
    /// Pictures left out because the head does not know their class.
    pub unknown_images: usize,
    /// Pictures of the data set that `extract` could not read.
    pub failed_images: usize,
    /// Things a careful person would want to know, one line each.
    pub warnings: Vec<String>,
}

/// One picture of an evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EvaluatedPicture {
    /// Path below the data set's root.
    pub path: PathBuf,
    /// Its split.
    pub split: Split,
    /// The true class, an index into the head's.
    pub label: usize,
}

impl EvaluatedSplit {
    fn has(self, split: Split) -> bool {
        match self {
            Self::Train => split == Split::Train,
            Self::Val => split == Split::Val,
            Self::Test => split == Split::Test,
            Self::All => true,
        }
    }
}

impl std::fmt::Display for EvaluatedSplit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
            Self::All => "all",
        })
    }
}

/// Scores the head of the file `path`, which was read into `head`, on pictures of `dataset`, from the features in `cache`.
///
/// Classes are matched by name. Where pictures of the test split are scored, the cache notes that they were looked at.
///
/// # Errors
/// [`Error::NotExtracted`] and [`Error::Dataset`] when there are no features in the head's space, no pictures in the split,
/// or classes that the head does not know; what reading the cache gives.
pub fn evaluate(
    cache: &Cache,
    dataset: &Path,
    (path, head): (&Path, &HeadFile),
    request: &EvaluationRequest,
) -> Result<Evaluation> {
    let selection = select(cache, dataset, path, &head.meta, request)?;
    let Chosen {
        rows,
        labels,
        unlabelled,
        unknown,
    } = choose(&selection, dataset, &head.meta, request)?;
    let features = selection.features(&rows)?;
    let logits = head.head.logits(features.view())?;
    let report = Report::of(logits.view(), &labels, &head.meta.classes, head.meta.temperature)?;

    let mut contents: Vec<[u8; 32]> = rows
        .iter()
        .filter(|&&row| selection.split(row) == Some(Split::Test))
        .map(|&row| selection.content(row))
        .collect();
    let test_uses = (!contents.is_empty())
        .then(|| TestUse::of(selection.name(), &mut contents, (path, &head.head), report.accuracy).note(cache));
    let mut optimism = Vec::new();
    let mut warnings: Vec<String> = selection.warnings().collect();
    let noted = |key: &str| head.meta.metrics.get(key).and_then(Value::as_f64);
    let evaluated: Vec<[u8; 32]> = rows.iter().map(|&row| selection.content(row)).collect();
    let seen = head.meta.pictures.as_ref().map(|pictures| SeenBefore {
        trained_on: pictures.train.overlap(&evaluated),
        selected_on: pictures.val.overlap(&evaluated),
    });
    let same_accuracy = noted("val_accuracy").is_some_and(|accuracy| (accuracy - report.accuracy).abs() < SAME);
    let (trained_on, selected_on, selection_images) = match &seen {
        Some(seen) => {
            let val_images = head.meta.pictures.as_ref().map(|pictures| pictures.val.images() as f64);
            (
                seen.trained_on.is_any(),
                seen.selected_on,
                val_images.filter(|images| *images > 0.0),
            )
        }
        None => (
            counts_are_those_of_training(&selection, &rows, head),
            Overlap::of_all(
                noted("val_images") == Some(report.images as f64) && same_accuracy,
                report.images,
            ),
            noted("val_images"),
        ),
    };
    if trained_on {
        optimism.push(Optimism::TrainedOn);
    }
    // Without a list of them, the pictures of other splits can't be told.
    if selected_on.is_any() && (seen.is_some() || request.split == EvaluatedSplit::Val) {
        optimism.push(Optimism::SelectedOn);
    }
    if request.split == EvaluatedSplit::Val
        && !selected_on.same
        && let (Some(images), Some(accuracy)) = (selection_images, noted("val_accuracy"))
    {
        warnings.push(format!(
            "these are not the pictures that the head was selected on: it had an accuracy of {accuracy:.4} on {images} \
             pictures then"
        ));
    }
    if test_uses.as_ref().is_some_and(|uses| uses.heads > 1) {
        optimism.push(Optimism::TestReused);
    }
    if let Some(error) = test_uses.as_ref().and_then(|uses| uses.not_noted.as_ref()) {
        warnings.push(format!("the cache can't note that this test split was used: {error}"));
    }
    let picture = |(&row, label): (&usize, usize)| EvaluatedPicture {
        path: selection.path(row).into_owned(),
        split: selection.split(row).expect("a chosen picture has a split"),
        label,
    };
    Ok(Evaluation {
        dataset: selection.name().to_path_buf(),
        split: request.split,
        pictures: rows.iter().zip(labels).map(picture).collect(),
        report,
        logits,
        optimism,
        seen,
        test_uses,
        unlabelled_images: unlabelled,
        unknown_images: unknown,
        failed_images: selection.failed_images(),
        warnings,
    })
}

impl Evaluation {
    /// The probabilities of a picture, `[classes]`, with the predicted class: calibrated as the head is.
    #[must_use]
    pub fn prediction(&self, picture: usize) -> (usize, Vec<f64>) {
        let logits: ArrayView1<'_, f32> = self.logits.row(picture);
        let logits = logits.to_vec();
        let probabilities = crate::metrics::probabilities(&logits, self.report.temperature);
        (crate::head::argmax(&logits), probabilities)
    }
}

/// Whether as many pictures train now as then, and some of `rows` do: all that can be said of heads that don't say which.
fn counts_are_those_of_training(selection: &Selection, rows: &[usize], head: &HeadFile) -> bool {
    let metrics = &head.meta.metrics;
    // The head of a cross-validation was trained on train and val together in the end.
    let folded = metrics.get("cross_validation").is_some();
    let trains = |row: usize| match selection.split(row) {
        Some(Split::Train) => true,
        Some(Split::Val) => folded,
        _ => false,
    };
    let trained = (0..selection.len()).filter(|&row| selection.class(row).is_some() && trains(row));
    let then = metrics.get("train_images").and_then(Value::as_u64);
    rows.iter().any(|&row| trains(row)) && then == Some(trained.count() as u64)
}

/// The data set's pictures, split as when the head was trained unless the request says otherwise.
fn select(
    cache: &Cache,
    dataset: &Path,
    head: &Path,
    meta: &HeadMeta,
    request: &EvaluationRequest,
) -> Result<Selection> {
    let group_by = match (&request.group_by, meta.options.get("group_by").and_then(Value::as_str)) {
        (Some(given), _) => Some(given.clone()),
        (None, Some(pattern)) => Some(Regex::new(pattern).map_err(|error| Error::HeadFile {
            path: head.to_path_buf(),
            problem: format!("its option `group_by` is no pattern: {error}"),
        })?),
        (None, None) => None,
    };
    let noted = || meta.options.get("val_fraction").and_then(Value::as_f64);
    let features = FeatureRequest {
        input: request.input.clone(),
        space: SpaceChoice {
            space: Some(meta.space_id.clone()),
            ..SpaceChoice::default()
        },
        val_fraction: request.val_fraction.or_else(noted).unwrap_or(VAL_FRACTION),
        group_by,
        views: RandomViews::default(),
    };
    Selection::of(cache, dataset, &features).map_err(|error| match error {
        Error::NoSuchSpace { path, spaces } => {
            let options = SpaceDescription::parse(&meta.space).map(|description| description.options());
            let options = options.unwrap_or_default().arguments();
            Error::Dataset {
                problem: format!(
                    "has no features of the head's backbone, `{}`; it has them in\n  - {}",
                    meta.backbone,
                    spaces.join("\n  - ")
                ),
                hint: format!(
                    "run `lastlayer extract {} --backbone {}{options}` with the same --cache",
                    dataset.display(),
                    meta.backbone
                ),
                path,
            }
        }
        other => other,
    })
}

/// The pictures that are scored, with their classes as the head counts them.
struct Chosen {
    rows: Vec<usize>,
    labels: Vec<usize>,
    unlabelled: usize,
    unknown: usize,
}

fn choose(selection: &Selection, dataset: &Path, meta: &HeadMeta, request: &EvaluationRequest) -> Result<Chosen> {
    let place = |name: &String| meta.classes.iter().position(|class| class == name);
    let known: Vec<Option<usize>> = selection.classes().iter().map(place).collect();
    let (mut rows, mut labels, mut unlabelled) = (Vec::new(), Vec::new(), 0);
    let mut unknown = vec![0_usize; known.len()];
    let mut counts = [(Split::Train, 0), (Split::Val, 0), (Split::Test, 0)];
    for row in 0..selection.len() {
        let Some(class) = selection.class(row) else {
            let wanted = selection.split(row).is_none_or(|split| request.split.has(split));
            unlabelled += usize::from(wanted);
            continue;
        };
        let split = selection.split(row).expect("a labelled picture has a split");
        for (other, count) in &mut counts {
            *count += usize::from(*other == split);
        }
        if !request.split.has(split) {
            continue;
        }
        match known[class] {
            Some(label) => {
                rows.push(row);
                labels.push(label);
            }
            None => unknown[class] += 1,
        }
    }
    let path = || dataset.to_path_buf();
    let strangers: Vec<String> = unknown
        .iter()
        .zip(selection.classes())
        .filter(|(count, _)| **count > 0)
        .map(|(count, class)| format!("`{class}` ({count})"))
        .collect();
    if !strangers.is_empty() && !request.skip_unknown {
        return Err(Error::Dataset {
            path: path(),
            problem: format!(
                "has pictures of classes that the head does not know: {}",
                strangers.join(", ")
            ),
            hint: format!(
                "the head knows {}; `--skip-unknown` leaves other pictures out",
                list(&meta.classes)
            ),
        });
    }
    if rows.is_empty() {
        let there: Vec<String> = counts
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(split, count)| format!("{count} in {}", split.name()))
            .collect();
        return Err(Error::Dataset {
            path: path(),
            problem: if strangers.is_empty() {
                format!("has no labelled picture in its {} split", request.split)
            } else {
                "has no picture of a class that the head knows".to_owned()
            },
            hint: match there.is_empty() {
                true => "pictures get their labels from the folders they are in, or from a table".to_owned(),
                false => format!("it has {}; name another one with `--split`", there.join(", ")),
            },
        });
    }
    Ok(Chosen {
        rows,
        labels,
        unlabelled,
        unknown: unknown.iter().sum(),
    })
}

/// The first of some names, quoted.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let mut quoted: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    if names.len() > SHOWN {
        quoted.push(format!("{} more", names.len() - SHOWN));
    }
    quoted.join(", ")
}
