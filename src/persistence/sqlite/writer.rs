//! The one connection that writes.
//!
//! SQLite takes one writer at a time, so there is one, and who wants to write waits in a fair queue. Whoever drops a
//! transaction without committing it, at whatever point, leaves nothing behind: the next one begins with a rollback,
//! or on a new connection when the old one can not be trusted any more.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::query::{Query, QueryScalar};
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

use crate::persistence::StoreError;

use super::error::{commit_error, store_error, whole_error};

/// Takes the write lock at once: a transaction that reads first and writes later would be refused when another one
/// wrote between (`SQLITE_BUSY`).
pub(super) const BEGIN: &str = "BEGIN IMMEDIATE";

/// The one connection that writes, and the queue to it.
#[derive(Debug)]
pub(super) struct Writer {
    options: SqliteConnectOptions,
    seat: Mutex<Option<SqliteConnection>>,
    /// Whether the last transaction was left without a commit that succeeded.
    unfinished: AtomicBool,
    wait_max: Duration,
}

impl Writer {
    /// A writer on an open connection; `options` is how to open the next one when that is lost.
    pub(super) fn new(connection: SqliteConnection, options: SqliteConnectOptions, wait_max: Duration) -> Self {
        Self { options, seat: Mutex::new(Some(connection)), unfinished: AtomicBool::new(false), wait_max }
    }

    /// A writer that refuses everybody, for a store that only reads.
    pub(super) fn closed() -> Self {
        Self {
            options: SqliteConnectOptions::new(),
            seat: Mutex::new(None),
            unfinished: AtomicBool::new(false),
            wait_max: Duration::ZERO,
        }
    }

    /// Waits for its turn and begins a transaction that holds the write lock from the start (`BEGIN IMMEDIATE`),
    /// so that what it reads stays true until it commits.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the turn does not come in time, or after [`close`](Self::close).
    ///
    /// # Cancel safety
    /// May be dropped at any point; nothing stays open for the next one.
    pub(super) async fn begin(&self) -> Result<WriteTransaction<'_>, StoreError> {
        let mut turn = self.turn().await?;
        if let Err(error) = execute(&mut turn, BEGIN).await {
            tracing::warn!(%error, "the writing connection is replaced");
            *turn.connection = self.options.connect().await.map_err(store_error)?;
            execute(&mut turn, BEGIN).await.map_err(store_error)?;
        }
        Ok(turn)
    }

    /// Waits for its turn and runs statements that begin a transaction and commit it.
    ///
    /// # Errors
    /// As of [`begin`](Self::begin) and [`commit`](WriteTransaction::commit); [`StoreError::Corrupt`] when the statements
    /// stopped themselves. [`StoreError::Unknown`] can also be said of a transaction that did not come to its commit.
    ///
    /// # Cancel safety
    /// Dropped before its end, the transaction may have been committed or not; it is one of the two, and whole.
    pub(super) async fn write_whole(&self, statements: Query<'_, Sqlite, SqliteArguments>) -> Result<(), StoreError> {
        let mut turn = self.turn().await?;
        statements.execute(&mut *turn).await.map_err(whole_error)?;
        turn.end();
        Ok(())
    }

    /// As [`write_whole`](Self::write_whole); the statements give numbers too.
    pub(super) async fn write_whole_and_tell(
        &self,
        statements: QueryScalar<'_, Sqlite, i64, SqliteArguments>,
    ) -> Result<Vec<i64>, StoreError> {
        let mut turn = self.turn().await?;
        let told = statements.fetch_all(&mut *turn).await.map_err(whole_error)?;
        turn.end();
        Ok(told)
    }

    /// Waits for its turn, with nothing begun.
    async fn turn(&self) -> Result<WriteTransaction<'_>, StoreError> {
        let seat = tokio::time::timeout(self.wait_max, self.seat.lock())
            .await
            .map_err(|_| StoreError::Unavailable(sqlx::Error::PoolTimedOut))?;
        let mut connection = MutexGuard::try_map(seat, Option::as_mut)
            .map_err(|_closed| StoreError::Unavailable(sqlx::Error::PoolClosed))?;
        if self.unfinished.swap(true, Ordering::AcqRel)
            && let Err(error) = roll_back(&mut connection).await
        {
            tracing::warn!(%error, "the writing connection is replaced");
            *connection = self.options.connect().await.map_err(store_error)?;
        }
        Ok(WriteTransaction { connection, unfinished: &self.unfinished })
    }

    /// Closes the connection when the transaction under way has ended; what comes later is refused.
    pub(super) async fn close(&self) {
        let connection = self.seat.lock().await.take();
        if let Some(connection) = connection
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "the writing connection did not close in order");
        }
    }
}

