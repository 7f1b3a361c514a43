//! Data sets that can only be read from front to back: what there is to extract shows while it is extracted.

use std::collections::VecDeque;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::ledger::{Ledger, Memory};
use super::{ExtractOptions, ExtractReport, Job};
use crate::backbone::Backbone;
use crate::cache::Cache;
use crate::dataset::{
    ArchiveStream, Dataset, DatasetKind, Ignored, LabelIds, Sample, Split, Stamp, Storage, StreamedArchive,
    StreamedDataset, may_train, no_sample,
};
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::picture::{PictureError, Reason};
use crate::supply::{Source, Supply, Work, lost_in_archive};

/// As [`super::extract`], of archives that can be read once. Bytes that are known are not decoded again, but all of them
/// are read and hashed.
///
/// # Errors
/// As [`super::extract`], and an archive that can't be opened. Of one that breaks off what came before is kept, and one
/// failure stands for the rest.
pub fn extract_stream(
    dataset: StreamedDataset,
    backbone: &Arc<Backbone>,
    cache: &Cache,
    options: &ExtractOptions,
    observer: &dyn Observer,
) -> Result<ExtractReport> {
    let job = Job::begin(backbone, cache, options, observer)?;
    let StreamedDataset {
        name,
        root,
        archives,
        warnings,
    } = dataset;
    for warning in &warnings {
        observer.warn(warning);
    }
    let stamps: Vec<(PathBuf, Stamp)> = archives
        .iter()
        .filter(|archive| archive.reader.is_none())
        .map(|archive| (archive.path.clone(), Stamp::of_file(&root.join(&archive.path))))
        .collect();
    let stream = Stream {
        root: root.clone(),
        max_file_bytes: options.limits.max_file_bytes,
        random_views: !options.views.is_empty(),
        state: Mutex::new(State {
            archives: archives.into(),
            ..State::default()
        }),
    };
    let mut ledger = Ledger::default();
    let done = job.run(&stream, &mut ledger, &|index| index, &mut |_| Ok(()));
    let complete = matches!(&done.ended, Ok(ended) if !ended.interrupted);
    let dataset = stream.into_dataset(name, root, complete);
    ledger.complete(dataset.samples.len());
    for warning in &dataset.warnings {
        observer.warn(warning);
    }
    if complete && dataset.samples.is_empty() {
        return Err(no_sample(&dataset.name));
    }
    // A part is no reason to forget the whole that was there before.
    let saved = if complete || cache.dataset_record(&dataset.name)?.is_none() {
        Memory::new(cache, None, job.started, stamps).save(&dataset, &ledger)
    } else {
        Ok(())
    };
    job.finish(done, saved, &dataset, &ledger)
}

/// Hands out the pictures of the archives.
struct Stream {
    root: PathBuf,
    max_file_bytes: u64,
    /// Whether random views are wanted of pictures that may train.
    random_views: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    archives: VecDeque<StreamedArchive>,
    current: Option<Current>,
    /// What was handed out.
    listed: Vec<Listed>,
    labels: LabelIds,
    ignored: Ignored,
    warnings: Vec<String>,
}

struct Current {
    path: PathBuf,
    split: Option<Split>,
    stream: ArchiveStream<Box<dyn Read + Send>>,
}

struct Listed {
    path: PathBuf,
    label: Option<u32>,
    split: Option<Split>,
}

impl Supply for Stream {
    fn next(&self) -> Result<Option<Work>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let Some(mut current) = state.current.take() else {
                let Some(archive) = state.archives.pop_front() else {
                    return Ok(None);
                };
                state.current = Some(self.open(archive)?);
                continue;
            };
            match current.stream.next() {
                Some(Err(error)) => {
                    // The last of this archive; others may be whole.
                    state.warnings.push(error.to_string());
                    state.listed.push(Listed {
                        path: called(current.path),
                        label: None,
                        split: None,
                    });
                    return Ok(Some(Work {
                        index: state.listed.len() - 1,
                        source: Source::Bytes(Err(lost_in_archive())),
                        random_views: false,
                    }));
                }
                Some(Ok(sample)) => {
                    let label = sample.label.as_deref().map(|label| state.labels.id(label));
                    let split = sample.split.or(current.split);
                    state.listed.push(Listed {
                        path: current.path.join(&sample.name),
                        label,
                        split,
                    });
                    state.current = Some(current);
                    return Ok(Some(Work {
                        index: state.listed.len() - 1,
                        source: Source::Bytes(sample.bytes.map_err(|length| self.too_long(length))),
                        random_views: self.random_views && may_train(label, split),
                    }));
                }
                None => {
                    let (ignored, warnings) = current.stream.finish();
                    state.ignored.add(ignored);
                    state.warnings.extend(warnings);
                }
            }
        }
    }

    fn count(&self) -> Option<usize> {
        None
    }
}

impl Stream {
    fn open(&self, archive: StreamedArchive) -> Result<Current> {
        let StreamedArchive { path, split, reader } = archive;
        let file = self.root.join(&path);
        let (called, reader) = match reader {
            Some(reader) => (PathBuf::from("standard input"), reader),
            None => {
                let opened = std::fs::File::open(&file).map_err(Error::io("open", &file))?;
                (file, Box::new(opened) as Box<dyn Read + Send>)
            }
        };
        Ok(Current {
            stream: ArchiveStream::new(&called, reader, self.max_file_bytes)?,
            path,
            split,
        })
    }

    fn too_long(&self, length: u64) -> PictureError {
        let detail = format!("{length} bytes are more than {}", self.max_file_bytes);
        PictureError::new(Reason::TooLarge, detail)
    }

    /// What was handed out, as a data set. Of one that was not read to its end a sample that nothing is known of stands
    /// for the rest, so that nobody takes the part for the whole.
    fn into_dataset(self, name: PathBuf, root: PathBuf, complete: bool) -> Dataset {
        let mut state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if !complete {
            let current = state.current.take().map(|current| current.path);
            let path = current.or_else(|| state.archives.pop_front().map(|archive| archive.path));
            state.listed.push(Listed {
                path: called(path.unwrap_or_default()),
                label: None,
                split: None,
            });
        }
        let (classes, order) = state.labels.sorted();
        let sample = |listed: Listed| Sample {
            path: listed.path,
            class: listed.label.map(|label| order[label as usize]),
            split: listed.split,
            storage: Storage::File,
        };
        let mut dataset = Dataset {
            name,
            kind: DatasetKind::Stream,
            root,
            classes,
            samples: state.listed.into_iter().map(sample).collect(),
            archives: Vec::new(),
            stamps: Vec::new(),
            ignored: state.ignored,
            warnings: state.warnings,
        };
        dataset.take_val_from_train();
        dataset
    }
}

/// An archive's path as that of a sample, which standard input has none for.
fn called(archive: PathBuf) -> PathBuf {
    if archive.as_os_str().is_empty() {
        return PathBuf::from("-");
    }
    archive
}
