//! The outbox relay: takes events from the outbox to the bus, whole orders at a time and in order, and marks those
//! that the bus has confirmed.
//!
//! It claims by a short lease and holds no transaction while it publishes. What was not confirmed, or confirmed but
//! not marked because the program died between, is published again. While there is nobody to publish to, it claims
//! nothing.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tracing::Span;

use crate::domain::ids::EventId;
use crate::messaging::bus::{self, EventBus};
use crate::observability::trace;
use crate::persistence::clock::Clock;
use crate::persistence::records::OutboxEvent;
use crate::persistence::{SharedStore, StoreError};

use super::faults::{Faults, Moment};
use super::periodic::{Job, PeriodicHandle};
use super::supervision::ActorKind;

/// Events claimed at a time.
const CLAIM_MAX: u32 = 500;
/// How long a claim lasts. Longer than publishing takes; a relay that died is followed after it.
const LEASE: Duration = Duration::from_secs(10);
/// How often the outbox is looked at when nobody says that there is something.
const PERIOD: Duration = Duration::from_millis(500);

/// Takes events from the outbox to the bus.
pub struct Relay {
    /// Where the outbox is.
    pub store: SharedStore,
    /// The time that decides.
    pub clock: Clock,
    /// Where events go.
    pub bus: Arc<dyn EventBus>,
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
        loop {
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

/// Publishes one claim; gives how many events are out.
async fn publish_some(parts: &Relay) -> Result<usize, StoreError> {
    if !parts.bus.is_ready() {
        return Ok(0);
    }
    let now = parts.clock.now();
    let lease_until = now.plus(LEASE);
    let events = parts.store.claim_events(now, lease_until, CLAIM_MAX).await?;
    if events.is_empty() {
        return Ok(0);
    }
    parts.faults.pass(ActorKind::Relay, Moment::During, None).await;
    let spans: Vec<Span> = events.iter().map(publishing).collect();
    let messages: Vec<bus::Message> = events.iter().zip(&spans).map(|(event, span)| message(event, span)).collect();
    let confirmed = parts.bus.publish(&messages).await;
    drop(spans);
    parts.faults.pass(ActorKind::Relay, Moment::After, None).await;
    let published = in_order(&events, &confirmed);
    parts.store.mark_published(&published, parts.clock.now()).await?;
    if published.len() < events.len() {
        let all: Vec<EventId> = events.iter().map(|event| event.id).collect();
        parts.store.release_events(&all, lease_until).await?;
    }
    Ok(published.len())
}

/// The events that are out. One that follows an unconfirmed one of the same order counts as not out: it is published
/// again behind that, so that the last thing said of an order is the newest.
fn in_order(events: &[OutboxEvent], confirmed: &[bool]) -> Vec<EventId> {
    let mut held_up = std::collections::HashSet::new();
    let mut out = Vec::with_capacity(events.len());
    for (event, confirmed) in events.iter().zip(confirmed) {
        if *confirmed && !held_up.contains(&event.order) {
            out.push(event.id);
        } else {
            held_up.insert(event.order);
        }
    }
    out
}

/// The span of an event's way to the bus, in the trace of what caused it; none where no traces are exported.
fn publishing(event: &OutboxEvent) -> Span {
    let Some(traceparent) = event.traceparent.as_ref().filter(|_| trace::is_exporting()) else { return Span::none() };
    let span =
        tracing::info_span!(parent: None, "publish", queue = event.queue, message = %event.id, otel.kind = "producer");
    trace::set_parent(&span, traceparent);
    span
}

fn message(event: &OutboxEvent, span: &Span) -> bus::Message {
    // Whoever gets it goes on with the trace, also where this server exports none.
    let traceparent = span.in_scope(trace::current_traceparent).or_else(|| event.traceparent.clone());
    let OutboxEvent { id, queue, payload, at, .. } = event.clone();
    bus::Message { id: id.to_string(), queue, payload, at, traceparent }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::ids::OrderId;
    use crate::domain::timestamp::Timestamp;

    #[test]
    fn nothing_of_an_order_overtakes_what_did_not_go_out() {
        let event = |id, order| OutboxEvent {
            id: EventId(Uuid::from_u128(id)),
            order: OrderId(Uuid::from_u128(order)),
            queue: "order-status".into(),
            payload: "{}".into(),
            at: Timestamp(0),
            traceparent: None,
        };
        let events = [event(1, 1), event(2, 2), event(3, 1), event(4, 2)];
        let out = in_order(&events, &[false, true, true, true]);
        assert_eq!(out, [events[1].id, events[3].id]);
    }
}