async fn execute(connection: &mut SqliteConnection, statement: &'static str) -> Result<(), sqlx::Error> {
    sqlx::query(statement).execute(connection).await.map(|_| ())
}

/// Ends what a dropped transaction left. SQLite may have rolled back by itself after an error; it then says that there is
/// nothing to roll back, which is as good.
async fn roll_back(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    match execute(connection, "ROLLBACK").await {
        Err(error) if error.as_database_error().is_none() => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A transaction on the one connection that writes. Dropped without [`commit`](Self::commit), it leaves nothing.
#[derive(Debug)]
pub(super) struct WriteTransaction<'a> {
    connection: MappedMutexGuard<'a, SqliteConnection>,
    unfinished: &'a AtomicBool,
}

impl WriteTransaction<'_> {
    /// Makes it durable: when this returns, it survives the loss of power.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] when it may have been written all the same; any other error means that it was not.
    ///
    /// # Cancel safety
    /// Dropped before its end, the transaction may have been committed or not; it is one of the two, and whole.
    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        execute(&mut self.connection, "COMMIT").await.map_err(commit_error)?;
        self.end();
        Ok(())
    }

    /// It was committed: the next one has nothing to clear away.
    fn end(self) {
        self.unfinished.store(false, Ordering::Release);
    }
}

impl Deref for WriteTransaction<'_> {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.connection
    }
}

