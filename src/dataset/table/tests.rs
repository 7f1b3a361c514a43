#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;

/// A row as the tests compare it.
type Row<'a> = (&'a str, Option<&'a str>, Option<Split>);

fn read(format: TableFormat, bytes: &[u8]) -> Result<Table> {
    read_table_bytes(Path::new("t"), format, bytes, &TableColumns::default())
}

fn rows(table: &Table) -> Vec<Row<'_>> {
    table
        .rows
        .iter()
        .map(|row| (row.path.to_str().unwrap(), row.label.as_deref(), row.split))
        .collect()
}

fn lines(table: &Table) -> Vec<u64> {
    table.rows.iter().map(|row| row.line).collect()
}

fn message(result: Result<Table>) -> String {
    let error = result.unwrap_err();
    format!("{error}\n{}", error.hint().unwrap())
}

fn named(path: Option<&str>, label: Option<&str>, split: Option<&str>) -> TableColumns {
    let owned = |name: Option<&str>| name.map(str::to_owned);
    TableColumns {
        path: owned(path),
        label: owned(label),
        split: owned(split),
    }
}

#[test]
fn csv_has_quotes_newlines_in_fields_windows_line_ends_and_a_byte_order_mark() {
    let text = "\u{feff}Label , FILE_NAME,x,Split\r\n\
                cat,\"a, b.jpg\",1,Train\r\n\
                \r\n\
                \" dog \",\"c\nd.jpg\",2,VALIDATION\r\n\
                ,\"say \"\"hi\"\".png\",3,\r\n\
                1.0, spaced .png,4,dev";
    let table = read(TableFormat::Csv, text.as_bytes()).unwrap();
    assert_eq!(
        rows(&table),
        [
            ("a, b.jpg", Some("cat"), Some(Split::Train)),
            ("c\nd.jpg", Some("dog"), Some(Split::Val)),
            ("say \"hi\".png", None, None),
            (" spaced .png", Some("1.0"), Some(Split::Val)),
        ]
    );
    assert_eq!(lines(&table), [2, 4, 6, 7]);
    assert!(table.warnings.is_empty());
    let table = read(TableFormat::Tsv, b"path\tclass\nx,y.jpg\ta b\n").unwrap();
    assert_eq!(rows(&table), [("x,y.jpg", Some("a b"), None)]);
}

#[cfg(unix)]
#[test]
fn paths_in_text_keep_bytes_that_are_no_utf_8() {
    use std::os::unix::ffi::OsStrExt;
    let table = read(TableFormat::Csv, b"path,label\ncaf\xe9.jpg,x\n").unwrap();
    assert_eq!(table.rows[0].path.as_os_str().as_bytes(), b"caf\xe9.jpg");
    let table = read_list(Path::new("-"), &mut &b"caf\xe9.jpg\tx\n"[..]).unwrap();
    assert_eq!(table.rows[0].path.as_os_str().as_bytes(), b"caf\xe9.jpg");
    assert!(
        message(read(TableFormat::Csv, b"path,label\na.jpg,caf\xe9\n")).contains("line 2: the label is not in UTF-8")
    );
}

#[test]
fn errors_name_the_line_and_what_is_wrong_with_it() {
    let csv = |text: &str| message(read(TableFormat::Csv, text.as_bytes()));
    assert!(csv("path,label\na.jpg,x\nb.jpg\n").contains("`t`, line 3: there are 1 fields, but 2 columns"));
    assert!(csv("path,label\n\"a\n.jpg\",x\n,y\n").contains("`t`, line 4: the path is empty"));
    assert!(csv("path,split\na.jpg,trian\n").contains("`t`, line 2: `trian` is no split"));
    assert!(csv("").contains("`t` is empty"));
    assert!(message(read(TableFormat::Csv, b"\xff\xfep\0a\0t\0h\0")).contains("UTF-16"));
    let json = |text: &str| message(read(TableFormat::JsonLines, text.as_bytes()));
    assert!(json("{\"path\":\"a\"}\n{\"path\":}\n").contains("line 2: it is no JSON object"));
    assert!(json("{\"path\":\"a\"}\n\n[1]\n").contains("line 3: it is no JSON object"));
    assert!(json("{\"path\":\"a\"}\n{\"path\":null}\n").contains("line 2: the path is empty"));
    assert!(json("{\"path\":\"a\"}\n{\"label\":\"b\"}\n").contains("line 2: there is no path"));
    assert!(json("{\"path\":3}\n").contains("line 1: the path is no text"));
    assert!(json("{\"path\":\"a\",\"label\":[1]}\n").contains("line 1: the label is a list or an object"));
    assert!(json("{\"path\":\"a\"} {\"path\":\"b\"}\n").contains("line 1"));
    let long = format!("path\n{}\n", "x".repeat(PATH_LIMIT + 1));
    assert!(csv(&long).contains("line 2: the path has"));
    let long = format!("path,label\na,{}\n", "x".repeat(LABEL_LIMIT + 1));
    assert!(csv(&long).contains("line 2: the label has"));
}

