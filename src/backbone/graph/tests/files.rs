//! What is no ONNX, weights in other files, and hostile bytes.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;

use super::make::{bytes, classifier, graph};
use super::{FeatureModel, error_text};
use crate::backbone::graph::{ExternalDataProblem, NotOnnx};
use crate::backbone::onnx::tensor_proto::DataLocation;
use crate::backbone::onnx::{ModelProto, StringStringEntryProto};
use crate::error::Error;

fn load(bytes: impl Into<Bytes>) -> Result<FeatureModel, Error> {
    FeatureModel::from_bytes(bytes.into(), Path::new("folder/made.onnx"), None)
}

#[test]
fn other_files_are_recognised() {
    let said = |bytes: &'static [u8]| {
        let error = load(bytes).unwrap_err();
        assert!(matches!(error, Error::NotOnnx { .. }), "{error}");
        format!("{error} | {}", error.hint().unwrap())
    };
    for (bytes, word) in [
        (b"".as_slice(), "empty"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 46820737\n",
            "git lfs pull",
        ),
        (b"PK\x03\x04\x00\x00\x08\x08archive/data.pkl", "torch.onnx.export"),
        (b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46", "PyTorch"),
        (b" <!DOCTYPE html><html></html>", "web page"),
        (b"hello, this is a text", "text"),
        (b"\x89HDF\r\n\x1a\n", "Keras"),
        (b"\x1c\x00\x00\x00TFL3", "TensorFlow Lite"),
        (b"\x40\x00\x00\x00\x00\x00\x00\x00{\"fc\":", "safetensors"),
        (b"\x08\x08\x12\x04made", "no graph"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "damaged"),
    ] {
        let said = said(bytes);
        assert!(said.contains(word) && said.contains("made.onnx"), "{said}");
    }
}

#[test]
fn a_model_cut_short_is_damaged() {
    let whole = bytes(&classifier());
    for length in [whole.len() - 20, whole.len() / 2, 100] {
        let error = load(whole.slice(..length)).unwrap_err();
        assert!(
            matches!(
                error,
                Error::NotOnnx {
                    source: NotOnnx::Damaged(_),
                    ..
                }
            ),
            "{length}: {error}"
        );
    }
}

#[test]
fn unknown_fields_matter_only_in_a_newer_version() {
    let with_unknown = |ir_version| {
        let mut model = classifier();
        model.ir_version = Some(ir_version);
        // Field 999, a varint.
        Bytes::from([bytes(&model).as_ref(), b"\xb8\x3e\x01"].concat())
    };
    assert!(load(with_unknown(8)).is_ok());
    let error = load(with_unknown(99)).unwrap_err();
    assert!(
        matches!(
            error,
            Error::NotOnnx {
                source: NotOnnx::Newer(99),
                ..
            }
        ),
        "{error}"
    );
}

/// The classifier with its convolution's weight in `location`, and that weight's bytes.
fn external(location: &str, offset: &str, length: Option<&str>) -> (ModelProto, Bytes) {
    let mut model = classifier();
    let weight = &mut graph(&mut model).initializer[0];
    let data = weight.raw_data.take().unwrap();
    let entry = |key: &str, value: &str| StringStringEntryProto {
        key: Some(key.into()),
        value: Some(value.into()),
    };
    weight.external_data = vec![entry("location", location), entry("offset", offset)];
    weight
        .external_data
        .extend(length.map(|length| entry("length", length)));
    weight.data_location = Some(DataLocation::External as i32);
    (model, data)
}

#[test]
fn external_weights_are_brought_in() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made.onnx");
    for length in [Some("540"), None] {
        let (model, data) = external("weights.bin", "16", length);
        fs::write(&path, bytes(&model)).unwrap();
        fs::write(folder.path().join("weights.bin"), [&[7; 16], data.as_ref()].concat()).unwrap();
        let taken = FeatureModel::load(&path, None).unwrap();
        // The same model as the one that had its weights in it from the start.
        assert_eq!(taken.onnx, load(bytes(&classifier())).unwrap().onnx);
    }
}

#[test]
fn external_weights_are_part_of_a_backbones_identity() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let (model, data) = external("weights.bin", "16", None);
    fs::write(&path, bytes(&model)).unwrap();
    let identity = |last: u8| {
        let mut file = [&[0; 16], &data[..]].concat();
        *file.last_mut().unwrap() = last;
        fs::write(folder.path().join("weights.bin"), file).unwrap();
        crate::Backbone::open("model", &path, None).unwrap().blake3().to_owned()
    };
    let (first, other) = (identity(63), identity(64));
    assert_ne!(first, other, "the same ONNX file with other weights beside it");
    assert_eq!(identity(63), first);
}

#[test]
fn external_weights_that_are_not_there_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made.onnx");
    fs::write(folder.path().join("short.bin"), [0; 100]).unwrap();
    let problem = |location, offset, length| {
        fs::write(&path, bytes(&external(location, offset, length).0)).unwrap();
        let error = FeatureModel::load(&path, None).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("made.onnx") && text.contains("conv.weight") && text.contains(location),
            "{text}"
        );
        let Error::ExternalData { source, .. } = error else {
            panic!("{text}")
        };
        *source
    };
    assert!(matches!(problem("missing.bin", "0", None), ExternalDataProblem::Io(_)));
    assert!(matches!(
        problem("short.bin", "0", Some("540")),
        ExternalDataProblem::Range {
            end: 540,
            size: 100,
            ..
        }
    ));
    assert!(matches!(
        problem("short.bin", "18446744073709551615", Some("9")),
        ExternalDataProblem::Range { .. }
    ));
    assert!(matches!(
        problem("short.bin", "-1", None),
        ExternalDataProblem::Entry(_)
    ));
    for location in [
        "../short.bin",
        "a/../../short.bin",
        "..\\short.bin",
        "/etc/hostname",
        "C:\\short.bin",
        "\\\\host\\x",
    ] {
        assert!(
            matches!(problem(location, "0", None), ExternalDataProblem::Outside),
            "{location}"
        );
    }
    assert!(matches!(problem("", "0", None), ExternalDataProblem::Entry(_)));
}

#[test]
fn an_external_class_matrix_is_not_needed() {
    let mut model = external("missing.bin", "0", None).0;
    let inner = graph(&mut model);
    let (entries, data) = (
        std::mem::take(&mut inner.initializer[0].external_data),
        classifier().graph.unwrap(),
    );
    inner.initializer[0] = data.initializer[0].clone();
    inner.initializer[1].raw_data = None;
    inner.initializer[1].external_data = entries;
    inner.initializer[1].data_location = Some(DataLocation::External as i32);
    assert_eq!(load(bytes(&model)).unwrap().dim, Some(5));
}

#[test]
fn errors_name_the_file() {
    assert!(error_text(&classifier(), Some("nowhere")).contains("`made.onnx` computes no tensor named `nowhere`"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = load(bytes);
    }

    #[test]
    fn damaged_models_never_panic(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        end in any::<prop::sample::Index>(),
        whole in any::<bool>(),
        feature in proptest::option::of("(conv|relu|pooled|flat|logits)"),
    ) {
        let mut damaged = bytes(&classifier()).to_vec();
        for (at, byte) in flips {
            let at = at.index(damaged.len());
            damaged[at] = byte;
        }
        if !whole {
            damaged.truncate(end.index(damaged.len()));
        }
        let _ = FeatureModel::from_bytes(Bytes::from(damaged), Path::new("made.onnx"), feature.as_deref());
    }
}
