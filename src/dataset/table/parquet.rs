//! Parquet tables, through the parquet crate's own columns: row group by row group, the needed columns only.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{ConvertedType, LogicalType, Type};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, FileReader, Length, RowGroupReader, SerializedFileReader};
use parquet::schema::types::ColumnDescPtr;

use super::columns::{Places, TableColumns};
use super::pages::{self, CheckedPages, PageLimits};
use super::rows::Rows;
use super::text::number_text;
use super::{Error, Result, Table};
use crate::quiet;

/// The largest footer: it lists every column of every row group.
const FOOTER_LIMIT: u64 = 16 << 20;
/// Rows that are decoded at a time.
const BATCH: usize = 1024;

/// Reads the table `file`, whose bytes are `source`.
pub(super) fn read(file: &Path, source: impl ChunkReader + 'static, columns: &TableColumns) -> Result<Table> {
    let reading = Reading {
        file,
        source: Source(Arc::new(source)),
        columns,
    };
    // The crate is not made for hostile files: whatever it stumbles over becomes an error.
    quiet::run(|| reading.table()).unwrap_or_else(|panic| Err(reading.damaged(panic)))
}

struct Reading<'a, R> {
    file: &'a Path,
    source: Source<R>,
    columns: &'a TableColumns,
}

impl<R: ChunkReader + 'static> Reading<'_, R> {
    fn table(&self) -> Result<Table> {
        self.check_footer()?;
        let limits = PageLimits::of(self.source.len());
        let reader = SerializedFileReader::new(self.source.clone()).map_err(|error| self.damaged(error))?;
        let schema = reader.metadata().file_metadata().schema_descr();
        let names: Vec<String> = schema.columns().iter().map(|column| column.path().string()).collect();
        let places = self.columns.find(self.file, &names)?;
        let mut rows = Rows::new(self.file, "row").with_room(limits.paths);
        let mut first = 1;
        for group in 0..reader.num_row_groups() {
            let group = reader.get_row_group(group).map_err(|error| self.damaged(error))?;
            let count = u64::try_from(group.metadata().num_rows()).unwrap_or(u64::MAX);
            if count > limits.rows.saturating_sub(first - 1) {
                return Err(self.damaged("it claims more rows than a file of its size can hold"));
            }
            self.read_group(group.as_ref(), count, first, places, limits, &mut rows)?;
            first += count;
        }
        Ok(rows.finish())
    }

    fn read_group(
        &self,
        group: &dyn RowGroupReader,
        count: u64,
        first: u64,
        places: Places,
        limits: PageLimits,
        rows: &mut Rows<'_>,
    ) -> Result<()> {
        let open = |place| self.column(group, place, count, limits);
        let mut path = open(places.path)?;
        if !matches!(path.reader, ColumnReader::ByteArrayColumnReader(_)) {
            let problem = format!("has a column `{}` that is no text, so it holds no paths", path.name);
            return Err(self.error(problem, "name the right column with `--path-column`"));
        }
        let mut label = places.label.map(open).transpose()?;
        let mut split = places.split.map(open).transpose()?;
        let mut done = 0;
        while done < count {
            let batch = BATCH.min(usize::try_from(count - done).unwrap_or(BATCH));
            let paths = path.read(batch).map_err(|error| self.damaged(error))?;
            let mut others = [&mut label, &mut split].map(|column| {
                let cells = column.as_mut().map(|column| column.read(batch));
                cells.transpose().map(Option::unwrap_or_default).map(Vec::into_iter)
            });
            for path in paths {
                let line = first + done;
                let mut words = [None, None];
                for ((cells, word), what) in others.iter_mut().zip(&mut words).zip(["label", "split"]) {
                    let cells = cells.as_mut().map_err(|error| self.damaged(&*error))?;
                    let cell = cells.next().flatten();
                    let text = cell.map(|cell| String::from_utf8(cell.data().to_vec())).transpose();
                    *word =
                        text.map_err(|_| rows.error(line, format!("the {what} is no text"), "name the right column"))?;
                }
                let [label, split] = &words;
                // An empty ByteArray panics when it is asked for its bytes.
                let bytes: &[u8] = path.as_ref().map_or(&[], ByteArray::data);
                if std::str::from_utf8(bytes).is_err() {
                    return Err(rows.error(
                        line,
                        "the path is no text",
                        "name the right column with `--path-column`",
                    ));
                }
                rows.push(line, bytes, label.as_deref(), split.as_deref())?;
                done += 1;
            }
        }
        Ok(())
    }

    /// Opens column `place` of a row group of `count` rows.
    fn column(&self, group: &dyn RowGroupReader, place: usize, count: u64, limits: PageLimits) -> Result<Column> {
        let metadata = group.metadata().column(place);
        let descriptor = metadata.column_descr_ptr();
        let name = descriptor.path().string();
        let refuse = |problem: &str| {
            let problem = format!("has a column `{name}` that {problem}, which is not read");
            Err(self.error(problem, "write the column as text or as whole numbers"))
        };
        if descriptor.max_rep_level() > 0 {
            return refuse("holds lists");
        }
        if let Some(problem) = unreadable(&descriptor) {
            return refuse(problem);
        }
        pages::check(&self.source, metadata, limits).map_err(|problem| self.damaged(problem))?;
        let pages = group
            .get_column_page_reader(place)
            .map_err(|error| self.damaged(error))?;
        let nullable = descriptor.max_def_level() > 0;
        let pages = Box::new(CheckedPages::new(pages, count, nullable));
        Ok(Column {
            name,
            unsigned: is_unsigned(&descriptor),
            defined: descriptor.max_def_level(),
            reader: get_column_reader(descriptor, pages),
        })
    }

