//! What SQLite's errors mean to the layers above: the one place where they become [`StoreError`]s.
//!
//! SQLite tells a violated `CHECK` by its name, but a violated `UNIQUE` only by its columns; [`UNIQUE_RULES`] gives
//! those their names back, the same names that PostgreSQL tells by itself.

use sqlx::error::DatabaseError;

use crate::persistence::StoreError;
use crate::persistence::rows::is_undecodable;

/// What SQLite says of a text that is no JSON.
const NO_JSON: &str = "malformed JSON";
/// Primary result codes of SQLite (<https://www.sqlite.org/rescode.html>) that mean: not now.
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const INPUT_OUTPUT: i32 = 10;
const FULL: i32 = 13;
const CAN_NOT_OPEN: i32 = 14;

/// The columns of every unique rule as SQLite tells them, and the rule's name. A primary key without a name of its
/// own is called as PostgreSQL calls it.
const UNIQUE_RULES: [(&str, &str); 25] = [
    ("secrets.name", "secrets_pkey"),
    ("users.id", "users_pkey"),
    ("users.email", "users_email_unique"),
    ("profiles.id", "profiles_pkey"),
    ("profiles.user_id", "profiles_user_unique"),
    ("codes.user_id, codes.purpose", "codes_pkey"),
    ("refresh_tokens.hash", "refresh_tokens_pkey"),
    ("products.id", "products_pkey"),
    ("products.sku", "products_sku_unique"),
    ("inventories.id", "inventories_pkey"),
    ("inventories.product_id", "inventories_product_unique"),
    ("movements.id", "movements_pkey"),
    ("cart_sessions.key", "cart_sessions_pkey"),
    ("holds.cart_key, holds.number", "holds_pkey"),
    ("orders.id", "orders_pkey"),
    ("orders.cart_key", "orders_one_a_cart"),
    ("order_items.order_id, order_items.position", "order_items_pkey"),
    ("outbox.position", "outbox_pkey"),
    ("outbox.order_id, outbox.sequence", "outbox_once"),
    ("outbox_horizon.one", "outbox_horizon_pkey"),
    ("consumed_messages.queue, consumed_messages.message_id", "consumed_messages_once"),
    ("dead_letters.queue, dead_letters.message_id", "dead_letters_pkey"),
    ("emails.id", "emails_pkey"),
    ("idempotency_keys.scope, idempotency_keys.key", "idempotency_keys_once"),
    ("journal_batches.id", "journal_batches_pkey"),
];

/// What an error of a statement, or of the way to the database, means. Nothing was changed.
pub(super) fn store_error(error: sqlx::Error) -> StoreError {
    if let Some(rule) = error.as_database_error().and_then(violated_rule) {
        return StoreError::Constraint(rule);
    }
    if is_undecodable(&error) {
        return StoreError::Corrupt(error.to_string());
    }
    if is_passing(&error) { StoreError::Unavailable(error) } else { StoreError::Failed(error) }
}

/// What an error of a `COMMIT` means. Refused or not begun, nothing was changed; else it may have been: a commit
/// whose last write was not confirmed can come back when the log is read again.
pub(super) fn commit_error(error: sqlx::Error) -> StoreError {
    let certain = error.as_database_error().is_some_and(|answer| {
        violated_rule(answer).is_some() || primary_code(answer).is_some_and(|code| [BUSY, LOCKED, FULL].contains(&code))
    });
    if certain { store_error(error) } else { StoreError::Unknown(error) }
}

/// What an error of statements that begin a transaction and commit it means; they stop themselves by what is no JSON.
pub(super) fn whole_error(error: sqlx::Error) -> StoreError {
    if error.as_database_error().is_some_and(|answer| answer.message() == NO_JSON) {
        return StoreError::Corrupt("something is not as it was expected".to_owned());
    }
    commit_error(error)
}

/// The name of the rule that was violated, when it was one.
fn violated_rule(error: &dyn DatabaseError) -> Option<String> {
    let (_, what) = error.message().split_once(" constraint failed: ")?;
    if error.is_check_violation() {
        return Some(what.to_owned());
    }
    let named = UNIQUE_RULES.iter().find(|(columns, _)| *columns == what).map(|(_, rule)| *rule);
    error.is_unique_violation().then(|| named.unwrap_or(what).to_owned())
}

/// The primary result code within the extended one.
fn primary_code(error: &dyn DatabaseError) -> Option<i32> {
    error.code()?.parse::<i32>().ok().map(|extended| extended & 0xff)
}

