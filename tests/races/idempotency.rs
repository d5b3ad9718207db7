//! Requests with a name, sent by a crowd at once, again later, again after a restart.

use reqwest::Method;
use serde_json::json;

use crate::support::{Answer, Api, Ask, Buyer, Item, Level, TestShop, count, together};

/// How many send the same request at the same moment.
const CROWD: usize = 20;
/// A name that nobody guesses: a guest without a session is known by nothing else.
const LONG_KEY: &str = "0192f3a4b5c6d7e8f90a1b2c3d4e5f60";

/// Sends one named request by a crowd at once and once more later. It is done once: whoever is not told that it is
/// still running gets that one answer. Gives it.
async fn by_a_crowd(ask: impl Fn() -> Ask) -> Answer {
    let answers = together((0..CROWD).map(|_| ask().send())).await;
    let (done, refused): (Vec<Answer>, Vec<Answer>) = answers.into_iter().partition(|answer| answer.status < 300);
    for refusal in refused {
        refusal.expect_refusal(409, "in_progress");
    }
    let first: Vec<&Answer> = done.iter().filter(|answer| !answer.is_replayed()).collect();
    assert_eq!(first.len(), 1, "one of them did it");
    for answer in &done {
        assert_same(answer, first[0]);
    }
    assert_replayed(&ask().send().await, first[0]);
    first[0].clone()
}

fn assert_same(answer: &Answer, first: &Answer) {
    assert_eq!((answer.status, &answer.body), (first.status, &first.body));
    for header in ["location", "x-cart-session-id"] {
        assert_eq!(answer.headers.get(header), first.headers.get(header), "{header}");
    }
}

