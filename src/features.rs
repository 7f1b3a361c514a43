//! The cached features of a data set as matrices with labels: what a head is trained on. No picture is read.
//!
//! While the data set's folder is there, its listing says what belongs to it and how it is labelled, and each file's
//! size and times say whether the cache has seen just these bytes. When the folder is gone, what `extract` remembered
//! of it is used.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use ndarray::{Array2, ArrayView2};
use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;

use crate::cache::{Cache, FeatureSpace, Origin, RowKey, Space};
use crate::dataset::{Dataset, DatasetRecord, SampleRecord, Split, Stamp, absolute, assign_splits};
use crate::error::{Error, Result};

/// Which of the spaces that a data set has features in is meant.
#[derive(Debug, Clone, Default)]
pub struct SpaceChoice {
    /// The backbone, by the name or the file it was extracted with. Default: any.
    pub backbone: Option<String>,
    /// The beginning of the space's id. Default: any.
    pub space: Option<String>,
}

/// One split's features: `[n, d]` row-major f32, and `n` class ids.
#[derive(Debug, Clone)]
pub struct LabelledRows {
    /// `[n, d]`.
    pub features: Array2<f32>,
    /// Class ids, indices into [`LabelledFeatures::classes`].
    pub labels: Vec<usize>,
}

/// A data set's features.
#[derive(Debug, Clone)]
pub struct LabelledFeatures {
    /// Class names.
    pub classes: Vec<String>,
    /// The space the features lie in.
    pub space: FeatureSpace,
    /// Where the space's backbone lay.
    pub origin: Option<Origin>,
    /// The training split.
    pub train: LabelledRows,
    /// The validation split; may be empty.
    pub val: LabelledRows,
    /// Pictures of the test split, which are left alone.
    pub test_images: usize,
    /// Pictures that are left out because `extract` could not read them.
    pub failed_images: usize,
    /// Things a careful person would want to know, one line each.
    pub warnings: Vec<String>,
}

impl LabelledRows {
    /// The features as a view, `[n, d]`.
    #[must_use]
    pub fn view(&self) -> ArrayView2<'_, f32> {
        self.features.view()
    }
}

/// A picture with its content, class and split, before its row is looked up.
type Known = (u32, [u8; 32], Option<Split>);

/// The pictures of a data set whose content is known.
struct Listing {
    root: PathBuf,
    classes: Vec<String>,
    known: Vec<Known>,
    failed: usize,
    /// Files that `extract` has not seen as they are now.
    unseen: Vec<PathBuf>,
    warnings: Vec<String>,
}

/// Gathers the features of the data set in `root` from `cache`.
///
/// `val_fraction`: the share of each class that validates where the folders give no validation split, in 0..1.
///
/// # Errors
/// [`Error::NotExtracted`] when pictures have no feature yet, [`Error::Usage`] when there are several spaces and `choice`
/// does not say which.
pub fn labelled_features(
    cache: &Cache,
    root: &Path,
    choice: &SpaceChoice,
    val_fraction: f64,
) -> Result<LabelledFeatures> {
    if !(0.0..1.0).contains(&val_fraction) {
        return Err(Error::Usage(format!(
            "a validation fraction lies in 0..1, not {val_fraction}"
        )));
    }
    let listing = Listing::of(cache, root)?;
    if !listing.unseen.is_empty() {
        return Err(listing.not_extracted(listing.unseen.len(), listing.unseen.first().cloned()));
    }
    let (space, origin, rows) = choose(cache, &listing, choice)?;
    let splits = assign_splits(&listing.known, val_fraction);
    let gather = |wanted: Split| gather(&listing, &rows, &splits, wanted);
    Ok(LabelledFeatures {
        train: gather(Split::Train)?,
        val: gather(Split::Val)?,
        test_images: splits.iter().filter(|split| **split == Split::Test).count(),
        classes: listing.classes,
        failed_images: listing.failed,
        warnings: listing.warnings,
        space,
        origin,
    })
}

impl Listing {
    fn of(cache: &Cache, root: &Path) -> Result<Self> {
        let absolute = absolute(root)?;
        let record = cache.dataset_record(&absolute)?;
        if absolute.is_dir() {
            return Ok(Self::of_folder(&Dataset::scan(&absolute)?, record.as_ref()));
        }
        match record {
            Some(record) => Ok(Self::of_record(record)),
            None => Err(Error::UnknownDataset {
                path: root.to_path_buf(),
                cache: cache.root().to_path_buf(),
            }),
        }
    }

