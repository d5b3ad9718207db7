//! Things that go wrong because a test says so: a panic or a hang at a named point of an actor's work, a slow journal.
//!
//! In a server that was built without the feature `fault-injection`, which is every real one, nothing of this is there:
//! the points are empty functions.

#[cfg(feature = "fault-injection")]
pub use armed::{Fault, Faults, Moment, Point};

#[cfg(not(feature = "fault-injection"))]
pub(super) use disarmed::{Faults, Moment};

#[cfg(feature = "fault-injection")]
mod armed {
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
    use std::time::{Duration, Instant};

    use tokio::sync::Semaphore;
    use uuid::Uuid;

    use super::super::supervision::ActorKind;

    /// Where an actor is in its work.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Moment {
        /// It has the message and has done nothing.
        Before,
        /// It has handed something on, or claimed something, and has not heard what became of it.
        During,
        /// What it did is durable, and nobody has been told.
        After,
    }

    /// A point of an actor's work.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Point {
        /// Whose.
        pub kind: ActorKind,
        /// Where in it.
        pub moment: Moment,
        /// Of this row's actor only; `None` is whoever comes first.
        pub row: Option<Uuid>,
    }

    /// What goes wrong.
    #[derive(Debug, Clone)]
    pub enum Fault {
        /// A panic.
        Panic,
        /// No progress before the semaphore has a permit or is closed.
        Hang(Arc<Semaphore>),
    }

    /// What is armed. Clones are armed together.
    #[derive(Debug, Clone, Default)]
    pub struct Faults(Arc<Mutex<Armed>>);

    #[derive(Debug, Default)]
    struct Armed {
        faults: Vec<(Point, Fault)>,
        /// Entries a second that the journal commits at most.
        journal_rate: Option<f64>,
    }

    impl Faults {
        /// Nothing is armed, but for what the environment says: `FAULT_JOURNAL_RATE`, entries a second.
        #[must_use]
        pub fn of_environment() -> Self {
            let rate = std::env::var("FAULT_JOURNAL_RATE").ok().and_then(|text| text.parse().ok());
            Self(Arc::new(Mutex::new(Armed { journal_rate: rate, ..Armed::default() })))
        }

        /// Has this go wrong there, once.
        pub fn arm(&self, point: Point, fault: Fault) {
            self.armed().faults.push((point, fault));
        }

        /// How many faults have not come to pass.
        #[must_use]
        pub fn left(&self) -> usize {
            self.armed().faults.len()
        }

        /// Disarms everything.
        pub fn disarm(&self) {
            self.armed().faults.clear();
        }

        /// A point where a panic may be armed.
        #[expect(clippy::panic, reason = "it is what this is for")]
        pub(in super::super) fn at(&self, kind: ActorKind, moment: Moment, row: Option<Uuid>) {
            if self.take(kind, moment, row, |fault| matches!(fault, Fault::Panic)).is_some() {
                panic!("told to panic: {} {moment:?}", kind.name());
            }
        }

        /// A point where a panic or a hang may be armed.
        pub(in super::super) async fn pass(&self, kind: ActorKind, moment: Moment, row: Option<Uuid>) {
            self.at(kind, moment, row);
            if let Some(Fault::Hang(until)) = self.take(kind, moment, row, |fault| matches!(fault, Fault::Hang(_))) {
                drop(until.acquire().await);
            }
        }

        /// Makes so many entries of the journal take as long as they are told to.
        pub(in super::super) async fn slow_down(&self, entries: usize, begun: Instant) {
            let rate = self.armed().journal_rate;
            if let Some(rate) = rate.filter(|rate| *rate > 0.0) {
                #[expect(clippy::cast_precision_loss, reason = "a batch is far from 2^52 entries")]
                let whole = Duration::from_secs_f64(entries as f64 / rate);
                tokio::time::sleep(whole.saturating_sub(begun.elapsed())).await;
            }
        }

        fn take(
            &self,
            kind: ActorKind,
            moment: Moment,
            row: Option<Uuid>,
            wanted: impl Fn(&Fault) -> bool,
        ) -> Option<Fault> {
            let mut armed = self.armed();
            let fits = |(point, fault): &(Point, Fault)| {
                point.kind == kind
                    && point.moment == moment
                    && (point.row.is_none() || point.row == row)
                    && wanted(fault)
            };
            let place = armed.faults.iter().position(fits)?;
            Some(armed.faults.swap_remove(place).1)
        }

        fn armed(&self) -> MutexGuard<'_, Armed> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

#[cfg(not(feature = "fault-injection"))]
mod disarmed {
    use std::time::Instant;

    use uuid::Uuid;

    use super::super::supervision::ActorKind;

    /// Where an actor is in its work.
    #[derive(Clone, Copy)]
    pub(in super::super) enum Moment {
        Before,
        During,
        After,
    }

    /// Nothing ever goes wrong here.
    #[derive(Clone, Default)]
    pub(in super::super) struct Faults(());

    impl Faults {
        pub(in super::super) fn of_environment() -> Self {
            Self(())
        }

        #[expect(clippy::unused_self, reason = "it stands for what is armed")]
        pub(in super::super) fn at(&self, _: ActorKind, _: Moment, _: Option<Uuid>) {}

        #[expect(clippy::unused_async, reason = "it stands for a hang")]
        pub(in super::super) async fn pass(&self, _: ActorKind, _: Moment, _: Option<Uuid>) {}

        #[expect(clippy::unused_async, reason = "it stands for a slow disk")]
        pub(in super::super) async fn slow_down(&self, _: usize, _: Instant) {}
    }
}
