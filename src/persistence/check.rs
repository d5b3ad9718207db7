//! Verifies the books: invariants 1 to 5 of the design, on one consistent view of the database. What is verified is
//! one for all databases; each runs the statements in its own way.
//!
//! An audit is one statement over whole tables. Where two tables must agree, the one's rows are added and the other's
//! subtracted, group by group, and what is not zero is at fault: that is one sort, where SQLite would compare each
//! row of an outer join with each of the other side. So a million ledger rows take seconds. A rule looks at as little
//! as it can, so that one fault breaks few rules and the rule that is broken names it.
//!
//! Changes of orders that were told are removed after a while ([`forget`](super::forget)), from the oldest on, and
//! `outbox_horizon` says how far. So an order from after it must have all of its changes in the outbox, an older one those
//! that are behind it: only the first ones may be missing, never one between two others, never the last one from after it.

use std::iter;

use super::records::Verdict;

/// How many of the offenders a verdict names.
const NAMED_MAX: i64 = 20;

/// A statement that verifies one rule, or several that are seen in one pass.
pub(super) struct Audit {
    /// The rules.
    pub(super) rules: &'static [Rule],
    broken: Broken,
}

/// Gives the rule's place among the audit's rules as `rule`, and as `id` what breaks it: its identifier as a text,
/// perhaps with something behind it.
enum Broken {
    /// A statement that all databases understand, but for `hex(identifier)`.
    Text(&'static str),
    /// The dialect's own.
    Ledger,
}

/// What must be true, and how many things it is said of.
pub(super) struct Rule {
    invariant: u8,
    says: &'static str,
    /// Counts the things.
    pub(super) checked: &'static str,
}

/// How a database says what the others say in another way.
pub(super) struct Dialect {
    /// The function that makes an identifier a text.
    pub(super) text_of_id: &'static str,
    /// The audit of the ledger's chains and totals.
    pub(super) ledger: &'static str,
}

/// What breaks a rule: the rule's place in its audit, how many break it, and the identifier of one.
pub(super) type Fault = (i64, i64, String);

impl Audit {
    /// The statement that gives the audit's [`Fault`]s, so many of a rule as are named.
    pub(super) fn faults(&self, dialect: &Dialect) -> String {
        let broken = match self.broken {
            Broken::Text(text) => text.replace("hex(", dialect.text_of_id),
            Broken::Ledger => dialect.ledger.to_owned(),
        };
        format!(
            "WITH broken (rule, id) AS ({broken}), numbered AS ( \
                 SELECT CAST(rule AS bigint) AS rule, id, row_number() OVER (PARTITION BY rule ORDER BY id) AS place, \
                        count(*) OVER (PARTITION BY rule) AS many FROM broken \
             ) SELECT rule, many, id FROM numbered WHERE place <= {NAMED_MAX} ORDER BY rule, place"
        )
    }

