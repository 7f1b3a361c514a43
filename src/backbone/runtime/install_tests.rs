//! The installation with CUDA from made wheels, which a stand-in for Python's `pip` hands out.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::Write as _;

use super::*;
use crate::Quiet;
use crate::backbone::download::tests::sha256;

#[test]
fn the_pins_are_well_formed_and_cover_what_the_extras_require() {
    // `Requires-Dist` of onnxruntime-gpu 1.31.1 for the extras `cuda` and `cudnn`, and theirs in turn.
    let required = [
        "onnxruntime-gpu==1.",
        "nvidia-cuda-runtime==13.",
        "nvidia-cuda-nvrtc==13.",
        "nvidia-nvjitlink==13.",
        "nvidia-cublas==13.",
        "nvidia-cufft==12.",
        "nvidia-curand==10.",
        "nvidia-cudnn-cu13==9.",
    ];
    for build in &BUILDS {
        for (wheel, required) in build.wheels.iter().zip(required) {
            assert!(wheel.requirement.starts_with(required), "{}", wheel.requirement);
            assert!(wheel.sha256.len() == 64 && wheel.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()));
            assert_eq!(
                BUILDS[0]
                    .wheels
                    .iter()
                    .filter(|other| other.requirement == wheel.requirement)
                    .count(),
                1
            );
        }
        let processor = if build.system == "windows" {
            "win_amd64"
        } else {
            build.processor
        };
        assert!(
            build
                .wheels
                .iter()
                .all(|wheel| wheel.platform.unwrap().ends_with(processor))
        );
        assert!(build.download() > 1_000_000_000 && build.room() > build.download());
    }
    let mut hashes: Vec<_> = BUILDS
        .iter()
        .flat_map(|build| &build.wheels)
        .map(|wheel| wheel.sha256)
        .collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 24, "no pin is another's");
    assert_eq!(
        BUILDS[0].wheels[0].requirement,
        format!("onnxruntime-gpu=={CUDA_VERSION}")
    );
}

#[test]
fn of_a_wheel_the_libraries_and_licences_are_taken() {
    for (member, to) in [
        (
            "nvidia/cu13/lib/libcublas.so.13",
            Some("nvidia/cu13/lib/libcublas.so.13"),
        ),
        (
            "nvidia/cu13/bin/x86_64/cublas64_13.dll",
            Some("nvidia/cu13/bin/x86_64/cublas64_13.dll"),
        ),
        ("nvidia/cudnn/lib/libcudnn.so.9", Some("nvidia/cudnn/lib/libcudnn.so.9")),
        ("nvidia/cu13/include/cublas.h", None),
        ("nvidia/__init__.py", None),
        (
            "onnxruntime/capi/libonnxruntime_providers_shared.so",
            Some("onnxruntime/capi/libonnxruntime_providers_shared.so"),
        ),
        (
            "onnxruntime/capi/libonnxruntime_providers_cuda.so",
            Some("onnxruntime/capi/libonnxruntime_providers_cuda.so"),
        ),
        ("onnxruntime/capi/libonnxruntime_providers_tensorrt.so", None),
        ("onnxruntime/capi/onnxruntime_pybind11_state.so", None),
        ("onnxruntime/LICENSE", Some("licences/onnxruntime-LICENSE")),
        (
            "nvidia_cublas-13.10.0.20.dist-info/licenses/License.txt",
            Some("licences/nvidia_cublas-13.10.0.20-License.txt"),
        ),
        ("nvidia_cublas-13.10.0.20.dist-info/METADATA", None),
        ("../../etc/passwd", None),
    ] {
        assert_eq!(place(Path::new(member)).as_deref(), to.map(Path::new), "{member}");
    }
    let library = format!("onnxruntime/capi/{}", search::LIBRARY_NAME);
    assert_eq!(place(Path::new(&library)), Some(PathBuf::from(library)));
}

/// A wheel with these members.
fn wheel_file(path: &Path, members: &[&str]) -> String {
    let mut archive = zip::ZipWriter::new(File::create(path).unwrap());
    for member in members {
        archive
            .start_file(*member, zip::write::SimpleFileOptions::default())
            .unwrap();
        archive.write_all(member.as_bytes()).unwrap();
    }
    archive.finish().unwrap();
    sha256(&fs::read(path).unwrap())
}

/// A build of one ONNX Runtime, and six times the same small library, and cuDNN; served by a `pip` in `folder`.
#[cfg(unix)]
struct Stand {
    folder: tempfile::TempDir,
    python: &'static str,
    build: Build,
}

