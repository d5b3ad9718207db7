//! What becomes of an actor that dies: who it was and why, when the next one may start, and whether one may at all.
//!
//! Actix ends an actor that panics and brings nothing back. So each actor's future runs inside of `Supervised`, which
//! sees every end of it and tells the registry. The registry starts another one at the next message, from what the
//! database says: at once after a first death, later after each further one, and not at all when there were too many
//! within a while. Only panics count. An actor that finds the database away, and one that is ended from outside, are
//! not at fault.
//!
//! The idea of a supervisor that builds a new actor, and that counts panics, errors and kills apart, is Erlang's.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Once};
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use actix::dev::ContextFut;
use actix::{Actor, Context};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::gauge::Gauge;
use super::mailbox::Unposted;

/// The kinds of actors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ActorKind {
    /// The cart of one session.
    Cart,
    /// The storekeeper of one product's stock.
    Inventory,
    /// The one writer of stock, carts and orders.
    Journal,
    /// The one who has queued mails sent.
    Mailer,
    /// The order coordinator.
    Orders,
    /// The one who tells the bus of what is in the outbox.
    Relay,
    /// The one who ends what is over.
    Sweeper,
}

impl ActorKind {
    /// All kinds, in the order of their names.
    pub const ALL: [Self; 7] =
        [Self::Cart, Self::Inventory, Self::Journal, Self::Mailer, Self::Orders, Self::Relay, Self::Sweeper];

    /// The name in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cart => "cart",
            Self::Inventory => "inventory",
            Self::Journal => "journal",
            Self::Mailer => "mailer",
            Self::Orders => "orders",
            Self::Relay => "relay",
            Self::Sweeper => "sweeper",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Which actor of a kind: the row that it stands before, or nothing where there is one of the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The kind.
    pub kind: ActorKind,
    /// The row; `None` where there is one of the kind.
    pub key: Option<Uuid>,
}

/// The id of an actor that is the only one of its kind.
pub const ONLY: &str = "main";

impl fmt::Display for Identity {
    /// The id in the API, without the kind.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key {
            Some(key) => key.hyphenated().fmt(f),
            None => f.write_str(ONLY),
        }
    }
}

/// When actors of a kind are started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Deaths within `window` at which an actor is quarantined; `None` is never.
    pub deaths_max: Option<u32>,
    /// How long a death counts.
    pub window: Duration,
    /// The wait after a second death; it doubles with each further one.
    pub backoff_min: Duration,
    /// The longest wait.
    pub backoff_max: Duration,
    /// How long a message may wait or be at work before its actor is ended; `None` is for ever.
    pub hang_limit: Option<Duration>,
}

impl Default for Policy {
    /// What a shop has that sets nothing.
    fn default() -> Self {
        Self {
            deaths_max: Some(5),
            window: Duration::from_secs(60),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(5),
            hang_limit: Some(Duration::from_secs(60)),
        }
    }
}

impl Policy {
    /// The policy for an actor that is the only one of its kind: the shop stands still without it, so it is started
    /// again and again.
    #[must_use]
    pub fn of_the_only_one(self) -> Self {
        Self { deaths_max: None, hang_limit: None, ..self }
    }

    fn backoff(self, deaths: usize) -> Duration {
        let doublings = u32::try_from(deaths.saturating_sub(2)).unwrap_or(u32::MAX);
        let grown = 2_u32.checked_pow(doublings).and_then(|factor| self.backoff_min.checked_mul(factor));
        if deaths < 2 { Duration::ZERO } else { grown.unwrap_or(self.backoff_max).min(self.backoff_max) }
    }
}

/// Deaths that are remembered at most where none of them leads to quarantine: more do not make the wait longer.
const DEATHS_REMEMBERED: usize = 32;

/// What is known of an actor's deaths.
#[derive(Debug, Default)]
pub(super) struct Deaths {
    /// Within the window, oldest first.
    recent: Vec<Instant>,
    resume_at: Option<Instant>,
    quarantined: bool,
}

