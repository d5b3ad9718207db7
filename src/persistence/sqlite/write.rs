//! What a batch comes to, written in one statement a table, all of them handed over together.
//!
//! A whole batch is one JSON text a statement, taken apart by `jsonb_each`: a row at a time costs several times as much,
//! since each execution is a message to the connection's own thread. (`json_each` would do too, but makes a text of each
//! row again, which each `->>` then parses.)
//!
//! In a transaction that has read what the batch needs, the rows are counted afterwards. Without one ([`whole`]) the
//! statements begin and commit it themselves, and stop by themselves before that when rows are not as they were expected.

use std::fmt::Write as _;

use sqlx::AssertSqlSafe;
use sqlx::query::{Query, QueryScalar};
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnection};
use uuid::Uuid;

use crate::domain::ids::ProductId;
use crate::domain::order::OrderStatus;
use crate::domain::timestamp::Timestamp;
use crate::persistence::StoreError;
use crate::persistence::plan::Plan;
use crate::persistence::records::NewEmail;
use crate::persistence::rows::headers_to_text;

use super::error::store_error;
use super::writer::BEGIN;

/// A JSON array of rows, each an array, as `jsonb_each` takes it apart.
pub(super) struct Rows(pub(super) String);

impl Rows {
    pub(super) fn of<T>(items: impl IntoIterator<Item = T>, row: impl Fn(&mut Cells<'_>, T)) -> Self {
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
pub(super) struct Cells<'a>(&'a mut String);

impl Cells<'_> {
    fn cell(&mut self) -> &mut String {
        if !self.0.ends_with('[') {
            self.0.push(',');
        }
        self.0
    }

    pub(super) fn id(&mut self, id: Uuid) -> &mut Self {
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

    pub(super) fn number(&mut self, number: i64) -> &mut Self {
        let _ = write!(self.cell(), "{number}");
        self
    }

    fn optional_number(&mut self, number: Option<i64>) -> &mut Self {
        match number {
            Some(number) => self.number(number),
            None => self.null(),
        }
    }

    /// SQLite cuts a text of JSON at a NUL, so that two that differ behind it would be one: it gets a sign for what is not a
    /// character instead.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        let quoted = serde_json::Value::from(text.replace('\0', "\u{fffd}"));
        let _ = write!(self.cell(), "{quoted}");
        self
    }

    fn optional_text(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.text(text),
            None => self.null(),
        }
    }

    /// The cells that [`MAILS`] takes.
    fn mail(&mut self, mail: &NewEmail) {
        self.id(mail.id.0).text(&mail.sender).text(&mail.recipient).text(&mail.subject).text(&mail.body);
        self.optional_text(mail.html.as_deref()).text(&mail.source).text(mail.status.name()).number(mail.created_at.0);
    }

    fn rows(&mut self, rows: &Rows) -> &mut Self {
        self.cell().push_str(&rows.0);
        self
    }

    fn null(&mut self) -> &mut Self {
        self.cell().push_str("null");
        self
    }
}

/// Nothing is written when a product is not in the version that was seen.
const BATCH: &str = "INSERT INTO journal_batches (id, at)
     SELECT unhex(value ->> 0), value ->> 1 FROM jsonb_each(?) batch WHERE NOT EXISTS (
         SELECT 1 FROM jsonb_each(batch.value, '$[2]') seen WHERE NOT EXISTS (
             SELECT 1 FROM products WHERE id = unhex(seen.value ->> 0) AND version = seen.value ->> 1))";
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
const TELL: &str = "INSERT INTO outbox (order_id, sequence, from_status, to_status, at, traceparent)
     SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5 FROM jsonb_each(?)
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

/// Stops all that follows, by a text that is no JSON, when the statement before it did not change so many rows.
const COUNT: &str = "SELECT json(iif(changes() = ?, '1', 'not as it was expected')); ";

/// Statements that are handed to the connection's thread together, each with a batch's rows of one table.
struct Writing {
    statements: String,
    values: Vec<Value>,
    rows: usize,
    /// Whether they are all of the transaction, and so count for themselves.
    whole: bool,
}

enum Value {
    Rows(Rows),
    Count(i64),
}

