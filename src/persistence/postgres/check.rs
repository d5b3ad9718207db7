//! Verifies the books in PostgreSQL: runs the audits of [`check`](crate::persistence::check).

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use crate::persistence::StoreError;
use crate::persistence::check::{AUDITS, Audit, Dialect, Fault};
use crate::persistence::records::Verdict;

use super::error::store_error;

const DIALECT: Dialect = Dialect { text_of_id: "text(", ledger: LEDGER };

/// One view of the database for all audits, which may take as long as they like and read all of each table.
const ONE_VIEW: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; \
    SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; \
    SET LOCAL enable_seqscan = on; SET LOCAL enable_bitmapscan = on";

/// Verifies all rules in the transaction that `connection` is in, which has done nothing yet.
pub(super) async fn verdicts(connection: &mut PgConnection) -> Result<Vec<Verdict>, StoreError> {
    sqlx::raw_sql(ONE_VIEW).execute(&mut *connection).await.map_err(store_error)?;
    let mut verdicts = Vec::new();
    for audit in &AUDITS {
        verdicts.extend(audited(connection, audit).await?);
    }
    verdicts.sort_by_key(|verdict| verdict.invariant);
    Ok(verdicts)
}

async fn audited(connection: &mut PgConnection, audit: &Audit) -> Result<Vec<Verdict>, StoreError> {
    let faults: Vec<Fault> = sqlx::query_as(AssertSqlSafe(audit.faults(&DIALECT)))
        .persistent(false)
        .fetch_all(&mut *connection)
        .await
        .map_err(store_error)?;
    let mut checked = Vec::with_capacity(audit.rules.len());
    for rule in audit.rules {
        checked.push(sqlx::query_scalar(rule.checked).fetch_one(&mut *connection).await.map_err(store_error)?);
    }
    Ok(audit.verdicts(&checked, &faults))
}

const LEDGER: &str = "
    WITH links AS (
        SELECT id, inventory_id, on_hand, held, on_hand_change, held_change, previous, seq,
               row_number() OVER chain AS place, lag(id) OVER chain AS predecessor,
               lag(on_hand, 1, 0::bigint) OVER chain AS on_hand_before, lag(held, 1, 0::bigint) OVER chain AS held_before
        FROM movements WINDOW chain AS (PARTITION BY inventory_id ORDER BY seq)
    ), faulty AS MATERIALIZED (
        SELECT * FROM (
            SELECT id, inventory_id, seq <> place AS misnumbered, previous IS DISTINCT FROM predecessor AS mispointed,
                   on_hand <> on_hand_before + on_hand_change OR held <> held_before + held_change AS miscounted
            FROM links
        ) link WHERE misnumbered OR mispointed OR miscounted
    ), newest AS (
        SELECT DISTINCT ON (inventory_id) inventory_id, id FROM movements ORDER BY inventory_id, seq DESC
    ), total AS MATERIALIZED (
        SELECT inventory_id, on_hand, held, many, last, newest.id AS newest FROM (
            SELECT inventory_id, sum(on_hand_change) AS on_hand, sum(held_change) AS held, count(*) AS many,
                   max(seq) AS last
            FROM movements GROUP BY inventory_id
        ) summed JOIN newest USING (inventory_id)
    )
    SELECT 0, inventories.id::text FROM inventories LEFT JOIN total ON total.inventory_id = inventories.id
    WHERE inventories.on_hand IS DISTINCT FROM total.on_hand OR inventories.held IS DISTINCT FROM total.held
    UNION ALL
    SELECT 0, inventory_id::text FROM total WHERE inventory_id NOT IN (SELECT id FROM inventories)
    UNION ALL
    SELECT 1, id::text FROM (
        SELECT inventories.id FROM inventories LEFT JOIN total ON total.inventory_id = inventories.id
        WHERE inventories.seq IS DISTINCT FROM last OR last IS DISTINCT FROM many
        UNION
        SELECT inventory_id FROM faulty WHERE misnumbered
    ) gap
    UNION ALL
    SELECT 2, id::text FROM faulty WHERE miscounted
    UNION ALL
    SELECT 3, id::text FROM faulty WHERE mispointed
    UNION ALL
    SELECT 3, inventories.id::text FROM inventories LEFT JOIN total ON total.inventory_id = inventories.id
    WHERE last_movement IS DISTINCT FROM newest";
