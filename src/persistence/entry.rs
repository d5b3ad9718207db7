//! A journal entry: one unit of work on stock, carts and orders, all of it or nothing.
//!
//! An entry names what it saw (each hold's quantity, the session's version, the order's status, the product's
//! version); where the database says otherwise, the entry is refused and leaves nothing behind. It carries deltas,
//! never balances: sequence numbers and balances come from the transaction.

use std::fmt;
use std::sync::Arc;

use crate::domain::cart::{Cart, CartState, HoldState, LineChange};
use crate::domain::ids::{CartKey, InventoryId, MovementId, OrderId, ProductId};
use crate::domain::order::OrderStatus;
use crate::domain::stock::{Balance, Move};
use crate::domain::timestamp::Timestamp;

use super::records::{IdempotencyKey, NewEmail, Order, StoredResponse};

/// One unit of work.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    /// What happens to a cart session.
    pub session: Option<SessionChange>,
    /// What happens to that session's lines.
    pub lines: Vec<LineChange>,
    /// How lines that end here end.
    pub line_end: Option<HoldState>,
    /// The cart as this leaves it, for those who mirror carts; the store does not look at it.
    pub leaves: Option<Cart>,
    /// The ledger rows. Either all of them take stock or none does.
    pub movements: Vec<NewMovement>,
    /// What happens to an order. The change is put into the outbox with it, so that it can not be left untold.
    pub order: Option<OrderChange>,
    /// Where in a trace the order is changed (W3C Trace Context); `None` outside of all traces.
    pub traceparent: Option<String>,
    /// Products whose version must still be the one seen.
    pub products: Vec<(ProductId, i64)>,
    /// Mails that tell of it.
    pub mails: Vec<NewEmail>,
    /// The caller's name for this request, with what to answer when it comes again.
    pub remember: Option<Remember>,
    /// The message that this entry does, once.
    pub message: Option<ConsumedMessage>,
}

impl Entry {
    /// Whether it has a name by which it is known when it comes again: a caller's, or a message's.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.remember.is_some() || self.message.is_some()
    }

    /// Whether it takes units from what is available.
    #[must_use]
    pub fn takes_stock(&self) -> bool {
        self.movements.iter().any(|movement| movement.stock_move.change().available() < 0)
    }
}

/// What happens to a cart session, and what was seen of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionChange {
    /// Whose row.
    pub key: CartKey,
    /// What happens.
    pub action: SessionAction,
}

/// What happens to a cart session. All but the opening ask for an open session of the version seen, and leave it
/// with the next version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionAction {
    /// The first line opens it, with version 1.
    Open {
        /// The secret half of its identifier.
        secret: [u8; 16],
        /// When.
        created_at: Timestamp,
        /// When it ends by itself.
        expires_at: Timestamp,
    },
    /// It changed and lives on. Refused when its time is over by the database's clock.
    Touch {
        /// Its version as seen.
        seen: i64,
        /// When it ends by itself from now on.
        expires_at: Timestamp,
    },
    /// It ends. A checkout is refused when its time is over by the database's clock, an expiry when it is not.
    End {
        /// Its version as seen.
        seen: i64,
        /// How it ends; not `Open`.
        state: CartState,
    },
}

/// A ledger row to be written; its number and balances come from the transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMovement {
    /// Its identifier, unique: the same command written twice is refused.
    pub id: MovementId,
    /// Whose stock.
    pub inventory: InventoryId,
    /// What happens.
    pub stock_move: Move,
    /// The cart that causes it.
    pub cart: Option<CartKey>,
    /// The order that causes it.
    pub order: Option<OrderId>,
    /// What the one who causes it calls it.
    pub reference: Option<String>,
    /// Who causes it.
    pub actor: Arc<str>,
}

