//! ONNX Runtime's messages about CUDA as a reason and an advice.

use super::needs::Needs;

/// Why CUDA can't be used, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unusable {
    /// In one line.
    pub(crate) reason: String,
    pub(crate) hint: String,
}

/// Brings about what most of the advices come to.
const INSTALL: &str = "`lastlayer runtime install --cuda`";
const CPU: &str = "`--device cpu` always works";

/// CUDA's own numbers of its errors (`cudaError_t`).
const OUT_OF_MEMORY: u32 = 2;
const DRIVER_TOO_OLD: [u32; 2] = [35, 36];
const NO_DEVICE: u32 = 100;
const NO_SUCH_DEVICE: u32 = 101;
const NO_KERNEL_IMAGE: u32 = 209;
const DRIVER_MISMATCH: [u32; 2] = [803, 804];

impl Unusable {
    /// There is no driver: `reason` says which file is missing.
    pub(crate) fn without_driver(reason: &str) -> Self {
        let hint = if super::DRIVER.is_none() {
            CPU.to_owned()
        } else {
            format!("install NVIDIA's driver; in a container, start it with the GPUs (`--gpus all`); {CPU}")
        };
        Self {
            reason: reason.to_owned(),
            hint,
        }
    }

    /// The library was built without CUDA.
    pub(super) fn without_provider(library: &str) -> Self {
        Self {
            reason: format!("the ONNX Runtime library `{library}` is built without CUDA"),
            hint: format!(
                "{INSTALL} fetches one that has it, `pip install \"onnxruntime-gpu[cuda,cudnn]\"` too; or name one with \
                 `--ort-lib`; {CPU}"
            ),
        }
    }

    /// What ONNX Runtime's `message` means for someone whose library `needs` these.
    pub(crate) fn explain(message: &str, needs: &Needs) -> Self {
        let plain = plain_reason(message);
        let (versions, driver) = (needs.versions(), needs.oldest_driver());
        if plain.contains("is not enabled in this build") {
            return Self::without_provider(&needs.library);
        }
        let code = failure_code(&plain);
        let is = |known: &[u32]| code.is_some_and(|code| known.contains(&code));
        // An old driver's library lacks functions that the provider is linked against.
        if is(&DRIVER_TOO_OLD) || plain.contains("undefined symbol: cu") {
            let installed = needs
                .driver
                .as_ref()
                .map_or(String::new(), |version| format!(" {version}"));
            return Self {
                reason: format!("the NVIDIA driver{installed} is too old for {versions}"),
                hint: format!(
                    "update the driver to {driver} or newer, or name an ONNX Runtime for an older CUDA with `--ort-lib`; {CPU}"
                ),
            };
        }
        if is(&[NO_DEVICE]) {
            return Self {
                reason: "the NVIDIA driver finds no GPU".to_owned(),
                hint: format!(
                    "`nvidia-smi` must list one; in a container, start it with the GPUs (`--gpus all`), and see that \
                     CUDA_VISIBLE_DEVICES does not hide them; {CPU}"
                ),
            };
        }
        let there = devices_there(&plain);
        if is(&[NO_SUCH_DEVICE]) || there.is_some() {
            let numbers = match there {
                Some(1) => "; the only one is `cuda:0`".to_owned(),
                Some(count) if count > 1 => format!("; they are `cuda:0` to `cuda:{}`", count - 1),
                _ => String::new(),
            };
            return Self {
                reason: format!("there is no such GPU{numbers}"),
                hint: "`nvidia-smi -L` lists them; CUDA_VISIBLE_DEVICES may hide some".to_owned(),
            };
        }
        if is(&[NO_KERNEL_IMAGE]) || plain.contains("no kernel image is available") {
            return Self {
                reason: format!("this ONNX Runtime, for {versions}, has no code for this GPU: the GPU is too old"),
                hint: format!(
                    "name an ONNX Runtime for an older CUDA with `--ort-lib` (CUDA 13 is for compute capability 7.5 and newer); \
                     {CPU}"
                ),
            };
        }
        let lacks_memory = ["out of memory", "Failed to allocate memory", "ALLOC_FAILED"];
        if is(&[OUT_OF_MEMORY]) || lacks_memory.iter().any(|text| plain.contains(text)) {
            return Self {
                reason: format!("the GPU has too little free memory ({plain})"),
                hint: format!("close other programs on it (`nvidia-smi` lists them), or lower `--batch-size`; {CPU}"),
            };
        }
        if is(&DRIVER_MISMATCH) {
            return Self {
                reason: format!("the parts of the NVIDIA driver do not fit together ({plain})"),
                hint: format!("restart the computer after an update of the driver, or install it anew; {CPU}"),
            };
        }
        let mut missing = needs.missing.clone();
        if let Some(named) = missing_library(&plain).filter(|named| !missing.contains(named)) {
            missing.insert(0, named);
        }
        if let Some(first) = missing.first() {
            return Self {
                reason: match missing.len() {
                    1 => format!("`{first}` is not found"),
                    _ => format!("`{}` are not found", missing.join("`, `")),
                },
                hint: format!(
                    "this ONNX Runtime, `{}`, needs {versions}: {INSTALL} fetches a matching set, \
                     `pip install \"onnxruntime-gpu[cuda,cudnn]\"` too; {CPU}",
                    needs.library
                ),
            };
        }
        Self {
            reason: plain,
            hint: format!(
                "this ONNX Runtime, `{}`, needs {versions} and NVIDIA's driver {driver} or newer: {INSTALL} fetches a matching \
                 set, `lastlayer doctor` says what is found; {CPU}",
                needs.library
            ),
        }
    }
}

