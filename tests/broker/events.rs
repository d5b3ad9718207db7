//! What others see of a shop's events.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use storekeeper::domain::ids::OrderId;
use storekeeper::domain::order::OrderStatus;
use storekeeper::domain::timestamp::Timestamp;
use storekeeper::messaging::bus::Message;
use tokio::task::spawn_blocking;

use crate::queue::{Queues, Received};
use crate::rabbitmq::VirtualHost;
use crate::shop::{Shop, confirmation, until};
use crate::stock::Stock;

/// The queue of the tests' own.
pub(crate) const OWN: &str = "own";
/// The other client: it says as JSON what it finds.
const PIKA: &str = include_str!("seen_by_pika.py");
/// Seconds that it may take.
const PIKA_SECONDS_MAX: &str = "60";

/// A virtual host of a test's own; the server that it is on may have to start.
pub(crate) async fn virtual_host() -> VirtualHost {
    spawn_blocking(VirtualHost::new).await.expect("a virtual host")
}

/// What a queue got of an order, each thing by what it is about.
pub(crate) fn of_order(received: &[Received], order: OrderId) -> Vec<Value> {
    let id = order.to_string();
    let mut seen = Vec::new();
    for message in received {
        let document = message.document();
        match message.routing_key.as_str() {
            "order-status" if document["orderId"] == id => seen.push(json!([document["sequence"], document["to"]])),
            "send-email" if document["id"] == id => seen.push(json!(["confirmation", document["userEmail"]])),
            _ => {}
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_is_told_in_order_and_confirmed_once() {
    const ORDERS: usize = 12;
    let host = virtual_host().await;
    let (shop, queues) = (Shop::connected(&host.url).await, Queues::of(&host));
    queues.bind(OWN, &["order-status", "send-email"]).await;
    let lamp = shop.stock(1_000).await;
    let mut orders = Vec::new();
    for _ in 0..ORDERS {
        orders.push(shop.buy(lamp, 2).await);
    }
    for to in [OrderStatus::Confirmed, OrderStatus::Shipped] {
        for order in &orders {
            shop.change(order.id, to).await;
        }
    }
    orders.push(shop.until_mails_are_done(lamp).await);
    shop.until_all_is_out().await;

    let received = queues.take(OWN).await;
    assert_eq!(received.len(), ORDERS * 4 + 2, "each event once");
    let mails = shop.confirmations().await;
    for (number, order) in orders.iter().enumerate() {
        let mut wanted = vec![json!([1, "PENDING"]), json!(["confirmation", order.user_email])];
        if number < ORDERS {
            wanted.extend([json!([2, "CONFIRMED"]), json!([3, "SHIPPED"])]);
        }
        assert_eq!(of_order(&received, order.id), wanted);
        assert_eq!(mails.get(&confirmation(order.id)), Some(&1), "one confirmation: {mails:?}");
    }
    queues.assert_no_dead_letters().await;
    shop.stop().await;
}

/// What a message says of a stock.
fn stock_told(message: &Received, stock: Stock) -> Option<Value> {
    assert_eq!(message.routing_key, "stock-changed");
    let document = message.document();
    let of_stock = document["inventoryId"] == stock.inventory.to_string();
    of_stock.then_some(document)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_stock_is_told_once_a_second_and_the_last_one_always() {
    const TOLD: usize = 4;
    let host = virtual_host().await;
    let (shop, queues) = (Shop::connected(&host.url).await, Queues::of(&host));
    queues.bind(OWN, &["stock-changed"]).await;
    let (lamp, shade) = (shop.stock(1_000_000).await, shop.stock(10).await);
    shop.buy(shade, 3).await;
    let (begin, mut changes, mut received) = (Instant::now(), 0, Vec::new());
    let mut of_lamp = 0;
    while of_lamp < TOLD {
        shop.buy(lamp, 2).await;
        changes += 2;
        received.extend(queues.take(OWN).await);
        of_lamp = received.iter().filter_map(|message| stock_told(message, lamp)).count();
    }
    let newest = async |stock: Stock| {
        let balance =
            shop.app.store().inventory(stock.inventory).await.expect("an answer").expect("it is there").balance;
        json!({
            "inventoryId": stock.inventory, "productId": stock.product, "quantity": balance.available(),
            "onHand": balance.on_hand, "held": balance.held, "seq": balance.seq,
        })
    };
    for stock in [lamp, shade] {
        let wanted = newest(stock).await;
        until("the newest is told", async || {
            received.extend(queues.take(OWN).await);
            received.iter().filter_map(|message| stock_told(message, stock)).next_back().as_ref() == Some(&wanted)
        })
        .await;
    }
    let told: Vec<Value> = received.iter().filter_map(|message| stock_told(message, lamp)).collect();
    let seqs: Vec<i64> = told.iter().map(|document| document["seq"].as_i64().expect("a number")).collect();
    assert!(seqs.is_sorted_by(|earlier, later| earlier < later), "each newer than the last: {seqs:?}");
    let seconds_max = Duration::from_secs(u64::try_from(told.len() - 1).expect("a number"));
    assert!(begin.elapsed() >= seconds_max, "at most one a second: {} in {:?}", told.len(), begin.elapsed());
    assert!(changes > told.len(), "{changes} changes were told by {} messages", told.len());
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_client_sees_what_the_contract_says() {
    let host = virtual_host().await;
    let (shop, queues) = (Shop::connected(&host.url).await, Queues::of(&host));
    queues.bind(OWN, &["order-status", "send-email", "clear-cart"]).await;
    let order = shop.buy(shop.stock(10).await, 1).await;
    shop.until_all_is_out().await;

    let url = host.url.clone();
    let run =
        move || Command::new("timeout").args([PIKA_SECONDS_MAX, "/usr/bin/python3", "-c", PIKA, &url, OWN]).output();
    let told = spawn_blocking(run).await.expect("no panic").expect("python runs");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let messages: Vec<Value> = serde_json::from_slice(&told.stdout).expect("JSON");
    let keys: Vec<&str> = messages.iter().filter_map(|message| message["routing_key"].as_str()).collect();
    assert_eq!(keys, ["order-status", "send-email", "clear-cart"]);
    let placed = order.created_at.0 / 1_000_000;
    let mut ids = std::collections::HashSet::new();
    for message in &messages {
        assert_eq!(message["exchange"], "order");
        assert_eq!(message["type"], message["routing_key"]);
        assert_eq!(message["content_type"], "application/json");
        assert_eq!(message["delivery_mode"], 2, "persistent");
        assert_eq!(message["timestamp"], placed, "seconds");
        let id = message["message_id"].as_str().expect("an id");
        assert_eq!(uuid::Uuid::parse_str(id).map(|id| id.get_version_num()), Ok(7), "{id}");
        assert!(ids.insert(id), "an id of its own");
    }
    let payload = |number: usize| -> Value { messages[number]["payload"].clone() };
    let (status, mail, cart) = (payload(0), payload(1), payload(2));
    assert_eq!(status["orderId"], order.id.to_string());
    assert_eq!((&status["from"], &status["to"], &status["sequence"]), (&Value::Null, &json!("PENDING"), &json!(1)));
    assert!(status["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{status}");
    assert_eq!((&mail["id"], &mail["grandTotal"], &mail["currency"]), (&json!(order.id), &json!(1.0), &json!("USD")));
    assert_eq!(
        (mail["userEmail"].as_str(), mail["orderItems"][0]["quantity"].as_i64()),
        (Some(order.user_email.as_str()), Some(1))
    );
    assert_eq!(cart, json!({"cartSessionId": order.cart, "orderId": order.id}));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_place_in_a_trace_is_a_header_of_the_message() {
    const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let host = virtual_host().await;
    let (shop, queues) = (Shop::connected(&host.url).await, Queues::of(&host));
    queues.bind(OWN, &["order-status"]).await;
    let message = |id: &str, traceparent: Option<&str>| Message {
        id: id.to_owned(),
        queue: "order-status".to_owned(),
        payload: "{}".to_owned(),
        at: Timestamp(1_795_339_800_000_000),
        traceparent: traceparent.map(str::to_owned),
    };
    let messages = [message("traced", Some(TRACEPARENT)), message("untraced", None)];
    assert_eq!(shop.app.bus().publish(&messages).await, [true, true]);
    let received = queues.take_until(OWN, 2).await;
    assert_eq!(received.iter().map(|message| message.header("traceparent")).collect::<Vec<_>>(), [TRACEPARENT, ""]);
    shop.stop().await;
}
