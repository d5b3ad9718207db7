//! The journal: the one writer of stock, carts and orders, many changes at a time (group commit).
//!
//! Everything that arrives while a transaction runs goes into the next one. There is no timer and no waiting for
//! company: alone, an entry is committed at once; under load the batches grow by themselves, to what the database does
//! in a quarter of a second. When more than that waits, each inventory gets its share of the batch (`batch`).
//!
//! A batch that the database refuses as a whole is tried in halves, so that one bad entry harms nobody else. A batch
//! whose outcome is unknown is handed in again under the same identifier until the outcome is known; until then what
//! it takes stays taken.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use tokio::sync::{Mutex, oneshot};
use tracing::Span;
use uuid::Uuid;

use crate::domain::ids::InventoryId;
use crate::domain::stock::Balance;
use crate::observability::trace::{self, step};
use crate::persistence::entry::{Applied, Committed, Done, Entry, Refusal, Work};
use crate::persistence::{CommitError, SharedStore, StoreError};

use super::announcer::Announcer;
use super::batch::{BatchSize, Pace, take_batch};
use super::command::{AppliedOutcome, CommandError};
use super::faults::{Faults, Moment};
use super::gauge::Ticket;
use super::inventory::InventoryActor;
use super::journal_metrics::JournalMetrics;
use super::mailbox::{Posted, Unposted};
use super::mirror::Mirror;
use super::registry::{Birth, Registry};
use super::settlement::{EscrowedTake, Settlement};
use super::shown::Boards;
use super::supervision::ActorKind;

/// Longest wait between two tries of a batch whose outcome is unknown.
const RESEND_PAUSE_MAX: Duration = Duration::from_millis(500);

/// Why an entry was not written, or is not known to have been.
#[derive(Debug, Clone)]
pub enum JournalError {
    /// It does not fit what the database says.
    Refused(Refusal),
    /// No actor took it: too many wait, or the actor is down. Nothing was written.
    Unposted(Unposted),
    /// Its deadline passed before it was begun. Nothing was written.
    Late,
    /// The database failed.
    Store(AppliedOutcome, Arc<StoreError>),
    /// The journal died while it had the entry.
    Died,
}

impl From<StoreError> for JournalError {
    /// A read failed: nothing was changed.
    fn from(error: StoreError) -> Self {
        Self::Store(AppliedOutcome::No, Arc::new(error))
    }
}

impl From<JournalError> for CommandError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Refused(refusal) => refusal.into(),
            JournalError::Unposted(unposted) => Self::Unposted(unposted),
            JournalError::Late => Self::Deadline { applied: AppliedOutcome::No },
            JournalError::Store(applied, source) => Self::Store { applied, source },
            JournalError::Died => Self::ActorDied { applied: AppliedOutcome::Unknown },
        }
    }
}

impl From<Refusal> for CommandError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::InsufficientStock { available, .. } => Self::InsufficientStock { available },
            Refusal::StockOverflow { .. } => Self::StockOverflow,
            Refusal::UnknownInventory { .. } => Self::InventoryNotFound,
            Refusal::KeyKnown => Self::KeyKnown,
            Refusal::MessageKnown => Self::MessageKnown,
            // What was seen has changed since, again and again: somebody else is at the same cart or order.
            Refusal::SessionChanged
            | Refusal::SessionTime
            | Refusal::HoldChanged
            | Refusal::OrderChanged
            | Refusal::AlreadyOrdered
            | Refusal::ProductChanged { .. } => Self::Contended,
            Refusal::Rule { rule } => {
                Self::Store { applied: AppliedOutcome::No, source: Arc::new(StoreError::Constraint(rule)) }
            }
        }
    }
}

/// Who is told what became of a piece of work.
pub enum Answer {
    /// The sender of an entry.
    Entry(oneshot::Sender<Result<Applied, JournalError>>),
    /// The actor that loads.
    Load(oneshot::Sender<Result<Option<Balance>, JournalError>>),
}

/// A piece of work for the journal.
pub struct Submission {
    /// What is to be done.
    pub work: Work,
    /// What was set aside for it.
    pub take: Option<EscrowedTake>,
    /// The message that it came from, which is over when this is.
    pub message: Option<Ticket>,
    /// When it need not be begun any more.
    pub deadline: Instant,
    /// From here until its answer, in the trace that it is part of.
    pub span: Span,
    /// Who is told.
    pub answer: Answer,
}

