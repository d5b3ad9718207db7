//! The broker is stopped, killed, or keeps its confirms to itself, under load: checkouts go on, and every event arrives.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use storekeeper::domain::ids::OrderId;
use storekeeper::domain::order::OrderStatus;
use tokio::task::{JoinSet, block_in_place};

use crate::database::Database;
use crate::proxy::{Fault, Proxy};
use crate::queue::{Queues, Received};
use crate::rabbitmq::{End, Server, VirtualHost};
use crate::shop::{Shop, confirmation, until};
use crate::stock::Stock;

/// Customers at work at the same time.
const CUSTOMERS: usize = 6;
/// Orders of theirs that are enough to go on.
const ENOUGH: usize = 30;
/// The queue of the tests' own.
const OWN: &str = "own";

/// Customers at work.
struct Load {
    shop: Arc<Shop>,
    placed: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    customers: JoinSet<Vec<OrderId>>,
}

impl Load {
    fn begin(shop: &Arc<Shop>, stock: Stock) -> Self {
        let (placed, over) = (Arc::default(), Arc::default());
        let mut load = Self { shop: Arc::clone(shop), placed, over, customers: JoinSet::new() };
        for _ in 0..CUSTOMERS {
            let (shop, placed, over) = (Arc::clone(&load.shop), Arc::clone(&load.placed), Arc::clone(&load.over));
            load.customers.spawn(async move {
                let mut orders = Vec::new();
                while !over.load(Ordering::Acquire) {
                    let order = shop.buy(stock, 1).await.id;
                    shop.change(order, OrderStatus::Confirmed).await;
                    shop.change(order, OrderStatus::Shipped).await;
                    orders.push(order);
                    placed.fetch_add(1, Ordering::AcqRel);
                }
                orders
            });
        }
        load
    }

    /// Waits for so many more orders: every request for them has been answered well.
    async fn go_on(&self) {
        let wanted = self.placed.load(Ordering::Acquire) + ENOUGH;
        until("checkouts go on", async || self.placed.load(Ordering::Acquire) >= wanted).await;
    }

    /// Ends it; gives all its orders.
    async fn end(mut self) -> Vec<OrderId> {
        self.over.store(true, Ordering::Release);
        let mut orders = Vec::new();
        while let Some(some) = self.customers.join_next().await {
            orders.extend(some.expect("every request was answered well"));
        }
        orders
    }
}

/// What each order's events say, each event where it came first.
fn by_order(received: &[Received]) -> HashMap<String, Vec<String>> {
    let mut known = HashSet::new();
    let mut orders: HashMap<String, Vec<String>> = HashMap::new();
    for message in received.iter().filter(|message| known.insert(message.id.as_str())) {
        let document = message.document();
        let text = |member: &str| document[member].as_str().expect("a text").to_owned();
        let (order, says) = match message.routing_key.as_str() {
            "order-status" => (text("orderId"), format!("{} {}", document["sequence"], text("to"))),
            key => (text("id"), key.to_owned()),
        };
        orders.entry(order).or_default().push(says);
    }
    orders
}

/// A shop whose broker had an outage, and what it is at.
struct Scene {
    shop: Arc<Shop>,
    queues: Queues,
    stock: Stock,
    load: Load,
}

impl Scene {
    /// A shop with customers, at a broker that is at this address.
    async fn begin(host: &VirtualHost, url: &str) -> Self {
        let (shop, queues) = (Arc::new(Shop::open(Database::new(), url).await), Queues::of(host));
        shop.until_broker_is("up").await;
        queues.bind(OWN, &["order-status", "send-email"]).await;
        let stock = shop.stock(1_000_000).await;
        let load = Load::begin(&shop, stock);
        load.go_on().await;
        Self { shop, queues, stock, load }
    }

    /// Ends the load and sees that nothing is missing, nothing out of order, nothing done twice and nothing put away.
    /// Gives how many messages came more than once.
    async fn end(self) -> usize {
        let Self { shop, queues, stock, load } = self;
        shop.until_broker_is("up").await;
        load.go_on().await;
        let orders = load.end().await;
        shop.until_all_is_out().await;
        shop.until_mails_are_done(stock).await;

        let received = queues.take(OWN).await;
        let told = by_order(&received);
        let mails = shop.confirmations().await;
        for order in &orders {
            let wanted = ["1 PENDING", "send-email", "2 CONFIRMED", "3 SHIPPED"];
            assert_eq!(told.get(&order.to_string()).map(Vec::as_slice), Some(wanted.map(str::to_owned).as_slice()));
            assert_eq!(mails.get(&confirmation(*order)), Some(&1), "{order} is confirmed once");
        }
        queues.assert_no_dead_letters().await;
        Arc::into_inner(shop).expect("nobody else has it").stop().await;
        let ids: HashSet<&str> = received.iter().map(|message| message.id.as_str()).collect();
        received.len() - ids.len()
    }
}

async fn a_broker() -> (Server, VirtualHost) {
    let made = tokio::task::spawn_blocking(|| {
        let server = Server::new();
        let host = VirtualHost::of(&server);
        (server, host)
    });
    made.await.expect("a server")
}

async fn away_and_back(end: End) {
    let (mut server, host) = a_broker().await;
    let scene = Scene::begin(&host, &host.url).await;
    block_in_place(|| server.end(end));
    scene.shop.until_broker_is("degraded").await;
    scene.load.go_on().await;
    assert_ne!(scene.shop.app.store().outbox_lag().await.expect("an answer").0, 0, "events wait");
    block_in_place(|| server.start());
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_stopped_under_load_costs_nothing() {
    away_and_back(End::Stopped).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_under_load_costs_nothing() {
    away_and_back(End::Killed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_whose_confirm_is_lost_come_again_and_are_done_once() {
    let (mut server, host) = a_broker().await;
    let proxy = Proxy::to(server.port()).await;
    let scene = Scene::begin(&host, &proxy.url(&host.url, server.port())).await;
    for fault in [Fault::Cut, Fault::Silence] {
        proxy.arm(fault).await.expect("a confirm");
        scene.load.go_on().await;
        scene.shop.until_broker_is("up").await;
    }
    // And now it is killed between a publish and its confirm.
    proxy.arm(Fault::Silence).await.expect("a confirm");
    block_in_place(|| server.end(End::Killed));
    scene.shop.until_broker_is("degraded").await;
    scene.load.go_on().await;
    block_in_place(|| server.start());
    let twice = scene.end().await;
    assert!(twice > 0, "what had no confirm was published again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_starts_without_a_broker_and_publishes_when_it_is_there() {
    let (mut server, host) = a_broker().await;
    block_in_place(|| server.end(End::Stopped));
    let shop = Shop::open(Database::new(), &host.url).await;
    shop.until_broker_is("degraded").await;
    let lamp = shop.stock(10).await;
    let order = shop.buy(lamp, 1).await;
    block_in_place(|| server.start());
    shop.until_broker_is("up").await;
    let last = shop.until_mails_are_done(lamp).await;
    shop.until_all_is_out().await;
    let mails = shop.confirmations().await;
    assert_eq!([order.id, last.id].map(|id| mails.get(&confirmation(id)).copied()), [Some(1), Some(1)]);
    // It stops in order without it, too.
    block_in_place(|| server.end(End::Killed));
    shop.until_broker_is("degraded").await;
    shop.stop().await;
}
