//! The most that a route does, asked by wrk, which takes little of the machine (`peak.lua` makes its requests).
//!
//! Each route has its turn in each round, and what is told are medians of the rounds. A ratio is taken within a round, to the empty
//! route of that round, and then its median is told.

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
/// Seconds that a route is asked for, when nobody says how many, and at most: carts are filled for twice as long, and a product
/// has only so many units.
const SECONDS: u64 = 3;
pub(crate) const SECONDS_MAX: u64 = 10;
/// For how long it is waited for what follows the orders of a round.
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK_PERIOD: Duration = Duration::from_millis(100);

/// Events that wait, and orders of which no mail was made yet.
const UNDONE: &str = "SELECT (SELECT count(*) FROM outbox WHERE published_at IS NULL), (SELECT count(*) FROM orders)
    - (SELECT count(*) FROM consumed_messages WHERE queue = 'send-email')";

/// The first is the empty route, which the others stand beside.
const ROUTES: [Route; 8] = [
    Route { name: "GET /health/live", script: "live", one_product: true },
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
    /// Answers that were no success, and those that did not come.
    bad: f64,
    /// Answers in all.
    answers: usize,
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
            "bad"
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
    f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2])
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
            let mut filled = usize::MAX;
            if route.script == "checkout" {
                // Twice as long, so that there are enough.
                let fill = self.ask("fill", items, connections, carts.path(), 2 * self.seconds);
                assert!(fill.bad == 0.0, "{} carts were not filled", fill.bad);
                filled = fill.answers;
            }
            let asked = self.ask(route.script, items, connections, carts.path(), self.seconds);
            // wrk would tell the rate of a time in which it had nothing more to buy.
            assert!(asked.answers + usize::from(connections) < filled, "{filled} carts were too few");
            seen.push(asked);
        }
        settle(self.server).await;
        seen
    }

    fn ask(&self, route: &str, items: &[Item], connections: u16, carts: &Path, seconds: u64) -> Seen {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/load/peak.lua");
        let known = NamedTempFile::new().expect("a file");
        let lines: Vec<String> = items.iter().map(|item| format!("{} {}\n", item.product, item.inventory)).collect();
        std::fs::write(known.path(), lines.concat()).expect("a file");
        let told = Command::new("wrk")
            .args(["-t1", "--latency", &format!("-c{connections}"), &format!("-d{seconds}s"), "-s"])
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
        let told = |label| of(label).unwrap_or_else(|| panic!("wrk does not tell {label} {text}"));
        let number = |text: &str| text.parse::<f64>().expect("a number");
        // `Socket errors: connect 0, read 0, write 0, timeout 0`
        let missing =
            of("Socket errors:").unwrap_or_default().split([' ', ',']).filter_map(|word| word.parse::<f64>().ok());
        Seen {
            rate: number(told("Requests/sec:")),
            p50_ms: milliseconds(told("50%")),
            p99_ms: milliseconds(told("99%")),
            bad: of("Non-2xx or 3xx responses:").map_or(0.0, number) + missing.sum::<f64>(),
            answers: text
                .lines()
                .find_map(|line| line.split_once(" requests in "))
                .map_or(0, |(count, _)| count.trim().parse().expect("a number")),
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
        if Instant::now() > end {
            return println!(
                "{events} events and {mails} mails are not done after {PATIENCE:?}; the next round has them beside it"
            );
        }
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}
