//! Two whole servers beside each other on one database: what one does the other finds out, and in time.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use storekeeper::actors::command::{CartView, Command, CommandError};
use storekeeper::actors::shop::{Buyer, CheckoutRequest, Shop, StockRequest};
use storekeeper::app::App;
use storekeeper::config::{Config, StoreConfig};
use storekeeper::domain::ids::UserId;
use storekeeper::domain::money::Money;
use storekeeper::domain::stock::{Action, Reason};
use storekeeper::persistence::postgres::PostgresOptions;
use storekeeper::persistence::records::{EmailStatus, NewEmail, ProductChange, ProductPatch};
use storekeeper::persistence::{Catalogue, Outbox};
use uuid::Uuid;

use crate::node::Node;
use crate::server::Database;
use crate::stock::Stock;

/// How long it may take until one server has found out what another did, before the test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// The configuration of a server on a database.
pub(crate) fn config(database: &Database) -> Config {
    let mut config = Config::embedded(Path::new("unused")).expect("the defaults are usable");
    config.store = StoreConfig::Postgres(PostgresOptions { url: database.url.clone(), pool: 4 });
    config.http.workers = 1;
    config.admin.password = Some("correct horse".into());
    config
}

/// A command that nobody waits for longer than [`PATIENCE`].
pub(crate) fn command<T>() -> Command<T> {
    Command { deadline: Instant::now() + PATIENCE, actor: Arc::from("test"), remember: None }
}

/// Puts a unit into a new cart.
async fn hold(shop: &Shop, stock: &Stock) -> Result<(), CommandError> {
    shop.add_to_cart(None, stock.product, None, 1, false, command()).await.map(|_| ())
}

/// Asks again and again until a server has found out what another did: it shows and refuses by what is in the database,
/// or was a moment ago.
async fn found_out<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = ask().await {
            return seen;
        }
        assert!(Instant::now() < end, "it has not found out within {PATIENCE:?}");
    }
}

fn receipt(stock: &Stock, units: i64) -> StockRequest {
    StockRequest { inventory: stock.inventory, action: Action::In, units, reason: Reason::Receipt, reference: None }
}

struct Pair {
    here: App,
    elsewhere: App,
    observer: Node,
    _database: Database,
}

impl Pair {
    async fn start() -> Self {
        let database = Database::new();
        let here = App::build(config(&database)).await.expect("it serves");
        let elsewhere = App::build(config(&database)).await.expect("it serves");
        let observer = Node::on(&database.url).await;
        Self { here, elsewhere, observer, _database: database }
    }

