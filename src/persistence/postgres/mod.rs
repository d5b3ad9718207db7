//! The store on PostgreSQL 15 and later: one database that several servers may share.
//!
//! A pool of connections reads and makes small changes; the journal has a connection of its own. Whoever changes a
//! row that others change too takes its lock first. Each file here implements one trait of
//! [`persistence`](super).

mod accounts;
mod carts;
mod catalogue;
mod check;
mod error;
mod expected;
mod inventories;
mod journal;
mod mail;
mod orders;
mod outbox;
mod seat;
mod session;
mod snapshot;
mod statement;
mod together;
mod upkeep;
mod write;

use std::ops::{Deref, DerefMut};
use std::str::FromStr;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Postgres, Transaction};

use super::StoreError;
use super::clock::Clock;
use super::rows::{InventoryRow, ProductRow};
use error::{Answer, commit_error};
use seat::JournalSeat;
use together::Together;

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// The oldest server that this program's statements run on, as its `server_version_num`.
const SERVER_VERSION_MIN: u32 = 150_000;

/// Where the database is, and how much of the server it may take.
#[derive(Clone)]
pub struct PostgresOptions {
    /// `postgres://user:password@host:port/database`, with the parameters that libpq knows. A secret.
    pub url: String,
    /// Connections beside the journal's own, 1 or more.
    pub pool: u32,
}

impl PostgresOptions {
    /// Options, when `url` is an address that can be read.
    #[must_use]
    pub fn of(url: &str, pool: u32) -> Option<Self> {
        PgConnectOptions::from_str(url).ok().map(|_| Self { url: url.to_owned(), pool })
    }

    /// Which database it is, to be shown: without user and password.
    #[must_use]
    pub fn place(&self) -> String {
        PgConnectOptions::from_str(&self.url).map_or_else(|_| String::new(), |options| place(&options))
    }
}

/// Why a store could not be opened. No variant shows the address, which may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address can not be read.
    #[error("the database's address can not be read: {0}")]
    Address(#[source] sqlx::Error),
    /// The server can not be reached, or does not let us in.
    #[error("the database {place} can not be opened: {source}")]
    Unreachable {
        /// Host, port and database.
        place: String,
        /// What the server or the system says.
        source: sqlx::Error,
    },
    /// The server is too old.
    #[error("the database {place} is on a server of version {version}; it must be PostgreSQL 15 or later")]
    TooOld {
        /// Host, port and database.
        place: String,
        /// What the server calls its version.
        version: u32,
    },
    /// The database is not one that this program's version knows how to read.
    #[error("the database {place} is of another version of storekeeper")]
    OtherVersion {
        /// Host, port and database.
        place: String,
    },
    /// The database can not be brought up to date.
    #[error("the database {place} can not be brought up to date: {source}")]
    Migration {
        /// Host, port and database.
        place: String,
        /// What does not fit.
        source: MigrateError,
    },
}

/// The store on PostgreSQL.
#[derive(Debug)]
pub struct PostgresStore {
    pool: PgPool,
    product_rows: Together<ProductRow>,
    inventory_rows: Together<InventoryRow>,
    journal: JournalSeat,
    clock: Clock,
}

impl PostgresStore {
    /// Opens a database and brings its schema up to date. Servers that start at the same time wait for each other
    /// there; the first one does it. `clock` learns the database's time.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(options: PostgresOptions, clock: Clock) -> Result<Self, OpenError> {
        let connect = connect_options(&options.url)?;
        migrate(&connect).await?;
        let pool = session::pool(&connect, options.pool);
        Ok(Self::of(pool, JournalSeat::new(connect), clock))
    }

    /// Opens a database to verify it, beside servers that may be at work on it.
    ///
    /// # Errors
    /// [`OpenError`]; [`OpenError::OtherVersion`] when the schema is another than this program's.
    pub async fn open_snapshot(options: PostgresOptions) -> Result<Self, OpenError> {
        let connect = connect_options(&options.url)?;
        let place = place(&connect);
        let mut connection = first_connection(&connect).await?;
        let current = is_current(&mut connection).await;
        if !current.map_err(|source| OpenError::Unreachable { place: place.clone(), source })? {
            return Err(OpenError::OtherVersion { place });
        }
        let pool = session::pool(&connect, 1);
        Ok(Self::of(pool, JournalSeat::closed(), Clock::system()))
    }

    fn of(pool: PgPool, journal: JournalSeat, clock: Clock) -> Self {
        let product_rows = Together::new(&pool, "SELECT * FROM products WHERE id = ANY($1)");
        let inventory_rows = Together::new(&pool, "SELECT * FROM inventories WHERE id = ANY($1)");
        Self { pool, product_rows, inventory_rows, journal, clock }
    }

    /// Begins a transaction on a connection of the pool.
    async fn begin(&self) -> Result<WriteTransaction, StoreError> {
        Ok(WriteTransaction(self.pool.begin().answered().await?))
    }
}

/// A transaction on a connection of the pool. Dropped without [`commit`](Self::commit), it leaves nothing.
struct WriteTransaction(Transaction<'static, Postgres>);

impl WriteTransaction {
    /// Makes it durable.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] when it may have happened all the same; any other error means that it did not.
    async fn commit(self) -> Result<(), StoreError> {
        self.0.commit().in_time().await.map_err(commit_error)
    }
}

impl Deref for WriteTransaction {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.0
    }
}

impl DerefMut for WriteTransaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0
    }
}

fn connect_options(url: &str) -> Result<PgConnectOptions, OpenError> {
    let options = PgConnectOptions::from_str(url).map_err(OpenError::Address)?;
    Ok(options.application_name("storekeeper").disable_statement_logging())
}

/// Host, port and database, to be shown.
fn place(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or_else(|| options.get_username());
    match options.get_socket() {
        Some(socket) => format!("{database} at {}", socket.display()),
        None => format!("{database} at {}:{}", options.get_host(), options.get_port()),
    }
}

/// Connects for the first time, and sees whether the server will do.
async fn first_connection(options: &PgConnectOptions) -> Result<PgConnection, OpenError> {
    let unreachable = |source| OpenError::Unreachable { place: place(options), source };
    let connection = options.connect().in_time().await.map_err(unreachable)?;
    match connection.server_version_num() {
        Some(version) if version < SERVER_VERSION_MIN => Err(OpenError::TooOld { place: place(options), version }),
        Some(_) | None => Ok(connection),
    }
}

/// Brings the schema up to date, under an advisory lock that sqlx takes, on a pool of its own: statements of a
/// migration may take as long as they like, and the future of a migration on a borrowed connection can not be sent
/// between threads.
async fn migrate(options: &PgConnectOptions) -> Result<(), OpenError> {
    drop(first_connection(options).await?);
    let unreachable = |source| OpenError::Unreachable { place: place(options), source };
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options.clone()).await.map_err(unreachable)?;
    let migrated = MIGRATIONS.run(&pool).await;
    pool.close().await;
    migrated.map_err(|source| OpenError::Migration { place: place(options), source })
}

/// Whether the database has had exactly the migrations that this program knows.
async fn is_current(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let any: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .in_time()
        .await?;
    if !any {
        return Ok(false);
    }
    let had: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations WHERE success ORDER BY version")
            .fetch_all(connection)
            .in_time()
            .await?;
    let known = MIGRATIONS.iter().map(|migration| (migration.version, &*migration.checksum));
    Ok(known.eq(had.iter().map(|(version, checksum)| (*version, &checksum[..]))))
}
