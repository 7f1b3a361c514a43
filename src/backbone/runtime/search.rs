//! The places where an ONNX Runtime library may lie, in the order in which they are tried.
//!
//! Loading is a function given by the caller, so the order can be tested without a library.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::RuntimeOptions;
use super::fetch::VERSION;
use super::install;
use crate::backbone::{cuda, pip};
use crate::{Error, Result};

/// The library's file name without a version.
pub(crate) const LIBRARY_NAME: &str = if cfg!(windows) {
    "onnxruntime.dll"
} else if cfg!(target_vendor = "apple") {
    "libonnxruntime.dylib"
} else {
    "libonnxruntime.so"
};

/// Prints the folder in which an installed onnxruntime keeps its library, without importing it.
const PYTHON_SCRIPT: &str = "\
import importlib.util as u, os
s = u.find_spec('onnxruntime')
for p in (s and s.submodule_search_locations) or []:
    print(os.path.join(p, 'capi'))
";

/// What a Python that is asked for its packages may take to answer.
const PYTHON_LIMIT: Duration = Duration::from_secs(15);

pub(super) type Reason = Box<dyn std::error::Error + Send + Sync>;

/// A place where an ONNX Runtime library is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// The option `--ort-lib`.
    Option,
    /// The environment variable `ORT_DYLIB_PATH`.
    Variable,
    /// The executable's folder, or `lib` in it.
    BesideExecutable,
    /// The user's data folder, where a fetched library is kept.
    DataFolder,
    /// An installed Python package `onnxruntime` or `onnxruntime-gpu`.
    Python,
    /// Wherever the system's loader looks.
    System,
    /// It was fetched by this process.
    Fetched,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Option => "`--ort-lib`",
            Self::Variable => "`ORT_DYLIB_PATH`",
            Self::BesideExecutable => "beside the executable",
            Self::DataFolder => "the data folder",
            Self::Python => "the Python package `onnxruntime`",
            Self::System => "the system's libraries",
            Self::Fetched => "fetching",
        })
    }
}

/// One place that was tried, and why the library was not taken from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The place.
    pub place: Place,
    /// The file or folder, where there is one to name.
    pub path: Option<PathBuf>,
    /// Why it was not taken.
    pub reason: String,
}

impl Attempt {
    pub(super) fn new(place: Place, path: Option<&Path>, reason: impl Into<String>) -> Self {
        Self {
            place,
            path: path.map(Path::to_path_buf),
            reason: reason.into(),
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(formatter, "{}, `{}`: {}", self.place, path.display(), self.reason),
            None => write!(formatter, "{}: {}", self.place, self.reason),
        }
    }
}

/// One search through all places.
pub(super) struct Search<'a> {
    options: &'a RuntimeOptions,
    executable_folder: Option<PathBuf>,
    pythons: &'a [&'a [&'a str]],
    system_names: &'a [&'a str],
    has_driver: fn() -> bool,
}

impl<'a> Search<'a> {
    pub(super) fn new(options: &'a RuntimeOptions) -> Self {
        let executable = std::env::current_exe().ok();
        Self {
            options,
            executable_folder: executable.and_then(|path| path.parent().map(Path::to_path_buf)),
            pythons: pip::PYTHONS,
            system_names: if cfg!(any(windows, target_vendor = "apple")) {
                &[LIBRARY_NAME]
            } else {
                // Distributions ship the name without a version only with the headers.
                &[LIBRARY_NAME, "libonnxruntime.so.1"]
            },
            has_driver: || cuda::driver().is_ok(),
        }
    }

    /// Returns the first library that `load` accepts, and notes the others in `attempts`.
    pub(super) fn run<T>(
        &self,
        attempts: &mut Vec<Attempt>,
        load: &mut dyn FnMut(&Path) -> Result<T, Reason>,
    ) -> Result<Option<(Place, PathBuf, T)>> {
        for (named, place, origin) in [
            (&self.options.library, Place::Option, "`--ort-lib`"),
            (&self.options.env_library, Place::Variable, "`ORT_DYLIB_PATH`"),
        ] {
            if let Some(named) = named.as_ref().filter(|named| !named.as_os_str().is_empty()) {
                let path = named_library(named);
                let error = |source| Error::RuntimeLibrary {
                    path: named.clone(),
                    origin,
                    source,
                };
                return Ok(Some((place, path.clone(), load(&path).map_err(error)?)));
            }
        }
        let mut try_folder = |place, folder: &Path, attempts: &mut Vec<Attempt>| {
            let Some(path) = library_in(folder) else {
                attempts.push(Attempt::new(place, Some(folder), "no library there"));
                return None;
            };
            match load(&path) {
                Ok(loaded) => Some((place, path, loaded)),
                Err(reason) => {
                    attempts.push(Attempt::new(place, Some(&path), reason.to_string()));
                    None
                }
            }
        };
        let beside = self
            .executable_folder
            .iter()
            .flat_map(|folder| [folder.clone(), folder.join("lib")]);
        let mut folders: Vec<_> = beside.map(|folder| (Place::BesideExecutable, folder)).collect();
        folders.push((Place::DataFolder, data_folder(&self.options.data_dir)));
        let with_cuda = install::cuda_library_folder(&self.options.data_dir);
        if with_cuda.is_dir() {
            folders.push((Place::DataFolder, with_cuda));
        }
        let mut python_asked = false;
        // Python takes its time to answer, so without a GPU it is asked only if nothing else is there.
        if self.options.prefer_cuda && (self.has_driver)() {
            let mut index = 0;
            loop {
                if index == folders.len() && !python_asked {
                    python_asked = true;
                    folders.extend(self.python_folders(attempts));
                }
                let Some((place, folder)) = folders.get(index) else {
                    break;
                };
                if !cuda::is_in(folder) {
                    index += 1;
                    continue;
                }
                if let Some(found) = try_folder(*place, folder, attempts) {
                    return Ok(Some(found));
                }
                // Once is enough.
                folders.remove(index);
            }
        }
        for (place, folder) in &folders {
            if let Some(found) = try_folder(*place, folder, attempts) {
                return Ok(Some(found));
            }
        }
        if !python_asked {
            for (place, folder) in self.python_folders(attempts) {
                if let Some(found) = try_folder(place, &folder, attempts) {
                    return Ok(Some(found));
                }
            }
        }
        for name in self.system_names {
            match load(Path::new(name)) {
                Ok(loaded) => return Ok(Some((Place::System, PathBuf::from(name), loaded))),
                Err(reason) => attempts.push(Attempt::new(Place::System, Some(Path::new(name)), reason.to_string())),
            }
        }
        Ok(None)
    }

