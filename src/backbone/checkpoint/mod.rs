//! PyTorch checkpoints as plain named tensors, read without running anything of them.
//!
//! `torch.save` writes a pickle, which to Python is a program. Here it is data: [`pickle`] knows the few names of a state
//! dict and refuses all others. This file knows the two containers, the zip archive (PyTorch 1.6 and later) and the
//! older plain file; which tensors a network wants is left to [`network`](super::network).
//!
//! The memory a file can claim is bounded by its own size, see [`EXPANSION`].

mod machine;
mod pickle;
mod tensor;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::path::Path;

use self::pickle::{Object, Pickle, PickleError, Value};
use self::tensor::ElementType;
use crate::{Error, Result};

/// How many bytes of numbers a checkpoint may hold for each of its own.
///
/// f16 becomes f32 (2), weights may be shared by several layers, and an archive may be compressed.
const EXPANSION: u64 = 16;
/// A longer object list than any state dict has; it may be compressed, so the file's size is no bound.
const MAX_PICKLE: u64 = 16 << 20;
/// The first object of a checkpoint outside a zip archive.
const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// The second object of a checkpoint outside a zip archive.
const LEGACY_VERSION: i64 = 1001;
/// The keys under which training scripts keep the state dict among other things.
const NESTED: [&str; 3] = ["state_dict", "model_state_dict", "model"];
/// What wrappers put before every name: `DataParallel`, `torch.compile`, Lightning.
const PREFIXES: [&str; 3] = ["module.", "_orig_mod.", "model."];

/// A tensor of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tensor {
    /// The length of each axis.
    pub(crate) shape: Vec<usize>,
    /// The elements, row-major.
    pub(crate) data: Vec<f32>,
}

/// The named tensors of a checkpoint, in its order.
///
/// Integer tensors are left out: in image classifiers these are `num_batches_tracked` of the normalisations, which
/// inference doesn't use.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct StateDict {
    entries: Vec<(String, Tensor)>,
    index: HashMap<String, usize>,
}

impl StateDict {
    /// Adds a tensor; one of the same name is replaced, as in Python.
    pub(crate) fn insert(&mut self, name: String, tensor: Tensor) {
        if let Some(&index) = self.index.get(&name) {
            self.entries[index].1 = tensor;
        } else {
            self.index.insert(name.clone(), self.entries.len());
            self.entries.push((name, tensor));
        }
    }

    /// The tensor of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&Tensor> {
        self.index.get(name).map(|&index| &self.entries[index].1)
    }

    /// The names, in the checkpoint's order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(name, _)| name.as_str())
    }

    /// How many tensors there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// Why a file is no checkpoint this crate reads.
#[derive(Debug, thiserror::Error)]
enum CheckpointError {
    #[error("it is neither a zip archive nor an older file of torch.save")]
    Unknown,
    #[error("its archive is damaged: {0}")]
    Archive(#[from] zip::result::ZipError),
    #[error("its archive is damaged: {0}")]
    Entry(#[from] std::io::Error),
    #[error("its archive has {0} files named data.pkl, and a checkpoint has one")]
    DataPickle(usize),
    #[error(transparent)]
    Pickle(#[from] PickleError),
    #[error("it was written on a big-endian machine")]
    BigEndian,
    #[error("it is truncated: the numbers of storage `{0}` are missing")]
    Truncated(String),
    #[error("storage `{0}` has another size than its object list says")]
    StorageSize(String),
    #[error("the tensor `{0}` reaches beyond its storage")]
    OutOfBounds(String),
    #[error("its tensors claim more than {EXPANSION} times the size of the file")]
    Bomb,
    #[error("it holds no state dict, but {0}")]
    NoStateDict(String),
    #[error("its entry `{0}` is no tensor")]
    NoTensor(String),
}

/// Reads the state dict out of the bytes of a file that `torch.save` wrote; `origin` is what errors call the file.
///
/// The file may hold the state dict itself or a dict with it under `state_dict`, `model_state_dict`, or `model`. A prefix
/// that a wrapper such as `DataParallel` put before all names is removed. f16, bf16, and f64 become f32.
///
/// # Errors
/// [`Error::Checkpoint`] if it holds anything but tensors or is damaged.
pub(crate) fn parse_checkpoint(bytes: &[u8], origin: &Path) -> Result<StateDict> {
    parse(bytes).map_err(|source| Error::Checkpoint {
        path: origin.to_path_buf(),
        source: source.into(),
    })
}

fn parse(bytes: &[u8]) -> Result<StateDict, CheckpointError> {
    if bytes.starts_with(b"PK\x03\x04") {
        parse_archive(bytes)
    } else {
        parse_legacy(bytes)
    }
}

/// The numbers of each storage, by key.
type Storages<'a> = HashMap<&'a str, Cow<'a, [u8]>>;

/// A zip archive: `NAME/data.pkl` is the object list, `NAME/data/KEY` a storage.
fn parse_archive(bytes: &[u8]) -> Result<StateDict, CheckpointError> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes))?;
    let names = archive.file_names().collect::<Result<Vec<_>, _>>()?;
    let roots: Vec<String> = names
        .iter()
        .filter_map(|name| name.strip_suffix("data.pkl"))
        .filter(|root| is_root(root))
        .map(str::to_owned)
        .collect();
    let [root] = &roots[..] else {
        return Err(CheckpointError::DataPickle(roots.len()));
    };
    let has_byte_order = names
        .iter()
        .any(|name| name.strip_prefix(root.as_str()) == Some("byteorder"));
    drop(names);

