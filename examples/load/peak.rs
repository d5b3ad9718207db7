//! The most that a route does, asked by wrk, which takes little of the machine (`peak.lua` makes its requests).

use std::path::Path;
use std::process::Command;

use tempfile::NamedTempFile;

use crate::Arguments;
use crate::scenarios::People;
use crate::server::Server;

/// Units of each product: more than is sold.
pub(crate) const STOCK: i64 = 1_000_000;

/// What is asked, as `peak.lua` knows it, and whether of one product or of all.
const ROUTES: [(&str, &str, bool); 7] = [
    ("GET /health/live", "live", true),
    ("GET /products/{id}, one product", "product", true),
    ("GET /products/{id}, all products", "product", false),
    ("GET /inventories/{id}, one product", "inventory", true),
    ("add-to-cart, one product", "add", true),
    ("add-to-cart, all products", "add", false),
    ("add-to-cart and checkout in turn, one product", "buy", true),
];

/// Asks each route for as long as the arguments say, and prints what wrk saw.
pub(crate) fn measure(arguments: &Arguments, server: &Server, people: &People) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/load/peak.lua");
    println!("\n{:<46} requests/s     p50     p99   other than 2xx", format!("{} connections", arguments.users));
    for (name, route, one) in ROUTES {
        let items = if one { &people.items[..1] } else { &people.items[..] };
        let known = NamedTempFile::new().expect("a file");
        let lines: Vec<String> = items.iter().map(|item| format!("{} {}\n", item.product, item.inventory)).collect();
        std::fs::write(known.path(), lines.concat()).expect("a file");
        let told = Command::new("wrk")
            .args(["-t1", "--latency", &format!("-c{}", arguments.users), &format!("-d{}s", arguments.seconds), "-s"])
            .arg(&script)
            .arg(server.base())
            .env("PEAK_ROUTE", route)
            .env("PEAK_ITEMS", known.path())
            .env("PEAK_TOKEN", &people.buyers[0])
            .output()
            .expect("wrk runs (Debian has it as wrk)");
        let text = String::from_utf8_lossy(&told.stdout);
        assert!(told.status.success(), "wrk: {text}{}", String::from_utf8_lossy(&told.stderr));
        let of = |label: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(label));
            line.map_or("-", |rest| rest.trim()).to_owned()
        };
        let (rate, p50, p99) = (of("Requests/sec:"), of("50%"), of("99%"));
        let bad = of("Non-2xx or 3xx responses:");
        println!("{name:<46} {rate:>10} {p50:>7} {p99:>7}   {bad}");
    }
}
