//! A client of a server that may die: it remembers what it asked, and asks again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::server::{ADMIN_EMAIL, ADMIN_PASSWORD, Server};
use crate::wire::{Connection, Ending, Endings, Reply, Request};

/// How often each of several servers may refuse one request: while one is started again, the others are there.
const REFUSALS_MAX: usize = 5;

/// A request, as often as it is needed. All have a name of their own (`Idempotency-Key`).
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    method: Method,
    path: String,
    /// The name.
    pub(crate) key: String,
    session: Option<String>,
    authorization: Option<String>,
    pub(crate) body: Value,
}

impl Ask {
    pub(crate) fn new(method: Method, path: impl Into<String>, body: Value) -> Self {
        Self { method, path: path.into(), key: Uuid::now_v7().to_string(), session: None, authorization: None, body }
    }

    pub(crate) fn cart(self, session: &str) -> Self {
        Self { session: Some(session.to_owned()), ..self }
    }

    /// Whether it is about a cart that there is already.
    pub(crate) fn has_cart(&self) -> bool {
        self.session.is_some()
    }

    pub(crate) fn token(self, token: &str) -> Self {
        Self { authorization: Some(format!("Bearer {token}")), ..self }
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) replayed: bool,
    pub(crate) body: Value,
}

impl Answer {
    #[track_caller]
    fn of(reply: &Reply) -> Self {
        let text = String::from_utf8_lossy(&reply.body);
        let status = reply.status;
        let body = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{status} {text:?}: {error}"));
        Self { status, replayed: reply.header("idempotency-replayed").is_some(), body }
    }

    /// Whether it is a refusal with that code.
    pub(crate) fn is(&self, code: &str) -> bool {
        self.body["code"] == code
    }

    /// Whether it leaves open whether the change has happened.
    pub(crate) fn is_open(&self) -> bool {
        self.status >= 500 && self.body["applied"] != "no"
    }

    /// A member that is a text.
    #[track_caller]
    pub(crate) fn text(&self, member: &str) -> String {
        self.body[member].as_str().unwrap_or_else(|| panic!("no text {member} in {self:?}")).to_owned()
    }
}

/// Asks one server, or one of several for as long as it is there, over one connection at a time. Clones have connections
/// of their own, begin with one server after the other, and count together how requests end.
pub(crate) struct Client {
    addresses: Arc<[String]>,
    endings: Arc<Endings>,
    clones: Arc<AtomicUsize>,
    line: Mutex<Line>,
}

/// The connection at hand, and the server whose turn it is when there is none.
#[derive(Default)]
struct Line {
    connection: Option<Connection>,
    turn: usize,
}

impl Clone for Client {
    fn clone(&self) -> Self {
        let Self { addresses, endings, clones, .. } = self;
        let line = Line { connection: None, turn: clones.fetch_add(1, Ordering::Relaxed) };
        Self {
            addresses: Arc::clone(addresses),
            endings: Arc::clone(endings),
            clones: Arc::clone(clones),
            line: Mutex::new(line),
        }
    }
}

impl Client {
    pub(crate) fn of(server: &Server) -> Self {
        Self::of_each(&[server])
    }

    /// One who knows several servers on the same database.
    pub(crate) fn of_each(servers: &[&Server]) -> Self {
        let addresses = servers.iter().map(|server| server.address().to_owned()).collect();
        Self { addresses, endings: Arc::default(), clones: Arc::default(), line: Mutex::default() }
    }

    /// How requests ended that had no whole answer.
    pub(crate) fn endings(&self) -> &Arc<Endings> {
        &self.endings
    }

    /// Sends a request; `None` when there was no whole answer. What an idle connection was closed upon is sent once
    /// more over another one, and must not have happened.
    pub(crate) async fn send(&self, ask: &Ask) -> Option<Answer> {
        let mut line = self.line.lock().await;
        let mut was_closed = false;
        loop {
            let mut connection = match line.connection.take() {
                Some(connection) => connection,
                None => self.connect(&mut line.turn).await?,
            };
            match connection.ask(&request(ask)).await {
                Ok(reply) => {
                    line.connection = reply.goes_on().then_some(connection);
                    let answer = Answer::of(&reply);
                    assert!(!(was_closed && answer.replayed), "it was done, and not answered: {ask:?}: {answer:?}");
                    return Some(answer);
                }
                Err(Ending::Closed) => {
                    self.endings.count(Ending::Closed);
                    was_closed = true;
                }
                Err(other) => {
                    self.endings.count(other);
                    return None;
                }
            }
        }
    }

    /// Connects to the next server that takes the connection, if there is one.
    async fn connect(&self, turn: &mut usize) -> Option<Connection> {
        let servers = self.addresses.len();
        let tries = if servers > 1 { servers * REFUSALS_MAX } else { 1 };
        for _ in 0..tries {
            *turn = (*turn + 1) % servers;
            match Connection::open(&self.addresses[*turn]).await {
                Ok(connection) => return Some(connection),
                Err(ending) => {
                    let is_refused = ending == Ending::Refused;
                    self.endings.count(ending);
                    if !is_refused {
                        return None;
                    }
                }
            }
        }
        None
    }

    /// Sends a request that must have the status.
    pub(crate) async fn expect(&self, status: u16, ask: &Ask) -> Answer {
        let answer = self.send(ask).await.expect("the server answers");
        assert_eq!(answer.status, status, "{ask:?}: {answer:?}");
        answer
    }

    /// Signs the administrator in; gives their access token.
    pub(crate) async fn sign_in(&self) -> String {
        let body = json!({"email": ADMIN_EMAIL, "password": ADMIN_PASSWORD});
        self.expect(200, &Ask::new(Method::POST, "/auth/login", body)).await.text("accessToken")
    }

    /// Makes a published product with so much in stock; gives its id and its stock record's. `cents` is its price.
    pub(crate) async fn product(&self, token: &str, cents: i64, quantity: i64) -> (String, String) {
        let price: Value = serde_json::from_str(&format!("{}.{:02}", cents / 100, cents % 100)).expect("a number");
        let sku = Uuid::now_v7().simple().to_string();
        let body = json!({"sku": sku, "name": "A thing", "price": price, "status": "PUBLISHED", "quantity": quantity});
        let made = self.expect(201, &Ask::new(Method::POST, "/products", body).token(token)).await;
        (made.text("id"), made.text("inventoryId"))
    }
}

fn request(ask: &Ask) -> Request<'_> {
    let mut headers = vec![("content-type", "application/json"), ("idempotency-key", ask.key.as_str())];
    headers.extend(ask.session.as_deref().map(|session| ("x-cart-session-id", session)));
    headers.extend(ask.authorization.as_deref().map(|authorization| ("authorization", authorization)));
    Request { method: ask.method.as_str(), path: &ask.path, headers, body: ask.body.to_string() }
}
