//! What a batch comes to, written in one statement.
//!
//! The statement has one part for each table that there is something to write to. The parts see the database as it was
//! before the statement, and none needs what another writes.
//!
//! In a transaction that has locked and read what the batch needs, the rows are counted afterwards. Without one
//! ([`write_at_once`]) the statement is all of the transaction: it begins with the batch's identifier and the locks, in the
//! order in which all servers take them, and fails by itself when a part has not touched the rows that it names.

use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::domain::ids::OrderId;
use crate::domain::order::OrderStatus;
use crate::domain::timestamp::Timestamp;
use crate::persistence::plan::Plan;
use crate::persistence::records::{Order, OrderedLine};
use crate::persistence::rows::headers_to_text;

use super::error::Answer;
use super::expected::Expected;
use super::journal::Stopped;
use super::statement::{Writing, are_alike};

/// Writes the plan's rows, as many as it names. Fewer would mean that what was seen is not what is there.
pub(super) async fn write(connection: &mut PgConnection, plan: &Plan<'_>) -> Result<(), Stopped> {
    let mut writing = Writing::new();
    add_plan(&mut writing, plan);
    let Writing { mut query, empty, counted, .. } = writing;
    if empty {
        return Ok(());
    }
    query.push(" SELECT ARRAY[");
    for (index, (name, _)) in counted.iter().enumerate() {
        query.push(if index == 0 { "" } else { ", " }).push(format_args!("(SELECT count(*) FROM {name})"));
    }
    query.push("]::bigint[]");
    let counts: Vec<i64> = query.build_query_scalar().fetch_one(connection).in_time().await?;
    for ((name, rows), written) in counted.into_iter().zip(counts) {
        if usize::try_from(written) != Ok(rows) {
            return Err(Stopped::Corrupt(format!("{written} rows were written where {rows} were named: {name}")));
        }
    }
    Ok(())
}

/// Writes the batch's identifier and the plan's rows, all or nothing, in a transaction of its own. Gives the database's time.
///
/// # Errors
/// When a row is not as the plan expects it, or was waited for too long (a division by zero, which is how a statement can stop itself), or a rule is
/// violated: nothing is written then. When the server does not answer, that is not known.
pub(super) async fn write_at_once(
    connection: &mut PgConnection,
    batch: Uuid,
    expected: &Expected<'_>,
    plan: &Plan<'_>,
) -> Result<Timestamp, sqlx::Error> {
    let mut writing = Writing::new();
    // Counted, and so the first to run.
    writing.change("batch", 1, "INSERT INTO journal_batches (id, at) SELECT ", "", |part| {
        part.same(batch).same(plan.now.0);
    });
    add_locks(&mut writing, expected, plan);
    add_plan(&mut writing, plan);
    let Writing { mut query, counted, .. } = writing;
    // One after the other from the left: the parts run in this order, and then those that nobody counts.
    for (index, (name, rows)) in counted.iter().enumerate() {
        let separator = if index == 0 { " SELECT 1 / (" } else { " AND " };
        query.push(format_args!("{separator}(SELECT count(*) FROM {name}) = "));
        query.push_bind(i64::try_from(*rows).unwrap_or(i64::MAX));
    }
    if !plan.changed_sessions.is_empty() {
        // A cart's time was compared with the clock before this began. Who waited long for a lock looks at it again.
        query.push(" AND clock_timestamp() < statement_timestamp() + interval '200 milliseconds'");
    }
    query.push(")::int, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint");
    // To the end of the answer, which comes after the commit.
    let answer: Vec<(i32, i64)> = query.build_query_as().fetch_all(connection).in_time().await?;
    answer.first().map(|(_, now)| Timestamp(*now)).ok_or(sqlx::Error::RowNotFound)
}

/// The locks that a batch takes before it writes. A line is nobody's who has not its session, so those of the sessions are
/// enough for the lines.
fn add_locks(writing: &mut Writing, Expected { needs, products }: &Expected<'_>, plan: &Plan<'_>) {
    writing.lock(
        "session",
        needs.sessions.len(),
        "SELECT 1 FROM cart_sessions WHERE key = ANY(",
        ") ORDER BY key FOR UPDATE",
        |part| {
            part.array(needs.sessions.iter().map(|key| key.0));
        },
    );
    writing.lock(
        "placed",
        needs.orders.len(),
        "SELECT 1 FROM orders WHERE id = ANY(",
        ") ORDER BY id FOR UPDATE",
        |part| {
            part.array(needs.orders.iter().map(|id| id.0));
        },
    );
    writing.lock(
        "stock",
        plan.balances.len(),
        "SELECT 1 FROM inventories WHERE id = ANY(",
        ") ORDER BY id FOR UPDATE",
        |part| {
            part.array(plan.balances.iter().map(|row| row.id.0));
        },
    );
    writing.lock(
        "product",
        products.len(),
        "SELECT 1 FROM products WHERE (id, version) IN (SELECT ",
        ") ORDER BY id FOR SHARE",
        |part| {
            part.column(products.iter().map(|(id, _)| id.0)).column(products.iter().map(|(_, version)| *version));
        },
    );
}

