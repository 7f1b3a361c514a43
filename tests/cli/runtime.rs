//! `runtime install`: what it refuses before it fetches anything. Fetching itself is tested with made wheels.

use crate::common::{Run, Scene};

#[test]
fn offline_nothing_is_installed() {
    let scene = Scene::new();
    for arguments in [
        &["runtime", "install", "--offline"][..],
        &["runtime", "install", "--cuda", "--offline"],
    ] {
        scene.run(arguments.iter().copied()).error(2, &["`--offline` forbids"]);
    }
    scene.run(["runtime", "install", "--force"]).code(2).says(&["--cuda"]);
}

#[cfg(target_os = "linux")]
#[test]
fn without_a_driver_the_large_download_does_not_begin() {
    use std::os::unix::fs::PermissionsExt as _;
    if lastlayer::CudaStatus::driver().is_ok() {
        eprintln!("skipped: there is an NVIDIA driver");
        return;
    }
    let scene = Scene::new();
    std::fs::create_dir(scene.path("bin")).unwrap();
    // Whoever is asked to fetch leaves a trace.
    scene.write(
        "bin/python3",
        format!("#!/bin/sh\n: > '{}'\nexit 1\n", scene.path("asked").display()).as_bytes(),
    );
    std::fs::set_permissions(scene.path("bin/python3"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let install = |force: bool| {
        let arguments = ["runtime", "install", "--cuda"]
            .into_iter()
            .chain(force.then_some("--force"));
        let mut command = scene.command(arguments);
        command
            .env("LASTLAYER_DATA_DIR", scene.path("data"))
            .env("PATH", scene.path("bin"));
        Run::of(command.output().unwrap())
    };
    install(false).error(1, &["cannot use device `cuda`", "libcuda.so.1", "`--force`"]);
    assert!(!scene.path("asked").exists());
    if !cfg!(target_env = "musl") {
        let run = install(true).code(1);
        if run.stderr.contains("GB are needed") {
            eprintln!("skipped: this disk has too little room");
            return;
        }
        assert!(scene.path("asked").exists(), "{}", run.stderr);
        assert!(
            run.stderr.contains("cannot fetch ONNX Runtime for CUDA"),
            "{}",
            run.stderr
        );
    }
}

#[test]
fn the_library_that_is_there_is_not_fetched_again() {
    let scene = Scene::new();
    // As it is found or fetched for all tests.
    scene.run(["doctor", "--fetch"]).code(0);
    let doctor = scene.run(["doctor", "--json"]).code(0).json();
    let path = doctor["runtime"]["path"].as_str().unwrap();
    let folder = doctor["data_folder"].as_str().unwrap();
    if !std::path::Path::new(path).starts_with(folder) {
        eprintln!("skipped: ONNX Runtime is not in the data folder");
        return;
    }
    let report = scene.run(["runtime", "install", "--json"]).code(0).json();
    assert_eq!((&report["fetched"], &report["cuda"]), (&false.into(), &false.into()));
    assert_eq!(report["library"], path);
}
