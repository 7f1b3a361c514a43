//! The head file: safetensors with `fc.weight` and `fc.bias`, and in its metadata all that prediction needs.
//!
//! PyTorch and NumPy load it as it is. The same head and metadata always give the same bytes: the header is written here,
//! since the safetensors crate takes the metadata as a hash map, whose order changes from run to run.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};

use ndarray::{Array1, Array2, ArrayView2};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

use super::linear::{LinearHead, RankedClass};
use super::softmax::TEMPERATURES;
use crate::disk::Output;
use crate::features::SeenPictures;
use crate::{Error, Result};

const WEIGHT: &str = "fc.weight";
const BIAS: &str = "fc.bias";
/// The newest format this version writes and the only one it reads.
const FORMAT_VERSION: &str = "1";
/// A head of 21,841 classes on 4,096 features takes a third of this; more is some other file.
const SIZE_LIMIT: u64 = 1 << 30;

const KEY_FORMAT: &str = "lastlayer.format";
const KEY_CLASSES: &str = "lastlayer.classes";
const KEY_BACKBONE: &str = "lastlayer.backbone";
const KEY_BACKBONE_FILE: &str = "lastlayer.backbone_file";
const KEY_BACKBONE_BLAKE3: &str = "lastlayer.backbone_blake3";
const KEY_FEATURE_TENSOR: &str = "lastlayer.feature_tensor";
const KEY_SPACE_ID: &str = "lastlayer.space_id";
const KEY_SPACE: &str = "lastlayer.space";
const KEY_OPTIONS: &str = "lastlayer.options";
const KEY_METRICS: &str = "lastlayer.metrics";
const KEY_TEMPERATURE: &str = "lastlayer.temperature";
const KEY_PICTURES: &str = "lastlayer.pictures";
const KEY_VERSION: &str = "lastlayer.version";

/// A head and where it comes from, as one file.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadFile {
    /// The head.
    pub head: LinearHead,
    /// What is known about it.
    pub meta: HeadMeta,
}

/// What a head file says beside the weights.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadMeta {
    /// The class names, in the order of the head's classes.
    pub classes: Vec<String>,
    /// The backbone as the user named it.
    pub backbone: String,
    /// Where the backbone's file lay.
    pub backbone_file: PathBuf,
    /// The blake3 of the backbone's bytes, in hexadecimal.
    pub backbone_blake3: String,
    /// The backbone's tensor that the features are read from.
    pub feature_tensor: String,
    /// The identifier of the feature space.
    pub space_id: String,
    /// The feature space itself: its canonical JSON, byte for byte.
    pub space: String,
    /// The options of the training.
    pub options: Value,
    /// What the training reached.
    pub metrics: Value,
    /// What the logits are divided by before the softmax, so that probabilities are calibrated. 1 leaves them, and files
    /// that do not say it mean 1. It changes no class, and weight and bias are what they are without it.
    pub temperature: f64,
    /// The pictures that it was trained and selected on; `None` in files of versions that did not say it.
    pub pictures: Option<SeenPictures>,
    /// The version of `lastlayer` that wrote the file.
    pub lastlayer_version: String,
}

