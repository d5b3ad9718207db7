//! The bounded, counted way to one actor.
//!
//! Actix bounds nothing that we could rely on: clones of an address each own a place, and a queue's length can not be
//! read. So a [`Mailbox`] counts for itself. A message is let in below the limit, counted while its [`Ticket`] lives,
//! and the ticket travels with the message: wherever that ends up (done, dropped with a dead actor, waiting behind
//! another) it is counted until it is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message};

/// The bit of a gauge's state that says that the mailbox has closed.
const CLOSED: u32 = 1 << 31;

/// What is counted of all mailboxes of one kind of actor.
#[derive(Debug, Default)]
pub struct KindCounters {
    depth: AtomicI64,
    live: AtomicI64,
    rejected: AtomicU64,
    restarts: AtomicU64,
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

    /// Messages refused because a mailbox was full.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// Actors that died and were replaced.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    pub(super) fn started(&self) {
        self.live.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn ended(&self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn replaced(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }
}

/// What is counted of one mailbox.
#[derive(Debug)]
pub struct Gauge {
    /// Messages let in and not over, and the bit that says that no more are.
    state: AtomicU32,
    limit: u32,
    /// Milliseconds from `started` to the last message.
    last_message_ms: AtomicU64,
    started: Instant,
    kind: Arc<KindCounters>,
}

/// Why a mailbox did not take a message. It was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// So many wait already that one more is too many.
    Full,
    /// The actor has gone; another may be started in its place.
    Closed,
}

impl Gauge {
    pub(super) fn new(limit: u32, kind: Arc<KindCounters>) -> Arc<Self> {
        let limit = limit.clamp(1, CLOSED - 1);
        let (state, last_message_ms) = (AtomicU32::new(0), AtomicU64::new(0));
        Arc::new(Self { state, limit, last_message_ms, started: Instant::now(), kind })
    }

    /// Lets one message in.
    fn enter(self: &Arc<Self>) -> Result<Ticket, Refused> {
        let entered = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
            (state & CLOSED == 0 && state < self.limit).then_some(state + 1)
        });
        match entered {
            Ok(_) => {
                self.kind.depth.fetch_add(1, Ordering::AcqRel);
                self.last_message_ms.store(self.age_ms(), Ordering::Relaxed);
                Ok(Ticket { gauge: Arc::clone(self) })
            }
            Err(state) if state & CLOSED != 0 => Err(Refused::Closed),
            Err(_) => {
                self.kind.rejected.fetch_add(1, Ordering::Relaxed);
                Err(Refused::Full)
            }
        }
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
        self.age_ms().saturating_sub(self.last_message_ms.load(Ordering::Relaxed))
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// One message's place in a mailbox; dropping it frees the place.
#[derive(Debug)]
pub struct Ticket {
    gauge: Arc<Gauge>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.gauge.state.fetch_sub(1, Ordering::AcqRel);
        self.gauge.kind.depth.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A message with its place in the mailbox.
pub struct Posted<M> {
    /// What is to be done.
    pub message: M,
    /// To be kept until it is done.
    pub ticket: Ticket,
}

impl<M> Message for Posted<M> {
    type Result = ();
}

/// The bounded, counted way to one actor. Clones lead to the same one.
pub struct Mailbox<A: Actor> {
    addr: Addr<A>,
    gauge: Arc<Gauge>,
}

impl<A: Actor> Clone for Mailbox<A> {
    fn clone(&self) -> Self {
        Self { addr: self.addr.clone(), gauge: Arc::clone(&self.gauge) }
    }
}

impl<A: Actor> Mailbox<A> {
    pub(super) fn new(addr: Addr<A>, gauge: Arc<Gauge>) -> Self {
        Self { addr, gauge }
    }

    /// Sends a message, unless too many wait.
    ///
    /// # Errors
    /// The message, and why it was not sent.
    pub fn post<M>(&self, message: M) -> Result<(), (M, Refused)>
    where
        M: Send + 'static,
        A: Handler<Posted<M>>,
        A::Context: ToEnvelope<A, Posted<M>>,
    {
        match self.gauge.enter() {
            Ok(ticket) => {
                self.addr.do_send(Posted { message, ticket });
                Ok(())
            }
            Err(refused) => Err((message, refused)),
        }
    }

    /// Sends what must not be refused and is not counted: outcomes of earlier messages, and orders from above.
    pub(super) fn tell<M>(&self, message: M)
    where
        M: Message<Result = ()> + Send + 'static,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        self.addr.do_send(message);
    }

    pub(super) fn gauge(&self) -> &Gauge {
        &self.gauge
    }

    /// Whether messages still reach a living actor.
    pub(super) fn is_open(&self) -> bool {
        !self.gauge.is_closed() && self.addr.connected()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