    let mut object_list = Vec::new();
    archive
        .by_name(&format!("{root}data.pkl"))?
        .take(MAX_PICKLE + 1)
        .read_to_end(&mut object_list)?;
    if object_list.len() as u64 > MAX_PICKLE {
        return Err(PickleError::TooLong.into());
    }
    if has_byte_order {
        let mut order = Vec::new();
        archive
            .by_name(&format!("{root}byteorder"))?
            .take(16)
            .read_to_end(&mut order)?;
        if order != b"little" {
            return Err(CheckpointError::BigEndian);
        }
    }
    let pickle = Pickle::read(&object_list)?;

    let mut budget = bytes.len() as u64 * EXPANSION;
    let mut storages = Storages::new();
    for storage in pickle.storages() {
        if storages.contains_key(storage.key) || matches!(storage.element, ElementType::Integer(_)) {
            continue;
        }
        let size = storage.bytes().ok_or(CheckpointError::Bomb)?;
        budget = budget.checked_sub(size).ok_or(CheckpointError::Bomb)?;
        let mut numbers = Vec::new();
        let entry = match archive.by_name(&format!("{root}data/{}", storage.key)) {
            Err(zip::result::ZipError::FileNotFound) => {
                return Err(CheckpointError::Truncated(storage.key.escape_debug().to_string()));
            }
            entry => entry?,
        };
        // One byte more than it should have, so that a longer one is noticed and a checksum is reached at the end.
        entry.take(size + 1).read_to_end(&mut numbers)?;
        if numbers.len() as u64 != size {
            return Err(CheckpointError::StorageSize(storage.key.escape_debug().to_string()));
        }
        storages.insert(storage.key, Cow::Owned(numbers));
    }
    state_dict(&pickle, &storages, bytes.len())
}

/// Whether `NAME/` is one folder, or none, as old exports have it.
fn is_root(root: &str) -> bool {
    root.is_empty() || root.strip_suffix('/').is_some_and(|name| !name.contains('/'))
}

