//! Which actors there are: one a key, started when it is first asked for, replaced when it has died, gone when idle.
//!
//! Actix brings nothing back after a panic, so bringing back is done here: a dead actor is noticed by the next one
//! who asks, and a fresh one takes its place, which reads what the database says.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, Context, Handler, Message};
use actix_rt::ArbiterHandle;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::mailbox::{Gauge, KindCounters, Mailbox, Refused};

/// A life of an actor: no two have the same number, so what was meant for one does not reach its successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation(u64);

/// What a starting actor is told about itself.
pub struct Birth {
    /// Which life this is.
    pub incarnation: Incarnation,
    /// Its own mailbox's gauge, to be closed when it wants to go.
    pub gauge: Arc<Gauge>,
}

/// Asks an actor to go if it has nothing to do. The actor closes its mailbox and stops, or stays.
pub struct Passivate;

impl Message for Passivate {
    type Result = ();
}

struct Resident<A: Actor> {
    mailbox: Mailbox<A>,
    incarnation: Incarnation,
}

/// All actors of one kind.
pub struct Registry<K, A: Actor> {
    residents: DashMap<K, Resident<A>>,
    arbiters: Arc<[ArbiterHandle]>,
    limit: u32,
    counters: Arc<KindCounters>,
    lives: AtomicU64,
    closed: AtomicBool,
    hasher: RandomState,
}

impl<K: Hash + Eq + Copy, A: Actor<Context = Context<A>>> Registry<K, A> {
    /// Starts with nobody. Actors live on `arbiters`, of which there is at least one; each mailbox takes `limit`
    /// messages.
    pub fn new(arbiters: Arc<[ArbiterHandle]>, limit: u32) -> Self {
        let (residents, counters, hasher) = (DashMap::new(), Arc::default(), RandomState::new());
        let (lives, closed) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { residents, arbiters, limit, counters, lives, closed, hasher }
    }

    /// What is counted of the kind.
    pub fn counters(&self) -> &Arc<KindCounters> {
        &self.counters
    }

    /// The mailbox of the key's actor; one is started when there is none, or a dead one.
    pub fn get_or_start(&self, key: K, start: impl FnOnce(Birth) -> A + Send + 'static) -> Mailbox<A> {
        if let Some(resident) = self.residents.get(&key)
            && resident.mailbox.is_open()
        {
            return resident.mailbox.clone();
        }
        match self.residents.entry(key) {
            Entry::Occupied(resident) if resident.get().mailbox.is_open() => resident.get().mailbox.clone(),
            Entry::Occupied(mut resident) => {
                // A closed mailbox is one that went of its own accord; the others died.
                if !resident.get().mailbox.gauge().is_closed() {
                    self.counters.replaced();
                }
                let fresh = self.start(&key, start);
                let mailbox = fresh.mailbox.clone();
                resident.insert(fresh);
                mailbox
            }
            Entry::Vacant(place) => {
                self.counters.started();
                let fresh = self.start(&key, start);
                let mailbox = fresh.mailbox.clone();
                place.insert(fresh);
                mailbox
            }
        }
    }

    /// Sends a message to the key's actor, which is started when there is none. A mailbox that closes just then is
    /// not an answer: the message was not sent, and its successor gets it.
    ///
    /// # Errors
    /// The message, when the mailbox is full.
    pub fn post<M>(&self, key: K, message: M, start: impl Fn(Birth) -> A + Clone + Send + 'static) -> Result<(), M>
    where
        M: Send + 'static,
        A: Handler<super::mailbox::Posted<M>>,
        A::Context: ToEnvelope<A, super::mailbox::Posted<M>>,
    {
        let mut message = message;
        loop {
            match self.get_or_start(key, start.clone()).post(message) {
                Ok(()) => return Ok(()),
                Err((message, Refused::Full)) => return Err(message),
                Err((back, Refused::Closed)) => message = back,
            }
        }
    }

    /// The key's actor, when there is a living one.
    pub fn find(&self, key: K) -> Option<(Mailbox<A>, Incarnation)> {
        let resident = self.residents.get(&key)?;
        resident.mailbox.is_open().then(|| (resident.mailbox.clone(), resident.incarnation))
    }

    /// Forgets an actor that has closed its mailbox, unless another has taken its place.
    pub fn retire(&self, key: K, incarnation: Incarnation) {
        if self.residents.remove_if(&key, |_, resident| resident.incarnation == incarnation).is_some() {
            self.counters.ended();
        }
    }

    /// Asks every actor that had no message for so long to go, and forgets the dead whom nobody asked for since.
    pub fn passivate_idle(&self, idle: Duration)
    where
        A: Handler<Passivate>,
        A::Context: ToEnvelope<A, Passivate>,
    {
        let idle_ms = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        self.residents.retain(|_, resident| {
            let lives = resident.mailbox.is_open();
            if !lives {
                self.counters.ended();
            } else if resident.mailbox.gauge().idle_ms() >= idle_ms {
                resident.mailbox.tell(Passivate);
            }
            lives
        });
    }

    /// From now on nobody is to be woken who works by himself.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Whether [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Forgets all actors; each ends when it has done what it was sent.
    pub fn clear(&self) {
        self.residents.clear();
    }

    fn start(&self, key: &K, start: impl FnOnce(Birth) -> A + Send + 'static) -> Resident<A> {
        let incarnation = Incarnation(self.lives.fetch_add(1, Ordering::Relaxed));
        let gauge = Gauge::new(self.limit, Arc::clone(&self.counters));
        let birth = Birth { incarnation, gauge: Arc::clone(&gauge) };
        let places = u64::try_from(self.arbiters.len()).unwrap_or(1).max(1);
        let place = usize::try_from(self.hasher.hash_one(key) % places).unwrap_or(0);
        let addr = A::start_in_arbiter(&self.arbiters[place], |_| start(birth));
        Resident { mailbox: Mailbox::new(addr, gauge), incarnation }
    }
}
