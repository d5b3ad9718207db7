//! Plans that a connection keeps from when the tables were all but empty, after a sale has filled them.

use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};
use storekeeper::domain::ids::{CartKey, InventoryId, OrderId, UserId};
use storekeeper::domain::timestamp::Timestamp;
use storekeeper::persistence::records::{EmailFilter, OrderFilter, Page};
use storekeeper::persistence::{Carts, Inventories, Mail, Orders, Outbox, Upkeep};
use uuid::Uuid;

use crate::node::Node;
use crate::server::{Database, Durability, Server, connect};

/// Reads on each side of the sale; the server keeps a plan after five on one connection.
const READS: usize = 50;
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_PERIOD: Duration = Duration::from_millis(20);
/// The tables that the sale fills.
const FILLED: [&str; 8] =
    ["cart_sessions", "holds", "orders", "order_items", "inventories", "movements", "outbox", "emails"];
/// 5,000 orders of as many users and carts, of which nobody was told, with their places in one ledger; 5,000 carts whose time is
/// over; 5,000 mails to be sent. The key of each is its number.
const SALE: &str = "
    CREATE FUNCTION numbered(number bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS
        $$ SELECT lpad(to_hex(number), 32, '0')::uuid $$;
    INSERT INTO cart_sessions SELECT numbered(n), decode(repeat('00', 16), 'hex'),
        CASE WHEN n <= 5000 THEN 'ordered' ELSE 'open' END, 1, 0, n FROM generate_series(1, 10000) n;
    INSERT INTO holds SELECT numbered(n), 1, numbered(1), numbered(1), 1, CASE WHEN n <= 5000 THEN 'sold' ELSE 'open' END
        FROM generate_series(1, 10000) n;
    INSERT INTO orders SELECT numbered(n), numbered(n), numbered(n), 'Ann', 'ann@example.org', 'USD', 1, 0, 1, 'PENDING', 1,
        NULL, NULL, n, n FROM generate_series(1, 5000) n;
    INSERT INTO inventories VALUES (numbered(1), numbered(1), 'LAMP', 10000, 0, 5000, numbered(5000), 0);
    INSERT INTO movements SELECT numbered(n), CASE WHEN n > 1 THEN numbered(n - 1) END, numbered(1), n, 'sale', 'OUT', 1, -1, 0,
        10000 - n, 0, numbered(n), numbered(n), NULL, 'system', 0 FROM generate_series(1, 5000) n;
    INSERT INTO outbox (order_id, sequence, to_status, at) SELECT numbered(n), 1, 'PENDING', 0 FROM generate_series(1, 5000) n;
    INSERT INTO emails SELECT numbered(n), 'shop@example.org', n || '@example.org', 'Your order', 'Thank you', NULL, 'send-email',
        'QUEUED', 0, 0, NULL, n, 0, NULL FROM generate_series(1, 5000) n";

/// The key of this number.
fn numbered(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// How many rows a read touches, in the mean, by plans from before the sale. It finds `found` things afterwards.
async fn rows_touched(read: impl AsyncFn(&Node) -> usize, found: usize) -> f64 {
    let database = Database::new();
    let node = Node::on(&database.url).await;
    let mut connection = connect(&database.url).await.expect("a connection");
    for table in FILLED {
        let quiet = format!("ALTER TABLE {table} SET (autovacuum_enabled = false); ANALYZE {table}");
        connection.execute(sqlx::AssertSqlSafe(quiet)).await.expect("statistics");
    }
    for _ in 0..READS {
        assert_eq!(read(&node).await, 0, "before the sale");
    }
    connection.execute(SALE).await.expect("a sale");
    let before = rows_read(&mut connection).await;
    for _ in 0..READS {
        assert_eq!(read(&node).await, found, "after the sale");
    }
    node.store.close().await;
    until_counted(&mut connection).await;
    (rows_read(&mut connection).await - before) as f64 / READS as f64
}

fn page() -> Page {
    Page { limit: 20, after: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cart_is_found_by_its_key() {
    let read = async |node: &Node| node.store.cart(CartKey(numbered(7))).await.expect("a read").iter().count();
    assert_eq!(rows_touched(read, 1).await, 3.0, "a cart, its line and its order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn carts_are_found_by_their_keys() {
    let keys = [7, 8, 9].map(|number| CartKey(numbered(number)));
    let read = async |node: &Node| node.store.carts(&keys).await.expect("a read").len();
    assert_eq!(rows_touched(read, 3).await, 6.0, "three carts and their lines");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn carts_whose_time_is_over_are_found_by_it() {
    let read = async |node: &Node| {
        let from = (Timestamp(0), CartKey(Uuid::nil()));
        node.store.carts_due(Timestamp(1_000_000), from, 20).await.expect("a read").len()
    };
    assert_eq!(rows_touched(read, 20).await, 40.0, "twenty carts and their lines");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_carts_are_found_by_their_time() {
    let read = async |node: &Node| {
        node.store.open_carts((Timestamp(0), CartKey(Uuid::nil())), 20).await.expect("a read").len()
    };
    assert_eq!(rows_touched(read, 20).await, 40.0, "twenty carts and their lines");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_is_found_by_its_key() {
    let read = async |node: &Node| node.store.orders(&[OrderId(numbered(7))]).await.expect("a read").len();
    assert_eq!(rows_touched(read, 1).await, 2.0, "an order and its cart");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_orders_are_found_by_their_user() {
    let read = async |node: &Node| {
        let filter = OrderFilter { user: Some(UserId(numbered(7))), status: None };
        node.store.list_orders(&filter, &page()).await.expect("a page").rows.len()
    };
    assert_eq!(rows_touched(read, 1).await, 2.0, "an order and its cart");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_orders_is_no_more_than_that() {
    let read =
        async |node: &Node| node.store.list_orders(&OrderFilter::default(), &page()).await.expect("a page").rows.len();
    // One more is read, to know whether there is another page.
    assert_eq!(rows_touched(read, 20).await, 42.0, "orders and their carts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_that_wait_for_a_payment_are_found_by_their_time() {
    let read = async |node: &Node| {
        let from = (Timestamp(0), OrderId(Uuid::nil()));
        node.store.orders_pending_since(Timestamp(1_000_000), from, 20).await.expect("a read").len()
    };
    assert_eq!(rows_touched(read, 20).await, 20.0, "twenty orders");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_a_ledger_is_no_more_than_that() {
    let read =
        async |node: &Node| node.store.movements(InventoryId(numbered(1)), &page()).await.expect("a page").rows.len();
    assert_eq!(rows_touched(read, 20).await, 41.0, "the stock's record, its newest rows and their carts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_claimed_by_their_orders() {
    let claim = async |node: &Node| {
        let (now, until) = (Timestamp(1_000_000), Timestamp(2_000_000));
        let claimed = node.store.claim_changes(now, until, 20).await.expect("a claim");
        let positions: Vec<i64> = claimed.iter().map(|change| change.position).collect();
        node.store.release_changes(&positions, until).await.expect("given back");
        positions.len()
    };
    // Whether there are any; the first ones; whether their orders have others that are claimed; each to be claimed; each to be
    // given back.
    assert_eq!(rows_touched(claim, 20).await, 81.0, "twenty changes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mails_are_claimed_by_their_time() {
    let claim = async |node: &Node| {
        let (now, until) = (Timestamp(1_000_000), Timestamp(2_000_000));
        node.store.claim_emails(now, until, 20).await.expect("a claim").len()
    };
    let touched = rows_touched(claim, 20).await;
    // Whether there are any; those to be claimed, and some more to see which are as old; each to be claimed.
    assert!((41.0..60.0).contains(&touched), "twenty mails: {touched} rows");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebodys_mails_are_found_by_their_address() {
    let read = async |node: &Node| {
        let filter = EmailFilter { recipient: Some("7@example.org".to_owned()), ..EmailFilter::default() };
        node.store.list_emails(&filter, &page()).await.expect("a page").rows.len()
    };
    assert_eq!(rows_touched(read, 1).await, 1.0, "a mail");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_again_and_again_is_not_compiled() {
    // One on this machine, so that it can be seen what its processes have in memory.
    let server = tokio::task::spawn_blocking(|| Server::new(Durability::None)).await.expect("a server");
    let database = Database::of(&server);
    let mut connection = connect(&database.url).await.expect("a connection");
    // Whatever it costs, a server that compiles does so.
    let eager = format!("ALTER DATABASE {} SET jit_above_cost = 0", database.name);
    connection.execute(sqlx::AssertSqlSafe(eager)).await.expect("set");
    let mut beside = connect(&database.url).await.expect("a connection");
    let own: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut beside).await.expect("a number");
    let compiles: bool =
        sqlx::query_scalar("SELECT pg_jit_available()").fetch_one(&mut beside).await.expect("an answer");
    if !compiles {
        return eprintln!("this server has no compiler");
    }
    assert!(has_compiler(own), "who does not say that nothing is to be compiled has it");
    let node = Node::on(&database.url).await;
    for _ in 0..READS {
        let from = (Timestamp(0), CartKey(Uuid::nil()));
        assert_eq!(node.store.carts_due(Timestamp(1_000_000), from, 20).await.expect("a read"), Vec::new());
    }
    let statement = "SELECT pid FROM pg_stat_activity
                     WHERE datname = current_database() AND query LIKE '%cart_sessions%' AND pid <> pg_backend_pid()";
    let at_work: Vec<i32> = sqlx::query_scalar(statement).fetch_all(&mut connection).await.expect("processes");
    assert!(!at_work.is_empty(), "the store has connections");
    for process in at_work {
        assert!(!has_compiler(process), "process {process} has its compiler in memory");
    }
    connection.close().await.expect("closed");
    node.store.close().await;
}

/// Whether a process of the server has the compiler of statements in memory.
fn has_compiler(process: i32) -> bool {
    let mapped = std::fs::read_to_string(format!("/proc/{process}/maps")).expect("what the process has in memory");
    assert!(mapped.contains("postgres"), "its program");
    mapped.contains("llvmjit")
}

/// Rows that were read, in a row or by an index.
async fn rows_read(connection: &mut PgConnection) -> i64 {
    let statement = "SELECT sum(seq_tup_read + idx_tup_fetch)::bigint FROM pg_stat_user_tables WHERE relname = ANY($1)";
    connection.execute("SELECT pg_stat_force_next_flush()").await.expect("what this connection did is counted");
    sqlx::query_scalar(statement).bind(&FILLED[..]).fetch_one(connection).await.expect("a number")
}

/// Waits until the store's connections have gone: the server counts what one did before it forgets it.
async fn until_counted(connection: &mut PgConnection) {
    let statement = "SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND application_name = 'storekeeper'";
    let end = Instant::now() + PATIENCE;
    loop {
        let there: i64 = sqlx::query_scalar(statement).fetch_one(&mut *connection).await.expect("a number");
        if there == 0 {
            return;
        }
        assert!(Instant::now() < end, "{there} connections are still there");
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}