    /// Refuses a footer that would take much memory.
    fn check_footer(&self) -> Result<()> {
        let length = self.source.len();
        let tail = length
            .checked_sub(8)
            .map(|start| self.source.get_bytes(start, 8))
            .transpose();
        let tail = tail.map_err(|error| self.damaged(error))?.unwrap_or_default();
        let footer = match tail.split_first_chunk::<4>() {
            Some((footer, b"PAR1")) if length >= 12 => u64::from(u32::from_le_bytes(*footer)),
            _ => return Err(self.damaged("it does not end as a Parquet file does; it may be cut off")),
        };
        if footer > FOOTER_LIMIT {
            return Err(self.damaged("its footer is larger than 16 MiB"));
        }
        Ok(())
    }

    fn damaged(&self, problem: impl std::fmt::Display) -> Error {
        self.error(
            format!("can't be read as Parquet: {problem}"),
            "write the file again, or save the table as CSV",
        )
    }

    fn error(&self, problem: String, hint: &str) -> Error {
        Error::Table {
            path: self.file.to_path_buf(),
            place: None,
            problem,
            hint: hint.to_owned(),
        }
    }
}

/// Why the values of a column have no plain text.
fn unreadable(column: &ColumnDescPtr) -> Option<&'static str> {
    if matches!(column.physical_type(), Type::INT96 | Type::FIXED_LEN_BYTE_ARRAY) {
        return Some("holds neither text nor numbers");
    }
    let plain = match (column.logical_type_ref(), column.converted_type()) {
        (Some(logical), _) => matches!(
            logical,
            LogicalType::String
                | LogicalType::Enum
                | LogicalType::Json
                | LogicalType::Integer { .. }
                | LogicalType::Unknown
        ),
        (None, converted) => !matches!(
            converted,
            ConvertedType::DECIMAL
                | ConvertedType::DATE
                | ConvertedType::TIME_MILLIS
                | ConvertedType::TIME_MICROS
                | ConvertedType::TIMESTAMP_MILLIS
                | ConvertedType::TIMESTAMP_MICROS
                | ConvertedType::BSON
        ),
    };
    (!plain).then_some("holds dates or decimals")
}

fn is_unsigned(column: &ColumnDescPtr) -> bool {
    matches!(
        column.converted_type(),
        ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32 | ConvertedType::UINT_64
    )
}

/// A column of one row group, read as text.
struct Column {
    name: String,
    unsigned: bool,
    /// The level of a value that is not null.
    defined: i16,
    reader: ColumnReader,
}

impl Column {
    /// The next `count` cells; `None` for null.
    fn read(&mut self, count: usize) -> std::result::Result<Vec<Option<ByteArray>>, ParquetError> {
        let text = |text: String| ByteArray::from(text.into_bytes());
        let (defined, unsigned) = (self.defined, self.unsigned);
        match &mut self.reader {
            ColumnReader::ByteArrayColumnReader(reader) => cells(reader, count, defined, |value| value),
            ColumnReader::BoolColumnReader(reader) => cells(reader, count, defined, |value| text(value.to_string())),
            ColumnReader::Int32ColumnReader(reader) => cells(reader, count, defined, |value: i32| {
                text(if unsigned {
                    value.cast_unsigned().to_string()
                } else {
                    value.to_string()
                })
            }),
            ColumnReader::Int64ColumnReader(reader) => cells(reader, count, defined, |value: i64| {
                text(if unsigned {
                    value.cast_unsigned().to_string()
                } else {
                    value.to_string()
                })
            }),
            // Through f32's own shortest text: 0.1 is to stay 0.1.
            ColumnReader::FloatColumnReader(reader) => cells(reader, count, defined, |value| text(value.to_string())),
            ColumnReader::DoubleColumnReader(reader) => cells(reader, count, defined, |value| text(number_text(value))),
            _ => Err(ParquetError::General("a column is neither text nor numbers".to_owned())),
        }
    }
}

fn cells<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    count: usize,
    defined: i16,
    text: impl Fn(T::T) -> ByteArray,
) -> std::result::Result<Vec<Option<ByteArray>>, ParquetError> {
    let mut levels = Vec::new();
    let mut values = Vec::new();
    let (records, ..) = reader.read_records(count, Some(&mut levels), None, &mut values)?;
    if records != count {
        return Err(ParquetError::General("a column has fewer values than rows".to_owned()));
    }
    let mut values = values.into_iter().map(text);
    Ok(if defined == 0 {
        values.map(Some).collect()
    } else {
        levels
            .iter()
            .map(|level| if *level == defined { values.next() } else { None })
            .collect()
    })
}

/// The file's bytes, for the crate and for the check of its pages.
struct Source<R>(Arc<R>);

impl<R> Clone for Source<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R: ChunkReader> Length for Source<R> {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl<R: ChunkReader> ChunkReader for Source<R> {
    type T = R::T;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        self.0.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        self.0.get_bytes(start, length)
    }
}
