//! A shop full of products, made in one transaction: filling it through the API would take minutes. Product, inventory
//! and first ledger row have one number, from 0.

use std::path::Path;
use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};
use storekeeper::persistence::Upkeep;
use storekeeper::persistence::clock::Clock;
use storekeeper::persistence::postgres::{PostgresOptions, PostgresStore};
use storekeeper::persistence::sqlite::{SqliteOptions, SqliteStore};

/// A SQLite connection with the settings that the store's own has.
pub(crate) async fn connection(folder: &Path) -> SqliteConnection {
    connection_keeping(folder, 100).await
}

/// The same, which keeps so many prepared statements.
pub(crate) async fn connection_keeping(folder: &Path, statements: usize) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(folder.join("storekeeper.sqlite"))
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("wal_autocheckpoint", "4096")
        .pragma("cache_size", "-32768")
        .statement_cache_capacity(statements)
        .disable_statement_logging();
    options.connect().await.expect("the database opens")
}

/// Makes the SQLite database of a folder, or its tables where they are missing, with so many products and units of each in
/// stock.
pub(crate) async fn fill(folder: &Path, products: u64, units: i64) {
    let options = SqliteOptions { folder: folder.to_owned(), readers: 1 };
    SqliteStore::open(options, Clock::system()).await.expect("the database opens").close().await;
    let mut connection = connection(folder).await;
    let mut transaction = connection.begin().await.expect("a transaction");
    for statement in [
        "CREATE TEMP TABLE numbers AS WITH RECURSIVE count (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM count LIMIT ?1)
         SELECT n, unhex(printf('%032x', n)) AS id FROM count WHERE ?2 > 0",
        "INSERT INTO products SELECT id, 'SKU-' || n, 'sku-' || n, 'Tea ' || n, 'tea ' || n, NULL, 1999, 'PUBLISHED',
         id, 1, 0, 0 FROM numbers WHERE ?1 > 0 AND ?2 > 0",
        "INSERT INTO inventories SELECT id, id, 'SKU-' || n, ?2, 0, 1, id, 0 FROM numbers WHERE ?1 > 0",
        "INSERT INTO movements SELECT id, NULL, id, 1, 'initial', 'IN', ?2, ?2, 0, ?2, 0, NULL, NULL, NULL, 'bench', 0
         FROM numbers WHERE ?1 > 0",
    ] {
        let products = i64::try_from(products).expect("a small number");
        sqlx::query(statement).bind(products).bind(units).execute(&mut *transaction).await.expect("rows are written");
    }
    transaction.commit().await.expect("the shop is there");
    connection.close().await.expect("closed");
}

/// The same in a PostgreSQL database.
pub(crate) async fn fill_postgres(url: &str, products: u64, units: i64) {
    let options = PostgresOptions { url: url.to_owned(), pool: 1 };
    PostgresStore::open(options, Clock::system()).await.expect("the database opens").close().await;
    let options = PgConnectOptions::from_str(url).expect("an address").disable_statement_logging();
    let mut connection = options.connect().await.expect("the database opens");
    let mut transaction = connection.begin().await.expect("a transaction");
    for statement in [
        "CREATE TEMP TABLE numbers AS SELECT n, lpad(to_hex(n), 32, '0')::uuid AS id FROM generate_series(0, $1 - 1) n
         WHERE $2 > 0",
        "INSERT INTO products SELECT id, 'SKU-' || n, 'sku-' || n, 'Tea ' || n, 'tea ' || n, NULL, 1999, 'PUBLISHED',
         id, 1, 0, 0 FROM numbers WHERE $1 > 0 AND $2 > 0",
        "INSERT INTO inventories SELECT id, id, 'SKU-' || n, $2, 0, 1, id, 0 FROM numbers WHERE $1 > 0",
        "INSERT INTO movements SELECT id, NULL, id, 1, 'initial', 'IN', $2, $2, 0, $2, 0, NULL, NULL, NULL, 'bench', 0
         FROM numbers WHERE $1 > 0",
    ] {
        let products = i64::try_from(products).expect("a small number");
        sqlx::query(statement).bind(products).bind(units).execute(&mut *transaction).await.expect("rows are written");
    }
    transaction.commit().await.expect("the shop is there");
    sqlx::query("ANALYZE").execute(&mut connection).await.expect("the planner knows the tables");
    connection.close().await.expect("closed");
}
