//! PostgreSQL's shelves, and how the usual program does it: one transaction a hold, or one conditional update.

use std::str::FromStr;
use std::sync::Arc;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use storekeeper::domain::ids::ProductId;
use storekeeper::persistence::clock::Clock;
use storekeeper::persistence::open::StoreOptions;
use storekeeper::persistence::postgres::PostgresOptions;
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::server::{Database, Durability, Server};
use super::{PRODUCTS, Shelves, Till, UNITS, filled};

/// Connections of the usual program.
const POOL: u32 = 16;

/// A database on a server which syncs each commit.
pub(crate) struct Shelf {
    database: Database,
    server: Arc<Server>,
}

impl Shelf {
    /// Another database with the same in it, on the same server.
    pub(crate) async fn twin(&self) -> Self {
        Self::on(Arc::clone(&self.server)).await
    }

    async fn on(server: Arc<Server>) -> Self {
        let shelf = Self { database: Database::of(&server), server };
        filled::fill_postgres(&shelf.database.url, PRODUCTS, UNITS).await;
        shelf
    }

    fn own(&self) -> PostgresOptions {
        PostgresOptions { url: self.database.url.clone(), pool: POOL }
    }

    async fn pool(&self) -> PgPool {
        let options = PgConnectOptions::from_str(&self.database.url).expect("an address").disable_statement_logging();
        let pool = PgPoolOptions::new().max_connections(POOL).test_before_acquire(false).connect_with(options).await;
        pool.expect("the database opens")
    }
}

impl Shelves for Shelf {
    async fn filled() -> Self {
        Self::on(Arc::new(Server::new(Durability::Real))).await
    }

    fn options(&self) -> StoreOptions {
        StoreOptions::Postgres(self.own())
    }
}

/// The usual program: a pool of connections, and the row's lock for as long as the transaction takes.
pub(crate) struct OneByOne {
    pool: PgPool,
}

impl OneByOne {
    /// Four round trips; what is written goes in one statement.
    async fn transaction(&self, product: ProductId) -> Result<bool, sqlx::Error> {
        let (cart, movement, at) = (Uuid::now_v7(), Uuid::now_v7(), Clock::system().now().0);
        let mut secret = [0_u8; 16];
        getrandom::fill(&mut secret).expect("the system gives random bytes");
        let mut transaction = self.pool.begin().await?;
        let (on_hand, held, seq, newest): (i64, i64, i64, Uuid) =
            sqlx::query_as("SELECT on_hand, held, seq, last_movement FROM inventories WHERE id = $1 FOR UPDATE")
                .bind(product.0)
                .fetch_one(&mut *transaction)
                .await?;
        if on_hand - held < 1 {
            return Ok(false);
        }
        sqlx::query(
            "WITH balance AS (
                 UPDATE inventories SET held = $3, seq = $4, last_movement = $5, updated_at = $8 WHERE id = $1
             ), movement AS (
                 INSERT INTO movements (id, previous, inventory_id, seq, reason, action, units, on_hand_change,
                     held_change, on_hand, held, cart_key, actor, at)
                 VALUES ($5, $6, $1, $4, 'hold', 'OUT', 1, 0, 1, $2, $3, $7, 'guest', $8)
             ), session AS (
                 INSERT INTO cart_sessions (key, secret, state, version, created_at, expires_at)
                 VALUES ($7, $9, 'open', 1, $8, $8 + 900000000)
             )
             INSERT INTO holds (cart_key, number, product_id, inventory_id, quantity, state)
             VALUES ($7, 1, $1, $1, 1, 'open')",
        )
        .bind(product.0)
        .bind(on_hand)
        .bind(held + 1)
        .bind(seq + 1)
        .bind(movement)
        .bind(newest)
        .bind(cart)
        .bind(at)
        .bind(&secret[..])
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(true)
    }
}

impl Till<Shelf> for OneByOne {
    async fn open(shelf: &Shelf, _: &Arc<Runtime>) -> Self {
        Self { pool: shelf.pool().await }
    }

    async fn hold(&self, product: ProductId) {
        assert!(self.transaction(product).await.expect("the transaction is done"), "the unit is held");
    }
}

/// What sells without knowing to whom: the balance alone, changed where it suffices. It writes a fifth of what the
/// others write: no cart, no hold, no ledger.
pub(crate) struct OneUpdate {
    pool: PgPool,
}

impl Till<Shelf> for OneUpdate {
    async fn open(shelf: &Shelf, _: &Arc<Runtime>) -> Self {
        Self { pool: shelf.pool().await }
    }

    async fn hold(&self, product: ProductId) {
        let update = sqlx::query(
            "UPDATE inventories SET held = held + 1, seq = seq + 1, updated_at = $2
             WHERE id = $1 AND on_hand - held >= 1",
        );
        let done = update.bind(product.0).bind(Clock::system().now().0).execute(&self.pool).await;
        assert_eq!(done.expect("the update is done").rows_affected(), 1, "the unit is held");
    }
}