fn assert_replayed(answer: &Answer, first: &Answer) {
    assert!(answer.is_replayed(), "{answer:?}");
    assert_same(answer, first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_addition_is_done_once() {
    let shop = TestShop::open(|_| {}).await;
    // No more than one of them can have: done again it would be refused.
    let item = shop.api.item("5.00", 3).await;
    let opened = by_a_crowd(|| shop.api.add(None, &item, 3).key(LONG_KEY)).await;
    assert_eq!(shop.api.level(&item).await, Level { quantity: 0, on_hand: 3, held: 3 });

    let other = shop.api.item("5.00", 3).await;
    let session = opened.text("cartSessionId");
    by_a_crowd(|| shop.api.add(Some(&session), &other, 3).key("short")).await;
    assert_eq!(shop.api.level(&other).await, Level { quantity: 0, on_hand: 3, held: 3 });
    assert_eq!(count(&shop.api.ledger(&other).await, "hold"), 1);

    by_a_crowd(|| shop.api.remove(&session, &other).key("removal")).await;
    by_a_crowd(|| shop.api.clear(&session).key("clearing")).await;
    assert_eq!((shop.api.level(&item).await, shop.api.level(&other).await), (Level::free(3), Level::free(3)));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_change_of_stock_is_done_once() {
    let shop = TestShop::open(|_| {}).await;
    let item = shop.api.item("5.00", 6).await;
    for round in 0..10 {
        // All that there is: done again it would be refused.
        let out = by_a_crowd(|| shop.api.move_stock(&item, "OUT", 6).key(&format!("out-{round}"))).await;
        assert_eq!(out.body["quantity"], 0);
        let back = by_a_crowd(|| shop.api.move_stock(&item, "IN", 6).key(&format!("in-{round}"))).await;
        assert_eq!(back.body["quantity"], 6);
    }
    assert_eq!(shop.api.level(&item).await, Level::free(6));
    assert_eq!(shop.api.ledger(&item).await.len(), 21);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_checkout_and_its_named_cancellation_are_done_once() {
    let shop = TestShop::open(|_| {}).await;
    let item = shop.api.item("5.00", 6).await;
    let buyer = shop.buyer().await;
    for round in 0..10 {
        let session = shop.api.cart_with(&item, 6).await;
        let placed = by_a_crowd(|| shop.api.checkout(&buyer, &session).key(&format!("buy-{round}"))).await;
        assert_eq!(placed.status, 201);
        let order = placed.text("id");
        let cancelled = by_a_crowd(|| shop.api.cancel(&buyer, &order).key(&format!("cancel-{round}"))).await;
        assert_eq!(cancelled.text("status"), "CANCELLED");
    }
    assert_eq!(shop.api.level(&item).await, Level::free(6));
    let ledger = shop.api.ledger(&item).await;
    assert_eq!((count(&ledger, "sale"), count(&ledger, "order_cancelled")), (10, 10));
    shop.stop().await;
}

/// One request of each kind, each with a name.
fn named(api: &Api, buyer: &Buyer, item: &Item, session: &str) -> [Ask; 4] {
    [
        api.add(None, item, 2).key(LONG_KEY),
        api.add(Some(session), item, 1).key("add"),
        api.move_stock(item, "OUT", 3).key("out"),
        api.checkout(buyer, session).key("buy"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_known_after_a_restart() {
    let mut shop = TestShop::open(|_| {}).await;
    let item = shop.api.item("5.00", 20).await;
    let buyer = shop.buyer().await;
    let session = shop.api.cart_with(&item, 1).await;
    let mut first = Vec::new();
    for ask in named(&shop.api, &buyer, &item, &session) {
        let answer = ask.send().await;
        assert!(answer.status < 300 && !answer.is_replayed(), "{answer:?}");
        first.push(answer);
    }
    let (level, rows) = (shop.api.level(&item).await, shop.api.ledger(&item).await.len());

    for _ in 0..2 {
        shop = shop.restart().await;
        for (ask, first) in named(&shop.api, &buyer, &item, &session).into_iter().zip(&first) {
            assert_replayed(&ask.send().await, first);
        }
    }
    assert_eq!((shop.api.level(&item).await, shop.api.ledger(&item).await.len()), (level, rows));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_of_another_request_is_refused() {
    let shop = TestShop::open(|_| {}).await;
    let item = shop.api.item("5.00", 20).await;
    let buyer = shop.buyer().await;
    let session = shop.api.cart_with(&item, 1).await;
    for ask in named(&shop.api, &buyer, &item, &session) {
        assert!(ask.send().await.status < 300);
    }
    let level = shop.api.level(&item).await;

    let others = [
        shop.api.add(None, &item, 3).key(LONG_KEY),
        shop.api.add(Some(&session), &item, 2).key("add"),
        shop.api.remove(&session, &item).key("add"),
        shop.api.move_stock(&item, "OUT", 4).key("out"),
        shop.api.move_stock(&item, "IN", 3).key("out"),
    ];
    for other in others {
        other.send().await.expect_refusal(422, "idempotency_key_reused");
    }
    assert_eq!(shop.api.level(&item).await, level);
    // Another caller's request of the same name is another one.
    let stranger = shop.buyer().await;
    let session = shop.api.cart_with(&item, 1).await;
    shop.api.checkout(&stranger, &session).key("buy").send().await.expect_status(201);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_not_kept() {
    let shop = TestShop::open(|_| {}).await;
    let item = shop.api.item("5.00", 1).await;
    let out = || shop.api.move_stock(&item, "OUT", 2).key("out").send();
    assert_eq!(out().await.expect_refusal(409, "insufficient_stock").body["available"], 1);
    shop.api.move_stock(&item, "IN", 1).send().await.expect_status(200);
    assert!(!out().await.expect_status(200).is_replayed(), "what was refused is done when it can be");
    assert!(out().await.expect_status(200).is_replayed());
    assert_eq!(shop.api.level(&item).await, Level::free(0));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_without_a_session_needs_a_name_that_nobody_guesses() {
    let shop = TestShop::open(|_| {}).await;
    let item = shop.api.item("5.00", 1).await;
    let refused = shop.api.add(None, &item, 1).key("order-1").send().await.expect_refusal(400, "validation_failed");
    assert_eq!(refused.body["errors"][0]["field"], "Idempotency-Key");
    let spaced = shop.api.ask(Method::POST, "/cart/add-to-cart").key("a b").json(&json!({
        "productId": item.product, "quantity": 1,
    }));
    spaced.send().await.expect_refusal(400, "validation_failed");
    assert_eq!(shop.api.level(&item).await, Level::free(1));
    shop.stop().await;
}
