//! What is removed when nobody will ask for it again: one for all databases.

/// Removes at most [`FORGOTTEN_AT_ONCE`] rows from before `$1`, `$2`.
pub(super) const FORGET: [&str; 5] = [
    "DELETE FROM idempotency_keys WHERE (scope, key) IN \
     (SELECT scope, key FROM idempotency_keys WHERE at < $1 LIMIT $2)",
    "DELETE FROM consumed_messages WHERE (queue, message_id) IN \
     (SELECT queue, message_id FROM consumed_messages WHERE at < $1 LIMIT $2)",
    "DELETE FROM journal_batches WHERE id IN (SELECT id FROM journal_batches WHERE at < $1 LIMIT $2)",
    "DELETE FROM codes WHERE (user_id, purpose) IN (SELECT user_id, purpose FROM codes WHERE expires_at < $1 LIMIT $2)",
    "DELETE FROM refresh_tokens WHERE hash IN (SELECT hash FROM refresh_tokens WHERE expires_at < $1 LIMIT $2)",
];

/// Rows that one transaction removes, so that the journal waits milliseconds for it.
pub(super) const FORGOTTEN_AT_ONCE: u32 = 1_000;
