//! A shop in which things go wrong, and what is true of it all the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use storekeeper::actors::faults::{Fault, Moment, Point};
use storekeeper::actors::supervision::ActorKind;
use storekeeper::domain::ids::InventoryId;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::support::{Answer, Ask, Buyer, Item, TestShop, until};

/// How long the test waits for anything before it gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Tries of a request that is answered with 503: the client's part of the contract.
const TRIES_MAX: usize = 2_000;

/// Has something go wrong once; `row` is whose actor, or whoever comes first.
pub(crate) fn arm(shop: &TestShop, kind: ActorKind, moment: Moment, row: Option<Uuid>, fault: Fault) {
    shop.app.shop().faults().arm(Point { kind, moment, row }, fault);
}

/// Has an actor panic once.
pub(crate) fn arm_panic(shop: &TestShop, kind: ActorKind, moment: Moment, row: Option<Uuid>) {
    arm(shop, kind, moment, row, Fault::Panic);
}

/// Has an actor hang until what this gives is closed.
pub(crate) fn arm_hang(shop: &TestShop, kind: ActorKind, moment: Moment, row: Option<Uuid>) -> Arc<Semaphore> {
    let release = Arc::new(Semaphore::new(0));
    arm(shop, kind, moment, row, Fault::Hang(Arc::clone(&release)));
    release
}

/// The row that an item's storekeeper stands before.
pub(crate) fn row(item: &Item) -> Option<Uuid> {
    let InventoryId(row) = item.inventory.parse().expect("an id");
    Some(row)
}

/// Repeats a named request for as long as it is not known whether it was done.
pub(crate) async fn repeat(ask: impl Fn() -> Ask) -> Answer {
    for _ in 0..TRIES_MAX {
        let answer = ask().send().await;
        if answer.status != 503 {
            return answer;
        }
        assert!(answer.headers.contains_key("retry-after"), "{:#}", answer.body);
        assert!(["no", "unknown"].contains(&answer.body["applied"].as_str().expect("a word")), "{:#}", answer.body);
        tokio::task::yield_now().await;
    }
    panic!("{TRIES_MAX} tries were not enough");
}

/// A purchase from the cart to the confirmation's event, with every step repeated until it is known to be done. Gives
/// the order.
pub(crate) async fn buy(shop: &TestShop, buyer: &Buyer, item: &Item, name: &str) -> Value {
    let key = format!("a-name-that-nobody-guesses-{name}");
    let session = repeat(|| shop.api.add(None, item, 1).key(&key)).await.expect_status(200).text("cartSessionId");
    let key = format!("checkout-{name}");
    let order = repeat(|| shop.api.checkout(buyer, &session).key(&key)).await;
    assert!([200, 201].contains(&order.status), "{:#}", order.body);
    order.body
}

/// An actor as the list shows it.
pub(crate) async fn actor(shop: &TestShop, kind: &str, id: &str) -> Value {
    let path = format!("/admin/actors/{kind}/{id}");
    shop.api.ask_as_admin(Method::GET, &path).send().await.expect_status(200).body
}

/// What is counted of each kind.
pub(crate) async fn kinds(shop: &TestShop) -> BTreeMap<String, Value> {
    let page = shop.api.ask_as_admin(Method::GET, "/admin/actors?limit=1").send().await.expect_status(200).body;
    let summary = page["summary"].as_array().expect("a list");
    summary.iter().map(|kind| (kind["kind"].as_str().expect("a name").to_owned(), kind.clone())).collect()
}

/// Waits until nobody has anything to do but what comes again and again, and every armed fault has come to pass.
pub(crate) async fn at_rest(shop: &TestShop) {
    let waits = async || {
        let busy = ["cart", "inventory", "journal", "orders"];
        let kinds = kinds(shop).await;
        let idle = busy.iter().all(|kind| kinds[*kind]["depth"] == 0);
        (idle && shop.app.shop().faults().left() == 0).then_some(())
    };
    until("everybody is at rest", PATIENCE, waits).await;
}

/// A number that is counted.
pub(crate) fn count(of: &Value, name: &str) -> i64 {
    of[name].as_i64().unwrap_or_else(|| panic!("no {name} in {of:#}"))
}
