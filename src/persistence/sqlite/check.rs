//! Verifies the books in SQLite: runs the audits of [`check`](crate::persistence::check).

use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use crate::persistence::StoreError;
use crate::persistence::check::{AUDITS, Audit, Dialect, Fault};
use crate::persistence::records::Verdict;

use super::error::store_error;

const DIALECT: Dialect = Dialect { text_of_id: "hex(", ledger: LEDGER, events: EVENTS };

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
    let mut faults: Vec<Fault> = sqlx::query_as(AssertSqlSafe(audit.faults(&DIALECT)))
        .persistent(false)
        .fetch_all(&mut *connection)
        .await
        .map_err(store_error)?;
    for (_, _, id) in &mut faults {
        *id = shown(id);
    }
    let mut checked = Vec::with_capacity(audit.rules.len());
    for rule in audit.rules {
        checked.push(sqlx::query_scalar(rule.checked).fetch_one(&mut *connection).await.map_err(store_error)?);
    }
    Ok(audit.verdicts(&checked, &faults))
}

/// An identifier as the API shows it, where the text begins with one in hexadecimal.
fn shown(id: &str) -> String {
    let split = id.split_at_checked(32).and_then(|(hex, rest)| Some((Uuid::try_parse(hex).ok()?, rest)));
    split.map_or_else(|| id.to_owned(), |(uuid, rest)| format!("{uuid}{rest}"))
}

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

/// Of the changes of an order that are told, each one's number less its place is how many were removed before them.
const EVENTS: &str = "
    WITH placed AS (
        SELECT order_id, queue, CASE WHEN queue = 'order-status' AND json_valid(payload)
                   THEN payload ->> 'sequence' - row_number() OVER (PARTITION BY order_id, queue ORDER BY position)
               END AS removed
        FROM outbox
    ), events AS MATERIALIZED (
        SELECT order_id, sum(queue = 'send-email') AS mails, sum(queue = 'clear-cart') AS clearings,
               sum(queue = 'order-status') AS changes, count(removed) AS numbers,
               min(removed) AS removed, max(removed) AS removed_most
        FROM placed GROUP BY order_id
    ), told AS (
        SELECT id, sequence, created_at, updated_at, coalesce(mails, 0) AS mails, coalesce(clearings, 0) AS clearings,
               coalesce(changes, 0) AS changes, coalesce(numbers, 0) AS numbers, removed, removed_most,
               coalesce((SELECT at FROM outbox_horizon), -1) AS horizon
        FROM orders LEFT JOIN events ON events.order_id = orders.id
    )
    SELECT 0, hex(id) FROM told WHERE NOT (
        numbers = changes AND mails <= clearings AND clearings <= 1 AND CASE
            WHEN changes = 0 THEN updated_at <= horizon
            WHEN removed = 0 THEN removed_most = 0 AND changes = sequence AND mails = 1
            ELSE removed > 0 AND removed_most = removed AND removed + changes = sequence AND created_at <= horizon
        END)";
