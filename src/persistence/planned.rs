//! The rows that a batch of journal entries comes to: the same for all databases, each with an SQL of its own for them.

use crate::domain::cart::{CartState, HoldState};
use crate::domain::ids::{CartKey, InventoryId, MovementId, OrderId, ProductId};
use crate::domain::order::OrderStatus;
use crate::domain::stock::{Balance, Change};
use crate::domain::timestamp::Timestamp;

use super::entry::NewMovement;
use super::records::{IdempotencyKey, StoredResponse};

/// A ledger row, complete.
#[derive(Debug)]
pub(super) struct MovementRow<'a> {
    pub(super) movement: &'a NewMovement,
    pub(super) previous: MovementId,
    pub(super) change: Change,
    pub(super) after: Balance,
}

/// An inventory's new balance, as the deltas to add to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BalanceRow {
    pub(super) id: InventoryId,
    pub(super) change: Change,
    pub(super) rows: i64,
    pub(super) last_movement: MovementId,
    pub(super) after: Balance,
}

/// A session to be opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenedSession {
    pub(super) key: CartKey,
    pub(super) secret: [u8; 16],
    pub(super) created_at: Timestamp,
    pub(super) expires_at: Timestamp,
}

/// A session's new state, version and end.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChangedSession {
    pub(super) key: CartKey,
    pub(super) state: CartState,
    pub(super) seen: i64,
    /// `None` leaves it as it is.
    pub(super) expires_at: Option<Timestamp>,
}

/// A line to be opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenedHold {
    pub(super) cart: CartKey,
    pub(super) number: i64,
    pub(super) product: ProductId,
    pub(super) inventory: InventoryId,
    pub(super) quantity: i64,
}

/// A line's new state and quantity.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChangedHold {
    pub(super) cart: CartKey,
    pub(super) number: i64,
    pub(super) seen: i64,
    pub(super) quantity: i64,
    pub(super) state: HoldState,
}

/// An order's new status.
#[derive(Debug)]
pub(super) struct ChangedOrder<'a> {
    pub(super) id: OrderId,
    pub(super) seen: OrderStatus,
    pub(super) to: OrderStatus,
    pub(super) payment_reference: Option<&'a str>,
}

/// A change of an order that others are to be told of.
#[derive(Debug)]
pub(super) struct UntoldChange<'a> {
    pub(super) order: OrderId,
    pub(super) sequence: i64,
    pub(super) from: Option<OrderStatus>,
    pub(super) to: OrderStatus,
    /// When it changes, as the order says it too.
    pub(super) at: Timestamp,
    pub(super) traceparent: Option<&'a str>,
}

/// An answer to be kept.
#[derive(Debug)]
pub(super) struct RememberedRow<'a> {
    pub(super) key: &'a IdempotencyKey,
    pub(super) fingerprint: [u8; 32],
    pub(super) response: StoredResponse,
}
