//! A server whose carts are mirrored, and what is expected of the mirror.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use storekeeper::actors::command::{CartView, CheckedOut, Command, CommandError};
use storekeeper::actors::shop::{Buyer, CheckoutRequest};
use storekeeper::app::App;
use storekeeper::config::Config;
use storekeeper::domain::cart::{Cart, CartState};
use storekeeper::domain::ids::{CartKey, CartSessionId, InventoryId, UserId};
use storekeeper::domain::timestamp::Timestamp;
use storekeeper::persistence::clock::Clock;
use storekeeper::persistence::redis::RedisOptions;
use uuid::Uuid;

use crate::database::Database;
use crate::redis::Server;
use crate::stock::Stock;

/// How long a test waits for anything before it gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long [`until`] waits between two looks.
const LOOK_PERIOD: Duration = Duration::from_millis(10);

/// A server, and the database that goes with it.
pub(crate) struct Shop {
    pub(crate) app: App,
    database: Arc<Database>,
    client: Client,
}

impl Shop {
    /// A server on a database of its own, with the defaults but for what `set` changes.
    pub(crate) async fn open(redis: &str, set: impl FnOnce(&mut Config)) -> Self {
        Self::on(Arc::new(Database::new()), redis, set).await
    }

    /// A server on a database that others may use.
    pub(crate) async fn on(database: Arc<Database>, redis: &str, set: impl FnOnce(&mut Config)) -> Self {
        let mut config = database.config();
        config.http.workers = 1;
        config.admin.password = Some("correct horse".into());
        config.redis = Some(RedisOptions::of(redis).expect("an address"));
        set(&mut config);
        let app = App::build(config).await.expect("it serves");
        Self { app, database, client: Client::builder().no_proxy().build().expect("a client") }
    }

    /// A server whose mirror works.
    pub(crate) async fn mirrored(redis: &Server, set: impl FnOnce(&mut Config)) -> Self {
        let shop = Self::open(&redis.url(), set).await;
        shop.until_redis_is("up").await;
        shop
    }

    /// Stops it; everything that it had begun must be done, and the books in order.
    pub(crate) async fn stop(self) {
        let Self { app, database, client } = self;
        drop(client);
        app.stop().await.expect("a clean end");
        database.assert_in_order().await;
    }

    pub(crate) async fn until_redis_is(&self, state: &str) {
        until(&format!("redis is {state}"), async || self.redis_state().await == state).await;
    }

    /// What `/health/ready` says of Redis; the server itself is ready, whatever that is.
    pub(crate) async fn redis_state(&self) -> String {
        let url = format!("http://{}/health/ready", self.app.address());
        let answer = self.client.get(url).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        let body: Value = answer.json().await.expect("JSON");
        body["dependencies"]["redis"].as_str().expect("a state").to_owned()
    }

    /// A product with so much stock.
    pub(crate) async fn stock(&self, quantity: i64) -> Stock {
        Stock::new(self.app.store().as_ref(), quantity, Clock::system().now()).await
    }

    /// Puts units into a cart, a new one when it is `None`; gives its session.
    pub(crate) async fn add(&self, session: Option<CartSessionId>, stock: Stock, quantity: i64) -> CartSessionId {
        let added = self.app.shop().add_to_cart(session, stock.product, None, quantity, false, command()).await;
        added.expect("added").session.expect("a session")
    }

    /// Sets a line of a cart.
    pub(crate) async fn set(&self, session: CartSessionId, stock: Stock, quantity: i64) -> CartView {
        let set = self.app.shop().set_cart_item(Some(session), stock.product, quantity, command()).await;
        set.expect("set")
    }

    pub(crate) async fn clear(&self, session: CartSessionId) {
        self.app.shop().clear_cart(Some(session), command()).await.expect("cleared");
    }

    pub(crate) async fn check_out(&self, session: CartSessionId) -> Result<CheckedOut, CommandError> {
        let buyer = Buyer { user: UserId(Uuid::now_v7()), name: "Ann".to_owned(), email: "ann@example.org".to_owned() };
        let request = CheckoutRequest { session, buyer, shipping_address: None, expected_total: None };
        self.app.shop().checkout(request, command()).await
    }

    /// All open carts, as the database has them.
    pub(crate) async fn open_carts(&self) -> Vec<Cart> {
        self.app.store().open_carts((Timestamp(0), CartKey(Uuid::nil())), 100_000).await.expect("a read")
    }

    /// A cart, as the database has it.
    pub(crate) async fn cart(&self, session: CartSessionId) -> Cart {
        self.app.store().cart(session.key).await.expect("a read").expect("a cart").cart
    }
}

pub(crate) fn command<T>() -> Command<T> {
    Command { deadline: Instant::now() + PATIENCE, actor: Arc::from("test"), remember: None }
}

/// Looks again and again until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < end, "{what}: not in time");
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}

/// The lines of a cart, as the mirror is to show them.
pub(crate) fn lines_of(cart: &Cart) -> BTreeMap<String, Value> {
    let open = cart.lines.iter().filter(|_| cart.state == CartState::Open);
    let shown = |quantity: i64, inventory: InventoryId| json!({"quantity": quantity, "inventoryId": inventory});
    open.map(|line| (line.product.to_string(), shown(line.quantity, line.inventory))).collect()
}

/// The lines of a cart, as `redis-cli` sees them.
pub(crate) fn lines_in(redis: &Server, session: CartSessionId) -> BTreeMap<String, Value> {
    let said = redis.ask(&["HGETALL", &format!("cart:{session}")]);
    let said: Vec<&str> = said.lines().collect();
    let pair = |pair: &[&str]| (pair[0].to_owned(), serde_json::from_str(pair[1]).unwrap_or(Value::Null));
    said.chunks_exact(2).map(pair).collect()
}

/// Milliseconds that the two keys of a cart live yet: cart, session. -1: for ever; -2: there is none.
pub(crate) fn lives_in(redis: &Server, session: CartSessionId) -> [i64; 2] {
    ["cart", "session"]
        .map(|kind| redis.ask(&["PTTL", &format!("{kind}:{session}")]).parse().expect("a number of milliseconds"))
}

/// Whether the mirror shows a cart just as the database has it: lines, version and, within some seconds, its end.
pub(crate) fn shows(redis: &Server, cart: &Cart) -> bool {
    let lives = lives_in(redis, cart.id);
    if cart.state != CartState::Open {
        return lives == [-2, -2];
    }
    let left_ms = i64::try_from(cart.expires_at.since(Clock::system().now()).as_millis()).expect("soon");
    let ends = |life: i64| life >= 0 && (life - left_ms).abs() < 5_000;
    let version = redis.ask(&["GET", &format!("session:{}", cart.id)]);
    let hash_ends = if cart.lines.is_empty() { lives[0] == -2 } else { ends(lives[0]) };
    hash_ends && ends(lives[1]) && version == cart.version.to_string() && lines_in(redis, cart.id) == lines_of(cart)
}
