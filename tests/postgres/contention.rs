//! Two writers on the same rows: locks come in one order, conflicts are tried again, nothing is lost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor};
use storekeeper::domain::cart::Cart;
use storekeeper::persistence::entry::{Done, Entry};
use storekeeper::persistence::{Carts, Upkeep};

use crate::node::{Node, moved, new_cart, resized};
use crate::server::{Database, connect};
use crate::stock::Stock;

/// How long the writers go on, in seconds; a minute or more to look harder.
const SOAK_SECONDS: &str = "SOAK_SECONDS";
/// Rows that both write to.
const ROWS: usize = 150;
/// Carts that both change.
const CARTS: usize = 30;
/// Entries of one batch.
const BATCH: usize = 40;
/// What is in stock at first of each product: scarce, so that there are refusals too.
const OPENING: i64 = 20;

/// Numbers that look random, and are the same each time.
struct Dice(u64);

impl Dice {
    /// A number below `limit`.
    fn roll(&mut self, limit: usize) -> usize {
        // Xorshift (Marsaglia, 2003).
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(limit).expect("small")).expect("small")
    }
}

/// One writer's share: what it changed of each row, and how many batches it wrote.
async fn write_on(
    node: Node,
    stocks: Vec<Stock>,
    carts: Vec<(Stock, Cart)>,
    seed: u64,
    end: Instant,
) -> (Vec<i64>, u64) {
    let mut dice = Dice(seed);
    let (mut changes, mut batches) = (vec![0; stocks.len()], 0);
    while Instant::now() < end {
        let mut entries = Vec::with_capacity(BATCH + 1);
        let mut of_row: BTreeMap<usize, (usize, i64)> = BTreeMap::new();
        for place in 0..BATCH {
            let (row, units) = (dice.roll(stocks.len()), i64::try_from(dice.roll(9)).expect("small") - 4);
            let units = if units == 0 { 5 } else { units };
            of_row.insert(place, (row, units));
            entries.push(moved(&stocks[row], units));
        }
        entries.push(change_of(&node, &carts[dice.roll(carts.len())], dice.roll(3)).await);
        let done = node.decided(entries).await;
        for (place, (row, units)) in of_row {
            if matches!(done[place], Done::Applied(_)) {
                changes[row] += units;
            }
        }
        batches += 1;
    }
    node.store.close().await;
    (changes, batches)
}

