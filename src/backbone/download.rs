//! Fetches one file over HTTP so that it is either complete and verified at its destination, or not there at all.
//!
//! Models and the ONNX Runtime archive are tens of megabytes and come over bad lines: a stopped download goes on where it
//! stopped, a mirror that lies or hangs is left for the next. What is fetched, and from where, is its callers' business.

mod lock;
mod part;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lock::release;
pub(crate) use lock::{STAGING, lock, sweep};
use part::Part;
pub(crate) use part::sha256_of_file;

use crate::{Error, Observer, Result, Unit};

/// Bytes after which a broken connection counts as progress and not as a failed try.
const PROGRESS_BYTES: u64 = 64 * 1024;

/// One file to fetch.
#[derive(Debug)]
pub(crate) struct Download<'a> {
    /// What it is, for progress and errors.
    pub(crate) what: &'a str,
    /// Where it can be had; tried in this order.
    pub(crate) urls: &'a [String],
    /// The SHA-256 of the whole file, 64 hex digits.
    pub(crate) sha256: &'a str,
    /// The length in bytes, where it is known.
    pub(crate) size: Option<u64>,
    /// Where it goes; while incomplete, `<destination>.part` is written.
    pub(crate) destination: &'a Path,
}

/// How long to wait for a server, and how often to try again.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// For a name to resolve, and again for a connection to stand. Default: 5 s.
    pub(crate) connect: Duration,
    /// Without a single byte arriving. Default: 30 s.
    pub(crate) stall: Duration,
    /// Tries in a row that bring nothing before a mirror is given up. Default: 3.
    pub(crate) tries: u32,
    /// Before trying a server again. Default: 1 s.
    pub(crate) pause: Duration,
}

/// How long it is worth waiting for a network that does not answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Patience {
    /// As long as a slow or broken connection may need.
    #[default]
    Usual,
    /// Seconds: there is something else that would do.
    Short,
}

impl Patience {
    /// The limits of a download.
    pub(crate) fn limits(self) -> Limits {
        match self {
            Self::Usual => Limits::default(),
            Self::Short => Limits {
                connect: Duration::from_secs(3),
                stall: Duration::from_secs(5),
                tries: 1,
                pause: Duration::ZERO,
            },
        }
    }

    /// How long `pip` may go without a byte arriving.
    pub(crate) fn silence(self) -> Duration {
        match self {
            Self::Usual => Duration::from_secs(90),
            Self::Short => Duration::from_secs(8),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            stall: Duration::from_secs(30),
            tries: 3,
            pause: Duration::from_secs(1),
        }
    }
}

/// Fetches `download` within `limits`.
///
/// # Errors
/// [`Error::Fetch`] with what happened at each URL, [`Error::Interrupted`], or [`Error::Io`] for the disk.
pub(crate) fn fetch_within(limits: &Limits, download: &Download<'_>, observer: &dyn Observer) -> Result<()> {
    if let Some(folder) = download.destination.parent() {
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    }
    let part_path = with_suffix(download.destination, ".part");
    let lock_path = with_suffix(download.destination, ".part.lock");
    let lock = lock(&lock_path, observer)?;
    // Of a run that was killed.
    let _ = fs::remove_file(with_suffix(&part_path, ".new"));
    // Whoever held the lock before may have fetched it.
    let outcome = match is_complete(download) {
        Ok(true) => Ok(()),
        Ok(false) => fetch_locked(limits, download, observer),
        Err(error) => Err(error),
    };
    if outcome.is_ok() || fs::metadata(&part_path).is_ok_and(|metadata| metadata.len() == 0) {
        let _ = fs::remove_file(&part_path);
    }
    // Where something is left to resume, the lock is soon needed again.
    if !part_path.exists() {
        release(lock, &lock_path);
    }
    outcome
}

fn fetch_locked(limits: &Limits, download: &Download<'_>, observer: &dyn Observer) -> Result<()> {
    let agent = agent(limits);
    let mut part = Part::open(&with_suffix(download.destination, ".part"))?;
    if download.size.is_some_and(|size| part.length > size) {
        part.restart()?;
    }
    let mut attempts = Vec::new();
    for url in download.urls {
        match fetch_from(url, limits, &agent, download, &mut part, observer)? {
            Ok(()) => return part.persist(download.destination),
            Err(reason) => attempts.push(format!("{url}: {reason}")),
        }
    }
    Err(Error::Fetch {
        what: download.what.to_owned(),
        attempts,
        resumes: part.length > 0,
    })
}

