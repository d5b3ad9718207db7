//! SQLite's shelves, and its one transaction a hold.

use std::path::Path;
use std::sync::Arc;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};
use storekeeper::domain::ids::ProductId;
use storekeeper::persistence::Upkeep;
use storekeeper::persistence::clock::Clock;
use storekeeper::persistence::open::StoreOptions;
use storekeeper::persistence::sqlite::{SqliteOptions, SqliteStore};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::{PRODUCTS, Shelves, Till, UNITS};

/// A database in a folder of its own.
pub(crate) struct Shelf(TempDir);

impl Shelves for Shelf {
    async fn filled() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fill(folder.path()).await;
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
        Self { connection: Mutex::new(connection(shelf.0.path()).await) }
    }

    async fn hold(&self, product: ProductId) {
        assert_eq!(self.transaction(product).await.expect("the unit is held"), 1);
    }
}

/// A connection with the settings that the store's own has.
async fn connection(folder: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(folder.join("storekeeper.sqlite"))
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("wal_autocheckpoint", "8192")
        .pragma("cache_size", "-32768")
        .disable_statement_logging();
    options.connect().await.expect("the database opens")
}

fn now() -> i64 {
    Clock::system().now().0
}

// The shop ------------------------------------------------------------------------------------------------------

/// Makes the database, with all products in stock. Product, inventory and first ledger row have one number.
async fn fill(folder: &Path) {
    let options = SqliteOptions { folder: folder.to_owned(), readers: 1 };
    SqliteStore::open(options, Clock::system()).await.expect("the database opens").close().await;
    let mut connection = connection(folder).await;
    let mut transaction = connection.begin().await.expect("a transaction");
    for statement in [
        "CREATE TEMP TABLE numbers AS WITH RECURSIVE count (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM count LIMIT ?1)
         SELECT n, unhex(printf('%032x', n)) AS id FROM count WHERE ?2 > 0",
        "INSERT INTO products SELECT id, 'SKU-' || n, 'sku-' || n, 'Tea ' || n, 'tea ' || n, NULL, 1999, 'PUBLISHED',
         id, 1, 0, 0 FROM numbers WHERE ?1 > 0 AND ?2 > 0",
        "INSERT INTO inventories SELECT id, id, 'SKU-' || n, ?2, 0, 1, id, 0 FROM numbers WHERE ?1 > 0",
        "INSERT INTO movements SELECT id, NULL, id, 1, 'initial', 'IN', ?2, ?2, 0, ?2, 0, NULL, NULL, NULL, 'bench', 0
         FROM numbers WHERE ?1 > 0",
    ] {
        let products = i64::try_from(PRODUCTS).expect("a small number");
        sqlx::query(statement).bind(products).bind(UNITS).execute(&mut *transaction).await.expect("rows are written");
    }
    transaction.commit().await.expect("the shop is there");
    connection.close().await.expect("closed");
}
