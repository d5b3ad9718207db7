//! Verifies the books: invariants 1 to 5 of the design, on one consistent view of the database.
//!
//! An audit is one statement over whole tables. Where two tables must agree, the one's rows are added and the other's
//! subtracted, group by group, and what is not zero is at fault: that is one sort, where SQLite would compare each
//! row of an outer join with each of the other side. So a million ledger rows take seconds. A rule looks at as little
//! as it can, so that one fault breaks few rules and the rule that is broken names it.
//!
//! The rules of the outbox bind whoever removes published events one day: the oldest may go, without gaps between
//! them and never all of them. The rules then leave out the orders from before the oldest event that is kept.

use std::iter;

use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use crate::persistence::StoreError;
use crate::persistence::records::Verdict;

use super::error::store_error;

/// How many of the offenders a verdict names.
const NAMED_MAX: i64 = 20;

/// A statement that verifies one rule, or several that are seen in one pass.
struct Audit {
    rules: &'static [Rule],
    /// Gives the rule's place among the audit's rules as `rule`, and as `id` what breaks it: its identifier in
    /// hexadecimal, perhaps with something behind it.
    broken: &'static str,
}

/// What must be true, and how many things it is said of.
struct Rule {
    invariant: u8,
    says: &'static str,
    checked: &'static str,
}

/// Verifies all rules in the transaction that `connection` is in.
pub(super) async fn verdicts(connection: &mut SqliteConnection) -> Result<Vec<Verdict>, StoreError> {
    let mut verdicts = Vec::new();
    for audit in &AUDITS {
        verdicts.extend(audited(connection, audit).await?);
    }
    verdicts.sort_by_key(|verdict| verdict.invariant);
    Ok(verdicts)
}

async fn audited(connection: &mut SqliteConnection, audit: &Audit) -> Result<Vec<Verdict>, StoreError> {
    let faults = format!(
        "WITH broken (rule, id) AS ({}), numbered AS ( \
             SELECT rule, id, row_number() OVER (PARTITION BY rule ORDER BY id) AS place, \
                    count(*) OVER (PARTITION BY rule) AS many FROM broken \
         ) SELECT rule, many, id FROM numbered WHERE place <= {NAMED_MAX} ORDER BY rule, place",
        audit.broken
    );
    let faults: Vec<(i64, i64, String)> = sqlx::query_as(AssertSqlSafe(faults))
        .persistent(false)
        .fetch_all(&mut *connection)
        .await
        .map_err(store_error)?;
    let mut verdicts = Vec::with_capacity(audit.rules.len());
    for (place, rule) in iter::zip(0.., audit.rules) {
        let checked = sqlx::query_scalar(rule.checked).fetch_one(&mut *connection).await.map_err(store_error)?;
        let of_rule = || faults.iter().filter(|(rule, ..)| *rule == place);
        verdicts.push(Verdict {
            invariant: rule.invariant,
            rule: rule.says,
            checked,
            broken: of_rule().map(|(_, _, id)| shown(id)).collect(),
            broken_count: of_rule().next().map_or(0, |(_, many, _)| *many),
        });
    }
    Ok(verdicts)
}

/// An identifier as the API shows it, where the text begins with one.
fn shown(id: &str) -> String {
    let split = id.split_at_checked(32).and_then(|(hex, rest)| Some((Uuid::try_parse(hex).ok()?, rest)));
    split.map_or_else(|| id.to_owned(), |(uuid, rest)| format!("{uuid}{rest}"))
}

const INVENTORIES: &str = "SELECT count(*) FROM inventories";
const MOVEMENTS: &str = "SELECT count(*) FROM movements";
const HOLDS: &str = "SELECT count(*) FROM holds";
const ORDERS: &str = "SELECT count(*) FROM orders";

