//! Fetches an ONNX Runtime with CUDA, and the libraries of NVIDIA's that it needs, into the user's data folder.
//!
//! All of it is on PyPI: `onnxruntime-gpu`, and what its extras `cuda` and `cudnn` require. Each wheel is pinned by its
//! SHA-256 and unpacked as `pip` would, so that the libraries lie as they do in a Python that has them:
//!
//! ```text
//! <data folder>/onnxruntime/1.31.1-cuda13/onnxruntime/capi/libonnxruntime.so.1.31.1, its providers
//!                                         nvidia/cu13/lib/libcublas.so.13 …, nvidia/cudnn/lib/…
//!                                         licences/…
//! ```
//! The finished folder appears in one rename. Whether a model really runs on the GPU is for the caller to try.

use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

use super::fetch::{self, put_aside, write_file};
use super::search::{self, Attempt};
use crate::backbone::download::{self, Patience};
use crate::backbone::pip::{self, Wheel};
use crate::{Error, Observer, Result};

/// The ONNX Runtime with CUDA that is fetched.
pub(super) const CUDA_VERSION: &str = "1.31.1";
/// The CUDA it is for.
const CUDA_MAJOR: u32 = 13;

/// An ONNX Runtime library in the user's data folder.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InstalledRuntime {
    /// The library.
    pub library: PathBuf,
    /// Its version.
    pub version: &'static str,
    /// Whether it was fetched now; else it was there already.
    pub fetched: bool,
}

/// The pinned wheels for one kind of computer.
struct Build {
    /// As in [`std::env::consts`].
    system: &'static str,
    processor: &'static str,
    wheels: [Wheel<'static>; 8],
    /// What is unpacked of them, in bytes.
    unpacked: u64,
}

const fn wheel(
    what: &'static str,
    requirement: &'static str,
    platform: &'static str,
    size: u64,
    sha256: &'static str,
) -> Wheel<'static> {
    Wheel {
        what,
        requirement,
        platform: Some(platform),
        sha256,
        size,
    }
}

