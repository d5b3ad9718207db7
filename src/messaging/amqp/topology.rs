//! What the broker keeps for us: the exchange, our queues, and where their refused messages go.
//!
//! Declared at every connection, so that a broker which lost it (or is a new one) has it again. What is there already
//! in this very form is left alone; in another form the broker refuses, and somebody has to look.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{Channel, ExchangeKind};

use crate::messaging::{CLEAR_CART, SEND_EMAIL, UPDATE_INVENTORY};

/// The exchange of all events: direct, so that the routing key is the queue's name.
pub const EXCHANGE: &str = "order";
/// The broker's own exchange, which knows every queue by its name.
pub(super) const DEFAULT_EXCHANGE: &str = "";
/// The queues that this program consumes. Who wants other events binds a queue of his own.
pub const QUEUES: [&str; 3] = [SEND_EMAIL, CLEAR_CART, UPDATE_INVENTORY];

/// How often a message may be delivered again before the broker itself puts it away. A delivery is counted when a
/// connection is lost while the message is in work, and every half hour that it is held because the database is
/// away; that must never cost a good message. What is left to be caught is a message that kills whoever reads it.
const DELIVERY_LIMIT: i32 = 1_000;

/// The queue of what was refused on a queue.
#[must_use]
pub fn dead(queue: &str) -> String {
    format!("{queue}.dead")
}

/// Whether a message of this queue has to find one: then it is ours.
pub(super) fn is_ours(queue: &str) -> bool {
    QUEUES.contains(&queue)
}

/// Declares everything.
pub(super) async fn declare(channel: &Channel) -> lapin::Result<()> {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let exchange = ShortString::from(EXCHANGE);
    channel.exchange_declare(exchange, ExchangeKind::Direct, durable, FieldTable::default()).await?;
    for queue in QUEUES {
        declare_queue(channel, &dead(queue), quorum()).await?;
        declare_queue(channel, queue, with_dead_letters(queue)).await?;
        let (name, exchange) = (ShortString::from(queue), ShortString::from(EXCHANGE));
        let (key, options) = (name.clone(), QueueBindOptions::default());
        channel.queue_bind(name, exchange, key, options, FieldTable::default()).await?;
    }
    Ok(())
}

async fn declare_queue(channel: &Channel, name: &str, arguments: FieldTable) -> lapin::Result<()> {
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(ShortString::from(name), durable, arguments).await?;
    Ok(())
}

/// A queue that is kept by most of the broker's nodes.
fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert(ShortString::from("x-queue-type"), text("quorum"));
    arguments
}

/// A queue whose messages, delivered too often, go to its dead letters and are kept until they are there.
fn with_dead_letters(queue: &str) -> FieldTable {
    let mut arguments = quorum();
    arguments.insert(ShortString::from("x-delivery-limit"), AMQPValue::LongInt(DELIVERY_LIMIT));
    arguments.insert(ShortString::from("x-dead-letter-exchange"), text(DEFAULT_EXCHANGE));
    arguments.insert(ShortString::from("x-dead-letter-routing-key"), text(&dead(queue)));
    arguments.insert(ShortString::from("x-dead-letter-strategy"), text("at-least-once"));
    arguments.insert(ShortString::from("x-overflow"), text("reject-publish"));
    arguments
}

/// A text as a header or an argument.
pub(super) fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text))
}
