//! Where mirror and database differ, the database is right; where two versions meet, the newer one is.

use std::time::{Duration, Instant};

use storekeeper::domain::cart::{Cart, CartState, Lifetime};
use storekeeper::domain::ids::{CartKey, CartSessionId};
use storekeeper::persistence::clock::Clock;
use storekeeper::persistence::redis::{CartImage, KeyOutcome, MirrorConnection, RedisOptions, Shown};
use uuid::Uuid;

use crate::redis::Server;
use crate::shop::{PATIENCE, Shop, lives_in, shows, until};

const LIFETIME: Lifetime = Lifetime { ttl: Duration::from_secs(900), max_age: Duration::from_secs(3_600) };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_that_begins_repairs_what_the_mirror_shows_wrongly() {
    let redis = Server::new();
    // Each sweep over the idle sends every actor home that has nothing to do.
    let shop = Shop::mirrored(&redis, |config| config.actors.idle_ttl = Duration::ZERO).await;
    let lamp = shop.stock(1_000).await;
    let product = lamp.product.to_string();
    let mut sessions = Vec::new();
    for _ in 0..10 {
        sessions.push(shop.add(None, lamp, 2).await);
    }
    for session in &sessions {
        until("it is shown", async || shows(&redis, &shop.cart(*session).await)).await;
    }
    let key = |kind: &str, number: usize| format!("{kind}:{}", sessions[number]);
    let ended = |number: usize| format!("{{{}}}:version", key("session", number));
    redis.ask(&["HSET", &key("cart", 0), &product, r#"{"quantity": 99, "inventoryId": "x"}"#]);
    redis.ask(&["HSET", &key("cart", 1), "another", "{}"]);
    redis.ask(&["DEL", &key("cart", 2)]);
    redis.ask(&["PERSIST", &key("session", 3)]);
    redis.ask(&["SET", &key("cart", 4), "not a hash"]);
    redis.ask(&["SET", &key("session", 5), "7000"]);
    redis.ask(&["SET", &key("session", 6), "not a number"]);
    redis.ask(&["DEL", &key("session", 7)]);
    redis.ask(&["RPUSH", &key("session", 7), "not a text"]);
    redis.ask(&["RPUSH", &ended(7), "not a text"]);
    redis.ask(&["HDEL", &key("cart", 7), &product]);
    redis.ask(&["DEL", &key("cart", 8), &key("session", 8)]);
    redis.ask(&["SET", &ended(9), "7000"]);
    redis.ask(&["DEL", &key("session", 9)]);
    for session in &sessions {
        let cart = shop.cart(*session).await;
        assert!(!shows(&redis, &cart), "{session:?} has been tampered with");
        until("it is repaired", async || {
            let shown = shop.app.shop().cart(Some(*session), Instant::now() + PATIENCE).await.expect("a cart");
            assert_eq!(shown.lines.iter().map(|line| line.quantity).collect::<Vec<_>>(), [2], "the database decides");
            shows(&redis, &cart)
        })
        .await;
    }
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_write_of_an_older_version_changes_nothing() {
    let redis = Server::new();
    let shop = Shop::mirrored(&redis, |_| {}).await;
    let lamp = shop.stock(10).await;
    let session = shop.add(None, lamp, 1).await;
    let first = shop.cart(session).await;
    shop.set(session, lamp, 2).await;
    let second = shop.cart(session).await;
    until("the second is shown", async || shows(&redis, &second)).await;

    let options = RedisOptions::of(&redis.url()).expect("an address");
    let late = MirrorConnection::open(&options, Uuid::now_v7()).await.expect("a connection");
    let show = async |cart: &Cart| {
        let shown = late.show(&[CartImage::of(cart, Clock::system().now())]).await.expect("an answer");
        shown.into_iter().next().expect("what became of it")
    };
    let refused = show(&first).await;
    assert_eq!((&refused.cart, &refused.session), (&KeyOutcome::Newer("2".into()), &KeyOutcome::Newer("2".into())));
    assert!(shows(&redis, &second), "the newer one is still shown");
    assert!(show(&second).await.is_same());
    // The older one was over when the newer one renewed it.
    let over = CartImage::of(&first, first.expires_at.plus(Duration::from_secs(1)));
    let refused = late.show(&[over]).await.expect("an answer");
    assert_eq!(refused.into_iter().next().map(|shown| shown.session), Some(KeyOutcome::Newer("2".into())));
    assert!(shows(&redis, &second), "the newer one is still shown");

    shop.clear(session).await;
    until("it has ended", async || lives_in(&redis, session) == [-2, -2]).await;
    assert!(show(&second).await.is_newer());
    assert_eq!(lives_in(&redis, session), [-2, -2], "it is not brought back");
    assert_eq!(shop.cart(session).await.state, CartState::Cleared);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_carts_each_has_its_own_outcome() {
    let redis = Server::new();
    let options = RedisOptions::of(&redis.url()).expect("an address");
    let mirror = MirrorConnection::open(&options, Uuid::now_v7()).await.expect("a connection");
    let now = Clock::system().now();
    let session = || CartSessionId { key: CartKey(Uuid::now_v7()), secret: [7; 16] };
    // More than one request takes.
    let carts: Vec<Cart> = (0..300).map(|_| Cart { version: 1, ..Cart::fresh(session(), now, LIFETIME) }).collect();
    let images: Vec<CartImage> = carts.iter().map(|cart| CartImage::of(cart, now)).collect();
    let both = |outcome: KeyOutcome| Shown { cart: outcome.clone(), session: outcome };
    let first = mirror.show(&images).await.expect("an answer");
    assert_eq!(first, vec![both(KeyOutcome::Shown); 300]);

    let (newer, ended) = (&carts[200].id, &carts[299].id);
    redis.ask(&["SET", &format!("session:{newer}"), "7"]);
    redis.ask(&["DEL", &format!("session:{ended}")]);
    redis.ask(&["SET", &format!("{{session:{ended}}}:version"), "9"]);
    let mut expected = vec![both(KeyOutcome::Same); 300];
    expected[200] = both(KeyOutcome::Newer("7".into()));
    expected[299] = both(KeyOutcome::Newer("9".into()));
    assert_eq!(mirror.show(&images).await.expect("an answer"), expected);
    assert_eq!(lives_in(&redis, *ended), [-2, -2], "it is not brought back");
}
