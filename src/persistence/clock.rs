//! The time that decides: the database's.
//!
//! A node's own clock may be wrong; so a store whose database has a clock of its own tells how far that is from this
//! one, and every time that this program writes or compares is read here. SQLite has none: its time is this clock's.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::domain::timestamp::Timestamp;

/// The shop's clock; clones read the same one.
#[derive(Debug, Clone)]
pub struct Clock {
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    /// The system's time, and by how many microseconds the database's is ahead of it.
    System { ahead: Arc<AtomicI64> },
    /// Stands still until it is moved.
    Manual { now: Arc<AtomicI64> },
}

impl Clock {
    /// The system's time, until a database says how far it is off.
    #[must_use]
    pub fn system() -> Self {
        Self { source: Source::System { ahead: Arc::default() } }
    }

    /// A clock that stands at `start` until it is moved by [`advance`](Self::advance).
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Self { source: Source::Manual { now: Arc::new(AtomicI64::new(start.0)) } }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.source {
            Source::System { ahead } => Timestamp(system_micros().saturating_add(ahead.load(Ordering::Relaxed))),
            Source::Manual { now } => Timestamp(now.load(Ordering::Relaxed)),
        }
    }

    /// Moves a manual clock on. A clock of the system is not to be moved.
    pub fn advance(&self, span: Duration) {
        if let Source::Manual { now } = &self.source {
            now.store(self.now().plus(span).0, Ordering::Relaxed);
        }
    }

    /// Learns that the database's clock stands at `database` just now, and gives the time that counts: that one. A
    /// manual clock learns nothing and says what it says. A time that was read from this clock, told back later, would
    /// make it fall behind.
    pub fn learn(&self, database: Timestamp) -> Timestamp {
        match &self.source {
            Source::System { ahead } => {
                ahead.store(database.0.saturating_sub(system_micros()), Ordering::Relaxed);
                database
            }
            Source::Manual { .. } => self.now(),
        }
    }
}

impl Clock {
    /// Learns that the database's clock stood at `database` or later just now: it may be further ahead than it was known
    /// to be, and is not known to be less so. A manual clock learns nothing.
    pub fn learn_at_least(&self, database: Timestamp) {
        if let Source::System { ahead } = &self.source {
            ahead.fetch_max(database.0.saturating_sub(system_micros()), Ordering::Relaxed);
        }
    }
}

fn system_micros() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual(Timestamp(100));
        let same = clock.clone();
        clock.advance(Duration::from_micros(5));
        assert_eq!(same.now(), Timestamp(105));
        assert_eq!((same.learn(Timestamp(7)), clock.now()), (Timestamp(105), Timestamp(105)));
    }

    #[test]
    fn the_database_decides_what_time_it_is() {
        let clock = Clock::system();
        let hour = 3_600_000_000;
        let database = Timestamp(clock.now().0 + hour);
        assert_eq!(clock.learn(database), database);
        assert!(clock.now().0 > system_micros() + hour - 1_000_000);
    }
}
