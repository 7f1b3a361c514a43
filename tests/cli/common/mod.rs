//! What the tests share: a folder to work in, the program, and made models and pictures.

mod archive;
mod model;
mod pictures;
mod random;
mod reader;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use lastlayer::{Cache, FeatureSpace, RowKey};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) use archive::tar;
pub(crate) use model::{Classifier, TinyModel};
pub(crate) use pictures::{bmp, jpeg, picture, png};
pub(crate) use random::Random;
pub(crate) use reader::{StoredRows, stored_files, stored_rows};
#[cfg(unix)]
pub(crate) use reader::{StoredSpace, stored_space};

/// A folder of its own for one test, in which the program runs.
pub(crate) struct Scene {
    _folder: TempDir,
    root: PathBuf,
}

impl Scene {
    /// An empty folder with the default [`TinyModel`] as `tiny.onnx`.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The program resolves symbolic links, and on macOS the temporary folder is behind one.
        let root = folder.path().canonicalize().unwrap();
        std::fs::write(root.join("tiny.onnx"), TinyModel::default().onnx()).unwrap();
        Self { _folder: folder, root }
    }

    /// With a data set `pictures/{train,val}/{blue,green,red}`, 6 and 3 pictures of each class.
    pub(crate) fn with_pictures() -> Self {
        let scene = Self::new();
        for (class, name) in CLASSES.iter().enumerate() {
            scene.add_pictures(&format!("pictures/train/{name}"), class, 0..6);
            scene.add_pictures(&format!("pictures/val/{name}"), class, 6..9);
        }
        scene
    }

    /// The same, extracted with `tiny.onnx`.
    pub(crate) fn extracted() -> Self {
        let scene = Self::with_pictures();
        scene.run(EXTRACT).code(0);
        scene
    }

    /// The same, with a head trained on it as `head.safetensors`.
    pub(crate) fn trained() -> Self {
        let scene = Self::extracted();
        scene.run(["train-head", "pictures", "--lr", "0.05"]).code(0);
        scene
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Writes pictures of a class, named by their numbers, into a folder, which is created.
    pub(crate) fn add_pictures(&self, folder: &str, class: usize, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.write(&format!("{folder}/{number:03}.png"), &png(&picture(class, number)));
        }
    }

    /// Writes a file, and the folders it lies in.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub(crate) fn rename(&self, from: &str, to: &str) {
        std::fs::rename(self.path(from), self.path(to)).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        let path = self.path(name);
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
    }

    /// The program with these arguments, on the CPU unless they say otherwise.
    pub(crate) fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let arguments: Vec<&str> = arguments.into_iter().collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_lastlayer"));
        command
            .args(&arguments)
            .current_dir(&self.root)
            .env_remove("LASTLAYER_OFFLINE")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if !arguments.contains(&"--device") {
            command.args(["--device", "cpu"]);
        }
        command
    }

    pub(crate) fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Run {
        Run::of(self.command(arguments).output().unwrap())
    }

    /// Runs it with `input` on stdin.
    pub(crate) fn run_with_input<'a>(&self, arguments: impl IntoIterator<Item = &'a str>, input: &[u8]) -> Run {
        let mut child = self.spawn(self.command(arguments).stdin(Stdio::piped()));
        child.stdin.take().unwrap().write_all(input).unwrap();
        Run::of(child.wait_with_output().unwrap())
    }

    #[expect(clippy::unused_self, reason = "a child runs in this folder, which must outlive it")]
    pub(crate) fn spawn(&self, command: &mut Command) -> Child {
        command.spawn().unwrap()
    }

    /// A run and the most memory it had, in KiB; `None` where the system does not tell. What it prints must fit a pipe.
    pub(crate) fn measured<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> (Run, Option<u64>) {
        let mut child = self.spawn(&mut self.command(arguments));
        let status = format!("/proc/{}/status", child.id());
        let mut peak = None;
        while child.try_wait().unwrap().is_none() {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            peak = line
                .and_then(|line| line.split_whitespace().next()?.parse().ok())
                .or(peak);
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        (Run::of(child.wait_with_output().unwrap()), peak)
    }

    /// Runs `extract` with these further arguments and returns its report.
    pub(crate) fn extract<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Value {
        self.run(EXTRACT.into_iter().chain(["--json"]).chain(arguments))
            .code(0)
            .json()
    }

    /// All rows of the cache in the folder `cache`, by space and by content.
    pub(crate) fn rows_of(&self, cache: &str) -> BTreeMap<String, BTreeMap<[u8; 32], Vec<f32>>> {
        let cache = Cache::new(&self.path(cache));
        let contents = files_below(&self.root)
            .into_iter()
            .filter_map(|path| std::fs::read(path).ok())
            .map(|bytes| *blake3::hash(&bytes).as_bytes());
        let contents: Vec<[u8; 32]> = contents.collect();
        let rows = |space: &FeatureSpace| {
            let space = cache.open_space(space).unwrap().unwrap();
            let found = contents
                .iter()
                .filter_map(|content| Some((*content, space.row(&RowKey::plain(*content))?.to_vec())));
            found.collect()
        };
        let spaces = cache.spaces().unwrap();
        spaces
            .iter()
            .map(|(space, _)| (space.id().to_string(), rows(space)))
            .collect()
    }

    /// The rows of a cache that has one space.
    pub(crate) fn rows(&self, cache: &str) -> BTreeMap<[u8; 32], Vec<f32>> {
        let mut spaces = self.rows_of(cache);
        assert_eq!(spaces.len(), 1, "spaces in {cache}: {:?}", spaces.keys());
        spaces.pop_first().unwrap().1
    }
}

