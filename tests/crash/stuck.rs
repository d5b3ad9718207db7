//! Told to stop, with a journal that does not get done.

use reqwest::Method;
use serde_json::json;

use crate::audit::assert_books_in_order;
use crate::client::{Ask, Client};
use crate::hurry::LITTLE_TIME;
use crate::load::open_shop;
use crate::place::Place;
use crate::server::Server;

#[tokio::test]
async fn work_that_does_not_end_does_not_keep_the_server() {
    let place = Place::new().await;
    let server = Server::start(&place, &[]);
    let shop = open_shop(&server).await;
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));

    // A commit is followed by a wait that no test would survive.
    let settings = [LITTLE_TIME[0], LITTLE_TIME[1], ("FAULT_JOURNAL_RATE", "0.000001")];
    let server = Server::start(&place, &settings);
    let client = Client::of(&server);
    let body = json!({"productId": shop.items[0].product, "quantity": 1});
    let add = Ask::new(Method::POST, "/cart/add-to-cart", body);
    let late = client.expect(503, &add).await;
    assert!(late.is_open(), "{late:?}");
    server.terminate();
    assert_eq!(server.wait().code(), Some(4));
    assert_books_in_order(&place);

    // Whether or not it was done, it can be asked again.
    let server = Server::start(&place, &[]);
    Client::of(&server).expect(200, &add).await;
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
}
