//! Changes of orders on their way out and messages on their way in, in PostgreSQL.

use async_trait::async_trait;

use crate::domain::timestamp::Timestamp;
use crate::persistence::records::{DeadLetter, NewEmail, OutboxRecord};
use crate::persistence::rows::{DeadLetterRow, OutboxRow, outbox_records};
use crate::persistence::{Outbox, StoreError};

use super::PostgresStore;
use super::error::Answer;

/// The lock that whoever claims changes holds: of two servers the second sees what the first has claimed. The number
/// is the program's own, as good as any other.
const CLAIM_LOCK: i64 = 0x5374_6f72_656b_6570;

/// Marks messages as done, in one order, and keeps the mails of those that were not done before.
const KEEP_MAILS_ONCE: &str = "
    WITH new AS (
        SELECT DISTINCT ON (message_id) * FROM unnest($3, $4, $5, $6, $7, $8, $9, $10, $11, $12) WITH ORDINALITY
            AS given (message_id, id, sender, recipient, subject, body, html, source, status, created_at, place)
        ORDER BY message_id, place
    ), marked AS (
        INSERT INTO consumed_messages (queue, message_id, at) SELECT $1, message_id, $2 FROM new ORDER BY message_id
        ON CONFLICT DO NOTHING RETURNING message_id
    )
    INSERT INTO emails (id, sender, recipient, subject, body, html, source, status, due_at, created_at)
    SELECT id, sender, recipient, subject, body, html, source, status, created_at, created_at
    FROM new JOIN marked USING (message_id)";

/// The text with a sign for what is not a character in the place of each NUL.
fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Claims until `$3` the orders of the first `$2` changes that wait unclaimed at `$1`, but those with another change that is
/// claimed.
///
/// After a burst the statistics are of the quiet time before it, and say that nothing waits. So each step is done once,
/// whatever the planner believes of it (`MATERIALIZED`, `ARRAY`), and what waits of an order is looked for by the order:
/// `coalesce` keeps the index of all that waits from being taken for the smaller one.
const CLAIM: &str = "WITH first AS MATERIALIZED (
        SELECT order_id FROM outbox WHERE published_at IS NULL AND leased_until <= $1 ORDER BY position LIMIT $2
    ), claimed AS MATERIALIZED (
        SELECT order_id FROM outbox
        WHERE order_id = ANY(ARRAY(SELECT order_id FROM first)) AND coalesce(published_at, 0) = 0 AND leased_until > $1
    )
    UPDATE outbox SET leased_until = $3
    WHERE order_id = ANY(ARRAY(SELECT order_id FROM first EXCEPT SELECT order_id FROM claimed))
        AND coalesce(published_at, 0) = 0
    RETURNING position, order_id, sequence, from_status, to_status, at, traceparent";

