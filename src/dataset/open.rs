//! From what the user names to a data set: a folder, a table, archives, a list, or a stream.

use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use super::archive::{expand_shards, index_archive, is_packed, shard_split};
use super::table::{Table, begins_a_table, is_table, read_list, read_table};
use super::{Dataset, DatasetKind, Ignored, LabelIds, Sample, Split, Stamp, Storage, TableColumns, absolute};
use crate::error::{Error, Result};

/// How a data set is read.
#[derive(Debug, Clone, Default)]
pub struct InputOptions {
    /// The columns of a table.
    pub columns: TableColumns,
    /// The folder that the paths of a table or a list are relative to. Default: the table's; of a list the current one.
    pub image_root: Option<PathBuf>,
    /// What the cache remembers the data set by, in place of its path: that of a stream can be named later.
    pub name: Option<PathBuf>,
}

/// A data set to extract.
pub enum Opened {
    /// All of it is known.
    Listed(Dataset),
    /// What there is shows while it is read.
    Streamed(StreamedDataset),
}

/// Archives to be read from front to back, in their order.
pub struct StreamedDataset {
    /// What the cache remembers the data set by, absolute.
    pub name: PathBuf,
    /// The folder that the archives' paths are relative to, absolute.
    pub root: PathBuf,
    /// The archives.
    pub archives: Vec<StreamedArchive>,
    /// Things a careful person would want to know, one line each.
    pub warnings: Vec<String>,
}

/// One archive of a [`StreamedDataset`].
pub struct StreamedArchive {
    /// Path below the root, which goes before the names of the members; empty for standard input.
    pub path: PathBuf,
    /// The split of the pictures that state none.
    pub split: Option<Split>,
    /// The bytes; `None` for those of the file.
    pub reader: Option<Box<dyn Read + Send>>,
}

impl InputOptions {
    /// What the cache remembers the data set `argument` by.
    ///
    /// # Errors
    /// When the current folder can't be found out.
    pub fn name_of(&self, argument: &Path) -> Result<PathBuf> {
        absolute(self.name.as_deref().unwrap_or(argument))
    }

    /// Says so where options are given that a data set of this kind has no use for.
    fn warn_of_unused(&self, kind: DatasetKind, warnings: &mut Vec<String>) {
        let TableColumns { path, label, split } = &self.columns;
        let is_table = kind == DatasetKind::Table;
        let has_root = is_table || kind == DatasetKind::List;
        let options = [
            ("--path-column", path.is_some() && !is_table),
            ("--label-column", label.is_some() && !is_table),
            ("--split-column", split.is_some() && !is_table),
            ("--image-root", self.image_root.is_some() && !has_root),
        ];
        let unused = options.iter().filter(|(_, is_unused)| *is_unused);
        let unused: Vec<&str> = unused.map(|(option, _)| *option).collect();
        if !unused.is_empty() {
            let whose = if has_root { "a list" } else { "a folder or an archive" };
            let unused = unused.join(" and ");
            warnings.push(format!("{unused}: of no use here, as {whose} is no table"));
        }
    }
}

/// Whether `argument` stands for standard input.
fn is_stdin(argument: &Path) -> bool {
    argument.as_os_str() == "-"
}

impl Dataset {
    /// Opens the data set that `argument` names: a folder of pictures or of archives, a table, an archive, a pattern of
    /// archives such as `shard-{000..012}.tar`, or `-` for `stdin`: a list of paths, or an archive.
    ///
    /// # Errors
    /// When there is nothing of that name, or what is there can't be made sense of; names the file.
    pub fn open(argument: &Path, options: &InputOptions, stdin: Box<dyn Read + Send>) -> Result<Opened> {
        let name = options.name_of(argument)?;
        if is_stdin(argument) {
            return open_stdin(name, options, stdin);
        }
        if let Some(shards) = expand_shards(argument)? {
            let mut opened = open_shards(name, &shards)?;
            match &mut opened {
                Opened::Listed(dataset) => options.warn_of_unused(dataset.kind, &mut dataset.warnings),
                Opened::Streamed(stream) => options.warn_of_unused(DatasetKind::Stream, &mut stream.warnings),
            }
            return Ok(opened);
        }
        let mut dataset = Self::open_plain(argument, options)?;
        dataset.name = name;
        Ok(Opened::Listed(dataset))
    }

