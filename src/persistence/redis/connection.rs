//! The way to Redis: one connection that all share. Each request is sent at once, without waiting for the answers to
//! those before it.
//!
//! Nothing here tries again, but for what a cluster's own rules send elsewhere: a connection that has failed is given
//! up by whoever holds it, and another is opened. A cluster's two keys of a cart may be on two nodes, so they are
//! written by two requests.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::cluster::ClusterClient;
use ::redis::cluster_async::ClusterConnection;
use ::redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisResult, Script, ScriptInvocation, cmd};
use futures_util::future::{try_join, try_join_all};
use uuid::Uuid;

use super::image::CartImage;
use super::options::RedisOptions;
use super::{MirrorError, marker};

/// How long an answer is waited for before the connection counts as broken.
const ANSWER_WAIT_MAX: Duration = Duration::from_millis(250);
/// How long it may take to connect.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(1);
/// Times that a request to a cluster is sent to another node, or again when slots are being moved.
const CLUSTER_RETRIES: u32 = 3;
/// Requests that may wait for answers; more wait before they are sent.
const IN_FLIGHT_MAX: usize = 4_096;

static SHOW: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("show.lua")));

/// A connection to Redis; clones share it.
#[derive(Clone)]
pub struct MirrorConnection {
    wire: Wire,
    marks: Arc<[String]>,
}

#[derive(Clone)]
enum Wire {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// What became of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyOutcome {
    /// It shows a newer version, remembered as this text.
    Newer(String),
    /// It shows just that already.
    Same,
    /// It shows it now; before, it showed another version or none.
    Shown,
    /// It shows it now; before, it showed something else under the same version.
    Repaired,
}

/// What became of the two keys of a cart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// `cart:<sessionId>`.
    pub cart: KeyOutcome,
    /// `session:<sessionId>`.
    pub session: KeyOutcome,
}

impl Shown {
    /// Whether both keys were just so before.
    #[must_use]
    pub fn is_same(&self) -> bool {
        (&self.cart, &self.session) == (&KeyOutcome::Same, &KeyOutcome::Same)
    }

    /// Whether one of the keys shows something newer.
    #[must_use]
    pub fn is_newer(&self) -> bool {
        self.newer().iter().any(|version| !version.is_empty())
    }

    /// The newer version that each key was found to show; empty where it was none.
    fn newer(&self) -> [&str; 2] {
        [&self.cart, &self.session].map(|outcome| match outcome {
            KeyOutcome::Newer(version) => version.as_str(),
            KeyOutcome::Same | KeyOutcome::Shown | KeyOutcome::Repaired => "",
        })
    }
}

impl MirrorConnection {
    /// Connects; `server` is told apart from other servers by its identifier. To be called on the runtime that the
    /// connection is to live on.
    ///
    /// # Errors
    /// [`MirrorError`]; nothing is left open then.
    pub async fn open(options: &RedisOptions, server: Uuid) -> Result<Self, MirrorError> {
        let connected = tokio::time::timeout(CONNECT_WAIT_MAX, connect(options)).await;
        let wire = connected.map_err(|_| MirrorError::NoAnswer)??;
        Ok(Self { wire, marks: marker::names(server, options.is_cluster).into() })
    }

    /// Shows a cart as it is, unless something newer is shown.
    ///
    /// # Errors
    /// [`MirrorError`]; each of its keys may have been written or not.
    pub async fn show(&self, image: &CartImage) -> Result<Shown, MirrorError> {
        self.show_over(image, ["", ""]).await
    }

    /// Shows a cart as the database has it, over something newer that was `seen` shown. To be called only with what
    /// the database said *after* that was seen: then nothing newer was ever there.
    ///
    /// # Errors
    /// As of [`show`](Self::show).
    pub async fn show_in_place_of(&self, seen: &Shown, image: &CartImage) -> Result<Shown, MirrorError> {
        self.show_over(image, seen.newer()).await
    }

    async fn show_over(&self, image: &CartImage, [cart, session]: [&str; 2]) -> Result<Shown, MirrorError> {
        let (cart, session) = (image.cart(&SHOW, cart), image.session(&SHOW, session));
        let (cart, session) = try_join(self.run(&cart), self.run(&session)).await?;
        Ok(Shown { cart, session })
    }

    /// Sets this server's marks again. Gives whether they were all there: if not, keys have been lost.
    ///
    /// # Errors
    /// [`MirrorError`].
    pub async fn mark(&self) -> Result<bool, MirrorError> {
        let life_ms = u64::try_from(marker::LIFE.as_millis()).unwrap_or(u64::MAX);
        let set = self.marks.iter().map(async |name| {
            let mut command = cmd("SET");
            command.arg(name).arg(1).arg("PX").arg(life_ms).arg("GET");
            self.ask::<Option<String>>(&command).await
        });
        Ok(try_join_all(set).await?.iter().all(Option::is_some))
    }

    /// Takes this server's marks away.
    ///
    /// # Errors
    /// [`MirrorError`]; then they go by themselves.
    pub async fn unmark(&self) -> Result<(), MirrorError> {
        let remove = self.marks.iter().map(async |name| self.ask::<()>(cmd("DEL").arg(name)).await);
        try_join_all(remove).await.map(|_| ())
    }

    async fn run(&self, invocation: &ScriptInvocation<'_>) -> Result<KeyOutcome, MirrorError> {
        let answer: RedisResult<(String, String)> = match &self.wire {
            Wire::Server(connection) => invocation.invoke_async(&mut connection.clone()).await,
            Wire::Cluster(connection) => invocation.invoke_async(&mut connection.clone()).await,
        };
        let (done, version) = answer?;
        match done.as_str() {
            "newer" => Ok(KeyOutcome::Newer(version)),
            "same" => Ok(KeyOutcome::Same),
            "shown" => Ok(KeyOutcome::Shown),
            "repaired" => Ok(KeyOutcome::Repaired),
            _ => Err(MirrorError::Answer(done)),
        }
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, MirrorError> {
        let answer = match &self.wire {
            Wire::Server(connection) => command.query_async(&mut connection.clone()).await,
            Wire::Cluster(connection) => command.query_async(&mut connection.clone()).await,
        };
        Ok(answer?)
    }
}

async fn connect(options: &RedisOptions) -> Result<Wire, MirrorError> {
    match (&options.nodes[..], options.is_cluster) {
        ([node], false) => {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(CONNECT_WAIT_MAX))
                .set_response_timeout(Some(ANSWER_WAIT_MAX))
                .set_concurrency_limit(IN_FLIGHT_MAX);
            let client = Client::open(node.as_str())?;
            Ok(Wire::Server(client.get_multiplexed_async_connection_with_config(&config).await?))
        }
        (nodes, _) => {
            let client = ClusterClient::builder(nodes.iter().map(String::as_str))
                .connection_timeout(CONNECT_WAIT_MAX)
                .response_timeout(ANSWER_WAIT_MAX)
                .retries(CLUSTER_RETRIES)
                .connection_concurrency_limit(IN_FLIGHT_MAX)
                .build()?;
            Ok(Wire::Cluster(client.get_async_connection().await?))
        }
    }
}
