//! `/metrics`: that it counts what happens, no more and no less, in a form that Prometheus takes; and that what the
//! documentation and the dashboard name is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{PATIENCE, TestApp};

/// How often the shops of these tests ask their database what is in hand.
const PERIOD: Duration = Duration::from_millis(20);

/// The numbers by their names with their labels, as they are written: `things_total{kind="a"}`.
struct Numbers(BTreeMap<String, f64>);

impl Numbers {
    fn of(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let number = |line: &str| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a number");
            (name.to_owned(), value.parse().expect("a number"))
        };
        Self(lines.map(number).collect())
    }

    fn find(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// What counts up is there from when it is first counted.
    fn count(&self, name: &str) -> f64 {
        self.find(name).unwrap_or_default()
    }

    /// Which metrics there are.
    fn metrics(&self) -> BTreeSet<String> {
        self.0.keys().map(|name| bare(name)).collect()
    }

    /// The values of a label, whichever metric has it.
    fn values_of(&self, label: &str) -> BTreeSet<String> {
        let pattern = format!("{label}=\"");
        let value = |name: &String| Some(name.split_once(&pattern)?.1.split_once('"')?.0.to_owned());
        self.0.keys().filter_map(value).collect()
    }
}

async fn shop() -> TestApp {
    TestApp::start_with(|config| config.metrics_period = PERIOD).await
}

async fn text(app: &TestApp) -> String {
    let answer = app.get("/metrics").send().await.expect(200);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    answer.text
}

async fn numbers(app: &TestApp) -> Numbers {
    Numbers::of(&text(app).await)
}

/// Asks until the numbers are as they should be.
async fn until(app: &TestApp, what: &str, is_right: impl Fn(&Numbers) -> bool) -> Numbers {
    let end = Instant::now() + PATIENCE;
    loop {
        let seen = numbers(app).await;
        if is_right(&seen) {
            return seen;
        }
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}: {:#?}", seen.0);
        tokio::time::sleep(PERIOD).await;
    }
}

