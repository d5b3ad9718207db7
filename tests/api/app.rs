//! A server to test, and a client that talks to it. The only place that knows how a server is started.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use storekeeper::app::App;
use storekeeper::config::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::services::Services;

pub(crate) const ADMIN_EMAIL: &str = "admin@example.org";
pub(crate) const PASSWORD: &str = "correct horse";
/// How long an idle connection is kept: less than the server does, so that none is used while it is being closed.
const IDLE_CONNECTION_LIFE: Duration = Duration::from_secs(2);
/// How long a test waits for what happens by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How long it waits between two looks.
const LOOK_PERIOD: Duration = Duration::from_millis(5);

/// A running server.
pub(crate) struct TestApp {
    app: App,
    services: Services,
    client: Client,
    base: String,
    pub admin: String,
}

/// Somebody who has registered, verified and signed in.
pub(crate) struct Buyer {
    pub id: String,
    pub email: String,
    pub token: String,
    pub refresh_token: String,
}

/// A published product with stock.
pub(crate) struct Product {
    pub id: String,
    pub inventory: String,
}

impl TestApp {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(settings: impl FnOnce(&mut Config)) -> Self {
        let services = Services::new().await;
        let mut config = services.config();
        config.http.workers = 1;
        config.admin.email = storekeeper::domain::user::EmailAddress::parse(ADMIN_EMAIL).expect("an address");
        config.admin.password = Some(PASSWORD.into());
        settings(&mut config);
        let app = App::build(config).await.expect("a server");
        let base = format!("http://{}", app.address());
        let client = Client::builder().no_proxy().pool_idle_timeout(IDLE_CONNECTION_LIFE).build().expect("a client");
        let mut started = Self { app, services, client, base, admin: String::new() };
        started.admin = started.sign_in(ADMIN_EMAIL, PASSWORD).await.text_at("accessToken");
        started
    }

    /// Stops the server; everything that it had begun must be done.
    pub(crate) async fn stop(self) {
        let Self { app, services, client, .. } = self;
        // A stopping server waits for its clients' idle connections.
        drop(client);
        app.stop().await.expect("a clean end");
        services.database.assert_in_order().await;
    }

    /// From now on the database does not answer.
    pub(crate) async fn lose_the_database(&self) {
        self.app.store().close().await;
    }

    pub(crate) fn ask(&self, method: Method, path: &str) -> Ask {
        Ask(self.client.request(method, format!("{}{path}", self.base)))
    }

    pub(crate) fn get(&self, path: &str) -> Ask {
        self.ask(Method::GET, path)
    }

    /// Asks again and again, as the administrator, until the answer is as it should be; gives it.
    pub(crate) async fn until(&self, path: &str, is_right: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let answer = self.get(path).token(&self.admin).send().await.expect(200).body;
            if is_right(&answer) {
                return answer;
            }
            assert!(Instant::now() < end, "{path}: not as it should be within {PATIENCE:?}: {answer}");
            tokio::time::sleep(LOOK_PERIOD).await;
        }
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Ask {
        self.ask(Method::POST, path).json(body)
    }

    pub(crate) fn put(&self, path: &str, body: &Value) -> Ask {
        self.ask(Method::PUT, path).json(body)
    }

    pub(crate) fn patch(&self, path: &str, body: &Value) -> Ask {
        self.ask(Method::PATCH, path).json(body)
    }

    pub(crate) fn delete(&self, path: &str) -> Ask {
        self.ask(Method::DELETE, path)
    }