/// Copies a folder with all that is in it.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    for path in files_below(from) {
        let target = to.join(path.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(path, target).unwrap();
    }
}

/// The classes of [`Scene::with_pictures`].
pub(crate) const CLASSES: [&str; 3] = ["blue", "green", "red"];

/// Extracts `pictures` with `tiny.onnx`.
pub(crate) const EXTRACT: [&str; 4] = ["extract", "pictures", "--backbone", "tiny.onnx"];

/// All files anywhere below a folder, sorted.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter();
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_file())
        .map(walkdir::DirEntry::into_path)
        .collect()
}

/// The segment files of the cache in a folder.
pub(crate) fn segments(cache: &Path) -> Vec<PathBuf> {
    let mut files = files_below(cache);
    files.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    files
}

/// The folder of reference data, where it is there.
pub(crate) fn shared() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: ../shared is absent");
    None
}

/// A finished run of the program.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) exit: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            exit: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Checks the exit code; whatever it is, the program never panics.
    #[track_caller]
    pub(crate) fn code(self, expected: i32) -> Self {
        assert_eq!(
            self.exit,
            Some(expected),
            "stdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }

    /// Checks for an error with this exit code that contains these texts and a hint.
    #[track_caller]
    pub(crate) fn error(self, code: i32, texts: &[&str]) -> Self {
        let run = self.code(code);
        assert!(run.stderr.contains("error: "), "{}", run.stderr);
        assert!(run.stderr.contains("\n\nhint: "), "no hint: {}", run.stderr);
        run.says(texts)
    }

    /// Checks that stderr contains these texts.
    #[track_caller]
    pub(crate) fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "no {text:?} in:\n{}", self.stderr);
        }
        self
    }

    /// Stdout as the one JSON object that it must be.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let value: Value =
            serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout));
        assert!(value.is_object() && self.stdout.lines().count() == 1, "{}", self.stdout);
        value
    }

    /// Stdout as one JSON object a line.
    #[track_caller]
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// `images, computed, reused, failed` of a report, having checked that they add up.
#[track_caller]
pub(crate) fn counts(report: &Value) -> [u64; 4] {
    let count = |key: &str| report[key].as_u64().unwrap_or_else(|| panic!("no {key} in {report}"));
    let [images, computed, reused, failed] = ["images", "computed", "reused", "failed"].map(count);
    assert_eq!(images, computed + reused + failed, "{report}");
    assert_eq!(report["failures"].as_array().unwrap().len() as u64, failed, "{report}");
    [images, computed, reused, failed]
}
