//! The events of an order: the messages that tell of one change of it. They are made of the outbox's record of the change
//! when it goes out, and are the same each time.

use serde::Serialize;
use uuid::{Builder, Uuid};

use crate::persistence::records::OutboxRecord;

use super::bus::Message;
use super::documents::{ClearCartDocument, OrderStatusDocument};
use super::{CLEAR_CART, ORDER_STATUS, SEND_EMAIL};

/// The messages of a change, in the order in which they go out: [`ORDER_STATUS`] of each one, and of a placed order
/// [`SEND_EMAIL`] and [`CLEAR_CART`] too.
///
/// # Errors
/// When a document can not be written as JSON, which is a fault of the program.
pub fn messages(change: &OutboxRecord) -> Result<Vec<Message>, serde_json::Error> {
    let message = |queue: &str, payload: String| Message {
        id: event_id(change, queue).to_string(),
        queue: queue.to_owned(),
        payload,
        at: change.at,
        traceparent: change.traceparent.clone(),
    };
    let status = OrderStatusDocument::of(change.order, change.from, change.to, change.sequence, change.at);
    let mut messages = vec![message(ORDER_STATUS, json_of(&status)?)];
    if let Some((cart, document)) = &change.placed {
        let clearing = ClearCartDocument { cart_session_id: *cart, order_id: change.order };
        messages.push(message(SEND_EMAIL, document.clone()));
        messages.push(message(CLEAR_CART, json_of(&clearing)?));
    }
    Ok(messages)
}

/// The identifier of an event: a `UUIDv7` of the change's time, with a hash of order, number of the change and queue in the place of
/// what is random in others. So one that goes out again has the one that it had.
fn event_id(change: &OutboxRecord, queue: &str) -> Uuid {
    let name = Uuid::new_v5(&change.order.0, format!("{queue}/{}", change.sequence).as_bytes());
    let [_, _, _, _, _, _, hash @ ..] = name.into_bytes();
    let millis = u64::try_from(change.at.0 / 1_000).unwrap_or_default();
    Builder::from_unix_timestamp_millis(millis, &hash).into_uuid()
}

fn json_of(document: &impl Serialize) -> Result<String, serde_json::Error> {
    serde_json::to_string(document)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::domain::ids::{CartKey, CartSessionId, OrderId};
    use crate::domain::order::OrderStatus;
    use crate::domain::timestamp::Timestamp;

    fn placed() -> OutboxRecord {
        let cart = CartSessionId { key: CartKey(Uuid::from_u128(2)), secret: [3; 16] };
        OutboxRecord {
            position: 7,
            order: OrderId(Uuid::from_u128(1)),
            sequence: 1,
            from: None,
            to: OrderStatus::Pending,
            placed: Some((cart, "{\"id\":1}".to_owned())),
            at: Timestamp(1_500_000),
            traceparent: Some("a place".to_owned()),
        }
    }

    fn told(change: &OutboxRecord) -> Vec<(String, String)> {
        let messages = messages(change).expect("messages");
        let traced =
            messages.iter().all(|message| message.traceparent == change.traceparent && message.at == change.at);
        assert!(traced, "{messages:?}");
        messages.into_iter().map(|message| (message.queue, message.payload)).collect()
    }

    #[test]
    fn a_placed_order_is_told_to_each_who_needs_it() {
        let order = Uuid::from_u128(1);
        let cart = format!("{}{}", Uuid::from_u128(2).simple(), "03".repeat(16));
        let wanted = [
            (
                "order-status",
                format!(
                    r#"{{"orderId":"{order}","from":null,"to":"PENDING","sequence":1,"at":"1970-01-01T00:00:01.500Z"}}"#
                ),
            ),
            ("send-email", r#"{"id":1}"#.to_owned()),
            ("clear-cart", format!(r#"{{"cartSessionId":"{cart}","orderId":"{order}"}}"#)),
        ];
        assert_eq!(told(&placed()), wanted.map(|(queue, payload)| (queue.to_owned(), payload)));
    }

    #[test]
    fn a_later_change_is_told_as_such() {
        let from = Some(OrderStatus::Pending);
        let change = OutboxRecord { sequence: 2, from, to: OrderStatus::Confirmed, placed: None, ..placed() };
        let order = Uuid::from_u128(1);
        let payload = format!(
            r#"{{"orderId":"{order}","from":"PENDING","to":"CONFIRMED","sequence":2,"at":"1970-01-01T00:00:01.500Z"}}"#
        );
        assert_eq!(told(&change), [("order-status".to_owned(), payload)]);
    }

    #[test]
    fn an_event_has_one_identifier_of_its_own() {
        let changes = (1..=3).flat_map(|order| {
            (1..=3).map(move |sequence| OutboxRecord { order: OrderId(Uuid::from_u128(order)), sequence, ..placed() })
        });
        let ids = || changes.clone().flat_map(|change| messages(&change).expect("messages")).map(|message| message.id);
        assert_eq!(ids().collect::<HashSet<_>>().len(), 3 * 3 * 3);
        assert_eq!(ids().collect::<Vec<_>>(), ids().collect::<Vec<_>>());
        assert!(ids().all(|id| Uuid::try_parse(&id).is_ok_and(|id| id.get_version_num() == 7)));
    }
}
