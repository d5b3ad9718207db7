//! Durable holds a second, through the actors and the journal, and as the usual program would do it: one SQLite
//! transaction a hold.
//!
//! Both put one unit into a fresh cart: a session, a hold, a ledger row and a balance, synced to the disk before the
//! caller hears of it. `hot` is one product, `spread` 10,000 of them. Run by hand with `cargo bench`; what counts are
//! figures of one run, since a disk's sync takes as long as it likes.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a bench stops at a fault and prints")]

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix_rt::{Arbiter, System};
use criterion::{Criterion, SamplingMode, Throughput};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};
use storekeeper::actors::command::Command;
use storekeeper::actors::house::{House, HouseLimits, HouseParts};
use storekeeper::actors::shop::Shop;
use storekeeper::config::Config;
use storekeeper::domain::ids::ProductId;
use storekeeper::messaging::mail::Templates;
use storekeeper::persistence::clock::Clock;
use storekeeper::persistence::sqlite::{SqliteOptions, SqliteStore};
use storekeeper::persistence::{SharedStore, Upkeep};
use tokio::runtime::Runtime;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use uuid::Uuid;

const SPREADS: [(&str, u64); 2] = [("hot", 1), ("spread", PRODUCTS)];
const CALLERS: [u64; 3] = [1, 64, 512];
const PRODUCTS: u64 = 10_000;
const UNITS: i64 = 1_000_000_000_000;
/// What the journal is to reach on one hot product with 512 callers, in transactions of one hold each.
const TARGET: f64 = 20.0;

fn main() {
    let runtime =
        Arc::new(tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("the system gives a runtime"));
    let mut criterion = Criterion::default()
        .configure_from_args()
        .sample_size(10)
        .warm_up_time(Duration::from_secs(2))
        .measurement_time(Duration::from_secs(5));
    let one_by_one = measure::<OneByOne>(&mut criterion, "one transaction a hold", &runtime);
    let journal = measure::<Actors>(&mut criterion, "journal", &runtime);
    criterion.final_summary();
    println!("\nholds a second        one by one    journal    times");
    for ((name, slow), (_, fast)) in one_by_one.iter().zip(&journal) {
        println!("{name:<20} {slow:>11.0} {fast:>10.0} {:>8.1}", fast / slow);
    }
    println!("The target is {TARGET} times on one hot product with 512 callers.");
}

/// A way to put one unit of a product into a fresh cart, durably.
trait Till: Send + Sync + Sized + 'static {
    fn open(folder: &Path, runtime: &Arc<Runtime>) -> impl Future<Output = Self>;

    fn hold(&self, product: ProductId) -> impl Future<Output = ()> + Send;
}

/// Measures a till; gives the holds a second of the best sample of each case, in the order of the cases.
fn measure<T: Till>(criterion: &mut Criterion, name: &str, runtime: &Arc<Runtime>) -> Vec<(String, f64)> {
    let mut rates = Vec::new();
    for (spread, products) in SPREADS {
        let folder = tempfile::tempdir().expect("a folder");
        runtime.block_on(fill(folder.path()));
        let till = Arc::new(runtime.block_on(T::open(folder.path(), runtime)));
        let mut group = criterion.benchmark_group(format!("{name}/{spread}"));
        group.sampling_mode(SamplingMode::Flat);
        for callers in CALLERS {
            let best = RefCell::new(0.0_f64);
            group.throughput(Throughput::Elements(callers));
            group.bench_function(format!("{callers} callers"), |bencher| {
                bencher.iter_custom(|rounds| {
                    let holds = rounds * callers;
                    let took = runtime.block_on(run(Arc::clone(&till), callers, holds, products));
                    let rate = holds as f64 / took.as_secs_f64();
                    best.replace_with(|best| best.max(rate));
                    took
                });
            });
            rates.push((format!("{spread}, {callers} callers"), best.into_inner()));
        }
        group.finish();
    }
    rates
}