/// Whether a later try may do better.
fn is_passing(error: &sqlx::Error) -> bool {
    let busy_or_full = error
        .as_database_error()
        .and_then(primary_code)
        .is_some_and(|code| [BUSY, LOCKED, INPUT_OUTPUT, FULL, CAN_NOT_OPEN].contains(&code));
    let unreachable = matches!(
        error,
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed
    );
    busy_or_full || unreachable
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
    use sqlx::{AssertSqlSafe, ConnectOptions};

    use super::*;
    use crate::persistence::sqlite::MIGRATIONS;

    async fn with_schema() -> SqliteConnection {
        let mut connection = SqliteConnectOptions::new().in_memory(true).connect().await.expect("a database");
        MIGRATIONS.run(&mut connection).await.expect("the schema");
        connection
    }

    async fn texts(connection: &mut SqliteConnection, query: String) -> Vec<String> {
        sqlx::query_scalar(AssertSqlSafe(query)).fetch_all(connection).await.expect("a list")
    }

    /// The columns of each unique rule of the schema, as SQLite tells them.
    async fn unique_columns(connection: &mut SqliteConnection) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> '_sqlx_migrations'";
        for table in texts(connection, tables.to_owned()).await {
            let indexes = format!("SELECT name FROM pragma_index_list('{table}') WHERE \"unique\" = 1");
            for index in texts(connection, indexes).await {
                let columns = format!("SELECT '{table}.' || name FROM pragma_index_info('{index}') ORDER BY seqno");
                found.insert(texts(connection, columns).await.join(", "));
            }
            let key = format!("SELECT '{table}.' || name FROM pragma_table_info('{table}') WHERE pk > 0 ORDER BY pk");
            found.insert(texts(connection, key).await.join(", "));
        }
        found.retain(|columns| !columns.is_empty());
        found
    }

    #[tokio::test]
    async fn every_unique_rule_of_the_schema_has_a_name() {
        let mut connection = with_schema().await;
        let in_schema = unique_columns(&mut connection).await;
        let named: BTreeSet<String> = UNIQUE_RULES.iter().map(|(columns, _)| (*columns).to_owned()).collect();
        assert_eq!(in_schema, named);
        let schema = texts(&mut connection, "SELECT coalesce(sql, '') FROM sqlite_schema".to_owned()).await.concat();
        for (columns, rule) in UNIQUE_RULES {
            let table = columns.split_once('.').map_or("", |(table, _)| table);
            let own_name = schema.contains(&format!("CONSTRAINT {rule} UNIQUE"))
                || schema.contains(&format!("CONSTRAINT {rule} PRIMARY KEY"));
            assert!(own_name || rule == format!("{table}_pkey"), "{rule} is not in the schema");
        }
    }

    #[tokio::test]
    async fn a_violated_rule_is_told_by_its_name() {
        let mut connection = with_schema().await;
        let mail = "INSERT INTO consumed_messages VALUES ('q', 'm', 1)";
        sqlx::query(mail).execute(&mut connection).await.expect("a row");
        let wrong_state = "INSERT INTO cart_sessions VALUES (x'01', x'02', 'gone', 1, 1, 1)";
        let oversold = "INSERT INTO inventories VALUES (x'01', x'02', 's', 1, 2, 1, x'03', 1)";
        for (statement, rule) in [
            (mail, "consumed_messages_once"),
            (wrong_state, "cart_sessions_state"),
            (oversold, "inventories_never_oversold"),
        ] {
            let error = sqlx::query(statement).execute(&mut connection).await.expect_err("refused");
            assert!(matches!(store_error(error), StoreError::Constraint(told) if told == rule), "{rule}");
        }
        let without = "INSERT INTO consumed_messages (queue, message_id) VALUES ('q', 'n')";
        let error = sqlx::query(without).execute(&mut connection).await.expect_err("refused");
        assert!(matches!(store_error(error), StoreError::Failed(_)));
        let error = sqlx::query_scalar::<_, i64>("SELECT 'text'").fetch_one(&mut connection).await.expect_err("text");
        assert!(matches!(store_error(error), StoreError::Corrupt(_)));
    }

    #[test]
    fn a_commit_that_was_not_confirmed_is_unknown() {
        assert!(matches!(commit_error(sqlx::Error::WorkerCrashed), StoreError::Unknown(_)));
        assert!(matches!(store_error(sqlx::Error::WorkerCrashed), StoreError::Unavailable(_)));
    }
}