/// Tries one mirror until it has given the verified file, or a reason to give it up.
fn fetch_from(
    url: &str,
    limits: &Limits,
    agent: &ureq::Agent,
    download: &Download<'_>,
    part: &mut Part,
    observer: &dyn Observer,
) -> Result<Result<(), String>> {
    let mut fruitless = 0;
    loop {
        let before = part.length;
        let failure = if download.size == Some(before) && before > 0 {
            None
        } else {
            observer.begin(download.what, download.size, Unit::Bytes);
            let outcome = transfer(url, agent, download, part, observer);
            observer.end();
            outcome?.err()
        };
        let failure = match failure {
            None => {
                let found = part.hash();
                if found.eq_ignore_ascii_case(download.sha256) {
                    return Ok(Ok(()));
                }
                part.restart()?;
                let reason = format!("sha256 is {found}, expected {}", download.sha256);
                // With a resumed beginning it may be that which is wrong, and not this mirror.
                if before > 0 {
                    Failure::Again(reason)
                } else {
                    Failure::GiveUp(reason)
                }
            }
            Some(failure) => failure,
        };
        let reason = match failure {
            Failure::GiveUp(reason) => return Ok(Err(reason)),
            Failure::Again(reason) => reason,
        };
        fruitless = if part.length >= before + PROGRESS_BYTES {
            0
        } else {
            fruitless + 1
        };
        if fruitless >= limits.tries {
            return Ok(Err(reason));
        }
        if observer.interrupted() {
            return Err(Error::Interrupted);
        }
        // A little longer each time: a connection that dropped takes seconds to come back.
        std::thread::sleep(limits.pause * fruitless.max(1));
    }
}

/// Why one request did not bring the file.
enum Failure {
    /// The same mirror may well succeed.
    Again(String),
    /// It will not.
    GiveUp(String),
}

impl Failure {
    /// Of a request that got no answer: a network comes back, a wrong address or certificate stays wrong.
    fn of_request(error: &ureq::Error) -> Self {
        use ureq::Error::{ConnectionFailed, HostNotFound, Io, Timeout};
        match error {
            Io(_) | Timeout(_) | HostNotFound | ConnectionFailed => Self::Again(error.to_string()),
            _ => Self::GiveUp(error.to_string()),
        }
    }
}

/// One request: appends what comes to `part`.
fn transfer(
    url: &str,
    agent: &ureq::Agent,
    download: &Download<'_>,
    part: &mut Part,
    observer: &dyn Observer,
) -> Result<Result<(), Failure>> {
    // Ranges count bytes of the file itself, so no compression on the way.
    let mut request = agent.get(url).header("accept-encoding", "identity");
    if part.length > 0 {
        request = request.header("range", format!("bytes={}-", part.length));
    }
    let mut response = match request.call() {
        Ok(response) => response,
        Err(error) => return Ok(Err(Failure::of_request(&error))),
    };
    let status = response.status();
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let announced = match status.as_u16() {
        206 => match header("content-range").and_then(parse_content_range) {
            Some((start, total)) if start == part.length => total,
            _ => {
                part.restart()?;
                return Ok(Err(Failure::Again(
                    "the server answered with another range than asked for".to_owned(),
                )));
            }
        },
        200 => header("content-length").and_then(|value| value.parse().ok()),
        416 if download.size.is_some_and(|size| part.length < size) => {
            return Ok(Err(Failure::GiveUp(
                "the server has less than is here already (HTTP 416)".to_owned(),
            )));
        }
        416 => {
            part.restart()?;
            return Ok(Err(Failure::Again(
                "the server has less than is here already (HTTP 416)".to_owned(),
            )));
        }
        408 | 429 | 500.. => return Ok(Err(Failure::Again(format!("HTTP {status}")))),
        _ => return Ok(Err(Failure::GiveUp(format!("HTTP {status}")))),
    };
    if let (Some(announced), Some(size)) = (announced, download.size)
        && announced != size
    {
        return Ok(Err(Failure::GiveUp(format!(
            "the server's file has {announced} bytes, expected {size}"
        ))));
    }
    let expected = download.size.or(announced);
    let mut body = response.body_mut().with_config().limit(u64::MAX).reader();
    // The whole file though a part is here, or a body that does not say how long it is: what comes may be a login page.
    if status == 200 && (part.length > 0 || announced.is_none()) {
        let mut whole = Part::open(&with_suffix(&part.path, ".new"))?;
        whole.restart()?;
        let outcome = receive(&mut body, expected, &mut whole, observer);
        let is_whole = matches!(outcome, Ok(Ok(())));
        let is_right = is_whole && whole.hash().eq_ignore_ascii_case(download.sha256);
        let is_more = !is_whole && announced.is_some() && whole.length > part.length;
        if is_right || is_more {
            part.replace_by(whole)?;
        } else {
            let found = whole.hash();
            whole.remove();
            if is_whole {
                let reason = format!("sha256 is {found}, expected {}", download.sha256);
                return Ok(Err(Failure::GiveUp(reason)));
            }
        }
        return outcome;
    }
    receive(&mut body, expected, part, observer)
}

