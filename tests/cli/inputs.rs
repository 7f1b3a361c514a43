//! Every kind of input that people have their pictures in: the same pictures give the same rows, and labels, splits and
//! changes are seen.

#[cfg(unix)]
use std::path::Path;

use serde_json::{Value, json};

use crate::common::{EXTRACT, Run, Scene, copy_folder, counts, files_below, picture, png, stored_rows};

/// A picture of [`Scene::with_pictures`].
pub(super) struct Known {
    /// From the scene's folder: `pictures/train/blue/000.png`.
    pub(super) path: String,
    pub(super) label: String,
    pub(super) split: String,
    pub(super) bytes: Vec<u8>,
}

pub(super) fn known(scene: &Scene) -> Vec<Known> {
    let described = |path: &std::path::PathBuf| {
        let names: Vec<_> = path.iter().rev().take(4).map(|name| name.to_str().unwrap()).collect();
        let [name, label, split, root] = names[..] else {
            panic!("{names:?}")
        };
        Known {
            path: format!("{root}/{split}/{label}/{name}"),
            label: label.to_owned(),
            split: split.to_owned(),
            bytes: std::fs::read(path).unwrap(),
        }
    };
    files_below(&scene.path("pictures")).iter().map(described).collect()
}

/// A tar archive of these members.
pub(super) fn tar(members: impl IntoIterator<Item = (String, Vec<u8>)>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

/// The picture and its label, as two members.
pub(super) fn with_class(known: &Known) -> [(String, Vec<u8>); 2] {
    let key = known.path.trim_end_matches(".png");
    [
        (format!("{key}.png"), known.bytes.clone()),
        (format!("{key}.cls"), known.label.clone().into_bytes()),
    ]
}

/// The picture and what is known of it, as two members.
pub(super) fn with_json(known: &Known) -> [(String, Vec<u8>); 2] {
    let key = known.path.trim_end_matches(".png");
    let described = json!({"label": known.label, "split": known.split}).to_string();
    [
        (format!("{key}.json"), described.into_bytes()),
        (format!("{key}.png"), known.bytes.clone()),
    ]
}

fn lines(known: &[Known], line: impl Fn(&Known) -> String) -> Vec<u8> {
    known.iter().map(line).collect::<String>().into_bytes()
}

#[cfg(feature = "parquet")]
fn parquet(known: &[Known]) -> Vec<u8> {
    use std::sync::Arc;

    use parquet::data_type::{ByteArray, ByteArrayType};
    use parquet::file::writer::SerializedFileWriter;

    let schema = "message rows { required binary path (STRING); required binary label (STRING); required binary split \
                  (STRING); }";
    let schema = Arc::new(parquet::schema::parser::parse_message_type(schema).unwrap());
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let columns: [fn(&Known) -> &str; 3] = [|known| &known.path, |known| &known.label, |known| &known.split];
    for column in columns {
        let values: Vec<ByteArray> = known.iter().map(|known| column(known).into()).collect();
        let mut writer = group.next_column().unwrap().unwrap();
        writer
            .typed::<ByteArrayType>()
            .write_batch(&values, None, None)
            .unwrap();
        writer.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
    bytes
}

/// One way to name the pictures.
struct Way {
    arguments: Vec<&'static str>,
    input: Option<Vec<u8>>,
    labelled: bool,
    /// Whether it says which pictures train.
    split: bool,
}

impl Way {
    fn run<'a>(&'a self, scene: &Scene, verb: &'a str, more: &[&'a str]) -> Run {
        let arguments = [verb].into_iter().chain(self.arguments.iter().copied());
        let arguments = arguments.chain(more.iter().copied());
        match &self.input {
            Some(input) if verb == "extract" => scene.run_with_input(arguments, input),
            _ => scene.run(arguments),
        }
    }
}