/// A change of a cart as it stands, or as it stood before the other writer changed it.
async fn change_of(node: &Node, (stock, begun): &(Stock, Cart), more: usize) -> Entry {
    let now = node.store.cart(begun.id.key).await.expect("a read").expect("a cart").cart;
    let held = now.line(stock.product).map_or(0, |line| line.quantity);
    let wanted = if held > 1 { 1 } else { 2 + i64::try_from(more).expect("small") };
    resized(&now, stock, wanted, node.clock.now()).1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_on_the_same_rows_lose_nothing_and_never_lock_each_other_out() {
    let database = Database::new();
    let seconds = std::env::var(SOAK_SECONDS).map_or(3, |text| text.parse().expect("a number of seconds"));
    let nodes = [Node::on(&database.url).await, Node::on(&database.url).await];
    let mut stocks = Vec::with_capacity(ROWS);
    for _ in 0..ROWS {
        stocks.push(nodes[0].stock(OPENING).await);
    }
    let mut carts = Vec::with_capacity(CARTS);
    for _ in 0..CARTS {
        let stock = nodes[0].stock(1_000).await;
        carts.push((stock, nodes[0].cart(&stock, 2).await));
    }
    let end = Instant::now() + Duration::from_secs(seconds);
    let [here, elsewhere] = nodes;
    let here = tokio::spawn(write_on(here, stocks.clone(), carts.clone(), 0x9E37_79B9_7F4A_7C15, end));
    let elsewhere = tokio::spawn(write_on(elsewhere, stocks.clone(), carts, 0xD1B5_4A32_D192_ED03, end));
    let (here, elsewhere) = (here.await.expect("no panic"), elsewhere.await.expect("no panic"));

    // A connection tells what it counted when it ends.
    let mut past = connect(&database.url).await.expect("the database");
    let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name <> ''";
    until(&mut past, open, |count| count == 0).await;
    assert_eq!(number(&mut past, DEADLOCKS).await, 0);
    let observer = Node::on(&database.url).await;
    assert!(here.1 > 1 && elsewhere.1 > 1, "both wrote: {} and {} batches", here.1, elsewhere.1);
    for (row, stock) in stocks.iter().enumerate() {
        let on_hand = observer.balance(stock).await.on_hand;
        assert_eq!(on_hand, OPENING + here.0[row] + elsewhere.0[row], "row {row}");
    }
    observer.assert_in_order().await;
}

async fn number(connection: &mut PgConnection, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(connection).await.expect(query)
}

const DEADLOCKS: &str = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
/// How many wait for a lock.
const WAITING: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";

/// Looks again and again until the database answers as it should.
pub(crate) async fn until(connection: &mut PgConnection, query: &'static str, wanted: impl Fn(i64) -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !wanted(number(connection, query).await) {
        assert!(Instant::now() < end, "not in time: {query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_session_is_locked_before_the_stock() {
    let database = Database::new();
    let node = Node::on(&database.url).await;
    let stock = node.stock(10).await;
    let cart = node.cart(&stock, 2).await;
    let (_, entry) = resized(&cart, &stock, 3, node.clock.now());
    let (mut holder, mut observer) =
        (connect(&database.url).await.expect("a connection"), connect(&database.url).await.expect("a connection"));
    holder.execute("BEGIN").await.expect("begun");
    holder.execute("SELECT * FROM cart_sessions FOR UPDATE").await.expect("a lock");
    let waiting = tokio::spawn(async move { node.decided(vec![entry]).await });
    until(&mut observer, WAITING, |count| count > 0).await;
    let free = "SELECT count(*) FROM (SELECT id FROM inventories FOR UPDATE SKIP LOCKED) AS free";
    assert_eq!(number(&mut observer, free).await, 1, "who waits for the session has not locked the stock yet");
    holder.execute("COMMIT").await.expect("committed");
    let done = waiting.await.expect("no panic");
    assert!(matches!(done[..], [Done::Applied(_)]), "{done:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_victim_of_a_deadlock_tries_again() {
    let database = Database::new();
    let node = Node::on(&database.url).await;
    let stock = node.stock(10).await;
    let cart = node.cart(&stock, 2).await;
    let (_, entry) = resized(&cart, &stock, 3, node.clock.now());
    let (mut other, mut observer) =
        (connect(&database.url).await.expect("a connection"), connect(&database.url).await.expect("a connection"));
    // One who takes locks in the wrong order, and is in no hurry to find out.
    other.execute("BEGIN; SET LOCAL deadlock_timeout = '1h'").await.expect("begun");
    let id = stock.inventory;
    let lock = AssertSqlSafe(format!("SELECT * FROM inventories WHERE id = '{id}' FOR UPDATE"));
    other.execute(lock).await.expect("a lock");
    let waiting = tokio::spawn(async move {
        let done = node.decided(vec![entry]).await;
        (node, done)
    });
    until(&mut observer, WAITING, |count| count > 0).await;
    other.execute("SELECT * FROM cart_sessions FOR UPDATE").await.expect("the other one gives way");
    other.execute("COMMIT").await.expect("committed");
    let (node, done) = waiting.await.expect("no panic");
    assert!(matches!(done[..], [Done::Applied(_)]), "{done:?}");
    node.assert_in_order().await;
    node.store.close().await;
    until(&mut observer, DEADLOCKS, |count| count == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn carts_of_two_servers_on_one_stock_sell_what_there_is() {
    let database = Database::new();
    let nodes = [Node::on(&database.url).await, Node::on(&database.url).await];
    let stock = nodes[0].stock(25).await;
    let batch = |node: &Node| (0..20).map(|_| new_cart(&stock, 1, node.clock.now()).1).collect::<Vec<_>>();
    let (first, second) = tokio::join!(nodes[0].decided(batch(&nodes[0])), nodes[1].decided(batch(&nodes[1])));
    let written = |done: &[Done]| done.iter().filter(|done| matches!(done, Done::Applied(_))).count();
    assert_eq!(written(&first) + written(&second), 25);
    assert_eq!(nodes[0].balance(&stock).await.held, 25);
    nodes[0].assert_in_order().await;
}
