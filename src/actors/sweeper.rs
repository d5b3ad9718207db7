//! The one sweep for all that ends by itself: carts whose time is over, orders that nobody paid, actors that nobody
//! asks, answers that nobody will ask for again.
//!
//! What is due is read from the database, so it ends on time whatever became of the server that began it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::join_all;

use crate::domain::order::OrderStatus;
use crate::domain::timestamp::Timestamp;
use crate::persistence::clock::Clock;
use crate::persistence::{SharedStore, StoreError};

use super::carts::Carts;
use super::command::{Command, CommandError, OrderTransition};
use super::faults::{Faults, Moment};
use super::inventories::Inventories;
use super::orders::OrdersHandle;
use super::periodic::{Job, PeriodicHandle};
use super::supervision::ActorKind;

/// How often carts are looked at. Their stock is to be back within a second of their end.
const PERIOD: Duration = Duration::from_millis(250);
/// Carts and orders ended at a time.
const BATCH_MAX: u32 = 500;
/// How often idle actors are looked for.
const IDLE_PERIOD: Duration = Duration::from_secs(5);
/// How often unpaid orders are looked for.
const ORDERS_PERIOD: Duration = Duration::from_secs(1);
/// How often old answers and messages are forgotten.
const FORGET_PERIOD: Duration = Duration::from_secs(600);
/// For how long answers and message ids are kept.
const REMEMBERED_FOR: Duration = Duration::from_secs(24 * 3_600);
/// How long the end of one unpaid order may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// What the sweeper needs.
#[derive(Clone)]
pub struct SweeperParts {
    /// Where it reads what is due.
    pub store: SharedStore,
    /// The time that decides.
    pub clock: Clock,
    /// Where carts are ended.
    pub carts: Carts,
    /// Where idle actors are.
    pub inventories: Inventories,
    /// Where orders are cancelled.
    pub orders: OrdersHandle,
    /// After how long an unconfirmed order is cancelled; `None` is never.
    pub order_pending_ttl: Option<Duration>,
    /// After how long without a message an actor is put away.
    pub idle_ttl: Duration,
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
    idle: Instant,
    forget: Instant,
}

/// The way to the sweeper.
pub type SweeperHandle = PeriodicHandle<Sweeper>;

impl Sweeper {
    /// One that looks at everything when it first runs.
    #[must_use]
    pub fn new(parts: SweeperParts) -> Self {
        let now = Instant::now();
        Self { parts, due: Mutex::new(Due { orders: now, idle: now, forget: now }) }
    }
}

#[async_trait]
impl Job for Sweeper {
    const KIND: ActorKind = ActorKind::Sweeper;
    const PERIOD: Duration = PERIOD;

    async fn run(&self) {
        let (orders, idle, forget) = {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let orders = is_due(&mut due.orders, now, ORDERS_PERIOD);
            (orders, is_due(&mut due.idle, now, IDLE_PERIOD), is_due(&mut due.forget, now, FORGET_PERIOD))
        };
        if idle {
            self.parts.carts.passivate_idle(self.parts.idle_ttl);
            self.parts.inventories.registry().passivate_idle(self.parts.idle_ttl);
        }
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
    loop {
        let due = parts.store.carts_due(parts.clock.now(), BATCH_MAX).await?;
        parts.faults.pass(ActorKind::Sweeper, Moment::During, None).await;
        let full = due.len() == BATCH_MAX as usize;
        let ended = join_all(due.into_iter().map(|cart| parts.carts.expire(cart))).await;
        parts.faults.pass(ActorKind::Sweeper, Moment::After, None).await;
        // What is due beyond this batch does not wait for the next sweep; what could not be ended does.
        if !full || !ended.contains(&true) {
            break;
        }
    }
    if orders && let Some(ttl) = parts.order_pending_ttl {
        cancel_unpaid(parts, ttl).await?;
    }
    if forget {
        let before = Timestamp(parts.clock.now().0 - i64::try_from(REMEMBERED_FOR.as_micros()).unwrap_or(0));
        let forgotten = parts.store.forget(before).await?;
        tracing::debug!(forgotten, "old answers and messages are forgotten");
    }
    Ok(())
}

async fn cancel_unpaid(parts: &SweeperParts, ttl: Duration) -> Result<(), StoreError> {
    let ttl_micros = i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX);
    let placed_before = Timestamp(parts.clock.now().0.saturating_sub(ttl_micros));
    let unpaid = parts.store.orders_pending_since(placed_before, BATCH_MAX).await?;
    let cancelled = unpaid.into_iter().map(|order| async move {
        let transition = OrderTransition { order, to: OrderStatus::Cancelled, payment_reference: None };
        let command = Command { deadline: Instant::now() + DEADLINE, actor: Arc::from("unpaid"), remember: None };
        match parts.orders.change(transition, command).await {
            // Paid or cancelled by somebody in the meantime: as it should be.
            Ok(_) | Err(CommandError::InvalidTransition { .. }) => {}
            Err(error) => tracing::warn!(%error, %order, "an unpaid order was not cancelled; it is tried again"),
        }
    });
    join_all(cancelled).await;
    Ok(())
}

#[cfg(test)]
#[path = "sweeper_tests.rs"]
mod tests;