fn add_plan(writing: &mut Writing, plan: &Plan<'_>) {
    add_carts(writing, plan);
    add_stock(writing, plan);
    add_orders(writing, plan);
    add_messages(writing, plan);
}

fn add_carts(writing: &mut Writing, plan: &Plan<'_>) {
    let opened = &plan.opened_sessions;
    writing.insert(
        "opened_session",
        opened.len(),
        "INSERT INTO cart_sessions (key, secret, created_at, expires_at, state, version) \
         SELECT ",
        ", 'open', 1",
        |part| {
            part.column(opened.iter().map(|row| row.key.0)).column(opened.iter().map(|row| &row.secret[..]));
            part.column(opened.iter().map(|row| row.created_at.0)).column(opened.iter().map(|row| row.expires_at.0));
        },
    );
    let changed = &plan.changed_sessions;
    writing.change(
        "changed_session",
        changed.len(),
        "UPDATE cart_sessions SET state = new.state, version = version + 1, \
         expires_at = coalesce(new.expires_at, cart_sessions.expires_at) FROM (SELECT ",
        ") AS new (key, state, seen, expires_at, now) \
         WHERE cart_sessions.key = new.key AND version = new.seen AND cart_sessions.state = 'open' \
         AND CASE new.state WHEN 'cleared' THEN true WHEN 'expired' THEN cart_sessions.expires_at <= new.now \
         ELSE cart_sessions.expires_at > new.now END",
        |part| {
            let alike = are_alike(changed.iter().map(|row| (row.state, row.seen, row.expires_at)));
            part.column(changed.iter().map(|row| row.key.0));
            part.column_of(alike, changed.iter().map(|row| row.state.name()));
            part.column_of(alike, changed.iter().map(|row| row.seen));
            part.column_of(alike, changed.iter().map(|row| row.expires_at.map(|at| at.0))).same(plan.now.0);
        },
    );
    let opened = &plan.opened_holds;
    writing.insert(
        "opened_hold",
        opened.len(),
        "INSERT INTO holds (cart_key, number, product_id, inventory_id, quantity, state) \
         SELECT ",
        ", 'open'",
        |part| {
            let alike = are_alike(opened.iter().map(|row| (row.number, row.quantity)));
            part.column(opened.iter().map(|row| row.cart.0)).column_of(alike, opened.iter().map(|row| row.number));
            let one_product = are_alike(opened.iter().map(|row| (row.product, row.inventory)));
            part.column_of(one_product, opened.iter().map(|row| row.product.0));
            part.column_of(one_product, opened.iter().map(|row| row.inventory.0));
            part.column_of(alike, opened.iter().map(|row| row.quantity));
        },
    );
    let changed = &plan.changed_holds;
    writing.change(
        "changed_hold",
        changed.len(),
        "UPDATE holds SET quantity = new.quantity, state = new.state FROM (SELECT ",
        ") AS new (cart_key, number, seen, quantity, state) \
         WHERE holds.cart_key = new.cart_key AND holds.number = new.number AND holds.quantity = new.seen \
         AND holds.state = 'open'",
        |part| {
            let alike = are_alike(changed.iter().map(|row| (row.number, row.seen, row.quantity, row.state)));
            part.column(changed.iter().map(|row| row.cart.0)).column_of(alike, changed.iter().map(|row| row.number));
            part.column_of(alike, changed.iter().map(|row| row.seen));
            part.column_of(alike, changed.iter().map(|row| row.quantity));
            part.column_of(alike, changed.iter().map(|row| row.state.name()));
        },
    );
}

