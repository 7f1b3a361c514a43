//! One Parquet file, whose lists have the three-level layout that every reader takes for a list.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, FloatType, Int32Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;

use super::{FeatureTable, RowSource, with_extension};
use crate::dataset::Split;
use crate::disk::Output;
use crate::error::{Error, Result};

const SCHEMA: &str = "message features {
    required binary path (STRING);
    optional binary split (STRING);
    optional binary label (STRING);
    required int32 view (INTEGER(32, false));
    required group feature (LIST) { repeated group list { required float element; } }
}";
/// The numbers of a row group, which are in memory at a time.
const GROUP_NUMBERS: usize = 16 << 20;
/// Rows of a row group at most.
const GROUP_ROWS: usize = 128 << 10;
/// The numbers that are given to the writer at a time.
const BATCH_NUMBERS: usize = 256 << 10;

pub(super) fn write(prefix: &Path, table: FeatureTable<'_>, row: RowSource<'_, '_>) -> Result<Vec<PathBuf>> {
    let path = with_extension(prefix, "parquet");
    let failed = |error: ParquetError| match error {
        ParquetError::External(error) => Error::io("write", &path)(std::io::Error::other(error)),
        error => Error::io("write", &path)(std::io::Error::other(error)),
    };
    let schema = Arc::new(parse_message_type(SCHEMA).expect("the schema is sound"));
    let mut writer =
        SerializedFileWriter::new(Output::create(&path)?, schema, Arc::new(properties(table))).map_err(failed)?;
    let mut group = Group::default();
    let rows_in_group = (GROUP_NUMBERS / table.dim.max(1)).clamp(1, GROUP_ROWS);
    let mut done = 0;
    while done < table.count {
        group.clear();
        let end = table.count.min(done + rows_in_group);
        for index in done..end {
            let row = row(index)?;
            group.paths.push(text(&row.path.to_string_lossy()));
            group.splits.push(row.split.map(|split| text(Split::name(split))));
            group.labels.push(row.label.map(text));
            group.views.push(row.view.cast_signed());
            group.features.extend_from_slice(row.feature);
        }
        let mut writer = writer.next_row_group().map_err(failed)?;
        group.write(&mut writer, table.dim).map_err(failed)?;
        writer.close().map_err(failed)?;
        done = end;
    }
    writer.into_inner().map_err(failed)?.finish()?;
    Ok(vec![path])
}

fn text(text: &str) -> ByteArray {
    text.as_bytes().to_vec().into()
}

fn properties(table: FeatureTable<'_>) -> WriterProperties {
    let classes = serde_json::Value::from(table.classes.to_vec()).to_string();
    let mut metadata = vec![KeyValue::new("lastlayer.classes".to_owned(), classes)];
    metadata.extend(
        table
            .metadata
            .iter()
            .map(|(key, value)| KeyValue::new(key.clone(), value.clone())),
    );
    let feature = ColumnPath::from(["feature", "list", "element"].map(str::to_owned).to_vec());
    WriterProperties::builder()
        .set_created_by(concat!("lastlayer ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_column_dictionary_enabled(feature.clone(), false)
        .set_column_statistics_enabled(feature, EnabledStatistics::None)
        .set_key_value_metadata(Some(metadata))
        .build()
}

/// The columns of one row group.
#[derive(Default)]
struct Group {
    paths: Vec<ByteArray>,
    splits: Vec<Option<ByteArray>>,
    labels: Vec<Option<ByteArray>>,
    views: Vec<i32>,
    features: Vec<f32>,
}

impl Group {
    fn clear(&mut self) {
        self.paths.clear();
        self.splits.clear();
        self.labels.clear();
        self.views.clear();
        self.features.clear();
    }

    fn write(&self, group: &mut SerializedRowGroupWriter<'_, Output>, dim: usize) -> Result<(), ParquetError> {
        column::<ByteArrayType>(group, &self.paths, None)?;
        for texts in [&self.splits, &self.labels] {
            let levels: Vec<i16> = texts.iter().map(|text| i16::from(text.is_some())).collect();
            let present: Vec<ByteArray> = texts.iter().flatten().cloned().collect();
            column::<ByteArrayType>(group, &present, Some(&levels))?;
        }
        column::<Int32Type>(group, &self.views, None)?;

        // Every list has numbers, and begins where the repetition level is 0.
        let batch = (BATCH_NUMBERS / dim.max(1)).max(1) * dim;
        let defined = vec![1; batch];
        let repeated: Vec<i16> = (0..batch).map(|number| i16::from(number % dim.max(1) != 0)).collect();
        let mut writer = group
            .next_column()?
            .ok_or_else(|| ParquetError::General("a column is missing".to_owned()))?;
        for numbers in self.features.chunks(batch.max(1)) {
            let (defined, repeated) = (&defined[..numbers.len()], &repeated[..numbers.len()]);
            writer
                .typed::<FloatType>()
                .write_batch(numbers, Some(defined), Some(repeated))?;
        }
        writer.close()
    }
}

fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Output>,
    values: &[T::T],
    defined: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let mut writer = group
        .next_column()?
        .ok_or_else(|| ParquetError::General("a column is missing".to_owned()))?;
    writer.typed::<T>().write_batch(values, defined, None)?;
    writer.close()
}
