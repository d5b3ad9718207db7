//! Consumes: takes what a queue delivers to the consumer, and acknowledges what is durable.
//!
//! What can not be done *now* stays in hand and is tried again here; meanwhile the bounded prefetch keeps the broker
//! from delivering more. Nothing is given back to be delivered in a circle, and no good message is put away because a
//! dependency is missing.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::domain::timestamp::Timestamp;
use crate::messaging::bus::{ConsumeError, Consumer, Message};
use crate::observability::trace::TRACEPARENT;

use super::connection::{self, AmqpError, Connector};
use super::publisher::{Parcel, Publisher};
use super::topology::text;

/// Messages of a queue in hand at most.
const PREFETCH: u16 = 200;
/// Messages handed to a consumer at a time.
const BATCH_MAX: usize = 100;
/// How long the broker may take to answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// Bytes of a reason that is kept with a refused message.
const REASON_MAX: usize = 2_000;
/// A message that persists.
const PERSISTENT: u8 = 2;
/// Headers by which a message would go to other queues as well.
const ROUTING_HEADERS: [&str; 2] = ["CC", "BCC"];

/// What consuming needs.
pub(super) struct Workers {
    pub(super) consumers: Vec<Arc<dyn Consumer>>,
    pub(super) publisher: Arc<Publisher>,
}

impl Workers {
    /// Consumes until `stop`, over one connection, which is opened again whenever it is lost; says in `connected`
    /// whether there is one. When it ends, what was in work is done, or will be delivered again.
    pub(super) async fn run(self, mut connector: Connector, connected: watch::Sender<bool>, stop: CancellationToken) {
        let mut told = false;
        loop {
            let error = match self.consume(&mut connector, &connected, &stop, &mut told).await {
                Ok(()) => return,
                Err(error) => error,
            };
            connected.send_replace(false);
            if told {
                tracing::debug!(error = &error as &dyn std::error::Error, "the broker still delivers nothing");
            } else {
                tracing::warn!(error = &error as &dyn std::error::Error, "the broker delivers nothing");
                told = true;
            }
            if stop.run_until_cancelled(tokio::time::sleep(connector.pause())).await.is_none() {
                return;
            }
        }
    }

    /// Consumes over one connection, until that is lost.
    async fn consume(
        &self,
        connector: &mut Connector,
        connected: &watch::Sender<bool>,
        stop: &CancellationToken,
        told: &mut bool,
    ) -> Result<(), AmqpError> {
        let Some(opened) = stop.run_until_cancelled(connector.open()).await else { return Ok(()) };
        let (connection, _channel) = opened?;
        let mut working = JoinSet::new();
        for consumer in &self.consumers {
            let channel = in_time(connection.create_channel()).await?;
            let (consumer, publisher) = (Arc::clone(consumer), Arc::clone(&self.publisher));
            let worker = Worker { channel, consumer, publisher, stop: stop.clone() };
            working.spawn(async move { worker.run().await });
        }
        tracing::info!("the broker delivers");
        connected.send_replace(true);
        *told = false;
        while let Some(ended) = working.join_next().await {
            // The others end with the set; what they have in hand is delivered again.
            ended??;
        }
        connection::close(connection).await;
        Ok(())
    }
}

/// Waits for an answer of the broker's.
async fn in_time<T>(answer: impl Future<Output = lapin::Result<T>>) -> Result<T, AmqpError> {
    Ok(timeout(ANSWER_TIME_MAX, Box::pin(answer)).await.map_err(|_| AmqpError::Late(ANSWER_TIME_MAX))??)
}

/// Works at one queue.
struct Worker {
    channel: Channel,
    consumer: Arc<dyn Consumer>,
    publisher: Arc<Publisher>,
    stop: CancellationToken,
}

impl Worker {
    async fn run(&self) -> Result<(), AmqpError> {
        let queue = self.consumer.queue();
        in_time(self.channel.basic_qos(PREFETCH, BasicQosOptions::default())).await?;
        let (name, tag, options) = (ShortString::from(queue), ShortString::from(""), BasicConsumeOptions::default());
        let consuming = self.channel.basic_consume(name, tag, options, FieldTable::default());
        let mut deliveries = in_time(consuming).await?;
        let ended = || AmqpError::Cancelled(queue);
        loop {
            let Some(next) = self.stop.run_until_cancelled(deliveries.next()).await else { return Ok(()) };
            let mut batch = vec![next.ok_or_else(ended)??];
            while batch.len() < BATCH_MAX
                && let Some(next) = deliveries.next().now_or_never()
            {
                batch.push(next.ok_or_else(ended)??);
            }
            self.settle(batch).await?;
        }
    }

    /// Has messages done until each is done or refused.
    async fn settle(&self, mut batch: Vec<Delivery>) -> Result<(), AmqpError> {
        let mut pauses = connection::pauses();
        loop {
            batch = self.try_once(batch).await?;
            if batch.is_empty() {
                return Ok(());
            }
            let pause = tokio::time::sleep(pauses.next().unwrap_or_default());
            if self.stop.run_until_cancelled(pause).await.is_none() {
                // What is left is delivered again, here or elsewhere.
                return Ok(());
            }
            if !self.channel.status().connected() {
                return Err(AmqpError::Cancelled(self.consumer.queue()));
            }
        }
    }

