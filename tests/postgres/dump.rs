//! A dump of the database of a server at work by PostgreSQL's own programs, as `docs/operations.md` says, and a server
//! on what they restore.

use std::path::Path;
use std::process::Command as Program;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use storekeeper::actors::command::CommandError;
use storekeeper::actors::shop::{Buyer, CheckoutRequest, Shop};
use storekeeper::app::App;
use storekeeper::domain::ids::{OrderId, UserId};
use storekeeper::persistence::Orders;
use uuid::Uuid;

use crate::node::Node;
use crate::nodes::{command, config};
use crate::server::{Database, program};
use crate::stock::Stock;

/// Orders that are there before the dump begins.
const BEFORE: usize = 20;

/// Buys a unit.
pub(crate) async fn buy(shop: &Shop, stock: &Stock) -> Result<OrderId, CommandError> {
    let cart = shop.add_to_cart(None, stock.product, None, 1, false, command()).await?;
    let session = cart.session.expect("a session");
    let buyer = Buyer { user: UserId(Uuid::now_v7()), name: "Ann".to_owned(), email: "ann@example.org".to_owned() };
    let request = CheckoutRequest { session, buyer, shipping_address: None, expected_total: None };
    Ok(shop.checkout(request, command()).await?.order.id)
}

/// Runs one of PostgreSQL's programs to its end, which must be a good one.
async fn run(name: &'static str, arguments: &[&str], file: &Path) {
    let mut told = Program::new(program(name));
    told.args(arguments).arg(file);
    let ended = tokio::task::spawn_blocking(move || told.output()).await.expect("no panic");
    let ended = ended.unwrap_or_else(|error| panic!("{name} does not run: {error}"));
    assert!(ended.status.success(), "{name}: {}", String::from_utf8_lossy(&ended.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_of_a_server_at_work_is_restored_whole() {
    let database = Database::new();
    let app = App::build(config(&database)).await.expect("it serves");
    let stock = Node::on(&database.url).await.stock(1_000_000).await;
    let mut acknowledged = Vec::new();
    for _ in 0..BEFORE {
        acknowledged.push(buy(app.shop(), &stock).await.expect("an order"));
    }
    let dumped = Arc::new(AtomicBool::new(false));
    let meanwhile = tokio::spawn({
        let (shop, dumped) = (app.shop().clone(), Arc::clone(&dumped));
        async move {
            let mut orders = 0;
            while !dumped.load(Ordering::Relaxed) {
                buy(&shop, &stock).await.expect("an order");
                orders += 1;
            }
            (orders, stock)
        }
    });
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("shop.dump");
    run("pg_dump", &["--format=custom", &format!("--dbname={}", database.url), "--file"], &file).await;
    dumped.store(true, Ordering::Relaxed);
    let (orders, stock) = meanwhile.await.expect("no panic");
    assert!(orders > 0, "it was at work meanwhile");
    app.stop().await.expect("a clean end");

    let restored = Database::new();
    let into = format!("--dbname={}", restored.url);
    run("pg_restore", &["--exit-on-error", "--single-transaction", "--no-owner", &into], &file).await;
    let node = Node::on(&restored.url).await;
    node.assert_in_order().await;
    for order in acknowledged {
        assert!(node.store.order(order).await.expect("a read").is_some(), "{order} is there");
    }
    let app = App::build(config(&restored)).await.expect("it serves");
    buy(app.shop(), &stock).await.expect("an order");
    app.stop().await.expect("a clean end");
    node.assert_in_order().await;
}