    /// Sends so many bytes in pieces, without saying how many there will be; gives the answer letter for letter.
    pub(crate) async fn send_without_length(
        &self,
        method: &Method,
        path: &str,
        token: Option<&str>,
        bytes: usize,
    ) -> String {
        let mut connection = TcpStream::connect(self.app.address()).await.expect("a connection");
        let sign_in = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n{sign_in}\
             Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        connection.write_all(head.as_bytes()).await.expect("sent");
        let piece = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
        for _ in 0..bytes.div_ceil(0x10000) {
            connection.write_all(piece.as_bytes()).await.expect("sent");
        }
        connection.write_all(b"0\r\n\r\n").await.expect("sent");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    pub(crate) async fn sign_in(&self, email: &str, password: &str) -> Reply {
        self.post("/auth/login", &json!({"email": email, "password": password})).send().await
    }

    pub(crate) async fn register(&self, name: &str) -> Reply {
        let body = json!({"email": format!("{name}@example.org"), "password": PASSWORD, "name": name});
        self.post("/auth/register", &body).send().await
    }

    /// The code in the newest mail to an address.
    pub(crate) async fn mailed_code(&self, email: &str) -> String {
        let mails = self.get(&format!("/emails?recipient={email}&limit=1")).token(&self.admin).send().await;
        let body = mails.body["data"][0]["body"].as_str().expect("a mail").to_owned();
        let digits = |part: &&str| part.len() == 6 && part.bytes().all(|byte| byte.is_ascii_digit());
        body.split(|c: char| !c.is_ascii_digit()).find(digits).expect("a code in the mail").to_owned()
    }

    /// Registers, verifies and signs in.
    pub(crate) async fn buyer(&self, name: &str) -> Buyer {
        let registered = self.register(name).await.expect(201);
        let email = format!("{name}@example.org");
        let code = self.mailed_code(&email).await;
        self.post("/auth/verify-email", &json!({"email": email, "code": code})).send().await.expect(200);
        let signed_in = self.sign_in(&email, PASSWORD).await.expect(200);
        Buyer {
            id: registered.body["user"]["id"].as_str().expect("an id").to_owned(),
            email,
            token: signed_in.text_at("accessToken"),
            refresh_token: signed_in.text_at("refreshToken"),
        }
    }

    /// A published product with so many units.
    pub(crate) async fn product(&self, sku: &str, price: Value, quantity: i64) -> Product {
        let body = json!({"sku": sku, "name": format!("Product {sku}"), "price": price, "status": "PUBLISHED", "quantity": quantity});
        let made = self.post("/products", &body).token(&self.admin).send().await.expect(201);
        Product { id: made.text_at("id"), inventory: made.text_at("inventoryId") }
    }

    /// A new cart with so many units of a product; gives its session.
    pub(crate) async fn cart(&self, product: &Product, quantity: i64) -> String {
        let body = json!({"productId": product.id, "quantity": quantity});
        self.post("/cart/add-to-cart", &body).send().await.expect(200).text_at("cartSessionId")
    }

    /// An order of so many units; gives its id.
    pub(crate) async fn order(&self, buyer: &Buyer, product: &Product, quantity: i64) -> String {
        let session = self.cart(product, quantity).await;
        let body = json!({"cartSessionId": session});
        self.post("/orders/checkout", &body).token(&buyer.token).send().await.expect(201).text_at("id")
    }

    /// What can be sold, what is there and what is held.
    pub(crate) async fn stock(&self, product: &Product) -> (i64, i64, i64) {
        let path = format!("/inventories/{}", product.inventory);
        let stock = self.get(&path).token(&self.admin).send().await.expect(200);
        let number = |member: &str| stock.body[member].as_i64().expect("a number");
        (number("quantity"), number("onHand"), number("held"))
    }
}

/// A request that is being put together.
pub(crate) struct Ask(RequestBuilder);

impl Ask {
    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        Self(self.0.header(name, value))
    }

    pub(crate) fn token(self, token: &str) -> Self {
        Self(self.0.bearer_auth(token))
    }

    pub(crate) fn session(self, session: &str) -> Self {
        self.header("X-Cart-Session-Id", session)
    }

    pub(crate) fn key(self, key: &str) -> Self {
        self.header("Idempotency-Key", key)
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        Self(self.0.json(body))
    }

    /// A body letter for letter, as JSON.
    pub(crate) fn raw(self, body: impl Into<reqwest::Body>) -> Self {
        Self(self.0.header("content-type", "application/json").body(body))
    }

    /// A body of another type.
    pub(crate) fn typed(self, kind: &str, body: &str) -> Self {
        Self(self.0.header("content-type", kind).body(body.to_owned()))
    }

    pub(crate) async fn send(self) -> Reply {
        let response = self.0.send().await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.expect("a body");
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Reply { status, headers, text, body }
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
    pub body: Value,
}

impl Reply {
    /// The same, when its status is this.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    /// The same, when it is a problem of this status and code, with everything that a problem has.
    #[track_caller]
    pub(crate) fn problem(self, status: u16, code: &str) -> Self {
        assert_eq!((self.status, self.body["code"].as_str()), (status, Some(code)), "{}", self.text);
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["detail"], self.body["message"]);
        assert_eq!(self.body["instance"].as_str(), self.header("x-request-id"));
        assert!(self.body["type"].is_string() && self.body["title"].is_string(), "{}", self.text);
        assert_eq!(status == 503, self.header("retry-after").is_some() && status != 409, "{}", self.text);
        assert_eq!(status >= 500, self.body["applied"].is_string(), "{}", self.text);
        assert_eq!(status == 401, self.header("www-authenticate").is_some(), "{}", self.text);
        self
    }

    /// The fields that a validation problem names.
    #[track_caller]
    pub(crate) fn bad_fields(self) -> BTreeSet<String> {
        let problem = self.problem(400, "validation_failed");
        let errors = problem.body["errors"].as_array().expect("errors");
        let details = errors.iter().all(|error| error["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
        assert!(details, "{}", problem.text);
        errors.iter().map(|error| error["field"].as_str().expect("a name").to_owned()).collect()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    #[track_caller]
    pub(crate) fn text_at(&self, member: &str) -> String {
        self.body[member].as_str().unwrap_or_else(|| panic!("no text {member} in {}", self.text)).to_owned()
    }

    /// The cart's session, which header and body agree on.
    #[track_caller]
    pub(crate) fn session(&self) -> String {
        let session = self.text_at("cartSessionId");
        assert_eq!(self.header("x-cart-session-id"), Some(session.as_str()));
        session
    }
}

/// The names of an object's members, sorted.
#[track_caller]
pub(crate) fn members(object: &Value) -> Vec<&str> {
    let mut names: Vec<_> = object.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// Whether a text is a time as the contract has it: `2026-11-22T09:30:00.000Z`.
pub(crate) fn is_time(value: &Value) -> bool {
    let shape = |text: &str| text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect::<String>();
    value.as_str().is_some_and(|text| shape(text) == "0000-00-00T00:00:00.000Z")
}