#[cfg(unix)]
impl Stand {
    fn new() -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        // Leaked, as pins are static: a few bytes a test.
        let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
        let folder = tempfile::tempdir().unwrap();
        let served = |package: &str| folder.path().join(format!("{package}-1-py3-none-any.whl"));
        let library = format!("onnxruntime/capi/{}", search::LIBRARY_NAME);
        let runtime = wheel_file(
            &served("onnxruntime-gpu"),
            &[
                &library,
                "onnxruntime/capi/libonnxruntime_providers_cuda.so",
                "onnxruntime/LICENSE",
            ],
        );
        let cublas = wheel_file(&served("nvidia-cublas"), &["nvidia/cu13/lib/libcublas.so.13"]);
        let cudnn = wheel_file(
            &served("nvidia-cudnn-cu13"),
            &["nvidia/cudnn/lib/libcudnn.so.9", "nvidia/cudnn/x.h"],
        );
        // `-m pip download NAME==VERSION … -d FOLDER`; it also notes who was asked for.
        let python = folder.path().join("python");
        let script = format!(
            "#!/bin/sh\nname=${{4%%==*}}\necho \"$name\" >> '{0}/asked'\nfor last; do :; done\n\
             cp '{0}'/$name-1-py3-none-any.whl \"$last\"\n",
            folder.path().display()
        );
        fs::write(&python, script).unwrap();
        fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
        let pin = |requirement, sha256: &str| wheel("a wheel", requirement, "any", 10, leak(sha256.to_owned()));
        let small = || pin("nvidia-cublas==1", &cublas);
        let build = Build {
            system: "any",
            processor: "any",
            wheels: [
                pin("onnxruntime-gpu==1", &runtime),
                small(),
                small(),
                small(),
                small(),
                small(),
                small(),
                pin("nvidia-cudnn-cu13==1", &cudnn),
            ],
            unpacked: 1000,
        };
        let python = leak(python.to_str().unwrap().to_owned());
        Self { folder, python, build }
    }

    fn install(&self) -> Result<InstalledRuntime> {
        install(&self.build, &[&[self.python]], &self.folder.path().join("data"), &Quiet)
    }

    /// All files under the data folder, but locks.
    fn files(&self) -> Vec<String> {
        let data = self.folder.path().join("data/onnxruntime");
        let mut found: Vec<String> = walkdir::WalkDir::new(&data)
            .into_iter()
            .flatten()
            .filter(|entry| entry.file_type().is_file() && !entry.path().to_string_lossy().ends_with(".lock"))
            .map(|entry| entry.path().strip_prefix(&data).unwrap().display().to_string())
            .collect();
        found.sort();
        found
    }
}

#[cfg(unix)]
#[test]
fn the_libraries_lie_where_they_are_looked_for_and_are_fetched_once() {
    let stand = Stand::new();
    let installed = stand.install().unwrap();
    let name = format!("{CUDA_VERSION}-cuda13");
    assert_eq!(
        stand.files(),
        [
            format!("{name}/licences/onnxruntime-LICENSE"),
            format!("{name}/nvidia/cu13/lib/libcublas.so.13"),
            format!("{name}/nvidia/cudnn/lib/libcudnn.so.9"),
            format!("{name}/onnxruntime/capi/{}", search::LIBRARY_NAME),
            format!("{name}/onnxruntime/capi/libonnxruntime_providers_cuda.so"),
        ]
    );
    assert!(installed.fetched && installed.library.ends_with(search::LIBRARY_NAME));
    // What a session loads before the library.
    let status = crate::CudaStatus::of(&installed.library, CUDA_VERSION);
    assert!(status.provider.is_some());
    let cublas = status
        .libraries
        .iter()
        .find(|library| library.name == "libcublas.so.13")
        .unwrap();
    assert!(
        cublas
            .path
            .as_ref()
            .unwrap()
            .ends_with("nvidia/cu13/lib/libcublas.so.13")
    );
    // And a search with a driver finds it before the one for the CPU.
    let data_dir = stand.folder.path().join("data");
    let options = super::super::RuntimeOptions {
        data_dir: data_dir.clone(),
        prefer_cuda: true,
        ..super::super::RuntimeOptions::default()
    };
    let cpu = search::data_folder(&data_dir);
    fs::create_dir_all(&cpu).unwrap();
    fs::write(cpu.join(search::LIBRARY_NAME), b"").unwrap();
    let first = search::first_offered(&options, true);
    assert_eq!(first, Some(installed.library.clone()));
    assert_eq!(
        search::first_offered(&options, false),
        Some(cpu.join(search::LIBRARY_NAME))
    );

    let asked = fs::read_to_string(stand.folder.path().join("asked")).unwrap();
    assert_eq!(asked.lines().count(), 8);
    assert!(!stand.install().unwrap().fetched);
    assert_eq!(fs::read_to_string(stand.folder.path().join("asked")).unwrap(), asked);
}

#[cfg(unix)]
#[test]
fn a_wheel_that_is_not_the_pinned_one_leaves_nothing_behind() {
    let mut stand = Stand::new();
    stand.build.wheels[7].sha256 = "00";
    let error = stand.install().unwrap_err().to_string();
    assert!(error.contains("sha256 of the wheel is "), "{error}");
    assert!(stand.files().is_empty(), "{:?}", stand.files());
    // A later run begins anew.
    stand.build.wheels[7].sha256 = Stand::new().build.wheels[7].sha256;
    assert!(stand.install().unwrap().fetched);
}

#[cfg(unix)]
#[test]
fn without_room_nothing_is_fetched() {
    let mut stand = Stand::new();
    stand.build.unpacked = 1 << 60;
    let error = stand.install().unwrap_err();
    assert!(matches!(error, Error::DiskSpace { .. }), "{error}");
    assert!(error.to_string().contains("GB are needed"), "{error}");
    assert!(error.hint().unwrap().contains("LASTLAYER_DATA_DIR"));
    assert!(!stand.folder.path().join("asked").exists());
}