fn add_stock(writing: &mut Writing, plan: &Plan<'_>) {
    let balances = &plan.balances;
    writing.change(
        "balance",
        balances.len(),
        "UPDATE inventories SET on_hand = on_hand + new.on_hand_change, held = held + new.held_change, \
         seq = seq + new.rows, last_movement = new.last_movement, updated_at = new.at FROM (SELECT ",
        ") AS new (id, on_hand_change, held_change, rows, last_movement, seen, at) \
         WHERE inventories.id = new.id AND seq = new.seen",
        |part| {
            part.column(balances.iter().map(|row| row.id.0));
            part.column(balances.iter().map(|row| row.change.on_hand));
            part.column(balances.iter().map(|row| row.change.held)).column(balances.iter().map(|row| row.rows));
            part.column(balances.iter().map(|row| row.last_movement.0));
            part.column(balances.iter().map(|row| row.after.seq - row.rows)).same(plan.now.0);
        },
    );
    let rows = &plan.movements;
    writing.insert(
        "movement",
        rows.len(),
        "INSERT INTO movements (id, previous, inventory_id, seq, reason, action, units, on_hand_change, held_change, \
         on_hand, held, cart_key, order_id, reference, actor, at) SELECT ",
        "",
        |part| {
            let moves = || rows.iter().map(|row| row.movement);
            let alike =
                are_alike(rows.iter().map(|row| (row.movement.stock_move, row.change, &row.movement.reference)));
            // As of what guests put into carts.
            let one_cause = are_alike(moves().map(|movement| (movement.order, &movement.actor)));
            part.column(moves().map(|movement| movement.id.0)).column(rows.iter().map(|row| row.previous.0));
            let one_inventory = are_alike(moves().map(|movement| movement.inventory));
            part.column_of(one_inventory, moves().map(|movement| movement.inventory.0));
            part.column(rows.iter().map(|row| row.after.seq));
            part.column_of(alike, moves().map(|movement| movement.stock_move.reason.name()));
            part.column_of(alike, moves().map(|movement| movement.stock_move.action.name()));
            part.column_of(alike, moves().map(|movement| movement.stock_move.units));
            part.column_of(alike, rows.iter().map(|row| row.change.on_hand));
            part.column_of(alike, rows.iter().map(|row| row.change.held));
            part.column(rows.iter().map(|row| row.after.on_hand)).column(rows.iter().map(|row| row.after.held));
            part.column(moves().map(|movement| movement.cart.map(|cart| cart.0)));
            part.column_of(one_cause, moves().map(|movement| movement.order.map(|order| order.0)));
            part.column_of(alike, moves().map(|movement| movement.reference.as_deref()));
            part.column_of(one_cause, moves().map(|movement| &*movement.actor)).same(plan.now.0);
        },
    );
}

fn add_orders(writing: &mut Writing, plan: &Plan<'_>) {
    let orders = || plan.placed_orders.iter().map(AsRef::as_ref);
    writing.insert(
        "placed_order",
        plan.placed_orders.len(),
        "INSERT INTO orders (id, cart_key, user_id, user_name, user_email, currency, subtotal, tax, grand_total, \
         status, sequence, shipping_address, payment_reference, created_at, updated_at) SELECT ",
        "",
        |part| {
            let alike = are_alike(
                orders().map(|order: &Order| (order.currency, order.status, order.sequence, &order.payment_reference)),
            );
            part.column(orders().map(|order| order.id.0)).column(orders().map(|order| order.cart.key.0));
            part.column(orders().map(|order| order.user.0)).column(orders().map(|order| order.user_name.as_str()));
            part.column(orders().map(|order| order.user_email.as_str()));
            part.column_of(alike, orders().map(|order| order.currency.code()));
            part.column(orders().map(|order| order.totals.subtotal.0)).column(orders().map(|order| order.totals.tax.0));
            part.column(orders().map(|order| order.totals.grand_total.0));
            part.column_of(alike, orders().map(|order| order.status.name()));
            part.column_of(alike, orders().map(|order| order.sequence));
            part.column(orders().map(|order| order.shipping_address.as_deref()));
            part.column_of(alike, orders().map(|order| order.payment_reference.as_deref()));
            part.column(orders().map(|order| order.created_at.0)).column(orders().map(|order| order.updated_at.0));
        },
    );
    add_items(writing, plan);
    let changed = &plan.changed_orders;
    writing.change(
        "changed_order",
        changed.len(),
        "UPDATE orders SET status = new.status, sequence = sequence + 1, updated_at = new.at, \
         payment_reference = coalesce(new.payment_reference, orders.payment_reference) FROM (SELECT ",
        ") AS new (id, seen, status, payment_reference, at) WHERE orders.id = new.id AND orders.status = new.seen",
        |part| {
            part.column(changed.iter().map(|row| row.id.0)).column(changed.iter().map(|row| row.seen.name()));
            part.column(changed.iter().map(|row| row.to.name()));
            part.column(changed.iter().map(|row| row.payment_reference)).same(plan.now.0);
        },
    );
    let untold = &plan.untold;
    writing.insert(
        "untold",
        untold.len(),
        "INSERT INTO outbox (order_id, sequence, from_status, to_status, at, traceparent) SELECT ",
        "",
        |part| {
            let alike = are_alike(untold.iter().map(|change| (change.sequence, change.from, change.to)));
            part.column(untold.iter().map(|change| change.order.0));
            part.column_of(alike, untold.iter().map(|change| change.sequence));
            part.column_of(alike, untold.iter().map(|change| change.from.map(OrderStatus::name)));
            part.column_of(alike, untold.iter().map(|change| change.to.name()));
            part.column(untold.iter().map(|change| change.at.0));
            part.column(untold.iter().map(|change| change.traceparent));
        },
    );
}

