//! What the benches of the write path share: a shop full of products on either database, the ways to put a unit into a
//! cart that are measured, and who asks for how many of what.

pub(crate) mod buyers;
pub(crate) mod filled;
pub(crate) mod house;
pub(crate) mod postgres;
#[path = "../../tests/support/redis.rs"]
pub(crate) mod redis;
pub(crate) mod rows;
#[path = "../../tests/support/postgres.rs"]
pub(crate) mod server;
pub(crate) mod sqlite;
#[path = "../../tests/support/unprivileged.rs"]
mod unprivileged;
pub(crate) mod zipf;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use storekeeper::domain::ids::ProductId;
use storekeeper::persistence::open::StoreOptions;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use uuid::Uuid;
use zipf::Zipf;

/// Products that a shop has.
pub(crate) const PRODUCTS: u64 = 10_000;
/// Units of each: more than any bench sells.
pub(crate) const UNITS: i64 = 1_000_000_000_000;
/// Samples of a case; the figure that is told is their median.
pub(crate) const SAMPLES: usize = 10;

/// A database with all products in stock, which goes with it. Product and inventory have one number, from 0.
pub(crate) trait Shelves: Sized {
    fn filled() -> impl Future<Output = Self>;

    fn options(&self) -> StoreOptions;
}

/// A way to do something with one unit of a product.
pub(crate) trait Till<S>: Send + Sync + Sized + 'static {
    fn open(shelves: &S, runtime: &Arc<Runtime>) -> impl Future<Output = Self>;

    fn hold(&self, product: ProductId) -> impl Future<Output = ()> + Send;
}

/// Which products are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Popularity {
    /// One and the same.
    Hot,
    /// Each as often as its rank in sales lets expect, by Zipf's law: the first of 10,000 gets every tenth request.
    Zipf,
    /// All alike.
    Spread,
}

impl Popularity {
    pub(crate) const ALL: [Self; 3] = [Self::Hot, Self::Zipf, Self::Spread];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Zipf => "zipf",
            Self::Spread => "spread",
        }
    }

    /// The number of the product that the request of this number is for, the same in every run.
    pub(crate) fn pick(self, number: u64) -> u64 {
        static RANKS: LazyLock<Zipf> = LazyLock::new(|| Zipf::new(usize::try_from(PRODUCTS).expect("a small number")));
        match self {
            Self::Hot => 0,
            Self::Zipf => RANKS.rank(fraction(number)) as u64,
            Self::Spread => scattered(number) % PRODUCTS,
        }
    }
}

/// Neighbours far apart, the same in every run (Knuth's multiplicative hashing).
pub(crate) fn scattered(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

/// The same, from 0 to 1.
fn fraction(number: u64) -> f64 {
    scattered(number) as f64 / (1_u64 << 44) as f64
}

pub(crate) fn product(number: u64) -> ProductId {
    ProductId(Uuid::from_u128(u128::from(number)))
}

/// The runtime, as an actix system and its arbiters take it.
pub(crate) fn the(runtime: &Arc<Runtime>) -> impl FnOnce() -> Arc<Runtime> + Send + 'static {
    let runtime = Arc::clone(runtime);
    move || runtime
}

/// Has so many callers do so many things, each caller one after the other; gives how long all of it took.
pub(crate) async fn run<F, W>(callers: u64, count: u64, work: F) -> Duration
where
    F: Fn(u64) -> W + Clone + Send + 'static,
    W: Future<Output = ()> + Send,
{
    let begun = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    let begin = Instant::now();
    for _ in 0..callers {
        let (work, begun) = (work.clone(), Arc::clone(&begun));
        tasks.spawn(async move {
            loop {
                let number = begun.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return;
                }
                work(number).await;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a caller does not die");
    }
    begin.elapsed()
}

/// The middle one of the last samples, those before which warmed up; `None` when the case was not to be run.
pub(crate) fn median(samples: Vec<f64>) -> Option<f64> {
    let mut last: Vec<f64> = samples.into_iter().rev().take(SAMPLES).collect();
    last.sort_by(f64::total_cmp);
    last.get(last.len() / 2).copied()
}
