//! What is made of stored random views: verified, collected, explained, exported, trained on, averaged.

use std::collections::BTreeMap;

use lastlayer::{Cache, Error, FeatureRequest, HeadFile, RandomViews, RowKey, labelled_features};
use serde_json::Value;

use crate::common::{CLASSES, EXTRACT, Scene, counts, stored_files};
use crate::views::{Content, content_of, rows, view_counts};

/// Puts a row with a right checksum into the cache that is not the view's feature.
fn forge(scene: &Scene, key: RowKey) {
    let cache = Cache::new(&scene.path("cache"));
    let (space, origin) = cache.spaces().unwrap().remove(0);
    let mut space = cache.create_space(&space, &origin.unwrap()).unwrap();
    let mut row = space.row(&key).unwrap().to_vec();
    row[3] += 0.1;
    space.append(&[key], &row, row.len(), "cpu", "1.0.0").unwrap();
}

#[test]
fn verify_computes_views_again_and_drops_the_one_that_is_another() {
    let scene = Scene::with_pictures();
    scene.extract(["--views", "2"]);
    let before = rows(&scene, "cache");
    let deep = |code| {
        let run = scene.run(["cache", "verify", "--json", "--deep", "100"]).code(code);
        run.json()["deep"][0].clone()
    };
    let report = deep(0);
    assert_eq!(
        (&report["compared"], &report["views_compared"]),
        (&27.into(), &36.into())
    );
    assert!(report["least_cosine"].as_f64().unwrap() > 0.999_999);
    let text = scene.run(["cache", "verify", "--deep", "100"]).code(0).stdout;
    assert!(
        text.contains("27 pictures and 36 random views of them computed again: 0 differ"),
        "{text}"
    );

    let name = "pictures/train/green/003.png";
    let key = RowKey {
        content: content_of(&scene.read(name)),
        view: 2,
    };
    forge(&scene, key);
    let report = deep(1);
    let different = report["different"].as_array().unwrap();
    assert_eq!(different.len(), 1, "{report}");
    assert_eq!(
        (&different[0]["view"], &different[0]["path"]),
        (&2.into(), &scene.path(name).to_str().unwrap().into())
    );
    let mut kept = before.clone();
    kept.remove(&(key.content, 2)).unwrap();
    assert!(rows(&scene, "cache") == kept, "that row alone is dropped");
    let report = scene.extract(["--views", "2"]);
    assert_eq!((counts(&report), view_counts(&report)), ([27, 1, 26, 0], [36, 1, 35]));
    assert!(rows(&scene, "cache") == before);
}

#[test]
fn gc_keeps_the_views_of_pictures_that_are_used() {
    let scene = Scene::with_pictures();
    scene.extract(["--views", "2"]);
    let before = rows(&scene, "cache");
    scene.run(["cache", "gc", "--now"]).code(0);
    assert!(rows(&scene, "cache") == before);
    let status = scene.run(["cache", "status", "--json"]).code(0).json();
    assert_eq!(
        (&status["spaces"][0]["rows"], &status["spaces"][0]["views"]),
        (&63.into(), &36.into())
    );
    let text = scene.run(["cache", "status"]).code(0).stdout;
    assert!(text.contains("63 rows (36 of random views)"), "{text}");

    let gone = "pictures/train/red/001.png";
    let content = content_of(&scene.read(gone));
    scene.remove(gone);
    scene.extract([]);
    scene.run(["cache", "gc", "--now"]).code(0);
    let mut expected = before;
    expected.retain(|(of, _), _| *of != content);
    assert_eq!(expected.len(), 60);
    assert!(rows(&scene, "cache") == expected);
}

#[test]
fn explain_names_the_views_there_are() {
    let scene = Scene::with_pictures();
    scene.extract(["--views", "3"]);
    scene.extract(["--views", "1", "--views-seed", "4"]);
    let explain = |arguments: &[&str]| {
        let explain = ["cache", "explain", "--backbone", "tiny.onnx"];
        scene.run(explain.into_iter().chain(arguments.iter().copied())).code(0)
    };
    let text = explain(&["pictures/train/red/001.png"]).stdout;
    let named = "a row, its checksum right; random views 1–3 of seed 0; random views 1 of seed 4";
    assert!(text.contains(named), "{text}");
    let json = explain(&["pictures/train/red/001.png", "--json"]).json();
    assert_eq!(
        json["pictures"][0]["rows"][0]["views"],
        serde_json::json!([1, 2, 3, 4 << 11 | 1])
    );
    let text = explain(&["pictures"]).stdout;
    assert!(
        text.contains("27 of 27 pictures, 72 random views, the one asked for"),
        "{text}"
    );
    let text = explain(&["pictures/val/red/007.png"]).stdout;
    assert!(!text.contains("random"), "{text}");
}

