//! The forms of the messages: what the bus carries, what consumers read back.
//!
//! Members are camelCase and money is an exact JSON number, as everywhere in the API; an order is the same JSON as
//! in `GET /orders/{id}`. Unknown members are ignored, so that a newer program's messages can be read.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::domain::ids::{CartSessionId, InventoryId, OrderId, ProductId, UserId};
use crate::domain::money::{Currency, Money};
use crate::domain::order::OrderStatus;
use crate::domain::stock::{Action, Reason};
use crate::domain::timestamp::Timestamp;
use crate::persistence::records::{Order, OrderedLine};

/// Units of one change of stock at most.
pub const UNITS_MAX: i64 = 1_000_000;
/// Characters of a reference at most.
pub const REFERENCE_MAX: usize = 255;

/// Why a text is not the message that it should be.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is not JSON, or not of the message's form.
    #[error("the message can not be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// Members are missing or out of bounds; all of them are named.
    #[error("{}", .0.join("; "))]
    Invalid(Vec<String>),
}

/// An amount in major units, exactly as it is written: `19.90` stays `19.90` and never becomes a float.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Amount(Box<RawValue>);

impl Amount {
    /// The amount with all the decimals of its currency.
    #[must_use]
    pub fn of(currency: Currency, amount: Money) -> Self {
        // Digits with a point between them are JSON.
        Self(RawValue::from_string(currency.show(amount)).unwrap_or_else(|error| {
            tracing::error!(%error, "an amount could not be written");
            RawValue::NULL.to_owned()
        }))
    }

    /// The number as it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for Amount {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Amount {}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let literal = Box::<RawValue>::deserialize(deserializer)?;
        let text = literal.get();
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        // The JSON reader has seen to the number's grammar; what is left to refuse is a power of ten or another type.
        if unsigned.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return Ok(Self(literal));
        }
        Err(de::Error::custom(format_args!("{text} is not an amount such as 19.99")))
    }
}

/// An order, as in `GET /orders/{id}`: the message of [`super::SEND_EMAIL`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderDocument {
    /// Its identifier.
    #[serde(deserialize_with = "from_text")]
    pub id: OrderId,
    /// Who bought.
    #[serde(deserialize_with = "from_text")]
    pub user_id: UserId,
    /// Their name when they bought.
    pub user_name: String,
    /// Their address when they bought.
    pub user_email: String,
    /// The sum of the items.
    pub subtotal: Amount,
    /// The tax on it.
    pub tax: Amount,
    /// Both.
    pub grand_total: Amount,
    /// ISO 4217 code of all amounts.
    pub currency: String,
    /// Where it stands.
    #[serde(serialize_with = "as_status", deserialize_with = "from_status")]
    pub status: OrderStatus,
    /// Where it goes, as the buyer gave it: a string, an object, or null.
    pub shipping_address: Option<Box<RawValue>>,
    /// What the payment is called, once it is confirmed.
    pub payment_reference: Option<String>,
    /// What was bought.
    pub order_items: Vec<OrderItemDocument>,
    /// When it was placed: RFC 3339, UTC, milliseconds.
    pub created_at: String,
    /// When its status last changed: RFC 3339, UTC, milliseconds.
    pub updated_at: String,
}

/// One item of an [`OrderDocument`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderItemDocument {
    /// What was bought.
    #[serde(deserialize_with = "from_text")]
    pub product_id: ProductId,
    /// Its name at that time.
    pub product_name: String,
    /// Its stock keeping unit.
    pub sku: String,
    /// The price of one.
    pub price: Amount,
    /// How many.
    pub quantity: i64,
    /// Price times quantity.
    pub total: Amount,
}

impl OrderDocument {
    /// The document of an order as it is kept. A shipping address that is no JSON is shown as a string.
    #[must_use]
    pub fn of(order: &Order) -> Self {
        let amount = |money: Money| Amount::of(order.currency, money);
        Self {
            id: order.id,
            user_id: order.user,
            user_name: order.user_name.clone(),
            user_email: order.user_email.clone(),
            subtotal: amount(order.totals.subtotal),
            tax: amount(order.totals.tax),
            grand_total: amount(order.totals.grand_total),
            currency: order.currency.code().to_owned(),
            status: order.status,
            shipping_address: order.shipping_address.as_deref().and_then(json_or_string),
            payment_reference: order.payment_reference.clone(),
            order_items: order.lines.iter().map(|line| OrderItemDocument::of(line, order.currency)).collect(),
            created_at: order.created_at.to_string(),
            updated_at: order.updated_at.to_string(),
        }
    }

