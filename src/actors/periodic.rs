//! An actor that has one job, does it again and again, and is woken when there may be more to do: the relay, the mailer,
//! the sweeper.
//!
//! One run at a time. Whoever wakes it while a run is under way gets another run after it. A run that panics ends the
//! actor, so that supervision counts it; a run that an ended actor had begun is gone on with to its end, and the next
//! actor's first waits for that.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};
use actix_rt::ArbiterHandle;
use async_trait::async_trait;
use tokio::sync::Mutex;

use super::faults::{Faults, Moment};
use super::gauge::Ticket;
use super::mailbox::Posted;
use super::registry::{Birth, Passivate, Registry};
use super::supervision::{ActorKind, Identity, Panicked, Policy, Task};

/// Calls that may wait. Each is done at once, so more than one is rare.
const MAILBOX: u32 = 1_024;

/// What such an actor does.
#[async_trait]
pub trait Job: Send + Sync + 'static {
    /// The kind of actor.
    const KIND: ActorKind;
    /// How often it looks by itself.
    const PERIOD: Duration;

    /// Does what there is to do.
    async fn run(&self);

    /// Somebody has called while a run is under way. Gives whether another run has to follow it.
    fn called_at_work(&self) -> bool {
        true
    }
}

/// The way to such an actor. It is started again when it has died.
pub struct PeriodicHandle<J: Job> {
    residence: Arc<Registry<(), PeriodicActor<J>>>,
    work: Arc<Work<J>>,
}

/// The job, and what belongs to it whichever actor does it.
struct Work<J> {
    job: J,
    /// Held by the run under way.
    turn: Mutex<()>,
    faults: Faults,
}

impl<J: Job> Work<J> {
    async fn run(&self) {
        let _turn = self.turn.lock().await;
        self.faults.pass(J::KIND, Moment::Before, None).await;
        self.job.run().await;
    }
}

impl<J: Job> Clone for PeriodicHandle<J> {
    fn clone(&self) -> Self {
        Self { residence: Arc::clone(&self.residence), work: Arc::clone(&self.work) }
    }
}

impl<J: Job> PeriodicHandle<J> {
    /// An actor that lives on one of these arbiters and does `job`. It is not started before it is needed.
    pub(super) fn new(job: J, policy: Policy, arbiters: Arc<[ArbiterHandle]>, faults: Faults) -> Self {
        let residence = Arc::new(Registry::new(J::KIND, policy.of_the_only_one(), arbiters, MAILBOX));
        Self { residence, work: Arc::new(Work { job, turn: Mutex::new(()), faults }) }
    }

    /// What it does.
    pub(super) fn job(&self) -> &J {
        &self.work.job
    }

    /// Where it is listed.
    pub(super) fn registry(&self) -> &Arc<Registry<(), PeriodicActor<J>>> {
        &self.residence
    }

    /// There may be something to do. Does nothing when it is down: then it looks when it starts.
    pub fn wake(&self) {
        if !self.residence.is_closed() {
            drop(self.residence.post((), Call, self.actor()));
        }
    }

    /// Sees to it that there is a living one, unless it is too early for that.
    pub(super) fn ensure(&self) {
        if !self.residence.is_closed() {
            drop(self.residence.get_or_start((), self.actor()));
        }
    }

    /// Does the job once, when its turn comes; for the end of the program, which a panic of it does not disturb.
    pub(super) async fn run_once(&self) {
        let work = Arc::clone(&self.work);
        let identity = Identity { kind: J::KIND, key: None };
        if let Err(Panicked(told)) = Task::begin(identity, async move { work.run().await }, |_| {}).await {
            tracing::error!(kind = J::KIND.name(), "the last run died: {told}");
        }
    }

    /// Sends it home; what it has begun is ended.
    pub(super) fn stop(&self) {
        self.residence.close();
        if let Some((mailbox, _)) = self.residence.find(()) {
            mailbox.tell(Passivate);
        }
    }

    fn actor(&self) -> impl Fn(Birth) -> PeriodicActor<J> + Clone + Send + 'static {
        let work = Arc::clone(&self.work);
        move |birth| PeriodicActor { work: Arc::clone(&work), birth, running: false, again: false, job: PhantomData }
    }
}

/// Somebody calls.
struct Call;

/// It is time to look.
struct Tick;

impl Message for Tick {
    type Result = ();
}

/// The actor.
pub struct PeriodicActor<J: Job> {
    work: Arc<Work<J>>,
    birth: Birth,
    running: bool,
    again: bool,
    job: PhantomData<fn() -> J>,
}

impl<J: Job> PeriodicActor<J> {
    /// Begins a run, or sees to another one after that which is under way.
    fn look(&mut self, mut ticket: Ticket, context: &mut Context<Self>) {
        ticket.begin();
        if self.running {
            self.again |= self.work.job.called_at_work();
            return ticket.done();
        }
        self.running = true;
        let work = Arc::clone(&self.work);
        let run = Task::begin(self.birth.identity, async move { work.run().await }, |_| {});
        context.spawn(run.into_actor(self).map(move |ended, actor, context| {
            match ended {
                Ok(()) => ticket.done(),
                Err(panicked) => panicked.resume(),
            }
            actor.running = false;
            if std::mem::take(&mut actor.again) {
                context.notify(Tick);
            }
        }));
    }
}

impl<J: Job> Actor for PeriodicActor<J> {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.notify(Tick);
        context.run_interval(J::PERIOD, |_, context| context.notify(Tick));
    }
}

impl<J: Job> Handler<Tick> for PeriodicActor<J> {
    type Result = ();

    fn handle(&mut self, _: Tick, context: &mut Self::Context) {
        if let Ok(ticket) = self.birth.gauge.enter() {
            self.look(ticket, context);
        }
    }
}

impl<J: Job> Handler<Posted<Call>> for PeriodicActor<J> {
    type Result = ();

    fn handle(&mut self, posted: Posted<Call>, context: &mut Self::Context) {
        self.look(posted.ticket, context);
    }
}

impl<J: Job> Handler<Passivate> for PeriodicActor<J> {
    type Result = ();

    fn handle(&mut self, _: Passivate, context: &mut Self::Context) {
        context.stop();
    }
}
