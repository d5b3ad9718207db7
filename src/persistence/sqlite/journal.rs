//! The journal's transaction on SQLite: what the batch needs is read, or known from the last one (`memory.rs`); planned; and
//! written in one statement a table, all of them handed over together.
//!
//! A whole batch is one JSON text a statement, taken apart by `jsonb_each`: a row at a time costs several times as much,
//! since each execution is a message to the connection's own thread. (`json_each` would do too, but makes a text of each
//! row again, which each `->>` then parses.) There is one writer, so what the transaction has
//! read stays true until it commits; the statements name what was seen all the same, and count the rows.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::{MutexGuard, PoisonError};

use async_trait::async_trait;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Row};
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
use crate::persistence::rows::headers_to_text;
use crate::persistence::{CommitError, Journal, StoreError};

use super::SqliteStore;
use super::error::store_error;
use super::writer::WriteTransaction;

#[async_trait]
impl Journal for SqliteStore {
    async fn commit(&self, batch: Uuid, works: &[Work]) -> Result<Committed, CommitError> {
        if let Some(plan) = self.expected(works) {
            let mut transaction = self.begin().await.map_err(CommitError::NotCommitted)?;
            match write(&mut transaction, batch, &plan).await {
                Ok(()) => return self.commit_plan(transaction, plan).await,
                // It is not as it was expected, and what was written goes with the transaction.
                Err(StoreError::Constraint(_) | StoreError::Corrupt(_)) => self.memory().forget(),
                Err(error) => return Err(CommitError::NotCommitted(error)),
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
        match write(&mut transaction, batch, &plan).await {
            Ok(()) => self.commit_plan(transaction, plan).await,
            Err(StoreError::Constraint(rule)) if rule == "journal_batches_pkey" => Err(CommitError::AlreadyCommitted),
            Err(error) => Err(CommitError::NotCommitted(error)),
        }
    }
}

impl SqliteStore {
    /// What a batch comes to if all is as it is known to be; not when it refuses an entry: a refusal does not rest on
    /// what was only expected. Versions of products are no part of what is written, so they have to be read.
    fn expected<'w>(&self, works: &'w [Work]) -> Option<Plan<'w>> {
        let names_products = |work: &Work| matches!(work, Work::Write(entry) if !entry.products.is_empty());
        if works.iter().any(names_products) {
            return None;
        }
        let expected = self.memory().expect(works, self.clock.now())?;
        Some(Plan::of(works, expected)).filter(|plan| !plan.refuses())
    }

    async fn commit_plan(&self, transaction: WriteTransaction<'_>, plan: Plan<'_>) -> Result<Committed, CommitError> {
        match transaction.commit().await {
            Ok(()) => {
                self.memory().committed(&plan);
                Ok(plan.into_committed())
            }
            Err(error) => {
                self.memory().forget();
                if let StoreError::Unknown(source) = error {
                    return Err(CommitError::Unknown { planned: plan.into_committed(), source });
                }
                Err(CommitError::NotCommitted(error))
            }
        }
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

/// A JSON array of rows, each an array, as `jsonb_each` takes it apart.
struct Rows(String);

impl Rows {
    fn of<T>(items: impl IntoIterator<Item = T>, row: impl Fn(&mut Cells<'_>, T)) -> Self {
        let mut text = String::from("[");
        for item in items {
            text.push_str(if text.len() == 1 { "[" } else { ",[" });
            row(&mut Cells(&mut text), item);
            text.push(']');
        }
        text.push(']');
        Self(text)
    }
}

/// One row of [`Rows`], written cell by cell.
struct Cells<'a>(&'a mut String);

impl Cells<'_> {
    fn cell(&mut self) -> &mut String {
        if !self.0.ends_with('[') {
            self.0.push(',');
        }
        self.0
    }

    fn id(&mut self, id: Uuid) -> &mut Self {
        let mut digits = [0; uuid::fmt::Simple::LENGTH];
        let text = self.cell();
        text.push('"');
        text.push_str(id.simple().encode_lower(&mut digits));
        text.push('"');
        self
    }

    fn optional_id(&mut self, id: Option<Uuid>) -> &mut Self {
        match id {
            Some(id) => self.id(id),
            None => self.null(),
        }
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        let text = self.cell();
        text.push('"');
        for byte in bytes {
            // Writing to a text can not fail.
            let _ = write!(text, "{byte:02x}");
        }
        text.push('"');
        self
    }

    fn number(&mut self, number: i64) -> &mut Self {
        let _ = write!(self.cell(), "{number}");
        self
    }

    fn optional_number(&mut self, number: Option<i64>) -> &mut Self {
        match number {
            Some(number) => self.number(number),
            None => self.null(),
        }
    }

    fn text(&mut self, text: &str) -> &mut Self {
        let quoted = serde_json::Value::from(text);
        let _ = write!(self.cell(), "{quoted}");
        self
    }

    fn optional_text(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.text(text),
            None => self.null(),
        }
    }

