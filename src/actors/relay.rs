//! The outbox relay: tells the bus of changes of orders, whole orders at a time and in order, and marks those of which it
//! has confirmed all events.
//!
//! It claims by a short lease and holds no transaction while it publishes. What was not confirmed, or confirmed but
//! not marked because the program died between, is published again. While there is nobody to publish to, it claims
//! nothing.
//!
//! While a crowd places orders here, it gives way to them: what follows an order costs more than the order does, and somebody
//! waits for that. It gives way for a limited time, then it works until the outbox is empty (ADR 10).

use std::collections::{HashMap, HashSet};
use std::iter;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use tracing::Span;

use crate::domain::ids::OrderId;
use crate::messaging::bus::{EventBus, Message};
use crate::messaging::order_events;
use crate::observability::trace;
use crate::persistence::clock::Clock;
use crate::persistence::records::{Order, OutboxRecord};
use crate::persistence::{SharedStore, StoreError};

use super::faults::{Faults, Moment};
use super::periodic::{Job, PeriodicHandle};
use super::supervision::ActorKind;

/// Changes of orders claimed at a time; one has three events at most.
const CLAIM_MAX: u32 = 200;
/// Changes of which it is remembered that some of their events are out, at most.
const HALF_TOLD_MAX: usize = 1_000;
/// How long a claim lasts. Longer than publishing takes; a relay that died is followed after it.
const LEASE: Duration = Duration::from_secs(10);
/// How often the outbox is looked at when nobody says that there is something.
const PERIOD: Duration = Duration::from_millis(500);
/// Orders that are placed at the same time: from so many on they are a crowd, and events give way to it.
const CROWD: usize = 8;
/// A crowd is over when there has been none for so long.
const LULL: Duration = Duration::from_millis(100);
/// How often it is looked whether it is over.
const LOOK_PERIOD: Duration = Duration::from_millis(10);

/// How many orders are being placed, and when there last was a crowd.
#[derive(Clone)]
pub(super) struct Placing(Arc<Counted>);

struct Counted {
    since: Instant,
    orders: AtomicUsize,
    /// Milliseconds after `since`; [`NEVER`] before there was one.
    crowd_at: AtomicU64,
}

const NEVER: u64 = u64::MAX;

impl Placing {
    pub(super) fn new() -> Self {
        Self(Arc::new(Counted { since: Instant::now(), orders: AtomicUsize::new(0), crowd_at: AtomicU64::new(NEVER) }))
    }

    /// One more, as long as what this gives is kept.
    pub(super) fn begin(&self) -> Placed {
        if self.0.orders.fetch_add(1, Ordering::Relaxed) + 1 >= CROWD {
            self.0.crowd_at.store(self.now_ms(), Ordering::Relaxed);
        }
        Placed(self.clone())
    }

    fn is_crowded(&self) -> bool {
        let crowd_at = self.0.crowd_at.load(Ordering::Relaxed);
        crowd_at != NEVER && Duration::from_millis(self.now_ms().saturating_sub(crowd_at)) < LULL
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.since.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }
}

/// An order that is being placed.
pub(super) struct Placed(Placing);

