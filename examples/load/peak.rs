//! The most that a route does, asked by wrk, which takes little of the machine (`peak.lua` makes its requests).
//!
//! Each route has its turn in each round, and what is told are medians of the rounds: of what is beside the empty route too, which
//! is that of the same round.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::NamedTempFile;

use crate::Arguments;
use crate::api::Item;
use crate::books::Books;
use crate::scenarios::People;
use crate::server::Server;

/// Units of each product: more than is sold.
pub(crate) const STOCK: i64 = 1_000_000;
/// Products, when nobody says how many.
pub(crate) const PRODUCTS: u32 = 10_000;

/// Connections, when nobody says how many.
const CONNECTIONS: [u16; 2] = [64, 256];
/// Seconds that a route is asked for, when nobody says how many.
const SECONDS: u64 = 3;
/// For how long it is waited for what follows the orders of a round.
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK_PERIOD: Duration = Duration::from_millis(100);

/// Events that wait, and orders of which no mail was made yet.
const UNDONE: &str = "SELECT (SELECT count(*) FROM outbox WHERE published_at IS NULL), (SELECT count(*) FROM orders)
    - (SELECT count(*) FROM consumed_messages WHERE queue = 'send-email')";

/// The empty route, the others beside it.
const EMPTY: Route = Route { name: "GET /health/live", script: "live", one_product: true };
const ROUTES: [Route; 8] = [
    EMPTY,
    Route { name: "GET /products/{id}, one product", script: "product", one_product: true },
    Route { name: "GET /products/{id}, all products", script: "product", one_product: false },
    Route { name: "GET /inventories/{id}, one product", script: "inventory", one_product: true },
    Route { name: "GET /inventories/{id}, all products", script: "inventory", one_product: false },
    Route { name: "add-to-cart, one product", script: "add", one_product: true },
    Route { name: "add-to-cart, all products", script: "add", one_product: false },
    Route { name: "checkout of one line, one product", script: "checkout", one_product: true },
];

/// What is asked.
struct Route {
    name: &'static str,
    /// How `peak.lua` calls it.
    script: &'static str,
    /// Of one product, or of all.
    one_product: bool,
}

/// What wrk saw of a route in a round.
struct Seen {
    rate: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Answers that were no success.
    bad: f64,
}

/// Asks each route for as long and as often as the arguments say, and prints what wrk saw.
pub(crate) async fn measure(arguments: &Arguments, server: &Server, people: &People) {
    let given = arguments.users.map(|users| vec![users]);
    let mut wrk = Wrk { server, people, seconds: arguments.seconds.unwrap_or(SECONDS), turn: 0 };
    for connections in given.unwrap_or_else(|| CONNECTIONS.to_vec()) {
        let mut rounds = Vec::new();
        for round in 1..=arguments.rounds {
            println!("{connections} connections, round {round} of {}", arguments.rounds);
            rounds.push(wrk.round(connections).await);
        }
        println!(
            "\n{:<38}{:>12}{:>10}{:>10}{:>10}{:>9}",
            format!("{connections} connections, medians of {}", rounds.len()),
            "requests/s",
            "of empty",
            "p50 ms",
            "p99 ms",
            "refused"
        );
        for (index, route) in ROUTES.iter().enumerate() {
            let of = |figure: fn(&Seen, &Seen) -> f64| median(rounds.iter().map(|seen| figure(&seen[index], &seen[0])));
            println!(
                "{:<38}{:>12.0}{:>10.3}{:>10.2}{:>10.2}{:>9.0}",
                route.name,
                of(|seen, _| seen.rate),
                of(|seen, empty| seen.rate / empty.rate),
                of(|seen, _| seen.p50_ms),
                of(|seen, _| seen.p99_ms),
                of(|seen, _| seen.bad)
            );
        }
        println!();
    }
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// wrk, and whom it asks.
struct Wrk<'a> {
    server: &'a Server,
    people: &'a People,
    seconds: u64,
    /// Which product is the one: another each time, so that there is enough of it.
    turn: usize,
}

impl Wrk<'_> {
    /// All routes, one after the other; and then what follows the orders has its time.
    async fn round(&mut self, connections: u16) -> Vec<Seen> {
        let mut seen = Vec::new();
        for route in &ROUTES {
            let mut items = &self.people.items[..];
            if route.one_product {
                self.turn = (self.turn + 1) % items.len();
                items = &items[self.turn..=self.turn];
            }
            let carts = NamedTempFile::new().expect("a file");
            if route.script == "checkout" {
                // Filling is quicker than buying, so there are enough.
                self.ask("fill", items, connections, carts.path());
            }
            seen.push(self.ask(route.script, items, connections, carts.path()));
        }
        settle(self.server).await;
        seen
    }

    fn ask(&self, route: &str, items: &[Item], connections: u16, carts: &Path) -> Seen {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/load/peak.lua");
        let known = NamedTempFile::new().expect("a file");
        let lines: Vec<String> = items.iter().map(|item| format!("{} {}\n", item.product, item.inventory)).collect();
        std::fs::write(known.path(), lines.concat()).expect("a file");
        let told = Command::new("wrk")
            .args(["-t1", "--latency", &format!("-c{connections}"), &format!("-d{}s", self.seconds), "-s"])
            .arg(&script)
            .arg(self.server.base())
            .env("PEAK_ROUTE", route)
            .env("PEAK_ITEMS", known.path())
            .env("PEAK_CARTS", carts)
            .env("PEAK_TOKEN", &self.people.buyers[0])
            .output()
            .expect("wrk runs (Debian has it as wrk)");
        let text = String::from_utf8_lossy(&told.stdout);
        assert!(told.status.success(), "wrk: {text}{}", String::from_utf8_lossy(&told.stderr));
        let of = |label: &str| text.lines().find_map(|line| line.trim().strip_prefix(label)).map(str::trim);
        let number = |label| of(label).map_or(0.0, |text| text.parse().expect("a number"));
        Seen {
            rate: number("Requests/sec:"),
            p50_ms: of("50%").map_or(0.0, milliseconds),
            p99_ms: of("99%").map_or(0.0, milliseconds),
            bad: number("Non-2xx or 3xx responses:"),
        }
    }
}

/// A time as wrk writes it: `0.98ms`, `333.00us`, `1.02s`.
fn milliseconds(text: &str) -> f64 {
    let units = [("us", 0.001), ("ms", 1.0), ("s", 1_000.0)];
    let read =
        units.into_iter().find_map(|(unit, factor)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * factor));
    read.unwrap_or_else(|| panic!("no time: {text}"))
}

/// Waits until all events are out and all mails of orders are kept, where the database is known.
async fn settle(server: &Server) {
    let Some(database) = server.database() else { return };
    let mut books = Books::open(database).await;
    let end = Instant::now() + PATIENCE;
    loop {
        let (events, mails): (i64, i64) = books.row(UNDONE).await;
        if events == 0 && mails == 0 {
            return;
        }
        assert!(Instant::now() < end, "{events} events and {mails} mails were not done after {PATIENCE:?}");
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}
