//! Messages that come twice, can not be read, or ask for what is not there.

use std::collections::HashMap;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use storekeeper::messaging::bus::Message;
use storekeeper::messaging::{CLEAR_CART, SEND_EMAIL, UPDATE_INVENTORY};
use uuid::Uuid;

use crate::support::{Item, Level, TestShop, count, together, until};

const PATIENCE: Duration = Duration::from_secs(20);
const DELIVERIES: usize = 5;
/// How the ids of those messages begin that tell that everything before them is done.
const MARK: &str = "mark-";

fn message(shop: &TestShop, queue: &str, id: &str, payload: impl ToString) -> Message {
    Message {
        id: id.to_owned(),
        queue: queue.to_owned(),
        payload: payload.to_string(),
        at: shop.clock().now(),
        traceparent: None,
    }
}

fn stock_message(shop: &TestShop, id: &str, item: &Item, action: &str, quantity: i64) -> Message {
    let payload = json!({
        "inventoryId": item.inventory, "quantity": quantity, "actionType": action, "reference": id,
    });
    message(shop, UPDATE_INVENTORY, id, payload)
}

/// Hands in messages, and waits until all that was handed in to their queue is done or put away. (A bus may deliver
/// later than it confirms: behind them comes a message that is put away when its turn comes.)
async fn deliver(shop: &TestShop, queue: &str, messages: &[Message]) {
    let confirmed = shop.app.bus().publish(messages).await;
    assert!(confirmed.iter().all(|confirmed| *confirmed), "each is confirmed");
    until_done(shop, queue).await;
}

async fn until_done(shop: &TestShop, queue: &str) {
    let id = format!("{MARK}{}", Uuid::now_v7());
    assert_eq!(shop.app.bus().publish(&[message(shop, queue, &id, "")]).await, [true]);
    until("all is done", PATIENCE, async || {
        shop.dead_letters(queue).await.iter().any(|(letter, _)| *letter == id).then_some(())
    })
    .await;
}

