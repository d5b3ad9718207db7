//! The shop's API as a client sees it.

use std::net::SocketAddr;
use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use storekeeper::domain::timestamp::Timestamp;
use storekeeper::persistence::records::Account;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Buyer;
use super::books::{Level, Row};

/// Seconds that a token lives: longer than any test.
const TOKEN_LIFE_SECONDS: i64 = 30 * 86_400;
/// How long an idle connection is kept: less than the server does, so that none is used while it is being closed.
const IDLE_CONNECTION_LIFE: Duration = Duration::from_secs(2);

/// A product that is sold, and its stock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// The product's id.
    pub(crate) product: String,
    /// The stock record's id.
    pub(crate) inventory: String,
}

/// Asks one shop. Clones share their connections.
#[derive(Clone)]
pub(crate) struct Api {
    client: Client,
    base: String,
    admin: String,
}

/// A request that is not sent yet.
pub(crate) struct Ask(RequestBuilder);

/// What a request came to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body, which is JSON in every answer.
    pub(crate) body: Value,
}

impl Api {
    pub(super) fn new(address: SocketAddr, admin: String) -> Self {
        let client = Client::builder().pool_idle_timeout(IDLE_CONNECTION_LIFE).build().expect("a client");
        Self { client, base: format!("http://{address}"), admin }
    }

    /// A request by nobody in particular.
    pub(crate) fn ask(&self, method: Method, path: &str) -> Ask {
        Ask(self.client.request(method, format!("{}{path}", self.base)))
    }

    /// A request by the administrator.
    pub(crate) fn ask_as_admin(&self, method: Method, path: &str) -> Ask {
        self.ask(method, path).token(&self.admin)
    }

    /// A published product with so much in stock. `price` is in dollars.
    pub(crate) async fn item(&self, price: &str, quantity: i64) -> Item {
        let sku = format!("SKU-{}", Uuid::now_v7().simple());
        let price: Value = serde_json::from_str(price).expect("a number");
        let product =
            json!({"sku": sku, "name": "A thing", "price": price, "status": "PUBLISHED", "quantity": quantity});
        let made = self.ask_as_admin(Method::POST, "/products").json(&product).send().await.expect_status(201);
        Item { product: made.text("id"), inventory: made.text("inventoryId") }
    }

    /// Puts units into a cart; without a session, into a new one.
    pub(crate) fn add(&self, session: Option<&str>, item: &Item, quantity: i64) -> Ask {
        let body = json!({"productId": item.product, "quantity": quantity});
        let ask = self.ask(Method::POST, "/cart/add-to-cart").json(&body);
        match session {
            Some(session) => ask.cart(session),
            None => ask,
        }
    }

    /// A new cart with so many units of one product; gives its session.
    pub(crate) async fn cart_with(&self, item: &Item, quantity: i64) -> String {
        self.add(None, item, quantity).send().await.expect_status(200).text("cartSessionId")
    }

    /// What is in a cart.
    pub(crate) async fn cart(&self, session: &str) -> Answer {
        self.ask(Method::GET, "/cart/me").cart(session).send().await.expect_status(200)
    }

    /// Ends a cart.
    pub(crate) fn clear(&self, session: &str) -> Ask {
        self.ask(Method::DELETE, "/cart").cart(session)
    }

    /// Takes a product out of a cart.
    pub(crate) fn remove(&self, session: &str, item: &Item) -> Ask {
        self.ask(Method::DELETE, &format!("/cart/items/{}", item.product)).cart(session)
    }

    /// Makes an order of a cart.
    pub(crate) fn checkout(&self, buyer: &Buyer, session: &str) -> Ask {
        self.ask(Method::POST, "/orders/checkout").token(&buyer.token).json(&json!({"cartSessionId": session}))
    }

    /// Calls an order off.
    pub(crate) fn cancel(&self, buyer: &Buyer, order: &str) -> Ask {
        self.ask(Method::POST, &format!("/orders/{order}/cancel")).token(&buyer.token)
    }