#[test]
fn columns_are_found_or_named_and_anything_unclear_is_a_usage_error_that_lists_them() {
    let find = |text: &str, columns: &TableColumns| {
        read_table_bytes(Path::new("t"), TableFormat::Csv, text.as_bytes(), columns)
    };
    let usual = TableColumns::default();
    for (text, option, said) in [
        (
            "id,label\n1,x\n",
            "--path-column",
            "no column that is known to hold the paths",
        ),
        (
            "file,path,label\na,b,x\n",
            "--path-column",
            "several columns that may hold the paths: `file`, `path`",
        ),
        (
            "path,label,class\na,b,x\n",
            "--label-column",
            "several columns that may hold the labels",
        ),
        (
            "path,set,split\na,b,x\n",
            "--split-column",
            "several columns that may hold the splits",
        ),
    ] {
        let error = find(text, &usual).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        let hint = error.hint().unwrap();
        assert!(
            hint.contains(option) && error.to_string().contains(said),
            "{error}: {hint}"
        );
        for name in text.lines().next().unwrap().split(',') {
            assert!(hint.contains(&format!("`{name}`")), "{hint}");
        }
    }
    let table = find(
        "file,path,label,class\na,b,x,y\n",
        &named(Some("path"), Some("class"), None),
    )
    .unwrap();
    assert_eq!(rows(&table), [("b", Some("y"), None)]);
    for columns in [
        named(Some("nope"), None, None),
        named(None, Some("nope"), None),
        named(None, None, Some("nope")),
    ] {
        let error = find("path,label\na,x\n", &columns).unwrap_err();
        assert_eq!(error.to_string(), "`t` has no column `nope`");
        assert_eq!(error.kind(), ErrorKind::Usage);
        let json = br#"{"path":"a","other":1}"#;
        let error = read_table_bytes(Path::new("t"), TableFormat::JsonLines, json, &columns).unwrap_err();
        assert_eq!(error.to_string(), "`t` has no column `nope`");
    }
}

#[test]
fn a_header_that_is_not_split_or_not_there_is_told() {
    for (format, text, hint) in [
        (
            TableFormat::Csv,
            "path\tlabel\nimg,a.jpg\tx\n",
            "save it as a .tsv with tabs",
        ),
        (
            TableFormat::Csv,
            "path;label\na.jpg;x\n",
            "save it as a .csv with commas",
        ),
        (
            TableFormat::Tsv,
            "path,label\na.jpg,x\n",
            "save it as a .csv with commas",
        ),
        (
            TableFormat::Csv,
            "img/a.jpg,x\nimg/b.jpg,y\n",
            "begin the table with a line of names",
        ),
    ] {
        let error = read_table_bytes(Path::new("t"), format, text.as_bytes(), &TableColumns::default()).unwrap_err();
        assert!(error.hint().unwrap().contains(hint), "{text}: {error:?}");
    }
}

