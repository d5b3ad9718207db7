//! Told to stop, and started twice.
//!
//! `STOP_ROUNDS=<number>` stops it under load so often.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use proptest::prelude::RngExt;
use serde_json::{Value, json};
use storekeeper::persistence::clock::Clock;
use uuid::Uuid;

use crate::audit::{Audit, assert_books_in_order};
use crate::guest::Shop;
use crate::load::{Crowd, Load, open_shop, seeded};
use crate::place::Place;
use crate::server::{Server, program};

const ROUNDS: usize = 2;
/// Requests that the server has begun to read when it is told to stop.
const BEGUN: usize = 12;
/// It is told to stop after so many answers at most.
const ANSWERS_MAX: u64 = 600;

/// How often servers are stopped under load.
pub(crate) fn rounds() -> usize {
    std::env::var("STOP_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().expect("a whole number"))
}

#[test]
fn a_second_server_on_the_same_folder_is_refused() {
    let place = Place::embedded();
    let first = Server::start(&place, &[]);
    let second = program(&place, "serve", &[]).output().expect("the program runs");
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(3), "{said}");
    assert!(said.contains("the data folder ") && said.contains(" is in use by another storekeeper"), "{said}");
    assert!(second.stdout.is_empty(), "a server that does not serve does not say that it does");
    // The first one goes on, and what it leaves can be taken over, however it ends.
    first.kill();
    let third = Server::start(&place, &[]);
    third.terminate();
    assert_eq!(third.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_every_request_is_answered_or_refused() {
    let place = Place::new().await;
    let seed = u64::try_from(Clock::system().now().0).expect("a time after 1970");
    let mut random = seeded(seed);
    let mut server = Server::start(&place, &[]);
    let shop = open_shop(&server).await;
    let (mut everybody, mut added) = (Crowd::default(), Vec::new());
    for round in 1..=rounds() {
        let answers = random.random_range(0..=ANSWERS_MAX);
        let load = Load::begin(&server, &shop, &mut random);
        load.answers(answers).await;
        let begun: Vec<Begun> = (0..BEGUN).map(|_| Begun::add_to_cart(&server, &shop)).collect();
        server.terminate();
        added.extend(begun.into_iter().map(Begun::end));
        let endings = load.endings();
        let crowd = load.end().await;
        assert_eq!(server.wait().code(), Some(0));
        let (refused, closed) = (endings.refused(), endings.closed());
        println!(
            "round {round}, drawn from {seed}: stopped after {answers} answers, {refused} refused, {closed} closed"
        );
        assert_eq!(endings.broken(), [""; 0], "each is a client that was let in and not answered");

        everybody.take(crowd);
        assert_books_in_order(&place);
        let mut audit = Audit::open(&place, &shop).await;
        audit.assert_exactly(&everybody, added.len()).await;
        for (status, cart) in &added {
            assert_eq!(*status, 200, "{cart}");
            audit.assert_has_one(cart).await;
        }
        audit.close().await;
        // With a grace or without.
        let grace = (round % 2).to_string();
        server = Server::start(&place, &[("SHUTDOWN_GRACE", &grace)]);
    }
}

/// A request whose head the server has read, and whose body it waits for.
pub(crate) struct Begun {
    connection: BufReader<TcpStream>,
    body: String,
}

impl Begun {
    /// A unit for a new cart. By its `100 Continue` the server says that it has begun.
    pub(crate) fn add_to_cart(server: &Server, shop: &Shop) -> Self {
        let body = json!({"productId": shop.items[0].product, "quantity": 1}).to_string();
        let address = server.address();
        let mut connection = BufReader::new(TcpStream::connect(address).expect("a connection"));
        let (length, key) = (body.len(), Uuid::now_v7());
        let head = format!(
            "POST /cart/add-to-cart HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\nIdempotency-Key: {key}\r\nExpect: 100-continue\r\n\r\n"
        );
        connection.get_mut().write_all(head.as_bytes()).expect("sent");
        assert_eq!(read_head(&mut connection).0, 100);
        Self { connection, body }
    }

    /// Sends nothing more; gives what is answered until the connection ends.
    pub(crate) fn wait(mut self) -> String {
        let mut answer = Vec::new();
        // Ended or reset: what counts is what came before.
        drop(self.connection.read_to_end(&mut answer));
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Sends the rest; gives the whole answer.
    fn end(mut self) -> (u16, Value) {
        self.connection.get_mut().write_all(self.body.as_bytes()).expect("sent");
        let (status, length) = read_head(&mut self.connection);
        let mut body = vec![0; length];
        self.connection.read_exact(&mut body).expect("the whole body");
        (status, serde_json::from_slice(&body).expect("JSON"))
    }
}

/// Reads the head of an answer; gives its status and the length of its body.
fn read_head(connection: &mut BufReader<TcpStream>) -> (u16, usize) {
    let mut lines = connection.lines().map(|line| line.expect("an answer"));
    let status = lines.next().expect("an answer");
    let status = status.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let length = lines.take_while(|line| !line.is_empty()).filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().expect("a length"))
    });
    (status, length.last().unwrap_or_default())
}