impl Submission {
    /// The message that it came from is over.
    pub(super) fn end_message(&mut self, outcome: &Result<Done, JournalError>) {
        if let Some(message) = self.message.take()
            && is_done(outcome)
        {
            message.done();
        }
    }

    /// Tells the one who waits; nobody is told when nobody waits any more.
    pub(super) fn answer(mut self, outcome: Result<Done, JournalError>) {
        self.end_message(&outcome);
        match (self.answer, outcome) {
            (Answer::Entry(answer), Ok(Done::Applied(applied))) => drop(answer.send(Ok(applied))),
            (Answer::Entry(answer), Ok(Done::Refused(refusal))) => {
                drop(answer.send(Err(JournalError::Refused(refusal))))
            }
            (Answer::Load(answer), Ok(Done::Loaded(balance))) => drop(answer.send(Ok(balance))),
            (Answer::Entry(answer), Err(error)) => drop(answer.send(Err(error))),
            (Answer::Load(answer), Err(error)) => drop(answer.send(Err(error))),
            // A store answers an entry as an entry and a load as a load. Dropping the sender says that none came.
            (Answer::Entry(_), Ok(Done::Loaded(_))) | (Answer::Load(_), Ok(Done::Applied(_) | Done::Refused(_))) => {}
        }
    }
}

/// What the journal needs.
#[derive(Clone)]
pub struct JournalParts {
    /// Where it writes.
    pub store: SharedStore,
    /// The actors that are told the balances.
    pub inventories: Arc<Registry<InventoryId, InventoryActor>>,
    /// Who is told what has changed.
    pub announcer: Arc<Announcer>,
    /// Where what is in stock is shown.
    pub boards: Arc<Boards>,
    /// Where carts are shown before their changes are answered.
    pub mirror: Mirror,
    /// Entries of one transaction at most.
    pub batch_max: usize,
    /// Held by the transaction under way: a journal that follows a dead one begins when that one's last has ended.
    pub committing: Arc<Mutex<()>>,
    /// Held while those of a transaction are told: who hears of a later one has heard of the earlier ones.
    pub telling: Arc<Mutex<()>>,
    /// How fast entries have been written lately.
    pub(super) pace: Arc<Pace>,
    /// What goes wrong because a test says so.
    pub(super) faults: Faults,
    /// What is measured.
    pub metrics: JournalMetrics,
}

/// The way to the journal. It is started again when it has died.
#[derive(Clone)]
pub struct JournalHandle {
    residence: Arc<Registry<(), JournalActor>>,
    parts: Arc<JournalParts>,
}

impl JournalHandle {
    /// A journal that lives on the registry's arbiters.
    #[must_use]
    pub fn new(residence: Arc<Registry<(), JournalActor>>, parts: JournalParts) -> Self {
        Self { residence, parts: Arc::new(parts) }
    }

