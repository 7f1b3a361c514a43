//! Fetches the one pinned ONNX Runtime build for this computer into the user's data folder.
//!
//! Microsoft publishes it as a wheel on PyPI, which the user's `pip` fetches, and as an archive among its GitHub releases,
//! for computers without Python. Both are verified by SHA-256 before anything is unpacked: the wheel by a pin, the archive
//! by the digest that GitHub publishes for it. The finished folder appears in one rename, so that a process that looks at
//! the same time sees all of it or nothing.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::search::{self, Attempt, Place};
use crate::backbone::download::{self, Download, Limits, Patience};
use crate::backbone::pip::{self, Wheel};
use crate::{Error, Observer, Result};

/// The ONNX Runtime that is fetched.
pub(super) const VERSION: &str = "1.32.0";
const REQUIREMENT: &str = "onnxruntime==1.32.0";
const WHAT: &str = "ONNX Runtime 1.32.0";

/// The pinned build for one kind of computer.
#[derive(Debug)]
struct Build {
    /// As in [`std::env::consts`].
    system: &'static str,
    processor: &'static str,
    /// The wheel: its platform tag, SHA-256 and length.
    tag: &'static str,
    sha256: &'static str,
    size: u64,
    /// The release archive, whose SHA-256 the release itself tells.
    archive: &'static str,
}

const BUILDS: [Build; 5] = [
    Build {
        system: "linux",
        processor: "x86_64",
        tag: "manylinux_2_28_x86_64",
        sha256: "99e1074c4b2197accd5073052a465361be17b89c093b8ffb6e6bd8f986c52df8",
        size: 27_780_211,
        archive: "onnxruntime-linux-x64-1.32.0.tgz",
    },
    Build {
        system: "linux",
        processor: "aarch64",
        tag: "manylinux_2_28_aarch64",
        sha256: "e36c187006e7a7c8b8d6d57f1a209dd63f52430dca6c282b177718ad6b841054",
        size: 23_196_724,
        archive: "onnxruntime-linux-aarch64-1.32.0.tgz",
    },
    Build {
        system: "macos",
        processor: "aarch64",
        tag: "macosx_14_0_arm64",
        sha256: "d52510bbbcc880c13b826f7d75cdf33ac5cf0bb864d960000fc29ce73f0cb83e",
        size: 22_519_308,
        archive: "onnxruntime-osx-arm64-1.32.0.tgz",
    },
    Build {
        system: "windows",
        processor: "x86_64",
        tag: "win_amd64",
        sha256: "efe7456952c243a05a53d5b8732953625144642c2f3989094277f6217f0c0c40",
        size: 16_698_767,
        archive: "onnxruntime-win-x64-1.32.0.zip",
    },
    Build {
        system: "windows",
        processor: "aarch64",
        tag: "win_arm64",
        sha256: "64d394c69d561af3efd4d4f49dcac8f11d0ce135a20701c16d53b74056cd4cf8",
        size: 16_030_610,
        archive: "onnxruntime-win-arm64-1.32.0.zip",
    },
];

/// The build for the computer this program was compiled for.
fn build_for_this_computer() -> Option<&'static Build> {
    // Microsoft publishes nothing for musl, and what is made for glibc doesn't load there.
    (!cfg!(target_env = "musl")).then_some(())?;
    BUILDS
        .iter()
        .find(|build| build.system == std::env::consts::OS && build.processor == std::env::consts::ARCH)
}

