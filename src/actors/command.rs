//! What a caller says with every change, and what it may be told.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::domain::cart::{CartError, CartLine};
use crate::domain::ids::{CartSessionId, InventoryId, OrderId, ProductId};
use crate::domain::money::Money;
use crate::domain::order::OrderStatus;
use crate::domain::timestamp::Timestamp;
use crate::persistence::StoreError;
use crate::persistence::records::{IdempotencyKey, Inventory, Order, StoredResponse};

use super::mailbox::Unposted;

/// What comes with every change: who asks, until when they wait, and what they call the request.
///
/// `T` is what the change answers with.
pub struct Command<T> {
    /// From then on nobody waits: a command that is not begun by then is not begun at all.
    pub deadline: Instant,
    /// Who asks, for the ledger: a user's id, `guest`, or a part of the system.
    pub actor: Arc<str>,
    /// The caller's name for the request, when it has one.
    pub remember: Option<RememberAs<T>>,
}

/// A caller's name for a request, and how its answer is stored for when it comes again.
pub struct RememberAs<T> {
    /// Scope and key.
    pub key: IdempotencyKey,
    /// HMAC-SHA-256 over method, path and body.
    pub fingerprint: [u8; 32],
    /// Makes the answer that is stored. Called before the commit is certain, perhaps more than once.
    pub render: Arc<dyn Fn(&T) -> StoredResponse + Send + Sync>,
}

// By hand: deriving would ask `T` to be `Clone`, which nothing here needs.
impl<T> Clone for RememberAs<T> {
    fn clone(&self) -> Self {
        Self { key: self.key.clone(), fingerprint: self.fingerprint, render: Arc::clone(&self.render) }
    }
}

impl<T> Clone for Command<T> {
    fn clone(&self) -> Self {
        Self { deadline: self.deadline, actor: Arc::clone(&self.actor), remember: self.remember.clone() }
    }
}

/// Whether a change that failed may have happened all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppliedOutcome {
    /// It certainly did not.
    No,
    /// It may have.
    Unknown,
}

impl AppliedOutcome {
    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }
}

/// A cart as it is shown: with names and the prices of now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CartView {
    /// The session; `None` when the caller has none.
    pub session: Option<CartSessionId>,
    /// The lines, in the order they were added.
    pub lines: Vec<CartViewLine>,
    /// The sum of the lines.
    pub subtotal: Money,
    /// When the cart ends by itself; `None` when there is none.
    pub expires_at: Option<Timestamp>,
}

/// A line of a shown cart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CartViewLine {
    /// What is in the cart.
    pub product: ProductId,
    /// Whose units are held.
    pub inventory: InventoryId,
    /// How many.
    pub quantity: i64,
    /// The product's stock keeping unit.
    pub sku: String,
    /// The product's name.
    pub name: String,
    /// The price of one, now.
    pub price: Money,
    /// Price times quantity.
    pub total: Money,
}

/// A stock record with the balance that its actor knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StockView {
    /// The record; its own balance is as of `balance`.
    pub inventory: Inventory,
    /// What can be sold now: less than the durable balance says while takes are in flight.
    pub available: i64,
}

/// An order that a checkout came to.
#[derive(Debug, Clone)]
pub struct CheckedOut {
    /// The order.
    pub order: Arc<Order>,
    /// Whether this checkout placed it; otherwise an earlier one of the same cart did.
    pub placed: bool,
}

