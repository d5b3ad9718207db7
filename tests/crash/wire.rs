//! HTTP/1.1 over one connection at a time, told exactly how each request ends: no client's library that repeats,
//! pools or forgives stands between.

use std::fmt::Write;
use std::io::{self, ErrorKind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// How a request ends that has no whole answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// There is nobody at the address. Nothing was sent.
    Refused,
    /// The connection had carried answers before, and ended without a byte of this one. HTTP knows no way round that:
    /// a server may close an idle connection while a request is on its way to it.
    Closed,
    /// Anything else: a connection that was accepted and then ended without an answer, or in the middle of one.
    Broken(String),
}

/// How often requests ended without a whole answer.
#[derive(Debug, Default)]
pub(crate) struct Endings {
    refused: AtomicUsize,
    closed: AtomicUsize,
    broken: Mutex<Vec<String>>,
}

impl Endings {
    pub(crate) fn count(&self, ending: Ending) {
        match ending {
            Ending::Refused => drop(self.refused.fetch_add(1, Ordering::Relaxed)),
            Ending::Closed => drop(self.closed.fetch_add(1, Ordering::Relaxed)),
            Ending::Broken(how) => self.broken.lock().expect("no panic").push(how),
        }
    }

    pub(crate) fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn closed(&self) -> usize {
        self.closed.load(Ordering::Relaxed)
    }

    /// What was broken, and how.
    pub(crate) fn broken(&self) -> Vec<String> {
        self.broken.lock().expect("no panic").clone()
    }
}

/// What is asked.
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) headers: Vec<(&'static str, &'a str)>,
    pub(crate) body: String,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// Whether the connection goes on after it.
    pub(crate) fn goes_on(&self) -> bool {
        !self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// A connection.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
    address: String,
    answers: usize,
}

impl Connection {
    /// Connects to an address and port.
    pub(crate) async fn open(address: &str) -> Result<Self, Ending> {
        match TcpStream::connect(address).await {
            Ok(stream) => Ok(Self { stream: BufReader::new(stream), address: address.to_owned(), answers: 0 }),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Err(Ending::Refused),
            Err(error) => Err(Ending::Broken(format!("connecting to {address}: {error}"))),
        }
    }

    /// Asks, and waits for the whole answer.
    pub(crate) async fn ask(&mut self, request: &Request<'_>) -> Result<Reply, Ending> {
        let Request { method, path, headers, body } = request;
        let (address, length) = (&self.address, body.len());
        let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {length}\r\n");
        for (name, value) in headers {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        let _ = write!(text, "\r\n{body}");
        // Where it could not be sent there may be an answer all the same, so it is looked for in any case.
        let sent = self.stream.get_mut().write_all(text.as_bytes()).await;
        let mut read = String::new();
        match self.read(&mut read).await {
            Ok(reply) => {
                self.answers += 1;
                Ok(reply)
            }
            Err(_) if read.is_empty() && self.answers > 0 => Err(Ending::Closed),
            Err(error) => {
                let before = self.answers;
                Err(Ending::Broken(format!("{method} {path} after {before} answers: {sent:?}, {read:?}, {error}")))
            }
        }
    }

    /// Reads an answer; `head` is what was read of its head, however that ends.
    async fn read(&mut self, head: &mut String) -> io::Result<Reply> {
        let malformed = || io::Error::from(ErrorKind::InvalidData);
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(head).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
        let pair = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let headers: Option<Vec<(String, String)>> = lines.map(pair).collect();
        let mut reply =
            Reply { status: status.ok_or_else(malformed)?, headers: headers.ok_or_else(malformed)?, body: Vec::new() };
        let length = match reply.header("content-length") {
            Some(length) => length.parse().map_err(|_| malformed())?,
            None => 0,
        };
        reply.body.resize(length, 0);
        self.stream.read_exact(&mut reply.body).await?;
        Ok(reply)
    }
}
