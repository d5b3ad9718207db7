//! What keeps the store itself in order, in SQLite.

use std::sync::PoisonError;

use async_trait::async_trait;

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

    /// The writing connection goes last: the last one to go copies the log into the database. The folder is free
    /// for another server afterwards.
    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
