//! Tar archives and streams of them: read only where they changed, cut off, stopped, joined.

use std::time::Duration;

use serde_json::json;

use super::inputs::{Known, extract, extract_from, gzip, known, tar, train, with_class, with_json};
use crate::common::{Run, Scene, counts, picture, png};

#[test]
fn an_archive_is_read_only_where_it_changed() {
    let scene = Scene::with_pictures();
    let all = known(&scene);
    for (number, part) in all.chunks(9).enumerate() {
        scene.write(&format!("shard-{number}.tar"), &tar(part.iter().flat_map(with_class)));
    }
    // Until then a change within the same tick of the clock could not be seen.
    std::thread::sleep(Duration::from_millis(2100));
    let shards = "shard-{0..2}.tar";
    extract(&scene, &[shards]).code(0);
    let report = extract(&scene, &[shards]).code(0).json();
    assert_eq!(counts(&report), [27, 0, 27, 0]);
    assert_eq!(report["busy"]["disk"], 0.0, "nothing is read");
    let new = Known {
        path: "new.png".to_owned(),
        label: "red".to_owned(),
        split: String::new(),
        bytes: png(&picture(2, 73)),
    };
    scene.write(
        "shard-1.tar",
        &tar(all[9..18].iter().chain([&new]).flat_map(with_class)),
    );
    train(&scene, &[shards]).error(1, &["9 of 27 pictures", "shard-1.tar", "extract"]);
    assert_eq!(counts(&extract(&scene, &[shards]).code(0).json()), [28, 1, 27, 0]);
    train(&scene, &[shards]).code(0);
    scene.remove("shard-2.tar");
    extract(&scene, &[shards]).error(1, &["shard-2.tar", "does not exist"]);
}

#[test]
fn members_of_one_name_keep_their_own_rows_and_labels() {
    let scene = Scene::new();
    let member = |name: &str, class: usize, number| {
        let bytes = png(&picture(class, number));
        [
            (format!("{name}.png"), bytes),
            (format!("{name}.cls"), format!("{class}").into_bytes()),
        ]
    };
    // Two archives joined into one: their members count from 0 in both.
    let joined = tar((0..2)
        .flat_map(|class| (0..4).map(move |name| (class, name)))
        .flat_map(|(class, name)| member(&format!("{name}"), class, name)));
    scene.write("joined.tar", &joined);
    std::thread::sleep(Duration::from_millis(2100));
    for (way, computed) in [("joined.tar", 8), ("joined.tar", 0), ("-", 0), ("-", 0)] {
        let run = if way == "-" {
            extract_from(&scene, &joined, &[])
        } else {
            extract(&scene, &[way])
        };
        let run = run.code(0).says(&["4 pictures have the name of one before them"]);
        assert_eq!(counts(&run.json()), [8, computed, 8 - computed, 0]);
        assert_eq!(run.json()["problems"]["identical_with_different_labels"], json!([]));
        let export = ["cache", "export", way, "--format", "npy", "-o", "out"];
        scene.run(export).code(0);
        let table = String::from_utf8(scene.read("out.csv")).unwrap();
        assert_eq!(table.matches("#2,").count(), 4, "{table}");
        // [8, 8] f32 at the end of the file: no two rows are the same.
        let npy = scene.read("out.npy");
        let rows: std::collections::BTreeSet<&[u8]> = npy[npy.len() - 8 * 32..].chunks(32).collect();
        assert_eq!(rows.len(), 8);
    }
}

#[test]
fn of_an_archive_that_is_cut_off_what_came_before_is_kept() {
    let scene = Scene::with_pictures();
    let whole = tar(known(&scene).iter().flat_map(with_json));
    // Within the last picture.
    let cut = &whole[..whole.len() - 2048 - 100];
    scene.write("cut.tar", cut);
    let packed = gzip(&whole);
    scene.write("cut.tar.gz", &packed[..packed.len() - 500]);
    let assert_cut = |run: Run, dataset: &str| {
        let report = run.code(3).json();
        let [images, computed, reused, failed] = counts(&report);
        assert_eq!(failed, 1, "{report}");
        assert_eq!(report["failures"][0]["reason"], "truncated");
        assert!(
            (20..27).contains(&(computed + reused)) && images <= 27,
            "{dataset}: {report}"
        );
        let trained = train(&scene, &[dataset]).code(0).json();
        assert_eq!(trained["failed_images"], 1, "{dataset}");
        assert_eq!(
            trained["train_images"].as_u64().unwrap() + trained["val_images"].as_u64().unwrap(),
            images - 1
        );
    };
    for dataset in ["cut.tar", "cut.tar.gz"] {
        for _ in 0..2 {
            assert_cut(extract(&scene, &[dataset]), dataset);
        }
    }
    assert_cut(extract_from(&scene, cut, &[]), "-");
    assert_cut(extract_from(&scene, &scene.read("cut.tar.gz"), &[]), "-");
}

