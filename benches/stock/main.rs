//! Durable holds a second, through the actors and the journal, and as the usual program would do it: one transaction a
//! hold. Both over SQLite and over PostgreSQL, which is started for the bench.
//!
//! Both put one unit into a fresh cart: a session, a hold, a ledger row and a balance, synced to the disk before the
//! caller hears of it. `hot` is one product, `spread` 10,000 of them. Run by hand with `cargo bench`; what counts are
//! figures of one run, since a disk's sync takes as long as it likes.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a bench stops at a fault and prints")]

#[path = "../support/filled.rs"]
mod filled;
mod postgres;
#[expect(dead_code, reason = "tests share a server; the bench has its own, and more durable, one")]
#[path = "../../tests/support/postgres.rs"]
mod server;
mod sqlite;
#[path = "../../tests/support/unprivileged.rs"]
mod unprivileged;

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix_rt::{Arbiter, System};
use criterion::{Criterion, SamplingMode, Throughput};
use storekeeper::actors::command::Command;
use storekeeper::actors::house::{House, HouseLimits, HouseParts};
use storekeeper::actors::shop::Shop;
use storekeeper::config::Config;
use storekeeper::domain::ids::ProductId;
use storekeeper::messaging::mail::Templates;
use storekeeper::observability::metrics::Metrics;
use storekeeper::persistence::clock::Clock;
use storekeeper::persistence::open::{StoreOptions, open};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use uuid::Uuid;

const SPREADS: [(&str, u64); 2] = [("hot", 1), ("spread", PRODUCTS)];
const CALLERS: [u64; 3] = [1, 64, 512];
const SAMPLES: usize = 10;
const PRODUCTS: u64 = 10_000;
const UNITS: i64 = 1_000_000_000_000;
/// What the journal is to reach on one hot product with 512 callers, in transactions of one hold each.
const TARGET: f64 = 20.0;

fn main() {
    let runtime =
        Arc::new(tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("the system gives a runtime"));
    // Arbiters belong to a system; this one has nothing else to do.
    let _system = System::with_tokio_rt(the(&runtime));
    let mut criterion = Criterion::default()
        .configure_from_args()
        .sample_size(SAMPLES)
        .warm_up_time(Duration::from_secs(2))
        .measurement_time(Duration::from_secs(5));
    let mut rows = compare::<sqlite::Shelf, sqlite::OneByOne>(&mut criterion, "sqlite", &runtime);
    rows.extend(compare::<postgres::Shelf, postgres::OneByOne>(&mut criterion, "postgres", &runtime));
    criterion.final_summary();
    println!("\nholds a second               one by one    journal    times");
    for (name, slow, fast) in rows {
        println!("{name:<28} {slow:>10.0} {fast:>10.0} {:>8.1}", fast / slow);
    }
    println!("The target is {TARGET} times on one hot product with 512 callers.");
}

fn the(runtime: &Arc<Runtime>) -> impl FnOnce() -> Arc<Runtime> + Send + 'static {
    let runtime = Arc::clone(runtime);
    move || runtime
}

/// A database with all products in stock, which goes with it.
trait Shelves: Sized {
    fn filled() -> impl Future<Output = Self>;

    fn options(&self) -> StoreOptions;
}

/// A way to put one unit of a product into a fresh cart, durably.
trait Till<S>: Send + Sync + Sized + 'static {
    fn open(shelves: &S, runtime: &Arc<Runtime>) -> impl Future<Output = Self>;

    fn hold(&self, product: ProductId) -> impl Future<Output = ()> + Send;
}

/// Measures the journal on a kind of database, and the usual way on the same kind; gives each case's holds a second,
/// one by one and by the journal.
fn compare<S: Shelves, T: Till<S>>(
    criterion: &mut Criterion,
    kind: &str,
    runtime: &Arc<Runtime>,
) -> Vec<(String, f64, f64)> {
    let slow = measure::<S, T>(criterion, &format!("{kind}/one transaction a hold"), runtime);
    let fast = measure::<S, Actors>(criterion, &format!("{kind}/journal"), runtime);
    let both = slow.into_iter().zip(fast);
    both.filter_map(|((name, slow), (_, fast))| Some((format!("{kind}, {name}"), slow?, fast?))).collect()
}

/// Measures a till; gives each case's holds a second, the median of its samples.
fn measure<S: Shelves, T: Till<S>>(
    criterion: &mut Criterion,
    name: &str,
    runtime: &Arc<Runtime>,
) -> Vec<(String, Option<f64>)> {
    let mut rates = Vec::new();
    for (spread, products) in SPREADS {
        // Not before a case is run: filling ten thousand shelves for none takes seconds.
        let mut opened: Option<(Arc<T>, S)> = None;
        let mut group = criterion.benchmark_group(format!("{name}/{spread}"));
        group.sampling_mode(SamplingMode::Flat);
        for callers in CALLERS {
            let samples = RefCell::new(Vec::new());
            group.throughput(Throughput::Elements(callers));
            group.bench_function(format!("{callers} callers"), |bencher| {
                let (till, _shelves) = opened.get_or_insert_with(|| runtime.block_on(open_shop(runtime)));
                bencher.iter_custom(|rounds| {
                    let holds = rounds * callers;
                    let took = runtime.block_on(run::<S, T>(Arc::clone(till), callers, holds, products));
                    samples.borrow_mut().push(holds as f64 / took.as_secs_f64());
                    took
                });
            });
            rates.push((format!("{spread}, {callers} callers"), median(samples.into_inner())));
        }
        group.finish();
    }
    rates
}

async fn open_shop<S: Shelves, T: Till<S>>(runtime: &Arc<Runtime>) -> (Arc<T>, S) {
    let shelves = S::filled().await;
    let till = T::open(&shelves, runtime).await;
    (Arc::new(till), shelves)
}

/// The middle one of the last samples, those before which warmed up; `None` when the case was not to be run.
fn median(samples: Vec<f64>) -> Option<f64> {
    let mut last: Vec<f64> = samples.into_iter().rev().take(SAMPLES).collect();
    last.sort_by(f64::total_cmp);
    last.get(last.len() / 2).copied()
}

/// Has so many callers make so many holds, each caller one after the other.
async fn run<S, T: Till<S>>(till: Arc<T>, callers: u64, holds: u64, products: u64) -> Duration {
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

impl<S: Shelves> Till<S> for Actors {
    async fn open(shelves: &S, runtime: &Arc<Runtime>) -> Self {
        let config = Config::embedded(Path::new("unused")).expect("the defaults are usable");
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let arbiters: Vec<Arbiter> = (0..cores).map(|_| Arbiter::with_tokio_rt(the(runtime))).collect();
        let clock = Clock::system();
        let store = open(shelves.options(), clock.clone()).await.expect("the database opens");
        let house = House::open(HouseParts {
            redis: None,
            broker: None,
            store,
            clock,
            rules: config.shop,
            limits: limits(&config),
            templates: Templates::new().expect("the texts of the mails are readable"),
            mail_sender: config.mail.sender,
            mail_server: None,
            arbiters: arbiters.iter().map(Arbiter::handle).collect(),
            runtime: runtime.handle().clone(),
            metrics: Metrics::new().expect("numbers"),
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
        supervision: config.actors.supervision,
        retention: config.retention,
    }
}
