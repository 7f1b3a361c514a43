//! The downloader against a server in the test.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use sha2::{Digest as _, Sha256};

use super::part::hex;
pub(crate) use super::test_server::{Answer, Server};
use super::*;
use crate::Quiet;

pub(crate) fn quick() -> Limits {
    Limits {
        connect: Duration::from_secs(5),
        stall: Duration::from_millis(300),
        tries: 2,
        pause: Duration::from_millis(1),
    }
}

/// Bytes without a period, so that a shifted range can't go unnoticed.
fn content(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(length)
    .collect()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

struct Case {
    folder: tempfile::TempDir,
    content: Vec<u8>,
}

impl Case {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            content: content(200_000),
        }
    }

    fn destination(&self) -> PathBuf {
        self.folder.path().join("models/file.onnx")
    }

    fn part(&self) -> PathBuf {
        self.folder.path().join("models/file.onnx.part")
    }

    fn leave_part(&self, bytes: &[u8]) {
        fs::create_dir_all(self.folder.path().join("models")).unwrap();
        fs::write(self.part(), bytes).unwrap();
    }

    fn fetch(&self, urls: &[String], observer: &dyn Observer) -> Result<()> {
        let download = Download {
            what: "the file",
            urls,
            sha256: &sha256(&self.content),
            size: Some(self.content.len() as u64),
            destination: &self.destination(),
        };
        fetch_within(&quick(), &download, observer)
    }

    fn assert_fetched(&self) {
        assert!(
            fs::read(self.destination()).unwrap() == self.content,
            "the file holds other bytes"
        );
        let names: Vec<_> = fs::read_dir(self.folder.path().join("models"))
            .unwrap()
            .flatten()
            .collect();
        assert_eq!(names.len(), 1, "something is left behind: {names:?}");
    }

    fn serve(&self) -> Answer {
        Answer::Serve(self.content.clone(), true)
    }
}

#[test]
fn the_test_hash_is_sha256() {
    // FIPS 180-2, appendix B.1.
    assert_eq!(
        sha256(b"abc"),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}

#[test]
fn a_file_is_fetched_through_a_redirect_and_only_once() {
    let case = Case::new();
    let serve = case.serve();
    let server = Server::new(move |path, _| {
        if path == "/old" {
            Answer::Redirect("/new")
        } else {
            serve.clone()
        }
    });
    case.fetch(&[server.url("/old")], &Quiet).unwrap();
    case.assert_fetched();
    case.fetch(&[server.url("/old")], &Quiet).unwrap();
    assert_eq!(server.ranges(), [None, None], "the second call asks nobody");
}

#[test]
fn a_part_is_continued() {
    let case = Case::new();
    let serve = case.serve();
    let server = Server::new(move |_, _| serve.clone());
    case.leave_part(&case.content[..70_000]);
    case.fetch(&[server.url("/")], &Quiet).unwrap();
    case.assert_fetched();
    assert_eq!(server.ranges(), [Some(70_000)]);
}

#[test]
fn a_finished_part_needs_no_request() {
    let case = Case::new();
    let server = Server::new(|_, _| Answer::Status(500));
    case.leave_part(&case.content);
    case.fetch(&[server.url("/")], &Quiet).unwrap();
    case.assert_fetched();
    assert_eq!(server.ranges(), []);
}

#[test]
fn a_server_that_ignores_the_range_starts_over() {
    let case = Case::new();
    let serve = Answer::Serve(case.content.clone(), false);
    let server = Server::new(move |_, _| serve.clone());
    case.leave_part(&case.content[..70_000]);
    case.fetch(&[server.url("/")], &Quiet).unwrap();
    case.assert_fetched();
    assert_eq!(server.ranges(), [Some(70_000)]);
}

#[test]
fn a_login_page_costs_no_part() {
    let page = b"<html>please log in</html>".to_vec();
    let long = content(150_000);
    let mut wrong = content(200_000);
    wrong[100] ^= 1;
    for answer in [
        Answer::Serve(page.clone(), false),
        Answer::Unsized(page),
        Answer::Unsized(long),
        Answer::Unsized(wrong.clone()),
        Answer::Serve(wrong, false),
        Answer::Unsized(content(300_000)),
        Answer::Status(416),
    ] {
        let case = Case::new();
        let portal = Server::new(move |_, _| answer.clone());
        case.leave_part(&case.content[..70_000]);
        let error = case.fetch(&[portal.url("/")], &Quiet).unwrap_err();
        assert!(
            fs::read(case.part()).unwrap() == case.content[..70_000],
            "the part is lost: {error}"
        );
        assert!(error.hint().unwrap().contains("goes on where"), "{error}");

        let serve = case.serve();
        let good = Server::new(move |_, _| serve.clone());
        case.fetch(&[portal.url("/"), good.url("/")], &Quiet).unwrap();
        case.assert_fetched();
        assert_eq!(good.ranges(), [Some(70_000)]);
    }
}

#[test]
fn a_body_of_unknown_length_is_taken_whole_or_not_at_all() {
    let case = Case::new();
    let (whole, cut, serve) = (case.content.clone(), case.content[..90_000].to_vec(), case.serve());
    let server = Server::new(move |path, _| match path {
        "/whole" => Answer::Unsized(whole.clone()),
        "/cut" => Answer::Unsized(cut.clone()),
        _ => serve.clone(),
    });
    case.fetch(&[server.url("/cut"), server.url("/good")], &Quiet).unwrap();
    case.assert_fetched();
    assert_eq!(
        server.ranges().last(),
        Some(&None),
        "nothing is put behind what was cut"
    );

    fs::remove_file(case.destination()).unwrap();
    case.leave_part(&case.content[..70_000]);
    case.fetch(&[server.url("/whole")], &Quiet).unwrap();
    case.assert_fetched();
}

#[test]
fn a_longer_beginning_of_the_whole_file_replaces_the_part() {
    let case = Case::new();
    let broken = Answer::Truncate(case.content.clone(), 90_000);
    let server = Server::new(move |_, _| broken.clone());
    case.leave_part(&case.content[..70_000]);
    case.fetch(&[server.url("/")], &Quiet).unwrap_err();
    assert!(fs::read(case.part()).unwrap() == case.content[..90_000]);
    // The same file was just reopened: what comes next must go behind its end.
    let serve = case.serve();
    let server = Server::new(move |_, number| {
        if number == 0 {
            Answer::Truncate(content(200_000), 120_000)
        } else {
            serve.clone()
        }
    });
    case.fetch(&[server.url("/")], &Quiet).unwrap();
    case.assert_fetched();
    assert_eq!(server.ranges(), [Some(90_000), Some(120_000)]);
}

#[test]
fn a_network_that_is_away_is_waited_for() {
    let case = Case::new();
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
    };
    let limits = Limits {
        tries: 3,
        pause: Duration::from_millis(100),
        ..quick()
    };
    let download = Download {
        what: "the file",
        urls: &[closed],
        sha256: "",
        size: None,
        destination: &case.destination(),
    };
    let start = Instant::now();
    let error = fetch_within(&limits, &download, &Quiet).unwrap_err();
    // 100 ms after the first try, 200 ms after the second.
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    assert!(!error.hint().unwrap().contains("goes on where"), "nothing came");
    let left = fs::read_dir(case.folder.path().join("models")).unwrap().count();
    assert_eq!(left, 0, "neither a part nor its lock is left");

    let is_again = |error| matches!(Failure::of_request(&error), Failure::Again(_));
    assert!(is_again(ureq::Error::HostNotFound) && is_again(ureq::Error::ConnectionFailed));
    assert!(!is_again(ureq::Error::BadUri(String::new())) && !is_again(ureq::Error::TooManyRedirects));
}

