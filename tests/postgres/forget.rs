//! Two servers that forget at the same moment.

use std::time::Duration;

use storekeeper::app::App;
use storekeeper::persistence::forget::Retention;
use storekeeper::persistence::{Outbox, Upkeep};

use crate::dump::buy;
use crate::node::Node;
use crate::nodes::config;
use crate::server::{Database, connect};

/// Enough for some transactions of each.
const ORDERS: usize = 150;
const NO_TIME: Duration = Duration::ZERO;
const NOTHING: Retention = Retention {
    captured_mails: NO_TIME,
    sent_mails: NO_TIME,
    logins: NO_TIME,
    idempotency_keys: NO_TIME,
    message_ids: NO_TIME,
    published_events: NO_TIME,
    dead_letters: NO_TIME,
    journal_batches: NO_TIME,
};

/// Forgets all that can be forgotten.
async fn forget(node: &Node) -> u64 {
    let mut rows = 0;
    loop {
        let later = node.clock.now().plus(Duration::from_secs(1));
        let forgotten = node.store.forget(&NOTHING.cut_offs(later)).await.expect("an answer");
        rows += forgotten.rows;
        if !forgotten.is_more_left {
            return rows;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_that_forget_at_once_leave_the_books_right() {
    let database = Database::new();
    let app = App::build(config(&database)).await.expect("it serves");
    let (first, second) = tokio::join!(Node::on(&database.url), Node::on(&database.url));
    let stock = first.stock(1_000).await;
    for _ in 0..ORDERS {
        buy(app.shop(), &stock).await.expect("an order");
    }
    // What a stopping server has in its outbox it publishes.
    app.stop().await.expect("a clean end");
    assert_eq!(first.store.outbox_lag().await.expect("a read").0, 0);

    let (here, there) = tokio::join!(forget(&first), forget(&second));
    first.assert_in_order().await;
    let mut past = connect(&database.url).await.expect("the database");
    let left: Vec<(i64, i64)> =
        sqlx::query_as("SELECT outbox.position, outbox_horizon.position FROM outbox, outbox_horizon")
            .fetch_all(&mut past)
            .await
            .expect("rows");
    let [(newest, horizon)] = left[..] else { panic!("one change is left: {left:?}") };
    assert!(horizon < newest && here + there > 3 * ORDERS as u64, "{horizon}, {newest}; {here} and {there} rows");

    let app = App::build(config(&database)).await.expect("it serves");
    buy(app.shop(), &stock).await.expect("an order");
    app.stop().await.expect("a clean end");
    second.assert_in_order().await;
}
