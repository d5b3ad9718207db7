//! A crowd that goes on placing orders, and what follows an order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Method;

use crate::support::{Api, Buyer, Item, Level, TestShop, together, until};

/// Far more than it takes to be a crowd, since some of them are at their carts.
const BUYERS: usize = 64;
/// Debug builds on slow machines: far longer than events may be delayed here.
const PATIENCE: Duration = Duration::from_secs(30);

/// Buys one unit after the other until told to stop; gives how many.
async fn buy(api: Api, buyer: Buyer, item: Item, enough: Arc<AtomicBool>) -> i64 {
    let mut bought = 0;
    while !enough.load(Ordering::Relaxed) {
        let session = api.cart_with(&item, 1).await;
        api.checkout(&buyer, &session).send().await.expect_status(201);
        bought += 1;
    }
    bought
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_out_under_a_crowd_that_does_not_end() {
    let shop = TestShop::open(|config| config.actors.event_delay_max = Duration::from_millis(500)).await;
    let item = shop.api.item("4.50", 1_000_000).await;
    let buyers = shop.buyers(BUYERS).await;
    let enough = Arc::new(AtomicBool::new(false));
    let buying = buyers.into_iter().map(|buyer| buy(shop.api.clone(), buyer, item.clone(), Arc::clone(&enough)));
    let crowd = tokio::spawn(together(buying.collect::<Vec<_>>()));

    // The crowd goes on until this is seen.
    until("an order is confirmed by mail", PATIENCE, async || {
        let mails = shop.api.ask_as_admin(Method::GET, "/emails?source=orders&limit=1").send().await.expect_status(200);
        mails.body["data"].as_array().filter(|mails| !mails.is_empty()).map(|_| ())
    })
    .await;
    enough.store(true, Ordering::Relaxed);

    let bought: i64 = crowd.await.expect("the crowd is served").into_iter().sum();
    assert_eq!(shop.api.level(&item).await, Level::free(1_000_000 - bought));
    shop.stop().await;
}