fn requests(route: &str, method: &str, status: u16) -> String {
    format!("storekeeper_http_requests_total{{route=\"{route}\",method=\"{method}\",status=\"{status}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_by_route_method_and_status() {
    let app = shop().await;
    let product = app.product("TEA-1", json!(2.5), 100).await;
    let before = numbers(&app).await;
    let one = format!("/products/{}", product.id);
    for path in [&one, &format!("/api{one}"), &one] {
        app.get(path).send().await.expect(200);
    }
    app.get("/products/none").send().await.expect(404);
    app.delete(&one).send().await.expect(405);
    app.put(&one, &json!({"name": "Tea"})).send().await.expect(401);
    app.ask(Method::HEAD, &one).send().await.expect(200);
    app.ask(Method::from_bytes(b"BREW").expect("a method"), &one).send().await.expect(405);

    let after = numbers(&app).await;
    let route = "/products/{id}";
    for (method, status, times) in [
        ("GET", 200, 3.0),
        ("GET", 404, 1.0),
        ("DELETE", 405, 1.0),
        ("PUT", 401, 1.0),
        ("HEAD", 200, 1.0),
        ("other", 405, 1.0),
        ("PUT", 200, 0.0),
    ] {
        let name = requests(route, method, status);
        assert_eq!(after.count(&name) - before.count(&name), times, "{name}");
    }
    assert_eq!(after.find("storekeeper_http_requests_in_flight"), Some(1.0), "the one that asks for the metrics");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn durations_add_up() {
    let app = shop().await;
    let before = Instant::now();
    let times = 25;
    for _ in 0..times {
        app.get("/products").send().await.expect(200);
    }
    let elapsed = before.elapsed().as_secs_f64();
    let seen = numbers(&app).await;
    let name = |part: &str, more: &str| {
        format!("storekeeper_http_request_duration_seconds_{part}{{route=\"/products\",method=\"GET\"{more}}}")
    };
    assert_eq!(seen.find(&name("count", "")), Some(f64::from(times)));
    let sum = seen.find(&name("sum", "")).expect("a sum");
    assert!(sum > 0.0 && sum <= elapsed, "{sum} s of {elapsed} s");
    let bounds = ["0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10"];
    let within: Vec<f64> = bounds
        .into_iter()
        .chain(["+Inf"])
        .map(|bound| seen.find(&name("bucket", &format!(",le=\"{bound}\""))).unwrap_or_else(|| panic!("no {bound}")))
        .collect();
    assert!(within.is_sorted() && within.last() == Some(&f64::from(times)), "{within:?}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_becomes_a_label() {
    let app = shop().await;
    app.get("/nowhere").send().await.expect(404);
    let before = until(&app, "what is in hand is known", |seen| seen.find("storekeeper_units_held").is_some()).await;
    for number in 0..50 {
        for path in [format!("/nowhere/{number}"), format!("/{number}"), format!("/products/{number}/x")] {
            app.get(&path).send().await.expect(404);
        }
    }
    let after = numbers(&app).await;
    let none = requests("none", "GET", 404);
    assert_eq!(after.count(&none) - before.count(&none), 150.0);
    let names = |numbers: &Numbers| numbers.0.keys().cloned().collect::<BTreeSet<_>>();
    let mut new = names(&after);
    new.retain(|name| !before.0.contains_key(name) && !name.contains("route=\"/metrics\""));
    assert_eq!(new, BTreeSet::new());
    assert!(after.values_of("route").iter().all(|route| !route.contains("nowhere")));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_server_of_a_process_counts_its_own() {
    let (one, other) = (shop().await, shop().await);
    for _ in 0..3 {
        one.get("/cart/me").send().await.expect(200);
    }
    let name = requests("/cart/me", "GET", 200);
    assert_eq!(numbers(&one).await.count(&name), 3.0);
    assert_eq!(numbers(&other).await.count(&name), 0.0);
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_carts_hold_and_the_journal_writes_is_counted() {
    let app = shop().await;
    let tea = app.product("TEA-1", json!(2.5), 10).await;
    let cup = app.product("CUP-1", json!(5), 10).await;
    let entries = |outcome: &str| format!("storekeeper_journal_entries_total{{outcome=\"{outcome}\"}}");
    let before = numbers(&app).await;
    let session = app.cart(&tea, 3).await;
    let add = json!({"productId": cup.id, "quantity": 2});
    app.post("/cart/add-to-cart", &add).session(&session).send().await.expect(200);
    app.cart(&cup, 1).await;
    let after = numbers(&app).await;
    let more = |name: &str| after.count(name) - before.count(name);
    assert_eq!(more(&entries("applied")), 3.0);
    assert_eq!(more(&entries("failed")) + more(&entries("late")), 0.0);
    let all: f64 = ["applied", "refused", "loaded"].into_iter().map(|outcome| more(&entries(outcome))).sum();
    assert_eq!(more("storekeeper_journal_batch_entries_sum"), all);
    let batches = more("storekeeper_journal_batch_entries_count");
    assert!((1.0..=all).contains(&batches), "{batches} batches of {all} entries");
    assert_eq!(more("storekeeper_journal_commit_duration_seconds_count"), batches);
    assert!(more("storekeeper_journal_commit_duration_seconds_sum") > 0.0);

    let in_hand = |carts, holds, units| {
        move |seen: &Numbers| {
            let names = ["storekeeper_carts_open", "storekeeper_holds_open", "storekeeper_units_held"];
            names.map(|name| seen.find(name)) == [Some(carts), Some(holds), Some(units)]
        }
    };
    until(&app, "three holds in two carts", in_hand(2.0, 3.0, 6.0)).await;
    app.delete("/cart").session(&session).send().await.expect(200);
    let last = until(&app, "one hold in one cart", in_hand(1.0, 1.0, 1.0)).await;
    let counted_at = last.find("storekeeper_database_counted_timestamp_seconds").expect("a time");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs_f64();
    assert!((now - counted_at).abs() < PATIENCE.as_secs_f64(), "{counted_at} is not {now}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outbox_empties() {
    let app = shop().await;
    let buyer = app.buyer("ann").await;
    let tea = app.product("TEA-1", json!(2.5), 10).await;
    app.order(&buyer, &tea, 1).await;
    until(&app, "nothing waits", |seen| {
        let names = [
            "storekeeper_outbox_waiting_events",
            "storekeeper_outbox_oldest_event_age_seconds",
            "storekeeper_mails_queued",
        ];
        names.map(|name| seen.find(name)) == [Some(0.0); 3]
    })
    .await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_database_it_tells_what_it_knows() {
    let app = shop().await;
    let tea = app.product("TEA-1", json!(2.5), 10).await;
    app.cart(&tea, 4).await;
    until(&app, "four units are held", |seen| seen.find("storekeeper_units_held") == Some(4.0)).await;
    let database = |state: &str| format!("storekeeper_dependency_state{{dependency=\"database\",state=\"{state}\"}}");
    assert_eq!(numbers(&app).await.find(&database("up")), Some(1.0));
    app.lose_the_database().await;
    let lost = until(&app, "it is noticed", |seen| seen.find(&database("degraded")) == Some(1.0)).await;
    assert_eq!(lost.find(&database("up")), Some(0.0));
    assert_eq!(lost.find("storekeeper_units_held"), Some(4.0));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_and_its_process_are_told() {
    let app = shop().await;
    let seen = numbers(&app).await;
    let version = format!("storekeeper_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(seen.find(&version), Some(1.0));
    for (name, least) in [
        ("process_resident_memory_bytes", 1e6),
        ("process_open_fds", 3.0),
        ("process_max_fds", 3.0),
        ("process_start_time_seconds", 1e9),
        ("process_cpu_seconds_total", 0.01),
        ("storekeeper_database_connections_max", 1.0),
    ] {
        assert!(seen.find(name).is_some_and(|number| number >= least), "{name}: {:?}", seen.find(name));
    }
    let ready = app.get("/health/ready").send().await.expect(200).body;
    for dependency in ["redis", "rabbitmq", "smtp"] {
        let of = |state| {
            seen.find(&format!("storekeeper_dependency_state{{dependency=\"{dependency}\",state=\"{state}\"}}"))
        };
        assert_eq!(
            ["up", "degraded", "off"].into_iter().filter_map(of).sum::<f64>(),
            1.0,
            "{dependency} is in one state"
        );
        let is_off = ready["dependencies"][dependency] == "off";
        assert_eq!(of("off"), Some(if is_off { 1.0 } else { 0.0 }), "{dependency}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_takes_it() {
    let app = shop().await;
    busy(&app).await;
    let complaints = promtool(&["check", "metrics"], &text(&app).await);
    assert_eq!(complaints, "");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_documentation_names_is_there() {
    let app = shop().await;
    busy(&app).await;
    let there = numbers(&app).await.metrics();
    let documented = named_in(OPERATIONS);
    let shown = named_in(&expressions_of_dashboard().join(" "));
    for (file, named) in [("operations.md", &documented), ("grafana-dashboard.json", &shown)] {
        assert!(named.len() > 15, "{file} names metrics: {named:?}");
        let missing: Vec<_> = named.difference(&there).collect();
        assert!(missing.is_empty(), "{file} names what is not there: {missing:?}");
    }
    let undocumented: Vec<_> = there.difference(&documented).collect();
    assert!(undocumented.is_empty(), "operations.md does not name {undocumented:?}");
    app.stop().await;
}

#[test]
fn the_expressions_of_alerts_and_dashboard_can_be_read() {
    let alerts: Vec<String> = OPERATIONS.lines().filter_map(alert_of).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    let rules: Vec<Value> = alerts
        .into_iter()
        .chain(expressions_of_dashboard())
        .enumerate()
        .map(|(number, expression)| json!({"alert": format!("Number{number}"), "expr": expression}))
        .collect();
    // JSON is YAML.
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(&file, json!({"groups": [{"name": "all", "rules": rules}]}).to_string()).expect("written");
    let said = promtool(&["check", "rules", &file.path().to_string_lossy()], "");
    assert!(said.contains(&format!("SUCCESS: {} rules found", rules.len())), "{said}");
}

const OPERATIONS: &str = include_str!("../../docs/operations.md");
const DASHBOARD: &str = include_str!("../../docs/grafana-dashboard.json");

/// A metric's name without its labels and without what a histogram appends.
fn bare(name: &str) -> String {
    let name = &name[..name.find('{').unwrap_or(name.len())];
    let parts = ["_bucket", "_sum", "_count"];
    parts.into_iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name).to_owned()
}

/// The names of metrics in a text.
fn named_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let is_name = |word: &&str| word.starts_with("storekeeper_") || word.starts_with("process_");
    words.filter(is_name).map(bare).collect()
}

/// The expression of a row of the table of alerts.
fn alert_of(line: &str) -> Option<String> {
    let cells: Vec<&str> = line.split(" | ").collect();
    let [_, expression, lasting, _] = cells[..] else { return None };
    let is_span = lasting.ends_with('m') || lasting.ends_with('s');
    let expression = expression.strip_prefix('`')?.strip_suffix('`')?;
    is_span.then(|| expression.replace("\\|", "|"))
}

/// The dashboard's expressions, with something in the place of its variables.
fn expressions_of_dashboard() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    let expressions: Vec<String> = targets
        .map(|target| target["expr"].as_str().expect("an expression").to_owned())
        .map(|text| text.replace("$__rate_interval", "5m").replace("$job", "storekeeper").replace("$instance", ".*"))
        .collect();
    assert!(expressions.len() > 20 && expressions.iter().all(|text| !text.contains('$')), "{expressions:?}");
    expressions
}

/// Has Prometheus's own tool read something, which it must not refuse; gives what it said.
fn promtool(arguments: &[&str], text: &str) -> String {
    let mut promtool = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts: scripts/test installs it");
    promtool.stdin.take().expect("its input").write_all(text.as_bytes()).expect("read");
    let said = promtool.wait_with_output().expect("its end");
    let text_said = String::from_utf8_lossy(&said.stderr).into_owned() + &String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success(), "{text_said}\n{text}");
    text_said
}

/// Has everything counted that is counted only when it happens.
async fn busy(app: &TestApp) {
    let tea = app.product("TEA-1", json!(2.5), 10).await;
    app.cart(&tea, 1).await;
    until(app, "what is in hand is known", |seen| seen.find("storekeeper_units_held") == Some(1.0)).await;
}
