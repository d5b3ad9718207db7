//! The store on PostgreSQL as a kind of database.

use std::sync::Arc;

use sqlx::Executor;
use storekeeper::persistence::clock::Clock;
use storekeeper::persistence::postgres::{PostgresOptions, PostgresStore};

use crate::server::{Database, connect};
use crate::shop::Opened;

/// Takes all rules away that a fault could be refused by.
const PAST_THE_RULES: &str = "
    DO $$ DECLARE rule record; BEGIN
        FOR rule IN SELECT conrelid::regclass AS place, conname AS name FROM pg_constraint
            WHERE contype = 'c' AND connamespace = 'public'::regnamespace
        LOOP EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', rule.place, rule.name); END LOOP;
    END $$";

/// A new database, which goes with the shop.
pub(crate) async fn open(clock: Clock) -> Opened {
    let database = Arc::new(Database::new());
    let options = PostgresOptions { url: database.url.clone(), pool: 4 };
    let store = PostgresStore::open(options, clock).await.expect("a new store");
    let to_read = Arc::clone(&database);
    Opened {
        store: Arc::new(store),
        corrupt: Box::new(move |statement| {
            let database = Arc::clone(&database);
            Box::pin(async move {
                let mut connection = connect(&database.url).await.expect("the database");
                connection.execute(PAST_THE_RULES).await.expect("no rules");
                connection.execute(sqlx::raw_sql(statement)).await.expect(statement);
            })
        }),
        number: Box::new(move |query| {
            let database = Arc::clone(&to_read);
            Box::pin(async move {
                let mut connection = connect(&database.url).await.expect("the database");
                sqlx::query_scalar(query).fetch_one(&mut connection).await.expect(query)
            })
        }),
    }
}