fn way(arguments: &[&'static str], labelled: bool, split: bool) -> Way {
    Way {
        arguments: arguments.to_vec(),
        input: None,
        labelled,
        split,
    }
}

fn piped(input: Vec<u8>, labelled: bool, split: bool) -> Way {
    Way {
        input: Some(input),
        ..way(&["-"], labelled, split)
    }
}

/// Writes the scene's pictures in every form, and gives the ways to name them.
fn ways(scene: &Scene) -> Vec<Way> {
    let all = known(scene);
    for picture in &all {
        scene.write(
            &format!("flat/{}/{}.png", picture.label, blake3::hash(&picture.bytes)),
            &picture.bytes,
        );
        scene.write(&format!("loose/{}.png", blake3::hash(&picture.bytes)), &picture.bytes);
    }
    let row = |known: &Known, tab: char| format!("{}{tab}{}{tab}{}\n", known.path, known.label, known.split);
    let table = |header: &str, tab: char| [header.as_bytes(), &lines(&all, |known| row(known, tab))].concat();
    scene.write("rows.csv", &table("path,label,split\n", ','));
    scene.write("rows.tsv", &table("image\tclass\tsubset\n", '\t'));
    scene.write("named.csv", &table("Wo?,Was,Teil\n", ','));
    scene.write("lists/rows.csv", &table("path,label,split\n", ','));
    let object = |known: &Known| {
        format!(
            "{}\n",
            json!({"file": known.path, "target": known.label, "partition": known.split})
        )
    };
    scene.write("rows.jsonl", &lines(&all, object));
    let whole = |known: &Known| {
        let path = scene.path(&known.path);
        format!("\"{}\",{},{}\n", path.display(), known.label, known.split)
    };
    let absolute = [&b"path,label,split\n"[..], &lines(&all, whole)].concat();
    scene.write("elsewhere/absolute.csv", &absolute);
    let classes = tar(all.iter().flat_map(with_class));
    let described = tar(all.iter().flat_map(with_json));
    scene.write("one.tar", &described);
    scene.write("one.tar.gz", &gzip(&classes));
    scene.write("one.tgz", &gzip(&described));
    for (number, part) in all.chunks(9).enumerate() {
        let shard = tar(part.iter().flat_map(with_class));
        scene.write(&format!("shards/shard-{number:03}.tar"), &shard);
    }
    for split in ["train", "val"] {
        let part: Vec<&Known> = all.iter().filter(|known| known.split == split).collect();
        for (number, part) in part.chunks(5).enumerate() {
            let shard = tar(part.iter().flat_map(|known| with_class(known)));
            scene.write(&format!("split/{split}/{number:06}.tar"), &shard);
        }
    }
    let columns = [
        "--path-column",
        "Wo?",
        "--label-column",
        "Was",
        "--split-column",
        "Teil",
    ];
    let named = [&["named.csv"][..], &columns].concat();
    #[cfg_attr(not(feature = "parquet"), expect(unused_mut, reason = "Parquet is one more"))]
    let mut ways = vec![
        way(&["pictures"], true, true),
        way(&["flat"], true, false),
        way(&["loose"], false, false),
        way(&["rows.csv"], true, true),
        way(&["rows.tsv"], true, true),
        way(&["rows.jsonl"], true, true),
        way(&named, true, true),
        way(&["lists/rows.csv", "--image-root", "."], true, true),
        way(&["elsewhere/absolute.csv"], true, true),
        piped(lines(&all, |known| format!("{}\n", known.path)), false, false),
        piped(lines(&all, |known| format!("{}\0", known.path)), false, false),
        piped(
            lines(&all, |known| format!("{}\t{}\n", known.path, known.label)),
            true,
            false,
        ),
        piped(lines(&all, |known| row(known, '\t')), true, true),
        piped(
            lines(&all, |known| {
                format!("{}\t{}\t{}\0", known.path, known.label, known.split)
            }),
            true,
            true,
        ),
        way(&["one.tar"], true, true),
        way(&["one.tar.gz"], true, false),
        way(&["one.tgz"], true, true),
        way(&["shards/shard-{000..002}.tar"], true, false),
        way(&["shards/*.tar"], true, false),
        way(&["shards"], true, false),
        way(&["split"], true, true),
        way(&["split/{train,val}/*.tar"], true, true),
        piped(classes.clone(), true, false),
        piped(described.clone(), true, true),
        piped(gzip(&described), true, true),
    ];
    #[cfg(feature = "parquet")]
    {
        scene.write("rows.parquet", &parquet(&all));
        ways.push(way(&["rows.parquet"], true, true));
    }
    ways
}

#[test]
fn the_same_pictures_give_the_same_rows_through_every_kind_of_input() {
    let scene = Scene::with_pictures();
    let ways = ways(&scene);
    scene.extract([]);
    let rows = stored_rows(&scene.path("cache"));
    let backbone = ["--backbone", "tiny.onnx", "--json"];
    for way in &ways {
        let told = way.arguments.join(" ");
        // By themselves, and then where all of them are known already.
        let fresh = [&backbone[..], &["--cache", "fresh"]].concat();
        let run = way.run(&scene, "extract", &fresh).code(0);
        assert_eq!(counts(&run.json()), [27, 27, 0, 0], "{told}");
        let unlabelled = if way.labelled { 0 } else { 27 };
        assert_eq!(run.json()["unlabelled"], unlabelled, "{told}");
        assert!(stored_rows(&scene.path("fresh")) == rows, "{told}");
        scene.remove("fresh");
        for round in 0..2 {
            let report = way.run(&scene, "extract", &backbone).code(0).json();
            assert_eq!(counts(&report), [27, 0, 27, 0], "{told}, {round}");
        }
        let trained = way.run(&scene, "train-head", &["--json", "--epochs", "1"]);
        if !way.labelled {
            trained.error(1, &["has no labels", "class's name"]);
            continue;
        }
        let trained = trained.code(0).json();
        assert_eq!(trained["classes"], json!(["blue", "green", "red"]), "{told}");
        let [train, val] = ["train_images", "val_images"].map(|key| trained[key].as_u64().unwrap());
        assert_eq!(train + val, 27, "{told}");
        if way.split {
            assert_eq!((train, val), (18, 9), "{told}");
        } else {
            assert!(val >= 3, "{told}: {val}");
        }
    }
    assert!(stored_rows(&scene.path("cache")) == rows);
}

#[test]
fn a_folder_of_pictures_only_is_extracted_and_said_to_have_no_labels() {
    let scene = Scene::new();
    scene.add_pictures("pictures", 0, 0..4);
    let run = scene
        .run(EXTRACT)
        .code(0)
        .says(&["no labels", "no head can be trained"]);
    assert!(run.stdout.contains("4 pictures without a label"), "{}", run.stdout);
    // What is of tables is not passed over in silence.
    scene
        .run(EXTRACT.into_iter().chain(["--label-column", "x", "--image-root", "."]))
        .code(0)
        .says(&["--label-column and --image-root: of no use here"]);
    // With a folder in it, it looks like one of classes: that is said.
    scene.add_pictures("pictures/thumbs", 1, 0..2);
    scene
        .run(EXTRACT)
        .code(0)
        .says(&["beside the class folders", "left out: 4"]);
}

/// `train-head` with these arguments, one epoch.
pub(super) fn train(scene: &Scene, arguments: &[&str]) -> Run {
    let fixed = ["train-head", "--json", "--epochs", "1"];
    scene.run(fixed.into_iter().chain(arguments.iter().copied()))
}

pub(super) fn extract(scene: &Scene, arguments: &[&str]) -> Run {
    let fixed = ["extract", "--backbone", "tiny.onnx", "--json"];
    scene.run(fixed.into_iter().chain(arguments.iter().copied()))
}

pub(super) fn extract_from(scene: &Scene, input: &[u8], arguments: &[&str]) -> Run {
    let fixed = ["extract", "-", "--backbone", "tiny.onnx", "--json"];
    scene.run_with_input(fixed.into_iter().chain(arguments.iter().copied()), input)
}

#[test]
fn a_table_on_standard_input_is_not_taken_for_a_list() {
    let scene = Scene::with_pictures();
    let path = &known(&scene)[0].path;
    for table in [
        format!("path,label\n{path},a\n"),
        format!("path\tlabel\n{path}\ta\n"),
        format!("{{\"path\":\"{path}\"}}\n"),
    ] {
        extract_from(&scene, table.as_bytes(), &[])
            .error(1, &["standard input", "is a table", "save the table as a file"]);
    }
    // A label may have the name of a column.
    extract_from(&scene, format!("{path}\timage\n").as_bytes(), &[]).code(0);
}

#[test]
fn when_no_picture_could_be_read_train_head_says_that() {
    let scene = Scene::with_pictures();
    scene.write("t.csv", b"path,label\nnowhere/1.png,a\nnowhere/2.png,b\n");
    extract(&scene, &["t.csv"]).code(3);
    train(&scene, &["t.csv"]).error(1, &["has no picture that `extract` could read"]);
    scene.write("page.html", b"<!DOCTYPE html><p>one");
    scene.write("t.csv", b"path,label\npage.html,a\nnowhere/2.png,b\n");
    extract(&scene, &["t.csv"]).code(3);
    train(&scene, &["t.csv"]).error(1, &["has no picture that `extract` could read"]);
}

#[test]
fn only_options_of_tables_are_under_their_heading() {
    let scene = Scene::new();
    for verb in ["extract", "train-head", "cache export", "cache explain"] {
        let run = scene.run(verb.split(' ').chain(["--help"])).code(0);
        let (before, section) = run.stdout.split_once("Tables, lists and streams:").unwrap();
        let next = section.find("\nFailures:").or_else(|| section.find("\nTraining:"));
        let section = &section[..next.or_else(|| section.find("\nCommon options:")).unwrap()];
        assert!(
            before.contains("--backbone") && section.contains("--path-column"),
            "{verb}"
        );
        assert_eq!(section.matches(" --").count(), 5, "{verb}: {section}");
    }
}

#[test]
fn what_a_table_says_now_is_what_is_trained_and_its_new_pictures_are_asked_for() {
    let scene = Scene::with_pictures();
    let all = known(&scene);
    let table = |line: &dyn Fn(&Known) -> String| [&b"path,label,split\n"[..], &lines(&all, line)].concat();
    let as_is = |known: &Known| format!("{},{},{}\n", known.path, known.label, known.split);
    scene.write(
        "rows.csv",
        &[&table(&as_is)[..], b"pictures/absent.png,blue,train\n"].concat(),
    );
    let report = extract(&scene, &["rows.csv"]).code(3).json();
    assert_eq!(counts(&report), [28, 27, 0, 1]);
    assert_eq!(report["failures"][0]["reason"], "unreadable");
    assert!(report["failures"][0]["path"].as_str().unwrap().ends_with("absent.png"));
    assert_eq!(train(&scene, &["rows.csv"]).code(0).json()["failed_images"], 1);
    // Other labels, and other splits.
    scene.write(
        "rows.csv",
        &table(&|known| {
            format!(
                "{},{},train\n",
                known.path,
                if known.label == "red" { "warm" } else { "cold" }
            )
        }),
    );
    let run = train(&scene, &["rows.csv"]).code(0).says(&["taken out of train"]);
    assert_eq!(run.json()["classes"], json!(["cold", "warm"]));
    let val = run.json()["val_images"].as_u64().unwrap();
    assert!((2..18).contains(&val), "{val}");
    scene.write("rows.csv", &[&table(&as_is)[..], b"new.png,red,train\n"].concat());
    scene.write("new.png", &png(&picture(2, 70)));
    train(&scene, &["rows.csv"]).error(1, &["1 of 28 pictures", "new.png", "extract"]);
    assert_eq!(counts(&extract(&scene, &["rows.csv"]).code(0).json()), [28, 1, 27, 0]);
    assert_eq!(train(&scene, &["rows.csv"]).code(0).json()["train_images"], 19);
    // A column that is not there, and a table of nothing.
    extract(&scene, &["rows.csv", "--label-column", "Was"]).error(2, &["no column `Was`", "`path`", "`label`"]);
    scene.write("empty.csv", b"path,label\n");
    extract(&scene, &["empty.csv"]).error(1, &["empty.csv", "has no row"]);
}

#[test]
fn a_list_from_a_pipe_is_trained_on_by_its_place_or_its_name_and_not_once_a_file_changed() {
    let scene = Scene::with_pictures();
    let list = lines(&known(&scene), |known| {
        format!("{}\t{}\t{}\n", known.path, known.label, known.split)
    });
    extract_from(&scene, &list, &[]).code(0);
    extract_from(&scene, &list, &["--name", "animals"]).code(0);
    for name in ["-", "animals"] {
        assert_eq!(train(&scene, &[name]).code(0).json()["train_images"], 18, "{name}");
    }
    train(&scene, &["-", "--name", "animals"]).code(0);
    train(&scene, &["--name", "plants", "-"]).error(1, &["plants"]);
    scene.write("pictures/val/red/006.png", &png(&picture(2, 71)));
    train(&scene, &["-"]).error(1, &["1 of 27 pictures", "006.png", "`lastlayer extract -` again"]);
    train(&scene, &["animals"]).error(1, &["1 of 27 pictures", "006.png"]);
    let report = extract_from(&scene, &list, &[]).code(0).json();
    assert_eq!(counts(&report), [27, 1, 26, 0]);
    train(&scene, &["-"]).code(0);
    extract_from(&scene, b"", &[]).error(1, &["standard input", "names no picture"]);
    // A folder under a name is trained on by the name, too.
    extract(&scene, &["pictures", "--name", "mine"]).code(0);
    train(&scene, &["mine"])
        .code(0)
        .says(&["is not there: using what was remembered"]);
    scene.write("pictures/val/red/006.png", &png(&picture(2, 72)));
    train(&scene, &["mine"]).error(1, &["1 of 27 pictures", "006.png"]);
}

#[test]
fn what_was_remembered_of_a_stream_is_not_believed_of_files_of_the_same_names() {
    let scene = Scene::with_pictures();
    let all = known(&scene);
    extract_from(&scene, &tar(all.iter().flat_map(with_class)), &[]).code(0);
    let list = lines(&all, |known| format!("{}\t{}\n", known.path, known.label));
    extract_from(&scene, &tar(all.iter().flat_map(with_class)), &["--name", "rows.csv"]).code(0);
    scene.remove("pictures");
    let rows = lines(&all, |known| format!("{},{}\n", known.path, known.label));
    scene.write("rows.csv", &[&b"path,label\n"[..], &rows].concat());
    train(&scene, &["rows.csv"]).error(1, &["27 of 27 pictures"]);
    assert_eq!(counts(&extract_from(&scene, &list, &[]).code(3).json()), [27, 0, 0, 27]);
}

#[cfg(unix)]
#[test]
fn links_and_any_names_are_pictures_like_others() {
    use std::os::unix::fs::symlink;
    let scene = Scene::with_pictures();
    let all = known(&scene);
    symlink(
        scene.path("pictures/train/red/000.png"),
        scene.path("pictures/train/red/link.png"),
    )
    .unwrap();
    copy_folder(&scene.path("pictures/val/red"), &scene.path("elsewhere"));
    symlink(scene.path("elsewhere"), scene.path("pictures/train/red/linked")).unwrap();
    symlink("..", scene.path("pictures/train/red/loop")).unwrap();
    symlink("nowhere.png", scene.path("pictures/train/red/broken.png")).unwrap();
    scene.write("pictures/train/blue/two  spaces .png", &png(&picture(0, 80)));
    scene.write("pictures/train/blue/a\nnewline, \"quoted\".png", &png(&picture(0, 81)));
    // 27, the link, three in the linked folder, the broken one, two names; loops are left out.
    let mut expected = 27 + 1 + 3 + 1 + 2;
    let mut new = 2;
    if cfg!(target_os = "linux") {
        let bytes = png(&picture(0, 82));
        std::fs::write(not_utf8(&scene.path("pictures/train/blue")), bytes).unwrap();
        expected += 1;
        new += 1;
    }
    let run = scene
        .run(EXTRACT.into_iter().chain(["--json"]))
        .code(3)
        .says(&["links back", "loop"]);
    let report = run.json();
    assert_eq!(counts(&report), [expected, expected - 1, 0, 1], "{report}");
    // The link, and the linked folder's pictures, equal those in val.
    assert_eq!(report["duplicates"], 4);
    assert_eq!(report["failures"][0]["reason"], "unreadable");
    assert_eq!(
        stored_rows(&scene.path("cache")).first_key_value().unwrap().1.len(),
        27 + new
    );
    let report = scene.run(EXTRACT.into_iter().chain(["--json"])).code(3).json();
    assert_eq!(counts(&report), [expected, 0, expected - 1, 1]);
    let trained = train(&scene, &["pictures"]).code(0).json();
    assert_eq!(trained["train_images"], expected - 1 - 9);
    // The same by a list of NUL-ended names, as `find -print0` writes them.
    let mut list = Vec::new();
    for path in files_below(&scene.path("pictures/train/blue")) {
        list.extend(path.as_os_str().as_encoded_bytes());
        list.push(0);
    }
    let listed = extract_from(&scene, &list, &[]).code(0).json();
    assert_eq!(counts(&listed)[1..], [0, 6 + new as u64, 0]);
    // And in an archive.
    let mut stream = all.iter().flat_map(with_class).collect::<Vec<_>>();
    stream.push(("a b/c, \"d\".png".to_owned(), png(&picture(0, 80))));
    assert_eq!(
        counts(&extract_from(&scene, &tar(stream), &[]).code(0).json()),
        [28, 0, 28, 0]
    );
}

#[cfg(unix)]
fn not_utf8(folder: &Path) -> std::path::PathBuf {
    use std::os::unix::ffi::OsStrExt;
    folder.join(std::ffi::OsStr::from_bytes(b"caf\xe9.png"))
}

#[test]
fn a_hundred_thousand_files_in_one_folder_are_one_data_set() {
    const COUNT: u64 = 100_000;
    let scene = Scene::with_pictures();
    std::fs::create_dir_all(scene.path("many/a")).unwrap();
    scene.write("many/b/1.png", &png(&picture(1, 0)));
    let mut original = scene.path("pictures/train/blue/000.png");
    let folder = scene.path("many/a");
    for number in 0..COUNT {
        let path = folder.join(format!("{number:06}.png"));
        if std::fs::hard_link(&original, &path).is_err() {
            // A file has a limited number of links.
            std::fs::copy(&original, &path).unwrap();
            original = path;
        }
    }
    let report: Value = extract(&scene, &["many"]).code(0).json();
    assert_eq!(counts(&report), [COUNT + 1, COUNT + 1, 0, 0]);
    assert_eq!(report["duplicates"], COUNT - 1);
    assert_eq!(
        counts(&extract(&scene, &["many"]).code(0).json()),
        [COUNT + 1, 0, COUNT + 1, 0]
    );
}