impl Writing {
    /// Adds a statement that inserts so many rows: all of them, or it fails.
    fn insert(&mut self, statement: &'static str, rows: usize, values: Rows) {
        if rows > 0 {
            self.statements.push_str(statement);
            self.statements.push_str("; ");
            self.values.push(Value::Rows(values));
            self.rows += rows;
        }
    }

    /// Adds a statement that changes so many rows, if they are as they were seen.
    fn change(&mut self, statement: &'static str, rows: usize, values: Rows) {
        self.insert(statement, rows, values);
        if self.whole && rows > 0 {
            self.statements.push_str(COUNT);
            self.values.push(Value::Count(i64::try_from(rows).unwrap_or(i64::MAX)));
        }
    }

    /// Adds the batch's identifier, if these products are in these versions, and then its rows, table by table.
    fn add(&mut self, batch: Uuid, products: &[(ProductId, i64)], plan: &Plan<'_>) {
        let now = plan.now.0;
        let products = Rows::of(products, |cells, (id, version)| {
            cells.id(id.0).number(*version);
        });
        let identifier = Rows::of([batch], |cells, id| {
            cells.id(id).number(now).rows(&products);
        });
        self.change(BATCH, 1, identifier);
        add_carts(self, plan);
        add_stock(self, plan);
        add_orders(self, plan);
        let remembered = Rows::of(&plan.remembered, |cells, row| {
            cells
                .text(&row.key.scope)
                .text(&row.key.key)
                .bytes(&row.fingerprint)
                .number(i64::from(row.response.status));
            cells.text(&headers_to_text(&row.response.headers)).text(&row.response.body).number(now);
        });
        self.insert(REMEMBER, plan.remembered.len(), remembered);
        let messages = Rows::of(&plan.messages, |cells, message| {
            cells.text(message.queue).text(&message.id).number(now);
        });
        self.insert(CONSUME, plan.messages.len(), messages);
    }

    fn query(self) -> Query<'static, Sqlite, SqliteArguments> {
        // A statement is one of the constants here; their values are bound, one each.
        let query = sqlx::query(AssertSqlSafe(self.statements));
        self.values.into_iter().fold(query, |query, value| match value {
            Value::Rows(Rows(text)) => query.bind(text),
            Value::Count(count) => query.bind(count),
        })
    }
}

/// Writes the plan's rows in a transaction, as many as it names. Fewer would mean that what was seen is not what is there.
pub(super) async fn write(connection: &mut SqliteConnection, batch: Uuid, plan: &Plan<'_>) -> Result<(), StoreError> {
    let mut writing = Writing { statements: String::new(), values: Vec::new(), rows: 0, whole: false };
    writing.add(batch, &[], plan);
    let rows = writing.rows;
    let written = writing.query().execute(connection).await.map_err(store_error)?.rows_affected();
    match usize::try_from(written) == Ok(rows) {
        true => Ok(()),
        false => Err(StoreError::Corrupt(format!("{written} rows were written where {rows} were named"))),
    }
}

/// What writes the plan's rows in a transaction of its own, all or nothing, if these products are in these versions and
/// all else is as the plan expects it.
pub(super) fn whole(
    batch: Uuid,
    products: &[(ProductId, i64)],
    plan: &Plan<'_>,
) -> Query<'static, Sqlite, SqliteArguments> {
    let mut writing = Writing { statements: format!("{BEGIN}; "), values: Vec::new(), rows: 0, whole: true };
    writing.add(batch, products, plan);
    writing.statements.push_str("COMMIT");
    writing.query()
}

fn add_carts(writing: &mut Writing, plan: &Plan<'_>) {
    let opened = Rows::of(&plan.opened_sessions, |cells, row| {
        cells.id(row.key.0).bytes(&row.secret).number(row.created_at.0).number(row.expires_at.0);
    });
    writing.insert(OPEN_SESSIONS, plan.opened_sessions.len(), opened);
    let changed = Rows::of(&plan.changed_sessions, |cells, row| {
        cells.id(row.key.0).text(row.state.name()).number(row.seen).optional_number(row.expires_at.map(|at| at.0));
        cells.number(plan.now.0);
    });
    writing.change(CHANGE_SESSIONS, plan.changed_sessions.len(), changed);
    let opened = Rows::of(&plan.opened_holds, |cells, row| {
        cells.id(row.cart.0).number(row.number).id(row.product.0).id(row.inventory.0).number(row.quantity);
    });
    writing.insert(OPEN_HOLDS, plan.opened_holds.len(), opened);
    let changed = Rows::of(&plan.changed_holds, |cells, row| {
        cells.id(row.cart.0).number(row.number).number(row.seen).number(row.quantity).text(row.state.name());
    });
    writing.change(CHANGE_HOLDS, plan.changed_holds.len(), changed);
}

