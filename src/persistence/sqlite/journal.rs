//! The journal's transaction on SQLite: what the batch needs is read, or known from the last one (`memory.rs`); planned; and
//! written (`write.rs`).
//!
//! What is known is written at once, by statements that are the whole transaction and stop when something is not as it was
//! expected. There is one writer, so what a transaction has read stays true until it commits; the statements name what was
//! seen all the same, and count the rows.

use std::collections::HashSet;
use std::sync::{MutexGuard, PoisonError};

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use crate::domain::cart::{CartState, HoldState};
use crate::domain::ids::{CartKey, IdMap, InventoryId, MovementId, OrderId, ProductId};
use crate::domain::order::OrderStatus;
use crate::domain::stock::Balance;
use crate::domain::timestamp::Timestamp;
use crate::persistence::entry::{Committed, ConsumedMessage, Work};
use crate::persistence::memory::Memory;
use crate::persistence::plan::{HoldKey, InventoryRow, Needs, Plan, SessionRow, Snapshot};
use crate::persistence::records::IdempotencyKey;
use crate::persistence::{CommitError, Journal, StoreError};

use super::SqliteStore;
use super::error::store_error;
use super::packed::{self, Names, Packed};
use super::write::{self, Statement};
use super::writer::WriteTransaction;

#[async_trait]
impl Journal for SqliteStore {
    async fn commit(&self, batch: Uuid, works: &[Work]) -> Result<Committed, CommitError> {
        if let Some((plan, products)) = self.expected(works) {
            match self.writer.write_whole(write::whole(batch, &products, &plan)).await {
                Ok(()) => {
                    self.memory().committed(&plan);
                    return Ok(plan.into_committed());
                }
                // Nothing is written; it is looked what is there.
                Err(StoreError::Constraint(_) | StoreError::Corrupt(_)) => self.memory().forget(),
                Err(error) => return Err(self.failed(error, plan)),
            }
        }
        let mut transaction = self.begin().await.map_err(CommitError::NotCommitted)?;
        let snapshot = read(&mut transaction, &Needs::of(works), self.clock.now()).await.map_err(not_committed)?;
        let plan = Plan::of(works, snapshot);
        if plan.is_empty() {
            // Handed in again after it was committed, nothing of it fits: just because it was done.
            return match is_committed(&mut transaction, batch).await.map_err(not_committed)? {
                true => Err(CommitError::AlreadyCommitted),
                false => Ok(plan.into_committed()),
            };
        }
        match write::write(&mut transaction, batch, &plan).await {
            Ok(()) => self.commit_plan(transaction, plan).await,
            Err(StoreError::Constraint(rule)) if rule == "journal_batches_pkey" => Err(CommitError::AlreadyCommitted),
            Err(error) => Err(CommitError::NotCommitted(error)),
        }
    }
}

impl SqliteStore {
    /// What a batch comes to if all is as it is known to be, and the products whose versions that rests on; not when it
    /// refuses an entry: a refusal does not rest on what was only expected.
    fn expected<'w>(&self, works: &'w [Work]) -> Option<(Plan<'w>, Vec<(ProductId, i64)>)> {
        let memory = self.memory();
        // What is read only is not known from before.
        let expected =
            memory.expect(works, IdMap::default(), self.clock.now()).filter(|_| memory.unread(works).is_empty())?;
        let products = expected.products.iter().map(|(id, seen)| (*id, *seen)).collect();
        Some((Plan::of(works, expected), products)).filter(|(plan, _)| !plan.refuses())
    }

    async fn commit_plan(&self, transaction: WriteTransaction<'_>, plan: Plan<'_>) -> Result<Committed, CommitError> {
        match transaction.commit().await {
            Ok(()) => {
                self.memory().committed(&plan);
                Ok(plan.into_committed())
            }
            Err(error) => Err(self.failed(error, plan)),
        }
    }

    /// The plan was not committed, or is not known to have been.
    fn failed(&self, error: StoreError, plan: Plan<'_>) -> CommitError {
        self.memory().forget();
        if let StoreError::Unknown(source) = error {
            return CommitError::Unknown { planned: plan.into_committed(), source };
        }
        CommitError::NotCommitted(error)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn is_committed(connection: &mut SqliteConnection, batch: Uuid) -> Result<bool, StoreError> {
    let known = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM journal_batches WHERE id = $1)");
    known.bind(batch).fetch_one(connection).await.map_err(store_error)
}

fn not_committed(error: StoreError) -> CommitError {
    CommitError::NotCommitted(error)
}

async fn read(connection: &mut SqliteConnection, needs: &Needs, now: Timestamp) -> Result<Snapshot, StoreError> {
    let sessions = needs.sessions.iter().map(|key| (key.0,));
    let orders = needs.orders.iter().map(|id| (id.0,));
    let inventories = needs.inventories.iter().map(|id| (id.0,));
    let products = needs.products.iter().map(|id| (id.0,));
    let holds = needs.holds.iter().map(|(cart, number)| (cart.0, *number));
    let keys = needs.keys.iter().map(|key| (key.scope.as_str(), key.key.as_str()));
    Ok(Snapshot {
        sessions: select(connection, &SESSIONS, sessions, session_row).await?,
        orders: select(connection, &ORDERS, orders, order_row).await?,
        holds: select(connection, &HOLDS, holds, hold_row).await?,
        inventories: select(connection, &INVENTORIES, inventories, inventory_row).await?,
        products: select(connection, &PRODUCTS, products, product_row).await?,
        keys: select(connection, &KEYS, keys, key_row).await?,
        messages: known_messages(connection, &needs.messages).await?,
        now,
    })
}