impl Drop for Placed {
    fn drop(&mut self) {
        let Self(Placing(counted)) = self;
        counted.orders.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tells the bus of what is in the outbox.
pub struct Relay {
    /// Where the outbox is.
    pub store: SharedStore,
    /// The time that decides.
    pub clock: Clock,
    /// Where events go.
    pub bus: Arc<dyn EventBus>,
    /// Whom they give way to.
    pub(super) placing: Placing,
    /// For how long they do.
    pub(super) delay_max: Duration,
    /// What is out of changes that are not out whole.
    pub(super) half_told: HalfTold,
    /// What goes wrong because a test says so.
    pub(super) faults: Faults,
}

/// The way to the relay.
pub type RelayHandle = PeriodicHandle<Relay>;

#[async_trait]
impl Job for Relay {
    const KIND: ActorKind = ActorKind::Relay;
    const PERIOD: Duration = PERIOD;

    /// Publishes until nothing more goes out.
    async fn run(&self) {
        let mut courtesy = Courtesy { left: self.delay_max };
        loop {
            courtesy.give_way(&self.placing).await;
            match publish_some(self).await {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the outbox waits for the database");
                    return;
                }
            }
        }
    }
}

/// What one run has left of the time for which it gives way.
struct Courtesy {
    left: Duration,
}

impl Courtesy {
    /// Waits while a crowd places orders, as long as there is time for it.
    async fn give_way(&mut self, placing: &Placing) {
        while placing.is_crowded() && !self.left.is_zero() {
            let begin = Instant::now();
            tokio::time::sleep(self.left.min(LOOK_PERIOD)).await;
            // A busy machine wakes late.
            self.left = self.left.saturating_sub(begin.elapsed());
        }
    }
}

/// Publishes one claim; gives of how many changes all events are out.
async fn publish_some(parts: &Relay) -> Result<usize, StoreError> {
    if !parts.bus.is_ready() {
        return Ok(0);
    }
    let now = parts.clock.now();
    let lease_until = now.plus(LEASE);
    let changes = parts.store.claim_changes(now, lease_until, CLAIM_MAX).await?;
    if changes.is_empty() {
        return Ok(0);
    }
    parts.faults.pass(ActorKind::Relay, Moment::During, None).await;
    let orders = placed_orders(&parts.store, &changes).await?;
    let mut messages = Vec::with_capacity(3 * changes.len());
    // Of each change the places of its messages; none of one that can not be told.
    let mut places = Vec::with_capacity(changes.len());
    for change in &changes {
        let begin = messages.len();
        match order_events::messages(change, orders.get(&change.order)) {
            Ok(events) => {
                messages.extend(parts.half_told.left_of(change, events));
                places.push(Some(begin..messages.len()));
            }
            Err(error) => {
                tracing::error!(%error, order = %change.order, number = change.sequence, "a change can not be told");
                places.push(None);
            }
        }
    }
    let spans: Vec<Span> = messages.iter_mut().map(publishing).collect();
    let mut confirmed = parts.bus.publish(&messages).await;
    confirmed.resize(messages.len(), false);
    drop(spans);
    parts.faults.pass(ActorKind::Relay, Moment::After, None).await;
    let out: Vec<bool> = iter::zip(&changes, places)
        .map(|(change, places)| {
            places.is_some_and(|places| parts.half_told.note(change, &messages[places.clone()], &confirmed[places]))
        })
        .collect();
    let published = in_order(&changes, &out);
    parts.store.mark_published(&published, parts.clock.now()).await?;
    if published.len() < changes.len() {
        let all: Vec<i64> = changes.iter().map(|change| change.position).collect();
        parts.store.release_changes(&all, lease_until).await?;
    }
    Ok(published.len())
}

/// The orders that are placed by these changes. One that can not be read is left out, so that it holds up nobody else's events.
async fn placed_orders(store: &SharedStore, changes: &[OutboxRecord]) -> Result<HashMap<OrderId, Order>, StoreError> {
    let ids: Vec<OrderId> = changes.iter().filter(|change| change.from.is_none()).map(|change| change.order).collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let mut orders = Vec::new();
    match store.orders(&ids).await {
        Ok(all) => orders = all,
        Err(StoreError::Corrupt(_)) => {
            for id in ids {
                match store.order(id).await {
                    Ok(order) => orders.extend(order),
                    Err(StoreError::Corrupt(what)) => tracing::error!(order = %id, what, "an order can not be read"),
                    Err(error) => return Err(error),
                }
            }
        }
        Err(error) => return Err(error),
    }
    Ok(orders.into_iter().map(|order| (order.id, order)).collect())
}

/// The messages that the bus has confirmed of changes that it has not confirmed whole. They do not go out again, as long as this
/// server remembers it.
#[derive(Default)]
pub(super) struct HalfTold(Mutex<HashMap<i64, HashSet<String>>>);

impl HalfTold {
    /// Those of a change's messages that are to go out.
    fn left_of(&self, change: &OutboxRecord, mut messages: Vec<Message>) -> Vec<Message> {
        if let Some(confirmed) = self.known().get(&change.position) {
            messages.retain(|message| !confirmed.contains(&message.id));
        }
        messages
    }

