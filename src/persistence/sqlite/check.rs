//! Verifies the books: invariants 1 to 5 of the design, on one consistent view of the database.
//!
//! Each rule is one statement over whole tables (sorted, grouped, joined), so millions of rows take seconds. A rule
//! looks at as little as it can, so that one fault breaks few rules and the rule that is broken names it.
//!
//! The rules of the outbox bind whoever removes published events one day: the oldest may go, without gaps between
//! them and never all of them. The rules then leave out the orders from before the oldest event that is kept.

use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use crate::persistence::StoreError;
use crate::persistence::records::Verdict;

use super::error::store_error;

/// How many of the offenders a verdict names.
const NAMED_MAX: u32 = 20;

/// One rule: how many things it looks at, and which of them break it (their identifiers as `id`, in hexadecimal).
struct Rule {
    invariant: u8,
    says: &'static str,
    checked: &'static str,
    broken: &'static str,
}

/// Verifies all rules in the transaction that `connection` is in.
pub(super) async fn verdicts(connection: &mut SqliteConnection) -> Result<Vec<Verdict>, StoreError> {
    let mut verdicts = Vec::with_capacity(RULES.len());
    for rule in &RULES {
        verdicts.push(verdict(connection, rule).await?);
    }
    Ok(verdicts)
}

async fn verdict(connection: &mut SqliteConnection, rule: &Rule) -> Result<Verdict, StoreError> {
    let statement = format!(
        "WITH broken (id) AS MATERIALIZED ({}) SELECT ({}), (SELECT count(*) FROM broken), \
         (SELECT json_group_array(id) FROM (SELECT id FROM broken ORDER BY id LIMIT {NAMED_MAX}))",
        rule.broken, rule.checked
    );
    let (checked, broken_count, named): (i64, i64, String) =
        sqlx::query_as(AssertSqlSafe(statement)).persistent(false).fetch_one(connection).await.map_err(store_error)?;
    let named: Vec<String> =
        serde_json::from_str(&named).map_err(|error| StoreError::Corrupt(format!("{}: {error}", rule.says)))?;
    let broken = named.iter().map(|id| shown(id)).collect();
    Ok(Verdict { invariant: rule.invariant, rule: rule.says, checked, broken, broken_count })
}

/// An identifier as the API shows it, where the text begins with one.
fn shown(id: &str) -> String {
    let split = id.split_at_checked(32).and_then(|(hex, rest)| Some((Uuid::try_parse(hex).ok()?, rest)));
    split.map_or_else(|| id.to_owned(), |(uuid, rest)| format!("{uuid}{rest}"))
}