impl DerefMut for WriteTransaction<'_> {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use tempfile::TempDir;

    use super::*;

    async fn writer() -> (Writer, TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        let options = SqliteConnectOptions::new().filename(file).create_if_missing(true).pragma("synchronous", "OFF");
        let mut connection = options.connect().await.expect("a connection");
        execute(&mut connection, "CREATE TABLE notes (text TEXT)").await.expect("a table");
        (Writer::new(connection, options, Duration::from_secs(2)), folder)
    }

    async fn notes(transaction: &mut WriteTransaction<'_>) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM notes").fetch_one(&mut **transaction).await.expect("a count")
    }

    async fn note(writer: &Writer) -> Result<(), StoreError> {
        let mut transaction = writer.begin().await?;
        execute(&mut transaction, "INSERT INTO notes VALUES ('n')").await.map_err(store_error)?;
        transaction.commit().await
    }

    #[tokio::test]
    async fn a_dropped_transaction_leaves_nothing() {
        let (writer, _folder) = writer().await;
        let mut transaction = writer.begin().await.expect("a turn");
        execute(&mut transaction, "INSERT INTO notes VALUES ('n')").await.expect("a row");
        drop(transaction);
        assert_eq!(notes(&mut writer.begin().await.expect("a turn")).await, 0);
        note(&writer).await.expect("a commit");
        assert_eq!(notes(&mut writer.begin().await.expect("a turn")).await, 1);
    }

    /// Writes a note by statements that are the whole transaction.
    async fn note_at_once(writer: &Writer) -> Result<(), StoreError> {
        writer.write_whole(sqlx::query("BEGIN IMMEDIATE; INSERT INTO notes VALUES ('n'); COMMIT")).await
    }

    #[tokio::test]
    async fn statements_that_stop_themselves_leave_nothing() {
        let (writer, _folder) = writer().await;
        let counted = sqlx::query(
            "BEGIN IMMEDIATE; INSERT INTO notes VALUES ('n'); SELECT json(iif(changes() = 2, '1', 'no')); COMMIT",
        );
        let stopped = writer.write_whole(counted).await;
        assert!(matches!(stopped, Err(StoreError::Corrupt(_))), "{stopped:?}");
        note_at_once(&writer).await.expect("the next one is not disturbed");
        assert_eq!(notes(&mut writer.begin().await.expect("a turn")).await, 1);
    }

    #[tokio::test]
    async fn a_write_dropped_at_any_point_is_whole_or_not_there() {
        dropped_at_any_point(note).await;
        dropped_at_any_point(note_at_once).await;
    }

    async fn dropped_at_any_point(note: impl AsyncFn(&Writer) -> Result<(), StoreError>) {
        let (writer, _folder) = writer().await;
        let mut before = 0;
        for polls in 0..200 {
            {
                let mut dropped = pin!(note(&writer));
                let mut context = Context::from_waker(Waker::noop());
                for _ in 0..polls {
                    if dropped.as_mut().poll(&mut context).is_ready() {
                        break;
                    }
                    std::thread::yield_now();
                }
            }
            let after = notes(&mut writer.begin().await.expect("a turn")).await;
            assert!((before..=before + 1).contains(&after), "{before} and then {after} after {polls} polls");
            note(&writer).await.expect("the next one is not disturbed");
            before = after + 1;
        }
    }

    #[tokio::test]
    async fn what_sqlite_rolled_back_by_itself_does_not_disturb_the_next() {
        let (writer, _folder) = writer().await;
        let mut transaction = writer.begin().await.expect("a turn");
        execute(&mut transaction, "ROLLBACK").await.expect("as after an error of the disk");
        assert!(transaction.commit().await.is_err(), "there is nothing to commit");
        note(&writer).await.expect("a commit");
    }

    #[tokio::test]
    async fn a_full_disk_is_told_and_overcome() {
        let (writer, _folder) = writer().await;
        let mut transaction = writer.begin().await.expect("a turn");
        execute(&mut transaction, "PRAGMA max_page_count = 3").await.expect("a limit");
        let large = "INSERT INTO notes VALUES (hex(zeroblob(100000)))";
        let error = execute(&mut transaction, large).await.expect_err("no room");
        assert!(matches!(store_error(error), StoreError::Unavailable(_)));
        drop(transaction);
        let mut transaction = writer.begin().await.expect("a turn");
        execute(&mut transaction, "PRAGMA max_page_count = 1000").await.expect("a limit");
        execute(&mut transaction, large).await.expect("room");
        transaction.commit().await.expect("a commit");
    }

    #[tokio::test]
    async fn a_connection_of_no_use_is_replaced() {
        let (writer, _folder) = writer().await;
        let mut seat = writer.seat.lock().await;
        let connection = seat.as_mut().expect("a connection");
        execute(connection, "BEGIN").await.expect("a transaction that nobody knows of");
        drop(seat);
        note(&writer).await.expect("a commit on another connection");
        assert_eq!(notes(&mut writer.begin().await.expect("a turn")).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_does_not_come_is_not_waited_for() {
        let (writer, _folder) = writer().await;
        let held = writer.begin().await.expect("a turn");
        assert!(matches!(writer.begin().await, Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut))));
        drop(held);
        note(&writer).await.expect("a commit");
    }

    #[tokio::test]
    async fn nobody_begins_after_the_end() {
        let (writer, _folder) = writer().await;
        writer.close().await;
        assert!(matches!(writer.begin().await, Err(StoreError::Unavailable(sqlx::Error::PoolClosed))));
    }
}