    /// As [`Dataset::open`], of what has a list of pictures; `None` for a file that is a picture at most.
    pub(crate) fn open_listed(argument: &Path, options: &InputOptions) -> Result<Option<Self>> {
        let is_several = is_table(argument) || !argument.is_file() || expand_shards(argument)?.is_some();
        if !is_several {
            return Ok(None);
        }
        match Self::open(argument, options, Box::new(std::io::stdin()))? {
            Opened::Listed(dataset) => Ok(Some(dataset)),
            Opened::Streamed(_) => Err(Error::Dataset {
                path: argument.to_path_buf(),
                problem: "can be read from front to back only".to_owned(),
                hint: "name one of its pictures as a file, or unpack the archive".to_owned(),
            }),
        }
    }

    /// Opens a folder of pictures or a table.
    pub(crate) fn open_plain(argument: &Path, options: &InputOptions) -> Result<Self> {
        if !argument.is_file() {
            let mut dataset = Self::scan(argument)?;
            options.warn_of_unused(dataset.kind, &mut dataset.warnings);
            return Ok(dataset);
        }
        if !is_table(argument) {
            return Err(Error::Dataset {
                path: argument.to_path_buf(),
                problem: "is neither a folder of pictures nor a table nor an archive".to_owned(),
                hint: "name a folder that holds one folder per class, a .csv, .tsv, .jsonl or .parquet table, or .tar shards"
                    .to_owned(),
            });
        }
        let file = absolute(argument)?;
        let folder = file.parent().unwrap_or(Path::new("/")).to_path_buf();
        let root = options.image_root.as_deref().map_or(Ok(folder), absolute)?;
        let table = read_table(&file, &options.columns)?;
        if table.rows.is_empty() {
            return Err(nothing(&file, "has no row"));
        }
        Ok(of_table(file, DatasetKind::Table, root, table))
    }
}

fn nothing(path: &Path, problem: &str) -> Error {
    Error::Dataset {
        path: path.to_path_buf(),
        problem: problem.to_owned(),
        hint: "there has to be at least one picture".to_owned(),
    }
}

/// The error for archives without a picture.
pub(crate) fn no_sample(name: &Path) -> Error {
    Error::Dataset {
        path: name.to_path_buf(),
        problem: "holds no picture".to_owned(),
        hint:
            "a picture in an archive is a member like `key.jpg`; its label lies beside it, as `key.cls` or `key.json`"
                .to_owned(),
    }
}

/// The data set of a table's or a list's rows.
fn of_table(name: PathBuf, kind: DatasetKind, root: PathBuf, table: Table) -> Dataset {
    let mut labels = LabelIds::default();
    let mut samples: Vec<Sample> = table
        .rows
        .into_iter()
        .map(|row| Sample {
            class: row.label.as_deref().map(|label| labels.id(label)),
            split: row.split,
            path: row.path,
            storage: Storage::File,
        })
        .collect();
    let (classes, order) = labels.sorted();
    for class in samples.iter_mut().filter_map(|sample| sample.class.as_mut()) {
        *class = order[*class as usize];
    }
    let mut dataset = Dataset {
        name,
        kind,
        root,
        classes,
        samples,
        archives: Vec::new(),
        stamps: Vec::new(),
        ignored: Ignored::default(),
        warnings: table.warnings,
    };
    dataset.take_val_from_train();
    dataset
}

fn open_stdin(name: PathBuf, options: &InputOptions, mut stdin: Box<dyn Read + Send>) -> Result<Opened> {
    let root = absolute(options.image_root.as_deref().unwrap_or(Path::new(".")))?;
    // The first block of a tar file, however little a pipe gives at a time.
    let mut start = Vec::new();
    let read = stdin.by_ref().take(512).read_to_end(&mut start);
    read.map_err(Error::io("read", "standard input"))?;
    let is_archive = begins_an_archive(&start);
    let mut stdin = BufReader::with_capacity(1 << 16, Cursor::new(start).chain(stdin));
    if is_archive {
        let archive = StreamedArchive {
            path: PathBuf::new(),
            split: None,
            reader: Some(Box::new(stdin)),
        };
        let mut stream = StreamedDataset {
            name,
            root,
            archives: vec![archive],
            warnings: Vec::new(),
        };
        options.warn_of_unused(DatasetKind::Stream, &mut stream.warnings);
        return Ok(Opened::Streamed(stream));
    }
    let called = Path::new("standard input");
    let begin = stdin.fill_buf().map_err(Error::io("read", called))?;
    if begins_a_table(begin) {
        return Err(Error::Table {
            path: called.to_path_buf(),
            place: None,
            problem: "is a table, and only a list or a tar file can be read from there".to_owned(),
            hint:
                "save the table as a file and name it; a list has a path on each line, or a path, a tab and a label, \
                   and no column names"
                    .to_owned(),
        });
    }
    let table = read_list(called, &mut stdin)?;
    if table.rows.is_empty() {
        return Err(nothing(called, "names no picture"));
    }
    let mut dataset = of_table(name, DatasetKind::List, root, table);
    options.warn_of_unused(dataset.kind, &mut dataset.warnings);
    Ok(Opened::Listed(dataset))
}

