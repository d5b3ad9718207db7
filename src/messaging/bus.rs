//! How events get to those who want them.
//!
//! [`EventBus`] is the face that a broker and the bus inside this program share. Delivery is at least once: whoever
//! publishes keeps an event until the bus has confirmed it, and whoever consumes does a message once by its id.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use tracing::Span;

use crate::domain::timestamp::Timestamp;
use crate::observability::trace;

/// A message of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its identifier: consumers do each once.
    pub id: String,
    /// The queue's name.
    pub queue: String,
    /// What it says, JSON.
    pub payload: String,
    /// When it was written.
    pub at: Timestamp,
    /// Where in a trace it was sent (W3C Trace Context); `None` outside of all traces.
    pub traceparent: Option<String>,
}

impl Message {
    /// The span of what is done with it, in the trace that it comes with; none where no traces are exported.
    pub(super) fn consuming(&self) -> Span {
        if !trace::is_exporting() {
            return Span::none();
        }
        let span =
            tracing::info_span!(parent: None, "consume", queue = self.queue, message = self.id, otel.kind = "consumer");
        if let Some(traceparent) = &self.traceparent {
            trace::set_parent(&span, traceparent);
        }
        span
    }
}

/// Why a message was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConsumeError {
    /// It can not be read, or a rule refuses it: it goes to the dead letters, with this reason.
    #[error("{0}")]
    Refused(String),
    /// Something that it needs is not there: it waits and is delivered again.
    #[error("not now: {0}")]
    NotNow(String),
}

/// Does the messages of one queue.
#[async_trait]
pub trait Consumer: Send + Sync {
    /// The queue's name.
    fn queue(&self) -> &'static str;

    /// Does messages, in their order, each once by its id; says what became of each.
    async fn consume(&self, messages: &[Message]) -> Vec<Result<(), ConsumeError>>;
}

/// Where messages go that will never be done.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Puts a message away with the reason. `false` when that did not work: it is delivered again.
    async fn bury(&self, message: &Message, reason: &str) -> bool;
}

/// Where events go.
#[async_trait]
pub trait EventBus: Send + Sync {
    /// Whether something published now has a chance to be confirmed. While it has none, events are better left alone.
    fn is_ready(&self) -> bool {
        true
    }

    /// Publishes messages in their order; says of each whether it is confirmed. What is not is to be published again.
    async fn publish(&self, messages: &[Message]) -> Vec<bool>;
}

/// The bus inside this program. It keeps nothing: a message is confirmed when its consumer has done it durably, so
/// that what the program was at when it died is published again. A queue that nobody here consumes takes everything
/// and tells nobody.
pub struct LocalBus {
    consumers: HashMap<&'static str, Arc<dyn Consumer>>,
    dead_letters: Arc<dyn DeadLetters>,
}

impl LocalBus {
    /// A bus with these consumers, one a queue.
    #[must_use]
    pub fn new(consumers: Vec<Arc<dyn Consumer>>, dead_letters: Arc<dyn DeadLetters>) -> Self {
        let consumers = consumers.into_iter().map(|consumer| (consumer.queue(), consumer)).collect();
        Self { consumers, dead_letters }
    }

    /// Delivers the messages of one queue.
    async fn deliver(&self, queue: &str, messages: &[Message]) -> Vec<bool> {
        let Some(consumer) = self.consumers.get(queue) else { return vec![true; messages.len()] };
        let _spans: Vec<Span> = messages.iter().map(Message::consuming).collect();
        let outcomes = consumer.consume(messages).await;
        let mut confirmed = Vec::with_capacity(messages.len());
        for (message, outcome) in messages.iter().zip(outcomes) {
            confirmed.push(match outcome {
                Ok(()) => true,
                Err(ConsumeError::Refused(reason)) => self.dead_letters.bury(message, &reason).await,
                Err(ConsumeError::NotNow(reason)) => {
                    tracing::warn!(queue, message = message.id, reason, "a message waits");
                    false
                }
            });
        }
        confirmed.resize(messages.len(), false);
        confirmed
    }
}

#[async_trait]
impl EventBus for LocalBus {
    async fn publish(&self, messages: &[Message]) -> Vec<bool> {
        let mut confirmed = vec![false; messages.len()];
        let mut queues: Vec<&str> = messages.iter().map(|message| message.queue.as_str()).collect();
        queues.sort_unstable();
        queues.dedup();
        for queue in queues {
            let (places, of_queue): (Vec<usize>, Vec<Message>) = messages
                .iter()
                .enumerate()
                .filter(|(_, message)| message.queue == queue)
                .map(|(place, message)| (place, message.clone()))
                .unzip();
            for (place, outcome) in places.into_iter().zip(self.deliver(queue, &of_queue).await) {
                confirmed[place] = outcome;
            }
        }
        confirmed
    }
}
