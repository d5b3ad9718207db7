//! A whole shop for a test: the real app in this process, on a free port and with a database of its own, a client that
//! speaks its API, and the proof at the end that its books are in order.
//!
//! What the shop stands on is decided in [`services`] alone.

mod api;
mod books;
mod bus;
mod database;
pub(crate) mod postgres;
mod rabbitmq;
#[expect(dead_code, reason = "tests that start a program need the rest")]
mod services;
#[allow(dead_code, reason = "only the tests of mail have it do all that it can")]
pub(crate) mod smtp;
mod unprivileged;

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use storekeeper::app::App;
use storekeeper::config::Config;
use storekeeper::domain::ids::{ProfileId, UserId};
use storekeeper::domain::user::{AccountStatus, EmailAddress, Role};
use storekeeper::persistence::clock::Clock;
use storekeeper::persistence::records::{Account, Profile};
use tokio::sync::Barrier;
use tokio::time::Instant;
use uuid::Uuid;

pub(crate) use api::{Answer, Api, Ask, Item, cents};
pub(crate) use books::{Level, count};
pub(crate) use database::Database;
use services::Services;

/// Signs the access tokens of the tests' shops, so that a test can make tokens without signing in.
const TOKEN_SECRET: &str = "a key of the tests and of nothing else at all";
/// How long a request may take. Tests share a slow machine, and none of them is about deadlines.
const REQUEST_DEADLINE: Duration = Duration::from_secs(60);
/// How long [`until`] waits between two looks.
const LOOK_PERIOD: Duration = Duration::from_millis(5);

/// A shop that serves.
pub(crate) struct TestShop {
    /// Asks it.
    pub(crate) api: Api,
    /// The server.
    pub(crate) app: App,
    config: Config,
    clock: Clock,
    services: Services,
}

/// Somebody who has signed in.
#[derive(Clone)]
pub(crate) struct Buyer {
    /// The user.
    pub(crate) id: UserId,
    /// Where they get mail.
    pub(crate) email: String,
    /// Their access token.
    pub(crate) token: String,
}

impl TestShop {
    /// Opens an empty shop, with the defaults but for what `set` changes.
    pub(crate) async fn open(set: impl FnOnce(&mut Config)) -> Self {
        Self::open_at(Clock::system(), set).await
    }

    /// Opens an empty shop whose time is `clock`.
    pub(crate) async fn open_at(clock: Clock, set: impl FnOnce(&mut Config)) -> Self {
        Self::open_on(Database::new(), clock, set).await
    }

    /// Opens an empty shop on an empty database.
    pub(crate) async fn open_on(database: Database, clock: Clock, set: impl FnOnce(&mut Config)) -> Self {
        let services = Services::beside(database).await;
        let mut config = services.config();
        config.tokens.secret = Some(SecretString::from(TOKEN_SECRET));
        config.http.request_deadline = REQUEST_DEADLINE;
        config.shutdown.limit = REQUEST_DEADLINE;
        set(&mut config);
        Self::serve(config, clock, services).await
    }

    async fn serve(config: Config, clock: Clock, services: Services) -> Self {
        let app = Box::pin(App::build_at(config.clone(), clock.clone())).await.expect("the app starts");
        let admin = app.store().account_by_email(&config.admin.email).await.expect("the store answers");
        let admin = api::token(TOKEN_SECRET, &admin.expect("there is an administrator"));
        until("the bus is there", REQUEST_DEADLINE, async || app.bus().is_ready().then_some(())).await;
        Self { api: Api::new(app.address(), admin), app, config, clock, services }
    }

    /// Stops it, and sees to it that it stopped in order and left its books in order.
    pub(crate) async fn stop(self) {
        Box::pin(self.end()).await;
    }

    /// Stops it as [`stop`](Self::stop) does, and opens it again on what it left.
    pub(crate) async fn restart(self) -> Self {
        let (config, clock) = (self.config.clone(), self.clock.clone());
        let services = Box::pin(self.end()).await;
        Self::serve(config, clock, services).await
    }

    async fn end(self) -> Services {
        let Self { api, app, services, .. } = self;
        // A stopping server waits for its clients' idle connections.
        drop(api);
        app.stop().await.expect("the app stops in order");
        services.database.assert_in_order().await;
        services
    }

    /// What was put away from a queue: message and reason, as often as it was put away.
    pub(crate) async fn dead_letters(&self, queue: &str) -> Vec<(String, String)> {
        self.services.bus.dead_letters(self.app.store(), queue).await
    }

    /// The shop's clock, to be moved when it is a manual one.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// New users with tokens of their own, straight into the database: hashing so many passwords would take minutes.
    pub(crate) async fn buyers(&self, count: usize) -> Vec<Buyer> {
        let mut buyers = Vec::with_capacity(count);
        for _ in 0..count {
            buyers.push(self.buyer().await);
        }
        buyers
    }

    /// A new user.
    pub(crate) async fn buyer(&self) -> Buyer {
        let id = UserId(Uuid::now_v7());
        let email = EmailAddress::parse(&format!("{id}@example.org")).expect("an address");
        let now = self.clock.now();
        let account = Account {
            id,
            email: email.clone(),
            name: format!("Buyer {id}"),
            role: Role::User,
            status: AccountStatus::Active,
            verified: true,
            password_hash: "nobody signs in with it".to_owned(),
            created_at: now,
        };
        let profile = Profile {
            id: ProfileId(Uuid::now_v7()),
            user: id,
            email: email.to_string(),
            name: account.name.clone(),
            address: None,
            phone: None,
            created_at: now,
            updated_at: now,
        };
        self.app.store().register(&account, &profile, None).await.expect("a new user");
        Buyer { id, email: email.to_string(), token: api::token(TOKEN_SECRET, &account) }
    }
}

/// Runs all at the same moment: none begins before all are there. Gives what they came to, in their order.
pub(crate) async fn together<T, F>(tasks: impl IntoIterator<Item = F>) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let tasks: Vec<F> = tasks.into_iter().collect();
    let barrier = Arc::new(Barrier::new(tasks.len()));
    let release = |task: F| {
        let barrier = Arc::clone(&barrier);
        tokio::spawn(async move {
            barrier.wait().await;
            task.await
        })
    };
    let running: Vec<_> = tasks.into_iter().map(release).collect();
    let mut outcomes = Vec::with_capacity(running.len());
    for task in running {
        outcomes.push(task.await.expect("no panic"));
    }
    outcomes
}

/// Looks again and again until there is something to see; fails when there is nothing for `limit`.
pub(crate) async fn until<T>(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(Instant::now() < end, "{what}: not within {limit:?}");
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}
