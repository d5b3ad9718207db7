//! The server's memory: for carts that live, for products that nobody asks for, and after they were asked for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::api::Api;
use crate::server::{self, Ground, Server};
use crate::{Arguments, address, adds, client, fill, path, tell};

/// Products of a small shop.
const FEW: u32 = 1_000;
/// Carts and products that a server has seen before what it takes for more of them is looked at.
const WARM: u32 = 10_000;
/// Products that are looked at in a round.
const LOOKED_AT: u32 = 100_000;
/// Seconds until an actor is put away that nobody asks: long enough for all to be asked first.
const IDLE: u64 = 30;
/// How long after `IDLE` the last actor may go.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// How long a server is left alone before its memory is read.
const CALM: Duration = Duration::from_secs(2);

/// Measures, prints, and gives whether all is right.
pub(crate) async fn measure(arguments: &Arguments) -> bool {
    let few = carts(arguments).await;
    println!();
    let Some(many) = products(arguments).await else { return false };
    println!("{:>10} kB  more than the server of {FEW} products, before anything is asked", difference(many, few));
    true
}

/// What carts take; gives what the server took before there was one, kB.
async fn carts(arguments: &Arguments) -> u64 {
    let server = open(arguments, FEW).await;
    println!("memory, {}, {FEW} products", server.place());
    let begun = told(&server, "when it had started").await;
    let warm = fill_carts(arguments, &server, WARM).await;
    let before = told(&server, &format!("with {WARM} live carts")).await;
    let sessions = fill_carts(arguments, &server, arguments.carts).await;
    let after = told(&server, &format!("with {} more", arguments.carts)).await;
    print_each(after, before, arguments.carts, "a live cart with one line");
    print_each(after, begun, arguments.carts + WARM, "the same, from the start of the server on");
    drop(warm);
    let look = |session: &String| {
        format!("GET /cart/me HTTP/1.1\r\nhost: shop\r\nx-cart-session-id: {session}\r\n\r\n").into_bytes()
    };
    let looks = client::Requests { all: sessions.iter().map(look).collect(), status: 200, keep: None };
    let connections = usize::from(arguments.connections);
    client::send(address(&server), connections, Arc::new(looks), sessions.len()).await;
    let asked = told(&server, "when each of these had been asked for, and so had an actor").await;
    print_each(asked, before, arguments.carts, "a live cart whose actor is there");
    until_put_away(&server).await;
    let rest = told(&server, "when all actors were put away").await;
    print_each(rest, before, arguments.carts, "a live cart that was left alone for IDLE_ACTOR_TTL");
    begun
}

/// What products take; gives what the server took before one was asked for, kB.
async fn products(arguments: &Arguments) -> Option<u64> {
    let server = open(arguments, arguments.products).await;
    println!("memory, {}, {} products", server.place(), arguments.products);
    let begun = told(&server, "when it had started").await;
    let token = Api::sign_in(&server).await.token().to_owned();
    let connections = usize::from(arguments.connections);
    for round in 0..u32::from(arguments.rounds) {
        let numbers = (0..LOOKED_AT).map(|number| (round * LOOKED_AT + number) % arguments.products);
        let all = numbers
            .flat_map(|number| {
                let product = client::get(&path("products", number), None);
                [product, client::get(&path("inventories", number), Some(&token))]
            })
            .collect();
        let looks = client::Requests { all, status: 200, keep: None };
        client::send(address(&server), connections, Arc::new(looks), 2 * LOOKED_AT as usize).await;
        told(&server, &format!("when {LOOKED_AT} products and inventories had been looked at")).await;
        until_put_away(&server).await;
        told(&server, "when all actors were put away").await;
    }
    tell(server.leave().is_some(), "the server stops in order").then_some(begun)
}

async fn open(arguments: &Arguments, products: u32) -> Server {
    let ground = Ground::new(arguments.real).await;
    fill(&ground, products).await;
    let mut settings = server::long_lived_carts().to_vec();
    settings.push(("IDLE_ACTOR_TTL", IDLE.to_string()));
    Server::on(ground, settings).await
}

async fn fill_carts(arguments: &Arguments, server: &Server, count: u32) -> Vec<String> {
    let requests = Arc::new(adds(count, FEW));
    client::send(address(server), usize::from(arguments.connections), requests, count as usize).await.kept
}

/// Waits until no product and no cart has an actor.
async fn until_put_away(server: &Server) {
    let api = Api::sign_in(server).await;
    let end = Instant::now() + Duration::from_secs(IDLE) + PATIENCE;
    loop {
        let actors = api.get("/admin/actors?limit=1").await;
        let kinds = actors["summary"].as_array().expect("a summary").iter();
        let idle = kinds.filter(|kind| kind["kind"] == "inventory" || kind["kind"] == "cart");
        let live: i64 = idle.map(|kind| kind["live"].as_i64().expect("a number")).sum();
        if live == 0 {
            return;
        }
        assert!(Instant::now() < end, "{live} actors are still there");
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}

/// What the server takes, kB, when it has been left alone for a moment; printed, too.
async fn told(server: &Server, when: &str) -> u64 {
    tokio::time::sleep(CALM).await;
    let memory = server.memory_kb().expect("the server runs");
    println!("{memory:>10} kB  {when}");
    memory
}

fn print_each(after: u64, before: u64, count: u32, what: &str) {
    println!("{:>10.2} kB  {what}", difference(after, before) as f64 / f64::from(count));
}

fn difference(after: u64, before: u64) -> i64 {
    after.cast_signed() - before.cast_signed()
}