#[test]
fn export_writes_the_views_of_training_pictures_with_their_numbers() {
    let scene = Scene::with_pictures();
    scene.extract(["--views", "2", "--views-seed", "3"]);
    let stored = rows(&scene, "cache");
    let export = |arguments: &[&str]| {
        let export = ["cache", "export", "pictures", "-o", "out", "--json"];
        scene.run(export.into_iter().chain(arguments.iter().copied()))
    };
    let views = ["--views", "2", "--views-seed", "3"];
    let report = export(&views).code(0).json();
    assert_eq!((&report["images"], &report["rows"]), (&27.into(), &63.into()));
    let bytes = scene.read("out.npy");
    let dim = report["feature_dim"].as_u64().unwrap() as usize;
    let matrix = &bytes[bytes.len() - 63 * dim * 4..];
    let mut reader = csv::Reader::from_path(scene.path("out.csv")).unwrap();
    let mut numbers = BTreeMap::new();
    for (record, row) in reader.records().zip(matrix.chunks_exact(dim * 4)) {
        let record = record.unwrap();
        let view: u32 = record[3].parse().unwrap();
        let content = content_of(&scene.read(&format!("pictures/{}", &record[0])));
        assert_eq!(stored[&(content, view)], row);
        assert!(view == 0 || &record[1] == "train");
        *numbers.entry(view).or_insert(0) += 1;
    }
    assert_eq!(numbers, BTreeMap::from([(0, 27), (3 << 11 | 1, 18), (3 << 11 | 2, 18)]));
    assert_eq!(export(&[]).code(0).json()["rows"], 27, "none unless they are asked for");
    export(&["--views", "3", "--views-seed", "3"]).error(1, &["training picture", "--views 3 --views-seed 3"]);
}