/// What happens to an order.
#[derive(Debug, Clone)]
pub enum OrderChange {
    /// It is placed. Its cart must not have become an order before.
    Place(Arc<Order>),
    /// Its status changes, from the one seen; its sequence grows by one.
    Transition {
        /// Which order.
        id: OrderId,
        /// Its status as seen.
        seen: OrderStatus,
        /// Its status from now on.
        to: OrderStatus,
        /// Its sequence from now on: the number of this change, its placing being the first.
        sequence: i64,
        /// What the payment is called; `None` leaves it as it is.
        payment_reference: Option<String>,
    },
}

/// A message of a queue that an entry does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConsumedMessage {
    /// The queue.
    pub queue: &'static str,
    /// The message's identifier.
    pub id: String,
}

/// Makes the answer that is stored from what the entry came to. Called inside the transaction, once for each try
/// of it, so it must be quick and must not wait.
pub type Render = Arc<dyn Fn(&Applied) -> StoredResponse + Send + Sync>;

/// A caller's name for a request, what the request was, and what to answer when it comes again.
#[derive(Clone)]
pub struct Remember {
    /// Scope and key.
    pub key: IdempotencyKey,
    /// HMAC-SHA-256 over method, path and body.
    pub fingerprint: [u8; 32],
    /// Makes the answer.
    pub render: Render,
}

impl fmt::Debug for Remember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remember").field("key", &self.key).finish_non_exhaustive()
    }
}

/// What became of an entry that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The balance after each of the entry's movements, in their order.
    pub balances: Vec<Balance>,
    /// The time of the commit.
    pub at: Timestamp,
}

/// Why an entry was not written: something is no longer as it was seen, or a rule forbids it. Nothing of it is
/// left behind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not so many units are available.
    #[error("only {available} available")]
    InsufficientStock {
        /// Whose stock.
        inventory: InventoryId,
        /// What can be sold.
        available: i64,
    },
    /// A balance would not fit 64 bits.
    #[error("the stock would be too large")]
    StockOverflow {
        /// Whose stock.
        inventory: InventoryId,
    },
    /// There is no such inventory.
    #[error("no such inventory")]
    UnknownInventory {
        /// The one named.
        inventory: InventoryId,
    },
    /// The session is not open, or has another version than the one seen.
    #[error("the cart has changed")]
    SessionChanged,
    /// The session's time was over, or (for an expiry) is not yet over.
    #[error("the cart's time does not fit")]
    SessionTime,
    /// A hold is not open, or has another quantity than the one seen.
    #[error("a hold has changed")]
    HoldChanged,
    /// The order is not in the status seen.
    #[error("the order has changed")]
    OrderChanged,
    /// The session has become an order.
    #[error("the cart has become an order")]
    AlreadyOrdered,
    /// A product has another version than the one seen.
    #[error("a product has changed")]
    ProductChanged {
        /// Which one.
        product: ProductId,
    },
    /// The idempotency key is known: the request was done before.
    #[error("the request was done before")]
    KeyKnown,
    /// The message is known: it was done before.
    #[error("the message was done before")]
    MessageKnown,
    /// A rule of the database's own refused it: a movement or another identifier that is there already, say.
    #[error("the database refused it: {rule}")]
    Rule {
        /// The constraint's name.
        rule: String,
    },
}

/// One thing that the journal hands to the store.
#[derive(Debug, Clone)]
pub enum Work {
    /// An entry to be written.
    Write(Arc<Entry>),
    /// A balance to be read behind everything that was handed in before.
    Load(InventoryId),
}

/// What became of one piece of work of a batch that was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// Written.
    Applied(Applied),
    /// Not written.
    Refused(Refusal),
    /// Read; `None` when there is no such inventory.
    Loaded(Option<Balance>),
}

/// A committed batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// What became of each piece of work, in its order.
    pub done: Vec<Done>,
    /// The balance after the batch of every inventory it was about, whatever became of its entries.
    pub balances: Vec<(InventoryId, Balance)>,
    /// The database's time in the transaction.
    pub at: Timestamp,
}
