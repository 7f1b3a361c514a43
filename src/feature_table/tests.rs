#![expect(clippy::unwrap_used, reason = "tests")]

use std::borrow::Cow;
use std::fs;

use ndarray::Array2;
use ndarray_npy::ReadNpyExt;

use super::*;

const CLASSES: [&str; 2] = ["cat", "dog, \"big\""];

/// Number `column` of row `row`; with values that are easily lost.
fn number(row: usize, column: usize) -> f32 {
    match (row + column) % 7 {
        0 => f32::from_bits(1),
        1 => -0.0,
        2 => f32::MAX,
        _ => (row * 31 + column) as f32 / 3.0,
    }
}

struct Made {
    paths: Vec<PathBuf>,
    features: Vec<Vec<f32>>,
}

impl Made {
    fn new(count: usize, dim: usize) -> Self {
        Self {
            paths: (0..count).map(|row| format!("a b/{row},ü.jpg").into()).collect(),
            features: (0..count)
                .map(|row| (0..dim).map(|column| number(row, column)).collect())
                .collect(),
        }
    }

    fn row(&self, index: usize) -> FeatureRow<'_> {
        FeatureRow {
            path: Cow::Borrowed(&self.paths[index]),
            split: [Some(Split::Train), Some(Split::Val), None][index % 3],
            label: [Some(CLASSES[0]), None, Some(CLASSES[1])][index / 2 % 3],
            view: index as u32 % 2,
            feature: &self.features[index],
        }
    }

    fn write(&self, format: FeatureFormat, prefix: &Path, dim: usize) -> Vec<PathBuf> {
        let classes = CLASSES.map(str::to_owned);
        let table = FeatureTable {
            dim,
            count: self.paths.len(),
            classes: &classes,
            metadata: &[("lastlayer.space".to_owned(), "{\"a\":1}".to_owned())],
        };
        write_features(format, prefix, table, &mut |index| Ok(self.row(index))).unwrap()
    }

    fn bits(&self) -> Vec<u32> {
        self.features.iter().flatten().map(|value| value.to_bits()).collect()
    }

    fn assert_listed(&self, file: &Path) {
        let mut reader = csv::Reader::from_path(file).unwrap();
        assert_eq!(reader.headers().unwrap(), vec!["path", "split", "label", "view"]);
        let records: Vec<csv::StringRecord> = reader.records().map(|record| record.unwrap()).collect();
        assert_eq!(records.len(), self.paths.len());
        for (index, record) in records.iter().enumerate() {
            let row = self.row(index);
            let split = row.split.map_or("", Split::name);
            let view = row.view.to_string();
            assert_eq!(
                record,
                vec![row.path.to_str().unwrap(), split, row.label.unwrap_or(""), &view]
            );
        }
    }
}

/// Shapes: nothing, one number, odd sizes, several batches.
const SHAPES: [(usize, usize); 5] = [(0, 4), (1, 1), (5, 3), (7, 512), (1000, 17)];

#[test]
fn npy_and_its_csv_read_back_bit_by_bit() {
    let folder = tempfile::tempdir().unwrap();
    for (count, dim) in SHAPES {
        let made = Made::new(count, dim);
        let prefix = folder.path().join("new/features.v1");
        let files = made.write(FeatureFormat::Npy, &prefix, dim);
        assert_eq!(
            files,
            ["npy", "csv"].map(|end| folder.path().join("new/features.v1.".to_owned() + end))
        );
        let bytes = fs::read(&files[0]).unwrap();
        assert_eq!((bytes.len() - 4 * count * dim) % 64, 0, "the numbers are aligned");
        let array = Array2::<f32>::read_npy(&*bytes).unwrap();
        assert_eq!(array.dim(), (count, dim));
        assert_eq!(
            array.iter().map(|value| value.to_bits()).collect::<Vec<_>>(),
            made.bits()
        );
        made.assert_listed(&files[1]);
    }
}

