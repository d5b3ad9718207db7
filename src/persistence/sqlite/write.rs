//! What a batch comes to, written in one statement a table, all of them handed over together.
//!
//! Each statement has its rows as two values ([`packed`]), however many they are: a row at a time costs several times as much,
//! since each execution is a message to the connection's own thread.
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
use crate::domain::stock::Balance;
use crate::domain::timestamp::Timestamp;
use crate::persistence::StoreError;
use crate::persistence::plan::Plan;
use crate::persistence::records::NewEmail;
use crate::persistence::rows::headers_to_text;

use super::error::store_error;
use super::packed::{self, Names, Packed, Row};
use super::writer::BEGIN;

/// What is done with a batch's rows of one table, and the names of their cells.
pub(super) struct Statement {
    pub(super) cells: &'static str,
    pub(super) text: &'static str,
}

/// Products and the versions in which they were seen.
const SEEN: &str = "id, version";
/// Those that are in another one now: then nothing is written.
const UNSEEN: &str = "SELECT 1 FROM given WHERE NOT EXISTS (
     SELECT 1 FROM products WHERE products.id = given.id AND products.version = given.version)";
const OPEN_SESSIONS: Statement = Statement {
    cells: "key, secret, created_at, expires_at",
    text: "INSERT INTO cart_sessions (key, secret, state, version, created_at, expires_at)
     SELECT key, secret, 'open', 1, created_at, expires_at FROM given",
};
const CHANGE_SESSIONS: Statement = Statement {
    cells: "key, state, seen, expires_at, now",
    text: "UPDATE cart_sessions
     SET state = given.state, version = version + 1, expires_at = coalesce(given.expires_at, cart_sessions.expires_at)
     FROM given
     WHERE cart_sessions.key = given.key AND version = given.seen AND cart_sessions.state = 'open'
         AND CASE given.state WHEN 'cleared' THEN true WHEN 'expired' THEN cart_sessions.expires_at <= given.now
         ELSE cart_sessions.expires_at > given.now END",
};
const OPEN_HOLDS: Statement = Statement {
    cells: "cart_key, number, product_id, inventory_id, quantity",
    text: "INSERT INTO holds (cart_key, number, product_id, inventory_id, quantity, state)
     SELECT cart_key, number, product_id, inventory_id, quantity, 'open' FROM given",
};
const CHANGE_HOLDS: Statement = Statement {
    cells: "cart_key, number, seen, quantity, state",
    text: "UPDATE holds SET quantity = given.quantity, state = given.state FROM given
     WHERE holds.cart_key = given.cart_key AND holds.number = given.number AND holds.quantity = given.seen
         AND holds.state = 'open'",
};
const BALANCES: Statement = Statement {
    cells: "id, on_hand_change, held_change, rows, last_movement, seen, at",
    text: "UPDATE inventories
     SET on_hand = on_hand + on_hand_change, held = held + held_change, seq = seq + rows,
         last_movement = given.last_movement, updated_at = at FROM given
     WHERE inventories.id = given.id AND seq = seen",
};
const MOVEMENTS: Statement = Statement {
    cells: "id, previous, inventory_id, seq, reason, action, units, on_hand_change, held_change, on_hand, held, cart_key,
         order_id, reference, actor, at",
    text: "INSERT INTO movements (id, previous, inventory_id, seq, reason, action, units,
         on_hand_change, held_change, on_hand, held, cart_key, order_id, reference, actor, at)
     SELECT id, previous, inventory_id, seq, reason, action, units, on_hand_change, held_change, on_hand, held, cart_key,
         order_id, reference, actor, at FROM given",
};
const PLACE_ORDERS: Statement = Statement {
    cells: "id, cart_key, user_id, user_name, user_email, currency, subtotal, tax, grand_total, status, sequence,
         shipping_address, payment_reference, created_at, updated_at",
    text: "INSERT INTO orders (id, cart_key, user_id, user_name, user_email, currency, subtotal, tax,
         grand_total, status, sequence, shipping_address, payment_reference, created_at, updated_at)
     SELECT id, cart_key, user_id, user_name, user_email, currency, subtotal, tax, grand_total, status, sequence,
         shipping_address, payment_reference, created_at, updated_at FROM given",
};
const PLACE_ITEMS: Statement = Statement {
    cells: "order_id, position, product_id, inventory_id, name, sku, price, quantity, total",
    text: "INSERT INTO order_items (order_id, position, product_id, inventory_id, name, sku, price, quantity, total)
     SELECT order_id, position, product_id, inventory_id, name, sku, price, quantity, total FROM given",
};
const CHANGE_ORDERS: Statement = Statement {
    cells: "id, seen, status, payment_reference, at",
    text: "UPDATE orders
     SET status = given.status, sequence = sequence + 1, updated_at = at,
         payment_reference = coalesce(given.payment_reference, orders.payment_reference) FROM given
     WHERE orders.id = given.id AND orders.status = seen",
};
const TELL: Statement = Statement {
    cells: "order_id, sequence, from_status, to_status, at, traceparent",
    text: "INSERT INTO outbox (order_id, sequence, from_status, to_status, at, traceparent)
     SELECT order_id, sequence, from_status, to_status, at, traceparent FROM given ORDER BY place",
};
const MAILS: Statement = Statement {
    cells: "id, sender, recipient, subject, body, html, source, status, at",
    text: "INSERT INTO emails (id, sender, recipient, subject, body, html, source, status, due_at, created_at)
     SELECT id, sender, recipient, subject, body, html, source, status, at, at FROM given",
};
/// [`MAILS`] of messages that were not done before.
const UNSEEN_MAILS: Statement = Statement {
    cells: "id, sender, recipient, subject, body, html, source, status, at, queue, message_id",
    text: "INSERT INTO emails (id, sender, recipient, subject, body, html, source, status, due_at, created_at)
     SELECT id, sender, recipient, subject, body, html, source, status, at, at FROM given WHERE NOT EXISTS (
         SELECT 1 FROM consumed_messages done WHERE done.queue = given.queue AND done.message_id = given.message_id)",
};
const REMEMBER: Statement = Statement {
    cells: "scope, key, fingerprint, status, headers, body, at",
    text: "INSERT INTO idempotency_keys (scope, key, fingerprint, status, headers, body, at)
     SELECT scope, key, fingerprint, status, headers, body, at FROM given",
};
const CONSUME: Statement = Statement {
    cells: "queue, message_id, at",
    text: "INSERT INTO consumed_messages (queue, message_id, at) SELECT queue, message_id, at FROM given",
};
/// [`CONSUME`], if they are not there yet.
const CONSUME_ONCE: Statement = Statement {
    cells: CONSUME.cells,
    text: "INSERT INTO consumed_messages (queue, message_id, at) SELECT queue, message_id, at FROM given
     WHERE true ON CONFLICT DO NOTHING",
};

