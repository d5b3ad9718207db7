//! How our connections behave on the server: what they set for themselves, and how they are kept in the pool.
//!
//! Settings are made by each connection itself, so that no configuration of the server or the user can make an
//! acknowledged change less than durable, or let a frozen server of ours hold locks.

use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};

use super::error::no_answer;

/// How long a caller waits for a connection of the pool.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that has been idle for longer is asked whether it is alive before it is used: after an outage of the
/// server no caller shall find out instead.
const TRUSTED_IDLE: Duration = Duration::from_millis(500);
/// How long a returned connection may take to say that it is in order.
const RETURN_WAIT_MAX: Duration = Duration::from_secs(1);

/// What a connection of the pool sets. Its transactions make no pauses that take anywhere near that long. Its statements
/// find their rows by an index, and in its order: a plan that was made, and kept, while a table had next to nothing in it would
/// read all of it again and again when a sale has filled it, or sort all of it for each page. Nor are they compiled: by
/// statistics from before a sale a page of carts looks so dear that a server would compile its statement each time it runs.
/// Compiling takes ten milliseconds of a processor, running it a tenth of a millisecond.
const POOLED: &str = "SET synchronous_commit = on; \
    SET statement_timeout = '3s'; \
    SET lock_timeout = '2s'; \
    SET idle_in_transaction_session_timeout = '3s'; \
    SET jit = off; \
    SET enable_seqscan = off; \
    SET enable_bitmapscan = off";

/// What the journal's connection sets. A node that is frozen in the middle of a transaction loses its locks after one
/// second; another one's journal waits longer than that for them. Each statement finds its rows by their keys: the
/// planner shall not think of anything else because its statistics are from when the tables were small, nor think
/// anew each time, nor compile.
const JOURNAL: &str = "SET synchronous_commit = on; \
    SET statement_timeout = '3s'; \
    SET lock_timeout = '2s'; \
    SET idle_in_transaction_session_timeout = '1s'; \
    SET plan_cache_mode = force_generic_plan; \
    SET jit = off; \
    SET enable_seqscan = off; \
    SET enable_hashjoin = off; \
    SET enable_mergejoin = off";

/// A bounded pool. It connects when a connection is first asked for.
pub(super) fn pool(options: &PgConnectOptions, connections: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections.max(1))
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .after_connect(|connection, _| {
            Box::pin(async move { sqlx::raw_sql(POOLED).execute(connection).await.map(|_| ()) })
        })
        .before_acquire(|connection, about| {
            Box::pin(async move {
                if about.idle_for > TRUSTED_IDLE {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        // One that was left waiting for an answer by a caller who gave up would wait for ever.
        .after_release(|connection, _| {
            Box::pin(async move {
                let pinged = tokio::time::timeout(RETURN_WAIT_MAX, connection.ping()).await;
                pinged.unwrap_or_else(|_| Err(no_answer())).map(|()| true)
            })
        })
        .connect_lazy_with(options.clone())
}

/// Makes a new connection the journal's.
pub(super) async fn prepare_journal(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(JOURNAL).execute(connection).await.map(|_| ())
}
