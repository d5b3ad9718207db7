//! Connections that are cut or frozen at the worst point of the journal's transaction.

use std::time::Duration;

use storekeeper::domain::stock::Balance;
use storekeeper::persistence::entry::Done;
use storekeeper::persistence::{CommitError, Journal, StoreError};
use uuid::Uuid;

use crate::node::{Node, moved, new_cart, resized, works};
use crate::proxy::{Fault, Proxy};
use crate::server::{Database, Durability, Server};

/// How long a statement is waited for before the test gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server, a database on it, a node that reaches it through a proxy, and one that reaches it directly.
struct Scene {
    through: Node,
    beside: Node,
    proxy: Proxy,
    // In the order in which they go.
    _database: Database,
    _server: Server,
}

impl Scene {
    async fn set(durability: Durability) -> Self {
        let server = tokio::task::spawn_blocking(move || Server::new(durability)).await.expect("a server");
        let database = Database::of(&server);
        let proxy = Proxy::to(server.socket()).await;
        let beside = Node::on(&database.url).await;
        let through = Node::on(&proxy.url(&database.name)).await;
        Self { through, beside, proxy, _database: database, _server: server }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_was_cut_before_its_answer_is_found_committed() {
    let scene = Scene::set(Durability::Real).await;
    let stock = scene.beside.stock(10).await;
    let (_, hold) = new_cart(&stock, 4, scene.through.clock.now());
    let (batch, works) = (Uuid::now_v7(), works(vec![hold, moved(&stock, 5)]));
    let happened = scene.proxy.arm("COMMIT", Fault::CutBehind);

    let outcome = scene.through.store.commit(batch, &works).await;
    happened.await.expect("it was cut");
    let Err(CommitError::Unknown { planned, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(planned.done.iter().all(|done| matches!(done, Done::Applied(_))), "{planned:?}");
    let after = Balance { on_hand: 15, held: 4, seq: 3 };
    assert_eq!(planned.balances, [(stock.inventory, after)]);
    for _ in 0..2 {
        let again = scene.through.store.commit(batch, &works).await;
        assert!(matches!(again, Err(CommitError::AlreadyCommitted)), "{again:?}");
    }
    assert_eq!(scene.beside.balance(&stock).await, after, "the effects are there once");
    scene.beside.assert_in_order().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_never_arrived_is_done_when_it_comes_again() {
    let scene = Scene::set(Durability::None).await;
    let stock = scene.beside.stock(10).await;
    let (batch, works) = (Uuid::now_v7(), works(vec![moved(&stock, 5)]));
    let happened = scene.proxy.arm("COMMIT", Fault::CutBefore);

    let outcome = scene.through.store.commit(batch, &works).await;
    happened.await.expect("it was cut");
    assert!(matches!(outcome, Err(CommitError::Unknown { .. })), "nobody can know: {outcome:?}");
    let again = scene.through.store.commit(batch, &works).await.expect("a commit");
    assert!(matches!(again.done[..], [Done::Applied(_)]), "{again:?}");
    assert_eq!(scene.beside.balance(&stock).await, Balance { on_hand: 15, held: 0, seq: 2 });
    scene.beside.assert_in_order().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_lost_long_ago_costs_nobody_an_error() {
    let scene = Scene::set(Durability::None).await;
    let stock = scene.beside.stock(10).await;
    let cart = scene.beside.cart(&stock, 1).await;
    let (_, change) = resized(&cart, &stock, 2, scene.through.clock.now());
    let (familiar, other, third) =
        (scene.beside.stock(1).await, scene.beside.stock(1).await, scene.beside.stock(1).await);
    // One of stock that is not known reads that first; one with something in it that is refused looks at all of it. A
    // text is sent the first time only.
    for (word, entries) in [
        ("FROM inventories", vec![moved(&third, 4)]),
        ("BEGIN", vec![moved(&other, 2), moved(&other, -1_000)]),
        ("FOR UPDATE", vec![change, moved(&other, -1_000)]),
    ] {
        scene.through.write(moved(&familiar, 1)).await;
        let happened = scene.proxy.arm(word, Fault::CutBefore);
        let done = scene.through.decided(entries).await;
        assert!(matches!(done[0], Done::Applied(_)), "{word}: {done:?}");
        tokio::time::timeout(PATIENCE, happened).await.expect("in time").expect("it was cut");
    }
    assert_eq!(scene.beside.balance(&stock).await, Balance { on_hand: 10, held: 2, seq: 3 });
    assert_eq!(scene.beside.balance(&other).await, Balance { on_hand: 3, held: 0, seq: 2 });
    assert_eq!(scene.beside.balance(&third).await, Balance { on_hand: 5, held: 0, seq: 2 });
    scene.beside.assert_in_order().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_freezes_in_its_transaction_lets_the_others_go_on() {
    let scene = Scene::set(Durability::None).await;
    let stock = scene.beside.stock(10).await;
    let (batch, frozen) = (Uuid::now_v7(), works(vec![moved(&stock, 5)]));
    let happened = scene.proxy.arm("INSERT INTO movements", Fault::Freeze);
    let outcome = {
        let freezing = scene.through.store.commit(batch, &frozen);
        let others = async {
            happened.await.expect("it froze");
            // Its locks are taken; who comes now waits for them, and no longer than a second or two.
            scene.beside.decided(vec![moved(&stock, -10)]).await
        };
        let (outcome, others) = tokio::join!(freezing, others);
        assert!(matches!(others[..], [Done::Applied(_)]), "{others:?}");
        outcome
    };
    assert!(matches!(outcome, Err(CommitError::NotCommitted(StoreError::Unavailable(_)))), "{outcome:?}");
    assert_eq!(scene.beside.balance(&stock).await, Balance { on_hand: 0, held: 0, seq: 2 });
    scene.through.store.commit(batch, &frozen).await.expect("thawed, it goes on");
    assert_eq!(scene.beside.balance(&stock).await, Balance { on_hand: 5, held: 0, seq: 3 });
    scene.beside.assert_in_order().await;
}