/// Statements that are handed to the connection's thread together, each with a batch's rows of one table.
#[derive(Default)]
struct Writing {
    statements: String,
    values: Vec<Value>,
    rows: usize,
    /// Whether they are all of the transaction, and so count for themselves.
    whole: bool,
}

/// What a statement is given.
enum Value {
    Bytes(Vec<u8>),
    Number(i64),
}

impl Writing {
    /// Statements that begin the transaction themselves.
    fn whole() -> Self {
        Self { statements: format!("{BEGIN}; "), whole: true, ..Self::default() }
    }

    /// Binds a value, and gives its number.
    fn bind(&mut self, value: Value) -> usize {
        self.values.push(value);
        self.values.len()
    }

    /// Begins a statement with its rows.
    fn give<R: Row>(&mut self, cells: &str, rows: impl IntoIterator<Item = R>) -> usize {
        let packed = Packed::of(rows);
        let (records, texts) = (Value::Bytes(packed.records), Value::Bytes(packed.texts));
        let names = Names { records: self.bind(records), texts: self.bind(texts) };
        packed::give::<R>(cells, names, &mut self.statements);
        packed.rows
    }

    /// Adds a statement for these rows, if there are any, and gives how many there are. What it inserts is there, or it fails.
    fn insert<R: Row>(&mut self, statement: &Statement, rows: impl IntoIterator<Item = R>) -> usize {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return 0;
        }
        let count = self.give(statement.cells, rows);
        self.statements.push_str(statement.text);
        self.statements.push_str("; ");
        self.rows += count;
        count
    }

    /// Adds a statement that changes these rows, if they are as they were seen.
    fn change<R: Row>(&mut self, statement: &Statement, rows: impl IntoIterator<Item = R>) {
        let count = self.insert(statement, rows);
        if count > 0 {
            self.count(count);
        }
    }

    /// Stops all that follows, by a text that is no JSON, when the statement before did not change so many rows.
    fn count(&mut self, rows: usize) {
        if self.whole {
            let rows = self.bind(Value::Number(i64::try_from(rows).unwrap_or(i64::MAX)));
            let _ = write!(self.statements, "SELECT json(iif(changes() = ${rows}, '1', 'not as it was expected')); ");
        }
    }

    /// Adds the batch's identifier, if these products are in these versions, and then its rows, table by table.
    fn add(&mut self, batch: Uuid, products: &[(ProductId, i64)], plan: &Plan<'_>) {
        let now = plan.now.0;
        self.give(SEEN, products.iter().map(|(id, version)| (id.0, *version)));
        let (id, at) = (self.bind(Value::Bytes(batch.into_bytes().to_vec())), self.bind(Value::Number(now)));
        let _ = write!(
            self.statements,
            "INSERT INTO journal_batches (id, at) SELECT ${id}, ${at} WHERE NOT EXISTS ({UNSEEN}); "
        );
        self.rows += 1;
        self.count(1);
        add_carts(self, plan);
        add_stock(self, plan);
        add_orders(self, plan);
        let remembered = plan.remembered.iter().map(|row| {
            let (key, response) = (&row.key, &row.response);
            let (status, headers) = (i64::from(response.status), headers_to_text(&response.headers));
            (key.scope.as_str(), key.key.as_str(), row.fingerprint, status, headers, response.body.as_str(), now)
        });
        self.insert(&REMEMBER, remembered);
        self.insert(&CONSUME, plan.messages.iter().map(|message| (message.queue, message.id.as_str(), now)));
    }

    fn query(self) -> Query<'static, Sqlite, SqliteArguments> {
        let query = sqlx::query(AssertSqlSafe(self.statements));
        self.values.into_iter().fold(query, |query, value| match value {
            Value::Bytes(bytes) => query.bind(bytes),
            Value::Number(number) => query.bind(number),
        })
    }
}

