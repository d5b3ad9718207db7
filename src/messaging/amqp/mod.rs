//! RabbitMQ as the event bus: one connection to publish over, another to consume over, so that a broker which lets
//! nobody publish for want of memory still gets acknowledgements.
//!
//! Both are kept open by tasks of their own. Without the broker the server serves: events wait in the outbox.

pub mod connection;
mod publisher;
pub mod topology;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lapin::BasicProperties;
use lapin::types::{FieldTable, LongString, ShortString};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::bus::{Consumer, EventBus, Message};
use crate::observability::trace::TRACEPARENT;
use connection::Connector;
pub use connection::{AmqpError, AmqpOptions};
use publisher::{Parcel, Publisher};
use worker::Workers;

/// A message that persists.
const PERSISTENT: u8 = 2;
/// How long the end of a task that was told to end at once may take.
const ABORT_TIME_MAX: Duration = Duration::from_secs(1);

/// The bus over a broker.
pub struct AmqpBus {
    publisher: Arc<Publisher>,
    publishing: Role,
    consuming: Role,
}

/// A task that keeps a connection, and whether there is one.
struct Role {
    connected: watch::Receiver<bool>,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl AmqpBus {
    /// Starts publishing to the broker and consuming from it, as soon as it is there. To be called on the runtime that
    /// it shall live on.
    #[must_use]
    pub fn start(options: &AmqpOptions, consumers: Vec<Arc<dyn Consumer>>) -> Self {
        let publisher = Publisher::new();
        let connector = Connector::new(options.clone(), "publishes");
        let keeper = Arc::clone(&publisher);
        let publishing = Role::start(|connected, stop| keeper.keep_connected(connector, connected, stop));
        let connector = Connector::new(options.clone(), "consumes");
        let workers = Workers { consumers, publisher: Arc::clone(&publisher) };
        let consuming = Role::start(|connected, stop| workers.run(connector, connected, stop));
        Self { publisher, publishing, consuming }
    }

    /// Whether the broker takes events and delivers messages.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.publisher.is_ready() && *self.consuming.connected.borrow()
    }

    /// Whether there is a connection to publish over, to be watched for the moment when there is one again.
    #[must_use]
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.publishing.connected.clone()
    }

    /// Consumes no more. What is in work is finished, or delivered again later.
    pub async fn stop_consuming(&self, deadline: Instant) {
        self.consuming.end(deadline).await;
    }

    /// Publishes no more.
    pub async fn close(&self, deadline: Instant) {
        self.consuming.end(deadline).await;
        self.publishing.end(deadline).await;
    }
}

impl Role {
    fn start<F: Future<Output = ()> + Send + 'static>(
        work: impl FnOnce(watch::Sender<bool>, CancellationToken) -> F,
    ) -> Self {
        let (connection, connected) = watch::channel(false);
        let stop = CancellationToken::new();
        let task = tokio::spawn(Box::pin(work(connection, stop.clone())));
        Self { connected, stop, task: Mutex::new(Some(task)) }
    }

    async fn end(&self, deadline: Instant) {
        self.stop.cancel();
        let Some(mut task) = self.task.lock().await.take() else { return };
        if timeout_at(deadline, &mut task).await.is_err() {
            task.abort();
            drop(timeout_at(Instant::now() + ABORT_TIME_MAX, task).await);
        }
    }
}

impl Drop for AmqpBus {
    fn drop(&mut self) {
        self.consuming.stop.cancel();
        self.publishing.stop.cancel();
    }
}

#[async_trait]
impl EventBus for AmqpBus {
    fn is_ready(&self) -> bool {
        self.publisher.is_ready()
    }

    async fn publish(&self, messages: &[Message]) -> Vec<bool> {
        // A name that is too long for a queue or an identifier is none of ours, and has no place at a broker.
        let named = |message: &Message| {
            let names = (ShortString::try_new(message.queue.as_str()), ShortString::try_new(message.id.as_str()));
            if let (Ok(queue), Ok(id)) = names { Some((queue, id)) } else { None }
        };
        let mut places = Vec::with_capacity(messages.len());
        let mut parcels = Vec::with_capacity(messages.len());
        for (place, message) in messages.iter().enumerate() {
            if let Some((queue, id)) = named(message) {
                places.push(place);
                let properties = properties(message, queue.clone(), id);
                parcels.push(Parcel::event(queue, message.payload.as_bytes(), properties));
            }
        }
        let mut confirmed = vec![false; messages.len()];
        for (place, outcome) in places.into_iter().zip(self.publisher.publish(parcels).await) {
            confirmed[place] = outcome;
        }
        confirmed
    }
}

fn properties(message: &Message, queue: ShortString, id: ShortString) -> BasicProperties {
    let mut properties = BasicProperties::default();
    if let Some(traceparent) = &message.traceparent {
        let mut headers = FieldTable::default();
        headers.insert(ShortString::from(TRACEPARENT), LongString::from(traceparent.as_str()).into());
        properties = properties.with_headers(headers);
    }
    properties
        .with_message_id(id)
        .with_type(queue)
        .with_app_id(ShortString::from("storekeeper"))
        .with_content_type(ShortString::from("application/json"))
        .with_delivery_mode(PERSISTENT)
        .with_timestamp(u64::try_from(message.at.0 / 1_000_000).unwrap_or_default())
}