impl HeadFile {
    /// Writes the file; a reader sees the old file or the whole new one, never a part.
    ///
    /// # Errors
    /// [`Error::Io`] if it can't be written; [`Error::HeadFile`] if the head is not finite or the class names do not fit
    /// it: such a file could not be loaded.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let bytes = self.to_bytes().map_err(|problem| Error::HeadFile {
            path: path.to_path_buf(),
            problem,
        })?;
        let mut output = Output::create(path)?;
        output.write_all(&bytes).map_err(Error::io("write", path))?;
        output.finish()
    }

    /// Reads a head file.
    ///
    /// # Errors
    /// [`Error::Io`] if it can't be read, [`Error::Safetensors`] if it is no safetensors file or a damaged one,
    /// [`Error::HeadFile`] if it holds no head that this version can use.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(Error::io("read", path))?;
        file.take(SIZE_LIMIT + 1)
            .read_to_end(&mut bytes)
            .map_err(Error::io("read", path))?;
        if bytes.len() as u64 > SIZE_LIMIT {
            let problem = "it is larger than 1 GiB, which no head is".to_owned();
            return Err(Error::HeadFile {
                path: path.to_path_buf(),
                problem,
            });
        }
        Self::from_bytes(&bytes, path)
    }

    /// Reads a head file's bytes; `path` is where they come from.
    pub(crate) fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self> {
        let tensors = SafeTensors::deserialize(bytes).map_err(|source| Error::Safetensors {
            path: path.to_path_buf(),
            source,
        })?;
        // The first pass gave the tensors; the crate keeps the metadata in a value of its own.
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|source| Error::Safetensors {
            path: path.to_path_buf(),
            source,
        })?;
        Self::from_parts(&tensors, header.metadata().as_ref()).map_err(|problem| Error::HeadFile {
            path: path.to_path_buf(),
            problem,
        })
    }

    fn from_parts(tensors: &SafeTensors<'_>, metadata: Option<&HashMap<String, String>>) -> Result<Self, String> {
        let text = |key: &str| metadata.and_then(|metadata| metadata.get(key)).cloned();
        let version = text(KEY_FORMAT)
            .ok_or_else(|| format!("its metadata has no `{KEY_FORMAT}`, so lastlayer did not write it"))?;
        if version != FORMAT_VERSION {
            return Err(format!(
                "it has format {version:?}, but this version of lastlayer reads format {FORMAT_VERSION} only"
            ));
        }
        let text = |key: &str| text(key).ok_or_else(|| format!("its metadata has no `{key}`"));
        let json = |key: &str| -> Result<Value, String> {
            serde_json::from_str(&text(key)?).map_err(|error| format!("its metadata `{key}` is no JSON: {error}"))
        };
        let classes = serde_json::from_value(json(KEY_CLASSES)?)
            .map_err(|error| format!("its metadata `{KEY_CLASSES}` is no list of names: {error}"))?;
        let (weight_shape, weight) = floats(tensors, WEIGHT)?;
        let (bias_shape, bias) = floats(tensors, BIAS)?;
        let (&[rows, dim], &[_]) = (weight_shape.as_slice(), bias_shape.as_slice()) else {
            return Err(format!(
                "`{WEIGHT}` has the shape {weight_shape:?} and `{BIAS}` {bias_shape:?}, not [classes, features] and [classes]"
            ));
        };
        let weight = Array2::from_shape_vec((rows, dim), weight).map_err(|error| format!("`{WEIGHT}`: {error}"))?;
        let head = LinearHead::new(weight, Array1::from(bias)).map_err(|error| error.to_string())?;
        json(KEY_SPACE)?;
        let meta = HeadMeta {
            classes,
            backbone: text(KEY_BACKBONE)?,
            backbone_file: PathBuf::from(text(KEY_BACKBONE_FILE)?),
            backbone_blake3: text(KEY_BACKBONE_BLAKE3)?,
            feature_tensor: text(KEY_FEATURE_TENSOR)?,
            space_id: text(KEY_SPACE_ID)?,
            space: text(KEY_SPACE)?,
            options: json(KEY_OPTIONS)?,
            metrics: json(KEY_METRICS)?,
            temperature: match metadata.and_then(|metadata| metadata.get(KEY_TEMPERATURE)) {
                Some(text) => text
                    .parse()
                    .map_err(|_| format!("its metadata `{KEY_TEMPERATURE}` is no number"))?,
                None => 1.0,
            },
            pictures: match metadata.and_then(|metadata| metadata.get(KEY_PICTURES)) {
                Some(text) => Some(
                    serde_json::from_str(text)
                        .map_err(|error| format!("its metadata `{KEY_PICTURES}` can't be used: {error}"))?,
                ),
                None => None,
            },
            lastlayer_version: text(KEY_VERSION)?,
        };
        let file = Self { head, meta };
        file.check()?;
        Ok(file)
    }

    /// The calibrated probabilities of `x` (`[n, dim]`), `[n, classes]`: the softmax of the logits divided by the
    /// temperature.
    ///
    /// # Errors
    /// [`Error::Examples`] if `x` has another number of features.
    pub fn probabilities(&self, x: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        self.head.probabilities_at(x, self.meta.temperature)
    }

    /// The `k` most probable classes of each row of `x` (`[n, dim]`) with their calibrated probabilities; in the order of
    /// [`LinearHead::top_k`].
    ///
    /// # Errors
    /// [`Error::Examples`] if `x` has another number of features.
    pub fn top_k(&self, x: ArrayView2<'_, f32>, k: usize) -> Result<Vec<Vec<RankedClass>>> {
        self.head.top_k_at(x, k, self.meta.temperature)
    }

    /// What a file must fulfil, on the way out as on the way in.
    fn check(&self) -> Result<(), String> {
        let names = &self.meta.classes;
        if names.len() != self.head.classes() {
            return Err(format!(
                "the head has {} classes, but {} class names",
                self.head.classes(),
                names.len()
            ));
        }
        let mut seen = HashSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
            return Err(format!("the class name {twice:?} appears twice"));
        }
        if !self.head.is_finite() {
            return Err("it has a weight that is infinite or NaN".to_owned());
        }
        let temperature = self.meta.temperature;
        if !TEMPERATURES.contains(&temperature) {
            return Err(format!(
                "its temperature is {temperature}: it lies in {}..={}",
                TEMPERATURES.start(),
                TEMPERATURES.end()
            ));
        }
        Ok(())
    }

    /// The file's bytes: the header's length, the header, the bias, the weight.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, String> {
        self.check()?;
        let (weight, bias) = self.head.slices();
        let (bias_size, weight_size) = (size_of_val(bias), size_of_val(weight));
        let header = json!({
            "__metadata__": self.metadata(),
            BIAS: { "dtype": "F32", "shape": [self.head.classes()], "data_offsets": [0, bias_size] },
            WEIGHT: {
                "dtype": "F32",
                "shape": [self.head.classes(), self.head.dim()],
                "data_offsets": [bias_size, bias_size + weight_size],
            },
        });
        let mut header = header.to_string().into_bytes();
        // The format asks for tensors that begin at a multiple of 8.
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut bytes = Vec::with_capacity(8 + header.len() + bias_size + weight_size);
        bytes.extend((header.len() as u64).to_le_bytes());
        bytes.extend(header);
        bytes.extend(bias.iter().chain(weight).flat_map(|value| value.to_le_bytes()));
        Ok(bytes)
    }

    fn metadata(&self) -> BTreeMap<&'static str, String> {
        let meta = &self.meta;
        let mut metadata = BTreeMap::from([
            // What other libraries look for to see whose tensor layout this is.
            ("format", "pt".to_owned()),
            (KEY_FORMAT, FORMAT_VERSION.to_owned()),
            (KEY_CLASSES, json!(meta.classes).to_string()),
            (KEY_BACKBONE, meta.backbone.clone()),
            (KEY_BACKBONE_FILE, meta.backbone_file.to_string_lossy().into_owned()),
            (KEY_BACKBONE_BLAKE3, meta.backbone_blake3.clone()),
            (KEY_FEATURE_TENSOR, meta.feature_tensor.clone()),
            (KEY_SPACE_ID, meta.space_id.clone()),
            (KEY_SPACE, meta.space.clone()),
            (KEY_OPTIONS, meta.options.to_string()),
            (KEY_METRICS, meta.metrics.to_string()),
            (KEY_VERSION, meta.lastlayer_version.clone()),
        ]);
        // Versions that do not know it skip it, and are right about all classes.
        if let Some(pictures) = &meta.pictures {
            metadata.insert(KEY_PICTURES, json!(pictures).to_string());
        }
        if meta.temperature != 1.0 {
            metadata.insert(KEY_TEMPERATURE, meta.temperature.to_string());
        }
        metadata
    }
}