#[test]
fn another_range_than_asked_for_is_not_taken() {
    let case = Case::new();
    let answer = Answer::WrongRange(case.content.clone());
    let server = Server::new(move |_, _| answer.clone());
    case.leave_part(&case.content[..70_000]);
    case.fetch(&[server.url("/")], &Quiet).unwrap();
    case.assert_fetched();
    assert_eq!(server.ranges(), [Some(70_000), None]);
}

#[test]
fn a_wrong_or_too_long_part_costs_one_more_request() {
    for left in [vec![7; 70_000], vec![7; 300_000], vec![7; 200_000]] {
        let case = Case::new();
        let serve = case.serve();
        let server = Server::new(move |_, _| serve.clone());
        case.leave_part(&left);
        case.fetch(&[server.url("/")], &Quiet).unwrap();
        case.assert_fetched();
        assert_eq!(server.ranges().last(), Some(&None), "{} bytes were left", left.len());
    }
}

#[test]
fn a_broken_connection_is_taken_up_where_it_broke() {
    let case = Case::new();
    let (serve, broken) = (case.serve(), Answer::Truncate(case.content.clone(), 100_000));
    let server = Server::new(move |_, number| if number == 0 { broken.clone() } else { serve.clone() });
    case.fetch(&[server.url("/")], &Quiet).unwrap();
    case.assert_fetched();
    assert_eq!(server.ranges(), [None, Some(100_000)]);
}

#[test]
fn a_stalled_server_is_left_for_the_next_and_the_part_kept() {
    let case = Case::new();
    let (serve, stall) = (case.serve(), Answer::Stall(case.content.clone(), 10_000));
    let slow = Server::new(move |_, _| stall.clone());
    let good = Server::new(move |_, _| serve.clone());
    let start = Instant::now();
    case.fetch(&[slow.url("/"), good.url("/")], &Quiet).unwrap();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    case.assert_fetched();
    assert_eq!(good.ranges().len(), 1);
    assert!(
        good.ranges()[0].is_some(),
        "the second mirror goes on where the first stalled"
    );
}

