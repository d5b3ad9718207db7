//! Mails, in SQLite.

use async_trait::async_trait;
use sqlx::QueryBuilder;
use sqlx::sqlite::SqliteConnection;

use crate::domain::ids::EmailId;
use crate::domain::timestamp::Timestamp;
use crate::persistence::cursor::{Cursor, page_of};
use crate::persistence::records::{Email, EmailFilter, EmailStatus, FailedTry, Listed, NewEmail, Page};
use crate::persistence::rows::EmailRow;
use crate::persistence::{Mail, StoreError};

use super::SqliteStore;
use super::error::store_error;

/// What its cursors call this list.
const LIST: &str = "emails";

#[async_trait]
impl Mail for SqliteStore {
    async fn insert_email(&self, mail: &NewEmail) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        insert_email(&mut transaction, mail).await?;
        transaction.commit().await
    }

    async fn list_emails(&self, filter: &EmailFilter, page: &Page) -> Result<Listed<Email>, StoreError> {
        let after = Cursor::<()>::of_page(LIST, page)?;
        let mut query = QueryBuilder::new("SELECT * FROM emails WHERE true");
        if let Some(recipient) = &filter.recipient {
            query.push(" AND recipient = ").push_bind(recipient);
        }
        if let Some(source) = &filter.source {
            query.push(" AND source = ").push_bind(source);
        }
        if let Some(status) = filter.status {
            query.push(" AND status = ").push_bind(status.name());
        }
        if let Some(cursor) = after {
            query.push(" AND id < ").push_bind(cursor.id);
        }
        query.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(page.limit) + 1);
        let rows: Vec<EmailRow> = query.build_query_as().fetch_all(&self.readers).await.map_err(store_error)?;
        page_of(rows, page.limit, |last| Cursor::behind(LIST, (), last.id))
    }

    async fn claim_emails(&self, now: Timestamp, lease_until: Timestamp, limit: u32) -> Result<Vec<Email>, StoreError> {
        let due: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM emails WHERE status = 'QUEUED' AND due_at <= $1)")
                .bind(now.0)
                .fetch_one(&self.readers)
                .await
                .map_err(store_error)?;
        if !due {
            return Ok(Vec::new());
        }
        let mut transaction = self.begin().await?;
        let mut rows: Vec<EmailRow> = sqlx::query_as(
            "UPDATE emails SET due_at = $1, attempts = attempts + 1 WHERE id IN \
             (SELECT id FROM emails WHERE status = 'QUEUED' AND due_at <= $2 ORDER BY due_at, id LIMIT $3) \
             RETURNING *",
        )
        .bind(lease_until.0)
        .bind(now.0)
        .bind(limit)
        .fetch_all(&mut *transaction)
        .await
        .map_err(store_error)?;
        transaction.commit().await?;
        rows.sort_by_key(|row| row.id);
        rows.into_iter().map(Email::try_from).collect()
    }

    async fn email_handed_over(&self, id: EmailId, attempt: i64, lease_until: Timestamp) -> Result<bool, StoreError> {
        let mut transaction = self.begin().await?;
        let marked = sqlx::query(
            "UPDATE emails SET unanswered = unanswered + 1, due_at = $1 \
             WHERE id = $2 AND status = 'QUEUED' AND attempts = $3",
        )
        .bind(lease_until.0)
        .bind(id.0)
        .bind(attempt)
        .execute(&mut *transaction)
        .await
        .map_err(store_error)?;
        transaction.commit().await?;
        Ok(marked.rows_affected() == 1)
    }

    async fn email_done(&self, id: EmailId, captured: bool, now: Timestamp) -> Result<(), StoreError> {
        let (status, sent_at) = if captured { (EmailStatus::Captured, None) } else { (EmailStatus::Sent, Some(now.0)) };
        let mut transaction = self.begin().await?;
        // What a server has taken is sent, whatever another try has come to meanwhile.
        sqlx::query("UPDATE emails SET status = $1, sent_at = $2 WHERE id = $3 AND status IN ('QUEUED', 'FAILED')")
            .bind(status.name())
            .bind(sent_at)
            .bind(id.0)
            .execute(&mut *transaction)
            .await
            .map_err(store_error)?;
        transaction.commit().await
    }

    async fn email_failed(&self, id: EmailId, failed: &FailedTry) -> Result<(), StoreError> {
        let status = if failed.retry_at.is_some() { EmailStatus::Queued } else { EmailStatus::Failed };
        let mut transaction = self.begin().await?;
        sqlx::query(
            "UPDATE emails SET status = $1, last_error = $2, due_at = coalesce($3, due_at), unanswered = $4 \
             WHERE id = $5 AND status = 'QUEUED' AND attempts = $6",
        )
        .bind(status.name())
        .bind(&failed.error)
        .bind(failed.retry_at.map(|at| at.0))
        .bind(failed.unanswered)
        .bind(id.0)
        .bind(failed.attempt)
        .execute(&mut *transaction)
        .await
        .map_err(store_error)?;
        transaction.commit().await
    }
}

/// Writes a mail that is due from the moment it was made.
pub(super) async fn insert_email(connection: &mut SqliteConnection, mail: &NewEmail) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO emails (id, sender, recipient, subject, body, html, source, status, due_at, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)",
    )
    .bind(mail.id.0)
    .bind(&mail.sender)
    .bind(&mail.recipient)
    .bind(&mail.subject)
    .bind(&mail.body)
    .bind(&mail.html)
    .bind(&mail.source)
    .bind(mail.status.name())
    .bind(mail.created_at.0)
    .execute(connection)
    .await
    .map_err(store_error)?;
    Ok(())
}