    async fn stop(self) {
        self.here.stop().await.expect("a clean end");
        self.elsewhere.stop().await.expect("a clean end");
        self.observer.assert_in_order().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storekeeper_who_only_refuses_learns_that_units_have_come() {
    let pair = Pair::start().await;
    let stock = pair.observer.stock(1).await;
    hold(pair.here.shop(), &stock).await.expect("the last unit");
    let refused = hold(pair.here.shop(), &stock).await;
    assert!(matches!(refused, Err(CommandError::InsufficientStock { available: 0 })), "{refused:?}");

    pair.elsewhere.shop().change_stock(receipt(&stock, 5), command()).await.expect("five more");
    let end = Instant::now() + PATIENCE;
    let mut refusals = 0;
    while let Err(error) = hold(pair.here.shop(), &stock).await {
        assert!(matches!(error, CommandError::InsufficientStock { .. }), "{error:?}");
        refusals += 1;
        assert!(Instant::now() < end, "refused {refusals} times, though there are units");
    }
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_and_price_are_shown_as_another_server_left_them() {
    let pair = Pair::start().await;
    let stock = pair.observer.stock(7).await;
    let (here, elsewhere) = (pair.here.shop(), pair.elsewhere.shop());
    assert_eq!(here.available(stock.inventory, Instant::now() + PATIENCE).await.expect("an answer"), 7);
    assert_eq!(here.product(stock.product).await.expect("an answer").map(|product| product.price), Some(Money(100)));

    elsewhere.change_stock(receipt(&stock, 3), command()).await.expect("three more");
    let dearer = ProductPatch { price: Some(Money(250)), ..ProductPatch::default() };
    let now = pair.observer.clock.now();
    let changed = pair.observer.store.patch_product(stock.product, &dearer, None, now).await.expect("a change");
    assert!(matches!(changed, ProductChange::Changed(_)), "{changed:?}");

    let end = Instant::now() + PATIENCE;
    while here.available(stock.inventory, Instant::now() + PATIENCE).await.expect("an answer") != 10 {
        assert!(Instant::now() < end, "the stock of before is still shown");
    }
    while here.product(stock.product).await.expect("an answer").map(|product| product.price) != Some(Money(250)) {
        assert!(Instant::now() < end, "the price of before is still shown");
    }
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cart_is_everywhere_as_the_last_server_left_it() {
    let pair = Pair::start().await;
    let (lamp, shade) = (pair.observer.stock(10).await, pair.observer.stock(10).await);
    let (here, elsewhere) = (pair.here.shop(), pair.elsewhere.shop());
    let quantities = |view: &CartView| view.lines.iter().map(|line| (line.product, line.quantity)).collect::<Vec<_>>();
    let opened = here.add_to_cart(None, lamp.product, None, 1, false, command()).await.expect("a cart");
    let session = opened.session;
    for round in 1..=5 {
        // Both have an actor for it by now, and each knows of its own changes only.
        here.set_cart_item(session, lamp.product, round, command()).await.expect("a change here");
        elsewhere.add_to_cart(session, shade.product, None, 1, false, command()).await.expect("a change elsewhere");
        let both = vec![(lamp.product, round), (shade.product, 1)];
        found_out(async || {
            let shown = here.cart(session, Instant::now() + PATIENCE).await.expect("a cart");
            (quantities(&shown) == both).then_some(())
        })
        .await;
        // A line that only the other one knows of is taken out.
        elsewhere.set_cart_item(session, shade.product, 0, command()).await.expect("its own line");
        elsewhere.add_to_cart(session, shade.product, None, 2, false, command()).await.expect("again");
        found_out(async || here.set_cart_item(session, shade.product, 0, command()).await.ok()).await;
    }
    elsewhere.clear_cart(session, command()).await.expect("an end");
    found_out(async || here.set_cart_item(session, lamp.product, 1, command()).await.err()).await;
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkout_sells_what_another_server_put_into_the_cart() {
    let pair = Pair::start().await;
    let (lamp, shade) = (pair.observer.stock(10).await, pair.observer.stock(10).await);
    let (here, elsewhere) = (pair.here.shop(), pair.elsewhere.shop());
    let opened = here.add_to_cart(None, lamp.product, None, 1, false, command()).await.expect("a cart");
    let session = opened.session.expect("a session");
    here.set_cart_item(Some(session), lamp.product, 0, command()).await.expect("an empty cart, as it is known here");
    elsewhere.add_to_cart(Some(session), shade.product, None, 3, false, command()).await.expect("a line");
    let buyer = Buyer { user: UserId(Uuid::now_v7()), name: "Ann".to_owned(), email: "ann@example.org".to_owned() };
    let request = CheckoutRequest { session, buyer, shipping_address: None, expected_total: Some(Money(300)) };
    let order = found_out(async || here.checkout(request.clone(), command()).await.ok()).await.order;
    assert_eq!(order.lines.iter().map(|line| line.line.quantity).collect::<Vec<_>>(), [3]);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkout_of_a_cart_that_another_server_has_changed_sells_what_is_in_it() {
    let pair = Pair::start().await;
    let lamp = pair.observer.stock(100).await;
    let (here, elsewhere) = (pair.here.shop(), pair.elsewhere.shop());
    let buyer = Buyer { user: UserId(Uuid::now_v7()), name: "Ann".to_owned(), email: "ann@example.org".to_owned() };
    for expected_total in [None, Some(Money(300))] {
        let opened = here.add_to_cart(None, lamp.product, None, 1, false, command()).await.expect("a cart");
        let session = opened.session.expect("a session");
        elsewhere.set_cart_item(Some(session), lamp.product, 3, command()).await.expect("a change");
        let request = CheckoutRequest { session, buyer: buyer.clone(), shipping_address: None, expected_total };
        let order = here.checkout(request, command()).await.expect("an order").order;
        assert_eq!(order.lines.iter().map(|line| line.line.quantity).collect::<Vec<_>>(), [3]);
    }
    let opened = here.add_to_cart(None, lamp.product, None, 1, false, command()).await.expect("a cart");
    let session = opened.session.expect("a session");
    elsewhere.clear_cart(Some(session), command()).await.expect("an end");
    let request = CheckoutRequest { session, buyer, shipping_address: None, expected_total: None };
    let refused = here.checkout(request, command()).await.err();
    assert!(matches!(refused, Some(CommandError::CartEmpty)), "{refused:?}");
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storekeeper_whom_the_database_contradicts_learns_from_it() {
    let pair = Pair::start().await;
    let stock = pair.observer.stock(2).await;
    assert_eq!(pair.here.shop().available(stock.inventory, Instant::now() + PATIENCE).await.expect("an answer"), 2);
    for _ in 0..2 {
        hold(pair.elsewhere.shop(), &stock).await.expect("a unit");
    }
    for _ in 0..3 {
        let refused = hold(pair.here.shop(), &stock).await;
        assert!(matches!(refused, Err(CommandError::InsufficientStock { available: 0 })), "{refused:?}");
    }
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_that_two_servers_hear_of_is_kept_once() {
    let database = Database::new();
    let nodes = [Node::on(&database.url).await, Node::on(&database.url).await];
    let now = nodes[0].clock.now();
    let mail = |number: usize| NewEmail {
        id: storekeeper::domain::ids::EmailId(Uuid::now_v7()),
        sender: "shop@example.org".to_owned(),
        recipient: format!("{number}@example.org"),
        subject: "Hello".to_owned(),
        body: "Text".to_owned(),
        html: None,
        source: "orders".to_owned(),
        status: EmailStatus::Captured,
        created_at: now,
    };
    let heard = |reversed: bool| {
        let mut mails: Vec<_> = (0..50).map(|number| (format!("message {number}"), mail(number))).collect();
        if reversed {
            mails.reverse();
        }
        mails
    };
    let (first, second) = (heard(false), heard(true));
    let (first, second) = tokio::join!(
        nodes[0].store.keep_mails_once("send-email", &first, now),
        nodes[1].store.keep_mails_once("send-email", &second, now),
    );
    assert_eq!(first.expect("kept") + second.expect("kept"), 50);
}