/// Fetches the library and returns its path; every failed way is added to `attempts`.
///
/// # Errors
/// [`Error::Fetch`] if there is no way; [`Error::Interrupted`]; [`Error::Io`] for the disk.
pub(super) fn fetch(data_dir: &Path, attempts: &mut Vec<Attempt>, observer: &dyn Observer) -> Result<PathBuf> {
    let Some(build) = build_for_this_computer() else {
        let reason = format!(
            "there is no {WHAT} build for {} {}{}",
            std::env::consts::OS,
            std::env::consts::ARCH,
            if cfg!(target_env = "musl") { " with musl" } else { "" }
        );
        attempts.push(Attempt::new(Place::Fetched, None, reason.clone()));
        return Err(Error::Fetch {
            what: WHAT.to_owned(),
            attempts: vec![reason],
            resumes: false,
        });
    };
    let parent = data_dir.join("onnxruntime");
    fs::create_dir_all(&parent).map_err(Error::io("create", &parent))?;
    let destination = search::data_folder(data_dir);
    // What lies there already was tried and did not load; what another process puts there meanwhile may.
    let before = fingerprint(&destination);
    let _lock = download::lock(&parent.join(".lock"), observer)?;
    if fingerprint(&destination) != before
        && let Some(path) = search::library_in(&destination)
    {
        return Ok(path);
    }
    download::sweep(&parent);
    observer.note(&format!("fetching {WHAT} once into `{}`", parent.display()));
    let staging = tempfile::Builder::new()
        .prefix(download::STAGING)
        .tempdir_in(&parent)
        .map_err(Error::io("create a folder in", &parent))?;
    let unpacked = staging.path().join("unpacked");
    let ways: [&dyn Fn() -> Result<PathBuf>; 2] = [&|| from_wheel(build, staging.path(), observer), &|| {
        Releases::default().archive(build, staging.path(), observer)
    }];
    let mut failures = Vec::new();
    for way in ways {
        let outcome = way().and_then(|archive| unpack(&archive, &unpacked));
        match outcome {
            Ok(()) => return put_in_place(&unpacked, &destination, staging.path()),
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(Error::Fetch { attempts, .. }) => failures.extend(attempts),
            Err(error) => failures.push(error.to_string()),
        }
    }
    attempts.extend(
        failures
            .iter()
            .map(|reason| Attempt::new(Place::Fetched, None, reason.clone())),
    );
    Err(Error::Fetch {
        what: WHAT.to_owned(),
        attempts: failures,
        resumes: false,
    })
}

/// Tells whether a folder's library was replaced: its path, length and time.
fn fingerprint(folder: &Path) -> Option<(PathBuf, u64, Option<std::time::SystemTime>)> {
    let path = search::library_in(folder)?;
    let metadata = fs::metadata(&path).ok()?;
    Some((path, metadata.len(), metadata.modified().ok()))
}

fn from_wheel(build: &Build, staging: &Path, observer: &dyn Observer) -> Result<PathBuf> {
    let wheel = Wheel {
        what: WHAT,
        requirement: REQUIREMENT,
        platform: Some(build.tag),
        sha256: build.sha256,
        size: build.size,
    };
    pip::download(&wheel, staging, Patience::Usual, observer)
}

/// Where the releases are published.
struct Releases {
    api: String,
    files: String,
    limits: Limits,
}

impl Default for Releases {
    fn default() -> Self {
        Self {
            api: "https://api.github.com".to_owned(),
            files: "https://github.com".to_owned(),
            limits: Limits::default(),
        }
    }
}

#[derive(serde::Deserialize)]
struct Release {
    assets: Vec<Asset>,
}

#[derive(serde::Deserialize)]
struct Asset {
    name: String,
    size: Option<u64>,
    digest: Option<String>,
}

