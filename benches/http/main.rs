//! The whole server over loopback, beside a server of the same settings that does nothing, one transaction a request, one
//! conditional update, or the rows of many requests at a time and nothing else: what each route makes of what the machine
//! can do. Beside that stands the shop's own route that does nothing, `/health/live`, which has all that the shop does
//! around every request.
//!
//! `cargo bench --bench http` does all; `cargo bench --bench http -- 'real, 64'` what has that in its name. `embedded`
//! is SQLite alone; `real` PostgreSQL and Redis, which are started for it, and RabbitMQ when it is run under
//! `scripts/services`. Servers, their databases and the client, which has one thread, share the machine.
//!
//! All cases are run one after the other, and that five times over: a machine that is busy for a while is so for all.
//! The table at the end has medians over the rounds, of ratios too: a ratio is always one of the same round.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a bench stops at a fault and prints")]

mod client;
mod shop;
#[allow(dead_code, reason = "each bench has its part of it")]
#[path = "../support/mod.rs"]
mod support;
mod usual;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use serde_json::json;
use tokio::runtime::Runtime;

use client::{Load, Requests, get, post, send};
use shop::{Kind, Scene};
use support::{PRODUCTS, Popularity, SAMPLES, product};

const KINDS: [(Kind, &str); 2] = [(Kind::Embedded, "embedded"), (Kind::Real, "real")];
const CONNECTIONS: [usize; 2] = [64, 256];
const ROUNDS: usize = 5;
const SESSION_HEADER: &str = "x-cart-session-id";
/// Carts that are filled at a time, before they are checked out one after the other.
const CARTS: usize = 40_000;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Case {
    Empty,
    Live,
    Transaction(Popularity),
    Update(Popularity),
    Rows(Popularity),
    OrderRows(Popularity),
    Product(Popularity),
    Stock(Popularity),
    Add(Popularity),
    Checkout(Popularity),
}

use Popularity::{Hot, Spread};

const CASES: [Case; 18] = [
    Case::Empty,
    Case::Live,
    Case::Transaction(Hot),
    Case::Transaction(Spread),
    Case::Update(Hot),
    Case::Update(Spread),
    Case::Rows(Hot),
    Case::Rows(Spread),
    Case::OrderRows(Hot),
    Case::OrderRows(Spread),
    Case::Product(Hot),
    Case::Product(Spread),
    Case::Stock(Hot),
    Case::Stock(Spread),
    Case::Add(Hot),
    Case::Add(Spread),
    Case::Checkout(Hot),
    Case::Checkout(Spread),
];

impl Case {
    fn name(self) -> String {
        let (work, popularity) = match self {
            Self::Empty => return "empty JSON route".to_owned(),
            Self::Live => return "GET health live".to_owned(),
            Self::Transaction(popularity) => ("one transaction", popularity),
            Self::Update(popularity) => ("one update", popularity),
            Self::Rows(popularity) => ("a hold's rows alone", popularity),
            Self::OrderRows(popularity) => ("an order's rows alone", popularity),
            Self::Product(popularity) => ("GET product", popularity),
            Self::Stock(popularity) => ("GET inventory", popularity),
            Self::Add(popularity) => ("add-to-cart", popularity),
            Self::Checkout(popularity) => ("checkout", popularity),
        };
        format!("{work}, {}", popularity.name())
    }

    /// What it leaves behind and nothing else.
    fn rows_alone(self) -> Option<Self> {
        if let Self::Add(popularity) = self {
            return Some(Self::Rows(popularity));
        }
        if let Self::Checkout(popularity) = self { Some(Self::OrderRows(popularity)) } else { None }
    }
}

/// What one round of a case came to: the median of its samples.
#[derive(Debug, Clone, Copy)]
struct Figures {
    rate: f64,
    p50_us: f64,
    p99_us: f64,
}

/// The rounds of each case that was run.
type Rounds = BTreeMap<Case, Vec<Figures>>;

fn main() {
    let runtime =
        Arc::new(tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("the system gives a runtime"));
    let client =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("the system gives a runtime");
    // What a server logs costs it time, wherever it goes.
    let log = storekeeper::telemetry::subscriber("info", true, std::io::sink).expect("a filter");
    tracing::subscriber::set_global_default(log).expect("nothing else logs");
    let mut criterion = Criterion::default()
        .configure_from_args()
        .sample_size(SAMPLES)
        .nresamples(1_000)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(3));
    let mut tables = Vec::new();
    for (kind, name) in KINDS {
        for connections in CONNECTIONS {
            let name = format!("{name}, {connections} connections");
            let carts = RefCell::default();
            let mut bench = Bench {
                runtime: &runtime,
                client: &client,
                kind,
                connections,
                scene: None,
                carts,
                cart_rows: Cell::new(0),
            };
            let rounds = bench.measure(&mut criterion, &name);
            if let Some(scene) = bench.scene.take() {
                tables.push((name, scene.commit_us, rounds));
                client.block_on(scene.settle());
                client.block_on(scene.app.stop()).expect("the server stops in order");
            }
        }
    }
    criterion.final_summary();
    for (name, commit_us, rounds) in tables {
        print(&name, commit_us, &rounds);
    }
}