#[test]
fn a_stream_that_was_stopped_is_not_taken_for_the_whole() {
    let scene = Scene::with_pictures();
    let all = known(&scene);
    let broken = |number: usize| (format!("broken/{number}.png"), format!("<html>{number}").into_bytes());
    let members: Vec<_> = all.iter().flat_map(with_class).chain((0..3).map(broken)).collect();
    let stream = tar(members.into_iter().chain(all.iter().flat_map(with_json)));
    let run = extract_from(&scene, &stream, &["--max-failures", "1"]);
    run.error(1, &["more than the 1 allowed", "what was computed is kept"]);
    train(&scene, &["-"]).error(1, &["have no feature in the cache"]);
    let report = extract_from(&scene, &stream, &["--max-failures", "3"]).code(3).json();
    let [images, _, _, failed] = counts(&report);
    assert_eq!((images, failed), (57, 3), "{report}");
    train(&scene, &["-"]).code(0);
    // Of a hundred that is not known before the end.
    extract_from(&scene, &stream, &["--max-failures", "5%"]).error(1, &["3 pictures failed"]);
    extract_from(&scene, &stream, &["--max-failures", "6%"]).code(3);
    // A part does not replace the whole that is remembered.
    extract_from(&scene, &stream, &["--max-failures", "1"]).error(1, &["more than the 1 allowed"]);
    train(&scene, &["-"]).code(0);
}

#[test]
fn a_pipe_that_gives_little_at_a_time_is_still_told_for_what_it_is() {
    use std::io::Write;
    let scene = Scene::with_pictures();
    let stream = tar(known(&scene).iter().flat_map(with_class));
    let command = ["extract", "-", "--backbone", "tiny.onnx", "--json"];
    let mut child = scene.spawn(scene.command(command).stdin(std::process::Stdio::piped()));
    let mut pipe = child.stdin.take().unwrap();
    for piece in stream[..700].chunks(100) {
        pipe.write_all(piece).unwrap();
        pipe.flush().unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
    pipe.write_all(&stream[700..]).unwrap();
    drop(pipe);
    let run = Run::of(child.wait_with_output().unwrap()).code(0);
    assert_eq!(counts(&run.json()), [27, 27, 0, 0]);
}

#[test]
fn an_archive_without_a_picture_is_an_error() {
    let scene = Scene::with_pictures();
    let inner = tar(known(&scene).iter().flat_map(with_class));
    let outer = tar([("inner.tar".to_owned(), inner)]);
    for (name, bytes) in [("outer.tar", outer), ("zeros.tar", vec![0; 10_240])] {
        scene.write(name, &bytes);
        let packed = format!("{name}.gz");
        scene.write(&packed, &gzip(&bytes));
        for archive in [name, &packed] {
            extract(&scene, &[archive]).error(1, &[name, "holds no picture", "key.jpg"]);
        }
    }
    extract_from(&scene, &scene.read("outer.tar"), &[]).error(1, &["holds no picture"]);
}

#[test]
fn options_that_archives_have_no_use_for_are_told_also_of_streams() {
    let scene = Scene::with_pictures();
    let archive = tar(known(&scene).iter().flat_map(with_class));
    scene.write("a.tar.gz", &gzip(&archive));
    let said = ["--label-column: of no use here"];
    extract_from(&scene, &archive, &["--label-column", "x"])
        .code(0)
        .says(&said);
    extract(&scene, &["a.tar.gz", "--label-column", "x"])
        .code(0)
        .says(&said);
}

#[test]
fn a_picture_of_a_stream_beyond_the_limit_is_too_large() {
    let scene = Scene::with_pictures();
    let stream = tar(known(&scene).iter().flat_map(with_class));
    let report = extract_from(&scene, &stream, &["--max-file-bytes", "10"])
        .code(3)
        .json();
    assert_eq!(counts(&report), [27, 0, 0, 27]);
    assert_eq!(report["failures"][0]["reason"], "too_large");
}
