//! Publishes: many messages unconfirmed, then waits for the broker's confirms. What is not confirmed is said to be not
//! published, and whoever wanted it published has kept it.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::connection::{self, AmqpError, Connector};
use super::topology::{self, DEFAULT_EXCHANGE, EXCHANGE};

/// How long a batch may take until the last confirm. Shorter than the relay's claim on what it publishes.
const PUBLISH_TIME_MAX: Duration = Duration::from_secs(5);
/// How often it is looked whether an idle connection is still one.
const LOOK_PERIOD: Duration = Duration::from_millis(250);

/// A message on its way to the broker.
pub(super) struct Parcel<'a> {
    exchange: &'static str,
    routing_key: ShortString,
    payload: &'a [u8],
    properties: BasicProperties,
    /// Whether it has to find a queue.
    mandatory: bool,
}

impl<'a> Parcel<'a> {
    /// An event. One for others may find nobody who wants it.
    pub(super) fn event(queue: ShortString, payload: &'a [u8], properties: BasicProperties) -> Self {
        let mandatory = topology::is_ours(queue.as_str());
        Self { exchange: EXCHANGE, routing_key: queue, payload, properties, mandatory }
    }

    /// A refused message of a queue of ours.
    pub(super) fn dead_letter(queue: &str, payload: &'a [u8], properties: BasicProperties) -> Self {
        let routing_key = ShortString::from(topology::dead(queue));
        Self { exchange: DEFAULT_EXCHANGE, routing_key, payload, properties, mandatory: true }
    }
}

/// A connection in use.
struct Session {
    connection: Connection,
    channel: Channel,
    /// One batch at a time, from its first message to its last confirm: the library gives a message its number before
    /// it sends it, so two at once could get each other's confirms; and one that came back for want of a queue hangs
    /// at any confirm of those that came together.
    turn: Mutex<()>,
    /// Set by whoever finds it broken.
    broken: CancellationToken,
}

/// Publishes over one connection, which is opened again whenever it is lost.
pub(super) struct Publisher {
    current: watch::Sender<Option<Arc<Session>>>,
}

impl Publisher {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { current: watch::Sender::new(None) })
    }

    /// Whether something published now has a chance to be confirmed.
    pub(super) fn is_ready(&self) -> bool {
        self.current.borrow().as_ref().is_some_and(|session| !session.connection.status().blocked())
    }

    /// Keeps a connection open until `stop`, and says in `connected` whether there is one.
    pub(super) async fn keep_connected(
        self: Arc<Self>,
        mut connector: Connector,
        connected: watch::Sender<bool>,
        stop: CancellationToken,
    ) {
        let mut told = false;
        loop {
            let opened = tokio::select! {
                () = stop.cancelled() => return,
                opened = Self::open(&mut connector) => opened,
            };
            match opened {
                Ok(session) => {
                    tracing::info!("events go to the broker");
                    told = false;
                    self.current.send_replace(Some(Arc::clone(&session)));
                    connected.send_replace(true);
                    let stopped = stop.run_until_cancelled(session.is_lost()).await.is_none();
                    self.current.send_replace(None);
                    connected.send_replace(false);
                    if stopped {
                        return session.close().await;
                    }
                }
                Err(error) if told => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "the broker is still away");
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the broker is away; events wait");
                    told = true;
                }
            }
            if stop.run_until_cancelled(tokio::time::sleep(connector.pause())).await.is_none() {
                return;
            }
        }
    }

    async fn open(connector: &mut Connector) -> Result<Arc<Session>, AmqpError> {
        let (connection, channel) = connector.open().await?;
        let confirming = channel.confirm_select(ConfirmSelectOptions::default());
        timeout(PUBLISH_TIME_MAX, confirming).await.map_err(|_| AmqpError::Late(PUBLISH_TIME_MAX))??;
        let (turn, broken) = (Mutex::default(), CancellationToken::new());
        Ok(Arc::new(Session { connection, channel, turn, broken }))
    }

    /// Publishes in the given order; says of each whether the broker has it for good.
    pub(super) async fn publish(&self, parcels: Vec<Parcel<'_>>) -> Vec<bool> {
        let mut confirmed = vec![false; parcels.len()];
        let session = self.current.borrow().clone();
        let Some(session) = session.filter(|session| !session.connection.status().blocked()) else {
            return confirmed;
        };
        let sent = timeout(PUBLISH_TIME_MAX, Box::pin(session.send(parcels, &mut confirmed))).await;
        match sent.unwrap_or(Err(AmqpError::Late(PUBLISH_TIME_MAX))) {
            Ok(()) => {}
            // A broker that is short of memory or disk lets nobody publish, and says so. It will again.
            Err(AmqpError::Late(_)) if session.connection.status().blocked() => {
                tracing::warn!("the broker takes no messages for now");
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "events were not confirmed");
                session.broken.cancel();
            }
        }
        confirmed
    }
}

impl Session {
    async fn send(&self, parcels: Vec<Parcel<'_>>, confirmed: &mut [bool]) -> Result<(), AmqpError> {
        let _turn = self.turn.lock().await;
        let mut confirms = Vec::with_capacity(parcels.len());
        for Parcel { exchange, routing_key, payload, properties, mandatory } in parcels {
            let (exchange, options) =
                (ShortString::from(exchange), BasicPublishOptions { mandatory, ..BasicPublishOptions::default() });
            confirms.push(self.channel.basic_publish(exchange, routing_key, options, payload, properties).await?);
        }
        for (place, confirm) in confirms.into_iter().enumerate() {
            match confirm.await? {
                Confirmation::Ack(None) => confirmed[place] = true,
                Confirmation::Nack(None) | Confirmation::NotRequested => {}
                // One of these came back; which one is not said, so none counts.
                Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)) => {
                    confirmed.fill(false);
                    return Err(AmqpError::Unroutable(returned.delivery.routing_key.to_string()));
                }
            }
        }
        Ok(())
    }

    async fn is_lost(&self) {
        let mut look = tokio::time::interval(LOOK_PERIOD);
        while !self.broken.is_cancelled() && self.is_connected() {
            tokio::select! {
                () = self.broken.cancelled() => {}
                _ = look.tick() => {}
            }
        }
    }

    fn is_connected(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }

    async fn close(self: Arc<Self>) {
        // Whoever is at a batch has it; the connection then ends when that is over.
        if let Ok(session) = Arc::try_unwrap(self) {
            connection::close(session.connection).await;
        }
    }
}
