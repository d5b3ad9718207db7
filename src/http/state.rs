//! What every handler has at hand, and how work gets from an HTTP worker to the program's one runtime.
//!
//! Each HTTP worker has a runtime of its own, on which no connection of a pool may be opened. So whatever asks the
//! store is spawned on the program's runtime and waited for; it is done to its end even when the client has gone.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::web;
use secrecy::{ExposeSecret, SecretString};
use tokio::runtime::Handle;
use tokio::task::JoinError;
use tracing::Instrument;

use crate::actors::command::{AppliedOutcome, CommandError};
use crate::actors::shop::Shop;
use crate::domain::money::Currency;
use crate::messaging::mail::Templates;
use crate::observability::metrics::Metrics;
use crate::persistence::clock::Clock;
use crate::persistence::records::EmailStatus;
use crate::persistence::{SharedStore, StoreError};

use super::caller::Standings;
use super::connections::Connections;
use super::health::DependencyState;
use super::idempotency::InFlight;
use super::passwords::Passwords;
use super::problem::{Code, Problem};
use super::refusals;
use super::secrets::{KeyError, KeyedHash, random_bytes};
use super::tokens::Tokens;

/// The state as handlers take it.
pub(crate) type State = web::Data<AppState>;

/// What a shop can set of its HTTP side.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a client waits for an answer at most.
    pub deadline: Duration,
    /// How long an access token lives.
    pub access_token_life: Duration,
    /// How long a refresh token lives.
    pub refresh_token_life: Duration,
    /// The key of access tokens; `None` takes the one that the store keeps.
    pub token_secret: Option<SecretString>,
    /// From whom mail is.
    pub mail_sender: String,
    /// No mail server is configured: mail is kept, not sent.
    pub mail_captured: bool,
    /// What this server is called among others.
    pub node: String,
    /// Password hashes worked at at a time: the number of cores.
    pub password_hashes_at_once: usize,
    /// How long the answer to a request that named itself is given back.
    pub idempotency_key_life: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(5),
            access_token_life: Duration::from_secs(2 * 3600),
            refresh_token_life: Duration::from_secs(30 * 24 * 3600),
            token_secret: None,
            mail_sender: "shop@localhost".to_owned(),
            mail_captured: true,
            node: "here".to_owned(),
            password_hashes_at_once: std::thread::available_parallelism().map_or(1, usize::from),
            idempotency_key_life: Duration::from_secs(24 * 3600),
        }
    }
}

/// How the program's other dependencies do, by name; the database is asked by the HTTP side itself.
pub type Dependencies = Arc<dyn Fn() -> Vec<(&'static str, DependencyState)> + Send + Sync>;

/// What the HTTP side works with.
pub struct Foundation {
    /// The actors.
    pub shop: Shop,
    /// The database.
    pub store: SharedStore,
    /// The clock that decides.
    pub clock: Clock,
    /// The runtime of the store's pools and of the actors.
    pub runtime: Handle,
    /// What the shop has set.
    pub settings: Settings,
    /// How the others do.
    pub dependencies: Dependencies,
    /// The clients' connections, which know when the server stops.
    pub connections: Connections,
    /// The server's numbers.
    pub metrics: Metrics,
}

/// Why the HTTP side does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The keys of the server are not at hand.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The password hash does not work here.
    #[error("passwords can not be hashed: {0}")]
    Passwords(argon2::password_hash::Error),
    /// A mail template can not be read.
    #[error("the mail templates can not be read: {0}")]
    Templates(String),
}

/// What every handler has at hand. One for all workers.
pub struct AppState {
    pub(crate) shop: Shop,
    pub(crate) store: SharedStore,
    pub(crate) clock: Clock,
    pub(crate) runtime: Handle,
    pub(crate) settings: Settings,
    pub(crate) dependencies: Dependencies,
    pub(crate) connections: Connections,
    pub(crate) metrics: Metrics,
    pub(crate) tokens: Tokens,
    pub(crate) passwords: Passwords,
    pub(crate) templates: Templates,
    pub(crate) standings: Standings,
    pub(crate) in_flight: Arc<InFlight>,
    /// For mailed codes.
    pub(crate) codes: KeyedHash,
    /// For refresh tokens.
    pub(crate) refresh_tokens: KeyedHash,
    /// For what a request with an idempotency key was.
    pub(crate) fingerprints: KeyedHash,
    /// Who a change is by when nobody has signed in.
    pub(crate) guest: Arc<str>,
}

