//! A mail server for tests: it takes mails and keeps them, and can be told to misbehave at any moment.
//!
//! A task of the test's own runtime at a port of this machine; it ends with the test.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use storekeeper::messaging::smtp::{SmtpOptions, SmtpServer};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

/// How it treats whoever comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Takes every mail.
    Take,
    /// Accepts connections and says nothing.
    SilentFromTheStart,
    /// Takes the text up to the final dot, and says nothing before it is told to.
    SilentAfterTheDot,
    /// Cuts the connection in place of an answer to `RCPT`.
    CutAtRecipient,
    /// Cuts the connection in place of an answer to the final dot.
    CutAfterTheDot,
    /// Answers `RCPT` so.
    AtRecipient(&'static str),
    /// Answers the final dot so.
    AfterTheDot(&'static str),
}

/// A mail whose final dot has arrived.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    /// How its sender greeted.
    pub(crate) greeting: String,
    /// To whom, as `RCPT` said.
    pub(crate) recipient: String,
    /// All of it, as it came but for the doubled dots.
    pub(crate) text: String,
    /// Whether the sender was told that it is taken.
    pub(crate) taken: bool,
}

impl Arrived {
    /// A header's value; empty when there is none.
    pub(crate) fn header(&self, name: &str) -> String {
        let head = self.text.split("\r\n\r\n").next().unwrap_or_default().replace("\r\n ", " ");
        let prefix = format!("{name}: ");
        head.split("\r\n").find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default().to_owned()
    }
}

struct Shared {
    mood: Mood,
    arrived: Vec<Arrived>,
    connections: usize,
    recipients: usize,
}

/// The server.
pub(crate) struct Sink {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    speak: Arc<Notify>,
    serving: Option<JoinHandle<()>>,
}

impl Sink {
    /// One that takes every mail, at a free port.
    pub(crate) async fn start() -> Self {
        let shared = Shared { mood: Mood::Take, arrived: Vec::new(), connections: 0, recipients: 0 };
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut sink = Self { address, shared: Arc::new(Mutex::new(shared)), speak: Arc::default(), serving: None };
        sink.start_again();
        sink
    }

    /// Listens where it did before.
    pub(crate) fn start_again(&mut self) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("the port can be taken again");
        socket.bind(self.address).expect("the port is free");
        let listener = socket.listen(128).expect("it listens");
        self.address = listener.local_addr().expect("an address");
        self.serving = Some(tokio::spawn(serve(listener, Arc::clone(&self.shared), Arc::clone(&self.speak))));
    }

    /// Cuts all connections; new ones are refused.
    pub(crate) async fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            drop(serving.await);
        }
    }

    /// Treats those who come from now on, and the next command of those who are there, so.
    pub(crate) fn set(&self, mood: Mood) {
        lock(&self.shared).mood = mood;
    }

    /// Answers the final dots that it has been silent after: the mails are taken.
    pub(crate) fn speak(&self) {
        self.speak.notify_waiters();
    }

    /// What has arrived so far.
    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        lock(&self.shared).arrived.clone()
    }

    /// Connections that it has accepted so far.
    pub(crate) fn connections(&self) -> usize {
        lock(&self.shared).connections
    }

    /// Recipients that it was told so far.
    pub(crate) fn recipients(&self) -> usize {
        lock(&self.shared).recipients
    }

    /// How a shop's settings name it.
    pub(crate) fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    /// How a shop uses it.
    pub(crate) fn options(&self) -> SmtpOptions {
        SmtpOptions::of(SmtpServer::parse(&self.url()).expect("an address"))
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves until it is aborted; the connections end with it.
async fn serve(listener: TcpListener, shared: Arc<Mutex<Shared>>, speak: Arc<Notify>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        lock(&shared).connections += 1;
        while connections.try_join_next().is_some() {}
        // One that ends early, by whoever's doing, is no news.
        connections.spawn(converse(stream, Arc::clone(&shared), Arc::clone(&speak)));
    }
}

async fn converse(stream: TcpStream, shared: Arc<Mutex<Shared>>, speak: Arc<Notify>) -> Option<()> {
    let mood = || lock(&shared).mood;
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    if mood() == Mood::SilentFromTheStart {
        // Until the other side gives up.
        while line(&mut read).await.is_some() {}
        return None;
    }
    say(&mut write, "220 sink").await?;
    let (mut greeting, mut recipient) = (String::new(), String::new());
    loop {
        let command = line(&mut read).await?;
        let verb = command.get(..4).unwrap_or_default().to_ascii_uppercase();
        if verb == "RCPT" {
            lock(&shared).recipients += 1;
        }
        let answer = match (verb.as_str(), mood()) {
            ("EHLO", _) => {
                greeting = command.split(' ').nth(1).unwrap_or_default().to_owned();
                "250 sink"
            }
            ("QUIT", _) => return say(&mut write, "221 bye").await,
            ("RCPT", Mood::CutAtRecipient) => return None,
            ("RCPT", Mood::AtRecipient(answer)) => answer,
            ("RCPT", _) => {
                recipient = command.split(['<', '>']).nth(1)?.to_owned();
                "250 known"
            }
            ("DATA", _) => {
                say(&mut write, "354 go on").await?;
                let text = data(&mut read).await?;
                let arrived = Arrived { greeting: greeting.clone(), recipient: recipient.clone(), text, taken: false };
                take(&shared, &speak, &mut read, &write, arrived).await?;
                continue;
            }
            _ => "250 fine",
        };
        say(&mut write, answer).await?;
    }
}

/// Keeps a mail that has arrived, and answers it or not.
async fn take(
    shared: &Mutex<Shared>,
    speak: &Notify,
    read: &mut BufReader<OwnedReadHalf>,
    write: &OwnedWriteHalf,
    arrived: Arrived,
) -> Option<()> {
    let told = speak.notified();
    let place = {
        let mut shared = lock(shared);
        // Kept and answered in one go: whoever stops the server now stops it before or behind both.
        let place = shared.arrived.len();
        shared.arrived.push(arrived);
        match shared.mood {
            Mood::SilentAfterTheDot => place,
            Mood::CutAfterTheDot => return None,
            Mood::AfterTheDot(answer) => return now(write, answer),
            Mood::Take | Mood::SilentFromTheStart | Mood::CutAtRecipient | Mood::AtRecipient(_) => {
                shared.arrived[place].taken = true;
                return now(write, "250 taken");
            }
        }
    };
    tokio::select! {
        () = told => {
            lock(shared).arrived[place].taken = true;
            now(write, "250 taken")
        }
        // The other side gave up.
        _ = line(read) => None,
    }
}

/// Says something without waiting: there is always room for a line.
fn now(write: &OwnedWriteHalf, answer: &str) -> Option<()> {
    write.try_write(format!("{answer}\r\n").as_bytes()).ok().map(|_| ())
}

/// The text up to the final dot.
async fn data(read: &mut BufReader<OwnedReadHalf>) -> Option<String> {
    let mut text = String::new();
    loop {
        let line = line(read).await?;
        if line == "." {
            return Some(text);
        }
        text.push_str(line.strip_prefix('.').unwrap_or(&line));
        text.push_str("\r\n");
    }
}

/// The next line without its end; `None` at the end of the connection.
async fn line(read: &mut BufReader<OwnedReadHalf>) -> Option<String> {
    let mut line = String::new();
    let count = read.read_line(&mut line).await.ok()?;
    (count > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
}

async fn say(write: &mut OwnedWriteHalf, answer: &str) -> Option<()> {
    write.write_all(format!("{answer}\r\n").as_bytes()).await.ok()
}