/// Five pickles (magic number, version, machine, objects, storage keys), then each storage in the order of the keys: its
/// length as u64 and its numbers.
fn parse_legacy(bytes: &[u8]) -> Result<StateDict, CheckpointError> {
    let mut rest = bytes;
    let magic = next_pickle(&mut rest).map_err(|_| CheckpointError::Unknown)?;
    if magic.root != Value::Long(&LEGACY_MAGIC) {
        return Err(CheckpointError::Unknown);
    }
    if next_pickle(&mut rest)?.root != Value::Int(LEGACY_VERSION) {
        return Err(CheckpointError::Unknown);
    }
    let machine = next_pickle(&mut rest)?;
    if let Some(Object::Dict(pairs)) = machine.object(machine.root)
        && pairs.contains(&(Value::Text("little_endian"), Value::Bool(false)))
    {
        return Err(CheckpointError::BigEndian);
    }
    let pickle = next_pickle(&mut rest)?;
    let keys = next_pickle(&mut rest)?;
    let Some(Object::List(keys)) = keys.object(keys.root) else {
        return Err(CheckpointError::Unknown);
    };

    let known: HashMap<&str, _> = pickle.storages().map(|storage| (storage.key, storage)).collect();
    let mut storages = Storages::new();
    for key in keys {
        let Value::Text(key) = key else {
            return Err(CheckpointError::Unknown);
        };
        let truncated = || CheckpointError::Truncated(key.escape_debug().to_string());
        let wrong_size = || CheckpointError::StorageSize(key.escape_debug().to_string());
        let storage = known.get(key).ok_or_else(wrong_size)?;
        let (length, after) = rest.split_first_chunk::<8>().ok_or_else(truncated)?;
        if u64::from_le_bytes(*length) != storage.length {
            return Err(wrong_size());
        }
        let size = storage
            .bytes()
            .and_then(|size| usize::try_from(size).ok())
            .ok_or_else(truncated)?;
        let (numbers, after) = after.split_at_checked(size).ok_or_else(truncated)?;
        storages.insert(storage.key, Cow::Borrowed(numbers));
        rest = after;
    }
    state_dict(&pickle, &storages, bytes.len())
}

fn next_pickle<'a>(rest: &mut &'a [u8]) -> Result<Pickle<'a>, PickleError> {
    let pickle = Pickle::read(rest)?;
    *rest = &rest[pickle.length..];
    Ok(pickle)
}

/// Picks the tensors out of the object list. Looks at one level only: nothing in a state dict is nested.
fn state_dict(pickle: &Pickle<'_>, storages: &Storages<'_>, file_size: usize) -> Result<StateDict, CheckpointError> {
    let root = match pickle.object(pickle.root) {
        Some(Object::Dict(pairs)) => pairs,
        Some(Object::Tensor(_)) => return Err(CheckpointError::NoStateDict("a single tensor".to_owned())),
        _ => return Err(CheckpointError::NoStateDict("something else".to_owned())),
    };
    let nested = NESTED.iter().find_map(|name| {
        let (_, value) = root.iter().rev().find(|(key, _)| *key == Value::Text(name))?;
        match pickle.object(*value) {
            Some(Object::Dict(pairs)) => Some(pairs),
            _ => None,
        }
    });
    let pairs = nested.unwrap_or(root);

    let mut budget = file_size as u64 * EXPANSION / size_of::<f32>() as u64;
    let mut state = StateDict::default();
    for (key, value) in pairs {
        let Value::Text(name) = key else {
            return Err(CheckpointError::NoStateDict(
                "a dict whose keys are no names".to_owned(),
            ));
        };
        let shown = || name.chars().take(80).flat_map(char::escape_debug).collect::<String>();
        let Some(Object::Tensor(tensor)) = pickle.object(*value) else {
            return Err(CheckpointError::NoTensor(shown()));
        };
        if matches!(tensor.storage.element, ElementType::Integer(_)) {
            continue;
        }
        let count = tensor.elements().ok_or_else(|| CheckpointError::OutOfBounds(shown()))?;
        budget = budget.checked_sub(count).ok_or(CheckpointError::Bomb)?;
        let numbers = storages
            .get(tensor.storage.key)
            .ok_or_else(|| CheckpointError::Truncated(tensor.storage.key.escape_debug().to_string()))?;
        let data = tensor
            .to_f32(numbers)
            .ok_or_else(|| CheckpointError::OutOfBounds(shown()))?;
        let shape = tensor
            .shape
            .iter()
            .map(|&length| usize::try_from(length))
            .collect::<Result<_, _>>();
        let shape = shape.map_err(|_| CheckpointError::OutOfBounds(shown()))?;
        state.insert((*name).to_owned(), Tensor { shape, data });
    }
    Ok(without_prefix(state))
}

/// Removes what a wrapper put before all names; wrappers can be nested.
fn without_prefix(mut state: StateDict) -> StateDict {
    while let Some(prefix) = PREFIXES
        .iter()
        .find(|prefix| state.len() > 0 && state.names().all(|name| name.starts_with(**prefix)))
    {
        let entries = std::mem::take(&mut state).entries;
        for (name, tensor) in entries {
            state.insert(name[prefix.len()..].to_owned(), tensor);
        }
    }
    state
}
