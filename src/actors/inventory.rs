//! The storekeeper of one product's stock: takes one message at a time, accepts or refuses from memory, and hands what
//! it accepts to the journal together with the caller, so that it never waits for a commit.
//!
//! Its memory is an [`Escrow`]: the newest balance it learned, less what it has accepted to take. It is never needed for
//! being right (the database has the last word), only for being fast. After a panic a fresh one reads the balance
//! behind everything that the dead one had handed in.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};
use tokio::sync::oneshot;
use tracing::Span;

use crate::domain::ids::InventoryId;
use crate::domain::stock::{Balance, Escrow, StockError};
use crate::domain::timestamp::Timestamp;
use crate::observability::trace::step;
use crate::persistence::SharedStore;
use crate::persistence::entry::{Applied, Entry, Refusal, Work};
use crate::persistence::records::Inventory;

use super::command::{AppliedOutcome, CommandError, StockView};
use super::faults::{Faults, Moment};
use super::journal::{Answer, JournalError, JournalHandle, Submission};
use super::mailbox::Posted;
use super::registry::{Birth, Passivate, Registry};
use super::settlement::EscrowedTake;
use super::shown::{Board, Boards};
use super::supervision::ActorKind;

/// How old a balance may be that a refusal for want of stock or an answer about the stock rests on, where other servers
/// may have changed it. One that only refuses commits nothing, and would never learn that units have come back.
pub(super) const BALANCE_AGE_MAX: Duration = Duration::from_millis(200);
/// How long an actor that starts waits for the database, behind all that was handed in before. Those who wait for it
/// have deadlines of their own.
const LOAD_DEADLINE: Duration = Duration::from_secs(30);

/// An entry that changes this inventory's stock.
pub struct ChangeStock {
    /// What is to be written.
    pub entry: Entry,
    /// Units that it takes from what is available; 0 when it gives.
    pub takes: i64,
    /// When it need not be begun any more.
    pub deadline: Instant,
    /// What it is part of.
    pub span: Span,
    /// Who is told.
    pub answer: oneshot::Sender<Result<Applied, JournalError>>,
}

/// Asks what is there now.
pub struct ReadStock {
    /// When it need not be answered any more.
    pub deadline: Instant,
    /// Who is told.
    pub answer: oneshot::Sender<Result<StockView, CommandError>>,
}

/// Takes in flight are over, and there may be a new balance.
pub struct Settle {
    /// Units of this actor's takes whose outcome is known now.
    pub units: i64,
    /// The newest balance.
    pub balance: Option<ToldBalance>,
}

/// A balance as a transaction found or left it.
#[derive(Debug, Clone, Copy)]
pub struct ToldBalance {
    /// The balance.
    pub balance: Balance,
    /// The database's time in that transaction.
    pub at: Timestamp,
    /// When that transaction had not begun yet: the balance is at least as new.
    pub since: Instant,
}

impl Message for Settle {
    type Result = ();
}

/// Forget the balance and ask the database.
pub struct Reload;

impl Message for Reload {
    type Result = ();
}

/// What an inventory actor needs.
#[derive(Clone)]
pub struct InventoryParts {
    /// Where it reads what does not change: the product and the SKU.
    pub store: SharedStore,
    /// Where its changes go.
    pub journal: JournalHandle,
    /// Where it is listed.
    pub registry: Arc<Registry<InventoryId, InventoryActor>>,
    /// Where it shows what is there.
    pub boards: Arc<Boards>,
    /// What goes wrong because a test says so.
    pub(super) faults: Faults,
}

/// What waits until the balance is known.
enum Waiting {
    Change(Box<Posted<ChangeStock>>),
    Read(Posted<ReadStock>),
}

/// What the actor knows.
struct Known {
    record: Arc<Inventory>,
    escrow: Escrow,
    updated_at: Timestamp,
    /// The balance is at least as new as this.
    since: Instant,
}

/// The actor.
pub struct InventoryActor {
    id: InventoryId,
    parts: Arc<InventoryParts>,
    birth: Birth,
    board: Arc<Board>,
    known: Option<Known>,
    waiting: VecDeque<Waiting>,
    loading: bool,
    /// What is known may be wrong: to be loaded again before anything else is decided.
    stale: bool,
    /// The newest balance heard of while the first one was being loaded.
    heard: Option<ToldBalance>,
}

