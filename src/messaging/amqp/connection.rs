//! How connections to the broker are made: each with everything declared, within a time, and again when one is lost.
//!
//! The client library's own recovery is off: after some outages it never came back. Here a connection that fails in
//! any way is dropped and another one is opened.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use lapin::types::{LongString, ShortString};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::topology;

/// How long a connection may take, everything declared. A broker that has just started takes seconds for the latter.
const OPEN_TIME_MAX: Duration = Duration::from_secs(10);
/// How long it may take until a broker says its first word.
const FIRST_WORD_TIME_MAX: Duration = Duration::from_secs(2);
/// How long an orderly end may take.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);
/// Seconds between signs of life, where the address does not say: a broker that is silent for twice as long is gone.
const HEARTBEAT_SECONDS: u16 = 10;
/// Shortest and longest wait before another try; chance adds up to as much again.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// What a client says first.
const GREETING: &[u8; 8] = b"AMQP\x00\x00\x09\x01";
/// The reply code of an end in order.
const ENDED_IN_ORDER: u16 = 200;

/// Why the broker did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AmqpError {
    /// The connection failed, or the broker refused something.
    #[error("the broker failed")]
    Failed(#[from] lapin::Error),
    /// Nobody answers at the address.
    #[error("the broker can not be reached")]
    Unreachable(#[from] std::io::Error),
    /// It did not answer in time.
    #[error("the broker did not answer within {0:?}")]
    Late(Duration),
    /// A queue of ours is not there.
    #[error("the broker has no queue for a message to {0}")]
    Unroutable(String),
    /// The broker does not deliver any more.
    #[error("the broker has ended the delivery of {0}")]
    Cancelled(&'static str),
    /// Whoever worked at a queue died.
    #[error("the work at a queue died: {0}")]
    Died(#[from] tokio::task::JoinError),
}

/// Where the broker is. It has no `Debug`, since an address may hold a password.
#[derive(Clone)]
pub struct AmqpOptions {
    uri: AMQPUri,
}

impl AmqpOptions {
    /// Reads an address such as `amqp://user:password@host:5672/vhost`; `None` when it is none. An IPv6 address can
    /// not be used in place of a name.
    #[must_use]
    pub fn of(url: &str) -> Option<Self> {
        let (_, authority) = url.split_once("://")?;
        let host = authority.split(['/', '?']).next()?.rsplit('@').next()?;
        let named = !host.is_empty() && !host.starts_with(':') && !host.starts_with('[');
        let mut uri: AMQPUri = url.parse().ok().filter(|_| named)?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        Some(Self { uri })
    }

    /// Where it is, for people; nothing of it is secret.
    #[must_use]
    pub fn place(&self) -> String {
        let AMQPUri { authority, vhost, .. } = &self.uri;
        format!("{} at {}:{}", vhost, authority.host, authority.port)
    }
}

/// Opens connections of one purpose, again and again.
pub(super) struct Connector {
    options: AmqpOptions,
    /// What the connections are for, as the broker's operators see it.
    purpose: &'static str,
    pauses: ExponentialBackoff,
    /// The last try hung.
    hung: bool,
}

impl Connector {
    pub(super) fn new(options: AmqpOptions, purpose: &'static str) -> Self {
        Self { options, purpose, pauses: pauses(), hung: false }
    }

    /// A connection with a channel, and everything declared.
    pub(super) async fn open(&mut self) -> Result<(Connection, Channel), AmqpError> {
        if self.hung {
            self.first_word().await?;
        }
        let opened = timeout(OPEN_TIME_MAX, Box::pin(self.connect())).await;
        self.hung = opened.is_err();
        let opened = opened.map_err(|_| AmqpError::Late(OPEN_TIME_MAX))??;
        self.pauses = pauses();
        Ok(opened)
    }

    async fn connect(&self) -> Result<(Connection, Channel), AmqpError> {
        let name = format!("storekeeper {}", self.purpose);
        let properties = ConnectionProperties::default().with_connection_name(LongString::from(name));
        let connection = Connection::connect_uri(self.options.uri.clone(), properties).await?;
        let channel = connection.create_channel().await?;
        topology::declare(&channel).await?;
        Ok((connection, channel))
    }

    /// Whether there is a broker that answers at all. The library can not give up a greeting that nobody answers (its
    /// thread waits for as long as the other side keeps the socket), so after one has hung there is no second before
    /// somebody is known to listen.
    async fn first_word(&self) -> Result<(), AmqpError> {
        let AMQPUri { authority, scheme, .. } = &self.options.uri;
        let ask = async {
            let mut stream = TcpStream::connect((authority.host.as_str(), authority.port)).await?;
            if *scheme == AMQPScheme::AMQP {
                stream.write_all(GREETING).await?;
                stream.read_u8().await?;
            }
            Ok(())
        };
        timeout(FIRST_WORD_TIME_MAX, ask).await.map_err(|_| AmqpError::Late(FIRST_WORD_TIME_MAX))?
    }

    /// How long to wait before the next try.
    pub(super) fn pause(&mut self) -> Duration {
        self.pauses.next().unwrap_or(PAUSE_MAX)
    }
}

/// Waits between tries: growing, with chance in them so that many servers do not come at the same moment.
pub(super) fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(PAUSE_MIN)
        .with_max_delay(PAUSE_MAX)
        .with_jitter()
        .without_max_times()
        .build()
}

/// Ends a connection in order, or drops it when that takes too long.
pub(super) async fn close(connection: Connection) {
    let ended = connection.close(ENDED_IN_ORDER, ShortString::from("OK"));
    if let Ok(Err(error)) = timeout(CLOSE_TIME_MAX, Box::pin(ended)).await {
        tracing::debug!(error = &error as &dyn std::error::Error, "a connection to the broker did not end in order");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_brokers_are_read() {
        for (url, place) in [
            ("amqp://shop:pw@rabbit.example.org:5673/shop", "shop at rabbit.example.org:5673"),
            ("amqps://rabbit.example.org", "/ at rabbit.example.org:5671"),
            ("amqp://127.0.0.1:5672/%2f", "/ at 127.0.0.1:5672"),
        ] {
            let options = AmqpOptions::of(url).unwrap_or_else(|| panic!("{url}"));
            assert_eq!(options.place(), place);
            assert_eq!(options.uri.query.heartbeat, Some(HEARTBEAT_SECONDS));
        }
        let own = AmqpOptions::of("amqp://localhost?heartbeat=30").expect("an address");
        assert_eq!(own.uri.query.heartbeat, Some(30));
        for bad in ["localhost:5672", "http://localhost", "amqp://", "amqp:///shop", "amqp://[::1]:5672", "amqp://h:p"]
        {
            assert!(AmqpOptions::of(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_wait_before_another_try_is_half_a_second_at_most() {
        let waits: Vec<Duration> = pauses().take(50).collect();
        assert_eq!(waits.len(), 50, "it never gives up");
        assert!(waits.iter().all(|wait| *wait <= Duration::from_millis(500)), "{waits:?}");
    }
}
