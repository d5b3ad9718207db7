//! The one connection that writes.
//!
//! SQLite takes one writer at a time, so there is one, and who wants to write waits in a fair queue. Whoever drops a
//! transaction without committing it, at whatever point, leaves nothing behind: the next one begins with a rollback,
//! or on a new connection when the old one can not be trusted any more.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

use crate::persistence::StoreError;

use super::error::{commit_error, store_error};

/// Takes the write lock at once: a transaction that reads first and writes later would be refused when another one
/// wrote between (`SQLITE_BUSY`).
const BEGIN: &str = "BEGIN IMMEDIATE";

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
        let seat = tokio::time::timeout(self.wait_max, self.seat.lock())
            .await
            .map_err(|_| StoreError::Unavailable(sqlx::Error::PoolTimedOut))?;
        let mut connection = MutexGuard::try_map(seat, Option::as_mut)
            .map_err(|_closed| StoreError::Unavailable(sqlx::Error::PoolClosed))?;
        let left_open = self.unfinished.swap(true, Ordering::AcqRel);
        let begun = match left_open {
            true => begin_anew(&mut connection).await,
            false => execute(&mut connection, BEGIN).await,
        };
        if let Err(error) = begun {
            tracing::warn!(%error, "the writing connection is replaced");
            *connection = self.options.connect().await.map_err(store_error)?;
            execute(&mut connection, BEGIN).await.map_err(store_error)?;
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

/// Ends what a dropped transaction left, and begins anew. SQLite may have rolled back by itself after an error; it
/// then says that there is nothing to roll back, which is as good.
async fn begin_anew(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    if let Err(error) = execute(connection, "ROLLBACK").await
        && error.as_database_error().is_none()
    {
        return Err(error);
    }
    execute(connection, BEGIN).await
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
        self.unfinished.store(false, Ordering::Release);
        Ok(())
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
