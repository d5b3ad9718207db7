//! What SQLite's errors mean to the layers above: the one place where they become [`StoreError`]s.
//!
//! SQLite tells a violated `CHECK` by its name, but a violated `UNIQUE` only by its columns; [`UNIQUE_RULES`] gives
//! those their names back, the same names that PostgreSQL tells by itself.

use sqlx::error::{DatabaseError, ErrorKind};

use crate::persistence::StoreError;
use crate::persistence::rows::is_undecodable;

/// Primary result codes of SQLite (<https://www.sqlite.org/rescode.html>) that mean: not now.
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const INPUT_OUTPUT: i32 = 10;
const FULL: i32 = 13;
const CAN_NOT_OPEN: i32 = 14;

/// The columns of every unique rule as SQLite tells them, and the rule's name. A primary key without a name of its
/// own is called as PostgreSQL calls it.
const UNIQUE_RULES: [(&str, &str); 24] = [
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
    ("outbox.id", "outbox_id_unique"),
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

/// The name of the rule that was violated, when it was one.
fn violated_rule(error: &dyn DatabaseError) -> Option<String> {
    let (_, what) = error.message().split_once(" constraint failed: ")?;
    match error.kind() {
        ErrorKind::CheckViolation => Some(what.to_owned()),
        ErrorKind::UniqueViolation => {
            let known = UNIQUE_RULES.iter().find(|(columns, _)| *columns == what);
            Some(known.map_or(what, |(_, rule)| rule).to_owned())
        }
        _ => None,
    }
}

/// The primary result code within the extended one.
fn primary_code(error: &dyn DatabaseError) -> Option<i32> {
    error.code()?.parse::<i32>().ok().map(|extended| extended & 0xff)
}

/// Whether a later try may do better.
fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(answer) => primary_code(answer.as_ref())
            .is_some_and(|code| [BUSY, LOCKED, INPUT_OUTPUT, FULL, CAN_NOT_OPEN].contains(&code)),
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}
