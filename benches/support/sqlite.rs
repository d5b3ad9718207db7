//! SQLite's shelves, and how the usual program does it: one transaction a hold, or one conditional update.

use std::sync::Arc;

use sqlx::sqlite::SqliteConnection;
use storekeeper::domain::ids::ProductId;
use storekeeper::persistence::clock::Clock;
use storekeeper::persistence::open::StoreOptions;
use storekeeper::persistence::sqlite::SqliteOptions;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::Mutex;
use uuid::Uuid;

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

fn now() -> i64 {
    Clock::system().now().0
}
