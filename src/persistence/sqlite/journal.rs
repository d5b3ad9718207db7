//! The journal's transaction on SQLite: what the batch needs is read, or known from the last one (`memory.rs`); planned; and
//! written (`write.rs`).
//!
//! What is known is written at once, by statements that are the whole transaction and stop when something is not as it was
//! expected. There is one writer, so what a transaction has read stays true until it commits; the statements name what was
//! seen all the same, and count the rows.

use std::collections::{HashMap, HashSet};
use std::sync::{MutexGuard, PoisonError};

use async_trait::async_trait;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use uuid::Uuid;

use crate::domain::cart::{CartState, HoldState};
use crate::domain::ids::{CartKey, InventoryId, MovementId, OrderId, ProductId};
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
use super::write::{self, Rows};
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
            memory.expect(works, HashMap::new(), self.clock.now()).filter(|_| memory.unread(works).is_empty())?;
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
    let ids = |ids: Vec<Uuid>| {
        Rows::of(ids, |cells, id| {
            cells.id(id);
        })
    };
    let sessions = ids(needs.sessions.iter().map(|key| key.0).collect());
    let orders = ids(needs.orders.iter().map(|id| id.0).collect());
    let inventories = ids(needs.inventories.iter().map(|id| id.0).collect());
    let products = ids(needs.products.iter().map(|id| id.0).collect());
    let holds = Rows::of(&needs.holds, |cells, (cart, number)| {
        cells.id(cart.0).number(*number);
    });
    let keys = Rows::of(&needs.keys, |cells, key| {
        cells.text(&key.scope).text(&key.key);
    });
    let messages = Rows::of(&needs.messages, |cells, message| {
        cells.text(message.queue).text(&message.id);
    });
    Ok(Snapshot {
        sessions: select(connection, SESSIONS, sessions, session_row).await?.into_iter().collect(),
        orders: select(connection, ORDERS, orders, order_row).await?.into_iter().collect(),
        holds: select(connection, HOLDS, holds, hold_row).await?.into_iter().collect(),
        inventories: select(connection, INVENTORIES, inventories, inventory_row).await?.into_iter().collect(),
        products: select(connection, PRODUCTS, products, product_row).await?.into_iter().collect::<HashMap<_, _>>(),
        keys: select(connection, KEYS, keys, key_row).await?.into_iter().collect::<HashSet<_>>(),
        messages: known_messages(connection, messages, &needs.messages).await?,
        now,
    })
}

const SESSIONS: &str = "SELECT s.key, s.state, s.version, s.expires_at
     FROM jsonb_each(?1) j CROSS JOIN cart_sessions s ON s.key = unhex(j.value ->> 0)";
const ORDERS: &str = "SELECT o.id, o.status FROM jsonb_each(?1) j CROSS JOIN orders o ON o.id = unhex(j.value ->> 0)";
const HOLDS: &str = "SELECT h.cart_key, h.number, h.state, h.quantity
     FROM jsonb_each(?1) j CROSS JOIN holds h ON h.cart_key = unhex(j.value ->> 0) AND h.number = j.value ->> 1";
const INVENTORIES: &str = "SELECT i.id, i.on_hand, i.held, i.seq, i.last_movement
     FROM jsonb_each(?1) j CROSS JOIN inventories i ON i.id = unhex(j.value ->> 0)";
const PRODUCTS: &str =
    "SELECT p.id, p.version FROM jsonb_each(?1) j CROSS JOIN products p ON p.id = unhex(j.value ->> 0)";
const KEYS: &str = "SELECT k.scope, k.key
     FROM jsonb_each(?1) j CROSS JOIN idempotency_keys k ON k.scope = j.value ->> 0 AND k.key = j.value ->> 1";
const MESSAGES: &str = "SELECT m.queue, m.message_id
     FROM jsonb_each(?1) j CROSS JOIN consumed_messages m ON m.queue = j.value ->> 0 AND m.message_id = j.value ->> 1";

async fn select<T>(
    connection: &mut SqliteConnection,
    statement: &'static str,
    rows: Rows,
    read: impl Fn(&SqliteRow) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    if rows.0 == "[]" {
        return Ok(Vec::new());
    }
    let found = sqlx::query(statement).bind(rows.0).fetch_all(connection).await.map_err(store_error)?;
    found.iter().map(read).collect()
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
    rows: Rows,
    asked: &[ConsumedMessage],
) -> Result<HashSet<ConsumedMessage>, StoreError> {
    let pair = |row: &SqliteRow| Ok((column::<String>(row, 0)?, column::<String>(row, 1)?));
    let known: HashSet<(String, String)> = select(connection, MESSAGES, rows, pair).await?.into_iter().collect();
    let is_known = |message: &&ConsumedMessage| known.contains(&(message.queue.to_owned(), message.id.clone()));
    Ok(asked.iter().filter(is_known).cloned().collect())
}
