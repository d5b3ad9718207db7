//! Two servers on one database, started again one after the other while clients buy.
//!
//! `STOP_ROUNDS=<number>` does it so often.

use std::net::TcpListener;

use proptest::prelude::RngExt;
use proptest::test_runner::TestRng;
use storekeeper::persistence::clock::Clock;

use crate::audit::{Audit, assert_books_in_order};
use crate::client::Client;
use crate::load::{Load, open_shop, seeded};
use crate::place::Place;
use crate::server::Server;
use crate::stop::rounds;

/// Answers between two restarts.
const ANSWERS: u64 = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_are_started_again_in_turn_lose_no_request() {
    let place = Place::shared().await;
    let seed = u64::try_from(Clock::system().now().0).expect("a time after 1970");
    let mut random = seeded(seed);
    let places = [free_place(&mut random), free_place(&mut random)];
    let start = |number: usize| Server::start(&place, &[("BIND", &places[number])]);
    let mut servers = [start(0), start(1)];
    let shop = open_shop(&servers[0]).await;
    let client = Client::of_each(&[&servers[0], &servers[1]]);
    let load = Load::begin_at(client, &shop, &mut random);
    for round in 1..=rounds() {
        for (number, server) in servers.iter_mut().enumerate() {
            println!("round {round}, drawn from {seed}: server {number} is started again");
            load.more_answers(ANSWERS).await;
            server.terminate();
            assert_eq!(server.end().code(), Some(0));
            *server = start(number);
        }
    }
    load.more_answers(ANSWERS).await;
    servers.iter().for_each(Server::terminate);
    let endings = load.endings();
    let crowd = load.end().await;
    for server in servers {
        assert_eq!(server.wait().code(), Some(0));
    }
    println!("{} refused, {} closed", endings.refused(), endings.closed());
    assert_eq!(endings.broken(), [""; 0], "each is a client that was let in and not answered");
    assert_books_in_order(&place);
    let mut audit = Audit::open(&place, &shop).await;
    audit.assert_exactly(&crowd, 0).await;
    audit.close().await;
}

/// An address at which nobody listens, and whose port the system gives to no client: it stays free between two servers.
fn free_place(random: &mut TestRng) -> String {
    let mut places = std::iter::repeat_with(|| format!("127.0.0.1:{}", random.random_range(15_000..32_000)));
    places.find(|place| TcpListener::bind(place).is_ok()).expect("a port")
}