fn add_items(writing: &mut Writing, plan: &Plan<'_>) {
    let items: Vec<(OrderId, i64, &OrderedLine)> = plan
        .placed_orders
        .iter()
        .flat_map(|order| (0_i64..).zip(&order.lines).map(|(position, line)| (order.id, position, line)))
        .collect();
    writing.insert(
        "order_item",
        items.len(),
        "INSERT INTO order_items (order_id, position, product_id, inventory_id, name, sku, price, quantity, total) \
         SELECT ",
        "",
        |part| {
            // When each order has one line.
            let alike = are_alike(items.iter().map(|(_, position, _)| position));
            part.column(items.iter().map(|(order, ..)| order.0));
            part.column_of(alike, items.iter().map(|(_, position, _)| *position));
            let ordered = || items.iter().map(|(.., ordered)| *ordered);
            let one_product = are_alike(ordered().map(|ordered| {
                let line = &ordered.line;
                (line.product, ordered.inventory, &line.name, &line.sku, line.price)
            }));
            part.column_of(one_product, ordered().map(|ordered| ordered.line.product.0));
            part.column_of(one_product, ordered().map(|ordered| ordered.inventory.0));
            part.column_of(one_product, ordered().map(|ordered| ordered.line.name.as_str()));
            part.column_of(one_product, ordered().map(|ordered| ordered.line.sku.as_str()));
            part.column_of(one_product, ordered().map(|ordered| ordered.line.price.0));
            part.column(ordered().map(|ordered| ordered.line.quantity));
            part.column(ordered().map(|ordered| ordered.line.total.0));
        },
    );
}

fn add_messages(writing: &mut Writing, plan: &Plan<'_>) {
    let mails = &plan.mails;
    writing.insert(
        "mail",
        mails.len(),
        "INSERT INTO emails (id, sender, recipient, subject, body, html, source, status, due_at, created_at) \
         SELECT ",
        "",
        |part| {
            part.column(mails.iter().map(|mail| mail.id.0)).column(mails.iter().map(|mail| mail.sender.as_str()));
            part.column(mails.iter().map(|mail| mail.recipient.as_str()));
            part.column(mails.iter().map(|mail| mail.subject.as_str()));
            part.column(mails.iter().map(|mail| mail.body.as_str()));
            part.column(mails.iter().map(|mail| mail.html.as_deref()));
            part.column(mails.iter().map(|mail| mail.source.as_str()));
            part.column(mails.iter().map(|mail| mail.status.name()));
            let made_at = || mails.iter().map(|mail| mail.created_at.0);
            part.column(made_at()).column(made_at());
        },
    );
    let remembered = &plan.remembered;
    writing.insert(
        "remembered",
        remembered.len(),
        "INSERT INTO idempotency_keys (scope, key, fingerprint, status, headers, body, at) SELECT ",
        "",
        |part| {
            let responses = || remembered.iter().map(|row| &row.response);
            part.column(remembered.iter().map(|row| row.key.scope.as_str()));
            part.column(remembered.iter().map(|row| row.key.key.as_str()));
            part.column(remembered.iter().map(|row| &row.fingerprint[..]));
            part.column(responses().map(|response| i64::from(response.status)));
            part.column(responses().map(|response| headers_to_text(&response.headers)));
            part.column(responses().map(|response| response.body.as_str())).same(plan.now.0);
        },
    );
    let messages = &plan.messages;
    writing.insert(
        "consumed",
        messages.len(),
        "INSERT INTO consumed_messages (queue, message_id, at) SELECT ",
        "",
        |part| {
            part.column(messages.iter().map(|message| message.queue));
            part.column(messages.iter().map(|message| message.id.as_str())).same(plan.now.0);
        },
    );
}