#[async_trait]
impl Outbox for PostgresStore {
    /// Takes the orders of the first `limit` changes that nobody has claimed, and of those orders all that waits: so
    /// it may give some more than `limit`, but never half an order.
    async fn claim_changes(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        limit: u32,
    ) -> Result<Vec<OutboxRecord>, StoreError> {
        let waiting: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM outbox WHERE published_at IS NULL AND leased_until <= $1)",
        )
        .bind(now.0)
        .fetch_one(&self.pool)
        .answered()
        .await?;
        if !waiting {
            return Ok(Vec::new());
        }
        let mut transaction = self.begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(CLAIM_LOCK).execute(&mut *transaction).answered().await?;
        let rows: Vec<OutboxRow> = sqlx::query_as(CLAIM)
            .bind(now.0)
            .bind(i64::from(limit))
            .bind(lease_until.0)
            .fetch_all(&mut *transaction)
            .answered()
            .await?;
        transaction.commit().await?;
        outbox_records(rows)
    }

    async fn release_changes(&self, positions: &[i64], lease_until: Timestamp) -> Result<(), StoreError> {
        if positions.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "UPDATE outbox SET leased_until = 0 \
             WHERE coalesce(published_at, 0) = 0 AND leased_until = $1 AND position = ANY($2)",
        )
        .bind(lease_until.0)
        .bind(positions)
        .execute(&self.pool)
        .answered()
        .await?;
        Ok(())
    }

    async fn mark_published(&self, positions: &[i64], now: Timestamp) -> Result<(), StoreError> {
        if positions.is_empty() {
            return Ok(());
        }
        let mut transaction = self.begin().await?;
        sqlx::query("UPDATE outbox SET published_at = $1 WHERE coalesce(published_at, 0) = 0 AND position = ANY($2)")
            .bind(now.0)
            .bind(positions)
            .execute(&mut *transaction)
            .answered()
            .await?;
        transaction.commit().await
    }

    async fn outbox_lag(&self) -> Result<(i64, Option<Timestamp>), StoreError> {
        let (waiting, oldest): (i64, Option<i64>) = sqlx::query_as(
            "SELECT (SELECT count(*) + 2 * count(CASE sequence WHEN 1 THEN 1 END) FROM outbox WHERE published_at IS NULL), \
             (SELECT at FROM outbox WHERE published_at IS NULL ORDER BY position LIMIT 1)",
        )
        .fetch_one(&self.pool)
        .answered()
        .await?;
        Ok((waiting, oldest.map(Timestamp)))
    }

    async fn keep_mails_once(
        &self,
        queue: &str,
        mails: &[(String, NewEmail)],
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let mut transaction = self.begin().await?;
        let all = || mails.iter().map(|(_, mail)| mail);
        let kept = sqlx::query(KEEP_MAILS_ONCE)
            .bind(queue)
            .bind(now.0)
            .bind(mails.iter().map(|(message_id, _)| message_id.as_str()).collect::<Vec<_>>())
            .bind(all().map(|mail| mail.id.0).collect::<Vec<_>>())
            .bind(all().map(|mail| mail.sender.as_str()).collect::<Vec<_>>())
            .bind(all().map(|mail| mail.recipient.as_str()).collect::<Vec<_>>())
            .bind(all().map(|mail| mail.subject.as_str()).collect::<Vec<_>>())
            .bind(all().map(|mail| mail.body.as_str()).collect::<Vec<_>>())
            .bind(all().map(|mail| mail.html.as_deref()).collect::<Vec<_>>())
            .bind(all().map(|mail| mail.source.as_str()).collect::<Vec<_>>())
            .bind(all().map(|mail| mail.status.name()).collect::<Vec<_>>())
            .bind(all().map(|mail| mail.created_at.0).collect::<Vec<_>>())
            .execute(&mut *transaction)
            .answered()
            .await?
            .rows_affected();
        transaction.commit().await?;
        Ok(kept)
    }

    async fn is_consumed(&self, queue: &str, message_id: &str) -> Result<bool, StoreError> {
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM consumed_messages WHERE queue = $1 AND message_id = $2)")
            .bind(queue)
            .bind(message_id)
            .fetch_one(&self.pool)
            .answered()
            .await
    }

    /// A message that is put away again replaces itself: what was said last counts. A NUL, which no text here can hold,
    /// must not keep what can not be read from being put away.
    async fn bury(&self, letter: &DeadLetter) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query(
            "INSERT INTO dead_letters (queue, message_id, payload, reason, at) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (queue, message_id) \
             DO UPDATE SET payload = excluded.payload, reason = excluded.reason, at = excluded.at",
        )
        .bind(&letter.queue)
        .bind(without_nul(&letter.message_id))
        .bind(without_nul(&letter.payload))
        .bind(without_nul(&letter.reason))
        .bind(letter.at.0)
        .execute(&mut *transaction)
        .answered()
        .await?;
        transaction.commit().await
    }

    async fn dead_letters(&self, queue: &str) -> Result<Vec<DeadLetter>, StoreError> {
        let rows: Vec<DeadLetterRow> =
            sqlx::query_as("SELECT * FROM dead_letters WHERE queue = $1 ORDER BY at DESC, message_id DESC LIMIT 100")
                .bind(queue)
                .fetch_all(&self.pool)
                .answered()
                .await?;
        Ok(rows.into_iter().map(DeadLetter::from).collect())
    }
}