    /// Changes stock by hand; `action` is `IN` or `OUT`.
    pub(crate) fn move_stock(&self, item: &Item, action: &str, quantity: i64) -> Ask {
        let body = json!({"actionType": action, "quantity": quantity});
        self.ask_as_admin(Method::PUT, &format!("/inventories/{}", item.inventory)).json(&body)
    }

    /// What is in stock, as its actor knows it.
    pub(crate) async fn level(&self, item: &Item) -> Level {
        let path = format!("/inventories/{}", item.inventory);
        Level::of(&self.ask_as_admin(Method::GET, &path).send().await.expect_status(200).body)
    }

    /// The whole ledger of an item, oldest row first. It is an unbroken chain that ends at what is in stock.
    pub(crate) async fn ledger(&self, item: &Item) -> Vec<Row> {
        let path = format!("/inventories/{}/details", item.inventory);
        let (mut rows, mut level, mut cursor) = (Vec::new(), None, String::new());
        loop {
            let page = self.ask_as_admin(Method::GET, &format!("{path}?limit=100{cursor}")).send().await;
            let page = page.expect_status(200).body;
            level.get_or_insert_with(|| Level::of(&page));
            let histories = &page["histories"];
            rows.extend(histories["data"].as_array().expect("a list").iter().map(Row::of));
            match histories["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        rows.reverse();
        super::books::assert_chain(&rows, level.expect("a page"));
        rows
    }

    /// All orders there are, newest first.
    pub(crate) async fn orders(&self) -> Vec<Value> {
        let (mut orders, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.ask_as_admin(Method::GET, &format!("/orders?limit=100{cursor}")).send().await;
            let page = page.expect_status(200).body;
            orders.extend(page["data"].as_array().expect("a list").iter().cloned());
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return orders,
            }
        }
    }
}

impl Ask {
    /// With an access token.
    pub(crate) fn token(self, token: &str) -> Self {
        Self(self.0.bearer_auth(token))
    }

    /// With a cart session.
    pub(crate) fn cart(self, session: &str) -> Self {
        Self(self.0.header("X-Cart-Session-Id", session))
    }

    /// With a name of its own.
    pub(crate) fn key(self, key: &str) -> Self {
        Self(self.0.header("Idempotency-Key", key))
    }

    /// With a body.
    pub(crate) fn json(self, body: &Value) -> Self {
        Self(self.0.json(body))
    }

    /// Sends it.
    pub(crate) async fn send(self) -> Answer {
        let response = self.0.send().await.expect("the server answers");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.expect("a body");
        let body = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{status} {text:?}: {error}"));
        Answer { status, headers, body }
    }
}

impl Answer {
    /// This answer, which must have the status.
    #[track_caller]
    pub(crate) fn expect_status(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:#}", self.body);
        self
    }

    /// This answer, which must be a refusal with the status and the code.
    #[track_caller]
    pub(crate) fn expect_refusal(self, status: u16, code: &str) -> Self {
        assert_eq!((self.status, self.code()), (status, code), "{:#}", self.body);
        self
    }

    /// The code of a refusal; empty in a success.
    pub(crate) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// A member that is a text.
    #[track_caller]
    pub(crate) fn text(&self, member: &str) -> String {
        let text = self.body[member].as_str();
        text.unwrap_or_else(|| panic!("no text {member} in {:#}", self.body)).to_owned()
    }

    /// Whether it is the kept answer of an earlier request.
    pub(crate) fn is_replayed(&self) -> bool {
        self.headers.get("idempotency-replayed").is_some_and(|value| value == "true")
    }

    /// When the shown cart ends.
    #[track_caller]
    pub(crate) fn expires_at(&self) -> Timestamp {
        super::books::timestamp(&self.body["expiresAt"])
    }
}

/// An access token for an account.
pub(super) fn token(secret: &str, account: &Account) -> String {
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let claims = json!({
        "sub": account.id, "email": account.email.as_str(), "name": account.name, "role": account.role.name(),
        "iat": now, "exp": now + TOKEN_LIFE_SECONDS, "jti": Uuid::now_v7(),
    });
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).expect("a token")
}

/// An amount of dollars in cents.
#[track_caller]
pub(crate) fn cents(amount: &Value) -> i64 {
    let text = amount.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    format!("{whole}{fraction:0<2}").parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}
