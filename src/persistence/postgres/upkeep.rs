//! What keeps the store itself in order, in PostgreSQL.

use async_trait::async_trait;

use crate::persistence::census::{CENSUS, Census, CensusRow, PoolUse, pool_use};
use crate::persistence::forget::{CONCERNS, CutOffs, FORGOTTEN_AT_ONCE, Forgotten};
use crate::persistence::records::Verdict;
use crate::persistence::{StoreError, Upkeep};

use super::error::Answer;
use super::{PostgresStore, check};

/// With a concern's number, the lock that whoever forgets it holds. The number is the program's own, as good as any other.
const FORGET_LOCK: i32 = 0x5374_6f72;

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

    /// What another server is just removing is left to that one.
    async fn forget(&self, cut_offs: &CutOffs) -> Result<Forgotten, StoreError> {
        let mut forgotten = Forgotten::default();
        for (number, concern) in (0_i32..).zip(&CONCERNS) {
            let before = (concern.cut_off)(cut_offs);
            let mut transaction = self.begin().await?;
            let alone: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1, $2)")
                .bind(FORGET_LOCK)
                .bind(number)
                .fetch_one(&mut *transaction)
                .answered()
                .await?;
            if !alone {
                continue;
            }
            let mut removed = 0;
            for statement in concern.statements {
                removed = sqlx::query(*statement)
                    .bind(before.0)
                    .bind(i64::from(FORGOTTEN_AT_ONCE))
                    .execute(&mut *transaction)
                    .answered()
                    .await?
                    .rows_affected();
            }
            transaction.commit().await?;
            forgotten.add(removed);
        }
        Ok(forgotten)
    }

    async fn census(&self) -> Result<Census, StoreError> {
        // Planned anew each time: the plan of a statement without parameters is kept, and one that was made when the
        // tables were empty takes for ever after a burst.
        let row: CensusRow = sqlx::query_as(CENSUS).persistent(false).fetch_one(&self.pool).answered().await?;
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
