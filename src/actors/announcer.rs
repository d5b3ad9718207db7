//! Tells others what is in stock: `stock-changed`, at most once a second for each inventory, always the newest balance.
//!
//! These messages are news, not the books: they are not in the outbox, a change between two is not told, and `seq` says
//! which of two is newer. What is noted here goes out sooner or later, also after the bus was away; it is lost when the
//! program dies. Noting is a look into a map, so that the journal never waits for a bus.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::domain::ids::{InventoryId, ProductId};
use crate::domain::stock::Balance;
use crate::messaging::STOCK_CHANGED;
use crate::messaging::bus::{EventBus, Message};
use crate::messaging::stock_changed::StockChangedDocument;
use crate::persistence::clock::Clock;
use crate::persistence::{SharedStore, StoreError};

/// Least time between two messages about one inventory.
const PERIOD: Duration = Duration::from_secs(1);
/// The least time between two looks at what is due, while there is something to tell.
const LOOK_PERIOD: Duration = Duration::from_millis(100);
/// Messages of one look: a thousand a second at most. In a sale of very many products each is told less often than it may be, and
/// the orders have the broker and the processors to themselves.
const LOOK_MAX: usize = 100;
/// After each look there is a rest of so many times as long as it took, [`REST_MAX`] at most: where broker and processors are
/// busy a look takes long, and fewer than a thousand are told a second.
const REST_TIMES: u32 = 20;
/// See [`REST_TIMES`].
const REST_MAX: Duration = Duration::from_millis(500);
/// Messages published at a time at the end of the program.
const FLUSH_MAX: usize = 500;
/// Inventories that are remembered, some 100 bytes each. Beyond it those go that have nothing to tell; when all have,
/// as after a long outage in a very large shop, the change of another one is not told.
const INVENTORIES_MAX: usize = 250_000;

/// What is known of one inventory.
struct Noted {
    balance: Balance,
    /// Whose stock it is, once that has been read.
    product: Option<ProductId>,
    /// When it was last told.
    told_at: Option<Instant>,
    /// It waits in [`Notes::untold`].
    waits: bool,
}

/// All that is noted.
struct Notes {
    inventories: HashMap<InventoryId, Noted>,
    /// Those with something to tell, the longest waiting first.
    untold: VecDeque<InventoryId>,
    limit: usize,
}

impl Notes {
    fn new(limit: usize) -> Self {
        Self { inventories: HashMap::new(), untold: VecDeque::new(), limit }
    }

    /// Notes a balance, unless a newer one is known. `false` when there is no room for it.
    fn note(&mut self, inventory: InventoryId, balance: Balance) -> bool {
        if self.inventories.len() >= self.limit && !self.inventories.contains_key(&inventory) {
            self.inventories.retain(|_, noted| noted.waits);
            if self.inventories.len() >= self.limit {
                return false;
            }
        }
        let noted = match self.inventories.entry(inventory) {
            Entry::Occupied(entry) if entry.get().balance.seq >= balance.seq => return true,
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Noted { balance, product: None, told_at: None, waits: false }),
        };
        noted.balance = balance;
        if !std::mem::replace(&mut noted.waits, true) {
            self.untold.push_back(inventory);
        }
        true
    }

    /// Takes what is due at `now`, `max` at most: those that were told less than `period` ago are not.
    fn take_due(
        &mut self,
        now: Instant,
        period: Duration,
        max: usize,
    ) -> Vec<(InventoryId, Balance, Option<ProductId>)> {
        let mut due = Vec::new();
        let mut early = Vec::new();
        while due.len() < max
            && let Some(id) = self.untold.pop_front()
        {
            let Some(noted) = self.inventories.get_mut(&id) else { continue };
            if noted.told_at.is_none_or(|told| now.saturating_duration_since(told) >= period) {
                (noted.waits, noted.told_at) = (false, Some(now));
                due.push((id, noted.balance, noted.product));
            } else {
                early.push(id);
            }
        }
        early.into_iter().rev().for_each(|id| self.untold.push_front(id));
        due
    }

    /// What was taken did not go out.
    fn put_back(&mut self, inventory: InventoryId) {
        if let Some(noted) = self.inventories.get_mut(&inventory)
            && !std::mem::replace(&mut noted.waits, true)
        {
            self.untold.push_back(inventory);
        }
    }
}

