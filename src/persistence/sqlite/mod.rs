//! The store on SQLite: one file in one folder, for a shop on one machine.
//!
//! One connection writes, a pool of others reads; the log is written ahead (WAL) and synced at each commit, so what
//! is acknowledged survives the loss of power. The folder is locked for as long as a server has it. Each file here
//! implements one trait of [`persistence`](super).

mod accounts;
pub mod backup;
mod carts;
mod catalogue;
mod check;
mod error;
mod inventories;
mod journal;
mod mail;
mod orders;
mod outbox;
mod packed;
mod upkeep;
mod write;
mod writer;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use serde::de::DeserializeOwned;
use sqlx::ConnectOptions;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};

use uuid::Uuid;

use super::StoreError;
use super::clock::Clock;
use super::memory::Memory;
use writer::{WriteTransaction, Writer};

/// The database's file within the folder.
const DATABASE_FILE: &str = "storekeeper.sqlite";
/// The file that the server on a folder holds a lock on.
const LOCK_FILE: &str = "storekeeper.lock";
/// How long a caller waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long SQLite waits for another process's lock. Only a backup tool or a shell could hold one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// Where the database is, and how much of the machine it may take.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// The folder of the database; made with its parents when it is missing.
    pub folder: PathBuf,
    /// Connections that read, 1 or more.
    pub readers: u32,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder or a file in it can not be made or opened.
    #[error("can not use the data folder {}: {source}", folder.display())]
    Folder {
        /// Which folder.
        folder: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another server has the folder.
    #[error("the data folder {} is in use by another storekeeper", folder.display())]
    Locked {
        /// Which folder.
        folder: PathBuf,
    },
    /// There is no database in the folder.
    #[error("there is no database in {}", folder.display())]
    NoDatabase {
        /// Which folder.
        folder: PathBuf,
    },
    /// The database is not one that this program's version knows how to read.
    #[error("the database in {} is of another version of storekeeper", folder.display())]
    OtherVersion {
        /// Which folder.
        folder: PathBuf,
    },
    /// The database can not be brought up to date.
    #[error("the database in {} can not be brought up to date: {source}", folder.display())]
    Migration {
        /// Which folder.
        folder: PathBuf,
        /// What does not fit.
        source: MigrateError,
    },
    /// The database did not open.
    #[error("the database in {} can not be opened: {source}", folder.display())]
    Database {
        /// Which folder.
        folder: PathBuf,
        /// What the database says.
        source: sqlx::Error,
    },
}

/// The store on SQLite.
#[derive(Debug)]
pub struct SqliteStore {
    readers: SqlitePool,
    writer: Writer,
    clock: Clock,
    /// What the journal knows without looking.
    memory: Mutex<Memory>,
    /// Holds the lock on the folder until the store is closed.
    lock: Mutex<Option<File>>,
}

impl SqliteStore {
    /// Opens the database of a folder, making it where it is missing and bringing its schema up to date.
    /// `clock` is what the database's time is read from: on one machine, that machine's.
    ///
    /// # Errors
    /// [`OpenError`]; a folder that another server has is [`OpenError::Locked`].
    pub async fn open(options: SqliteOptions, clock: Clock) -> Result<Self, OpenError> {
        let SqliteOptions { folder, readers } = options;
        let lock = lock_folder(&folder)?;
        let database = |source| OpenError::Database { folder: folder.clone(), source };

        let writing = connect_options(&folder).create_if_missing(true).journal_mode(SqliteJournalMode::Wal);
        migrate(&folder, &writing).await?;
        let connection = writing.connect().await.map_err(database)?;
        let readers = reading_pool(&folder, readers).await.map_err(database)?;
        let writer = Writer::new(connection, writing, ACQUIRE_TIMEOUT);
        Ok(Self { readers, writer, clock, memory: Mutex::default(), lock: Mutex::new(Some(lock)) })
    }

    /// Opens the database of a folder to read only, beside a server that may be at work on it.
    ///
    /// # Errors
    /// [`OpenError`]; [`OpenError::OtherVersion`] when the schema is another than this program's.
    pub async fn open_snapshot(folder: &Path) -> Result<Self, OpenError> {
        let folder = folder.to_owned();
        if !folder.join(DATABASE_FILE).is_file() {
            return Err(OpenError::NoDatabase { folder });
        }
        let database = |source| OpenError::Database { folder: folder.clone(), source };
        let readers = reading_pool(&folder, 1).await.map_err(database)?;
        if !is_current(&readers).await.map_err(database)? {
            return Err(OpenError::OtherVersion { folder });
        }
        Ok(Self {
            readers,
            writer: Writer::closed(),
            clock: Clock::system(),
            memory: Mutex::default(),
            lock: Mutex::new(None),
        })
    }