impl InventoryActor {
    /// A storekeeper that has still to learn what is there.
    #[must_use]
    pub fn new(id: InventoryId, parts: Arc<InventoryParts>, birth: Birth) -> Self {
        let (board, waiting) = (Arc::default(), VecDeque::new());
        Self { id, parts, birth, board, known: None, waiting, loading: false, stale: false, heard: None }
    }

    /// Reads the balance behind all that was handed in before. Takes in flight stay subtracted from it.
    fn load(&mut self, context: &mut Context<Self>) {
        if std::mem::replace(&mut self.loading, true) {
            return;
        }
        self.stale = false;
        let (parts, id) = (Arc::clone(&self.parts), self.id);
        let since = Instant::now();
        let load = async move {
            parts.faults.pass(ActorKind::Inventory, Moment::Before, Some(id.0)).await;
            let balance = parts.journal.load(id, Instant::now() + LOAD_DEADLINE).await?;
            let record = parts.store.inventory(id).await?;
            let unknown = JournalError::Refused(Refusal::UnknownInventory { inventory: id });
            balance.zip(record).ok_or(unknown)
        };
        context.spawn(load.into_actor(self).map(move |loaded, actor, context| actor.loaded(loaded, since, context)));
    }

    /// Decides what has waited: by the balance that came, however long it took.
    fn loaded(
        &mut self,
        loaded: Result<(Balance, Inventory), JournalError>,
        since: Instant,
        context: &mut Context<Self>,
    ) {
        self.loading = false;
        match loaded {
            Ok((balance, record)) => {
                let mut escrow = self.known.take().map_or_else(|| Escrow::new(balance), |known| known.escrow);
                escrow.learn(balance);
                let updated_at = record.updated_at;
                self.board.write(&Inventory { balance: escrow.balance(), ..record.clone() }, since);
                self.known = Some(Known { record: Arc::new(record), escrow, updated_at, since });
                if let Some(told) = self.heard.take() {
                    self.learn(told);
                }
                if self.stale {
                    return self.load(context);
                }
                for waiting in std::mem::take(&mut self.waiting) {
                    match waiting {
                        Waiting::Change(posted) => self.change(*posted),
                        Waiting::Read(posted) => self.read(posted),
                    }
                }
            }
            Err(error) => {
                let fault = CommandError::from(error.clone());
                if fault.is_fault() {
                    self.birth.gauge.error(&format!("the balance can not be read: {fault}"));
                }
                self.stale = true;
                for waiting in std::mem::take(&mut self.waiting) {
                    match waiting {
                        Waiting::Change(posted) => drop(posted.message.answer.send(Err(error.clone()))),
                        Waiting::Read(posted) => drop(posted.message.answer.send(Err(error.clone().into()))),
                    }
                }
                self.go(context);
            }
        }
    }

    fn change(&mut self, posted: Posted<ChangeStock>) {
        let Posted { message: ChangeStock { entry, takes, deadline, span, answer }, mut ticket } = posted;
        let known = match &mut self.known {
            Some(known) if deadline > Instant::now() => known,
            _ => return drop(answer.send(Err(JournalError::Late))),
        };
        ticket.begin();
        let step = step!(&span, "inventory", id = %self.id);
        let units = match known.escrow.take(takes) {
            Ok(()) => takes,
            // It may be these very units that the same request took when it came before. Only the journal knows
            // names, behind all that was accepted before; nothing is set aside for this one.
            Err(_) if entry.is_named() => 0,
            Err(error) => {
                ticket.done();
                return drop(answer.send(Err(JournalError::Refused(refusal(self.id, error)))));
            }
        };
        let registry = Arc::clone(&self.parts.registry);
        let take = (units > 0)
            .then(|| EscrowedTake::new((self.id, self.birth.incarnation), units, Arc::clone(&self.board), registry));
        self.fault_at(Moment::Before);
        let (work, message) = (Work::Write(Arc::new(entry)), Some(ticket));
        let (span, answer) = (step!(&span, "journal"), Answer::Entry(answer));
        drop(step);
        let submission = Submission { work, take, message, deadline, span, answer };
        if let Err(refused) = self.parts.journal.try_submit(submission) {
            let (mut submission, unposted) = *refused;
            // At once, and not by a message behind those that wait: they are not to be refused for want of these units.
            if let (Some(take), Some(known)) = (submission.take.take(), &mut self.known) {
                known.escrow.settle(take.taken_back());
            }
            return submission.answer(Err(JournalError::Unposted(unposted)));
        }
        self.fault_at(Moment::During);
    }

