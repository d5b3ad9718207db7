//! The one sweep for all that ends by itself: carts whose time is over, orders that nobody paid, what was kept for its
//! time.
//!
//! What is due is read from the database, so it ends on time whatever became of the server that began it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::join_all;
use uuid::Uuid;

use crate::domain::ids::{CartKey, OrderId};
use crate::domain::order::OrderStatus;
use crate::domain::timestamp::Timestamp;
use crate::persistence::clock::Clock;
use crate::persistence::forget::Retention;
use crate::persistence::{SharedStore, StoreError};

use super::carts::Carts;
use super::command::{Command, CommandError, OrderTransition};
use super::faults::{Faults, Moment};
use super::orders::OrdersHandle;
use super::periodic::{Job, PeriodicHandle};
use super::supervision::ActorKind;

/// How often carts are looked at. Their stock is to be back within a second of their end.
const PERIOD: Duration = Duration::from_millis(250);
/// Carts and orders ended at a time.
const BATCH_MAX: u32 = 500;
/// How often unpaid orders are looked for.
const ORDERS_PERIOD: Duration = Duration::from_secs(1);
/// How often it is looked for what has been kept for its time.
const FORGET_PERIOD: Duration = Duration::from_secs(600);
/// How long one sweep goes on forgetting. What is left then is for the next one: carts end on time meanwhile.
const FORGET_TIME_MAX: Duration = Duration::from_millis(50);
/// How long the end of one unpaid order may take. Nobody waits for it, so it may be long.
const DEADLINE: Duration = Duration::from_secs(30);

/// What the sweeper needs.
#[derive(Clone)]
pub struct SweeperParts {
    /// Where it reads what is due.
    pub store: SharedStore,
    /// The time that decides.
    pub clock: Clock,
    /// Where carts are ended.
    pub carts: Carts,
    /// Where orders are cancelled.
    pub orders: OrdersHandle,
    /// After how long an unconfirmed order is cancelled; `None` is never.
    pub order_pending_ttl: Option<Duration>,
    /// For how long things are kept.
    pub retention: Retention,
    /// Whether more is to be forgotten than one sweep had the time for.
    pub more_to_forget: Arc<AtomicBool>,
    /// What goes wrong because a test says so.
    pub(super) faults: Faults,
}

/// Ends what is over.
pub struct Sweeper {
    parts: SweeperParts,
    due: Mutex<Due>,
}

/// When the next look at what is looked at less often than carts is due.
struct Due {
    orders: Instant,
    forget: Instant,
}

/// The way to the sweeper.
pub type SweeperHandle = PeriodicHandle<Sweeper>;

impl Sweeper {
    /// One that looks at everything when it first runs.
    #[must_use]
    pub fn new(parts: SweeperParts) -> Self {
        let now = Instant::now();
        Self { parts, due: Mutex::new(Due { orders: now, forget: now }) }
    }
}

#[async_trait]
impl Job for Sweeper {
    const KIND: ActorKind = ActorKind::Sweeper;
    const PERIOD: Duration = PERIOD;

    async fn run(&self) {
        let (orders, forget) = {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            (is_due(&mut due.orders, now, ORDERS_PERIOD), is_due(&mut due.forget, now, FORGET_PERIOD))
        };
        if let Err(error) = sweep(&self.parts, orders, forget).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the sweep waits for the database");
        }
    }
}

fn is_due(next: &mut Instant, now: Instant, period: Duration) -> bool {
    let due = *next <= now;
    if due {
        *next = now + period;
    }
    due
}

async fn sweep(parts: &SweeperParts, orders: bool, forget: bool) -> Result<(), StoreError> {
    expire_due(parts).await?;
    if orders && let Some(ttl) = parts.order_pending_ttl {
        cancel_unpaid(parts, ttl).await?;
    }
    if forget || parts.more_to_forget.load(Ordering::Relaxed) {
        forget_old(parts).await?;
    }
    Ok(())
}

/// Ends the carts that are due, each once: one that can not be ended keeps none behind it waiting, and is tried again
/// by the next sweep.
async fn expire_due(parts: &SweeperParts) -> Result<(), StoreError> {
    let mut after = Some((Timestamp(0), CartKey(Uuid::nil())));
    while let Some(behind) = after {
        let due = parts.store.carts_due(parts.clock.now(), behind, BATCH_MAX).await?;
        parts.faults.pass(ActorKind::Sweeper, Moment::During, None).await;
        let last = due.last().map(|cart| (cart.expires_at, cart.id.key));
        after = last.filter(|_| due.len() == BATCH_MAX as usize);
        join_all(due.into_iter().map(|cart| parts.carts.expire(cart))).await;
        parts.faults.pass(ActorKind::Sweeper, Moment::After, None).await;
    }
    Ok(())
}

/// Cancels the orders that nobody paid, each once, as [`expire_due`] ends carts.
async fn cancel_unpaid(parts: &SweeperParts, ttl: Duration) -> Result<(), StoreError> {
    let ttl_micros = i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX);
    let placed_before = Timestamp(parts.clock.now().0.saturating_sub(ttl_micros));
    let mut after = Some((Timestamp(0), OrderId(Uuid::nil())));
    while let Some(behind) = after {
        let unpaid = parts.store.orders_pending_since(placed_before, behind, BATCH_MAX).await?;
        after = unpaid.last().copied().filter(|_| unpaid.len() == BATCH_MAX as usize);
        join_all(unpaid.into_iter().map(|(_, order)| cancel(parts, order))).await;
    }
    Ok(())
}

async fn cancel(parts: &SweeperParts, order: OrderId) {
    let transition = OrderTransition { order, to: OrderStatus::Cancelled, payment_reference: None };
    let command = Command { deadline: Instant::now() + DEADLINE, actor: Arc::from("unpaid"), remember: None };
    match parts.orders.change(transition, command).await {
        // Paid or cancelled by somebody in the meantime: as it should be.
        Ok(_) | Err(CommandError::InvalidTransition { .. }) => {}
        Err(error) => tracing::warn!(%error, %order, "an unpaid order was not cancelled; it is tried again"),
    }
}

/// Forgets what was kept for its time, for as long as a sweep may.
async fn forget_old(parts: &SweeperParts) -> Result<(), StoreError> {
    let end = Instant::now() + FORGET_TIME_MAX;
    loop {
        let forgotten = parts.store.forget(&parts.retention.cut_offs(parts.clock.now())).await?;
        tracing::debug!(
            rows = forgotten.rows,
            more = forgotten.is_more_left,
            "what was kept for its time is forgotten"
        );
        parts.more_to_forget.store(forgotten.is_more_left, Ordering::Relaxed);
        if !forgotten.is_more_left || Instant::now() >= end {
            return Ok(());
        }
    }
}

#[cfg(test)]
#[path = "sweeper_tests.rs"]
mod tests;
