//! The journal's transaction on PostgreSQL.
//!
//! Most batches are written by one statement, which is a transaction of its own, in the expectation that things are as
//! the entries saw them (`expected.rs`); stock that nobody here knows, or that is only asked for, is read before it, without
//! a lock. Where the expectation does not hold, or can not be told, a transaction looks first, in four round trips: begin
//! with the batch's identifier; lock and read what the batch needs; write what it comes to; commit.
//!
//! The identifier comes first, so that a batch which is handed in again because its commit was not answered waits for
//! the earlier try to end, and then finds out what became of it. Between locks and commit other servers wait, so what
//! the plan says stays true until it is written; the statements name what was seen all the same, and count the rows.

use std::collections::BTreeSet;

use async_trait::async_trait;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::domain::ids::{IdMap, InventoryId};
use crate::domain::timestamp::Timestamp;
use crate::persistence::clock::Clock;
use crate::persistence::entry::{Committed, Work};
use crate::persistence::plan::{InventoryRow, Needs, Plan};
use crate::persistence::{CommitError, Journal, StoreError};

use super::PostgresStore;
use super::error::{Answer, commit_error, is_conflict, is_refusal, store_error, violated_rule};
use super::seat::Seat;
use super::{snapshot, write};

/// Tries of a batch that is rolled back for the sake of other servers' transactions.
const TRIES_MAX: u32 = 5;
/// The rule that a batch is committed once.
const BATCH_ONCE: &str = "journal_batches_pkey";
/// Rules whose violation means that another server did the same thing at the same time: at the next try the batch
/// sees what that one wrote.
const OVERTAKEN: [&str; 2] = ["idempotency_keys_once", "consumed_messages_once"];

/// Why a try of a batch came to nothing, or to nobody knows what.
pub(super) enum Stopped {
    /// The batch's identifier is there.
    Known,
    /// The transaction did not begin, and whether the batch is there is not known.
    NotBegun(sqlx::Error),
    /// A statement before the commit failed: nothing was written.
    Statement(sqlx::Error),
    /// What is there is not what the program expects; nothing was written.
    Corrupt(String),
    /// The commit was refused: nothing was written.
    Refused(StoreError),
    /// The commit was not answered.
    Unknown(Committed, sqlx::Error),
}

impl From<sqlx::Error> for Stopped {
    fn from(error: sqlx::Error) -> Self {
        Self::Statement(error)
    }
}

#[async_trait]
impl Journal for PostgresStore {
    async fn commit(&self, batch: Uuid, works: &[Work]) -> Result<Committed, CommitError> {
        let needs = Needs::of(works);
        let mut seat = self.journal.sit().await.map_err(CommitError::NotCommitted)?;
        if let Some(outcome) = self.commit_at_once(&mut seat, batch, works, &needs).await {
            return outcome;
        }
        let mut tries = 1;
        loop {
            let (mut connection, kept) = seat.take().await.map_err(CommitError::NotCommitted)?;
            let stopped = match attempt(&mut connection, batch, works, &needs, &self.clock).await {
                Ok(plan) => {
                    seat.expectation.committed(&plan);
                    seat.keep(connection);
                    return Ok(plan.into_committed());
                }
                Err(stopped) => stopped,
            };
            seat.expectation.forget();
            let alive = is_answer(&stopped) && roll_back(&mut connection).await.is_ok();
            if alive {
                seat.keep(connection);
            }
            // A connection that was kept may have been lost long ago; on a new one nobody need know.
            if tries < TRIES_MAX && (deserves_another_try(&stopped) || (kept && !alive && is_before_commit(&stopped))) {
                tries += 1;
                continue;
            }
            return Err(told(stopped));
        }
    }
}

impl PostgresStore {
    /// Commits the batch by one statement. `None` when it is to be done by looking first; nothing was written then.
    async fn commit_at_once(
        &self,
        seat: &mut Seat,
        batch: Uuid,
        works: &[Work],
        needs: &Needs,
    ) -> Option<Result<Committed, CommitError>> {
        if !seat.expectation.is_trusted() || works.iter().all(|work| matches!(work, Work::Load(_))) {
            return None;
        }
        let unread = seat.expectation.unread(works);
        let read = if unread.is_empty() { IdMap::default() } else { self.read_stock(seat, unread).await? };
        let (expected, found) = seat.expectation.of(works, needs, read, self.clock.now())?;
        let plan = Plan::of(works, found);
        // A refusal is not to rest on what was only expected.
        if plan.refuses() {
            return None;
        }
        let (mut connection, _) = match seat.take().await {
            Ok(taken) => taken,
            Err(error) => return Some(Err(CommitError::NotCommitted(error))),
        };
        match write::write_at_once(&mut connection, batch, &expected, &plan).await {
            Ok(now) => {
                self.clock.learn_at_least(now);
                seat.expectation.committed(&plan);
                seat.keep(connection);
                Some(Ok(plan.into_committed()))
            }
            Err(error) if is_refusal(&error) => {
                seat.expectation.failed();
                seat.keep(connection);
                let known = violated_rule(&error).is_some_and(|rule| rule == BATCH_ONCE);
                known.then_some(Err(CommitError::AlreadyCommitted))
            }
            Err(source) => {
                seat.expectation.forget();
                Some(Err(CommitError::Unknown { planned: plan.into_committed(), source }))
            }
        }
    }

