//! What CUDA needs beside the ONNX Runtime library: the driver, NVIDIA's libraries, and words a user can act on.
//!
//! Only what can be told without a session: whether CUDA really runs a model is found out by `session`.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

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

/// CUDA device `id` as an execution provider that fails where it can't be had.
pub(super) fn provider(id: u32) -> ort::ep::ExecutionProviderDispatch {
    ort::ep::CUDA::default()
        .with_device_id(id.try_into().unwrap_or(i32::MAX))
        .with_arena_extend_strategy(ort::ep::ArenaExtendStrategy::SameAsRequested)
        // The exhaustive search is slow for every new batch size and may choose other kernels in each run.
        .with_conv_algorithm_search(ort::ep::cuda::ConvAlgorithmSearch::Heuristic)
        // Features must not depend on the device beyond the last bits.
        .with_tf32(false)
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

/// ONNX Runtime's message in one line, without its source files, function signatures and status codes.
pub(super) fn plain_reason(message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut reason = line.as_str();
    // `[ONNXRuntimeError] : 1 : FAIL : what happened`, perhaps with another such message in it: the last is the cause.
    if let Some((_, status)) = reason.rsplit_once("[ONNXRuntimeError] : ") {
        reason = status.splitn(3, " : ").nth(2).unwrap_or(status);
    }
    if let Some((_, cause)) = reason.rsplit_once("FAIL : ") {
        reason = cause;
    }
    if let Some((_, cause)) = reason.rsplit_once("Status Message: ") {
        reason = cause;
    }
    reason = without_source(reason);
    // Behind a CUDA call that failed: the device, the host's name, and the place in the source again.
    if let Some((cause, _)) = reason.split_once(" ; GPU=") {
        reason = cause;
    }
    let reason = reason.trim_end_matches([' ', ';']);
    if reason.is_empty() { line } else { reason.to_owned() }
}

/// The rest behind `/folder/file.cc:12 type function(arguments) [with T = type]`, or all of `text` if it begins otherwise.
fn without_source(text: &str) -> &str {
    let Some((place, rest)) = text.split_once(' ') else {
        return text;
    };
    let is_source = [".cc:", ".h:", ".cu:", ".cuh:"].iter().any(|end| place.contains(end));
    if !is_source {
        return text;
    }
    let Some(mut end) = rest.find('(') else {
        // Visual C++ names the function alone.
        return match rest.split_once(' ') {
            Some((function, message)) if function.contains("::") => message,
            _ => rest,
        };
    };
    // Several lists of arguments: `operator()(int)`, `outer(int)::<lambda(int)>`.
    while let Some(close) = closing(&rest[end..], '(', ')') {
        end += close + 1;
        let glued = rest[end..].split(' ').next().unwrap_or_default();
        match glued.find('(') {
            Some(next) => end += next,
            None => {
                end += glued.len();
                break;
            }
        }
    }
    let rest = rest[end..].trim_start();
    let rest = rest.strip_prefix("const ").unwrap_or(rest);
    if rest.starts_with("[with ")
        && let Some(close) = closing(rest, '[', ']')
    {
        return rest[close + 1..].trim_start();
    }
    rest
}

/// Where the bracket closes with which `text` begins.
fn closing(text: &str, open: char, close: char) -> Option<usize> {
    let mut depth = 0_usize;
    text.char_indices().find_map(|(index, character)| {
        if character == open {
            depth += 1;
        } else if character == close {
            depth = depth.saturating_sub(1);
            return (depth == 0).then_some(index);
        }
        None
    })
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
    fn a_message_is_cut_down_to_what_happened() {
        for (message, reason) in [
            (
                "/onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:1778 onnxruntime::Provider& \
                 onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library \
                 libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open shared object file",
                "Failed to load library libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open \
                 shared object file",
            ),
            (
                "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:129 std::conditional_t<THRW, void, \
                 onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, const char*, int) [with ERRTYPE = \
                 cudaError; bool THRW = true; std::conditional_t<THRW, void, common::Status> = void] CUDA failure 35: \
                 CUDA driver version is insufficient for CUDA runtime version ; GPU=-1 ; hostname=host ; \
                 file=/onnxruntime_src/a.cc ; line=282 ; expr=cudaSetDevice(info_.device_id);",
                "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version",
            ),
            (
                "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Conv node. Name:'c' \
                 Status Message: /onnxruntime_src/x.h:9 int f(int)::<lambda(void)> const [with T = int[3]] no cuDNN",
                "no cuDNN",
            ),
            (
                r"D:\a\_work\1\s\onnxruntime\core\providers\cuda\cuda_call.cc:129 onnxruntime::CudaCall CUDA failure 2",
                "CUDA failure 2",
            ),
            (
                "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : out\nof memory",
                "out of memory",
            ),
            (
                "CUDA execution provider is not enabled in this build. ",
                "CUDA execution provider is not enabled in this build.",
            ),
        ] {
            assert_eq!(plain_reason(message), reason);
        }
    }

    #[test]
    fn the_reason_without_a_driver_names_its_library() {
        if let Err(reason) = driver() {
            assert!(DRIVER.is_none_or(|name| reason.contains(name)), "{reason}");
            assert_eq!(driver(), Err(reason), "the answer is kept");
        }
    }
}
