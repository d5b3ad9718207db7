//! The server as a whole: in which order it starts and stops.
//!
//! One multi-thread tokio runtime is under everything: pools and sockets live on it, the actix system and its arbiters
//! run on it. Only the HTTP workers have runtimes of their own, so they ask actors or spawn on the one.
//!
//! Start: database, actors, HTTP. Stop, in the order that loses nothing: not ready any more; the door is closed; HTTP
//! answers what was asked; mailboxes and journal drain; the outbox is published; the database is closed.

mod door;
mod process;
mod serving;
mod watch;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use actix_rt::{Arbiter, ArbiterHandle, System};
use secrecy::SecretString;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::actors::house::{House, HouseLimits, HouseParts, Unfinished};
use crate::actors::mirror::MirrorState;
use crate::actors::shop::Shop;
use crate::actors::supervision;
use crate::admin::{self, AdminError};
use crate::config::{Config, ShutdownConfig};
use crate::domain::user::EmailAddress;
use crate::http::{self, AppState, Connections, DependencyState, Foundation};
use crate::messaging::bus::EventBus;
use crate::messaging::mail::{TemplateError, Templates};
use crate::observability::metrics::{BuildError, Metrics};
use crate::persistence::clock::Clock;
use crate::persistence::open::{self, OpenError};
use crate::persistence::{SharedStore, StoreError};
use watch::Watched;

pub use process::{Signals, serve};
use serving::Serving;

/// Connections that read from SQLite.
const READERS: u32 = 8;
/// How long closing the database may take when the time for stopping is over.
const STORE_CLOSE_MAX: Duration = Duration::from_secs(1);

/// Why a server does not start, or did not stop in order.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The database can not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The first administrator can not be made.
    #[error("the first administrator can not be made: {0}")]
    Admin(#[from] AdminError),
    /// The mails' texts can not be read.
    #[error("the texts of the mails can not be read: {0}")]
    Templates(#[from] TemplateError),
    /// The metrics can not be made.
    #[error("the metrics can not be made: {0}")]
    Metrics(#[from] BuildError),
    /// The HTTP side can not be made.
    #[error(transparent)]
    Http(#[from] http::StartError),
    /// The address can not be listened at.
    #[error("can not listen at {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The system gives no thread, runtime or signal.
    #[error("the system does not give what a server needs: {0}")]
    System(#[from] io::Error),
    /// The thread of the server died.
    #[error("the server died")]
    Died,
    /// Not everything that was begun was done in the time that was given.
    #[error("SHUTDOWN_LIMIT was over before everything was done; not done: {0}")]
    NotDrained(Undone),
    /// It did not end when all time was over, and is left to the end of the process.
    #[error("SHUTDOWN_LIMIT is over and the server still at work; the process ends without it")]
    Stuck,
    /// It was told a second time to stop, and did not wait for what was not done yet.
    #[error("ended at once by a second signal; what was not answered may not have been done")]
    Interrupted,
}

/// What a server had begun and not done when it had to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undone {
    /// Connections that were cut off, each before an answer had arrived.
    pub connections: usize,
    /// What the actors had not done.
    pub work: Unfinished,
}

impl Undone {
    fn is_nothing(&self) -> bool {
        *self == Self { connections: 0, work: Unfinished::default() }
    }
}

impl fmt::Display for Undone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, work: Unfinished { messages, mails } } = self;
        write!(f, "{connections} requests, {messages} messages of actors, {mails} mails on their way")
    }
}

/// The administrator who was made at the first start.
pub struct FirstAdmin {
    /// Their address.
    pub email: EmailAddress,
    /// Their password, when it was made up; it can not be read again.
    pub password: Option<SecretString>,
}

/// A server that runs.
pub struct App {
    address: SocketAddr,
    shop: Shop,
    bus: Arc<dyn EventBus>,
    store: SharedStore,
    first_admin: Option<FirstAdmin>,
    shutdown: ShutdownConfig,
    stop: CancellationToken,
    ended: oneshot::Receiver<Result<(), AppError>>,
}

/// What a started server tells about itself.
struct Started {
    address: SocketAddr,
    shop: Shop,
    bus: Arc<dyn EventBus>,
    store: SharedStore,
    first_admin: Option<FirstAdmin>,
}

impl App {
    /// Starts a server on threads of its own; when this returns, it serves.
    ///
    /// # Errors
    /// [`AppError`]; nothing runs then.
    pub async fn build(config: Config) -> Result<Self, AppError> {
        Self::build_at(config, Clock::system()).await
    }

