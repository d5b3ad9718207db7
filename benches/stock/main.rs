//! Durable holds a second, through the actors and the journal, and as the usual program would do it: one transaction a
//! hold, or one conditional update. All over SQLite and over PostgreSQL, which is started for the bench.
//!
//! Journal and transaction put one unit into a fresh cart: a session, a hold, a ledger row and a balance, synced to the
//! disk before the caller hears of it. The update changes the balance alone. Beside them stands what asking an actor
//! costs that writes nothing. `hot` is one product, `spread` 10,000 of them, `zipf` the same by Zipf's law. Run by hand
//! with `cargo bench`; what counts are figures of one run, since a disk's sync takes as long as it likes.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a bench stops at a fault and prints")]

#[allow(dead_code, reason = "each bench has its part of it")]
#[path = "../support/mod.rs"]
mod support;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use actix_rt::System;
use criterion::{Criterion, SamplingMode, Throughput};
use tokio::runtime::Runtime;

use support::house::{Asking, Journal};
use support::{Popularity, SAMPLES, Shelves, Till, median, postgres, product, run, sqlite, the};

const CALLERS: [u64; 4] = [1, 64, 512, 4_096];
/// Callers of the usual ways at most: more of them wait longer, and nothing else.
const USUAL_CALLERS_MAX: u64 = 512;
/// What the journal is to reach on one hot product of PostgreSQL with 512 callers, in transactions of one hold each.
const TARGET: f64 = 40.0;

/// One case of a way: what it is called, and its holds a second when it was run.
type Rate = (String, Option<f64>);

fn main() {
    let runtime =
        Arc::new(tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("the system gives a runtime"));
    // Arbiters belong to a system; this one has nothing else to do.
    let _system = System::with_tokio_rt(the(&runtime));
    let mut criterion = Criterion::default()
        .configure_from_args()
        .sample_size(SAMPLES)
        .nresamples(1_000)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
    let mut rows = compare::<sqlite::Shelf, sqlite::OneByOne, sqlite::OneUpdate>(&mut criterion, "sqlite", &runtime);
    rows.extend(compare::<postgres::Shelf, postgres::OneByOne, postgres::OneUpdate>(
        &mut criterion,
        "postgres",
        &runtime,
    ));
    criterion.final_summary();
    println!("\na second                        transaction      update     journal       times      asking");
    for (name, rates) in rows {
        let [slow, update, fast, asking] = rates.map(|rate| rate.map_or_else(String::new, |rate| format!("{rate:.0}")));
        let times = rates[2].zip(rates[0]).map_or_else(String::new, |(fast, slow)| format!("{:.1}", fast / slow));
        println!("{name:<31} {slow:>11} {update:>11} {fast:>11} {times:>11} {asking:>11}");
    }
    println!("The target is {TARGET} times on one hot product of PostgreSQL with 512 callers.");
}

/// Measures the journal on a kind of database, the usual ways on the same kind, and an actor that writes nothing; gives
/// each case's rates: transaction, update, journal, asking.
fn compare<S: Shelves, O: Till<S>, U: Till<S>>(
    criterion: &mut Criterion,
    kind: &str,
    runtime: &Arc<Runtime>,
) -> Vec<(String, [Option<f64>; 4])> {
    let ways = [
        measure::<S, O>(criterion, &format!("{kind}/one transaction a hold"), USUAL_CALLERS_MAX, runtime),
        measure::<S, U>(criterion, &format!("{kind}/one update a hold"), USUAL_CALLERS_MAX, runtime),
        measure::<S, Journal>(criterion, &format!("{kind}/journal"), u64::MAX, runtime),
        measure::<S, Asking>(criterion, &format!("{kind}/asking an actor"), u64::MAX, runtime),
    ];
    let [slow, update, fast, asking] = ways.map(Vec::into_iter);
    let cases = slow.zip(update).zip(fast).zip(asking);
    let rows = cases.map(|((((name, slow), (_, update)), (_, fast)), (_, asking))| {
        (format!("{kind}, {name}"), [slow, update, fast, asking])
    });
    rows.filter(|(_, rates)| rates.iter().any(Option::is_some)).collect()
}

/// Measures a till with up to so many callers; gives each case's holds a second, the median of its samples.
fn measure<S: Shelves, T: Till<S>>(
    criterion: &mut Criterion,
    name: &str,
    callers_max: u64,
    runtime: &Arc<Runtime>,
) -> Vec<Rate> {
    let mut rates = Vec::new();
    for popularity in Popularity::ALL {
        // Not before a case is run: filling ten thousand shelves for none takes seconds.
        let mut opened: Option<(Arc<T>, S)> = None;
        let mut group = criterion.benchmark_group(format!("{name}/{}", popularity.name()));
        group.sampling_mode(SamplingMode::Flat);
        for callers in CALLERS {
            let case = format!("{}, {callers} callers", popularity.name());
            if callers > callers_max {
                rates.push((case, None));
                continue;
            }
            let samples = RefCell::new(Vec::new());
            group.throughput(Throughput::Elements(callers));
            group.bench_function(format!("{callers} callers"), |bencher| {
                let (till, _shelves) = opened.get_or_insert_with(|| runtime.block_on(open_shop(runtime)));
                bencher.iter_custom(|rounds| {
                    let (holds, till) = (rounds * callers, Arc::clone(till));
                    let work = move |number| {
                        let till = Arc::clone(&till);
                        async move { till.hold(product(popularity.pick(number))).await }
                    };
                    let took = runtime.block_on(run(callers, holds, work));
                    samples.borrow_mut().push(holds as f64 / took.as_secs_f64());
                    took
                });
            });
            rates.push((case, median(samples.into_inner())));
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
