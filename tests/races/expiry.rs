//! Carts whose time is over.
//!
//! Where time itself is the matter it is the real one, with carts that live for a second; elsewhere the test moves it.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use storekeeper::config::Config;
use storekeeper::domain::cart::Lifetime;
use storekeeper::domain::timestamp::Timestamp;
use storekeeper::persistence::clock::Clock;

use crate::support::{Api, Item, Level, TestShop, count, together, until};

const SECOND: Duration = Duration::from_secs(1);
/// How long a look may take that waits for a sweep.
const PATIENCE: Duration = Duration::from_secs(20);

fn lifetime(ttl: Duration, max_age: Duration) -> impl FnOnce(&mut Config) {
    move |config| config.shop.lifetime = Lifetime { ttl, max_age }
}

/// A clock that starts now and then stands still.
fn standing_clock() -> Clock {
    Clock::manual(Clock::system().now())
}

/// Waits until nothing of an item is held.
async fn until_free(api: &Api, item: &Item) {
    until("the stock is back", PATIENCE, async || (api.level(item).await.held == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_is_back_within_a_second_of_the_carts_end() {
    let shop = TestShop::open(lifetime(SECOND, 10 * SECOND)).await;
    let items = [shop.api.item("5.00", 10).await, shop.api.item("6.00", 10).await];
    let session = shop.api.cart_with(&items[0], 3).await;
    let end = shop.api.add(Some(&session), &items[1], 4).send().await.expect_status(200).expires_at();
    assert_eq!(shop.api.level(&items[0]).await, Level { quantity: 7, on_hand: 10, held: 3 });

    for item in &items {
        until_free(&shop.api, item).await;
        assert_eq!(shop.api.level(item).await, Level::free(10));
        let ledger = shop.api.ledger(item).await;
        let expired = ledger.last().expect("rows");
        assert_eq!((expired.reason.as_str(), count(&ledger, "hold_expired")), ("hold_expired", 1));
        assert!(expired.at >= end, "not before its end");
        assert!(expired.at <= end.plus(SECOND), "and at most a second after: {end}, {}", expired.at);
    }
    let gone = shop.api.cart(&session).await;
    assert_eq!((gone.body["items"].as_array().map(Vec::len), &gone.body["expiresAt"]), (Some(0), &().into()));
    let fresh = shop.api.add(Some(&session), &items[0], 1).send().await.expect_status(200);
    assert_ne!(fresh.text("cartSessionId"), session, "what has ended does not come back");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_do_not_hold_the_clock_back() {
    let shop = TestShop::open(|_| {}).await;
    let item = shop.api.item("5.00", 100).await;
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        let begun = Instant::now();
        shop.api.cart_with(&item, 1).await;
        longest = longest.max(begun.elapsed());
    }
    // A database's own time is as old as its answer when it is heard; one commit after the other adds nothing to that.
    let before = Clock::system().now();
    assert!(
        shop.clock().now().plus(longest) >= before,
        "the shop's time is this machine's, however much was committed"
    );
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cart_that_is_changed_lives_longer_up_to_its_maximum_age() {
    let minute = 60 * SECOND;
    let shop = TestShop::open_at(standing_clock(), lifetime(15 * minute, 60 * minute)).await;
    let item = shop.api.item("5.00", 100).await;
    let opened = shop.clock().now();
    let milliseconds = |time: Timestamp| Timestamp(time.0 / 1_000 * 1_000);
    let session = shop.api.cart_with(&item, 1).await;

    for passed in [14, 28, 42] {
        shop.clock().advance(14 * minute);
        let changed = shop.api.add(Some(&session), &item, 1).send().await.expect_status(200);
        assert_eq!(changed.text("cartSessionId"), session);
        assert_eq!(changed.expires_at(), milliseconds(opened.plus((passed + 15) * minute)));
        assert_eq!(shop.api.cart(&session).await.expires_at(), changed.expires_at(), "a look does not renew it");
    }
    shop.clock().advance(14 * minute);
    let last = shop.api.add(Some(&session), &item, 1).send().await.expect_status(200);
    assert_eq!(last.expires_at(), milliseconds(opened.plus(60 * minute)), "an hour, whatever happens");
    assert_eq!(shop.api.level(&item).await.held, 5);

    shop.clock().advance(4 * minute);
    let fresh = shop.api.add(Some(&session), &item, 1).send().await.expect_status(200);
    assert_ne!(fresh.text("cartSessionId"), session, "over at once, swept or not");
    let level = Level { quantity: 99, on_hand: 100, held: 1 };
    until("the old cart's stock is back", PATIENCE, async || (shop.api.level(&item).await == level).then_some(()))
        .await;
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cart_whose_time_is_over_is_not_sold_and_not_held_again() {
    let shop = TestShop::open_at(standing_clock(), lifetime(SECOND, SECOND)).await;
    let item = shop.api.item("5.00", 10).await;
    let buyer = shop.buyer().await;
    let session = shop.api.cart_with(&item, 4).await;
    shop.clock().advance(SECOND);

    for _ in 0..2 {
        let refused = shop.api.checkout(&buyer, &session).send().await.expect_refusal(409, "hold_expired");
        let line = &refused.body["lines"][0];
        assert_eq!((&line["productId"], &line["quantity"]), (&item.product.as_str().into(), &4.into()));
        assert_eq!(shop.api.cart(&session).await.body["items"].as_array().map(Vec::len), Some(0));
        // Before the sweep came, and after it.
        until_free(&shop.api, &item).await;
    }
    assert_eq!(shop.api.level(&item).await, Level::free(10));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn carts_that_a_stopped_server_left_end_at_the_next_start() {
    let shop = TestShop::open_at(standing_clock(), lifetime(60 * SECOND, 60 * SECOND)).await;
    let item = shop.api.item("5.00", 1_000).await;
    let (left, session) = (700, shop.api.cart_with(&item, 5).await);
    // More than one sweep takes at a time.
    together((0..left).map(|_| shop.api.add(None, &item, 1).send())).await;

    let shop = shop.restart().await;
    assert_eq!(shop.api.level(&item).await.held, left + 5, "a restart ends no cart");
    assert_eq!(shop.api.cart(&session).await.body["items"][0]["quantity"], 5);

    let clock = shop.clock().clone();
    clock.advance(59 * SECOND);
    let shop = shop.restart().await;
    assert_eq!(shop.api.level(&item).await.held, left + 5, "nor does it when its time is not over");
    clock.advance(SECOND);
    let shop = shop.restart().await;
    until_free(&shop.api, &item).await;
    assert_eq!(shop.api.level(&item).await, Level::free(1_000));
    assert_eq!(i64::try_from(count(&shop.api.ledger(&item).await, "hold_expired")), Ok(left + 1));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_nobody_pays_is_cancelled_in_time() {
    let shop = TestShop::open_at(standing_clock(), |config| config.order_pending_ttl = Some(60 * SECOND)).await;
    let item = shop.api.item("5.00", 10).await;
    let buyer = shop.buyer().await;
    let mut orders = Vec::new();
    for quantity in [3, 4] {
        let session = shop.api.cart_with(&item, quantity).await;
        orders.push(shop.api.checkout(&buyer, &session).send().await.expect_status(201).text("id"));
    }
    let paid = shop.api.ask_as_admin(Method::PUT, &format!("/orders/{}/status", orders[0]));
    paid.json(&json!({"status": "CONFIRMED"})).send().await.expect_status(200);
    shop.clock().advance(61 * SECOND);

    let level = Level::free(7);
    until("the unpaid units are back", PATIENCE, async || (shop.api.level(&item).await == level).then_some(())).await;
    let status = async |order: &str| {
        let shown = shop.api.ask_as_admin(Method::GET, &format!("/orders/{order}")).send().await;
        shown.expect_status(200).text("status")
    };
    assert_eq!((status(&orders[0]).await, status(&orders[1]).await), ("CONFIRMED".into(), "CANCELLED".into()));
    shop.api.cancel(&buyer, &orders[1]).send().await.expect_refusal(409, "invalid_transition");
    assert_eq!(count(&shop.api.ledger(&item).await, "order_cancelled"), 1);
    let mails = shop.api.ask_as_admin(Method::GET, &format!("/emails?recipient={}", buyer.email)).send().await;
    let mails = mails.expect_status(200).body["data"].as_array().expect("a list").clone();
    let told = |order: &str, status: &str| {
        let says = |mail: &&Value| {
            let text = format!("{} {}", mail["subject"], mail["body"]).to_lowercase();
            text.contains(order) && text.contains(status)
        };
        mails.iter().filter(says).count()
    };
    assert_eq!((told(&orders[0], "cancelled"), told(&orders[1], "cancelled")), (0, 1), "{mails:#?}");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkouts_at_the_moment_of_expiry() {
    const CARTS: i64 = 120;
    let shop = TestShop::open(lifetime(SECOND, 10 * SECOND)).await;
    let item = shop.api.item("5.00", CARTS).await;
    let buyer = shop.buyer().await;
    let mut tasks = Vec::new();
    for number in 0..CARTS {
        let opened = shop.api.add(None, &item, 1).send().await.expect_status(200);
        let checkout = shop.api.checkout(&buyer, &opened.text("cartSessionId")).send();
        // From 120 ms before the cart's end to 60 ms after it.
        let moment = Timestamp(opened.expires_at().0 - 120_000 + 1_500 * number);
        tasks.push(tokio::spawn(async move {
            tokio::time::sleep(moment.since(Clock::system().now())).await;
            checkout.await
        }));
    }
    let mut sold = 0;
    for task in tasks {
        let answer = task.await.expect("no panic");
        match answer.status {
            201 => sold += 1,
            _ => drop(answer.expect_refusal(409, "hold_expired")),
        }
    }
    until_free(&shop.api, &item).await;
    assert_eq!(shop.api.level(&item).await, Level::free(CARTS - sold), "each cart was sold or came back, never both");
    let ledger = shop.api.ledger(&item).await;
    let [sales, expiries] = ["sale", "hold_expired"].map(|reason| i64::try_from(count(&ledger, reason)));
    assert_eq!((sales, expiries), (Ok(sold), Ok(CARTS - sold)));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_jumps_while_carts_are_checked_out_and_changed() {
    const CARTS: usize = 60;
    let shop = TestShop::open_at(standing_clock(), lifetime(SECOND, SECOND)).await;
    let item = shop.api.item("5.00", 500).await;
    let buyer = shop.buyer().await;
    let mut sold = 0;
    for _ in 0..4 {
        let mut asks = Vec::new();
        for _ in 0..CARTS {
            let session = shop.api.cart_with(&item, 1).await;
            asks.push(shop.api.checkout(&buyer, &session));
            asks.push(shop.api.add(Some(&session), &item, 2));
        }
        let sent = asks.into_iter().enumerate().map(|(number, ask)| {
            let clock = shop.clock().clone();
            async move {
                // In the middle of them all carts' time is over.
                if number == CARTS {
                    clock.advance(SECOND);
                }
                ask.send().await
            }
        });
        for answer in together(sent).await {
            match answer.status {
                201 => sold += answer.body["orderItems"][0]["quantity"].as_i64().expect("a quantity"),
                // Added in time, or to a cart of its own.
                200 => assert_eq!(answer.body["message"], "Added to the cart"),
                _ => drop(answer.expect_refusal(409, "hold_expired")),
            }
        }
        // Whatever is open now ends a second later.
        shop.clock().advance(SECOND);
        until_free(&shop.api, &item).await;
        assert_eq!(shop.api.level(&item).await, Level::free(500 - sold), "each unit was sold or came back");
    }
    shop.stop().await;
}
