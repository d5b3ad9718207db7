//! The way to Redis: one connection that all share. Each request is sent at once, without waiting for the answers to
//! those before it.
//!
//! Nothing here tries again, but for what a cluster's own rules send elsewhere: a connection that has failed is given
//! up by whoever holds it, and another is opened. One server is told of many carts by one request; a cluster's two keys
//! of a cart may be on two nodes, so they are written by two.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::cluster::ClusterClient;
use ::redis::cluster_async::ClusterConnection;
use ::redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, Script, ScriptInvocation, cmd};
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

/// Carts of one request, for whose time the server does nothing else.
const CARTS_MAX: usize = 128;

static SHOW: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("show.lua")));
static SHOW_CARTS: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("show_carts.lua")));

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

impl KeyOutcome {
    /// What a script said, and the version that it found.
    fn of((done, version): (String, String)) -> Result<Self, MirrorError> {
        match done.as_str() {
            "newer" => Ok(Self::Newer(version)),
            "same" => Ok(Self::Same),
            "shown" => Ok(Self::Shown),
            "repaired" => Ok(Self::Repaired),
            _ => Err(MirrorError::Answer(done)),
        }
    }
}

/// What became of the two keys of a cart. One server writes both or none.
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

    /// Shows carts as they are, each unless something newer is shown. Gives what became of each, in their order.
    ///
    /// # Errors
    /// [`MirrorError`]; each of the keys may have been written or not.
    pub async fn show(&self, images: &[CartImage]) -> Result<Vec<Shown>, MirrorError> {
        self.show_over(images, ["", ""]).await
    }

    /// Shows a cart as the database has it, over something newer that was `seen` shown. To be called only with what
    /// the database said *after* that was seen: then nothing newer was ever there.
    ///
    /// # Errors
    /// As of [`show`](Self::show).
    pub async fn show_in_place_of(&self, seen: &Shown, image: &CartImage) -> Result<Shown, MirrorError> {
        let shown = self.show_over(std::slice::from_ref(image), seen.newer()).await?.pop();
        shown.ok_or_else(|| MirrorError::Answer(String::new()))
    }

    /// Shows carts. A single one also over these versions of its two keys, where they are not empty.
    async fn show_over(&self, images: &[CartImage], [cart, session]: [&str; 2]) -> Result<Vec<Shown>, MirrorError> {
        match &self.wire {
            Wire::Server(server) => {
                let requests = images.chunks(CARTS_MAX).map(|few| show_on_server(server.clone(), few, session));
                Ok(try_join_all(requests).await?.into_iter().flatten().collect())
            }
            Wire::Cluster(cluster) => {
                let carts = images.iter().map(async |image| {
                    let (cart, session) = (image.cart(&SHOW, cart), image.session(&SHOW, session));
                    let both =
                        try_join(show_in_cluster(cluster.clone(), &cart), show_in_cluster(cluster.clone(), &session));
                    both.await.map(|(cart, session)| Shown { cart, session })
                });
                try_join_all(carts).await
            }
        }
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

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, MirrorError> {
        let answer = match &self.wire {
            Wire::Server(connection) => command.query_async(&mut connection.clone()).await,
            Wire::Cluster(connection) => command.query_async(&mut connection.clone()).await,
        };
        Ok(answer?)
    }
}

async fn show_on_server(
    mut server: MultiplexedConnection,
    images: &[CartImage],
    wrong: &str,
) -> Result<Vec<Shown>, MirrorError> {
    let others: Vec<(usize, String, String)> =
        CartImage::all(images, &SHOW_CARTS, wrong).invoke_async(&mut server).await?;
    let mut all = vec![Shown { cart: KeyOutcome::Shown, session: KeyOutcome::Shown }; images.len()];
    for (number, done, version) in others {
        let outcome = KeyOutcome::of((done, version))?;
        let place = number.checked_sub(1).and_then(|index| all.get_mut(index));
        let Some(shown) = place else { return Err(MirrorError::Answer(format!("cart {number} of {}", images.len()))) };
        *shown = Shown { cart: outcome.clone(), session: outcome };
    }
    Ok(all)
}

async fn show_in_cluster(
    mut cluster: ClusterConnection,
    invocation: &ScriptInvocation<'_>,
) -> Result<KeyOutcome, MirrorError> {
    KeyOutcome::of(invocation.invoke_async(&mut cluster).await?)
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
