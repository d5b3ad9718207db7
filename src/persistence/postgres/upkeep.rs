//! What keeps the store itself in order, in PostgreSQL.

use async_trait::async_trait;

use crate::domain::timestamp::Timestamp;
use crate::persistence::census::{CENSUS, Census, CensusRow, PoolUse, pool_use};
use crate::persistence::forget::{FORGET, FORGOTTEN_AT_ONCE};
use crate::persistence::records::Verdict;
use crate::persistence::{StoreError, Upkeep};

use super::error::Answer;
use super::{PostgresStore, check};

#[async_trait]
impl Upkeep for PostgresStore {
    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT count(*) FROM secrets").execute(&self.pool).answered().await?;
        Ok(())
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn check(&self) -> Result<Vec<Verdict>, StoreError> {
        let mut transaction = self.begin().await?;
        let verdicts = check::verdicts(&mut transaction).await?;
        transaction.commit().await?;
        Ok(verdicts)
    }

    async fn forget(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut forgotten = 0;
        for statement in FORGET {
            loop {
                let mut transaction = self.begin().await?;
                let removed = sqlx::query(statement)
                    .bind(before.0)
                    .bind(i64::from(FORGOTTEN_AT_ONCE))
                    .execute(&mut *transaction)
                    .answered()
                    .await?
                    .rows_affected();
                transaction.commit().await?;
                forgotten += removed;
                if removed < u64::from(FORGOTTEN_AT_ONCE) {
                    break;
                }
            }
        }
        Ok(forgotten)
    }

    async fn census(&self) -> Result<Census, StoreError> {
        let row: CensusRow = sqlx::query_as(CENSUS).fetch_one(&self.pool).answered().await?;
        Ok(row.into())
    }

    fn pool_use(&self) -> PoolUse {
        pool_use(&self.pool)
    }

    async fn close(&self) {
        self.journal.close().await;
        self.pool.close().await;
    }
}
