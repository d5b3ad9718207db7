//! What becomes known after a batch, and who is told: first the inventory actors, then the mirror of the carts, then those
//! who wait for an answer.
//!
//! Units that an actor has set aside for an entry travel with it as an [`EscrowedTake`]. Wherever that ends without
//! having been settled (in the mailbox of a journal that died, in a commit that died), the actor is told to give the
//! units back and to ask the database what is true.

use std::sync::Arc;

use crate::domain::cart::Cart;
use crate::domain::ids::{IdMap, IdSet, InventoryId};
use crate::domain::stock::Balance;
use crate::persistence::entry::{Committed, Done, Entry, Refusal, Work};

use super::announcer::Announcer;
use super::inventory::{InventoryActor, Reload, Settle, ToldBalance};
use super::journal::{JournalError, JournalParts, Queued, is_done};
use super::journal_metrics::JournalMetrics;
use super::mailbox::Mailbox;
use super::mirror::Mirror;
use super::registry::{Incarnation, Registry};
use super::shown::{Board, Boards};

/// Carts that are shown by one request to Redis.
const SHOWN_AT_ONCE: usize = 32;

/// One life of one inventory's actor.
type Life = (InventoryId, Incarnation);

/// What an inventory actor has set aside for an entry in flight.
pub struct EscrowedTake {
    life: Life,
    units: i64,
    board: Arc<Board>,
    registry: Arc<Registry<InventoryId, InventoryActor>>,
    open: bool,
}

impl EscrowedTake {
    /// `units` of an inventory, set aside by this life of its actor.
    pub(super) fn new(
        life: Life,
        units: i64,
        board: Arc<Board>,
        registry: Arc<Registry<InventoryId, InventoryActor>>,
    ) -> Self {
        board.take(units);
        Self { life, units, board, registry, open: true }
    }

    /// The entry was not taken on at all; the actor itself takes the units back. Gives how many.
    pub(super) fn taken_back(self) -> i64 {
        let (_, units, board) = self.close();
        board.settle(units, None);
        units
    }

    /// The outcome is known; the caller settles.
    fn close(mut self) -> (Life, i64, Arc<Board>) {
        self.open = false;
        (self.life, self.units, Arc::clone(&self.board))
    }
}

impl Drop for EscrowedTake {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        self.board.settle(self.units, None);
        self.board.wipe();
        if let Some(mailbox) = living(&self.registry, self.life) {
            mailbox.tell(Settle { units: self.units, balance: None });
            mailbox.tell(Reload);
        }
    }
}

/// The mailbox of that very life, if it lives.
fn living(
    registry: &Registry<InventoryId, InventoryActor>,
    (inventory, incarnation): Life,
) -> Option<Mailbox<InventoryActor>> {
    registry.find(inventory).filter(|(_, living)| *living == incarnation).map(|(mailbox, _)| mailbox)
}

/// What is to be told after a batch.
pub(super) struct Settlement {
    registry: Arc<Registry<InventoryId, InventoryActor>>,
    announcer: Arc<Announcer>,
    boards: Arc<Boards>,
    mirror: Mirror,
    metrics: JournalMetrics,
    balances: IdMap<InventoryId, ToldBalance>,
    outcomes: Vec<(Queued, Result<Done, JournalError>)>,
}

impl Settlement {
    pub(super) fn new(parts: &JournalParts) -> Self {
        let JournalParts { inventories: registry, announcer, boards, mirror, metrics, .. } = parts.clone();
        Self { registry, announcer, boards, mirror, metrics, balances: IdMap::default(), outcomes: Vec::new() }
    }

    /// These have the same outcome, without having been written.
    pub(super) fn failed(&mut self, batch: Vec<Queued>, error: &JournalError) {
        self.outcomes.extend(batch.into_iter().map(|queued| (queued, Err(error.clone()))));
    }

