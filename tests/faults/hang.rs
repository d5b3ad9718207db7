//! Actors that do not come to an end with a message.

use std::time::Duration;

use storekeeper::actors::faults::Moment;
use storekeeper::actors::supervision::{ActorKind, Policy};

use crate::scene::{PATIENCE, actor, arm_hang, at_rest, count, kinds, row};
use crate::support::{Level, TestShop, until};

const DEADLINE: Duration = Duration::from_millis(300);

/// A shop whose clients do not wait long.
async fn impatient(policy: Policy) -> TestShop {
    TestShop::open(|config| {
        config.http.request_deadline = DEADLINE;
        config.actors.supervision = policy;
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storekeeper_that_hangs_answers_at_the_deadline_and_then_goes_on() {
    let shop = impatient(Policy::default()).await;
    let (item, neighbour) = (shop.api.item("1.00", 5).await, shop.api.item("1.00", 5).await);
    let release = arm_hang(&shop, ActorKind::Inventory, Moment::Before, row(&item));
    let late = shop.api.add(None, &item, 1).send().await.expect_refusal(503, "timeout");
    assert_eq!(late.body["applied"], "unknown");
    let read = shop.api.ask_as_admin(reqwest::Method::GET, &format!("/inventories/{}", item.inventory)).send().await;
    assert_eq!(read.expect_refusal(503, "timeout").body["applied"], "no");
    shop.api.cart_with(&neighbour, 1).await;
    let waiting = actor(&shop, "inventory", &item.inventory).await;
    assert_eq!(count(&waiting["mailbox"], "depth"), 2, "both wait");
    assert!(count(&waiting["mailbox"], "oldestAgeMs") >= i64::try_from(DEADLINE.as_millis()).expect("small"));
    release.close();
    at_rest(&shop).await;
    // What was late when its turn came was not begun.
    assert_eq!(shop.api.level(&item).await, Level::free(5));
    let after = actor(&shop, "inventory", &item.inventory).await;
    assert_eq!((count(&after, "failed"), count(&after, "processed")), (2, 0));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_hangs_hangs_nobody_for_good() {
    let shop = impatient(Policy::default()).await;
    let item = shop.api.item("1.00", 5).await;
    assert_eq!(shop.api.level(&item).await, Level::free(5));
    let release = arm_hang(&shop, ActorKind::Journal, Moment::During, None);
    let key = "a-name-that-nobody-guesses";
    let late = shop.api.add(None, &item, 1).key(key).send().await.expect_refusal(503, "timeout");
    assert_eq!(late.body["applied"], "unknown");
    release.close();
    at_rest(&shop).await;
    // It was begun in time, so it is done.
    let again = shop.api.add(None, &item, 1).key(key).send().await.expect_status(200);
    assert!(again.is_replayed());
    assert_eq!(shop.api.level(&item).await, Level { quantity: 4, on_hand: 5, held: 1 });
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cart_that_hangs_is_ended_and_comes_back_from_the_database() {
    let shop = impatient(Policy { hang_limit: Some(DEADLINE), ..Policy::default() }).await;
    let item = shop.api.item("1.00", 5).await;
    let session = shop.api.cart_with(&item, 1).await;
    let other = shop.api.cart_with(&item, 1).await;
    let release = arm_hang(&shop, ActorKind::Cart, Moment::During, None);
    let late = shop.api.add(Some(&session), &item, 1).send().await.expect_refusal(503, "timeout");
    assert_eq!(late.body["applied"], "unknown");
    let ended = async || (count(&kinds(&shop).await["cart"], "kills") == 1).then_some(());
    until("it is ended", PATIENCE, ended).await;
    let cart = shop.api.cart(&session).await.body;
    assert_eq!(count(&cart["items"][0], "quantity"), 2, "it was committed before it hung");
    assert_eq!(shop.api.cart(&other).await.body["items"][0]["quantity"], 1);
    assert_eq!(count(&kinds(&shop).await["cart"], "panics"), 0);
    release.close();
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkout_that_hangs_holds_up_its_own_cart_only() {
    let shop = impatient(Policy::default()).await;
    let item = shop.api.item("1.00", 5).await;
    let (ann, bob) = (shop.buyer().await, shop.buyer().await);
    let (first, second) = (shop.api.cart_with(&item, 1).await, shop.api.cart_with(&item, 1).await);
    let release = arm_hang(&shop, ActorKind::Orders, Moment::During, None);
    shop.api.checkout(&ann, &first).send().await.expect_refusal(503, "timeout");
    shop.api.checkout(&bob, &second).send().await.expect_status(201);
    release.close();
    at_rest(&shop).await;
    // Its deadline had passed when it came to write: nothing was written.
    shop.api.checkout(&ann, &first).send().await.expect_status(201);
    assert_eq!(shop.api.level(&item).await, Level { quantity: 3, on_hand: 3, held: 0 });
    shop.stop().await;
}
