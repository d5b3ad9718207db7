//! A server's database, looked at beside it.

use std::str::FromStr;

use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use crate::filled;

/// A connection to it.
pub(crate) enum Books {
    Sqlite(Box<SqliteConnection>),
    Postgres(Box<PgConnection>),
}

impl Books {
    /// Opens what a server's variable says where it is.
    pub(crate) async fn open((variable, place): &(&'static str, String)) -> Self {
        if *variable == "DATABASE_URL" {
            let options = PgConnectOptions::from_str(place).expect("an address");
            Self::Postgres(Box::new(PgConnection::connect_with(&options).await.expect("the database opens")))
        } else {
            Self::Sqlite(Box::new(filled::connection(place.as_ref()).await))
        }
    }

    /// The one row that a query gives.
    pub(crate) async fn row<R>(&mut self, query: &'static str) -> R
    where
        R: for<'r> sqlx::FromRow<'r, PgRow> + for<'r> sqlx::FromRow<'r, SqliteRow> + Send + Unpin,
    {
        match self {
            Self::Sqlite(connection) => sqlx::query_as(query).fetch_one(&mut **connection).await,
            Self::Postgres(connection) => sqlx::query_as(query).fetch_one(&mut **connection).await,
        }
        .expect("the database answers")
    }
}
