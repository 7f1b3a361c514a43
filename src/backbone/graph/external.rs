//! Weights that lie in files beside the model are read into it: what leaves this module is self-contained.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use super::onnx::tensor_proto::DataLocation;
use super::onnx::{AttributeProto, GraphProto, SparseTensorProto, TensorProto};
use crate::error::{Error, Result};

/// Why a tensor's data could not be read from the file beside the model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExternalDataProblem {
    /// The file could not be opened or read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The model names a file that is not beside or below it; such files are never opened.
    #[error("the path must be relative and must not leave the model's folder")]
    Outside,
    /// The model asks for bytes that the file does not have.
    #[error("bytes {offset}..{end} are wanted and the file has {size}")]
    Range {
        /// First byte.
        offset: u64,
        /// One past the last byte.
        end: u64,
        /// Bytes in the file.
        size: u64,
    },
    /// Offset or length is not a number, or the location is missing.
    #[error("its entry `{0}` makes no sense")]
    Entry(String),
    /// All weights together pass protobuf's limit.
    #[error("the weights together pass the 2 GiB that one ONNX file can hold")]
    TooLarge,
}

/// Puts the data of every external tensor of `graph` into its `raw_data`; `model` is the file it came from.
///
/// Returns the blake3 of all that was read, `None` if nothing lay elsewhere.
///
/// # Errors
/// [`Error::ExternalData`] with the tensor and the file, if the file is missing, outside the folder or too short.
pub(super) fn inline(graph: &mut GraphProto, model: &Path) -> Result<Option<blake3::Hash>> {
    let mut reader = Reader {
        model,
        open: HashMap::new(),
        total: 0,
        hasher: blake3::Hasher::new(),
    };
    reader.graph(graph)?;
    Ok((!reader.open.is_empty()).then(|| reader.hasher.finalize()))
}

struct Reader<'a> {
    model: &'a Path,
    /// Open files and their sizes.
    open: HashMap<PathBuf, (File, u64)>,
    /// Bytes read so far.
    total: u64,
    /// Over them.
    hasher: blake3::Hasher,
}

impl Reader<'_> {
    // The recursion ends: prost decodes no message deeper than 100 levels.
    fn graph(&mut self, graph: &mut GraphProto) -> Result<()> {
        for tensor in &mut graph.initializer {
            self.tensor(tensor)?;
        }
        for tensor in &mut graph.sparse_initializer {
            self.sparse(tensor)?;
        }
        for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
            self.attribute(attribute)?;
        }
        Ok(())
    }

    fn attribute(&mut self, attribute: &mut AttributeProto) -> Result<()> {
        for tensor in attribute.t.iter_mut().chain(&mut attribute.tensors) {
            self.tensor(tensor)?;
        }
        for tensor in attribute.sparse_tensor.iter_mut().chain(&mut attribute.sparse_tensors) {
            self.sparse(tensor)?;
        }
        for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
            self.graph(graph)?;
        }
        Ok(())
    }

    fn sparse(&mut self, sparse: &mut SparseTensorProto) -> Result<()> {
        sparse
            .values
            .iter_mut()
            .chain(&mut sparse.indices)
            .try_for_each(|tensor| self.tensor(tensor))
    }

    fn tensor(&mut self, tensor: &mut TensorProto) -> Result<()> {
        if tensor.data_location() != DataLocation::External {
            return Ok(());
        }
        let entry = |key: &str| {
            tensor
                .external_data
                .iter()
                .find(|entry| entry.key() == key)
                .map(|entry| entry.value().to_owned())
        };
        let (location, offset, length) = (entry("location").unwrap_or_default(), entry("offset"), entry("length"));
        let data = self
            .read(&location, offset.as_deref(), length.as_deref())
            .map_err(|source| {
                let file = self.model.parent().unwrap_or(Path::new("")).join(&location);
                Error::ExternalData {
                    path: self.model.to_path_buf(),
                    tensor: tensor.name().to_owned(),
                    file,
                    source: Box::new(source),
                }
            })?;
        self.hasher.update(&data);
        tensor.raw_data = Some(data);
        tensor.external_data.clear();
        tensor.data_location = None;
        Ok(())
    }

    fn read(
        &mut self,
        location: &str,
        offset: Option<&str>,
        length: Option<&str>,
    ) -> Result<Bytes, ExternalDataProblem> {
        let number = |key: &str, text: &str| {
            text.trim()
                .parse::<u64>()
                .map_err(|_| ExternalDataProblem::Entry(format!("{key} = {text}")))
        };
        let offset = offset.map_or(Ok(0), |text| number("offset", text))?;
        let path = self.model.parent().unwrap_or(Path::new("")).join(inside(location)?);
        if !self.open.contains_key(&path) {
            let metadata = std::fs::metadata(&path)?;
            if !metadata.is_file() {
                // Opening a pipe would wait forever.
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file").into());
            }
            self.open.insert(path.clone(), (File::open(&path)?, metadata.len()));
        }
        let (file, size) = self.open.get_mut(&path).expect("opened above");
        let length = length.map_or(Ok(size.saturating_sub(offset)), |text| number("length", text))?;
        let end = offset.saturating_add(length);
        if end > *size {
            return Err(ExternalDataProblem::Range {
                offset,
                end,
                size: *size,
            });
        }
        self.total += length;
        let count = usize::try_from(length)
            .ok()
            .filter(|_| self.total <= super::LARGEST_PROTOBUF);
        let mut data = vec![0; count.ok_or(ExternalDataProblem::TooLarge)?];
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(&mut data)?;
        Ok(Bytes::from(data))
    }
}

/// `location` as a path below the model's folder; links are followed, because model hubs' caches are made of them.
fn inside(location: &str) -> Result<&Path, ExternalDataProblem> {
    if location.is_empty() {
        return Err(ExternalDataProblem::Entry("location".to_owned()));
    }
    let path = Path::new(location);
    let below = path
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    // A file written on Windows must be judged the same everywhere.
    let climbs = location.split(['/', '\\']).any(|part| part == "..");
    let rooted = location.starts_with(['/', '\\']) || location.as_bytes().get(1) == Some(&b':');
    if below && !climbs && !rooted {
        Ok(path)
    } else {
        Err(ExternalDataProblem::Outside)
    }
}