/// Whether these first bytes are those of a tar file, packed or not.
fn begins_an_archive(start: &[u8]) -> bool {
    const GZIP: &[u8] = &[0x1f, 0x8b];
    // The first block of a tar file: its name, ended and filled with zeros. No path holds one, no list begins with one
    // but one that ends its paths by them, whose first is followed by another character before long.
    let block = start.len() >= 262 && start[257..262] == *b"ustar";
    start.starts_with(GZIP) || block
}

fn open_shards(name: PathBuf, shards: &[PathBuf]) -> Result<Opened> {
    let shards = shards.iter().map(|shard| absolute(shard)).collect::<Result<Vec<_>>>()?;
    let root = common_folder(&shards);
    let below = |shard: &PathBuf| shard.strip_prefix(&root).unwrap_or(shard).to_path_buf();
    if shards.iter().any(|shard| is_packed(shard)) {
        let archive = |shard: &PathBuf| StreamedArchive {
            path: below(shard),
            split: shard_split(&below(shard)),
            reader: None,
        };
        let archives = shards.iter().map(archive).collect();
        return Ok(Opened::Streamed(StreamedDataset {
            name,
            root,
            archives,
            warnings: Vec::new(),
        }));
    }
    let mut labels = LabelIds::default();
    let mut dataset = Dataset {
        name,
        kind: DatasetKind::Archives,
        classes: Vec::new(),
        samples: Vec::new(),
        archives: shards.iter().map(below).collect(),
        stamps: shards.iter().map(|shard| Stamp::of_file(shard)).collect(),
        ignored: Ignored::default(),
        warnings: Vec::new(),
        root: root.clone(),
    };
    for (number, shard) in shards.iter().enumerate() {
        let index = index_archive(shard)?;
        let (path, split) = (below(shard), shard_split(&below(shard)));
        let archive = u32::try_from(number).expect("there are fewer than 2^32 archives");
        dataset.samples.extend(index.samples.into_iter().map(|sample| Sample {
            path: path.join(&sample.name),
            class: sample.label.as_deref().map(|label| labels.id(label)),
            split: sample.split.or(split),
            storage: Storage::Member {
                archive,
                offset: sample.offset,
                length: sample.length,
            },
        }));
        dataset.ignored.add(index.ignored);
        dataset.warnings.extend(index.warnings);
        if let Some(failure) = index.failure {
            dataset.warnings.push(failure.to_string());
            dataset.samples.push(Sample {
                path,
                class: None,
                split: None,
                storage: Storage::Lost,
            });
        }
    }
    if dataset.samples.is_empty() {
        return Err(no_sample(&dataset.name));
    }
    let (classes, order) = labels.sorted();
    dataset.classes = classes;
    for class in dataset.samples.iter_mut().filter_map(|sample| sample.class.as_mut()) {
        *class = order[*class as usize];
    }
    dataset.take_val_from_train();
    Ok(Opened::Listed(dataset))
}

/// The deepest folder that holds all of `files`.
fn common_folder(files: &[PathBuf]) -> PathBuf {
    let mut folders = files.iter().map(|file| file.parent().unwrap_or(Path::new("/")));
    let first = folders.next().unwrap_or(Path::new("/"));
    let shorter = |folder: &Path, other: &Path| -> PathBuf {
        let same = folder
            .components()
            .zip(other.components())
            .take_while(|(left, right)| left == right);
        same.map(|(part, _)| part).collect()
    };
    folders.fold(first.to_path_buf(), |folder, other| shorter(&folder, other))
}
