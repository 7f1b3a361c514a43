#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::Value;

use super::*;

/// An observer that profiles.
struct Profiled(Profiler);

impl Observer for Profiled {
    fn profiler(&self) -> Option<&Profiler> {
        Some(&self.0)
    }
}

fn read(path: &Path) -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_trace_has_a_named_track_for_each_thread_and_its_spans_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.json");
    let observer = Profiled(Profiler::create(&path, r#"a "quoted" process"#).unwrap());
    std::thread::scope(|scope| {
        for number in 1..=3 {
            let observer = &observer;
            scope.spawn(move || {
                name_thread(observer, || format!("thread {number}"));
                let _outer = Span::begin(observer, "outer").with("number", number);
                for _ in 0..2 {
                    let _inner = Span::begin(observer, "inner");
                    std::thread::sleep(Duration::from_millis(2));
                }
                observer.0.count("waiting", &[("pictures", number), ("tensors", 0)]);
            });
        }
    });
    observer.0.finish().unwrap();
    let events = read(&path);
    assert_eq!(events[0]["args"]["name"], r#"a "quoted" process"#);
    for number in 1..=3_u64 {
        let name = format!("thread {number}");
        let named = events
            .iter()
            .find(|event| event["args"]["name"] == name.as_str())
            .unwrap();
        let track: Vec<&Value> = events
            .iter()
            .filter(|event| event["ph"] == "X" && event["tid"] == named["tid"])
            .collect();
        let names: Vec<&str> = track.iter().map(|event| event["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["inner", "inner", "outer"], "a span is written when it ends");
        assert_eq!(track[2]["args"]["number"], number);
        let [first, second, outer] = [track[0], track[1], track[2]].map(|event| {
            let from = event["ts"].as_f64().unwrap();
            (from, from + event["dur"].as_f64().unwrap())
        });
        assert!(
            outer.0 <= first.0 && first.1 <= second.0 && second.1 <= outer.1,
            "{track:?}"
        );
        assert!(first.1 - first.0 >= 2000.0, "microseconds: {first:?}");
    }
    assert_eq!(events.iter().filter(|event| event["ph"] == "C").count(), 3);
}

#[test]
fn a_short_wait_is_not_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.json");
    let observer = Profiled(Profiler::create(&path, "waits").unwrap());
    let mut short = Span::wait(&observer, "short");
    // However slow the machine is: it has begun just now.
    short.open.as_mut().unwrap().least = Duration::MAX;
    drop(short);
    let long = Span::wait(&observer, "long");
    std::thread::sleep(LEAST_WAIT);
    drop(long);
    observer.0.finish().unwrap();
    let events = read(&path);
    let names: Vec<&Value> = events.iter().map(|event| &event["name"]).collect();
    assert_eq!(names, ["process_name", "long"]);
}

#[test]
fn a_trace_has_its_name_when_it_is_whole_and_takes_nothing_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.json");
    let observer = Profiled(Profiler::create(&path, "whole").unwrap());
    drop(Span::begin(&observer, "before"));
    assert!(!path.exists());
    observer.0.finish().unwrap();
    drop(Span::begin(&observer, "after"));
    observer.0.finish().unwrap();
    assert_eq!(read(&path).len(), 2);
}

#[test]
fn what_breaks_off_is_an_array_but_for_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.json");
    let observer = Profiled(Profiler::create(&path, "cut").unwrap());
    for _ in 0..3 {
        drop(Span::begin(&observer, "work"));
    }
    observer.0.finish().unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let events: Vec<&str> = text.trim_end().trim_end_matches(']').trim_end().split(",\n").collect();
    for count in 1..=events.len() {
        let closed = format!("{}]", events[..count].join(",\n"));
        assert_eq!(serde_json::from_str::<Vec<Value>>(&closed).unwrap().len(), count);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_reported_at_the_end_and_not_before() {
    let profiler = Profiler::create(Path::new("/dev/full"), "full").unwrap();
    let observer = Profiled(profiler);
    for _ in 0..10_000 {
        drop(Span::begin(&observer, "work"));
    }
    let error = observer.0.finish().unwrap_err().to_string();
    assert!(error.contains("/dev/full"), "{error}");
}