    /// Reads what is in stock, without a lock: whoever relies on it names what they saw. `None` when it can not be read here.
    async fn read_stock(
        &self,
        seat: &mut Seat,
        inventories: BTreeSet<InventoryId>,
    ) -> Option<IdMap<InventoryId, InventoryRow>> {
        let (mut connection, _) = seat.take().await.ok()?;
        let needs = Needs { inventories, ..Needs::default() };
        let Ok(found) = snapshot::read(&mut connection, &needs, false, &self.clock).await else {
            seat.expectation.forget();
            return None;
        };
        seat.keep(connection);
        Some(found.inventories)
    }
}

/// One try of a batch, from its beginning to its commit.
async fn attempt<'w>(
    connection: &mut PgConnection,
    batch: Uuid,
    works: &'w [Work],
    needs: &Needs,
    clock: &Clock,
) -> Result<Plan<'w>, Stopped> {
    if works.iter().all(|work| matches!(work, Work::Load(_))) {
        let found = snapshot::read(connection, needs, false, clock).await?;
        return Ok(Plan::of(works, found));
    }
    begin(connection, batch, clock.now()).await?;
    let found = snapshot::read(connection, needs, true, clock).await?;
    let plan = Plan::of(works, found);
    if plan.is_empty() {
        roll_back(connection).await?;
        return Ok(plan);
    }
    write::write(connection, &plan).await?;
    match sqlx::raw_sql("COMMIT").execute(connection).in_time().await.map_err(commit_error) {
        Ok(_) => Ok(plan),
        Err(StoreError::Unknown(source)) => Err(Stopped::Unknown(plan.into_committed(), source)),
        Err(error) => Err(Stopped::Refused(error)),
    }
}

/// Begins, and writes the batch's identifier, which waits for the end of an earlier try that is still under way.
async fn begin(connection: &mut PgConnection, batch: Uuid, now: Timestamp) -> Result<(), Stopped> {
    // Two statements in one message: so neither takes a parameter; an identifier and a number are safe as text.
    let Timestamp(at) = now;
    let statements = format!("BEGIN; INSERT INTO journal_batches (id, at) VALUES ('{batch}', {at})");
    let begun = sqlx::raw_sql(AssertSqlSafe(statements)).execute(connection).in_time().await;
    begun.map(|_| ()).map_err(|error| match violated_rule(&error) {
        Some(rule) if rule == BATCH_ONCE => Stopped::Known,
        Some(_) | None => Stopped::NotBegun(error),
    })
}

async fn roll_back(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("ROLLBACK").execute(connection).in_time().await.map(|_| ())
}

/// Whether the server has said something, so that the connection may still be in order.
fn is_answer(stopped: &Stopped) -> bool {
    match stopped {
        Stopped::Known | Stopped::Corrupt(_) | Stopped::Refused(_) => true,
        Stopped::NotBegun(error) | Stopped::Statement(error) => error.as_database_error().is_some(),
        Stopped::Unknown(..) => false,
    }
}

fn is_before_commit(stopped: &Stopped) -> bool {
    match stopped {
        Stopped::NotBegun(_) | Stopped::Statement(_) => true,
        Stopped::Known | Stopped::Corrupt(_) | Stopped::Refused(_) | Stopped::Unknown(..) => false,
    }
}

/// Whether others were in the way who are not any more.
fn deserves_another_try(stopped: &Stopped) -> bool {
    match stopped {
        Stopped::Statement(error) | Stopped::NotBegun(error) => {
            is_conflict(error) || violated_rule(error).is_some_and(|rule| OVERTAKEN.contains(&rule.as_str()))
        }
        Stopped::Refused(StoreError::Unavailable(error)) => is_conflict(error),
        Stopped::Known | Stopped::Corrupt(_) | Stopped::Refused(_) | Stopped::Unknown(..) => false,
    }
}

fn told(stopped: Stopped) -> CommitError {
    match stopped {
        Stopped::Known => CommitError::AlreadyCommitted,
        // Whatever the reason: an earlier try of the batch may have been committed.
        Stopped::NotBegun(error) => CommitError::NotCommitted(StoreError::Unavailable(error)),
        Stopped::Statement(error) => CommitError::NotCommitted(store_error(error)),
        Stopped::Corrupt(what) => CommitError::NotCommitted(StoreError::Corrupt(what)),
        Stopped::Refused(error) => CommitError::NotCommitted(error),
        Stopped::Unknown(planned, source) => CommitError::Unknown { planned, source },
    }
}