impl Deaths {
    /// Notes a death at `now`. Gives whether quarantine begins with it.
    pub(super) fn note(&mut self, now: Instant, policy: &Policy) -> bool {
        self.forget_old(now, policy);
        let remembered = policy.deaths_max.map_or(DEATHS_REMEMBERED, |most| most as usize);
        if self.recent.len() >= remembered {
            self.recent.remove(0);
        }
        self.recent.push(now);
        self.resume_at = now.checked_add(policy.backoff(self.recent.len()));
        let too_many = policy.deaths_max.is_some_and(|most| self.recent.len() >= most as usize);
        too_many && !std::mem::replace(&mut self.quarantined, true)
    }

    /// Whether another one may be started at `now`.
    pub(super) fn may_start(&self, now: Instant) -> Result<(), Unposted> {
        if self.quarantined {
            return Err(Unposted::Quarantined { deaths: u32::try_from(self.recent.len()).unwrap_or(u32::MAX) });
        }
        if self.resume_at.is_some_and(|at| now < at) { Err(Unposted::Restarting) } else { Ok(()) }
    }

    /// Whether there is something to remember.
    pub(super) fn count_at(&mut self, now: Instant, policy: &Policy) -> bool {
        self.forget_old(now, policy);
        self.quarantined || !self.recent.is_empty()
    }

    pub(super) fn is_quarantined(&self) -> bool {
        self.quarantined
    }

    fn forget_old(&mut self, now: Instant, policy: &Policy) {
        if !self.quarantined {
            self.recent.retain(|at| now.saturating_duration_since(*at) < policy.window);
        }
    }
}

/// How an actor ended that did not go of its own accord.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Death {
    /// It panicked: with what, and where.
    Panic(String),
    /// It was ended from outside.
    Kill,
}

/// The future of an actor. Sees how it ends, and ends it when its gauge says so.
pub(super) struct Supervised<A: Actor<Context = Context<A>>> {
    actor: Option<ContextFut<A, Context<A>>>,
    identity: Identity,
    gauge: Arc<Gauge>,
    /// Is told once, unless the actor went of its own accord.
    died: Option<Box<dyn FnOnce(Death)>>,
    /// Is told once, however it ended, also when the thread goes.
    ended: Option<Box<dyn FnOnce()>>,
}

impl<A: Actor<Context = Context<A>>> Supervised<A> {
    pub(super) fn new(
        actor: ContextFut<A, Context<A>>,
        identity: Identity,
        gauge: Arc<Gauge>,
        died: impl FnOnce(Death) + 'static,
        ended: impl FnOnce() + 'static,
    ) -> Self {
        Self { actor: Some(actor), identity, gauge, died: Some(Box::new(died)), ended: Some(Box::new(ended)) }
    }

    /// Tells how the actor died, then drops it, with all that it has and all that waits in its mailbox. In this order,
    /// since as long as it is there no other takes its place.
    fn bury(&mut self, death: Death) {
        if let Some(died) = self.died.take() {
            died(death);
        }
        // What is dropped may panic in turn; that is no reason to take the thread along.
        if catch_unwind(AssertUnwindSafe(|| drop(self.actor.take()))).is_err() {
            tracing::error!(kind = self.identity.kind.name(), id = %self.identity, "an actor panicked while it was put away");
        }
    }
}

impl<A: Actor<Context = Context<A>>> Future for Supervised<A> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<()> {
        let this = &mut *self;
        let _scope = Scope::enter(this.identity);
        if this.gauge.is_killed(context.waker()) {
            this.bury(Death::Kill);
            return Poll::Ready(());
        }
        let Some(actor) = &mut this.actor else { return Poll::Ready(()) };
        match catch_unwind(AssertUnwindSafe(|| Pin::new(actor).poll(context))) {
            Ok(polled) => polled,
            Err(panic) => {
                this.bury(Death::Panic(told(panic.as_ref())));
                Poll::Ready(())
            }
        }
    }
}

