//! Checkouts a second, through the actors and the journal, of carts that were filled before: carts of one line and of
//! three, 64 at a time, out of 10 products (`hot`) and of 10,000 (`spread`), over SQLite and over PostgreSQL.
//!
//! A checkout writes the order, its items, its ledger rows, the ends of its holds and its events in one entry of the
//! journal; events are published and mails written meanwhile, by the same program. `cargo bench --bench checkout`.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a bench stops at a fault and prints")]

#[allow(dead_code, reason = "each bench has its part of it")]
#[path = "../support/mod.rs"]
mod support;

use std::cell::RefCell;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_rt::System;
use criterion::{Criterion, SamplingMode, Throughput};
use storekeeper::actors::shop::{Buyer, CheckoutRequest, Shop};
use storekeeper::domain::ids::{CartSessionId, UserId};
use tokio::runtime::Runtime;
use uuid::Uuid;

use support::house::{Actors, command};
use support::{PRODUCTS, SAMPLES, Shelves, median, postgres, product, run, scattered, sqlite, the};

const CALLERS: u64 = 64;
const SPREADS: [(&str, u64); 2] = [("hot", 10), ("spread", PRODUCTS)];
const LINES: [u64; 2] = [1, 3];

fn main() {
    let runtime =
        Arc::new(tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("the system gives a runtime"));
    let _system = System::with_tokio_rt(the(&runtime));
    let mut criterion = Criterion::default()
        .configure_from_args()
        .sample_size(SAMPLES)
        .nresamples(1_000)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
    let mut rows = measure::<sqlite::Shelf>(&mut criterion, "sqlite", &runtime);
    rows.extend(measure::<postgres::Shelf>(&mut criterion, "postgres", &runtime));
    criterion.final_summary();
    println!("\ncheckouts a second, {CALLERS} at a time");
    for (name, rate) in rows {
        println!("{name:<32} {rate:>8.0}");
    }
}

/// Measures all cases on a kind of database; gives their checkouts a second, the medians of their samples.
fn measure<S: Shelves>(criterion: &mut Criterion, kind: &str, runtime: &Arc<Runtime>) -> Vec<(String, f64)> {
    let mut rows = Vec::new();
    for (spread, products) in SPREADS {
        // Not before a case is run: filling ten thousand shelves for none takes seconds.
        let mut opened: Option<(Actors, S)> = None;
        let mut group = criterion.benchmark_group(format!("checkout/{kind}/{spread}"));
        group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(CALLERS));
        for lines in LINES {
            let samples = RefCell::new(Vec::new());
            group.bench_function(format!("{lines} lines"), |bencher| {
                let (actors, _shelves) = opened.get_or_insert_with(|| {
                    runtime.block_on(async {
                        let shelves = S::filled().await;
                        (Actors::on(&shelves, runtime).await, shelves)
                    })
                });
                bencher.iter_custom(|rounds| {
                    let count = rounds * CALLERS;
                    let carts = runtime.block_on(fill(&actors.shop, count, lines, products));
                    let took = runtime.block_on(check_out(&actors.shop, carts));
                    samples.borrow_mut().push(count as f64 / took.as_secs_f64());
                    took
                });
            });
            let rate = median(samples.into_inner());
            rows.extend(rate.map(|rate| (format!("{kind}, {spread}, {lines} lines"), rate)));
        }
        group.finish();
    }
    rows
}

/// Carts with so many lines, of different products.
async fn fill(shop: &Shop, count: u64, lines: u64, products: u64) -> Vec<CartSessionId> {
    let carts = Arc::new(Mutex::new(Vec::new()));
    let (kept, shop) = (Arc::clone(&carts), shop.clone());
    run(CALLERS, count, move |number| {
        let (kept, shop) = (Arc::clone(&kept), shop.clone());
        async move {
            let mut session = None;
            for line in 0..lines {
                let product = product((scattered(number) + line) % products);
                let cart = shop.add_to_cart(session, product, None, 1, false, command()).await;
                session = cart.expect("the unit is held").session;
            }
            kept.lock().expect("nobody died").push(session.expect("a cart"));
        }
    })
    .await;
    std::mem::take(&mut carts.lock().expect("nobody died"))
}

/// Checks all of them out; gives how long it took.
async fn check_out(shop: &Shop, carts: Vec<CartSessionId>) -> Duration {
    let buyer = Buyer { user: UserId(Uuid::now_v7()), name: "Ann Lee".to_owned(), email: "ann@example.org".to_owned() };
    let (count, carts, shop) = (carts.len() as u64, Arc::new(carts), shop.clone());
    run(CALLERS, count, move |number| {
        let session = carts[usize::try_from(number).expect("a small number")];
        let request = CheckoutRequest { session, buyer: buyer.clone(), shipping_address: None, expected_total: None };
        let shop = shop.clone();
        async move { assert!(shop.checkout(request, command()).await.expect("an order").placed) }
    })
    .await
}
