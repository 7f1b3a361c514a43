//! The order of the places, with made folders and a loader that only looks at paths.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::ErrorKind;

struct Folders {
    root: tempfile::TempDir,
    options: RuntimeOptions,
}

impl Folders {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let options = RuntimeOptions {
            data_dir: root.path().join("data"),
            ..RuntimeOptions::default()
        };
        Self { root, options }
    }

    fn search(&self) -> Search<'_> {
        Search {
            options: &self.options,
            executable_folder: Some(self.root.path().join("bin")),
            pythons: &[&["no-such-python"]],
            system_names: &["system-library"],
            has_driver: || true,
        }
    }

    /// Makes an empty library in `folder` and returns its path.
    fn library(&self, folder: &str) -> PathBuf {
        let folder = self.root.path().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(LIBRARY_NAME);
        std::fs::write(&path, b"").unwrap();
        path
    }
}

/// Every path is offered to a loader that refuses all: that is the order.
fn offered(search: &Search<'_>) -> (Vec<PathBuf>, Vec<Attempt>) {
    let (mut offered, mut attempts) = (Vec::new(), Vec::new());
    let found = search
        .run::<()>(&mut attempts, &mut |path| {
            offered.push(path.to_path_buf());
            Err("refused".into())
        })
        .unwrap();
    assert!(found.is_none());
    (offered, attempts)
}

#[test]
fn places_are_tried_in_order_and_each_refusal_is_kept() {
    let folders = Folders::new();
    let data = folders.library(&format!("data/onnxruntime/{VERSION}"));
    let beside = folders.library("bin/lib");
    let (offered, attempts) = offered(&folders.search());
    assert_eq!(offered, [beside.clone(), data.clone(), PathBuf::from("system-library")]);
    let places: Vec<_> = attempts.iter().map(|attempt| attempt.place).collect();
    use Place::{BesideExecutable, DataFolder, Python, System};
    assert_eq!(places, [BesideExecutable, BesideExecutable, DataFolder, Python, System]);
    assert_eq!(attempts[0].reason, "no library there");
    assert_eq!(attempts[1], Attempt::new(BesideExecutable, Some(&beside), "refused"));
    assert_eq!(attempts[2], Attempt::new(DataFolder, Some(&data), "refused"));
    assert!(
        attempts[3].reason.starts_with("`no-such-python`: "),
        "{}",
        attempts[3].reason
    );
}

#[test]
fn the_first_that_loads_is_taken_and_python_is_not_asked() {
    let folders = Folders::new();
    let data = folders.library(&format!("data/onnxruntime/{VERSION}"));
    let mut attempts = Vec::new();
    let (place, path, ()) = folders.search().run(&mut attempts, &mut |_| Ok(())).unwrap().unwrap();
    assert_eq!((place, path), (Place::DataFolder, data));
    assert!(
        attempts.iter().all(|attempt| attempt.place == Place::BesideExecutable),
        "{attempts:?}"
    );
}

/// A Python that answers with one folder.
#[cfg(unix)]
#[test]
fn with_a_driver_a_library_with_cuda_goes_first_where_that_is_preferred() {
    let folders = Folders::new();
    let data = folders.library(&format!("data/onnxruntime/{VERSION}"));
    let gpu = folders.library("site/onnxruntime/capi");
    std::fs::write(gpu.with_file_name("libonnxruntime_providers_cuda.so"), b"").unwrap();
    let script = format!("echo '{}'", gpu.parent().unwrap().display());
    let python = ["sh", "-c", script.as_str()];
    let pythons = [&python[..]];
    let order = |options: &RuntimeOptions, has_driver| {
        let mut search = folders.search();
        (search.options, search.pythons, search.has_driver) = (options, &pythons, has_driver);
        offered(&search).0
    };
    let system = PathBuf::from("system-library");
    let usual = [data.clone(), gpu.clone(), system.clone()];
    assert_eq!(order(&folders.options, || true), usual);
    let prefer = RuntimeOptions {
        prefer_cuda: true,
        ..folders.options.clone()
    };
    assert_eq!(order(&prefer, || false), usual);
    // Each is offered once.
    assert_eq!(order(&prefer, || true), [gpu, data, system]);
}

#[test]
fn what_the_user_named_is_tried_alone_and_the_option_goes_before_the_variable() {
    let mut folders = Folders::new();
    folders.library("bin");
    let (option, variable) = (folders.library("a"), folders.library("b"));
    folders.options.library = Some(option.clone());
    folders.options.env_library = Some(variable.clone());
    let mut attempts = Vec::new();
    let (place, path, ()) = folders.search().run(&mut attempts, &mut |_| Ok(())).unwrap().unwrap();
    assert_eq!((place, path), (Place::Option, option));

    folders.options.library = None;
    let error = folders
        .search()
        .run::<()>(&mut attempts, &mut |_| Err("too old".into()))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    let text = error.to_string();
    assert!(text.contains(&format!("{}", variable.display())), "{text}");
    assert!(text.contains("`ORT_DYLIB_PATH`") && text.ends_with("too old"), "{text}");
    assert!(attempts.is_empty());
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let mut folders = Folders::new();
    folders.options.env_library = Some(PathBuf::new());
    assert_eq!(offered(&folders.search()).0, [PathBuf::from("system-library")]);
}

#[test]
fn a_named_folder_means_the_library_in_it_and_a_bare_name_the_systems() {
    let folders = Folders::new();
    let path = folders.library("somewhere");
    assert_eq!(named_library(path.parent().unwrap()), path);
    assert_eq!(named_library(Path::new("libno-such.so")), Path::new("libno-such.so"));
    let relative = named_library(Path::new("no-such-folder/lib.so"));
    assert!(relative.is_absolute(), "{relative:?}");
}

#[cfg(all(unix, not(target_vendor = "apple")))]
#[test]
fn the_newest_library_of_a_folder_is_taken_and_providers_are_none() {
    assert_eq!(library_version("libonnxruntime.so.1.32.0"), Some(vec![1, 32, 0]));
    assert_eq!(library_version("libonnxruntime_providers_shared.so"), None);
    assert_eq!(library_version("libonnxruntime.so.bak"), None);
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "libonnxruntime.so.1.9.0",
        "libonnxruntime.so.1.32.0",
        "libonnxruntime_providers_shared.so",
    ] {
        std::fs::write(folder.path().join(name), b"").unwrap();
    }
    assert_eq!(
        library_in(folder.path()),
        Some(folder.path().join("libonnxruntime.so.1.32.0"))
    );
}

#[cfg(unix)]
#[test]
#[expect(clippy::print_stderr, reason = "says why nothing was tested")]
fn an_installed_python_package_is_found_without_importing_it() {
    if pip::run_limited(
        std::process::Command::new("python3").arg("-V"),
        PYTHON_LIMIT,
        &mut || false,
    )
    .is_err()
    {
        eprintln!("skipped: python3 is absent");
        return;
    }
    let folders = Folders::new();
    let library = folders.library("site/onnxruntime/capi");
    // Importing it would fail.
    std::fs::write(
        folders.root.path().join("site/onnxruntime/__init__.py"),
        "raise SystemExit(3)",
    )
    .unwrap();
    let path = format!("PYTHONPATH={}", folders.root.path().join("site").display());
    let python = ["env", path.as_str(), "python3"];
    let mut search = folders.search();
    let pythons = [&python[..]];
    search.pythons = &pythons;
    let mut attempts = Vec::new();
    let (place, path, ()) = search.run(&mut attempts, &mut |_| Ok(())).unwrap().unwrap();
    assert_eq!((place, path), (Place::Python, library));
}
