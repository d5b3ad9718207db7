//! Two servers on one database and one broker: both relays publish, and no event of an order overtakes another.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::json;
use storekeeper::domain::order::OrderStatus;
use tokio::task::{JoinSet, spawn_blocking};

use crate::database::Database;
use crate::events::{OWN, of_order, virtual_host};
use crate::postgres;
use crate::queue::Queues;
use crate::shop::Shop;

/// Orders that are at it at once.
const ORDERS: usize = 48;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_tell_each_order_in_order() {
    let host = virtual_host().await;
    let database = spawn_blocking(postgres::Database::new).await.expect("a database");
    let one = Arc::new(Shop::open(Database::Postgres(database), &host.url).await);
    let two = Arc::new(one.beside(&host.url).await);
    for shop in [&one, &two] {
        shop.until_broker_is("up").await;
    }
    let queues = Queues::of(&host);
    queues.bind(OWN, &["order-status", "send-email"]).await;
    let lamp = one.stock(1_000).await;

    let mut running = JoinSet::new();
    for number in 0..ORDERS {
        // Each change of an order comes from the other server, whose relay then looks for what is to be published.
        let (here, there) = if number % 2 == 0 { (&one, &two) } else { (&two, &one) };
        let (here, there) = (Arc::clone(here), Arc::clone(there));
        running.spawn(async move {
            let order = here.buy(lamp, 1).await;
            there.change(order.id, OrderStatus::Confirmed).await;
            here.change(order.id, OrderStatus::Shipped).await;
            there.change(order.id, OrderStatus::Delivered).await;
            order
        });
    }
    let orders = running.join_all().await;
    one.until_all_is_out().await;

    let received = queues.take(OWN).await;
    for order in orders {
        // A message may come twice; what counts is when each comes first.
        let mut known = HashSet::new();
        let told: Vec<_> =
            of_order(&received, order.id).into_iter().filter(|event| known.insert(event.to_string())).collect();
        let wanted = [
            json!([1, "PENDING"]),
            json!(["confirmation", order.user_email]),
            json!([2, "CONFIRMED"]),
            json!([3, "SHIPPED"]),
            json!([4, "DELIVERED"]),
        ];
        assert_eq!(told, wanted);
    }
    queues.assert_no_dead_letters().await;
    for shop in [one, two] {
        Arc::into_inner(shop).expect("nobody else uses it").stop().await;
    }
}
