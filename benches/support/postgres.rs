//! PostgreSQL's shelves, and how the usual program does it: one transaction a hold, or one conditional update.

use std::str::FromStr;
use std::sync::Arc;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use storekeeper::domain::ids::ProductId;
use storekeeper::persistence::clock::Clock;
use storekeeper::persistence::open::StoreOptions;
use storekeeper::persistence::postgres::PostgresOptions;
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::rows::{Batch, Hold, LIFE_MS, Rows, Sale};
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

/// A connection that writes rows and looks at nothing.
pub(crate) struct Writer(PgConnection);

impl Writer {
    pub(crate) async fn open(shelf: &Shelf) -> Self {
        let options = PgConnectOptions::from_str(&shelf.database.url).expect("an address").disable_statement_logging();
        Self(options.connect().await.expect("the database opens"))
    }
}

impl Rows for Writer {
    async fn hold(&mut self, batch: &Batch<Hold>) {
        let holds = &batch.all;
        let written = sqlx::query(
            "WITH balance AS (
                 UPDATE inventories SET held = new.held, seq = new.seq, last_movement = last, updated_at = $10
                 FROM (SELECT unnest($1::uuid[]), unnest($2::uuid[]), unnest($3::bigint[]), unnest($4::bigint[])) AS
                     new (product, last, seq, held)
                 WHERE id = product
             ), movement AS (
                 INSERT INTO movements (id, previous, inventory_id, seq, reason, action, units, on_hand_change,
                     held_change, on_hand, held, cart_key, actor, at)
                 SELECT id, previous, product, seq, 'hold', 'OUT', 1, 0, 1, on_hand, held, cart, 'guest', $10
                 FROM (SELECT unnest($5::uuid[]), unnest($6::uuid[]), unnest($7::uuid[]), unnest($8::uuid[]),
                     unnest($9::bigint[]), unnest($11::bigint[]), unnest($12::bigint[])) AS new (id, previous,
                     product, cart, seq, on_hand, held)
             ), session AS (
                 INSERT INTO cart_sessions (key, secret, state, version, created_at, expires_at)
                 SELECT cart, secret, 'open', 1, $10, $10 + $14
                 FROM (SELECT unnest($8::uuid[]), unnest($13::bytea[])) AS new (cart, secret)
             ), batch AS (
                 INSERT INTO journal_batches (id, at) VALUES ($15, $10)
             )
             INSERT INTO holds (cart_key, number, product_id, inventory_id, quantity, state)
             SELECT cart, 1, product, product, 1, 'open' FROM (SELECT unnest($8::uuid[]), unnest($7::uuid[])) AS new
                 (cart, product)",
        )
        .bind(column(&batch.changes, |change| change.product))
        .bind(column(&batch.changes, |change| change.last.id))
        .bind(column(&batch.changes, |change| change.last.seq))
        .bind(column(&batch.changes, |change| change.last.held))
        .bind(column(holds, |hold| hold.movement.id))
        .bind(column(holds, |hold| hold.movement.previous))
        .bind(column(holds, |hold| hold.product))
        .bind(column(holds, |hold| hold.cart))
        .bind(column(holds, |hold| hold.movement.seq))
        .bind(batch.at)
        .bind(column(holds, |hold| hold.movement.on_hand))
        .bind(column(holds, |hold| hold.movement.held))
        .bind(holds.iter().map(|hold| &hold.secret[..]).collect::<Vec<_>>())
        .bind(LIFE_MS * 1_000)
        .bind(batch.id)
        .execute(&mut self.0)
        .await;
        written.expect("the rows are written");
    }

    async fn sell(&mut self, batch: &Batch<Sale>) {
        let sales = &batch.all;
        let written = sqlx::query(
            "WITH balance AS (
                 UPDATE inventories SET on_hand = new.on_hand, held = new.held, seq = new.seq, last_movement = last,
                     updated_at = $11
                 FROM (SELECT unnest($1::uuid[]), unnest($2::uuid[]), unnest($3::bigint[]), unnest($4::bigint[]),
                     unnest($5::bigint[])) AS new (product, last, seq, held, on_hand) WHERE id = product
             ), movement AS (
                 INSERT INTO movements (id, previous, inventory_id, seq, reason, action, units, on_hand_change,
                     held_change, on_hand, held, cart_key, order_id, actor, at)
                 SELECT id, previous, product, seq, 'sale', 'OUT', 1, -1, -1, on_hand, held, cart, sold, buyer::text, $11
                 FROM (SELECT unnest($6::uuid[]), unnest($7::uuid[]), unnest($8::uuid[]), unnest($9::uuid[]),
                     unnest($10::uuid[]), unnest($12::bigint[]), unnest($13::bigint[]), unnest($14::bigint[]),
                     unnest($16::uuid[])) AS new (id, previous, product, cart, sold, seq, held, on_hand, buyer)
             ), session AS (
                 UPDATE cart_sessions SET state = 'ordered', version = 2 WHERE key = ANY($9)
             ), hold AS (
                 UPDATE holds SET state = 'sold' WHERE cart_key = ANY($9)
             ), sold AS (
                 INSERT INTO orders (id, cart_key, user_id, user_name, user_email, currency, subtotal, tax, grand_total,
                     status, sequence, created_at, updated_at)
                 SELECT id, cart, buyer, 'Buyer', 'buyer@example.org', 'EUR', 1999, 0, 1999, 'PENDING', 1, $11, $11
                 FROM (SELECT unnest($10::uuid[]), unnest($9::uuid[]), unnest($16::uuid[])) AS new (id, cart, buyer)
             ), item AS (
                 INSERT INTO order_items (order_id, position, product_id, inventory_id, name, sku, price, quantity, total)
                 SELECT id, 0, product, product, 'Tea 0', 'SKU-0', 1999, 1, 1999
                 FROM (SELECT unnest($10::uuid[]), unnest($8::uuid[])) AS new (id, product)
             ), batch AS (
                 INSERT INTO journal_batches (id, at) VALUES ($15, $11)
             )
             INSERT INTO outbox (order_id, sequence, to_status, at) SELECT unnest($10::uuid[]), 1, 'PENDING', $11",
        )
        .bind(column(&batch.changes, |change| change.product))
        .bind(column(&batch.changes, |change| change.last.id))
        .bind(column(&batch.changes, |change| change.last.seq))
        .bind(column(&batch.changes, |change| change.last.held))
        .bind(column(&batch.changes, |change| change.last.on_hand))
        .bind(column(sales, |sale| sale.movement.id))
        .bind(column(sales, |sale| sale.movement.previous))
        .bind(column(sales, |sale| sale.hold.product))
        .bind(column(sales, |sale| sale.hold.cart))
        .bind(column(sales, |sale| sale.order))
        .bind(batch.at)
        .bind(column(sales, |sale| sale.movement.seq))
        .bind(column(sales, |sale| sale.movement.held))
        .bind(column(sales, |sale| sale.movement.on_hand))
        .bind(batch.id)
        .bind(column(sales, |sale| sale.buyer))
        .execute(&mut self.0)
        .await;
        written.expect("the rows are written");
    }
}

fn column<R, T>(rows: &[R], value: fn(&R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}