fn add_stock(writing: &mut Writing, plan: &Plan<'_>) {
    let now = plan.now.0;
    let balances = Rows::of(&plan.balances, |cells, row| {
        cells.id(row.id.0).number(row.change.on_hand).number(row.change.held).number(row.rows);
        cells.id(row.last_movement.0).number(row.after.seq - row.rows).number(now);
    });
    writing.change(BALANCES, plan.balances.len(), balances);
    let movements = Rows::of(&plan.movements, |cells, row| {
        let (movement, stock_move) = (row.movement, row.movement.stock_move);
        cells.id(movement.id.0).id(row.previous.0).id(movement.inventory.0).number(row.after.seq);
        cells.text(stock_move.reason.name()).text(stock_move.action.name()).number(stock_move.units);
        cells.number(row.change.on_hand).number(row.change.held).number(row.after.on_hand).number(row.after.held);
        cells.optional_id(movement.cart.map(|cart| cart.0)).optional_id(movement.order.map(|order| order.0));
        cells.optional_text(movement.reference.as_deref()).text(&movement.actor).number(now);
    });
    writing.insert(MOVEMENTS, plan.movements.len(), movements);
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
    writing.insert(PLACE_ORDERS, plan.placed_orders.len(), placed);
    let items =
        plan.placed_orders.iter().flat_map(|order| (0_i64..).zip(&order.lines).map(move |line| (order.id, line)));
    let count = plan.placed_orders.iter().map(|order| order.lines.len()).sum();
    let items = Rows::of(items, |cells, (order, (position, ordered))| {
        let line = &ordered.line;
        cells.id(order.0).number(position).id(line.product.0).id(ordered.inventory.0).text(&line.name).text(&line.sku);
        cells.number(line.price.0).number(line.quantity).number(line.total.0);
    });
    writing.insert(PLACE_ITEMS, count, items);
    let changed = Rows::of(&plan.changed_orders, |cells, row| {
        cells.id(row.id.0).text(row.seen.name()).text(row.to.name()).optional_text(row.payment_reference).number(now);
    });
    writing.change(CHANGE_ORDERS, plan.changed_orders.len(), changed);
    let untold = Rows::of(&plan.untold, |cells, change| {
        cells.id(change.order.0).number(change.sequence);
        cells.optional_text(change.from.map(OrderStatus::name)).text(change.to.name());
        cells.number(change.at.0).optional_text(change.traceparent);
    });
    writing.insert(TELL, plan.untold.len(), untold);
    let mails = Rows::of(&plan.mails, |cells, mail| cells.mail(mail));
    writing.insert(MAILS, plan.mails.len(), mails);
}

/// What keeps those of these mails whose messages were not done before, marks the messages as done, and gives how many mails
/// it has kept, in a transaction of its own. Each message is there once.
pub(super) fn keep_mails(
    queue: &str,
    mails: &[&(String, NewEmail)],
    now: Timestamp,
) -> QueryScalar<'static, Sqlite, i64, SqliteArguments> {
    let kept = Rows::of(mails, |cells, (message, mail)| {
        cells.mail(mail);
        cells.text(message);
    });
    let messages = Rows::of(mails, |cells, (message, _)| {
        cells.text(queue).text(message).number(now.0);
    });
    let statements = format!(
        "{BEGIN}; \
         {MAILS} WHERE NOT EXISTS (SELECT 1 FROM consumed_messages WHERE queue = ? AND message_id = value ->> 9); \
         SELECT changes(); \
         {CONSUME} WHERE true ON CONFLICT DO NOTHING; \
         COMMIT"
    );
    sqlx::query_scalar(AssertSqlSafe(statements)).bind(kept.0).bind(queue.to_owned()).bind(messages.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_not_cut_at_a_nul() {
        let Rows(json) = Rows::of(["1\0a", "1\0b"], |cells, text| {
            cells.text(text);
        });
        assert_eq!(json, "[[\"1\u{fffd}a\"],[\"1\u{fffd}b\"]]");
    }
}
