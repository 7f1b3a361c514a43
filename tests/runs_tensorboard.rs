//! The event files of runs, read by a parser that shares nothing with the writer, and by TensorBoard itself where the
//! environment variable `LASTLAYER_TENSORBOARD_PYTHON` names a Python that has it.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lastlayer::{
    DataFingerprint, Descent, Examples, FeatureSpace, HeadFile, HeadMeta, Quiet, Recipe, RowKey, RunConfig, RunDataset,
    RunFeatures, RunInputs, RunWriter, Split, Training, TrainingTask,
};
use ndarray::array;
use serde_json::json;

/// A training of four epochs, with what its run needs.
struct Made {
    recipe: Recipe,
    training: Training,
}

impl Made {
    fn new(validated: bool) -> Self {
        let recipe = Recipe::from(Descent {
            epochs: 4,
            learning_rate: 0.1,
            ..Descent::sgd()
        });
        let (train, val) = (array![[0.0_f32, 1.0], [0.2, 0.9], [1.0, 0.0]], array![[0.8_f32, 0.1]]);
        let mut task = TrainingTask::new(2, Examples::new(train.view(), &[0, 0, 1]).unwrap()).unwrap();
        if validated {
            task = task.with_validation(Examples::new(val.view(), &[1]).unwrap()).unwrap();
        }
        let valid = recipe.clone().check().unwrap();
        let training = valid.train(&task, &Quiet, &mut |_| ()).unwrap();
        Self { recipe, training }
    }

    /// Keeps it as a run, and returns its folder.
    fn keep(&self, root: &Path, name: &str) -> PathBuf {
        let classes = ["ant".to_owned(), "bee".to_owned()];
        let data = DataFingerprint::of(&classes, [(RowKey::plain([1; 32]), 0, Split::Train)]);
        let space = FeatureSpace::from_json("{}".to_owned());
        let config = RunConfig {
            dataset: RunDataset {
                named: "pictures".into(),
                absolute: "/pictures".into(),
            },
            features: RunFeatures {
                space: space.id().to_string(),
                ..RunFeatures::default()
            },
            recipe: self.recipe.clone(),
            sweep: None,
            folds: None,
            lastlayer_version: "0.1.0".to_owned(),
            command_line: Vec::new(),
        };
        let inputs = RunInputs {
            config: &config,
            data: &data,
            space: &space,
        };
        let head = HeadFile {
            head: self.training.head.clone(),
            meta: HeadMeta {
                classes: classes.to_vec(),
                backbone: "made".to_owned(),
                backbone_file: PathBuf::new(),
                backbone_blake3: "00".repeat(32),
                feature_tensor: "features".to_owned(),
                space_id: space.id().to_string(),
                space: space.json().to_owned(),
                options: json!({}),
                metrics: json!({}),
                temperature: 1.0,
                pictures: None,
                lastlayer_version: "0.1.0".to_owned(),
            },
        };
        let writer = RunWriter::create(root, name, &inputs).unwrap();
        writer.finish(&self.training, &json!({}), &head).unwrap()
    }
}

/// CRC-32C bit by bit, as the polynomial says.
fn crc_32c(data: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
        }
    }
    !crc
}

#[expect(clippy::manual_rotate, reason = "as the format's description has it")]
fn masked(data: &[u8]) -> u32 {
    let crc = crc_32c(data);
    ((crc >> 15) | (crc << 17)).wrapping_add(0xa282_ead8)
}

/// A field of a protobuf message.
#[derive(Debug, Clone, PartialEq)]
enum Field {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    Bytes(Vec<u8>),
}

fn varint(data: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (byte, rest) = data.split_first().unwrap();
        *data = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
    }
    unreachable!()
}

fn take<const N: usize>(data: &mut &[u8]) -> [u8; N] {
    let (head, rest) = data.split_first_chunk().unwrap();
    *data = rest;
    *head
}

fn fields(mut data: &[u8]) -> Vec<(u64, Field)> {
    let mut found = Vec::new();
    while !data.is_empty() {
        let key = varint(&mut data);
        let field = match key & 7 {
            0 => Field::Varint(varint(&mut data)),
            1 => Field::Fixed64(take(&mut data)),
            2 => {
                let length = varint(&mut data) as usize;
                let (bytes, rest) = data.split_at(length);
                data = rest;
                Field::Bytes(bytes.to_vec())
            }
            5 => Field::Fixed32(take(&mut data)),
            other => panic!("wire type {other}"),
        };
        found.push((key >> 3, field));
    }
    found
}

