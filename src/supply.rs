//! Where the pictures of a run come from, and their bytes: files, parts of archives, or what a stream gives.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::dataset::{Dataset, Stamp, Storage};
use crate::error::Result;
use crate::picture::{Limits, PictureError, Reason, Room};

/// Where the pictures come from: asked by all decode threads, one picture at a time.
pub(crate) trait Supply: Sync {
    /// The next picture; `None` when there are no more.
    ///
    /// # Errors
    /// What ends the run: an archive that breaks off. A picture that can't be read is a picture all the same.
    fn next(&self) -> Result<Option<Work>>;

    /// How many pictures there are in all, where that is known before.
    fn count(&self) -> Option<usize>;
}

/// One picture to be looked at.
pub(crate) struct Work {
    /// Its number, by which the result is known.
    pub(crate) index: usize,
    pub(crate) source: Source,
    /// Whether random views of it are wanted, besides the plain one.
    pub(crate) random_views: bool,
}

/// Where a picture's bytes are.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    File(PathBuf),
    /// Within a larger file.
    Part {
        file: PathBuf,
        offset: u64,
        length: u64,
    },
    /// Read already, or found to be unreadable.
    Bytes(Result<Vec<u8>, PictureError>),
}

/// Files that are known before.
pub(crate) struct Files<'a> {
    source: &'a (dyn Fn(usize) -> Source + Sync),
    random_views: Option<&'a (dyn Fn(usize) -> bool + Sync)>,
    count: usize,
    next: AtomicUsize,
}

impl<'a> Files<'a> {
    /// `count` pictures, the bytes of each where `source` says.
    pub(crate) fn new(count: usize, source: &'a (dyn Fn(usize) -> Source + Sync)) -> Self {
        Self {
            source,
            random_views: None,
            count,
            next: AtomicUsize::new(0),
        }
    }

    /// The same, with random views wanted of those pictures of which `random_views` says so.
    pub(crate) fn with_random_views(self, random_views: &'a (dyn Fn(usize) -> bool + Sync)) -> Self {
        Self {
            random_views: Some(random_views),
            ..self
        }
    }
}

impl Supply for Files<'_> {
    fn next(&self) -> Result<Option<Work>> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        Ok((index < self.count).then(|| Work {
            index,
            source: (self.source)(index),
            random_views: self.random_views.is_some_and(|wanted| wanted(index)),
        }))
    }

    fn count(&self) -> Option<usize> {
        Some(self.count)
    }
}

/// Where the bytes of picture `index` of a data set are.
pub(crate) fn source_of(dataset: &Dataset, index: usize) -> Source {
    let sample = &dataset.samples[index];
    match sample.storage {
        Storage::File => Source::File(dataset.root.join(&sample.path)),
        Storage::Member {
            archive,
            offset,
            length,
        } => Source::Part {
            file: dataset.root.join(&dataset.archives[archive as usize]),
            offset,
            length,
        },
        Storage::Lost => Source::Bytes(Err(lost_in_archive())),
    }
}

/// The failure that stands for what can't be had of an archive.
pub(crate) fn lost_in_archive() -> PictureError {
    PictureError::new(
        Reason::Truncated,
        "the archive breaks off or is damaged: what follows is lost",
    )
}

/// A file's stamp and the picture's bytes; the stamp is taken first, so that a change while reading shows next time.
pub(crate) fn read(source: Source, limits: &Limits) -> (Stamp, Result<(Vec<u8>, Room), PictureError>) {
    let (path, part) = match source {
        Source::Bytes(bytes) => return (Stamp::default(), bytes.map(|bytes| (bytes, Room::of_file(0)))),
        Source::File(path) => (path, None),
        Source::Part { file, offset, length } => (file, Some((offset, length))),
    };
    let metadata = match fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) => return (Stamp::default(), Err(PictureError::unreadable(&error))),
    };
    let read = || {
        // Before it is opened: a pipe would make whoever opens it wait.
        if !metadata.is_file() {
            return Err(PictureError::new(Reason::Unreadable, "not a regular file"));
        }
        let (offset, length) = part.unwrap_or((0, metadata.len()));
        limits.check_file(length)?;
        let room = Room::of_file(length);
        let unreadable = |error| PictureError::unreadable(&error);
        let mut file = fs::File::open(&path).map_err(unreadable)?;
        if part.is_some() {
            file.seek(SeekFrom::Start(offset)).map_err(unreadable)?;
        }
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        file.take(length).read_to_end(&mut bytes).map_err(unreadable)?;
        if part.is_some() && bytes.len() as u64 != length {
            return Err(PictureError::new(
                Reason::Truncated,
                "the archive ends within the picture",
            ));
        }
        Ok((bytes, room))
    };
    let bytes = read();
    (Stamp::of(&metadata), bytes)
}
