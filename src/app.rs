//! The server as a whole: in which order it starts and stops.
//!
//! One multi-thread tokio runtime is under everything: pools and sockets live on it, the actix system and its arbiters
//! run on it. Only the HTTP workers have runtimes of their own, so they ask actors or spawn on the one.
//!
//! Start: database, actors, HTTP. Stop, in the order that loses nothing: not ready any more; HTTP answers what it has
//! begun; mailboxes and journal drain; the outbox is published; the database is closed.

mod watch;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use actix_rt::{Arbiter, ArbiterHandle, System};
use actix_web::dev::ServerHandle;
use actix_web::{HttpServer, web};
use secrecy::{ExposeSecret, SecretString};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::actors::house::{House, HouseLimits, HouseParts};
use crate::actors::mirror::MirrorState;
use crate::actors::shop::Shop;
use crate::actors::supervision;
use crate::admin::{self, AdminError};
use crate::config::Config;
use crate::domain::user::EmailAddress;
use crate::http::{self, AppState, DependencyState, Foundation};
use crate::messaging::bus::EventBus;
use crate::messaging::mail::{TemplateError, Templates};
use crate::observability::metrics::{BuildError, Metrics};
use crate::persistence::clock::Clock;
use crate::persistence::open::{self, OpenError};
use crate::persistence::{SharedStore, StoreError};
use watch::Watched;

/// Connections that read from SQLite.
const READERS: u32 = 8;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 4_096;

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
    #[error("the server stopped with {0} messages not done")]
    NotDrained(i64),
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
        thread::Builder::new().name("storekeeper".to_owned()).spawn(move || {
            let outcome = run(config, clock, told, started_to);
            drop(ended_to.send(outcome));
        })?;
        match started.await {
            Ok(Started { address, shop, bus, store, first_admin }) => {
                Ok(Self { address, shop, bus, store, first_admin, stop, ended })
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

    /// Runs until the process is told to end, then stops. A second signal ends it at once.
    ///
    /// # Errors
    /// As of [`stop`](Self::stop).
    pub async fn run_until_stopped(mut self, mut signals: Signals) -> Result<(), AppError> {
        tokio::select! {
            () = signals.next() => {}
            ended = &mut self.ended => return ended.unwrap_or(Err(AppError::Died)),
        }
        tracing::info!("stopping; a second signal ends at once");
        self.stop.cancel();
        tokio::select! {
            ended = &mut self.ended => ended.unwrap_or(Err(AppError::Died)),
            () = signals.next() => Err(AppError::Died),
        }
    }
}

/// The signals that tell the process to end: SIGTERM and SIGINT. From its making on they no longer end it by
/// themselves.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Watches for them.
    ///
    /// # Errors
    /// When the system does not let it.
    pub fn watch() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
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
    let shutdown_limit = config.shutdown_limit;
    let arbiters: Vec<Arbiter> = (0..cores())
        .map(|_| {
            let runtime = Arc::clone(&runtime);
            Arbiter::try_with_tokio_rt(move || Ok(runtime))
        })
        .collect::<io::Result<_>>()?;
    let handles: Arc<[ArbiterHandle]> = arbiters.iter().map(Arbiter::handle).collect();
    let draining = Arc::new(AtomicBool::new(false));
    let open = open(config.clone(), clock, handles, runtime.handle().clone(), Arc::clone(&draining));
    let Opened { store, house, state, first_admin, watching } =
        runtime.spawn(open).await.map_err(|_| AppError::Died)??;

    let listening = listen(&config, state);
    let (address, server) = match listening {
        Ok(listening) => listening,
        Err(error) => {
            close(&runtime, house, store, Duration::ZERO).await?;
            return Err(error);
        }
    };
    let handle = server.handle();
    let serving = actix_rt::spawn(server);
    let told = Started {
        address,
        shop: house.shop().clone(),
        bus: Arc::clone(house.bus()),
        store: Arc::clone(&store),
        first_admin,
    };
    // Who asked for the server has gone when nobody listens: then it stops again.
    if started.send(told).is_ok() {
        stop.cancelled().await;
    }
    let deadline = Instant::now() + shutdown_limit;
    draining.store(true, Ordering::Release);
    stop_serving(&handle).await;
    drop(serving.await);
    drop(watching);
    let left = close(&runtime, house, store, deadline.saturating_duration_since(Instant::now())).await?;
    for arbiter in arbiters {
        arbiter.stop();
        drop(arbiter.join());
    }
    if left > 0 { Err(AppError::NotDrained(left)) } else { Ok(()) }
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
    draining: Arc<AtomicBool>,
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
        draining,
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

fn listen(config: &Config, state: AppState) -> Result<(SocketAddr, actix_web::dev::Server), AppError> {
    let address = config.http.bind;
    let failed = |source| AppError::Listen { address, source };
    let state = web::Data::new(state);
    let server = HttpServer::new(move || actix_web::App::new().configure(http::configure(state.clone())))
        .workers(config.http.workers)
        .backlog(BACKLOG)
        // What is left of the limit is for the actors.
        .shutdown_timeout((config.shutdown_limit * 3 / 4).as_secs().max(1))
        .disable_signals()
        .bind(address)
        .map_err(failed)?;
    let bound = server.addrs().first().copied().unwrap_or(address);
    Ok((bound, server.run()))
}

/// Takes no more connections, and waits for the answers to what has begun.
async fn stop_serving(handle: &ServerHandle) {
    handle.stop(true).await;
}

/// Drains the actors, publishes the outbox, closes the database; gives how many messages were not done.
async fn close(runtime: &Runtime, house: House, store: SharedStore, limit: Duration) -> Result<i64, AppError> {
    let closing = runtime.spawn(async move {
        let left = house.close(Instant::now() + limit).await;
        drop(house);
        store.close().await;
        left
    });
    closing.await.map_err(|_| AppError::Died)
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Serves until the process is told to end; says on standard output where it listens and what a first visitor needs.
///
/// # Errors
/// [`AppError`].
pub fn serve(config: Config) -> Result<(), AppError> {
    let waiting = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    waiting.block_on(async {
        let data = config.store.to_string();
        let redis = config.redis.as_ref().map(ToString::to_string);
        let mail = mail_place(&config);
        // Before anybody is told where it serves: who knows may send a signal at once.
        let signals = Signals::watch()?;
        let app = App::build(config).await?;
        if let Err(error) = announce(&app, &data, redis.as_deref(), &mail) {
            // Nobody reads standard output: no reason to end a server that serves.
            tracing::warn!(%error, address = %app.address(), "what a first visitor needs could not be printed");
        }
        app.run_until_stopped(signals).await
    })
}

/// What becomes of mail, for people.
fn mail_place(config: &Config) -> String {
    match &config.mail.smtp {
        Some(smtp) => format!("sent by {}", smtp.server),
        None => "kept, not sent: GET /emails shows it to an administrator".to_owned(),
    }
}

fn announce(app: &App, data: &str, redis: Option<&str>, mail: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "Storekeeper serves at http://{}", app.address())?;
    writeln!(out, "  data     {data}")?;
    if let Some(redis) = redis {
        writeln!(out, "  carts    shown in Redis at {redis}")?;
    }
    writeln!(out, "  mail     {mail}")?;
    if let Some(FirstAdmin { email, password }) = app.first_admin() {
        match password {
            Some(password) => {
                writeln!(out, "  admin    {email}, password {} (shown this once)", password.expose_secret())?
            }
            None => writeln!(out, "  admin    {email}, with the password of ADMIN_PASSWORD")?,
        }
    }
    out.flush()
}
