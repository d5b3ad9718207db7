//! A mail server for tests: it takes mails and keeps them, and can be told to misbehave at any moment.
//!
//! A task of the test's own runtime at a port of this machine; it ends with the test.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use storekeeper::messaging::smtp::{SmtpOptions, SmtpServer};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Notify, RwLock};
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
    /// Cuts the connection in place of an answer to `DATA`.
    CutAtData,
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

struct State {
    mood: Mood,
    arrived: Vec<Arrived>,
    connections: usize,
    recipients: usize,
}

/// What the connections share.
struct Shared {
    state: Mutex<State>,
    /// Has those answer who are silent after the final dot.
    speak: Notify,
    /// Held while a mail comes in, from the server's "go on" to its answer.
    receiving: RwLock<()>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server.
pub(crate) struct Sink {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: Option<JoinHandle<()>>,
}

impl Sink {
    /// One that takes every mail, at a free port.
    pub(crate) async fn start() -> Self {
        let state = State { mood: Mood::Take, arrived: Vec::new(), connections: 0, recipients: 0 };
        let shared = Shared { state: Mutex::new(state), speak: Notify::new(), receiving: RwLock::new(()) };
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut sink = Self { address, shared: Arc::new(shared), serving: None };
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
        self.serving = Some(tokio::spawn(serve(listener, Arc::clone(&self.shared))));
    }

    /// Cuts all connections, as a server that is told to stop does: not in the middle of a mail that it answers. New
    /// ones are refused.
    pub(crate) async fn stop(&mut self) {
        let _nothing_comes_in = self.shared.receiving.write().await;
        if let Some(serving) = self.serving.take() {
            serving.abort();
            drop(serving.await);
        }
    }

    /// Treats those who come from now on, and the next command of those who are there, so.
    pub(crate) fn set(&self, mood: Mood) {
        self.shared.state().mood = mood;
    }

    /// Answers the final dots that it has been silent after: the mails are taken.
    pub(crate) fn speak(&self) {
        self.shared.speak.notify_waiters();
    }

    /// What has arrived so far.
    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.shared.state().arrived.clone()
    }

    /// Connections that it has accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.state().connections
    }

    /// Recipients that it was told so far.
    pub(crate) fn recipients(&self) -> usize {
        self.shared.state().recipients
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

/// Serves until it is aborted; the connections end with it.
async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        shared.state().connections += 1;
        while connections.try_join_next().is_some() {}
        let (read, write) = stream.into_split();
        let connection = Connection { read: BufReader::new(read), write, shared: Arc::clone(&shared) };
        // One that ends early, by whoever's doing, is no news.
        connections.spawn(connection.converse());
    }
}

/// What became of a text.
enum Received {
    /// It is answered.
    Answered,
    /// It is kept in this place, and nothing is said of it.
    Silent(usize),
}

struct Connection {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    shared: Arc<Shared>,
}

impl Connection {
    async fn converse(mut self) -> Option<()> {
        if self.mood() == Mood::SilentFromTheStart {
            // Until the other side gives up.
            while self.line().await.is_some() {}
            return None;
        }
        self.say("220 sink").await?;
        let (mut greeting, mut recipient) = (String::new(), String::new());
        loop {
            let command = self.line().await?;
            let verb = command.get(..4).unwrap_or_default().to_ascii_uppercase();
            let answer = match (verb.as_str(), self.mood()) {
                ("EHLO", _) => {
                    greeting = command.split(' ').nth(1).unwrap_or_default().to_owned();
                    "250 sink"
                }
                ("RCPT", mood) => {
                    self.shared.state().recipients += 1;
                    recipient = command.split(['<', '>']).nth(1)?.to_owned();
                    match mood {
                        Mood::CutAtRecipient => return None,
                        Mood::AtRecipient(answer) => answer,
                        Mood::Take
                        | Mood::SilentFromTheStart
                        | Mood::CutAtData
                        | Mood::SilentAfterTheDot
                        | Mood::CutAfterTheDot
                        | Mood::AfterTheDot(_) => "250 known",
                    }
                }
                ("DATA", Mood::CutAtData) => return None,
                ("DATA", _) => {
                    self.receive(&greeting, &recipient).await?;
                    continue;
                }
                ("QUIT", _) => return self.say("221 bye").await,
                _ => "250 fine",
            };
            self.say(answer).await?;
        }
    }

    /// Has a text come in; answers it, sooner or later.
    async fn receive(&mut self, greeting: &str, recipient: &str) -> Option<()> {
        let shared = Arc::clone(&self.shared);
        // Whoever is told from now on is told of this mail too.
        let told = shared.speak.notified();
        match self.text(greeting, recipient).await? {
            Received::Answered => Some(()),
            Received::Silent(place) => {
                tokio::select! {
                    () = told => {
                        shared.state().arrived[place].taken = true;
                        self.say("250 taken").await
                    }
                    // The other side gave up.
                    _ = self.line() => None,
                }
            }
        }
    }

    async fn text(&mut self, greeting: &str, recipient: &str) -> Option<Received> {
        let shared = Arc::clone(&self.shared);
        let _coming_in = shared.receiving.read().await;
        self.say("354 go on").await?;
        let mut text = String::new();
        loop {
            let line = self.line().await?;
            if line == "." {
                break;
            }
            text.push_str(line.strip_prefix('.').unwrap_or(&line));
            text.push_str("\r\n");
        }
        let mood = self.mood();
        let taken = match mood {
            Mood::SilentAfterTheDot | Mood::CutAfterTheDot | Mood::AfterTheDot(_) => false,
            Mood::Take | Mood::SilentFromTheStart | Mood::CutAtRecipient | Mood::CutAtData | Mood::AtRecipient(_) => {
                true
            }
        };
        let place = {
            // Before it is answered: whoever has the answer finds the mail here.
            let arrived = &mut shared.state().arrived;
            arrived.push(Arrived { greeting: greeting.to_owned(), recipient: recipient.to_owned(), text, taken });
            arrived.len() - 1
        };
        match mood {
            Mood::SilentAfterTheDot => return Some(Received::Silent(place)),
            Mood::CutAfterTheDot => return None,
            Mood::AfterTheDot(answer) => self.say(answer).await?,
            Mood::Take | Mood::SilentFromTheStart | Mood::CutAtRecipient | Mood::CutAtData | Mood::AtRecipient(_) => {
                self.say("250 taken").await?;
            }
        }
        Some(Received::Answered)
    }

    fn mood(&self) -> Mood {
        self.shared.state().mood
    }

    /// The next line without its end; `None` at the end of the connection.
    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let count = self.read.read_line(&mut line).await.ok()?;
        (count > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
    }

    async fn say(&mut self, answer: &str) -> Option<()> {
        self.write.write_all(format!("{answer}\r\n").as_bytes()).await.ok()
    }
}