    /// Reads the document back from a message.
    ///
    /// # Errors
    /// [`DocumentError::Unreadable`] says where the text is another.
    pub fn read(text: &str) -> Result<Self, DocumentError> {
        Ok(serde_json::from_str(text)?)
    }
}

impl OrderItemDocument {
    fn of(ordered: &OrderedLine, currency: Currency) -> Self {
        let line = &ordered.line;
        Self {
            product_id: line.product,
            product_name: line.name.clone(),
            sku: line.sku.clone(),
            price: Amount::of(currency, line.price),
            quantity: line.quantity,
            total: Amount::of(currency, line.total),
        }
    }
}

/// A change of an order's status: the message of [`super::ORDER_STATUS`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderStatusDocument {
    /// Which order.
    #[serde(deserialize_with = "from_text")]
    pub order_id: OrderId,
    /// Where it stood; null when it was placed.
    #[serde(default, serialize_with = "as_optional_status", deserialize_with = "from_optional_status")]
    pub from: Option<OrderStatus>,
    /// Where it stands.
    #[serde(serialize_with = "as_status", deserialize_with = "from_status")]
    pub to: OrderStatus,
    /// Number of the change within the order, from 1, without gaps.
    pub sequence: i64,
    /// When: RFC 3339, UTC, milliseconds.
    pub at: String,
}

impl OrderStatusDocument {
    /// The document of a change that led to `order` as it is now; `from` is where it stood before.
    #[must_use]
    pub fn of(order: OrderId, from: Option<OrderStatus>, to: OrderStatus, sequence: i64, at: Timestamp) -> Self {
        Self { order_id: order, from, to, sequence, at: at.to_string() }
    }
}

/// A used cart session: the message of [`super::CLEAR_CART`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClearCartDocument {
    /// The session, secret included.
    #[serde(deserialize_with = "from_text")]
    pub cart_session_id: CartSessionId,
    /// The order it became.
    #[serde(deserialize_with = "from_text")]
    pub order_id: OrderId,
}

impl ClearCartDocument {
    /// Reads the document from a message.
    ///
    /// # Errors
    /// [`DocumentError::Unreadable`] says where the text is another.
    pub fn read(text: &str) -> Result<Self, DocumentError> {
        Ok(serde_json::from_str(text)?)
    }
}

/// What a warehouse system asks for: the message of [`super::UPDATE_INVENTORY`]. The same rules as in
/// `PUT /inventories/{id}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StockRequestDocument {
    /// Whose stock.
    pub inventory: InventoryId,
    /// In or out.
    pub action: Action,
    /// How many units, 1 to [`UNITS_MAX`].
    pub units: i64,
    /// Why; the action's usual reason when none was given.
    pub reason: Reason,
    /// What the sender calls it, at most [`REFERENCE_MAX`] characters.
    pub reference: Option<String>,
}

impl StockRequestDocument {
    /// Reads a request that somebody else's program wrote.
    ///
    /// # Errors
    /// [`DocumentError::Unreadable`] when it is no JSON, [`DocumentError::Invalid`] names every bad member, what it
    /// was and what would be right.
    pub fn read(text: &str) -> Result<Self, DocumentError> {
        let document: Value = serde_json::from_str(text)?;
        if !document.is_object() {
            return Err(DocumentError::Invalid(vec![format!("the message must be an object, not {document}")]));
        }
        let mut faults = Vec::new();
        let inventory = member(&document, "inventoryId", "an inventory's identifier", &mut faults, |value| {
            value.as_str().and_then(|id| id.parse().ok())
        });
        let units = member(&document, "quantity", "a whole number from 1 to 1000000", &mut faults, |value| {
            value.as_i64().filter(|units| (1..=UNITS_MAX).contains(units))
        });
        let action = member(&document, "actionType", "\"IN\" or \"OUT\"", &mut faults, |value| {
            value.as_str().and_then(Action::from_name)
        });
        let reason = optional(&document, "reason", &given_reasons(), &mut faults, |value| {
            value.as_str().and_then(Reason::from_name).filter(|reason| Reason::GIVEN.contains(reason))
        });
        let right = "a text of at most 255 characters, none of them a control character";
        let reference = optional(&document, "reference", right, &mut faults, |value| {
            let one_line = |text: &&str| text.chars().count() <= REFERENCE_MAX && !text.chars().any(char::is_control);
            value.as_str().filter(one_line).map(str::to_owned)
        });
        match (inventory, units, action) {
            (Some(inventory), Some(units), Some(action)) if faults.is_empty() => {
                let reason = reason.unwrap_or_else(|| Reason::default_for(action));
                Ok(Self { inventory, action, units, reason, reference })
            }
            _ => Err(DocumentError::Invalid(faults)),
        }
    }
}