/// What `onnxruntime-gpu[cuda,cudnn]` 1.31.1 requires, each in the newest version there was.
#[rustfmt::skip]
static BUILDS: [Build; 3] = [
    Build {
        system: "linux",
        processor: "x86_64",
        wheels: [
            wheel("ONNX Runtime for CUDA", "onnxruntime-gpu==1.31.1", "manylinux_2_28_x86_64", 255_569_273, "05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7"),
            wheel("CUDA runtime", "nvidia-cuda-runtime==13.5.37", "manylinux_2_17_x86_64", 2_504_024, "df2b79a8852f10d1fef8c848489c49eebb5754051bf870202a862831412b179d"),
            wheel("CUDA nvrtc", "nvidia-cuda-nvrtc==13.5.37", "manylinux_2_12_x86_64", 58_185_930, "86b4d68058807988b7d9af5b44917a0601e9c337f35ccd657bfb3c759ff8d8bc"),
            wheel("CUDA nvJitLink", "nvidia-nvjitlink==13.5.37", "manylinux_2_12_x86_64", 46_642_491, "280d7cb9649704145f074b8dbde500de04ce02d0872e066e20a83c17bcaa93eb"),
            wheel("cuBLAS", "nvidia-cublas==13.10.0.20", "manylinux_2_5_x86_64", 444_289_903, "dcc6d63884c53d07e267ce7e6feac17b2538cebaafec5db865736c3e28e4dc84"),
            wheel("cuFFT", "nvidia-cufft==12.5.0.14", "manylinux_2_17_x86_64", 165_072_555, "b8be26837a5abad2b5b74f3e92dd29f622a42934b355be0961a48712cbba23ad"),
            wheel("cuRAND", "nvidia-curand==10.4.5.25", "manylinux_2_27_x86_64", 77_113_015, "22bb226a857e5888fe6b54ae465fc4371296bcff13a35f79e19691bcf454f529"),
            wheel("cuDNN", "nvidia-cudnn-cu13==9.28.1.4", "manylinux_2_27_x86_64", 516_817_937, "a54f205b1db1f2895d99f398754db1369816f0569dd459731f925635cf7b65ec"),
        ],
        unpacked: 2_480_000_000,
    },
    Build {
        system: "linux",
        processor: "aarch64",
        wheels: [
            wheel("ONNX Runtime for CUDA", "onnxruntime-gpu==1.31.1", "manylinux_2_34_aarch64", 212_341_829, "a0f1725c5a6d1ef82d63498b5ebc25e2c90c9560e91dc76db9be4a49162d4d33"),
            wheel("CUDA runtime", "nvidia-cuda-runtime==13.5.37", "manylinux_2_17_aarch64", 2_520_010, "de2dc5a7367974228b0a69588a9acc9340d3768bef1bf38bf0801eb08497cd2d"),
            wheel("CUDA nvrtc", "nvidia-cuda-nvrtc==13.5.37", "manylinux_2_17_aarch64", 56_419_462, "36e4fa2a8ada293f5693d308e531c196ab6f91cf7a0ff479bf96a537d43a6096"),
            wheel("CUDA nvJitLink", "nvidia-nvjitlink==13.5.37", "manylinux_2_17_aarch64", 45_253_761, "893f6f9a55b2720ed94913b5ba3332e972da8c78dfa2863d0244403dbd528ffc"),
            wheel("cuBLAS", "nvidia-cublas==13.10.0.20", "manylinux_2_17_aarch64", 560_089_875, "c5f3418c0a845232a8cabc58f6fa52cfae7d8bd3680d94c3907aca710fd48d70"),
            wheel("cuFFT", "nvidia-cufft==12.5.0.14", "manylinux_2_17_aarch64", 165_074_034, "091cde103312d6e09366122fe3f67092dcfd94cc9785029d695d6bcffaa76fdf"),
            wheel("cuRAND", "nvidia-curand==10.4.5.25", "manylinux_2_27_aarch64", 77_529_633, "07c75d8ba14b627d1a01d2c1bfa1eece88f25d564d3aae7e6b6fb44f7bbec9c1"),
            wheel("cuDNN", "nvidia-cudnn-cu13==9.28.1.4", "manylinux_2_27_aarch64", 597_008_823, "759b6a4919951ed8ec603dec97b96f6a6396c8269b95b3d345526e2471fb433d"),
        ],
        unpacked: 3_000_000_000,
    },
    Build {
        system: "windows",
        processor: "x86_64",
        wheels: [
            wheel("ONNX Runtime for CUDA", "onnxruntime-gpu==1.31.1", "win_amd64", 168_098_228, "2bb1e9373baba88f6415257f5b6a589d23e23c16004f7d89adf4344eada5749e"),
            wheel("CUDA runtime", "nvidia-cuda-runtime==13.5.37", "win_amd64", 2_780_254, "f225d3fa5ea6bfbb58fc4979ef72375cbe661d9107f0d8a4ff22cc151525e4a9"),
            wheel("CUDA nvrtc", "nvidia-cuda-nvrtc==13.5.37", "win_amd64", 49_248_991, "e8e6c10b251385707ae3abd7b4ee118de6736fd7678d0f0f4eab4d759f679c21"),
            wheel("CUDA nvJitLink", "nvidia-nvjitlink==13.5.37", "win_amd64", 41_467_665, "4465d4e8f2212118220b580c82523c5654f93a62906bd51d29d79bdfc12376c1"),
            wheel("cuBLAS", "nvidia-cublas==13.10.0.20", "win_amd64", 427_284_863, "c310b749eea855b88fafb906de08d6819b87216c6711640771764fea5dcd8546"),
            wheel("cuFFT", "nvidia-cufft==12.5.0.14", "win_amd64", 164_476_208, "78e7585159ecf37d73af1ce43a5dea7fd3360e1af71cde08f070c07966a336bc"),
            wheel("cuRAND", "nvidia-curand==10.4.5.25", "win_amd64", 77_330_709, "f6a02a70f5b9715235df31a164a4bf3237a45be1600a5f435f5e4a0d8682eb22"),
            wheel("cuDNN", "nvidia-cudnn-cu13==9.28.1.4", "win_amd64", 407_065_099, "73d874c6bd8a1c75ca040228f77c4e163efe9bab3b65bd85914e2b7334ac68ee"),
        ],
        unpacked: 2_000_000_000,
    },
];

