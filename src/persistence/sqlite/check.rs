//! Verifies the books in SQLite: runs the audits of [`check`](crate::persistence::check).

use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteConnection;
use uuid::Uuid;

use crate::persistence::StoreError;
use crate::persistence::check::{AUDITS, Audit, Dialect, Fault};
use crate::persistence::records::Verdict;

use super::error::store_error;

const DIALECT: Dialect = Dialect { text_of_id: "hex(", ledger: LEDGER };

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