/// Appends a response's body to `part`.
fn receive(
    body: &mut impl io::Read,
    expected: Option<u64>,
    part: &mut Part,
    observer: &dyn Observer,
) -> Result<Result<(), Failure>> {
    observer.advance(part.length);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        if observer.interrupted() {
            part.flush()?;
            return Err(Error::Interrupted);
        }
        let count = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let progress = progress(part.length, expected);
                return Ok(Err(Failure::Again(format!(
                    "the connection broke after {progress}: {error}"
                ))));
            }
        };
        part.append(&buffer[..count])?;
        observer.advance(count as u64);
        if expected.is_some_and(|expected| part.length > expected) {
            part.restart()?;
            return Ok(Err(Failure::GiveUp(
                "the server sends more than the file's length".to_owned(),
            )));
        }
    }
    if expected.is_some_and(|expected| part.length < expected) {
        let progress = progress(part.length, expected);
        return Ok(Err(Failure::Again(format!("the server ended after {progress}"))));
    }
    Ok(Ok(()))
}

/// Fetches a small text, such as a release's description; at most one MiB.
pub(crate) fn fetch_text(url: &str, limits: &Limits) -> Result<String, String> {
    let mut response = agent(limits).get(url).call().map_err(|error| error.to_string())?;
    match response.status().as_u16() {
        200 => {}
        status @ (403 | 429) => {
            return Err(format!(
                "HTTP {status}: the server limits how many requests an address may make, and refuses more for now; try \
                 again in an hour"
            ));
        }
        status => return Err(format!("HTTP {status}")),
    }
    response
        .body_mut()
        .with_config()
        .limit(1 << 20)
        .read_to_string()
        .map_err(|error| error.to_string())
}

fn agent(limits: &Limits) -> ureq::Agent {
    let tls = ureq::tls::TlsConfig::builder()
        .root_certs(ureq::tls::RootCerts::PlatformVerifier)
        .build();
    ureq::Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .timeout_resolve(Some(limits.connect))
        .timeout_connect(Some(limits.connect))
        .timeout_recv_response(Some(limits.stall))
        .timeout_per_read(Some(limits.stall))
        .timeout_per_write(Some(limits.stall))
        .user_agent(concat!("lastlayer/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

fn is_complete(download: &Download<'_>) -> Result<bool> {
    Ok(download.destination.is_file() && sha256_of_file(download.destination)?.eq_ignore_ascii_case(download.sha256))
}

/// `bytes 5-9/10` as `(5, Some(10))`; a total of `*` is `None`.
fn parse_content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.trim().parse().ok()?, total.trim().parse().ok()))
}

fn progress(length: u64, expected: Option<u64>) -> String {
    match expected {
        Some(expected) => format!("{length} of {expected} bytes"),
        None => format!("{length} bytes"),
    }
}

/// `path` with `suffix` behind its file name.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
pub(crate) mod test_server;

#[cfg(test)]
#[path = "download_tests.rs"]
pub(crate) mod tests;