/// The messages that were put away, and why; without those that tell the end.
async fn put_away(shop: &TestShop, queue: &str) -> Vec<(String, String)> {
    let mut letters = shop.dead_letters(queue).await;
    letters.retain(|(id, _)| !id.starts_with(MARK));
    letters
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_warehouse_message_is_done_once() {
    let shop = TestShop::open(|_| {}).await;
    let item = shop.api.item("5.00", 3).await;
    for _ in 0..DELIVERIES {
        deliver(&shop, UPDATE_INVENTORY, &[stock_message(&shop, "delivery-1", &item, "IN", 4)]).await;
    }
    assert_eq!(shop.api.level(&item).await, Level::free(7));

    // All that there is: whoever did it again would find nothing, and call the message a bad one.
    for _ in 0..DELIVERIES {
        deliver(&shop, UPDATE_INVENTORY, &[stock_message(&shop, "delivery-2", &item, "OUT", 7)]).await;
    }
    assert_eq!(shop.api.level(&item).await, Level::free(0));
    let ledger = shop.api.ledger(&item).await;
    assert_eq!((count(&ledger, "receipt"), count(&ledger, "adjustment")), (1, 1));
    assert_eq!(put_away(&shop, UPDATE_INVENTORY).await, []);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_delivered_many_times_at_once_is_done_once() {
    let shop = TestShop::open(|_| {}).await;
    let item = shop.api.item("5.00", 9).await;
    for round in 0..20 {
        let (id, action) = (format!("delivery-{round}"), if round % 2 == 0 { "OUT" } else { "IN" });
        let deliver = |_| {
            let (bus, message) = (shop.app.bus().clone(), stock_message(&shop, &id, &item, action, 9));
            async move { bus.publish(&[message]).await }
        };
        let confirmed = together((0..DELIVERIES).map(deliver)).await;
        assert!(confirmed.into_iter().all(|confirmed| confirmed == [true]));
        until_done(&shop, UPDATE_INVENTORY).await;
        let left = if round % 2 == 0 { 0 } else { 9 };
        assert_eq!(shop.api.level(&item).await, Level::free(left));
    }
    assert_eq!(shop.api.ledger(&item).await.len(), 21);
    assert_eq!(put_away(&shop, UPDATE_INVENTORY).await, []);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_messages_are_put_away_and_those_behind_them_are_served() {
    let shop = TestShop::open(|_| {}).await;
    let item = shop.api.item("5.00", 3).await;
    let unknown = Item { inventory: Uuid::now_v7().to_string(), ..item.clone() };
    let messages = [
        message(&shop, UPDATE_INVENTORY, "no-json", "{\"inventoryId\": "),
        message(&shop, UPDATE_INVENTORY, "no-quantity", json!({"inventoryId": item.inventory, "actionType": "IN"})),
        stock_message(&shop, "negative", &item, "IN", -1),
        stock_message(&shop, "unknown", &unknown, "IN", 1),
        stock_message(&shop, "too-many", &item, "OUT", 4),
        stock_message(&shop, "good", &item, "OUT", 2),
    ];
    for _ in 0..DELIVERIES {
        deliver(&shop, UPDATE_INVENTORY, &messages).await;
    }
    assert_eq!(shop.api.level(&item).await, Level::free(1));
    assert_eq!(count(&shop.api.ledger(&item).await, "adjustment"), 1);

    let letters = put_away(&shop, UPDATE_INVENTORY).await;
    let reasons: HashMap<&str, &str> = letters.iter().map(|(id, reason)| (id.as_str(), reason.as_str())).collect();
    // A broker keeps each copy that was put away, the store one of each message.
    assert!([5, 5 * DELIVERIES].contains(&letters.len()) && reasons.len() == 5, "the bad ones: {letters:?}");
    let says = [
        ("no-json", "can not be read"),
        ("no-quantity", "quantity"),
        ("negative", "quantity"),
        ("unknown", "no such inventory"),
        ("too-many", "only"),
    ];
    for (id, reason) in says {
        assert!(reasons[id].contains(reason), "{id}: {}", reasons[id]);
    }
    shop.stop().await;
}

/// The confirmations that buyers got, by recipient.
async fn confirmations(shop: &TestShop) -> HashMap<String, usize> {
    let (mut mails, mut cursor) = (HashMap::new(), String::new());
    loop {
        let path = format!("/emails?source=orders&limit=100{cursor}");
        let page = shop.api.ask_as_admin(Method::GET, &path).send().await.expect_status(200).body;
        for mail in page["data"].as_array().expect("a list") {
            *mails.entry(mail["recipient"].as_str().expect("an address").to_owned()).or_default() += 1;
        }
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return mails,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_is_confirmed_once() {
    const ORDERS: usize = 30;
    let shop = TestShop::open(|_| {}).await;
    let item = shop.api.item("5.00", 100).await;
    let buyers = shop.buyers(ORDERS).await;
    let buy = buyers.iter().map(|buyer| {
        let (api, item, buyer) = (shop.api.clone(), item.clone(), buyer.clone());
        async move {
            let session = api.cart_with(&item, 1).await;
            api.checkout(&buyer, &session).send().await.expect_status(201).body
        }
    });
    let orders: Vec<Value> = together(buy).await;

    let all_have_one = async || {
        let mails = confirmations(&shop).await;
        (mails.len() == ORDERS).then_some(mails)
    };
    let mails = until("every buyer has a mail", PATIENCE, all_have_one).await;
    assert!(buyers.iter().all(|buyer| mails[&buyer.email] == 1), "{mails:?}");

    // The same message of the same id, at once and again: one more mail, not ten.
    let deliver = |_| {
        let (bus, message) = (shop.app.bus().clone(), message(&shop, SEND_EMAIL, "again", &orders[0]));
        async move { bus.publish(&[message.clone(), message]).await }
    };
    let confirmed = together((0..DELIVERIES).map(deliver)).await;
    assert!(confirmed.into_iter().all(|confirmed| confirmed == [true, true]));
    until_done(&shop, SEND_EMAIL).await;
    let shop = shop.restart().await;
    let mails = confirmations(&shop).await;
    let once_more = orders[0]["userEmail"].as_str().expect("an address");
    assert!(buyers.iter().all(|buyer| mails[&buyer.email] == 1 + usize::from(buyer.email == once_more)), "{mails:?}");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_clearing_does_not_end_an_open_cart() {
    let shop = TestShop::open(|_| {}).await;
    let item = shop.api.item("5.00", 10).await;
    let session = shop.api.cart_with(&item, 3).await;
    let payload = json!({"cartSessionId": session, "orderId": Uuid::now_v7()});
    for _ in 0..DELIVERIES {
        deliver(&shop, CLEAR_CART, &[message(&shop, CLEAR_CART, "late", &payload)]).await;
    }
    assert_eq!(shop.api.cart(&session).await.body["items"][0]["quantity"], 3);
    assert_eq!(shop.api.level(&item).await, Level { quantity: 7, on_hand: 10, held: 3 });
    shop.stop().await;
}