const SESSIONS: Statement = Statement {
    cells: "key",
    text: "SELECT s.key, s.state, s.version, s.expires_at FROM given CROSS JOIN cart_sessions s ON s.key = given.key",
};
const ORDERS: Statement =
    Statement { cells: "id", text: "SELECT o.id, o.status FROM given CROSS JOIN orders o ON o.id = given.id" };
const HOLDS: Statement = Statement {
    cells: "cart_key, number",
    text: "SELECT h.cart_key, h.number, h.state, h.quantity
     FROM given CROSS JOIN holds h ON h.cart_key = given.cart_key AND h.number = given.number",
};
const INVENTORIES: Statement = Statement {
    cells: "id",
    text: "SELECT i.id, i.on_hand, i.held, i.seq, i.last_movement
     FROM given CROSS JOIN inventories i ON i.id = given.id",
};
const PRODUCTS: Statement =
    Statement { cells: "id", text: "SELECT p.id, p.version FROM given CROSS JOIN products p ON p.id = given.id" };
const KEYS: Statement = Statement {
    cells: "scope, key",
    text: "SELECT k.scope, k.key FROM given CROSS JOIN idempotency_keys k ON k.scope = given.scope AND k.key = given.key",
};
const MESSAGES: Statement = Statement {
    cells: "queue, message_id",
    text: "SELECT m.queue, m.message_id
     FROM given CROSS JOIN consumed_messages m ON m.queue = given.queue AND m.message_id = given.message_id",
};

/// What is there of the rows that are asked for.
async fn select<R: packed::Row, T, C: Default + FromIterator<T>>(
    connection: &mut SqliteConnection,
    statement: &Statement,
    rows: impl IntoIterator<Item = R>,
    read: impl Fn(&SqliteRow) -> Result<T, StoreError>,
) -> Result<C, StoreError> {
    let packed = Packed::of(rows);
    if packed.rows == 0 {
        return Ok(C::default());
    }
    let mut text = String::new();
    packed::give::<R>(statement.cells, Names { records: 1, texts: 2 }, &mut text);
    text.push_str(statement.text);
    let query = sqlx::query(AssertSqlSafe(text)).bind(packed.records).bind(packed.texts);
    query.fetch_all(connection).await.map_err(store_error)?.iter().map(read).collect()
}

fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(what.to_owned())
}

fn column<'r, T>(row: &'r SqliteRow, index: usize) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(index).map_err(store_error)
}

fn session_row(row: &SqliteRow) -> Result<(CartKey, SessionRow), StoreError> {
    let state = CartState::from_name(column(row, 1)?).ok_or_else(|| corrupt("the state of a cart session"))?;
    let found = SessionRow { state, version: column(row, 2)?, expires_at: Timestamp(column(row, 3)?) };
    Ok((CartKey(column(row, 0)?), found))
}

fn order_row(row: &SqliteRow) -> Result<(OrderId, OrderStatus), StoreError> {
    let status = OrderStatus::from_name(column(row, 1)?).ok_or_else(|| corrupt("the status of an order"))?;
    Ok((OrderId(column(row, 0)?), status))
}

fn hold_row(row: &SqliteRow) -> Result<(HoldKey, (HoldState, i64)), StoreError> {
    let state = HoldState::from_name(column(row, 2)?).ok_or_else(|| corrupt("the state of a hold"))?;
    Ok(((CartKey(column(row, 0)?), column(row, 1)?), (state, column(row, 3)?)))
}

fn inventory_row(row: &SqliteRow) -> Result<(InventoryId, InventoryRow), StoreError> {
    let balance = Balance { on_hand: column(row, 1)?, held: column(row, 2)?, seq: column(row, 3)? };
    Ok((InventoryId(column(row, 0)?), InventoryRow { balance, last_movement: MovementId(column(row, 4)?) }))
}

fn product_row(row: &SqliteRow) -> Result<(ProductId, i64), StoreError> {
    Ok((ProductId(column(row, 0)?), column(row, 1)?))
}

fn key_row(row: &SqliteRow) -> Result<IdempotencyKey, StoreError> {
    Ok(IdempotencyKey { scope: column(row, 0)?, key: column(row, 1)? })
}

async fn known_messages(
    connection: &mut SqliteConnection,
    asked: &[ConsumedMessage],
) -> Result<HashSet<ConsumedMessage>, StoreError> {
    let pair = |row: &SqliteRow| Ok((column::<String>(row, 0)?, column::<String>(row, 1)?));
    let rows = asked.iter().map(|message| (message.queue, message.id.as_str()));
    let known: HashSet<(String, String)> = select(connection, &MESSAGES, rows, pair).await?;
    let is_known = |message: &&ConsumedMessage| known.contains(&(message.queue.to_owned(), message.id.clone()));
    Ok(asked.iter().filter(is_known).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::super::write::tests::assert_searches;
    use super::*;

    #[tokio::test]
    async fn what_a_batch_needs_is_found_by_its_key() {
        assert_searches::<(Uuid,)>(&SESSIONS, &["s"]).await;
        assert_searches::<(Uuid,)>(&ORDERS, &["o"]).await;
        assert_searches::<(Uuid, i64)>(&HOLDS, &["h"]).await;
        assert_searches::<(Uuid,)>(&INVENTORIES, &["i"]).await;
        assert_searches::<(Uuid,)>(&PRODUCTS, &["p"]).await;
        assert_searches::<(&str, &str)>(&KEYS, &["k"]).await;
        assert_searches::<(&str, &str)>(&MESSAGES, &["m"]).await;
    }
}