/// Writes the plan's rows in a transaction, as many as it names. Fewer would mean that what was seen is not what is there.
pub(super) async fn write(connection: &mut SqliteConnection, batch: Uuid, plan: &Plan<'_>) -> Result<(), StoreError> {
    let mut writing = Writing::default();
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
    let mut writing = Writing::whole();
    writing.add(batch, products, plan);
    writing.statements.push_str("COMMIT");
    writing.query()
}

fn add_carts(writing: &mut Writing, plan: &Plan<'_>) {
    let opened = plan.opened_sessions.iter();
    writing.insert(&OPEN_SESSIONS, opened.map(|row| (row.key.0, row.secret, row.created_at.0, row.expires_at.0)));
    let changed = plan.changed_sessions.iter();
    writing.change(
        &CHANGE_SESSIONS,
        changed.map(|row| (row.key.0, row.state.name(), row.seen, row.expires_at.map(|at| at.0), plan.now.0)),
    );
    let opened = plan.opened_holds.iter();
    writing
        .insert(&OPEN_HOLDS, opened.map(|row| (row.cart.0, row.number, row.product.0, row.inventory.0, row.quantity)));
    let changed = plan.changed_holds.iter();
    writing
        .change(&CHANGE_HOLDS, changed.map(|row| (row.cart.0, row.number, row.seen, row.quantity, row.state.name())));
}

fn add_stock(writing: &mut Writing, plan: &Plan<'_>) {
    let now = plan.now.0;
    let balances = plan.balances.iter().map(|row| {
        let seen = row.after.seq - row.rows;
        (row.id.0, row.change.on_hand, row.change.held, row.rows, row.last_movement.0, seen, now)
    });
    writing.change(&BALANCES, balances);
    let movements = plan.movements.iter().map(|row| {
        let (movement, stock_move) = (row.movement, row.movement.stock_move);
        let Balance { on_hand, held, seq } = row.after;
        let (cart, order) = (movement.cart.map(|cart| cart.0), movement.order.map(|order| order.0));
        (
            movement.id.0,
            row.previous.0,
            movement.inventory.0,
            seq,
            stock_move.reason.name(),
            stock_move.action.name(),
            stock_move.units,
            row.change.on_hand,
            row.change.held,
            on_hand,
            held,
            cart,
            order,
            movement.reference.as_deref(),
            &*movement.actor,
            now,
        )
    });
    writing.insert(&MOVEMENTS, movements);
}

fn add_orders(writing: &mut Writing, plan: &Plan<'_>) {
    let now = plan.now.0;
    let placed = plan.placed_orders.iter().map(|order| {
        (
            order.id.0,
            order.cart.key.0,
            order.user.0,
            order.user_name.as_str(),
            order.user_email.as_str(),
            order.currency.code(),
            order.totals.subtotal.0,
            order.totals.tax.0,
            order.totals.grand_total.0,
            order.status.name(),
            order.sequence,
            order.shipping_address.as_deref(),
            order.payment_reference.as_deref(),
            order.created_at.0,
            order.updated_at.0,
        )
    });
    writing.insert(&PLACE_ORDERS, placed);
    let items =
        plan.placed_orders.iter().flat_map(|order| (0_i64..).zip(&order.lines).map(move |line| (order.id, line)));
    let items = items.map(|(order, (position, ordered))| {
        let line = &ordered.line;
        let (name, sku) = (line.name.as_str(), line.sku.as_str());
        let (product, inventory) = (line.product.0, ordered.inventory.0);
        (order.0, position, product, inventory, name, sku, line.price.0, line.quantity, line.total.0)
    });
    writing.insert(&PLACE_ITEMS, items);
    let changed = plan.changed_orders.iter();
    writing.change(
        &CHANGE_ORDERS,
        changed.map(|row| (row.id.0, row.seen.name(), row.to.name(), row.payment_reference, now)),
    );
    let untold = plan.untold.iter().map(|change| {
        let from = change.from.map(OrderStatus::name);
        (change.order.0, change.sequence, from, change.to.name(), change.at.0, change.traceparent)
    });
    writing.insert(&TELL, untold);
    writing.insert(&MAILS, plan.mails.iter().copied().map(mail));
}

