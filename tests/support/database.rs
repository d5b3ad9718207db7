//! The database of a test's shop: the one place that says which kind it is.
//!
//! SQLite in a folder; PostgreSQL where `TEST_BACKEND` is `postgres`, and where it is `real`, for every real service.

use std::path::Path;

use storekeeper::config::{Config, StoreConfig};
use storekeeper::persistence::open::open_snapshot;
use storekeeper::persistence::postgres::PostgresOptions;
use storekeeper::persistence::records::Verdict;
use tempfile::TempDir;

use super::postgres;

/// Says which kind of database the tests' shops have.
const BACKEND: &str = "TEST_BACKEND";
/// Connections of a test's shop to PostgreSQL, beside the journal's: many shops share one server.
const POOL: u32 = 6;

/// What the tests' shops stand on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// SQLite, and nothing else.
    Sqlite,
    /// PostgreSQL, and nothing else.
    Postgres,
    /// PostgreSQL, Redis, RabbitMQ and a mail server.
    Real,
}

impl Backend {
    /// What the environment says.
    pub(crate) fn of_the_tests() -> Self {
        match std::env::var(BACKEND).as_deref() {
            Err(_) | Ok("sqlite") => Self::Sqlite,
            Ok("postgres") => Self::Postgres,
            Ok("real") => Self::Real,
            Ok(other) => panic!("{BACKEND} is {other:?}: it must be sqlite, postgres or real"),
        }
    }
}

/// A database of a test's own, which goes with it.
pub(crate) enum Database {
    /// In a folder.
    Sqlite(TempDir),
    /// On a server.
    Postgres(postgres::Database),
}

impl Database {
    /// An empty one.
    pub(crate) fn new() -> Self {
        match Backend::of_the_tests() {
            Backend::Sqlite => Self::Sqlite(tempfile::tempdir().expect("a folder")),
            Backend::Postgres | Backend::Real => Self::Postgres(postgres::Database::new()),
        }
    }

    /// The configuration of a shop on it.
    pub(crate) fn config(&self) -> Config {
        let usable =
            |folder: &Path| Config::embedded(folder).unwrap_or_else(|error| panic!("the defaults are usable: {error}"));
        match self {
            Self::Sqlite(folder) => usable(folder.path()),
            Self::Postgres(database) => {
                let mut config = usable(Path::new("unused"));
                let options = PostgresOptions::of(&database.url, POOL).expect("an address");
                config.store = StoreConfig::Postgres(options);
                config
            }
        }
    }

    /// Opens it beside nobody, and sees to it that no rule of the books is broken.
    pub(crate) async fn assert_in_order(&self) {
        let store = open_snapshot(self.config().store.options(1)).await.expect("the database opens to read");
        let verdicts = store.check().await.expect("the books can be read");
        store.close().await;
        let broken: Vec<&Verdict> = verdicts.iter().filter(|verdict| verdict.broken_count > 0).collect();
        assert!(!verdicts.is_empty() && broken.is_empty(), "the books are not in order: {broken:#?}");
    }
}
