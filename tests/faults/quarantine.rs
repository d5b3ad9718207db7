//! An actor that dies again and again: started later each time, then not at all, until an administrator says so.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use storekeeper::actors::faults::Moment;
use storekeeper::actors::supervision::{ActorKind, Policy};
use storekeeper::messaging::bus::Message;

use crate::scene::{PATIENCE, actor, arm_panic, count, kinds, row};
use crate::support::{Item, Level, TestShop, until};

/// Has an item's storekeeper die at its next change, sends that, and sees it dead.
async fn kill(shop: &TestShop, item: &Item) {
    arm_panic(shop, ActorKind::Inventory, Moment::Before, row(item));
    shop.api.move_stock(item, "OUT", 1).send().await.expect_refusal(503, "interrupted");
    let dead = async || (actor(shop, "inventory", &item.inventory).await["state"] != "running").then_some(());
    until("it is dead", PATIENCE, dead).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_panics_are_quarantine_and_an_administrator_ends_it() {
    let policy = Policy { deaths_max: Some(3), backoff_max: Duration::ZERO, ..Policy::default() };
    let shop = TestShop::open(|config| config.actors.supervision = policy).await;
    let (item, neighbour) = (shop.api.item("1.00", 7).await, shop.api.item("1.00", 7).await);
    assert_eq!(shop.api.level(&item).await, Level::free(7));
    for _ in 0..3 {
        kill(&shop, &item).await;
    }
    for ask in [shop.api.move_stock(&item, "OUT", 1), shop.api.add(None, &item, 1)] {
        let refused = ask.send().await.expect_refusal(503, "quarantined");
        assert_eq!(refused.body["applied"], "no");
        assert!(refused.headers.contains_key("retry-after"));
        let detail = refused.text("detail");
        assert!(detail.contains("3 times") && detail.contains("administrator"), "{detail}");
    }
    let sick = actor(&shop, "inventory", &item.inventory).await;
    assert_eq!(sick["state"], "quarantined");
    let error = sick["lastError"].as_str().expect("an error");
    assert!(error.starts_with("panicked at src/actors/faults.rs:") && error.contains("told to panic"), "{error}");
    assert_eq!((count(&sick, "restarts"), count(&sick, "rejected"), count(&sick, "failed")), (2, 2, 3));
    assert_eq!(count(&kinds(&shop).await["inventory"], "quarantined"), 1);

    // Neighbours are untouched.
    shop.api.move_stock(&neighbour, "OUT", 1).send().await.expect_status(200);
    shop.api.cart_with(&neighbour, 1).await;
    assert_eq!(actor(&shop, "inventory", &neighbour.inventory).await["state"], "running");

    let path = format!("/admin/actors/inventory/{}/restart", item.inventory);
    shop.api.ask_as_admin(Method::POST, &path).send().await.expect_status(202);
    shop.api.move_stock(&item, "OUT", 1).send().await.expect_status(200);
    assert_eq!(shop.api.level(&item).await, Level::free(6), "what was refused was not done");
    let well = actor(&shop, "inventory", &item.inventory).await;
    assert_eq!((&well["state"], count(&well, "restarts")), (&json!("running"), 3));
    assert_eq!(count(&kinds(&shop).await["inventory"], "quarantined"), 0);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_second_death_the_next_one_starts_later_and_says_so() {
    let hour = Duration::from_secs(3_600);
    let policy = Policy { backoff_min: hour, backoff_max: hour, ..Policy::default() };
    let shop = TestShop::open(|config| config.actors.supervision = policy).await;
    let item = shop.api.item("1.00", 7).await;
    assert_eq!(shop.api.level(&item).await, Level::free(7));
    kill(&shop, &item).await;
    // The first death costs nothing.
    kill(&shop, &item).await;
    let refused = shop.api.move_stock(&item, "OUT", 1).send().await.expect_refusal(503, "restarting");
    assert_eq!(refused.body["applied"], "no");
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(actor(&shop, "inventory", &item.inventory).await["state"], "restarting");
    let path = format!("/admin/actors/inventory/{}/restart", item.inventory);
    shop.api.ask_as_admin(Method::POST, &path).send().await.expect_status(202);
    shop.api.move_stock(&item, "OUT", 7).send().await.expect_status(200);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_there_is_one_of_is_started_again_and_again() {
    let policy =
        Policy { deaths_max: Some(2), backoff_min: Duration::ZERO, backoff_max: Duration::ZERO, ..Policy::default() };
    let shop = TestShop::open(|config| config.actors.supervision = policy).await;
    let item = shop.api.item("1.00", 100).await;
    assert_eq!(shop.api.level(&item).await, Level::free(100));
    for round in 1..=5 {
        arm_panic(&shop, ActorKind::Journal, Moment::Before, None);
        let died = shop.api.add(None, &item, 1).send().await.expect_refusal(503, "interrupted");
        assert_eq!(died.body["applied"], "unknown");
        shop.api.cart_with(&item, 1).await;
        let journal = actor(&shop, "journal", "main").await;
        assert_eq!((count(&journal, "restarts"), &journal["state"]), (round, &json!("running")));
        arm_panic(&shop, ActorKind::Relay, Moment::Before, None);
        arm_panic(&shop, ActorKind::Mailer, Moment::Before, None);
        let again = async || {
            let kinds = kinds(&shop).await;
            let [relay, mailer] = ["relay", "mailer"].map(|kind| &kinds[kind]);
            [relay, mailer].iter().all(|kind| count(kind, "panics") == round && kind["live"] == 1).then_some(())
        };
        until("relay and mailer are back", PATIENCE, again).await;
    }
    let relay = actor(&shop, "relay", "main").await;
    assert!(relay["lastError"].as_str().is_some_and(|error| error.contains("told to panic: relay")), "{relay:#}");
    assert_eq!(relay["state"], Value::from("running"));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_for_what_is_out_of_service_is_put_away_and_the_others_are_done() {
    let policy = Policy { deaths_max: Some(1), backoff_max: Duration::ZERO, ..Policy::default() };
    let shop = TestShop::open(|config| config.actors.supervision = policy).await;
    let (item, neighbour) = (shop.api.item("1.00", 7).await, shop.api.item("1.00", 7).await);
    assert_eq!(shop.api.level(&item).await, Level::free(7));
    kill(&shop, &item).await;
    let receipt = |number: usize, item: &Item| Message {
        id: format!("receipt-{number}"),
        queue: "update-inventory".to_owned(),
        payload: json!({"inventoryId": item.inventory, "quantity": 3, "actionType": "IN"}).to_string(),
        at: shop.clock().now(),
        traceparent: None,
    };
    let messages = [receipt(1, &neighbour), receipt(2, &item), receipt(3, &neighbour)];
    assert_eq!(shop.app.bus().publish(&messages).await, [true; 3]);
    let done = async || (shop.api.level(&neighbour).await == Level::free(13)).then_some(());
    until("the neighbour's receipts are done", PATIENCE, done).await;
    let letters = shop.app.store().dead_letters("update-inventory").await.expect("the letters");
    let told: Vec<_> = letters.iter().map(|letter| (letter.message_id.as_str(), letter.reason.as_str())).collect();
    assert!(matches!(told[..], [("receipt-2", reason)] if reason.contains("administrator")), "{told:?}");
    shop.stop().await;
}