fn given_reasons() -> String {
    format!("one of {}", Reason::GIVEN.map(|reason| format!("\"{reason}\"")).join(", "))
}

/// A member that must be there. A missing or bad one is added to `faults`.
fn member<T>(
    document: &Value,
    name: &str,
    right: &str,
    faults: &mut Vec<String>,
    read: impl FnOnce(&Value) -> Option<T>,
) -> Option<T> {
    if document.get(name).is_none_or(Value::is_null) {
        faults.push(format!("{name} is missing: it must be {right}"));
        return None;
    }
    optional(document, name, right, faults, read)
}

/// A member that may be missing or null. A bad one is added to `faults`.
fn optional<T>(
    document: &Value,
    name: &str,
    right: &str,
    faults: &mut Vec<String>,
    read: impl FnOnce(&Value) -> Option<T>,
) -> Option<T> {
    let value = document.get(name).filter(|value| !value.is_null())?;
    let read = read(value);
    if read.is_none() {
        faults.push(format!("{name} is {}: it must be {right}", shortened(&value.to_string())));
    }
    read
}

/// The first 80 characters: a fault is to be read by people.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn json_or_string(text: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(text.to_owned()).or_else(|_| serde_json::value::to_raw_value(text)).ok()
}

fn from_text<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(deserializer: D) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|error| de::Error::custom(format_args!("{:?}: {error}", shortened(&text))))
}

fn as_status<S: Serializer>(status: &OrderStatus, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(status.name())
}

fn as_optional_status<S: Serializer>(status: &Option<OrderStatus>, serializer: S) -> Result<S::Ok, S::Error> {
    status.map(OrderStatus::name).serialize(serializer)
}

fn from_status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OrderStatus, D::Error> {
    let name = String::deserialize(deserializer)?;
    status_named(&name)
}

fn from_optional_status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<OrderStatus>, D::Error> {
    Option::<String>::deserialize(deserializer)?.map(|name| status_named(&name)).transpose()
}