#[test]
fn row_i_of_view_k_is_that_view_of_training_picture_i() {
    let scene = Scene::with_pictures();
    let cache = Cache::new(&scene.path("cache"));
    let request = |count| FeatureRequest {
        views: RandomViews::new(count, 0).unwrap(),
        ..FeatureRequest::default()
    };
    let features = |count| labelled_features(&cache, &scene.path("pictures"), &request(count));
    scene.extract(["--views", "2"]);
    let wanted = features(2).unwrap();
    assert_eq!(wanted.train_views.len(), 2);
    let stored = rows(&scene, "cache");
    let bytes =
        |row: ndarray::ArrayView1<'_, f32>| row.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let contents: BTreeMap<&Vec<u8>, Content> = stored
        .iter()
        .filter(|((_, view), _)| *view == 0)
        .map(|((content, _), row)| (row, *content))
        .collect();
    for (index, plain) in wanted.train.features.rows().into_iter().enumerate() {
        let content = contents[&bytes(plain)];
        for (number, view) in wanted.train_views.iter().enumerate() {
            assert_eq!(view.dim(), wanted.train.features.dim());
            assert_eq!(bytes(view.row(index)), stored[&(content, number as u32 + 1)]);
        }
    }
    assert!(features(0).unwrap().train_views.is_empty());

    let Err(error) = features(4) else {
        panic!("there are two views only")
    };
    assert!(
        matches!(
            error,
            Error::NoViews {
                missing: 18,
                total: 18,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("4 random views"), "{error}");
    let hint = error.hint().unwrap();
    assert!(
        hint.contains(&format!("extract {} --views 4`", scene.path("pictures").display())),
        "{hint}"
    );
    // One row that is damaged is as good as none.
    scene.add_pictures("pictures/train/red", 2, 60..61);
    scene.extract([]);
    let Err(error) = features(2) else {
        panic!("the new picture has no views")
    };
    assert!(
        matches!(
            error,
            Error::NoViews {
                missing: 1,
                total: 19,
                ..
            }
        ),
        "{error}"
    );
}

fn top(scene: &Scene, arguments: &[&str]) -> Vec<Value> {
    let predict = ["predict", "--head", "head.safetensors", "--json", "--top-k", "3"];
    let run = scene.run(predict.into_iter().chain(arguments.iter().copied()));
    run.code(0).json_lines()
}

#[test]
fn tta_averages_the_probabilities_of_the_plain_and_the_random_views() {
    let scene = Scene::trained();
    scene.extract(["--views", "3"]);
    let file = HeadFile::load(scene.path("head.safetensors")).unwrap();
    let stored = rows(&scene, "cache");
    let folder = "pictures/train/red";
    let averaged = top(&scene, &["--tta", "3", folder]);
    assert_eq!(averaged.len(), 6);
    let mut moved = 0.0_f64;
    for (answer, plain) in averaged.iter().zip(top(&scene, &[folder])) {
        let content = content_of(&std::fs::read(scene.path(answer["path"].as_str().unwrap())).unwrap());
        let mut mean = vec![0.0_f64; CLASSES.len()];
        for view in 0..=3 {
            let (row, _) = stored[&(content, view)].as_chunks::<4>();
            let row: Vec<f64> = row.iter().map(|value| f64::from(f32::from_le_bytes(*value))).collect();
            let (weight, bias) = (file.head.weight(), file.head.bias());
            let logits = weight.rows().into_iter().zip(bias);
            let logits: Vec<f64> = logits
                .map(|(weight, bias)| {
                    let products = weight
                        .iter()
                        .zip(&row)
                        .map(|(weight, value)| f64::from(*weight) * value);
                    products.sum::<f64>() + f64::from(*bias)
                })
                .collect();
            let total: f64 = logits.iter().map(|logit| logit.exp()).sum();
            for (mean, logit) in mean.iter_mut().zip(&logits) {
                *mean += logit.exp() / total / 4.0;
            }
        }
        let ranked = answer["top"].as_array().unwrap();
        let probabilities: Vec<f64> = ranked
            .iter()
            .map(|class| class["probability"].as_f64().unwrap())
            .collect();
        assert!(probabilities.is_sorted_by(|left, right| left >= right), "{answer}");
        for class in ranked {
            let number = CLASSES.iter().position(|name| class["label"] == *name).unwrap();
            // Logits are summed in f32.
            assert!(
                (class["probability"].as_f64().unwrap() - mean[number]).abs() < 1e-5,
                "{answer} {mean:?}"
            );
        }
        let keys = |answer: &Value| -> Vec<String> { answer.as_object().unwrap().keys().cloned().collect() };
        assert_eq!(keys(answer), keys(&plain));
        moved = moved.max((answer["probability"].as_f64().unwrap() - plain["probability"].as_f64().unwrap()).abs());
    }
    assert!(moved > 1e-4, "views that change nothing would prove nothing");
}

#[test]
fn tta_takes_the_views_that_the_cache_has_and_draws_the_others_alike() {
    let scene = Scene::trained();
    scene.extract(["--views", "3"]);
    let names = ["pictures/train/blue", "pictures/val/red"];
    let files = stored_files(&scene.path("cache"));
    let wanted = top(&scene, &["--tta", "3", names[0], names[1]]);
    // Nothing, some views, or all there: it comes to the same.
    for prepared in [&[][..], &["--views", "1"]] {
        if !prepared.is_empty() {
            let extract = EXTRACT.into_iter().chain(["--cache", "some"]);
            scene.run(extract.chain(prepared.iter().copied())).code(0);
        }
        assert_eq!(
            top(&scene, &["--tta", "3", "--cache", "some", names[0], names[1]]),
            wanted
        );
    }
    assert_ne!(top(&scene, &["--tta", "3", "--views-seed", "1", names[0]]), wanted[..6]);
    assert_eq!(
        stored_files(&scene.path("cache")),
        files,
        "predict writes nothing into a cache"
    );
    // All are there: no backbone is needed.
    scene.remove("tiny.onnx");
    assert_eq!(top(&scene, &["--tta", "3", names[0]]), wanted[..6]);
    let predict = ["predict", "--head", "head.safetensors", "--tta", "4", names[0]];
    scene.run(predict).code(2);
}
