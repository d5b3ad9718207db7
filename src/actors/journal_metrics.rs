//! What is measured of the journal.

use std::time::Duration;

use crate::observability::metrics::{Counter, Histogram, Metrics};
use crate::persistence::entry::Done;

use super::journal::JournalError;

/// The journal's numbers.
#[derive(Clone)]
pub struct JournalMetrics {
    batch: Histogram,
    commit: Histogram,
    applied: Counter,
    refused: Counter,
    late: Counter,
    failed: Counter,
    loaded: Counter,
}

impl JournalMetrics {
    /// The numbers, among those of a server.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let entries = |outcome| {
            let help = "Pieces of work that the journal has answered, by what became of them.";
            metrics.counter("storekeeper_journal_entries_total", help, &[("outcome", outcome)])
        };
        Self {
            batch: metrics.histogram(
                "storekeeper_journal_batch_entries",
                "Pieces of work of a transaction of the journal that was committed.",
                &[],
            ),
            commit: metrics.histogram(
                "storekeeper_journal_commit_duration_seconds",
                "From the begin of a transaction of the journal until it was known to be durable.",
                &[],
            ),
            applied: entries("applied"),
            refused: entries("refused"),
            late: entries("late"),
            failed: entries("failed"),
            loaded: entries("loaded"),
        }
    }

    /// So many were committed together, in that time.
    pub(super) fn batch(&self, entries: usize, elapsed: Duration) {
        self.batch.record(entries as f64);
        self.commit.record(elapsed);
    }

    /// This is what became of one.
    pub(super) fn outcome(&self, outcome: &Result<Done, JournalError>) {
        let counter = match outcome {
            Ok(Done::Applied(_)) => &self.applied,
            Ok(Done::Loaded(_)) => &self.loaded,
            Ok(Done::Refused(_)) | Err(JournalError::Refused(_)) => &self.refused,
            Err(JournalError::Late) => &self.late,
            Err(JournalError::Unposted(_) | JournalError::Store(..) | JournalError::Died) => &self.failed,
        };
        counter.increment(1);
    }
}