/// Notes what changes, and tells it.
pub struct Announcer {
    notes: Mutex<Notes>,
    noted: Notify,
}

impl Default for Announcer {
    fn default() -> Self {
        Self { notes: Mutex::new(Notes::new(INVENTORIES_MAX)), noted: Notify::new() }
    }
}

/// What telling needs.
#[derive(Clone)]
pub struct AnnouncerParts {
    /// Where it is written whose stock an inventory is.
    pub store: SharedStore,
    /// The time that messages bear.
    pub clock: Clock,
    /// Where they go.
    pub bus: Arc<dyn EventBus>,
}

impl Announcer {
    /// Notes what inventories have come to. Waits for nobody.
    pub fn note(&self, changed: impl IntoIterator<Item = (InventoryId, Balance)>) {
        let mut notes = self.notes();
        let mut left_out = 0_u64;
        for (inventory, balance) in changed {
            left_out += u64::from(!notes.note(inventory, balance));
        }
        drop(notes);
        if left_out > 0 {
            tracing::warn!(left_out, "too many inventories wait to be told of; changes of others are not told");
        }
        self.noted.notify_one();
    }

    /// Tells what is noted, until `end`.
    pub async fn run(self: Arc<Self>, parts: AnnouncerParts, end: CancellationToken) {
        while end.run_until_cancelled(self.noted.notified()).await.is_some() {
            while self.has_news() {
                let began = Instant::now();
                self.tell_due(&parts, PERIOD, LOOK_MAX).await;
                if end.run_until_cancelled(tokio::time::sleep(rest(began.elapsed()))).await.is_none() {
                    return;
                }
            }
        }
    }

    /// Tells at once what is still to be told; for the end of the program.
    pub async fn flush(&self, parts: &AnnouncerParts) {
        while self.has_news() && self.tell_due(parts, Duration::ZERO, FLUSH_MAX).await > 0 {}
    }

    fn has_news(&self) -> bool {
        !self.notes().untold.is_empty()
    }

    /// Tells what is due, `max` at most; gives how many have gone out.
    async fn tell_due(&self, parts: &AnnouncerParts, period: Duration, max: usize) -> usize {
        if !parts.bus.is_ready() {
            return 0;
        }
        let due = self.notes().take_due(Instant::now(), period, max);
        if due.is_empty() { 0 } else { self.tell(parts, due).await }
    }

