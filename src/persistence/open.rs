//! Opens the store that is configured, whichever it is.

use std::sync::Arc;

use super::SharedStore;
use super::clock::Clock;
use super::postgres::{self, PostgresOptions, PostgresStore};
use super::sqlite::{self, SqliteOptions, SqliteStore};

/// Where the database is, and how much it may take.
#[derive(Clone)]
pub enum StoreOptions {
    /// A folder of this machine.
    Sqlite(SqliteOptions),
    /// A server's database, which others may share.
    Postgres(PostgresOptions),
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A folder of this machine.
    #[error(transparent)]
    Sqlite(#[from] sqlite::OpenError),
    /// A server's database.
    #[error(transparent)]
    Postgres(#[from] postgres::OpenError),
}

/// Opens the database, making it or bringing its schema up to date where that is needed.
///
/// # Errors
/// [`OpenError`].
pub async fn open(options: StoreOptions, clock: Clock) -> Result<SharedStore, OpenError> {
    // Boxed: done once, and else every caller's future would have room for both.
    Ok(match options {
        StoreOptions::Sqlite(options) => Arc::new(Box::pin(SqliteStore::open(options, clock)).await?),
        StoreOptions::Postgres(options) => Arc::new(Box::pin(PostgresStore::open(options, clock)).await?),
    })
}

/// Opens the database to verify it, beside servers that may be at work on it.
///
/// # Errors
/// [`OpenError`].
pub async fn open_snapshot(options: StoreOptions) -> Result<SharedStore, OpenError> {
    Ok(match options {
        StoreOptions::Sqlite(options) => Arc::new(Box::pin(SqliteStore::open_snapshot(&options.folder)).await?),
        StoreOptions::Postgres(options) => Arc::new(Box::pin(PostgresStore::open_snapshot(options)).await?),
    })
}
