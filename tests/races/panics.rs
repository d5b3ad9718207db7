//! Storekeepers that die at work.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use storekeeper::actors::faults::{Fault, Moment, Point};
use storekeeper::actors::supervision::{ActorKind, Policy};
use storekeeper::domain::ids::InventoryId;

use crate::support::{Answer, Ask, Item, Level, TestShop, count, together};

/// Tries of a request that is answered with 503: the client's part of the contract.
const TRIES_MAX: usize = 50;

/// Has an item's storekeeper die at its next change.
fn arm(shop: &TestShop, item: &Item, moment: Moment) {
    let InventoryId(row) = item.inventory.parse().expect("an id");
    let point = Point { kind: ActorKind::Inventory, moment, row: Some(row) };
    shop.app.shop().faults().arm(point, Fault::Panic);
}

/// Repeats a named request for as long as it is not known whether it was done.
async fn repeat(ask: impl Fn() -> Ask) -> Answer {
    for _ in 0..TRIES_MAX {
        let answer = ask().send().await;
        if answer.status != 503 {
            return answer;
        }
    }
    panic!("{TRIES_MAX} tries were not enough");
}

/// Has the storekeeper die at a named change that takes all of `item`; then it is repeated.
async fn dies_at(shop: &TestShop, item: &Item, moment: Moment, ask: impl Fn() -> Ask) {
    let neighbour = shop.api.item("1.00", 1).await;
    assert_eq!(shop.api.level(item).await, Level::free(4));
    arm(shop, item, moment);

    let answer = ask().send().await;
    match moment {
        Moment::Before => {
            let died = answer.expect_refusal(503, "interrupted");
            assert_eq!(died.body["applied"], "unknown");
            assert_eq!(died.headers.get("retry-after").map(|value| value.as_bytes()), Some(&b"1"[..]));
        }
        // What the journal has is done and answered, whoever dies.
        Moment::During | Moment::After => drop(answer.expect_status(200)),
    }
    // Neighbours are served as ever.
    shop.api.cart_with(&neighbour, 1).await;

    let done = repeat(&ask).await.expect_status(200);
    assert_eq!(done.is_replayed(), moment == Moment::During, "{done:?}");
    assert!(repeat(&ask).await.expect_status(200).is_replayed());
    assert_eq!(shop.api.level(item).await.quantity, 0, "all was taken, once");
    let ledger = shop.api.ledger(item).await;
    assert_eq!(count(&ledger, "hold") + count(&ledger, "adjustment"), 1);
    // The next request is served from what the database says.
    let refused = shop.api.add(None, item, 1).send().await.expect_refusal(409, "insufficient_stock");
    assert_eq!(refused.body["available"], 0);
    shop.api.move_stock(item, "IN", 1).send().await.expect_status(200);
    assert_eq!(shop.api.level(item).await.quantity, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storekeeper_dies_at_a_change_of_stock() {
    let shop = TestShop::open(|_| {}).await;
    for round in 0..10 {
        for moment in [Moment::Before, Moment::During] {
            let item = shop.api.item("1.00", 4).await;
            let key = format!("{moment:?}-{round}");
            dies_at(&shop, &item, moment, || shop.api.move_stock(&item, "OUT", 4).key(&key)).await;
        }
    }
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storekeeper_dies_at_a_carts_first_line() {
    let shop = TestShop::open(|_| {}).await;
    for round in 0..10 {
        for moment in [Moment::Before, Moment::During] {
            let item = shop.api.item("1.00", 4).await;
            let key = format!("a-name-that-nobody-guesses-{moment:?}-{round}");
            dies_at(&shop, &item, moment, || shop.api.add(None, &item, 4).key(&key)).await;
        }
    }
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storekeeper_dies_at_a_line_of_an_open_cart() {
    let shop = TestShop::open(|_| {}).await;
    let other = shop.api.item("1.00", 100).await;
    for round in 0..10 {
        for moment in [Moment::Before, Moment::During] {
            let item = shop.api.item("1.00", 4).await;
            let session = shop.api.cart_with(&other, 1).await;
            let key = format!("{moment:?}-{round}");
            dies_at(&shop, &item, moment, || shop.api.add(Some(&session), &item, 4).key(&key)).await;
            let items = shop.api.cart(&session).await.body["items"].clone();
            let quantities: Vec<_> = items.as_array().expect("items").iter().map(|line| &line["quantity"]).collect();
            assert_eq!(quantities, [&json!(1), &json!(4)]);
        }
    }
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storekeepers_die_again_and_again_under_a_crowd() {
    const CROWD: i64 = 60;
    let tireless = Policy { deaths_max: None, backoff_max: Duration::ZERO, ..Policy::default() };
    let shop = Arc::new(TestShop::open(|config| config.actors.supervision = tireless).await);
    let item = shop.api.item("1.00", CROWD).await;
    shop.api.level(&item).await;
    let moments = [Moment::Before, Moment::During];
    let buy = |number: i64| {
        let (shop, item) = (Arc::clone(&shop), item.clone());
        async move {
            let key = format!("a-name-that-nobody-guesses-{number}");
            if number % 5 == 0 {
                arm(&shop, &item, moments[usize::from(number % 2 == 0)]);
            }
            repeat(|| shop.api.add(None, &item, 1).key(&key)).await.expect_status(200).text("cartSessionId")
        }
    };
    let mut sessions = together((0..CROWD).map(buy)).await;
    sessions.sort_unstable();
    sessions.dedup();

    // An armed storekeeper may be left over: what it dies at is repeated.
    repeat(|| shop.api.move_stock(&item, "IN", 1).key("more")).await.expect_status(200);
    assert_eq!(sessions.len() as i64, CROWD, "each has a cart of its own");
    assert_eq!(shop.api.level(&item).await, Level { quantity: 1, on_hand: CROWD + 1, held: CROWD });
    assert_eq!(count(&shop.api.ledger(&item).await, "hold") as i64, CROWD);
    Arc::into_inner(shop).expect("nobody else has it").stop().await;
}
