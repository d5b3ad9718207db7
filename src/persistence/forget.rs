//! What is removed when nobody will ask for it again, and when that is: one for all databases.
//!
//! Each concern has a time of its own. A transaction removes few rows, found by an index, so that the journal waits
//! milliseconds for it; whoever asks for it goes on until nothing is left.
//!
//! What is kept longer than its time, because something else rests on it:
//!
//! - A change of an order that is not told, whatever its age, and every one behind it in the outbox: they are removed in the
//!   order they were written. `outbox_horizon` says how far, so that the verification of the books knows which ones may be
//!   missing. The newest one stays, since SQLite numbers the next one by it.
//! - The mark of a message as done, as long as a change from before the marks' time is not told: what is not
//!   known to be published is sent again, and must be recognised then.
//! - A mail that is still to be sent.

use std::time::Duration;

use crate::domain::timestamp::Timestamp;

/// Rows of a concern that one transaction removes, so that the journal waits milliseconds for it.
pub(super) const FORGOTTEN_AT_ONCE: u32 = 100;
/// For how long codes and refresh tokens are kept that can not be used any more.
const EXPIRED_KEPT: Duration = Duration::from_secs(24 * 3_600);

/// For how long things are kept, by concern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Mails that were kept instead of sent, since they were made.
    pub captured_mails: Duration,
    /// Mails that were sent or given up, since they were made.
    pub sent_mails: Duration,
    /// Tries to sign in.
    pub logins: Duration,
    /// Answers to requests that named themselves.
    pub idempotency_keys: Duration,
    /// Marks of messages as done, by which one that comes again is recognised.
    pub message_ids: Duration,
    /// Changes of orders in the outbox, since they were told.
    pub published_events: Duration,
    /// Messages that were put away, since they were put away last.
    pub dead_letters: Duration,
    /// Marks of the journal's transactions, by which one that is sent again is recognised.
    pub journal_batches: Duration,
}

impl Retention {
    /// From before which time each thing may go, when it is `now`.
    #[must_use]
    pub fn cut_offs(&self, now: Timestamp) -> CutOffs {
        let before = |kept: Duration| {
            let micros = i64::try_from(kept.as_micros()).unwrap_or(i64::MAX);
            Timestamp(now.0.saturating_sub(micros))
        };
        CutOffs {
            captured_mails: before(self.captured_mails),
            sent_mails: before(self.sent_mails),
            logins: before(self.logins),
            idempotency_keys: before(self.idempotency_keys),
            message_ids: before(self.message_ids),
            published_events: before(self.published_events),
            dead_letters: before(self.dead_letters),
            journal_batches: before(self.journal_batches),
            expired: before(EXPIRED_KEPT),
        }
    }
}

/// From before which time each thing may go. The members are [`Retention`]'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the time of the member of the same name in Retention")]
pub struct CutOffs {
    pub captured_mails: Timestamp,
    pub sent_mails: Timestamp,
    pub logins: Timestamp,
    pub idempotency_keys: Timestamp,
    pub message_ids: Timestamp,
    pub published_events: Timestamp,
    pub dead_letters: Timestamp,
    pub journal_batches: Timestamp,
    /// Codes and refresh tokens: when they could be used last.
    pub expired: Timestamp,
}

/// What one call has removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Rows of all concerns.
    pub rows: u64,
    /// Whether there may be more to remove at once.
    pub is_more_left: bool,
}

impl Forgotten {
    /// Counts what one transaction has removed.
    pub(super) fn add(&mut self, rows: u64) {
        self.rows += rows;
        self.is_more_left |= rows >= u64::from(FORGOTTEN_AT_ONCE);
    }
}

/// How the rows of one concern are removed, in a transaction of its own.
pub(super) struct Concern {
    /// From before which time they may go.
    pub(super) cut_off: fn(&CutOffs) -> Timestamp,
    /// Statements in their order, each of them with the time as `$1` and [`FORGOTTEN_AT_ONCE`] as `$2`. The last one
    /// removes. Sorted, so that PostgreSQL too takes the index by age, and not whatever it meets first.
    pub(super) statements: &'static [&'static str],
}

