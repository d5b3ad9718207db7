//! What a test's shop stands on: the one place that says whether that is SQLite and nothing else, or every service that
//! a shop has in production (`TEST_BACKEND` is `real`).

use storekeeper::config::Config;
use storekeeper::persistence::redis::RedisOptions;

use super::bus::Bus;
use super::database::{Backend, Database};
use super::smtp::Sink;

/// The Redis that carts are shown in. Their keys have random names, and end with the carts' time.
const GIVEN_REDIS: &str = "TEST_REDIS_URL";

/// The services of one shop, which go with it.
pub(crate) struct Services {
    /// The database.
    pub(crate) database: Database,
    /// What carries events.
    pub(crate) bus: Bus,
    redis: Option<String>,
    mail_server: Option<Sink>,
}

impl Services {
    /// Services with nothing in them.
    pub(crate) async fn new() -> Self {
        Self::beside(Database::new()).await
    }

    /// The services beside a database.
    pub(crate) async fn beside(database: Database) -> Self {
        let bus = Bus::new().await;
        let (redis, mail_server) = match Backend::of_the_tests() {
            Backend::Sqlite | Backend::Postgres => (None, None),
            Backend::Real => {
                let redis = std::env::var(GIVEN_REDIS).unwrap_or_else(|_| {
                    panic!("{GIVEN_REDIS} is not set: `scripts/services cargo test` starts a Redis and sets it")
                });
                (Some(redis), Some(Sink::start().await))
            }
        };
        Self { database, bus, redis, mail_server }
    }

    /// A database, and no service beside it.
    pub(crate) fn alone(database: Database) -> Self {
        Self { database, bus: Bus::Local, redis: None, mail_server: None }
    }

    /// The configuration of a shop on them.
    pub(crate) fn config(&self) -> Config {
        let mut config = self.database.config();
        config.redis = self.redis.as_deref().map(|url| RedisOptions::of(url).expect(GIVEN_REDIS));
        config.broker = self.bus.options();
        config.mail.smtp = self.mail_server.as_ref().map(Sink::options);
        config
    }

    /// The variables that tell a program where they are, but for the database.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let redis = self.redis.clone().map(|url| ("REDIS_URL", url));
        let broker = self.bus.url().map(|url| ("AMQP_URL", url));
        let mail = self.mail_server.as_ref().map(|sink| ("SMTP_URL", sink.url()));
        [redis, broker, mail].into_iter().flatten().collect()
    }
}
