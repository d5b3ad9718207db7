//! The database goes away while a warehouse system's messages come, and is back after a while.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::{block_in_place, spawn_blocking};

use crate::database::Database;
use crate::events::virtual_host;
use crate::postgres;
use crate::queue::Queues;
use crate::shop::{PATIENCE, Shop, until};

const QUEUE: &str = "update-inventory";
/// Messages that come meanwhile: more than a consumer takes in hand.
const MESSAGES: i64 = 260;
/// Messages that a consumer takes in hand.
const IN_HAND: i64 = 200;
/// How long the database is away after the consumer has taken its messages: long enough to try each of them again and
/// again, and for the time that one of them may take to be over.
const OUTAGE: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_wait_for_the_database_in_hand_and_are_done_once_when_it_is_back() {
    let host = virtual_host().await;
    let made = || {
        let server = postgres::Server::new(postgres::Durability::None);
        let database = postgres::Database::of(&server);
        (server, database)
    };
    let (mut server, database) = spawn_blocking(made).await.expect("a server");
    let (shop, queues) = (Shop::open(Database::Postgres(database), &host.url).await, Queues::of(&host));
    shop.until_broker_is("up").await;
    let lamp = shop.stock(0).await;
    let request = json!({"inventoryId": lamp.inventory, "quantity": 1, "actionType": "IN"});
    queues.ask_for_stock("first", &request).await;
    until("the first one is done", async || shop.available(lamp).await == 1).await;

    block_in_place(|| server.stop());
    for number in 0..MESSAGES {
        queues.ask_for_stock(&format!("message-{number}"), &request).await;
    }
    let figure = async |name: &str| queues.figures(QUEUE).await[name].as_i64().unwrap_or_default();
    until("the consumer has what it takes", async || figure("messages_unacknowledged").await == IN_HAND).await;
    let away = Instant::now();
    until("the database was away for a while", async || away.elapsed() >= OUTAGE).await;
    assert_eq!(figure("messages_unacknowledged").await, IN_HAND, "none is given back");
    block_in_place(|| server.start());

    until("all are done", async || {
        shop.app.shop().available(lamp.inventory, Instant::now() + PATIENCE).await.ok() == Some(1 + MESSAGES)
    })
    .await;
    let count = async |name: &str| queues.figures(QUEUE).await["message_stats"][name].as_i64().unwrap_or_default();
    until("the broker knows it", async || count("ack").await == 1 + MESSAGES).await;
    assert_eq!(count("redeliver").await, 0, "none went round");
    assert_eq!(shop.available(lamp).await, 1 + MESSAGES, "each is done once");
    queues.assert_no_dead_letters().await;
    shop.stop().await;
}