impl Build {
    /// Bytes to be fetched.
    fn download(&self) -> u64 {
        self.wheels.iter().map(|wheel| wheel.size).sum()
    }

    /// Bytes of disk needed meanwhile: one wheel is there at a time, twice while `pip` moves it.
    fn room(&self) -> u64 {
        self.unpacked + 2 * self.wheels.iter().map(|wheel| wheel.size).max().unwrap_or(0)
    }
}

/// The folder in which the libraries with CUDA are kept.
fn cuda_folder(data_dir: &Path) -> PathBuf {
    data_dir
        .join("onnxruntime")
        .join(format!("{CUDA_VERSION}-cuda{CUDA_MAJOR}"))
}

/// The folder of the ONNX Runtime library with CUDA, where it was installed.
pub(super) fn cuda_library_folder(data_dir: &Path) -> PathBuf {
    cuda_folder(data_dir).join("onnxruntime").join("capi")
}

/// Puts the ONNX Runtime for this computer's CPU into `data_dir`, as is done on demand too, if it is not there.
///
/// # Errors
/// [`Error::Fetch`] if it can't be fetched; [`Error::Io`] for the disk; [`Error::Interrupted`].
pub fn install_runtime(data_dir: &Path, observer: &dyn Observer) -> Result<InstalledRuntime> {
    let there = search::library_in(&search::data_folder(data_dir));
    let loads = |path: &PathBuf| ort::util::probe(path).is_some_and(|minor| minor >= super::OLDEST_MINOR);
    let (library, fetched) = match there.filter(loads) {
        Some(library) => (library, false),
        None => (fetch::fetch(data_dir, &mut Vec::<Attempt>::new(), observer)?, true),
    };
    Ok(InstalledRuntime {
        library,
        version: fetch::VERSION,
        fetched,
    })
}

/// Puts an ONNX Runtime for CUDA and the libraries that it needs into `data_dir`, if they are not there.
///
/// The driver is no part of it. Whether all of it works [`registered_providers`](crate::registered_providers) says.
///
/// # Errors
/// [`Error::Options`] where there is no CUDA for this system; [`Error::DiskSpace`]; [`Error::Fetch`] if a wheel can't be
/// fetched, [`Error::Io`] for the disk, [`Error::Interrupted`].
pub fn install_cuda_runtime(data_dir: &Path, observer: &dyn Observer) -> Result<InstalledRuntime> {
    let (system, processor) = (std::env::consts::OS, std::env::consts::ARCH);
    let build = BUILDS
        .iter()
        .find(|build| build.system == system && build.processor == processor && !cfg!(target_env = "musl"))
        .ok_or_else(|| Error::Options {
            problem: format!(
                "there is no ONNX Runtime with CUDA for {system} {processor}{}",
                if cfg!(target_env = "musl") { " with musl" } else { "" }
            ),
            hint: "without `--cuda` the one for the CPU is installed".to_owned(),
        })?;
    install(build, pip::PYTHONS, data_dir, observer)
}

