//! More work than the journal does: what is accepted, what is refused and how soon, and whether memory stays flat.
//!
//! `scripts/overload` builds this and a server with the feature `fault-injection`, whose journal is then held to
//! `RATE` entries a second (500), and runs it: `OFFERED` requests a second (2,000) for `SECONDS` (30), each one unit of one
//! product for a new cart, at their times whether or not earlier ones have been answered. It prints what it saw, and
//! asserts nothing. It talks to the server that it has started, and to nobody else.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a program that measures stops at a fault and prints")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

const ADMIN_EMAIL: &str = "admin@example.org";
const ADMIN_PASSWORD: &str = "correct horse battery staple";
/// Requests are sent in groups, this often.
const TICK: Duration = Duration::from_millis(5);
/// How often the server's memory is looked at.
const LOOK_PERIOD: Duration = Duration::from_secs(5);

/// A request's answer: its status, its code when it was refused, and how long it took.
type Answer = (u16, String, Duration);

/// The server, which ends with this program.
struct Server {
    process: Child,
    base: String,
}

impl Server {
    fn start(folder: &std::path::Path, rate: u64) -> Self {
        let here = std::env::current_exe().expect("this program has a place");
        let program = here.ancestors().nth(2).expect("the folder of the build").join("storekeeper");
        let mut process = Command::new(&program)
            .current_dir(folder)
            .env_clear()
            .envs([("BIND", "127.0.0.1:0"), ("ADMIN_EMAIL", ADMIN_EMAIL), ("ADMIN_PASSWORD", ADMIN_PASSWORD)])
            .env("FAULT_JOURNAL_RATE", rate.to_string())
            .env("LOG", "error")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server was built beside this program");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("its output")).read_line(&mut line).expect("its output");
        let (_, address) = line.split_once("http://").expect("it says where it serves");
        Self { base: format!("http://{}", address.trim()), process }
    }

    /// Resident memory, MiB.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() / 1_024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[tokio::main]
async fn main() {
    let [rate, offered, seconds] = [("RATE", 500), ("OFFERED", 2_000), ("SECONDS", 30)].map(number);
    assert!(seconds <= 600 && offered <= 20_000, "this is a bounded run");
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), rate);
    let client = Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().expect("a client");
    let product = product(&client, &server.base).await;
    println!("offered {offered}/s for {seconds} s to a journal that does {rate}/s");
    println!("memory at the start: {} MiB", server.memory());

    let answers = offer(&client, &server, &product, offered, seconds).await;
    report(&answers, rate, seconds);
    println!("memory at the end: {} MiB", server.memory());
}

fn number((name, unset): (&str, u64)) -> u64 {
    std::env::var(name).ok().map_or(unset, |text| text.parse().expect("a whole number"))
}

/// A product of which there is enough.
async fn product(client: &Client, base: &str) -> String {
    let ask = async |path: &str, token: &str, body: Value| -> Value {
        let asked = client.post(format!("{base}{path}")).bearer_auth(token).json(&body);
        asked.send().await.expect("an answer").json().await.expect("JSON")
    };
    let token = ask("/auth/login", "", json!({"email": ADMIN_EMAIL, "password": ADMIN_PASSWORD})).await;
    let token = token["accessToken"].as_str().expect("a token").to_owned();
    let lamp =
        json!({"sku": "LAMP-1", "name": "Desk lamp", "price": 49.9, "status": "PUBLISHED", "quantity": 1_000_000});
    ask("/products", &token, lamp).await["id"].as_str().expect("an id").to_owned()
}

/// Sends the requests at their times, and waits for all answers.
async fn offer(client: &Client, server: &Server, product: &str, offered: u64, seconds: u64) -> Vec<Answer> {
    let body = json!({"productId": product, "quantity": 1}).to_string();
    let url = format!("{}/cart/add-to-cart", server.base);
    let (mut asking, mut answers) = (JoinSet::new(), Vec::new());
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (begin, mut sent, mut looked) = (Instant::now(), 0, Instant::now());
    while sent < offered * seconds {
        tick.tick().await;
        let due = (begin.elapsed().as_millis() * u128::from(offered) / 1_000).min(u128::from(offered * seconds));
        while u128::from(sent) < due {
            sent += 1;
            let ask = client.post(&url).header("content-type", "application/json").body(body.clone());
            asking.spawn(async move {
                let sent = Instant::now();
                match ask.send().await {
                    Ok(answer) => {
                        let status = answer.status().as_u16();
                        let document: Value = answer.json().await.unwrap_or_default();
                        (status, document["code"].as_str().unwrap_or_default().to_owned(), sent.elapsed())
                    }
                    Err(error) => (0, error.to_string(), sent.elapsed()),
                }
            });
        }
        while let Some(ended) = asking.try_join_next() {
            answers.push(ended.expect("no panic"));
        }
        if looked.elapsed() >= LOOK_PERIOD {
            looked = Instant::now();
            println!(
                "after {:>3} s: {} MiB, {} without an answer",
                begin.elapsed().as_secs(),
                server.memory(),
                asking.len()
            );
        }
    }
    answers.extend(asking.join_all().await);
    answers
}

fn report(answers: &[Answer], rate: u64, seconds: u64) {
    let mut kinds: BTreeMap<(u16, &str), Vec<Duration>> = BTreeMap::new();
    for (status, code, took) in answers {
        kinds.entry((*status, code)).or_default().push(*took);
    }
    println!("status  code            answers      a second    median        p99");
    for ((status, code), took) in &mut kinds {
        took.sort_unstable();
        let [median, p99] = [50, 99].map(|percent| took[(took.len() * percent / 100).min(took.len() - 1)]);
        let a_second = took.len() as u64 / seconds;
        let (median, p99) = (median.as_millis(), p99.as_millis());
        println!("{status:<7} {code:<15} {:>7} {a_second:>13} {median:>7} ms {p99:>7} ms", took.len());
    }
    let accepted = kinds.get(&(200, "")).map_or(0, Vec::len) as u64;
    println!("accepted: {} % of what the journal does", accepted * 100 / (rate * seconds));
}