    /// The verdicts, from how many things each rule looked at and from the faults.
    pub(super) fn verdicts(&self, checked: &[i64], faults: &[Fault]) -> Vec<Verdict> {
        let verdict = |((place, rule), checked): ((i64, &Rule), &i64)| {
            let of_rule = || faults.iter().filter(|(broken, ..)| *broken == place);
            Verdict {
                invariant: rule.invariant,
                rule: rule.says,
                checked: *checked,
                broken: of_rule().map(|(_, _, id)| id.clone()).collect(),
                broken_count: of_rule().next().map_or(0, |(_, many, _)| *many),
            }
        };
        iter::zip(iter::zip(0.., self.rules), checked).map(verdict).collect()
    }
}

const INVENTORIES: &str = "SELECT count(*) FROM inventories";
const MOVEMENTS: &str = "SELECT count(*) FROM movements";
const HOLDS: &str = "SELECT count(*) FROM holds";
const ORDERS: &str = "SELECT count(*) FROM orders";

/// All audits.
pub(super) const AUDITS: [Audit; 13] = [
    Audit {
        rules: &[Rule {
            invariant: 1,
            says: "in every balance, held is not below zero and not above on hand",
            checked: INVENTORIES,
        }],
        broken: Broken::Text("SELECT 0, hex(id) FROM inventories WHERE held < 0 OR on_hand < held"),
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
        broken: Broken::Text(
            "
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
        ),
    },
    Audit {
        rules: &[Rule {
            invariant: 1,
            says: "what orders have and open carts hold of an inventory is not more than came in",
            checked: INVENTORIES,
        }],
        broken: Broken::Text(
            "
            SELECT 0, hex(inventory_id) FROM (
                SELECT inventory_id, on_hand_change AS units FROM movements
                WHERE reason NOT IN ('hold', 'hold_released', 'hold_expired', 'sale', 'order_cancelled')
                UNION ALL
                SELECT inventory_id, -quantity FROM holds WHERE state = 'open'
                UNION ALL
                SELECT inventory_id, -quantity FROM order_items JOIN orders ON orders.id = order_id
                WHERE orders.status <> 'CANCELLED'
            ) AS sides GROUP BY inventory_id HAVING sum(units) < 0",
        ),
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
        broken: Broken::Ledger,
    },
    Audit {
        rules: &[Rule {
            invariant: 3,
            says: "what an inventory has held is the sum of its open holds",
            checked: INVENTORIES,
        }],
        broken: Broken::Text(
            "
            SELECT 0, hex(inventory) FROM (
                SELECT id AS inventory, held AS units FROM inventories
                UNION ALL
                SELECT inventory_id, -quantity FROM holds WHERE state = 'open'
            ) AS sides GROUP BY inventory HAVING sum(units) <> 0",
        ),
    },
    Audit {
        rules: &[Rule {
            invariant: 3,
            says: "a hold stands as its cart does: open only in an open one, sold only in an ordered one, \
                   expired only in an expired one",
            checked: HOLDS,
        }],
        broken: Broken::Text(
            "
            SELECT 0, hex(cart_key) || '/' || number
            FROM holds LEFT JOIN cart_sessions session ON session.key = cart_key
            WHERE session.state IS NULL OR (holds.state, session.state) NOT IN (VALUES
                ('open', 'open'), ('sold', 'ordered'), ('expired', 'expired'),
                ('released', 'open'), ('released', 'ordered'), ('released', 'cleared'), ('released', 'expired'))",
        ),
    },
    Audit {
        rules: &[Rule {
            invariant: 3,
            says: "a hold has ended once: the ledger rows of a cart and an inventory come to what its holds say",
            checked: HOLDS,
        }],
        broken: Broken::Text(
            "
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
            ) AS sides GROUP BY cart, inventory HAVING sum(held) <> 0 OR sum(sold) <> 0 OR sum(expired) <> 0",
        ),
    },
    Audit {
        rules: &[Rule {
            invariant: 4,
            says: "an ordered cart has one order, any other cart has none",
            checked: "SELECT count(*) FROM cart_sessions",
        }],
        broken: Broken::Text(
            "
            SELECT 0, hex(cart) FROM (
                SELECT key AS cart, 1 AS due FROM cart_sessions WHERE state = 'ordered'
                UNION ALL
                SELECT cart_key, -1 FROM orders
            ) AS sides GROUP BY cart HAVING sum(due) <> 0",
        ),
    },
    Audit {
        rules: &[Rule {
            invariant: 4,
            says: "an order's total is the sum of its lines, a line's total is its price times its quantity",
            checked: ORDERS,
        }],
        broken: Broken::Text(
            "
            SELECT 0, hex(id) FROM (
                SELECT id, 1 AS orders, 0 AS lines, subtotal AS money,
                       CASE WHEN grand_total <> subtotal + tax THEN 1 ELSE 0 END AS wrong
                FROM orders
                UNION ALL
                SELECT order_id, 0, 1, -total, CASE WHEN total <> price * quantity THEN 1 ELSE 0 END FROM order_items
            ) AS sides GROUP BY id HAVING sum(orders) <> 1 OR sum(lines) = 0 OR sum(money) <> 0 OR sum(wrong) > 0",
        ),
    },
    Audit {
        rules: &[Rule {
            invariant: 4,
            says: "what an order sold is in the ledger, and nothing else is there as sold",
            checked: ORDERS,
        }],
        broken: Broken::Text(
            "
            SELECT DISTINCT 0, hex(coalesce(order_id, inventory_id)) FROM (
                SELECT order_id, inventory_id, quantity AS units FROM order_items
                UNION ALL
                SELECT order_id, inventory_id, on_hand_change FROM movements WHERE reason = 'sale'
            ) AS sides GROUP BY order_id, inventory_id HAVING sum(units) <> 0",
        ),
    },
    Audit {
        rules: &[Rule {
            invariant: 4,
            says: "a cancelled order is back in stock once, any other order is not",
            checked: ORDERS,
        }],
        broken: Broken::Text(
            "
            SELECT DISTINCT 0, hex(coalesce(order_id, inventory_id)) FROM (
                SELECT order_id, inventory_id, quantity AS units
                FROM orders JOIN order_items ON order_items.order_id = orders.id WHERE orders.status = 'CANCELLED'
                UNION ALL
                SELECT order_id, inventory_id, -on_hand_change FROM movements WHERE reason = 'order_cancelled'
            ) AS sides GROUP BY order_id, inventory_id HAVING sum(units) <> 0",
        ),
    },
    Audit {
        rules: &[Rule {
            invariant: 5,
            says: "an order has its changes in the outbox, but for those that were removed after their time, the oldest \
                   first: each once, numbered as they were made, from where the one before led, the last one to where the order stands",
            checked: ORDERS,
        }],
        broken: Broken::Text(
            "
            SELECT 0, hex(id) FROM (
                SELECT id, sequence, created_at, updated_at, first, last, coalesce(many, 0) AS many,
                       coalesce((SELECT at FROM outbox_horizon), -1) AS horizon
                FROM orders LEFT JOIN (
                    SELECT order_id, count(*) AS many, min(sequence) AS first, max(sequence) AS last
                    FROM outbox GROUP BY order_id
                ) AS changes ON order_id = id
            ) AS told WHERE NOT CASE
                WHEN many = 0 THEN updated_at <= horizon
                ELSE last = sequence AND last - first + 1 = many AND (first = 1 OR first > 1 AND created_at <= horizon)
            END
            UNION
            SELECT 0, hex(id) FROM orders JOIN outbox ON order_id = id AND outbox.sequence = orders.sequence
            WHERE to_status <> status
            UNION
            SELECT 0, hex(later.order_id) FROM outbox later JOIN outbox earlier
            ON earlier.order_id = later.order_id AND earlier.sequence = later.sequence - 1
            WHERE coalesce(later.from_status, '') <> earlier.to_status",
        ),
    },
    Audit {
        rules: &[Rule {
            invariant: 5,
            says: "a change is in the outbox once and of an order, a message is marked as done once",
            checked: "SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM consumed_messages)",
        }],
        broken: Broken::Text(
            "
            SELECT 0, hex(order_id) || '/' || sequence FROM outbox GROUP BY order_id, sequence HAVING count(*) > 1
            UNION ALL
            SELECT 0, hex(order_id) || '/' || outbox.sequence FROM outbox LEFT JOIN orders ON orders.id = order_id
            WHERE orders.id IS NULL
            UNION ALL
            SELECT 0, queue || '/' || message_id FROM consumed_messages
            GROUP BY queue, message_id HAVING count(*) > 1",
        ),
    },
];
