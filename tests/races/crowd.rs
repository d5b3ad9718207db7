//! A crowd that goes on placing orders, and what follows an order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use reqwest::Method;

use crate::support::{Api, Buyer, Item, Level, TestShop, together, until};

/// Far more than it takes to be a crowd, since some of them are at their carts.
const BUYERS: usize = 64;
/// Debug builds on slow machines: far longer than events may be delayed here.
const PATIENCE: Duration = Duration::from_secs(30);

/// Buys one unit after the other until told to stop, and counts them.
async fn buy(api: Api, buyer: Buyer, item: Item, crowd: Arc<Crowd>) {
    while !crowd.goes_home.load(Ordering::Relaxed) {
        let session = api.cart_with(&item, 1).await;
        api.checkout(&buyer, &session).send().await.expect_status(201);
        crowd.bought.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Crowd {
    bought: AtomicI64,
    goes_home: AtomicBool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_out_under_a_crowd_that_does_not_end() {
    let shop = TestShop::open(|config| config.actors.event_delay_max = Duration::from_millis(500)).await;
    let item = shop.api.item("4.50", 1_000_000).await;
    let (buyers, last) = (shop.buyers(BUYERS).await, shop.buyer().await);
    let crowd = Arc::new(Crowd::default());
    let buying = buyers.into_iter().map(|buyer| buy(shop.api.clone(), buyer, item.clone(), Arc::clone(&crowd)));
    let buying = tokio::spawn(together(buying.collect::<Vec<_>>()));

    // One more comes when the crowd is there, and it stays until that one has a mail.
    let bought = |count| (crowd.bought.load(Ordering::Relaxed) >= count).then_some(());
    until("the crowd is there", PATIENCE, async || bought(4 * i64::try_from(BUYERS).expect("few"))).await;
    let session = shop.api.cart_with(&item, 1).await;
    shop.api.checkout(&last, &session).send().await.expect_status(201);
    let path = format!("/emails?source=orders&recipient={}", last.email);
    until("the order is confirmed by mail", PATIENCE, async || {
        let mails = shop.api.ask_as_admin(Method::GET, &path).send().await.expect_status(200);
        mails.body["data"].as_array().filter(|mails| !mails.is_empty()).map(|_| ())
    })
    .await;
    crowd.goes_home.store(true, Ordering::Relaxed);

    buying.await.expect("the crowd is served");
    let bought = crowd.bought.load(Ordering::Relaxed) + 1;
    assert_eq!(shop.api.level(&item).await, Level::free(1_000_000 - bought));
    shop.stop().await;
}
