//! What a server takes, of time and of memory, for much of one thing. `scripts/capacity` builds this and a server and
//! runs it.
//!
//! - `events`: orders are placed, and it is timed until the last event is out and the last mail is kept.
//! - `memory`: what a cart with one line takes, what a product takes that nobody asks for, and whether what was looked
//!   at goes again.
//! - `start`: from the start of the program until it is ready, on a database full of products.
//!
//! Everything that it talks to it has started itself, on loopback, and it asserts no figure: it ends with a fault when
//! something is wrong, not when something is slow.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a program that measures stops at a fault and prints")]

#[expect(dead_code, reason = "examples/load does more with it")]
#[path = "../load/api.rs"]
mod api;
#[path = "../load/books.rs"]
mod books;
#[path = "../../benches/http/client.rs"]
mod client;
mod events;
#[path = "../../benches/support/filled.rs"]
mod filled;
mod memory;
#[expect(dead_code, reason = "tests share a server; this has its own, and more durable, one")]
#[path = "../../tests/support/postgres.rs"]
mod postgres;
mod process;
#[path = "../../tests/support/rabbitmq.rs"]
mod rabbitmq;
#[expect(dead_code, reason = "tests do more with it")]
#[path = "../../tests/support/redis.rs"]
mod redis;
#[expect(dead_code, reason = "examples/load takes servers that run already")]
#[path = "../load/server.rs"]
mod server;
mod start;
#[path = "../../tests/support/unprivileged.rs"]
mod unprivileged;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use server::{Ground, Server};

/// Units of each product: more than is sold.
const UNITS: i64 = 1_000_000_000;

/// Measures what a server takes for much of one thing.
#[derive(Parser)]
#[command(name = "scripts/capacity")]
struct Arguments {
    /// What is measured.
    #[arg(value_enum)]
    what: What,
    /// The server is to have PostgreSQL, with every commit synced, and Redis, and for events RabbitMQ: private ones,
    /// which this starts.
    #[arg(long)]
    real: bool,
    /// Orders that are placed.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    orders: u32,
    /// Carts that live at a time.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    carts: u32,
    /// Products of a large shop.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=2_000_000))]
    products: u32,
    /// Connections that ask at a time.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    connections: u16,
    /// How often 100,000 products are looked at, others each time, and left alone again.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    rounds: u8,
    /// How often a server is started.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=50))]
    starts: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    Events,
    Memory,
    Start,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let right = match arguments.what {
        What::Events => events::measure(&arguments).await,
        What::Memory => memory::measure(&arguments).await,
        What::Start => start::measure(&arguments).await,
    };
    if right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Makes the server's tables, and so many products.
async fn fill(ground: &Ground, products: u32) {
    match ground.database() {
        ("DATABASE_URL", url) => filled::fill_postgres(&url, products.into(), UNITS).await,
        (_, folder) => {
            std::fs::create_dir_all(&folder).expect("a folder");
            filled::fill(folder.as_ref(), products.into(), UNITS).await;
        }
    }
}

/// Where a server listens.
fn address(server: &Server) -> SocketAddr {
    server.base().trim_start_matches("http://").parse().expect("an address")
}

/// The path of one of the products that the shop was filled with, or of its inventory.
fn path(resource: &str, number: u32) -> String {
    format!("/{resource}/{}", uuid::Uuid::from_u128(number.into()))
}

/// Puts one unit into a fresh cart, for each of the numbers; the products take turns.
fn adds(carts: u32, products: u32) -> client::Requests {
    let add = |number: u32| {
        let product = uuid::Uuid::from_u128((number % products).into());
        client::post("/cart/add-to-cart", None, &format!(r#"{{"productId":"{product}","quantity":1}}"#))
    };
    client::Requests { all: (0..carts).map(add).collect(), status: 200, keep: Some("x-cart-session-id") }
}

/// Prints whether something is as it must be; gives it back.
fn tell(right: bool, what: &str) -> bool {
    println!("  {}  {what}", if right { "ok  " } else { "BAD " });
    right
}