type MailCells<'a> = (Uuid, &'a str, &'a str, &'a str, &'a str, Option<&'a str>, &'a str, &'static str, i64);

/// The cells that [`MAILS`] takes.
fn mail(mail: &NewEmail) -> MailCells<'_> {
    let (sender, recipient, html) = (mail.sender.as_str(), mail.recipient.as_str(), mail.html.as_deref());
    let (subject, body, at) = (mail.subject.as_str(), mail.body.as_str(), mail.created_at.0);
    (mail.id.0, sender, recipient, subject, body, html, &mail.source, mail.status.name(), at)
}

/// What keeps those of these mails whose messages were not done before, marks the messages as done, and gives how many mails
/// it has kept, in a transaction of its own. Each message is there once.
pub(super) fn keep_mails(
    queue: &str,
    mails: &[&(String, NewEmail)],
    now: Timestamp,
) -> QueryScalar<'static, Sqlite, i64, SqliteArguments> {
    let mut writing = Writing::whole();
    let kept = mails.iter().map(|(message, new)| {
        let (id, sender, recipient, subject, body, html, source, status, at) = mail(new);
        (id, sender, recipient, subject, body, html, source, status, at, queue, message.as_str())
    });
    writing.insert(&UNSEEN_MAILS, kept);
    writing.statements.push_str("SELECT changes(); ");
    writing.insert(&CONSUME_ONCE, mails.iter().map(|(message, _)| (queue, message.as_str(), now.0)));
    writing.statements.push_str("COMMIT");
    let query = sqlx::query_scalar(AssertSqlSafe(writing.statements));
    writing.values.into_iter().fold(query, |query, value| match value {
        Value::Bytes(bytes) => query.bind(bytes),
        Value::Number(number) => query.bind(number),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use sqlx::{ConnectOptions, sqlite::SqliteConnectOptions};

    use super::*;
    use crate::persistence::sqlite::MIGRATIONS;

    /// Asserts that a statement finds these tables' rows by their keys, however many there are.
    pub(crate) async fn assert_searches<R: Row>(statement: &Statement, tables: &[&str]) {
        let mut connection = SqliteConnectOptions::new().in_memory(true).connect().await.expect("a database");
        MIGRATIONS.run(&mut connection).await.expect("the schema");
        let mut text = String::from("EXPLAIN QUERY PLAN ");
        packed::give::<R>(statement.cells, Names { records: 1, texts: 2 }, &mut text);
        text.push_str(statement.text);
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(AssertSqlSafe(text)).fetch_all(&mut connection).await.expect("a plan");
        for table in tables {
            let search = format!("SEARCH {table} USING PRIMARY KEY (");
            assert!(plan.iter().any(|(.., step)| step.starts_with(&search)), "{table}: {plan:?}");
        }
        let scanned = |step: &str| step.starts_with("SCAN ") && !["SCAN CONSTANT ROW", "SCAN places"].contains(&step);
        assert!(!plan.iter().any(|(.., step)| scanned(step)), "{plan:?}");
    }

    #[tokio::test]
    async fn what_is_changed_is_found_by_its_key() {
        type Cart = (Uuid, &'static str, i64, Option<i64>, i64);
        assert_searches::<Cart>(&CHANGE_SESSIONS, &["cart_sessions"]).await;
        assert_searches::<(Uuid, i64, i64, i64, &str)>(&CHANGE_HOLDS, &["holds"]).await;
        assert_searches::<(Uuid, i64, i64, i64, Uuid, i64, i64)>(&BALANCES, &["inventories"]).await;
        assert_searches::<(Uuid, &str, &str, Option<&str>, i64)>(&CHANGE_ORDERS, &["orders"]).await;
        assert_searches::<(Uuid, i64)>(&Statement { cells: SEEN, text: UNSEEN }, &["products"]).await;
    }
}