/// Has so many callers make so many holds, each caller one after the other.
async fn run<T: Till>(till: Arc<T>, callers: u64, holds: u64, products: u64) -> Duration {
    let begun = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    let begin = Instant::now();
    for _ in 0..callers {
        let (till, begun) = (Arc::clone(&till), Arc::clone(&begun));
        tasks.spawn(async move {
            loop {
                let number = begun.fetch_add(1, Ordering::Relaxed);
                if number >= holds {
                    return;
                }
                till.hold(product(scattered(number) % products)).await;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a caller does not die");
    }
    begin.elapsed()
}

/// Neighbours far apart, the same in every run (Knuth's multiplicative hashing).
fn scattered(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

fn product(number: u64) -> ProductId {
    ProductId(Uuid::from_u128(u128::from(number)))
}

// The actors ----------------------------------------------------------------------------------------------------

struct Actors {
    shop: Shop,
    _house: House,
    _arbiters: Vec<Arbiter>,
}

impl Till for Actors {
    async fn open(folder: &Path, runtime: &Arc<Runtime>) -> Self {
        let config = Config::embedded(folder).expect("the defaults are usable");
        let on_runtime = |runtime: &Arc<Runtime>| {
            let runtime = Arc::clone(runtime);
            move || runtime
        };
        let _system = System::try_current().is_none().then(|| System::with_tokio_rt(on_runtime(runtime)));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let arbiters: Vec<Arbiter> = (0..cores).map(|_| Arbiter::with_tokio_rt(on_runtime(runtime))).collect();
        let clock = Clock::system();
        let store = SqliteStore::open(SqliteOptions { folder: folder.to_owned(), readers: 8 }, clock.clone()).await;
        let store: SharedStore = Arc::new(store.expect("the database opens"));
        let house = House::open(HouseParts {
            store,
            clock,
            rules: config.shop,
            limits: limits(&config),
            templates: Templates::new().expect("the texts of the mails are readable"),
            mail_sender: config.mail.sender,
            arbiters: arbiters.iter().map(Arbiter::handle).collect(),
            runtime: runtime.handle().clone(),
        });
        Self { shop: house.shop().clone(), _house: house, _arbiters: arbiters }
    }

    async fn hold(&self, product: ProductId) {
        let command =
            Command { deadline: Instant::now() + Duration::from_secs(30), actor: Arc::from("guest"), remember: None };
        let cart = self.shop.add_to_cart(None, product, None, 1, false, command).await;
        assert_eq!(cart.expect("the unit is held").lines.len(), 1);
    }
}

/// The defaults, but that carts which have their unit are put away soon: the bench makes millions of them.
fn limits(config: &Config) -> HouseLimits {
    let places = |limit: usize| u32::try_from(limit).expect("a limit is a small number");
    HouseLimits {
        inventory_mailbox: places(config.actors.inventory_mailbox),
        cart_mailbox: places(config.actors.cart_mailbox),
        orders_mailbox: places(config.actors.orders_mailbox),
        journal_mailbox: places(config.actors.journal_mailbox),
        journal_batch_max: config.actors.journal_batch_max,
        idle_ttl: Duration::from_secs(1),
        order_pending_ttl: None,
    }
}

// One transaction a hold ----------------------------------------------------------------------------------------

/// SQLite takes one writer at a time, so the fastest way is one connection and a queue to it.
struct OneByOne {
    connection: Mutex<SqliteConnection>,
}

impl OneByOne {
    async fn transaction(&self, product: ProductId) -> Result<u64, sqlx::Error> {
        let (cart, movement, at) = (Uuid::now_v7(), Uuid::now_v7(), now());
        let mut secret = [0_u8; 16];
        getrandom::fill(&mut secret).expect("the system gives random bytes");
        let connection = &mut *self.connection.lock().await;
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
        let held = sqlx::query(
            "UPDATE inventories SET held = held + 1, seq = seq + 1, updated_at = ?2
             WHERE id = ?1 AND on_hand - held >= 1",
        );
        let held = held.bind(product.0).bind(at).execute(&mut *connection).await?.rows_affected();
        sqlx::query(
            "INSERT INTO movements (id, previous, inventory_id, seq, reason, action, units, on_hand_change, held_change,
                 on_hand, held, cart_key, actor, at)
             SELECT ?2, last_movement, id, seq, 'hold', 'OUT', 1, 0, 1, on_hand, held, ?3, 'guest', ?4
             FROM inventories WHERE id = ?1",
        )
        .bind(product.0)
        .bind(movement)
        .bind(cart)
        .bind(at)
        .execute(&mut *connection)
        .await?;
        let newest = sqlx::query("UPDATE inventories SET last_movement = ?2 WHERE id = ?1");
        newest.bind(product.0).bind(movement).execute(&mut *connection).await?;
        let session = sqlx::query(
            "INSERT INTO cart_sessions (key, secret, state, version, created_at, expires_at)
             VALUES (?1, ?2, 'open', 1, ?3, ?3 + 900000000)",
        );
        session.bind(cart).bind(&secret[..]).bind(at).execute(&mut *connection).await?;
        let hold = sqlx::query(
            "INSERT INTO holds (cart_key, number, product_id, inventory_id, quantity, state)
             VALUES (?1, 1, ?2, ?2, 1, 'open')",
        );
        hold.bind(cart).bind(product.0).execute(&mut *connection).await?;
        sqlx::query("COMMIT").execute(&mut *connection).await?;
        Ok(held)
    }
}

impl Till for OneByOne {
    async fn open(folder: &Path, _: &Arc<Runtime>) -> Self {
        Self { connection: Mutex::new(connection(folder).await) }
    }

    async fn hold(&self, product: ProductId) {
        assert_eq!(self.transaction(product).await.expect("the unit is held"), 1);
    }
}

/// A connection with the settings that the store's own has.
async fn connection(folder: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(folder.join("storekeeper.sqlite"))
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("wal_autocheckpoint", "8192")
        .pragma("cache_size", "-32768")
        .disable_statement_logging();
    options.connect().await.expect("the database opens")
}

fn now() -> i64 {
    Clock::system().now().0
}

// The shop ------------------------------------------------------------------------------------------------------

/// Makes the database, with all products in stock. Product, inventory and first ledger row have one number.
async fn fill(folder: &Path) {
    let options = SqliteOptions { folder: folder.to_owned(), readers: 1 };
    SqliteStore::open(options, Clock::system()).await.expect("the database opens").close().await;
    let mut connection = connection(folder).await;
    let mut transaction = connection.begin().await.expect("a transaction");
    for statement in [
        "CREATE TEMP TABLE numbers AS WITH RECURSIVE count (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM count LIMIT ?1)
         SELECT n, unhex(printf('%032x', n)) AS id FROM count WHERE ?2 > 0",
        "INSERT INTO products SELECT id, 'SKU-' || n, 'sku-' || n, 'Tea ' || n, 'tea ' || n, NULL, 1999, 'PUBLISHED',
         id, 1, 0, 0 FROM numbers WHERE ?1 > 0 AND ?2 > 0",
        "INSERT INTO inventories SELECT id, id, 'SKU-' || n, ?2, 0, 1, id, 0 FROM numbers WHERE ?1 > 0",
        "INSERT INTO movements SELECT id, NULL, id, 1, 'initial', 'IN', ?2, ?2, 0, ?2, 0, NULL, NULL, NULL, 'bench', 0
         FROM numbers WHERE ?1 > 0",
    ] {
        let products = i64::try_from(PRODUCTS).expect("a small number");
        sqlx::query(statement).bind(products).bind(UNITS).execute(&mut *transaction).await.expect("rows are written");
    }
    transaction.commit().await.expect("the shop is there");
    connection.close().await.expect("closed");
}