    /// Begins a transaction on the one connection that writes.
    async fn begin(&self) -> Result<WriteTransaction<'_>, StoreError> {
        self.writer.begin().await
    }
}

/// Brings the schema up to date, on a pool of its own: the future of a migration on a borrowed connection can not be
/// sent between threads.
async fn migrate(folder: &Path, options: &SqliteConnectOptions) -> Result<(), OpenError> {
    let database = |source| OpenError::Database { folder: folder.to_owned(), source };
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await.map_err(database)?;
    let migrated = MIGRATIONS.run(&pool).await;
    pool.close().await;
    migrated.map_err(|source| OpenError::Migration { folder: folder.to_owned(), source })
}

/// What all connections have in common. Pages are not mapped into memory: an unreadable one shall be an error, not
/// a signal that ends the server.
fn connect_options(folder: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(folder.join(DATABASE_FILE))
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        // 16 MiB of log before it is copied into the database: hot pages are then copied once, not at each commit, and who waits
        // for the commit that does it waits for a few milliseconds, not for twenty.
        .pragma("wal_autocheckpoint", "4096")
        // What a slow reader made the log grow to is given back.
        .pragma("journal_size_limit", "134217728")
        // KiB of pages a connection keeps. More of them cost more than they save: as long as the database is smaller than 1 GiB, a
        // commit that has sorted the pages of an index looks through all that are kept (`sqlite3PcacheTruncate`).
        .pragma("cache_size", "-8192")
        .disable_statement_logging()
}

async fn reading_pool(folder: &Path, readers: u32) -> Result<SqlitePool, sqlx::Error> {
    SqlitePoolOptions::new()
        .max_connections(readers.max(1))
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_with(connect_options(folder).read_only(true))
        .await
}

/// Whether the database has had exactly the migrations that this program knows.
async fn is_current(readers: &SqlitePool) -> Result<bool, sqlx::Error> {
    let had: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations WHERE success ORDER BY version")
            .fetch_all(readers)
            .await?;
    let known = MIGRATIONS.iter().map(|migration| (migration.version, &*migration.checksum));
    Ok(known.eq(had.iter().map(|(version, checksum)| (*version, &checksum[..]))))
}

/// Takes the folder for this process, for as long as the file lives. The lock ends with the process, however it ends.
fn lock_folder(folder: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::Folder { folder: folder.to_owned(), source };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let file = File::options().create(true).truncate(false).write(true).open(folder.join(LOCK_FILE)).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { folder: folder.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Identifiers as one JSON text, for `WHERE id IN (SELECT unhex(value) FROM json_each(…))`: one statement however
/// many there are.
fn json_of_ids(ids: impl Iterator<Item = Uuid>) -> String {
    serde_json::Value::from_iter(ids.map(|id| id.simple().to_string())).to_string()
}

/// Rows that a statement gives as one JSON text, an array of objects by the names of their columns, identifiers in hexadecimal
/// digits. Where there are many rows: each that a connection gives by itself is a message to whoever waits for it, and wakes them.
fn rows_of_json<T: DeserializeOwned>(text: &str) -> Result<Vec<T>, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Corrupt(format!("rows as JSON: {error}")))
}

/// Numbers as one JSON text, for `WHERE number IN (SELECT value FROM json_each(…))`.
fn json_of_numbers(numbers: &[i64]) -> String {
    serde_json::Value::from_iter(numbers.iter().copied()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a connection of the store says to `PRAGMA journal_mode, synchronous, foreign_keys`.
    async fn settings(connection: &mut sqlx::SqliteConnection) -> (String, i64, i64) {
        sqlx::query_as(
            "SELECT journal_mode, synchronous, foreign_keys \
             FROM pragma_journal_mode, pragma_synchronous, pragma_foreign_keys",
        )
        .fetch_one(connection)
        .await
        .expect("the settings")
    }

    #[tokio::test]
    async fn a_commit_is_synced_before_it_is_acknowledged() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = SqliteOptions { folder: folder.path().to_owned(), readers: 1 };
        let store = SqliteStore::open(options, Clock::system()).await.expect("a store");
        let synchronous_full = 2;
        let mut transaction = store.begin().await.expect("a turn");
        assert_eq!(settings(&mut transaction).await, ("wal".to_owned(), synchronous_full, 1));
        drop(transaction);
        let mut reader = store.readers.acquire().await.expect("a reader");
        assert_eq!(settings(&mut reader).await.0, "wal");
        let write = sqlx::query("DELETE FROM secrets").execute(&mut *reader).await.expect_err("it only reads");
        assert!(write.to_string().contains("readonly"), "{write}");
    }
}
