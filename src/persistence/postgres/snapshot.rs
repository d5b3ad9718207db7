//! What a batch needs, locked and read in one statement.
//!
//! The statement has one part a table, in the order in which all servers take their locks: sessions, orders, holds,
//! inventories, products; within a table, rows in the order of their keys. `UNION ALL` runs its parts one after the
//! other, and each part locks its rows before it gives them out, so the order of the text is the order of the locks.
//! A row that was waited for is read as its last writer left it. The time is read last, when all locks are there.

use sqlx::postgres::PgConnection;
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

use crate::domain::cart::{CartState, HoldState};
use crate::domain::ids::{CartKey, InventoryId, MovementId, OrderId, ProductId};
use crate::domain::order::OrderStatus;
use crate::domain::stock::Balance;
use crate::domain::timestamp::Timestamp;
use crate::persistence::clock::Clock;
use crate::persistence::plan::{InventoryRow, Needs, SessionRow, Snapshot};
use crate::persistence::records::IdempotencyKey;

use super::error::Answer;
use super::journal::Stopped;

/// What a row is about. The numbers stand in the statement's parts too.
const TIME: i32 = 0;
const SESSION: i32 = 1;
const ORDER: i32 = 2;
const HOLD: i32 = 3;
const INVENTORY: i32 = 4;
const PRODUCT: i32 = 5;
const KEY: i32 = 6;
const MESSAGE: i32 = 7;

const TIME_ARM: &str = "SELECT 0, NULL::uuid, NULL::uuid, NULL::text, NULL::text, \
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, NULL::bigint, NULL::bigint";
const SESSION_ARM: &str =
    "SELECT 1, key, NULL::uuid, state, NULL::text, version, expires_at, NULL::bigint FROM session";
const ORDER_ARM: &str =
    "SELECT 2, id, NULL::uuid, status, NULL::text, NULL::bigint, NULL::bigint, NULL::bigint FROM placed";
const HOLD_ARM: &str = "SELECT 3, cart_key, NULL::uuid, state, NULL::text, number, quantity, NULL::bigint FROM line";
const INVENTORY_ARM: &str = "SELECT 4, id, last_movement, NULL::text, NULL::text, on_hand, held, seq FROM stock";
const PRODUCT_ARM: &str =
    "SELECT 5, id, NULL::uuid, NULL::text, NULL::text, version, NULL::bigint, NULL::bigint FROM product";
const KEY_ARM: &str =
    "SELECT 6, NULL::uuid, NULL::uuid, scope, key, NULL::bigint, NULL::bigint, NULL::bigint FROM known_key";
const MESSAGE_ARM: &str = "SELECT 7, NULL::uuid, NULL::uuid, queue, message_id, NULL::bigint, NULL::bigint, \
    NULL::bigint FROM known_message";

/// A row of any part.
#[derive(sqlx::FromRow)]
struct FoundRow(i32, Option<Uuid>, Option<Uuid>, Option<String>, Option<String>, Option<i64>, Option<i64>, Option<i64>);

/// The statement as far as it is put together.
struct Reading {
    query: QueryBuilder<Postgres>,
    arms: Vec<&'static str>,
}

impl Reading {
    /// Begins the next part.
    fn part(&mut self, name: &'static str, arm: &'static str) -> &mut QueryBuilder<Postgres> {
        self.query.push(if self.arms.is_empty() { "WITH " } else { ", " }).push(name).push(" AS MATERIALIZED (");
        self.arms.push(arm);
        &mut self.query
    }
}

/// Reads what the batch needs, and with `locking` holds it until the transaction ends. The clock learns the time.
pub(super) async fn read(
    connection: &mut PgConnection,
    needs: &Needs,
    locking: bool,
    clock: &Clock,
) -> Result<Snapshot, Stopped> {
    let mut reading = statement(needs, locking);
    let rows: Vec<FoundRow> = reading.build_query_as().fetch_all(connection).in_time().await?;
    let mut found = Snapshot::empty();
    for row in rows {
        if row.0 == TIME {
            let database = row.5.ok_or_else(|| corrupt("no time"))?;
            found.now = clock.learn(Timestamp(database));
        } else if row.0 == MESSAGE {
            let known = |message: &&_| is_message(&row, message);
            found.messages.extend(needs.messages.iter().find(known).cloned());
        } else {
            add(&mut found, row).ok_or_else(|| corrupt("a row that the journal needs"))?;
        }
    }
    Ok(found)
}

