//! A backup of the database of a server at work, and a server on the backup.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use reqwest::Method;
use serde_json::json;

use crate::audit::assert_books_in_order;
use crate::client::{Ask, Client};
use crate::load::{Load, open_shop, seeded};
use crate::place::Place;
use crate::server::{Server, program};

/// Answers before the backup begins, and after it.
const ANSWERS: u64 = 400;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_server_at_work_is_whole_and_can_be_served() {
    let place = Place::embedded();
    let server = Server::start(&place, &[]);
    let shop = open_shop(&server).await;
    let load = Load::begin(&server, &shop, &mut seeded(7));
    load.answers(ANSWERS).await;
    let acknowledged = orders(&Client::of(&server), &shop.token).await;
    assert!(!acknowledged.is_empty(), "there is something to lose");

    let file = place.folder().join("backup.sqlite");
    let mut backup = program(&place, "backup", &[]);
    backup.arg(&file);
    let made = tokio::task::spawn_blocking(move || backup.output().expect("the program runs"));
    let made = made.await.expect("no panic");
    let said = String::from_utf8_lossy(&made.stdout).into_owned() + &String::from_utf8_lossy(&made.stderr);
    assert_eq!(made.status.code(), Some(0), "{said}");
    let written = fs::metadata(&file).expect("the backup");
    assert!(said.ends_with(&format!(": {} bytes.\n", written.len())), "{said}");
    assert_eq!(written.permissions().mode() & 0o777, 0o600, "it holds password hashes and keys");
    let mut left = names(place.folder());
    left.retain(|name| !name.starts_with("log-"));
    assert_eq!(left, ["backup.sqlite"], "and nothing else is left");
    load.answers(ANSWERS).await;
    server.kill();
    load.end().await;

    let restored = Place::embedded();
    fs::copy(&file, restored.data_folder().join("storekeeper.sqlite")).expect("a copy");
    assert_books_in_order(&restored);
    let server = Server::start(&restored, &[]);
    let client = Client::of(&server);
    let kept = orders(&client, &client.sign_in().await).await;
    assert_eq!(acknowledged.iter().find(|order| !kept.contains(order)), None, "all of them are among {}", kept.len());
    let body = json!({"productId": shop.items[0].product, "quantity": 1});
    client.expect(200, &Ask::new(Method::POST, "/cart/add-to-cart", body)).await;
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
    assert_books_in_order(&restored);
}

/// The identifiers of all orders that a server shows.
async fn orders(client: &Client, token: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut path = "/orders?limit=100".to_owned();
    loop {
        let page = client.expect(200, &Ask::new(Method::GET, path, json!({})).token(token)).await.body;
        let rows = page["data"].as_array().expect("a list");
        found.extend(rows.iter().map(|order| order["id"].as_str().expect("an id").to_owned()));
        match page["nextCursor"].as_str() {
            Some(cursor) => path = format!("/orders?limit=100&cursor={cursor}"),
            None => return found,
        }
    }
}

/// What is in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
