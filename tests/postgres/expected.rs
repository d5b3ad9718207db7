//! A batch that is written in the expectation that nothing has changed: when that holds, when it does not, and when
//! nobody hears what became of it.

use std::sync::Arc;

use sqlx::{Connection, Executor};
use storekeeper::domain::cart::CartState;
use storekeeper::domain::ids::{InventoryId, OrderId, ProductId};
use storekeeper::domain::order::OrderStatus;
use storekeeper::domain::stock::Balance;
use storekeeper::domain::timestamp::Timestamp;
use storekeeper::persistence::entry::{
    ConsumedMessage, Done, Entry, OrderChange, Refusal, Remember, SessionAction, SessionChange, Work,
};
use storekeeper::persistence::records::{IdempotencyKey, StoredResponse};
use storekeeper::persistence::{CommitError, Journal};
use uuid::Uuid;

use crate::contention::until;
use crate::node::{Node, moved, new_cart, refusal, resized, works};
use crate::proxy::{Fault, Proxy};
use crate::server::{Database, Durability, Server, connect};
use crate::stock::Stock;

/// The node writes something of the stock, and knows it from then on.
async fn known(node: &Node, stock: &Stock) {
    node.write(moved(stock, 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_one_statement_and_no_transaction_round_it() {
    let server = tokio::task::spawn_blocking(|| Server::new(Durability::None)).await.expect("a server");
    let database = Database::of(&server);
    let proxy = Proxy::to(server.socket()).await;
    let (node, beside) = (Node::on(&proxy.url(&database.name)).await, Node::on(&database.url).await);
    let stock = beside.stock(10).await;
    known(&node, &stock).await;
    let mut begun = proxy.arm("BEGIN", Fault::CutBefore);
    let (cart, hold) = new_cart(&stock, 2, node.clock.now());
    node.write(hold).await;
    let (cart, more) = resized(&cart, &stock, 3, node.clock.now());
    node.write(more).await;
    node.write(resized(&cart, &stock, 0, node.clock.now()).1).await;
    assert!(begun.try_recv().is_err(), "no transaction was begun");
    assert_eq!(beside.balance(&stock).await, Balance { on_hand: 11, held: 0, seq: 5 });
    beside.assert_in_order().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_that_is_not_known_is_read_before_it_and_no_transaction_round_that() {
    let server = tokio::task::spawn_blocking(|| Server::new(Durability::None)).await.expect("a server");
    let database = Database::of(&server);
    let proxy = Proxy::to(server.socket()).await;
    let (node, beside) = (Node::on(&proxy.url(&database.name)).await, Node::on(&database.url).await);
    let stocks = [beside.stock(10).await, beside.stock(20).await, beside.stock(30).await];
    let [familiar, unknown, looked_at] = &stocks;
    known(&node, familiar).await;
    let mut begun = proxy.arm("BEGIN", Fault::CutBefore);
    let nobodys = InventoryId(Uuid::now_v7());
    let mut batch = works(vec![moved(familiar, -2), moved(unknown, -3)]);
    batch.extend([looked_at.inventory, familiar.inventory, unknown.inventory, nobodys].map(Work::Load));
    batch.extend(works(vec![moved(unknown, 5)]));
    let committed = node.store.commit(Uuid::now_v7(), &batch).await.expect("a commit");
    let told: Vec<Option<i64>> = committed
        .done
        .iter()
        .map(|done| match done {
            Done::Applied(applied) => applied.balances.first().map(|balance| balance.on_hand),
            Done::Loaded(balance) => balance.map(|balance| balance.on_hand),
            Done::Refused(refusal) => panic!("{refusal:?}"),
        })
        .collect();
    // What is changed in the batch is told as the batch leaves it.
    assert_eq!(told, [Some(9), Some(17), Some(30), Some(9), Some(22), None, Some(22)]);
    assert!(begun.try_recv().is_err(), "no transaction was begun");
    for (stock, on_hand) in stocks.iter().zip([9, 22, 30]) {
        assert_eq!(beside.balance(stock).await.on_hand, on_hand);
    }
    beside.assert_in_order().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_server_wrote_meanwhile_is_built_upon() {
    let database = Database::new();
    let (here, elsewhere) = (Node::on(&database.url).await, Node::on(&database.url).await);
    let stock = here.stock(10).await;
    for round in 1..=3 {
        known(&here, &stock).await;
        elsewhere.write(moved(&stock, 5)).await;
        let applied = here.write(moved(&stock, -2)).await;
        assert_eq!(applied.balances[0].on_hand, 10 + 4 * round, "round {round}");
    }
    // What would not fit as it was known, but does.
    known(&here, &stock).await;
    elsewhere.write(moved(&stock, 100)).await;
    here.write(moved(&stock, -100)).await;
    // And what would fit as it was known, but does not.
    elsewhere.write(moved(&stock, -20)).await;
    let done = here.decided(vec![moved(&stock, -10)]).await;
    assert_eq!(refusal(&done[0]), Some(&Refusal::InsufficientStock { inventory: stock.inventory, available: 3 }));
    here.assert_in_order().await;
}

/// Entries that do not fit what is there, and why.
async fn misfits(node: &Node, elsewhere: &Node, stock: &Stock, round: usize) -> Vec<(Entry, Refusal)> {
    let now = node.clock.now();
    let (changed, late) = (node.cart(stock, 2).await, node.cart(stock, 2).await);
    let stale = resized(&changed, stock, 1, now).1;
    elsewhere.write(resized(&changed, stock, 3, now).1).await;
    let mut of_a_line = resized(&node.cart(stock, 2).await, stock, 1, now).1;
    for line in &mut of_a_line.lines {
        if let storekeeper::domain::cart::LineChange::Resize { seen, .. } = line {
            seen.quantity += 1;
        }
    }
    let too_early = Entry {
        session: Some(SessionChange {
            key: late.id.key,
            action: SessionAction::End { seen: late.version, state: CartState::Expired },
        }),
        ..Entry::default()
    };
    let product = ProductId(Uuid::now_v7());
    let transition = OrderChange::Transition {
        id: OrderId(Uuid::now_v7()),
        seen: OrderStatus::Pending,
        to: OrderStatus::Cancelled,
        sequence: 2,
        payment_reference: None,
    };
    let key = IdempotencyKey { scope: "user".to_owned(), key: format!("done before {round}") };
    let response = |_: &_| StoredResponse { status: 200, headers: Vec::new(), body: "{}".to_owned() };
    let remember = Remember { key, fingerprint: [0; 32], render: Arc::new(response) };
    let message = ConsumedMessage { queue: "update-inventory", id: format!("done before {round}") };
    let named = Entry { remember: Some(remember), ..moved(stock, 1) };
    let told = Entry { message: Some(message), ..moved(stock, 1) };
    for entry in [named.clone(), told.clone()] {
        elsewhere.write(Entry { movements: moved(stock, 1).movements, ..entry }).await;
    }
    vec![
        (stale, Refusal::SessionChanged),
        (of_a_line, Refusal::HoldChanged),
        (too_early, Refusal::SessionTime),
        (Entry { products: vec![(product, 1)], ..moved(stock, 1) }, Refusal::ProductChanged { product }),
        (Entry { order: Some(transition), ..Entry::default() }, Refusal::OrderChanged),
        (named, Refusal::KeyKnown),
        (told, Refusal::MessageKnown),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_as_it_was_seen_is_refused_and_takes_nothing_with_it() {
    let database = Database::new();
    let elsewhere = Node::on(&database.url).await;
    let stock = elsewhere.stock(100).await;
    for number in 0..7 {
        // A node that has no reason to doubt.
        let node = Node::on(&database.url).await;
        let mut misfits = misfits(&elsewhere, &Node::on(&database.url).await, &stock, number).await;
        known(&node, &stock).await;
        let before = node.balance(&stock).await.on_hand;
        let (entry, why) = misfits.swap_remove(number);
        let done = node.decided(vec![moved(&stock, 1), entry, moved(&stock, 1)]).await;
        assert_eq!(refusal(&done[1]), Some(&why), "misfit {number}");
        assert!(matches!((&done[0], &done[2]), (Done::Applied(_), Done::Applied(_))), "{why:?}: {done:?}");
        assert_eq!(node.balance(&stock).await.on_hand, before + 2, "{why:?}");
    }
    elsewhere.assert_in_order().await;
}

/// A cart whose time is over is changed no more, whatever its server thinks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cart_that_is_over_is_seen_to_be() {
    let database = Database::new();
    let node = Node::on(&database.url).await;
    let stock = node.stock(100).await;
    let cart = node.cart(&stock, 2).await;
    let mut past = connect(&database.url).await.expect("the database");
    past.execute("UPDATE cart_sessions SET expires_at = 1").await.expect("over");
    known(&node, &stock).await;
    let done = node.decided(vec![resized(&cart, &stock, 3, Timestamp(cart.expires_at.0 - 1)).1]).await;
    assert_eq!(refusal(&done[0]), Some(&Refusal::SessionTime));
    past.close().await.expect("closed");
}

/// How many wait for a lock with the one statement.
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'WITH batch%'";
/// Five units come in, as another server would write it.
const RECEIPT: &str = "WITH receipt AS (
        INSERT INTO movements (id, previous, inventory_id, seq, reason, action, units, on_hand_change, held_change,
            on_hand, held, actor, at)
        SELECT gen_random_uuid(), last_movement, id, seq + 1, 'receipt', 'IN', 5, 5, 0, on_hand + 5, held, 'test', 1
        FROM inventories RETURNING id, inventory_id)
    UPDATE inventories SET on_hand = on_hand + 5, seq = seq + 1, last_movement = receipt.id
    FROM receipt WHERE receipt.inventory_id = inventories.id";

/// The statement sees the database as it was when it began; what it then waits for is another's to change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_server_commits_while_it_waits_for_the_lock_counts() {
    let changes = [
        ("stock", RECEIPT),
        ("a cart", "UPDATE cart_sessions SET version = version + 1"),
        ("a product", "UPDATE products SET version = version + 1"),
        ("nothing", "UPDATE inventories SET on_hand = on_hand"),
        ("stock that was read", RECEIPT),
    ];
    for (what, change) in changes {
        let database = Database::new();
        let mut node = Node::on(&database.url).await;
        let stock = node.stock(10).await;
        let cart = node.cart(&stock, 2).await;
        let mut entry = resized(&cart, &stock, 3, node.clock.now()).1;
        entry.products = vec![(stock.product, 1)];
        let (mut holder, mut observer) =
            (connect(&database.url).await.expect("a connection"), connect(&database.url).await.expect("a connection"));
        holder.execute("BEGIN").await.expect("begun");
        if what == "stock that was read" {
            // A node that knows other stock only.
            node = Node::on(&database.url).await;
            known(&node, &node.stock(1).await).await;
        } else {
            known(&node, &stock).await;
        }
        holder.execute(change).await.expect("a change");
        let waiting = tokio::spawn(async move {
            let done = node.decided(vec![entry, moved(&stock, 1)]).await;
            (node, done)
        });
        until(&mut observer, WAITING, |count| count > 0).await;
        holder.execute("COMMIT").await.expect("committed");
        let (node, done) = waiting.await.expect("no panic");
        let Done::Applied(applied) = &done[1] else { panic!("{what}: {done:?}") };
        let (on_hand, held) = (applied.balances[0].on_hand, node.balance(&stock).await.held);
        match what {
            "stock" => assert_eq!((refusal(&done[0]), on_hand, held), (None, 17, 3), "{what}"),
            "stock that was read" => assert_eq!((refusal(&done[0]), on_hand, held), (None, 16, 3), "{what}"),
            "a cart" => assert_eq!((refusal(&done[0]), held), (Some(&Refusal::SessionChanged), 2)),
            "a product" => {
                let refused = Refusal::ProductChanged { product: stock.product };
                assert_eq!((refusal(&done[0]), held), (Some(&refused), 2));
            }
            _ => assert_eq!((refusal(&done[0]), on_hand, held), (None, 12, 3), "{what}"),
        }
        node.assert_in_order().await;
    }
}

/// A node through a proxy, which knows the stock; and entries of which the one has a word in it that is sent as it is.
struct Scene {
    through: Node,
    beside: Node,
    stock: Stock,
    proxy: Proxy,
    works: Vec<Work>,
    // In the order in which they go.
    _database: Database,
    _server: Server,
}

const WORD: &str = "here it breaks";

impl Scene {
    async fn set() -> Self {
        let server = tokio::task::spawn_blocking(|| Server::new(Durability::Real)).await.expect("a server");
        let database = Database::of(&server);
        let proxy = Proxy::to(server.socket()).await;
        let beside = Node::on(&database.url).await;
        let through = Node::on(&proxy.url(&database.name)).await;
        let stock = beside.stock(10).await;
        known(&through, &stock).await;
        let (_, hold) = new_cart(&stock, 4, through.clock.now());
        let mut with_word = moved(&stock, 5);
        with_word.movements[0].reference = Some(WORD.to_owned());
        let works = works(vec![hold, with_word]);
        Self { through, beside, stock, proxy, works, _database: database, _server: server }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_cut_before_its_answer_is_found_committed() {
    let scene = Scene::set().await;
    let batch = Uuid::now_v7();
    let happened = scene.proxy.arm(WORD, Fault::CutBehind);
    let outcome = scene.through.store.commit(batch, &scene.works).await;
    happened.await.expect("it was cut");
    let Err(CommitError::Unknown { planned, .. }) = outcome else { panic!("{outcome:?}") };
    let after = Balance { on_hand: 16, held: 4, seq: 4 };
    assert_eq!(planned.balances, [(scene.stock.inventory, after)]);
    for _ in 0..2 {
        let again = scene.through.store.commit(batch, &scene.works).await;
        assert!(matches!(again, Err(CommitError::AlreadyCommitted)), "{again:?}");
    }
    // Also where it would be one statement again.
    known(&scene.through, &scene.stock).await;
    let again = scene.through.store.commit(batch, &scene.works).await;
    assert!(matches!(again, Err(CommitError::AlreadyCommitted)), "{again:?}");
    assert_eq!(scene.beside.balance(&scene.stock).await, Balance { on_hand: 17, held: 4, seq: 5 }, "once");
    scene.beside.assert_in_order().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_never_arrived_is_done_when_it_comes_again() {
    let scene = Scene::set().await;
    let batch = Uuid::now_v7();
    let happened = scene.proxy.arm(WORD, Fault::CutBefore);
    let outcome = scene.through.store.commit(batch, &scene.works).await;
    happened.await.expect("it was cut");
    assert!(matches!(outcome, Err(CommitError::Unknown { .. })), "nobody can know: {outcome:?}");
    let again = scene.through.store.commit(batch, &scene.works).await.expect("a commit");
    assert!(matches!(again.done[..], [Done::Applied(_), Done::Applied(_)]), "{again:?}");
    assert_eq!(scene.beside.balance(&scene.stock).await, Balance { on_hand: 16, held: 4, seq: 4 });
    scene.beside.assert_in_order().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whose_connection_the_server_ends_is_done_when_it_comes_again() {
    let database = Database::new();
    let node = Node::on(&database.url).await;
    let stock = node.stock(10).await;
    let (mut holder, mut observer) =
        (connect(&database.url).await.expect("a connection"), connect(&database.url).await.expect("a connection"));
    holder.execute("BEGIN").await.expect("begun");
    known(&node, &stock).await;
    holder.execute("UPDATE inventories SET on_hand = on_hand").await.expect("a lock");
    let (batch, works) = (Uuid::now_v7(), works(vec![moved(&stock, 5)]));
    let (node, works, outcome) = {
        let waiting = tokio::spawn(async move {
            let outcome = node.store.commit(batch, &works).await;
            (node, works, outcome)
        });
        until(&mut observer, WAITING, |count| count > 0).await;
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND query LIKE 'WITH batch%'";
        observer.execute(end).await.expect("ended");
        waiting.await.expect("no panic")
    };
    assert!(matches!(outcome, Err(CommitError::Unknown { .. })), "it may have been the commit: {outcome:?}");
    holder.execute("COMMIT").await.expect("committed");
    let again = node.store.commit(batch, &works).await.expect("a commit");
    assert!(matches!(again.done[..], [Done::Applied(_)]), "{again:?}");
    assert_eq!(node.balance(&stock).await, Balance { on_hand: 16, held: 0, seq: 3 });
    node.assert_in_order().await;
}
