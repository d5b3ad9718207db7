//! Changes of orders on their way out and messages on their way in, in SQLite.

use std::collections::HashSet;

use async_trait::async_trait;

use crate::domain::timestamp::Timestamp;
use crate::persistence::records::{DeadLetter, NewEmail, OutboxRecord};
use crate::persistence::rows::{DeadLetterRow, OutboxRow, outbox_records};
use crate::persistence::{Outbox, StoreError};

use super::error::store_error;
use super::write::keep_mails;
use super::{SqliteStore, json_of_numbers, rows_of_json};

#[async_trait]
impl Outbox for SqliteStore {
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
        .fetch_one(&self.readers)
        .await
        .map_err(store_error)?;
        if !waiting {
            return Ok(Vec::new());
        }
        let mut transaction = self.begin().await?;
        let claimed: String = sqlx::query_scalar(
            "WITH claimable AS ( \
                 SELECT order_id FROM outbox waiting \
                 WHERE published_at IS NULL AND leased_until <= $1 AND NOT EXISTS \
                     (SELECT 1 FROM outbox claimed WHERE claimed.order_id = waiting.order_id \
                      AND claimed.published_at IS NULL AND claimed.leased_until > $1) \
                 ORDER BY position LIMIT $2 \
             ) \
             SELECT json_group_array(json_object('position', position, 'order_id', hex(order_id), 'sequence', sequence, \
                 'from_status', from_status, 'to_status', to_status, 'at', at, 'traceparent', traceparent)) \
             FROM outbox WHERE published_at IS NULL AND order_id IN (SELECT order_id FROM claimable)",
        )
        .bind(now.0)
        .bind(limit)
        .fetch_one(&mut *transaction)
        .await
        .map_err(store_error)?;
        let rows: Vec<OutboxRow> = rows_of_json(&claimed)?;
        let positions: Vec<i64> = rows.iter().map(|row| row.position).collect();
        sqlx::query("UPDATE outbox SET leased_until = $1 WHERE position IN (SELECT value FROM json_each($2))")
            .bind(lease_until.0)
            .bind(json_of_numbers(&positions))
            .execute(&mut *transaction)
            .await
            .map_err(store_error)?;
        transaction.commit().await?;
        outbox_records(rows)
    }

    async fn release_changes(&self, positions: &[i64], lease_until: Timestamp) -> Result<(), StoreError> {
        if positions.is_empty() {
            return Ok(());
        }
        let statements = sqlx::query(
            "BEGIN IMMEDIATE; \
             UPDATE outbox SET leased_until = 0 \
             WHERE published_at IS NULL AND leased_until = $1 AND position IN (SELECT value FROM json_each($2)); \
             COMMIT",
        );
        self.writer.write_whole(statements.bind(lease_until.0).bind(json_of_numbers(positions))).await
    }

    async fn mark_published(&self, positions: &[i64], now: Timestamp) -> Result<(), StoreError> {
        if positions.is_empty() {
            return Ok(());
        }
        let statements = sqlx::query(
            "BEGIN IMMEDIATE; \
             UPDATE outbox SET published_at = $1 \
             WHERE published_at IS NULL AND position IN (SELECT value FROM json_each($2)); \
             COMMIT",
        );
        self.writer.write_whole(statements.bind(now.0).bind(json_of_numbers(positions))).await
    }

    async fn outbox_lag(&self) -> Result<(i64, Option<Timestamp>), StoreError> {
        let (waiting, oldest): (i64, Option<i64>) = sqlx::query_as(
            "SELECT (SELECT count(*) + 2 * count(CASE sequence WHEN 1 THEN 1 END) FROM outbox WHERE published_at IS NULL), \
             (SELECT at FROM outbox WHERE published_at IS NULL ORDER BY position LIMIT 1)",
        )
        .fetch_one(&self.readers)
        .await
        .map_err(store_error)?;
        Ok((waiting, oldest.map(Timestamp)))
    }

    async fn keep_mails_once(
        &self,
        queue: &str,
        mails: &[(String, NewEmail)],
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let mut seen = HashSet::new();
        let once: Vec<&(String, NewEmail)> = mails.iter().filter(|(message_id, _)| seen.insert(message_id)).collect();
        if once.is_empty() {
            return Ok(0);
        }
        let kept = self.writer.write_whole_and_tell(keep_mails(queue, &once, now)).await?;
        Ok(kept.first().map_or(0, |kept| u64::try_from(*kept).unwrap_or(0)))
    }

    async fn is_consumed(&self, queue: &str, message_id: &str) -> Result<bool, StoreError> {
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM consumed_messages WHERE queue = $1 AND message_id = $2)")
            .bind(queue)
            .bind(message_id)
            .fetch_one(&self.readers)
            .await
            .map_err(store_error)
    }

    /// A message that is put away again replaces itself: what was said last counts.
    async fn bury(&self, letter: &DeadLetter) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query(
            "INSERT INTO dead_letters (queue, message_id, payload, reason, at) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (queue, message_id) \
             DO UPDATE SET payload = excluded.payload, reason = excluded.reason, at = excluded.at",
        )
        .bind(&letter.queue)
        .bind(&letter.message_id)
        .bind(&letter.payload)
        .bind(&letter.reason)
        .bind(letter.at.0)
        .execute(&mut *transaction)
        .await
        .map_err(store_error)?;
        transaction.commit().await
    }

    async fn dead_letters(&self, queue: &str) -> Result<Vec<DeadLetter>, StoreError> {
        let rows: Vec<DeadLetterRow> =
            sqlx::query_as("SELECT * FROM dead_letters WHERE queue = $1 ORDER BY at DESC, message_id DESC LIMIT 100")
                .bind(queue)
                .fetch_all(&self.readers)
                .await
                .map_err(store_error)?;
        Ok(rows.into_iter().map(DeadLetter::from).collect())
    }
}
