//! The hot product of a drop, as an operator sees it.

use std::sync::Arc;

use reqwest::Method;
use storekeeper::actors::faults::Moment;
use storekeeper::actors::supervision::ActorKind;

use crate::scene::{PATIENCE, actor, arm_hang, at_rest, count};
use crate::support::{Level, TestShop, until};

/// Buyers of the hot product, and of another one.
const CROWD: i64 = 150;
const FEW: i64 = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hot_one_is_first_in_the_list_and_has_done_what_was_sent() {
    let shop = Arc::new(TestShop::open(|config| config.actors.cart_mailbox = 8).await);
    let (hot, other) = (shop.api.item("1.00", 1_000).await, shop.api.item("1.00", 1_000).await);
    for item in [&hot, &other] {
        shop.api.cart_with(item, 1).await;
    }
    // While the journal holds still, everything that is sent waits where it can be seen.
    let release = arm_hang(&shop, ActorKind::Journal, Moment::During, None);
    let add = |item: &crate::support::Item| {
        let (shop, item) = (Arc::clone(&shop), item.clone());
        tokio::spawn(async move { shop.api.cart_with(&item, 1).await })
    };
    let mut adding: Vec<_> = (0..CROWD).map(|_| add(&hot)).collect();
    adding.extend((0..FEW).map(|_| add(&other)));
    let seen = until("they all wait", PATIENCE, async || {
        let path = "/admin/actors?sort=-depth&kind=inventory";
        let page = shop.api.ask_as_admin(Method::GET, path).send().await.expect_status(200).body;
        let depths: Vec<i64> =
            page["data"].as_array().expect("a list").iter().map(|one| count(&one["mailbox"], "depth")).collect();
        (depths == [CROWD, FEW]).then_some(page)
    })
    .await;
    assert_eq!(seen["data"][0]["id"], hot.inventory, "the hot one is first");
    assert!(count(&seen["data"][0]["mailbox"], "highWater") >= CROWD);
    release.close();
    for added in adding {
        added.await.expect("no panic");
    }
    at_rest(&shop).await;
    let stood = actor(&shop, "inventory", &hot.inventory).await;
    assert_eq!(count(&stood, "processed"), CROWD + 1, "as many as were sent");
    assert_eq!((count(&stood, "failed"), count(&stood, "rejected")), (0, 0));
    assert_eq!(shop.api.level(&hot).await, Level { quantity: 999 - CROWD, on_hand: 1_000, held: CROWD + 1 });
    Arc::into_inner(shop).expect("nobody else has it").stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_mailbox_refuses_at_once_and_is_counted() {
    const PLACES: usize = 4;
    let shop = Arc::new(TestShop::open(|config| config.actors.inventory_mailbox = PLACES).await);
    let (hot, other) = (shop.api.item("1.00", 1_000).await, shop.api.item("1.00", 1_000).await);
    for item in [&hot, &other] {
        shop.api.cart_with(item, 1).await;
    }
    let release = arm_hang(&shop, ActorKind::Journal, Moment::During, None);
    let waiting: Vec<_> = (0..PLACES)
        .map(|_| {
            let (shop, hot) = (Arc::clone(&shop), hot.clone());
            tokio::spawn(async move { shop.api.cart_with(&hot, 1).await })
        })
        .collect();
    until("the mailbox is full", PATIENCE, async || {
        let full = actor(&shop, "inventory", &hot.inventory).await;
        (count(&full["mailbox"], "depth") == PLACES as i64).then_some(())
    })
    .await;
    let refused = shop.api.add(None, &hot, 1).send().await.expect_refusal(503, "overloaded");
    assert_eq!(refused.body["applied"], "no");
    assert_eq!(refused.headers.get("retry-after").map(|value| value.as_bytes()), Some(&b"1"[..]));
    assert_eq!(count(&actor(&shop, "inventory", &hot.inventory).await, "rejected"), 1);
    assert_eq!(count(&actor(&shop, "inventory", &other.inventory).await, "rejected"), 0);
    release.close();
    for added in waiting {
        added.await.expect("no panic");
    }
    Arc::into_inner(shop).expect("nobody else has it").stop().await;
}