    /// Where it is listed.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry<(), JournalActor>> {
        &self.residence
    }

    /// Hands a piece of work in. Its outcome comes to whom it names, whatever happens here; when nobody takes it, at once.
    pub fn submit(&self, submission: Submission) {
        if let Err(refused) = self.try_submit(submission) {
            let (submission, unposted) = *refused;
            submission.answer(Err(JournalError::Unposted(unposted)));
        }
    }

    /// Hands a piece of work in, if the journal takes it. It does not when its mailbox is full; and, of what takes stock,
    /// when what waits before it needs more than half of the time that it has, at the pace of the last transactions: then
    /// it would probably be late, and who hears of that now can go elsewhere. What gives stock back or ends what was
    /// begun is let in as long as there is a place.
    ///
    /// # Errors
    /// The piece of work, and why nobody has it.
    pub(super) fn try_submit(&self, submission: Submission) -> Result<(), Box<(Submission, Unposted)>> {
        if self.would_be_late(&submission) {
            self.residence.reject(());
            return Err(Box::new((submission, Unposted::Full)));
        }
        let parts = Arc::clone(&self.parts);
        let start = move |birth| JournalActor::new(Arc::clone(&parts), birth);
        self.residence.post((), submission, start).map_err(Box::new)
    }

    fn would_be_late(&self, submission: &Submission) -> bool {
        match &submission.work {
            Work::Write(entry) if entry.takes_stock() => {
                let wait = self.parts.pace.of(self.residence.counters().depth());
                wait > submission.deadline.saturating_duration_since(Instant::now()) / 2
            }
            Work::Write(_) | Work::Load(_) => false,
        }
    }

    /// Hands an entry in and waits for its outcome.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn write(&self, entry: Entry, deadline: Instant) -> Result<Applied, JournalError> {
        let (answer, outcome) = oneshot::channel();
        let work = Work::Write(Arc::new(entry));
        let (span, answer) = (step!(&trace::here(), "journal"), Answer::Entry(answer));
        self.submit(Submission { work, take: None, message: None, deadline, span, answer });
        outcome.await.unwrap_or(Err(JournalError::Died))
    }

    /// Reads a balance behind everything that was handed in before.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn load(&self, inventory: InventoryId, deadline: Instant) -> Result<Option<Balance>, JournalError> {
        let (answer, outcome) = oneshot::channel();
        self.submit(Submission {
            work: Work::Load(inventory),
            take: None,
            message: None,
            deadline,
            span: Span::none(),
            answer: Answer::Load(answer),
        });
        outcome.await.unwrap_or(Err(JournalError::Died))
    }
}

/// The actor: a queue, and at most one transaction at a time.
pub struct JournalActor {
    parts: Arc<JournalParts>,
    birth: Birth,
    /// In the order they came.
    queue: Vec<Queued>,
    batch_size: BatchSize,
    committing: bool,
}

/// A submission, and its place in the mailbox until it is over.
pub(super) struct Queued {
    pub(super) submission: Submission,
    pub(super) ticket: Ticket,
}

impl JournalActor {
    /// A journal with nothing to do.
    #[must_use]
    pub fn new(parts: Arc<JournalParts>, birth: Birth) -> Self {
        let batch_size = BatchSize::at_most(parts.batch_max);
        Self { parts, birth, queue: Vec::new(), batch_size, committing: false }
    }

    fn commit_next(&mut self, context: &mut Context<Self>) {
        if self.committing || self.queue.is_empty() {
            return;
        }
        self.committing = true;
        let batch = take_batch(&mut self.queue, self.batch_size.now(), |queued| lane(&queued.submission.work));
        self.birth.gauge.oldest_is(self.queue.first().or(batch.first()).map(|queued| &queued.ticket));
        // On a task of its own: what has begun is ended, and everybody told, whatever becomes of this actor.
        let task = self.birth.spawn(commit_batch(Arc::clone(&self.parts), batch, self.birth.clone()));
        context.spawn(task.into_actor(self).map(move |ended, actor, context| {
            // Nothing is learned from one that wrote nothing: it was quick, but at what?
            if let Ok((entries @ 1.., took)) = ended {
                actor.batch_size.learn(entries, took);
                actor.parts.pace.learn(entries, took);
            }
            actor.committing = false;
            actor.commit_next(context);
        }));
    }
}

impl Actor for JournalActor {
    type Context = Context<Self>;
}

impl Handler<Posted<Submission>> for JournalActor {
    type Result = ();

    fn handle(&mut self, posted: Posted<Submission>, context: &mut Self::Context) {
        self.parts.faults.at(ActorKind::Journal, Moment::Before, None);
        self.queue.push(Queued { submission: posted.message, ticket: posted.ticket });
        self.commit_next(context);
        if let [only] = self.queue.as_slice() {
            self.birth.gauge.oldest_is(Some(&only.ticket));
        }
    }
}

/// Whether a piece of work has got its answer from the database: done or refused, not failed.
pub(super) fn is_done(outcome: &Result<Done, JournalError>) -> bool {
    matches!(outcome, Ok(_) | Err(JournalError::Refused(_)))
}

/// Whose turn an entry takes: entries of one inventory are written in the order they came.
fn lane(work: &Work) -> Option<InventoryId> {
    match work {
        Work::Load(inventory) => Some(*inventory),
        Work::Write(entry) => entry.movements.first().map(|movement| movement.inventory),
    }
}