/// The number in `CUDA failure 35: …`.
fn failure_code(message: &str) -> Option<u32> {
    let (_, rest) = message.split_once("CUDA failure ")?;
    rest.split(|character: char| !character.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

/// How many GPUs there are, where a number was asked for that is none of theirs.
fn devices_there(message: &str) -> Option<u32> {
    let (_, rest) = message.split_once("Invalid device ID: ")?;
    let (_, count) = rest.split_once("(inclusive) and ")?;
    count.split(' ').next()?.parse().ok()
}

/// The library that the loader did not find.
fn missing_library(message: &str) -> Option<String> {
    let (_, error) = message.split_once(" with error: ").unwrap_or(("", message));
    let name = match error.split_once(": cannot open shared object file") {
        Some((name, _)) => name,
        // Windows: `Error loading "a.dll" which depends on "b.dll" which is missing.`
        None => message.split_once("\" which is missing")?.0.rsplit_once('"')?.1,
    };
    let name = name.rsplit(['/', '\\']).next()?.trim();
    (!name.is_empty() && !name.contains(' ')).then(|| name.to_owned())
}

/// ONNX Runtime's message in one line, without its source files, function signatures and status codes.
pub(crate) fn plain_reason(message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut reason = line.as_str();
    // `[ONNXRuntimeError] : 1 : FAIL : what happened`, perhaps with another such message in it: the last is the cause.
    if let Some((_, status)) = reason.rsplit_once("[ONNXRuntimeError] : ") {
        reason = status.splitn(3, " : ").nth(2).unwrap_or(status);
    }
    if let Some((_, cause)) = reason.rsplit_once("FAIL : ") {
        reason = cause;
    }
    for label in ["Status Message: ", "provider option \"device_id\": "] {
        if let Some((_, cause)) = reason.rsplit_once(label) {
            reason = cause;
        }
    }
    // Behind a CUDA call that failed: the device, the host's name, and the place in the source again.
    if let Some((cause, _)) = reason.split_once(" ; GPU=") {
        reason = cause;
    }
    let reason = without_source(reason).trim_end_matches([' ', ';']);
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
#[path = "reason_tests.rs"]
mod tests;