impl<A: Actor<Context = Context<A>>> Drop for Supervised<A> {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.take() {
            ended();
        }
    }
}

thread_local! {
    static CURRENT: Cell<Option<Identity>> = const { Cell::new(None) };
    /// Where the newest panic of this thread was.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The actor that is at work on this thread, or whose task is; `None` when it is none's.
#[must_use]
pub fn current() -> Option<Identity> {
    CURRENT.get()
}

/// From its making to its end an actor is at work on this thread.
struct Scope(Option<Identity>);

impl Scope {
    fn enter(identity: Identity) -> Self {
        Self(CURRENT.replace(Some(identity)))
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

/// A task has panicked: with what, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Panicked(pub(super) String);

impl Panicked {
    /// Goes on with the panic here: the actor dies of it. It is not logged a second time.
    pub(super) fn resume(self) -> ! {
        std::panic::resume_unwind(Box::new(self))
    }
}

/// The end of a task that an actor has begun: what came of it, or its panic. Dropping this lets the task go on.
pub(super) struct Task<T>(JoinHandle<Result<T, Panicked>>);

impl<T> Task<T> {
    /// Begins a task of an actor. Where it panics the actor is told by `panicked`; it lives on.
    pub(super) fn begin<F>(
        identity: Identity,
        task: F,
        panicked: impl FnOnce(&Panicked) + Send + Unpin + 'static,
    ) -> Self
    where
        F: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        Self(tokio::spawn(identity.watch(task, panicked)))
    }

    /// The same on the thread that this is called on, which is an arbiter's.
    pub(super) fn begin_here<F>(identity: Identity, task: F, panicked: impl FnOnce(&Panicked) + Unpin + 'static) -> Self
    where
        F: Future<Output = T> + 'static,
        T: 'static,
    {
        Self(tokio::task::spawn_local(identity.watch(task, panicked)))
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, Panicked>;

    fn poll(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Self::Output> {
        // A task that panics ends in order; one that does not end has lost its runtime.
        let joined = Pin::new(&mut self.0).poll(context);
        joined.map(|joined| joined.unwrap_or_else(|_| Err(Panicked("the runtime has ended".to_owned()))))
    }
}

impl Identity {
    /// The same work in this actor's name, which ends in order also when it panics; `panicked` is told of that first.
    pub(super) fn watch<F, P>(self, task: F, panicked: P) -> Watched<Pin<Box<F>>, P>
    where
        F: Future,
        P: FnOnce(&Panicked) + Unpin,
    {
        Watched { identity: self, task: Box::pin(task), panicked: Some(panicked) }
    }
}

/// Work in an actor's name.
pub(super) struct Watched<F, P> {
    identity: Identity,
    task: F,
    panicked: Option<P>,
}

impl<F: Future + Unpin, P: FnOnce(&Panicked) + Unpin> Future for Watched<F, P> {
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let _scope = Scope::enter(self.identity);
        match catch_unwind(AssertUnwindSafe(|| Pin::new(&mut self.task).poll(context))) {
            Ok(polled) => polled.map(Ok),
            Err(panic) => {
                let panic = Panicked(told(panic.as_ref()));
                if let Some(panicked) = self.panicked.take() {
                    panicked(&panic);
                }
                Poll::Ready(Err(panic))
            }
        }
    }
}

/// From now on the place of each panic is known to those who catch it; the hook that was there is called as before.
/// Does nothing the second time.
pub fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic: &PanicHookInfo<'_>| {
            let place = panic.location().map(ToString::to_string);
            // A panic of this very thread while it writes the place is not told.
            let _ = PLACE.try_with(|kept| kept.try_borrow_mut().map(|mut kept| *kept = place));
            before(panic);
        }));
    });
}