    /// These were committed together; the balances were read after `since`.
    pub(super) fn committed(&mut self, batch: Vec<Queued>, committed: Committed, since: std::time::Instant) {
        self.metrics.batch(batch.len(), since.elapsed());
        let at = committed.at;
        let told = committed.balances.into_iter().map(|(id, balance)| (id, ToldBalance { balance, at, since }));
        self.balances.extend(told);
        self.outcomes.extend(batch.into_iter().zip(committed.done.into_iter().map(Ok)));
    }

    /// How many of them the database has answered.
    pub(super) fn answered(&self) -> usize {
        self.outcomes.iter().filter(|(_, outcome)| is_done(outcome)).count()
    }

    /// The balances of the inventories whose stock was changed; the others were only read.
    fn changed(&self) -> IdMap<InventoryId, Balance> {
        let written = self.outcomes.iter().filter_map(|(queued, outcome)| match (&queued.submission.work, outcome) {
            (Work::Write(entry), Ok(Done::Applied(_))) => Some(&entry.movements),
            (Work::Write(_) | Work::Load(_), _) => None,
        });
        let moved = written.flatten().map(|movement| movement.inventory);
        moved.filter_map(|id| self.balances.get(&id).map(|told| (id, told.balance))).collect()
    }

    /// Tells each actor concerned its new balance and which of its takes are over, in one message; then answers, so
    /// that whoever has an answer and asks for the stock finds it there. An actor whose take the database refused
    /// knows less than it thought, and reads.
    pub(super) fn tell(mut self) {
        self.announcer.note(self.changed());
        let mut takes: IdMap<Life, (i64, Arc<Board>)> = IdMap::default();
        let mut misled: IdSet<Life> = IdSet::default();
        for (queued, outcome) in &mut self.outcomes {
            let Some((life, units, board)) = queued.submission.take.take().map(EscrowedTake::close) else { continue };
            takes.entry(life).or_insert_with(|| (0, board)).0 += units;
            if matches!(
                outcome,
                Ok(Done::Refused(Refusal::InsufficientStock { .. }))
                    | Err(JournalError::Refused(Refusal::InsufficientStock { .. } | Refusal::Rule { .. }))
            ) {
                misled.insert(life);
            }
        }
        for (life, (units, board)) in takes {
            let balance = self.balances.remove(&life.0);
            board.settle(units, balance);
            if misled.contains(&life) {
                board.wipe();
            }
            if let Some(mailbox) = living(&self.registry, life) {
                mailbox.tell(Settle { units, balance });
                if misled.contains(&life) {
                    mailbox.tell(Reload);
                }
            }
        }
        for (inventory, balance) in self.balances.drain() {
            self.boards.tell(inventory, balance);
            if let Some((mailbox, _)) = self.registry.find(inventory) {
                mailbox.tell(Settle { units: 0, balance: Some(balance) });
            }
        }
        self.answer();
    }

    /// Answers everybody: who has changed a cart when the mirror shows it, the others at once.
    fn answer(self) {
        let mut to_be_shown = Vec::new();
        for (Queued { mut submission, ticket }, outcome) in self.outcomes {
            if is_done(&outcome) {
                ticket.done();
            } else {
                drop(ticket);
            }
            self.metrics.outcome(&outcome);
            match (&submission.work, &outcome) {
                (Work::Write(entry), Ok(Done::Applied(_))) if entry.leaves.is_some() => {
                    let entry = Arc::clone(entry);
                    // Whoever waits for Redis is in nobody's mailbox.
                    submission.end_message(&outcome);
                    to_be_shown.push((entry, (submission, outcome)));
                }
                _ => submission.answer(outcome),
            }
        }
        // Some at a time: while Redis is at the next ones, the first are answered.
        while !to_be_shown.is_empty() {
            let rest = to_be_shown.split_off(to_be_shown.len().min(SHOWN_AT_ONCE));
            let (entries, answers): (Vec<Arc<Entry>>, Vec<_>) =
                std::mem::replace(&mut to_be_shown, rest).into_iter().unzip();
            let carts: Vec<&Cart> = entries.iter().filter_map(|entry| entry.leaves.as_ref()).collect();
            self.mirror.show(&carts, move || {
                for (submission, outcome) in answers {
                    submission.answer(outcome);
                }
            });
        }
    }
}
