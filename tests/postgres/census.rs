//! What is in hand, counted after a burst by a connection that counted before, when there was nothing.

use sqlx::Connection;
use storekeeper::persistence::Upkeep;

use crate::node::Node;
use crate::server::{Database, connect};

/// Open carts with a line of two units each.
const CARTS: i64 = 40_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_is_counted_though_there_was_nothing_when_it_was_first_looked() {
    let database = Database::new();
    let node = Node::on(&database.url).await;
    let mut connection = connect(&database.url).await.expect("a connection");
    for table in ["cart_sessions", "holds"] {
        let set = format!("ALTER TABLE {table} SET (autovacuum_enabled = false)");
        sqlx::query(sqlx::AssertSqlSafe(set)).execute(&mut connection).await.expect("set");
    }
    assert_eq!(node.store.census().await.expect("a census").open_carts, 0);

    let sessions = "INSERT INTO cart_sessions (key, secret, state, version, created_at, expires_at)
                    SELECT md5(n::text)::uuid, '\\x00', 'open', 1, n, n FROM generate_series(1, $1) n";
    let holds = "INSERT INTO holds (cart_key, number, product_id, inventory_id, quantity, state)
                 SELECT md5(n::text)::uuid, 1, gen_random_uuid(), gen_random_uuid(), 2, 'open'
                 FROM generate_series(1, $1) n";
    for insert in [sessions, holds] {
        sqlx::query(insert).bind(CARTS).execute(&mut connection).await.expect("a burst");
    }
    // It has to be done within the session's own statement_timeout, or it is an error.
    let census = node.store.census().await.expect("a census");
    assert_eq!((census.open_carts, census.open_holds, census.held_units), (CARTS, CARTS, 2 * CARTS));
    connection.close().await.expect("closed");
}