    /// Starts a server whose time is `clock`: for tests, in which time passes when they say so.
    ///
    /// # Errors
    /// As of [`build`](Self::build).
    pub async fn build_at(config: Config, clock: Clock) -> Result<Self, AppError> {
        supervision::note_panics();
        let stop = CancellationToken::new();
        let (started_to, started) = oneshot::channel();
        let (ended_to, ended) = oneshot::channel();
        let told = stop.clone();
        let shutdown = config.shutdown;
        thread::Builder::new().name("storekeeper".to_owned()).spawn(move || {
            let outcome = run(config, clock, told, started_to);
            drop(ended_to.send(outcome));
        })?;
        match started.await {
            Ok(Started { address, shop, bus, store, first_admin }) => {
                Ok(Self { address, shop, bus, store, first_admin, shutdown, stop, ended })
            }
            // It ended before it had started: how, it says.
            Err(_) => Err(ended.await.unwrap_or(Err(AppError::Died)).err().unwrap_or(AppError::Died)),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The actors, for those who run in the same program.
    #[must_use]
    pub fn shop(&self) -> &Shop {
        &self.shop
    }

    /// Where messages may be handed in.
    #[must_use]
    pub fn bus(&self) -> &Arc<dyn EventBus> {
        &self.bus
    }

    /// The database.
    #[must_use]
    pub fn store(&self) -> &SharedStore {
        &self.store
    }

    /// The administrator who was made just now, if one was.
    #[must_use]
    pub fn first_admin(&self) -> Option<&FirstAdmin> {
        self.first_admin.as_ref()
    }

    /// Stops it, when everything that was begun is done.
    ///
    /// # Errors
    /// [`AppError::NotDrained`] when that took longer than it may.
    pub async fn stop(self) -> Result<(), AppError> {
        self.stop.cancel();
        self.ended.await.unwrap_or(Err(AppError::Died))
    }
}

/// The thread of the server: from the runtime to its end.
fn run(
    config: Config,
    clock: Clock,
    stop: CancellationToken,
    started: oneshot::Sender<Started>,
) -> Result<(), AppError> {
    let runtime = Arc::new(tokio::runtime::Builder::new_multi_thread().enable_all().build()?);
    let system = System::with_tokio_rt({
        let runtime = Arc::clone(&runtime);
        move || runtime
    });
    system.block_on(serve_until(config, clock, stop, started, runtime))
}

async fn serve_until(
    config: Config,
    clock: Clock,
    stop: CancellationToken,
    started: oneshot::Sender<Started>,
    runtime: Arc<Runtime>,
) -> Result<(), AppError> {
    let shutdown = config.shutdown;
    // Deciding is quick; on a thread that has more to do it costs fewer wake-ups, and the HTTP workers need cores too.
    let arbiters: Vec<Arbiter> = (0..cores().div_ceil(2))
        .map(|_| {
            let runtime = Arc::clone(&runtime);
            Arbiter::try_with_tokio_rt(move || Ok(runtime))
        })
        .collect::<io::Result<_>>()?;
    let handles: Arc<[ArbiterHandle]> = arbiters.iter().map(Arbiter::handle).collect();
    let connections = Connections::default();
    let open = open(config.clone(), clock, handles, runtime.handle().clone(), connections.clone());
    let Opened { store, house, state, first_admin, watching } =
        runtime.spawn(open).await.map_err(|_| AppError::Died)??;

    let serving = match Serving::begin(&config, state, connections.clone()) {
        Ok(serving) => serving,
        Err(error) => {
            close(&runtime, house, store, Instant::now()).await?;
            return Err(error);
        }
    };
    let told = Started {
        address: serving.address(),
        shop: house.shop().clone(),
        bus: Arc::clone(house.bus()),
        store: Arc::clone(&store),
        first_admin,
    };
    // Who asked for the server has gone when nobody listens: then it stops again.
    if started.send(told).is_ok() {
        stop.cancelled().await;
    }
    connections.begin_to_stop();
    tokio::time::sleep(shutdown.grace).await;
    let begun = Instant::now();
    // What is left of the limit after HTTP is for the actors.
    let cut_off = serving.end(begun + shutdown.limit * 3 / 4).await;
    drop(watching);
    let work = close(&runtime, house, store, begun + shutdown.limit).await?;
    for arbiter in arbiters {
        arbiter.stop();
        drop(arbiter.join());
    }
    let undone = Undone { connections: cut_off, work };
    if undone.is_nothing() { Ok(()) } else { Err(AppError::NotDrained(undone)) }
}

struct Opened {
    store: SharedStore,
    house: House,
    state: AppState,
    first_admin: Option<FirstAdmin>,
    /// Ends what watches for the metrics.
    watching: DropGuard,
}

/// Opens database, actors and what the HTTP side needs. Runs on the one runtime.
async fn open(
    config: Config,
    clock: Clock,
    arbiters: Arc<[ArbiterHandle]>,
    runtime: tokio::runtime::Handle,
    connections: Connections,
) -> Result<Opened, AppError> {
    let store = open::open(config.store.options(READERS), clock.clone()).await?;
    let first_admin = make_first_admin(&config, &store, &clock).await?;
    let metrics = Metrics::new()?;
    let house = House::open(HouseParts {
        store: Arc::clone(&store),
        clock: clock.clone(),
        rules: config.shop,
        limits: house_limits(&config),
        redis: config.redis.clone(),
        broker: config.broker.clone(),
        templates: Templates::new()?,
        mail_sender: config.mail.sender.clone(),
        mail_server: config.mail.smtp.clone().map(|smtp| (smtp, config.mail.retries)),
        arbiters,
        runtime: runtime.clone(),
        metrics: metrics.clone(),
    });
    let dependencies = dependencies(&house);
    let watched = Watched {
        metrics: metrics.clone(),
        store: Arc::clone(&store),
        clock: clock.clone(),
        dependencies: Arc::clone(&dependencies),
        roster: house.shop().roster().clone(),
        period: config.metrics_period,
    };
    let state = AppState::build(Foundation {
        shop: house.shop().clone(),
        store: Arc::clone(&store),
        clock,
        runtime,
        settings: http::Settings {
            deadline: config.http.request_deadline,
            access_token_life: config.tokens.access_ttl,
            refresh_token_life: config.tokens.refresh_ttl,
            token_secret: config.tokens.secret.clone(),
            mail_sender: config.mail.sender.clone(),
            mail_captured: config.mail.smtp.is_none(),
            node: config.http.node.clone(),
            password_hashes_at_once: cores(),
            idempotency_key_life: config.retention.idempotency_keys,
        },
        dependencies,
        connections,
        metrics,
    })
    .await?;
    Ok(Opened { store, house, state, first_admin, watching: watch::watch(watched) })
}

/// How the services beside the database do, for readiness.
fn dependencies(house: &House) -> http::Dependencies {
    let (mirror, broker, mailer) = (house.mirror().clone(), house.broker().cloned(), house.mailer().clone());
    let state = |is_up: Option<bool>| match is_up {
        None => DependencyState::Off,
        Some(true) => DependencyState::Up,
        Some(false) => DependencyState::Degraded,
    };
    let mirror_state = |state: MirrorState| match state {
        MirrorState::Off => DependencyState::Off,
        MirrorState::Up => DependencyState::Up,
        MirrorState::Degraded => DependencyState::Degraded,
    };
    Arc::new(move || {
        vec![
            ("redis", mirror_state(mirror.state())),
            ("rabbitmq", state(broker.as_ref().map(|broker| broker.is_up()))),
            ("smtp", state(mailer.server_is_up())),
        ]
    })
}

fn house_limits(config: &Config) -> HouseLimits {
    let places = |limit: usize| u32::try_from(limit).unwrap_or(u32::MAX);
    HouseLimits {
        inventory_mailbox: places(config.actors.inventory_mailbox),
        cart_mailbox: places(config.actors.cart_mailbox),
        orders_mailbox: places(config.actors.orders_mailbox),
        journal_mailbox: places(config.actors.journal_mailbox),
        journal_batch_max: config.actors.journal_batch_max,
        event_delay_max: config.actors.event_delay_max,
        idle_ttl: config.actors.idle_ttl,
        order_pending_ttl: config.order_pending_ttl,
        supervision: config.actors.supervision,
        retention: config.retention,
    }
}

async fn make_first_admin(config: &Config, store: &SharedStore, clock: &Clock) -> Result<Option<FirstAdmin>, AppError> {
    if store.has_admin().await? {
        return Ok(None);
    }
    let email = config.admin.email.clone();
    let password = config.admin.password.clone();
    match admin::create(store.as_ref(), &email, admin::NAME, password, clock.now()).await {
        Ok(password) => Ok(Some(FirstAdmin { email, password })),
        // Another server that started at the same moment was faster.
        Err(AdminError::AddressTaken) if store.has_admin().await? => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Drains the actors, publishes the outbox, closes the database; gives what was not done at `deadline`.
async fn close(runtime: &Runtime, house: House, store: SharedStore, deadline: Instant) -> Result<Unfinished, AppError> {
    let closing = runtime.spawn(async move {
        let unfinished = house.close(deadline).await;
        drop(house);
        let last = deadline.max(Instant::now() + STORE_CLOSE_MAX);
        if timeout_at(last, store.close()).await.is_err() {
            tracing::warn!("the database is in use when time is over; what is not committed is not done");
        }
        unfinished
    });
    closing.await.map_err(|_| AppError::Died)
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}