fn text(field: &Field) -> String {
    match field {
        Field::Bytes(bytes) => String::from_utf8(bytes.clone()).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// What an event says.
#[derive(Debug, Default)]
struct Event {
    time: f64,
    step: u64,
    version: Option<String>,
    scalars: BTreeMap<String, f32>,
}

fn events(mut file: &[u8]) -> Vec<Event> {
    let mut found = Vec::new();
    while !file.is_empty() {
        let length: [u8; 8] = take(&mut file);
        assert_eq!(u32::from_le_bytes(take(&mut file)), masked(&length), "of the length");
        let (data, rest) = file.split_at(u64::from_le_bytes(length) as usize);
        file = rest;
        assert_eq!(u32::from_le_bytes(take(&mut file)), masked(data), "of the data");
        let mut event = Event::default();
        for (number, field) in fields(data) {
            match (number, field) {
                (1, Field::Fixed64(bytes)) => event.time = f64::from_le_bytes(bytes),
                (2, Field::Varint(step)) => event.step = step,
                (3, version) => event.version = Some(text(&version)),
                (5, Field::Bytes(summary)) => {
                    for (number, value) in fields(&summary) {
                        let Field::Bytes(value) = value else {
                            panic!("{value:?}")
                        };
                        assert_eq!(number, 1);
                        let value = fields(&value);
                        let [(1, tag), (2, Field::Fixed32(number))] = &value[..] else {
                            panic!("{value:?}")
                        };
                        let before = event.scalars.insert(text(tag), f32::from_le_bytes(*number));
                        assert_eq!(before, None, "a tag once a step");
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        found.push(event);
    }
    found
}

fn event_file(folder: &Path) -> PathBuf {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_events = |path: &PathBuf| {
        path.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("events.out.tfevents.")
    };
    let found: Vec<PathBuf> = names.filter(is_events).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

/// The scalars of an epoch as they are documented.
fn expected(training: &Training, index: usize) -> BTreeMap<String, f32> {
    let record = &training.history[index];
    let scalars = [
        ("loss/train", Some(record.train_loss)),
        ("accuracy/train", Some(record.train_accuracy)),
        ("lr", Some(record.learning_rate)),
        ("loss/val", record.val_loss),
        ("accuracy/val", record.val_accuracy),
    ];
    let present = scalars
        .into_iter()
        .filter_map(|(tag, value)| Some((tag.to_owned(), value? as f32)));
    present.collect()
}

#[test]
fn an_independent_parser_reads_all_curves_and_every_checksum_is_right() {
    assert_eq!(crc_32c(b"123456789"), 0xe306_9283);
    for validated in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let made = Made::new(validated);
        let run = made.keep(folder.path(), "curves");
        let events = events(&std::fs::read(event_file(&run)).unwrap());
        assert_eq!(events[0].version.as_deref(), Some("brain.Event:2"));
        assert!(events[0].scalars.is_empty());
        assert_eq!(events.len(), 1 + made.training.history.len());
        for (index, event) in events[1..].iter().enumerate() {
            assert_eq!(event.step, made.training.history[index].epoch as u64);
            assert_eq!(event.scalars, expected(&made.training, index));
            assert_eq!(event.scalars.len(), if validated { 5 } else { 3 });
            assert!(event.time >= events[index].time && event.time > 1.7e9, "{event:?}");
            assert_eq!(event.version, None);
        }
    }
}

#[test]
fn tensorboard_reads_the_same_numbers() {
    let Some(python) = std::env::var_os("LASTLAYER_TENSORBOARD_PYTHON") else {
        eprintln!("skipped: LASTLAYER_TENSORBOARD_PYTHON names no Python with tensorboard");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let made = Made::new(true);
    let run = made.keep(folder.path(), "curves");
    let program = "
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={'scalars': 0}).Reload()
tags = events.Tags()['scalars']
print(json.dumps({tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in tags}))
";
    let output = std::process::Command::new(python)
        .args(["-c", program])
        .arg(&run)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: BTreeMap<String, Vec<(usize, f64)>> = serde_json::from_slice(&output.stdout).unwrap();
    eprintln!("TensorBoard reads {read:?}");
    assert_eq!(read.len(), 5);
    for (index, record) in made.training.history.iter().enumerate() {
        for (tag, value) in expected(&made.training, index) {
            assert_eq!(read[&tag][index], (record.epoch, f64::from(value)), "{tag}");
            assert_eq!(read[&tag].len(), made.training.history.len());
        }
    }
}
