//! What a store has in hand, counted: one statement for all databases.

/// What a database has in hand just now, whichever servers it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Census {
    /// Carts that are open.
    pub open_carts: i64,
    /// Their lines, each of which holds stock.
    pub open_holds: i64,
    /// Units that those hold.
    pub held_units: i64,
    /// Mails that wait to be sent.
    pub queued_mails: i64,
}

/// Connections of this server to its database, but for the one that writes stock and orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolUse {
    /// Somebody uses them.
    pub in_use: u32,
    /// Nobody does.
    pub idle: u32,
    /// So many there may be.
    pub most: u32,
}

/// Open carts, open holds, held units, queued mails. Open carts and queued mails have indexes of their own; open holds
/// are only in open carts, so they are found through those, however long the history is. `CROSS JOIN` keeps SQLite from
/// going the other way round.
pub(super) const CENSUS: &str = "SELECT \
     (SELECT count(*) FROM cart_sessions WHERE state = 'open'), \
     count(*), CAST(coalesce(sum(quantity), 0) AS BIGINT), \
     (SELECT count(*) FROM emails WHERE status = 'QUEUED') \
     FROM cart_sessions session CROSS JOIN holds hold \
     WHERE session.state = 'open' AND hold.cart_key = session.key AND hold.state = 'open'";

/// A row of [`CENSUS`].
pub(super) type CensusRow = (i64, i64, i64, i64);

impl From<CensusRow> for Census {
    fn from((open_carts, open_holds, held_units, queued_mails): CensusRow) -> Self {
        Self { open_carts, open_holds, held_units, queued_mails }
    }
}

/// How many of a pool's connections are in use.
pub(super) fn pool_use<DB: sqlx::Database>(pool: &sqlx::Pool<DB>) -> PoolUse {
    let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
    PoolUse { in_use: pool.size().saturating_sub(idle), idle, most: pool.options().get_max_connections() }
}