    fn null(&mut self) -> &mut Self {
        self.cell().push_str("null");
        self
    }
}

// Reading -------------------------------------------------------------------------------------------------------

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

// Writing -------------------------------------------------------------------------------------------------------

const BATCH: &str = "INSERT INTO journal_batches (id, at) SELECT unhex(value ->> 0), value ->> 1 FROM jsonb_each(?)";
const OPEN_SESSIONS: &str = "INSERT INTO cart_sessions (key, secret, state, version, created_at, expires_at)
     SELECT unhex(value ->> 0), unhex(value ->> 1), 'open', 1, value ->> 2, value ->> 3 FROM jsonb_each(?)";
const CHANGE_SESSIONS: &str = "UPDATE cart_sessions
     SET state = j.value ->> 1, version = version + 1, expires_at = coalesce(j.value ->> 3, expires_at)
     FROM jsonb_each(?) j
     WHERE cart_sessions.key = unhex(j.value ->> 0) AND version = j.value ->> 2 AND cart_sessions.state = 'open'
         AND CASE j.value ->> 1 WHEN 'cleared' THEN true WHEN 'expired' THEN expires_at <= j.value ->> 4
         ELSE expires_at > j.value ->> 4 END";
const OPEN_HOLDS: &str = "INSERT INTO holds (cart_key, number, product_id, inventory_id, quantity, state)
     SELECT unhex(value ->> 0), value ->> 1, unhex(value ->> 2), unhex(value ->> 3), value ->> 4, 'open'
     FROM jsonb_each(?)";
const CHANGE_HOLDS: &str = "UPDATE holds SET quantity = j.value ->> 3, state = j.value ->> 4 FROM jsonb_each(?) j
     WHERE cart_key = unhex(j.value ->> 0) AND number = j.value ->> 1 AND quantity = j.value ->> 2
         AND holds.state = 'open'";
const BALANCES: &str = "UPDATE inventories
     SET on_hand = on_hand + (j.value ->> 1), held = held + (j.value ->> 2), seq = seq + (j.value ->> 3),
         last_movement = unhex(j.value ->> 4), updated_at = j.value ->> 6 FROM jsonb_each(?) j
     WHERE inventories.id = unhex(j.value ->> 0) AND seq = j.value ->> 5";
const MOVEMENTS: &str = "INSERT INTO movements (id, previous, inventory_id, seq, reason, action, units,
         on_hand_change, held_change, on_hand, held, cart_key, order_id, reference, actor, at)
     SELECT unhex(value ->> 0), unhex(value ->> 1), unhex(value ->> 2), value ->> 3, value ->> 4, value ->> 5,
         value ->> 6, value ->> 7, value ->> 8, value ->> 9, value ->> 10, unhex(value ->> 11), unhex(value ->> 12),
         value ->> 13, value ->> 14, value ->> 15 FROM jsonb_each(?)";
const PLACE_ORDERS: &str = "INSERT INTO orders (id, cart_key, user_id, user_name, user_email, currency, subtotal, tax,
         grand_total, status, sequence, shipping_address, payment_reference, created_at, updated_at)
     SELECT unhex(value ->> 0), unhex(value ->> 1), unhex(value ->> 2), value ->> 3, value ->> 4, value ->> 5,
         value ->> 6, value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12, value ->> 13,
         value ->> 14 FROM jsonb_each(?)";