#[test]
fn a_mirror_with_other_bytes_is_left_for_the_next() {
    let case = Case::new();
    let mut other = case.content.clone();
    other[100] ^= 1;
    let (serve, lie) = (case.serve(), Answer::Serve(other, true));
    let server = Server::new(move |path, _| if path == "/bad" { lie.clone() } else { serve.clone() });
    case.fetch(&[server.url("/bad"), server.url("/good")], &Quiet).unwrap();
    case.assert_fetched();
    assert_eq!(server.ranges(), [None, None]);
}

#[test]
fn the_error_tells_what_happened_at_each_mirror_and_nothing_wrong_is_left() {
    let case = Case::new();
    let mut other = case.content.clone();
    other[100] ^= 1;
    let hash = sha256(&other);
    let server = Server::new(move |path, _| match path {
        "/pointer" => Answer::Serve(b"version https://git-lfs.github.com/spec/v1".to_vec(), true),
        "/wrong" => Answer::Serve(other.clone(), true),
        "/busy" => Answer::Status(503),
        _ => Answer::Status(404),
    });
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
    };
    let urls = [
        server.url("/none"),
        server.url("/pointer"),
        server.url("/wrong"),
        server.url("/busy"),
        closed.clone(),
    ];
    let text = case.fetch(&urls, &Quiet).unwrap_err().to_string();
    assert!(text.starts_with("cannot fetch the file\n"), "{text}");
    assert!(text.contains(&format!("{}: HTTP 404", urls[0])), "{text}");
    assert!(
        text.contains(&format!("{}: the server's file has 42 bytes, expected 200000", urls[1])),
        "{text}"
    );
    assert!(
        text.contains(&format!(
            "{}: sha256 is {hash}, expected {}",
            urls[2],
            sha256(&case.content)
        )),
        "{text}"
    );
    assert!(text.contains(&format!("{}: HTTP 503", urls[3])), "{text}");
    assert!(text.contains(&format!("{closed}: ")), "{text}");
    assert!(!case.destination().exists());
    assert!(!case.part().exists(), "no wrong bytes are kept");
    let requests = server
        .requests
        .lock()
        .unwrap()
        .iter()
        .filter(|(path, _)| path == "/busy")
        .count();
    assert_eq!(requests, 2, "a busy server is asked as often as the limits say");
}

#[test]
fn a_truncated_file_stays_a_part() {
    let case = Case::new();
    let broken = Answer::Truncate(case.content.clone(), 10_000);
    let server = Server::new(move |_, _| broken.clone());
    let text = case.fetch(&[server.url("/")], &Quiet).unwrap_err().to_string();
    assert!(text.contains("after 10000 of 200000 bytes"), "{text}");
    assert!(!case.destination().exists());
    assert!(fs::read(case.part()).unwrap() == case.content[..10_000]);
}

/// Stops after the first bytes, and adds up what it is told.
#[derive(Default)]
struct Stopper {
    stop: AtomicBool,
    told: Mutex<u64>,
}

impl Observer for Stopper {
    fn advance(&self, count: u64) {
        *self.told.lock().unwrap() += count;
        self.stop.store(true, Ordering::Relaxed);
    }

    fn interrupted(&self) -> bool {
        self.stop.load(Ordering::Relaxed) && *self.told.lock().unwrap() > 0
    }
}

#[test]
fn an_interrupted_download_keeps_its_part() {
    let case = Case::new();
    let serve = case.serve();
    let server = Server::new(move |_, _| serve.clone());
    let observer = Stopper::default();
    let error = case.fetch(&[server.url("/")], &observer).unwrap_err();
    assert!(matches!(error, Error::Interrupted), "{error}");
    let kept = fs::read(case.part()).unwrap();
    assert_eq!(kept.len() as u64, *observer.told.lock().unwrap());
    assert!(!kept.is_empty() && kept.len() < case.content.len() && kept[..] == case.content[..kept.len()]);
    case.fetch(&[server.url("/")], &Quiet).unwrap();
    case.assert_fetched();
    assert_eq!(server.ranges(), [None, Some(kept.len() as u64)]);
}

#[test]
fn two_at_once_fetch_once() {
    let case = Case::new();
    let serve = case.serve();
    let server = Server::new(move |_, _| serve.clone());
    let urls = [server.url("/")];
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| case.fetch(&urls, &Quiet))).collect();
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
    });
    assert_eq!(server.ranges(), [None]);
    assert!(fs::read(case.destination()).unwrap() == case.content);
}

#[test]
fn content_ranges_are_parsed() {
    assert_eq!(parse_content_range("bytes 5-9/10"), Some((5, Some(10))));
    assert_eq!(parse_content_range("bytes 0-0/*"), Some((0, None)));
    assert_eq!(parse_content_range("bytes */10"), None);
    assert_eq!(parse_content_range("pages 5-9/10"), None);
}
