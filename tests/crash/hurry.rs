//! Told to stop, and not left alone: seen by a load balancer, told a second time, or with work that does not end.

use std::net::TcpListener;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::audit::{Audit, assert_books_in_order};
use crate::load::{LOOK_PERIOD, Load, PATIENCE, open_shop, seeded};
use crate::place::Place;
use crate::server::{Server, program};
use crate::stop::Begun;
use crate::wire::{Connection, Ending, Reply, Request};

/// Answers that are waited for before and after the first signal.
const ANSWERS: u64 = 100;
/// It is told to stop, and its time is soon over.
pub(crate) const LITTLE_TIME: [(&str, &str); 2] = [("REQUEST_DEADLINE_MS", "1000"), ("SHUTDOWN_LIMIT", "2")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_its_grace_it_serves_on_and_a_second_signal_ends_it_at_once() {
    let place = Place::new().await;
    // Longer than any test waits.
    let server = Server::start(&place, &[("SHUTDOWN_GRACE", "3600")]);
    let shop = open_shop(&server).await;
    let load = Load::begin(&server, &shop, &mut seeded(1));
    load.answers(ANSWERS).await;
    let mut early = open(&server).await;
    assert!(get(&mut early, "/health/ready").await.goes_on());

    server.terminate();
    until_not_ready(&server).await;
    let last = get(&mut early, "/health/live").await;
    assert_eq!((last.status, last.goes_on()), (200, false), "it is answered, and the connection ends");
    let live = get(&mut open(&server).await, "/health/live").await;
    assert_eq!((live.status, live.goes_on()), (200, false), "it lets in whoever comes");
    load.more_answers(ANSWERS).await;
    assert_eq!(load.endings().broken(), [""; 0]);

    server.interrupt();
    assert_eq!(server.wait().code(), Some(5));
    let crowd = load.end().await;
    assert_books_in_order(&place);
    let mut audit = Audit::open(&place, &shop).await;
    audit.assert_kept(&crowd.guests, &crowd.warehouses).await;
    audit.close().await;
}

#[tokio::test]
async fn an_idle_connection_ends_without_a_byte() {
    let place = Place::embedded();
    let server = Server::start(&place, &[]);
    let address = server.address().to_owned();
    let mut idle = open(&server).await;
    assert!(get(&mut idle, "/health/live").await.goes_on());
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(idle.ask(&request("/health/live")).await.expect_err("nobody is there"), Ending::Closed);
    assert_eq!(Connection::open(&address).await.err(), Some(Ending::Refused));
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_off_when_the_time_is_over() {
    let place = Place::embedded();
    let server = Server::start(&place, &LITTLE_TIME);
    let shop = open_shop(&server).await;
    // A body may take longer than there is time: an answer would show that it was waited for.
    let begun = Begun::add_to_cart(&server, &shop);
    server.terminate();
    assert_eq!(server.wait().code(), Some(4));
    assert_eq!(begun.wait(), "");
    assert_books_in_order(&place);
}

#[test]
fn told_to_stop_before_it_serves_it_ends() {
    let place = Place::embedded();
    // A database that takes connections and says nothing.
    let database = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("postgres://shop@{}/shop", database.local_addr().expect("an address"));
    let mut program = program(&place, "serve", &[("DATABASE_URL", &url)]);
    let server = Server::silent(program.env_remove("DATA_DIR"), &place);
    let connection = database.accept().expect("it looks for its database");
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
    drop(connection);
}

/// Waits until it says that it is stopping.
async fn until_not_ready(server: &Server) {
    let end = Instant::now() + PATIENCE;
    loop {
        let ready = get(&mut open(server).await, "/health/ready").await;
        if ready.status == 503 {
            let problem: Value = serde_json::from_slice(&ready.body).expect("JSON");
            assert_eq!((&problem["code"], ready.goes_on()), (&json!("stopping"), false), "{problem}");
            return;
        }
        assert!(Instant::now() < end, "it is ready for ever");
        sleep(LOOK_PERIOD).await;
    }
}

async fn open(server: &Server) -> Connection {
    Connection::open(server.address()).await.expect("a connection")
}

async fn get(connection: &mut Connection, path: &str) -> Reply {
    connection.ask(&request(path)).await.expect("an answer")
}

fn request(path: &str) -> Request<'_> {
    Request { method: "GET", path, headers: Vec::new(), body: String::new() }
}