fn statement(needs: &Needs, locking: bool) -> QueryBuilder<Postgres> {
    let mut reading = Reading { query: QueryBuilder::new(""), arms: Vec::new() };
    let (lock, share) = if locking { (" FOR UPDATE)", " FOR SHARE)") } else { (")", ")") };
    if !needs.sessions.is_empty() {
        let part = reading.part("session", SESSION_ARM);
        part.push("SELECT key, state, version, expires_at FROM cart_sessions WHERE key = ANY(");
        part.push_bind(ids(needs.sessions.iter().map(|key| key.0))).push(") ORDER BY key").push(lock);
    }
    if !needs.orders.is_empty() {
        let part = reading.part("placed", ORDER_ARM);
        part.push("SELECT id, status FROM orders WHERE id = ANY(");
        part.push_bind(ids(needs.orders.iter().map(|id| id.0))).push(") ORDER BY id").push(lock);
    }
    if !needs.holds.is_empty() {
        let part = reading.part("line", HOLD_ARM);
        part.push(
            "SELECT cart_key, number, state, quantity FROM holds WHERE (cart_key, number) IN (SELECT * FROM unnest(",
        );
        part.push_bind(ids(needs.holds.iter().map(|(cart, _)| cart.0))).push(", ");
        part.push_bind(needs.holds.iter().map(|(_, number)| *number).collect::<Vec<i64>>());
        part.push(")) ORDER BY cart_key, number").push(lock);
    }
    if !needs.inventories.is_empty() {
        let part = reading.part("stock", INVENTORY_ARM);
        part.push("SELECT id, on_hand, held, seq, last_movement FROM inventories WHERE id = ANY(");
        part.push_bind(ids(needs.inventories.iter().map(|id| id.0))).push(") ORDER BY id").push(lock);
    }
    if !needs.products.is_empty() {
        let part = reading.part("product", PRODUCT_ARM);
        part.push("SELECT id, version FROM products WHERE id = ANY(");
        part.push_bind(ids(needs.products.iter().map(|id| id.0))).push(") ORDER BY id").push(share);
    }
    if !needs.keys.is_empty() {
        let part = reading.part("known_key", KEY_ARM);
        part.push("SELECT scope, key FROM idempotency_keys WHERE (scope, key) IN (SELECT * FROM unnest(");
        part.push_bind(needs.keys.iter().map(|key| key.scope.as_str()).collect::<Vec<_>>()).push(", ");
        part.push_bind(needs.keys.iter().map(|key| key.key.as_str()).collect::<Vec<_>>()).push(")))");
    }
    if !needs.messages.is_empty() {
        let part = reading.part("known_message", MESSAGE_ARM);
        part.push(
            "SELECT queue, message_id FROM consumed_messages WHERE (queue, message_id) IN (SELECT * FROM unnest(",
        );
        part.push_bind(needs.messages.iter().map(|message| message.queue).collect::<Vec<_>>()).push(", ");
        part.push_bind(needs.messages.iter().map(|message| message.id.as_str()).collect::<Vec<_>>()).push(")))");
    }
    let Reading { mut query, arms } = reading;
    for arm in arms {
        query.push(" ").push(arm).push(" UNION ALL");
    }
    query.push(" ").push(TIME_ARM);
    query
}

fn ids(ids: impl Iterator<Item = Uuid>) -> Vec<Uuid> {
    ids.collect()
}

/// Adds a row to what was found; `None` when it is not what its part gives.
fn add(found: &mut Snapshot, row: FoundRow) -> Option<()> {
    let FoundRow(kind, id, other, first, second, a, b, c) = row;
    match kind {
        SESSION => {
            let state = CartState::from_name(&first?)?;
            let session = SessionRow { state, version: a?, expires_at: Timestamp(b?) };
            found.sessions.insert(CartKey(id?), session);
        }
        ORDER => {
            found.orders.insert(OrderId(id?), OrderStatus::from_name(&first?)?);
        }
        HOLD => {
            found.holds.insert((CartKey(id?), a?), (HoldState::from_name(&first?)?, b?));
        }
        INVENTORY => {
            let balance = Balance { on_hand: a?, held: b?, seq: c? };
            let inventory = InventoryRow { balance, last_movement: MovementId(other?) };
            found.inventories.insert(InventoryId(id?), inventory);
        }
        PRODUCT => {
            found.products.insert(ProductId(id?), a?);
        }
        KEY => {
            found.keys.insert(IdempotencyKey { scope: first?, key: second? });
        }
        _ => return None,
    }
    Some(())
}

fn is_message(row: &FoundRow, message: &crate::persistence::entry::ConsumedMessage) -> bool {
    row.3.as_deref() == Some(message.queue) && row.4.as_deref() == Some(message.id.as_str())
}

fn corrupt(what: &str) -> Stopped {
    Stopped::Corrupt(what.to_owned())
}
