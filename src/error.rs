//! The one error type of the library; what a user can do about each is in [`hint`].
//!
//! A picture that can't be read is no error but a value ([`PictureError`](crate::PictureError)): it never ends a run.

mod hint;

use std::io;
use std::path::{Path, PathBuf};

use crate::extract::{Failure, FailureLimit};
use crate::{ExternalDataProblem, NotOnnx, RandomViews};

/// What can go wrong in `lastlayer`; each variant keeps the path and the source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read, written, or listed.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// The verb: `read`, `write`, `list` …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    // Data sets.
    /// A folder of pictures is not laid out as a data set.
    #[error("`{}` {problem}", path.display())]
    Dataset {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it, continuing the sentence.
        problem: String,
        /// What to do about it.
        hint: String,
    },

    /// A table of pictures, or one of its rows, is not what it should be.
    #[error("`{}`{}{problem}", path.display(), place.as_ref().map_or_else(|| " ".to_owned(), |place| format!(", {place}: ")))]
    Table {
        /// The table.
        path: PathBuf,
        /// The line or row.
        place: Option<String>,
        /// What is wrong with it, continuing the sentence.
        problem: String,
        /// What to do about it.
        hint: String,
    },

    /// It is not clear which columns of a table hold what.
    #[error("`{}` {problem}", path.display())]
    TableColumns {
        /// The table.
        path: PathBuf,
        /// What is wrong with it, continuing the sentence.
        problem: String,
        /// The columns that are there, quoted.
        columns: Vec<String>,
        /// The option that names the column.
        option: &'static str,
    },

    /// A tar archive of pictures is cut or damaged, or none.
    #[error("`{}`, byte {offset}: {problem}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// How far it could be read, in bytes of the unpacked archive.
        offset: u64,
        /// What is wrong there.
        problem: String,
    },

    // The cache.
    /// A file of the cache is not what it should be.
    #[error("`{}` is damaged: {problem}", path.display())]
    Damaged {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },

    /// A file of the cache was written by a newer version of this program.
    #[error("`{}` was written by a newer version of lastlayer", path.display())]
    NewerCache {
        /// The file.
        path: PathBuf,
    },

    /// `cache verify` found damage.
    #[error("{damaged} rows and files in `{}` are not what was written or computed", path.display())]
    DamagedCache {
        /// The cache's folder.
        path: PathBuf,
        /// How many.
        damaged: usize,
        /// Whether they were set aside.
        repaired: bool,
    },

    /// The cache knows nothing of a data set whose folder is not there either.
    #[error("there is no data set `{}`, and the cache `{}` remembers none of that name", path.display(), cache.display())]
    UnknownDataset {
        /// The data set as given.
        path: PathBuf,
        /// The cache's folder.
        cache: PathBuf,
    },

    /// Pictures of a data set have no usable feature in the cache.
    #[error(
        "{missing} of {total} pictures in `{}` have no feature in the cache{}", path.display(),
        example.as_ref().map_or_else(String::new, |example| format!(", for instance `{}`", example.display()))
    )]
    NotExtracted {
        /// The data set.
        path: PathBuf,
        /// Pictures without a feature.
        missing: usize,
        /// Pictures in the data set.
        total: usize,
        /// One of the files, where they are new or changed.
        example: Option<PathBuf>,
    },

    /// Training pictures have no feature of some random views in the cache.
    #[error("{missing} of {total} training pictures in `{}` have no features of {} random views{} in the cache", path.display(),
        views.count(), of_seed(*views)
    )]
    NoViews {
        /// The data set.
        path: PathBuf,
        /// Training pictures that lack one at least.
        missing: usize,
        /// Training pictures.
        total: usize,
        /// The views that are wanted.
        views: RandomViews,
    },

    /// A data set has features in several spaces.
    #[error("`{}` has features in several spaces:\n{}", path.display(), bullets(spaces))]
    SeveralSpaces {
        /// The data set.
        path: PathBuf,
        /// The spaces.
        spaces: Vec<String>,
    },

    /// A data set has no features in the space that was asked for.
    #[error("`{}` has no features in the space asked for; it has them in\n{}", path.display(), bullets(spaces))]
    NoSuchSpace {
        /// The data set.
        path: PathBuf,
        /// The spaces it has features in.
        spaces: Vec<String>,
    },

    // Models.
    /// A backbone is another one than the head was trained with.
    #[error("`{}` was trained on features of {expected}, not of {found}", head.display())]
    OtherBackbone {
        /// The head file.
        head: PathBuf,
        /// The backbone that the head names.
        expected: String,
        /// The backbone that was found.
        found: String,
    },

    /// A model file is something else than ONNX, or damaged.
    #[error("`{}` is no ONNX model that can be read: {source}", path.display())]
    NotOnnx {
        /// The model file.
        path: PathBuf,
        /// What it is instead.
        source: NotOnnx,
    },

    /// A model takes something else than RGB pictures.
    #[error("`{}` does not take one batch of RGB pictures: {found}", path.display())]
    ModelInput {
        /// The model file.
        path: PathBuf,
        /// The inputs it has.
        found: String,
    },

    /// A model is readable, but no feature extractor can be made of it.
    #[error("no features can be taken from `{}`: {problem}", path.display())]
    Model {
        /// The model file.
        path: PathBuf,
        /// What stands in the way.
        problem: String,
        /// What the user can do.
        hint: String,
    },

    /// A backbone can't be quantised, or not with these pictures.
    #[error("cannot quantise `{backbone}`: {problem}")]
    Quantization {
        /// The backbone as it was named.
        backbone: String,
        /// What stands in the way.
        problem: String,
        /// What the user can do.
        hint: String,
    },

    /// The tensor that was asked for is not computed in the model.
    #[error("`{}` computes no tensor named `{tensor}`", path.display())]
    UnknownTensor {
        /// The model file.
        path: PathBuf,
        /// The name asked for.
        tensor: String,
        /// Names that could be meant, the best first.
        candidates: Vec<String>,
    },

    /// A weight of a model lies in another file, and can't be read from there.
    #[error("cannot read the weight `{tensor}` of `{}` from `{}`: {source}", path.display(), file.display())]
    ExternalData {
        /// The model file.
        path: PathBuf,
        /// The weight.
        tensor: String,
        /// The file that should hold it.
        file: PathBuf,
        /// What went wrong.
        source: Box<ExternalDataProblem>,
    },

    // ONNX Runtime, fetching and the model zoo.
    /// No usable ONNX Runtime library was found, and none could be fetched.
    #[error("cannot find ONNX Runtime 1.22 or newer; tried\n{}", bullets(attempts))]
    RuntimeMissing {
        /// Each place that was tried, with the reason why it was not taken.
        attempts: Vec<String>,
        /// Whether fetching was forbidden.
        offline: bool,
    },

    /// The ONNX Runtime library that the user named cannot be used.
    #[error("cannot load ONNX Runtime from `{}` (given by {origin}): {source}", path.display())]
    RuntimeLibrary {
        /// The file or folder named.
        path: PathBuf,
        /// Which option or variable named it.
        origin: &'static str,
        /// What the loader said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// ONNX Runtime refused a model or failed on a batch.
    #[error("ONNX Runtime cannot {action}: {source}")]
    Inference {
        /// What was tried: `load the model`, `run the model` …
        action: &'static str,
        /// What ONNX Runtime said.
        source: ort::Error,
    },

    /// A model takes or gives something else than a batch of pictures and a row of features.
    #[error("the model does not fit: {0}")]
    ModelShape(String),

    /// The device asked for cannot be used.
    #[error("cannot use device `{device}`: {reason}")]
    Device {
        /// The device as given on the command line.
        device: String,
        /// What stands in the way.
        reason: String,
        /// What to do about it.
        hint: String,
    },

    /// A backbone can't be converted to half precision.
    #[error("the backbone can't be converted to fp16: its {0}")]
    HalfPrecision(String),

    /// A file could not be fetched from any of its sources.
    #[error("cannot fetch {what}\n{}", bullets(attempts))]
    Fetch {
        /// What was wanted.
        what: String,
        /// Each source with what happened there.
        attempts: Vec<String>,
        /// Whether a part is here, with which the next try goes on.
        resumes: bool,
    },

    /// There is too little room for what shall be fetched.
    #[error(
        "`{}` has {:.1} GB free, and {:.1} GB are needed", folder.display(), gigabytes(*free), gigabytes(*needed)
    )]
    DiskSpace {
        /// A folder on the file system.
        folder: PathBuf,
        /// Bytes that are needed meanwhile.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },

    /// A backbone was named that is neither a file nor in the zoo.
    #[error("unknown backbone `{name}`; known are {}", known.join(", "))]
    UnknownModel {
        /// The name given.
        name: String,
        /// The names the zoo has.
        known: Vec<String>,
    },

    /// The backbone's file does not exist.
    #[error("there is no backbone file `{}`", path.display())]
    ModelNotFound {
        /// The file named.
        path: PathBuf,
    },

    /// A zoo model is on no disk, and fetching is forbidden.
    #[error("backbone `{name}` is not on this computer and `--offline` forbids fetching it")]
    ModelOffline {
        /// The zoo name.
        name: String,
        /// Where the file is looked for.
        file: PathBuf,
        /// Where it can be had.
        origin: String,
    },

    // Checkpoints and the networks made of them.
    /// A PyTorch checkpoint is damaged, or holds what no state dict holds.
    #[error("cannot read the checkpoint `{}`: {source}", path.display())]
    Checkpoint {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// The tensors of a checkpoint are not those of the network it was taken for.
    #[error("the weights are not those of {network}: {reason}")]
    Network {
        /// The architecture's name.
        network: &'static str,
        /// Which tensor is missing, surplus, or of the wrong shape.
        reason: String,
    },

    /// A network computes something else here than it did in PyTorch.
    #[error("{network} gives other features here than in PyTorch: {reason}")]
    Expectation {
        /// The architecture's name.
        network: &'static str,
        /// Which feature differs, and by how much.
        reason: String,
    },

    /// An option's value, or a combination of options, makes no sense.
    #[error("{0}")]
    Usage(String),

    /// What a sweep shall vary can't be understood, or is too much.
    #[error("{}{problem}", sweep_place(file.as_deref(), *line, axis.as_deref()))]
    Sweep {
        /// The sweep file; `None` for the command line.
        file: Option<PathBuf>,
        /// The line of the file, counted from 1, where it is in one.
        line: Option<usize>,
        /// The axis.
        axis: Option<String>,
        /// What is wrong with it, continuing the sentence.
        problem: String,
        /// What can be written.
        hint: String,
    },

    /// Options that do not go together, or not with this data set.
    #[error("{problem}")]
    Options {
        /// What is wrong with them.
        problem: String,
        /// What can be written instead.
        hint: String,
    },

    // The head: training and its file.
    /// Features, labels, and a head (or an order of rows) do not fit together.
    #[error("{0}")]
    Examples(String),

    /// The loss or a weight became infinite or NaN.
    #[error(
        "training diverged in epoch {epoch} at learning rate {learning_rate:?}: the loss is no longer a finite number"
    )]
    Diverged {
        /// The epoch, counted from 0.
        epoch: usize,
        /// The learning rate of that epoch.
        learning_rate: f64,
    },

    /// The objective of a solver that goes to the optimum, or the head found, is infinite or NaN.
    #[error("the loss is not a finite number: the features are too large for their optimum to be computed")]
    NoOptimum,

    /// No training of a sweep came to a head.
    #[error("none of {heads} trainings came to a head; the first: {problem}")]
    NoHead {
        /// How many there were.
        heads: usize,
        /// Why the first one of them failed.
        problem: String,
    },

    /// A file given as a head is no safetensors file, or a damaged one.
    #[error("`{}` is not a readable safetensors file: {source}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: safetensors::SafeTensorError,
    },

    /// A safetensors file does not hold a head this version can use, or a head can't be saved as it is.
    #[error("`{}` is not a usable head file: {problem}", path.display())]
    HeadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },

    /// linfa refused a data set or a parameter.
    #[error(transparent)]
    Linfa(#[from] linfa::Error),

    // Output.
    /// The folder of a file that shall be written is not there.
    #[error("cannot write `{}`: the folder `{}` does not exist", path.display(), folder.display())]
    NoOutputFolder {
        /// The file.
        path: PathBuf,
        /// Its folder.
        folder: PathBuf,
    },

    // Runs.
    /// No run is called as the user said.
    #[error("there is no run `{run}` in `{}`", root.display())]
    UnknownRun {
        /// The word given.
        run: String,
        /// Where the runs are.
        root: PathBuf,
        /// The newest run there, if there is any.
        latest: Option<String>,
    },

    /// Several runs are called as the user said.
    #[error("`{run}` could be several runs in `{}`:\n{}", root.display(), bullets(runs))]
    AmbiguousRun {
        /// The word given.
        run: String,
        /// Where the runs are.
        root: PathBuf,
        /// Those it could be.
        runs: Vec<String>,
    },

    /// A sweep kept no head of the rank that the user named.
    #[error("there is no run `{run}`: `{sweep}` kept {}", kept_heads(*heads))]
    UnknownHead {
        /// The word given.
        run: String,
        /// The sweep.
        sweep: String,
        /// How many of its heads were kept.
        heads: usize,
    },

    /// The best run could be one of several data sets.
    #[error(
        "`best` could be of several data sets in `{}`, whose numbers can't be compared:\n{}",
        root.display(),
        bullets(choices)
    )]
    SeveralDatasets {
        /// Where the runs are.
        root: PathBuf,
        /// For each data set the words that mean its best run.
        choices: Vec<String>,
    },

    /// A run's folder is damaged, or can't be used for this.
    #[error("the run `{}` can't be used: {problem}", path.display())]
    Run {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },

    /// A run can't be repeated, as its data set is no longer what it was.
    #[error("the data of the run `{}` have changed since:\n{}", run.display(), bullets(changes))]
    DataChanged {
        /// The run's folder.
        run: PathBuf,
        /// What is different.
        changes: Vec<String>,
    },

    /// More pictures failed than the run was told to bear.
    #[error("{failed} picture{} failed, more than the {limit} allowed{}", if *failed == 1 { "" } else { "s" }, failures.first().map_or_else(String::new, |first| format!(
        "; the first: `{}`: {}: {}", first.path.display(), first.reason, first.detail
    )))]
    TooManyFailures {
        /// Pictures that failed until the run was stopped.
        failed: usize,
        /// The most that were allowed.
        limit: FailureLimit,
        /// Which, and why.
        failures: Vec<Failure>,
    },

    /// The user pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