const PLACE_ITEMS: &str = "INSERT INTO order_items (order_id, position, product_id, inventory_id, name, sku, price,
         quantity, total)
     SELECT unhex(value ->> 0), value ->> 1, unhex(value ->> 2), unhex(value ->> 3), value ->> 4, value ->> 5,
         value ->> 6, value ->> 7, value ->> 8 FROM jsonb_each(?)";
const CHANGE_ORDERS: &str = "UPDATE orders
     SET status = j.value ->> 2, sequence = sequence + 1, updated_at = j.value ->> 4,
         payment_reference = coalesce(j.value ->> 3, payment_reference) FROM jsonb_each(?) j
     WHERE orders.id = unhex(j.value ->> 0) AND status = j.value ->> 1";
const EVENTS: &str = "INSERT INTO outbox (id, order_id, queue, payload, at, traceparent)
     SELECT unhex(value ->> 0), unhex(value ->> 1), value ->> 2, value ->> 3, value ->> 4, value ->> 5 FROM jsonb_each(?)
     ORDER BY key";
const MAILS: &str =
    "INSERT INTO emails (id, sender, recipient, subject, body, html, source, status, due_at, created_at)
     SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6,
         value ->> 7, value ->> 8, value ->> 8 FROM jsonb_each(?)";
const REMEMBER: &str = "INSERT INTO idempotency_keys (scope, key, fingerprint, status, headers, body, at)
     SELECT value ->> 0, value ->> 1, unhex(value ->> 2), value ->> 3, value ->> 4, value ->> 5, value ->> 6
     FROM jsonb_each(?)";
const CONSUME: &str = "INSERT INTO consumed_messages (queue, message_id, at)
     SELECT value ->> 0, value ->> 1, value ->> 2 FROM jsonb_each(?)";

/// Statements that are handed to the connection's thread together, each with a batch's rows of one table.
#[derive(Default)]
struct Writing {
    statements: String,
    values: Vec<String>,
    rows: usize,
}

impl Writing {
    /// Adds a statement that writes so many rows.
    fn add(&mut self, statement: &'static str, rows: usize, values: Rows) {
        if rows > 0 {
            self.statements.push_str(statement);
            self.statements.push_str("; ");
            self.values.push(values.0);
            self.rows += rows;
        }
    }
}

/// Writes the batch's identifier first, then rows table by table, as many as are named. Fewer would mean that what was
/// seen is not what is there.
async fn write(connection: &mut SqliteConnection, batch: Uuid, plan: &Plan<'_>) -> Result<(), StoreError> {
    let now = plan.now.0;
    let mut writing = Writing::default();
    let identifier = Rows::of([batch], |cells, id| {
        cells.id(id).number(now);
    });
    writing.add(BATCH, 1, identifier);
    add_carts(&mut writing, plan);
    add_stock(&mut writing, plan);
    add_orders(&mut writing, plan);
    let remembered = Rows::of(&plan.remembered, |cells, row| {
        cells.text(&row.key.scope).text(&row.key.key).bytes(&row.fingerprint).number(i64::from(row.response.status));
        cells.text(&headers_to_text(&row.response.headers)).text(&row.response.body).number(now);
    });
    writing.add(REMEMBER, plan.remembered.len(), remembered);
    let messages = Rows::of(&plan.messages, |cells, message| {
        cells.text(message.queue).text(&message.id).number(now);
    });
    writing.add(CONSUME, plan.messages.len(), messages);
    let Writing { statements, values, rows } = writing;
    // A statement is one of the constants above; their values are bound, one each.
    let query = values.into_iter().fold(sqlx::query(AssertSqlSafe(statements)), Query::bind);
    let written = query.execute(connection).await.map_err(store_error)?.rows_affected();
    match usize::try_from(written) == Ok(rows) {
        true => Ok(()),
        false => Err(StoreError::Corrupt(format!("{written} rows were written where {rows} were named"))),
    }
}

