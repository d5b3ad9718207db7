//! What is counted of one actor and of its kind.
//!
//! A message is let in below the mailbox's limit, and counted while its [`Ticket`] lives. The ticket travels with the
//! message: wherever that ends up (done, dropped with a dead actor, waiting behind another) it is counted until it is
//! over. Every message that was let in ends as *processed* or as *failed*, once.
//!
//! What is counted of an actor outlives it: the [`Gauge`] belongs to the actor's place in the registry, and the one that
//! follows a dead actor goes on with it. Whoever looks reads the counters, and asks nobody.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures_util::task::AtomicWaker;

use super::command::CommandError;
use super::latency::{Latency, LatencyView};
use super::mailbox::Refused;

/// The bit of a gauge's state that says that the mailbox has closed.
const CLOSED: u32 = 1 << 31;
/// Nothing waits.
const NOTHING: u64 = u64::MAX;
/// Characters of an error that are kept.
const ERROR_CHARACTERS_MAX: usize = 500;

/// What is counted of all actors of one kind, since the server started.
#[derive(Debug, Default)]
pub struct KindCounters {
    depth: AtomicI64,
    live: AtomicI64,
    processed: AtomicU64,
    failed: AtomicU64,
    rejected: AtomicU64,
    restarts: AtomicU64,
    panics: AtomicU64,
    errors: AtomicU64,
    kills: AtomicU64,
    quarantined: AtomicI64,
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident;)+) => {
        $(
            $(#[$doc])*
            #[must_use]
            pub fn $name(&self) -> u64 {
                self.$name.load(Ordering::Relaxed)
            }
        )+
    };
}

impl KindCounters {
    /// Messages that wait or are at work, in all mailboxes of the kind.
    #[must_use]
    pub fn depth(&self) -> i64 {
        self.depth.load(Ordering::Acquire)
    }

    /// Actors that are there.
    #[must_use]
    pub fn live(&self) -> i64 {
        self.live.load(Ordering::Relaxed)
    }

    /// Actors that are in quarantine.
    #[must_use]
    pub fn quarantined(&self) -> i64 {
        self.quarantined.load(Ordering::Relaxed)
    }

    counts! {
        /// Messages that were done, whether what they asked for was granted or refused by a rule.
        processed;
        /// Messages that ended without having been done: the actor died, their deadline had passed, the database failed.
        failed;
        /// Messages that were not let in: the mailbox was full, or its actor was down.
        rejected;
        /// Actors that took the place of a dead one.
        restarts;
        /// Panics, in an actor or in a task that it had begun.
        panics;
        /// Times that an actor could not do its work for want of something else, a database that was away say.
        errors;
        /// Actors that were ended from outside: by an administrator, or because they hung.
        kills;
    }