fn status_named<E: de::Error>(name: &str) -> Result<OrderStatus, E> {
    OrderStatus::from_name(name).ok_or_else(|| E::custom(format_args!("{:?} is no order's status", shortened(name))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::messaging::mail::example::order;

    #[test]
    fn an_order_reads_as_the_api_shows_it() {
        let text = serde_json::to_string(&OrderDocument::of(&order())).expect("JSON");
        assert!(text.contains(r#""price":9.90,"quantity":2,"total":19.80"#), "exact, with all decimals: {text}");
        let value: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["status"], "PENDING");
        assert_eq!(value["createdAt"], "2026-11-22T09:30:00.000Z");
        assert_eq!(value["shippingAddress"], json!({"street": "1 High Street <b>", "city": "Springfield"}));
        assert_eq!(value["paymentReference"], Value::Null);
        assert_eq!(value["orderItems"][0]["productName"], "Tea & <Biscuits>");
        assert_eq!(value["userId"], Uuid::from_u128(2).to_string());
        let back = OrderDocument::read(&text).expect("reads back");
        assert_eq!(serde_json::to_string(&back).expect("JSON"), text, "nothing is lost on the way");
    }

    #[test]
    fn amounts_are_never_floats() {
        let large = "92233720368547758.07";
        let amount: Amount = serde_json::from_str(large).expect("an amount");
        assert_eq!(serde_json::to_string(&amount).expect("JSON"), large);
        for text in ["\"1.00\"", "1e3", "true", "null", "[1]", "{}"] {
            assert!(serde_json::from_str::<Amount>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_that_is_no_json_becomes_a_string() {
        let order = Order { shipping_address: Some("1 High Street".to_owned()), ..order() };
        let value = serde_json::to_value(OrderDocument::of(&order)).expect("JSON");
        assert_eq!(value["shippingAddress"], "1 High Street");
    }

    #[test]
    fn a_placed_order_comes_from_nowhere() {
        let document = OrderStatusDocument::of(OrderId(Uuid::nil()), None, OrderStatus::Pending, 1, Timestamp(0));
        let value = serde_json::to_value(&document).expect("JSON");
        assert_eq!(
            value,
            json!({"orderId": Uuid::nil(), "from": null, "to": "PENDING", "sequence": 1, "at": "1970-01-01T00:00:00.000Z"})
        );
        assert_eq!(serde_json::from_value::<OrderStatusDocument>(value).expect("reads back"), document);
    }

    #[test]
    fn a_used_cart_is_named_by_its_whole_session() {
        let document = ClearCartDocument { cart_session_id: order().cart, order_id: order().id };
        let text = serde_json::to_string(&document).expect("JSON");
        assert!(text.contains(&order().cart.to_string()), "{text}");
        assert_eq!(ClearCartDocument::read(&text).expect("reads back"), document);
        let error = ClearCartDocument::read(r#"{"cartSessionId":"x","orderId":"y"}"#).expect_err("no identifiers");
        assert!(error.to_string().contains("\"x\": not an identifier of this shop"), "{error}");
    }

    #[test]
    fn a_stock_request_has_the_usual_reason_when_none_is_given() {
        let inventory = Uuid::from_u128(7);
        let text = json!({"inventoryId": inventory, "quantity": 5, "actionType": "OUT", "later": 1}).to_string();
        let request = StockRequestDocument::read(&text).expect("a request");
        let expected = StockRequestDocument {
            inventory: InventoryId(inventory),
            action: Action::Out,
            units: 5,
            reason: Reason::Adjustment,
            reference: None,
        };
        assert_eq!(request, expected);
    }

    #[test]
    fn a_bad_stock_request_is_told_everything_that_is_wrong() {
        let text = json!({"quantity": 1.5, "actionType": "in", "reason": "hold", "reference": "r".repeat(256)});
        let error = StockRequestDocument::read(&text.to_string()).expect_err("bad").to_string();
        for part in [
            "inventoryId is missing: it must be an inventory's identifier",
            "quantity is 1.5: it must be a whole number from 1 to 1000000",
            "actionType is \"in\": it must be \"IN\" or \"OUT\"",
            "reason is \"hold\": it must be one of \"receipt\", ",
            "it must be a text of at most 255 characters",
        ] {
            assert!(error.contains(part), "{part} in {error}");
        }
        assert!(error.len() < 700, "a long value is shortened: {error}");
    }

    #[test]
    fn stock_request_bounds_hold() {
        let ask = |quantity: &str| {
            let id = Uuid::from_u128(7);
            StockRequestDocument::read(&format!(
                r#"{{"inventoryId":"{id}","quantity":{quantity},"actionType":"IN","reason":null}}"#
            ))
        };
        for good in ["1", "1000000"] {
            assert!(ask(good).is_ok(), "{good}");
        }
        let in_two_lines =
            format!(r#"{{"inventoryId":"{}","quantity":1,"actionType":"IN","reference":"a\u0000"}}"#, Uuid::nil());
        assert!(matches!(StockRequestDocument::read(&in_two_lines), Err(DocumentError::Invalid(_))));
        for bad in ["0", "-1", "1000001", "9223372036854775808", "\"5\"", "null", "1e2"] {
            assert!(matches!(ask(bad), Err(DocumentError::Invalid(_))), "{bad}");
        }
        assert!(matches!(StockRequestDocument::read("{"), Err(DocumentError::Unreadable(_))));
        assert!(matches!(StockRequestDocument::read("[]"), Err(DocumentError::Invalid(_))));
    }
}