const RULES: [Rule; 17] = [
    Rule {
        invariant: 1,
        says: "in every balance, held is not below zero and not above on hand",
        checked: "SELECT count(*) FROM inventories",
        broken: "SELECT hex(id) FROM inventories WHERE held < 0 OR on_hand < held",
    },
    Rule {
        invariant: 1,
        says: "after every ledger row, held is not below zero and not above on hand",
        checked: "SELECT count(*) FROM movements",
        broken: "SELECT hex(id) FROM movements WHERE held < 0 OR on_hand < held",
    },
    Rule {
        invariant: 1,
        says: "what orders have and open carts hold of an inventory is not more than came in",
        checked: "SELECT count(*) FROM inventories",
        broken: "
            WITH supply AS (
                SELECT inventory_id, sum(on_hand_change) AS units FROM movements
                WHERE reason NOT IN ('sale', 'order_cancelled') GROUP BY inventory_id
            ), demand AS (
                SELECT inventory_id, sum(quantity) AS units FROM (
                    SELECT inventory_id, quantity FROM holds WHERE state = 'open'
                    UNION ALL
                    SELECT inventory_id, quantity FROM order_items JOIN orders ON orders.id = order_id
                    WHERE orders.status <> 'CANCELLED'
                ) GROUP BY inventory_id
            )
            SELECT hex(demand.inventory_id) FROM demand LEFT JOIN supply USING (inventory_id)
            WHERE demand.units > coalesce(supply.units, 0)",
    },
    Rule {
        invariant: 2,
        says: "the ledger rows of an inventory sum to its balance",
        checked: "SELECT count(*) FROM inventories",
        broken: "
            SELECT hex(coalesce(inventories.id, ledger.inventory_id)) FROM inventories FULL JOIN (
                SELECT inventory_id, sum(on_hand_change) AS on_hand, sum(held_change) AS held
                FROM movements GROUP BY inventory_id
            ) ledger ON ledger.inventory_id = inventories.id
            WHERE inventories.on_hand IS NOT ledger.on_hand OR inventories.held IS NOT ledger.held",
    },
    Rule {
        invariant: 2,
        says: "the ledger rows of an inventory are numbered from 1 without a gap up to its balance's number",
        checked: "SELECT count(*) FROM inventories",
        broken: "
            SELECT hex(coalesce(inventories.id, ledger.inventory_id)) FROM inventories FULL JOIN (
                SELECT inventory_id, count(*) AS many, count(DISTINCT seq) AS numbers,
                       min(seq) AS first, max(seq) AS last
                FROM movements GROUP BY inventory_id
            ) ledger ON ledger.inventory_id = inventories.id
            WHERE inventories.seq IS NOT ledger.last OR first <> 1 OR last <> many OR numbers <> many",
    },
    Rule {
        invariant: 2,
        says: "a ledger row's balance is its predecessor's and its own change",
        checked: "SELECT count(*) FROM movements",
        broken: "
            SELECT hex(id) FROM (
                SELECT id, on_hand, held, on_hand_change, held_change,
                       lag(on_hand, 1, 0) OVER chain AS on_hand_before, lag(held, 1, 0) OVER chain AS held_before
                FROM movements WINDOW chain AS (PARTITION BY inventory_id ORDER BY seq)
            ) WHERE on_hand <> on_hand_before + on_hand_change OR held <> held_before + held_change",
    },
    Rule {
        invariant: 2,
        says: "a ledger row points to its predecessor, a balance to its newest row",
        checked: "SELECT (SELECT count(*) FROM movements) + (SELECT count(*) FROM inventories)",
        broken: "
            SELECT hex(id) FROM (
                SELECT id, previous, lag(id) OVER (PARTITION BY inventory_id ORDER BY seq) AS predecessor
                FROM movements
            ) WHERE previous IS NOT predecessor
            UNION ALL
            SELECT hex(inventories.id) FROM inventories LEFT JOIN (
                SELECT inventory_id, id, max(seq) FROM movements GROUP BY inventory_id
            ) newest ON newest.inventory_id = inventories.id
            WHERE last_movement IS NOT newest.id",
    },
    Rule {
        invariant: 2,
        says: "a ledger row changes the balance as its action, reason and units say",
        checked: "SELECT count(*) FROM movements",
        broken: "
            SELECT hex(id) FROM movements WHERE NOT CASE
                WHEN reason = 'hold' THEN action = 'OUT' AND on_hand_change = 0 AND held_change = units
                WHEN reason IN ('hold_released', 'hold_expired')
                    THEN action = 'IN' AND on_hand_change = 0 AND held_change = -units
                WHEN reason = 'sale' THEN action = 'OUT' AND on_hand_change = -units AND held_change = -units
                WHEN reason IN ('initial', 'order_cancelled')
                    THEN action = 'IN' AND on_hand_change = units AND held_change = 0
                WHEN reason IN ('receipt', 'return', 'adjustment', 'damage', 'count')
                    THEN on_hand_change = CASE action WHEN 'IN' THEN units ELSE -units END AND held_change = 0
                ELSE false END",
    },
    Rule {
        invariant: 3,
        says: "what an inventory has held is the sum of its open holds",
        checked: "SELECT count(*) FROM inventories",
        broken: "
            SELECT hex(coalesce(inventories.id, open.inventory_id)) FROM inventories FULL JOIN (
                SELECT inventory_id, sum(quantity) AS units FROM holds WHERE state = 'open' GROUP BY inventory_id
            ) open ON open.inventory_id = inventories.id
            WHERE coalesce(inventories.held, 0) <> coalesce(open.units, 0)",
    },
    Rule {
        invariant: 3,
        says: "a hold stands as its cart does: open only in an open one, sold only in an ordered one, \
               expired only in an expired one",
        checked: "SELECT count(*) FROM holds",
        broken: "
            SELECT hex(cart_key) || '/' || number FROM holds LEFT JOIN cart_sessions session ON session.key = cart_key
            WHERE session.state IS NULL OR (holds.state, session.state) NOT IN (VALUES
                ('open', 'open'), ('sold', 'ordered'), ('expired', 'expired'),
                ('released', 'open'), ('released', 'ordered'), ('released', 'cleared'), ('released', 'expired'))",
    },
    Rule {
        invariant: 3,
        says: "a hold has ended once: the ledger rows of a cart and an inventory come to what its holds say",
        checked: "SELECT count(*) FROM holds",
        broken: "
            WITH ledger AS (
                SELECT coalesce(movements.cart_key, orders.cart_key) AS cart, inventory_id AS inventory,
                       sum(held_change) AS held,
                       sum(CASE reason WHEN 'sale' THEN -held_change ELSE 0 END) AS sold,
                       sum(CASE reason WHEN 'hold_expired' THEN -held_change ELSE 0 END) AS expired
                FROM movements LEFT JOIN orders ON orders.id = movements.order_id
                WHERE reason IN ('hold', 'hold_released', 'hold_expired', 'sale') GROUP BY cart, inventory
            ), lines AS (
                SELECT cart_key AS cart, inventory_id AS inventory,
                       sum(CASE state WHEN 'open' THEN quantity ELSE 0 END) AS held,
                       sum(CASE state WHEN 'sold' THEN quantity ELSE 0 END) AS sold,
                       sum(CASE state WHEN 'expired' THEN quantity ELSE 0 END) AS expired
                FROM holds GROUP BY cart, inventory
            )
            SELECT DISTINCT hex(coalesce(lines.cart, ledger.cart, ledger.inventory))
            FROM lines FULL JOIN ledger ON ledger.cart = lines.cart AND ledger.inventory = lines.inventory
            WHERE (lines.held, lines.sold, lines.expired) IS NOT (ledger.held, ledger.sold, ledger.expired)",
    },
    Rule {
        invariant: 4,
        says: "an ordered cart has one order, any other cart has none",
        checked: "SELECT count(*) FROM cart_sessions",
        broken: "
            SELECT hex(coalesce(session.key, made.cart_key)) FROM cart_sessions session FULL JOIN (
                SELECT cart_key, count(*) AS many FROM orders GROUP BY cart_key
            ) made ON made.cart_key = session.key
            WHERE coalesce(made.many, 0) <> (session.state IS 'ordered')",
    },
    Rule {
        invariant: 4,
        says: "an order's total is the sum of its lines, a line's total is its price times its quantity",
        checked: "SELECT count(*) FROM orders",
        broken: "
            SELECT hex(coalesce(orders.id, lines.order_id)) FROM orders FULL JOIN (
                SELECT order_id, sum(total) AS sum, sum(total <> price * quantity) AS wrong
                FROM order_items GROUP BY order_id
            ) lines ON lines.order_id = orders.id
            WHERE orders.subtotal IS NOT lines.sum OR wrong > 0 OR grand_total <> subtotal + tax",
    },
    Rule {
        invariant: 4,
        says: "what an order sold is in the ledger, and nothing else is there as sold",
        checked: "SELECT count(*) FROM orders",
        broken: "
            WITH ledger AS (
                SELECT order_id, inventory_id, sum(-on_hand_change) AS units FROM movements
                WHERE reason = 'sale' GROUP BY order_id, inventory_id
            ), lines AS (
                SELECT order_id, inventory_id, sum(quantity) AS units FROM order_items GROUP BY order_id, inventory_id
            )
            SELECT DISTINCT hex(coalesce(lines.order_id, ledger.order_id, ledger.inventory_id)) FROM lines
            FULL JOIN ledger ON ledger.order_id = lines.order_id AND ledger.inventory_id = lines.inventory_id
            WHERE lines.units IS NOT ledger.units",
    },
    Rule {
        invariant: 4,
        says: "a cancelled order is back in stock once, any other order is not",
        checked: "SELECT count(*) FROM orders",
        broken: "
            WITH ledger AS (
                SELECT order_id, inventory_id, sum(on_hand_change) AS units FROM movements
                WHERE reason = 'order_cancelled' GROUP BY order_id, inventory_id
            ), cancelled AS (
                SELECT order_id, inventory_id, sum(quantity) AS units
                FROM orders JOIN order_items ON order_items.order_id = orders.id
                WHERE orders.status = 'CANCELLED' GROUP BY order_id, inventory_id
            )
            SELECT DISTINCT hex(coalesce(cancelled.order_id, ledger.order_id, ledger.inventory_id)) FROM cancelled
            FULL JOIN ledger ON ledger.order_id = cancelled.order_id AND ledger.inventory_id = cancelled.inventory_id
            WHERE cancelled.units IS NOT ledger.units",
    },
    Rule {
        invariant: 5,
        says: "an order has its events in the outbox: one send-email, one clear-cart, one order-status a change, \
               numbered as they were written",
        checked: "
            SELECT count(*) FROM orders WHERE created_at > coalesce((
                SELECT at FROM outbox WHERE position = (SELECT min(position) FROM outbox) AND position > 1
            ), -1)",
        broken: "
            WITH kept_since (at) AS (
                SELECT coalesce((
                    SELECT at FROM outbox WHERE position = (SELECT min(position) FROM outbox) AND position > 1
                ), -1)
            ), events AS (
                SELECT order_id, sum(queue = 'send-email') AS mails, sum(queue = 'clear-cart') AS clearings,
                       sum(queue = 'order-status') AS changes, sum(misnumbered) AS misnumbered
                FROM (
                    SELECT order_id, queue, queue = 'order-status' AND row_number() OVER (
                               PARTITION BY order_id, queue ORDER BY position
                           ) IS NOT CASE WHEN json_valid(payload) THEN payload ->> 'sequence' END AS misnumbered
                    FROM outbox
                ) GROUP BY order_id
            )
            SELECT hex(orders.id) FROM orders LEFT JOIN events ON events.order_id = orders.id
            WHERE created_at > (SELECT at FROM kept_since)
              AND (mails, clearings, changes, misnumbered) IS NOT (1, 1, orders.sequence, 0)",
    },
    Rule {
        invariant: 5,
        says: "an event is in the outbox once and tells of an order, a message is marked as done once",
        checked: "SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM consumed_messages)",
        broken: "
            SELECT hex(id) FROM outbox GROUP BY id HAVING count(*) > 1
            UNION ALL
            SELECT hex(outbox.id) FROM outbox LEFT JOIN orders ON orders.id = outbox.order_id WHERE orders.id IS NULL
            UNION ALL
            SELECT queue || '/' || message_id FROM consumed_messages GROUP BY queue, message_id HAVING count(*) > 1",
    },
];
