//! SQLite's shelves, and how the usual program does it: one transaction a hold, or one conditional update.

use std::sync::Arc;

use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteConnection;
use storekeeper::domain::ids::ProductId;
use storekeeper::persistence::clock::Clock;
use storekeeper::persistence::open::StoreOptions;
use storekeeper::persistence::sqlite::SqliteOptions;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::rows::{Batch, Change, Hold, Rows, Sale};
use super::{PRODUCTS, Shelves, Till, UNITS, filled};

/// A database in a folder of its own.
pub(crate) struct Shelf(TempDir);

impl Shelves for Shelf {
    async fn filled() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        filled::fill(folder.path(), PRODUCTS, UNITS).await;
        Self(folder)
    }

    fn options(&self) -> StoreOptions {
        StoreOptions::Sqlite(SqliteOptions { folder: self.0.path().to_owned(), readers: 8 })
    }
}

/// SQLite takes one writer at a time, so the fastest way is one connection and a queue to it.
pub(crate) struct OneByOne {
    connection: Mutex<SqliteConnection>,
}

impl OneByOne {
    async fn transaction(&self, product: ProductId) -> Result<u64, sqlx::Error> {
        let (cart, movement, at) = (Uuid::now_v7(), Uuid::now_v7(), now());
        let mut secret = [0_u8; 16];
        getrandom::fill(&mut secret).expect("the system gives random bytes");
        let connection = &mut *self.connection.lock().await;
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
        let held = sqlx::query(
            "UPDATE inventories SET held = held + 1, seq = seq + 1, updated_at = ?2
             WHERE id = ?1 AND on_hand - held >= 1",
        );
        let held = held.bind(product.0).bind(at).execute(&mut *connection).await?.rows_affected();
        sqlx::query(
            "INSERT INTO movements (id, previous, inventory_id, seq, reason, action, units, on_hand_change, held_change,
                 on_hand, held, cart_key, actor, at)
             SELECT ?2, last_movement, id, seq, 'hold', 'OUT', 1, 0, 1, on_hand, held, ?3, 'guest', ?4
             FROM inventories WHERE id = ?1",
        )
        .bind(product.0)
        .bind(movement)
        .bind(cart)
        .bind(at)
        .execute(&mut *connection)
        .await?;
        let newest = sqlx::query("UPDATE inventories SET last_movement = ?2 WHERE id = ?1");
        newest.bind(product.0).bind(movement).execute(&mut *connection).await?;
        let session = sqlx::query(
            "INSERT INTO cart_sessions (key, secret, state, version, created_at, expires_at)
             VALUES (?1, ?2, 'open', 1, ?3, ?3 + 900000000)",
        );
        session.bind(cart).bind(&secret[..]).bind(at).execute(&mut *connection).await?;
        let hold = sqlx::query(
            "INSERT INTO holds (cart_key, number, product_id, inventory_id, quantity, state)
             VALUES (?1, 1, ?2, ?2, 1, 'open')",
        );
        hold.bind(cart).bind(product.0).execute(&mut *connection).await?;
        sqlx::query("COMMIT").execute(&mut *connection).await?;
        Ok(held)
    }
}

impl Till<Shelf> for OneByOne {
    async fn open(shelf: &Shelf, _: &Arc<Runtime>) -> Self {
        Self { connection: Mutex::new(filled::connection(shelf.0.path()).await) }
    }

    async fn hold(&self, product: ProductId) {
        assert_eq!(self.transaction(product).await.expect("the unit is held"), 1);
    }
}

/// What sells without knowing to whom: the balance alone, changed where it suffices. It writes a fifth of what the
/// others write: no cart, no hold, no ledger.
pub(crate) struct OneUpdate {
    connection: Mutex<SqliteConnection>,
}

impl Till<Shelf> for OneUpdate {
    async fn open(shelf: &Shelf, _: &Arc<Runtime>) -> Self {
        Self { connection: Mutex::new(filled::connection(shelf.0.path()).await) }
    }

    async fn hold(&self, product: ProductId) {
        let update = sqlx::query(
            "UPDATE inventories SET held = held + 1, seq = seq + 1, updated_at = ?2
             WHERE id = ?1 AND on_hand - held >= 1",
        );
        let connection = &mut *self.connection.lock().await;
        let done = update.bind(product.0).bind(now()).execute(connection).await;
        assert_eq!(done.expect("the update is done").rows_affected(), 1, "the unit is held");
    }
}

/// A connection that writes rows and looks at nothing.
pub(crate) struct Writer(SqliteConnection);

impl Writer {
    pub(crate) async fn open(shelf: &Shelf) -> Self {
        Self(filled::connection(shelf.0.path()).await)
    }
}

