//! A client of a server that may die: it remembers what it asked, and asks again.

use reqwest::{Client as Http, Method};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::server::{ADMIN_EMAIL, ADMIN_PASSWORD, Server};

/// A request, as often as it is needed. All have a name of their own (`Idempotency-Key`).
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    method: Method,
    path: String,
    /// The name.
    pub(crate) key: String,
    session: Option<String>,
    token: Option<String>,
    pub(crate) body: Value,
}

impl Ask {
    pub(crate) fn new(method: Method, path: impl Into<String>, body: Value) -> Self {
        Self { method, path: path.into(), key: Uuid::now_v7().to_string(), session: None, token: None, body }
    }

    pub(crate) fn cart(self, session: &str) -> Self {
        Self { session: Some(session.to_owned()), ..self }
    }

    /// Whether it is about a cart that there is already.
    pub(crate) fn has_cart(&self) -> bool {
        self.session.is_some()
    }

    pub(crate) fn token(self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self }
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

/// Asks one server.
#[derive(Clone)]
pub(crate) struct Client {
    http: Http,
    base: String,
}

impl Client {
    pub(crate) fn of(server: &Server) -> Self {
        Self { http: Http::new(), base: server.base().to_owned() }
    }

    /// Sends a request; `None` when there was no whole answer.
    pub(crate) async fn send(&self, ask: &Ask) -> Option<Answer> {
        let mut request = self.http.request(ask.method.clone(), format!("{}{}", self.base, ask.path)).json(&ask.body);
        request = request.header("Idempotency-Key", &ask.key);
        if let Some(session) = &ask.session {
            request = request.header("X-Cart-Session-Id", session);
        }
        if let Some(token) = &ask.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        let replayed = response.headers().contains_key("idempotency-replayed");
        let text = response.text().await.ok()?;
        let body = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{status} {text:?}: {error}"));
        Some(Answer { status, replayed, body })
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
