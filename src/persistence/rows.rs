//! Rows as the databases give them, and how each becomes what the layers above know. Shared by the stores: a row
//! has the same columns in both databases.

use std::collections::HashMap;

use serde::{Deserialize, Deserializer};
use uuid::Uuid;

use crate::domain::cart::{Cart, CartLine, CartState, HoldState};
use crate::domain::ids::{CartKey, CartSessionId, EmailId, InventoryId, MovementId, OrderId, ProductId, UserId};
use crate::domain::money::{Currency, Money};
use crate::domain::order::{OrderLine, OrderStatus, Totals};
use crate::domain::product::{Product, ProductStatus};
use crate::domain::stock::{Action, Balance, Change, Reason};
use crate::domain::timestamp::Timestamp;

use super::StoreError;
use super::cursor::Cursor;
use super::records::{
    DeadLetter, Email, EmailStatus, Inventory, KeptCart, Listed, Movement, NewEmail, Order, OrderedLine, OutboxRecord,
    Remembered, StoredResponse,
};

/// A kept name that must be one of those the program knows.
pub(super) fn named<T>(what: &'static str, name: &str, from_name: fn(&str) -> Option<T>) -> Result<T, StoreError> {
    from_name(name).ok_or_else(|| StoreError::Corrupt(format!("{what} {name:?}")))
}

/// A kept hash, key or secret that must have its length.
pub(super) fn sized<const LENGTH: usize>(what: &'static str, bytes: Vec<u8>) -> Result<[u8; LENGTH], StoreError> {
    <[u8; LENGTH]>::try_from(bytes).map_err(|bytes| StoreError::Corrupt(format!("{what} of {} bytes", bytes.len())))
}

/// Whether a row came that is not what the program expects.
pub(super) fn is_undecodable(error: &sqlx::Error) -> bool {
    matches!(
        error,
        sqlx::Error::Decode(_)
            | sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnIndexOutOfBounds { .. }
            | sqlx::Error::TypeNotFound { .. }
    )
}

#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct ProductRow {
    pub(super) id: Uuid,
    sku: String,
    name: String,
    /// The name in lower case, as lists are sorted by it.
    pub(super) name_folded: String,
    description: Option<String>,
    pub(super) price: i64,
    status: String,
    inventory_id: Option<Uuid>,
    version: i64,
    pub(super) created_at: i64,
    updated_at: i64,
}

impl TryFrom<ProductRow> for Product {
    type Error = StoreError;

    fn try_from(row: ProductRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: ProductId(row.id),
            sku: row.sku,
            name: row.name,
            description: row.description,
            price: Money(row.price),
            status: named("product status", &row.status, ProductStatus::from_name)?,
            inventory: row.inventory_id.map(InventoryId),
            version: row.version,
            created_at: Timestamp(row.created_at),
            updated_at: Timestamp(row.updated_at),
        })
    }
}

#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct InventoryRow {
    pub(super) id: Uuid,
    product_id: Uuid,
    sku: String,
    on_hand: i64,
    held: i64,
    seq: i64,
    updated_at: i64,
}