    /// Has messages done, each once by its id; gives those that have to wait.
    async fn try_once(&self, batch: Vec<Delivery>) -> Result<Vec<Delivery>, AmqpError> {
        let mut good = Vec::with_capacity(batch.len());
        let mut read = Vec::with_capacity(batch.len());
        for delivery in &batch {
            read.push(self.read(delivery).map(|message| good.push(message)));
        }
        let spans: Vec<Span> = good.iter().map(Message::consuming).collect();
        let mut outcomes = self.consumer.consume(&good).await.into_iter();
        drop(spans);
        let (mut waiting, mut done) = (Vec::new(), None);
        for (delivery, read) in batch.into_iter().zip(read) {
            let outcome = match read {
                Ok(()) => outcomes.next().unwrap_or_else(|| Err(ConsumeError::NotNow("it was not tried".to_owned()))),
                Err(reason) => Err(ConsumeError::Refused(reason)),
            };
            if !self.is_over(&delivery, outcome).await {
                waiting.push(delivery);
            } else if waiting.is_empty() {
                done = Some(delivery);
            } else {
                in_time(delivery.acker.ack(BasicAckOptions::default())).await?;
            }
        }
        // All that came before the first one that waits is over, here and in earlier batches: one word for all of it.
        if let Some(delivery) = done {
            in_time(delivery.acker.ack(BasicAckOptions { multiple: true })).await?;
        }
        Ok(waiting)
    }

    /// Whether nothing is left to do with a message: it is done, or put away.
    async fn is_over(&self, delivery: &Delivery, outcome: Result<(), ConsumeError>) -> bool {
        match outcome {
            Ok(()) => true,
            Err(ConsumeError::Refused(reason)) => self.bury(delivery, &reason).await,
            Err(ConsumeError::NotNow(reason)) => {
                tracing::warn!(queue = self.consumer.queue(), reason, "a message waits");
                false
            }
        }
    }

    /// The message as consumers know it, or why it is none.
    fn read(&self, delivery: &Delivery) -> Result<Message, String> {
        let properties = &delivery.properties;
        let id = properties.message_id().as_ref().map(ShortString::as_str).unwrap_or_default();
        if id.is_empty() {
            return Err("it has no message_id, so that it could not be done just once".to_owned());
        }
        if id.chars().any(char::is_control) {
            return Err("its message_id has a control character in it".to_owned());
        }
        let payload = String::from_utf8(delivery.data.clone())
            .map_err(|error| format!("the message can not be read: it is not UTF-8: {}", error.utf8_error()))?;
        let seconds = properties.timestamp().and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or_default();
        let at = Timestamp(seconds.saturating_mul(1_000_000));
        let headers = properties.headers().as_ref();
        let place = headers.and_then(|headers| headers.inner().get(TRACEPARENT));
        let traceparent = if let Some(AMQPValue::LongString(text)) = place { Some(text.to_string()) } else { None };
        Ok(Message { id: id.to_owned(), queue: self.consumer.queue().to_owned(), payload, at, traceparent })
    }

    /// Puts a message away with the reason; says whether the broker has it there for good.
    async fn bury(&self, delivery: &Delivery, reason: &str) -> bool {
        let queue = self.consumer.queue();
        let id = delivery.properties.message_id().as_ref().map(ShortString::as_str);
        tracing::warn!(queue, message = id, reason, "a message is put away");
        let parcel = Parcel::dead_letter(queue, &delivery.data, dead_properties(delivery, queue, reason));
        self.publisher.publish(vec![parcel]).await == [true]
    }
}

/// The properties that a message has among the dead letters: its own, but for those that would let it be refused,
/// vanish or go elsewhere there, and why it was refused.
fn dead_properties(delivery: &Delivery, queue: &str, reason: &str) -> BasicProperties {
    let own = &delivery.properties;
    let mut headers = FieldTable::default();
    for (name, value) in own.headers().iter().flatten() {
        if !ROUTING_HEADERS.contains(&name.as_str()) {
            headers.insert(name.clone(), value.clone());
        }
    }
    let end = reason.floor_char_boundary(REASON_MAX);
    headers.insert(ShortString::from("x-reason"), text(reason.get(..end).unwrap_or_default()));
    headers.insert(ShortString::from("x-queue"), text(queue));
    headers.insert(ShortString::from("x-exchange"), text(delivery.exchange.as_str()));
    headers.insert(ShortString::from("x-routing-key"), text(delivery.routing_key.as_str()));
    for (name, value) in [("x-user-id", own.user_id()), ("x-expiration", own.expiration())] {
        if let Some(value) = value {
            headers.insert(ShortString::from(name), LongString::from(value.as_str()).into());
        }
    }
    let mut properties = BasicProperties::default().with_headers(headers).with_delivery_mode(PERSISTENT);
    type Set = fn(BasicProperties, ShortString) -> BasicProperties;
    let texts: [(&Option<ShortString>, Set); 7] = [
        (own.content_type(), BasicProperties::with_content_type),
        (own.content_encoding(), BasicProperties::with_content_encoding),
        (own.correlation_id(), BasicProperties::with_correlation_id),
        (own.reply_to(), BasicProperties::with_reply_to),
        (own.message_id(), BasicProperties::with_message_id),
        (own.kind(), BasicProperties::with_type),
        (own.app_id(), BasicProperties::with_app_id),
    ];
    for (value, set) in texts {
        if let Some(value) = value {
            properties = set(properties, value.clone());
        }
    }
    match own.timestamp() {
        Some(at) => properties.with_timestamp(*at),
        None => properties,
    }
}
