//! The outbox relay: takes events from the outbox to the bus, whole orders at a time and in order, and marks those
//! that the bus has confirmed.
//!
//! It claims by a short lease and holds no transaction while it publishes. What was not confirmed, or confirmed but
//! not marked because the program died between, is published again. While there is nobody to publish to, it claims
//! nothing.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};
use tokio::sync::Mutex;

use crate::domain::ids::EventId;
use crate::messaging::bus::{self, EventBus};
use crate::persistence::clock::Clock;
use crate::persistence::records::OutboxEvent;
use crate::persistence::{SharedStore, StoreError};

use super::mailbox::Mailbox;
use super::registry::{Passivate, Registry};

/// Events claimed at a time.
const CLAIM_MAX: u32 = 500;
/// How long a claim lasts. Longer than publishing takes; a relay that died is followed after it.
const LEASE: Duration = Duration::from_secs(10);
/// How often the outbox is looked at when nobody says that there is something.
const PERIOD: Duration = Duration::from_millis(500);

/// What the relay needs.
#[derive(Clone)]
pub struct RelayParts {
    /// Where the outbox is.
    pub store: SharedStore,
    /// The time that decides.
    pub clock: Clock,
    /// Where events go.
    pub bus: Arc<dyn EventBus>,
    /// Held by the run under way.
    pub running: Arc<Mutex<()>>,
}

/// The way to the relay. It is started again when it has died.
#[derive(Clone)]
pub struct RelayHandle {
    residence: Arc<Registry<(), RelayActor>>,
    parts: RelayParts,
}

impl RelayHandle {
    /// A relay that lives on the registry's arbiters.
    #[must_use]
    pub fn new(residence: Arc<Registry<(), RelayActor>>, parts: RelayParts) -> Self {
        Self { residence, parts }
    }

    /// There may be events.
    pub fn wake(&self) {
        if !self.residence.is_closed() {
            self.living().tell(Wake);
        }
    }

    /// Sends it home; what it has begun is ended.
    pub(super) fn stop(&self) {
        self.residence.close();
        if let Some((mailbox, _)) = self.residence.find(()) {
            mailbox.tell(Passivate);
        }
    }

    /// Sees to it that there is a living one.
    pub fn ensure(&self) {
        self.living();
    }

    fn living(&self) -> Mailbox<RelayActor> {
        let parts = self.parts.clone();
        self.residence.get_or_start((), move |_| RelayActor { parts, running: false, again: false })
    }

    /// Publishes what is in the outbox until nothing more goes out; for the end of the program.
    pub async fn flush(&self) {
        run(&self.parts).await;
    }
}

struct Wake;

impl Message for Wake {
    type Result = ();
}

/// The actor: one run at a time, and another when it was woken meanwhile.
pub struct RelayActor {
    parts: RelayParts,
    running: bool,
    again: bool,
}

impl Actor for RelayActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.notify(Wake);
        context.run_interval(PERIOD, |_, context| context.notify(Wake));
    }
}

impl Handler<Passivate> for RelayActor {
    type Result = ();

    fn handle(&mut self, _: Passivate, context: &mut Self::Context) {
        context.stop();
    }
}

impl Handler<Wake> for RelayActor {
    type Result = ();

    fn handle(&mut self, _: Wake, context: &mut Self::Context) {
        if std::mem::replace(&mut self.running, true) {
            self.again = true;
            return;
        }
        let parts = self.parts.clone();
        let task = tokio::spawn(async move { run(&parts).await });
        context.spawn(task.into_actor(self).map(|_, actor, context| {
            actor.running = false;
            if std::mem::take(&mut actor.again) {
                context.notify(Wake);
            }
        }));
    }
}

/// Publishes until nothing more goes out.
async fn run(parts: &RelayParts) {
    let _turn = parts.running.lock().await;
    loop {
        match publish_some(parts).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the outbox waits for the database");
                return;
            }
        }
    }
}

/// Publishes one claim; gives how many events are out.
async fn publish_some(parts: &RelayParts) -> Result<usize, StoreError> {
    if !parts.bus.is_ready() {
        return Ok(0);
    }
    let now = parts.clock.now();
    let lease_until = now.plus(LEASE);
    let events = parts.store.claim_events(now, lease_until, CLAIM_MAX).await?;
    if events.is_empty() {
        return Ok(0);
    }
    let confirmed = parts.bus.publish(&events.iter().map(message).collect::<Vec<_>>()).await;
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

fn message(event: &OutboxEvent) -> bus::Message {
    bus::Message { id: event.id.to_string(), queue: event.queue.clone(), payload: event.payload.clone(), at: event.at }
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
        };
        let events = [event(1, 1), event(2, 2), event(3, 1), event(4, 2)];
        let out = in_order(&events, &[false, true, true, true]);
        assert_eq!(out, [events[1].id, events[3].id]);
    }
}
