//! Redis is stopped, emptied, frozen or not there at all: carts go on, and the mirror catches up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use storekeeper::domain::ids::CartSessionId;
use tokio::task::JoinSet;

use crate::redis::Server;
use crate::shop::{PATIENCE, Shop, lives_in, shows, until};
use crate::stock::Stock;

/// Customers at work at the same time.
const CUSTOMERS: usize = 6;
/// Carts of theirs that are enough to go on.
const ENOUGH: usize = 30;
/// How long a request waits for the mirror.
const WAIT_MAX: Duration = Duration::from_millis(50);
/// Requests that would take seconds if each waited for a Redis that is away.
const MANY: u32 = 100;

/// Customers at work.
struct Load {
    shop: Arc<Shop>,
    carts: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    customers: JoinSet<Vec<CartSessionId>>,
}

impl Load {
    fn begin(shop: &Arc<Shop>, stock: Stock) -> Self {
        let (carts, over) = (Arc::default(), Arc::default());
        let mut load = Self { shop: Arc::clone(shop), carts, over, customers: JoinSet::new() };
        for _ in 0..CUSTOMERS {
            let (shop, carts, over) = (Arc::clone(&load.shop), Arc::clone(&load.carts), Arc::clone(&load.over));
            load.customers.spawn(async move {
                let mut sessions = Vec::new();
                while !over.load(Ordering::Acquire) {
                    sessions.push(fill_a_cart(&shop, stock, sessions.len()).await);
                    carts.fetch_add(1, Ordering::AcqRel);
                }
                sessions
            });
        }
        load
    }

    /// Waits for so many more carts: every request for them has been answered well.
    async fn go_on(&self) {
        let wanted = self.carts.load(Ordering::Acquire) + ENOUGH;
        until("carts go on", async || self.carts.load(Ordering::Acquire) >= wanted).await;
    }

    /// Ends it; the mirror shows every cart of it, open or ended, as the database has it.
    async fn end(mut self, redis: &Server) {
        self.over.store(true, Ordering::Release);
        while let Some(sessions) = self.customers.join_next().await {
            for session in sessions.expect("every request was answered well") {
                let cart = self.shop.cart(session).await;
                until(&format!("the mirror shows {cart:?}"), async || shows(redis, &cart)).await;
            }
        }
    }
}

/// A new cart, changed, and every other one ended.
async fn fill_a_cart(shop: &Shop, stock: Stock, number: usize) -> CartSessionId {
    let session = shop.add(None, stock, 1).await;
    shop.set(session, stock, 2).await;
    match number % 4 {
        0 => shop.clear(session).await,
        1 => assert!(shop.check_out(session).await.expect("an order").placed),
        _ => {}
    }
    session
}

async fn stop(shop: Arc<Shop>) {
    Arc::into_inner(shop).expect("nobody else has it").stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_under_load_costs_nothing_but_the_mirror() {
    let mut redis = Server::new();
    let shop = Arc::new(Shop::mirrored(&redis, |_| {}).await);
    let lamp = shop.stock(1_000_000).await;
    // Nobody touches this one again: only a walk over the open carts shows it.
    let left_alone = shop.add(None, lamp, 7).await;
    let load = Load::begin(&shop, lamp);
    load.go_on().await;
    redis.stop();
    shop.until_redis_is("degraded").await;
    load.go_on().await;
    redis.start();
    shop.until_redis_is("up").await;
    assert!(shows(&redis, &shop.cart(left_alone).await), "up is when all open carts are shown");
    load.go_on().await;
    load.end(&redis).await;
    stop(shop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn emptied_under_load_it_is_filled_again() {
    let redis = Server::new();
    let shop = Arc::new(Shop::mirrored(&redis, |_| {}).await);
    let lamp = shop.stock(1_000_000).await;
    let left_alone = shop.add(None, lamp, 7).await;
    let load = Load::begin(&shop, lamp);
    load.go_on().await;
    redis.ask(&["FLUSHALL"]);
    until("it is shown again", async || shows(&redis, &shop.cart(left_alone).await)).await;
    load.go_on().await;
    load.end(&redis).await;
    stop(shop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_it_holds_a_request_up_for_its_bound_and_then_not_at_all() {
    let redis = Server::new();
    let shop = Shop::mirrored(&redis, |_| {}).await;
    let lamp = shop.stock(1_000_000).await;
    let session = shop.add(None, lamp, 1).await;
    redis.freeze();
    let begin = Instant::now();
    let cart = shop.set(session, lamp, 2).await;
    assert_eq!(cart.lines.iter().map(|line| line.quantity).collect::<Vec<_>>(), [2]);
    assert!(begin.elapsed() >= WAIT_MAX || shop.redis_state().await == "degraded", "it waited for the mirror");
    shop.until_redis_is("degraded").await;

    let begin = Instant::now();
    for _ in 0..MANY {
        shop.add(Some(session), lamp, 1).await;
    }
    assert!(begin.elapsed() < WAIT_MAX * MANY, "they did not wait: {:?}", begin.elapsed());
    shop.clear(session).await;
    let other = shop.add(None, lamp, 1).await;
    redis.thaw();
    shop.until_redis_is("up").await;
    assert!(shows(&redis, &shop.cart(other).await));
    until("what ended meanwhile has gone", async || lives_in(&redis, session) == [-2, -2]).await;
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_starts_without_it() {
    let mut redis = Server::new();
    redis.stop();
    let shop = Shop::open(&redis.url(), |_| {}).await;
    assert_eq!(shop.redis_state().await, "degraded");
    let lamp = shop.stock(10).await;
    let session = shop.add(None, lamp, 3).await;
    let begin = Instant::now();
    redis.start();
    shop.until_redis_is("up").await;
    assert!(shows(&redis, &shop.cart(session).await), "within {:?} of {PATIENCE:?}", begin.elapsed());
    redis.stop();
    shop.until_redis_is("degraded").await;
    // It stops in order without it, too.
    shop.stop().await;
}