/// The shape and the values of an f32 tensor.
fn floats(tensors: &SafeTensors<'_>, name: &str) -> Result<(Vec<usize>, Vec<f32>), String> {
    let tensor = tensors.tensor(name).map_err(|_| format!("it has no tensor `{name}`"))?;
    if tensor.dtype() != Dtype::F32 {
        return Err(format!("`{name}` has the type {}, not F32", tensor.dtype()));
    }
    let (values, _) = tensor.data().as_chunks();
    Ok((
        tensor.shape().to_vec(),
        values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
    ))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::features::PictureSet;

    fn sample() -> HeadFile {
        let weight = Array2::from_shape_fn((3, 5), |(i, j)| i as f32 - 0.25 * j as f32);
        let head = LinearHead::new(weight, Array1::from(vec![0.5, -1.5, 1e-9])).unwrap();
        let meta = HeadMeta {
            classes: vec!["ant".to_owned(), "bee \"x\"".to_owned(), "Ameise ß".to_owned()],
            backbone: "resnet18".to_owned(),
            backbone_file: PathBuf::from("/models/resnet18.onnx"),
            backbone_blake3: "ab".repeat(32),
            feature_tensor: "flatten_out".to_owned(),
            space_id: "0123".to_owned(),
            space: "{\"resize\":256,  \"crop\":224}".to_owned(),
            options: json!({ "epochs": 25, "learning_rate": 0.001 }),
            metrics: json!({ "val_accuracy": 0.5 }),
            temperature: 1.0,
            pictures: None,
            lastlayer_version: "0.1.0".to_owned(),
        };
        HeadFile { head, meta }
    }

    fn load_bytes(bytes: &[u8]) -> Result<HeadFile> {
        HeadFile::from_bytes(bytes, Path::new("head.safetensors"))
    }

    /// A file with the given header and as many zero bytes as asked for.
    fn made(header: &Value, data: usize) -> Vec<u8> {
        let header = header.to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    fn header() -> Value {
        let bytes = sample().to_bytes().unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        serde_json::from_slice(&bytes[8..8 + length]).unwrap()
    }

    #[test]
    fn a_file_comes_back_as_it_was_and_replaces_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("head.safetensors");
        std::fs::write(&path, "old").unwrap();
        sample().save(&path).unwrap();
        assert_eq!(HeadFile::load(&path).unwrap(), sample());
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            1,
            "no temporary file is left"
        );
    }

    #[test]
    fn the_pictures_it_has_seen_come_back_and_may_be_absent_but_not_damaged() {
        let mut file = sample();
        let contents = |range: std::ops::Range<u8>| range.map(|byte| *blake3::hash(&[byte]).as_bytes());
        file.meta.pictures = Some(SeenPictures {
            train: PictureSet::of(contents(0..50)),
            val: PictureSet::of(contents(50..60)),
        });
        let bytes = file.to_bytes().unwrap();
        assert_eq!(load_bytes(&bytes).unwrap(), file);
        let mut header = header();
        assert!(header["__metadata__"].get(KEY_PICTURES).is_none());
        header["__metadata__"][KEY_PICTURES] = json!("{}");
        let error = load_bytes(&made(&header, 72)).unwrap_err().to_string();
        assert!(error.contains("lastlayer.pictures"), "{error}");
    }

    #[test]
    fn the_same_head_gives_the_same_bytes() {
        let bytes = sample().to_bytes().unwrap();
        assert_eq!(sample().to_bytes().unwrap(), bytes);
        assert_eq!(load_bytes(&bytes).unwrap().to_bytes().unwrap(), bytes);
        // Pins the format itself: a change here needs a new format version.
        assert_eq!(
            blake3::hash(&bytes).to_hex().as_str(),
            "50175271b0de4f8818a3c79f8779c9d6b14ae73aeddab14442fe53170a775503",
        );
    }

    #[test]
    fn a_temperature_is_kept_beside_weights_that_stay_as_they_are() {
        let plain = sample().to_bytes().unwrap();
        assert!(
            header()["__metadata__"].get(KEY_TEMPERATURE).is_none(),
            "files without one mean 1"
        );
        let mut file = sample();
        file.meta.temperature = 0.1 + 0.2;
        let bytes = file.to_bytes().unwrap();
        assert_eq!(load_bytes(&bytes).unwrap(), file, "to the last bit");
        let tensors = |bytes: &[u8]| bytes[bytes.len() - 72..].to_vec();
        assert_eq!(tensors(&bytes), tensors(&plain));
        for temperature in ["0", "-1", "NaN", "inf", "warm", "1e-310", "1e7"] {
            let mut header = header();
            header["__metadata__"][KEY_TEMPERATURE] = json!(temperature);
            let problem = load_bytes(&made(&header, 72)).unwrap_err().to_string();
            assert!(problem.contains("temperature"), "{problem}");
        }
    }

    #[test]
    fn a_temperature_divides_the_logits_and_changes_no_class() {
        let mut file = sample();
        let x = Array2::from_shape_fn((7, 5), |(i, j)| ((i * 5 + j * 3) % 7) as f32 - 3.0);
        let plain = file.head.top_k(x.view(), 3).unwrap();
        assert_eq!(file.top_k(x.view(), 3).unwrap(), plain);
        assert_eq!(
            file.probabilities(x.view()).unwrap(),
            file.head.probabilities(x.view()).unwrap()
        );
        file.meta.temperature = 2.5;
        let divided = LinearHead::new(&file.head.weight() / 2.5, &file.head.bias() / 2.5).unwrap();
        let expected = divided.probabilities(x.view()).unwrap();
        let probabilities = file.probabilities(x.view()).unwrap();
        assert!(
            (&probabilities - &expected)
                .iter()
                .all(|difference| difference.abs() < 1e-6)
        );
        for (row, (ranked, plain)) in file.top_k(x.view(), 3).unwrap().iter().zip(&plain).enumerate() {
            for (ranked, plain) in ranked.iter().zip(plain) {
                assert_eq!(ranked.class, plain.class);
                assert_eq!(ranked.probability, probabilities[[row, ranked.class]]);
            }
            assert!(ranked[0].probability < plain[0].probability, "warmer is less sure");
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let problem = |bytes: &[u8]| load_bytes(bytes).unwrap_err().to_string();
        assert!(problem(b"<html>not found</html>").contains("not a readable safetensors file"));
        assert!(problem(b"").contains("not a readable safetensors file"));
        let foreign = json!({ "fc.bias": { "dtype": "F32", "shape": [1], "data_offsets": [0, 4] } });
        assert!(problem(&made(&foreign, 4)).contains("lastlayer did not write it"));

        let edited = |edit: fn(&mut Value), data| {
            let mut header = header();
            edit(&mut header);
            problem(&made(&header, data))
        };
        let newer = edited(|header| header["__metadata__"][KEY_FORMAT] = json!("2"), 72);
        assert!(newer.contains("format \"2\""), "{newer}");
        let missing = edited(
            |header| header[WEIGHT] = json!({ "dtype": "F32", "shape": [0], "data_offsets": [12, 12] }),
            12,
        );
        assert!(missing.contains("[0]"), "{missing}");
        let unnamed = edited(
            |header| header["__metadata__"][KEY_CLASSES] = json!("[\"a\", \"b\"]"),
            72,
        );
        assert!(unnamed.contains("3 classes, but 2 class names"), "{unnamed}");
        let twice = edited(
            |header| header["__metadata__"][KEY_CLASSES] = json!("[\"a\", \"b\", \"a\"]"),
            72,
        );
        assert!(twice.contains("\"a\" appears twice"), "{twice}");
        let half = edited(|header| header[WEIGHT]["dtype"] = json!("F16"), 72);
        assert!(half.contains("safetensors"), "{half}");
        let integers = edited(|header| header[WEIGHT]["dtype"] = json!("I32"), 72);
        assert!(integers.contains("type I32"), "{integers}");
        let no_space = edited(|header| header["__metadata__"][KEY_SPACE] = json!("{"), 72);
        assert!(no_space.contains("`lastlayer.space` is no JSON"), "{no_space}");
        let mut renamed = header();
        let bias = renamed.as_object_mut().unwrap().remove(BIAS).unwrap();
        renamed["other"] = bias;
        assert!(problem(&made(&renamed, 72)).contains("no tensor `fc.bias`"));
    }

    #[test]
    fn a_head_that_is_not_finite_is_neither_saved_nor_loaded() {
        let mut file = sample();
        let mut bytes = file.to_bytes().unwrap();
        file.head.slices_mut().1[0] = f32::NAN;
        let folder = tempfile::tempdir().unwrap();
        let error = file.save(folder.path().join("head")).unwrap_err();
        assert!(error.to_string().contains("infinite or NaN"));
        let last = bytes.len() - 4;
        bytes[last..].copy_from_slice(&f32::INFINITY.to_le_bytes());
        assert!(load_bytes(&bytes).unwrap_err().to_string().contains("infinite or NaN"));
    }

    #[test]
    fn a_missing_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing").join("head");
        assert!(sample().save(&path).unwrap_err().to_string().contains("missing"));
        assert!(HeadFile::load(&path).unwrap_err().to_string().contains("missing"));
    }

    #[test]
    fn the_seeds_are_what_is_written() {
        crate::hostile::check_seed("head", "three.safetensors", &sample().to_bytes().unwrap());
        for (name, classes) in [("two_names", json!(["a", "b"])), ("same_names", json!(["a", "b", "a"]))] {
            let mut header = header();
            header["__metadata__"][KEY_CLASSES] = json!(classes.to_string());
            crate::hostile::check_seed("head", &format!("refused_{name}.safetensors"), &made(&header, 72));
        }
    }

    proptest! {
        #[test]
        fn any_head_comes_back(classes in 1_usize..6, dim in 1_usize..9, values in prop::collection::vec(-1e30_f32..1e30, 54)) {
            let mut file = sample();
            let weight = Array2::from_shape_vec((classes, dim), values[..classes * dim].to_vec()).unwrap();
            file.head = LinearHead::new(weight, Array1::from(values[48..48 + classes].to_vec())).unwrap();
            file.meta.classes = (0..classes).map(|class| format!("class {class}")).collect();
            prop_assert_eq!(load_bytes(&file.to_bytes().unwrap()).unwrap(), file);
        }

        #[test]
        fn damaged_bytes_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..6)) {
            let mut bytes = sample().to_bytes().unwrap();
            for (place, bit) in flips {
                let place = place.index(bytes.len());
                bytes[place] ^= 1 << bit;
            }
            if let Ok(file) = load_bytes(&bytes) {
                prop_assert!(file.head.is_finite());
                prop_assert_eq!(file.head.classes(), file.meta.classes.len());
            }
        }

        #[test]
        fn cut_files_are_refused(cut in any::<prop::sample::Index>()) {
            let bytes = sample().to_bytes().unwrap();
            prop_assert!(load_bytes(&bytes[..cut.index(bytes.len())]).is_err());
        }
    }
}
