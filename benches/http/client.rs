//! A client that costs next to nothing, so that what is measured is the server: connections that stay, requests that are
//! bytes already, answers of which the head is looked at and the body is only counted.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

const HEAD_END: &[u8] = b"\r\n\r\n";

/// Requests, as bytes, each with the status that it must be answered with.
pub(crate) struct Requests {
    pub(crate) all: Vec<Vec<u8>>,
    pub(crate) status: u16,
    /// A header of the answers that is to be kept.
    pub(crate) keep: Option<&'static str>,
}

/// What came of them.
pub(crate) struct Load {
    pub(crate) took: Duration,
    /// Microseconds of each, in no order.
    pub(crate) latencies_us: Vec<u32>,
    /// The header that was to be kept, of each.
    pub(crate) kept: Vec<String>,
}

/// A `GET`, with an access token where one is needed.
pub(crate) fn get(path: &str, token: Option<&str>) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: shop\r\n{}\r\n", authorization(token)).into_bytes()
}

/// A `POST` of JSON.
pub(crate) fn post(path: &str, token: Option<&str>, body: &str) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: shop\r\ncontent-type: application/json\r\n");
    format!("{head}content-length: {}\r\n{}\r\n{body}", body.len(), authorization(token)).into_bytes()
}

fn authorization(token: Option<&str>) -> String {
    token.map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n"))
}

/// Sends so many requests over so many connections, on this thread: the requests one after the other, from the first
/// again after the last. Opening the connections is not part of the time.
pub(crate) async fn send(address: SocketAddr, connections: usize, requests: Arc<Requests>, count: usize) -> Load {
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        open.push(Connection::open(address).await);
    }
    let begun = Rc::new(AtomicUsize::new(0));
    let tasks = LocalSet::new();
    let begin = Instant::now();
    let sending: Vec<_> = open
        .into_iter()
        .map(|connection| tasks.spawn_local(work(connection, Arc::clone(&requests), Rc::clone(&begun), count)))
        .collect();
    tasks.await;
    let took = begin.elapsed();
    let mut load = Load { took, latencies_us: Vec::with_capacity(count), kept: Vec::new() };
    for ended in sending {
        let (latencies_us, kept) = ended.await.expect("a connection does not die");
        load.latencies_us.extend(latencies_us);
        load.kept.extend(kept);
    }
    load
}

async fn work(
    mut connection: Connection,
    requests: Arc<Requests>,
    begun: Rc<AtomicUsize>,
    count: usize,
) -> (Vec<u32>, Vec<String>) {
    let (mut latencies_us, mut kept) = (Vec::new(), Vec::new());
    loop {
        let number = begun.fetch_add(1, Ordering::Relaxed);
        if number >= count {
            return (latencies_us, kept);
        }
        let begin = Instant::now();
        let answer = connection.ask(&requests.all[number % requests.all.len()]).await;
        latencies_us.push(u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX));
        assert_eq!(answer.status(), requests.status, "{answer}");
        kept.extend(requests.keep.and_then(|name| answer.header(name)).map(str::to_owned));
    }
}

/// A connection that stays.
struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server takes connections");
        stream.set_nodelay(true).expect("an option of a socket");
        Self { stream, read: Vec::with_capacity(4_096) }
    }

    /// Sends a request and reads all of its answer.
    async fn ask(&mut self, request: &[u8]) -> Answer<'_> {
        self.stream.write_all(request).await.expect("the server listens");
        self.read.clear();
        let mut end = None;
        loop {
            let read = self.stream.read_buf(&mut self.read).await.expect("the server answers");
            assert!(read > 0, "the server closed a connection");
            if end.is_none() {
                end = whole(&self.read);
            }
            if let Some((head, end)) = end
                && self.read.len() >= end
            {
                assert_eq!(self.read.len(), end, "one answer to one request");
                return Answer {
                    head: std::str::from_utf8(&self.read[..head]).expect("a head is text"),
                    all: &self.read,
                };
            }
        }
    }
}

/// Where the head ends, and where the answer, when the head is there.
fn whole(read: &[u8]) -> Option<(usize, usize)> {
    let head = read.windows(HEAD_END.len()).position(|window| window == HEAD_END)?;
    let text = std::str::from_utf8(&read[..head]).expect("a head is text");
    let length = header(text, "content-length").expect("an answer says how long it is");
    Some((head, head + HEAD_END.len() + length.parse::<usize>().expect("a number")))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut headers = head.lines().filter_map(|line| line.split_once(": "));
    headers.find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value))
}

/// An answer.
struct Answer<'a> {
    head: &'a str,
    all: &'a [u8],
}

impl Answer<'_> {
    fn status(&self) -> u16 {
        self.head.get(9..12).and_then(|digits| digits.parse().ok()).expect("a status")
    }

    fn header(&self, name: &str) -> Option<&str> {
        header(self.head, name)
    }
}

impl std::fmt::Display for Answer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.all))
    }
}
