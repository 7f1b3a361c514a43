//! ONNX Runtime's own messages: those of 1.31.1 were seen with missing libraries and a stand-in for the driver, the others
//! are from reports of its users.

use super::*;

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

/// What ONNX Runtime 1.31.1 gives where something is missing, less the parts of a library's path.
const PROVIDER: &str = "/onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:2369 onnxruntime::Provider& \
                        onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library \
                        /d/onnxruntime/capi/libonnxruntime_providers_cuda.so with error: ";
const DEVICE_COUNT: &str = "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc:63 static \
                            onnxruntime::CUDAExecutionProviderInfo \
                            onnxruntime::CUDAExecutionProviderInfo::FromProviderOptions(const \
                            onnxruntime::ProviderOptions&) [ONNXRuntimeError] : 1 : FAIL : provider_options_utils.h:187 \
                            Parse Failed to parse provider option \"device_id\": ";
const CALL: &str = "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:122 std::conditional_t<THRW, void, \
                    onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, const char*, const char*, SUCCTYPE, const \
                    char*, const char*, int) [with ERRTYPE = cudaError; bool THRW = true; SUCCTYPE = cudaError; \
                    std::conditional_t<THRW, void, common::Status> = void] ";
const WHERE: &str =
    " ; GPU=-1 ; hostname=vm ; file=/onnxruntime_src/a.cc ; line=70 ; expr=cudaGetDeviceCount(&num_devices);";

fn needs(missing: &[&str]) -> Needs {
    Needs {
        library: "/d/libonnxruntime.so.1.31.1".to_owned(),
        cuda: Some(13),
        driver: Some("535.129.03".to_owned()),
        missing: missing.iter().map(|&name| name.to_owned()).collect(),
    }
}

#[test]
fn every_known_failure_is_explained_with_a_way_out() {
    let missing = ["libcublasLt.so.13", "libcublas.so.13", "libcudnn.so.9"];
    for (message, missing, reason, hint) in [
        (
            format!("{PROVIDER}libcublasLt.so.13: cannot open shared object file: No such file or directory"),
            &missing[..],
            "`libcublasLt.so.13`, `libcublas.so.13`, `libcudnn.so.9` are not found",
            "needs CUDA 13 and cuDNN 9: `lastlayer runtime install --cuda`",
        ),
        (
            format!("{PROVIDER}libcudnn_adv.so.9: cannot open shared object file: No such file or directory"),
            &[],
            "`libcudnn_adv.so.9` is not found",
            "`lastlayer runtime install --cuda`",
        ),
        (
            format!("{PROVIDER}/d/capi/libonnxruntime_providers_shared.so: cannot open shared object file: No such file"),
            &[],
            "`libonnxruntime_providers_shared.so` is not found",
            "`lastlayer runtime install --cuda`",
        ),
        (
            r#"E:\_work\1\s\onnxruntime\core\session\provider_bridge_ort.cc:1962 onnxruntime::ProviderLibrary::Get
               [ONNXRuntimeError] : 1 : FAIL : Error loading "E:\site-packages\onnxruntime\capi\onnxruntime_providers_cuda.dll"
               which depends on "cudnn64_9.dll" which is missing. (Error 126: "")"#
                .to_owned(),
            &[],
            "`cudnn64_9.dll` is not found",
            "`lastlayer runtime install --cuda`",
        ),
        // cuDNN is looked for in the first run only: whatever is said then, its absence is the cause.
        (
            "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Conv node.".to_owned(),
            &missing[2..],
            "`libcudnn.so.9` is not found",
            "cuDNN 9",
        ),
        (
            format!("{PROVIDER}/d/capi/libonnxruntime_providers_cuda.so: undefined symbol: cuTensorMapEncodeTiled"),
            &[],
            "the NVIDIA driver 535.129.03 is too old for CUDA 13 and cuDNN 9",
            "580 or newer",
        ),
        (
            format!(
                "{DEVICE_COUNT}CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version{WHERE}"
            ),
            &[],
            "the NVIDIA driver 535.129.03 is too old for CUDA 13 and cuDNN 9",
            "580 or newer",
        ),
        (
            format!("{DEVICE_COUNT}CUDA failure 36: API call is not supported in the installed CUDA driver{WHERE}"),
            &[],
            "is too old for CUDA 13",
            "`--ort-lib`",
        ),
        (
            format!("{CALL}{CALL}CUDA failure 100: no CUDA-capable device is detected{WHERE}"),
            &[],
            "the NVIDIA driver finds no GPU",
            "`--gpus all`",
        ),
        (
            format!("{CALL}{CALL}CUDA failure 101: invalid device ordinal{WHERE}"),
            &[],
            "there is no such GPU",
            "`nvidia-smi -L`",
        ),
        (
            format!(
                "{DEVICE_COUNT}/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc:72 \
                 onnxruntime::CUDAExecutionProviderInfo::FromProviderOptions(const onnxruntime::ProviderOptions&)\
                 ::<lambda(const string&)> 0 <= info.device_id && info.device_id < num_devices was false. Invalid device ID: \
                 7, must be between 0 (inclusive) and 2 (exclusive)."
            ),
            &[],
            "there is no such GPU; they are `cuda:0` to `cuda:1`",
            "`nvidia-smi -L`",
        ),
        (
            format!("{CALL}CUDA failure 209: no kernel image is available for execution on the device{WHERE}"),
            &[],
            "the GPU is too old",
            "compute capability 7.5",
        ),
        (
            "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 void* \
             onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*) Failed to allocate memory for \
             requested buffer of size 1073741824"
                .to_owned(),
            &[],
            "too little free memory (Failed to allocate memory for requested buffer of size 1073741824)",
            "`--batch-size`",
        ),
        (
            format!("{CALL}CUDA failure 803: system has unsupported display driver / cuda driver combination{WHERE}"),
            &[],
            "do not fit together",
            "restart",
        ),
        (
            "CUDA execution provider is not enabled in this build. ".to_owned(),
            &missing,
            "the ONNX Runtime library `/d/libonnxruntime.so.1.31.1` is built without CUDA",
            "`lastlayer runtime install --cuda`",
        ),
        (
            format!("{CALL}CUDA failure 719: unspecified launch failure{WHERE}"),
            &[],
            "CUDA failure 719: unspecified launch failure",
            "`lastlayer doctor`",
        ),
    ] {
        let unusable = Unusable::explain(&message, &needs(missing));
        assert!(unusable.reason.contains(reason), "{}\nwanted: {reason}", unusable.reason);
        assert!(unusable.hint.contains(hint), "{}: {}", unusable.reason, unusable.hint);
        for noise in ["onnxruntime_src", "[ONNXRuntimeError]", "hostname", "\n"] {
            assert!(!unusable.reason.contains(noise), "{}", unusable.reason);
        }
        let has_other_gpu = unusable.reason.contains("no such GPU");
        assert!(has_other_gpu || unusable.hint.contains("`--device cpu` always works"), "{}", unusable.hint);
    }
}

#[test]
fn without_a_driver_the_way_out_is_a_driver_or_the_cpu() {
    let unusable = Unusable::without_driver("no NVIDIA driver (libcuda.so.1) is installed");
    assert!(unusable.reason.contains("libcuda.so.1"));
    assert!(unusable.hint.contains("`--device cpu`"), "{}", unusable.hint);
}