impl Releases {
    fn archive(&self, build: &Build, staging: &Path, observer: &dyn Observer) -> Result<PathBuf> {
        let page = format!("{}/repos/microsoft/onnxruntime/releases/tags/v{VERSION}", self.api);
        let failed = |reason: String| Error::Fetch {
            what: WHAT.to_owned(),
            attempts: vec![format!("{page}: {reason}")],
            resumes: false,
        };
        let text = download::fetch_text(&page, &self.limits).map_err(failed)?;
        let release: Release = serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
        let asset = release
            .assets
            .into_iter()
            .find(|asset| asset.name == build.archive)
            .ok_or_else(|| failed(format!("the release has no `{}`", build.archive)))?;
        let sha256 = asset
            .digest
            .as_deref()
            .and_then(|digest| digest.strip_prefix("sha256:"))
            .filter(|digest| digest.len() == 64)
            .ok_or_else(|| failed(format!("the release tells no sha256 of `{}`", build.archive)))?;
        let url = format!(
            "{}/microsoft/onnxruntime/releases/download/v{VERSION}/{}",
            self.files, build.archive
        );
        let destination = staging.join(build.archive);
        let download = Download {
            what: WHAT,
            urls: &[url],
            sha256,
            size: asset.size,
            destination: &destination,
        };
        download::fetch_within(&self.limits, &download, observer)?;
        Ok(destination)
    }
}

/// Takes the library, what belongs beside it and the licence out of a wheel, zip or tgz into the new folder `into`.
fn unpack(archive: &Path, into: &Path) -> Result<()> {
    fs::create_dir_all(into).map_err(Error::io("create", into))?;
    let file = File::open(archive).map_err(Error::io("read", archive))?;
    let read = Error::io("unpack", archive);
    if archive.extension().is_some_and(|extension| extension == "tgz") {
        unpack_tar(file, into).map_err(read)?;
    } else {
        unpack_zip(file, into).map_err(read)?;
    }
    if search::library_in(into).is_none() {
        let source = io::Error::new(io::ErrorKind::NotFound, "there is no ONNX Runtime library in it");
        return Err(Error::io("unpack", archive)(source));
    }
    Ok(())
}

fn unpack_zip(file: File, into: &Path) -> io::Result<()> {
    let mut archive = zip::ZipArchive::new(file)?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        if let Some(name) = entry.enclosed_name().as_deref().and_then(wanted) {
            write_file(&mut entry, &into.join(name))?;
        }
    }
    Ok(())
}

fn unpack_tar(file: File, into: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    for entry in archive.entries()? {
        let mut entry = entry?;
        // The names without a version are links to the one file.
        if !entry.header().entry_type().is_file() {
            continue;
        }
        if let Some(name) = wanted(&entry.path()?) {
            write_file(&mut entry, &into.join(name))?;
        }
    }
    Ok(())
}

/// The file name under which an archive's member is kept, if it is.
fn wanted(member: &Path) -> Option<String> {
    let name = member.file_name()?.to_str()?;
    let folder = member.parent()?.file_name()?.to_str()?;
    let is_library = matches!(folder, "lib" | "capi")
        && (search::library_version(name).is_some() || name.contains("onnxruntime_providers_shared."));
    let is_licence = matches!(name, "LICENSE" | "ThirdPartyNotices.txt") && folder.starts_with("onnxruntime");
    (is_library || is_licence).then(|| name.to_owned())
}

pub(super) fn write_file(from: &mut impl Read, to: &Path) -> io::Result<()> {
    let mut file = File::create(to)?;
    io::copy(from, &mut file)?;
    file.sync_all()
}

/// Moves the finished folder to `destination`; whatever lies there, and does not load, goes to `staging`.
fn put_in_place(unpacked: &Path, destination: &Path, staging: &Path) -> Result<PathBuf> {
    put_aside(destination, staging)?;
    if let Err(error) = fs::rename(unpacked, destination) {
        // Without locks another process may have been first; its folder is as good.
        return search::library_in(destination).ok_or_else(|| Error::io("write", destination)(error));
    }
    search::library_in(destination)
        .ok_or_else(|| Error::io("read", destination)(io::Error::from(io::ErrorKind::NotFound)))
}

/// Moves what lies at `destination`, if anything does, to `staging`.
pub(super) fn put_aside(destination: &Path, staging: &Path) -> Result<()> {
    if destination.exists() {
        fs::rename(destination, staging.join("replaced")).map_err(Error::io("replace", destination))?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
