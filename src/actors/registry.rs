//! Which actors there are: one a key, started when it is first asked for, replaced when it has died, gone when idle.
//!
//! Actix brings nothing back after a panic, so bringing back is done here: each actor's end is noted as it happens
//! ([`supervision`](super::supervision)), and the next message starts a fresh one, which reads what the database says,
//! unless the policy says that it is too early or that it died too often.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix::dev::{ToEnvelope, channel};
use actix::{Actor, Addr, Context, Handler, Message};
use actix_rt::ArbiterHandle;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use uuid::Uuid;

use crate::domain::ids::{CartKey, InventoryId};

use super::gauge::{Gauge, KindCounters};
use super::mailbox::{Mailbox, Posted, Refused, Unposted};
use super::roster::{ActorState, ActorView, Candidate, Cut, Kind, KindSummary};
use super::supervision::{ActorKind, Death, Deaths, Identity, Panicked, Policy, Supervised, Task};

/// Places in the queue between an address and its actor. Ours are counted by the gauge; actix bounds nothing here.
const ADDRESS_CAPACITY: usize = 16;

/// A life of an actor: no two have the same number, so what was meant for one does not reach its successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation(u64);

/// What a starting actor is told about itself.
#[derive(Clone)]
pub struct Birth {
    /// Who it is.
    pub identity: Identity,
    /// Which life this is.
    pub incarnation: Incarnation,
    /// Its own mailbox's gauge, to be closed when it wants to go.
    pub gauge: Arc<Gauge>,
}

impl Birth {
    /// Does something on a task of its own in the actor's name. A panic in it is counted and told as the actor's, who
    /// lives on.
    pub(super) fn spawn<F>(&self, task: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        Task::begin(self.identity, task, self.on_death())
    }

    /// The same on the actor's own thread. What asks actors and the journal again and again is done there: each answer from one thread
    /// to another costs more than what is asked.
    pub(super) fn spawn_here<F>(&self, task: F) -> Task<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        Task::begin_here(self.identity, task, self.on_death())
    }

    /// What is done when a task has died.
    fn on_death(&self) -> impl FnOnce(&Panicked) + Send + Unpin + 'static {
        let (identity, gauge) = (self.identity, Arc::clone(&self.gauge));
        move |Panicked(told)| {
            tracing::error!(kind = identity.kind.name(), id = %identity, "a task of an actor died: {told}");
            gauge.task_panicked(told);
        }
    }
}

/// Asks an actor to go if it has nothing to do. The actor closes its mailbox and stops, or stays.
pub struct Passivate;

impl Message for Passivate {
    type Result = ();
}

/// What tells the actors of one kind apart.
pub trait ActorKey: Hash + Eq + Ord + Copy + Send + Sync + 'static {
    /// The row that the actor stands before; `None` when there is one actor of the kind.
    fn row(self) -> Option<Uuid>;
    /// The key of that row, if it is one.
    fn of_row(row: Option<Uuid>) -> Option<Self>;
}

impl ActorKey for () {
    fn row(self) -> Option<Uuid> {
        None
    }

    fn of_row(row: Option<Uuid>) -> Option<Self> {
        row.is_none().then_some(())
    }
}

impl ActorKey for InventoryId {
    fn row(self) -> Option<Uuid> {
        Some(self.0)
    }

    fn of_row(row: Option<Uuid>) -> Option<Self> {
        row.map(Self)
    }
}

impl ActorKey for CartKey {
    fn row(self) -> Option<Uuid> {
        Some(self.0)
    }

    fn of_row(row: Option<Uuid>) -> Option<Self> {
        row.map(Self)
    }
}

struct Resident<A: Actor> {
    mailbox: Mailbox<A>,
    incarnation: Incarnation,
    deaths: Deaths,
}

impl<A: Actor> Resident<A> {
    fn state(&self, now: Instant) -> ActorState {
        if self.mailbox.is_open() {
            return ActorState::Running;
        }
        match self.deaths.may_start(now) {
            Ok(()) => ActorState::Down,
            Err(Unposted::Quarantined { .. }) => ActorState::Quarantined,
            Err(Unposted::Restarting | Unposted::Full) => ActorState::Restarting,
        }
    }
}

/// All actors of one kind.
pub struct Registry<K, A: Actor> {
    residents: DashMap<K, Resident<A>>,
    arbiters: Arc<[ArbiterHandle]>,
    kind: ActorKind,
    policy: Policy,
    limit: u32,
    counters: Arc<KindCounters>,
    lives: AtomicU64,
    closed: AtomicBool,
    hasher: RandomState,
}

