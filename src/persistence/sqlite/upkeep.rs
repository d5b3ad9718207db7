//! What keeps the store itself in order, in SQLite.

use std::sync::PoisonError;

use async_trait::async_trait;

use crate::persistence::census::{CENSUS, Census, CensusRow, PoolUse, pool_use};
use crate::persistence::forget::{CONCERNS, CutOffs, FORGOTTEN_AT_ONCE, Forgotten};
use crate::persistence::records::Verdict;
use crate::persistence::{StoreError, Upkeep};

use super::error::store_error;
use super::{SqliteStore, check};

#[async_trait]
impl Upkeep for SqliteStore {
    /// Reads a page of the file: an answer from memory would say nothing.
    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT count(*) FROM secrets").execute(&self.readers).await.map_err(store_error)?;
        Ok(())
    }

    fn is_shared(&self) -> bool {
        false
    }

    async fn check(&self) -> Result<Vec<Verdict>, StoreError> {
        let mut transaction = self.readers.begin().await.map_err(store_error)?;
        let verdicts = check::verdicts(&mut transaction).await?;
        transaction.rollback().await.map_err(store_error)?;
        Ok(verdicts)
    }

    async fn forget(&self, cut_offs: &CutOffs) -> Result<Forgotten, StoreError> {
        let mut forgotten = Forgotten::default();
        for concern in &CONCERNS {
            let before = (concern.cut_off)(cut_offs);
            let mut transaction = self.begin().await?;
            let mut removed = 0;
            for statement in concern.statements {
                removed = sqlx::query(*statement)
                    .bind(before.0)
                    .bind(FORGOTTEN_AT_ONCE)
                    .execute(&mut *transaction)
                    .await
                    .map_err(store_error)?
                    .rows_affected();
            }
            transaction.commit().await?;
            forgotten.add(removed);
        }
        Ok(forgotten)
    }

    async fn census(&self) -> Result<Census, StoreError> {
        let row: CensusRow = sqlx::query_as(CENSUS).fetch_one(&self.readers).await.map_err(store_error)?;
        Ok(row.into())
    }

    fn pool_use(&self) -> PoolUse {
        pool_use(&self.readers)
    }

    /// The writing connection goes last: the last one to go copies the log into the database. The folder is free
    /// for another server afterwards.
    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

#[cfg(test)]
mod tests {
    use sqlx::AssertSqlSafe;

    use super::*;
    use crate::persistence::clock::Clock;
    use crate::persistence::sqlite::SqliteOptions;

    /// Tables that grow with the shop.
    const GROWING: [&str; 9] = [
        "emails",
        "logins",
        "idempotency_keys",
        "consumed_messages",
        "outbox",
        "dead_letters",
        "journal_batches",
        "codes",
        "refresh_tokens",
    ];

    #[tokio::test]
    async fn what_is_forgotten_is_found_by_an_index() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = SqliteOptions { folder: folder.path().to_owned(), readers: 1 };
        let store = SqliteStore::open(options, Clock::system()).await.expect("a store");
        let mut searched = Vec::new();
        for statement in CONCERNS.iter().flat_map(|concern| concern.statements) {
            let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
            let plan: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(explain).bind(0).bind(0).fetch_all(&store.readers).await.expect("a plan");
            for (.., step) in plan {
                let table = step.split(' ').nth(1).and_then(|name| GROWING.iter().find(|table| **table == name));
                if let Some(table) = table {
                    // The first change that waits is the first one of its index.
                    let first = step == "SCAN outbox USING INDEX outbox_waiting";
                    assert!(first || step.starts_with("SEARCH "), "{statement}: {step}");
                    searched.push(*table);
                }
            }
        }
        assert!(GROWING.iter().all(|table| searched.contains(table)), "{searched:?}");
        store.close().await;
    }

    #[tokio::test]
    async fn counting_what_is_in_hand_reads_no_history() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = SqliteOptions { folder: folder.path().to_owned(), readers: 1 };
        let store = SqliteStore::open(options, Clock::system()).await.expect("a store");
        let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {CENSUS}"));
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(explain).fetch_all(&store.readers).await.expect("a plan");
        let mut steps: Vec<&str> = plan.iter().map(|(_, _, _, step)| step.as_str()).collect();
        steps.retain(|step| step.starts_with("SCAN") || step.starts_with("SEARCH"));
        assert_eq!(
            steps,
            [
                "SCAN session USING COVERING INDEX cart_sessions_due",
                "SEARCH hold USING PRIMARY KEY (cart_key=?)",
                "SCAN cart_sessions USING COVERING INDEX cart_sessions_due",
                "SEARCH emails USING COVERING INDEX emails_age (status=?)",
            ]
        );
        store.close().await;
    }
}
