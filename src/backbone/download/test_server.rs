//! An HTTP server in the test, which answers each connection as the test says.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a server does with one request.
#[derive(Clone)]
pub(crate) enum Answer {
    /// Serves the bytes; honours a range if the flag is set.
    Serve(Vec<u8>, bool),
    /// Serves the bytes, and closes after so many.
    Truncate(Vec<u8>, usize),
    /// Announces the bytes, sends so many, and hangs.
    Stall(Vec<u8>, usize),
    /// Answers any range with one that starts elsewhere.
    WrongRange(Vec<u8>),
    /// Serves the bytes without saying how many there are.
    Unsized(Vec<u8>),
    /// Sends the client to this path.
    Redirect(&'static str),
    /// Answers with this status and no more.
    Status(u16),
}

/// The path of a request, and where the range it asks for begins.
pub(crate) type Request = (String, Option<u64>);

/// An HTTP server for tests: `answer` is asked for each request, by its path and its number.
pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub(crate) fn new(answer: impl Fn(&str, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (Arc::clone(&requests), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let (path, range) = read_request(&stream);
                    let number = {
                        let mut seen = seen.lock().unwrap();
                        seen.push((path.clone(), range));
                        seen.len() - 1
                    };
                    // A client that leaves is no failure of the server.
                    let _ = respond(stream, answer(&path, number), range);
                });
            }
        });
        Self { address, requests }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    /// The range that each request asked for.
    pub(crate) fn ranges(&self) -> Vec<Option<u64>> {
        self.requests.lock().unwrap().iter().map(|(_, range)| *range).collect()
    }
}

fn read_request(stream: &TcpStream) -> (String, Option<u64>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut range = None;
    for line in lines.take_while(|line| !line.is_empty()) {
        let line = line.to_ascii_lowercase();
        if let Some(start) = line
            .strip_prefix("range: bytes=")
            .and_then(|rest| rest.strip_suffix('-'))
        {
            range = start.parse().ok();
        }
    }
    (path, range)
}

fn respond(mut stream: TcpStream, answer: Answer, range: Option<u64>) -> io::Result<()> {
    let close = "connection: close\r\n\r\n";
    let whole = |length: usize| format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n{close}");
    let part = |start: usize, total: usize| {
        let (length, last) = (total - start, total - 1);
        format!(
            "HTTP/1.1 206 Partial Content\r\ncontent-length: {length}\r\ncontent-range: bytes {start}-{last}/{total}\r\n{close}"
        )
    };
    let (head, body) = match answer {
        Answer::Serve(bytes, true) if range.is_some() => {
            let start = range.unwrap_or_default() as usize;
            if start >= bytes.len() {
                return write!(
                    stream,
                    "HTTP/1.1 416 Range Not Satisfiable\r\ncontent-length: 0\r\n{close}"
                );
            }
            (part(start, bytes.len()), bytes[start..].to_vec())
        }
        Answer::Serve(bytes, _) => (whole(bytes.len()), bytes),
        Answer::Truncate(bytes, count) => (whole(bytes.len()), bytes[..count].to_vec()),
        Answer::Stall(bytes, count) => {
            stream.write_all(whole(bytes.len()).as_bytes())?;
            stream.write_all(&bytes[..count])?;
            std::thread::sleep(Duration::from_secs(20));
            return Ok(());
        }
        Answer::WrongRange(bytes) if range.is_some() => (part(1, bytes.len()), bytes[1..].to_vec()),
        Answer::WrongRange(bytes) => (whole(bytes.len()), bytes),
        Answer::Unsized(bytes) => (format!("HTTP/1.1 200 OK\r\n{close}"), bytes),
        Answer::Redirect(path) => (
            format!("HTTP/1.1 302 Found\r\nlocation: {path}\r\ncontent-length: 0\r\n{close}"),
            Vec::new(),
        ),
        Answer::Status(status) => (
            format!("HTTP/1.1 {status} Status\r\ncontent-length: 0\r\n{close}"),
            Vec::new(),
        ),
    };
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)
}