#[test]
fn json_lines_take_strings_numbers_and_booleans_as_labels_and_skip_other_keys() {
    let text = r#"{"meta":{"path":"no","x":[1,{"label":2}]},"Image":"a.jpg","class":"cat","split":"test"}
{"image":"b.jpg","class":7}

{"image":"c.jpg","class":1.0,"split":null}
{"image":"d.jpg","class":1.5}
{"image":"e.jpg","class":true}
{"image":"f.jpg","class":null}
{"image":"ü\n.jpg","class":-3}
{"image":"g.jpg"}"#;
    let table = read(TableFormat::JsonLines, text.as_bytes()).unwrap();
    let labels = [
        Some("cat"),
        Some("7"),
        Some("1"),
        Some("1.5"),
        Some("true"),
        None,
        Some("-3"),
        None,
    ];
    assert_eq!(
        table.rows.iter().map(|row| row.label.as_deref()).collect::<Vec<_>>(),
        labels
    );
    assert_eq!(lines(&table), [1, 2, 4, 5, 6, 7, 8, 9]);
    assert_eq!(table.rows[0].split, Some(Split::Test));
    assert_eq!(table.rows[6].path, Path::new("ü\n.jpg"));
    // Nesting beyond any stack is read over.
    let deep = format!(
        "{{\"x\":{}1{},\"path\":\"a\"}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let _ = read(TableFormat::JsonLines, deep.as_bytes());
    let deep = format!(
        "{{\"label\":{}1{},\"path\":\"a\"}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert!(read(TableFormat::JsonLines, deep.as_bytes()).is_err());
}

#[test]
fn a_path_named_twice_counts_once_and_must_not_contradict_itself() {
    let table = read(TableFormat::Csv, b"path,label\na,x\nb,y\na,x\nb,y\n").unwrap();
    assert_eq!(rows(&table), [("a", Some("x"), None), ("b", Some("y"), None)]);
    assert_eq!(
        table.warnings,
        [
            "2 rows repeat paths that came before and are left out, for instance `a` in line 4, which is in line 2 already"
        ]
    );
    let other = message(read(TableFormat::Csv, b"path,label\na,x\nb,y\na,z\n"));
    assert!(other.contains("line 4: `a` has `z`, but `x` in line 2"), "{other}");
    let other = message(read(TableFormat::Csv, b"path,split\na,train\na,\n"));
    assert!(
        other.contains("line 3: `a` has no split, but train in line 2"),
        "{other}"
    );
}

#[test]
fn lists_are_separated_by_newlines_or_by_nul_bytes() {
    let list = |text: &[u8]| read_list(Path::new("-"), &mut &*text);
    let table = list(b"a.jpg\r\n\nb c.jpg\tcat\nd.jpg\tdog\tval").unwrap();
    assert_eq!(
        rows(&table),
        [
            ("a.jpg", None, None),
            ("b c.jpg", Some("cat"), None),
            ("d.jpg", Some("dog"), Some(Split::Val))
        ]
    );
    assert_eq!(lines(&table), [1, 3, 4]);
    let table = list(b"a\nb.jpg\0c.jpg\r\0d.jpg\tx\0").unwrap();
    assert_eq!(
        rows(&table),
        [
            ("a\nb.jpg", None, None),
            ("c.jpg\r", None, None),
            ("d.jpg", Some("x"), None)
        ]
    );
    assert!(rows(&list(b"").unwrap()).is_empty());
    assert!(message(list(b"a\tb\ttrain\tc\n")).contains("line 1: there are more than three fields"));
    assert!(message(list(b"a\nb\tx\tnowhere\n")).contains("line 2: `nowhere` is no split"));
    assert!(message(list(b"a\n\tx\n")).contains("line 2: the path is empty"));
    let mut late = b"a.jpg\n".repeat(20_000);
    late.extend_from_slice(b"b\0c\n");
    assert!(message(list(&late)).contains("line 20001: there is a NUL byte in it"));
    // Nothing endless is read to its end.
    let mut endless = BufReader::new(std::io::repeat(b'x'));
    assert!(message(read_list(Path::new("-"), &mut endless)).contains("line 1: it has more than 16 MiB"));
}

#[test]
fn a_file_is_known_by_its_extension_or_else_by_how_it_begins() {
    let folder = tempfile::tempdir().unwrap();
    let known = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        TableFormat::of(&path).inspect(|_| assert!(is_table(&path)))
    };
    assert_eq!(known("a.CSV", b""), Some(TableFormat::Csv));
    assert_eq!(known("a.tsv", b""), Some(TableFormat::Tsv));
    assert_eq!(known("a.jsonl", b""), Some(TableFormat::JsonLines));
    assert_eq!(known("a.ndjson", b""), Some(TableFormat::JsonLines));
    assert_eq!(known("a.parquet", b""), Some(TableFormat::Parquet));
    assert_eq!(
        known("list.txt", b"\xef\xbb\xbf\"path\",\"label\"\r\na,b\n"),
        Some(TableFormat::Csv)
    );
    assert_eq!(known("list", b"label\tfilename\na\tb\n"), Some(TableFormat::Tsv));
    assert_eq!(known("list", b"{\"path\": \"a\"}\n"), Some(TableFormat::JsonLines));
    assert_eq!(known("list", b"PAR1...."), Some(TableFormat::Parquet));
    assert_eq!(known("list", b"a.jpg\nb.jpg\n"), None);
    assert_eq!(known("a.jpg", b"\xff\xd8\xff"), None);
    assert_eq!(TableFormat::of(folder.path()), None);
    assert!(!is_table(&folder.path().join("absent.csv")));
    let text = folder.path().join("photo.jpg");
    std::fs::write(&text, b"\xff\xd8\xff").unwrap();
    assert!(message(read_table(&text, &TableColumns::default())).contains("is no table"));
}

proptest! {
    #[test]
    fn any_bytes_give_a_table_or_an_error(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        start in proptest::sample::select(vec![&b""[..], b"path,label,split\n", b"path\tlabel\n", b"{\"path\":\"", b"PAR1"]),
    ) {
        let all = [start, &bytes].concat();
        for format in [TableFormat::Csv, TableFormat::Tsv, TableFormat::JsonLines, TableFormat::Parquet] {
            if let Ok(table) = read(format, &all) {
                prop_assert!(table.rows.len() <= all.len());
            }
        }
        let _ = read_list(Path::new("-"), &mut &*all);
        let _ = TableFormat::sniff(&all);
    }

    #[test]
    fn csv_gives_back_what_a_csv_writer_wrote(cells in proptest::collection::vec((".{1,12}", "[a-z\",\n ]{0,6}"), 0..20)) {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["path", "label"]).unwrap();
        let mut seen = std::collections::HashSet::new();
        let cells: Vec<_> = cells.into_iter().filter(|(path, _)| seen.insert(path.clone())).collect();
        for (path, label) in &cells {
            writer.write_record([path, label]).unwrap();
        }
        let bytes = writer.into_inner().unwrap();
        let table = read(TableFormat::Csv, &bytes).unwrap();
        let expected: Vec<Row<'_>> = cells
            .iter()
            .map(|(path, label)| (path.as_str(), Some(label.trim()).filter(|label| !label.is_empty()), None))
            .collect();
        prop_assert_eq!(rows(&table), expected);
    }
}

