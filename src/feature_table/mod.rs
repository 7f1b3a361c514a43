//! Cached features written for other programs: `.npy` with a CSV, safetensors with a CSV, or one Parquet file.
//!
//! Rows are asked for one after the other and written as they come, so memory does not grow with them (safetensors
//! keeps four bytes a row). Each file has its name when all of them are complete. Which rows there are and where they come
//! from is left to the caller.

mod npy;
#[cfg(feature = "parquet")]
mod parquet;
mod safetensors;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::dataset::Split;
use crate::disk::{self, Output};
use crate::error::{Error, Result};

/// One row of an export.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureRow<'a> {
    /// The picture's path.
    pub path: Cow<'a, Path>,
    /// The split it is in.
    pub split: Option<Split>,
    /// The name of its class.
    pub label: Option<&'a str>,
    /// The view of the picture; 0 is the plain one.
    pub view: u32,
    /// The feature, of [`FeatureTable::dim`] numbers.
    pub feature: &'a [f32],
}

/// The file formats of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureFormat {
    /// `PREFIX.npy`, f32 `[rows, dim]`, and `PREFIX.csv` with the columns `path,split,label,view`, one line a row, in the
    /// same order. Paths in the CSV keep their bytes; on Windows what is no Unicode is replaced.
    Npy,
    /// `PREFIX.safetensors` with `features`, f32 `[rows, dim]`, and `labels`, i64 `[rows]`, −1 where there is none; the
    /// class names are a JSON array under the metadata key `lastlayer.classes`. `PREFIX.csv` as for [`Self::Npy`].
    Safetensors,
    /// `PREFIX.parquet` with the columns `path`, `split`, `label` (text, the latter two may be null), `view` (unsigned) and
    /// `feature` (a list of f32). In paths, what is no UTF-8 is replaced.
    Parquet,
}

/// What is known of an export before its rows.
#[derive(Debug, Clone, Copy)]
pub struct FeatureTable<'a> {
    /// Numbers in a feature.
    pub dim: usize,
    /// Rows.
    pub count: usize,
    /// The class names; a label is one of them.
    pub classes: &'a [String],
    /// Further keys and values for formats that can hold them: safetensors and Parquet.
    pub metadata: &'a [(String, String)],
}

/// Writes `table.count` rows as `PREFIX.…` and returns the files written.
///
/// `row(i)` gives row `i`; it is called once for each, in order.
///
/// # Errors
/// [`Error::Io`] when a file can't be written, [`Error::Usage`] for Parquet in a build without it, and whatever `row`
/// gives.
///
/// # Panics
/// When a feature has not `table.dim` numbers.
pub fn write_features<'a>(
    format: FeatureFormat,
    prefix: &Path,
    table: FeatureTable<'_>,
    row: &mut dyn FnMut(usize) -> Result<FeatureRow<'a>>,
) -> Result<Vec<PathBuf>> {
    if let Some(folder) = prefix.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        disk::create_folder(folder)?;
    }
    let mut row = |index| {
        let row = row(index)?;
        assert_eq!(row.feature.len(), table.dim, "a feature of the table's dimension");
        Ok(row)
    };
    match format {
        FeatureFormat::Npy => npy::write(prefix, table, &mut row),
        FeatureFormat::Safetensors => safetensors::write(prefix, table, &mut row),
        #[cfg(feature = "parquet")]
        FeatureFormat::Parquet => parquet::write(prefix, table, &mut row),
        #[cfg(not(feature = "parquet"))]
        FeatureFormat::Parquet => Err(Error::Usage(
            "this build of lastlayer has no Parquet: build it with its default features, or export npy".to_owned(),
        )),
    }
}

/// The rows of an export, checked.
type RowSource<'r, 'a> = &'r mut dyn FnMut(usize) -> Result<FeatureRow<'a>>;

/// `prefix` with an extension more; a dot in it is part of the name.
fn with_extension(prefix: &Path, extension: &str) -> PathBuf {
    let mut name = prefix.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

/// A file being written, which has its name when it is finished.
struct Writing {
    output: BufWriter<Output>,
    path: PathBuf,
}

impl Writing {
    fn create(path: PathBuf) -> Result<Self> {
        Ok(Self {
            output: BufWriter::with_capacity(1 << 20, Output::create(&path)?),
            path,
        })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.output.write_all(bytes).map_err(Error::io("write", &self.path))
    }

    fn finish(self) -> Result<PathBuf> {
        let output = self.output.into_inner().map_err(io::IntoInnerError::into_error);
        output.map_err(Error::io("write", &self.path))?.finish()?;
        Ok(self.path)
    }
}

/// The rows without their features, as CSV.
struct Listing {
    writer: csv::Writer<Output>,
    path: PathBuf,
}

impl Listing {
    fn create(prefix: &Path) -> Result<Self> {
        let path = with_extension(prefix, "csv");
        let mut writer = csv::Writer::from_writer(Output::create(&path)?);
        writer
            .write_record(["path", "split", "label", "view"])
            .map_err(|error| csv_error(&path, error))?;
        Ok(Self { writer, path })
    }

    fn put(&mut self, row: &FeatureRow<'_>) -> Result<()> {
        let view = row.view.to_string();
        let fields = [
            path_bytes(&row.path),
            row.split.map_or("", Split::name).as_bytes().into(),
            row.label.unwrap_or("").as_bytes().into(),
            view.as_bytes().into(),
        ];
        self.writer
            .write_record(&fields)
            .map_err(|error| csv_error(&self.path, error))
    }

    fn finish(self) -> Result<PathBuf> {
        let output = self
            .writer
            .into_inner()
            .map_err(|error| io::Error::other(error.to_string()));
        output.map_err(Error::io("write", &self.path))?.finish()?;
        Ok(self.path)
    }
}

fn csv_error(path: &Path, error: csv::Error) -> Error {
    Error::io("write", path)(error.into())
}

#[cfg(unix)]
fn path_bytes(path: &Path) -> Cow<'_, [u8]> {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes().into()
}

#[cfg(not(unix))]
fn path_bytes(path: &Path) -> Cow<'_, [u8]> {
    path.to_string_lossy().into_owned().into_bytes().into()
}

/// The bytes of a feature, little-endian.
fn feature_bytes(feature: &[f32]) -> &[u8] {
    // The crate is compiled for little-endian machines only (src/cache/segment.rs).
    bytemuck::cast_slice(feature)
}
