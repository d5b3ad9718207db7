//! The outbox after a burst, when PostgreSQL believes that it is empty: its statistics are of the quiet time before.

use std::time::Duration;

use sqlx::Connection;
use storekeeper::app::App;
use storekeeper::persistence::Outbox;
use uuid::Uuid;

use crate::contention::until;
use crate::dump::buy;
use crate::node::Node;
use crate::nodes::config;
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

/// What holds an order's row together is its cart's: without that it can not be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_can_not_be_read_holds_no_other_up() {
    let database = Database::new();
    let stock = Node::on(&database.url).await.stock(10).await;
    let app = App::build(config(&database)).await.expect("it serves");
    let (broken, sound) =
        (buy(app.shop(), &stock).await.expect("an order"), buy(app.shop(), &stock).await.expect("one"));
    app.stop().await.expect("a clean end");

    let mut connection = connect(&database.url).await.expect("a connection");
    let untold =
        "UPDATE outbox SET published_at = NULL, leased_until = 0; DELETE FROM consumed_messages; DELETE FROM emails";
    sqlx::raw_sql(untold).execute(&mut connection).await.expect("as if nobody had been told");
    sqlx::query("DELETE FROM cart_sessions WHERE key = (SELECT cart_key FROM orders WHERE id = $1)")
        .bind(broken.0)
        .execute(&mut connection)
        .await
        .expect("removed by hand");

    let app = App::build(config(&database)).await.expect("it serves");
    until(&mut connection, "SELECT count(*) FROM outbox WHERE published_at IS NULL", |waiting| waiting == 1).await;
    let waiting: Vec<Uuid> = sqlx::query_scalar("SELECT order_id FROM outbox WHERE published_at IS NULL")
        .fetch_all(&mut connection)
        .await
        .expect("rows");
    assert_eq!(waiting, [broken.0]);
    let subjects: Vec<String> =
        sqlx::query_scalar("SELECT subject FROM emails").fetch_all(&mut connection).await.expect("mails");
    assert!(subjects.len() == 1 && subjects[0].contains(&sound.to_string()), "{subjects:?}");
    app.stop().await.expect("a clean end");
    connection.close().await.expect("closed");
}
