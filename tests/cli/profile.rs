//! `extract --profile`: a trace that chrome://tracing and Perfetto open.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::common::{Scene, counts};

fn trace(scene: &Scene) -> Vec<Value> {
    serde_json::from_slice(&scene.read("trace.json")).unwrap()
}

fn number(event: &Value, key: &str) -> f64 {
    event[key].as_f64().unwrap_or_else(|| panic!("no {key} in {event}"))
}

fn named<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["name"] == name).collect()
}

/// What the Chrome Trace Event Format asks of the kinds of events that are there; the spans of each track.
fn checked(events: &[Value]) -> BTreeMap<u64, Vec<(f64, f64)>> {
    let mut spans: BTreeMap<u64, Vec<(f64, f64)>> = BTreeMap::new();
    let mut tracks = BTreeSet::new();
    for event in events {
        assert!(event["name"].is_string() && event["pid"].is_u64(), "{event}");
        let track = event["tid"].as_u64().unwrap();
        match event["ph"].as_str().unwrap() {
            "X" => {
                let (from, duration) = (number(event, "ts"), number(event, "dur"));
                assert!(from >= 0.0 && duration >= 0.0, "{event}");
                spans.entry(track).or_default().push((from, from + duration));
            }
            "C" => {
                assert!(number(event, "ts") >= 0.0, "{event}");
                assert!(
                    event["args"].as_object().unwrap().values().all(Value::is_u64),
                    "{event}"
                );
            }
            "M" if event["name"] == "thread_name" => {
                assert!(tracks.insert(track), "a track has two names: {event}");
            }
            "M" => assert!(event["args"].is_object(), "{event}"),
            other => panic!("an event of kind {other}: {event}"),
        }
    }
    assert!(spans.keys().all(|track| tracks.contains(track)), "a track has no name");
    spans
}

/// Whether each two spans are apart, or one lies in the other; to a nanosecond, of which the format has the thousandth.
fn nested(spans: &[(f64, f64)]) -> bool {
    const NANOSECOND: f64 = 0.001_5;
    spans.iter().enumerate().all(|(index, one)| {
        spans[..index].iter().all(|other| {
            let apart = one.1 <= other.0 + NANOSECOND || other.1 <= one.0 + NANOSECOND;
            let inside = |inner: &(f64, f64), outer: &(f64, f64)| {
                outer.0 <= inner.0 + NANOSECOND && inner.1 <= outer.1 + NANOSECOND
            };
            apart || inside(one, other) || inside(other, one)
        })
    })
}

#[test]
fn a_trace_tells_of_every_picture_on_the_track_of_the_thread_that_worked_on_it() {
    let scene = Scene::with_pictures();
    let report = scene.extract(["--profile", "trace.json", "--threads", "2"]);
    assert_eq!(counts(&report), [27, 27, 0, 0]);
    let events = trace(&scene);
    for (track, spans) in checked(&events) {
        assert!(nested(&spans), "track {track}: {spans:?}");
    }
    let every: BTreeSet<u64> = (0..27).collect();
    for stage in ["read and hash", "decode", "resize and normalise"] {
        let pictures = named(&events, stage);
        let pictures: Vec<u64> = pictures
            .iter()
            .map(|event| event["args"]["picture"].as_u64().unwrap())
            .collect();
        assert_eq!(pictures.len(), 27, "{stage}");
        assert_eq!(pictures.into_iter().collect::<BTreeSet<u64>>(), every, "{stage}");
    }
    let sum = |name: &str, what: &str| -> u64 {
        let events = named(&events, name);
        events.iter().map(|event| event["args"][what].as_u64().unwrap()).sum()
    };
    assert_eq!((sum("infer", "batch"), sum("write rows", "rows")), (27, 27));
    assert!(!named(&events, "open session").is_empty() && !named(&events, "waiting").is_empty());
    let names: BTreeSet<&str> = named(&events, "thread_name")
        .iter()
        .map(|event| event["args"]["name"].as_str().unwrap())
        .collect();
    let threads = [
        "read 1",
        "read 2",
        "decode and infer 1",
        "decode and infer 2",
        "collect and write",
    ];
    assert!(threads.iter().all(|thread| names.contains(thread)), "{names:?}");
    // Nothing is decoded that is there; that was looked up, too.
    scene.extract(["--profile", "trace.json", "--rehash"]);
    let events = trace(&scene);
    checked(&events);
    assert_eq!(
        (named(&events, "read and hash").len(), named(&events, "decode").len()),
        (27, 0)
    );
}

#[test]
fn a_trace_changes_no_feature() {
    let scene = Scene::with_pictures();
    scene.extract(["--cache", "plain"]);
    scene.extract(["--cache", "traced", "--profile", "trace.json"]);
    assert_eq!(scene.rows("plain"), scene.rows("traced"));
}

#[test]
fn a_run_that_fails_leaves_a_whole_trace() {
    let scene = Scene::with_pictures();
    scene.write("pictures/train/red/000.png", b"no picture");
    let run = [
        "extract",
        "pictures",
        "--backbone",
        "tiny.onnx",
        "--fail-fast",
        "--profile",
        "trace.json",
    ];
    scene.run(run).error(1, &["000.png"]);
    let events = trace(&scene);
    checked(&events);
    assert!(!named(&events, "read and hash").is_empty());
}

#[test]
fn a_trace_in_a_folder_that_is_not_there_is_refused_before_any_work() {
    let scene = Scene::with_pictures();
    let run = [
        "extract",
        "pictures",
        "--backbone",
        "tiny.onnx",
        "--profile",
        "missing/trace.json",
    ];
    let run = scene.run(run).code(2);
    assert_eq!(
        run.stderr.trim_end(),
        "error: `missing/trace.json`, given as --profile, is in a folder that is not there"
    );
    assert!(!scene.path("cache").exists());
}