/// Why a command was not done, or is not known to have been done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommandError {
    /// There is no such product, or the caller may not see it.
    #[error("there is no such product")]
    ProductNotFound,
    /// There is no such inventory.
    #[error("there is no such inventory")]
    InventoryNotFound,
    /// The inventory named is another product's.
    #[error("the inventory does not belong to the product")]
    InventoryMismatch {
        /// The product's own, when it has one.
        expected: Option<InventoryId>,
    },
    /// Not so many units are available.
    #[error("only {available} available")]
    InsufficientStock {
        /// What can be sold now.
        available: i64,
    },
    /// The stock would not fit 64 bits.
    #[error("the stock would be too large")]
    StockOverflow,
    /// An amount of money would not fit 64 bits.
    #[error("the total would be too large")]
    TotalOverflow,
    /// The cart would hold more than it may.
    #[error(transparent)]
    Cart(#[from] CartError),
    /// There is no open cart of that session.
    #[error("there is no open cart of that session")]
    CartNotFound,
    /// A checkout of a cart that is not there, or of one with nothing in it.
    #[error("the cart is empty")]
    CartEmpty,
    /// The cart's time was over; its units are back in stock.
    #[error("the cart's time was over")]
    HoldExpired {
        /// The lines that it had.
        lines: Vec<CartLine>,
    },
    /// The total is another than the caller expected.
    #[error("the total is another than expected")]
    PriceChanged {
        /// What the order would come to.
        grand_total: Money,
    },
    /// The cart has become somebody else's order.
    #[error("the cart has become an order")]
    CartOrdered,
    /// There is no such order.
    #[error("there is no such order")]
    OrderNotFound,
    /// The order's status does not allow it.
    #[error("an order that is {from} can not become {to}")]
    InvalidTransition {
        /// Where the order stands.
        from: OrderStatus,
        /// Where it should have gone.
        to: OrderStatus,
    },
    /// The request was done before, perhaps by another node: its stored answer is to be given.
    #[error("the request was done before")]
    KeyKnown,
    /// A message that was done before.
    #[error("the message was done before")]
    MessageKnown,
    /// A mail could not be written, or a secret not made. A fault of the program or of the system; nothing
    /// was done.
    #[error("something of the server's own could not be made")]
    Unwritable,
    /// Others changed the same thing again and again while this was tried. Nothing was done.
    #[error("others are changing the same thing")]
    Contended,
    /// No actor took it: too many requests wait, or the actor is down. Nothing was done.
    #[error(transparent)]
    Unposted(#[from] Unposted),
    /// The deadline passed.
    #[error("there was no answer in time")]
    Deadline {
        /// Whether the change may have happened.
        applied: AppliedOutcome,
    },
    /// The actor at work on it died.
    #[error("the actor at work on it died")]
    ActorDied {
        /// Whether the change may have happened.
        applied: AppliedOutcome,
    },
    /// The database did not do it.
    #[error("the database is not available")]
    Store {
        /// Whether the change may have happened.
        applied: AppliedOutcome,
        /// What the store said.
        source: Arc<StoreError>,
    },
}

impl CommandError {
    /// Whether the change may have happened all the same.
    #[must_use]
    pub fn applied(&self) -> AppliedOutcome {
        match self {
            Self::Deadline { applied } | Self::ActorDied { applied } | Self::Store { applied, .. } => *applied,
            Self::ProductNotFound
            | Self::InventoryNotFound
            | Self::InventoryMismatch { .. }
            | Self::InsufficientStock { .. }
            | Self::StockOverflow
            | Self::TotalOverflow
            | Self::Cart(_)
            | Self::CartNotFound
            | Self::CartEmpty
            | Self::HoldExpired { .. }
            | Self::PriceChanged { .. }
            | Self::CartOrdered
            | Self::OrderNotFound
            | Self::InvalidTransition { .. }
            | Self::KeyKnown
            | Self::MessageKnown
            | Self::Unwritable
            | Self::Contended
            | Self::Unposted(_) => AppliedOutcome::No,
        }
    }

    /// Whether it was not done for want of something that works, and not because a rule says no.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        match self {
            Self::Unposted(_)
            | Self::Deadline { .. }
            | Self::ActorDied { .. }
            | Self::Store { .. }
            | Self::Unwritable
            | Self::Contended => true,
            Self::ProductNotFound
            | Self::InventoryNotFound
            | Self::InventoryMismatch { .. }
            | Self::InsufficientStock { .. }
            | Self::StockOverflow
            | Self::TotalOverflow
            | Self::Cart(_)
            | Self::CartNotFound
            | Self::CartEmpty
            | Self::HoldExpired { .. }
            | Self::PriceChanged { .. }
            | Self::CartOrdered
            | Self::OrderNotFound
            | Self::InvalidTransition { .. }
            | Self::KeyKnown
            | Self::MessageKnown => false,
        }
    }
}

impl From<StoreError> for CommandError {
    fn from(source: StoreError) -> Self {
        let applied = match source {
            StoreError::Unknown(_) => AppliedOutcome::Unknown,
            StoreError::Unavailable(_)
            | StoreError::Constraint(_)
            | StoreError::Failed(_)
            | StoreError::Corrupt(_)
            | StoreError::InvalidCursor => AppliedOutcome::No,
        };
        Self::Store { applied, source: Arc::new(source) }
    }
}

impl<T> fmt::Debug for Command<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command").field("deadline", &self.deadline).field("actor", &self.actor).finish_non_exhaustive()
    }
}

/// Which order a change is about, and what it is to become.
#[derive(Debug, Clone)]
pub struct OrderTransition {
    /// Which order.
    pub order: OrderId,
    /// What it is to become.
    pub to: OrderStatus,
    /// What the payment is called; kept on `CONFIRMED`.
    pub payment_reference: Option<String>,
}