impl Rows for Writer {
    async fn hold(&mut self, batch: &Batch<Hold>) {
        self.begin(&batch.changes, batch.at).await;
        for holds in parts(&batch.all) {
            let mut values = Values::default();
            values.insert(
                "movements (id, previous, inventory_id, seq, reason, action, units, on_hand_change, held_change, on_hand,
                     held, cart_key, actor, at)",
                "(?, ?, ?, ?, 'hold', 'OUT', 1, 0, 1, ?, ?, ?, 'guest', ?)",
                holds.len(),
            );
            values.insert(
                "cart_sessions (key, secret, state, version, created_at, expires_at)",
                "(?, ?, 'open', 1, ?, ?)",
                holds.len(),
            );
            values.insert(
                "holds (cart_key, number, product_id, inventory_id, quantity, state)",
                "(?, 1, ?, ?, 1, 'open')",
                holds.len(),
            );
            let mut query = sqlx::query(AssertSqlSafe(values.0));
            for Hold { movement, product, cart, .. } in holds {
                query = query.bind(movement.id).bind(movement.previous).bind(product).bind(movement.seq);
                query = query.bind(movement.on_hand).bind(movement.held).bind(cart).bind(batch.at);
            }
            for hold in holds {
                query = query.bind(hold.cart).bind(&hold.secret[..]).bind(batch.at).bind(batch.at + 900_000_000);
            }
            for hold in holds {
                query = query.bind(hold.cart).bind(hold.product).bind(hold.product);
            }
            query.execute(&mut self.0).await.expect("the rows are written");
        }
        self.commit().await;
    }

    async fn sell(&mut self, batch: &Batch<Sale>) {
        let at = batch.at;
        self.begin(&batch.changes, at).await;
        for sales in parts(&batch.all) {
            let mut values = Values::default();
            values.insert(
                "movements (id, previous, inventory_id, seq, reason, action, units, on_hand_change, held_change, on_hand,
                     held, cart_key, order_id, actor, at)",
                "(?, ?, ?, ?, 'sale', 'OUT', 1, -1, -1, ?, ?, ?, ?, 'guest', ?)",
                sales.len(),
            );
            values.change("cart_sessions SET state = 'ordered', version = 2 WHERE key", sales.len());
            values.change("holds SET state = 'sold' WHERE cart_key", sales.len());
            values.insert(
                "orders (id, cart_key, user_id, user_name, user_email, currency, subtotal, tax, grand_total, status,
                     sequence, created_at, updated_at)",
                "(?, ?, ?, 'Buyer', 'buyer@example.org', 'EUR', 1999, 0, 1999, 'PENDING', 1, ?, ?)",
                sales.len(),
            );
            values.insert(
                "order_items (order_id, position, product_id, inventory_id, name, sku, price, quantity, total)",
                "(?, 0, ?, ?, 'Tea 0', 'SKU-0', 1999, 1, 1999)",
                sales.len(),
            );
            values.insert("outbox (id, order_id, queue, payload, at)", "(?, ?, ?, ?, ?)", 3 * sales.len());
            let mut query = sqlx::query(AssertSqlSafe(values.0));
            for Sale { hold, order, movement, .. } in sales {
                query = query.bind(movement.id).bind(movement.previous).bind(hold.product).bind(movement.seq);
                query = query.bind(movement.on_hand).bind(movement.held).bind(hold.cart).bind(order).bind(at);
            }
            query = sales.iter().chain(sales).fold(query, |query, sale| query.bind(sale.hold.cart));
            for Sale { hold, order, .. } in sales {
                query = query.bind(order).bind(hold.cart).bind(order).bind(at).bind(at);
            }
            for Sale { hold, order, .. } in sales {
                query = query.bind(order).bind(hold.product).bind(hold.product);
            }
            for (order, (queue, id, payload)) in
                sales.iter().flat_map(|sale| sale.events.iter().map(|event| (sale.order, event)))
            {
                query = query.bind(id).bind(order).bind(*queue).bind(payload.as_str()).bind(at);
            }
            query.execute(&mut self.0).await.expect("the rows are written");
        }
        self.commit().await;
    }
}

impl Writer {
    async fn begin(&mut self, changes: &[Change], at: i64) {
        sqlx::query("BEGIN IMMEDIATE").execute(&mut self.0).await.expect("a transaction");
        for changes in parts(changes) {
            let update =
                "UPDATE inventories SET on_hand = ?, held = ?, seq = ?, last_movement = ?, updated_at = ? WHERE id = ?";
            let mut query = sqlx::query(AssertSqlSafe(vec![update; changes.len()].join("; ")));
            for Change { product, last, .. } in changes {
                query = query.bind(last.on_hand).bind(last.held).bind(last.seq).bind(last.id).bind(at).bind(product);
            }
            query.execute(&mut self.0).await.expect("the balances are written");
        }
    }

    async fn commit(&mut self) {
        sqlx::query("COMMIT").execute(&mut self.0).await.expect("the transaction is committed");
    }
}

/// Rows that are written together: a few sizes, so that each statement is prepared once.
fn parts<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let count = [64, 16, 4, 1].into_iter().find(|count| *count <= rows.len())?;
        let (now, later) = rows.split_at(count);
        rows = later;
        Some(now)
    })
}

/// Statements with places for all of their values: nothing has to be taken apart.
#[derive(Default)]
struct Values(String);

impl Values {
    fn insert(&mut self, into: &str, row: &str, rows: usize) {
        self.0 += &format!("INSERT INTO {into} VALUES {};\n", vec![row; rows].join(", "));
    }

    fn change(&mut self, what: &str, rows: usize) {
        self.0 += &format!("UPDATE {what} IN ({});\n", vec!["?"; rows].join(", "));
    }
}

fn now() -> i64 {
    Clock::system().now().0
}
