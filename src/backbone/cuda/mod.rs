//! What CUDA needs beside the ONNX Runtime library: the driver, NVIDIA's libraries, and words a user can act on.
//!
//! Only what can be told without a session: whether CUDA really runs a model is found out by `session`.
//!
//! | module | what it does |
//! |---|---|
//! | `needs`, `elf` | which libraries and versions there must be, and which of them are there |
//! | `reason` | what ONNX Runtime's messages mean, and what to do |

mod elf;
mod needs;
mod reason;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub(super) use self::needs::Needs;
pub use self::needs::{CudaLibrary, CudaStatus};
pub(super) use self::reason::{Unusable, plain_reason};

/// The library that NVIDIA's driver installs; `None` where there is no such driver.
const DRIVER: Option<&str> = if cfg!(windows) {
    Some("nvcuda.dll")
} else if cfg!(target_vendor = "apple") {
    None
} else {
    Some("libcuda.so.1")
};

/// The file names of ONNX Runtime's CUDA provider, which lies beside its library.
const PROVIDERS: [&str; 2] = ["libonnxruntime_providers_cuda.so", "onnxruntime_providers_cuda.dll"];

/// Whether an NVIDIA driver is installed, or why CUDA can't be had without one.
pub(super) fn driver() -> Result<(), String> {
    static FOUND: OnceLock<bool> = OnceLock::new();
    let Some(name) = DRIVER else {
        return Err("there is no CUDA on this system".to_owned());
    };
    // The loader knows better than any list of folders where drivers lie.
    if *FOUND.get_or_init(|| ort::util::preload_dylib(name).is_ok()) {
        Ok(())
    } else {
        Err(format!("no NVIDIA driver ({name}) is installed"))
    }
}

/// Whether the ONNX Runtime library in `folder` comes with the CUDA provider.
pub(super) fn is_in(folder: &Path) -> bool {
    PROVIDERS.iter().any(|name| folder.join(name).is_file())
}

/// CUDA device `id` as an execution provider that fails where it can't be had; with `tf32`, tensor cores round products.
pub(super) fn provider(id: u32, tf32: bool) -> ort::ep::ExecutionProviderDispatch {
    ort::ep::CUDA::default()
        .with_device_id(id.try_into().unwrap_or(i32::MAX))
        .with_arena_extend_strategy(ort::ep::ArenaExtendStrategy::SameAsRequested)
        // The exhaustive search is slow for every new batch size and may choose other kernels in each run.
        .with_conv_algorithm_search(ort::ep::cuda::ConvAlgorithmSearch::Heuristic)
        // ONNX Runtime's own default is on; features of fp32 must not depend on the device beyond the last bits.
        .with_tf32(tf32)
        .build()
        .error_on_failure()
}

/// Loads the CUDA libraries that Python's `nvidia-*` packages keep beside onnxruntime-gpu, where the loader doesn't look.
pub(super) fn preload(library: &Path) {
    for path in libraries(library) {
        match ort::util::preload_dylib(&path) {
            Ok(()) => tracing::debug!(path = %path.display(), "loaded"),
            Err(error) => tracing::debug!(path = %path.display(), %error, "cannot be loaded"),
        }
    }
}

/// The files to load before `library`, each behind those it needs; none unless it lies in `site-packages/onnxruntime/capi`.
fn libraries(library: &Path) -> Vec<PathBuf> {
    // As in ort's own lists; Windows does not look for what a library needs in that library's folder.
    const ORDER: [&str; 14] = [
        "cudart",
        "nvJitLink",
        "cublasLt",
        "cublas",
        "nvrtc",
        "curand",
        "cufft",
        "cudnn",
        "cudnn_graph",
        "cudnn_ops",
        "cudnn_heuristic",
        "cudnn_adv",
        "cudnn_cnn",
        "cudnn_engines",
    ];
    let Some(packages) = library.ancestors().nth(3).map(|folder| folder.join("nvidia")) else {
        return Vec::new();
    };
    let rank = |path: &Path| {
        let name = path.file_name()?.to_str()?;
        let stem = name.strip_prefix("lib").unwrap_or(name);
        // The longest prefix: cublasLt is no cublas.
        let rank = ORDER
            .iter()
            .enumerate()
            .filter(|(_, prefix)| stem.starts_with(**prefix))
            .max_by_key(|(_, p)| p.len())?;
        let is_library = name.contains(".so") || name.ends_with(".dll");
        is_library.then(|| (rank.0, name.len(), path.to_path_buf()))
    };
    let mut found: Vec<_> = walkdir::WalkDir::new(packages)
        .max_depth(4)
        .into_iter()
        .flatten()
        .filter(|entry| !entry.file_type().is_dir())
        .filter_map(|entry| rank(entry.path()))
        .collect();
    found.sort();
    found.into_iter().map(|(_, _, path)| path).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn pythons_cuda_libraries_are_loaded_behind_what_they_need() {
        let site = tempfile::tempdir().unwrap();
        let touch = |path: &str| {
            let path = site.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, b"").unwrap();
            path
        };
        let library = touch("onnxruntime/capi/libonnxruntime.so.1.32.0");
        let cudnn_ops = touch("nvidia/cudnn/lib/libcudnn_ops.so.9");
        let cudnn_graph = touch("nvidia/cudnn/lib/libcudnn_graph.so.9");
        let cudnn = touch("nvidia/cudnn/lib/libcudnn.so.9");
        let cublas = touch("nvidia/cu13/lib/libcublas.so.13");
        let cublas_lt = touch("nvidia/cu13/lib/libcublasLt.so.13");
        let cudart = touch("nvidia/cu13/lib/libcudart.so.13");
        touch("nvidia/cu13/include/cudnn.h");
        touch("nvidia/nccl/lib/libnccl.so.2");
        let expected = [cudart, cublas_lt, cublas, cudnn, cudnn_graph, cudnn_ops];
        assert_eq!(libraries(&library), expected);
    }

    #[test]
    fn the_reason_without_a_driver_names_its_library() {
        if let Err(reason) = driver() {
            assert!(DRIVER.is_none_or(|name| reason.contains(name)), "{reason}");
            assert_eq!(driver(), Err(reason), "the answer is kept");
        }
    }
}
