//! Unpacking and the release archive, against made archives and a server in the test.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::Write as _;

use super::search::LIBRARY_NAME;
use super::*;
use crate::Quiet;
use crate::backbone::download::tests::{Answer, Server, quick, sha256};

fn tgz() -> Vec<u8> {
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, format!("onnxruntime-x-{VERSION}/{name}"), bytes)
            .unwrap();
    };
    add(&format!("lib/{LIBRARY_NAME}"), b"library");
    add("lib/libonnxruntime_providers_shared.so", b"shared");
    add("include/onnxruntime_c_api.h", b"header");
    add("LICENSE", b"licence");
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    archive
        .append_link(
            &mut link,
            format!("onnxruntime-x-{VERSION}/lib/libonnxruntime.so.1"),
            "/etc/passwd",
        )
        .unwrap();
    archive.into_inner().unwrap().finish().unwrap()
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_pins_are_well_formed_and_this_computer_has_one() {
    for build in &BUILDS {
        assert!(build.sha256.len() == 64 && build.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert!(build.archive.contains(VERSION) && build.size > 10_000_000);
    }
    assert_eq!(REQUIREMENT, format!("onnxruntime=={VERSION}"));
    assert!(WHAT.ends_with(VERSION));
    if cfg!(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")) {
        assert_eq!(build_for_this_computer().unwrap().tag, "manylinux_2_28_x86_64");
    }
}

#[test]
fn a_zip_gives_its_library_and_nothing_from_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.whl");
    let mut archive = zip::ZipWriter::new(File::create(&path).unwrap());
    let options = zip::write::SimpleFileOptions::default();
    for name in [
        format!("onnxruntime/capi/{LIBRARY_NAME}"),
        "onnxruntime/capi/onnxruntime_pybind11_state.so".to_owned(),
        format!("../../lib/{LIBRARY_NAME}.1"),
        "onnxruntime/LICENSE".to_owned(),
    ] {
        archive.start_file(name, options).unwrap();
        archive.write_all(b"library").unwrap();
    }
    archive.finish().unwrap();
    let into = folder.path().join("into");
    unpack(&path, &into).unwrap();
    assert_eq!(files(&into), ["LICENSE", LIBRARY_NAME]);
}

#[test]
fn an_archive_without_a_library_or_cut_short_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.whl");
    let mut archive = zip::ZipWriter::new(File::create(&path).unwrap());
    archive
        .start_file("LICENSE", zip::write::SimpleFileOptions::default())
        .unwrap();
    archive.finish().unwrap();
    let error = unpack(&path, &folder.path().join("into")).unwrap_err().to_string();
    assert!(
        error.contains("a.whl") && error.contains("no ONNX Runtime library"),
        "{error}"
    );
    let path = folder.path().join("a.tgz");
    let bytes = tgz();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(unpack(&path, &folder.path().join("other")).is_err());
}

/// A server of one release whose archive has the digest `digest`.
fn releases(archive: &'static str, digest: Option<String>) -> Releases {
    let bytes = tgz();
    let page = serde_json::json!({
        "tag_name": format!("v{VERSION}"),
        "assets": [{ "name": "other", "digest": null }, { "name": archive, "size": bytes.len(), "digest": digest }],
    });
    let server = Server::new(move |path, _| {
        if path == format!("/repos/microsoft/onnxruntime/releases/tags/v{VERSION}") {
            Answer::Serve(page.to_string().into_bytes(), false)
        } else if path == format!("/microsoft/onnxruntime/releases/download/v{VERSION}/{archive}") {
            Answer::Serve(bytes.clone(), true)
        } else {
            Answer::Status(404)
        }
    });
    Releases {
        api: server.address.clone(),
        files: server.address.clone(),
        limits: quick(),
    }
}

#[test]
fn a_release_archive_is_verified_by_the_releases_digest_and_unpacked() {
    let folder = tempfile::tempdir().unwrap();
    let build = &BUILDS[0];
    let releases = releases(build.archive, Some(format!("sha256:{}", sha256(&tgz()))));
    let path = releases.archive(build, folder.path(), &Quiet).unwrap();
    let into = folder.path().join("into");
    unpack(&path, &into).unwrap();
    assert_eq!(
        files(&into),
        ["LICENSE", LIBRARY_NAME, "libonnxruntime_providers_shared.so"]
    );
    assert_eq!(fs::read(into.join(LIBRARY_NAME)).unwrap(), b"library");
}

#[test]
fn a_release_without_the_archive_or_its_right_digest_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let build = &BUILDS[0];
    let wrong = format!("sha256:{}", "0".repeat(64));
    for (releases, reason) in [
        (
            releases("something-else.tgz", None),
            "the release has no `onnxruntime-linux-x64-1.32.0.tgz`",
        ),
        (releases(build.archive, None), "the release tells no sha256"),
        (releases(build.archive, Some(wrong)), "sha256 is "),
    ] {
        let error = releases.archive(build, folder.path(), &Quiet).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn a_limit_on_requests_is_called_one() {
    let folder = tempfile::tempdir().unwrap();
    for status in [403, 429] {
        let server = Server::new(move |_, _| Answer::Status(status));
        let releases = Releases {
            api: server.address.clone(),
            files: server.address.clone(),
            limits: quick(),
        };
        let error = releases
            .archive(&BUILDS[0], folder.path(), &Quiet)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&format!("HTTP {status}: the server limits how many")),
            "{error}"
        );
    }
}

#[test]
fn a_folder_that_does_not_load_is_replaced_in_one_step() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join(LIBRARY_NAME), bytes).unwrap();
        path
    };
    let (staging, destination) = (make("staging", b""), folder.path().join(VERSION));
    let path = put_in_place(&make("new", b"new"), &destination, &staging).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    let path = put_in_place(&make("newer", b"newer"), &destination, &staging).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"newer");
}
