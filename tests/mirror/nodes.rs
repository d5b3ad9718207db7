//! Two servers on one PostgreSQL and one Redis.

use std::sync::Arc;

use storekeeper::actors::command::CommandError;
use storekeeper::domain::ids::CartSessionId;

use crate::database::Database;
use crate::postgres;
use crate::redis::Server;
use crate::shop::{Shop, command, shows, until};
use crate::stock::Stock;

/// Changes of the one cart by each server.
const CHANGES: i64 = 40;

/// Sets a line of a cart again and again; gives how often that was done, and not given up for the other one's sake.
async fn change(shop: &Shop, session: CartSessionId, stock: Stock) -> i64 {
    let mut done = 0;
    for quantity in 1..=CHANGES {
        match shop.app.shop().set_cart_item(Some(session), stock.product, quantity, command()).await {
            Ok(_) => done += 1,
            Err(CommandError::Contended) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_at_one_cart_leave_its_newest_version() {
    let redis = Server::new();
    let database = Arc::new(Database::Postgres(postgres::Database::new()));
    let here = Shop::on(Arc::clone(&database), &redis.url(), |_| {}).await;
    let elsewhere = Shop::on(database, &redis.url(), |_| {}).await;
    here.until_redis_is("up").await;
    elsewhere.until_redis_is("up").await;
    let (lamp, shade) = (here.stock(1_000).await, here.stock(1_000).await);
    let session = here.add(None, lamp, 1).await;
    elsewhere.add(Some(session), shade, 1).await;

    let (one, other) = tokio::join!(change(&here, session, lamp), change(&elsewhere, session, shade));
    assert!(one > 0 && other > 0, "both changed it: {one}, {other}");
    let cart = here.cart(session).await;
    until("its newest version is shown", async || shows(&redis, &cart)).await;
    assert_eq!(here.open_carts().await, [cart]);

    elsewhere.clear(session).await;
    let cleared = here.cart(session).await;
    until("no key is left", async || shows(&redis, &cleared)).await;
    here.stop().await;
    elsewhere.stop().await;
}
