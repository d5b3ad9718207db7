//! What `redis-cli` sees of a cart, from its first line to its end.

use std::time::{Duration, Instant};

use storekeeper::domain::ids::CartSessionId;

use crate::redis::Server;
use crate::shop::{Shop, lines_in, lives_in, shows, until};

/// Rounds in which it is looked whether a change is shown when it is answered.
const ROUNDS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cart_is_shown_as_the_contract_says() {
    let redis = Server::new();
    let shop = Shop::mirrored(&redis, |_| {}).await;
    let (lamp, shade) = (shop.stock(10).await, shop.stock(10).await);
    let session = shop.add(None, lamp, 2).await;
    until("it is shown", async || lives_in(&redis, session)[0] > 0).await;
    assert_eq!(redis.ask(&["TYPE", &format!("cart:{session}")]), "hash");
    let value = redis.ask(&["HGET", &format!("cart:{session}"), &lamp.product.to_string()]);
    let value: serde_json::Value = serde_json::from_str(&value).expect("JSON");
    assert_eq!(value, serde_json::json!({"quantity": 2, "inventoryId": lamp.inventory}));
    for life in lives_in(&redis, session) {
        assert!((850_000..=900_000).contains(&life), "CART_TTL from its last change on: {life}");
    }

    shop.add(Some(session), shade, 3).await;
    shop.set(session, lamp, 5).await;
    until("both lines are shown", async || shows(&redis, &shop.cart(session).await)).await;
    assert_eq!(lines_in(&redis, session).len(), 2);
    shop.set(session, lamp, 0).await;
    shop.set(session, shade, 0).await;
    until("a cart with nothing in it", async || shows(&redis, &shop.cart(session).await)).await;
    assert_eq!(
        (lives_in(&redis, session)[0], redis.ask(&["GET", &format!("session:{session}")])),
        (-2, "5".to_owned())
    );
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_shown_before_it_is_answered() {
    let redis = Server::new();
    let shop = Shop::mirrored(&redis, |_| {}).await;
    let lamp = shop.stock(100).await;
    let session = shop.add(None, lamp, 1).await;
    let mut shown = 0;
    for _ in 0..ROUNDS {
        // Writes wait, reads do not: an answer that did not wait would come before the change is shown.
        redis.ask(&["CLIENT", "PAUSE", "25", "WRITE"]);
        shop.add(Some(session), lamp, 1).await;
        shown += usize::from(shows(&redis, &shop.cart(session).await));
    }
    // A machine that is busy may need longer than the request waits, but not every time.
    assert!(shown >= ROUNDS / 2, "{shown} of {ROUNDS} were shown when they were answered");
    shop.stop().await;
}

/// No key is left of a cart, but for what is remembered of its version for a while.
async fn assert_gone(redis: &Server, session: CartSessionId) {
    until("no key is left", async || lives_in(redis, session) == [-2, -2]).await;
    let life: i64 = redis.ask(&["PTTL", &format!("{{session:{session}}}:version")]).parse().expect("a number");
    assert!((1..=300_000).contains(&life), "what is remembered is forgotten in time: {life}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cart_that_is_cleared_or_ordered_leaves_no_key() {
    let redis = Server::new();
    let shop = Shop::mirrored(&redis, |_| {}).await;
    let lamp = shop.stock(100).await;
    let (cleared, ordered) = (shop.add(None, lamp, 1).await, shop.add(None, lamp, 2).await);
    until("both are shown", async || [cleared, ordered].iter().all(|id| lives_in(&redis, *id)[0] > 0)).await;
    shop.clear(cleared).await;
    assert!(shop.check_out(ordered).await.expect("an order").placed);
    assert_gone(&redis, cleared).await;
    assert_gone(&redis, ordered).await;
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cart_that_expires_leaves_no_key() {
    let redis = Server::new();
    let shop = Shop::mirrored(&redis, |config| config.shop.lifetime.ttl = Duration::from_secs(2)).await;
    let lamp = shop.stock(100).await;
    let expired = shop.add(None, lamp, 3).await;
    // Somebody made its keys live for ever: then the end of the cart deletes them.
    for kind in ["cart", "session"] {
        redis.ask(&["PERSIST", &format!("{kind}:{expired}")]);
    }
    assert_gone(&redis, expired).await;
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keys_end_by_themselves_with_the_cart() {
    let redis = Server::new();
    let shop = Shop::mirrored(&redis, |config| config.shop.lifetime.ttl = Duration::from_secs(6)).await;
    let lamp = shop.stock(100).await;
    let session = shop.add(None, lamp, 1).await;
    let added = Instant::now();
    until("it is shown", async || shows(&redis, &shop.cart(session).await)).await;
    // From here on nobody is there to delete anything.
    shop.stop().await;
    assert_eq!(redis.ask(&["--scan", "--pattern", "storekeeper:*"]), "", "the server's mark went with it");
    until("the keys have gone", async || lives_in(&redis, session) == [-2, -2]).await;
    assert!(added.elapsed() > Duration::from_secs(5), "not before their time");
}