impl<K: ActorKey, A: Actor<Context = Context<A>>> Registry<K, A> {
    /// Starts with nobody. Actors live on `arbiters`, of which there is at least one; each mailbox takes `limit`
    /// messages.
    pub fn new(kind: ActorKind, policy: Policy, arbiters: Arc<[ArbiterHandle]>, limit: u32) -> Self {
        let (residents, counters, hasher) = (DashMap::new(), Arc::default(), RandomState::new());
        let (lives, closed) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { residents, arbiters, kind, policy, limit, counters, lives, closed, hasher }
    }

    /// What is counted of the kind.
    pub fn counters(&self) -> &Arc<KindCounters> {
        &self.counters
    }

    /// The mailbox of the key's actor; one is started when there is none, or a dead one.
    ///
    /// # Errors
    /// [`Unposted::Restarting`] or [`Unposted::Quarantined`], when the actor has died and no other may be started.
    pub fn get_or_start(
        self: &Arc<Self>,
        key: K,
        start: impl FnOnce(Birth) -> A + Send + 'static,
    ) -> Result<Mailbox<A>, Unposted> {
        if let Some(resident) = self.residents.get(&key)
            && resident.mailbox.is_open()
        {
            return Ok(resident.mailbox.clone());
        }
        match self.residents.entry(key) {
            Entry::Occupied(resident) if resident.get().mailbox.is_open() => Ok(resident.get().mailbox.clone()),
            Entry::Occupied(mut entry) => {
                let resident = entry.get_mut();
                let gauge = resident.mailbox.gauge();
                // A closed mailbox is one that went of its own accord; the others died, and their successor goes on
                // with what was counted.
                let gauge = if gauge.is_closed() {
                    self.fresh_gauge()
                } else {
                    resident.deaths.may_start(Instant::now()).inspect_err(|_| gauge.reject())?;
                    gauge.starts(true);
                    Arc::clone(gauge)
                };
                (resident.mailbox, resident.incarnation) = self.start(key, gauge, start);
                Ok(resident.mailbox.clone())
            }
            Entry::Vacant(place) => {
                let (mailbox, incarnation) = self.start(key, self.fresh_gauge(), start);
                place.insert(Resident { mailbox: mailbox.clone(), incarnation, deaths: Deaths::default() });
                Ok(mailbox)
            }
        }
    }

    /// Sends a message to the key's actor, which is started when there is none. A mailbox that closes just then is
    /// not an answer: the message was not sent, and its successor gets it.
    ///
    /// # Errors
    /// The message, and why nobody has it.
    pub fn post<M>(
        self: &Arc<Self>,
        key: K,
        message: M,
        start: impl Fn(Birth) -> A + Clone + Send + 'static,
    ) -> Result<(), (M, Unposted)>
    where
        M: Send + 'static,
        A: Handler<Posted<M>>,
        A::Context: ToEnvelope<A, Posted<M>>,
    {
        let mut message = message;
        loop {
            let mailbox = match self.get_or_start(key, start.clone()) {
                Ok(mailbox) => mailbox,
                Err(down) => return Err((message, down)),
            };
            match mailbox.post(message) {
                Ok(()) => return Ok(()),
                Err((message, Refused::Full)) => return Err((message, Unposted::Full)),
                Err((back, Refused::Closed)) => message = back,
            }
        }
    }

    /// Counts a message that the key's actor was not even asked to take.
    pub(super) fn reject(&self, key: K) {
        if let Some(resident) = self.residents.get(&key) {
            resident.mailbox.gauge().reject();
        }
    }

    /// The key's actor, when there is a living one.
    pub fn find(&self, key: K) -> Option<(Mailbox<A>, Incarnation)> {
        let resident = self.residents.get(&key)?;
        resident.mailbox.is_open().then(|| (resident.mailbox.clone(), resident.incarnation))
    }

    /// Forgets an actor that has closed its mailbox, unless another has taken its place.
    pub fn retire(&self, key: K, incarnation: Incarnation) {
        self.residents.remove_if(&key, |_, resident| resident.incarnation == incarnation);
    }