fn add_carts(writing: &mut Writing, plan: &Plan<'_>) {
    let opened = Rows::of(&plan.opened_sessions, |cells, row| {
        cells.id(row.key.0).bytes(&row.secret).number(row.created_at.0).number(row.expires_at.0);
    });
    writing.add(OPEN_SESSIONS, plan.opened_sessions.len(), opened);
    let changed = Rows::of(&plan.changed_sessions, |cells, row| {
        cells.id(row.key.0).text(row.state.name()).number(row.seen).optional_number(row.expires_at.map(|at| at.0));
        cells.number(plan.now.0);
    });
    writing.add(CHANGE_SESSIONS, plan.changed_sessions.len(), changed);
    let opened = Rows::of(&plan.opened_holds, |cells, row| {
        cells.id(row.cart.0).number(row.number).id(row.product.0).id(row.inventory.0).number(row.quantity);
    });
    writing.add(OPEN_HOLDS, plan.opened_holds.len(), opened);
    let changed = Rows::of(&plan.changed_holds, |cells, row| {
        cells.id(row.cart.0).number(row.number).number(row.seen).number(row.quantity).text(row.state.name());
    });
    writing.add(CHANGE_HOLDS, plan.changed_holds.len(), changed);
}

fn add_stock(writing: &mut Writing, plan: &Plan<'_>) {
    let now = plan.now.0;
    let balances = Rows::of(&plan.balances, |cells, row| {
        cells.id(row.id.0).number(row.change.on_hand).number(row.change.held).number(row.rows);
        cells.id(row.last_movement.0).number(row.after.seq - row.rows).number(now);
    });
    writing.add(BALANCES, plan.balances.len(), balances);
    let movements = Rows::of(&plan.movements, |cells, row| {
        let (movement, stock_move) = (row.movement, row.movement.stock_move);
        cells.id(movement.id.0).id(row.previous.0).id(movement.inventory.0).number(row.after.seq);
        cells.text(stock_move.reason.name()).text(stock_move.action.name()).number(stock_move.units);
        cells.number(row.change.on_hand).number(row.change.held).number(row.after.on_hand).number(row.after.held);
        cells.optional_id(movement.cart.map(|cart| cart.0)).optional_id(movement.order.map(|order| order.0));
        cells.optional_text(movement.reference.as_deref()).text(&movement.actor).number(now);
    });
    writing.add(MOVEMENTS, plan.movements.len(), movements);
}

fn add_orders(writing: &mut Writing, plan: &Plan<'_>) {
    let now = plan.now.0;
    let placed = Rows::of(&plan.placed_orders, |cells, order| {
        cells.id(order.id.0).id(order.cart.key.0).id(order.user.0).text(&order.user_name).text(&order.user_email);
        cells.text(order.currency.code()).number(order.totals.subtotal.0).number(order.totals.tax.0);
        cells.number(order.totals.grand_total.0).text(order.status.name()).number(order.sequence);
        cells.optional_text(order.shipping_address.as_deref()).optional_text(order.payment_reference.as_deref());
        cells.number(order.created_at.0).number(order.updated_at.0);
    });
    writing.add(PLACE_ORDERS, plan.placed_orders.len(), placed);
    let items =
        plan.placed_orders.iter().flat_map(|order| (0_i64..).zip(&order.lines).map(move |line| (order.id, line)));
    let count = plan.placed_orders.iter().map(|order| order.lines.len()).sum();
    let items = Rows::of(items, |cells, (order, (position, ordered))| {
        let line = &ordered.line;
        cells.id(order.0).number(position).id(line.product.0).id(ordered.inventory.0).text(&line.name).text(&line.sku);
        cells.number(line.price.0).number(line.quantity).number(line.total.0);
    });
    writing.add(PLACE_ITEMS, count, items);
    let changed = Rows::of(&plan.changed_orders, |cells, row| {
        cells.id(row.id.0).text(row.seen.name()).text(row.to.name()).optional_text(row.payment_reference).number(now);
    });
    writing.add(CHANGE_ORDERS, plan.changed_orders.len(), changed);
    let events = Rows::of(&plan.events, |cells, event| {
        cells.id(event.id.0).id(event.order.0).text(event.queue).text(&event.payload).number(now);
        cells.optional_text(event.traceparent.as_deref());
    });
    writing.add(EVENTS, plan.events.len(), events);
    let mails = Rows::of(&plan.mails, |cells, mail| {
        cells.id(mail.id.0).text(&mail.sender).text(&mail.recipient).text(&mail.subject).text(&mail.body);
        cells.optional_text(mail.html.as_deref()).text(&mail.source).text(mail.status.name()).number(mail.created_at.0);
    });
    writing.add(MAILS, plan.mails.len(), mails);
}
