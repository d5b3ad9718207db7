//! Each kind of actor panics before, during and after its commit, while people buy.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use storekeeper::actors::faults::Moment;
use storekeeper::actors::supervision::{ActorKind, Policy};

use crate::scene::{PATIENCE, arm_panic, at_rest, buy, count, kinds, row};
use crate::support::{Level, TestShop, together, until};

const MOMENTS: [Moment; 3] = [Moment::Before, Moment::During, Moment::After];
/// People who buy, each once, in each round.
const BUYERS: i64 = 12;

/// A shop whose actors are started again at once, however often they die.
async fn tireless() -> Arc<TestShop> {
    let policy = Policy { deaths_max: None, backoff_max: Duration::ZERO, ..Policy::default() };
    Arc::new(TestShop::open(|config| config.actors.supervision = policy).await)
}

/// For each moment: an actor of this kind panics, people buy, and everybody gets exactly one order. Neighbours are
/// served meanwhile, and how much slower is told.
async fn dies_at_every_moment(kind: ActorKind) {
    let shop = tireless().await;
    let neighbour = shop.api.item("2.00", 10_000).await;
    let calm = neighbours_latency(&shop, &neighbour).await;
    for moment in MOMENTS {
        let item = shop.api.item("1.00", BUYERS + 5).await;
        assert_eq!(shop.api.level(&item).await, Level::free(BUYERS + 5));
        let before = kinds(&shop).await[kind.name()].clone();
        arm_panic(&shop, kind, moment, if kind == ActorKind::Inventory { row(&item) } else { None });
        let buyers = shop.buyers(usize::try_from(BUYERS).expect("a few")).await;
        let orders = together(buyers.into_iter().enumerate().map(|(number, buyer)| {
            let (shop, item) = (Arc::clone(&shop), item.clone());
            async move { buy(&shop, &buyer, &item, &format!("{moment:?}-{number}")).await["id"].clone() }
        }))
        .await;
        let stormy = neighbours_latency(&shop, &neighbour).await;
        println!("{} {moment:?}: a neighbour's median {calm:?} before, {stormy:?} meanwhile", kind.name());
        at_rest(&shop).await;

        let mut ids: Vec<Value> = orders;
        ids.sort_unstable_by_key(Value::to_string);
        ids.dedup();
        assert_eq!(ids.len() as i64, BUYERS, "{moment:?}: everybody has an order of their own");
        // Carts whose answer was lost hold nothing: the same key gave the same cart.
        assert_eq!(shop.api.level(&item).await, Level { quantity: 5, on_hand: 5, held: 0 }, "{moment:?}");
        // A fault is gone when it begins, and the panic is counted when it has been told.
        let counted = async || {
            let now = kinds(&shop).await[kind.name()].clone();
            (count(&now, "panics") > count(&before, "panics")).then_some(now)
        };
        let after = until("the panic is counted", PATIENCE, counted).await;
        assert_eq!(count(&after, "panics") - count(&before, "panics"), 1, "{moment:?}: {after:#}");
    }
    confirmed(&shop, BUYERS * MOMENTS.len() as i64).await;
    Arc::into_inner(shop).expect("nobody else has it").stop().await;
}

/// Half of the neighbour's buyers have an answer within this.
async fn neighbours_latency(shop: &TestShop, neighbour: &crate::support::Item) -> Duration {
    let mut took = Vec::new();
    for _ in 0..15 {
        let begun = Instant::now();
        let answer = shop.api.add(None, neighbour, 1).send().await;
        took.push(begun.elapsed());
        // Its own actor may be the one that was armed.
        assert!([200, 503].contains(&answer.status), "{:#}", answer.body);
    }
    took.sort_unstable();
    took[took.len() / 2]
}