    /// The folders which the Python interpreters on the search path name.
    fn python_folders(&self, attempts: &mut Vec<Attempt>) -> Vec<(Place, PathBuf)> {
        let mut folders = Vec::new();
        for python in self.pythons {
            let mut command = pip::python_command(python);
            // Without -P a folder `onnxruntime` in the working directory would be taken for the package; old Pythons lack it.
            command.args(["-c", PYTHON_SCRIPT]).env("PYTHONSAFEPATH", "1");
            let reason = match pip::run_limited(&mut command, PYTHON_LIMIT, &mut || false) {
                Ok(output) if output.success => {
                    let named: Vec<_> = output.stdout.lines().map(PathBuf::from).collect();
                    if named.is_empty() {
                        format!("`{}` has no such package", python.join(" "))
                    } else {
                        for folder in named.into_iter().map(|folder| (Place::Python, folder)) {
                            if !folders.contains(&folder) {
                                folders.push(folder);
                            }
                        }
                        continue;
                    }
                }
                Ok(output) => format!("`{}`: {}", python.join(" "), pip::last_lines(&output.stderr)),
                Err(pip::RunError::Io(error)) => format!("`{}`: {error}", python.join(" ")),
                Err(_) => format!("`{}` does not answer", python.join(" ")),
            };
            attempts.push(Attempt::new(Place::Python, None, reason));
        }
        folders
    }
}

/// Where a fetched library is kept.
pub(super) fn data_folder(data_dir: &Path) -> PathBuf {
    data_dir.join("onnxruntime").join(VERSION)
}

/// The library that the user named by its file, its folder, or a bare file name left to the system's loader.
pub(super) fn named_library(named: &Path) -> PathBuf {
    // ort takes a relative path as relative to the executable.
    let absolute = std::path::absolute(named).unwrap_or_else(|_| named.to_path_buf());
    if absolute.is_dir() {
        return library_in(&absolute).unwrap_or(absolute);
    }
    let is_bare_name = named.parent() == Some(Path::new(""));
    if is_bare_name && !absolute.exists() {
        named.to_path_buf()
    } else {
        absolute
    }
}

/// The newest ONNX Runtime library that lies in `folder` itself.
pub(super) fn library_in(folder: &Path) -> Option<PathBuf> {
    std::fs::read_dir(folder)
        .ok()?
        .flatten()
        .filter_map(|entry| Some((library_version(entry.file_name().to_str()?)?, entry.path())))
        .filter(|(_, path)| path.is_file())
        .max()
        .map(|(_, path)| path)
}

/// The version in a library's file name, empty if it has none; `None` if this is no ONNX Runtime library.
pub(super) fn library_version(name: &str) -> Option<Vec<u32>> {
    let version = if cfg!(windows) {
        return name.eq_ignore_ascii_case(LIBRARY_NAME).then(Vec::new);
    } else if cfg!(target_vendor = "apple") {
        name.strip_prefix("libonnxruntime")?.strip_suffix(".dylib")?
    } else {
        name.strip_prefix("libonnxruntime.so")?
    };
    if version.is_empty() {
        return Some(Vec::new());
    }
    version
        .strip_prefix('.')?
        .split('.')
        .map(|part| part.parse().ok())
        .collect()
}

/// The first library that would be loaded, with or without a driver, where Python has none.
#[cfg(test)]
pub(super) fn first_offered(options: &RuntimeOptions, driver: bool) -> Option<PathBuf> {
    let search = Search {
        options,
        executable_folder: None,
        pythons: &[],
        system_names: &[],
        has_driver: if driver { || true } else { || false },
    };
    let found = search.run(&mut Vec::new(), &mut |_| Ok(()));
    found.expect("nothing is named").map(|(_, path, ())| path)
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