#[cfg(feature = "parquet")]
mod of_parquet {
    use ::parquet::basic::{Compression, Encoding, GzipLevel, ZstdLevel};
    use ::parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type};
    use ::parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterVersion};
    use ::parquet::file::writer::SerializedFileWriter;
    use ::parquet::schema::parser::parse_message_type;

    use super::*;

    /// A column of the tests.
    enum Values {
        Text(&'static str, Vec<Option<String>>),
        Whole(&'static str, Vec<Option<i64>>),
        Double(&'static str, Vec<Option<f64>>),
        Bool(&'static str, Vec<Option<bool>>),
    }

    fn texts(name: &'static str, count: usize, text: impl Fn(usize) -> Option<String>) -> Values {
        Values::Text(name, (0..count).map(text).collect())
    }

    /// A file of these columns, in two equal row groups.
    fn file(properties: WriterPropertiesBuilder, columns: &[Values]) -> Vec<u8> {
        let fields: Vec<String> = columns
            .iter()
            .map(|column| match column {
                Values::Text(name, _) => format!("optional binary {name} (STRING);"),
                Values::Whole(name, _) => format!("optional int64 {name};"),
                Values::Double(name, _) => format!("optional double {name};"),
                Values::Bool(name, _) => format!("optional boolean {name};"),
            })
            .collect();
        let schema = parse_message_type(&format!("message t {{ {} }}", fields.join(" "))).unwrap();
        let mut bytes = Vec::new();
        let mut writer = SerializedFileWriter::new(&mut bytes, Arc::new(schema), Arc::new(properties.build())).unwrap();
        for _ in 0..2 {
            let mut group = writer.next_row_group().unwrap();
            for column in columns {
                let mut writer = group.next_column().unwrap().unwrap();
                macro_rules! write {
                    ($kind:ty, $cells:expr, $value:expr) => {{
                        let levels: Vec<i16> = $cells
                            .iter()
                            .map(|cell| i16::from(cell.is_some()))
                            .collect();
                        let values: Vec<_> = $cells.iter().flatten().map($value).collect();
                        writer
                            .typed::<$kind>()
                            .write_batch(&values, Some(&levels), None)
                            .unwrap();
                    }};
                }
                match column {
                    Values::Text(_, cells) => {
                        write!(ByteArrayType, cells, |text| ByteArray::from(text.as_bytes().to_vec()));
                    }
                    Values::Whole(_, cells) => write!(Int64Type, cells, |value| *value),
                    Values::Double(_, cells) => write!(DoubleType, cells, |value| *value),
                    Values::Bool(_, cells) => write!(BoolType, cells, |value| *value),
                }
                writer.close().unwrap();
            }
            group.close().unwrap();
        }
        writer.close().unwrap();
        bytes
    }

    fn usual(count: usize) -> [Values; 3] {
        [
            texts("label", count, |row| {
                (row % 5 != 0).then(|| format!("class {}", row % 3))
            }),
            texts("path", count, |row| Some(format!("{row:05}.jpg"))),
            texts("split", count, |row| Some(["train", "val", ""][row % 3].to_owned())),
        ]
    }

    #[test]
    fn the_seeds_are_there() {
        let properties = WriterProperties::builder;
        let plain = properties().set_dictionary_enabled(false);
        let version_2 = properties()
            .set_writer_version(WriterVersion::PARQUET_2_0)
            .set_compression(Compression::SNAPPY);
        let packed = properties().set_compression(Compression::GZIP(GzipLevel::default()));
        let numbers = Values::Whole("label", vec![Some(1), None]);
        let keep = |name, bytes: &[u8]| crate::hostile::check_encoded_seed("parquet", name, bytes);
        keep(
            "plain.parquet",
            &file(plain, &[texts("path", 2, |row| Some(format!("{row}.jpg"))), numbers]),
        );
        keep("version_2.parquet", &file(version_2, &usual(3)));
        keep("gzip.parquet", &file(packed, &usual(3)));
        keep("refused_page_size.parquet", &with_large_page());
    }

    /// A file of which a page of a mebibyte claims to be 127 of them.
    fn with_large_page() -> Vec<u8> {
        let gzip = WriterProperties::builder()
            .set_compression(Compression::GZIP(GzipLevel::default()))
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None);
        let mut bytes = file(gzip, &[texts("path", 1, |_| Some("a".repeat(1 << 20)))]);
        // The first page's header: field 1 is the type, field 2 the size, twice as Thrift has it, seven bits a byte.
        assert_eq!(bytes[4..7], [0x15, 0, 0x15]);
        assert!(
            bytes[7..10].iter().all(|byte| *byte >= 0x80) && bytes[10] < 0x80,
            "a size of four bytes"
        );
        bytes[10] = 127;
        bytes
    }

    #[test]
    fn every_compression_encoding_and_page_version_reads_the_same() {
        let compressions = [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::GZIP(GzipLevel::default()),
            Compression::LZ4,
            Compression::LZ4_RAW,
            Compression::ZSTD(ZstdLevel::default()),
        ];
        for compression in compressions {
            for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
                for encoding in [None, Some(Encoding::PLAIN), Some(Encoding::DELTA_LENGTH_BYTE_ARRAY)] {
                    let properties = WriterProperties::builder()
                        .set_compression(compression)
                        .set_writer_version(version)
                        .set_dictionary_enabled(encoding.is_none())
                        .set_data_page_row_count_limit(700);
                    let properties = match encoding {
                        Some(encoding) => properties.set_encoding(encoding),
                        None => properties,
                    };
                    let table = read(TableFormat::Parquet, &file(properties, &usual(3000))).unwrap();
                    assert_eq!(table.rows.len(), 3000);
                    assert_eq!(table.warnings.len(), 1, "the second row group repeats the first");
                    for (index, row) in table.rows.iter().enumerate() {
                        let label = (index % 5 != 0).then(|| format!("class {}", index % 3));
                        let split = [Some(Split::Train), Some(Split::Val), None][index % 3];
                        assert_eq!(row.path, PathBuf::from(format!("{index:05}.jpg")));
                        assert_eq!(
                            (row.label.as_deref(), row.split, row.line),
                            (label.as_deref(), split, index as u64 + 1)
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn numbers_and_booleans_are_labels_and_null_is_none() {
        let path = || texts("path", 4, |row| Some(format!("{row}.jpg")));
        for (column, expected) in [
            (
                Values::Whole("label", vec![Some(3), None, Some(-1), Some(0)]),
                [Some("3"), None, Some("-1"), Some("0")],
            ),
            (
                Values::Double("label", vec![Some(3.0), None, Some(0.5), Some(-2.0)]),
                [Some("3"), None, Some("0.5"), Some("-2")],
            ),
            (
                Values::Bool("label", vec![Some(true), Some(false), None, None]),
                [Some("true"), Some("false"), None, None],
            ),
        ] {
            let table = read(
                TableFormat::Parquet,
                &file(WriterProperties::builder(), &[path(), column]),
            )
            .unwrap();
            assert_eq!(
                table.rows.iter().map(|row| row.label.as_deref()).collect::<Vec<_>>(),
                expected
            );
        }
        let problem =
            |columns: &[Values]| message(read(TableFormat::Parquet, &file(WriterProperties::builder(), columns)));
        let no_text = problem(&[Values::Whole("path", vec![Some(1)])]);
        assert!(no_text.contains("column `path` that is no text"), "{no_text}");
        let empty = problem(&[texts("path", 3, |row| (row != 1).then(|| row.to_string()))]);
        assert!(empty.contains("`t`, row 2: the path is empty"), "{empty}");
        let word = problem(&[
            texts("path", 2, |row| Some(row.to_string())),
            texts("split", 2, |_| Some("x".to_owned())),
        ]);
        assert!(word.contains("`t`, row 1: `x` is no split"), "{word}");
        let absent = problem(&[texts("url", 1, |_| Some("x".to_owned()))]);
        assert!(absent.contains("its columns are `url`"), "{absent}");
    }

    #[test]
    fn claims_that_a_file_can_not_hold_are_refused() {
        let constant = texts("path", 2_000_000, |_| Some("a".to_owned()));
        let bytes = file(WriterProperties::builder(), &[constant]);
        assert!(bytes.len() < 12_000, "{} bytes", bytes.len());
        assert!(message(read(TableFormat::Parquet, &bytes)).contains("claims more rows"));

        let delta = WriterProperties::builder()
            .set_dictionary_enabled(false)
            .set_encoding(Encoding::DELTA_BYTE_ARRAY);
        let refused = message(read(TableFormat::Parquet, &file(delta, &usual(10))));
        assert!(
            refused.contains("encoding DELTA_BYTE_ARRAY, which is not read"),
            "{refused}"
        );

        // The first page's header: field 1 is the type, field 2 the size, of which a smaller one is claimed.
        let gzip = WriterProperties::builder()
            .set_compression(Compression::GZIP(GzipLevel::default()))
            .set_dictionary_enabled(false);
        let mut bytes = file(gzip, &[texts("path", 300, |row| Some(row.to_string()))]);
        assert_eq!(bytes[4..7], [0x15, 0, 0x15]);
        assert!(bytes[7] >= 0x80 && bytes[8] >= 2, "a size of two bytes");
        bytes[8] = 1;
        let refused = message(read(TableFormat::Parquet, &bytes));
        assert!(refused.contains("larger than it says"), "{refused}");

        let refused = message(read(TableFormat::Parquet, &with_large_page()));
        assert!(refused.contains("one of its pages claims 13"), "{refused}");
    }

    #[test]
    fn a_changed_or_cut_file_gives_a_table_or_an_error() {
        let compressions = [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::GZIP(GzipLevel::default()),
            Compression::ZSTD(ZstdLevel::default()),
        ];
        for compression in compressions {
            let bytes = file(WriterProperties::builder().set_compression(compression), &usual(20));
            for length in 0..bytes.len() {
                assert!(
                    read(TableFormat::Parquet, &bytes[..length]).is_err(),
                    "cut to {length} bytes"
                );
            }
            for position in 0..bytes.len() {
                for change in [0x01, 0x80, 0xff] {
                    let mut changed = bytes.clone();
                    changed[position] ^= change;
                    let _ = read(TableFormat::Parquet, &changed);
                }
            }
        }
    }
}
