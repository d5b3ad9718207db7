//! Killed at random moments, under load, again and again on the same database.
//!
//! `CRASH_ROUNDS=<number>` kills it so often.

use std::env;

use proptest::prelude::RngExt;
use storekeeper::persistence::clock::Clock;
use tokio::time::{Instant, sleep};

use crate::audit::{Audit, assert_books_in_order};
use crate::client::Client;
use crate::guest::Shop;
use crate::load::{Crowd, LOOK_PERIOD, Load, PATIENCE, open_shop, seeded};
use crate::place::Place;
use crate::server::Server;

const ROUNDS: u64 = 3;
/// The server is killed after so many answers at most.
const ANSWERS_MAX: u64 = 900;
/// Carts end soon: those of the dead are waited for.
const SETTINGS: [(&str, &str); 1] = [("CART_TTL", "4")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_survives_kill_9() {
    let rounds = env::var("CRASH_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().expect("a whole number"));
    let place = Place::new().await;
    let seed = u64::try_from(Clock::system().now().0).expect("a time after 1970");
    let mut random = seeded(seed);
    let mut server = Server::start(&place, &SETTINGS);
    let shop = open_shop(&server).await;
    let mut everybody = Crowd::default();
    for round in 1..=rounds {
        let answers = random.random_range(0..=ANSWERS_MAX);
        println!("round {round} of {rounds}, drawn from {seed}: killed after {answers} answers");
        let load = Load::begin(&server, &shop, &mut random);
        load.answers(answers).await;
        server.kill();
        let mut crowd = load.end().await;
        assert_kept(&place, &shop, &crowd).await;

        server = Server::start(&place, &SETTINGS);
        ask_again(&server, &mut crowd).await;
        assert_carts_end(&place, &shop).await;
        assert_kept(&place, &shop, &crowd).await;
        everybody.take(crowd);
        assert_stock(&place, &shop, &everybody).await;
    }
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
    assert_kept(&place, &shop, &everybody).await;
    place.assert_in_order().await;
}

async fn assert_kept(place: &Place, shop: &Shop, everybody: &Crowd) {
    assert_books_in_order(place);
    let mut audit = Audit::open(place, shop).await;
    audit.assert_kept(&everybody.guests, &everybody.warehouses).await;
    audit.close().await;
}

async fn assert_stock(place: &Place, shop: &Shop, everybody: &Crowd) {
    let audit = Audit::open(place, shop).await;
    audit.assert_stock(&everybody.guests, &everybody.warehouses).await;
    audit.close().await;
}

/// What had no answer is asked once more, and some of what had one.
async fn ask_again(server: &Server, everybody: &mut Crowd) {
    let client = Client::of(server);
    for guest in &mut everybody.guests {
        guest.repeat_last(&client).await;
        guest.ask_again(&client).await;
    }
    for warehouse in &mut everybody.warehouses {
        warehouse.book_again(&client).await;
    }
}

/// Nobody renews the carts any more: each ends by itself, none before its time, and gives back what it held.
async fn assert_carts_end(place: &Place, shop: &Shop) {
    let mut audit = Audit::open(place, shop).await;
    let end = Instant::now() + PATIENCE;
    while audit.open_carts().await > 0 {
        assert!(Instant::now() < end, "carts are open for ever");
        sleep(LOOK_PERIOD).await;
    }
    for item in 0..shop.items.len() {
        assert_eq!(audit.balance(item).await.1, 0, "units of item {item} are held for nobody");
    }
    let (expired, early) = audit.expired_holds().await;
    assert_eq!(early, 0, "of {expired} holds that ended by themselves");
    audit.close().await;
}