/// All concerns.
pub(super) const CONCERNS: [Concern; 11] = [
    Concern {
        cut_off: |cut_offs| cut_offs.captured_mails,
        statements: &["DELETE FROM emails WHERE id IN \
             (SELECT id FROM emails WHERE status = 'CAPTURED' AND created_at < $1 ORDER BY created_at LIMIT $2)"],
    },
    Concern {
        cut_off: |cut_offs| cut_offs.sent_mails,
        statements: &["DELETE FROM emails WHERE id IN \
             (SELECT id FROM emails WHERE status = 'SENT' AND created_at < $1 ORDER BY created_at LIMIT $2)"],
    },
    Concern {
        cut_off: |cut_offs| cut_offs.sent_mails,
        statements: &["DELETE FROM emails WHERE id IN \
             (SELECT id FROM emails WHERE status = 'FAILED' AND created_at < $1 ORDER BY created_at LIMIT $2)"],
    },
    Concern {
        cut_off: |cut_offs| cut_offs.logins,
        // They have no identifier: some more may go, of the same microsecond as the last one.
        statements: &["DELETE FROM logins WHERE at <= \
             (SELECT max(at) FROM (SELECT at FROM logins WHERE at < $1 ORDER BY at LIMIT $2) AS oldest)"],
    },
    Concern {
        cut_off: |cut_offs| cut_offs.idempotency_keys,
        statements: &["DELETE FROM idempotency_keys WHERE (scope, key) IN \
             (SELECT scope, key FROM idempotency_keys WHERE at < $1 ORDER BY at LIMIT $2)"],
    },
    Concern {
        cut_off: |cut_offs| cut_offs.message_ids,
        statements: &["DELETE FROM consumed_messages WHERE (queue, message_id) IN \
             (SELECT queue, message_id FROM consumed_messages WHERE at < $1 \
              AND coalesce((SELECT at FROM outbox WHERE published_at IS NULL ORDER BY position LIMIT 1) >= $1, true) \
              ORDER BY at LIMIT $2)"],
    },
    Concern { cut_off: |cut_offs| cut_offs.published_events, statements: &[MOVE_HORIZON, BEFORE_HORIZON] },
    Concern {
        cut_off: |cut_offs| cut_offs.dead_letters,
        statements: &["DELETE FROM dead_letters WHERE (queue, message_id) IN \
             (SELECT queue, message_id FROM dead_letters WHERE at < $1 ORDER BY at LIMIT $2)"],
    },
    Concern {
        cut_off: |cut_offs| cut_offs.journal_batches,
        statements: &["DELETE FROM journal_batches WHERE id IN \
             (SELECT id FROM journal_batches WHERE at < $1 ORDER BY at LIMIT $2)"],
    },
    Concern {
        cut_off: |cut_offs| cut_offs.expired,
        statements: &["DELETE FROM codes WHERE (user_id, purpose) IN \
             (SELECT user_id, purpose FROM codes WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)"],
    },
    Concern {
        cut_off: |cut_offs| cut_offs.expired,
        statements: &["DELETE FROM refresh_tokens WHERE hash IN \
             (SELECT hash FROM refresh_tokens WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)"],
    },
];

/// Moves the horizon over the oldest changes, up to the first one that must stay. One server does so at a time.
const MOVE_HORIZON: &str = "
    WITH oldest AS (
        SELECT position, order_id, at,
               sum(CASE WHEN published_at < $1 THEN 0 ELSE 1 END) OVER (ORDER BY position) AS staying
        FROM (
            SELECT position, order_id, at, published_at FROM outbox
            WHERE position > (SELECT position FROM outbox_horizon) AND position < (SELECT max(position) FROM outbox)
            ORDER BY position LIMIT $2
        ) AS behind
    )
    UPDATE outbox_horizon SET (position, at) = (
        SELECT max(position), max(at) FROM (
            SELECT position, at FROM outbox_horizon
            UNION ALL
            SELECT position, at FROM oldest WHERE staying = 0
            UNION ALL
            SELECT 0, created_at FROM orders WHERE id IN (SELECT order_id FROM oldest WHERE staying = 0)
        ) AS passed
    )";
const BEFORE_HORIZON: &str = "
    DELETE FROM outbox WHERE published_at < $1 AND position IN (
        SELECT position FROM outbox WHERE position <= (SELECT position FROM outbox_horizon) ORDER BY position LIMIT $2
    )";