    pub(super) fn started(&self) {
        self.live.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn ended(&self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn quarantine_begins(&self) {
        self.quarantined.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn quarantine_ends(&self) {
        self.quarantined.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn killed(&self) {
        self.kills.fetch_add(1, Ordering::Relaxed);
    }
}

/// What is counted of one actor, its dead predecessors included.
#[derive(Debug)]
pub struct Gauge {
    /// Messages let in and not over, and the bit that says that no more are.
    state: AtomicU32,
    limit: u32,
    high_water: AtomicU32,
    restarts: AtomicU32,
    processed: AtomicU64,
    failed: AtomicU64,
    rejected: AtomicU64,
    latency: Latency,
    /// Milliseconds from `born` to the start of the actor that lives.
    started_ms: AtomicU64,
    /// Milliseconds from `born` to the last message; [`NOTHING`] when none has come.
    last_message_ms: AtomicU64,
    /// Milliseconds from `born` to when the oldest message that waits came, or the one at work; [`NOTHING`] when
    /// there is none. Counts only while there are messages.
    oldest_ms: AtomicU64,
    born: Instant,
    /// `born`, for people.
    born_at: SystemTime,
    last_error: Mutex<Option<Arc<str>>>,
    /// The actor is to end at once.
    kill: AtomicBool,
    killed: AtomicWaker,
    kind: Arc<KindCounters>,
}

impl Gauge {
    pub(super) fn new(limit: u32, kind: Arc<KindCounters>) -> Arc<Self> {
        Arc::new(Self {
            state: AtomicU32::new(0),
            limit: limit.clamp(1, CLOSED - 1),
            high_water: AtomicU32::new(0),
            restarts: AtomicU32::new(0),
            processed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            latency: Latency::new(),
            started_ms: AtomicU64::new(0),
            last_message_ms: AtomicU64::new(NOTHING),
            oldest_ms: AtomicU64::new(NOTHING),
            born: Instant::now(),
            born_at: SystemTime::now(),
            last_error: Mutex::new(None),
            kill: AtomicBool::new(false),
            killed: AtomicWaker::new(),
            kind,
        })
    }

    /// Lets one message in, if there is a place.
    pub(super) fn enter(self: &Arc<Self>) -> Result<Ticket, Refused> {
        let now_ms = self.age_ms();
        let entered = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
            (state & CLOSED == 0 && state < self.limit).then_some(state + 1)
        });
        match entered {
            Ok(before) => {
                self.kind.depth.fetch_add(1, Ordering::AcqRel);
                if before == 0 {
                    self.oldest_ms.store(now_ms, Ordering::Relaxed);
                } else if self.oldest_ms.load(Ordering::Relaxed) == NOTHING {
                    // Lost when the actor says so of another one just now, which is as true.
                    let _ = self.oldest_ms.compare_exchange(NOTHING, now_ms, Ordering::Relaxed, Ordering::Relaxed);
                }
                if before >= self.high_water.load(Ordering::Relaxed) {
                    self.high_water.fetch_max(before + 1, Ordering::Relaxed);
                }
                self.last_message_ms.store(now_ms, Ordering::Relaxed);
                Ok(Ticket { gauge: Arc::clone(self), entered_ms: now_ms, begun: None, done: false })
            }
            Err(state) if state & CLOSED != 0 => Err(Refused::Closed),
            Err(_) => {
                self.reject();
                Err(Refused::Full)
            }
        }
    }

    /// Counts a message that was not let in.
    pub(super) fn reject(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        self.kind.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// Closes the mailbox, if nothing at all is in it: from then on every sender is told to look for another.
    pub(super) fn close_if_empty(&self) -> bool {
        self.state.compare_exchange(0, CLOSED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.load(Ordering::Acquire) & CLOSED != 0
    }

    /// For how long no message has come, in milliseconds.
    pub(super) fn idle_ms(&self) -> u64 {
        let last_ms = self.last_message_ms.load(Ordering::Relaxed);
        let since_ms = if last_ms == NOTHING { self.started_ms.load(Ordering::Relaxed) } else { last_ms };
        self.age_ms().saturating_sub(since_ms)
    }

    /// Says which message has waited longest: for an actor whose messages do not begin in the order they came.
    pub(super) fn oldest_is(&self, oldest: Option<&Ticket>) {
        self.oldest_ms.store(oldest.map_or(NOTHING, |ticket| ticket.entered_ms), Ordering::Relaxed);
    }

    /// An actor starts with this gauge; `again` when it follows one that died.
    pub(super) fn starts(&self, again: bool) {
        self.kill.store(false, Ordering::Release);
        // What waited went with the dead one.
        self.oldest_ms.store(NOTHING, Ordering::Relaxed);
        self.started_ms.store(self.age_ms(), Ordering::Relaxed);
        if again {
            self.restarts.fetch_add(1, Ordering::Relaxed);
            self.kind.restarts.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The actor could not do its work for want of something else. It is not at fault.
    pub(super) fn error(&self, error: &str) {
        self.kind.errors.fetch_add(1, Ordering::Relaxed);
        self.keep_error(error);
    }

    /// A task that the actor had begun has panicked; the actor lives.
    pub(super) fn task_panicked(&self, told: &str) {
        self.kind.panicked();
        self.keep_error(told);
    }

    /// Keeps what went wrong, for people.
    pub(super) fn keep_error(&self, error: &str) {
        *self.last_error() = Some(error.chars().take(ERROR_CHARACTERS_MAX).collect::<String>().into());
    }

    /// Has the actor end at once, whatever it is at.
    pub(super) fn kill(&self) {
        self.kill.store(true, Ordering::Release);
        self.killed.wake();
    }

    /// Whether the actor is to end; if not, `waker` is woken when it is.
    pub(super) fn is_killed(&self, waker: &std::task::Waker) -> bool {
        self.killed.register(waker);
        self.kill.load(Ordering::Acquire)
    }

    /// How long the oldest message has waited or been at work, in milliseconds; `None` when there is none.
    pub(super) fn oldest_age_ms(&self) -> Option<u64> {
        self.waited_ms(self.age_ms()).filter(|_| self.depth() > 0)
    }

    /// What there is to tell, but for the state.
    pub(super) fn view(&self) -> GaugeView {
        let at = |ms: u64| self.born_at + Duration::from_millis(ms);
        let last_message_ms = self.last_message_ms.load(Ordering::Relaxed);
        GaugeView {
            depth: self.depth(),
            capacity: self.limit,
            high_water: self.high_water.load(Ordering::Relaxed),
            oldest_age: self.oldest_age_ms().map(Duration::from_millis),
            processed: self.processed(),
            failed: self.failed.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
            restarts: self.restarts.load(Ordering::Relaxed),
            last_error: self.last_error().clone(),
            latency: self.latency.view(),
            started_at: at(self.started_ms.load(Ordering::Relaxed)),
            last_message_at: (last_message_ms != NOTHING).then(|| at(last_message_ms)),
        }
    }

    /// Messages let in and not over.
    pub(super) fn depth(&self) -> u32 {
        self.state.load(Ordering::Acquire) & !CLOSED
    }

    /// Messages that were done.
    pub(super) fn processed(&self) -> u64 {
        self.processed.load(Ordering::Relaxed)
    }

    fn last_error(&self) -> MutexGuard<'_, Option<Arc<str>>> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waited_ms(&self, now_ms: u64) -> Option<u64> {
        let oldest_ms = self.oldest_ms.load(Ordering::Relaxed);
        (oldest_ms != NOTHING).then(|| now_ms.saturating_sub(oldest_ms))
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(NOTHING - 1)
    }
}

/// What is told of one actor's mailbox and work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GaugeView {
    /// Messages that wait or are at work.
    pub depth: u32,
    /// Messages that may be there at a time.
    pub capacity: u32,
    /// The most that were there at a time.
    pub high_water: u32,
    /// How long the oldest of them has been there, or a little more.
    pub oldest_age: Option<Duration>,
    /// Messages that were done.
    pub processed: u64,
    /// Messages that ended without having been done.
    pub failed: u64,
    /// Messages that were not let in.
    pub rejected: u64,
    /// Times that it took the place of a dead one.
    pub restarts: u32,
    /// What last went wrong.
    pub last_error: Option<Arc<str>>,
    /// How long messages took from their beginning to their end.
    pub latency: Option<LatencyView>,
    /// When the actor that lives was started.
    pub started_at: SystemTime,
    /// When the last message came.
    pub last_message_at: Option<SystemTime>,
}

/// One message's place in a mailbox; dropping it frees the place. The message then counts as failed, unless it was said
/// to be done: whatever becomes of an actor, what was lost with it is not taken for work that was done.
#[derive(Debug)]
pub struct Ticket {
    gauge: Arc<Gauge>,
    entered_ms: u64,
    begun: Option<Instant>,
    done: bool,
}

impl Ticket {
    /// The message's turn has come; what waits now came after it.
    pub fn begin(&mut self) {
        self.gauge.oldest_ms.store(self.entered_ms, Ordering::Relaxed);
        self.begin_among_others();
    }

    /// The message's turn has come, together with others or before older ones: who waits longest is said by
    /// [`Gauge::oldest_is`].
    pub(super) fn begin_among_others(&mut self) {
        self.begun = Some(Instant::now());
    }

    /// The message was done: what it asked for was granted, or refused by a rule.
    pub fn done(mut self) {
        self.done = true;
    }

    /// The message is over: done if `answer` is one, and failed if something did not work.
    pub(super) fn answered<T>(self, answer: &Result<T, CommandError>) {
        if !answer.as_ref().is_err_and(CommandError::is_fault) {
            self.done();
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Gauge { state, processed, failed, latency, kind, .. } = &*self.gauge;
        if self.done {
            if let Some(begun) = self.begun {
                latency.record(begun.elapsed());
            }
            processed.fetch_add(1, Ordering::Relaxed);
            kind.processed.fetch_add(1, Ordering::Relaxed);
        } else {
            failed.fetch_add(1, Ordering::Relaxed);
            kind.failed.fetch_add(1, Ordering::Relaxed);
        }
        state.fetch_sub(1, Ordering::AcqRel);
        kind.depth.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::mailbox::Unposted;

    fn gauge(limit: u32) -> (Arc<Gauge>, Arc<KindCounters>) {
        let kind = Arc::new(KindCounters::default());
        (Gauge::new(limit, Arc::clone(&kind)), kind)
    }

    #[test]
    fn takes_up_to_the_limit_and_again_when_one_is_over() {
        let (gauge, kind) = gauge(2);
        let first = gauge.enter().expect("room");
        let _second = gauge.enter().expect("room");
        assert_eq!(gauge.enter().err(), Some(Refused::Full));
        assert_eq!((kind.depth(), kind.rejected()), (2, 1));
        drop(first);
        assert!(gauge.enter().is_ok());
        assert_eq!(gauge.view().high_water, 2);
    }

    #[test]
    fn a_message_ends_as_processed_or_as_failed_once() {
        let (gauge, kind) = gauge(9);
        let begun = || {
            let mut ticket = gauge.enter().expect("room");
            ticket.begin();
            ticket
        };
        begun().done();
        begun().answered(&Err::<(), _>(CommandError::InsufficientStock { available: 0 }));
        begun().answered(&Err::<(), _>(CommandError::Unposted(Unposted::Full)));
        drop(begun());
        let view = gauge.view();
        assert_eq!((view.processed, view.failed, view.depth), (2, 2, 0));
        assert_eq!((kind.processed(), kind.failed(), kind.depth()), (2, 2, 0));
    }

    #[test]
    fn the_age_of_the_oldest_is_that_of_the_one_who_waits_or_is_at_work() {
        let (gauge, _) = gauge(9);
        assert_eq!(gauge.oldest_age_ms(), None);
        let mut first = gauge.enter().expect("room");
        while gauge.oldest_age_ms() == Some(0) {
            std::thread::yield_now();
        }
        let second = gauge.enter().expect("room");
        first.begin();
        assert!(gauge.oldest_age_ms().is_some_and(|ms| ms > 0), "it is at work");
        gauge.oldest_is(Some(&second));
        first.done();
        assert!(gauge.oldest_age_ms().is_some());
        gauge.oldest_is(None);
        assert_eq!(gauge.oldest_age_ms(), None, "nobody waits");
    }

    #[test]
    fn closes_only_when_empty_and_then_for_good() {
        let (gauge, kind) = gauge(2);
        let ticket = gauge.enter().expect("room");
        assert!(!gauge.close_if_empty());
        drop(ticket);
        assert!(gauge.close_if_empty());
        assert_eq!(gauge.enter().err(), Some(Refused::Closed));
        assert_eq!((kind.depth(), kind.rejected()), (0, 0), "a closed mailbox rejects nothing: there will be another");
    }

    #[test]
    fn a_sender_and_a_closing_actor_never_both_win() {
        for _ in 0..2_000 {
            let (gauge, _) = gauge(1);
            let barrier = std::sync::Barrier::new(2);
            let (entered, closed) = std::thread::scope(|scope| {
                let sender = scope.spawn(|| {
                    barrier.wait();
                    gauge.enter().map(std::mem::forget).is_ok()
                });
                barrier.wait();
                let closed = gauge.close_if_empty();
                (sender.join().expect("no panic"), closed)
            });
            assert!(entered != closed);
        }
    }
}
