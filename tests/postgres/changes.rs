//! What one server reads and keeps of the rows that others change: rows that many ask for at once, and products that have
//! changed since a look.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sqlx::Executor;
use sqlx::postgres::PgConnection;
use storekeeper::domain::ids::{InventoryId, ProductId};
use storekeeper::domain::money::Money;
use storekeeper::persistence::records::{ProductChange, ProductPatch};
use storekeeper::persistence::{Catalogue, Inventories, ProductsMark, StoreError, Upkeep};
use uuid::Uuid;

use crate::node::Node;
use crate::server::{Database, connect};
use crate::stock::Stock;

const PATIENCE: Duration = Duration::from_secs(30);
/// Products whose change is told one by one, at most.
const NAMED_MAX: i64 = 10_000;

/// Looks what has changed, and gives where the next look goes on.
async fn look(node: &Node, since: ProductsMark) -> (ProductsMark, Option<Vec<ProductId>>) {
    let found = node.store.changed_products(Some(since)).await.expect("a look");
    (found.mark, found.ids)
}

async fn first_look(node: &Node) -> ProductsMark {
    node.store.changed_products(None).await.expect("a look").mark
}

/// Makes a product dearer, by a statement of its own.
async fn raise(connection: &mut PgConnection, stock: &Stock) {
    let raised = sqlx::query("UPDATE products SET price = price + 1 WHERE id = $1").bind(stock.product.0);
    assert_eq!(raised.execute(connection).await.expect("a change").rows_affected(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_asked_for_at_once_each_come_to_who_asked() {
    let database = Database::new();
    let node = Node::on(&database.url).await;
    let mut stocks = Vec::new();
    for quantity in 1..=40 {
        stocks.push(node.stock(quantity).await);
    }
    // Each several times over, with some among them that nobody has.
    let asked: Vec<&Stock> = stocks.iter().cycle().take(1_000).collect();
    let found = join_all(asked.iter().map(async |stock| {
        let unknown = Uuid::now_v7();
        tokio::join!(
            node.store.inventory(stock.inventory),
            node.store.product(stock.product),
            node.store.inventory(InventoryId(unknown)),
            node.store.product(ProductId(unknown)),
        )
    }));
    for (stock, (inventory, product, no_inventory, no_product)) in asked.iter().zip(found.await) {
        let inventory = inventory.expect("a read").expect("a row");
        assert_eq!((inventory.id, inventory.product), (stock.inventory, stock.product));
        let product = product.expect("a read").expect("a row");
        assert_eq!((product.id, product.inventory), (stock.product, Some(stock.inventory)));
        assert!(no_inventory.expect("a read").is_none() && no_product.expect("a read").is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_together_when_the_database_is_away_is_told_so_each() {
    let database = Database::new();
    let node = Node::on(&database.url).await;
    let stock = node.stock(1).await;
    node.store.close().await;
    for found in join_all((0..100).map(|_| node.store.product(stock.product))).await {
        assert!(matches!(found, Err(StoreError::Unavailable(_))), "{found:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_named_by_the_next_look_and_then_no_more() {
    let database = Database::new();
    let (here, elsewhere) = (Node::on(&database.url).await, Node::on(&database.url).await);
    let (changed, same) = (elsewhere.stock(1).await, elsewhere.stock(1).await);
    let mark = first_look(&here).await;
    let dearer = ProductPatch { price: Some(Money(250)), ..ProductPatch::default() };
    let patched = elsewhere.store.patch_product(changed.product, &dearer, None, elsewhere.clock.now()).await;
    assert!(matches!(patched, Ok(ProductChange::Changed(_))), "{patched:?}");
    let (mut mark, mut ids) = look(&here, mark).await;
    assert_eq!(ids, Some(vec![changed.product]), "and not {:?}", same.product);
    // Again as long as a transaction that is older is under way, whosever it is.
    let end = Instant::now() + PATIENCE;
    while ids != Some(Vec::new()) {
        assert!(Instant::now() < end, "{ids:?} is still told");
        (mark, ids) = look(&here, mark).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_was_under_way_at_a_look_is_named_when_it_has_happened() {
    let database = Database::new();
    let node = Node::on(&database.url).await;
    let (slow, quick) = (node.stock(1).await, node.stock(1).await);
    let (mut one, mut other) =
        (connect(&database.url).await.expect("a connection"), connect(&database.url).await.expect("a connection"));
    let mark = first_look(&node).await;
    one.execute("BEGIN").await.expect("begun");
    raise(&mut one, &slow).await;
    // Begun later and done before.
    raise(&mut other, &quick).await;
    let (mark, ids) = look(&node, mark).await;
    assert_eq!(ids, Some(vec![quick.product]));
    one.execute("COMMIT").await.expect("committed");
    let (_, ids) = look(&node, mark).await;
    assert!(ids.expect("few").contains(&slow.product), "it was not there at the look before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_copy_of_another_database_brought_with_it_is_not_news() {
    let database = Database::new();
    let node = Node::on(&database.url).await;
    let stock = node.stock(1).await;
    let mut connection = connect(&database.url).await.expect("a connection");
    let copied = "SET session_replication_role = replica; UPDATE products SET changed_by = '4000000000000'; \
                  SET session_replication_role = DEFAULT";
    connection.execute(copied).await.expect("a copy");
    let (mark, ids) = look(&node, first_look(&node).await).await;
    assert_eq!(ids, Some(Vec::new()));
    raise(&mut connection, &stock).await;
    assert_eq!(look(&node, mark).await.1, Some(vec![stock.product]), "what changes here is");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_changes_than_can_be_named_are_told_as_such() {
    let database = Database::new();
    let node = Node::on(&database.url).await;
    let mut connection = connect(&database.url).await.expect("a connection");
    let many = "INSERT INTO products SELECT gen_random_uuid(), 'S-' || n, 's-' || n, 'Tea', 'tea', NULL, 1, 'PUBLISHED', \
                NULL, 1, 0, 0 FROM generate_series(0, $1) AS n";
    sqlx::query(many).bind(NAMED_MAX).execute(&mut connection).await.expect("products");
    let mark = first_look(&node).await;
    let raise = "UPDATE products SET price = 2 WHERE sku <> 'S-0'";
    connection.execute(raise).await.expect("a change of as many as can be named");
    let (mark, ids) = look(&node, mark).await;
    let ids: HashSet<ProductId> = ids.expect("all of them").into_iter().collect();
    assert_eq!(i64::try_from(ids.len()), Ok(NAMED_MAX));
    connection.execute("UPDATE products SET price = 3").await.expect("a change of one more");
    assert_eq!(look(&node, mark).await.1, None);
}