/// A [`std::result::Result`] with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller of the program can conclude from an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The work failed.
    Failed,
    /// The command, an option, or a configuration is wrong: nothing was tried.
    Usage,
    /// Stopped by the user.
    Interrupted,
}

impl Error {
    /// Wraps an operating-system error with what was tried on which path.
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// The kind of this error, from which the program's exit code follows.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Usage(_)
            | Self::Sweep { .. }
            | Self::Options { .. }
            | Self::TableColumns { .. }
            | Self::NoSuchSpace { .. }
            | Self::SeveralSpaces { .. }
            | Self::UnknownRun { .. }
            | Self::AmbiguousRun { .. }
            | Self::UnknownHead { .. }
            | Self::NoOutputFolder { .. }
            | Self::SeveralDatasets { .. }
            | Self::RuntimeLibrary { .. }
            | Self::UnknownTensor { .. }
            | Self::UnknownModel { .. }
            | Self::ModelNotFound { .. } => ErrorKind::Usage,
            Self::Interrupted => ErrorKind::Interrupted,
            _ => ErrorKind::Failed,
        }
    }
}

/// Which views are meant, where they are not those that are meant without a word.
fn of_seed(views: RandomViews) -> String {
    match views.seed() {
        0 => String::new(),
        seed => format!(" of seed {seed}"),
    }
}

/// Where in a sweep something is wrong, up to the problem.
fn sweep_place(file: Option<&Path>, line: Option<usize>, axis: Option<&str>) -> String {
    let line = line.map_or_else(String::new, |line| format!(" line {line}"));
    match (file, axis) {
        (None, None) => String::new(),
        (None, Some(axis)) => format!("sweep axis `{axis}`: "),
        (Some(file), None) => format!("`{}`{line}: ", file.display()),
        (Some(file), Some(axis)) => format!("`{}`{line}, axis `{axis}`: ", file.display()),
    }
}

fn gigabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

fn kept_heads(count: usize) -> String {
    match count {
        0 => "no head".to_owned(),
        1 => "1 head".to_owned(),
        count => format!("{count} heads"),
    }
}

/// One indented line for each item.
fn bullets(items: &[String]) -> String {
    items
        .iter()
        .map(|item| format!("  - {item}"))
        .collect::<Vec<_>>()
        .join("\n")
}
