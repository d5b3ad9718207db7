//! The whole server in this process, on everything that a kind of shop stands on, and beside it the usual server on a
//! database of its own with the same in it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::SecretString;
use storekeeper::app::App;
use storekeeper::config::{Config, StoreConfig};
use storekeeper::messaging::amqp::AmqpOptions;
use storekeeper::persistence::clock::Clock;
use storekeeper::persistence::open::{StoreOptions, open};
use storekeeper::persistence::redis::RedisOptions;
use tokio::runtime::Runtime;

use crate::support::rows::RowsAlone;
use crate::support::{Shelves, Till, buyers, filled, postgres, product, redis, server, sqlite};
use crate::usual::{Usual, way};

/// RabbitMQ, when it is there: `scripts/services` starts one and sets it.
const GIVEN_BROKER: &str = "TEST_AMQP_URL";
const TOKEN_SECRET: &str = "a key of the benches and of nothing else";
/// How long events may take to come out.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether all events are out.
const LOOK_PERIOD: Duration = Duration::from_millis(20);
/// Commits that are timed.
const COMMITS: usize = 200;

/// What a shop stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// SQLite, and nothing beside the program.
    Embedded,
    /// PostgreSQL, Redis, and RabbitMQ when there is one.
    Real,
}

/// Both servers, and what belongs to them.
pub(crate) struct Scene {
    pub(crate) app: App,
    pub(crate) usual: Usual,
    /// Access tokens of people who have signed in.
    pub(crate) buyers: Vec<String>,
    /// What one change alone takes until it is on the disk: the median, microseconds.
    pub(crate) commit_us: u32,
    options: StoreOptions,
    /// What this stands on goes after it.
    _services: Box<dyn std::any::Any>,
}

impl Scene {
    pub(crate) async fn open(kind: Kind, buyers: usize, runtime: &Arc<Runtime>) -> Self {
        match kind {
            Kind::Embedded => {
                let (shelf, twin) = (sqlite::Shelf::filled().await, sqlite::Shelf::filled().await);
                let third = sqlite::Shelf::filled().await;
                let rows = RowsAlone::new(sqlite::Writer::open(&third).await, None, runtime);
                let ways =
                    (sqlite::OneByOne::open(&twin, runtime).await, sqlite::OneUpdate::open(&twin, runtime).await, rows);
                let (config, options) = (config(&shelf), shelf.options());
                Self::start(config, options, ways, buyers, runtime, Box::new((shelf, twin, third))).await
            }
            Kind::Real => {
                let shelf = postgres::Shelf::filled().await;
                let (twin, third, redis) = (shelf.twin().await, shelf.twin().await, redis::Server::new());
                let mirror = redis::Server::new();
                let client = ::redis::Client::open(mirror.url()).expect("an address");
                // A pool lives on the runtime on which it was opened.
                let opened = runtime.spawn({
                    let runtime = Arc::clone(runtime);
                    async move {
                        let shown = client.get_multiplexed_async_connection().await.expect("Redis answers");
                        let ways = (
                            postgres::OneByOne::open(&twin, &runtime).await,
                            postgres::OneUpdate::open(&twin, &runtime).await,
                            RowsAlone::new(postgres::Writer::open(&third).await, Some(shown), &runtime),
                        );
                        (ways, (twin, third))
                    }
                });
                let (ways, twins) = opened.await.expect("the pools open");
                let (mut config, options) = (config(&shelf), shelf.options());
                config.redis = Some(RedisOptions::of(&redis.url()).expect("an address"));
                config.broker = std::env::var(GIVEN_BROKER).ok().map(|url| AmqpOptions::of(&url).expect(GIVEN_BROKER));
                Self::start(config, options, ways, buyers, runtime, Box::new((shelf, twins, redis, mirror))).await
            }
        }
    }

    async fn start<S: 'static, T: Till<S>, U: Till<S>>(
        config: Config,
        options: StoreOptions,
        (transaction, update, rows): (T, U, RowsAlone),
        buyers: usize,
        runtime: &Arc<Runtime>,
        services: Box<dyn std::any::Any>,
    ) -> Self {
        let update = Arc::new(update);
        let commit_us = runtime.spawn(commit(Arc::clone(&update))).await.expect("it commits");
        let usual =
            Usual::start(config.http.workers, runtime, way(&Arc::new(transaction)), way(&update), Arc::new(rows));
        let store = open(options.clone(), Clock::system()).await.expect("the database opens");
        let buyers = buyers::register(store.as_ref(), TOKEN_SECRET, buyers).await;
        store.close().await;
        let app = Box::pin(App::build(config)).await.expect("the server starts");
        Self { app, usual, buyers, commit_us, options, _services: services }
    }

    /// Waits until all events are out and all mails kept: what an earlier case left to do is not the next one's to pay for. Where they do
    /// not come out, says so.
    pub(crate) async fn settle(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.waiting().await {
                ..=0 => return,
                waiting if Instant::now() > end => return println!("{waiting} are not done after {PATIENCE:?}"),
                _ => tokio::time::sleep(LOOK_PERIOD).await,
            }
        }
    }

    /// Events that are not out, and orders whose mails are not kept.
    async fn waiting(&self) -> i64 {
        let count = "SELECT (SELECT count(*) FROM outbox WHERE published_at IS NULL) + (SELECT count(*) FROM orders)
            - (SELECT count(*) FROM consumed_messages WHERE queue = 'send-email')";
        match &self.options {
            StoreOptions::Sqlite(options) => {
                let mut connection = filled::connection(&options.folder).await;
                sqlx::query_scalar(count).fetch_one(&mut connection).await.expect("a number")
            }
            StoreOptions::Postgres(options) => {
                let mut connection = server::connect(&options.url).await.expect("the database opens");
                sqlx::query_scalar(count).fetch_one(&mut connection).await.expect("a number")
            }
        }
    }
}

/// What a shop has that sets nothing, but for carts that live as long as the bench.
fn config(shelves: &impl Shelves) -> Config {
    let mut config = Config::embedded(Path::new("unused")).expect("the defaults are usable");
    config.store = match shelves.options() {
        StoreOptions::Sqlite(options) => StoreConfig::Sqlite { folder: options.folder },
        StoreOptions::Postgres(options) => StoreConfig::Postgres(options),
    };
    config.tokens.secret = Some(SecretString::from(TOKEN_SECRET));
    config.shop.lifetime.max_age = Duration::from_secs(86_400);
    config.shop.lifetime.ttl = config.shop.lifetime.max_age;
    config
}

/// What one update after the other takes, each synced to the disk: the median, microseconds.
async fn commit<S, T: Till<S>>(till: Arc<T>) -> u32 {
    let mut took = Vec::with_capacity(COMMITS);
    for _ in 0..COMMITS {
        let begin = Instant::now();
        till.hold(product(0)).await;
        took.push(u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    took.sort_unstable();
    took[COMMITS / 2]
}