#[test]
fn safetensors_read_back_bit_by_bit_with_labels_and_class_names() {
    let folder = tempfile::tempdir().unwrap();
    for (count, dim) in SHAPES {
        let made = Made::new(count, dim);
        let files = made.write(FeatureFormat::Safetensors, &folder.path().join("f"), dim);
        let bytes = fs::read(&files[0]).unwrap();
        let tensors = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let features = tensors.tensor("features").unwrap();
        assert_eq!(features.shape(), [count, dim]);
        let numbers = features.data().chunks_exact(4);
        let bits: Vec<u32> = numbers
            .map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        assert_eq!(bits, made.bits());
        let labels = tensors.tensor("labels").unwrap().data().chunks_exact(8);
        let labels: Vec<i64> = labels
            .map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        assert_eq!(
            labels,
            (0..count).map(|row| [0, -1, 1][row / 2 % 3]).collect::<Vec<_>>()
        );
        let (_, header) = ::safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().clone().unwrap();
        let classes: Vec<String> = serde_json::from_str(&metadata["lastlayer.classes"]).unwrap();
        assert_eq!(classes, CLASSES);
        assert_eq!(metadata["lastlayer.space"], "{\"a\":1}");
        made.assert_listed(&files[1]);
    }
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_reads_back_bit_by_bit_and_as_a_table_of_pictures() {
    use ::parquet::file::reader::{FileReader, SerializedFileReader};
    use ::parquet::record::RowAccessor;

    let folder = tempfile::tempdir().unwrap();
    for (count, dim) in SHAPES {
        let made = Made::new(count, dim);
        let files = made.write(FeatureFormat::Parquet, &folder.path().join("f"), dim);
        let reader = SerializedFileReader::new(fs::File::open(&files[0]).unwrap()).unwrap();
        let metadata = reader.metadata().file_metadata().key_value_metadata().unwrap();
        assert!(
            metadata
                .iter()
                .any(|pair| pair.key == "lastlayer.space" && pair.value.as_deref() == Some("{\"a\":1}"))
        );
        let mut bits = Vec::new();
        let mut rows = 0;
        for (index, row) in reader.get_row_iter(None).unwrap().enumerate() {
            let (row, expected) = (row.unwrap(), made.row(index));
            rows += 1;
            assert_eq!(row.get_string(0).unwrap(), expected.path.to_str().unwrap());
            assert_eq!(
                row.get_string(1).ok().map(String::as_str),
                expected.split.map(Split::name)
            );
            assert_eq!(row.get_string(2).ok().map(String::as_str), expected.label);
            assert_eq!(row.get_uint(3).unwrap(), expected.view);
            let list = row.get_list(4).unwrap();
            use ::parquet::record::ListAccessor;
            bits.extend((0..list.len()).map(|column| list.get_float(column).unwrap().to_bits()));
        }
        assert_eq!((rows, bits), (count, made.bits()));

        let table = crate::dataset::read_table(&files[0], &crate::TableColumns::default()).unwrap();
        assert_eq!(table.rows.len(), count);
        for (index, row) in table.rows.iter().enumerate() {
            let expected = made.row(index);
            assert_eq!(
                (row.path.as_path(), row.label.as_deref(), row.split),
                (&*expected.path, expected.label, expected.split)
            );
        }
    }
}

#[test]
fn an_export_that_fails_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("f");
    let formats: &[FeatureFormat] = if cfg!(feature = "parquet") {
        &[FeatureFormat::Npy, FeatureFormat::Safetensors, FeatureFormat::Parquet]
    } else {
        &[FeatureFormat::Npy, FeatureFormat::Safetensors]
    };
    for format in formats {
        let made = Made::new(3, 2);
        let files = made.write(*format, &prefix, 2);
        let before: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
        let entries = fs::read_dir(folder.path()).unwrap().count();
        let table = FeatureTable {
            dim: 2,
            count: 3,
            classes: &[],
            metadata: &[],
        };
        let failed = write_features(*format, &prefix, table, &mut |index| {
            if index == 2 {
                Err(Error::Interrupted)
            } else {
                Ok(made.row(index))
            }
        });
        assert!(matches!(failed, Err(Error::Interrupted)));
        assert_eq!(
            files.iter().map(|file| fs::read(file).unwrap()).collect::<Vec<_>>(),
            before
        );
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            entries,
            "no temporary file is left"
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_csv_keeps_the_bytes_of_paths_that_are_no_utf_8() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let mut made = Made::new(1, 1);
    made.paths[0] = std::ffi::OsStr::from_bytes(b"caf\xe9.jpg").into();
    let files = made.write(FeatureFormat::Npy, &folder.path().join("f"), 1);
    let listed = fs::read(&files[1]).unwrap();
    assert_eq!(listed, b"path,split,label,view\ncaf\xe9.jpg,train,cat,0\n");
}
