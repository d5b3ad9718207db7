//! The journal dies in the middle of a batch of many, and counts what became of each.

use std::sync::Arc;
use std::time::Duration;

use storekeeper::actors::faults::Moment;
use storekeeper::actors::supervision::{ActorKind, Policy};

use crate::scene::{PATIENCE, actor, arm_hang, arm_panic, at_rest, count, kinds, repeat};
use crate::support::{Level, TestShop, until};

/// Entries of one batch.
const CROWD: i64 = 40;

/// Has a whole batch wait in front of a journal that then dies at `moment`; everybody tries again until they know.
async fn dies_in_the_middle_of_a_batch(moment: Moment) {
    let policy = Policy { backoff_max: Duration::ZERO, ..Policy::default() };
    let shop = Arc::new(TestShop::open(|config| config.actors.supervision = policy).await);
    let item = shop.api.item("1.00", CROWD).await;
    assert_eq!(shop.api.level(&item).await, Level::free(CROWD));
    let before = kinds(&shop).await["journal"].clone();

    // One is on its way; the crowd comes behind it, as one batch.
    let release = arm_hang(&shop, ActorKind::Journal, Moment::During, None);
    let add = |number: i64| {
        let (shop, item) = (Arc::clone(&shop), item.clone());
        tokio::spawn(async move {
            let key = format!("a-name-that-nobody-guesses-{number}");
            repeat(|| shop.api.add(None, &item, 1).key(&key)).await.expect_status(200).text("cartSessionId")
        })
    };
    let mut adding = vec![add(0)];
    let waits = async |depth: i64| {
        until("they wait", PATIENCE, async || (count(&kinds(&shop).await["journal"], "depth") == depth).then_some(()))
            .await;
    };
    waits(1).await;
    adding.extend((1..CROWD).map(add));
    waits(CROWD).await;
    arm_panic(&shop, ActorKind::Journal, moment, None);
    release.close();
    let mut sessions = Vec::new();
    for added in adding {
        sessions.push(added.await.expect("no panic"));
    }
    at_rest(&shop).await;
    sessions.sort_unstable();
    sessions.dedup();
    assert_eq!(sessions.len() as i64, CROWD, "each has a cart of its own");
    assert_eq!(shop.api.level(&item).await, Level { quantity: 0, on_hand: CROWD, held: CROWD });

    let after = kinds(&shop).await["journal"].clone();
    let grown = |name| count(&after, name) - count(&before, name);
    assert_eq!(grown("panics"), 1);
    assert_eq!(grown("depth"), 0);
    let died_with_it = grown("failed");
    assert!((1..=CROWD).contains(&died_with_it), "{moment:?}: {died_with_it}");
    let storekeeper = actor(&shop, "inventory", &item.inventory).await;
    // A failed entry is a failed message of the storekeeper, and each was sent again until it was known.
    assert_eq!(count(&storekeeper, "failed"), died_with_it, "{moment:?}");
    assert!(
        count(&storekeeper, "processed") + died_with_it >= CROWD,
        "{moment:?}: each of the crowd was done or failed"
    );
    Arc::into_inner(shop).expect("nobody else has it").stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_transaction() {
    dies_in_the_middle_of_a_batch(Moment::During).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_the_commit_and_the_answers() {
    dies_in_the_middle_of_a_batch(Moment::After).await;
}
