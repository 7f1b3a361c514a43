//! Which of NVIDIA's libraries an ONNX Runtime with CUDA needs, of which versions, and which of them are found.

use std::path::{Path, PathBuf};

use super::{PROVIDERS, Unusable, elf};

/// What one ONNX Runtime library needs of CUDA, and what is missing of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Needs {
    /// The ONNX Runtime library.
    pub(crate) library: String,
    /// Major version of CUDA.
    pub(super) cuda: Option<u32>,
    /// The version of the NVIDIA driver, where the system tells it.
    pub(super) driver: Option<String>,
    /// File names of NVIDIA's libraries that are nowhere.
    pub(super) missing: Vec<String>,
}

/// What of CUDA is found on this computer, for one ONNX Runtime library.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CudaStatus {
    /// The version of the NVIDIA driver, empty where it can't be told, or why there is none.
    pub driver: Result<String, String>,
    /// ONNX Runtime's CUDA provider, beside its library.
    pub provider: Option<PathBuf>,
    /// The CUDA and cuDNN that the provider was built for, such as `CUDA 13 and cuDNN 9`.
    pub versions: String,
    /// NVIDIA's libraries that it needs; empty without a provider.
    pub libraries: Vec<CudaLibrary>,
}

/// One of NVIDIA's libraries.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CudaLibrary {
    /// Its file name.
    pub name: String,
    /// Where it was found: its file, or the bare name where the system's loader finds it.
    pub path: Option<PathBuf>,
}

/// The cuDNN of every ONNX Runtime that this program can load. The provider looks for it by itself, so its file may not
/// name it.
const CUDNN: u32 = 9;
/// The first `1.x` of ONNX Runtime whose build on PyPI is for CUDA 13; those before are for CUDA 12.
const FIRST_OF_CUDA_13: u32 = 27;

impl Needs {
    /// Looks at the files of the ONNX Runtime library `library` of `version`, such as `1.31.1`.
    pub(crate) fn of(library: &Path, version: &str) -> Self {
        let names = names(library, version);
        let missing = names.iter().filter(|name| find(name, library).is_none()).cloned();
        Self {
            library: library.display().to_string(),
            cuda: cuda_major(&names, version),
            driver: driver_version(),
            missing: missing.collect(),
        }
    }

    /// `CUDA 13 and cuDNN 9`.
    pub(super) fn versions(&self) -> String {
        match self.cuda {
            Some(major) => format!("CUDA {major} and cuDNN {CUDNN}"),
            None => format!("CUDA and cuDNN {CUDNN}"),
        }
    }

    /// The first driver for that CUDA, from NVIDIA's release notes of CUDA.
    pub(super) fn oldest_driver(&self) -> u32 {
        match self.cuda {
            Some(..13) => 525,
            _ => 580,
        }
    }
}

impl CudaStatus {
    /// Whether there is an NVIDIA driver, or which file of it is missing.
    ///
    /// # Errors
    /// The reason in words.
    pub fn driver() -> Result<(), String> {
        super::driver()
    }

    /// Looks for the driver, the provider beside `library`, which is of `version`, and what that needs.
    #[must_use]
    pub fn of(library: &Path, version: &str) -> Self {
        let driver = super::driver().map(|()| driver_version().unwrap_or_default());
        let provider = provider_file(library);
        let needs = Needs {
            cuda: cuda_major(&names(library, version), version),
            ..Needs::default()
        };
        let libraries = provider
            .iter()
            .flat_map(|_| names(library, version))
            .map(|name| CudaLibrary {
                path: find(&name, library),
                name,
            });
        Self {
            driver,
            libraries: libraries.collect(),
            versions: needs.versions(),
            provider,
        }
    }
}

fn provider_file(library: &Path) -> Option<PathBuf> {
    let folder = library.parent()?;
    PROVIDERS
        .iter()
        .map(|name| folder.join(name))
        .find(|path| path.is_file())
}

/// The file names of what is NVIDIA's among the libraries that the provider needs, cuDNN with it, but not the driver.
fn names(library: &Path, version: &str) -> Vec<String> {
    let named = provider_file(library).and_then(|provider| elf::needed(&provider));
    let mut names: Vec<String> = match named {
        Some(named) => named.into_iter().filter(|name| is_nvidias(name)).collect(),
        None => usual(cuda_major(&[], version).unwrap_or(13)),
    };
    if !names.iter().any(|name| name.contains("cudnn")) {
        names.push(file_name("cudnn", CUDNN));
    }
    names
}

fn is_nvidias(name: &str) -> bool {
    let stem = name.strip_prefix("lib").unwrap_or(name);
    let of_cuda = ["cublas", "cudart", "cudnn", "cufft", "curand", "nvrtc", "nvJitLink"];
    of_cuda.iter().any(|start| stem.starts_with(start))
}

/// What the builds on PyPI need, for where the file can't be read: on Windows.
fn usual(cuda: u32) -> Vec<String> {
    ["cublasLt", "cublas", "cudart"]
        .map(|stem| file_name(stem, cuda))
        .into_iter()
        .chain([file_name("curand", 10)])
        .collect()
}

fn file_name(stem: &str, major: u32) -> String {
    if cfg!(windows) {
        format!("{stem}64_{major}.dll")
    } else {
        format!("lib{stem}.so.{major}")
    }
}

