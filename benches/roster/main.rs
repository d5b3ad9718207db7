//! A page of the list of all mailboxes, out of 100,000 living actors: what `GET /admin/actors` costs but for HTTP.
//!
//! `cargo bench --bench roster`. Prints what the actors and 200 pages of them cost in memory, too.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a bench stops at a fault and prints")]

#[expect(dead_code, reason = "this bench has SQLite alone")]
#[path = "../support/filled.rs"]
mod filled;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_rt::{Arbiter, System};
use criterion::Criterion;
use storekeeper::actors::house::{House, HouseLimits, HouseParts};
use storekeeper::actors::roster::ActorSort;
use storekeeper::actors::supervision::ActorKind;
use storekeeper::config::Config;
use storekeeper::domain::ids::InventoryId;
use storekeeper::messaging::mail::Templates;
use storekeeper::observability::metrics::Metrics;
use storekeeper::persistence::clock::Clock;
use storekeeper::persistence::open::{StoreOptions, open};
use storekeeper::persistence::sqlite::SqliteOptions;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use uuid::Uuid;

const ACTORS: u64 = 100_000;
/// Actors that are started at a time.
const STARTED_AT_ONCE: u64 = 1_000;
const PAGE: usize = 100;
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let runtime =
        Arc::new(tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("the system gives a runtime"));
    // Arbiters belong to a system; this one has nothing else to do.
    let _system = System::with_tokio_rt(the(&runtime));
    let arbiters: Vec<Arbiter> = (0..2).map(|_| Arbiter::with_tokio_rt(the(&runtime))).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let house = runtime.block_on(open_house(folder.path(), &arbiters, &runtime));
    let before = memory();
    runtime.block_on(start_all(&house));
    let roster = house.shop().roster().clone();
    let live = roster.summary().iter().find(|kind| kind.kind == ActorKind::Inventory).expect("the kind").live;
    let with_actors = memory();
    println!("{live} storekeepers live, {} bytes each", (with_actors - before) * 1_024 / ACTORS);
    (0..200).for_each(|_| drop(roster.page(None, ActorSort::Depth, None, PAGE)));
    println!("after 200 pages there are {} kB more", memory().saturating_sub(with_actors));

    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    for (name, sort) in [("-depth", ActorSort::Depth), ("-processed", ActorSort::Processed), ("kind", ActorSort::Kind)]
    {
        criterion.bench_function(&format!("roster/{PAGE} of {ACTORS} by {name}"), |bencher| {
            bencher.iter(|| roster.page(None, sort, None, PAGE).actors.len());
        });
    }
    criterion.bench_function("roster/summary", |bencher| bencher.iter(|| roster.summary().len()));
    criterion.final_summary();
}

fn the(runtime: &Arc<Runtime>) -> impl FnOnce() -> Arc<Runtime> + Send + 'static {
    let runtime = Arc::clone(runtime);
    move || runtime
}

async fn open_house(folder: &Path, arbiters: &[Arbiter], runtime: &Arc<Runtime>) -> House {
    filled::fill(folder, ACTORS, 1_000).await;
    let (clock, config) = (Clock::system(), Config::embedded(folder).expect("the defaults are usable"));
    let options = StoreOptions::Sqlite(SqliteOptions { folder: folder.to_owned(), readers: 8 });
    House::open(HouseParts {
        store: open(options, clock.clone()).await.expect("the database opens"),
        clock,
        rules: config.shop,
        limits: HouseLimits {
            inventory_mailbox: 4_096,
            cart_mailbox: 64,
            orders_mailbox: 64,
            journal_mailbox: 16_384,
            journal_batch_max: 1_024,
            event_delay_max: config.actors.event_delay_max,
            idle_ttl: Duration::from_secs(86_400),
            order_pending_ttl: None,
            supervision: config.actors.supervision,
            retention: config.retention,
        },
        redis: None,
        broker: None,
        templates: Templates::new().expect("the texts of the mails are readable"),
        mail_sender: config.mail.sender,
        mail_server: None,
        arbiters: arbiters.iter().map(Arbiter::handle).collect(),
        runtime: runtime.handle().clone(),
        metrics: Metrics::new().expect("numbers"),
    })
}

/// Asks every storekeeper for its stock, which starts it.
async fn start_all(house: &House) {
    for first in (0..ACTORS).step_by(usize::try_from(STARTED_AT_ONCE).expect("a small number")) {
        let mut asking = JoinSet::new();
        for number in first..(first + STARTED_AT_ONCE).min(ACTORS) {
            let (shop, inventory) = (house.shop().clone(), InventoryId(Uuid::from_u128(u128::from(number))));
            asking.spawn(async move { shop.stock(inventory, Instant::now() + PATIENCE).await.map(drop) });
        }
        asking.join_all().await.into_iter().collect::<Result<(), _>>().expect("everybody answers");
    }
}

/// Resident memory, kB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or_default()
}