/// Waits until each order has its one confirmation.
async fn confirmed(shop: &TestShop, orders: i64) {
    let all = async || {
        let mut mails = 0;
        let mut cursor = String::new();
        loop {
            let path = format!("/emails?source=orders&limit=100{cursor}");
            let page = shop.api.ask_as_admin(reqwest::Method::GET, &path).send().await.expect_status(200).body;
            mails += page["data"].as_array().expect("a list").len() as i64;
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert!(mails <= orders, "{mails} mails for {orders} orders");
        (mails == orders).then_some(())
    };
    until("each order has its confirmation", PATIENCE, all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storekeepers_die() {
    dies_at_every_moment(ActorKind::Inventory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_coordinator_and_its_checkouts_die() {
    dies_at_every_moment(ActorKind::Orders).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_dies() {
    dies_at_every_moment(ActorKind::Journal).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_relay_dies() {
    dies_at_every_moment(ActorKind::Relay).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sweeper_dies_and_carts_end_on_time_all_the_same() {
    let policy = Policy { backoff_max: Duration::from_millis(50), ..Policy::default() };
    let shop = TestShop::open(|config| {
        config.actors.supervision = policy;
        config.shop.lifetime.ttl = Duration::from_secs(1);
    })
    .await;
    let item = shop.api.item("1.00", 10).await;
    for moment in MOMENTS {
        shop.api.cart_with(&item, 4).await;
        arm_panic(&shop, ActorKind::Sweeper, moment, None);
        let back = async || (shop.api.level(&item).await == Level::free(10)).then_some(());
        until("the units are back", PATIENCE, back).await;
        at_rest(&shop).await;
    }
    let counted = async || {
        let sweeper = kinds(&shop).await["sweeper"].clone();
        (count(&sweeper, "panics") >= 3).then_some(sweeper)
    };
    let sweeper = until("the panics are counted", PATIENCE, counted).await;
    assert_eq!(count(&sweeper, "panics"), 3);
    let ledger = shop.api.ledger(&item).await;
    assert_eq!(crate::support::count(&ledger, "hold_expired"), 3, "each cart ended once");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn carts_die() {
    let shop = tireless().await;
    for (round, moment) in MOMENTS.into_iter().enumerate() {
        let (first, second) = (shop.api.item("1.00", 9).await, shop.api.item("1.00", 9).await);
        let session = shop.api.cart_with(&first, 2).await;
        let other = shop.api.cart_with(&first, 1).await;
        let before = kinds(&shop).await["cart"].clone();
        // Its actor begins with its second request, which panics.
        arm_panic(&shop, ActorKind::Cart, moment, None);
        let key = format!("more-{round}");
        let ask = || shop.api.add(Some(&session), &second, 3).key(&key);
        let first = ask().send().await;
        if moment == Moment::Before {
            assert_eq!(first.expect_refusal(503, "interrupted").body["applied"], "unknown");
        } else {
            // The answer is in the database beside what it is the answer to.
            assert!(first.expect_status(200).is_replayed(), "{moment:?}");
        }
        // Whoever is told so early that the dead one is still being put away would be told once more.
        let gone = async || {
            let carts = kinds(&shop).await["cart"].clone();
            let is_gone = count(&carts, "panics") > count(&before, "panics") && carts["live"] == before["live"];
            is_gone.then_some(())
        };
        until("it is put away", PATIENCE, gone).await;
        let again = crate::scene::repeat(ask).await.expect_status(200);
        assert_eq!(again.is_replayed(), moment != Moment::Before, "{moment:?}: what was committed is not done again");
        at_rest(&shop).await;
        let after = kinds(&shop).await["cart"].clone();
        assert_eq!(count(&after, "panics") - count(&before, "panics"), 1);
        assert_eq!(count(&after, "failed") - count(&before, "failed"), 1, "{moment:?}: the one that it was at");
        let cart = shop.api.cart(&session).await.body;
        let quantities: Vec<i64> =
            cart["items"].as_array().expect("items").iter().map(|line| count(line, "quantity")).collect();
        assert_eq!(quantities, [2, 3], "{moment:?}");
        assert_eq!(shop.api.level(&second).await, Level { quantity: 6, on_hand: 9, held: 3 });
        assert_eq!(shop.api.cart(&other).await.body["items"].as_array().map(Vec::len), Some(1), "neighbours are there");
    }
    Arc::into_inner(shop).expect("nobody else has it").stop().await;
}
