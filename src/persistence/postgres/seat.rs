//! The journal's own connection: who sits on it, and how it is made again when it was lost.

use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

use crate::persistence::StoreError;

use super::error::Answer;
use super::expected::Expectation;
use super::session::prepare_journal;

/// Shortest wait between two tries to connect.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Longest wait between two tries to connect. Who comes meanwhile is told at once that the database is away.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// Prepared statements that the connection keeps. A batch's statement has the parts that its entries need and the columns that
/// its rows differ in: a shop in which little is alike was seen to have 77 of them in 15 s.
const STATEMENTS_KEPT: usize = 256;

/// The seat of the one who writes the journal's transactions.
#[derive(Debug)]
pub(super) struct JournalSeat {
    seat: Mutex<Option<Seat>>,
}

/// What is known of the connection between two batches.
#[derive(Debug)]
pub(super) struct Seat {
    options: PgConnectOptions,
    connection: Option<PgConnection>,
    /// What is known without looking.
    pub(super) expectation: Expectation,
    pause: Duration,
    /// When the next try to connect may be made.
    connect_at: Instant,
}

impl JournalSeat {
    /// A seat that connects when it is first needed.
    pub(super) fn new(options: PgConnectOptions) -> Self {
        let (expectation, connect_at) = (Expectation::default(), Instant::now());
        let options = options.statement_cache_capacity(STATEMENTS_KEPT);
        let seat = Seat { options, connection: None, expectation, pause: PAUSE_MIN, connect_at };
        Self { seat: Mutex::new(Some(seat)) }
    }

    /// A seat that nobody gets, for a store that only reads.
    pub(super) fn closed() -> Self {
        Self { seat: Mutex::new(None) }
    }

    /// Waits for its turn: one batch at a time.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] after [`close`](Self::close).
    pub(super) async fn sit(&self) -> Result<MappedMutexGuard<'_, Seat>, StoreError> {
        MutexGuard::try_map(self.seat.lock().await, Option::as_mut)
            .map_err(|_closed| StoreError::Unavailable(sqlx::Error::PoolClosed))
    }

    /// Closes the connection when the batch under way has ended; what comes later is refused.
    pub(super) async fn close(&self) {
        let seat = self.seat.lock().await.take();
        if let Some(connection) = seat.and_then(|seat| seat.connection)
            && let Err(error) = connection.close().in_time().await
        {
            tracing::warn!(%error, "the journal's connection did not close in order");
        }
    }
}

impl Seat {
    /// Takes the connection, making it where there is none. Says whether it was there: one that was kept may have
    /// been lost since. Whoever does not [`keep`](Self::keep) it afterwards closes it, and the server rolls back
    /// what was left open.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], whatever the reason.
    pub(super) async fn take(&mut self) -> Result<(PgConnection, bool), StoreError> {
        if let Some(connection) = self.connection.take() {
            return Ok((connection, true));
        }
        let now = Instant::now();
        if now < self.connect_at {
            return Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut));
        }
        match self.connect().in_time().await {
            Ok(connection) => {
                self.pause = PAUSE_MIN;
                Ok((connection, false))
            }
            Err(error) => {
                self.connect_at = Instant::now() + self.pause;
                self.pause = (self.pause * 2).min(PAUSE_MAX);
                Err(StoreError::Unavailable(error))
            }
        }
    }

    /// Keeps a connection that is in order, for the next batch.
    pub(super) fn keep(&mut self, connection: PgConnection) {
        self.connection = Some(connection);
    }

    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let mut connection = self.options.connect().await?;
        prepare_journal(&mut connection).await?;
        Ok(connection)
    }
}