    fn of_folder(dataset: &Dataset, record: Option<&DatasetRecord>) -> Self {
        let remembered: HashMap<&Path, &SampleRecord> = record
            .into_iter()
            .flat_map(|record| &record.samples)
            .map(|sample| (sample.path.as_path(), sample))
            .collect();
        let look_up = |sample: &crate::dataset::Sample| {
            let path = dataset.root.join(&sample.path);
            // A file that can't be looked at now could not be read then: both have the default stamp.
            let stamp = fs::metadata(&path)
                .map(|metadata| Stamp::of(&metadata))
                .unwrap_or_default();
            remembered
                .get(sample.path.as_path())
                .filter(|remembered| remembered.stamp == stamp)
                .copied()
        };
        let found: Vec<Option<&SampleRecord>> = dataset.samples.par_iter().map(look_up).collect();
        let mut listing = Self {
            root: dataset.root.clone(),
            classes: dataset.classes.clone(),
            known: Vec::new(),
            failed: 0,
            unseen: Vec::new(),
            warnings: dataset.warnings.clone(),
        };
        for (sample, found) in dataset.samples.iter().zip(found) {
            match found {
                Some(SampleRecord { failure: Some(_), .. }) => listing.failed += 1,
                Some(SampleRecord {
                    content: Some(content), ..
                }) => {
                    listing.known.push((sample.class, *content, sample.split));
                }
                _ => listing.unseen.push(sample.path.clone()),
            }
        }
        listing
    }

    fn of_record(record: DatasetRecord) -> Self {
        let mut listing = Self {
            warnings: vec![format!(
                "{} is gone: using what was remembered of it",
                record.root.display()
            )],
            root: record.root,
            classes: record.classes,
            known: Vec::new(),
            failed: 0,
            unseen: Vec::new(),
        };
        for sample in record.samples {
            match (sample.failure, sample.content) {
                (Some(_), _) => listing.failed += 1,
                (None, Some(content)) => listing.known.push((sample.class, content, sample.split)),
                (None, None) => listing.unseen.push(sample.path),
            }
        }
        listing
    }

    fn not_extracted(&self, missing: usize, example: Option<PathBuf>) -> Error {
        let total = self.known.len() + self.failed + self.unseen.len();
        Error::NotExtracted {
            path: self.root.clone(),
            missing,
            total,
            example,
        }
    }
}

/// The one space that `choice` and the cache's content leave.
fn choose(cache: &Cache, listing: &Listing, choice: &SpaceChoice) -> Result<(FeatureSpace, Option<Origin>, Space)> {
    let mut found = Vec::new();
    for (space, origin) in cache.spaces()? {
        let Some(rows) = cache.open_space(&space)? else {
            continue;
        };
        let present = listing
            .known
            .iter()
            .filter(|(_, content, _)| rows.contains(&RowKey::plain(*content)))
            .count();
        if present > 0 {
            found.push((space, origin, rows, present));
        }
    }
    let total = listing.known.len();
    let described: Vec<String> = found
        .iter()
        .map(|(space, origin, _, present)| {
            let origin = origin.as_ref().map_or("unknown backbone".to_owned(), |origin| {
                format!("--backbone {}", origin.name)
            });
            format!(
                "--space {}  {origin}  {present} of {total} pictures",
                &space.id().to_string()[..8]
            )
        })
        .collect();
    let all = found.len();
    found.retain(|(space, origin, ..)| choice.accepts(space, origin.as_ref()));
    match found.len() {
        0 if all == 0 => Err(listing.not_extracted(total, None)),
        0 => Err(Error::NoSuchSpace {
            path: listing.root.clone(),
            spaces: described,
        }),
        1 => {
            let (space, origin, rows, present) = found.remove(0);
            if present < total {
                Err(listing.not_extracted(total - present, None))
            } else {
                Ok((space, origin, rows))
            }
        }
        _ => Err(Error::SeveralSpaces {
            path: listing.root.clone(),
            spaces: described,
        }),
    }
}

impl SpaceChoice {
    fn accepts(&self, space: &FeatureSpace, origin: Option<&Origin>) -> bool {
        let id = self
            .space
            .as_ref()
            .is_none_or(|prefix| space.id().to_string().starts_with(prefix));
        let backbone = self.backbone.as_ref().is_none_or(|backbone| {
            origin.is_some_and(|origin| {
                origin.name == *backbone || absolute(Path::new(backbone)).is_ok_and(|file| file == origin.file)
            })
        });
        id && backbone
    }
}

fn gather(listing: &Listing, rows: &Space, splits: &[Split], wanted: Split) -> Result<LabelledRows> {
    let chosen: Vec<&Known> = listing
        .known
        .iter()
        .zip(splits)
        .filter(|(_, split)| **split == wanted)
        .map(|(known, _)| known)
        .collect();
    let dim = rows.dim().expect("the space has rows of this data set");
    let mut features = vec![0.0_f32; chosen.len() * dim];
    let copied: Vec<bool> = features
        .par_chunks_exact_mut(dim)
        .zip(chosen.par_iter())
        .map(|(target, (_, content, _))| {
            rows.row(&RowKey::plain(*content))
                .map(|row| target.copy_from_slice(row))
                .is_some()
        })
        .collect();
    let damaged = copied.iter().filter(|copied| !**copied).count();
    if damaged > 0 {
        return Err(listing.not_extracted(damaged, None));
    }
    let labels = chosen.iter().map(|(class, ..)| *class as usize).collect();
    let features = Array2::from_shape_vec((chosen.len(), dim), features).expect("one row for each picture");
    Ok(LabelledRows { features, labels })
}