impl AppState {
    /// Makes the state; to be called on the runtime of [`Foundation::runtime`]. The server's keys are read from the
    /// store, or made.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn build(foundation: Foundation) -> Result<Self, StartError> {
        let Foundation { shop, store, clock, runtime, settings, dependencies, connections, metrics } = foundation;
        let tokens = match &settings.token_secret {
            Some(secret) => Tokens::new(secret.expose_secret().as_bytes(), settings.access_token_life),
            None => {
                let candidate = random_bytes().map_err(KeyError::Random)?;
                let secret = store.secret("tokens", candidate).await.map_err(KeyError::Store)?;
                Tokens::new(&secret, settings.access_token_life)
            }
        };
        Ok(Self {
            passwords: Passwords::new(runtime.clone(), settings.password_hashes_at_once)
                .map_err(StartError::Passwords)?,
            templates: Templates::new().map_err(|error| StartError::Templates(error.to_string()))?,
            codes: KeyedHash::load(&store, "codes").await?,
            refresh_tokens: KeyedHash::load(&store, "refresh_tokens").await?,
            fingerprints: KeyedHash::load(&store, "fingerprints").await?,
            standings: Standings::default(),
            in_flight: Arc::default(),
            guest: Arc::from("guest"),
            tokens,
            shop,
            store,
            clock,
            runtime,
            settings,
            dependencies,
            connections,
            metrics,
        })
    }

    /// The currency of all prices.
    pub(crate) fn currency(&self) -> Currency {
        self.shop.rules().currency
    }

    /// Until when the client of a request that came just now waits.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.settings.deadline
    }

    /// Where a new mail stands from the start.
    pub(crate) fn new_mail_status(&self) -> EmailStatus {
        if self.settings.mail_captured { EmailStatus::Captured } else { EmailStatus::Queued }
    }

    /// Does something on the program's runtime, to its end.
    ///
    /// # Errors
    /// 500 when it panicked, 503 when the runtime is stopping.
    pub(crate) async fn run<T, F>(&self, work: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        ended(self.runtime.spawn(work.in_current_span()).await)
    }

    /// Does something that keeps its thread busy for a while, on a thread of the program's runtime for such work.
    ///
    /// # Errors
    /// 500 when it panicked, 503 when the runtime is stopping.
    pub(crate) async fn run_blocking<T, F>(&self, work: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        ended(self.runtime.spawn_blocking(work).await)
    }

    /// Asks the store for something that changes nothing.
    ///
    /// # Errors
    /// What the store says, or 503 at the deadline.
    pub(crate) async fn read<T, Q, F>(&self, question: Q) -> Result<T, Problem>
    where
        T: Send + 'static,
        Q: FnOnce(SharedStore) -> F,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.ask(question).await.map_err(|problem| problem.applied(AppliedOutcome::No))
    }

    /// Asks the store for a change. It is made to its end even when the deadline passes or the client leaves.
    ///
    /// # Errors
    /// What the store says, or 503 at the deadline.
    pub(crate) async fn write<T, Q, F>(&self, change: Q) -> Result<T, Problem>
    where
        T: Send + 'static,
        Q: FnOnce(SharedStore) -> F,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.ask(change).await
    }

    async fn ask<T, Q, F>(&self, question: Q) -> Result<T, Problem>
    where
        T: Send + 'static,
        Q: FnOnce(SharedStore) -> F,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let asked = self.run(question(Arc::clone(&self.store)));
        match tokio::time::timeout(self.settings.deadline, asked).await {
            Ok(answer) => answer?.map_err(|error| refusals::of_store(&error)),
            Err(_) => Err(Problem::new(Code::Timeout, "there was no answer in time")),
        }
    }

    /// Waits for something that only reads from an actor, until the deadline.
    ///
    /// # Errors
    /// What the actor says, or 503 at the deadline.
    pub(crate) async fn ask_shop<T>(
        &self,
        question: impl Future<Output = Result<T, CommandError>>,
    ) -> Result<T, Problem> {
        let late = CommandError::Deadline { applied: AppliedOutcome::No };
        let answer = tokio::time::timeout(self.settings.deadline, question).await.unwrap_or(Err(late));
        answer.map_err(|error| self.refused(error).applied(AppliedOutcome::No))
    }

    /// The problem that a command's error is.
    pub(crate) fn refused(&self, error: CommandError) -> Problem {
        refusals::of_command(error, self.currency())
    }
}

/// What a task came to; a problem when it did not end in order.
fn ended<T>(joined: Result<T, JoinError>) -> Result<T, Problem> {
    joined.map_err(|error| {
        if error.is_panic() {
            tracing::error!(%error, "the work of a request panicked");
            Problem::internal(AppliedOutcome::Unknown)
        } else {
            Problem::new(Code::Stopping, "the server is stopping").applied(AppliedOutcome::Unknown)
        }
    })
}
