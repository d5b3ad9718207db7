//! Where a server of a test is at home: a folder of its own, and services of the kind that the tests have.

use std::path::Path;

use sqlx::ConnectOptions;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use storekeeper::persistence::SharedStore;
use storekeeper::persistence::open::open_snapshot;
use tempfile::TempDir;

use crate::database::Database;
use crate::postgres::{self, connect};
use crate::services::Services;

/// A home that goes with the test.
pub(crate) struct Place {
    folder: TempDir,
    services: Services,
}

impl Place {
    /// One with new services of the kind that the tests have.
    pub(crate) async fn new() -> Self {
        Self { folder: folder(), services: Services::new().await }
    }

    /// One with a new database in its folder, and nothing else.
    pub(crate) fn embedded() -> Self {
        Self { folder: folder(), services: Services::alone(Database::Sqlite(folder())) }
    }

    /// One whose database several servers may share, whatever kind the tests have.
    pub(crate) async fn shared() -> Self {
        let database = Database::Postgres(postgres::Database::new());
        Self { folder: folder(), services: Services::beside(database).await }
    }

    /// The folder, which the server is started in.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of its database, where that is one of files.
    pub(crate) fn data_folder(&self) -> &Path {
        match &self.services.database {
            Database::Sqlite(folder) => folder.path(),
            Database::Postgres(database) => panic!("{} is not in a folder", database.name),
        }
    }

    /// The variables that name the services, and their values.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = self.services.variables();
        settings.push(match &self.services.database {
            Database::Sqlite(folder) => ("DATA_DIR", folder.path().display().to_string()),
            Database::Postgres(database) => ("DATABASE_URL", database.url.clone()),
        });
        settings
    }

    /// The store, to be read beside a server or without one.
    pub(crate) async fn store(&self) -> SharedStore {
        open_snapshot(self.services.database.config().store.options(1)).await.expect("the database opens to read")
    }

    /// The database itself.
    pub(crate) async fn tables(&self) -> Tables {
        match &self.services.database {
            Database::Sqlite(folder) => {
                let options = SqliteConnectOptions::new().filename(folder.path().join("storekeeper.sqlite"));
                Tables::Sqlite(options.read_only(true).connect().await.expect("the database opens to read"))
            }
            Database::Postgres(database) => Tables::Postgres(connect(&database.url).await.expect("the database")),
        }
    }

    /// No rule of the books is broken.
    pub(crate) async fn assert_in_order(&self) {
        self.services.database.assert_in_order().await;
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// The tables of a database.
pub(crate) enum Tables {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Tables {
    /// What the database answers to a query of one number.
    pub(crate) async fn number(&mut self, query: &'static str) -> i64 {
        let number = match self {
            Self::Sqlite(connection) => sqlx::query_scalar(query).fetch_one(connection).await,
            Self::Postgres(connection) => sqlx::query_scalar(query).fetch_one(connection).await,
        };
        number.expect(query)
    }

    /// What the database answers to a query of texts and numbers.
    pub(crate) async fn counted(&mut self, query: &'static str) -> Vec<(String, i64)> {
        let rows = match self {
            Self::Sqlite(connection) => sqlx::query_as(query).fetch_all(connection).await,
            Self::Postgres(connection) => sqlx::query_as(query).fetch_all(connection).await,
        };
        rows.expect(query)
    }
}