    fn known(&self) -> MutexGuard<'_, HashMap<i64, HashSet<String>>> {
        // Nothing that holds it can leave it half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes which of the messages that went out were confirmed. Gives whether none is left.
    fn note(&self, change: &OutboxRecord, messages: &[Message], confirmed: &[bool]) -> bool {
        let is_out = confirmed.iter().all(|confirmed| *confirmed);
        let mut known = self.known();
        if is_out {
            known.remove(&change.position);
        } else if confirmed.contains(&true) {
            // Some may have been told by another server since.
            if known.len() >= HALF_TOLD_MAX {
                known.clear();
            }
            let ids = iter::zip(messages, confirmed).filter(|(_, confirmed)| **confirmed);
            known.entry(change.position).or_default().extend(ids.map(|(message, _)| message.id.clone()));
        }
        is_out
    }
}

/// The positions of the changes that are told. One that follows, in the same order, one that is not out counts as not told: it is
/// published again behind that, so that the last thing said of an order is the newest.
fn in_order(changes: &[OutboxRecord], out: &[bool]) -> Vec<i64> {
    let mut held_up = HashSet::new();
    let mut told = Vec::with_capacity(changes.len());
    for (change, is_out) in changes.iter().zip(out) {
        if *is_out && !held_up.contains(&change.order) {
            told.push(change.position);
        } else {
            held_up.insert(change.order);
        }
    }
    told
}

/// The span of a message's way to the bus, in the trace of what caused it; none where no traces are exported. Whoever gets the
/// message goes on from there.
fn publishing(message: &mut Message) -> Span {
    let Some(traceparent) = message.traceparent.as_ref().filter(|_| trace::is_exporting()) else { return Span::none() };
    let span = tracing::info_span!(parent: None, "publish", queue = message.queue, message = message.id, otel.kind = "producer");
    trace::set_parent(&span, traceparent);
    if let Some(here) = span.in_scope(trace::current_traceparent) {
        message.traceparent = Some(here);
    }
    span
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::order::OrderStatus;
    use crate::domain::timestamp::Timestamp;

    #[tokio::test(start_paused = true)]
    async fn events_give_way_to_a_crowd_and_not_to_a_few() {
        let placing = Placing::new();
        let begin = Instant::now();
        let mut courtesy = Courtesy { left: Duration::from_secs(5) };
        let mut orders: Vec<Placed> = (1..CROWD).map(|_| placing.begin()).collect();
        courtesy.give_way(&placing).await;
        assert_eq!(begin.elapsed(), Duration::ZERO, "these are few");
        orders.push(placing.begin());
        let next_ones = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(45)).await;
                orders.pop();
                orders.push(placing.begin());
            }
        };
        tokio::join!(courtesy.give_way(&placing), next_ones);
        // The last crowd was at 135 ms.
        assert_eq!(begin.elapsed(), Duration::from_millis(240), "it is over");
    }

    #[tokio::test(start_paused = true)]
    async fn events_give_way_for_no_longer_than_they_may() {
        let placing = Placing::new();
        let _few: Vec<Placed> = (1..CROWD).map(|_| placing.begin()).collect();
        let crowd = async {
            loop {
                drop(placing.begin());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let begin = Instant::now();
        let mut courtesy = Courtesy { left: Duration::from_millis(1_995) };
        let giving_way = async {
            courtesy.give_way(&placing).await;
            courtesy.give_way(&placing).await;
        };
        tokio::select! {
            biased;
            () = crowd => {}
            () = giving_way => {}
        }
        assert_eq!(begin.elapsed(), Duration::from_millis(1_995));
    }

    fn change(position: i64, order: u128) -> OutboxRecord {
        OutboxRecord {
            position,
            order: OrderId(Uuid::from_u128(order)),
            sequence: position,
            from: Some(OrderStatus::Pending),
            to: OrderStatus::Confirmed,
            at: Timestamp(0),
            traceparent: None,
        }
    }

    #[test]
    fn nothing_of_an_order_overtakes_what_did_not_go_out() {
        let changes = [change(1, 1), change(2, 2), change(3, 1), change(4, 2)];
        assert_eq!(in_order(&changes, &[false, true, true, true]), [2, 4]);
    }

    #[test]
    fn what_is_out_of_a_change_does_not_go_out_again() {
        let messages = |queues: &[&str]| -> Vec<Message> {
            let message = |queue: &&str| Message {
                id: format!("id of {queue}"),
                queue: (*queue).to_owned(),
                payload: "{}".to_owned(),
                at: Timestamp(0),
                traceparent: None,
            };
            queues.iter().map(message).collect()
        };
        let (half_told, change, other) = (HalfTold::default(), change(1, 1), change(2, 2));
        let all = messages(&["order-status", "send-email", "clear-cart"]);
        assert!(!half_told.note(&change, &all, &[true, false, true]));
        let left = half_told.left_of(&change, all.clone());
        assert_eq!(left, messages(&["send-email"]));
        assert_eq!(half_told.left_of(&other, all.clone()), all, "of that nothing is out");
        assert!(!half_told.note(&change, &left, &[false]));
        assert_eq!(half_told.left_of(&change, all.clone()), left);
        assert!(half_told.note(&change, &left, &[true]));
        // If it can not be marked as told, all of it goes out again.
        assert_eq!(half_told.left_of(&change, all.clone()), all);
    }
}
