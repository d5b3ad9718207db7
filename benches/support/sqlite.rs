//! SQLite's shelves, and how the usual program does it: one transaction a hold, or one conditional update.

use std::sync::Arc;

use sqlx::AssertSqlSafe;
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnection};
use storekeeper::domain::ids::ProductId;
use storekeeper::persistence::clock::Clock;
use storekeeper::persistence::open::StoreOptions;
use storekeeper::persistence::sqlite::SqliteOptions;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::rows::{Batch, Change, Hold, LIFE_MS, Rows, Sale};
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

/// Statements that are kept: batches of each size, with few sizes of balances, are texts of their own.
const STATEMENTS: usize = 4_096;

/// A connection that writes rows and looks at nothing.
pub(crate) struct Writer(SqliteConnection);

impl Writer {
    pub(crate) async fn open(shelf: &Shelf) -> Self {
        Self(filled::connection_keeping(shelf.0.path(), STATEMENTS).await)
    }
}

impl Rows for Writer {
    async fn hold(&mut self, batch: &Batch<Hold>) {
        let (holds, at) = (&batch.all, batch.at);
        let text = [
            beginning(batch.changes.len()),
            insert(
                "movements (id, previous, inventory_id, seq, reason, action, units, on_hand_change, held_change, on_hand,
                     held, cart_key, actor, at)",
                "(?, ?, ?, ?, 'hold', 'OUT', 1, 0, 1, ?, ?, ?, 'guest', ?)",
                holds.len(),
            ),
            insert(
                "cart_sessions (key, secret, state, version, created_at, expires_at)",
                "(?, ?, 'open', 1, ?, ?)",
                holds.len(),
            ),
            insert(
                "holds (cart_key, number, product_id, inventory_id, quantity, state)",
                "(?, 1, ?, ?, 1, 'open')",
                holds.len(),
            ),
        ];
        let mut query = begun(text.concat() + "COMMIT", batch);
        for Hold { movement, product, cart, .. } in holds {
            query = query.bind(movement.id).bind(movement.previous).bind(product).bind(movement.seq);
            query = query.bind(movement.on_hand).bind(movement.held).bind(cart).bind(at);
        }
        for hold in holds {
            query = query.bind(hold.cart).bind(&hold.secret[..]).bind(at).bind(at + LIFE_MS * 1_000);
        }
        for hold in holds {
            query = query.bind(hold.cart).bind(hold.product).bind(hold.product);
        }
        query.execute(&mut self.0).await.expect("the rows are written");
    }

    async fn sell(&mut self, batch: &Batch<Sale>) {
        let (sales, at) = (&batch.all, batch.at);
        let keys = vec!["?"; sales.len()].join(", ");
        let text = [
            beginning(batch.changes.len()),
            insert(
                "movements (id, previous, inventory_id, seq, reason, action, units, on_hand_change, held_change, on_hand,
                     held, cart_key, order_id, actor, at)",
                "(?, ?, ?, ?, 'sale', 'OUT', 1, -1, -1, ?, ?, ?, ?, ?, ?)",
                sales.len(),
            ),
            format!("UPDATE cart_sessions SET state = 'ordered', version = 2 WHERE key IN ({keys}); "),
            format!("UPDATE holds SET state = 'sold' WHERE cart_key IN ({keys}); "),
            insert(
                "orders (id, cart_key, user_id, user_name, user_email, currency, subtotal, tax, grand_total, status,
                     sequence, created_at, updated_at)",
                "(?, ?, ?, 'Buyer', 'buyer@example.org', 'EUR', 1999, 0, 1999, 'PENDING', 1, ?, ?)",
                sales.len(),
            ),
            insert(
                "order_items (order_id, position, product_id, inventory_id, name, sku, price, quantity, total)",
                "(?, 0, ?, ?, 'Tea 0', 'SKU-0', 1999, 1, 1999)",
                sales.len(),
            ),
            insert(
                "outbox (order_id, sequence, to_status, at)",
                "(?, 1, 'PENDING', ?)",
                sales.len(),
            ),
        ];
        let mut query = begun(text.concat() + "COMMIT", batch);
        for Sale { hold, order, buyer, movement, .. } in sales {
            query = query.bind(movement.id).bind(movement.previous).bind(hold.product).bind(movement.seq);
            query = query.bind(movement.on_hand).bind(movement.held).bind(hold.cart).bind(order);
            query = query.bind(buyer.to_string()).bind(at);
        }
        query = sales.iter().chain(sales).fold(query, |query, sale| query.bind(sale.hold.cart));
        for Sale { hold, order, buyer, .. } in sales {
            query = query.bind(order).bind(hold.cart).bind(buyer).bind(at).bind(at);
        }
        for Sale { hold, order, .. } in sales {
            query = query.bind(order).bind(hold.product).bind(hold.product);
        }
        query = sales.iter().fold(query, |query, sale| query.bind(sale.order).bind(at));
        query.execute(&mut self.0).await.expect("the rows are written");
    }
}

type Statements<'a> = Query<'a, Sqlite, SqliteArguments>;

/// How each batch begins: a transaction, its own row, the balances. All of a batch is one text with places for all values,
/// so it is handed over once, and nothing in it has to be taken apart.
fn beginning(changes: usize) -> String {
    let balance =
        "UPDATE inventories SET on_hand = ?, held = ?, seq = ?, last_movement = ?, updated_at = ? WHERE id = ?; ";
    format!("BEGIN IMMEDIATE; {}{}", insert("journal_batches (id, at)", "(?, ?)", 1), balance.repeat(changes))
}

fn insert(into: &str, row: &str, rows: usize) -> String {
    format!("INSERT INTO {into} VALUES {}; ", vec![row; rows].join(", "))
}

/// The statements with the values of their beginning.
fn begun<'a, T>(text: String, batch: &Batch<T>) -> Statements<'a> {
    let query = sqlx::query(AssertSqlSafe(text)).bind(batch.id).bind(batch.at);
    batch.changes.iter().fold(query, |query, Change { product, last }| {
        let query = query.bind(last.on_hand).bind(last.held).bind(last.seq).bind(last.id);
        query.bind(batch.at).bind(*product)
    })
}

fn now() -> i64 {
    Clock::system().now().0
}