/// One scene's measuring.
struct Bench<'a> {
    runtime: &'a Arc<Runtime>,
    client: &'a Runtime,
    kind: Kind,
    connections: usize,
    /// Not before a case is run: filling shelves for none takes seconds.
    scene: Option<Scene>,
    /// Carts that are filled and not checked out.
    carts: RefCell<Vec<String>>,
    /// The same of those that are rows and nothing else: how many.
    cart_rows: Cell<usize>,
}

impl Bench<'_> {
    fn measure(&mut self, criterion: &mut Criterion, name: &str) -> Rounds {
        let mut rounds = Rounds::new();
        let mut group = criterion.benchmark_group(format!("http/{name}"));
        group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(self.connections as u64));
        for round in 1..=ROUNDS {
            for case in CASES {
                let samples = RefCell::new(Vec::new());
                let mut prepared = None;
                group.bench_function(BenchmarkId::new(case.name(), round), |bencher| {
                    // This is called for each sample.
                    let prepared = prepared.get_or_insert_with(|| self.prepare(case));
                    bencher.iter_custom(|times| {
                        let count = self.connections * usize::try_from(times).expect("a small number");
                        let load = self.run(case, prepared, count);
                        let took = load.took;
                        samples.borrow_mut().push(Figures::of(load));
                        took
                    });
                });
                let figures = Figures::median(samples.into_inner());
                figures.into_iter().for_each(|figures| rounds.entry(case).or_default().push(figures));
            }
        }
        group.finish();
        rounds
    }

    fn scene(&self) -> &Scene {
        self.scene.as_ref().expect("it was opened when this case was prepared")
    }

    /// What is asked, again and again; a checkout's requests are made for its carts.
    fn prepare(&mut self, case: Case) -> Arc<Requests> {
        if self.scene.is_none() {
            self.scene = Some(self.client.block_on(Scene::open(self.kind, self.connections, self.runtime)));
        }
        self.carts.borrow_mut().clear();
        self.cart_rows.set(0);
        self.client.block_on(self.scene().settle());
        let token = self.scene().buyers.first().map(String::as_str);
        let wish = |number: u64| json!({"productId": product(number), "quantity": 1}).to_string();
        let of = |popularity: Popularity, status, keep, request: &dyn Fn(u64) -> Vec<u8>| {
            let numbers = if popularity == Popularity::Hot { 1 } else { PRODUCTS };
            let all = (0..numbers).map(|number| request(popularity.pick(number))).collect();
            Arc::new(Requests { all, status, keep })
        };
        let prepared = match case {
            Case::Empty => of(Popularity::Hot, 200, None, &|_| get("/empty", None)),
            Case::Live => of(Popularity::Hot, 200, None, &|_| get("/health/live", None)),
            Case::Transaction(of_which) => of(of_which, 200, None, &|number| post("/transaction", None, &wish(number))),
            Case::Update(of_which) => of(of_which, 200, None, &|number| post("/update", None, &wish(number))),
            Case::Rows(of_which) | Case::OrderRows(of_which) => {
                of(of_which, 200, None, &|number| post("/rows", None, &wish(number)))
            }
            Case::Product(of_which) => {
                of(of_which, 200, None, &|number| get(&format!("/products/{}", product(number)), None))
            }
            // Product and inventory have one number.
            Case::Stock(of_which) => {
                of(of_which, 200, None, &|number| get(&format!("/inventories/{}", product(number)), token))
            }
            Case::Add(of_which) | Case::Checkout(of_which) => {
                of(of_which, 200, Some(SESSION_HEADER), &|number| post("/cart/add-to-cart", None, &wish(number)))
            }
        };
        if matches!(case, Case::Checkout(_)) {
            self.fill_carts(&prepared, CARTS);
        }
        if matches!(case, Case::OrderRows(_)) {
            self.fill_rows(&prepared, CARTS);
        }
        prepared
    }

    fn run(&self, case: Case, prepared: &Arc<Requests>, count: usize) -> Load {
        let (shop, usual) = (self.scene().app.address(), self.scene().usual.address);
        match case {
            Case::Empty | Case::Transaction(_) | Case::Update(_) | Case::Rows(_) => {
                self.send(usual, Arc::clone(prepared), count)
            }
            Case::Live | Case::Product(_) | Case::Stock(_) | Case::Add(_) => {
                self.send(shop, Arc::clone(prepared), count)
            }
            Case::OrderRows(_) => {
                if self.cart_rows.get() < count {
                    self.fill_rows(prepared, CARTS.max(count));
                }
                self.cart_rows.set(self.cart_rows.get() - count);
                let all = vec![post("/rows/order", None, "{}")];
                self.send(usual, Arc::new(Requests { all, status: 200, keep: None }), count)
            }
            Case::Checkout(_) => {
                let carts = self.filled_carts(prepared, count);
                let buyers = self.scene().buyers.iter().cycle();
                let checkout = |(cart, buyer): (&String, &String)| {
                    post("/orders/checkout", Some(buyer), &json!({"cartSessionId": cart}).to_string())
                };
                let all = carts.iter().zip(buyers).map(checkout).collect();
                self.send(shop, Arc::new(Requests { all, status: 201, keep: None }), count)
            }
        }
    }

    /// Fills so many carts, and lets what was checked out until then come out.
    fn fill_carts(&self, prepared: &Arc<Requests>, count: usize) {
        let filled = self.send(self.scene().app.address(), Arc::clone(prepared), count).kept;
        self.carts.borrow_mut().extend(filled);
        self.client.block_on(self.scene().settle());
    }

    /// The same of carts that are rows and nothing else.
    fn fill_rows(&self, prepared: &Arc<Requests>, count: usize) {
        self.send(self.scene().usual.address, Arc::clone(prepared), count);
        self.cart_rows.set(self.cart_rows.get() + count);
    }

    /// So many carts of those that were filled before: what is timed is people who check out, one after the other.
    fn filled_carts(&self, prepared: &Arc<Requests>, count: usize) -> Vec<String> {
        let filled = self.carts.borrow().len();
        if filled < count {
            self.fill_carts(prepared, CARTS.max(count - filled));
        }
        let mut carts = self.carts.borrow_mut();
        let rest = carts.len() - count;
        carts.split_off(rest)
    }

    fn send(&self, address: SocketAddr, requests: Arc<Requests>, count: usize) -> Load {
        self.client.block_on(send(address, self.connections, requests, count))
    }
}

