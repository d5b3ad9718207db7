//! The events of an order: the messages that tell of one change of it. They are made of the outbox's record of the change
//! when it goes out, and are the same each time.

use serde::Serialize;
use uuid::{Builder, Uuid};

use crate::domain::order::OrderStatus;
use crate::persistence::records::{Order, OutboxRecord};

use super::bus::Message;
use super::documents::{ClearCartDocument, OrderDocument, OrderStatusDocument};
use super::{CLEAR_CART, ORDER_STATUS, SEND_EMAIL};

/// Why a change can not be told.
#[derive(Debug, thiserror::Error)]
pub enum Untellable {
    /// The order that was placed is not there, which the books forbid.
    #[error("there is no such order")]
    NoOrder,
    /// A document can not be written, which is a fault of the program.
    #[error("a document can not be written as JSON: {0}")]
    Unwritable(#[from] serde_json::Error),
}

/// The messages of a change, in the order in which they go out: [`ORDER_STATUS`] of each one, and of an order's placing
/// [`SEND_EMAIL`] and [`CLEAR_CART`] too. For a placing the order is needed. It may have changed since; it is told of as it was placed.
///
/// # Errors
/// [`Untellable`].
pub fn messages(change: &OutboxRecord, order: Option<&Order>) -> Result<Vec<Message>, Untellable> {
    let message = |queue: &str, payload: String| Message {
        id: event_id(change, queue).to_string(),
        queue: queue.to_owned(),
        payload,
        at: change.at,
        traceparent: change.traceparent.clone(),
    };
    let status = OrderStatusDocument::of(change.order, change.from, change.to, change.sequence, change.at);
    let mut messages = vec![message(ORDER_STATUS, json_of(&status)?)];
    if change.from.is_none() {
        let order = order.ok_or(Untellable::NoOrder)?;
        let clearing = ClearCartDocument { cart_session_id: order.cart, order_id: order.id };
        messages.push(message(SEND_EMAIL, json_of(&OrderDocument::of(&as_placed(order)))?));
        messages.push(message(CLEAR_CART, json_of(&clearing)?));
    }
    Ok(messages)
}

/// The order as it was when it was placed. All else of it stays as it is for ever.
fn as_placed(order: &Order) -> Order {
    Order {
        status: OrderStatus::Pending,
        sequence: 1,
        payment_reference: None,
        updated_at: order.created_at,
        ..order.clone()
    }
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
    use crate::domain::ids::{CartKey, CartSessionId, OrderId, UserId};
    use crate::domain::money::{Currency, Money};
    use crate::domain::order::Totals;
    use crate::domain::timestamp::Timestamp;

    fn placing() -> OutboxRecord {
        OutboxRecord {
            position: 7,
            order: OrderId(Uuid::from_u128(1)),
            sequence: 1,
            from: None,
            to: OrderStatus::Pending,
            at: Timestamp(1_500_000),
            traceparent: Some("a place".to_owned()),
        }
    }

    fn order() -> Order {
        Order {
            id: OrderId(Uuid::from_u128(1)),
            cart: CartSessionId { key: CartKey(Uuid::from_u128(2)), secret: [3; 16] },
            user: UserId(Uuid::from_u128(4)),
            user_name: "Ann".to_owned(),
            user_email: "ann@example.org".to_owned(),
            currency: Currency::from_code("USD").expect("a currency"),
            totals: Totals { subtotal: Money(150), tax: Money(0), grand_total: Money(150) },
            status: OrderStatus::Pending,
            sequence: 1,
            shipping_address: None,
            payment_reference: None,
            lines: Vec::new(),
            created_at: Timestamp(1_500_000),
            updated_at: Timestamp(1_500_000),
        }
    }

    fn told(change: &OutboxRecord, order: Option<&Order>) -> Vec<(String, String)> {
        let messages = messages(change, order).expect("messages");
        let traced =
            messages.iter().all(|message| message.traceparent == change.traceparent && message.at == change.at);
        assert!(traced, "{messages:?}");
        messages.into_iter().map(|message| (message.queue, message.payload)).collect()
    }

    #[test]
    fn a_placed_order_is_told_to_each_who_needs_it() {
        let id = Uuid::from_u128(1);
        let cart = format!("{}{}", Uuid::from_u128(2).simple(), "03".repeat(16));
        let wanted = [
            (
                "order-status",
                format!(
                    r#"{{"orderId":"{id}","from":null,"to":"PENDING","sequence":1,"at":"1970-01-01T00:00:01.500Z"}}"#
                ),
            ),
            ("send-email", serde_json::to_string(&OrderDocument::of(&order())).expect("JSON")),
            ("clear-cart", format!(r#"{{"cartSessionId":"{cart}","orderId":"{id}"}}"#)),
        ]
        .map(|(queue, payload)| (queue.to_owned(), payload));
        assert_eq!(told(&placing(), Some(&order())), wanted);
        let since = Order {
            status: OrderStatus::Confirmed,
            sequence: 2,
            payment_reference: Some("payment 1".to_owned()),
            updated_at: Timestamp(9_000_000),
            ..order()
        };
        assert_eq!(told(&placing(), Some(&since)), wanted, "as it was placed");
    }

    #[test]
    fn a_placing_is_not_told_without_its_order() {
        assert!(matches!(messages(&placing(), None), Err(Untellable::NoOrder)));
    }

    #[test]
    fn a_later_change_is_told_as_such() {
        let from = Some(OrderStatus::Pending);
        let change = OutboxRecord { sequence: 2, from, to: OrderStatus::Confirmed, ..placing() };
        let order = Uuid::from_u128(1);
        let payload = format!(
            r#"{{"orderId":"{order}","from":"PENDING","to":"CONFIRMED","sequence":2,"at":"1970-01-01T00:00:01.500Z"}}"#
        );
        assert_eq!(told(&change, None), [("order-status".to_owned(), payload)]);
    }

    #[test]
    fn an_event_has_one_identifier_of_its_own() {
        let changes = (1..=3).flat_map(|order| {
            (1..=3).map(move |sequence| OutboxRecord { order: OrderId(Uuid::from_u128(order)), sequence, ..placing() })
        });
        let ids: Vec<Uuid> = changes
            .flat_map(|change| messages(&change, Some(&order())).expect("messages"))
            .map(|message| message.id.parse().expect("an id"))
            .collect();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 3 * 3 * 3);
        assert!(ids.iter().all(|id| id.get_version_num() == 7));
        // What waits, or lies with a broker, while a server is replaced by a newer one must be known to that.
        assert_eq!(ids[0].to_string(), "00000000-05dc-7f08-a645-5ba95c2bdc16");
    }
}