/// Commits a batch, and has everybody concerned told while the next one begins. Gives how many entries were answered by the
/// database, and how long that took.
async fn commit_batch(parts: Arc<JournalParts>, batch: Vec<Queued>, birth: Birth) -> (usize, Duration) {
    let _turn = parts.committing.lock().await;
    let mut settlement = Settlement::new(&parts);
    let now = Instant::now();
    let (mut due, late): (Vec<Queued>, Vec<Queued>) =
        batch.into_iter().partition(|queued| queued.submission.deadline > now);
    settlement.failed(late, &JournalError::Late);
    due.iter_mut().for_each(|queued| queued.ticket.begin_among_others());
    let entries = due.len();
    parts.faults.pass(ActorKind::Journal, Moment::During, None).await;
    commit_or_halve(&parts, due, &mut settlement).await;
    parts.faults.slow_down(entries, now).await;
    parts.faults.pass(ActorKind::Journal, Moment::After, None).await;
    let answered = (settlement.answered(), now.elapsed());
    let turn = Arc::clone(&parts.telling).lock_owned().await;
    birth.spawn(async move {
        settlement.tell();
        drop(turn);
    });
    answered
}

/// Commits what may go into one transaction; when the database refuses it as a whole, its halves, down to one entry.
fn commit_or_halve<'a>(
    parts: &'a JournalParts,
    mut batch: Vec<Queued>,
    settlement: &'a mut Settlement,
) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
    Box::pin(async move {
        if batch.is_empty() {
            return;
        }
        let works: Vec<Work> = batch.iter().map(|queued| queued.submission.work.clone()).collect();
        let since = Instant::now();
        match commit_known(parts, &works).await {
            Ok(committed) => settlement.committed(batch, committed, since),
            Err(StoreError::Constraint(rule)) if batch.len() > 1 => {
                tracing::warn!(%rule, entries = batch.len(), "a batch was refused as a whole; its halves are tried");
                let second = batch.split_off(batch.len() / 2);
                commit_or_halve(parts, batch, settlement).await;
                commit_or_halve(parts, second, settlement).await;
            }
            Err(error) => {
                let error = match error {
                    StoreError::Constraint(rule) => JournalError::Refused(Refusal::Rule { rule }),
                    StoreError::Unavailable(_)
                    | StoreError::Unknown(_)
                    | StoreError::Failed(_)
                    | StoreError::Corrupt(_)
                    | StoreError::InvalidCursor => {
                        tracing::error!(
                            error = &error as &dyn std::error::Error,
                            entries = batch.len(),
                            "a batch failed"
                        );
                        JournalError::Store(AppliedOutcome::No, Arc::new(error))
                    }
                };
                settlement.failed(batch, &error);
            }
        }
    })
}

/// Commits a batch, and does not come back before it is known whether that happened.
async fn commit_known(parts: &JournalParts, works: &[Work]) -> Result<Committed, StoreError> {
    let batch = Uuid::now_v7();
    let mut planned_before: Option<Committed> = None;
    let mut pause = Duration::from_millis(10);
    loop {
        match (parts.store.commit(batch, works).await, planned_before.take()) {
            (Ok(committed), _) => return Ok(committed),
            (Err(CommitError::AlreadyCommitted), Some(planned)) => return Ok(planned),
            (Err(CommitError::AlreadyCommitted), None) => {
                return Err(StoreError::Corrupt(format!("the journal has a batch {batch} that is not ours")));
            }
            (Err(CommitError::Unknown { planned, source }), _) => {
                tracing::warn!(error = &source as &dyn std::error::Error, %batch, "a commit's outcome is unknown");
                planned_before = Some(planned);
            }
            // A rule is only met behind the batch's identifier, so that was not there: no earlier try happened.
            (Err(CommitError::NotCommitted(error @ StoreError::Constraint(_))), _) => return Err(error),
            // Any other failure says nothing of an earlier try that may have happened.
            (Err(CommitError::NotCommitted(error)), Some(planned)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, %batch, "a commit's outcome is still unknown");
                planned_before = Some(planned);
            }
            (Err(CommitError::NotCommitted(error)), None) => return Err(error),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RESEND_PAUSE_MAX);
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