impl Figures {
    fn of(mut load: Load) -> Self {
        load.latencies_us.sort_unstable();
        let at = |share: f64| {
            let place = (load.latencies_us.len() as f64 * share) as usize;
            load.latencies_us.get(place).copied().map_or(0.0, f64::from)
        };
        let rate = load.latencies_us.len() as f64 / load.took.as_secs_f64();
        Self { rate, p50_us: at(0.5), p99_us: at(0.99) }
    }

    /// The median of each; `None` when there is none. Samples before the last ones warmed up.
    fn median(samples: Vec<Self>) -> Option<Self> {
        let of = |figure: fn(&Self) -> f64| support::median(samples.iter().map(figure).collect());
        Some(Self {
            rate: of(|figures| figures.rate)?,
            p50_us: of(|figures| figures.p50_us)?,
            p99_us: of(|figures| figures.p99_us)?,
        })
    }
}

/// Prints a scene's table: medians over its rounds, of the ratios too.
fn print(name: &str, commit_us: u32, rounds: &Rounds) {
    println!("\n{name:<28} requests/s   of empty    of live    of rows   x transaction     p50 ms     p99 ms");
    let ratio = |of: &[Figures], to: Case| {
        let pairs = rounds.get(&to).into_iter().flatten().zip(of);
        support::median(pairs.map(|(to, of)| of.rate / to.rate).collect())
    };
    let told = |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
    for (case, figures) in rounds {
        let Some(Figures { rate, p50_us, p99_us }) = Figures::median(figures.clone()) else { continue };
        let of = |to| told(ratio(figures, to));
        println!(
            "{:<28} {rate:>10.0} {:>10} {:>10} {:>10} {:>15} {:>10.2} {:>10.2}",
            case.name(),
            of(Case::Empty),
            of(Case::Live),
            case.rows_alone().map_or_else(|| "-".to_owned(), of),
            of(Case::Transaction(Hot)),
            p50_us / 1_000.0,
            p99_us / 1_000.0
        );
    }
    if let Some(add) = rounds.get(&Case::Add(Spread)) {
        println!("add-to-cart, spread: {} of its rate on one hot product", told(ratio(add, Case::Add(Hot))));
    }
    let p99 = |case| rounds.get(&case).and_then(|of: &Vec<Figures>| Figures::median(of.clone())).map(|of| of.p99_us);
    if let (Some(add), Some(empty)) = (p99(Case::Add(Hot)), p99(Case::Empty)) {
        let limit = 4.0 * empty + f64::from(commit_us);
        println!(
            "add-to-cart, hot: p99 {:.2} ms of {:.2} (4 times the empty route's, and a commit)",
            add / 1_000.0,
            limit / 1_000.0
        );
    }
    println!("one commit alone takes {:.2} ms", f64::from(commit_us) / 1_000.0);
}