fn install(build: &Build, pythons: &[&[&str]], data_dir: &Path, observer: &dyn Observer) -> Result<InstalledRuntime> {
    let done = |library, fetched| InstalledRuntime {
        library,
        version: CUDA_VERSION,
        fetched,
    };
    let destination = cuda_folder(data_dir);
    // The folder is there whole or not at all, unless somebody took the large part away.
    let installed =
        || search::library_in(&cuda_library_folder(data_dir)).filter(|_| destination.join("nvidia").is_dir());
    if let Some(library) = installed() {
        return Ok(done(library, false));
    }
    let parent = data_dir.join("onnxruntime");
    fs::create_dir_all(&parent).map_err(Error::io("create", &parent))?;
    let _lock = download::lock(&parent.join(".cuda.lock"), observer)?;
    if let Some(library) = installed() {
        return Ok(done(library, false));
    }
    download::sweep(&parent);
    check_room(&parent, build.room())?;
    observer.note(&format!(
        "fetching ONNX Runtime {CUDA_VERSION} for CUDA {CUDA_MAJOR} and NVIDIA's libraries, {:.1} GB, into `{}`; they are under \
         NVIDIA's licence, which lies beside them",
        build.download() as f64 / 1e9,
        destination.display()
    ));
    let staging = tempfile::Builder::new()
        .prefix(download::STAGING)
        .tempdir_in(&parent)
        .map_err(Error::io("create a folder in", &parent))?;
    let unpacked = staging.path().join("unpacked");
    fs::create_dir(&unpacked).map_err(Error::io("create", &unpacked))?;
    for wheel in &build.wheels {
        let folder = tempfile::tempdir_in(staging.path()).map_err(Error::io("create a folder in", staging.path()))?;
        let path = pip::download_with(pythons, wheel, folder.path(), Patience::Usual.silence(), observer)?;
        unpack(&path, &unpacked).map_err(Error::io("unpack", &path))?;
    }
    put_aside(&destination, staging.path())?;
    if let Err(error) = fs::rename(&unpacked, &destination) {
        // Without locks another process may have been first.
        return installed()
            .map(|library| done(library, true))
            .ok_or_else(|| Error::io("write", &destination)(error));
    }
    let missing = || Error::io("read", &destination)(io::Error::from(io::ErrorKind::NotFound));
    installed().map(|library| done(library, true)).ok_or_else(missing)
}

/// Refuses a file system with less than `needed` bytes free, where the system tells it.
fn check_room(folder: &Path, needed: u64) -> Result<()> {
    match free_bytes(folder) {
        Some(free) if free < needed => Err(Error::DiskSpace {
            folder: folder.to_path_buf(),
            needed,
            free,
        }),
        _ => Ok(()),
    }
}

#[cfg(unix)]
fn free_bytes(folder: &Path) -> Option<u64> {
    let system = rustix::fs::statvfs(folder).ok()?;
    system.f_bavail.checked_mul(system.f_frsize)
}

#[cfg(not(unix))]
fn free_bytes(_: &Path) -> Option<u64> {
    None
}

/// Takes the libraries and licences out of a wheel, as they lie in it.
fn unpack(wheel: &Path, into: &Path) -> io::Result<()> {
    let mut archive = zip::ZipArchive::new(File::open(wheel)?)?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        let Some(to) = entry.enclosed_name().and_then(|member| place(&member)) else {
            continue;
        };
        let to = into.join(to);
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        write_file(&mut entry, &to)?;
    }
    Ok(())
}

/// Where a wheel's member goes, if it is wanted.
fn place(member: &Path) -> Option<PathBuf> {
    let parts: Vec<&str> = member
        .components()
        .map(|part| match part {
            Component::Normal(part) => part.to_str(),
            _ => None,
        })
        .collect::<Option<_>>()?;
    let (&name, folders) = parts.split_last()?;
    let is_shared = name.contains(".so") || name.ends_with(".dll");
    match folders {
        ["onnxruntime", "capi"] => {
            let provider = ["onnxruntime_providers_shared.", "onnxruntime_providers_cuda."];
            let wanted = search::library_version(name).is_some() || provider.iter().any(|part| name.contains(part));
            wanted.then(|| member.to_path_buf())
        }
        ["nvidia", _, "lib" | "bin", ..] if is_shared => Some(member.to_path_buf()),
        ["onnxruntime"] if matches!(name, "LICENSE" | "ThirdPartyNotices.txt") => {
            Some(Path::new("licences").join(format!("onnxruntime-{name}")))
        }
        [package, .., "licenses"] if package.ends_with(".dist-info") => {
            let package = package.trim_end_matches(".dist-info");
            Some(Path::new("licences").join(format!("{package}-{name}")))
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "install_tests.rs"]
mod tests;
