//! Plans that a connection keeps from when the tables were all but empty, after a sale has filled them.

use std::time::{Duration, Instant};

use sqlx::Executor;
use sqlx::postgres::PgConnection;
use storekeeper::domain::ids::{CartKey, OrderId};
use storekeeper::persistence::{Carts, Orders, Upkeep};
use uuid::Uuid;

use crate::node::Node;
use crate::server::{Database, connect};

/// Reads on each side of the sale; the server keeps a plan after five on one connection.
const READS: usize = 50;
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_PERIOD: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cart_is_found_by_its_key_though_the_plan_is_from_when_there_was_none() {
    let database = Database::new();
    let node = Node::on(&database.url).await;
    let mut connection = connect(&database.url).await.expect("a connection");
    for table in ["cart_sessions", "holds", "orders"] {
        let quiet = format!("ALTER TABLE {table} SET (autovacuum_enabled = false); ANALYZE {table}");
        connection.execute(sqlx::AssertSqlSafe(quiet)).await.expect("statistics");
    }
    read_carts(&node).await;
    connection
        .execute(
            "INSERT INTO cart_sessions SELECT gen_random_uuid(), 'secret', 'open', 1, 0, 0 FROM generate_series(1, 5000);
             INSERT INTO holds SELECT key, 1, key, key, 1, 'open' FROM cart_sessions;
             INSERT INTO orders SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'Ann', 'ann@example.org',
                 'USD', 1, 0, 1, 'PENDING', 1, NULL, NULL, 0, 0 FROM generate_series(1, 5000)",
        )
        .await
        .expect("a sale");
    // Who fills `holds` reads the carts one after the other.
    let before = read_in_a_row(&mut connection).await;
    read_carts(&node).await;
    node.store.close().await;
    until_counted(&mut connection).await;
    assert_eq!(read_in_a_row(&mut connection).await, before, "rows that were read to find others");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_is_found_by_its_key_though_the_plan_is_from_when_there_was_none() {
    let database = Database::new();
    let node = Node::on(&database.url).await;
    let mut connection = connect(&database.url).await.expect("a connection");
    for table in ["cart_sessions", "orders", "order_items"] {
        let quiet = format!("ALTER TABLE {table} SET (autovacuum_enabled = false); ANALYZE {table}");
        connection.execute(sqlx::AssertSqlSafe(quiet)).await.expect("statistics");
    }
    for _ in 0..READS {
        assert!(node.store.orders(&[OrderId(Uuid::now_v7())]).await.expect("a read").is_empty());
    }
    connection
        .execute(
            "INSERT INTO cart_sessions
                 SELECT gen_random_uuid(), decode(repeat('00', 16), 'hex'), 'ordered', 1, 0, 0 FROM generate_series(1, 5000);
             INSERT INTO orders SELECT gen_random_uuid(), key, gen_random_uuid(), 'Ann', 'ann@example.org', 'USD', 1, 0, 1,
                 'PENDING', 1, NULL, NULL, 0, 0 FROM cart_sessions",
        )
        .await
        .expect("a sale");
    let one: Uuid = sqlx::query_scalar("SELECT id FROM orders LIMIT 1").fetch_one(&mut connection).await.expect("one");
    let before = read_at_all(&mut connection).await;
    for _ in 0..READS {
        assert_eq!(node.store.orders(&[OrderId(one)]).await.expect("a read").len(), 1);
    }
    node.store.close().await;
    until_counted(&mut connection).await;
    let read = read_at_all(&mut connection).await - before;
    assert_eq!(read, 2 * READS as i64, "rows that were read: an order and its cart each time");
}

/// Rows that were read, in a row or by an index.
async fn read_at_all(connection: &mut PgConnection) -> i64 {
    let statement = "SELECT sum(seq_tup_read + idx_tup_fetch)::bigint FROM pg_stat_user_tables
                     WHERE relname IN ('cart_sessions', 'orders', 'order_items')";
    connection.execute("SELECT pg_stat_force_next_flush()").await.expect("what this connection did is counted");
    sqlx::query_scalar(statement).fetch_one(connection).await.expect("a number")
}

async fn read_carts(node: &Node) {
    for _ in 0..READS {
        assert!(node.store.cart(CartKey(Uuid::now_v7())).await.expect("a read").is_none());
    }
}

/// Rows that were read by going through whole tables.
async fn read_in_a_row(connection: &mut PgConnection) -> i64 {
    let statement = "SELECT sum(seq_tup_read)::bigint FROM pg_stat_user_tables
                     WHERE relname IN ('cart_sessions', 'holds', 'orders')";
    connection.execute("SELECT pg_stat_force_next_flush()").await.expect("what this connection did is counted");
    sqlx::query_scalar(statement).fetch_one(connection).await.expect("a number")
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
