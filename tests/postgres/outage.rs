//! The database goes away for five seconds under load, and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use reqwest::header::RETRY_AFTER;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use sqlx::postgres::PgConnection;
use storekeeper::app::App;
use tokio::task::JoinSet;

use crate::node::Node;
use crate::nodes::config;
use crate::server::{Database, Durability, Server, connect};
use crate::stock::Stock;

/// How long the database is away.
const OUTAGE: Duration = Duration::from_secs(5);
/// How long the server lets a request take.
const DEADLINE: Duration = Duration::from_secs(3);
/// After how long a client says that a request hangs: the deadline, and what a slow machine may add.
const HANGING: Duration = Duration::from_secs(15);
/// How long the test waits for anything before it gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Clients at work at the same time.
const CLIENTS: usize = 12;
/// Answers of one kind that are enough to go on.
const ENOUGH: i64 = 40;

/// What the clients were told so far.
#[derive(Default)]
struct Told {
    carts: AtomicI64,
    orders: AtomicI64,
    refusals: AtomicI64,
    /// Of the refusals, those that did not say whether the change had happened.
    unknown: AtomicI64,
    over: AtomicBool,
}

impl Told {
    fn of(counter: &AtomicI64) -> i64 {
        counter.load(Ordering::Acquire)
    }
}

/// A client of the server.
#[derive(Clone)]
struct Buyer {
    client: Client,
    base: String,
    token: String,
    told: Arc<Told>,
}

impl Buyer {
    /// Fills carts and orders them until it is over.
    async fn shop(self, stock: Stock) {
        while !self.told.over.load(Ordering::Acquire) {
            let add = json!({"productId": stock.product, "quantity": 1});
            let Some(cart) = self.ask("/cart/add-to-cart", &add, StatusCode::OK).await else { continue };
            self.told.carts.fetch_add(1, Ordering::AcqRel);
            let checkout = json!({"cartSessionId": cart["cartSessionId"]});
            if self.ask("/orders/checkout", &checkout, StatusCode::CREATED).await.is_some() {
                self.told.orders.fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    /// The answer; `None` when it was the one refusal that an outage allows.
    async fn ask(&self, path: &str, body: &Value, wanted: StatusCode) -> Option<Value> {
        let request = self.client.request(Method::POST, format!("{}{path}", self.base)).bearer_auth(&self.token);
        let answer = request.json(body).send().await.expect("an answer, and in time");
        let (status, retry_after) = (answer.status(), answer.headers().contains_key(RETRY_AFTER));
        let body: Value = answer.json().await.expect("JSON");
        if status == wanted {
            return Some(body);
        }
        assert_eq!((status, retry_after), (StatusCode::SERVICE_UNAVAILABLE, true), "{path}: {body:#}");
        match body["applied"].as_str() {
            Some("no") => {}
            Some("unknown") => {
                self.told.unknown.fetch_add(1, Ordering::AcqRel);
            }
            other => panic!("it must say whether it was applied: {other:?}"),
        }
        self.told.refusals.fetch_add(1, Ordering::AcqRel);
        None
    }

    async fn readiness(&self) -> StatusCode {
        let answer = self.client.get(format!("{}/health/ready", self.base)).send().await;
        answer.expect("an answer, and in time").status()
    }
}

/// Looks again and again until something is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < end, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn number(connection: &mut PgConnection, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(connection).await.expect(query)
}

async fn sign_in(client: &Client, base: &str) -> String {
    let body = json!({"email": "admin@localhost", "password": "correct horse"});
    let answer = client.post(format!("{base}/auth/login")).json(&body).send().await.expect("an answer");
    let body: Value = answer.json().await.expect("JSON");
    body["accessToken"].as_str().expect("a token").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_seconds_without_the_database_cost_refusals_and_nothing_else() {
    let mut server = tokio::task::spawn_blocking(|| Server::new(Durability::Real)).await.expect("a server");
    let database = Database::of(&server);
    let mut config = config(&database);
    config.http.request_deadline = DEADLINE;
    let app = App::build(config).await.expect("it serves");
    let observer = Node::on(&database.url).await;
    let stock = observer.stock(1_000_000).await;
    let client = Client::builder().timeout(HANGING).no_proxy().build().expect("a client");
    let base = format!("http://{}", app.address());
    let token = sign_in(&client, &base).await;
    let told = Arc::new(Told::default());
    let buyer = Buyer { client, base, token, told: Arc::clone(&told) };
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(buyer.clone().shop(stock));
    }
    until("orders before the outage", async || Told::of(&told.orders) >= ENOUGH).await;

    let mut server = tokio::task::spawn_blocking(move || {
        server.stop();
        server
    })
    .await
    .expect("it stops");
    let away_since = Instant::now();
    let served = Told::of(&told.refusals);
    until("the server is not ready", async || buyer.readiness().await == StatusCode::SERVICE_UNAVAILABLE).await;
    until("five seconds of refusals", async || {
        Told::of(&told.refusals) >= served + ENOUGH && away_since.elapsed() >= OUTAGE
    })
    .await;
    let _server = tokio::task::spawn_blocking(move || {
        server.start();
        server
    })
    .await
    .expect("it starts");

    let (carts, orders) = (Told::of(&told.carts), Told::of(&told.orders));
    until("the server is ready", async || buyer.readiness().await == StatusCode::OK).await;
    until("carts and orders after the outage", async || {
        Told::of(&told.carts) >= carts + ENOUGH && Told::of(&told.orders) >= orders + ENOUGH
    })
    .await;
    told.over.store(true, Ordering::Release);
    while let Some(client) = clients.join_next().await {
        client.expect("each answer was one that may be");
    }
    drop(buyer);
    assert_kept(&told, &database).await;
    app.stop().await.expect("a clean end");
    observer.assert_in_order().await;
}

/// What was acknowledged is there; what is there beyond that was at most left unclear. Each order is confirmed once.
async fn assert_kept(told: &Told, database: &Database) {
    let mut past = connect(&database.url).await.expect("the database");
    let unknown = Told::of(&told.unknown);
    for (acknowledged, query) in [
        (Told::of(&told.carts), "SELECT count(*) FROM cart_sessions"),
        (Told::of(&told.orders), "SELECT count(*) FROM orders"),
    ] {
        let kept = number(&mut past, query).await;
        let wanted = acknowledged..=acknowledged + unknown;
        assert!(wanted.contains(&kept), "{query}: {kept}, of which {wanted:?} were acknowledged");
    }
    let unconfirmed = "SELECT (SELECT count(*) FROM orders) - (SELECT count(*) FROM emails WHERE source = 'orders')";
    until("each order is confirmed", async || number(&mut past, unconfirmed).await == 0).await;
}