impl From<InventoryRow> for Inventory {
    fn from(row: InventoryRow) -> Self {
        Self {
            id: InventoryId(row.id),
            product: ProductId(row.product_id),
            sku: row.sku,
            balance: Balance { on_hand: row.on_hand, held: row.held, seq: row.seq },
            updated_at: Timestamp(row.updated_at),
        }
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct MovementRow {
    id: Uuid,
    /// The row before it in the same inventory's chain.
    previous: Option<Uuid>,
    seq: i64,
    reason: String,
    action: String,
    units: i64,
    on_hand_change: i64,
    held_change: i64,
    on_hand: i64,
    held: i64,
    cart_key: Option<Uuid>,
    /// The secret of that cart's session.
    cart_secret: Option<Vec<u8>>,
    order_id: Option<Uuid>,
    reference: Option<String>,
    actor: String,
    at: i64,
}

impl TryFrom<MovementRow> for Movement {
    type Error = StoreError;

    fn try_from(row: MovementRow) -> Result<Self, StoreError> {
        let cart = match (row.cart_key, row.cart_secret) {
            (Some(key), Some(secret)) => {
                Some(CartSessionId { key: CartKey(key), secret: sized("cart secret", secret)? })
            }
            (None, _) | (_, None) => None,
        };
        Ok(Self {
            id: MovementId(row.id),
            seq: row.seq,
            action: named("action", &row.action, Action::from_name)?,
            reason: named("reason", &row.reason, Reason::from_name)?,
            units: row.units,
            change: Change { on_hand: row.on_hand_change, held: row.held_change },
            on_hand: row.on_hand,
            held: row.held,
            cart,
            order: row.order_id.map(OrderId),
            reference: row.reference,
            actor: row.actor,
            at: Timestamp(row.at),
        })
    }
}

/// A page of a ledger that was walked from row to row; the next page starts at the row that the last one points to.
pub(super) fn ledger_page(list: &str, rows: Vec<MovementRow>) -> Result<Listed<Movement>, StoreError> {
    let next = rows.last().and_then(|last| last.previous).map(|next| Cursor::behind(list, (), next).encode());
    let rows = rows.into_iter().map(Movement::try_from).collect::<Result<Vec<_>, _>>()?;
    Ok(Listed { rows, next: next.transpose()? })
}

/// A cart session beside one of its lines, or beside none when it has none.
#[derive(sqlx::FromRow)]
pub(super) struct CartLineRow {
    key: Uuid,
    secret: Vec<u8>,
    session_state: String,
    version: i64,
    created_at: i64,
    expires_at: i64,
    order_id: Option<Uuid>,
    number: Option<i64>,
    product_id: Option<Uuid>,
    inventory_id: Option<Uuid>,
    quantity: Option<i64>,
    hold_state: Option<String>,
}

impl CartLineRow {
    fn cart_without_lines(&self) -> Result<KeptCart, StoreError> {
        let cart = Cart {
            id: CartSessionId { key: CartKey(self.key), secret: sized("cart secret", self.secret.clone())? },
            state: named("cart state", &self.session_state, CartState::from_name)?,
            version: self.version,
            created_at: Timestamp(self.created_at),
            expires_at: Timestamp(self.expires_at),
            lines: Vec::new(),
        };
        Ok(KeptCart { cart, order: self.order_id.map(OrderId) })
    }

    fn line(&self) -> Result<Option<CartLine>, StoreError> {
        let (Some(number), Some(product), Some(inventory), Some(quantity), Some(state)) =
            (self.number, self.product_id, self.inventory_id, self.quantity, &self.hold_state)
        else {
            return Ok(None);
        };
        Ok(Some(CartLine {
            number,
            product: ProductId(product),
            inventory: InventoryId(inventory),
            quantity,
            state: named("hold state", state, HoldState::from_name)?,
        }))
    }
}

/// The carts of rows that stand cart by cart, each with its lines in their order.
pub(super) fn carts(rows: &[CartLineRow]) -> Result<Vec<KeptCart>, StoreError> {
    let mut carts: Vec<KeptCart> = Vec::new();
    for row in rows {
        if carts.last().is_none_or(|last| last.cart.id.key.0 != row.key) {
            carts.push(row.cart_without_lines()?);
        }
        if let (Some(line), Some(last)) = (row.line()?, carts.last_mut()) {
            last.cart.lines.push(line);
        }
    }
    Ok(carts)
}

#[derive(sqlx::FromRow, Deserialize)]
pub(super) struct OrderRow {
    /// Grows with time: orders are listed by it.
    pub(super) id: Uuid,
    cart_key: Uuid,
    /// The secret of that cart's session.
    #[serde(deserialize_with = "sixteen_bytes")]
    cart_secret: Vec<u8>,
    user_id: Uuid,
    user_name: String,
    user_email: String,
    currency: String,
    subtotal: i64,
    tax: i64,
    grand_total: i64,
    status: String,
    sequence: i64,
    shipping_address: Option<String>,
    payment_reference: Option<String>,
    created_at: i64,
    updated_at: i64,
}

/// A secret in hexadecimal digits: it has as many bytes as an identifier.
fn sixteen_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    Uuid::deserialize(deserializer).map(|id| id.into_bytes().to_vec())
}

impl TryFrom<OrderRow> for Order {
    type Error = StoreError;

    /// The order without its lines.
    fn try_from(row: OrderRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: OrderId(row.id),
            cart: CartSessionId { key: CartKey(row.cart_key), secret: sized("cart secret", row.cart_secret)? },
            user: UserId(row.user_id),
            user_name: row.user_name,
            user_email: row.user_email,
            currency: named("currency", &row.currency, Currency::from_code)?,
            totals: Totals { subtotal: Money(row.subtotal), tax: Money(row.tax), grand_total: Money(row.grand_total) },
            status: named("order status", &row.status, OrderStatus::from_name)?,
            sequence: row.sequence,
            shipping_address: row.shipping_address,
            payment_reference: row.payment_reference,
            lines: Vec::new(),
            created_at: Timestamp(row.created_at),
            updated_at: Timestamp(row.updated_at),
        })
    }
}

