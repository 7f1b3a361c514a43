//! Archives made by the tar crate and by Python's tarfile, and damaged ones.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::io::Write;
use std::process::Command;

use proptest::prelude::*;

use super::*;

/// An archive of the tar crate with these members.
fn made(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn indexed(bytes: &[u8]) -> Result<ArchiveIndex> {
    index_bytes(Path::new("made.tar"), bytes)
}

/// What a stream gave: samples as an index would have them, with bytes; and the error it ended with.
fn streamed(bytes: &[u8], limit: u64) -> (Vec<StreamedSample>, Option<Error>, (Ignored, Vec<String>)) {
    let mut stream = ArchiveStream::new(Path::new("stdin"), bytes, limit).unwrap();
    let mut samples = Vec::new();
    let mut failure = None;
    for item in stream.by_ref() {
        match item {
            Ok(sample) => samples.push(sample),
            Err(error) => assert!(failure.replace(error).is_none(), "an error is the last item"),
        }
    }
    (samples, failure, stream.finish())
}

/// Name, label, split and content.
type Sample = (String, Option<String>, Option<Split>, Vec<u8>);

/// Indexes and streams `bytes`, holds the two against each other, and gives name, label, split and content of each.
fn both_ways(bytes: &[u8]) -> Vec<Sample> {
    let index = indexed(bytes).unwrap();
    let (samples, failure, (ignored, warnings)) = streamed(bytes, u64::MAX);
    assert_eq!(
        failure.map(|error| error.to_string().replace("stdin", "made.tar")),
        index.failure.map(|error| error.to_string())
    );
    assert_eq!((ignored, warnings), (index.ignored, index.warnings));
    assert_eq!(samples.len(), index.samples.len());
    let pairs = index.samples.into_iter().zip(samples);
    pairs
        .map(|(listed, sample)| {
            let content = &bytes[listed.offset as usize..][..listed.length as usize];
            assert_eq!(
                (&listed.name, &listed.label, listed.split),
                (&sample.name, &sample.label, sample.split)
            );
            assert_eq!(sample.bytes.as_deref(), Ok(content));
            (
                listed.name.to_str().unwrap().to_owned(),
                listed.label,
                listed.split,
                content.to_vec(),
            )
        })
        .collect()
}

fn labels(bytes: &[u8]) -> Vec<(String, Option<String>)> {
    both_ways(bytes)
        .into_iter()
        .map(|(name, label, ..)| (name, label))
        .collect()
}

fn is(name: &str, label: Option<&str>) -> (String, Option<String>) {
    (name.to_owned(), label.map(str::to_owned))
}

#[test]
fn members_with_one_key_are_one_sample_whatever_their_order() {
    let bytes = made(&[
        ("a/1.JPG", b"one"),
        ("a/1.cls", b" 7\n"),
        ("a/2.cls", b"tabby cat\r\n"),
        ("a/2.seg.png", b"mask"),
        ("a/2.png", b"two"),
        (
            "b/3.json",
            br#"{"width": 3, "label": null, "class": "Ameise \u00df", "split": "Validation"}"#,
        ),
        ("b/3.webp", b"three"),
        ("b/4.jpg", b"four"),
        ("b/4.json", br#"{"label": 12, "split": "test"}"#),
        ("b/4.cls", b"003"),
        ("c/5.gif", b""),
    ]);
    assert_eq!(
        both_ways(&bytes),
        [
            ("a/1.JPG".to_owned(), Some("7".to_owned()), None, b"one".to_vec()),
            (
                "a/2.png".to_owned(),
                Some("tabby cat".to_owned()),
                None,
                b"two".to_vec()
            ),
            (
                "b/3.webp".to_owned(),
                Some("Ameise ß".to_owned()),
                Some(Split::Val),
                b"three".to_vec()
            ),
            (
                "b/4.jpg".to_owned(),
                Some("3".to_owned()),
                Some(Split::Test),
                b"four".to_vec()
            ),
            ("c/5.gif".to_owned(), None, None, Vec::new()),
        ]
    );
    let index = indexed(&bytes).unwrap();
    assert_eq!(index.ignored.foreign, 1, "the mask");
    assert_eq!(index.warnings, Vec::<String>::new());
}

#[test]
fn labels_in_json_are_the_texts_that_a_table_would_give() {
    let bytes = made(&[
        ("0.jpg", b"a"),
        ("0.json", br#"{"label": 3.0}"#),
        ("1.jpg", b"b"),
        ("1.json", br#"{"label": 2.5}"#),
        ("2.jpg", b"c"),
        ("2.json", br#"{"label": true}"#),
        ("3.jpg", b"d"),
        ("3.json", br#"{"label": 18446744073709551615}"#),
    ]);
    assert_eq!(
        labels(&bytes),
        [
            is("0.jpg", Some("3")),
            is("1.jpg", Some("2.5")),
            is("2.jpg", Some("true")),
            is("3.jpg", Some("18446744073709551615")),
        ]
    );
}

#[test]
fn what_is_no_part_of_a_sample_is_counted_and_told() {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |kind: tar::EntryType, name: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content).unwrap();
    };
    add(tar::EntryType::Directory, "d/", b"");
    add(tar::EntryType::Symlink, "d/link.jpg", b"");
    add(tar::EntryType::Regular, "d/._1.jpg", b"resource fork");
    add(tar::EntryType::Regular, ".git/1.jpg", b"x");
    add(tar::EntryType::Regular, "__index__.json", b"{}");
    add(tar::EntryType::Regular, "README", b"x");
    add(tar::EntryType::Regular, "d/1.jpg", b"picture");
    add(tar::EntryType::Regular, "d/1.txt", b"a caption is no label");
    add(tar::EntryType::Regular, "d/1.png", b"another picture");
    add(tar::EntryType::Regular, "d/1.cls", b"two\nlines");
    add(tar::EntryType::Regular, "d/2.cls", b"7");
    add(tar::EntryType::Regular, "d/3.jpg", b"x");
    add(
        tar::EntryType::Regular,
        "d/3.json",
        br#"{"label": [1], "split": "unlabelled"}"#,
    );
    add(tar::EntryType::Regular, "d/4.json", br#"["label", "x"]"#);
    add(tar::EntryType::Regular, "d/4.jpg", b"x");
    add(tar::EntryType::Regular, "d/5.cls", &vec![b'x'; 70_000]);
    add(tar::EntryType::Regular, "d/5.jpg", b"x");
    let bytes = builder.into_inner().unwrap();
    let none = [
        is("d/1.jpg", None),
        is("d/3.jpg", None),
        is("d/4.jpg", None),
        is("d/5.jpg", None),
    ];
    assert_eq!(labels(&bytes), none);
    let index = indexed(&bytes).unwrap();
    assert_eq!((index.ignored.hidden, index.ignored.foreign), (2, 5));
    assert_eq!(
        index.warnings,
        [
            "1 samples without a picture are left out, for instance `d/2`",
            "1 further pictures of a sample are left out, for instance `d/1.png`",
            "4 labels can't be read and count as missing, for instance `d/1.cls`",
            "1 splits are none of train, val and test and count as missing, for instance `d/3.json`",
        ]
    );
}

#[test]
fn repeated_keys_and_joined_archives_give_every_sample() {
    let one = made(&[("0.cls", b"1"), ("0.jpg", b"a")]);
    let two = made(&[
        ("0.cls", b"2"),
        ("0.jpg", b"b"),
        ("0.cls", b"3"),
        ("0.jpg", b"c"),
        ("0.jpg", b"d"),
    ]);
    let joined = [one, two].concat();
    assert_eq!(
        labels(&joined),
        [
            is("0.jpg", Some("1")),
            is("0.jpg#2", Some("2")),
            is("0.jpg#3", Some("3")),
            is("0.jpg#4", None)
        ]
    );
    // Also where a name is taken already that a number would make.
    let taken = made(&[
        ("0.jpg#2.jpg", b"x"),
        ("0.jpg", b"a"),
        ("0.jpg#2", b"y"),
        ("0.jpg", b"b"),
    ]);
    let names: Vec<String> = both_ways(&taken).into_iter().map(|sample| sample.0).collect();
    assert_eq!(
        names.iter().collect::<std::collections::BTreeSet<_>>().len(),
        names.len()
    );
}

#[test]
fn long_names_are_read_in_every_format() {
    let long = format!("{}/{}.jpg", "folder".repeat(30), "n".repeat(120));
    let label = long.replace(".jpg", ".cls");
    assert_eq!(labels(&made(&[(&long, b"x"), (&label, b"5")])), [is(&long, Some("5"))]);

    // A pax size counts more than the header's, and a value may hold a line end.
    let record = |key: &str, value: &str| {
        let body = format!(" {key}={value}\n");
        let length = (1..)
            .find(|length: &usize| length.to_string().len() + body.len() == *length)
            .unwrap();
        format!("{length}{body}")
    };
    let pax = [
        record("comment", "12 path=wrong.jpg\nx"),
        record("path", "ü/1.jpg"),
        record("size", "5"),
    ]
    .concat();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::XHeader);
    header.set_size(pax.len() as u64);
    builder
        .append_data(&mut header, "PaxHeaders/1", pax.as_bytes())
        .unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_path("short.jpg").unwrap();
    header.set_size(0);
    header.set_cksum();
    builder.append(&header, &b""[..]).unwrap();
    let mut bytes = builder.into_inner().unwrap();
    let end = bytes.len() - 1024;
    bytes.splice(end..end, b"12345".iter().copied().chain([0; 507]));
    assert_eq!(
        both_ways(&bytes),
        [("ü/1.jpg".to_owned(), None, None, b"12345".to_vec())]
    );
}

#[test]
fn a_cut_archive_gives_the_samples_before_the_cut_and_says_where_it_is() {
    let bytes = made(&[
        ("1.jpg", &[1; 700]),
        ("1.cls", b"1"),
        ("2.jpg", &[2; 700]),
        ("2.cls", b"2"),
    ]);
    let starts_of_second = 512 + 1024 + 512 + 512;
    for length in 1..bytes.len() {
        let cut = &bytes[..length];
        let Ok(index) = indexed(cut) else {
            assert!(length < 512, "cut to {length} bytes it is still an archive");
            continue;
        };
        let complete = both_ways(cut).len();
        match &index.failure {
            Some(Error::Archive { path, offset, .. }) => {
                assert_eq!(path, Path::new("made.tar"));
                assert!(
                    *offset <= length as u64 && length as u64 - offset <= 1024,
                    "{offset} of {length}"
                );
                // The first sample is known to be complete when the second begins.
                assert_eq!(
                    complete,
                    usize::from(length >= starts_of_second + 512),
                    "cut to {length}"
                );
            }
            None => assert!(
                !index.warnings.is_empty() || length >= bytes.len() - 512 - 511,
                "an archive without its end mark is told, {length}"
            ),
            Some(other) => panic!("{other}"),
        }
    }
}

#[test]
fn gzip_is_unpacked_and_damage_in_it_is_an_error() {
    let plain = made(&[("1.jpg", &[7; 90_000]), ("1.cls", b"1"), ("2.jpg", b"two")]);
    let pack = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    // Members of a gzip file follow each other, as bgzip and cat write them.
    let packed = [pack(&plain[..40_000]), pack(&plain[40_000..])].concat();
    let (samples, failure, _) = streamed(&packed, u64::MAX);
    assert!(failure.is_none());
    assert_eq!(samples.len(), 2);
    assert_eq!(samples[0].bytes.as_deref(), Ok(&[7; 90_000][..]));
    let cut = streamed(&packed[..packed.len() - 20], u64::MAX);
    assert!(cut.1.unwrap().to_string().contains("cut off"));
    let mut damaged = packed.clone();
    let middle = damaged.len() / 2;
    damaged[middle..].fill(0x55);
    assert!(matches!(streamed(&damaged, u64::MAX).1, Some(Error::Archive { .. })));
}

#[test]
fn a_picture_beyond_the_limit_is_a_failed_picture_and_the_next_is_read() {
    let bytes = made(&[
        ("1.jpg", &[0; 5000]),
        ("1.cls", b"a"),
        ("2.jpg", &[2; 1000]),
        ("2.cls", b"b"),
    ]);
    let (samples, failure, _) = streamed(&bytes, 1000);
    assert!(failure.is_none());
    assert_eq!(samples[0].bytes, Err(5000));
    assert_eq!(samples[0].label.as_deref(), Some("a"));
    assert_eq!(samples[1].bytes.as_ref().unwrap().len(), 1000);
}

#[test]
fn what_is_no_archive_is_named() {
    for (bytes, expected) in [
        (&b""[..], "it is empty"),
        (b"\xff\xd8\xff\xe0 picture", "it is no tar archive"),
        (&[0x28, 0xb5, 0x2f, 0xfd, 0, 0, 0], "packed with zstd"),
        (&[7; 2000], "it is no tar archive"),
    ] {
        assert!(indexed(bytes).unwrap_err().to_string().contains(expected), "{expected}");
        assert!(
            streamed(bytes, 9).1.unwrap().to_string().contains(expected),
            "{expected}"
        );
    }
    let empty = made(&[]);
    assert!(indexed(&empty).unwrap().samples.is_empty());
    let with_trailer = [made(&[("1.jpg", b"x")]), b"junk".repeat(300)].concat();
    assert_eq!(labels(&with_trailer), [is("1.jpg", None)]);
    assert_eq!(
        indexed(&with_trailer).unwrap().warnings,
        ["what follows its end is no archive and is left out"]
    );
}

#[test]
fn claimed_sizes_cost_no_memory_and_give_errors() {
    for kind in [
        tar::EntryType::XHeader,
        tar::EntryType::GNULongName,
        tar::EntryType::Regular,
        tar::EntryType::XGlobalHeader,
    ] {
        for size in [8 << 30, u64::MAX / 2, u64::MAX] {
            let mut header = tar::Header::new_gnu();
            header.set_path("1.jpg").unwrap();
            header.set_entry_type(kind);
            header.set_size(size);
            header.set_cksum();
            let mut bytes = made(&[("0.jpg", b"x"), ("1.jpg", b"y")]);
            bytes.truncate(2048);
            bytes.extend(header.as_bytes());
            bytes.extend([0; 4096]);
            let index = indexed(&bytes).unwrap();
            assert!((1..=2).contains(&index.samples.len()), "{kind:?} {size}");
            assert!(matches!(index.failure, Some(Error::Archive { .. })), "{kind:?} {size}");
            let (samples, failure, _) = streamed(&bytes, 1 << 20);
            assert!(failure.is_some(), "{kind:?} {size}");
            assert!(samples.len() <= 2);
        }
    }
}

#[test]
fn archives_of_pythons_tarfile_are_read_in_all_its_formats() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"
import io, sys, tarfile
for name in ("GNU", "USTAR", "PAX"):
    with tarfile.open(f"{sys.argv[1]}/{name}.tar", "w", format=getattr(tarfile, f"{name}_FORMAT")) as archive:
        def add(path, content, kind=tarfile.REGTYPE):
            info = tarfile.TarInfo(path)
            info.size, info.type = len(content), kind
            archive.addfile(info, io.BytesIO(content))
        add("train", b"", tarfile.DIRTYPE)
        for index in range(20):
            key = f"train/{'sub/' * (index * 2)}sample {index:04} \u00e9"
            if name != "USTAR":
                key += "x" * index * 12
            content = bytes((index * 7 + byte) % 256 for byte in range(index * 301))
            if index % 2:
                add(key + ".cls", b"%d" % (index % 3))
            add(key + ".jpg", content)
            if not index % 2:
                add(key + ".json", b'{"label": "c%d"}' % (index % 3))
            print(name, key, sum(content), sep="\t")
"#;
    let output = Command::new("python3")
        .args(["-X", "utf8", "-c", script])
        .arg(folder.path())
        .output();
    let Some(output) = output.ok().filter(|output| output.status.success()) else {
        println!("skipped: python3 is absent");
        return;
    };
    let printed = String::from_utf8(output.stdout).unwrap();
    for format in ["GNU", "USTAR", "PAX"] {
        let path = folder.path().join(format!("{format}.tar"));
        assert_eq!(index_archive(&path).unwrap().samples.len(), 20);
        let found = both_ways(&std::fs::read(&path).unwrap());
        let expected = printed
            .lines()
            .filter_map(|line| line.strip_prefix(format)?.strip_prefix('\t'));
        let mut compared = 0;
        for (index, (line, (name, label, _, content))) in expected.zip(&found).enumerate() {
            let sum: u64 = content.iter().map(|byte| u64::from(*byte)).sum();
            assert_eq!(line, format!("{}\t{sum}", name.strip_suffix(".jpg").unwrap()));
            let prefix = if index % 2 == 0 { "c" } else { "" };
            assert_eq!(label.as_deref(), Some(format!("{prefix}{}", index % 3).as_str()));
            assert_eq!(content.len(), index * 301);
            compared += 1;
        }
        assert_eq!(compared, 20, "{format}");
    }
}

fn relative(root: &Path, shards: Option<Vec<PathBuf>>) -> Option<Vec<String>> {
    let name = |path: PathBuf| {
        path.strip_prefix(root)
            .unwrap_or(&path)
            .to_str()
            .unwrap()
            .replace('\\', "/")
    };
    shards.map(|shards| shards.into_iter().map(name).collect())
}

#[test]
fn shards_are_named_by_braces_patterns_folders_and_files() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for name in [
        "flat/s-008.tar",
        "flat/s-009.tar",
        "flat/s-010.tar",
        "flat/README.md",
        "flat/.s-011.tar",
        "split/val/a.tar.gz",
        "split/train/b.TGZ",
        "split/train/a.tar",
        "pictures/cat/1.jpg",
        "pictures/data.tar",
        "mixed/1.jpg",
        "mixed/1.tar",
        "classes/train/cat/1.jpg",
        "odd{1}.tar",
        "x/{1,2}.tar",
    ] {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"").unwrap();
    }
    let expand = |argument: &str| relative(root, expand_shards(&root.join(argument)).unwrap());
    let some = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    assert_eq!(
        expand("flat/s-{008..010}.tar"),
        some(&["flat/s-008.tar", "flat/s-009.tar", "flat/s-010.tar"])
    );
    assert_eq!(
        expand("flat/s-0{10,0{9..8}}.tar"),
        some(&["flat/s-010.tar", "flat/s-009.tar", "flat/s-008.tar"])
    );
    assert_eq!(expand("flat/s-00*.tar"), some(&["flat/s-008.tar", "flat/s-009.tar"]));
    assert_eq!(
        expand("split/{train,val}/*"),
        some(&["split/train/a.tar", "split/train/b.TGZ", "split/val/a.tar.gz"])
    );
    assert_eq!(
        expand("flat"),
        some(&["flat/s-008.tar", "flat/s-009.tar", "flat/s-010.tar"])
    );
    assert_eq!(
        expand("split"),
        some(&["split/train/a.tar", "split/train/b.TGZ", "split/val/a.tar.gz"])
    );
    assert_eq!(expand("flat/s-010.tar"), some(&["flat/s-010.tar"]));
    assert_eq!(expand("odd{1}.tar"), some(&["odd{1}.tar"]));
    assert_eq!(
        expand("x/{1,2}.tar"),
        some(&["x/{1,2}.tar"]),
        "a file of that very name"
    );
    for none in [
        "pictures",
        "mixed",
        "classes",
        "missing",
        "mixed/1.jpg",
        "flat/*",
        "pictures/{cat,dog}",
        "missing.tar",
    ] {
        assert_eq!(expand(none), None, "{none}");
    }
    let missing = expand_shards(&root.join("flat/s-{009..012}.tar"))
        .unwrap_err()
        .to_string();
    assert!(missing.contains("s-011.tar` does not exist, and 1 more"), "{missing}");
    assert!(
        expand_shards(&root.join("none-*.tar"))
            .unwrap_err()
            .to_string()
            .contains("does not exist")
    );
    assert!(
        shards::is_archive_name(Path::new("a/b.TAR"))
            && !is_packed(Path::new("a/b.tar"))
            && is_packed(Path::new("b.tgz"))
    );
    assert!(!shards::is_archive_name(Path::new(".tar")) && !shards::is_archive_name(Path::new("b.gz")));
    for endless in [
        "{0..99999999999}.tar",
        "{0..999}{0..999}{0..999}.tar",
        "{-9223372036854775808..9223372036854775807}.tar",
    ] {
        assert!(
            matches!(expand_shards(Path::new(endless)), Err(Error::Usage(_))),
            "{endless}"
        );
    }
}

#[test]
fn the_split_of_a_shard_is_its_folder_or_a_word_of_its_name() {
    for (name, split) in [
        ("data/imagenet-train-000123.tar", Some(Split::Train)),
        ("data/Validation_3.tgz", Some(Split::Val)),
        ("val/imagenet-train-000123.tar", Some(Split::Val)),
        ("data/trainset-0.tar", None),
        ("data/train-test-0.tar", None),
        ("data/0.tar", None),
    ] {
        assert_eq!(shard_split(Path::new(name)), split, "{name}");
    }
}

#[test]
fn the_seeds_are_what_is_written() {
    let bytes = made(&[
        ("a/1.jpg", b"one"),
        ("a/1.cls", b"7"),
        ("a/2.json", br#"{"label": "cat", "split": "val"}"#),
        ("a/2.png", b"two"),
    ]);
    crate::hostile::check_seed("tar", "gnu.tar", &bytes);
    let long = format!("{}/1.jpg", "folder".repeat(30));
    crate::hostile::check_seed("tar", "long.tar", &made(&[(&long, b"x")]));
    let pax = b"12 size=512\n26 path=a longer name.jpg\n";
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::XHeader);
    header.set_size(pax.len() as u64);
    builder.append_data(&mut header, "PaxHeaders/1", &pax[..]).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(512);
    builder.append_data(&mut header, "1.jpg", &[5; 512][..]).unwrap();
    crate::hostile::check_seed("tar", "pax.tar", &builder.into_inner().unwrap());
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&bytes).unwrap();
    crate::hostile::check_encoded_seed("tar", "gnu.tar.gz", &encoder.finish().unwrap());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::XHeader);
    header.set_size(64 << 20);
    header.set_cksum();
    let claims = [&made(&[("0.jpg", b"x")])[..1024], header.as_bytes()].concat();
    crate::hostile::check_seed("tar", "refused_long_extension.tar", &claims);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_samples_come_back_from_an_archive(
        samples in prop::collection::vec(
            ("([a-z]{1,9}/){0,5}[a-z]{1,130}", prop::option::of(any::<i64>()), prop::collection::vec(any::<u8>(), 0..1500)),
            0..12,
        )
    ) {
        let mut members = Vec::new();
        let mut expected = Vec::new();
        for (index, (name, label, content)) in samples.iter().enumerate() {
            let key = format!("{index}{name}");
            if let Some(label) = label {
                members.push((format!("{key}.cls"), label.to_string().into_bytes()));
            }
            members.push((format!("{key}.jpg"), content.clone()));
            expected.push((format!("{key}.jpg"), label.map(|label| label.to_string()), None, content.clone()));
        }
        let members: Vec<(&str, &[u8])> = members.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
        prop_assert_eq!(both_ways(&made(&members)), expected);
    }
}