/// The CUDA version in the name of its runtime library, else by the version of ONNX Runtime.
fn cuda_major(names: &[String], version: &str) -> Option<u32> {
    let named = names.iter().find_map(|name| {
        let rest = name
            .strip_prefix("libcudart.so.")
            .or_else(|| name.strip_prefix("cudart64_"))?;
        rest.split('.').next()?.parse().ok()
    });
    named.or_else(|| {
        let minor: u32 = version.strip_prefix("1.")?.split('.').next()?.parse().ok()?;
        Some(if minor >= FIRST_OF_CUDA_13 { 13 } else { 12 })
    })
}

/// Where the library `name` is: among what Python or `runtime install` put beside ONNX Runtime, or where the system's
/// loader looks.
fn find(name: &str, library: &Path) -> Option<PathBuf> {
    let beside = library
        .parent()
        .map(|folder| folder.join(name))
        .filter(|path| path.is_file());
    let packaged = || {
        super::libraries(library)
            .into_iter()
            .find(|path| path.file_name().is_some_and(|found| found == name))
    };
    let loaded = || ort::util::preload_dylib(name).is_ok().then(|| PathBuf::from(name));
    beside.or_else(packaged).or_else(loaded)
}

/// The version of the NVIDIA kernel driver, from where Linux's tells it.
fn driver_version() -> Option<String> {
    version_in(&std::fs::read_to_string("/proc/driver/nvidia/version").ok()?)
}

fn version_in(text: &str) -> Option<String> {
    let is_version = |word: &&str| {
        let mut parts = word.split('.');
        parts.clone().count() >= 2
            && parts.all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    text.lines()
        .next()?
        .split_whitespace()
        .find(is_version)
        .map(str::to_owned)
}

impl Unusable {
    /// Whether anything beside the ONNX Runtime library could be to blame: `None` if it has no CUDA provider.
    pub(crate) fn provider_is_missing(library: &Path) -> Option<Self> {
        // A bare name was found by the system's loader: nobody knows the folder.
        let has_folder = library.parent().is_some_and(|folder| !folder.as_os_str().is_empty());
        (has_folder && provider_file(library).is_none()).then(|| Self::without_provider(&library.display().to_string()))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_cuda_version_is_in_a_name_or_known_by_the_release() {
        let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            cuda_major(&names(&["libcublas.so.11", "libcudart.so.12"]), "1.31.1"),
            Some(12)
        );
        assert_eq!(cuda_major(&names(&["cudart64_13.dll"]), "1.22.0"), Some(13));
        // As `Requires-Dist` of onnxruntime-gpu says: 1.26.0 nvidia-…-cu12, 1.27.0 nvidia-…-cu13.
        for (version, major) in [("1.24.4", 12), ("1.26.0", 12), ("1.27.0", 13), ("1.31.1", 13)] {
            assert_eq!(cuda_major(&[], version), Some(major), "{version}");
        }
        assert_eq!(cuda_major(&[], "unknown"), None);
    }

    #[test]
    fn nvidias_libraries_are_told_from_the_others() {
        // All that the provider of 1.31.1 and the one of 1.22.0 need.
        let needed = [
            "libcublasLt.so.13",
            "libcublas.so.13",
            "libcurand.so.10",
            "libcudart.so.13",
            "libcufft.so.11",
            "libcudnn.so.9",
            "libcuda.so.1",
            "libdl.so.2",
            "libstdc++.so.6",
            "ld-linux-x86-64.so.2",
        ];
        let nvidias: Vec<_> = needed.into_iter().filter(|name| is_nvidias(name)).collect();
        assert_eq!(nvidias, &needed[..6]);
    }

    #[test]
    fn the_driver_tells_its_version() {
        for (text, version) in [
            (
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\nGCC version: 12.2",
                Some("535.129.03"),
            ),
            (
                "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build",
                Some("580.65.06"),
            ),
            ("NVRM version: unknown", None),
            ("", None),
        ] {
            assert_eq!(version_in(text).as_deref(), version);
        }
    }

    #[test]
    fn what_is_beside_onnx_runtime_or_in_pythons_packages_is_found() {
        let site = tempfile::tempdir().unwrap();
        let touch = |path: &str| {
            let path = site.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, b"").unwrap();
            path
        };
        let library = touch("onnxruntime/capi/libonnxruntime.so.1.31.1");
        let without = CudaStatus::of(&library, "1.31.1");
        assert!(without.provider.is_none() && without.libraries.is_empty());
        assert!(
            Unusable::provider_is_missing(&library)
                .unwrap()
                .hint
                .contains("runtime install --cuda")
        );
        let provider = touch("onnxruntime/capi/libonnxruntime_providers_cuda.so");
        // No ELF file, so the usual ones are looked for.
        let cublas = touch(&format!("nvidia/cu13/lib/{}", file_name("cublas", 13)));
        let cudart = touch(&format!("onnxruntime/capi/{}", file_name("cudart", 13)));
        let status = CudaStatus::of(&library, "1.31.1");
        assert_eq!(status.provider, Some(provider));
        assert_eq!(status.versions, "CUDA 13 and cuDNN 9");
        let found = |stem, major| {
            let name = file_name(stem, major);
            status
                .libraries
                .iter()
                .find(|library| library.name == name)
                .unwrap()
                .path
                .clone()
        };
        assert_eq!(found("cublas", 13), Some(cublas));
        assert_eq!(found("cudart", 13), Some(cudart));
        let needs = Needs::of(&library, "1.31.1");
        assert!(!needs.missing.contains(&file_name("cublas", 13)));
        if ort::util::preload_dylib(file_name("cudnn", 9)).is_err() {
            assert!(needs.missing.contains(&file_name("cudnn", 9)), "{:?}", needs.missing);
            assert_eq!(found("cudnn", 9), None);
        }
    }
}