    fn read(&self, posted: Posted<ReadStock>) {
        let Posted { message: ReadStock { deadline, answer }, mut ticket } = posted;
        if deadline <= Instant::now() {
            return drop(answer.send(Err(CommandError::Deadline { applied: AppliedOutcome::No })));
        }
        ticket.begin();
        let view = self.known.as_ref().map_or(Err(CommandError::InventoryNotFound), |known| {
            let inventory =
                Inventory { balance: known.escrow.balance(), updated_at: known.updated_at, ..(*known.record).clone() };
            Ok(StockView { inventory, available: known.escrow.available().max(0) })
        });
        ticket.done();
        drop(answer.send(view));
    }

    fn fault_at(&self, moment: Moment) {
        self.parts.faults.at(ActorKind::Inventory, moment, Some(self.id.0));
    }

    fn learn(&mut self, told: ToldBalance) {
        let Some(known) = &mut self.known else { return };
        let seq = known.escrow.balance().seq;
        if told.balance.seq > seq {
            known.escrow.learn(told.balance);
            known.updated_at = told.at;
        }
        if told.balance.seq >= seq {
            known.since = known.since.max(told.since);
        }
    }

    /// Whether the balance has to be read before the change can be decided: there is none, or the change would be
    /// refused by one that is too old for it. What comes while it is read waits for that one.
    fn must_read_for(&self, change: &ChangeStock) -> bool {
        self.loading
            || self.stale
            || self.known.as_ref().is_none_or(|known| {
                let wanting = change.takes > known.escrow.available() && !change.entry.is_named();
                wanting && self.is_old(known)
            })
    }

    fn is_old(&self, known: &Known) -> bool {
        self.parts.store.is_shared() && known.since.elapsed() > BALANCE_AGE_MAX
    }

    /// Leaves, unless a message has come in the meantime or a take is in flight.
    fn go(&mut self, context: &mut Context<Self>) {
        let in_flight = self.known.as_ref().map_or(0, |known| known.escrow.in_flight());
        if in_flight == 0 && !self.loading && self.waiting.is_empty() && self.birth.gauge.close_if_empty() {
            self.parts.registry.retire(self.id, self.birth.incarnation);
            context.stop();
        }
    }
}

fn refusal(inventory: InventoryId, error: StockError) -> Refusal {
    match error {
        StockError::Insufficient { available } => Refusal::InsufficientStock { inventory, available },
        StockError::Overflow => Refusal::StockOverflow { inventory },
        StockError::NotHeld => Refusal::HoldChanged,
    }
}

impl Actor for InventoryActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.parts.boards.put_up(self.id, &self.board);
        self.load(context);
    }
}

impl Handler<Posted<ChangeStock>> for InventoryActor {
    type Result = ();

    fn handle(&mut self, posted: Posted<ChangeStock>, context: &mut Self::Context) {
        if self.must_read_for(&posted.message) {
            self.waiting.push_back(Waiting::Change(Box::new(posted)));
            self.load(context);
        } else {
            self.change(posted);
        }
    }
}

impl Handler<Posted<ReadStock>> for InventoryActor {
    type Result = ();

    fn handle(&mut self, posted: Posted<ReadStock>, context: &mut Self::Context) {
        if self.loading || self.stale || self.known.as_ref().is_none_or(|known| self.is_old(known)) {
            self.waiting.push_back(Waiting::Read(posted));
            self.load(context);
        } else {
            self.read(posted);
        }
    }
}

impl Handler<Settle> for InventoryActor {
    type Result = ();

    fn handle(&mut self, settle: Settle, _: &mut Self::Context) {
        self.fault_at(Moment::After);
        match (&mut self.known, settle.balance) {
            (Some(known), balance) => {
                known.escrow.settle(settle.units);
                if let Some(told) = balance {
                    self.learn(told);
                }
            }
            (None, Some(told)) => {
                if self.heard.is_none_or(|heard| heard.balance.seq < told.balance.seq) {
                    self.heard = Some(told);
                }
            }
            (None, None) => {}
        }
    }
}

impl Handler<Reload> for InventoryActor {
    type Result = ();

    fn handle(&mut self, _: Reload, context: &mut Self::Context) {
        self.stale = true;
        self.board.wipe();
        self.load(context);
    }
}

impl Handler<Passivate> for InventoryActor {
    type Result = ();

    fn handle(&mut self, _: Passivate, context: &mut Self::Context) {
        self.go(context);
    }
}
