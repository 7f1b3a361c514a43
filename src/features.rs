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
use crate::dataset::{Dataset, DatasetRecord, SampleRecord, Split, SplitInput, Stamp, absolute, assign_splits};
use crate::error::{Error, Result};
use crate::picture::Exif;
use crate::space::SpaceDescription;

/// Which of the spaces that a data set has features in is meant.
#[derive(Debug, Clone, Default)]
pub struct SpaceChoice {
    /// The backbone, by the name or the file it was extracted with. Default: any.
    pub backbone: Option<String>,
    /// blake3 of the backbone's bytes, hexadecimal: the same backbone by whatever name. Default: none.
    pub backbone_blake3: Option<String>,
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

/// A picture whose content is known, before its row is looked up.
#[derive(Debug, Clone, Copy)]
struct Known {
    class: u32,
    content: [u8; 32],
    split: Option<Split>,
    /// Whether the last `extract` could not decode it; one with other limits may have.
    failed: bool,
}

/// The pictures of a data set whose content is known.
struct Listing {
    root: PathBuf,
    classes: Vec<String>,
    known: Vec<Known>,
    /// Files that could not even be read.
    unreadable: usize,
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
    let (usable, failed): (Vec<Known>, Vec<Known>) = listing
        .known
        .iter()
        .partition(|known| rows.contains(&RowKey::plain(known.content)));
    let inputs: Vec<SplitInput> = usable
        .iter()
        .map(|known| (known.class, known.content, known.split))
        .collect();
    let splits = assign_splits(&inputs, val_fraction);
    let gather = |wanted: Split| {
        let chosen = usable.iter().zip(&splits).filter(|(_, split)| **split == wanted);
        let chosen: Vec<Known> = chosen.map(|(known, _)| *known).collect();
        gather(&rows, &chosen).map_err(|damaged| listing.not_extracted(damaged, None))
    };
    Ok(LabelledFeatures {
        train: gather(Split::Train)?,
        val: gather(Split::Val)?,
        test_images: splits.iter().filter(|split| **split == Split::Test).count(),
        failed_images: listing.unreadable + failed.len(),
        classes: listing.classes,
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
            Some(record) => Ok(Self::of_record(&record)),
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
            unreadable: 0,
            unseen: Vec::new(),
            warnings: dataset.warnings.clone(),
        };
        for (sample, found) in dataset.samples.iter().zip(found) {
            match found {
                // Labels are the folder's of now, contents those that were hashed.
                Some(found) => listing.add(sample.class, sample.split, found),
                None => listing.unseen.push(sample.path.clone()),
            }
        }
        listing
    }

    fn of_record(record: &DatasetRecord) -> Self {
        let mut listing = Self {
            warnings: vec![format!(
                "{} is gone: using what was remembered of it",
                record.root.display()
            )],
            root: record.root.clone(),
            classes: record.classes.clone(),
            known: Vec::new(),
            unreadable: 0,
            unseen: Vec::new(),
        };
        for sample in &record.samples {
            listing.add(sample.class, sample.split, sample);
        }
        listing
    }

    fn add(&mut self, class: u32, split: Option<Split>, sample: &SampleRecord) {
        let failed = sample.failure.is_some();
        match sample.content {
            Some(content) => self.known.push(Known {
                class,
                content,
                split,
                failed,
            }),
            None if failed => self.unreadable += 1,
            None => self.unseen.push(sample.path.clone()),
        }
    }

    fn not_extracted(&self, missing: usize, example: Option<PathBuf>) -> Error {
        let total = self.known.len() + self.unreadable + self.unseen.len();
        Error::NotExtracted {
            path: self.root.clone(),
            missing,
            total,
            example,
        }
    }
}

/// A space with rows of the data set.
struct Candidate {
    space: FeatureSpace,
    origin: Option<Origin>,
    rows: Space,
    present: usize,
    /// Pictures that have no row and no failure to explain it.
    missing: usize,
}

/// The one space that `choice` and the cache's content leave. Complete spaces go before others: a space that another
/// data set with some of the same pictures was extracted in is in nobody's way.
fn choose(cache: &Cache, listing: &Listing, choice: &SpaceChoice) -> Result<(FeatureSpace, Option<Origin>, Space)> {
    let mut found = Vec::new();
    for (space, origin) in cache.spaces()? {
        let Some(rows) = cache.open_space(&space)? else {
            continue;
        };
        let (mut present, mut missing) = (0, 0);
        for known in &listing.known {
            let there = rows.contains(&RowKey::plain(known.content));
            present += usize::from(there);
            missing += usize::from(!there && !known.failed);
        }
        if present > 0 {
            found.push(Candidate {
                space,
                origin,
                rows,
                present,
                missing,
            });
        }
    }
    if found.is_empty() {
        return Err(listing.not_extracted(listing.known.len(), None));
    }
    let spaces: Vec<String> = found.iter().map(|candidate| candidate.describe(listing)).collect();
    let path = listing.root.clone();
    found.retain(|candidate| choice.accepts(&candidate.space, candidate.origin.as_ref()));
    let Some(fewest) = found.iter().map(|candidate| candidate.missing).min() else {
        return Err(Error::NoSuchSpace { path, spaces });
    };
    if fewest > 0 {
        return Err(listing.not_extracted(fewest, None));
    }
    found.retain(|candidate| candidate.missing == 0);
    if found.len() > 1 {
        return Err(Error::SeveralSpaces { path, spaces });
    }
    let Candidate {
        space, origin, rows, ..
    } = found.remove(0);
    Ok((space, origin, rows))
}

impl Candidate {
    fn describe(&self, listing: &Listing) -> String {
        let name = self.origin.as_ref().map_or("unknown", |origin| origin.name.as_str());
        let exif = match SpaceDescription::parse(self.space.json()).map(|description| description.transform.exif) {
            Some(Exif::Ignore) => "  (--exif ignore)",
            _ => "",
        };
        let (id, present, total) = (self.space.id().to_string(), self.present, listing.known.len());
        format!(
            "--space {}  --backbone {name}{exif}  {present} of {total} pictures",
            &id[..8]
        )
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
        let same = self.backbone_blake3.as_ref().is_some_and(|blake3| {
            SpaceDescription::parse(space.json()).is_some_and(|description| description.backbone == *blake3)
        });
        id && (backbone || same)
    }
}

/// The rows of `chosen`, or how many of them are damaged.
fn gather(rows: &Space, chosen: &[Known]) -> Result<LabelledRows, usize> {
    let dim = rows.dim().expect("the space has rows of this data set");
    let mut features = vec![0.0_f32; chosen.len() * dim];
    let damaged = features
        .par_chunks_exact_mut(dim)
        .zip(chosen.par_iter())
        .filter_map(|(target, known)| match rows.row(&RowKey::plain(known.content)) {
            Some(row) => {
                target.copy_from_slice(row);
                None
            }
            None => Some(()),
        })
        .count();
    if damaged > 0 {
        return Err(damaged);
    }
    let labels = chosen.iter().map(|known| known.class as usize).collect();
    let features = Array2::from_shape_vec((chosen.len(), dim), features).expect("one row for each picture");
    Ok(LabelledRows { features, labels })
}