#[derive(sqlx::FromRow, Deserialize)]
pub(super) struct OrderItemRow {
    order_id: Uuid,
    product_id: Uuid,
    inventory_id: Uuid,
    name: String,
    sku: String,
    price: i64,
    quantity: i64,
    total: i64,
}

impl From<OrderItemRow> for OrderedLine {
    fn from(row: OrderItemRow) -> Self {
        Self {
            line: OrderLine {
                product: ProductId(row.product_id),
                name: row.name,
                sku: row.sku,
                price: Money(row.price),
                quantity: row.quantity,
                total: Money(row.total),
            },
            inventory: InventoryId(row.inventory_id),
        }
    }
}

/// Gives orders their lines, which stand in the lines' own order.
pub(super) fn add_lines(orders: &mut [Order], rows: Vec<OrderItemRow>) {
    let mut lines: HashMap<Uuid, Vec<OrderedLine>> = HashMap::with_capacity(orders.len());
    for row in rows {
        lines.entry(row.order_id).or_default().push(OrderedLine::from(row));
    }
    for order in orders {
        order.lines = lines.remove(&order.id.0).unwrap_or_default();
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct RememberedRow {
    fingerprint: Vec<u8>,
    status: i64,
    headers: String,
    body: String,
}

impl TryFrom<RememberedRow> for Remembered {
    type Error = StoreError;

    fn try_from(row: RememberedRow) -> Result<Self, StoreError> {
        let status = u16::try_from(row.status).map_err(|_| StoreError::Corrupt(format!("status {}", row.status)))?;
        Ok(Self {
            fingerprint: sized("fingerprint", row.fingerprint)?,
            response: StoredResponse { status, headers: headers_from_text(&row.headers)?, body: row.body },
        })
    }
}

/// Headers as they are kept: a JSON array of pairs.
pub(super) fn headers_to_text(headers: &[(String, String)]) -> String {
    serde_json::Value::from_iter(headers.iter().map(|(name, value)| [name.as_str(), value])).to_string()
}

fn headers_from_text(text: &str) -> Result<Vec<(String, String)>, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Corrupt(format!("stored headers: {error}")))
}

#[derive(sqlx::FromRow, Deserialize)]
pub(super) struct OutboxRow {
    pub(super) position: i64,
    order_id: Uuid,
    sequence: i64,
    from_status: Option<String>,
    to_status: String,
    at: i64,
    traceparent: Option<String>,
}

impl TryFrom<OutboxRow> for OutboxRecord {
    type Error = StoreError;

    fn try_from(row: OutboxRow) -> Result<Self, StoreError> {
        let status = |name: &str| named("order status", name, OrderStatus::from_name);
        Ok(Self {
            position: row.position,
            order: OrderId(row.order_id),
            sequence: row.sequence,
            from: row.from_status.as_deref().map(status).transpose()?,
            to: status(&row.to_status)?,
            at: Timestamp(row.at),
            traceparent: row.traceparent,
        })
    }
}

/// The records of claimed rows, the oldest first.
pub(super) fn outbox_records(mut rows: Vec<OutboxRow>) -> Result<Vec<OutboxRecord>, StoreError> {
    rows.sort_unstable_by_key(|row| row.position);
    rows.into_iter().map(OutboxRecord::try_from).collect()
}

#[derive(sqlx::FromRow)]
pub(super) struct DeadLetterRow {
    queue: String,
    message_id: String,
    payload: String,
    reason: String,
    at: i64,
}

impl From<DeadLetterRow> for DeadLetter {
    fn from(row: DeadLetterRow) -> Self {
        Self {
            queue: row.queue,
            message_id: row.message_id,
            payload: row.payload,
            reason: row.reason,
            at: Timestamp(row.at),
        }
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct EmailRow {
    /// Grows with time: mails are listed by it.
    pub(super) id: Uuid,
    sender: String,
    recipient: String,
    subject: String,
    body: String,
    html: Option<String>,
    source: String,
    status: String,
    attempts: i64,
    unanswered: i64,
    last_error: Option<String>,
    created_at: i64,
    sent_at: Option<i64>,
}

impl TryFrom<EmailRow> for Email {
    type Error = StoreError;

    fn try_from(row: EmailRow) -> Result<Self, StoreError> {
        Ok(Self {
            mail: NewEmail {
                id: EmailId(row.id),
                sender: row.sender,
                recipient: row.recipient,
                subject: row.subject,
                body: row.body,
                html: row.html,
                source: row.source,
                status: named("mail status", &row.status, EmailStatus::from_name)?,
                created_at: Timestamp(row.created_at),
            },
            attempts: row.attempts,
            unanswered: row.unanswered,
            last_error: row.last_error,
            sent_at: row.sent_at.map(Timestamp),
        })
    }
}
