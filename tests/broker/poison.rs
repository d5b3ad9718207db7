//! Bad messages on `update-inventory`: put away with the reason, and those behind them are served.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::events::virtual_host;
use crate::queue::{Queues, Received};
use crate::shop::{Shop, until};
use crate::stock::Stock;

const QUEUE: &str = "update-inventory";

fn request(stock: Stock, action: &str, quantity: i64) -> Value {
    json!({"inventoryId": stock.inventory, "quantity": quantity, "actionType": action})
}

/// The message that was put away under this id, with the reason.
fn letter<'a>(letters: &'a [Received], id: &str) -> &'a Received {
    let mut of_id = letters.iter().filter(|letter| letter.id == id);
    let letter = of_id.next().unwrap_or_else(|| panic!("{id:?} is not among {letters:#?}"));
    assert!(of_id.next().is_none(), "{id:?} is there once");
    letter
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_messages_are_put_away_with_the_reason_and_those_behind_are_served() {
    let host = virtual_host().await;
    let (shop, queues) = (Shop::connected(&host.url).await, Queues::of(&host));
    let lamp = shop.stock(3).await;
    let unknown = Stock { inventory: storekeeper::domain::ids::InventoryId(Uuid::now_v7()), ..lamp };
    let good = request(lamp, "IN", 1).to_string();
    let with_id = |id: &str| json!({"message_id": id, "delivery_mode": 2});
    queues.publish(QUEUE, with_id("no-json"), b"{\"inventoryId\": ").await;
    queues.publish(QUEUE, with_id("no-text"), &[0xff, 0xfe, 0x00]).await;
    queues.publish(QUEUE, with_id("empty"), b"").await;
    queues.ask_for_stock("unknown", &request(unknown, "IN", 1)).await;
    queues.ask_for_stock("too-many", &request(lamp, "OUT", 4)).await;
    queues.ask_for_stock("negative", &request(lamp, "IN", -1)).await;
    let foreign = json!({"headers": {"CC": ["send-email"], "origin": "a warehouse"}, "expiration": "3600000"});
    queues.publish(QUEUE, foreign, good.as_bytes()).await;
    queues.ask_for_stock("good", &request(lamp, "OUT", 2)).await;

    until("the one behind them is served", async || shop.available(lamp).await == 1).await;
    let letters = queues.take_until("update-inventory.dead", 7).await;
    let says = [
        ("no-json", "can not be read", "{\"inventoryId\": "),
        ("no-text", "not UTF-8", "//4A"),
        ("empty", "can not be read", ""),
        ("unknown", "no such inventory", &request(unknown, "IN", 1).to_string()),
        ("too-many", "only 3 available", &request(lamp, "OUT", 4).to_string()),
        ("negative", "quantity", &request(lamp, "IN", -1).to_string()),
        ("", "no message_id", &good),
    ];
    assert_eq!(letters.len(), says.len(), "{letters:#?}");
    for (id, reason, payload) in says {
        let letter = letter(&letters, id);
        assert!(letter.header("x-reason").contains(reason), "{id}: {}", letter.header("x-reason"));
        assert_eq!((letter.header("x-queue"), letter.header("x-routing-key")), (QUEUE, QUEUE));
        assert_eq!((letter.routing_key.as_str(), letter.payload.as_str()), ("update-inventory.dead", payload));
    }
    let foreign = letter(&letters, "");
    assert_eq!((foreign.header("origin"), foreign.header("x-expiration")), ("a warehouse", "3600000"));
    // A dead letter goes nowhere else. (What its CC had brought to the mails at first is put away there.)
    let to_mails = queues.take_until("send-email.dead", 1).await;
    assert_eq!((to_mails.len(), to_mails[0].header("x-queue")), (1, "send-email"));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_comes_again_is_done_once() {
    let host = virtual_host().await;
    let (shop, queues) = (Shop::connected(&host.url).await, Queues::of(&host));
    let lamp = shop.stock(3).await;
    for _ in 0..3 {
        queues.ask_for_stock("in", &request(lamp, "IN", 4)).await;
    }
    // All that there is: whoever did it again would find nothing, and call the message a bad one.
    for _ in 0..3 {
        queues.ask_for_stock("out", &request(lamp, "OUT", 7)).await;
    }
    queues.ask_for_stock("last", &request(lamp, "IN", 100)).await;
    until("the last one is done", async || shop.available(lamp).await >= 100).await;
    assert_eq!(shop.available(lamp).await, 100, "the others are done before it, each once");
    let balance = shop.app.store().inventory(lamp.inventory).await.expect("an answer").expect("it is there").balance;
    assert_eq!(balance.seq, 4, "the first row, and one a message");
    queues.assert_no_dead_letters().await;
    shop.stop().await;
}