    /// Asks every actor that had no message for so long to go; ends those that hang; and forgets the dead whom nobody
    /// asked for since, unless it is still to be known that they died.
    pub fn passivate_idle(&self, idle: Duration)
    where
        A: Handler<Passivate>,
        A::Context: ToEnvelope<A, Passivate>,
    {
        let (now, milliseconds) =
            (Instant::now(), |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
        let (idle_ms, hang_ms) = (milliseconds(idle), self.policy.hang_limit.map(milliseconds));
        self.residents.retain(|key, resident| {
            if !resident.mailbox.is_open() {
                return resident.deaths.count_at(now, &self.policy);
            }
            let gauge = resident.mailbox.gauge();
            if let Some((age_ms, limit_ms)) = gauge.oldest_age_ms().zip(hang_ms)
                && age_ms > limit_ms
            {
                tracing::error!(kind = self.kind.name(), id = %self.identity(*key), age_ms, "an actor hangs and is ended");
                gauge.keep_error(&format!("hung: a message was not done within {limit_ms} ms"));
                gauge.kill();
            } else if gauge.idle_ms() >= idle_ms {
                resident.mailbox.tell(Passivate);
            }
            true
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

    fn identity(&self, key: K) -> Identity {
        Identity { kind: self.kind, key: key.row() }
    }

    fn fresh_gauge(&self) -> Arc<Gauge> {
        Gauge::new(self.limit, Arc::clone(&self.counters))
    }

    fn start(
        self: &Arc<Self>,
        key: K,
        gauge: Arc<Gauge>,
        start: impl FnOnce(Birth) -> A + Send + 'static,
    ) -> (Mailbox<A>, Incarnation) {
        let (identity, incarnation) = (self.identity(key), Incarnation(self.lives.fetch_add(1, Ordering::Relaxed)));
        let places = u64::try_from(self.arbiters.len()).unwrap_or(1).max(1);
        let place = usize::try_from(self.hasher.hash_one(key) % places).unwrap_or(0);
        let (sender, receiver) = channel::channel(ADDRESS_CAPACITY);
        self.counters.started();
        let (counters, counters_too) = (Arc::clone(&self.counters), Arc::clone(&self.counters));
        let (registry, its_gauge) = (Arc::downgrade(self), Arc::clone(&gauge));
        let began = self.arbiters[place].spawn_fn(move || {
            let birth = Birth { identity, incarnation, gauge: Arc::clone(&its_gauge) };
            let actor = Context::with_receiver(receiver).into_future(start(birth));
            let died = move |death| {
                if let Some(registry) = registry.upgrade() {
                    registry.died(key, incarnation, &death);
                }
            };
            actix_rt::spawn(Supervised::new(actor, identity, its_gauge, died, move || counters.ended()));
        });
        if !began {
            // The arbiter has stopped: the server has, and nobody will answer.
            counters_too.ended();
        }
        (Mailbox::new(Addr::new(sender), gauge), incarnation)
    }

    /// Notes how an actor died.
    fn died(&self, key: K, incarnation: Incarnation, death: &Death) {
        let identity = self.identity(key);
        match death {
            Death::Panic(told) => {
                self.counters.panicked();
                tracing::error!(kind = self.kind.name(), id = %identity, "an actor died: {told}");
            }
            Death::Kill => self.counters.killed(),
        }
        let Some(mut resident) = self.residents.get_mut(&key).filter(|it| it.incarnation == incarnation) else {
            return;
        };
        if let Death::Panic(told) = death {
            resident.mailbox.gauge().keep_error(told);
            if resident.deaths.note(Instant::now(), &self.policy) {
                self.counters.quarantine_begins();
                tracing::error!(kind = self.kind.name(), id = %identity, "it is quarantined until an administrator restarts it");
            }
        }
    }
}

impl<K: ActorKey, A: Actor<Context = Context<A>>> Kind for Registry<K, A> {
    fn kind(&self) -> ActorKind {
        self.kind
    }

    fn summary(&self) -> KindSummary {
        KindSummary::of(self.kind, &self.counters)
    }

    fn cut(&self, cut: &mut Cut) {
        for resident in &self.residents {
            let gauge = resident.mailbox.gauge();
            cut.offer(Candidate {
                kind: self.kind,
                row: resident.key().row(),
                depth: gauge.depth(),
                processed: gauge.processed(),
            });
        }
    }

    fn view(&self, row: Option<Uuid>) -> Option<ActorView> {
        let resident = self.residents.get(&K::of_row(row)?)?;
        let (state, gauge) = (resident.state(Instant::now()), resident.mailbox.gauge().view());
        Some(ActorView { identity: Identity { kind: self.kind, key: row }, state, gauge })
    }

    fn restart(&self, row: Option<Uuid>) -> Option<ActorState> {
        let mut resident = self.residents.get_mut(&K::of_row(row)?)?;
        if std::mem::take(&mut resident.deaths).is_quarantined() {
            self.counters.quarantine_ends();
        }
        if resident.mailbox.is_open() {
            resident.mailbox.gauge().keep_error("ended by an administrator");
            resident.mailbox.gauge().kill();
        }
        Some(ActorState::Down)
    }
}
