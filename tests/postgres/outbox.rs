//! The outbox after a burst, when PostgreSQL believes that it is empty: its statistics are of the quiet time before.

use std::time::Duration;

use sqlx::Connection;
use storekeeper::persistence::Outbox;

use crate::node::Node;
use crate::server::{Database, connect};

/// Orders of three changes each.
const ORDERS: usize = 4_000;
const CLAIM: u32 = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_goes_out_though_the_statistics_say_that_there_is_nothing() {
    let database = Database::new();
    let node = Node::on(&database.url).await;
    let mut connection = connect(&database.url).await.expect("a connection");
    let insert = "INSERT INTO outbox (order_id, sequence, from_status, to_status, at, published_at)
                  SELECT md5($1 || (n / 3)::text)::uuid, n % 3 + 2, 'PENDING', 'CONFIRMED', 1, $2
                  FROM generate_series(0, $3 * 3 - 1) n";
    let orders = i32::try_from(ORDERS).expect("some");
    // A quiet time: all is published, and that is what the statistics say.
    sqlx::query(insert).bind("before").bind(Some(1_i64)).bind(orders).execute(&mut connection).await.expect("events");
    sqlx::query("ALTER TABLE outbox SET (autovacuum_enabled = false)").execute(&mut connection).await.expect("set");
    sqlx::query("ANALYZE outbox").execute(&mut connection).await.expect("statistics");
    sqlx::query(insert).bind("burst").bind(None::<i64>).bind(orders).execute(&mut connection).await.expect("events");

    // Each step has to be done within the session's own statement_timeout, or it is an error.
    let mut published = 0;
    loop {
        let now = node.clock.now();
        let claimed = node.store.claim_changes(now, now.plus(Duration::from_secs(60)), CLAIM).await.expect("a claim");
        if claimed.is_empty() {
            break;
        }
        let positions: Vec<_> = claimed.iter().map(|change| change.position).collect();
        assert_eq!(claimed.len() % 3, 0, "whole orders");
        node.store.mark_published(&positions, now).await.expect("a mark");
        published += positions.len();
    }
    assert_eq!(published, ORDERS * 3);
    connection.close().await.expect("closed");
}
