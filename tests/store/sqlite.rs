//! The store on SQLite as a kind of database, and what only it can show.

use std::path::Path;
use std::sync::Arc;

use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use storekeeper::persistence::Upkeep;
use storekeeper::persistence::clock::Clock;
use storekeeper::persistence::sqlite::{OpenError, SqliteOptions, SqliteStore};

use crate::shop::{Opened, START, Shop};

/// A new database in a folder of its own, which goes with it.
pub(crate) async fn open(clock: Clock) -> Opened {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteStore::open(options(folder.path()), clock).await.expect("a new store");
    let (path, folder) = (folder.path().to_owned(), Arc::new(folder));
    let path_to_read = path.clone();
    Opened {
        store: Arc::new(store),
        corrupt: Box::new(move |statement| {
            let (path, _folder) = (path.clone(), Arc::clone(&folder));
            Box::pin(async move {
                let mut connection = past_the_rules(&path).await;
                sqlx::raw_sql(statement).execute(&mut connection).await.expect(statement);
            })
        }),
        number: Box::new(move |query| {
            let path = path_to_read.clone();
            Box::pin(async move {
                let mut connection = past_the_rules(&path).await;
                sqlx::query_scalar(query).fetch_one(&mut connection).await.expect(query)
            })
        }),
    }
}

fn options(folder: &Path) -> SqliteOptions {
    SqliteOptions { folder: folder.to_owned(), readers: 2 }
}

async fn past_the_rules(folder: &Path) -> SqliteConnection {
    SqliteConnectOptions::new()
        .filename(folder.join("storekeeper.sqlite"))
        .pragma("ignore_check_constraints", "ON")
        .connect()
        .await
        .expect("the file")
}