    async fn tell(&self, parts: &AnnouncerParts, due: Vec<(InventoryId, Balance, Option<ProductId>)>) -> usize {
        let (mut inventories, mut messages) = (Vec::with_capacity(due.len()), Vec::with_capacity(due.len()));
        // Together, so that the store may read many rows by one query.
        let made = due.into_iter().map(async |(inventory, balance, product)| {
            (inventory, self.message(parts, inventory, balance, product).await)
        });
        for (inventory, message) in join_all(made).await {
            match message {
                Ok(Some(message)) => {
                    inventories.push(inventory);
                    messages.push(message);
                }
                // There is no such inventory any more: nobody can be told whose stock it was.
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a change of stock waits to be told");
                    self.notes().put_back(inventory);
                }
            }
        }
        let confirmed = parts.bus.publish(&messages).await;
        let mut notes = self.notes();
        for (inventory, confirmed) in inventories.into_iter().zip(&confirmed) {
            if !confirmed {
                notes.put_back(inventory);
            }
        }
        confirmed.into_iter().filter(|confirmed| *confirmed).count()
    }

    async fn message(
        &self,
        parts: &AnnouncerParts,
        inventory: InventoryId,
        balance: Balance,
        product: Option<ProductId>,
    ) -> Result<Option<Message>, StoreError> {
        let product = match product {
            Some(product) => product,
            None => {
                let Some(record) = parts.store.inventory(inventory).await? else { return Ok(None) };
                if let Some(noted) = self.notes().inventories.get_mut(&inventory) {
                    noted.product = Some(record.product);
                }
                record.product
            }
        };
        let payload = serde_json::to_string(&StockChangedDocument::of(inventory, product, balance));
        // A document of numbers and identifiers is always JSON.
        Ok(payload.ok().map(|payload| Message {
            id: Uuid::now_v7().to_string(),
            queue: STOCK_CHANGED.to_owned(),
            payload,
            at: parts.clock.now(),
            traceparent: None,
        }))
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long is rested after a look that took so long.
fn rest(took: Duration) -> Duration {
    (took * REST_TIMES).clamp(LOOK_PERIOD, REST_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_a_look_took_the_longer_is_the_rest_within_bounds() {
        let rests = [0, 1, 5, 10, 25, 5_000].map(|took| rest(Duration::from_millis(took)).as_millis());
        assert_eq!(rests, [100, 100, 100, 200, 500, 500]);
    }

    fn id(number: u128) -> InventoryId {
        InventoryId(Uuid::from_u128(number))
    }

    fn balance(seq: i64) -> Balance {
        Balance { on_hand: 100 - seq, held: 0, seq }
    }

    fn seqs(due: Vec<(InventoryId, Balance, Option<ProductId>)>) -> Vec<(InventoryId, i64)> {
        due.into_iter().map(|(id, balance, _)| (id, balance.seq)).collect()
    }

    #[test]
    fn an_inventory_is_told_once_a_period_and_always_the_newest() {
        let (mut notes, start) = (Notes::new(10), Instant::now());
        notes.note(id(1), balance(1));
        notes.note(id(1), balance(3));
        notes.note(id(1), balance(2));
        notes.note(id(2), balance(7));
        assert_eq!(seqs(notes.take_due(start, PERIOD, 10)), [(id(1), 3), (id(2), 7)]);
        assert_eq!(seqs(notes.take_due(start + PERIOD, PERIOD, 10)), [], "nothing has changed");

        notes.note(id(1), balance(4));
        notes.note(id(1), balance(5));
        assert_eq!(seqs(notes.take_due(start + PERIOD / 2, PERIOD, 10)), [], "too early");
        assert_eq!(notes.untold, [id(1)], "but not forgotten");
        assert_eq!(seqs(notes.take_due(start + PERIOD, PERIOD, 10)), [(id(1), 5)]);
    }

    #[test]
    fn what_did_not_go_out_is_told_later_as_it_is_then() {
        let (mut notes, start) = (Notes::new(10), Instant::now());
        notes.note(id(1), balance(1));
        assert_eq!(seqs(notes.take_due(start, PERIOD, 10)), [(id(1), 1)]);
        notes.put_back(id(1));
        notes.note(id(1), balance(2));
        notes.put_back(id(1));
        assert_eq!(seqs(notes.take_due(start + PERIOD, PERIOD, 10)), [(id(1), 2)]);
        assert_eq!(seqs(notes.take_due(start + PERIOD * 2, PERIOD, 10)), []);
    }

    #[test]
    fn of_more_than_can_be_told_those_that_wait_longest_are_first() {
        let (mut notes, start) = (Notes::new(10), Instant::now());
        (1..=3).for_each(|number| assert!(notes.note(id(number), balance(1))));
        assert_eq!(seqs(notes.take_due(start, PERIOD, 2)), [(id(1), 1), (id(2), 1)]);
        notes.note(id(1), balance(2));
        assert_eq!(seqs(notes.take_due(start + PERIOD, PERIOD, 2)), [(id(3), 1), (id(1), 2)]);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_waits_is_not_forgotten_for_it() {
        let (mut notes, start) = (Notes::new(2), Instant::now());
        assert!(notes.note(id(1), balance(1)) && notes.note(id(2), balance(1)));
        assert!(!notes.note(id(3), balance(1)), "both have something to tell");
        assert!(notes.note(id(2), balance(2)), "one that is known is noted");
        assert_eq!(notes.take_due(start, PERIOD, 10).len(), 2);
        notes.put_back(id(2));
        assert!(notes.note(id(3), balance(1)), "the first one has nothing to tell");
        assert_eq!(seqs(notes.take_due(start + PERIOD, PERIOD, 10)), [(id(2), 2), (id(3), 1)]);
        assert_eq!(notes.inventories.len(), 2);
    }
}