const AUDITS: [Audit; 13] = [
    Audit {
        rules: &[Rule {
            invariant: 1,
            says: "in every balance, held is not below zero and not above on hand",
            checked: INVENTORIES,
        }],
        broken: "SELECT 0, hex(id) FROM inventories WHERE held < 0 OR on_hand < held",
    },
    Audit {
        rules: &[
            Rule {
                invariant: 1,
                says: "after every ledger row, held is not below zero and not above on hand",
                checked: MOVEMENTS,
            },
            Rule {
                invariant: 2,
                says: "a ledger row changes the balance as its action, reason and units say",
                checked: MOVEMENTS,
            },
        ],
        broken: "
            SELECT 0, hex(id) FROM movements WHERE held < 0 OR on_hand < held
            UNION ALL
            SELECT 1, hex(id) FROM movements WHERE NOT CASE
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
    Audit {
        rules: &[Rule {
            invariant: 1,
            says: "what orders have and open carts hold of an inventory is not more than came in",
            checked: INVENTORIES,
        }],
        broken: "
            SELECT 0, hex(inventory_id) FROM (
                SELECT inventory_id, on_hand_change AS units FROM movements
                WHERE reason NOT IN ('hold', 'hold_released', 'hold_expired', 'sale', 'order_cancelled')
                UNION ALL
                SELECT inventory_id, -quantity FROM holds WHERE state = 'open'
                UNION ALL
                SELECT inventory_id, -quantity FROM order_items JOIN orders ON orders.id = order_id
                WHERE orders.status <> 'CANCELLED'
            ) GROUP BY inventory_id HAVING sum(units) < 0",
    },
    Audit {
        rules: &[
            Rule { invariant: 2, says: "the ledger rows of an inventory sum to its balance", checked: INVENTORIES },
            Rule {
                invariant: 2,
                says: "the ledger rows of an inventory are numbered from 1 without a gap up to its balance's number",
                checked: INVENTORIES,
            },
            Rule {
                invariant: 2,
                says: "a ledger row's balance is its predecessor's and its own change",
                checked: MOVEMENTS,
            },
            Rule {
                invariant: 2,
                says: "a ledger row points to its predecessor, a balance to its newest row",
                checked: "SELECT (SELECT count(*) FROM movements) + (SELECT count(*) FROM inventories)",
            },
        ],
        broken: LEDGER,
    },
    Audit {
        rules: &[Rule {
            invariant: 3,
            says: "what an inventory has held is the sum of its open holds",
            checked: INVENTORIES,
        }],
        broken: "
            SELECT 0, hex(inventory) FROM (
                SELECT id AS inventory, held AS units FROM inventories
                UNION ALL
                SELECT inventory_id, -quantity FROM holds WHERE state = 'open'
            ) GROUP BY inventory HAVING sum(units) <> 0",
    },
    Audit {
        rules: &[Rule {
            invariant: 3,
            says: "a hold stands as its cart does: open only in an open one, sold only in an ordered one, \
                   expired only in an expired one",
            checked: HOLDS,
        }],
        broken: "
            SELECT 0, hex(cart_key) || '/' || number
            FROM holds LEFT JOIN cart_sessions session ON session.key = cart_key
            WHERE session.state IS NULL OR (holds.state, session.state) NOT IN (VALUES
                ('open', 'open'), ('sold', 'ordered'), ('expired', 'expired'),
                ('released', 'open'), ('released', 'ordered'), ('released', 'cleared'), ('released', 'expired'))",
    },
    Audit {
        rules: &[Rule {
            invariant: 3,
            says: "a hold has ended once: the ledger rows of a cart and an inventory come to what its holds say",
            checked: HOLDS,
        }],
        broken: "
            SELECT DISTINCT 0, hex(coalesce(cart, inventory)) FROM (
                SELECT cart_key AS cart, inventory_id AS inventory, held_change AS held,
                       CASE reason WHEN 'sale' THEN -held_change ELSE 0 END AS sold,
                       CASE reason WHEN 'hold_expired' THEN -held_change ELSE 0 END AS expired
                FROM movements WHERE reason IN ('hold', 'hold_released', 'hold_expired', 'sale')
                UNION ALL
                SELECT cart_key, inventory_id, CASE state WHEN 'open' THEN -quantity ELSE 0 END,
                       CASE state WHEN 'sold' THEN -quantity ELSE 0 END,
                       CASE state WHEN 'expired' THEN -quantity ELSE 0 END
                FROM holds
            ) GROUP BY cart, inventory HAVING sum(held) <> 0 OR sum(sold) <> 0 OR sum(expired) <> 0",
    },
    Audit {
        rules: &[Rule {
            invariant: 4,
            says: "an ordered cart has one order, any other cart has none",
            checked: "SELECT count(*) FROM cart_sessions",
        }],
        broken: "
            SELECT 0, hex(cart) FROM (
                SELECT key AS cart, 1 AS due FROM cart_sessions WHERE state = 'ordered'
                UNION ALL
                SELECT cart_key, -1 FROM orders
            ) GROUP BY cart HAVING sum(due) <> 0",
    },
    Audit {
        rules: &[Rule {
            invariant: 4,
            says: "an order's total is the sum of its lines, a line's total is its price times its quantity",
            checked: ORDERS,
        }],
        broken: "
            SELECT 0, hex(id) FROM (
                SELECT id, 1 AS orders, 0 AS lines, subtotal AS money, grand_total <> subtotal + tax AS wrong
                FROM orders
                UNION ALL
                SELECT order_id, 0, 1, -total, total <> price * quantity FROM order_items
            ) GROUP BY id HAVING sum(orders) <> 1 OR sum(lines) = 0 OR sum(money) <> 0 OR sum(wrong) > 0",
    },
    Audit {
        rules: &[Rule {
            invariant: 4,
            says: "what an order sold is in the ledger, and nothing else is there as sold",
            checked: ORDERS,
        }],
        broken: "
            SELECT DISTINCT 0, hex(coalesce(order_id, inventory_id)) FROM (
                SELECT order_id, inventory_id, quantity AS units FROM order_items
                UNION ALL
                SELECT order_id, inventory_id, on_hand_change FROM movements WHERE reason = 'sale'
            ) GROUP BY order_id, inventory_id HAVING sum(units) <> 0",
    },
    Audit {
        rules: &[Rule {
            invariant: 4,
            says: "a cancelled order is back in stock once, any other order is not",
            checked: ORDERS,
        }],
        broken: "
            SELECT DISTINCT 0, hex(coalesce(order_id, inventory_id)) FROM (
                SELECT order_id, inventory_id, quantity AS units
                FROM orders JOIN order_items ON order_items.order_id = orders.id WHERE orders.status = 'CANCELLED'
                UNION ALL
                SELECT order_id, inventory_id, -on_hand_change FROM movements WHERE reason = 'order_cancelled'
            ) GROUP BY order_id, inventory_id HAVING sum(units) <> 0",
    },
    Audit {
        rules: &[Rule {
            invariant: 5,
            says: "an order has its events in the outbox: one send-email, one clear-cart, one order-status a change, \
                   numbered as they were written",
            checked: "
                SELECT count(*) FROM orders WHERE created_at > coalesce((
                    SELECT at FROM outbox WHERE position = (SELECT min(position) FROM outbox) AND position > 1
                ), -1)",
        }],
        broken: EVENTS,
    },
    Audit {
        rules: &[Rule {
            invariant: 5,
            says: "an event is in the outbox once and tells of an order, a message is marked as done once",
            checked: "SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM consumed_messages)",
        }],
        broken: "
            SELECT 0, hex(id) FROM outbox GROUP BY id HAVING count(*) > 1
            UNION ALL
            SELECT 0, hex(outbox.id) FROM outbox LEFT JOIN orders ON orders.id = outbox.order_id
            WHERE orders.id IS NULL
            UNION ALL
            SELECT 0, queue || '/' || message_id FROM consumed_messages
            GROUP BY queue, message_id HAVING count(*) > 1",
    },
];

/// The ledger is sorted twice: once into chains, of which only the faulty links are kept, and once for the totals.
/// Beside `max(seq)`, SQLite takes the other columns from the row that has it.
const LEDGER: &str = "
    WITH links AS (
        SELECT id, inventory_id, on_hand, held, on_hand_change, held_change, previous, seq,
               row_number() OVER chain AS place, lag(id) OVER chain AS predecessor,
               lag(on_hand, 1, 0) OVER chain AS on_hand_before, lag(held, 1, 0) OVER chain AS held_before
        FROM movements WINDOW chain AS (PARTITION BY inventory_id ORDER BY seq)
    ), faulty AS MATERIALIZED (
        SELECT id, inventory_id, seq <> place AS misnumbered, previous IS NOT predecessor AS mispointed,
               on_hand <> on_hand_before + on_hand_change OR held <> held_before + held_change AS miscounted
        FROM links WHERE misnumbered OR mispointed OR miscounted
    ), total AS MATERIALIZED (
        SELECT inventory_id, sum(on_hand_change) AS on_hand, sum(held_change) AS held, count(*) AS many,
               max(seq) AS last, id AS newest
        FROM movements GROUP BY inventory_id
    )
    SELECT 0, hex(inventories.id) FROM inventories LEFT JOIN total ON total.inventory_id = inventories.id
    WHERE inventories.on_hand IS NOT total.on_hand OR inventories.held IS NOT total.held
    UNION ALL
    SELECT 0, hex(inventory_id) FROM total WHERE inventory_id NOT IN (SELECT id FROM inventories)
    UNION ALL
    SELECT 1, hex(id) FROM (
        SELECT inventories.id FROM inventories LEFT JOIN total ON total.inventory_id = inventories.id
        WHERE inventories.seq IS NOT last OR last IS NOT many
        UNION
        SELECT inventory_id FROM faulty WHERE misnumbered
    )
    UNION ALL
    SELECT 2, hex(id) FROM faulty WHERE miscounted
    UNION ALL
    SELECT 3, hex(id) FROM faulty WHERE mispointed
    UNION ALL
    SELECT 3, hex(inventories.id) FROM inventories LEFT JOIN total ON total.inventory_id = inventories.id
    WHERE last_movement IS NOT newest";

const EVENTS: &str = "
    WITH kept_since (at) AS (
        SELECT coalesce((
            SELECT at FROM outbox WHERE position = (SELECT min(position) FROM outbox) AND position > 1
        ), -1)
    ), numbered AS (
        SELECT order_id, queue, queue = 'order-status' AND row_number() OVER (
                   PARTITION BY order_id, queue ORDER BY position
               ) IS NOT CASE WHEN json_valid(payload) THEN payload ->> 'sequence' END AS misnumbered
        FROM outbox
    ), events AS MATERIALIZED (
        SELECT order_id, sum(queue = 'send-email') AS mails, sum(queue = 'clear-cart') AS clearings,
               sum(queue = 'order-status') AS changes, sum(misnumbered) AS misnumbered
        FROM numbered GROUP BY order_id
    )
    SELECT 0, hex(orders.id) FROM orders LEFT JOIN events ON events.order_id = orders.id
    WHERE created_at > (SELECT at FROM kept_since)
      AND (mails, clearings, changes, misnumbered) IS NOT (1, 1, orders.sequence, 0)";