/// What a panic said and where it was, as far as that is known.
pub(super) fn told(panic: &(dyn Any + Send)) -> String {
    if let Some(Panicked(told)) = panic.downcast_ref() {
        return told.clone();
    }
    let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let said = said.unwrap_or("without a text");
    match PLACE.take() {
        Some(place) => format!("panicked at {place}: {said}"),
        None => format!("panicked: {said}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        deaths_max: Some(4),
        window: Duration::from_secs(60),
        backoff_min: Duration::from_millis(100),
        backoff_max: Duration::from_millis(150),
        hang_limit: None,
    };

    #[test]
    fn the_first_death_costs_nothing_and_the_wait_grows_to_its_limit() {
        let (mut deaths, now) = (Deaths::default(), Instant::now());
        deaths.note(now, &POLICY);
        assert_eq!(deaths.may_start(now), Ok(()));
        deaths.note(now, &POLICY);
        assert_eq!(deaths.may_start(now + Duration::from_millis(99)), Err(Unposted::Restarting));
        assert_eq!(deaths.may_start(now + Duration::from_millis(100)), Ok(()));
        deaths.note(now, &POLICY);
        assert_eq!(deaths.may_start(now + Duration::from_millis(149)), Err(Unposted::Restarting));
        assert_eq!(deaths.may_start(now + Duration::from_millis(150)), Ok(()));
        assert_eq!(POLICY.backoff(1_000), POLICY.backoff_max);
    }

    #[test]
    fn too_many_deaths_within_the_window_are_quarantine_and_that_does_not_pass() {
        let (mut deaths, now) = (Deaths::default(), Instant::now());
        assert_eq!([0; 4].map(|_| deaths.note(now, &POLICY)), [false, false, false, true]);
        let later = now + Duration::from_secs(3_600);
        assert_eq!(deaths.may_start(later), Err(Unposted::Quarantined { deaths: 4 }));
        assert!(deaths.count_at(later, &POLICY), "it is remembered");
    }

    #[test]
    fn deaths_that_are_long_past_do_not_count() {
        let (mut deaths, now) = (Deaths::default(), Instant::now());
        for number in 0..10 {
            deaths.note(now + POLICY.window * number, &POLICY);
        }
        let at = now + POLICY.window * 9;
        assert_eq!(deaths.may_start(at), Ok(()));
        assert!(!deaths.count_at(at + POLICY.window, &POLICY));
    }

    #[test]
    fn the_only_one_of_its_kind_is_always_started_again() {
        let policy = POLICY.of_the_only_one();
        let (mut deaths, now) = (Deaths::default(), Instant::now());
        assert!((0..1_000).all(|_| !deaths.note(now, &policy)));
        assert_eq!(deaths.may_start(now + policy.backoff_max), Ok(()));
        assert_eq!(deaths.recent.len(), DEATHS_REMEMBERED);
    }

    #[test]
    fn kinds_are_known_by_their_names_and_listed_in_their_order() {
        for kind in ActorKind::ALL {
            assert_eq!(ActorKind::from_name(kind.name()), Some(kind));
        }
        assert!(ActorKind::ALL.is_sorted_by_key(|kind| kind.name()));
        assert!(ActorKind::ALL.is_sorted());
        assert_eq!(ActorKind::from_name("nobody"), None);
    }

    #[tokio::test]
    async fn a_task_knows_whose_it_is_and_a_panic_where_it_was() {
        note_panics();
        let identity = Identity { kind: ActorKind::Relay, key: None };
        assert_eq!(Task::begin(identity, async { current() }, |_| {}).await, Ok(Some(identity)));
        assert_eq!(current(), None);
        let panics: Task<()> = Task::begin(identity, async { panic!("number {}", 7) }, |_| {});
        let panicked = panics.await.expect_err("a panic");
        let Panicked(text) = panicked.clone();
        assert!(text.starts_with("panicked at src/actors/supervision.rs:") && text.ends_with(": number 7"), "{text}");
        let resumed = catch_unwind(|| panicked.resume()).expect_err("it goes on");
        assert_eq!(told(resumed.as_ref()), text);
    }
}
