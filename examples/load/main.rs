//! Load as a shop sees it: many people at a server that runs, and then the server's own word on whether its books are
//! right. `scripts/load` builds this and a server and runs it.
//!
//! - `flash-sale`: all want the same product, of which there is not enough; guests put it into a cart and buy at once.
//! - `browse`: people look at lists and at products, some far more popular than others.
//! - `mixed`: most look, some fill a cart, half of those buy.
//! - `peak`: as many requests as one route does, one route after the other, asked by wrk, and beside what the same
//!   server does of an empty route.
//!
//! The first three are goose's, which plays people and measures as they would, and writes a report in HTML; it takes as
//! much of the machine as the server does. Peak rates are therefore wrk's, which takes little. Without `--url` this
//! starts a server of its own, on loopback. Another machine is asked only when `--anywhere` says so.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a program that measures stops at a fault and prints")]

#[expect(dead_code, reason = "examples/capacity does more with it")]
mod api;
mod books;
#[expect(dead_code, reason = "benches fill databases with it")]
#[path = "../../benches/support/filled.rs"]
mod filled;
mod peak;
#[expect(dead_code, reason = "tests share a server; a load test has its own, and more durable, one")]
#[path = "../../tests/support/postgres.rs"]
mod postgres;
#[path = "../../tests/support/rabbitmq.rs"]
mod rabbitmq;
#[expect(dead_code, reason = "tests do more with it")]
#[path = "../../tests/support/redis.rs"]
mod redis;
mod scenarios;
#[expect(dead_code, reason = "examples/capacity does more with it")]
mod server;
#[path = "../../tests/support/unprivileged.rs"]
mod unprivileged;
mod verdict;
#[path = "../../benches/support/zipf.rs"]
mod zipf;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, ValueEnum};
use url::{Host, Url};

use api::Api;
use rabbitmq::VirtualHost;
use scenarios::People;
use server::{Ground, Server};

/// Plays a load against a server and asks the server for a verdict.
#[derive(Parser)]
#[command(name = "scripts/load")]
struct Arguments {
    /// What is played.
    #[arg(value_enum)]
    load: Load,
    /// People at a time, or connections. [default: 64; of a peak 64, and then 256]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=4_096))]
    users: Option<u16>,
    /// For how long, seconds; of a peak, each route each time. [default: 20; of a peak 3, and 10 at most]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: Option<u64>,
    /// How often each route has its turn in a peak; what is told are medians.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=50))]
    rounds: u8,
    /// Products; a flash sale has one. [default: 1,000; of a peak 10,000]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    products: Option<u32>,
    /// Units of each; of a peak a million.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
    stock: i64,
    /// Buyers who have signed in, who take turns.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    buyers: u16,
    /// How long a person thinks between two steps at most, milliseconds.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    think_ms: u64,
    /// The server is to have PostgreSQL, with every commit synced, Redis and RabbitMQ: private ones, which this starts
    /// (RabbitMQ unless TEST_AMQP_URL names one).
    #[arg(long, conflicts_with = "url")]
    real: bool,
    /// A server that runs already, whose administrator's ADMIN_EMAIL and ADMIN_PASSWORD are in the environment.
    #[arg(long)]
    url: Option<Url>,
    /// The server may be on another machine.
    #[arg(long, requires = "url")]
    anywhere: bool,
    /// Where the report goes.
    #[arg(long, default_value = "target/load")]
    reports: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Load {
    FlashSale,
    Browse,
    Mixed,
    Peak,
}

impl Load {
    fn name(self) -> &'static str {
        match self {
            Self::FlashSale => "flash-sale",
            Self::Browse => "browse",
            Self::Mixed => "mixed",
            Self::Peak => "peak",
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(url) = &arguments.url
        && !arguments.anywhere
        && !is_loopback(url)
    {
        println!(
            "--url: {url} is not on this machine; a load is no kindness to others. --anywhere says that it is meant."
        );
        return ExitCode::from(2);
    }
    if arguments.load == Load::Peak && arguments.seconds > Some(peak::SECONDS_MAX) {
        println!("--seconds: a peak asks each route for {} s at most", peak::SECONDS_MAX);
        return ExitCode::from(2);
    }
    let broker = match arguments.real {
        true => Some(tokio::task::spawn_blocking(VirtualHost::new).await.expect("RabbitMQ starts")),
        false => None,
    };
    let server = match &arguments.url {
        None => start(&arguments, broker.as_ref()).await,
        Some(url) => Server::given(url),
    };
    let (name, stock) = (arguments.load.name(), stock(&arguments));
    let with = if broker.is_some() { " and RabbitMQ" } else { "" };
    println!("{name}: {}{with} at {}", server.place(), server.base());
    let api = Api::sign_in(&server).await;
    let people = Arc::new(People::gather(&api, products(&arguments), stock, arguments.buyers).await);
    println!("{} products with {stock} units each, {} buyers signed in", people.items.len(), people.buyers.len());
    match arguments.load {
        Load::FlashSale | Load::Browse | Load::Mixed => scenarios::play(&arguments, &server, &people).await,
        Load::Peak => peak::measure(&arguments, &server, &people).await,
    }
    if verdict::of(&api, &people, server).await { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A server of our own.
async fn start(arguments: &Arguments, broker: Option<&VirtualHost>) -> Server {
    let mut settings = Vec::new();
    settings.extend(broker.map(|broker| ("AMQP_URL", broker.url.clone())));
    if arguments.load == Load::Peak {
        settings.extend(server::long_lived_carts());
    }
    Server::on(Ground::new(arguments.real).await, settings).await
}

fn products(arguments: &Arguments) -> u32 {
    let unless_said = |products| arguments.products.unwrap_or(products);
    match arguments.load {
        Load::FlashSale => 1,
        Load::Browse | Load::Mixed => unless_said(scenarios::PRODUCTS),
        Load::Peak => unless_said(peak::PRODUCTS),
    }
}

fn stock(arguments: &Arguments) -> i64 {
    if arguments.load == Load::Peak { peak::STOCK } else { arguments.stock }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}
